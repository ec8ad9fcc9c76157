# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How callbacks of the hub reach a client: they are received, queued, and handled in order.

Theory of operation
-------------------
In the Standard Profile the hub calls a server of the client (`CallbackServer`, R32). In the Web Profile a thread of the
client pulls callbacks from the hub (`CallbackPuller`, R42). Both check what they receive and put it in the client's
`MessageQueue`, which takes no time, so that the hub never waits for a handler.

Worker threads take messages from the queue in the order of arrival, one after the other, unless a handler takes longer
than the grace time or waits for a call of its own (R24).

All of this refers to the client weakly, so that a client that its program has forgotten can be collected.
"""

from __future__ import annotations

import hmac
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import SAMPError, SAMPProxyError
from ..ordered_dispatcher import OrderedDispatcher
from ..protocol import check_message, check_response, error_response
from ..transport.event_loop import EventLoop
from ..transport.server import XMLRPCServer
from ..transport.urls import host_filter, make_http_url, split_http_url
from ..transport.xmlrpc_handler import XMLRPCHandler
from .handlers import handler_slot
from .hub_connection import HubConnection, Request
from .receiving import MessageReceiver
from .web_hub_proxy import SAMPWebHubProxy

log = logging.getLogger(__name__)

#: Bytes of messages that may wait for their handlers.
MAX_WAITING = 256 * 1024 * 1024
#: Seconds after which the hub responds to a pull even if there are no callbacks.
PULL_TIMEOUT = 60
#: Seconds before the next pull if the last one failed or returned nothing at once.
PULL_PAUSE = 0.5

#: The methods of a client that handle the callbacks, and the check of their last parameter.
_CALLBACKS: dict[str, tuple[str, Callable[[object], dict[str, Any]]]] = {
    "receiveNotification": ("receive_notification", check_message),
    "receiveCall": ("receive_call", check_message),
    "receiveResponse": ("receive_response", check_response),
}


class _QueuedCall(NamedTuple):
    """A call of a method of the client, and its size in bytes."""

    method: str
    params: tuple[Any, ...]
    size: int


class MessageQueue:
    """The messages and responses that a client has received and not handled yet."""

    def __init__(self, loop: EventLoop, client: MessageReceiver) -> None:
        self.client = weakref.ref(client)
        self._loop = loop
        self._waiting = 0  # bytes
        self._lock = threading.Lock()
        self._dispatcher: OrderedDispatcher[_QueuedCall] = OrderedDispatcher(self._start, loop.call_later)

    def put(self, callback: str, *params: Any, size: int) -> None:
        """
        Check the parameters of a callback, and queue the call of the client's method for it.

        Raises
        ------
        SAMPValueError
            The message is not valid (R16), or the response is not (R17).
        SAMPProxyError
            The queue is full; the hub passes this error to the sender (R23).
        """
        *others, body = params
        method, check = _CALLBACKS[callback]
        call = _QueuedCall(method, (*others, check(body)), size)
        client = self.client()
        if client is None:
            return
        client.handle_hub_control(method, call.params)
        with self._lock:
            if self._waiting + size > MAX_WAITING:
                raise SAMPProxyError(1, "The client does not handle its messages fast enough: its queue is full")
            self._waiting += size
        self._dispatcher.put(call)

    def close(self) -> None:
        """Drop all messages whose handlers have not started."""
        self._dispatcher.close()

    def _start(self, call: _QueuedCall, done: Callable[[], None]) -> None:
        with self._lock:
            self._waiting -= call.size
        self._loop.run_in_worker(self._run, call, done)

    def _run(self, call: _QueuedCall, done: Callable[[], None]) -> None:
        with handler_slot(done):
            client = self.client()
            if client is None:
                return
            try:
                getattr(client, call.method)(*call.params)
            except Exception:
                log.exception("%s failed", call.method)


class _CallbackHandler(XMLRPCHandler):
    """The operations that a hub calls."""

    def __init__(self, messages: MessageQueue, address: str) -> None:
        super().__init__(
            {
                "samp.client.receiveNotification": self.receive_notification,
                "samp.client.receiveCall": self.receive_call,
                "samp.client.receiveResponse": self.receive_response,
            }
        )
        self._messages = messages
        self.is_allowed_host = host_filter(address)

    def receive_notification(self, private_key: str, sender_id: str, message: dict[str, Any]) -> str:
        self._enqueue("receiveNotification", private_key, sender_id, message)
        return ""

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: dict[str, Any]) -> str:
        self._enqueue("receiveCall", private_key, sender_id, msg_id, message)
        return ""

    def receive_response(self, private_key: str, responder_id: str, msg_tag: str, response: dict[str, Any]) -> str:
        self._enqueue("receiveResponse", private_key, responder_id, msg_tag, response)
        return ""

    def _enqueue(self, callback: str, private_key: str, *params: Any) -> None:
        client = self._messages.client()
        own = client.get_private_key() if client is not None else None
        if own is None or not hmac.compare_digest(own.encode(), private_key.encode()):
            raise SAMPProxyError(1, "This is not the private key of the client")
        assert self.current_call is not None
        self._messages.put(callback, private_key, *params, size=len(self.current_call.request.body))


class CallbackServer:
    """The server of a client of the Standard Profile, which the hub calls."""

    def __init__(
        self, loop: EventLoop, messages: MessageQueue, address: tuple[str, int], hub: HubConnection
    ) -> None:
        self._address = address[0]
        self._server = XMLRPCServer(address, loop, _CallbackHandler(messages, address[0]))
        self._loop = loop
        self._hub = hub
        self._server.start()

    def declaration(self, private_key: str) -> Request:
        """Return the operation that declares the URL of the server to the hub (R31)."""
        url = make_http_url(local_address(self._address, self._hub.url), self._server.port)
        return "setXmlrpcCallback", {"private_key": private_key, "xmlrpc_addr": url}

    def start(self, private_key: str) -> None:
        """Do nothing: the server has been started."""

    def stop(self) -> None:
        """Close the server; returns immediately."""
        self._loop.call_soon(self._server.stop)


def local_address(address: str, hub_url: str) -> str:
    """Return the address at which programs on the hub's machine reach a server of the client that listens on one."""
    if address not in {"", "0.0.0.0", "::"}:
        return address
    host, port, _ = split_http_url(hub_url)
    # The address of this machine that the hub sees. No data is sent: a datagram socket only selects its route
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        return str(sock.getsockname()[0])


class CallbackPuller:
    """The thread of a client of the Web Profile that pulls its callbacks."""

    def __init__(self, hub: SAMPWebHubProxy, messages: MessageQueue) -> None:
        self._hub = hub
        self._messages = messages
        self._stopped = threading.Event()

    def declaration(self, private_key: str) -> Request:
        """Return the operation that declares to the hub that callbacks will be pulled."""
        return "allowReverseCallbacks", {"private_key": private_key, "allow": "1"}

    def start(self, private_key: str) -> None:
        """Start to pull callbacks."""
        threading.Thread(target=self._run, args=(private_key,), name="samp-pull", daemon=True).start()

    def stop(self) -> None:
        """Stop pulling. The thread ends when the hub responds or the connection is closed."""
        self._stopped.set()

    def _run(self, private_key: str) -> None:
        while not self._stopped.is_set() and self._hub.is_connected:
            start = time.monotonic()
            try:
                callbacks = self._hub.pull_callbacks(private_key, PULL_TIMEOUT)
            except SAMPProxyError as fault:
                self._on_fault(fault, private_key)
                return
            except SAMPError as error:
                log.debug("A pull failed: %s", error)
                callbacks = []
            for callback in callbacks:
                self._enqueue(private_key, callback)
            if not callbacks and time.monotonic() - start < PULL_PAUSE:
                self._stopped.wait(PULL_PAUSE)

    def _enqueue(self, private_key: str, callback: Any) -> None:
        try:
            params = callback["samp.params"]
            self._messages.put(callback["samp.methodName"], private_key, *params, size=len(repr(params)))
        except SAMPProxyError as error:
            self._reject(private_key, callback, error)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            log.warning("The hub returned an invalid callback: %r", error)

    def _reject(self, private_key: str, callback: Any, error: SAMPProxyError) -> None:
        """Drop a message because the queue is full; reply to a call with an error (R23)."""
        log.warning("A message was dropped: %s", error)
        if callback["samp.methodName"] == "receiveCall":
            msg_id = callback["samp.params"][1]
            try:
                # an earlier call of the same id may be open, see `handlers`
                with self._hub.received_calls.add(private_key, msg_id):
                    self._hub.reply(private_key, msg_id, error_response(str(error)))
            except SAMPError as another:
                log.debug("A reply was not accepted: %s", another)

    def _on_fault(self, fault: SAMPProxyError, private_key: str) -> None:
        """Mark the connection as lost if the hub rejects the key of a client that has not unregistered."""
        client = self._messages.client()
        if not self._stopped.is_set() and client is not None and client.get_private_key() == private_key:
            self._hub.mark_lost(f"The hub does not deliver messages to this client any more: {fault}.")
