# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
XML-RPC calls that wait for their answer, over connections that are kept.

This is what a client asks its hub with. Any number of threads may call at once: each takes an idle connection or
opens one, so a call that waits never holds up another. A request is written once and never again: when the
connection breaks behind it, nobody can tell whether it was received, and the caller is told just that.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from ..errors import SAMPTransportError
from ..protocol import SAMPValue
from .http import MAX_BODY, Answer, AnswerReader, HTTPError
from .xml_reader import XMLError, read_answer
from .xml_writer import Raw, write_call

__all__ = ["XMLRPCClient", "http_address", "request_head"]

#: Seconds for which an idle connection may be used again: well below the time for which our servers keep theirs.
KEEP_TIME = 45.0
CONNECT_TIME = 5.0
#: Seconds in which the server must take something of what it is sent, even when its answer may take for ever.
SEND_TIME = 30.0
RECEIVE_SIZE = 256 * 1024


def http_address(url: str) -> tuple[str, int, str]:
    """
    Take an ``http`` URL apart.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:21012/``.

    Returns
    -------
    host : str
        Name or address; ``localhost`` is given as ``127.0.0.1``, so that nothing is looked up.
    port : int
        80 where the URL names none.
    path : str
        ``/`` where the URL has none.

    Raises
    ------
    SAMPTransportError
        The URL is no ``http`` URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SAMPTransportError(f"{url!r} is not a valid URL: {error}") from error
    if parts.scheme != "http" or not host or not url.isascii() or any(c <= " " for c in url):
        raise SAMPTransportError(f"{url!r} is not an http URL with a host")
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    return "127.0.0.1" if host == "localhost" else host, port or 80, path


def request_head(url: str) -> bytes:
    """The header lines of a POST to ``url``, up to the number behind ``Content-Length:``."""
    host, port, path = http_address(url)
    host = f"[{host}]" if ":" in host else host
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: pyvo.samp\r\n"
        "Content-Type: text/xml\r\nContent-Length: "
    ).encode("ascii")


def check_answer(answer: Answer, who: str) -> None:
    """Raise `SAMPTransportError` unless ``answer`` is one that may carry XML-RPC. Redirects are never followed."""
    if answer.status != 200:
        raise SAMPTransportError(f"{who} answered with HTTP status {answer.status} {answer.reason}".rstrip(), sent=True)


class _Wire:
    """One connection."""

    def __init__(self, host: str, port: int, timeout: float, max_body: int) -> None:
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = AnswerReader(max_body)
        self.idle_since = 0.0

    def usable(self) -> bool:
        """Whether an idle connection is still open. Anything that can be read from it now is its end, or rubbish."""
        if time.monotonic() - self.idle_since > KEEP_TIME:
            return False
        self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class XMLRPCClient:
    """
    A caller of one XML-RPC server.

    Parameters
    ----------
    url : str
        Where the server is.
    timeout : float
        Seconds that an answer may take unless `call` says otherwise.
    keep : int
        How many idle connections are kept. It does not limit how many calls are under way.
    who : str
        What the server is called in errors.

    Raises
    ------
    SAMPTransportError
        ``url`` is no http URL.
    """

    def __init__(
        self, url: str, *, timeout: float = 10.0, keep: int = 20, who: str = "The hub", max_body: int = MAX_BODY
    ) -> None:
        self.url = url
        self.timeout = timeout
        self._host, self._port, _ = http_address(url)
        self._head = request_head(url)
        self._keep = keep
        self._who = f"{who} at {self._host}:{self._port}"
        self._max_body = max_body
        self._lock = threading.RLock()  # a signal handler may come in between
        self._idle: list[_Wire] = []
        self._busy: set[_Wire] = set()
        self._closed = False

    def call(
        self,
        method: str,
        *params: SAMPValue | Raw,
        timeout: float | None = None,
        look: Callable[[], object] | None = None,
        look_every: float = 20.0,
    ) -> SAMPValue:
        """
        Call a method and wait for its answer.

        Parameters
        ----------
        method : str
            Its XML-RPC name.
        *params
            SAMP values; they must have been checked.
        timeout : float, optional
            Seconds that the answer may take; 0 or less: no limit, and ``look`` decides.
        look : callable, optional
            Called each ``look_every`` seconds while there is no answer. What it raises ends the call.
        look_every : float
            Seconds.

        Returns
        -------
        str, list or dict
            What the server answered.

        Raises
        ------
        SAMPProxyError
            The server answered with a fault.
        SAMPTransportError
            It could not be reached, or its answer is late or is none.
        """
        return self.post(write_call(method, params), timeout=timeout, look=look, look_every=look_every)

    def post(
        self,
        body: bytes,
        *,
        timeout: float | None = None,
        look: Callable[[], object] | None = None,
        look_every: float = 20.0,
    ) -> SAMPValue:
        """Like `call`, for a body that is already written."""
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit if limit > 0 else None
        wire = self._take()
        try:
            answer = self._exchange(wire, body, deadline, look, look_every)
        except BaseException:
            self._drop(wire)
            raise
        if answer.keep_alive:
            self._give_back(wire)
        else:
            self._drop(wire)
        check_answer(answer, self._who)
        try:
            return read_answer(answer.body)
        except XMLError as error:
            raise SAMPTransportError(f"{self._who} answered with something that is no XML-RPC", sent=True) from error

    def close(self) -> None:
        """Close all connections; calls that wait end with `SAMPTransportError`. May be called again."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for wire in idle:
            wire.sock.close()
        for wire in busy:
            with suppress(OSError):  # it may be closing by itself just now
                wire.sock.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close this process's copies of the sockets, in the child of a fork; the connections are the parent's."""
        self._closed = True
        for wire in (*self._idle, *self._busy):
            wire.sock.close()

    # Connections

    def _take(self) -> _Wire:
        while True:
            with self._lock:
                if self._closed:
                    raise SAMPTransportError(f"The connection to {self._who} is closed")
                wire = self._idle.pop() if self._idle else None
                if wire is not None:
                    self._busy.add(wire)
            if wire is None:
                break
            if wire.usable():
                return wire
            self._drop(wire)
        try:
            wire = _Wire(self._host, self._port, min(CONNECT_TIME, self.timeout), self._max_body)
        except TimeoutError as error:
            raise SAMPTransportError(f"{self._who} does not accept connections") from error
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise SAMPTransportError(
                f"{self._who} cannot be reached: {error.strerror or error}", refused=refused
            ) from error
        with self._lock:
            self._busy.add(wire)
            closed = self._closed
        if closed:
            self._drop(wire)
            raise SAMPTransportError(f"The connection to {self._who} is closed")
        return wire

    def _give_back(self, wire: _Wire) -> None:
        wire.idle_since = time.monotonic()
        with self._lock:
            self._busy.discard(wire)
            if not self._closed and len(self._idle) < self._keep:
                self._idle.append(wire)
                return
        wire.sock.close()

    def _drop(self, wire: _Wire) -> None:
        with self._lock:
            self._busy.discard(wire)
        wire.sock.close()

    # One exchange

    def _exchange(
        self, wire: _Wire, body: bytes, deadline: float | None, look: Callable[[], object] | None, look_every: float
    ) -> Answer:
        try:
            wire.sock.settimeout(SEND_TIME if deadline is None else max(0.01, deadline - time.monotonic()))
            self._send(wire, (b"%b%d\r\n\r\n" % (self._head, len(body)), body))
        except TimeoutError as error:
            raise SAMPTransportError(f"{self._who} does not read what it is sent", sent=True) from error
        except OSError as error:
            early = self._early_answer(wire)
            if early is not None:
                return early
            raise SAMPTransportError(f"{self._who} has closed the connection", sent=True) from error
        while True:
            data = self._receive(wire, deadline, look, look_every)
            wire.reader.feed(data)
            try:
                answer = wire.reader.next(closed=not data)
            except HTTPError as error:
                raise SAMPTransportError(f"{self._who} gave no valid answer: {error}", sent=True) from error
            if answer is not None:
                return answer

    @staticmethod
    def _send(wire: _Wire, parts: Sequence[bytes]) -> None:
        """One packet for a small request; a large body isn't copied just to stand behind its head."""
        if len(parts[1]) < RECEIVE_SIZE:
            wire.sock.sendall(b"".join(parts))
        else:
            for part in parts:
                wire.sock.sendall(part)

    def _early_answer(self, wire: _Wire) -> Answer | None:
        """What a server said that refused a request before it was wholly written."""
        try:
            wire.sock.settimeout(1.0)
            wire.reader.feed(wire.sock.recv(RECEIVE_SIZE))
            return wire.reader.next(closed=True)
        except (OSError, HTTPError):
            return None

    def _receive(
        self, wire: _Wire, deadline: float | None, look: Callable[[], object] | None, look_every: float
    ) -> bytes:
        while True:
            now = time.monotonic()
            left = look_every if deadline is None else deadline - now
            if left <= 0:
                raise SAMPTransportError(f"{self._who} did not answer in time", sent=True)
            wait = min(left, look_every) if look is not None or deadline is None else left
            wire.sock.settimeout(wait)
            try:
                return wire.sock.recv(RECEIVE_SIZE)
            except TimeoutError:
                if look is not None and (deadline is None or deadline > time.monotonic()):
                    look()
            except OSError as error:
                raise SAMPTransportError(f"{self._who} has closed the connection", sent=True) from error
