# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handing out to a web page what is at a URL that its browser would not let it read (R46).

The hub fetches the URL and passes on what it gets, as it comes, so that a file of any size costs the memory of one
buffer. This happens in a worker thread, on a socket that was detached from the server. *Whether* a page may have a
URL is decided before (`url_book`); this module fetches what it is told to, with these limits:

* of local files only regular ones, never a device or a pipe;
* redirects are followed a few times, never to another scheme (but to ``https`` from ``http``), and never
  from a machine elsewhere to this one or its local network, which the page could not reach either;
* no proxy, no cookies, no credentials.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import mimetypes
import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import BinaryIO, NamedTuple, Protocol
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import url2pathname

from .url_book import local_path

__all__ = ["Head", "Refusal", "Translator", "open_target"]

log = logging.getLogger(__name__)

#: Transfers at a time. A browser makes six.
MAX_TRANSFERS = 24
#: Seconds for a server to say something.
TIME_OUT = 30.0
MAX_REDIRECTS = 5
BUFFER = 256 * 1024

#: What is passed on of another server's headers.
_PASSED_ON = (
    "Content-Type", "Content-Length", "Content-Encoding", "Content-Range", "Content-Disposition",
    "Accept-Ranges", "Last-Modified", "ETag",
)  # fmt: skip
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

    def close(self) -> None:
        """Let go of the file or connection; may be called from another thread to stop a transfer."""


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

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _refuse_kind() -> BinaryIO:
    raise Refusal(403, "Only files are handed out, no directories, pipes or devices")


def _content_type(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - the path is text
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
        self._connection, answer = _request_following(url, method, headers)
        self._answer = answer
        #: Without a length, the end of the connection is the end of the body.
        self.head = Head(answer.status, [(name, value) for name in _PASSED_ON if (value := answer.getheader(name))])
        self._remaining = answer.length

    def copy_to(self, sock: socket.socket) -> bool:
        """Write the bytes as they come."""
        buffer = bytearray(BUFFER)
        view = memoryview(buffer)
        remaining = self._remaining
        try:
            while count := self._answer.readinto(view):
                sock.sendall(view[:count])
                if remaining is not None:
                    remaining -= count
        except http.client.HTTPException:  # chunks that end before their end
            return False
        return not remaining

    def close(self) -> None:
        """Close the connection to the server."""
        self._connection.close()


def _request_following(
    url: str, method: str, headers: dict[str, str]
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Ask for a URL, and for the one that it redirects to."""
    was_elsewhere = False
    for _ in range(MAX_REDIRECTS + 1):
        connection, answer, elsewhere = _request(url, method, headers, was_elsewhere=was_elsewhere)
        location = answer.getheader("Location")
        if answer.status not in _REDIRECTS or not location:
            return connection, answer
        connection.close()
        was_elsewhere = was_elsewhere or elsewhere
        target = urljoin(url, location)
        schemes = (urlsplit(url).scheme, urlsplit(target).scheme)
        if schemes[0] != schemes[1] and schemes != ("http", "https"):
            raise Refusal(502, "The server redirects to another scheme")
        url = target
    raise Refusal(502, "The server redirects too often")


def _request(
    url: str, method: str, headers: dict[str, str], *, was_elsewhere: bool
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, bool]:
    try:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIME_OUT)
    except (ValueError, http.client.InvalidURL) as error:
        raise Refusal(502, "The URL is malformed") from error
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.connect()
        elsewhere = _is_elsewhere(connection.sock)
        if was_elsewhere and not elsewhere:
            raise Refusal(502, "The server redirects into the local network")
        connection.request(method, quote(target, safe="!#$%&'()*+,/:;=?@[]~-._"), headers=headers)
        return connection, connection.getresponse(), elsewhere
    except TimeoutError as error:
        connection.close()
        raise Refusal(504, "The server of this URL does not answer") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        raise Refusal(502, "The server of this URL cannot be reached, or does not speak HTTP") from error
    except Refusal:
        connection.close()
        raise


def _is_elsewhere(sock: socket.socket) -> bool:
    """Whether the other end is neither this machine nor in its local network."""
    return ipaddress.ip_address(sock.getpeername()[0].partition("%")[0]).is_global


class Translator:
    """
    Writes targets to detached sockets.

    Parameters
    ----------
    run_in_worker : callable
        ``run_in_worker(function, *args)`` runs it in another thread.
    give_back : callable
        ``give_back(sock)`` closes a detached socket (`XMLRPCServer.take_back`).
    """

    def __init__(self, run_in_worker: Callable[..., object], give_back: Callable[[socket.socket], object]) -> None:
        self._run_in_worker = run_in_worker
        self._give_back = give_back
        self._lock = threading.Lock()
        self._at_work = 0
        self._sources: set[Source] = set()
        self._stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether as many transfers are under way as may be."""
        return self._at_work >= MAX_TRANSFERS

    def start(
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
        with self._lock:
            self._at_work += 1
        self._run_in_worker(self._run, sock, url, method, wanted, list(headers))

    def stop(self) -> None:
        """End all transfers."""
        with self._lock:
            self._stopped = True
            sources = list(self._sources)
        for source in sources:
            source.close()

    def _run(
        self, sock: socket.socket, url: str, method: str, wanted: dict[str, str], headers: list[tuple[str, str]]
    ) -> None:
        try:
            self._transfer(sock, url, method, wanted, headers)
        except (OSError, ValueError) as error:  # ValueError: the source was closed by `stop`
            log.debug("A transfer to a web page broke off: %s", error)
        finally:
            with self._lock:
                self._at_work -= 1
            self._give_back(sock)

    def _transfer(
        self, sock: socket.socket, url: str, method: str, wanted: dict[str, str], headers: list[tuple[str, str]]
    ) -> None:
        try:
            source = open_target(url, method, wanted)
        except Refusal as refusal:
            log.info("A web page cannot have what was mentioned to it: %s", refusal)
            body = f"{refusal}\n".encode()
            head = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            head += [*refusal.headers, *headers]
            sock.sendall(_write_head(refusal.status, head) + (b"" if method == "HEAD" else body))
            return
        with self._lock:
            stopped = self._stopped
            self._sources.add(source)
        try:
            sock.sendall(_write_head(source.head.status, [*source.head.headers, *headers]))
            if method != "HEAD" and (stopped or not source.copy_to(sock)):
                _break(sock)
        except (OSError, ValueError):
            _break(sock)
            raise
        finally:
            with self._lock:
                self._sources.discard(source)
            source.close()


def _break(sock: socket.socket) -> None:
    """Have the connection end with a reset: the reader of a body without a length must not take its half for the whole."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))


def _write_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "Connection: close"]
    # A header of another server may hold anything but a line's end, which http.client has seen to
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
