# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Threads for what may block: a question to the user, a download, a handler that somebody else wrote."""

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
    Threads made on demand and reused.

    Parameters
    ----------
    name : str
        Prefix of the threads' names.
    idle : float
        Seconds after which a thread without work ends.
    """

    def __init__(self, name: str, idle: float = 5.0) -> None:
        self._name = name
        self._idle_time = idle
        self._jobs: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # not a plain one: a signal handler may come in between
        self._idle = 0  # threads that wait and are not claimed by a job
        self._backlog = 0  # jobs for which no thread could be started
        self._threads: set[threading.Thread] = set()
        self._serial = count(1)
        self._stopped = False

    @property
    def size(self) -> int:
        """How many threads there are, busy or idle."""
        return len(self._threads)

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in a worker; returns at once. Nothing is done any more after `stop`."""
        with self._lock:
            if self._stopped:
                log.debug("A task came after the end of the workers")
                return
            self._jobs.put((function, args))
            if self._idle:
                self._idle -= 1  # claimed: that thread is about to take this job, or one that came just before
                return
            thread = threading.Thread(target=self._run, name=f"{self._name}-{next(self._serial)}", daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left, or the interpreter is ending
            with self._lock:
                self._threads.discard(thread)
                self._backlog += 1  # the next thread that has finished something takes it
            log.error("A task has to wait until another one has ended: %s", error)

    def stop(self, timeout: float = 1.0) -> None:
        """Let idle workers end, and wait up to ``timeout`` seconds for busy ones."""
        with self._lock:
            self._stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def after_fork_in_child(self) -> None:
        """Forget the threads, in the child of a fork: they are the parent's."""
        self._lock = threading.RLock()
        self._stopped = True
        self._threads = set()

    def _run(self) -> None:
        try:
            while True:
                job = self._next_job()
                if job is None:
                    return
                run_logged(*job)
                del job  # a thread that waits must not keep the last task's objects alive
                with self._lock:
                    if self._backlog:
                        self._backlog -= 1
                    else:
                        self._idle += 1
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next_job(self) -> Task | None:
        try:
            return self._jobs.get(timeout=self._idle_time)
        except queue.Empty:
            with self._lock:
                if self._idle:  # nobody has claimed this thread meanwhile
                    self._idle -= 1
                    return None
        return self._jobs.get()


def run_logged(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call a function that must not end the thread for the others, whatever it raises (`sys.exit` included)."""
    try:
        function(*args)
    except BaseException:
        log.exception("A callback or a task failed")
