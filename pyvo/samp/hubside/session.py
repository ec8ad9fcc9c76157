# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One life of a hub, from its start to its stop.

Theory of operation
-------------------
Order matters at both ends. At the start everything must be ready before the lockfile tells others of it: whoever
reads the lockfile may call at once, and another hub that is starting pings. At the stop the lockfile goes first,
while pings are still answered; then the clients are told, and what is on its way to them gets a moment; then open
calls end with an answer; then the sockets close. A client that takes no deliveries any more can cost that moment, and
no more.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..broker import Broker
from ..errors import SAMPHubError
from ..signals import Latch
from ..standard_profile import StandardProfile
from ..transport.loop import Loop, Timer
from .lockfile_writing import holds, remove_lockfile, write_lockfile

if TYPE_CHECKING:
    from ..web_profile import WebProfile

__all__ = ["HubSession", "SessionOptions"]

log = logging.getLogger(__name__)

#: Seconds that clients have to take what is on its way to them when the hub stops.
FAREWELL_TIME = 0.8
#: Seconds that the hub's threads have to end. Together with the above well below two seconds.
ENDING_TIME = 0.6
#: Seconds between two looks at whether the lockfile is still there.
LOOK_EVERY = 60.0

PROFILE_VERSION = "1.3"


class SessionOptions(NamedTuple):
    """What one life of a hub needs to know; the meanings are those of `SAMPHubServer`."""

    hub_id: str
    label: str
    secret: str | None
    address: tuple[str, int]
    lockfile: Path
    timeout: float
    client_timeout: float
    #: Makes the Web Profile's server; None where it is not wanted.
    make_web_profile: Callable[[Broker, Loop], WebProfile | None] | None


class HubSession:
    """
    A hub that runs.

    Parameters
    ----------
    options : SessionOptions
        How it runs.
    """

    def __init__(self, options: SessionOptions) -> None:
        self._options = options
        self._closing = threading.Lock()  # taken by whoever closes first, and never given back
        self._withdrawing = threading.Lock()  # the same for the lockfile
        self._timers: list[Timer] = []
        self._announced = False  # by the lockfile
        self.closed = Latch()
        self.params: dict[str, str] = {}
        self.broker = Broker()
        self.loop = Loop("samp-hub", lingers=True)
        self.standard: StandardProfile | None = None
        self.web: WebProfile | None = None

    @property
    def is_running(self) -> bool:
        """Whether others can find the hub."""
        return self._announced and not self.is_closing

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing.locked()

    # The beginning

    def open(self) -> None:
        """
        Start to serve, and tell others by the lockfile.

        Raises
        ------
        SAMPHubError
            Another hub is running, or something that is needed cannot be had. Then nothing runs.
        """
        try:
            self._start_serving()
            write_lockfile(self._options.lockfile, self.params)
            self._announced = True
            _running.add(self)
            if self.is_closing:  # by a signal handler, say, before there was a lockfile to be removed
                self._withdraw()
                _running.discard(self)
            else:
                self._watch_clocks()
                log.info("The hub is running")
        except BaseException:
            if holds(self._options.lockfile, self.params):  # ^C came when it was in its place already
                self._withdraw()
            self.close()
            raise

    def _start_serving(self) -> None:
        options = self._options
        secret = options.secret or secrets.token_hex(16)
        self.loop.start()
        try:
            self.standard = StandardProfile(self.broker, self.loop, secret, options.address)
        except OSError as error:
            host, port = options.address
            raise SAMPHubError(
                f"The hub cannot listen on {host}:{port}: {error.strerror or error}. Give it another address or port; "
                "port 0 takes a free one."
            ) from error
        self.params = {
            "samp.secret": secret,
            "samp.hub.xmlrpc.url": self.standard.url,
            "samp.profile.version": PROFILE_VERSION,
            "hub.id": options.hub_id,
            "hub.label": options.label,
        }
        self.standard.start()
        log.info("The hub serves the Standard Profile on port %d", self.standard.port)
        if options.make_web_profile is not None:
            self.web = options.make_web_profile(self.broker, self.loop)

    # While it runs

    def _watch_clocks(self) -> None:
        """Set the timers of the time-outs and of the look at the lockfile. Each waits for when something can be due."""
        if self._options.timeout > 0:
            self._check_activity()
        if self._options.client_timeout > 0:
            self._check_clients()
        self._later(LOOK_EVERY, self.loop.run_in_worker, self._check_lockfile)

    def _later(self, delay: float, function: Callable[..., object], *args: object) -> None:
        self._timers = [timer for timer in self._timers if timer.active]
        self._timers.append(self.loop.call_later(delay, function, *args))

    def _check_activity(self) -> None:
        left = self.broker.last_active + self._options.timeout - time.monotonic()
        if any(client.awaited for client in self.broker.clients()):  # and those whom they wait for may be at work
            self._later(self._options.timeout, self._check_activity)
        elif left > 0:
            self._later(left, self._check_activity)
        else:
            log.info("The hub stops: nobody has used it for %g s", self._options.timeout)
            self.loop.run_in_worker(self.close)

    def _check_clients(self) -> None:
        limit = self._options.client_timeout
        now = time.monotonic()
        wait = limit
        for client in self.broker.clients():
            left = client.last_active + limit - now
            if left > 0:
                wait = min(wait, left)
            elif not (client.awaited or client.owed or getattr(client.mailbox, "is_pulled", False)):
                # who waits for an answer, works on one, or is a page that waits, is there
                self.broker.disconnect(client, f"it was silent for {limit:g} s")
        self._later(wait, self._check_clients)

    def _check_lockfile(self) -> None:
        """Tell the log, once, when the lockfile is gone: clients that are connected would never notice."""
        if self.is_closing:
            return
        if holds(self._options.lockfile, self.params):
            self._later(LOOK_EVERY, self.loop.run_in_worker, self._check_lockfile)
        else:
            log.warning(
                "The lockfile of this hub was removed or changed by somebody else. Clients that are connected are "
                "served, but new ones do not find this hub: stop it and start it again."
            )

    # The end

    def close(self) -> None:
        """Tell everybody, and stop. Bounded in time; safe to repeat, and from any thread or signal handler."""
        if self.loop.in_loop():
            self.loop.run_in_worker(self.close)
            return
        if not self._closing.acquire(blocking=False):
            self.closed.wait(FAREWELL_TIME + ENDING_TIME)
            return
        try:
            if self.standard is not None and self._announced:
                self._take_leave(self.standard)
        finally:
            self._stop_serving()
            _running.discard(self)
            self.closed.set()
            if self._announced:
                log.info("The hub has stopped")

    def wait_closed(self) -> None:
        """Wait until the hub has been stopped, by whomever."""
        # On Windows ^C does not end a wait without limit
        while not self.closed.wait(1.0 if os.name == "nt" else None):
            continue

    def _withdraw(self) -> None:
        """Remove the lockfile, once: whoever starts the hub and whoever stops it may come here at the same time."""
        if self._withdrawing.acquire(blocking=False):
            remove_lockfile(self._options.lockfile, self.params)

    def _take_leave(self, standard: StandardProfile) -> None:
        self._withdraw()
        self.broker.announce_shutdown()
        end = time.monotonic() + FAREWELL_TIME
        standard.wait_delivered(FAREWELL_TIME)
        if self.web is not None:
            self.web.wait_delivered(max(0.0, end - time.monotonic()))
        self.broker.close()

    def _stop_serving(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for profile in (self.web, self.standard):
            if profile is not None:
                self.loop.call_soon(profile.stop)
        self.loop.stop(ENDING_TIME)

    def abandon(self) -> None:
        """Let go of everything without a word to anybody: for the child of a fork, whose parent goes on as the hub."""
        self._closing.acquire(blocking=False)
        _running.discard(self)
        self.loop.abandon()
        self.closed.set()


#: Those who must take leave before the interpreter ends.
_running: set[HubSession] = set()


@atexit.register
def _close_at_exit() -> None:
    for session in list(_running):
        session.close()
