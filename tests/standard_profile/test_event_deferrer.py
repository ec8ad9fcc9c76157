"""The hub's events and a client that is finding out who is there."""

from __future__ import annotations

from pyvo.samp.standard_profile.callback_sender import NEW, QUIET, Newcomer
from tests.broker.clockwork import Clock


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.delivered: list[int] = []
        self.newcomer: Newcomer[int] = Newcomer(self.delivered.append, self.clock.call_later, self.clock)

    def take(self, *events: int) -> None:
        for event in events:
            self.newcomer.take(event)


def test_events_go_on_at_once_to_one_that_asks_nothing() -> None:
    bench = Bench()
    bench.take(1, 2)
    assert bench.delivered == [1, 2]
    assert bench.clock.set_in_all == 0


def test_events_wait_until_all_is_asked() -> None:
    bench = Bench()
    bench.newcomer.asks()
    for event in range(10):
        bench.clock.pass_time(0.6 * QUIET)
        bench.take(event)
        bench.newcomer.asks()
    assert bench.delivered == []
    bench.clock.pass_time(QUIET)
    assert bench.delivered == list(range(10))
    bench.take(10)
    assert bench.delivered[-1] == 10
    assert not bench.clock.alarms


def test_one_that_goes_on_asking_is_new_no_longer() -> None:
    bench = Bench()
    bench.newcomer.asks()
    bench.take(1)
    asked = 0.0
    while not bench.delivered:
        bench.clock.pass_time(0.5 * QUIET)
        bench.newcomer.asks()
        asked += 0.5 * QUIET
    assert NEW <= asked <= NEW + 2 * QUIET
    bench.newcomer.asks()
    bench.take(2)
    assert bench.delivered == [1, 2]


def test_release() -> None:
    """At the hub's end nothing waits any more."""
    bench = Bench()
    bench.newcomer.asks()
    bench.take(1, 2)
    bench.newcomer.release()
    assert bench.delivered == [1, 2]
    bench.newcomer.asks()
    bench.take(3)
    assert bench.delivered == [1, 2, 3]
    assert not bench.clock.alarms


def test_close() -> None:
    """What waits is handed back, and not delivered later."""
    bench = Bench()
    bench.newcomer.asks()
    bench.take(1, 2)
    assert bench.newcomer.close() == [1, 2]
    bench.clock.pass_time(10)
    assert bench.delivered == []
