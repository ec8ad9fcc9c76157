# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Start items in order, but never wait long for an item that does not finish (rule R24).

The hub uses this for the deliveries to a client: starting an item sends it. A client uses it for its messages: starting
an item runs a handler.

Theory of operation
-------------------
Items are started in the order in which they were put. The item that was started last is the *current* item. No other
item is started until it is done, so items are usually processed one after the other. If the current item is not done
after a grace time, it moves to the *overflow*, and the next item is started and becomes the current item. Thus a
handler that waits for a nested call gets the message that it waits for, and a handler that never ends delays the others
once, by the grace time.

The overflow is limited, because each item in it may use a thread or a connection. When the overflow is full, the
current item stays current until an item of the overflow is done.

Nearly always the current item is done at once and no item is waiting. Therefore a timer is set only when an item is
waiting, and it is not reset for each item: when it fires, it checks how long the current item has been running, and is
set again for the remaining time. Ten thousand quick items need only one timer.

Items are started without holding the lock, in any thread, but in one thread at a time. `_pump` is a loop with a flag
and not a recursion, so that a ``start`` function that calls ``done`` before it returns, or that puts another item, does
not use up the stack.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class _RunningItem:
    """A started item. Call the instance when the item is done."""

    __slots__ = ("_dispatcher", "done")

    def __init__(self, dispatcher: OrderedDispatcher[Any]) -> None:
        self._dispatcher = dispatcher
        self.done = False

    def __call__(self) -> None:
        self._dispatcher._finished(self)


class OrderedDispatcher(Generic[T]):
    """
    Starts items in order: each item when the previous item is done or has exceeded its grace time.

    ``start(item, done)`` starts an item and must not block. When the item is done, it calls ``done()``, in any thread,
    possibly before ``start`` returns. If ``start`` raises an exception, the item counts as done. ``call_later`` is
    called with seconds and a function, and returns an object with ``cancel()``, like `EventLoop.call_later`. ``grace``
    is in seconds. ``max_overflow`` is the maximum number of running items in addition to the current item.
    """

    def __init__(
        self,
        start: Callable[[T, Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], Any],
        *,
        grace: float = 2.0,
        max_overflow: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._call_later = call_later
        self._grace = grace
        self._max_overflow = max_overflow
        self._clock = clock
        self._lock = threading.Lock()
        self._items: deque[T] = deque()
        self._current: _RunningItem | None = None
        self._current_since = 0.0
        self._overflow = 0
        self._timer: Any = None
        self._pumping = False
        self._closed = False

    def __len__(self) -> int:
        """Return the number of waiting items."""
        return len(self._items)

    @property
    def idle(self) -> bool:
        """Whether no item is waiting or running."""
        return self._current is None and not self._overflow and not self._items

    def put(self, item: T) -> None:
        """Add an item; it is dropped if the dispatcher is closed."""
        with self._lock:
            if self._closed:
                return
            self._items.append(item)
            ready = self._next()
        self._pump(ready)

    def close(self) -> list[T]:
        """Stop starting items, and return the waiting ones. Running items continue."""
        with self._lock:
            self._closed = True
            waiting = list(self._items)
            self._items.clear()
            self._cancel_timer()
        return waiting

    def _pump(self, ready: tuple[T, _RunningItem] | None) -> None:
        """Start an item that `_next` has returned, and then further items as long as possible."""
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
        """Remove and return the next item for `_pump` if it may be started. The caller must hold the lock."""
        if self._pumping:
            return None  # the thread that is starting an item calls this again
        if self._items and self._current is None:
            self._pumping = True
            self._current = run = _RunningItem(self)
            self._current_since = self._clock()
            return self._items.popleft(), run
        self._set_timer()
        return None

    def _set_timer(self) -> None:
        if self._items and self._current is not None and self._overflow < self._max_overflow and self._timer is None:
            remaining = self._current_since + self._grace - self._clock()
            self._timer = self._call_later(max(0.0, remaining), self._on_timer)

    def _on_timer(self) -> None:
        with self._lock:
            self._timer = None
            if self._closed:
                return
            # Use the same sum as `_set_timer`; otherwise rounding errors could set the timer repeatedly.
            overdue = self._current is not None and self._clock() >= self._current_since + self._grace
            if overdue and self._overflow < self._max_overflow:
                self._current = None
                self._overflow += 1
            ready = self._next()
        self._pump(ready)

    def _finished(self, run: _RunningItem) -> None:
        with self._lock:
            if run.done:
                return
            run.done = True
            if run is self._current:
                self._current = None
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
