# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The engine of a bridge at one hub.

Theory of operation
-------------------
The bridge is a client of the hub. From the hub's events it knows the other clients, and tells each peer of them; see
`peer` for what happens then. A client is announced when it has declared metadata, or has none after `GRACE` seconds:
those of a client of another bridge bear a mark, and such a client is never bridged again, so that no message can go
round in a circle. A client that unregisters is withdrawn after `GONE_DELAY` seconds, because its last message may come
later than the event.

The *outbound* thread handles events and deliveries in order. It may wait for the hub, which a callback of the event
loop must not do.

When the hub is gone the transport is stopped, and started again with the next hub. When a peer is gone, it is the
transport that connects again.
"""

from __future__ import annotations

import atexit
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from typing import Any

from ..errors import SAMPClientError, SAMPError
from ..protocol import ok_response
from ..protocol.values import sanitize_for_display
from ..transport.server_connection import DeferredResponse
from .file_gateway import FileGateway
from .hub_side import Delivery, HubSide, Registration, quietly
from .link import PROTOCOLS, BridgeRefusedError, Hello, Link, LinkHandler, LinkState, Transport
from .offers import Offers, RejectedError
from .peer import MARKS, ORIGIN, LocalClient, Peer, RemoteClient, Worker, is_marked
from .policy import Policy

__all__ = ["Bridge", "BridgeState"]

log = logging.getLogger(__name__)

#: Seconds that a client has to declare metadata.
GRACE = 2.0
GONE_DELAY = 0.5
#: Seconds between two attempts to connect to the hub.
RECONNECT_INTERVAL = 1.0
#: Seconds in which everything of the peers has to be removed at the end.
STOP_TIMEOUT = 5.0

#: In the metadata of a bridge: ids of the hubs that it joins to this one, each with the session of the link.
PEERS = "x-samp.bridge.peers"
_SUBSCRIPTIONS: dict[str, Any] = {"samp.hub.event.*": {}, "samp.hub.disconnect": {}, "samp.app.ping": {}}


class BridgeState(Enum):
    """The states of a `Bridge`."""

    #: There is no hub at this end.
    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: The link is lost; the transport tries again.
    LOST = "lost"
    #: The bridge has given up.
    FAILED = "failed"
    STOPPED = "stopped"


class Bridge:
    """
    Joins the hub of this machine to others: the clients of each hub appear at the others.

    It has no security of its own towards programs of this machine, but checks everything that comes from the other
    hubs; see :doc:`/samp/security`.

    Parameters
    ----------
    local : str, path-like, SAMPHubServer or None
        The hub: the path or URL of its lockfile, a hub of this process, or None for the usual lockfile (R33).
    transport : Transport
        The way to the other hubs, such as an end of a `pyvo.samp.bridge.LocalPair`.
    policy : Policy, optional
        Which MTypes and whether files may pass. By default `SAFE_MTYPES` and files.
    label : str, optional
        How the other ends show this one: ``TOPCAT (via LABEL)``. By default the name of this machine.
    on_state : callable, optional
        Called with each new `BridgeState` and a text, in a thread of the bridge.
    on_client : callable, optional
        Called with a `RemoteClient` and whether it is there, when one comes, changes its name, or goes.
    """

    def __init__(
        self,
        local: Any = None,
        transport: Transport | None = None,
        policy: Policy | None = None,
        *,
        label: str | None = None,
        on_state: Callable[[BridgeState, str], object] | None = None,
        on_client: Callable[[RemoteClient, bool], object] | None = None,
    ) -> None:
        if transport is None:
            raise SAMPClientError("A bridge needs a transport")
        self.transport = transport
        self.policy = policy or Policy()
        self.hub = HubSide(local, self._on_hub_lost)
        self.offers: Offers
        self.files: FileGateway
        self.outbound: Worker
        #: The state, the text that came with it, and the exit status of a command that ends in it.
        self.state = BridgeState.STOPPED
        self.reason = ""
        self.exit_status = 0
        self._label = label or socket.gethostname()
        self.on_state = on_state
        self.on_client = on_client
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._opening = threading.Lock()  # held while the hub or the transport is started or stopped
        self._is_running = False
        self._peers: dict[str, Peer] = {}
        self._local: dict[str, LocalClient] = {}
        self._own: Registration | None = None
        self._session = ""

    # For programs

    def start(self) -> None:
        """
        Connect to the hub, and begin to connect to the others.

        Raises
        ------
        SAMPHubError
            No hub is running at this end.
        """
        if self._is_running:
            return
        self.outbound = Worker("samp-bridge-outbound")
        self.exit_status = 0
        self._is_running = True
        try:
            with self._opening:
                self._open()
        except BaseException:
            self.stop()
            raise
        atexit.register(self.stop)

    def stop(self) -> None:
        """Unregister everything, and end all threads. It may be repeated, and takes some seconds at most."""
        with self._lock:
            if not self._is_running:
                return
            self._is_running = False
        atexit.unregister(self.stop)
        with self._opening:
            self._close("the bridge was stopped at the other end")
        self.outbound.stop(STOP_TIMEOUT)
        self.hub.close()
        if self.state is not BridgeState.FAILED:
            self._set_state(BridgeState.STOPPED, "")

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until the bridge is stopped or has failed.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            False after the timeout.
        """
        with self._changed:
            ended = (BridgeState.STOPPED, BridgeState.FAILED)
            return self._changed.wait_for(lambda: self.state in ended, timeout)

    def wait_connected(self, timeout: float | None = None) -> bool:
        """
        Wait until there is a peer.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether there is one.
        """
        with self._changed:
            states = (BridgeState.CONNECTED, BridgeState.STOPPED, BridgeState.FAILED)
            self._changed.wait_for(lambda: self.state in states, timeout)
            return self.state is BridgeState.CONNECTED

    @property
    def clients(self) -> list[RemoteClient]:
        """The clients of the other hubs that are registered here."""
        return [proxy.remote_client() for peer in self._current_peers() for proxy in list(peer.proxies.values())]

    # The hub

    def _open(self) -> None:
        """Connect to the hub, and start the transport."""
        self.hub.connect()
        try:
            self.offers = Offers(self.hub.bridge_id, self._make_url, allowed=self.policy.files)
            self.files = FileGateway(self.hub, self.offers, self._link_to)
            self._own = self.hub.register(self._metadata(), _SUBSCRIPTIONS, self)
            self.hub.monitor(self._own)
            self.outbound.put(self._list_clients)
            self._session = secrets.token_hex(8)
            version = str(import_module("..", __package__).__version__)
            hello = Hello(PROTOCOLS, version, self.hub.bridge_id, self._label, self._session)
            self._set_state(BridgeState.CONNECTING, "")
            self.transport.start(hello, self._accept, self._on_report)
        except BaseException:
            self._close("")
            raise

    def _close(self, reason: str) -> None:
        """Stop the transport, and remove everything of the peers."""
        self.hub.stop_monitor()
        self.transport.stop(reason)
        with self._changed:
            self._changed.wait_for(lambda: not self._peers, STOP_TIMEOUT)
            self._peers.clear()
            self._local.clear()
            own, self._own = self._own, None
        if own is not None:
            self.files.close()
            self.hub.unregister(own)
        self.hub.hub.disconnect()

    def _on_hub_lost(self, reason: str) -> None:
        """Note that the hub is gone; called in any thread."""
        if self._is_running:
            self.hub.loop.run_in_worker(self._wait_for_hub, reason)

    def _wait_for_hub(self, reason: str) -> None:
        with self._opening:
            if not self._is_running:
                return
            self._close("the hub there has ended")
        self._set_state(BridgeState.WAITING, reason)
        self._retry_later()

    def _retry_later(self) -> None:
        self.hub.loop.call_later(RECONNECT_INTERVAL, self.hub.loop.run_in_worker, self._retry)

    def _retry(self) -> None:
        with self._opening:
            if not self._is_running:
                return
            try:
                self._open()
            except (SAMPError, OSError) as error:
                log.debug("There is no hub yet: %s", error)
                self._retry_later()

    def _metadata(self) -> dict[str, Any]:
        with self._lock:
            peers = " ".join(f"{peer.hub_id}:{peer.session}" for peer in self._peers.values())
        label = sanitize_for_display(self.transport.label, 60) or "another hub"
        return {
            "samp.name": _ascii(f"SAMP bridge to {label}"),
            "samp.description.text": "Joins this hub to another one: the clients of each appear at the other.",
            MARKS[0]: _ascii(label),
            ORIGIN: f"{self.hub.bridge_id}/bridge",
            PEERS: peers,
        }

    def _make_url(self, token: str, name: str) -> str:
        return f"{self.hub.url}/{token}/{name}"

    def _link_to(self, hub: str) -> Link | None:
        with self._lock:
            peer = self._peers.get(hub)
        return peer.link if peer is not None else None

    # The clients of the hub

    def receive(self, delivery: Delivery) -> DeferredResponse | None:
        """Handle events of the hub, and pings; see `Receiver`."""
        self.outbound.put(lambda: self._on_delivery(delivery))
        return None

    def _on_delivery(self, delivery: Delivery) -> None:
        own = self._own
        if own is None or delivery.name == "response":
            return
        mtype, params = delivery.body["samp.mtype"], delivery.body["samp.params"]
        if delivery.name == "call":
            quietly(self.hub.hub.reply, own.key, delivery.msg_id, ok_response())
        elif mtype == "samp.hub.disconnect" and delivery.sender == self.hub.hub_id:
            reason = sanitize_for_display(str(params.get("reason") or "no reason was given"))
            self._set_state(BridgeState.FAILED, f"The hub has disconnected the bridge: {reason}", 1)
        elif mtype.startswith("samp.hub.event.") and delivery.sender == self.hub.hub_id:
            self._on_event(mtype.rpartition(".")[2], str(params.get("id", "")), params)

    def _on_event(self, name: str, client_id: str, params: dict[str, Any]) -> None:
        if name == "unregister":
            for peer in self._current_peers():
                peer.on_unregistered(client_id)
            self.hub.loop.call_later(GONE_DELAY, self.outbound.put, lambda: self._withdraw(client_id))
        elif client_id and name in {"register", "metadata", "subscriptions"}:
            client = self._client(client_id)
            value = params.get(name)
            if name != "register" and isinstance(value, dict):
                setattr(client, name, value)
            self._update(client)

    def _client(self, client_id: str) -> LocalClient:
        """Return what is known of a client, and look at one again later that has declared nothing."""
        with self._lock:
            client = self._local.get(client_id)
            if client is None:
                client = self._local[client_id] = LocalClient(client_id)
                announce = lambda: self._update(client, has_waited=True)  # noqa: E731
                self.hub.loop.call_later(GRACE, self.outbound.put, announce)
        return client

    def _list_clients(self) -> None:
        """Ask the hub for the clients that were there before the bridge."""
        own = self._own
        if own is None:
            return
        try:
            for client_id in self.hub.hub.get_registered_clients(own.key):
                self._ask_about(own, client_id)
        except SAMPError as error:
            log.warning("The hub does not list its clients: %s", error)

    def _ask_about(self, own: Registration, client_id: str) -> bool:
        """Ask the hub for what a client has declared; return False if it does not know the client."""
        try:
            metadata = self.hub.hub.get_metadata(own.key, client_id)
            subscriptions = self.hub.hub.get_subscriptions(own.key, client_id)
        except SAMPError as error:
            log.debug("A client has gone: %s", error)
            return False
        client = self._client(client_id)
        client.metadata, client.subscriptions = metadata, subscriptions
        self._update(client)
        return True

    def _update(self, client: LocalClient, *, has_waited: bool = False) -> None:
        """Tell the peers of a client; in the outbound thread."""
        own_ids = {registration.client_id for registration in list(self.hub.registrations.values())}
        with self._lock:
            if self._local.get(client.client_id) is not client or client.client_id in {*own_ids, self.hub.hub_id}:
                return
        peers = self._current_peers()
        if is_marked(client.metadata):
            self._check_other_bridge(client)
            if client.is_bridged:
                client.is_bridged = False
                for peer in peers:
                    peer.withdraw(client.client_id)
        elif client.metadata or has_waited or client.is_bridged:
            client.is_bridged = True
            for peer in peers:
                peer.announce(client)

    def _withdraw(self, client_id: str) -> None:
        with self._lock:
            self._local.pop(client_id, None)
        for peer in self._current_peers():
            peer.withdraw(client_id)

    def local_client(self, client_id: str) -> LocalClient | None:
        """Return a client of the hub that the peers know; see `Engine`."""
        with self._lock:
            client = self._local.get(client_id)
        return client if client is not None and client.is_bridged else None

    def resolve_sender(self, client_id: str) -> LocalClient | None:
        """Return a client that has sent a message, even if its events are still to come; see `Engine`."""
        client = self.local_client(client_id)
        own = self._own
        if client is None and own is not None and self._ask_about(own, client_id):
            client = self._client(client_id)
            self._update(client, has_waited=True)
            if not client.is_bridged:
                raise RejectedError("Clients of a bridge are not bridged again")
        return client

    # Peers

    def _current_peers(self) -> list[Peer]:
        with self._lock:
            return list(self._peers.values())

    def _accept(self, link: Link) -> LinkHandler:
        """Take a link, or raise `BridgeRefusedError`; see `Accept`."""
        hub_id = link.peer.hub
        if hub_id == self.hub.bridge_id:
            raise BridgeRefusedError("Both ends of the bridge are at the same hub: there is nothing to join.")
        with self._lock:
            if self._own is None:
                raise BridgeRefusedError("The bridge is being stopped", 0)
            others = [client for client in self._local.values() if hub_id in _peers_of(client)]
            if hub_id in self._peers or others:
                name = others[0].metadata.get("samp.name", "") if others else "this one"
                raise BridgeRefusedError(
                    f"These two hubs are joined by another bridge already ({sanitize_for_display(str(name))})."
                )
            peer = self._peers[hub_id] = Peer(link, self, self._session)
        self.outbound.put(lambda: self._welcome(peer))
        return peer

    def _welcome(self, peer: Peer) -> None:
        self._declare_peers()
        with self._lock:
            clients = [client for client in self._local.values() if client.is_bridged]
            others = [client for client in self._local.values() if is_marked(client.metadata)]
        for client in clients:
            peer.announce(client)
        self._set_state(BridgeState.CONNECTED, f"Connected to {peer.label}")
        for other in others:
            self._check_other_bridge(other)

    def _declare_peers(self) -> None:
        own = self._own
        if own is not None:
            quietly(self.hub.declare, own, self._metadata())

    def _check_other_bridge(self, client: LocalClient) -> None:
        """Close a link if another bridge has joined the same hubs at the same moment, and its session is lower."""
        for hub_id, session in _peers_of(client).items():
            with self._lock:
                peer = self._peers.get(hub_id)
            if peer is not None and session < peer.session:
                peer.link.close("Another bridge has joined these two hubs at the same moment.", 1)

    def report_client(self, client: RemoteClient, *, is_present: bool) -> None:
        """Tell the program of a client of a peer; see `Engine`."""
        if self.on_client is not None:
            self.on_client(client, is_present)

    def on_peer_closed(self, peer: Peer, reason: str) -> None:
        """Forget a peer; see `Engine`."""
        with self._changed:
            if self._peers.get(peer.hub_id) is peer:
                del self._peers[peer.hub_id]
            self._changed.notify_all()
            if self._peers or not self._is_running:
                return
        self._declare_peers()
        if self.state is BridgeState.CONNECTED:
            self._set_state(BridgeState.LOST, reason)

    # State

    def _on_report(self, state: LinkState, text: str, status: int) -> None:
        """Take over the state of the transport; see `Report`."""
        if self._is_running:
            self._set_state(BridgeState(state.value), text, status)

    def _set_state(self, state: BridgeState, text: str, status: int = 0) -> None:
        with self._changed:
            if self.state is BridgeState.FAILED and state is not BridgeState.CONNECTING:
                return
            is_same = (state, text) == (self.state, self.reason)
            self.state, self.reason, self.exit_status = state, text, status
            self._changed.notify_all()
        if self.on_state is not None and not is_same:
            self.on_state(state, text)


def _peers_of(client: LocalClient) -> dict[str, str]:
    """Return the ids of the hubs that a bridge joins, with the sessions of the links."""
    text = client.metadata.get(PEERS)
    return dict(pair.partition(":")[::2] for pair in text.split()[:1000]) if isinstance(text, str) else {}


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
