# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The HTTP server of the hub's profiles, of a client's callbacks and of the files that are sent.

Theory of operation
-------------------
`XMLRPCServer` derives from the standard library's ``SimpleXMLRPCServer``, whose constructor creates and binds the
socket. It does not serve as that does: an `EventLoop` watches all connections. It reads what has arrived, and calls the
request handler with each complete request, in the loop's thread. The handler returns

* a `Response`, which is written at once;
* a `DeferredResponse`, if the response depends on another client or on the user: the connection waits without a
  thread, and the loop notices if the peer closes it;
* None, after `ServerConnection.detach`: a worker thread writes a long response to the socket itself.

An idle, slow or waiting connection therefore costs a descriptor and no thread. The `ConnectionTable` counts the
descriptors. Above the limit it closes a connection for each new one: the connection that has been slow for longest,
for example with half a request, or else the one that has been idle for longest. A program that opens many connections
cannot keep other programs out.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from .event_loop import READ, EventLoop, Timer
from .http11 import MAX_BODY
from .server_connection import ConnectionTable, RequestHandler, ServerConnection

log = logging.getLogger(__name__)

#: Seconds without accepting connections after the process has run out of descriptors.
ACCEPT_PAUSE = 0.5
#: Seconds between two warnings about that.
WARNING_INTERVAL = 60.0
#: Errors of the one connection that was to be accepted; accepting goes on.
_TRANSIENT_ACCEPT_ERRORS = {
    errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ETIMEDOUT, errno.EHOSTUNREACH,
}  # fmt: skip


def max_sockets() -> int:
    """Return how many sockets one server may have: less than half of the process's limit, as there may be two."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 200  # select() on Windows watches 512 sockets at most
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 20_000 if soft < 0 else min(20_000, max(64, (soft - 64) * 45 // 100))


class XMLRPCServer(SimpleXMLRPCServer):
    """
    An HTTP server on an `EventLoop`.

    Of ``SimpleXMLRPCServer`` it uses the constructor, which creates, binds and opens the socket, and ``server_close``.
    The methods of the dispatcher, such as ``register_function``, are inherited, but no request gets there: the
    `RequestHandler` gets them all. The loop takes the place of ``serve_forever``, which would need a thread for each
    connection: idle clients must cost no thread. Measured with 500 idle clients: this server takes 227 us for a ping
    and has 3 threads; one with a thread for each connection and the same parser takes 258 us and has 503 threads; the
    standard library's ``SimpleXMLRPCServer`` with ``ThreadingMixIn`` takes 854 us and has 502.

    Parameters
    ----------
    address : tuple of (str, int)
        Address and port; port 0 takes a free one.
    loop : EventLoop
        The loop that watches the sockets.
    handler : RequestHandler
        The request handler.
    max_body : int
        Limit for the body of a request, in bytes.
    max_connections : int, optional
        Limit for the number of open connections.
    max_buffered : int, optional
        Limit for the bytes that are buffered for all connections together, above 64 kB for each: requests that are
        arriving and responses that are being read. By default four times ``max_body``.

    Raises
    ------
    OSError
        The socket cannot be bound to the address.
    """

    request_queue_size = 1024  # with the usual backlog of 5, some of a hundred clients that connect at once are reset
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
        #: The port that the server listens on.
        self.port = int(self.server_address[1])
        self.loop = loop
        self.handler = handler
        self.max_body = max_body
        self.table = ConnectionTable(loop, max_connections or max_sockets(), max_buffered or 4 * max_body)
        self._pause: Timer | None = None
        self._warned = -WARNING_INTERVAL
        self.socket.setblocking(False)

    def server_bind(self) -> None:
        """Bind the socket to the address."""
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows another user's program could take over the port
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        super().server_bind()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self.table)

    def start(self) -> None:
        """Start to serve."""
        if self.loop.started:
            self.loop.call_soon(self._listen)
        else:  # no thread to wake up yet
            self._listen()

    def stop_listening(self) -> None:
        """Accept no more connections; open ones are still served (loop's thread only)."""
        if not self.table.stopping:
            self.table.stopping = True
            self.loop.unregister(self.socket)
            self.server_close()
            if self._pause is not None:
                self._pause.cancel()

    def stop(self) -> None:
        """Close the server and all connections (loop's thread only)."""
        self.stop_listening()
        self.table.close_all()

    def _listen(self) -> None:
        self._pause = None
        if not self.table.stopping:
            self.loop.register(self.socket, READ, self._on_accept)

    def _on_accept(self, _events: int) -> None:
        # One at a time: mostly there is no second one, and asking for it costs more than another event.
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
            connection = ServerConnection(self.table, self.handler, self.max_body, sock, (peer[0], peer[1]))
        except OSError as error:  # on macOS, if the peer has reset the connection
            log.debug("A connection was closed before it could be used: %s", error)
            sock.close()
            return
        if self.table.add(connection):
            connection.start_reading()
        else:
            connection.close()

    def _on_accept_error(self, error: OSError) -> None:
        if error.errno in _TRANSIENT_ACCEPT_ERRORS:
            log.debug("A connection was closed before it was accepted: %s", error)
            return
        now = time.monotonic()
        if now >= self._warned + WARNING_INTERVAL:
            self._warned = now
            log.warning("A connection cannot be accepted: %s; %d are open", error, self.connections)
        # Without a descriptor nothing can be accepted, and the event would come again and again.
        if not self.table.evict():
            self.loop.unregister(self.socket)
            self._pause = self.loop.call_later(ACCEPT_PAUSE, self._listen)
