# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Read and write FITS tables, including missing values.

Large tables are sent to TOPCAT in its format fits-plus. The primary HDU contains a VOTable without rows, with the
metadata for which FITS has no keywords (UCDs, utypes, PARAM elements, descriptions). The next HDU contains the table.
TOPCAT maps such a file into memory instead of reading it. The rows are written in blocks, which needs little memory.
Only tables for which `is_plain` returns true can be written in this format. FITS can represent all their values, except
that it does not distinguish an empty text from a missing one. TOPCAT does not distinguish them either.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table
from astropy.units import UnitsWarning

from ..errors import SAMPClientError, SAMPTypeError, warn, without_warnings
from .detection import is_by_columns
from .headers import card_of, is_table_keyword
from .model import decode_field, decode_text
from .plain_columns import WIDER_INTEGERS, flatten_columns, unused_name, unused_value, write_with_column_errors
from .votable_writer import fill_masked, logical_letters, write_votable

#: Integer types that FITS does not have, and types for which it has no number for missing values, with replacements.
_WIDER = {"i1": "i2"}
_WIDER_MASKED = {"u2": "i4", "u4": "i8"}
#: The types of columns by the format letters of FITS.
_TYPES = {
    "L": "?", "X": "?", "B": "u1", "I": "i2", "J": "i4", "K": "i8", "E": "f4", "D": "f8", "C": "c8", "M": "c16",
    "A": "U1",
}  # fmt: skip
#: Maximum number of columns of a FITS table.
MAX_COLUMNS = 999
#: Sizes in bytes of the blocks of a FITS file, and of a header card.
BLOCK, LINE = 2880, 80


def write_fits_table(table: Any, file: BinaryIO) -> None:
    """
    Write a table as a FITS file. Warn about units and metadata that FITS cannot represent.

    The file must be seekable. Raise SAMPTypeError with the names of the columns that FITS cannot represent.
    """
    flat = flatten_columns(table)
    if len(flat.colnames) > MAX_COLUMNS:
        raise SAMPTypeError(f"A FITS table can have {MAX_COLUMNS} columns, but the table has {len(flat.colnames)}")
    left_out = _clear_metadata(flat)
    if left_out:
        warn(f"FITS cannot represent all metadata; the table is sent without {', '.join(map(repr, left_out))}")
    for name in flat.colnames:
        if flat[name].unit is not None and not _is_unit_of_fits(flat[name].unit):
            warn(f"FITS has no unit {flat[name].unit}: recipients of FITS get the column {name!r} without its unit")
            flat[name].unit = None
    write_with_column_errors(flat, file, _write, "a FITS table")


def _is_unit_of_fits(unit: Any) -> bool:
    try:
        unit.to_string(format="fits")
    except ValueError:
        return False
    return True


def _clear_metadata(flat: Table) -> list[str]:
    """Remove the metadata that FITS cannot represent, and return their names."""
    left_out = []
    known: dict[str, Any] = {}
    keywords = set()
    for key, given in flat.meta.items():
        # astropy appends to this list; in a table that was read from a VOTable it is one text
        value = given.splitlines() if key == "comments" and isinstance(given, str) else given
        items = value if isinstance(value, list) else [value]
        items = [decode_text(item)[0] if isinstance(item, bytes) else item for item in items]
        keyword = "COMMENT" if key == "comments" else str(key).upper()
        if (
            not isinstance(key, str)
            or keyword in keywords
            or is_table_keyword(keyword)
            or not all(_has_card(keyword, item) for item in items)
            or (keyword == "EXTNAME" and not isinstance(value, str))
            or (key == "comments" and not isinstance(value, list))
        ):
            left_out.append(str(key))
            continue
        keywords.add(keyword)
        known[key] = items if isinstance(value, list) else items[0]
    flat.meta.clear()
    flat.meta.update(known)
    for name in list(flat.colnames):
        if name != name.rstrip():  # FITS ignores trailing blanks
            flat.rename_column(name, unused_name(flat, flat, name.rstrip()))
    for name in flat.colnames:
        column = flat[name]
        kept = {key: value for key, value in column.meta.items() if isinstance(key, str) and _is_serializable(value)}
        left_out += [f"{name}.{key}" for key in column.meta if key not in kept]
        column.meta = kept
        if not isinstance(column.format, str):  # for example a function
            column.format = None
    return left_out


def _has_card(keyword: str, value: Any) -> bool:
    """Return whether astropy can write a keyword and its value as a header card."""
    from astropy.utils.exceptions import AstropyUserWarning  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("error", AstropyUserWarning)  # about keywords that follow no convention
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # about long keywords
        try:
            card = card_of(keyword, value, "")
            if card is None:
                return False
            card.verify("exception")
        except (fits.VerifyError, AstropyUserWarning):
            return False
    return True


def _is_serializable(value: Any) -> bool:
    """Return whether astropy can write a metadata value of a column into comments."""
    if isinstance(value, list | tuple):
        return all(_is_serializable(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_serializable(item) for key, item in value.items())
    return value is None or isinstance(value, str | int | float | np.bool_ | np.integer | np.floating)


def _write(flat: Table, file: BinaryIO) -> None:
    ready = flat.copy(copy_data=False)
    logical = [name for name in flat.colnames if flat[name].dtype.kind == "b" and np.ma.is_masked(flat[name])]
    for name in flat.colnames:
        ready.replace_column(name, _with_null(flat[name]), copy=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # about long keywords, which are kept
        warnings.simplefilter("ignore", UnitsWarning)  # about units in an old spelling, which are kept
        ready.write(file, format="fits")
        if not logical:
            return
        # A missing logical value is a zero byte, which astropy does not write. Therefore the column was written as
        # bytes, and its header card is corrected here.
        head = io.BytesIO()
        ready[:1].write(head, format="fits")  # astropy cannot write variable-length arrays without any row
    lines = list(fits.getheader(io.BytesIO(head.getvalue()), 1).cards)
    keywords = {f"TFORM{ready.colnames.index(name) + 1}" for name in logical}
    for number, card in enumerate(lines):
        if card.keyword in keywords:
            file.seek(BLOCK + LINE * number)
            file.write(fits.Card(card.keyword, card.value.replace("B", "L"), card.comment).image.encode("ascii"))
    file.seek(0, io.SEEK_END)


def _with_null(column: Any) -> Any:
    """Return a column in a type that FITS has, with an otherwise unused number for missing values."""
    if 0 in column.shape[1:]:  # astropy 8.0 would write a TFORM of one element
        empty = np.empty(len(column), dtype=object if len(column) else float)
        for row in range(len(column)):
            empty[row] = np.zeros(0)
        return Column(empty, unit=column.unit, description=column.description, meta=dict(column.meta))
    code = f"{column.dtype.kind}{column.dtype.itemsize}"
    if code in _WIDER:
        column = column.astype(_WIDER[code])
    if not isinstance(column, MaskedColumn):
        return column
    if not np.ma.is_masked(column):
        return column.filled()  # a plain column: the fill value, which astropy writes as TNULL, may be a valid value
    if column.dtype.kind == "b":
        letters = logical_letters(np.ma.getdata(column), np.ma.getmaskarray(column), slice(None), 0)
        return Column(letters, description=column.description, meta=dict(column.meta))
    if column.dtype.kind in "iu":
        null = unused_value(column)
        if code in _WIDER_MASKED or null is None:
            column = column.astype(_WIDER_MASKED.get(code, "i4"))
            null = unused_value(column)
        column.fill_value = null
    return column


def table_of_hdus(hdus: Any) -> Table:
    """
    Read the first table among HDUs, and warn about other tables.

    The description of the table that STIL writes into the primary HDU is not used.
    """
    with without_warnings():
        tables = (fits.BinTableHDU, fits.TableHDU)  # in astropy 6 the class of compressed images is derived from them
        numbers = [n for n, hdu in enumerate(hdus) if isinstance(hdu, tables) and not hdu.header.get("ZIMAGE")]
        if not numbers:
            raise SAMPClientError("The FITS file contains no table")
        table = _read_hdu(hdus, numbers[0])
        others = ", ".join(hdus[number].name or f"HDU {number}" for number in numbers[1:])
    if others:
        warn(f"The FITS file contains {len(numbers)} tables: the first is read, but not {others}")
    return table


def open_hdus(place: Path | BinaryIO) -> Any:
    """Open a FITS file for `table_of_hdus`: texts are read as bytes, and nothing is mapped into memory."""
    return fits.open(place, memmap=False, ignore_missing_simple=True, character_as_bytes=True)


def _read_hdu(hdus: Any, number: int) -> Table:
    hdu = hdus[number]
    _name_columns(hdu.header)
    hdu.verify("silentfix+ignore")
    by_columns = is_by_columns(hdus[0].header) or is_by_columns(hdu.header)
    if by_columns and hdu.header["NAXIS1"] == 0:  # astropy does not read cells without values
        return Table(names=hdu.columns.names, dtype=[_TYPES[column.format[-1]] for column in hdu.columns])
    table = Table.read(hdus, format="fits", hdu=number)
    raw = np.empty(0) if hdu.data is None else hdu.data.view(np.ndarray)  # it is None if there are no columns
    for name in table.colnames:
        column, values = table[name], raw[name] if name in (raw.dtype.names or ()) else None
        changed, missing = np.asarray(column), np.ma.getmaskarray(column)
        if column.dtype.kind == "b" and values is not None and values.dtype.itemsize:
            missing = (values == 0).reshape(column.shape)
        elif column.dtype.kind == "S" and changed.nbytes and (np.ascontiguousarray(changed).view("u1") > 127).any():
            changed = np.array([decode_field(bytes(text)) for text in changed.flat]).reshape(column.shape)
        else:
            continue
        about = {"unit": column.unit, "description": column.description, "meta": dict(column.meta)}
        kind = partial(MaskedColumn, mask=missing) if missing.any() else Column
        table.replace_column(name, kind(changed, **about), copy=False)
    if by_columns and len(table) == 1:
        table = _rows_from_columns(table, hdu.header)
    _use_keywords(table)
    return table


def _name_columns(header: Any) -> None:
    """Give each column a unique name, because otherwise astropy fails to read the table or reads one column twice."""
    seen: set[str] = set()
    for number in range(1, int(header.get("TFIELDS", 0)) + 1):
        given = str(header.get(f"TTYPE{number}", "")).rstrip()
        # keep leading blanks, because astropy finds columns by their names in __serialized_columns__
        given = name = given if given.strip() else f"col{number}"
        count = 2
        while name.lower() in seen:
            name, count = f"{given}_{count}", count + 1
        seen.add(name.lower())
        if header.get(f"TTYPE{number}") != name:
            header[f"TTYPE{number}"] = name


def _rows_from_columns(table: Table, header: Any) -> Table:
    """Convert a table of one row whose cells contain the columns to a table of rows."""
    made = Table(meta=dict(table.meta))
    for number, name in enumerate(table.colnames, start=1):
        column = table[name]
        dimensions = str(header.get(f"TDIM{number}", "")).strip("() ").split(",")
        values = column[0].reshape(-1) if dimensions[0].strip() == "1" and len(dimensions) == 2 else column[0]
        rows = type(column)(values, unit=column.unit, description=column.description, meta=dict(column.meta))
        made.add_column(rows, name=name, copy=False)
    return made


def _use_keywords(table: Table) -> None:
    """Move the values of keywords that describe columns (written by STIL and others) to the columns."""
    for number, name in enumerate(table.colnames, start=1):
        column = table[name]
        if description := table.meta.pop(f"TCOMM{number}", None):
            column.description = column.description or str(description)
        for keyword, key in (("TUCD", "ucd"), ("TUTYP", "utype"), ("TXTYP", "xtype")):
            if value := table.meta.pop(f"{keyword}{number}", None):
                column.meta[key] = str(value)


#: Approximate size in bytes of the blocks in which rows are written.
BLOCK_SIZE = 1024 * 1024
#: The format letters of FITS by numpy's types.
_CODES = {"b1": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D", "c8": "C", "c16": "M"}
#: The rows of a VOTable, which the primary HDU must not contain.
_DATA = re.compile(rb"<DATA>.*?</DATA>", re.DOTALL)


class _ColumnWriter(NamedTuple):
    """Writes one column of a fits-plus table."""

    #: The value of TFORM.
    code: str
    #: The number for missing values (TNULL).
    null: int | None
    #: The type of the column in the records.
    dtype: Any
    #: Returns the values of some rows.
    make: Callable[[slice], Any]


def is_plain(table: Any) -> bool:
    """Return whether `write_fits_plus` can write a table."""
    return _column_writers(flatten_columns(table)) is not None


def write_fits_plus(table: Any, file: BinaryIO) -> None:
    """Write a table for which `is_plain` is true in the format fits-plus."""
    flat = flatten_columns(table)
    writers = _column_writers(flat)
    assert writers is not None
    head = io.BytesIO()
    write_votable(flat[:0], head)
    document = _DATA.sub(b"", head.getvalue())
    file.write(_primary_header(len(document)) + document + bytes(-len(document) % BLOCK))
    file.write(_table_header(flat, writers).encode("ascii"))
    record = np.dtype([(f"c{number}", writer.dtype) for number, writer in enumerate(writers)])
    step = max(1, BLOCK_SIZE // record.itemsize)
    for start in range(0, len(flat), step):
        rows = slice(start, min(len(flat), start + step))
        block = np.zeros(rows.stop - rows.start, dtype=record)
        for number, writer in enumerate(writers):
            block[f"c{number}"] = writer.make(rows)
        file.write(block.tobytes())
    file.write(bytes(-len(flat) * record.itemsize % BLOCK))


def _primary_header(size: int) -> bytes:
    """Make the primary header. STIL recognizes fits-plus by these keywords and requires them in this order."""
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


def _table_header(flat: Table, writers: list[_ColumnWriter]) -> str:
    columns = []
    for name, writer in zip(flat.colnames, writers, strict=True):
        column = flat[name]
        unit = None if column.unit is None else str(column.unit)
        sizes = column.shape[:0:-1]
        columns.append(fits.Column(
            name=name, format=writer.code, unit=unit if unit and unit.isascii() else None, null=writer.null,
            dim=f"({','.join(map(str, sizes))})" if len(sizes) > 1 else None,
        ))  # fmt: skip
    header = fits.BinTableHDU.from_columns(columns).header
    header["NAXIS2"] = len(flat)
    name = flat.meta.get("EXTNAME", flat.meta.get("name"))
    if isinstance(name, str) and name.isascii() and name.isprintable() and len(name) < LINE - 12:
        header["EXTNAME"] = name
    return str(header.tostring())


def _column_writers(flat: Table) -> list[_ColumnWriter] | None:
    """Return the writers of all columns; None if a column cannot be written."""
    if not 0 < len(flat.colnames) <= MAX_COLUMNS:
        return None
    if not all(name.isascii() and name.isprintable() and name == name.strip() and len(name) < LINE - 12
               for name in flat.colnames) or len({name.lower() for name in flat.colnames}) < len(flat.colnames):
        return None
    writers = []
    for name in flat.colnames:
        writer = _make_column_writer(flat[name])
        if writer is None:
            return None
        writers.append(writer)
    return writers


def _make_column_writer(column: Any) -> _ColumnWriter | None:
    kind, shape = column.dtype.kind, column.shape[1:]
    values = np.asarray(np.ma.getdata(column))
    missing = np.ma.getmaskarray(column) if np.ma.is_masked(column) else None
    if kind in "US":
        return _text_writer(values, missing) if not shape else None
    code = f"{kind}{values.dtype.itemsize}"
    code = WIDER_INTEGERS.get(code, code)
    if code not in _CODES or 0 in shape:
        return None
    count = str(int(np.prod(shape))) if shape else ""
    null = None
    if missing is not None and kind in "iu":
        null = unused_value(column.astype(code))
        if null is None:
            return None
    blank = np.nan if kind in "fc" else null
    dtype = np.dtype("u1" if kind == "b" else code).newbyteorder(">")

    def make(rows: slice) -> Any:
        if kind == "b":
            return logical_letters(values[rows], missing, rows, 0)
        # convert to the wider type first, because the narrow one cannot hold the number for missing values
        return fill_masked(values[rows].astype(code, copy=False), missing, rows, blank)

    return _ColumnWriter(f"{count}{_CODES[code]}", null, (dtype, shape), make)


def _text_writer(values: Any, missing: Any) -> _ColumnWriter | None:
    size = values.dtype.itemsize
    length = max(1, size // 4 if values.dtype.kind == "U" else size)
    if size and values.size:
        points = np.ascontiguousarray(values).view("u4" if values.dtype.kind == "U" else "u1").reshape(len(values), -1)
        has_end = np.empty_like(points, dtype=bool)
        has_end[:, :-1], has_end[:, -1] = points[:, 1:] == 0, True
        if int(points.max()) > 126 or ((points < 32) & (points > 0)).any() or (has_end & (points == 32)).any():
            return None  # FITS only has ASCII text, and ignores trailing blanks
    blank = values.dtype.type()
    return _ColumnWriter(f"{length}A", None, f"S{length}", lambda rows: fill_masked(values[rows], missing, rows, blank))
