# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure the cost of a bridge: hubs in a room of a NATS server, compared with one hub alone.

``python -m benchmarks.bridge --json out.json`` measures, and ``--plot out.json bridge.svg`` draws (needs matplotlib).
Each hub has five clients. *one hub* is a single hub with as many clients as the hubs of a room have together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CLIENTS = 5
COUNTS = (2, 5, 10, 20)
NOTIFICATIONS = 500
ROOT = Path(__file__).resolve().parents[1]


class MemberProcess:
    """A process that runs `benchmarks.bridge_member`."""

    def __init__(self, label: str, clients: int, url: str | None, home: str) -> None:
        command = [sys.executable, "-m", "benchmarks.bridge_member", label, str(clients), *([url] if url else [])]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "HOME": home, "PYTHONPATH": os.pathsep.join(paths)}
        environment.pop("SAMP_HUB", None)
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def tell(self, do: str, **arguments: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """Wait for a response."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a member of the room has ended")
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send a command, and wait for the response."""
        self.tell(do, **arguments)
        return self.hear()

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def members(count: int, url: str | None, clients: int = CLIENTS) -> Iterator[list[MemberProcess]]:
    """Start hubs with clients, and wait until each client sees all others."""
    with ExitStack() as stack:
        started = []
        for number in range(count):
            home = stack.enter_context(tempfile.TemporaryDirectory())
            started.append(MemberProcess(f"m{number}", clients, url, home))
            stack.callback(started[-1].stop)
        for member in started:
            member.hear()
        wait_for_all(started, clients)
        yield started


def wait_for_all(started: list[MemberProcess], clients: int = CLIENTS) -> None:
    """Wait until each client sees all others."""
    others = clients * len(started) - 1
    for member in started:
        member.tell("wait", count=others)
    seen = [member.hear() for member in started]
    if seen != [[others] * clients] * len(started):
        raise RuntimeError(f"The clients see {seen}, not {others} others each")


def broadcast(started: list[MemberProcess], text: str, count: int = 1, clients: int = CLIENTS) -> float:
    """Broadcast from the first client; return the seconds until all clients have received each message once."""
    start = started[0].ask("broadcast", text=text, count=count)
    for number, member in enumerate(started):
        member.tell("received", text=text, count=count, clients=list(range(0 if number else 1, clients)))
    received = [member.hear() for member in started]
    if any(each != count for one in received for each in one["counts"]):
        raise RuntimeError(f"The broadcast was received {[one['counts'] for one in received]} times")
    return max(one["last"] for one in received) - start


@contextmanager
def nats_server() -> Iterator[str]:
    """Run a NATS server and return the URL of a room."""
    executable = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin")
    assert executable is not None, "nats-server is not installed"
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    process = subprocess.Popen(
        [executable, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Server is ready" in line:
            break
    try:
        yield f"nats://127.0.0.1:{port}/benchmark"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def measure(started: list[MemberProcess], clients: int, rounds: int) -> dict[str, Any]:
    """
    Measure calls and notifications from the first client to a client of the last hub, and broadcasts to all
    clients.
    """
    sender, recipient = started[0], started[-1]
    name = f"m{len(started) - 1}-1"
    sender.ask("call", name=name, count=50)  # warm-up
    times = sender.ask("call", name=name, count=20 * rounds)
    rates, broadcasts = [], []
    for turn in range(rounds):
        text = f"notify {turn}"
        start = sender.ask("notify", name=name, count=NOTIFICATIONS, text=text)
        received = recipient.ask("received", text=text, count=NOTIFICATIONS, clients=[1])
        rates.append(NOTIFICATIONS / (received["last"] - start))
        broadcasts.append(broadcast(started, f"all {turn}", clients=clients))
    return {
        "call": statistics.median(times),
        "call, quartiles": statistics.quantiles(times, n=4)[::2],
        "notify": statistics.median(rates),
        "broadcast": statistics.median(broadcasts),
    }


def run(rounds: int) -> dict[str, Any]:
    """Measure one hub alone, and rooms of several hubs, with the same number of clients."""
    results: dict[str, Any] = {"room": {}, "one hub": {}}
    with nats_server() as url:
        for count in COUNTS:
            for name, hubs, clients in (("one hub", 1, CLIENTS * count), ("room", count, CLIENTS)):
                start = time.monotonic()
                with members(hubs, url if hubs > 1 else None, clients) as started:
                    ready = time.monotonic() - start
                    results[name][count] = {**measure(started, clients, rounds), "start": ready}
                print(name, count, results[name][count], file=sys.stderr, flush=True)
    return results


def draw(results: dict[str, Any], target: Path) -> None:
    """Draw the three quantities by the number of hubs."""
    import matplotlib as mpl  # noqa: PLC0415 - wanted for nothing else

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bridge", "font.size": 9})
    panels = (
        ("call", "a call, ms", 1e3),
        ("notify", "notifications to one client, per second", 1),
        ("broadcast", "a broadcast to all, ms", 1e3),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.2), layout="constrained")
    for axis, (quantity, title, factor) in zip(axes, panels, strict=True):
        for name, marker in (("room", "o"), ("one hub", "s")):
            counts = [int(count) for count in results[name]]
            values = [factor * each[quantity] for each in results[name].values()]
            axis.plot(counts, values, marker=marker, ms=4, label=name)
        axis.set(title=title, xlabel=f"hubs with {CLIENTS} clients each", ylim=(0, None), xticks=COUNTS)
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.bridge", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--plot", nargs=2, type=Path, metavar=("JSON", "SVG"), help="draw results, and measure nothing")
    options = parser.parse_args()
    if options.plot:
        draw(json.loads(options.plot[0].read_text()), options.plot[1])
        return
    results = run(options.rounds)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
