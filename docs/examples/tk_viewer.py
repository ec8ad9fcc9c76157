"""A Tk program that shows the tables that it is sent, with a hub of its own if there is none."""

from __future__ import annotations

import queue
import tkinter as tk

from astropy.table import Table

from pyvo.samp import SAMPIntegratedClient


class Viewer:
    """One window with a text in it."""

    def __init__(self) -> None:
        self.window = tk.Tk()
        self.text = tk.Text(self.window, width=80, height=20)
        self.text.pack()
        self.jobs: queue.Queue = queue.Queue()
        # Tk may be touched by its own thread only: handlers come through a queue, which the event loop looks into
        self.client = SAMPIntegratedClient(name="Tk viewer", dispatch=self.jobs.put)
        self.client.on("table.load.*")(self.show)
        self.client.connect(start_hub=True)
        self.window.protocol("WM_DELETE_WINDOW", self.close)
        self.look()

    def look(self) -> None:
        """Run what waits, ten times a second."""
        while not self.jobs.empty():
            self.jobs.get()()
        self.window.after(100, self.look)

    def show(self, table: Table, name: str = "") -> None:
        """Show a table."""
        self.text.insert("end", f"{name}: {len(table)} rows\n{table}\n\n")

    def close(self) -> None:
        """Leave the hub, and end."""
        self.client.disconnect()
        self.window.destroy()


if __name__ == "__main__":
    Viewer().window.mainloop()
