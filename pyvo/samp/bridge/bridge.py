# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The engine of a bridge at one hub.

Theory of operation
-------------------
The bridge is a client of the hub. It learns about the other clients from the hub's events (`local_clients`) and
announces them to each peer; `peer` describes what follows.

The *outbound* thread handles events and deliveries in order. It may block while it waits for the hub; callbacks of the
event loop must not.

When the hub stops, the bridge stops the transport and starts it again with the next hub. When a link is lost, the
transport connects again.
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
from urllib.parse import quote, unquote

from ..errors import SAMPClientError, SAMPError
from ..process_events import register_after_fork
from ..protocol.values import sanitize_for_display
from ..web_profile.url_permissions import UrlPermissions
from .file_gateway import FileGateway
from .hub_side import HubSide
from .link import PROTOCOLS, BridgeRefusedError, Hello, Link, LinkHandler, LinkState, Transport
from .local_clients import MARKS, ORIGIN, LocalClient, LocalClients, Worker
from .offers import Offers
from .peer import Context, Peer, RemoteClient, to_ascii
from .policy import Policy

log = logging.getLogger(__name__)

#: The reason for the other end when this bridge is stopped, possibly while it starts.
STOPPED_TEXT = "the bridge was stopped at the other end"
#: Seconds between two attempts to connect to the hub.
RECONNECT_INTERVAL = 1.0
#: Seconds to remove everything that belongs to the peers when the bridge closes.
STOP_TIMEOUT = 5.0

#: In the metadata of a bridge: ids of the hubs that it joins to this one, each with the session of the link.
PEERS = "x-samp.bridge.peers"


class BridgeState(Enum):
    """The states of a `Bridge`."""

    #: No hub is running at this end.
    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: The link is lost; the transport tries again.
    LOST = "lost"
    #: The bridge has stopped because of an error.
    FAILED = "failed"
    STOPPED = "stopped"


class Bridge:
    """
    Joins the hub of this machine to others: the clients of each hub appear at the others.

    It does not restrict programs on this machine, but checks everything that comes from the other hubs; see
    :doc:`/samp/security`.

    Parameters
    ----------
    local : str, path-like, SAMPHubServer or None
        The hub: the path or URL of its lockfile, a hub of this process, or None for the usual lockfile (R33).
    transport : Transport
        The connection to the other hubs, for example one end of a `pyvo.samp.bridge.LocalPair`.
    policy : Policy, optional
        The MTypes that may pass, and whether files may. By default `SAFE_MTYPES` and files.
    label : str, optional
        How the other ends show this one: ``TOPCAT (via LABEL)``. By default the name of this machine.
    on_state : callable, optional
        Called with each new `BridgeState` and a text, in a thread of the bridge.
    on_client : callable, optional
        Called with a `RemoteClient` and True when a client registers or changes its name, or False when it unregisters.
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
        self._policy = policy or Policy()
        self._hub = HubSide(local, self._on_hub_lost)
        self._permissions = UrlPermissions()
        self._outbound: Worker
        #: The state, the text that came with it, and the exit status of a command that ends in it.
        self.state = BridgeState.STOPPED
        self.reason = ""
        self.exit_status = 0
        self._label = label or socket.gethostname()
        self.on_state = on_state
        self.on_client = on_client
        self._session = ""
        self._prepare()
        register_after_fork(self)

    def _prepare(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._opening = threading.Lock()  # held while the hub or the transport is started or stopped
        self._is_running = False
        self._peers: dict[str, Peer] = {}
        self._context: Context | None = None

    # For programs

    def start(self) -> None:
        """
        Connect to the hub, and start connecting to the others.

        Raises
        ------
        SAMPHubError
            No hub is running at this end.
        """
        if self._is_running:
            return
        self._outbound = Worker("samp-bridge-outbound")
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
        """Unregister all clients and end all threads, within a few seconds. Further calls do nothing."""
        with self._lock:
            if not self._is_running:
                return
            self._is_running = False
        atexit.unregister(self.stop)
        with self._opening:
            self._close(STOPPED_TEXT)
        self._outbound.stop(STOP_TIMEOUT)
        self._hub.close()
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
        Wait until a peer is connected.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether a peer is connected; False after the timeout.
        """
        with self._changed:
            states = (BridgeState.CONNECTED, BridgeState.STOPPED, BridgeState.FAILED)
            self._changed.wait_for(lambda: self.state in states, timeout)
            return self.state is BridgeState.CONNECTED

    @property
    def clients(self) -> list[RemoteClient]:
        """The clients of the other hubs that are registered here."""
        return [proxy.remote_client() for peer in self._current_peers() for proxy in list(peer.proxies.values())]

    def after_fork_in_child(self) -> None:
        """Forget everything, in the child of a fork: the bridge is the parent's."""
        atexit.unregister(self.stop)
        self.state = BridgeState.STOPPED
        self._prepare()

    # The hub

    def _open(self) -> None:
        """Connect to the hub, and start the transport."""
        self._hub.connect()
        try:
            hub_id = self._hub.bridge_id
            offers = Offers(hub_id, self._make_url, self._permissions, allowed=self._policy.files)
            clients = LocalClients(
                self._hub, self._outbound, self._current_peers, self._check_other_bridge, self._on_disconnected
            )
            files = FileGateway(self._hub, offers, self._link_to)
            self._context = Context(
                self._hub, clients, offers, files, self._policy, self._outbound, self._report_client, self._on_closed
            )
            clients.start(self._metadata())
            self._session = secrets.token_hex(8)
            version = str(import_module("..", __package__).__version__)
            self._set_state(BridgeState.CONNECTING, "")
            hello = Hello(PROTOCOLS, version, hub_id, self._label, self._session)
            self.transport.start(hello, self._accept, self._on_report)
        except BaseException:
            self._close(STOPPED_TEXT)
            raise

    def _close(self, reason: str) -> None:
        """Stop the transport, and remove everything that belongs to the peers."""
        self._hub.stop_monitor()
        self.transport.stop(reason)
        with self._changed:
            self._changed.wait_for(lambda: not self._peers, STOP_TIMEOUT)
            self._peers.clear()
            context, self._context = self._context, None
        if context is not None:
            context.files.close()
            context.clients.stop()
        self._hub.hub.disconnect()

    def _on_hub_lost(self, reason: str) -> None:
        """Note that the connection to the hub was lost; may be called in any thread."""
        if self._is_running:
            self._hub.loop.run_in_worker(self._wait_for_hub, reason)

    def _wait_for_hub(self, reason: str) -> None:
        with self._opening:
            if not self._is_running:
                return
            self._close("the hub at the other end has stopped")
        self._set_state(BridgeState.WAITING, reason)
        self._retry_later()

    def _retry_later(self) -> None:
        self._hub.loop.call_later(RECONNECT_INTERVAL, self._hub.loop.run_in_worker, self._retry)

    def _retry(self) -> None:
        with self._opening:
            if not self._is_running:
                return
            try:
                self._open()
            except (SAMPError, OSError) as error:
                log.debug("No hub is running yet: %s", error)
                self._retry_later()

    def _metadata(self) -> dict[str, Any]:
        with self._lock:
            # Quoted, because both are texts of the peer, which must not look like the entry of another peer
            peers = " ".join(f"{quote(peer.hub_id, '')}:{quote(peer.session, '')}" for peer in self._peers.values())
        label = sanitize_for_display(self.transport.label, 60) or "another hub"
        return {
            "samp.name": to_ascii(f"SAMP bridge to {label}"),
            "samp.description.text": "Joins this hub to another one: the clients of each hub appear at the other.",
            MARKS[0]: to_ascii(label),
            ORIGIN: f"{self._hub.bridge_id}/bridge",
            PEERS: peers,
        }

    def _make_url(self, token: str, name: str) -> str:
        return f"{self._hub.url}/{token}/{name}"

    def _link_to(self, hub: str) -> Link | None:
        with self._lock:
            peer = self._peers.get(hub)
        return peer.link if peer is not None else None

    # Peers

    def _current_peers(self) -> list[Peer]:
        with self._lock:
            return list(self._peers.values())

    def _accept(self, link: Link) -> LinkHandler:
        """Accept a link, or raise `BridgeRefusedError`; see `Accept`."""
        hub_id = link.peer.hub
        with self._lock:
            context = self._context
            if context is None:
                raise BridgeRefusedError("The bridge is being stopped", 0)
            if hub_id == context.offers.hub:
                raise BridgeRefusedError("Both ends of the bridge are connected to the same hub.")
            others = [client for client in context.clients.all() if hub_id in _peers_of(client)]
            if hub_id in self._peers or others:
                name = others[0].metadata.get("samp.name", "") if others else "this one"
                raise BridgeRefusedError(
                    f"Another bridge already joins these two hubs ({sanitize_for_display(str(name))})."
                )
            peer = self._peers[hub_id] = Peer(link, context, self._session)
        self._outbound.put(lambda: self._welcome(peer, context.clients))
        return peer

    def _welcome(self, peer: Peer, clients: LocalClients) -> None:
        clients.declare(self._metadata())
        for client in clients.all():
            if client.is_bridged:
                peer.announce(client)
        self._set_state(BridgeState.CONNECTED, f"Connected to {peer.label}")
        for client in clients.all():
            self._check_other_bridge(client)

    def _check_other_bridge(self, client: LocalClient) -> None:
        """Close a link if another bridge has joined the same hubs at the same moment, and its session is lower."""
        for hub_id, session in _peers_of(client).items():
            with self._lock:
                peer = self._peers.get(hub_id)
            if peer is not None and session < peer.session:
                peer.link.close("Another bridge has joined these two hubs at the same moment.", 1)

    def _report_client(self, client: RemoteClient, is_present: bool) -> None:
        if self.on_client is not None:
            self.on_client(client, is_present)

    def _on_closed(self, peer: Peer, reason: str) -> None:
        """Remove a peer whose clients have been unregistered."""
        with self._changed:
            if self._peers.get(peer.hub_id) is peer:
                del self._peers[peer.hub_id]
            self._changed.notify_all()
            context = self._context
            if self._peers or not self._is_running or context is None:
                return
        context.clients.declare(self._metadata())
        if self.state is BridgeState.CONNECTED:
            self._set_state(BridgeState.LOST, reason)

    # State

    def _on_disconnected(self, reason: str) -> None:
        self._set_state(BridgeState.FAILED, f"The hub has disconnected the bridge: {reason}", 1)

    def _on_report(self, state: LinkState, text: str, status: int) -> None:
        """Adopt the state of the transport; see `Report`."""
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
    """Return the ids of the hubs that a bridge joins to this one, and the session of each link."""
    text = client.metadata.get(PEERS)
    pairs = [pair.partition(":") for pair in text.split()[:1000]] if isinstance(text, str) else []
    return {unquote(hub_id): unquote(session) for hub_id, _, session in pairs}
