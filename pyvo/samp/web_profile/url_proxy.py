# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
URL translation: the hub reads a URL for a web page whose browser does not allow it to (R46).

The hub passes the content on as it arrives, so that a file of any size needs the memory of one buffer only. This
happens in a worker thread, on a socket that was detached from the server.

`UrlPermissions` decides beforehand *whether* a page may read a URL. These limits apply as well:

* only regular files are read, never a device or a pipe;
* redirects are followed a few times, never to another scheme, and never from a host on the internet to this machine or
  its local network, which the page could not reach itself;
* no proxy, no cookies, no credentials.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
from collections.abc import Iterable
from functools import partial
from urllib.parse import quote, urljoin, urlsplit

from ..transport.file_serving import BodySource, BodyStreamer, FileError, FileSource, ResponseHead, Sink
from ..transport.urls import URL_SAFE_CHARS, file_url_to_local_path

#: Seconds without data from a server.
FETCH_TIMEOUT = 30.0
MAX_REDIRECTS = 5
BUFFER_SIZE = 256 * 1024

#: Headers of the other server's response that are passed on.
_PASSED_ON = (
    "Content-Type",
    "Content-Encoding",
    "Content-Range",
    "Content-Disposition",
    "Accept-Ranges",
    "Last-Modified",
    "ETag",
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Transfers that may run at the same time. A browser makes six.
MAX_TRANSFERS = 24


class UrlProxy(BodyStreamer):
    """Writes the content of URLs to detached sockets."""

    @property
    def is_busy(self) -> bool:
        """Whether no further transfer may start."""
        return self.active >= MAX_TRANSFERS

    def serve(
        self,
        sock: socket.socket,
        url: str,
        method: str,
        request_headers: dict[str, str],
        headers: Iterable[tuple[str, str]],
    ) -> None:
        """
        Start a transfer to a blocking socket with a timeout, and return at once.

        ``method`` is ``"GET"`` or ``"HEAD"``; ``headers`` of the response are added to those of the content.
        """
        self.stream(sock, partial(open_url, url, method, request_headers), headers, with_body=method != "HEAD")


def open_url(url: str, method: str, request_headers: dict[str, str]) -> BodySource:
    """Open an ``http``, ``https`` or ``file`` URL, or raise a `FileError`. Blocks; the caller closes the source."""
    path = file_url_to_local_path(url)
    if path is not None:
        return FileSource(path, request_headers)
    return _RemoteSource(url, method, request_headers)


class _RemoteSource:
    """The content of a URL of another server."""

    def __init__(self, url: str, method: str, request_headers: dict[str, str]) -> None:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pyvo.samp"}
        headers |= {name.title(): request_headers[name] for name in ("range", "if-range") if name in request_headers}
        self._fetch = _fetch_following_redirects(url, method, headers)
        response = self._fetch.response
        passed_on = [(name, " ".join(value.split())) for name in _PASSED_ON if (value := response.getheader(name))]
        length = response.getheader("Content-Length", "")
        # Without a length, the end of the connection is the end of the body
        if length.isascii() and length.isdigit() and not response.chunked:
            passed_on.append(("Content-Length", length))
        self.head = ResponseHead(response.status, passed_on)

    def copy_to(self, sink: Sink) -> bool:
        """Write the bytes as they arrive."""
        response = self._fetch.response
        remaining = response.length
        view = memoryview(bytearray(BUFFER_SIZE))
        try:
            while count := response.readinto(view):
                sink.sendall(view[:count])
                if remaining is not None:
                    remaining -= count
        except http.client.HTTPException:  # the chunks are incomplete
            return False
        return not remaining

    def stop(self) -> None:
        """Shut down the connection to the server, so that a waiting `copy_to` ends."""
        with contextlib.suppress(OSError):  # it is closed already
            self._fetch.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection to the server."""
        self._fetch.close()


class _HTTPFetch:
    """One request to a server, and its response. ``from_global``: a host on the internet redirected to the URL."""

    def __init__(self, url: str, method: str, headers: dict[str, str], *, from_global: bool) -> None:
        try:
            parts = urlsplit(url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(parts.hostname or "", parts.port, timeout=FETCH_TIMEOUT)
        except (ValueError, http.client.InvalidURL) as error:
            raise FileError(502, "The URL is malformed") from error
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=URL_SAFE_CHARS)
        try:
            self._connection.connect()
            self.sock = self._connection.sock
            self.is_global = is_global(self.sock)
            if from_global and not self.is_global:
                raise FileError(502, "The server redirects into the local network")
            self._connection.request(method, target, headers=headers)
            self.response = self._connection.getresponse()
        except BaseException as error:
            self._connection.close()
            raise _to_file_error(error) from error

    def close(self) -> None:
        """Close the connection."""
        self.response.close()
        self._connection.close()


def _to_file_error(error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return FileError(504, "The server of this URL does not respond")
    if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
        return FileError(502, "The server of this URL cannot be reached, or does not speak HTTP")
    return error


def _fetch_following_redirects(url: str, method: str, headers: dict[str, str]) -> _HTTPFetch:
    from_global = False
    for _ in range(MAX_REDIRECTS + 1):
        fetch = _HTTPFetch(url, method, headers, from_global=from_global)
        location = fetch.response.getheader("Location")
        if fetch.response.status not in _REDIRECTS or not location:
            return fetch
        fetch.close()
        from_global = from_global or fetch.is_global
        try:
            target = urljoin(url, location)
            scheme = urlsplit(target).scheme
            same = scheme == urlsplit(url).scheme
        except ValueError as error:
            raise FileError(502, "The server redirects to a malformed URL") from error
        if not same:
            raise FileError(502, f"The server redirects to another scheme ({scheme[:20]}), which is not followed")
        url = target
    raise FileError(502, "The server redirects too often")


def is_global(sock: socket.socket) -> bool:
    """Whether the other end of a connection is a host on the internet: not this machine nor its local network."""
    return ipaddress.ip_address(sock.getpeername()[0].partition("%")[0]).is_global
