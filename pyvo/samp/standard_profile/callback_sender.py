# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The mailbox of a client of the Standard Profile: deliveries are pushed to the client's own server (R32).

Theory of operation
-------------------
The broker puts deliveries from whatever thread; each hops into the loop's thread, to which everything else here
belongs. There a `Dispatcher` sends them in order, each when the one before has been acknowledged or has had
its grace time (R24), over a connection that is kept; one more is opened for each that goes beside. Only the hub's
events may wait before that, for a client that would lose them (see `newcomer`).

A delivery ends in one of these ways, of which all but the first are told to the broker, so that the caller
learns of them (R23). None of them leads to the delivery being made again.

* It was acknowledged.
* The client answered with a fault: it has the message and refuses it. The caller is told the fault's text.
* The client could not be reached, broke the connection, or answered with something that is no XML-RPC.
  Somebody who does that may be gone, and is looked at (see `liveness`).
* It was not acknowledged in time. Then what has been waiting behind it for as long is given up as well, instead of
  giving each of a thousand calls to a program that hangs its own ten seconds.

What waits is bounded in number and in bytes; a client that lets it overflow is disconnected.

The hub's events for a client that is still finding out who is there.

Theory of operation
-------------------
JSAMP's clients, TOPCAT and Aladin among them, begin by asking who is registered, and then for the metadata and the
subscriptions of each, one request after the other; the whole replaces what they have known before. An event that
reaches them in the middle of that is lost on them: they never see a program that registered in those moments, and
their users cannot send it anything. With twenty programs connected that is a fifth of a second.

So as long as a newcomer asks such questions the hub's events wait for it, in their order. Messages of others do
not wait; and a client that goes on asking for longer than it is new gets everything as it comes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from ..broker import NOTIFICATION, Broker, Client, Delivery
from ..errors import SAMPError, SAMPProxyError, SAMPTransportError
from ..ordered_dispatcher import OrderedDispatcher
from ..transport.async_xmlrpc_client import AsyncXMLRPCClient
from ..transport.event_loop import EventLoop
from ..transport.urls import split_http_url
from ..transport.xmlrpc_writer import Encoded, PreEncoded, write_call
from .liveness import Address, LivenessChecker

__all__ = ["CallbackSender", "EventDeferrer"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds without a question after which a newcomer knows enough.
QUIET_PERIOD = 0.25
#: Seconds for which a client is new.
DISCOVERY_PERIOD = 5.0


class _Timer(Protocol):
    def cancel(self) -> object: ...


class EventDeferrer(Generic[T]):
    """
    Keeps events back while their recipient asks who is there. All in one thread.

    Parameters
    ----------
    deliver : callable
        Called with each event, once it need not wait any more.
    call_later : callable
        Called with seconds and a function; returns an object with a ``cancel()``. `Loop.call_later` is one.
    clock : callable
        Tells the time in seconds.
    """

    def __init__(
        self,
        deliver: Callable[[T], object],
        call_later: Callable[[float, Callable[[], None]], _Timer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._call_later = call_later
        self._clock = clock
        self._new_until = clock() + DISCOVERY_PERIOD
        self._quiet_at = 0.0
        self._timer: _Timer | None = None
        self._waiting: list[T] = []

    def on_discovery_call(self) -> None:
        """Take note that the client asks who is there, or what somebody is like."""
        now = self._clock()
        if now < self._new_until:
            self._quiet_at = now + QUIET_PERIOD
            if self._timer is None:
                self._timer = self._call_later(QUIET_PERIOD, self._on_timer)

    def deliver(self, event: T) -> None:
        """Deliver an event, now or in its time."""
        if self._timer is None:
            self._deliver(event)
        else:
            self._waiting.append(event)

    def flush(self) -> None:
        """Deliver what waits, and let nothing wait any more."""
        for event in self.drain():
            self._deliver(event)

    def drain(self) -> list[T]:
        """
        Let nothing wait any more.

        Returns
        -------
        list
            What has waited, and is not delivered.
        """
        self._new_until = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        return waiting

    def _on_timer(self) -> None:
        self._timer = None
        left = self._quiet_at - self._clock()
        if left > 0:
            self._timer = self._call_later(left, self._on_timer)
            return
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            self._deliver(event)


#: Seconds in which a client has to acknowledge a delivery.
DELIVERY_TIMEOUT = 10.0
#: Seconds for which an idle connection is used again: less than any client's server keeps it.
KEEP_TIME = 45.0
#: What may wait for one client.
MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024
#: How much of a client's fault the caller is told.
MAX_FAULT_TEXT = 2000

# Stands for the payload while the envelope around it is written; it occurs in no document
_PAYLOAD_PLACEHOLDER = PreEncoded(b"\0")


class _QueuedDelivery(NamedTuple):
    delivery: Delivery
    size: int
    since: float


def encode_callback(delivery: Delivery) -> list[bytes | memoryview]:
    """
    Write the call of the client that makes a delivery (R32).

    Returns
    -------
    list of bytes or memoryview
        The document in pieces, the payload's own bytes among them and not copied.
    """
    envelope: list[str | Encoded] = [delivery.recipient_key, delivery.sender_id]
    if delivery.tag is not None:
        envelope.append(delivery.tag)
    before, _, after = write_call(f"samp.client.{delivery.kind}", [*envelope, _PAYLOAD_PLACEHOLDER]).partition(_PAYLOAD_PLACEHOLDER)
    return [before, delivery.body.encoded(), after]


class CallbackSender:
    """
    Pushes deliveries to one client.

    Parameters
    ----------
    loop : Loop
        What watches the sockets.
    broker : Broker
        Who is told of failures.
    liveness : Liveness
        Who looks whether the client is gone.
    client : Client
        Whose mailbox it is.
    url : str
        Where the client's server is; see `set_url`.
    on_idle : callable
        Called with the mailbox when there is nothing more to be delivered.
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
        self._url = url
        self.address: Address = split_http_url(url)[:2]
        self._dispatcher: OrderedDispatcher[_QueuedDelivery] = OrderedDispatcher(self._send, loop.call_later)
        self._newcomer: EventDeferrer[_QueuedDelivery] = EventDeferrer(self._dispatcher.put, loop.call_later)
        self._idle: list[tuple[AsyncXMLRPCClient, float]] = []
        self._at_work: dict[AsyncXMLRPCClient, str] = {}  # and the URL each was opened to
        self._number = 0
        self._bytes = 0
        self._unresponsive = False
        self._closed = False
        liveness.add(self)

    # What the broker calls, in any thread

    def put(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self._loop.call_soon(self._take, delivery)

    def close(self, farewell: Delivery | None) -> None:
        """Drop what waits, deliver the farewell beside what is on its way, and end."""
        self._loop.call_soon(self._finish, farewell)

    # What the profile calls, in the loop's thread

    def set_url(self, url: str) -> None:
        """Make all further deliveries to another address."""
        self.address = split_http_url(url)[:2]
        self._url = url
        self._drop_idle()

    def defer_events(self) -> None:
        """Take note that the client asks who is there: the hub's events wait until it knows."""
        self._newcomer.on_discovery_call()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to be delivered."""
        return not self._number and not self._at_work

    @property
    def is_closed(self) -> bool:
        """Whether nothing will come any more."""
        return self._closed

    def abort(self) -> None:
        """Close all connections now; what is on its way counts as failed."""
        self._stop()
        for line in list(self._at_work):
            line.close()

    # What the looks at its life need

    @property
    def is_connected(self) -> bool:
        """Whether a connection to the client is kept, so that its end would be noticed."""
        return any(line.connected for line, _ in self._idle)

    @property
    def owes_response(self) -> bool:
        """Whether somebody waits for an answer of this client."""
        return bool(self._client.pending_received)

    def on_client_dead(self) -> None:
        """Unregister the client: nobody listens at its address."""
        log.info("%s has gone without unregistering", self._client.display_name)
        self._broker.unregister(self._client, "has gone: nobody listens at its callback address any more")

    # Deliveries

    def _take(self, delivery: Delivery) -> None:
        if self._closed:
            return
        size = delivery.size
        # One message always has room, however large: its size is bounded where messages are read
        if self._number and (self._number >= MAX_QUEUED or self._bytes + size > MAX_QUEUED_BYTES):
            log.warning("%s does not take its messages: it is disconnected", self._client.display_name)
            self._stop()
            self._broker.disconnect(self._client, f"{self._number} messages were waiting to be taken")
            return
        self._number += 1
        self._bytes += size
        item = _QueuedDelivery(delivery, size, time.monotonic())
        if delivery.kind == NOTIFICATION and delivery.sender_id == self._broker.hub_id:
            if delivery.body.mtype == "samp.hub.event.shutdown":
                self._newcomer.flush()
            self._newcomer.deliver(item)
        else:
            self._dispatcher.put(item)

    def _send(self, item: _QueuedDelivery, done: Callable[[], None]) -> None:
        now = time.monotonic()
        if self._unresponsive and now - item.since > DELIVERY_TIMEOUT:
            self._release_quota(item)
            self._broker.delivery_failed(item.delivery, f"{self._client.display_name} does not take its messages")
            done()
            return
        line = self._get_connection(now)
        self._at_work[line] = self._url
        parts = encode_callback(item.delivery)
        line.send(parts, lambda error: self._on_sent(line, item, now, done, error), DELIVERY_TIMEOUT)

    def _on_sent(
        self, line: AsyncXMLRPCClient, item: _QueuedDelivery, since: float, done: Callable[[], None], error: SAMPError | None
    ) -> None:
        now = time.monotonic()
        self._release_quota(item)
        self._return_connection(line, now)
        self._unresponsive = error is not None and now - since >= DELIVERY_TIMEOUT
        if error is None:
            if not self._closed:
                self._broker.mark_active(self._client)
        else:
            self._broker.delivery_failed(item.delivery, self._error_text(error))
            if isinstance(error, SAMPTransportError) and not self._unresponsive:
                self._liveness.check(self)
        done()
        self._check_idle()

    def _release_quota(self, item: _QueuedDelivery) -> None:
        self._number -= 1
        self._bytes -= item.size

    def _error_text(self, error: SAMPError) -> str:
        text = str(error)
        if isinstance(error, SAMPProxyError):
            # A client that faults because of its private key may well name it (R38)
            text = text.replace(self._client.private_key, "...")[:MAX_FAULT_TEXT]
            return text or f"{self._client.display_name} refused the message"
        return text

    # Connections

    def _get_connection(self, now: float) -> AsyncXMLRPCClient:
        while self._idle:
            line, since = self._idle.pop()
            if now - since < KEEP_TIME:
                return line
            line.close()
        return AsyncXMLRPCClient(self._loop, self._url, self._client.display_name, self._on_line_closed)

    def _return_connection(self, line: AsyncXMLRPCClient, now: float) -> None:
        """Keep a connection for the next delivery, unless there is one already."""
        url = self._at_work.pop(line)
        if line.connected and not self._idle and not self._closed and url == self._url:
            self._idle.append((line, now))
        else:
            line.close()

    def _on_line_closed(self) -> None:
        """The client has closed the idle connection: perhaps it is tidy, perhaps it is dead."""
        self._idle = [(line, since) for line, since in self._idle if line.connected]
        self._liveness.check(self)

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for line, _ in idle:
            line.close()

    # The end

    def _stop(self) -> None:
        self._closed = True
        for item in self._newcomer.drain() + self._dispatcher.close():
            self._release_quota(item)
        self._drop_idle()
        self._liveness.discard(self)

    def _finish(self, farewell: Delivery | None) -> None:
        self._stop()
        if farewell is not None:
            line = AsyncXMLRPCClient(self._loop, self._url, self._client.display_name)
            self._at_work[line] = self._url
            line.send(encode_callback(farewell), lambda _error: self._on_farewell_sent(line), DELIVERY_TIMEOUT)
        self._check_idle()

    def _on_farewell_sent(self, line: AsyncXMLRPCClient) -> None:
        self._return_connection(line, 0.0)
        self._check_idle()

    def _check_idle(self) -> None:
        if self.is_idle:
            self._on_idle(self)
