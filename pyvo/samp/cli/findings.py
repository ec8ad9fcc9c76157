# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What ``samp doctor`` finds."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Finding", "Kind", "good", "note", "problem"]


class Kind(Enum):
    """How bad it is."""

    GOOD = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """Something that was found, and what the user can do about it."""

    kind: Kind
    text: str
    advice: str = ""


def good(text: str) -> Finding:
    """Find nothing wrong."""
    return Finding(Kind.GOOD, text)


def note(text: str, advice: str = "") -> Finding:
    """Find something that may be meant so, or explain what is missed."""
    return Finding(Kind.NOTE, text, advice)


def problem(text: str, advice: str) -> Finding:
    """Find what has to be mended."""
    return Finding(Kind.PROBLEM, text, advice)
