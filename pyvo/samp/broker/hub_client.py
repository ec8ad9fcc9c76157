# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub as a client among clients (R8): what it says of itself, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyvo.samp.broker.clients import Annotations, Client
from pyvo.samp.broker.deliveries import CALL, Delivery, Payload
from pyvo.samp.protocol import SAMPValue, error_response, ok_response

__all__ = ["HUB_METADATA", "HUB_SUBSCRIPTIONS", "HubMailbox"]

HUB_METADATA: dict[str, SAMPValue] = {
    "samp.name": "Hub",
    "samp.description.text": "The hub itself. It passes on the messages of all others.",
    "samp.documentation.url": "https://www.ivoa.net/documents/SAMP/",
    "author.name": "The developers of pyvo.samp",
}

PING = "samp.app.ping"
BY_META = ("samp.query.by-meta", "x-samp.query.by-meta")

# A web page learns nothing from a query that it could not learn from getMetadata (R47)
HUB_SUBSCRIPTIONS: dict[str, Annotations] = {
    PING: {},
    **{mtype: {"x-samp.mostly-harmless": "1"} for mtype in BY_META},
}


class HubMailbox:
    """
    Answers, on the spot, what is sent to the hub (R8, R27).

    Parameters
    ----------
    clients : iterable of Client
        Everybody who is registered.
    reply : callable
        Called with the msg-id and the response's payload.
    """

    def __init__(self, clients: Iterable[Client], reply: Callable[[str, Payload], None]) -> None:
        self._clients = clients
        self._reply = reply

    def put(self, delivery: Delivery) -> None:
        """Answer a call; notifications and responses tell the hub nothing."""
        if delivery.kind == CALL and delivery.tag is not None:
            self._reply(delivery.tag, Payload(self._answer(delivery.body)))

    def close(self, farewell: Delivery | None) -> None:
        """Nothing waits here."""

    def _answer(self, message: Payload) -> dict[str, SAMPValue]:
        if message.mtype not in BY_META:
            return ok_response({})
        params = message.value["samp.params"]
        assert isinstance(params, dict)  # R16
        try:
            key, value = params["key"], params["value"]
        except KeyError as missing:
            return error_response(f"{message.mtype} needs the parameter {missing.args[0]!r}")
        if not isinstance(key, str):
            return error_response(f"The parameter 'key' of {message.mtype} is a string")
        return ok_response({"ids": [c.client_id for c in self._clients if c.metadata.get(key) == value]})
