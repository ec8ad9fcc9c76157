# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Names for files that others send.

The name that a message gives is a stranger's: it never leaves the directory, hides no file, replaces none, and has
nothing in it that a shell or a terminal would obey.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ..exchange.detection import PEEK_SIZE, is_votable

__all__ = ["copy_into", "new_file", "stem_of", "suffix_of"]

#: Characters of a name, without the suffix; file systems take 255 bytes.
MAX_LENGTH = 80
_MAGIC = {
    b"SIMPLE  =": ".fits",
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"\xcd\xf3\x00\x01": ".cdf",
    b"\xcd\xf2\x60\x02": ".cdf",
    b"PAR1": ".parquet",
    b"# %ECSV": ".ecsv",
}
#: Suffixes that are taken over from a URL when the content does not tell.
_KNOWN = {".fits", ".fit", ".vot", ".xml", ".csv", ".tsv", ".txt", ".cdf", ".moc", ".gz"}
#: Names that Windows has for devices, whatever their suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


def stem_of(params: Mapping[str, Any], mtype: str) -> str:
    """
    Make a file name, without suffix, of what a message says.

    Parameters
    ----------
    params : mapping
        Its parameters; ``name`` counts, else the end of ``url``.
    mtype : str
        What it is named by otherwise.
    """
    url = params.get("url")
    from_url = unquote(urlsplit(url).path.rpartition("/")[2]) if isinstance(url, str) else ""
    for text in (params.get("name"), from_url, mtype):
        if isinstance(text, str) and (stem := _harmless(text)):
            return stem
    return "message"


def _harmless(text: str) -> str:
    text = unicodedata.normalize("NFC", text[: 4 * MAX_LENGTH])
    text = "".join(c if c.isalnum() or c in "._-+" else "_" for c in text)
    text = re.sub("_{2,}", "_", text).strip("._-+")[:MAX_LENGTH].rstrip("._-+")
    while len(text.encode("utf-8", "replace")) > 2 * MAX_LENGTH:
        text = text[:-1]
    return f"_{text}" if _DEVICES.match(text) else text


def suffix_of(beginning: bytes, url: str) -> str:
    """
    Tell the suffix of a file.

    Parameters
    ----------
    beginning : bytes
        Its first bytes, which count most.
    url : str
        Where it came from.
    """
    if beginning.startswith(b"\x1f\x8b"):
        inner = Path(urlsplit(url).path.removesuffix(".gz")).suffix.lower()
        return f"{inner}.gz" if inner in _KNOWN else ".gz"
    for magic, suffix in _MAGIC.items():
        if beginning.startswith(magic):
            return suffix
    if is_votable(lambda count: beginning[:count]):
        return ".vot"
    suffix = Path(urlsplit(url).path).suffix.lower()
    return suffix if suffix in _KNOWN else ".dat"


def _candidates(stem: str, suffix: str) -> Iterator[str]:
    inner = stem[: -len(suffix)] if stem.lower().endswith(suffix) and stem.lower() != suffix else stem
    yield f"{inner}{suffix}"
    for number in count(2):
        yield f"{inner}-{number}{suffix}"


def new_file(directory: Path, stem: str, suffix: str) -> BinaryIO:
    """
    Open a new file in a directory; whatever is there stays as it is.

    Parameters
    ----------
    directory : Path
        The directory.
    stem, suffix : str
        What it is to be called; a number is added if there is such a file.
    """
    for name in _candidates(stem, suffix):
        try:
            return open(directory / name, "xb")
        except FileExistsError:
            continue
    raise AssertionError("there are numbers enough")


def copy_into(directory: Path, stem: str, source: Path, url: str) -> Path:
    """
    Copy a file to a new one in a directory. Nothing is left of it when that fails.

    Parameters
    ----------
    directory : Path
        Where to.
    stem : str
        What it is to be called.
    source : Path
        What is copied.
    url : str
        Where that came from.

    Returns
    -------
    Path
        The new file.
    """
    with source.open("rb") as file:
        suffix = suffix_of(file.read(PEEK_SIZE), url)
        file.seek(0)
        with new_file(directory, stem, suffix) as copy:
            path = Path(os.fsdecode(copy.name))
            try:
                shutil.copyfileobj(file, copy, 1024 * 1024)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    return path
