# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Convert the rows of a VOTable in BINARY and BINARY2 to numpy arrays, many rows at a time.

Theory of operation: if all fields have a fixed size, a block is an array of records. Otherwise a loop finds the start
of each row, and everything else is done for all rows at once. The values of each field are stored in a `ColumnStore`,
which `votable_reader_tabledata` uses as well.

`OtherReaderNeeded` is raised for data that astropy may read differently. Astropy then reads the whole document.
"""

from __future__ import annotations

import binascii
import io
import math
import string
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from astropy.io.votable import parse

from ..errors import SAMPClientError

__all__ = [
    "Array", "BinaryRows", "ColumnStore", "Converted", "OtherReaderNeeded", "as_arrays", "as_objects",
    "decode_base64", "find_null", "make_stores",
]  # fmt: skip

#: The bytes of a boolean. All other bytes are missing values; in an array they are errors.
BOOLEAN_TRUE, BOOLEAN_FALSE, BOOLEAN_MISSING = b"Tt1", b"Ff0", b"\0 ?"
Array = np.ndarray[Any, Any]
#: Values, and a mask that can be broadcast to them, or None.
Converted = tuple[Any, Any]


class OtherReaderNeeded(Exception):  # noqa: N818 - it is not an error
    """The document has to be read by astropy."""


class ColumnStore:
    """
    The values of one column that have been read so far, and their mask.

    Parameters
    ----------
    field : astropy.io.votable.tree.Field
        The field.
    since_1_3 : bool
        Whether the document is of version 1.3 or later.
    """

    def __init__(self, field: Any, *, since_1_3: bool) -> None:
        self.datatype: str = field.datatype
        self.since_1_3 = since_1_3
        self.name: str = field.ID
        self.is_text = self.datatype in {"char", "unicodeChar"}
        size = str(field.arraysize or "")
        self.is_variable = size.endswith("*")
        if self.is_variable and "x" in size:
            raise OtherReaderNeeded(f"multidimensional variable-length arrays in {self.name}")
        if self.is_variable and self.datatype == "bit":
            raise OtherReaderNeeded(f"variable-length arrays of bits in {self.name}")
        #: The numpy type of the values; object for variable-length values.
        full = np.dtype(field.converter.format)
        self.shape: tuple[int, ...] = full.shape
        self.dtype = full.base
        if full.itemsize == 0:
            raise OtherReaderNeeded(f"cells of size 0 in {self.name}")
        self.null = None if self.is_text else getattr(field.converter, "null", None)
        element = field.converter._base if self.dtype.kind == "O" and not self.is_text else None
        if self.shape:
            self.null = getattr(field.converter._base, "null", None)
        if element is not None:
            self.null = getattr(element, "null", None)
        if self.null is not None and np.isnan(self.null):
            raise OtherReaderNeeded(f"NaN as the null value of {self.name}")
        #: The numpy type of one element of a variable-length array.
        self.element = None if element is None else np.dtype(element.format)
        self._used = 0
        self._values = np.empty((0, *self.shape), dtype=self.dtype)
        self._mask = np.zeros((0, *self.shape), dtype=bool)

    def reserve(self, rows: int) -> None:
        """Allocate memory for a number of rows. The system provides most of it only when it is written to."""
        if rows > len(self._values):
            values, mask = np.empty((rows, *self.shape), dtype=self.dtype), np.zeros((rows, *self.shape), dtype=bool)
            values[: self._used], mask[: self._used] = self._values[: self._used], self._mask[: self._used]
            self._values, self._mask = values, mask

    def put(self, values: Any, mask: Any = None) -> Array:
        """Store the next rows, and return the stored values."""
        start, end = self._used, self._used + len(values)
        if end > len(self._values):
            self._resize(max(end, len(self._values) + len(self._values) // 4))
        self._values[start:end] = values
        self._used = end
        if mask is not None:
            self.mark(mask)
        return self._values[start:end]

    def mark(self, mask: Any) -> None:
        """Mask values in the rows that were stored last."""
        if mask.any():
            if self.shape and np.ndim(mask) == 1:
                mask = np.reshape(mask, (-1, *(1 for _ in self.shape)))
            self._mask[self._used - len(mask) : self._used] |= mask

    def _resize(self, rows: int) -> None:
        for array in (self._values, self._mask):
            array.resize((rows, *self.shape), refcheck=False)

    def detach(self) -> tuple[Array, Array]:
        """Return the values and the mask of all rows. The store is empty afterwards."""
        self._resize(self._used)
        values, mask = self._values, self._mask
        self._values, self._mask, self._used = values[:0], mask[:0], 0
        return values, mask

    def __len__(self) -> int:
        return self._used


def make_stores(fields: Sequence[Any], *, since_1_3: bool) -> list[ColumnStore]:
    """Make a store for each field. `since_1_3` is true for documents of version 1.3 or later."""
    if not fields:
        raise OtherReaderNeeded("a table without fields")
    return [ColumnStore(field, since_1_3=since_1_3) for field in fields]


def find_null(values: Array, null: Any) -> Array | None:
    """Return the mask of the values that stand for missing ones; None if no value can do so."""
    if null is not None:
        return np.asarray(values == null)
    return np.isnan(values) if values.dtype.kind in "fc" else None


def as_objects(cells: Sequence[Any]) -> Array:
    """Make an array of objects."""
    objects = np.empty(len(cells), dtype=object)
    objects[:] = cells
    return objects


@cache
def _astropy_widens_arrays() -> bool:
    """Return whether astropy reads variable-length float arrays as double; 8.0 does, 6.1 does not."""
    head = '<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="a" datatype="float" arraysize="*"/>'
    rows = "<DATA><BINARY><STREAM encoding='base64'>AAAAAQAAAAA=</STREAM></BINARY></DATA></TABLE></RESOURCE></VOTABLE>"
    table = parse(io.BytesIO((head + rows).encode()), verify="ignore").get_first_table()
    return bool(table.array["a"][0].dtype == np.float64)


def as_arrays(values: Array, mask: Array | None, counts: Sequence[int]) -> Array:
    """Split `values` into arrays with the lengths `counts`, in the types that astropy uses."""
    native = values.dtype.newbyteorder("=")
    widened = {"f": "f8", "i": "i8", "u": "i8"} if _astropy_widens_arrays() else {}
    wide = values.astype(widened.get(values.dtype.kind, native))
    missing = np.zeros(len(values), dtype=bool) if mask is None else mask
    objects = np.empty(len(counts), dtype=object)
    start = 0
    for row, count in enumerate(counts):
        end = start + count
        objects[row] = np.ma.array(wide[start:end], mask=missing[start:end]) if count else np.ma.array([])
        start = end
    return objects


# BINARY and BINARY2


@cache
def _base64_tables() -> tuple[Array, Array]:
    """
    Return tables that map the first two and the last two of four base64 letters to bits of the three decoded bytes.

    The highest bit is set for invalid letters.
    """
    digits = np.full(256, 64, dtype="u4")
    digits[np.frombuffer(string.ascii_letters.swapcase().encode() + b"0123456789+/", "u1")] = np.arange(64)
    one, other = np.tile(digits, 256), np.repeat(digits, 256)
    is_wrong = np.where((one | other) > 63, np.uint32(1 << 31), np.uint32(0))
    first, second = one << 2 | other >> 4 | (other & 15) << 12, one >> 2 << 8 | (one & 3) << 22 | other << 16
    return first | is_wrong, second | is_wrong


def decode_base64(letters: bytes) -> bytes:
    """Decode base64 like `binascii.a2b_base64` in its strict mode, but five times as fast."""
    count = max(0, len(letters) // 4 - 1)  # the last four letters may contain padding
    pairs = np.frombuffer(letters, "<u2", 2 * count).reshape(-1, 2)
    first, second = _base64_tables()
    words = first.take(pairs[:, 0])
    words |= second.take(pairs[:, 1])
    if count and words.max() >= 1 << 24:
        return binascii.a2b_base64(letters, strict_mode=True)  # raises the error
    last = binascii.a2b_base64(letters[4 * count :], strict_mode=True)
    decoded = np.empty((count, 3), dtype="u1")
    for place, column in enumerate(words.astype("<u4", copy=False).view("u1").reshape(-1, 4).T[:3]):
        decoded[:, place] = column
    return decoded.tobytes() + last


class _Segment(NamedTuple):
    """Consecutive fields of fixed size, optionally followed by a variable-length field."""

    dtype: np.dtype[Any]
    #: The number of the variable-length field. Its element count is the last item of the segment.
    variable: int | None
    #: The size of an element of that field in bytes.
    size: int


class BinaryRows:
    """
    Convert rows of BINARY or BINARY2.

    Parameters
    ----------
    stores : list of ColumnStore
        The stores that get the values.
    has_flags : bool
        Whether each row begins with flags for missing values (BINARY2).
    """

    def __init__(self, stores: list[ColumnStore], *, has_flags: bool) -> None:
        self._stores = stores
        self._has_flags = has_flags
        self._segments = self._layout()
        self._rest: list[bytes] = []
        self._count = 0  # number of bytes in _rest
        self._needed = 1

    def _layout(self) -> list[_Segment]:
        segments = []
        fields: list[Any] = [("flags", "u1", ((len(self._stores) + 7) // 8,))] if self._has_flags else []
        for number, store in enumerate(self._stores):
            if store.is_variable:
                segments.append(_Segment(np.dtype([*fields, ("count", ">u4")]), number, _element_type(store).itemsize))
                fields = []
            else:
                fields.append((f"c{number}", *_binary_type(store)))
        segments.append(_Segment(np.dtype(fields), None, 0))
        return segments

    def add(self, data: bytes) -> int:
        """Convert the complete rows received so far, and return the total number of rows."""
        self._rest.append(data)
        self._count += len(data)
        if self._count >= self._needed:
            whole = b"".join(self._rest)
            rest = whole[self._convert(whole) :]
            self._rest, self._count = [rest], len(rest)
        return len(self._stores[0])

    def finish(self) -> None:
        """Check that no bytes of an incomplete row are left."""
        if self._count:
            raise SAMPClientError(
                f"The table is cut off: its data end {self._count} bytes after the start of row "
                f"{len(self._stores[0]) + 1}"
            )

    def _convert(self, data: bytes) -> int:
        if len(self._segments) == 1:
            size = self._segments[0].dtype.itemsize
            rows = len(data) // size
            starts = np.arange(rows, dtype=np.intp) * size
            end = rows * size
        else:
            found, end = self._row_starts(data)
            starts = np.array(found, dtype=np.intp)
        self._needed = max(self._needed, 1)
        if not len(starts):
            return end
        flags = None
        text: list[str] = []  # the text of the whole block, when it is first needed
        for segment in self._segments:
            if not segment.dtype.itemsize:
                continue
            records = _records(data, segment.dtype, starts)
            if "flags" in (segment.dtype.names or ()):
                flags = _bits(records["flags"], len(self._stores))
            for name in segment.dtype.names or ():
                if name not in {"flags", "count"}:
                    self._put(int(name[1:]), *_fixed(records[name], self._stores[int(name[1:])]), flags)
            starts = starts + segment.dtype.itemsize
            if segment.variable is not None:
                counts = records["count"].astype(np.intp)
                store = self._stores[segment.variable]
                values = _variable_length(data, text, starts, counts, store)
                self._put(segment.variable, values, None, flags)
                starts = starts + counts * segment.size
        return end

    def _put(self, number: int, values: Any, mask: Any, flags: Array | None) -> None:
        store = self._stores[number]
        stored = store.put(values, mask)
        null = None if store.is_variable else find_null(stored, store.null)
        if null is not None:
            store.mark(null)
        if flags is not None:
            store.mark(flags[:, number])

    def _row_starts(self, data: bytes) -> tuple[list[int], int]:
        """
        Return the starts of the complete rows and the end of the last one.

        Store the number of bytes that the next row needs.
        """
        count = struct.Struct(">I").unpack_from
        steps = [(segment.dtype.itemsize - 4, segment.dtype.itemsize, segment.size) for segment in self._segments[:-1]]
        last = self._segments[-1].dtype.itemsize
        starts: list[int] = []
        position, end = 0, len(data)
        at = 0
        try:
            while position < end:
                at = position
                for before, whole, size in steps:
                    (number,) = count(data, at + before)
                    at += whole + number * size
                at += last
                if at > end:
                    break
                starts.append(position)
                position = at
        except struct.error:
            at += 1
        self._needed = max(1, at - position)
        return starts, position


def _binary_type(store: ColumnStore) -> tuple[Any, ...]:
    """Return the type of a fixed-size field in the binary data."""
    if store.is_text:
        length = store.dtype.itemsize // 4
        return ("u1", (length,)) if store.datatype == "char" else (">u2", (length,))
    if store.datatype == "bit" and store.shape:
        return "u1", ((math.prod(store.shape) + 7) // 8,)
    if store.dtype.kind == "b":
        return "u1", store.shape
    return store.dtype.newbyteorder(">"), store.shape


def _element_type(store: ColumnStore) -> np.dtype[Any]:
    """Return the type of one element of a variable-length field in the binary data."""
    if store.is_text:
        return np.dtype("u1" if store.datatype == "char" else ">u2")
    assert store.element is not None
    return np.dtype("u1") if store.element.kind == "b" else store.element.newbyteorder(">")


def _records(data: bytes, dtype: np.dtype[Any], starts: Array) -> Array:
    """Return the records at the given offsets, which need not be aligned."""
    if len(starts) * dtype.itemsize == len(data) or (len(starts) > 1 and starts[1] - starts[0] == dtype.itemsize):
        whole = np.diff(starts)
        if not len(whole) or (whole == dtype.itemsize).all():
            return np.frombuffer(data, dtype, len(starts), int(starts[0]))
    places = np.ndarray((len(data) - dtype.itemsize + 1,), dtype, data, strides=(1,))
    return places[starts]


def _bits(raw: Array, count: int) -> Array:
    return np.unpackbits(np.ascontiguousarray(raw), axis=1, count=count).astype(bool)


def _fixed(raw: Array, store: ColumnStore) -> Converted:
    """Convert a fixed-size field in some rows."""
    if store.is_text:
        return _characters(raw, store), None
    if store.datatype == "bit":
        if store.shape:
            return _bits(raw, math.prod(store.shape)).reshape(len(raw), *store.shape), None
        return (raw & 8) != 0, None  # astropy uses this bit
    if store.datatype == "boolean":
        return _booleans(raw, is_array=bool(store.shape))
    return raw, None


def _booleans(raw: Array, *, is_array: bool) -> Converted:
    values = np.isin(raw, np.frombuffer(BOOLEAN_TRUE, "u1"))
    mask = ~(values | np.isin(raw, np.frombuffer(BOOLEAN_FALSE, "u1")))
    if is_array and not np.isin(raw[mask], np.frombuffer(BOOLEAN_MISSING, "u1")).all():
        raise OtherReaderNeeded("an unknown byte for a boolean")
    return values, mask


def _characters(raw: Array, store: ColumnStore) -> Array:
    """Convert texts with one or two bytes for each character; NUL ends a text."""
    if store.datatype == "char":
        if raw.size and int(raw.max()) > 127:
            raise OtherReaderNeeded("non-ASCII text")
    elif ((raw >= 0xD800) & (raw < 0xE000)).any():
        raise OtherReaderNeeded("characters of four bytes")
    points = raw.astype("u4")
    ended = points == 0
    if (ended[:, :-1] & ~ended[:, 1:]).any():
        points[np.logical_or.accumulate(ended, axis=1)] = 0
    texts: Array = np.ascontiguousarray(points).view(store.dtype)[:, 0]
    return texts


def _variable_length(data: bytes, text: list[str], starts: Array, counts: Array, store: ColumnStore) -> Array:
    """Convert a variable-length field in some rows."""
    element = _element_type(store)
    places = zip(starts.tolist(), (starts + counts * element.itemsize).tolist(), strict=True)
    if store.is_text:
        if store.datatype == "char":
            if not text:
                text.append(data.decode("latin-1"))
            block = text[0]
            cells = [block[start:end] for start, end in places]
            if not "".join(cells).isascii():
                raise OtherReaderNeeded("non-ASCII text")
        else:
            try:
                cells = [data[start:end].decode("utf_16_be") for start, end in places]
            except UnicodeDecodeError as error:
                raise OtherReaderNeeded("an incomplete character") from error
        return as_objects(cells) if store.dtype.kind == "O" else np.array(cells, dtype=store.dtype)
    raw = np.frombuffer(b"".join([data[start:end] for start, end in places]), dtype=element)
    if store.datatype == "boolean":
        values, mask = _booleans(raw, is_array=False)
    else:
        values, mask = raw, find_null(raw, store.null)
    return as_arrays(values, mask, counts.tolist())
