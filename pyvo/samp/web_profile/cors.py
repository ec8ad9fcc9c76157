# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Who may use the Web Profile's server, what browsers must be told about it, and what a web page may send.

Functions of a request alone: no sockets, no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..protocol import SAMPValue, best_match, check_pattern
from ..transport.http11 import HTTPRequest

if TYPE_CHECKING:
    from ..broker.registry import SendFilter

__all__ = [
    "CLIENT_ACCESS_POLICY",
    "CROSS_DOMAIN",
    "METHODS",
    "browser_key",
    "cors_headers",
    "is_allowed_host",
    "preflight_headers",
    "send_filter",
]

Headers = tuple[tuple[str, str], ...]

METHODS = "POST, GET, HEAD, OPTIONS"
#: Seconds for which a browser may remember the answer to a preflight.
MAX_AGE = 86_400
#: Response headers that a page may read, beside the few that it always may (R46).
EXPOSED_HEADERS = "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Length, Content-Range, ETag"
#: What Flash reads before it lets a page talk to this server (R44).
CROSS_DOMAIN = """<?xml version="1.0"?>
<!DOCTYPE cross-domain-policy SYSTEM "http://www.adobe.com/xml/dtds/cross-domain-policy.dtd">
<cross-domain-policy>
  <site-control permitted-cross-domain-policies="all"/>
  <allow-access-from domain="*" secure="false"/>
  <allow-http-request-headers-from domain="*" headers="*" secure="false"/>
</cross-domain-policy>
"""

#: What Silverlight reads before it lets a page talk to this server (R44).
CLIENT_ACCESS_POLICY = """<?xml version="1.0" encoding="utf-8"?>
<access-policy>
  <cross-domain-access>
    <policy>
      <allow-from http-methods="GET,POST" http-request-headers="*">
        <domain uri="*"/>
      </allow-from>
      <grant-to>
        <resource path="/" include-subpaths="true"/>
      </grant-to>
    </policy>
  </cross-domain-access>
</access-policy>
"""

#: What was fetched for a page is data: it runs no script as this server's, and its address, which has a token in it,
#: goes nowhere.
SANDBOX_HEADERS: Headers = (
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
_SAFE_ANNOTATIONS = ("x-samp.mostly-harmless", "samp.mostly-harmless")


def is_allowed_host(host: str | None, port: int) -> bool:
    """
    Whether a Host header names this server (R45).

    A page whose own host name was made to resolve to this machine ("DNS rebinding") names that host.

    Parameters
    ----------
    host : str or None
        The header; None where there is none.
    port : int
        The port of this server.
    """
    return host is not None and host.lower() in {f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]")}


def browser_key(headers: Mapping[str, str]) -> str:
    """
    Tell whose connections a request shares: all tabs of a browser have a few together (R49).

    Parameters
    ----------
    headers : mapping of str to str
        The request's headers, with names in lower case.

    Returns
    -------
    str
        The same for all tabs of one browser; empty for a program that is none, and has its connections for itself.
    """
    return headers.get("user-agent") or "a browser" if "origin" in headers else ""


def cors_headers(headers: Mapping[str, str]) -> Headers:
    """
    Tell a browser that the page which asks may read the answer (R44).

    Any page may: what protects the user is that a page has no key before it was allowed one.

    Parameters
    ----------
    headers : mapping of str to str
        The request's headers, with names in lower case.

    Returns
    -------
    tuple of (str, str)
        Headers of the answer; none where no page asks.
    """
    origin = headers.get("origin")
    if origin is None:
        return (("Vary", "Origin"),)
    return (
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
        ("Vary", "Origin"),
    )


def preflight_headers(request: HTTPRequest) -> Headers:
    """
    Answer a browser's question whether a page may make a certain request (R44, R48).

    Parameters
    ----------
    request : Request
        The ``OPTIONS``.

    Returns
    -------
    tuple of (str, str)
        Headers of the answer, besides those of `cors_headers`.
    """
    answer: Headers = (
        ("Access-Control-Allow-Methods", METHODS),
        ("Access-Control-Allow-Headers", "Content-Type, Range, If-Range"),
        ("Access-Control-Max-Age", str(MAX_AGE)),
        ("Allow", METHODS),
    )
    if request.headers.get("access-control-request-private-network", "").lower() == "true":
        answer += (("Access-Control-Allow-Private-Network", "true"),)
    return answer


def send_filter(patterns: Iterable[str]) -> SendFilter | None:
    """
    Make the rule what web clients may send, and to whom (R47).

    Parameters
    ----------
    patterns : iterable of str
        MTypes, or patterns of them, that are harmless. ``"*"`` among them lifts the restriction.

    Returns
    -------
    callable or None
        Told an MType and how its recipient annotated the subscription to it, says whether it may be sent; None if
        all may.

    Raises
    ------
    SAMPValueError
        One of the patterns is none.
    """
    harmless = dict.fromkeys(patterns, True)
    for pattern in harmless:
        check_pattern(pattern)
    if "*" in harmless:
        return None

    def may_reach(mtype: str, annotations: Mapping[str, SAMPValue]) -> bool:
        for key in _SAFE_ANNOTATIONS:
            if annotations.get(key) in ("0", "1"):
                return annotations[key] == "1"
        return best_match(harmless, mtype) is not None

    return may_reach
