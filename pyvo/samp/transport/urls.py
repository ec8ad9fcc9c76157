# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Functions to split, check and compare URLs and hosts. They never look up host names (R37)."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from ..errors import SAMPTransportError, SAMPValueError

#: Characters that are not percent-encoded in a URL, in addition to letters and digits.
URL_SAFE_CHARS = "!#$%&'()*+,/:;=?@[]~-._"


#: The error text for a request whose ``Host`` header was rejected.
HOST_REJECTED_TEXT = "The Host header does not name this server"


@lru_cache(maxsize=128)
def split_http_url(url: str) -> tuple[str, int, str]:
    """
    Split an ``http`` URL into host, port and path; raise `SAMPTransportError` for any other URL.

    For ``localhost`` the host is ``127.0.0.1``, which needs no lookup. The default port is 80, and the default path is
    ``/``. The path includes the query.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SAMPTransportError(f"{url!r} is not a valid URL: {error}") from error
    if parts.scheme != "http" or not host or port == 0 or not url.isascii() or any(c <= " " for c in url):
        raise SAMPTransportError(f"{url!r} is not an http URL with a host and a valid port")
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    return "127.0.0.1" if host == "localhost" else host, port or 80, path


@lru_cache(maxsize=128)
def is_ip_address(host: str) -> bool:
    """Return whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Return whether an IP address is a loopback address, possibly an IPv4 address mapped to IPv6 (R45)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def is_local_host(host: str) -> bool:
    """Return whether a host is ``localhost`` or a loopback address."""
    return host == "localhost" or (is_ip_address(host) and is_loopback(host))


def file_url_to_path(url: str) -> str | None:
    """
    Return the decoded path of a ``file:`` URL, with a single leading slash; return None for any other URL.

    ``file:///p``, ``file:/p``, ``file://localhost/p`` and ``file://localhost//p`` are accepted.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme != "file" or not parts.path.startswith("/"):
        return None
    if parts.netloc.lower() not in ("", "localhost", "127.0.0.1"):
        return None
    # A file name may contain "?", which is not encoded by programs that build such URLs without a library. On Windows,
    # a path that begins with two slashes is on another computer.
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return "/" + unquote(path).lstrip("/")


def file_url_to_local_path(url: str) -> str | None:
    r"""
    Return the path of a ``file:`` URL in the syntax of this system; return None for any other URL.

    On Windows ``/C:/data/x`` becomes ``C:\data\x``. A path on another computer becomes a path on this computer, because
    opening ``\\host\share`` would send the user's credentials to that host.
    """
    path = file_url_to_path(url)
    if path is None or os.name != "nt":
        return path
    inside = path.replace("/", "\\").lstrip("\\")
    drive = re.match(r"([A-Za-z])[:|](.*)", inside, re.DOTALL)
    return f"{drive[1]}:{drive[2]}" if drive else f"\\{inside}"


def make_http_url(host: str, port: int, path: str = "/") -> str:
    """Return an ``http`` URL, with brackets around an IPv6 address."""
    return f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"


def request_head(method: str, url: str, last_lines: str) -> bytes:
    """Return the head of a request to ``url``. Its last lines are ``last_lines``."""
    host, port, path = split_http_url(url)
    authority = make_http_url(host, port, "").removeprefix("http://")
    head = f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: pyvo.samp\r\n{last_lines}"
    return head.encode("ascii")


def post_head(url: str) -> bytes:
    """Return the head of an XML-RPC request to ``url``, up to the value of ``Content-Length``."""
    return request_head("POST", url, "Content-Type: text/xml\r\nContent-Length: ")


def host_filter(address: str) -> Callable[[str], bool]:
    """
    Return a function that checks the ``Host`` header of a request (R38), for a server that listens on an address.

    In a DNS rebinding attack, the name of a page's host resolves to this computer. The browser then sends that name in
    ``Host`` and not an address. A server that listens on all addresses accepts any address and the computer's name.
    """
    names = {"localhost", "127.0.0.1", "[::1]", address.lower(), f"[{address.lower()}]"}
    everywhere = address in {"", "0.0.0.0", "::"}
    if everywhere:
        names.add(socket.gethostname().lower())

    @lru_cache(maxsize=64)
    def is_allowed(host: str) -> bool:
        name, colon, port = host.lower().rpartition(":")
        if not (colon and port.isdigit()):
            name = host.lower()
        return name in names or (everywhere and is_ip_address(name.strip("[]")))

    return is_allowed


def validate_port(port: int | str) -> int:
    """Return a port number as an int; raise `SAMPValueError` unless it is from 0 to 65535."""
    text = str(port).strip()
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise SAMPValueError(f"A port must be a number from 0 to 65535, not {port!r}")
    return int(text)


def resolve_callback_url(url: str, peer: str) -> str:
    """
    Return a client's callback URL with ``peer``, the address of the client, in place of a host name.

    The host name is not looked up (R37), because it can only be the name of the computer that sent the request. DS9
    sends the host name of its computer, which may resolve to an address on which DS9 does not listen. Raise
    `SAMPTransportError` if the URL is not an ``http`` URL.
    """
    host, port, path = split_http_url(url)
    if urlsplit(url).hostname == "localhost" or not is_ip_address(host) or _is_unspecified(host):
        host = peer
    return make_http_url(host, port, path)


@lru_cache(maxsize=128)
def _is_unspecified(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified
