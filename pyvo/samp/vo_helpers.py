# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sending tables and other products with one call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .client.lookup import get_client_names, match_name
from .errors import SAMPProxyError
from .integrated_client import SAMPIntegratedClient
from .protocol import best_match

__all__ = [
    "accessible_table",
    "connection",
    "find_client_id",
    "send_image_to",
    "send_product_to",
    "send_spectrum_to",
    "send_table_to",
]

#: Seconds that a recipient has to load a table.
LOAD_TIME = 60


@contextmanager
def connection(
    client_name: str = "pyvo client", description: str = "A generic PyVO client", **kwargs: Any
) -> Iterator[SAMPIntegratedClient]:
    """
    Connect to the running hub for the length of a ``with`` block.

    Parameters
    ----------
    client_name : str
        Name of the client.
    description : str
        What other programs may show of it.
    **kwargs
        As of `SAMPIntegratedClient`.

    Yields
    ------
    SAMPIntegratedClient
        The connected client.
    """
    with SAMPIntegratedClient(name=client_name, description=description, **kwargs) as client:
        yield client


def find_client_id(conn: SAMPIntegratedClient, name: str) -> str:
    """
    Find a client by its name.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.
    name : str
        Name of the client that is looked for, in upper or lower case.

    Returns
    -------
    str
        Its id; of several of that name, the first one's.

    Raises
    ------
    KeyError
        No client has that name.
    """
    names = get_client_names(conn)
    found = match_name(names, name)
    if not found:
        present = ", ".join(sorted(filter(None, names.values())))
        raise KeyError(f"No client is called {name!r}. Connected are: {present or 'none'}")
    return found[0]


@contextmanager
def accessible_table(table: Any) -> Iterator[str]:
    """
    Write a table where other programs can read it, for the length of a ``with`` block.

    Parameters
    ----------
    table : object
        The table, or whatever `SAMPIntegratedClient.send` sends as one. A `~astropy.io.votable.tree.VOTableFile` is
        written as it is, with all its tables; a VOTable that is in a file or behind a URL stays there.

    Yields
    ------
    str
        URL of a VOTable.

    Raises
    ------
    TypeError
        It is no table, or VOTable cannot hold it.

    Warns
    -----
    SAMPWarning
        VOTable cannot hold all of it; the text names what is replaced or left out.
    """
    from .formats.registry import as_votable  # noqa: PLC0415

    product, form = as_votable(table)
    if form.write is None:
        yield product.path.as_uri() if product.path is not None else str(product.url)
        return
    with tempfile.TemporaryDirectory(prefix="pyvo-samp-") as directory:
        path = Path(directory) / "table.vot"
        with path.open("xb") as file:
            form.write(file)
        yield path.as_uri()


def send_table_to(
    conn: SAMPIntegratedClient, table: Any, client_name: str | None = None, name: str = "data"
) -> None:
    """
    Send a table, and wait until it is loaded.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.
    table : object
        The table, as of `accessible_table`.
    client_name : str, optional
        Name of the recipient; without it, all that load VOTables get the table.
    name : str
        What the recipient shall call it.

    Raises
    ------
    KeyError
        No client has that name.
    SAMPProxyError
        It loads no VOTables.
    TypeError
        What is given is no table.

    Warns
    -----
    SAMPWarning
        Nobody loads VOTables, or a recipient did not load the table.

    See Also
    --------
    SAMPIntegratedClient.send : Sends anything, and tells what became of it.
    """
    from .formats.registry import as_votable  # noqa: PLC0415

    product, form = as_votable(table)
    mtype = form.mtype
    recipient = find_client_id(conn, client_name) if client_name else None
    if recipient is not None and best_match(conn.get_subscriptions(recipient), mtype) is None:
        raise SAMPProxyError(1, f"{client_name} is not subscribed to {mtype}")
    conn.send(product, recipient, name=name, mtype=mtype, timeout=LOAD_TIME)


def send_product_to(
    conn: SAMPIntegratedClient, url: str, mtype: str, client_name: str | None = None, name: str = "data", **params: Any
) -> None:
    """
    Tell others to load what is at a URL.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.
    url : str
        URL of the product; it must stay readable.
    mtype : str
        MType of the message, such as ``image.load.fits``.
    client_name : str, optional
        Name of the recipient; without it, all that are subscribed to the MType.
    name : str
        What the recipient shall call it.
    **params
        Further parameters of the message.
    """
    if client_name:
        conn.enotify(find_client_id(conn, client_name), mtype, url=url, name=name, **params)
    else:
        conn.enotify_all(mtype, url=url, name=name, **params)


def send_spectrum_to(
    conn: SAMPIntegratedClient, url: str, client_name: str | None = None, name: str = "data"
) -> None:
    """
    Tell others to load a spectrum.

    Parameters
    ----------
    conn, url, client_name, name
        As of `send_product_to`.
    """
    send_product_to(conn, url, "spectrum.load.ssa-generic", client_name, name, meta={})


def send_image_to(conn: SAMPIntegratedClient, url: str, client_name: str | None = None, name: str = "data") -> None:
    """
    Tell others to load an image.

    Parameters
    ----------
    conn, url, client_name, name
        As of `send_product_to`.
    """
    send_product_to(conn, url, "image.load.fits", client_name, name)
