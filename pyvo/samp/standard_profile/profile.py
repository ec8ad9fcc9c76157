# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The server of the Standard Profile, for programs that can read the lockfile (R31).

It is an adapter between XML-RPC over HTTP and the broker: it adds the methods and the checks that only this profile
has. Deliveries go the other way, through each client's `CallbackSender`.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from typing import Any

from ..broker import Broker, Client
from ..broker.operations import HubOperations
from ..errors import SAMPProxyError
from ..protocol import SAMPValue
from ..transport.event_loop import EventLoop
from ..transport.server import XMLRPCServer
from ..transport.urls import host_filter, make_http_url, resolve_callback_url
from .callback_sender import CallbackSender
from .liveness import LivenessChecker

PROFILE = "standard"


class StandardProfile:
    """
    The server of the Standard Profile.

    A client must know the secret to register (R7). Port 0 selects a free port. The constructor raises `OSError` if it
    cannot listen at the address.
    """

    def __init__(
        self, broker: Broker, loop: EventLoop, secret: str, address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self._broker = broker
        self._loop = loop
        self._secret = secret
        self._liveness = LivenessChecker(loop)
        self._queues: set[CallbackSender] = set()
        self._all_delivered: threading.Event | None = None
        self._host = "127.0.0.1" if address[0] == "0.0.0.0" else "::1" if address[0] == "::" else address[0]
        self.server = XMLRPCServer(address, loop, _StandardOperations(self, broker, loop, address[0]))
        self.port = self.server.port

    @property
    def url(self) -> str:
        """URL of the server: ``samp.hub.xmlrpc.url`` of the lockfile."""
        return make_http_url(self._host, self.port)

    def start(self) -> None:
        """Start accepting connections."""
        self.server.start()

    def wait_until_delivered(self, timeout: float) -> bool:
        """
        Wait until all deliveries were made or have failed; return False if that takes longer than the timeout.

        Do not call this in the loop's thread.
        """
        event = threading.Event()
        # The wait starts in the loop's thread, after the deliveries that were added before
        self._loop.call_soon(self._start_delivery_wait, event)
        return event.wait(timeout)

    def stop(self) -> None:
        """Close the server and all connections to clients. Called in the loop's thread."""
        self.server.stop()
        self._liveness.close()
        for queue in list(self._queues):
            queue.abort()
        self._queues.clear()

    # Called by the request handler, in the loop's thread

    def check_secret(self, secret: str) -> bool:
        """Return whether this is the hub's secret. The comparison takes constant time."""
        return hmac.compare_digest(secret.encode("utf-8", "surrogatepass"), self._secret.encode("utf-8"))

    def set_callback(self, client: Client, url: str) -> None:
        """Make a client callable at a URL, or change its URL (R13)."""
        if isinstance(client.queue, CallbackSender):
            client.queue.set_url(url)
            return
        queue = CallbackSender(self._loop, self._broker, self._liveness, client, url, self._on_idle)
        queue.reports_idle = self._all_delivered is not None
        self._queues.add(queue)
        self._broker.set_callable(client, True, queue)

    def defer_events(self, client: Client) -> None:
        """Defer the hub's events for a client that asks for the other clients."""
        if isinstance(client.queue, CallbackSender):
            client.queue.defer_events()

    def _on_idle(self, queue: CallbackSender) -> None:
        if queue.is_closed:
            self._queues.discard(queue)
        self._check_delivered()

    def _start_delivery_wait(self, event: threading.Event) -> None:
        self._all_delivered = event
        for queue in self._queues:
            queue.reports_idle = True
        self._check_delivered()

    def _check_delivered(self) -> None:
        if self._all_delivered is not None and all(queue.is_idle for queue in self._queues):
            self._all_delivered.set()


class _StandardOperations(HubOperations):
    """The request handler, with the methods that only this profile has."""

    def __init__(self, profile: StandardProfile, broker: Broker, loop: EventLoop, address: str) -> None:
        own: dict[str, Callable[..., Any]] = {
            "register": self.register,
            "setXmlrpcCallback": self.set_xmlrpc_callback,
        }
        super().__init__(PROFILE, "samp.hub", broker, loop, own)
        self._profile = profile
        self.is_allowed_host = host_filter(address)

    def register(self, secret: str) -> dict[str, SAMPValue]:
        """Register a client that knows the secret (R6)."""
        if not self._profile.check_secret(secret):
            raise SAMPProxyError(1, "This is not the hub's secret; it is in the lockfile")
        return self.registration_info(self._broker.register(PROFILE))

    def set_xmlrpc_callback(self, key: str, url: str) -> str:
        """Make the caller callable at a URL (R13)."""
        client = self._client(key)
        assert self.current_call is not None
        self._profile.set_callback(client, resolve_callback_url(url, self.current_call.connection.peer[0]))
        return ""

    def on_discovery_call(self, client: Client) -> None:
        """Defer the events that clients based on JSAMP would lose now, see `EventDeferrer`."""
        assert self.current_call is not None
        if self.current_call.request.headers.get("user-agent", "").startswith("JSAMP"):
            self._profile.defer_events(client)
