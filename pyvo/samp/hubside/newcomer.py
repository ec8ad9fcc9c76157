# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The hub's events for a client that is still finding out who is there.

Theory of operation
-------------------
JSAMP's clients, TOPCAT and Aladin among them, begin by asking who is registered, and then for the metadata and the
subscriptions of each, one request after the other; the whole replaces what they have known before. An event that
reaches them in the middle of that is lost on them: they never see a program that registered in those moments, and
their users cannot send it anything. With twenty programs connected that is a fifth of a second.

So as long as a newcomer asks such questions the hub's events wait for it, in their order. Messages of others do
not wait; and a client that goes on asking for longer than it is new gets everything as it comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["Newcomer"]

T = TypeVar("T")

#: Seconds without a question after which a newcomer knows enough.
QUIET = 0.25
#: Seconds for which a client is new.
NEW = 5.0


class _Timer(Protocol):
    def cancel(self) -> object: ...


class Newcomer(Generic[T]):
    """
    Keeps events back while their recipient asks who is there. All in one thread.

    Parameters
    ----------
    deliver : callable
        Called with each event, once it need not wait any more.
    call_later : callable
        Called with seconds and a function; returns an object with a ``cancel()``. `Loop.call_later` is one.
    clock : callable
        Tells the time in seconds.
    """

    def __init__(
        self,
        deliver: Callable[[T], object],
        call_later: Callable[[float, Callable[[], None]], _Timer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._call_later = call_later
        self._clock = clock
        self._new_until = clock() + NEW
        self._quiet_at = 0.0
        self._timer: _Timer | None = None
        self._waiting: list[T] = []

    def asks(self) -> None:
        """Take note that the client asks who is there, or what somebody is like."""
        now = self._clock()
        if now < self._new_until:
            self._quiet_at = now + QUIET
            if self._timer is None:
                self._timer = self._call_later(QUIET, self._on_timer)

    def take(self, event: T) -> None:
        """Deliver an event, now or in its time."""
        if self._timer is None:
            self._deliver(event)
        else:
            self._waiting.append(event)

    def release(self) -> None:
        """Deliver what waits, and let nothing wait any more."""
        for event in self.close():
            self._deliver(event)

    def close(self) -> list[T]:
        """
        Let nothing wait any more.

        Returns
        -------
        list
            What has waited, and is not delivered.
        """
        self._new_until = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        return waiting

    def _on_timer(self) -> None:
        self._timer = None
        left = self._quiet_at - self._clock()
        if left > 0:
            self._timer = self._call_later(left, self._on_timer)
            return
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            self._deliver(event)
