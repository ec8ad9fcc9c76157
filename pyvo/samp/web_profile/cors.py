# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Rules for browsers: the host that a request must name, the headers of responses (CORS), the messages pages may send.

The functions have no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..broker.registry import SendFilter
from ..protocol import SAMPValue, best_match, check_pattern
from ..transport.http11 import HTTPRequest

Headers = tuple[tuple[str, str], ...]

METHODS = "POST, GET, HEAD, OPTIONS"
#: Seconds for which a browser may cache the response to a preflight.
MAX_AGE = 86_400
#: Response headers that a page may read in addition to the few that it always may (R46).
EXPOSED_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Length, Content-Range, ETag, Retry-After"
)
#: The policy file that Flash reads before it allows a page to use this server (R44).
CROSS_DOMAIN = """<?xml version="1.0"?>
<!DOCTYPE cross-domain-policy SYSTEM "http://www.adobe.com/xml/dtds/cross-domain-policy.dtd">
<cross-domain-policy>
  <site-control permitted-cross-domain-policies="all"/>
  <allow-access-from domain="*" secure="false"/>
  <allow-http-request-headers-from domain="*" headers="*" secure="false"/>
</cross-domain-policy>
"""

#: The policy file that Silverlight reads before it allows a page to use this server (R44).
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

#: Headers of translated URLs: the browser treats the content as data, runs no script with the origin of this server,
#: and does not pass on the address, which contains a token.
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

    The request of a page whose host name was made to resolve to this machine ("DNS rebinding") names that host.
    """
    return host is not None and host.lower() in {f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]")}


def browser_key(headers: Mapping[str, str]) -> str:
    """
    Return a key that all tabs of one browser have in common: they share a few connections (R49).

    It is empty for a program that is not a browser.
    """
    return headers.get("user-agent") or "a browser" if "origin" in headers else ""


def cors_headers(headers: Mapping[str, str]) -> Headers:
    """
    Return the headers that allow a page to read the response to a request with these headers (R44).

    Any page may: the user is protected because a page has no private key before it is allowed to register.
    """
    origin = headers.get("origin")
    if origin is None:
        return (("Vary", "Origin"),)
    return (
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
        ("Vary", "Origin"),
    )


def preflight_headers(
    request: HTTPRequest, methods: str = METHODS, allowed_headers: str = "Content-Type, Range, If-Range"
) -> Headers:
    """Return the headers of the response to a preflight, in addition to `cors_headers` (R44, R48)."""
    headers: Headers = (
        ("Access-Control-Allow-Methods", methods),
        ("Access-Control-Allow-Headers", allowed_headers),
        ("Access-Control-Max-Age", str(MAX_AGE)),
        ("Allow", methods),
    )
    if request.headers.get("access-control-request-private-network", "").lower() == "true":
        headers += (("Access-Control-Allow-Private-Network", "true"),)
    return headers


def send_filter(patterns: Iterable[str]) -> SendFilter | None:
    """
    Make the function that decides whether a web client may send a message to a recipient (R47).

    ``patterns`` are MTypes and wildcards that are allowed unless the recipient says otherwise in its subscription; with
    ``"*"`` there is no restriction, and the result is None. An invalid pattern raises a `SAMPValueError`.
    """
    allowed = dict.fromkeys(patterns, True)
    for pattern in allowed:
        check_pattern(pattern)
    if "*" in allowed:
        return None

    def is_allowed(mtype: str, annotations: Mapping[str, SAMPValue]) -> bool:
        for key in _SAFE_ANNOTATIONS:
            if annotations.get(key) in ("0", "1"):
                return annotations[key] == "1"
        return best_match(allowed, mtype) is not None

    return is_allowed
