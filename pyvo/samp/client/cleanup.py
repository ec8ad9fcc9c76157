# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How a client leaves when its program does not say so: at the end of the interpreter, and when it is collected.

What is needed to leave (`Remains`) is kept apart from the client, and refers to it weakly at the most: so a
client that nobody refers to any more is collected although its threads run on, and its remains still unregister
it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet, ref

from ..errors import SAMPError
from ..process_events import register_after_fork
from ..transport.xmlrpc_reader import read_response

if TYPE_CHECKING:
    from ..transport.event_loop import EventLoop
    from ..transport.http11 import HTTPResponse
    from .hub_connection import HubConnection, Request
    from .hub_monitor import HubMonitor

__all__ = ["CallbackReceiver", "ClientCleanup", "key_from_response", "weak_method"]

log = logging.getLogger(__name__)

#: Seconds that leaving may take at the end of the interpreter, for all clients together.
EXIT_TIME = 2.0
#: Seconds that a hub has to answer to an unregister.
UNREGISTER_TIME = 2.0


class CallbackReceiver(Protocol):
    """How a client receives: a server that is called, or a thread that asks."""

    def declaration(self, private_key: str) -> Request:
        """What the hub is to be told, so that it can reach the client."""

    def start(self, private_key: str) -> None:
        """Receive; called when the hub has been told."""

    def stop(self) -> None:
        """Receive no more; returns at once."""


class ClientCleanup:
    """What is left to do for a client that leaves."""

    def __init__(self) -> None:
        #: The client's connection; None until it is given one.
        self.hub: HubConnection | None = None
        self.private_key: str | None = None
        self.loop: EventLoop | None = None
        self.receiver: CallbackReceiver | None = None
        self.watch: HubMonitor | None = None
        _live.add(self)
        register_after_fork(self)

    def unregister(self, timeout: float = UNREGISTER_TIME) -> None:
        """Take leave of the hub; never fails, for whom should it tell."""
        key, self.private_key = self.private_key, None
        if key is not None and self.hub is not None:
            self.hub.unregister_quietly(key, timeout)

    def stop(self, timeout: float) -> None:
        """Close the client's server and end its threads."""
        receiver, self.receiver = self.receiver, None
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.stop()
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.start()  # if it was not yet: what there is to close is closed by its thread
        if receiver is not None:
            receiver.stop()
        if loop is not None:
            loop.stop(timeout)

    def close(self, timeout: float = UNREGISTER_TIME) -> None:
        """Do all of it."""
        self.unregister(timeout)
        if self.hub is not None:
            self.hub.disconnect()
        self.stop(timeout)

    def close_in_thread(self) -> None:
        """Do all of it in another thread. A client may be collected anywhere, where its hub must not be waited for."""
        if self.private_key is not None or self.loop is not None:
            threading.Thread(target=self.close, name="samp-farewell", daemon=True).start()

    def after_fork_in_child(self) -> None:
        """Forget it, in the child of a fork: the parent still is registered."""
        self.private_key = None
        self.receiver = None
        self.watch = None
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.after_fork_in_child()


_live: WeakSet[ClientCleanup] = WeakSet()


@atexit.register
def _close_at_exit() -> None:
    deadline = time.monotonic() + EXIT_TIME
    for remains in list(_live):
        left = deadline - time.monotonic()
        if left > 0:
            remains.close(min(left, UNREGISTER_TIME))


def key_from_response(seen: Sequence[HTTPResponse]) -> str | None:
    """
    Find the key of a client that was registered, but interrupted before it took note of that.

    Parameters
    ----------
    seen : sequence of Answer
        What the hub answered to the registration, if it did.

    Returns
    -------
    str or None
        The private key.
    """
    try:
        registration = read_response(seen[0].body) if seen else None
    except SAMPError as error:
        log.debug("There was no registration: %s", error)
        return None
    key = registration.get("samp.private-key") if isinstance(registration, dict) else None
    return key if isinstance(key, str) else None


class _WeakMethod:
    """A bound method that does not keep its object alive; the standard library's takes ten times as long to make."""

    __slots__ = ("_function", "_reference")

    def __init__(self, method: Callable[..., Any]) -> None:
        self._function = method.__func__  # type: ignore[attr-defined]
        self._reference = ref(method.__self__)  # type: ignore[attr-defined]

    def __call__(self, *args: Any) -> Any:
        alive = self._reference()
        return self._function(alive, *args) if alive is not None else None


def weak_method(method: Callable[..., Any]) -> Callable[..., Any]:
    """
    Refer to a bound method without keeping its object alive.

    Parameters
    ----------
    method : callable
        A bound method.

    Returns
    -------
    callable
        Calls it as long as its object lives, and does nothing afterwards.
    """
    return _WeakMethod(method)
