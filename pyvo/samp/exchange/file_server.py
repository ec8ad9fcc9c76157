# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files that wait to be fetched, and who may have them for how long.

Theory of operation
-------------------
A file that is written for others lies in a directory that only its owner can enter. On the same machine its ``file:``
URL is what every program reads (Aladin 12 loads no image from an ``http`` URL of this machine); programs elsewhere get
it over HTTP from a server on the client's own loop, each by a URL of its own, with a token in it that nobody can
guess.

A file has served when each recipient has answered: TOPCAT, DS9 and Aladin do so when they have read it, and what they
keep open or mapped stays readable. Over HTTP it is known who has fetched it; a recipient that says it has loaded a file
and has not fetched it gets a while to do so. Whatever is left is removed with the shelf.

URLs are of plain letters: DS9 does not decode ``%20``. A file whose own URL would not be plain gets a second, plain
name on the shelf, by a symbolic link.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..formats.temporary_files import make_private_dir
from ..transport.event_loop import EventLoop
from ..transport.file_serving import BodyStreamer, FileSource
from ..transport.http11 import HTTPError, HTTPRequest, Response
from ..transport.server import ServerConnection, XMLRPCServer
from ..transport.urls import AllowedHosts

__all__ = ["FileServer", "Lease", "PublishedFile", "safe_file_name"]

log = logging.getLogger(__name__)

#: Seconds that a recipient has to fetch what it has already said to have loaded.
FETCH_GRACE = 60.0


class Lease:
    """
    One recipient's right to read one file.

    Parameters
    ----------
    lot : Lot
        The file.
    token : str
        What its URL is known by.
    url : str
        Where it can be read.
    """

    def __init__(self, lot: PublishedFile, token: str, url: str) -> None:
        self.lot = lot
        self.token = token
        self.url = url
        #: Whether the recipient has read it.
        self.fetched = False
        #: How many transfers are under way.
        self.active_transfers = 0
        #: Whether it has answered.
        self.answered = False
        self.expired = False

    def on_response(self, *, loaded: bool) -> None:
        """
        Note that the recipient has answered.

        Parameters
        ----------
        loaded : bool
            Whether it says that it has, or will have, the file.
        """
        self.lot.shelf.on_response(self, loaded=loaded)


class PublishedFile:
    """
    A file on the shelf.

    Parameters
    ----------
    shelf : Shelf
        Where it is.
    path : pathlib.Path
        The file.
    name : str
        Name under which it is handed out.
    ours : bool
        Whether it is to be removed when it has served.
    recipients : iterable of str
        Ids of those whom it is for.
    """

    def __init__(self, shelf: FileServer, path: Path, name: str, *, ours: bool, recipients: Iterable[str] = ()) -> None:
        self.shelf = shelf
        self.path = path
        self.name = name
        self.temporary = ours
        self.recipients = frozenset(recipients)
        self.loans: set[Lease] = set()

    def create_lease(self, *, http: bool = False) -> Lease:
        """Make a URL for one more recipient."""
        return self.shelf.create_lease(self, http=http)

    @property
    def is_plain(self) -> bool:
        """Whether its ``file:`` URL holds nothing that has to be decoded."""
        return "%" not in self.path.as_uri()

    def discard(self) -> None:
        """Remove the file although it may not have served."""
        self.shelf.discard(self)


class FileServer:
    """
    Hands out files. Safe to use from any thread.

    Parameters
    ----------
    loop : Loop
        What watches the server's sockets; the server is stopped before it.
    address : str
        Address to listen on.
    """

    def __init__(self, loop: EventLoop, address: str = "127.0.0.1") -> None:
        self._loop = loop
        self._address = address
        self._lock = threading.RLock()
        self._directory: Path | None = None
        self._clean: Callable[[], object] = lambda: None
        self._server: XMLRPCServer | None = None
        self._streamer: BodyStreamer | None = None
        self._loans: dict[str, Lease] = {}
        self._lots: set[PublishedFile] = set()
        self._by_key: dict[str, PublishedFile] = {}
        self.closed = False

    # Putting files on it

    def create_path(self, name: str) -> Path:
        """
        Make room for a file that does not exist yet, in a private directory.

        Parameters
        ----------
        name : str
            Its name, as `plain_name` makes one: programs show it.
        """
        with self._lock:
            if self._directory is None:
                self._directory, remove = make_private_dir()
                self._clean = weakref.finalize(self, remove)
            directory = self._directory / secrets.token_hex(8)
            directory.mkdir(mode=0o700)
            return directory / name

    @staticmethod
    def remove_path(path: Path) -> None:
        """
        Give back the room for a file that was not written.

        Parameters
        ----------
        path : pathlib.Path
            As `new_path` made it.
        """
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()

    def add(
        self, path: Path, name: str, *, ours: bool, key: str | None = None, recipients: Iterable[str] = ()
    ) -> PublishedFile:
        """
        Put a file on the shelf.

        Parameters
        ----------
        path : pathlib.Path
            The file.
        name : str
            What it is called; the URL's last part is made of it.
        ours : bool
            Whether it is to be removed when it has served.
        key : str, optional
            What it stands for: a file that was put here earlier with the same key is removed (a table that is sent
            again replaces the earlier one), unless it is for others, who may not have read it yet.
        recipients : iterable of str
            For whom it is.
        """
        lot = PublishedFile(self, path, safe_file_name(name, path.suffix), ours=ours, recipients=recipients)
        with self._lock:
            self._lots.add(lot)
            earlier = self._by_key.pop(key, None) if key is not None else None
            if key is not None:
                self._by_key[key] = lot
        if earlier is not None and earlier.recipients <= lot.recipients:
            earlier.discard()
        return lot

    def link_with_plain_name(self, path: Path) -> Path:
        """
        Give a file that was there before a plain name as well.

        Parameters
        ----------
        path : pathlib.Path
            The file.

        Returns
        -------
        pathlib.Path
            The new name; the old one where the system makes no links.
        """
        link = self.create_path(safe_file_name(path.name, path.suffix))
        try:
            link.symlink_to(path)
        except OSError as error:  # on Windows, for most users
            log.debug("No link can be made: %s", error)
            return path
        return link

    def create_lease(self, lot: PublishedFile, *, http: bool) -> Lease:
        """Make a URL for one more recipient of a file."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            if not http:
                loan = Lease(lot, token, lot.path.as_uri())
                loan.fetched = True  # for all that can be known
                lot.loans.add(loan)
                return loan
            host = f"[{self._address}]" if ":" in self._address else self._address
            loan = Lease(lot, token, f"http://{host}:{self._serve().port}/{token}/{lot.name}")
            lot.loans.add(loan)
            self._loans[token] = loan
        return loan

    def on_response(self, loan: Lease, *, loaded: bool) -> None:
        """Note that the recipient of a loan has answered."""
        with self._lock:
            loan.answered = True
            if loaded and not loan.fetched and not self.closed:
                self._loop.call_later(FETCH_GRACE, self._finish, loan)
            else:
                self._finish_if_read(loan)

    def discard(self, lot: PublishedFile) -> None:
        """Remove a file although it may not have served."""
        with self._lock:
            for loan in list(lot.loans):
                self._finish(loan)
            self._drop(lot)

    def close(self) -> None:
        """Hand out nothing any more, and remove everything. It may be repeated."""
        with self._lock:
            self.closed = True
            server, self._server = self._server, None
            streamer, self._streamer = self._streamer, None
            self._loans.clear()
            self._lots.clear()
            self._by_key.clear()
            self._directory = None
        if streamer is not None:
            streamer.stop()
        if server is not None:
            self._loop.call_soon(server.stop)
        self._clean()

    @property
    def files(self) -> list[Path]:
        """The files that are on it."""
        with self._lock:
            return [lot.path for lot in self._lots]

    # Within

    def _serve(self) -> XMLRPCServer:
        if self._server is None:
            desk = _FileRequestHandler(self, self._address)
            server = XMLRPCServer((self._address, 0), self._loop, desk)
            self._server = server
            self._streamer = desk.streamer = BodyStreamer(self._loop.run_in_worker, server.close_detached)
            server.start()
        return self._server

    def find(self, token: str) -> Lease | None:
        """Find the loan that a URL names."""
        with self._lock:
            return self._loans.get(token)

    def begin_reading(self, loan: Lease) -> None:
        """Note that a transfer begins."""
        with self._lock:
            loan.active_transfers += 1

    def end_reading(self, loan: Lease, complete: bool) -> None:
        """Note that a transfer has ended."""
        with self._lock:
            loan.active_transfers -= 1
            loan.fetched = loan.fetched or complete
            if loan.answered and loan.fetched:
                self._finish_if_read(loan)

    def _finish_if_read(self, loan: Lease) -> None:
        if not loan.active_transfers:
            self._finish(loan)

    def _finish(self, loan: Lease) -> None:
        with self._lock:
            loan.expired = True
            self._loans.pop(loan.token, None)
            loan.lot.loans.discard(loan)
            if not loan.lot.loans:
                self._drop(loan.lot)

    def _drop(self, lot: PublishedFile) -> None:
        if lot not in self._lots:
            return
        self._lots.discard(lot)
        for key in [key for key, other in self._by_key.items() if other is lot]:
            del self._by_key[key]
        if lot.temporary:
            self.remove_path(lot.path)  # not on Windows, while somebody reads it: it goes with the directory


class _FileRequestHandler:
    """What answers the requests. It refers to the shelf weakly, which would otherwise never be collected."""

    def __init__(self, shelf: FileServer, address: str) -> None:
        self._shelf = weakref.ref(shelf)
        self._names = AllowedHosts(address)
        self.streamer: BodyStreamer | None = None

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Answer a request; see `Handler`."""
        shelf, streamer = self._shelf(), self.streamer
        host = request.headers.get("host")
        if host is not None and host not in self._names:  # a page whose host name was made to resolve to us (R38)
            return Response(403, b"This server goes by another name\n")
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"Files are read here\n", headers=(("Allow", "GET, HEAD"),))
        token, _, name = request.target.partition("?")[0].lstrip("/").partition("/")
        loan = shelf.find(token) if shelf is not None else None
        if loan is None or shelf is None or streamer is None or name != loan.lot.name:
            return Response(404, b"There is no such file here, or no longer\n")
        if streamer.active >= MAX_TRANSFERS:
            return Response(503, b"Too many files are being read\n", headers=(("Retry-After", "1"),))
        reads = request.method == "GET"
        if reads:
            shelf.begin_reading(loan)
        streamer.stream(
            connection.detach(),
            partial(FileSource, str(loan.lot.path), request.headers),
            # a web page that was sent the URL may read it
            [("Access-Control-Allow-Origin", "*")] if "origin" in request.headers else [],
            with_body=reads,
            done=partial(shelf.end_reading, loan) if reads else None,
        )
        return None

    def error_response(self, error: HTTPError) -> Response:
        """Answer what is no request."""
        return Response(error.status, f"{error}\n".encode())


#: Files that are read at a time.
MAX_TRANSFERS = 64


def safe_file_name(name: str, suffix: str) -> str:
    """
    Make a file name of nothing but letters, digits, ``-``, ``_`` and ``.``.

    Parameters
    ----------
    name : str
        Any name.
    suffix : str
        How it shall end.
    """
    stem = name[: -len(suffix)] if suffix and name.lower().endswith(suffix.lower()) else name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:60]
    return (plain or "data") + re.sub(r"[^A-Za-z0-9.]+", "", suffix)
