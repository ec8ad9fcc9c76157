# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables of goals and of figures in reStructuredText.

``python -m benchmarks.report run1.json run2.json run3.json`` compares the ratios of several runs, each of which was
written by ``python -m benchmarks --json FILE``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .hubs import BASELINE, JSAMP, OURS, UPSTREAM
from .measure import Row, spread

__all__ = ["compare_runs", "figures", "goals", "table"]

LIMIT = "limit"
SUBJECTS = (OURS, JSAMP, UPSTREAM, BASELINE)


def goals(rows: list[Row]) -> list[list[str]]:
    """Return the lines of a table of goals, with the measured ratios."""
    lines = [["measurement", "quantity", "ratio to", "goal", "measured", "quartiles", ""]]
    for row in rows:
        for goal in row.goals:
            if goal.against == LIMIT:
                values = row.subjects[OURS].values(goal.quantity) if OURS in row.subjects else []
                against = "(itself)"
            else:
                values, against = row.ratios(goal.quantity, goal.against), goal.against
            if not values:
                why = row.failures.get(goal.against) or row.failures.get(OURS) or "not measured"
                lines.append([row.title, goal.quantity, against, f"{goal.limit:.3g}", "", "", why[:60]])
                continue
            found = spread(values)
            reached = "yes" if found["median"] <= goal.limit else "**no**"
            quartiles = f"{found['lower']:.3g} - {found['upper']:.3g}"
            lines.append(
                [row.title, goal.quantity, against, f"{goal.limit:.3g}", f"{found['median']:.3g}", quartiles, reached]
            )
    return lines


def figures(rows: list[Row]) -> list[list[str]]:
    """Return the lines of a table of the medians."""
    lines = [["measurement", "quantity", *SUBJECTS]]
    for row in rows:
        quantities = {q for m in row.subjects.values() for q in ("wall", "cpu", *m.other) if any(m.values(q))}
        for quantity in sorted(quantities):
            cells = []
            for name in SUBJECTS:
                values = row.subjects[name].values(quantity) if name in row.subjects else []
                if values:
                    cells.append(_number(spread(values)["median"], row.units.get(quantity)))
                else:
                    cells.append("failed" if name in row.failures else "")
            lines.append([row.title, quantity, *cells])
    return lines


def _number(value: float, unit: str | None) -> str:
    if unit is not None:
        return f"{value:.3g} {unit}".strip()
    return f"{value * 1e3:.3g} ms" if value >= 0.001 else f"{value * 1e6:.3g} µs"


def table(lines: list[list[str]]) -> str:
    """Return a simple table in reStructuredText."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = "  ".join("=" * max(width, 1) for width in widths)
    written = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([rule, written[0], rule, *written[1:], rule])


def point(row: dict[str, Any], subject: str, quantity: str) -> float | None:
    """Return the median of a figure of a row that was written as JSON."""
    values = row["subjects"].get(subject, {}).get(quantity)
    return spread(values)["median"] if values else None


def compare_runs(runs: list[dict[str, Any]]) -> list[list[str]]:
    """
    Return the lines of a table with the ratios of several runs that were written as JSON, in the order of the first
    run.
    """
    lines = [["measurement", "quantity", "ratio to", "goal", *(f"run {n}" for n in range(1, len(runs) + 1)), "reached"]]
    found: dict[tuple[str, str, str, float], dict[int, float]] = {}
    for number, run in enumerate(runs):
        for row in run["rows"].values():
            for ratio in row["ratios"]:
                key = row["title"], ratio["quantity"], ratio["against"], ratio["goal"]
                found.setdefault(key, {})[number] = ratio["median"]
    for (title, quantity, against, goal), medians in found.items():
        values = [f"{medians[number]:.3g}" if number in medians else "" for number in range(len(runs))]
        reached = "yes" if all(median <= goal for median in medians.values()) else "**no**"
        lines.append([title, quantity, against, f"{goal:.3g}", *values, reached])
    return lines


if __name__ == "__main__":
    print(table(compare_runs([json.loads(Path(name).read_text()) for name in sys.argv[1:]])))
