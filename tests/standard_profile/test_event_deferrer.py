"""The hub defers events for a client that is querying the other clients."""

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


def test_events_are_delivered_at_once_without_discovery_calls() -> None:
    harness = Harness()
    harness.deliver(1, 2)
    assert harness.delivered == [1, 2]
    assert harness.clock.timers_set == 0


def test_events_wait_until_the_client_is_quiet() -> None:
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
    assert not harness.clock.timers


def test_events_wait_no_longer_than_the_discovery_period() -> None:
    harness = Harness()
    harness.deferrer.on_discovery_call()
    harness.deliver(1)
    elapsed = 0.0
    while not harness.delivered:
        harness.clock.pass_time(0.5 * QUIET_PERIOD)
        harness.deferrer.on_discovery_call()
        elapsed += 0.5 * QUIET_PERIOD
    assert DISCOVERY_PERIOD <= elapsed <= DISCOVERY_PERIOD + 2 * QUIET_PERIOD
    harness.deferrer.on_discovery_call()
    harness.deliver(2)
    assert harness.delivered == [1, 2]


def test_flush() -> None:
    """At the hub's shutdown, all deferred events are delivered, and later ones are not deferred."""
    harness = Harness()
    harness.deferrer.on_discovery_call()
    harness.deliver(1, 2)
    harness.deferrer.flush()
    assert harness.delivered == [1, 2]
    harness.deferrer.on_discovery_call()
    harness.deliver(3)
    assert harness.delivered == [1, 2, 3]
    assert not harness.clock.timers


def test_drain() -> None:
    """The waiting events are returned, and not delivered later."""
    harness = Harness()
    harness.deferrer.on_discovery_call()
    harness.deliver(1, 2)
    assert harness.deferrer.drain() == [1, 2]
    harness.clock.pass_time(10)
    assert harness.delivered == []
