# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The requests for files that kernels have published: ``<base URL>/pyvo-samp/data/<token>/<name>``.

These requests need no login, neither of Jupyter Server nor of JupyterHub. A browser treats the content as data, since
it comes from the origin of the notebooks.
"""

from __future__ import annotations

import re
import stat
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.utils import url_path_join
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from ..transport.file_serving import FileError, FileSource
from .publications import DIRECTORY, TOKEN, is_expired, is_own, is_private, remove_expired

#: Milliseconds between removals of expired publications.
SWEEP_INTERVAL = 300_000
CHUNK = 256 * 1024
#: Files that are transferred at a time, to all programs together.
MAX_TRANSFERS = 24

_HEADERS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Accept-Ranges, Content-Length, Content-Range"),
    ("Cache-Control", "no-store"),
    ("Content-Disposition", "attachment"),
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


class StatusHandler(RequestHandler):
    """Responds to pages that check whether the extension is installed."""

    @allow_unauthenticated
    def get(self) -> None:
        """Respond to the page."""
        self.write({"pyvo-samp": 1})


class DataHandler(RequestHandler):
    """Responds with the content of a published file."""

    active = 0

    def initialize(self, directory: Path) -> None:
        """Set the directory of the publications."""
        self._directory = directory

    def prepare(self) -> None:
        """Keep the token out of the log of the server, which JupyterHub collects."""
        self.request.uri = f"{self.request.path.partition(self.path_args[0])[0]}.../{self.path_args[1]}"

    def set_default_headers(self) -> None:
        """Set the headers of each response."""
        for name, value in _HEADERS:
            self.set_header(name, value)

    @allow_unauthenticated
    async def get(self, token: str, name: str) -> None:
        """Send the file, or the requested part of it."""
        await self._serve(token, name)

    @allow_unauthenticated
    async def head(self, token: str, name: str) -> None:
        """Send the headers of the file."""
        await self._serve(token, name)

    @allow_unauthenticated
    def options(self, token: str, name: str) -> None:
        """Allow pages to request parts of a file."""
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.set_header("Access-Control-Allow-Headers", "Range, If-Range")
        self.set_status(204)

    async def _serve(self, token: str, name: str) -> None:
        headers = {key.lower(): value for key, value in self.request.headers.items()}
        if DataHandler.active >= MAX_TRANSFERS:
            self._send_error(FileError(503, "Too many files are being read", [("Retry-After", "1")]))
            return
        DataHandler.active += 1
        try:
            run = partial(IOLoop.current().run_in_executor, None)
            source = await run(open_publication, self._directory, token, name, headers)
            try:
                self.set_status(source.head.status)
                for key, value in source.head.headers:
                    self.set_header(key, value)
                while self.request.method == "GET" and (chunk := await run(source.read, CHUNK)):
                    self.write(chunk)
                    await self.flush()  # waits until the other program has read it
            finally:
                source.close()
        except FileError as error:
            self._send_error(error)
        except StreamClosedError:  # the other program has closed the connection
            return
        finally:
            DataHandler.active -= 1

    def _send_error(self, error: FileError) -> None:
        self.set_status(error.status)
        for key, value in error.headers:
            self.set_header(key, value)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.write(f"{error}\n")


def open_publication(directory: Path, token: str, name: str, headers: dict[str, str]) -> FileSource:
    """
    Open the file of a publication.

    Only a regular file of this user is opened, never through a symbolic link. ``headers`` are those of the request,
    with names in lower case. Raise a `FileError` if the publication does not exist or has ended.
    """
    missing = FileError(404, "There is no such file, or it is no longer published")
    folder = directory / token
    path = folder / name
    if not TOKEN.fullmatch(token) or name in {"", ".", ".."} or path.name != name:
        raise missing
    try:
        status = path.lstat()
        is_valid = is_private(directory) and is_private(folder) and stat.S_ISREG(status.st_mode) and is_own(status)
    except (OSError, ValueError):
        raise missing from None
    if not is_valid or is_expired(folder):
        raise missing
    return FileSource(str(path), headers)


def start_extension(serverapp: Any) -> None:
    """Add the handlers to a Jupyter server, and remove expired publications while it runs."""
    directory = Path(serverapp.runtime_dir) / DIRECTORY
    url = url_path_join(serverapp.web_app.settings["base_url"], "pyvo-samp", "data")
    base = re.escape(url)
    serverapp.web_app.add_handlers(
        ".*$",
        [
            (f"{base}/?", StatusHandler),
            (f"{base}/([A-Za-z0-9_-]+)/([A-Za-z0-9._-]+)", DataHandler, {"directory": directory}),
        ],
    )
    remove_expired(directory)
    sweep = PeriodicCallback(
        partial(serverapp.io_loop.run_in_executor, None, remove_expired, directory), SWEEP_INTERVAL
    )
    serverapp.io_loop.add_callback(sweep.start)
    serverapp.log.info("pyvo.samp serves the files that kernels publish at %s", url)
