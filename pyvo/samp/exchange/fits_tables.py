# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables in FITS, to and fro, with what is missing in them."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import SAMPTypeError, warn
from .columns import flat_table, free_name, free_number, text_of_bytes, write_or_blame
from .headers import card_of

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["read_fits_table", "write_fits_table"]

#: What FITS does not have, or not with numbers that stand for what is missing.
_WIDER = {"i1": "i2"}
_WIDER_MASKED = {"u2": "i4", "u4": "i8"}
#: Keywords that say how the file is built; in the metadata they are of another file.
_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|TFIELDS|THEAP|END|CONTINUE|CHECKSUM|DATASUM|Z(IMAGE|TABLE)|"
    r"T(TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|BCOL|DIM|CTYP|CUNI|CRPX|CRVL|CDLT|RPOS)\d+|__\w+__"
)
#: Columns that a FITS table can have.
MAX_COLUMNS = 999
#: Bytes of a FITS file's blocks, and of the lines of headers.
BLOCK, LINE = 2880, 80


def write_fits_table(table: Any, file: BinaryIO) -> None:
    """
    Write a table as a FITS file.

    Parameters
    ----------
    table : astropy.table.Table
        The table; it is not modified.
    file : binary file
        Where to. It can be positioned.

    Raises
    ------
    SAMPTypeError
        FITS cannot hold it; the text names the columns.

    Warns
    -----
    SAMPWarning
        FITS cannot hold a column's unit or some metadata, which are left out.
    """
    flat = flat_table(table)
    if len(flat.colnames) > MAX_COLUMNS:
        raise SAMPTypeError(f"A FITS table has {MAX_COLUMNS} columns at most, and the table {len(flat.colnames)}")
    left_out = _clear_metadata(flat)
    if left_out:
        warn(f"FITS cannot hold all the metadata; the table is sent without {', '.join(map(repr, left_out))}")
    for name in flat.colnames:
        if flat[name].unit is not None and not _is_unit_of_fits(flat[name].unit):
            warn(f"FITS has no unit {flat[name].unit}: those who take the table as FITS get {name!r} without its unit")
            flat[name].unit = None
    write_or_blame(flat, file, _write, "a FITS table")


def _is_unit_of_fits(unit: Any) -> bool:
    try:
        unit.to_string(format="fits")
    except ValueError:
        return False
    return True


def _clear_metadata(flat: Table) -> list[str]:
    """Remove what FITS cannot hold of the metadata, and tell its names."""
    left_out = []
    known: dict[str, Any] = {}
    keywords = set()
    for key, value in flat.meta.items():
        items = value if isinstance(value, list) else [value]
        items = [text_of_bytes(item)[0] if isinstance(item, bytes) else item for item in items]
        keyword = "COMMENT" if key == "comments" else str(key).upper()
        if (
            not isinstance(key, str)
            or keyword in keywords
            or _STRUCTURE.fullmatch(keyword)
            or any(card_of(keyword, item, "") is None for item in items)
            or (keyword == "EXTNAME" and not isinstance(value, str))
        ):
            left_out.append(str(key))
            continue
        keywords.add(keyword)
        known[key] = items if isinstance(value, list) else items[0]
    flat.meta.clear()
    flat.meta.update(known)
    for name in list(flat.colnames):
        if name != name.rstrip():  # FITS keeps no blanks at the end
            flat.rename_column(name, free_name(flat, flat, name.rstrip()))
    for name in flat.colnames:
        column = flat[name]
        odd = [key for key, value in column.meta.items() if not (isinstance(key, str) and _is_plain(value))]
        left_out += [f"{name}.{key}" for key in odd]
        column.meta = {key: value for key, value in column.meta.items() if key not in odd}
        if not isinstance(column.format, str):  # a function, say
            column.format = None
    return left_out


def _is_plain(value: Any) -> bool:
    """Whether astropy can write some metadata of a column into comments."""
    import numpy as np  # noqa: PLC0415

    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, str | int | float | np.bool_ | np.integer | np.floating)


def _write(flat: Table, file: BinaryIO) -> None:
    import numpy as np  # noqa: PLC0415
    from astropy.io import fits  # noqa: PLC0415
    from astropy.units import UnitsWarning  # noqa: PLC0415

    ready = flat.copy(copy_data=False)
    logical = [name for name in flat.colnames if flat[name].dtype.kind == "b" and np.ma.is_masked(flat[name])]
    for name in flat.colnames:
        ready.replace_column(name, _with_null(flat[name]), copy=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # long keywords: better kept than refused
        warnings.simplefilter("ignore", UnitsWarning)  # so are units in an old spelling
        ready.write(file, format="fits")
        if not logical:
            return
        # What is missing in a logical column is a zero byte, which astropy does not write: the column was written as
        # one of bytes, and is now given its right name.
        head = io.BytesIO()
        ready[:0].write(head, format="fits")
    lines = list(fits.getheader(io.BytesIO(head.getvalue()), 1).cards)
    forms = {f"TFORM{ready.colnames.index(name) + 1}" for name in logical}
    for number, card in enumerate(lines):
        if card.keyword in forms:
            file.seek(BLOCK + LINE * number)
            file.write(fits.Card(card.keyword, card.value.replace("B", "L"), card.comment).image.encode("ascii"))
    file.seek(0, io.SEEK_END)


def _with_null(column: Any) -> Any:
    """A column in a type that FITS has, and with a number for what is missing that nothing else in it has."""
    import numpy as np  # noqa: PLC0415
    from astropy.table import Column, MaskedColumn  # noqa: PLC0415

    if 0 in column.shape[1:]:  # for which astropy (8.0) writes a TFORM of one element
        empty = np.empty(len(column), dtype=object)
        for row in range(len(column)):
            empty[row] = np.zeros(0)
        return Column(empty, unit=column.unit, description=column.description, meta=dict(column.meta))
    code = f"{column.dtype.kind}{column.dtype.itemsize}"
    if code in _WIDER:
        column = column.astype(_WIDER[code])
    if not isinstance(column, MaskedColumn):
        return column
    if not np.ma.is_masked(column):
        return column.filled()  # or else the number that astropy takes for what is missing could be one of them
    if column.dtype.kind == "b":
        letters = np.where(np.ma.getdata(column), ord("T"), ord("F")).astype("u1")
        letters[np.ma.getmaskarray(column)] = 0
        return Column(letters, description=column.description, meta=dict(column.meta))
    if column.dtype.kind in "iu":
        null = free_number(column)
        if code in _WIDER_MASKED or null is None:
            column = column.astype(_WIDER_MASKED.get(code, "i4"))
            null = free_number(column)
        column.fill_value = null
    return column


def read_fits_table(place: Path) -> Table:
    """
    Read the first table of a FITS file, with what is missing in its logical columns.

    Parameters
    ----------
    place : pathlib.Path
        The file.

    Returns
    -------
    astropy.table.Table
        The table.
    """
    import numpy as np  # noqa: PLC0415
    from astropy.io import fits  # noqa: PLC0415
    from astropy.table import MaskedColumn, Table  # noqa: PLC0415

    table = Table.read(place, format="fits")
    logical = [name for name in table.colnames if table[name].dtype.kind == "b"]
    if not logical:
        return table
    with fits.open(place, memmap=False) as hdus:
        first = next(hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU))
        raw = first.data.view(np.ndarray)
        for name in set(logical) & set(raw.dtype.names or ()):
            missing = raw[name] == 0
            if missing.any():
                column = table[name]
                masked = MaskedColumn(np.asarray(column), mask=missing, description=column.description)
                masked.meta.update(column.meta)
                table.replace_column(name, masked)
    return table
