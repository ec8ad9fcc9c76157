# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Convert the rows of a VOTable in TABLEDATA to numpy arrays, many rows at a time.

Theory of operation: the positions of all ``<`` in a block are found at once. Each row must consist of ``<TR>``, one
``<TD>`` and ``</TD>`` for each field, and ``</TR>``. Any other sequence means that there are comments, CDATA sections,
attributes or absent cells. Plain decimal numbers are converted all at once (`_numbers`), other cells by Python's
``float`` and ``int``, which astropy calls as well.

`OtherReaderNeeded` is raised for data that astropy may read differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .votable_reader_rows import Array, ColumnStore, Converted, OtherReaderNeeded, as_arrays, as_objects, find_null

#: The white space characters of XML, which astropy's reader strips from cells.
WHITE_SPACE = " \t\r\n"
#: The values and masks of booleans by their texts.
BOOLEANS = {
    **dict.fromkeys(("T", "TRUE", "1", "true", "True", "t"), (True, False)),
    **dict.fromkeys(("F", "FALSE", "0", "false", "False", "f"), (False, False)),
    **dict.fromkeys(("", "?"), (False, True)),
}
BITS = {"1": (True, False), "0": (False, False), "": (False, True)}
ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
REFERENCE = re.compile(r"&(?:([a-z]+)|#([0-9]+)|#x([0-9A-Fa-f]+));")

#: Numbers with fewer characters than this are converted all at once.
WIDTH = 24
#: Whether the significand of long doubles has at least 64 bits, as on Intel processors.
_HAS_LONG_DOUBLES = np.finfo(np.longdouble).nmant >= 63
#: Powers of ten, which long doubles represent exactly.
_POWERS = np.array([10**power for power in range(19)], dtype="i8").astype(np.longdouble)


class TabledataRows:
    """
    Convert rows of TABLEDATA.

    Parameters
    ----------
    stores : list of ColumnStore
        The stores that get the values.
    encoding : str
        The encoding of the document: "utf-8" or "ascii".
    prefix : bytes
        The namespace prefix of the elements, such as ``b"vot:"``.
    """

    def __init__(self, stores: list[ColumnStore], encoding: str, prefix: bytes) -> None:
        self._stores = stores
        self._encoding = encoding
        self._prefix = prefix
        self._converters = [_cell_converter(store) for store in stores]
        kinds = ["O" if convert is not _cells_to_scalars else store.dtype.kind
                 for store, convert in zip(stores, self._converters, strict=True)]
        #: The numbers of the columns of floats and of integers, whose cells are converted all at once.
        self._floats, self._integers = (
            np.array([number for number, kind in enumerate(kinds) if kind in wanted], dtype=np.intp)
            for wanted in ("f" if _HAS_LONG_DOUBLES else "", "iu")
        )

    def add(self, block: bytes) -> int:
        """Convert a block of complete rows, and return the total number of rows."""
        cells = _Cells(self._plain(block), len(self._stores), self._encoding)
        if not len(cells.starts):
            return len(self._stores[0])
        left = set(range(len(self._stores)))
        if not cells.has_references:
            for columns, as_floats in ((self._floats, True), (self._integers, False)):
                converted = cells.numbers(columns, as_floats=as_floats) if len(columns) else None
                if converted is not None:
                    self._put_numbers(cells, columns, *converted)
                    left -= set(columns.tolist())
        for number in left:
            store = self._stores[number]
            store.put(*self._converters[number](cells.texts(number), store))
        return len(self._stores[0])

    def _put_numbers(self, cells: _Cells, columns: Array, values: Array, is_irregular: Array) -> None:
        """Store columns of numbers. Convert irregular cells, such as empty ones, one by one."""
        for place, number in enumerate(columns.tolist()):
            store = self._stores[number]
            column, irregular = values[:, place], np.flatnonzero(is_irregular[:, place])
            missing = None
            if len(irregular):
                column = column.copy()
                column[irregular], mask = self._converters[number](cells.texts(number, irregular), store)
                if mask is not None and store.dtype.kind != "f":
                    missing = np.zeros(len(column), dtype=bool)
                    missing[irregular] = mask
            if store.dtype.kind == "f":
                store.put(*_as_floats(column, store))
            else:
                store.put(*_as_integers(column, missing, store, store.dtype))

    def _plain(self, block: bytes) -> bytes:
        """Check the characters of a block, and return it without namespace prefixes and carriage returns."""
        if self._prefix:
            block = block.replace(b"<" + self._prefix, b"<").replace(b"</" + self._prefix, b"</")
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        codes = np.frombuffer(block, dtype="u1")
        controls = np.count_nonzero(codes < 32) - np.count_nonzero(codes == 10) - np.count_nonzero(codes == 9)
        if controls or (b"]" in block and b"]]>" in block):
            raise OtherReaderNeeded("characters that XML does not have")
        return block


class _Cells:
    """The cells of a block: their positions, texts and numbers."""

    def __init__(self, block: bytes, columns: int, encoding: str) -> None:
        self._block = block
        self._codes = np.frombuffer(block, dtype="u1")
        tags = self._tags(2 * columns + 2)
        #: The offsets of the cells, as arrays of rows times columns.
        self.starts = tags[:, 1:-1:2] + 4
        self.ends = np.maximum(tags[:, 2:-1:2], self.starts)
        try:
            self._text = block.decode(encoding)
        except UnicodeDecodeError as error:
            raise OtherReaderNeeded("text in another encoding") from error
        self._is_ascii = len(self._text) == len(block)
        if not self._is_ascii and ("\ufffe" in self._text or "\uffff" in self._text):
            raise OtherReaderNeeded("characters that XML does not have")
        self.has_references = b"&" in block
        if self.has_references:
            self._check_references()

    def _tags(self, count: int) -> Array:
        """Return the positions of all tags, `count` in each row. The tag of an empty element counts twice."""
        places: Array = np.flatnonzero(self._codes == ord("<"))
        padded = self._block + b"    "  # four bytes can be read at each position
        words = np.ndarray((len(self._block),), "<u4", padded, strides=(1,))
        tags = words[places]
        is_empty = tags == _word(b"<TD/")
        if is_empty.any():
            places = np.repeat(places, 1 + is_empty)
            tags = words[places]
        if len(places) % count:
            raise OtherReaderNeeded("rows that do not have one cell for each field")
        places, tags = places.reshape(-1, count), tags.reshape(-1, count)
        opening, closing = tags[:, 1:-1:2] == _word(b"<TD>"), tags[:, 2:-1:2] == _word(b"</TD")
        is_empty = places[:, 1:-1:2] == places[:, 2:-1:2]
        last = self._codes[np.minimum(places[:, 2::2], len(self._codes) - 5) + 4]
        if not (
            (tags[:, 0] == _word(b"<TR>")).all()
            and (tags[:, -1] == _word(b"</TR")).all()
            and (opening & closing | is_empty).all()
            and (last == ord(">")).all()
            and (self._codes[np.minimum(places[:, -1], len(self._codes) - 5) + 4] == ord(">")).all()
        ):
            raise OtherReaderNeeded("rows that do not have one cell for each field")
        return places

    def _check_references(self) -> None:
        """Check that only cells contain references."""
        ampersands = np.flatnonzero(self._codes == ord("&"))
        after = np.searchsorted(self.starts.ravel(), ampersands, side="right") - 1
        if (after < 0).any() or (ampersands > self.ends.ravel()[after]).any():
            raise OtherReaderNeeded("references between cells")

    def texts(self, column: int, rows: Any = slice(None)) -> list[str]:
        """Return the stripped texts of a column in some rows."""
        starts, ends = self.starts[rows, column], self.ends[rows, column]
        places = zip(starts.tolist(), ends.tolist(), strict=True)
        if self._is_ascii:
            text = self._text
            cells = [text[start:end] for start, end in places]
        else:
            block = self._block
            cells = [block[start:end].decode() for start, end in places]
        if self.has_references:
            cells = [REFERENCE.sub(_character, _checked(cell)) if "&" in cell else cell for cell in cells]
        if self.has_references or ((self._codes[starts] <= 32) | (self._codes[ends - 1] <= 32)).any():
            return [cell.strip(WHITE_SPACE) for cell in cells]
        return cells

    def numbers(self, columns: Array, *, as_floats: bool) -> tuple[Array, Array] | None:
        """
        Convert columns of plain decimal numbers.

        Parameters
        ----------
        columns : ndarray of int
            The numbers of the columns.
        as_floats : bool
            Whether to convert to floats instead of integers. A number with a decimal point is not an integer.

        Returns
        -------
        values, is_irregular : ndarray
            The numbers, and a mask of the cells that are not plain decimal numbers. None if most cells are not.
        """
        starts, ends = self.starts[:, columns], self.ends[:, columns]
        lengths = ends - starts
        is_irregular = (lengths < 1) | (lengths >= WIDTH)
        if 2 * np.count_nonzero(is_irregular) > is_irregular.size:
            return None
        use = ~is_irregular
        padded = b" " * WIDTH + self._block
        windows = np.ndarray((len(self._block) + 1,), f"V{WIDTH}", padded, strides=(1,))
        numbers = _numbers(windows[ends[use]].view("u1").reshape(-1, WIDTH), lengths[use], as_floats=as_floats)
        if numbers is None:
            return None
        values = np.zeros(starts.shape, dtype=numbers[0].dtype)
        values[use], is_irregular[use] = numbers
        return values, is_irregular


def _word(tag: bytes) -> int:
    return int.from_bytes(tag, "little")


def _numbers(letters: Array, lengths: Array, *, as_floats: bool) -> tuple[Array, Array] | None:
    """
    Convert decimal numbers all at once, and return them with a mask of the cells that cannot be converted here.

    Each number without its decimal point is an integer, which numpy reads quickly. It is then divided by a power of ten
    in long doubles. Both are exact, so the quotient has a single rounding error. Cases in which the error matters are
    detected.

    Parameters
    ----------
    letters : ndarray of uint8
        `WIDTH` characters for each cell, which end with the cell. Characters before the cell are overwritten.
    lengths : ndarray of int
        The number of characters of each cell.
    as_floats : bool
        Whether to convert to floats instead of integers.
    """
    count = len(letters)
    np.copyto(letters, ord(" "), where=np.arange(WIDTH, dtype="u1") < (WIDTH - lengths).astype("u1")[:, None])
    is_space, is_digit = letters == ord(" "), letters - np.uint8(ord("0")) < 10
    is_sign, is_point = (letters == ord("-")) | (letters == ord("+")), letters == ord(".")
    if np.count_nonzero(is_space) != count * WIDTH - int(lengths.sum()):
        return None
    is_irregular = np.zeros(count, dtype=bool)
    is_irregular[np.flatnonzero(~(is_space | is_digit | is_sign | is_point)) // WIDTH] = True
    points = np.flatnonzero(is_point)
    rows = points // WIDTH
    is_irregular[rows[1:][rows[1:] == rows[:-1]] if as_floats else rows] = True
    first = letters[np.arange(count), WIDTH - lengths]
    is_signed = (first == ord("-")) | (first == ord("+"))
    digits = lengths - is_signed
    digits[rows] -= 1
    starts_with_0 = letters[np.arange(count), np.minimum(WIDTH - lengths + is_signed, WIDTH - 1)] == ord("0")
    is_irregular |= (digits < 1) | (digits - starts_with_0 > 18)
    if 2 * np.count_nonzero(is_irregular) > count:
        return None
    if is_irregular.any():
        letters[is_irregular] = np.frombuffer(b"0".rjust(WIDTH), "u1")
        is_point[is_irregular] = False
    try:
        integers = np.fromstring((letters[~is_point] if len(points) else letters).tobytes(), dtype="i8", sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    if len(integers) != count:
        return None
    is_irregular |= (integers == 0) & (first == ord("-"))  # minus zero
    if not as_floats or not len(points):
        return integers.astype("f8" if as_floats else "i8"), is_irregular
    decimals = np.zeros(count, dtype=np.intp)
    decimals[rows] = WIDTH - 1 - points % WIDTH
    decimals[is_irregular] = 0
    exact = integers / _POWERS[decimals]
    values = exact.astype("f8")
    distance, spacing = np.abs((exact - values).astype("f8")), np.spacing(np.abs(values))
    # halfway between two doubles, whose spacing is half as large below a power of two: the rounding error may decide
    is_irregular |= (2 * distance == spacing) | (4 * distance == spacing)
    return values, is_irregular


def _checked(cell: str) -> str:
    if len(REFERENCE.findall(cell)) != cell.count("&"):
        raise OtherReaderNeeded("an ampersand that is not part of a reference")
    return cell


def _character(match: re.Match[str]) -> str:
    name, number, hexadecimal = match.groups()
    if name:
        if name not in ENTITIES:
            raise OtherReaderNeeded("an entity that the document defines")
        return ENTITIES[name]
    code = int(number[:9]) if number else int(hexadecimal[:9], 16)
    if code < 32 or 0xD800 <= code < 0xE000 or code in {0xFFFE, 0xFFFF} or code > 0x10FFFF:
        raise OtherReaderNeeded("a character that XML does not have")
    return chr(code)


def _cell_converter(store: ColumnStore) -> Callable[[Sequence[str], ColumnStore], Converted]:
    if store.is_text:
        return _cells_to_texts
    if store.datatype in {"floatComplex", "doubleComplex"}:
        raise OtherReaderNeeded("complex numbers in TABLEDATA")
    if store.is_variable:
        return _cells_to_variable_arrays
    return _cells_to_arrays if store.shape else _cells_to_scalars


def _cells_to_texts(cells: Sequence[str], store: ColumnStore) -> Converted:
    return (as_objects(cells) if store.dtype.kind == "O" else np.array(cells, dtype=store.dtype)), None


def _cells_to_scalars(cells: Sequence[str], store: ColumnStore) -> Converted:
    kind = store.dtype if store.element is None else store.element
    if kind.kind == "b":
        return _cells_to_booleans(cells, BITS if store.datatype == "bit" else BOOLEANS)
    return _cells_to_floats(cells, store, kind) if kind.kind == "f" else _cells_to_integers(cells, store, kind)


def _cells_to_booleans(cells: Sequence[str], known: dict[str, tuple[bool, bool]]) -> Converted:
    try:
        pairs = [known[cell] for cell in cells]
    except KeyError:
        try:
            pairs = [known[cell.upper()] for cell in cells]
        except KeyError as error:
            raise OtherReaderNeeded(f"{error} for a boolean") from error
    values, mask = zip(*pairs, strict=True)
    return np.array(values, dtype=bool), np.array(mask, dtype=bool)


def _cells_to_floats(cells: Sequence[str], store: ColumnStore, kind: np.dtype[Any]) -> Converted:
    blank = "nan" if store.null is None else repr(float(store.null))
    filled = [cell or blank for cell in cells] if "" in cells else cells
    try:
        wide = np.fromiter(map(float, filled), "f8", len(cells))
    except ValueError:  # astropy masks such cells, for example the word "null" of some services
        wide = np.fromiter((_float_or(cell, blank) for cell in filled), "f8", len(cells))
    return _as_floats(wide, store, kind)


def _as_floats(wide: Array, store: ColumnStore, kind: np.dtype[Any] | None = None) -> Converted:
    kind = store.dtype if kind is None else kind
    with np.errstate(over="ignore"):
        values = wide.astype(kind, copy=False)
    return values, find_null(values, store.null)


def _float_or(cell: str, blank: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float(blank)


def _cells_to_integers(cells: Sequence[str], store: ColumnStore, kind: np.dtype[Any]) -> Converted:
    missing = None
    try:
        try:
            values = np.fromiter(map(int, cells), "i8", len(cells))
        except ValueError:
            values, missing = _irregular_integers(cells, store)
    except (OverflowError, ValueError) as error:
        raise OtherReaderNeeded(f"an invalid integer in {store.name}") from error
    return _as_integers(values, missing, store, kind)


def _as_integers(values: Array, missing: Array | None, store: ColumnStore, kind: np.dtype[Any]) -> Converted:
    limits = np.iinfo(kind)
    if int(values.min()) < limits.min or int(values.max()) > limits.max:
        raise OtherReaderNeeded(f"an integer that is out of range in {store.name}")
    mask = None if store.null is None else values == int(store.null)
    return values, missing if mask is None else mask if missing is None else mask | missing


def _irregular_integers(cells: Sequence[str], store: ColumnStore) -> tuple[Array, Array]:
    blank = 0 if store.null is None else int(store.null)
    values, missing = [], []
    for given in cells:
        cell = given.lower()
        is_blank = cell in {"", "nan"}
        if is_blank:
            values.append(blank)
        else:
            values.append(int(cell, 16) if cell.startswith("0x") else int(cell, 10))
        missing.append(is_blank and (store.since_1_3 or cell == "nan"))
    return np.array(values, dtype="i8"), np.array(missing)


def _cells_to_arrays(cells: Sequence[str], store: ColumnStore) -> Converted:
    """Convert fixed-size arrays."""
    items = math.prod(store.shape)
    parts, missing = [], []
    for cell in cells:
        elements = list("".join(cell.split())) if store.datatype == "bit" else cell.split()
        missing.append(not cell)
        if not cell and store.since_1_3:
            elements = ["0"] * items
        if len(elements) != items or "," in cell:
            raise OtherReaderNeeded(f"arrays of a wrong size in {store.name}")
        parts.append(elements)
    flat = list(chain.from_iterable(parts))
    values, mask = _cells_to_scalars(flat, store)
    shape = (len(cells), *store.shape)
    whole = np.array(missing).reshape(-1, *(1 for _ in store.shape))
    return values.reshape(shape), whole if mask is None else mask.reshape(shape) | whole


def _cells_to_variable_arrays(cells: Sequence[str], store: ColumnStore) -> Converted:
    parts = [cell.split() for cell in cells]
    flat = list(chain.from_iterable(parts))
    if any("," in element for element in flat):
        raise OtherReaderNeeded(f"commas in {store.name}")
    if not flat:
        return as_arrays(np.zeros(0), None, [0] * len(cells)), None
    assert store.element is not None
    if store.element.kind == "f":
        try:
            values = np.fromiter(map(float, flat), "f8", len(flat))  # astropy does not convert them to single precision
        except ValueError as error:
            raise OtherReaderNeeded(f"an invalid number in {store.name}") from error
        mask = np.isnan(values) if store.null is None else values.astype(store.element) == store.null
    else:
        values, mask = _cells_to_scalars(flat, store)
    return as_arrays(values, mask, [len(part) for part in parts]), None
