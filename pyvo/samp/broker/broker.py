# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The operations of a hub.

A profile is an adapter above this: it turns a request into a call of one of these methods, with the `Client`
that `Broker.authenticate` found for the private key, and gives each callable client a mailbox.

What a web page could have read
-------------------------------
Rule R46 lets a web client fetch the URLs that clients of the Standard Profile mentioned where it could see
them. The broker keeps no list: all that a web client can see passes through its own profile, as a delivery
to its mailbox, as the response of ``call_and_wait``, or as the answer of `Broker.get_metadata`, and only
there, and only while there is a web client, is anything looked at. Who spoke is in `Payload.origin` (a
broadcast of somebody's metadata bears the origin of that somebody), and for metadata that were asked for
in `Broker.profile_of`.

The broker's lock, and the order in which things leave it.

Theory of operation
-------------------
An operation of the broker changes the broker's tables and hands things to others: deliveries to mailboxes,
responses to whoever waits for one. Those others may call the broker back at once (the hub's own mailbox
answers a ping on the spot; a full mailbox has its client thrown out), and an operation that is in the
middle of its tables must not be entered again.

So an operation is a *turn*. What it wants handed over it `posts`; the posts are made at the end of the
outermost turn, when the tables are consistent, in the order in which they were posted. A post that calls the
broker begins an inner turn, whose posts join the end of the same queue: there is no recursion however long
the chain. All this happens under one lock, so all recipients see events in the same order (R24).

The hub as a client among clients (R8): what it says of itself, and what it answers.
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
from .deliveries import CALL, NOTIFICATION, RESPONSE, Delivery, DeliveryQueue, EncodedMessage, Traffic
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

__all__ = ["HUB_METADATA", "HUB_SUBSCRIPTIONS", "Broker", "DeferredCalls", "HubClient"]

log = logging.getLogger(__name__)

class DeferredCalls:
    """A context manager: one operation at a time, its posts at the end."""

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

    def defer(self, receive: Callable[[Any], object], what: Any) -> None:
        """Call ``receive(what)`` at the end of the outermost turn. Only within a turn."""
        self._deferred.append((receive, what))

    def _run_deferred(self) -> None:
        posts = self._deferred
        while posts:
            receive, what = posts.popleft()
            try:
                receive(what)
            except Exception:  # one bad receiver must not cost the others their post
                log.exception("The hub could not hand over a message")


HUB_METADATA: dict[str, SAMPValue] = {
    "samp.name": "Hub",
    "samp.description.text": "The hub itself. It passes on the messages of all others.",
    "samp.documentation.url": "https://www.ivoa.net/documents/SAMP/",
    "author.name": "The developers of pyvo.samp",
}

PING = "samp.app.ping"
QUERY_BY_META = ("samp.query.by-meta", "x-samp.query.by-meta")

# A web page learns nothing from a query that it could not learn from getMetadata (R47)
HUB_SUBSCRIPTIONS: dict[str, Annotations] = {
    PING: {},
    **{mtype: {"x-samp.mostly-harmless": "1"} for mtype in QUERY_BY_META},
}


class HubClient:
    """
    Answers, on the spot, what is sent to the hub (R8, R27).

    Parameters
    ----------
    clients : iterable of Client
        Everybody who is registered.
    reply : callable
        Called with the msg-id and the response's payload.
    """

    def __init__(self, clients: Iterable[Client], reply: Callable[[str, EncodedMessage], None]) -> None:
        self._clients = clients
        self._reply = reply

    def put(self, delivery: Delivery) -> None:
        """Answer a call; notifications and responses tell the hub nothing."""
        if delivery.kind == CALL and delivery.tag is not None:
            self._reply(delivery.tag, EncodedMessage(self._answer(delivery.body)))

    def close(self, farewell: Delivery | None) -> None:
        """Nothing waits here."""

    def _answer(self, message: EncodedMessage) -> dict[str, SAMPValue]:
        if message.mtype not in QUERY_BY_META:
            return ok_response({})
        params = message.value["samp.params"]
        assert isinstance(params, dict)  # R16
        try:
            key, value = params["key"], params["value"]
        except KeyError as missing:
            return error_response(f"{message.mtype} needs the parameter {missing.args[0]!r}")
        if not isinstance(key, str):
            return error_response(f"The parameter 'key' of {message.mtype} is a string")
        return ok_response({"ids": [c.client_id for c in self._clients if c.metadata.get(key) == value]})


HUB = "hub"
RESERVED = "samp.hub."
DISCONNECT = "samp.hub.disconnect"


def _new_key() -> str:
    return secrets.token_hex(16)


class Broker:
    """
    Who is there, who wants what, which calls are open. Safe to use from any thread.

    Every method that a client's request leads to raises `SAMPProxyError` when the request is refused, or
    `SAMPValueError` when something in it is no MType: the fault to answer.

    Parameters
    ----------
    clock : callable
        Tells the time in seconds; only differences matter.
    new_key : callable
        Makes private keys and msg-ids: unguessable strings, never the same twice (R6, R7, R21).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, new_key: Callable[[], str] = _new_key) -> None:
        self._clock = clock
        self._new_key = new_key
        self._turn = DeferredCalls()
        self._roster = ClientRegistry()
        self._calls = CallTable()
        self._serial = count(1)
        self._closed = False
        #: When a client was last heard of, by the clock.
        self.last_active = clock()
        #: Told of each event, message and response, for a person who watches. It must not block.
        self.observer: Callable[[Traffic], object] | None = None
        self._hub = Client(HUB, new_key(), HUB)
        self._hub.mailbox = HubClient(self._roster, lambda msg_id, payload: self.reply(self._hub, msg_id, payload))
        self._hub.callable = True
        self._hub.metadata = HUB_METADATA
        self._roster.add(self._hub)
        self._roster.subscribe(self._hub, HUB_SUBSCRIPTIONS)

    @property
    def hub_id(self) -> str:
        """Public id of the hub itself (R8)."""
        return self._hub.client_id

    # Coming and going

    def register(self, profile: str, mailbox: DeliveryQueue | None = None, *, may_reach: SendFilter | None = None) -> Client:
        """
        Enter a new client (R6). It is not callable yet, see `set_callable`.

        Parameters
        ----------
        profile : str
            Name of the profile; the private key is good for that one only (R38).
        mailbox : Mailbox, optional
            Where its deliveries will go; can be given later.
        may_reach : callable, optional
            Restricts what it may send, see `Client`.
        """
        with self._turn:
            if self._closed:
                raise SAMPProxyError(1, "The hub is shutting down")
            client = Client(f"c{next(self._serial)}", self._new_key(), profile, may_reach)
            client.mailbox = mailbox
            client.last_active = self.last_active = self._clock()
            self._roster.add(client)
            self._broadcast_event("samp.hub.event.register", {"id": client.client_id}, client)
            return client

    def authenticate(self, profile: str, private_key: SAMPValue) -> Client:
        """Find whose private key this is, and note that it was heard of (R9)."""
        if not isinstance(private_key, str):
            raise SAMPProxyError(1, "The private key is a string")
        client = self._roster.by_key(profile, private_key)
        self.mark_active(client)
        return client

    def mark_active(self, client: Client) -> None:
        """Note that a client was heard of just now."""
        client.last_active = self.last_active = self._clock()

    def set_callable(self, client: Client, is_callable: bool = True, mailbox: DeliveryQueue | None = None) -> None:
        """Let a client take deliveries, or no longer (R13): then it loses its subscriptions."""
        with self._turn:
            self._check_active(client)
            if mailbox is not None:
                client.mailbox = mailbox
            client.callable = is_callable and client.mailbox is not None
            if not client.callable and client.subscriptions:
                self._subscribe(client, {})

    def unregister(self, client: Client, reason: str = "has unregistered") -> None:
        """
        Take a client out: its key dies, its calls end, the others are told (R10, R23).

        Nothing happens if it is out already. The reason, for those who wait for its responses, continues a sentence
        that begins with its name.
        """
        with self._turn:
            if client.is_active:
                self._unregister(client, reason, None)

    def disconnect(self, client: Client, reason: str) -> None:
        """Throw a client out, and tell it why if it listens to that (R26)."""
        with self._turn:
            if not client.is_active:
                return
            farewell = None
            if best_match(client.subscriptions, DISCONNECT) is not None:
                payload = EncodedMessage({"samp.mtype": DISCONNECT, "samp.params": {"reason": reason}})
                farewell = Delivery(NOTIFICATION, client.client_id, client.private_key, HUB, None, payload)
            self._unregister(client, f"was disconnected by the hub: {reason}", farewell)

    def announce_shutdown(self) -> None:
        """Tell everybody that the hub is about to stop, and let nobody in any more (R26)."""
        with self._turn:
            if not self._closed:
                self._closed = True
                self._broadcast_event("samp.hub.event.shutdown", {}, self._hub)

    def close(self) -> None:
        """End all open calls and all clients, without further events."""
        with self._turn:
            self._closed = True
            for call in list(self._calls):
                self._complete_call(call, no_response_payload("The hub is shutting down"))
            for client in self.clients():
                self._remove_client(client, "", None)

    # Who is there

    def client(self, client_id: str) -> Client:
        """Find a client by its public id."""
        with self._turn:
            return self._roster.by_id(client_id)

    def clients(self) -> list[Client]:
        """List everybody but the hub."""
        with self._turn:
            return [client for client in self._roster if client is not self._hub]

    def open_calls(self) -> set[str]:
        """Return the msg-ids of all calls that are not answered."""
        with self._turn:
            return {call.msg_id for call in self._calls}

    def profile_of(self, client_id: str) -> str:
        """Tell by which profile a client came; ``"hub"`` for the hub."""
        return self.client(client_id).profile

    def get_registered_clients(self, client: Client) -> list[SAMPValue]:
        """List the ids of all others, the hub's included (R14)."""
        with self._turn:
            return [other.client_id for other in self._roster if other is not client]

    # Metadata and subscriptions

    def declare_metadata(self, client: Client, metadata: dict[str, SAMPValue]) -> None:
        """Replace a client's metadata (R11)."""
        with self._turn:
            self._check_active(client)
            client.metadata = metadata
            params: dict[str, SAMPValue] = {"id": client.client_id, "metadata": metadata}
            self._broadcast_event("samp.hub.event.metadata", params, client)

    def get_metadata(self, client: Client, client_id: str) -> dict[str, SAMPValue]:
        """Look up somebody's metadata: empty if none were declared (R11)."""
        with self._turn:
            self._check_active(client)
            return self._roster.by_id(client_id).metadata

    def declare_subscriptions(self, client: Client, subscriptions: dict[str, SAMPValue]) -> None:
        """Replace a client's subscriptions (R12, R13)."""
        checked: dict[str, Annotations] = {}
        for pattern, value in subscriptions.items():
            check_pattern(pattern)
            if value and not isinstance(value, dict):
                raise SAMPProxyError(1, f"The annotations of a subscription are a map; those of {pattern} are not")
            checked[pattern] = value if isinstance(value, dict) else {}  # some write an empty map as ""
        with self._turn:
            self._check_active(client)
            if checked and not client.callable:
                raise SAMPProxyError(1, "A client that is not callable cannot subscribe to anything")
            self._subscribe(client, checked)

    def get_subscriptions(self, client: Client, client_id: str) -> dict[str, SAMPValue]:
        """Look up somebody's subscriptions."""
        with self._turn:
            self._check_active(client)
            return dict(self._roster.by_id(client_id).subscriptions)

    def get_subscribed_clients(self, client: Client, mtype: str) -> dict[str, SAMPValue]:
        """Map the id of each other client that would receive an MType to its annotations (R14)."""
        check_pattern(mtype)  # some ask for "table.*", and are told who wants all of that
        with self._turn:
            self._check_active(client)
            audience = self._roster.subscribers(mtype, client)
            return {other.client_id: other.subscriptions[pattern] for other, pattern in audience.items()}

    # Messages

    def notify(self, sender: Client, recipient_id: str, message: EncodedMessage) -> None:
        """Send a notification to one client (R18, R19)."""
        with self._turn:
            mtype = self._check_send(sender, message)
            recipient = self._roster.check_recipient(sender, recipient_id, mtype)
            recipient.received += 1
            self._deliver(NOTIFICATION, recipient, sender.client_id, None, message)
            self._notify_observer(NOTIFICATION, sender.client_id, (recipient_id,), (), message)

    def notify_all(self, sender: Client, message: EncodedMessage) -> list[SAMPValue]:
        """Send a notification to all who want it; answers their ids (R18)."""
        with self._turn:
            mtype = self._check_send(sender, message)
            audience = self._roster.subscribers(mtype, sender)
            sender_id = sender.client_id
            for recipient in audience:
                recipient.received += 1
                self._deliver(NOTIFICATION, recipient, sender_id, None, message)
            ids = [recipient.client_id for recipient in audience]
            if ids:
                self._notify_observer(NOTIFICATION, sender_id, tuple(ids), (), message)
            return [*ids]

    def call(self, sender: Client, recipient_id: str, tag: str, message: EncodedMessage) -> str:
        """Send a message that is answered by a delivery with this tag; answers the msg-id (R18, R20)."""
        with self._turn:
            mtype = self._check_send(sender, message)
            self._check_callable(sender)
            recipient = self._roster.check_recipient(sender, recipient_id, mtype)
            self._calls.check_limit(sender, 1)
            call = self._open_call(sender, recipient, tag, None, message)
            self._notify_observer(CALL, sender.client_id, (recipient_id,), (call.msg_id,), message)
            return call.msg_id

    def call_all(self, sender: Client, tag: str, message: EncodedMessage) -> dict[str, SAMPValue]:
        """Call everybody who wants the message; answers each one's msg-id (R18, R20, R21)."""
        with self._turn:
            mtype = self._check_send(sender, message)
            self._check_callable(sender)
            audience = self._roster.subscribers(mtype, sender)
            self._calls.check_limit(sender, len(audience))
            msg_ids = {
                recipient.client_id: self._open_call(sender, recipient, tag, None, message).msg_id
                for recipient in audience
            }
            if msg_ids:
                self._notify_observer(CALL, sender.client_id, tuple(msg_ids), tuple(msg_ids.values()), message)
            return {**msg_ids}

    def call_and_wait(
        self, sender: Client, recipient_id: str, message: EncodedMessage, on_response: OnResponse
    ) -> PendingCall:
        """
        Call, and have the response handed to a function (R18, R22, R23).

        Parameters
        ----------
        sender : Client
            Who calls; need not be callable.
        recipient_id : str
            Whom.
        message : Payload
            The message.
        on_response : callable
            Called once with the response's payload, unless the call is cancelled first: possibly before this method
            returns, possibly in another thread, and with the broker's lock held, so that it must not block.
        """
        with self._turn:
            mtype = self._check_send(sender, message)
            recipient = self._roster.check_recipient(sender, recipient_id, mtype)
            self._calls.check_limit(sender, 1)
            call = self._open_call(sender, recipient, None, on_response, message)
            self._notify_observer(CALL, sender.client_id, (recipient_id,), (call.msg_id,), message)
            return call

    def reply(self, client: Client, msg_id: str, response: EncodedMessage) -> None:
        """Answer a call (R18); refused unless this client owes the answer (R21)."""
        with self._turn:
            call = self._calls.find(msg_id, client.client_id)
            if call is None:
                raise SAMPProxyError(1, "No call with this msg-id waits for a reply of this client")
            self._complete_call(call, response)

    def delivery_failed(self, delivery: Delivery, reason: str) -> None:
        """
        Take note that a mailbox could not make a delivery: if it was a call, the caller is told (R23).

        Parameters
        ----------
        delivery : Delivery
            Which.
        reason : str
            Why, in words for the caller.
        """
        if delivery.kind == CALL and delivery.tag is not None:
            with self._turn:
                call = self._calls.find(delivery.tag, delivery.recipient_id)
                if call is not None:
                    self._complete_call(call, no_response_payload(reason))

    # What the operations are made of; all within a turn

    @staticmethod
    def _check_active(client: Client) -> None:
        if not client.is_active:  # it went between `authenticate` and now
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
        if recipient.mailbox is not None and recipient.callable:
            delivery = Delivery(kind, recipient.client_id, recipient.private_key, sender_id, tag, body)
            self._turn.defer(recipient.mailbox.put, delivery)

    def _broadcast_event(self, mtype: str, params: dict[str, SAMPValue], subject: Client) -> None:
        """Broadcast an event (R26), to its subject as well (R15)."""
        audience = self._roster.subscribers(mtype)
        payload = EncodedMessage({"samp.mtype": mtype, "samp.params": params}, origin=subject.profile)
        self._notify_observer(NOTIFICATION, HUB, (), (), payload)
        for recipient in audience:
            self._deliver(NOTIFICATION, recipient, HUB, None, payload)

    def _subscribe(self, client: Client, subscriptions: dict[str, Annotations]) -> None:
        self._roster.subscribe(client, subscriptions)
        params: dict[str, SAMPValue] = {"id": client.client_id, "subscriptions": dict(subscriptions)}
        self._broadcast_event("samp.hub.event.subscriptions", params, client)

    def _open_call(
        self, sender: Client, recipient: Client, tag: str | None, on_response: OnResponse | None, message: EncodedMessage
    ) -> PendingCall:
        call = PendingCall(self._new_key(), sender, recipient, tag, on_response, self._forget)
        self._calls.add(call)
        recipient.received += 1
        self._deliver(CALL, recipient, sender.client_id, call.msg_id, message)
        return call

    def _forget(self, call: PendingCall) -> bool:
        with self._turn:
            was_open = self._calls.remove(call)
            if was_open:
                self._tell_of_response(call, no_response_payload("The caller does not wait for the response any longer"))
            return was_open

    def _notify_observer(
        self, kind: str, sender_id: str, recipient_ids: Sequence[str], msg_ids: Sequence[str], body: EncodedMessage
    ) -> None:
        if self.observer is not None:
            self._turn.defer(self.observer, Traffic(kind, sender_id, recipient_ids, msg_ids, body))

    def _tell_of_response(self, call: PendingCall, response: EncodedMessage) -> None:
        self._notify_observer(RESPONSE, call.recipient.client_id, (call.sender.client_id,), (call.msg_id,), response)

    def _complete_call(self, call: PendingCall, response: EncodedMessage) -> None:
        self._calls.remove(call)
        self._tell_of_response(call, response)
        if call.on_response is not None:
            self._turn.defer(call.on_response, response)
        else:
            self._deliver(RESPONSE, call.sender, call.recipient.client_id, call.tag, response)

    def _unregister(self, client: Client, reason: str, farewell: Delivery | None) -> None:
        self._remove_client(client, reason, farewell)
        self._broadcast_event("samp.hub.event.unregister", {"id": client.client_id}, client)

    def _remove_client(self, client: Client, reason: str, farewell: Delivery | None) -> None:
        client.is_active = False
        self._roster.remove(client)
        client.callable = False
        if client.mailbox is not None:
            self._turn.defer(client.mailbox.close, farewell)
        for call in list(client.pending_received.values()):
            self._complete_call(call, no_response_payload(f"{client.display_name} {reason}"))
        for call in list(client.pending_sent.values()):
            # nobody takes the response any more, except a request that still waits on another connection
            self._complete_call(call, no_response_payload("The caller is no longer registered with the hub"))
