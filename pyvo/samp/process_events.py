# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Signals, and processes that fork.

While a program waits in this package, signals that would kill it raise `SystemExit`, so that hubs and clients are
closed properly. `SignalSafeEvent` lets a program wait for a signal handler.

The child of a fork has copies of its parent's sockets, but none of its threads, and its locks stay as they were at
that moment. It must neither use these connections nor close them for the parent. It forgets them, and its operations
raise an error that says to connect again.
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
    Turn signals that would kill the process into `SystemExit` within a ``with`` block.

    Hubs and clients then stop as they do on ^C. Signals that the program handles or ignores are left alone, and outside
    the main thread all of them, because only the main thread can handle signals.
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
    An event that is set once, possibly in a signal handler.

    A signal handler must not set a `threading.Event`: the thread that the signal interrupts may hold its lock. This
    event is a lock that is released when it is set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Set the event. Setting it again does nothing."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, or for ``timeout`` seconds; return whether it is set."""
        is_set = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        if is_set:
            self.set()  # for other threads that wait
        return is_set


#: The error of a child that uses its parent's connection.
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
