# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The delivery queue of a client of the Standard Profile: each delivery is a call of the client's own server (R32).

Theory of operation
-------------------
The broker adds deliveries in any thread. Each moves to the event loop's thread, in which everything else here runs.
There an `OrderedDispatcher` sends them in order, each when the one before was acknowledged or has used up its grace
time (R24), over one connection that is kept open. A delivery that overtakes another gets a connection of its own. Only
events of the hub may wait before that, see `EventDeferrer`.

A delivery ends in one of these ways. All but the first are reported to the broker, so that the sender of a call
gets an error response (R23). A delivery is never repeated.

* The client acknowledged it.
* The client returned a fault: it received the message and refuses it. The sender of a call gets the fault's text.
* The client could not be reached, broke the connection, or returned something that is not XML-RPC. Such a client may
  have ended, and is probed (see `liveness`).
* The client did not acknowledge it in time. Then deliveries that have waited behind it for as long fail as well:
  a thousand calls to a program that hangs do not take two minutes each.

The queue is bounded in number and in bytes. When it is long, the hub responds more slowly to the clients that send to
this one, so that a client that is slow but acknowledges its messages can keep up. Otherwise its messages would be lost,
and the senders of notifications would not notice. A client whose queue is full is disconnected.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

from ..broker import NOTIFICATION, Broker, Client, Delivery
from ..errors import SAMPError, SAMPProxyError, SAMPTransportError
from ..ordered_dispatcher import OrderedDispatcher
from ..transport.async_xmlrpc_client import AsyncXMLRPCClient
from ..transport.event_loop import EventLoop, Timer
from ..transport.urls import split_http_url
from ..transport.xmlrpc_writer import PreEncoded, write_call, write_value
from .liveness import Address, LivenessChecker

log = logging.getLogger(__name__)

#: Seconds without a discovery call after which a client is assumed to know all other clients.
QUIET_PERIOD = 0.25
#: Seconds after its first callback address for which a client's discovery calls defer events.
DISCOVERY_PERIOD = 5.0
#: Seconds in which a client has to acknowledge a delivery. After that the delivery fails; the client stays registered.
#: DS9 acknowledges an image when it has loaded it, which takes 20 s for 2 GB in a compressed file.
DELIVERY_TIMEOUT = 120.0
#: The same for the final message to a client that is disconnected.
FINAL_DELIVERY_TIMEOUT = 10.0
#: Limits of a client's queue.
MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024
#: Length of a queue from which the hub responds more slowly to clients that send to this client.
LONG_QUEUE = 1000
#: Maximum number of characters of a client's fault that the sender of the call gets.
MAX_FAULT_TEXT = 2000

# Stands for an argument in `_envelope`
_PLACEHOLDER = PreEncoded(b"%b")


class _QueuedDelivery(NamedTuple):
    delivery: Delivery
    size: int
    since: float


class EventDeferrer:
    """
    Defers the hub's events for a client while it asks for the other clients. Not thread-safe.

    Clients of JSAMP, among them TOPCAT and Aladin, begin by asking for the ids of all clients, and then for the
    metadata and the subscriptions of each, one request after the other; the result replaces what they knew before. An
    event that arrives in between is lost: they never show a program that registered in that time, and their users
    cannot send to it. With twenty clients that takes a fifth of a second.

    So while a new client makes such discovery calls, the hub's events wait, in order. Messages of other clients do not
    wait. A client that continues to ask after `DISCOVERY_PERIOD` gets all events as they come.
    """

    def __init__(
        self,
        deliver: Callable[[_QueuedDelivery], object],
        call_later: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._call_later = call_later
        self._clock = clock
        self._defer_until = clock() + DISCOVERY_PERIOD
        self._quiet_at = 0.0
        self._timer: Timer | None = None
        self._waiting: list[_QueuedDelivery] = []

    def on_discovery_call(self) -> None:
        """Note that the client asks for the other clients, or for their metadata or subscriptions."""
        now = self._clock()
        if now < self._defer_until:
            self._quiet_at = now + QUIET_PERIOD
            if self._timer is None:
                self._timer = self._call_later(QUIET_PERIOD, self._on_timer)

    def deliver(self, event: _QueuedDelivery) -> None:
        """Deliver an event, now or when the client is quiet."""
        if self._timer is None:
            self._deliver(event)
        else:
            self._waiting.append(event)

    def flush(self) -> None:
        """Deliver the waiting events, and defer no others."""
        for event in self.drain():
            self._deliver(event)

    def drain(self) -> list[_QueuedDelivery]:
        """Remove and return the waiting events, and defer no others."""
        self._defer_until = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        return waiting

    def _on_timer(self) -> None:
        self._timer = None
        remaining = self._quiet_at - self._clock()
        if remaining > 0:
            self._timer = self._call_later(remaining, self._on_timer)
            return
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            self._deliver(event)


@lru_cache
def _envelope(kind: str, count: int) -> tuple[bytes, bytes]:
    """Return what precedes and follows the message in a call: a format for ``count`` strings, and the end."""
    before, _, after = write_call(f"samp.client.{kind}", [_PLACEHOLDER] * (count + 1)).rpartition(_PLACEHOLDER)
    return before, after


def _encode_string(text: str) -> bytes:
    """Encode a string, quickly if it needs no escapes, as the ids and keys of the hub."""
    if text.isascii() and text.isalnum():
        return b"<value><string>%b</string></value>" % text.encode("ascii")
    return write_value(text)


def encode_callback(delivery: Delivery) -> list[bytes | memoryview]:
    """Encode the XML-RPC call that makes a delivery (R32), in parts, so that the message's bytes are not copied."""
    strings = [_encode_string(delivery.recipient_key), _encode_string(delivery.sender_id)]
    if delivery.tag is not None:
        strings.append(_encode_string(delivery.tag))
    before, after = _envelope(delivery.kind, len(strings))
    return [before % tuple(strings), delivery.body.encoded(), after]


class CallbackSender:
    """
    Makes the deliveries for one client.

    ``on_idle(sender)`` is called when no delivery waits or is being sent, if the sender is closed or its `reports_idle`
    is set.
    """

    def __init__(
        self,
        loop: EventLoop,
        broker: Broker,
        liveness: LivenessChecker,
        client: Client,
        url: str,
        on_idle: Callable[[CallbackSender], object],
    ) -> None:
        self._loop = loop
        self._broker = broker
        self._liveness = liveness
        self._client = client
        self._on_idle = on_idle
        self.reports_idle = False
        self._url = url
        self.address: Address = split_http_url(url)[:2]
        self._dispatcher: OrderedDispatcher[_QueuedDelivery] = OrderedDispatcher(self._send, loop.call_later)
        self._deferrer = EventDeferrer(self._dispatcher.put, loop.call_later)
        self._kept: AsyncXMLRPCClient | None = None  # kept for the next delivery
        self._active: dict[AsyncXMLRPCClient, str] = {}  # and the URL that each was opened to
        self._queued = 0
        self._queued_bytes = 0
        self._unresponsive = False
        #: Whether no more deliveries are accepted.
        self.is_closed = False
        liveness.add(self)

    # Called by the broker, in any thread

    def put(self, delivery: Delivery) -> None:
        """Add a delivery."""
        self._loop.call_soon(self._enqueue, delivery)

    def close(self, final_delivery: Delivery | None) -> None:
        """Drop the waiting deliveries. Make the final one without waiting for those that are being sent."""
        self._loop.call_soon(self._finish, final_delivery)

    # Called by the profile, in the loop's thread

    def set_url(self, url: str) -> None:
        """Make all further deliveries to another address."""
        self.address = split_http_url(url)[:2]
        self._url = url
        self._drop_kept()

    def defer_events(self) -> None:
        """Defer the hub's events, because the client asks for the other clients."""
        self._deferrer.on_discovery_call()

    @property
    def is_idle(self) -> bool:
        """Whether no delivery waits or is being sent."""
        return not self._queued and not self._active

    def abort(self) -> None:
        """Close all connections now; deliveries that are being sent fail."""
        self._stop()
        for connection in list(self._active):
            connection.close()

    # Called by the liveness checker

    @property
    def is_connected(self) -> bool:
        """Whether an idle connection to the client is open, so that its end would be noticed."""
        return self._kept is not None and self._kept.connected

    @property
    def owes_response(self) -> bool:
        """Whether a call to the client has no response yet."""
        return bool(self._client.pending_received)

    def on_client_dead(self) -> None:
        """Unregister the client: nothing listens at its address."""
        log.info("%s ended without unregistering", self._client.display_name)
        self._broker.unregister(self._client, "has gone: nothing listens at its callback address any more")

    # Deliveries

    def _enqueue(self, delivery: Delivery) -> None:
        if self.is_closed:
            return
        size = delivery.size
        # A single message is always accepted: its size is limited where messages are read
        if self._queued and (self._queued >= MAX_QUEUED or self._queued_bytes + size > MAX_QUEUED_BYTES):
            log.warning("%s does not accept its messages: it is disconnected", self._client.display_name)
            reason = f"{self._queued} messages were waiting for it"
            self._stop()
            self._broker.disconnect(self._client, reason)
            return
        if self._queued >= LONG_QUEUE and not self._unresponsive:
            self._broker.slow_down(delivery.sender_id)
        self._queued += 1
        self._queued_bytes += size
        item = _QueuedDelivery(delivery, size, time.monotonic())
        if delivery.kind == NOTIFICATION and delivery.sender_id == self._broker.hub_id:
            if delivery.body.mtype == "samp.hub.event.shutdown":
                self._deferrer.flush()
            self._deferrer.deliver(item)
        else:
            self._dispatcher.put(item)

    def _send(self, item: _QueuedDelivery, done: Callable[[], None]) -> None:
        now = time.monotonic()
        if self._unresponsive and now - item.since > DELIVERY_TIMEOUT:
            self._release_quota(item)
            self._broker.delivery_failed(item.delivery, f"{self._client.display_name} does not accept its messages")
            done()
            return
        connection, self._kept = self._kept, None
        if connection is None:
            connection = AsyncXMLRPCClient(self._loop, self._url, self._client.display_name, self._on_kept_closed)
        self._active[connection] = self._url
        on_sent = partial(self._on_sent, connection, item, now, done)
        connection.send(encode_callback(item.delivery), on_sent, DELIVERY_TIMEOUT)

    def _on_sent(
        self,
        connection: AsyncXMLRPCClient,
        item: _QueuedDelivery,
        since: float,
        done: Callable[[], None],
        error: SAMPError | None,
    ) -> None:
        now = time.monotonic()
        self._release_quota(item)
        self._return_connection(connection)
        self._unresponsive = error is not None and now - since >= DELIVERY_TIMEOUT
        if error is None:
            if not self.is_closed:
                self._broker.mark_active(self._client)
        else:
            self._broker.delivery_failed(item.delivery, self._error_text(error))
            if isinstance(error, SAMPTransportError) and not self._unresponsive:
                self._liveness.check(self)
        done()
        self._check_idle()

    def _release_quota(self, item: _QueuedDelivery) -> None:
        self._queued -= 1
        self._queued_bytes -= item.size

    def _error_text(self, error: SAMPError) -> str:
        text = str(error)
        if isinstance(error, SAMPProxyError):
            # A client that returns a fault because of its private key may quote the key (R38)
            text = text.replace(self._client.private_key, "...")[:MAX_FAULT_TEXT]
            return text or f"{self._client.display_name} refused the message"
        return text

    # Connections

    def _return_connection(self, connection: AsyncXMLRPCClient) -> None:
        """Keep a connection for the next delivery, unless one is kept already."""
        url = self._active.pop(connection)
        if connection.connected and self._kept is None and not self.is_closed and url == self._url:
            self._kept = connection
        else:
            connection.close()

    def _on_kept_closed(self) -> None:
        """Probe the client, which has closed an idle connection, to save resources or because it has ended."""
        if not self.is_connected:
            self._kept = None
        self._liveness.check(self)

    def _drop_kept(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    # Closing

    def _stop(self) -> None:
        self.is_closed = True
        for item in self._deferrer.drain() + self._dispatcher.close():
            self._release_quota(item)
        self._drop_kept()
        self._liveness.discard(self)

    def _finish(self, final_delivery: Delivery | None) -> None:
        self._stop()
        if final_delivery is not None:
            connection = AsyncXMLRPCClient(self._loop, self._url, self._client.display_name)
            self._active[connection] = self._url
            parts = encode_callback(final_delivery)
            connection.send(parts, lambda _error: self._on_final_sent(connection), FINAL_DELIVERY_TIMEOUT)
        self._check_idle()

    def _on_final_sent(self, connection: AsyncXMLRPCClient) -> None:
        self._return_connection(connection)
        self._check_idle()

    def _check_idle(self) -> None:
        if (self.is_closed or self.reports_idle) and self.is_idle:
            self._on_idle(self)
