# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Aladin as a client of our hub, and Aladin's hub with our client."""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

from .conftest import Run
from .programs import Program, Screen, until, wait_for_hub
from .recorder import Recorder
from .samples import DEC, HEIGHT, RA, ROWS, WIDTH, write_image, write_table

Connect = Callable[..., SAMPIntegratedClient]

pytestmark = pytest.mark.timeout(120)


def start(show: Run) -> Program:
    """Start Aladin and wait until it is ready. It registers earlier, but then ignores messages."""
    aladin = show("aladin", "-local", "-noreleasetest", "-noplugin", "-nolog", "-theme=classic")
    aladin.wait_for("Command>", 60)
    return aladin


def status(client: SAMPIntegratedClient, aladin: str) -> str:
    """Return the text with which Aladin's script language describes what is shown."""
    response = client.ecall_and_wait(aladin, "script.aladin.send", 20, script="status")
    assert response["samp.status"] == "samp.ok", response
    return str(response["samp.result"]["script.result"])


def exercise(client: SAMPIntegratedClient, aladin: str, directory: Path) -> None:
    """Have Aladin show an image and a table; request the description of both, and the position."""
    response = client.ecall_and_wait(aladin, "image.load.fits", 60, url=write_image(directory), name="crab")
    assert response["samp.status"] == "samp.ok", response
    position = client.ecall_and_wait(aladin, "coord.get.sky", 20)["samp.result"]
    assert [float(position["ra"]), float(position["dec"])] == pytest.approx([RA, DEC], abs=0.001)

    table, url = write_table(directory)
    response = client.ecall_and_wait(aladin, "table.load.votable", 60, url=url, name="stars", **{"table-id": "stars"})
    assert response["samp.status"] == "samp.ok", response
    seen = until(lambda: status(client, aladin), lambda text: "stars" in text)
    assert len(table) == ROWS
    assert re.search(rf"NbObj\s+{ROWS}\b", seen), seen
    assert re.search(rf"Width\s+{WIDTH}\s+Height\s+{HEIGHT}\b", seen), seen

    response = client.ecall_and_wait(aladin, "coord.pointAt.sky", 20, ra=RA + 0.01, dec=DEC)
    assert response["samp.status"] == "samp.ok", response
    position = client.ecall_and_wait(aladin, "coord.get.sky", 20)["samp.result"]
    assert [float(position["ra"]), float(position["dec"])] == pytest.approx([RA + 0.01, DEC], abs=1e-6)


def test_aladin_at_our_hub(
    hub: SAMPHubServer, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """Aladin loads an image and a table, and responds with the position in its view."""
    client = connect("sender")
    start(show)
    aladin = client.wait_for("Aladin", 60, "image.load.fits").id
    exercise(client, aladin, tmp_path)
    screen.screenshot(artefacts / "aladin.png")


def test_a_call_to_aladin_before_it_is_ready_ends(
    hub: SAMPHubServer, connect: Connect, show: Run, tmp_path: Path
) -> None:
    """
    Aladin registers before it is ready. The caller of a message that Aladin then rejects gets Aladin's error at
    once (R23).
    """
    client = connect("sender")
    show("aladin", "-local", "-noreleasetest", "-noplugin", "-nolog", "-theme=classic")
    aladin = client.wait_for("Aladin", 60, "image.load.fits").id
    response = client.ecall_and_wait(aladin, "image.load.fits", 60, url=write_image(tmp_path), name="crab")
    assert response["samp.status"] in ("samp.ok", "samp.error"), response


def test_a_call_to_aladin_after_a_restart_of_the_hub_ends(hub: SAMPHubServer, connect: Connect, show: Run) -> None:
    """
    Aladin registers again, but with an address that it has closed. The caller gets an error and does not wait
    (R23).
    """
    client = connect("one")
    start(show)
    client.wait_for("Aladin", 60, "coord.get.sky")
    client.disconnect()
    hub.stop()
    hub.start()
    client = connect("two")
    aladin = client.wait_for("Aladin", 60, "coord.get.sky").id
    response = client.ecall_and_wait(aladin, "coord.get.sky", 20)
    assert response["samp.status"] == "samp.error"
    assert response["samp.error"]["samp.code"] == "samp.noresponse"


def test_our_client_at_aladins_hub(
    home: Path, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """The same as at our hub, and messages between our clients."""
    start(show)
    wait_for_hub(home)
    sender, receiver = connect("sender"), connect("receiver")
    aladin = sender.wait_for("Aladin", 60, "image.load.fits").id
    exercise(sender, aladin, tmp_path)
    screen.screenshot(artefacts / "aladin-hub.png")

    received = Recorder(receiver, "x-test.*")
    response = sender.ecall_and_wait(receiver.get_public_id(), "x-test.number", 20, value=1.5)
    assert response["samp.result"] == {"echo": {"value": "1.5"}}
    assert received.wait(1)[0].content == {"value": "1.5"}
