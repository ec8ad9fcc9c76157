# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables as VOTables: astropy reads the values that were written."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io.votable import parse_single_table
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvo.samp import SAMPTypeError, SAMPWarning
from pyvo.samp.formats import votable_writer
from pyvo.samp.formats.votable_writer import write_votable
from tests.exchange.conftest import assert_same


def through(table: Any) -> Table:
    """Write a table and read it again."""
    file = io.BytesIO()
    write_votable(table, file)
    return parse_single_table(io.BytesIO(file.getvalue())).to_table(use_names_over_ids=True)


def test_many_types(table: Table) -> None:
    """Values, missing values, units, descriptions and UCDs are written."""
    back = through(table)
    assert_same(back, table)
    assert back["ra"].meta["ucd"] == "pos.eq.ra"
    assert back["ok"].dtype == bool
    assert back["n"].dtype == np.int32
    assert back.meta["name"] == "Small"


@pytest.mark.parametrize(
    ("given_type", "read"),
    [("i1", "i2"), ("u1", "u1"), ("i2", "i2"), ("u2", "i4"), ("i4", "i4"), ("u4", "i8"), ("i8", "i8"), ("u8", "i8"),
     ("f2", "f4"), ("f4", "f4"), ("f8", "f8"), (">i4", "i4"), (">f8", "f8"), ("f16", "f8"), ("c8", "c8"),
     ("c16", "c16")],
)
def test_number_types(given_type: str, read: str) -> None:
    """A number type that VOTable does not have becomes a wider type."""
    values = np.array([0, 1, 100], dtype=given_type)
    back = through(Table({"x": values}))["x"]
    assert back.dtype.newbyteorder("=") == np.dtype(read)
    assert back.tolist() == values.astype(read).tolist()


def test_unusual_columns() -> None:
    """Large unsigned integers, strings as objects, bytes, dates, and texts outside ASCII and beyond 16 bits."""
    table = Table(
        {
            "large": np.array([1, 2**64 - 1], dtype="u8"),
            "objects": np.array(["one", None], dtype=object),
            "bytes": [b"ab", b"c"],
            "dates": np.array(["2020-01-01", "2021-06-01T12:00"], dtype="datetime64[s]"),
            "greek": ["αβ", "x"],
            "far": ["\U0001f52d", "y"],
            "two": np.array([["a", "b"], ["cd", "e"]]),
            "empty": ["", ""],
        }
    )
    back = through(table)
    assert list(back["large"]) == ["1", str(2**64 - 1)]
    assert list(np.ma.filled(back["objects"], "")) == ["one", ""]
    assert list(back["bytes"]) == ["ab", "c"]
    assert list(back["dates"]) == ["2020-01-01T00:00:00", "2021-06-01T12:00:00"]
    assert list(back["greek"]) == ["αβ", "x"]
    assert list(back["far"]) == ["\U0001f52d", "y"]
    assert list(back["two_2"]) == ["b", "e"]
    assert [str(value) for value in np.ma.filled(back["empty"], "")] == ["", ""]


def test_mixin_columns() -> None:
    """Quantities, positions and times become plain columns; the table itself is not modified."""
    table = QTable(
        {"d": [1, 2] * u.kpc, "t": Time(["2020-01-01", "2021-01-01"]), "c": SkyCoord([1, 2], [3, 4], unit="deg")}
    )
    table["d"].info.description = "Distance"
    back = through(table)
    assert back.colnames == ["d", "t", "c.ra", "c.dec"]
    assert back["d"].unit == u.kpc
    assert back["d"].description == "Distance"
    assert back["t"][0] == "2020-01-01T00:00:00.000"
    assert back["c.dec"].tolist() == [3, 4]
    assert back["c.dec"].unit == u.deg
    assert table.colnames == ["d", "t", "c"]


def test_missing_values_in_arrays() -> None:
    """A missing element of an array becomes NaN; an array without any value is marked as missing."""
    values = np.ma.array(np.ones((3, 2)), mask=[[0, 1], [1, 1], [0, 0]])
    flags = np.ma.array(np.ones((3, 2), dtype=bool), mask=[[0, 1], [1, 1], [0, 0]])
    back = through(Table({"v": MaskedColumn(values), "f": MaskedColumn(flags)}))
    assert np.isnan(np.ma.filled(back["v"], np.nan)).tolist() == [[False, True], [True, True], [False, False]]
    assert np.ma.getmaskarray(back["f"])[1].all()


def test_metadata_becomes_params() -> None:
    """Simple metadata of the table are written as PARAMs; other metadata are left out, and a warning names them."""
    known = {"N": 3, "X": 1.5, "OK": True, "WHO": "Zoë", "lines": "one\n two\tthree"}
    more = {"list": [1, 2], "comments": ["a", "b"], "bytes": b"caf\xc3\xa9"}
    odd = {"huge": 2**70, 5: "key", "map": {"a": 1}, "none": None, "name": 7, "mixed": [1, "a"]}
    table = Table({"a": [1]}, meta={**known, **more, **odd})
    file = io.BytesIO()
    with pytest.warns(SAMPWarning, match="sent without 'name', 'huge', '5', 'map', 'none', 'mixed'$"):
        write_votable(table, file)
    params = {param.name: param.value for param in parse_single_table(io.BytesIO(file.getvalue())).params}
    assert params.pop("list").tolist() == [1, 2]
    assert params == {**known, "comments": "a\nb", "bytes": "café"}


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int) -> None:
    """A table without rows can be written."""
    back = through(Table({"a": np.zeros(rows), "s": np.zeros(rows, dtype="U3")}))
    assert (len(back), back.colnames) == (rows, ["a", "s"])


def test_no_columns() -> None:
    """A table without rows and columns can be written."""
    assert len(through(Table())) == 0


def test_arrays_of_various_lengths() -> None:
    """Arrays of various lengths are written by astropy."""
    column = np.empty(2, dtype=object)
    column[0], column[1] = np.array([1.0]), np.array([2.0, 3.0])
    back = through(Table({"a": column}))
    assert back["a"][1].tolist() == [2.0, 3.0]


def test_columns_that_no_format_can_hold() -> None:
    """The error names the column that cannot be written."""
    with pytest.raises(SAMPTypeError, match="these columns: odd"):
        through(Table({"fine": [1, 2], "odd": np.array([{}, []], dtype=object)}))


def test_units_that_the_standard_does_not_know() -> None:
    """Units outside the standard are kept, without a warning."""
    table = Table({"a": [1.0], "wavelength": [5000.0]})
    table["a"].unit = u.def_unit("furlong_of_mine")
    table["wavelength"].unit = u.AA
    file = io.BytesIO()
    write_votable(table, file)
    assert b'unit="Angstrom"' in file.getvalue()
    del table["wavelength"]
    assert str(through(table)["a"].unit) == "furlong_of_mine"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.text("abcXYZ é&<>]", max_size=6),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 64),
)
def test_any_rows(rows: list[tuple[int, float, str, bool]], block_size: int) -> None:
    """Any values are read back, wherever a block of rows ends."""
    before = votable_writer.BLOCK_SIZE
    votable_writer.BLOCK_SIZE = block_size
    try:
        table = Table(rows=rows, names=["i", "f", "s", "b"], dtype=["i8", "f8", "U6", "?"])
        back = through(table)
    finally:
        votable_writer.BLOCK_SIZE = before
    for name in ("i", "f", "b"):
        assert back[name].tolist() == table[name].tolist()
    assert [str(text) for text in np.ma.filled(back["s"], "")] == table["s"].tolist()


def test_memory_is_bounded() -> None:
    """Writing a large table takes the memory of one block, not of the table."""

    class Nowhere(io.RawIOBase):
        size = 0

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.size += len(data)
            return len(data)

    table = Table({f"c{number}": np.zeros(200_000) for number in range(10)})
    write_votable(table[:1], Nowhere())
    tracemalloc.start()
    file = Nowhere()
    write_votable(table, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.size > 16_000_000 * 4 / 3
    assert peak < 24_000_000
