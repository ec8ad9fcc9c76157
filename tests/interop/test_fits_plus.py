# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""STILTS, which has TOPCAT's code for tables, reads the files that TOPCAT gets for large tables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io.votable import parse
from astropy.table import MaskedColumn, Table

from pyvo.samp.formats.fits_tables import write_fits_plus

from .programs import environment, need

pytestmark = pytest.mark.interop


def test_stilts_keeps_the_metadata(tmp_path: Path) -> None:
    """The result has all rows, units, UCDs, descriptions and parameters, and missing values stay missing."""
    need("topcat")
    table = Table(
        {
            "ra": np.arange(4) / 3.0,
            "name": ["a", "bc", "", "d"],
            "count": MaskedColumn([1, 2, 3, 4], mask=[False, True, False, False], dtype="i2"),
            "flag": MaskedColumn([True, False, True, False], mask=[True, False, False, False]),
            "pairs": np.arange(24, dtype="f4").reshape(4, 3, 2),
        },
        meta={"name": "stars", "depth": 21.5},
    )
    table["ra"].unit = "deg"
    table["ra"].meta["ucd"] = "pos.eq.ra"
    table["ra"].description = "Right ascension"
    path, back = tmp_path / "t.fits", tmp_path / "t.vot"
    with path.open("wb") as file:
        write_fits_plus(table, file)
    command = ["topcat", "-stilts", "tcopy", f"in={path}", "ifmt=fits-plus", f"out={back}", "ofmt=votable-binary2"]
    subprocess.run(command, env=environment(tmp_path), check=True, capture_output=True, timeout=60)
    element = parse(back, verify="ignore").get_first_table()
    assert element.name == "stars"
    assert {param.name: param.value for param in element.params}["depth"] == 21.5
    first = element.fields[0]
    assert (first.name, first.ucd, str(first.unit), first.description) == ("ra", "pos.eq.ra", "deg", "Right ascension")
    assert [field.name for field in element.fields] == table.colnames
    rows = element.to_table()
    assert rows["ra"].tolist() == table["ra"].tolist()
    assert rows["name"].tolist() == table["name"].tolist()
    assert rows["count"].tolist() == [1, None, 3, 4]
    assert rows["flag"].tolist() == [None, False, True, False]
    assert np.array_equal(rows["pairs"], table["pairs"])
