# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Large tables as FITS files in the form that TOPCAT calls fits-plus.

The primary HDU holds the head of a VOTable, and with it all that FITS has no keywords for: UCDs, utypes, PARAM
elements, descriptions. The table is in the HDU behind it. TOPCAT maps such a file into memory instead of reading it.
The rows are written in portions, so that writing takes hardly any memory.

Only tables are written of which FITS can hold all but the difference between an empty text and a missing one, which
TOPCAT does not make either; for others `is_plain` is False.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from .columns import flat_table, free_number
from .fits_tables import BLOCK, LINE
from .votable_writer import write_votable

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["is_plain", "write_fits_plus"]

#: Bytes of rows that are written at once, about.
PORTION = 1024 * 1024
#: The codes of numpy's types in FITS, and the types that FITS does not have.
_CODES = {"b1": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D", "c8": "C", "c16": "M"}
_WIDER = {"i1": "i2", "u2": "i4", "u4": "i8"}
#: The rows of the document in the primary HDU, which it does not have.
_DATA = re.compile(rb"<DATA>.*?</DATA>", re.DOTALL)
MAX_COLUMNS = 999


class _Part(NamedTuple):
    """One column: its format, the number that stands for what is missing, its type in bytes, and its values."""

    code: str
    null: int | None
    dtype: Any
    #: Makes the values of some rows.
    make: Callable[[slice], Any]


def is_plain(table: Any) -> bool:
    """
    Tell whether a table can be written as `write_fits_plus` writes it.

    Parameters
    ----------
    table : astropy.table.Table
        The table.
    """
    return _parts(flat_table(table)) is not None


def write_fits_plus(table: Any, file: BinaryIO) -> None:
    """
    Write a table that is plain.

    Parameters
    ----------
    table : astropy.table.Table
        The table.
    file : binary file
        Where to.
    """
    flat = flat_table(table)
    parts = _parts(flat)
    assert parts is not None
    head = io.BytesIO()
    write_votable(flat[:0], head)
    document = _DATA.sub(b"", head.getvalue())
    file.write(_primary_header(len(document)) + document + bytes(-len(document) % BLOCK))
    file.write(_table_header(flat, parts).encode("ascii"))
    record = np.dtype([(f"c{number}", part.dtype) for number, part in enumerate(parts)])
    step = max(1, PORTION // record.itemsize)
    for start in range(0, len(flat), step):
        rows = slice(start, min(len(flat), start + step))
        block = np.zeros(rows.stop - rows.start, dtype=record)
        for number, part in enumerate(parts):
            block[f"c{number}"] = part.make(rows)
        file.write(block.tobytes())
    file.write(bytes(-len(flat) * record.itemsize % BLOCK))


def _primary_header(size: int) -> bytes:
    """The header by which STIL knows such a file: it wants these keywords in this order."""
    from astropy.io import fits  # noqa: PLC0415

    header = fits.Header()
    for keyword, value, comment in (
        ("SIMPLE", True, "Standard FITS format"),
        ("BITPIX", 8, "Character data"),
        ("NAXIS", 1, "Text string"),
        ("NAXIS1", size, "Number of characters"),
        ("VOTMETA", True, "Table metadata in VOTable format"),
        ("EXTEND", True, "There are standard extensions"),
        ("NTABLE", 1, "Number of following BINTABLE HDUs"),
    ):
        header.append((keyword, value, comment), end=True)
    return str(header.tostring()).encode("ascii")


def _table_header(flat: Table, parts: list[_Part]) -> str:
    from astropy.io import fits  # noqa: PLC0415

    columns = []
    for name, part in zip(flat.colnames, parts, strict=True):
        column = flat[name]
        unit = None if column.unit is None else str(column.unit)
        sizes = column.shape[:0:-1]
        columns.append(fits.Column(
            name=name, format=part.code, unit=unit if unit and unit.isascii() else None, null=part.null,
            dim=f"({','.join(map(str, sizes))})" if len(sizes) > 1 else None,
        ))  # fmt: skip
    header = fits.BinTableHDU.from_columns(columns).header
    header["NAXIS2"] = len(flat)
    name = flat.meta.get("EXTNAME", flat.meta.get("name"))
    if isinstance(name, str) and name.isascii() and name.isprintable() and len(name) < LINE - 12:
        header["EXTNAME"] = name
    return str(header.tostring())


def _parts(flat: Table) -> list[_Part] | None:
    """How each column is written; None if one cannot be."""
    if not 0 < len(flat.colnames) <= MAX_COLUMNS:
        return None
    if not all(name.isascii() and name.isprintable() and name == name.strip() and len(name) < LINE - 12
               for name in flat.colnames) or len({name.lower() for name in flat.colnames}) < len(flat.colnames):
        return None
    parts = []
    for name in flat.colnames:
        part = _part(flat[name])
        if part is None:
            return None
        parts.append(part)
    return parts


def _part(column: Any) -> _Part | None:
    kind, shape = column.dtype.kind, column.shape[1:]
    values = np.asarray(np.ma.getdata(column))
    missing = np.ma.getmaskarray(column) if np.ma.is_masked(column) else None
    if kind in "US":
        return _text_part(values, missing) if not shape else None
    code = _WIDER.get(f"{kind}{values.dtype.itemsize}", f"{kind}{values.dtype.itemsize}")
    if code not in _CODES or 0 in shape:
        return None
    count = str(int(np.prod(shape))) if shape else ""
    if kind == "b":
        return _Part(f"{count}L", None, ("u1", shape), lambda rows: _letters(values[rows], missing, rows))
    null = None
    if missing is not None and kind in "iu":
        null = free_number(column.astype(code))
        if null is None:
            return None
    blank = np.nan if kind in "fc" else null
    dtype = np.dtype(code).newbyteorder(">")
    letters = f"{count}{_CODES[code]}"
    return _Part(letters, null, (dtype, shape), lambda rows: _filled(values[rows], missing, rows, blank))


def _text_part(values: Any, missing: Any) -> _Part | None:
    size = values.dtype.itemsize
    length = max(1, size // 4 if values.dtype.kind == "U" else size)
    if size and values.size:
        points = np.ascontiguousarray(values).view("u4" if values.dtype.kind == "U" else "u1").reshape(len(values), -1)
        has_end = np.empty_like(points, dtype=bool)
        has_end[:, :-1], has_end[:, -1] = points[:, 1:] == 0, True
        if int(points.max()) > 126 or ((points < 32) & (points > 0)).any() or (has_end & (points == 32)).any():
            return None  # FITS has ASCII only, and no blanks at the end of a text
    blank = values.dtype.type()
    return _Part(f"{length}A", None, f"S{length}", lambda rows: _filled(values[rows], missing, rows, blank))


def _filled(values: Any, missing: Any, rows: slice, blank: Any) -> Any:
    """Some rows; where something is missing, nothing tells what was there."""
    return values if missing is None else np.where(missing[rows], np.asarray(blank).astype(values.dtype), values)


def _letters(values: Any, missing: Any, rows: slice) -> Any:
    letters = np.where(values, np.uint8(ord("T")), np.uint8(ord("F")))
    return letters if missing is None else np.where(missing[rows], np.uint8(0), letters)
