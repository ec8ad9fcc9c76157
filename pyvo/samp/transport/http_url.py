# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What is in an ``http`` URL, and the head of a request to it."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from ..errors import SAMPTransportError

__all__ = ["http_address", "is_address", "request_head"]


@lru_cache(maxsize=128)
def http_address(url: str) -> tuple[str, int, str]:
    """
    Take an ``http`` URL apart.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:21012/``.

    Returns
    -------
    host : str
        Name or address; ``localhost`` is given as ``127.0.0.1``, so that nothing is looked up.
    port : int
        80 where the URL names none.
    path : str
        ``/`` where the URL has none.

    Raises
    ------
    SAMPTransportError
        The URL is no ``http`` URL.
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
def is_address(host: str) -> bool:
    """Whether a host is given by its address, so that nothing has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def request_head(url: str) -> bytes:
    """The header lines of a POST to ``url``, up to the number behind ``Content-Length:``."""
    host, port, path = http_address(url)
    host = f"[{host}]" if ":" in host else host
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: pyvo.samp\r\n"
        "Content-Type: text/xml\r\nContent-Length: "
    ).encode("ascii")
