# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How a client unregisters and ends if its program does not disconnect it: at exit, and when it is garbage-collected.

`ClientCleanup` has all that this needs, and no strong reference to the client. So a client without other references is
collected although its threads still run, and its cleanup unregisters it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakMethod, WeakSet

from ..errors import SAMPError
from ..process_events import register_after_fork
from ..transport.event_loop import EventLoop
from ..transport.http11 import HTTPResponse
from ..transport.xmlrpc_reader import read_response
from .hub_connection import HubConnection, Request
from .hub_monitor import HubMonitor

log = logging.getLogger(__name__)

#: Seconds that the cleanup at exit may take, for all clients together.
EXIT_TIMEOUT = 2.0
#: Seconds in which a hub has to respond to an unregister.
UNREGISTER_TIMEOUT = 2.0


class CallbackReceiver(Protocol):
    """How a client receives: a server that the hub calls, or a thread that pulls callbacks."""

    def declaration(self, private_key: str) -> Request:
        """Return the operation that tells the hub how it reaches the client."""

    def start(self, private_key: str) -> None:
        """Start to receive; called after the declaration."""

    def stop(self) -> None:
        """Stop receiving; returns immediately."""


class ClientCleanup:
    """Unregisters a client, closes its connection and stops its threads when it ends."""

    def __init__(self) -> None:
        #: The client's connection; None until it has one.
        self.hub: HubConnection | None = None
        self.private_key: str | None = None
        self.loop: EventLoop | None = None
        self.receiver: CallbackReceiver | None = None
        self.monitor: HubMonitor | None = None
        _live.add(self)
        register_after_fork(self)

    def unregister(self, timeout: float = UNREGISTER_TIMEOUT) -> None:
        """Unregister from the hub. Errors are only logged."""
        key, self.private_key = self.private_key, None
        if key is not None and self.hub is not None:
            self.hub.unregister_quietly(key, timeout)

    def stop(self, timeout: float) -> None:
        """Close the client's server and end its threads."""
        receiver, self.receiver = self.receiver, None
        monitor, self.monitor = self.monitor, None
        if monitor is not None:
            monitor.stop()
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.start()  # if it does not run yet: its thread closes the sockets
        if receiver is not None:
            receiver.stop()
        if loop is not None:
            loop.stop(timeout)

    def close(self, timeout: float = UNREGISTER_TIMEOUT) -> None:
        """Unregister, close the connection and stop."""
        self.unregister(timeout)
        if self.hub is not None:
            self.hub.disconnect()
        self.stop(timeout)

    def close_in_thread(self) -> None:
        """Close in another thread. A client may be collected in any thread, which must not wait for the hub."""
        if self.private_key is not None or self.loop is not None:
            threading.Thread(target=self.close, name="samp-cleanup", daemon=True).start()

    def after_fork_in_child(self) -> None:
        """Forget everything, in the child of a fork: the parent is still registered."""
        self.private_key = None
        self.receiver = None
        self.monitor = None
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.after_fork_in_child()


_live: WeakSet[ClientCleanup] = WeakSet()


def live_clients() -> set[ClientCleanup]:
    """Return the cleanups of all clients of this process."""
    return set(_live)


@atexit.register
def _close_at_exit() -> None:
    deadline = time.monotonic() + EXIT_TIMEOUT
    for cleanup in list(_live):
        remaining = deadline - time.monotonic()
        if remaining > 0:
            cleanup.close(min(remaining, UNREGISTER_TIMEOUT))


def key_from_response(raw_responses: Sequence[HTTPResponse]) -> str | None:
    """Find the private key in the response to a registration that was interrupted; None if there is none."""
    try:
        registration = read_response(raw_responses[0].body) if raw_responses else None
    except SAMPError as error:
        log.debug("There was no registration: %s", error)
        return None
    key = registration.get("samp.private-key") if isinstance(registration, dict) else None
    return key if isinstance(key, str) else None


def weak_method(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that calls a bound method while its object is alive, and then does nothing."""
    reference = WeakMethod(method)

    def call(*args: Any) -> Any:
        alive = reference()
        return alive(*args) if alive is not None else None

    return call
