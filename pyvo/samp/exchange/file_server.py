# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Serve files to the recipients of messages, and remove each file when no recipient needs it any more.

Theory of operation
-------------------
Files for recipients are written to a directory that only its owner can enter. Programs on the same machine read them by
``file:`` URLs (Aladin 12 does not load images from an ``http`` URL of the same machine). Programs on other machines
read them over HTTP from a server on the client's own event loop. Each of them gets its own URL, which contains a token
that cannot be guessed.

Each recipient has a *lease* on its file. The file is removed when the last lease ends, which is when every recipient
has replied. TOPCAT, DS9 and Aladin reply after they have read a file, and can continue to read a removed file that they
have open or mapped into memory. Over HTTP the server knows which recipients have fetched the file. A recipient that
replies before it has fetched the file gets another `FETCH_GRACE` seconds. Closing the server removes all remaining
files.

URLs contain no escapes, because DS9 does not decode ``%20``. If the URL of a user's file would need an escape, the file
gets a second name: a symbolic link in the private directory.
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
from ..transport.urls import HOST_REJECTED_TEXT, host_filter, make_http_url

log = logging.getLogger(__name__)

#: Seconds that a recipient has to fetch a file after it has replied that it loaded the file.
FETCH_GRACE = 60.0
#: Number of files that are transferred at the same time.
MAX_TRANSFERS = 64


class Lease:
    """The right of one recipient to read one file. The server's lock guards the attributes that change."""

    def __init__(self, file: PublishedFile, url: str, token: str = "") -> None:
        self.file = file
        self.url = url
        #: The token in the URL; empty for a ``file:`` URL.
        self.token = token
        #: Whether the recipient has read the file, or has failed to. For a ``file:`` URL this is unknown, and assumed.
        self.is_done = not token
        self.active_transfers = 0
        self.replied = False

    def on_response(self, *, loaded: bool) -> None:
        """
        End the lease after the recipient's reply.

        If the recipient reports that it has `loaded` a file that it has not fetched yet, end the lease later.
        """
        server = self.file.server
        with server.lock:
            self.replied = True
            self.is_done = self.is_done or not loaded
            if not self.is_done and not server.closed:
                server.loop.call_later(FETCH_GRACE, self.end)
            elif not self.active_transfers:
                self.end()

    def on_transfer_start(self) -> None:
        """Note that the recipient has started to read the file."""
        with self.file.server.lock:
            self.active_transfers += 1

    def on_transfer_end(self, complete: bool) -> None:
        """Note that the recipient has stopped reading the file."""
        with self.file.server.lock:
            self.active_transfers -= 1
            self.is_done = self.is_done or complete
            if self.replied and self.is_done and not self.active_transfers:
                self.end()

    def end(self) -> None:
        """End the lease, and remove the file if this was its last lease."""
        with self.file.server.lock:
            self.file.server.leases.pop(self.token, None)
            self.file.leases.discard(self)
            if not self.file.leases:
                self.file.remove()


class PublishedFile:
    """
    A file that the server publishes.

    ``name`` is the last part of its URLs. A ``temporary`` file is removed from the disk when its last lease ends.
    ``recipients`` are the public ids of the clients that may read it. ``remote`` is a copy on another machine, which
    the recipients read instead of the file.
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
        """Create a lease, with a URL, for one more recipient."""
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
        """Remove the file, even if recipients have not read it yet."""
        with self.server.lock:
            for lease in list(self.leases):
                lease.end()
            self.remove()

    def remove(self) -> None:
        """Remove the file, which has no leases left. Further calls do nothing."""
        if self in self.server.published:
            self.server.published.remove(self)
            if self.remote is not None:
                self.server.loop.run_in_worker(self.remote.remove)
            if self.temporary:  # Windows cannot remove an open file; it is removed with the directory
                self.server.remove_path(self.path)


class FileServer:
    """
    Publishes files for recipients. Methods can be called from any thread.

    The server listens on ``address``. Its sockets are run by ``loop``, which must not be stopped before the server is
    closed.
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
        """The paths of the published files."""
        with self.lock:
            return [file.path for file in self.published]

    def create_path(self, name: str) -> Path:
        """Return a path in a private directory for a new file. Other programs may show `name` to their users."""
        with self.lock:
            if self._directory is None:
                self._directory, remove = make_private_dir()
                self._remove_directory = weakref.finalize(self, remove)
            directory = self._directory / secrets.token_hex(8)
            directory.mkdir(mode=0o700)
            return directory / name

    @staticmethod
    def remove_path(path: Path) -> None:
        """Remove a file and the directory that `create_path` made for it."""
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

        The file replaces an earlier one with the same `key` (a table that is sent again), unless the earlier one has
        further recipients, which may not have read it yet.
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
        """
        Return a symbolic link to a user's file with a name that needs no escapes in a URL.

        Return the path of the file itself if the system does not allow symbolic links.
        """
        link = self.create_path(safe_file_name(path.name, path.suffix))
        try:
            link.symlink_to(path)
        except OSError as error:  # on Windows most users may not create links
            log.debug("The symbolic link cannot be made: %s", error)
            return path
        return link

    def base_url(self) -> str:
        """Return the base URL of the files over HTTP, and start the server if needed. The caller must hold the lock."""
        if self._server is None:
            handler = _FileRequestHandler(self, self._address)
            server = XMLRPCServer((self._address, 0), self.loop, handler)
            self._server = server
            self._streamer = handler.streamer = BodyStreamer(self.loop.run_in_worker, server.table.close_detached)
            server.start()
        return make_http_url(self._address, self._server.port, "")

    def close(self) -> None:
        """Stop the server and remove all temporary files. Further calls do nothing."""
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
    """Handles HTTP requests. It has a weak reference to the file server, so that the server can be collected."""

    def __init__(self, server: FileServer, address: str) -> None:
        self._server = weakref.ref(server)
        self._is_allowed_host = host_filter(address)
        self.streamer: BodyStreamer | None = None

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Return the response to a request, or stream the file; see `RequestHandler`."""
        server, streamer = self._server(), self.streamer
        host = request.headers.get("host")
        # DNS rebinding: the host name of a web page was made to resolve to this machine (R38)
        if host is not None and not self._is_allowed_host(host):
            return Response(403, HOST_REJECTED_TEXT.encode() + b"\n")
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"Only GET and HEAD are allowed\n", headers=(("Allow", "GET, HEAD"),))
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
            # allow any web page to read the file if it knows the URL
            [("Access-Control-Allow-Origin", "*")] if "origin" in request.headers else [],
            with_body=with_body,
            done=lease.on_transfer_end if with_body else None,
        )
        return None

    def error_response(self, error: HTTPError) -> Response:
        """Return the response to bytes that are not a valid HTTP request."""
        return Response(error.status, f"{error}\n".encode())
