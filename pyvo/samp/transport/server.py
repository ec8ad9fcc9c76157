# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The HTTP server for the hub's profiles, for a client's callbacks, and for the files that a client sends.

Theory of operation
-------------------
`XMLRPCServer` derives from the standard library's ``SimpleXMLRPCServer``, whose constructor creates and binds the
socket. It serves requests differently: an `EventLoop` watches all connections, reads the data as they arrive, and calls
the request handler with each complete request, in the loop's thread. The handler returns

* a `Response`, which is written at once;
* a `DeferredResponse`, if the response depends on another client or on the user: the connection waits without using a
  thread, and the loop detects if the peer closes it;
* None, after `ServerConnection.detach`: a worker thread writes a long response directly to the socket.

An idle, slow or waiting connection therefore needs a descriptor but no thread. The `ConnectionTable` counts the
descriptors. At the limit it closes an old connection for each new one: the connection that has been slow for the
longest time, for example with an incomplete request, or else the connection that has been idle for the longest time. A
program that opens many connections cannot lock other programs out.
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

#: Seconds for which no connections are accepted after the process has run out of descriptors.
ACCEPT_PAUSE = 0.5
#: Seconds between two warnings about missing descriptors.
WARNING_INTERVAL = 60.0
#: Errors that affect only the connection being accepted; the server continues to accept connections.
_TRANSIENT_ACCEPT_ERRORS = {
    errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ETIMEDOUT, errno.EHOSTUNREACH,
}  # fmt: skip


def max_sockets() -> int:
    """Return the maximum number of sockets of a server. Two servers must stay below the process's limit."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 200  # select() on Windows watches 512 sockets at most
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 20_000 if soft < 0 else min(20_000, max(64, (soft - 64) * 45 // 100))


class XMLRPCServer(SimpleXMLRPCServer):
    """
    An HTTP server on an `EventLoop`.

    It uses only the constructor of ``SimpleXMLRPCServer``, which creates, binds and opens the socket, and
    ``server_close``. The methods of the dispatcher, such as ``register_function``, are inherited but have no effect,
    because all requests go to the `RequestHandler`. The loop replaces ``serve_forever``, which would need a thread for
    each connection, even for idle clients. Measured with 500 idle clients: this server takes 227 us for a ping and has
    3 threads; a server with a thread for each connection and the same parser takes 258 us and has 503 threads; the
    standard library's ``SimpleXMLRPCServer`` with ``ThreadingMixIn`` takes 854 us and has 502 threads.

    Parameters
    ----------
    address : tuple of (str, int)
        Address and port; with port 0, the system chooses a free port.
    loop : EventLoop
        The loop that watches the sockets.
    handler : RequestHandler
        The request handler.
    max_body : int
        Limit for the body of a request, in bytes.
    max_connections : int, optional
        Limit for the number of open connections.
    max_buffered : int, optional
        Limit for the total number of bytes that are buffered for incomplete requests and unsent responses.
        Connections with up to 64 kB are not counted. By default four times ``max_body``.

    Raises
    ------
    OSError
        The socket cannot be bound to the address.
    """

    request_queue_size = 1024  # with the default of 5, some connections are reset if 100 clients connect at once
    allow_reuse_address = os.name != "nt"  # on Windows this would allow two programs to share a port

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
        """Start serving requests."""
        if self.loop.started:
            self.loop.call_soon(self._listen)
        else:  # the loop has no thread yet
            self._listen()

    def stop_listening(self) -> None:
        """Stop accepting connections; open connections are still served (loop's thread only)."""
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
        # Accept one connection per event: usually no other is waiting, and trying costs more than another event.
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
        except OSError as error:  # happens on macOS if the peer has reset the connection
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
        # Without a free descriptor no connection can be accepted, and the loop would report the event repeatedly.
        if not self.table.evict():
            self.loop.unregister(self.socket)
            self._pause = self.loop.call_later(ACCEPT_PAUSE, self._listen)
