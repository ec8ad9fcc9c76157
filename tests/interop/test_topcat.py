# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""TOPCAT as a client of our hub, and TOPCAT's hub with our client."""
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

#: Position on the screen of the button with which TOPCAT broadcasts the table, if TOPCAT is alone there.
BROADCAST = (115, 39)

pytestmark = pytest.mark.timeout(120)


def load(client: SAMPIntegratedClient, topcat: str, url: str) -> None:
    """Have TOPCAT load the table, and wait until TOPCAT knows its table-id.

    TOPCAT responds with ``samp.ok`` when it has read the table, a moment before it knows the table-id.
    """
    response = client.ecall_and_wait(
        topcat, "table.load.votable", 60, url=url, name="Stars of a test", **{"table-id": "stars"}
    )
    assert response["samp.status"] == "samp.ok", response
    until(lambda: highlight(client, topcat, ROWS - 1), is_ok)


def highlight(client: SAMPIntegratedClient, topcat: str, row: int) -> Mapping[str, Any]:
    """Have TOPCAT highlight a row. The number is sent as an int."""
    return client.ecall_and_wait(topcat, "table.highlight.row", 20, row=row, **{"table-id": "stars"})


def select(client: SAMPIntegratedClient, topcat: str, rows: list[int]) -> Mapping[str, Any]:
    """Have TOPCAT select rows."""
    return client.ecall_and_wait(topcat, "table.select.rowList", 20, **{"table-id": "stars", "row-list": rows})


def is_ok(response: Mapping[str, Any]) -> bool:
    """Return whether a response is a success, not a warning or an error."""
    return bool(response["samp.status"] == "samp.ok")


def assert_same(back: Table, table: Table) -> None:
    """Check that a table is unchanged."""
    assert back.colnames == table.colnames
    assert len(back) == len(table)
    for name in table.colnames:
        assert back[name].unit == table[name].unit
        assert np.array_equal(np.ma.getmaskarray(back[name]), np.ma.getmaskarray(table[name]))
        assert np.ma.allequal(np.ma.asarray(back[name]), np.ma.asarray(table[name]))


def test_topcat_at_our_hub(
    hub: SAMPHubServer, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """
    TOPCAT loads a table, knows its rows, returns an equal table, and broadcasts it when its user presses a button.
    """
    client = connect("sender")
    received = Recorder(client, "table.load.*")  # now, so that TOPCAT knows a recipient
    show("topcat", "-samp")
    topcat = client.wait_for("topcat", 60, "table.load.votable").id
    table, url = write_table(tmp_path)

    load(client, topcat, url)
    beyond = highlight(client, topcat, ROWS)
    assert beyond["samp.status"] == "samp.error"
    assert "out of range" in beyond["samp.error"]["samp.errortxt"]
    assert is_ok(select(client, topcat, [0, 7]))
    screen.screenshot(artefacts / "topcat.png")

    response = client.ecall_and_wait(topcat, "table.get.stil", 20, format="votable")
    assert_same(Table.read(response["samp.result"]["url"], format="votable"), table)

    screen.click(*BROADCAST)
    delivery = received.wait(1)[0]
    assert (delivery.kind, delivery.sender) == ("call", topcat)
    assert_same(Table.read(delivery.content["url"], format="votable"), table)


def test_topcat_understands_a_client_that_sends_numbers(
    hub: SAMPHubServer, connect: Connect, show: Run, tmp_path: Path
) -> None:
    """XML-RPC numbers of another library reach TOPCAT as strings (R5). TOPCAT would reject numbers."""
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


def test_the_caller_gets_the_error_of_topcat(hub: SAMPHubServer, connect: Connect, show: Run, tmp_path: Path) -> None:
    """The text of the error is TOPCAT's (R17)."""
    client = connect("sender")
    show("topcat", "-samp")
    topcat = client.wait_for("topcat", 60, "table.load.votable").id
    response = client.ecall_and_wait(topcat, "table.load.votable", 20, url=(tmp_path / "none.vot").as_uri())
    assert response["samp.status"] == "samp.error"
    assert "No such file" in response["samp.error"]["samp.errortxt"]


def test_topcat_knows_clients_that_register_during_its_discovery(
    hub: SAMPHubServer, connect: Connect, show: Run, screen: Screen, tmp_path: Path
) -> None:
    """TOPCAT loses events during its discovery calls. It must know clients that register at this time."""
    first = connect("first")
    show("topcat", "-samp")
    topcat = first.wait_for("topcat", 60, "table.load.votable").id
    recorders = [Recorder(connect(f"late {number}"), "table.load.*") for number in range(10)]
    load(first, topcat, write_table(tmp_path)[1])
    screen.click(*BROADCAST)
    for received in recorders:
        assert received.wait(1)[0].sender == topcat


def test_topcat_registers_again_after_a_restart_of_the_hub(hub: SAMPHubServer, connect: Connect, show: Run) -> None:
    """TOPCAT does so by itself, and unregisters when it ends."""
    client = connect("one")
    topcat = show("topcat", "-samp")
    first = client.wait_for("topcat", 60, "samp.app.ping").id
    # TOPCAT must be ready when the hub stops. If it missed the shutdown event, it would wait for the old hub for ever.
    assert is_ok(client.ecall_and_wait(first, "samp.app.ping", 30))
    client.disconnect()
    hub.stop()
    hub.start()

    client = connect("two")
    again = client.wait_for("topcat", 60, "samp.app.ping").id
    topcat.stop()
    client.assert_unregistered(again, within=30)


def test_our_client_at_topcats_hub(
    home: Path, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """TOPCAT loads a table and selects rows, and our clients exchange messages."""
    show("topcat", "-hub")
    wait_for_hub(home)
    sender, receiver = connect("sender"), connect("receiver")
    topcat_id = sender.wait_for("topcat", 60, "table.load.votable").id
    table, url = write_table(tmp_path)

    load(sender, topcat_id, url)
    assert is_ok(select(sender, topcat_id, [0, 7]))
    response = sender.ecall_and_wait(topcat_id, "table.get.stil", 20, format="votable")
    assert_same(Table.read(response["samp.result"]["url"], format="votable"), table)
    screen.screenshot(artefacts / "topcat-hub.png")

    received = Recorder(receiver, "x-test.*")
    response = sender.ecall_and_wait(receiver.get_public_id(), "x-test.number", 20, value=1.5)
    assert response["samp.result"] == {"echo": {"value": "1.5"}}
    assert received.wait(1)[0].content == {"value": "1.5"}


@pytest.mark.timeout(240)
def test_a_recorded_session_can_be_replayed(
    hub: SAMPHubServer, connect: Connect, show: Run, run: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """
    The messages to one TOPCAT, a table and a selection, are recorded and replayed to another TOPCAT at another hub.
    """
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
    response = client.ecall_and_wait(topcat, "table.get.stil", 20, format="votable")
    assert_same(Table.read(response["samp.result"]["url"], format="votable"), table)
    screen.screenshot(artefacts / "topcat-replay.png")
