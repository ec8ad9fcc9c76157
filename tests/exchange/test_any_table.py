# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Every table that is written without an error can be read. A warning names each value that was changed."""

from __future__ import annotations

import io
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import HealthCheck, given, settings

from pyvo.samp import SAMPTypeError, SAMPWarning
from pyvo.samp.formats.fits_tables import write_fits_table
from pyvo.samp.formats.plain_columns import flatten_columns
from pyvo.samp.formats.readers import read_table
from pyvo.samp.formats.votable_writer import write_votable

from .any_tables import tables

WRITERS: dict[str, Callable[[Any, Any], None]] = {"votable": write_votable, "fits": write_fits_table}


def written(table: Any, format_: str) -> tuple[bytes, list[str]] | None:
    """Write a table; return the file and the warnings, or None if the table is rejected with an error."""
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            WRITERS[format_](table, file)
        except SAMPTypeError as error:
            error_text = str(error)
        else:
            error_text = ""
    if error_text:
        # A column without a printable name is called "col". The columns of a position have it as astropy quotes it
        names = [each for name in table.colnames for each in (name.strip() or "col", repr(name)[1:-1])]
        assert any(name in error_text for name in names), error_text
        return None
    assert all(issubclass(each.category, SAMPWarning) for each in caught), [str(each.message) for each in caught]
    return file.getvalue(), [str(each.message) for each in caught]


def flatten_quietly(table: Any) -> Table:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flatten_columns(table)


@pytest.mark.timeout(300)  # the test can take a minute on a busy machine
@pytest.mark.parametrize("format_", WRITERS)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables())
def test_written_tables_can_be_read(format_: str, table: Any) -> None:
    """The package and astropy itself read a written table with all rows, columns and values."""
    result = written(table, format_)
    if result is None:
        return
    data, messages = result
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(directory) / "table"
        path.write_bytes(data)
        by_package = read_table(path)
        by_astropy = Table.read(io.BytesIO(data), format=format_)
    flat = flatten_quietly(table)
    for back in (by_package, by_astropy):
        assert len(back) == len(flat)
        str(back)  # all cells can be printed
    if format_ == "votable":
        if not any(is_split(column) for column in flat.columns.values()):
            assert len(by_package.colnames) == len(flat.colnames)
            for name, column in zip(flat.colnames, by_package.columns.values(), strict=True):
                assert_same_cells(flat[name], column)
                assert name == column.name or messages or column.name.startswith(re.sub(r"[^ -~]", "?", name)[:1])
        for key, value in table.meta.items():
            if isinstance(value, str) and not messages:
                got = str(by_package.meta.get(key, "")).strip()
                assert got == value.strip() or key in {"ref", "ID", "description"}, (key, value, got)


@pytest.mark.parametrize("format_", WRITERS)
def test_a_table_without_columns(format_: str) -> None:
    """A table without columns is read as an empty table, with its metadata."""
    result = written(Table(meta={"depth": 3}), format_)
    assert result is not None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "table"
        path.write_bytes(result[0])
        back = read_table(path)
    assert (back.colnames, len(back)) == ([], 0)
    assert {key.lower(): value for key, value in back.meta.items()} == {"depth": 3}


def test_names_with_leading_blanks_in_fits() -> None:
    """Names that differ only in leading blanks stay different: astropy 8.0 finds columns of FITS by such names."""
    table = Table({" 0": [True], "0": ["a"]})
    table["0"].description = "Text"
    table["0"].meta["more"] = 1
    result = written(table, "fits")
    assert result is not None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "table"
        path.write_bytes(result[0])
        assert read_table(path).colnames == [" 0", "0"]


@pytest.mark.parametrize(
    ("key", "value"), [("'" * 70, ""), ("x" * 100, ""), ("x" * 100, None), ("ID", complex(0, np.inf))]
)
def test_metadata_that_fits_cannot_hold(key: str, value: Any) -> None:
    """Astropy 8.0 writes such cards, and cannot read them. The package leaves them out with a warning."""
    result = written(Table({"a": [1]}, meta={key: value}), "fits")
    assert result is not None
    assert [text.startswith("FITS cannot represent all metadata") for text in result[1]] == [True]
    assert len(Table.read(io.BytesIO(result[0]), format="fits")) == 1


def is_split(column: Any) -> bool:
    """Return whether a column is written as several columns of a VOTable."""
    if column.dtype.kind == "O" and len(column) and isinstance(column[0], np.ndarray):
        return bool(column[0].dtype.kind == "c")
    is_text = column.dtype.kind in "USO" or (column.dtype == "u8" and column.ndim > 1)
    return is_text and column.ndim > 1


def assert_same_cells(sent: Any, back: Any) -> None:
    """Compare the cells of a column that are not missing."""
    masks = np.ma.getmaskarray(sent)
    for row in range(len(sent)):
        if not masks[row].any():
            here, there = np.ma.getdata(sent)[row], back[row]
            if sent.dtype.kind in "US" or isinstance(here, str):
                shown = there.decode() if isinstance(there, bytes) else str(np.ma.filled(there, ""))
                assert shown == str(here.decode() if isinstance(here, bytes) else here)
            else:
                wanted = np.asarray(here)
                if wanted.dtype.kind == "u" and wanted.dtype.itemsize == 8:
                    assert str(there) == str(here)
                else:
                    blank = np.nan if wanted.dtype.kind in "fc" else 0
                    there = np.ma.filled(np.ma.asarray(there).astype(wanted.dtype), blank)
                    assert np.array_equal(there.ravel(), wanted.ravel(), equal_nan=wanted.dtype.kind in "fc")
