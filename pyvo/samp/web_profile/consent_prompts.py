# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ways to ask the user whether a web page may register.

`make_prompt` creates the prompt from the ``web_profile_dialog`` of a hub: ``"terminal"`` or `None`, ``"tk"``,
``"window"``, ``"deny"``, a function, a `WebProfileDialog` or a `ConsentPrompt`.
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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .consent import ConsentPrompt, ConsentRequest, ConsentTicket, Decision
from .consent_terminal import TerminalPrompt

log = logging.getLogger(__name__)

#: Seconds after which a decision in the hub window is accepted: an earlier click was meant for something else.
DECISION_DELAY = 0.7


class WebProfileDialog:
    """
    Base class of dialogs that run in the thread of a graphical user interface.

    The hub puts its requests into a queue. Your program calls `handle_queue` regularly, in the thread of its windows.
    This passes a waiting request to `show_dialog`, which your subclass provides. When the user has decided, your
    subclass calls `consent` or `reject`.
    """

    #: Requests of the hub: identity, client's address, origin. The hub sets it.
    queue_request: queue.Queue[tuple[Any, Any, Any]] | None = None
    #: Decisions for the hub: True or False. The hub sets it.
    queue_result: queue.Queue[Any] | None = None

    def handle_queue(self) -> None:
        """Show the waiting request, if there is one. Returns at once; call it several times a second."""
        if self.queue_request is None:
            return  # not yet given to a hub
        try:
            details, client, origin = self.queue_request.get_nowait()
        except queue.Empty:
            return
        try:
            self.show_dialog(details["samp.name"], details, client, origin)
        except BaseException:
            self.reject()  # otherwise this page and all later ones would wait for a decision that cannot be made
            raise

    def show_dialog(self, samp_name: str, details: Mapping[str, Any], client: tuple[str, int], origin: str) -> None:
        """
        Show a request. A subclass must override this.

        Parameters
        ----------
        samp_name : str
            Name that the page states.
        details : dict
            All that the page states about itself.
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
        """Deny the page that was shown last."""
        if self.queue_result is not None:
            self.queue_result.put(False)


def make_prompt(dialog: object) -> ConsentPrompt:
    """
    Create a prompt from the ``web_profile_dialog`` of a hub.

    Parameters
    ----------
    dialog : None, str, callable, WebProfileDialog or ConsentPrompt
        `None` or ``"terminal"`` ask in the terminal, ``"tk"`` in a dialog, ``"window"`` in the hub window (of a
        `SAMPHubServer`, which shows the requests of the `WindowPrompt`), ``"deny"`` denies all pages. A function
        is called in a thread with ``(samp_name, details, client, origin)``, or ``(samp_name, origin)`` if it takes
        two arguments, and returns True, ``"once"`` or ``"always"`` to allow; any other result denies.

    Returns
    -------
    ConsentPrompt
        For `ConsentQueue`.

    Raises
    ------
    TypeError, ValueError
        ``dialog`` is none of these.
    """
    if dialog is None or isinstance(dialog, str):
        try:
            return _BY_NAME[dialog or "terminal"]()
        except KeyError:
            names = ", ".join(map(repr, _BY_NAME))
            raise ValueError(f"{dialog!r} is not a way to ask for consent; use one of {names}") from None
    if isinstance(dialog, type):
        raise TypeError(f"{dialog.__name__} is a class; give an instance of it as the dialog")
    if isinstance(dialog, ConsentPrompt):
        return dialog
    if hasattr(dialog, "handle_queue") or not callable(dialog):
        return QueuePrompt(dialog)
    return CallablePrompt(dialog)


class DenyPrompt(ConsentPrompt):
    """Denies all pages."""

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Deny the page."""
        log.info("%s is denied: this hub accepts no web pages", ticket.request.name)
        return Decision.DENY


class CallablePrompt(ConsentPrompt):
    """Calls a function of the user's program, which decides."""

    concurrent = True  # each call returns the decision about its own request

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._takes_two = _takes_two_arguments(function)

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Call the function; only an explicit yes allows the page."""
        request = ticket.request
        if self._takes_two:
            result = self._function(request.name, request.origin)
        else:
            result = self._function(request.name, dict(request.details), request.peer, request.origin)
        # The decision is often the result of a comparison, which may be a numpy boolean
        if result is True or (str(getattr(result, "dtype", "")) == "bool" and bool(result)):
            return Decision.ONCE
        if result in (Decision.ONCE, Decision.ALWAYS, Decision.ONCE.value, Decision.ALWAYS.value):
            return Decision(result)
        return Decision.DENY


def _takes_two_arguments(function: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return False
    for count in (4, 2):
        with contextlib.suppress(TypeError):
            signature.bind(*[None] * count)
            return count == 2
    raise TypeError("A function that decides about consent must accept (samp_name, details, client, origin)")


class _RequestQueue(queue.Queue[tuple[Any, Any, Any]]):
    """Requests for a dialog. It knows whether the dialog has taken a request and has not decided about it yet."""

    is_shown = False

    def get(self, block: bool = True, timeout: float | None = None) -> tuple[Any, Any, Any]:
        """Take a request, in order to show it."""
        request = super().get(block, timeout)
        self.is_shown = True
        return request

    def cancel(self) -> bool:
        """Remove a request that the dialog has not taken; return False if there is none."""
        try:
            super().get(block=False)
        except queue.Empty:
            return False
        return True


class _ResultQueue(queue.Queue[Any]):
    """Decisions of a dialog. It accepts one for each request that was shown, however often the user clicks."""

    def __init__(self, requests: _RequestQueue) -> None:
        super().__init__()
        self._requests = requests

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Decide about the request that is shown."""
        if self._requests.is_shown:
            self._requests.is_shown = False
            super().put(item, block, timeout)

    def end(self) -> None:
        """End the wait for a decision."""
        super().put(None)


class QueuePrompt(ConsentPrompt):
    """
    Passes requests to an object that takes them from a queue (`WebProfileDialog`).

    Decisions do not say to which request they belong. So there is never a second request before the first one is
    decided, and a decision counts only after a request was taken from the queue: a second click on "allow" for one page
    must not allow the next one, which the user has not seen.
    """

    def __init__(self, dialog: Any) -> None:
        self._requests = _RequestQueue()
        self._results = _ResultQueue(self._requests)
        try:
            dialog.queue_request = self._requests
            dialog.queue_result = self._results
        except AttributeError:
            raise TypeError(f"{dialog!r} is not a way to ask for consent: it accepts no queue of requests") from None

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Pass the request to the object, and wait for its decision."""
        request = ticket.request
        self._requests.put((dict(request.details), request.peer, request.origin))
        ticket.on_cancel(self._cancel)
        return Decision.ONCE if self._results.get() is True else Decision.DENY

    def close(self) -> None:
        """End the wait for a decision."""
        self._results.end()

    def _cancel(self) -> None:
        """Remove a request that is not shown yet; one that is shown still waits for the click."""
        if self._requests.cancel():
            self._results.end()


class WindowPrompt(ConsentPrompt):
    """Keeps the consent requests that the hub window shows, until the user decides or they are cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serial = itertools.count(1)
        self._open: dict[int, _OpenRequest] = {}
        #: Called for each new request; opens a window if none is open. Set by the hub.
        self.on_request: Callable[[], object] = lambda: None
        #: Called when the open requests have changed. Set by the window.
        self.on_change: Callable[[], object] = lambda: None

    def show_requests(self) -> dict[int, ConsentRequest]:
        """Return the open requests by number, for a window that shows them now."""
        now = time.monotonic()
        with self._lock:
            for each in self._open.values():
                if each.shown is None:
                    each.shown = now
            return {number: each.request for number, each in self._open.items()}

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Show the request and wait. Closing the window decides nothing: the request stays open."""
        opened = _OpenRequest(ticket.request)
        with self._lock:
            number = next(self._serial)
            self._open[number] = opened
        try:
            ticket.on_cancel(lambda: opened.decisions.put(Decision.DENY))
            self.on_change()
            self.on_request()
            return opened.decisions.get()
        finally:
            with self._lock:
                self._open.pop(number, None)
            self.on_change()

    def decide(self, number: int, decision: Decision) -> str:
        """Decide on a request; return why that is not possible, or an empty text."""
        with self._lock:  # if there are several windows, the first decision counts
            opened = self._open.get(number)
            if opened is None:
                return "This request is no longer open"
            if opened.shown is None or time.monotonic() - opened.shown < DECISION_DELAY:
                return "The user has not had time to read this request"
            if decision is Decision.ALWAYS and not opened.request.can_always_allow:
                return "This page cannot be allowed always: its origin does not identify it"
            del self._open[number]
        opened.decisions.put(decision)
        return ""


@dataclass
class _OpenRequest:
    request: ConsentRequest
    #: When a window first showed the request.
    shown: float | None = None
    decisions: queue.SimpleQueue[Decision] = field(default_factory=queue.SimpleQueue)


class TkPrompt(ConsentPrompt):
    """
    Shows a window in a process of its own (`pyvo.samp.web_profile.consent_tk`).

    Toolkits need their windows in the main thread, which belongs to the user's program, and that program may use
    another toolkit.
    """

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Show the window and wait until the user closes it, or until the page is closed."""
        if getattr(sys, "frozen", False) or not sys.executable:  # if frozen, the executable is not Python
            log.warning("A packaged application cannot show the window; %s is denied", ticket.request.name)
            return Decision.DENY
        try:
            result = self._run_window(ticket)
        except OSError as error:
            result = f"{sys.executable} cannot be run: {error.strerror or error}"
        if result in [decision.value for decision in Decision]:
            return Decision(result)
        if ticket.open:
            log.warning("The window could not be shown (%s); %s is denied", result or "it broke", ticket.request.name)
        return Decision.DENY

    @staticmethod
    def _run_window(ticket: ConsentTicket) -> str:
        """Return the line that the window's process writes: a decision, or what went wrong."""
        import subprocess  # noqa: PLC0415 - most hubs never show a window

        # Run by its path and isolated: it needs only the standard library, and nothing of the working directory
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
                process.stdin.write(_to_json(ticket.request) + b"\n")
                process.stdin.flush()  # and stays open: the window closes when this end does
            except BrokenPipeError:
                log.debug("The request of %s was cancelled before its window opened", ticket.request.name)
            return process.stdout.read().decode("ascii", "replace").strip()


def _to_json(request: ConsentRequest) -> bytes:
    shown = {
        "name": request.name,
        "origin": request.origin_text,
        "meaning": request.meaning,
        "always": request.can_always_allow,
    }
    return json.dumps(shown).encode("ascii")


_BY_NAME: dict[str, Callable[[], ConsentPrompt]] = {
    "terminal": TerminalPrompt,
    "tk": TkPrompt,
    "window": WindowPrompt,
    "deny": DenyPrompt,
}
