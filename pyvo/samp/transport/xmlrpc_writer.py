# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Write SAMP values as XML-RPC documents (R30).

All known programs can read these documents. They have an XML declaration, opening and closing tags even for empty
values, and only ASCII characters, with numeric character references for other characters. DS9 hangs if a document is
written differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from ..errors import SAMPTypeError, SAMPValueError
from ..protocol import MAX_DEPTH, SAMPValue

_PROLOG = b'<?xml version="1.0"?>\n'
_EMPTY_RESPONSE = _PROLOG + (
    b"<methodResponse><params><param><value><string></string></value></param></params></methodResponse>"
)

# For lists of at least this length it is worth checking whether all items are strings.
_LONG_LIST = 64
# Characters that XML does not allow, even as references. There is a faster check for the ASCII ones.
_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n\r"))
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class PreEncoded(bytes):
    """An encoded value, ``<value>...</value>``, which is copied into a document."""

    __slots__ = ()


#: An encoded value, or the bytes of a value in a received document.
Encoded: TypeAlias = "PreEncoded | memoryview"
_ENCODED_TYPES = (PreEncoded, memoryview)


def write_value(value: SAMPValue) -> bytes:
    """
    Write a SAMP value as ``<value>...</value>``, in ASCII.

    Raise `SAMPTypeError` for anything except strings, lists and maps. Raise `SAMPValueError` for a character that XML
    does not allow and for values that are nested too deeply.
    """
    pieces: list[str] = []
    _append_value(value, MAX_DEPTH, pieces.append)
    return _checked(pieces)


def write_call(method: str, params: Sequence[SAMPValue | Encoded]) -> bytes:
    """Write a call. The parameters are SAMP values or encoded values."""
    parts: list[bytes | memoryview] = [_PROLOG]
    pieces = [f"<methodCall><methodName>{_escape(method)}</methodName><params>"]
    for param in params:
        pieces.append("<param>")
        if isinstance(param, _ENCODED_TYPES):
            parts += (_checked(pieces), param)
            pieces = []
        else:
            _append_value(param, MAX_DEPTH, pieces.append)
        pieces.append("</param>")
    pieces.append("</params></methodCall>")
    parts.append(_checked(pieces))
    return b"".join(parts)


def write_response(value: SAMPValue | Encoded) -> bytes:
    """Write a response with a value."""
    if isinstance(value, str) and not value:  # the result of most operations
        return _EMPTY_RESPONSE
    written = value if isinstance(value, _ENCODED_TYPES) else write_value(value)
    return b"".join((_PROLOG, b"<methodResponse><params><param>", written, b"</param></params></methodResponse>"))


def write_fault(code: int, text: str) -> bytes:
    """Write a fault. Characters that XML does not allow are replaced by ``?``."""
    escaped = _escape(_FORBIDDEN.sub("?", text)).encode("ascii", "xmlcharrefreplace")
    return (
        b"%b<methodResponse><fault><value><struct>"
        b"<member><name>faultCode</name><value><int>%d</int></value></member>"
        b"<member><name>faultString</name><value><string>%b</string></value></member>"
        b"</struct></value></fault></methodResponse>"
    ) % (_PROLOG, code, escaped)


def _checked(pieces: list[str]) -> bytes:
    """Join text, check its characters, and encode it in ASCII. This is faster than checking each string."""
    text = "".join(pieces)
    if text.isascii():
        written = text.encode("ascii")
    else:
        if found := _FORBIDDEN.search(text):
            raise SAMPValueError(f"a string contains the character {found.group()!r}, which XML does not allow")
        written = text.encode("ascii", "xmlcharrefreplace")
    if len(written.translate(None, _CONTROLS)) != len(written):
        raise SAMPValueError("a string contains a control character, which XML does not allow")
    return written


def _append_value(value: SAMPValue, levels: int, add: Callable[[str], None]) -> None:
    """Pass the pieces of a value to ``add``. Joining them here would copy a long string at every level."""
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
            _append_strings(value, add)
        else:
            for item in value:
                _append_value(item, levels - 1, add)
        add("</data></array></value>")
    else:
        raise SAMPTypeError(f"a {type(value).__name__} is not a SAMP value")


def _append_strings(strings: list[SAMPValue], add: Callable[[str], None]) -> None:
    """Append all strings of a long list, such as half a million row numbers, at once."""
    text = "\0".join(cast("list[str]", strings))
    if text.count("\0") != len(strings) - 1:
        raise SAMPValueError("a string contains a control character, which XML does not allow")
    between = "</string></value><value><string>"
    add(f"<value><string>{_escape(text).replace(chr(0), between)}</string></value>")


def _escape(text: str) -> str:
    # Searching first would not be faster. A CR must be escaped, because a parser would return it as a line feed.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
