# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The client that most programs want: connection, registration, messages and handlers in one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .client.handlers import HandlerTable
from .client.lookup import with_client_id
from .client.message_methods import BindingMethods, KeywordMethods
from .client.session import ClientSession
from .errors import warn
from .exchange.mixin import ExchangeMixin

__all__ = ["SAMPIntegratedClient"]

Map = Mapping[str, Any]


class SAMPIntegratedClient(ExchangeMixin, ClientSession, KeywordMethods, BindingMethods):
    """
    A SAMP client.

    Where a method takes the id of a client it also takes its name, in upper or lower case: ``"topcat"``.

    The methods that ask the hub raise `SAMPClientError` when the client is not connected, `SAMPHubError` when
    the hub is gone or does not answer, `SAMPProxyError` when it answers with a fault, and `TypeError` or
    `ValueError`, before anything is sent, for what is no SAMP value (R4).

    Parameters
    ----------
    name : str, optional
        ``samp.name`` of the client.
    description : str, optional
        ``samp.description.text`` of the client.
    metadata : mapping, optional
        Its metadata (R11); ``name`` and ``description`` are added. What is passed in is not modified.
    addr : str, optional
        Address on which the client listens for the hub; the loopback address unless given (R37).
    port : int
        Port on which it listens; 0 takes a free one.
    callable : bool
        Whether the client can receive messages and responses (R13).
    dispatch : callable, optional
        How handlers get into the program's own thread, for programs with an event loop: ``dispatch(job)`` is to have
        ``job()`` called there soon. Without it handlers run in a thread of the client's.

    Examples
    --------
    ::

        with SAMPIntegratedClient(name="My script") as client:
            client.enotify_all("coord.pointAt.sky", ra=83.63, dec=22.01)
    """

    # Who is there

    def ping(self) -> Any:
        """Ask the hub for a sign of life."""
        self.client.require_key()
        return self.hub.ping()

    def get_private_key(self) -> str | None:
        """Tell the client's private key; None when it is not connected."""
        return self.client.get_private_key()

    def get_public_id(self) -> str | None:
        """Tell the client's public id; None when it is not connected."""
        return self.client.get_public_id()

    def declare_metadata(self, metadata: Map) -> None:
        """
        Tell the hub about the client (R11).

        Parameters
        ----------
        metadata : mapping
            What is added to what was declared before.
        """
        self.client.declare_metadata(metadata)

    def declare_subscriptions(self, subscriptions: Map | None = None) -> None:
        """
        Tell the hub what the client wants to receive (R12).

        Parameters
        ----------
        subscriptions : mapping, optional
            From MTypes or wildcards to maps of annotations, besides what handlers are bound to.
        """
        self.client.declare_subscriptions(subscriptions)

    def get_metadata(self, client_id: str) -> dict[str, Any]:
        """
        Ask for a client's metadata (R11).

        Parameters
        ----------
        client_id : str
            Id or name of the client.

        Returns
        -------
        dict
            Empty when that client declared nothing.
        """
        key = self.client.require_key()
        return with_client_id(self, client_id, lambda to: self.hub.get_metadata(key, to))

    def get_subscriptions(self, client_id: str) -> dict[str, Any]:
        """
        Ask for a client's subscriptions.

        Parameters
        ----------
        client_id : str
            Id or name of the client.

        Returns
        -------
        dict
            From MTypes or wildcards to maps of annotations.
        """
        key = self.client.require_key()
        return with_client_id(self, client_id, lambda to: self.hub.get_subscriptions(key, to))

    def get_registered_clients(self) -> list[str]:
        """List the ids of all other clients, the hub included (R14)."""
        return self.hub.get_registered_clients(self.client.require_key())

    def get_subscribed_clients(self, mtype: str) -> dict[str, Any]:
        """
        Ask which other clients would receive an MType (R14).

        Parameters
        ----------
        mtype : str
            An MType.

        Returns
        -------
        dict
            From public ids to the annotations of the subscription.
        """
        return self.hub.get_subscribed_clients(self.client.require_key(), mtype)

    # The six ways to send (R18)

    def notify(self, recipient_id: str, message: Map) -> Any:
        """
        Send a message that needs no answer to one client.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.
        """
        key = self.client.require_key()
        return with_client_id(self, recipient_id, lambda to: self.hub.notify(key, to, message))

    def notify_all(self, message: Map) -> list[str]:
        """
        Send a message that needs no answer to all that subscribed to its MType.

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
            There was nobody to send it to.
        """
        recipients = self.hub.notify_all(self.client.require_key(), message)
        if not recipients:
            mtype = message.get("samp.mtype")
            warn(f"No client is subscribed to {mtype}: nobody was notified")
        return recipients

    def call(self, recipient_id: str, msg_tag: str, message: Map) -> str:
        """
        Send a message whose answer comes later, to what `bind_receive_response` bound to its tag (R20).

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        msg_tag : str
            Any string; the response bears it.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.

        Returns
        -------
        str
            The hub's id of the message.
        """
        key = self.client.require_key()
        return with_client_id(self, recipient_id, lambda to: self.hub.call(key, to, msg_tag, message))

    def call_all(self, msg_tag: str, message: Map) -> dict[str, str]:
        """
        Send a message to all that subscribed to its MType; the answers come later.

        Parameters
        ----------
        msg_tag : str
            Any string; the responses bear it.
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
        Send a message and wait for its answer (R22).

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        message : mapping
            With ``samp.mtype`` and ``samp.params``.
        timeout : str, int or float
            Seconds; 0 waits without limit, until the recipient answers, or it or the hub is gone.

        Returns
        -------
        dict
            The response: ``samp.status`` with ``samp.result`` or ``samp.error`` or both.
        """
        key = self.client.require_key()
        return with_client_id(self, recipient_id, lambda to: self.hub.call_and_wait(key, to, message, timeout))

    def reply(self, msg_id: str, response: Map) -> Any:
        """
        Answer a call that was received.

        Parameters
        ----------
        msg_id : str
            The hub's id of the message, as the handler got it.
        response : mapping
            With ``samp.status``, and ``samp.result`` or ``samp.error`` (R17).
        """
        return self.hub.reply(self.client.require_key(), msg_id, response)

    # Receiving; what is bound is called by these

    def receive_notification(self, private_key: str, sender_id: str, message: Map) -> Any:
        """
        Handle a notification as if it had just arrived; see `SAMPClient.receive_notification`.

        Parameters
        ----------
        private_key, sender_id, message
            As there.
        """
        return self.client.receive_notification(private_key, sender_id, message)

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: Map) -> Any:
        """
        Handle a call as if it had just arrived; see `SAMPClient.receive_call`.

        Parameters
        ----------
        private_key, sender_id, msg_id, message
            As there.
        """
        return self.client.receive_call(private_key, sender_id, msg_id, message)

    def receive_response(self, private_key: str, responder_id: str, msg_tag: str, response: Map) -> Any:
        """
        Handle a response as if it had just arrived; see `SAMPClient.receive_response`.

        Parameters
        ----------
        private_key, responder_id, msg_tag, response
            As there.
        """
        return self.client.receive_response(private_key, responder_id, msg_tag, response)

    @property
    def _handlers_or_raise(self) -> HandlerTable:
        return self.client._handlers_or_raise  # what is bound here is bound there

    def _declare_if_registered(self, declare: bool) -> None:
        self.client._declare_if_registered(declare)
