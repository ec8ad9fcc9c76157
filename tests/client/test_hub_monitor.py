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
    """A loop that runs."""
    loop = EventLoop("test")
    loop.start()
    yield loop
    loop.stop()


class Hub:
    """Answers every ping, keeps its connections open or not, and queues them when it is pinged."""

    def __init__(self, *, keeps: bool, answer: bytes) -> None:
        self.keeps = keeps
        self.answer = answer
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
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(self.answer)
            end = b"Connection: keep-alive\r\n\r\n" if self.keeps else b"Connection: close\r\n\r\n"
            connection.sendall(head + end + self.answer)
            if self.keeps:
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
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything ten times as fast."""
    for name in ("FIRST_PING", "PING_INTERVAL", "RETRY_DELAY"):
        monkeypatch.setattr(hub_monitor, name, getattr(hub_monitor, name) / 10)


def monitoring(loop: EventLoop, url: str) -> tuple[HubMonitor, queue.Queue[str]]:
    gone: queue.Queue[str] = queue.Queue()
    return HubMonitor(loop, url, lambda: b"<ping/>", gone.put), gone


def test_a_hub_that_keeps_its_connections(loop: EventLoop) -> None:
    """It is asked once, and again when a connection was closed; when it is gone that is known at once."""
    hub = Hub(keeps=True, answer=OK)
    monitor, gone = monitoring(loop, hub.url)
    connection = hub.pinged.get(timeout=5)
    with pytest.raises(queue.Empty):
        hub.pinged.get(timeout=1.5)
    connection.shutdown(socket.SHUT_RDWR)  # tidied up
    hub.pinged.get(timeout=5)
    assert gone.empty()
    hub.stop()
    assert "refused" in gone.get(timeout=2)
    monitor.stop()


def test_a_hub_that_keeps_none(loop: EventLoop) -> None:
    """It is asked now and then."""
    hub = Hub(keeps=False, answer=OK)
    monitor, gone = monitoring(loop, hub.url)
    for _ in range(3):
        hub.pinged.get(timeout=5)
    hub.stop()
    assert gone.get(timeout=5)
    monitor.stop()


def test_another_hub(loop: EventLoop) -> None:
    """A hub that does not know the client is not its hub."""
    hub = Hub(keeps=True, answer=write_fault(1, "unknown key"))
    monitor, gone = monitoring(loop, hub.url)
    assert "unknown key" in gone.get(timeout=5)
    monitor.stop()
    hub.stop()


def test_one_failure(loop: EventLoop) -> None:
    """A hub that once gives no proper answer is asked once more, and only given up after that."""
    hub = Hub(keeps=False, answer=b"rubbish")
    monitor, gone = monitoring(loop, hub.url)
    hub.pinged.get(timeout=5)
    hub.answer = OK
    for _ in range(2):
        hub.pinged.get(timeout=5)
    assert gone.empty()
    hub.answer = b"rubbish"
    assert "not XML-RPC" in gone.get(timeout=5)
    monitor.stop()
    hub.stop()


def test_stopped(loop: EventLoop) -> None:
    """A monitor that was stopped sends no pings and reports nothing."""
    hub = Hub(keeps=True, answer=OK)
    monitor, gone = monitoring(loop, hub.url)
    monitor.stop()
    monitor.stop()
    with pytest.raises(queue.Empty):
        hub.pinged.get(timeout=0.5)
    hub.stop()
    assert gone.empty()


def test_not_registered_yet(loop: EventLoop) -> None:
    """The monitor sends no ping while the client is not registered, and pings later."""
    hub = Hub(keeps=True, answer=OK)
    pings: queue.Queue[bytes | None] = queue.Queue()
    for question in (None, None, b"<ping/>"):
        pings.put(question)
    monitor = HubMonitor(loop, hub.url, pings.get, print)
    hub.pinged.get(timeout=5)
    assert pings.empty()
    monitor.stop()
    hub.stop()
