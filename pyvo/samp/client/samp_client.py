# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A client of a hub: its threads, its registration and its declarations.

Theory of operation: registering
--------------------------------
Registering takes two round trips. The first one registers the client. The second one sends the declarations of the
callback address, metadata and subscriptions, all written at once (`HubConnection.call_pipelined`).

The client uses the time in which the hub processes the first request: when that is written, it makes its event loop
and its server, and encodes the declarations (`SAMPClient._prepare_registration`). While the hub processes the
declarations, the client starts the monitor of the hub and the thread of the event loop. Together this halves the time
to connect, to about 0.6 ms.

If the registration is interrupted, for instance by ^C, the hub may have registered the client all the same. Then the
client finds its key in the raw response, and unregisters.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SAMPClientError, SAMPError, SAMPHubError
from ..process_events import register_after_fork
from ..transport.event_loop import EventLoop
from ..transport.http11 import HTTPResponse
from ..transport.urls import validate_port
from .callback_server import CallbackPuller, CallbackServer, MessageQueue
from .cleanup import CallbackReceiver, ClientCleanup, key_from_response
from .derived_classes import DerivedClient, OwnLoop, replaces
from .handlers import Binding, HandlerTable
from .hub_connection import ConnectionState, Request
from .hub_monitor import HubMonitor
from .hub_proxy import SAMPHubProxy
from .receiving import MessageReceiver, reply_to_ping
from .web_hub_proxy import SAMPWebHubProxy

log = logging.getLogger(__name__)

Map = Mapping[str, Any]

#: Subscriptions of every callable client. They notify it that its registration has ended (R26).
_HUB_SUBSCRIPTIONS: dict[str, dict[str, str]] = {"samp.hub.event.shutdown": {}, "samp.hub.disconnect": {}}


class SAMPClient(MessageReceiver, DerivedClient):
    """
    A client that registers with a hub over a given connection.

    Most programs use `SAMPIntegratedClient`, which has such a client and makes the connection.

    Parameters
    ----------
    hub : SAMPHubProxy
        The connection to the hub.
    name : str, optional
        ``samp.name`` of the client.
    description : str, optional
        ``samp.description.text`` of the client.
    metadata : mapping, optional
        Its metadata (R11); ``name`` and ``description`` are added. The mapping itself is not modified.
    addr : str, optional
        Address on which the client listens for the hub; the loopback address unless given (R37).
    port : int
        Port on which it listens; 0 takes a free one.
    callable : bool
        Whether the client can receive messages and responses (R13).
    """

    _metadata: dict[str, Any]

    def __init__(
        self,
        hub: SAMPHubProxy,
        name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        addr: str | None = None,
        port: int = 0,
        callable: bool = True,  # noqa: A002 - the name that programs use
    ) -> None:
        self._metadata = dict(metadata or {})
        if name is not None:
            self._metadata["samp.name"] = name
        if description is not None:
            self._metadata["samp.description.text"] = description
        self._address = ("127.0.0.1" if addr in (None, "", "localhost") else str(addr), validate_port(port))
        self._callable = bool(callable)
        self.hub = hub

    def _prepare(self) -> None:
        super()._prepare()
        self._metadata = {}
        self._address = ("127.0.0.1", 0)
        self._callable = True
        self._handlers = HandlerTable()
        self._handlers.calls = {"samp.app.ping": Binding(reply_to_ping, False, {})}
        self._subscriptions: dict[str, Any] = {}
        self._declare_lock = threading.RLock()
        self._public_id: str | None = None
        self._hub_id: str | None = None
        #: The hub's response to the registration.
        self.registration: dict[str, Any] = {}
        #: Called with the reason when the hub is gone or has ended the registration.
        self.on_disconnected: Callable[[str], object] | None = None
        self._cleanup = ClientCleanup()
        weakref.finalize(self, self._cleanup.close_in_thread).atexit = False
        register_after_fork(self)

    # Running

    @property
    def is_running(self) -> bool:
        """Whether the client's threads run."""
        return self._is_running

    @property
    def is_registered(self) -> bool:
        """Whether the client is registered with the hub."""
        return self._is_registered

    @property
    def listen_address(self) -> str:
        """The address on which the client's servers listen."""
        return self._address[0]

    @property
    def loop(self) -> EventLoop:
        """The event loop for the client's sockets, timers and handlers while it is running."""
        loop = self._cleanup.loop
        if loop is None:
            raise SAMPClientError("The client is not running: call start() first.")
        return loop

    def start(self) -> None:
        """
        Start the client's threads, and its server if it is callable. Does nothing if they run.

        Raises
        ------
        SAMPClientError
            It cannot listen on its address and port.
        """
        self._create_loop()
        self.loop.start()
        if isinstance(self._cleanup.receiver, OwnLoop):
            self._cleanup.receiver.start()

    def attach_monitor(self, monitor: HubMonitor) -> None:
        """
        Stop a monitor of the hub when the client ends, in whatever way.

        Parameters
        ----------
        monitor : HubMonitor
            The monitor; it runs on `loop`.
        """
        self._cleanup.monitor = monitor

    def _create_loop(self) -> None:
        """Make the event loop and the receiver, if they do not exist. Timers may be set before the loop runs."""
        if self._cleanup.loop is not None:
            return
        loop = EventLoop("samp-client")
        try:
            if self._callable:
                self._cleanup.receiver = self._make_receiver(loop)
        except OSError as error:
            loop.stop()
            raise SAMPClientError(
                f"The client cannot listen on {self._address[0]}:{self._address[1]}: {error.strerror or error}"
            ) from error
        self._cleanup.loop = loop
        self._is_running = True

    def _make_receiver(self, loop: EventLoop) -> CallbackReceiver:
        if replaces(self, DerivedClient, "_serve_forever"):
            return OwnLoop(self)
        messages = MessageQueue(loop, self)
        if isinstance(self.hub, SAMPWebHubProxy):
            return CallbackPuller(self.hub, messages)
        return CallbackServer(loop, messages, self._address, self.hub)

    def stop(self, timeout: float = 10.0) -> None:
        """
        Unregister, close the server and end the threads. It may be repeated, and called from a handler.

        Parameters
        ----------
        timeout : float
            Seconds to wait for handlers that are running.
        """
        self._is_running = False
        if self.is_registered and replaces(self, SAMPClient, "unregister"):
            try:
                self.unregister()
            except SAMPError as error:
                log.debug("The hub did not respond to unregister: %s", error)
        self._cleanup.unregister()
        self._forget_registration()
        if isinstance(self._cleanup.receiver, OwnLoop):
            self._cleanup.receiver.join(timeout)
        self._cleanup.stop(timeout)

    def after_fork_in_child(self) -> None:
        """Forget the registration and replace the locks, in the child of a fork."""
        self._declare_lock = threading.RLock()
        self._is_running = False
        self._handlers.after_fork_in_child()
        self._forget_registration()

    # Registration

    def register(self, *, while_waiting: Callable[[], object] | None = None) -> None:
        """
        Register with the hub and declare metadata and subscriptions. Starts the client if it does not run.

        Parameters
        ----------
        while_waiting : callable, optional
            Called once before the event loop starts, usually while the hub processes the declarations.

        Raises
        ------
        SAMPClientError
            There is no connection, the client is registered already, or it cannot be started.
        SAMPHubError
            The hub is gone, or its response is not valid.
        """
        if not self.hub.is_connected:
            raise SAMPClientError(f"The client cannot register. {self.hub.status.reason}")
        if self.is_registered:
            raise SAMPClientError("The client is registered already")
        raw_responses: list[HTTPResponse] = []
        prepare = functools.cache(self._prepare_registration)
        try:
            registration = self.hub.register_with_metadata(self._metadata, prepare, raw_responses)
            declared, encoded = prepare()  # the same maps, if the connection has called it
            key, own_id, hub_id = (registration.get(f"samp.{part}") for part in ("private-key", "self-id", "hub-id"))
            if not (isinstance(key, str) and isinstance(own_id, str) and key and own_id):
                raise SAMPHubError("The hub's response to the registration is not valid: a key or an id is missing.")
            self.registration = registration
            self._public_id = own_id
            self._hub_id = hub_id if isinstance(hub_id, str) else None
            with self._declare_lock:  # a handler that is bound now is declared after the client's address
                self._cleanup.private_key = key
                self._declare_all(key, declared, encoded, while_waiting)
            self._registered_event.set()
        except BaseException:
            self._cleanup.private_key = self._cleanup.private_key or key_from_response(raw_responses)
            self._cleanup.unregister()
            self._forget_registration()
            raise

    def _prepare_registration(self) -> tuple[dict[str, Map], dict[str, Any]]:
        """Make the event loop and the receiver; return the declarations, as they are and encoded."""
        self._create_loop()
        declared = self._declarations()
        return declared, self._encode_declarations(declared)

    def _declare_all(
        self,
        key: str,
        declared: dict[str, Map],
        encoded: dict[str, Any],
        while_waiting: Callable[[], object] | None,
    ) -> None:
        """Send all declarations at once: those that were encoded ahead, unless they have changed."""
        receiver = self._cleanup.receiver
        requests: list[Request] = [receiver.declaration(key)] if receiver is not None else []
        current = self._declarations()
        if current != declared:  # another thread has bound a handler
            encoded = self._encode_declarations(current)
        requests += [(name, {"private_key": key, "declared": value}) for name, value in encoded.items()]

        @functools.cache
        def start() -> None:
            if while_waiting is not None:
                while_waiting()
            self.loop.start()

        self.hub.call_pipelined(*requests, while_waiting=start)  # starting a thread takes about as long
        start()
        if receiver is not None:
            receiver.start(key)

    def _declarations(self) -> dict[str, Map]:
        """Return the maps that the client declares, by the names of the operations."""
        declared: dict[str, Map] = {"declareMetadata": self._metadata} if self._metadata else {}
        if self._cleanup.receiver is not None:
            declared["declareSubscriptions"] = self._all_subscriptions(self._subscriptions)
        return declared

    def _encode_declarations(self, declared: Mapping[str, Map]) -> dict[str, Any]:
        return {name: self.hub.pre_encode(value) for name, value in declared.items()}

    def unregister(self) -> None:
        """
        Unregister from the hub. Does nothing if the client is not registered.

        Raises
        ------
        SAMPHubError
            The hub is gone. Even then the client is not registered afterwards.
        """
        key = self._cleanup.private_key
        self._forget_registration()
        if key is not None:
            self.hub.unregister(key)

    def get_public_id(self) -> str | None:
        """Return the client's public id; None when it is not registered."""
        return self._public_id

    def require_key(self) -> str:
        """
        Return the client's private key.

        Raises
        ------
        SAMPClientError
            The client is not registered.
        SAMPHubError
            It was registered, but the hub is gone.
        """
        key = self._cleanup.private_key
        if key is None:
            status = self.hub.status
            if status.reason and status.state is not ConnectionState.DISCONNECTED:
                raise SAMPHubError(status.reason)
            raise SAMPClientError(status.reason or "The client is not registered: call register() first.")
        return key

    def _forget_registration(self) -> None:
        self._cleanup.private_key = None
        self._public_id = None
        self._hub_id = None
        self._registered_event.clear()

    def _on_hub_lost(self, reason: str) -> None:
        self._forget_registration()
        if self.on_disconnected is not None:
            self.on_disconnected(reason)

    # Declarations

    def declare_metadata(self, metadata: Mapping[str, Any] | None = None) -> None:
        """
        Declare the client's metadata to the hub (R11).

        Parameters
        ----------
        metadata : mapping, optional
            It is added to the metadata that was declared before.
        """
        key = self.require_key()
        with self._declare_lock:
            merged = {**self._metadata, **(metadata or {})}
            self.hub.declare_metadata(key, merged)
            self._metadata = merged

    def declare_subscriptions(self, subscriptions: Mapping[str, Any] | None = None) -> None:
        """
        Declare the client's subscriptions to the hub: the MTypes that have handlers, and those given here (R12).

        Parameters
        ----------
        subscriptions : mapping, optional
            From MTypes or wildcards to maps of annotations. It replaces the one that was given before.
        """
        self._handlers_or_raise  # noqa: B018 - raises for a client that is not callable
        key = self.require_key()
        with self._declare_lock:
            given = self._subscriptions if subscriptions is None else dict(subscriptions)
            self.hub.declare_subscriptions(key, self._all_subscriptions(given))
            self._subscriptions = given

    def _all_subscriptions(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {**_HUB_SUBSCRIPTIONS, **self._handlers_or_raise.subscriptions(), **given}

    @property
    def _handlers_or_raise(self) -> HandlerTable:
        if not self._callable:
            raise SAMPClientError("The client is not callable: it was made with callable=False, and gets no messages.")
        return self._handlers

    def _declare_if_registered(self, declare: bool) -> None:
        if declare and self.is_registered:
            self.declare_subscriptions()
