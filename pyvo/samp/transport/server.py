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
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from .accepted import Connection, Handler
from .deferred import Deferred
from .http import MAX_BODY
from .loop import READ, Loop, Timer

__all__ = ["Connection", "Deferred", "Handler", "XMLRPCServer", "descriptor_budget"]

log = logging.getLogger(__name__)

#: Seconds an idle connection is kept. Our own clients give theirs up sooner (see `connection`), so that no request ever
#: crosses with the closing of its connection.
IDLE_TIME = 90.0


def descriptor_budget() -> int:
    """How many sockets one server may hold: a third of what the process may open."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 500
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
        # Nothing is left to accept with, and the arrival would be reported for ever. Make room; where there is none,
        # turn the newcomer away with the descriptor kept for that.
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
