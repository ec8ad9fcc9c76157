# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handing out over HTTP what is in a file, or in anything else that can be written to a socket.

Writing a large file must not keep the loop from other work. So the socket is detached from its server, and a
worker thread writes: a file of any size costs the memory of one buffer.
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
from http import HTTPStatus
from typing import BinaryIO, NamedTuple, Protocol

__all__ = ["BodySource", "BodyStreamer", "FileError", "FileSource", "ResponseHead"]

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


class ResponseHead(NamedTuple):
    """Status and headers of what is handed out."""

    status: int
    headers: list[tuple[str, str]]


class BodySource(Protocol):
    """What is handed out."""

    head: ResponseHead

    def copy_to(self, sock: socket.socket) -> bool:
        """Write the body; tells whether it is complete."""

    def stop(self) -> None:
        """Have `copy_to`, which runs in another thread, end."""

    def close(self) -> None:
        """Let go of the file or connection."""


class FileSource:
    """
    A file of this machine: only a regular one, never a device or a pipe.

    Parameters
    ----------
    path : str
        Where it is.
    wanted : dict of str to str
        The request's headers, with names in lower case; ``range`` and ``if-range`` matter.

    Raises
    ------
    Refusal
        It cannot be read, or has no such range.
    """

    def __init__(self, path: str, wanted: dict[str, str]) -> None:
        try:
            # Looked at before it is opened: opening a device can do something, opening a pipe can wait for ever.
            regular = stat.S_ISREG(os.stat(path).st_mode)
            self._file: BinaryIO = open(os.open(path, _FLAGS), "rb") if regular else _reject_non_regular()  # noqa: SIM115
        except (OSError, ValueError) as error:
            missing = not isinstance(error, PermissionError)
            raise FileError(404 if missing else 403, "The file cannot be read") from error
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                _reject_non_regular()
            start, self._count, code = _range(wanted, status.st_size)
        except FileError:
            self._file.close()
            raise
        self._start = start
        self._unread = self._count
        self._file.seek(start)
        headers = [
            ("Content-Type", _content_type(path)),
            ("Content-Length", str(self._count)),
            ("Accept-Ranges", "bytes"),
            ("Last-Modified", formatdate(status.st_mtime, usegmt=True)),
        ]
        if code == 206:
            headers.append(("Content-Range", f"bytes {start}-{start + self._count - 1}/{status.st_size}"))
        self.head = ResponseHead(code, headers)

    def read(self, size: int) -> bytes:
        """Read up to that many of the bytes that the request wants; empty at their end."""
        data = self._file.read(min(size, self._unread))
        self._unread -= len(data)
        return data

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


def _reject_non_regular() -> BinaryIO:
    raise FileError(403, "Only files are handed out, no directories, pipes or devices")


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
        raise FileError(416, "The file has no such bytes", [("Content-Range", f"bytes */{size}")])
    return start, stop - start, 206


class BodyStreamer:
    """
    Writes sources to detached sockets, in worker threads.

    Parameters
    ----------
    run_in_worker : callable
        ``run_in_worker(function, *args)`` runs it in another thread.
    give_back : callable
        ``give_back(sock)`` closes a detached socket (`XMLRPCServer.take_back`).
    """

    def __init__(self, run_in_worker: Callable[..., object], give_back: Callable[[socket.socket], object]) -> None:
        self._run_in_worker = run_in_worker
        self._return_socket = give_back
        self._lock = threading.Lock()
        self._sources: set[BodySource] = set()
        self._stopped = False
        #: How many transfers are under way.
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
        Hand something out; returns at once.

        Parameters
        ----------
        sock : socket.socket
            Where to; blocking, with a time-out.
        open_source : callable
            Opens what is handed out; it may block, and raise `Refusal`.
        headers : iterable of (str, str)
            What the answer bears beside the headers of the source.
        with_body : bool
            False for the answer to a HEAD.
        done : callable, optional
            Called at the end, in the worker thread, with whether everything was written.
        """
        with self._lock:
            self.active += 1
        self._run_in_worker(self._run, sock, open_source, list(headers), with_body, done)

    def stop(self) -> None:
        """End all transfers."""
        with self._lock:
            self._stopped = True
            sources = list(self._sources)
        for source in sources:
            source.stop()

    def _run(
        self,
        sock: socket.socket,
        open_source: Callable[[], BodySource],
        headers: list[tuple[str, str]],
        with_body: bool,
        done: Callable[[bool], object] | None,
    ) -> None:
        complete = False
        try:
            complete = self._transfer(sock, open_source, headers, with_body)
        except OSError as error:
            log.debug("A transfer broke off: %s", error)
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
        except FileError as refusal:
            log.info("What was asked for cannot be had: %s", refusal)
            body = f"{refusal}\n".encode()
            head = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            head += [*refusal.headers, *headers]
            sock.sendall(_write_head(refusal.status, head) + (body if with_body else b""))
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
    """Have the connection end with a reset, so that nobody takes half of a body without a length for the whole."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))


def _write_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
