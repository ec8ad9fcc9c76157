# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The Web Profile's side of the hub: its operations, for pages in a browser (R39 to R50).

An adapter between a browser and the broker, as `standard_profile` is between programs and the broker. What is
particular to pages has rooms of its own:

=================== ========================================================================
``web_requests``    HTTP: what is no operation, and what every answer bears
``web_access``      who may use the server, what browsers must be told, what pages may send
``consent``         the questions to the user, one after the other (``consent_askers``: how)
``web_mailbox``     callbacks, which wait to be pulled (``web_pulls``: by what)
``url_book``        which URLs a page may have fetched for it
``url_translation`` fetching them
=================== ========================================================================

A web page on its way into the hub, and as a member of it.

The requests of browsers that are no operations of SAMP, and what all answers to browsers have in common.
"""

from __future__ import annotations

import errno
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..broker import Broker, Client, Delivery, EncodedMessage
from ..broker.deliveries import CALL
from ..broker.operations import HubOperations
from ..constants import SAFE_MTYPES
from ..errors import SAMPProxyError
from ..protocol import SAMPValue, parse_bool, parse_float
from ..transport.event_loop import EventLoop
from ..transport.http11 import HTTPError, HTTPRequest, Response
from ..transport.server import ServerConnection, XMLRPCServer
from ..transport.server_connection import DeferredResponse
from ..transport.urls import is_loopback
from ..transport.xmlrpc_handler import RPCCall
from ..transport.xmlrpc_writer import PreEncoded
from .consent import REFUSED, ConsentQueue, ConsentRequest, Decision, parse_registration
from .consent_prompts import WebProfileDialog, make_prompt
from .cors import (
    CLIENT_ACCESS_POLICY,
    CROSS_DOMAIN,
    METHODS,
    SANDBOX_HEADERS,
    browser_key,
    cors_headers,
    is_allowed_host,
    preflight_headers,
    send_filter,
)
from .peer_uid import is_other_user
from .pull_queue import Pull, PullLimiter, PullQueue
from .url_permissions import UrlPermissions, url_hashes
from .url_proxy import UrlProxy

if TYPE_CHECKING:
    from ..broker import Broker, Client
    from ..transport.event_loop import EventLoop
    from ..transport.server import ServerConnection
    from .consent import ConsentRequest
    from .pull_queue import PullQueue

__all__ = [
    "CLIENT_ACCESS_POLICY",
    "CROSS_DOMAIN",
    "PORT",
    "PROFILE",
    "TRANSLATOR",
    "PendingRegistration",
    "WebClient",
    "WebProfile",
    "WebProfileDialog",
    "WebRequestHandler",
]

log = logging.getLogger(__name__)

#: Calls that are remembered for each page, so that its late answers are told from forged ones.
MAX_CALLS = 10_000


class WebClient:
    """
    A registered page.

    Parameters
    ----------
    client : Client
        What it is to the broker.
    mailbox : WebMailbox
        Where its callbacks wait.
    token : str
        What is in its translator's URL, and in no other's (R46).
    """

    def __init__(self, client: Client, mailbox: PullQueue, token: str) -> None:
        self.client = client
        self.mailbox = mailbox
        self.token = token
        #: Msg-ids of the calls that it was handed and has not answered, the latest.
        self.calls: dict[str, None] = {}

    def note_call(self, msg_id: str) -> None:
        """Remember a call."""
        self.calls[msg_id] = None
        if len(self.calls) > MAX_CALLS:
            del self.calls[next(iter(self.calls))]

    def pop_call(self, msg_id: str) -> bool:
        """Whether this is the first answer to a call that it was handed."""
        return self.calls.pop(msg_id, self) is None


class PendingRegistration:
    """
    A page on its way in.

    Parameters
    ----------
    question : Question
        What the user is asked.
    connection : Connection
        What the page waits on.
    """

    def __init__(self, question: ConsentRequest, connection: ServerConnection) -> None:
        self.request = question
        self.connection = connection
        self.response = DeferredResponse()
        #: What it has become, if the user has agreed.
        self.client: Client | None = None


PROFILE = "web"
#: What the path of a translator's URL begins with; then comes the page's token (R46).
TRANSLATOR = "/translator/"

_PULL = "samp.webhub.pullCallbacks"
_POLICIES = {"/crossdomain.xml": CROSS_DOMAIN, "/clientaccesspolicy.xml": CLIENT_ACCESS_POLICY}


class WebRequestHandler(HubOperations):
    """
    Answers browsers.

    Parameters
    ----------
    profile : WebProfile
        Whose server this answers for.
    broker : Broker
        What the operations operate.
    loop : Loop
        Whose clock and thread are used.
    own : mapping of str to callable
        The operations that only this profile has, by the last part of their names.
    """

    paths = frozenset({"/", "", "/RPC2"})  # the last for Python's ``ServerProxy`` of a URL without a path

    def __init__(
        self, profile: WebProfile, broker: Broker, loop: EventLoop, own: Mapping[str, Callable[..., Any]]
    ) -> None:
        super().__init__(PROFILE, "samp.webhub", broker, loop, own)
        self._web = profile

    def headers(self, request: HTTPRequest | None) -> tuple[tuple[str, str], ...]:
        """What each answer bears (R44)."""
        return () if request is None else cors_headers(request.headers)

    def reject(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Refuse what does not come from a browser of this machine, or means another server (R45)."""
        if not is_loopback(connection.peer[0]):
            text = "The Web Profile serves this computer alone"
        elif not is_allowed_host(request.headers.get("host"), self._web.port):
            text = "This server goes by another name"
        elif request.method == "POST" and request.target.partition("?")[0] not in self.paths:
            text = "There is nothing at this path"
        else:
            return None
        # To sampjs anything but 200 is the end of the world: it calls back nobody and polls no more (R48)
        return self.fault_response(text, request) if request.method == "POST" else self.text_response(403, text, request)

    def error_response(self, error: HTTPError) -> Response:
        """Answer what is no request or goes beyond a limit; a POST in the way of `check` (R48)."""
        method, headers = error.head or ("", {})
        request = HTTPRequest(method, "", headers, b"", keep_alive=False)
        return self.fault_response(str(error), request) if method == "POST" else self.text_response(error.status, str(error), request)

    def invoke(self, function: Callable[..., Any], call: RPCCall) -> Any:
        """Run an operation; a tab that calls one is not the only one that wants to, so its browser needs room (R49)."""
        if call.method_call.name != _PULL:
            self._web.pull_limiter.prioritize(browser_key(call.request.headers))
        return super().invoke(function, call)

    def handle_non_post(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Answer what is no POST: preflights, the policies of Flash and Silverlight, URLs to be translated."""
        self._web.pull_limiter.prioritize(browser_key(request.headers))
        if request.method == "OPTIONS":
            return Response(200, headers=(*self.headers(request), *preflight_headers(request)))
        if request.method not in {"GET", "HEAD"}:
            return self.text_response(405, "This method is not answered here", request, (("Allow", METHODS),))
        path = request.target.partition("?")[0]
        if path in _POLICIES:
            return Response(200, _POLICIES[path].encode("ascii"), "text/xml", self.headers(request))
        if path.startswith(TRANSLATOR):
            return self._translate(request, connection)
        return self.text_response(404, "This is a SAMP hub, for web pages that can talk to one", request)

    def _translate(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Hand out what is at a URL, if the page that asks may have it (R46)."""
        url = self._web.find_url(request.target)
        if url is None:
            text = "No program has mentioned this URL to the page, or a page had mentioned it first"
            return self.text_response(403, text, request)
        if self._web.url_proxy.is_busy:
            return self.text_response(503, "Too much is being read at the moment", request, (("Retry-After", "1"),))
        headers = (*self.headers(request), *SANDBOX_HEADERS)
        self._web.url_proxy.serve(connection.detach(), url, request.method, request.headers, headers)
        return None


STANDARD = "standard"
#: Where pages look for the hub (R39).
PORT = 21012
#: The operations without a key; what is in them goes to nobody.
_PUBLIC_METHODS = ("samp.webhub.ping", "samp.webhub.register")
#: Web clients that may be registered at a time: a page that is allowed always could register for ever.
MAX_CLIENTS = 500
#: Farewells that are kept for pages which were thrown out and have not asked since.
MAX_FINAL_MESSAGES = 100


class WebProfile:
    """
    The server of the Web Profile. It serves from the moment it is made.

    Parameters
    ----------
    broker : Broker
        What the operations operate.
    loop : Loop
        What watches the sockets.
    port : int
        Where to listen; 0 takes a free port.
    dialog : None, str, callable or WebProfileDialog
        How the user is asked for consent, see `make_asker`.
    mtypes : iterable of str, optional
        What pages may send (R47); by default `SAFE_MTYPES`. ``["*"]`` lifts the restriction.

    Raises
    ------
    OSError
        The port cannot be listened on.
    TypeError, ValueError
        The dialog or the MTypes are none.
    """

    def __init__(
        self,
        broker: Broker,
        loop: EventLoop,
        *,
        port: int = PORT,
        dialog: Any = None,
        mtypes: Iterable[str] | None = None,
    ) -> None:
        self._broker = broker
        self._loop = loop
        self._send_filter = send_filter(SAFE_MTYPES if mtypes is None else mtypes)
        self._consent = ConsentQueue(make_prompt(dialog), loop.run_in_worker, loop.call_later)
        self._web_clients: dict[str, WebClient] = {}  # by public id
        self._final_messages: dict[str, PreEncoded] = {}  # by private key, for pages that were thrown out between two pulls
        self.pull_limiter = PullLimiter(loop)
        self._all_pulled: threading.Event | None = None
        self.url_permissions = UrlPermissions()
        self._operations = operations = _Operations(self, broker, loop)
        self._servers = [XMLRPCServer(("127.0.0.1", port), loop, operations)]
        self.port = self._servers[0].port
        try:  # a browser that looks for "localhost" tries both, and nobody else should be found there
            self._servers.append(XMLRPCServer(("::1", self.port), loop, operations))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                log.warning(
                    "Another program listens on port %d of the address ::1, where browsers may look for the hub first: "
                    "a page that finds no hub has found that program.",
                    self.port,
                )
            else:
                log.debug("The Web Profile is not served by IPv6: %s", error)
        self.url_proxy = UrlProxy(loop.run_in_worker, self._on_transfer_end)
        for server in self._servers:
            server.start()
        log.info("The hub serves the Web Profile on port %d", self.port)

    @property
    def url(self) -> str:
        """Where pages call."""
        return f"http://localhost:{self.port}/"

    def wait_until_delivered(self, timeout: float) -> bool:
        """
        Wait until pages have pulled what waits for them. Not to be called in the loop's thread.

        Parameters
        ----------
        timeout : float
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether they have.
        """
        self._all_pulled = event = threading.Event()
        self._loop.call_soon(self._check_pulled)
        return event.wait(timeout)

    def _check_pulled(self) -> None:
        if self._all_pulled is not None and not any(m.mailbox.has_pending for m in self._web_clients.values()):
            self._all_pulled.set()

    def stop(self) -> None:
        """Refuse what is asked and give out what waits; then close the server. In the loop's thread."""
        self._consent.close()
        for member in list(self._web_clients.values()):
            member.mailbox.flush_and_close()
        for stop in (self.url_proxy.stop, *(server.stop for server in self._servers)):
            self._loop.call_soon(stop)  # behind the refusals, which are on their way (R48)

    # What the operations need; in the loop's thread

    def request_registration(self, question: ConsentRequest, connection: ServerConnection) -> DeferredResponse:
        """Register a page when the user agrees (R40)."""
        self._check_number()
        if is_other_user(connection.peer, self.port):  # who can state any origin, one that is always allowed too
            raise SAMPProxyError(REFUSED, "The Web Profile serves the user alone who runs the hub")
        joining = PendingRegistration(question, connection)

        def answered(answer: Decision) -> None:
            self._loop.call_soon(self._on_decision, joining, answer)

        ticket = self._consent.submit(question, answered)
        joining.response.add_cancel_callback(lambda: self._consent.cancel(ticket, answered))
        joining.response.on_sent = lambda sent: None if sent else self._cancel_registration(joining)
        return joining.response

    def web_client(self, client: Client) -> WebClient:
        """Find a registered page."""
        try:
            return self._web_clients[client.client_id]
        except KeyError:  # it was disconnected between two calls
            raise SAMPProxyError(1, "This client is no longer registered with the hub") from None

    def allow_callbacks(self, client: Client, *, allow: bool) -> None:
        """Make a client callable, or no longer (R13)."""
        mailbox = self.web_client(client).mailbox
        if allow != client.callable:
            self._broker.set_callable(client, allow)
            if allow:
                mailbox.expect_pull()
            else:
                # what was put before is taken before
                self._loop.call_soon(self._drop_callbacks, client, mailbox)

    def mark_active(self, client: Client, connection: ServerConnection | None) -> None:
        """Note that a page has made a request (R43), and by which connection of its browser."""
        if (member := self._web_clients.get(client.client_id)) is not None:
            member.mailbox.mark_active(connection)

    def allow_urls(self, client: Client, value: SAMPValue) -> None:
        """Note what a program of the Standard Profile said where a page could see it (R46). In any thread."""
        if (member := self._web_clients.get(client.client_id)) is not None:
            self.url_permissions.allow_from_client(member.token, value)

    def find_url(self, target: str) -> str | None:
        """Find what a translator's URL asks for: the token, ``?``, and the URL (R46); None if that may not be had."""
        token, _, url = target.removeprefix(TRANSLATOR).partition("?")
        return self.url_permissions.lookup(token, url)

    # Joining and leaving

    def _on_decision(self, joining: PendingRegistration, verdict: Decision) -> None:
        answer = joining.response
        if not joining.connection.peer_is_open():
            answer.cancel()  # which the loop has yet to come to
        elif verdict is Decision.DENY:
            answer.set_exception(SAMPProxyError(REFUSED, f"The user did not allow {joining.request.name} to register"))
        elif answer.state == "waiting":
            self._register(joining)

    def _register(self, joining: PendingRegistration) -> None:
        mailbox = PullQueue(
            self._loop,
            self.pull_limiter,
            on_overflow=lambda reason: self._broker.disconnect(member.client, reason),
            on_gone=lambda reason: self._broker.unregister(member.client, reason),
            on_delivery=lambda delivery: self._on_delivery(member, delivery),
            on_idle=self._check_pulled,
            on_closed=lambda: self._remove(member),
        )
        try:
            self._check_number()  # again: one answer may let in many pages at once
            client = self._broker.register(PROFILE, mailbox, send_filter=self._send_filter)
        except SAMPProxyError as fault:  # there are too many, or the hub is shutting down
            joining.response.set_exception(fault)
            return
        member = WebClient(client, mailbox, secrets.token_urlsafe(18))
        self._web_clients[client.client_id] = member
        self.url_permissions.add_client(member.token, joining.request.origin)
        joining.client = client
        joining.response.set_result(
            {
                **self._operations.registration_info(client),
                "samp.url-translator": f"{self.url.rstrip('/')}{TRANSLATOR}{member.token}?",
            }
        )

    def _check_number(self) -> None:
        if len(self._web_clients) >= MAX_CLIENTS:
            raise SAMPProxyError(REFUSED, f"There are {MAX_CLIENTS} web clients; no more can register")

    def _cancel_registration(self, joining: PendingRegistration) -> None:
        """Unregister a page that went away before it got its key."""
        if joining.client is not None:
            self._broker.unregister(joining.client)

    def final_message(self, key: str) -> PreEncoded | None:
        """What a page that was thrown out between two pulls is told by its next one, once (R26)."""
        return self._final_messages.pop(key, None)

    def is_being_disconnected(self, key: str) -> bool:
        """Whether a page is just being thrown out, so that its next pull is told why."""
        return any(
            member.client.private_key == key and not member.client.is_active for member in self._web_clients.values()
        )

    def _remove(self, member: WebClient) -> None:
        if member.mailbox.final_message is not None:
            self._final_messages[member.client.private_key] = member.mailbox.final_message
            if len(self._final_messages) > MAX_FINAL_MESSAGES:
                del self._final_messages[next(iter(self._final_messages))]
        self._web_clients.pop(member.client.client_id, None)
        self.url_permissions.remove_client(member.token)

    def _drop_callbacks(self, client: Client, mailbox: PullQueue) -> None:
        for delivery in mailbox.clear():
            self._broker.delivery_failed(delivery, f"{client.display_name} takes no callbacks any more")

    def _on_delivery(self, member: WebClient, delivery: Delivery) -> None:
        if delivery.kind == CALL and delivery.tag is not None:
            member.note_call(delivery.tag)
        if delivery.body.source_profile == STANDARD:
            self.url_permissions.allow_from_client(member.token, delivery.body.value)

    def _on_transfer_end(self, sock: socket.socket) -> None:
        for server in self._servers:  # one of which it is from
            server.close_detached(sock)


class _Operations(WebRequestHandler):
    """The operations that only this profile has."""

    def __init__(self, profile: WebProfile, broker: Broker, loop: EventLoop) -> None:
        own: dict[str, Callable[..., Any]] = {
            "register": self.register,
            "allowReverseCallbacks": self.allow_reverse_callbacks,
            "pullCallbacks": self.pull_callbacks,
        }
        super().__init__(profile, broker, loop, own)

    # What only this profile has

    def register(self, identity: SAMPValue) -> DeferredResponse:
        """Register a page, with the user's consent (R40)."""
        assert self.current_call is not None
        request, connection, _call = self.current_call
        question = parse_registration(identity, request.headers.get("origin", ""), connection.peer)
        return self._web.request_registration(question, connection)

    def allow_reverse_callbacks(self, key: str, allow: str) -> str:
        """Say whether the caller is going to pull callbacks (R39)."""
        self._web.allow_callbacks(self._client(key), allow=parse_bool(allow.strip()))
        return ""

    def pull_callbacks(self, key: str, timeout: str) -> DeferredResponse | PreEncoded | list[SAMPValue]:
        """Hand over the callbacks that wait, or wait for one (R42)."""
        assert self.current_call is not None
        request, connection, _call = self.current_call
        try:
            client = self._client(key)
        except SAMPProxyError:  # the usual pull does not pay for those who were thrown out
            if (last_words := self._web.final_message(key)) is not None:
                return last_words
            if self._web.is_being_disconnected(key):
                return []
            raise
        pull = Pull(connection, browser_key(request.headers))
        return self._web.web_client(client).mailbox.pull(pull, parse_float(timeout.strip()))

    def reply(self, key: str, msg_id: str, response: dict[str, SAMPValue]) -> str:
        """
        Answer a call (R18, R21).

        An answer that comes after its time is dropped without a fault (R22): on a fault sampjs would leave the hub.
        """
        answers = self._web.web_client(self._client(key)).pop_call(msg_id)
        try:
            return super().reply(key, msg_id, response)
        except SAMPProxyError:
            if not answers:
                raise
            log.debug("A page's answer came too late: nobody waits for it any more")
            return ""

    # What is noted beside what both profiles do: who mentions which URLs (R46), and that a page is alive (R43)

    def get_metadata(self, key: str, client_id: str) -> dict[str, SAMPValue]:
        """Look up somebody's metadata (R11)."""
        metadata = super().get_metadata(key, client_id)
        if self._broker.profile_of(client_id) == STANDARD:
            self._web.allow_urls(self._client(key), metadata)
        return metadata

    def invoke(self, function: Callable[..., Any], call: RPCCall) -> Any:
        """Run an operation; URLs in it are noted when it has succeeded, so that others can have seen them."""
        keys = url_hashes(call.method_call.params)
        if not keys or call.method_call.name in _PUBLIC_METHODS:
            return super().invoke(function, call)
        member = self._web.web_client(self._client(cast("str", call.method_call.params[0])))
        book = self._web.url_permissions
        if not book.has_quota(member.token, keys):
            raise SAMPProxyError(1, "The pages of this origin have mentioned too many URLs and can send no new ones")
        result = super().invoke(function, call)
        book.block_from_page(member.token, keys)
        return result

    def on_response_delivered(self, client: Client, response: EncodedMessage) -> None:
        if response.source_profile == STANDARD:
            self._web.allow_urls(client, response.value)

    def _client(self, key: str) -> Client:
        client = super()._client(key)
        assert self.current_call is not None
        request, connection, _call = self.current_call
        self._web.mark_active(client, connection if browser_key(request.headers) else None)
        return client
