# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ledger of an endurance run: what was sent, what came, and whether that is right.

It knows nothing of processes: it is given lines that clients wrote, and the times at which clients ended. Right is:

- A message that the hub accepted reaches each of its recipients once. One whose recipient crashed or left within `DUE`
  seconds may be missing, but is never doubled.
- A message that the hub refused reaches nobody.
- A call is answered once, by its recipient or by the hub. One whose *sender* crashed or left within `DUE` seconds may
  be unanswered, but is never answered twice.
- Each operation of a client that is alive succeeds, or the hub refuses it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["DUE", "Ledger"]

#: Seconds within which everything has come that is to come: the hub gives a crashed client up within 10 s.
DUE = 20.0


@dataclass
class Message:
    """What is known of a message."""

    kind: str
    sender: str
    time: float
    recipients: list[str] | None = None  # public ids; None until the hub has accepted it
    refused: bool = False
    got: Counter[str] = field(default_factory=Counter)  # by public id
    answers: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)


class Ledger:
    """All messages of a run; those that have been judged are forgotten."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self._messages: dict[str, Message] = {}
        self._ended: dict[str, float] = {}  # by serial number of the client
        self._ids: dict[str, str] = {}  # serial number by public id

    def note(self, serial: str, line: str) -> None:
        """
        Take down what a client wrote.

        Parameters
        ----------
        serial : str
            The client's serial number.
        line : str
            Time, word and further words, such as ``12.5 got 3-17``.
        """
        time_text, word, *rest = line.split(" ")
        time = float(time_text)
        self.counts[word] += 1
        if word == "join":
            if rest[0] in self._ids:
                self._wrong(f"the hub gave the id {rest[0]} twice")
            self._ids[rest[0]] = serial
        elif word == "leaving":
            self.ended(serial, time)
        elif word == "sending":
            message = self._messages.setdefault(rest[0], Message("", serial, time))  # a recipient may have been first
            message.kind = rest[1]
        elif word == "trouble":
            if serial not in self._ended:
                self._wrong(f"client {serial}: {' '.join(rest)}")
        elif word in {"accepted", "refused", "got", "answer"}:
            self._event(serial, time, word, rest)

    def _event(self, serial: str, time: float, word: str, rest: list[str]) -> None:
        message = self._messages.get(rest[0])
        if message is None:
            if word == "got":  # the recipient's line has overtaken the sender's
                message = self._messages[rest[0]] = Message("", rest[0].partition("-")[0], time)
            else:
                self._wrong(f"{word} {rest}: this message has been forgotten, or never was")
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

    def ended(self, serial: str, time: float) -> None:
        """Take down that a client was killed or began to leave."""
        self._ended.setdefault(serial, time)

    def judge(self, now: float) -> None:
        """Judge the messages for which nothing is to come any more."""
        due = [name for name, message in self._messages.items() if now - message.time > 3 * DUE]
        for name in due:
            self._judge(name, self._messages.pop(name))

    def _judge(self, name: str, message: Message) -> None:
        self.counts["judged"] += 1
        said = f"{message.kind} {name}"
        for recipient, times in message.got.items():
            if times > 1:
                self._wrong(f"{said} came {times} times to {recipient}")
        for recipient, times in message.answers.items():
            if times > 1:
                self._wrong(f"{said} was answered {times} times by {recipient}")
        if message.refused and message.got:
            self._wrong(f"{said} was refused and yet came to {list(message.got)}")
        for recipient in message.recipients or []:
            serial = self._ids.get(recipient)
            if serial is not None and self._outlived(serial, message):
                self.counts["delivered for certain"] += 1
                if not message.got[recipient]:
                    told = message.errors.get(recipient, "")
                    self._wrong(f"{said} was accepted and never came to {recipient} (client {serial}): {told}")
            if "call" in message.kind and self._outlived(message.sender, message):
                self.counts["answered for certain"] += 1
                if not message.answers[recipient]:
                    self._wrong(f"{said} to {recipient} (client {serial}) was never answered")

    def _outlived(self, serial: str, message: Message) -> bool:
        return self._ended.get(serial, float("inf")) > message.time + DUE

    def _wrong(self, text: str) -> None:
        self.counts["wrong"] += 1
        if len(self.faults) < 50:
            self.faults.append(text)
