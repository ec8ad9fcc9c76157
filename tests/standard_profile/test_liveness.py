"""Finding clients that ended without unregistering (R23)."""

from __future__ import annotations

import errno
import queue
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyvo.samp.standard_profile import liveness
from pyvo.samp.standard_profile.liveness import Address, ConnectProbe, LivenessChecker
from pyvo.samp.transport.event_loop import EventLoop
from tests.broker.clockwork import Clock, FakeTimer


class FakeClient:
    """A client to probe."""

    def __init__(self, number: int) -> None:
        self.address: Address = ("127.0.0.1", number)
        self.is_connected = False
        self.owes_response = False
        self.dead_calls = 0

    def on_client_dead(self) -> None:
        self.dead_calls += 1


class FakeProbe:
    """A probe whose result the test sets."""

    made: list[FakeProbe]

    def __init__(self, _loop: object, address: Address, on_result: Callable[[bool], object]) -> None:
        self.address = address
        self.on_result = on_result
        self.made.append(self)

    def cancel(self) -> None:
        self.on_result(False)


class FakeLoop:
    """An event loop with timers only."""

    def __init__(self) -> None:
        self.clock = Clock()

    def call_later(self, delay: float, function: Callable[..., Any], *args: Any) -> FakeTimer:
        return self.clock.call_later(delay, lambda: function(*args))


class Harness:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.liveness = LivenessChecker(self.loop)  # type: ignore[arg-type]
        FakeProbe.made = []

    def probes(self) -> list[FakeProbe]:
        """Return the probes made since the last call."""
        made, FakeProbe.made = FakeProbe.made, []
        return made

    def pass_time(self, seconds: float) -> list[FakeProbe]:
        self.loop.clock.pass_time(seconds)
        return self.probes()


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr(liveness, "ConnectProbe", FakeProbe)
    return Harness()


def test_every_client_is_probed_every_fifteen_seconds(harness: Harness) -> None:
    clients = [FakeClient(number) for number in range(13)]
    for client in clients:
        harness.liveness.add(client)
    for _ in range(3):
        seen: list[int] = []
        for _ in range(5):
            probes = harness.pass_time(3.0)
            assert len(probes) <= 3
            for probe in probes:
                seen.append(probe.address[1])
                probe.on_result(False)
        assert set(seen) == set(range(13))
    assert not any(client.dead_calls for client in clients)


def test_clients_that_owe_a_response_are_probed_every_round(harness: Harness) -> None:
    """R23: clients with an open connection are not probed."""
    clients = [FakeClient(number) for number in range(10)]
    for client in clients:
        harness.liveness.add(client)
    clients[7].owes_response = clients[8].owes_response = clients[8].is_connected = True
    for _ in range(5):
        probes = harness.pass_time(3.0)
        numbers = [probe.address[1] for probe in probes]
        assert numbers.count(7) == 1
        assert 8 not in numbers
        for probe in probes:
            probe.on_result(False)


def test_a_client_is_dead_after_two_refused_connections(harness: Harness) -> None:
    client = FakeClient(1)
    harness.liveness.add(client)
    harness.liveness.check(client)
    harness.liveness.check(client)
    [probe] = harness.probes()
    probe.on_result(True)
    assert not client.dead_calls
    harness.liveness.check(client)  # the second probe is in progress
    [second] = harness.pass_time(0.5)
    second.on_result(False)
    assert not client.dead_calls
    harness.liveness.check(client)
    [probe] = harness.probes()
    probe.on_result(True)
    [second] = harness.pass_time(0.5)
    second.on_result(True)
    assert client.dead_calls == 1


@pytest.mark.parametrize("moment", ["first probe", "between", "second probe"])
def test_a_discarded_client_is_not_reported(harness: Harness, moment: str) -> None:
    client = FakeClient(1)
    harness.liveness.add(client)
    harness.liveness.check(client)
    [probe] = harness.probes()
    if moment != "first probe":
        probe.on_result(True)
    if moment == "second probe":
        [probe] = harness.pass_time(0.5)
    harness.liveness.discard(client)
    harness.liveness.discard(client)
    probe.on_result(True)
    assert not harness.pass_time(60.0)
    assert not client.dead_calls
    assert not harness.loop.clock.timers  # no client, no timer
    harness.liveness.check(client)
    assert not harness.probes()


def test_close(harness: Harness) -> None:
    for number in range(5):
        harness.liveness.add(FakeClient(number))
    harness.pass_time(3.0)
    harness.liveness.close()
    assert not harness.pass_time(60.0)
    assert not harness.loop.clock.timers


# Probes over real sockets


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop("test-liveness")
    loop.start()
    yield loop
    loop.stop()


def probe_address(loop: EventLoop, address: Address) -> bool:
    results: queue.Queue[bool] = queue.Queue()
    loop.call_soon(ConnectProbe, loop, address, results.put)
    result = results.get(timeout=10)
    assert results.empty()
    return result


def test_probe_of_a_closed_port_and_an_open_one(loop: EventLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert probe_address(loop, address) is False
        server.accept()[0].close()
    assert probe_address(loop, address) is True


def test_probe_without_a_result(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not respond does not count as ended."""
    monkeypatch.setattr(liveness, "PROBE_TIMEOUT", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for sock in (first, second):  # now the backlog is full, and further connections hang
            sock.setblocking(False)
            assert sock.connect_ex(server.getsockname()) in (0, errno.EINPROGRESS)
        assert probe_address(loop, server.getsockname()) is False


def test_probe_without_a_free_descriptor(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(liveness.socket, "socket", fail)
    assert probe_address(loop, ("127.0.0.1", 1)) is False
