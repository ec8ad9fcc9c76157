# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions and scripts, with stand-ins for DS9 and Aladin; the real ones are in `tests/interop`."""

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
        return {"version": "ds9 8.4.1\n", "pan wcs fk5 degrees": "10.5 20.5"}.get(cmd, "")

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


def test_several(alice: SAMPIntegratedClient, connect: Connect) -> None:
    ds9(connect)
    ds9(connect, "SAOImageDS9")
    with pytest.raises(SAMPClientError, match="Several clients are subscribed to ds9.set; use one of their ids"):
        alice.ds9("zoom to fit")
    alice.ds9("zoom to fit", to=alice.clients.taking("ds9.set")[1])


def test_the_right_one_among_others(alice: SAMPIntegratedClient, connect: Connect) -> None:
    """A client that takes everything is not DS9."""
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
    def where() -> SkyCoord:
        return SkyCoord(1, 2, unit="deg")

    assert alice.aladin("status") == "done: status"
    for who in (None, "aladin", client.get_public_id()):
        position = alice.get_position(who)
        assert (position.ra.deg, position.dec.deg) == pytest.approx((1, 2))


def test_nothing_is_shown(alice: SAMPIntegratedClient, connect: Connect) -> None:
    client = connect("SAOImageDS9")
    client.on("ds9.get")(lambda cmd: "")
    with pytest.raises(SAMPClientError, match="shows no image with sky coordinates"):
        alice.get_position("SAOImageDS9")


# What DS9 answers by a URL


def answering(connect: Connect, response: Any, mtype: str = "ds9.get", name: str = "SAOImageDS9") -> None:
    """A client that answers always the same; a whole response, or its result."""
    client = connect(name)
    whole = response if "samp.status" in response else {"samp.status": "samp.ok", "samp.result": response}
    client.bind_receive_call(mtype, lambda key, sender, msg_id, *rest: client.reply(msg_id, whole))


#: As DS9 8.4.1 names its files: the number is the time.
STEM = "ds91795888379026698.xpa"


@pytest.mark.parametrize(
    ("suffix", "content", "answer"),
    [
        (".rgn", b"# Region file\ncircle(2,2,1)\n", "# Region file\ncircle(2,2,1)\n"),
        (".txt", b"", ""),
        (".txt", b"SIMPLE  =                    T /".ljust(80) + b"\nEND\n", None),  # as of "fits header"
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
def test_answers_in_files(
    alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path, suffix: str, content: bytes, answer: Any
) -> None:
    """DS9 names a file in place of a value, and leaves it behind: it is read, and removed."""
    path = tmp_path / f"{STEM}{suffix}"
    path.write_bytes(content)
    answering(connect, {"url": f"file://localhost/{path}"})
    got = alice.ds9.get("regions")
    answer = content.decode() if answer is None else answer
    assert (type(got), got) == (type(answer), answer)
    assert not path.exists()


def test_an_image_in_a_file(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    """FITS comes as an HDUList that needs its file no more."""
    path = tmp_path / STEM
    fits.PrimaryHDU(np.arange(12).reshape(3, 4)).writeto(path)
    answering(connect, {"url": f"file://localhost/{path}"})
    hdus = alice.ds9.get("fits")
    assert isinstance(hdus, fits.HDUList)
    assert not path.exists()
    assert hdus[0].data.tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize("name", ["mine.rgn", "ds9.rgn", "ds91795888379026698.fits", "xds91795888379026698.xpa.rgn"])
def test_files_of_others_stay(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path, name: str) -> None:
    """Any client may name any file: only what DS9 alone names so is removed."""
    path = tmp_path / name
    path.write_text("circle(1,2,3)\n")
    answering(connect, {"url": path.as_uri()})
    assert alice.ds9.get("regions") == "circle(1,2,3)\n"
    assert path.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_links_stay(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    link, path = tmp_path / f"{STEM}.txt", tmp_path / "precious"
    path.write_text("x")
    link.symlink_to(path)
    answering(connect, {"url": link.as_uri()})
    assert alice.ds9.get("about") == "x"
    assert link.is_symlink()
    assert path.exists()


def test_bytes_that_are_no_text(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    """Of a file whose name tells nothing the content decides."""
    path = tmp_path / "answer"
    answering(connect, {"url": path.as_uri()})
    for content in (b"\xff\x00\x01", b"a\0b"):
        path.write_bytes(content)
        assert alice.ds9.get("array") == content


def test_a_file_that_is_not_there(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    """DS9 8.4.1 answers ``rgbarray`` so where it shows no RGB frame."""
    answering(connect, {"url": f"file://localhost/{tmp_path}/{STEM}"})
    with pytest.raises(SAMPClientError, match=r"The file in the response of SAOImageDS9 cannot be read: There is no"):
        alice.ds9.get("rgbarray")


def test_a_file_that_is_broken(alice: SAMPIntegratedClient, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    path.write_bytes(b"SIMPLE  =                    T".ljust(2880) + b"x")
    answering(connect, {"url": path.as_uri()})
    with pytest.raises(SAMPClientError, match="cannot be read"):
        alice.ds9.get("fits")


def test_answers_in_files_with_asyncio(hub: SAMPHubServer, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\x89PNG")
    answering(connect, {"url": path.as_uri()})

    async def ask() -> Any:
        async with AsyncSAMPClient(name="A") as client:
            return await client.ds9_get("png")

    assert asyncio.run(ask()) == b"\x89PNG"


# What is not looked for is not passed over in silence


def test_nothing_to_tell(alice: SAMPIntegratedClient, connect: Connect) -> None:
    """DS9 answers what is empty with an empty map."""
    answering(connect, {})
    assert alice.ds9.get("bin filter") == ""


def test_an_answer_under_another_key(alice: SAMPIntegratedClient, connect: Connect) -> None:
    answering(connect, {"text": "x"})
    answering(connect, {"txt": "x"}, "script.aladin.send", "Aladin")
    with pytest.raises(SAMPClientError, match="SAOImageDS9 responded with text, not with value or url"):
        alice.ds9.get("version")
    with pytest.raises(SAMPClientError, match=r"Aladin responded with txt, not with script\.result"):
        alice.aladin("status")


def test_more_than_the_answer(alice: SAMPIntegratedClient, connect: Connect) -> None:
    answering(connect, {"value": "x", "url": "file:///y", "more": "z"})
    with pytest.warns(SAMPWarning, match="more than value; this is not returned: url, more"):
        assert alice.ds9.get("version") == "x"


def test_an_answer_with_a_warning(alice: SAMPIntegratedClient, connect: Connect) -> None:
    error = {"samp.errortxt": "half", "samp.usertxt": "one of two was there"}
    result = {"value": "x"}
    answering(connect, {"samp.status": "samp.warning", "samp.result": result, "samp.error": error})
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
def test_reasons(alice: SAMPIntegratedClient, connect: Connect, error: dict[str, str], text: str) -> None:
    """Whatever an error says is told."""
    answering(connect, {"samp.status": "samp.error", "samp.error": error})
    with pytest.raises(SAMPResponseError, match=text):
        alice.ds9.get("version")


def test_a_question_that_is_never_answered(alice: SAMPIntegratedClient, connect: Connect) -> None:
    """DS9 answers nothing that it does not know."""
    client = connect("SAOImageDS9")
    asked = threading.Event()
    client.bind_receive_call("ds9.get", lambda *args: asked.set())
    with pytest.raises(SAMPTimeoutError, match=r"SAOImageDS9 has not responded to ds9\.get 'plot name' within 1 s"):
        alice.ds9.get("plot name", timeout=1)
    assert asked.is_set()
