# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Texts in tables: as bytes of which nobody knows the encoding, and in arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["decode_text", "decode_texts", "split_texts"]


def decode_text(content: bytes) -> str:
    """
    Decode a text that is in UTF-8, or else in Latin-1.

    Parameters
    ----------
    content : bytes
        The text, which ends at the first NUL.
    """
    content = content.partition(b"\0")[0]
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


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
    import numpy as np  # noqa: PLC0415

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
            texts = [decode_text(part) for part in parts]
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
