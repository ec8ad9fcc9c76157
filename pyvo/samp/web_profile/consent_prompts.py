# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ways in which a user can be asked whether a web page may join.

`make_asker` reads what was given as ``web_profile_dialog``: ``"terminal"`` (also the meaning of `None`),
``"tk"``, ``"window"``, ``"deny"``, a function, or a `WebProfileDialog`.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import logging
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from .consent import ConsentPrompt, ConsentRequest, ConsentTicket, Decision
from .consent_terminal import TerminalPrompt

__all__ = ["WebProfileDialog", "WindowPrompt", "make_prompt"]

log = logging.getLogger(__name__)


class WebProfileDialog:
    """
    Base class of dialogs that live in the thread of a graphical user interface.

    The hub puts its questions into a queue. The program calls `handle_queue` from time to time, in the thread of
    its windows; a question that waits is then given to `show_dialog`, which a subclass provides. When the user has
    decided, the subclass calls `consent` or `reject`.
    """

    #: Where the hub puts its questions: identity, client's address, origin. The hub sets it.
    queue_request: queue.Queue[tuple[Any, Any, Any]] | None = None
    #: Where the hub expects the answers: True or False. The hub sets it.
    queue_result: queue.Queue[Any] | None = None

    def handle_queue(self) -> None:
        """Show the question that waits, if there is one. Returns at once; call it several times a second."""
        if self.queue_request is None:
            return  # not yet given to a hub
        try:
            details, client, origin = self.queue_request.get_nowait()
        except queue.Empty:
            return
        try:
            self.show_dialog(details["samp.name"], details, client, origin)
        except BaseException:
            self.reject()  # or the page, and all others behind it, would wait for an answer that nobody can give
            raise

    def show_dialog(self, samp_name: str, details: Mapping[str, Any], client: tuple[str, int], origin: str) -> None:
        """
        Show a question; to be provided by a subclass.

        Parameters
        ----------
        samp_name : str
            Name of the page, as it states it.
        details : dict
            All that the page says of itself.
        client : tuple of (str, int)
            Address and port that the request came from.
        origin : str
            Origin of the page, as its browser states it; empty when it states none.
        """
        raise NotImplementedError(f"{type(self).__name__} must provide show_dialog()")

    def consent(self) -> None:
        """Allow the page that was shown last."""
        if self.queue_result is not None:
            self.queue_result.put(True)

    def reject(self) -> None:
        """Refuse the page that was shown last."""
        if self.queue_result is not None:
            self.queue_result.put(False)


def make_prompt(dialog: object) -> ConsentPrompt:
    """
    Turn the ``web_profile_dialog`` of a hub into an asker.

    Parameters
    ----------
    dialog : None, str, callable, WebProfileDialog or Asker
        `None` or ``"terminal"`` ask in the terminal, ``"tk"`` in a window, ``"window"`` in the hub window (for a
        `SAMPHubServer`, which shows the requests of the `WindowPrompt`), ``"deny"`` refuses all pages. A function
        is called in a thread with ``(samp_name, details, client, origin)``, or ``(samp_name, origin)`` if it takes
        two arguments, and returns True, ``"once"`` or ``"always"`` to allow; anything else refuses.

    Returns
    -------
    Asker
        What `ConsentDesk` needs.

    Raises
    ------
    TypeError, ValueError
        That is none of these.
    """
    if dialog is None or isinstance(dialog, str):
        try:
            return _BY_NAME[dialog or "terminal"]()
        except KeyError:
            names = ", ".join(map(repr, _BY_NAME))
            raise ValueError(f"{dialog!r} is no way of asking for consent; there are {names}") from None
    if isinstance(dialog, type):
        raise TypeError(f"{dialog.__name__} is a class; give an instance of it as the dialog")
    if isinstance(dialog, WebProfileDialog) or hasattr(dialog, "handle_queue"):
        return QueuePrompt(dialog)
    if hasattr(dialog, "ask"):
        return cast("ConsentPrompt", dialog)
    if not callable(dialog):
        return QueuePrompt(dialog)
    return CallablePrompt(dialog)


class DenyPrompt(ConsentPrompt):
    """Says no to everybody."""

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Say no."""
        log.info("%s is refused: this hub takes no web pages", ticket.request.name)
        return Decision.DENY


class CallablePrompt(ConsentPrompt):
    """Leaves the decision to a function of the user's program."""

    concurrent = True  # whatever it does, its answer is one to its own question

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._brief = _takes_two(function)

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Call the function; only a plain yes is one."""
        question = ticket.request
        if self._brief:
            said = self._function(question.name, question.origin)
        else:
            said = self._function(question.name, dict(question.details), question.peer, question.origin)
        # numpy's truth, too: a decision is often made by comparing something
        if said is True or (str(getattr(said, "dtype", "")) == "bool" and bool(said)):
            return Decision.ONCE
        if said in (Decision.ONCE, Decision.ALWAYS, Decision.ONCE.value, Decision.ALWAYS.value):
            return Decision(said)
        return Decision.DENY


def _takes_two(function: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return False
    for count in (4, 2):
        with contextlib.suppress(TypeError):
            signature.bind(*[None] * count)
            return count == 2
    raise TypeError("The function that is asked for consent takes (samp_name, details, client, origin)")


class _Requests(queue.Queue[tuple[Any, Any, Any]]):
    """The questions for a dialog, and whether it has taken the latest one and has yet to answer it."""

    is_shown = False

    def get(self, block: bool = True, timeout: float | None = None) -> tuple[Any, Any, Any]:
        """Take a question, in order to show it."""
        request = super().get(block, timeout)
        self.is_shown = True
        return request

    def take_back(self) -> bool:
        """Remove a question that nobody has taken; False if there is none."""
        try:
            super().get(block=False)
        except queue.Empty:
            return False
        return True


class _Results(queue.Queue[Any]):
    """The answers of a dialog: one to each question that it has shown, however often somebody clicks."""

    def __init__(self, requests: _Requests) -> None:
        super().__init__()
        self._requests = requests

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Answer the question that is shown."""
        if self._requests.is_shown:
            self._requests.is_shown = False
            super().put(item, block, timeout)

    def end(self) -> None:
        """Answer in the dialog's place, which is not going to."""
        super().put(None)


class QueuePrompt(ConsentPrompt):
    """
    Passes questions to an object that takes them from a queue (`WebProfileDialog`).

    Answers bear no name. So there is never a second question before the first one has been answered, and an answer
    counts only when a question has been taken from the queue before: a second click on "allow" for one page must not
    let the next one in, which nobody has seen.
    """

    def __init__(self, dialog: Any) -> None:
        self._requests = _Requests()
        self._results = _Results(self._requests)
        try:
            dialog.queue_request = self._requests
            dialog.queue_result = self._results
        except AttributeError:
            raise TypeError(f"{dialog!r} is no way of asking for consent, and takes no queues for questions") from None

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Put the question, and wait for what the dialog says."""
        question = ticket.request
        self._requests.put((dict(question.details), question.peer, question.origin))
        ticket.on_cancel(self._cancel_prompt)
        return Decision.ONCE if self._results.get() is True else Decision.DENY

    def close(self) -> None:
        """Wait for the click no longer."""
        self._results.end()

    def _cancel_prompt(self) -> None:
        """Remove a question that has not been shown yet; one that has been still waits for its click."""
        if self._requests.take_back():
            self._results.end()


class WindowPrompt(ConsentPrompt):
    """Holds the consent request that the hub window shows, until the user decides there or the request is cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serial = itertools.count(1)
        self._open: dict[int, tuple[ConsentRequest, queue.SimpleQueue[Decision]]] = {}
        #: Called when a request comes; opens a window if there is none. Set by the hub.
        self.on_request: Callable[[], object] = lambda: None
        #: Called when a request comes or goes. Set by the window.
        self.on_change: Callable[[], object] = lambda: None

    @property
    def requests(self) -> dict[int, ConsentRequest]:
        """The requests that wait for a decision, by number."""
        with self._lock:
            return {number: question for number, (question, _) in self._open.items()}

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Show the request and wait. A closed window decides nothing: then the request waits until it is cancelled."""
        decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()
        with self._lock:
            number = next(self._serial)
            self._open[number] = ticket.request, decisions
        try:
            ticket.on_cancel(lambda: decisions.put(Decision.DENY))
            self.on_change()
            self.on_request()
            return decisions.get()
        finally:
            with self._lock:
                self._open.pop(number, None)
            self.on_change()

    def decide(self, number: int, decision: Decision) -> bool:
        """Decide on a request; False if it is no longer open, or cannot be decided like that."""
        with self._lock:  # the first decision counts, of whichever window
            question, decisions = self._open.get(number, (None, None))
            if question is None or decisions is None or (decision is Decision.ALWAYS and not question.can_always_allow):
                return False
            del self._open[number]
        decisions.put(decision)
        return True


class TkPrompt(ConsentPrompt):
    """
    Shows a window of a process of its own (`pyvo.samp.web_profile.consent_tk`).

    Toolkits want their windows in the main thread, which belongs to the user's program; and that program may be
    using another toolkit.
    """

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Show the window and wait until it is closed, by the user or because the page has gone."""
        if getattr(sys, "frozen", False) or not sys.executable:  # in the first case it is no Python
            log.warning("A packaged application cannot show the window; %s is refused", ticket.request.name)
            return Decision.DENY
        try:
            said = self._ask_in_window(ticket)
        except OSError as error:
            said = f"{sys.executable} cannot be run: {error.strerror or error}"
        if said in [answer.value for answer in Decision]:
            return Decision(said)
        if ticket.open:
            log.warning("The window could not be shown (%s); %s is refused", said or "it broke", ticket.request.name)
        return Decision.DENY

    @staticmethod
    def _ask_in_window(ticket: ConsentTicket) -> str:
        """What the window's process says: an answer, or what went wrong."""
        import subprocess  # noqa: PLC0415 - most hubs never show a window

        # By its path and isolated: it needs the standard library alone, and nothing of the working directory.
        command = [sys.executable, "-I", str(Path(__file__).with_name("consent_tk.py"))]
        with subprocess.Popen(  # noqa: S603 - this interpreter, and a file of this package
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        ) as process:
            ticket.on_cancel(process.kill)
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(_as_json(ticket.request) + b"\n")
                process.stdin.flush()  # and stays open: the window closes when this end does
            except BrokenPipeError:
                log.debug("The window of %s was taken back before it opened", ticket.request.name)
            return process.stdout.read().decode("ascii", "replace").strip()


def _as_json(question: ConsentRequest) -> bytes:
    shown = {
        "name": question.name,
        "origin": question.origin_text,
        "meaning": question.meaning,
        "always": question.can_always_allow,
    }
    return json.dumps(shown).encode("ascii")


_BY_NAME: dict[str, Callable[[], ConsentPrompt]] = {
    "terminal": TerminalPrompt,
    "tk": TkPrompt,
    "window": WindowPrompt,
    "deny": DenyPrompt,
}
