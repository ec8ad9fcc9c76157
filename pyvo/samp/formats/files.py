# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files and URLs to send. The first bytes identify the format; in a FITS file the headers identify the content."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ..errors import SAMPClientError, SAMPTypeError, SAMPValueError, warn, without_warnings
from ..transport.urls import file_url_to_local_path
from .detection import PEEK_SIZE, Peek, decompress_prefix, fits_kind, is_fits, is_votable, peek_at, text_formats
from .fetching import local_copy, read_prefix
from .model import SUPPORTED_TYPES, MessageFormat, Sendable
from .readers import read_fits_table, read_other_table, read_table
from .sky import coverage_formats
from .tables import sendable_table
from .tolerant_votable import with_streams_inline

_RASTER_IMAGES = {
    b"\x89PNG\r\n\x1a\n": ("image.load.png",),
    b"\xff\xd8\xff": ("image.load.jpeg", "image.load.jpg"),
    b"GIF8": ("image.load.gif",),
}
_CDF = (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02")
#: The scheme of a URL, with at least two letters because a single letter is a drive on Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:", re.ASCII)
#: The name of the message parameter for the id, by the kind of object.
_ID_KEYS = {"table": "table-id", "image": "image-id", "spectrum": "spectrum-id", "coverage": "coverage-id"}


def adapt_file(obj: Any) -> Sendable | None:
    """
    Return the formats of a file, given by its path or URL; None for any other object.

    A file in a format that other programs read is sent unchanged. Otherwise the table in it is sent. Raise
    FileNotFoundError if the file does not exist, SAMPClientError if the URL cannot be read, and SAMPTypeError if other
    programs cannot load the content.
    """
    if not isinstance(obj, str | os.PathLike):
        return None
    text = os.fspath(obj)
    if isinstance(obj, str) and re.match(_URL.pattern + "/", text, re.ASCII):
        local = file_url_to_local_path(text)
        if local is None:
            return _detect_url(text)
        text = local
    path = Path(text).expanduser().absolute()
    if not _exists(path):
        raise FileNotFoundError(_no_such_file(text))
    if not path.is_file():
        raise SAMPTypeError(f"{text!r} is not a file. Supported types: {SUPPORTED_TYPES}.")
    return _detect(peek_at(path), path.name, path, None)


def _detect_url(url: str) -> Sendable:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SAMPValueError(f"{url!r} is not a valid URL: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise SAMPClientError(f"Only http, https and file URLs can be sent, not {url!r}")
    name = unquote(PurePosixPath(parts.path).name) or "data"
    return _detect(lambda count: decompress_prefix(read_prefix(url, count), count), name, None, url)


def _detect(peek: Peek, name: str, path: Path | None, url: str | None) -> Sendable:
    beginning = peek(PEEK_SIZE)
    size = path.stat().st_size if path is not None else 0

    def unchanged(kind: str, *formats: MessageFormat) -> Sendable:
        count = partial(_count_rows, path, url) if kind == "table" else None
        return Sendable(kind, name, formats, size, path, url, count)

    if is_fits(beginning) and (kind := fits_kind(peek)) != "colfits":
        if kind == "coverage":
            return unchanged(kind, *coverage_formats(None))
        return unchanged(kind, MessageFormat(f"{kind}.load.fits", ".fits", id_key=_ID_KEYS[kind]))
    if is_votable(peek):
        return unchanged("table", MessageFormat("table.load.votable", ".vot", _inline_writer(path, url), "table-id"))
    for magic, mtypes in _RASTER_IMAGES.items():
        if beginning.startswith(magic):
            suffix = f".{mtypes[-1][-3:]}"
            return unchanged("picture", *(MessageFormat(mtype, suffix, id_key="image-id") for mtype in mtypes))
    if beginning.startswith(_CDF):
        return unchanged("table", MessageFormat("table.load.cdf", ".cdf", id_key="table-id"))
    with local_copy(url, path) as file:
        table = read_fits_table(file) if is_fits(beginning) else read_other_table(file, text_formats(beginning, name))
    if table is None:
        raise SAMPTypeError(
            f"The format of {name!r} is unknown. Files in these formats can be sent: FITS, VOTable, ECSV, CSV and "
            "other table formats that astropy reads, MOC, PNG, JPEG, GIF, CDF."
        )
    return sendable_table(table, name)


def _count_rows(path: Path | None, url: str | None) -> int:
    with local_copy(url, path) as file, without_warnings():  # about deviations from the standard in the file
        return len(read_table(file, url or ""))


def _inline_writer(path: Path | None, url: str | None) -> Callable[[BinaryIO], object] | None:
    """
    Return a function that writes a VOTable with its rows inline, if it refers to another local file; else None.

    The file to which the VOTable refers is not sent, so recipients could not read the rows.
    """
    if path is None:  # for a URL the recipients can resolve the reference to the other file
        return None
    try:
        document = with_streams_inline(path, url or "")
    except SAMPClientError as error:
        warn(f"{path.name} is sent unchanged, although its rows are in another file: {error}")
        return None
    return None if document is None else lambda file: file.write(document)


def file_or_url_as(place: str | os.PathLike[str], mtype: str) -> Sendable:
    """
    Return a file or URL to be sent with an MType given by the user. The content is not read.

    The recipient may support formats, compressions and URLs that this package cannot read.
    """
    text = os.fspath(place)
    kind = mtype.partition(".")[0]
    chosen = next(
        # Aladin loads a coverage by a script
        (each for each in coverage_formats(None) if each.make_params is not None and each.mtype == mtype),
        MessageFormat(mtype, "", id_key=_ID_KEYS.get(kind)),
    )
    kind = kind if kind in _ID_KEYS else "file"
    path = Path((isinstance(place, str) and file_url_to_local_path(text)) or text).expanduser().absolute()
    if _exists(path):
        url = None if path.is_file() else path.as_uri()
        return Sendable(kind, path.name, (chosen,), path=path if url is None else None, url=url)
    if isinstance(place, str) and _URL.match(text):
        name = PurePosixPath(unquote(re.split("[?#]", text)[0])).name
        return Sendable(kind, name if len(name) < 100 else "data", (chosen,), url=text)
    raise FileNotFoundError(_no_such_file(text))


def _exists(path: Path) -> bool:
    """Return whether a file or directory exists; False for a string that cannot be a path."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    except ValueError:  # the string contains NUL
        pass
    return False


def _no_such_file(text: str) -> str:
    shown = text if len(text) <= 200 else text[:200] + "..."  # the string may be the content of a file
    return f"There is no file {shown!r}, and it is not a URL either. Supported types: {SUPPORTED_TYPES}."
