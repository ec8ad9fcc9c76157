# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One thread that watches sockets and clocks, and a few more for what may block.

Theory of operation
-------------------
A hub with five hundred idle clients holds a thousand sockets and has nothing to do. One thread a socket
would be a thousand threads; instead the thread of a `Loop` sleeps in a selector until a socket has
something to say or a timer is due, and runs the callback that was registered for it. What runs
there must never block: it reads what has arrived, does microseconds of work and writes what fits.

Whatever may block (a question to the user, a download, a handler somebody else wrote) goes to a *worker*
by `Loop.run_in_worker`. Workers are threads made on demand, reused, and ended when they have been idle for
a while: starting a thread costs more than most of the work it would do.

All threads are daemons: a script that ends is not kept alive by them.
"""

from __future__ import annotations

import heapq
import logging
import queue
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["Loop", "Timer", "Workers"]

log = logging.getLogger(__name__)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

EventCallback = Callable[[int], None]


class Timer:
    """A call that is due later; made by `Loop.call_later`."""

    __slots__ = ("args", "function", "when")

    def __init__(self, when: float, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.function: Callable[..., object] | None = function
        self.args = args

    def cancel(self) -> None:
        """Forget the call. Has no effect on one that has begun."""
        self.function = None
        self.args = ()

    @property
    def active(self) -> bool:
        """Whether the call is still to come."""
        return self.function is not None


class Workers:
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
        self._jobs: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._serial = count(1)
        self._stopped = False

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in a worker; returns at once."""
        with self._lock:
            if self._stopped:
                return
            self._jobs.put((function, args))
            if self._idle:
                self._idle -= 1  # claimed: that thread is about to take this very job
                return
            thread = threading.Thread(target=self._run, name=f"{self._name}-{next(self._serial)}", daemon=True)
            self._threads.add(thread)
        thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Let idle workers end, and wait up to ``timeout`` seconds for busy ones."""
        with self._lock:
            self._stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        try:
            while True:
                job = self._next_job()
                if job is None:
                    return
                function, args = job
                try:
                    function(*args)
                except Exception:
                    log.exception("A worker's task failed")
                del job, function, args  # a thread that waits must not keep the last task's objects alive
                with self._lock:
                    self._idle += 1
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _next_job(self) -> tuple[Callable[..., object], tuple[Any, ...]] | None:
        try:
            return self._jobs.get(timeout=self._idle_time)
        except queue.Empty:
            with self._lock:
                if self._idle:  # nobody has claimed this thread meanwhile
                    self._idle -= 1
                    return None
        return self._jobs.get()


class Loop:
    """
    A thread that runs callbacks when sockets are ready and when timers are due.

    Parameters
    ----------
    name : str
        Name of the thread, and prefix of its workers' names.
    """

    def __init__(self, name: str = "samp-loop") -> None:
        self.name = name
        self.workers = Workers(f"{name}-worker")
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._serial = count()
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._asleep = False
        self._stopping = False
        self._ident: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._wake_end, READ, self._drain_wakes)

    # What any thread may call

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """
        End the thread and its workers; callbacks that are due by then still run.

        Safe from any thread, the loop's own included, and safe to repeat.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the threads.
        """
        with self._lock:
            first = not self._stopping
            self._stopping = True
        if not self._thread.ident:
            if first:
                self._close()
            return
        self._wake()
        if not self.in_loop():
            self._thread.join(timeout)
        if first:
            self.workers.stop(timeout)

    @property
    def stopped(self) -> bool:
        """Whether `stop` has been called."""
        return self._stopping

    def in_loop(self) -> bool:
        """Whether the caller is the loop's own thread."""
        return threading.get_ident() == self._ident

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in the loop's thread as soon as it can."""
        self._ready.append((function, args))
        if self._asleep:
            self._wake()

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        """
        Run ``function(*args)`` in the loop's thread after a delay.

        Parameters
        ----------
        delay : float
            Seconds.
        function : callable
            What to call.
        *args
            With what.

        Returns
        -------
        Timer
            Its ``cancel`` forgets the call.
        """
        timer = Timer(time.monotonic() + delay, function, args)
        with self._lock:
            heapq.heappush(self._timers, (timer.when, next(self._serial), timer))
            first = self._timers[0][2] is timer
        if first and self._asleep:
            self._wake()
        return timer

    def run_in_worker(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)``, which may block, in another thread; returns at once."""
        self.workers.submit(function, *args)

    # What only the loop's own thread may call

    def watch(self, sock: socket.socket, events: int, callback: EventCallback) -> None:
        """Call ``callback(events)`` whenever ``sock`` is ready for one of ``events``."""
        self._selector.register(sock, events, callback)

    def rewatch(self, sock: socket.socket, events: int, callback: EventCallback) -> None:
        """Change what a watched socket is watched for."""
        self._selector.modify(sock, events, callback)

    def unwatch(self, sock: socket.socket) -> None:
        """Stop watching a socket; nothing happens if it is not watched."""
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError):
            log.debug("A socket that was not watched was let go")

    # The thread

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            log.debug("The loop has wake-ups enough")
        except OSError:
            log.debug("The loop has ended")

    def _drain_wakes(self, _events: int) -> None:
        self._wake_end.recv(4096)

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            while not self._stopping:
                # `_asleep` goes up before the last look at `_ready`: a call_soon after that look sees it and wakes us.
                self._asleep = True
                timeout = self._time_to_sleep()
                events = self._selector.select(timeout)
                self._asleep = False
                for key, mask in events:
                    # an earlier callback of this round may have closed this one's socket
                    if key.fileobj.fileno() >= 0:  # type: ignore[union-attr]
                        self._call(key.data, mask)
                if self._timers:
                    self._run_timers()
                self._run_ready()
            self._run_ready()
        finally:
            self._close()

    def _time_to_sleep(self) -> float | None:
        if self._ready or self._stopping:
            return 0.0
        with self._lock:
            while self._timers and not self._timers[0][2].active:
                heapq.heappop(self._timers)
            if not self._timers:
                return None
            return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        due: list[Timer] = []
        with self._lock:
            while self._timers and (self._timers[0][0] <= now or not self._timers[0][2].active):
                due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            function, args = timer.function, timer.args
            if function is not None:
                timer.cancel()
                self._call(function, *args)

    def _run_ready(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):  # what these calls add waits for the sockets to be looked at
            function, args = ready.popleft()
            self._call(function, *args)

    @staticmethod
    def _call(function: Callable[..., object], *args: Any) -> None:
        try:
            function(*args)
        except Exception:  # one faulty callback must not end the service for everybody
            log.exception("A callback of the loop failed")

    def _close(self) -> None:
        self._selector.close()
        self._waker.close()
        self._wake_end.close()
        self._timers.clear()
        self._ready.clear()
