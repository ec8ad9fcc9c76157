# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the broker hands to a recipient, and what it expects a recipient's mailbox to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..protocol import SAMPValue, check_message, check_response
from ..transport.xmlrpc_writer import Encoded, PreEncoded, write_value

__all__ = ["CALL", "NOTIFICATION", "RESPONSE", "Delivery", "DeliveryQueue", "EncodedMessage", "Traffic"]

# The last word of samp.client.X (R32), and samp.methodName of a pulled callback (R42)
NOTIFICATION = "receiveNotification"
CALL = "receiveCall"
RESPONSE = "receiveResponse"

# What a delivery weighs beside its payload: the envelope, and the objects that hold it
ENVELOPE_OVERHEAD = 500


class EncodedMessage:
    """
    A message or a response on its way, encoded at most once however many recipients it has.

    Parameters
    ----------
    value : dict
        The message or response.
    raw : Raw or memoryview, optional
        The XML-RPC ``<value>`` it arrived as, when those bytes may go out again as they are.
    origin : str
        Profile of the client whose words these are; ``"hub"`` for the hub's own. (Rule R46: what
        clients of the Standard Profile mention may be translated for web clients.)
    """

    __slots__ = ("_encoded", "origin", "value")

    def __init__(self, value: dict[str, SAMPValue], raw: Encoded | None = None, origin: str = "hub") -> None:
        self.value = value
        self.origin = origin
        self._encoded = raw

    @classmethod
    def message(cls, value: SAMPValue, raw: Encoded | None = None, origin: str = "hub") -> EncodedMessage:
        """Make the payload of a message; a missing ``samp.params`` is added, nonsense is refused (R16)."""
        checked = check_message(value)
        return cls(checked, raw if checked is value else None, origin)

    @classmethod
    def response(cls, value: SAMPValue, raw: Encoded | None = None, origin: str = "hub") -> EncodedMessage:
        """Make the payload of a response; nonsense is refused (R17)."""
        checked = check_response(value)
        return cls(checked, raw if checked is value else None, origin)

    @property
    def mtype(self) -> str:
        """The MType; of messages only."""
        mtype = self.value["samp.mtype"]
        assert isinstance(mtype, str)  # `check_message` saw to it
        return mtype

    def encoded(self) -> Encoded:
        """
        Write the payload as an XML-RPC value.

        Returns
        -------
        Raw or memoryview
            The same object each time.
        """
        if self._encoded is None:
            self._encoded = PreEncoded(write_value(self.value))
        return self._encoded


class Delivery(NamedTuple):
    """One payload for one recipient."""

    #: What happens: ``"receiveNotification"``, ``"receiveCall"`` or ``"receiveResponse"``.
    kind: str
    #: Public id of the one it is for.
    recipient_id: str
    #: Private key of the one it is for, by which the recipient knows its hub (R32).
    recipient_key: str
    #: Public id of the sender, or of the responder.
    sender_id: str
    #: Msg-id of a call, msg-tag of a response; `None` for a notification.
    tag: str | None
    #: What is delivered.
    body: EncodedMessage

    def arguments(self) -> list[SAMPValue]:
        """List the arguments of the callback after the private key, as R32 orders them."""
        if self.tag is None:
            return [self.sender_id, self.body.value]
        return [self.sender_id, self.tag, self.body.value]

    @property
    def size(self) -> int:
        """What this delivery weighs while it waits, in bytes."""
        return len(self.body.encoded()) + ENVELOPE_OVERHEAD


class Traffic(NamedTuple):
    """What the broker tells its watcher: an event of the hub, a message with all its recipients, or a response."""

    #: What happens: ``"receiveNotification"``, ``"receiveCall"`` or ``"receiveResponse"``.
    kind: str
    #: Public id of the sender, or of the responder.
    sender_id: str
    #: Public ids of the recipients; empty for an event, which goes to all who have subscribed to it.
    recipient_ids: Sequence[str]
    #: Msg-ids of a call, one for each recipient; the msg-id that a response is for.
    msg_ids: Sequence[str]
    #: What is sent.
    body: EncodedMessage


class DeliveryQueue(Protocol):
    """
    Where the broker puts what is for one client.

    Both methods are called with the broker's lock held, so they must neither block nor wait for a lock that
    somebody holds while calling the broker; and they must not raise.

    A mailbox that cannot deliver says so by `Broker.delivery_failed`. One that is asked to hold more than
    it is willing to calls `Broker.disconnect` (R50).
    """

    def put(self, delivery: Delivery) -> None:
        """Take a delivery, to be made in this order (R24); dropped if the mailbox is closed."""

    def close(self, farewell: Delivery | None) -> None:
        """
        Forget all that waits; nothing more will come.

        Parameters
        ----------
        farewell : Delivery or None
            A last one (``samp.hub.disconnect``), to be delivered all the same if there is a way.
        """
