# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An event loop: one thread that waits for sockets and timers, and worker threads for calls that may block.

Theory of operation
-------------------
A hub with five hundred idle clients has a thousand sockets and nothing to do. A thread for each socket would be a
thousand threads. Instead, the thread of an `EventLoop` waits in a selector until a socket is ready or a timer is due,
and runs the callback that was registered for it. A callback must not block: it reads what has arrived, works for some
microseconds, and writes what the socket accepts.

`EventLoop.run_in_worker` runs what may block (a question to the user, a download, a user's handler) in a `WorkerPool`.
It starts threads on demand, uses them again, and ends them when they have been idle for some time: to start a thread
costs more than most of the work it would do.

One event mostly causes the next: a client that receives a message acknowledges it, and one that receives a response
makes its next request. Blocking in select() costs more than the next event usually takes to arrive, so the hub's loop
busy-polls for up to `BUSY_POLL_TIME` first, if the last event came as quickly. This takes hardly any CPU time, as it
saves about as much, and shortens the round trip of a message by a quarter. It does not pay when more threads want to
run than there are processors; then the loop stops it for `BUSY_POLL_RETRY`. A client's loop does not busy-poll, because
it would only take time from its program.

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

#: Seconds of busy-polling before the loop blocks; none on a machine with one processor, or with a clock that cannot
#: measure it: on Windows, before Python 3.13, the clock advances by 16 ms.
BUSY_POLL_TIME = 100e-6 if (os.cpu_count() or 1) > 1 and time.get_clock_info("monotonic").resolution < 1e-5 else 0.0
#: A delay of so many seconds shows that more threads want to run than there are processors.
OVERLOAD_DELAY = 1e-3
#: Seconds without busy-polling after such a delay.
BUSY_POLL_RETRY = 1.0
#: Rounds for callbacks that call `EventLoop.call_soon` while the loop ends.
SHUTDOWN_ROUNDS = 100


_sched_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


def run_logged(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Call a function, and log whatever it raises (`SystemExit` included): it must not end the thread."""
    try:
        function(*args)
    except BaseException:
        log.exception("A callback or a task failed")


class WorkerPool:
    """
    Threads for calls that may block; they are started on demand and used again.

    ``name`` is the prefix of the threads' names; a thread without work ends after ``idle_timeout`` seconds.
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


class Timer:
    """A call that is due later; `EventLoop.call_later` makes it."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Task) -> None:
        self.when = when
        #: Function and arguments in one object, so that `cancel` in another thread removes both at once.
        self.call: Task | None = call

    def cancel(self) -> None:
        """Cancel the call, unless it has begun. In any thread."""
        self.call = None

    @property
    def active(self) -> bool:
        """Whether the call is still to come."""
        return self.call is not None


def _make_pipe() -> tuple[Any, Any]:
    """Make an unbuffered, non-blocking pipe; return the ends to read and to write."""
    if os.name == "nt":  # a selector takes sockets only
        ends = socket.socketpair()
        with ends[0], ends[1]:
            for end in ends:
                end.setblocking(False)
            return ends[0].makefile("rb", buffering=0), ends[1].makefile("wb", buffering=0)
    reader, writer = os.pipe()  # in a seventh of the time of a pair of sockets
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    return open(reader, "rb", buffering=0), open(writer, "wb", buffering=0)


class EventLoop:
    """
    A thread that runs callbacks when sockets are ready and when timers are due.

    ``name`` is the name of the thread, and the prefix of its workers' names. ``busy_poll``: poll before blocking.
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
        #: Whether `start` has been called, and `stop`.
        self.started = False
        self.stopped = False
        self._ident: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._wake_end, self._waker = _make_pipe()
        self._selector.register(self._wake_end, READ, lambda _events: self._wake_end.read(4096))

    # Methods for any thread

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if not self.started:  # after ^C within start(), `Thread` would let itself be started again
            self.started = True
            self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """
        Stop the thread and its workers, and wait up to ``timeout`` seconds for them; callbacks that are due still run.

        It may be called in any thread, that of the loop included, and more than once.
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
        if self._thread is threading.current_thread():  # it ends after this callback; workers may be waiting for that
            deadline = 0.0
        else:
            self._thread.join(timeout)
        if first:
            self.workers.stop(deadline - time.monotonic())

    def after_fork_in_child(self) -> None:
        """Close the child's copies of all sockets, registered ones included."""
        self.stopped = True
        self._ident = None
        self._lock = threading.RLock()
        self.workers.after_fork_in_child()
        # Without unregistering: on Linux the child shares the parent's epoll object.
        with suppress(OSError):  # on macOS the child has no such descriptor
            for key in list((self._selector.get_map() or {}).values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
        self._waker.close()
        self._wake_end.close()

    def in_loop(self) -> bool:
        """Return whether the caller runs in the loop's thread."""
        return threading.get_ident() == self._ident

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in the loop's thread, soon."""
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
            log.debug("A socket was unregistered that was not registered")

    # The thread

    def _wake(self) -> None:
        try:
            self._waker.write(b"\0")  # it fails silently if many wake-ups wait
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
            self._ident = None  # the system may give it to another thread

    def _busy_poll(self, until: float) -> Events:
        """Poll until there are events or the time is over."""
        events: Events = []
        while not events and not self._ready and time.monotonic() < until:
            _sched_yield()  # the peer may be waiting for this very processor
            events = self._selector.select(0.0)
        if time.monotonic() - until > OVERLOAD_DELAY:
            self._busy_poll_from = until + BUSY_POLL_RETRY
        return events

    def _select(self) -> Events:
        """Wait for events, for `call_soon`, or for a timer to be due."""
        # Set before `_ready` is read: a `call_soon` after that sees it and wakes the loop.
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
        """Remove cancelled timers: a hub makes one for each message, and cancels it a millisecond later."""
        self._timers = [entry for entry in self._timers if entry[2].active]
        heapq.heapify(self._timers)
        self._purge_at = max(64, 2 * len(self._timers))

    def _run_ready(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):  # calls that these add wait until the sockets have been polled
            run_logged(*ready.popleft())

    def _close(self) -> None:
        self._ident = None  # the system may give it to another thread
        self._selector.close()
        self._waker.close()
        self._wake_end.close()
        self._timers.clear()
        self._ready.clear()
