"""A Qt program that runs the hub for all programs, lists the clients, and asks in its own window about web pages."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtWidgets import QApplication, QListWidget, QMessageBox

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, WebProfileDialog


class Dispatcher(QObject):
    """Calls functions in the thread of the event loop: Qt queues a signal that another thread emits."""

    job = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.job.connect(self.run)

    def run(self, job: Callable[[], None]) -> None:
        """Call one function."""
        job()


class HubWindow(QListWidget, WebProfileDialog):
    """The list of clients. Closing the window stops the hub."""

    def __init__(self, web_port: int | None = None) -> None:
        QListWidget.__init__(self)
        WebProfileDialog.__init__(self)
        self.setWindowTitle("SAMP hub")
        options = {} if web_port is None else {"web_port": web_port}
        self.hub = SAMPHubServer(web_profile_dialog=self, label="Qt", **options)
        self.hub.start()
        self.dispatcher = Dispatcher()
        self.client = SAMPIntegratedClient(name="Qt hub", dispatch=self.dispatcher.job.emit)
        for event in ("register", "unregister", "metadata"):
            self.client.on(f"samp.hub.event.{event}")(self.show_clients)
        self.client.connect(hub=self.hub)
        self.timer = QTimer()
        self.timer.timeout.connect(self.handle_queue)  # asks about the next page, if one is waiting
        self.timer.start(200)
        self.show_clients()

    def show_clients(self) -> None:
        """Show the names of the clients."""
        self.clear()
        self.addItems(sorted(client.name for client in self.client.clients))

    def show_dialog(self, samp_name: str, details: object, client: object, origin: str) -> None:
        """Ask whether a web page may connect."""
        text = f"May the web page {samp_name!r} from {origin} connect?"
        if QMessageBox.question(self, "SAMP", text) == QMessageBox.StandardButton.Yes:
            self.consent()
        else:
            self.reject()

    def closeEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Stop the hub; it notifies all clients."""
        self.timer.stop()
        self.client.disconnect()
        self.hub.stop()


if __name__ == "__main__":
    application = QApplication([])
    window = HubWindow()
    window.show()
    application.exec()
