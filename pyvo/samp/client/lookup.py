# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Find clients by id, by name, by part of a name, or by an entry of the list of clients.

The id is tried first, so that a program that uses ids needs no lookup. Names are not cached, because a client may
change its name, and another client with the same name may register at any time. The order of precedence is: an id, a
complete name, another name of the same program, a part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from ..errors import SAMPClientError, SAMPProxyError
from .session import ClientSession

T = TypeVar("T")

#: Names of the same program in different versions: DS9 8.4.1 has the name SAOImageDS9, DS9 8.6 has the name ds9.
_NAME_ALIASES = {"saoimageds9": "ds9"}
#: Ids in the form that hubs use. The id of an unregistered client must not match a part of another client's name.
_CLIENT_ID_PATTERN = re.compile(r"(c|cli#)\d+", re.ASCII)


def get_client_names(conn: ClientSession) -> dict[str, str]:
    """Return a mapping from the ids of all other clients to their names. A client without a name has an empty name."""
    key = str(conn.client.get_private_key())
    names: dict[str, str] = {}
    for client_id in conn.hub.get_registered_clients(key):
        try:
            names[client_id] = str(conn.hub.get_metadata(key, client_id).get("samp.name", ""))
        except SAMPProxyError:  # the client has just unregistered
            continue
    return names


def match_name(names: Mapping[str, str], name: str) -> list[str]:
    """Return the ids of the clients with a name, ignoring case; ``names`` maps ids to names."""
    wanted = name.casefold()
    if not wanted:
        return []
    return [client_id for client_id, other in names.items() if other.casefold() == wanted]


def clients_called(names: Mapping[str, str], name: str) -> list[str]:
    """Return the ids of the clients with a name, or else with another name of the same program."""
    return match_name(names, name) or match_name(
        {client_id: _canonical(other) for client_id, other in names.items()}, _canonical(name)
    )


def _canonical(name: str) -> str:
    return _NAME_ALIASES.get(name.casefold(), name)


def clients_with_part(names: Mapping[str, str], part: str) -> list[str]:
    """
    Return the ids of the clients whose names contain a text of two or more characters.

    ``names`` must not include the hub.
    """
    wanted = part.strip().casefold()
    if len(wanted) < 2 or _CLIENT_ID_PATTERN.fullmatch(wanted):
        return []
    return [client_id for client_id, name in names.items() if wanted in name.casefold()]


def find_id(names: Mapping[str, str], text: str, hub_id: str | None) -> list[str]:
    """
    Return the ids of the clients that match an id, a name, or a part of a name; more than one if it is ambiguous.

    A part of its name does not match the hub.
    """
    if text in names:
        return [text]
    others = {client_id: name for client_id, name in names.items() if client_id != hub_id}
    return clients_called(names, text) or clients_with_part(others, text)


def ambiguous(names: Mapping[str, str], text: str, found: list[str]) -> SAMPClientError:
    """Return the error for a text that matches several clients."""
    others = sorted({names[client_id] for client_id in found})
    is_name = {name.casefold() for name in others} == {text.casefold()}
    what = f"Several clients are called {text!r}" if is_name else f"{text!r} matches {', '.join(others)}"
    return SAMPClientError(f"{what}; use an id: {', '.join(found)}")


def no_such_client(names: Mapping[str, str], text: str) -> str:
    """Return the error message for a text that does not match any client."""
    present = ", ".join(f"{name or '(no name)'} ({client_id})" for client_id, name in names.items())
    return f"No client has the id or name {text!r}. " + (
        f"Connected clients: {present}" if present else "No other client is connected"
    )


def with_client_id(conn: ClientSession, operation: Callable[..., T], recipient: str, *args: object) -> T:
    """
    Call ``operation(private_key, client_id, *args)``; ``recipient`` is an id, a name, or a part of a name.

    Raises
    ------
    SAMPClientError
        Several clients match the name or the part of a name.
    SAMPProxyError
        No client has this id or name, or the hub has rejected the operation.
    """
    key = conn.client.require_key()
    try:
        return operation(key, recipient, *args)
    except SAMPProxyError as fault:
        # Check whether the hub has rejected the id
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
    """An entry of the list of clients: a `ClientInfo`, whose module is in a layer above this package."""

    @property
    def id(self) -> str:
        """The id of the client."""


#: One client, or several.
ClientRef: TypeAlias = "str | ClientEntry | Iterable[str | ClientEntry]"


def resolve_recipients(conn: ClientSession, to: ClientRef) -> dict[str, str]:
    """
    Return a mapping from ids to names for the given clients, in the given order.

    ``to`` is an id, a name, an unambiguous part of a name, an entry of ``client.clients``, or an iterable of these.
    Raise `SAMPClientError` if a client is not registered or a name is ambiguous.
    """
    refs = [to] if isinstance(to, str) or hasattr(to, "id") else list(to)
    names = get_client_names(conn)
    found = (_resolve(conn, names, ref) for ref in refs)
    return {client_id: names.get(client_id, "") for client_id in found}


def _resolve(conn: ClientSession, names: dict[str, str], ref: Any) -> str:
    if isinstance(ref, str):
        text = ref
        found = find_id(names, text, conn.client.hub_id)
    elif getattr(ref, "session", None) in (None, cast("Any", conn).clients.session):  # it means only its own client
        text = str(ref.id)
        found = [text] if text in names else []
    else:  # an entry of an earlier session: a new hub may use the same id for another client
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
    Return the id of the given client, or by default of the only client that is subscribed to an MType.

    If several clients are subscribed, a client with the usual name of such programs is preferred.
    """
    if to is not None:
        found = list(resolve_recipients(conn, to))
        if len(found) != 1:
            raise SAMPClientError(f"This can be sent to only one client, not to {len(found)}")
        return found[0]
    found = list(conn.hub.get_subscribed_clients(conn.client.require_key(), mtype))
    if len(found) != 1:
        named = [client_id for client_id in found if usual_name.casefold() in client_name(conn, client_id).casefold()]
        found = named or found
    if not found:
        raise SAMPClientError(
            f"No client is subscribed to {mtype}. Is {usual_name} running, and connected to this hub?"
        )
    if len(found) > 1:
        raise SAMPClientError(f"Several clients are subscribed to {mtype}; use one of their ids: {', '.join(found)}")
    return found[0]


def client_name(conn: ClientSession, client_id: str) -> str:
    """Return the name of a client, or its id if it has no name or has just unregistered."""
    try:
        metadata = conn.hub.get_metadata(conn.client.require_key(), client_id)
    except SAMPProxyError:
        return client_id
    return str(metadata.get("samp.name") or client_id)


def is_callable(conn: ClientSession) -> bool:
    """Return whether a client is callable, so that it can receive responses and events."""
    try:
        conn.client._handlers_or_raise  # noqa: B018 - the same package
    except SAMPClientError:
        return False
    return True
