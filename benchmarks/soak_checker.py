# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The checks of an endurance run: whether each message was delivered and got its response as it must.

The checker knows no processes. It gets the lines that clients wrote, and the times at which clients ended. Its rules:

- A message that the hub accepted is delivered to each of its recipients once. It may be missing if the recipient
  crashed or unregistered within `DUE` seconds, but it is never delivered twice.
- A message that the hub rejected is delivered to no client.
- A call gets one response, from its recipient or from the hub. It may get none if the *sender* crashed or unregistered
  within `DUE` seconds, but never two.
- Each operation of a client that is alive succeeds, or the hub rejects it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["DUE", "MessageChecker"]

#: Seconds within which all deliveries and responses arrive: the hub unregisters a crashed client within 10 s.
DUE = 20.0


@dataclass
class Message:
    """A message, with its recipients, deliveries and responses."""

    kind: str
    sender: str
    time: float
    recipients: list[str] | None = None  # public ids; None until the hub has accepted it
    refused: bool = False
    got: Counter[str] = field(default_factory=Counter)  # by public id
    answers: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)


class MessageChecker:
    """The messages of a run that are not checked yet."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self._messages: dict[str, Message] = {}
        self._end_times: dict[str, float] = {}  # by serial number of the client
        self._ids: dict[str, str] = {}  # serial number by public id

    def record(self, serial: str, line: str) -> None:
        """Record a line of a client: time, word, and further words, such as ``12.5 got 3-17``."""
        time_text, word, *rest = line.split(" ")
        time = float(time_text)
        self.counts[word] += 1
        if word == "join":
            if rest[0] in self._ids:
                self._add_fault(f"the hub gave the id {rest[0]} twice")
            self._ids[rest[0]] = serial
        elif word == "leaving":
            self.client_ended(serial, time)
        elif word == "sending":
            message = self._messages.setdefault(rest[0], Message("", serial, time))  # a recipient's line may be first
            message.kind = rest[1]
        elif word == "trouble":
            if serial not in self._end_times:
                self._add_fault(f"client {serial}: {' '.join(rest)}")
        elif word in {"accepted", "refused", "got", "answer"}:
            self._event(serial, time, word, rest)

    def _event(self, serial: str, time: float, word: str, rest: list[str]) -> None:
        message = self._messages.get(rest[0])
        if message is None:
            if word == "got":  # the line of the recipient was read before that of the sender
                message = self._messages[rest[0]] = Message("", rest[0].partition("-")[0], time)
            else:
                self._add_fault(f"{word} {rest}: this message is not known")
                return
        if word == "accepted":
            message.recipients = rest[1:]
        elif word == "refused":
            message.refused = True
        elif word == "got":
            message.got[rest[1]] += 1
        else:
            message.answers[rest[1]] += 1
            if len(rest) > 3 and rest[3]:
                message.errors[rest[1]] = " ".join(rest[3:])
            self.counts[rest[2]] += 1

    def client_ended(self, serial: str, time: float) -> None:
        """Record that a client was killed or started to unregister."""
        self._end_times.setdefault(serial, time)

    def check_messages(self, now: float) -> None:
        """Check the messages for which no delivery or response is expected any more."""
        due = [name for name, message in self._messages.items() if now - message.time > 3 * DUE]
        for name in due:
            self._check_message(name, self._messages.pop(name))

    def _check_message(self, name: str, message: Message) -> None:
        self.counts["judged"] += 1
        said = f"{message.kind} {name}"
        for recipient, times in message.got.items():
            if times > 1:
                self._add_fault(f"{said} was delivered {times} times to {recipient}")
        for recipient, times in message.answers.items():
            if times > 1:
                self._add_fault(f"{said} got {times} responses of {recipient}")
        if message.refused and message.got:
            self._add_fault(f"{said} was rejected and yet delivered to {list(message.got)}")
        for recipient in message.recipients or []:
            serial = self._ids.get(recipient)
            if serial is not None and self._outlived(serial, message):
                self.counts["delivered for certain"] += 1
                if not message.got[recipient]:
                    error = message.errors.get(recipient, "")
                    self._add_fault(f"{said} was accepted and not delivered to {recipient} (client {serial}): {error}")
            if "call" in message.kind and self._outlived(message.sender, message):
                self.counts["answered for certain"] += 1
                if not message.answers[recipient]:
                    self._add_fault(f"{said} to {recipient} (client {serial}) got no response")

    def _outlived(self, serial: str, message: Message) -> bool:
        return self._end_times.get(serial, float("inf")) > message.time + DUE

    def _add_fault(self, text: str) -> None:
        self.counts["fault"] += 1
        if len(self.faults) < 50:
            self.faults.append(text)
