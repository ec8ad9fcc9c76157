# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Make the screenshots of the documentation again: ``python docs/screenshots.py``, in a checkout.

The real programs run on a screen that nobody sees, and are sent what the tutorials send. It takes a minute, and TOPCAT,
DS9, Aladin, Xvfb, xdotool and ImageMagick (``tests/interop/install``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xmlrpc.client import Fault, ServerProxy

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.wcs import WCS

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient  # noqa: E402
from tests.interop.browser import Browser  # noqa: E402
from tests.interop.programs import Program, Screen, environment  # noqa: E402


def cluster() -> QTable:
    """The table of the tutorial."""
    dice = np.random.default_rng(1)
    return QTable({
        "ra": dice.normal(56.75, 0.8, 1000) * u.deg,
        "dec": dice.normal(24.12, 0.7, 1000) * u.deg,
        "mag": dice.triangular(8, 19, 20, 1000) * u.mag,
    })


def picture() -> CCDData:
    """An image with stars and some noise."""
    dice = np.random.default_rng(2)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [83.633, 22.0145]
    wcs.wcs.crpix = [151, 101]
    wcs.wcs.cdelt = [-0.0004, 0.0004]
    y, x = np.mgrid[:201, :301]
    sky = dice.normal(10, 1, x.shape)
    for x0, y0, flux in zip(dice.uniform(0, 301, 60), dice.uniform(0, 201, 60), dice.pareto(1, 60) * 20, strict=True):
        sky += flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 6)
    sky += 40 * np.exp(-((x - 150) ** 2 / 3000 + (y - 100) ** 2 / 1200))
    return CCDData(sky.astype("float32"), unit="adu", wcs=wcs)


class Studio:
    """A screen, a home directory, and a client for one picture."""

    def __init__(self, home: Path, size: str, hub: SAMPHubServer) -> None:
        self.home = home
        self.hub = hub
        self.screen = Screen(environment(home), f"{size}x24")
        self.client = SAMPIntegratedClient(name="My notebook")
        self.client.connect()

    def program(self, *command: str) -> Program:
        """Start a program on the screen."""
        return Program(*command, env=environment(self.home, self.screen.display))


def save(screen: Screen, name: str) -> None:
    """Write what the screen shows, without the empty part of it and with few colours, so that it stays small."""
    path = screen.screenshot(IMAGES / f"{name}.png")
    subprocess.run(["convert", path, "-trim", "+repage", "-colors", "128", "-strip", f"PNG8:{path}"], check=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


@contextmanager
def studio(size: str) -> Iterator[Studio]:
    """A studio, with a hub that runs in a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        os.environ.pop("SAMP_HUB", None)
        hub = SAMPHubServer(web_profile=False)
        hub.start()
        one = Studio(Path(folder), size, hub)
        try:
            yield one
        finally:
            one.client.disconnect()
            one.screen.stop()
            hub.stop()


def let_it_draw(seconds: float) -> None:
    """Give a program time to draw, of whose end no message tells."""
    threading.Event().wait(seconds)


def topcat() -> None:
    """TOPCAT with a table."""
    with studio("1100x520") as desk, desk.program("topcat", "-samp"):
        desk.client.wait_for("topcat", 60, "table.load.votable")
        with desk.client.incoming("table.load.*"):  # somebody to broadcast to, or the button for that is grey
            desk.client.send(cluster(), to="topcat", name="Pleiades, made up").check()
            let_it_draw(2)
            save(desk.screen, "topcat")


def ds9() -> None:
    """DS9 with an image."""
    with studio("1000x800") as desk, desk.program("ds9", "-xpa", "no", "-geometry", "900x760"):
        desk.client.wait_for("SAOImageDS9", 60, "image.load.fits")
        desk.client.send(picture(), to="SAOImageDS9", name="sky").check()
        desk.client.ds9("scale mode 99.5")
        desk.client.ds9("cmap heat")
        desk.client.ds9("zoom to fit")
        let_it_draw(1)
        save(desk.screen, "ds9")


def aladin() -> None:
    """Aladin with an image."""
    command = ("aladin", "-local", "-noreleasetest", "-noplugin", "-nolog", "-theme=classic")
    with studio("1500x1000") as desk, desk.program(*command) as program:
        program.wait_for("Command>", 60)
        desk.client.wait_for("Aladin", 60, "image.load.fits")
        desk.client.send(picture(), to="Aladin", name="sky").check()
        desk.client.aladin("zoom 2x")
        let_it_draw(3)
        save(desk.screen, "aladin")


def consent() -> None:
    """The window that asks whether a page may join."""
    with tempfile.TemporaryDirectory() as folder:
        screen = Screen(environment(Path(folder)), "640x480x24")
        os.environ["DISPLAY"] = screen.display
        hub = SAMPHubServer(mode="multiple", web_port=0, web_profile_dialog="tk")
        hub.start()
        page = ServerProxy(f"http://127.0.0.1:{hub._web_port}/", headers=[("Origin", "https://sky.example.org")])
        asking = threading.Thread(target=ask_to_join, args=(page,))
        asking.start()
        try:
            search = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "SAMP"]
            subprocess.run(search, env={**os.environ}, check=True, timeout=30, stdout=subprocess.DEVNULL)
            let_it_draw(1.5)
            save(screen, "consent")
        finally:
            hub.stop()
            asking.join(10)
            screen.stop()


def hub_window() -> None:
    """The hub window, with TOPCAT, DS9 and a notebook, and a message that waits for its response."""
    with studio("1100x800") as desk, desk.program("topcat", "-samp"), desk.program("ds9", "-xpa", "no"):
        hub = desk.hub
        executable = shutil.which("chromium")
        assert executable is not None
        browser = Browser(executable, desk.home, environment(desk.home))
        page = browser.open(hub.open_window(browser=False))
        page.act("page", "setViewportSize", {"width": 1280, "height": 420})
        desk.client.wait_for("topcat", 60, "table.load.votable")
        desk.client.wait_for("SAOImageDS9", 60, "image.load.fits")
        desk.client.send(cluster(), to="topcat", name="Pleiades, made up").check()
        desk.client.send(picture(), to="SAOImageDS9", name="sky").check()
        desk.client.enotify_all("coord.pointAt.sky", ra="83.633", dec="22.014")
        with SAMPIntegratedClient(name="Pipeline") as slow:
            slow.bind_receive_call("table.load.votable", lambda *_: None)
            desk.client.ecall(slow.get_public_id(), "tag", "table.load.votable", url="file:///data/catalogue.vot")
            page.wait_for("tr:has-text('Pipeline') .status.due")
            page.wait_for("#clients li:has-text('topcat') .icon img")
            path = IMAGES / "hub-window.png"
            page.screenshot(path)
            subprocess.run(["convert", path, "+dither", "-colors", "128", "-strip", f"PNG8:{path}"], check=True)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")
        browser.stop()


def ask_to_join(page: ServerProxy) -> None:
    """Register as a page does; the hub ends before the question is answered, which is a refusal."""
    with suppress(Fault, OSError), page:
        page.samp.webhub.register({"samp.name": "Sky chart"})


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for take in (topcat, ds9, aladin, consent, hub_window):
        if len(sys.argv) == 1 or take.__name__ in sys.argv[1:]:
            take()
