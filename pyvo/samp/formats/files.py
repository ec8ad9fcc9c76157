# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What is in a file or behind a URL, by its content: the first bytes tell most, the header of a FITS file the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from ..errors import SAMPClientError, SAMPTypeError, SAMPValueError, warn, without_warnings
from ..transport.urls import file_url_to_path
from .detection import PEEK_SIZE, Peek, fits_kind, is_fits, is_votable, peek_at, text_formats, unpack
from .fetching import local_copy, read_prefix
from .fits_tables import read_fits_table
from .model import MessageFormat, Sendable
from .readers import read_other_table, read_table
from .registry import SUPPORTED_TYPES
from .sky import coverage_forms
from .tables import table_product
from .tolerant_votable import with_streams_inline

__all__ = ["detect_file"]

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": ("image.load.png",),
    b"\xff\xd8\xff": ("image.load.jpeg", "image.load.jpg"),
    b"GIF8": ("image.load.gif",),
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/", re.ASCII)


def detect_file(place: str | os.PathLike[str]) -> Sendable:
    """
    Find out what is in a file or behind a URL.

    Parameters
    ----------
    place : str or path
        Path or URL.

    Returns
    -------
    Product
        What can be sent of it: the file as it is where others read its format, or else what astropy reads in it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    SAMPClientError
        The URL cannot be read.
    SAMPTypeError
        It holds nothing that other programs could load.
    """
    text = os.fspath(place)
    if isinstance(place, str) and _URL.match(text):
        path = file_url_to_path(text)
        if path is None:
            return _detect_url(text)
        text = path
    path_of = Path(text).expanduser().absolute()
    if not path_of.exists():
        raise FileNotFoundError(f"There is no file {text!r}, and it is no URL either. What can be sent: {SUPPORTED_TYPES}.")
    if not path_of.is_file():
        raise SAMPTypeError(f"{text!r} is no file. What can be sent: {SUPPORTED_TYPES}.")
    return _product(peek_at(path_of), path_of.name, path_of, None)


def _detect_url(url: str) -> Sendable:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SAMPValueError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise SAMPClientError(f"Only http, https and file URLs can be sent, not {url!r}")
    name = unquote(PurePosixPath(parts.path).name) or "data"
    return _product(lambda count: unpack(read_prefix(url, count), count), name, None, url)


def _product(peek: Peek, name: str, path: Path | None, url: str | None) -> Sendable:
    head = peek(PEEK_SIZE)
    size = path.stat().st_size if path is not None else 0

    def as_it_is(kind: str, *forms: MessageFormat) -> Sendable:
        count = partial(_count_rows, path, url) if kind == "table" else None
        return Sendable(kind, name, forms, size, path, url, count)

    if is_fits(head) and (kind := fits_kind(peek)) != "colfits":
        forms = (MessageFormat(f"{kind}.load.fits", ".fits", id_key=f"{kind}-id"),)
        return as_it_is(kind, *(coverage_forms(None) if kind == "coverage" else forms))
    if is_votable(peek):
        return as_it_is("table", MessageFormat("table.load.votable", ".vot", _whole_votable(path, url), "table-id"))
    for magic, mtypes in _PICTURES.items():
        if head.startswith(magic):
            return as_it_is("picture", *(MessageFormat(mtype, f".{mtypes[-1][-3:]}", id_key="image-id") for mtype in mtypes))
    if head.startswith((b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02")):
        return as_it_is("table", MessageFormat("table.load.cdf", ".cdf", id_key="table-id"))
    with local_copy(url, path) as file:
        table = read_fits_table(file) if is_fits(head) else read_other_table(file, text_formats(head, name))
    if table is None:
        raise SAMPTypeError(f"What {name!r} holds is not known. Of files these can be sent: FITS, VOTable, ECSV, CSV "
                            "and other tables that astropy reads, MOC, PNG, JPEG, GIF, CDF.")
    return table_product(table, name)


def _count_rows(path: Path | None, url: str | None) -> int:
    with local_copy(url, path) as file, without_warnings():  # of what is odd in a file that others wrote
        return len(read_table(file, url or ""))


def _whole_votable(path: Path | None, url: str | None) -> Callable[[BinaryIO], object] | None:
    """Return what writes a VOTable whose rows are in another file, which does not go with it; None if there is none."""
    if path is None:  # others can read the other file where this one is
        return None
    try:
        document = with_streams_inline(path, url or "")
    except SAMPClientError as error:
        warn(f"{path.name} is sent as it is, but rows of it are in another file: {error}")
        return None
    return None if document is None else lambda file: file.write(document)
