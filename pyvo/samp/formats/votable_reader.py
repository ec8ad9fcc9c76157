# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Read VOTables quickly.

Theory of operation: expat reads the head of the document, up to the start tag before the rows. Astropy parses the head
without rows, so that fields, units, PARAM and GROUP elements are the same as if astropy read the whole document. The
rows are converted in blocks (`votable_reader_rows`, `votable_reader_tabledata`). If the tail contains more than end
tags, astropy parses head and tail together, again without the rows, to check the tail. Astropy makes an empty table,
and the converted values become its columns.

Documents that astropy may read differently (several tables, comments among the rows, a DOCTYPE, another encoding...)
are read by astropy. The only difference is that this module uses BINARY2's flags for missing texts, which astropy
ignores. Broken or hostile files raise an error: memory is bounded by the size of the file, and the decompressed size
of a compressed file is limited.
"""

from __future__ import annotations

import binascii
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

from astropy.io.votable import parse
from astropy.table import MaskedColumn, Table

from ..errors import SAMPClientError
from .detection import open_decompressed
from .fetching import Place, complete_file
from .tolerant_votable import TAG, Element, Scanner, element_as_table, read_votable_with_astropy
from .votable_reader_rows import BinaryRows, ColumnStore, OtherReaderNeeded, decode_base64, make_stores
from .votable_reader_tabledata import TabledataRows

#: Number of bytes that are read and converted at a time.
BLOCK_SIZE, HEAD_BLOCK_SIZE = 512 * 1024, 64 * 1024
#: Maximum size in bytes of the head and of the tail of a document; longer tails contain further tables.
MAX_HEAD, MAX_TAIL = 64 * 1024 * 1024, 1024 * 1024
#: Maximum size in bytes of a row of TABLEDATA.
MAX_ROW = 64 * 1024 * 1024
#: Values of ``nrows`` up to this number are accepted even if they are wrong, as in some documents of astropy's tests.
MAX_WRONG_NROWS = 1_000_000
#: Maximum decompressed size of a compressed file: in bytes or as a multiple of its size, whichever is larger.
MAX_DECOMPRESSED, MAX_GROWTH = 256 * 1024 * 1024, 200

WHITE_SPACE = (b" ", b"\t", b"\r", b"\n")
_STREAM = re.compile(rb"<(?:[^\s/>]*:)?STREAM")
_ATTRIBUTE = re.compile(rb"(\s+[^\s=]+\s*=\s*)(\"[^\"]*\"|'[^']*')")


def read_votable(
    place: Place, read_otherwise: Callable[[Path], Table] | None = None, note: Callable[[int], object] | None = None
) -> Table:
    """
    Read the first table of a VOTable. The result is the same as that of `element_as_table`.

    Parameters
    ----------
    place : pathlib.Path or ArrivingFile
        The file, which may be compressed. An arriving file is converted while it arrives.
    read_otherwise : callable, optional
        A function that reads a document with astropy. It is called with the path of the document if this module does
        not read it. By default `read_votable_with_astropy`.
    note : callable, optional
        A function that is called with the number of bytes after each read from the file.

    Returns
    -------
    astropy.table.Table
        The table. All its columns are masked columns.

    Raises
    ------
    SAMPClientError
        The file is broken, or its decompressed size is above the limit.
    """
    size = place.stat().st_size if isinstance(place, Path) else place.size
    with place.open("rb") as file:
        try:
            return _Document(_Source(file, size, note)).read()
        except OtherReaderNeeded:
            pass
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise SAMPClientError(f"The file is broken: {error}") from error
        file.seek(0)
        source = _Source(file, size)
        if source.is_compressed:
            while source.read(BLOCK_SIZE):  # check that the decompressed size is within the limit
                pass
    return (read_otherwise or read_votable_with_astropy)(complete_file(place))


class _Source:
    """A file that is decompressed if needed, with a limit of the decompressed size; `size` is None if unknown."""

    def __init__(self, file: BinaryIO, size: int | None, note: Callable[[int], object] | None = None) -> None:
        self._raw = file
        self._note = note
        self._noted = 0
        self._size = size or 0
        self._file = open_decompressed(file)
        self.is_compressed = self._file is not file
        #: Number of decompressed bytes that were read.
        self.done = 0
        #: Maximum size of the document in bytes.
        self.limit = max(MAX_DECOMPRESSED, self._size * MAX_GROWTH) if self.is_compressed else size or sys.maxsize

    @property
    def fraction(self) -> float:
        """The fraction of the file that has been read; 1 if its size is unknown."""
        return max(1, self._raw.tell()) / self._size if self._size else 1.0

    def read(self, count: int) -> bytes:
        """Read `count` bytes; return fewer only at the end of the file."""
        data = self._file.read(count)
        self.done += len(data)
        if self.is_compressed and self.done > self.limit:
            raise SAMPClientError(f"The compressed file contains more than {self.limit} bytes; it is not read")
        if self._note is not None:
            position = self._raw.tell()
            self._note(position - self._noted)
            self._noted = position
        return data


def _without_nrows(tag: bytes) -> bytes:
    """Remove ``nrows`` from the start tag of a TABLE, because astropy allocates memory for this number of rows."""

    def replaced(match: re.Match[bytes]) -> bytes:
        return b"" if match.group(1).strip().rstrip(b"=").strip() == b"nrows" else match.group()

    return _ATTRIBUTE.sub(replaced, tag)


def _depth_of_table(path: list[Element]) -> int:
    """Return the (negative) index of the TABLE in the path to rows that this module can read."""
    tags, stream = [element.tag for element in path], path[-1].attributes
    if tags[-3:] == ["TABLE", "DATA", "TABLEDATA"]:
        return -3
    is_inline = stream.get("encoding") == "base64" and "href" not in stream
    if tags[-4:-2] == ["TABLE", "DATA"] and tags[-2] in {"BINARY", "BINARY2"} and tags[-1] == "STREAM" and is_inline:
        return -4
    raise OtherReaderNeeded("rows that are not inline, or in another format")


class _Document:
    """A document that is being read."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        scanner = self._scan_head()
        # documents in these encodings are read by astropy if the rows contain non-ASCII characters
        self._encoding = "ascii" if scanner.encoding in {"iso-8859-1", "us-ascii"} else scanner.encoding
        if scanner.has_doctype or self._encoding not in {"utf-8", "ascii"}:
            raise OtherReaderNeeded("a DOCTYPE, or another encoding")
        self._table, *path = scanner.rows[_depth_of_table(scanner.rows) :]
        if any(outer.children[0] is not inner for outer, inner in pairwise(path)):
            raise OtherReaderNeeded("other elements in DATA")
        #: TABLEDATA, BINARY or BINARY2.
        self._kind = path[1].tag
        start, rows = (TAG.match(scanner.data, element.start) for element in (self._table, path[-1]))
        if start is None or rows is None or rows.group().endswith(b"/>"):
            raise OtherReaderNeeded("an invalid start tag or an element without rows")
        before, between = scanner.data[: start.start()], scanner.data[start.end() : rows.end()]
        self._head = bytes(before + _without_nrows(start.group()) + between)
        self._unread = bytes(scanner.data[rows.end() :])
        self._prefix = path[-1].name.encode().removesuffix(path[-1].tag.encode())
        #: The end tags of all open elements.
        self._ends = b"".join(b"</" + element.name.encode() + b">" for element in reversed(scanner.rows))
        nrows = self._table.attributes.get("nrows", "")
        if nrows.isdecimal() and int(nrows[:30]) > max(source.limit, MAX_WRONG_NROWS):
            raise SAMPClientError(f"The document is too small for the {nrows[:30]} rows that it declares")

    def _scan_head(self) -> Scanner:
        scanner = Scanner()
        while not scanner.rows:
            block = self._source.read(HEAD_BLOCK_SIZE)
            try:
                scanner.add(block, is_last=not block)
            except expat.ExpatError as error:  # astropy can read the document or has a better error message
                raise OtherReaderNeeded(str(error)) from error
            if not block:
                raise OtherReaderNeeded("a table without rows")
            if len(scanner.data) > MAX_HEAD:
                raise SAMPClientError(f"The first {MAX_HEAD} bytes of the document contain no row of a table")
        return scanner

    def read(self) -> Table:
        """Read the table."""
        document, element = _parse_without_rows(self._head + self._ends)
        for field, given in zip(element.fields, self._table.all("FIELD"), strict=False):
            size = given.attributes.get("arraysize", "")
            if size.endswith("*") and not str(field.arraysize).endswith("*"):  # astropy 6.1 changes 4* to 4
                raise OtherReaderNeeded(f"an arraysize of {field.ID} that astropy changes")
        stores = make_stores(element.fields, since_1_3=_is_since_1_3(document.version))
        if self._kind == "TABLEDATA":
            self._read_tabledata(stores)
        else:
            self._read_binary(stores)
        tail = self._unread + self._source.read(MAX_TAIL)
        if len(tail) >= MAX_TAIL or _STREAM.search(tail):  # astropy would fetch the URL of a STREAM
            raise OtherReaderNeeded("a long tail or a further table")
        if b"".join(tail.split()) != self._ends:
            _, element = _parse_without_rows(self._head + tail)
        if len(element.fields) != len(stores):
            raise OtherReaderNeeded("fields after the rows")
        return _filled(element_as_table(element), stores)

    def _read_tabledata(self, stores: list[ColumnStore]) -> None:
        rows = TabledataRows(stores, self._encoding, self._prefix)
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
                raise OtherReaderNeeded("a very long row")
            if not block:
                raise SAMPClientError("The document is cut off: it ends within the rows of the table")

    def _read_binary(self, stores: list[ColumnStore]) -> None:
        rows = BinaryRows(stores, has_flags=self._kind == "BINARY2")
        for data in self._stream():
            self._add(rows, stores, data)
        rows.finish()

    def _add(self, rows: TabledataRows | BinaryRows, stores: list[ColumnStore], data: bytes) -> None:
        """Convert a block. After the first block, allocate memory for the estimated number of rows."""
        is_first = not len(stores[0])
        count = rows.add(data)
        if is_first and count:
            for store in stores:
                store.reserve(int(count / self._source.fraction * 1.02) + 1)

    def _stream(self) -> Iterator[bytes]:
        """Yield the decoded base64 content of the STREAM in blocks."""
        letters = b""
        end = b"</" + self._prefix + b"STREAM"
        stop = -1
        while stop < 0:
            data = self._unread or self._source.read(BLOCK_SIZE - len(letters))
            self._unread = b""
            if not data:
                raise SAMPClientError("The document is cut off: it ends within the rows of the table")
            stop = data.find(b"<")
            found = data if stop < 0 else data[:stop]
            for space in WHITE_SPACE:
                found = found.replace(space, b"")
            letters += found
            whole = len(letters) if stop >= 0 else len(letters) // 4 * 4
            if b"&" in letters:
                raise OtherReaderNeeded("references in a STREAM")
            try:
                yield decode_base64(letters[:whole])
            except binascii.Error as error:
                raise SAMPClientError(f"The table's base64 is broken: {error}") from error
            letters = letters[whole:]
        self._unread = data[stop:]
        if len(self._unread) < len(end):
            self._unread += self._source.read(len(end))
        if not self._unread.startswith(end):
            raise OtherReaderNeeded("other elements in a STREAM")


def _parse_without_rows(data: bytes) -> tuple[Any, Any]:
    """Parse a document without rows with astropy, and return the document and its only table."""
    try:
        document = parse(io.BytesIO(data), verify="ignore")
        tables = list(document.iter_tables())
    except Exception as error:  # the other reader is more tolerant or has a better error message
        raise OtherReaderNeeded(str(error)) from error
    if len(tables) != 1 or tables[0].is_empty():
        raise OtherReaderNeeded("several tables or an empty one")
    return document, tables[0]


def _is_since_1_3(version: str) -> bool:
    try:
        return tuple(int(part) for part in version.split(".")) >= (1, 3)
    except ValueError as error:
        raise OtherReaderNeeded("an unknown version") from error


def _filled(empty: Table, stores: list[ColumnStore]) -> Table:
    """Fill the columns of a table without rows."""
    columns = []
    for column, store in zip(empty.columns.values(), stores, strict=True):
        values, mask = store.detach()
        about = {key: getattr(column, key) for key in ("name", "unit", "format", "description", "meta", "fill_value")}
        columns.append(MaskedColumn(values, mask=mask, copy=False, **about))
    return Table(columns, meta=empty.meta, copy=False)
