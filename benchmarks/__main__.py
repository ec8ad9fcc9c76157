# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure everything, or the rows that ``--only`` names: ``python -m benchmarks --json out.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import report, rows_clients, rows_many_clients, rows_messages
from .hubs import BASELINE, JSAMP, OURS, UPSTREAM
from .load_generator import BenchmarkError
from .measure import Row, Settings, machine

#: The rows in the order in which they are measured.
ROWS: dict[str, Callable[[Settings], Row]] = {
    "call-keep": lambda settings: rows_messages.call_and_wait(settings, keep=True),
    "call-reconnect": lambda settings: rows_messages.call_and_wait(settings, keep=False),
    "notify-keep": lambda settings: rows_messages.notify(settings, keep=True),
    "notify-reconnect": lambda settings: rows_messages.notify(settings, keep=False),
    "notify-all": rows_messages.notify_all,
    "call-all": rows_messages.call_all,
    "life": lambda settings: rows_many_clients.life(settings, 0),
    "life-heard": lambda settings: rows_many_clients.life(settings, min(200, settings.crowd_size)),
    "rush": rows_many_clients.rush,
    "web-call": rows_messages.web_call,
    "big": rows_messages.big_message,
    "idle": rows_many_clients.idle,
    "client": rows_clients.client_library,
    "client-ours": lambda settings: rows_clients.client_library(settings, OURS),
    "client-jsamp": lambda settings: rows_clients.client_library(settings, JSAMP),
    "import": lambda settings: rows_clients.import_time(settings, "SAMPIntegratedClient"),
    "import-hub": lambda settings: rows_clients.import_time(settings, "SAMPIntegratedClient, SAMPHubServer"),
    **{
        f"calcstorm-{mode}": lambda settings, mode=mode: rows_clients.calcstorm(settings, mode)  # type: ignore[misc]
        for mode in ("sync", "async", "notify", "random")
    },
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    names = [*ROWS, "growth"]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="one of " + ", ".join(names))
    subjects = [OURS, JSAMP, UPSTREAM, BASELINE]
    parser.add_argument("--without", action="append", choices=subjects, default=[], help="a subject to leave out")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--rst", type=Path, help="write the tables to this file")
    parser.add_argument("--quick", action="store_true", help="check that everything runs; the figures are meaningless")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--many", type=int, default=500, help="how many clients the rows with many clients have")
    cache = Path.home() / ".cache" / "samp-benchmarks"
    parser.add_argument("--cache", type=Path, default=cache, help="directory for upstream's release")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    without = set(options.without)
    if shutil.which("jsamp") is None:
        print("JSAMP is not installed (Debian: apt install jsamp): it is not measured", file=sys.stderr)
        without.add(JSAMP)
    options.cache.mkdir(parents=True, exist_ok=True)
    settings = Settings(options.cache.resolve(), options.rounds, crowd_size=options.many, without=frozenset(without))
    if options.quick:
        settings.quick, settings.rounds, settings.seconds = True, 2, 0.05
        settings.crowd_size = min(settings.crowd_size, 10)
    results: dict[str, Any] = {"machine": machine(), "rounds": settings.rounds, "rows": {}}
    rows = []
    for name in options.only or [*ROWS, "growth"]:
        started = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name == "growth":
            results["growth"] = rows_many_clients.grow(settings)
            continue
        if name.startswith("calcstorm") and JSAMP in without:
            continue
        try:
            rows.append(ROWS[name](settings))
        except BenchmarkError as error:
            rows.append(Row(name, name, [], failures={OURS: str(error)}))
        results["rows"][name] = rows[-1].as_json()
        print(report.table(report.goals(rows[-1:])), f"({time.monotonic() - started:.0f} s)", sep="\n", flush=True)
    tables = f"{report.table(report.goals(rows))}\n\n{report.table(report.figures(rows))}\n"
    print(tables)
    if options.rst:
        options.rst.write_text(tables)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 1 if any(OURS in row.failures for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
