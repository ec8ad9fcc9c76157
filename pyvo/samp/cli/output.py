# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Output and exit statuses of the commands.

All text from other clients passes through `sanitize` before it is printed. Otherwise a name or a parameter could move
the cursor, change colours, or type into the terminal. JSON is safe, because it is written in ASCII.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TextIO

from ..protocol.values import sanitize_for_display


class Status(IntEnum):
    """Exit statuses, which have the same meaning in all commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_HUB = 3
    NO_RECIPIENT = 4
    TIMEOUT = 5
    INTERRUPTED = 130  # 128 and the number of the signal, as in a shell
    PIPE_CLOSED = 141
    TERMINATED = 143


#: The usual meaning of each.
MEANINGS = {
    Status.OK: "done",
    Status.FAILED: "it failed; the reason is on standard error",
    Status.USAGE: "invalid command line",
    Status.NO_HUB: "no hub is running, or it has gone",
    Status.NO_RECIPIENT: "there is no such client, or no client is subscribed",
    Status.TIMEOUT: "there was no response in time",
    Status.INTERRUPTED: "interrupted by ^C",
    Status.PIPE_CLOSED: "the output pipe was closed, for example by head",
    Status.TERMINATED: "ended by SIGTERM",
}
#: Exit statuses of all commands.
_COMMON_STATUSES: tuple[int, ...] = Status.USAGE, Status.INTERRUPTED, Status.PIPE_CLOSED, Status.TERMINATED


def is_pipe_closed(error: Exception) -> bool:
    """Whether a write has failed because the reader of the output, for example ``more``, has closed the pipe."""
    closed_on_windows = (
        os.name == "nt" and isinstance(error, OSError) and error.errno == errno.EINVAL and error.filename is None
    )
    return isinstance(error, BrokenPipeError) or closed_on_windows


class CommandError(Exception):
    """A command has failed; the text is shown, and the status becomes the exit status."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


def help_epilog(examples: str, meanings: Mapping[int, str | None]) -> str:
    """
    Return the end of a command's help: the examples, which are indented lines, and the exit statuses.

    An empty text in `meanings` stands for the usual meaning. The statuses that all commands have are added, unless
    `meanings` has None for them.
    """
    lines = [
        f"  {int(status):<3}  {text or MEANINGS[Status(status)]}"
        for status, text in sorted({**dict.fromkeys(_COMMON_STATUSES, ""), **meanings}.items())
        if text is not None
    ]
    return "examples:\n" + examples.rstrip() + "\n\nexit status:\n" + "\n".join(lines)


#: How many characters of a text are shown, unless a caller gives another limit.
MAX_TEXT = 200

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


def sanitize(text: object, limit: int = MAX_TEXT) -> str:
    """Make a text printable, or a value as JSON: one line, no control characters, at most `limit` characters."""
    return sanitize_for_display(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False), limit)


def client_label(client_id: str, name: str) -> str:
    """Return a client's name and id, for display: ``TOPCAT (c3)``."""
    return f"{sanitize(name, 40)} ({sanitize(client_id, 40)})" if sanitize(name) else sanitize(client_id, 40)


def print_notice(text: str) -> None:
    """Print a line for the user to standard error, so that standard output contains only results."""
    print(f"samp: {sanitize(text, 1000)}", file=sys.stderr, flush=True)


class CleanFormatter(logging.Formatter):
    """Formats log records, which may contain tracebacks and names of other clients."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one or more sanitized lines."""
        lines = super().format(record).splitlines()
        return "\n".join(" " * (len(line) - len(line.lstrip(" "))) + sanitize(line, 2000) for line in lines)


class Style:
    """Colours text: ``"always"``, ``"never"``, or ``"auto"``, which means on a terminal, unless ``NO_COLOR`` is set."""

    def __init__(self, when: str = "auto", stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or os.name == "nt"
        self.on = when == "always" or (when == "auto" and stream.isatty() and not plain)

    def __call__(self, text: str, *names: str) -> str:
        """Colour a sanitized text."""
        if not self.on or not text:
            return text
        return f"\x1b[{';'.join(_COLOURS[name] for name in names)}m{text}\x1b[0m"


def add_colour_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--color``."""
    parser.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default="auto",
        help="when to use colours; %(default)s, the default: on a terminal, unless NO_COLOR is set",
    )


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"write {what}, for scripts")


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=None if one_line else 2), flush=True)


def _width(text: str) -> int:
    """Return the number of terminal columns that a sanitized text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad_or_truncate(text: str, width: int) -> str:
    """Pad or truncate a sanitized text to a number of columns."""
    if _width(text) > width:
        while text and _width(text) > width - 1:
            text = text[:-1]
        text += "…" if width > 0 else ""
    return text + " " * (width - _width(text))


def column_widths(rows: Sequence[Sequence[str]], limit: int = 40) -> list[int]:
    """Return the widths of the columns of a table, each at most `limit`."""
    return [min(limit, max(_width(cell) for cell in column)) for column in zip(*rows, strict=True)]
