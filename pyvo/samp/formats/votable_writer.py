# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Write tables as VOTables in BINARY2, quickly.

Astropy writes the XML document of a table without rows. This module encodes the rows with numpy, many rows at a time.
Each row consists of flags for missing cells and the values one after the other. Writing a million rows takes seconds
and needs the memory of one block.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from astropy.io.votable import from_table
from astropy.io.votable.exceptions import VOWarning
from astropy.io.votable.tree import Param, VOTableFile
from astropy.table import Column, Table
from astropy.units import UnitsWarning
from astropy.utils.xml.writer import XMLWriter

from ..errors import warn
from .model import decode_text
from .plain_columns import WIDER_INTEGERS, flatten_columns, unused_name, unused_value, write_with_column_errors

#: Approximate size in bytes of a block of rows.
BLOCK_SIZE = 1024 * 1024

#: The datatypes of VOTable by numpy's kinds and sizes; `flatten_columns` and `_with_votable_types` make these types.
_TYPES = {
    "b1": "boolean", "u1": "unsignedByte", "i2": "short", "i4": "int", "i8": "long",
    "f4": "float", "f8": "double", "c8": "floatComplex", "c16": "doubleComplex",
}  # fmt: skip
#: Characters that XML 1.0 does not allow, not even as references.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACED = "XML does not allow control characters and lone surrogates: they are replaced by '?' in {}"
#: One attribute as astropy writes it.
_ATTRIBUTE = re.compile(r' [\w:.-]+="[^"]*"')
_TAG = re.compile(r"<(\w+)")
_ESCAPED_TWICE = re.compile("&amp;(lt|gt|amp);")
#: Characters that a parser converts to spaces in attributes, unless they are written as references.
_LINE_ENDS = str.maketrans({"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})
#: The metadata of tables that astropy writes as attributes, and those of columns with a check of the value.
_OF_TABLES = frozenset({"ID", "name", "ucd", "utype", "description"})
_OF_COLUMNS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("ucd", "utype", "xtype"), lambda value: isinstance(value, str)),
    # astropy makes a format from these, and cannot read a table if the format is invalid
    "width": lambda value: bool(re.fullmatch(r"0*[1-9]\d{0,2}", str(value))),
    "precision": lambda value: bool(re.fullmatch(r"[EF]?[1-9]\d?|F?0", str(value))),
    "values": lambda value: isinstance(value, dict),
    "links": lambda value: isinstance(value, list),
}
#: Maximum number of names in one warning.
NAMED = 10


class XMLText:
    """
    A text file that replaces each character that XML does not allow by a question mark.

    Parameters
    ----------
    file : binary file
        The file to which the text is written in UTF-8.
    """

    encoding = "utf-8"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._before = ""
        self._tag = ""
        self._replaced: dict[str, None] = {}

    def write(self, text: str) -> None:
        """Write some text."""
        for match in _NOT_IN_XML.finditer(text):
            context = self._before + text[: match.end()]
            self._replaced[context[context.rfind("<") :][:200]] = None
        if tag := _TAG.fullmatch(text):
            self._tag = tag[1]
        elif _ATTRIBUTE.fullmatch(text):
            text = text.translate(_LINE_ENDS)
            if self._tag in {"PARAM", "MIN", "MAX"} and text.startswith(' value="') and _escapes_twice():
                text = _ESCAPED_TWICE.sub(r"&\1;", text)
        self._before = (self._before + text[-300:])[-300:]
        self._file.write(_NOT_IN_XML.sub("?", text).encode("utf-8"))

    def flush(self) -> None:
        """Do nothing: the caller flushes the file."""

    def warn(self) -> None:
        """Warn about characters that were replaced."""
        if self._replaced:
            warn(_REPLACED.format(_list(map(repr, self._replaced))))


@functools.cache
def _escapes_twice() -> bool:
    """Return whether astropy writes the value ``&`` of a PARAM as ``&amp;amp;``; 8.0 does."""
    file = io.StringIO()
    document = VOTableFile()
    param = Param(document, name="p", datatype="char", arraysize="*", value="&")
    param.to_xml(XMLWriter(file), version_1_2_or_later=True, version=document.version)
    return "&amp;amp;" in file.getvalue()


def _list(names: Any) -> str:
    """Return the first names as a text for a message."""
    shown = list(names)
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]) + more


class _ColumnWriter(NamedTuple):
    """Writes one column: its type in VOTable, and a function that encodes some of its rows."""

    datatype: str
    arraysize: str | None
    #: The type of a cell in the binary data. None if the number of bytes varies; `make` then returns a list.
    dtype: Any
    make: Callable[[slice], Any]
    mask: np.ndarray | None = None
    #: The number for missing elements of an array.
    null: int | None = None


def write_votable(table: Any, file: BinaryIO) -> None:
    """
    Write a table as a VOTable.

    Parameters
    ----------
    table : astropy.table.Table
        The table.
    file : binary file
        The file to which the VOTable is written.

    Raises
    ------
    SAMPTypeError
        VOTable does not support some of the columns. The text names them.

    Warns
    -----
    SAMPWarning
        Characters that VOTable does not allow are replaced, or metadata that it cannot represent are left out.
    """
    write_with_column_errors(flatten_columns(table), file, _write, "a VOTable")


def _write(flat: Table, file: BinaryIO) -> None:
    flat = _with_votable_types(flat.copy(copy_data=False))
    _replace_invalid_characters(flat)
    left_out = _clear_metadata(flat)
    writers = [_make_column_writer(flat[name]) for name in flat.colnames]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VOWarning)  # about units and names that are not in the standard; they are kept
        warnings.simplefilter("ignore", UnitsWarning)  # about deprecated units such as Angstrom
        try:
            text, xml = _document(flat, writers, [])
        except Exception:  # any error: metadata of columns can be any objects
            left_out += _clear_unwritable_metadata(flat, writers)
        text, xml = _document(flat, writers, left_out)
    xml.warn()
    if left_out:
        warn(f"VOTable cannot represent all metadata; the table is sent without {_list(map(repr, left_out))}")
    if not writers:
        file.write(text)
        return
    head, end, tail = text.rpartition(b"</TABLE>")
    file.write(head)
    file.write(b'<DATA><BINARY2><STREAM encoding="base64">\n')
    file.writelines(_encode_rows(writers, len(flat)))
    file.write(b"</STREAM></BINARY2></DATA>\n" + end + tail)


def _document(flat: Table, writers: list[_ColumnWriter], left_out: list[str]) -> tuple[bytes, XMLText]:
    """Return the document without rows, and the file that was used to write it."""
    empty = Table(meta={key: flat.meta[key] for key in _OF_TABLES & set(flat.meta)})
    for name in flat.colnames:
        column = flat[name]
        dtype = np.dtype("f8") if column.dtype.kind == "O" else column.dtype
        about = {"unit": column.unit, "description": column.description, "meta": column.meta}
        empty.add_column(Column(np.zeros((0, *column.shape[1:]), dtype), **about), name=name)
    document = from_table(empty)
    left_out += _add_params(document, flat.meta)
    for field, writer in zip(document.get_first_table().fields, writers, strict=True):
        field.datatype, field.arraysize, field.values.null = writer.datatype, writer.arraysize, writer.null
    file = io.BytesIO()
    xml = XMLText(file)
    document.to_xml(xml)
    return file.getvalue(), xml


def _replace_invalid_characters(flat: Table) -> None:
    """Replace characters that XML does not allow in names, descriptions and metadata, and warn about them."""
    replaced = []

    def written(value: Any, where: str) -> Any:
        if isinstance(value, bytes):
            value = decode_text(value)[0]
        if isinstance(value, list | tuple):
            return [written(item, where) for item in value]
        if not isinstance(value, str) or not _NOT_IN_XML.search(value):
            return value
        replaced.append(where)
        return _NOT_IN_XML.sub("?", value)

    given = list(flat.meta.items())
    flat.meta.clear()
    for key, value in given:
        flat.meta[written(key, f"the key {key!r}")] = written(value, f"the value of {key!r}")
    for name in flat.colnames:
        column = flat[name]
        column.description = written(column.description, f"the description of the column {name!r}")
        column.meta = {key: written(value, f"{key!r} of the column {name!r}") for key, value in column.meta.items()}
        changed = written(name, f"the name of the column {name!r}")
        if changed != name:
            flat.rename_column(name, unused_name(flat, flat, changed))
    if replaced:
        warn(_REPLACED.format(_list(replaced)))


def _clear_metadata(flat: Table) -> list[str]:
    """Remove the metadata that a VOTable cannot represent, and return their names."""
    left_out = []
    for name in flat.colnames:
        known = {}
        for key, value in flat[name].meta.items():
            if key in _OF_COLUMNS and _OF_COLUMNS[key](value):
                known[key] = value
            elif not str(key).startswith("_"):  # for example the types that astropy's reader stores for its writer
                left_out.append(f"{name}.{key}")
        flat[name].meta = known
    for key in [key for key in _OF_TABLES & set(flat.meta) if not isinstance(flat.meta[key], str)]:
        left_out.append(key)
        del flat.meta[key]
    return left_out


def _clear_unwritable_metadata(flat: Table, writers: list[_ColumnWriter]) -> list[str]:
    """Remove the metadata of the columns that astropy cannot write, and return the names of the metadata."""
    left_out = []
    for name, writer in zip(flat.colnames, writers, strict=True):
        alone = flat[[name]]
        alone.meta.clear()
        try:
            _document(alone, [writer], [])
        except Exception:
            left_out += [f"{name}.{key}" for key in flat[name].meta]
            flat[name].meta = {}
    return left_out


def _add_params(document: Any, meta: dict[Any, Any]) -> list[str]:
    """Add the metadata of the table as PARAM elements; return the keys of those that cannot be written."""
    left_out = []
    params = document.get_first_table().params
    for key, value in meta.items():
        if key in _OF_TABLES or key == "ref":
            continue
        kind = _param(value) if isinstance(key, str) else None
        if kind is None:
            left_out.append(str(key))
        else:
            params.append(Param(document, name=key, **kind))
    return left_out


def _param(value: Any) -> dict[str, Any] | None:
    """Return the attributes of a PARAM for a value; None if a PARAM cannot have this value."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        value = "\n".join(value)  # for example the comments of a FITS file
    if isinstance(value, str):
        return {"datatype": "char" if value.isascii() else "unicodeChar", "arraysize": "*", "value": str(value)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # for example about None in a list
            array = np.asanyarray(value)
    except Exception:  # a list may contain any objects
        return None
    if np.ma.is_masked(array) or array.dtype.kind not in "biuf" or array.ndim > 1 or not array.size:
        return None
    if array.dtype.kind == "f":
        array = array.astype("f8")
    elif array.dtype.kind != "b":
        if int(array.max()) >= 2**63:
            return None
        array = array.astype("i8")
    datatype = _TYPES[f"{array.dtype.kind}{array.dtype.itemsize}"]
    if array.ndim == 0:
        return {"datatype": datatype, "value": array.item()}
    return {"datatype": datatype, "arraysize": str(len(array)), "value": np.asarray(array)}


def _with_votable_types(table: Table) -> Table:
    """Convert columns of types that VOTable does not have to wider types."""
    for name in list(table.colnames):
        column = table[name]
        code = column.dtype.kind + str(column.dtype.itemsize)
        if code in WIDER_INTEGERS:
            column = column.astype(WIDER_INTEGERS[code])
        elif code == "u8":
            fits = len(column) == 0 or int(np.ma.max(column.filled(0) if np.ma.isMA(column) else column)) < 2**63
            column = column.astype("i8" if fits else "U20")
        if column.dtype.kind in "iu" and _is_partly_missing(column) and unused_value(column) is None:
            column = column.astype("i4")
        if column is not table[name]:
            table.replace_column(name, column, copy=False)
        if column.dtype.kind in "USO" and column.ndim > 1:
            _split(table, name)
        elif column.dtype.kind == "O" and len(column) and getattr(column[0], "dtype", None) in ("c8", "c16"):
            _split_complex(table, name)
    return table


def _is_partly_missing(column: Any) -> bool:
    """Return whether elements of arrays are missing, so that a number is needed for missing values."""
    return column.ndim > 1 and np.ma.is_masked(column)


def _split(table: Table, name: str) -> None:
    """Replace a column of string arrays by one column for each element, because few programs read such arrays."""
    column = table[name]
    place = table.colnames.index(name)
    table.remove_column(name)
    flat = column.reshape(len(column), -1)
    for number in range(flat.shape[1]):
        table.add_column(flat[:, number], name=unused_name(table, table, f"{name}_{number + 1}"), index=place + number)


def _split_complex(table: Table, name: str) -> None:
    """Split variable-length complex arrays into two columns: STILTS 3.4 misreads their length as a number of reals."""
    column = table[name]
    place = table.colnames.index(name)
    table.remove_column(name)
    for offset, writer in enumerate(("real", "imag")):
        numbers = column.copy()
        for row, cell in enumerate(column):
            numbers[row] = np.ascontiguousarray(getattr(cell, writer))
        table.add_column(numbers, name=unused_name(table, table, f"{name}.{writer}"), index=place + offset)


def _make_column_writer(column: Any) -> _ColumnWriter:
    kind, shape = column.dtype.kind, column.shape[1:]
    if kind == "O" or 0 in shape:
        return _variable(column)
    values = np.asarray(np.ma.getdata(column))
    masked = np.ma.getmaskarray(column) if np.ma.is_masked(column) else None
    mask = None if masked is None else np.asarray(masked.reshape(len(column), -1).all(axis=1))
    if kind in "US":
        return _texts(values, masked, mask)
    datatype = _TYPES[f"{kind}{column.dtype.itemsize}"]
    arraysize = "x".join(str(size) for size in reversed(shape)) or None
    null = unused_value(column) if kind in "iu" and _is_partly_missing(column) else None
    fill = float("nan") if kind in "fc" else values.dtype.type() if null is None else null

    def make(rows: slice) -> Any:
        if kind == "b":
            return logical_letters(values[rows], masked, rows, ord("?"))
        return fill_masked(values[rows], masked, rows, fill)

    big = np.dtype(("u1" if kind == "b" else values.dtype.newbyteorder(">"), shape))
    return _ColumnWriter(datatype, arraysize, big, make, mask, null)


def _texts(values: np.ndarray, masked: np.ndarray | None, mask: np.ndarray | None) -> _ColumnWriter:
    """Return the writer for fixed-length texts."""
    values = values if values.dtype.itemsize else values.astype(f"{values.dtype.kind}1")
    length = values.dtype.itemsize // (4 if values.dtype.kind == "U" else 1)
    points = np.ascontiguousarray(values).view("u4") if values.dtype.kind == "U" else np.zeros(0)
    highest = int(points.max()) if points.size else 0
    if highest < 128:
        plain = np.dtype(f"S{length}")

        def encode_ascii(rows: slice) -> Any:
            return fill_masked(values[rows], masked, rows, values.dtype.type()).astype(plain)

        return _ColumnWriter("char", str(length), plain, encode_ascii, mask)
    if highest > 0xFFFF:  # such characters are encoded as two units
        length += int((points.reshape(len(values), length) > 0xFFFF).sum(axis=1).max())
    units = np.dtype((">u2", (length,)))

    def encode(rows: slice) -> np.ndarray:
        return _utf16(fill_masked(values[rows], masked, rows, ""), length)

    return _ColumnWriter("unicodeChar", str(length), units, encode, mask)


def _variable(column: Any) -> _ColumnWriter:
    """Return the writer for variable-length arrays, or for texts of very different lengths."""
    if column.dtype.kind == "O" and len(column) and isinstance(column[0], str | np.ma.core.MaskedConstant):
        texts = list(np.ma.getdata(column))
        mask = np.asarray(np.ma.getmaskarray(column))
        encoding, size = ("ascii", 1) if all(text.isascii() for text in texts) else ("utf-16-be", 2)
        datatype = "char" if size == 1 else "unicodeChar"

        def encode_texts(rows: slice) -> list[bytes]:
            return _counted([text.encode(encoding) for text in texts[rows]], size)

        return _ColumnWriter(datatype, "*", None, encode_texts, mask if mask.any() else None)
    cells = [np.asarray(cell) for cell in column]
    dtype = cells[0].dtype if cells else column.dtype if column.dtype.kind in "biufc" else np.dtype("f8")

    def make(rows: slice) -> list[bytes]:
        if dtype.kind == "b":
            return _counted([logical_letters(cell, None, rows, 0).tobytes() for cell in cells[rows]], 1)
        return _counted([cell.astype(dtype.newbyteorder(">")).tobytes() for cell in cells[rows]], dtype.itemsize)

    return _ColumnWriter(_TYPES[f"{dtype.kind}{dtype.itemsize}"], "*", None, make)


def _counted(cells: list[bytes], size: int) -> list[bytes]:
    """Prefix each cell with the number of its elements, which have the given size in bytes."""
    return [(len(cell) // size).to_bytes(4, "big") + cell for cell in cells]


def fill_masked(values: Any, masked: Any, rows: slice, fill: Any) -> Any:
    """
    Return the values of some rows. Masked elements are overwritten, so that they are not disclosed.

    ``masked`` is the mask of all rows, or None.
    """
    if masked is None:
        return values
    filled = values.copy()
    filled[masked[rows]] = fill
    return filled


def logical_letters(values: Any, masked: Any, rows: slice, missing: int) -> Any:
    """Encode the logical values of some rows as the letters T and F, and masked values as the byte ``missing``."""
    return fill_masked(np.where(values, np.uint8(ord("T")), np.uint8(ord("F"))), masked, rows, missing)


def _utf16(values: np.ndarray, length: int) -> np.ndarray:
    """Encode texts in UTF-16, which Java programs use as well."""
    points = np.ascontiguousarray(values).view("u4").reshape(len(values), -1)
    if points.shape[1] == length:
        return points.astype(">u2")
    encoded = np.array([text.encode("utf-16-be") for text in values], dtype=f"S{2 * length}")
    return encoded.view(">u2").reshape(len(values), length)


def _encode_rows(writers: list[_ColumnWriter], rows: int) -> Iterator[bytes]:
    """Yield the rows in base64, one block at a time."""
    width = sum(64 if writer.dtype is None else writer.dtype.itemsize for writer in writers)
    step = max(1, BLOCK_SIZE // max(1, width))
    make = _mixed_rows if any(writer.dtype is None for writer in writers) else _fixed_rows
    rest = b""
    for start in range(0, rows, step):
        data = rest + make(writers, slice(start, min(rows, start + step)))
        whole = len(data) - len(data) % 57  # 57 bytes are encoded as the usual line of 76 letters
        rest = data[whole:]
        yield base64.encodebytes(data[:whole])
    yield base64.encodebytes(rest)


def _flags(writers: list[_ColumnWriter], which: slice) -> np.ndarray:
    """Return the flags for missing cells. The flag of the first column is the highest bit of the first byte."""
    flags = np.zeros((which.stop - which.start, (len(writers) + 7) // 8), dtype="u1")
    for index, writer in enumerate(writers):
        if writer.mask is not None:
            flags[:, index // 8] |= writer.mask[which].astype("u1") << np.uint8(7 - index % 8)
    return flags


def _fixed_rows(writers: list[_ColumnWriter], which: slice) -> bytes:
    """Encode some rows, which all have the same length."""
    flags = _flags(writers, which)
    layout = [("flags", "u1", flags.shape[1:]), *((f"c{i}", writer.dtype) for i, writer in enumerate(writers))]
    block = np.zeros(len(flags), dtype=layout)
    block["flags"] = flags
    for index, writer in enumerate(writers):
        block[f"c{index}"] = writer.make(which)
    return block.tobytes()


def _mixed_rows(writers: list[_ColumnWriter], which: slice) -> bytes:
    """Encode some rows, whose lengths may differ."""
    columns = [_cells(_flags(writers, which))]
    for writer in writers:
        made = writer.make(which)
        columns.append(made if writer.dtype is None else _cells(made.astype(writer.dtype.base)))
    return b"".join(cell for row in zip(*columns, strict=True) for cell in row)


def _cells(values: np.ndarray) -> list[bytes]:
    """Return the bytes of the value in each row."""
    data, size = values.tobytes(), values.nbytes // len(values)
    return [data[start : start + size] for start in range(0, len(data), size)]
