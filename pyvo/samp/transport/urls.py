# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""URLs and hosts: split, check and compare them. No host name is looked up (R37)."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from ..errors import SAMPTransportError, SAMPValueError

#: The characters of a URL that are not percent-encoded; letters and digits never are.
URL_SAFE_CHARS = "!#$%&'()*+,/:;=?@[]~-._"


@lru_cache(maxsize=128)
def split_http_url(url: str) -> tuple[str, int, str]:
    """
    Split an ``http`` URL into host, port and path; raise `SAMPTransportError` for any other URL.

    The host is ``127.0.0.1`` for ``localhost``, so that it need not be looked up. The defaults are port 80 and path
    ``/``; the path includes the query.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SAMPTransportError(f"{url!r} is not a valid URL: {error}") from error
    if parts.scheme != "http" or not host or not url.isascii() or any(c <= " " for c in url):
        raise SAMPTransportError(f"{url!r} is not an http URL with a host")
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    return "127.0.0.1" if host == "localhost" else host, port or 80, path


@lru_cache(maxsize=128)
def is_ip_address(host: str) -> bool:
    """Whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether an IP address is a loopback address; IPv4 addresses mapped to IPv6 count as well (R45)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def is_local_host(host: str) -> bool:
    """Whether a host is ``localhost`` or a loopback address."""
    return host == "localhost" or (is_ip_address(host) and is_loopback(host))


def file_url_to_path(url: str) -> str | None:
    """
    Return the decoded path of a ``file:`` URL, with a single slash in front; None for any other URL.

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
    # A file name may contain "?", which programs that write such URLs by hand do not encode. On Windows, a path that
    # begins with two slashes names another computer.
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return "/" + unquote(path).lstrip("/")


def file_url_to_local_path(url: str) -> str | None:
    r"""
    Return the path of a ``file:`` URL as this system writes paths; None for any other URL.

    On Windows ``/C:/data/x`` becomes ``C:\data\x``. A path that would name another computer becomes one of this
    computer: opening ``\\host\share`` would send the user's credentials to that host.
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
    """Return the head of a request to ``url``, which ends with ``last_lines``."""
    host, port, path = split_http_url(url)
    authority = make_http_url(host, port, "").removeprefix("http://")
    head = f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: pyvo.samp\r\n{last_lines}"
    return head.encode("ascii")


def post_head(url: str) -> bytes:
    """Return the head of an XML-RPC request to ``url``, up to the value of ``Content-Length``."""
    return request_head("POST", url, "Content-Type: text/xml\r\nContent-Length: ")


def host_filter(address: str) -> Callable[[str], bool]:
    """
    Make the function that checks the ``Host`` header of a request (R38), for a server that listens at an address.

    A page from a host whose name was made to resolve to this computer ("DNS rebinding") sends that name in ``Host``. It
    cannot send an address. A server that listens on all addresses accepts any address and the name of the computer.
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
        raise SAMPValueError(f"A port is a number from 0 to 65535, not {port!r}")
    return int(text)


def resolve_callback_url(url: str, peer: str) -> str:
    """
    Return a client's callback URL with ``peer``, the address of the client, in place of a host name.

    The name is not looked up (R37): it must be that of the computer that the request came from. DS9 sends the host
    name of its computer, which may resolve to an address at which DS9 does not listen. `SAMPTransportError` is raised
    for a URL that is not an ``http`` URL.
    """
    host, port, path = split_http_url(url)
    if urlsplit(url).hostname == "localhost" or not is_ip_address(host) or _is_unspecified(host):
        host = peer
    return make_http_url(host, port, path)


@lru_cache(maxsize=128)
def _is_unspecified(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified
