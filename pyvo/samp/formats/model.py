# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Types that describe sent and received objects and their formats, and functions that decode the texts of tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

#: The objects that `send` accepts, for error messages.
SUPPORTED_TYPES = (
    "Table, QTable, structured numpy array, VOTableFile, TableElement, anything with .votable or .to_table() (pyvo "
    "and astroquery results), pandas DataFrame, HDU, HDUList, CCDData, NDData, Cutout2D, numpy image (2-d array), "
    "Spectrum (specutils), MOC (mocpy), SkyCoord, path, URL"
)


def decode_text(data: bytes) -> tuple[str, bool]:
    """Decode UTF-8; if that fails, Latin-1. Return the text and whether it is UTF-8."""
    try:
        return data.decode(), True
    except UnicodeDecodeError:
        return data.decode("latin-1"), False


def decode_field(content: bytes) -> str:
    """Decode a text field of fixed size. A NUL character ends the text."""
    return decode_text(content.partition(b"\0")[0])[0]


def decode_texts(cells: Iterable[Any], datatype: str, length: int | None) -> list[list[str]]:
    """
    Decode the cells of a column of texts: arrays of bytes for ``char``, of 16-bit numbers for ``unicodeChar``.

    ``length`` is the length of each text if a cell contains several texts.
    """
    is_wide = datatype == "unicodeChar"
    dtype = np.dtype(">u2" if is_wide else "u1")
    rows = []
    for cell in cells:
        content = np.ma.getdata(np.ma.asarray(cell)).astype(dtype).tobytes()
        size = len(content) if length is None else length * dtype.itemsize
        parts = [content[start : start + size] for start in range(0, len(content), size or 1)] or [b""][length or 0 :]
        if is_wide:
            texts = [part.decode("utf-16-be", "replace").partition("\0")[0] for part in parts]
        else:
            texts = [decode_field(part) for part in parts]
        rows.append(texts if length is None else [text.rstrip(" ") for text in texts])
    return rows


def split_texts(text: str, length: int) -> list[str]:
    """Split the concatenation of texts of a fixed length, each padded with blanks or NULs."""
    parts = (text[start : start + length] for start in range(0, len(text), length))
    return [part.partition("\0")[0].rstrip(" ") for part in parts]


class Sender(str):
    """
    The public id of the client that sent an object.

    Parameters
    ----------
    client_id : str
        The id.
    name : str
        The name of the client.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, client_id: str, name: str = "") -> Self:
        """Make a string from the id."""
        new = super().__new__(cls, client_id)
        new.name = name
        return new


class MessageParams(dict[str, Any]):
    """Parameters of a message whose MType this package does not decode."""

    mtype: str
    sender: Sender
    name: str


class RasterImage(bytes):
    """The content of an image file in a format other than FITS (PNG, JPEG...)."""

    mtype: str
    sender: Sender
    name: str


@dataclass(frozen=True)
class MessageFormat:
    """One way to send an object: the MType, the file and the parameters of the message."""

    mtype: str
    suffix: str
    #: Writes to a file that cannot be read; None if the object needs no file, or is already in a file.
    write: Callable[[BinaryIO], object] | None = None
    #: The name of the parameter for the object's id, such as ``table-id``.
    id_key: str | None = None
    #: Further parameters.
    params: dict[str, Any] = field(default_factory=dict)
    #: Makes all parameters from the URL and the name, for MTypes that have no parameters ``url`` and ``name``.
    make_params: Callable[[str, str], dict[str, Any]] | None = None
    #: Returns whether the program with a given name should get this format even if it accepts an earlier one as well.
    is_better_for: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class Sendable:
    """An object to send: its kind, its name and its formats."""

    kind: str
    name: str
    formats: Sequence[MessageFormat]
    #: Approximate size in bytes, for progress bars.
    size: int = 0
    #: The file that already contains the object.
    path: Path | None = None
    #: The URL that the object already has.
    url: str | None = None
    #: Returns the number of rows of a table.
    count: Callable[[], int] | None = None


def isinstance_by_name(obj: Any, module: str, *names: str) -> bool:
    """Return whether an object is an instance of a class of a module; False if the module has not been imported."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return False
    return isinstance(obj, tuple(kind for name in names if (kind := getattr(loaded, name, None)) is not None))


def first_nonempty(*candidates: object) -> str:
    """Return the first candidate that is a non-blank string; an empty string if there is none."""
    return next((str(text) for text in candidates if isinstance(text, str) and text.strip()), "")


def safe_getattr(obj: Any, name: str) -> Any:
    """Return an attribute of any object; None if the object is a class, has no such attribute or reading it fails."""
    if isinstance(obj, type):
        return None
    try:
        return getattr(obj, name, None)
    except Exception:
        return None
