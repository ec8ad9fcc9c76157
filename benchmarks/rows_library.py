# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Rows: the client library, its import, and JSAMP's own load test.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from typing import Any, NamedTuple

from .hubs import FLOOR, HERE, JSAMP, OURS, UPSTREAM, Hub, environment, jsamp_command, python_of, start_hub
from .measure import Bench, Goal, Measured, Row
from .rows_messages import MESSAGE, MTYPE
from .swarm import BenchmarkError, Client, Swarm

__all__ = ["calcstorm", "client_library", "import_time"]


class Probe:
    """A client of one of the libraries, in a process of its own, that does as it is told."""

    def __init__(self, bench: Bench, name: str, hub: Hub) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python_of(name, bench.cache), str(HERE / "client_probe.py")],
            env=environment(hub.home, name), cwd=hub.home, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )

    def begin(self, *command: object) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, command)) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Wait for the outcome."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                result: dict[str, Any] = json.loads(line)
                return result
        raise BenchmarkError(f"The {self.name} client ended with exit code {self._process.wait()}")

    def do(self, *command: object) -> dict[str, Any]:
        """Give an order and wait for the outcome."""
        self.begin(*command)
        return self.end()

    def stop(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def client_library(bench: Bench, through: str | None = None) -> Row:
    """Both libraries' clients, with partners of the generator's; each at its own hub or both through one."""
    goals = [
        Goal("connect", UPSTREAM, 0.15), Goal("disconnect", UPSTREAM, 0.1),
        Goal("send cpu", UPSTREAM, 0.5), Goal("receive cpu", UPSTREAM, 0.5),
    ]
    where = {None: "each at its own hub", OURS: "both at our hub", JSAMP: "both at JSAMP's hub"}[through]
    row = Row(f"client-{through or 'own'}", f"client libraries, {where}", goals)
    names = [name for name in (OURS, UPSTREAM) if name not in bench.without]
    with contextlib.ExitStack() as ending:
        swarm = ending.enter_context(Swarm())
        players: dict[str, Player] = {}
        for name in names:
            if through is None or not players:
                hub = start_hub(through or name, bench.cache)
                ending.callback(hub.stop)
                sender, partner = swarm.join(hub.address, hub.secret, [MTYPE], count=2)
            probe = Probe(bench, name, hub)
            ending.callback(probe.stop)
            players[name] = Player(probe, probe.do("join")["id"], sender, partner)
            row.subjects[name] = Measured()
        for turn in range(bench.rounds + 1):
            for name in names[:: 1 if turn % 2 else -1]:
                # Upstream's hub loses a quick reply now and then: its clients' calls are measured at the others
                figures = _exercise(bench, swarm, players[name], calls=through is not None)
                if turn:  # the first round is the warm-up
                    for quantity, value in figures.items():
                        row.subjects[name].other.setdefault(quantity, []).append(value)
    return row


class Player(NamedTuple):
    """A client of a library, and those of the generator's at the same hub that write to it and that it writes to."""

    probe: Probe
    client_id: str
    sender: Client
    partner: Client


def _exercise(bench: Bench, swarm: Swarm, player: Player, *, calls: bool) -> dict[str, float]:
    probe, probe_id, sender, partner = player
    count = 20 if bench.quick else 200
    cycle = probe.do("cycle", 2 if bench.quick else 5)
    sent = _watch(swarm, probe, "send", count, partner.client_id)
    called = _watch(swarm, probe, "call", count // 10, partner.client_id) if calls else {}
    before = probe.do("cpu")
    request = sender.prepare("notify", probe_id, MESSAGE)
    for _ in range(count):
        sender.send(request, lambda _: None)
    swarm.run(lambda: sender.idle, "notifications to be sent")
    end = time.monotonic() + 20
    while (after := probe.do("cpu"))["received"] < before["received"] + count:
        if time.monotonic() > end:
            got = after["received"] - before["received"]
            raise BenchmarkError(f"The {probe.name} client received {got} of {count}")
        time.sleep(0.05)
    swarm.check()
    return {
        "connect": cycle["connect"], "disconnect": cycle["disconnect"], "cycle cpu": cycle["cpu"],
        "send cpu": sent["cpu"], "receive cpu": (after["cpu"] - before["cpu"]) / count,
        **{f"call {quantity}": value for quantity, value in called.items()},
    }


def _watch(swarm: Swarm, probe: Probe, *command: object) -> dict[str, Any]:
    """Let a probe act while the generator's clients answer it."""
    probe.begin(*command)
    done: list[bool] = []
    out = probe._process.stdout

    class Line:
        def event(self, mask: int) -> None:
            done.append(True)

    assert out is not None
    swarm.selector.register(out, 1, Line())
    try:
        swarm.run(lambda: bool(done), "a probe to finish")
    finally:
        swarm.selector.unregister(out)
    swarm.settle(0.05)
    return probe.end()


IMPORT = "import time; w, c = time.perf_counter(), time.process_time(); {}; \
print(time.perf_counter() - w, time.process_time() - c)"


def import_time(bench: Bench, names: str) -> Row:
    """
    The import as a program sees it, in a new process each time.

    With the names that a program takes: by itself ``import pyvo.samp`` reads next to nothing, for what is in it is
    imported when it is first asked for.
    """
    goals = [Goal("wall", UPSTREAM, 0.5), Goal("wall", FLOOR, 1.25), Goal("cpu", FLOOR, 1.25)]
    row = Row(f"import-{names}", f"from pyvo.samp import {names}", goals)
    names = f"from pyvo.samp import {names}"
    what = {
        OURS: (OURS, names),
        UPSTREAM: (UPSTREAM, names),
        FLOOR: (OURS, "import astropy.config, xmlrpc.server, xmlrpc.client"),
    }
    what = {name: way for name, way in what.items() if way[0] not in bench.without}
    row.subjects = {name: Measured() for name in what}
    for turn in range(bench.rounds + 1):
        order = list(what)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            library, modules = what[name]
            command = [python_of(library, bench.cache), "-c", IMPORT.format(modules)]
            done = subprocess.run(command, env=environment(bench.cache, library), cwd=bench.cache, text=True,
                                  capture_output=True, check=True)
            if turn:  # the first writes the byte code
                wall, cpu = map(float, done.stdout.split()[-2:])
                row.subjects[name].wall.append(wall)
                row.subjects[name].cpu.append(cpu)
    return row


def calcstorm(bench: Bench, mode: str) -> Row:
    """JSAMP's load test with JSAMP's clients, at both hubs in turn."""
    row = Row(f"calcstorm-{mode}", f"jsamp calcstorm, {mode}", [Goal("wall", JSAMP, 1.0), Goal("cpu", JSAMP, 1.0)])
    clients, queries = (4, 10) if bench.quick else (20, 100)
    storm = [*jsamp_command(), "calcstorm", "-nclient", str(clients), "-nquery", str(queries), "-mode", mode]
    hubs = {name: start_hub(name, bench.cache) for name in (OURS, JSAMP) if name not in bench.without}
    row.subjects = {name: Measured() for name in hubs}
    try:
        for turn in range(max(2, bench.rounds // 2)):
            order = list(hubs)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                if name in row.failures:
                    continue
                hub = hubs[name]
                cpu = hub.cpu()
                try:
                    done = subprocess.run(storm, env=environment(hub.home, JSAMP), cwd=hub.home, text=True,
                                          capture_output=True, timeout=120, check=False)
                except subprocess.TimeoutExpired:
                    row.failures[name] = "did not end within 120 s"
                    continue
                found = re.search(r"Elapsed time: (\d+) ms", done.stdout + done.stderr)
                if done.returncode or found is None:
                    row.failures[name] = f"exit code {done.returncode}: {done.stderr[-300:]}"
                    continue
                row.subjects[name].wall.append(int(found[1]) / 1000)
                row.subjects[name].cpu.append(hub.cpu() - cpu)
    finally:
        for hub in hubs.values():
            hub.stop()
    return row
