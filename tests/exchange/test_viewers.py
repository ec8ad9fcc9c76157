# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions and scripts, with stand-ins for DS9 and Aladin; `tests/interop` uses the real programs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from pyvo.samp import (
    AsyncSAMPClient,
    SAMPClientError,
    SAMPHubServer,
    SAMPIntegratedClient,
    SAMPResponseError,
    SAMPTimeoutError,
    SAMPWarning,
)

Connect = Callable[..., SAMPIntegratedClient]


@pytest.fixture
def alice(hub: SAMPHubServer, connect: Connect) -> SAMPIntegratedClient:
    return connect("Alice")


def ds9(connect: Connect, name: str = "SAOImageDS9") -> list[Any]:
    client = connect(name)
    done: list[Any] = []

    @client.on("ds9.set")
    def set_(cmd, url="") -> None:
        if cmd == "nonsense":
            raise ValueError("what?")
        done.append((cmd, url))

    @client.on("ds9.get")
    def get(cmd) -> str:
        return {"version": "ds9 8.4.1\n", "pan wcs icrs degrees": "10.5 20.5"}.get(cmd, "")

    return done


def test_ds9(alice: SAMPIntegratedClient, connect: Connect) -> None:
    with pytest.raises(SAMPClientError, match=r"No client is subscribed to ds9\.set. Is DS9 running"):
        alice.ds9("zoom to fit")
    done = ds9(connect)
    alice.ds9("zoom to fit")
    alice.ds9("fits", url="file:///x.fits", to="saoimageds9")
    assert done == [("zoom to fit", ""), ("fits", "file:///x.fits")]
    assert alice.ds9.get("version") == "ds9 8.4.1"
    with pytest.raises(SAMPResponseError, match=r"SAOImageDS9 responded to ds9\.set with an error: what\?") as caught:
        alice.ds9("nonsense")
    assert caught.value.response["samp.status"] == "samp.error"
    position = alice.get_position()
    assert (position.ra.deg, position.dec.deg) == (10.5, 20.5)
    assert position.sender.name == "SAOImageDS9"
    assert alice.get_position("SAOImageDS9").separation(position).deg == 0


def test_several_ds9s(alice: SAMPIntegratedClient, connect: Connect) -> None:
    ds9(connect)
    ds9(connect, "SAOImageDS9")
    with pytest.raises(SAMPClientError, match="Several clients are subscribed to ds9.set; use one of their ids"):
        alice.ds9("zoom to fit")
    alice.ds9("zoom to fit", to=alice.clients.taking("ds9.set")[1])


def test_ds9_and_a_client_subscribed_to_everything(alice: SAMPIntegratedClient, connect: Connect) -> None:
    """A client that is subscribed to ``*`` is not taken for DS9."""
    snoop = connect("Snoop")
    snoop.bind_receive_call("*", lambda *args: None)
    done = ds9(connect)
    alice.ds9("zoom to fit")
    assert done == [("zoom to fit", "")]


def test_aladin(alice: SAMPIntegratedClient, connect: Connect) -> None:
    client = connect("Aladin")

    @client.on("script.aladin.send")
    def script(script) -> dict[str, str]:
        return {"script.result": f"done: {script}"}

    @client.on("coord.get.sky")
    def get_position() -> SkyCoord:
        return SkyCoord(1, 2, unit="deg")

    assert alice.aladin("status") == "done: status"
    for recipient in (None, "aladin", client.get_public_id()):
        position = alice.get_position(recipient)
        assert (position.ra.deg, position.dec.deg) == pytest.approx((1, 2))


def test_ds9_without_an_image(alice: SAMPIntegratedClient, connect: Connect) -> None:
    client = connect("SAOImageDS9")
    client.on("ds9.get")(lambda cmd: "")
    with pytest.raises(SAMPClientError, match="shows no image with sky coordinates"):
        alice.get_position("SAOImageDS9")


# Responses of DS9 with a URL


def respond_with(connect: Connect, response: Any, mtype: str = "ds9.get", name: str = "SAOImageDS9") -> None:
    """Connect a client that always sends the same response, given as a whole or by its result."""
    client = connect(name)
    whole = response if "samp.status" in response else {"samp.status": "samp.ok", "samp.result": response}
    client.bind_receive_call(mtype, lambda key, sender, msg_id, *rest: client.reply(msg_id, whole))


#: A file name of DS9 8.4.1: the number is the time.
STEM = "ds91795888379026698.xpa"


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        (".rgn", b"# Region file\ncircle(2,2,1)\n", "# Region file\ncircle(2,2,1)\n"),
        (".txt", b"", ""),
        (".txt", b"SIMPLE  =                    T /".ljust(80) + b"\nEND\n", None),  # the response to "fits header"
        (".any", b"SIMPLE  =                    T /".ljust(80) + b"\nEND\n", None),
        (".dat", b"\n", "\n"),
        (".txt", "naïve".encode(), "naïve"),
        (".txt", "naïve".encode("latin-1"), "naïve"),
        ("", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n"),
        ("", b"    AAAA", b"    AAAA"),  # pixels of 8 bits may look like text
        ("", bytes(8), bytes(8)),
        ("", b"", b""),
    ],
)
def test_responses_in_files(
    alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path, suffix: str, content: bytes, expected: Any
) -> None:
    """DS9 sends a file in place of a value, and does not remove it: the package reads and removes the file."""
    path = tmp_path / f"{STEM}{suffix}"
    path.write_bytes(content)
    respond_with(connect, {"url": f"file://localhost/{path}"})
    got = alice.ds9.get("regions")
    expected = content.decode() if expected is None else expected
    assert (type(got), got) == (type(expected), expected)
    assert not path.exists()


def test_an_image_in_a_file(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    """A FITS file is returned as an HDUList that no longer needs its file."""
    path = tmp_path / STEM
    fits.PrimaryHDU(np.arange(12).reshape(3, 4)).writeto(path)
    respond_with(connect, {"url": f"file://localhost/{path}"})
    hdus = alice.ds9.get("fits")
    assert isinstance(hdus, fits.HDUList)
    assert not path.exists()
    assert hdus[0].data.tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize("name", ["mine.rgn", "ds9.rgn", "ds91795888379026698.fits", "xds91795888379026698.xpa.rgn"])
def test_other_files_are_not_removed(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path, name: str) -> None:
    """A client may name any file, so only a file with a name of DS9's form is removed."""
    path = tmp_path / name
    path.write_text("circle(1,2,3)\n")
    respond_with(connect, {"url": path.as_uri()})
    assert alice.ds9.get("regions") == "circle(1,2,3)\n"
    assert path.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_links_are_not_removed(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    link, path = tmp_path / f"{STEM}.txt", tmp_path / "precious"
    path.write_text("x")
    link.symlink_to(path)
    respond_with(connect, {"url": link.as_uri()})
    assert alice.ds9.get("about") == "x"
    assert link.is_symlink()
    assert path.exists()


def test_binary_files(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    """If the name of a file does not tell its type, the content decides: bytes that are not a text stay bytes."""
    path = tmp_path / "response"
    respond_with(connect, {"url": path.as_uri()})
    for content in (b"\xff\x00\x01", b"a\0b"):
        path.write_bytes(content)
        assert alice.ds9.get("array") == content


def test_a_missing_file(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    """A missing file is an error. DS9 8.4.1 names one in its response to ``rgbarray`` if it shows no RGB frame."""
    respond_with(connect, {"url": f"file://localhost/{tmp_path}/{STEM}"})
    with pytest.raises(SAMPClientError, match=r"The file in the response of SAOImageDS9 cannot be read: There is no"):
        alice.ds9.get("rgbarray")


def test_a_broken_file(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(2880) + b"x")
    respond_with(connect, {"url": path.as_uri()})
    with pytest.raises(SAMPClientError, match="cannot be read"):
        alice.ds9.get("fits")


def test_responses_in_files_with_asyncio(hub: SAMPHubServer, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x89PNG")
    respond_with(connect, {"url": path.as_uri()})

    async def get() -> Any:
        async with AsyncSAMPClient(name="A") as client:
            return await client.ds9_get("png")

    assert asyncio.run(get()) == b"\x89PNG"


# Unexpected responses


def test_an_empty_result(alice: SAMPIntegratedClient, connect: Connect) -> None:
    """An empty map is returned as an empty text: DS9 sends it for an empty value."""
    respond_with(connect, {})
    assert alice.ds9.get("bin filter") == ""


def test_a_result_with_another_key(alice: SAMPIntegratedClient, connect: Connect) -> None:
    respond_with(connect, {"text": "x"})
    respond_with(connect, {"txt": "x"}, "script.aladin.send", "Aladin")
    with pytest.raises(SAMPClientError, match="SAOImageDS9 responded with text, not with value or url"):
        alice.ds9.get("version")
    with pytest.raises(SAMPClientError, match=r"Aladin responded with txt, not with script\.result"):
        alice.aladin("status")


def test_a_result_with_more_keys(alice: SAMPIntegratedClient, connect: Connect) -> None:
    respond_with(connect, {"value": "x", "url": "file:///y", "more": "z"})
    with pytest.warns(SAMPWarning, match="more than value; this is not returned: url, more"):
        assert alice.ds9.get("version") == "x"


def test_a_response_with_a_warning(alice: SAMPIntegratedClient, connect: Connect) -> None:
    error = {"samp.errortxt": "half", "samp.usertxt": "one of two was there"}
    result = {"value": "x"}
    respond_with(connect, {"samp.status": "samp.warning", "samp.result": result, "samp.error": error})
    with pytest.warns(SAMPWarning, match=r"responded to ds9\.get with a warning: half \(one of two was there\)"):
        assert alice.ds9.get("version") == "x"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"samp.errortxt": "a", "samp.usertxt": "b"}, r"a \(b\)$"),
        ({"samp.usertxt": "b"}, "b$"),
        ({"samp.code": "7"}, "7$"),
        ({"samp.debugtxt": "File x\nNameError: y"}, "NameError: y$"),
        ({"samp.errortxt": ""}, "it gave no reason$"),
    ],
)
def test_errors(alice: SAMPIntegratedClient, connect: Connect, error: dict[str, str], text: str) -> None:
    """The exception contains the reason from the error response, under whichever key it is."""
    respond_with(connect, {"samp.status": "samp.error", "samp.error": error})
    with pytest.raises(SAMPResponseError, match=text):
        alice.ds9.get("version")


def test_a_call_without_a_response(alice: SAMPIntegratedClient, connect: Connect) -> None:
    """A call without a response times out: DS9 does not respond to unknown commands."""
    client = connect("SAOImageDS9")
    called = threading.Event()
    client.bind_receive_call("ds9.get", lambda *args: called.set())
    with pytest.raises(SAMPTimeoutError, match=r"SAOImageDS9 has not responded to ds9\.get 'plot name' within 1 s"):
        alice.ds9.get("plot name", timeout=1)
    assert called.is_set()
