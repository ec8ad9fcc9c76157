# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables in columns of plain numbers and texts, which any format can hold.

What is no such column, be it a position, a time, a record or a list of objects, becomes one or several. What is
missing stays missing, and its place is empty: nobody shall read there what the program has masked.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from astropy.table import Column, MaskedColumn, Table
from astropy.table.serialize import represent_mixins_as_columns
from astropy.units import StructuredUnit

from ..errors import SAMPTypeError, SAMPWarning, warn
from .model import decode_text, isinstance_by_name, safe_getattr

__all__ = ["WIDER_INTEGERS", "flatten_columns", "unused_name", "unused_value", "write_with_column_errors"]

#: What a position has beside its place on the sky: names, units in which they are sent, and UCDs.
_MOTIONS = {
    "pm_ra_cosdec": ("mas / yr", "pos.pm;pos.eq.ra"),
    "pm_dec": ("mas / yr", "pos.pm;pos.eq.dec"),
    "radial_velocity": ("km / s", "spect.dopplerVeloc"),
}
#: The types of floats that other programs do not have, and what they become.
_FLOATS = {"f2": "f4", "f12": "f8", "f16": "f8", "c24": "c16", "c32": "c16"}
#: Integer types that VOTable does not have, and the types that hold their values.
WIDER_INTEGERS = {"i1": "i2", "u2": "i4", "u4": "i8"}
#: Characters that end a text in every format, or that no encoding has.
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
#: Rows of a column of texts that are checked at a time.
CHECKED_ROWS = 65536


def flatten_columns(table: Any) -> Table:
    """
    Bring a table into columns that any format can hold.

    Quantities become columns with a unit, positions two columns in degrees (ICRS) and others for what else they have,
    times ISO strings (UTC), differences of times numbers; objects become numbers or texts, and records and other
    mixtures are taken apart. Units, descriptions and metadata stay.

    Parameters
    ----------
    table : astropy.table.Table
        Any table; it is not modified.

    Returns
    -------
    astropy.table.Table
        A table that shares its data with the other where it can.

    Raises
    ------
    SAMPTypeError
        No format can hold it; the text names the columns.

    Warns
    -----
    SAMPWarning
        Characters of a text are replaced, or bytes are decoded by a guess.
    """
    flat = Table(meta=dict(table.meta))
    odd = []
    for name in table.colnames:
        try:
            for part, column in _plain(name, table[name]):
                if not part.strip():
                    part = f"col{len(flat.colnames) + 1}"  # noqa: PLW2901 - a column needs some name
                    warn(f"A column has the name {name!r}; it is sent as {part!r}")
                flat.add_column(column, name=part if part == name else unused_name(flat, table, part), copy=False)
        except SAMPWarning:  # for the program that makes errors of warnings
            raise
        except Exception as error:  # of classes of any library
            odd.append(f"{name} ({error})")
    if odd:
        raise SAMPTypeError(f"The table cannot be sent. What no format can hold is in: {', '.join(odd)}")
    return flat


def unused_name(flat: Table, table: Any, name: str) -> str:
    """The name, or one like it that no column of two tables has."""
    while name in flat.colnames or name in table.colnames:
        name += "_"
    return name


def unused_value(column: Any) -> int | None:
    """A number that no element of a column of integers has, to stand for what is missing; None if it has them all."""
    values = np.unique(np.ma.getdata(column)[~np.ma.getmaskarray(column)])
    limits = np.iinfo(column.dtype)
    if not len(values) or values[0] > limits.min:
        return int(limits.min)
    if values[-1] < limits.max:
        return int(limits.max)
    gaps = np.flatnonzero(values[1:] != values[:-1] + 1)
    return int(values[gaps[0]]) + 1 if len(gaps) else None


def write_with_column_errors(
    table: Table, file: BinaryIO, write: Callable[[Table, BinaryIO], object], format_name: str
) -> None:
    """
    Write a table; the error of one that cannot be written names the columns that are in the way.

    Parameters
    ----------
    table : astropy.table.Table
        A flat table.
    file : binary file
        Where to.
    write : callable
        Writes it.
    format_name : str
        What it is then.
    """
    try:
        write(table, file)
    except Exception as error:
        if _is_os_error(error) or isinstance(error, SAMPWarning):
            raise
        reasons = ((name, _failure(table, name, write)) for name in table.colnames)
        odd = [f"{name} ({reason})" for name, reason in reasons if reason is not None]
        what = f"What that cannot hold is in: {', '.join(odd)}" if odd else str(error)
        raise SAMPTypeError(f"The table cannot be written as {format_name}. {what}") from error


def _failure(table: Table, name: str, write: Callable[[Table, BinaryIO], object]) -> Exception | None:
    """The error of a column that cannot be written even alone."""
    alone = table[[name]]
    alone.meta.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            write(alone, io.BytesIO())
        except Exception as error:
            return error
    return None


def _is_os_error(error: BaseException | None) -> bool:
    """Whether an error, or the one in whose handling it came up, is one of the file."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error is not None


# One column


def _plain(name: str, column: Any) -> Iterator[tuple[str, Column]]:
    """The plain columns that one column becomes, with their names."""
    if isinstance(column, Column):
        yield from _of_column(name, column.copy(copy_data=False))
    elif isinstance_by_name(column, "astropy.coordinates", "SkyCoord"):
        yield from _of_position(name, column)
    elif isinstance_by_name(column, "astropy.time", "Time"):
        yield name, _of_time(column)
    elif isinstance_by_name(column, "astropy.time", "TimeDelta"):
        unit = "s" if column.format == "sec" else "d"
        yield name, _of_numbers(column.to_value(unit), unit, description=column.info.description)
    elif hasattr(column, "unit") and hasattr(column, "value"):
        yield from _of_column(name, Table([column], names=[name])[name])
    else:
        for part in represent_mixins_as_columns(Table([column], names=[name])).columns.values():
            yield from _of_column(part.name, part)


def _of_column(name: str, column: Any) -> Iterator[tuple[str, Column]]:
    kind, code = column.dtype.kind, f"{column.dtype.kind}{column.dtype.itemsize}"
    if column.dtype.names is not None:
        values, missing = np.asarray(np.ma.getdata(column)), np.ma.getmaskarray(column)
        for field in column.dtype.names:
            unit = column.unit[field] if isinstance(column.unit, StructuredUnit) else column.unit
            part = _of_numbers(np.ma.array(values[field], mask=missing[field]), unit)
            yield from _of_column(f"{name}.{field}", part)
    elif kind == "O":
        plain = _of_objects(name, column)
        yield name, _with_plain_texts(name, plain) if plain.dtype.kind in "US" else plain
    elif kind in "US":
        yield name, _with_plain_texts(name, column)
    elif kind == "M":
        yield name, _copy_meta(column, column.astype("U32"), _nat_mask(column))
    elif kind == "m":
        seconds = _copy_meta(column, column.astype("m8[ns]").astype("i8") / 1e9, _nat_mask(column))
        seconds.unit = "s"
        yield name, seconds
    elif code in _FLOATS:
        yield name, column.astype(_FLOATS[code])
    else:
        yield name, column


def _nat_mask(column: Any) -> np.ndarray:
    """Where dates are missing, of which numpy has its own way."""
    return np.asarray(np.isnat(np.ma.getdata(column)) | np.ma.getmaskarray(column))


def _of_position(name: str, column: Any) -> Iterator[tuple[str, Column]]:
    from astropy.coordinates import UnitSphericalRepresentation  # noqa: PLC0415

    icrs = column.icrs
    whence = column.frame.name
    note = column.info.description or (f"ICRS, from {whence}" if whence != "icrs" else None)
    for axis in ("ra", "dec"):
        yield f"{name}.{axis}", _of_numbers(getattr(icrs, axis).to_value("deg"), "deg", f"pos.eq.{axis}", note)
    if not isinstance(icrs.data, UnitSphericalRepresentation):
        unit = icrs.distance.unit
        yield f"{name}.distance", _of_numbers(icrs.distance.to_value(unit), unit, "pos.distance", note)
    for key, (unit, ucd) in _MOTIONS.items() if "s" in column.data.differentials else ():
        value = safe_getattr(icrs, key)
        if value is not None and value.unit.is_equivalent(unit):  # or it is none, of a motion without a distance
            yield f"{name}.{key}", _of_numbers(value.to_value(unit), unit, ucd, note)


def _of_time(column: Any) -> Column:
    times = column.copy() if column.scale == "local" else column.utc  # whose place is anybody's guess
    times.precision = 9
    # astropy makes numbers of no times
    texts = np.asarray(getattr(times.isot, "unmasked", times.isot)).astype(np.str_, copy=False)
    shown = texts[~np.asarray(column.mask)]
    for zeros in ("000000", "000"):
        if np.char.endswith(shown, zeros).all():
            texts = texts.astype(f"U{len('2000-01-01T00:00:00.000000000') - len(zeros)}")
            break
    changed = MaskedColumn(texts, mask=column.mask, description=column.info.description)
    changed.meta["xtype"] = "timestamp"
    return changed


def _of_numbers(values: Any, unit: Any, ucd: str = "", description: str | None = None) -> Column:
    mask = getattr(values, "mask", None)
    meta = {"ucd": ucd} if ucd else {}
    if mask is None or not np.any(mask):
        return Column(np.asarray(values), unit=unit, description=description, meta=meta)
    values = np.asarray(getattr(values, "unmasked", np.ma.getdata(values)))
    return MaskedColumn(values, mask=mask, unit=unit, description=description, meta=meta)


def _copy_meta(column: Any, values: Any, missing: np.ndarray) -> Any:
    """A column of other values that has the unit, the description and the metadata of one."""
    about: dict[str, Any] = {"unit": column.unit, "description": column.description, "meta": dict(column.meta)}
    values = np.asarray(np.ma.getdata(values))
    return MaskedColumn(values, mask=missing, **about) if missing.any() else Column(values, **about)


# Texts


def _with_plain_texts(name: str, column: Any) -> Any:
    """Decode bytes beyond ASCII, and replace what no format can hold in a text."""
    values = np.asarray(np.ma.getdata(column))
    if not values.dtype.isnative:
        column = column.astype(values.dtype.newbyteorder("="))
        values = np.asarray(np.ma.getdata(column))
    starts = range(0, len(values), CHECKED_ROWS)
    if not any(_has_odd_texts(values[start : start + CHECKED_ROWS]) for start in starts):
        return column
    missing = np.ma.getmaskarray(column)
    cells = [b"" if hole else cell for cell, hole in zip(values.flat, missing.flat, strict=True)]
    decoded = [decode_text(cell) if isinstance(cell, bytes) else (cell, True) for cell in cells]
    if not all(is_utf8 for _, is_utf8 in decoded):
        warn(f"The column {name!r} has bytes that are neither ASCII nor UTF-8: they are sent as Latin-1")
    texts = _written_texts(name, [text for text, _ in decoded])
    return _copy_meta(column, np.array(texts, dtype=np.str_).reshape(values.shape), missing)


def _has_odd_texts(values: np.ndarray) -> bool:
    """Whether some texts or bytes need to be changed before they can be written."""
    is_text = values.dtype.kind == "U"
    length = values.dtype.itemsize // (4 if is_text else 1)
    if not length or not values.size:
        return False
    points = np.ascontiguousarray(values).view("u4" if is_text else "u1").reshape(-1, length)
    highest = int(points.max())
    if not is_text and highest > 127:
        return True
    if highest >= 0xD800 and bool(((points >= 0xD800) & (points < 0xE000)).any()):
        return True
    return bool(((points[:, :-1] == 0) & (points[:, 1:] != 0)).any())


def _written_texts(name: str, texts: list[str]) -> list[str]:
    """Replace NUL, at which readers end a text, and lone surrogates, which no encoding has."""
    changed = [_UNWRITABLE.sub("?", text) for text in texts]
    if changed != texts:
        warn(f"The column {name!r} has NUL characters or lone surrogates: '?' is sent instead of each")
    return changed


# Columns of objects


def _of_objects(name: str, column: Any) -> Any:
    """A column of numbers or texts where the objects are all the like; one of arrays if they are arrays."""
    missing = np.array([_is_missing(value) for value in column], dtype=bool).reshape(column.shape)
    missing |= np.ma.getmaskarray(column)
    present = list(np.ma.getdata(column)[~missing])
    if all(isinstance(value, str) for value in present):
        return _of_texts(name, column, missing)
    if all(isinstance(value, list | tuple | np.ndarray) for value in present):
        return _of_arrays(column, missing)
    for kinds in ((bytes,), (bool, np.bool_), (int, float, complex, np.number)):
        if all(isinstance(value, kinds) for value in present):
            values = np.array(present)
            if values.dtype.kind == "O":
                raise SAMPTypeError("integers of more than 64 bits")
            filled = np.zeros(column.shape, dtype=values.dtype)
            filled[~missing] = values
            return _copy_meta(column, filled, missing)
    names = sorted({type(value).__name__ for value in present})
    raise SAMPTypeError(f"objects of type {' and '.join(names)}; a column needs numbers, texts or arrays of one kind")


def _is_missing(value: Any) -> bool:
    return value is None or value is np.ma.masked or type(value).__name__ in {"NAType", "NaTType"}


def _of_texts(name: str, column: Any, missing: np.ndarray) -> Any:
    """A column of strings of a fixed length, or of objects still where one is much longer than the others."""
    written = _written_texts(name, list(np.where(missing, "", np.ma.getdata(column)).flat))
    texts = np.fromiter(written, dtype=object, count=len(written)).reshape(column.shape)
    lengths = [len(text) for text in texts.flat]
    if sum(lengths) * 4 + 4096 < max(lengths, default=0) * len(lengths):
        return _copy_meta(column, texts, missing)
    return _copy_meta(column, texts.astype(np.str_), missing)


def _of_arrays(column: Any, missing: np.ndarray) -> Any:
    """A column of arrays of various lengths, all of one type, in which NaN is what is missing."""
    cells: list[Any] = [np.ma.asarray([] if none else cell) for cell, none in zip(column, missing, strict=True)]
    dtype = np.result_type(*({cell.dtype for cell in cells if cell.size} or {np.dtype("f8")}))
    if dtype.kind not in "biufc":
        raise SAMPTypeError(f"arrays of {'strings' if dtype.kind in 'US' else dtype}")
    code = f"{dtype.kind}{dtype.itemsize}"
    dtype = np.dtype({**_FLOATS, **WIDER_INTEGERS}.get(code, code))
    if code == "u8":
        if any(cell.size and int(cell.max()) >= 2**63 for cell in cells):
            raise SAMPTypeError("integers of more than 63 bits in arrays of various lengths")
        dtype = np.dtype("i8")
    if any(np.ma.is_masked(cell) for cell in cells):
        dtype = dtype if dtype.kind in "fc" else np.dtype("f8")
        cells = [np.ma.filled(cell.astype(dtype), np.nan) for cell in cells]
    if any(cell.ndim > 1 for cell in cells):
        if missing.any() or len({cell.shape for cell in cells}) > 1:
            raise SAMPTypeError("arrays of several dimensions and various sizes")
        return _copy_meta(column, np.stack([np.asarray(cell, dtype=dtype) for cell in cells]), missing)
    changed = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        changed[row] = np.atleast_1d(np.asarray(cell, dtype=dtype)) if cell.size else np.zeros(0, dtype)
    return _copy_meta(column, changed, np.zeros(len(cells), dtype=bool))
