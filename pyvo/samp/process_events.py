# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Forks and signals, and an event that a signal handler can set.

The child of a fork has copies of its parent's sockets, but none of its threads, and its locks stay as they were at that
moment. It must neither use these connections nor close them in the name of the parent: it forgets them, and its program
has to connect again.

Signals that would end the program while it waits in this package become an exit, so that hubs and clients shut down.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol
from weakref import WeakSet

#: Windows has no SIGHUP; it has SIGBREAK for Ctrl+Break and for a console window that is closed.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """
    Turn signals that would kill the process into `SystemExit`, for the length of a ``with`` block.

    So hubs and clients end as they do on ^C. Signals that the program handles or ignores are not changed, and none is
    outside the main thread, where no handler can be set.
    """
    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


class SignalSafeEvent:
    """
    An event that is set once, perhaps in a signal handler.

    A `threading.Event` must not be set there: the thread that runs the handler may hold its lock, if it is about to
    wait. This one is only a lock, which is released when the event is set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Set the event; may be called again."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, or for ``timeout`` seconds; return whether it is set."""
        is_set = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        if is_set:
            self.set()  # for other threads that wait
        return is_set


#: The text of the error when a child uses the connection of its parent.
FORKED_MESSAGE = (
    "This process was forked from the one that connected to the hub, and has no connection of its own. "
    "Call connect() in this process."
)


class ForkAware(Protocol):
    """An object with threads, locks or sockets that a child cannot use."""

    def after_fork_in_child(self) -> None:
        """Forget them; called in the child, where no other thread runs."""


_known: WeakSet[ForkAware] = WeakSet()


def register_after_fork(thing: ForkAware) -> None:
    """Call ``thing.after_fork_in_child()`` in each process that is forked from this one."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
