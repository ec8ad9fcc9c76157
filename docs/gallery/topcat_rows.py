"""Send a table to TOPCAT, and print the rows that its user selects there."""

from __future__ import annotations

from queue import SimpleQueue

import numpy as np
from astropy.table import Table

from pyvo.samp import SAMPIntegratedClient


def make_table() -> Table:
    """Make a table of stars: proper motions of a field and of a cluster, and magnitudes."""
    random = np.random.default_rng(1)
    field, cluster = 900, 220
    return Table({
        "pmra": np.concatenate([random.normal(0, 14, field), random.normal(20, 1.6, cluster)]),
        "pmdec": np.concatenate([random.normal(-4, 14, field), random.normal(-45, 1.6, cluster)]),
        "mag": random.triangular(8, 19, 20, field + cluster),
    })


def main(selections: int = 1) -> Table:
    """Wait for so many selections; return the rows of the last one."""
    table = make_table()
    with SAMPIntegratedClient(name="Row picker") as client:
        client.wait_for("topcat", timeout=60, mtype="table.load.votable")
        link = client.link(table, to="topcat", name="Stars")
        masks: SimpleQueue = SimpleQueue()
        link.on_select(masks.put)
        print("Plot the table in TOPCAT, draw a region around some stars, and press Transmit Subset.", flush=True)
        for _ in range(selections):
            rows = table[masks.get(timeout=600)]
            print(f"{len(rows)} stars selected, mean magnitude {np.mean(rows['mag']):.2f}", flush=True)
    return rows


if __name__ == "__main__":
    main()
