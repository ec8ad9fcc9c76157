# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp hub --monitor``: a table of clients and messages in the terminal, or lines where there is no terminal.

Theory of operation
-------------------
The hub's thread puts what happens into a queue, and is back at once. A thread here takes it out, and draws when
the queue is empty: nothing is drawn while nothing happens, and a flood of messages is drawn `MAX_RATE` times a second
at most. The table is on the terminal's other screen, so that what was there before is there afterwards. It is
put aside while the user is asked for consent to a web page, which is done in the same terminal.
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
from .output import Style, column_widths, pad_or_truncate, sanitize

__all__ = ["ScreenLogHandler", "ScreenPausingPrompt", "TrafficScreen", "format_lines", "format_screen"]

log = logging.getLogger(__name__)

#: Drawings per second, at most.
MAX_RATE = 10.0
#: Messages that may wait to be shown. When the hub is faster than the terminal, the others are only counted.
MAX_WAITING = 5000

_OTHER_SCREEN = "\x1b[?1049h\x1b[?25l"
_FIRST_SCREEN = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_END_OF_LINE = "\x1b[K"
_END_OF_SCREEN = "\x1b[J"

_STOP = object()
_REDRAW = object()


class TrafficScreen:
    """
    Shows what goes on, from `start` to `stop`.

    Parameters
    ----------
    headline : str
        What stands above all.
    stream : file, optional
        Where to; standard output by default.
    """

    def __init__(self, headline: str = "SAMP hub", stream: TextIO | None = None) -> None:
        self.headline = headline
        self._stream = stream or sys.stdout
        self._style = Style("auto", self._stream)
        self.live = self._style.on
        self._log = TrafficLog()
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._drawing = threading.Lock()  # held while somebody writes to the terminal
        self._thread = threading.Thread(target=self._work, name="samp-monitor", daemon=True)
        self._missed = 0
        #: Whether nothing can be shown any more.
        self.broken = False
        #: Whether that is so because whoever read the lines, `head` for one, has had enough.
        self.pipe_closed = False
        #: Called then, in the thread of the monitor.
        self.on_reader_gone: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Begin."""
        if self.live:
            self._write(_OTHER_SCREEN)
            self._follow_size()
        self._events.put(_REDRAW)
        self._thread.start()

    def stop(self) -> None:
        """Show what there is, and give the terminal back."""
        self._events.put(_STOP)
        self._thread.join(2.0)
        if self.live:
            self._write(_FIRST_SCREEN)

    def watch(self, event: Traffic) -> None:
        """Take what the hub tells its watcher; in the hub's thread."""
        if event.recipient_ids and self._events.qsize() > MAX_WAITING:
            self._missed += 1  # messages alone: who comes and goes must be known
            return
        self._events.put((dt.datetime.now().astimezone(), event))

    def note_log(self, text: str) -> None:
        """Take a line of the log; in any thread."""
        self._events.put((dt.datetime.now().astimezone(), text))

    def ask(self, asker: ConsentPrompt, ticket: ConsentTicket) -> Decision:
        """Put the table aside while the user is asked something."""
        with self._drawing:
            if self.live:
                self._write(_FIRST_SCREEN)
            try:
                return asker.ask(ticket)
            finally:
                if self.live:
                    self._write(_OTHER_SCREEN)
                    self._events.put(_REDRAW)

    def _follow_size(self) -> None:
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGWINCH"):
            signal.signal(signal.SIGWINCH, lambda *_: self._events.put(_REDRAW))

    # In its own thread

    def _work(self) -> None:
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
            changed = self._take(event) or changed
        self.on_reader_gone()

    def _take(self, event: Any) -> bool:
        """Take note of an event; tell whether there is something to be drawn."""
        if event is _REDRAW:
            return self.live
        moment, what = event
        note = self._log.add_log if isinstance(what, str) else self._log.add
        message = note(moment, what)
        if not self.live and message is not None:
            with self._drawing:
                for line in format_lines(message, self._log, what):
                    self._write(line + "\n")
        return self.live

    def _draw(self) -> None:
        with self._drawing:
            width, height = shutil.get_terminal_size()
            headline = self.headline + (f"   {self._missed} messages were too many to be shown" if self._missed else "")
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
        except (OSError, ValueError) as error:  # the disk is full, or the terminal has gone
            self.broken = True
            log.warning("The monitor cannot be shown any more, the hub goes on without it: %s", error)


class ScreenPausingPrompt(ConsentPrompt):
    """
    Asks in the terminal that shows the table.

    Parameters
    ----------
    screen : MonitorScreen
        Whose table is put aside.
    asker : Asker
        Who asks.
    """

    def __init__(self, screen: TrafficScreen, asker: ConsentPrompt) -> None:
        self._screen = screen
        self._asker = asker

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Ask."""
        return self._screen.ask(self._asker, ticket)

    def close(self) -> None:
        """Let an `ask` that waits end."""
        self._asker.close()


class ScreenLogHandler(logging.StreamHandler[TextIO]):
    """Shows the log among the messages; on standard error when these cannot be shown any more."""

    def __init__(self, screen: TrafficScreen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line."""
        if self._screen.broken:
            super().emit(record)
        else:
            self._screen.note_log(f"{record.levelname}: {record.getMessage()}")


# How it looks


def format_lines(message: MessageRow, traffic: TrafficLog, what: object) -> list[str]:
    """
    Write what has just happened for somebody who reads lines.

    Parameters
    ----------
    message : MessageRow
        What `TrafficLog` made of it.
    traffic : TrafficLog
        The record.
    what : object
        What happened: a line of the log, or what the broker tells its watcher.
    """
    clock = f"{message.time:%H:%M:%S}"
    if isinstance(what, Traffic) and what.kind == RESPONSE:
        sender = traffic.title(message.sender)
        reply = traffic.reply_text(message.replies[what.sender_id])
        return [f"{dt.datetime.now().astimezone():%H:%M:%S} reply to {sender}: {message.mtype}: {reply}"]
    if not message.recipients:
        return [f"{clock} {message.text or message.mtype}"]
    kind = "call" if message.is_call else "notify"
    sender, text = traffic.title(message.sender), message.text
    return [
        f"{clock} {kind} {sender} -> {traffic.title(recipient)}: {sanitize(message.mtype)} {text}"
        for recipient in message.recipients
    ]


def format_screen(traffic: TrafficLog, headline: str, width: int, height: int, style: Style) -> list[str]:
    """
    Draw the table.

    Parameters
    ----------
    traffic : TrafficLog
        The record.
    headline : str
        What stands above all.
    width, height : int
        Size of the terminal.
    style : Style
        Colours.

    Returns
    -------
    list of str
        As many lines as the terminal has, at most.
    """
    counts = f"{_count(len(traffic.clients), 'client')}, {_count(traffic.total, 'message')}"
    top = [style(pad_or_truncate(f"{headline}   {counts}   ^C stops", width), "bold")]
    guests = _guest_lines(traffic, width, style)
    room = max(3, min(len(guests), (height - 2) // 2))
    if len(guests) > room:
        guests = [*guests[: room - 1], style(pad_or_truncate(f"... and {len(guests) - room + 1} more", width), "dim")]
    left = max(0, height - len(guests) - 3)
    last = list(traffic.messages)[-height:]
    messages = [line for message in last for line in _message_lines(message, traffic, width, style)]
    heading = style(pad_or_truncate("TIME      MESSAGE", width), "dim")
    lines = [*top, *guests, "", heading, *(messages[-left:] if left else [])]
    return lines[:height]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _guest_lines(traffic: TrafficLog, width: int, style: Style) -> list[str]:
    heading = ["ID", "NAME", "PROFILE", "SENT", "RECEIVED", "LAST HEARD"]
    rows = [
        [
            sanitize(guest.client_id, 40),
            sanitize(guest.name, 40) or "-",
            sanitize(guest.profile),
            str(guest.sent),
            str(guest.received),
            f"{guest.active:%H:%M:%S}" if guest.active else "-",
        ]
        for guest in traffic.clients.values()
    ]
    widths = column_widths([heading, *rows])
    left = sum(widths) + 2 * len(widths)
    lines = [style(_row([*heading, "TAKES"], [*widths, max(1, width - left)], width), "dim")]
    for row, guest in zip(rows, traffic.clients.values(), strict=True):
        takes = [pattern for pattern in guest.subscriptions if not pattern.startswith("samp.")]
        lines.append(_row([*row, sanitize(", ".join(takes), 500)], [*widths, max(1, width - left)], width))
    return lines


def _row(cells: list[str], widths: list[int], width: int) -> str:
    padded = [pad_or_truncate(cell, size) for cell, size in zip(cells, widths, strict=True)]
    return pad_or_truncate("  ".join(padded), width)


def _message_lines(message: MessageRow, traffic: TrafficLog, width: int, style: Style) -> list[str]:
    clock = f"{message.time:%H:%M:%S}  "
    if not message.recipients:
        answers = [
            pad_or_truncate(f"          {traffic.reply_text(reply)}", width) for reply in message.replies.values()
        ]
        return [style(pad_or_truncate(clock + (message.text or sanitize(message.mtype)), width), "dim"), *answers]
    shown = ", ".join(traffic.title(recipient) for recipient in message.recipients[:5])
    if len(message.recipients) > 5:
        shown += f" and {len(message.recipients) - 5} more"
    kind = "call" if message.is_call else "notify"
    text = f"{clock}{sanitize(message.mtype)}  {kind} {traffic.title(message.sender)} -> {shown}  {message.text}"
    lines = [style(pad_or_truncate(text, width), "cyan")]
    for reply in message.replies.values():
        colour = {"ok": "green", "error": "red"}.get(reply.status, "yellow")
        lines.append(style(pad_or_truncate(f"          {traffic.reply_text(reply)}", width), colour))
    return lines
