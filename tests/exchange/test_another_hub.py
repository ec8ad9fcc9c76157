# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Public ids, table-ids and addresses are used again: by another hub, or for another recipient.

A hub never reuses a public id (R6), but the next hub starts from the beginning: its ``c2`` is another client.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from astropy.table import Table

from pyvo.samp import SAMPClientError, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.exchange.client_list import Clients

from .conftest import assert_same

Connect = Callable[..., SAMPIntegratedClient]
Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


class Restart:
    """Alice reconnects to the next hub, where Carol has the id that Bob had before."""

    def __init__(self, make_hub: Callable[..., SAMPHubServer], connect: Connect) -> None:
        self._make_hub = make_hub
        self._hub = make_hub()
        states: queue.Queue[str] = queue.Queue()
        self._states = states
        self.alice = connect("Alice", how={"reconnect": True, "on_state": states.put})
        self.bob, self.carol = connect("Bob"), connect("Carol")
        self.loads: queue.Queue[str] = queue.Queue()
        self.selections: queue.Queue[str] = queue.Queue()
        for client, name in ((self.bob, "Bob"), (self.carol, "Carol")):
            self._bind(client, name)

    def _bind(self, client: SAMPIntegratedClient, name: str) -> None:
        def load(table: Table) -> None:
            self.loads.put(name)

        client.on("table.load.votable")(load)
        client.on("table.select.rowList")(lambda: self.selections.put(name))

    def restart(self) -> None:
        before = self.bob.get_public_id()
        for client in (self.bob, self.carol):
            client.disconnect()
        self._hub.stop()
        assert self._states.get(timeout=10) == "lost"
        self._hub = self._make_hub()
        assert self._states.get(timeout=10) == "connected"
        self.carol.connect()
        self.bob.connect()
        assert self.carol.get_public_id() == before


@pytest.fixture
def hubs(make_hub: Callable[..., SAMPHubServer], connect: Connect) -> Restart:
    return Restart(make_hub, connect)


def test_a_link_finds_its_viewer_at_the_next_hub(hubs: Restart, table: Table) -> None:
    """Selections go to the client that has the table, not to the client that has its id now."""
    with hubs.alice.link(table, to="bob") as link:
        assert link.select([0]).ok
        assert hubs.selections.get(timeout=10) == "Bob"
        hubs.restart()
        report = link.select([1])
        assert list(report.asked.values()) == ["Bob"]
        assert report.ok
        assert hubs.selections.get(timeout=10) == "Bob"
        assert hubs.selections.empty()


def test_an_entry_of_the_list_refers_to_the_same_client(hubs: Restart, table: Table) -> None:
    """An entry of the earlier hub is resolved by its name; an entry of the current hub by its id."""
    bob = hubs.alice.wait_for("bob", 10, "table.load.votable")
    hubs.restart()
    assert hubs.alice.send(table, to=bob).ok
    assert hubs.loads.get(timeout=10) == "Bob"
    now = hubs.alice.wait_for("bob", 10, "table.load.votable")
    assert now.id != bob.id
    hubs.bob.declare_metadata({"samp.name": "Robert"})
    assert hubs.alice.send(table, to=now).ok
    assert hubs.loads.get(timeout=10) == "Bob"
    with pytest.raises(SAMPClientError, match="'Bob'"):
        hubs.alice.send(table, to=bob)
    assert hubs.loads.empty()


def test_a_list_of_an_earlier_registration_is_discarded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the client registers with another hub while it requests the list, it requests the list again."""
    alice, _ = pair
    filled: list[str | None] = []
    fill = Clients._fill

    def fill_and_move(clients: Clients, client: SAMPIntegratedClient) -> None:
        filled.append(alice.get_private_key())
        fill(clients, client)
        if len(filled) == 1:
            alice.disconnect()
            alice.connect()

    monkeypatch.setattr(Clients, "_fill", fill_and_move)
    for _ in range(3):
        assert [each.name for each in alice.clients] == ["Bob"]
    assert len(filled) == len(set(filled)) == 2
    assert filled[-1] == alice.get_private_key()


def test_a_queue_keeps_messages_of_different_clients(pair: Pair) -> None:
    """A table with the same table-id replaces the earlier one, but not one that the ``c9`` of the last hub sent."""
    _, bob = pair
    message = {"samp.mtype": "table.mine", "samp.params": {"table-id": "1"}}
    with bob.incoming("table.mine") as arrived:
        for key in ("key", "key", "another key"):
            bob.receive_notification(key, "c9", message)
        assert len(arrived) == 2


def test_the_same_table_id_for_another_recipient(pair: Pair, connect: Connect, table: Table) -> None:
    """A table that one recipient has not read yet stays if another recipient is sent a table with the same table-id."""
    alice, bob = pair
    carol = connect("Carol")
    go = threading.Event()
    got: queue.Queue[Table] = queue.Queue()

    def bind(client: SAMPIntegratedClient) -> None:
        def load(_key: str, _sender: str, mtype: str, params: Any, _extra: Any) -> None:
            assert go.wait(10)
            got.put(Table.read(params["url"].removeprefix("file://"), format="votable"))

        client.bind_receive_call("table.load.votable", load)

    bind(bob)
    bind(carol)
    reports = [alice.send(table, to=name, table_id="t", wait=False) for name in ("bob", "carol")]
    assert len(alice._exchange.file_server.files) == 2
    reports.append(alice.send(table, to="carol", table_id="t", wait=False))
    assert len(alice._exchange.file_server.files) == 2  # Carol's first table has been replaced
    go.set()
    assert reports[0].wait(20).ok
    assert_same(got.get(timeout=10), table)


def test_a_hub_at_the_same_address(hub: SAMPHubServer, connect: Connect) -> None:
    """A hub with another secret is another hub, even if it has the address of a hub that ended unnoticed."""
    alice = connect("Alice")
    before = alice.get_public_id()
    alice.connect(hub=hub)
    alice.connect(hub_params={"samp.hub.xmlrpc.url": hub.params["samp.hub.xmlrpc.url"]})
    assert alice.get_public_id() == before
    alice.hub.lockfile["samp.secret"] = "that of the hub before"
    alice.connect(hub=hub)
    assert alice.get_public_id() != before
    assert alice.ping() == ""
