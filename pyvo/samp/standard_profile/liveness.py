# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Find clients that ended without unregistering, by probing their callback addresses (R23).

A client that crashes does not unregister. The hub notices it when a delivery is refused or an idle connection ends.
Without a connection and without a delivery, a caller could wait forever for the response of a program that has ended.
So the hub connects to each client's address at intervals, and closes the connection at once. If the connection is
refused, and refused again a moment later, the client has ended. Anything else (an accepted connection, no response, an
unreachable network) proves nothing and changes nothing.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..transport.event_loop import WRITE, EventLoop, Timer

log = logging.getLogger(__name__)

#: Host (an IP address, not a name) and port.
Address = tuple[str, int]

#: Seconds between rounds of probes.
CHECK_INTERVAL = 3.0
#: Each round probes the clients that owe a response, and one in this many of all clients.
CHECK_SHARES = 5
#: Seconds between a refused probe and the one that confirms it.
CONFIRM_AFTER = 0.5
#: Seconds after which a probe without a result is cancelled.
PROBE_TIMEOUT = 2.0


class Probed(Protocol):
    """
    A client whose callback address is probed: a `CallbackSender`, whose module imports this one.

    All members are used in the loop's thread.
    """

    @property
    def address(self) -> Address:
        """The client's callback address."""

    @property
    def is_connected(self) -> bool:
        """Whether a connection to the client is open, so that its end would be noticed."""

    @property
    def owes_response(self) -> bool:
        """Whether a call to the client has no response yet."""

    def on_client_dead(self) -> None:
        """Called when nothing listens at the address any more."""


class ConnectProbe:
    """
    One attempt to connect.

    ``on_result`` is called once, possibly at once: with True if the connection was refused, else with False.
    """

    def __init__(self, loop: EventLoop, address: Address, on_result: Callable[[bool], object]) -> None:
        self._loop = loop
        self._on_result = on_result
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        try:
            self._sock = socket.socket(family, socket.SOCK_STREAM)
            self._sock.setblocking(False)
            code = self._sock.connect_ex(address)
        except OSError as error:  # no descriptor is left, or the address family is not supported
            code = error.errno or errno.EINVAL
        if self._sock is not None and code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._timer = loop.call_later(PROBE_TIMEOUT, self.cancel)
            loop.register(self._sock, WRITE, self._on_event)
        else:
            self._finish(code)

    def cancel(self) -> None:
        """End the attempt; the connection does not count as refused."""
        if self._sock is not None:
            self._finish(errno.ETIMEDOUT)

    def _on_event(self, _events: int) -> None:
        if self._sock is not None:
            self._finish(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _finish(self, code: int) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._timer is not None:
                self._timer.cancel()
                self._loop.unregister(sock)
            sock.close()
        self._on_result(code == errno.ECONNREFUSED)


class LivenessChecker:
    """Probes clients at intervals and on request. Used in the loop's thread only."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._clients: dict[Probed, None] = {}
        self._round: deque[Probed] = deque()
        self._in_progress: dict[Probed, ConnectProbe | Timer | None] = {}
        self._timer: Timer | None = None

    def add(self, client: Probed) -> None:
        """Start to probe a client."""
        self._clients[client] = None
        self._round.append(client)
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_INTERVAL, self._check_round)

    def discard(self, client: Probed) -> None:
        """Stop probing a client."""
        if client in self._clients:
            del self._clients[client]
            self._round.remove(client)
            probe = self._in_progress.pop(client, None)
            if probe is not None:
                probe.cancel()
        if not self._clients and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self, client: Probed) -> None:
        """Probe a client now, because something suggests that it has ended."""
        if client in self._clients and client not in self._in_progress:
            self._probe(client, self._on_first_probe)

    def close(self) -> None:
        """Stop probing all clients."""
        for client in list(self._clients):
            self.discard(client)

    def _check_round(self) -> None:
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check_round)
        share = -(-len(self._round) // CHECK_SHARES)
        due = dict.fromkeys(self._round[index] for index in range(share))
        self._round.rotate(-share)
        due.update(dict.fromkeys(client for client in self._clients if client.owes_response))
        for client in due:
            if not client.is_connected:
                self.check(client)

    def _probe(self, client: Probed, on_result: Callable[[Probed, bool], None]) -> None:
        self._in_progress[client] = None
        probe = ConnectProbe(self._loop, client.address, lambda refused: on_result(client, refused))
        if client in self._in_progress and self._in_progress[client] is None:  # it has no result yet
            self._in_progress[client] = probe

    def _on_first_probe(self, client: Probed, refused: bool) -> None:
        if not refused:
            self._in_progress.pop(client, None)
        elif client in self._in_progress:
            self._in_progress[client] = self._loop.call_later(CONFIRM_AFTER, self._probe, client, self._on_confirmation)

    def _on_confirmation(self, client: Probed, refused: bool) -> None:
        if client in self._in_progress:
            del self._in_progress[client]
            if refused:
                client.on_client_dead()
