# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a product is, and the forms in which one can be sent.

Texts in tables: as bytes of which nobody knows the encoding, and in arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

__all__ = [
    "SUPPORTED_TYPES", "MessageFormat", "MessageParams", "RasterImage", "Sendable", "Sender", "decode_field",
    "decode_text", "decode_texts", "first_nonempty", "isinstance_by_name", "safe_getattr", "split_texts",
]  # fmt: skip


#: What `send` takes, for error messages.
SUPPORTED_TYPES = (
    "Table, QTable, structured numpy array, VOTableFile, TableElement, anything with .votable or .to_table() (pyvo "
    "and astroquery results), pandas DataFrame, HDU, HDUList, CCDData, NDData, Cutout2D, numpy image (2-d array), "
    "Spectrum (specutils), MOC (mocpy), SkyCoord, path, URL"
)


def decode_text(data: bytes) -> tuple[str, bool]:
    """Decode UTF-8, or else Latin-1; tell whether it is UTF-8."""
    try:
        return data.decode(), True
    except UnicodeDecodeError:
        return data.decode("latin-1"), False


def decode_field(content: bytes) -> str:
    """Decode a text field of fixed size, in which NUL ends the text."""
    return decode_text(content.partition(b"\0")[0])[0]


def decode_texts(cells: Iterable[Any], datatype: str, length: int | None) -> list[list[str]]:
    """
    Decode the cells of a column of texts.

    Parameters
    ----------
    cells : iterable
        Arrays of numbers: of bytes for ``char``, or of 16 bits for ``unicodeChar``.
    datatype : str
        Which of them.
    length : int or None
        The length of each text, if a cell holds several.

    Returns
    -------
    list
        The texts of each cell.
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
    """
    Split a text into those that were put together in it, each filled up with blanks or NULs.

    Parameters
    ----------
    text : str
        The text.
    length : int
        The length of each of them.
    """
    parts = (text[start : start + length] for start in range(0, len(text), length))
    return [part.partition("\0")[0].rstrip(" ") for part in parts]


class Sender(str):
    """
    The id of the client that sent something, by which it can be answered.

    Parameters
    ----------
    client_id : str
        Its id.
    name : str
        Its name.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, client_id: str, name: str = "") -> Self:
        """Make a text of the id."""
        new = super().__new__(cls, client_id)
        new.name = name
        return new


class MessageParams(dict[str, Any]):
    """The parameters of a message of no kind that is known here."""

    mtype: str
    sender: Sender
    name: str


class RasterImage(bytes):
    """A picture that is no FITS file (PNG, JPEG...), as it came."""

    mtype: str
    sender: Sender
    name: str


@dataclass(frozen=True)
class MessageFormat:
    """One way to send a product: the MType, the file, and how its message names it."""

    mtype: str
    suffix: str
    #: Writes the file; None for a product that needs none, or is in one already.
    write: Callable[[BinaryIO], object] | None = None
    #: The parameter that holds the product's id, such as ``table-id``.
    id_key: str | None = None
    #: Further parameters.
    params: dict[str, Any] = field(default_factory=dict)
    #: Makes all the parameters of the URL and the name, where the message is no ordinary one.
    make_params: Callable[[str, str], dict[str, Any]] | None = None
    #: Tells whether a program, by its name, should get this form although it takes an earlier one as well.
    is_better_for: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class Sendable:
    """Something to send."""

    kind: str
    name: str
    formats: Sequence[MessageFormat]
    #: Bytes, about; for progress bars.
    size: int = 0
    #: The file that it is in already.
    path: Path | None = None
    #: The URL where it is already.
    url: str | None = None
    #: Counts the rows of a table.
    count: Callable[[], int] | None = None


def isinstance_by_name(obj: Any, module: str, *names: str) -> bool:
    """Whether an object is of one of some classes of a module, which need not be loaded to ask."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return False
    return isinstance(obj, tuple(kind for name in names if (kind := getattr(loaded, name, None)) is not None))


def first_nonempty(*candidates: object) -> str:
    """The first that is some text."""
    return next((str(text) for text in candidates if isinstance(text, str) and text.strip()), "")


def safe_getattr(obj: Any, name: str) -> Any:
    """An attribute that an object of unknown kind may have; what fails is none."""
    if isinstance(obj, type):
        return None
    try:
        return getattr(obj, name, None)
    except Exception:
        return None
