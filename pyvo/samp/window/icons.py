# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fetch the icon of a client for the hub window.

The metadata of the client contain the URL. The icon of a Standard Profile client may be a file of this machine or on a
server of this machine, because the client itself can read both. The icon of a web page must be on a public ``https``
server. Only PNG, GIF and JPEG images are returned, because an SVG image can contain a script.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ..transport.file_serving import FileError, FileSource
from ..transport.urls import URL_SAFE_CHARS, file_url_to_local_path

MAX_SIZE = 256 * 1024
#: Total time in seconds.
TIMEOUT = 5.0
MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TYPES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"\xff\xd8\xff": "image/jpeg",
}


class IconError(Exception):
    """An icon cannot be fetched or is not allowed."""


def fetch_icon(url: str, *, trusted: bool) -> tuple[str, bytes]:
    """
    Fetch an icon; return its media type and content, or raise `IconError`.

    ``trusted`` is whether the URL comes from a Standard Profile client. Except for the lookup of a host name, this
    takes at most `TIMEOUT` seconds.
    """
    deadline = time.monotonic() + TIMEOUT
    try:
        path = file_url_to_local_path(url)
        if path is None:
            data = _fetch(url, deadline, trusted=trusted)
        elif trusted:
            data = _read_file(path)
        else:
            raise IconError("The icon of a web page must not be a file")
    except (OSError, ValueError, http.client.HTTPException, FileError) as error:
        raise IconError(f"The icon cannot be fetched: {error}") from error
    if len(data) > MAX_SIZE:
        raise IconError(f"The icon is larger than {MAX_SIZE} bytes")
    for start, media_type in _TYPES.items():
        if data.startswith(start):
            return media_type, data
    raise IconError("The icon is not a PNG, GIF or JPEG image")


def _read_file(path: str) -> bytes:
    source = FileSource(path, {})
    try:
        return source.read(MAX_SIZE + 1)
    finally:
        source.close()


def _fetch(url: str, deadline: float, *, trusted: bool) -> bytes:
    local = trusted  # whether a local address is allowed, which it is not after a redirect by a public server
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not trusted):
            raise IconError("The icon of a web page must be on a public https server")
        sock = _connect(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), deadline, local)
        # The timer stops a server that sends single bytes slowly.
        timer = threading.Timer(_remaining(deadline), _shut_down, [sock])
        timer.daemon = True
        timer.start()
        try:
            local = local and not _is_public(sock.getpeername()[0])
            if parts.scheme == "https":
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
            location, data = _get(sock, parts)
        finally:
            timer.cancel()
            sock.close()
        if location is None:
            return data
        url = urljoin(url, location)
    raise IconError("The server redirects too many times")


def _connect(host: str, port: int, deadline: float, local: bool) -> socket.socket:
    """Connect to the address that was checked, because a second lookup could return another address."""
    error = OSError("The host has no address")
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not local and not _is_public(str(address[0])):
            raise IconError("The address is not public")
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(_remaining(deadline))
            sock.connect(address)
            return sock
        except OSError as current:
            sock.close()
            error = current
    raise error


def _get(sock: socket.socket, parts: SplitResult) -> tuple[str | None, bytes]:
    """Request the icon; return the location of a redirect, or the content."""
    connection = http.client.HTTPConnection(parts.netloc.rpartition("@")[2])
    connection.sock = sock
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=URL_SAFE_CHARS)
    headers = {"Accept": "image/png, image/gif, image/jpeg", "Connection": "close"}
    connection.request("GET", target, headers=headers)
    with connection.getresponse() as response:
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return location, b""
        if response.status != 200:
            raise IconError(f"The server responds with status {response.status}")
        return None, response.read(MAX_SIZE + 1)


def _shut_down(sock: socket.socket) -> None:
    """End the wait for the server. `SSLSocket.shutdown` is not used because it changes the object."""
    with contextlib.suppress(OSError):  # already closed
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_global


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("The server takes too long")
    return seconds
