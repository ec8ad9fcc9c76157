# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub as its clients see it: one method for each of its operations (rule R31)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..errors import SAMPValueError
from ..transport.event_loop import EventLoop
from .callback_server import CallbackServer, MessageQueue, release_slot
from .cleanup import CallbackReceiver
from .hub_connection import HUB_GRACE, HubConnection

if TYPE_CHECKING:
    from ..transport.http11 import HTTPResponse

__all__ = ["SAMPHubProxy", "to_whole_seconds"]


def to_whole_seconds(timeout: str | float) -> int:
    """
    Write a time-out as the standard has it, in whole seconds (rule R22).

    Parameters
    ----------
    timeout : str, int or float
        Seconds; a fraction is rounded up, for 0 means no limit.

    Returns
    -------
    int
        0 for 0 or less.

    Raises
    ------
    SAMPValueError
        It is no finite number.
    """
    try:
        return max(0, math.ceil(float(timeout)))
    except (TypeError, ValueError, OverflowError):
        raise SAMPValueError(f"A timeout is a number of seconds, not {timeout!r}") from None


class SAMPHubProxy(HubConnection):
    """
    The hub, seen from a client.

    Any number of threads may use it at once: a call that waits holds up no other. Values are written as the
    standard wants them (R4): numbers become strings, and what SAMP cannot carry is refused before anything is
    sent.

    Every method that asks the hub raises `SAMPProxyError` when the hub answers with a fault, and `SAMPHubError`
    when it is gone or does not answer.
    """

    #: What the XML-RPC names of the hub's operations begin with.
    prefix = "samp.hub"

    def ping(self) -> Any:
        """Ask the hub for a sign of life."""
        return self._call("ping")

    def register(self, secret: str) -> dict[str, str]:
        """
        Register a client (R6).

        Parameters
        ----------
        secret : str
            ``samp.secret`` of the lockfile.

        Returns
        -------
        dict
            ``samp.hub-id``, ``samp.self-id`` and ``samp.private-key``.
        """
        return cast("dict[str, str]", self._call_typed(dict, "register", secret=secret))

    def register_with_metadata(
        self,
        metadata: Mapping[str, Any],
        meanwhile: Callable[[], object] | None = None,
        seen: list[HTTPResponse] | None = None,
    ) -> dict[str, Any]:
        """
        Register a client with what this profile wants for it: here the secret of the lockfile.

        Parameters
        ----------
        metadata : mapping
            What the client is going to declare.
        meanwhile : callable, optional
            Called while the hub is at work.
        seen : list, optional
            Gets the hub's answer as it came in, even if the wait for it is broken off.

        Returns
        -------
        dict
            As of `register`.
        """
        secret = self.lockfile.get("samp.secret", "")
        answer = self._call_typed(dict, "register", meanwhile=meanwhile, seen=seen, secret=secret)
        return cast("dict[str, Any]", answer)

    def receiver(self, loop: EventLoop, inbox: MessageQueue, address: tuple[str, int]) -> CallbackReceiver:
        """
        Make what a client of this profile receives with: here a server that the hub calls.

        Parameters
        ----------
        loop : Loop
            The client's.
        inbox : Inbox
            Where deliveries go.
        address : tuple of (str, int)
            Address and port to listen on.
        """
        return CallbackServer(loop, inbox, address, self)

    def set_xmlrpc_callback(self, private_key: str, xmlrpc_addr: str) -> Any:
        """
        Tell the hub where the client is called back (R31).

        Parameters
        ----------
        private_key : str
            The client's key.
        xmlrpc_addr : str
            URL of the client's own server.
        """
        return self._call("setXmlrpcCallback", private_key=private_key, xmlrpc_addr=xmlrpc_addr)

    def unregister(self, private_key: str) -> Any:
        """
        Unregister the client (R10); its key is dead afterwards.

        Parameters
        ----------
        private_key : str
            The client's key.
        """
        return self._call("unregister", private_key=private_key)

    def declare_metadata(self, private_key: str, metadata: Mapping[str, Any]) -> Any:
        """
        Replace the client's metadata (R11).

        Parameters
        ----------
        private_key : str
            The client's key.
        metadata : mapping
            Such as ``samp.name`` and ``samp.description.text``.
        """
        return self._call("declareMetadata", private_key=private_key, metadata=metadata)

    def get_metadata(self, private_key: str, client_id: str) -> dict[str, Any]:
        """
        Ask for a client's metadata (R11).

        Parameters
        ----------
        private_key : str
            The asking client's key.
        client_id : str
            Public id of the client asked for.

        Returns
        -------
        dict
            Empty when that client declared nothing.
        """
        return cast("dict[str, Any]", self._call_typed(dict, "getMetadata", private_key=private_key, client_id=client_id))

    def declare_subscriptions(self, private_key: str, subscriptions: Mapping[str, Any]) -> Any:
        """
        Replace the client's subscriptions (R12).

        Parameters
        ----------
        private_key : str
            The client's key.
        subscriptions : mapping
            From MTypes or wildcards to maps of annotations.
        """
        return self._call("declareSubscriptions", private_key=private_key, subscriptions=subscriptions)

    def get_subscriptions(self, private_key: str, client_id: str) -> dict[str, Any]:
        """
        Ask for a client's subscriptions.

        Parameters
        ----------
        private_key : str
            The asking client's key.
        client_id : str
            Public id of the client asked for.

        Returns
        -------
        dict
            From MTypes or wildcards to maps of annotations.
        """
        answer = self._call_typed(dict, "getSubscriptions", private_key=private_key, client_id=client_id)
        return cast("dict[str, Any]", answer)

    def get_registered_clients(self, private_key: str) -> list[str]:
        """
        List the ids of all other clients, the hub included (R14).

        Parameters
        ----------
        private_key : str
            The asking client's key.
        """
        return cast("list[str]", self._call_typed(list, "getRegisteredClients", private_key=private_key))

    def get_subscribed_clients(self, private_key: str, mtype: str) -> dict[str, Any]:
        """
        Ask which other clients would receive an MType (R14).

        Parameters
        ----------
        private_key : str
            The asking client's key.
        mtype : str
            An MType.

        Returns
        -------
        dict
            From public ids to the annotations of the subscription.
        """
        return cast("dict[str, Any]", self._call_typed(dict, "getSubscribedClients", private_key=private_key, mtype=mtype))

    def notify(self, private_key: str, recipient_id: str, message: Mapping[str, Any]) -> Any:
        """
        Send a message that needs no answer to one client (R18).

        Parameters
        ----------
        private_key : str
            The sender's key.
        recipient_id : str
            Public id of the recipient.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.
        """
        return self._call("notify", private_key=private_key, recipient_id=recipient_id, message=message)

    def notify_all(self, private_key: str, message: Mapping[str, Any]) -> list[str]:
        """
        Send a message that needs no answer to all that subscribed to its MType (R18).

        Parameters
        ----------
        private_key : str
            The sender's key.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.

        Returns
        -------
        list of str
            Ids of the recipients.
        """
        return cast("list[str]", self._call_typed(list, "notifyAll", private_key=private_key, message=message))

    def call(self, private_key: str, recipient_id: str, msg_tag: str, message: Mapping[str, Any]) -> str:
        """
        Send a message whose answer comes later, by ``receive_response`` (R20).

        Parameters
        ----------
        private_key : str
            The sender's key.
        recipient_id : str
            Public id of the recipient.
        msg_tag : str
            Any string; the response bears it.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.

        Returns
        -------
        str
            The hub's id of the message.
        """
        answer = self._call_typed(
            str, "call", private_key=private_key, recipient_id=recipient_id, msg_tag=msg_tag, message=message
        )
        return cast("str", answer)

    def call_all(self, private_key: str, msg_tag: str, message: Mapping[str, Any]) -> dict[str, str]:
        """
        Send a message to all that subscribed to its MType; the answers come later (R20).

        Parameters
        ----------
        private_key : str
            The sender's key.
        msg_tag : str
            Any string; the responses bear it.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.

        Returns
        -------
        dict
            From the recipients' ids to the hub's ids of the messages.
        """
        answer = self._call_typed(dict, "callAll", private_key=private_key, msg_tag=msg_tag, message=message)
        return cast("dict[str, str]", answer)

    def call_and_wait(
        self, private_key: str, recipient_id: str, message: Mapping[str, Any], timeout: str | float
    ) -> dict[str, Any]:
        """
        Send a message and wait for its answer (R22).

        Parameters
        ----------
        private_key : str
            The sender's key.
        recipient_id : str
            Public id of the recipient.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.
        timeout : str, int or float
            Seconds; 0 or less waits without limit. The hub is looked after during the wait, and the hub looks
            after the recipient, so that a wait ends when either of them is gone.

        Returns
        -------
        dict
            The response: ``samp.status`` with ``samp.result`` or ``samp.error`` or both.
        """
        seconds = to_whole_seconds(timeout)
        release_slot()
        answer = self._call_typed(
            dict,
            "callAndWait",
            timeout=seconds + HUB_GRACE if seconds else 0,
            private_key=private_key,
            recipient_id=recipient_id,
            message=message,
            seconds=str(seconds),
        )
        return cast("dict[str, Any]", answer)

    def reply(self, private_key: str, msg_id: str, response: Mapping[str, Any]) -> Any:
        """
        Answer a call that was received (R21).

        Parameters
        ----------
        private_key : str
            The key of the client that received the call.
        msg_id : str
            The hub's id of the message.
        response : mapping
            With ``samp.status``, and ``samp.result`` or ``samp.error`` (R17).
        """
        call = self.received_calls.claim(private_key, msg_id)
        try:
            return self._call("reply", private_key=private_key, msg_id=msg_id, response=response)
        except BaseException:
            if call is not None:
                self.received_calls.release(call)
            raise
