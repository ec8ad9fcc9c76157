# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Read VOTables that astropy's reader rejects as a whole because of one element.

Expat locates the elements of the document. From the first table this module makes a new document, which astropy reads.
It contains the rows and the FIELD and PARAM elements; those that astropy cannot read are modified. In this way arrays
of texts (``datatype="char" arraysize="5x3"``), non-ASCII text in BINARY and BINARY2, and rows in a FITS file can be
read, which astropy 8.0 cannot do. Elements that astropy still rejects are left out, and a warning names them.
"""

from __future__ import annotations

import base64
import gzip
import io
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from astropy.io.votable import parse
from astropy.table import Column, Table

from ..errors import SAMPClientError, warn, without_warnings
from ..transport.urls import file_url_to_path
from .detection import open_decompressed
from .fetching import local_copy
from .fits_tables import open_hdus, table_of_hdus
from .model import decode_texts, split_texts

#: Number of bytes of a document that are searched at a time, and maximum length of a start tag.
CHUNK_SIZE, MAX_TAG_SIZE = 1024 * 1024, 4096
#: The rows of an empty table, which astropy requires.
NO_ROWS = b"<TABLEDATA/>"

log = logging.getLogger(__name__)

TAG = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
_LINKED_STREAM = re.compile(rb"<(?:[\w.-]+:)?STREAM\s[^>]*?href\s*=")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)")
#: Control characters that XML does not allow, also as references; and surrogates for bytes that are not UTF-8.
_CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|&#(?:0*(?:[0-8]|1[124-9]|2\\d|3[01])|"
                       "x0*(?:[0-8bBcCeEfF]|1[0-9a-fA-F]));")  # fmt: skip
_NO_UTF8 = re.compile("[\udc80-\udcff]")
#: Elements that contain rows.
_ROWS = {"TABLEDATA", "STREAM", "FITS", "PARQUET"}
#: Datatypes of texts. The last one is not in the standard.
_TEXTS = {"char", "unicodeChar", "string"}
#: The key under which astropy stores whether a text was ``char`` or ``unicodeChar``.
_DATATYPE = "_votable_string_dtype"
#: The attributes of a FIELD that astropy's column keeps, and those that it needs.
_KEPT = ("ID", "name", "datatype", "arraysize", "unit", "ucd", "utype", "xtype", "width", "precision")
_NEEDED = _KEPT[:7]


@dataclass
class Element:
    """An XML element and its position in the document."""

    name: str
    attributes: dict[str, str]
    start: int
    end: int = 0
    children: list[Element] = field(default_factory=list)

    @property
    def tag(self) -> str:
        """The name without its namespace prefix, which astropy ignores as well."""
        return self.name.partition(":")[2] or self.name

    def all(self, *tags: str) -> list[Element]:
        """Return the children with one of the given tags."""
        return [child for child in self.children if child.tag in tags]

    def first(self, *tags: str) -> Element | None:
        """Return the first child with one of the given tags, or None."""
        return next(iter(self.all(*tags)), None)

    def walk(self, tag: str) -> Iterable[Element]:
        """Yield all elements with a tag, in the order of the document."""
        if self.tag == tag:
            yield self
        yield from chain.from_iterable(child.walk(tag) for child in self.children)

    @property
    def title(self) -> str:
        """The tag and name of the element, for messages."""
        name = self.attributes.get("name") or self.attributes.get("ID")
        return f"{self.tag} {name!r}" if name else self.tag


class Scanner:
    """Locates the elements of a document that is passed in parts, except for elements within rows."""

    def __init__(self) -> None:
        self.root = Element("", {}, 0)
        #: The bytes received so far.
        self.data = bytearray()
        self.encoding = "utf-8"
        self.has_doctype = False
        #: The elements that are open at the start of the first rows, the innermost last.
        self.rows: list[Element] = []
        self._open = [self.root]
        self._parser = expat.ParserCreate()
        self._parser.XmlDeclHandler = self._on_declaration
        self._parser.StartDoctypeDeclHandler = self._on_doctype
        self._parser.StartElementHandler, self._parser.EndElementHandler = self._on_start, self._on_end

    def add(self, data: bytes, *, is_last: bool) -> None:
        """Add a part of the document; raise `~xml.parsers.expat.ExpatError` if it is not well-formed XML."""
        self.data += data
        self._parser.Parse(data, is_last)
        if is_last:
            del self._parser  # it refers to this object

    def _on_declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        self.encoding = (encoding or "utf-8").lower()

    def _on_doctype(self, *_: object) -> None:
        self.has_doctype = True

    def _on_start(self, name: str, attributes: dict[str, str]) -> None:
        element = Element(name, attributes, self._parser.CurrentByteIndex)
        self._open[-1].children.append(element)
        self._open.append(element)
        if element.tag in _ROWS and not self.rows:
            self.rows = self._open[1:]
        if element.tag == "TABLEDATA":
            self._parser.StartElementHandler, self._parser.EndElementHandler = None, self._on_end_in_rows

    def _on_end_in_rows(self, name: str) -> None:
        if name == self._open[-1].name:
            self._parser.StartElementHandler, self._parser.EndElementHandler = self._on_start, self._on_end
            self._on_end(name)

    def _on_end(self, _name: str) -> None:
        element = self._open.pop()
        found = TAG.match(self.data, element.start)
        if found is not None and not found[0].endswith(b"/>"):
            found = TAG.match(self.data, self._parser.CurrentByteIndex)
        element.end = found.end() if found is not None else self._parser.CurrentByteIndex


def read_votable_with_astropy(path: Path, url: str = "") -> Table:
    """
    Read the first table with rows of a VOTable, and tolerate elements that astropy's own reader rejects.

    Parameters
    ----------
    path : pathlib.Path
        The file, which may be compressed.
    url : str
        The original URL if the file is a copy. It is the base of relative URLs in the file.

    Returns
    -------
    astropy.table.Table
        The table, with the values of its PARAM elements as metadata.

    Warns
    -----
    SAMPWarning
        Elements of the head are left out, cells cannot be read, or the document contains more tables.
    """
    data, root = _parsed(path)
    table = _wanted_table(data, root)
    reader = _TableReader(data, table, url or path.absolute().as_uri())
    return reader.read()


def element_as_table(element: Any) -> Any:
    """Convert a TableElement to an astropy table, with the values of PARAM elements as metadata."""
    table = element.to_table(use_names_over_ids=True)
    for param in element.params:
        value = param.value
        if getattr(value, "ndim", None) == 0:
            value = value.item()
        table.meta.setdefault(param.name or param.ID, value)
    return table


def describe_table(table: Table, document: bytes) -> None:
    """Copy names, units, descriptions, UCDs and parameters from a VOTable without rows to a table (in place)."""
    data, root = _scanned(document)
    element = next(iter(root.walk("TABLE")), None)
    if element is None:
        return
    about = _TableReader(data, element, "").read_head()
    if len(about.columns) == len(table.columns):
        for name, other in zip(list(table.colnames), about.colnames, strict=True):
            if name != other and other not in table.colnames:
                table.rename_column(name, other)
    for name in set(table.colnames) & set(about.colnames):
        column, described = table[name], about[name]
        column.unit = described.unit or column.unit
        column.description = described.description or column.description
        column.meta.update({key: value for key, value in described.meta.items() if key != "values"})
    table.meta.update(about.meta)


def with_streams_inline(path: Path, url: str = "") -> bytes | None:
    """Return a VOTable with streams from other local files included inline; None if it has no such streams."""
    with path.open("rb") as file:
        content, rest = open_decompressed(file), b""
        while chunk := content.read(CHUNK_SIZE):
            if _LINKED_STREAM.search(rest + chunk):
                break
            rest = chunk[-MAX_TAG_SIZE:]
        else:
            return None
    data, root = _parsed(path)
    hrefs = ((stream, stream.attributes.get("href", "").strip()) for stream in root.walk("STREAM"))
    streams = [stream for stream, href in hrefs if href and urlsplit(href).scheme not in {"http", "https", "ftp"}]
    if not streams:
        return None
    made, position = bytearray(), 0
    for stream in streams:
        made += data[position : stream.start] + _inline(_stream_bytes(data, stream, url or path.absolute().as_uri()))
        position = stream.end
    return bytes(made + data[position:])


# The document


def _parsed(path: Path) -> tuple[bytes, Element]:
    with path.open("rb") as file:
        return _scanned(open_decompressed(file).read())


def _scanned(data: bytes) -> tuple[bytes, Element]:
    """Return a document in UTF-8 and its elements. Replace or remove invalid characters, with a warning."""
    encoding = _ENCODING.match(data[:200])
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = _DECLARATION.sub("", data.decode("utf-16"), count=1).encode()
    elif encoding is not None and encoding[1].lower() not in {b"utf-8", b"us-ascii"}:
        data = _DECLARATION.sub("", data.decode(encoding[1].decode(), "replace"), count=1).encode()
    data = data.lstrip()  # some services write empty lines at the beginning, which XML does not allow
    try:
        return data, _scan(data)
    except expat.ExpatError as error:
        text = data.decode("utf-8", "surrogateescape")
        mended, bad_bytes = _NO_UTF8.subn(lambda found: chr(ord(found[0]) - 0xDC00), text)
        mended, bad_controls = _CONTROLS.subn("", mended)
        if not bad_bytes and not bad_controls:
            raise SAMPClientError(f"This is not a valid XML document: {error}") from error
        data = _DECLARATION.sub("", mended, count=1).encode()
        root = _scan(data)
        if bad_bytes:
            warn(f"The document is not in UTF-8: {bad_bytes} bytes are read as Latin-1")
        if bad_controls:
            warn(f"The document contains characters that XML does not allow: {bad_controls} are left out")
        return data, root


def _scan(data: bytes) -> Element:
    scanner = Scanner()
    scanner.add(data, is_last=True)
    return scanner.root


def _wanted_table(data: bytes, root: Element) -> Element:
    """Return the first table with rows; if there is none, the first with columns; otherwise the first table."""
    tables = [table for table in root.walk("TABLE") if table.all("FIELD")] or list(root.walk("TABLE"))
    if not tables:
        status = (info for info in root.walk("INFO") if info.attributes.get("name") == "QUERY_STATUS")
        reason = " ".join(_text(data, info) for info in status if info.attributes.get("value") == "ERROR")
        raise SAMPClientError("The VOTable contains no table" + (f". Error of the service: {reason}" if reason else ""))
    with_rows = [table for table in tables if table.first("DATA") is not None]
    chosen = (with_rows or tables)[0]
    if len(with_rows) > 1:
        others = ", ".join(table.title for table in with_rows[1:])
        warn(f"The VOTable contains {len(with_rows)} tables: {chosen.title} is read, but not {others}")
    return chosen


def _text(data: bytes, element: Element) -> str:
    parts: list[str] = []
    parser = expat.ParserCreate()
    parser.CharacterDataHandler = parts.append
    parser.Parse(data[element.start : element.end], True)
    return "".join(parts).strip()


# One table


class _TableReader:
    """Reads one TABLE element of a document; `base` is the base of relative URLs."""

    def __init__(self, data: bytes, table: Element, base: str) -> None:
        self._data = data
        self._table = table
        self._base = base
        content = table.first("DATA")
        rows = content.first("TABLEDATA", "BINARY", "BINARY2", "FITS", "PARQUET") if content is not None else None
        self._rows = rows
        self._format = rows.tag if rows is not None else "TABLEDATA"
        self._fields = table.all("FIELD")
        self._params = [*table.all("PARAM"), *(p for group in table.all("GROUP") for p in group.walk("PARAM"))]
        #: The texts of the cells by column number, if they replace the rows of the document.
        self._cells: dict[int, list[str]] | None = None
        #: Whether astropy reads texts as bytes and this class decodes them.
        self._as_bytes = self._is_binary and any(_dimensions(each)[:-1] for each in self._fields if _is_text(each))

    @property
    def _is_binary(self) -> bool:
        return self._format in {"BINARY", "BINARY2"}

    def read_head(self) -> Table:
        """Return the table without its rows."""
        try:
            return self._read(self._document(rows=False), rows=False)
        except Exception as error:
            log.debug("astropy does not read the head of the VOTable as it is: %s", error)
            self._leave_out()
            return self._read(self._document(rows=False), rows=False)

    def read(self) -> Table:
        """Return the table."""
        if self._format == "FITS":
            return self._read_fits()
        if self._format == "PARQUET":
            raise SAMPClientError("The rows of the VOTable are in a Parquet file, which is not read")
        try:
            return self._read(self._document())
        except Exception as error:
            self._as_bytes = self._is_binary
            self._leave_out()
            log.debug("astropy does not read the VOTable as it is: %s", error)
        try:
            return self._read(self._document())
        except Exception:  # the rows are the cause, not the head
            if self._rows is None or self._is_binary:
                raise
            return self._read_good_cells()

    def _read(self, document: bytes, *, rows: bool = True) -> Table:
        with without_warnings():
            element = parse(io.BytesIO(document), verify="ignore").get_first_table()
            table = element_as_table(element)
        for param in self._params:
            name = param.attributes.get("name") or param.attributes.get("ID") or ""
            if _is_text(param) and (length := _dimensions(param)[:-1]) and isinstance(table.meta.get(name), str):
                table.meta[name] = split_texts(table.meta[name], int(length[0]))
        if rows:
            self._restore_texts(table)
        return table

    def _read_fits(self) -> Table:
        stream = self._rows.first("STREAM") if self._rows is not None else None
        if stream is None:
            raise SAMPClientError("The VOTable has a FITS element without a STREAM")
        with without_warnings(), open_hdus(io.BytesIO(_stream_bytes(self._data, stream, self._base))) as hdus:
            table = table_of_hdus(hdus)
        describe_table(table, self._data[self._table.start : self._table.end])
        return table

    # The document that astropy reads

    def _document(self, *, rows: bool = True) -> bytes:
        """Return a document that only contains this table."""
        names = ((name, self._table.attributes.get(name)) for name in ("ID", "name", "ucd", "utype"))
        about = self._table.first("DESCRIPTION")
        return b"".join([
            b'<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE',
            *(f" {name}={quoteattr(value)}".encode() for name, value in names if value),
            b">",
            self._source(about),
            *(self._head(each) for each in (*self._fields, *self._params)),
            b"<DATA>",
            self._row_source() if rows else NO_ROWS,
            b"</DATA></TABLE></RESOURCE></VOTABLE>",
        ])  # fmt: skip

    def _source(self, element: Element | None) -> bytes:
        return b"" if element is None else _unprefixed(self._data[element.start : element.end])

    def _row_source(self) -> bytes:
        if self._cells is not None:
            return _written_rows([self._cells[index] for index in range(len(self._fields))])
        if self._rows is None:
            return NO_ROWS
        if not self._is_binary:
            return self._source(self._rows)
        stream = self._rows.first("STREAM")
        if stream is None or not stream.attributes.get("href"):
            return self._source(self._rows)
        tag = self._format.encode()
        return b"<%s>%s</%s>" % (tag, _inline(_stream_bytes(self._data, stream, self._base)), tag)

    def _head(self, element: Element) -> bytes:
        """Return a FIELD or PARAM element, changed if astropy cannot read it."""
        attributes = {key: value for key in (*_KEPT, "value") if (value := element.attributes.get(key))}
        children = element.children
        if _is_text(element):
            if element.tag == "FIELD" and self._is_binary:
                if self._as_bytes:
                    attributes["datatype"] = "unsignedByte" if attributes["datatype"] == "char" else "short"
                    attributes.update(_flat_size(element))
                    children = element.all("DESCRIPTION", "LINK")
            else:
                attributes["arraysize"] = "*"  # astropy truncates longer texts
                attributes["datatype"] = attributes["datatype"].replace("string", "char")
        if element.tag == "PARAM":
            attributes.setdefault("value", "")
        return self._written(element.tag, attributes, children)

    def _written(self, tag: str, attributes: dict[str, str], children: Sequence[Element]) -> bytes:
        start = f"<{tag}" + "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items()) + ">"
        return b"".join([start.encode(), *(self._source(child) for child in children), f"</{tag}>".encode()])

    # Elements that astropy rejects

    def _leave_out(self) -> None:
        """Leave out elements of the head that astropy rejects, and warn about them."""
        about = self._table.first("DESCRIPTION")
        if about is not None and (error := _rejection(self._source(about))):
            self._table.children.remove(about)
            warn(f"The description of the table is left out: {error}")
        for param in list(self._params):
            if error := _rejection(self._head(param)):
                self._params.remove(param)
                warn(f"{param.title} is left out: {error}")
        for each in self._fields:
            if error := _rejection(self._head(each)):
                self._reduce(each, error)

    def _reduce(self, column: Element, error: str) -> None:
        """Reduce a FIELD to the attributes and children that astropy accepts."""
        children, attributes = column.children, dict(column.attributes)
        for child in list(children):
            if _rejection(self._written("FIELD", {"name": "x", "datatype": "int"}, [child])):
                children.remove(child)
        if _rejection(self._head(column)):
            column.children = [child for child in children if child.tag == "DESCRIPTION"]
            column.attributes = {key: attributes[key] for key in _NEEDED if key in attributes}
        if not self._is_binary and _rejection(self._head(column)):
            column.attributes.update(datatype="char", arraysize="*")
            warn(f"{column.title} is read as text: {error}")
        else:
            warn(f"Parts of the definition of {column.title} are left out: {error}")

    def _read_good_cells(self) -> Table:
        """Read the cells one by one. Absent cells and cells that do not match the type of the column become missing."""
        self._cells = _cells(self._source(self._rows), range(len(self._fields)))
        bad = []
        for index, texts in self._cells.items():
            head = self._head(self._fields[index])
            numbers = _bad_cells(head, texts, 0, len(texts)) if not _is_text(self._fields[index]) else []
            if numbers:
                bad.append(f"{self._fields[index].title} ({len(numbers)}, such as {texts[numbers[0]]!r})")
            for number in numbers:
                texts[number] = ""
        table = self._read(self._document())
        which = f" in: {', '.join(bad)}" if bad else ", because rows have more or fewer cells than there are columns"
        warn(f"Cells of the table cannot be read and are missing{which}")
        return table

    # Texts

    def _restore_texts(self, table: Table) -> None:
        """In columns of texts, replace the values that astropy has read by the correct texts."""
        arrays = [index for index, each in enumerate(self._fields) if _is_text(each) and _dimensions(each)[:-1]]
        cells = self._cells or {}
        if self._rows is not None and not self._is_binary and arrays:
            cells = cells or _cells(self._source(self._rows), arrays)
        for index, (name, each) in enumerate(zip(table.colnames, self._fields, strict=True)):
            if not _is_text(each) or (self._is_binary and not self._as_bytes):
                continue
            sizes = _dimensions(each)
            length = int(sizes[0]) if len(sizes) > 1 else None
            if self._as_bytes:
                values = _shaped(decode_texts(table[name], each.attributes["datatype"], length), sizes)
            elif length is None:
                values = _plain(table[name], sizes)
            else:
                values = _shaped([split_texts(text, length) for text in cells[index]], sizes)
            _replace(table, name, values)


def _is_text(element: Element) -> bool:
    return element.attributes.get("datatype") in _TEXTS


def _dimensions(element: Element) -> list[str]:
    """Return the dimensions of a FIELD or PARAM, such as ``["5", "3"]``; ``["*"]`` also if they are invalid."""
    text = "".join(element.attributes.get("arraysize", "").split())
    sizes = text.split("x") if text else ["1"]
    inner, last = sizes[:-1], sizes[-1]
    if not all(size.isdecimal() and int(size) for size in inner) or element.attributes.get("datatype") == "string":
        return ["*"]
    return [*inner, last if last.isdecimal() else "*"]


def _flat_size(element: Element) -> dict[str, str]:
    """Return the attribute ``arraysize`` for texts that are read as a one-dimensional array."""
    sizes = _dimensions(element)
    if sizes[-1] == "*":
        return {"arraysize": "*"}
    count = 1
    for size in sizes:
        count *= int(size)
    return {"arraysize": str(count)}


def _plain(column: Any, sizes: list[str]) -> Any:
    """Return a column of texts, in which missing texts are empty."""
    texts: Any = np.ma.filled(np.ma.asarray(column, dtype=object), "")
    return texts if sizes[-1] == "*" else texts.astype(np.str_)


def _shaped(rows: list[list[str]], sizes: list[str]) -> Any:
    """Convert rows to a column of texts, or of arrays of texts, with the dimensions of the FIELD."""
    is_variable = sizes[-1] == "*"
    if len(sizes) == 1:
        return np.array([row[0] for row in rows], dtype=object if is_variable else np.str_)
    if is_variable:
        made = np.empty(len(rows), dtype=object)
        for index, row in enumerate(rows):
            made[index] = np.array(row, dtype=np.str_)
        return made
    shape = [int(size) for size in reversed(sizes[1:])]
    count = int(np.prod(shape))
    return np.array([(row + [""] * count)[:count] for row in rows], dtype=np.str_).reshape(len(rows), *shape)


def _replace(table: Table, name: str, values: Any) -> None:
    old = table[name]
    meta = {key: value for key, value in old.meta.items() if key != _DATATYPE}  # the type may have changed
    column = Column(values, name=name, unit=old.unit, description=old.description, meta=meta)
    table.replace_column(name, column, copy=False)


def _cells(rows: bytes, indices: Sequence[int]) -> dict[int, list[str]]:
    """Return the texts of some columns of a TABLEDATA element. Leading blanks are kept, unlike in astropy."""
    columns: dict[int, list[str]] = {index: [] for index in indices}
    parts: list[str] = []
    index, row = -1, 0
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def on_start(tag: str, _attributes: dict[str, str]) -> None:
        nonlocal index
        if tag == "TR":
            index = -1
        elif tag == "TD":
            index += 1
            parser.CharacterDataHandler = parts.append if index in columns else None

    def on_end(tag: str) -> None:
        nonlocal row
        if tag == "TD" and index in columns:
            columns[index].append("".join(parts))
            parts.clear()
            parser.CharacterDataHandler = None
        elif tag == "TR":
            row += 1
            for texts in columns.values():
                texts.extend([""] * (row - len(texts)))

    parser.StartElementHandler, parser.EndElementHandler = on_start, on_end
    parser.Parse(rows, True)
    return columns


def _written_rows(columns: Sequence[Sequence[str]]) -> bytes:
    """Make a TABLEDATA element from the texts of its cells."""
    rows = ("".join(f"<TD>{escape(text)}</TD>" for text in row) for row in zip(*columns, strict=True))
    return f"<TABLEDATA>{''.join(f'<TR>{row}</TR>' for row in rows)}</TABLEDATA>".encode()


def _bad_cells(head: bytes, texts: Sequence[str], start: int, end: int) -> list[int]:
    """Find the cells of a column that astropy rejects, by bisection, and return their row numbers."""
    if start == end or not _rejection(head, _written_rows([texts[start:end]])):
        return []
    if end - start == 1:
        return [start]
    middle = (start + end) // 2
    return _bad_cells(head, texts, start, middle) + _bad_cells(head, texts, middle, end)


def _unprefixed(source: bytes) -> bytes:
    """Return a part of the document without namespace prefixes, because their declarations are in other parts."""
    prefix = re.match(rb"<([\w.-]+:)", source)
    return source if prefix is None else re.sub(rb"(</?)" + re.escape(prefix[1]), rb"\1", source)


def _rejection(part: bytes, rows: bytes = NO_ROWS) -> str:
    """Return the reason why astropy rejects a part of a TABLE; an empty string if astropy accepts it."""
    field = b"" if part.startswith(b"<FIELD") else b'<FIELD name="x" datatype="int"/>'
    inside = (field + part) if part.startswith(b"<PARAM") else (part + field)
    inside += b"<DATA>%s</DATA>" % rows
    document = b'<VOTABLE version="1.4"><RESOURCE><TABLE>%s</TABLE></RESOURCE></VOTABLE>' % inside
    try:
        with without_warnings():
            parse(io.BytesIO(document), verify="ignore").get_first_table().to_table(use_names_over_ids=True)
    except Exception as error:
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    """Return the first line of an error without the position, because the user has never seen this document."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"^\S*:\d+:\d+: |^None:\?:\?: |^\?:\?: ", "", lines[0])


# Streams


def _stream_bytes(data: bytes, stream: Element, base: str) -> bytes:
    """Return the content of a stream, which is inline or at the URL in ``href``."""
    encoding = stream.attributes.get("encoding", "none").strip().lower()
    href = stream.attributes.get("href", "").strip()
    if href:
        url = urljoin(base, href)
        if _origin(url) != _origin(base):  # a table must not make this program fetch data from another origin
            raise SAMPClientError(f"The rows of the VOTable come from another source, {url}: they are not fetched")
        with local_copy(url) as path:
            content = path.read_bytes()
    else:
        content, encoding = _text(data, stream).encode(), "base64"
    if encoding == "base64":
        return base64.b64decode(content)
    if encoding == "gzip":
        return gzip.decompress(content)
    if encoding in {"none", "dynamic"}:
        return content
    raise SAMPClientError(f"The VOTable has a stream with the unknown encoding {encoding!r}")


def _origin(url: str) -> tuple[str, str]:
    """Return the scheme, host and port of a URL; the result is the same for all files on this machine."""
    parts = urlsplit(url)
    return (parts.scheme, parts.netloc.lower() if file_url_to_path(url) is None else "")


def _inline(content: bytes) -> bytes:
    return b'<STREAM encoding="base64">' + base64.b64encode(content) + b"</STREAM>"
