# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
XML-RPC calls that nobody waits for, on a `Loop`.

The hub hands messages to its clients with this: no thread is held while a client (DS9 with a large
image, say) takes its time to answer. Everything here belongs to the loop's thread.
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
from .xmlrpc_reader import XMLError, raise_if_fault

__all__ = ["AsyncXMLRPCClient"]

log = logging.getLogger(__name__)

#: An acknowledgement says nothing but that the message has arrived: whoever answers with more is not heard out.
MAX_ANSWER = 1024 * 1024
#: Below this size a request is copied into one piece, which is cheaper than a gathering write.
SMALL = 16 * 1024
#: How many different acknowledgements are remembered, and how long one may be for that.
KNOWN_ANSWERS = 256
MAX_KNOWN_ANSWER = 1024
#: Whole answers that were read of late, and were acknowledgements after which the connection stays open. A program
#: sends the same one over and over: to recognise it is cheaper than to read it.
_known_answers: set[bytes] = set()

Callback = Callable[[SAMPError | None], object]


class AsyncXMLRPCClient:
    """
    A connection to one XML-RPC server, kept open between calls. One call at a time.

    Parameters
    ----------
    loop : Loop
        What watches the socket.
    url : str
        Where the server is. The hub gives addresses only (R37); a name, which a client may meet in the URL of its hub,
        is looked up in a worker.
    who : str
        What the server is called in errors.
    on_closed : callable, optional
        Called without arguments when the other side closes the idle connection, as it does when its process ends.

    Raises
    ------
    SAMPTransportError
        ``url`` is no http URL.
    """

    def __init__(self, loop: EventLoop, url: str, who: str, on_closed: Callable[[], object] | None = None) -> None:
        self._loop = loop
        self._host, self._port, _ = split_http_url(url)
        self._is_address = is_ip_address(self._host)
        self._head = post_head(url)
        self._who = who
        self._on_closed = on_closed
        self._sock: socket.socket | None = None
        self._events = 0
        self._connecting = False
        self._idle_since = 0.0
        self._reader = ResponseParser(MAX_ANSWER)
        self._unsent: list[memoryview] = []
        self._written = False
        self._done: Callback | None = None
        self._timer: Timer | None = None  # outlasts a call: a connection in use needs one now and then, not one a call
        self._deadline = 0.0
        self._serial = 0
        self._in_send = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._done is not None

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._sock is not None

    def send(self, parts: Sequence[bytes | memoryview], done: Callback, timeout: float) -> None:
        """
        Send a call; one must not be under way.

        Parameters
        ----------
        parts : sequence of bytes or memoryview
            The body, in as many pieces as it comes in: what several recipients get is not copied for each.
        done : callable
            Called once, with None when the server has acknowledged; else with the error: `SAMPProxyError` when it
            answered with a fault, `SAMPTransportError` when it could not be reached or gave no proper answer. It is
            not called before this method has returned.
        timeout : float
            Seconds that all this may take.
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
            self._finish(SAMPTransportError(f"The connection to {self._who} is closed"))
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
        """Close the connection for good. A call under way ends with an error."""
        self._closed = True
        self._disconnect()
        if self._timer is not None:
            self._timer.cancel()
        self._finish(SAMPTransportError(f"The connection to {self._who} was closed", sent=self._written))

    # Connecting

    def _is_reusable(self, sock: socket.socket) -> bool:
        """Whether nothing has come on an idle connection: what can be read from it is its end, or rubbish."""
        if time.monotonic() - self._idle_since > MAX_IDLE_TIME:  # the other side may be about to close it
            return False
        try:
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _resolve_host(self, serial: int) -> None:
        """Find the address of a name; in a worker, since that may take its time."""
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            self._loop.call_soon(self._on_host_resolved, serial, "", error)
        else:
            self._loop.call_soon(self._on_host_resolved, serial, str(found[0][4][0]), None)

    def _on_host_resolved(self, serial: int, address: str, error: OSError | None) -> None:
        if self._done is None or self._serial != serial:  # it took too long, or nobody wants to know any more
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
        self._reader = ResponseParser(MAX_ANSWER)
        self._connecting = True
        code = sock.connect_ex((host, self._port))
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, os.strerror(code))
        ready = self._is_connected(sock)  # on one machine it mostly is by now
        self._events = READ if ready else READ | WRITE
        self._loop.register(sock, self._events, self._on_event)
        if ready:
            self._write(sock)

    def _is_connected(self, sock: socket.socket) -> bool:
        """Whether the connection has come about; raises when it cannot."""
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
        """Do something with the socket; when that fails the call has failed."""
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
        if self._connecting and not self._is_connected(sock):  # not to be called for it again and again
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
            self._read(sock)  # it reads no more; but it may have said why
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
        if self._done is None:  # idle: the end of the connection, or rubbish
            self._on_idle_closed()
            return
        whole = not self._reader.pending and not self._unsent  # `data` may be all of the answer
        if whole and data in _known_answers:
            self._idle_since = time.monotonic()
            self._finish(None)
            return
        self._reader.receive_data(data)
        try:
            answer = self._reader.next_message(closed=not data)
        except HTTPError as error:
            self._disconnect()
            self._finish(SAMPTransportError(f"{self._who} gave no valid answer: {error}", sent=self._written))
            return
        if answer is not None:
            failure = self._response_error(answer)
            if not answer.keep_alive or self._unsent:
                self._disconnect()
            elif whole and failure is None and len(data) <= MAX_KNOWN_ANSWER:
                if len(_known_answers) >= KNOWN_ANSWERS:
                    _known_answers.clear()
                _known_answers.add(data)
            self._idle_since = time.monotonic()
            self._finish(failure)

    def _response_error(self, answer: HTTPResponse) -> SAMPError | None:
        try:
            raise_for_status(answer, self._who)
            raise_if_fault(answer.body)
        except XMLError:
            return SAMPTransportError(f"{self._who} answered with something that is no XML-RPC", sent=True)
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
        self._finish(SAMPTransportError(f"{self._who} did not acknowledge the message in time", sent=self._written))

    def _fail(self, error: OSError) -> None:
        if self._done is None:
            self._on_idle_closed()
            return
        self._disconnect()
        what = "cannot be reached" if not self._written else "has closed the connection"
        refused = isinstance(error, ConnectionRefusedError)
        text = f"{self._who} {what}: {error.strerror or error}"
        self._finish(SAMPTransportError(text, sent=self._written, refused=refused))

    def _finish(self, error: SAMPError | None) -> None:
        done, self._done = self._done, None
        self._unsent = []
        if done is None:
            return
        if self._in_send:  # the caller is not prepared to hear of it yet
            self._loop.call_soon(done, error)
        else:
            done(error)
