# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The clients of the hub, as its events describe them, and which of them are announced to the peers.

A client is announced to the peers when it has declared metadata, or after `GRACE` seconds without any. The clients of
other bridges have a mark in their metadata. They are not bridged again, so that no message can circulate. A client that
unregisters is withdrawn after `GONE_DELAY` seconds, because its last message may arrive after the event.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ..errors import SAMPError
from ..protocol import ok_response
from ..protocol.values import sanitize_for_display
from ..transport.event_loop import join_thread
from .hub_side import Delivery, HubSide, Registration, quietly
from .offers import RejectedError

log = logging.getLogger(__name__)

#: The keys of metadata that mark the client of a bridge: JSAMP's, and ours.
MARKS = ("bridge.proxy.source", "x-samp.bridge.origin")
ORIGIN = MARKS[1]
#: Seconds that a client has to declare metadata.
GRACE = 2.0
GONE_DELAY = 0.5

_SUBSCRIPTIONS: dict[str, Any] = {"samp.hub.event.*": {}, "samp.hub.disconnect": {}, "samp.app.ping": {}}


class LocalClient:
    """A client of this hub."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.metadata: dict[str, Any] = {}
        self.subscriptions: dict[str, Any] = {}
        #: Whether it is announced to the peers.
        self.is_bridged = False

    @property
    def is_marked(self) -> bool:
        """Whether the client belongs to a bridge."""
        return any(mark in self.metadata for mark in MARKS)


class Listener(Protocol):
    """Receives the events of the clients: a peer. The methods are called in the outbound thread."""

    def announce(self, client: LocalClient) -> None:
        """A client has registered, or its declarations have changed."""

    def withdraw(self, client_id: str) -> None:
        """A client has unregistered, or is no longer bridged."""

    def on_unregistered(self, local_id: str) -> None:
        """A client has unregistered; it may belong to the bridge."""


class Worker:
    """A thread that runs tasks in order."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, task: Callable[[], object]) -> None:
        """Queue a task."""
        self._tasks.put(task)

    def stop(self, timeout: float) -> None:
        """End the thread after the queued tasks."""
        self._tasks.put(None)
        join_thread(self._thread, timeout)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                log.exception("A task of the bridge failed")
            del task  # an idle thread must not keep what the task refers to


class LocalClients:
    """
    The clients of a hub. The bridge is one of them, and gets the events of the others.

    Parameters
    ----------
    hub : HubSide
        The hub.
    outbound : Worker
        The thread that handles events and deliveries; it may wait for the hub.
    listeners : callable
        Returns the peers to which clients are announced.
    on_other_bridge : callable
        Called with a client of another bridge when it has declared metadata.
    on_disconnected : callable
        Called with the reason when the hub has disconnected the bridge.
    """

    def __init__(
        self,
        hub: HubSide,
        outbound: Worker,
        listeners: Callable[[], Iterable[Listener]],
        on_other_bridge: Callable[[LocalClient], object],
        on_disconnected: Callable[[str], object],
    ) -> None:
        self._hub, self._outbound, self._listeners = hub, outbound, listeners
        self._on_other_bridge, self._on_disconnected = on_other_bridge, on_disconnected
        self._lock = threading.Lock()
        self._clients: dict[str, LocalClient] = {}
        self._own: Registration | None = None

    def start(self, metadata: Mapping[str, Any]) -> None:
        """Register the bridge, and wait until the clients that registered before, such as other bridges, are known."""
        self._own = own = self._hub.register(metadata, _SUBSCRIPTIONS, self)
        self._hub.monitor(own)
        is_listed = threading.Event()

        def list_clients() -> None:
            try:
                self._list(own)
            finally:
                is_listed.set()

        self._outbound.put(list_clients)
        is_listed.wait()

    def stop(self) -> None:
        """Unregister the bridge, and remove all clients. Further calls do nothing."""
        own, self._own = self._own, None
        with self._lock:
            self._clients.clear()
        if own is not None:
            self._hub.unregister(own)

    def declare(self, metadata: Mapping[str, Any]) -> None:
        """Declare other metadata of the bridge."""
        own = self._own
        if own is not None:
            quietly(self._hub.declare, own, metadata)

    def all(self) -> list[LocalClient]:
        """Return all clients, including those that are not announced to the peers."""
        with self._lock:
            return list(self._clients.values())

    def get(self, client_id: str) -> LocalClient | None:
        """Return a client that is announced to the peers, or None."""
        with self._lock:
            client = self._clients.get(client_id)
        return client if client is not None and client.is_bridged else None

    def resolve_sender(self, client_id: str) -> LocalClient | None:
        """
        Return a client that has sent a message, even if its events have not arrived; in the outbound thread.

        Return None if the hub no longer knows the client. Raise `RejectedError` for a client of a bridge.
        """
        client = self.get(client_id)
        own = self._own
        if client is None and own is not None and self._ask_about(own, client_id):
            client = self._find(client_id)
            self._update(client, has_waited=True)
            if not client.is_bridged:
                raise RejectedError("Clients of a bridge are not bridged again")
        return client

    # Events of the hub

    def receive(self, delivery: Delivery) -> None:
        """Queue what the hub delivers to the bridge; see `Receiver`."""
        self._outbound.put(lambda: self._handle(delivery))

    def _handle(self, delivery: Delivery) -> None:
        own = self._own
        if own is None or delivery.name == "response":
            return
        mtype, params = delivery.body["samp.mtype"], delivery.body["samp.params"]
        if delivery.name == "call":
            quietly(self._hub.hub.reply, own.key, delivery.msg_id, ok_response())
        elif delivery.sender != self._hub.hub_id:
            log.debug("A message to the bridge is ignored")
        elif mtype == "samp.hub.disconnect":
            self._on_disconnected(sanitize_for_display(str(params.get("reason") or "no reason was given")))
        else:
            self._on_event(mtype.rpartition(".")[2], str(params.get("id", "")), params)

    def _on_event(self, name: str, client_id: str, params: Mapping[str, Any]) -> None:
        if name == "unregister":
            for listener in self._listeners():
                listener.on_unregistered(client_id)
            self._hub.loop.call_later(GONE_DELAY, self._outbound.put, lambda: self._remove(client_id))
        elif client_id and name in {"register", "metadata", "subscriptions"}:
            client = self._find(client_id)
            value = params.get(name)
            if isinstance(value, dict):
                setattr(client, name, value)
            self._update(client)

    def _find(self, client_id: str) -> LocalClient:
        """Return a client; a new one is announced later even if it declares no metadata."""
        with self._lock:
            client = self._clients.get(client_id)
            if client is None:
                client = self._clients[client_id] = LocalClient(client_id)
                announce = lambda: self._update(client, has_waited=True)  # noqa: E731
                self._hub.loop.call_later(GRACE, self._outbound.put, announce)
        return client

    def _list(self, own: Registration) -> None:
        """Request the clients that registered before the bridge."""
        try:
            for client_id in self._hub.hub.get_registered_clients(own.key):
                self._ask_about(own, client_id)
        except SAMPError as error:
            log.warning("The hub does not list its clients: %s", error)

    def _ask_about(self, own: Registration, client_id: str) -> bool:
        """Request a client's metadata and subscriptions; return False if the hub does not know the client."""
        try:
            metadata = self._hub.hub.get_metadata(own.key, client_id)
            subscriptions = self._hub.hub.get_subscriptions(own.key, client_id)
        except SAMPError as error:
            log.debug("A client has unregistered: %s", error)
            return False
        client = self._find(client_id)
        client.metadata, client.subscriptions = metadata, subscriptions
        self._update(client)
        return True

    def _update(self, client: LocalClient, *, has_waited: bool = False) -> None:
        """Announce a client to the peers, or withdraw it; in the outbound thread."""
        own_ids = {registration.client_id for registration in list(self._hub.registrations.values())}
        with self._lock:
            is_known = self._clients.get(client.client_id) is client
        if not is_known or client.client_id in {*own_ids, self._hub.hub_id}:
            return
        if client.is_marked:
            self._on_other_bridge(client)
            if client.is_bridged:
                client.is_bridged = False
                for listener in self._listeners():
                    listener.withdraw(client.client_id)
        elif client.metadata or has_waited or client.is_bridged:
            client.is_bridged = True
            for listener in self._listeners():
                listener.announce(client)

    def _remove(self, client_id: str) -> None:
        with self._lock:
            self._clients.pop(client_id, None)
        for listener in self._listeners():
            listener.withdraw(client_id)
