# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Where a client of the Standard Profile is called back by its hub (rule R32).

The server only takes what comes and puts it into the client's inbox; handlers run elsewhere, so that the hub is never
kept waiting. It refers to the client weakly: a client that its program has forgotten can be collected.

Whose turn it is: how a handler that has to wait lets the next message go ahead.

A client's handlers run one after the other (R24). One that makes a call and waits for the answer would hold up
the very message that brings the answer about, until the grace time of the dispatcher has passed. It gives its
turn up as it begins to wait, so that nested calls cost no grace time.

What lies between the arrival of a message at a client and its handler.

The thread that receives a message must be back at once, and a handler may take for ever. So what has arrived is
queued here, and handled by worker threads in the order of arrival, one after the other, unless one takes longer
than the grace time or waits for a call of its own (R24).
"""

from __future__ import annotations

import hmac
import logging
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import SAMPProxyError
from ..ordered_dispatcher import OrderedDispatcher
from ..protocol import check_message, check_response
from ..transport.event_loop import EventLoop
from ..transport.http11 import HTTPRequest, Response
from ..transport.server import ServerConnection, XMLRPCServer
from ..transport.urls import AllowedHosts, split_http_url
from ..transport.xmlrpc_handler import XMLRPCHandler

if TYPE_CHECKING:
    from .samp_client import SAMPClient

__all__ = ["CallbackServer", "MessageQueue", "handler_slot", "local_address", "release_slot"]

log = logging.getLogger(__name__)

_local = threading.local()


@contextmanager
def handler_slot(done: Callable[[], object]) -> Iterator[None]:
    """
    Run a handler, in the thread that runs it.

    Parameters
    ----------
    done : callable
        Called once: when the handler gives way, or else at the end of the block.
    """
    outer = getattr(_local, "done", None)
    _local.done = done
    try:
        yield
    finally:
        release_slot()
        _local.done = outer


def release_slot() -> None:
    """Let the next message be handled beside this one. Does nothing outside of a handler, or the second time."""
    done = getattr(_local, "done", None)
    if done is not None:
        _local.done = None
        done()


#: Bytes of messages that may wait for their handlers.
MAX_WAITING = 256 * 1024 * 1024

#: What may arrive, and how its last part is checked.
_CHECKS: dict[str, Callable[[object], dict[str, Any]]] = {
    "receive_notification": check_message,
    "receive_call": check_message,
    "receive_response": check_response,
}


class _QueuedCall(NamedTuple):
    """The method of the client that takes it, and what it is called with."""

    method: str
    params: tuple[Any, ...]
    size: int


class MessageQueue:
    """
    The queue of what a client has received.

    Parameters
    ----------
    loop : Loop
        Whose workers run the handlers.
    client : SAMPClient
        Whose ``receive_*`` methods are called. It is referred to weakly.
    """

    def __init__(self, loop: EventLoop, client: SAMPClient) -> None:
        self.client = weakref.ref(client)
        self._loop = loop
        self._waiting = 0  # bytes
        self._lock = threading.Lock()
        self._dispatcher: OrderedDispatcher[_QueuedCall] = OrderedDispatcher(self._start, loop.call_later)

    def put(self, method: str, *params: Any, size: int) -> None:
        """
        Queue a call of one of the client's methods.

        Parameters
        ----------
        method : str
            ``"receive_notification"``, ``"receive_call"`` or ``"receive_response"``.
        *params
            What it is called with.
        size : int
            How many bytes it came in.

        Raises
        ------
        SAMPValueError
            The message is none (R16), or the response is none (R17).
        SAMPProxyError
            Too much waits to be handled; the hub tells the sender (R23).
        """
        *others, body = params
        arrival = _QueuedCall(method, (*others, _CHECKS[method](body)), size)
        client = self.client()
        if client is None:
            return
        client.heed(method, arrival.params)
        with self._lock:
            if self._waiting + size > MAX_WAITING:
                raise SAMPProxyError(1, "The client does not get on with its messages: too many of them wait")
            self._waiting += size
        self._dispatcher.put(arrival)

    def close(self) -> None:
        """Drop what has not been begun."""
        self._dispatcher.close()

    def _start(self, arrival: _QueuedCall, done: Callable[[], None]) -> None:
        with self._lock:
            self._waiting -= arrival.size
        self._loop.run_in_worker(self._run, arrival, done)

    def _run(self, arrival: _QueuedCall, done: Callable[[], None]) -> None:
        with handler_slot(done):
            client = self.client()
            if client is None:
                return
            try:
                getattr(client, arrival.method)(*arrival.params)
            except Exception:
                log.exception("%s failed", arrival.method)


class CallbackHubProxy(Protocol):
    """What has to be known of a hub."""

    @property
    def url(self) -> str:
        """Where it is."""


class MessageOwner(Protocol):
    """Whoever knows the client's private key at the moment."""

    def get_private_key(self) -> str | None:
        """Tell the private key; None while there is none."""


class _CallbackHandler(XMLRPCHandler):
    """The operations that a hub calls, and who may call them."""

    def __init__(self, inbox: MessageQueue, names: AllowedHosts) -> None:
        super().__init__(
            {
                "samp.client.receiveNotification": self.receive_notification,
                "samp.client.receiveCall": self.receive_call,
                "samp.client.receiveResponse": self.receive_response,
            }
        )
        self._inbox = inbox
        self._names = names

    def reject(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Refuse what a browser sends: it names its page's origin, or a host that somebody made resolve to us (R38)."""
        headers = request.headers
        if "origin" in headers:
            return self.text_response(403, "Web pages are not answered here", request)
        host = headers.get("host")
        if host is not None and host not in self._names:
            return self.text_response(403, "This server goes by another name", request)
        return None

    def receive_notification(self, private_key: str, sender_id: str, message: dict[str, Any]) -> str:
        self._enqueue("receive_notification", private_key, sender_id, message)
        return ""

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: dict[str, Any]) -> str:
        self._enqueue("receive_call", private_key, sender_id, msg_id, message)
        return ""

    def receive_response(self, private_key: str, responder_id: str, msg_tag: str, response: dict[str, Any]) -> str:
        self._enqueue("receive_response", private_key, responder_id, msg_tag, response)
        return ""

    def _enqueue(self, method: str, private_key: str, *params: Any) -> None:
        self._check_key(private_key)
        assert self.current_call is not None
        self._inbox.put(method, private_key, *params, size=len(self.current_call.request.body))

    def _check_key(self, private_key: str) -> None:
        keeper: MessageOwner | None = self._inbox.client()
        own = keeper.get_private_key() if keeper is not None else None
        if own is None or not hmac.compare_digest(own.encode(), private_key.encode()):
            raise SAMPProxyError(1, "This is not the private key of the client")


class CallbackServer:
    """
    A client's server for its hub's calls.

    Parameters
    ----------
    loop : Loop
        What watches its sockets.
    inbox : Inbox
        Where deliveries go.
    address : tuple of (str, int)
        Address and port to listen on; port 0 takes a free one.
    hub : CallbackHub
        The hub, which is told where to call.
    """

    def __init__(self, loop: EventLoop, inbox: MessageQueue, address: tuple[str, int], hub: CallbackHubProxy) -> None:
        self._address = address[0]
        self._server = XMLRPCServer(address, loop, _CallbackHandler(inbox, AllowedHosts(address[0])))
        self._loop = loop
        self._hub = hub
        self._server.start()

    def declaration(self, private_key: str) -> tuple[str, dict[str, str]]:
        """Tell where the hub is to call (R31)."""
        address = local_address(self._address, self._hub.url)
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._server.port}/"
        return "setXmlrpcCallback", {"private_key": private_key, "xmlrpc_addr": url}

    def start(self, private_key: str) -> None:
        """Do nothing: the server is there."""

    def stop(self) -> None:
        """Close it; returns at once."""
        self._loop.call_soon(self._server.stop)


def local_address(address: str, hub_url: str) -> str:
    """
    Tell at which address a client's servers can be reached by those on the hub's machine.

    Parameters
    ----------
    address : str
        What is listened on, perhaps all addresses.
    hub_url : str
        Where the hub is.
    """
    return _route_address(hub_url) if address in {"", "0.0.0.0", "::"} else address


def _route_address(url: str) -> str:
    """The address of this machine that the hub sees. Nothing is sent: a datagram socket only picks its route."""
    host, port, _ = split_http_url(url)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        return str(sock.getsockname()[0])
