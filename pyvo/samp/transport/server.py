# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The server below the hub's profiles and below a client's callbacks.

Theory of operation
-------------------
`XMLRPCServer` is the standard library's ``SimpleXMLRPCServer`` with its way of serving exchanged: instead of
a thread (and a fresh parse of everything) for each connection, all connections are watched by a `Loop`. What has arrived is
read, and a complete request is handed to the handler at once, in the loop's thread. The handler answers with

* a `Response`, which is written on the spot;
* a `Deferred`, when the answer depends on something else (another program's reply, a user's
  consent): the connection waits without a thread, and is watched, so that a caller who goes away is noticed;
* None, after `Connection.detach`: a worker thread has taken the socket over to write a long answer itself.

So connections that are idle, slow or waiting hold no thread, only a descriptor, and those are counted: above
the limit the connection that has been idle longest is closed.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from .http import MAX_BODY, HTTPError, Request, RequestReader, Response
from .loop import READ, WRITE, Loop, Timer

__all__ = ["Connection", "Deferred", "Handler", "XMLRPCServer", "descriptor_budget"]

log = logging.getLogger(__name__)

#: Seconds an idle connection is kept. Our own clients give theirs up sooner (see `connection`), so that no request ever
#: crosses with the closing of its connection.
IDLE_TIME = 90.0
#: Seconds from the first byte of a request to the end of its head, and for each MiB of its body.
REQUEST_TIME = 15.0
#: Seconds in which a reader must take something of what is written to it.
WRITE_TIME = 30.0
#: Seconds for which a refused request is still read, so that its sender sees the refusal and not a reset.
LINGER_TIME = 2.0
RECEIVE_SIZE = 64 * 1024
#: Bytes that may arrive behind a request that is still being answered.
MAX_AHEAD = 64 * 1024


def descriptor_budget() -> int:
    """How many sockets one server may hold: a third of what the process may open."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 500
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 20_000 if soft < 0 else min(20_000, max(64, (soft - 64) * 45 // 100))


class Deferred:
    """
    An answer that is given later. The first of `resolve`, `fail` and the loss of the connection counts.

    Its methods may be called from any thread.
    """

    __slots__ = ("_lock", "_on_cancel", "_on_done", "_outcome", "on_sent", "state")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on_cancel: Callable[[], object] | None = None
        self._on_done: Callable[[Deferred], object] | None = None
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        #: Called in the loop's thread with True when the answer has been handed to the kernel, or with False when
        #: the connection broke before that.
        self.on_sent: Callable[[bool], object] | None = None
        self.state = "waiting"

    def resolve(self, value: object) -> bool:
        """Give the answer; False if there is one already or nobody waits any more."""
        return self._settle("done", (value, None))

    def fail(self, error: BaseException) -> bool:
        """Answer with an error; False if there is an answer already or nobody waits any more."""
        return self._settle("done", (None, error))

    def cancel(self) -> bool:
        """The one who asked is gone; False if the answer was given before."""
        cancelled = self._settle("cancelled", (None, None))
        callback, self._on_cancel = self._on_cancel, None
        if cancelled and callback is not None:
            callback()
        return cancelled

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have ``callback()`` called if the one who asked goes away first."""
        self._on_cancel = callback

    def result(self) -> Any:
        """The value, or raise the error, that was given."""
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def when_done(self, callback: Callable[[Deferred], object]) -> None:
        """Have ``callback(self)`` called once there is an answer; at once when there is."""
        with self._lock:
            self._on_done = callback
            if self.state != "done":
                return
        callback(self)

    def _settle(self, state: str, outcome: tuple[Any, BaseException | None]) -> bool:
        with self._lock:
            if self.state != "waiting":
                return False
            self.state = state
            self._outcome = outcome
            callback = self._on_done
        if state == "done" and callback is not None:
            callback(self)
        return True


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
        self._loop.watch(sock, READ, self._on_event)

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


class XMLRPCServer(SimpleXMLRPCServer):
    """
    An HTTP server on a `Loop`.

    Parameters
    ----------
    address : tuple of (str, int)
        Address and port; port 0 takes a free one.
    loop : Loop
        What watches the sockets.
    handler : Handler
        What answers.
    max_body : int
        Bytes that a request's body may have.
    max_connections : int, optional
        How many connections may be open.

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    request_queue_size = 1024  # the backlog: with the usual 5, a hundred clients that arrive at once are reset
    allow_reuse_address = os.name != "nt"  # on Windows it would let two programs share a port

    def __init__(
        self,
        address: tuple[str, int],
        loop: Loop,
        handler: Handler,
        *,
        max_body: int = MAX_BODY,
        max_connections: int | None = None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, SimpleXMLRPCRequestHandler, logRequests=False)
        self.loop = loop
        self.handler = handler
        self.max_body = max_body
        self.max_connections = max_connections or descriptor_budget()
        self.stopping = False
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, float] = {}  # in the order in which they became idle
        self._lent: set[socket.socket] = set()
        self._lent_lock = threading.Lock()
        self._sweep: Timer | None = None
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self.socket.setblocking(False)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self.server_address[1])

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to serve."""
        self.loop.call_soon(self.loop.watch, self.socket, READ, self._on_arrival)

    def stop_listening(self) -> None:
        """Take no more connections; those that are open are still served (loop's thread only)."""
        if not self.stopping:
            self.stopping = True
            self.loop.unwatch(self.socket)
            self.server_close()
            os.close(self._spare)

    def stop(self) -> None:
        """Close everything (loop's thread only)."""
        self.stop_listening()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections):
            connection.close()
        with self._lent_lock:
            for sock in self._lent:
                try:
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that has it, which closes it
                except OSError:
                    log.debug("A lent connection is closed already")

    # Lent sockets (see `Connection.detach`)

    def lend(self, sock: socket.socket) -> None:
        """Remember a detached socket until `take_back`."""
        with self._lent_lock:
            self._lent.add(sock)

    def take_back(self, sock: socket.socket) -> None:
        """Close a detached socket; called by the thread that got it."""
        with self._lent_lock:
            self._lent.discard(sock)
        sock.close()

    # Arriving and leaving

    def _on_arrival(self, _events: int) -> None:
        for _ in range(128):  # then other sockets have their turn
            try:
                sock, peer = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._on_accept_error(error)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, sock, (peer[0], peer[1]))
            self._connections.add(connection)
            self.mark_idle(connection)
            if len(self._connections) > self.max_connections:
                self._close_longest_idle()

    def _on_accept_error(self, error: OSError) -> None:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            log.debug("A connection was gone before it was accepted: %s", error)
            return
        # Nothing is left to accept with, and the arrival would be reported for ever. Make room; where there is none, turn
        # the newcomer away with the descriptor kept for that.
        log.warning("Out of file descriptors: %d connections are open", len(self._connections))
        if self._close_longest_idle():
            return
        os.close(self._spare)
        try:
            self.socket.accept()[0].close()
        except OSError:
            log.debug("The newcomer has gone by itself")
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def _close_longest_idle(self) -> bool:
        for connection in self._idle:
            connection.close()
            return True
        return False

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)

    def mark_busy(self, connection: Connection) -> None:
        """A request has begun on the connection."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Connection) -> None:
        """The connection waits for its next request."""
        self._idle.pop(connection, None)
        self._idle[connection] = time.monotonic()
        if self._sweep is None:
            self._sweep = self.loop.call_later(IDLE_TIME, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now = time.monotonic()
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            if since + IDLE_TIME > now:
                self._sweep = self.loop.call_later(since + IDLE_TIME - now, self._close_idle)
                return
            connection.close()
