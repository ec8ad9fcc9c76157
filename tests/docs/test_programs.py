"""The programs of ``docs/examples`` run, and show the tables that they receive."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
GALLERY = EXAMPLES.parent / "gallery"

#: Opens the window of a program until it shows a table.
_DRIVE = """
import runpy, sys
names = runpy.run_path(sys.argv[1])
"""

TK = _DRIVE + """
viewer = names["Viewer"]()
def look():
    text = viewer.text.get("1.0", "end")
    if "Two stars" in text:
        print(text)
        viewer.close()
    else:
        viewer.window.after(50, look)
look()
viewer.window.mainloop()
"""

QT = _DRIVE + """
from PySide6.QtCore import QTimer
application = names["QApplication"]([])
viewer = names["Viewer"]()
timer = QTimer()
def look():
    if "Two stars" in viewer.toPlainText():
        print(viewer.toPlainText())
        viewer.client.disconnect()
        application.quit()
timer.timeout.connect(look)
timer.start(50)
application.exec()
"""


@pytest.fixture
def client(hub: SAMPHubServer) -> Iterator[SAMPIntegratedClient]:
    with SAMPIntegratedClient(name="Sender") as client:
        yield client


def test_asyncio(client: SAMPIntegratedClient) -> None:
    main = runpy.run_path(str(GALLERY / "asyncio_service.py"))["main"]

    def feed() -> None:
        client.wait_for("Row counter", 20, "table.load.votable")
        client.send(Table({"a": [1, 2]}), to="Row counter").check()
        assert client.ecall_and_wait("Row counter", "x-rows.total", 20)["samp.result"] == {"rows": "2"}
        client.send(Table({"a": [1, 2, 3]}), to="Row counter").check()  # the program exits after this table

    async def both() -> int:
        feeding = asyncio.create_task(asyncio.to_thread(feed))
        rows = await main(count=2)
        await feeding
        return int(rows)

    assert asyncio.run(both()) == 5


def _show(script: str, name: str, client: SAMPIntegratedClient, environment: dict[str, str], title: str) -> None:
    command = [sys.executable, "-c", script, str(EXAMPLES / name)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        try:
            client.wait_for(title, 40, "table.load.votable")
            # no wait: the program exits as soon as it shows the table, maybe before its reply is sent
            client.send(Table({"a": [1, 2]}), to=title, name="Two stars", wait=False)
            output, _ = program.communicate(timeout=20)
        finally:
            program.kill()
    assert program.returncode == 0
    assert "Two stars: 2 rows" in output


def test_tk(client: SAMPIntegratedClient, python_environment: dict[str, str], display: str) -> None:
    pytest.importorskip("tkinter")
    _show(TK, "tk_viewer.py", client, {**python_environment, "DISPLAY": display}, "Tk viewer")


def test_qt(client: SAMPIntegratedClient, python_environment: dict[str, str]) -> None:
    pytest.importorskip("PySide6.QtWidgets")
    _show(QT, "qt_viewer.py", client, {**python_environment, "QT_QPA_PLATFORM": "offscreen"}, "Qt viewer")
