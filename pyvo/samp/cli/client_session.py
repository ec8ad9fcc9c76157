# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Who is connected to the hub, by id and by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..client.lookup import ambiguous, find_id, get_client_names
from ..errors import SAMPHubError, SAMPProxyError
from ..integrated_client import SAMPIntegratedClient
from .output import CommandError, Status, client_label, sanitize

__all__ = ["METADATA", "NameCache", "connected_client", "find_clients", "find_subscribers", "get_interruptible"]

T = TypeVar("T")

METADATA = "samp.hub.event.metadata"


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
    Connect the client of a command for the length of a ``with`` block.

    Parameters
    ----------
    name : str
        Its name, such as ``"samp snoop"``.
    description : str
        What other programs may show of it.
    callable : bool
        Whether it receives anything: that takes a server and a thread more.
    reconnect : bool
        Whether it waits for the next hub when this one is gone.
    events : SimpleQueue, optional
        Gets ``"lost"`` when the hub is gone, and ``"connected"`` when there is another.
    prepare : callable, optional
        Called with the client before it is connected, to bind handlers, so that the hub is told of all at once.

    Yields
    ------
    SAMPIntegratedClient
        The connected client.

    Raises
    ------
    SAMPHubError
        No hub is running.
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
    """
    Wait for something in the main thread, so that ^C ends the wait.

    Parameters
    ----------
    events : SimpleQueue
        Where it comes.
    timeout : float, optional
        Seconds to wait.

    Raises
    ------
    queue.Empty
        Nothing came in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if os.name == "nt":  # there ^C does not end a wait without limit
            left = 1.0 if left is None else min(1.0, left)
        try:
            return events.get(timeout=left)
        except Empty:
            if deadline is not None and time.monotonic() >= deadline:
                raise


def find_clients(client: SAMPIntegratedClient, wanted: Iterable[str]) -> list[str]:
    """
    Find clients by their ids or names.

    Parameters
    ----------
    client : SAMPIntegratedClient
        A connected client.
    wanted : iterable of str
        Ids, or names in upper or lower case, or parts of such names: DS9 calls itself SAOImageDS9.

    Returns
    -------
    list of str
        Their ids, in this order, each once.

    Raises
    ------
    CommandError
        There is no such client, or there are several of that name.
    """
    names = get_client_names(client)
    found: dict[str, None] = {}
    for text in wanted:
        ids = find_id(names, text, client.client.hub_id)
        if len(ids) > 1:
            raise CommandError(Status.USAGE, sanitize(str(ambiguous(names, text, ids)), 500))
        if not ids:
            present = ", ".join(client_label(client_id, name) for client_id, name in names.items()) or "nobody"
            raise CommandError(Status.NO_RECIPIENT, f"No client has the id or name {text!r}. Connected: {present}.")
        found[ids[0]] = None
    return list(found)


def find_subscribers(client: SAMPIntegratedClient, wanted: Iterable[str], mtype: str) -> list[str]:
    """
    Find clients that are to get a message.

    Parameters
    ----------
    client : SAMPIntegratedClient
        A connected client.
    wanted : iterable of str
        See `find`.
    mtype : str
        The message's MType.

    Returns
    -------
    list of str
        Their ids. There may be some among them that do not take the message.

    Raises
    ------
    CommandError
        There is no such client, there are several of that name, or none of them takes the message.
    """
    ids = find_clients(client, wanted)
    if set(ids).isdisjoint(client.get_subscribed_clients(mtype)):
        directory = NameCache(client)
        titles = ", ".join(directory.client_label(client_id) for client_id in ids)
        text = f"{titles} does not take {mtype}." if len(ids) == 1 else f"None of them takes {mtype}: {titles}."
        raise CommandError(Status.NO_RECIPIENT, f"{text} `samp list` shows who takes what.")
    return ids


class NameCache:
    """
    The names of clients, which are asked for once and kept up to date by the hub's events.

    Parameters
    ----------
    client : SAMPIntegratedClient
        A connected client.
    """

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self._client = client
        self._names: dict[str, str] = {}

    def name(self, client_id: str) -> str:
        """Tell a client's name; empty for one that has none, or has gone before anybody asked, or the hub has."""
        if client_id not in self._names:
            try:
                name = self._client.get_metadata(client_id).get("samp.name", "")
            except (SAMPProxyError, SAMPHubError):  # that the hub has gone is told when all that came is shown
                name = ""
            self._names[client_id] = name if isinstance(name, str) else ""
        return self._names[client_id]

    def client_label(self, client_id: str) -> str:
        """How a person is told of a client."""
        return client_label(client_id, self.name(client_id))

    def subscribe(self) -> None:
        """Listen to the hub, before the client is connected: who sends something may be gone when it is shown."""

        def hear(_key: str, _sender: str, mtype: str, params: Mapping[str, Any], _extra: Any) -> None:
            self.update(mtype, params)

        self._client.bind_receive_notification(METADATA, hear)

    def update(self, mtype: str, params: Mapping[str, Any]) -> None:
        """Learn from an event of the hub (R26). A client that has gone keeps its name: its messages may come later."""
        metadata = params.get("metadata")
        if mtype == METADATA and isinstance(metadata, dict):
            self._names[str(params.get("id"))] = str(metadata.get("samp.name", ""))

    def clear(self) -> None:
        """Begin anew, with another hub."""
        self._names.clear()
