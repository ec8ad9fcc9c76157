"""Test doubles: a clock that only the test moves, and a delivery queue that keeps its deliveries."""

from __future__ import annotations

from collections.abc import Callable

from pyvo.samp.broker import Delivery


class Clock:
    """A clock that runs its timers when a test calls `pass_time`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[FakeTimer] = []
        self.timers_set = 0

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self, self.now + delay, function)
        self.timers.append(timer)
        self.timers_set += 1
        return timer

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            first = min(due, key=lambda timer: timer.when)
            first.cancel()
            self.now = max(self.now, first.when)
            first.function()
        self.now = end


class FakeTimer:
    def __init__(self, clock: Clock, when: float, function: Callable[[], None]) -> None:
        self.clock = clock
        self.when = when
        self.function = function

    def cancel(self) -> None:
        if self in self.clock.timers:
            self.clock.timers.remove(self)


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
