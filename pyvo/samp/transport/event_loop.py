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
by `Loop.run_in_worker`. `Workers` are threads made on demand, reused, and ended when they have been idle for
a while: starting a thread costs more than most of the work it would do.

One thing mostly leads to the next: who was sent a message acknowledges it, who was answered asks again. To be put to
sleep and woken costs the system more than such an answer takes to come. So the loop of a hub looks for more for a
moment before it sleeps, whenever the last thing came as quickly. This costs next to no CPU time, as it spares as much,
and shortens the round trip of a message by a quarter. It does not pay where more wants to run than there are
processors, and is then left off for a while. A client's loop would only be in its program's way.

All threads are daemons: a script that ends is not kept alive by them.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from .worker_pool import Task, WorkerPool, run_logged

__all__ = ["EventLoop", "Timer"]

log = logging.getLogger(__name__)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

EventCallback = Callable[[int], None]
Events = list[tuple[selectors.SelectorKey, int]]

#: Seconds for which a loop that lingers looks for more before it sleeps; not where there is one processor for all.
BUSY_POLL_TIME = 100e-6 if (os.cpu_count() or 1) > 1 else 0.0
#: Seconds without a turn that show that more wants to run than there are processors. Then it does not pay to linger.
OVERLOAD_DELAY = 1e-3
#: Seconds after which it is tried again.
BUSY_POLL_RETRY = 1.0
#: Rounds that are still made for callbacks which call `Loop.call_soon` while the loop ends.
SHUTDOWN_ROUNDS = 100


_sched_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)


class Timer:
    """A call that is due later; made by `Loop.call_later`."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Task) -> None:
        self.when = when
        #: Function and arguments in one object: another thread's `cancel` leaves either both or none of them.
        self.call: Task | None = call

    def cancel(self) -> None:
        """Forget the call. Has no effect on one that has begun. Any thread may do so."""
        self.call = None

    @property
    def active(self) -> bool:
        """Whether the call is still to come."""
        return self.call is not None


class EventLoop:
    """
    A thread that runs callbacks when sockets are ready and when timers are due.

    Parameters
    ----------
    name : str
        Name of the thread, and prefix of its workers' names.
    lingers : bool
        Whether it looks for more before it sleeps.
    """

    def __init__(self, name: str = "samp-loop", *, lingers: bool = False) -> None:
        self.name = name
        self._busy_poll_from = 0.0 if lingers else math.inf
        self.workers = WorkerPool(f"{name}-worker")
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._purge_at = 64
        self._serial = count()
        self._ready: deque[Task] = deque()
        self._lock = threading.RLock()  # a signal handler may come in between
        self._asleep = False
        self._started = False
        self._stopping = False
        self._ident: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._wake_end.setblocking(False)
        self._selector.register(self._wake_end, READ, self._drain_wakeup)

    # What any thread may call

    def start(self) -> None:
        """Start the thread. Does nothing when it runs."""
        if not self._started:  # `Thread` takes a start that ^C has interrupted for none
            self._started = True
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
        deadline = time.monotonic() + timeout
        if self._thread is threading.current_thread():  # it ends after this callback; workers may wait for that
            deadline = 0.0
        else:
            self._thread.join(timeout)
        if first:
            self.workers.stop(deadline - time.monotonic())

    def after_fork_in_child(self) -> None:
        """Close the child's copies of all sockets, those that are watched included, after a fork."""
        self._stopping = True
        self._ident = None
        self._lock = threading.RLock()
        self.workers.after_fork_in_child()
        # Nothing is unregistered: on Linux the child shares the parent's table of watched descriptors.
        with suppress(OSError):  # on macOS the child has no such descriptor
            for key in list((self._selector.get_map() or {}).values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
        self._waker.close()
        self._wake_end.close()

    @property
    def started(self) -> bool:
        """Whether `start` has been called."""
        return self._started

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
            self._asleep = False  # before the wake-up, or a later call could find it unset with the loop asleep again
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
        """Run ``function(*args)``, which may block, in another thread; returns at once."""
        self.workers.submit(function, *args)

    # What only the loop's own thread may call

    def register(self, sock: socket.socket, events: int, callback: EventCallback) -> None:
        """Call ``callback(events)`` whenever ``sock`` is ready for one of ``events``."""
        self._selector.register(sock, events, callback)

    def modify(self, sock: socket.socket, events: int, callback: EventCallback) -> None:
        """Change what a watched socket is watched for."""
        self._selector.modify(sock, events, callback)

    def unregister(self, sock: socket.socket) -> None:
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

    def _drain_wakeup(self, _events: int) -> None:
        self._wake_end.recv(4096)

    def _run(self) -> None:
        self._ident = threading.get_ident()
        one_leads_to_the_next = False
        try:
            while not self._stopping:
                since = time.monotonic()
                events = (self._busy_poll(since + BUSY_POLL_TIME) if one_leads_to_the_next else []) or self._select()
                now = time.monotonic()
                one_leads_to_the_next = now - since < BUSY_POLL_TIME and now > self._busy_poll_from
                for key, mask in events:
                    # an earlier callback of this round may have closed this one's socket
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
            self._ident = None  # the system gives it to another thread

    def _busy_poll(self, until: float) -> Events:
        """Look for events for a moment, which is cheaper than to sleep and be woken by the next one."""
        events: Events = []
        while not events and not self._ready and time.monotonic() < until:
            _sched_yield()  # whoever is to send the next thing may be waiting for this very processor
            events = self._selector.select(0.0)
        if time.monotonic() - until > OVERLOAD_DELAY:
            self._busy_poll_from = until + BUSY_POLL_RETRY
        return events

    def _select(self) -> Events:
        """Wait for events, for `call_soon`, or for a timer to be due."""
        # `_asleep` goes up before the last look at `_ready`: a call_soon after that look sees it and wakes us.
        self._asleep = True
        timeout = self._select_timeout()
        events = self._selector.select(timeout)
        self._asleep = False
        return events

    def _select_timeout(self) -> float | None:
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
            call, timer.call = timer.call, None
            if call is not None:
                run_logged(*call)

    def _purge_timers(self) -> None:
        """Drop cancelled timers: a hub makes one for each message and cancels it a millisecond later."""
        self._timers = [entry for entry in self._timers if entry[2].active]
        heapq.heapify(self._timers)
        self._purge_at = max(64, 2 * len(self._timers))

    def _run_ready(self) -> None:
        ready = self._ready
        for _ in range(len(ready)):  # what these calls add waits for the sockets to be looked at
            run_logged(*ready.popleft())

    def _close(self) -> None:
        self._ident = None  # the system may give it to another thread
        self._selector.close()
        self._waker.close()
        self._wake_end.close()
        self._timers.clear()
        self._ready.clear()
