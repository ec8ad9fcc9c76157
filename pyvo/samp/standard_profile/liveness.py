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

from ..transport.event_loop import WRITE, Loop, Timer

__all__ = ["Address", "Liveness", "Patient", "Probe"]

log = logging.getLogger(__name__)

#: Host, an address and not a name, and port.
Address = tuple[str, int]

#: Seconds between looks: each time at those who owe an answer, every fifth time at everybody.
LOOK_EVERY = 3.0
ROUNDS = 5
#: Seconds between the first refusal and the look that confirms it.
CONFIRM_AFTER = 0.5
#: Seconds after which a look that shows nothing is given up.
PROBE_TIME = 2.0


class Patient(Protocol):
    """Somebody whose life is in question. All of this is called in the loop's thread."""

    @property
    def address(self) -> Address:
        """Where it should be listening."""

    @property
    def is_connected(self) -> bool:
        """Whether a connection to it is open, which would tell of its end at once."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for an answer of it."""

    def pronounce_dead(self) -> None:
        """Take note that nobody listens at the address."""


class Probe:
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

    def __init__(self, loop: Loop, address: Address, on_result: Callable[[bool], object]) -> None:
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
            self._timer = loop.call_later(PROBE_TIME, self.cancel)
            loop.watch(self._sock, WRITE, self._on_event)
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
                self._loop.unwatch(sock)
            sock.close()
        self._on_result(code == errno.ECONNREFUSED)


class Liveness:
    """
    Looks after patients: regularly, and when asked to. Belongs to the loop's thread.

    Parameters
    ----------
    loop : Loop
        What watches sockets and clock.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._patients: dict[Patient, None] = {}
        self._round: deque[Patient] = deque()
        self._under_look: dict[Patient, Probe | Timer | None] = {}
        self._timer: Timer | None = None

    def add(self, patient: Patient) -> None:
        """Look after somebody from now on."""
        self._patients[patient] = None
        self._round.append(patient)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_EVERY, self._make_round)

    def discard(self, patient: Patient) -> None:
        """Look after somebody no longer."""
        if patient in self._patients:
            del self._patients[patient]
            self._round.remove(patient)
            look = self._under_look.pop(patient, None)
            if look is not None:
                look.cancel()
        if not self._patients and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_at(self, patient: Patient) -> None:
        """Find out whether somebody is gone; for when there is reason to think so."""
        if patient in self._patients and patient not in self._under_look:
            self._probe(patient, self._on_first_look)

    def close(self) -> None:
        """Look after nobody any more."""
        for patient in list(self._patients):
            self.discard(patient)

    def _make_round(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY, self._make_round)
        share = -(-len(self._round) // ROUNDS)
        due = dict.fromkeys(self._round[index] for index in range(share))
        self._round.rotate(-share)
        due.update(dict.fromkeys(patient for patient in self._patients if patient.is_awaited))
        for patient in due:
            if not patient.is_connected:
                self.look_at(patient)

    def _probe(self, patient: Patient, then: Callable[[Patient, bool], None]) -> None:
        self._under_look[patient] = None
        probe = Probe(self._loop, patient.address, lambda refused: then(patient, refused))
        if patient in self._under_look and self._under_look[patient] is None:  # it has no result yet
            self._under_look[patient] = probe

    def _on_first_look(self, patient: Patient, refused: bool) -> None:
        if not refused:
            self._under_look.pop(patient, None)
        elif patient in self._under_look:
            self._under_look[patient] = self._loop.call_later(CONFIRM_AFTER, self._probe, patient, self._on_second_look)

    def _on_second_look(self, patient: Patient, refused: bool) -> None:
        if patient in self._under_look:
            del self._under_look[patient]
            if refused:
                patient.pronounce_dead()
