# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Messages, responses and MTypes, and the patterns by which clients subscribe to MTypes (rules R12, R16 and R17)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from ..errors import SAMPValueError
from .values import SAMPValue

T = TypeVar("T")

# An MType has as many wider patterns as parts. Without a limit, an MType with a million dots would produce a million
# strings of up to a million characters each.
_MAX_LENGTH = 255

# A part is not empty, and has no wildcards, blanks or control characters. The standard allows fewer characters, but
# existing programs use others, and rejecting those would not help.
_PART = r"[^.*\s\x00-\x1f\x7f]+"
_MTYPE = re.compile(rf"{_PART}(?:\.{_PART})*")


def subtypes(mtype: str) -> list[str]:
    """List the subscriptions that cover an MType, the most specific first: ``["a.b.c", "a.b.*", "a.*", "*"]``."""
    parts = mtype.split(".")
    wider = [".".join(parts[:count]) + ".*" for count in range(len(parts) - 1, 0, -1)]
    return [mtype, *wider, "*"]


def check_mtype(mtype: str) -> None:
    """Raise `SAMPValueError` unless ``mtype`` is an MType: parts joined by dots, without a wildcard."""
    if len(mtype) > _MAX_LENGTH or not _MTYPE.fullmatch(mtype):
        raise SAMPValueError(f"{mtype[:_MAX_LENGTH]!r} is not an MType")


def check_pattern(pattern: str) -> None:
    """Raise `SAMPValueError` unless ``pattern`` is valid in a subscription: an MType, ``*`` or ``a.b.*`` (rule R12)."""
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
    Return whether a subscription covers an MType (rule R12).

    An MType covers itself; ``a.*`` covers ``a.b`` and ``a.b.c`` but not ``a``; ``*`` covers all.
    """
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return mtype.startswith(pattern[:-1])
    return pattern == mtype


def best_match(subscriptions: Mapping[str, T], mtype: str) -> T | None:
    """
    Return the value of the most specific subscription that covers an MType, or None (rule R14).

    `SAMPValueError` is raised if ``mtype`` is not an MType.
    """
    for pattern in _candidates(mtype):
        if pattern in subscriptions:
            return subscriptions[pattern]
    return None


@lru_cache(maxsize=512)
def _candidates(mtype: str) -> tuple[str, ...]:
    # Cached, because a broadcast needs the same patterns for every client.
    check_mtype(mtype)
    return tuple(subtypes(mtype))


#: The ``samp.code`` of the response that the hub sends in place of a recipient that does not reply (rule R23).
NO_RESPONSE = "samp.noresponse"

# The maps that a response must contain, by status.
_PARTS = {
    "samp.ok": ("samp.result",),
    "samp.warning": ("samp.result", "samp.error"),
    "samp.error": ("samp.error",),
}


def check_message(value: object) -> dict[str, SAMPValue]:
    """
    Check that a SAMP value is a message (rule R16), and return it.

    If ``samp.params`` is missing, return a copy in which it is an empty map. Raise `SAMPValueError` if the value is not
    a map, ``samp.mtype`` is missing or not an MType, or ``samp.params`` is not a map.
    """
    message = _map(value, "a message")
    mtype = message.get("samp.mtype")
    if not isinstance(mtype, str):
        raise SAMPValueError("a message needs samp.mtype, a string with its MType")
    check_mtype(mtype)
    return _with_maps(message, ("samp.params",))


def check_response(value: object) -> dict[str, SAMPValue]:
    """
    Check that a SAMP value is a response (rule R17), and return it.

    If a map that its status requires is missing, return a copy in which it is an empty map. Raise `SAMPValueError` if
    the value is not a map, ``samp.status`` is not one of the three, or ``samp.result`` or ``samp.error`` is not a map.
    """
    response = _map(value, "a response")
    status = response.get("samp.status")
    if not isinstance(status, str) or status not in _PARTS:
        raise SAMPValueError("samp.status of a response must be samp.ok, samp.warning or samp.error")
    return _with_maps(response, _PARTS[status])


def ok_response(result: dict[str, SAMPValue] | None = None) -> dict[str, SAMPValue]:
    """Make the response of a client that has processed the message."""
    return {"samp.status": "samp.ok", "samp.result": result or {}}


def warning_response(result: dict[str, SAMPValue], error: dict[str, SAMPValue]) -> dict[str, SAMPValue]:
    """Make the response of a client that processed a part of the message; ``error`` describes the other part."""
    return {"samp.status": "samp.warning", "samp.result": result, "samp.error": error}


def error_response(
    errortxt: str, *, usertxt: str | None = None, debugtxt: str | None = None, code: str | None = None
) -> dict[str, SAMPValue]:
    """
    Make the response of a client that could not process the message.

    ``errortxt`` describes the error in one sentence. ``usertxt`` explains it to the user in more detail. ``debugtxt``
    has details for programmers. ``code`` identifies the kind of error.
    """
    optional = {"samp.usertxt": usertxt, "samp.debugtxt": debugtxt, "samp.code": code}
    details: dict[str, SAMPValue] = {"samp.errortxt": errortxt}
    details |= {key: text for key, text in optional.items() if text is not None}
    return {"samp.status": "samp.error", "samp.error": details}


def _map(value: object, what: str) -> dict[str, SAMPValue]:
    if not isinstance(value, dict):
        raise SAMPValueError(f"{what} is a map, not a {type(value).__name__}")
    return value


def _with_maps(value: dict[str, SAMPValue], keys: tuple[str, ...]) -> dict[str, SAMPValue]:
    for key in keys:
        if key not in value:
            value = {**value, key: {}}
        elif not isinstance(value[key], dict):
            raise SAMPValueError(f"{key} must be a map")
    return value
