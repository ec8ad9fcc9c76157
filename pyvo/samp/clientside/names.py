# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Finding clients by their names.

An id is tried first, so that who knows the id pays nothing. Nothing is remembered: names may be changed, and a
second client of the same name may come at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..errors import SAMPClientError, SAMPProxyError

__all__ = ["addressed", "clients_named", "names_of_clients"]

T = TypeVar("T")


class _Hub(Protocol):
    def get_metadata(self, private_key: str, client_id: str) -> dict[str, Any]: ...

    def get_registered_clients(self, private_key: str) -> list[str]: ...


class Connected(Protocol):
    """A client with a connection."""

    @property
    def hub(self) -> _Hub: ...

    def get_private_key(self) -> str | None: ...

    def get_public_id(self) -> str | None: ...


def names_of_clients(conn: Connected) -> dict[str, str]:
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


def clients_named(names: dict[str, str], name: str) -> list[str]:
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


def addressed(conn: Connected, recipient: str, operation: Callable[[str], T]) -> T:
    """
    Do something with a client that is given by its id or by its name.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.
    recipient : str
        Id or name.
    operation : callable
        Called with the id.

    Returns
    -------
    object
        What the operation returned.

    Raises
    ------
    SAMPClientError
        Several clients have that name.
    SAMPProxyError
        No client has that id or name, or the hub refused the operation.
    """
    try:
        return operation(recipient)
    except SAMPProxyError as fault:
        # Was it the id that the hub did not like?
        names = names_of_clients(conn)
        if recipient in names or recipient == conn.get_public_id():
            raise
        found = clients_named(names, recipient)
        if not found and _is_own_name(conn, recipient):
            found = [str(conn.get_public_id())]
        if not found:
            raise _nobody(fault, recipient, names) from None
    if len(found) > 1:
        raise SAMPClientError(f"Several clients are called {recipient!r}; give an id: {', '.join(found)}")
    return operation(found[0])


def _is_own_name(conn: Connected, name: str) -> bool:
    own_id = str(conn.get_public_id())
    own_name = conn.hub.get_metadata(str(conn.get_private_key()), own_id).get("samp.name", "")
    return bool(clients_named({own_id: str(own_name)}, name))


def _nobody(fault: SAMPProxyError, recipient: str, names: dict[str, str]) -> SAMPProxyError:
    present = ", ".join(f"{name or '(no name)'} ({client_id})" for client_id, name in names.items())
    return SAMPProxyError(
        fault.faultCode,
        f"No client has the id or name {recipient!r}. "
        + (f"Connected are: {present}" if present else "No other client is connected"),
    )
