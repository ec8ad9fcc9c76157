# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Whom a program means: ids, names, entries of the list of clients, or several of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..clientside.names import ambiguous, clients_named, find_id, names_of_clients, no_such_client
from ..errors import SAMPClientError, SAMPProxyError

if TYPE_CHECKING:
    from ..integrated_client import SAMPIntegratedClient as Host

__all__ = ["Who", "can_receive", "find_one", "name_of", "recipients_of"]


class _Entry(Protocol):
    @property
    def id(self) -> str: ...


#: One client, or several.
Who: TypeAlias = "str | _Entry | Iterable[str | _Entry]"


def recipients_of(host: Host, to: Who) -> dict[str, str]:
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
    names = names_of_clients(host)
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
        found = clients_named(names, wanted)
        if str(who.id) in found:
            found = [str(who.id)]
    if len(found) > 1:
        raise ambiguous(names, wanted, found)
    if not found:
        raise SAMPClientError(no_such_client(names, wanted))
    return found[0]


def find_one(host: Host, mtype: str, who: Who | None, usual_name: str) -> str:
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
        found = list(recipients_of(host, who))
        if len(found) != 1:
            raise SAMPClientError(f"One client can be asked, not {len(found)}")
        return found[0]
    able = list(host.get_subscribed_clients(mtype))
    if len(able) != 1:
        named = [client_id for client_id in able if usual_name.casefold() in name_of(host, client_id).casefold()]
        able = named or able
    if not able:
        raise SAMPClientError(f"No client takes {mtype}. Is {usual_name} running, and connected to this hub?")
    if len(able) > 1:
        raise SAMPClientError(f"Several clients take {mtype}; say which by its id: {', '.join(able)}")
    return able[0]


def name_of(host: Host, client_id: str) -> str:
    """The name of a client; its id if it has none, or has just left."""
    try:
        return str(host.get_metadata(client_id).get("samp.name") or client_id)
    except SAMPProxyError:
        return client_id


def can_receive(host: Host) -> bool:
    """Whether a client can be called, and so receives responses and events."""
    try:
        host.client._bound  # noqa: B018 - the same package
    except SAMPClientError:
        return False
    return True
