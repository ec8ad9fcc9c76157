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

from ..broker import Broker, Client, Delivery, Payload
from ..broker.deliveries import CALL
from ..broker.operations import HubOperations
from ..constants import SAFE_MTYPES
from ..errors import SAMPProxyError
from ..protocol import SAMPValue, parse_bool, parse_float
from ..transport.event_loop import Loop
from ..transport.http11 import HTTPError, Request, Response
from ..transport.server import Connection, XMLRPCServer
from ..transport.server_connection import Deferred
from ..transport.xmlrpc_handler import Call
from ..transport.xmlrpc_writer import Raw
from .consent import REFUSED, Answer, ConsentDesk, Question, make_question
from .consent_prompts import WebProfileDialog, make_asker
from .cors import (
    CLIENT_ACCESS_POLICY,
    CROSS_DOMAIN,
    DATA_ONLY,
    METHODS,
    browser_of,
    cors_headers,
    is_loopback,
    is_own_host,
    preflight_headers,
    sending_rule,
)
from .peer_uid import is_of_another_user
from .pull_queue import Pull, PullLimit, WebMailbox
from .url_permissions import UrlBook, keys_in
from .url_proxy import Translator

if TYPE_CHECKING:
    from ..broker import Broker, Client
    from ..transport.event_loop import Loop
    from ..transport.server import Connection
    from .consent import Question
    from .pull_queue import WebMailbox

__all__ = [
    "CLIENT_ACCESS_POLICY",
    "CROSS_DOMAIN",
    "Joining",
    "Member",
    "PORT",
    "PROFILE",
    "TRANSLATOR",
    "WebProfile",
    "WebProfileDialog",
    "WebRequests",
]

log = logging.getLogger(__name__)

#: Calls that are remembered for each page, so that its late answers are told from forged ones.
MAX_CALLS = 10_000


class Member:
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

    def __init__(self, client: Client, mailbox: WebMailbox, token: str) -> None:
        self.client = client
        self.mailbox = mailbox
        self.token = token
        #: Msg-ids of the calls that it was handed and has not answered, the latest.
        self.calls: dict[str, None] = {}

    def was_called(self, msg_id: str) -> None:
        """Remember a call."""
        self.calls[msg_id] = None
        if len(self.calls) > MAX_CALLS:
            del self.calls[next(iter(self.calls))]

    def answers(self, msg_id: str) -> bool:
        """Whether this is the first answer to a call that it was handed."""
        return self.calls.pop(msg_id, self) is None


class Joining:
    """
    A page on its way in.

    Parameters
    ----------
    question : Question
        What the user is asked.
    connection : Connection
        What the page waits on.
    """

    def __init__(self, question: Question, connection: Connection) -> None:
        self.question = question
        self.connection = connection
        self.answer = Deferred()
        #: What it has become, if the user has agreed.
        self.client: Client | None = None


PROFILE = "web"
#: What the path of a translator's URL begins with; then comes the page's token (R46).
TRANSLATOR = "/translator/"

_PULL = "samp.webhub.pullCallbacks"
_POLICIES = {"/crossdomain.xml": CROSS_DOMAIN, "/clientaccesspolicy.xml": CLIENT_ACCESS_POLICY}


class WebRequests(HubOperations):
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
        self, profile: WebProfile, broker: Broker, loop: Loop, own: Mapping[str, Callable[..., Any]]
    ) -> None:
        super().__init__(PROFILE, "samp.webhub", broker, loop, own)
        self._web = profile

    def headers(self, request: Request | None) -> tuple[tuple[str, str], ...]:
        """What each answer bears (R44)."""
        return () if request is None else cors_headers(request.headers)

    def check(self, request: Request, connection: Connection) -> Response | None:
        """Refuse what does not come from a browser of this machine, or means another server (R45)."""
        if not is_loopback(connection.peer[0]):
            text = "The Web Profile serves this computer alone"
        elif not is_own_host(request.headers.get("host"), self._web.port):
            text = "This server goes by another name"
        elif request.method == "POST" and request.target.partition("?")[0] not in self.paths:
            text = "There is nothing at this path"
        else:
            return None
        # To sampjs anything but 200 is the end of the world: it calls back nobody and polls no more (R48)
        return self.fault(text, request) if request.method == "POST" else self.plain(403, text, request)

    def refuse(self, error: HTTPError) -> Response:
        """Answer what is no request or goes beyond a limit; a POST in the way of `check` (R48)."""
        method, headers = error.head or ("", {})
        request = Request(method, "", headers, b"", keep_alive=False)
        return self.fault(str(error), request) if method == "POST" else self.plain(error.status, str(error), request)

    def run(self, function: Callable[..., Any], call: Call) -> Any:
        """Run an operation; a tab that calls one is not the only one that wants to, so its browser needs room (R49)."""
        if call.method_call.name != _PULL:
            self._web.limit.hurry(browser_of(call.request.headers))
        return super().run(function, call)

    def handle_other(self, request: Request, connection: Connection) -> Response | None:
        """Answer what is no POST: preflights, the policies of Flash and Silverlight, URLs to be translated."""
        self._web.limit.hurry(browser_of(request.headers))
        if request.method == "OPTIONS":
            return Response(200, headers=(*self.headers(request), *preflight_headers(request)))
        if request.method not in {"GET", "HEAD"}:
            return self.plain(405, "This method is not answered here", request, (("Allow", METHODS),))
        path = request.target.partition("?")[0]
        if path in _POLICIES:
            return Response(200, _POLICIES[path].encode("ascii"), "text/xml", self.headers(request))
        if path.startswith(TRANSLATOR):
            return self._translate(request, connection)
        return self.plain(404, "This is a SAMP hub, for web pages that can talk to one", request)

    def _translate(self, request: Request, connection: Connection) -> Response | None:
        """Hand out what is at a URL, if the page that asks may have it (R46)."""
        url = self._web.find_url(request.target)
        if url is None:
            text = "No program has mentioned this URL to the page, or a page had mentioned it first"
            return self.plain(403, text, request)
        if self._web.translator.is_busy:
            return self.plain(503, "Too much is being read at the moment", request, (("Retry-After", "1"),))
        headers = (*self.headers(request), *DATA_ONLY)
        self._web.translator.start(connection.detach(), url, request.method, request.headers, headers)
        return None


STANDARD = "standard"
#: Where pages look for the hub (R39).
PORT = 21012
#: The operations without a key; what is in them goes to nobody.
_KEYLESS = ("samp.webhub.ping", "samp.webhub.register")
#: Web clients that may be registered at a time: a page that is allowed always could register for ever.
MAX_CLIENTS = 500
#: Farewells that are kept for pages which were thrown out and have not asked since.
MAX_LAST_WORDS = 100


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
        loop: Loop,
        *,
        port: int = PORT,
        dialog: Any = None,
        mtypes: Iterable[str] | None = None,
    ) -> None:
        self._broker = broker
        self._loop = loop
        self._may_reach = sending_rule(SAFE_MTYPES if mtypes is None else mtypes)
        self._desk = ConsentDesk(make_asker(dialog), loop.run_in_worker, loop.call_later)
        self._members: dict[str, Member] = {}  # by public id
        self._last_words: dict[str, Raw] = {}  # by private key, for pages that were thrown out between two pulls
        self.limit = PullLimit(loop)
        self._all_pulled: threading.Event | None = None
        self.book = UrlBook()
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
        self.translator = Translator(loop.run_in_worker, self._take_back)
        for server in self._servers:
            server.start()
        log.info("The hub serves the Web Profile on port %d", self.port)

    @property
    def url(self) -> str:
        """Where pages call."""
        return f"http://localhost:{self.port}/"

    def wait_delivered(self, timeout: float) -> bool:
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
        if self._all_pulled is not None and not any(m.mailbox.is_due for m in self._members.values()):
            self._all_pulled.set()

    def stop(self) -> None:
        """Refuse what is asked and give out what waits; then close the server. In the loop's thread."""
        self._desk.close()
        for member in list(self._members.values()):
            member.mailbox.finish()
        for stop in (self.translator.stop, *(server.stop for server in self._servers)):
            self._loop.call_soon(stop)  # behind the refusals, which are on their way (R48)

    # What the operations need; in the loop's thread

    def ask(self, question: Question, connection: Connection) -> Deferred:
        """Register a page when the user agrees (R40)."""
        self._check_number()
        if is_of_another_user(connection.peer, self.port):  # who can state any origin, one that is always allowed too
            raise SAMPProxyError(REFUSED, "The Web Profile serves the user alone who runs the hub")
        joining = Joining(question, connection)

        def answered(answer: Answer) -> None:
            self._loop.call_soon(self._on_verdict, joining, answer)

        ticket = self._desk.submit(question, answered)
        joining.answer.on_cancel(lambda: self._desk.withdraw(ticket, answered))
        joining.answer.on_sent = lambda sent: None if sent else self._undo(joining)
        return joining.answer

    def member(self, client: Client) -> Member:
        """Find a registered page."""
        try:
            return self._members[client.client_id]
        except KeyError:  # it was disconnected between two calls
            raise SAMPProxyError(1, "This client is no longer registered with the hub") from None

    def allow_callbacks(self, client: Client, *, allow: bool) -> None:
        """Make a client callable, or no longer (R13)."""
        mailbox = self.member(client).mailbox
        if allow != client.callable:
            self._broker.set_callable(client, allow)
            if allow:
                mailbox.await_first_pull()
            else:
                # what was put before is taken before
                self._loop.call_soon(self._drop_callbacks, client, mailbox)

    def was_heard(self, client: Client, connection: Connection | None) -> None:
        """Note that a page has made a request (R43), and by which connection of its browser."""
        if (member := self._members.get(client.client_id)) is not None:
            member.mailbox.was_heard(connection)

    def has_seen(self, client: Client, value: SAMPValue) -> None:
        """Note what a program of the Standard Profile said where a page could see it (R46). In any thread."""
        if (member := self._members.get(client.client_id)) is not None:
            self.book.note_program(member.token, value)

    def find_url(self, target: str) -> str | None:
        """Find what a translator's URL asks for: the token, ``?``, and the URL (R46); None if that may not be had."""
        token, _, url = target.removeprefix(TRANSLATOR).partition("?")
        return self.book.find(token, url)

    # Joining and leaving

    def _on_verdict(self, joining: Joining, verdict: Answer) -> None:
        answer = joining.answer
        if not joining.connection.is_there():
            answer.cancel()  # which the loop has yet to come to
        elif verdict is Answer.DENY:
            answer.fail(SAMPProxyError(REFUSED, f"The user did not allow {joining.question.name} to register"))
        elif answer.state == "waiting":
            self._enter(joining)

    def _enter(self, joining: Joining) -> None:
        mailbox = WebMailbox(
            self._loop,
            self.limit,
            on_overflow=lambda reason: self._broker.disconnect(member.client, reason),
            on_gone=lambda reason: self._broker.unregister(member.client, reason),
            on_delivery=lambda delivery: self._on_delivery(member, delivery),
            on_idle=self._check_pulled,
            on_closed=lambda: self._forget(member),
        )
        try:
            self._check_number()  # again: one answer may let in many pages at once
            client = self._broker.register(PROFILE, mailbox, may_reach=self._may_reach)
        except SAMPProxyError as fault:  # there are too many, or the hub is shutting down
            joining.answer.fail(fault)
            return
        member = Member(client, mailbox, secrets.token_urlsafe(18))
        self._members[client.client_id] = member
        self.book.open(member.token, joining.question.origin)
        joining.client = client
        joining.answer.resolve(
            {
                **self._operations.identity(client),
                "samp.url-translator": f"{self.url.rstrip('/')}{TRANSLATOR}{member.token}?",
            }
        )

    def _check_number(self) -> None:
        if len(self._members) >= MAX_CLIENTS:
            raise SAMPProxyError(REFUSED, f"There are {MAX_CLIENTS} web clients; no more can register")

    def _undo(self, joining: Joining) -> None:
        """Unregister a page that went away before it got its key."""
        if joining.client is not None:
            self._broker.unregister(joining.client)

    def last_words(self, key: str) -> Raw | None:
        """What a page that was thrown out between two pulls is told by its next one, once (R26)."""
        return self._last_words.pop(key, None)

    def is_leaving(self, key: str) -> bool:
        """Whether a page is just being thrown out, so that its next pull is told why."""
        return any(
            member.client.private_key == key and not member.client.is_active for member in self._members.values()
        )

    def _forget(self, member: Member) -> None:
        if member.mailbox.last_words is not None:
            self._last_words[member.client.private_key] = member.mailbox.last_words
            if len(self._last_words) > MAX_LAST_WORDS:
                del self._last_words[next(iter(self._last_words))]
        self._members.pop(member.client.client_id, None)
        self.book.close(member.token)

    def _drop_callbacks(self, client: Client, mailbox: WebMailbox) -> None:
        for delivery in mailbox.clear():
            self._broker.delivery_failed(delivery, f"{client.title} takes no callbacks any more")

    def _on_delivery(self, member: Member, delivery: Delivery) -> None:
        if delivery.kind == CALL and delivery.tag is not None:
            member.was_called(delivery.tag)
        if delivery.body.origin == STANDARD:
            self.book.note_program(member.token, delivery.body.value)

    def _take_back(self, sock: socket.socket) -> None:
        for server in self._servers:  # one of which it is from
            server.take_back(sock)


class _Operations(WebRequests):
    """The operations that only this profile has."""

    def __init__(self, profile: WebProfile, broker: Broker, loop: Loop) -> None:
        own: dict[str, Callable[..., Any]] = {
            "register": self.register,
            "allowReverseCallbacks": self.allow_reverse_callbacks,
            "pullCallbacks": self.pull_callbacks,
        }
        super().__init__(profile, broker, loop, own)

    # What only this profile has

    def register(self, identity: SAMPValue) -> Deferred:
        """Register a page, with the user's consent (R40)."""
        assert self.current is not None
        request, connection, _call = self.current
        question = make_question(identity, request.headers.get("origin", ""), connection.peer)
        return self._web.ask(question, connection)

    def allow_reverse_callbacks(self, key: str, allow: str) -> str:
        """Say whether the caller is going to pull callbacks (R39)."""
        self._web.allow_callbacks(self._client(key), allow=parse_bool(allow.strip()))
        return ""

    def pull_callbacks(self, key: str, timeout: str) -> Deferred | Raw | list[SAMPValue]:
        """Hand over the callbacks that wait, or wait for one (R42)."""
        assert self.current is not None
        request, connection, _call = self.current
        try:
            client = self._client(key)
        except SAMPProxyError:  # the usual pull does not pay for those who were thrown out
            if (last_words := self._web.last_words(key)) is not None:
                return last_words
            if self._web.is_leaving(key):
                return []
            raise
        pull = Pull(connection, browser_of(request.headers))
        return self._web.member(client).mailbox.pull(pull, parse_float(timeout.strip()))

    def reply(self, key: str, msg_id: str, response: dict[str, SAMPValue]) -> str:
        """
        Answer a call (R18, R21).

        An answer that comes after its time is dropped without a fault (R22): on a fault sampjs would leave the hub.
        """
        answers = self._web.member(self._client(key)).answers(msg_id)
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
            self._web.has_seen(self._client(key), metadata)
        return metadata

    def run(self, function: Callable[..., Any], call: Call) -> Any:
        """Run an operation; URLs in it are noted when it has succeeded, so that others can have seen them."""
        keys = keys_in(call.method_call.params)
        if not keys or call.method_call.name in _KEYLESS:
            return super().run(function, call)
        member = self._web.member(self._client(cast("str", call.method_call.params[0])))
        book = self._web.book
        if not book.has_room(member.token, keys):
            raise SAMPProxyError(1, "The pages of this origin have mentioned too many URLs and can send no new ones")
        result = super().run(function, call)
        book.note_page(member.token, keys)
        return result

    def _on_response(self, client: Client, response: Payload) -> None:
        if response.origin == STANDARD:
            self._web.has_seen(client, response.value)

    def _client(self, key: str) -> Client:
        client = super()._client(key)
        assert self.current is not None
        request, connection, _call = self.current
        self._web.was_heard(client, connection if browser_of(request.headers) else None)
        return client
