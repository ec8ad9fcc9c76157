# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A client of a hub: its registration, what it declares, and how what it receives reaches the program."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SAMPClientError, SAMPError, SAMPHubError
from ..process_events import register_after_fork
from ..transport.event_loop import EventLoop
from ..transport.urls import validate_port
from .callback_server import MessageQueue
from .cleanup import ClientCleanup, key_from_response
from .derived_classes import DerivedClient, OwnLoop, replaces
from .handlers import Binding, HandlerTable
from .hub_connection import Request
from .hub_monitor import HubMonitor
from .hub_proxy import SAMPHubProxy
from .receiving import MessageReceiver, answer_ping

if TYPE_CHECKING:
    from ..transport.http11 import HTTPResponse

__all__ = ["SAMPClient"]

log = logging.getLogger(__name__)

#: What every callable client subscribes to, to hear that its registration has ended (R26).
_HUB_SUBSCRIPTIONS: dict[str, dict[str, str]] = {"samp.hub.event.shutdown": {}, "samp.hub.disconnect": {}}


class SAMPClient(MessageReceiver, DerivedClient):
    """
    A client that registers with a hub, by a connection that it is given.

    `SAMPIntegratedClient` is made of this and the connection, and is what most programs want.

    Parameters
    ----------
    hub : SAMPHubProxy
        The connection to the hub.
    name : str, optional
        ``samp.name`` of the client.
    description : str, optional
        ``samp.description.text`` of the client.
    metadata : mapping, optional
        Its metadata (R11); ``name`` and ``description`` are added. What is passed in is not modified.
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
        self._handlers.calls = {"samp.app.ping": Binding(answer_ping, False, {})}
        self._subscriptions: dict[str, Any] = {}
        self._declare_lock = threading.RLock()
        self._public_id: str | None = None
        self._hub_id: str | None = None
        self._disconnect_reason = ""  # why the registration has ended, if that was not the program's doing
        #: What the hub said at registration.
        self.registration: dict[str, Any] = {}
        #: Called with the reason when the registration has ended without the client's doing.
        self.on_disconnected: Callable[[str], object] | None = None
        #: Whether that was because the hub wanted to be rid of this client.
        self.thrown_out = False
        self._remains = ClientCleanup()
        weakref.finalize(self, self._remains.close_in_thread).atexit = False
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
        """What runs the client's sockets, timers and handlers while it is running."""
        loop = self._remains.loop
        if loop is None:
            raise SAMPClientError("The client is not running: call start() first.")
        return loop

    def start(self) -> None:
        """
        Start the client's threads, and its server if it is callable. Does nothing when they run.

        Raises
        ------
        SAMPClientError
            It cannot listen on the address and port that it was given.
        """
        self._create_loop()
        self.loop.start()
        if isinstance(self._remains.receiver, OwnLoop):
            self._remains.receiver.start()

    def attach_monitor(self, watch: HubMonitor) -> None:
        """
        Have a watch on the hub end when the client does, however that comes about.

        Parameters
        ----------
        watch : HubWatch
            The watch; it runs on `loop`.
        """
        self._remains.watch = watch

    def _create_loop(self) -> None:
        """Make what `start` starts, if it has not been made. Its clocks may be set before it runs."""
        if self._remains.loop is not None:
            return
        loop = EventLoop("samp-client")
        try:
            if self._callable:
                receiver = self._own_loop() or self.hub.receiver(loop, MessageQueue(loop, self), self._address)
                self._remains.receiver = receiver
        except OSError as error:
            loop.stop()
            raise SAMPClientError(
                f"The client cannot listen on {self._address[0]}:{self._address[1]}: {error.strerror or error}"
            ) from error
        self._remains.loop = loop
        self._is_running = True

    def stop(self, timeout: float = 10.0) -> None:
        """
        Unregister if need be, close the server and end the threads. It may be repeated, and called from a handler.

        Parameters
        ----------
        timeout : float
            Seconds to wait for handlers that are at work.
        """
        self._is_running = False
        if self.is_registered and replaces(self, SAMPClient, "unregister"):
            try:
                self.unregister()
            except SAMPError as error:
                log.debug("The hub did not take notice of an unregister: %s", error)
        self._remains.unregister()
        self._forget_registration()
        self._disconnect_reason = ""
        if isinstance(self._remains.receiver, OwnLoop):
            self._remains.receiver.join(timeout)
        self._remains.stop(timeout)

    def after_fork_in_child(self) -> None:
        """Forget what other threads were doing, in the child of a fork."""
        self._declare_lock = threading.RLock()
        self._is_running = False
        self._handlers.after_fork_in_child()
        self._forget_registration()

    # Registration

    def register(self, *, meanwhile: Callable[[], object] | None = None) -> None:
        """
        Register with the hub and declare metadata and subscriptions. Starts the client if it does not run.

        Parameters
        ----------
        meanwhile : callable, optional
            Called when the client is about to be started.

        Raises
        ------
        SAMPClientError
            There is no connection, the client is registered already, or cannot be started.
        SAMPHubError
            The hub is gone, or gave no valid answer.
        """
        if not self.hub.is_connected:
            raise SAMPClientError(f"The client cannot register. {self.hub.disconnect_reason}")
        if self.is_registered:
            raise SAMPClientError("The client is registered already")
        seen: list[HTTPResponse] = []
        declared: dict[str, Mapping[str, Any]] = {}
        written: dict[str, Any] = {}
        begun = False

        def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                self._create_loop()
                if meanwhile is not None:
                    meanwhile()
                declared.update(self._declarations())
                written.update(self._written(declared))

        try:
            answer = self.hub.register_with_metadata(self._metadata, begin, seen)  # the hub is at work while all this is made
            begin()
            key, own_id, hub_id = (answer.get(f"samp.{part}") for part in ("private-key", "self-id", "hub-id"))
            if not (isinstance(key, str) and isinstance(own_id, str) and key and own_id):
                raise SAMPHubError("The hub gave no valid answer to the registration: a key or an id is missing.")
            self.registration = answer
            self._public_id = own_id
            self._hub_id = hub_id if isinstance(hub_id, str) else None
            self._disconnect_reason = ""
            self.thrown_out = False
            with self._declare_lock:  # whoever binds a handler now declares it when the hub knows the client's address
                self._remains.private_key = key
                self._declare_all(key, declared, written)
            self._registered_event.set()
        except BaseException:
            self._remains.private_key = self._remains.private_key or key_from_response(seen)
            self._remains.unregister()
            self._forget_registration()
            raise

    def _declare_all(self, key: str, declared: dict[str, Mapping[str, Any]], written: dict[str, Any]) -> None:
        """Tell the hub all about the client at once: what was written ahead, unless that has changed."""
        receiver = self._remains.receiver
        requests: list[Request] = [receiver.declaration(key)] if receiver is not None else []
        current = self._declarations()
        if current != declared:  # another thread has bound a handler
            written = self._written(current)
        requests += [(name, {"private_key": key, "declared": value}) for name, value in written.items()]
        self.hub.call_pipelined(*requests, meanwhile=self.loop.start)  # to start a thread takes about as long
        self.loop.start()
        if receiver is not None:
            receiver.start(key)

    def _declarations(self) -> dict[str, Mapping[str, Any]]:
        """What the client declares, by operation."""
        declared: dict[str, Mapping[str, Any]] = {"declareMetadata": self._metadata} if self._metadata else {}
        if self._remains.receiver is not None:
            declared["declareSubscriptions"] = self._wanted(self._subscriptions)
        return declared

    def _written(self, declared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {name: self.hub.pre_encode(value) for name, value in declared.items()}

    def unregister(self) -> None:
        """
        Unregister from the hub. Does nothing if the client is not registered.

        Raises
        ------
        SAMPHubError
            The hub is gone; the client is not registered afterwards, all the same.
        """
        key = self._remains.private_key
        self._forget_registration()
        if key is not None:
            self.hub.unregister(key)

    def get_private_key(self) -> str | None:
        """Tell the client's private key; None when it is not registered."""
        return self._remains.private_key

    def get_public_id(self) -> str | None:
        """Tell the client's public id; None when it is not registered."""
        return self._public_id

    def require_key(self) -> str:
        """
        Tell the client's private key.

        Raises
        ------
        SAMPClientError
            The client is not registered.
        SAMPHubError
            It was, but the hub is gone.
        """
        key = self._remains.private_key
        if key is None:
            if self._disconnect_reason or self.hub.was_lost:
                raise SAMPHubError(self._disconnect_reason or self.hub.disconnect_reason)
            raise SAMPClientError(self.hub.disconnect_reason or "The client is not registered: call register() first.")
        return key

    def _forget_registration(self) -> None:
        self._remains.private_key = None
        self._public_id = None
        self._hub_id = None
        self._registered_event.clear()

    def _on_hub_lost(self, reason: str) -> None:
        self._forget_registration()
        self._disconnect_reason = reason
        if self.on_disconnected is not None:
            self.on_disconnected(reason)

    # Declarations

    def declare_metadata(self, metadata: Mapping[str, Any] | None = None) -> None:
        """
        Tell the hub about the client (R11).

        Parameters
        ----------
        metadata : mapping, optional
            What is added to what was declared before.
        """
        key = self.require_key()
        with self._declare_lock:
            merged = {**self._metadata, **(metadata or {})}
            self.hub.declare_metadata(key, merged)
            self._metadata = merged

    def declare_subscriptions(self, subscriptions: Mapping[str, Any] | None = None) -> None:
        """
        Tell the hub what the client wants to receive: what handlers are bound to, and more (R12).

        Parameters
        ----------
        subscriptions : mapping, optional
            From MTypes or wildcards to maps of annotations. It replaces what was given here before; without it that
            stays as it was.
        """
        self._handlers_or_raise  # noqa: B018 - raises for a client that is not callable
        key = self.require_key()
        with self._declare_lock:
            given = self._subscriptions if subscriptions is None else dict(subscriptions)
            self.hub.declare_subscriptions(key, self._wanted(given))
            self._subscriptions = given

    def _wanted(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {**_HUB_SUBSCRIPTIONS, **self._handlers_or_raise.subscriptions(), **given}

    @property
    def _handlers_or_raise(self) -> HandlerTable:
        if not self._callable:
            raise SAMPClientError("The client is not callable: it was made with callable=False, and receives nothing.")
        return self._handlers

    def _declare_if_registered(self, declare: bool) -> None:
        if declare and self.is_registered:
            self.declare_subscriptions()
