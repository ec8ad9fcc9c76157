# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The examples of the documentation with the programs themselves; ``tests/docs`` has stand-ins for them."""
from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pyvo.samp import SAMPError, SAMPHubServer, SAMPIntegratedClient

from ..docs.examples import DOCS, run_page
from .browser import NODE, Browser, Site
from .conftest import Run
from .network import WEB_PORT, own_network
from .programs import Screen, environment, need

pytestmark = pytest.mark.timeout(180)

#: The commands that start the programs, and MTypes to which they are subscribed when they are ready.
COMMANDS = {
    "topcat": ("topcat", "-samp"),
    "SAOImageDS9": ("ds9", "-xpa", "no"),
    "Aladin": ("aladin", "-local", "-noreleasetest", "-noplugin", "-nolog", "-theme=classic"),
}
SUBSCRIBED = {"topcat": "table.load.votable", "SAOImageDS9": "image.load.fits", "Aladin": "image.load.fits"}
PAGES = ["index.rst", "tutorials/first-table.rst", "tutorials/linked-selection.rst", "tutorials/images.rst"]
#: Position on the screen of the button with which TOPCAT broadcasts the table, if TOPCAT is alone there.
BROADCAST = (115, 39)


class Program:
    """A program, and the actions of its user."""

    def __init__(self, name: str, screen: Screen) -> None:
        self._screen = screen
        self.user = SAMPIntegratedClient(name=f"user of {name}")
        if name == "topcat":  # so that TOPCAT knows a recipient when its button is pressed
            self.user.bind_receive_message("table.load.votable", lambda key, sender, mtype, params, extra: None)
        self.user.connect()

    def broadcast_when_wanted(self, name: str) -> None:
        """Press the button as soon as a client is subscribed to tables."""

        def work() -> None:
            self.user.wait_for(name, 60, "table.load.votable")
            # TOPCAT sends to the clients whose subscriptions it knows, and may not have processed the hub's event yet
            pause = threading.Event()
            with suppress(SAMPError):  # the page has ended
                for _ in range(20):
                    self._screen.click(*BROADCAST)
                    pause.wait(2)
                    if "table.load.*" not in self.user.get_subscriptions(name):
                        return

        self.user.client.loop.run_in_worker(work)

    def select(self, rows: list[int], table_id: str) -> None:
        """Send a selection of rows to "My notebook", as TOPCAT does when its user draws a region."""
        numbers = [str(row) for row in rows]
        self.user.ecall_and_wait(
            "My notebook", "table.select.rowList", 20, **{"table-id": table_id, "row-list": numbers}
        )


class RealDesk:
    """A hub with programs, with the interface of `docs.stand_ins.Desk`."""

    def __init__(self, hub: SAMPHubServer, show: Run, screen: Screen) -> None:
        self.hub, self._show, self._screen = hub, show, screen
        self._stack = ExitStack()

    def open(self, name: str) -> Program:
        """Start a program."""
        program = Program(name, self._screen)
        self._stack.callback(program.user.disconnect)
        started = self._show(*COMMANDS[name])
        if name == "Aladin":
            started.wait_for("Command>", 60)  # it registers before it is ready
        program.user.wait_for(name, 60, SUBSCRIBED[name])
        return program

    def close(self) -> None:
        """Disconnect the clients that act for the users."""
        self._stack.close()


@pytest.fixture
def desk(hub: SAMPHubServer, show: Run, screen: Screen) -> Iterator[RealDesk]:
    """A hub with programs."""
    desk = RealDesk(hub, show, screen)
    yield desk
    desk.close()


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_of_a_page(name: str, desk: RealDesk) -> None:
    run_page(DOCS / name, desk)


def test_the_page_of_the_web_tutorial(home: Path, tmp_path: Path, artefacts: Path) -> None:
    """The page sends a position, and shows a position that it receives."""
    need("chromium", "node")
    if not (NODE / "node_modules" / "sampjs").is_dir():
        pytest.skip("sampjs and playwright-core are not installed (tests/interop/install does it)")
    www, profile = tmp_path / "www", tmp_path / "browser"
    profile.mkdir()
    shutil.copytree(DOCS / "web", www)
    shutil.copy(NODE / "node_modules/sampjs/samp.js", www)
    executable = shutil.which("chromium")
    assert executable is not None
    with ExitStack() as stack:
        stack.enter_context(own_network())
        hub = SAMPHubServer(web_port=WEB_PORT, web_profile_dialog=lambda name, origin: name == "Sky chart")
        stack.callback(hub.stop)
        hub.start()
        client = stack.enter_context(SAMPIntegratedClient(name="My notebook"))
        site = stack.enter_context(Site(www, "localhost"))
        browser = Browser(executable, profile, environment(profile))
        stack.callback(browser.stop)
        page = browser.open(site.url("notebook.html"))
        page.run("join")
        assert client.point_at((266.417, -29.008), to="Sky chart").ok
        with client.incoming("coord.pointAt.sky") as arriving:
            page.run("point", 201.365, -43.019)
            position = arriving.get(20)
        assert position.sender.name == "Sky chart"
        assert (round(position.ra.deg, 3), round(position.dec.deg, 3)) == (201.365, -43.019)
        assert page.run("wait", 2) == [[266.417, -29.008], [201.365, -43.019]]
        page.screenshot(artefacts / "web-page.png")
