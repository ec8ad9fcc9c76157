# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The mouse of TOPCAT's user: open a plot, draw a region around points, and send the points as a subset."""
from __future__ import annotations

import subprocess
import threading
from contextlib import suppress

from .programs import Screen, need

#: Positions of buttons. The windows are at the upper left corner of the screen.
PLANE_PLOT, FLOAT_CONTROLS, DRAW_REGION = (425, 40), (30, 40), (112, 40)
SUBSET_NAME, ADD_SUBSET, TRANSMIT_SUBSET = (388, 237), (237, 265), (256, 327)
#: The size of the plot window for which these positions, and those of regions, are valid.
SIZE = (620, 600)


class TopcatWindow:
    """
    TOPCAT's windows on a screen without a window manager.

    TOPCAT does not report when it has drawn. If a window opens, this class waits for it. Otherwise it gives TOPCAT
    ``pause`` seconds, and the callers check the result by messages.
    """

    def __init__(self, screen: Screen, pause: float = 1.0) -> None:
        need("xdotool")
        self._screen = screen
        self._pause = pause

    def _xdotool(self, *command: object, timeout: float = 60.0) -> str:
        done = subprocess.run(
            ["xdotool", *map(str, command)],
            env=self._screen.env, stdout=subprocess.PIPE, text=True, timeout=timeout, check=True,
        )
        return done.stdout

    def draw(self) -> None:
        """Give TOPCAT time to draw."""
        threading.Event().wait(self._pause)

    def click(self, button: tuple[int, int]) -> None:
        """Click a button."""
        self._screen.click(*button)
        self.draw()

    def _press_until_window(self, button: tuple[int, int], title: str) -> str:
        """Press a button until its window is open. TOPCAT ignores the mouse while it is busy."""
        for _ in range(6):
            self.click(button)
            with suppress(subprocess.TimeoutExpired):
                window = self._xdotool("search", "--sync", "--onlyvisible", "--name", title, timeout=10.0).split()[0]
                self.draw()
                return window
        raise TimeoutError(f"TOPCAT has not opened the window {title!r}")

    def open_plot(self) -> None:
        """Open a plot of the first two columns, without other controls in its window."""
        plot = self._press_until_window(PLANE_PLOT, "Plane Plot")
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
        """Draw a region around points. TOPCAT then opens a window for the new subset."""
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
        """Show the points in the region in another colour."""
        self.click(SUBSET_NAME)
        self._xdotool("type", "--delay", 100, name)
        self._xdotool("key", "Tab")
        self.draw()
        self.click(ADD_SUBSET)
