# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The server below the hub's profiles and below a client's callbacks.

Theory of operation
-------------------
`XMLRPCServer` is the standard library's ``SimpleXMLRPCServer`` with its way of serving exchanged: instead of
a thread (and a fresh parse of everything) for each connection, all connections are watched by a `Loop`. What has
arrived is read, and a complete request is handed to the handler at once, in the loop's thread. It answers with

* a `Response`, which is written on the spot;
* a `Deferred`, when the answer depends on something else (another program's reply, a user's
  consent): the connection waits without a thread, and is watched, so that a caller who goes away is noticed;
* None, after `Connection.detach`: a worker thread has taken the socket over to write a long answer itself.

So connections that are idle, slow or waiting hold no thread, only a descriptor, and those are counted. Above the
limit one is closed for each that arrives: the one whose other side has left something unfinished for longest, half
a request say, or else the one that has been idle longest. Whoever opens many cannot shut others out.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from itertools import islice
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from .event_loop import READ, EventLoop, Timer
from .http11 import MAX_BODY
from .server_connection import DeferredResponse, RequestHandler, ServerConnection

__all__ = ["DeferredResponse", "RequestHandler", "ServerConnection", "XMLRPCServer", "max_sockets"]

log = logging.getLogger(__name__)

#: Seconds an idle connection is kept. Our own clients give theirs up sooner (see `connection`), so that no request ever
#: crosses with the closing of its connection.
IDLE_TIMEOUT = 90.0
#: Seconds in which a request on its way is no reason yet to close the connection for another, in place of an idle one.
SLOW_AFTER = 1.0
#: Seconds for which no connection is accepted when there is no descriptor left to do so.
ACCEPT_PAUSE = 0.5
#: Seconds between two warnings of that.
WARNING_INTERVAL = 60.0
#: What is wrong with the one connection that was about to be accepted, and not with accepting.
_TRANSIENT_ACCEPT_ERRORS = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ETIMEDOUT, errno.EHOSTUNREACH}


def max_sockets() -> int:
    """How many sockets one server may hold: under half of what the process may open, as there may be two."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 200  # there, 512 sockets are all that can be watched at once
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 20_000 if soft < 0 else min(20_000, max(64, (soft - 64) * 45 // 100))


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
    max_buffered : int, optional
        Bytes that may be held for all connections together, besides 64 kB for each: of requests that arrive and of
        answers that are being read. Four times ``max_body`` unless given.

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
        loop: EventLoop,
        handler: RequestHandler,
        *,
        max_body: int = MAX_BODY,
        max_connections: int | None = None,
        max_buffered: int | None = None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, SimpleXMLRPCRequestHandler, logRequests=False)
        self.loop = loop
        self.handler = handler
        self.max_body = max_body
        self.max_connections = max_connections or max_sockets()
        self.max_buffered = max_buffered or 4 * max_body
        self.stopping = False
        self._connections: set[ServerConnection] = set()
        self._idle: dict[ServerConnection, float] = {}  # in the order in which they became idle
        self._slow: dict[ServerConnection, float] = {}  # in the order in which they began to be
        self._detached: set[socket.socket] = set()
        self._detached_lock = threading.Lock()
        self._sweep: Timer | None = None
        self._pause: Timer | None = None
        self._warned = -WARNING_INTERVAL
        self._reserved = 0
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
        if self.loop.started:
            self.loop.call_soon(self._listen)
        else:  # its thread needs not be woken for that when it starts
            self._listen()

    def stop_listening(self) -> None:
        """Take no more connections; those that are open are still served (loop's thread only)."""
        if not self.stopping:
            self.stopping = True
            self.loop.unregister(self.socket)
            self.server_close()
            if self._pause is not None:
                self._pause.cancel()

    def stop(self) -> None:
        """Close everything (loop's thread only)."""
        self.stop_listening()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections):
            connection.close()
        with self._detached_lock:
            for sock in self._detached:
                try:
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that has it, which closes it
                except OSError:
                    log.debug("A lent connection is closed already")

    # Lent sockets (see `Connection.detach`)

    def register_detached(self, sock: socket.socket) -> None:
        """Remember a detached socket until `take_back`."""
        with self._detached_lock:
            self._detached.add(sock)

    def close_detached(self, sock: socket.socket) -> None:
        """Close a detached socket; called by the thread that got it."""
        with self._detached_lock:
            self._detached.discard(sock)
        sock.close()

    # Arriving and leaving

    def _listen(self) -> None:
        self._pause = None
        if not self.stopping:
            self.loop.register(self.socket, READ, self._on_accept)

    def _on_accept(self, _events: int) -> None:
        # One at a time: asking for a second one, which mostly isn't there, costs more than being called again.
        try:
            sock, peer = self.socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._on_accept_error(error)
            return
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = ServerConnection(self, sock, (peer[0], peer[1]))
        except OSError as error:  # on macOS, if it was reset meanwhile
            log.debug("A connection was gone before it could be used: %s", error)
            sock.close()
            return
        self._connections.add(connection)
        if len(self._connections) > self.max_connections and not self._evict_connection():
            connection.close()
        else:
            self.mark_idle(connection)
            connection.start_reading()

    def _on_accept_error(self, error: OSError) -> None:
        if error.errno in _TRANSIENT_ACCEPT_ERRORS:
            log.debug("A connection was gone before it was accepted: %s", error)
            return
        now = time.monotonic()
        if now >= self._warned + WARNING_INTERVAL:
            self._warned = now
            log.warning("A connection cannot be accepted: %s; %d are open", error, len(self._connections))
        # There is nothing to accept with, and the arrival would be reported for ever. Make room, or wait for some.
        if not self._evict_connection():
            self.loop.unregister(self.socket)
            self._pause = self.loop.call_later(ACCEPT_PAUSE, self._listen)

    def _evict_connection(self) -> bool:
        """Close the connection that is missed least; False if each of them waits for an answer."""
        slowest, since = next(iter(self._slow.items()), (None, 0.0))
        if slowest is None or since + SLOW_AFTER > time.monotonic():
            for connection in list(islice(self._idle, 16)):
                if connection.has_no_input():  # or its request would be lost
                    connection.close()
                    return True
        if slowest is not None:
            slowest.close()
        return slowest is not None

    def reserve_buffer(self, size: int) -> bool:
        """Count bytes that are held for a connection, or no longer held if negative; False if there is no room."""
        if size > 0 and self._reserved + size > self.max_buffered:
            return False
        self._reserved += size
        return True

    def remove(self, connection: ServerConnection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        self.mark_busy(connection)

    def mark_busy(self, connection: ServerConnection) -> None:
        """The connection waits for an answer of this side."""
        self._idle.pop(connection, None)
        self._slow.pop(connection, None)

    def mark_slow(self, connection: ServerConnection) -> None:
        """The other side has begun something that it has yet to finish: to send a request, or to read an answer."""
        self.mark_busy(connection)
        self._slow[connection] = time.monotonic()

    def mark_idle(self, connection: ServerConnection) -> None:
        """The connection waits for its next request."""
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
