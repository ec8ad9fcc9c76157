# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handing out to a web page what is at a URL that its browser would not let it read (R46).

The hub fetches the URL and passes on what it gets, as it comes, so that a file of any size costs the memory of one
buffer. This happens in a worker thread, on a socket that was detached from the server.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import partial

from ..transport.files import Streamer
from .url_sources import open_target

__all__ = ["Translator"]

#: Transfers at a time. A browser makes six.
MAX_TRANSFERS = 24


class Translator(Streamer):
    """Writes what is at a URL to detached sockets."""

    @property
    def is_busy(self) -> bool:
        """Whether as many transfers are under way as may be."""
        return self.at_work >= MAX_TRANSFERS

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
        self.stream(sock, partial(open_target, url, method, wanted), headers, with_body=method != "HEAD")
