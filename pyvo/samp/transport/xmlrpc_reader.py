# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Read XML-RPC documents and return SAMP values (R5, R30).

The reader accepts the documents of all deployed programs and returns only the strings, lists and maps of R1. It does
not trust any document: it rejects a DTD and entities other than the five of XML, it limits the depth of nesting, and
its time and memory are proportional to the length of the document.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import SAMPProxyError, SAMPValueError
from ..protocol import SAMPValue, parse_int
from . import Bytes
from .xmlrpc_fast_reader import RawParams, parse_fast
from .xmlrpc_strict_reader import XML_WHITESPACE, XMLError, parse_strict

_PROLOG = re.compile(rb"""<\?xml\s+version\s*=\s*["'][0-9.]+["']\s+encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_CODECS = {
    b"utf-8": "utf-8",
    b"utf8": "utf-8",
    b"us-ascii": "ascii",
    b"ascii": "ascii",
    b"iso-8859-1": "latin-1",
    b"latin-1": "latin-1",
    b"latin1": "latin-1",
}


class MethodCall(NamedTuple):
    """A received call."""

    name: str
    params: list[SAMPValue]
    raw: Sequence[memoryview | None]
    """
    For each parameter, the bytes ``<value>...</value>``, which can be copied into another document; None if the value
    must be encoded again.
    """


def read_call(body: Bytes) -> MethodCall:
    """Read a call; raise `XMLError` for any other document. Numbers become strings."""
    document = parse_fast(body)
    is_plain = document is not None
    if document is None:
        document = parse_strict(_decode(body))
    if document.method is None:
        raise XMLError("this is not a method call")
    count = len(document.params)
    return MethodCall(document.method, document.params, RawParams(body, count) if is_plain else [None] * count)


def read_response(body: Bytes) -> SAMPValue:
    """Read a response and return its value, or an empty string if it has none; raise `SAMPProxyError` for a fault."""
    document = parse_fast(body) or parse_strict(_decode(body))
    if document.fault is not None:
        raise _proxy_error(document.fault)
    if document.method is not None:
        raise XMLError("this is not the response to a call")
    if len(document.params) > 1:
        raise XMLError("a response has more than one value")
    return document.params[0] if document.params else ""


def raise_if_fault(body: Bytes) -> None:
    """
    Raise `SAMPProxyError` if ``body`` is a fault, and `XMLError` if it is not an XML-RPC response.

    The value of an acknowledgement is not used (R30), so a response without a fault is not parsed.
    """
    if b"<methodResponse" not in body or b"<fault" in body:
        read_response(body)


def _proxy_error(fault: SAMPValue) -> SAMPProxyError:
    """Return the error for a fault, which may lack the code or the text."""
    if not isinstance(fault, dict):
        return SAMPProxyError(0, fault if isinstance(fault, str) else "")
    code, text = fault.get("faultCode"), fault.get("faultString")
    try:
        number = parse_int(code.strip(XML_WHITESPACE)) if isinstance(code, str) else 0
    except SAMPValueError:
        number = 0
    return SAMPProxyError(number, text if isinstance(text, str) else "")


def _decode(body: Bytes) -> str:
    declared = _PROLOG.match(body)
    name = declared.group(1).lower() if declared else b"utf-8"
    codec = _CODECS.get(name)
    if codec is None:
        raise XMLError(f"the encoding {name[:40].decode('ascii')} is not supported, send UTF-8")
    try:
        return body.decode(codec)
    except UnicodeDecodeError:
        raise XMLError(f"the document is not encoded in {codec}") from None
