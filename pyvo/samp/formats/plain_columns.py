# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Convert tables to columns of plain numbers and texts, which all formats support.

A column of positions, times, records or objects becomes one or several plain columns. Masked values stay masked, and
the data below the mask are overwritten, so that they are not disclosed.
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

#: Attributes of a position in addition to its coordinates, with their units and UCDs.
_MOTIONS = {
    "pm_ra_cosdec": ("mas / yr", "pos.pm;pos.eq.ra"),
    "pm_dec": ("mas / yr", "pos.pm;pos.eq.dec"),
    "radial_velocity": ("km / s", "spect.dopplerVeloc"),
}
#: Float types that other programs do not have, and the types that replace them.
_FLOATS = {"f2": "f4", "f12": "f8", "f16": "f8", "c24": "c16", "c32": "c16"}
#: Integer types that VOTable does not have, and the types that hold their values.
WIDER_INTEGERS = {"i1": "i2", "u2": "i4", "u4": "i8"}
#: NUL, which ends a text in all formats, and lone surrogates, which no encoding can represent.
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
#: Number of rows of texts that are checked at a time.
CHECKED_ROWS = 65536


def flatten_columns(table: Any) -> Table:
    """
    Convert a table to columns that all formats support.

    Quantities become columns with a unit. Positions become two columns in degrees (ICRS), and further columns for
    distances and motions. Times become ISO strings (UTC), and time differences become numbers. Objects become numbers
    or texts. Records and other compound columns become one column for each part. Units, descriptions and metadata are
    kept.

    Parameters
    ----------
    table : astropy.table.Table
        The table; it is not modified.

    Returns
    -------
    astropy.table.Table
        A new table. It shares data with the given one where possible.

    Raises
    ------
    SAMPTypeError
        No format supports some of the columns. The text names them.

    Warns
    -----
    SAMPWarning
        Characters are replaced, or the encoding of bytes is guessed.
    """
    flat = Table(meta=dict(table.meta))
    unsupported = []
    for name in table.colnames:
        try:
            for part, column in _flatten(name, table[name]):
                if not part.strip():
                    part = f"col{len(flat.colnames) + 1}"  # noqa: PLW2901 - a column needs some name
                    warn(f"A column has the name {name!r}; it is sent as {part!r}")
                flat.add_column(column, name=part if part == name else unused_name(flat, table, part), copy=False)
        except SAMPWarning:  # the program turns warnings into errors
            raise
        except Exception as error:  # any library may have defined the column's class
            unsupported.append(f"{name} ({error})")
    if unsupported:
        raise SAMPTypeError(f"The table cannot be sent. No format supports these columns: {', '.join(unsupported)}")
    return flat


def unused_name(flat: Table, table: Any, name: str) -> str:
    """Return the name, with underscores appended until neither table has a column of this name."""
    while name in flat.colnames or name in table.colnames:
        name += "_"
    return name


def unused_value(column: Any) -> int | None:
    """Return a number for missing values that does not occur in a column of integers; None if all numbers occur."""
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
    """Write a flat table with `write`. If this fails, raise an error that names the columns that cannot be written."""
    try:
        write(table, file)
    except Exception as error:
        if _is_os_error(error) or isinstance(error, SAMPWarning):
            raise
        reasons = ((name, _failure(table, name, write)) for name in table.colnames)
        unsupported = [f"{name} ({reason})" for name, reason in reasons if reason is not None]
        reason = f"It does not support these columns: {', '.join(unsupported)}" if unsupported else str(error)
        raise SAMPTypeError(f"The table cannot be written as {format_name}. {reason}") from error


def _failure(table: Table, name: str, write: Callable[[Table, BinaryIO], object]) -> Exception | None:
    """Return the error that is raised when a column is written alone; None if it can be written."""
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
    """Return whether an error, or another one in its context, is an OSError."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error is not None


# One column


def _flatten(name: str, column: Any) -> Iterator[tuple[str, Column]]:
    """Yield the plain columns, with their names, that replace a column."""
    if isinstance(column, Column):
        yield from _flatten_column(name, column.copy(copy_data=False))
    elif isinstance_by_name(column, "astropy.coordinates", "SkyCoord"):
        yield from _flatten_position(name, column)
    elif isinstance_by_name(column, "astropy.time", "Time"):
        yield name, _flatten_time(column)
    elif isinstance_by_name(column, "astropy.time", "TimeDelta"):
        unit = "s" if column.format == "sec" else "d"
        yield name, _number_column(column.to_value(unit), unit, description=column.info.description)
    elif hasattr(column, "unit") and hasattr(column, "value"):
        yield from _flatten_column(name, Table([column], names=[name])[name])
    else:
        for part in represent_mixins_as_columns(Table([column], names=[name])).columns.values():
            yield from _flatten_column(part.name, part)


def _flatten_column(name: str, column: Any) -> Iterator[tuple[str, Column]]:
    kind, code = column.dtype.kind, f"{column.dtype.kind}{column.dtype.itemsize}"
    if column.dtype.names is not None:
        values, missing = np.asarray(np.ma.getdata(column)), np.ma.getmaskarray(column)
        for field in column.dtype.names:
            unit = column.unit[field] if isinstance(column.unit, StructuredUnit) else column.unit
            part = _number_column(np.ma.array(values[field], mask=missing[field]), unit)
            yield from _flatten_column(f"{name}.{field}", part)
    elif kind == "O":
        plain = _flatten_objects(name, column)
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
    """Return the mask of a column of dates, in which NaT is missing as well."""
    return np.asarray(np.isnat(np.ma.getdata(column)) | np.ma.getmaskarray(column))


def _flatten_position(name: str, column: Any) -> Iterator[tuple[str, Column]]:
    from astropy.coordinates import UnitSphericalRepresentation  # noqa: PLC0415

    icrs = column.icrs
    frame = column.frame.name
    note = column.info.description or (f"ICRS, from {frame}" if frame != "icrs" else None)
    for axis in ("ra", "dec"):
        yield f"{name}.{axis}", _number_column(getattr(icrs, axis).to_value("deg"), "deg", f"pos.eq.{axis}", note)
    if not isinstance(icrs.data, UnitSphericalRepresentation):
        unit = icrs.distance.unit
        yield f"{name}.distance", _number_column(icrs.distance.to_value(unit), unit, "pos.distance", note)
    for key, (unit, ucd) in _MOTIONS.items() if "s" in column.data.differentials else ():
        value = safe_getattr(icrs, key)
        if value is not None and value.unit.is_equivalent(unit):  # it is not equivalent for a motion without a distance
            yield f"{name}.{key}", _number_column(value.to_value(unit), unit, ucd, note)


def _flatten_time(column: Any) -> Column:
    times = column.copy() if column.scale == "local" else column.utc  # the offset of local times from UTC is unknown
    times.precision = 9
    # if there are no rows, astropy returns an array of numbers
    texts = np.asarray(getattr(times.isot, "unmasked", times.isot)).astype(np.str_, copy=False)
    shown = texts[~np.asarray(column.mask)]
    for zeros in ("000000", "000"):
        if np.char.endswith(shown, zeros).all():
            texts = texts.astype(f"U{len('2000-01-01T00:00:00.000000000') - len(zeros)}")
            break
    changed = MaskedColumn(texts, mask=column.mask, description=column.info.description)
    changed.meta["xtype"] = "timestamp"
    return changed


def _number_column(values: Any, unit: Any, ucd: str = "", description: str | None = None) -> Column:
    mask = getattr(values, "mask", None)
    meta = {"ucd": ucd} if ucd else {}
    if mask is None or not np.any(mask):
        return Column(np.asarray(values), unit=unit, description=description, meta=meta)
    values = np.asarray(getattr(values, "unmasked", np.ma.getdata(values)))
    return MaskedColumn(values, mask=mask, unit=unit, description=description, meta=meta)


def _copy_meta(column: Any, values: Any, missing: np.ndarray) -> Any:
    """Make a column of `values` with the unit, description and metadata of `column`."""
    about: dict[str, Any] = {"unit": column.unit, "description": column.description, "meta": dict(column.meta)}
    values = np.asarray(np.ma.getdata(values))
    return MaskedColumn(values, mask=missing, **about) if missing.any() else Column(values, **about)


# Texts


def _with_plain_texts(name: str, column: Any) -> Any:
    """Decode non-ASCII bytes, and replace characters that no format supports."""
    values = np.asarray(np.ma.getdata(column))
    if not values.dtype.isnative:
        column = column.astype(values.dtype.newbyteorder("="))
        values = np.asarray(np.ma.getdata(column))
    starts = range(0, len(values), CHECKED_ROWS)
    if not any(_has_unwritable_texts(values[start : start + CHECKED_ROWS]) for start in starts):
        return column
    missing = np.ma.getmaskarray(column)
    cells = [b"" if hole else cell for cell, hole in zip(values.flat, missing.flat, strict=True)]
    decoded = [decode_text(cell) if isinstance(cell, bytes) else (cell, True) for cell in cells]
    if not all(is_utf8 for _, is_utf8 in decoded):
        warn(f"The column {name!r} has bytes that are neither ASCII nor UTF-8: they are interpreted as Latin-1")
    texts = _writable_texts(name, [text for text, _ in decoded])
    return _copy_meta(column, np.array(texts, dtype=np.str_).reshape(values.shape), missing)


def _has_unwritable_texts(values: np.ndarray) -> bool:
    """Return whether texts or bytes have to be changed before they can be written."""
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


def _writable_texts(name: str, texts: list[str]) -> list[str]:
    """Replace NUL, which ends a text for readers, and lone surrogates, which no encoding can represent."""
    changed = [_UNWRITABLE.sub("?", text) for text in texts]
    if changed != texts:
        warn(f"The column {name!r} has NUL characters or lone surrogates: each is replaced by '?'")
    return changed


# Columns of objects


def _flatten_objects(name: str, column: Any) -> Any:
    """Convert a column of objects, which must all be numbers, texts or arrays."""
    missing = np.array([_is_missing(value) for value in column], dtype=bool).reshape(column.shape)
    missing |= np.ma.getmaskarray(column)
    present = list(np.ma.getdata(column)[~missing])
    if all(isinstance(value, str) for value in present):
        return _flatten_texts(name, column, missing)
    if all(isinstance(value, list | tuple | np.ndarray) for value in present):
        return _flatten_arrays(column, missing)
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


def _flatten_texts(name: str, column: Any, missing: np.ndarray) -> Any:
    """Convert to fixed-length strings; keep objects if one string is much longer than the others."""
    written = _writable_texts(name, list(np.where(missing, "", np.ma.getdata(column)).flat))
    texts = np.fromiter(written, dtype=object, count=len(written)).reshape(column.shape)
    lengths = [len(text) for text in texts.flat]
    if sum(lengths) * 4 + 4096 < max(lengths, default=0) * len(lengths):
        return _copy_meta(column, texts, missing)
    return _copy_meta(column, texts.astype(np.str_), missing)


def _flatten_arrays(column: Any, missing: np.ndarray) -> Any:
    """Convert to variable-length arrays of one type, with NaN for missing elements."""
    cells: list[Any] = [np.ma.asarray([] if none else cell) for cell, none in zip(column, missing, strict=True)]
    dtype = np.result_type(*({cell.dtype for cell in cells if cell.size} or {np.dtype("f8")}))
    if dtype.kind not in "biufc":
        raise SAMPTypeError(f"arrays of {'strings' if dtype.kind in 'US' else dtype}")
    code = f"{dtype.kind}{dtype.itemsize}"
    dtype = np.dtype({**_FLOATS, **WIDER_INTEGERS}.get(code, code))
    if code == "u8":
        if any(cell.size and int(cell.max()) >= 2**63 for cell in cells):
            raise SAMPTypeError("integers of more than 63 bits in variable-length arrays")
        dtype = np.dtype("i8")
    if any(np.ma.is_masked(cell) for cell in cells):
        dtype = dtype if dtype.kind in "fc" else np.dtype("f8")
        cells = [np.ma.filled(cell.astype(dtype), np.nan) for cell in cells]
    if any(cell.ndim > 1 for cell in cells):
        if missing.any() or len({cell.shape for cell in cells}) > 1:
            raise SAMPTypeError("multidimensional arrays of different sizes")
        return _copy_meta(column, np.stack([np.asarray(cell, dtype=dtype) for cell in cells]), missing)
    changed = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        changed[row] = np.atleast_1d(np.asarray(cell, dtype=dtype)) if cell.size else np.zeros(0, dtype)
    return _copy_meta(column, changed, np.zeros(len(cells), dtype=bool))
