# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the exit status of a command says, to scripts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

__all__ = ["MEANINGS", "CommandError", "Status", "epilog"]


class Status(IntEnum):
    """The same number means the same in each command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_HUB = 3
    NOBODY = 4
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
    Status.NOBODY: "there is no such client, or nobody takes the message",
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


def epilog(examples: str, meanings: Mapping[int, str | None]) -> str:
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
