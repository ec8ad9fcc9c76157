# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""MTypes, and the patterns by which clients subscribe to them (rule R12)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from ..errors import SAMPValueError

__all__ = ["best_match", "check_mtype", "check_pattern", "matches", "subtypes"]

T = TypeVar("T")

# An MType has as many wider patterns as it has parts, so without a limit a hostile one of a million dots would
# cost a million strings of a million characters.
_MAX_LENGTH = 255

# Every part is non-empty and free of wildcards, blanks and control characters. The standard allows fewer
# characters than that, but nothing is won by refusing what programs use among themselves.
_PART = r"[^.*\s\x00-\x1f\x7f]+"
_MTYPE = re.compile(rf"{_PART}(?:\.{_PART})*")


def subtypes(mtype: str) -> list[str]:
    """
    List the subscriptions that cover an MType, the most specific first.

    Parameters
    ----------
    mtype : str
        An MType such as ``"a.b.c"``.

    Returns
    -------
    list of str
        For example ``["a.b.c", "a.b.*", "a.*", "*"]``.
    """
    parts = mtype.split(".")
    wider = [".".join(parts[:count]) + ".*" for count in range(len(parts) - 1, 0, -1)]
    return [mtype, *wider, "*"]


def check_mtype(mtype: str) -> None:
    """Raise `SAMPValueError` unless this is an MType: parts joined by dots, without a wildcard."""
    if len(mtype) > _MAX_LENGTH or not _MTYPE.fullmatch(mtype):
        raise SAMPValueError(f"{mtype[:_MAX_LENGTH]!r} is not an MType")


def check_pattern(pattern: str) -> None:
    """Raise `SAMPValueError` unless one may subscribe to this: an MType, ``*`` or ``a.b.*`` (rule R12)."""
    if pattern == "*":
        return
    try:
        check_mtype(pattern.removesuffix(".*"))
    except SAMPValueError:
        raise SAMPValueError(
            f"{pattern[:_MAX_LENGTH]!r} is neither an MType nor a wildcard such as '*' or 'table.*'"
        ) from None


def matches(pattern: str, mtype: str) -> bool:
    """
    Tell whether a subscription covers an MType (rule R12).

    Parameters
    ----------
    pattern : str
        An MType, which covers itself; ``a.*``, which covers ``a.b`` and ``a.b.c`` but not ``a``; or ``*``.
    mtype : str
        An MType.
    """
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return mtype.startswith(pattern[:-1])
    return pattern == mtype


def best_match(subscriptions: Mapping[str, T], mtype: str) -> T | None:
    """
    Find what the most specific subscription to an MType says (rule R14).

    Parameters
    ----------
    subscriptions : mapping
        From patterns to anything.
    mtype : str
        An MType.

    Returns
    -------
    object or None
        The value under the most specific pattern that covers the MType; `None` when there is none.

    Raises
    ------
    SAMPValueError
        When ``mtype`` is not an MType.
    """
    for pattern in _candidates(mtype):
        if pattern in subscriptions:
            return subscriptions[pattern]
    return None


@lru_cache(maxsize=512)
def _candidates(mtype: str) -> tuple[str, ...]:
    # Remembered, because a broadcast asks the same question for every client.
    check_mtype(mtype)
    return tuple(subtypes(mtype))
