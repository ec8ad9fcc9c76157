# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files that recipients of messages read, and how long each recipient may read them.

Theory of operation
-------------------
A file that is written for recipients is in a directory that only its owner can enter. Programs on the same machine read
it by its ``file:`` URL (Aladin 12 loads no image from an ``http`` URL of this machine). Programs on other machines read
it over HTTP from a server on the client's own event loop, each by a URL of its own with a token that cannot be guessed.

A recipient has a *lease* on a file. The file is removed when the last lease has ended: when each recipient has replied.
TOPCAT, DS9 and Aladin reply when they have read a file, and they can read on what they hold open or mapped. Over HTTP
the server knows which recipients have fetched the file: one that replies before it has fetched it has `FETCH_GRACE`
seconds to do so. Closing the server removes all files that are left.

URLs consist of plain letters, because DS9 does not decode ``%20``. A user's file whose URL would need an escape gets a
second name: a symbolic link in the private directory.
"""

from __future__ import annotations

import logging
import secrets
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..client.hub_connection import RemoteFile
from ..temporary_files import make_private_dir, safe_file_name
from ..transport.event_loop import EventLoop
from ..transport.file_serving import BodyStreamer, FileSource
from ..transport.http11 import HTTPError, HTTPRequest, Response
from ..transport.server import XMLRPCServer
from ..transport.server_connection import ServerConnection
from ..transport.urls import host_filter, make_http_url

log = logging.getLogger(__name__)

#: Seconds in which a recipient has to fetch a file that it has already confirmed.
FETCH_GRACE = 60.0
#: Files that are transferred at a time.
MAX_TRANSFERS = 64


class Lease:
    """The right of one recipient to read one file. The server's lock guards all that changes."""

    def __init__(self, file: PublishedFile, url: str, token: str = "") -> None:
        self.file = file
        self.url = url
        #: What the URL contains; empty for a ``file:`` URL.
        self.token = token
        #: Whether the recipient has read the file; assumed for a ``file:`` URL, where it is unknown.
        self.fetched = not token
        self.active_transfers = 0
        self.replied = False

    def on_response(self, *, loaded: bool) -> None:
        """End the lease after the recipient's reply; later if it says that it has `loaded` what it has not fetched."""
        server = self.file.server
        with server.lock:
            self.replied = True
            if loaded and not self.fetched and not server.closed:
                server.loop.call_later(FETCH_GRACE, self.end)
            elif not self.active_transfers:
                self.end()

    def on_transfer_start(self) -> None:
        """Note that the recipient begins to read."""
        with self.file.server.lock:
            self.active_transfers += 1

    def on_transfer_end(self, complete: bool) -> None:
        """Note that the recipient has stopped reading."""
        with self.file.server.lock:
            self.active_transfers -= 1
            self.fetched = self.fetched or complete
            if self.replied and self.fetched and not self.active_transfers:
                self.end()

    def end(self) -> None:
        """End the lease, and remove the file if this was the last one on it."""
        with self.file.server.lock:
            self.file.server.leases.pop(self.token, None)
            self.file.leases.discard(self)
            if not self.file.leases:
                self.file.remove()


class PublishedFile:
    """
    A file of a server: its path, and the last part of its URLs.

    If it is ``temporary``, it is removed from the disk when its last lease has ended. ``recipients`` are the public ids
    of the clients for which it is. ``remote`` is a copy on another machine, which is what the recipients then read.
    """

    def __init__(
        self,
        server: FileServer,
        path: Path,
        name: str,
        *,
        temporary: bool,
        recipients: Iterable[str] = (),
        remote: RemoteFile | None = None,
    ) -> None:
        self.server = server
        self.path = path
        self.name = name
        self.temporary = temporary
        self.recipients = frozenset(recipients)
        self.remote = remote
        self.leases: set[Lease] = set()

    @property
    def has_plain_url(self) -> bool:
        """Whether its ``file:`` URL needs no decoding."""
        return "%" not in self.path.as_uri()

    def create_lease(self, *, http: bool = False) -> Lease:
        """Make a URL for one more recipient."""
        with self.server.lock:
            if self.remote is not None:
                lease = Lease(self, self.remote.url)
            elif http:
                token = secrets.token_urlsafe(16)
                lease = Lease(self, f"{self.server.base_url()}/{token}/{self.name}", token)
                self.server.leases[token] = lease
            else:
                lease = Lease(self, self.path.as_uri())
            self.leases.add(lease)
        return lease

    def discard(self) -> None:
        """Remove the file although recipients may still want it."""
        with self.server.lock:
            for lease in list(self.leases):
                lease.end()
            self.remove()

    def remove(self) -> None:
        """Remove the file, of which no lease is left; repeatable."""
        if self in self.server.published:
            self.server.published.remove(self)
            if self.remote is not None:
                self.server.loop.run_in_worker(self.remote.remove)
            if self.temporary:  # on Windows an open file stays: it goes with the directory
                self.server.remove_path(self.path)


class FileServer:
    """
    Lets recipients read files. Safe to use from any thread.

    ``loop`` runs the server's sockets; the file server is closed before the loop is stopped. It listens on ``address``.
    """

    def __init__(self, loop: EventLoop, address: str = "127.0.0.1") -> None:
        self.loop = loop
        self.lock = threading.RLock()
        self.leases: dict[str, Lease] = {}
        self.published: set[PublishedFile] = set()
        self.closed = False
        self._address = address
        self._directory: Path | None = None
        self._remove_directory: Callable[[], object] = lambda: None
        self._server: XMLRPCServer | None = None
        self._streamer: BodyStreamer | None = None
        self._by_key: weakref.WeakValueDictionary[str, PublishedFile] = weakref.WeakValueDictionary()

    @property
    def files(self) -> list[Path]:
        """The files that recipients may read."""
        with self.lock:
            return [file.path for file in self.published]

    def create_path(self, name: str) -> Path:
        """Return the path of a file to be written, in a private directory; programs show the name to their users."""
        with self.lock:
            if self._directory is None:
                self._directory, remove = make_private_dir()
                self._remove_directory = weakref.finalize(self, remove)
            directory = self._directory / secrets.token_hex(8)
            directory.mkdir(mode=0o700)
            return directory / name

    @staticmethod
    def remove_path(path: Path) -> None:
        """Remove what `create_path` made."""
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()

    def add(
        self,
        path: Path,
        name: str,
        *,
        temporary: bool,
        key: str | None = None,
        recipients: Iterable[str] = (),
        remote: RemoteFile | None = None,
    ) -> PublishedFile:
        """
        Publish a file.

        It replaces an earlier one with the same `key` (a table that is sent again), unless that one has other
        recipients, which may not have read it yet.
        """
        name = safe_file_name(name, path.suffix)
        file = PublishedFile(self, path, name, temporary=temporary, recipients=recipients, remote=remote)
        with self.lock:
            self.published.add(file)
            earlier = self._by_key.get(key) if key is not None else None
            if key is not None:
                self._by_key[key] = file
        if earlier is not None and earlier.recipients <= file.recipients:
            earlier.discard()
        return file

    def link_with_plain_name(self, path: Path) -> Path:
        """Return a symbolic link with a plain name to a user's file; the file itself where links are forbidden."""
        link = self.create_path(safe_file_name(path.name, path.suffix))
        try:
            link.symlink_to(path)
        except OSError as error:  # on Windows, for most users
            log.debug("The symbolic link cannot be made: %s", error)
            return path
        return link

    def base_url(self) -> str:
        """Return the URL under which the files are served over HTTP; start to listen if needed. The lock is held."""
        if self._server is None:
            handler = _FileRequestHandler(self, self._address)
            server = XMLRPCServer((self._address, 0), self.loop, handler)
            self._server = server
            self._streamer = handler.streamer = BodyStreamer(self.loop.run_in_worker, server.table.close_detached)
            server.start()
        return make_http_url(self._address, self._server.port, "")

    def close(self) -> None:
        """Stop serving, and remove all temporary files; repeatable."""
        with self.lock:
            self.closed = True
            server, self._server = self._server, None
            streamer, self._streamer = self._streamer, None
            self.leases.clear()
            self.published.clear()
            self._directory = None
        if streamer is not None:
            streamer.stop()
        if server is not None:
            self.loop.call_soon(server.stop)
        self._remove_directory()


class _FileRequestHandler:
    """Responds to the requests of the HTTP server; it refers to the file server weakly, so that it can be collected."""

    def __init__(self, server: FileServer, address: str) -> None:
        self._server = weakref.ref(server)
        self._is_allowed_host = host_filter(address)
        self.streamer: BodyStreamer | None = None

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Respond to a request; see `RequestHandler`."""
        server, streamer = self._server(), self.streamer
        host = request.headers.get("host")
        # a web page whose host name was made to resolve to this machine (R38)
        if host is not None and not self._is_allowed_host(host):
            return Response(403, b"This server goes by another name\n")
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"Files are read here\n", headers=(("Allow", "GET, HEAD"),))
        token, _, name = request.target.partition("?")[0].lstrip("/").partition("/")
        lease = None
        if server is not None:
            with server.lock:
                lease = server.leases.get(token)
        if lease is None or streamer is None or name != lease.file.name:
            return Response(404, b"There is no such file, or it is no longer served\n")
        if streamer.active >= MAX_TRANSFERS:
            return Response(503, b"Too many files are being read\n", headers=(("Retry-After", "1"),))
        with_body = request.method == "GET"
        if with_body:
            lease.on_transfer_start()
        streamer.stream(
            connection.detach(),
            partial(FileSource, str(lease.file.path), request.headers),
            # a web page that was sent the URL may read it
            [("Access-Control-Allow-Origin", "*")] if "origin" in request.headers else [],
            with_body=with_body,
            done=lease.on_transfer_end if with_body else None,
        )
        return None

    def error_response(self, error: HTTPError) -> Response:
        """Respond to bytes that are no request."""
        return Response(error.status, f"{error}\n".encode())
