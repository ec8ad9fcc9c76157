# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Running a program's handlers where the program wants them: in the event loop of its windows, or of asyncio.

The thread that received the message waits until the event loop has run the handler, for the answer to a call depends
on it and messages keep their order. Nobody waits for an event loop that has ended: `release` ends all waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from ..errors import SAMPClientError
from .received_calls import in_same_call

__all__ = ["Dispatch", "Elsewhere"]

#: Takes a function without parameters and has it called soon, once, in the program's own thread.
Dispatch = Callable[[Callable[[], None]], object]


class Elsewhere:
    """
    Runs functions by somebody else's event loop.

    Parameters
    ----------
    dispatch : callable
        ``dispatch(job)`` has ``job()`` called soon, and returns at once.
    """

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        # Where the event loop runs, once that is known. Not the thread's identifier, which another thread gets later.
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """
        Call a function there, and wait for what it returns or raises.

        Parameters
        ----------
        function : callable
            The function.
        *args, **kwargs
            What it is called with.

        Returns
        -------
        object
            What it returned.

        Raises
        ------
        SAMPClientError
            The client was disconnected before its turn came.
        """
        if threading.current_thread() is self._thread:  # it would wait for itself
            return function(*args, **kwargs)
        function = in_same_call(function)
        future: Future[Any] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._thread = threading.current_thread()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # whatever it is, it belongs to the one who waits
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            self._waiting.add(future)
        try:
            self._dispatch(job)
            return future.result()
        except CancelledError:
            raise SAMPClientError("The client was disconnected before its event loop ran the handler") from None
        finally:
            with self._lock:
                self._waiting.discard(future)

    def release(self) -> None:
        """Cancel what has not begun, so that no thread waits for an event loop that has ended."""
        with self._lock:
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()
