# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure everything, or what ``--only`` names: ``python -m benchmarks --json out.json``.
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

from . import report, rows_crowd, rows_library, rows_messages
from .hubs import FLOOR, JSAMP, OURS, UPSTREAM
from .measure import Bench, Row, machine
from .swarm import BenchmarkError

#: The rows in the order in which they are measured.
ROWS: dict[str, Callable[[Bench], Row]] = {
    "call-keep": lambda bench: rows_messages.call_and_wait(bench, keep=True),
    "call-reconnect": lambda bench: rows_messages.call_and_wait(bench, keep=False),
    "notify-keep": lambda bench: rows_messages.notify(bench, keep=True),
    "notify-reconnect": lambda bench: rows_messages.notify(bench, keep=False),
    "notify-all": rows_messages.notify_all,
    "call-all": rows_messages.call_all,
    "life": lambda bench: rows_crowd.life(bench, 0),
    "life-heard": lambda bench: rows_crowd.life(bench, min(200, bench.many)),
    "rush": rows_crowd.rush,
    "web-call": rows_messages.web_call,
    "big": rows_messages.big_message,
    "idle": rows_crowd.idle,
    "client": rows_library.client_library,
    "client-ours": lambda bench: rows_library.client_library(bench, OURS),
    "client-jsamp": lambda bench: rows_library.client_library(bench, JSAMP),
    "import": lambda bench: rows_library.import_time(bench, "SAMPIntegratedClient"),
    "import-hub": lambda bench: rows_library.import_time(bench, "SAMPIntegratedClient, SAMPHubServer"),
    **{
        f"calcstorm-{mode}": lambda bench, mode=mode: rows_library.calcstorm(bench, mode)  # type: ignore[misc]
        for mode in ("sync", "async", "notify", "random")
    },
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    names = [*ROWS, "growth"]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="one of " + ", ".join(names))
    subjects = [OURS, JSAMP, UPSTREAM, FLOOR]
    parser.add_argument("--without", action="append", choices=subjects, default=[], help="leave one out")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--rst", type=Path, help="write the tables to this file")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--many", type=int, default=500, help="how many clients a crowd has")
    cache = Path.home() / ".cache" / "samp-benchmarks"
    parser.add_argument("--cache", type=Path, default=cache, help="where upstream's release is kept")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    without = set(options.without)
    if shutil.which("jsamp") is None:
        print("JSAMP is not installed (Debian: apt install jsamp): it is left out", file=sys.stderr)
        without.add(JSAMP)
    options.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.cache.resolve(), rounds=options.rounds, many=options.many, without=frozenset(without))
    if options.quick:
        bench.quick, bench.rounds, bench.seconds, bench.many = True, 2, 0.05, min(bench.many, 10)
    results: dict[str, Any] = {"machine": machine(), "rounds": bench.rounds, "rows": {}}
    rows = []
    for name in options.only or [*ROWS, "growth"]:
        started = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name == "growth":
            results["growth"] = rows_crowd.grow(bench)
            continue
        if name.startswith("calcstorm") and JSAMP in without:
            continue
        try:
            rows.append(ROWS[name](bench))
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
