"""Functions that send tables and products with one call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from astropy.table import Table

from pyvo.samp import (
    SAMPHubServer,
    SAMPIntegratedClient,
    SAMPProxyError,
    SAMPWarning,
    accessible_table,
    connection,
    send_image_to,
    send_product_to,
    send_spectrum_to,
    send_table_to,
)

from .conftest import Connect, record


class Reader:
    """A handler that reads the table before it replies."""

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self.client = client
        self.tables: list[tuple[str, Table]] = []

    def __call__(self, key: str, sender: str, msg_id: Any, mtype: str, params: Any, extra: Any) -> None:
        self.tables.append((params["name"], Table.read(url2pathname(urlsplit(params["url"]).path), format="votable")))
        self.client.ereply(msg_id, "samp.ok", {})


@pytest.fixture
def table() -> Table:
    """A small table."""
    return Table({"a": [1, 2], "b": ["x", "y"]})


def test_connection(hub: SAMPHubServer, connect: Connect) -> None:
    """`connection` connects a client for a ``with`` block."""
    witness = connect("Witness")
    with connection("Mine", "A description", metadata={"author.name": "Me"}) as client:
        assert witness.get_metadata("mine") == {
            "samp.name": "Mine",
            "samp.description.text": "A description",
            "author.name": "Me",
        }
        assert client.is_connected
    assert not client.is_connected
    with connection() as client:
        assert witness.get_metadata("pyvo client")["samp.description.text"] == "A generic PyVO client"


def test_accessible_table(table: Table) -> None:
    """The file exists during the block, and only its owner can read it."""
    with accessible_table(table) as url:
        path = Path(url2pathname(urlsplit(url).path))
        assert url == path.as_uri()
        assert path.parent.stat().st_mode & 0o077 == 0 or os.name == "nt"
        assert list(Table.read(path, format="votable")["a"]) == [1, 2]
    assert not path.parent.exists()


def test_send_table_to_one_recipient(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    """The recipient is given by its name, in upper or lower case."""
    alice, bob, carol = connect("Alice"), connect("Bob"), connect("Carol")
    readers = [Reader(bob), Reader(carol)]
    for reader in readers:
        reader.client.bind_receive_call("table.load.votable", reader)
    send_table_to(alice, table, client_name="BOB", name="mine")
    assert [name for name, _ in readers[0].tables] == ["mine"]
    assert list(readers[0].tables[0][1]["b"]) == ["x", "y"]
    assert readers[1].tables == []
    with pytest.raises(KeyError):
        send_table_to(alice, table, client_name="Dora")
    with pytest.raises(SAMPProxyError):
        send_table_to(bob, table, client_name="alice")


def test_send_table_to_all_recipients(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    """A warning names a recipient that cannot load the table; the others get the table."""
    alice, bob, carol = connect("Alice"), connect("Bob"), connect("Carol")
    with pytest.warns(SAMPWarning, match="nothing was sent"):
        send_table_to(alice, table)
    reader = Reader(carol)
    carol.bind_receive_call("table.load.*", reader)
    bob.bind_receive_call("table.load.votable", lambda key, s, mid, *rest: bob.ereply(mid, "samp.error", None, {}))
    with pytest.warns(SAMPWarning, match="did not load"):
        send_table_to(alice, table, name="all")
    assert [name for name, _ in reader.tables] == ["all"]


def test_products(hub: SAMPHubServer, connect: Connect) -> None:
    """URLs of spectra, images and other products are sent to one or to all recipients."""
    alice, bob = connect("Alice"), connect("Bob")
    note = record(bob)
    bob.bind_receive_notification("*", note)
    bob.bind_receive_notification("samp.hub.*", lambda *args: None)
    url = "http://example.org/product"
    send_spectrum_to(alice, url, "bob", name="spectrum")
    send_image_to(alice, url, name="image")
    send_product_to(alice, url, "bibcode.load")
    received = []
    while len(received) < 3:
        item = note.assert_received("*")
        if not item.mtype.startswith("samp.hub"):
            received.append((item.mtype, item.params))
    assert received == [
        ("spectrum.load.ssa-generic", {"url": url, "name": "spectrum", "meta": {}}),
        ("image.load.fits", {"url": url, "name": "image"}),
        ("bibcode.load", {"url": url, "name": "data"}),
    ]
    bob.disconnect()
    with pytest.warns(SAMPWarning, match=r"image\.load"):
        send_image_to(alice, url)
