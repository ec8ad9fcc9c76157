# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Send the content of a file or of another source as the body of an HTTP response.

Writing a large file must not block the loop. Therefore the socket is detached from its server, and a worker thread
writes to it. A file of any size needs only one buffer of memory.
"""

from __future__ import annotations

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
from functools import partial
from typing import BinaryIO, NamedTuple, Protocol

from .http11 import REASONS, Response

log = logging.getLogger(__name__)

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


class FileError(Exception):
    """A source cannot be sent. It has the HTTP status, the reason, and additional headers of the error response."""

    def __init__(self, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or []


class ResponseHead(NamedTuple):
    """Status and headers of a response."""

    status: int
    headers: list[tuple[str, str]]


class Sink(Protocol):
    """The destination of a body: a socket, or an object with these methods of a socket."""

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Write bytes."""

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None, /) -> int:
        """Write a part of a file; return the number of bytes written."""


class BodySource(Protocol):
    """The source of a body."""

    head: ResponseHead

    def copy_to(self, sink: Sink) -> bool:
        """Write the body; return whether it is complete."""

    def stop(self) -> None:
        """Make `copy_to`, which runs in another thread, return."""

    def close(self) -> None:
        """Close the file or connection."""


class FileSource:
    """
    A regular file of this machine. Devices and pipes are rejected.

    The names in ``request_headers`` are in lower case; ``range`` and ``if-range`` are used. Raises `FileError` if the
    file cannot be read or the range is outside the file.
    """

    def __init__(self, path: str, request_headers: dict[str, str]) -> None:
        try:
            # Check before opening: opening a device can have side effects, and opening a pipe can block forever.
            regular = stat.S_ISREG(os.stat(path).st_mode)
            self._file: BinaryIO = open(os.open(path, _FLAGS), "rb") if regular else _reject_non_regular()  # noqa: SIM115
        except (OSError, ValueError) as error:
            missing = not isinstance(error, PermissionError)
            raise FileError(404 if missing else 403, "The file cannot be read") from error
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                _reject_non_regular()
            self._start, self._count, code = _range(request_headers, status.st_size)
        except FileError:
            self._file.close()
            raise
        self._unread = self._count
        self._file.seek(self._start)
        headers = [
            ("Content-Type", _content_type(path)),
            ("Content-Length", str(self._count)),
            ("Accept-Ranges", "bytes"),
            ("Last-Modified", formatdate(status.st_mtime, usegmt=True)),
        ]
        if code == 206:
            last = self._start + self._count - 1
            headers.append(("Content-Range", f"bytes {self._start}-{last}/{status.st_size}"))
        self.head = ResponseHead(code, headers)

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes of the requested range; return ``b""`` at its end."""
        data = self._file.read(min(size, self._unread))
        self._unread -= len(data)
        return data

    def copy_to(self, sink: Sink) -> bool:
        """Write the file's bytes."""
        if not self._count:
            return True
        return sink.sendfile(self._file, self._start, self._count) == self._count

    def stop(self) -> None:
        """Do nothing: reading a file does not wait."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _reject_non_regular() -> BinaryIO:
    raise FileError(403, "Only regular files are served, not directories, pipes or devices")


def _content_type(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(path, strict=False)[0] or "application/octet-stream"


def _range(headers: dict[str, str], size: int) -> tuple[int, int, int]:
    """Return first byte, number of bytes and status for a Range header; ignore a malformed or multiple range."""
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or not any(match.groups()) or "if-range" in headers:
        return 0, size, 200
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - _position(last)), size
    else:
        start, stop = _position(first), min(size, _position(last) + 1 if last else size)
        if last and _position(last) < start:
            return 0, size, 200
    if start >= stop:
        raise FileError(416, "The requested range is outside the file", [("Content-Range", f"bytes */{size}")])
    return start, stop - start, 206


def _position(digits: str) -> int:
    """Convert digits to a number. A large number is beyond the end of each file, whatever it is."""
    return int(digits) if len(digits) <= 18 else 10**18


class BodyStreamer:
    """
    Writes sources to detached sockets in worker threads.

    ``run_in_worker(function, *args)`` runs a function in another thread. ``return_socket(sock)`` closes a detached
    socket; see `ConnectionTable.close_detached`.
    """

    def __init__(self, run_in_worker: Callable[..., object], return_socket: Callable[[socket.socket], object]) -> None:
        self._run_in_worker = run_in_worker
        self._return_socket = return_socket
        self._lock = threading.Lock()
        self._sources: set[BodySource] = set()
        self._stopped = False
        #: The number of transfers that are in progress.
        self.active = 0

    def stream(
        self,
        sock: socket.socket,
        open_source: Callable[[], BodySource],
        headers: Iterable[tuple[str, str]] = (),
        *,
        with_body: bool = True,
        done: Callable[[bool], object] | None = None,
    ) -> None:
        """
        Start to send a source to a blocking socket with a timeout, and return at once.

        ``open_source`` may block and may raise `FileError`. ``headers`` are sent in addition to those of the source.
        Pass ``with_body=False`` for a HEAD request. At the end, ``done`` is called in the worker thread. Its argument
        is True if the body was written completely.
        """
        with self._lock:
            self.active += 1
        self._run_in_worker(self._run, partial(self._transfer, sock, open_source, list(headers), with_body), sock, done)

    def stop(self) -> None:
        """Stop all transfers."""
        with self._lock:
            self._stopped = True
            sources = list(self._sources)
        for source in sources:
            source.stop()

    def _run(
        self, transfer: Callable[[], bool], sock: socket.socket, done: Callable[[bool], object] | None
    ) -> None:
        complete = False
        try:
            complete = transfer()
        except OSError as error:
            log.debug("A transfer was interrupted: %s", error)
        finally:
            with self._lock:
                self.active -= 1
            self._return_socket(sock)
            if done is not None:
                done(complete)

    def _transfer(
        self,
        sock: socket.socket,
        open_source: Callable[[], BodySource],
        headers: list[tuple[str, str]],
        with_body: bool,
    ) -> bool:
        try:
            source = open_source()
        except FileError as error:
            log.info("A file cannot be sent: %s", error)
            response = Response(error.status, f"{error}\n".encode(), headers=(*error.headers, *headers))
            sock.sendall(response.encode(keep_alive=False, with_body=with_body))
            return False
        with self._lock:
            stopped = self._stopped
            self._sources.add(source)
        try:
            sock.sendall(_write_head(source.head.status, [*source.head.headers, *headers]))
            complete = with_body and not stopped and source.copy_to(sock)
            if with_body and not complete:
                _reset_connection(sock)
            return complete
        except OSError:
            _reset_connection(sock)
            raise
        finally:
            with self._lock:
                self._sources.discard(source)
            source.close()


def _reset_connection(sock: socket.socket) -> None:
    """Let the connection end with a reset. Otherwise an incomplete body without a length would appear complete."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))


def _write_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace")
