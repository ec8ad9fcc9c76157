# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Detect the format of a file by its content: by its structure, never by a word somewhere in it."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from ..errors import SAMPTypeError, without_warnings
from .fetching import Place

#: Returns the first bytes of a file, unpacked; fewer than asked for only where the file ends.
Peek = Callable[[int], bytes]

#: Bytes that are read first, and at most, to find the end of a header.
PEEK_SIZE = 64 * 1024
MAX_PEEK_SIZE = 64 * 1024 * 1024

#: What opens packed files, by their first bytes.
_PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_BLOCK, _CARD = 2880, 80
#: What may stand in front of the root element of an XML document.
_PROLOG = re.compile(
    rb"(?:\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE(?:[^\[>\"']|\"[^\"]*\"|'[^']*'|\[.*?\]\s*(?=>))*>)*", re.DOTALL
)
_ROOT = re.compile(rb"<(?:[\w.-]+:)?VOTABLE[\s/>]")


def peek_at(place: Place) -> Peek:
    """Return a function that reads the first bytes of a file, unpacked if gzip or bzip2 packed it."""

    def peek(count: int) -> bytes:
        with place.open("rb") as file:
            return unpack(file.read(count), count)

    return peek


def unpacked(file: BinaryIO) -> BinaryIO:
    """Return a file that reads the unpacked content of a packed one; `file` itself if it is not packed."""
    beginning = file.read(8)
    file.seek(0)
    for magic, opener in _PACKED.items():
        if beginning.startswith(magic):
            return cast("BinaryIO", opener(file))
    return file


def unpack(beginning: bytes, count: int) -> bytes:
    """Unpack the first bytes of a file if gzip or bzip2 packed it; return at most `count` bytes."""
    unpacked = b""
    while beginning and len(unpacked) < count:  # such a file may consist of many members
        if beginning.startswith(b"\x1f\x8b"):
            member: Any = zlib.decompressobj(wbits=31)
        elif beginning.startswith(b"BZh"):
            member = bz2.BZ2Decompressor()
        else:
            return unpacked or beginning[:count]
        try:
            unpacked += member.decompress(beginning, count - len(unpacked))
        except (zlib.error, OSError):
            break
        beginning = member.unused_data
    return unpacked


def _growing_prefixes(peek: Peek) -> Iterator[bytes]:
    """Yield the beginning of a file, each time more of it, up to its end or `MAX_PEEK_SIZE`."""
    size = PEEK_SIZE
    beginning = peek(size)
    yield beginning
    while len(beginning) >= size < MAX_PEEK_SIZE:
        size *= 4
        beginning = peek(size)
        yield beginning


# FITS


def is_fits(beginning: bytes) -> bool:
    """Tell whether the first bytes are those of a FITS file."""
    return beginning.startswith((b"SIMPLE  =", b"XTENSION="))


def fits_kind(peek: Peek) -> str:
    """
    Return what a FITS file holds: ``"table"``, ``"colfits"``, ``"image"`` or ``"coverage"``.

    The first HDU with data decides. Only STIL reads colfits, tables whose columns are the cells of one row. Raise
    SAMPTypeError if there are no data, or the file ends within a header.
    """
    described, by_columns = False, False
    for header in _headers(peek):
        if "MOCVERS" in header or "MOCORDER" in header or header.get("ORDERING") in {"NUNIQ", "RANGE", "RANGE29"}:
            return "coverage"
        by_columns = by_columns or is_by_columns(header)
        if is_description(header):
            described = True
        elif header.get("XTENSION", "").strip() in {"BINTABLE", "A3DTABLE", "TABLE"} and not header.get("ZIMAGE"):
            return "colfits" if by_columns else "table"
        elif _data_size(header):
            return "image"
    if described:
        return "colfits" if by_columns else "table"
    raise SAMPTypeError("A FITS file without data cannot be sent")


def is_description(header: Any) -> bool:
    """Tell whether the data of an HDU are a VOTable about the next HDU, as STIL (TOPCAT, STILTS) writes it."""
    return header.get("VOTMETA") is True and header.get("NAXIS") == 1


def is_by_columns(header: Any) -> bool:
    """Tell whether STIL (TOPCAT, STILTS) wrote a table by columns (``colfits``): one row of columns."""
    return header.get("COLFITS") is True or "ColFits" in str(header.get("STILCLAS", ""))


def _headers(peek: Peek) -> Iterator[Any]:
    """Yield the headers of a FITS file, and read only as much of the file as they need."""
    from astropy.io import fits  # noqa: PLC0415

    start, header = 0, None
    for beginning in _growing_prefixes(peek):
        while (end := _end_of_header(beginning, start)) is not None:
            with without_warnings():
                header = fits.Header.fromstring(beginning[start:end].decode("ascii", "replace"))
            yield header
            start = end + -(-_data_size(header) // _BLOCK) * _BLOCK
    if header is None:
        raise SAMPTypeError("The file begins as a FITS file, but its first header has no end")


def _end_of_header(beginning: bytes, start: int) -> int | None:
    """Return the offset of what follows a header; None if the bytes end before the header does."""
    for card in range(start, len(beginning) - 7, _CARD):
        if beginning[card : card + 8] == b"END     ":
            return start + -(-(card + _CARD - start) // _BLOCK) * _BLOCK
    return None


def _data_size(header: Any) -> int:
    """Return the size of the data of an HDU in bytes."""
    axes = [int(header.get(f"NAXIS{number}", 0)) for number in range(1, int(header.get("NAXIS", 0)) + 1)]
    if axes and axes[0] == 0 and header.get("GROUPS"):  # random groups, as old radio telescopes wrote them
        axes = axes[1:]
    size = 1 if axes else 0
    for axis in axes:
        size *= axis
    return abs(int(header.get("BITPIX", 8))) // 8 * int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + size)


# XML and text


def is_votable(peek: Peek) -> bool:
    """Tell whether a file is a VOTable: an XML document whose root element is VOTABLE."""
    for beginning in _growing_prefixes(peek):
        text = _plain_xml(beginning)
        end = cast("re.Match[bytes]", _PROLOG.match(text)).end()
        if _ROOT.match(text, end):
            return True
        if not text.startswith((b"<!", b"<?"), end):  # otherwise a comment may end behind what was read
            return False
    return False


def _plain_xml(beginning: bytes) -> bytes:
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if beginning.startswith(mark):
            return beginning[2:].decode(encoding, "replace").encode()
    return beginning.removeprefix(b"\xef\xbb\xbf")


def text_formats(beginning: bytes, name: str) -> list[tuple[str, str]]:
    """Return formats (names of astropy) with encodings to try for a file that is neither FITS nor VOTable."""
    for magic, kind in ((b"PAR1", "parquet"), (b"\x89HDF", "hdf5")):
        if beginning.startswith(magic):
            return [(kind, "")]
    encodings = ["utf-8", "latin-1"]  # STIL writes its formats of text in Latin-1
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        text = beginning.decode(encodings[1])
        encodings = encodings[1:]
    if not text.strip() or re.search("[\0-\x08\x0e-\x1a\x7f]", text):
        return []
    kinds = ["ascii"]
    if re.search(r"^-+(\t-+)+\r?$", text, re.MULTILINE):
        kinds = ["tst"]  # Tab-Separated Table, as SkyCat and STIL write it
    elif text.startswith("# %ECSV"):
        kinds = ["ascii.ecsv"]
    elif name.lower().removesuffix(".gz").removesuffix(".bz2").endswith(".csv") or "," in text.partition("\n")[0]:
        kinds = ["ascii.csv", "ascii"]
    return [(kind, encoding) for kind in kinds for encoding in encodings]
