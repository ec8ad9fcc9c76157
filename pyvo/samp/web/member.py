# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A web page on its way into the hub, and as a member of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvo.samp.transport.deferred import Deferred

if TYPE_CHECKING:
    from pyvo.samp.broker import Client
    from pyvo.samp.transport.server import Connection
    from pyvo.samp.web.consent import Question
    from pyvo.samp.web.mailbox import WebMailbox

__all__ = ["Joining", "Member"]

#: Calls that are remembered for each page, so that its late answers are told from forged ones.
MAX_CALLS = 10_000


class Member:
    """
    A registered page.

    Parameters
    ----------
    client : Client
        What it is to the broker.
    mailbox : WebMailbox
        Where its callbacks wait.
    token : str
        What is in its translator's URL, and in no other's (R46).
    """

    def __init__(self, client: Client, mailbox: WebMailbox, token: str) -> None:
        self.client = client
        self.mailbox = mailbox
        self.token = token
        #: Msg-ids of the calls that it was handed and has not answered, the latest.
        self.calls: dict[str, None] = {}

    def was_called(self, msg_id: str) -> None:
        """Remember a call."""
        self.calls[msg_id] = None
        if len(self.calls) > MAX_CALLS:
            del self.calls[next(iter(self.calls))]

    def answers(self, msg_id: str) -> bool:
        """Whether this is the first answer to a call that it was handed."""
        return self.calls.pop(msg_id, self) is None


class Joining:
    """
    A page on its way in.

    Parameters
    ----------
    question : Question
        What the user is asked.
    connection : Connection
        What the page waits on.
    """

    def __init__(self, question: Question, connection: Connection) -> None:
        self.question = question
        self.connection = connection
        self.answer = Deferred()
        #: What it has become, if the user has agreed.
        self.client: Client | None = None
