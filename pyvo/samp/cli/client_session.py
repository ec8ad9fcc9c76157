# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The client of a command, and the names and ids of the other clients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..client.lookup import ambiguous, find_id, get_client_names
from ..errors import SAMPError, SAMPHubError, SAMPProxyError
from ..integrated_client import SAMPIntegratedClient
from ..process_events import SIGNAL_CHECK_INTERVAL
from ..protocol import ok_response, warning_response
from .output import CommandError, Status, client_label, sanitize

T = TypeVar("T")

METADATA = "samp.hub.event.metadata"
PING = "samp.app.ping"


@contextmanager
def connected_client(
    name: str,
    description: str,
    *,
    callable: bool = False,  # noqa: A002 - the name that clients have for it
    reconnect: bool = False,
    events: SimpleQueue[Any] | None = None,
    prepare: Callable[[SAMPIntegratedClient], object] | None = None,
) -> Iterator[SAMPIntegratedClient]:
    """
    Connect a client for the length of a ``with`` block.

    `events` gets ``"lost"`` when the hub has gone, and ``"connected"`` when the client is connected to a hub.
    `prepare` is called with the client before it connects, so that all its subscriptions are declared in one request.
    """
    client = SAMPIntegratedClient(name, description, callable=callable)
    try:
        if prepare is not None:
            prepare(client)
        client.connect(reconnect=reconnect, on_state=None if events is None else events.put)
        yield client
    finally:
        client.disconnect()


def get_interruptible(events: SimpleQueue[T], timeout: float | None = None) -> T:
    """Get the next item, in the main thread; signals end the wait. Raise `queue.Empty` after the timeout."""
    deadline = time.monotonic() + (math.inf if timeout is None else timeout)
    while True:
        try:
            return events.get(timeout=max(0.0, min(SIGNAL_CHECK_INTERVAL, deadline - time.monotonic())))
        except Empty:
            if time.monotonic() >= deadline:
                raise


def find_clients(client: SAMPIntegratedClient, references: Iterable[str]) -> list[str]:
    """
    Find the ids of clients, each once, in the order of the references.

    A reference is an id, a name, or a part of a name (DS9's name is SAOImageDS9). Upper and lower case are the same.
    """
    names = get_client_names(client)
    found: dict[str, None] = {}
    for reference in references:
        ids = find_id(names, reference, client.client.hub_id)
        if len(ids) > 1:
            raise CommandError(Status.USAGE, sanitize(str(ambiguous(names, reference, ids)), 500))
        if not ids:
            present = ", ".join(client_label(client_id, name) for client_id, name in names.items()) or "none"
            text = f"No client has the id or name {reference!r}. Connected: {present}."
            raise CommandError(Status.NO_RECIPIENT, text)
        found[ids[0]] = None
    return list(found)


def find_subscribers(client: SAMPIntegratedClient, references: Iterable[str], mtype: str) -> list[str]:
    """Find the ids of clients, as `find_clients` does; raise an error unless at least one of them is subscribed."""
    ids = find_clients(client, references)
    if set(ids).isdisjoint(client.get_subscribed_clients(mtype)):
        labels = ", ".join(map(NameCache(client).client_label, ids))
        text = f"{labels} is not subscribed to {mtype}."
        if len(ids) > 1:
            text = f"None of these clients is subscribed to {mtype}: {labels}."
        raise CommandError(Status.NO_RECIPIENT, f"{text} `samp list` shows the subscriptions of all clients.")
    return ids


def reply_unprocessed(client: SAMPIntegratedClient, msg_id: str, mtype: str, text: str) -> None:
    """
    Reply to a call that is not processed: ``samp.ok`` to a ping, otherwise ``samp.warning`` with a text.

    The sender must not think that, for example, its table has been loaded.
    """
    response = ok_response() if mtype == PING else warning_response({}, {"samp.errortxt": text})
    with suppress(SAMPError):  # the sender or the hub has disconnected
        client.reply(msg_id, response)


class NameCache:
    """The names of clients. Each name is requested once; the hub's events keep it up to date."""

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self._client = client
        self._names: dict[str, str] = {}

    def name(self, client_id: str) -> str:
        """Return a client's name; an empty string if it has none, or if the client or the hub has gone."""
        if client_id not in self._names:
            try:
                name = self._client.get_metadata(client_id).get("samp.name", "")
            except (SAMPProxyError, SAMPHubError):  # when the hub has gone, the command reports it after its output
                name = ""
            self._names[client_id] = name if isinstance(name, str) else ""
        return self._names[client_id]

    def client_label(self, client_id: str) -> str:
        """Return a client's name and id, for display."""
        return client_label(client_id, self.name(client_id))

    def subscribe(self) -> None:
        """Subscribe to the event, before the client connects: a sender may have gone when its message is shown."""

        def on_metadata(_key: str, _sender: str, mtype: str, params: Mapping[str, Any], _extra: Any) -> None:
            self.update(mtype, params)

        self._client.bind_receive_notification(METADATA, on_metadata)

    def update(self, mtype: str, params: Mapping[str, Any]) -> None:
        """Adopt a name from an event (R26). The names of clients that have gone are kept: their messages may follow."""
        metadata = params.get("metadata")
        if mtype == METADATA and isinstance(metadata, dict):
            self._names[str(params.get("id"))] = str(metadata.get("samp.name", ""))

    def clear(self) -> None:
        """Remove all names: the next hub assigns new ids."""
        self._names.clear()
