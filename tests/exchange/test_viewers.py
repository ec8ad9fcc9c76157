# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions and scripts, with stand-ins for DS9 and Aladin; the real ones are in `tests/interop`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from astropy.coordinates import SkyCoord

from pyvo.samp import SAMPClientError, SAMPHubServer, SAMPIntegratedClient, SAMPResponseError

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
    with pytest.raises(SAMPClientError, match=r"No client takes ds9\.set. Is DS9 running"):
        alice.ds9("zoom to fit")
    done = ds9(connect)
    alice.ds9("zoom to fit")
    alice.ds9("fits", url="file:///x.fits", to="saoimageds9")
    assert done == [("zoom to fit", ""), ("fits", "file:///x.fits")]
    assert alice.ds9.get("version") == "ds9 8.4.1"
    with pytest.raises(SAMPResponseError, match=r"SAOImageDS9 answered ds9\.set: what\?") as caught:
        alice.ds9("nonsense")
    assert caught.value.response["samp.status"] == "samp.error"
    position = alice.get_position()
    assert (position.ra.deg, position.dec.deg) == (10.5, 20.5)
    assert position.sender.name == "SAOImageDS9"
    assert alice.get_position("SAOImageDS9").separation(position).deg == 0


def test_several(alice: SAMPIntegratedClient, connect: Connect) -> None:
    ds9(connect)
    ds9(connect, "SAOImageDS9")
    with pytest.raises(SAMPClientError, match="Several clients take ds9.set; say which by its id"):
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
    with pytest.raises(SAMPClientError, match="shows nothing that has a position"):
        alice.get_position("SAOImageDS9")
