# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Whom a program means: ids, names, entries of the list of clients, or several of them.

Find clients by their names.

The id is tried first, so that a program that knows the id pays nothing. Nothing is cached: a client may change its
name, and a second client of the same name may come at any time. An id goes before a name, a whole name before another
name of the same program, and that before a part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ..errors import SAMPClientError, SAMPProxyError

if TYPE_CHECKING:
    from ..integrated_client import SAMPIntegratedClient as Host

__all__ = [
    "ClientRef",
    "ambiguous",
    "client_name",
    "clients_called",
    "clients_with_part",
    "find_id",
    "get_client_names",
    "is_callable",
    "match_name",
    "no_such_client",
    "resolve_one",
    "resolve_recipients",
    "with_client_id",
]

T = TypeVar("T")

#: Names that one program has in its different versions: DS9 8.4.1 calls itself SAOImageDS9, DS9 8.6 ds9.
_SAME_PROGRAM = {"saoimageds9": "ds9"}
#: The ids that hubs give. The id of a client that has left must not pass for a part of another client's name.
_LIKE_AN_ID = re.compile(r"(c|cli#)\d+", re.ASCII)


class _Hub(Protocol):
    def get_metadata(self, private_key: str, client_id: str) -> dict[str, Any]: ...

    def get_registered_clients(self, private_key: str) -> list[str]: ...


class _Client(Protocol):
    @property
    def hub_id(self) -> str | None: ...


class Connected(Protocol):
    """A client with a connection."""

    @property
    def client(self) -> _Client: ...

    @property
    def hub(self) -> _Hub: ...

    def get_private_key(self) -> str | None: ...

    def get_public_id(self) -> str | None: ...


def get_client_names(conn: Connected) -> dict[str, str]:
    """
    Ask who is there.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.

    Returns
    -------
    dict
        From ids to names; empty names for clients that have none.
    """
    key = str(conn.get_private_key())
    names: dict[str, str] = {}
    for client_id in conn.hub.get_registered_clients(key):
        try:
            names[client_id] = str(conn.hub.get_metadata(key, client_id).get("samp.name", ""))
        except SAMPProxyError:  # it has just left
            continue
    return names


def match_name(names: Mapping[str, str], name: str) -> list[str]:
    """
    List the ids of the clients that have a name, in upper or lower case.

    Parameters
    ----------
    names : dict
        From ids to names.
    name : str
        The name.
    """
    wanted = name.casefold()
    if not wanted:
        return []
    return [client_id for client_id, other in names.items() if other.casefold() == wanted]


def clients_called(names: Mapping[str, str], name: str) -> list[str]:
    """
    List the ids of the clients that have a name, or else another name of the same program.

    Parameters
    ----------
    names : mapping
        From ids to names.
    name : str
        The name, in upper or lower case.
    """
    return match_name(names, name) or match_name({i: _usual(other) for i, other in names.items()}, _usual(name))


def _usual(name: str) -> str:
    return _SAME_PROGRAM.get(name.casefold(), name)


def clients_with_part(names: Mapping[str, str], part: str) -> list[str]:
    """
    List the ids of the clients whose names contain a text of two letters or more.

    Parameters
    ----------
    names : mapping
        From ids to names, without the hub.
    part : str
        The text, in upper or lower case.
    """
    wanted = part.strip().casefold()
    if len(wanted) < 2 or _LIKE_AN_ID.fullmatch(wanted):
        return []
    return [client_id for client_id, name in names.items() if wanted in name.casefold()]


def find_id(names: Mapping[str, str], who: str, hub_id: str | None) -> list[str]:
    """
    List the ids of the clients that a text may mean: more than one if it is ambiguous.

    Parameters
    ----------
    names : mapping
        From ids to names.
    who : str
        An id, a name, or a part of a name.
    hub_id : str or None
        The id of the hub, which is not found by a part of its name.
    """
    if who in names:
        return [who]
    others = {client_id: name for client_id, name in names.items() if client_id != hub_id}
    return clients_called(names, who) or clients_with_part(others, who)


def ambiguous(names: Mapping[str, str], who: str, found: list[str]) -> SAMPClientError:
    """Make the error for a text that may mean several clients."""
    others = sorted({names[client_id] for client_id in found})
    is_name = {name.casefold() for name in others} == {who.casefold()}
    what = f"Several clients are called {who!r}" if is_name else f"{who!r} may mean {', '.join(others)}"
    return SAMPClientError(f"{what}; give an id: {', '.join(found)}")


def no_such_client(names: Mapping[str, str], who: str) -> str:
    """The text of the error for a text that means no client."""
    present = ", ".join(f"{name or '(no name)'} ({client_id})" for client_id, name in names.items())
    return f"No client has the id or name {who!r}. " + (
        f"Connected are: {present}" if present else "No other client is connected"
    )


def with_client_id(conn: Connected, recipient: str, operation: Callable[[str], T]) -> T:
    """
    Do something with a client that is given by its id, its name or a part of its name.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.
    recipient : str
        Id, name, or part of a name that only one client has.
    operation : callable
        Called with the id.

    Returns
    -------
    object
        What the operation returned.

    Raises
    ------
    SAMPClientError
        Several clients have that name, or that part of a name.
    SAMPProxyError
        No client has that id or name, or the hub refused the operation.
    """
    try:
        return operation(recipient)
    except SAMPProxyError as fault:
        # Was it the id that the hub did not like?
        names = get_client_names(conn)
        if recipient in names or recipient == conn.get_public_id():
            raise
        found = clients_called(names, recipient)
        if not found and _is_own_name(conn, recipient):
            found = [str(conn.get_public_id())]
        found = found or find_id(names, recipient, conn.client.hub_id)
        if not found:
            raise SAMPProxyError(fault.faultCode, no_such_client(names, recipient)) from None
    if len(found) > 1:
        raise ambiguous(names, recipient, found)
    return operation(found[0])


def _is_own_name(conn: Connected, name: str) -> bool:
    own_id = str(conn.get_public_id())
    own_name = conn.hub.get_metadata(str(conn.get_private_key()), own_id).get("samp.name", "")
    return bool(match_name({own_id: str(own_name)}, name))


class _Entry(Protocol):
    @property
    def id(self) -> str: ...


#: One client, or several.
ClientRef: TypeAlias = "str | _Entry | Iterable[str | _Entry]"


def resolve_recipients(host: Host, to: ClientRef) -> dict[str, str]:
    """
    Find the clients that are meant.

    Parameters
    ----------
    host : SAMPIntegratedClient
        A connected client.
    to : str, entry of ``client.clients``, or several of them
        Ids, names, or parts of names that only one client has.

    Returns
    -------
    dict
        From ids to names, in the order in which they were given.

    Raises
    ------
    SAMPClientError
        One of them is not there, or several clients may be meant.
    """
    several = [to] if isinstance(to, str) or hasattr(to, "id") else list(to)
    names = get_client_names(host)
    found = (_one(host, names, item) for item in several)
    return {client_id: names.get(client_id, "") for client_id in found}


def _one(host: Host, names: dict[str, str], who: Any) -> str:
    if isinstance(who, str):
        wanted = who
        found = find_id(names, who, host.client.hub_id)
    elif getattr(who, "session", None) in (None, host.clients.session):  # an entry means that client and no other
        wanted = str(who.id)
        found = [wanted] if wanted in names else []
    else:  # an entry of an earlier list: a hub that was started since gives its id to another client
        wanted = who.name
        found = match_name(names, wanted)
        if str(who.id) in found:
            found = [str(who.id)]
    if len(found) > 1:
        raise ambiguous(names, wanted, found)
    if not found:
        raise SAMPClientError(no_such_client(names, wanted))
    return found[0]


def resolve_one(host: Host, mtype: str, who: ClientRef | None, usual_name: str) -> str:
    """
    Find the one client that is to do something.

    Parameters
    ----------
    host : SAMPIntegratedClient
        A connected client.
    mtype : str
        What it has to be subscribed to.
    who : str or entry of ``client.clients``, optional
        Id or name; without it, the only one that is subscribed.
    usual_name : str
        What such clients are called; one of that name is preferred.

    Returns
    -------
    str
        Its id.
    """
    if who is not None:
        found = list(resolve_recipients(host, who))
        if len(found) != 1:
            raise SAMPClientError(f"One client can be asked, not {len(found)}")
        return found[0]
    able = list(host.get_subscribed_clients(mtype))
    if len(able) != 1:
        named = [client_id for client_id in able if usual_name.casefold() in client_name(host, client_id).casefold()]
        able = named or able
    if not able:
        raise SAMPClientError(f"No client takes {mtype}. Is {usual_name} running, and connected to this hub?")
    if len(able) > 1:
        raise SAMPClientError(f"Several clients take {mtype}; say which by its id: {', '.join(able)}")
    return able[0]


def client_name(host: Host, client_id: str) -> str:
    """The name of a client; its id if it has none, or has just left."""
    try:
        return str(host.get_metadata(client_id).get("samp.name") or client_id)
    except SAMPProxyError:
        return client_id


def is_callable(host: Host) -> bool:
    """Whether a client can be called, and so receives responses and events."""
    try:
        host.client._handlers_or_raise  # noqa: B018 - the same package
    except SAMPClientError:
        return False
    return True
