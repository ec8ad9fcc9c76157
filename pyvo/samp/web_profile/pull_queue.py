# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The callbacks of a web client, which wait in a queue until the page pulls them (R42), and the number of pulls (R49).

The hub cannot call a page in a browser, so the page calls the hub: its *pull* gets a response at once when callbacks
wait. Otherwise the pull waits here, without a thread, until a callback comes or its timeout ends.

Nothing is lost
---------------
The connection of a pull may break at any moment: the user closes a tab or reloads a page. Callbacks leave the queue
only with a response that was written. Before the hub responds to a pull, it checks the connection. Callbacks return to
the front of the queue if their response could not be written, or if the browser discarded it unread, which the kernel
reports by resetting the connection. The next pull gets them. A response counts as read when another request has come
over its connection, or when the browser has closed the connection without a reset.

When a page is gone
-------------------
A page that is closed does not unregister. But the browser *breaks off* its pull: it closes the connection while the
pull waits, or before it has read the whole response. Such a page is unregistered after `CLOSED_PULL_TIMEOUT`. If only
the connection was broken, the page pulls again within this time (R43). A client that is not in the page but in a
kernel, and pulls through the page, continues when the page has been reloaded, and has `RELAY_TIMEOUT` for that.

A page that does not pull has not broken anything off. It may be stopped by a modal dialog or a debugger, in a
background tab with throttled timers, on a computer that sleeps, or wait for the pulls of other tabs (R49). So it stays
registered for `NO_PULL_TIMEOUT`, and its callbacks wait. It means nothing if its connection is closed later: browsers
and this hub close idle connections. A page that is closed between two pulls looks the same, and is unregistered after
the same time. The hub notices that the whole browser has ended between two pulls: then all connections that the page
has used are closed, also the idle ones, which a browser otherwise keeps for longer than `QUICK_CLOSE`. Connections that
other tabs use as well count, too, because the browser chooses one of its connections for each request.

A page that only sends does not allow callbacks and does not pull. It stays registered until it unregisters.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ..broker import Delivery
from ..transport.event_loop import EventLoop, Timer
from ..transport.server_connection import DeferredResponse, ServerConnection
from ..transport.xmlrpc_writer import PreEncoded, write_value

#: Pulls of one browser that may wait. It opens six connections to a host; some must stay free (R49).
MAX_PULLS = 4
#: Seconds between two releases while no request shows that a tab needs a connection. Without this pause eight tabs
#: that pull again at once would release each other without end.
RELEASE_INTERVAL = 0.25
#: Releases without this pause after such a request. Requests that have no connection wait in the browser, perhaps
#: behind the pulls of many tabs, and the hub does not see which of them gets the next one.
BURST_RELEASES = 16

#: Callbacks and bytes that may wait for one client. A client that exceeds them is disconnected (R50).
MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024
#: Bytes after which no further callback is added to a response: the browser has to parse all of it at once.
MAX_RESPONSE = 4 * 1024 * 1024
#: Latest responses whose callbacks are kept until it is known that they were read. A browser has six connections.
MAX_UNCONFIRMED = 6
#: Seconds that a pull may wait, whatever timeout it states.
MAX_WAIT = 3600.0
#: Seconds after which a page is unregistered if its last pull was broken off.
CLOSED_PULL_TIMEOUT = 10.0
#: The same for a client in a kernel: the page of its notebook takes long to load.
RELAY_TIMEOUT = 60.0
#: Seconds without a pull after which any other page is unregistered.
NO_PULL_TIMEOUT = 300.0
#: Seconds for which every browser keeps an idle connection (Firefox 115 s, Chromium 300 s).
QUICK_CLOSE = 10.0
#: Seconds by which the wall clock may be ahead of a timer. If it is further, the computer or this process was
#: suspended.
MAX_DELAY = 5.0


class Pull:
    """One ``pullCallbacks``, waiting or finished. ``browser`` identifies the browser that made it (R49)."""

    def __init__(self, connection: ServerConnection, browser: str = "") -> None:
        self.connection = connection
        self.browser = browser
        self.response = DeferredResponse()
        self.batch: list[Delivery] = []
        self.timer: Timer | None = None
        #: Whether the response has been written.
        self.is_sent = False
        self._requests = connection.requests

    @property
    def is_confirmed(self) -> bool:
        """Whether the response was read: another request followed, or the browser closed without a reset."""
        connection = self.connection
        if connection.requests != self._requests:
            return True
        # A browser that closes before there is a response has not read it, in whatever order the hub notices
        return self.is_sent and not connection.peer_is_open() and not connection.was_reset

    @property
    def was_broken_off(self) -> bool:
        """Whether the browser closed the connection before it had read the whole response."""
        return (self.connection.was_left and not self.is_sent) or self.was_lost

    @property
    def was_lost(self) -> bool:
        """Whether the browser discarded the response unread."""
        return not self.is_confirmed and self.connection.was_reset


class PullLimiter:
    """
    Limits the pulls of one browser that wait, so that it has free connections (R49). Used in the loop's thread.

    When too many wait, the oldest one gets an empty response: it is released. With many tabs it soon returns and
    takes the connection that it has freed. So releases are paced, and are faster for a while when a tab does more than
    pull. Pulls of programs that are not browsers do not count.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, dict[Pull, Callable[[Pull], object]]] = {}
        self._paused: set[str] = set()
        self._prioritized: dict[str, int] = {}  # remaining releases without a pause

    def add(self, pull: Pull, release: Callable[[Pull], object]) -> None:
        """Count a pull that starts to wait. ``release(pull)`` is called when it has to end."""
        if pull.browser:
            self._waiting.setdefault(pull.browser, {})[pull] = release
            self._release_oldest(pull.browser)

    def discard(self, pull: Pull) -> None:
        """Stop counting a pull."""
        waiting = self._waiting.get(pull.browser)
        if waiting is not None and waiting.pop(pull, None) is not None and not waiting:
            del self._waiting[pull.browser]
            self._prioritized.pop(pull.browser, None)

    def prioritize(self, browser: str) -> None:
        """Release some pulls of a browser without pauses: other requests probably wait for a connection."""
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


class PullQueue:
    """
    The callbacks of one web client. All methods but `put` and `close` are called in the loop's thread.

    A subclass overrides the methods whose names begin with ``on_``.
    """

    def __init__(self, loop: EventLoop, limiter: PullLimiter) -> None:
        self._loop = loop
        self._limiter = limiter
        self._queue: deque[Delivery] = deque()
        self._bytes = 0
        self._waiting: deque[Pull] = deque()
        self._last: Pull | None = None  # the latest pull, if it has got its response
        self._unconfirmed: list[Pull] = []  # pulls whose response was perhaps not read
        self._connections: set[ServerConnection] = set()  # that the client has used, as far as they are open
        self._is_browser = False  # whether a browser made the last request
        self._idle_closed = False  # whether the browser has closed an idle connection since then
        self._flush_scheduled = False
        self._closed = False
        #: Whether the client is in a kernel, and pulls through the page.
        self.is_relayed = False
        #: The final message, as the response to a pull, if no pull was waiting for it (R26).
        self.final_message: PreEncoded | None = None
        self._inactivity_timer: Timer | None = None
        self._inactivity_timeout = NO_PULL_TIMEOUT
        self._inactive_since = 0.0  # by the wall clock, which also advances while the computer sleeps

    @property
    def _closed_pull_timeout(self) -> float:
        return RELAY_TIMEOUT if self.is_relayed else CLOSED_PULL_TIMEOUT

    # For subclasses to override

    def on_delivery(self, delivery: Delivery) -> None:
        """Called with each delivery that the client can see."""

    def on_overflow(self, reason: str) -> None:
        """Called once when more would wait than is allowed."""

    def on_gone(self, reason: str) -> None:
        """Called once when the page seems to be gone."""

    def on_empty(self) -> None:
        """Called when nothing waits any more."""

    def on_closed(self) -> None:
        """Called when the broker has closed the queue: the client is unregistered."""

    @property
    def has_waiting_pull(self) -> bool:
        """Whether a pull waits or is expected: the client is then not silent."""
        return bool(self._waiting) or self._inactivity_timer is not None

    @property
    def has_pending(self) -> bool:
        """Whether callbacks wait for a page that is likely to pull them soon."""
        return bool(self._queue) and (bool(self._waiting) or self._last is not None)

    # Called by the broker, in any thread

    def put(self, delivery: Delivery) -> None:
        """Add a delivery."""
        self._loop.call_soon(self._enqueue, delivery)

    def close(self, final_delivery: Delivery | None) -> None:
        """Drop the deliveries, and respond to the waiting pulls. One of them gets the final delivery, if any (R26)."""
        self._loop.call_soon(self._close, final_delivery)

    # Called by the profile

    def pull(self, pull: Pull, timeout: float) -> DeferredResponse:
        """Respond to a pull with callbacks as soon as there are some, or with none after ``timeout`` seconds (R42)."""
        response = pull.response
        self._cancel_inactivity_timer()
        self._last = None
        self._requeue_lost()
        if self._closed:
            response.set_result([])
            return response
        response.add_cancel_callback(lambda: self._on_broken(pull))
        response.on_sent = lambda sent: self._on_sent(pull, sent=sent)
        self._waiting.append(pull)
        self._flush()
        if pull not in self._waiting:
            return response  # still waiting if an older pull got the callbacks
        if timeout <= 0:
            self._release(pull)
        else:
            pull.timer = self._loop.call_later(timeout, self._release, pull)
            self._limiter.add(pull, self._release)
        return response

    def clear(self) -> list[Delivery]:
        """Remove and return all deliveries, and respond to waiting pulls: the client has disabled callbacks (R39)."""
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
        """Deliver what can be delivered now, and close: the hub stops."""
        self._flush()
        self._finish()

    def expect_pull(self) -> None:
        """Expect the client to pull: it allows callbacks from now on."""
        if not self._closed and not self._waiting:
            self._start_inactivity_timer(NO_PULL_TIMEOUT)

    def mark_active(self, connection: ServerConnection, *, is_browser: bool) -> None:
        """Note that the client has made a request."""
        self._is_browser = is_browser
        self._idle_closed = False
        if connection not in self._connections:
            self._connections = {other for other in self._connections if not other.closed} | {connection}
            connection.close_callbacks[self] = lambda: self._on_connection_closed(connection)
        if self._inactivity_timer is not None and self._inactivity_timer.active:
            self._start_inactivity_timer(self._inactivity_timeout)

    # Deliveries

    def _enqueue(self, delivery: Delivery) -> None:
        if self._closed:
            return
        size = delivery.size
        # A single message is always accepted: its size is limited where messages are read
        if self._queue and (len(self._queue) >= MAX_QUEUED or self._bytes + size > MAX_QUEUED_BYTES):
            reason = f"{len(self._queue)} messages were waiting to be pulled"
            self._finish()
            self.on_overflow(reason)
            return
        self._queue.append(delivery)
        self._bytes += size
        self.on_delivery(delivery)
        if not self._waiting:
            if self._last is not None and len(self._queue) == 1:
                self._limiter.prioritize(self._last.browser)  # the next pull may be waiting for a connection
            if self._inactivity_timer is None:
                self._start_inactivity_timer(NO_PULL_TIMEOUT)
        elif not self._flush_scheduled:
            self._flush_scheduled = True  # deliveries that are put at the same moment go into one response
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Respond with the waiting callbacks to the pulls that have waited longest."""
        self._flush_scheduled = False
        while self._queue and self._waiting:
            pull = self._waiting[0]
            self._remove_pull(pull)
            if not pull.connection.peer_is_open():
                pull.response.cancel()  # the loop has not yet processed that the connection was closed
                continue
            pull.batch = self._next_batch()
            self._last = pull
            if pull.response.set_result(_write_callbacks(pull.batch)):
                self._track_response(pull)
                self._limiter.prioritize(pull.browser)  # the page will reply, for which it needs a connection
            else:
                self._put_back(pull)
        if not self._queue:
            self.on_empty()

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
        """Return the callbacks of a response to the queue, and respond with them to the next pull if one waits."""
        self._requeue(pull)
        if self._queue and self._waiting:
            self._flush()

    def _requeue(self, pull: Pull) -> None:
        """Return the callbacks of a response to the front of the queue."""
        batch, pull.batch = pull.batch, []
        if not self._closed:
            self._queue.extendleft(reversed(batch))
            self._bytes += sum(delivery.size for delivery in batch)

    def _release(self, pull: Pull) -> None:
        """Respond to a pull without callbacks."""
        if pull in self._waiting:
            self._remove_pull(pull)
            self._last = pull
            pull.response.set_result([])
            self._track_response(pull)

    def _remove_pull(self, pull: Pull) -> None:
        self._waiting.remove(pull)
        self._limiter.discard(pull)
        if pull.timer is not None:
            pull.timer.cancel()

    # Responses: were they read?

    def _on_sent(self, pull: Pull, *, sent: bool) -> None:
        pull.is_sent = sent
        if not sent:
            self._put_back(pull)
            self._expect_next_pull(pull)

    def _track_response(self, pull: Pull) -> None:
        """Keep the callbacks of a response until it is known that they were read, and expect the next pull."""
        if pull.batch and not pull.is_confirmed:
            self._unconfirmed.append(pull)
            if len(self._unconfirmed) > MAX_UNCONFIRMED:
                self._unconfirmed.pop(0).batch = []
        self._expect_next_pull(pull)

    def _requeue_lost(self) -> None:
        """Return the callbacks of responses that were discarded unread to the queue."""
        lost = [pull for pull in self._unconfirmed if pull.was_lost]
        for pull in reversed(lost):
            self._unconfirmed.remove(pull)
            self._requeue(pull)
        for pull in [pull for pull in self._unconfirmed if pull.is_confirmed]:
            self._unconfirmed.remove(pull)
            pull.batch = []
        if lost and self._waiting:
            self._flush()

    # Pages that are gone (R43)

    def _on_broken(self, pull: Pull) -> None:
        """Handle that the connection of a waiting pull was closed."""
        if pull in self._waiting:
            self._remove_pull(pull)
        self._expect_next_pull(pull)

    def _expect_next_pull(self, pull: Pull) -> None:
        if not self._closed and not self._waiting:
            self._start_inactivity_timer(self._closed_pull_timeout if pull.was_broken_off else NO_PULL_TIMEOUT)

    def _on_connection_closed(self, connection: ServerConnection) -> None:
        """Handle the end of a connection that the client has used."""
        last = self._last
        broken_off = last is not None and last.connection is connection and last.was_broken_off
        self._requeue_lost()
        is_gone = broken_off or self._note_closed(connection)
        if is_gone and self._inactivity_timer is not None and not self._waiting:
            self._start_inactivity_timer(self._closed_pull_timeout)

    def _note_closed(self, connection: ServerConnection) -> bool:
        """Note that the browser or the hub has closed a connection; return whether the browser has ended."""
        # A program that uses each connection only once also closes it: this does not mean that it is gone
        if connection.was_left and connection.was_idle and connection.requests > 1:
            self._idle_closed = True
        # A transfer may have taken over a connection: that is closed, but was not reported
        self._connections = {other for other in self._connections if not other.closed}
        is_quick = time.time() - self._inactive_since < QUICK_CLOSE
        return self._is_browser and self._idle_closed and not self._connections and is_quick

    def _start_inactivity_timer(self, timeout: float) -> None:
        self._cancel_inactivity_timer()
        self._inactivity_timeout = timeout
        self._inactive_since = time.time()
        self._inactivity_timer = self._loop.call_later(timeout, self._on_inactive)

    def _cancel_inactivity_timer(self) -> None:
        if self._inactivity_timer is not None:
            self._inactivity_timer.cancel()
            self._inactivity_timer = None

    def _on_inactive(self) -> None:
        if time.time() - self._inactive_since > self._inactivity_timeout + MAX_DELAY:
            self._start_inactivity_timer(self._inactivity_timeout)  # the page was suspended as well
        elif not self._closed and not self._waiting:
            self._finish()
            self.on_gone("is gone: the page no longer pulls its callbacks")

    # The end

    def _close(self, final_delivery: Delivery | None) -> None:
        if final_delivery is not None:
            if self._waiting and not self._queue:
                self._queue.append(final_delivery)
                self._flush()
            else:
                self.final_message = _write_callbacks([final_delivery])
        self._finish()
        self.on_closed()

    def _finish(self) -> None:
        self._closed = True
        self.clear()
        for connection in self._connections:  # other pages may use it for hours
            connection.close_callbacks.pop(self, None)


def _write_callbacks(batch: list[Delivery]) -> PreEncoded:
    """Encode callbacks as R42 requires; messages that are already encoded are copied."""
    return PreEncoded(b"<value><array><data>%b</data></array></value>" % b"".join(map(_write_callback, batch)))


def _write_callback(delivery: Delivery) -> bytes:
    envelope = [delivery.sender_id] if delivery.tag is None else [delivery.sender_id, delivery.tag]
    params = b"".join([*map(write_value, envelope), delivery.body.encoded()])
    return (
        b"<value><struct><member><name>samp.methodName</name><value><string>%b</string></value></member>"
        b"<member><name>samp.params</name><value><array><data>%b</data></array></value></member></struct></value>"
    ) % (delivery.kind.encode("ascii"), params)
