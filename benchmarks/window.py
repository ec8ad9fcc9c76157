# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the hub window costs: the hub's rate with a window open in Chromium, against its rate without.

``python -m benchmarks.window``. A ratio above 1 means that a message takes longer with the window.
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
from .rows_messages import prepare_broadcast, prepare_call, prepare_notify

BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.window", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a batch")
    options = parser.parse_args()
    settings = Settings(Path(), rounds=options.rounds, seconds=options.seconds)
    rows = {
        "callAndWait": prepare_call(keep=True),
        "notify": prepare_notify(keep=True),
        "notifyAll to 50": prepare_broadcast("notifyAll", 50),
        "callAll to 50": prepare_broadcast("callAll", 50),
    }
    for name, prepare in rows.items():
        browsers: list[subprocess.Popen[bytes]] = []
        try:
            row = settings.compare(Row(name, name, []), open_browser(prepare, browsers), (OURS, WINDOW))
            tabs = [process for browser in browsers for process in psutil.Process(browser.pid).children(recursive=True)]
            largest = max((tab.memory_info().rss for tab in tabs), default=0)
        finally:
            for browser in browsers:
                browser.kill()
                browser.wait()
        shown = [f"{1e6 * spread(row.subjects[one].wall)['median']:.0f}" for one in (OURS, WINDOW)]
        ratios = [spread(row.ratios(quantity, OURS, WINDOW)) for quantity in ("wall", "cpu")]
        texts = [f"{r['median']:.3f} ({r['lower']:.3f} to {r['upper']:.3f})" for r in ratios]
        print(f"{name}: {shown[0]} us without, {shown[1]} us with; time {texts[0]}, hub's CPU {texts[1]}; "
              f"largest process of the browser {largest / 1e6:.0f} MB", flush=True)  # fmt: skip


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
