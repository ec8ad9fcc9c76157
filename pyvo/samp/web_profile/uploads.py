# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files that web clients upload, for other programs on this computer to read.

The data of a web client may come from another computer, such as the kernel of a notebook on a JupyterHub. Its page PUTs
a file in chunks to a URL that only this client has (``x-samp.upload`` in the response to its registration). When the
file is complete, the response has its ``file:`` URL, which the client can then mention in messages.

Theory of operation
-------------------
Each chunk is a request of its own, with ``Content-Range``. Its body is kept in memory, so the size of a chunk and the
number of chunks that are written at a time are limited. `UploadServer` checks a request in the loop's thread, and a
worker thread reads or writes the file.

Chunks may arrive in any order, overlap and be repeated. Received bytes never change, because a recipient may already
read them. So a page can repeat a chunk when it does not know whether the hub has received it, and can resume an upload.

The whole size of a file counts towards the limits of its client from the first chunk on. The files are in a directory
that only the user can enter. They are removed when their client unregisters, or when the hub stops. After a crash the
next hub of the user removes them (`remove_stale_dirs`).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..temporary_files import make_private_dir, safe_file_name
from ..transport import Bytes
from ..transport.http11 import HTTPRequest, Response
from ..transport.server_connection import DeferredResponse

log = logging.getLogger(__name__)

#: Maximum total size in bytes, and number, of the files of a client.
MAX_BYTES = 4 * 1024**3
MAX_FILES = 1000
#: Maximum size of a chunk in bytes.
MAX_CHUNK = 4 * 1024**2
#: Maximum number of separate ranges of a file that have been received: each uses memory.
MAX_RANGES = 1000
#: Maximum number of requests that are processed at a time.
MAX_ACTIVE = 24

UPLOAD_METHODS = "PUT, GET, HEAD, DELETE, OPTIONS"
#: Request headers that a page may send in addition to those that are always allowed.
UPLOAD_HEADERS = "Content-Range, Content-Type"

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if os.name != "nt" else {errno.ENOSPC, errno.EFBIG}


class UploadError(Exception):
    """
    A request for an upload was rejected.

    Parameters
    ----------
    status : int
        HTTP status of the response.
    text : str
        The reason, for the user.
    **details
        Further members of the response.
    """

    def __init__(self, status: int, text: str, **details: int) -> None:
        super().__init__(text)
        self.status = status
        self.details = details


class Upload:
    """
    A file that arrives in chunks. Safe to use from any thread; the methods block.

    Parameters
    ----------
    path : pathlib.Path
        Path of the new file. Its parent directory must not exist; it is created.
    total : int
        Its size in bytes.

    Raises
    ------
    OSError
        The file cannot be created.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.path = path
        self.total = total
        self._lock = threading.Lock()
        self._ranges: list[tuple[int, int]] = []  # received: begin and end, in order, with gaps between them
        self._is_removed = False
        path.parent.mkdir(mode=0o700)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS, 0o600))
        except OSError:
            path.parent.rmdir()
            raise

    def write(self, begin: int, data: Bytes) -> None:
        """Write a chunk. If it differs from bytes received before, write nothing and raise an `UploadError`."""
        end = begin + len(data)
        with self._lock:
            if self._is_removed:
                raise UploadError(404, "This upload was deleted")
            if not data:
                return
            merged = _merge(self._ranges, begin, end)
            if len(merged) > MAX_RANGES:
                raise UploadError(409, "There are too many gaps between the received chunks; send them in order")
            view = memoryview(data)
            with open(os.open(self.path, os.O_RDWR | _OPEN_FLAGS), "r+b", buffering=0) as file:
                known = [(max(begin, a), min(end, b)) for a, b in self._ranges if a < end and b > begin]
                for a, b in known:
                    file.seek(a)
                    if file.read(b - a) != view[a - begin : b - begin]:
                        raise UploadError(409, "Different bytes were received at this position before")
                for a, b in _gaps(known, begin, end):
                    file.seek(a)
                    missing = view[a - begin : b - begin]
                    while missing:  # write may write only a part, for example when the disk is almost full
                        missing = missing[file.write(missing) :]
            self._ranges = merged

    def describe(self) -> dict[str, Any]:
        """Return the state for the page, with ``url`` if the file is complete."""
        with self._lock:
            ranges = self._ranges
        state: dict[str, Any] = {"total": self.total, "received": [[begin, end - 1] for begin, end in ranges]}
        if ranges == [(0, self.total)] or not self.total:
            state["url"] = self.path.as_uri()
        return state

    def remove(self) -> None:
        """Remove the file. Programs that have it open can continue to read; on Windows it is removed later."""
        with self._lock, suppress(OSError):
            self._is_removed = True
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()


def _merge(ranges: list[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    """Add a range to sorted, disjoint ranges."""
    before = [each for each in ranges if each[1] < begin]
    after = [each for each in ranges if each[0] > end]
    touching = ranges[len(before) : len(ranges) - len(after)]
    if touching:
        begin, end = min(begin, touching[0][0]), max(end, touching[-1][1])
    return [*before, (begin, end), *after]


def _gaps(ranges: list[tuple[int, int]], begin: int, end: int) -> Iterable[tuple[int, int]]:
    """Yield the parts from ``begin`` to ``end`` that are not in the sorted ranges."""
    for a, b in ranges:
        if begin < a:
            yield begin, a
        begin = b
    if begin < end:
        yield begin, end


class ClientUploads:
    """
    The files of one client. Safe to use from any thread; the methods block.

    Parameters
    ----------
    get_directory : callable
        Returns the directory for files, or raises an `UploadError`.
    on_complete : callable
        Called with the URL of each file that is complete, before the client gets it.
    """

    def __init__(self, get_directory: Callable[[], Path], on_complete: Callable[[str], object]) -> None:
        self._get_directory = get_directory
        self._on_complete = on_complete
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        self._closed = False

    def put(self, upload_id: str, name: str, begin: int, total: int, data: Bytes) -> dict[str, Any]:
        """Write a chunk, and return the state of the upload. A new id starts a new upload."""
        try:
            with self._lock:
                upload = self._uploads.get(upload_id)
                if upload is None:
                    upload = self._uploads[upload_id] = self._create(name, total)
            if upload.total != total:
                raise UploadError(409, f"This upload has {upload.total} bytes, not {total}")
            upload.write(begin, data)
        except OSError as error:
            log.warning("An upload of a web client cannot be stored: %s", error)
            reason = "its disk is full" if error.errno in _DISK_FULL else error.strerror
            raise UploadError(507, f"The hub cannot store the data: {reason}") from error
        state = upload.describe()
        if "url" in state:
            self._on_complete(state["url"])
        return state

    def get(self, upload_id: str) -> dict[str, Any]:
        """Return the state of an upload."""
        with self._lock:
            upload = self._uploads.get(upload_id)
        if upload is None:
            raise UploadError(404, "No chunk of this upload has been received")
        return upload.describe()

    def delete(self, upload_id: str) -> dict[str, Any]:
        """Remove a file if it exists; it no longer counts towards the limits."""
        with self._lock:
            upload = self._uploads.pop(upload_id, None)
        if upload is not None:
            upload.remove()
        return {}

    def close(self) -> None:
        """Remove all files, and reject further ones."""
        with self._lock:
            self._closed = True
            uploads = list(self._uploads.values())
            self._uploads.clear()
        for upload in uploads:
            upload.remove()

    def _create(self, name: str, total: int) -> Upload:
        if self._closed:
            raise UploadError(404, "This client is no longer registered with the hub")
        used = sum(upload.total for upload in self._uploads.values())
        if used + total > MAX_BYTES or len(self._uploads) >= MAX_FILES:
            limits = f"{MAX_FILES} files with {MAX_BYTES // 1024**3} GiB"
            text = f"A web client can store {limits} at a time; this one has {len(self._uploads)} with {used} bytes"
            raise UploadError(413, text, limit=MAX_BYTES, used=used)
        directory = self._get_directory()
        if shutil.disk_usage(directory).free < total:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Upload(directory / secrets.token_hex(8) / safe_file_name(name), total)


class UploadServer:
    """
    Responds to the requests for uploads, and manages the directory of the files.

    Parameters
    ----------
    run_in_worker : callable
        ``run_in_worker(function, *args)`` calls the function in another thread.
    """

    def __init__(self, run_in_worker: Callable[..., object]) -> None:
        self._run_in_worker = run_in_worker
        self._lock = threading.Lock()
        self._active = 0
        self._directory_lock = threading.Lock()  # a separate lock: removing old directories may take long
        self._directory: Path | None = None
        self._remove_directory: Callable[[], object] = lambda: None
        self._closed = False

    def add_client(self, on_complete: Callable[[str], object]) -> ClientUploads:
        """Create the uploads of a new client; ``on_complete`` is called with the URL of each complete file."""
        return ClientUploads(self._get_directory, on_complete)

    def close(self) -> None:
        """Remove all files. Blocks."""
        with self._directory_lock:
            self._closed = True
            remove, self._remove_directory = self._remove_directory, lambda: None
        remove()

    def handle(
        self, uploads: ClientUploads, path: str, request: HTTPRequest, headers: tuple[tuple[str, str], ...]
    ) -> Response | DeferredResponse:
        """
        Respond to a request of a client, in the loop's thread.

        ``path`` is the part of the URL after the client's URL; ``headers`` are added to the response.
        """
        try:
            task = _parse(uploads, path, request)
        except UploadError as error:
            return _error_response(error, headers)
        with self._lock:
            if self._active >= MAX_ACTIVE:
                return upload_error(503, "Too many chunks are being written", (*headers, ("Retry-After", "1")))
            self._active += 1
        response = DeferredResponse()
        self._run_in_worker(self._run, task, request.method == "PUT", headers, response)
        return response

    def _run(
        self,
        task: Callable[[], dict[str, Any]],
        is_put: bool,
        headers: tuple[tuple[str, str], ...],
        response: DeferredResponse,
    ) -> None:
        try:
            state = task()
            result = _json_response(201 if is_put and "url" in state else 200, state, headers)
        except UploadError as error:
            result = _error_response(error, headers)
        except Exception as error:
            response.set_exception(error)  # the connection logs it
            return
        finally:
            with self._lock:
                self._active -= 1
        response.set_result(result)

    def _get_directory(self) -> Path:
        with self._directory_lock:
            if self._closed:
                raise UploadError(404, "The hub is being stopped")
            if self._directory is None:
                self._directory, self._remove_directory = make_private_dir()
            return self._directory


def _parse(uploads: ClientUploads, path: str, request: HTTPRequest) -> Callable[[], dict[str, Any]]:
    """Return the function that carries out a request, or raise an `UploadError`."""
    upload_id, _, name = path.partition("/")
    if not _ID.fullmatch(upload_id) or not name or "/" in name:
        raise UploadError(400, "The URL must end with an id of up to 64 letters and digits, a slash and a name")
    if request.method in ("GET", "HEAD"):
        return partial(uploads.get, upload_id)
    if request.method == "DELETE":
        return partial(uploads.delete, upload_id)
    begin, total = _content_range(request)
    if len(request.body) > MAX_CHUNK:
        raise UploadError(413, f"A chunk may have at most {MAX_CHUNK} bytes", limit=MAX_CHUNK)
    return partial(uploads.put, upload_id, unquote(name), begin, total, request.body)


def _content_range(request: HTTPRequest) -> tuple[int, int]:
    """Return the offset of the body in the file, and the file's size; without the header, the body is the file."""
    size = len(request.body)
    text = request.headers.get("content-range")
    if text is None:
        return 0, size
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise UploadError(400, "Content-Range must be: bytes FIRST-LAST/TOTAL")
    first, last, total = map(int, match.groups())
    if not first <= last < total:
        raise UploadError(400, "Content-Range names bytes that the file does not have")
    if last - first + 1 != size:
        raise UploadError(400, f"Content-Range names {last - first + 1} bytes, the body has {size}")
    return first, total


def _json_response(status: int, value: object, headers: tuple[tuple[str, str], ...]) -> Response:
    return Response(status, json.dumps(value).encode(), "application/json", (*headers, ("Cache-Control", "no-store")))


def upload_error(status: int, text: str, headers: tuple[tuple[str, str], ...]) -> Response:
    """Return the response to a request that is rejected."""
    return _error_response(UploadError(status, text), headers)


def _error_response(error: UploadError, headers: tuple[tuple[str, str], ...]) -> Response:
    log.info("Rejected an upload: %s", error)
    return _json_response(error.status, {"error": str(error), **error.details}, headers)
