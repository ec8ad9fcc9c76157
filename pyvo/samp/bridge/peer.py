# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
One peer of a bridge: its clients, which are registered at this hub, and their messages.

Theory of operation
-------------------
Each client of the peer has a registration at this hub, a *proxy*. A message that the hub delivers to a proxy is sent to
the peer as NOTIFY or CALL from the sender to that client, and the peer sends it from the sender's proxy at its hub. A
broadcast is not broadcast again, because the hub delivers it to each proxy. Its body is sent once, as BODY; NOTIFY and
CALL refer to it by its hash. Both ends keep the last bodies in the same order, so each knows which ones the other end
still has.

The outbound thread of the bridge sends the deliveries. The inbound thread of the peer handles the frames that arrive.
The order is preserved in both directions (R24). Both threads may block while they wait for the hub.

A call of this hub stays open in `_calls_out` until the peer replies, once; a call of the peer in `_calls_in` until its
recipient here does. When the link ends, all calls of this hub get an error as response.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from ..errors import SAMPError, SAMPValueError
from ..protocol import SAMPValue, check_message, check_response, error_response
from ..protocol.messages import check_pattern
from ..protocol.values import sanitize_for_display
from ..transport.server_connection import DeferredResponse
from .file_gateway import FileGateway
from .hub_side import Delivery, HubSide, Registration, encoded, quietly
from .link import MAX_MESSAGE, Kind, Link, Upload, encode_json, parse_json
from .local_clients import MARKS, ORIGIN, LocalClient, LocalClients, Worker
from .offers import Offers, RejectedError
from .policy import Policy, restrict

log = logging.getLogger(__name__)

#: Maximum number of clients of one peer.
MAX_CLIENTS = 200
#: Maximum size in bytes of the metadata, and of the subscriptions, of one client, as JSON.
MAX_METADATA = 64 * 1024
#: Bytes of the same as XML.
MAX_XML = 10 * MAX_METADATA
#: Messages per second of one peer. Further ones are delayed.
MAX_RATE = 1000
#: Open calls of one peer, and to it.
MAX_CALLS = 10_000
#: Bytes of the bodies that both ends keep.
CACHE_SIZE = 16 * 1024 * 1024
MAX_ID = 200
_BASIC_METADATA = ("samp.name", "samp.description.text")
#: Bytes of deliveries that wait for the outbound thread; those that it has sent wait in the link.
MAX_OUTBOUND = 1024 * 1024
#: Seconds that an event of the hub may arrive later than a message.
EVENT_DELAY = 0.2


class RemoteClient(NamedTuple):
    """
    A client of another hub, which is registered at this one.

    Parameters
    ----------
    client_id : str
        Its id at its own hub.
    name : str
        Its name there, sanitized for display.
    peer : str
        The displayed name of its hub or machine.
    local_id : str
        Its id at this hub.
    """

    client_id: str
    name: str
    peer: str
    local_id: str


class Context(NamedTuple):
    """The objects and callbacks that the peers of a bridge share."""

    hub: HubSide
    clients: LocalClients
    offers: Offers
    files: FileGateway
    policy: Policy
    outbound: Worker
    #: Called with a client of a peer, and whether it is registered.
    report_client: Callable[[RemoteClient, bool], object]
    #: Called when the link of a peer has ended and its clients are unregistered.
    on_closed: Callable[[Peer, str], object]


class Proxy:
    """The registration of a client of the peer at this hub."""

    def __init__(self, peer: Peer, client_id: str) -> None:
        self.peer = peer
        self.client_id = client_id
        self.name = ""
        self.metadata: dict[str, Any] = {}
        self.subscriptions: dict[str, Any] = {}
        self.registration: Registration | None = None

    def receive(self, delivery: Delivery) -> DeferredResponse | None:
        """Queue a delivery of the hub for the peer; see `Receiver`."""
        if delivery.body.get("samp.mtype", "").startswith("samp.hub."):
            return None
        return self.peer.queue_delivery(self, delivery)

    def remote_client(self) -> RemoteClient:
        """Return a description for the user."""
        local_id = self.registration.client_id if self.registration is not None else ""
        return RemoteClient(self.client_id, self.name, self.peer.label, local_id)


class _Body(NamedTuple):
    """A message that has arrived, encoded for the hub, or the reason for its rejection."""

    mtype: str
    message: dict[str, Any]
    written: Any
    error: str


class Cache:
    """The last bodies. Both ends of a link add the same bodies in the same order."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, tuple[int, Any]] = OrderedDict()
        self._size = 0

    def get(self, key: str) -> Any:
        """Return a body, or None."""
        return self._bodies[key][1] if key in self._bodies else None

    def add(self, key: str, size: int, body: Any) -> None:
        """Add a body, and remove the oldest ones beyond the limit; the newest is always kept."""
        self._size += size - self._bodies.pop(key, (0, None))[0]
        self._bodies[key] = size, body
        while self._size > CACHE_SIZE and len(self._bodies) > 1:
            self._size -= self._bodies.popitem(last=False)[1][0]


class _Rate:
    """Limits the rate of messages by delays."""

    def __init__(self, rate: int, stopped: threading.Event) -> None:
        self._rate, self._stopped = rate, stopped
        self._due = 0.0

    def wait(self) -> None:
        now = time.monotonic()
        self._due = max(self._due, now - 1.0) + 1.0 / self._rate
        if self._due > now:
            self._stopped.wait(self._due - now)


class Peer:
    """
    The engine's side of one link; see `LinkHandler`.

    Parameters
    ----------
    link : Link
        The link.
    context : Context
        The objects shared with other peers.
    session : str
        The `Hello.session` that this end has sent.
    """

    def __init__(self, link: Link, context: Context, session: str) -> None:
        self.link = link
        self.hub_id = link.peer.hub
        self.label = sanitize_for_display(link.label, 60) or "another machine"
        #: The same at both ends.
        self.session = min(link.peer.session, session)
        self.proxies: dict[str, Proxy] = {}
        self._context = context
        self._hub = context.hub
        self._lock = threading.RLock()
        self._inbound = Worker("samp-bridge-inbound")
        self._stopped = threading.Event()
        self._rate = _Rate(MAX_RATE, self._stopped)
        # Metadata and subscriptions that were sent, by the id of the client of this hub
        self._announced: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._sent, self._received = Cache(), Cache()
        self._call_ids = count(1)
        self._calls_out: dict[str, tuple[Proxy, str]] = {}  # by number: the proxy that was called, and the msg-id
        self._calls_in: dict[str, tuple[str, str]] = {}  # by msg-tag: number, recipient
        self._tag = secrets.token_hex(4)
        self._queued = 0  # bytes of deliveries that the outbound thread has not sent
        self._held: list[DeferredResponse] = []
        context.offers.add_peer(self.hub_id)

    # Clients of this hub, in the outbound thread

    def announce(self, client: LocalClient) -> None:
        """Announce a client, or its changed declarations, to the peer."""
        known = self._announced.get(client.client_id)
        metadata = self._describe(client, "metadata", client.metadata)
        wanted = restrict(client.subscriptions, self._context.policy.incoming)
        subscriptions = self._describe(client, "subscriptions", wanted)
        self._announced[client.client_id] = metadata, subscriptions
        if known is None:
            offers = {**metadata["offers"], **subscriptions["offers"]}
            self.link.send(Kind.CLIENT, encode_json({**metadata, **subscriptions, "offers": offers}))
            return
        if metadata != known[0]:
            self.link.send(Kind.META, encode_json(metadata))
        if subscriptions != known[1]:
            self.link.send(Kind.SUBS, encode_json(subscriptions))

    def _describe(self, client: LocalClient, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Return metadata or subscriptions of a client, without the parts that may not or cannot cross the bridge."""
        try:
            exported, offers = self._context.offers.export(value, self.hub_id)
        except RejectedError:  # files may not pass: the icon is left out
            exported, offers = {key: value[key] for key in _BASIC_METADATA if key in value}, {}
        if len(encode_json(exported)) > MAX_METADATA or len(encode_json(offers)) > MAX_METADATA:
            log.info("The %s of %s are too long for the bridge", name, sanitize_for_display(client.client_id))
            exported, offers = {"samp.name": str(value["samp.name"])[:100]} if "samp.name" in value else {}, {}
        return {"id": client.client_id, name: exported, "offers": offers}

    def withdraw(self, client_id: str) -> None:
        """Notify the peer that a client has unregistered, and respond to its open calls."""
        if self._announced.pop(client_id, None) is None:
            return
        with self._lock:
            lost = [tag for tag, (_, recipient) in self._calls_in.items() if recipient == client_id]
        for tag in lost:  # hubs other than ours may not respond for it (R23)
            self._send_reply(tag, error_response("The client has unregistered"))
        self.link.send(Kind.GONE, encode_json({"id": client_id}))

    # Deliveries of this hub

    def queue_delivery(self, proxy: Proxy, delivery: Delivery) -> DeferredResponse | None:
        """Queue a delivery; in the loop's thread. Its acknowledgement is deferred while the queue is too long."""
        with self._lock:
            self._queued += delivery.size
        self._context.outbound.put(lambda: self._send_queued(proxy, delivery))
        with self._lock:
            if self._stopped.is_set() or (self._queued < MAX_OUTBOUND and self.link.is_writable):
                return None
            deferred = DeferredResponse()
            self._held.append(deferred)
        self.on_writable()  # the queue may have become shorter in the meantime
        return deferred

    def on_writable(self) -> None:
        """Send the deferred acknowledgements; see `LinkHandler`."""
        with self._lock:
            if not self._stopped.is_set() and not (self._queued < MAX_OUTBOUND and self.link.is_writable):
                return
            held, self._held = self._held, []
        for deferred in held:
            self._hub.loop.call_soon(deferred.set_result, "")

    def _send_queued(self, proxy: Proxy, delivery: Delivery, attempts: int = 5) -> None:
        try:
            if delivery.name == "response":
                self._send_reply(delivery.msg_id, delivery.body)
            elif not self._send_message(proxy, delivery):
                if not attempts:
                    raise RejectedError("The sender unregistered before the bridge could announce it")
                again = partial(self._send_queued, proxy, delivery, attempts - 1)
                with self._lock:
                    self._queued += delivery.size
                self._hub.loop.call_later(EVENT_DELAY, self._context.outbound.put, again)
        except (RejectedError, SAMPValueError) as error:
            self._reject(proxy, delivery, str(error))
        finally:
            with self._lock:
                self._queued -= delivery.size
            self.on_writable()

    def _send_message(self, proxy: Proxy, delivery: Delivery) -> bool:
        """Send a message; return False if the sender is not known yet."""
        mtype = delivery.body["samp.mtype"]
        if self._stopped.is_set():
            raise RejectedError(f"The bridge to {self.label} was lost")
        if not self._context.policy.may_go_out(mtype):
            raise RejectedError(f"The bridge does not allow {mtype} to go out; --allow-out does")
        sender = self._context.clients.resolve_sender(delivery.sender)
        if sender is None:
            return False
        if sender.client_id not in self._announced:
            self.announce(sender)
        message, offers = self._context.offers.export(delivery.body, self.hub_id)
        payload = encode_json({"message": message, "offers": offers})
        if len(payload) > MAX_MESSAGE:
            raise RejectedError(f"The message is longer than {MAX_MESSAGE} bytes")
        key = hashlib.sha256(payload).hexdigest()
        if self._sent.get(key) is None:
            self._sent.add(key, len(payload), True)
            self.link.send(Kind.BODY, payload)
        envelope = {"from": sender.client_id, "to": proxy.client_id, "body": key}
        if delivery.name == "notification":
            self.link.send(Kind.NOTIFY, encode_json(envelope))
            return True
        call = str(next(self._call_ids))
        with self._lock:
            if len(self._calls_out) >= MAX_CALLS:
                raise RejectedError("Too many calls are open over the bridge")
            self._calls_out[call] = proxy, delivery.msg_id
        self.link.send(Kind.CALL, encode_json({**envelope, "call": call}))
        if self._stopped.is_set():  # the link has ended at this moment
            self._fail_calls("")
        return True

    def _send_reply(self, tag: str, response: Mapping[str, Any]) -> None:
        with self._lock:
            call, _recipient = self._calls_in.pop(tag, ("", ""))
        if not call:
            return
        try:
            value, offers = self._context.offers.export(dict(response), self.hub_id)
            payload = encode_json({"call": call, "response": value, "offers": offers})
            if len(payload) > MAX_MESSAGE:
                raise RejectedError(f"The response is longer than {MAX_MESSAGE} bytes")
        except RejectedError as error:
            payload = encode_json({"call": call, "response": error_response(str(error)), "offers": {}})
        self.link.send(Kind.REPLY, payload)

    def _reject(self, proxy: Proxy, delivery: Delivery, text: str) -> None:
        """Respond with an error to a call that does not cross the bridge."""
        mtype = sanitize_for_display(delivery.body.get("samp.mtype", delivery.name))
        log.info("A %s was not sent to %s: %s", mtype, self.label, sanitize_for_display(text, 200))
        if delivery.name == "call":
            response = error_response(f"The bridge did not pass the message on: {text}")
            self._reply_here(proxy, delivery.msg_id, response)

    def _reply_here(self, proxy: Proxy, msg_id: str, response: Any) -> None:
        if proxy.registration is None:
            return
        key = proxy.registration.key
        error = quietly(self._hub.hub.reply, key, msg_id, encoded(response))
        # JSAMP's hub rejects what is not ASCII: without a reply the caller would wait forever
        if error is not None and response["samp.status"] != "samp.error":
            quietly(self._hub.hub.reply, key, msg_id, error_response("The hub has rejected the response"))

    # What arrives

    def receive(self, kind: Kind, payload: bytes, done: Callable[[], object]) -> None:
        """Queue a frame for the inbound thread; see `LinkHandler`."""
        self._inbound.put(lambda: self._handle(kind, payload, done))

    def serve(self, offer: str, method: str, headers: dict[str, str], upload: Upload) -> None:
        """Send an offer; see `LinkHandler`."""
        self._context.files.serve(self.hub_id, offer, method, headers, upload)

    def on_closed(self, reason: str) -> None:
        """Remove everything that belongs to the peer; see `LinkHandler`."""
        self._stopped.set()  # the queued frames are skipped
        self.on_writable()
        self._inbound.put(lambda: self._close(reason))

    def _handle(self, kind: Kind, payload: bytes, done: Callable[[], object]) -> None:
        if self._stopped.is_set():
            return
        try:
            if kind is Kind.BODY:
                self._receive_body(payload)
            else:
                self._rate.wait()
                self._HANDLERS[kind](self, parse_json(payload))
        except SAMPValueError as error:
            log.warning("The bridge to %s is closed: a %s from that end is invalid: %s", self.label, kind.name, error)
            self.link.close(f"a {kind.name} is invalid: {error}")
        except SAMPError as error:
            log.info("A %s from %s was rejected: %s", kind.name, self.label, sanitize_for_display(str(error), 200))
        finally:
            done()

    def _receive_client(self, value: dict[str, Any]) -> None:
        client_id = _text(value, "id")
        proxy = self.proxies.get(client_id)
        if proxy is None:
            if len(self.proxies) >= MAX_CLIENTS:
                raise RejectedError(f"The other end has more than {MAX_CLIENTS} clients")
            proxy = Proxy(self, client_id)
        self._read_metadata(proxy, value)
        self._read_subscriptions(proxy, value)
        self._declare(proxy)
        with self._lock:
            is_new = self.proxies.setdefault(client_id, proxy) is proxy
        if is_new:
            self._context.report_client(proxy.remote_client(), True)

    def _receive_metadata(self, value: dict[str, Any]) -> None:
        proxy = self._proxy(value, "id")
        name = proxy.name
        self._read_metadata(proxy, value)
        self._declare(proxy)
        if proxy.name != name:
            self._context.report_client(proxy.remote_client(), True)

    def _receive_subscriptions(self, value: dict[str, Any]) -> None:
        proxy = self._proxy(value, "id")
        self._read_subscriptions(proxy, value)
        self._declare(proxy)

    def _declare(self, proxy: Proxy) -> None:
        """Register a proxy, or declare its changed metadata and subscriptions."""
        try:
            self._declare_as_it_is(proxy)
        except SAMPError as error:  # JSAMP's hub rejects what is not ASCII
            log.debug("The metadata of a client were not accepted: %s", error)
            proxy.metadata = {key: to_ascii(proxy.metadata[key]) for key in ("samp.name", *MARKS)}
            proxy.subscriptions = {pattern: {} for pattern in proxy.subscriptions if pattern.isascii()}
            self._declare_as_it_is(proxy)

    def _declare_as_it_is(self, proxy: Proxy) -> None:
        if proxy.registration is None:
            proxy.registration = self._hub.register(proxy.metadata, proxy.subscriptions, proxy)
        else:
            self._hub.declare(proxy.registration, proxy.metadata, proxy.subscriptions)

    def _receive_gone(self, value: dict[str, Any]) -> None:
        self._remove_proxy(self._proxy(value, "id"))

    def _read_metadata(self, proxy: Proxy, value: dict[str, Any]) -> None:
        given = _map(value, "metadata")
        offers = value.get("offers", {})
        metadata: dict[str, Any] = {}
        for key, item in given.items():
            try:
                metadata[key] = self._context.offers.import_(item, offers, self.hub_id)
            except RejectedError as error:
                log.debug("Metadata %s of a client: %s", sanitize_for_display(key), error)
        name = metadata.get("samp.name")
        proxy.name = sanitize_for_display(name, 60) if isinstance(name, str) else ""
        proxy.name = proxy.name or f"client {sanitize_for_display(proxy.client_id, 20)}"
        metadata["samp.name"] = f"{proxy.name} (via {self.label})"
        if isinstance(text := metadata.get("samp.description.text"), str):
            metadata["samp.description.text"] = sanitize_for_display(text, 500)
        metadata.pop("samp.description.html", None)  # programs may show it as HTML
        metadata[MARKS[0]] = self.label
        metadata[ORIGIN] = f"{self.hub_id}/{proxy.client_id}"
        proxy.metadata = metadata

    def _read_subscriptions(self, proxy: Proxy, value: dict[str, Any]) -> None:
        given = _map(value, "subscriptions")
        for pattern, notes in given.items():
            check_pattern(pattern)
            if not isinstance(notes, dict):
                raise SAMPValueError("the annotations of a subscription are not a map")
        try:
            notes_of: Any = self._context.offers.import_(given, value.get("offers", {}), self.hub_id)
        except RejectedError as error:
            log.debug("The annotations of subscriptions are dropped: %s", error)
            notes_of = {pattern: {} for pattern in given}
        proxy.subscriptions = restrict(notes_of, self._context.policy.outgoing)

    def _receive_body(self, payload: bytes) -> None:
        value = parse_json(payload)
        try:
            message = check_message(value.get("message"))
            encoded(message)  # raises an error unless it is a SAMP value
            mtype = str(message["samp.mtype"])
            imported: Any = self._context.offers.import_(message, value.get("offers"), self.hub_id)
            body = _Body(mtype, imported if mtype.startswith("image.") else {}, encoded(imported), "")
        except SAMPError as error:
            body = _Body("", {}, b"", str(error))
        self._received.add(hashlib.sha256(payload).hexdigest(), len(payload), body)

    def _receive_notification(self, value: dict[str, Any]) -> None:
        sender, recipient, body = self._envelope(value)
        assert sender.registration is not None
        key = sender.registration.key
        self._deliver(recipient, body, lambda written: self._hub.hub.notify(key, recipient.client_id, written))

    def _receive_call(self, value: dict[str, Any]) -> None:
        call, recipient_id = _text(value, "call"), _text(value, "to")
        tag = f"samp-bridge-{self._tag}-{next(self._call_ids)}"
        with self._lock:
            if len(self._calls_in) >= MAX_CALLS:
                raise RejectedError("Too many calls are open")
            self._calls_in[tag] = call, recipient_id
        try:
            sender, recipient, body = self._envelope(value)
            assert sender.registration is not None
            key = sender.registration.key
            self._deliver(recipient, body, lambda written: self._call(tag, key, recipient_id, written))
        except SAMPError as error:
            self._send_reply(tag, error_response(str(error)))
            raise

    def _call(self, tag: str, key: str, recipient_id: str, written: Any) -> None:
        try:
            self._hub.hub.call(key, recipient_id, tag, written)
        except SAMPError as error:
            self._send_reply(tag, error_response(str(error)))

    def _deliver(self, recipient: LocalClient, body: _Body, send: Callable[[Any], object]) -> None:
        """Send a message to a client of this hub, after its files have been copied if the client needs that."""
        name = str(recipient.metadata.get("samp.name", ""))
        if not self._context.files.copy_for(name, body.message, lambda message: quietly(send, encoded(message))):
            send(body.written)

    def _envelope(self, value: dict[str, Any]) -> tuple[Proxy, LocalClient, _Body]:
        body = self._received.get(_text(value, "body"))
        if body is None:
            raise RejectedError("The body of the message has not arrived")
        if body.error:
            raise RejectedError(f"The message was rejected: {body.error}")
        sender = self._proxy(value, "from")
        if not self._context.policy.may_come_in(body.mtype):
            raise RejectedError(f"The bridge does not allow {body.mtype} to come in; the recipient's --allow-in does")
        recipient = self._context.clients.get(_text(value, "to"))
        if recipient is None:
            raise RejectedError("There is no such client, or it has unregistered")
        return sender, recipient, body

    def _receive_reply(self, value: dict[str, Any]) -> None:
        with self._lock:
            proxy, msg_id = self._calls_out.pop(_text(value, "call"), (None, ""))
        if proxy is None:
            raise RejectedError("It is not the first reply to an open call")
        try:
            response = check_response(value.get("response"))
            encoded(response)
            imported: Any = self._context.offers.import_(response, value.get("offers"), self.hub_id, shown=True)
        except SAMPError as error:
            log.info("A response from %s was rejected: %s", self.label, sanitize_for_display(str(error), 200))
            imported = error_response(f"The bridge has rejected the response: {error}")
        self._reply_here(proxy, msg_id, imported)

    def _proxy(self, value: dict[str, Any], key: str) -> Proxy:
        proxy = self.proxies.get(_text(value, key))
        if proxy is None or proxy.registration is None:
            raise RejectedError("It names an unknown client")
        return proxy

    _HANDLERS: Mapping[Kind, Callable[[Peer, dict[str, Any]], None]] = {
        Kind.CLIENT: _receive_client,
        Kind.META: _receive_metadata,
        Kind.SUBS: _receive_subscriptions,
        Kind.GONE: _receive_gone,
        Kind.NOTIFY: _receive_notification,
        Kind.CALL: _receive_call,
        Kind.REPLY: _receive_reply,
    }

    # The end

    def on_unregistered(self, local_id: str) -> None:
        """Remove a proxy that the hub or the user has disconnected; the next link registers it again."""
        for proxy in list(self.proxies.values()):
            if proxy.registration is not None and proxy.registration.client_id == local_id:
                self._inbound.put(lambda proxy=proxy: self._remove_proxy(proxy))  # type: ignore[misc]

    def _remove_proxy(self, proxy: Proxy) -> None:
        with self._lock:
            if self.proxies.pop(proxy.client_id, None) is None:
                return
        if proxy.registration is not None:
            self._hub.unregister(proxy.registration)
        self._context.report_client(proxy.remote_client(), False)

    def _fail_calls(self, reason: str) -> None:
        with self._lock:
            calls, self._calls_out = self._calls_out, {}
            self._calls_in.clear()
        text = f"the bridge to {self.label} was lost"
        for proxy, msg_id in calls.values():
            self._reply_here(proxy, msg_id, error_response(text, debugtxt=reason or None))

    def _close(self, reason: str) -> None:
        self._fail_calls(reason)
        for proxy in list(self.proxies.values()):
            self._remove_proxy(proxy)
        self._context.offers.remove_peer(self.hub_id)
        self._context.on_closed(self, reason)
        self._inbound.stop(0)


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not 0 < len(text) <= MAX_ID or not text.isascii():
        raise SAMPValueError(f"{key} is not a short text")
    return text


def _map(value: Mapping[str, Any], key: str) -> dict[str, SAMPValue]:
    item = value.get(key)
    if not isinstance(item, dict) or len(encoded(item)) > MAX_XML or len(encode_json(item)) > MAX_METADATA:
        raise SAMPValueError(f"{key} is not a map, or longer than {MAX_METADATA} bytes")
    return item


def to_ascii(value: Any) -> str:
    """Return a text in which ``?`` replaces all characters that are not ASCII: JSAMP's hub rejects them."""
    return str(value).encode("ascii", "replace").decode()
