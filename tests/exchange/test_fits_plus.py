# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Large tables for TOPCAT: FITS with the metadata of a VOTable in the primary HDU."""

from __future__ import annotations

import io
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from astropy.table import MaskedColumn, Table

from pyvo.samp import SAMPIntegratedClient
from pyvo.samp.formats import tables
from pyvo.samp.formats.fits_tables import is_plain, write_fits_plus
from pyvo.samp.formats.readers import read_fits_table, read_table
from pyvo.samp.formats.registry import to_sendable


def table_of(rows: int = 5) -> Table:
    numbers = np.arange(rows)
    table = Table(
        {
            "ra": numbers / 3.0,
            "id": numbers.astype("i8"),
            "tiny": numbers.astype("i1"),
            "name": np.array([f"star {number}" for number in numbers]),
            "flag": MaskedColumn(numbers % 2 == 0, mask=numbers == 1),
            "count": MaskedColumn(numbers.astype("i2"), mask=numbers == 2),
            "pair": np.stack([numbers, -numbers], axis=1).astype("f4"),
        },
        meta={"name": "stars", "depth": 21.5},
    )
    table["ra"].unit = "deg"
    table["ra"].description = "Right ascension"
    table["ra"].meta["ucd"] = "pos.eq.ra"
    return table


def written(table: Table) -> Any:
    file = io.BytesIO()
    write_fits_plus(table, file)
    assert len(file.getvalue()) % 2880 == 0
    return fits.open(io.BytesIO(file.getvalue()), lazy_load_hdus=False)


def test_votable_in_the_primary_hdu() -> None:
    """The primary HDU contains a VOTable with UCDs, descriptions, units and PARAMs, and without rows."""
    with written(table_of()) as hdus:
        header = hdus[0].header
        assert list(header)[:5] == ["SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "VOTMETA"]
        assert header["VOTMETA"] is True
        element = parse(io.BytesIO(hdus[0].data.tobytes()), verify="exception").get_first_table()
    assert [field.name for field in element.fields] == table_of().colnames
    assert element.fields[0].ucd == "pos.eq.ra"
    assert element.fields[0].description == "Right ascension"
    assert str(element.fields[0].unit) == "deg"
    assert [(param.name, param.value) for param in element.params] == [("depth", 21.5)]
    assert len(element.array) == 0


def test_rows(tmp_path: Path) -> None:
    """The table that is read equals the table that was written, including its missing values."""
    table = table_of()
    path = tmp_path / "t.fits"
    with path.open("wb") as file:
        write_fits_plus(table, file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns about the missing flag
        back = read_fits_table(path)
    assert back.colnames == table.colnames
    for name in table.colnames:
        assert back[name].tolist() == table[name].tolist(), name
    assert back["ra"].unit == "deg"


@pytest.mark.parametrize("code", ["i1", "u1", "i2", "u2", "i4", "u4", "i8"])
def test_missing_integers(code: str) -> None:
    """Missing values stay missing, also in types that FITS does not have: the wider type has a null value."""
    limits = np.iinfo(code)
    table = Table({"a": MaskedColumn([limits.min, 0, limits.max - 1, 0], dtype=code, mask=[False, False, False, True])})
    file = io.BytesIO()
    write_fits_plus(table, file)
    file.seek(0)
    assert read_fits_table(file)["a"].tolist() == table["a"].tolist()  # type: ignore[arg-type]


def test_all_metadata_are_read_back(tmp_path: Path) -> None:
    """The package reads metadata for which FITS has no keywords from the primary HDU."""
    table = table_of()
    table.meta.update({"description": "Some stars", "epoch": 2000, "note": "é"})
    table["ra"].meta.update({"utype": "stc:ra", "xtype": "adql:DOUBLE"})
    table["count"].unit, table["count"].description = "ct", "Détections"
    path = tmp_path / "t.fits"
    with path.open("wb") as file:
        write_fits_plus(table, file)
    back = read_table(path)
    for name in table.colnames:
        assert back[name].unit == table[name].unit, name
        assert back[name].description == table[name].description, name
    assert {key: back["ra"].meta[key] for key in ("ucd", "utype", "xtype")} == table["ra"].meta
    assert {key: back.meta[key] for key in table.meta} == table.meta
    assert back["count"].mask.tolist() == table["count"].mask.tolist()
    assert back["flag"].mask.tolist() == table["flag"].mask.tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array(["a", "b"]), True), (np.array(["a", ""]), True), (np.array(["\xe9", "b"]), False),
        (np.array(["a ", "b"]), False), (np.array([1, None], dtype=object), True), (np.zeros((2, 0)), False),
        (np.array([1, 2], dtype="u8"), False), (np.array([["a"], ["b"]]), False),
        (MaskedColumn(np.arange(2, dtype="u1"), mask=[True, False]), True),
    ],
)  # fmt: skip
def test_is_plain(values: Any, expected: bool) -> None:
    """A table that FITS cannot represent without loss is not written in this format."""
    assert is_plain(Table({"a": values})) is expected


def test_names_that_differ_only_in_case() -> None:
    """FITS does not distinguish upper and lower case in names."""
    assert not is_plain(Table({"a": [1], "A": [2]}))


def test_preferred_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """TOPCAT prefers FITS for large tables. Other clients get VOTables, and so does TOPCAT for small tables."""
    monkeypatch.setattr(tables, "LARGE", 100)
    large = next(form for form in to_sendable(table_of(1000)).formats if form.mtype == "table.load.fits")
    assert large.is_better_for is not None
    assert large.is_better_for("topcat")
    assert not large.is_better_for("Aladin")
    accents = Table({"a": np.array(["\xe9"] * 1000)})
    not_plain = next(form for form in to_sendable(accents).formats if form.mtype == "table.load.fits")
    assert not_plain.is_better_for is not None
    assert not not_plain.is_better_for("topcat")
    monkeypatch.setattr(tables, "LARGE", 10**9)
    small = next(form for form in to_sendable(table_of(1000)).formats if form.mtype == "table.load.fits")
    assert small.is_better_for is not None
    assert not small.is_better_for("topcat")


@pytest.mark.parametrize("name", ["topcat", "Someone"])
@pytest.mark.parametrize("to_all", [True, False])
def test_format_that_is_sent(pair: Any, name: str, to_all: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the recipient decides on the format, both for one recipient and for a broadcast."""
    monkeypatch.setattr(tables, "LARGE", 100)
    alice, bob = pair
    assert isinstance(bob, SAMPIntegratedClient)
    bob.declare_metadata({"samp.name": name})
    bob.declare_subscriptions({"table.load.votable": {}, "table.load.fits": {}})
    report = alice.send(table_of(1000), to=None if to_all else bob.get_public_id(), wait=False)
    expected = "table.load.fits" if name == "topcat" else "table.load.votable"
    assert [each.mtype for each in report.deliveries] == [expected]


def test_memory_is_bounded() -> None:
    """The rows are written in blocks, so that the memory is bounded."""
    table = Table({f"c{number}": np.zeros(200_000) for number in range(10)})

    class Nowhere(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return len(data)

    write_fits_plus(table[:1], Nowhere())  # type: ignore[arg-type]
    tracemalloc.start()
    write_fits_plus(table, Nowhere())  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
