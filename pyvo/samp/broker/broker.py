# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The rules of the protocol: `Broker` has one method for each operation of a hub.

A profile is an adapter above the broker: it turns a request into a call of one of these methods, for the `Client`
that `Broker.authenticate` finds for the private key, and it gives each callable client a `DeliveryQueue`.

Theory of operation
-------------------
An operation changes the broker's tables, and passes deliveries to queues and responses to callbacks. These may call
the broker again at once: the queue of the hub itself replies to a ping, a full queue disconnects its client. The tables
must be consistent by then, so all such calls are deferred. They run when the outermost operation ends, in the order in
which they were deferred. A deferred call that calls the broker adds its own deferred calls to the end of the same
queue: there is no recursion, however long the chain. The whole operation holds one lock, so all recipients see events
in the same order (R24).

URLs that a web client may fetch
--------------------------------
A web client may fetch a URL that a client of the Standard Profile mentioned where the web client could see it (R46).
The broker keeps no list of URLs. All that a web client sees passes through the Web Profile, as a delivery to its
queue, as a response to ``callAndWait`` or as metadata, and the Web Profile looks for URLs there. It learns the source
from `EncodedMessage.source_profile` and `Broker.profile_of`. The source of an event about a client is that client's
profile.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from ..errors import SAMPProxyError
from ..protocol import SAMPValue, best_match, check_pattern, error_response, ok_response
from .deliveries import CALL, NOTIFICATION, RESPONSE, TRAFFIC, Delivery, DeliveryQueue, EncodedMessage, Traffic
from .registry import (
    Annotations,
    CallTable,
    Client,
    ClientRegistry,
    OnResponse,
    PendingCall,
    SendFilter,
    no_response_payload,
)

log = logging.getLogger(__name__)


class DeferredCalls:
    """The broker's lock, as a context manager. Calls that are deferred within run before it is released."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._deferred: deque[tuple[Callable[[Any], object], Any]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_exc_info: object) -> None:
        try:
            if self._depth == 1 and self._deferred:
                self._run_deferred()
        finally:
            self._depth -= 1
            self._lock.release()

    def defer(self, function: Callable[[Any], object], argument: Any) -> None:
        """Call ``function(argument)`` when the outermost ``with`` block ends."""
        self._deferred.append((function, argument))

    def _run_deferred(self) -> None:
        deferred = self._deferred
        while deferred:
            function, argument = deferred.popleft()
            try:
                function(argument)
            except Exception:  # the other recipients must still get their deliveries
                log.exception("The hub could not pass on a message")


HUB_METADATA: dict[str, SAMPValue] = {
    "samp.name": "Hub",
    "samp.description.text": "The hub itself. It passes on the messages of all clients.",
    "samp.documentation.url": "https://www.ivoa.net/documents/SAMP/",
    "author.name": "The developers of pyvo.samp",
    TRAFFIC: "1",
}

PING = "samp.app.ping"
QUERY_BY_META = ("samp.query.by-meta", "x-samp.query.by-meta")

# Web clients may send the query: its result contains only what getMetadata also returns (R47)
HUB_SUBSCRIPTIONS: dict[str, Annotations] = {
    PING: {},
    **{mtype: {"x-samp.mostly-harmless": "1"} for mtype in QUERY_BY_META},
}


class HubClient:
    """The delivery queue of the hub itself. It replies at once to the calls that clients send to the hub (R8, R27)."""

    def __init__(self, clients: Iterable[Client], reply: Callable[[str, EncodedMessage], None]) -> None:
        self._clients = clients
        self._reply = reply

    def put(self, delivery: Delivery) -> None:
        """Reply to a call; ignore notifications and responses."""
        if delivery.kind == CALL and delivery.tag is not None:
            self._reply(delivery.tag, EncodedMessage(self._response_to(delivery.body)))

    def close(self, final_delivery: Delivery | None) -> None:
        """Do nothing: no delivery waits here."""

    def _response_to(self, message: EncodedMessage) -> dict[str, SAMPValue]:
        if message.mtype not in QUERY_BY_META:
            return ok_response({})
        params = message.value["samp.params"]
        assert isinstance(params, dict)  # R16
        try:
            key, value = params["key"], params["value"]
        except KeyError as missing:
            return error_response(f"{message.mtype} needs the parameter {missing.args[0]!r}")
        if not isinstance(key, str):
            return error_response(f"The parameter 'key' of {message.mtype} must be a string")
        return ok_response({"ids": [c.client_id for c in self._clients if c.metadata.get(key) == value]})


HUB = "hub"
RESERVED = "samp.hub."
DISCONNECT = "samp.hub.disconnect"


def _new_key() -> str:
    return secrets.token_hex(16)


class Broker:
    """
    The registered clients, their subscriptions and the pending calls. Safe to use from any thread.

    The methods raise `SAMPProxyError` if they refuse a request, and `SAMPValueError` for an invalid MType. Either
    becomes the fault that the client receives. ``clock`` returns the time in seconds. ``new_key`` makes private keys
    and msg-ids: strings that cannot be guessed and never repeat (R6, R7, R21).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, new_key: Callable[[], str] = _new_key) -> None:
        self._clock = clock
        self._new_key = new_key
        self._operation = DeferredCalls()
        self._registry = ClientRegistry()
        self._calls = CallTable()
        self._serial = count(1)
        self._closed = False
        #: Time of the last activity of any client (see `Client.last_active`), by the clock.
        self.last_active = clock()
        #: Called with `Traffic` for each event, message and response, to show it. It must not block.
        self.observer: Callable[[Traffic], object] | None = None
        self._traffic_subscribers: set[Client] = set()
        self._hub = Client(HUB, new_key(), HUB)
        self._hub.queue = HubClient(self._registry, lambda msg_id, response: self.reply(self._hub, msg_id, response))
        self._hub.callable = True
        self._hub.metadata = HUB_METADATA
        self._registry.add(self._hub)
        self._registry.subscribe(self._hub, HUB_SUBSCRIPTIONS)

    @property
    def hub_id(self) -> str:
        """Public id of the hub itself (R8)."""
        return self._hub.client_id

    # Registration

    def register(
        self, profile: str, queue: DeliveryQueue | None = None, *, send_filter: SendFilter | None = None
    ) -> Client:
        """Register a new client (R6). It is not callable yet, see `set_callable`; the queue can be given there."""
        with self._operation:
            if self._closed:
                raise SAMPProxyError(1, "The hub is shutting down")
            client = Client(f"c{next(self._serial)}", self._new_key(), profile, send_filter)
            client.queue = queue
            client.last_active = self.last_active = self._clock()
            self._registry.add(client)
            self._broadcast_event("samp.hub.event.register", {"id": client.client_id}, client)
            return client

    def authenticate(self, profile: str, private_key: SAMPValue) -> Client:
        """Find the client with this private key, and mark it active (R9)."""
        if not isinstance(private_key, str):
            raise SAMPProxyError(1, "The private key must be a string")
        client = self._registry.by_key(profile, private_key)
        self.mark_active(client)
        return client

    def mark_active(self, client: Client) -> None:
        """Set the time of the client's last activity, a request or an acknowledged delivery, to now."""
        client.last_active = self.last_active = self._clock()

    def set_callable(self, client: Client, is_callable: bool = True, queue: DeliveryQueue | None = None) -> None:
        """Make a client callable or not callable (R13). One that is no longer callable loses its subscriptions."""
        with self._operation:
            self._check_active(client)
            if queue is not None:
                client.queue = queue
            client.callable = is_callable and client.queue is not None
            if not client.callable and client.subscriptions:
                self._subscribe(client, {})

    def unregister(self, client: Client, reason: str = "has unregistered") -> None:
        """
        Unregister a client: its key becomes invalid, its calls end, the other clients are notified (R10, R23).

        Nothing happens if it is no longer registered. Clients that wait for its responses get ``reason``, a text that
        continues a sentence that begins with the client's name.
        """
        with self._operation:
            if client.is_active:
                self._unregister(client, reason, None)

    def disconnect(self, client: Client, reason: str) -> None:
        """Unregister a client because the hub decides so; notify it if it is subscribed to `DISCONNECT` (R26)."""
        with self._operation:
            if not client.is_active:
                return
            final_delivery = None
            if best_match(client.subscriptions, DISCONNECT) is not None:
                message = EncodedMessage({"samp.mtype": DISCONNECT, "samp.params": {"reason": reason}})
                final_delivery = Delivery(NOTIFICATION, client.client_id, client.private_key, HUB, None, message)
            self._unregister(client, f"was disconnected by the hub: {reason}", final_delivery)

    def announce_shutdown(self) -> None:
        """Notify all clients that the hub is about to stop, and refuse new ones (R26)."""
        with self._operation:
            if not self._closed:
                self._closed = True
                self._broadcast_event("samp.hub.event.shutdown", {}, self._hub)

    def close(self) -> None:
        """End all pending calls and remove all clients, without further events."""
        with self._operation:
            self._closed = True
            for call in list(self._calls):
                self._complete_call(call, no_response_payload("The hub is shutting down"))
            for client in self.clients():
                self._remove_client(client, "", None)

    # Clients

    def client(self, client_id: str) -> Client:
        """Find a client by its public id; raise a fault if there is none."""
        with self._operation:
            return self._registry.by_id(client_id)

    def clients(self) -> list[Client]:
        """List all clients except the hub."""
        with self._operation:
            return [client for client in self._registry if client is not self._hub]

    def pending_calls(self) -> set[str]:
        """Return the msg-ids of all pending calls."""
        with self._operation:
            return {call.msg_id for call in self._calls}

    def profile_of(self, client_id: str) -> str:
        """Return the profile of a client; ``"hub"`` for the hub."""
        return self.client(client_id).profile

    def get_registered_clients(self, client: Client) -> list[SAMPValue]:
        """List the ids of all other clients, including the hub (R14)."""
        with self._operation:
            self._check_active(client)
            return [other.client_id for other in self._registry if other is not client]

    # Metadata and subscriptions

    def declare_metadata(self, client: Client, metadata: dict[str, SAMPValue]) -> None:
        """Replace a client's metadata (R11)."""
        with self._operation:
            self._check_active(client)
            client.metadata = metadata
            params: dict[str, SAMPValue] = {"id": client.client_id, "metadata": metadata}
            self._broadcast_event("samp.hub.event.metadata", params, client)

    def get_metadata(self, client: Client, client_id: str) -> dict[str, SAMPValue]:
        """Return a client's metadata, an empty map if it declared none (R11)."""
        with self._operation:
            self._check_active(client)
            return self._registry.by_id(client_id).metadata

    def declare_subscriptions(self, client: Client, subscriptions: dict[str, SAMPValue]) -> None:
        """Replace a client's subscriptions (R12, R13)."""
        checked: dict[str, Annotations] = {}
        for pattern, value in subscriptions.items():
            check_pattern(pattern)
            if value and not isinstance(value, dict):
                raise SAMPProxyError(1, f"The annotations of the subscription to {pattern} must be a map")
            checked[pattern] = value if isinstance(value, dict) else {}  # some clients write an empty map as ""
        with self._operation:
            self._check_active(client)
            if checked and not client.callable:
                raise SAMPProxyError(1, "A client that is not callable cannot subscribe to anything")
            self._subscribe(client, checked)

    def get_subscriptions(self, client: Client, client_id: str) -> dict[str, SAMPValue]:
        """Return a client's subscriptions."""
        with self._operation:
            self._check_active(client)
            return dict(self._registry.by_id(client_id).subscriptions)

    def get_subscribed_clients(self, client: Client, mtype: str) -> dict[str, SAMPValue]:
        """Map the id of each other client that would receive an MType to its annotations (R14)."""
        check_pattern(mtype)  # some clients ask for "table.*", and get the clients that are subscribed to all of it
        with self._operation:
            self._check_active(client)
            recipients = self._registry.subscribers(mtype, client)
            return {other.client_id: other.subscriptions[pattern] for other, pattern in recipients.items()}

    # Messages

    def notify(self, sender: Client, recipient_id: str, message: EncodedMessage) -> None:
        """Send a notification to one client (R18, R19)."""
        with self._operation:
            mtype = self._check_send(sender, message)
            recipient = self._registry.check_recipient(sender, recipient_id, mtype)
            recipient.received += 1
            self._deliver(NOTIFICATION, recipient, sender.client_id, None, message)
            self._notify_observer(NOTIFICATION, sender.client_id, (recipient_id,), (), message)

    def notify_all(self, sender: Client, message: EncodedMessage) -> list[SAMPValue]:
        """Send a notification to all subscribed clients; return their ids (R18)."""
        with self._operation:
            mtype = self._check_send(sender, message)
            recipients = self._registry.subscribers(mtype, sender)
            sender_id = sender.client_id
            for recipient in recipients:
                recipient.received += 1
                self._deliver(NOTIFICATION, recipient, sender_id, None, message)
            ids = [recipient.client_id for recipient in recipients]
            if ids:
                self._notify_observer(NOTIFICATION, sender_id, tuple(ids), (), message, to_all=True)
            return [*ids]

    def call(self, sender: Client, recipient_id: str, tag: str, message: EncodedMessage) -> str:
        """Call one client; its response is delivered with this tag. Return the msg-id (R18, R20)."""
        with self._operation:
            mtype = self._check_send(sender, message)
            self._check_callable(sender)
            recipient = self._registry.check_recipient(sender, recipient_id, mtype)
            self._calls.check_limit(sender, 1)
            call = self._open_call(sender, recipient, tag, None, message)
            self._notify_observer(CALL, sender.client_id, (recipient_id,), (call.msg_id,), message)
            return call.msg_id

    def call_all(self, sender: Client, tag: str, message: EncodedMessage) -> dict[str, SAMPValue]:
        """Call all subscribed clients; map the id of each to the msg-id of its call (R18, R20, R21)."""
        with self._operation:
            mtype = self._check_send(sender, message)
            self._check_callable(sender)
            recipients = self._registry.subscribers(mtype, sender)
            self._calls.check_limit(sender, len(recipients))
            msg_ids = {
                recipient.client_id: self._open_call(sender, recipient, tag, None, message).msg_id
                for recipient in recipients
            }
            if msg_ids:
                self._notify_observer(
                    CALL, sender.client_id, tuple(msg_ids), tuple(msg_ids.values()), message, to_all=True
                )
            return {**msg_ids}

    def call_and_wait(
        self, sender: Client, recipient_id: str, message: EncodedMessage, on_response: OnResponse
    ) -> PendingCall:
        """
        Call one client; its response is passed to a function (R18, R22, R23). The sender need not be callable.

        ``on_response`` is called once, unless `cancel_call` comes first. It may be called before this method returns,
        and in another thread. The broker's lock is held during the call, so it must not block.
        """
        with self._operation:
            mtype = self._check_send(sender, message)
            recipient = self._registry.check_recipient(sender, recipient_id, mtype)
            self._calls.check_limit(sender, 1)
            call = self._open_call(sender, recipient, None, on_response, message)
            self._notify_observer(CALL, sender.client_id, (recipient_id,), (call.msg_id,), message)
            return call

    def cancel_call(self, call: PendingCall) -> bool:
        """
        Drop a pending call: a reply to it will be refused (R22).

        Return whether it was pending. If not, its ``on_response`` was called, or is being called.
        """
        with self._operation:
            was_pending = self._calls.remove(call)
            if was_pending:
                self._observe_response(call, no_response_payload("The sender no longer waits for the response"))
            return was_pending

    def reply(self, client: Client, msg_id: str, response: EncodedMessage) -> None:
        """Reply to a call (R18). Only the client that received the call may do this, and only once (R21)."""
        with self._operation:
            call = self._calls.find(msg_id, client.client_id)
            if call is None:
                raise SAMPProxyError(1, "No call with this msg-id waits for a reply from this client")
            self._complete_call(call, response)

    def slow_down(self, client_id: str) -> None:
        """Delay the next response to a client: it sends faster than a recipient accepts."""
        with self._operation:
            client = self._registry.get(client_id)
            if client is not None:
                client.is_too_fast = True

    def delivery_failed(self, delivery: Delivery, reason: str) -> None:
        """End the call that could not be delivered, if it was one; its sender gets the reason (R23)."""
        if delivery.kind == CALL and delivery.tag is not None:
            with self._operation:
                call = self._calls.find(delivery.tag, delivery.recipient_id)
                if call is not None:
                    self._complete_call(call, no_response_payload(reason))

    # Parts of operations. They run within `self._operation`.

    @staticmethod
    def _check_active(client: Client) -> None:
        if not client.is_active:  # it was removed after `authenticate`
            raise SAMPProxyError(1, "This client is no longer registered with the hub")

    @staticmethod
    def _check_callable(sender: Client) -> None:
        if not sender.callable:
            raise SAMPProxyError(1, "A client that is not callable cannot receive responses: use callAndWait")

    def _check_send(self, sender: Client, message: EncodedMessage) -> str:
        self._check_active(sender)
        mtype = message.mtype
        if mtype.startswith(RESERVED):
            raise SAMPProxyError(1, f"Only the hub sends {mtype}")  # R25
        sender.sent += 1
        return mtype

    def _deliver(self, kind: str, recipient: Client, sender_id: str, tag: str | None, body: EncodedMessage) -> None:
        if recipient.queue is not None and recipient.callable:
            delivery = Delivery(kind, recipient.client_id, recipient.private_key, sender_id, tag, body)
            self._operation.defer(recipient.queue.put, delivery)

    def _broadcast_event(self, mtype: str, params: dict[str, SAMPValue], subject: Client) -> None:
        """Send an event (R26) to all subscribed clients, including the client it is about (R15)."""
        recipients = self._registry.subscribers(mtype)
        message = EncodedMessage({"samp.mtype": mtype, "samp.params": params}, source_profile=subject.profile)
        self._notify_observer(NOTIFICATION, HUB, (), (), message)
        for recipient in recipients:
            self._deliver(NOTIFICATION, recipient, HUB, None, message)

    def _subscribe(self, client: Client, subscriptions: dict[str, Annotations]) -> None:
        self._registry.subscribe(client, subscriptions)
        if TRAFFIC in subscriptions and client.profile == "standard":
            self._traffic_subscribers.add(client)
        else:
            self._traffic_subscribers.discard(client)
        params: dict[str, SAMPValue] = {"id": client.client_id, "subscriptions": dict(subscriptions)}
        self._broadcast_event("samp.hub.event.subscriptions", params, client)

    def _open_call(
        self,
        sender: Client,
        recipient: Client,
        tag: str | None,
        on_response: OnResponse | None,
        message: EncodedMessage,
    ) -> PendingCall:
        call = PendingCall(self._new_key(), sender, recipient, tag, on_response)
        self._calls.add(call)
        recipient.received += 1
        self._deliver(CALL, recipient, sender.client_id, call.msg_id, message)
        return call

    def _notify_observer(
        self,
        kind: str,
        sender_id: str,
        recipient_ids: Sequence[str],
        msg_ids: Sequence[str],
        body: EncodedMessage,
        *,
        to_all: bool = False,
    ) -> None:
        if self.observer is None and not self._traffic_subscribers:
            return
        traffic = Traffic(kind, sender_id, recipient_ids, msg_ids, body, to_all)
        if self.observer is not None:
            self._operation.defer(self.observer, traffic)
        if self._traffic_subscribers and recipient_ids:
            message = traffic.as_message()
            for subscriber in self._traffic_subscribers:
                self._deliver(NOTIFICATION, subscriber, HUB, None, message)

    def _observe_response(self, call: PendingCall, response: EncodedMessage) -> None:
        self._notify_observer(RESPONSE, call.recipient.client_id, (call.sender.client_id,), (call.msg_id,), response)

    def _complete_call(self, call: PendingCall, response: EncodedMessage) -> None:
        self._calls.remove(call)
        self._observe_response(call, response)
        if call.on_response is not None:
            self._operation.defer(call.on_response, response)
        else:
            self._deliver(RESPONSE, call.sender, call.recipient.client_id, call.tag, response)

    def _unregister(self, client: Client, reason: str, final_delivery: Delivery | None) -> None:
        self._remove_client(client, reason, final_delivery)
        self._broadcast_event("samp.hub.event.unregister", {"id": client.client_id}, client)

    def _remove_client(self, client: Client, reason: str, final_delivery: Delivery | None) -> None:
        client.is_active = False
        self._registry.remove(client)
        self._traffic_subscribers.discard(client)
        client.callable = False
        if client.queue is not None:
            self._operation.defer(client.queue.close, final_delivery)
        for call in list(client.pending_received.values()):
            self._complete_call(call, no_response_payload(f"{client.display_name} {reason}"))
        for call in list(client.pending_sent.values()):
            # nothing receives the response, except a callAndWait request that waits on another connection
            self._complete_call(call, no_response_payload("The caller is no longer registered with the hub"))
