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

from .hubs import BASELINE, HERE, JSAMP, OURS, UPSTREAM, Hub, environment, jsamp_command, python_of, start_hub
from .load_generator import BenchmarkError, Client, LoadGenerator
from .measure import Goal, Measured, Row, Settings
from .rows_messages import MESSAGE, MTYPE

__all__ = ["calcstorm", "client_library", "import_time"]


class Probe:
    """A process with a client of one of the libraries, which executes commands."""

    def __init__(self, settings: Settings, name: str, hub: Hub) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python_of(name, settings.cache), str(HERE / "client_probe.py")],
            env=environment(hub.home, name), cwd=hub.home, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )

    def begin(self, *command: object) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, command)) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Wait for the result."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                result: dict[str, Any] = json.loads(line)
                return result
        raise BenchmarkError(f"The {self.name} client ended with exit code {self._process.wait()}")

    def do(self, *command: object) -> dict[str, Any]:
        """Send a command and wait for the result."""
        self.begin(*command)
        return self.end()

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def client_library(settings: Settings, through: str | None = None) -> Row:
    """Measure the clients of both libraries with clients of the generator, each at its own hub or both at one hub."""
    goals = [
        Goal("connect", UPSTREAM, 0.12), Goal("disconnect", UPSTREAM, 0.1),
        Goal("send cpu", UPSTREAM, 0.5), Goal("receive cpu", UPSTREAM, 0.5),
    ]
    where = {None: "each at its own hub", OURS: "both at our hub", JSAMP: "both at JSAMP's hub"}[through]
    row = Row(f"client-{through or 'own'}", f"client libraries, {where}", goals)
    names = [name for name in (OURS, UPSTREAM) if name not in settings.without]
    with contextlib.ExitStack() as ending:
        generator = ending.enter_context(LoadGenerator())
        participants: dict[str, Participant] = {}
        for name in names:
            if through is None or not participants:
                hub = start_hub(through or name, settings.cache)
                ending.callback(hub.stop)
                sender, partner = generator.connect(hub.address, hub.secret, [MTYPE], count=2)
            probe = Probe(settings, name, hub)
            ending.callback(probe.stop)
            participants[name] = Participant(probe, probe.do("join")["id"], sender, partner)
            row.subjects[name] = Measured()
        for turn in range(settings.rounds + 1):
            for name in names[:: 1 if turn % 2 else -1]:
                # upstream's hub sometimes loses a quick reply, so calls are measured at the other hubs only
                figures = _exercise(settings, generator, participants[name], calls=through is not None)
                if turn:  # the first round is the warm-up
                    for quantity, value in figures.items():
                        row.subjects[name].other.setdefault(quantity, []).append(value)
    return row


class Participant(NamedTuple):
    """A client of a library, a client of the generator that sends to it, and one that receives from it."""

    probe: Probe
    client_id: str
    sender: Client
    partner: Client


def _exercise(
    settings: Settings, generator: LoadGenerator, participant: Participant, *, calls: bool
) -> dict[str, float]:
    probe, probe_id, sender, partner = participant
    count = 20 if settings.quick else 200
    cycle = probe.do("cycle", 2 if settings.quick else 5)
    sent = _watch(generator, probe, "send", count, partner.client_id)
    called = _watch(generator, probe, "call", count // 10, partner.client_id) if calls else {}
    before = probe.do("cpu")
    request = sender.prepare("notify", probe_id, MESSAGE)
    for _ in range(count):
        sender.send(request, lambda _: None)
    generator.run(lambda: sender.idle, "notifications to be sent")
    end = time.monotonic() + 20
    while (after := probe.do("cpu"))["received"] < before["received"] + count:
        if time.monotonic() > end:
            got = after["received"] - before["received"]
            raise BenchmarkError(f"The {probe.name} client received {got} of {count}")
        time.sleep(0.05)
    generator.check()
    return {
        "connect": cycle["connect"], "disconnect": cycle["disconnect"], "cycle cpu": cycle["cpu"],
        "send cpu": sent["cpu"], "receive cpu": (after["cpu"] - before["cpu"]) / count,
        **{f"call {quantity}": value for quantity, value in called.items()},
    }


def _watch(generator: LoadGenerator, probe: Probe, *command: object) -> dict[str, Any]:
    """Have a probe run a command while the generator's clients reply."""
    probe.begin(*command)
    done: list[bool] = []
    out = probe._process.stdout

    class Line:
        def event(self, mask: int) -> None:
            done.append(True)

    assert out is not None
    generator.selector.register(out, 1, Line())
    try:
        generator.run(lambda: bool(done), "a probe to finish")
    finally:
        generator.selector.unregister(out)
    generator.settle(0.05)
    return probe.end()


IMPORT = "import time; w, c = time.perf_counter(), time.process_time(); {}; \
print(time.perf_counter() - w, time.process_time() - c)"


def import_time(settings: Settings, names: str) -> Row:
    """
    Measure an import as a program does it, each time in a new process.

    It imports the names that a program uses. ``import pyvo.samp`` alone reads almost nothing, because each name is
    imported when it is first used.
    """
    goals = [Goal("wall", UPSTREAM, 0.5), Goal("wall", BASELINE, 1.25), Goal("cpu", BASELINE, 1.25)]
    row = Row(f"import-{names}", f"from pyvo.samp import {names}", goals)
    names = f"from pyvo.samp import {names}"
    what = {
        OURS: (OURS, names),
        UPSTREAM: (UPSTREAM, names),
        BASELINE: (OURS, "import astropy.config, xmlrpc.server, xmlrpc.client"),
    }
    what = {name: way for name, way in what.items() if way[0] not in settings.without}
    row.subjects = {name: Measured() for name in what}
    for turn in range(settings.rounds + 1):
        order = list(what)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            library, modules = what[name]
            command = [python_of(library, settings.cache), "-c", IMPORT.format(modules)]
            done = subprocess.run(command, env=environment(settings.cache, library), cwd=settings.cache, text=True,
                                  capture_output=True, check=True)
            if turn:  # the first round writes the byte code
                wall, cpu = map(float, done.stdout.split()[-2:])
                row.subjects[name].wall.append(wall)
                row.subjects[name].cpu.append(cpu)
    return row


def calcstorm(settings: Settings, mode: str) -> Row:
    """Run JSAMP's load test, with JSAMP's clients, at both hubs in turn."""
    row = Row(f"calcstorm-{mode}", f"jsamp calcstorm, {mode}", [Goal("wall", JSAMP, 1.0), Goal("cpu", JSAMP, 1.0)])
    clients, queries = (4, 10) if settings.quick else (20, 100)
    storm = [*jsamp_command(), "calcstorm", "-nclient", str(clients), "-nquery", str(queries), "-mode", mode]
    hubs = {name: start_hub(name, settings.cache) for name in (OURS, JSAMP) if name not in settings.without}
    row.subjects = {name: Measured() for name in hubs}
    try:
        for turn in range(max(2, settings.rounds // 2)):
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
