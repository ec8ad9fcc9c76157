# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Link a table in several programs: rows that are selected or highlighted in one program are shown in the others.

The programs identify the table by the ``table-id`` in the message with which it was sent. The messages about its rows
contain that id. The program in which the user selects rows sends these messages to all others; messages from one viewer
are not forwarded to another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np

from ..client.handlers import ReceivedMessage, refuse_coroutine_function
from ..client.lookup import get_client_names, match_name
from ..errors import SAMPError, SAMPTypeError, SAMPValueError, warn
from ..formats.model import Sendable
from ..formats.registry import to_sendable
from ..protocol import SAMPValue, best_match, error_response, ok_response, parse_int
from ..protocol.timeouts import parse_timeout
from .reports import SendReport, SendResult
from .sending import ExchangeState, call_recipients

__all__ = ["Link", "check_linkable"]

SELECT = "table.select.rowList"
HIGHLIGHT = "table.highlight.row"
#: Seconds after the response to the table during which an error may mean that the viewer does not know the table yet:
#: TOPCAT replies shortly before the table is available.
RETRY_WINDOW = 5.0
#: Seconds between two attempts to select or highlight rows.
RETRY_DELAY = 0.1

Listener = TypeVar("Listener", bound=Callable[..., object])


def check_linkable(table: Any) -> tuple[Sendable, int]:
    """
    Return the `Sendable` of a table and its number of rows.

    Raise SAMPTypeError if the object is not a table or its rows cannot be counted.
    """
    sendable = to_sendable(table)
    if sendable.kind != "table" or sendable.count is None:
        raise SAMPTypeError(f"Only tables can be linked, but {sendable.name!r} is sent as {sendable.kind}")
    try:
        return sendable, sendable.count()
    except Exception as error:  # from any reader of files
        raise SAMPTypeError(f"The rows of {sendable.name!r} cannot be counted: {error}") from error


class Link:
    """
    A table that is linked with other programs.

    Parameters
    ----------
    state : ExchangeState
        The state of the client.
    rows : int
        The number of rows of the table.
    report : SendReport
        The results of sending the table.
    """

    def __init__(self, state: ExchangeState, rows: int, report: SendReport) -> None:
        self._state = state
        self._rows = rows
        #: The results of sending the table.
        self.report = report
        #: The ``table-id``.
        self.id = report.id
        self._since = time.monotonic()
        self._private_key = state.client.get_private_key()
        self._urls = {each.url for each in report.deliveries if each.url}
        self._lock = threading.Lock()
        self._selected: Any = None
        self._highlighted: int | None = None
        self._on_select: list[Callable[..., object]] = []
        self._on_highlight: list[Callable[..., object]] = []
        state.client.client.add_filter(self, [SELECT, HIGHLIGHT], self._on_message)

    @property
    def selection(self) -> np.ndarray:
        """The rows of the last selection as a mask; initially no row is selected."""
        with self._lock:
            return np.zeros(self._rows, dtype=bool) if self._selected is None else self._selected.copy()

    @property
    def highlighted(self) -> int | None:
        """The number of the row that was highlighted last; None if there is none."""
        return self._highlighted

    def on_select(self, listener: Listener) -> Listener:
        """
        Call a function with the mask each time another program selects rows. Can be used as a decorator.

        Parameters
        ----------
        listener : callable
            The function. It is run like a handler (see ``dispatch`` of `SAMPIntegratedClient`).
        """
        refuse_coroutine_function(listener)
        self._on_select.append(listener)
        return listener

    def on_highlight(self, listener: Listener) -> Listener:
        """
        Call a function with the row number each time another program highlights a row. Can be used as a decorator.

        Parameters
        ----------
        listener : callable
            The function. It is run like a handler.
        """
        refuse_coroutine_function(listener)
        self._on_highlight.append(listener)
        return listener

    def _on_message(self, message: ReceivedMessage) -> dict[str, SAMPValue] | None:
        params = message.params
        table_id = params.get("table-id")
        if table_id != self.id and (table_id or params.get("url") not in self._urls):
            return None
        try:
            if message.mtype == SELECT:
                self._set_selection(self._mask(_row_numbers(params.get("row-list"))))
            else:
                self._set_highlight(self._checked(_row_numbers([params.get("row")])[0]))
        except SAMPValueError as error:
            return error_response(str(error))
        return ok_response({})

    def _set_selection(self, mask: np.ndarray) -> None:
        with self._lock:
            self._selected = mask
        for listener in list(self._on_select):
            self._state.client.client.run_handler(listener, mask.copy())

    def _set_highlight(self, row: int) -> None:
        self._highlighted = row
        for listener in list(self._on_highlight):
            self._state.client.client.run_handler(listener, row)

    def select(self, rows: Any, *, timeout: str | float = 30.0) -> SendReport:
        """
        Select rows in the other programs.

        Parameters
        ----------
        rows : array_like
            A mask (one bool for each row of the table), or row numbers (int, starting at 0).
        timeout : str, int or float
            Seconds to wait for the responses; 0: no limit.

        Returns
        -------
        SendReport
            The recipients and their responses.
        """
        wanted = np.asarray(np.ma.filled(rows, False)) if np.ma.isMA(rows) else np.asarray(rows)
        if wanted.dtype == bool:
            if wanted.shape != (self._rows,):
                raise SAMPValueError(f"The mask has the shape {wanted.shape}, but the table has {self._rows} rows")
            mask = wanted.copy()
        else:
            if wanted.size and wanted.dtype.kind not in "iu":
                raise SAMPValueError("Rows are selected by row numbers or a mask, not by values of type "
                                     f"{wanted.dtype}, such as {wanted.ravel()[0]!r}")
            mask = self._mask([int(row) for row in wanted.ravel()])
        with self._lock:
            self._selected = mask
        return self._broadcast(SELECT, {"row-list": np.flatnonzero(mask)}, timeout)

    def highlight(self, row: int, *, timeout: str | float = 30.0) -> SendReport:
        """
        Highlight a row in the other programs.

        Parameters
        ----------
        row : int
            The row number, starting at 0. A negative number counts from the end.
        timeout : str, int or float
            Seconds to wait for the responses; 0: no limit.

        Returns
        -------
        SendReport
            The recipients and their responses.
        """
        row = int(row)
        self._highlighted = self._checked(row + self._rows if row < 0 else row)
        return self._broadcast(HIGHLIGHT, {"row": self._highlighted}, timeout)

    def _broadcast(self, mtype: str, params: dict[str, Any], timeout: str | float) -> SendReport:
        seconds = parse_timeout(timeout)
        holders = self._holders()
        pause = threading.Event()
        while True:
            report = SendReport("selection" if mtype == SELECT else "highlight", self.report.name, identifier=self.id)
            messages = {}
            for client_id, each in holders.items():
                if self._is_subscribed(client_id, mtype):
                    report.deliveries.append(SendResult(client_id, each.name, mtype, each.url))
                    content = {"table-id": self.id, "url": each.url, **params}
                    messages[client_id] = {"samp.mtype": mtype, "samp.params": content}
            call_recipients(self._state, report, messages, seconds)
            report.wait(seconds)
            if not report.failed or time.monotonic() > self._since + RETRY_WINDOW:
                break
            pause.wait(RETRY_DELAY)
        for each in report.deliveries:
            if each.failure or each.is_open:
                warn(f"{each.name} did not apply the {report.kind}: {each.outcome}")
        return report

    def _holders(self) -> dict[str, SendResult]:
        """
        Return the results for the clients that have the table, by the current ids of the clients.

        Another hub gives the clients new ids, and may give an old id to another client. Therefore the clients are
        identified by their names after the connection to another hub.
        """
        sent = [each for each in self.report.deliveries if each.mtype and not each.failure]
        client = self._state.client
        if client.get_private_key() == self._private_key:
            return {each.id: each for each in sent}
        names = get_client_names(client)
        return {client_id: each for each in sent for client_id in match_name(names, each.name)}

    def _is_subscribed(self, client_id: str, mtype: str) -> bool:
        try:
            return best_match(self._state.client.get_subscriptions(client_id), mtype) is not None
        except SAMPError:  # the client has unregistered
            return False

    def _checked(self, row: int) -> int:
        if not 0 <= row < self._rows:
            raise SAMPValueError(f"There is no row {row}: the table has {self._rows} rows")
        return row

    def _mask(self, rows: list[int]) -> np.ndarray:
        mask = np.zeros(self._rows, dtype=bool)
        if rows:
            self._checked(min(rows))
            self._checked(max(rows))
            mask[rows] = True
        return mask

    def close(self) -> None:
        """Stop sharing selections. The other programs keep the table."""
        self._state.client.client.remove_filter(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        others = ", ".join(each.name for each in self.report.deliveries if each.mtype and not each.failure)
        return f"<Link: {self.report.name!r} with {others or 'no client'}, {int(self.selection.sum())} rows selected>"


def _row_numbers(value: Any) -> list[int]:
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        raise SAMPValueError("The message does not specify the rows")
    joined = "".join(value)
    if joined.isascii() and joined.isdecimal() and 0 < min(map(len, value)) <= max(map(len, value)) < 19:
        return list(map(int, value))
    return [parse_int(item) for item in value]


