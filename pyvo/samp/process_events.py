# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handling of signals and forks.

While a program waits in this package, signals that would kill it raise `SystemExit`, so that hubs and clients are
closed properly. A signal handler can set a `SignalSafeEvent`, for which a program waits.

A forked child has copies of its parent's sockets and locks but not its threads. A lock that was held at the time of the
fork stays locked. The child must neither use the parent's connections nor close them for the parent. It forgets them,
and operations in the child raise an error with the advice to connect again.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, Protocol
from weakref import WeakSet

#: Seconds after which a wait in the main thread is interrupted to handle signals. A signal ends the wait at once,
#: except on Windows, and if it arrives just before the thread blocks.
SIGNAL_CHECK_INTERVAL = 1.0

#: Windows has no SIGHUP; it has SIGBREAK for Ctrl+Break and for a console window that is closed.
_TERMINATING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """
    Turn signals that would kill the process into `SystemExit` within a ``with`` block.

    Hubs and clients then stop as they do on ^C. Signals that the program handles or ignores are not changed. In other
    threads no signals are changed, because only the main thread can handle signals.
    """
    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [number for number in _TERMINATING_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _raise_system_exit)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _raise_system_exit(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


class SignalSafeEvent:
    """
    An event that is set once, possibly in a signal handler.

    A signal handler must not set a `threading.Event`, because the interrupted thread may hold the event's lock. This
    event is a lock that is released when the event is set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Set the event. Setting it again has no effect."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, or for ``timeout`` seconds; return whether it is set. Signals end the wait."""
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while not self._lock.acquire(timeout=max(0.0, min(SIGNAL_CHECK_INTERVAL, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
        self.set()  # for other waiting threads
        return True


#: The error text for a child that uses its parent's connection.
FORKED_MESSAGE = (
    "This process was forked from the process that connected to the hub, and is not connected itself. "
    "Call connect() in this process."
)


class ForkAware(Protocol):
    """An object with threads, locks or sockets that a forked child cannot use."""

    def after_fork_in_child(self) -> None:
        """Forget these resources. Called in the child, where no other thread is running."""


_registered: WeakSet[ForkAware] = WeakSet()


def register_after_fork(target: ForkAware) -> None:
    """Call ``target.after_fork_in_child()`` in each process that is forked from this process."""
    _registered.add(target)


def _after_fork() -> None:
    for target in list(_registered):
        target.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
