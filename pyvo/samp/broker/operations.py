# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The XML-RPC methods that both profiles offer, as calls of the broker (R31, R39).

A profile adds its own methods: how a client registers, and how it is called back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SAMPProxyError
from ..protocol import SAMPValue
from ..protocol.timeouts import parse_samp_timeout
from ..transport.event_loop import EventLoop, Timer
from ..transport.server_connection import DeferredResponse
from ..transport.xmlrpc_handler import RPCCall, XMLRPCHandler
from .broker import Broker
from .deliveries import EncodedMessage
from .registry import Client

#: Seconds by which the hub delays its response to a client that sends faster than a recipient accepts.
SLOW_DOWN_TIME = 0.02
#: Maximum timeout of a callAndWait in seconds. A selector cannot wait longer than a few weeks.
MAX_TIMEOUT = 1e6


class HubOperations(XMLRPCHandler):
    """
    The request handler of one profile.

    ``profile`` is the profile of the private keys that are accepted (R38). ``prefix`` is ``"samp.hub"`` or
    ``"samp.webhub"``. ``own`` maps the names of the methods that only this profile has, without prefix, to functions.
    """

    def __init__(
        self, profile: str, prefix: str, broker: Broker, loop: EventLoop, own: Mapping[str, Callable[..., Any]]
    ) -> None:
        methods: dict[str, Callable[..., Any]] = {
            "ping": self.ping,
            "unregister": self.unregister,
            "declareMetadata": self.declare_metadata,
            "getMetadata": self.get_metadata,
            "declareSubscriptions": self.declare_subscriptions,
            "getSubscriptions": self.get_subscriptions,
            "getRegisteredClients": self.get_registered_clients,
            "getSubscribedClients": self.get_subscribed_clients,
            "notify": self.notify,
            "notifyAll": self.notify_all,
            "call": self.call,
            "callAll": self.call_all,
            "callAndWait": self.call_and_wait,
            "reply": self.reply,
            **own,
        }
        super().__init__({f"{prefix}.{name}": function for name, function in methods.items()})
        self._profile_name = profile
        self._broker = broker
        self._loop = loop
        self._caller: Client | None = None

    def invoke(self, function: Callable[..., Any], call: RPCCall) -> Any:
        """Run an operation; delay the response to a client that sends faster than a recipient accepts."""
        self._caller = None
        result = super().invoke(function, call)
        if self._caller is None or not self._caller.is_too_fast or isinstance(result, DeferredResponse):
            return result
        self._caller.is_too_fast = False
        deferred = DeferredResponse()
        self._loop.call_later(SLOW_DOWN_TIME, deferred.set_result, result)
        return deferred

    # The methods. Those without a result return "" (R30).

    def ping(self, *_: SAMPValue) -> str:
        """Respond, with or without a key."""
        return ""

    def unregister(self, key: str) -> str:
        """Unregister the caller (R10)."""
        self._broker.unregister(self._client(key))
        return ""

    def declare_metadata(self, key: str, metadata: dict[str, SAMPValue]) -> str:
        """Replace the caller's metadata (R11)."""
        self._broker.declare_metadata(self._client(key), metadata)
        return ""

    def get_metadata(self, key: str, client_id: str) -> dict[str, SAMPValue]:
        """Return a client's metadata (R11)."""
        client = self._client(key)
        self.on_discovery_call(client)
        return self._broker.get_metadata(client, client_id)

    def declare_subscriptions(self, key: str, subscriptions: dict[str, SAMPValue]) -> str:
        """Replace the caller's subscriptions (R12)."""
        self._broker.declare_subscriptions(self._client(key), subscriptions)
        return ""

    def get_subscriptions(self, key: str, client_id: str) -> dict[str, SAMPValue]:
        """Return a client's subscriptions."""
        client = self._client(key)
        self.on_discovery_call(client)
        return self._broker.get_subscriptions(client, client_id)

    def get_registered_clients(self, key: str) -> list[SAMPValue]:
        """List the ids of all other clients (R14)."""
        client = self._client(key)
        self.on_discovery_call(client)
        return self._broker.get_registered_clients(client)

    def get_subscribed_clients(self, key: str, mtype: str) -> dict[str, SAMPValue]:
        """Map the ids of all other clients subscribed to an MType to their annotations (R14)."""
        return self._broker.get_subscribed_clients(self._client(key), mtype)

    def notify(self, key: str, recipient_id: str, message: dict[str, SAMPValue]) -> str:
        """Send a notification to one client (R18)."""
        client = self._client(key)
        self._broker.notify(client, recipient_id, self._message(message, 2))
        return ""

    def notify_all(self, key: str, message: dict[str, SAMPValue]) -> list[SAMPValue]:
        """Send a notification to all subscribed clients; return their ids (R18)."""
        client = self._client(key)
        return self._broker.notify_all(client, self._message(message, 1))

    def call(self, key: str, recipient_id: str, tag: str, message: dict[str, SAMPValue]) -> str:
        """Call one client; return the msg-id (R18, R20)."""
        client = self._client(key)
        return self._broker.call(client, recipient_id, tag, self._message(message, 3))

    def call_all(self, key: str, tag: str, message: dict[str, SAMPValue]) -> dict[str, SAMPValue]:
        """Call all subscribed clients; map the id of each to its msg-id (R18, R20)."""
        client = self._client(key)
        return self._broker.call_all(client, tag, self._message(message, 2))

    def call_and_wait(
        self, key: str, recipient_id: str, message: dict[str, SAMPValue], timeout: str
    ) -> DeferredResponse:
        """
        Call one client and return its response, or a fault after the timeout (R18, R22).

        The call is cancelled if the caller closes its connection.
        """
        client = self._client(key)
        encoded = self._message(message, 2)
        seconds = parse_samp_timeout(timeout, MAX_TIMEOUT)
        deferred = DeferredResponse()
        timer: Timer | None = None

        def on_response(response: EncodedMessage) -> None:
            if timer is not None:
                timer.cancel()
            self.on_response_delivered(client, response)
            deferred.set_result(response.encoded())

        def on_timeout() -> None:
            if self._broker.cancel_call(call):
                text = f"{call.recipient.display_name} has not responded within {seconds:g} s"
                deferred.set_exception(SAMPProxyError(1, text))

        def on_caller_gone() -> None:
            if timer is not None:
                timer.cancel()
            self._broker.cancel_call(call)

        call = self._broker.call_and_wait(client, recipient_id, encoded, on_response)
        if deferred.state == "waiting":  # otherwise the recipient, the hub itself, has already replied
            deferred.add_cancel_callback(on_caller_gone)
            if seconds > 0:
                timer = self._loop.call_later(seconds, on_timeout)
        return deferred

    def reply(self, key: str, msg_id: str, response: dict[str, SAMPValue]) -> str:
        """Reply to a call (R18, R21)."""
        client = self._client(key)
        encoded = EncodedMessage.response(response, self._raw_param(2), self._profile_name)
        self._broker.reply(client, msg_id, encoded)
        return ""

    # Parts of the methods

    def _client(self, key: str) -> Client:
        self._caller = self._broker.authenticate(self._profile_name, key)
        return self._caller

    def _raw_param(self, index: int) -> memoryview | None:
        """Return the bytes of a parameter as received, if they may be sent on unchanged."""
        assert self.current_call is not None
        return self.current_call.method_call.raw[index]

    def _message(self, message: dict[str, SAMPValue], index: int) -> EncodedMessage:
        return EncodedMessage.message(message, self._raw_param(index), self._profile_name)

    def on_discovery_call(self, client: Client) -> None:
        """Called when a client asks for the other clients; a profile may override it."""

    def on_response_delivered(self, client: Client, response: EncodedMessage) -> None:
        """Called in any thread with a response for callAndWait; a profile may override it."""

    def registration_info(self, client: Client) -> dict[str, SAMPValue]:
        """Return the result of a registration (R6)."""
        return {
            "samp.hub-id": self._broker.hub_id,
            "samp.self-id": client.client_id,
            "samp.private-key": client.private_key,
        }
