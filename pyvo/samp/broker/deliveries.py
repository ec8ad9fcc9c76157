# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Deliveries: what the broker sends to a recipient, and the interface of a recipient's delivery queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..protocol import SAMPValue, check_message, check_response
from ..transport.xmlrpc_writer import Encoded, PreEncoded, write_value

# The last part of samp.client.X (R32), and of samp.methodName in a pulled callback (R42)
NOTIFICATION = "receiveNotification"
CALL = "receiveCall"
RESPONSE = "receiveResponse"

#: MType of the notification that the hub sends about each message and response. It goes to clients of the Standard
#: Profile that are subscribed to exactly this MType, not by a wildcard.
TRAFFIC = "x-samp.hub.event.traffic"

# Bytes that a delivery needs in addition to its message: the envelope, and the objects that hold it
ENVELOPE_OVERHEAD = 500


class EncodedMessage:
    """
    A message or a response in transit. It is encoded at most once, however many recipients it has.

    ``raw`` is the XML-RPC ``<value>`` in which it arrived, if these bytes may be sent on unchanged. ``source_profile``
    is the profile of the client that sent it, ``"hub"`` for the hub itself: web clients may fetch the URLs that clients
    of the Standard Profile mention (R46).
    """

    __slots__ = ("_encoded", "source_profile", "value")

    def __init__(self, value: dict[str, SAMPValue], raw: Encoded | None = None, source_profile: str = "hub") -> None:
        self.value = value
        self.source_profile = source_profile
        self._encoded = raw

    @classmethod
    def message(cls, value: SAMPValue, raw: Encoded | None = None, source_profile: str = "hub") -> EncodedMessage:
        """Check a message and wrap it; a missing ``samp.params`` is added (R16)."""
        checked = check_message(value)
        return cls(checked, raw if checked is value else None, source_profile)

    @classmethod
    def response(cls, value: SAMPValue, raw: Encoded | None = None, source_profile: str = "hub") -> EncodedMessage:
        """Check a response and wrap it (R17)."""
        checked = check_response(value)
        return cls(checked, raw if checked is value else None, source_profile)

    @property
    def mtype(self) -> str:
        """The MType of a message."""
        mtype = self.value["samp.mtype"]
        assert isinstance(mtype, str)  # checked by `check_message`
        return mtype

    def encoded(self) -> Encoded:
        """Return the message as an XML-RPC value: the same object each time."""
        if self._encoded is None:
            self._encoded = PreEncoded(write_value(self.value))
        return self._encoded


class Delivery(NamedTuple):
    """One message or response for one recipient."""

    #: The callback: ``"receiveNotification"``, ``"receiveCall"`` or ``"receiveResponse"``.
    kind: str
    #: Public id of the recipient.
    recipient_id: str
    #: Private key of the recipient, by which it recognizes the hub (R32).
    recipient_key: str
    #: Public id of the client that sent the message or the response.
    sender_id: str
    #: Msg-id of a call, msg-tag of a response, `None` for a notification.
    tag: str | None
    #: The message or response.
    body: EncodedMessage

    @property
    def size(self) -> int:
        """Bytes that this delivery needs while it waits."""
        return len(self.body.encoded()) + ENVELOPE_OVERHEAD


class Traffic(NamedTuple):
    """What the broker passes to its observer: an event of the hub, a message with all its recipients, or a response."""

    #: What happens: ``"receiveNotification"``, ``"receiveCall"`` or ``"receiveResponse"``.
    kind: str
    #: Public id of the sender, or of the responder.
    sender_id: str
    #: Public ids of the recipients; empty for an event, which goes to all clients that are subscribed to it.
    recipient_ids: Sequence[str]
    #: Msg-ids: of a call, one for each recipient; of a response, the one that it is for.
    msg_ids: Sequence[str]
    #: What is sent.
    body: EncodedMessage
    #: Whether it was sent to all clients that are subscribed.
    to_all: bool = False

    def as_message(self) -> EncodedMessage:
        """Make the notification for clients that are subscribed to `TRAFFIC`."""
        params: dict[str, SAMPValue] = {
            "kind": {NOTIFICATION: "notification", CALL: "call", RESPONSE: "response"}[self.kind],
            "sender-id": self.sender_id,
            "recipient-ids": list(self.recipient_ids),
            "msg-ids": list(self.msg_ids),
            "to-all": "1" if self.to_all else "0",
            "body": self.body.value,
        }
        return EncodedMessage({"samp.mtype": TRAFFIC, "samp.params": params})


class DeliveryQueue(Protocol):
    """
    The deliveries for one client. Each profile has its own implementation.

    The broker calls both methods with its lock held. They must not block, must not wait for a lock that is held during
    a call of the broker, and must not raise.

    A queue reports a delivery that failed to `Broker.delivery_failed`. A queue that is full calls `Broker.disconnect`
    (R50).
    """

    def put(self, delivery: Delivery) -> None:
        """Add a delivery; deliveries are made in this order (R24). A closed queue drops it."""

    def close(self, final_delivery: Delivery | None) -> None:
        """Drop all waiting deliveries. Still try to make the final one (``samp.hub.disconnect``), if there is one."""
