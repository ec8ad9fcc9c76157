# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The Web Profile of a hub: its server, its operations, and the web clients that are registered (R39 to R50).

`WebRequestHandler` handles the requests of browsers: the operations that both profiles have, those that only this one
has, CORS preflights, policy files, URL translation and uploads. `WebProfile` keeps the web clients.

When a page registers, `ConsentQueue` asks the user; then `WebProfile` registers the client with the broker. The broker
puts deliveries into the client's `PullQueue`, and the page pulls them. `UrlPermissions` records which URLs a page may
read, and `UrlProxy` fetches them. `UploadServer` stores the files that a page uploads.
"""

from __future__ import annotations

import errno
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from ..broker import Broker, Client, Delivery, EncodedMessage
from ..broker.deliveries import CALL
from ..broker.operations import HubOperations
from ..constants import SAFE_MTYPES
from ..errors import SAMPProxyError
from ..protocol import SAMPValue, parse_bool
from ..protocol.timeouts import parse_samp_timeout
from ..temporary_files import remove_stale_dirs
from ..transport.event_loop import EventLoop
from ..transport.http11 import HTTPError, HTTPRequest, Response
from ..transport.server import XMLRPCServer
from ..transport.server_connection import DeferredResponse, ServerConnection
from ..transport.urls import HOST_REJECTED_TEXT, is_loopback
from ..transport.xmlrpc_handler import RPCCall
from ..transport.xmlrpc_writer import PreEncoded
from .consent import REFUSED, ConsentQueue, ConsentRequest, Decision, parse_registration
from .consent_prompts import make_prompt
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
from .pull_queue import MAX_WAIT, Pull, PullLimiter, PullQueue
from .uploads import UPLOAD_HEADERS, UPLOAD_METHODS, ClientUploads, UploadServer, upload_error
from .url_permissions import UrlPermissions, url_hashes
from .url_proxy import UrlProxy

log = logging.getLogger(__name__)

PROFILE = "web"
STANDARD = "standard"
#: Where pages look for the hub (R39).
PORT = 21012
#: Start of the path of a translated URL. The client's token follows, then ``?`` and the URL (R46).
TRANSLATOR = "/translator/"
#: Start of the path of an upload. The client's upload token follows, then an id and the name of the file.
UPLOAD = "/upload/"
#: Calls that are remembered for each web client, to distinguish its late replies from forged ones.
MAX_CALLS = 10_000
#: Maximum number of web clients: a page that is always allowed could register any number of times.
MAX_CLIENTS = 500
#: Final messages that are kept for web clients that were disconnected and have not pulled since.
MAX_FINAL_MESSAGES = 100

_PULL = "samp.webhub.pullCallbacks"
#: Operations without a private key. No other client sees their parameters.
_PUBLIC_METHODS = ("samp.webhub.ping", "samp.webhub.register")
_POLICIES = {"/crossdomain.xml": CROSS_DOMAIN, "/clientaccesspolicy.xml": CLIENT_ACCESS_POLICY}


class WebClient(PullQueue):
    """A registered page: the queue of its callbacks, its tokens and uploads, and the calls it received."""

    client: Client

    def __init__(self, profile: WebProfile, origin: str) -> None:
        super().__init__(profile.loop, profile.pull_limiter)
        self._profile = profile
        self.origin = origin
        #: Part of the translated URLs of this client only (R46).
        self.token = secrets.token_urlsafe(18)
        #: Part of the URLs for its uploads. It differs from `token`, because a page may give translated URLs to others.
        self.upload_token = secrets.token_urlsafe(32)
        #: Its files; None if the hub accepts no uploads.
        self.uploads: ClientUploads | None = None
        #: Msg-ids of the latest calls that it has not replied to.
        self.calls: dict[str, None] = {}

    def pop_call(self, msg_id: str) -> bool:
        """Return whether this is the first reply to a call that the client received."""
        return self.calls.pop(msg_id, self) is None

    def on_delivery(self, delivery: Delivery) -> None:
        """Remember a call that the client may reply to, and the URLs that the page may read (R46)."""
        if delivery.kind == CALL and delivery.tag is not None:
            self.calls[delivery.tag] = None
            if len(self.calls) > MAX_CALLS:
                del self.calls[next(iter(self.calls))]
        if delivery.body.source_profile == STANDARD:
            self._profile.url_permissions.allow_offered(self.token, delivery.body.value)

    def on_overflow(self, reason: str) -> None:
        """Disconnect the client (R50)."""
        self._profile.broker.disconnect(self.client, reason)

    def on_gone(self, reason: str) -> None:
        """Unregister the client (R43)."""
        self._profile.broker.unregister(self.client, reason)

    def on_empty(self) -> None:
        """Notify the hub if it waits until all callbacks are delivered."""
        self._profile.check_delivered()

    def on_closed(self) -> None:
        """Remove the client from the profile."""
        self._profile.remove(self)


class WebRequestHandler(HubOperations):
    """Handles the requests of browsers."""

    paths = frozenset({"/", "", "/RPC2"})  # the last is for Python's ``ServerProxy`` with a URL without a path

    def __init__(self, profile: WebProfile) -> None:
        own: dict[str, Callable[..., Any]] = {
            "register": self.register,
            "allowReverseCallbacks": self.allow_reverse_callbacks,
            "pullCallbacks": self.pull_callbacks,
        }
        super().__init__(PROFILE, "samp.webhub", profile.broker, profile.loop, own)
        self._profile = profile

    # HTTP

    def headers(self, request: HTTPRequest | None) -> tuple[tuple[str, str], ...]:
        """Return the headers of each response (R44)."""
        return () if request is None else cors_headers(request.headers)

    def reject(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Reject requests from other machines, and those that name another host (R45)."""
        if not is_loopback(connection.peer[0]):
            text = "The Web Profile serves this computer only"
        elif not is_allowed_host(request.headers.get("host"), self._profile.port):
            text = HOST_REJECTED_TEXT
        elif request.method == "POST" and request.target.partition("?")[0] not in self.paths:
            text = "There is nothing at this path"
        else:
            return None
        return self._error_response(403, text, request)

    def error_response(self, error: HTTPError) -> Response:
        """Respond to a malformed request, or to one that exceeds a limit."""
        method, headers = error.head or ("", {})
        return self._error_response(error.status, str(error), HTTPRequest(method, "", headers, b"", keep_alive=False))

    def _error_response(self, status: int, text: str, request: HTTPRequest) -> Response:
        # sampjs accepts only status 200: after any other it calls no callback and stops pulling (R48)
        if request.method == "POST":
            return self.fault_response(text, request)
        return self.text_response(status, text, request)

    def handle_non_post(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Respond to preflights and to requests for uploads, policy files and translated URLs."""
        self._profile.pull_limiter.prioritize(browser_key(request.headers))
        if self._profile.upload_server is not None and request.target.startswith(UPLOAD):
            return self._upload(self._profile.upload_server, request, connection)
        if request.method == "OPTIONS":
            return Response(200, headers=(*self.headers(request), *preflight_headers(request)))
        if request.method not in {"GET", "HEAD"}:
            return self.text_response(405, "This method is not supported", request, (("Allow", METHODS),))
        path = request.target.partition("?")[0]
        if path in _POLICIES:
            return Response(200, _POLICIES[path].encode("ascii"), "text/xml", self.headers(request))
        if path.startswith(TRANSLATOR):
            return self._translate(request, connection)
        return self.text_response(404, "This is a SAMP hub for web pages", request)

    def _translate(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Send the content of a URL, if the page may read it (R46)."""
        token, _, target = request.target.removeprefix(TRANSLATOR).partition("?")
        url = self._profile.url_permissions.allowed_url(token, target)
        if url is None:
            text = "No program has mentioned this URL to the page, or a page mentioned it first"
            return self.text_response(403, text, request)
        proxy = self._profile.url_proxy
        if proxy.is_busy:
            return self.text_response(503, "Too many URLs are being read", request, (("Retry-After", "1"),))
        headers = (*self.headers(request), *SANDBOX_HEADERS)
        proxy.serve(connection.detach(), url, request.method, request.headers, headers)
        return None

    def _upload(
        self, server: UploadServer, request: HTTPRequest, connection: ServerConnection
    ) -> Response | DeferredResponse:
        """Store or remove a file of a page, if the page has the client's token and its origin."""
        token, _, path = request.target.partition("?")[0].removeprefix(UPLOAD).partition("/")
        web_client = self._profile.by_upload_token.get(token)
        is_own = web_client is not None and request.headers.get("origin", "").lower() == web_client.origin
        if request.method == "OPTIONS":
            allowed = (UPLOAD_METHODS, UPLOAD_HEADERS) if is_own else ()
            return Response(200, headers=(*self.headers(request), *preflight_headers(request, *allowed)))
        if request.method not in UPLOAD_METHODS.split(", "):
            return self.text_response(405, "This method is not supported", request, (("Allow", UPLOAD_METHODS),))
        if web_client is None or web_client.uploads is None:
            return upload_error(404, "This client is not, or no longer, registered with the hub", self.headers(request))
        if not is_own:
            return upload_error(403, "This URL belongs to a page of another origin", self.headers(request))
        self._broker.mark_active(web_client.client)
        web_client.mark_active(connection, is_browser=True)
        return server.handle(web_client.uploads, path, request, self.headers(request))

    # Operations that only this profile has

    def register(self, identity: SAMPValue) -> DeferredResponse:
        """Register a page, with the user's consent (R40)."""
        assert self.current_call is not None
        request, connection, _call = self.current_call
        registration = parse_registration(
            identity,
            request.headers.get("origin", ""),
            connection.peer,
            can_upload=self._profile.upload_server is not None,
        )
        return self._profile.request_registration(registration, connection)

    def allow_reverse_callbacks(self, key: str, allow: str) -> str:
        """Set whether the client will pull callbacks (R39)."""
        self._profile.allow_callbacks(self._client(key), allow=parse_bool(allow.strip()))
        return ""

    def pull_callbacks(self, key: str, timeout: str) -> DeferredResponse | PreEncoded | list[SAMPValue]:
        """Return the callbacks that wait, or wait for one (R42)."""
        assert self.current_call is not None
        request, connection, _call = self.current_call
        try:
            client = self._client(key)
        except SAMPProxyError:  # only now look for a final message, so that the usual pull is not slowed down
            if (final_message := self._profile.pop_final_message(key)) is not None:
                return final_message
            if self._profile.is_being_disconnected(key):
                return []
            raise
        pull = Pull(connection, browser_key(request.headers))
        return self._profile.web_client(client).pull(pull, parse_samp_timeout(timeout, MAX_WAIT))

    # Operations that do more than in the other profile

    def reply(self, key: str, msg_id: str, response: dict[str, SAMPValue]) -> str:
        """
        Reply to a call (R18, R21).

        A reply that comes too late is dropped without a fault (R22): after a fault sampjs would unregister.
        """
        is_reply_to_call = self._profile.web_client(self._client(key)).pop_call(msg_id)
        try:
            return super().reply(key, msg_id, response)
        except SAMPProxyError:
            if not is_reply_to_call:
                raise
            log.debug("The reply of a web client came too late: its caller no longer waits for it")
            return ""

    def get_metadata(self, key: str, client_id: str) -> dict[str, SAMPValue]:
        """Return a client's metadata (R11), and allow the page to read the URLs in it (R46)."""
        metadata = super().get_metadata(key, client_id)
        if self._broker.profile_of(client_id) == STANDARD:
            self._profile.allow_urls(self._client(key), metadata)
        return metadata

    def on_response_delivered(self, client: Client, response: EncodedMessage) -> None:
        """Allow the page to read the URLs in the response (R46)."""
        if response.source_profile == STANDARD:
            self._profile.allow_urls(client, response.value)

    def invoke(self, function: Callable[..., Any], call: RPCCall) -> Any:
        """Run an operation. If it succeeds, other clients may have seen the URLs in its parameters (R46)."""
        name, params = call.method_call.name, call.method_call.params
        if name != _PULL:  # other tabs of a browser that is in use probably need a connection as well (R49)
            self._profile.pull_limiter.prioritize(browser_key(call.request.headers))
        hashes = url_hashes(params)
        if not hashes or name in _PUBLIC_METHODS:
            return super().invoke(function, call)
        token = self._profile.web_client(self._client(cast("str", params[0]))).token
        permissions = self._profile.url_permissions
        if not permissions.has_quota(token, hashes):
            raise SAMPProxyError(1, "The pages of this origin have mentioned too many URLs and can send no new ones")
        result = super().invoke(function, call)
        permissions.block_sent(token, hashes)
        return result

    def _client(self, key: str) -> Client:
        client = super()._client(key)
        assert self.current_call is not None
        request, connection, _call = self.current_call
        self._profile.mark_active(client, request, connection)
        return client


class WebProfile:
    """
    The server of the Web Profile. It accepts requests as soon as it is created.

    Port 0 selects a free port. ``dialog`` determines how the user is asked for consent, see `make_prompt`. ``mtypes``
    are the MTypes that pages may send (R47), by default `SAFE_MTYPES`; ``["*"]`` lifts the restriction. ``upload`` is
    whether pages may store files for other clients. The constructor raises `OSError` if the port is not available, and
    `TypeError` or `ValueError` if the dialog or the MTypes are not valid.
    """

    def __init__(
        self,
        broker: Broker,
        loop: EventLoop,
        *,
        port: int = PORT,
        dialog: Any = None,
        mtypes: Iterable[str] | None = None,
        upload: bool = True,
    ) -> None:
        self.broker = broker
        self.loop = loop
        self._send_filter = send_filter(SAFE_MTYPES if mtypes is None else mtypes)
        self._consent = ConsentQueue(make_prompt(dialog), loop.run_in_worker, loop.call_later)
        self._web_clients: dict[str, WebClient] = {}  # by public id
        self._final_messages: dict[str, PreEncoded] = {}  # by private key, for clients disconnected between two pulls
        self._all_delivered: threading.Event | None = None
        self.pull_limiter = PullLimiter(loop)
        self.url_permissions = UrlPermissions()
        self.url_proxy = UrlProxy(loop.run_in_worker, self._on_transfer_end)
        self.upload_server = UploadServer(loop.run_in_worker) if upload else None
        #: The registered web clients that may upload files, by upload token.
        self.by_upload_token: dict[str, WebClient] = {}
        self._handler = handler = WebRequestHandler(self)
        self._servers = [XMLRPCServer(("127.0.0.1", port), loop, handler)]
        self.port = self._servers[0].port
        try:  # browsers try both addresses of "localhost"; no other program should be found at the second
            self._servers.append(XMLRPCServer(("::1", self.port), loop, handler))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                log.warning(
                    "Another program listens on port %d of the address ::1, where browsers may look for the hub first: "
                    "pages may find that program instead of the hub.",
                    self.port,
                )
            else:
                log.debug("The Web Profile is not served by IPv6: %s", error)
        for server in self._servers:
            server.start()
        if upload:
            loop.run_in_worker(remove_stale_dirs)
        log.info("The hub serves the Web Profile on port %d", self.port)

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://localhost:{self.port}/"

    def wait_until_delivered(self, timeout: float) -> bool:
        """
        Wait until the pages have pulled their callbacks; return False if that takes longer than the timeout.

        Do not call this in the loop's thread.
        """
        self._all_delivered = event = threading.Event()
        self.loop.call_soon(self.check_delivered)
        return event.wait(timeout)

    def check_delivered(self) -> None:
        """End `wait_until_delivered` if no callback waits for a page that is likely to pull it soon."""
        if self._all_delivered is not None and not any(web.has_pending for web in self._web_clients.values()):
            self._all_delivered.set()

    def stop(self) -> None:
        """Deny open requests, deliver waiting callbacks, close the server. Called in the loop's thread."""
        self._consent.close()
        for web_client in list(self._web_clients.values()):
            web_client.flush_and_close()
        for stop in (self.url_proxy.stop, *(server.stop for server in self._servers)):
            self.loop.call_soon(stop)  # after the faults for denied registrations, which are queued in the loop (R48)

    def remove_files(self) -> None:
        """Remove what pages have uploaded; called when the loop has stopped. Blocks."""
        if self.upload_server is not None:
            self.upload_server.close()

    # Used by the handler, in the loop's thread

    def request_registration(self, request: ConsentRequest, connection: ServerConnection) -> DeferredResponse:
        """Register a page if the user agrees (R40)."""
        self._check_limit()
        if is_other_user(connection.peer, self.port):  # it could send any origin, even one that is always allowed
            raise SAMPProxyError(REFUSED, "The Web Profile serves only the user that runs the hub")
        response = DeferredResponse()

        def on_decision(decision: Decision) -> None:
            self.loop.call_soon(self._on_decision, request, connection, response, decision)

        ticket = self._consent.submit(request, on_decision)
        response.add_cancel_callback(lambda: self._consent.cancel(ticket, on_decision))
        return response

    def web_client(self, client: Client) -> WebClient:
        """Return the `WebClient` of a client."""
        try:
            return self._web_clients[client.client_id]
        except KeyError:  # disconnected after its key was checked
            raise SAMPProxyError(1, "This client is no longer registered with the hub") from None

    def allow_callbacks(self, client: Client, *, allow: bool) -> None:
        """Make a client callable or not callable (R13)."""
        web_client = self.web_client(client)
        if allow == client.callable:
            return
        self.broker.set_callable(client, allow)
        if allow:
            web_client.expect_pull()
        else:
            # After the deliveries that are still on their way to its queue
            self.loop.call_soon(self._drop_callbacks, client, web_client)

    def has_waiting_pull(self, client: Client) -> bool:
        """Whether a client waits for callbacks."""
        web_client = self._web_clients.get(client.client_id)
        return web_client is not None and web_client.has_waiting_pull

    def mark_active(self, client: Client, request: HTTPRequest, connection: ServerConnection) -> None:
        """Note that a client has made a request (R43)."""
        if (web_client := self._web_clients.get(client.client_id)) is not None:
            web_client.mark_active(connection, is_browser=bool(browser_key(request.headers)))

    def allow_urls(self, client: Client, value: SAMPValue) -> None:
        """Allow a page to read the URLs in a value from a Standard Profile client (R46). Called in any thread."""
        if (web_client := self._web_clients.get(client.client_id)) is not None:
            self.url_permissions.allow_offered(web_client.token, value)

    def pop_final_message(self, key: str) -> PreEncoded | None:
        """Return the message for a client that was disconnected between two pulls, once (R26)."""
        return self._final_messages.pop(key, None)

    def is_being_disconnected(self, key: str) -> bool:
        """Whether the client with this key is being disconnected: its next pull will return the final message."""
        return any(web.client.private_key == key and not web.client.is_active for web in self._web_clients.values())

    # Registration and its end

    def _on_decision(
        self, request: ConsentRequest, connection: ServerConnection, response: DeferredResponse, decision: Decision
    ) -> None:
        if not connection.peer_is_open():
            response.cancel()  # the loop has not yet processed that the page closed the connection
        elif decision is Decision.DENY:
            response.set_exception(SAMPProxyError(REFUSED, f"The user did not allow {request.name} to register"))
        elif response.state == "waiting":
            try:
                self._register(request, response)
            except SAMPProxyError as fault:  # there are too many clients, or the hub is shutting down
                response.set_exception(fault)

    def _register(self, request: ConsentRequest, response: DeferredResponse) -> None:
        """Register a page that the user has allowed. The broker does not get its name: pages declare their metadata."""
        self._check_limit()  # again: one decision may allow many pages
        origin = request.origin
        web_client = WebClient(self, origin)
        web_client.is_relayed = request.details.get("x-samp.relay") == "1"
        web_client.client = client = self.broker.register(PROFILE, web_client, send_filter=self._send_filter)
        self._web_clients[client.client_id] = web_client
        self.url_permissions.add_client(web_client.token, origin)
        # A page that goes away before it has its key is unregistered
        response.on_sent = lambda sent: None if sent else self.broker.unregister(client)
        url = self.url.rstrip("/")
        info = {
            **self._handler.registration_info(client),
            "samp.url-translator": f"{url}{TRANSLATOR}{web_client.token}?",
        }
        if self.upload_server is not None:
            # The URL counts as offered by a program, or the page would block it for all pages when it mentions it
            web_client.uploads = self.upload_server.add_client(
                partial(self.url_permissions.allow_offered, web_client.token)
            )
            self.by_upload_token[web_client.upload_token] = web_client
            info["x-samp.upload"] = f"{url}{UPLOAD}{web_client.upload_token}/"
        response.set_result(info)

    def _check_limit(self) -> None:
        if len(self._web_clients) >= MAX_CLIENTS:
            raise SAMPProxyError(REFUSED, f"There are {MAX_CLIENTS} web clients; no more can register")

    def remove(self, web_client: WebClient) -> None:
        """Forget a web client that the broker has unregistered."""
        if web_client.final_message is not None:
            self._final_messages[web_client.client.private_key] = web_client.final_message
            if len(self._final_messages) > MAX_FINAL_MESSAGES:
                del self._final_messages[next(iter(self._final_messages))]
        self._web_clients.pop(web_client.client.client_id, None)
        self.url_permissions.remove_client(web_client.token)
        self.by_upload_token.pop(web_client.upload_token, None)
        if web_client.uploads is not None:
            self.loop.run_in_worker(web_client.uploads.close)  # which removes its files

    def _drop_callbacks(self, client: Client, web_client: WebClient) -> None:
        for delivery in web_client.clear():
            self.broker.delivery_failed(delivery, f"{client.display_name} no longer accepts callbacks")

    def _on_transfer_end(self, sock: socket.socket) -> None:
        for server in self._servers:  # one of them has accepted it
            server.table.close_detached(sock)
