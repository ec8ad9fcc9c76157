# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""An accepted connection: requests are read from it as they arrive, and answered in their order."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .deferred import Deferred
from .http import HTTPError, Request, RequestReader, Response
from .loop import READ, WRITE, Timer

if TYPE_CHECKING:
    from .server import XMLRPCServer

__all__ = ["Connection", "Handler"]

log = logging.getLogger(__name__)

#: Seconds from the first byte of a request to the end of its head, and for each MiB of its body.
REQUEST_TIME = 15.0
#: Seconds in which a reader must take something of what is written to it.
WRITE_TIME = 30.0
#: Seconds for which a refused request is still read, so that its sender sees the refusal and not a reset.
LINGER_TIME = 2.0
RECEIVE_SIZE = 64 * 1024
#: Bytes that may arrive behind a request that is still being answered.
MAX_AHEAD = 64 * 1024


class Handler(Protocol):
    """What a server asks for its answers; called in the loop's thread, where it must not block."""

    def handle(self, request: Request, connection: Connection) -> Response | Deferred | None:
        """
        Answer a request.

        A `Deferred` is to be resolved with a `Response`. None says that the connection was detached.
        """

    def refuse(self, error: HTTPError) -> Response:
        """Answer what is no request or goes beyond a limit."""


class Connection:
    """One client's connection. Everything but `detach`'s result belongs to the loop's thread."""

    def __init__(self, server: XMLRPCServer, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.peer = peer
        self._server = server
        self._loop = server.loop
        self._sock = sock
        self._reader = RequestReader(server.max_body)
        self._waiting_for: Deferred | None = None
        self._keep_alive = True
        self._with_body = True
        self._out: memoryview | None = None
        self._sent: Callable[[bool], object] | None = None
        self._deadline: Timer | None = None
        self._lingering = 0
        self._handling = False
        self._events = READ
        self.closed = False
        #: Whether the other side broke the connection with something unread that was sent to it.
        self.was_reset = False
        #: Called in the loop's thread when the connection has been closed, by whichever side.
        self.on_closed: Callable[[], object] | None = None
        self._loop.watch(sock, READ, self._on_event)

    def is_there(self) -> bool:
        """Whether the other side has not closed the connection: asked of the kernel, which knows it before the loop."""
        if self.closed:
            return False
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            self.was_reset = True
            return False

    def detach(self) -> socket.socket:
        """
        Give the socket away, to be written to and closed by a worker thread.

        Returns
        -------
        socket.socket
            The socket, blocking, with a time-out.
        """
        self._loop.unwatch(self._sock)
        self.closed = True
        self._cancel_deadline()
        self._server.forget(self)
        self._sock.settimeout(WRITE_TIME)
        self._server.lend(self._sock)
        return self._sock

    def close(self) -> None:
        """Close the connection; whoever prepares an answer for it is told."""
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self._sock)
        self._cancel_deadline()
        self._sock.close()
        self._server.forget(self)
        self._out = None
        waiting, self._waiting_for = self._waiting_for, None
        if waiting is not None:
            waiting.cancel()
        self._report_sent(ok=False)
        on_closed, self.on_closed = self.on_closed, None
        if on_closed is not None:
            on_closed()

    # Reading

    def _on_event(self, events: int) -> None:
        try:
            if events & WRITE:
                self._write()
            if events & READ and not self.closed:
                self._read()
        except BlockingIOError:
            log.debug("A socket was not ready after all")
        except OSError:  # reset by the other side
            self.was_reset = True
            self.close()

    def _read(self) -> None:
        expected = self._reader.expected
        data = self._sock.recv(RECEIVE_SIZE if expected < RECEIVE_SIZE else min(expected, 1 << 20))
        if not data:
            self.close()
        elif self._lingering:
            self._lingering -= len(data)
            if self._lingering <= 0:
                self.close()
        else:
            self._reader.feed(data)
            if self._waiting_for is None and self._out is None:
                self._serve()
            elif self._reader.buffered > MAX_AHEAD:
                self.close()

    def _serve(self) -> None:
        """Answer the requests that have arrived, one after the other."""
        reader = self._reader
        while not self.closed and self._waiting_for is None and self._out is None and not self._lingering:
            try:
                request = reader.next()
            except HTTPError as error:
                self._refuse(error)
                return
            if request is None:
                self._await_more()
                return
            self._server.mark_busy(self)
            self._cancel_deadline()
            self._keep_alive = request.keep_alive and not self._server.stopping
            self._with_body = request.method != "HEAD"
            self._answer(request)

    def _answer(self, request: Request) -> None:
        try:
            answer = self._server.handler.handle(request, self)
        except Exception:
            log.exception("A request handler failed")
            answer = self._server.handler.refuse(HTTPError(500, "Internal error"))
        if isinstance(answer, Response):
            self._send(answer)
        elif isinstance(answer, Deferred):
            self._waiting_for = answer
            answer.when_done(self._on_deferred)

    def _await_more(self) -> None:
        reader = self._reader
        if not reader.pending:
            self._cancel_deadline()
            self._server.mark_idle(self)
            return
        if reader.wants_continue:
            reader.wants_continue = False
            self._sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        # One deadline for the whole request: a sender of one byte a second never gets there.
        if self._deadline is None:
            self._server.mark_busy(self)
            self._deadline = self._loop.call_later(REQUEST_TIME, self._on_slow_request, False)

    def _on_slow_request(self, extended: bool) -> None:
        expected = self._reader.expected
        if expected and not extended:
            more = REQUEST_TIME * (1 + expected / (1 << 20))
            self._deadline = self._loop.call_later(more, self._on_slow_request, True)
        else:
            self._refuse(HTTPError(408, "The request took too long"))

    def _refuse(self, error: HTTPError) -> None:
        self._keep_alive = False
        self._cancel_deadline()
        self._lingering = 4 * RECEIVE_SIZE
        self._deadline = self._loop.call_later(LINGER_TIME, self.close)
        self._send(self._server.handler.refuse(error))

    # Writing

    def _on_deferred(self, deferred: Deferred) -> None:
        if self._loop.in_loop():
            self._send_deferred(deferred)
        else:
            self._loop.call_soon(self._send_deferred, deferred)

    def _send_deferred(self, deferred: Deferred) -> None:
        self._sent = deferred.on_sent
        if self.closed:
            self._report_sent(ok=False)
            return
        self._waiting_for = None
        try:
            response = deferred.result()
        except Exception:
            log.exception("A request handler failed")
            response = self._server.handler.refuse(HTTPError(500, "Internal error"))
        try:
            self._send(response)
            if self._reader.pending:
                self._serve()
        except OSError:
            self.close()

    def _send(self, response: Response) -> None:
        data = response.encode(keep_alive=self._keep_alive, with_body=self._with_body)
        sent = 0
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            log.debug("The reader of an answer is slow")
        if sent == len(data):
            self._after_write()
            return
        self._out = memoryview(data)[sent:]
        self._watch(READ | WRITE)
        self._extend_deadline()

    def _write(self) -> None:
        assert self._out is not None
        self._out = self._out[self._sock.send(self._out) :]
        if self._out:
            self._extend_deadline()
            return
        self._out = None
        self._watch(READ)
        if not self._lingering:
            self._cancel_deadline()
        self._after_write()
        if not self.closed and not self._lingering:
            self._serve()

    def _after_write(self) -> None:
        self._report_sent(ok=True)
        if self._lingering:
            self._sock.shutdown(socket.SHUT_WR)
        elif not self._keep_alive:
            self.close()
        elif not self._reader.pending:
            self._server.mark_idle(self)

    def _report_sent(self, *, ok: bool) -> None:
        report, self._sent = self._sent, None
        if report is not None:
            report(ok)

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.rewatch(self._sock, events, self._on_event)

    def _extend_deadline(self) -> None:
        self._cancel_deadline()
        self._deadline = self._loop.call_later(WRITE_TIME, self.close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
