# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure tables: ``python -m benchmarks.tables``.

Each figure is a ratio of two times of one run, measured in turn several times; the median is printed. Reading is
compared with astropy by CPU time in one process. Peak memory is measured in a new process for each format, from a file
and by HTTP. Sending goes through a hub to a client in another process, and is compared with astropy's writing and
reading of the same table as FITS. TOPCAT has its own screen (Xvfb). ``--runs 3`` repeats all measurements, and prints
the table of `docs/samp/performance.rst`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from astropy.io.votable import from_table
from astropy.table import MaskedColumn, Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, SAMPTimeoutError
from pyvo.samp.formats.model import Sender
from pyvo.samp.formats.readers import read_message, read_table

from .report import table as write_table

RECEIVER = "table receiver"
#: The title of a measurement, its figure (None if it could not be measured), and its goal.
Line = tuple[str, float | None, float]


def make_table(rows: int) -> Table:
    """Return a table of 13 columns: 11 doubles and longs, a text, and a float with missing values."""
    rng = np.random.default_rng(1)
    table = Table({f"d{number}": rng.normal(size=rows) * 10.0**number for number in range(6)})
    for number in range(5):
        table[f"l{number}"] = rng.integers(-(2**40), 2**40, rows)
    table["name"] = np.array([f"object {number}" for number in range(rows)])
    table["mag"] = MaskedColumn(rng.normal(size=rows).astype("f4"), mask=rng.random(rows) < 0.1)
    table["d0"].unit = "deg"
    table["d0"].meta["ucd"] = "pos.eq.ra"
    table["d0"].description = "Right ascension"
    return table


def size_of(table: Table) -> int:
    """Return the number of bytes of a table's values and masks."""
    return sum(column.nbytes + (column.mask.nbytes if isinstance(column, MaskedColumn) else 0)
               for column in table.columns.values())


def wall(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def cpu(action: Callable[[], Any]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def memory(key: str) -> int:
    """Return the resident memory of this process, or its peak, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def reset_peak() -> int:
    """Reset the peak, and return the memory now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return memory("VmRSS")


# The processes


def receiver(rows: int) -> None:
    """Receive tables, and print how much memory each needed."""
    with SAMPIntegratedClient(name=RECEIVER) as client, client.incoming("table.load.*") as queue:
        print("ready", flush=True)
        before = reset_peak()
        for table in queue:
            peak = memory("VmHWM")
            size = size_of(table)
            if len(table) == rows:
                print(json.dumps((peak - before - size) / size), flush=True)
            del table
            before = reset_peak()


def reader(url: str) -> None:
    """Read the table that a message names, after a small one; print how much memory was needed beyond the table."""
    params = {"url": url}
    mtype = "table.load.fits" if url.endswith("fits") else "table.load.votable"
    read_message(mtype, {"url": url.replace("table.", "small.")}, Sender("c1", ""))
    before = reset_peak()
    table = read_message(mtype, params, Sender("c1", ""))
    print((memory("VmHWM") - before - size_of(table)) / size_of(table))


def sender(rows: int, rounds: int, program: str, fits: Path) -> None:
    """Send a table to a program, and compare the time with writing and reading FITS."""
    table = make_table(rows)
    with SAMPIntegratedClient(name="table sender") as client:
        client.wait_for(program, 60, "table.load.votable")
        client.send(make_table(10), to=program)
        found: dict[str, Any] = {"send": [], "fits": [], "memory": 0.0, "mtype": ""}
        for _ in range(rounds):
            before = reset_peak()
            start = time.perf_counter()
            report = client.send(table, to=program, timeout=120)
            found["send"].append(time.perf_counter() - start)
            if not report.ok:
                raise SystemExit(f"{program} did not take the table: {report}")
            found["memory"] = max(found["memory"], (memory("VmHWM") - before) / size_of(table))
            found["mtype"] = report.deliveries[0].mtype

            def through_fits() -> None:
                table.write(fits, overwrite=True)
                Table.read(fits)

            found["fits"].append(wall(through_fits))
    print(json.dumps(found))


def role(name: str, options: argparse.Namespace, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.tables", "--role", name, "--rows", str(options.rows),
            "--rounds", str(options.rounds), *arguments]


# The measurements


FORMS = {"tabledata": 0.2, "binary": 0.03, "binary2": 0.03, "fits": 1.2}


def write(table: Table, path: Path, form: str) -> Path:
    if form == "fits":
        table.write(path)
    else:
        from_table(table).to_xml(str(path), tabledata_format=form)
    return path


def received(directory: Path, options: argparse.Namespace) -> list[Line]:
    """Compare the CPU time of our reading with that of astropy's."""
    table = make_table(options.rows)
    lines: list[Line] = []
    for form, goal in FORMS.items():
        suffix = "fits" if form == "fits" else "vot"
        path = write(table, directory / f"{form}-table.{suffix}", form)
        write(make_table(10), directory / f"{form}-small.{suffix}", form)
        ours = partial(read_table, path)
        astropys = partial(Table.read, path, format="fits" if form == "fits" else "votable")
        ours()
        found = [cpu(ours) / cpu(astropys) for _ in range(options.rounds)]
        lines.append((f"received from {form.upper()} / ``Table.read``", statistics.median(found), goal))
    return lines


def memory_of_reading(directory: Path, options: argparse.Namespace) -> list[Line]:
    """Measure the peak memory of reading each format, from a file and by HTTP."""
    handler = partial(QuietHandler, directory=str(directory))
    lines: list[Line] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for form in FORMS:
            path = directory / f"{form}-table.{'fits' if form == 'fits' else 'vot'}"
            for url in (path.as_uri(), f"http://127.0.0.1:{server.server_port}/{path.name}"):
                command = role("reader", options, "--url", url)
                beyond = float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
                source = "a file" if url.startswith("file:") else "HTTP"
                lines.append((f"peak memory, {form.upper()} from {source}, beyond the table / table", beyond, 1.0))
        server.shutdown()
    return lines


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def sent_to_python(directory: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    """Send a table to a client of this package; return the ratio to FITS, and the memory of both sides."""
    process = subprocess.Popen(role("receiver", options), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        found = run_sender(directory, options, RECEIVER)
        memories = [float(process.stdout.readline()) for _ in range(options.rounds)]
    finally:
        process.kill()
        process.wait()
    ratios = [send / fits for send, fits in zip(found["send"], found["fits"], strict=True)]
    print(f"  (sent as {found['mtype']}: {statistics.median(found['send']):.2f} s, "
          f"FITS {statistics.median(found['fits']):.2f} s)")
    return statistics.median(ratios), found["memory"], max(memories)


def run_sender(directory: Path, options: argparse.Namespace, program: str) -> dict[str, Any]:
    command = role("sender", options, "--program", program, "--fits", str(directory / "sent.fits"))
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


def sent_to_topcat(directory: Path, options: argparse.Namespace) -> float | None:
    """Send a table to TOPCAT, and compare the time with that of STILTS, which reads the same table."""
    if not all(map(shutil.which, ("topcat", "Xvfb"))):
        return None
    home = directory / "home"
    java = f"-Duser.home={home} -Djava.util.prefs.userRoot={home} -Djava.io.tmpdir={home}"
    environment = {**os.environ, "HOME": str(home), "JAVA_TOOL_OPTIONS": java}
    large, small = directory / "stilts.fits", directory / "small.fits"
    make_table(options.rows).write(large)
    make_table(1).write(small)

    def stilts(path: Path) -> float:
        command = ["topcat", "-stilts", "tpipe", f"in={path}", "cmd=cache", "omode=count"]
        return wall(lambda: subprocess.run(command, env=environment, capture_output=True, check=True))

    readings = [stilts(large) - stilts(small) for _ in range(options.rounds)]
    read, write = os.pipe()
    screen = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-nolisten", "tcp"], pass_fds=[write],
                              stderr=subprocess.DEVNULL)
    try:
        os.close(write)
        with os.fdopen(read) as answer:
            environment["DISPLAY"] = f":{answer.readline().strip()}"
        topcat = subprocess.Popen(["topcat", "-samp"], env=environment, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            found = run_sender(directory, options, "topcat")
        finally:
            os.killpg(topcat.pid, 9)
            topcat.wait()
    finally:
        screen.kill()
        screen.wait()
    print(f"  (sent as {found['mtype']}: {statistics.median(found['send']):.2f} s, "
          f"STILTS {statistics.median(readings):.2f} s)")
    return statistics.median(found["send"]) / statistics.median(readings)


def selected() -> float | None:
    """Return the seconds that it takes to select half a million rows of a table that another client has."""
    with SAMPIntegratedClient(name="one") as one, SAMPIntegratedClient(name="other") as other:
        rows = 1_000_000
        other.bind_receive_call("table.load.*", lambda _key, _sender, msg_id, *_: other.reply(
            msg_id, {"samp.status": "samp.ok", "samp.result": {}}))
        got: list[int] = []

        def on_rows(_key: str, _sender: str, msg_id: str, _mtype: str, params: Any, _extra: Any) -> None:
            got.append(len(params["row-list"]))
            other.reply(msg_id, {"samp.status": "samp.ok", "samp.result": {}})

        other.bind_receive_call("table.select.rowList", on_rows)
        with one.link(Table({"a": np.arange(rows)}), to="other") as link:
            taken = wall(lambda: link.select(np.arange(rows) % 2 == 0))
        return taken if got == [rows // 2] else None


def measure(options: argparse.Namespace) -> list[Line]:
    """Measure everything once."""
    with tempfile.TemporaryDirectory(prefix="samp-tables-") as name:
        directory = Path(name)
        (directory / "home").mkdir()
        os.environ["HOME"] = str(directory / "home")
        lines = received(directory, options) + memory_of_reading(directory, options)
        hub = SAMPHubServer(web_profile=False)
        hub.start()
        try:
            ratio, of_sender, of_receiver = sent_to_python(directory, options)
            lines += [
                ("``send`` to a Python client / FITS write + read", ratio, 2.0),
                ("peak memory of the sender beyond the table / table", of_sender, 1.0),
                ("peak memory of the receiver beyond the table / table", of_receiver, 1.0),
            ]
            try:
                to_topcat = sent_to_topcat(directory, options)
            except (subprocess.CalledProcessError, SAMPTimeoutError) as error:
                print(f"TOPCAT: {error}")
                to_topcat = None
            lines.append(("``send`` to TOPCAT / STILTS reading FITS, start-up deducted", to_topcat, 1.5))
            lines.append(("500,000 rows selected in a linked table, seconds", selected(), 1.0))
        finally:
            hub.stop()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.tables", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--role", choices=["receiver", "reader", "sender"], help=argparse.SUPPRESS)
    parser.add_argument("--program", default=RECEIVER, help=argparse.SUPPRESS)
    parser.add_argument("--fits", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of astropy, about units and versions
    os.environ.pop("SAMP_HUB", None)
    if options.role == "receiver":
        receiver(options.rows)
    elif options.role == "reader":
        reader(options.url)
    elif options.role == "sender":
        sender(options.rows, options.rounds, options.program, options.fits)
    else:
        print(f"{options.rows} rows, median of {options.rounds}", flush=True)
        runs = [measure(options) for _ in range(options.runs)]
        titles = ["measured", "goal", *(f"run {number}" for number in range(1, options.runs + 1)), "reached"]
        print(write_table([titles, *(shown(list(lines)) for lines in zip(*runs, strict=True))]))


def shown(lines: list[Line]) -> list[str]:
    """Return the line of a table with the values of one figure in each run."""
    title, _, goal = lines[0]
    figures = [figure for _, figure, _ in lines]
    reached = "yes" if all(figure is not None and figure <= goal for figure in figures) else "**no**"
    return [title, f"{goal:g}", *("" if figure is None else f"{figure:.3f}" for figure in figures), reached]


if __name__ == "__main__":
    main()
