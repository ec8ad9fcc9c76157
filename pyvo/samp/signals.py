# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Signals that end a program, for as long as it waits in this package: its way out must still take leave.

And a way to wait for what a signal handler does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

__all__ = ["Latch", "signals_end_in_order"]

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def signals_end_in_order() -> Iterator[None]:
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


class Latch:
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
