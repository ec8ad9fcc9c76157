# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The connection of a bridge to its hub: any number of registrations, which share a connection, a server and a thread.

The server gets the deliveries of the hub for all registrations (R32), and serves the files of peers to the programs of
this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ..client.hub_monitor import HubMonitor
from ..client.hub_proxy import SAMPHubProxy
from ..errors import SAMPError, SAMPHubError, SAMPProxyError
from ..lockfile import LOCKURL, lockfile_source, read_lockfile
from ..process_events import register_after_fork
from ..protocol import check_message, check_response
from ..transport.event_loop import EventLoop
from ..transport.http11 import HTTPRequest, Response
from ..transport.server import XMLRPCServer
from ..transport.server_connection import DeferredResponse, ServerConnection
from ..transport.urls import host_filter
from ..transport.xmlrpc_handler import XMLRPCHandler
from ..transport.xmlrpc_writer import PreEncoded, write_call, write_value

log = logging.getLogger(__name__)

#: Seconds to wait for the hub's response to an unregister.
UNREGISTER_TIMEOUT = 2.0

Respond = Callable[[HTTPRequest, ServerConnection], Response | None]


class Delivery(NamedTuple):
    """A message or response that the hub delivers to a registration."""

    #: ``notification``, ``call`` or ``response``.
    name: str
    sender: str
    #: For a response its msg-tag, for a notification empty.
    msg_id: str
    body: dict[str, Any]
    #: Bytes of the request that delivered it.
    size: int


class Receiver(Protocol):
    """Receives the deliveries for a registration."""

    def receive(self, delivery: Delivery) -> DeferredResponse | None:
        """Receive a delivery, in the thread of the event loop. A deferred response acknowledges it later."""


class Registration(NamedTuple):
    """A client of the hub."""

    key: str
    client_id: str
    receiver: Receiver


class HubSide:
    """
    The connection to a hub, and the registrations there.

    Parameters
    ----------
    local : str, path-like, LocalHub or None
        The lockfile as a path or URL, a hub of this process, or None for the usual lockfile (R33).
    on_lost : callable
        Called with the reason when the connection to the hub is lost, in any thread.
    """

    def __init__(self, local: Any, on_lost: Callable[[str], object]) -> None:
        self.hub = SAMPHubProxy()
        self.hub.on_lost = on_lost
        #: Responds to GET and HEAD.
        self.respond: Respond = lambda _request, _connection: Response(404, b"There is no such file here\n")
        self.registrations: dict[str, Registration] = {}
        self._local = local
        #: The id of the hub as a client.
        self.hub_id = ""
        self._monitor: HubMonitor | None = None
        self._loop: EventLoop | None = None
        self._server: XMLRPCServer | None = None
        register_after_fork(self)

    @property
    def loop(self) -> EventLoop:
        """The event loop, after `connect`."""
        assert self._loop is not None
        return self._loop

    @property
    def url(self) -> str:
        """The URL of the server, without a slash at the end."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def server(self) -> XMLRPCServer:
        """The server, after `connect`."""
        assert self._server is not None
        return self._server

    @property
    def bridge_id(self) -> str:
        """The id of the hub, the same for each of its bridges. It does not reveal the hub's secret."""
        secret = self.hub.lockfile.get("samp.secret", "")
        return hmac.digest(secret.encode(), b"pyvo-samp bridge", hashlib.sha256)[:16].hex()

    def connect(self) -> None:
        """Connect to the hub; raise `SAMPHubError` if none is running."""
        self.registrations.clear()
        hub = self._local if hasattr(self._local, "is_running") else None
        params = None
        if hub is None:
            source = lockfile_source() if self._local is None else str(self._local).removeprefix(LOCKURL)
            params = read_lockfile(source)
        self.hub.connect(hub, params)
        if self._loop is None:
            self._loop = EventLoop("samp-bridge")
            self._server = XMLRPCServer(("127.0.0.1", 0), self._loop, _Handler(self))
            self._server.start()
            self._loop.start()

    def register(
        self, metadata: Mapping[str, Any], subscriptions: Mapping[str, Any], receiver: Receiver
    ) -> Registration:
        """Register a client. The maps have been checked; raise `SAMPError` if the hub rejects them."""
        response: dict[str, Any] = dict(self.hub.register(self.hub.lockfile.get("samp.secret", "")))
        key, client_id, hub_id = (response.get(f"samp.{part}", "") for part in ("private-key", "self-id", "hub-id"))
        if not all(isinstance(text, str) and text for text in (key, client_id)):
            raise SAMPHubError("The hub's response to the registration is not valid: a key or an id is missing.")
        registration = Registration(key, client_id, receiver)
        self.hub_id = hub_id
        self.registrations[key] = registration
        try:
            self.hub.set_xmlrpc_callback(key, self.url + "/")
            self.declare(registration, metadata, subscriptions)
        except BaseException:
            self.unregister(registration)
            raise
        return registration

    def declare(
        self,
        registration: Registration,
        metadata: Mapping[str, Any] | None = None,
        subscriptions: Mapping[str, Any] | None = None,
    ) -> None:
        """Declare the metadata and the subscriptions that are given."""
        if metadata is not None:
            self.hub.declare_metadata(registration.key, encoded(metadata))
        if subscriptions is not None:
            self.hub.declare_subscriptions(registration.key, encoded(subscriptions))

    def unregister(self, registration: Registration) -> None:
        """Unregister a client; errors are only logged."""
        if registration.key in self.registrations:
            self.hub.unregister_quietly(registration.key, UNREGISTER_TIMEOUT)
            self.registrations.pop(registration.key, None)  # only now: the hub may deliver messages until here

    def monitor(self, registration: Registration) -> None:
        """Check regularly that the hub is running and knows this client."""
        ping = write_call(f"{self.hub.prefix}.getMetadata", [registration.key, registration.client_id])
        self._monitor = HubMonitor(self.loop, self.hub.url, lambda: ping, self.hub.mark_lost)

    def stop_monitor(self) -> None:
        """Stop the checks of `monitor`."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.stop()

    def close(self) -> None:
        """Unregister everything, and end the connection, the server and the thread."""
        self.stop_monitor()
        for registration in list(self.registrations.values()):
            self.unregister(registration)
        self.hub.disconnect()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon(self.server.stop)
            loop.stop()

    def after_fork_in_child(self) -> None:
        """Forget the registrations, in the child of a fork: they are the parent's."""
        self.registrations.clear()
        self._monitor = None
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.after_fork_in_child()

    def deliver(self, key: str, name: str, sender: str, msg_id: str, body: dict[str, Any], size: int) -> Any:
        """Pass a delivery to the registration with this key; runs in the loop's thread."""
        # The keys are random, so the time of a dictionary lookup reveals nothing about the others
        registration = self.registrations.get(key)
        if registration is None:
            raise SAMPProxyError(1, "This is not the private key of the client")
        body = check_response(body) if name == "response" else check_message(body)
        if name == "notification" and sender == self.hub_id and body["samp.mtype"] == "samp.hub.event.shutdown":
            self.loop.run_in_worker(self.hub.mark_lost, "The hub has shut down.")
        return registration.receiver.receive(Delivery(name, sender, msg_id, body, size)) or ""


class _Handler(XMLRPCHandler):
    """The operations that the hub calls, and the files."""

    def __init__(self, side: HubSide) -> None:
        super().__init__(
            {
                "samp.client.receiveNotification": self.receive_notification,
                "samp.client.receiveCall": self.receive_call,
                "samp.client.receiveResponse": self.receive_response,
            }
        )
        self._side = side
        self.is_allowed_host = host_filter("127.0.0.1")

    def handle_non_post(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Serve files."""
        return self._side.respond(request, connection)

    def receive_notification(self, private_key: str, sender_id: str, message: dict[str, Any]) -> Any:
        return self._deliver("notification", private_key, sender_id, "", message)

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: dict[str, Any]) -> Any:
        return self._deliver("call", private_key, sender_id, msg_id, message)

    def receive_response(self, private_key: str, responder_id: str, msg_tag: str, response: dict[str, Any]) -> Any:
        return self._deliver("response", private_key, responder_id, msg_tag, response)

    def _deliver(self, name: str, key: str, sender: str, msg_id: str, body: dict[str, Any]) -> Any:
        assert self.current_call is not None
        return self._side.deliver(key, name, sender, msg_id, body, len(self.current_call.request.body))


def encoded(value: Mapping[str, Any]) -> Any:
    """Encode a SAMP value for the hub; raise `SAMPTypeError` or `SAMPValueError` if it is invalid (R1)."""
    return PreEncoded(write_value(dict(value)))


def quietly(call: Callable[..., object], *args: Any) -> SAMPError | None:
    """Call the hub; log an error at debug level, and return it."""
    try:
        call(*args)
    except SAMPError as error:
        log.debug("The hub did not accept %s: %s", getattr(call, "__name__", call), error)
        return error
    return None
