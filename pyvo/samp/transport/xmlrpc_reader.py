# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
XML-RPC documents to SAMP values (rules R5 and R30).

The reader takes what deployed programs write and makes of it only what rule R1 knows: strings, lists and
maps. It trusts no document: no DTD, no entity but the five of XML, no nesting without limit, no cost above
what the length of the document explains.
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

__all__ = ["MethodCall", "XMLError", "raise_if_fault", "read_call", "read_document", "read_response"]

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
    """A call as it came in."""

    name: str
    params: list[SAMPValue]
    raw: Sequence[memoryview | None]
    """
    For each parameter the bytes ``<value>...</value>`` that may be put into another document as they are;
    `None` where they may not.
    """


def read_call(body: Bytes) -> MethodCall:
    """
    Read a call.

    Parameters
    ----------
    body : bytes or bytearray
        The document.

    Returns
    -------
    MethodCall
        Name and parameters, numbers turned into strings.

    Raises
    ------
    XMLError
        When the document is no call, or one with a parameter that is no SAMP value.
    """
    document = parse_fast(body)
    plain = document is not None
    if document is None:
        document = parse_strict(_decode(body))
    if document.method is None:
        raise XMLError("this is not a method call")
    count = len(document.params)
    return MethodCall(document.method, document.params, RawParams(body, count) if plain else [None] * count)


def read_response(body: Bytes) -> SAMPValue:
    """
    Read the answer to a call.

    Parameters
    ----------
    body : bytes or bytearray
        The document.

    Returns
    -------
    str, list or dict
        What was answered; an empty string when there is no value in the answer.

    Raises
    ------
    SAMPProxyError
        When the answer is a fault.
    XMLError
        When the document is no answer, or one that is no SAMP value.
    """
    params, method = read_document(body)
    if method is not None:
        raise XMLError("this is not an answer to a call")
    if len(params) > 1:
        raise XMLError("an answer has more than one value")
    return params[0] if params else ""


def raise_if_fault(body: Bytes) -> None:
    """
    Raise unless ``body`` is an XML-RPC answer that is no fault.

    What an acknowledgement holds beyond that is nobody's business (rule R30): one without a fault is not parsed.

    Raises
    ------
    SAMPProxyError
        It is a fault.
    XMLError
        It is no XML-RPC.
    """
    if b"<methodResponse" not in body or b"<fault" in body:
        read_response(body)


def read_document(body: Bytes) -> tuple[list[SAMPValue], str | None]:
    """
    Read a call or an answer.

    Parameters
    ----------
    body : bytes or bytearray
        The document.

    Returns
    -------
    params : list
        The values in it.
    method : str or None
        The name of the method; `None` for an answer.

    Raises
    ------
    SAMPProxyError
        When the document is a fault.
    XMLError
        When it is not XML-RPC, or holds what is no SAMP value.
    """
    document = parse_fast(body) or parse_strict(_decode(body))
    if document.fault is not None:
        raise _proxy_error(document.fault)
    return document.params, document.method


def _proxy_error(fault: SAMPValue) -> SAMPProxyError:
    """Make an error of a fault, whatever sense there is in it."""
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
