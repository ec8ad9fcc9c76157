# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The gallery's programs run with stand-ins. ``tests/interop/test_gallery.py`` runs them with the real programs."""

from __future__ import annotations

import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import pytest
from astropy.table import Table

from pyvo.samp import SAMPIntegratedClient

from .examples import DOCS, load_module

GALLERY = DOCS / "gallery"
PROGRAMS = ["topcat_rows", "ds9_regions", "aladin_script", "qt_hub", "asyncio_service", "remote_notebook", "bridge"]


@pytest.fixture
def desk(isolated: Path) -> Iterator[Any]:
    """A hub, and programs that stand in for others."""
    desk = load_module(DOCS / "stand_ins.py").Desk()
    yield desk
    desk.close()


def run(name: str) -> dict[str, Any]:
    """Load a program, without its main part."""
    return runpy.run_path(str(GALLERY / f"{name}.py"))


def test_every_program_has_a_page() -> None:
    """The gallery has eight pages. Each program is shown and can be downloaded."""
    pages = re.findall(r"^   ([a-z0-9-]+)$", (GALLERY / "index.rst").read_text(), re.MULTILINE)
    assert len(pages) == 8
    text = "\n".join((GALLERY / f"{page}.rst").read_text() for page in pages)
    assert sorted(path.stem for path in GALLERY.glob("*.py")) == sorted(PROGRAMS)
    for name in PROGRAMS:
        assert f"literalinclude:: {name}.py" in text
        assert f":download:`{name}.py`" in text


def test_topcat_rows(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    topcat = desk.open("topcat")
    printed: list[str] = []
    is_waiting = threading.Event()

    def show(text: str, **_options: object) -> None:
        printed.append(text)
        is_waiting.set()

    def select() -> None:
        assert is_waiting.wait(30)
        [table_id] = topcat.tables
        topcat.select([0, 1000, 1119], table_id)

    arrived = topcat.on_table(select)
    monkeypatch.setattr("builtins.print", show)
    rows = run("topcat_rows")["main"]()
    arrived.join(20)
    assert len(rows) == 3
    assert printed[1].startswith("3 stars selected, mean magnitude")


def test_ds9_regions(desk: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ds9 = desk.open("SAOImageDS9")
    regions = ["circle(151,121,12)", "box(5,5,2,2,0)", "circle(20,20,3)"]
    monkeypatch.setattr("builtins.input", lambda _text: ds9.draw(*regions))
    found = run("ds9_regions")["main"]()
    assert [region[:2] for region in found] == [(151.0, 121.0), (20.0, 20.0)]
    # the flux of a star is 2 pi sigma^2 times its peak; the other region contains only noise
    assert found[0][2] == pytest.approx(2 * 3.14159 * 9 * 800, rel=0.01)
    assert abs(found[1][2]) < 30
    assert "x =  151.0   y =  121.0   flux =" in capsys.readouterr().out


def test_aladin_script(desk: Any) -> None:
    aladin = desk.open("Aladin")
    positions = run("aladin_script")["main"]()
    assert len(positions) == 3
    assert [command.split("(")[0] for command in aladin.commands[1:]] == ["draw circle"] * 3
    assert len(aladin.received) == 2


QT = """
import runpy, sys
names = runpy.run_path(sys.argv[1])
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QMessageBox
application = names["QApplication"]([])
window = names["HubWindow"](web_port=0)
print(window.hub._web_port, flush=True)

def question(parent, title, text):
    print(text, flush=True)
    return QMessageBox.StandardButton.Yes
QMessageBox.question = question

def check():
    shown = [window.item(row).text() for row in range(window.count())]
    if shown == ["A page", "Sender"]:
        print(*shown, sep="; ", flush=True)
        window.close()
        application.quit()
timer = QTimer()
timer.timeout.connect(check)
timer.start(50)
application.exec()
"""


def test_qt_hub(isolated: Path, python_environment: dict[str, str]) -> None:
    """The program is a hub, shows the clients, and registers a web page with the consent of the user."""
    pytest.importorskip("PySide6.QtWidgets")
    command = [sys.executable, "-c", QT, str(GALLERY / "qt_hub.py")]
    environment = {**python_environment, "QT_QPA_PLATFORM": "offscreen"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            port = program.stdout.readline().strip()
            with SAMPIntegratedClient(name="Sender"):
                with ServerProxy(f"http://127.0.0.1:{port}/", headers=[("Origin", "https://example.org")]) as page:
                    key = page.samp.webhub.register({"samp.name": "A page"})["samp.private-key"]
                    page.samp.webhub.declareMetadata(key, {"samp.name": "A page"})
                output, _ = program.communicate(timeout=40)
        finally:
            program.kill()
    assert program.returncode == 0
    assert output.splitlines() == ["May the web page 'A page' from https://example.org connect?", "A page; Sender"]


def test_bridge(isolated: Path, make_hub: Callable[..., Any], tmp_path: Path) -> None:
    """A client of the second hub sends a table to a client of the first hub."""
    pytest.importorskip("pyvo.samp.bridge")
    hubs = [make_hub(lockfile=tmp_path / name) for name in ("one", "two")]
    command = [sys.executable, str(GALLERY / "bridge.py"), *(str(tmp_path / name) for name in ("one", "two"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        viewer, sender = SAMPIntegratedClient(name="Viewer"), SAMPIntegratedClient(name="Sender")
        try:
            arrived = []
            got = threading.Event()

            @viewer.on("table.load.votable")
            def load(table: Table) -> None:
                arrived.append(len(table))
                got.set()

            viewer.connect(hub=hubs[0])
            sender.connect(hub=hubs[1])
            sender.wait_for("Viewer (via one)", 30, "table.load.votable")
            assert sender.send(Table({"a": [1, 2]}), to="Viewer (via one)").ok
            assert got.wait(20)
            assert "+ Viewer\n" in [program.stdout.readline() for _ in range(2)]
        finally:
            sender.disconnect()
            viewer.disconnect()
            program.send_signal(signal.SIGINT)
            program.communicate(timeout=30)
    assert program.returncode == 0
    assert arrived == [2]
