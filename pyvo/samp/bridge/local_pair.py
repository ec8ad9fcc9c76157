# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A transport between two hubs of one machine: both engines are in one process and connected by a pair of sockets."""

from __future__ import annotations

import socket
import threading

from .link import Accept, Hello, LinkState, Report, Transport
from .stream_link import StreamLink

#: Seconds for the threads of a link to end.
JOIN_TIMEOUT = 5.0


class SocketStream:
    """A connected socket as a `ByteStream`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read = sock.recv
        self.write = sock.sendall

    def interrupt(self) -> None:
        """Make `read` and `write` in other threads return or raise."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed already
            return


class _End(Transport):
    """One of the two ends."""

    def __init__(self, pair: LocalPair, label: str, *, is_first: bool) -> None:
        self.label = label
        self.is_first = is_first
        self.arguments: tuple[Hello, Accept, Report] | None = None
        self.is_restarted = False
        self.link: StreamLink | None = None
        self._pair = pair

    def start(self, hello: Hello, accept: Accept, report: Report) -> None:
        """Connect as soon as the other end is started as well."""
        self.arguments = hello, accept, report
        self.is_restarted = True
        self._pair.connect()

    def stop(self, reason: str = "") -> None:
        """Close the link."""
        self.arguments = None
        link = self.link
        if link is not None:
            link.close(reason)
            link.join(JOIN_TIMEOUT)

    def make_link(self, sock: socket.socket) -> StreamLink:
        """Make the link of this end."""
        assert self.arguments is not None
        hello, accept, report = self.arguments

        def on_end(reason: str, status: int) -> None:
            sock.close()
            self.link = None
            if self.arguments is not None:
                report(LinkState.FAILED if status else LinkState.LOST, reason, status)
            if not status:
                self._pair.connect()

        return StreamLink(
            SocketStream(sock), hello, accept, is_first=self.is_first, label=self.label, on_end=on_end
        )


class LocalPair:
    """
    Two transports that are connected to each other: ``ends[0]`` and ``ends[1]``.

    Parameters
    ----------
    labels : tuple of (str, str)
        The name of each of the two hubs at the other one.
    """

    def __init__(self, labels: tuple[str, str]) -> None:
        self._lock = threading.RLock()
        # the label of a transport is what is at its other end
        self.ends = _End(self, labels[1], is_first=True), _End(self, labels[0], is_first=False)

    def connect(self) -> None:
        """Make a link if both ends are started, have no link, and at least one was started since the last link."""
        with self._lock:
            ready = all(end.arguments is not None and end.link is None for end in self.ends)
            if not ready or not any(end.is_restarted for end in self.ends):
                return
            links = []
            for end, sock in zip(self.ends, socket.socketpair(), strict=True):
                end.is_restarted = False
                end.link = end.make_link(sock)
                links.append(end.link)
        for link in links:
            link.start()
