# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Test doubles: an event loop whose clock the test moves, and connections that the test breaks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


class FakeTimer:
    def __init__(self, when: float, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when, self.function, self.args = when, function, args
        self.active = True

    def cancel(self) -> None:
        self.active = False


class FakeLoop:
    def __init__(self) -> None:
        self.now = 0.0
        self.ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.timers: list[FakeTimer] = []

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        self.ready.append((function, args))

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> FakeTimer:
        timer = FakeTimer(self.now + delay, function, args)
        self.timers.append(timer)
        return timer

    def run(self, seconds: float = 0.0) -> None:
        """Run the calls that are ready, and the timers of the next seconds."""
        end = self.now + seconds
        self.run_ready()
        while due := [timer for timer in self.timers if timer.active and timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.now = timer.when
            function, args = timer.function, timer.args
            timer.cancel()
            function(*args)
            self.run_ready()
        self.now = end

    def run_ready(self) -> None:
        while self.ready:
            function, args = self.ready.popleft()
            function(*args)

    @property
    def active(self) -> int:
        return sum(timer.active for timer in self.timers)


class FakeConnection:
    def __init__(self) -> None:
        self.closed = False
        self.was_left = False
        self.was_reset = False
        self.requests = 1
        self.left = False
        self.was_idle = True
        self.close_callbacks: dict[object, Callable[[], object]] = {}

    def peer_is_open(self) -> bool:
        self.was_left = self.was_left or self.left
        return not (self.closed or self.left)

    def close(self, *, left: bool = True) -> None:
        """Do what the transport does when the other side has closed (``left``), or the hub."""
        self.closed = True
        self.was_left = self.was_left or left
        callbacks, self.close_callbacks = self.close_callbacks, {}
        for callback in callbacks.values():
            callback()
