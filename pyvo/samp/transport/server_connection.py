# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The connections that a server has accepted, and deferred responses.

A `ServerConnection` reads requests as they arrive and writes the responses in the same order. The `ConnectionTable`
keeps all connections of a server and decides which connection to close when there are too many.

Reading, handling and writing are in one class, because they depend on each other's state. A request is handled only
after the response to the previous one has been written. There is one deadline for all kinds of waiting. The end of the
input has different consequences while a response is being written, while a response is deferred, and otherwise. Parsing
does not depend on this state and is in `RequestParser`.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from .event_loop import READ, WRITE, EventLoop, Timer, run_logged
from .http11 import HTTPError, HTTPRequest, RequestParser, Response

try:
    import fcntl
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

#: Seconds for which an idle connection is kept open. Our own clients close idle connections earlier (`MAX_IDLE_TIME`),
#: so that they do not write a request to a connection that is just being closed.
IDLE_TIMEOUT = 90.0
#: A connection that has been slow for this many seconds is closed in preference to an idle one.
SLOW_AFTER = 1.0
#: Seconds in which a request must arrive. The timeout is extended if at least `MIN_PROGRESS` bytes have arrived.
REQUEST_TIMEOUT = 15.0
#: Seconds in which the peer must read a response. The timeout is extended in the same way.
WRITE_TIMEOUT = 30.0
MIN_PROGRESS = 1024 * 1024
#: Seconds for which the server goes on reading a rejected request, so that the peer gets the response and not a reset.
DRAIN_TIMEOUT = 2.0
RECEIVE_SIZE = 64 * 1024
#: Limit for the bytes that arrive after a request that has no response yet.
MAX_PIPELINED = 64 * 1024
#: Flag for send(): more data follow, so that several responses are sent in one packet. Not available on all systems.
MSG_MORE = getattr(socket, "MSG_MORE", 0)
#: Number of bytes of an incomplete request or response that are buffered without a reservation.
UNACCOUNTED_SIZE = 64 * 1024


class RequestHandler(Protocol):
    """Interface between a server and its request handler. It is called in the loop's thread and must not block."""

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Respond to a request. Return None if the connection was detached."""

    def error_response(self, error: HTTPError) -> Response:
        """Return the response to an invalid request, or to a request that exceeds a limit."""


class DeferredResponse:
    """
    A response that is given later. Only the first call of `set_result`, `set_exception` or `cancel` has an effect.

    All methods may be called from any thread.
    """

    __slots__ = ("_lock", "_on_cancel", "_on_done", "_outcome", "on_sent", "state")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may interrupt a method
        self._on_cancel: Callable[[], object] | None = None
        self._on_done: Callable[[DeferredResponse], object] | None = None
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        #: Called in the loop's thread: with True when the response has been passed to the kernel, or with False if the
        #: connection was closed before that. Set it before the result.
        self.on_sent: Callable[[bool], object] | None = None
        #: ``"waiting"``, then ``"done"`` or ``"cancelled"``.
        self.state = "waiting"

    def set_result(self, value: object) -> bool:
        """Set the response; return False if there is one already or the request was cancelled."""
        return self._finish("done", (value, None))

    def set_exception(self, error: BaseException) -> bool:
        """Set an error; return False if there is a response already or the request was cancelled."""
        return self._finish("done", (None, error))

    def cancel(self) -> bool:
        """Cancel the request because the peer has closed the connection; return False if there is a response."""
        return self._finish("cancelled", (None, None))

    def add_cancel_callback(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when the request is cancelled; call it at once if it already is."""
        with self._lock:
            if self.state == "waiting":
                self._on_cancel = callback
            cancelled = self.state == "cancelled"
        if cancelled:
            callback()

    def result(self) -> Any:
        """Return the result that was set, or raise the exception that was set."""
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def add_done_callback(self, callback: Callable[[DeferredResponse], object]) -> None:
        """Call ``callback(self)`` when there is a response; call it at once if there already is."""
        with self._lock:
            if self.state == "waiting":
                self._on_done = callback
            done = self.state == "done"
        if done:
            callback(self)

    def _finish(self, state: str, outcome: tuple[Any, BaseException | None]) -> bool:
        with self._lock:
            if self.state != "waiting":
                return False
            self.state = state
            self._outcome = outcome
            on_done, on_cancel = self._on_done, self._on_cancel
            self._on_done = self._on_cancel = None  # they refer to the connection and to the caller's objects
        if state == "done":
            if on_done is not None:
                on_done(self)
        elif on_cancel is not None:
            on_cancel()
        return True


def peer_discarded_data(sock: socket.socket) -> bool:
    """
    Return whether the peer has closed the connection without reading all data that were sent to it.

    In this case the peer's system sends a reset, which may not have arrived yet. But a peer that closes after reading
    the data has acknowledged them, so unacknowledged data were not read. A pending error of the socket is cleared.
    """
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return True
    if termios is None:
        return False
    try:
        count = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    except OSError:  # not all systems support this request for sockets; Linux does
        return False
    return int.from_bytes(count, sys.byteorder) > 0


class ConnectionTable:
    """
    The connections of a server.

    The table knows which connections are idle, slow or busy, counts the bytes that are buffered for them, and closes
    connections when there are too many. It belongs to the loop's thread, except for the detached sockets.
    """

    def __init__(self, loop: EventLoop, max_connections: int, max_buffered: int) -> None:
        self.loop = loop
        self.max_connections = max_connections
        self.max_buffered = max_buffered
        #: Whether the server is stopping. Each connection is then closed after its response.
        self.stopping = False
        self._connections: set[ServerConnection] = set()
        self._idle: dict[ServerConnection, float] = {}  # in the order in which they became idle
        self._slow: dict[ServerConnection, float] = {}  # in the order in which they became slow
        self._sweep: Timer | None = None
        self._reserved = 0
        self._detached: set[socket.socket] = set()
        self._detached_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: ServerConnection) -> bool:
        """Add a connection; return False if there are too many and no other connection can be closed."""
        self._connections.add(connection)
        if len(self._connections) > self.max_connections and not self.evict():
            return False
        self.mark_idle(connection)
        return True

    def remove(self, connection: ServerConnection) -> None:
        """Remove a connection that is closed or detached."""
        self._connections.discard(connection)
        self.mark_busy(connection)

    def evict(self) -> bool:
        """Close the connection that is slow or idle for longest; return False if all connections are busy."""
        slowest, since = next(iter(self._slow.items()), (None, 0.0))
        if slowest is None or since + SLOW_AFTER > time.monotonic():
            for connection in list(islice(self._idle, 16)):
                if connection.has_no_input():  # otherwise its request would be lost
                    connection.close()
                    return True
        if slowest is not None:
            slowest.close()
        return slowest is not None

    def close_all(self) -> None:
        """Close all connections, and stop the transfers on detached sockets."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections):
            connection.close()
        with self._detached_lock:
            for sock in self._detached:
                try:
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that writes to the socket, which then closes it
                except OSError:
                    log.debug("A detached connection is closed already")

    def mark_busy(self, connection: ServerConnection) -> None:
        """Note that the handler is working on a request."""
        self._idle.pop(connection, None)
        self._slow.pop(connection, None)

    def mark_slow(self, connection: ServerConnection) -> None:
        """Note that the peer has to finish sending a request or reading a response."""
        self.mark_busy(connection)
        self._slow[connection] = time.monotonic()

    def mark_idle(self, connection: ServerConnection) -> None:
        """Note that a connection is waiting for its next request."""
        self.mark_busy(connection)
        self._idle[connection] = time.monotonic()
        if self._sweep is None:
            self._sweep = self.loop.call_later(IDLE_TIMEOUT, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now = time.monotonic()
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            if since + IDLE_TIMEOUT > now:
                self._sweep = self.loop.call_later(since + IDLE_TIMEOUT - now, self._close_idle)
                return
            connection.close()

    def reserve_buffer(self, size: int) -> bool:
        """Reserve bytes, or release them if ``size`` is negative; return False if the limit would be exceeded."""
        if size > 0 and self._reserved + size > self.max_buffered:
            return False
        self._reserved += size
        return True

    def register_detached(self, sock: socket.socket) -> None:
        """Register a detached socket until `close_detached`. May be called in any thread."""
        with self._detached_lock:
            self._detached.add(sock)

    def close_detached(self, sock: socket.socket) -> None:
        """Close a detached socket. May be called in any thread."""
        with self._detached_lock:
            self._detached.discard(sock)
        sock.close()


class ServerConnection:
    """An accepted connection. It belongs to the loop's thread, except for the socket that `detach` returns."""

    def __init__(
        self,
        table: ConnectionTable,
        handler: RequestHandler,
        max_body: int,
        sock: socket.socket,
        peer: tuple[str, int],
    ) -> None:
        self.peer = peer
        self.loop = table.loop
        self._table = table
        self._handler = handler
        self._max_body = max_body
        self._sock = sock
        self._parser = RequestParser(max_body)
        self._received = 0
        self._reserved = 0
        self._processing = False
        self._waiting_for: DeferredResponse | None = None
        self._keep_alive = True
        self._with_body = True
        self._corked = False
        self._out: memoryview | None = None
        self._sent: Callable[[bool], object] | None = None
        self._deadline: Timer | None = None
        self._drain_left = 0
        self._ended = False
        self._events = READ
        self.closed = False
        #: The number of received requests.
        self.requests = 0
        #: Whether the peer is known to have closed the connection.
        self.was_left = False
        #: Whether the peer closed the connection without reading all that was sent to it.
        self.was_reset = False
        #: Whether no request waited for its response when the connection was closed.
        self.was_idle = False
        #: Called in the loop's thread when the connection has been closed, by either side; one function for each owner.
        self.close_callbacks: dict[object, Callable[[], object]] = {}
        self.loop.register(sock, READ, self._on_event)

    def start_reading(self) -> None:
        """Read at once, because a request usually follows the connection. This saves a round of the loop."""
        self._run(self._read)

    def peer_is_open(self) -> bool:
        """Return whether the peer has kept the connection open. The kernel knows this before the loop does."""
        return self._peek() is not False

    def has_no_input(self) -> bool:
        """Return whether neither data nor the end of the connection has arrived."""
        return self._peek() is None

    def _peek(self) -> bool | None:
        """Return the outcome of the next read: data (True), the end (False) or nothing yet (None)."""
        if self.closed:
            return False
        try:
            if self._sock.recv(1, socket.MSG_PEEK):
                return True
            self._check_reset()
        except BlockingIOError:
            return None
        except OSError:
            self.was_left = self.was_reset = True
        return False

    def detach(self) -> socket.socket:
        """Return the socket, blocking and with a timeout, for a thread that calls `ConnectionTable.close_detached`."""
        self._flush_corked()
        self.loop.unregister(self._sock)
        self._mark_closed()
        self._sock.settimeout(WRITE_TIMEOUT)
        self._table.register_detached(self._sock)
        return self._sock

    def close(self) -> None:
        """Close the connection, and cancel its deferred response."""
        if self.closed:
            return
        self.loop.unregister(self._sock)
        self._sock.close()
        self._mark_closed()
        self._out = None
        waiting, self._waiting_for = self._waiting_for, None
        self.was_idle = waiting is None
        if waiting is not None:
            run_logged(waiting.cancel, ())
        self._notify_sent(ok=False)
        callbacks, self.close_callbacks = self.close_callbacks, {}
        for callback in callbacks.values():
            run_logged(callback, ())

    def _mark_closed(self) -> None:
        self.closed = True
        self._cancel_deadline()
        self._release_buffer()
        self._table.remove(self)

    def _run(self, step: Callable[..., object], *args: object) -> None:
        """Call a method. An error in it closes this connection and affects nothing else."""
        if self.closed:
            return
        try:
            step(*args)
        except OSError:  # reset by the peer
            self.was_left = self.was_reset = True
            self.close()
        except BaseException:  # a request must not be able to end the interpreter
            log.exception("A connection is closed because of an error")
            self.close()

    # Reading

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self._run(self._write)
        if events & READ:
            self._run(self._read)

    def _read(self) -> None:
        expected = self._parser.expected
        try:
            data = self._sock.recv(RECEIVE_SIZE if expected < RECEIVE_SIZE else min(expected, 1 << 20))
        except BlockingIOError:
            return
        if not data:
            self._check_reset()
            self._on_eof()
        elif self._drain_left:
            self._drain_left -= len(data)
            if self._drain_left <= 0:
                self.close()
        else:
            self._parser.receive_data(data)
            self._received += len(data)
            if self._waiting_for is None and self._out is None:
                self._process_requests()
            elif self._parser.buffered > MAX_PIPELINED:
                self.close()

    def _on_eof(self) -> None:
        """Handle the end of input. Only a response that is already being written is still sent to the peer."""
        if self._out is None:
            self.close()
        else:
            self._ended = True
            self._watch(WRITE)

    def _check_reset(self) -> None:
        """Note that the peer has closed the connection, and whether it had read all data that were sent to it."""
        self.was_left = True
        self.was_reset = self.was_reset or peer_discarded_data(self._sock)

    def _process_requests(self) -> None:
        """Handle the complete requests in order."""
        if self._processing:  # called from within the loop below, which continues
            return
        parser = self._parser
        self._processing = True
        try:
            while not (self.closed or self._drain_left or self._waiting_for is not None or self._out is not None):
                request = parser.next_message()
                if request is None:
                    self._wait_for_input()
                    return
                self._cancel_deadline()
                self._release_buffer()
                self._handle_request(request)
                if not (parser.pending or self._ended):
                    return
        except HTTPError as error:
            self._send_error(error)
        finally:
            self._processing = False

    def _handle_request(self, request: HTTPRequest) -> None:
        self.requests += 1
        self._keep_alive = request.keep_alive and not self._table.stopping
        self._with_body = request.method != "HEAD"
        try:
            response = self._handler.handle(request, self)
            if response is None and not self.closed:
                raise TypeError("the handler returned no response")
        except Exception:
            log.exception("A request handler failed")
            response = self._handler.error_response(HTTPError(500, "Internal error"))
            if self.closed:  # perhaps it was detached
                self._table.close_detached(self._sock)
        if isinstance(response, DeferredResponse):
            self._wait_for_deferred(response)
        elif response is not None and not self.closed:
            self._send(response)

    def _wait_for_input(self) -> None:
        parser = self._parser
        self._flush_corked()
        if self._ended:
            self.close()
            return
        if not parser.pending:
            self._cancel_deadline()
            self._table.mark_idle(self)
            return
        if not self._reserve_buffer(parser.buffered):
            self._send_error(HTTPError(503, "Too many incomplete requests are buffered"))
            return
        if parser.send_100_continue:
            parser.send_100_continue = False
            with suppress(BlockingIOError):  # the peer has to read responses first; it will send the body anyway
                self._sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._deadline is None:
            self._table.mark_slow(self)
            self._set_deadline(REQUEST_TIMEOUT, self._on_request_timeout, self._received - parser.buffered)

    def _on_request_timeout(self, before: int) -> None:
        if self._received - before >= MIN_PROGRESS:
            self._set_deadline(REQUEST_TIMEOUT, self._on_request_timeout, self._received)
        else:
            self._send_error(HTTPError(408, "The request took too long"))

    def _send_error(self, error: HTTPError) -> None:
        self._keep_alive = False
        self._with_body = True
        self._cancel_deadline()
        self._release_buffer()
        self._drain_left = self._max_body
        error.head = error.head or self._parser.head
        self._table.mark_slow(self)
        self._send(self._handler.error_response(error))

    # Deferred responses

    def _wait_for_deferred(self, deferred: DeferredResponse) -> None:
        if self.closed:
            run_logged(deferred.cancel, ())
            return
        self._flush_corked()
        self._waiting_for = deferred
        deferred.add_done_callback(self._on_deferred)
        if self._waiting_for is not None:
            self._table.mark_busy(self)
            if self._ended:
                self.close()

    def _on_deferred(self, deferred: DeferredResponse) -> None:
        if self.loop.in_loop():
            self._send_deferred(deferred)
        else:
            self.loop.call_soon(self._send_deferred, deferred)

    def _send_deferred(self, deferred: DeferredResponse) -> None:
        self._sent = deferred.on_sent
        if self.closed:
            self._notify_sent(ok=False)
            return
        self._waiting_for = None
        try:
            response = deferred.result()
        except Exception:
            log.exception("A request handler failed")
            response = self._handler.error_response(HTTPError(500, "Internal error"))
        self._run(self._send, response)
        if self._parser.pending and not self._processing:
            # Not at once, to avoid recursion: this may run while another connection's request is being handled.
            self.loop.call_soon(self._run, self._process_requests)

    # Writing

    def _send(self, response: Response) -> None:
        data = response.encode(keep_alive=self._keep_alive, with_body=self._with_body)
        # send() costs more than the rest of a response, so the responses to pipelined requests are sent in one packet.
        self._corked = self._processing and self._parser.pending and self._keep_alive
        try:
            sent = self._sock.send(data, MSG_MORE if self._corked else 0)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            self._after_write()
        elif self._reserve_buffer(len(data) - sent):
            self._out = memoryview(data)[sent:]
            self._table.mark_slow(self)
            self._watch(WRITE if self._ended else READ | WRITE)
            self._set_deadline(WRITE_TIMEOUT, self._on_write_timeout, len(self._out))
        else:
            log.warning("Too many responses are waiting to be read; a response of %d bytes is dropped", len(data))
            self.close()

    def _flush_corked(self) -> None:
        """Send the corked data now, because the next response will take some time."""
        if self._corked:
            self._corked = False
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # setting it again sends the data

    def _write(self) -> None:
        if self._out is None:
            return
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            return
        if self._out:
            return
        self._out = None
        self._cancel_deadline()
        self._release_buffer()
        if not self._ended:
            self._watch(READ)
        self._after_write()
        self._process_requests()

    def _on_write_timeout(self, before: int) -> None:
        left = len(self._out) if self._out is not None else 0
        if before - left >= MIN_PROGRESS:
            self._set_deadline(WRITE_TIMEOUT, self._on_write_timeout, left)
        else:
            self.close()

    def _after_write(self) -> None:
        self._notify_sent(ok=True)
        if self.closed:
            return
        if self._drain_left and not self._ended:
            self._sock.shutdown(socket.SHUT_WR)
            self._set_deadline(DRAIN_TIMEOUT, self.close)
        elif self._drain_left or not self._keep_alive:
            self.close()
        elif not self._parser.pending:
            self._table.mark_idle(self)

    def _notify_sent(self, *, ok: bool) -> None:
        report, self._sent = self._sent, None
        if report is not None:
            run_logged(report, (ok,))

    # Events, timers and buffers

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self.loop.modify(self._sock, events, self._on_event)

    def _set_deadline(self, delay: float, step: Callable[..., object], *args: object) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(delay, self._run, step, *args)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _reserve_buffer(self, size: int) -> bool:
        """Reserve ``size`` bytes in total, if that is more than `UNACCOUNTED_SIZE`; return False at the limit."""
        if size > max(UNACCOUNTED_SIZE, self._reserved):
            if not self._table.reserve_buffer(size - self._reserved):
                return False
            self._reserved = size
        return True

    def _release_buffer(self) -> None:
        if self._reserved:
            self._table.reserve_buffer(-self._reserved)
            self._reserved = 0
