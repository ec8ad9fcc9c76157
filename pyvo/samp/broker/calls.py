# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Calls that wait for their response."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from pyvo.samp.broker.deliveries import Payload
from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.protocol import NO_RESPONSE, error_response

if TYPE_CHECKING:
    from pyvo.samp.broker.clients import Client

__all__ = ["CallTable", "OnResponse", "PendingCall", "no_response"]

OnResponse: TypeAlias = Callable[[Payload], object]

# A sender that calls for ever what nobody answers must not fill the hub's memory
MAX_OPEN_CALLS = 100_000


def no_response(text: str) -> Payload:
    """Make the response that the hub gives in place of a recipient that gives none (R23)."""
    return Payload(error_response(text, code=NO_RESPONSE))


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
    def check_room(sender: Client, more: int) -> None:
        """Refuse, with a fault, a sender that has far too many calls open."""
        if len(sender.awaited) + more > MAX_OPEN_CALLS:
            raise SAMPProxyError(1, f"This client has {len(sender.awaited)} calls that nobody has answered; no more")

    def add(self, call: PendingCall) -> None:
        """Note that a call is open."""
        msg_id = call.msg_id
        self._open[msg_id] = call
        call.recipient.owed[msg_id] = call
        call.sender.awaited[msg_id] = call

    def remove(self, call: PendingCall) -> bool:
        """Close a call; tells whether it was open."""
        if self._open.pop(call.msg_id, None) is None:
            return False
        del call.recipient.owed[call.msg_id]
        del call.sender.awaited[call.msg_id]
        return True

    def find(self, msg_id: str, recipient_id: str) -> PendingCall | None:
        """Find the open call of that msg-id, if it is that recipient's to answer (R21)."""
        call = self._open.get(msg_id)
        return call if call is not None and call.recipient.client_id == recipient_id else None
