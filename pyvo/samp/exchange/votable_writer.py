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
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..errors import SAMPTypeError

if TYPE_CHECKING:
    import numpy as np
    from astropy.table import Table

__all__ = ["flat_table", "write_votable"]

#: Bytes of one portion of rows, about.
PORTION = 1024 * 1024

#: How numpy's kinds and sizes are called in VOTable, after `flat_table`.
_TYPES = {
    "b1": "boolean", "u1": "unsignedByte", "i2": "short", "i4": "int", "i8": "long",
    "f4": "float", "f8": "double", "c8": "floatComplex", "c16": "doubleComplex",
}  # fmt: skip
#: What VOTable does not have, and what it becomes.
_WIDER = {"i1": "i2", "u2": "i4", "u4": "i8", "f2": "f4"}


def flat_table(table: Any) -> Table:
    """
    Bring a table into columns that any format can hold.

    Quantities become columns with a unit, positions two columns in degrees, times ISO strings; other mixtures are
    taken apart by astropy. Units, descriptions and metadata stay.

    Parameters
    ----------
    table : astropy.table.Table
        Any table; it is not modified.

    Returns
    -------
    astropy.table.Table
        A table that shares its data with the other where it can.
    """
    from astropy.coordinates import SkyCoord  # noqa: PLC0415
    from astropy.table import Column, MaskedColumn, Table  # noqa: PLC0415
    from astropy.table.serialize import represent_mixins_as_columns  # noqa: PLC0415
    from astropy.time import Time  # noqa: PLC0415

    flat = Table(meta=dict(table.meta))
    for name in table.colnames:
        column = table[name]
        if isinstance(column, Column | MaskedColumn):
            flat.add_column(column, name=name, copy=False)
        elif isinstance(column, SkyCoord):
            for axis, values in zip(("ra", "dec"), (column.icrs.ra.deg, column.icrs.dec.deg), strict=True):
                meta = {"ucd": f"pos.eq.{axis}"}
                flat.add_column(Column(values, unit="deg", meta=meta), name=_free(flat, table, f"{name}.{axis}"))
        elif isinstance(column, Time):
            values = MaskedColumn(column.utc.isot, mask=column.mask, description=column.info.description)
            values.meta["xtype"] = "timestamp"
            flat.add_column(values, name=name)
        elif hasattr(column, "unit") and hasattr(column, "value"):
            one = Table([column], names=[name])
            flat.add_column(one[name], copy=False)
        else:
            for part in represent_mixins_as_columns(Table([column], names=[name])).columns.values():
                flat.add_column(part, copy=False)
    return flat


def _free(flat: Table, table: Any, name: str) -> str:
    while name in flat.colnames or name in table.colnames:
        name += "_"
    return name


class _Part(NamedTuple):
    """One column: its bytes in a row, and how they are made for some rows."""

    dtype: Any
    make: Callable[[slice], np.ndarray]
    mask: np.ndarray | None


def write_votable(table: Any, file: BinaryIO) -> None:
    """
    Write a table as a VOTable.

    Parameters
    ----------
    table : astropy.table.Table
        The table.
    file : binary file
        Where to.
    """
    from astropy.io.votable import from_table  # noqa: PLC0415
    from astropy.io.votable.exceptions import VOWarning  # noqa: PLC0415
    from astropy.table import Table  # noqa: PLC0415
    from astropy.units import UnitsWarning  # noqa: PLC0415

    flat = _with_votable_types(flat_table(table))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VOWarning)  # units and names that the standard does not know: better kept
        warnings.simplefilter("ignore", UnitsWarning)  # as of Angstrom, which it does not like any more
        parts = [_part(flat[name]) for name in flat.colnames]
        if None in parts:
            _leave_to_astropy(flat, file)
            return
        document = from_table(Table(flat[:0], copy=False))
        _add_params(document, flat.meta)
        element = document.get_first_table()
        for field, name in zip(element.fields, flat.colnames, strict=True):
            field.datatype, field.arraysize = _type(flat[name])
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


def _leave_to_astropy(flat: Table, file: BinaryIO) -> None:
    import numpy as np  # noqa: PLC0415
    from astropy.io.votable import from_table  # noqa: PLC0415

    for name in flat.colnames:
        if flat[name].dtype.kind == "O":
            column = flat[name].copy()
            column[:] = [_with_mask(value) if isinstance(value, np.ndarray) else value for value in column]
            flat.replace_column(name, column)
    try:
        document = from_table(flat)
        _add_params(document, flat.meta)
        document.to_xml(file, tabledata_format="binary2")
    except (TypeError, ValueError, AttributeError) as error:
        objects = [name for name in flat.colnames if flat[name].dtype.kind not in "biufcUSM"]
        raise SAMPTypeError(
            f"The table cannot be written as a VOTable. What no format can hold is in: {', '.join(objects)} ({error})"
        ) from error


def _with_mask(values: np.ndarray) -> Any:
    """As astropy's writer wants arrays of various lengths."""
    import numpy as np  # noqa: PLC0415

    return np.ma.array(values, mask=np.ma.getmaskarray(values))


def _add_params(document: Any, meta: dict[str, Any]) -> None:
    """Write what the table's metadata says, as far as it is plain, as PARAM elements."""
    from astropy.io.votable.tree import Param  # noqa: PLC0415

    element = document.get_first_table()
    for key, value in meta.items():
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
            changed = column.astype(_WIDER[code])
        elif code == "u8":
            fits = len(column) == 0 or int(np.ma.max(column.filled(0) if np.ma.isMA(column) else column)) < 2**63
            changed = column.astype("i8" if fits else "U20")
        elif column.dtype.kind == "M":
            changed = column.astype("U32")
        elif code in {"f16", "f12"}:
            changed = column.astype("f8")
        elif column.dtype.kind == "O":
            changed = _as_text(column)
        else:
            continue
        table.replace_column(name, changed)
    return table


def _split(table: Table, name: str) -> None:
    """Make a column of each element of an array of strings: hardly anybody reads such arrays, astropy neither."""
    column = table[name]
    place = table.colnames.index(name)
    table.remove_column(name)
    flat = column.reshape(len(column), -1)
    for number in range(flat.shape[1]):
        table.add_column(flat[:, number], name=_free(table, table, f"{name}_{number + 1}"), index=place + number)


def _as_text(column: Any) -> Any:
    """A column of str objects as one of strings of a fixed length; any other as it is."""
    import numpy as np  # noqa: PLC0415

    missing = np.array([value is None or value is np.ma.masked for value in column], dtype=bool)
    if not all(isinstance(value, str) for value, none in zip(column, missing, strict=True) if not none):
        return column
    from astropy.table import MaskedColumn  # noqa: PLC0415

    texts = ["" if none else str(value) for value, none in zip(column, missing, strict=True)]
    if sum(map(len, texts)) * 4 + 4096 < max(map(len, texts), default=0) * len(texts):
        return column  # one long text among many short ones
    mask = missing | np.ma.getmaskarray(column)
    changed = MaskedColumn(np.array(texts, dtype=np.str_), mask=mask, unit=column.unit, description=column.description)
    changed.meta.update(column.meta)
    return changed


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
    missing = np.ma.getmaskarray(column) if np.ma.is_masked(column) else None
    mask = None if missing is None else np.asarray(missing.reshape(len(column), -1).all(axis=1))
    holes = missing if missing is not None and shape else None
    if kind == "U":
        values = values if size else values.astype("U1")
        length = values.dtype.itemsize // 4
        if _is_ascii(values):
            return _Part(np.dtype(f"S{length}"), lambda rows: values[rows].astype(f"S{length}"), mask)
        return _Part(np.dtype((">u2", (length,))), lambda rows: _utf16(values[rows], length), mask)
    if kind == "S":
        values = values if size else values.astype("S1")
        return _Part(values.dtype, lambda rows: values[rows], mask)
    if kind == "b":
        return _Part(np.dtype(("u1", shape)), lambda rows: _logical(values[rows], holes, rows), mask)
    big = np.dtype((values.dtype.newbyteorder(">"), shape))
    return _Part(big, lambda rows: _with_nan(values[rows], holes, rows), mask)


def _logical(values: np.ndarray, holes: np.ndarray | None, rows: slice) -> np.ndarray:
    import numpy as np  # noqa: PLC0415

    letters = np.where(values, np.uint8(ord("T")), np.uint8(ord("F")))
    if holes is not None:
        letters[holes[rows]] = ord("?")
    return letters


def _with_nan(values: np.ndarray, holes: np.ndarray | None, rows: slice) -> np.ndarray:
    """Only a whole array can be missing in VOTable; a float within one is written as NaN."""
    if holes is None or values.dtype.kind not in "fc":
        return values
    values = values.copy()
    values[holes[rows]] = float("nan")
    return values


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
