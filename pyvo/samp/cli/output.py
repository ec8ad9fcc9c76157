# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is written to the terminal.

Whatever comes from other clients passes through `clean` before a person sees it: a name or a parameter could
otherwise move the cursor, change colours, or type into the terminal. JSON needs no such care, since it is
written in ASCII with everything else escaped.

What the exit status of a command says, to scripts.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TextIO

from ..protocol.values import sanitize_for_display

__all__ = [
    "MEANINGS",
    "CleanFormatter",
    "CommandError",
    "Status",
    "Style",
    "add_colour_option",
    "add_json_option",
    "client_label",
    "column_widths",
    "help_epilog",
    "pad_or_truncate",
    "print_json",
    "sanitize",
]

class Status(IntEnum):
    """The same number means the same in each command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_HUB = 3
    NO_RECIPIENT = 4
    TIMEOUT = 5
    INTERRUPTED = 130  # as shells have it: 128 and the number of the signal
    PIPE_CLOSED = 141
    TERMINATED = 143


#: What each usually says.
MEANINGS = {
    Status.OK: "done",
    Status.FAILED: "it failed; standard error tells why",
    Status.USAGE: "invalid command line",
    Status.NO_HUB: "no hub is running, or it has gone",
    Status.NO_RECIPIENT: "there is no such client, or nobody takes the message",
    Status.TIMEOUT: "there was no answer in time",
    Status.INTERRUPTED: "interrupted by ^C",
    Status.PIPE_CLOSED: "whoever read the output, such as head, has had enough",
    Status.TERMINATED: "ended by SIGTERM",
}
#: How every command may end.
_ENDINGS: dict[int, str | None] = {Status.INTERRUPTED: "", Status.PIPE_CLOSED: "", Status.TERMINATED: ""}


class CommandError(Exception):
    """
    A command cannot do what it was asked to.

    Parameters
    ----------
    status : Status
        What the command ends with.
    text : str
        What the user is told.
    """

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


def help_epilog(examples: str, meanings: Mapping[int, str | None]) -> str:
    """
    Write what stands at the end of a command's help.

    Parameters
    ----------
    examples : str
        Indented lines.
    meanings : mapping of int to str
        The exit statuses that the command may have; an empty text stands for the usual meaning. The ways in which
        every command may end are added; None leaves out one of them.

    Returns
    -------
    str
        Examples and exit statuses.
    """
    lines = [
        f"  {int(status):<3}  {text or MEANINGS[Status(status)]}"
        for status, text in sorted({**_ENDINGS, **meanings}.items())
        if text is not None
    ]
    return "examples:\n" + examples.rstrip() + "\n\nexit status:\n" + "\n".join(lines)


#: Characters of a text by a stranger that are shown, unless there is a reason for more.
LIMIT = 200

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


def sanitize(text: object, limit: int = LIMIT) -> str:
    """
    Make a text by a stranger fit to be printed: one line, without anything that a terminal would obey.

    Parameters
    ----------
    text : object
        Usually a string; of anything else, how JSON writes it.
    limit : int
        The most characters that the result has.
    """
    return sanitize_for_display(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False), limit)


def client_label(client_id: str, name: str) -> str:
    """How a person is told of a client: ``TOPCAT (c3)``."""
    return f"{sanitize(name, 40)} ({sanitize(client_id, 40)})" if sanitize(name) else sanitize(client_id, 40)


class CleanFormatter(logging.Formatter):
    """Writes lines of the log, in which there may be names that strangers chose, or tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line, or several."""
        lines = super().format(record).splitlines()
        return "\n".join(" " * (len(line) - len(line.lstrip(" "))) + sanitize(line, 2000) for line in lines)


class Style:
    """
    Colours, where they are wanted.

    Parameters
    ----------
    wanted : {"auto", "always", "never"}
        ``auto``: on a terminal, unless ``NO_COLOR`` is set.
    stream : file
        Where the text goes; standard output by default.
    """

    def __init__(self, wanted: str = "auto", stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or os.name == "nt"
        self.on = wanted == "always" or (wanted == "auto" and stream.isatty() and not plain)

    def __call__(self, text: str, *names: str) -> str:
        """Colour a text that is clean."""
        if not self.on or not text:
            return text
        return f"\x1b[{';'.join(_COLOURS[name] for name in names)}m{text}\x1b[0m"


def add_colour_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--color``."""
    parser.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default="auto",
        help="use colours: on a terminal unless NO_COLOR is set (%(default)s, the default), always, or never",
    )


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"write {what}, for scripts")


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Write a value as JSON, on one line where each line is a value."""
    print(json.dumps(value, indent=None if one_line else 2), flush=True)


def _width(text: str) -> int:
    """How many columns a clean text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad_or_truncate(text: str, width: int) -> str:
    """Cut or pad a clean text to a number of columns."""
    if _width(text) > width:
        while text and _width(text) > width - 1:
            text = text[:-1]
        text += "…" if width > 0 else ""
    return text + " " * (width - _width(text))


def column_widths(rows: Sequence[Sequence[str]], limit: int = 40) -> list[int]:
    """How wide the columns of a table have to be, each within a limit."""
    return [min(limit, max(_width(cell) for cell in column)) for column in zip(*rows, strict=True)]
