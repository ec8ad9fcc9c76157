# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Read VOTables quickly.

Theory of operation: expat reads the head of the document, up to the start tag before the rows. Astropy reads the head
without rows, so that fields, units, PARAM and GROUP elements are those of astropy. The rows are converted in blocks
(`votable_reader_rows`, `votable_reader_tabledata`). If the tail contains more than end tags, astropy reads head and
tail together, again without the rows, to check it. The values become the columns of the empty table that astropy
makes.

Documents that may be read differently by astropy (several tables, comments among the rows, a DOCTYPE, another
encoding...) are left to astropy. The only difference is that BINARY2's bits for missing texts are used here, and not
by astropy. Broken or hostile files raise an error: memory is bounded by the size of the file, and the size of a
packed file is limited.
"""

from __future__ import annotations

import binascii
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.parsers import expat

from astropy.io.votable import parse
from astropy.table import MaskedColumn, Table

from ..errors import SAMPClientError
from .detection import unpacked
from .tolerant_votable import element_as_table, read_votable_with_astropy
from .votable_reader_rows import BinaryRows, ColumnStore, OtherReaderNeeded, make_stores
from .votable_reader_tabledata import TabledataRows

__all__ = ["read_votable"]

#: Bytes that are read and converted at a time.
BLOCK_SIZE = 512 * 1024
#: Maximal size in bytes of the head and of the tail of a document; longer tails contain further tables.
MAX_HEAD, MAX_TAIL = 64 * 1024 * 1024, 1024 * 1024
#: Maximal size in bytes of a row of TABLEDATA.
MAX_ROW = 64 * 1024 * 1024
#: Number of rows that ``nrows`` may give wrongly, as some documents among astropy's tests do.
MAX_CLAIM = 1_000_000
#: Packed files may expand to this many bytes, or to this many times their size.
MAX_UNPACKED, MAX_GROWTH = 256 * 1024 * 1024, 200

WHITE_SPACE = b" \t\r\n"
_TAG = re.compile(rb"<(?:[^\"'>]|\"[^\"]*\"|'[^']*')*>")
_ATTRIBUTE = re.compile(rb"(\s+[^\s=]+\s*=\s*)(\"[^\"]*\"|'[^']*')")


def read_votable(
    path: Path, read_otherwise: Callable[[Path], Table] | None = None, note: Callable[[int], object] | None = None
) -> Table:
    """
    Read the first table of a VOTable, as `element_as_table` gives it.

    Parameters
    ----------
    path : pathlib.Path
        The file, which may be packed.
    read_otherwise : callable, optional
        Called with the path of a document that is left to astropy; `read_votable_with_astropy` by default.
    note : callable, optional
        Called with each number of bytes that was read from the file.

    Returns
    -------
    astropy.table.Table
        The table. All its columns are masked columns.

    Raises
    ------
    SAMPClientError
        The file is broken, or expands too much when it is unpacked.
    """
    with path.open("rb") as file:
        try:
            return _Document(_Source(file, note)).read()
        except OtherReaderNeeded:
            pass
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise SAMPClientError(f"The file is broken: {error}") from error
        file.seek(0)
        source = _Source(file)
        if source.is_packed:
            while source.read(BLOCK_SIZE):  # check that it does not expand too much
                pass
    return (read_otherwise or read_votable_with_astropy)(path)


class _Source:
    """A file, packed or not, with a limit of its unpacked size."""

    def __init__(self, file: BinaryIO, note: Callable[[int], object] | None = None) -> None:
        self._raw = file
        self._note = note
        self._noted = 0
        self.size = os.fstat(file.fileno()).st_size
        self._file = unpacked(file)
        self.is_packed = self._file is not file
        #: Number of unpacked bytes that were read.
        self.done = 0
        #: Maximal number of bytes of the document.
        self.limit = max(MAX_UNPACKED, self.size * MAX_GROWTH) if self.is_packed else self.size

    @property
    def fraction(self) -> float:
        """The fraction of the file that has been read."""
        return max(1, self._raw.tell()) / max(1, self.size)

    def read(self, count: int) -> bytes:
        """Read some bytes; fewer at the end of the file only."""
        data = self._file.read(count)
        self.done += len(data)
        if self.is_packed and self.done > self.limit:
            raise SAMPClientError(
                f"The packed file of {self.size} bytes has more than {self.limit} bytes in it: it is not read"
            )
        if self._note is not None:
            position = self._raw.tell()
            self._note(position - self._noted)
            self._noted = position
        return data


class _Head(NamedTuple):
    """The part of a document before the rows."""

    #: All bytes up to and with the start tag before the rows; the TABLE has no ``nrows``.
    data: bytes
    #: TABLEDATA, BINARY or BINARY2.
    kind: str
    #: The names of the open elements, with prefixes, the innermost last.
    open: list[str]
    encoding: str
    #: The value of ``nrows``.
    rows: int | None
    #: The value of ``arraysize`` of each FIELD.
    sizes: list[str]


class _RowsFound(Exception):  # noqa: N818 - it is no error
    """The start tag before the rows has been read."""


class _HeadParser:
    """Find the place where the rows begin."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate()
        self._parser.XmlDeclHandler = self._on_declaration
        self._parser.StartDoctypeDeclHandler = self._on_doctype
        self._parser.StartElementHandler = self._on_start
        self._parser.EndElementHandler = self._on_end
        self._names: list[str] = []
        self._has_children: list[bool] = []
        self._encoding = "utf-8"
        self._table = -1
        self._rows: str | None = None
        self._sizes: list[str] = []
        self._data = bytearray()
        self._rows_tag = -1

    def parse(self, source: _Source) -> tuple[_Head, bytes]:
        """Read the head, and return it with the bytes that have been read beyond it."""
        while True:
            data = source.read(64 * 1024)
            self._data += data
            try:
                self._parser.Parse(data, not data)
            except _RowsFound:
                break
            except expat.ExpatError as error:  # astropy has a better message, or can read it
                raise OtherReaderNeeded(str(error)) from error
            if not data:
                raise OtherReaderNeeded("a table without rows")
            if len(self._data) > MAX_HEAD:
                raise SAMPClientError(f"There is no row of a table in the first {MAX_HEAD} bytes of the document")
        return self._split()

    def _split(self) -> tuple[_Head, bytes]:
        data = bytes(self._data)
        table, rows = _TAG.match(data, self._table), _TAG.match(data, self._rows_tag)
        if table is None or rows is None or rows.group().endswith(b"/>"):
            raise OtherReaderNeeded("a start tag that is none")
        head = data[: table.start()] + _without_nrows(table.group()) + data[table.end() : rows.end()]
        kind = next(name for name in map(_local, reversed(self._names)) if name != "STREAM")
        number = int(self._rows[:30]) if self._rows is not None and self._rows.isdecimal() else None
        return _Head(head, kind, self._names, self._encoding, number, self._sizes), data[rows.end() :]

    def _on_declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        self._encoding = (encoding or "utf-8").lower()
        if self._encoding in {"iso-8859-1", "us-ascii"}:
            self._encoding = "ascii"  # astropy reads documents with other letters in the rows
        if self._encoding not in {"utf-8", "ascii"}:
            raise OtherReaderNeeded("another encoding")

    def _on_doctype(self, *_: object) -> None:
        raise OtherReaderNeeded("a DOCTYPE")

    def _on_start(self, name: str, attributes: dict[str, str]) -> None:
        is_first = not (self._has_children and self._has_children[-1])
        if self._has_children:
            self._has_children[-1] = True
        self._names.append(name)
        self._has_children.append(False)
        path = [_local(each) for each in self._names]
        if path[-1] == "TABLE":
            self._table, self._rows = self._parser.CurrentByteIndex, attributes.get("nrows")
            self._sizes = []
        if path[-2:] == ["TABLE", "FIELD"]:
            self._sizes.append(attributes.get("arraysize", ""))
        if path[-2:-1] == ["DATA"] and (path[-3:-2] != ["TABLE"] or not is_first):
            raise OtherReaderNeeded("DATA with other elements")
        if path[-1] == "TABLEDATA" or path[-2:] in (["BINARY", "STREAM"], ["BINARY2", "STREAM"]):
            is_here = attributes.get("encoding") == "base64" and "href" not in attributes
            if path[-1] == "STREAM" and not (is_here and is_first and path[-3:-2] == ["DATA"]):
                raise OtherReaderNeeded("a STREAM that is not here, or not in base64")
            if path[-1] == "TABLEDATA" and path[-2:-1] != ["DATA"]:
                raise OtherReaderNeeded("TABLEDATA at an unknown place")
            self._rows_tag = self._parser.CurrentByteIndex
            raise _RowsFound
        if path[-1] in {"FITS", "PARQUET", "TR", "TD"}:
            raise OtherReaderNeeded(path[-1])

    def _on_end(self, _name: str) -> None:
        self._names.pop()
        self._has_children.pop()


def _local(name: str) -> str:
    """The name of an element without its prefix, cut off as astropy does."""
    return name.partition(":")[2] if ":" in name else name


def _without_nrows(tag: bytes) -> bytes:
    """Remove the number of rows from the start tag of a TABLE: astropy allocates memory for them at once."""

    def replaced(match: re.Match[bytes]) -> bytes:
        return b"" if match.group(1).strip().rstrip(b"=").strip() == b"nrows" else match.group()

    return _ATTRIBUTE.sub(replaced, tag)


class _Document:
    """A document that is being read."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._head, self._unread = _HeadParser().parse(source)
        prefix, colon, _ = self._head.open[-1].rpartition(":")
        self._prefix = (prefix + colon).encode()
        if self._head.rows is not None and self._head.rows > max(source.limit, MAX_CLAIM):
            raise SAMPClientError(f"The document is too small for the {self._head.rows} rows that it declares")

    def read(self) -> Table:
        """Read the table."""
        ends = b"".join(b"</" + name.encode() + b">" for name in reversed(self._head.open))
        document, element = _parse_without_rows(self._head.data + ends)
        for field, size in zip(element.fields, self._head.sizes, strict=False):
            if size.endswith("*") and not str(field.arraysize).endswith("*"):  # astropy 6.1 makes 4 of 4*
                raise OtherReaderNeeded(f"another arraysize of {field.ID}")
        stores = make_stores(element.fields, is_13=_is_13(document.version))
        if self._head.kind == "TABLEDATA":
            self._read_tabledata(stores)
        else:
            self._read_binary(stores)
        tail = self._read_tail()
        if b"".join(tail.split()) != ends:
            _, element = _parse_without_rows(self._head.data + tail)
        if len(element.fields) != len(stores):
            raise OtherReaderNeeded("other fields than those before the rows")
        return _filled(element_as_table(element), stores)

    def _read_tabledata(self, stores: list[ColumnStore]) -> None:
        rows = TabledataRows(stores, self._head.encoding, self._prefix)
        end_of_row, end = b"</" + self._prefix + b"TR>", b"</" + self._prefix + b"TABLEDATA"
        data, self._unread = self._unread, b""
        while True:
            block = self._source.read(max(BLOCK_SIZE, len(data)))
            data += block
            stop = data.find(end)
            if stop >= 0:
                self._add(rows, stores, data[:stop])
                self._unread = data[stop:]
                return
            last = data.rfind(end_of_row) + len(end_of_row)
            if last >= len(end_of_row):
                self._add(rows, stores, data[:last])
                data = data[last:]
            elif len(data) > MAX_ROW:
                raise OtherReaderNeeded("a row of such a length")
            if not block:
                raise SAMPClientError("The document is cut off: it ends among the rows of the table")

    def _read_binary(self, stores: list[ColumnStore]) -> None:
        rows = BinaryRows(stores, has_flags=self._head.kind == "BINARY2")
        for data in self._stream():
            self._add(rows, stores, data)
        rows.finish()

    def _add(self, rows: TabledataRows | BinaryRows, stores: list[ColumnStore], data: bytes) -> None:
        """Convert a block; after the first one, allocate memory for the estimated number of rows."""
        is_first = not len(stores[0])
        count = rows.add(data)
        if is_first and count:
            for store in stores:
                store.reserve(int(count / self._source.fraction * 1.02) + 1)

    def _stream(self) -> Iterator[bytes]:
        """Decode the base64 of the STREAM."""
        letters = b""
        end = b"</" + self._prefix + b"STREAM"
        stop = -1
        while stop < 0:
            data = self._unread or self._source.read(BLOCK_SIZE - len(letters))
            self._unread = b""
            if not data:
                raise SAMPClientError("The document is cut off: it ends among the rows of the table")
            stop = data.find(b"<")
            found = data if stop < 0 else data[:stop]
            letters += found.translate(None, WHITE_SPACE) if any(space in found for space in WHITE_SPACE) else found
            whole = len(letters) if stop >= 0 else len(letters) // 4 * 4
            if b"&" in letters:
                raise OtherReaderNeeded("references in a STREAM")
            try:
                yield binascii.a2b_base64(letters[:whole], strict_mode=True)
            except binascii.Error as error:
                raise SAMPClientError(f"The table's base64 is broken: {error}") from error
            letters = letters[whole:]
        self._unread = data[stop:]
        if len(self._unread) < len(end):
            self._unread += self._source.read(len(end))
        if not self._unread.startswith(end):
            raise OtherReaderNeeded("other elements in a STREAM")

    def _read_tail(self) -> bytes:
        """Read what comes after the rows."""
        tail = self._unread + self._source.read(MAX_TAIL)
        if len(tail) >= MAX_TAIL:
            raise OtherReaderNeeded("much behind the rows, such as further tables")
        return tail


def _parse_without_rows(data: bytes) -> tuple[Any, Any]:
    """Have astropy read a document without rows, and return it and its only table."""
    try:
        document = parse(io.BytesIO(data), verify="ignore")
        tables = list(document.iter_tables())
    except Exception as error:  # the other reader has a better message, or is more tolerant
        raise OtherReaderNeeded(str(error)) from error
    if len(tables) != 1 or tables[0].is_empty():
        raise OtherReaderNeeded("several tables")
    return document, tables[0]


def _is_13(version: str) -> bool:
    try:
        return tuple(int(part) for part in version.split(".")) >= (1, 3)
    except ValueError as error:
        raise OtherReaderNeeded("an unknown version") from error


def _filled(empty: Table, stores: list[ColumnStore]) -> Table:
    """Fill the columns of a table without rows."""
    columns = []
    for column, store in zip(empty.columns.values(), stores, strict=True):
        values, mask = store.take()
        about = {key: getattr(column, key) for key in ("name", "unit", "format", "description", "meta", "fill_value")}
        columns.append(MaskedColumn(values, mask=mask, copy=False, **about))
    return Table(columns, meta=empty.meta, copy=False)
