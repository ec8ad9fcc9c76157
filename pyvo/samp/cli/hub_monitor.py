# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The monitor of ``samp hub --monitor``: a table of clients and messages on a terminal, or lines if there is no terminal.

Theory of operation
-------------------
The hub's thread puts each event and message into a queue and returns at once. The monitor's own thread gets them from
there, records them in a `TrafficLog`, as the hub window does, and draws when the queue is empty, at most `MAX_RATE`
times a second. The table is on the terminal's alternate screen, so that the earlier content returns afterwards. It is
hidden while the user is asked for consent in the same terminal.
"""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TextIO

from ..broker import Traffic
from ..broker.deliveries import RESPONSE
from ..web_profile.consent import ConsentPrompt, ConsentTicket, Decision
from ..window.traffic_log import MessageRow, TrafficLog
from .output import Style, column_widths, is_pipe_closed, pad_or_truncate, sanitize

log = logging.getLogger(__name__)

#: Maximum number of drawings per second.
MAX_RATE = 10.0
#: Maximum number of messages that wait to be shown; when the hub is faster than the terminal, more are only counted.
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
        #: Whether the stream can no longer be written.
        self.broken = False
        #: Whether the reason is that the reader of the lines, for example `head`, has closed the pipe.
        self.pipe_closed = False
        #: Called in that case, in the thread of the monitor.
        self.on_pipe_closed: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Start the thread."""
        if self.live:
            self._write(_ENTER_ALTERNATE_SCREEN)
            if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGWINCH"):
                signal.signal(signal.SIGWINCH, lambda *_: self._events.put(_REDRAW))
        self._events.put(_REDRAW)
        self._thread.start()

    def stop(self) -> None:
        """Show what is in the queue, and restore the terminal."""
        self._events.put(_STOP)
        self._thread.join(2.0)
        if self.live:
            self._write(_LEAVE_ALTERNATE_SCREEN)

    def on_traffic(self, event: Traffic) -> None:
        """Put an event, message or response into the queue; called in the hub's thread."""
        if event.recipient_ids and self._events.qsize() > MAX_QUEUED:
            self._omitted += 1  # only messages are left out: all clients must be known
            return
        self._events.put((dt.datetime.now().astimezone(), event))

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
                self._write("".join(f"{line}\n" for line in format_lines(row, self._log, item)))
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
        except (OSError, ValueError) as error:  # the pipe is closed, the disk is full, or the terminal is gone
            self.broken = True
            if is_pipe_closed(error):
                self.pipe_closed = True
                return
            log.warning("The monitor can no longer be shown; the hub continues without it: %s", error)


class ScreenPausingPrompt(ConsentPrompt):
    """Asks through another prompt, in the terminal that shows the table."""

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
    """Shows the log among the messages; on standard error when the monitor can no longer be shown."""

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


def format_lines(row: MessageRow, log: TrafficLog, item: object) -> list[str]:
    """Return the lines for the row of an item (a line of the log, or a `Traffic`): one for each recipient."""
    clock = f"{row.time:%H:%M:%S}"
    if isinstance(item, Traffic) and item.kind == RESPONSE:
        now = dt.datetime.now().astimezone()
        response = log.reply_text(row.replies[item.sender_id])
        return [f"{now:%H:%M:%S} reply to {log.client_label(row.sender)}: {sanitize(row.mtype)}: {response}"]
    if not row.recipients:
        return [f"{clock} {row.text or row.mtype}"]
    start = f"{clock} {'call' if row.is_call else 'notify'} {log.client_label(row.sender)} -> "
    end = f": {sanitize(row.mtype)} {row.text}"
    return [f"{start}{log.client_label(recipient)}{end}" for recipient in row.recipients]


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
    rows = list(log.messages)[-height:]  # each has one line or more
    messages = [line for row in rows for line in _message_lines(row, log, width, style)]
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
    if row.recipients:
        recipients = ", ".join(log.client_label(recipient) for recipient in row.recipients[:5])
        if len(row.recipients) > 5:
            recipients += f" and {len(row.recipients) - 5} more"
        kind = "call" if row.is_call else "notify"
        text = f"{sanitize(row.mtype)}  {kind} {log.client_label(row.sender)} -> {recipients}  {row.text}"
    else:
        text = row.text or sanitize(row.mtype)
    line = pad_or_truncate(f"{row.time:%H:%M:%S}  {text}", width)
    lines = [style(line, "cyan" if row.recipients else "dim")]
    for reply in row.replies.values():
        colour = {"ok": "green", "error": "red"}.get(reply.status, "yellow")
        lines.append(style(pad_or_truncate(f"          {log.reply_text(reply)}", width), colour))
    return lines
