# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Reports about sent objects: the recipients, their responses, and the failures."""

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
    """Return the text of the error or warning in a response (R17); an empty string if there is none."""
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
    The message that was sent to one recipient, and its response.

    Parameters
    ----------
    id : str
        The public id of the recipient.
    name : str
        The name of the recipient.
    mtype : str
        The MType of the message; empty if no message was sent.
    url : str
        The URL in the message; empty if it contains none.
    response : dict, optional
        The response (R17); None until it arrives.
    error : str
        The reason why the message could not be sent or no response will arrive; otherwise empty.
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
        """Old name of ``error``."""
        warnings.warn("problem is now called error", DeprecationWarning, stacklevel=2)
        return self.error

    @property
    def is_open(self) -> bool:
        """Whether the response has not arrived yet."""
        return self.response is None and not self.error

    @property
    def failure(self) -> str:
        """The reason for the failure; empty if nothing has failed so far."""
        if self.response is not None and self.response.get("samp.status") == "samp.error":
            return response_error_text(self.response)
        return self.error

    @property
    def outcome(self) -> str:
        """The result as a word or sentence, for display."""
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
        The kind of the object: ``"table"``, ``"image"``...
    name : str
        The name that the recipients display.
    deliveries : iterable of SendResult
        The result for each recipient.
    identifier : str
        The table-id, image-id... in the messages.

    Attributes
    ----------
    kind, name, deliveries
        The values of the parameters.
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
        self._ending: set[str] = set()  # recipients that have replied, but whose leases have not ended yet

    @property
    def asked(self) -> dict[str, str]:
        """The names of the recipients to which a message was sent, by client id."""
        return {each.id: each.name for each in self.deliveries if each.mtype}

    @property
    def answered(self) -> dict[str, dict[str, Any]]:
        """The responses, including errors, by client id."""
        return {each.id: each.response for each in self.deliveries if each.response is not None}

    @property
    def failed(self) -> dict[str, str]:
        """The reasons why recipients did not get or load the object, by client id."""
        return {each.id: each.failure for each in self.deliveries if each.failure}

    @property
    def waiting(self) -> dict[str, str]:
        """The names of the recipients that have not replied yet, by client id."""
        return {each.id: each.name for each in self.deliveries if each.is_open}

    @property
    def ok(self) -> bool:
        """Whether there was at least one recipient, and all recipients have loaded the object."""
        return bool(self.deliveries) and not self.waiting and not self.failed

    def wait(self, timeout: str | float = 0) -> Self:
        """
        Wait until every recipient has replied.

        Parameters
        ----------
        timeout : str, int or float
            Seconds to wait; 0: no limit (until each recipient has replied or unregistered), less than 0: do not wait.
        """
        release_slot()  # in a handler: the responses come after its message in the queue
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
        Raise an error unless all recipients have loaded the object.

        Raises
        ------
        SAMPResponseError
            A recipient has not loaded the object, or there was no recipient.
        """
        if not self.ok:
            bad = [f"{each.name}: {each.outcome}" for each in self.deliveries if each.failure or each.is_open]
            reason = "; ".join(bad) or "no client is subscribed"
            raise SAMPResponseError(f"{self._title()} {reason}", dict(self.answered))
        return self

    def record(self, recipient_id: str, *, response: dict[str, Any] | None = None, error: str = "") -> None:
        """
        Record the response of a recipient, or the reason why there will be none. Later calls for it do nothing.

        Parameters
        ----------
        recipient_id : str
            The public id of the recipient.
        response : dict, optional
            The response of the recipient.
        error : str
            The reason why there will be no response.
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
        with self._changed:  # after the lease has ended, so that the files are removed when `wait` returns
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
    """Return `SendResult` for its old name."""
    if name == "Delivery":
        warnings.warn("Delivery is now called SendResult", DeprecationWarning, stacklevel=2)
        return SendResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
