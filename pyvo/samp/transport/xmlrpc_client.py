# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One small document from a web server: quickly or not at all.

One connection of a caller that waits for its answers, and how long it waits.

XML-RPC calls that wait for their answer, over connections that are kept.

This is what a client asks its hub with. Any number of threads may call at once: each takes an idle connection or
opens one, so a call that waits never holds up another. A request is written once and never again: when the
connection breaks behind it, nobody can tell whether it was received, and the caller is told just that.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ..errors import SAMPTransportError
from ..protocol import SAMPValue
from . import Bytes
from .http11 import MAX_BODY, HTTPError, HTTPResponse, ResponseParser
from .urls import is_ip_address, post_head, split_http_url
from .xmlrpc_reader import XMLError, raise_if_fault, read_response
from .xmlrpc_writer import Encoded, write_call

__all__ = ["MAX_IDLE_TIME", "ClientConnection", "ResponseDeadline", "ResponseTimeoutError", "XMLRPCClient", "http_get", "is_self_connected", "raise_for_status"]

#: Seconds for which an idle connection may be used again: well below the time for which our servers keep theirs.
MAX_IDLE_TIME = 45.0


def is_self_connected(sock: socket.socket) -> bool:
    """
    Whether a socket is connected to itself.

    That happens when nobody listens at a port of this machine and the system happens to choose that very port
    as the one to connect from; whoever looks often enough at the port of a program that is gone meets it.
    """
    return bool(sock.getsockname() == sock.getpeername())


def _connected(host: str, port: int, timeout: float) -> socket.socket:
    if not is_ip_address(host):
        return socket.create_connection((host, port), timeout)
    # There is nothing to look up, which would take a tenth of the time.
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


class ClientConnection:
    """
    One connection. Its socket never blocks; what waits is `wait`.

    Parameters
    ----------
    host, port
        Where to.
    timeout : float
        Seconds that connecting may take.
    max_body : int
        Bytes that an answer may have.
    """

    def __init__(self, host: str, port: int, timeout: float, max_body: int) -> None:
        self.sock = _connected(host, port, timeout)
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
        """Wait until something can be read, or also written; False after ``timeout`` seconds."""
        if self._poll is None:  # Windows; elsewhere select() ends at a thousand descriptors
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
        """Whether an idle connection is still open. Anything that can be read from it now is its end, or rubbish."""
        return time.monotonic() - self.idle_since <= MAX_IDLE_TIME and not self.wait(0.0)


class ResponseTimeoutError(SAMPTransportError):
    """An answer did not come in time from a server that was looked after meanwhile, and found alive."""


class ResponseDeadline:
    """
    How long an answer is waited for.

    Parameters
    ----------
    who : str
        Who is to answer.
    limit : float
        Seconds; 0 or less for ever.
    look : callable, optional
        Called every ``look_every`` seconds of silence; what it raises ends the wait.
    look_every : float
        Seconds.
    """

    def __init__(self, who: str, limit: float, look: Callable[[], object] | None, look_every: float) -> None:
        self._who = who
        self._deadline = time.monotonic() + limit if limit > 0 else None
        self._look = look
        self._look_every = look_every

    def remaining(self) -> float:
        """Seconds until the next look, or until the time is up; raises when it is."""
        if self._deadline is None:
            return self._look_every
        left = self._deadline - time.monotonic()
        if left <= 0:
            kind = SAMPTransportError if self._look is None else ResponseTimeoutError
            raise kind(f"{self._who} did not answer in time", sent=True)
        return left if self._look is None else min(left, self._look_every)

    def check(self) -> None:
        """Take note that those seconds have passed."""
        self.remaining()
        if self._look is not None:
            self._look()


T = TypeVar("T")

CONNECT_TIMEOUT = 5.0
#: Seconds in which the server must take something of what it is sent, even when its answer may take for ever.
SEND_TIMEOUT = 30.0
#: Seconds for which a server is heard that has broken the connection while it was written to, or behind ^C.
FINAL_RESPONSE_TIMEOUT = 1.0
#: Seconds after which a server that leaves some of several requests unanswered is asked again.
PIPELINE_TIMEOUT = 3.0
RECEIVE_SIZE = 64 * 1024  # much larger pieces cost a call of the system's memory management each
#: Below this size a request is copied into one piece.
SMALL = 64 * 1024


def raise_for_status(answer: HTTPResponse, who: str) -> None:
    """Raise `SAMPTransportError` unless ``answer`` is one that may carry XML-RPC. Redirects are never followed."""
    if answer.status != 200:
        raise SAMPTransportError(f"{who} answered with HTTP status {answer.status} {answer.reason}".rstrip(), sent=True)


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
        self._host, self._port, _ = split_http_url(url)
        self._head = post_head(url)
        self._keep = keep
        self._who = f"{who} at {self._host}:{self._port}"
        self._max_body = max_body
        self._lock = threading.RLock()  # a signal handler may come in between
        self._idle: list[ClientConnection] = []
        self._busy: set[ClientConnection] = set()
        self._closed = False

    def call(
        self,
        method: str,
        *params: SAMPValue | Encoded,
        timeout: float | None = None,
        look: Callable[[], object] | None = None,
        look_every: float = 20.0,
        meanwhile: Callable[[], object] | None = None,
        seen: list[HTTPResponse] | None = None,
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
        meanwhile : callable, optional
            Called when the request has been written, while the server is at work.
        seen : list, optional
            Gets the answer as it came in, for a caller that must know of it: also when the wait is broken off, as by
            ^C, if the answer then still comes in a moment.

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
        body = write_call(method, params)
        return self.post(body, timeout=timeout, look=look, look_every=look_every, meanwhile=meanwhile, seen=seen)

    def post(
        self,
        body: bytes,
        *,
        timeout: float | None = None,
        look: Callable[[], object] | None = None,
        look_every: float = 20.0,
        meanwhile: Callable[[], object] | None = None,
        seen: list[HTTPResponse] | None = None,
    ) -> SAMPValue:
        """Like `call`, for a body that is already written."""
        patience = ResponseDeadline(self._who, self.timeout if timeout is None else timeout, look, look_every)
        wire = self._acquire()
        try:
            answer = self._round_trip(wire, body, patience, meanwhile)
            if seen is not None:
                seen.append(answer)
        except BaseException as error:
            # The wait was broken off here, and not by the server
            if seen is not None and not seen and not isinstance(error, SAMPTransportError):
                with suppress(SAMPTransportError):
                    seen.append(self._read_final_response(wire, sent=True))
            self._discard(wire)
            raise
        if answer.keep_alive:
            self._release(wire)
        else:
            self._discard(wire)
        return self._result(answer, read_response)

    def call_pipelined(
        self, calls: Sequence[tuple[str, Sequence[SAMPValue | Encoded]]], meanwhile: Callable[[], object] | None = None
    ) -> None:
        """
        Call several methods, in order, whose answers are of no interest. They must be such that may be called twice.

        To a server that has kept a connection open all calls are written at once, which spares the waits in
        between. What it does not answer there is asked once more, one by one.

        Parameters
        ----------
        calls : sequence of tuple
            Names and parameters.
        meanwhile : callable, optional
            Called while the server is at work; once more if it has to be asked one by one.

        Raises
        ------
        SAMPProxyError
            The server answered one of them with a fault; the others are carried out all the same.
        SAMPTransportError
            As of `call`.
        """
        bodies = [write_call(method, params) for method, params in calls]
        answers: list[HTTPResponse] = []
        if self._idle:  # it would not be if the server closed its connections
            wire = self._acquire()
            try:
                answers = self._pipeline(wire, bodies, meanwhile)
            finally:
                if len(answers) == len(bodies) and answers[-1].keep_alive:
                    self._release(wire)
                else:
                    self._discard(wire)
        for answer in answers:
            self._result(answer, raise_if_fault)
        for body in bodies[len(answers) :]:
            self.post(body, meanwhile=meanwhile)
            meanwhile = None

    def _result(self, answer: HTTPResponse, read: Callable[[Bytes], T]) -> T:
        raise_for_status(answer, self._who)
        try:
            return read(answer.body)
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

    def after_fork_in_child(self) -> None:
        """Close this process's copies of the sockets, in the child of a fork; the connections are the parent's."""
        self._closed = True
        self._lock = threading.RLock()  # a thread that is in the parent only may have held it
        for wire in (*self._idle, *self._busy):
            wire.sock.close()
        self._idle, self._busy = [], set()

    # Connections

    def _acquire(self) -> ClientConnection:
        while True:
            with self._lock:
                if self._closed:
                    raise SAMPTransportError(f"The connection to {self._who} is closed")
                wire = self._idle.pop() if self._idle else None
                if wire is not None:
                    self._busy.add(wire)
            if wire is None:
                break
            if wire.is_reusable():
                return wire
            self._discard(wire)
        wire = self._connect()
        with self._lock:
            self._busy.add(wire)
            closed = self._closed
        if closed:
            self._drop(wire)
            raise SAMPTransportError(f"The connection to {self._who} is closed")
        return wire

    def _connect(self) -> ClientConnection:
        timeout = min(CONNECT_TIMEOUT, self.timeout) if self.timeout > 0 else CONNECT_TIMEOUT
        try:
            return ClientConnection(self._host, self._port, timeout, self._max_body)
        except TimeoutError as error:
            raise SAMPTransportError(f"{self._who} does not accept connections") from error
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise SAMPTransportError(
                f"{self._who} cannot be reached: {error.strerror or error}", refused=refused
            ) from error

    def _release(self, wire: ClientConnection) -> None:
        wire.idle_since = now = time.monotonic()
        surplus = []
        with self._lock:
            self._busy.discard(wire)
            if self._closed or len(self._idle) >= self._keep:
                surplus.append(wire)
            else:
                self._idle.append(wire)
            while self._idle and now - self._idle[0].idle_since > MAX_IDLE_TIME:
                surplus.append(self._idle.pop(0))  # the one used last is used next: these might never be again
        for old in surplus:
            old.sock.close()

    def _discard(self, wire: ClientConnection) -> None:
        with self._lock:
            self._busy.discard(wire)
        wire.sock.close()

    # One exchange

    def _round_trip(
        self, wire: ClientConnection, body: bytes, patience: ResponseDeadline, meanwhile: Callable[[], object] | None = None
    ) -> HTTPResponse:
        head = b"%b%d\r\n\r\n" % (self._head, len(body))
        # One packet for a small request; a large body isn't copied just to stand behind its head.
        unsent = [memoryview(head + body)] if len(body) < SMALL else [memoryview(head), memoryview(body)]
        written = False
        while unsent:
            try:
                unsent[0] = unsent[0][wire.sock.send(unsent[0]) :]
                written = True
                if not unsent[0]:
                    del unsent[0]
            except BlockingIOError:
                answer = self._wait_to_write(wire, patience)
                if answer is not None:
                    return answer._replace(keep_alive=False)
            except OSError as error:
                return self._read_final_response(wire, sent=written, error=error)
        if meanwhile is not None:
            meanwhile()
        while True:
            if not wire.wait(patience.remaining()):
                patience.check()
                continue
            answer = self._read(wire)
            if answer is not None:
                return answer

    def _pipeline(
        self, wire: ClientConnection, bodies: Sequence[bytes], meanwhile: Callable[[], object] | None
    ) -> list[HTTPResponse]:
        """Write several requests at once. The answers to the first of them, as far as they came."""
        answers: list[HTTPResponse] = []
        patience = ResponseDeadline(self._who, min(self.timeout, PIPELINE_TIMEOUT), None, PIPELINE_TIMEOUT)
        data = b"".join([b"%b%d\r\n\r\n%b" % (self._head, len(body), body) for body in bodies])
        try:
            if wire.sock.send(data) < len(data):
                return answers
        except OSError:
            return answers
        if meanwhile is not None:
            meanwhile()
        while len(answers) < len(bodies):
            try:
                if not wire.wait(patience.remaining()):
                    continue
                answer = self._read(wire)
                while answer is not None:
                    answers.append(answer)
                    answer = wire.reader.next_message()
            except (SAMPTransportError, HTTPError):
                return answers
        return answers

    def _wait_to_write(self, wire: ClientConnection, patience: ResponseDeadline) -> HTTPResponse | None:
        """Wait until more can be written. A server may answer before that: no, say, to so long a request."""
        if not wire.wait(min(SEND_TIMEOUT, patience.remaining()), writing=True):
            raise SAMPTransportError(f"{self._who} does not read what it is sent", sent=True)
        return self._read(wire)

    def _read_final_response(self, wire: ClientConnection, *, sent: bool, error: OSError | None = None) -> HTTPResponse:
        """What a server says in a moment: one that refused a request before it was wholly written, for instance."""
        try:
            while True:
                answer = self._read(wire)
                if answer is not None:
                    return answer._replace(keep_alive=False)
                if not wire.wait(FINAL_RESPONSE_TIMEOUT):
                    break
        except SAMPTransportError:
            pass  # it said nothing of use
        raise SAMPTransportError(f"{self._who} has closed the connection", sent=sent) from error

    def _read(self, wire: ClientConnection) -> HTTPResponse | None:
        """Read what there is; the answer if that completes it."""
        try:
            data = wire.sock.recv(RECEIVE_SIZE)
            wire.reader.receive_data(data)
            return wire.reader.next_message(closed=not data)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SAMPTransportError(f"{self._who} has closed the connection", sent=True) from error
        except HTTPError as error:
            if self._closed:
                raise SAMPTransportError(f"The connection to {self._who} was closed", sent=True) from error
            raise SAMPTransportError(f"{self._who} gave no valid answer: {error}", sent=True) from error


def http_get(url: str, max_size: int, timeout: float) -> bytes:
    """
    Get what is at an ``http`` URL. Redirects are not followed, proxies not asked.

    Parameters
    ----------
    url : str
        The URL.
    max_size : int
        Bytes that the document may have.
    timeout : float
        Seconds that all of it may take.

    Returns
    -------
    bytes
        The document.

    Raises
    ------
    SAMPTransportError
        It could not be had.
    """
    host, port, path = split_http_url(url)
    name = f"[{host}]" if ":" in host else host
    request = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: pyvo.samp\r\nConnection: close\r\n\r\n"
    deadline = time.monotonic() + timeout
    reader = ResponseParser(max_size)
    try:
        with socket.create_connection((host, port), timeout) as sock:
            sock.sendall(request.encode("ascii"))
            answer = None
            while answer is None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(65536)
                reader.receive_data(data)
                answer = reader.next_message(closed=not data)
    except TimeoutError as error:
        raise SAMPTransportError(f"{host}:{port} did not answer within {timeout:g} s") from error
    except OSError as error:
        raise SAMPTransportError(f"{host}:{port} cannot be reached: {error.strerror or error}") from error
    except HTTPError as error:
        raise SAMPTransportError(f"{host}:{port} gave no valid answer: {error}") from error
    if answer.status != 200:
        raise SAMPTransportError(f"{host}:{port} answered with HTTP status {answer.status}")
    return bytes(answer.body)
