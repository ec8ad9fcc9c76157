# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub as an object: one method for each of its operations (R31)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..protocol.timeouts import to_whole_seconds
from ..transport.http11 import HTTPResponse
from .handlers import release_slot
from .hub_connection import HUB_GRACE, HubConnection

Map = Mapping[str, Any]


class SAMPHubProxy(HubConnection):
    """
    The hub, for its clients.

    Its methods are those of `SAMPIntegratedClient`, but they need the private key of the client, and accept
    only ids, not names.

    Any number of threads may use it at once. Values are encoded as the standard requires (R4): numbers become strings.
    A value that is not a SAMP value raises an error before anything is sent.

    Every method that calls the hub raises `SAMPProxyError` when the hub returns a fault, and `SAMPHubError` when the
    hub is gone or does not respond.
    """

    #: The first part of the XML-RPC names of the hub's operations.
    prefix = "samp.hub"

    def ping(self) -> Any:
        """Ping the hub."""
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
        return self._call_typed(dict, "register", secret=secret)

    def register_with_metadata(
        self,
        metadata: Map,
        while_waiting: Callable[[], object] | None = None,
        raw_responses: list[HTTPResponse] | None = None,
    ) -> dict[str, Any]:
        """
        Register a client with what the profile requires: in this profile the secret of the lockfile.

        Parameters
        ----------
        metadata : mapping
            The metadata that the client is going to declare.
        while_waiting : callable, optional
            Called while the hub processes the request.
        raw_responses : list, optional
            Gets the hub's response as it came in, even if the wait for it is interrupted.

        Returns
        -------
        dict
            As in `register`.
        """
        secret = self.lockfile.get("samp.secret", "")
        return self._call_typed(
            dict, "register", while_waiting=while_waiting, raw_responses=raw_responses, secret=secret
        )

    def set_xmlrpc_callback(self, private_key: str, xmlrpc_addr: str) -> Any:
        """
        Declare the URL of the client's server (R31).

        Parameters
        ----------
        private_key : str
            The client's key.
        xmlrpc_addr : str
            The URL.
        """
        return self._call("setXmlrpcCallback", private_key=private_key, xmlrpc_addr=xmlrpc_addr)

    def unregister(self, private_key: str) -> Any:
        """
        Unregister the client (R10); its key is invalid afterwards.

        Parameters
        ----------
        private_key : str
            The client's key.
        """
        return self._call("unregister", private_key=private_key)

    def declare_metadata(self, private_key: str, metadata: Map) -> Any:
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
        Return the metadata of a client (R11).

        Parameters
        ----------
        private_key, client_id
            As in `SAMPIntegratedClient.get_metadata`.
        """
        return self._call_typed(dict, "getMetadata", private_key=private_key, client_id=client_id)

    def declare_subscriptions(self, private_key: str, subscriptions: Map) -> Any:
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
        Return the subscriptions of a client.

        Parameters
        ----------
        private_key, client_id
            As in `SAMPIntegratedClient.get_subscriptions`.
        """
        return self._call_typed(dict, "getSubscriptions", private_key=private_key, client_id=client_id)

    def get_registered_clients(self, private_key: str) -> list[str]:
        """
        List the ids of all other clients, including the hub's (R14).

        Parameters
        ----------
        private_key : str
            The client's key.
        """
        return self._call_typed(list, "getRegisteredClients", private_key=private_key)

    def get_subscribed_clients(self, private_key: str, mtype: str) -> dict[str, Any]:
        """
        Return the other clients that are subscribed to an MType (R14).

        Parameters
        ----------
        private_key, mtype
            As in `SAMPIntegratedClient.get_subscribed_clients`.
        """
        return self._call_typed(dict, "getSubscribedClients", private_key=private_key, mtype=mtype)

    def notify(self, private_key: str, recipient_id: str, message: Map) -> Any:
        """
        Send a notification to one client (R18).

        Parameters
        ----------
        private_key, recipient_id, message
            As in `SAMPIntegratedClient.notify`.
        """
        return self._call("notify", private_key=private_key, recipient_id=recipient_id, message=message)

    def notify_all(self, private_key: str, message: Map) -> list[str]:
        """
        Send a notification to all clients that are subscribed to its MType (R18).

        Parameters
        ----------
        private_key, message
            As in `SAMPIntegratedClient.notify_all`.
        """
        return self._call_typed(list, "notifyAll", private_key=private_key, message=message)

    def call(self, private_key: str, recipient_id: str, msg_tag: str, message: Map) -> str:
        """
        Send a call to one client (R20).

        Parameters
        ----------
        private_key, recipient_id, msg_tag, message
            As in `SAMPIntegratedClient.call`.
        """
        return self._call_typed(
            str, "call", private_key=private_key, recipient_id=recipient_id, msg_tag=msg_tag, message=message
        )

    def call_all(self, private_key: str, msg_tag: str, message: Map) -> dict[str, str]:
        """
        Send a call to all clients that are subscribed to its MType (R20).

        Parameters
        ----------
        private_key, msg_tag, message
            As in `SAMPIntegratedClient.call_all`.
        """
        return self._call_typed(dict, "callAll", private_key=private_key, msg_tag=msg_tag, message=message)

    def call_and_wait(
        self, private_key: str, recipient_id: str, message: Map, timeout: str | float
    ) -> dict[str, Any]:
        """
        Send a call and wait for the response (R22).

        During the wait the client pings the hub, and the hub checks the recipient. So the wait ends when either of them
        is gone.

        Parameters
        ----------
        private_key, recipient_id, message, timeout
            As in `SAMPIntegratedClient.call_and_wait`.
        """
        seconds = to_whole_seconds(timeout)
        release_slot()
        return self._call_typed(
            dict,
            "callAndWait",
            timeout=seconds + HUB_GRACE if seconds else 0,
            private_key=private_key,
            recipient_id=recipient_id,
            message=message,
            seconds=str(seconds),
        )

    def reply(self, private_key: str, msg_id: str, response: Map) -> Any:
        """
        Reply to a call (R21).

        Parameters
        ----------
        private_key, msg_id, response
            As in `SAMPIntegratedClient.reply`.
        """
        call = self.received_calls.claim(private_key, msg_id)
        try:
            return self._call("reply", private_key=private_key, msg_id=msg_id, response=response)
        except BaseException:
            if call is not None:
                self.received_calls.release(call)
            raise
