# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Asking the user whether a web page may join (R40, R41).

A page that registers gets nothing before the user has seen a name and the origin of its request, and
has agreed. `ConsentDesk` keeps the questions in order: one is shown at a time, the others wait behind
it, and nobody else is held up. How a question is put is the business of an *asker*; `make_asker` turns what a user
gave as ``web_profile_dialog`` into one.

A browser that restores a session loads many tabs of one origin at the same moment, and each of them registers. While
a question about an origin is open, further registrations from that origin share its answer, be it yes or no. The name
makes no difference: a page states any name it likes, and what one page of an origin may do, all of them can do. The
origin ``null``, which unrelated pages have, and programs that state no origin share nothing: each is asked about.

An asker runs in a worker thread and may take as long as the user does. When all pages that wait for the answer go away
meanwhile, the ticket is withdrawn: an asker that can take its question back does so; the answer of one that can't is
ignored.
"""

from __future__ import annotations

import logging
import threading
import time
import unicodedata
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SAMPProxyError

if TYPE_CHECKING:
    from ..protocol import SAMPValue

__all__ = ["ConsentPrompt", "ConsentQueue", "ConsentRequest", "ConsentTicket", "Decision", "parse_registration", "sanitize_for_display"]

log = logging.getLogger(__name__)

#: Code of the fault that a page gets when it may not register.
REFUSED = 2
#: Seconds for which a question is shown without an answer before it counts as refused.
CONSENT_TIMEOUT = 300.0
#: Seconds for which a question waits for its turn before it counts as refused: some others may take `PATIENCE` each.
TURN_TIME = 1800.0
#: Seconds that an asker has to take back a question that has lapsed.
CANCEL_TIMEOUT = 5.0
#: Questions that may wait at a time, from all pages together.
MAX_WAITING = 32
#: Questions about the origin ``null`` that may be open at a time: any page can make a frame that has this origin, and
#: must not take all of `MAX_WAITING`.
MAX_NULL = 8
#: Registrations that may wait for the answer to one question; more than the tabs of a session.
MAX_SHARING = 64
#: Connections that a browser opens to one host. The registrations of more tabs wait in the browser, and come when the
#: first ones have been answered.
BROWSER_CONNECTIONS = 6
#: Seconds for which an answer that so many registrations have shared serves those that waited in the browser.
LATE_SHARING = 2.0
#: Characters that an origin may have: it is shown and compared as a whole. A host's name has 253 at most.
MAX_ORIGIN = 300
#: What a user is told that consent means.
CONSENT_TEXT = (
    "If you allow it, the page can see which programs are connected, send them data and messages, "
    "and read the data that they offer to it."
)
#: What a user is told besides, if pages share the answer.
SHARED_MEANING = " Your answer also holds for other pages of this origin that ask at the same time."


class Decision(Enum):
    """What the user said."""

    DENY = "deny"
    ONCE = "once"
    ALWAYS = "always"


class ConsentRequest(NamedTuple):
    """
    What the user is to decide. All texts are fit for display: one line, no control characters, bounded length.

    ``origin`` is the one that the browser put into the HTTP request, never a claim of the page. It is empty for a
    program that states none, and ``"null"`` for pages that have none (from files, in sandboxed frames).
    """

    name: str
    origin: str
    details: Mapping[str, Any]
    peer: tuple[str, int]

    @property
    def can_always_allow(self) -> bool:
        """Whether the origin says who asks, so that an answer holds for it: unrelated pages have ``null`` or none."""
        return self.origin not in ("", "null")

    @property
    def meaning(self) -> str:
        """What the user is told that consent means."""
        return CONSENT_TEXT + SHARED_MEANING if self.can_always_allow else CONSENT_TEXT

    @property
    def origin_text(self) -> str:
        """The origin in words."""
        if not self.origin:
            return "none stated (a program on this computer, or not a browser)"
        if self.origin == "null":
            return "null (a page from a file, or a sandboxed frame)"
        return self.origin


def sanitize_for_display(text: str, limit: int = 80) -> str:
    """
    Make a text that a stranger sent fit to be shown.

    Parameters
    ----------
    text : str
        Anything.
    limit : int
        The most characters that the result has.

    Returns
    -------
    str
        One line. What could move the cursor, colour the terminal or reverse the direction of writing is
        replaced by a question mark.
    """
    shown = text[: 4 * limit]
    if not (shown.isascii() and shown.isprintable()):
        shown = unicodedata.normalize("NFC", shown)
        shown = "".join(" " if c in "\t\n\r" else "?" if _is_unsafe(c) else c for c in shown)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _is_unsafe(character: str) -> bool:
    # Cc control, Cf format (bidirectional overrides, zero-width), Cs surrogate, Co private, Cn unassigned, Zl and
    # Zp line ends
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def parse_registration(identity: SAMPValue, origin: str, peer: tuple[str, int]) -> ConsentRequest:
    """
    Read what a page says of itself when it registers.

    Parameters
    ----------
    identity : SAMPValue
        A map with ``samp.name``; old clients send the bare name (R40).
    origin : str
        The Origin header of the request; empty when there is none.
    peer : tuple of (str, int)
        Address and port at the other end.

    Returns
    -------
    Question
        What to ask.

    Raises
    ------
    SAMPProxyError
        The page states no name, or its origin is none that a browser states.
    """
    details = {"samp.name": identity} if isinstance(identity, str) else identity
    name = details.get("samp.name") if isinstance(details, dict) else None
    if not isinstance(details, dict) or not isinstance(name, str) or not sanitize_for_display(name):
        raise SAMPProxyError(1, "To register, a web page must state its name: a map with samp.name")
    origin = origin.lower()
    if sanitize_for_display(origin, MAX_ORIGIN) != origin:  # "always" must hold for what the user has seen, and nothing else
        raise SAMPProxyError(REFUSED, "The page's origin is none that a user could be shown")
    shown = {sanitize_for_display(key): sanitize_for_display(value, 500) for key, value in details.items() if isinstance(value, str)}
    return ConsentRequest(sanitize_for_display(name), origin, shown, peer)


class ConsentTicket:
    """
    One question on its way to an answer, and the registrations that wait for it.

    The first of answer, lapse, and withdrawal of all registrations counts.
    """

    def __init__(self, question: ConsentRequest, answered: Callable[[Decision], object]) -> None:
        self.request = question
        self.timer: Any = None
        #: How many registrations have shared it.
        self.sharing = 1
        self._waiting = [answered]
        self._cancel_prompt: Callable[[], object] | None = None
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether somebody still waits for the answer."""
        return bool(self._waiting)

    def share(self, answered: Callable[[Decision], object]) -> bool:
        """Add a registration that waits for the answer; False when nobody waits for it any more."""
        with self._lock:
            if not self._waiting:
                return False
            self._waiting.append(answered)
            self.sharing += 1
        return True

    def decide(self, answer: Decision) -> bool:
        """Give the answer; False when nobody waits for it any more."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._cancel_prompt = None
        if not waiting:
            return False
        self._cancel_timer()
        for answered in waiting:
            answered(answer)
        return True

    def cancel(self, answered: Callable[[Decision], object] | None = None, *, tell: bool = False) -> None:
        """
        Take a registration back, and with the last one the question.

        Parameters
        ----------
        answered : callable, optional
            What waits for the answer for that registration; by default all are taken back.
        tell : bool
            Whether those who wait get a refusal; a page that has gone away does not.
        """
        with self._lock:
            gone = [each for each in self._waiting if answered in (None, each)]
            self._waiting = [each for each in self._waiting if each not in gone]
            if not gone or self._waiting:
                return
            take_back, self._cancel_prompt = self._cancel_prompt, None
        self._cancel_timer()
        if tell:
            for each in gone:
                each(Decision.DENY)
        if take_back is not None:
            take_back()

    def on_cancel(self, take_back: Callable[[], object]) -> None:
        """Have ``take_back()`` called when the question has become pointless; at once when it has already."""
        with self._lock:
            if self._waiting:
                self._cancel_prompt = take_back
                return
        take_back()

    def set_timer(self, timer: Any) -> None:
        """Put a timer in the place of the one that runs; both end with the ticket."""
        self._cancel_timer()
        self.timer = timer
        if not self.open:
            self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class ConsentPrompt(ABC):
    """A way to put a question to the user."""

    #: Whether another question may be asked while the one before has not come back. Two questions in one terminal
    #: would be taken for each other.
    concurrent = False

    @abstractmethod
    def ask(self, ticket: ConsentTicket) -> Decision:
        """Ask, and wait for the answer; called in a worker thread, one question at a time."""

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Let an `ask` that waits end, if it can: the hub stops. Its ticket has been withdrawn before."""


class ConsentQueue:
    """
    The queue of questions to the user (R41).

    Parameters
    ----------
    asker : Asker
        Puts a question to the user.
    run_in_worker : callable
        ``run_in_worker(function)`` runs it in another thread.
    call_later : callable
        ``call_later(seconds, function)`` runs it later, and returns something with a ``cancel`` method.
    patience : float
        Seconds for which a question is shown; then it counts as refused.
    clock : callable
        Returns the seconds of a clock that is not set.
    """

    def __init__(
        self,
        asker: ConsentPrompt,
        run_in_worker: Callable[[Callable[[], object]], object],
        call_later: Callable[[float, Callable[[], object]], Any],
        *,
        patience: float = CONSENT_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prompt = asker
        self._run_in_worker = run_in_worker
        self._call_later = call_later
        self._timeout = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[ConsentTicket] = deque()
        self._shown: ConsentTicket | None = None
        self._stuck = False  # a worker's question has not come back, and another worker goes on
        self._busy = False
        self._closed = False
        self._always: set[str] = set()
        self._late: tuple[str, Decision, float, int] | None = None  # origin, answer, until when, for how many more

    def submit(self, question: ConsentRequest, answered: Callable[[Decision], object]) -> ConsentTicket:
        """
        Queue a question, or share the answer to one about the same origin that is open.

        Parameters
        ----------
        question : Question
            What to ask.
        answered : callable
            ``answered(answer)`` is called once, from any thread, unless it is withdrawn before.

        Returns
        -------
        Ticket
            What `withdraw` takes back.

        Raises
        ------
        SAMPProxyError
            The question is refused without being asked: there are too many.
        """
        ticket = ConsentTicket(question, answered)
        with self._lock:
            if self._closed:
                raise SAMPProxyError(REFUSED, "The hub is being stopped")
            known = self._known_answer(question)
            if known is None:
                if (shared := self._share(question, answered)) is not None:
                    return shared
                self._enqueue(ticket)
            start = known is None and not self._busy
            self._busy = self._busy or start
        if known is not None:
            _log_answer(question, known, 1)
            ticket.decide(known)
        if start:
            self._run_in_worker(self._prompt_loop)
        return ticket

    def cancel(
        self, ticket: ConsentTicket, answered: Callable[[Decision], object] | None = None, *, tell: bool = False
    ) -> None:
        """
        Take a question back, or one of the registrations that share its answer.

        Parameters
        ----------
        ticket : Ticket
            What `submit` returned.
        answered : callable, optional
            What `submit` was given; by default all registrations are taken back.
        tell : bool
            Whether the pages get a refusal; one that has gone away does not.
        """
        ticket.cancel(answered, tell=tell)
        with self._lock:
            if ticket in self._waiting and not ticket.open:
                self._waiting.remove(ticket)

    def close(self) -> None:
        """Refuse everything that is open, and everything to come."""
        with self._lock:
            self._closed = True
            tickets = [*self._waiting, *([self._shown] if self._shown else [])]
            self._waiting.clear()
        for ticket in tickets:
            ticket.cancel(tell=True)
        self._prompt.close()

    def _known_answer(self, question: ConsentRequest) -> Decision | None:
        """Return the answer that holds for a question without asking, if there is one."""
        if not question.can_always_allow:
            return None
        if question.origin in self._always:
            return Decision.ALWAYS
        if self._late is not None:
            origin, answer, end, left = self._late
            if self._clock() < end and left > 0 and origin == question.origin:
                self._late = (origin, answer, end, left - 1)
                return answer
        return None

    def _share(self, question: ConsentRequest, answered: Callable[[Decision], object]) -> ConsentTicket | None:
        """Let a registration wait for the answer to an open question about its origin, if there is one."""
        if not question.can_always_allow:
            return None
        for ticket in self._open_tickets():
            if ticket.request.origin == question.origin and ticket.open:
                if ticket.sharing >= MAX_SHARING:
                    raise SAMPProxyError(
                        REFUSED, f"Too many pages of {question.origin} wait for the user's consent; try again later"
                    )
                if ticket.share(answered):
                    return ticket
        return None

    def _open_tickets(self) -> list[ConsentTicket]:
        # A question that was withdrawn but can't be taken off the screen counts, or its page could pile them up.
        return [*self._waiting, *([self._shown] if self._shown else [])]

    def _enqueue(self, ticket: ConsentTicket) -> None:
        origin = ticket.request.origin
        nulls = sum(other.request.origin == "null" for other in self._open_tickets()) if origin == "null" else 0
        if len(self._waiting) >= MAX_WAITING or nulls >= MAX_NULL:
            raise SAMPProxyError(REFUSED, "Too many web pages are waiting for the user's consent; try again later")
        ticket.timer = self._call_later(TURN_TIME, lambda: self._expire(ticket))
        self._waiting.append(ticket)

    def _prompt_loop(self) -> None:
        """Ask one question after the other; one worker is in here, and perhaps one more that is lost."""
        while True:
            with self._lock:
                self._shown = ticket = self._waiting.popleft() if self._waiting else None
                self._busy = ticket is not None
            if ticket is None:
                return
            ticket.set_timer(self._call_later(self._timeout, partial(self._expire, ticket)))
            overdue = self._call_later(self._timeout + CANCEL_TIMEOUT, partial(self._on_prompt_stuck, ticket))
            answer = self._ask(ticket)
            overdue.cancel()
            with self._lock:
                if self._shown is not ticket:  # it has lapsed long ago, and another worker goes on
                    self._stuck = False
                    return
                self._shown = None  # before the pages hear of it: they may ask again at once
                if ticket.open:
                    self._remember(ticket, answer)
            if ticket.decide(answer):
                _log_answer(ticket.request, answer, ticket.sharing)

    def _remember(self, ticket: ConsentTicket, answer: Decision) -> None:
        """Keep an answer: for always, or for the tabs whose registrations could not leave the browser before it."""
        if not ticket.request.can_always_allow:
            return
        if answer is Decision.ALWAYS:
            self._always.add(ticket.request.origin)
        elif ticket.sharing >= BROWSER_CONNECTIONS:
            self._late = (
                ticket.request.origin, answer, self._clock() + LATE_SHARING, MAX_SHARING - ticket.sharing
            )  # fmt: skip

    def _ask(self, ticket: ConsentTicket) -> Decision:
        if not ticket.open:
            return Decision.DENY
        try:
            return self._prompt.ask(ticket)
        except BaseException:  # whatever went wrong, `sys.exit` included, nobody has said yes
            log.exception("The question about %s could not be asked", ticket.request.name)
            return Decision.DENY

    def _on_prompt_stuck(self, ticket: ConsentTicket) -> None:
        """Go on without a question that does not come back: all others wait behind it."""
        self._expire(ticket)
        with self._lock:
            if self._shown is not ticket:
                return
            name = ticket.request.name
            if self._closed or self._stuck or not getattr(self._prompt, "asks_beside", False):
                log.warning("The question about %s is still open: no other page is asked about before it ends", name)
                return
            self._stuck = True
            self._shown = None
        log.warning("The question about %s does not come back; others are asked about without it", name)
        self._run_in_worker(self._prompt_loop)

    def _expire(self, ticket: ConsentTicket) -> None:
        if ticket.open:
            log.info("Nobody said whether %s may join: refused", ticket.request.name)
        self.cancel(ticket, tell=True)


def _log_answer(question: ConsentRequest, answer: Decision, pages: int) -> None:
    verdict = "not allowed" if answer is Decision.DENY else f"allowed ({answer.value})"
    more = f", with {pages - 1} more of this origin" if pages > 1 else ""
    log.info("Web page %s (%s): %s%s", question.name, question.origin_text, verdict, more)
