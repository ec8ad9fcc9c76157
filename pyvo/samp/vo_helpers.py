# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Functions that send tables, images and spectra."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .client.lookup import get_client_names, match_name, no_such_client
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

#: Seconds to wait until a recipient has loaded a table.
LOAD_TIMEOUT = 60


@contextmanager
def connection(
    client_name: str = "pyvo client", description: str = "A generic PyVO client", **kwargs: Any
) -> Iterator[SAMPIntegratedClient]:
    """
    Connect to the running hub for the duration of a ``with`` block.

    Parameters
    ----------
    client_name : str
        Name of the client.
    description : str
        A description that other programs may show.
    **kwargs
        As in `SAMPIntegratedClient`.

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
        Name of the client. Case is ignored.

    Returns
    -------
    str
        The client's id. If several clients have that name, the id of the first one.

    Raises
    ------
    KeyError
        No client has that name.
    """
    names = get_client_names(conn)
    found = match_name(names, name)
    if not found:
        raise KeyError(no_such_client(names, name))
    return found[0]


@contextmanager
def accessible_table(table: Any) -> Iterator[str]:
    """
    Write a table to a file that other programs can read, for the duration of a ``with`` block.

    Parameters
    ----------
    table : object
        The table, or any object that `SAMPIntegratedClient.send` sends as a table. A
        `~astropy.io.votable.tree.VOTableFile` is written unchanged, with all its tables. A VOTable in a file or at a
        URL is not copied.

    Yields
    ------
    str
        URL of a VOTable.

    Raises
    ------
    TypeError
        The object is not a table or cannot be written as a VOTable.

    Warns
    -----
    SAMPWarning
        Parts of the table cannot be written as a VOTable. The text lists what is replaced or omitted.
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
    Send a table and wait until it is loaded.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.
    table : object
        The table, as in `accessible_table`.
    client_name : str, optional
        Name of the recipient; by default, all clients that load VOTables.
    name : str
        The name that the recipient shows.

    Raises
    ------
    KeyError
        No client has that name.
    SAMPProxyError
        The recipient does not load VOTables.
    TypeError
        The object is not a table.

    Warns
    -----
    SAMPWarning
        No client loads VOTables, or a recipient did not load the table.

    See Also
    --------
    SAMPIntegratedClient.send : Send any object and return a report.
    """
    from .formats.registry import as_votable  # noqa: PLC0415

    product, form = as_votable(table)
    mtype = form.mtype
    recipient = find_client_id(conn, client_name) if client_name else None
    if recipient is not None and best_match(conn.get_subscriptions(recipient), mtype) is None:
        raise SAMPProxyError(1, f"{client_name} is not subscribed to {mtype}")
    conn.send(product, recipient, name=name, mtype=mtype, timeout=LOAD_TIMEOUT)


def send_product_to(
    conn: SAMPIntegratedClient, url: str, mtype: str, client_name: str | None = None, name: str = "data", **params: Any
) -> None:
    """
    Ask clients to load the file at a URL.

    Parameters
    ----------
    conn : SAMPIntegratedClient
        A connected client.
    url : str
        URL of the file, which must stay readable.
    mtype : str
        MType of the message, such as ``image.load.fits``.
    client_name : str, optional
        Name of the recipient; by default, all clients that are subscribed to the MType.
    name : str
        The name that the recipient shows.
    **params
        Additional parameters of the message.
    """
    if client_name:
        conn.enotify(find_client_id(conn, client_name), mtype, url=url, name=name, **params)
    else:
        conn.enotify_all(mtype, url=url, name=name, **params)


def send_spectrum_to(
    conn: SAMPIntegratedClient, url: str, client_name: str | None = None, name: str = "data"
) -> None:
    """
    Ask clients to load a spectrum.

    Parameters
    ----------
    conn, url, client_name, name
        As in `send_product_to`.
    """
    send_product_to(conn, url, "spectrum.load.ssa-generic", client_name, name, meta={})


def send_image_to(conn: SAMPIntegratedClient, url: str, client_name: str | None = None, name: str = "data") -> None:
    """
    Ask clients to load an image.

    Parameters
    ----------
    conn, url, client_name, name
        As in `send_product_to`.
    """
    send_product_to(conn, url, "image.load.fits", client_name, name)
