# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""DS9 as a member of our hub. Its HTTP is its own: no Host header, lines ended by LF, a connection per request."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

from .conftest import Run
from .programs import Screen
from .samples import DEC, HEIGHT, RA, WIDTH, write_image
from .witness import Witness

Connect = Callable[..., SAMPIntegratedClient]

pytestmark = pytest.mark.timeout(120)


def ask(client: SAMPIntegratedClient, ds9: str, command: str) -> str:
    """Put a question to DS9 in its own language."""
    response = client.ecall_and_wait(ds9, "ds9.get", 20, cmd=command)
    assert response["samp.status"] == "samp.ok", response
    return str(response["samp.result"]["value"])


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_ds9_shows_the_image_that_our_client_sends(
    hub: SAMPHubServer, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path, locale: str
) -> None:
    """DS9 registers, loads the image, says so when asked, and does what it is told, under both kinds of locale."""
    client = connect("sender")
    ds9_program = show("ds9", "-xpa", "no", LANG=locale, LC_ALL=locale)
    ds9 = Witness(client).arrival("SAOImageDS9", "image.load.fits")

    response = client.ecall_and_wait(ds9, "image.load.fits", 60, url=write_image(tmp_path), name="crab")
    assert response["samp.status"] == "samp.ok", response
    assert Path(ask(client, ds9, "file")).name == "crab.fits"
    assert ask(client, ds9, "fits size").split() == [str(WIDTH), str(HEIGHT)]

    # Numbers of Python's, an empty string and text beyond ASCII must not make DS9 fall silent.
    response = client.ecall_and_wait(ds9, "coord.pointAt.sky", 20, ra=RA, dec=DEC + 1e-6, comment="")
    assert response["samp.status"] == "samp.ok", response
    assert client.ecall_and_wait(ds9, "ds9.set", 20, cmd="zoom to fit")["samp.status"] == "samp.ok"
    with pytest.warns(UserWarning, match="ASCII"):
        client.ecall_and_wait(ds9, "ds9.set", 20, cmd="frame first", note="\N{GREEK SMALL LETTER ALPHA} Centauri")
    position = [float(word) for word in ask(client, ds9, "pan wcs fk5 degrees").split()]
    assert position == pytest.approx([RA, DEC], abs=0.001)
    screen.screenshot(artefacts / f"ds9-{locale}.png")

    # DS9 goes without a word when it is killed: the next call to it must end, with an error (R23).
    ds9_program.stop()
    lost = client.ecall_and_wait(ds9, "ds9.get", 20, cmd="file")
    assert lost["samp.status"] == "samp.error"
    assert lost["samp.error"]["samp.code"] == "samp.noresponse"


def test_ds9_answers_many_calls_at_once(hub: SAMPHubServer, connect: Connect, show: Run) -> None:
    """Many calls in flight come back each with its own answer (R20)."""
    client = connect("sender")
    show("ds9", "-xpa", "no")
    ds9 = Witness(client).arrival("SAOImageDS9", "ds9.get")
    commands = ["version", "frame", "scale", "cmap", "orient"]
    expected = [ask(client, ds9, command) for command in commands]
    assert len(set(expected)) == len(commands), expected
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda command: ask(client, ds9, command), commands * 10))
    assert answers == expected * 10
