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
from collections.abc import Callable, Sequence

from ..errors import SAMPError, SAMPTransportError
from .connection import check_answer, http_address, request_head
from .http import AnswerReader, HTTPError
from .loop import READ, WRITE, Loop, Timer
from .xml_reader import XMLError, read_answer

__all__ = ["Outgoing"]

log = logging.getLogger(__name__)

#: An acknowledgement says nothing but that the message has arrived: whoever answers with more is not heard out.
MAX_ANSWER = 1024 * 1024
#: Below this size a request is copied into one piece, which is cheaper than a gathering write.
SMALL = 16 * 1024

Done = Callable[[SAMPError | None], object]


class Outgoing:
    """
    A connection to one XML-RPC server, kept open between calls. One call at a time.

    Parameters
    ----------
    loop : Loop
        What watches the socket.
    url : str
        Where the server is. Its host must be an address, or ``localhost``: names are not looked up.
    who : str
        What the server is called in errors.
    on_closed : callable, optional
        Called without arguments when the other side closes the idle connection, as it does when its process ends.

    Raises
    ------
    SAMPTransportError
        ``url`` is no http URL.
    """

    def __init__(self, loop: Loop, url: str, who: str, on_closed: Callable[[], object] | None = None) -> None:
        self._loop = loop
        self._host, self._port, _ = http_address(url)
        self._head = request_head(url)
        self._who = who
        self._on_closed = on_closed
        self._sock: socket.socket | None = None
        self._reader = AnswerReader(MAX_ANSWER)
        self._unsent: list[memoryview] = []
        self._written = False
        self._done: Done | None = None
        self._timer: Timer | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._done is not None

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._sock is not None

    def send(self, parts: Sequence[bytes], done: Done, timeout: float) -> None:
        """
        Send a call; one must not be under way.

        Parameters
        ----------
        parts : sequence of bytes
            The body, in as many pieces as it comes in: what several recipients get is not copied for each.
        done : callable
            Called once, with None when the server has acknowledged; else with the error: `SAMPProxyError` when it
            answered with a fault, `SAMPTransportError` when it could not be reached or gave no proper answer.
        timeout : float
            Seconds that all this may take.
        """
        assert self._done is None
        self._done = done
        length = sum(map(len, parts))
        head = b"%b%d\r\n\r\n" % (self._head, length)
        if length < SMALL:
            self._unsent = [memoryview(b"".join((head, *parts)))]
        else:
            self._unsent = [memoryview(part) for part in (head, *parts)]
        self._written = False
        self._timer = self._loop.call_later(timeout, self._on_timeout)
        try:
            if self._sock is not None and not self._still_open(self._sock):
                self._disconnect()
            if self._sock is None:
                self._connect()
            else:
                self._write()
        except OSError as error:
            self._fail_with(error)

    def close(self) -> None:
        """Close the connection. A call under way ends with an error."""
        self._finish(SAMPTransportError(f"The connection to {self._who} was closed", sent=self._written))
        self._disconnect()

    # The socket

    @staticmethod
    def _still_open(sock: socket.socket) -> bool:
        """Whether nothing has come on an idle connection: what can be read from it is its end, or rubbish."""
        try:
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _connect(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = self._sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = AnswerReader(MAX_ANSWER)
        code = sock.connect_ex((self._host, self._port))
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._disconnect()
            raise OSError(code, os.strerror(code))
        self._loop.watch(sock, READ | WRITE, self._on_event)

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.unwatch(sock)
            sock.close()

    def _on_event(self, events: int) -> None:
        sock = self._sock
        assert sock is not None
        try:
            if events & WRITE and self._unsent:
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                self._write()
            if events & READ and self._sock is sock:
                self._read(sock)
        except BlockingIOError:
            log.debug("A socket was not ready after all")
        except OSError as error:
            self._fail_with(error)

    def _write(self) -> None:
        sock = self._sock
        assert sock is not None
        unsent = self._unsent
        try:
            while unsent:
                self._written = True
                sent = sock.send(unsent[0]) if len(unsent) == 1 or os.name == "nt" else sock.sendmsg(unsent[:64])
                while unsent and sent >= len(unsent[0]):
                    sent -= len(unsent.pop(0))
                if sent:
                    unsent[0] = unsent[0][sent:]
        except BlockingIOError:
            self._loop.rewatch(sock, READ | WRITE, self._on_event)
            return
        self._loop.rewatch(sock, READ, self._on_event)

    def _read(self, sock: socket.socket) -> None:
        data = sock.recv(64 * 1024)
        if self._done is None:  # idle: the end of the connection, or rubbish
            self._disconnect()
            if self._on_closed is not None:
                self._on_closed()
            return
        self._reader.feed(data)
        try:
            answer = self._reader.next(closed=not data)
            if answer is None:
                return
            if not answer.keep_alive or self._unsent:
                self._disconnect()
            check_answer(answer, self._who)
            check_acknowledged(answer.body)
        except HTTPError as error:
            self._disconnect()
            self._finish(SAMPTransportError(f"{self._who} gave no valid answer: {error}", sent=True))
        except XMLError:
            self._finish(SAMPTransportError(f"{self._who} answered with something that is no XML-RPC", sent=True))
        except SAMPError as error:
            self._finish(error)
        else:
            self._finish(None)

    # The end of a call

    def _on_timeout(self) -> None:
        self._disconnect()
        self._finish(SAMPTransportError(f"{self._who} did not acknowledge the message in time", sent=self._written))

    def _fail_with(self, error: OSError) -> None:
        self._disconnect()
        what = "cannot be reached" if not self._written else "has closed the connection"
        refused = isinstance(error, ConnectionRefusedError)
        text = f"{self._who} {what}: {error.strerror or error}"
        self._finish(SAMPTransportError(text, sent=self._written, refused=refused))

    def _finish(self, error: SAMPError | None) -> None:
        done, self._done = self._done, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unsent = []
        if done is not None:
            done(error)


def check_acknowledged(body: bytes) -> None:
    """
    Raise unless ``body`` is an XML-RPC answer that is no fault.

    What an acknowledgement holds beyond that is nobody's business (rule R30): one without a fault is not parsed.

    Raises
    ------
    SAMPProxyError
        It is a fault.
    XMLError
        It is no XML-RPC.
    """
    if b"<methodResponse" not in body or b"<fault" in body:
        read_answer(body)
