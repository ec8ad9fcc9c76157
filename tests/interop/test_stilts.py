# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""STILTS reads every table that this package writes."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import HealthCheck, Phase, given, settings

from pyvo.samp import SAMPTypeError
from pyvo.samp.formats.fits_tables import write_fits_table
from pyvo.samp.formats.votable_writer import write_votable
from tests.exchange.any_tables import tables

from .programs import environment, need

WRITERS: dict[str, Callable[[Any, Any], None]] = {"votable": write_votable, "fits": write_fits_table}


def some_tables(count: int) -> list[Table]:
    """Return tables that are the same in each run."""
    made: list[Table] = []

    @settings(
        max_examples=count, phases=[Phase.generate], database=None, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(tables())
    def collect(table: Table) -> None:
        made.append(table)

    collect()
    return made


@pytest.mark.parametrize("format_", WRITERS)
def test_stilts_reads_every_written_table(format_: str, tmp_path: Path) -> None:
    """STILTS copies all tables into one file in one run. Each has its rows and columns there."""
    need("topcat")
    shapes = []
    paths = []
    for number, table in enumerate(some_tables(500)):
        path = tmp_path / f"{number}.{format_}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with path.open("wb") as file:
                    WRITERS[format_](table, file)
            except SAMPTypeError:
                continue
            back = Table.read(path, format=format_)
        if back.colnames:  # STILTS writes no table without columns
            paths.append(path)
            shapes.append((len(back), len(back.colnames)))
    assert len(paths) > 100
    (tmp_path / "list").write_text("".join(f"{path}\n" for path in paths))
    out = tmp_path / "out.fits"
    command = ["topcat", "-stilts", "tmulti", f"in=@{tmp_path / 'list'}", f"ifmt={format_}", "multi=false",
               f"out={out}", "ofmt=fits-basic"]  # fmt: skip
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with warnings.catch_warnings(), fits.open(out) as copied:
        warnings.simplefilter("ignore")
        assert [(hdu.header["NAXIS2"], hdu.header["TFIELDS"]) for hdu in copied[1:]] == shapes
