# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""One connection of a caller that waits for its answers, and how long it waits."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from ..errors import SAMPTransportError
from .http import AnswerReader
from .http_url import is_address

__all__ = ["KEEP_TIME", "LateError", "Patience", "Wire", "is_own_echo"]

#: Seconds for which an idle connection may be used again: well below the time for which our servers keep theirs.
KEEP_TIME = 45.0


def is_own_echo(sock: socket.socket) -> bool:
    """
    Whether a socket is connected to itself.

    That happens when nobody listens at a port of this machine and the system happens to choose that very port
    as the one to connect from; whoever looks often enough at the port of a program that is gone meets it.
    """
    return bool(sock.getsockname() == sock.getpeername())


def _connected(host: str, port: int, timeout: float) -> socket.socket:
    if not is_address(host):
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


class Wire:
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
            if is_own_echo(self.sock):
                raise ConnectionRefusedError("Connection refused")
            self.sock.setblocking(False)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.sock.close()
            raise
        self.reader = AnswerReader(max_body)
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

    def usable(self) -> bool:
        """Whether an idle connection is still open. Anything that can be read from it now is its end, or rubbish."""
        return time.monotonic() - self.idle_since <= KEEP_TIME and not self.wait(0.0)


class LateError(SAMPTransportError):
    """An answer did not come in time from a server that was looked after meanwhile, and found alive."""


class Patience:
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

    def left(self) -> float:
        """Seconds until the next look, or until the time is up; raises when it is."""
        if self._deadline is None:
            return self._look_every
        left = self._deadline - time.monotonic()
        if left <= 0:
            kind = SAMPTransportError if self._look is None else LateError
            raise kind(f"{self._who} did not answer in time", sent=True)
        return left if self._look is None else min(left, self._look_every)

    def endure(self) -> None:
        """Take note that those seconds have passed."""
        self.left()
        if self._look is not None:
            self._look()
