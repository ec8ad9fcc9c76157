# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The files that cross a bridge: served to the programs of this machine, and sent to the peers.

A file is read when a program requests it, at the speed at which the program reads, and is not stored. The exception is
Aladin, which does not load images from http URLs of this machine: it gets a copy in a private directory.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..temporary_files import make_private_dir
from ..transport.file_serving import BodyStreamer, FileError, ResponseHead, Sink
from ..transport.http11 import HTTPRequest, Response
from ..transport.server_connection import ServerConnection
from ..web_profile.cors import SANDBOX_HEADERS
from ..web_profile.url_proxy import open_url
from .hub_side import HubSide
from .link import MAX_TRANSFERS, Download, Link, Upload
from .offers import Offers, RemoteFile

log = logging.getLogger(__name__)

#: Maximum number of bytes of one copy for Aladin, and of all copies; the oldest ones are removed.
MAX_COPY = 1024**3
MAX_COPIES = 4 * MAX_COPY
#: Headers of a file's response that cross the bridge.
_HEADERS = {
    "accept-ranges", "content-disposition", "content-encoding", "content-length", "content-range", "content-type",
    "etag", "last-modified",
}  # fmt: skip
_STATUSES = {200, 206, 304, 403, 404, 416, 502, 503, 504}
_REQUEST_HEADERS = ("range", "if-range")
_VALUE = re.compile(r"[\x20-\x7e]{0,300}")


class FileGateway:
    """
    Serves the files of peers, and sends files to them.

    Parameters
    ----------
    side : HubSide
        The connection to the hub, with its server and threads.
    offers : Offers
        The files that may be read.
    link_to : callable
        Returns the link to a hub, or None.
    """

    def __init__(self, side: HubSide, offers: Offers, link_to: Callable[[str], Link | None]) -> None:
        self._side, self._offers, self._link_to = side, offers, link_to
        self._streamer = BodyStreamer(side.loop.run_in_worker, side.server.table.close_detached)
        self._lock = threading.Lock()
        self._uploads = 0
        self._copies: deque[tuple[Path, int]] = deque()
        self._directory: Path | None = None
        self._remove_directory: Callable[[], object] = lambda: None
        side.respond = self.respond

    def close(self) -> None:
        """End all transfers, and remove the copies."""
        self._streamer.stop()
        with self._lock:
            self._directory = None
            self._remove_directory()

    # To programs of this machine

    def respond(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Respond to a program that reads the file of a peer."""
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"Only GET and HEAD are allowed\n", headers=(("Allow", "GET, HEAD"),))
        token, _, name = request.target.partition("?")[0].lstrip("/").partition("/")
        file = self._offers.file(token, name)
        if file is None:
            return Response(404, b"There is no such file, or it is no longer served\n")
        if self._streamer.active >= MAX_TRANSFERS:
            return Response(503, b"Too many files are being read\n", headers=(("Retry-After", "1"),))
        self._streamer.stream(
            connection.detach(),
            partial(self._open, file, request.method, request.headers),
            SANDBOX_HEADERS,
            with_body=request.method == "GET",
        )
        return None

    def _open(self, file: RemoteFile, method: str, headers: Mapping[str, str]) -> _DownloadSource:
        link = self._link_to(file.hub)
        if link is None:
            raise FileError(502, "The bridge to the machine with the file is closed")
        wanted = {name: headers[name] for name in _REQUEST_HEADERS if name in headers}
        return _DownloadSource(link.fetch(file.offer, method, wanted))

    # To peers

    def serve(self, peer: str, offer: str, method: str, headers: dict[str, str], upload: Upload) -> None:
        """Send an offer to a peer; returns at once."""
        url = self._offers.lookup(offer, peer)
        with self._lock:
            too_many = self._uploads >= MAX_TRANSFERS
            self._uploads += 1
        self._side.loop.run_in_worker(self._send, None if too_many else url, too_many, method, headers, upload)

    def _send(self, url: str | None, too_many: bool, method: str, headers: dict[str, str], upload: Upload) -> None:
        complete = False
        try:
            if url is None:
                upload.send_head(503 if too_many else 404, [("Content-Length", "0")])
                complete = True
            else:
                complete = self._send_url(url, method, headers, upload)
        except FileError as error:
            upload.send_head(error.status, [("Content-Length", "0"), *error.headers])
            complete = True
        except OSError as error:
            log.debug("A file transfer has ended: %s", error)
        finally:
            with self._lock:
                self._uploads -= 1
            upload.finish(complete=complete)

    @staticmethod
    def _send_url(url: str, method: str, headers: dict[str, str], upload: Upload) -> bool:
        source = open_url(url, method, {name: headers[name] for name in _REQUEST_HEADERS if name in headers})
        try:
            upload.send_head(*source.head)
            return method == "HEAD" or source.copy_to(upload)
        finally:
            source.close()

    # Copies

    def copy_for(self, name: str, message: Mapping[str, Any], then: Callable[[dict[str, Any]], object]) -> bool:
        """
        Copy the images in a message for a client that cannot read them from the bridge.

        Return whether copies are needed; if so, ``then`` is called with the new message when they are complete.
        """
        if not name.lower().startswith("aladin") or not message:
            return False
        params = message["samp.params"]
        files = {key: file for key, url in params.items() if isinstance(url, str) and (file := self._file(url))}
        if files:
            self._side.loop.run_in_worker(self._copy, dict(message), files, then)
        return bool(files)

    def _file(self, url: str) -> RemoteFile | None:
        return self._offers.file_of_url(url) if url.startswith(self._side.url) else None

    def _copy(
        self, message: dict[str, Any], files: Mapping[str, RemoteFile], then: Callable[[dict[str, Any]], object]
    ) -> None:
        params = dict(message["samp.params"])
        copies: dict[RemoteFile, str] = {}
        try:
            for key, file in files.items():
                copies[file] = copies.get(file) or self._copy_file(file)
                params[key] = copies[file]
        except (FileError, OSError) as error:
            log.warning("An image was not copied for Aladin: %s", error)
        then({**message, "samp.params": params})

    def _copy_file(self, file: RemoteFile) -> str:
        source = self._open(file, "GET", {})
        path = self._new_path(file.name)
        try:
            with path.open("xb") as output:
                sink = _LimitedFile(output)
                if source.status != 200 or not source.copy_to(sink):
                    raise FileError(502, "the transfer was incomplete")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            source.close()
        self._make_room(path, sink.size)
        self._offers.add_copy(path, file)
        return path.as_uri()

    def _new_path(self, name: str) -> Path:
        with self._lock:
            if self._directory is None:
                self._directory, self._remove_directory = make_private_dir()
            directory = self._directory / secrets.token_hex(8)
        directory.mkdir(mode=0o700)
        return directory / name

    def _make_room(self, path: Path, size: int) -> None:
        with self._lock:
            self._copies.append((path, size))
            while sum(each[1] for each in self._copies) > MAX_COPIES:
                self._copies.popleft()[0].unlink(missing_ok=True)


class _LimitedFile:
    """A file to write, as a `Sink`; its size is limited."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def sendall(self, data: bytes | memoryview, /) -> None:
        self.size += len(data)
        if self.size > MAX_COPY:
            raise FileError(507, "the file is too large")
        self._file.write(data)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None, /) -> int:
        raise NotImplementedError


class _DownloadSource:
    """The file of a peer, as a `BodySource`. The headers from the peer are checked."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self.status = download.status if download.status in _STATUSES else 502
        headers = {
            name.lower(): value
            for name, value in download.headers
            if name.lower() in _HEADERS and _VALUE.fullmatch(value)
        }
        length = headers.pop("content-length", "")
        self._length = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        self.head = ResponseHead(self.status, [(name.title(), value) for name, value in headers.items()])
        if self._length is not None:
            self.head.headers.append(("Content-Length", str(self._length)))

    def copy_to(self, sink: Sink) -> bool:
        """Write the bytes as they arrive; return whether their number is the one that the peer announced."""
        count = 0
        try:
            while chunk := self._download.read():
                count += len(chunk)
                if self._length is not None and count > self._length:
                    return False
                sink.sendall(chunk)
        except ConnectionAbortedError as error:
            log.debug("A file transfer was interrupted: %s", error)
            return False
        return self._length is None or count == self._length

    def close(self) -> None:
        """End the transfer; a waiting `copy_to` returns."""
        self._download.close()

    stop = close
