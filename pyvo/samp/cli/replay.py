# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp replay`` sends the messages of a recording again.

Theory of operation
-------------------
Each client of the recording gets a *stand-in*: a client with the same metadata and subscriptions. The main thread
processes the entries at their times: it connects and disconnects stand-ins, sends their messages, and replies to a call
when the recorded response is due. A stand-in that receives a call finds the number of that call by its sender and its
MType, because the messages from one client to another arrive in order.
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from ..client.lookup import match_name
from ..errors import SAMPError, SAMPHubError
from ..integrated_client import SAMPIntegratedClient
from ..temporary_files import make_private_dir, safe_file_name
from ..transport.urls import file_url_to_path
from .arguments import Command
from .client_session import NameCache, connected_client, find_clients, get_interruptible, reply_unprocessed
from .output import Status, Style, add_colour_option, client_label, help_epilog, print_notice, sanitize
from .recording import Entry, Recording, local_url, read_recording

_EPILOG = (
    help_epilog(
        """\
  samp replay session.jsonl                 with stand-ins for all its clients
  samp replay session.jsonl --to topcat     to the TOPCAT that is running
  samp replay session.jsonl --speed 10 --to topcat
""",
        {
            0: "the recording was played to its end",
            1: "the recording cannot be read; standard error names the line",
            3: "",
            4: "there is no client with the name that --to gives",
        },
    )
    + """

A recording can send anything to your programs, including scripts for Aladin
and DS9. Before you play someone else's recording, read it.
"""
)

#: Seconds for calls to arrive at stand-ins, and for the last responses.
RESPONSE_TIMEOUT = 10.0
_WARNING = "A stand-in of samp replay has received this call, and the recording has no response to it"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, metavar="FILE", help="a recording of `samp snoop --record`")
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="FACTOR", help="speed of the replay (default: %(default)g)"
    )
    parser.add_argument(
        "--to",
        metavar="NAME",
        help="a connected client, which receives what the client of that name received in the recording; if there was "
        "no such client, it receives all messages",
    )
    parser.add_argument("--partial", action="store_true", help="play an incomplete recording")
    add_colour_option(parser)


def _speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number greater than 0")
    return value


def _run(options: argparse.Namespace) -> Status:
    recording = read_recording(options.recording, partial=options.partial)
    events: SimpleQueue[Any] = SimpleQueue()
    with (
        connected_client("samp replay", "Plays a recording", callable=True, events=events) as client,
        _Player(recording, options, events, NameCache(client)) as player,
    ):
        if options.to is not None:
            (target_id,) = find_clients(client, [options.to])
            player.use_target(target_id, client.get_metadata(target_id).get("samp.name", ""))
        player.play()
    return Status.OK


class _StandIn:
    """A client in place of a recorded one."""

    def __init__(self, player: _Player, recorded_id: str) -> None:
        self._player = player
        self.recorded_id = recorded_id
        self.client = SAMPIntegratedClient()
        self.client.connect()
        self.id = str(self.client.get_public_id())
        self._patterns: set[str] = set()

    def declare_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Declare the metadata of the recorded client."""
        self.client.hub.declare_metadata(str(self.client.get_private_key()), dict(metadata))

    def declare_subscriptions(self, subscriptions: Mapping[str, Any]) -> None:
        """Declare the subscriptions of the recorded client. The messages that arrive are not processed."""
        for pattern in self._patterns - set(subscriptions):
            self.client.unbind_receive_call(pattern, declare=False)
            self.client.unbind_receive_notification(pattern, declare=False)
        self._patterns = set(subscriptions)
        for pattern, annotation in subscriptions.items():
            self.client.bind_receive_message(pattern, self._on_message, declare=False, metadata=annotation or {})
        self.client.client.declare_subscriptions()

    def _on_message(self, _key: str, sender_id: str, msg_id: str | None, mtype: str, _params: Any, _extra: Any) -> None:
        if msg_id is not None and not self._player.on_call(self.recorded_id, sender_id, mtype, msg_id):
            reply_unprocessed(self.client, msg_id, mtype, _WARNING)


class _Player:
    """Plays a recording; a context manager, which disconnects the stand-ins."""

    def __init__(
        self, recording: Recording, options: argparse.Namespace, events: SimpleQueue[Any], present: NameCache
    ) -> None:
        self._present = present
        self._recording = recording
        self._options = options
        self._events = events
        self._style = Style(options.color)
        self._stand_ins: dict[str, _StandIn] = {}
        self._names: dict[str, str] = {}
        self._target_id: str | None = None  # the id of the client that --to names
        self._replaced: set[str] = set()  # the recorded clients that it replaces; all if this is empty
        self._urls: dict[str, str] = {}
        self._directory: Path | None = None
        self._remove_directory: Callable[[], object] = lambda: None
        self._changed = threading.Condition()
        self._expected: defaultdict[tuple[str, str, str], deque[int]] = defaultdict(deque)
        self._msg_ids: dict[int, str] = {}  # of the calls that stand-ins have received, by number
        self._responses: dict[int, dict[str, Any]] = {}  # the recorded ones
        self._calls: dict[int, tuple[str, str]] = {}  # tags and recorded recipients of the calls, by number
        self._waiting: dict[tuple[str, str], str] = {}  # senders of calls without a response, by tag and recipient
        self._counts = {"message": 0, "response": 0, "problem": 0}
        for entry in recording.entries:
            if entry.kind == "metadata":
                self._names[entry.fields["client"]] = str(entry.fields["metadata"].get("samp.name", ""))
            elif entry.kind == "response":
                self._responses[entry.fields["call"]] = entry.fields["response"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        for stand_in in self._stand_ins.values():
            stand_in.client.disconnect()
        self._remove_directory()

    def use_target(self, client_id: str, name: str) -> None:
        """Send messages to this client instead of a stand-in."""
        self._target_id = client_id
        self._replaced = set(match_name(self._names, name))

    def play(self) -> None:
        """Play the recording, and print the messages and the responses."""
        start = time.monotonic()
        for entry in self._recording.entries:
            self._print_responses(start + entry.seconds / self._options.speed)
            with self._reporting(entry):
                getattr(self, f"_play_{entry.kind}")(entry)
        self._print_responses(time.monotonic() + RESPONSE_TIMEOUT, lambda: bool(self._waiting))
        for tag, recipient_id in self._waiting:
            self._report(f"{tag}: no response of {self._label(recipient_id)} in time")
        counts = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in self._counts.items())
        print_notice(counts)

    @contextmanager
    def _reporting(self, entry: Entry) -> Iterator[None]:
        try:
            yield
        except SAMPHubError:
            raise
        except SAMPError as error:
            self._report(f"line {entry.line} cannot be replayed: {error}")

    def _report(self, text: str) -> None:
        self._counts["problem"] += 1
        print_notice(text)

    # Entries

    def _play_register(self, entry: Entry) -> None:
        recorded_id = entry.fields["client"]
        if recorded_id not in self._replaced and recorded_id not in self._stand_ins:
            self._stand_ins[recorded_id] = _StandIn(self, recorded_id)

    def _play_metadata(self, entry: Entry) -> None:
        stand_in = self._stand_ins.get(entry.fields["client"])
        if stand_in is not None:
            stand_in.declare_metadata(self._with_urls(entry.fields["metadata"]))

    def _play_subscriptions(self, entry: Entry) -> None:
        stand_in = self._stand_ins.get(entry.fields["client"])
        if stand_in is not None:
            stand_in.declare_subscriptions(entry.fields["subscriptions"])

    def _play_unregister(self, entry: Entry) -> None:
        recorded_id = entry.fields["client"]
        if recorded_id not in self._stand_ins:
            return

        def waits_for_others() -> bool:
            stand_ins = {stand_in.id for stand_in in self._stand_ins.values()}
            return any(sender == recorded_id and to not in stand_ins for (_, to), sender in self._waiting.items())

        # a real client may take longer than the recorded one
        self._print_responses(time.monotonic() + RESPONSE_TIMEOUT, waits_for_others)
        self._stand_ins.pop(recorded_id).client.disconnect()

    def _play_file(self, entry: Entry) -> None:
        fields = entry.fields
        if "path" in fields:
            self._urls[fields["url"]] = self._serve(self._options.recording.parent / fields["path"])

    def _play_notification(self, entry: Entry) -> None:
        message = self._message(entry)
        sender = self._sender(entry)
        if sender is None:
            return
        if self._target_id is None and entry.fields["to-all"]:
            self._show(entry, message, sender.client.notify_all(message))
            return
        for _, recipient_id in self._targets(entry):
            sender.client.notify(recipient_id, message)
            self._show(entry, message, [recipient_id])

    def _play_call(self, entry: Entry) -> None:
        message = self._message(entry)
        sender = self._sender(entry)
        if sender is None:
            return
        numbers = dict(zip(entry.fields["recipients"], entry.fields["calls"], strict=True))
        tag = f"line {entry.line}"
        sender.client.bind_receive_response(
            tag, lambda _key, responder_id, _tag, response: self._events.put((tag, numbers, responder_id, response))
        )
        mtype = message["samp.mtype"]
        for recorded_id, number in numbers.items():
            self._calls[number] = tag, recorded_id
            if recorded_id in self._stand_ins and self._target_id is None:
                with self._changed:
                    self._expected[recorded_id, sender.id, mtype].append(number)
        if self._target_id is None and entry.fields["to-all"]:
            recipients = list(sender.client.call_all(tag, message))
            for each in recipients:
                if not self._is_unanswered(each, numbers):
                    self._waiting[tag, each] = sender.recorded_id
            self._show(entry, message, recipients)
            return
        for recorded_id, recipient_id in self._targets(entry):
            sender.client.call(recipient_id, tag, message)
            if not self._is_unanswered(recipient_id, {recorded_id: numbers.get(recorded_id, 0)}):
                self._waiting[tag, recipient_id] = sender.recorded_id
            self._show(entry, message, [recipient_id])

    def _play_response(self, entry: Entry) -> None:
        number = entry.fields["call"]
        tag, recorded_id = self._calls.get(number, ("", ""))
        stand_in = self._stand_ins.get(recorded_id)
        if stand_in is None or self._target_id is not None:  # the real client replies
            return
        with self._changed:
            arrived = self._changed.wait_for(lambda: number in self._msg_ids, RESPONSE_TIMEOUT)
        if not arrived:
            self._report(f"line {entry.line} cannot be replayed: call {number} did not arrive")
            return
        stand_in.client.reply(self._msg_ids[number], self._with_urls(entry.fields["response"]))
        # With the next entry, the sender or the recipient of the call may unregister
        self._print_responses(time.monotonic() + RESPONSE_TIMEOUT, lambda: (tag, stand_in.id) in self._waiting)

    def _play_end(self, entry: Entry) -> None:
        """Do nothing: the last entry only has the time of the end."""

    # Parts of entries

    def _sender(self, entry: Entry) -> _StandIn | None:
        """Return the stand-in that sends; None if the client that --to names sent the message itself."""
        recorded_id = entry.fields["sender"]
        if recorded_id in self._replaced:
            self._report(f"line {entry.line} is not sent: {self._options.to} itself sent it")
            return None
        if recorded_id not in self._stand_ins:  # it had unregistered before the recording listed the clients
            self._stand_ins[recorded_id] = _StandIn(self, recorded_id)
        return self._stand_ins[recorded_id]

    def _targets(self, entry: Entry) -> list[tuple[str, str]]:
        """Return the recorded recipients with the ids of the clients that receive in their place."""
        recipients = entry.fields["recipients"]
        if self._target_id is None:
            found = [(each, self._stand_ins[each].id) for each in recipients if each in self._stand_ins]
            missing = [each for each in recipients if each not in self._stand_ins]
            if missing:
                self._report(f"line {entry.line} is not sent to {', '.join(missing)}: the recording lacks that client")
            return found
        for each in recipients or [""]:
            if not self._replaced or each in self._replaced or (not recipients and entry.fields["to-all"]):
                return [(each, self._target_id)]
        return []

    def _is_unanswered(self, recipient_id: str, numbers: Mapping[str, int]) -> bool:
        """Whether a recipient is a stand-in whose recorded client did not respond."""
        return any(
            self._stand_ins[each].id == recipient_id and number not in self._responses
            for each, number in numbers.items()
            if each in self._stand_ins
        )

    def on_call(self, recorded_id: str, sender_id: str, mtype: str, msg_id: str) -> bool:
        """Note a call that a stand-in has received; return whether it belongs to the recording. In any thread."""
        with self._changed:
            numbers = self._expected[recorded_id, sender_id, mtype]
            if not numbers:
                return False
            self._msg_ids[numbers.popleft()] = msg_id
            self._changed.notify_all()
            return True

    # URLs and msg-ids

    def _message(self, entry: Entry) -> dict[str, Any]:
        """Return the message with the URLs and msg-ids of this replay; report a URL that was not recorded."""
        message: dict[str, Any] = self._with_urls(entry.fields["message"])
        params = message["samp.params"]
        url = params.get("url")
        if local_url(url) and url not in self._urls.values():
            path = file_url_to_path(url)
            if path is None or not Path(path).exists():
                self._report(f"line {entry.line}: the recipients cannot read {url}, which was not recorded")
        if message["samp.mtype"] == "samp.msg.progress" and str(params.get("msgid", "")).startswith("call "):
            number = params["msgid"].removeprefix("call ")
            with self._changed:
                params["msgid"] = self._msg_ids.get(int(number) if number.isdigit() else 0, params["msgid"])
        return message

    def _with_urls(self, value: Any) -> Any:
        """Return a copy of a SAMP value with the URLs of the copied files."""
        if isinstance(value, str):
            for recorded, url in self._urls.items():
                value = value.replace(recorded, url)
            return value
        if isinstance(value, Mapping):
            return {key: self._with_urls(item) for key, item in value.items()}
        return [self._with_urls(item) for item in value]

    def _serve(self, path: Path) -> str:
        """Return a URL of a copied file, without escapes, which DS9 does not decode."""
        url = path.resolve().as_uri()
        if "%" not in url:
            return url
        if self._directory is None:
            self._directory, self._remove_directory = make_private_dir()
        link = self._directory / f"{len(self._urls)}-{safe_file_name(path.name, path.suffix)}"
        with suppress(OSError):  # on Windows, for most users: they have the URL with escapes
            link.symlink_to(path.resolve())
            url = link.as_uri()
        return url

    # Output

    def _show(self, entry: Entry, message: Mapping[str, Any], recipients: list[str]) -> None:
        self._counts["message"] += 1
        clock = self._style(f"{entry.seconds:8.2f} s", "dim")
        mtype = self._style(sanitize(message["samp.mtype"]), "cyan")
        sender = client_label(entry.fields["sender"], self._names.get(entry.fields["sender"], ""))
        to = ", ".join(map(self._label, recipients)) or "no client"
        print(f"{clock}  {mtype}  {entry.kind} from {sender} to {to}", flush=True)

    def _label(self, client_id: str) -> str:
        """Return the name of a recipient; of a stand-in, the recorded name."""
        for recorded_id, stand_in in self._stand_ins.items():
            if stand_in.id == client_id:
                return client_label(recorded_id, self._names.get(recorded_id, ""))
        return self._present.client_label(client_id)

    def _print_responses(self, until: float, condition: Callable[[], bool] = lambda: True) -> None:
        """Print the responses that arrive until a time, or while a condition holds."""
        while condition():
            try:
                item = get_interruptible(self._events, max(0.0, until - time.monotonic()))
            except Empty:
                return
            if item == "lost":
                raise SAMPHubError("The hub has stopped.")
            if item != "connected":
                self._print_response(*item)

    def _print_response(
        self, tag: str, numbers: Mapping[str, int], responder_id: str, response: Mapping[str, Any]
    ) -> None:
        self._counts["response"] += 1
        self._waiting.pop((tag, responder_id), None)
        recorded: dict[str, Any] = {}
        for recorded_id, number in numbers.items():
            stand_in = self._stand_ins.get(recorded_id)
            is_responder = responder_id == (stand_in.id if stand_in is not None else self._target_id)
            if is_responder and number in self._responses:
                recorded = self._responses[number]
        status, before = str(response.get("samp.status")), str(recorded.get("samp.status", ""))
        text = f"{' ' * 12}{self._label(responder_id)}: {sanitize(status)}"
        error = response.get("samp.error")
        if isinstance(error, Mapping) and error.get("samp.errortxt"):
            text += f", {sanitize(error['samp.errortxt'], 500)}"
        if before and before != status:
            text += self._style(f" (recorded: {sanitize(before)})", "yellow")
        print(text, flush=True)


COMMANDS = {"replay": Command(_add_arguments, _run, _EPILOG)}
