# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What became of something that was sent: who was asked, who answered, what failed."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from ..client.received_calls import release_slot
from ..errors import SAMPResponseError
from ..protocol.timeouts import Deadline

if TYPE_CHECKING:
    from .file_server import Lease

__all__ = ["SendReport", "SendResult", "response_error_text"]


def response_error_text(response: Mapping[str, Any]) -> str:
    """
    Tell what a response says is amiss.

    Parameters
    ----------
    response : mapping
        The response (R17).

    Returns
    -------
    str
        The text of its error or warning; empty for a response that is fine.
    """
    if response.get("samp.status") == "samp.ok":
        return ""
    error = response.get("samp.error")
    details = error if isinstance(error, Mapping) else {}
    short, long = (str(details.get(f"samp.{key}") or "").strip() for key in ("errortxt", "usertxt"))
    if long and long not in short:
        short = f"{short} ({long})" if short else long
    debug = str(details.get("samp.debugtxt") or "").strip()
    return short or str(details.get("samp.code") or "") or debug.rpartition("\n")[2] or "it gave no reason"


@dataclass
class SendResult:
    """
    What one recipient was sent, and what it said.

    Parameters
    ----------
    id : str
        Public id of the recipient.
    name : str
        Its name.
    mtype : str
        The MType of what it was sent; empty if it was sent nothing.
    url : str
        Where it was told to load from; empty if from nowhere.
    response : dict, optional
        Its response (R17); None until it comes.
    error : str
        Why it could not be asked, or will not answer; empty while neither is so.
    lease : Loan, optional
        What it has been lent to load.
    """

    id: str
    name: str
    mtype: str = ""
    url: str = ""
    response: dict[str, Any] | None = None
    error: str = ""
    lease: Lease | None = field(default=None, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether its answer is still to come."""
        return self.response is None and not self.error

    @property
    def failure(self) -> str:
        """What went wrong; empty if nothing did, or not yet."""
        if self.response is not None and self.response.get("samp.status") == "samp.error":
            return response_error_text(self.response)
        return self.error

    @property
    def outcome(self) -> str:
        """One word or sentence for people."""
        if self.is_open:
            return "no answer yet"
        if self.failure:
            return self.failure
        warning = response_error_text(self.response or {})
        return f"loaded, with a warning: {warning}" if warning else "ok"


class SendReport:
    """
    What became of something that was sent.

    Parameters
    ----------
    kind : str
        What it is: a table, an image...
    name : str
        What the recipients were told it is called.
    deliveries : iterable of Delivery
        One for each recipient.
    identifier : str
        The table-id, image-id... under which it was sent.

    Attributes
    ----------
    kind, name, deliveries
        As given.
    id : str
        The identifier.
    on_done : callable or None
        Called when the last answer has come.
    """

    def __init__(self, kind: str, name: str, deliveries: Iterable[SendResult] = (), identifier: str = "") -> None:
        self.kind = kind
        self.name = name
        self.id = identifier
        self.deliveries = list(deliveries)
        self.on_done: Callable[[], object] | None = None
        self._changed = threading.Condition()
        self._ending: set[str] = set()  # whose answer has come and is being dealt with

    # What is known

    @property
    def asked(self) -> dict[str, str]:
        """From ids to names: who was sent it."""
        return {each.id: each.name for each in self.deliveries if each.mtype}

    @property
    def answered(self) -> dict[str, dict[str, Any]]:
        """From ids to responses: who has answered, whatever it said."""
        return {each.id: each.response for each in self.deliveries if each.response is not None}

    @property
    def failed(self) -> dict[str, str]:
        """From ids to texts: who does not have it, and why."""
        return {each.id: each.failure for each in self.deliveries if each.failure}

    @property
    def waiting(self) -> dict[str, str]:
        """From ids to names: whose answer is still to come."""
        return {each.id: each.name for each in self.deliveries if each.is_open}

    @property
    def ok(self) -> bool:
        """Whether somebody was asked, and everybody has answered and has it."""
        return bool(self.deliveries) and not self.waiting and not self.failed

    # Waiting

    def wait(self, timeout: str | float = 0) -> Self:
        """
        Wait until every recipient has answered.

        Parameters
        ----------
        timeout : str, int or float
            Seconds; 0 waits without limit, until they have answered or are gone, and less than 0 not at all.
        """
        release_slot()  # within a handler: the answers are behind it in the queue
        deadline = Deadline(timeout)
        with self._changed:
            while self.waiting or self._ending:
                left = deadline.remaining
                if left == 0:
                    break
                self._changed.wait(left)
        return self

    def check(self) -> Self:
        """
        Raise an error unless everybody has answered and has it.

        Raises
        ------
        SAMPResponseError
            Somebody does not have it, or nobody was asked.
        """
        if not self.ok:
            bad = [f"{each.name}: {each.outcome}" for each in self.deliveries if each.failure or each.is_open]
            raise SAMPResponseError(f"{self._title()} {'; '.join(bad) or 'nobody takes it'}", dict(self.answered))
        return self

    # What the sending does

    def record(self, recipient_id: str, *, response: dict[str, Any] | None = None, error: str = "") -> None:
        """
        Note what one recipient said, or why it will not; the first such note counts.

        Parameters
        ----------
        recipient_id : str
            Public id of the recipient.
        response : dict, optional
            Its response.
        error : str
            Why there will be none.
        """
        with self._changed:
            for each in self.deliveries:
                if each.id == recipient_id and each.is_open:
                    each.response, each.error = response, error
                    lease, loaded = each.lease, not each.failure
                    break
            else:
                return
            self._ending.add(recipient_id)
            done = not self.waiting
        if lease is not None:
            lease.on_response(loaded=loaded)
        if done and self.on_done is not None:
            self.on_done()
        with self._changed:  # now, so that who waits finds no file any more
            self._ending.discard(recipient_id)
            self._changed.notify_all()

    # How it looks

    def _title(self) -> str:
        return f"{self.kind.capitalize()} {self.name!r}:"

    def __repr__(self) -> str:
        if not self.deliveries:
            return f"<SendReport: {self._title()} nobody takes it>"
        lines = [f"  {each.name} ({each.id}): {each.outcome}" for each in self.deliveries]
        return "\n".join([f"<SendReport: {self._title()}", *lines]) + ">"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(each.name)}</td><td>{html.escape(each.id)}</td>"
            f"<td>{html.escape(each.mtype)}</td><td>{html.escape(each.outcome)}</td></tr>"
            for each in self.deliveries
        )
        return (
            f"<table><caption>{html.escape(self._title())}</caption>"
            f"<tr><th>recipient</th><th>id</th><th>message</th><th>outcome</th></tr>{rows}</table>"
        )
