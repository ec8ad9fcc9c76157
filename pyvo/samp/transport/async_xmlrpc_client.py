# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An XML-RPC client on an `EventLoop`, with callbacks instead of blocking calls.

The hub delivers messages with it, so that no thread waits for a client that responds slowly, such as DS9 while it
loads a large image. All methods must be called in the loop's thread.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence

from ..errors import SAMPError, SAMPTransportError
from .event_loop import READ, WRITE, EventLoop, Timer
from .http11 import HTTPError, HTTPResponse, ResponseParser
from .urls import is_ip_address, post_head, split_http_url
from .xmlrpc_client import MAX_IDLE_TIME, is_self_connected, raise_for_status
from .xmlrpc_reader import raise_if_fault
from .xmlrpc_strict_reader import XMLError

log = logging.getLogger(__name__)

#: Limit for a response, in bytes. A response only acknowledges the message, so a valid one is short.
MAX_RESPONSE = 1024 * 1024
#: Requests below this size are copied into one piece, which is faster than sendmsg().
SMALL = 16 * 1024
#: Limits for the number of cached responses, and for the size of each in bytes.
MAX_KNOWN_RESPONSES = 256
MAX_KNOWN_SIZE = 1024
#: Complete responses that acknowledged a delivery and kept the connection open. A program always sends the same
#: response, and comparing it is faster than parsing it.
_known_responses: set[bytes] = set()

Callback = Callable[[SAMPError | None], object]


class AsyncXMLRPCClient:
    """
    A persistent connection to one XML-RPC server, for one call at a time.

    The hub passes only URLs with IP addresses (R37). The URL of a hub may contain a host name, which is looked up in a
    worker thread. ``on_closed`` is called when the server closes the idle connection, for example because its process
    ends. Error messages refer to the server as ``server_name``.
    """

    def __init__(
        self, loop: EventLoop, url: str, server_name: str, on_closed: Callable[[], object] | None = None
    ) -> None:
        self._loop = loop
        self._host, self._port, _ = split_http_url(url)
        self._is_address = is_ip_address(self._host)
        self._head = post_head(url)
        self._server_name = server_name
        self._on_closed = on_closed
        self._sock: socket.socket | None = None
        self._events = 0
        self._connecting = False
        self._idle_since = 0.0
        self._reader = ResponseParser(MAX_RESPONSE)
        self._unsent: list[memoryview] = []
        self._written = False
        self._done: Callback | None = None
        self._timer: Timer | None = None  # kept across calls, so that not every call has to set one
        self._deadline = 0.0
        self._serial = 0
        self._in_send = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a call is waiting for its response."""
        return self._done is not None

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._sock is not None

    def send(self, parts: Sequence[bytes | memoryview], done: Callback, timeout: float) -> None:
        """
        Send a call. The connection must not be `busy`.

        The body may be given in several parts, so that parts that are common to several recipients need not be copied.
        ``done`` is called once, after this method has returned: with None if the server acknowledged the call, with
        `SAMPProxyError` if it responded with a fault, or with `SAMPTransportError` if it cannot be reached, if its
        response is invalid, or if the response takes longer than ``timeout`` seconds.
        """
        assert self._done is None
        self._done = done
        self._serial += 1
        length = sum(map(len, parts))
        head = b"%b%d\r\n\r\n" % (self._head, length)
        if length < SMALL:
            self._unsent = [memoryview(b"".join((head, *parts)))]
        else:
            self._unsent = [memoryview(part) for part in (head, *parts)]
        self._written = False
        self._in_send = True
        try:
            self._start(timeout)
        finally:
            self._in_send = False

    def _start(self, timeout: float) -> None:
        if self._closed:
            self._finish(SAMPTransportError(f"The connection to {self._server_name} is closed"))
            return
        self._deadline = time.monotonic() + timeout
        if self._timer is None or self._timer.when > self._deadline:
            self._set_timer(timeout)
        if self._sock is not None and not self._is_reusable(self._sock):
            self._disconnect()
        if self._sock is not None:
            self._guard(self._write, self._sock)
        elif self._is_address:
            self._guard(self._connect, self._host)
        else:
            self._loop.run_in_worker(self._resolve_host, self._serial)

    def close(self) -> None:
        """Close the connection permanently. A pending call ends with an error."""
        self._closed = True
        self._disconnect()
        if self._timer is not None:
            self._timer.cancel()
        self._finish(SAMPTransportError(f"The connection to {self._server_name} was closed", sent=self._written))

    # Connecting

    def _is_reusable(self, sock: socket.socket) -> bool:
        """Whether an idle connection is still open. If it is readable, the server has closed it or violated HTTP."""
        if time.monotonic() - self._idle_since > MAX_IDLE_TIME:  # the server may be about to close it
            return False
        try:
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _resolve_host(self, serial: int) -> None:
        """Look up the host name. This runs in a worker thread, because it may take a long time."""
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            self._loop.call_soon(self._on_host_resolved, serial, "", error)
        else:
            self._loop.call_soon(self._on_host_resolved, serial, str(found[0][4][0]), None)

    def _on_host_resolved(self, serial: int, address: str, error: OSError | None) -> None:
        if self._done is None or self._serial != serial:  # the call has timed out or was closed
            return
        if error is not None:
            self._fail(error)
        else:
            self._guard(self._connect, address)

    def _connect(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self._sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = ResponseParser(MAX_RESPONSE)
        self._connecting = True
        code = sock.connect_ex((host, self._port))
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, os.strerror(code))
        ready = self._is_connected(sock)  # usually at once on the same computer
        self._events = READ if ready else READ | WRITE
        self._loop.register(sock, self._events, self._on_event)
        if ready:
            self._write(sock)

    def _is_connected(self, sock: socket.socket) -> bool:
        """Whether the connection is established; raise `OSError` if it has failed."""
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        try:
            if is_self_connected(sock):
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.EINVAL):
                return False
            raise
        self._connecting = False
        return True

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.unregister(sock)
            sock.close()

    # Writing and reading

    def _guard(self, step: Callable[..., object], *args: object) -> None:
        """Call a method that uses the socket. An `OSError` ends the call."""
        try:
            step(*args)
        except OSError as error:
            self._fail(error)

    def _on_event(self, events: int) -> None:
        sock = self._sock
        if sock is not None and events & WRITE and self._unsent:
            self._guard(self._write, sock)
        if sock is not None and events & READ and self._sock is sock:
            self._guard(self._read, sock)

    def _write(self, sock: socket.socket) -> None:
        if self._connecting and not self._is_connected(sock):  # otherwise the loop would report WRITE repeatedly
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        unsent = self._unsent
        try:
            while unsent:
                sent = sock.send(unsent[0]) if len(unsent) == 1 or os.name == "nt" else sock.sendmsg(unsent[:64])
                self._written = True
                while unsent and sent >= len(unsent[0]):
                    sent -= len(unsent.pop(0))
                if sent:
                    unsent[0] = unsent[0][sent:]
        except BlockingIOError:
            self._watch(sock, READ | WRITE)
        except OSError:
            self._read(sock)  # the server has stopped reading; its response may give the reason
            if self._sock is sock:
                raise
        else:
            self._watch(sock, READ)

    def _watch(self, sock: socket.socket, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.modify(sock, events, self._on_event)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(64 * 1024)
        except BlockingIOError:
            return
        if self._done is None:  # no response is expected: the server has closed the connection or violated HTTP
            self._on_idle_closed()
            return
        whole = not self._reader.pending and not self._unsent  # `data` may be the whole response
        if whole and data in _known_responses:
            self._idle_since = time.monotonic()
            self._finish(None)
            return
        self._reader.receive_data(data)
        try:
            response = self._reader.next_message(closed=not data)
        except HTTPError as error:
            self._disconnect()
            text = f"{self._server_name} sent an invalid response: {error}"
            self._finish(SAMPTransportError(text, sent=self._written))
            return
        if response is not None:
            failure = self._response_error(response)
            if not response.keep_alive or self._unsent:
                self._disconnect()
            elif whole and failure is None and len(data) <= MAX_KNOWN_SIZE:
                if len(_known_responses) >= MAX_KNOWN_RESPONSES:
                    _known_responses.clear()
                _known_responses.add(data)
            self._idle_since = time.monotonic()
            self._finish(failure)

    def _response_error(self, response: HTTPResponse) -> SAMPError | None:
        try:
            raise_for_status(response, self._server_name)
            raise_if_fault(response.body)
        except XMLError:
            return SAMPTransportError(f"{self._server_name} sent a response that is not XML-RPC", sent=True)
        except SAMPError as error:
            return error
        return None

    # The end of a call, or of the connection

    def _on_idle_closed(self) -> None:
        self._disconnect()
        if self._on_closed is not None:
            self._on_closed()

    def _set_timer(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._done is None:
            return  # the next call sets a timer
        remaining = self._deadline - time.monotonic()
        if remaining > 0:
            self._set_timer(remaining)
            return
        self._disconnect()
        text = f"{self._server_name} did not acknowledge the message in time"
        self._finish(SAMPTransportError(text, sent=self._written))

    def _fail(self, error: OSError) -> None:
        if self._done is None:
            self._on_idle_closed()
            return
        self._disconnect()
        problem = "has closed the connection" if self._written else "cannot be reached"
        refused = isinstance(error, ConnectionRefusedError)
        text = f"{self._server_name} {problem}: {error.strerror or error}"
        self._finish(SAMPTransportError(text, sent=self._written, refused=refused))

    def _finish(self, error: SAMPError | None) -> None:
        done, self._done = self._done, None
        self._unsent = []
        if done is None:
            return
        if self._in_send:  # the caller expects no callback before send() returns
            self._loop.call_soon(done, error)
        else:
            done(error)
