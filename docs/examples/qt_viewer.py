"""A Qt program that shows the tables that it is sent, with a hub of its own if there is none."""

from __future__ import annotations

from collections.abc import Callable

from astropy.table import Table
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QApplication, QPlainTextEdit

from pyvo.samp import SAMPIntegratedClient


class Bridge(QObject):
    """Has functions called by the event loop: a signal from another thread is queued."""

    job = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.job.connect(self.run)

    def run(self, job: Callable[[], None]) -> None:
        """Run one; Qt calls this in the thread to which the bridge belongs."""
        job()


class Viewer(QPlainTextEdit):
    """One window with a text in it."""

    def __init__(self) -> None:
        super().__init__()
        self.bridge = Bridge()
        self.client = SAMPIntegratedClient(name="Qt viewer", dispatch=self.bridge.job.emit)
        self.client.on("table.load.*")(self.show_table)
        self.client.connect(start_hub=True)

    def show_table(self, table: Table, name: str = "") -> None:
        """Show a table."""
        self.appendPlainText(f"{name}: {len(table)} rows\n{table}\n")

    def closeEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Leave the hub when the window is closed."""
        self.client.disconnect()


if __name__ == "__main__":
    application = QApplication([])
    viewer = Viewer()
    viewer.show()
    application.exec()
