# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Ask in the terminal whether a web page may register.

A worker thread asks while the main thread does something else. How the answer is read depends on the main thread:

* it runs a script or the hub: this module reads the terminal, and stops reading when the page goes away;
* it waits at a plain Python prompt: ``input`` is used, which waits until that prompt has read its line;
* it waits at an IPython prompt: IPython suspends its prompt for the question;
* it runs a cell in a notebook's kernel: ``input`` is then the kernel's own function, which asks in the notebook.

Without a terminal, in the background of one, or between two cells the user cannot be asked, and the page is denied.
This also holds at the interactive prompt of Python 3.13 and later: it reads each key itself, and no other thread gets a
line.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
import io
import logging
import os
import selectors
import shutil
import socket
import sys
import textwrap
from typing import Any

from .consent import ConsentPrompt, ConsentRequest, ConsentTicket, Decision

log = logging.getLogger(__name__)

_DECISIONS = {
    "y": Decision.ONCE,
    "yes": Decision.ONCE,
    "a": Decision.ALWAYS,
    "always": Decision.ALWAYS,
    "n": Decision.DENY,
    "no": Decision.DENY,
}

_REPEAT = "Please answer y or n: "


class TerminalPrompt(ConsentPrompt):
    """Asks in the terminal, IPython or notebook that the hub runs in."""

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Ask and wait for a line. After an invalid line ask once more; then anything but a yes denies."""
        request = ticket.request
        try:
            answer = self._read(_question(request), ticket).strip().lower()
            if answer and answer not in _DECISIONS:
                answer = self._read(_REPEAT, ticket).strip().lower()
        except (EOFError, OSError, RuntimeError) as error:
            # StdinNotImplementedError of a kernel whose front end accepts no input is a RuntimeError
            log.warning("The user could not be asked about %s (%s): denied", request.name, error)
            return Decision.DENY
        decision = _DECISIONS.get(answer, Decision.DENY)
        return Decision.ONCE if decision is Decision.ALWAYS and not request.can_always_allow else decision

    @staticmethod
    def _read(text: str, ticket: ConsentTicket) -> str:
        shell = _ipython_prompt()
        if shell is not None:
            return _read_in_ipython(shell, text)
        if not inspect.isbuiltin(builtins.input):
            if getattr(builtins.input, "__module__", "").startswith("_pyrepl"):
                raise OSError(
                    "a hub cannot ask at this prompt of Python; start Python with PYTHON_BASIC_REPL=1, or use "
                    "web_profile_dialog='tk'"
                )
            return input(text)
        if not _has_terminal():
            raise OSError("there is no terminal to ask in")
        if hasattr(sys, "ps1"):
            print("\nA web page asks to join SAMP: press Return to see the question.", file=sys.stderr)  # noqa: T201
            return input(text) or input(_REPEAT)  # the user may have pressed that Return when the question was there
        if os.name == "nt":
            return input(text)
        return _read_terminal(text, ticket)


def _question(request: ConsentRequest) -> str:
    always = "[a] always for this origin, while the hub runs   " if request.can_always_allow else ""
    return (
        "\nA web page asks to join SAMP. With SAMP the astronomy programs on this computer talk to each other.\n"
        f"  Name:   {request.name}\n"
        f"  Origin: {request.origin_text}\n"
        f"{textwrap.fill(request.meaning, min(100, shutil.get_terminal_size().columns - 1))}\n"
        f"[y] yes, once   {always}[n] no: "
    )


def _has_terminal() -> bool:
    """Whether the user sees what this process writes to the terminal, and can type an answer."""
    try:
        descriptor = sys.stdin.fileno()
        if not (os.isatty(descriptor) and sys.stderr.isatty()):
            return False
    except (AttributeError, ValueError, io.UnsupportedOperation):  # stdin is missing, closed or replaced
        return False
    return _in_foreground(descriptor)


def _in_foreground(descriptor: int) -> bool:
    """Whether this process may read the terminal: the system stops a background process that reads from it."""
    if os.name == "nt":
        return True
    return os.tcgetpgrp(descriptor) == os.getpgrp()


def _read_terminal(text: str, ticket: ConsentTicket) -> str:
    """Read a line from the terminal; return an empty one as soon as the request is cancelled."""
    import termios  # noqa: PLC0415 - not on Windows

    descriptor = sys.stdin.fileno()
    cancelled, wakeup = socket.socketpair()
    with cancelled, wakeup:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            selector.register(cancelled, selectors.EVENT_READ)
            termios.tcflush(descriptor, termios.TCIFLUSH)  # drop what was typed before the question
            sys.stderr.write(text)
            sys.stderr.flush()
            ticket.on_cancel(lambda: _wake(wakeup))
            ready = [key.fileobj for key, _events in selector.select()]
        if cancelled in ready:
            sys.stderr.write("\n(The page was closed.)\n")
            return ""
        if not _in_foreground(descriptor):
            raise OSError("the hub is in the background of its terminal")
        return os.read(descriptor, 1024).decode(errors="replace")


def _wake(wakeup: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed: the line was read at the same moment
        wakeup.send(b"x")


def _ipython_prompt() -> Any:
    """Return the application of IPython's prompt, if it is waiting for input."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    application = getattr(getattr(shell, "pt_app", None), "app", None)
    return application if application is not None and application.is_running else None


def _read_in_ipython(application: Any, text: str) -> str:
    """Read a line with ``input`` while IPython suspends its prompt."""
    import asyncio  # noqa: PLC0415 - the import takes a tenth of a second, and only IPython needs it

    toolkit = importlib.import_module("prompt_toolkit.application")  # comes with IPython
    current = importlib.import_module("prompt_toolkit.application.current")

    line = ""

    def read() -> None:
        nonlocal line
        with contextlib.suppress(EOFError):
            line = input(text)

    async def ask() -> None:
        with current.set_app(application):
            await toolkit.run_in_terminal(read, in_executor=True)

    asyncio.run_coroutine_threadsafe(ask(), application.loop).result()
    return line
