# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measuring side by side.

Machines are noisy and change while one measures. So all subjects are measured in turn, in short batches, many rounds;
what is compared is the ratio within each round, and reported is the median of these ratios with their quartiles.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .hubs import JSAMP, OURS, Hub, start_hub
from .swarm import BenchmarkError, Swarm

__all__ = ["Bench", "Goal", "Measured", "Row", "machine", "spread"]

#: A batch does something for about so many seconds and tells how many times it did it.
Batch = Callable[[float], int]
#: Prepares a hub's batch.
Prepare = Callable[[Hub, Swarm], Batch]


@dataclass
class Measured:
    """What one subject needed for one operation in each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    other: dict[str, list[float]] = field(default_factory=dict)

    def values(self, quantity: str) -> list[float]:
        """Tell the figures of a quantity: ``wall``, ``cpu`` or another."""
        if quantity == "wall":
            return self.wall
        return self.cpu if quantity == "cpu" else self.other.get(quantity, [])


@dataclass(frozen=True)
class Goal:
    """What a ratio should not exceed."""

    quantity: str
    against: str
    limit: float


@dataclass
class Row:
    """A measurement: its figures, and why a subject has none."""

    name: str
    title: str
    goals: list[Goal]
    subjects: dict[str, Measured] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    #: Batches that had to be done again because messages were lost in them.
    lost: dict[str, int] = field(default_factory=dict)

    def ratios(self, quantity: str, against: str, subject: str = OURS) -> list[float]:
        """Tell the ratio of each round, ours by the other's."""
        ours, theirs = self.subjects.get(subject), self.subjects.get(against)
        if ours is None or theirs is None:
            return []
        pairs = zip(ours.values(quantity), theirs.values(quantity), strict=False)
        return [mine / other for mine, other in pairs if other > 0]

    def as_json(self) -> dict[str, Any]:
        """Write it for a file."""
        return {
            "title": self.title,
            "subjects": {
                name: {"wall": m.wall, "cpu": m.cpu, **m.other} for name, m in self.subjects.items()
            },
            "failures": self.failures,
            "lost": self.lost,
            "ratios": [
                {"quantity": g.quantity, "against": g.against, "goal": g.limit, **spread(ratios)}
                for g in self.goals
                if (ratios := self.ratios(g.quantity, g.against))
            ],
        }


def spread(values: list[float]) -> dict[str, float]:
    """Tell the median and the quartiles."""
    if len(values) < 2:
        return {"median": values[0], "lower": values[0], "upper": values[0]}
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower": lower, "upper": upper}


@dataclass
class Bench:
    """How thoroughly to measure, and where the other things are."""

    cache: Path
    rounds: int = 15
    seconds: float = 0.4
    warm: float = 4.0
    many: int = 500
    quick: bool = False
    without: frozenset[str] = frozenset()
    #: What is to be done between two batches of a hub, unmeasured.
    after: dict[str, Callable[[], None]] = field(default_factory=dict)

    def compare(
        self,
        row: Row,
        prepare: Prepare | Mapping[str, Prepare],
        names: tuple[str, ...],
        *,
        rounds: int | None = None,
        warm: float | None = None,
        web: bool = False,
    ) -> Row:
        """
        Start the hubs, prepare and warm up each, and measure them in turn.

        A hub that fails is left out from then on, and the row tells why.
        """
        hubs: dict[str, Hub] = {}
        swarms: dict[str, Swarm] = {}
        batches: dict[str, Batch] = {}
        try:
            for name in names:
                if name in self.without:
                    continue
                try:
                    hubs[name] = start_hub(name, self.cache, web=web)
                    swarms[name] = Swarm()
                    how = prepare if callable(prepare) else prepare[name]
                    batches[name] = how(hubs[name], swarms[name])
                    row.subjects[name] = Measured()
                    self._warm_up(row, name, batches[name], self.warm if warm is None else warm)
                except BenchmarkError as error:
                    self._fail(row, batches, name, error)
            for turn in range(rounds or self.rounds):
                order = list(batches)
                for name in order[turn % len(order) :] + order[: turn % len(order)]:
                    try:
                        self._measure(row, name, batches[name], hubs[name])
                    except BenchmarkError as error:
                        self._fail(row, batches, name, error)
                if not batches:
                    break
        finally:
            self.after.clear()
            for swarm in swarms.values():
                swarm.close()
            for hub in hubs.values():
                hub.stop()
        return row

    def _warm_up(self, row: Row, name: str, batch: Batch, seconds: float) -> None:
        """Repeat a batch for a while: a just-in-time compiler needs some thousand repetitions, Python next to none."""
        if name != JSAMP:
            seconds = min(seconds, 0.5)
        if self.quick:
            seconds = min(seconds, 0.1)
        end = time.monotonic() + seconds
        while True:
            self._try(row, name, batch, min(seconds, self.seconds))
            self.after.get(name, bool)()
            if time.monotonic() >= end:
                return

    def _measure(self, row: Row, name: str, batch: Batch, hub: Hub) -> None:
        wall, cpu, count = self._try(row, name, batch, self.seconds, hub.cpu)
        row.subjects[name].wall.append(wall / count)
        row.subjects[name].cpu.append(cpu / count)
        self.after.get(name, bool)()

    @staticmethod
    def _try(
        row: Row, name: str, batch: Batch, seconds: float, clock: Callable[[], float] = time.process_time
    ) -> tuple[float, float, int]:
        """Do a batch. Upstream's hub loses a quick reply now and then: it has more than one chance, and it is told."""
        for chance in range(1 if name == OURS else 3):
            cpu, wall = clock(), time.perf_counter()
            try:
                count = batch(seconds)
            except BenchmarkError as error:
                if name == OURS or chance == 2:
                    raise
                row.lost[name] = row.lost.get(name, 0) + 1
                print(f"  {name}, a batch is done again: {error}", file=sys.stderr)
            else:
                return time.perf_counter() - wall, clock() - cpu, count
        raise AssertionError("the last chance returns or raises")

    @staticmethod
    def _fail(row: Row, batches: dict[str, Batch], name: str, error: BenchmarkError) -> None:
        batches.pop(name, None)
        row.failures[name] = str(error)
        print(f"  {name}: {error}", file=sys.stderr)

def machine() -> dict[str, Any]:
    """Describe where it was measured."""
    model = platform.processor()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "system": platform.platform(),
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
