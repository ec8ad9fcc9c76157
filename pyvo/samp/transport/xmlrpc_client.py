# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A blocking XML-RPC client with persistent connections, and `http_get`.

A SAMP client calls its hub with `XMLRPCClient`. Any number of threads may make calls at the same time: each call uses
an idle connection or opens a new one, so a waiting call does not block the others. A request is sent only once. If the
connection then breaks, it is unknown whether the server has received the request, and the error indicates this
(``sent``).
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from ..errors import SAMPTransportError
from ..protocol import SAMPValue
from . import Bytes
from .http11 import MAX_BODY, HTTPError, HTTPResponse, ResponseParser
from .urls import is_ip_address, post_head, request_head, split_http_url
from .xmlrpc_reader import raise_if_fault, read_response
from .xmlrpc_strict_reader import XMLError
from .xmlrpc_writer import Encoded, write_call

#: Seconds for which an idle connection may be reused. Our servers keep connections open much longer.
MAX_IDLE_TIME = 45.0


def is_self_connected(sock: socket.socket) -> bool:
    """
    Return whether a socket is connected to itself.

    This happens if no program listens on a port of this computer and the system chooses the same port as the local
    port. It is rare, but it does occur in a client that repeatedly tries to reach a stopped hub.
    """
    return bool(sock.getsockname() == sock.getpeername())


def _open_socket(host: str, port: int, timeout: float) -> socket.socket:
    if not is_ip_address(host):
        return socket.create_connection((host, port), timeout)
    # create_connection() would look up the address, which takes a tenth of the time of a call
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


class ClientConnection:
    """A connection to a server, with a non-blocking socket. ``timeout`` limits the time for connecting."""

    def __init__(self, host: str, port: int, timeout: float, max_body: int) -> None:
        self.sock = _open_socket(host, port, timeout)
        try:
            if is_self_connected(self.sock):
                raise ConnectionRefusedError("Connection refused")
            self.sock.setblocking(False)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.sock.close()
            raise
        self.reader = ResponseParser(max_body)
        self.idle_since = 0.0
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(self.sock, select.POLLIN)

    def wait(self, timeout: float, *, writing: bool = False) -> bool:
        """Wait until the socket is readable (or writable, if ``writing``); return False after ``timeout`` seconds."""
        if self._poll is None:  # Windows; elsewhere select() fails for descriptors above 1023
            sockets = [self.sock]
            return any(select.select(sockets, sockets if writing else [], sockets, timeout))
        if writing:
            self._poll.modify(self.sock, select.POLLIN | select.POLLOUT)
        try:
            return bool(self._poll.poll(timeout * 1000))
        finally:
            if writing:
                self._poll.modify(self.sock, select.POLLIN)

    def is_reusable(self) -> bool:
        """Whether an idle connection is still open. If it is readable, the server has closed it or violated HTTP."""
        return time.monotonic() - self.idle_since <= MAX_IDLE_TIME and not self.wait(0.0)


class ResponseTimeoutError(SAMPTransportError):
    """A response did not arrive in time, although the server passed all health checks during the wait."""


class CallOptions(NamedTuple):
    """How `XMLRPCClient` waits for the response to a call."""

    #: Seconds that the response may take; 0 or less for no limit; None for the client's timeout.
    timeout: float | None = None
    #: Called every ``health_check_interval`` seconds without a response. If it raises an exception, the call ends.
    health_check: Callable[[], object] | None = None
    health_check_interval: float = 20.0
    #: Called once when the request has been written, while the server processes it.
    while_waiting: Callable[[], object] | None = None
    #: A list to which the HTTP response is appended. With a list, the call waits `FINAL_RESPONSE_TIMEOUT` for the
    #: response even after an interruption (^C).
    raw_responses: list[HTTPResponse] | None = None


DEFAULT_OPTIONS = CallOptions()


class ResponseDeadline:
    """The deadline for a response (by default after ``timeout`` seconds) and for the next health check."""

    def __init__(self, server_name: str, options: CallOptions, timeout: float) -> None:
        self._server_name = server_name
        timeout = timeout if options.timeout is None else options.timeout
        self._end = time.monotonic() + timeout if timeout > 0 else None
        self._health_check = options.health_check
        self._interval = options.health_check_interval

    def remaining(self) -> float:
        """Return the seconds until the next health check or the deadline; raise `SAMPTransportError` after it."""
        if self._end is None:
            return self._interval
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            kind = SAMPTransportError if self._health_check is None else ResponseTimeoutError
            raise kind(f"{self._server_name} did not respond in time", sent=True)
        return remaining if self._health_check is None else min(remaining, self._interval)

    def check(self) -> None:
        """Call the health check; use this after waiting `remaining` seconds without a response."""
        self.remaining()
        if self._health_check is not None:
            self._health_check()


T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
#: Seconds without progress after which sending fails, even if there is no limit for the response.
SEND_TIMEOUT = 30.0
#: Seconds to wait for the response after sending has failed or after an interruption (^C).
FINAL_RESPONSE_TIMEOUT = 1.0
#: Seconds to wait for all responses to pipelined requests. Requests without a response are sent again.
PIPELINE_TIMEOUT = 3.0
RECEIVE_SIZE = 64 * 1024  # allocating a larger buffer would need a system call
#: Requests with a body below this size are sent in one piece.
SMALL = 64 * 1024


def raise_for_status(response: HTTPResponse, server_name: str) -> None:
    """Raise `SAMPTransportError` if the HTTP status is not 200. Redirects are not followed."""
    if response.status != 200:
        text = f"{server_name} responded with HTTP status {response.status} {response.reason}".rstrip()
        raise SAMPTransportError(text, sent=True)


class XMLRPCClient:
    """
    A client of one XML-RPC server.

    A response may take ``timeout`` seconds, unless `CallOptions` specify another timeout. Up to ``keep`` idle
    connections stay open; the number of simultaneous calls is not limited. Error messages refer to the server as
    ``server_name``.
    """

    def __init__(
        self, url: str, *, timeout: float = 10.0, keep: int = 20, server_name: str = "The hub", max_body: int = MAX_BODY
    ) -> None:
        self.url = url
        self.timeout = timeout
        self._host, self._port, _ = split_http_url(url)
        self._head = post_head(url)
        self._keep = keep
        self._server_name = f"{server_name} at {self._host}:{self._port}"
        self._max_body = max_body
        self._lock = threading.RLock()  # a signal handler may make a call
        self._idle: list[ClientConnection] = []
        self._busy: set[ClientConnection] = set()
        self._closed = False

    def call(self, method: str, *params: SAMPValue | Encoded, options: CallOptions = DEFAULT_OPTIONS) -> SAMPValue:
        """
        Call a method and return its result. The parameters must be SAMP values.

        Raises
        ------
        SAMPProxyError
            The server responded with a fault.
        SAMPTransportError
            The server cannot be reached, or its response is late or invalid.
        """
        return self.post(write_call(method, params), options)

    def post(self, body: bytes, options: CallOptions = DEFAULT_OPTIONS) -> SAMPValue:
        """Make a call with an XML document that is already encoded."""
        raw_responses = options.raw_responses
        deadline = ResponseDeadline(self._server_name, options, self.timeout)
        connection = self._acquire()
        try:
            response = self._round_trip(connection, body, deadline, options.while_waiting)
            if raw_responses is not None:
                raw_responses.append(response)
        except BaseException as error:
            # After an interruption (^C), the response may still show what the server has done.
            if raw_responses is not None and not raw_responses and not isinstance(error, SAMPTransportError):
                with suppress(SAMPTransportError):
                    raw_responses.append(self._read_final_response(connection, sent=True))
            self._discard(connection)
            raise
        if response.keep_alive:
            self._release(connection)
        else:
            self._discard(connection)
        return self._result(response, read_response)

    def call_pipelined(
        self,
        calls: Sequence[tuple[str, Sequence[SAMPValue | Encoded]]],
        while_waiting: Callable[[], object] | None = None,
    ) -> None:
        """
        Call several methods in order and ignore their results. The methods must be idempotent.

        If there is an idle connection, all requests are written to it at once. Requests without a response are then
        sent again, one after the other, and ``while_waiting`` is called a second time.

        Raises
        ------
        SAMPProxyError
            The server responded to a call with a fault. It may have processed the other calls.
        SAMPTransportError
            As in `call`.
        """
        bodies = [write_call(method, params) for method, params in calls]
        responses: list[HTTPResponse] = []
        if bodies and self._idle:  # without an idle connection, the server may be closing connections
            connection = self._acquire()
            try:
                responses = self._pipeline(connection, bodies, while_waiting)
            finally:
                if len(responses) == len(bodies) and responses[-1].keep_alive:
                    self._release(connection)
                else:
                    self._discard(connection)
        for response in responses:
            self._result(response, raise_if_fault)
        for body in bodies[len(responses) :]:
            self.post(body, CallOptions(while_waiting=while_waiting))
            while_waiting = None

    def _result(self, response: HTTPResponse, read: Callable[[Bytes], T]) -> T:
        raise_for_status(response, self._server_name)
        try:
            return read(response.body)
        except XMLError as error:
            text = f"{self._server_name} sent a response that is not XML-RPC"
            raise SAMPTransportError(text, sent=True) from error

    def close(self) -> None:
        """Close all connections. Pending calls raise `SAMPTransportError`. May be called more than once."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in idle:
            connection.sock.close()
        for connection in busy:
            with suppress(OSError):  # its call may close it at the same time
                connection.sock.shutdown(socket.SHUT_RDWR)

    def after_fork_in_child(self) -> None:
        """Close the copies of the sockets in a forked child; the parent continues to use the connections."""
        self._closed = True
        self._lock = threading.RLock()  # a thread of the parent may have held it
        for connection in (*self._idle, *self._busy):
            connection.sock.close()
        self._idle, self._busy = [], set()

    # Connections

    def _acquire(self) -> ClientConnection:
        while True:
            with self._lock:
                if self._closed:
                    raise SAMPTransportError(f"The connection to {self._server_name} is closed")
                connection = self._idle.pop() if self._idle else None
                if connection is not None:
                    self._busy.add(connection)
            if connection is None:
                break
            if connection.is_reusable():
                return connection
            self._discard(connection)
        connection = self._connect()
        with self._lock:
            self._busy.add(connection)
            closed = self._closed
        if closed:
            self._discard(connection)
            raise SAMPTransportError(f"The connection to {self._server_name} is closed")
        return connection

    def _connect(self) -> ClientConnection:
        timeout = min(CONNECT_TIMEOUT, self.timeout) if self.timeout > 0 else CONNECT_TIMEOUT
        try:
            return ClientConnection(self._host, self._port, timeout, self._max_body)
        except TimeoutError as error:
            raise SAMPTransportError(f"{self._server_name} does not accept connections") from error
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise SAMPTransportError(
                f"{self._server_name} cannot be reached: {error.strerror or error}", refused=refused
            ) from error

    def _release(self, connection: ClientConnection) -> None:
        connection.idle_since = now = time.monotonic()
        surplus = []
        with self._lock:
            self._busy.discard(connection)
            if self._closed or len(self._idle) >= self._keep:
                surplus.append(connection)
            else:
                self._idle.append(connection)
            while self._idle and now - self._idle[0].idle_since > MAX_IDLE_TIME:
                surplus.append(self._idle.pop(0))  # the most recently used connection is at the end
        for old in surplus:
            old.sock.close()

    def _discard(self, connection: ClientConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.sock.close()

    # One exchange

    def _round_trip(
        self,
        connection: ClientConnection,
        body: bytes,
        deadline: ResponseDeadline,
        while_waiting: Callable[[], object] | None,
    ) -> HTTPResponse:
        head = b"%b%d\r\n\r\n" % (self._head, len(body))
        # A small request is sent in one packet; a large body is not copied.
        unsent = [memoryview(head + body)] if len(body) < SMALL else [memoryview(head), memoryview(body)]
        written = False
        while unsent:
            try:
                unsent[0] = unsent[0][connection.sock.send(unsent[0]) :]
                written = True
                if not unsent[0]:
                    del unsent[0]
            except BlockingIOError:
                response = self._wait_to_write(connection, deadline)
                if response is not None:
                    return response._replace(keep_alive=False)
            except OSError as error:
                return self._read_final_response(connection, sent=written, error=error)
        if while_waiting is not None:
            while_waiting()
        while True:
            if not connection.wait(deadline.remaining()):
                deadline.check()
                continue
            response = self._read(connection)
            if response is not None:
                return response

    def _pipeline(
        self, connection: ClientConnection, bodies: Sequence[bytes], while_waiting: Callable[[], object] | None
    ) -> list[HTTPResponse]:
        """Write several requests at once; return the responses that arrive, possibly fewer than the requests."""
        responses: list[HTTPResponse] = []
        deadline = ResponseDeadline(self._server_name, DEFAULT_OPTIONS, min(self.timeout, PIPELINE_TIMEOUT))
        data = b"".join([b"%b%d\r\n\r\n%b" % (self._head, len(body), body) for body in bodies])
        try:
            if connection.sock.send(data) < len(data):
                return responses
        except OSError:
            return responses
        if while_waiting is not None:
            while_waiting()
        while len(responses) < len(bodies):
            try:
                if not connection.wait(deadline.remaining()):
                    continue
                response = self._read(connection)
                while response is not None:
                    responses.append(response)
                    response = connection.reader.next_message()
            except (SAMPTransportError, HTTPError):
                return responses
        return responses

    def _wait_to_write(self, connection: ClientConnection, deadline: ResponseDeadline) -> HTTPResponse | None:
        """Wait until more data can be written; return an early response of the server, such as 413."""
        if not connection.wait(min(SEND_TIMEOUT, deadline.remaining()), writing=True):
            raise SAMPTransportError(f"{self._server_name} does not read the request", sent=True)
        return self._read(connection)

    def _read_final_response(
        self, connection: ClientConnection, *, sent: bool, error: OSError | None = None
    ) -> HTTPResponse:
        """Return the response of a server that has closed the connection, for example to a request that is too long."""
        try:
            while True:
                response = self._read(connection)
                if response is not None:
                    return response._replace(keep_alive=False)
                if not connection.wait(FINAL_RESPONSE_TIMEOUT):
                    break
        except SAMPTransportError:
            pass  # there is no valid response
        raise SAMPTransportError(f"{self._server_name} has closed the connection", sent=sent) from error

    def _read(self, connection: ClientConnection) -> HTTPResponse | None:
        """Read the available data; return the response if it is complete."""
        try:
            data = connection.sock.recv(RECEIVE_SIZE)
            connection.reader.receive_data(data)
            return connection.reader.next_message(closed=not data)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SAMPTransportError(f"{self._server_name} has closed the connection", sent=True) from error
        except HTTPError as error:
            if self._closed:
                raise SAMPTransportError(f"The connection to {self._server_name} was closed", sent=True) from error
            raise SAMPTransportError(f"{self._server_name} sent an invalid response: {error}", sent=True) from error


def http_get(url: str, max_size: int, timeout: float) -> bytes:
    """Download a small document, within ``timeout`` seconds. Redirects are not followed, and proxies are not used."""
    host, port, _ = split_http_url(url)
    deadline = time.monotonic() + timeout
    reader = ResponseParser(max_size)
    try:
        with socket.create_connection((host, port), timeout) as sock:
            sock.sendall(request_head("GET", url, "Connection: close\r\n\r\n"))
            response = None
            while response is None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(65536)
                reader.receive_data(data)
                response = reader.next_message(closed=not data)
    except TimeoutError as error:
        raise SAMPTransportError(f"{host}:{port} did not respond within {timeout:g} s") from error
    except OSError as error:
        raise SAMPTransportError(f"{host}:{port} cannot be reached: {error.strerror or error}") from error
    except HTTPError as error:
        raise SAMPTransportError(f"{host}:{port} sent an invalid response: {error}") from error
    if response.status != 200:
        raise SAMPTransportError(f"{host}:{port} responded with HTTP status {response.status}")
    return bytes(response.body)
