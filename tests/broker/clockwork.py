"""Test doubles: a clock that only the test moves, and a delivery queue that keeps its deliveries."""

from __future__ import annotations

from collections.abc import Callable

from pyvo.samp.broker import Delivery


class Clock:
    """Returns the time, and runs timers when a test lets time pass."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alarms: list[Alarm] = []
        self.set_in_all = 0

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> Alarm:
        alarm = Alarm(self, self.now + delay, function)
        self.alarms.append(alarm)
        self.set_in_all += 1
        return alarm

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [alarm for alarm in self.alarms if alarm.when <= end]:
            first = min(due, key=lambda alarm: alarm.when)
            first.cancel()
            self.now = max(self.now, first.when)
            first.function()
        self.now = end


class Alarm:
    def __init__(self, clock: Clock, when: float, function: Callable[[], None]) -> None:
        self.clock = clock
        self.when = when
        self.function = function

    def cancel(self) -> None:
        if self in self.clock.alarms:
            self.clock.alarms.remove(self)


class ListQueue:
    """Keeps the deliveries that it receives."""

    def __init__(self) -> None:
        self.received: list[Delivery] = []
        self.closed = False
        self.final_delivery: Delivery | None = None

    def put(self, delivery: Delivery) -> None:
        assert not self.closed
        self.received.append(delivery)

    def close(self, final_delivery: Delivery | None) -> None:
        assert not self.closed
        self.closed = True
        self.final_delivery = final_delivery

    def pop_received(self) -> list[Delivery]:
        received, self.received = self.received, []
        return received
