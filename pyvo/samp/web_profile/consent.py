# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Consent: the user decides whether a web page may register (R40, R41).

A page that registers gets nothing before the user has seen its name and the origin of its request, and has agreed.
`ConsentQueue` shows one consent request at a time; the other requests wait, and no other client waits for them. A
`ConsentPrompt` shows a request; `make_prompt` creates the prompt from the ``web_profile_dialog`` of a hub.

A browser that restores a session loads many tabs of one origin at the same moment, and each of them registers. While a
request of an origin is open, further registrations from that origin share the decision, be it yes or no. The name does
not matter: a page can state any name, and what one page of an origin may do, all of them can do. Unrelated pages may
have the origin ``null``, and programs may state no origin. Their registrations share nothing: the user decides about
each.

On a JupyterHub the pages of all users have the same origin and differ in their path, which browsers do not send. A page
can declare this when it registers (`SHARED_ORIGIN_KEY`). Such a registration shares nothing, and cannot be allowed
always. Once such a registration was allowed, all later ones of the origin are treated like it, whatever they declare.

A prompt runs in a worker thread and may take as long as the user does. When all pages that wait for the decision have
gone away, the request is cancelled: a prompt that can close does so, and the decision of one that cannot is ignored.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from ..errors import SAMPProxyError
from ..protocol import SAMPValue
from ..protocol.values import sanitize_for_display

log = logging.getLogger(__name__)

#: Code of the fault for a page that may not register.
REFUSED = 2
#: Seconds for which a request is shown; without a decision it is then denied.
CONSENT_TIMEOUT = 300.0
#: Seconds for which a request waits to be shown, before it is denied: some requests ahead of it may take
#: `CONSENT_TIMEOUT` each.
QUEUE_TIMEOUT = 1800.0
#: Seconds that a prompt has to close when its request has expired.
CANCEL_TIMEOUT = 5.0
#: Requests that may wait, from all pages together.
MAX_WAITING = 32
#: Requests of the origin ``null`` that may be open: any page can make frames with this origin, and must not use up
#: `MAX_WAITING`.
MAX_NULL = 8
#: Registrations that may share one decision; more than the tabs of a session.
MAX_SHARING = 64
#: Connections that a browser opens to one host. The registrations of further tabs wait in the browser until the first
#: ones have a response.
BROWSER_CONNECTIONS = 6
#: Seconds for which a decision that `BROWSER_CONNECTIONS` registrations have shared also applies to registrations that
#: waited in the browser.
LATE_SHARING = 2.0
#: Key in a registration; the value "1" means that several users share the origin of the page.
SHARED_ORIGIN_KEY = "x-samp.shared-origin"
#: Maximum number of characters of an origin, which is shown and compared as a whole. A host name has at most 253.
MAX_ORIGIN = 300
#: What consent means, for the user.
CONSENT_TEXT = (
    "If you allow it, the page can see which programs are connected, send them data and messages, "
    "and read the data that they offer to it."
)
#: Added if the hub accepts uploads.
UPLOAD_TEXT = (
    " It can also store up to 4 GiB of data for them in temporary files on this computer, until it disconnects."
)
#: Added if other pages share the decision.
SHARED_TEXT = " Your decision also applies to other pages of this origin that ask at the same time."


class Decision(Enum):
    """What the user decided."""

    DENY = "deny"
    ONCE = "once"
    ALWAYS = "always"


class ConsentRequest(NamedTuple):
    """
    A registration to decide about. All texts are safe for display: one line, no control characters, limited length.

    ``origin`` is the one that the browser put into the HTTP request, never one that the page states itself. It is empty
    for a program that states none, and ``"null"`` for pages that have none (from files, in sandboxed frames).
    ``can_upload``: whether the hub would accept uploads. ``shared_origin``: whether pages of other users have the same
    origin, as on a JupyterHub.
    """

    name: str
    origin: str
    details: Mapping[str, Any]
    peer: tuple[str, int]
    can_upload: bool = False
    shared_origin: bool = False

    @property
    def can_always_allow(self) -> bool:
        """Whether a decision can hold for the origin: unrelated pages have ``null`` or none, or share one."""
        return self.origin not in ("", "null") and not self.shared_origin

    @property
    def meaning(self) -> str:
        """What consent means, for the user."""
        text = CONSENT_TEXT
        if self.can_upload:
            text += UPLOAD_TEXT
        if self.can_always_allow:
            text += SHARED_TEXT
        return text

    @property
    def origin_text(self) -> str:
        """The origin, for the user."""
        if not self.origin:
            return "none (a program on this computer, not a web page in a browser)"
        if self.origin == "null":
            return "null (a page from a file, or in a sandboxed frame)"
        return f"{self.origin} (pages of other users have the same)" if self.shared_origin else self.origin


def parse_registration(
    identity: SAMPValue, origin: str, peer: tuple[str, int], *, can_upload: bool = False
) -> ConsentRequest:
    """
    Make a consent request from a registration.

    ``identity`` is a map with ``samp.name``, or only the name, which old clients send (R40). ``origin`` is the header
    of the request. A `SAMPProxyError` is raised if the name is missing, or if the origin cannot be shown as it is.
    """
    details = {"samp.name": identity} if isinstance(identity, str) else identity
    name = details.get("samp.name") if isinstance(details, dict) else None
    if not isinstance(details, dict) or not isinstance(name, str) or not sanitize_for_display(name):
        raise SAMPProxyError(1, "To register, a web page must state its name: a map with samp.name")
    origin = origin.lower()
    if sanitize_for_display(origin, MAX_ORIGIN) != origin:  # "always" must hold for exactly what the user has seen
        raise SAMPProxyError(REFUSED, "The page's origin cannot be shown to the user as it is")
    shown = {
        sanitize_for_display(key): sanitize_for_display(value, 500)
        for key, value in details.items()
        if isinstance(value, str)
    }
    shared_origin = details.get(SHARED_ORIGIN_KEY) == "1"
    return ConsentRequest(sanitize_for_display(name), origin, shown, peer, can_upload, shared_origin)


class ConsentTicket:
    """
    An open consent request, with the registrations that wait for the decision.

    It ends with the first of these: a decision, its expiry, or the cancellation of all its registrations.
    """

    def __init__(self, request: ConsentRequest, on_decision: Callable[[Decision], object]) -> None:
        self.request = request
        self.timer: Any = None
        #: How many registrations have shared it.
        self.sharing = 1
        self._waiting = [on_decision]
        self._on_cancel: Callable[[], object] | None = None
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether a registration still waits for the decision."""
        return bool(self._waiting)

    def share(self, on_decision: Callable[[Decision], object]) -> bool:
        """Add a registration that waits for the decision; return False if the ticket is no longer open."""
        with self._lock:
            if not self._waiting:
                return False
            self._waiting.append(on_decision)
            self.sharing += 1
        return True

    def decide(self, decision: Decision) -> bool:
        """Pass the decision to the registrations; return False if the ticket is no longer open."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._on_cancel = None
        if not waiting:
            return False
        self._cancel_timer()
        for on_decision in waiting:
            on_decision(decision)
        return True

    def cancel(self, on_decision: Callable[[Decision], object] | None = None, *, deny: bool = False) -> None:
        """
        Cancel one registration, or all of them; with the last one the request ends.

        ``on_decision`` identifies the registration: it is the function that was submitted for it. With ``deny``, the
        last ones are denied. Without, they get no decision, because their pages have gone away.
        """
        with self._lock:
            cancelled = [each for each in self._waiting if on_decision in (None, each)]
            self._waiting = [each for each in self._waiting if each not in cancelled]
            if not cancelled or self._waiting:
                return
            callback, self._on_cancel = self._on_cancel, None
        self._cancel_timer()
        if deny:
            for each in cancelled:
                each(Decision.DENY)
        if callback is not None:
            callback()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` when the request is cancelled (immediately if it already is)."""
        with self._lock:
            if self._waiting:
                self._on_cancel = callback
                return
        callback()

    def set_timer(self, timer: Any) -> None:
        """Replace the running timer; it is cancelled when the ticket ends."""
        self._cancel_timer()
        self.timer = timer
        if not self.open:
            self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class ConsentPrompt(ABC):
    """A way to ask the user."""

    #: Whether another request may be shown while the previous one is stuck. Two prompts in one terminal would get mixed
    #: up.
    concurrent = False

    @abstractmethod
    def ask(self, ticket: ConsentTicket) -> Decision:
        """Show the request and wait for the decision; called in a worker thread, for one request at a time."""

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """End a waiting `ask` if possible, because the hub stops. Its ticket has been cancelled before."""


class ConsentQueue:
    """
    The consent requests that are shown or wait (R41).

    ``run_in_worker(function)`` runs a function in another thread. ``call_later(seconds, function)`` runs it later, and
    returns an object with a ``cancel`` method. A request is shown for ``timeout`` seconds.
    """

    def __init__(
        self,
        prompt: ConsentPrompt,
        run_in_worker: Callable[[Callable[[], object]], object],
        call_later: Callable[[float, Callable[[], object]], Any],
        *,
        timeout: float = CONSENT_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prompt = prompt
        self._run_in_worker = run_in_worker
        self._call_later = call_later
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[ConsentTicket] = deque()
        self._shown: ConsentTicket | None = None
        self._stuck = False  # the prompt of one worker has not returned, and another worker has taken over
        self._busy = False
        self._closed = False
        self._always: set[str] = set()
        self._shared_origins: set[str] = set()  # declared by pages that the user has allowed
        self._late: tuple[str, Decision, float, int] | None = None  # origin, decision, until when, for how many more

    def submit(self, request: ConsentRequest, on_decision: Callable[[Decision], object]) -> ConsentTicket:
        """
        Queue a request, or share the decision about an open one of the same origin.

        ``on_decision(decision)`` is called once, from any thread, unless the request is cancelled before. If too many
        requests are open, this one is refused with a `SAMPProxyError`.
        """
        with self._lock:
            if self._closed:
                raise SAMPProxyError(REFUSED, "The hub is being stopped")
            if request.shared_origin:
                self._always.discard(request.origin)
            elif request.origin in self._shared_origins:
                request = request._replace(shared_origin=True)
            ticket = ConsentTicket(request, on_decision)
            known = self._known_decision(request)
            if known is None:
                if (shared := self._share(request, on_decision)) is not None:
                    return shared
                self._enqueue(ticket)
            start = known is None and not self._busy
            self._busy = self._busy or start
        if known is not None:
            _log_decision(request, known, 1)
            ticket.decide(known)
        if start:
            self._run_in_worker(self._prompt_loop)
        return ticket

    def cancel(
        self, ticket: ConsentTicket, on_decision: Callable[[Decision], object] | None = None, *, deny: bool = False
    ) -> None:
        """Cancel one registration of a ticket or all of them, see `ConsentTicket.cancel`."""
        ticket.cancel(on_decision, deny=deny)
        with self._lock:
            if ticket in self._waiting and not ticket.open:
                self._waiting.remove(ticket)

    def close(self) -> None:
        """Deny all open requests, and reject new ones."""
        with self._lock:
            self._closed = True
            tickets = self._open_tickets()
            self._waiting.clear()
        for ticket in tickets:
            ticket.cancel(deny=True)
        self._prompt.close()

    def _known_decision(self, request: ConsentRequest) -> Decision | None:
        """Return the decision that already applies to a request, if there is one."""
        if not request.can_always_allow:
            return None
        if request.origin in self._always:
            return Decision.ALWAYS
        if self._late is not None:
            origin, decision, end, remaining = self._late
            if self._clock() < end and remaining > 0 and origin == request.origin:
                self._late = (origin, decision, end, remaining - 1)
                return decision
        return None

    def _share(self, request: ConsentRequest, on_decision: Callable[[Decision], object]) -> ConsentTicket | None:
        """Add a registration to the open ticket of its origin, if there is one."""
        if not request.can_always_allow:
            return None
        for ticket in self._open_tickets():
            if ticket.request.origin == request.origin and ticket.request.can_always_allow and ticket.open:
                if ticket.sharing >= MAX_SHARING:
                    raise SAMPProxyError(
                        REFUSED, f"Too many pages of {request.origin} wait for the user's consent; try again later"
                    )
                if ticket.share(on_decision):
                    return ticket
        return None

    def _open_tickets(self) -> list[ConsentTicket]:
        # A cancelled request that is still shown counts as well, or a page could open any number of them
        return [*self._waiting, *([self._shown] if self._shown else [])]

    def _enqueue(self, ticket: ConsentTicket) -> None:
        origin = ticket.request.origin
        nulls = sum(other.request.origin == "null" for other in self._open_tickets()) if origin == "null" else 0
        if len(self._waiting) >= MAX_WAITING or nulls >= MAX_NULL:
            raise SAMPProxyError(REFUSED, "Too many web pages are waiting for the user's consent; try again later")
        ticket.timer = self._call_later(QUEUE_TIMEOUT, lambda: self._expire(ticket))
        self._waiting.append(ticket)

    def _prompt_loop(self) -> None:
        """Show one request after the other. One worker runs this, and perhaps a second one that is stuck."""
        while True:
            with self._lock:
                self._shown = ticket = self._waiting.popleft() if self._waiting else None
                self._busy = ticket is not None
            if ticket is None:
                return
            ticket.set_timer(self._call_later(self._timeout, partial(self._expire, ticket)))
            stuck_timer = self._call_later(self._timeout + CANCEL_TIMEOUT, partial(self._on_prompt_stuck, ticket))
            decision = self._ask(ticket)
            stuck_timer.cancel()
            with self._lock:
                if self._shown is not ticket:  # it was stuck, and another worker has taken over
                    self._stuck = False
                    return
                self._shown = None  # before the pages get the decision: they may register again at once
                if ticket.open:
                    self._remember(ticket, decision)
            if ticket.decide(decision):
                _log_decision(ticket.request, decision, ticket.sharing)

    def _remember(self, ticket: ConsentTicket, decision: Decision) -> None:
        """Keep a decision that applies always, or to tabs whose registrations still wait in the browser."""
        origin = ticket.request.origin
        if ticket.request.shared_origin and decision is not Decision.DENY:
            self._shared_origins.add(origin)
        if not ticket.request.can_always_allow:
            return
        if decision is Decision.ALWAYS:
            self._always.add(origin)
        elif ticket.sharing >= BROWSER_CONNECTIONS:
            self._late = (origin, decision, self._clock() + LATE_SHARING, MAX_SHARING - ticket.sharing)

    def _ask(self, ticket: ConsentTicket) -> Decision:
        if not ticket.open:
            return Decision.DENY
        try:
            return self._prompt.ask(ticket)
        except BaseException:  # whatever went wrong, even `sys.exit`, the user has not agreed
            log.exception("The user could not be asked about %s", ticket.request.name)
            return Decision.DENY

    def _on_prompt_stuck(self, ticket: ConsentTicket) -> None:
        """Continue without a prompt that does not return, because all other requests wait for it."""
        self._expire(ticket)
        with self._lock:
            if self._shown is not ticket:
                return
            name = ticket.request.name
            if self._closed or self._stuck or not self._prompt.concurrent:
                log.warning("The prompt for %s is still open: no other page can register before it ends", name)
                return
            self._stuck = True
            self._shown = None
        log.warning("The prompt for %s does not return; the next ones are shown without waiting for it", name)
        self._run_in_worker(self._prompt_loop)

    def _expire(self, ticket: ConsentTicket) -> None:
        if ticket.open:
            log.info("The user did not decide about %s in time: denied", ticket.request.name)
        self.cancel(ticket, deny=True)


def _log_decision(request: ConsentRequest, decision: Decision, pages: int) -> None:
    outcome = "not allowed" if decision is Decision.DENY else f"allowed ({decision.value})"
    more = f", with {pages - 1} more of this origin" if pages > 1 else ""
    log.info("Web page %s (%s): %s%s", request.name, request.origin_text, outcome, more)
