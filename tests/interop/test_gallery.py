# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The programs of the gallery with TOPCAT, DS9, Aladin and JupyterLab, and the mouse of their user."""
from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

from ..docs.test_gallery import GALLERY
from ..docs.test_gallery import run as load
from .browser import Browser
from .conftest import Run
from .network import WEB_PORT, own_network
from .programs import Screen, environment, need
from .topcat_window import TopcatWindow

pytestmark = pytest.mark.timeout(420)

#: Corners of a region around the cluster of `topcat_rows`, in pixels of TOPCAT's plot.
AROUND_THE_CLUSTER = [(383, 440), (421, 432), (460, 440), (468, 474), (455, 494), (421, 496), (385, 494), (376, 474)]


class GalleryProgram:
    """A program of the gallery, in another process. Its output is read line by line."""

    def __init__(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(GALLERY / f"{name}.py"), *arguments], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def stop(self) -> None:
        """End the program."""
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


Start = Callable[..., GalleryProgram]


@pytest.fixture
def start(python_environment: dict[str, str]) -> Iterator[Start]:
    """Return a function that starts a program of the gallery."""
    started: list[GalleryProgram] = []

    def run_program(name: str, *arguments: str) -> GalleryProgram:
        started.append(GalleryProgram(name, arguments, python_environment))
        return started[-1]

    yield run_program
    for program in started:
        program.stop()


@pytest.fixture
def user(hub: SAMPHubServer) -> Iterator[SAMPIntegratedClient]:
    """A client that waits until a program is ready."""
    with SAMPIntegratedClient(name="user") as client:
        yield client


def test_topcat_rows(user: SAMPIntegratedClient, show: Run, screen: Screen, start: Start) -> None:
    """The mouse draws a region in TOPCAT's plot, and the program prints the number of stars in the region."""
    show("topcat", "-samp")
    user.wait_for("topcat", 180, "table.load.votable")
    program = start("topcat_rows")
    assert "press Transmit Subset" in program.lines.get(timeout=90)
    window = TopcatWindow(screen, pause=2.0)
    window.open_plot()
    window.draw_region(AROUND_THE_CLUSTER)
    window.transmit_subset()
    words = program.lines.get(timeout=60).split()
    assert words[1:3] == ["stars", "selected,"]
    assert 215 <= int(words[0]) <= 230  # the cluster has 220 stars


def test_ds9_regions(user: SAMPIntegratedClient, show: Run, start: Start) -> None:
    """The program uses the regions of DS9."""
    show("ds9", "-xpa", "no")
    user.wait_for("ds9", 60, "image.load.fits")
    program = start("ds9_regions")
    assert program.process.stdin is not None
    deadline = threading.Event()
    while "200" not in user.ds9.get("fits size", timeout=60):  # until DS9 shows the program's image
        deadline.wait(0.2)
    user.ds9("regions command {circle 151 121 12}")
    user.ds9("regions command {box 40 40 10 10}")
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    line = program.lines.get(timeout=60)
    flux = float(line.partition("flux =")[2].split()[0])
    assert "x =  151.0   y =  121.0" in line
    assert flux == pytest.approx(2 * 3.14159 * 9 * 800, rel=0.01)


def test_aladin_script(user: SAMPIntegratedClient, show: Run) -> None:
    """Aladin's view moves to the three brightest sources."""
    aladin = show("aladin", "-local", "-noreleasetest", "-noplugin", "-nolog", "-theme=classic")
    aladin.wait_for("Command>", 90)
    user.wait_for("Aladin", 60, "script.aladin.send")
    program = load("aladin_script")
    positions = program["main"]()
    _image, sources = program["make_field"]()
    sources.sort("peak", reverse=True)
    for position, source in zip(positions, sources[:3], strict=True):
        assert position.ra.deg == pytest.approx(source["ra"], abs=1e-3)
        assert position.dec.deg == pytest.approx(source["dec"], abs=1e-3)


def test_the_bridge_of_the_gallery(
    home: Path, show: Run, hub: SAMPHubServer, user: SAMPIntegratedClient, tmp_path: Path, start: Start
) -> None:
    """TOPCAT at one hub loads a table of a client at another hub."""
    pytest.importorskip("pyvo.samp.bridge")
    from astropy.table import Table

    show("topcat", "-samp")
    user.wait_for("topcat", 180, "table.load.votable")
    second = SAMPHubServer(lockfile=tmp_path / "second", web_profile=False)
    second.start()
    sender = SAMPIntegratedClient(name="Sender")
    sender.connect(hub=second)
    try:
        start("bridge", str(home / ".samp"), str(tmp_path / "second"))
        sender.wait_for("topcat (via one)", 60, "table.load.votable")
        assert sender.send(Table({"a": [1, 2]}), to="topcat (via one)", name="over the bridge").ok
    finally:
        sender.disconnect()
        second.stop()


def test_remote_notebook(home: Path, show: Run, tmp_path: Path) -> None:
    """TOPCAT on this computer loads a table of a notebook that reaches the hub only through its page."""
    pytest.importorskip("pyvo.samp.jupyter")
    pytest.importorskip("jupyterlab")
    need("chromium", "node")
    from .notebooks import JupyterServer, NotebookPage

    cells = (GALLERY / "remote_notebook.py").read_text().split("# %%\n")[1:]
    server_home, profile = tmp_path / "server", home / "b"  # Chromium creates a socket there, whose path must be short
    server_home.mkdir()
    profile.mkdir()
    executable = shutil.which("chromium")
    assert executable is not None
    with ExitStack() as stack:
        stack.enter_context(own_network())
        hub = SAMPHubServer(web_port=WEB_PORT, web_profile_dialog=lambda name, origin: True)
        stack.callback(hub.stop)
        hub.start()
        user = stack.enter_context(SAMPIntegratedClient(name="user"))
        show("topcat", "-samp")
        user.wait_for("topcat", 180, "table.load.votable")
        jupyter = stack.enter_context(JupyterServer(server_home))
        numbered = [f"{cell}\nprint('cell', {number})" for number, cell in enumerate(cells[1:])]
        jupyter.write("remote", cells[0], *numbered)
        browser = Browser(executable, profile, environment(profile))
        stack.callback(browser.stop)
        page = NotebookPage(browser, jupyter.url("remote"))
        page.run(0)
        page.connect()
        for number in range(len(cells) - 1):
            page.run(number + 1)
            page.wait_for(f"cell {number}")
            if number == 1:  # check() has raised no error: TOPCAT has the table
                assert "Notebook on the server" in user.clients
    assert number == 2
