# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Asking the user whether a web page may join (R40, R41).

A page that registers gets nothing before the user has seen its name and the origin of its request, and
has agreed. `ConsentDesk` keeps the questions in order: one is shown at a time, the others wait behind
it, and nobody else is held up. How a question is put is the business of an *asker*; `make_asker` turns what a user
gave as ``web_profile_dialog`` into one.

An asker runs in a worker thread and may take as long as the user does. When the page goes away meanwhile, its ticket
is withdrawn: an asker that can take its question back does so; the answer of one that can't is ignored.
"""

from __future__ import annotations

import logging
import threading
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

__all__ = ["Answer", "Asker", "ConsentDesk", "Question", "Ticket", "display_text", "make_question"]

log = logging.getLogger(__name__)

#: Code of the fault that a page gets when it may not register.
REFUSED = 2
#: Seconds for which a question waits for its answer before it counts as refused.
PATIENCE = 300.0
#: Seconds that an asker has to take back a question that has lapsed.
TAKING_BACK = 5.0
#: Questions that may wait at a time, from all pages together.
MAX_WAITING = 32
#: Characters that an origin may have: it is shown and compared as a whole. A host's name has 253 at most.
MAX_ORIGIN = 300
#: What a user is told that consent means.
MEANING = (
    "If you allow it, the page can see which programs are connected, send them data and messages, "
    "and read the data that they offer to it."
)


class Answer(Enum):
    """What the user said."""

    DENY = "deny"
    ONCE = "once"
    ALWAYS = "always"


class Question(NamedTuple):
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
    def lasting(self) -> bool:
        """Whether "always for this origin" means anything: many pages share ``null``, and any program has none."""
        return self.origin not in ("", "null")

    @property
    def origin_text(self) -> str:
        """The origin in words."""
        if not self.origin:
            return "none stated (a program on this computer, or not a browser)"
        if self.origin == "null":
            return "null (a page from a file, or a sandboxed frame)"
        return self.origin


def display_text(text: str, limit: int = 80) -> str:
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
    text = unicodedata.normalize("NFC", text[: 4 * limit])
    shown = "".join(" " if c in "\t\n\r" else "?" if _is_treacherous(c) else c for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _is_treacherous(character: str) -> bool:
    # Cc control, Cf format (bidirectional overrides, zero-width), Cs surrogate, Co private, Cn unassigned, Zl and
    # Zp line ends
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def make_question(identity: SAMPValue, origin: str, peer: tuple[str, int]) -> Question:
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
    if not isinstance(details, dict) or not isinstance(name, str) or not display_text(name):
        raise SAMPProxyError(1, "To register, a web page must state its name: a map with samp.name")
    origin = origin.lower()
    if display_text(origin, MAX_ORIGIN) != origin:  # "always" must hold for what the user has seen, and nothing else
        raise SAMPProxyError(REFUSED, "The page's origin is none that a user could be shown")
    shown = {display_text(key): display_text(value, 500) for key, value in details.items() if isinstance(value, str)}
    return Question(display_text(name), origin, shown, peer)


class Ticket:
    """One question on its way to an answer; the first of answer, withdrawal and lapse counts."""

    def __init__(self, question: Question, answered: Callable[[Answer], object]) -> None:
        self.question = question
        self.timer: Any = None
        self._answered: Callable[[Answer], object] | None = answered
        self._take_back: Callable[[], object] | None = None
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether somebody still waits for the answer."""
        return self._answered is not None

    def settle(self, answer: Answer) -> bool:
        """Give the answer; False when nobody waits for it any more."""
        with self._lock:
            answered, self._answered = self._answered, None
            self._take_back = None
        if answered is None:
            return False
        self._cancel_timer()
        answered(answer)
        return True

    def withdraw(self, *, tell: bool = False) -> None:
        """
        Take the question back.

        Parameters
        ----------
        tell : bool
            Whether the one who waits gets a refusal; one who has gone away does not.
        """
        with self._lock:
            answered, self._answered = self._answered, None
            take_back, self._take_back = self._take_back, None
        if answered is None:
            return
        self._cancel_timer()
        if tell:
            answered(Answer.DENY)
        if take_back is not None:
            take_back()

    def when_withdrawn(self, take_back: Callable[[], object]) -> None:
        """Have ``take_back()`` called when the question has become pointless; at once when it has already."""
        with self._lock:
            if self._answered is not None:
                self._take_back = take_back
                return
        take_back()

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Asker(ABC):
    """A way to put a question to the user."""

    #: Whether another question may be asked while the one before has not come back. Two questions in one terminal
    #: would be taken for each other.
    asks_beside = False

    @abstractmethod
    def ask(self, ticket: Ticket) -> Answer:
        """Ask, and wait for the answer; called in a worker thread, one question at a time."""

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Let an `ask` that waits end, if it can: the hub stops. Its ticket has been withdrawn before."""


class ConsentDesk:
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
        Seconds for which a question waits; then it counts as refused.
    """

    def __init__(
        self,
        asker: Asker,
        run_in_worker: Callable[[Callable[[], object]], object],
        call_later: Callable[[float, Callable[[], object]], Any],
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._asker = asker
        self._run_in_worker = run_in_worker
        self._call_later = call_later
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        self._shown: Ticket | None = None
        self._lost = False  # a worker's question has not come back, and another worker goes on
        self._busy = False
        self._closed = False
        self._always: set[str] = set()

    def submit(self, question: Question, answered: Callable[[Answer], object]) -> Ticket:
        """
        Queue a question.

        Parameters
        ----------
        question : Question
            What to ask.
        answered : callable
            ``answered(answer)`` is called once, from any thread, unless the ticket is withdrawn before.

        Returns
        -------
        Ticket
            What `withdraw` takes back.

        Raises
        ------
        SAMPProxyError
            The question is refused without being asked: this origin has an open one already, or there are too many.
        """
        ticket = Ticket(question, answered)
        with self._lock:
            if self._closed:
                raise SAMPProxyError(REFUSED, "The hub is being stopped")
            known = question.lasting and question.origin in self._always
            if not known:
                self._admit(ticket)
            start = not (known or self._busy)
            self._busy = self._busy or start
        if known:
            log.info("%s (%s) is allowed as before", question.name, question.origin)
            ticket.settle(Answer.ALWAYS)
        if start:
            self._run_in_worker(self._work)
        return ticket

    def withdraw(self, ticket: Ticket, *, tell: bool = False) -> None:
        """
        Take a question back.

        Parameters
        ----------
        ticket : Ticket
            What `submit` returned.
        tell : bool
            Whether the page gets a refusal; one that has gone away does not.
        """
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
        ticket.withdraw(tell=tell)

    def close(self) -> None:
        """Refuse everything that is open, and everything to come."""
        with self._lock:
            self._closed = True
            tickets = [*self._waiting, *([self._shown] if self._shown else [])]
            self._waiting.clear()
        for ticket in tickets:
            ticket.withdraw(tell=True)
        self._asker.close()

    def _admit(self, ticket: Ticket) -> None:
        origin = ticket.question.origin
        # A question that was withdrawn but can't be taken off the screen counts, or its page could pile them up.
        asked = [*self._waiting, *([self._shown] if self._shown else [])]
        if origin and any(other.question.origin == origin for other in asked):
            raise SAMPProxyError(
                REFUSED, f"The user is being asked about another registration from {origin}; try again after that"
            )
        if len(self._waiting) >= MAX_WAITING:
            raise SAMPProxyError(REFUSED, "Too many web pages are waiting for the user's consent; try again later")
        ticket.timer = self._call_later(self._patience, lambda: self._lapse(ticket))
        self._waiting.append(ticket)

    def _work(self) -> None:
        """Ask one question after the other; one worker is in here, and perhaps one more that is lost."""
        while True:
            with self._lock:
                self._shown = ticket = self._waiting.popleft() if self._waiting else None
                self._busy = ticket is not None
            if ticket is None:
                return
            overdue = self._call_later(self._patience + TAKING_BACK, partial(self._on_overdue, ticket))
            answer = self._ask(ticket)
            overdue.cancel()
            question = ticket.question
            with self._lock:
                if self._shown is not ticket:  # it has lapsed long ago, and another worker goes on
                    self._lost = False
                    return
                self._shown = None  # before the page hears of it: it may ask again at once
                if ticket.open and answer is Answer.ALWAYS and question.lasting:
                    self._always.add(question.origin)
            if ticket.settle(answer):
                verdict = "not allowed" if answer is Answer.DENY else f"allowed ({answer.value})"
                log.info("Web page %s (%s): %s", question.name, question.origin_text, verdict)

    def _ask(self, ticket: Ticket) -> Answer:
        if not ticket.open:
            return Answer.DENY
        try:
            return self._asker.ask(ticket)
        except BaseException:  # whatever went wrong, `sys.exit` included, nobody has said yes
            log.exception("The question about %s could not be asked", ticket.question.name)
            return Answer.DENY

    def _on_overdue(self, ticket: Ticket) -> None:
        """Go on without a question that does not come back: all others wait behind it."""
        self._lapse(ticket)
        with self._lock:
            if self._shown is not ticket:
                return
            name = ticket.question.name
            if self._closed or self._lost or not getattr(self._asker, "asks_beside", False):
                log.warning("The question about %s is still open: no other page is asked about before it ends", name)
                return
            self._lost = True
            self._shown = None
        log.warning("The question about %s does not come back; others are asked about without it", name)
        self._run_in_worker(self._work)

    def _lapse(self, ticket: Ticket) -> None:
        if ticket.open:
            log.info("Nobody said whether %s may join: refused", ticket.question.name)
        self.withdraw(ticket, tell=True)
