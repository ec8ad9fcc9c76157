# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Open the file at the URL in a message: a local file itself, or a temporary copy, which is read while it arrives."""

from __future__ import annotations

import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast
from urllib.parse import quote, urlsplit

from ..errors import SAMPClientError
from ..temporary_files import progress_bar
from ..transport.urls import URL_SAFE_CHARS, file_url_to_local_path, is_local_host

#: Seconds within which a server has to send some bytes.
FETCH_TIMEOUT = 60.0
#: Number of bytes that are copied at a time.
CHUNK = 1024 * 1024

#: Writes the content of a URL to a file, or returns False if the URL can be read on this machine.
Download: TypeAlias = Callable[[str, BinaryIO], bool]


class ArrivingFile:
    """The copy of a file that is being fetched. One reader at a time can read it before it is complete."""

    def __init__(self, url: str, path: Path, copy: Any, response: Any, note: Callable[[int], object]) -> None:
        self.path = path
        self._url = url
        self._copy = copy
        self._response = response
        self._note = note
        #: Size of the whole file in bytes; None if the server does not send it.
        self.size: int | None = response.length

    @contextmanager
    def open(self, _mode: str) -> Iterator[BinaryIO]:
        """Open the file for reading from the beginning, like `pathlib.Path.open` with the mode ``"rb"``."""
        self.seek(0)
        yield cast("BinaryIO", self)

    def read(self, count: int) -> bytes:
        """Read `count` bytes, and wait for them if needed. Return fewer only at the end of the file."""
        data = bytes(self._copy.read(count))
        try:
            while len(data) < count and (more := self._response.read(count - len(data))):
                self._copy.write(more)
                self._note(len(more))
                data += more
        except (OSError, http.client.HTTPException) as error:
            raise SAMPClientError(f"The transfer of {self._url} was interrupted: {error}") from error
        if len(data) < count and self._response.length:
            text = f"The transfer of {self._url} was interrupted: {self._response.length} bytes are missing"
            raise SAMPClientError(text)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position within the part that has arrived."""
        return int(self._copy.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self._copy.tell())

    def complete(self) -> Path:
        """Wait for the rest of the file, and return the path of the copy."""
        self.seek(0, os.SEEK_END)
        while self.read(CHUNK):
            pass
        self._copy.flush()
        return self.path


#: A file on this machine, or a file that is being fetched.
Place: TypeAlias = Path | ArrivingFile


def _open(url: str, headers: dict[str, str] | None = None) -> Any:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise SAMPClientError(f"{url!r} is not a valid URL: {error}") from error
    if parts.scheme not in {"http", "https"}:
        raise SAMPClientError(f"Only http, https and file URLs can be read, not {url!r}")
    handlers: list[urllib.request.BaseHandler] = []
    if is_local_host(host):  # a proxy cannot reach this machine
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(quote(url, safe=URL_SAFE_CHARS), headers=headers or {})  # noqa: S310 - http and https only
    try:
        return urllib.request.build_opener(*handlers).open(request, timeout=FETCH_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise SAMPClientError(f"{url} cannot be read: HTTP status {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SAMPClientError(f"{url} cannot be read: {getattr(error, 'reason', None) or error}") from error


def read_prefix(url: str, count: int) -> bytes:
    """Read the first bytes at an ``http`` or ``https`` URL."""
    with _open(url, {"Range": f"bytes=0-{count - 1}"}) as response:
        try:
            return bytes(response.read(count))
        except (OSError, http.client.HTTPException) as error:
            raise SAMPClientError(f"{url} cannot be read: {error}") from error


@contextmanager
def open_place(url: str | None, path: Path | None = None, download: Download | None = None) -> Iterator[Place]:
    """
    Provide the file at a path or URL (``file:``, ``http`` or ``https``) within a ``with`` block.

    A file on another machine is copied while it is read, and the copy is removed at the end. If ``download`` is given,
    it is used for files on the hub's machine. Raise SAMPClientError if the file cannot be read.
    """
    local = path if path is not None or url is None else _local(url)
    if download is not None and url is not None and (local is not None or _names_this_machine(url)):
        with _temporary_file(url) as copy:
            with copy.open("wb") as file:
                is_copied = download(url, file)
            if is_copied:
                yield copy
                return
    if local is not None:
        if not os.path.isfile(local):  # also False if the name is too long or a directory is not accessible
            raise SAMPClientError(f"There is no file {str(local)!r}")
        yield local
        return
    assert url is not None
    with (
        _open(url) as response,
        _temporary_file(url) as copy,
        copy.open("w+b") as file,
        progress_bar(int(response.length or 0), None) as note,
    ):
        yield ArrivingFile(url, copy, file, response, note)


@contextmanager
def _temporary_file(url: str) -> Iterator[Path]:
    """Create a file that only the user can read (0600), and remove it afterwards."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="pyvo-samp-", suffix=_suffix(url))
    except OSError as error:
        raise SAMPClientError(f"No file for a copy of {url} can be created: {error.strerror}") from error
    os.close(descriptor)
    copy = Path(name)
    try:
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def complete_file(place: Place) -> Path:
    """Wait until a file is complete, and return its path."""
    return place if isinstance(place, Path) else place.complete()


@contextmanager
def local_copy(url: str | None, path: Path | None = None, download: Download | None = None) -> Iterator[Path]:
    """Provide a complete file within a ``with`` block; otherwise like `open_place`."""
    with open_place(url, path, download) as place:
        yield complete_file(place)


def _names_this_machine(url: str) -> bool:
    try:
        return is_local_host(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _local(url: str) -> Path | None:
    path = file_url_to_local_path(url)
    return None if path is None else Path(path)


def _suffix(url: str) -> str:
    """Return the suffix of the file name in a URL if it is alphanumeric; some readers choose the format by it."""
    suffixes = Path(urlsplit(url).path).suffixes[-2:]
    return "".join(suffix for suffix in suffixes if suffix[1:].isalnum() and len(suffix) < 10)
