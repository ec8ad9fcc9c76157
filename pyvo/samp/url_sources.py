# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Where what a web page reads through the hub comes from: files of this machine, and other servers (R46).

*Whether* a page may have a URL is decided before (`url_book`). What is fetched is limited all the same:

* of local files only regular ones, never a device or a pipe;
* redirects are followed a few times, never to another scheme (but to ``https`` from ``http``), and never
  from a machine elsewhere to this one or its local network, which the page could not reach either;
* no proxy, no cookies, no credentials.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import mimetypes
import os
import re
import socket
import stat
from email.utils import formatdate
from typing import BinaryIO, NamedTuple, Protocol
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import url2pathname

from .url_book import PLAIN, local_path

__all__ = ["Head", "Refusal", "Source", "open_target"]

#: Seconds for a server to say something.
TIME_OUT = 30.0
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
_TYPES = {
    ".vot": "application/x-votable+xml",
    ".votable": "application/x-votable+xml",
    ".fits": "application/fits",
    ".fit": "application/fits",
    ".fts": "application/fits",
    ".parquet": "application/vnd.apache.parquet",
    ".gz": "application/gzip",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """
    A target cannot be handed out.

    Parameters
    ----------
    status : int
        The HTTP status that says so.
    text : str
        Why.
    headers : list of (str, str)
        Further headers of the answer.
    """

    def __init__(self, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or []


class Head(NamedTuple):
    """Status and headers of what is handed out."""

    status: int
    headers: list[tuple[str, str]]


class Source(Protocol):
    """What is handed out."""

    head: Head

    def copy_to(self, sock: socket.socket) -> bool:
        """Write the body; tells whether it is complete."""

    def stop(self) -> None:
        """Have `copy_to`, which runs in another thread, end."""

    def close(self) -> None:
        """Let go of the file or connection."""


def open_target(url: str, method: str, wanted: dict[str, str]) -> Source:
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
    path = local_path(url)
    if path is not None:
        return _File(url2pathname(quote(path)) if os.name == "nt" else path, wanted)
    return _Remote(url, method, wanted)


class _File:
    """A file of this machine."""

    def __init__(self, path: str, wanted: dict[str, str]) -> None:
        try:
            # Looked at before it is opened: opening a device can do something, opening a pipe can wait for ever.
            regular = stat.S_ISREG(os.stat(path).st_mode)
            self._file: BinaryIO = open(os.open(path, _FLAGS), "rb") if regular else _refuse_kind()  # noqa: SIM115
        except (OSError, ValueError) as error:
            missing = not isinstance(error, PermissionError)
            raise Refusal(404 if missing else 403, "The file cannot be read") from error
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                _refuse_kind()
            start, self._count, code = _range(wanted, status.st_size)
        except Refusal:
            self._file.close()
            raise
        self._start = start
        headers = [
            ("Content-Type", _content_type(path)),
            ("Content-Length", str(self._count)),
            ("Accept-Ranges", "bytes"),
            ("Last-Modified", formatdate(status.st_mtime, usegmt=True)),
        ]
        if code == 206:
            headers.append(("Content-Range", f"bytes {start}-{start + self._count - 1}/{status.st_size}"))
        self.head = Head(code, headers)

    def copy_to(self, sock: socket.socket) -> bool:
        """Write the file's bytes."""
        if not self._count:
            return True
        return sock.sendfile(self._file, self._start, self._count) == self._count

    def stop(self) -> None:
        """Nothing to be done: reading a file does not wait."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _refuse_kind() -> BinaryIO:
    raise Refusal(403, "Only files are handed out, no directories, pipes or devices")


def _content_type(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(path, strict=False)[0] or "application/octet-stream"


def _range(wanted: dict[str, str], size: int) -> tuple[int, int, int]:
    """First byte, number of bytes and status for the Range header; a malformed or manifold range means all."""
    match = _RANGE.fullmatch(wanted.get("range", "").strip())
    if match is None or not any(match.groups()) or "if-range" in wanted:
        return 0, size, 200
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last[:18])), size
    else:
        start, stop = int(first[:18]), min(size, int(last[:18]) + 1 if last else size)
        if last and int(last) < int(first):
            return 0, size, 200
    if start >= stop:
        raise Refusal(416, "The file has no such bytes", [("Content-Range", f"bytes */{size}")])
    return start, stop - start, 206


class _Remote:
    """What another server offers."""

    def __init__(self, url: str, method: str, wanted: dict[str, str]) -> None:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pyvo.samp"}
        headers.update({name.title(): wanted[name] for name in ("range", "if-range") if name in wanted})
        self._visit = visit = _visit_following(url, method, headers)
        answer = visit.answer
        passed_on = [(name, " ".join(value.split())) for name in _PASSED_ON if (value := answer.getheader(name))]
        length = answer.getheader("Content-Length", "")
        # Without a length, the end of the connection is the end of the body
        if length.isascii() and length.isdigit() and not answer.chunked:
            passed_on.append(("Content-Length", length))
        self.head = Head(answer.status, passed_on)

    def copy_to(self, sock: socket.socket) -> bool:
        """Write the bytes as they come."""
        answer = self._visit.answer
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
            self._visit.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection to the server."""
        self._visit.close()


class _Visit:
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
            self._connection = kind(parts.hostname or "", parts.port, timeout=TIME_OUT)
        except (ValueError, http.client.InvalidURL) as error:
            raise Refusal(502, "The URL is malformed") from error
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=PLAIN)
        try:
            self._connection.connect()
            self.sock = self._connection.sock
            self.is_elsewhere = _is_elsewhere(self.sock)
            if came_from_elsewhere and not self.is_elsewhere:
                raise Refusal(502, "The server redirects into the local network")
            self._connection.request(method, target, headers=headers)
            self.answer = self._connection.getresponse()
        except BaseException as error:
            self._connection.close()
            raise _as_refusal(error) from error

    def close(self) -> None:
        """Close the connection."""
        self.answer.close()
        self._connection.close()


def _as_refusal(error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError):
        return Refusal(504, "The server of this URL does not answer")
    if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
        return Refusal(502, "The server of this URL cannot be reached, or does not speak HTTP")
    return error


def _visit_following(url: str, method: str, headers: dict[str, str]) -> _Visit:
    """Ask for a URL, and for the one that it redirects to."""
    elsewhere = False
    for _ in range(MAX_REDIRECTS + 1):
        visit = _Visit(url, method, headers, came_from_elsewhere=elsewhere)
        location = visit.answer.getheader("Location")
        if visit.answer.status not in _REDIRECTS or not location:
            return visit
        visit.close()
        elsewhere = elsewhere or visit.is_elsewhere
        try:
            target = urljoin(url, location)
            schemes = (urlsplit(url).scheme, urlsplit(target).scheme)
        except ValueError as error:
            raise Refusal(502, "The server redirects to nowhere") from error
        if schemes[0] != schemes[1] and schemes != ("http", "https"):
            raise Refusal(502, "The server redirects to another scheme")
        url = target
    raise Refusal(502, "The server redirects too often")


def _is_elsewhere(sock: socket.socket) -> bool:
    """Whether the other end is neither this machine nor in its local network."""
    return ipaddress.ip_address(sock.getpeername()[0].partition("%")[0]).is_global
