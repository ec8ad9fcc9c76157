# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handing out to a web page what is at a URL that its browser would not let it read (R46).

The hub fetches the URL and passes on what it gets, as it comes, so that a file of any size costs the memory of one
buffer. This happens in a worker thread, on a socket that was detached from the server.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus

from .url_sources import Refusal, Source, open_target

__all__ = ["Translator"]

log = logging.getLogger(__name__)

#: Transfers at a time. A browser makes six.
MAX_TRANSFERS = 24


class Translator:
    """
    Writes targets to detached sockets.

    Parameters
    ----------
    run_in_worker : callable
        ``run_in_worker(function, *args)`` runs it in another thread.
    give_back : callable
        ``give_back(sock)`` closes a detached socket (`XMLRPCServer.take_back`).
    """

    def __init__(self, run_in_worker: Callable[..., object], give_back: Callable[[socket.socket], object]) -> None:
        self._run_in_worker = run_in_worker
        self._give_back = give_back
        self._lock = threading.Lock()
        self._at_work = 0
        self._sources: set[Source] = set()
        self._stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether as many transfers are under way as may be."""
        return self._at_work >= MAX_TRANSFERS

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
        with self._lock:
            self._at_work += 1
        self._run_in_worker(self._run, sock, url, method, wanted, list(headers))

    def stop(self) -> None:
        """End all transfers."""
        with self._lock:
            self._stopped = True
            sources = list(self._sources)
        for source in sources:
            source.stop()

    def _run(
        self, sock: socket.socket, url: str, method: str, wanted: dict[str, str], headers: list[tuple[str, str]]
    ) -> None:
        try:
            self._transfer(sock, url, method, wanted, headers)
        except OSError as error:
            log.debug("A transfer to a web page broke off: %s", error)
        finally:
            with self._lock:
                self._at_work -= 1
            self._give_back(sock)

    def _transfer(
        self, sock: socket.socket, url: str, method: str, wanted: dict[str, str], headers: list[tuple[str, str]]
    ) -> None:
        try:
            source = open_target(url, method, wanted)
        except Refusal as refusal:
            log.info("A web page cannot have what was mentioned to it: %s", refusal)
            body = f"{refusal}\n".encode()
            head = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            head += [*refusal.headers, *headers]
            sock.sendall(_write_head(refusal.status, head) + (b"" if method == "HEAD" else body))
            return
        with self._lock:
            stopped = self._stopped
            self._sources.add(source)
        try:
            sock.sendall(_write_head(source.head.status, [*source.head.headers, *headers]))
            if method != "HEAD" and (stopped or not source.copy_to(sock)):
                _break(sock)
        except OSError:
            _break(sock)
            raise
        finally:
            with self._lock:
                self._sources.discard(source)
            source.close()


def _break(sock: socket.socket) -> None:
    """Have the connection end with a reset, so that nobody takes half of a body without a length for the whole."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))


def _write_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
