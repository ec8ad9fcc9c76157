# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
In order, but never behind one that is stuck (rule R24).

The hub uses this towards a client, where starting an item means to send it; a client uses it towards the
user's handlers, where it means to run one.

Theory of operation
-------------------
Items are started in the order in which they were put. The one that was started last is the *head*; while it is
at work nothing else is started, so that in the usual case items are worked on one after the other. A head that is
not done after a grace time steps *aside*: it goes on, and the next item is started beside it and becomes the
head. So a handler that waits for a nested call meets the message it waits for, and one that never
ends delays the rest by no more than the grace time, once.

When too many have stepped aside, the head stays where it is until one of them is done: each may hold a thread or
a connection.

Nearly always the head is done at once and nothing waits. A timer is therefore set only when something waits
behind a head, and it is not moved when the head changes: when it goes off it looks how long the present
head has been at work and is set again for the rest. Ten thousand quick items cost one timer, not ten thousand.

Starting happens outside of the lock, in whichever thread found that something can be started, and in one
thread at a time: `_pump` is a loop with a flag, not a recursion, so that a ``start`` which is done
before it returns, or which puts another item, costs no stack.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["OrderedDispatcher"]

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Timer(Protocol):
    def cancel(self) -> object: ...


class _RunningItem:
    """One item at work. Calling it says that the item is done."""

    __slots__ = ("_dispatcher", "done")

    def __init__(self, dispatcher: OrderedDispatcher[Any]) -> None:
        self._dispatcher = dispatcher
        self.done = False

    def __call__(self) -> None:
        self._dispatcher._finished(self)


class OrderedDispatcher(Generic[T]):
    """
    Starts items in order, each when the one before is done or has had its grace time.

    Parameters
    ----------
    start : callable
        Called with an item and with a function that is to be called, from any thread and at any time, even
        before ``start`` returns, when the item is done. It must not block. If it raises, the item
        counts as done.
    call_later : callable
        Called with seconds and a function; returns an object with a ``cancel()``. `EventLoop.call_later` is one.
    grace : float
        Seconds after which the next item is started beside one that is not done.
    beside : int
        How many items may be at work beside the head.
    clock : callable
        Tells the time in seconds.
    """

    def __init__(
        self,
        start: Callable[[T, Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], _Timer],
        *,
        grace: float = 2.0,
        beside: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._call_later = call_later
        self._grace = grace
        self._beside = beside
        self._clock = clock
        self._lock = threading.Lock()
        self._items: deque[T] = deque()
        self._head: _RunningItem | None = None
        self._head_since = 0.0
        self._overflow = 0
        self._timer: _Timer | None = None
        self._pumping = False
        self._closed = False

    def __len__(self) -> int:
        """How many items wait to be started."""
        return len(self._items)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is at work."""
        return self._head is None and not self._overflow and not self._items

    def put(self, item: T) -> None:
        """Have an item started in its turn; forgotten if the dispatcher is closed."""
        with self._lock:
            if self._closed:
                return
            self._items.append(item)
            ready = self._next()
        self._pump(ready)

    def close(self) -> list[T]:
        """
        Start nothing any more. What is at work goes on.

        Returns
        -------
        list
            The items that were waiting.
        """
        with self._lock:
            self._closed = True
            waiting = list(self._items)
            self._items.clear()
            self._cancel_timer()
        return waiting

    # Within

    def _pump(self, ready: tuple[T, _RunningItem] | None) -> None:
        """Start an item that `_next` has returned, and then what else can be started."""
        while ready is not None:
            item, run = ready
            try:
                self._start(item, run)
            except Exception:
                log.exception("An item could not be started")
                run()
            with self._lock:
                self._pumping = False
                ready = self._next()

    def _next(self) -> tuple[T, _RunningItem] | None:
        """Take the next item if it may be started, for `_pump`. To be called with the lock held."""
        if self._pumping:
            return None  # the thread that starts an item looks again
        if self._items and self._head is None:
            self._pumping = True
            self._head = run = _RunningItem(self)
            self._head_since = self._clock()
            return self._items.popleft(), run
        self._watch_head()
        return None

    def _watch_head(self) -> None:
        if self._items and self._head is not None and self._overflow < self._beside and self._timer is None:
            left = self._head_since + self._grace - self._clock()
            self._timer = self._call_later(max(0.0, left), self._on_timer)

    def _on_timer(self) -> None:
        with self._lock:
            self._timer = None
            if self._closed:
                return
            # In the same terms as in `_watch_head`, or rounding could have it look again and again
            overdue = self._head is not None and self._clock() >= self._head_since + self._grace
            if overdue and self._overflow < self._beside:
                self._head = None
                self._overflow += 1
            ready = self._next()
        self._pump(ready)

    def _finished(self, run: _RunningItem) -> None:
        with self._lock:
            if run.done:
                return
            run.done = True
            if run is self._head:
                self._head = None
            else:
                self._overflow -= 1
            if not self._items:
                self._cancel_timer()
                return
            ready = self._next()
        self._pump(ready)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
