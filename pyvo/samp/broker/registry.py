# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Clients and pending calls, and the tables that find them: clients by key, id and subscription, calls by msg-id.

The tables hold no lock; `Broker` protects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from ..errors import SAMPProxyError
from ..protocol import NO_RESPONSE, SAMPValue, best_match, error_response, subtypes
from .deliveries import DeliveryQueue, EncodedMessage

Annotations: TypeAlias = "dict[str, SAMPValue]"

OnResponse: TypeAlias = Callable[[EncodedMessage], object]

#: Called with an MType and the annotations of the recipient's matching subscription; returns whether to send (R47).
SendFilter: TypeAlias = "Callable[[str, Mapping[str, SAMPValue]], bool]"

# Without a limit, a client that keeps calling a recipient that never replies would fill the hub's memory
MAX_OPEN_CALLS = 100_000


def no_response_payload(text: str) -> EncodedMessage:
    """Make the response that the hub sends in place of a recipient that does not reply (R23)."""
    return EncodedMessage(error_response(text, code=NO_RESPONSE))


class Client:
    """
    A registered client. Only the broker changes the attributes.

    ``profile`` is ``"standard"``, ``"web"``, or ``"hub"`` for the hub itself. A message that ``send_filter`` rejects
    for a recipient is treated as if the recipient were not subscribed (R47).
    """

    __slots__ = (
        "callable",
        "client_id",
        "is_active",
        "is_too_fast",
        "last_active",
        "metadata",
        "pending_received",
        "pending_sent",
        "private_key",
        "profile",
        "queue",
        "received",
        "send_filter",
        "sent",
        "subscriptions",
    )

    def __init__(self, client_id: str, private_key: str, profile: str, send_filter: SendFilter | None = None) -> None:
        self.client_id = client_id
        self.private_key = private_key
        self.profile = profile
        self.send_filter = send_filter
        #: Receives the client's deliveries; None until the client has declared how it is called back.
        self.queue: DeliveryQueue | None = None
        #: Whether the client receives deliveries (R13).
        self.callable = False
        #: Whether the client is still registered.
        self.is_active = True
        #: Whether the client's next response is delayed, because a recipient does not keep up with it.
        self.is_too_fast = False
        #: Time of the client's last request, or of the last delivery that it acknowledged, by the broker's clock.
        self.last_active = 0.0
        #: Messages that the client has sent and received, without the hub's events and without responses.
        self.sent = 0
        self.received = 0
        self.metadata: dict[str, SAMPValue] = {}
        self.subscriptions: dict[str, Annotations] = {}
        #: Calls that the client has received and not replied to, by msg-id.
        self.pending_received: dict[str, PendingCall] = {}
        #: Calls that the client has made and that have no response yet, by msg-id.
        self.pending_sent: dict[str, PendingCall] = {}

    @property
    def display_name(self) -> str:
        """The client's name in error and log texts: its public id and, if declared, its name."""
        name = self.metadata.get("samp.name")
        if not isinstance(name, str) or not name.strip():
            return self.client_id
        return f"{self.client_id} ({' '.join(name[:200].split())[:50]})"  # one short line, whatever the name is

    def __repr__(self) -> str:
        return f"<Client {self.display_name}, {self.profile}>"  # never the key (R38)


class PendingCall(NamedTuple):
    """
    A call without a response yet.

    The response is delivered to the sender with its msg-tag, or passed to ``on_response`` if there is no tag.
    """

    msg_id: str
    sender: Client
    recipient: Client
    tag: str | None
    on_response: OnResponse | None


class CallTable:
    """The pending calls, by msg-id; each is also listed in its sender and in its recipient."""

    def __init__(self) -> None:
        self._pending: dict[str, PendingCall] = {}

    def __iter__(self) -> Iterator[PendingCall]:
        return iter(self._pending.values())

    @staticmethod
    def check_limit(sender: Client, more: int) -> None:
        """Raise a fault if the sender would have too many pending calls."""
        if len(sender.pending_sent) + more > MAX_OPEN_CALLS:
            raise SAMPProxyError(1, f"This client has {len(sender.pending_sent)} calls without a response, the limit")

    def add(self, call: PendingCall) -> None:
        """Add a pending call."""
        msg_id = call.msg_id
        self._pending[msg_id] = call
        call.recipient.pending_received[msg_id] = call
        call.sender.pending_sent[msg_id] = call

    def remove(self, call: PendingCall) -> bool:
        """Remove a call; return whether it was pending."""
        if self._pending.pop(call.msg_id, None) is None:
            return False
        del call.recipient.pending_received[call.msg_id]
        del call.sender.pending_sent[call.msg_id]
        return True

    def find(self, msg_id: str, recipient_id: str) -> PendingCall | None:
        """Find the pending call with this msg-id, if this recipient received it (R21)."""
        call = self._pending.get(msg_id)
        return call if call is not None and call.recipient.client_id == recipient_id else None


class ClientRegistry:
    """
    The registered clients, by id, by key and by subscription.

    Clients are indexed by the patterns they subscribe to, so that the cost of a broadcast depends on the number of its
    recipients: an MType of three words is found under four patterns, from ``*`` to the MType itself.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Client] = {}
        self._by_key: dict[tuple[str, str], Client] = {}
        self._by_pattern: dict[str, dict[Client, None]] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(self._by_id.values())

    def add(self, client: Client) -> None:
        """Add a client; its key is valid for its own profile only (R38)."""
        self._by_id[client.client_id] = client
        self._by_key[client.profile, client.private_key] = client

    def remove(self, client: Client) -> None:
        """Remove a client from all tables."""
        del self._by_id[client.client_id]
        del self._by_key[client.profile, client.private_key]
        self.subscribe(client, {})

    def by_key(self, profile: str, private_key: str) -> Client:
        """Find a client by its private key; raise a fault if there is none (R9)."""
        try:
            return self._by_key[profile, private_key]
        except KeyError:
            raise SAMPProxyError(1, "This private key is not, or no longer, registered with the hub") from None

    def get(self, client_id: str) -> Client | None:
        """Return the client with a public id, if there is one."""
        return self._by_id.get(client_id)

    def by_id(self, client_id: str) -> Client:
        """Find a client by its public id; raise a fault if there is none."""
        try:
            return self._by_id[client_id]
        except KeyError:
            raise SAMPProxyError(1, f"No client has the id {client_id[:100]!r}") from None

    def subscribe(self, client: Client, subscriptions: dict[str, Annotations]) -> None:
        """Replace the subscriptions of a client."""
        for pattern in client.subscriptions:
            clients = self._by_pattern[pattern]
            del clients[client]
            if not clients:
                del self._by_pattern[pattern]
        client.subscriptions = subscriptions
        for pattern in subscriptions:
            self._by_pattern.setdefault(pattern, {})[client] = None

    def subscribers(self, mtype: str, sender: Client | None = None) -> dict[Client, str]:
        """
        Map each client that would receive an MType to its most specific pattern that matches.

        The sender and the clients that it may not send to (R47) are left out.
        """
        found: dict[Client, str] = {}
        for pattern in reversed(subtypes(mtype)):  # from "*" to the MType itself: the last match stays
            clients = self._by_pattern.get(pattern)
            if clients is not None:
                found.update(dict.fromkeys(clients, pattern))
        if sender is not None:
            found.pop(sender, None)
            if (send_filter := sender.send_filter) is not None:
                return {c: pattern for c, pattern in found.items() if send_filter(mtype, c.subscriptions[pattern])}
        return found

    def check_recipient(self, sender: Client, recipient_id: str, mtype: str) -> Client:
        """Find the recipient of a message; raise a fault if it would not receive this MType (R19)."""
        recipient = self.by_id(recipient_id)
        annotations = best_match(recipient.subscriptions, mtype)
        if annotations is None:
            raise SAMPProxyError(1, f"{recipient.display_name} is not subscribed to {mtype}")
        if sender.send_filter is not None and not sender.send_filter(mtype, annotations):
            raise SAMPProxyError(1, f"This client may not send {mtype} to {recipient.display_name}")
        return recipient
