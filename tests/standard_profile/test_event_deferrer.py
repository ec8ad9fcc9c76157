"""The hub's events and a client that is finding out who is there."""

from __future__ import annotations

from pyvo.samp.standard_profile.callback_sender import DISCOVERY_PERIOD, QUIET_PERIOD, EventDeferrer
from tests.broker.clockwork import Clock


class Harness:
    def __init__(self) -> None:
        self.clock = Clock()
        self.delivered: list[int] = []
        self.deferrer: EventDeferrer = EventDeferrer(self.delivered.append, self.clock.call_later, self.clock)

    def deliver(self, *events: int) -> None:
        for event in events:
            self.deferrer.deliver(event)


def test_events_go_on_at_once_to_one_that_asks_nothing() -> None:
    harness = Harness()
    harness.deliver(1, 2)
    assert harness.delivered == [1, 2]
    assert harness.clock.set_in_all == 0


def test_events_wait_until_all_is_asked() -> None:
    harness = Harness()
    harness.deferrer.on_discovery_call()
    for event in range(10):
        harness.clock.pass_time(0.6 * QUIET_PERIOD)
        harness.deliver(event)
        harness.deferrer.on_discovery_call()
    assert harness.delivered == []
    harness.clock.pass_time(QUIET_PERIOD)
    assert harness.delivered == list(range(10))
    harness.deliver(10)
    assert harness.delivered[-1] == 10
    assert not harness.clock.alarms


def test_one_that_goes_on_asking_is_new_no_longer() -> None:
    harness = Harness()
    harness.deferrer.on_discovery_call()
    harness.deliver(1)
    asked = 0.0
    while not harness.delivered:
        harness.clock.pass_time(0.5 * QUIET_PERIOD)
        harness.deferrer.on_discovery_call()
        asked += 0.5 * QUIET_PERIOD
    assert DISCOVERY_PERIOD <= asked <= DISCOVERY_PERIOD + 2 * QUIET_PERIOD
    harness.deferrer.on_discovery_call()
    harness.deliver(2)
    assert harness.delivered == [1, 2]


def test_release() -> None:
    """At the hub's end nothing waits any more."""
    harness = Harness()
    harness.deferrer.on_discovery_call()
    harness.deliver(1, 2)
    harness.deferrer.flush()
    assert harness.delivered == [1, 2]
    harness.deferrer.on_discovery_call()
    harness.deliver(3)
    assert harness.delivered == [1, 2, 3]
    assert not harness.clock.alarms


def test_close() -> None:
    """What waits is handed back, and not delivered later."""
    harness = Harness()
    harness.deferrer.on_discovery_call()
    harness.deliver(1, 2)
    assert harness.deferrer.drain() == [1, 2]
    harness.clock.pass_time(10)
    assert harness.delivered == []
