# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the hub window costs: the hub's rate with a window open, against its rate without.

``python -m benchmarks.window``. A ratio above 1 means that a message takes longer with the window. It is measured
twice: with a program that reads and drops what the hub sends to a window, which shows what the hub does for it, and
with Chromium, which needs a share of the same processors.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from .hubs import OURS, STREAM, WINDOW, Hub
from .load_generator import LoadGenerator
from .measure import Batch, Prepare, Row, Settings, spread
from .rows_messages import prepare_broadcast, prepare_call, prepare_notify

BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.window", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a batch")
    parser.add_argument("--read", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_stream(options.read)
        return
    settings = Settings(Path(), rounds=options.rounds, seconds=options.seconds)
    rows = {
        "callAndWait": prepare_call(keep=True),
        "notify": prepare_notify(keep=True),
        "notifyAll to 50": prepare_broadcast("notifyAll", 50),
        "callAll to 50": prepare_broadcast("callAll", 50),
    }
    for name, prepare in rows.items():
        for subject in (STREAM, WINDOW):
            readers: list[subprocess.Popen[bytes]] = []
            try:
                row = settings.compare(Row(name, name, []), open_window(prepare, readers), (OURS, subject))
                parts = [part for reader in readers for part in psutil.Process(reader.pid).children(recursive=True)]
                largest = max((part.memory_info().rss for part in parts), default=0)
            finally:
                for reader in readers:
                    reader.kill()
                    reader.wait()
            shown = [f"{1e6 * spread(row.subjects[one].wall)['median']:.0f}" for one in (OURS, subject)]
            ratios = [spread(row.ratios(quantity, OURS, subject)) for quantity in ("wall", "cpu")]
            texts = [f"{r['median']:.3f} ({r['lower']:.3f} to {r['upper']:.3f})" for r in ratios]
            memory = f"; largest process of the browser {largest / 1e6:.0f} MB" if subject == WINDOW else ""
            print(f"{name}, {subject}: {shown[0]} us without, {shown[1]} us with; time {texts[0]}, "
                  f"hub's CPU {texts[1]}{memory}", flush=True)  # fmt: skip


def open_window(prepare: Prepare, readers: list[subprocess.Popen[bytes]]) -> Prepare:
    """Open the window before the messages begin."""

    def prepare_both(hub: Hub, generator: LoadGenerator) -> Batch:
        if hub.name == WINDOW:
            executable = shutil.which(BROWSER[0])
            assert executable is not None, "Chromium is not installed"
            profile = f"--user-data-dir={hub.home / 'browser'}"
            start(executable, *BROWSER[1:], profile, hub.params["window"])
        elif hub.name == STREAM:
            start(sys.executable, "-m", __spec__.name, "--read", hub.params["window"])
        return prepare(hub, generator)

    def start(*command: str) -> None:
        readers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    return prepare_both


def read_stream(url: str) -> None:
    """Read the stream of a window until the hub stops."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc)
    connection.request("POST", "/session", json.dumps({"token": place.fragment}), {"Content-Type": "application/json"})
    key = json.loads(connection.getresponse().read())["key"]
    connection.request("GET", "/events?since=0", headers={"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    while response.read1(1 << 20):
        pass


if __name__ == "__main__":
    main()
