# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Programs of other authors at one hub, Python at another hub, and a bridge between them."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from pyvo.samp import Bridge, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.bridge import BridgeState, LocalPair, Policy
from pyvo.samp.lockfile import read_lockfile
from tests.bridge.conftest import RecordingClient, Side
from tests.bridge.test_messages import check_every_operation_that_sends

from .conftest import Run
from .programs import Program, Screen, until, wait_for_hub
from .samples import DEC, HEIGHT, RA, WIDTH
from .test_exchange import assert_same, coverage, from_topcat, image, stars, start_aladin

pytestmark = pytest.mark.timeout(200)

#: Seconds in which no client may register or unregister.
QUIET_TIME = 30.0


class Server:
    """The hub of a server, and Python clients of it. The desk is the hub in the home directory."""

    def __init__(self, home: Path, directory: Path) -> None:
        self.stack = ExitStack()
        self.home, self.lockfile = home, directory / "server"
        self.hub = SAMPHubServer(web_profile=False, lockfile=str(self.lockfile))
        self.hub.start()
        self.stack.callback(self.hub.stop)

    def bridge(self, *allowed: str) -> tuple[Bridge, Bridge]:
        """Start a bridge between both hubs."""
        pair = LocalPair(("desk", "server"))
        policy = Policy(allowed, allowed)
        lockfiles = self.home / ".samp", self.lockfile
        bridges = [Bridge(lockfile, end, policy) for lockfile, end in zip(lockfiles, pair.ends, strict=True)]
        for each in bridges:
            self.stack.callback(each.stop)
            each.start()
        return bridges[0], bridges[1]

    def connect(self, name: str, *, at_desk: bool = False) -> SAMPIntegratedClient:
        """Connect a client to one of the hubs."""
        client = SAMPIntegratedClient(name=name, description="a test")
        client.connect(hub_params=read_lockfile(self.home / ".samp" if at_desk else self.lockfile))
        self.stack.callback(client.disconnect)
        return client


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[Server]:
    one = Server(home, tmp_path)
    with one.stack:
        yield one


def start_topcat(desk: str, request: pytest.FixtureRequest, home: Path, show: Run) -> None:
    """Start TOPCAT at the hub of the desk, which may be TOPCAT's own."""
    if desk == "topcat":
        show("topcat", "-hub")
        wait_for_hub(home)
    else:
        request.getfixturevalue(desk)
        show("topcat", "-samp")


@pytest.mark.parametrize("desk", ["hub", "jsamp_hub", "topcat"])
def test_topcat_at_the_desk(
    request: pytest.FixtureRequest, home: Path, server: Server, show: Run, screen: Screen, artefacts: Path, desk: str
) -> None:
    """
    A table in both directions, a selection and a row in both directions, and coordinates; at our hub, JSAMP's and
    TOPCAT's.
    """
    start_topcat(desk, request, home, show)
    server.bridge()
    sender, at_desk = server.connect("Python"), server.connect("another program", at_desk=True)
    sender.wait_for("topcat (via desk)", 60, "table.load.votable")
    table = stars()
    link = sender.link(table, to="topcat")
    assert link.report.ok, link.report
    assert_same(from_topcat_by_bridge(sender), table)

    assert link.select(np.ma.filled(table["mag"] < 14, False)).ok
    assert link.highlight(-1).ok
    # the message that TOPCAT sends to all clients when its user selects rows
    python = at_desk.wait_for("Python (via server)", 60, "table.select.rowList").id
    selected = threading.Event()
    link.on_select(lambda mask: selected.set())
    rows = {"table-id": link.id, "row-list": ["0", "7"]}
    assert at_desk.ecall_and_wait(python, "table.select.rowList", 30, **rows)["samp.status"] == "samp.ok"
    assert selected.wait(30)
    assert np.flatnonzero(link.selection).tolist() == [0, 7]

    assert sender.send(table, to="topcat", mtype="table.load.fits", name="as FITS").ok
    received: list[Any] = []
    arrived = threading.Event()

    def on_position(key: str, sender: str, mtype: str, params: Any, extra: Any) -> None:
        received.append(params)
        arrived.set()

    at_desk.bind_receive_notification("coord.pointAt.sky", on_position)
    at_desk.wait_for("Python (via server)", 30)
    sender.wait_for("another program (via desk)", 30, "coord.pointAt.sky")
    sender.enotify_all("coord.pointAt.sky", ra=RA, dec=DEC)
    assert arrived.wait(30)
    assert received == [{"ra": str(RA), "dec": str(DEC)}]
    for row in range(10):  # between these calls TOPCAT's event loop paints its windows
        assert link.highlight(row).ok
    screen.screenshot(artefacts / f"bridge-topcat-{desk}.png")


def from_topcat_by_bridge(client: SAMPIntegratedClient) -> Any:
    """Return the table of TOPCAT. The URL in TOPCAT's response is one of the bridge."""
    response = until(
        lambda: client.ecall_and_wait("topcat (via desk)", "table.get.stil", 30, format="votable"),
        lambda response: response["samp.status"] == "samp.ok",
    )
    assert response["samp.result"]["url"].startswith("http://127.0.0.1:")
    return from_topcat(client)


def test_every_operation_that_sends_with_jsamps_hub(jsamp_hub: Program, server: Server, tmp_path: Path) -> None:
    """Of 3 + 3 clients, three at JSAMP's hub, each receives each message once, and each call gets one response."""
    bridges = server.bridge()

    def connect_at(lockfile: Path) -> Callable[..., RecordingClient]:
        def connect(name: str, *mtypes: str, **metadata: str) -> RecordingClient:
            client = RecordingClient(name, mtypes or ("table.*", "coord.*"), metadata)
            client.connect(hub_params=read_lockfile(lockfile))
            server.stack.callback(client.disconnect)
            return client

        return connect

    sides = [
        Side(server.hub, bridge, connect_at(lockfile))
        for bridge, lockfile in zip(bridges, (server.home / ".samp", server.lockfile), strict=True)
    ]
    check_every_operation_that_sends((sides[0], sides[1]), ("desk", "server"), ordered=False)
    # JSAMP's hub rejects text that is not ASCII
    with pytest.warns(UserWarning, match="ASCII"):
        sides[1].connect("Héloïse")
    sides[0].connect("witness").find("H?lo?se (via server)")


def test_broadcast_of_topcat(hub: SAMPHubServer, server: Server, show: Run, screen: Screen) -> None:
    """A table that the user of TOPCAT broadcasts arrives on the server once, as a Table."""
    from .test_topcat import BROADCAST

    server.bridge()
    client = server.connect("Python")
    table = stars()
    with client.incoming("table.load.*") as queue:
        server.connect("witness", at_desk=True).wait_for("Python (via server)", 30, "table.load.votable")
        show("topcat", "-samp")
        client.wait_for("topcat (via desk)", 60, "table.load.votable")
        link = client.link(table, to="topcat")
        until(lambda: link.highlight(0), lambda report: report.ok)
        for row in range(10):  # between these calls TOPCAT's event loop paints its button
            assert link.highlight(row).ok
        screen.click(*BROADCAST)
        back = queue.get(30)
        assert queue.get_nowait() is None
    assert_same(back, table)
    assert back.sender.name == "topcat (via desk)"


def test_ds9_at_the_desk(
    hub: SAMPHubServer, server: Server, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """An image has the right position, files with unusual names load, and DS9 responds. Its MTypes must be allowed."""
    server.bridge("ds9.*")
    client = server.connect("Python")
    show("ds9", "-xpa", "no")
    ds9 = client.wait_for("SAOImageDS9 (via desk)", 60, "image.load.fits")
    report = client.send(image(), to=ds9)
    assert report.ok, report
    get = lambda command: client.ecall_and_wait(ds9.id, "ds9.get", 30, cmd=command)["samp.result"]["value"]  # noqa: E731
    assert get("fits size").split() == [str(WIDTH), str(HEIGHT)]
    position = [float(word) for word in get("pan wcs fk5 degrees").split()]
    assert SkyCoord(*position, unit="deg").separation(SkyCoord(RA, DEC, unit="deg")) < 2 * u.arcsec
    for name in ("with blank.fits", "a#b?c.fits", "plain.fits"):
        image().write(tmp_path / name)
        assert client.send(tmp_path / name, to=ds9).ok
        assert get("fits size").split() == [str(WIDTH), str(HEIGHT)]
    screen.screenshot(artefacts / "bridge-ds9.png")


def test_aladin_at_the_desk(
    hub: SAMPHubServer, server: Server, show: Run, screen: Screen, tmp_path: Path, artefacts: Path
) -> None:
    """Aladin gets an image as a copy, and reads a table and a coverage from the bridge."""
    server.bridge("script.aladin.send")
    client = server.connect("Python")
    start_aladin(show)
    aladin = client.wait_for("Aladin (via desk)", 60, "image.load.fits")
    assert client.send(image(), to=aladin, name="crab").ok
    assert client.send(stars(), to=aladin, name="stars").ok
    assert client.send(coverage(tmp_path), to=aladin, name="cone").ok
    status = until(lambda: client.aladin("status"), lambda text: "crab" in text and "SMOC" in text)
    assert str(WIDTH) in status
    assert "500" in status.split()
    screen.screenshot(artefacts / "bridge-aladin.png")


class Census:
    """Records the clients that register and unregister at a hub."""

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self.client = client
        self.events: list[Any] = []
        self.changed = threading.Condition()
        for name in ("register", "unregister"):
            client.bind_receive_notification(f"samp.hub.event.{name}", self._note)

    def _note(self, key: str, sender: str, msg_id: None, mtype: str, params: Any, extra: Any) -> None:
        with self.changed:
            self.events.append((mtype, params["id"]))
            self.changed.notify_all()

    def names(self) -> list[str]:
        return sorted(
            self.client.get_metadata(each).get("samp.name", "") for each in self.client.get_registered_clients()
        )


def assert_no_change(*censuses: Census) -> None:
    """Wait for `QUIET_TIME`, in which no hub may report a change."""
    for census in censuses:
        census.events.clear()
    with censuses[0].changed:
        censuses[0].changed.wait_for(lambda: censuses[0].events, QUIET_TIME)
    assert [census.events for census in censuses] == [[] for _ in censuses]


def test_jsamp_bridge_beside_ours(hub: SAMPHubServer, server: Server, home: Path, run: Run) -> None:
    """
    JSAMP's bridge makes proxies of all clients, also of our proxies. Our bridge makes none of JSAMP's proxies, so the
    number of proxies is limited.

    JSAMP's bridge ignores the mark of JSAMP's proxies that our proxies have, too.
    """
    desk, far = (Census(server.connect(name, at_desk=name == "D")) for name in ("D", "F"))
    server.bridge()
    desk.client.wait_for("F (via server)", 30)
    far.client.wait_for("D (via desk)", 30)
    files = (argument for path in (home / ".samp", server.lockfile) for argument in ("-sampfile", str(path)))
    run("jsamp", "bridge", "-nostandard", *files)
    at_desk = ["D (via desk)", "F", "SAMP bridge to desk", "bridge (via desk)"]
    at_server = ["D", "F (via server)", "SAMP bridge to server", "bridge (via server)"]
    for census, proxied in ((desk, at_desk), (far, at_server)):
        expected = [f"{name} (proxy)" for name in proxied]
        until(census.names, lambda names, expected=expected: [n for n in names if "(proxy)" in n] == expected, 60)
    before = desk.names(), far.names()
    assert_no_change(desk, far)
    assert (desk.names(), far.names()) == before
    assert not any("(proxy) (via" in name for names in before for name in names)
    assert [name for name in before[0] if name.endswith("(via server)")] == ["F (via server)", "bridge (via server)"]


def test_a_second_bridge_of_ours_is_rejected(hub: SAMPHubServer, server: Server) -> None:
    """The number of clients stays the same."""
    desk, far = (Census(server.connect(name, at_desk=name == "D")) for name in ("D", "F"))
    server.bridge()
    desk.client.wait_for("F (via server)", 30)
    far.client.wait_for("D (via desk)", 30)
    for bridge in server.bridge():
        assert bridge.wait(30)
        assert bridge.state is BridgeState.FAILED
        assert "already joins these two hubs" in bridge.reason
        bridge.stop()
    before = desk.names(), far.names()
    assert_no_change(desk, far)
    assert (desk.names(), far.names()) == before
