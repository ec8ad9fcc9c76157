# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The Standard Profile's side of the hub: its operations, for programs that can read the lockfile (R31).

An adapter between XML-RPC over HTTP and the broker: it names the operations, finds the client of a private
key, and checks what only this profile checks. Deliveries go the other way, through each client's
`PushMailbox`.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from typing import Any

from ..broker import Broker, Client
from ..broker.operations import HubOperations
from ..errors import SAMPProxyError
from ..protocol import SAMPValue
from ..transport.event_loop import EventLoop
from ..transport.http11 import HTTPRequest, Response
from ..transport.server import ServerConnection, XMLRPCServer
from ..transport.urls import AllowedHosts, resolve_callback_url
from .callback_sender import CallbackSender
from .liveness import LivenessChecker

__all__ = ["PROFILE", "StandardProfile"]

PROFILE = "standard"


class StandardProfile:
    """
    The server of the Standard Profile.

    Parameters
    ----------
    broker : Broker
        What the operations operate.
    loop : Loop
        What watches the sockets.
    secret : str
        What a client must know to register (R7).
    address : tuple of (str, int)
        Where to listen; port 0 takes a free one.

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    def __init__(self, broker: Broker, loop: EventLoop, secret: str, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._broker = broker
        self._loop = loop
        self._secret = secret
        self._liveness = LivenessChecker(loop)
        self._mailboxes: set[CallbackSender] = set()
        self._all_delivered: threading.Event | None = None
        self._host = "127.0.0.1" if address[0] == "0.0.0.0" else "::1" if address[0] == "::" else address[0]
        self.server = XMLRPCServer(address, loop, _Operations(self, broker, loop, AllowedHosts(address[0])))

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self.server.port

    @property
    def url(self) -> str:
        """Where clients call (the lockfile's ``samp.hub.xmlrpc.url``)."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/"

    def start(self) -> None:
        """Begin to serve."""
        self.server.start()

    def wait_until_delivered(self, timeout: float) -> bool:
        """
        Wait until nothing is left to be delivered. Not to be called in the loop's thread.

        Parameters
        ----------
        timeout : float
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether all has been delivered, or has failed.
        """
        event = threading.Event()
        # Begun in the loop's thread: what was put into the mailboxes before has been taken up by then.
        self._loop.call_soon(self._start_delivery_wait, event)
        return event.wait(timeout)

    def stop(self) -> None:
        """Close the server and all connections to clients. In the loop's thread."""
        self.server.stop()
        self._liveness.close()
        for mailbox in list(self._mailboxes):
            mailbox.abort()
        self._mailboxes.clear()

    # What the operations need; in the loop's thread

    def check_secret(self, secret: str) -> bool:
        """Tell whether this is the secret, in a time that says nothing about how far it is right."""
        return hmac.compare_digest(secret.encode("utf-8", "surrogatepass"), self._secret.encode("utf-8"))

    def set_callback(self, client: Client, url: str) -> None:
        """Make a client callable at a URL (R13)."""
        if isinstance(client.mailbox, CallbackSender):
            client.mailbox.set_url(url)
            return
        mailbox = CallbackSender(self._loop, self._broker, self._liveness, client, url, self._on_idle)
        self._mailboxes.add(mailbox)
        self._broker.set_callable(client, True, mailbox)

    def defer_events(self, client: Client) -> None:
        """Let the hub's events wait while a client is finding out who is there."""
        if isinstance(client.mailbox, CallbackSender):
            client.mailbox.defer_events()

    def _on_idle(self, mailbox: CallbackSender) -> None:
        if mailbox.is_closed:
            self._mailboxes.discard(mailbox)
        self._check_delivered()

    def _start_delivery_wait(self, event: threading.Event) -> None:
        self._all_delivered = event
        self._check_delivered()

    def _check_delivered(self) -> None:
        if self._all_delivered is not None and all(mailbox.is_idle for mailbox in self._mailboxes):
            self._all_delivered.set()


class _Operations(HubOperations):
    """The operations that only this profile has, and who may use any of them."""

    def __init__(self, profile: StandardProfile, broker: Broker, loop: EventLoop, names: AllowedHosts) -> None:
        own: dict[str, Callable[..., Any]] = {
            "register": self.register,
            "setXmlrpcCallback": self.set_xmlrpc_callback,
        }
        super().__init__(PROFILE, "samp.hub", broker, loop, own)
        self._profile = profile
        self._names = names

    def reject(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Refuse what a browser sends: it names its page's origin, or a host that somebody made resolve to us (R38)."""
        headers = request.headers
        if "origin" in headers:
            return self.text_response(403, "Web pages are not served here, but by the hub's Web Profile", request)
        host = headers.get("host")  # DS9 sends none
        if host is not None and host not in self._names:
            return self.text_response(403, "This server goes by another name", request)
        return None

    def register(self, secret: str) -> dict[str, SAMPValue]:
        """Let a client in that knows the secret (R6)."""
        if not self._profile.check_secret(secret):
            raise SAMPProxyError(1, "This is not the hub's secret; it is in the lockfile")
        return self.registration_info(self._broker.register(PROFILE))

    def set_xmlrpc_callback(self, key: str, url: str) -> str:
        """Note where the caller can be called back (R13)."""
        client = self._client(key)
        assert self.current_call is not None
        self._profile.set_callback(client, resolve_callback_url(url, self.current_call.connection.peer[0]))
        return ""

    def on_discovery_call(self, client: Client) -> None:
        """Spare clients of JSAMP the events that they would lose now (see `newcomer`)."""
        assert self.current_call is not None
        if self.current_call.request.headers.get("user-agent", "").startswith("JSAMP"):
            self._profile.defer_events(client)
