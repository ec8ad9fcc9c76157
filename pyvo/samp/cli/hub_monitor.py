# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The monitor of ``samp hub --monitor``: a table of clients and messages on a terminal, lines where there is no terminal.

Theory of operation
-------------------
The hub's thread puts each delivery into a queue and returns at once. The monitor's own thread gets it from there,
records it in a `TrafficLog`, which has no thread, clock or terminal, and draws when the queue is empty, at most
`MAX_RATE` times a second. The table uses the terminal's alternate screen, so that the earlier content returns
afterwards. The table is hidden while the user is asked for consent in the same terminal.
"""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TextIO

from ..broker import Delivery
from ..broker.deliveries import CALL, RESPONSE
from ..web_profile.consent import ConsentPrompt, ConsentTicket, Decision
from .output import Style, client_label, column_widths, pad_or_truncate, sanitize

__all__ = [
    "MESSAGES_KEPT",
    "ClientRow",
    "MessageRow",
    "ScreenLogHandler",
    "ScreenPausingPrompt",
    "TrafficLog",
    "TrafficScreen",
    "format_line",
    "format_screen",
]

log = logging.getLogger(__name__)

#: How many messages are kept; more than a screen has lines.
MESSAGES_KEPT = 200
#: How many calls without a response are kept. The response to an older call is shown without its call.
CALLS_KEPT = 1000

HUB = "hub"


class ClientRow:
    """A client, with its counts."""

    def __init__(self, client_id: str, profile: str) -> None:
        self.client_id = client_id
        self.profile = profile
        self.name = ""
        self.subscriptions: list[str] = []
        self.sent = 0
        self.received = 0
        self.last_active: dt.datetime | None = None
        #: The row of its registration, to which the name is added later.
        self.registration: MessageRow | None = None


class MessageRow:
    """A message with its responses, an event, or a line of the log."""

    def __init__(self, time: dt.datetime, sender: str, mtype: str, text: str = "") -> None:
        self.time = time
        self.sender = sender
        self.mtype = mtype
        self.text = text
        self.recipients: list[str] = []
        self.is_call = False
        #: One text for each response.
        self.responses: list[str] = []
        self.body: object = None  # deliveries of one broadcast have the same body


class TrafficLog:
    """A record of the clients and of the last messages."""

    def __init__(self) -> None:
        #: The registered clients, by id.
        self.clients: dict[str, ClientRow] = {}
        self.messages: deque[MessageRow] = deque(maxlen=MESSAGES_KEPT)
        #: The number of all messages.
        self.total = 0
        self._names: dict[str, str] = {HUB: "Hub"}
        self._calls: dict[str, MessageRow] = {}

    def client_label(self, client_id: str) -> str:
        """Return the label of a client, which may be gone."""
        return client_label(client_id, self._names.get(client_id, ""))

    def record_log(self, time: dt.datetime, text: str) -> MessageRow:
        """Record a line of the hub's log."""
        message = MessageRow(time, "", "", sanitize(text, 300))
        self.messages.append(message)
        return message

    def record(self, time: dt.datetime, delivery: Delivery) -> MessageRow:
        """Record a delivery, and return its row: a new one, or an earlier one with one more recipient or response."""
        if delivery.sender_id == HUB and not delivery.recipient_id:
            return self._record_event(time, delivery)
        if delivery.kind == RESPONSE:
            return self._record_response(time, delivery)
        return self._record_message(time, delivery)

    def _record_event(self, time: dt.datetime, delivery: Delivery) -> MessageRow:
        mtype = delivery.body.mtype
        params: Any = delivery.body.value["samp.params"]
        client_id = params.get("id", "")
        client = self.clients.get(client_id)
        message = MessageRow(time, HUB, mtype)
        if mtype == "samp.hub.event.register":
            client = self.clients[client_id] = ClientRow(client_id, delivery.body.source_profile)
            client.registration = message
            self.messages.append(message)
        elif mtype == "samp.hub.event.unregister":
            self.clients.pop(client_id, None)
            message.text = f"{self.client_label(client_id)} has unregistered"
            self.messages.append(message)
        elif mtype == "samp.hub.event.metadata" and client is not None:
            name = params["metadata"].get("samp.name", "")
            client.name = self._names[client_id] = name if isinstance(name, str) else ""
            message.text = f"{sanitize(client_id)} has the name {sanitize(client.name) or '-'}"
        elif mtype == "samp.hub.event.subscriptions" and client is not None:
            client.subscriptions = sorted(params["subscriptions"])
            mtypes = sanitize(", ".join(client.subscriptions), 500) or "no MType"
            message.text = f"{self.client_label(client_id)} is subscribed to {mtypes}"
        if client is not None and client.registration is not None:
            label = self.client_label(client_id)
            client.registration.text = f"{label} has registered, with the {client.profile} profile"
        return message

    def _record_message(self, time: dt.datetime, delivery: Delivery) -> MessageRow:
        last = self.messages[-1] if self.messages else None
        if last is not None and last.body is delivery.body:  # one more recipient of a broadcast
            message = last
        else:
            if last is not None:
                last.body = None  # a body may be large
            value = delivery.body.value
            message = MessageRow(time, delivery.sender_id, delivery.body.mtype, sanitize(value["samp.params"], 500))
            message.body = delivery.body
            message.is_call = delivery.kind == CALL
            self.messages.append(message)
            self.total += 1
            self._count(delivery.sender_id, time, sent=1)
        message.recipients.append(delivery.recipient_id)
        self._count(delivery.recipient_id, time, received=1)
        if delivery.kind == CALL and delivery.tag is not None:
            self._calls[delivery.tag] = message
            if len(self._calls) > CALLS_KEPT:
                del self._calls[next(iter(self._calls))]
        return message

    def _record_response(self, time: dt.datetime, delivery: Delivery) -> MessageRow:
        call = self._calls.pop(delivery.tag or "", None)
        if call is None:  # the call is no longer kept
            call = MessageRow(time, delivery.recipient_id, "(an older call)")
            self.messages.append(call)
        response: Any = delivery.body.value
        status = str(response.get("samp.status"))
        error = response.get("samp.error", {})
        reason = error.get("samp.errortxt", "") if isinstance(error, dict) else ""
        took = (time - call.time).total_seconds()
        text = f"{self.client_label(delivery.sender_id)}: {sanitize(status)} after {took:.2f} s"
        call.responses.append(text + (f", {sanitize(reason)}" if reason else ""))
        self._mark_active(delivery.sender_id, time)
        return call

    def _count(self, client_id: str, time: dt.datetime, sent: int = 0, received: int = 0) -> None:
        client = self.clients.get(client_id)
        if client is not None:
            client.sent += sent
            client.received += received
            if sent:
                client.last_active = time

    def _mark_active(self, client_id: str, time: dt.datetime) -> None:
        client = self.clients.get(client_id)
        if client is not None:
            client.last_active = time


#: The most drawings per second.
MAX_RATE = 10.0
#: How many messages may wait to be shown. When the hub is faster than the terminal, the others are only counted.
MAX_QUEUED = 5000

_ENTER_ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l"
_LEAVE_ALTERNATE_SCREEN = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_END_OF_LINE = "\x1b[K"
_END_OF_SCREEN = "\x1b[J"

_STOP = object()
_REDRAW = object()


class TrafficScreen:
    """Shows the traffic of a hub on a stream, by default standard output, from `start` to `stop`."""

    def __init__(self, headline: str = "SAMP hub", stream: TextIO | None = None) -> None:
        self.headline = headline
        self._stream = stream or sys.stdout
        self._style = Style("auto", self._stream)
        self.live = self._style.on
        self._log = TrafficLog()
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._write_lock = threading.Lock()  # held while the terminal is written to
        self._thread = threading.Thread(target=self._run, name="samp-monitor", daemon=True)
        self._omitted = 0
        #: Whether the stream cannot be written any more.
        self.broken = False
        #: Whether the reason is that the reader of the lines, for example `head`, has closed the pipe.
        self.pipe_closed = False
        #: Called in that case, in the thread of the monitor.
        self.on_pipe_closed: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Start the thread."""
        if self.live:
            self._write(_ENTER_ALTERNATE_SCREEN)
            self._redraw_on_resize()
        self._events.put(_REDRAW)
        self._thread.start()

    def stop(self) -> None:
        """Show what is in the queue, and restore the terminal."""
        self._events.put(_STOP)
        self._thread.join(2.0)
        if self.live:
            self._write(_LEAVE_ALTERNATE_SCREEN)

    def on_traffic(self, delivery: Delivery) -> None:
        """Put a delivery into the queue; called in the hub's thread."""
        if delivery.recipient_id and self._events.qsize() > MAX_QUEUED:
            self._omitted += 1  # only messages: all clients must be known
            return
        self._events.put((dt.datetime.now().astimezone(), delivery))

    def on_log(self, text: str) -> None:
        """Put a line of the log into the queue; called in any thread."""
        self._events.put((dt.datetime.now().astimezone(), text))

    def pause_and_ask(self, prompt: ConsentPrompt, ticket: ConsentTicket) -> Decision:
        """Hide the table while a prompt asks the user."""
        with self._write_lock:
            if self.live:
                self._write(_LEAVE_ALTERNATE_SCREEN)
            try:
                return prompt.ask(ticket)
            finally:
                if self.live:
                    self._write(_ENTER_ALTERNATE_SCREEN)
                    self._events.put(_REDRAW)

    def _redraw_on_resize(self) -> None:
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGWINCH"):
            signal.signal(signal.SIGWINCH, lambda *_: self._events.put(_REDRAW))

    # In the thread of the monitor

    def _run(self) -> None:
        drawn = 0.0
        changed = False
        while not self.pipe_closed:
            wait = max(0.0, drawn + 1 / MAX_RATE - time.monotonic()) if changed else None
            try:
                event = self._events.get(timeout=wait)
            except Empty:
                self._draw()
                drawn, changed = time.monotonic(), False
                continue
            if event is _STOP:
                return
            changed = self._process(event) or changed
        self.on_pipe_closed()

    def _process(self, event: Any) -> bool:
        """Record an event; return whether the table has to be drawn."""
        if event is _REDRAW:
            return self.live
        time, item = event
        row = self._log.record_log(time, item) if isinstance(item, str) else self._log.record(time, item)
        if not self.live:
            with self._write_lock:
                self._write(format_line(row, self._log, item) + "\n")
        return self.live

    def _draw(self) -> None:
        with self._write_lock:
            width, height = shutil.get_terminal_size()
            headline = self.headline + (f"   {self._omitted} messages were not shown" if self._omitted else "")
            lines = format_screen(self._log, headline, width, height, self._style)
            self._write(_HOME + "".join(f"{line}{_END_OF_LINE}\r\n" for line in lines[:-1]))
            self._write(lines[-1] + _END_OF_LINE + _END_OF_SCREEN)

    def _write(self, text: str) -> None:
        if self.broken:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            self.broken = self.pipe_closed = True
        except (OSError, ValueError) as error:  # a full disk, or the terminal is gone
            self.broken = True
            log.warning("The monitor cannot be shown any more; the hub continues without it: %s", error)


class ScreenPausingPrompt(ConsentPrompt):
    """Asks by another prompt, in the terminal that shows the table."""

    def __init__(self, screen: TrafficScreen, prompt: ConsentPrompt) -> None:
        self._screen = screen
        self._prompt = prompt

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Hide the table and ask."""
        return self._screen.pause_and_ask(self._prompt, ticket)

    def close(self) -> None:
        """End a call of `ask` that waits."""
        self._prompt.close()


class ScreenLogHandler(logging.StreamHandler[TextIO]):
    """Shows the log among the messages, or on standard error once the monitor cannot be shown any more."""

    def __init__(self, screen: TrafficScreen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        if self._screen.broken:
            super().emit(record)
        else:
            self._screen.on_log(f"{record.levelname}: {record.getMessage()}")


# Formatting


def format_line(row: MessageRow, log: TrafficLog, item: object) -> str:
    """Return a line for an item, which is a line of the log or a delivery, and its row."""
    clock = f"{row.time:%H:%M:%S}"
    if isinstance(item, Delivery) and item.kind == RESPONSE:
        now = dt.datetime.now().astimezone()
        return f"{now:%H:%M:%S} reply to {log.client_label(row.sender)}: {row.mtype}: {row.responses[-1]}"
    if not row.recipients:
        return f"{clock} {row.text or row.mtype}"
    kind = "call" if row.is_call else "notify"
    ends = f"{log.client_label(row.sender)} -> {log.client_label(row.recipients[-1])}"
    return f"{clock} {kind} {ends}: {sanitize(row.mtype)} {row.text}"


def format_screen(log: TrafficLog, headline: str, width: int, height: int, style: Style) -> list[str]:
    """Return the lines of the table, at most `height`."""
    counts = f"{_count(len(log.clients), 'client')}, {_count(log.total, 'message')}"
    top = [style(pad_or_truncate(f"{headline}   {counts}   ^C stops", width), "bold")]
    clients = _client_lines(log, width, style)
    available = max(3, min(len(clients), (height - 2) // 2))
    if len(clients) > available:
        more = f"... and {len(clients) - available + 1} more"
        clients = [*clients[: available - 1], style(pad_or_truncate(more, width), "dim")]
    left = max(0, height - len(clients) - 3)
    messages = [line for row in log.messages for line in _message_lines(row, log, width, style)]
    heading = style(pad_or_truncate("TIME      MESSAGE", width), "dim")
    lines = [*top, *clients, "", heading, *(messages[-left:] if left else [])]
    return lines[:height]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _client_lines(log: TrafficLog, width: int, style: Style) -> list[str]:
    heading = ["ID", "NAME", "PROFILE", "SENT", "RECEIVED", "LAST ACTIVE"]
    rows = [
        [
            sanitize(client.client_id, 40),
            sanitize(client.name, 40) or "-",
            sanitize(client.profile),
            str(client.sent),
            str(client.received),
            f"{client.last_active:%H:%M:%S}" if client.last_active else "-",
        ]
        for client in log.clients.values()
    ]
    widths = column_widths([heading, *rows])
    widths.append(max(1, width - sum(widths) - 2 * len(widths)))
    lines = [style(_row([*heading, "SUBSCRIPTIONS"], widths, width), "dim")]
    for row, client in zip(rows, log.clients.values(), strict=True):
        subscriptions = [pattern for pattern in client.subscriptions if not pattern.startswith("samp.")]
        lines.append(_row([*row, sanitize(", ".join(subscriptions), 500)], widths, width))
    return lines


def _row(cells: list[str], widths: list[int], width: int) -> str:
    padded = (pad_or_truncate(cell, size) for cell, size in zip(cells, widths, strict=True))
    return pad_or_truncate("  ".join(padded), width)


def _message_lines(row: MessageRow, log: TrafficLog, width: int, style: Style) -> list[str]:
    clock = f"{row.time:%H:%M:%S}  "
    if not row.recipients:
        responses = [pad_or_truncate(f"          {response}", width) for response in row.responses]
        return [style(pad_or_truncate(clock + (row.text or sanitize(row.mtype)), width), "dim"), *responses]
    recipients = ", ".join(log.client_label(recipient) for recipient in row.recipients[:5])
    if len(row.recipients) > 5:
        recipients += f" and {len(row.recipients) - 5} more"
    kind = "call" if row.is_call else "notify"
    text = f"{clock}{sanitize(row.mtype)}  {kind} {log.client_label(row.sender)} -> {recipients}  {row.text}"
    lines = [style(pad_or_truncate(text, width), "cyan")]
    for response in row.responses:
        colour = "green" if ": samp.ok " in response else "red" if ": samp.error " in response else "yellow"
        lines.append(style(pad_or_truncate(f"          {response}", width), colour))
    return lines
