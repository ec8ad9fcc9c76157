# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Two connected clients, and objects to send."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import MaskedColumn, Table
from astropy.wcs import WCS

from tests.client.conftest import connect, hub_process, pair, script

__all__ = ["connect", "hub_process", "pair", "script"]


@pytest.fixture
def table() -> Table:
    """A small table of many types, with units, descriptions, UCDs and metadata."""
    table = Table(
        {
            "name": ["a", "bc", ""],
            "ra": [1.5, 2.5, np.inf],
            "n": MaskedColumn([1, 2, 3], mask=[False, True, False], dtype=np.int32),
            "ok": [True, False, True],
            "v": np.arange(6, dtype=np.float32).reshape(3, 2),
        }
    )
    table["ra"].unit = "deg"
    table["ra"].description = "Right ascension"
    table["ra"].meta["ucd"] = "pos.eq.ra"
    table.meta.update(name="Small", TELESCOP="none")
    return table


def wcs() -> WCS:
    """World coordinates in which the pixel (2, 1), counted from 0, is at ra 10, dec 20."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10, 20]
    wcs.wcs.crpix = [3, 2]
    wcs.wcs.cdelt = [-0.1, 0.1]
    return wcs


@pytest.fixture
def image() -> CCDData:
    """A small image with a unit and coordinates."""
    return CCDData(np.arange(12.0, dtype="f4").reshape(3, 4), unit="adu", wcs=wcs(), meta={"OBJECT": "M 1"})


def assert_same(back: Table, table: Table) -> None:
    """Check that a received table equals the table that was sent."""
    assert back.colnames == table.colnames
    for name in table.colnames:
        here, there = table[name], back[name]
        assert (there.unit, there.description) == (here.unit, here.description)
        assert np.array_equal(np.ma.getmaskarray(there), np.ma.getmaskarray(here))
        missing = np.ma.getmaskarray(here)
        assert np.array_equal(np.asarray(there)[~missing], np.asarray(here)[~missing])
