# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Asking in the terminal whether a web page may join.

The question comes from a worker thread while the main thread does something else, and what that is decides how
to read the answer:

* it runs a script or the hub: the terminal is read here, in a way that can be given up when the page goes away;
* it waits at a plain Python prompt: ``input`` is used, which takes its turn behind that prompt;
* it waits at an IPython prompt: IPython is asked to put its prompt aside;
* it is a notebook's kernel that runs a cell: ``input`` is then the kernel's own, which asks in the notebook.

Without a terminal, from the background of one, or between two cells, nobody can be asked, and the answer is no. So
it is at the prompt that Python has since 3.13: it reads each key by itself, and nobody else gets a line.
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

__all__ = ["TerminalPrompt"]

log = logging.getLogger(__name__)

_ANSWERS = {"y": Decision.ONCE, "yes": Decision.ONCE, "a": Decision.ALWAYS, "always": Decision.ALWAYS}


class TerminalPrompt(ConsentPrompt):
    """Asks in the terminal, IPython or notebook that the hub runs in."""

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Ask, and wait for a line; what is no answer is asked for once more, and then anything but a yes is a no."""
        question = ticket.request
        text = _text(question)
        try:
            line = self._read(text, ticket)
            if line.strip() and not _is_answer(line):
                line = self._read("Please answer y or n: ", ticket)
        except (EOFError, OSError, RuntimeError) as error:
            # StdinNotImplementedError of a kernel whose front end takes no input is a RuntimeError
            log.warning("Nobody could be asked about %s (%s): refused", question.name, error)
            return Decision.DENY
        answer = _ANSWERS.get(line.strip().lower(), Decision.DENY)
        return Decision.ONCE if answer is Decision.ALWAYS and not question.can_always_allow else answer

    @staticmethod
    def _read(text: str, ticket: ConsentTicket) -> str:
        shell = _ipython_prompt()
        if shell is not None:
            return _read_beside_ipython(shell, text)
        if not inspect.isbuiltin(builtins.input):
            if getattr(builtins.input, "__module__", "").startswith("_pyrepl"):
                raise OSError(
                    "nothing but itself can ask at this prompt of Python; the plain one, with PYTHON_BASIC_REPL=1, and "
                    "web_profile_dialog='tk' can"
                )
            return input(text)
        if not _can_ask():
            raise OSError("there is no terminal to ask in")
        if hasattr(sys, "ps1"):
            print("\nA web page asks to join SAMP: press Return to see the question.", file=sys.stderr)  # noqa: T201
            return input(text) or input("Please answer y or n: ")  # the question may have been there before that Return
        if os.name == "nt":
            return input(text)
        return _read_terminal(text, ticket)


def _is_answer(line: str) -> bool:
    return line.strip().lower() in {*_ANSWERS, "n", "no"}


def _text(question: ConsentRequest) -> str:
    choices = "[y] yes, once   " + ("[a] always for this origin, while the hub runs   " if question.can_always_allow else "")
    return (
        "\nA web page asks to join SAMP, by which the astronomy programs on this computer talk to each other.\n"
        f"  Name:   {question.name}\n"
        f"  Origin: {question.origin_text}\n"
        f"{textwrap.fill(question.meaning, min(100, shutil.get_terminal_size().columns - 1))}\n"
        f"{choices}[n] no: "
    )


def _can_ask() -> bool:
    """Whether there is somebody at a terminal who sees what is written and whose keys come here."""
    try:
        descriptor = sys.stdin.fileno()
        if not (os.isatty(descriptor) and sys.stderr.isatty()):
            return False
    except (AttributeError, ValueError, io.UnsupportedOperation):  # no stdin, a closed one, or something in its place
        return False
    return _in_foreground(descriptor)


def _in_foreground(descriptor: int) -> bool:
    """Whether the terminal is ours: a process in the background that reads from it is stopped as a whole."""
    if os.name == "nt":
        return True
    return os.tcgetpgrp(descriptor) == os.getpgrp()


def _read_terminal(text: str, ticket: ConsentTicket) -> str:
    """Read a line from the terminal, or an empty one as soon as the page has gone away."""
    import termios  # noqa: PLC0415 - not on Windows

    descriptor = sys.stdin.fileno()
    gone, go = socket.socketpair()
    with gone, go:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            selector.register(gone, selectors.EVENT_READ)
            termios.tcflush(descriptor, termios.TCIFLUSH)  # what was typed before the question is no answer to it
            sys.stderr.write(text)
            sys.stderr.flush()
            ticket.on_cancel(lambda: _wake(go))
            ready = [key.fileobj for key, _events in selector.select()]
        if gone in ready:
            sys.stderr.write("\n(The question has been withdrawn.)\n")
            return ""
        if not _in_foreground(descriptor):
            raise OSError("the hub is in the background of its terminal")
        return os.read(descriptor, 1024).decode(errors="replace")


def _wake(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the line has been read just now
        end.send(b"x")


def _ipython_prompt() -> Any:
    """The application behind IPython's prompt, when there is one and it is waiting for input."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    application = getattr(getattr(shell, "pt_app", None), "app", None)
    return application if application is not None and application.is_running else None


def _read_beside_ipython(application: Any, text: str) -> str:
    """Have IPython put its prompt aside for as long as ``input`` takes."""
    import asyncio  # noqa: PLC0415 - a tenth of a second that hubs elsewhere are spared

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
