# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the user of TOPCAT does with the mouse: open a plot, draw a region around points, and send them as a subset."""
from __future__ import annotations

import subprocess
import threading

from .programs import Screen, need

#: Buttons of the windows, which are at the upper left corner of the screen.
PLANE_PLOT, FLOAT_CONTROLS, DRAW_REGION = (425, 40), (30, 40), (112, 40)
SUBSET_NAME, ADD_SUBSET, TRANSMIT_SUBSET = (388, 237), (237, 265), (256, 327)
#: The size of the plot window for which these, and the regions, are right.
SIZE = (620, 600)


class TopcatWindow:
    """
    TOPCAT's windows on a screen without a window manager.

    TOPCAT does not tell when it has drawn. Where a window opens, this waits for the window; elsewhere it gives TOPCAT
    ``pause`` seconds, and the callers check by messages what has come of it.
    """

    def __init__(self, screen: Screen, pause: float = 1.0) -> None:
        need("xdotool")
        self._screen = screen
        self._pause = pause

    def _xdotool(self, *command: object) -> str:
        done = subprocess.run(
            ["xdotool", *map(str, command)],
            env=self._screen.env, stdout=subprocess.PIPE, text=True, timeout=20, check=True,
        )
        return done.stdout

    def draw(self) -> None:
        """Give TOPCAT time to draw."""
        threading.Event().wait(self._pause)

    def click(self, button: tuple[int, int]) -> None:
        """Click a button."""
        self._screen.click(*button)
        self.draw()

    def open_plot(self) -> None:
        """Open a plot of the first two columns, alone in its window."""
        self.click(PLANE_PLOT)
        plot = self._xdotool("search", "--sync", "--onlyvisible", "--name", "Plane Plot").split()[0]
        self.draw()
        self._xdotool("windowmove", plot, 0, 0)
        self.click(FLOAT_CONTROLS)
        self.draw()
        self._xdotool("windowsize", plot, *SIZE)
        controls = self._xdotool("search", "--onlyvisible", "--name", ".*").split()
        for window in controls:
            if "500x240" in self._xdotool("getwindowgeometry", window):
                self._xdotool("windowmove", window, SIZE[0] + 20, SIZE[1] - 200)
        self.draw()

    def draw_region(self, corners: list[tuple[int, int]]) -> None:
        """Draw a region around points; TOPCAT then asks what to do with it."""
        self.click(DRAW_REGION)
        along = [word for corner in [*corners[1:], corners[0]] for word in ("mousemove", *corner, "sleep", 0.1)]
        self._xdotool("mousemove", *corners[0], "mousedown", 1, "sleep", 0.1, *along, "mouseup", 1)
        self.draw()
        self.click(DRAW_REGION)
        self._xdotool("search", "--sync", "--onlyvisible", "--name", "New Subset")
        self.draw()

    def transmit_subset(self) -> None:
        """Send the points in the region to all clients."""
        self.click(TRANSMIT_SUBSET)

    def add_subset(self, name: str) -> None:
        """Show the points in the region in a colour of their own."""
        self.click(SUBSET_NAME)
        self._xdotool("type", name)
        self.draw()
        self.click(ADD_SUBSET)
