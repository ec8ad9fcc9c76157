# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Detect the format of a file from the structure of its content, not from single words in it."""

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

#: Returns a given number of bytes from the beginning of a file, decompressed; fewer only if the file is shorter.
Peek = Callable[[int], bytes]

#: Number of bytes that are read first, and maximum number, to find the end of a header.
PEEK_SIZE = 64 * 1024
MAX_PEEK_SIZE = 64 * 1024 * 1024

#: Functions that open compressed files, by the first bytes of the files.
_DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_BLOCK, _CARD = 2880, 80
#: Everything that may precede the root element of an XML document.
_PROLOG = re.compile(
    rb"(?:\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE(?:[^\[>\"']|\"[^\"]*\"|'[^']*'|\[.*?\]\s*(?=>))*>)*", re.DOTALL
)
_ROOT = re.compile(rb"<(?:[\w.-]+:)?VOTABLE[\s/>]")


def peek_at(place: Place) -> Peek:
    """Return a function that reads the first bytes of a file, and decompresses them (gzip, bzip2) if needed."""

    def peek(count: int) -> bytes:
        with place.open("rb") as file:
            return decompress_prefix(file.read(count), count)

    return peek


def open_decompressed(file: BinaryIO) -> BinaryIO:
    """Return a file object that decompresses a file; `file` itself if it is not compressed."""
    beginning = file.read(8)
    file.seek(0)
    for magic, opener in _DECOMPRESSORS.items():
        if beginning.startswith(magic):
            return cast("BinaryIO", opener(file))
    return file


def decompress_prefix(beginning: bytes, count: int) -> bytes:
    """Decompress the first bytes of a file if they are compressed (gzip, bzip2); return at most `count` bytes."""
    content = b""
    while beginning and len(content) < count:  # a compressed file may consist of many members
        if beginning.startswith(b"\x1f\x8b"):
            member: Any = zlib.decompressobj(wbits=31)
        elif beginning.startswith(b"BZh"):
            member = bz2.BZ2Decompressor()
        else:
            return content or beginning[:count]
        try:
            content += member.decompress(beginning, count - len(content))
        except (zlib.error, OSError):
            break
        beginning = member.unused_data
    return content


def _growing_prefixes(peek: Peek) -> Iterator[bytes]:
    """Yield longer and longer beginnings of a file, up to its end or `MAX_PEEK_SIZE`."""
    size = PEEK_SIZE
    beginning = peek(size)
    yield beginning
    while len(beginning) >= size < MAX_PEEK_SIZE:
        size *= 4
        beginning = peek(size)
        yield beginning


# FITS


def is_fits(beginning: bytes) -> bool:
    """Return whether the first bytes are those of a FITS file."""
    return beginning.startswith((b"SIMPLE  =", b"XTENSION="))


def fits_kind(peek: Peek) -> str:
    """
    Return the kind of content of a FITS file: ``"table"``, ``"colfits"``, ``"image"`` or ``"coverage"``.

    The kind is that of the first HDU with data. In a colfits table the columns are stored as the cells of one row; only
    STIL reads this format. Raise SAMPTypeError if the file contains no data, or ends within a header.
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
    """Return whether the data of an HDU are a VOTable that describes the next HDU. STIL (TOPCAT, STILTS) writes it."""
    return header.get("VOTMETA") is True and header.get("NAXIS") == 1


def is_by_columns(header: Any) -> bool:
    """Return whether a table is a ``colfits`` table of STIL (TOPCAT, STILTS): one row whose cells are the columns."""
    return header.get("COLFITS") is True or "ColFits" in str(header.get("STILCLAS", ""))


def _headers(peek: Peek) -> Iterator[Any]:
    """Yield the headers of a FITS file. Read only as much of the file as needed."""
    from astropy.io import fits  # noqa: PLC0415

    start, header = 0, None
    for beginning in _growing_prefixes(peek):
        while (end := _end_of_header(beginning, start)) is not None:
            with without_warnings():
                header = fits.Header.fromstring(beginning[start:end].decode("ascii", "replace"))
            yield header
            start = end + -(-_data_size(header) // _BLOCK) * _BLOCK
    if header is None:
        raise SAMPTypeError("The file begins like a FITS file, but its first header has no END card")


def _end_of_header(beginning: bytes, start: int) -> int | None:
    """Return the offset of the first byte after a header; None if the header is incomplete."""
    for card in range(start, len(beginning) - 7, _CARD):
        if beginning[card : card + 8] == b"END     ":
            return start + -(-(card + _CARD - start) // _BLOCK) * _BLOCK
    return None


def _data_size(header: Any) -> int:
    """Return the size of the data of an HDU in bytes."""
    axes = [int(header.get(f"NAXIS{number}", 0)) for number in range(1, int(header.get("NAXIS", 0)) + 1)]
    if axes and axes[0] == 0 and header.get("GROUPS"):  # random groups, as in old radio interferometry data
        axes = axes[1:]
    size = 1 if axes else 0
    for axis in axes:
        size *= axis
    return abs(int(header.get("BITPIX", 8))) // 8 * int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + size)


# XML and text


def is_votable(peek: Peek) -> bool:
    """Return whether a file is a VOTable: an XML document whose root element is VOTABLE."""
    for beginning in _growing_prefixes(peek):
        text = _plain_xml(beginning)
        end = cast("re.Match[bytes]", _PROLOG.match(text)).end()
        if _ROOT.match(text, end):
            return True
        if not text.startswith((b"<!", b"<?"), end):  # otherwise a comment may continue beyond the bytes read so far
            return False
    return False


def _plain_xml(beginning: bytes) -> bytes:
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if beginning.startswith(mark):
            return beginning[2:].decode(encoding, "replace").encode()
    return beginning.removeprefix(b"\xef\xbb\xbf")


def text_formats(beginning: bytes, name: str) -> list[tuple[str, str]]:
    """Return the formats (by astropy's names) and encodings to try for a file that is neither FITS nor VOTable."""
    for magic, kind in ((b"PAR1", "parquet"), (b"\x89HDF", "hdf5")):
        if beginning.startswith(magic):
            return [(kind, "")]
    encodings = ["utf-8", "latin-1"]  # STIL writes its text formats in Latin-1
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
