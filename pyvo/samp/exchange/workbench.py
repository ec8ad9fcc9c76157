# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What one client has to work with: its shelf, its list of the others, and what still waits for answers."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, cast

from ..clientside.callback_server import own_address
from ..errors import SAMPClientError
from .presence import Clients
from .reports import SendReport
from .shelf import Shelf

if TYPE_CHECKING:
    from ..integrated_client import SAMPIntegratedClient as Host
    from .incoming import Incoming

__all__ = ["Workbench"]


class Workbench:
    """
    The state that the exchange of objects needs.

    Parameters
    ----------
    host : SAMPIntegratedClient
        The client; it is referred to weakly, as it owns this.
    """

    def __init__(self, host: Host) -> None:
        self._host = weakref.ref(host)
        self._lock = threading.RLock()
        self._shelf: Shelf | None = None
        self._tags: dict[SendReport, str] = {}
        self._queues: weakref.WeakSet[Incoming] = weakref.WeakSet()
        self.clients = Clients(self._host)
        self.clients.on_gone(self._on_gone)

    @property
    def host(self) -> Host:
        """The client."""
        return cast("Host", self._host())

    @property
    def shelf(self) -> Shelf:
        """Where files lie; a new one after each time the client was disconnected."""
        with self._lock:
            if self._shelf is None or self._shelf.closed:
                client = self.host.client
                self._shelf = Shelf(client.loop, own_address(client.listens_on, client.hub.url))
                # a client that its program forgets is collected, and this with it
                weakref.finalize(self, self._shelf.close).atexit = False
            return self._shelf

    # Answers to come

    def watch(self, report: SendReport, tag: str) -> None:
        """Keep a report until all have answered."""
        self.clients.follow()  # a recipient that leaves without an answer is noticed, whatever the hub does
        with self._lock:
            self._tags[report] = tag
        report.on_done = partial(self.forget, report)

    def forget(self, report: SendReport) -> None:
        """Nothing is to come for a report any more."""
        with self._lock:
            tag = self._tags.pop(report, None)
        host = self._host()
        if tag is not None and host is not None:
            host.unbind_receive_response(tag)

    def _on_gone(self, client_id: str) -> None:
        with self._lock:
            reports = list(self._tags)
        for report in reports:
            report.note(client_id, problem="it has left without an answer")

    # Queues

    def add_queue(self, queue: Incoming) -> None:
        """Remember a queue that is to end with the connection."""
        with self._lock:
            self._queues.add(queue)

    def remove_queue(self, queue: Incoming) -> None:
        """Forget a queue."""
        with self._lock:
            self._queues.discard(queue)

    # Coming and going

    def joined(self) -> None:
        """The client has joined a hub."""
        self.clients.restart()

    def left(self, *, for_good: bool) -> None:
        """
        The connection has ended.

        Parameters
        ----------
        for_good : bool
            Whether the program wanted that; otherwise the hub is gone, and another one may come.
        """
        end = SAMPClientError("The client was disconnected") if for_good else None
        self.clients.clear(end=end)
        with self._lock:
            reports, queues, shelf = list(self._tags), list(self._queues), self._shelf
        for report in reports:
            for client_id in report.waiting:
                report.note(client_id, problem="the connection to the hub ended before it answered")
            self.forget(report)
        if end is None:
            return
        for queue in queues:
            queue.end(end)
        if shelf is not None:
            shelf.close()
