# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An accepted connection: requests are read from it as they arrive, and answered in their order.

What a server asks for its answers.

An answer that comes later: what an operation returns when it depends on somebody else.

What the operating system knows of a connection that the other side has closed.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from .event_loop import READ, WRITE, Timer
from .http11 import HTTPError, HTTPRequest, RequestParser, Response

if TYPE_CHECKING:
    from .http11 import HTTPError, HTTPRequest, Response
    from .server import XMLRPCServer

__all__ = ["DeferredResponse", "RequestHandler", "ServerConnection", "peer_discarded_data"]

log = logging.getLogger(__name__)

class RequestHandler(Protocol):
    """What a server asks for its answers; called in the loop's thread, where it must not block."""

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """
        Answer a request.

        A `Deferred` is to be resolved with a `Response`. None says that the connection was detached.
        """

    def error_response(self, error: HTTPError) -> Response:
        """Answer what is no request or goes beyond a limit."""


class DeferredResponse:
    """
    An answer that is given later. The first of `resolve`, `fail` and the loss of the connection counts.

    Its methods may be called from any thread.
    """

    __slots__ = ("_lock", "_on_cancel", "_on_done", "_outcome", "on_sent", "state")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may come in between
        self._on_cancel: Callable[[], object] | None = None
        self._on_done: Callable[[DeferredResponse], object] | None = None
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        #: Called in the loop's thread with True when the answer has been handed to the kernel, or with False when
        #: the connection broke before that. It must be set before the answer is given.
        self.on_sent: Callable[[bool], object] | None = None
        #: ``"waiting"``, then ``"done"`` or ``"cancelled"``.
        self.state = "waiting"

    def set_result(self, value: object) -> bool:
        """Give the answer; False if there is one already or nobody waits any more."""
        return self._finish("done", (value, None))

    def set_exception(self, error: BaseException) -> bool:
        """Answer with an error; False if there is an answer already or nobody waits any more."""
        return self._finish("done", (None, error))

    def cancel(self) -> bool:
        """The one who asked is gone; False if the answer was given before."""
        return self._finish("cancelled", (None, None))

    def add_cancel_callback(self, callback: Callable[[], object]) -> None:
        """Have ``callback()`` called if the one who asked goes away first; at once when that has happened."""
        with self._lock:
            if self.state == "waiting":
                self._on_cancel = callback
            cancelled = self.state == "cancelled"
        if cancelled:
            callback()

    def result(self) -> Any:
        """The value, or raise the error, that was given."""
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def add_done_callback(self, callback: Callable[[DeferredResponse], object]) -> None:
        """Have ``callback(self)`` called once there is an answer; at once when there is."""
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
            self._on_done = self._on_cancel = None  # they hold on to the connection and to whoever prepares the answer
        if state == "done":
            if on_done is not None:
                on_done(self)
        elif on_cancel is not None:
            on_cancel()
        return True


try:
    import fcntl
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]



def peer_discarded_data(sock: socket.socket) -> bool:
    """
    Tell whether the other side has closed a connection without having read all that was sent to it.

    Its system tells of that by a reset. The reset may be still on its way; but closing after having read something
    acknowledges that, so what is not acknowledged was not read.

    Parameters
    ----------
    sock : socket.socket
        Our end, of which the other's has been seen to be closed. An error that it holds is taken from it.
    """
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return True
    if termios is None:
        return False
    count = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(count, sys.byteorder) > 0


#: Seconds in which a request must arrive, unless `PROGRESS` bytes of it do: then it has as long again.
REQUEST_TIMEOUT = 15.0
#: The same for an answer and its reader.
WRITE_TIMEOUT = 30.0
MIN_PROGRESS = 1024 * 1024
#: Seconds for which a refused request is still read, so that its sender sees the refusal and not a reset.
DRAIN_TIMEOUT = 2.0
RECEIVE_SIZE = 64 * 1024
#: Bytes that may arrive behind a request that is still being answered.
MAX_PIPELINED = 64 * 1024
#: Says that an answer may wait for the next one, to be sent in one packet; not everywhere.
MSG_MORE = getattr(socket, "MSG_MORE", 0)
#: Bytes of an unfinished request or answer that are held without asking the server whether there is room for them.
UNACCOUNTED_SIZE = 64 * 1024


class ServerConnection:
    """One client's connection. Everything but `detach`'s result belongs to the loop's thread."""

    def __init__(self, server: XMLRPCServer, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.peer = peer
        self._server = server
        self.loop = server.loop
        self._sock = sock
        self._reader = RequestParser(server.max_body)
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
        #: How many requests have come by it.
        self.requests = 0
        #: Whether the other side has closed the connection, as far as has been noticed.
        self.was_left = False
        #: Whether the other side broke the connection with something unread that was sent to it.
        self.was_reset = False
        #: Called in the loop's thread when the connection has been closed, by whichever side.
        self.on_closed: Callable[[], object] | None = None
        self.loop.register(sock, READ, self._on_event)

    def start_reading(self) -> None:
        """Serve the request that mostly comes with the connection, without another round of the loop."""
        self._run(self._read)

    def peer_is_open(self) -> bool:
        """Whether the other side has not closed the connection: asked of the kernel, which knows it before the loop."""
        return self._peek() is not False

    def has_no_input(self) -> bool:
        """Whether nothing has arrived, neither a request nor the end of the connection."""
        return self._peek() is None

    def _peek(self) -> bool | None:
        """What the next read would find: something (True), the end (False) or nothing as yet (None)."""
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
        """
        Give the socket away, to be written to and closed by a worker thread.

        Returns
        -------
        socket.socket
            The socket, blocking, with a time-out. `XMLRPCServer.take_back` closes it.
        """
        self._flush_corked()
        self.loop.unregister(self._sock)
        self._mark_closed()
        self._sock.settimeout(WRITE_TIMEOUT)
        self._server.register_detached(self._sock)
        return self._sock

    def close(self) -> None:
        """Close the connection; whoever prepares an answer for it is told."""
        if self.closed:
            return
        self.loop.unregister(self._sock)
        self._sock.close()
        self._mark_closed()
        self._out = None
        waiting, self._waiting_for = self._waiting_for, None
        if waiting is not None:
            call_logged(waiting.cancel)
        self._notify_sent(ok=False)
        on_closed, self.on_closed = self.on_closed, None
        if on_closed is not None:
            call_logged(on_closed)

    def _mark_closed(self) -> None:
        self.closed = True
        self._cancel_deadline()
        self._release_buffer()
        self._server.remove(self)

    def _run(self, step: Callable[..., object], *args: object) -> None:
        """Take a step; one that fails ends the connection and nothing else."""
        if self.closed:
            return
        try:
            step(*args)
        except OSError:  # reset by the other side
            self.was_left = self.was_reset = True
            self.close()
        except BaseException:  # the end of the interpreter, too, is not for a request to decide
            log.exception("A connection is closed because of an error")
            self.close()

    # Reading

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self._run(self._write)
        if events & READ:
            self._run(self._read)

    def _read(self) -> None:
        expected = self._reader.expected
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
            self._reader.receive_data(data)
            self._received += len(data)
            if self._waiting_for is None and self._out is None:
                self._process_requests()
            elif self._reader.buffered > MAX_PIPELINED:
                self.close()

    def _on_eof(self) -> None:
        """The other side writes no more. It may still read what is being written; but it would not wait any longer."""
        if self._out is None:
            self.close()
        else:
            self._ended = True
            self._watch(WRITE)

    def _check_reset(self) -> None:
        """Find out whether the other side, which has closed the connection, then got something from us."""
        self.was_left = True
        self.was_reset = self.was_reset or peer_discarded_data(self._sock)

    def _process_requests(self) -> None:
        """Answer the requests that have arrived, one after the other."""
        if self._processing:  # one was answered at once: the loop below goes on with the next
            return
        reader = self._reader
        self._processing = True
        try:
            while not (self.closed or self._drain_left or self._waiting_for is not None or self._out is not None):
                request = reader.next_message()
                if request is None:
                    self._wait_for_input()
                    return
                self._cancel_deadline()
                self._release_buffer()
                self._handle_request(request)
                if not (reader.pending or self._ended):
                    return
        except HTTPError as error:
            self._send_error(error)
        finally:
            self._processing = False

    def _handle_request(self, request: HTTPRequest) -> None:
        self.requests += 1
        self._keep_alive = request.keep_alive and not self._server.stopping
        self._with_body = request.method != "HEAD"
        try:
            answer = self._server.handler.handle(request, self)
            if answer is None and not self.closed:
                raise TypeError("the handler gave no answer")
        except Exception:
            log.exception("A request handler failed")
            answer = self._server.handler.error_response(HTTPError(500, "Internal error"))
            if self.closed:  # and perhaps detached
                self._server.close_detached(self._sock)
        if isinstance(answer, DeferredResponse):
            self._wait_for_deferred(answer)
        elif answer is not None and not self.closed:
            self._send(answer)

    def _wait_for_input(self) -> None:
        reader = self._reader
        self._flush_corked()
        if self._ended:
            self.close()
            return
        if not reader.pending:
            self._cancel_deadline()
            self._server.mark_idle(self)
            return
        if not self._reserve_buffer(reader.buffered):
            self._send_error(HTTPError(503, "Too much is arriving at once"))
            return
        if reader.send_100_continue:
            reader.send_100_continue = False
            with suppress(BlockingIOError):  # there are answers enough on their way: it will send without being asked
                self._sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._deadline is None:
            self._server.mark_slow(self)
            self._set_deadline(REQUEST_TIMEOUT, self._on_request_timeout, self._received - reader.buffered)

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
        self._drain_left = self._server.max_body
        error.head = error.head or self._reader.head
        self._server.mark_slow(self)
        self._send(self._server.handler.error_response(error))

    # Answers that come later

    def _wait_for_deferred(self, deferred: DeferredResponse) -> None:
        if self.closed:
            call_logged(deferred.cancel)
            return
        self._flush_corked()
        self._waiting_for = deferred
        deferred.add_done_callback(self._on_deferred)
        if self._waiting_for is not None:
            self._server.mark_busy(self)
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
            response = self._server.handler.error_response(HTTPError(500, "Internal error"))
        self._run(self._send, response)
        if self._reader.pending and not self._processing:
            # Not here: the answer was given amid the handling of somebody else's request, whose answer may be of
            # that kind, too, and so on.
            self.loop.call_soon(self._run, self._process_requests)

    # Writing

    def _send(self, response: Response) -> None:
        data = response.encode(keep_alive=self._keep_alive, with_body=self._with_body)
        # To send costs more than to answer: whoever asks several things at once gets one packet.
        self._corked = self._processing and self._reader.pending and self._keep_alive
        try:
            sent = self._sock.send(data, MSG_MORE if self._corked else 0)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            self._after_write()
        elif self._reserve_buffer(len(data) - sent):
            self._out = memoryview(data)[sent:]
            self._server.mark_slow(self)
            self._watch(WRITE if self._ended else READ | WRITE)
            self._set_deadline(WRITE_TIMEOUT, self._on_write_timeout, len(self._out))
        else:
            log.warning("Too many answers wait for their readers; one of %d bytes is dropped", len(data))
            self.close()

    def _flush_corked(self) -> None:
        """Send what waits for a next answer, which takes its time."""
        if self._corked:
            self._corked = False
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # set it is; this pushes

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
        elif not self._reader.pending:
            self._server.mark_idle(self)

    def _notify_sent(self, *, ok: bool) -> None:
        report, self._sent = self._sent, None
        if report is not None:
            call_logged(report, ok)

    # Watching, waiting and holding

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
        """Ask for room for ``size`` bytes in all, unless it is next to nothing."""
        if size > max(UNACCOUNTED_SIZE, self._reserved):
            if not self._server.reserve_buffer(size - self._reserved):
                return False
            self._reserved = size
        return True

    def _release_buffer(self) -> None:
        if self._reserved:
            self._server.reserve_buffer(-self._reserved)
            self._reserved = 0


def call_logged(listener: Callable[..., object], *args: object) -> None:
    """Call somebody who wants to know; whatever goes wrong there is not the connection's business."""
    try:
        listener(*args)
    except Exception:
        log.exception("A listener of a connection failed")
