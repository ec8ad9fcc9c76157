# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Where a client of the Standard Profile is called back by its hub (rule R32).

The server only takes what comes and puts it into the client's inbox; handlers run elsewhere, so that the hub is never
kept waiting. It refers to the client weakly: a client that its program has forgotten can be collected.
"""

from __future__ import annotations

import hmac
import socket
from typing import Any, Protocol

from ..addresses import OwnNames
from ..errors import SAMPProxyError
from ..transport.http import Request, Response
from ..transport.http_url import http_address
from ..transport.loop import Loop
from ..transport.rpc import XMLRPCHandler
from ..transport.server import Connection, XMLRPCServer
from .inbox import Inbox

__all__ = ["CallbackServer", "own_address"]


class CallbackHub(Protocol):
    """What has to be known of a hub."""

    @property
    def url(self) -> str:
        """Where it is."""


class Keeper(Protocol):
    """Whoever knows the client's private key at the moment."""

    def get_private_key(self) -> str | None:
        """Tell the private key; None while there is none."""


class _CallbackHandler(XMLRPCHandler):
    """The operations that a hub calls, and who may call them."""

    def __init__(self, inbox: Inbox, names: OwnNames) -> None:
        super().__init__(
            {
                "samp.client.receiveNotification": self.receive_notification,
                "samp.client.receiveCall": self.receive_call,
                "samp.client.receiveResponse": self.receive_response,
            }
        )
        self._inbox = inbox
        self._names = names

    def check(self, request: Request, connection: Connection) -> Response | None:
        """Refuse what a browser sends: it names its page's origin, or a host that somebody made resolve to us (R38)."""
        headers = request.headers
        if "origin" in headers:
            return self.plain(403, "Web pages are not answered here", request)
        host = headers.get("host")
        if host is not None and host not in self._names:
            return self.plain(403, "This server goes by another name", request)
        return None

    def receive_notification(self, private_key: str, sender_id: str, message: dict[str, Any]) -> str:
        self._take("receive_notification", private_key, sender_id, message)
        return ""

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: dict[str, Any]) -> str:
        self._take("receive_call", private_key, sender_id, msg_id, message)
        return ""

    def receive_response(self, private_key: str, responder_id: str, msg_tag: str, response: dict[str, Any]) -> str:
        self._take("receive_response", private_key, responder_id, msg_tag, response)
        return ""

    def _take(self, method: str, private_key: str, *params: Any) -> None:
        self._check_key(private_key)
        assert self.current is not None
        self._inbox.put(method, private_key, *params, size=len(self.current.request.body))

    def _check_key(self, private_key: str) -> None:
        keeper: Keeper | None = self._inbox.client()
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

    def __init__(self, loop: Loop, inbox: Inbox, address: tuple[str, int], hub: CallbackHub) -> None:
        self._address = address[0]
        self._server = XMLRPCServer(address, loop, _CallbackHandler(inbox, OwnNames(address[0])))
        self._loop = loop
        self._hub = hub
        self._server.start()

    def announcement(self, private_key: str) -> tuple[str, dict[str, str]]:
        """Tell where the hub is to call (R31)."""
        address = own_address(self._address, self._hub.url)
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._server.port}/"
        return "setXmlrpcCallback", {"private_key": private_key, "xmlrpc_addr": url}

    def begin(self, private_key: str) -> None:
        """Do nothing: the server is there."""

    def stop(self) -> None:
        """Close it; returns at once."""
        self._loop.call_soon(self._server.stop)


def own_address(address: str, hub_url: str) -> str:
    """
    Tell at which address a client's servers can be reached by those on the hub's machine.

    Parameters
    ----------
    address : str
        What is listened on, perhaps all addresses.
    hub_url : str
        Where the hub is.
    """
    return _way_to(hub_url) if address in {"", "0.0.0.0", "::"} else address


def _way_to(url: str) -> str:
    """The address of this machine that the hub sees. Nothing is sent: a datagram socket only picks its route."""
    host, port, _ = http_address(url)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        return str(sock.getsockname()[0])
