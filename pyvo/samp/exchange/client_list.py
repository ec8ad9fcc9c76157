# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A list of the other clients, which the hub's events keep up to date (R26).

Theory of operation
-------------------
When the list is first used, the client subscribes to the hub's events and then asks the hub for the clients, in this
order, so that no change is missed. An event that repeats known information changes nothing. A hub never uses an id
twice (R6), so a client that has unregistered is not added again, even if a request about it is still in progress.
Another hub uses the same ids again, so the list belongs to one registration and is rebuilt for the next one.
"""

from __future__ import annotations

import html
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..client.handlers import ReceivedMessage, release_slot
from ..client.lookup import ambiguous, clients_called, clients_with_part, is_callable, no_such_client
from ..client.messaging import MessagingClient
from ..errors import SAMPClientError, SAMPProxyError, SAMPTimeoutError
from ..protocol import best_match, check_mtype
from ..protocol.timeouts import Deadline

__all__ = ["ClientInfo", "Clients"]

#: Seconds that a client has to declare its subscriptions: after its registration, and again after it declares a name.
DECLARATION_TIMEOUT = 2.0


@dataclass(frozen=True)
class ClientInfo:
    """
    Another client, with the metadata and subscriptions that it had when the list was read.

    Parameters
    ----------
    id : str
        The public id of the client.
    metadata : dict
        The metadata that it declared (R11).
    subscriptions : dict
        Its subscriptions: a map from MTypes or wildcards to annotations (R12).
    session : object
        Identifies the registration during which the id is valid.
    """

    id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    subscriptions: Mapping[str, Any] = field(default_factory=dict)
    session: object = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the client; empty if it has none."""
        return str(self.metadata.get("samp.name", ""))

    @property
    def description(self) -> str:
        """The description of the client; empty if it has none."""
        return str(self.metadata.get("samp.description.text", ""))

    @property
    def icon(self) -> str:
        """The URL of the client's icon; empty if it has none."""
        return str(self.metadata.get("samp.icon.url", ""))

    def takes(self, mtype: str) -> bool:
        """
        Return whether the client is subscribed to an MType.

        Parameters
        ----------
        mtype : str
            The MType.
        """
        check_mtype(mtype)
        return best_match(self.subscriptions, mtype) is not None

    def __repr__(self) -> str:
        return f"<ClientInfo {self.name or '(no name)'} ({self.id})>"


class Clients:
    """
    The other clients of the hub, without the hub itself. The list is always up to date.

    Iteration is in the order of registration. The index is an id, a name or a part of a name, in upper or lower case.

    Parameters
    ----------
    client : weakref to SAMPIntegratedClient
        The client that owns the list.
    """

    def __init__(self, client: weakref.ref[MessagingClient]) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._known: dict[str, ClientInfo] = {}
        self._known_since: dict[str, float] = {}
        self._gone: set[str] = set()
        self._subscribed_key: str | None = None  # private key of the registration that the list belongs to
        #: Identifies that registration, because another hub gives the same ids to other clients.
        self.session = object()
        self._is_used = False
        self._refresh_lock = threading.Lock()
        self._updated: set[str] = set()  # ids in events since a refresh began
        self._end: SAMPClientError | None = None
        self._listeners: list[Callable[[str], object]] = []

    def __iter__(self) -> Iterator[ClientInfo]:
        self.subscribe()
        with self._changed:
            return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, client: object) -> bool:
        return isinstance(client, str) and bool(_candidates({info.id: info.name for info in self}, client)[0])

    def __getitem__(self, client: str) -> ClientInfo:
        infos = {info.id: info for info in self}
        names = {info.id: info.name for info in infos.values()}
        found, _ = _candidates(names, client)
        if not found:
            raise KeyError(no_such_client(names, client))
        if len(found) > 1:
            raise ambiguous(names, client, found)
        return infos[found[0]]

    def taking(self, mtype: str) -> list[ClientInfo]:
        """
        List the clients that are subscribed to an MType.

        Parameters
        ----------
        mtype : str
            The MType.
        """
        return [info for info in self if info.takes(mtype)]

    def __repr__(self) -> str:
        lines = [f"  {info.name or '(no name)'} ({info.id}): {_summary(info, 5)}" for info in self]
        return "\n".join(["<Clients:", *lines]) + ">" if lines else "<Clients: no other client is connected>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_image(info.icon)}</td><td>{html.escape(info.name)}</td><td>{html.escape(info.id)}</td>"
            f"<td>{html.escape(_summary(info, 12))}</td></tr>"
            for info in self
        )
        return f"<table><tr><th></th><th>name</th><th>id</th><th>takes</th></tr>{rows}</table>"

    # Waiting

    def wait_for(self, wanted: str, timeout: str | float, mtype: str | None) -> ClientInfo:
        """
        Wait for a client; see `SAMPIntegratedClient.wait_for`.

        Parameters
        ----------
        wanted, timeout, mtype
            As the parameters ``client``, ``timeout`` and ``mtype`` of that method.
        """
        deadline = Deadline(timeout)
        release_slot()  # in a handler: the events come after its message in the queue
        self.subscribe()
        with self._changed:
            while True:
                found, wait = self._find_ready(wanted, mtype)
                if found is not None:
                    return found
                if self._end is not None:
                    raise self._end
                left = deadline.remaining
                client = self._client()
                if left == 0 or client is None or not is_callable(client):  # without being callable it gets no events
                    break
                self._changed.wait(min((x for x in (left, wait) if x is not None), default=None))
            present = ", ".join(sorted(info.name for info in self._known.values() if info.name))
        condition = f" that is subscribed to {mtype}" if mtype else ""
        raise SAMPTimeoutError(
            f"No client called {wanted!r}{condition} registered within {deadline.seconds:g} s. "
            f"Connected clients: {present or 'none'}"
        )

    def _find_ready(self, wanted: str, mtype: str | None) -> tuple[ClientInfo | None, float | None]:
        """
        Return the wanted client, or None and the seconds that a candidate has left to declare its subscriptions.

        A candidate is ready when it has declared subscriptions, or has had `DECLARATION_TIMEOUT` to do so. The
        candidates are determined again in each call, because a client with exactly the wanted name takes precedence
        over clients whose names contain it, and may register later.
        """
        names = {info.id: info.name for info in self._known.values()}
        ids, is_part = _candidates(names, wanted)
        infos = [self._known[client_id] for client_id in ids]
        if mtype is not None:
            infos = [info for info in infos if info.takes(mtype)]
        if is_part and len(infos) > 1:
            raise ambiguous(names, wanted, [info.id for info in infos])
        wait = None
        for info in infos:
            left = self._known_since[info.id] + DECLARATION_TIMEOUT - time.monotonic()
            if info.subscriptions or left <= 0:
                return info, None
            wait = left
        return None, wait

    def subscribe(self) -> None:
        """Subscribe to the hub's events and fill the list."""
        client = self._client()
        if client is None:
            return
        client.client.require_key()
        with self._changed:
            self._end = None
        if not is_callable(client):  # it gets no events and has to ask the hub each time
            self._fill(client)
            return
        with self._refresh_lock:
            # repeated if the client has connected to another hub in the meantime
            while self._subscribed_key != (key := client.client.require_key()):
                client.client.add_filter(self, ["samp.hub.event.*"], self._on_event)
                self._is_used = True
                self._fill(client)
                with self._changed:
                    self._subscribed_key = key

    def on_gone(self, listener: Callable[[str], object]) -> None:
        """
        Call a function with the id of each client that unregisters.

        Parameters
        ----------
        listener : callable
            Called in one of the client's threads.
        """
        self._listeners.append(listener)

    def clear(self, *, end: SAMPClientError | None = None) -> None:
        """
        Empty the list after the end of the connection.

        Parameters
        ----------
        end : SAMPClientError, optional
            The error to raise in threads that wait for a client. Without it they continue to wait for another hub.
        """
        with self._changed:
            self._end = end
            self._known.clear()
            self._known_since.clear()
            self._gone.clear()
            self._subscribed_key = None
            self.session = object()
            self._changed.notify_all()

    def resubscribe(self) -> None:
        """Fill the list again after the connection to another hub, if it was used before."""
        client = self._client()
        if self._is_used and client is not None:
            client.client.loop.run_in_worker(self._refill)

    def _refill(self) -> None:
        self.clear()  # remove entries from late events of the previous hub: each hub assigns the same ids again
        try:
            self.subscribe()
        except SAMPClientError:  # the program has disconnected in the meantime
            return

    def _fill(self, client: MessagingClient) -> None:
        own, hub = client.get_public_id(), client.client.hub_id
        ids = [client_id for client_id in client.get_registered_clients() if client_id not in {own, hub}]
        with self._changed:
            before = set(self._known)
            self._updated.clear()
        for client_id in ids:
            while (info := self._query(client, client_id)) is not None and not self._put_if_unchanged(info):
                continue
        with self._changed:
            for client_id in before - set(ids):
                self._known.pop(client_id, None)

    def _query(self, client: MessagingClient, client_id: str) -> ClientInfo | None:
        session = self.session
        try:
            return ClientInfo(client_id, client.get_metadata(client_id), client.get_subscriptions(client_id), session)
        except SAMPProxyError:  # the client has just unregistered
            return None

    def _put_if_unchanged(self, info: ClientInfo) -> bool:
        """Store the hub's response, unless an event about the client has arrived since, which may be newer."""
        with self._changed:
            if info.id in self._updated:
                self._updated.discard(info.id)
                return False
            self._put(info)
            return True

    def _put(self, info: ClientInfo) -> None:
        with self._changed:
            if info.id in self._gone:
                return
            known = self._known.get(info.id)
            if known is None or (info.name and not known.name):
                self._known_since[info.id] = time.monotonic()
            self._known[info.id] = info
            self._changed.notify_all()

    def _on_event(self, message: ReceivedMessage) -> None:
        """Process an event of the hub. The program's own handlers get the event as well."""
        client = self._client()
        client_id = message.params.get("id")
        if client is None or not isinstance(client_id, str) or message.sender_id != client.client.hub_id:
            return
        if client_id in {client.get_public_id(), client.client.hub_id}:
            return
        event = message.mtype.rpartition(".")[2]
        with self._changed:
            if message.private_key != client.get_private_key():  # an event of the previous hub
                return
            self._updated.add(client_id)
            info = self._known.get(client_id, ClientInfo(client_id, session=self.session))
            if event == "unregister":
                self._gone.add(client_id)
                self._known.pop(client_id, None)
                self._changed.notify_all()
            elif event == "register":
                self._put(info)
            elif event in {"metadata", "subscriptions"} and isinstance(message.params.get(event), dict):
                self._put(replace(info, **{event: message.params[event]}))
        if event == "unregister":
            for listener in self._listeners:
                listener(client_id)


def _candidates(names: Mapping[str, str], wanted: str) -> tuple[list[str], bool]:
    """
    Return the ids of the clients that match, and whether only a part of their names matches.

    An id takes precedence over a name, and a name over a part of a name.
    """
    if wanted in names:
        return [wanted], False
    found = clients_called(names, wanted)
    return (found, False) if found else (clients_with_part(names, wanted), True)


def _summary(info: ClientInfo, count: int) -> str:
    """Return the subscriptions of a client as a text, without the MTypes that begin with ``samp.``."""
    mtypes = sorted(mtype for mtype in info.subscriptions if not mtype.startswith("samp."))
    more = f", {len(mtypes) - count} more" if len(mtypes) > count else ""
    return ", ".join(mtypes[:count]) + more or "no messages"


def _image(url: str) -> str:
    if not url.startswith(("http://", "https://", "data:image/")):
        return ""
    return f'<img src="{html.escape(url)}" alt="" style="height:1.2em">'
