# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure several subjects in turn.

The speed of a machine changes during a measurement. So all subjects are measured in turn, in short batches and many
rounds. The result is the median of the ratios within each round, with their quartiles.
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
from .load_generator import BenchmarkError, LoadGenerator

__all__ = ["Settings", "Goal", "Measured", "Row", "machine", "spread"]

#: A batch repeats an operation for about this number of seconds, and returns the number of repetitions.
Batch = Callable[[float], int]
#: Function that returns the batch for a hub.
Prepare = Callable[[Hub, LoadGenerator], Batch]


@dataclass
class Measured:
    """The cost of one operation for one subject in each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    other: dict[str, list[float]] = field(default_factory=dict)

    def values(self, quantity: str) -> list[float]:
        """Return the figures of a quantity: ``wall``, ``cpu`` or another."""
        if quantity == "wall":
            return self.wall
        return self.cpu if quantity == "cpu" else self.other.get(quantity, [])


@dataclass(frozen=True)
class Goal:
    """The limit of a ratio."""

    quantity: str
    against: str
    limit: float


@dataclass
class Row:
    """One measurement: the figures of each subject, or its error."""

    name: str
    title: str
    goals: list[Goal]
    subjects: dict[str, Measured] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    #: Batches that were repeated because messages were lost.
    lost: dict[str, int] = field(default_factory=dict)

    def ratios(self, quantity: str, against: str, subject: str = OURS) -> list[float]:
        """Return the ratio of each round: our figure divided by that of the other subject."""
        ours, theirs = self.subjects.get(subject), self.subjects.get(against)
        if ours is None or theirs is None:
            return []
        pairs = zip(ours.values(quantity), theirs.values(quantity), strict=False)
        return [mine / other for mine, other in pairs if other > 0]

    def as_json(self) -> dict[str, Any]:
        """Return the row for a JSON file."""
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
    """Return the median and the quartiles."""
    if len(values) < 2:
        return {"median": values[0], "lower": values[0], "upper": values[0]}
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower": lower, "upper": upper}


@dataclass
class Settings:
    """Rounds, times and sizes of the measurements, and the comparison itself."""

    cache: Path
    rounds: int = 15
    seconds: float = 0.4
    warm_up_time: float = 4.0
    crowd_size: int = 500
    quick: bool = False
    without: frozenset[str] = frozenset()
    #: Functions that are called between two batches of a hub. Their time is not measured.
    after: dict[str, Callable[[], None]] = field(default_factory=dict)

    def compare(
        self,
        row: Row,
        prepare: Prepare | Mapping[str, Prepare],
        names: tuple[str, ...],
        *,
        rounds: int | None = None,
        warm_up_time: float | None = None,
        web: bool = False,
    ) -> Row:
        """
        Start the hubs, warm them up, and measure them in turn.

        A hub that fails is not measured again, and the row contains its error.
        """
        hubs: dict[str, Hub] = {}
        generators: dict[str, LoadGenerator] = {}
        batches: dict[str, Batch] = {}
        try:
            for name in names:
                if name in self.without:
                    continue
                try:
                    hubs[name] = start_hub(name, self.cache, web=web)
                    generators[name] = LoadGenerator()
                    how = prepare if callable(prepare) else prepare[name]
                    batches[name] = how(hubs[name], generators[name])
                    row.subjects[name] = Measured()
                    self._warm_up(row, name, batches[name], self.warm_up_time if warm_up_time is None else warm_up_time)
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
            for generator in generators.values():
                generator.close()
            for hub in hubs.values():
                hub.stop()
        return row

    def _warm_up(self, row: Row, name: str, batch: Batch, seconds: float) -> None:
        """Repeat a batch for a while. A just-in-time compiler needs some thousand repetitions, Python only a few."""
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
        """
        Run a batch. Upstream's hub sometimes loses a quick reply, so others than ours have three attempts.
        Repetitions are reported.
        """
        for attempt in range(1 if name == OURS else 3):
            cpu, wall = clock(), time.perf_counter()
            try:
                count = batch(seconds)
            except BenchmarkError as error:
                if name == OURS or attempt == 2:
                    raise
                row.lost[name] = row.lost.get(name, 0) + 1
                print(f"  {name}, a batch is repeated: {error}", file=sys.stderr)
            else:
                return time.perf_counter() - wall, clock() - cpu, count
        raise AssertionError("the last attempt returns or raises")

    @staticmethod
    def _fail(row: Row, batches: dict[str, Batch], name: str, error: BenchmarkError) -> None:
        batches.pop(name, None)
        row.failures[name] = str(error)
        print(f"  {name}: {error}", file=sys.stderr)


def machine() -> dict[str, Any]:
    """Describe the machine."""
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
