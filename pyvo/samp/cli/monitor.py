# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What ``samp hub --monitor`` knows: the clients and the last messages, from what the hub tells its watcher.

It is a plain record of events, with no thread, clock or terminal in it. `monitor_screen` shows it.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from typing import Any

from ..broker import Delivery
from ..broker.deliveries import CALL, RESPONSE
from .terminal import clean, title

__all__ = ["MESSAGES_KEPT", "Guest", "Message", "Monitor"]

#: How many messages are remembered; more than a screen has lines.
MESSAGES_KEPT = 200
#: Calls of which the answer is waited for here; an older one's answer is shown without its call.
CALLS_KEPT = 1000

HUB = "hub"


class Guest:
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
        self.joined: Message | None = None


class Message:
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


class Monitor:
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
        self.guests: dict[str, Guest] = {}
        self.messages: deque[Message] = deque(maxlen=MESSAGES_KEPT)
        self.total = 0
        self._names: dict[str, str] = {HUB: "Hub"}
        self._calls: dict[str, Message] = {}

    def title(self, client_id: str) -> str:
        """How a person is told of a client, also when it has gone."""
        return title(client_id, self._names.get(client_id, ""))

    def note_log(self, time: dt.datetime, text: str) -> Message:
        """Take note of a line of the hub's log."""
        message = Message(time, "", "", clean(text, 300))
        self.messages.append(message)
        return message

    def note(self, time: dt.datetime, delivery: Delivery) -> Message | None:
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

    def _note_event(self, time: dt.datetime, delivery: Delivery) -> Message:
        mtype = delivery.body.mtype
        params: Any = delivery.body.value["samp.params"]
        client_id = params.get("id", "")
        guest = self.guests.get(client_id)
        message = Message(time, HUB, mtype)
        if mtype == "samp.hub.event.register":
            guest = self.guests[client_id] = Guest(client_id, delivery.body.origin)
            guest.joined = message
            self.messages.append(message)
        elif mtype == "samp.hub.event.unregister":
            self.guests.pop(client_id, None)
            message.text = f"{self.title(client_id)} has left"
            self.messages.append(message)
        elif mtype == "samp.hub.event.metadata" and guest is not None:
            name = params["metadata"].get("samp.name", "")
            guest.name = self._names[client_id] = name if isinstance(name, str) else ""
            message.text = f"{clean(client_id)} is {clean(guest.name) or 'without a name'}"
        elif mtype == "samp.hub.event.subscriptions" and guest is not None:
            guest.takes = sorted(params["subscriptions"])
            message.text = f"{self.title(client_id)} takes {clean(', '.join(guest.takes), 500) or 'nothing'}"
        if guest is not None and guest.joined is not None:
            guest.joined.text = f"{self.title(client_id)} has joined, by the {guest.profile} profile"
        return message

    def _note_message(self, time: dt.datetime, delivery: Delivery) -> Message:
        last = self.messages[-1] if self.messages else None
        if last is not None and last.body is delivery.body:  # the same, to one more recipient
            message = last
        else:
            if last is not None:
                last.body = None  # which may be large
            value = delivery.body.value
            message = Message(time, delivery.sender_id, delivery.body.mtype, clean(value["samp.params"], 500))
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

    def _note_response(self, time: dt.datetime, delivery: Delivery) -> Message:
        call = self._calls.pop(delivery.tag or "", None)
        if call is None:  # it is too old to be remembered
            call = Message(time, delivery.recipient_id, "(an older call)")
            self.messages.append(call)
        response: Any = delivery.body.value
        status = str(response.get("samp.status"))
        error = response.get("samp.error", {})
        reason = error.get("samp.errortxt", "") if isinstance(error, dict) else ""
        took = (time - call.time).total_seconds()
        text = f"{self.title(delivery.sender_id)}: {clean(status)} after {took:.2f} s"
        call.answers.append(text + (f", {clean(reason)}" if reason else ""))
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
