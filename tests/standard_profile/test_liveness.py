"""Who is still there (R23)."""

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
from tests.broker.clockwork import Alarm, Clock


class Someone:
    """A patient."""

    def __init__(self, number: int) -> None:
        self.address: Address = ("127.0.0.1", number)
        self.is_connected = False
        self.is_awaited = False
        self.deaths = 0

    def on_client_dead(self) -> None:
        self.deaths += 1


class FakeProbe:
    """A look whose result a test decides on."""

    made: list[FakeProbe]

    def __init__(self, _loop: object, address: Address, on_result: Callable[[bool], object]) -> None:
        self.address = address
        self.on_result = on_result
        self.made.append(self)

    def cancel(self) -> None:
        self.on_result(False)


class FakeLoop:
    """The clock of a loop."""

    def __init__(self) -> None:
        self.clock = Clock()

    def call_later(self, delay: float, function: Callable[..., Any], *args: Any) -> Alarm:
        return self.clock.call_later(delay, lambda: function(*args))


class Bench:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.liveness = LivenessChecker(self.loop)  # type: ignore[arg-type]
        FakeProbe.made = []

    def looks(self) -> list[FakeProbe]:
        """The looks since the last time."""
        made, FakeProbe.made = FakeProbe.made, []
        return made

    def pass_time(self, seconds: float) -> list[FakeProbe]:
        self.loop.clock.pass_time(seconds)
        return self.looks()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(liveness, "ConnectProbe", FakeProbe)
    return Bench()


def test_everybody_is_looked_at_every_fifteen_seconds(bench: Bench) -> None:
    people = [Someone(number) for number in range(13)]
    for one in people:
        bench.liveness.add(one)
    for _ in range(3):
        seen: list[int] = []
        for _ in range(5):
            looks = bench.pass_time(3.0)
            assert len(looks) <= 3
            for look in looks:
                seen.append(look.address[1])
                look.on_result(False)
        assert set(seen) == set(range(13))
    assert not any(one.deaths for one in people)


def test_those_who_are_awaited_are_looked_at_every_time(bench: Bench) -> None:
    """R23: a caller waits for their answer; but not those to whom a connection is kept."""
    people = [Someone(number) for number in range(10)]
    for one in people:
        bench.liveness.add(one)
    people[7].is_awaited = people[8].is_awaited = people[8].is_connected = True
    for _ in range(5):
        looks = bench.pass_time(3.0)
        numbers = [look.address[1] for look in looks]
        assert numbers.count(7) == 1
        assert 8 not in numbers
        for look in looks:
            look.on_result(False)


def test_two_refusals_are_needed(bench: Bench) -> None:
    one = Someone(1)
    bench.liveness.add(one)
    bench.liveness.check(one)
    bench.liveness.check(one)
    [look] = bench.looks()
    look.on_result(True)
    assert not one.deaths
    bench.liveness.check(one)  # the second look is under way
    [second] = bench.pass_time(0.5)
    second.on_result(False)
    assert not one.deaths
    bench.liveness.check(one)
    [look] = bench.looks()
    look.on_result(True)
    [second] = bench.pass_time(0.5)
    second.on_result(True)
    assert one.deaths == 1


@pytest.mark.parametrize("moment", ["first look", "between", "second look"])
def test_who_left_is_not_pronounced_dead(bench: Bench, moment: str) -> None:
    one = Someone(1)
    bench.liveness.add(one)
    bench.liveness.check(one)
    [look] = bench.looks()
    if moment != "first look":
        look.on_result(True)
    if moment == "second look":
        [look] = bench.pass_time(0.5)
    bench.liveness.discard(one)
    bench.liveness.discard(one)
    look.on_result(True)
    assert not bench.pass_time(60.0)
    assert not one.deaths
    assert not bench.loop.clock.alarms  # nobody left to look after: no timer
    bench.liveness.check(one)
    assert not bench.looks()


def test_close(bench: Bench) -> None:
    for number in range(5):
        bench.liveness.add(Someone(number))
    bench.pass_time(3.0)
    bench.liveness.close()
    assert not bench.pass_time(60.0)
    assert not bench.loop.clock.alarms


# A look over real sockets


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop("test-liveness")
    loop.start()
    yield loop
    loop.stop()


def look(loop: EventLoop, address: Address) -> bool:
    results: queue.Queue[bool] = queue.Queue()
    loop.call_soon(ConnectProbe, loop, address, results.put)
    result = results.get(timeout=10)
    assert results.empty()
    return result


def test_a_look_at_a_closed_port_and_an_open_one(loop: EventLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert look(loop, address) is False
        server.accept()[0].close()
    assert look(loop, address) is True


def test_a_look_that_shows_nothing(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not answer is not taken for dead."""
    monkeypatch.setattr(liveness, "PROBE_TIMEOUT", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for sock in (first, second):  # now its queue is full, and further attempts hang
            sock.setblocking(False)
            assert sock.connect_ex(server.getsockname()) in (0, errno.EINPROGRESS)
        assert look(loop, server.getsockname()) is False


def test_a_look_that_cannot_be_made(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(liveness.socket, "socket", none_left)
    assert look(loop, ("127.0.0.1", 1)) is False
