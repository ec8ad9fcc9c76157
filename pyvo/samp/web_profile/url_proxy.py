# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handing out to a web page what is at a URL that its browser would not let it read (R46).

The hub fetches the URL and passes on what it gets, as it comes, so that a file of any size costs the memory of one
buffer. This happens in a worker thread, on a socket that was detached from the server.

Where what a web page reads through the hub comes from: files of this machine, and other servers (R46).

*Whether* a page may have a URL is decided before (`url_book`). What is fetched is limited all the same:

* of local files only regular ones, never a device or a pipe;
* redirects are followed a few times, never to another scheme, and never from a machine elsewhere to this one or its
  local network, which the page could not reach either;
* no proxy, no cookies, no credentials.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
from collections.abc import Iterable
from functools import partial
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import url2pathname

from ..transport.file_serving import BodySource, BodyStreamer, FileError, FileSource, ResponseHead
from ..transport.urls import URL_SAFE_CHARS, file_url_to_path

__all__ = ["UrlProxy", "open_url"]

#: Seconds for a server to say something.
FETCH_TIMEOUT = 30.0
MAX_REDIRECTS = 5
BUFFER = 256 * 1024

#: What is passed on of another server's headers.
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


def open_url(url: str, method: str, wanted: dict[str, str]) -> BodySource:
    """
    Open what is at a URL. Blocks.

    Parameters
    ----------
    url : str
        An ``http``, ``https`` or ``file`` URL.
    method : str
        ``"GET"`` or ``"HEAD"``.
    wanted : dict of str to str
        The request's headers, with names in lower case; ``range`` and ``if-range`` matter.

    Returns
    -------
    Source
        To be closed by the caller.

    Raises
    ------
    Refusal
        It cannot be had.
    """
    path = file_url_to_path(url)
    if path is not None:
        return FileSource(url2pathname(quote(path)) if os.name == "nt" else path, wanted)
    return _RemoteSource(url, method, wanted)


class _RemoteSource:
    """What another server offers."""

    def __init__(self, url: str, method: str, wanted: dict[str, str]) -> None:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pyvo.samp"}
        headers.update({name.title(): wanted[name] for name in ("range", "if-range") if name in wanted})
        self._fetch = visit = _fetch_following_redirects(url, method, headers)
        answer = visit.answer
        passed_on = [(name, " ".join(value.split())) for name in _PASSED_ON if (value := answer.getheader(name))]
        length = answer.getheader("Content-Length", "")
        # Without a length, the end of the connection is the end of the body
        if length.isascii() and length.isdigit() and not answer.chunked:
            passed_on.append(("Content-Length", length))
        self.head = ResponseHead(answer.status, passed_on)

    def copy_to(self, sock: socket.socket) -> bool:
        """Write the bytes as they come."""
        answer = self._fetch.answer
        remaining = answer.length
        view = memoryview(bytearray(BUFFER))
        try:
            while count := answer.readinto(view):
                sock.sendall(view[:count])
                if remaining is not None:
                    remaining -= count
        except http.client.HTTPException:  # chunks that break off
            return False
        return not remaining

    def stop(self) -> None:
        """Shut the connection to the server, so that nobody waits for it."""
        with contextlib.suppress(OSError):  # it is closed already
            self._fetch.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection to the server."""
        self._fetch.close()


class _HTTPFetch:
    """
    One request to a server, and its answer.

    Parameters
    ----------
    url : str
        What is asked for.
    method : str
        How.
    headers : dict of str to str
        The request's headers.
    came_from_elsewhere : bool
        Whether a machine elsewhere sent us here.
    """

    def __init__(self, url: str, method: str, headers: dict[str, str], *, came_from_elsewhere: bool) -> None:
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
            self.is_elsewhere = is_global(self.sock)
            if came_from_elsewhere and not self.is_elsewhere:
                raise FileError(502, "The server redirects into the local network")
            self._connection.request(method, target, headers=headers)
            self.answer = self._connection.getresponse()
        except BaseException as error:
            self._connection.close()
            raise _to_file_error(error) from error

    def close(self) -> None:
        """Close the connection."""
        self.answer.close()
        self._connection.close()


def _to_file_error(error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return FileError(504, "The server of this URL does not answer")
    if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
        return FileError(502, "The server of this URL cannot be reached, or does not speak HTTP")
    return error


def _fetch_following_redirects(url: str, method: str, headers: dict[str, str]) -> _HTTPFetch:
    """Ask for a URL, and for the one that it redirects to."""
    elsewhere = False
    for _ in range(MAX_REDIRECTS + 1):
        visit = _HTTPFetch(url, method, headers, came_from_elsewhere=elsewhere)
        location = visit.answer.getheader("Location")
        if visit.answer.status not in _REDIRECTS or not location:
            return visit
        visit.close()
        elsewhere = elsewhere or visit.is_elsewhere
        try:
            target = urljoin(url, location)
            scheme = urlsplit(target).scheme
            same = scheme == urlsplit(url).scheme
        except ValueError as error:
            raise FileError(502, "The server redirects to nowhere") from error
        if not same:
            raise FileError(502, f"The server redirects to another scheme ({scheme[:20]}), which is not followed")
        url = target
    raise FileError(502, "The server redirects too often")


def is_global(sock: socket.socket) -> bool:
    """Whether the other end is neither this machine nor in its local network."""
    return ipaddress.ip_address(sock.getpeername()[0].partition("%")[0]).is_global


#: Transfers at a time. A browser makes six.
MAX_TRANSFERS = 24


class UrlProxy(BodyStreamer):
    """Writes what is at a URL to detached sockets."""

    @property
    def is_busy(self) -> bool:
        """Whether as many transfers are under way as may be."""
        return self.active >= MAX_TRANSFERS

    def serve(
        self, sock: socket.socket, url: str, method: str, wanted: dict[str, str], headers: Iterable[tuple[str, str]]
    ) -> None:
        """
        Hand out a target; returns at once.

        Parameters
        ----------
        sock : socket.socket
            Where to; blocking, with a time-out.
        url : str
            What.
        method : str
            ``"GET"`` or ``"HEAD"``.
        wanted : dict of str to str
            The request's headers.
        headers : iterable of (str, str)
            What the answer bears beside the headers of the target.
        """
        self.stream(sock, partial(open_url, url, method, wanted), headers, with_body=method != "HEAD")
