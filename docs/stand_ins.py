# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Stand-ins for TOPCAT, DS9 and Aladin, with which the examples run in tests.

Each is a client of this package that is subscribed to the same MTypes as the real program, and replies. The tests of
``tests/interop`` run the same examples with the real programs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

__all__ = ["Desk", "StandIn"]


class StandIn:
    """A viewer that shows nothing, and keeps what it receives."""

    def __init__(self, name: str) -> None:
        self.client = SAMPIntegratedClient(name=name, description="A stand-in for the real program")
        self.received: list[Any] = []
        self.tables: dict[str, Table] = {}
        self.selected: list[int] = []
        self.commands: list[str] = []
        self.position = SkyCoord(0, 0, unit="deg")
        self.has_table = threading.Event()
        for mtype, handler in self.handlers().items():
            self.client.on(mtype)(handler)
        self.client.connect()

    def handlers(self) -> dict[str, Any]:
        """Return the handlers by MType."""
        return {"coord.pointAt.sky": self.point}

    def point(self, position: SkyCoord) -> None:
        """Show a position."""
        self.position = position

    def keep_table(self, table: Table, table_id: str = "") -> None:
        """Load a table."""
        self.tables[table_id] = table
        self.received.append(table)
        self.has_table.set()

    def keep_image(self, image: fits.HDUList) -> None:
        """Load an image."""
        self.received.append(image)

    def select_rows(self, row_list: list[int]) -> None:
        """Show rows as selected."""
        self.selected = row_list

    # Acts of its user

    def select(self, rows: list[int], table_id: str) -> None:
        """Select rows of a table, and call the other clients."""
        others = self.client.get_subscribed_clients("table.select.rowList")
        for other in others:
            self.client.ecall_and_wait(
                other, "table.select.rowList", 10, **{"table-id": table_id, "row-list": [str(row) for row in rows]}
            )

    def on_table(self, act: Callable[[], None]) -> threading.Thread:
        """Do something when the first table has arrived; return the thread that does it."""

        def work() -> None:
            if self.has_table.wait(30):
                act()

        thread = threading.Thread(target=work, name="user of a stand-in", daemon=True)
        thread.start()
        return thread

    def broadcast_when_wanted(self, name: str) -> None:
        """Send the last table to a client once it is subscribed to tables, as the button of TOPCAT does."""

        def work() -> None:
            self.client.wait_for(name, 30, "table.load.votable")
            self.client.send(list(self.tables.values())[-1], to=name)

        self.client.client.loop.run_in_worker(work)


class Topcat(StandIn):
    """Tables and their rows."""

    def handlers(self) -> dict[str, Any]:
        """Return the handlers by MType."""
        return {
            "table.load.votable": self.keep_table,
            "table.load.fits": self.keep_table,
            "table.select.rowList": self.select_rows,
            "table.highlight.row": lambda: None,
        }


class DS9(StandIn):
    """Images, and commands."""

    def handlers(self) -> dict[str, Any]:
        """Return the handlers by MType."""
        return {
            **super().handlers(),
            "image.load.fits": self.show,
            "ds9.set": self.command,
            "ds9.get": self.get_value,
        }

    regions: tuple[str, ...] = ()

    def draw(self, *regions: str) -> str:
        """Draw regions, as its user does; then press Return."""
        self.regions = regions
        return ""

    def show(self, image: fits.HDUList) -> None:
        """Show an image, and set the position to its middle."""
        self.keep_image(image)
        header = next(hdu.header for hdu in image if hdu.header.get("NAXIS") == 2)
        if "CRVAL1" not in header:
            return
        self.position = SkyCoord(header["CRVAL1"], header["CRVAL2"], unit="deg")

    def command(self, cmd: str) -> None:
        """Run a command."""
        self.commands.append(cmd)

    def get_value(self, cmd: str) -> dict[str, str]:
        """Return the result of a command."""
        if cmd.startswith("pan"):
            return {"value": f"{self.position.ra.deg} {self.position.dec.deg}"}
        if cmd.startswith("regions"):
            return {"value": "\n".join(["global color=green", "image", *self.regions])}
        if cmd == "fits size":
            shape = next(hdu.data.shape for hdu in self.received[-1] if hdu.data is not None)
            return {"value": f"{shape[1]} {shape[0]}"}
        return {"value": ""}


class Aladin(DS9):
    """Images, tables, coverages, and scripts."""

    def handlers(self) -> dict[str, Any]:
        """Return the handlers by MType."""
        return {
            "coord.pointAt.sky": self.point,
            "image.load.fits": self.show,
            "table.load.votable": self.keep_table,
            "coverage.load.moc.fits": lambda: None,
            "coord.get.sky": self.get_sky,
            "script.aladin.send": self.script,
        }

    def get_sky(self) -> dict[str, Any]:
        """Return the position."""
        return {"ra": self.position.ra.deg, "dec": self.position.dec.deg}

    def script(self, script: str) -> dict[str, str]:
        """Run a script."""
        self.commands.append(script)
        return {"script.result": ""}


_KINDS = {"topcat": Topcat, "SAOImageDS9": DS9, "Aladin": Aladin, "Sky chart": StandIn}


class Desk:
    """A hub, and the stand-ins that an example needs."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.hub = SAMPHubServer(web_profile=False)
        self._stack.callback(self.hub.stop)
        self.hub.start()

    def open(self, name: str) -> StandIn:
        """Start a program."""
        program = _KINDS[name](name)
        self._stack.callback(program.client.disconnect)
        return program

    def close(self) -> None:
        """Stop the stand-ins and the hub."""
        self._stack.close()
