# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Find clients by their ids and names, by parts of names, and by entries of the list of clients.

The id is tried first, so that a program that uses the id needs no look-up. Nothing is cached, because a client may
change its name, and a second client of the same name may register at any time. An id takes precedence over a name, a
whole name over another name of the same program, and that over a part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from ..errors import SAMPClientError, SAMPProxyError
from .session import ClientSession

T = TypeVar("T")

#: Names of one program in its different versions: the name of DS9 8.4.1 is SAOImageDS9, that of DS9 8.6 is ds9.
_SAME_PROGRAM = {"saoimageds9": "ds9"}
#: Ids as hubs make them. The id of a client that has unregistered must not match a part of another client's name.
_LIKE_AN_ID = re.compile(r"(c|cli#)\d+", re.ASCII)


def get_client_names(conn: ClientSession) -> dict[str, str]:
    """Return the names of all other clients, by their ids; the name of a client that has none is empty."""
    key = str(conn.client.get_private_key())
    names: dict[str, str] = {}
    for client_id in conn.hub.get_registered_clients(key):
        try:
            names[client_id] = str(conn.hub.get_metadata(key, client_id).get("samp.name", ""))
        except SAMPProxyError:  # it has just unregistered
            continue
    return names


def match_name(names: Mapping[str, str], name: str) -> list[str]:
    """List the ids of the clients that have a name, in upper or lower case; ``names`` are by ids."""
    wanted = name.casefold()
    if not wanted:
        return []
    return [client_id for client_id, other in names.items() if other.casefold() == wanted]


def clients_called(names: Mapping[str, str], name: str) -> list[str]:
    """List the ids of the clients that have a name, or else another name of the same program."""
    return match_name(names, name) or match_name(
        {client_id: _canonical(other) for client_id, other in names.items()}, _canonical(name)
    )


def _canonical(name: str) -> str:
    return _SAME_PROGRAM.get(name.casefold(), name)


def clients_with_part(names: Mapping[str, str], part: str) -> list[str]:
    """List the ids of the clients whose names contain a text of two letters or more; ``names`` are without the hub."""
    wanted = part.strip().casefold()
    if len(wanted) < 2 or _LIKE_AN_ID.fullmatch(wanted):
        return []
    return [client_id for client_id, name in names.items() if wanted in name.casefold()]


def find_id(names: Mapping[str, str], text: str, hub_id: str | None) -> list[str]:
    """
    List the ids of the clients that an id, a name, or a part of a name may mean; more than one if it is ambiguous.

    The hub is not found by a part of its name.
    """
    if text in names:
        return [text]
    others = {client_id: name for client_id, name in names.items() if client_id != hub_id}
    return clients_called(names, text) or clients_with_part(others, text)


def ambiguous(names: Mapping[str, str], text: str, found: list[str]) -> SAMPClientError:
    """Make the error for a text that may mean several clients."""
    others = sorted({names[client_id] for client_id in found})
    is_name = {name.casefold() for name in others} == {text.casefold()}
    what = f"Several clients are called {text!r}" if is_name else f"{text!r} may mean {', '.join(others)}"
    return SAMPClientError(f"{what}; give an id: {', '.join(found)}")


def no_such_client(names: Mapping[str, str], text: str) -> str:
    """Return the message of the error for a text that means no client."""
    present = ", ".join(f"{name or '(no name)'} ({client_id})" for client_id, name in names.items())
    return f"No client has the id or name {text!r}. " + (
        f"Connected are: {present}" if present else "No other client is connected"
    )


def with_client_id(conn: ClientSession, operation: Callable[..., T], recipient: str, *args: object) -> T:
    """
    Call ``operation(private_key, client_id, *args)`` for a client that is given by id, name, or part of a name.

    Raises
    ------
    SAMPClientError
        Several clients have that name, or that part of a name.
    SAMPProxyError
        No client has that id or name, or the hub has rejected the operation.
    """
    key = conn.client.require_key()
    try:
        return operation(key, recipient, *args)
    except SAMPProxyError as fault:
        # Find out whether the hub has rejected the id
        names, own_id = get_client_names(conn), conn.client.get_public_id()
        if recipient in names or recipient == own_id:
            raise
        found = clients_called(names, recipient)
        if not found and _is_own_name(conn, recipient):
            found = [str(own_id)]
        found = found or find_id(names, recipient, conn.client.hub_id)
        if not found:
            raise SAMPProxyError(fault.faultCode, no_such_client(names, recipient)) from None
    if len(found) > 1:
        raise ambiguous(names, recipient, found)
    return operation(key, found[0], *args)


def _is_own_name(conn: ClientSession, name: str) -> bool:
    key, own_id = str(conn.client.get_private_key()), str(conn.client.get_public_id())
    own_name = conn.hub.get_metadata(key, own_id).get("samp.name", "")
    return bool(match_name({own_id: str(own_name)}, name))


class ClientEntry(Protocol):
    """An entry of the list of clients: a `ClientInfo`, whose module is above this package."""

    @property
    def id(self) -> str:
        """The id of the client."""


#: One client, or several.
ClientRef: TypeAlias = "str | ClientEntry | Iterable[str | ClientEntry]"


def resolve_recipients(conn: ClientSession, to: ClientRef) -> dict[str, str]:
    """
    Return the ids and names of the clients that are meant, in the order in which they are given.

    ``to`` is an id, a name, a part of a name that only one client has, an entry of ``client.clients``, or several of
    them. If one of them is not registered, or may mean several clients, `SAMPClientError` is raised.
    """
    refs = [to] if isinstance(to, str) or hasattr(to, "id") else list(to)
    names = get_client_names(conn)
    found = (_resolve(conn, names, ref) for ref in refs)
    return {client_id: names.get(client_id, "") for client_id in found}


def _resolve(conn: ClientSession, names: dict[str, str], ref: Any) -> str:
    if isinstance(ref, str):
        text = ref
        found = find_id(names, text, conn.client.hub_id)
    elif getattr(ref, "session", None) in (None, cast("Any", conn).clients.session):  # an entry means only that client
        text = str(ref.id)
        found = [text] if text in names else []
    else:  # an entry of an earlier list: a hub that was started since then gives its id to another client
        text = ref.name
        found = match_name(names, text)
        if str(ref.id) in found:
            found = [str(ref.id)]
    if len(found) > 1:
        raise ambiguous(names, text, found)
    if not found:
        raise SAMPClientError(no_such_client(names, text))
    return found[0]


def resolve_one(conn: ClientSession, mtype: str, to: ClientRef | None, usual_name: str) -> str:
    """
    Return the id of the one client that is meant, or else of the only client that is subscribed to an MType.

    If several clients are subscribed, one with the usual name of such programs is preferred.
    """
    if to is not None:
        found = list(resolve_recipients(conn, to))
        if len(found) != 1:
            raise SAMPClientError(f"This can be sent to one client only, not to {len(found)}")
        return found[0]
    able = list(conn.hub.get_subscribed_clients(conn.client.require_key(), mtype))
    if len(able) != 1:
        named = [client_id for client_id in able if usual_name.casefold() in client_name(conn, client_id).casefold()]
        able = named or able
    if not able:
        raise SAMPClientError(
            f"No client is subscribed to {mtype}. Is {usual_name} running, and connected to this hub?"
        )
    if len(able) > 1:
        raise SAMPClientError(f"Several clients are subscribed to {mtype}; give one of their ids: {', '.join(able)}")
    return able[0]


def client_name(conn: ClientSession, client_id: str) -> str:
    """Return the name of a client; its id if it has none, or has just unregistered."""
    try:
        metadata = conn.hub.get_metadata(conn.client.require_key(), client_id)
    except SAMPProxyError:
        return client_id
    return str(metadata.get("samp.name") or client_id)


def is_callable(conn: ClientSession) -> bool:
    """Whether a client can be called, and so receives responses and events."""
    try:
        conn.client._handlers_or_raise  # noqa: B018 - the same package
    except SAMPClientError:
        return False
    return True
