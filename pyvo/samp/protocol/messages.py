# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Messages and responses: the two maps that travel between clients (rules R16 and R17)."""

from __future__ import annotations

from ..errors import SAMPValueError
from .mtypes import check_mtype
from .values import SAMPValue

__all__ = [
    "NO_RESPONSE",
    "check_message",
    "check_response",
    "error_response",
    "ok_response",
    "warning_response",
]

#: The ``samp.code`` of a response that the hub gives in the place of a recipient that cannot (rule R23).
NO_RESPONSE = "samp.noresponse"

# Which maps a response of each status carries.
_PARTS = {
    "samp.ok": ("samp.result",),
    "samp.warning": ("samp.result", "samp.error"),
    "samp.error": ("samp.error",),
}


def check_message(value: object) -> dict[str, SAMPValue]:
    """
    Check that a SAMP value is a message (rule R16).

    Parameters
    ----------
    value : object
        A SAMP value.

    Returns
    -------
    dict
        The value itself; when it has no ``samp.params``, a copy that has an empty map there.

    Raises
    ------
    SAMPValueError
        When it is no map, when ``samp.mtype`` is missing or is no MType, when ``samp.params`` is no map.
    """
    message = _map(value, "a message")
    mtype = message.get("samp.mtype")
    if not isinstance(mtype, str):
        raise SAMPValueError("a message needs an MType, a string, in samp.mtype")
    check_mtype(mtype)
    return _with_maps(message, ("samp.params",))


def check_response(value: object) -> dict[str, SAMPValue]:
    """
    Check that a SAMP value is a response (rule R17).

    Parameters
    ----------
    value : object
        A SAMP value.

    Returns
    -------
    dict
        The value itself; when a map that belongs to its status is missing, a copy that has an empty map there.

    Raises
    ------
    SAMPValueError
        When it is no map, when ``samp.status`` is none of the three, when ``samp.result`` or ``samp.error``
        is no map.
    """
    response = _map(value, "a response")
    status = response.get("samp.status")
    if not isinstance(status, str) or status not in _PARTS:
        raise SAMPValueError("a response needs samp.ok, samp.warning or samp.error in samp.status")
    return _with_maps(response, _PARTS[status])


def ok_response(result: dict[str, SAMPValue] | None = None) -> dict[str, SAMPValue]:
    """Make the response of a client that did what it was asked."""
    return {"samp.status": "samp.ok", "samp.result": result or {}}


def warning_response(result: dict[str, SAMPValue], error: dict[str, SAMPValue]) -> dict[str, SAMPValue]:
    """Make the response of a client that did part of what it was asked; ``error`` says what is amiss."""
    return {"samp.status": "samp.warning", "samp.result": result, "samp.error": error}


def error_response(
    errortxt: str, *, usertxt: str | None = None, debugtxt: str | None = None, code: str | None = None
) -> dict[str, SAMPValue]:
    """
    Make the response of a client that could not do what it was asked.

    Parameters
    ----------
    errortxt : str
        What went wrong, in a sentence.
    usertxt : str, optional
        The same at more length, to be shown to the user.
    debugtxt : str, optional
        Details for programmers.
    code : str, optional
        A short identifier of this kind of error.
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
