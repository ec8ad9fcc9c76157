# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Who is there: a list of the other clients that the hub's events keep up to date (R26).

Theory of operation
-------------------
At the first question the client subscribes to the hub's events, and only then asks who is there: so nothing falls
between the two. An event that tells what is known already changes nothing. A hub never uses an id twice (R6), so one
that has left stays out, even if it was just being asked about. The next hub does use it: the list is that of one
registration, and is made anew for the next.
"""

from __future__ import annotations

import html
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..client.handlers import ReceivedMessage
from ..client.lookup import ambiguous, clients_called, clients_with_part, is_callable
from ..client.received_calls import release_slot
from ..errors import SAMPClientError, SAMPProxyError, SAMPTimeoutError
from ..protocol import best_match, check_mtype
from ..protocol.timeouts import Deadline

if TYPE_CHECKING:
    from ..client.messaging import MessagingClient

__all__ = ["ClientInfo", "Clients"]

#: Seconds that a client which has told its name has to tell what it takes.
SETTLE_TIME = 2.0


@dataclass(frozen=True)
class ClientInfo:
    """
    Another client, as it was when this was asked for.

    Parameters
    ----------
    id : str
        Its public id.
    metadata : dict
        What it declared (R11).
    subscriptions : dict
        What it takes: from MTypes or wildcards to annotations (R12).
    session : object
        Stands for the registration with the hub, for the time of which its id is its own.
    """

    id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    subscriptions: Mapping[str, Any] = field(default_factory=dict)
    session: object = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Its name; empty if it has none."""
        return str(self.metadata.get("samp.name", ""))

    @property
    def description(self) -> str:
        """What it says of itself."""
        return str(self.metadata.get("samp.description.text", ""))

    @property
    def icon(self) -> str:
        """URL of its icon; empty if it has none."""
        return str(self.metadata.get("samp.icon.url", ""))

    def takes(self, mtype: str) -> bool:
        """
        Tell whether it is subscribed to an MType.

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
    The other clients of the hub, without the hub itself. It is always up to date.

    It is iterated over in the order of message, and indexed by id, name or part of a name, in upper or lower case.

    Parameters
    ----------
    client : weakref to SAMPIntegratedClient
        The client whose view this is.
    """

    def __init__(self, client: weakref.ref[MessagingClient]) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._known: dict[str, ClientInfo] = {}
        self._named_since: dict[str, float] = {}
        self._gone: set[str] = set()
        self._followed_key: str | None = None  # the registration that the list is of
        #: Stands for the registration that the list is of: another hub gives the same ids to other clients.
        self.session = object()
        self._wanted = False
        self._refresh_lock = threading.Lock()
        self._updated: set[str] = set()  # of whom events have told since somebody began to ask about all
        self._end: SAMPClientError | None = None
        self._listeners: list[Callable[[str], object]] = []

    # What is seen

    def __iter__(self) -> Iterator[ClientInfo]:
        self.subscribe()
        with self._changed:
            return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, who: object) -> bool:
        return isinstance(who, str) and bool(_meant({info.id: info.name for info in self}, who)[0])

    def __getitem__(self, who: str) -> ClientInfo:
        infos = {info.id: info for info in self}
        names = {info.id: info.name for info in infos.values()}
        found, _ = _meant(names, who)
        if not found:
            present = ", ".join(sorted(name for name in names.values() if name))
            raise KeyError(f"No client has the id or name {who!r}. Connected are: {present or 'none'}")
        if len(found) > 1:
            raise ambiguous(names, who, found)
        return infos[found[0]]

    def taking(self, mtype: str) -> list[ClientInfo]:
        """
        List those that are subscribed to an MType.

        Parameters
        ----------
        mtype : str
            The MType.
        """
        return [info for info in self if info.takes(mtype)]

    def __repr__(self) -> str:
        lines = [f"  {info.name or '(no name)'} ({info.id}): {_summary(info, 5)}" for info in self]
        return "\n".join(["<Clients:", *lines]) + ">" if lines else "<Clients: nobody else is connected>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_image(info.icon)}</td><td>{html.escape(info.name)}</td><td>{html.escape(info.id)}</td>"
            f"<td>{html.escape(_summary(info, 12))}</td></tr>"
            for info in self
        )
        return f"<table><tr><th></th><th>name</th><th>id</th><th>takes</th></tr>{rows}</table>"

    # Waiting

    def wait_for(self, who: str, timeout: str | float, mtype: str | None) -> ClientInfo:
        """
        Wait for a client: what ``wait_for`` of `SAMPIntegratedClient` does.

        Parameters
        ----------
        who, timeout, mtype
            As ``client``, ``timeout`` and ``mtype`` there.
        """
        deadline = Deadline(timeout)
        release_slot()  # within a handler: the events are behind it in the queue
        self.subscribe()
        with self._changed:
            while True:
                found, wait = self._find_ready(who, mtype)
                if found is not None:
                    return found
                if self._end is not None:
                    raise self._end
                left = deadline.remaining
                if left == 0 or not self._is_told():
                    break
                self._changed.wait(min((x for x in (left, wait) if x is not None), default=None))
            present = ", ".join(sorted(info.name for info in self._known.values() if info.name))
        what = f" that takes {mtype}" if mtype else ""
        raise SAMPTimeoutError(
            f"No client called {who!r}{what} came within {deadline.seconds:g} s. Connected are: {present or 'none'}"
        )

    def _find_ready(self, who: str, mtype: str | None) -> tuple[ClientInfo | None, float | None]:
        """
        Find the client that is waited for, or how long one that might be it has to declare its subscriptions.

        A client of that name may come while there are others with that part in their names: only one of those that
        can be meant is taken.
        """
        names = {info.id: info.name for info in self._known.values()}
        ids, is_part = _meant(names, who)
        infos = [self._known[client_id] for client_id in ids]
        if mtype is not None:
            infos = [info for info in infos if info.takes(mtype)]
        if is_part and len(infos) > 1:
            raise ambiguous(names, who, [info.id for info in infos])
        wait = None
        for info in infos:
            left = self._named_since.get(info.id, 0.0) + SETTLE_TIME - time.monotonic()
            if info.subscriptions or left <= 0:
                return info, None
            wait = left
        return None, wait

    def _is_told(self) -> bool:
        client = self._client()
        return client is not None and is_callable(client)

    # Keeping up to date

    def subscribe(self) -> None:
        """Listen to the hub's events from now on."""
        client = self._client()
        if client is None:
            return
        client.client.require_key()
        with self._changed:
            self._end = None
        if not is_callable(client):  # it is told nothing, and asks each time
            self._fill(client)
            return
        with self._refresh_lock:
            # Again if the client has come to another hub meanwhile
            while self._followed_key != (key := client.client.require_key()):
                client.client.add_filter(self, ["samp.hub.event.*"], self._on_event)
                self._wanted = True
                self._fill(client)
                with self._changed:
                    self._followed_key = key

    def on_gone(self, listener: Callable[[str], object]) -> None:
        """
        Have a function called with the id of each client that leaves.

        Parameters
        ----------
        listener : callable
            Called in one of the client's threads.
        """
        self._listeners.append(listener)

    def clear(self, *, end: SAMPClientError | None = None) -> None:
        """
        Forget everybody: the connection has ended.

        Parameters
        ----------
        end : SAMPClientError, optional
            What those who wait for somebody are told, if no other hub is to be waited for.
        """
        with self._changed:
            self._end = end
            self._known.clear()
            self._named_since.clear()
            self._gone.clear()
            self._followed_key = None
            self.session = object()
            self._changed.notify_all()

    def resubscribe(self) -> None:
        """Look again who is there, on a new hub, if anybody has wanted to know before."""
        client = self._client()
        if self._wanted and client is not None:
            client.client.loop.run_in_worker(self._follow_again)

    def _follow_again(self) -> None:
        self.clear()  # of what the last hub's events have told since: ids begin anew with each hub
        try:
            self.subscribe()
        except SAMPClientError:  # the program has disconnected meanwhile
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
        except SAMPProxyError:  # it has just left
            return None

    def _put_if_unchanged(self, info: ClientInfo) -> bool:
        """Note what the hub has answered, unless an event has come meanwhile: it may be newer than the answer."""
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
            self._known[info.id] = info
            if info.name:
                self._named_since.setdefault(info.id, time.monotonic())
            self._changed.notify_all()

    def _on_event(self, message: ReceivedMessage) -> None:
        """Take note of one of the hub's events; the program's own handlers see it, too."""
        client = self._client()
        client_id = message.params.get("id")
        if client is None or not isinstance(client_id, str) or message.sender_id != client.client.hub_id:
            return
        if client_id in {client.get_public_id(), client.client.hub_id}:
            return
        what = message.mtype.rpartition(".")[2]
        with self._changed:
            if message.private_key != client.get_private_key():  # it was the last hub's
                return
            self._updated.add(client_id)
            info = self._known.get(client_id, ClientInfo(client_id, session=self.session))
            if what == "unregister":
                self._gone.add(client_id)
                self._known.pop(client_id, None)
                self._changed.notify_all()
            elif what == "register":
                self._put(info)
            elif what in {"metadata", "subscriptions"} and isinstance(message.params.get(what), dict):
                self._put(replace(info, **{what: message.params[what]}))
        if what == "unregister":
            for listener in self._listeners:
                listener(client_id)


def _meant(names: Mapping[str, str], who: str) -> tuple[list[str], bool]:
    """The ids of the clients that may be meant, and whether only a part of their names says so."""
    if who in names:
        return [who], False
    found = clients_called(names, who)
    return (found, False) if found else (clients_with_part(names, who), True)


def _summary(info: ClientInfo, count: int) -> str:
    """What a client takes, without what everybody does."""
    mtypes = sorted(mtype for mtype in info.subscriptions if not mtype.startswith("samp."))
    more = f", {len(mtypes) - count} more" if len(mtypes) > count else ""
    return ", ".join(mtypes[:count]) + more or "no messages"


def _image(url: str) -> str:
    if not url.startswith(("http://", "https://", "data:image/")):
        return ""
    return f'<img src="{html.escape(url)}" alt="" style="height:1.2em">'
