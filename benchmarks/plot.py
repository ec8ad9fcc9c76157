# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw the costs by the number of clients: ``python -m benchmarks.plot out.json growth.svg`` (needs matplotlib).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .hubs import JSAMP, OURS, UPSTREAM
from .report import point

LOOKS = {OURS: ("this hub", "C0", "o"), JSAMP: ("JSAMP", "C1", "s"), UPSTREAM: ("pyvo 1.9.1", "C2", "^")}


def draw(growth: dict[str, Any], target: Path) -> None:
    """Draw wall time (solid) and CPU time of the hub (dashed) by the number of clients."""
    import matplotlib as mpl  # noqa: PLC0415 - wanted for nothing else

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 9})
    rows = growth["rows"]
    figure, axes = plt.subplots(2, (len(rows) + 1) // 2, figsize=(9, 7), sharex=True, layout="constrained")
    for axis, row in zip(axes.flat, rows.values(), strict=False):
        for name, (label, colour, marker) in LOOKS.items():
            for quantity, style in (("wall", "-"), ("cpu", "--")):
                values = [point(p, name, quantity) for p in row["points"]]
                pairs = [(n, 1e3 * v) for n, v in zip(growth["counts"], values, strict=True) if v is not None]
                if pairs:
                    text = label if quantity == "wall" else f"{label}, CPU"
                    axis.loglog(*zip(*pairs, strict=True), style, color=colour, marker=marker, ms=4, label=text)
        axis.set_title(row["title"])
        axis.set_xlabel("n")
        axis.set_ylabel("ms")
        axis.grid(visible=True, which="major", alpha=0.3)
    axes.flat[0].legend(fontsize=7)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["growth"], Path(sys.argv[2]))
