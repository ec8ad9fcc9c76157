# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The mailbox of a web client: callbacks wait in it until the page pulls them (R42).

A browser can't be called, so a page asks: its *pull* is answered at once when callbacks wait, and otherwise
waits here, without a thread, until one comes or its time is over.

What must not be lost
---------------------
The connection of a pull may break at any moment: a tab is closed, a page reloaded. Callbacks leave the mailbox only
with an answer that went out. Before a pull is answered its connection is looked at; callbacks of an
answer that could not be written go back to the front; and so do those of an answer that the other side has
thrown away unread, which the kernel tells by resetting the connection. So the next pull gets them. An answer was
read when another request has come by its connection, or when that was closed in good order.

Pages that have gone
--------------------
A page that goes says nothing either. What it leaves is a pull that the browser *breaks off*: the other side closes the
connection while the pull waits, or before it has read the whole answer. Such a page is unregistered after `GRACE`, the
time in which a page pulls again whose connection alone was broken (R43).

A page that does not pull has broken nothing off. It may be held up: by a modal dialog, by a debugger, as a background
tab whose timers the browser throttles, on a computer that sleeps, or behind the pulls of other tabs (R49). So it keeps
its registration, and what comes for it waits in the mailbox, for `IDLE_GRACE`. That a connection is closed later says
nothing: browsers and this hub close those that are idle. A page that was closed in the moment between two pulls looks
the same, and is unregistered after the same time. Only when the whole browser ends in that moment something tells so:
a connection that was used several times, last by this page, is closed within `QUICK_CLOSE`, and browsers keep idle ones
much longer.

A page that sends and does not allow callbacks pulls nothing: it is left alone until it unregisters.

The pulls of web clients, and how many of one browser may wait at a time (R42, R49).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..broker import Delivery
from ..transport.server_connection import DeferredResponse
from ..transport.xmlrpc_writer import PreEncoded, write_value

if TYPE_CHECKING:
    from ..broker import Delivery
    from ..transport.event_loop import EventLoop, Timer
    from ..transport.server_connection import ServerConnection

__all__ = ["Pull", "PullLimiter", "PullQueue"]

log = logging.getLogger(__name__)

#: Pulls of one browser that may wait at a time: it opens six connections to a host, and some must be left (R49).
MAX_PULLS = 4
#: Seconds between two releases while nothing tells that somebody needs room. Eight tabs that pull again at once would
#: otherwise go round in circles.
RELEASE_INTERVAL = 0.25
#: Releases without that pause when something does: what waits in the browser for a connection waits in a queue,
#: perhaps behind pulls of many tabs, and the hub cannot see which of them it is going to get.
BURST_RELEASES = 16


class Pull:
    """
    One ``pullCallbacks`` that waits or has been answered.

    Parameters
    ----------
    connection : Connection
        What it came by.
    browser : str
        Whose connections it shares (R49).
    """

    def __init__(self, connection: ServerConnection, browser: str = "") -> None:
        self.connection = connection
        self.browser = browser
        self.response = DeferredResponse()
        self.batch: list[Delivery] = []
        self.timer: Timer | None = None
        #: Whether the answer has been written.
        self.is_sent = False
        self._requests = connection.requests

    @property
    def is_confirmed(self) -> bool:
        """Whether the answer cannot come back any more: it was read before the next request, or in good order."""
        connection = self.connection
        if connection.requests != self._requests:
            return True
        # Who closes before there is an answer has not read it, in whatever order
        return self.is_sent and not connection.peer_is_open() and not connection.was_reset

    @property
    def was_broken_off(self) -> bool:
        """Whether the other side has closed the connection before it had read the whole answer."""
        return (self.connection.was_left and not self.is_sent) or self.was_lost

    @property
    def was_lost(self) -> bool:
        """Whether the other side has thrown the answer away unread."""
        return not self.is_confirmed and self.connection.was_reset


class PullLimiter:
    """
    Keeps the pulls of one browser from taking all its connections (R49). Belongs to the loop's thread.

    The oldest pull is released when too many wait. With many tabs it comes back at once and takes the place that it
    has made, so releases have a pace, and go faster for a while when there are signs that a tab wants to do more than
    to pull: see `hurry`. Pulls of programs that are no browsers do not count.

    Parameters
    ----------
    loop : Loop
        Whose clock is used.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, dict[Pull, Callable[[Pull], object]]] = {}
        self._paused: set[str] = set()
        self._prioritized: dict[str, int] = {}  # releases without a pause that are left

    def add(self, pull: Pull, release: Callable[[Pull], object]) -> None:
        """Count a pull that begins to wait; ``release(pull)`` will be called if it is to make room."""
        if pull.browser:
            self._waiting.setdefault(pull.browser, {})[pull] = release
            self._release_oldest(pull.browser)

    def discard(self, pull: Pull) -> None:
        """Count a pull out."""
        waiting = self._waiting.get(pull.browser)
        if waiting is not None and waiting.pop(pull, None) is not None and not waiting:
            del self._waiting[pull.browser]
            self._prioritized.pop(pull.browser, None)

    def prioritize(self, browser: str) -> None:
        """
        Release pulls without a pause for a while: a tab of the browser is busy, so others may need connections.

        Parameters
        ----------
        browser : str
            As the pulls have it; for an empty one nothing is done.
        """
        if browser in self._waiting:
            self._prioritized[browser] = BURST_RELEASES
            self._release_oldest(browser)

    def _release_oldest(self, browser: str) -> None:
        while len(waiting := self._waiting.get(browser, {})) > MAX_PULLS:
            if self._prioritized.get(browser):
                self._prioritized[browser] -= 1
            elif browser not in self._paused:
                self._paused.add(browser)
                self._loop.call_later(RELEASE_INTERVAL, self._resume, browser)
            else:
                return
            oldest = next(iter(waiting))
            waiting[oldest](oldest)

    def _resume(self, browser: str) -> None:
        self._paused.discard(browser)
        self._release_oldest(browser)


#: What may wait for one client; beyond it the client is disconnected (R50).
MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024
#: Bytes after which an answer takes no further callback: a browser parses it in one go.
MAX_RESPONSE = 4 * 1024 * 1024
#: Answers of which it is not known yet whether they were read that are kept for a client, the latest. A browser has six
#: connections.
MAX_UNCONFIRMED = 6
#: Seconds that a pull may wait, whatever it asks for.
MAX_WAIT = 3600.0
#: Seconds without a pull after which a page is unregistered: when its last pull was broken off; else.
DISCONNECT_TIMEOUT = 10.0
IDLE_TIMEOUT = 300.0
#: Seconds for which every browser keeps an idle connection (Firefox 115 s, Chromium 300 s).
QUICK_CLOSE = 10.0
#: Seconds by which the wall clock may run ahead of a timer. Beyond it the computer, or this process, was suspended.
MAX_DELAY = 5.0


class PullQueue:
    """
    The callbacks of one web client. All but `put` and `close` belongs to the loop's thread.

    Parameters
    ----------
    loop : Loop
        Whose thread and clock are used.
    limit : PullLimit
        The pulls of all clients.
    on_overflow : callable
        Called with a reason, once, when more would wait than may.
    on_gone : callable
        Called with a reason, once, when the page seems to be gone.
    on_delivery : callable
        Called with each delivery that the client can see.
    on_idle : callable
        Called when nothing waits any more.
    on_closed : callable
        Called when the broker has closed the mailbox: the client is out.
    """

    def __init__(
        self,
        loop: EventLoop,
        limit: PullLimiter,
        *,
        on_overflow: Callable[[str], object],
        on_gone: Callable[[str], object],
        on_delivery: Callable[[Delivery], object] = lambda _delivery: None,
        on_idle: Callable[[], object] = lambda: None,
        on_closed: Callable[[], object] = lambda: None,
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._on_overflow = on_overflow
        self._on_gone = on_gone
        self._on_delivery = on_delivery
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._queue: deque[Delivery] = deque()
        self._bytes = 0
        self._waiting: deque[Pull] = deque()
        self._last: Pull | None = None
        self._last_used: ServerConnection | None = None  # by the last request, if a browser made it
        self._unconfirmed: list[Pull] = []  # that were handed callbacks, perhaps in vain
        self._flush_is_due = False
        self._closed = False
        #: The farewell, as the answer to a pull, if none was waiting for it (R26).
        self.final_message: PreEncoded | None = None
        self._inactivity_timer: Timer | None = None
        self._inactivity_timeout = IDLE_TIMEOUT  # how long the grace is
        self._grace_began = 0.0  # by the wall clock, which goes on while the computer sleeps

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def has_waiting_pull(self) -> bool:
        """Whether the client pulls, or is given time to: it is there, however long it has been silent."""
        return bool(self._waiting) or self._inactivity_timer is not None

    @property
    def has_pending(self) -> bool:
        """Whether something waits for a page that is about to pull it, as far as one can tell."""
        return bool(self._queue) and (bool(self._waiting) or self._last is not None)

    # What the broker calls, in any thread

    def put(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self._loop.call_soon(self._enqueue, delivery)

    def close(self, farewell: Delivery | None) -> None:
        """Forget what waits; a pull that waits is answered, with the farewell if there is one (R26)."""
        self._loop.call_soon(self._close, farewell)

    # What the profile calls

    def pull(self, pull: Pull, timeout: float) -> DeferredResponse:
        """
        Answer a pull as soon as there is something, or when its time is over (R42).

        Parameters
        ----------
        pull : Pull
            The pull.
        timeout : float
            Seconds to wait; none or less does not wait at all.

        Returns
        -------
        Deferred
            Resolved with the list of callbacks.
        """
        answer = pull.response
        self._cancel_inactivity_timer()
        self._last = None
        self._requeue_lost()
        if self._closed:
            answer.set_result([])
            return answer
        answer.add_cancel_callback(lambda: self._on_broken(pull))
        answer.on_sent = lambda sent: self._on_sent(pull, sent=sent)
        self._waiting.append(pull)
        self._flush()
        if pull not in self._waiting:
            return answer  # answered; an older pull may have got what there was
        if timeout <= 0:
            self._release(pull)
        else:
            pull.timer = self._loop.call_later(min(timeout, MAX_WAIT), self._release, pull)
            self._limit.add(pull, self._release)
        return answer

    def clear(self) -> list[Delivery]:
        """Empty the mailbox, and answer the pulls that wait: the client takes no callbacks any more (R39)."""
        dropped = list(self._queue)
        self._queue.clear()
        self._bytes = 0
        for pull in list(self._waiting):
            self._release(pull)
        self._cancel_inactivity_timer()
        self._last = None
        self._unconfirmed.clear()
        return dropped

    def flush_and_close(self) -> None:
        """Hand over what can be handed over now, and end: the hub stops."""
        self._flush()
        self._finish()

    def expect_pull(self) -> None:
        """The client takes callbacks from now on, so it is going to pull."""
        if not self._closed and not self._waiting:
            self._start_inactivity_timer(IDLE_TIMEOUT)

    def mark_active(self, connection: ServerConnection | None = None) -> None:
        """
        Note that the client has made a request: it is not gone yet, if it was not the last that it wrote.

        Parameters
        ----------
        connection : Connection, optional
            What it came by, if that belongs to a browser.
        """
        self._last_used = connection
        if connection is not None:
            connection.on_closed = lambda: self._on_connection_closed(connection)
        if self._inactivity_timer is not None and self._inactivity_timer.active:
            self._start_inactivity_timer(self._inactivity_timeout)

    # Taking and handing out

    def _enqueue(self, delivery: Delivery) -> None:
        if self._closed:
            return
        size = delivery.size
        # One message always has room, however large: its size is bounded where messages are read
        if self._queue and (len(self._queue) >= MAX_QUEUED or self._bytes + size > MAX_QUEUED_BYTES):
            reason = f"{len(self._queue)} messages were waiting to be pulled"
            self._finish()
            self._on_overflow(reason)
            return
        self._queue.append(delivery)
        self._bytes += size
        self._on_delivery(delivery)
        if not self._waiting:
            if self._last is not None and len(self._queue) == 1:
                self._limit.prioritize(self._last.browser)  # its next pull may be waiting for a connection
            if self._inactivity_timer is None:
                self._start_inactivity_timer(IDLE_TIMEOUT)
        elif not self._flush_is_due:
            self._flush_is_due = True  # what was put in the same moment comes along
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Give what waits to the pull that has waited longest."""
        self._flush_is_due = False
        while self._queue and self._waiting:
            pull = self._waiting[0]
            self._remove_pull(pull)
            if not pull.connection.peer_is_open():
                pull.response.cancel()  # the loop has yet to come to it
                continue
            pull.batch = self._next_batch()
            self._last = pull
            if pull.response.set_result(_write_callbacks(pull.batch)):
                self._track_response(pull)
                self._limit.prioritize(pull.browser)  # the page is going to answer, which takes a connection
            else:
                self._put_back(pull)
        if not self._queue:
            self._on_idle()

    def _next_batch(self) -> list[Delivery]:
        batch: list[Delivery] = []
        size = 0
        while self._queue and (not batch or size + self._queue[0].size <= MAX_RESPONSE):
            delivery = self._queue.popleft()
            batch.append(delivery)
            size += delivery.size
        self._bytes -= size
        return batch

    def _put_back(self, pull: Pull) -> None:
        self._requeue(pull)
        if self._queue and self._waiting:
            self._flush()

    def _requeue(self, pull: Pull) -> None:
        """Put the callbacks of an answer to the front again."""
        batch, pull.batch = pull.batch, []
        if not self._closed:
            self._queue.extendleft(reversed(batch))
            self._bytes += sum(delivery.size for delivery in batch)

    def _release(self, pull: Pull) -> None:
        """Answer a pull with nothing."""
        if pull in self._waiting:
            self._remove_pull(pull)
            self._last = pull
            pull.response.set_result([])
            self._track_response(pull)

    def _remove_pull(self, pull: Pull) -> None:
        self._waiting.remove(pull)
        self._limit.discard(pull)
        if pull.timer is not None:
            pull.timer.cancel()

    # How an answer fared

    def _on_sent(self, pull: Pull, *, sent: bool) -> None:
        pull.is_sent = sent
        if not sent:
            self._put_back(pull)
            self._expect_next_pull(pull)

    def _track_response(self, pull: Pull) -> None:
        """Watch what becomes of an answer that went out, and of the page."""
        connection = pull.connection
        if pull.batch and not pull.is_confirmed:
            self._unconfirmed.append(pull)
            if len(self._unconfirmed) > MAX_UNCONFIRMED:
                self._unconfirmed.pop(0).batch = []
        if not connection.closed:
            connection.on_closed = lambda: self._on_connection_closed(connection)
        self._expect_next_pull(pull)

    def _requeue_lost(self) -> None:
        """Take back the callbacks of answers that were thrown away unread."""
        lost = [pull for pull in self._unconfirmed if pull.was_lost]
        for pull in reversed(lost):
            self._unconfirmed.remove(pull)
            self._requeue(pull)
        for pull in [pull for pull in self._unconfirmed if pull.is_confirmed]:
            self._unconfirmed.remove(pull)
            pull.batch = []
        if lost and self._waiting:
            self._flush()

    # Who is gone

    def _on_broken(self, pull: Pull) -> None:
        """A pull's connection closed while it waited."""
        if pull in self._waiting:
            self._remove_pull(pull)
        self._expect_next_pull(pull)

    def _expect_next_pull(self, pull: Pull) -> None:
        """Give the page time for its next pull."""
        if not self._closed and not self._waiting:
            self._start_inactivity_timer(DISCONNECT_TIMEOUT if pull.was_broken_off else IDLE_TIMEOUT)

    def _on_connection_closed(self, connection: ServerConnection) -> None:
        """The connection of an answered pull, or of the last request, closed, and was not used for another request."""
        last = self._last
        broken_off = last is not None and last.connection is connection and last.was_broken_off
        self._requeue_lost()
        if self._inactivity_timer is None or self._waiting:
            return
        # Who uses each connection once, as simple programs do, says nothing by closing it
        was_kept = connection is self._last_used and connection.requests > 1
        is_quick = time.time() - self._grace_began < QUICK_CLOSE
        if broken_off or (was_kept and connection.was_left and is_quick):
            self._start_inactivity_timer(DISCONNECT_TIMEOUT)

    def _start_inactivity_timer(self, delay: float) -> None:
        self._cancel_inactivity_timer()
        self._inactivity_timeout = delay
        self._grace_began = time.time()
        self._inactivity_timer = self._loop.call_later(delay, self._on_inactive)

    def _cancel_inactivity_timer(self) -> None:
        if self._inactivity_timer is not None:
            self._inactivity_timer.cancel()
            self._inactivity_timer = None

    def _on_inactive(self) -> None:
        if time.time() - self._grace_began > self._inactivity_timeout + MAX_DELAY:
            self._start_inactivity_timer(self._inactivity_timeout)  # the page was suspended, too
        elif not self._closed and not self._waiting:
            self._finish()
            self._on_gone("has gone: the page pulls its callbacks no longer")

    # The end

    def _close(self, farewell: Delivery | None) -> None:
        if farewell is not None:
            if self._waiting and not self._queue:
                self._queue.append(farewell)
                self._flush()
            else:
                self.final_message = _write_callbacks([farewell])
        self._finish()
        self._on_closed()

    def _finish(self) -> None:
        self._closed = True
        self._queue.clear()
        self._bytes = 0
        self._cancel_inactivity_timer()
        self._last = None
        self._unconfirmed.clear()
        for pull in list(self._waiting):
            self._remove_pull(pull)
            pull.response.set_result([])


def _write_callbacks(batch: list[Delivery]) -> PreEncoded:
    """Write callbacks as R42 has them; the payloads' own bytes are not written again."""
    return PreEncoded(b"<value><array><data>%b</data></array></value>" % b"".join(map(_write_callback, batch)))


def _write_callback(delivery: Delivery) -> bytes:
    envelope = [delivery.sender_id] if delivery.tag is None else [delivery.sender_id, delivery.tag]
    params = b"".join([*map(write_value, envelope), delivery.body.encoded()])
    return (
        b"<value><struct><member><name>samp.methodName</name><value><string>%b</string></value></member>"
        b"<member><name>samp.params</name><value><array><data>%b</data></array></value></member></struct></value>"
    ) % (delivery.kind.encode("ascii"), params)
