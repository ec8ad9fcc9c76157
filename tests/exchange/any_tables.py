# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Hypothesis strategies for tables with columns, texts, names and metadata of every kind."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Column, MaskedColumn, Table
from astropy.time import Time
from hypothesis import strategies as st

__all__ = ["tables"]

#: Characters that formats, parsers and encodings often mishandle.
ODD = "\0\x01\x0b\t\n\r\x1f\x7f\x85\xa0é\u0100\ud7ff\ud800\udfff\ufffd\ufffe\uffff\U0001f52d\U0010ffff <>&\"']=/"
texts = st.one_of(
    st.text("abcXYZ 0", max_size=8),
    st.text(ODD, max_size=4),
    st.text(st.characters(exclude_categories=()), max_size=6),
    st.sampled_from(["", " ", "]]>", "</TABLE>", "x" * 100, "é" * 100, "'" * 70, "a\0", "HIERARCH a b"]),
)
plain_bytes = st.one_of(st.binary(max_size=5), texts.map(lambda text: text.encode("utf-8", "replace")))
names = st.one_of(texts, st.sampled_from(["a", "A", "a b", "1", "name", "ID", "col0", "NULL", "x" * 300]))
numbers = st.sampled_from(
    ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "f16", "c8", "c16", ">i4", ">f8"]
)
shapes = st.sampled_from([(), (), (), (1,), (2,), (2, 3), (0,), (0, 2)])
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from([2**63, -(2**63), 2**70]), st.floats(), texts,
        plain_bytes, st.complex_numbers(), st.just(object()),
        st.sampled_from([np.int16(3), np.float32(1.5), np.ones(3), np.ma.masked, np.datetime64("NaT"), 3 * u.m]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip
table_keys = st.sampled_from(
    ["ID", "name", "ref", "ucd", "utype", "description", "comments", "END", "SIMPLE", "CONTINUE", "COMMENT", "HISTORY",
     "TTYPE1", "NAXIS", "EXTNAME", "XTENSION", "ZIMAGE", "VOTMETA", "DATE-OBS", "MJDREF", "TIMESYS", "CHECKSUM", "",
     "__serialized_columns__", "__coordinate_columns__", "k" * 90]
)  # fmt: skip
column_keys = st.sampled_from(
    ["ucd", "width", "precision", "utype", "xtype", "values", "links", "_votable_string_dtype", "_votable_arraysize",
     "ID", "coord_type"]
)  # fmt: skip
any_keys = st.one_of(texts, st.integers(0, 3))
units = st.sampled_from([None, None, "deg", "Angstrom", "mag", "km / s", "1e-3 Jy", u.def_unit("furlong_of_mine")])


@st.composite
def numeric(draw: st.DrawFn, rows: int) -> Any:
    """A column of numbers, or of arrays of numbers."""
    shape, dtype = draw(shapes), np.dtype(draw(numbers))
    dice = np.random.default_rng(draw(st.integers(0, 99)))
    raw = dice.integers(0, 256, (rows, *shape, dtype.itemsize), dtype="u1")
    if dtype.kind in "iu" and draw(st.booleans()):
        cells = raw.view(dtype).reshape(rows, *shape)  # values of the whole range
    else:
        cells = raw[..., 0].reshape(rows, *shape).astype(dtype)
    if dtype != "f2" and draw(st.booleans()):  # astropy has no number that marks a missing float16 value
        return MaskedColumn(cells, mask=dice.integers(0, 2, cells.shape, dtype="?"))
    return Column(cells)


@st.composite
def textual(draw: st.DrawFn, rows: int) -> Any:
    """A column of texts or bytes, as an array or as objects; some values are missing."""
    cells = draw(st.lists(draw(st.sampled_from([texts, plain_bytes])), min_size=rows, max_size=rows))
    kind = draw(st.sampled_from(["fixed", "masked", "objects", "long", "pairs"]))
    if kind in {"objects", "long"}:
        column = np.empty(rows, dtype=object)
        column[:] = cells
        for row in range(rows):
            if draw(st.integers(0, 3)) == 0:
                column[row] = None
        if kind == "long" and rows and isinstance(cells[0], str):
            column[0] = cells[0] + draw(st.sampled_from("xé\U0001f52d")) * 9000
        return Column(column)
    array = np.array(cells, dtype="S" if cells and isinstance(cells[0], bytes) else "U")
    if kind == "pairs":
        return Column(np.stack([array, array[::-1]], axis=1))
    return MaskedColumn(array, mask=[draw(st.booleans()) for _ in cells]) if kind == "masked" else Column(array)


@st.composite
def ragged(draw: st.DrawFn, rows: int) -> Any:
    """A column of arrays of various lengths."""
    dtype = np.dtype(draw(numbers))
    column = np.empty(rows, dtype=object)
    for row in range(rows):
        cell: Any = np.arange(draw(st.integers(0, 4))).astype(dtype)
        column[row] = draw(st.sampled_from([cell, cell.tolist(), np.ma.array(cell, mask=cell == 1), None]))
    return Column(column)


@st.composite
def mixed(draw: st.DrawFn, rows: int) -> Any:
    """A column of another kind: quantities, positions, times, dates, structured values or mixed objects."""
    count = np.arange(float(rows))
    dates = np.arange(rows).astype("M8[D]")
    return draw(
        st.sampled_from(
            [
                count * u.m, SkyCoord(count, count, unit="deg"), Time(59000 + count, format="mjd"), dates,
                np.where(count == 1, np.datetime64("NaT"), dates), np.arange(rows).astype("m8[s]"),
                Column(np.zeros(rows, dtype="i4,f8,U2")), np.array([{}] * rows, dtype=object),
                np.array([1, "a", None, 2.5][:rows], dtype=object),
            ]
        )
    )  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Any table."""
    rows = draw(st.integers(0, 3))
    columns = st.one_of(numeric(rows), textual(rows), textual(rows), ragged(rows), mixed(rows))
    labels = draw(st.lists(names.filter(bool), unique=True, max_size=4))
    table = Table({label: draw(columns) for label in labels})
    if table.colnames and draw(st.integers(0, 9)) == 0 and "" not in table.colnames:
        table.rename_column(table.colnames[0], "")
    for name in table.colnames:
        table[name].info.description = draw(st.one_of(st.none(), texts))
        if isinstance(table[name], Column):
            table[name].unit = draw(units)
            keys = st.one_of(column_keys, any_keys)
            table[name].meta.update(draw(st.dictionaries(keys, values, max_size=2)))
    table.meta.update(draw(st.dictionaries(st.one_of(table_keys, any_keys), values, max_size=3)))
    return table
