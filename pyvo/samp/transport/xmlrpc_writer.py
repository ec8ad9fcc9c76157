# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
SAMP values to XML-RPC documents (rule R30).

The form is the one that every program seen in the wild can read: a prolog, an opening and a closing tag for
empty values too, and nothing but ASCII, the rest being numeric character references. DS9 hangs on anything
else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from ..errors import SAMPTypeError, SAMPValueError
from ..protocol import MAX_DEPTH, SAMPValue

__all__ = ["Encoded", "PreEncoded", "write_call", "write_fault", "write_response", "write_value"]

_PROLOG = b'<?xml version="1.0"?>\n'
_EMPTY_RESPONSE = _PROLOG + (
    b"<methodResponse><params><param><value><string></string></value></param></params></methodResponse>"
)

# What no XML document can hold, not even as a reference. The ASCII part has a cheaper check of its own.
#: From so many items on it pays to look whether all are strings.
_LONG_LIST = 64
_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n\r"))
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class PreEncoded(bytes):
    """A value that is written already: ``<value>...</value>``, to be put into a document as it is."""

    __slots__ = ()


#: The same, perhaps as a piece of a document that came in.
Encoded: TypeAlias = "PreEncoded | memoryview"
_WRITTEN = (PreEncoded, memoryview)


def write_value(value: SAMPValue) -> bytes:
    """
    Write one SAMP value.

    Parameters
    ----------
    value : str, list or dict
        A SAMP value.

    Returns
    -------
    bytes
        ``<value>...</value>`` in ASCII.

    Raises
    ------
    SAMPTypeError
        When there is anything but strings, lists and maps in it.
    SAMPValueError
        When it holds a character that XML cannot, or is nested too deep.
    """
    pieces: list[str] = []
    _append_value(value, MAX_DEPTH, pieces.append)
    return _checked(pieces)


def write_call(method: str, params: Sequence[SAMPValue | Encoded]) -> bytes:
    """
    Write a call.

    Parameters
    ----------
    method : str
        Its name.
    params : sequence
        Its parameters: SAMP values, or values that are written already.

    Returns
    -------
    bytes
        The document.
    """
    parts: list[bytes | memoryview] = [_PROLOG]
    pieces = [f"<methodCall><methodName>{_escape(method)}</methodName><params>"]
    for param in params:
        pieces.append("<param>")
        if isinstance(param, _WRITTEN):
            parts += (_checked(pieces), param)
            pieces = []
        else:
            _append_value(param, MAX_DEPTH, pieces.append)
        pieces.append("</param>")
    pieces.append("</params></methodCall>")
    parts.append(_checked(pieces))
    return b"".join(parts)


def write_response(value: SAMPValue | Encoded) -> bytes:
    """Write the document that answers a call with a value."""
    if isinstance(value, str) and not value:  # most operations answer that
        return _EMPTY_RESPONSE
    written = value if isinstance(value, _WRITTEN) else write_value(value)
    return b"".join((_PROLOG, b"<methodResponse><params><param>", written, b"</param></params></methodResponse>"))


def write_fault(code: int, text: str) -> bytes:
    """Write the document that refuses a call. Characters of the text that XML cannot carry become ``?``."""
    told = _escape(_FORBIDDEN.sub("?", text)).encode("ascii", "xmlcharrefreplace")
    return (
        b"%b<methodResponse><fault><value><struct>"
        b"<member><name>faultCode</name><value><int>%d</int></value></member>"
        b"<member><name>faultString</name><value><string>%b</string></value></member>"
        b"</struct></value></fault></methodResponse>"
    ) % (_PROLOG, code, told)


def _checked(pieces: list[str]) -> bytes:
    """Put text together, in ASCII; all of it is looked through at once, and not each string by itself."""
    text = "".join(pieces)
    if text.isascii():
        written = text.encode("ascii")
    else:
        if found := _FORBIDDEN.search(text):
            raise SAMPValueError(f"a string holds the character {found.group()!r}, which XML cannot carry")
        written = text.encode("ascii", "xmlcharrefreplace")
    if len(written.translate(None, _CONTROLS)) != len(written):
        raise SAMPValueError("a string holds a control character, which XML cannot carry")
    return written


def _append_value(value: SAMPValue, levels: int, add: Callable[[str], None]) -> None:
    """Hand the pieces of a value to ``add``, so that a long string is not copied again at every level."""
    if isinstance(value, str):
        add(f"<value><string>{_escape(value)}</string></value>")
    elif not levels:
        raise SAMPValueError(f"a value is nested more than {MAX_DEPTH} levels deep")
    elif isinstance(value, dict):
        add("<value><struct>")
        for key, item in value.items():
            if not isinstance(key, str):
                raise SAMPTypeError(f"a map has the key {key!r}, which is not a string")
            add(f"<member><name>{_escape(key)}</name>")
            _append_value(item, levels - 1, add)
            add("</member>")
        add("</struct></value>")
    elif isinstance(value, list):
        add("<value><array><data>")
        if len(value) >= _LONG_LIST and set(map(type, value)) == {str}:
            _put_strings(value, add)
        else:
            for item in value:
                _append_value(item, levels - 1, add)
        add("</data></array></value>")
    else:
        raise SAMPTypeError(f"a {type(value).__name__} is not a SAMP value")


def _put_strings(strings: list[SAMPValue], add: Callable[[str], None]) -> None:
    """Do the same for the strings of a long list, such as half a million row numbers, all together."""
    text = "\0".join(cast("list[str]", strings))
    if text.count("\0") != len(strings) - 1:
        raise SAMPValueError("a string holds a control character, which XML cannot carry")
    between = "</string></value><value><string>"
    add(f"<value><string>{_escape(text).replace(chr(0), between)}</string></value>")


def _escape(text: str) -> str:
    # Replacing what is not there is as quick as looking for it. A bare CR would be read as a line feed.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
