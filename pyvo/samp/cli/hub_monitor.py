# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp hub --monitor``: a table of clients and messages in the terminal, or lines where there is no terminal.

Theory of operation
-------------------
The hub's thread puts what happens into a queue, and is back at once. A thread here takes it out, and draws when
the queue is empty: nothing is drawn while nothing happens, and a flood of messages is drawn `MAX_RATE` times a second
at most. The table is on the terminal's other screen, so that what was there before is there afterwards. It is
put aside while the user is asked for consent to a web page, which is done in the same terminal.

What ``samp hub --monitor`` knows: the clients and the last messages, from what the hub tells its watcher.

It is a plain record of events, with no thread, clock or terminal in it. `monitor_screen` shows it.
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
    "format_lines",
    "format_screen",
]

log = logging.getLogger(__name__)

#: How many messages are remembered; more than a screen has lines.
MESSAGES_KEPT = 200
#: Calls of which the answer is waited for here; an older one's answer is shown without its call.
CALLS_KEPT = 1000

HUB = "hub"


class ClientRow:
    """A client."""

    def __init__(self, client_id: str, profile: str) -> None:
        self.client_id = client_id
        self.profile = profile
        self.name = ""
        self.takes: list[str] = []
        self.sent = 0
        self.received = 0
        self.active: dt.datetime | None = None
        #: What tells of its coming; the name comes later.
        self.joined: MessageRow | None = None


class MessageRow:
    """A message, or an event, or a line of the log, and what became of it."""

    def __init__(self, time: dt.datetime, sender: str, mtype: str, text: str = "") -> None:
        self.time = time
        self.sender = sender
        self.mtype = mtype
        self.text = text
        self.recipients: list[str] = []
        self.is_call = False
        #: What was answered, one text for each answer.
        self.answers: list[str] = []
        self.body: object = None  # what tells the deliveries of one broadcast from those of another


class TrafficLog:
    """
    The record.

    Attributes
    ----------
    guests : dict of str to Guest
        Who is there.
    messages : deque of Message
        What was sent last.
    total : int
        How many messages there were.
    """

    def __init__(self) -> None:
        self.guests: dict[str, ClientRow] = {}
        self.messages: deque[MessageRow] = deque(maxlen=MESSAGES_KEPT)
        self.total = 0
        self._names: dict[str, str] = {HUB: "Hub"}
        self._calls: dict[str, MessageRow] = {}

    def client_label(self, client_id: str) -> str:
        """How a person is told of a client, also when it has gone."""
        return client_label(client_id, self._names.get(client_id, ""))

    def note_log(self, time: dt.datetime, text: str) -> MessageRow:
        """Take note of a line of the hub's log."""
        message = MessageRow(time, "", "", sanitize(text, 300))
        self.messages.append(message)
        return message

    def note(self, time: dt.datetime, delivery: Delivery) -> MessageRow | None:
        """
        Take note of something that the hub did.

        Parameters
        ----------
        time : datetime
            When.
        delivery : Delivery
            What.

        Returns
        -------
        Message or None
            What is to be shown of it: a new message, or an older one that has got a recipient or an answer more.
        """
        if delivery.sender_id == HUB and not delivery.recipient_id:
            return self._note_event(time, delivery)
        if delivery.kind == RESPONSE:
            return self._note_response(time, delivery)
        return self._note_message(time, delivery)

    def _note_event(self, time: dt.datetime, delivery: Delivery) -> MessageRow:
        mtype = delivery.body.mtype
        params: Any = delivery.body.value["samp.params"]
        client_id = params.get("id", "")
        guest = self.guests.get(client_id)
        message = MessageRow(time, HUB, mtype)
        if mtype == "samp.hub.event.register":
            guest = self.guests[client_id] = ClientRow(client_id, delivery.body.source_profile)
            guest.joined = message
            self.messages.append(message)
        elif mtype == "samp.hub.event.unregister":
            self.guests.pop(client_id, None)
            message.text = f"{self.client_label(client_id)} has left"
            self.messages.append(message)
        elif mtype == "samp.hub.event.metadata" and guest is not None:
            name = params["metadata"].get("samp.name", "")
            guest.name = self._names[client_id] = name if isinstance(name, str) else ""
            message.text = f"{sanitize(client_id)} is {sanitize(guest.name) or 'without a name'}"
        elif mtype == "samp.hub.event.subscriptions" and guest is not None:
            guest.takes = sorted(params["subscriptions"])
            message.text = f"{self.client_label(client_id)} takes {sanitize(', '.join(guest.takes), 500) or 'nothing'}"
        if guest is not None and guest.joined is not None:
            guest.joined.text = f"{self.client_label(client_id)} has joined, by the {guest.profile} profile"
        return message

    def _note_message(self, time: dt.datetime, delivery: Delivery) -> MessageRow:
        last = self.messages[-1] if self.messages else None
        if last is not None and last.body is delivery.body:  # the same, to one more recipient
            message = last
        else:
            if last is not None:
                last.body = None  # which may be large
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

    def _note_response(self, time: dt.datetime, delivery: Delivery) -> MessageRow:
        call = self._calls.pop(delivery.tag or "", None)
        if call is None:  # it is too old to be remembered
            call = MessageRow(time, delivery.recipient_id, "(an older call)")
            self.messages.append(call)
        response: Any = delivery.body.value
        status = str(response.get("samp.status"))
        error = response.get("samp.error", {})
        reason = error.get("samp.errortxt", "") if isinstance(error, dict) else ""
        took = (time - call.time).total_seconds()
        text = f"{self.client_label(delivery.sender_id)}: {sanitize(status)} after {took:.2f} s"
        call.answers.append(text + (f", {sanitize(reason)}" if reason else ""))
        self._touch(delivery.sender_id, time)
        return call

    def _count(self, client_id: str, time: dt.datetime, sent: int = 0, received: int = 0) -> None:
        guest = self.guests.get(client_id)
        if guest is not None:
            guest.sent += sent
            guest.received += received
            if sent:
                guest.active = time

    def _touch(self, client_id: str, time: dt.datetime) -> None:
        guest = self.guests.get(client_id)
        if guest is not None:
            guest.active = time


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
        self._monitor = TrafficLog()
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

    def watch(self, delivery: Delivery) -> None:
        """Take what the hub tells its watcher; in the hub's thread."""
        if delivery.recipient_id and self._events.qsize() > MAX_WAITING:
            self._missed += 1  # messages alone: who comes and goes must be known
            return
        self._events.put((dt.datetime.now().astimezone(), delivery))

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
        note = self._monitor.note_log if isinstance(what, str) else self._monitor.note
        message = note(moment, what)
        if not self.live and message is not None:
            with self._drawing:
                for line in format_lines(message, self._monitor, what):
                    self._write(line + "\n")
        return self.live

    def _draw(self) -> None:
        with self._drawing:
            width, height = shutil.get_terminal_size()
            headline = self.headline + (f"   {self._missed} messages were too many to be shown" if self._missed else "")
            lines = format_screen(self._monitor, headline, width, height, self._style)
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


def format_lines(message: MessageRow, monitor: TrafficLog, what: object) -> list[str]:
    """
    Write what has just happened for somebody who reads lines.

    Parameters
    ----------
    message : Message
        What `Monitor` made of it.
    monitor : Monitor
        The record.
    what : object
        What happened: a line of the log, or a delivery.
    """
    clock = f"{message.time:%H:%M:%S}"
    if isinstance(what, Delivery) and what.kind == RESPONSE:
        sender = monitor.client_label(message.sender)
        return [f"{dt.datetime.now().astimezone():%H:%M:%S} reply to {sender}: {message.mtype}: {message.answers[-1]}"]
    if not message.recipients:
        return [f"{clock} {message.text or message.mtype}"]
    kind = "call" if message.is_call else "notify"
    ends = f"{monitor.client_label(message.sender)} -> {monitor.client_label(message.recipients[-1])}"
    return [f"{clock} {kind} {ends}: {sanitize(message.mtype)} {message.text}"]


def format_screen(monitor: TrafficLog, headline: str, width: int, height: int, style: Style) -> list[str]:
    """
    Draw the table.

    Parameters
    ----------
    monitor : Monitor
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
    counts = f"{_count(len(monitor.guests), 'client')}, {_count(monitor.total, 'message')}"
    top = [style(pad_or_truncate(f"{headline}   {counts}   ^C stops", width), "bold")]
    guests = _guest_lines(monitor, width, style)
    room = max(3, min(len(guests), (height - 2) // 2))
    if len(guests) > room:
        guests = [*guests[: room - 1], style(pad_or_truncate(f"... and {len(guests) - room + 1} more", width), "dim")]
    left = max(0, height - len(guests) - 3)
    messages = [line for message in monitor.messages for line in _message_lines(message, monitor, width, style)]
    heading = style(pad_or_truncate("TIME      MESSAGE", width), "dim")
    lines = [*top, *guests, "", heading, *(messages[-left:] if left else [])]
    return lines[:height]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _guest_lines(monitor: TrafficLog, width: int, style: Style) -> list[str]:
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
        for guest in monitor.guests.values()
    ]
    widths = column_widths([heading, *rows])
    left = sum(widths) + 2 * len(widths)
    lines = [style(_row([*heading, "TAKES"], [*widths, max(1, width - left)], width), "dim")]
    for row, guest in zip(rows, monitor.guests.values(), strict=True):
        takes = [pattern for pattern in guest.takes if not pattern.startswith("samp.")]
        lines.append(_row([*row, sanitize(", ".join(takes), 500)], [*widths, max(1, width - left)], width))
    return lines


def _row(cells: list[str], widths: list[int], width: int) -> str:
    return pad_or_truncate("  ".join(pad_or_truncate(cell, size) for cell, size in zip(cells, widths, strict=True)), width)


def _message_lines(message: MessageRow, monitor: TrafficLog, width: int, style: Style) -> list[str]:
    clock = f"{message.time:%H:%M:%S}  "
    if not message.recipients:
        answers = [pad_or_truncate(f"          {answer}", width) for answer in message.answers]
        return [style(pad_or_truncate(clock + (message.text or sanitize(message.mtype)), width), "dim"), *answers]
    shown = ", ".join(monitor.client_label(recipient) for recipient in message.recipients[:5])
    if len(message.recipients) > 5:
        shown += f" and {len(message.recipients) - 5} more"
    kind = "call" if message.is_call else "notify"
    text = f"{clock}{sanitize(message.mtype)}  {kind} {monitor.client_label(message.sender)} -> {shown}  {message.text}"
    lines = [style(pad_or_truncate(text, width), "cyan")]
    for answer in message.answers:
        colour = "green" if ": samp.ok " in answer else "red" if ": samp.error " in answer else "yellow"
        lines.append(style(pad_or_truncate(f"          {answer}", width), colour))
    return lines
