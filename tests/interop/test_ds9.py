# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""DS9 as a member of our hub. Its HTTP is its own: no Host header, lines ended by LF, a connection per request."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pyvo.samp import SAMPClientError, SAMPHubServer, SAMPIntegratedClient, SAMPResponseError, SAMPTimeoutError

from .conftest import Run
from .programs import Screen
from .samples import DEC, HEIGHT, RA, WIDTH, write_image

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
    ds9 = client.wait_for("SAOImageDS9", 60, "image.load.fits").id

    response = client.ecall_and_wait(ds9, "image.load.fits", 60, url=write_image(tmp_path), name="crab")
    assert response["samp.status"] == "samp.ok", response
    assert Path(ask(client, ds9, "file")).name == "crab.fits"
    assert ask(client, ds9, "fits size").split() == [str(WIDTH), str(HEIGHT)]

    # Numbers of Python's, an empty string and text beyond ASCII must not make DS9 fall silent.
    response = client.ecall_and_wait(ds9, "coord.pointAt.sky", 20, ra=RA, dec=DEC + 1e-6, comment="")
    assert response["samp.status"] == "samp.ok", response
    response = client.ecall_and_wait(ds9, "ds9.set", 20, cmd="zoom to fit")
    assert response["samp.status"] == "samp.ok", response
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
    ds9 = client.wait_for("SAOImageDS9", 60, "ds9.get").id
    commands = ["version", "frame", "scale", "cmap", "orient"]
    expected = [ask(client, ds9, command) for command in commands]
    assert len(set(expected)) == len(commands), expected
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda command: ask(client, ds9, command), commands * 10))
    assert answers == expected * 10


@pytest.fixture
def asked(
    hub: SAMPHubServer, connect: Connect, show: Run, tmp_path: Path, home: Path
) -> Iterator[SAMPIntegratedClient]:
    """A client to whose hub a DS9 is connected that shows an image and a region. DS9 leaves no file behind."""
    client = connect("asker")
    show("ds9", "-xpa", "no", TMP=str(home))
    client.wait_for("ds9", 60, "ds9.get")
    url = write_image(tmp_path)
    assert client.send(url, to="ds9", mtype="image.load.fits").ok
    client.ds9("regions command {circle 20 20 5}")
    yield client
    # one of a question that was not answered may be there, without content
    assert [path.name for path in home.glob("ds9*.xpa*") if path.stat().st_size] == []


def test_long_answers(asked: SAMPIntegratedClient, tmp_path: Path) -> None:
    """They come as what they are, and are what DS9 shows."""
    ask = asked.ds9.get
    pixels = fits.getdata(tmp_path / "crab.fits", memmap=False)
    assert "circle(20" in ask("regions")
    assert "CRVAL1" in ask("fits header")
    values = sorted(float(value) for value in ask("data image 1 1 2 2 yes").split())
    assert values == pytest.approx(sorted(pixels[:2, :2].ravel()), rel=1e-4)
    hdus = ask("fits")
    assert isinstance(hdus, fits.HDUList)
    assert np.array_equal(hdus[0].data, pixels)
    assert np.array_equal(np.frombuffer(ask("array little"), "<f4").reshape(pixels.shape), pixels)
    assert ask("png").startswith(b"\x89PNG")
    assert ask("nrrd").startswith(b"NRRD")
    assert ask("fits size").split() == [str(WIDTH), str(HEIGHT)]
    assert asked.get_position("ds9").ra.deg == pytest.approx(RA, abs=0.01)
    with pytest.raises(SAMPTimeoutError, match=r"has not responded to ds9\.get 'plot list' within 2 s"):
        ask("plot list", timeout=2)
    with pytest.raises(SAMPClientError, match="cannot be read"):
        ask("rgbarray")
    assert ask("version").startswith(("SAOImageDS9 ", "ds9 "))


def questions() -> list[tuple[str, str]]:
    text = (Path(__file__).parent / "ds9_questions.txt").read_text()
    return [(kind, question) for kind, _, question in
            (line.partition("\t") for line in text.splitlines() if not line.startswith("#"))]


KINDS = {"str": str, "file": str, "bytes": bytes, "FITS": fits.HDUList, "bytes?": bytes, "network": str}
ERRORS = {
    "silent": SAMPTimeoutError, "missing": SAMPClientError, "error": SAMPResponseError, "network": SAMPResponseError,
    "bytes?": SAMPResponseError,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_questions(asked: SAMPIntegratedClient) -> None:
    """Every question of the reference manual gives a str, bytes or an HDUList, or an error in time."""
    bad = []
    for kind, question in questions():
        try:
            answer = asked.ds9.get(question, timeout=2 if kind == "silent" else 20)
        except (SAMPTimeoutError, SAMPClientError, SAMPResponseError) as error:
            if type(error) is not ERRORS.get(kind):
                bad.append((kind, question, repr(error)))
        else:
            if not isinstance(answer, KINDS.get(kind, ())):
                bad.append((kind, question, repr(answer)[:100]))
    assert bad == []
