# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the hub window costs: the hub with a window open in Chromium, relative to a hub without.

``python -m benchmarks.window`` prints the ratios of the times and of the hub's CPU times, and the memory of the tab in
the second half of the rounds, relative to the first half.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import psutil

from .hubs import OURS, WINDOW, Hub
from .load_generator import LoadGenerator
from .measure import Batch, Prepare, Row, Settings, spread
from .report import table
from .rows_messages import prepare_broadcast, prepare_call, prepare_notify

#: The most that the ratios of times, and those of memory, may be.
GOAL, MEMORY_GOAL = 1.05, 1.25
BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.window", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", action="append", metavar="OPERATION")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a batch")
    options = parser.parse_args()
    settings = Settings(Path(), rounds=options.rounds, seconds=options.seconds)
    rows = {
        "callAndWait": prepare_call(keep=True),
        "notify": prepare_notify(keep=True),
        "notifyAll to 50": prepare_broadcast("notifyAll", 50),
        "callAll to 50": prepare_broadcast("callAll", 50),
    }
    lines = [["measurement", "quantity", "goal", "measured", "quartiles", ""]]
    for name in options.only or rows:
        browsers: list[subprocess.Popen[bytes]] = []
        sizes: list[int] = []

        def note_size(browsers: list[subprocess.Popen[bytes]] = browsers, sizes: list[int] = sizes) -> None:
            sizes.append(size_of_tab(browsers[0]))

        settings.after[WINDOW] = note_size
        try:
            row = settings.compare(Row(name, name, []), open_browser(rows[name], browsers), (OURS, WINDOW))
        finally:
            for browser in browsers:
                browser.kill()
                browser.wait()
        ratios = {"time": row.ratios("wall", OURS, WINDOW), "hub's CPU": row.ratios("cpu", OURS, WINDOW),
                  "memory of the tab": [max(sizes[len(sizes) // 2 :]) / max(sizes[: len(sizes) // 2])]}
        for quantity, values in ratios.items():
            r = spread(values)
            goal = MEMORY_GOAL if "memory" in quantity else GOAL
            lines.append([name, quantity, f"{goal:g}", f"{r['median']:.3f}", f"{r['lower']:.3f} - {r['upper']:.3f}",
                          "yes" if r["median"] <= goal else "**no**"])
        print(table([lines[0], *lines[-3:]]), flush=True)
    print(table(lines))


def size_of_tab(browser: subprocess.Popen[bytes]) -> int:
    """Return the resident memory of the largest process that runs a page."""
    processes = psutil.Process(browser.pid).children(recursive=True)
    return max(each.memory_info().rss for each in processes if "--type=renderer" in each.cmdline())


def open_browser(prepare: Prepare, browsers: list[subprocess.Popen[bytes]]) -> Prepare:
    """Show the window in a browser before the messages begin."""

    def prepare_both(hub: Hub, generator: LoadGenerator) -> Batch:
        if hub.name == WINDOW:
            executable = shutil.which(BROWSER[0])
            assert executable is not None, "Chromium is not installed"
            profile = f"--user-data-dir={hub.home / 'browser'}"
            command = [executable, *BROWSER[1:], profile, hub.params["window"]]
            browsers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return prepare(hub, generator)

    return prepare_both


if __name__ == "__main__":
    main()
