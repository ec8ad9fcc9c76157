# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Make the screenshots of the documentation again: ``python docs/screenshots.py [NAME]...``, in a checkout.

The real programs run on a screen that nobody sees, and exchange what the tutorials exchange. The mouse draws the region
in TOPCAT's plot. This takes two minutes. It needs TOPCAT, DS9, Aladin, Chromium, Xvfb, xdotool and ImageMagick
(``tests/interop/install``), and the Python packages jupyterlab and matplotlib. Look at each picture afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xmlrpc.client import Fault, ServerProxy

import astropy.units as u
import matplotlib.font_manager  # makes the cache of fonts, which the notebook uses
import nbformat
import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.wcs import WCS

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient  # noqa: E402
from tests.interop.browser import Browser, Page  # noqa: E402
from tests.interop.programs import Program, Screen, environment  # noqa: E402
from tests.interop.topcat_window import TopcatWindow  # noqa: E402

#: Corners of the region that the user draws around the cluster, in pixels of TOPCAT's window.
AROUND_THE_CLUSTER = [(407, 448), (447, 440), (486, 448), (490, 474), (481, 494), (447, 497), (411, 494), (402, 474)]

FONT_CACHE = matplotlib.get_cachedir()
#: JupyterLab drops what is run before its status bar says that the kernel is idle.
KERNEL_IS_READY = """new Promise((done) => {
    const look = () => document.body.innerText.includes("| Idle") ? done(true) : requestAnimationFrame(look);
    look();
})"""
#: The cells of the notebook that is linked to TOPCAT.
CELLS = [
    """import matplotlib.pyplot as plt
from astropy.table import QTable
from pyvo.samp import SAMPIntegratedClient

stars = QTable.read("stars.fits")
client = SAMPIntegratedClient(name="My notebook")
client.connect()
link = client.link(stars, to="topcat", name="stars")
link""",
    """members = stars[link.selection]
print(f"{len(members)} of {len(stars)} stars are selected in TOPCAT")""",
    """plt.figure(figsize=(6.2, 2.6), layout="constrained")
plt.plot(stars["bp_rp"], stars["g"], ".", color="0.8")
plt.plot(members["bp_rp"], members["g"], ".", color="b")
plt.gca().invert_yaxis(); plt.xlabel("BP - RP"); plt.ylabel("G");""",
]


def stars() -> QTable:
    """Stars of the field, and a cluster whose stars move together and lie on a main sequence."""
    dice = np.random.default_rng(1)
    field, cluster = 900, 220
    colour = np.concatenate([dice.gamma(4, 0.35, field), dice.uniform(0, 3.2, cluster)])
    sequence = 6 + 4.2 * colour[field:] - 0.3 * colour[field:] ** 2 + dice.normal(0, 0.2, cluster)
    motion = u.mas / u.yr
    return QTable({
        "pmra": np.concatenate([dice.normal(0, 14, field), dice.normal(20, 1.6, cluster)]) * motion,
        "pmdec": np.concatenate([dice.normal(-4, 14, field), dice.normal(-45, 1.6, cluster)]) * motion,
        "bp_rp": colour * u.mag,
        "g": np.concatenate([dice.triangular(9, 19, 19, field), sequence]) * u.mag,
    })


def picture() -> tuple[CCDData, QTable]:
    """An image with stars and some noise, and the list of its stars, the brightest first."""
    dice = np.random.default_rng(2)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [83.633, 22.0145]
    wcs.wcs.crpix = [151, 101]
    wcs.wcs.cdelt = [-0.0004, 0.0004]
    y, x = np.mgrid[:201, :301]
    sky = dice.normal(10, 1, x.shape)
    sources = QTable({"x": dice.uniform(0, 301, 60), "y": dice.uniform(0, 201, 60), "flux": dice.pareto(1, 60) * 20})
    for x0, y0, flux in sources.iterrows():
        sky += flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 6)
    sky += 40 * np.exp(-((x - 150) ** 2 / 3000 + (y - 100) ** 2 / 1200))
    sources["ra"], sources["dec"] = wcs.pixel_to_world_values(sources["x"], sources["y"]) * u.deg
    sources.sort("flux", reverse=True)
    return CCDData(sky.astype("float32"), unit="adu", wcs=wcs), sources


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


def save(screen: Screen, name: str, crop: str = "") -> None:
    """Write what the screen shows, without the empty part of it."""
    path = screen.screenshot(IMAGES / f"{name}.png")
    shrink(path, *(["-crop", crop, "+repage"] if crop else ["-trim", "+repage"]))


def shrink(path: Path, *options: str) -> None:
    """Reduce a picture to few colours, so that it stays small."""
    reduced = ["+dither", "-colors", "128", "-strip", f"PNG8:{path}"]
    subprocess.run(["convert", path, *options, *reduced], check=True)
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


def linked() -> None:
    """TOPCAT with a region that its user has drawn, and the notebook that has the selected rows as a mask."""
    with studio("1280x760") as desk, desk.program("topcat", "-samp") as _topcat:
        desk.client.wait_for("topcat", 60, "table.load.votable")
        with notebook(desk, CELLS) as (page, run_cell):
            run_cell()
            wait_long(page, ".jp-OutputArea-output:has-text('rows selected')")  # the table is in TOPCAT
            window = TopcatWindow(desk.screen, pause=2.0)
            window.open_plot()
            window.draw_region(AROUND_THE_CLUSTER)
            window.transmit_subset()
            let_it_draw(1)
            window.draw_region(AROUND_THE_CLUSTER)
            window.add_subset("members")
            let_it_draw(1)
            save(desk.screen, "topcat", "620x600+0+0")
            run_cell()
            page.wait_for("text=/\\d+ of 1120 stars are selected/")
            page.act("keyboard", "press", "Control+Enter")
            wait_long(page, ".jp-RenderedImage img")
            page.evaluate("document.querySelectorAll('.jp-Notebook .jp-Cell')[1].scrollIntoView()")
            let_it_draw(1)
            page.screenshot(IMAGES / "notebook.png")
            shrink(IMAGES / "notebook.png")


def wait_long(page: Page, selector: str) -> None:
    """Wait up to two minutes: a kernel that imports Astropy and Matplotlib takes its time."""
    for _ in range(5):
        with suppress(RuntimeError):
            return page.wait_for(selector)
    return page.wait_for(selector)


@contextmanager
def notebook(desk: Studio, cells: list[str]) -> Iterator[tuple[Page, Callable[[], None]]]:
    """JupyterLab with a notebook; yield its page, and a function that runs the next cell."""
    stars().write(desk.home / "stars.fits")
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    settings = desk.home / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(content, desk.home / "Members.ipynb")
    variables = {**environment(desk.home), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    variables["MPLCONFIGDIR"] = FONT_CACHE
    options = ["--allow-root", "--no-browser", "--port=0", "--IdentityProvider.token=", f"--notebook-dir={desk.home}"]
    with Program(sys.executable, "-m", "jupyterlab", *options, env=variables) as server:
        server.wait_for("127.0.0.1:", 60)
        address = re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/", server.output)
        assert address is not None
        executable = shutil.which("chromium")
        assert executable is not None
        browser = Browser(executable, desk.home, environment(desk.home))
        try:
            page = browser.open(f"{address[0]}doc/tree/Members.ipynb")
            page.act("page", "setViewportSize", {"width": 700, "height": 600})
            page.wait_for(".jp-Notebook .jp-Cell")
            page.evaluate(KERNEL_IS_READY)
            page.act(".jp-Notebook .jp-Cell >> nth=0", "click")

            def run_cell() -> None:
                page.act("keyboard", "press", "Shift+Enter")

            yield page, run_cell
        finally:
            browser.stop()


def ds9() -> None:
    """DS9 with an image, and regions that its user has drawn."""
    with studio("760x700") as desk, desk.program("ds9", "-xpa", "no", "-geometry", "700x660"):
        desk.client.wait_for("ds9", 60, "image.load.fits")
        image, sources = picture()
        desk.client.send(image, to="ds9", name="sky").check()
        for command in ("scale mode 99.5", "cmap heat", "zoom to fit", "view buttons no"):
            desk.client.ds9(command)
        for star in sources[3:7]:
            desk.client.ds9(f"regions command {{circle {star['x'] + 1} {star['y'] + 1} 9 # color=cyan width=3}}")
        let_it_draw(1)
        save(desk.screen, "ds9")


def aladin() -> None:
    """Aladin with an image, and a catalogue on it."""
    command = ("aladin", "-local", "-noreleasetest", "-noplugin", "-nolog", "-theme=classic")
    with studio("1500x1000") as desk, desk.program(*command) as program:
        program.wait_for("Command>", 60)
        desk.client.wait_for("Aladin", 60, "image.load.fits")
        resize = "xdotool search --onlyvisible --name Aladin windowmove 0 0 windowsize 960 700"
        subprocess.run(resize.split(), env=desk.screen.env, check=True, timeout=30)
        let_it_draw(2)
        image, sources = picture()
        desk.client.send(image, to="Aladin", name="sky").check()
        desk.client.send(sources["ra", "dec", "flux"][:25], to="Aladin", name="Sources").check()
        desk.client.aladin("zoom 2x; cm sky sqrt 9..150; set Sources Color=red")
        let_it_draw(3)
        save(desk.screen, "aladin", "704x634+256+30")


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
        page.act("page", "setViewportSize", {"width": 1040, "height": 460})
        desk.client.wait_for("topcat", 60, "table.load.votable")
        desk.client.wait_for("SAOImageDS9", 60, "image.load.fits")
        desk.client.send(stars(), to="topcat", name="stars").check()
        desk.client.send(picture()[0], to="SAOImageDS9", name="sky").check()
        desk.client.enotify_all("coord.pointAt.sky", ra="83.633", dec="22.014")
        with SAMPIntegratedClient(name="Pipeline") as slow:
            slow.bind_receive_call("table.load.votable", lambda *_: None)
            desk.client.ecall(slow.get_public_id(), "tag", "table.load.votable", url="file:///data/catalogue.vot")
            page.wait_for("tr:has-text('Pipeline') .status.due")
            page.wait_for("#clients li:has-text('topcat') .icon img")
            path = IMAGES / "hub-window.png"
            page.screenshot(path)
            shrink(path)
        browser.stop()


def ask_to_join(page: ServerProxy) -> None:
    """Register as a page does; the hub ends before the question is answered, which is a refusal."""
    with suppress(Fault, OSError), page:
        page.samp.webhub.register({"samp.name": "Sky chart"})


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for take in (linked, ds9, aladin, consent, hub_window):
        if len(sys.argv) == 1 or take.__name__ in sys.argv[1:]:
            take()
