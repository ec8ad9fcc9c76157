# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The clients of a hub, and the roster that finds them by key, by id and by what they subscribe to.

Calls that wait for their response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from ..errors import SAMPProxyError
from ..protocol import NO_RESPONSE, SAMPValue, best_match, error_response, subtypes
from .deliveries import DeliveryQueue, EncodedMessage

__all__ = ["Annotations", "CallTable", "Client", "ClientRegistry", "OnResponse", "PendingCall", "SendFilter", "no_response_payload"]

OnResponse: TypeAlias = Callable[[EncodedMessage], object]

# A sender that calls for ever what nobody answers must not fill the hub's memory
MAX_OPEN_CALLS = 100_000


def no_response_payload(text: str) -> EncodedMessage:
    """Make the response that the hub gives in place of a recipient that gives none (R23)."""
    return EncodedMessage(error_response(text, code=NO_RESPONSE))


class PendingCall:
    """
    A call that somebody has to answer. Made by the broker.

    Parameters
    ----------
    msg_id : str
        What the recipient answers to.
    sender, recipient : Client
        Between whom.
    tag : str or None
        The sender's msg-tag; `None` if the sender waits for the response by ``on_response``.
    on_response : callable or None
        Called with the response's `Payload`.
    forget : callable
        Takes this call out of the table; tells whether it was there.
    """

    __slots__ = ("_forget", "msg_id", "on_response", "recipient", "sender", "tag")

    def __init__(
        self,
        msg_id: str,
        sender: Client,
        recipient: Client,
        tag: str | None,
        on_response: OnResponse | None,
        forget: Callable[[PendingCall], bool],
    ) -> None:
        self.msg_id = msg_id
        self.sender = sender
        self.recipient = recipient
        self.tag = tag
        self.on_response = on_response
        self._forget = forget

    def cancel(self) -> bool:
        """
        Wait no longer: a reply will be refused (R22).

        Returns
        -------
        bool
            Whether the call was still open. If not, ``on_response`` has been or is being called.
        """
        return self._forget(self)


class CallTable:
    """The open calls, by msg-id and from either end. Holds no lock."""

    def __init__(self) -> None:
        self._open: dict[str, PendingCall] = {}

    def __iter__(self) -> Iterator[PendingCall]:
        return iter(self._open.values())

    @staticmethod
    def check_limit(sender: Client, more: int) -> None:
        """Refuse, with a fault, a sender that has far too many calls open."""
        if len(sender.pending_sent) + more > MAX_OPEN_CALLS:
            raise SAMPProxyError(1, f"This client has {len(sender.pending_sent)} calls that nobody has answered; no more")

    def add(self, call: PendingCall) -> None:
        """Note that a call is open."""
        msg_id = call.msg_id
        self._open[msg_id] = call
        call.recipient.pending_received[msg_id] = call
        call.sender.pending_sent[msg_id] = call

    def remove(self, call: PendingCall) -> bool:
        """Close a call; tells whether it was open."""
        if self._open.pop(call.msg_id, None) is None:
            return False
        del call.recipient.pending_received[call.msg_id]
        del call.sender.pending_sent[call.msg_id]
        return True

    def find(self, msg_id: str, recipient_id: str) -> PendingCall | None:
        """Find the open call of that msg-id, if it is that recipient's to answer (R21)."""
        call = self._open.get(msg_id)
        return call if call is not None and call.recipient.client_id == recipient_id else None


Annotations: TypeAlias = "dict[str, SAMPValue]"

#: May a message of this MType go to a recipient who annotated the subscription that matches like this?
SendFilter: TypeAlias = "Callable[[str, Mapping[str, SAMPValue]], bool]"


class Client:
    """
    A registered client. Attributes are for reading; the broker alone changes them.

    Parameters
    ----------
    client_id : str
        Public id.
    private_key : str
        What the client proves itself with.
    profile : str
        ``"standard"``, ``"web"``, or ``"hub"`` for the hub itself.
    may_reach : callable, optional
        Asked before each of its messages, with the MType and the recipient's annotations (rule R47); a message
        that may not reach a recipient is treated as if that one were not subscribed. `None`: no restriction.
    """

    __slots__ = (
        "callable",
        "client_id",
        "is_active",
        "last_active",
        "mailbox",
        "metadata",
        "pending_received",
        "pending_sent",
        "private_key",
        "profile",
        "received",
        "send_filter",
        "sent",
        "subscriptions",
    )

    def __init__(self, client_id: str, private_key: str, profile: str, may_reach: SendFilter | None = None) -> None:
        self.client_id = client_id
        self.private_key = private_key
        self.profile = profile
        self.send_filter = may_reach
        #: Where deliveries go, once there is a place.
        self.mailbox: DeliveryQueue | None = None
        #: Whether it takes deliveries (R13).
        self.callable = False
        #: Whether it is registered still.
        self.is_active = True
        #: When it was last heard of, by the broker's clock.
        self.last_active = 0.0
        #: Messages that it has sent, and that it was sent; the hub's events and responses do not count.
        self.sent = 0
        self.received = 0
        self.metadata: dict[str, SAMPValue] = {}
        self.subscriptions: dict[str, Annotations] = {}
        #: Calls it has been sent and has not answered, by msg-id.
        self.pending_received: dict[str, PendingCall] = {}
        #: Calls it has made that are not answered, by msg-id.
        self.pending_sent: dict[str, PendingCall] = {}

    @property
    def display_name(self) -> str:
        """Id and, where declared, name: how a person is told of this client."""
        name = self.metadata.get("samp.name")
        if not isinstance(name, str) or not name.strip():
            return self.client_id
        return f"{self.client_id} ({' '.join(name[:200].split())[:50]})"  # one short line, whatever it calls itself

    def __repr__(self) -> str:
        return f"<Client {self.display_name}, {self.profile}>"  # never the key (R38)


class ClientRegistry:
    """
    The tables of who is there. Knows no rule beyond finding and matching; holds no lock.

    Clients are indexed by the patterns they subscribe to, so that a broadcast costs by the number of those who
    want it: an MType of three words is found under four patterns, from ``*`` to the MType itself.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Client] = {}
        self._by_key: dict[tuple[str, str], Client] = {}
        self._by_pattern: dict[str, dict[Client, None]] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, client: Client) -> None:
        """Enter a client; its key is good for its own profile only (R38)."""
        self._by_id[client.client_id] = client
        self._by_key[client.profile, client.private_key] = client

    def remove(self, client: Client) -> None:
        """Take a client out of all tables."""
        del self._by_id[client.client_id]
        del self._by_key[client.profile, client.private_key]
        self.subscribe(client, {})

    def by_key(self, profile: str, private_key: str) -> Client:
        """Find who has this key; a fault if nobody has (R9)."""
        try:
            return self._by_key[profile, private_key]
        except KeyError:
            raise SAMPProxyError(1, "This private key is not, or no longer, registered with the hub") from None

    def by_id(self, client_id: str) -> Client:
        """Find who has this public id; a fault if nobody has."""
        try:
            return self._by_id[client_id]
        except KeyError:
            raise SAMPProxyError(1, f"No client has the id {client_id[:100]!r}") from None

    def subscribe(self, client: Client, subscriptions: dict[str, Annotations]) -> None:
        """Replace what a client is subscribed to."""
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
        Find who would receive an MType.

        Parameters
        ----------
        mtype : str
            The MType.
        sender : Client, optional
            Left out itself, and everybody whom it may not reach (R47).

        Returns
        -------
        dict of Client to str
            Each one's most specific pattern that matches.
        """
        found: dict[Client, str] = {}
        for pattern in reversed(subtypes(mtype)):  # from "*" to the MType itself: the last one to match stays
            clients = self._by_pattern.get(pattern)
            if clients is not None:
                found.update(dict.fromkeys(clients, pattern))
        if sender is not None:
            found.pop(sender, None)
            if (may_reach := sender.send_filter) is not None:
                return {c: pattern for c, pattern in found.items() if may_reach(mtype, c.subscriptions[pattern])}
        return found

    def check_recipient(self, sender: Client, recipient_id: str, mtype: str) -> Client:
        """Find whom a message is for; a fault unless that one would receive it (R19)."""
        recipient = self.by_id(recipient_id)
        annotations = best_match(recipient.subscriptions, mtype)
        if annotations is None:
            raise SAMPProxyError(1, f"{recipient.display_name} is not subscribed to {mtype}")
        if sender.send_filter is not None and not sender.send_filter(mtype, annotations):
            raise SAMPProxyError(1, f"This client may not send {mtype} to {recipient.display_name}")
        return recipient
