# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Programs that stand in for TOPCAT, DS9 and Aladin where the examples are tried out.

Each is a client of our own that takes what the real one takes, and answers. So an example runs anywhere; the tests of
``tests/interop`` run the same example with the real program.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

__all__ = ["Desk", "StandIn"]


class StandIn:
    """
    A viewer that shows nothing, and remembers what it was sent.

    Parameters
    ----------
    name : str
        What it is called.
    """

    def __init__(self, name: str) -> None:
        self.client = SAMPIntegratedClient(name=name, description="A stand-in for the real program")
        self.received: list[Any] = []
        self.tables: dict[str, Table] = {}
        self.selected: list[int] = []
        self.commands: list[str] = []
        self.position = SkyCoord(0, 0, unit="deg")
        for mtype, handler in self.handlers().items():
            self.client.on(mtype)(handler)
        self.client.connect()

    def handlers(self) -> dict[str, Any]:
        """What it takes."""
        return {"coord.pointAt.sky": self.point}

    def point(self, position: SkyCoord) -> None:
        """Look somewhere."""
        self.position = position

    def keep_table(self, table: Table, table_id: str = "") -> None:
        """Load a table."""
        self.tables[table_id] = table
        self.received.append(table)

    def keep_image(self, image: fits.HDUList) -> None:
        """Load an image."""
        self.received.append(image)

    def select_rows(self, row_list: list[int]) -> None:
        """Show rows as selected."""
        self.selected = row_list

    # What its user does

    def select(self, rows: list[int], table_id: str) -> None:
        """Select rows of a table, and tell the others."""
        others = self.client.get_subscribed_clients("table.select.rowList")
        for other in others:
            self.client.ecall_and_wait(
                other, "table.select.rowList", 10, **{"table-id": table_id, "row-list": [str(row) for row in rows]}
            )

    def broadcast_when_wanted(self, name: str) -> None:
        """Send the last table to a client as soon as it takes tables: its user has pressed the button."""

        def work() -> None:
            self.client.wait_for(name, 30, "table.load.votable")
            self.client.send(list(self.tables.values())[-1], to=name)

        self.client.client.loop.run_in_worker(work)


class Topcat(StandIn):
    """Tables and their rows."""

    def handlers(self) -> dict[str, Any]:
        """What it takes."""
        return {
            "table.load.votable": self.keep_table,
            "table.load.fits": self.keep_table,
            "table.select.rowList": self.select_rows,
            "table.highlight.row": lambda: None,
        }


class DS9(StandIn):
    """Images, and commands."""

    def handlers(self) -> dict[str, Any]:
        """What it takes."""
        return {
            **super().handlers(),
            "image.load.fits": self.show,
            "ds9.set": self.command,
            "ds9.get": self.answer,
        }

    def show(self, image: fits.HDUList) -> None:
        """Show an image, and look at its middle."""
        self.keep_image(image)
        header = next(hdu.header for hdu in image if hdu.header.get("NAXIS") == 2)
        self.position = SkyCoord(header["CRVAL1"], header["CRVAL2"], unit="deg")

    def command(self, cmd: str) -> None:
        """Do as told."""
        self.commands.append(cmd)

    def answer(self, cmd: str) -> dict[str, str]:
        """Answer a question."""
        if cmd.startswith("pan"):
            return {"value": f"{self.position.ra.deg} {self.position.dec.deg}"}
        if cmd == "fits size":
            shape = next(hdu.data.shape for hdu in self.received[-1] if hdu.data is not None)
            return {"value": f"{shape[1]} {shape[0]}"}
        return {"value": ""}


class Aladin(DS9):
    """Images, tables, coverages, and scripts."""

    def handlers(self) -> dict[str, Any]:
        """What it takes."""
        return {
            "coord.pointAt.sky": self.point,
            "image.load.fits": self.show,
            "table.load.votable": self.keep_table,
            "coverage.load.moc.fits": lambda: None,
            "coord.get.sky": self.tell,
            "script.aladin.send": self.script,
        }

    def tell(self) -> dict[str, Any]:
        """Tell where it looks."""
        return {"ra": self.position.ra.deg, "dec": self.position.dec.deg}

    def script(self, script: str) -> dict[str, str]:
        """Run a script."""
        self.commands.append(script)
        return {"script.result": ""}


_KINDS = {"topcat": Topcat, "SAOImageDS9": DS9, "Aladin": Aladin, "Sky chart": StandIn}


class Desk:
    """A hub, and the programs that an example needs; all of them end together."""

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
        """End everything."""
        self._stack.close()
