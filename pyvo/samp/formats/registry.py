# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Map Python objects to MTypes and file formats.

Each kind of object has an adapter: a function that returns a `Sendable` with the formats of the object, the best one
first, or None for objects of other kinds. The adapter for paths and URLs detects the format from the content.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import SAMPError, SAMPTypeError
from .fetching import local_copy
from .files import adapt_file
from .images import adapt_array, adapt_hdu, adapt_hdulist, adapt_nddata
from .model import SUPPORTED_TYPES, MessageFormat, Sendable
from .readers import read_table
from .sky import adapt_moc, adapt_position, adapt_spectrum
from .tables import adapt_frame, adapt_table, adapt_tabular, adapt_votable, sendable_table

#: The adapters in the order in which they are tried. More specific adapters come first.
_ADAPTERS: list[Callable[[Any], Sendable | None]] = [
    adapt_file, adapt_table, adapt_votable, adapt_frame, adapt_hdu, adapt_hdulist, adapt_position, adapt_moc,
    adapt_spectrum, adapt_nddata, adapt_array, adapt_tabular,
]  # fmt: skip


def to_sendable(obj: Any) -> Sendable:
    """
    Return the name and the formats of an object of one of the `SUPPORTED_TYPES`.

    Raise SAMPTypeError if other programs cannot load such an object, and FileNotFoundError if a file does not exist.
    """
    for adapter in _ADAPTERS:
        try:
            sendable = adapter(obj)
        except SAMPError:
            raise
        except Exception as error:  # from any library
            if isinstance(obj, str | os.PathLike):
                raise
            raise SAMPTypeError(
                f"{_describe_type(obj)} cannot be sent: its content cannot be read ({type(error).__name__}: {error})"
            ) from error
        if sendable is not None:
            return sendable
    raise SAMPTypeError(f"{_describe_type(obj)} cannot be sent. Supported types: {SUPPORTED_TYPES}.")


def as_votable(obj: Any) -> tuple[Sendable, MessageFormat]:
    """Return the `Sendable` of a table and its VOTable format; raise SAMPTypeError if the object is not a table."""
    sendable = to_sendable(obj)
    chosen = _votable_format(sendable)
    if chosen is None and sendable.kind == "table":  # a file of another format
        with local_copy(sendable.url, sendable.path) as path:
            sendable = sendable_table(read_table(path), sendable.name)
        chosen = _votable_format(sendable)
    if chosen is None:
        raise SAMPTypeError(f"{sendable.name!r} is sent as {sendable.kind}, which is not a table")
    return sendable, chosen


def _votable_format(sendable: Sendable) -> MessageFormat | None:
    return next((each for each in sendable.formats if each.mtype == "table.load.votable"), None)


def _describe_type(obj: Any) -> str:
    if isinstance(obj, type):
        return f"The class {obj.__name__} itself"
    if isinstance(obj, np.ndarray):
        return f"An array of {obj.ndim} dimensions and type {obj.dtype}"
    package = type(obj).__module__.partition(".")[0]
    return f"An object of type {'' if package == 'builtins' else package + '.'}{type(obj).__name__}"
