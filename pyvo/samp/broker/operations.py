# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The operations that both profiles offer, so that no rule of the protocol is written twice (R31, R39).

A profile adds its own: how one registers, and how callbacks reach a client.

A request that is answered when somebody else has answered a call (R22): the same in both profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import SAMPProxyError
from ..protocol import SAMPValue, parse_float
from ..transport.event_loop import EventLoop, Timer
from ..transport.server_connection import DeferredResponse
from ..transport.xmlrpc_handler import XMLRPCHandler
from . import Broker, Client, EncodedMessage

__all__ = ["HubOperations", "call_and_wait_deferred", "parse_wait_timeout"]

# A selector cannot wait longer than some weeks; who asks for more does not mind
MAX_TIMEOUT = 1e6


def call_and_wait_deferred(
    broker: Broker,
    loop: EventLoop,
    client: Client,
    recipient_id: str,
    message: EncodedMessage,
    seconds: float | None,
    seen: Callable[[EncodedMessage], object] = lambda _response: None,
) -> DeferredResponse:
    """
    Call, and answer with the response, a fault when time is up, or nothing when the caller hangs up (R22).

    Parameters
    ----------
    broker : Broker
        Who calls.
    loop : Loop
        Whose clock counts.
    client : Client
        On whose behalf.
    recipient_id : str
        Whom.
    message : Payload
        The message.
    seconds : float or None
        How long to wait; None waits without limit.
    seen : callable
        Called with the response before the client gets it, in any thread.

    Returns
    -------
    Deferred
        To be resolved with the response.
    """
    answer = DeferredResponse()
    timer: Timer | None = None

    def on_response(response: EncodedMessage) -> None:
        if timer is not None:
            timer.cancel()
        seen(response)
        answer.set_result(response.encoded())

    def give_up() -> None:
        if call.cancel():
            answer.set_exception(SAMPProxyError(1, f"{call.recipient.display_name} has not answered within {seconds:g} s"))

    def hang_up() -> None:
        if timer is not None:
            timer.cancel()
        call.cancel()

    call = broker.call_and_wait(client, recipient_id, message, on_response)
    if answer.state == "waiting":  # not so if it was for the hub itself, which answers at once
        answer.add_cancel_callback(hang_up)
        if seconds is not None:
            timer = loop.call_later(seconds, give_up)
    return answer


def parse_wait_timeout(text: str) -> float | None:
    """
    Read a time-out (R22).

    Parameters
    ----------
    text : str
        Seconds as a SAMP int; a SAMP float is taken as well.

    Returns
    -------
    float or None
        Seconds; None for no limit.

    Raises
    ------
    SAMPValueError
        It is no number.
    """
    seconds = parse_float(text.strip())
    return min(seconds, MAX_TIMEOUT) if seconds > 0 else None


class HubOperations(XMLRPCHandler):
    """
    The table of operations of one profile.

    Parameters
    ----------
    profile : str
        Name of the profile, by which the broker tells its keys from those of others (R38).
    prefix : str
        What the methods' names begin with: ``"samp.hub"`` or ``"samp.webhub"``.
    broker : Broker
        What the operations operate.
    loop : Loop
        Whose clock and thread are used.
    own : mapping of str to callable
        The operations that only this profile has, by the last part of their names.
    """

    def __init__(
        self, profile: str, prefix: str, broker: Broker, loop: EventLoop, own: Mapping[str, Callable[..., Any]]
    ) -> None:
        operations: dict[str, Callable[..., Any]] = {
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
        super().__init__({f"{prefix}.{name}": function for name, function in operations.items()})
        self._profile_name = profile
        self._broker = broker
        self._loop = loop

    # The operations. Those without a result answer "" (R30)

    def ping(self, *_: SAMPValue) -> str:
        """Answer, with or without a key."""
        return ""

    def unregister(self, key: str) -> str:
        """Leave the hub (R10)."""
        self._broker.unregister(self._client(key))
        return ""

    def declare_metadata(self, key: str, metadata: dict[str, SAMPValue]) -> str:
        """Replace the caller's metadata (R11)."""
        self._broker.declare_metadata(self._client(key), metadata)
        return ""

    def get_metadata(self, key: str, client_id: str) -> dict[str, SAMPValue]:
        """Look up somebody's metadata (R11)."""
        client = self._client(key)
        self.on_discovery_call(client)
        return self._broker.get_metadata(client, client_id)

    def declare_subscriptions(self, key: str, subscriptions: dict[str, SAMPValue]) -> str:
        """Replace what the caller is subscribed to (R12)."""
        self._broker.declare_subscriptions(self._client(key), subscriptions)
        return ""

    def get_subscriptions(self, key: str, client_id: str) -> dict[str, SAMPValue]:
        """Look up what somebody is subscribed to."""
        client = self._client(key)
        self.on_discovery_call(client)
        return self._broker.get_subscriptions(client, client_id)

    def get_registered_clients(self, key: str) -> list[SAMPValue]:
        """List all others (R14)."""
        client = self._client(key)
        self.on_discovery_call(client)
        return self._broker.get_registered_clients(client)

    def get_subscribed_clients(self, key: str, mtype: str) -> dict[str, SAMPValue]:
        """Map all others who take an MType to their annotations (R14)."""
        return self._broker.get_subscribed_clients(self._client(key), mtype)

    def notify(self, key: str, recipient_id: str, message: dict[str, SAMPValue]) -> str:
        """Send a notification to one client (R18)."""
        client = self._client(key)
        self._broker.notify(client, recipient_id, self._message(message, 2))
        return ""

    def notify_all(self, key: str, message: dict[str, SAMPValue]) -> list[SAMPValue]:
        """Send a notification to all who take it, and list them (R18)."""
        client = self._client(key)
        return self._broker.notify_all(client, self._message(message, 1))

    def call(self, key: str, recipient_id: str, tag: str, message: dict[str, SAMPValue]) -> str:
        """Send a message that is answered, and tell its msg-id (R18, R20)."""
        client = self._client(key)
        return self._broker.call(client, recipient_id, tag, self._message(message, 3))

    def call_all(self, key: str, tag: str, message: dict[str, SAMPValue]) -> dict[str, SAMPValue]:
        """Send a message to all who take it, and map each to its msg-id (R18, R20)."""
        client = self._client(key)
        return self._broker.call_all(client, tag, self._message(message, 2))

    def call_and_wait(self, key: str, recipient_id: str, message: dict[str, SAMPValue], timeout: str) -> DeferredResponse:
        """Send a message and answer with the response to it (R18, R22)."""
        client = self._client(key)
        payload = self._message(message, 2)
        seconds = parse_wait_timeout(timeout)
        seen = partial(self.on_response_delivered, client)
        return call_and_wait_deferred(self._broker, self._loop, client, recipient_id, payload, seconds, seen)

    def reply(self, key: str, msg_id: str, response: dict[str, SAMPValue]) -> str:
        """Answer a call (R18, R21)."""
        self._broker.reply(self._client(key), msg_id, self._response(response, 2))
        return ""

    # What they are made of

    def _client(self, key: str) -> Client:
        return self._broker.authenticate(self._profile_name, key)

    def _raw_param(self, index: int) -> memoryview | None:
        """The bytes of a parameter as they came in, where they may go out again like that."""
        assert self.current_call is not None
        return self.current_call.method_call.raw[index]

    def _message(self, message: dict[str, SAMPValue], index: int) -> EncodedMessage:
        return EncodedMessage.message(message, self._raw_param(index), self._profile_name)

    def _response(self, response: dict[str, SAMPValue], index: int) -> EncodedMessage:
        return EncodedMessage.response(response, self._raw_param(index), self._profile_name)

    def on_discovery_call(self, client: Client) -> None:
        """For a profile that takes note of who asks who is there."""

    def on_response_delivered(self, client: Client, response: EncodedMessage) -> None:
        """For a profile that keeps account of what its clients have seen; called in any thread."""

    def registration_info(self, client: Client) -> dict[str, SAMPValue]:
        """Tell what a client is told when it registers (R6)."""
        return {
            "samp.hub-id": self._broker.hub_id,
            "samp.self-id": client.client_id,
            "samp.private-key": client.private_key,
        }
