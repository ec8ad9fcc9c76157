# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Reports about what was sent: the recipients, their responses, and what failed."""

from __future__ import annotations

import html
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ..client.handlers import release_slot
from ..errors import SAMPResponseError
from ..protocol.timeouts import Deadline
from .file_server import Lease

__all__ = ["SendReport", "SendResult", "response_error_text"]


def response_error_text(response: Mapping[str, Any]) -> str:
    """Return the text of the error or warning in a response (R17); an empty text if there is none."""
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
    What one recipient was sent, and its response.

    Parameters
    ----------
    id : str
        Public id of the recipient.
    name : str
        Its name.
    mtype : str
        The MType of the message; empty if none was sent.
    url : str
        The URL in the message; empty if there is none.
    response : dict, optional
        The response (R17); None until it arrives.
    error : str
        Why the message could not be sent, or no response will arrive; empty otherwise.
    lease : Lease, optional
        The recipient's right to read the file.
    """

    id: str
    name: str
    mtype: str = ""
    url: str = ""
    response: dict[str, Any] | None = None
    error: str = ""
    lease: Lease | None = field(default=None, repr=False)

    @property
    def problem(self) -> str:
        """The old name of ``error``."""
        warnings.warn("problem is now called error", DeprecationWarning, stacklevel=2)
        return self.error

    @property
    def is_open(self) -> bool:
        """Whether the response is still to come."""
        return self.response is None and not self.error

    @property
    def failure(self) -> str:
        """What failed; empty if nothing has failed so far."""
        if self.response is not None and self.response.get("samp.status") == "samp.error":
            return response_error_text(self.response)
        return self.error

    @property
    def outcome(self) -> str:
        """The result in one word or sentence, for display."""
        if self.is_open:
            return "no response yet"
        if self.failure:
            return self.failure
        warning = response_error_text(self.response or {})
        return f"loaded, with a warning: {warning}" if warning else "ok"


class SendReport:
    """
    The results of sending an object.

    Parameters
    ----------
    kind : str
        What was sent: ``"table"``, ``"image"``...
    name : str
        The name that the recipients show.
    deliveries : iterable of SendResult
        One for each recipient.
    identifier : str
        The table-id, image-id... in the messages.

    Attributes
    ----------
    kind, name, deliveries
        As given.
    id : str
        The identifier.
    on_done : callable or None
        Called when the last response has arrived.
    """

    def __init__(self, kind: str, name: str, deliveries: Iterable[SendResult] = (), identifier: str = "") -> None:
        self.kind = kind
        self.name = name
        self.id = identifier
        self.deliveries = list(deliveries)
        self.on_done: Callable[[], object] | None = None
        self._changed = threading.Condition()
        self._ending: set[str] = set()  # recipients that have replied, and whose leases are about to end

    @property
    def asked(self) -> dict[str, str]:
        """The recipients to which a message was sent: from ids to names."""
        return {each.id: each.name for each in self.deliveries if each.mtype}

    @property
    def answered(self) -> dict[str, dict[str, Any]]:
        """The responses, also errors, by client id."""
        return {each.id: each.response for each in self.deliveries if each.response is not None}

    @property
    def failed(self) -> dict[str, str]:
        """The recipients that do not have the object: from ids to reasons."""
        return {each.id: each.failure for each in self.deliveries if each.failure}

    @property
    def waiting(self) -> dict[str, str]:
        """The recipients that have not replied yet: from ids to names."""
        return {each.id: each.name for each in self.deliveries if each.is_open}

    @property
    def ok(self) -> bool:
        """Whether there were recipients, and all of them have the object."""
        return bool(self.deliveries) and not self.waiting and not self.failed

    def wait(self, timeout: str | float = 0) -> Self:
        """
        Wait until every recipient has replied.

        Parameters
        ----------
        timeout : str, int or float
            Seconds; 0 waits without limit, until they have replied or are gone, and less than 0 not at all.
        """
        release_slot()  # within a handler: the responses are behind it in the queue
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
        Raise an error unless all recipients have the object.

        Raises
        ------
        SAMPResponseError
            A recipient does not have it, or there was none.
        """
        if not self.ok:
            bad = [f"{each.name}: {each.outcome}" for each in self.deliveries if each.failure or each.is_open]
            reason = "; ".join(bad) or "no client is subscribed"
            raise SAMPResponseError(f"{self._title()} {reason}", dict(self.answered))
        return self

    def record(self, recipient_id: str, *, response: dict[str, Any] | None = None, error: str = "") -> None:
        """
        Note the response of a recipient, or why there will be none; only the first such note counts.

        Parameters
        ----------
        recipient_id : str
            Public id of the recipient.
        response : dict, optional
            Its response.
        error : str
            Why there will be no response.
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
        with self._changed:  # only now: when `wait` returns, the files are gone
            self._ending.discard(recipient_id)
            self._changed.notify_all()

    def _title(self) -> str:
        return f"{self.kind.capitalize()} {self.name!r}:"

    def __repr__(self) -> str:
        if not self.deliveries:
            return f"<SendReport: {self._title()} no client accepts it>"
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


def __getattr__(name: str) -> Any:
    """Return `SendResult` by its old name."""
    if name == "Delivery":
        warnings.warn("Delivery is now called SendResult", DeprecationWarning, stacklevel=2)
        return SendResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
