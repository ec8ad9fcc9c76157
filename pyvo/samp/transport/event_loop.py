# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An event loop: one thread waits for sockets and timers, and worker threads run calls that may block.

Theory of operation
-------------------
A hub with five hundred idle clients has a thousand idle sockets. With a thread for each socket, it would need a
thousand threads. Instead, the thread of an `EventLoop` waits in a selector until a socket is ready or a timer is due,
and runs the callback that was registered for it. A callback must not block: it reads the available data, works for some
microseconds, and writes as much as the socket accepts.

`EventLoop.run_in_worker` runs functions that may block (a consent prompt, a download, a user's handler) in a
`WorkerPool`. It starts threads on demand, reuses them, and ends them when they have been idle for some time: starting a
thread costs more than most tasks.

One event usually causes the next: a client that receives a message acknowledges it, and a client that receives a
response makes its next request. Blocking in select() costs more than the next event usually takes to arrive, so the
hub's loop busy-polls for up to `BUSY_POLL_TIME` first, if the last event came as quickly. This needs hardly any
additional CPU time, because it saves about as much, and it shortens the round trip of a message by a quarter. It does
not help when more threads want to run than there are processors; then the loop stops busy-polling for
`BUSY_POLL_RETRY`. A client's loop does not busy-poll, because that would only take CPU time from the client's program.

All threads are daemons: they do not keep a finished script alive.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import queue
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

log = logging.getLogger(__name__)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Task = tuple[Callable[..., object], tuple[Any, ...]]
EventCallback = Callable[[int], None]
Events = list[tuple[selectors.SelectorKey, int]]

#: Seconds of busy-polling before the loop blocks. 0 on a machine with one processor, or if the clock is too coarse: on
#: Windows, before Python 3.13, it advances in steps of 16 ms.
BUSY_POLL_TIME = 100e-6 if (os.cpu_count() or 1) > 1 and time.get_clock_info("monotonic").resolution < 1e-5 else 0.0
#: If busy-polling ends this many seconds late, more threads want to run than there are processors.
OVERLOAD_DELAY = 1e-3
#: Seconds without busy-polling after such a delay.
BUSY_POLL_RETRY = 1.0
#: Maximum number of rounds for callbacks that call `EventLoop.call_soon` while the loop ends.
SHUTDOWN_ROUNDS = 100


_sched_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


def run_logged(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call a function and log any exception, including `SystemExit`, so that it does not end the thread."""
    try:
        function(*args)
    except BaseException:
        log.exception("A callback or a task failed")


def join_thread(thread: threading.Thread | None, timeout: float | None = None) -> None:
    """Wait until a thread has ended, unless it is the current one, or a signal has interrupted its start."""
    if thread is not None and thread.is_alive() and thread is not threading.current_thread():
        thread.join(timeout)


class WorkerPool:
    """
    Threads for calls that may block. They are started on demand and reused.

    ``name`` is the prefix of the threads' names. An idle thread ends after ``idle_timeout`` seconds.
    """

    def __init__(self, name: str, idle_timeout: float = 5.0) -> None:
        self._name = name
        self._idle_timeout = idle_timeout
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a signal handler may interrupt a method
        self._idle = 0  # waiting threads that are not claimed by a task
        self._backlog = 0  # tasks for which no thread could be started
        self._threads: set[threading.Thread] = set()
        self._serial = count(1)
        self._stopped = False

    @property
    def size(self) -> int:
        """The number of threads, busy or idle."""
        return len(self._threads)

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in a thread of the pool; return at once. After `stop`, the task is dropped."""
        with self._lock:
            if self._stopped:
                log.debug("A task was submitted after the end of the pool")
                return
            self._tasks.put((function, args))
            if self._idle:
                self._idle -= 1  # claimed: that thread will take this task or an earlier one
                return
            thread = threading.Thread(target=self._run, name=f"{self._name}-{next(self._serial)}", daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is shutting down
            with self._lock:
                self._threads.discard(thread)
                self._backlog += 1  # the next thread that finishes its task takes it
            log.error("No thread can be started, so a task waits until another task has ended: %s", error)

    def stop(self, timeout: float = 1.0) -> None:
        """End idle threads, and wait up to ``timeout`` seconds for busy ones."""
        with self._lock:
            self._stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._tasks.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            join_thread(thread, max(0.0, deadline - time.monotonic()))

    def after_fork_in_child(self) -> None:
        """Forget the threads, which exist only in the parent process."""
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


class Timer:
    """A scheduled call, made by `EventLoop.call_later`."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Task) -> None:
        self.when = when
        #: Function and arguments in one object, so that `cancel` in another thread removes both at once.
        self.call: Task | None = call

    def cancel(self) -> None:
        """Cancel the call, unless it has started. May be called in any thread."""
        self.call = None

    @property
    def active(self) -> bool:
        """Whether the call has neither started nor been cancelled."""
        return self.call is not None


def _make_pipe() -> tuple[Any, Any]:
    """Return the read end and the write end of an unbuffered, non-blocking pipe."""
    if os.name == "nt":  # selectors accept only sockets
        ends = socket.socketpair()
        with ends[0], ends[1]:
            for end in ends:
                end.setblocking(False)
            return ends[0].makefile("rb", buffering=0), ends[1].makefile("wb", buffering=0)
    reader, writer = os.pipe()  # takes a seventh of the time of a socket pair
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    return open(reader, "rb", buffering=0), open(writer, "wb", buffering=0)


class EventLoop:
    """
    A thread that runs callbacks when sockets are ready and when timers are due.

    ``name`` is the name of the thread, and the prefix of its workers' names. With ``busy_poll``, the loop polls for a
    short time before it blocks.
    """

    def __init__(self, name: str = "samp-loop", *, busy_poll: bool = False) -> None:
        self.name = name
        self._busy_poll_from = 0.0 if busy_poll else math.inf
        self.workers = WorkerPool(f"{name}-worker")
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._purge_at = 64
        self._serial = count()
        self._ready: deque[Task] = deque()
        self._lock = threading.RLock()  # a signal handler may interrupt a method
        self._asleep = False
        #: Whether `start` has been called.
        self.started = False
        #: Whether `stop` has been called.
        self.stopped = False
        self._ident: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._wake_end, self._waker = _make_pipe()
        self._selector.register(self._wake_end, READ, lambda _events: self._wake_end.read(4096))

    # Methods for any thread

    def start(self) -> None:
        """Start the thread, unless it was started before."""
        if not self.started:  # after ^C within start(), `Thread` would allow a second start
            self.started = True
            self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """
        Stop the thread and its workers, and wait up to ``timeout`` seconds for them. Callbacks that are due still run.

        This method may be called in any thread, including the loop's own, and more than once.
        """
        with self._lock:
            first = not self.stopped
            self.stopped = True
        if not self._thread.ident:
            if first:
                self._close()
            return
        self._wake()
        deadline = time.monotonic() + timeout
        if self._thread is threading.current_thread():  # it ends after this callback, for which workers may wait
            deadline = 0.0
        else:
            self._thread.join(timeout)
        if first:
            self.workers.stop(deadline - time.monotonic())

    def after_fork_in_child(self) -> None:
        """Close the child's copies of all sockets, including the registered ones."""
        self.stopped = True
        self._ident = None
        self._lock = threading.RLock()
        self.workers.after_fork_in_child()
        # Do not unregister them: on Linux the child shares the parent's epoll object.
        with suppress(OSError):  # on macOS the child does not inherit the kqueue descriptor
            for key in list((self._selector.get_map() or {}).values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
        self._waker.close()
        self._wake_end.close()

    def in_loop(self) -> bool:
        """Return whether the caller runs in the loop's thread."""
        return threading.get_ident() == self._ident

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in the loop's thread as soon as possible."""
        self._ready.append((function, args))
        if self._asleep:
            self._asleep = False  # before the wake-up: the loop may block again at once
            self._wake()

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        """Run ``function(*args)`` in the loop's thread after ``delay`` seconds, unless the timer is cancelled."""
        timer = Timer(time.monotonic() + delay, (function, args))
        with self._lock:
            if len(self._timers) >= self._purge_at:
                self._purge_timers()
            heapq.heappush(self._timers, (timer.when, next(self._serial), timer))
            first = self._timers[0][2] is timer
        if first and self._asleep:
            self._wake()
        return timer

    def run_in_worker(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)``, which may block, in another thread; return at once."""
        self.workers.submit(function, *args)

    # Methods for the loop's own thread

    def register(self, sock: socket.socket, events: int, callback: EventCallback) -> None:
        """Call ``callback(events)`` whenever a socket is ready for one of ``events``."""
        self._selector.register(sock, events, callback)

    def modify(self, sock: socket.socket, events: int, callback: EventCallback) -> None:
        """Change the events or the callback of a registered socket."""
        self._selector.modify(sock, events, callback)

    def unregister(self, sock: socket.socket) -> None:
        """Unregister a socket, if it is registered."""
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError):
            log.debug("The socket to unregister is not registered")

    # The thread

    def _wake(self) -> None:
        try:
            self._waker.write(b"\0")  # fails silently if the pipe is full of wake-ups
        except (OSError, ValueError):
            log.debug("The loop has ended")

    def _run(self) -> None:
        self._ident = threading.get_ident()
        events_are_frequent = False
        try:
            while not self.stopped:
                since = time.monotonic()
                events = (self._busy_poll(since + BUSY_POLL_TIME) if events_are_frequent else []) or self._select()
                now = time.monotonic()
                events_are_frequent = now - since < BUSY_POLL_TIME and now > self._busy_poll_from
                for key, mask in events:
                    # an earlier callback may have closed this socket
                    if key.fileobj.fileno() >= 0:  # type: ignore[union-attr]
                        run_logged(key.data, (mask,))
                if self._timers:
                    self._run_timers()
                self._run_ready()
            for _ in range(SHUTDOWN_ROUNDS):
                if not self._ready:
                    break
                self._run_ready()
        finally:
            self._close()
            self._ident = None  # the system may reuse it for another thread

    def _busy_poll(self, until: float) -> Events:
        """Poll until there are events or until the time ``until``."""
        events: Events = []
        while not events and not self._ready and time.monotonic() < until:
            _sched_yield()  # the peer may be waiting for this processor
            events = self._selector.select(0.0)
        if time.monotonic() - until > OVERLOAD_DELAY:
            self._busy_poll_from = until + BUSY_POLL_RETRY
        return events

    def _select(self) -> Events:
        """Wait for events, for `call_soon`, or for a timer to be due."""
        # Set before `_ready` is read, so that a later `call_soon` wakes the loop.
        self._asleep = True
        timeout = self._select_timeout()
        events = self._selector.select(timeout)
        self._asleep = False
        return events

    def _select_timeout(self) -> float | None:
        if self._ready or self.stopped:
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
            call, timer.call = timer.call, None
            if call is not None:
                run_logged(*call)

    def _purge_timers(self) -> None:
        """Remove cancelled timers. A hub sets a timer for each message and cancels it a millisecond later."""
        self._timers = [entry for entry in self._timers if entry[2].active]
        heapq.heapify(self._timers)
        self._purge_at = max(64, 2 * len(self._timers))

    def _run_ready(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):  # calls added meanwhile run after the next poll of the sockets
            run_logged(*ready.popleft())

    def _close(self) -> None:
        self._ident = None  # the system may reuse it for another thread
        self._selector.close()
        self._waker.close()
        self._wake_end.close()
        self._timers.clear()
        self._ready.clear()
