# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The command line with JSAMP: clients of JSAMP at our hub, and our commands at JSAMP's hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer
from pyvo.samp.cli import main

from .conftest import Run
from .programs import Program

SAMP = (sys.executable, "-m", "pyvo.samp")
ROOT = str(Path(__file__).parents[2])
Capture = pytest.CaptureFixture[str]


def wait_for_snooper(capsys: Capture) -> None:
    """Wait until JSAMP's snooper is subscribed."""
    from pyvo.samp import SAMPIntegratedClient

    with SAMPIntegratedClient("Waiting") as client:
        client.wait_for("Snooper", 30, "a.b")
    capsys.readouterr()


@pytest.mark.timeout(120)
def test_messages_of_jsamp_are_shown(hub: SAMPHubServer, run: Run) -> None:
    """``samp snoop`` shows messages of JSAMP, and JSAMP gets a response."""
    snoop = run(*SAMP, "snoop", "table.*", "--color", "never", PYTHONPATH=ROOT)
    snoop.wait_for("until ^C")
    message = ("-mtype", "table.load.votable", "-param", "url", "file:///x")
    sender = run("jsamp", "messagesender", *message, "-mode", "sync")
    assert sender.finish(60) == 0, sender.output
    assert "samp snoop has displayed this message" in sender.output
    snoop.wait_for("url = file:///x")
    assert "table.load.votable  call from" in snoop.output


@pytest.mark.timeout(120)
def test_files_of_jsamp_are_received(hub: SAMPHubServer, run: Run, tmp_path: Path) -> None:
    """A notification with a URL in the form that Java writes results in a file."""
    source = tmp_path / "a file.xml"
    source.write_text('<?xml version="1.0"?>\n<VOTABLE></VOTABLE>\n')
    receive = run(*SAMP, "receive", "-o", str(tmp_path / "out"), PYTHONPATH=ROOT)
    receive.wait_for("until ^C")
    url = f"file:{str(source).replace(' ', '%20')}"
    mtype = ("-mtype", "table.load.votable", "-param", "url", url, "-param", "name", "../stars")
    sender = run("jsamp", "messagesender", *mtype, "-mode", "notify")
    assert sender.finish(60) == 0, sender.output
    receive.wait_for("stars.vot")
    assert (tmp_path / "out" / "stars.vot").read_bytes() == source.read_bytes()


@pytest.mark.timeout(120)
def test_all_commands_work_at_jsamps_hub(jsamp_hub: Program, run: Run, capsys: Capture, tmp_path: Path) -> None:
    """All commands work with JSAMP's hub."""
    run("jsamp", "snooper")
    wait_for_snooper(capsys)
    assert main(["list", "--json"]) == 0
    assert "Snooper" in [entry["name"] for entry in json.loads(capsys.readouterr().out)]
    assert main(["call", "a.b", "rows:=[1, 2.5]", "--json"]) == 0
    (response,) = json.loads(capsys.readouterr().out)["responses"]
    assert (response["name"], response["status"]) == ("Snooper", "samp.warning")
    assert main(["notify", "a.b", "--to", "snooper"]) == 0
    assert main(["point", "05:34:31.9", "-05:23:28"]) == 0
    (tmp_path / "t.csv").write_text("ra,dec\n1,2\n")
    assert main(["send", str(tmp_path / "t.csv")]) == 0
    assert "Snooper" in capsys.readouterr().out
    assert main(["doctor", "--web-port", "1"]) == 0
    assert "responds." in capsys.readouterr().out


@pytest.mark.timeout(120)
def test_monitor_shows_jsamp(run: Run, tmp_path: Path) -> None:
    """The monitor shows messages between clients of JSAMP, including those to one client."""
    monitor = run(*SAMP, "hub", "--monitor", "-w", PYTHONPATH=ROOT)
    monitor.wait_for("The hub is running")
    run("jsamp", "snooper")
    monitor.wait_for("has the name Snooper")
    monitor.wait_for("is subscribed to *")
    message = ("-targetname", "Snooper", "-mtype", "a.b", "-param", "k", "v")
    sender = run("jsamp", "messagesender", *message, "-mode", "sync")
    assert sender.finish(60) == 0, sender.output
    monitor.wait_for('-> Snooper (c1): a.b {"k": "v"}')
    monitor.wait_for("Snooper (c1): samp.warning after")
