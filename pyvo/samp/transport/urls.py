# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""URLs and hosts: split, check and compare them. No name is looked up (R37)."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from ..errors import SAMPTransportError, SAMPValueError

__all__ = [
    "URL_SAFE_CHARS",
    "AllowedHosts",
    "file_url_to_path",
    "is_ip_address",
    "is_local_host",
    "is_loopback",
    "post_head",
    "resolve_callback_url",
    "split_http_url",
    "validate_port",
]

#: The characters of a URL that are not percent-encoded; letters and digits never are.
URL_SAFE_CHARS = "!#$%&'()*+,/:;=?@[]~-._"


@lru_cache(maxsize=128)
def split_http_url(url: str) -> tuple[str, int, str]:
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
def is_ip_address(host: str) -> bool:
    """Whether a host is given by its address, so that nothing has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether an IP address is a loopback address, an IPv4 address mapped to IPv6 included (R45)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def is_local_host(host: str) -> bool:
    """Whether a host, a name or an address, is this computer: ``localhost`` or a loopback address."""
    return host == "localhost" or (is_ip_address(host) and is_loopback(host))


def file_url_to_path(url: str) -> str | None:
    """
    Return the path of a ``file:`` URL, percent-decoded, with a single slash in front; None for any other URL.

    ``file:///p``, ``file:/p``, ``file://localhost/p`` and ``file://localhost//p`` are understood.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme != "file" or not parts.path.startswith("/"):
        return None
    if parts.netloc.lower() not in ("", "localhost", "127.0.0.1"):
        return None
    # A file's name may hold "?"; programs that make such URLs by hand do not encode it. Two slashes in front would be
    # the name of another machine on Windows.
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return "/" + unquote(path).lstrip("/")


def post_head(url: str) -> bytes:
    """The header lines of a POST to ``url``, up to the number behind ``Content-Length:``."""
    host, port, path = split_http_url(url)
    host = f"[{host}]" if ":" in host else host
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: pyvo.samp\r\n"
        "Content-Type: text/xml\r\nContent-Length: "
    ).encode("ascii")


class AllowedHosts:
    """
    What a request may name as its host (R38).

    A page whose host name was made to resolve to this machine names that host. It cannot name an address.

    Parameters
    ----------
    host : str
        The address that is listened on; for all addresses of the machine, those and its name are good.
    """

    def __init__(self, host: str) -> None:
        self._names = {"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"}
        self._everywhere = host in {"", "0.0.0.0", "::"}
        if self._everywhere:
            self._names.add(socket.gethostname().lower())

    def __contains__(self, host: str) -> bool:
        name, colon, port = host.lower().rpartition(":")
        if not (colon and port.isdigit()):
            name = host.lower()
        return name in self._names or (self._everywhere and is_ip_address(name.strip("[]")))


def validate_port(port: int | str) -> int:
    """
    Check the number of a port.

    Parameters
    ----------
    port : int or str
        The number, as a text too.

    Returns
    -------
    int
        The number.

    Raises
    ------
    SAMPValueError
        It is none from 0 to 65535.
    """
    text = str(port).strip()
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise SAMPValueError(f"A port is a number from 0 to 65535, not {port!r}")
    return int(text)


def resolve_callback_url(url: str, peer: str) -> str:
    """
    Check a client's callback URL, and put an address in the place of a host name.

    A name is never looked up (R37): it is that of the machine which the request came from, whose address is known.
    DS9 names its machine's host name, which may well resolve to another address than the one it can be
    reached at.

    Parameters
    ----------
    url : str
        As the client gave it.
    peer : str
        The address that the client's request came from.

    Returns
    -------
    str
        The URL to call.

    Raises
    ------
    SAMPTransportError
        It is no ``http`` URL.
    """
    host, port, path = split_http_url(url)
    if urlsplit(url).hostname == "localhost" or not is_ip_address(host) or _is_unspecified(host):
        host = peer
    return f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"


@lru_cache(maxsize=128)
def _is_unspecified(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified
