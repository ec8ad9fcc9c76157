# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How a client that is doing nothing notices that its hub is gone.

It holds one connection on which it has asked whether it is still registered, and which the hub keeps open: when the
hub's process ends, however it ends, the operating system closes the connection. The client then asks again on a new
one: a hub that only tidied its idle connections up knows the client, a dead one refuses, and another hub that has come
to the same port does not know it. Nothing is asked at regular times, unless the hub keeps no connection at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import SAMPError, SAMPTransportError
from ..transport.async_xmlrpc_client import AsyncXMLRPCClient
from ..transport.event_loop import EventLoop, Timer

__all__ = ["HubMonitor"]

#: Seconds after connecting in which the hub has just been spoken to.
FIRST_PING = 1.0
#: Seconds between two questions to a hub that keeps no connection.
PING_INTERVAL = 10.0
#: Seconds after which a question that was not answered is asked once more.
RETRY_DELAY = 2.0
ANSWER_TIME = 10.0


class HubMonitor:
    """
    Watches one hub.

    Parameters
    ----------
    loop : Loop
        Where it runs.
    url : str
        Where the hub is.
    question : callable
        Gives what the hub is asked, as a document: something that only a client may ask. None while there is none.
    on_gone : callable
        Called with what happened, in the loop's thread.
    """

    def __init__(
        self, loop: EventLoop, url: str, question: Callable[[], bytes | None], on_gone: Callable[[str], object]
    ) -> None:
        self._loop = loop
        self._question = question
        self._on_gone = on_gone
        self._line = AsyncXMLRPCClient(loop, url, "The hub", self._on_closed)
        self._timer: Timer | None = loop.call_later(FIRST_PING, self._ping)
        self._asked = 0.0
        self._failures = 0
        self._stopped = False

    def stop(self) -> None:
        """Watch no more; from any thread."""
        self._stopped = True
        self._loop.call_soon(self._stop)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._line.close()

    def _ping(self) -> None:
        self._timer = None
        if self._stopped:
            return
        question = self._question()
        if question is None:  # the user is still thinking about whether the client may register
            self._schedule_ping(RETRY_DELAY)
        else:
            self._asked = time.monotonic()
            self._line.send([question], self._on_answer, ANSWER_TIME)

    def _schedule_ping(self, delay: float) -> None:
        if self._timer is None and not self._stopped:
            self._timer = self._loop.call_later(delay, self._ping)

    def _on_answer(self, error: SAMPError | None) -> None:
        if error is None:
            self._failures = 0
            if not self._line.connected:
                self._schedule_ping(PING_INTERVAL)
        elif not isinstance(error, SAMPTransportError):
            self._report_gone(f"The hub does not know this client any more: {error}")
        elif error.refused or self._failures:
            self._report_gone(str(error))
        else:
            self._failures += 1
            self._schedule_ping(RETRY_DELAY)

    def _report_gone(self, what: str) -> None:
        if not self._stopped:
            self._stopped = True
            self._on_gone(what)

    def _on_closed(self) -> None:
        """Ask at once, but not over and over a hub that closes each connection soon."""
        since = time.monotonic() - self._asked
        self._schedule_ping(0.0 if since > RETRY_DELAY or self._failures else RETRY_DELAY)
