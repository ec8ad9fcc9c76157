# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Who is still there: a cheap look at the addresses at which the hub's clients take their deliveries (R23).

A client that crashes says nothing. The hub learns of it when a delivery is refused or a connection that is kept to
it ends; but where no connection is kept and no delivery is due, a caller could wait for ever for the answer of
a program that is gone. So the hub connects to the client's address now and then, and closes the connection at
once. Where the system answers that nobody listens, and answers the same a moment later, the program is gone.
Anything else (an accepted connection, silence, an unreachable network) proves nothing, and changes nothing.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..transport.event_loop import WRITE, EventLoop, Timer

__all__ = ["Address", "ConnectProbe", "LivenessChecker", "Probed"]

log = logging.getLogger(__name__)

#: Host, an address and not a name, and port.
Address = tuple[str, int]

#: Seconds between looks: each time at those who owe an answer, every fifth time at everybody.
CHECK_INTERVAL = 3.0
CHECK_SHARES = 5
#: Seconds between the first refusal and the look that confirms it.
CONFIRM_AFTER = 0.5
#: Seconds after which a look that shows nothing is given up.
PROBE_TIMEOUT = 2.0


class Probed(Protocol):
    """Somebody whose life is in question. All of this is called in the loop's thread."""

    @property
    def address(self) -> Address:
        """Where it should be listening."""

    @property
    def is_connected(self) -> bool:
        """Whether a connection to it is open, which would tell of its end at once."""

    @property
    def owes_response(self) -> bool:
        """Whether somebody waits for an answer of it."""

    def on_client_dead(self) -> None:
        """Take note that nobody listens at the address."""


class ConnectProbe:
    """
    One attempt to connect.

    Parameters
    ----------
    loop : Loop
        What watches the socket.
    address : tuple of (str, int)
        Where to.
    on_result : callable
        Called once, possibly at once, with True if the connection was refused, with False in all other cases.
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
        except OSError as error:  # no descriptor left, no such address family
            code = error.errno or errno.EINVAL
        if self._sock is not None and code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._timer = loop.call_later(PROBE_TIMEOUT, self.cancel)
            loop.register(self._sock, WRITE, self._on_event)
        else:
            self._end(code)

    def cancel(self) -> None:
        """Give up; that counts as no refusal."""
        if self._sock is not None:
            self._end(errno.ETIMEDOUT)

    def _on_event(self, _events: int) -> None:
        if self._sock is not None:
            self._end(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _end(self, code: int) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._timer is not None:
                self._timer.cancel()
                self._loop.unregister(sock)
            sock.close()
        self._on_result(code == errno.ECONNREFUSED)


class LivenessChecker:
    """
    Looks after patients: regularly, and when asked to. Belongs to the loop's thread.

    Parameters
    ----------
    loop : Loop
        What watches sockets and clock.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._patients: dict[Probed, None] = {}
        self._round: deque[Probed] = deque()
        self._in_progress: dict[Probed, ConnectProbe | Timer | None] = {}
        self._timer: Timer | None = None

    def add(self, patient: Probed) -> None:
        """Look after somebody from now on."""
        self._patients[patient] = None
        self._round.append(patient)
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_INTERVAL, self._check_round)

    def discard(self, patient: Probed) -> None:
        """Look after somebody no longer."""
        if patient in self._patients:
            del self._patients[patient]
            self._round.remove(patient)
            look = self._in_progress.pop(patient, None)
            if look is not None:
                look.cancel()
        if not self._patients and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self, patient: Probed) -> None:
        """Find out whether somebody is gone; for when there is reason to think so."""
        if patient in self._patients and patient not in self._in_progress:
            self._probe(patient, self._on_first_probe)

    def close(self) -> None:
        """Look after nobody any more."""
        for patient in list(self._patients):
            self.discard(patient)

    def _check_round(self) -> None:
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check_round)
        share = -(-len(self._round) // CHECK_SHARES)
        due = dict.fromkeys(self._round[index] for index in range(share))
        self._round.rotate(-share)
        due.update(dict.fromkeys(patient for patient in self._patients if patient.owes_response))
        for patient in due:
            if not patient.is_connected:
                self.check(patient)

    def _probe(self, patient: Probed, then: Callable[[Probed, bool], None]) -> None:
        self._in_progress[patient] = None
        probe = ConnectProbe(self._loop, patient.address, lambda refused: then(patient, refused))
        if patient in self._in_progress and self._in_progress[patient] is None:  # it has no result yet
            self._in_progress[patient] = probe

    def _on_first_probe(self, patient: Probed, refused: bool) -> None:
        if not refused:
            self._in_progress.pop(patient, None)
        elif patient in self._in_progress:
            self._in_progress[patient] = self._loop.call_later(CONFIRM_AFTER, self._probe, patient, self._on_confirmation)

    def _on_confirmation(self, patient: Probed, refused: bool) -> None:
        if patient in self._in_progress:
            del self._in_progress[patient]
            if refused:
                patient.on_client_dead()
