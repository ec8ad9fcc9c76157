# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A client with methods for sending and receiving messages, which need no private key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import warn
from .handlers import BindingMethods, HandlerTable
from .lookup import with_client_id
from .session import ClientSession

Map = Mapping[str, Any]


class MessagingClient(ClientSession, BindingMethods):
    """The part of `SAMPIntegratedClient` that handles messages. It does not handle tables, images and other objects."""

    # Registration, metadata and subscriptions

    def ping(self) -> Any:
        """Ping the hub."""
        self.client.require_key()
        return self.hub.ping()

    def get_private_key(self) -> str | None:
        """Return the client's private key, or None if it is not connected."""
        return self.client.get_private_key()

    def get_public_id(self) -> str | None:
        """Return the client's public id, or None if it is not connected."""
        return self.client.get_public_id()

    def declare_metadata(self, metadata: Map) -> None:
        """
        Declare the client's metadata to the hub (R11).

        Parameters
        ----------
        metadata : mapping
            Metadata, which are added to those that were declared before.
        """
        self.client.declare_metadata(metadata)

    def declare_subscriptions(self, subscriptions: Map | None = None) -> None:
        """
        Declare the client's subscriptions to the hub: the MTypes with handlers, and the given ones (R12).

        Parameters
        ----------
        subscriptions : mapping, optional
            Maps MTypes or wildcards to maps of annotations. It replaces the mapping of an earlier call.
        """
        self.client.declare_subscriptions(subscriptions)

    def get_metadata(self, client_id: str) -> dict[str, Any]:
        """
        Return the metadata of a client (R11).

        Parameters
        ----------
        client_id : str
            Id or name of the client.

        Returns
        -------
        dict
            The metadata; empty if the client has not declared any.
        """
        return with_client_id(self, self.hub.get_metadata, client_id)

    def get_subscriptions(self, client_id: str) -> dict[str, Any]:
        """
        Return the subscriptions of a client.

        Parameters
        ----------
        client_id : str
            Id or name of the client.

        Returns
        -------
        dict
            Maps MTypes or wildcards to maps of annotations.
        """
        return with_client_id(self, self.hub.get_subscriptions, client_id)

    def get_registered_clients(self) -> list[str]:
        """List the ids of all other clients, including the hub's (R14)."""
        return self.hub.get_registered_clients(self.client.require_key())

    def get_subscribed_clients(self, mtype: str) -> dict[str, Any]:
        """
        Return the other clients that are subscribed to an MType (R14).

        Parameters
        ----------
        mtype : str
            An MType.

        Returns
        -------
        dict
            Maps public ids to the annotations of the subscriptions.
        """
        return self.hub.get_subscribed_clients(self.client.require_key(), mtype)

    # The six ways to send (R18)

    def notify(self, recipient_id: str, message: Map) -> Any:
        """
        Send a notification to one client.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.
        """
        return with_client_id(self, self.hub.notify, recipient_id, message)

    def notify_all(self, message: Map) -> list[str]:
        """
        Send a notification to all clients that are subscribed to its MType.

        Parameters
        ----------
        message : mapping
            With ``samp.mtype`` and ``samp.params``.

        Returns
        -------
        list of str
            Ids of the recipients.

        Warns
        -----
        SAMPWarning
            No client is subscribed to the MType.
        """
        recipients = self.hub.notify_all(self.client.require_key(), message)
        if not recipients:
            mtype = message.get("samp.mtype")
            warn(f"No client is subscribed to {mtype}: the notification has no recipients")
        return recipients

    def call(self, recipient_id: str, msg_tag: str, message: Map) -> str:
        """
        Send a call to one client.

        The handler that `bind_receive_response` binds to the message tag gets the response (R20).

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        msg_tag : str
            Any string; the response has the same tag.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.

        Returns
        -------
        str
            The hub's id of the message.
        """
        return with_client_id(self, self.hub.call, recipient_id, msg_tag, message)

    def call_all(self, msg_tag: str, message: Map) -> dict[str, str]:
        """
        Send a call to all clients that are subscribed to its MType.

        Parameters
        ----------
        msg_tag : str
            Any string; the responses have the same tag.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.

        Returns
        -------
        dict
            From the recipients' ids to the hub's ids of the messages.
        """
        return self.hub.call_all(self.client.require_key(), msg_tag, message)

    def call_and_wait(self, recipient_id: str, message: Map, timeout: str | float) -> dict[str, Any]:
        """
        Send a call and wait for the response (R22).

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.
        timeout : str, int or float
            Maximum number of seconds to wait. With 0, wait until the recipient replies or disconnects or the hub stops.

        Returns
        -------
        dict
            The response, with ``samp.status`` and ``samp.result`` or ``samp.error`` or both.
        """
        return with_client_id(self, self.hub.call_and_wait, recipient_id, message, timeout)

    def reply(self, msg_id: str, response: Map) -> Any:
        """
        Reply to a call.

        Parameters
        ----------
        msg_id : str
            The hub's id of the message, an argument of the handler.
        response : mapping
            With ``samp.status``, and ``samp.result`` or ``samp.error`` (R17).
        """
        return self.hub.reply(self.client.require_key(), msg_id, response)

    # Sending messages with keyword parameters

    def enotify(self, recipient_id: str, mtype: str, **params: Any) -> Any:
        """
        Send a notification to one client.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        mtype : str
            The MType.
        **params
            The parameters of the message. The mapping ``extra_kws`` adds keys to the message itself.
        """
        return self.notify(recipient_id, _message(mtype, params))

    def enotify_all(self, mtype: str, **params: Any) -> list[str]:
        """
        Send a notification to all clients that are subscribed to its MType, as `notify_all` does.

        Parameters
        ----------
        mtype : str
            The MType.
        **params
            As in `enotify`.

        Returns
        -------
        list of str
            Ids of the recipients.
        """
        return self.notify_all(_message(mtype, params))

    def ecall(self, recipient_id: str, msg_tag: str, mtype: str, **params: Any) -> str:
        """
        Send a call to one client, as `call` does.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        msg_tag : str
            Any string; the response has the same tag.
        mtype : str
            The MType.
        **params
            As in `enotify`.

        Returns
        -------
        str
            The hub's id of the message.
        """
        return self.call(recipient_id, msg_tag, _message(mtype, params))

    def ecall_all(self, msg_tag: str, mtype: str, **params: Any) -> dict[str, str]:
        """
        Send a call to all clients that are subscribed to its MType, as `call_all` does.

        Parameters
        ----------
        msg_tag : str
            Any string; the responses have the same tag.
        mtype : str
            The MType.
        **params
            As in `enotify`.

        Returns
        -------
        dict
            From the recipients' ids to the hub's ids of the messages.
        """
        return self.call_all(msg_tag, _message(mtype, params))

    def ecall_and_wait(self, recipient_id: str, mtype: str, timeout: str | float, **params: Any) -> dict[str, Any]:
        """
        Send a call and wait for the response, as `call_and_wait` does.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        mtype : str
            The MType.
        timeout : str, int or float
            Maximum number of seconds to wait; 0 for no limit.
        **params
            As in `enotify`.

        Returns
        -------
        dict
            The response.
        """
        return self.call_and_wait(recipient_id, _message(mtype, params), timeout)

    def ereply(self, msg_id: str, status: str, result: Map | None = None, error: Map | None = None) -> Any:
        """
        Reply to a call.

        Parameters
        ----------
        msg_id : str
            The hub's id of the message, an argument of the handler.
        status : str
            ``SAMP_STATUS_OK``, ``SAMP_STATUS_WARNING`` or ``SAMP_STATUS_ERROR``.
        result : mapping, optional
            The result of the call, for the status OK or WARNING.
        error : mapping, optional
            The error, for the status WARNING or ERROR. Its text is in ``samp.errortxt``.
        """
        response: dict[str, Any] = {"samp.status": status}
        if result is not None:
            response["samp.result"] = result
        if error is not None:
            response["samp.error"] = error
        return self.reply(msg_id, response)

    # Receiving

    def receive_notification(self, private_key: str, sender_id: str, message: Map) -> Any:
        """
        Handle a notification as if it had just arrived; see `SAMPClient.receive_notification`.

        Parameters
        ----------
        private_key, sender_id, message
            As in `SAMPClient.receive_notification`.
        """
        return self.client.receive_notification(private_key, sender_id, message)

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: Map) -> Any:
        """
        Handle a call as if it had just arrived; see `SAMPClient.receive_call`.

        Parameters
        ----------
        private_key, sender_id, msg_id, message
            As in `SAMPClient.receive_call`.
        """
        return self.client.receive_call(private_key, sender_id, msg_id, message)

    def receive_response(self, private_key: str, responder_id: str, msg_tag: str, response: Map) -> Any:
        """
        Handle a response as if it had just arrived; see `SAMPClient.receive_response`.

        Parameters
        ----------
        private_key, responder_id, msg_tag, response
            As in `SAMPClient.receive_response`.
        """
        return self.client.receive_response(private_key, responder_id, msg_tag, response)

    # For `BindingMethods`

    @property
    def _handlers_or_raise(self) -> HandlerTable:
        return self.client._handlers_or_raise

    def _declare_if_registered(self, declare: bool) -> None:
        self.client._declare_if_registered(declare)


def _message(mtype: str, params: dict[str, Any]) -> dict[str, Any]:
    extra = params.pop("extra_kws", None) or {}
    return {"samp.mtype": mtype, "samp.params": params, **extra}
