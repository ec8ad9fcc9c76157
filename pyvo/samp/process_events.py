# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What becomes of connections in a process that was forked.

The child of a fork has copies of its parent's sockets, but none of its threads, and its locks stay as they were
at that moment. It must neither use these connections nor end them in the parent's name: it forgets them, and is
told to connect anew.

Signals that end a program, for as long as it waits in this package: its way out must still take leave.

And a way to wait for what a signal handler does.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol
from weakref import WeakSet

__all__ = ["FORKED_MESSAGE", "SignalSafeEvent", "register_after_fork", "signals_as_exit"]

#: Windows has no SIGHUP; it has SIGBREAK for Ctrl+Break and for a console window that is closed.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """
    Turn signals that would kill the process into `SystemExit`, for the length of a ``with`` block.

    So hubs and clients are ended as they are on ^C. Signals for which the program has a handler of its own, or which
    it ignores, are left alone; so are all of them outside the main thread, where none can be caught.
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
    An event that happens once, and may do so in a signal handler.

    A `threading.Event` must not be set there: its lock may be held by the very thread that runs the handler, which
    was just beginning to wait. This one is nothing but a lock, which is given back when the event happens.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let it happen. Nothing happens the second time."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has happened, or for ``timeout`` seconds; tell whether it has."""
        happened = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        if happened:
            self.set()  # for others who wait
        return happened


#: What a child is told that uses its parent's connection.
FORKED_MESSAGE = (
    "This process was forked from the one that connected to the hub, and has no connection of its own. "
    "Call connect() in this process."
)


class ForkAware(Protocol):
    """What holds threads, locks or sockets that a child cannot use."""

    def after_fork_in_child(self) -> None:
        """Forget them; called in the child, where no other thread runs."""


_known: WeakSet[ForkAware] = WeakSet()


def register_after_fork(thing: ForkAware) -> None:
    """Have ``thing.abandon()`` called in each process that is forked from this one."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
