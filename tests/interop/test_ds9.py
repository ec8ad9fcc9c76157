# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
DS9 as a client of our hub. It has its own HTTP: no Host header, lines that end with LF, and one connection per request.
"""
from __future__ import annotations

import time
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


def ds9_get(client: SAMPIntegratedClient, ds9: str, command: str) -> str:
    """Send a command to DS9 by ``ds9.get``; return the value in the response."""
    response = client.ecall_and_wait(ds9, "ds9.get", 20, cmd=command)
    assert response["samp.status"] == "samp.ok", response
    return str(response["samp.result"]["value"])


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_ds9_at_our_hub(
    hub: SAMPHubServer, connect: Connect, show: Run, screen: Screen, tmp_path: Path, artefacts: Path, locale: str
) -> None:
    """In both kinds of locale, DS9 registers, loads the image, describes it, and executes commands."""
    client = connect("sender")
    ds9_program = show("ds9", "-xpa", "no", LANG=locale, LC_ALL=locale)
    ds9 = client.wait_for("SAOImageDS9", 60, "image.load.fits").id

    response = client.ecall_and_wait(ds9, "image.load.fits", 60, url=write_image(tmp_path), name="crab")
    assert response["samp.status"] == "samp.ok", response
    assert Path(ds9_get(client, ds9, "file")).name == "crab.fits"
    assert ds9_get(client, ds9, "fits size").split() == [str(WIDTH), str(HEIGHT)]

    # DS9 must respond after numbers in the format of Python, an empty string, and text beyond ASCII.
    response = client.ecall_and_wait(ds9, "coord.pointAt.sky", 20, ra=RA, dec=DEC + 1e-6, comment="")
    assert response["samp.status"] == "samp.ok", response
    response = client.ecall_and_wait(ds9, "ds9.set", 20, cmd="zoom to fit")
    assert response["samp.status"] == "samp.ok", response
    with pytest.warns(UserWarning, match="ASCII"):
        client.ecall_and_wait(ds9, "ds9.set", 20, cmd="frame first", note="\N{GREEK SMALL LETTER ALPHA} Centauri")
    position = [float(word) for word in ds9_get(client, ds9, "pan wcs fk5 degrees").split()]
    assert position == pytest.approx([RA, DEC], abs=0.001)
    screen.screenshot(artefacts / f"ds9-{locale}.png")

    # A killed DS9 does not unregister. The next call to it must end with an error (R23).
    ds9_program.stop()
    lost = client.ecall_and_wait(ds9, "ds9.get", 20, cmd="file")
    assert lost["samp.status"] == "samp.error"
    assert lost["samp.error"]["samp.code"] == "samp.noresponse"


def test_ds9_responds_to_many_calls_at_the_same_time(hub: SAMPHubServer, connect: Connect, show: Run) -> None:
    """Each call gets its own response (R20)."""
    client = connect("sender")
    show("ds9", "-xpa", "no")
    ds9 = client.wait_for("SAOImageDS9", 60, "ds9.get").id
    commands = ["version", "frame", "scale", "cmap", "orient"]
    expected = [ds9_get(client, ds9, command) for command in commands]
    assert len(set(expected)) == len(commands), expected
    with ThreadPoolExecutor(12) as threads:
        values = list(threads.map(lambda command: ds9_get(client, ds9, command), commands * 10))
    assert values == expected * 10


@pytest.fixture
def ds9_client(
    hub: SAMPHubServer, connect: Connect, show: Run, tmp_path: Path, home: Path
) -> Iterator[SAMPIntegratedClient]:
    """A client of a hub with a DS9 that shows an image and a region. After the test DS9 must have left no file."""
    client = connect("client")
    show("ds9", "-xpa", "no", TMP=str(home))
    client.wait_for("ds9", 60, "ds9.get")
    url = write_image(tmp_path)
    assert client.send(url, to="ds9", mtype="image.load.fits").ok
    client.ds9("regions command {circle 20 20 5}")
    yield client
    # a command without a response may have left an empty file
    assert [path.name for path in home.glob("ds9*.xpa*") if path.stat().st_size] == []


def test_ds9_that_is_busy(ds9_client: SAMPIntegratedClient) -> None:
    """R23: DS9 acknowledges a message when it has processed it. Large images take it longer than 10 s."""
    began = time.monotonic()
    ds9_client.ds9("sleep 11", timeout=60)
    assert time.monotonic() - began >= 11


def test_long_values_of_ds9(ds9_client: SAMPIntegratedClient, tmp_path: Path) -> None:
    """Each value has the type of its data, and is what DS9 shows."""
    get = ds9_client.ds9.get
    pixels = fits.getdata(tmp_path / "crab.fits", memmap=False)
    assert "circle(20" in get("regions")
    assert "CRVAL1" in get("fits header")
    values = sorted(float(value) for value in get("data image 1 1 2 2 yes").split())
    assert values == pytest.approx(sorted(pixels[:2, :2].ravel()), rel=1e-4)
    hdus = get("fits")
    assert isinstance(hdus, fits.HDUList)
    assert np.array_equal(hdus[0].data, pixels)
    assert np.array_equal(np.frombuffer(get("array little"), "<f4").reshape(pixels.shape), pixels)
    assert get("png").startswith(b"\x89PNG")
    assert get("nrrd").startswith(b"NRRD")
    assert get("fits size").split() == [str(WIDTH), str(HEIGHT)]
    assert ds9_client.get_position("ds9").ra.deg == pytest.approx(RA, abs=0.01)
    with pytest.raises(SAMPTimeoutError, match=r"has not responded to ds9\.get 'plot list' within 2 s"):
        get("plot list", timeout=2)
    with pytest.raises(SAMPClientError, match="cannot be read"):
        get("rgbarray")
    assert get("version").startswith(("SAOImageDS9 ", "ds9 "))


def get_commands() -> list[tuple[str, str]]:
    text = (Path(__file__).parent / "ds9_questions.txt").read_text()
    return [(kind, command) for kind, _, command in
            (line.partition("\t") for line in text.splitlines() if not line.startswith("#"))]


KINDS = {"str": str, "file": str, "bytes": bytes, "FITS": fits.HDUList, "bytes?": bytes, "network": str}
ERRORS = {
    "silent": SAMPTimeoutError, "missing": SAMPClientError, "error": SAMPResponseError, "network": SAMPResponseError,
    "bytes?": SAMPResponseError,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_get_command_of_ds9(ds9_client: SAMPIntegratedClient) -> None:
    """Every command of the reference manual returns a str, bytes or an HDUList, or raises an error in time."""
    bad = []
    for kind, command in get_commands():
        try:
            value = ds9_client.ds9.get(command, timeout=2 if kind == "silent" else 20)
        except (SAMPTimeoutError, SAMPClientError, SAMPResponseError) as error:
            if type(error) is not ERRORS.get(kind):
                bad.append((kind, command, repr(error)))
        else:
            if not isinstance(value, KINDS.get(kind, ())):
                bad.append((kind, command, repr(value)[:100]))
    assert bad == []
