# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure the cost of the hub window: a hub with an open window, relative to a hub without.

``python -m benchmarks.window`` prints the ratios of the times and of the hub's CPU times. It measures twice. The first
reader is a program that discards the data that the hub sends to a window, which shows the hub's own work. The second is
Chromium, which uses the same processors. For Chromium it also prints the memory of the tab in the second half of the
rounds, relative to the first half.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
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
from .report import table
from .rows_messages import prepare_broadcast, prepare_call, prepare_notify

#: The limits of the ratios of times and of memory.
GOAL, MEMORY_GOAL = 1.05, 1.25
READERS = {STREAM: "a program", WINDOW: "Chromium"}
BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.window", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", action="append", metavar="OPERATION")
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
    lines = [["measurement", "reader", "quantity", "goal", "measured", "quartiles", ""]]
    for name, subject in itertools.product(options.only or rows, (STREAM, WINDOW)):
        readers: list[subprocess.Popen[bytes]] = []
        sizes: list[int] = []

        def note_size(readers: list[subprocess.Popen[bytes]] = readers, sizes: list[int] = sizes) -> None:
            sizes.append(size_of_tab(readers[0]))

        settings.after[WINDOW] = note_size
        try:
            row = settings.compare(Row(name, name, []), open_window(rows[name], readers), (OURS, subject))
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()
        ratios = {"time": row.ratios("wall", OURS, subject), "hub's CPU": row.ratios("cpu", OURS, subject)}
        if subject == WINDOW:
            ratios["memory of the tab"] = [max(sizes[len(sizes) // 2 :]) / max(sizes[: len(sizes) // 2])]
        for quantity, values in ratios.items():
            r = spread(values)
            goal = MEMORY_GOAL if "memory" in quantity else GOAL
            lines.append([name, READERS[subject], quantity, f"{goal:g}", f"{r['median']:.3f}",
                          f"{r['lower']:.3f} - {r['upper']:.3f}", "yes" if r["median"] <= goal else "**no**"])
        print(table([lines[0], *lines[-len(ratios) :]]), flush=True)
    print(table(lines))


def size_of_tab(browser: subprocess.Popen[bytes]) -> int:
    """Return the resident memory of the largest process that runs a page."""
    processes = psutil.Process(browser.pid).children(recursive=True)
    return max(each.memory_info().rss for each in processes if "--type=renderer" in each.cmdline())


def open_window(prepare: Prepare, readers: list[subprocess.Popen[bytes]]) -> Prepare:
    """Return a function that opens the window before the batch is prepared."""

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
