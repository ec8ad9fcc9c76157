"""The hub's events and a client that is finding out who is there."""

from __future__ import annotations

from pyvo.samp.standard_profile.callback_sender import DISCOVERY_PERIOD, QUIET_PERIOD, EventDeferrer
from tests.broker.clockwork import Clock


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.delivered: list[int] = []
        self.newcomer: EventDeferrer[int] = EventDeferrer(self.delivered.append, self.clock.call_later, self.clock)

    def take(self, *events: int) -> None:
        for event in events:
            self.newcomer.deliver(event)


def test_events_go_on_at_once_to_one_that_asks_nothing() -> None:
    bench = Bench()
    bench.take(1, 2)
    assert bench.delivered == [1, 2]
    assert bench.clock.set_in_all == 0


def test_events_wait_until_all_is_asked() -> None:
    bench = Bench()
    bench.newcomer.on_discovery_call()
    for event in range(10):
        bench.clock.pass_time(0.6 * QUIET_PERIOD)
        bench.take(event)
        bench.newcomer.on_discovery_call()
    assert bench.delivered == []
    bench.clock.pass_time(QUIET_PERIOD)
    assert bench.delivered == list(range(10))
    bench.take(10)
    assert bench.delivered[-1] == 10
    assert not bench.clock.alarms


def test_one_that_goes_on_asking_is_new_no_longer() -> None:
    bench = Bench()
    bench.newcomer.on_discovery_call()
    bench.take(1)
    asked = 0.0
    while not bench.delivered:
        bench.clock.pass_time(0.5 * QUIET_PERIOD)
        bench.newcomer.on_discovery_call()
        asked += 0.5 * QUIET_PERIOD
    assert DISCOVERY_PERIOD <= asked <= DISCOVERY_PERIOD + 2 * QUIET_PERIOD
    bench.newcomer.on_discovery_call()
    bench.take(2)
    assert bench.delivered == [1, 2]


def test_release() -> None:
    """At the hub's end nothing waits any more."""
    bench = Bench()
    bench.newcomer.on_discovery_call()
    bench.take(1, 2)
    bench.newcomer.flush()
    assert bench.delivered == [1, 2]
    bench.newcomer.on_discovery_call()
    bench.take(3)
    assert bench.delivered == [1, 2, 3]
    assert not bench.clock.alarms


def test_close() -> None:
    """What waits is handed back, and not delivered later."""
    bench = Bench()
    bench.newcomer.on_discovery_call()
    bench.take(1, 2)
    assert bench.newcomer.drain() == [1, 2]
    bench.clock.pass_time(10)
    assert bench.delivered == []
