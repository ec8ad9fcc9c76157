# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How an idle client notices that its hub is gone.

The monitor keeps one connection open on which it has asked the hub whether the client is still registered. When the
process of the hub ends, in whatever way, the operating system closes the connection. The monitor then asks again on a
new one: a hub that has only closed idle connections knows the client, a dead hub refuses the connection, and another
hub that now uses the same port does not know the client. The monitor pings at regular intervals only if the hub
keeps no connections open.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import SAMPError, SAMPTransportError
from ..transport.async_xmlrpc_client import AsyncXMLRPCClient
from ..transport.event_loop import EventLoop, Timer

#: Seconds from connecting to the first ping: until then other calls have shown that the hub is alive.
FIRST_PING = 1.0
#: Seconds between two pings of a hub that keeps no connections open.
PING_INTERVAL = 10.0
#: Seconds after which a ping that failed is repeated.
RETRY_DELAY = 2.0
RESPONSE_TIMEOUT = 10.0


class HubMonitor:
    """
    Monitors one hub.

    ``make_ping`` returns the XML-RPC document to send, a call that only a registered client may make, or None while
    the client is not registered. ``on_gone`` is called with a text when the hub is gone, in the loop's thread.
    """

    def __init__(
        self, loop: EventLoop, url: str, make_ping: Callable[[], bytes | None], on_gone: Callable[[str], object]
    ) -> None:
        self._loop = loop
        self._make_ping = make_ping
        self._on_gone = on_gone
        self._client = AsyncXMLRPCClient(loop, url, "The hub", self._on_closed)
        self._timer: Timer | None = loop.call_later(FIRST_PING, self._ping)
        self._last_ping = 0.0
        self._failures = 0
        self._stopped = False

    def stop(self) -> None:
        """Stop monitoring; may be called from any thread."""
        self._stopped = True
        self._loop.call_soon(self._stop)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._client.close()

    def _ping(self) -> None:
        self._timer = None
        if self._stopped:
            return
        ping = self._make_ping()
        if ping is None:  # the user has not decided yet whether the client may register
            self._schedule_ping(RETRY_DELAY)
        else:
            self._last_ping = time.monotonic()
            self._client.send([ping], self._on_response, RESPONSE_TIMEOUT)

    def _schedule_ping(self, delay: float) -> None:
        if self._timer is None and not self._stopped:
            self._timer = self._loop.call_later(delay, self._ping)

    def _on_response(self, error: SAMPError | None) -> None:
        if error is None:
            self._failures = 0
            if not self._client.connected:
                self._schedule_ping(PING_INTERVAL)
        elif not isinstance(error, SAMPTransportError):
            self._report_gone(f"The hub does not know this client any more: {error}")
        elif error.refused or self._failures:
            self._report_gone(str(error))
        else:
            self._failures += 1
            self._schedule_ping(RETRY_DELAY)

    def _report_gone(self, reason: str) -> None:
        if not self._stopped:
            self._stopped = True
            self._on_gone(reason)

    def _on_closed(self) -> None:
        """Ping immediately, but not again and again a hub that closes each connection soon."""
        since = time.monotonic() - self._last_ping
        self._schedule_ping(0.0 if since > RETRY_DELAY or self._failures else RETRY_DELAY)
