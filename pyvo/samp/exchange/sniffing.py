# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What is in a file or behind a URL, by its content: the first bytes tell most, the header of a FITS file the rest."""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
import zlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import SAMPClientError, SAMPTypeError, SAMPValueError
from ..web.url_book import local_path
from .fetching import fetched, first_bytes
from .forms import Form, Product
from .loading import read_table
from .products import SENDABLE
from .sky_forms import coverage_forms
from .table_forms import table_product

__all__ = ["product_at"]

log = logging.getLogger(__name__)

#: Bytes that are looked at.
PEEK = 64 * 1024

_VOTABLE = re.compile(rb"<(?:\w+:)?VOTABLE[\s>]")
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": ("image.load.png",),
    b"\xff\xd8\xff": ("image.load.jpeg", "image.load.jpg"),
    b"GIF8": ("image.load.gif",),
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/", re.ASCII)


def product_at(place: str | os.PathLike[str]) -> Product:
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
        path = local_path(text)
        if path is None:
            return _behind(text)
        text = path
    path_of = Path(text).expanduser().absolute()
    if not path_of.exists():
        raise FileNotFoundError(f"There is no file {text!r}, and it is no URL either. What can be sent: {SENDABLE}.")
    if not path_of.is_file():
        raise SAMPTypeError(f"{text!r} is no file. What can be sent: {SENDABLE}.")
    with path_of.open("rb") as file:
        beginning = file.read(PEEK)
    return _product(beginning, path_of.name, path_of, None)


def _behind(url: str) -> Product:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SAMPValueError(f"{url!r} is no URL: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise SAMPClientError(f"Only http, https and file URLs can be sent, not {url!r}")
    name = unquote(PurePosixPath(parts.path).name) or "data"
    return _product(first_bytes(url, PEEK), name, None, url)


def _product(beginning: bytes, name: str, path: Path | None, url: str | None) -> Product:
    packed = beginning.startswith(b"\x1f\x8b")
    head = _unpacked(beginning) if packed else beginning
    size = path.stat().st_size if path is not None else 0

    def as_it_is(kind: str, *forms: Form) -> Product:
        count = partial(_count_rows, path, url) if kind == "table" else None
        return Product(kind, name, forms, size, path, url, count)

    if head.startswith((b"SIMPLE  =", b"XTENSION")):
        kind, forms = _look_into_fits(head)
        return as_it_is(kind, *forms)
    if _VOTABLE.search(head):
        return as_it_is("table", Form("table.load.votable", ".vot", id_key="table-id"))
    for magic, mtypes in _PICTURES.items():
        if head.startswith(magic):
            return as_it_is("picture", *(Form(mtype, f".{mtypes[-1][-3:]}", id_key="image-id") for mtype in mtypes))
    if head.startswith(b"\xcd\xf3\x00\x01"):
        return as_it_is("table", Form("table.load.cdf", ".cdf", id_key="table-id"))
    table = _read(path, url, _formats_of(head, name))
    if table is None:
        raise SAMPTypeError(f"What {name!r} holds is not known. Of files these can be sent: FITS, VOTable, ECSV, CSV "
                            "and other tables that astropy reads, MOC, PNG, JPEG, GIF, CDF.")
    return table_product(table, name)


def _count_rows(path: Path | None, url: str | None) -> int:
    with fetched(url, path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd in a file that others wrote nobody here is to blame
        return len(read_table(file))


def _unpacked(beginning: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(beginning, PEEK)
    except zlib.error:
        return b""


def _look_into_fits(head: bytes) -> tuple[str, tuple[Form, ...]]:
    """Kind and form of a FITS file, by the headers of its first parts; those behind data need not be known."""
    from astropy.io import fits  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the rest is missing is no news
        with fits.open(io.BytesIO(head), lazy_load_hdus=True, memmap=False) as hdus:
            return _kind_of_fits(hdus)


def _kind_of_fits(hdus: Any) -> tuple[str, tuple[Form, ...]]:
    for hdu in hdus:
        header = hdu.header
        if "MOCVERS" in header or "MOCORDER" in header or header.get("ORDERING") in {"NUNIQ", "RANGE", "RANGE29"}:
            return "coverage", coverage_forms(None)
        if hdu.is_image and header.get("NAXIS", 0) > 0 and hdu.size:
            return "image", (Form("image.load.fits", ".fits", id_key="image-id"),)
        if not hdu.is_image:
            return "table", (Form("table.load.fits", ".fits", id_key="table-id"),)
    raise SAMPTypeError("A FITS file without data cannot be sent")


def _formats_of(head: bytes, name: str) -> list[str]:
    """How astropy may read a file that others may not."""
    if head.startswith(b"PAR1"):
        return ["parquet"]
    if head.startswith(b"# %ECSV"):
        return ["ascii.ecsv"]
    if head.startswith(b"\x89HDF"):
        return ["hdf5"]
    text = head.decode("utf-8", "replace")
    if not text.strip() or "\0" in text or text.count("\ufffd") > 1:
        return []
    if name.lower().removesuffix(".gz").endswith(".csv") or text.partition("\n")[0].count(",") > 0:
        return ["ascii.csv", "ascii"]
    return ["ascii"]


def _read(path: Path | None, url: str | None, formats: list[str]) -> Any:
    from astropy.table import Table  # noqa: PLC0415

    if not formats:
        return None
    with fetched(url, path) as file:
        for format_ in formats:
            try:
                table = Table.read(file, format=format_)
            except (ValueError, TypeError, OSError, ImportError, KeyError, IndexError) as error:
                log.debug("%s is not %s: %s", file.name, format_, error)
                continue
            # any text is a table of one column, and any line the head of one without rows
            if format_ != "ascii" or (len(table.colnames) > 1 and len(table)):
                return table
    return None


