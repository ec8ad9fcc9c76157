# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables as VOTables in BINARY2, quickly.

Astropy writes the document, field by field, for a table without rows; the rows, of which each is a set of bits that
say what is missing and then the values one behind the other, are made here, many at a time, by numpy. A million rows
take seconds and the memory of one portion. What is of no fixed size (objects, lists of lists) is left to astropy.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from .columns import flat_table, free_name, free_number, write_or_blame

if TYPE_CHECKING:
    import numpy as np
    from astropy.table import Table

__all__ = ["write_votable"]

#: Bytes of one portion of rows, about.
PORTION = 1024 * 1024

#: How numpy's kinds and sizes are called in VOTable, after `flat_table`.
_TYPES = {
    "b1": "boolean", "u1": "unsignedByte", "i2": "short", "i4": "int", "i8": "long",
    "f4": "float", "f8": "double", "c8": "floatComplex", "c16": "doubleComplex",
}  # fmt: skip
#: What VOTable does not have, and what it becomes.
_WIDER = {"i1": "i2", "u2": "i4", "u4": "i8"}
#: Characters that are beyond what UCS-2, and so a field of VOTable, has.
_FAR = re.compile("[^\0-\uffff]")


class _Part(NamedTuple):
    """One column: its bytes in a row, and how they are made for some rows."""

    dtype: Any
    make: Callable[[slice], np.ndarray]
    mask: np.ndarray | None
    #: What stands for a number that is missing in an array.
    null: int | None = None


def write_votable(table: Any, file: BinaryIO) -> None:
    """
    Write a table as a VOTable.

    Parameters
    ----------
    table : astropy.table.Table
        The table.
    file : binary file
        Where to.

    Raises
    ------
    SAMPTypeError
        VOTable cannot hold it; the text names the columns.
    """
    write_or_blame(flat_table(table), file, _write, "a VOTable")


def _write(flat: Table, file: BinaryIO) -> None:
    from astropy.io.votable import from_table  # noqa: PLC0415
    from astropy.io.votable.exceptions import VOWarning  # noqa: PLC0415
    from astropy.table import Table  # noqa: PLC0415
    from astropy.units import UnitsWarning  # noqa: PLC0415

    flat = _with_votable_types(flat.copy(copy_data=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VOWarning)  # units and names that the standard does not know: better kept
        warnings.simplefilter("ignore", UnitsWarning)  # as of Angstrom, which it does not like any more
        parts = [_part(flat[name]) for name in flat.colnames]
        if None in parts:
            _leave_to_astropy(flat, parts, file)
            return
        document = from_table(Table(flat[:0], copy=False))
        _add_params(document, flat.meta)
        element = document.get_first_table()
        for field, name, part in zip(element.fields, flat.colnames, parts, strict=True):
            field.datatype, field.arraysize = _type(flat[name])
            field.values.null = part.null if part is not None else None
        text = io.BytesIO()
        document.to_xml(text)
    if not parts:
        file.write(text.getvalue())
        return
    head, end, tail = text.getvalue().rpartition(b"</TABLE>")
    file.write(head)
    file.write(b'<DATA><BINARY2><STREAM encoding="base64">\n')
    file.writelines(_portions([part for part in parts if part is not None], len(flat)))
    file.write(b"</STREAM></BINARY2></DATA>\n" + end + tail)


def _leave_to_astropy(flat: Table, parts: list[_Part | None], file: BinaryIO) -> None:
    """Write a table with arrays of various lengths, or with texts of very different ones."""
    import numpy as np  # noqa: PLC0415
    from astropy.io.votable import from_table  # noqa: PLC0415
    from astropy.table import MaskedColumn  # noqa: PLC0415

    for name, part in zip(flat.colnames, parts, strict=True):
        column = flat[name]
        if column.dtype.kind == "O":
            changed = column.copy()
            changed[:] = [np.ma.array(cell, mask=False) if isinstance(cell, np.ndarray) else cell for cell in column]
        else:  # only what stands where nothing should, and characters for which astropy's fields have no room
            values = np.asarray(np.ma.getdata(column))
            holes = np.ma.getmaskarray(column)
            values = _shown(values, slice(None), holes, _blank(column, part.null if part is not None else None))
            if column.dtype.kind == "U" and not _is_ascii(values):
                values = np.array([_FAR.sub("?", text) for text in values], dtype=values.dtype)
            about = {"unit": column.unit, "description": column.description, "meta": dict(column.meta)}
            changed = MaskedColumn(values, mask=holes, **about) if holes.any() else type(column)(values, **about)
        flat.replace_column(name, changed, copy=False)
    document = from_table(flat)
    for field, part in zip(document.get_first_table().fields, parts, strict=True):
        field.values.null = part.null if part is not None else None
    _add_params(document, flat.meta)
    document.to_xml(file, tabledata_format="binary2")


def _add_params(document: Any, meta: dict[str, Any]) -> None:
    """Write what the table's metadata says, as far as it is plain, as PARAM elements."""
    import numpy as np  # noqa: PLC0415
    from astropy.io.votable.tree import Param  # noqa: PLC0415

    element = document.get_first_table()
    for key, given in meta.items():
        value = given.item() if isinstance(given, np.generic) else given
        if key in {"ID", "name", "ref", "ucd", "utype", "description"} or not isinstance(key, str):
            continue
        if isinstance(value, bool):
            kind: dict[str, Any] = {"datatype": "boolean", "value": value}
        elif isinstance(value, int) and abs(value) < 2**63:
            kind = {"datatype": "long", "value": value}
        elif isinstance(value, float):
            kind = {"datatype": "double", "value": value}
        elif isinstance(value, str):
            kind = {"datatype": "char" if value.isascii() else "unicodeChar", "arraysize": "*", "value": value}
        else:
            continue
        element.params.append(Param(document, name=key, **kind))


def _with_votable_types(table: Table) -> Table:
    """Widen the types that VOTable does not have; dates become strings."""
    import numpy as np  # noqa: PLC0415

    for name in list(table.colnames):
        column = table[name]
        code = column.dtype.kind + str(column.dtype.itemsize)
        if column.dtype.kind in "US" and column.ndim > 1:
            _split(table, name)
            continue
        if code in _WIDER:
            column = column.astype(_WIDER[code])
        elif code == "u8":
            fits = len(column) == 0 or int(np.ma.max(column.filled(0) if np.ma.isMA(column) else column)) < 2**63
            column = column.astype("i8" if fits else "U20")
        if column.dtype.kind in "iu" and _is_partly_missing(column) and free_number(column) is None:
            column = column.astype("i4")
        if column is not table[name]:
            table.replace_column(name, column, copy=False)
    return table


def _is_partly_missing(column: Any) -> bool:
    """Whether elements of arrays are missing, for which a number has to stand."""
    import numpy as np  # noqa: PLC0415

    return column.ndim > 1 and np.ma.is_masked(column)


def _split(table: Table, name: str) -> None:
    """Make a column of each element of an array of strings: hardly anybody reads such arrays, astropy neither."""
    column = table[name]
    place = table.colnames.index(name)
    table.remove_column(name)
    flat = column.reshape(len(column), -1)
    for number in range(flat.shape[1]):
        table.add_column(flat[:, number], name=free_name(table, table, f"{name}_{number + 1}"), index=place + number)


def _is_ascii(values: np.ndarray) -> bool:
    import numpy as np  # noqa: PLC0415

    points = np.ascontiguousarray(values).view("u4") if values.dtype.itemsize else np.zeros(0)
    return not points.size or int(points.max()) < 128


def _type(column: Any) -> tuple[str, str | None]:
    """The datatype and arraysize of a column's field."""
    import numpy as np  # noqa: PLC0415

    if column.dtype.kind in "US":
        characters = max(1, column.dtype.itemsize // (4 if column.dtype.kind == "U" else 1))
        is_plain = column.dtype.kind == "S" or _is_ascii(np.asarray(np.ma.getdata(column)))
        return "char" if is_plain else "unicodeChar", str(characters)
    sizes = [str(size) for size in reversed(column.shape[1:])]
    return _TYPES[f"{column.dtype.kind}{column.dtype.itemsize}"], "x".join(sizes) or None


def _part(column: Any) -> _Part | None:
    import numpy as np  # noqa: PLC0415

    kind, size, shape = column.dtype.kind, column.dtype.itemsize, column.shape[1:]
    if 0 in shape or (kind not in "US" and f"{kind}{size}" not in _TYPES):
        return None
    values = np.asarray(np.ma.getdata(column))
    holes = np.ma.getmaskarray(column) if np.ma.is_masked(column) else None
    mask = None if holes is None else np.asarray(holes.reshape(len(column), -1).all(axis=1))
    if kind in "US":
        values = values if size else values.astype(f"{kind}1")
        length = values.dtype.itemsize // (4 if kind == "U" else 1)
        if kind == "S" or _is_ascii(values):
            plain = np.dtype(f"S{length}")
            return _Part(plain, lambda rows: _shown(values, rows, holes, values.dtype.type()).astype(plain), mask)
        return _Part(np.dtype((">u2", (length,))), lambda rows: _utf16(_shown(values, rows, holes, ""), length), mask)
    if kind == "b":
        return _Part(np.dtype(("u1", shape)), lambda rows: _logical(values[rows], holes, rows), mask)
    big = np.dtype((values.dtype.newbyteorder(">"), shape))
    null = free_number(column) if kind in "iu" and _is_partly_missing(column) else None
    blank = _blank(column, null)
    return _Part(big, lambda rows: _shown(values, rows, holes, blank), mask, null)


def _blank(column: Any, null: int | None) -> Any:
    """What stands where something is missing."""
    if column.dtype.kind in "fc":
        return float("nan")
    return column.dtype.type() if null is None else null


def _shown(values: np.ndarray, rows: slice, holes: np.ndarray | None, blank: Any) -> np.ndarray:
    """Some rows; where something is missing, nothing tells what was there."""
    if holes is None:
        return values[rows]
    shown = values[rows].copy()
    shown[holes[rows]] = blank
    return shown


def _logical(values: np.ndarray, holes: np.ndarray | None, rows: slice) -> np.ndarray:
    import numpy as np  # noqa: PLC0415

    letters = np.where(values, np.uint8(ord("T")), np.uint8(ord("F")))
    if holes is not None:
        letters[holes[rows]] = ord("?")
    return letters


def _utf16(values: np.ndarray, length: int) -> np.ndarray:
    """The characters as two bytes each; those beyond that become question marks, as in any VOTable."""
    import numpy as np  # noqa: PLC0415

    points = np.ascontiguousarray(values).view("u4").reshape(*values.shape, length)
    return np.where(points > 0xFFFF, ord("?"), points).astype(">u2")


def _portions(parts: list[_Part], rows: int) -> Iterator[bytes]:
    """Write the rows in base64, some at a time."""
    import numpy as np  # noqa: PLC0415

    flags = (len(parts) + 7) // 8
    layout = [("flags", "u1", (flags,)), *((f"c{i}", part.dtype) for i, part in enumerate(parts))]
    row = np.dtype(layout)
    step = max(1, PORTION // row.itemsize)
    rest = b""
    for start in range(0, rows, step):
        which = slice(start, min(rows, start + step))
        block = np.zeros(which.stop - which.start, dtype=row)
        for index, part in enumerate(parts):
            block[f"c{index}"] = part.make(which)
            if part.mask is not None:  # the first column is the highest bit of the first byte
                block["flags"][:, index // 8] |= part.mask[which].astype("u1") << np.uint8(7 - index % 8)
        data = rest + block.tobytes()
        whole = len(data) - len(data) % 57  # lines of 76 letters, as everybody writes them
        rest = data[whole:]
        yield base64.encodebytes(data[:whole])
    yield base64.encodebytes(rest)
