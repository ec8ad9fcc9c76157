# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""TOPCAT, both ways round: a member of our hub, and the hub of our client."""
from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import numpy as np
import pytest
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.testing import RecordingClient
from tests.conftest import ROOT

from .conftest import Run
from .programs import Screen, until, wait_for_hub
from .recorder import Recorder
from .samples import ROWS, write_table

Connect = Callable[..., RecordingClient]
SAMP = (sys.executable, "-m", "pyvo.samp")

#: Where TOPCAT's window, alone on the screen, has the button that broadcasts the table.
BROADCAST = (115, 39)

pytestmark = pytest.mark.timeout(120)


def load(client: SAMPIntegratedClient, topcat: str, url: str) -> None:
    """Let TOPCAT load the table, and wait until it knows it by its table-id.

    It answers ``samp.ok`` when it has read the table, a moment before it has taken the name into its books.
    """
    response = client.ecall_and_wait(
        topcat, "table.load.votable", 60, url=url, name="Stars of a test", **{"table-id": "stars"}
    )
    assert response["samp.status"] == "samp.ok", response
    until(lambda: highlight(client, topcat, ROWS - 1), is_ok)


def highlight(client: SAMPIntegratedClient, topcat: str, row: int) -> Mapping[str, Any]:
    """Point TOPCAT at a row, whose number is sent as the int that it is."""
    return client.ecall_and_wait(topcat, "table.highlight.row", 20, row=row, **{"table-id": "stars"})


def select(client: SAMPIntegratedClient, topcat: str, rows: list[int]) -> Mapping[str, Any]:
    """Let TOPCAT select some rows."""
    return client.ecall_and_wait(topcat, "table.select.rowList", 20, **{"table-id": "stars", "row-list": rows})


def is_ok(response: Mapping[str, Any]) -> bool:
    """Tell a success from a warning or an error."""
    return bool(response["samp.status"] == "samp.ok")


def assert_same(back: Table, table: Table) -> None:
    """Check that a table survived its journey."""
    assert back.colnames == table.colnames
    assert len(back) == len(table)
    for name in table.colnames:
        assert back[name].unit == table[name].unit
        assert np.array_equal(np.ma.getmaskarray(back[name]), np.ma.getmaskarray(table[name]))
        assert np.ma.allequal(np.ma.asarray(back[name]), np.ma.asarray(table[name]))


def test_topcat_loads_what_our_client_sends(
    hub: SAMPHubServer, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """TOPCAT on our hub loads a table, knows its rows, hands it back equal, and broadcasts it when its user says so."""
    client = connect("sender")
    received = Recorder(client, "table.load.*")  # now, so that TOPCAT knows of somebody to broadcast to when asked
    show("topcat", "-samp")
    topcat = client.wait_for("topcat", 60, "table.load.votable").id
    table, url = write_table(tmp_path)

    load(client, topcat, url)
    beyond = highlight(client, topcat, ROWS)
    assert beyond["samp.status"] == "samp.error"
    assert "out of range" in beyond["samp.error"]["samp.errortxt"]
    assert is_ok(select(client, topcat, [0, 7]))
    screen.screenshot(artefacts / "topcat.png")

    given = client.ecall_and_wait(topcat, "table.get.stil", 20, format="votable")
    assert_same(Table.read(given["samp.result"]["url"], format="votable"), table)

    screen.click(*BROADCAST)
    delivery = received.wait(1)[0]
    assert (delivery.kind, delivery.sender) == ("call", topcat)
    assert_same(Table.read(delivery.content["url"], format="votable"), table)


def test_topcat_understands_a_client_that_sends_numbers(
    hub: SAMPHubServer, connect: Connect, show: Run, tmp_path: Path
) -> None:
    """What another library sends as XML-RPC numbers reaches TOPCAT as strings (R5); it would refuse the numbers."""
    client = connect("sender")
    show("topcat", "-samp")
    topcat = client.wait_for("topcat", 60, "table.load.votable").id
    load(client, topcat, write_table(tmp_path)[1])
    with ServerProxy(hub.params["samp.hub.xmlrpc.url"]) as proxy:
        key = proxy.samp.hub.register(hub.params["samp.secret"])["samp.private-key"]
        message = {"samp.mtype": "table.highlight.row", "samp.params": {"table-id": "stars", "row": 7}}
        assert proxy.samp.hub.callAndWait(key, topcat, message, "20")["samp.status"] == "samp.ok"
        message = {"samp.mtype": "table.select.rowList", "samp.params": {"table-id": "stars", "row-list": [0, 1]}}
        assert proxy.samp.hub.callAndWait(key, topcat, message, 20)["samp.status"] == "samp.ok"
        proxy.samp.hub.unregister(key)


def test_topcat_tells_what_it_cannot_load(hub: SAMPHubServer, connect: Connect, show: Run, tmp_path: Path) -> None:
    """The error of a foreign client reaches the caller in its own words (R17)."""
    client = connect("sender")
    show("topcat", "-samp")
    topcat = client.wait_for("topcat", 60, "table.load.votable").id
    response = client.ecall_and_wait(topcat, "table.load.votable", 20, url=(tmp_path / "none.vot").as_uri())
    assert response["samp.status"] == "samp.error"
    assert "No such file" in response["samp.error"]["samp.errortxt"]


def test_topcat_knows_who_comes_while_it_looks_around(
    hub: SAMPHubServer, connect: Connect, show: Run, screen: Screen, tmp_path: Path
) -> None:
    """TOPCAT forgets what it is told while it asks who is there; it knows those who come just then all the same."""
    first = connect("first")
    show("topcat", "-samp")
    topcat = first.wait_for("topcat", 60, "table.load.votable").id
    crowd = [Recorder(connect(f"late {number}"), "table.load.*") for number in range(10)]
    load(first, topcat, write_table(tmp_path)[1])
    screen.click(*BROADCAST)
    for received in crowd:
        assert received.wait(1)[0].sender == topcat


def test_topcat_comes_back_to_a_new_hub_and_says_goodbye(hub: SAMPHubServer, connect: Connect, show: Run) -> None:
    """TOPCAT registers again by itself when our hub was restarted, and unregisters when it is ended."""
    client = connect("one")
    topcat = show("topcat", "-samp")
    first = client.wait_for("topcat", 60, "samp.app.ping").id
    # It must be awake when the hub goes: having missed the news of that, it would wait for the old hub for ever.
    assert is_ok(client.ecall_and_wait(first, "samp.app.ping", 30))
    client.disconnect()
    hub.stop()
    hub.start()

    client = connect("two")
    again = client.wait_for("topcat", 60, "samp.app.ping").id
    topcat.stop()
    client.assert_unregistered(again, within=30)


def test_our_client_works_with_topcats_own_hub(
    home: Path, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """The same code, with TOPCAT for the hub: a table there, a selection, and messages between clients of ours."""
    show("topcat", "-hub")
    wait_for_hub(home)
    sender, receiver = connect("sender"), connect("receiver")
    topcat_id = sender.wait_for("topcat", 60, "table.load.votable").id
    table, url = write_table(tmp_path)

    load(sender, topcat_id, url)
    assert is_ok(select(sender, topcat_id, [0, 7]))
    given = sender.ecall_and_wait(topcat_id, "table.get.stil", 20, format="votable")
    assert_same(Table.read(given["samp.result"]["url"], format="votable"), table)
    screen.screenshot(artefacts / "topcat-hub.png")

    received = Recorder(receiver, "x-test.*")
    response = sender.ecall_and_wait(receiver.get_public_id(), "x-test.number", 20, value=1.5)
    assert response["samp.result"] == {"echo": {"value": "1.5"}}
    assert received.wait(1)[0].content == {"value": "1.5"}


@pytest.mark.timeout(240)
def test_recorded_session(
    hub: SAMPHubServer, connect: Connect, show: Run, run: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """What TOPCAT was sent is recorded, and played to another TOPCAT at another hub: a table, and selected rows."""
    client = connect("sender")
    first = show("topcat", "-samp")
    topcat = client.wait_for("topcat", 60, "table.load.votable").id
    path = tmp_path / "session.jsonl"
    snoop = run(*SAMP, "snoop", "--record", str(path), "--files", PYTHONPATH=str(ROOT))
    snoop.wait_for("until ^C")
    table, url = write_table(tmp_path)
    load(client, topcat, url)
    assert is_ok(select(client, topcat, [0, 7]))
    snoop.wait_for("row-list")
    snoop.signal(signal.SIGINT)
    assert snoop.finish() == 0
    client.disconnect()
    first.stop()
    hub.stop()
    Path(url.removeprefix("file://")).unlink()  # only the copy is left

    hub.start()
    show("topcat", "-samp")
    client = connect("other")
    topcat = client.wait_for("topcat", 60, "table.load.votable").id
    replay = run(*SAMP, "replay", str(path), "--to", "topcat", "--color", "never", PYTHONPATH=str(ROOT))
    assert replay.finish() == 0, replay.output
    assert f"table.load.votable  call from sender (c1) to topcat ({topcat})" in replay.output
    assert f"table.select.rowList  call from sender (c1) to topcat ({topcat})" in replay.output
    assert "0 problems" in replay.output, replay.output
    given = client.ecall_and_wait(topcat, "table.get.stil", 20, format="votable")
    assert_same(Table.read(given["samp.result"]["url"], format="votable"), table)
    screen.screenshot(artefacts / "topcat-replay.png")
