"""How an idle client monitors its hub, with hubs that keep connections open and hubs that do not."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from pyvo.samp.client import hub_monitor
from pyvo.samp.client.hub_monitor import HubMonitor
from pyvo.samp.transport.event_loop import EventLoop
from pyvo.samp.transport.xmlrpc_writer import write_fault, write_response


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A running event loop."""
    loop = EventLoop("test")
    loop.start()
    yield loop
    loop.stop()


class Hub:
    """A hub that responds to every ping, keeps connections open or closes them, and queues them after each ping."""

    def __init__(self, *, keep_open: bool, response: bytes) -> None:
        self.keep_open = keep_open
        self.response = response
        self.pinged: queue.Queue[socket.socket] = queue.Queue()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.recv(10000)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(self.response)
            end = b"Connection: keep-alive\r\n\r\n" if self.keep_open else b"Connection: close\r\n\r\n"
            connection.sendall(head + end + self.response)
            if self.keep_open:
                self._open.append(connection)
            else:
                connection.close()
            self.pinged.put(connection)

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self._open:
            connection.close()


OK = write_response("")


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide all intervals of the monitor by ten."""
    for name in ("FIRST_PING", "PING_INTERVAL", "RETRY_DELAY"):
        monkeypatch.setattr(hub_monitor, name, getattr(hub_monitor, name) / 10)


def start_monitor(loop: EventLoop, url: str) -> tuple[HubMonitor, queue.Queue[str]]:
    gone: queue.Queue[str] = queue.Queue()
    return HubMonitor(loop, url, lambda: b"<ping/>", gone.put), gone


def test_a_hub_that_keeps_connections_open(loop: EventLoop) -> None:
    """The monitor pings once, and again after the connection was closed. It notices at once that the hub is gone."""
    hub = Hub(keep_open=True, response=OK)
    monitor, gone = start_monitor(loop, hub.url)
    connection = hub.pinged.get(timeout=5)
    with pytest.raises(queue.Empty):
        hub.pinged.get(timeout=1.5)
    connection.shutdown(socket.SHUT_RDWR)  # the hub closes an idle connection
    hub.pinged.get(timeout=5)
    assert gone.empty()
    hub.stop()
    assert "refused" in gone.get(timeout=2)
    monitor.stop()


def test_a_hub_that_closes_connections(loop: EventLoop) -> None:
    """The monitor pings at intervals, because no open connection shows that the hub still runs."""
    hub = Hub(keep_open=False, response=OK)
    monitor, gone = start_monitor(loop, hub.url)
    for _ in range(3):
        hub.pinged.get(timeout=5)
    hub.stop()
    assert gone.get(timeout=5)
    monitor.stop()


def test_another_hub(loop: EventLoop) -> None:
    """A hub that does not know the client's key is another hub: the monitor reports that the client's hub is gone."""
    hub = Hub(keep_open=True, response=write_fault(1, "unknown key"))
    monitor, gone = start_monitor(loop, hub.url)
    assert "unknown key" in gone.get(timeout=5)
    monitor.stop()
    hub.stop()


def test_one_failure(loop: EventLoop) -> None:
    """After one invalid response the monitor pings again; it reports that the hub is gone only after a second one."""
    hub = Hub(keep_open=False, response=b"rubbish")
    monitor, gone = start_monitor(loop, hub.url)
    hub.pinged.get(timeout=5)
    hub.response = OK
    for _ in range(2):
        hub.pinged.get(timeout=5)
    assert gone.empty()
    hub.response = b"rubbish"
    assert "not XML-RPC" in gone.get(timeout=5)
    monitor.stop()
    hub.stop()


def test_stopped(loop: EventLoop) -> None:
    """A monitor that was stopped sends no pings and reports nothing."""
    hub = Hub(keep_open=True, response=OK)
    monitor, gone = start_monitor(loop, hub.url)
    monitor.stop()
    monitor.stop()
    with pytest.raises(queue.Empty):
        hub.pinged.get(timeout=0.5)
    hub.stop()
    assert gone.empty()


def test_not_registered_yet(loop: EventLoop) -> None:
    """The monitor sends no ping while the client is not registered, and pings later."""
    hub = Hub(keep_open=True, response=OK)
    pings: queue.Queue[bytes | None] = queue.Queue()
    for ping in (None, None, b"<ping/>"):
        pings.put(ping)
    gone: queue.Queue[str] = queue.Queue()
    monitor = HubMonitor(loop, hub.url, pings.get, gone.put)
    hub.pinged.get(timeout=5)
    assert pings.empty()
    monitor.stop()
    hub.stop()
    assert gone.empty()
