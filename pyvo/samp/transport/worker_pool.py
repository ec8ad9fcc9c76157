# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A pool of threads for calls that may block: a question to the user, a download, a user's handler."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["Task", "WorkerPool", "run_logged"]

log = logging.getLogger(__name__)

Task = tuple[Callable[..., object], tuple[Any, ...]]


class WorkerPool:
    """
    Threads that are started on demand and used again.

    Parameters
    ----------
    name : str
        Prefix of the threads' names.
    idle_timeout : float
        Seconds after which a thread without work ends.
    """

    def __init__(self, name: str, idle_timeout: float = 5.0) -> None:
        self._name = name
        self._idle_timeout = idle_timeout
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a signal handler may interrupt a method
        self._idle = 0  # threads that wait and are not claimed by a task
        self._backlog = 0  # tasks for which no thread could be started
        self._threads: set[threading.Thread] = set()
        self._serial = count(1)
        self._stopped = False

    @property
    def size(self) -> int:
        """The number of threads, busy or idle."""
        return len(self._threads)

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in a thread of the pool; return at once. After `stop` tasks are not run."""
        with self._lock:
            if self._stopped:
                log.debug("A task was submitted after the end of the pool")
                return
            self._tasks.put((function, args))
            if self._idle:
                self._idle -= 1  # claimed: that thread will take this task, or the one before
                return
            thread = threading.Thread(target=self._run, name=f"{self._name}-{next(self._serial)}", daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left, or the interpreter is ending
            with self._lock:
                self._threads.discard(thread)
                self._backlog += 1  # the next thread that has finished its task takes it
            log.error("A task waits until another one has ended: %s", error)

    def stop(self, timeout: float = 1.0) -> None:
        """End idle threads, and wait up to ``timeout`` seconds for busy ones."""
        with self._lock:
            self._stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._tasks.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def after_fork_in_child(self) -> None:
        """Forget the threads: they are in the parent process only."""
        self._lock = threading.RLock()
        self._stopped = True
        self._threads = set()

    def _run(self) -> None:
        try:
            while True:
                task = self._next_task()
                if task is None:
                    return
                run_logged(*task)
                del task  # an idle thread must not keep the objects of its last task alive
                with self._lock:
                    if self._backlog:
                        self._backlog -= 1
                    else:
                        self._idle += 1
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next_task(self) -> Task | None:
        try:
            return self._tasks.get(timeout=self._idle_timeout)
        except queue.Empty:
            with self._lock:
                if self._idle:  # not claimed by a task in the meantime
                    self._idle -= 1
                    return None
        return self._tasks.get()


def run_logged(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call a function, and log whatever it raises (`SystemExit` included): it must not end the thread."""
    try:
        function(*args)
    except BaseException:
        log.exception("A callback or a task failed")
