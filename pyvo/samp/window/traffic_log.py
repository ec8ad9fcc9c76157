# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The log of a hub's traffic: the clients, and the last messages with their responses.

The hub window and ``samp hub --monitor`` show this log. It has no thread, clock or lock: the caller passes the times,
and uses the log in one thread at a time.

Every change has a number, `TrafficLog.version`, and each row has the number of its last change. A reader that has all
changes up to a number requests the rows with a higher number.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import deque
from collections.abc import Iterable, KeysView, Sequence
from typing import Any, NamedTuple

from ..broker import Client, Traffic
from ..broker.deliveries import CALL, RESPONSE
from ..protocol import SAMPValue
from ..protocol.values import sanitize_for_display

#: Limits for the number of messages in the log, and for the total number of bytes of messages and responses.
MESSAGES_KEPT = 500
MAX_BYTES = 32 * 1024 * 1024
#: Maximum number of calls without a response. The response to an older call is shown without the call.
CALLS_KEPT = 1000
#: Maximum number of names, including those of unregistered clients.
NAMES_KEPT = 1000
#: Limits for the metadata entries and subscriptions of a client, and for the length of an entry.
MAX_ENTRIES = 100
MAX_PATTERNS = 1000
MAX_ENTRY_LENGTH = 1000
#: Number of characters of a message in a table.
PREVIEW_LENGTH = 500

HUB = "hub"
#: The possible statuses of a call, the worst first.
STATUSES = ("due", "error", "warning", "unknown", "ok")
_SAMP_STATUS = {"samp.ok": "ok", "samp.warning": "warning", "samp.error": "error"}
#: Characters that are invisible or change the direction of the text around them.
_INVISIBLE = re.compile("[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


class ClientRow:
    """A client. Its texts are short and safe to display, except `name` and `icon`."""

    __slots__ = (
        "changed",
        "client_id",
        "declared",
        "described",
        "icon",
        "last_active",
        "metadata",
        "name",
        "profile",
        "received",
        "registration",
        "sent",
        "subscriptions",
    )

    def __init__(self, client_id: str, profile: str) -> None:
        self.client_id = client_id
        self.profile = profile
        self.name = ""
        self.metadata: dict[str, str] = {}
        #: The metadata as the client declared them.
        self.declared: object = None
        #: The URL of the icon, or an empty string.
        self.icon = ""
        self.subscriptions: list[str] = []
        self.sent = 0
        self.received = 0
        self.last_active: dt.datetime | None = None
        #: The row of the client's registration, to which the name is added later.
        self.registration: MessageRow | None = None
        #: The number of the last change of the row.
        self.changed = 0
        #: The number of the last change of the metadata or subscriptions.
        self.described = 0


class Reply(NamedTuple):
    """A recipient's response to a call."""

    client_id: str
    status: str
    """One of `STATUSES`."""
    samp_status: str
    seconds: float
    error: str
    value: SAMPValue


class MessageRow:
    """A message with its responses, an event, or a line of the hub's log."""

    __slots__ = ("changed", "event_text", "is_call", "mtype", "number", "recipients", "replies", "sender", "size",
                 "time", "value")  # fmt: skip

    def __init__(self, time: dt.datetime, sender: str, mtype: str, text: str = "") -> None:
        self.number = 0
        self.changed = 0
        self.time = time
        self.sender = sender
        self.mtype = mtype
        self.event_text = text
        self.is_call = False
        self.recipients: Sequence[str] = ()
        self.replies: dict[str, Reply] = {}
        #: The message; None for an event or if the message is no longer stored.
        self.value: dict[str, SAMPValue] | None = None
        self.size = 0

    @property
    def text(self) -> str:
        """The parameters in one line, or the text of the event."""
        if self.value is None:
            return self.event_text
        short, _ = _shortened(self.value["samp.params"], PREVIEW_LENGTH)
        return sanitize_for_display(json.dumps(short, ensure_ascii=False), PREVIEW_LENGTH)

    @property
    def kind(self) -> str:
        """``"call"``, ``"notification"``, ``"event"`` or ``"log"``."""
        if self.recipients:
            return "call" if self.is_call else "notification"
        return "event" if self.mtype else "log"

    @property
    def status(self) -> str:
        """The worst status of all recipients; empty if this is not a call."""
        if not self.is_call:
            return ""
        found = {reply.status for reply in self.replies.values()}
        if len(self.replies) < len(self.recipients):
            found.add("due")
        return next(status for status in STATUSES if status in found)


class TrafficLog:
    """A log of the clients and of the last messages."""

    def __init__(self) -> None:
        #: The registered clients, by id.
        self.clients: dict[str, ClientRow] = {}
        self.messages: deque[MessageRow] = deque()
        #: The number of all messages so far.
        self.total = 0
        #: The number of the last change.
        self.version = 0
        #: The number of the last change of the list of clients.
        self.clients_changed = 0
        #: The names of clients, including unregistered ones.
        self.names: dict[str, str] = {HUB: "Hub"}
        self._rows = 0
        self._bytes = 0
        self._calls: dict[str, tuple[MessageRow, str]] = {}

    def client_label(self, client_id: str) -> str:
        """Return the name and id of a registered or unregistered client, such as ``TOPCAT (c3)``."""
        name, shown = sanitize_for_display(self.names.get(client_id, ""), 40), sanitize_for_display(client_id, 40)
        return f"{name} ({shown})" if name else shown

    def reply_text(self, reply: Reply) -> str:
        """Return one line about a response."""
        text = f"{self.client_label(reply.client_id)}: {reply.samp_status} after {reply.seconds:.2f} s"
        return text + (f", {reply.error}" if reply.error else "")

    def find(self, number: int) -> MessageRow | None:
        """Return the row with this number, or None if it is no longer in the log."""
        index = number - self.messages[0].number if self.messages else -1
        return self.messages[index] if 0 <= index < len(self.messages) else None

    def changed_rows(self, since: int) -> list[MessageRow]:
        """Return the rows that have changed since a version, the oldest first."""
        return [row for row in self.messages if row.changed > since]

    def touch(self) -> int:
        """Count a change and return its number."""
        self.version += 1
        return self.version

    def record_log(self, time: dt.datetime, text: str) -> MessageRow:
        """Record a line of the hub's log."""
        return self._append(MessageRow(time, "", "", sanitize_for_display(text, 300)))

    def add_clients(self, time: dt.datetime, clients: Iterable[Client]) -> None:
        """Record all clients of the broker. Call this at the start, and after events were dropped."""
        present = {client.client_id: client for client in clients}
        for client_id in self.clients.keys() - present.keys():
            self._remove_client(client_id)
        for client in present.values():
            row = self.clients.get(client.client_id) or self._add_client(client.client_id, client.profile)
            if row.declared is not client.metadata:
                self._set_metadata(row, client.metadata)
            if row.subscriptions != sorted(client.subscriptions)[:MAX_PATTERNS]:
                self._set_subscriptions(row, client.subscriptions)
        self.set_counts(time, present.values())

    def set_counts(self, time: dt.datetime, clients: Iterable[Client]) -> None:
        """Copy the message counts from the broker, which include dropped events."""
        for client in clients:
            row = self.clients.get(client.client_id)
            if row is None or (row.sent, row.received) == (client.sent, client.received):
                continue
            if row.sent != client.sent:
                row.last_active = time
            row.sent, row.received = client.sent, client.received
            row.changed = self.touch()

    def record(self, time: dt.datetime, event: Traffic) -> MessageRow:
        """Record an event of the broker; return its row, which is an earlier row if the event is a response."""
        if not event.recipient_ids:
            return self._add_event(time, event)
        if event.kind == RESPONSE:
            return self._add_response(time, event)
        return self._add_message(time, event)

    # Clients and events

    def _add_event(self, time: dt.datetime, event: Traffic) -> MessageRow:
        mtype = event.body.mtype
        params: Any = event.body.value["samp.params"]
        client_id = params.get("id", "")
        client = self.clients.get(client_id)
        row = MessageRow(time, HUB, mtype)
        if mtype == "samp.hub.event.register":
            client = self._add_client(client_id, event.body.source_profile)
            client.registration = self._append(row)
        elif mtype == "samp.hub.event.unregister":
            self._remove_client(client_id)
            row.event_text = f"{self.client_label(client_id)} has unregistered"
            self._append(row)
        elif mtype == "samp.hub.event.metadata" and client is not None:
            self._set_metadata(client, params["metadata"])
            name = sanitize_for_display(client.name) or "-"
            row.event_text = f"{sanitize_for_display(client_id)} has the name {name}"
        elif mtype == "samp.hub.event.subscriptions" and client is not None:
            self._set_subscriptions(client, params["subscriptions"])
            mtypes = sanitize_for_display(", ".join(client.subscriptions), 500) or "no MType"
            row.event_text = f"{self.client_label(client_id)} is subscribed to {mtypes}"
        if client is not None and client.registration is not None:
            label = self.client_label(client_id)
            client.registration.event_text = f"{label} has registered, with the {client.profile} profile"
            client.registration.changed = self.touch()
        return row

    def _add_client(self, client_id: str, profile: str) -> ClientRow:
        row = self.clients[client_id] = ClientRow(client_id, profile)
        row.changed = row.described = self.clients_changed = self.touch()
        return row

    def _remove_client(self, client_id: str) -> None:
        self.clients.pop(client_id, None)
        self.clients_changed = self.touch()

    def _set_metadata(self, row: ClientRow, metadata: dict[str, SAMPValue]) -> None:
        name, icon = metadata.get("samp.name"), metadata.get("samp.icon.url")
        row.name = name[:MAX_ENTRY_LENGTH] if isinstance(name, str) else ""
        row.icon = icon if isinstance(icon, str) and len(icon) <= 2 * MAX_ENTRY_LENGTH else ""
        row.declared = metadata
        row.metadata = {}
        for key, value in list(metadata.items())[:MAX_ENTRIES]:
            short, _ = _shortened(value, MAX_ENTRY_LENGTH)
            text = short if isinstance(short, str) else json.dumps(short, ensure_ascii=False)
            row.metadata[sanitize_for_display(key)] = sanitize_for_display(text, MAX_ENTRY_LENGTH)
        self.names.pop(row.client_id, None)
        self.names[row.client_id] = row.name
        if len(self.names) > NAMES_KEPT:
            del self.names[next(name for name in self.names if name != HUB and name not in self.clients)]
        row.changed = row.described = self.touch()

    def _set_subscriptions(self, row: ClientRow, subscriptions: Iterable[str]) -> None:
        row.subscriptions = sorted(subscriptions)[:MAX_PATTERNS]
        row.changed = row.described = self.touch()

    # Messages and responses

    def _append(self, row: MessageRow) -> MessageRow:
        self._rows += 1
        row.number = self._rows
        row.changed = self.touch()
        self.messages.append(row)
        self._count_bytes(row, 0)
        return row

    def _count_bytes(self, row: MessageRow, size: int) -> None:
        """Add bytes to the size of a row, and drop the oldest rows while a limit is exceeded."""
        row.size += size
        self._bytes += size
        while len(self.messages) > MESSAGES_KEPT or (self._bytes > MAX_BYTES and len(self.messages) > 1):
            self._drop_contents(self.messages.popleft())
        if self._bytes > MAX_BYTES:  # a single message is too long: keep only its preview
            row.event_text = row.text
            self._drop_contents(row)

    def _drop_contents(self, row: MessageRow) -> None:
        """Drop the contents of a row. `_calls` may still refer to the row."""
        self._bytes -= row.size
        row.size = 0
        row.value = None
        if row.replies:
            row.replies = {key: reply._replace(value="") for key, reply in row.replies.items()}

    def _add_message(self, time: dt.datetime, event: Traffic) -> MessageRow:
        row = MessageRow(time, event.sender_id, event.body.mtype)
        row.value = event.body.value
        row.is_call = event.kind == CALL
        row.recipients = event.recipient_ids
        self.total += 1
        self._append(row)
        self._count_bytes(row, len(event.body.encoded()))
        self._count(event.sender_id, time, sent=1)
        for recipient_id in event.recipient_ids:
            self._count(recipient_id, time, received=1)
        for recipient_id, msg_id in zip(event.recipient_ids, event.msg_ids, strict=False):
            self._calls[msg_id] = row, recipient_id
        while len(self._calls) > CALLS_KEPT:
            self._stop_tracking(next(iter(self._calls)))
        return row

    @property
    def due(self) -> KeysView[str]:
        """The msg-ids of the tracked calls, which have no response yet."""
        return self._calls.keys()

    def stop_tracking(self, msg_ids: Iterable[str]) -> None:
        """Stop tracking calls whose responses were dropped."""
        for msg_id in msg_ids:
            if msg_id in self._calls:
                self._stop_tracking(msg_id)

    def _stop_tracking(self, msg_id: str) -> None:
        row, recipient_id = self._calls.pop(msg_id)
        row.replies[recipient_id] = Reply(recipient_id, "unknown", "no longer tracked", 0.0, "", "")
        row.changed = self.touch()

    def _add_response(self, time: dt.datetime, event: Traffic) -> MessageRow:
        row, _ = self._calls.pop(event.msg_ids[0], (None, ""))
        if row is None:  # the call is no longer tracked
            row = self._append(MessageRow(time, event.recipient_ids[0], "(an older call)"))
        response: Any = event.body.value
        samp_status = str(response.get("samp.status"))
        error = response.get("samp.error", {})
        reason = error.get("samp.errortxt", "") if isinstance(error, dict) else ""
        row.replies[event.sender_id] = Reply(
            event.sender_id,
            _SAMP_STATUS.get(samp_status, "warning"),
            sanitize_for_display(samp_status, 200),
            (time - row.time).total_seconds(),
            sanitize_for_display(reason, 200) if isinstance(reason, str) else "",
            response if row.value is not None else "",
        )
        row.changed = self.touch()
        if row.value is not None:
            self._count_bytes(row, len(event.body.encoded()))
        self._count(event.sender_id, time)
        return row

    def _count(self, client_id: str, time: dt.datetime, sent: int = 0, received: int = 0) -> None:
        row = self.clients.get(client_id)
        if row is not None:
            row.sent += sent
            row.received += received
            if not received:
                row.last_active = time
            row.changed = self.version


def json_text(value: SAMPValue, limit: int | None = None) -> tuple[str, bool]:
    """
    Return a value as JSON on several lines, with about ``limit`` characters at most, and whether it is complete.

    Characters that are invisible or change the direction of the text are escaped.
    """
    short, whole = (value, True) if limit is None else _shortened(value, limit)
    text = json.dumps(short, ensure_ascii=False, indent=2)
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text), whole


def _shortened(value: SAMPValue, limit: int) -> tuple[SAMPValue, bool]:
    """Return a copy of about ``limit`` characters of a value, and whether it is complete."""
    left = limit

    def copy(value: SAMPValue) -> SAMPValue:
        nonlocal left
        if isinstance(value, str):
            kept = value[: max(left, 0)]
            left -= len(value)
            return kept
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        found: list[tuple[Any, SAMPValue]] = []
        for key, item in items:
            left -= 4
            if left < 0:
                break
            found.append((copy(key) if isinstance(key, str) else key, copy(item)))
        return dict(found) if isinstance(value, dict) else [item for _, item in found]

    return copy(value), left >= 0
