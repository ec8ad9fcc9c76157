# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""An answer that comes later: what an operation returns when it depends on somebody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Deferred"]


class Deferred:
    """
    An answer that is given later. The first of `resolve`, `fail` and the loss of the connection counts.

    Its methods may be called from any thread.
    """

    __slots__ = ("_lock", "_on_cancel", "_on_done", "_outcome", "on_sent", "state")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may come in between
        self._on_cancel: Callable[[], object] | None = None
        self._on_done: Callable[[Deferred], object] | None = None
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        #: Called in the loop's thread with True when the answer has been handed to the kernel, or with False when
        #: the connection broke before that. It must be set before the answer is given.
        self.on_sent: Callable[[bool], object] | None = None
        #: ``"waiting"``, then ``"done"`` or ``"cancelled"``.
        self.state = "waiting"

    def resolve(self, value: object) -> bool:
        """Give the answer; False if there is one already or nobody waits any more."""
        return self._settle("done", (value, None))

    def fail(self, error: BaseException) -> bool:
        """Answer with an error; False if there is an answer already or nobody waits any more."""
        return self._settle("done", (None, error))

    def cancel(self) -> bool:
        """The one who asked is gone; False if the answer was given before."""
        return self._settle("cancelled", (None, None))

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have ``callback()`` called if the one who asked goes away first; at once when that has happened."""
        with self._lock:
            if self.state == "waiting":
                self._on_cancel = callback
            cancelled = self.state == "cancelled"
        if cancelled:
            callback()

    def result(self) -> Any:
        """The value, or raise the error, that was given."""
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def when_done(self, callback: Callable[[Deferred], object]) -> None:
        """Have ``callback(self)`` called once there is an answer; at once when there is."""
        with self._lock:
            if self.state == "waiting":
                self._on_done = callback
            done = self.state == "done"
        if done:
            callback(self)

    def _settle(self, state: str, outcome: tuple[Any, BaseException | None]) -> bool:
        with self._lock:
            if self.state != "waiting":
                return False
            self.state = state
            self._outcome = outcome
            on_done, on_cancel = self._on_done, self._on_cancel
            self._on_done = self._on_cancel = None  # they hold on to the connection and to whoever prepares the answer
        if state == "done":
            if on_done is not None:
                on_done(self)
        elif on_cancel is not None:
            on_cancel()
        return True
