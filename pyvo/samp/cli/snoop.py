# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp snoop`` shows messages as they arrive, and records them."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, NamedTuple

from ..broker.deliveries import TRAFFIC
from ..errors import SAMPHubError
from ..integrated_client import SAMPIntegratedClient
from ..protocol import matches
from .arguments import Command, pattern, positive_number
from .client_session import METADATA, PING, NameCache, connected_client, get_interruptible, reply_unprocessed
from .list import describe_client
from .output import Status, Style, add_colour_option, add_json_option, help_epilog, print_json, print_notice, sanitize
from .recording import Recorder, Redactor, open_named_file

_EPILOG = (
    help_epilog(
        """\
  samp snoop             all messages that are sent to all clients, until ^C
  samp snoop 'table.*'   messages about tables
  samp snoop coord.pointAt.sky --count 1 --json | jq -r '.params.ra'
  samp snoop --record session.jsonl --files   record a session for `samp replay`
""",
        {0: "stopped by ^C, or after --count messages", 1: "the recording cannot be written", 3: "", 130: None},
    )
    + """

The hub delivers a message for a single client only to that client, so that
it is not shown here. `samp hub --monitor` shows it. --record, too, shows and
records such messages and all responses if the hub is one of this package.
"""
)

_WARNING = "samp snoop has displayed this message and does not process it further"


class ReceivedMessage(NamedTuple):
    """A message with the time of its arrival."""

    time: dt.datetime
    sender_id: str
    msg_id: str | None
    mtype: str
    params: Mapping[str, Any]
    extra: Mapping[str, Any]
    file: BinaryIO | None = None
    """The file that the message names, if files are recorded."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        type=pattern,
        metavar="PATTERN",
        help="an MType or a wildcard (default: %(default)s)",
    )
    parser.add_argument("--count", type=positive_number, metavar="N", help="stop after N messages")
    parser.add_argument("--reconnect", action="store_true", help="wait for the next hub when this one stops")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write the messages to a new file for `samp replay`"
    )
    parser.add_argument(
        "--files",
        action="store_true",
        help="with --record: copy the files of this computer that messages name into a directory beside FILE",
    )
    add_json_option(parser, "a line of JSON for each message")
    add_colour_option(parser)


def _run(options: argparse.Namespace) -> Status:
    if options.record and options.reconnect:
        options.parser.error("--record cannot be used with --reconnect")
    if options.files and not options.record:
        options.parser.error("--files needs --record")
    events: SimpleQueue[Any] = SimpleQueue()
    patterns = ["samp.hub.event.*", TRAFFIC] if options.record else [options.pattern]
    try:
        with (
            connected_client(
                "samp snoop",
                "Displays messages",
                callable=True,
                reconnect=options.reconnect,
                events=events,
                prepare=lambda client: _bind(client, patterns, events, open_files=options.files),
            ) as client,
            _recorder(client, events, options) as recorder,
        ):
            print_notice(f"listening for {options.pattern}, until ^C")
            _print_messages(client, events, options, recorder)
    except KeyboardInterrupt:  # the normal end
        pass
    return Status.OK


def _bind(
    client: SAMPIntegratedClient, patterns: Iterable[str], events: SimpleQueue[Any], *, open_files: bool = False
) -> None:
    """Put the messages of some patterns into a queue, and respond to calls with a warning."""

    def on_message(_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, extra: Any) -> None:
        now = dt.datetime.now().astimezone()
        named = params["body"].get("samp.params", {}) if mtype == TRAFFIC else params
        file = open_named_file(named) if open_files else None
        events.put(ReceivedMessage(now, sender_id, msg_id, mtype, params, extra, file))
        if msg_id is not None:
            reply_unprocessed(client, msg_id, mtype, _WARNING)

    # the metadata event, which has the names of clients, is needed for all patterns
    wanted = {METADATA, *patterns}
    if any(matches(each, PING) for each in wanted):
        wanted.add(PING)  # the handler that every client has for it would hide the pings
    for mtype in wanted:
        client.bind_receive_message(mtype, on_message)


@contextlib.contextmanager
def _recorder(
    client: SAMPIntegratedClient, events: SimpleQueue[Any], options: argparse.Namespace
) -> Iterator[Recorder | None]:
    """Start the recording, if there is one, with the registered clients."""
    if not options.record:
        yield None
        return
    is_complete = TRAFFIC in client.get_metadata(str(client.client.hub_id))
    redactor = Redactor(client.get_private_key(), client.hub.lockfile.get("samp.secret"))
    now = dt.datetime.now().astimezone()
    with Recorder(options.record, redactor, complete=is_complete, copy_files=options.files, start=now) as recorder:
        if not is_complete:
            print_notice(
                "this hub, which is not of this package, shows no messages to single clients and no responses, so the "
                "recording will not contain them"
            )
            _bind(client, [options.pattern], events, open_files=options.files)
        for client_id in client.get_registered_clients():
            entry = describe_client(client, client_id)
            if entry is not None and client_id != client.client.hub_id:
                for kind in ("register", "metadata", "subscriptions"):
                    recorder.add_event(now, f"samp.hub.event.{kind}", entry)
        try:
            yield recorder
        finally:
            client.disconnect()
            while not events.empty():
                _close_file(events.get())


def _close_file(item: Any) -> None:
    if isinstance(item, ReceivedMessage) and item.file is not None:
        item.file.close()


def _record(recorder: Recorder, item: ReceivedMessage, options: argparse.Namespace) -> ReceivedMessage | None:
    """Write a message or response to the recording; return the message to show, or None for a response."""
    if item.mtype.startswith("samp.hub."):
        recorder.add_event(item.time, item.mtype, item.params)
        return item
    if item.mtype != TRAFFIC:  # the hub of another package
        kind = "notification" if item.msg_id is None else "call"
        message = {"samp.mtype": item.mtype, "samp.params": item.params, **item.extra}
        to_all = {"kind": kind, "recipient-ids": [], "msg-ids": [], "to-all": "1"}
        recorder.add_message(item.time, item.sender_id, message, to_all, item.file)
        return item
    traffic: dict[str, Any] = dict(item.params)
    body = traffic["body"]
    if traffic["kind"] == "response":
        recorder.add_response(item.time, traffic["msg-ids"][0], body)
        return None
    extra = dict(body)
    mtype, params = extra.pop("samp.mtype"), extra.pop("samp.params")
    if matches(options.pattern, mtype):
        recorder.add_message(item.time, traffic["sender-id"], body, traffic, item.file)
    return ReceivedMessage(item.time, traffic["sender-id"], next(iter(traffic["msg-ids"]), None), mtype, params, extra)


def _print_messages(
    client: SAMPIntegratedClient, events: SimpleQueue[Any], options: argparse.Namespace, recorder: Recorder | None
) -> None:
    names = NameCache(client)
    style = Style(options.color)
    count = 0
    while options.count is None or count < options.count:
        item = get_interruptible(events)
        if item == "connected":
            names.clear()
        elif item == "lost":
            if not options.reconnect:
                raise SAMPHubError("The hub has stopped.")
            names.clear()  # messages of the next hub, which assigns the same ids, may arrive before "connected"
        else:
            names.update(item.mtype, item.params)
            is_own = item.mtype.startswith("samp.hub.event.") and item.params.get("id") == client.get_public_id()
            if recorder is not None and not is_own:
                arrived = item
                item = _record(recorder, arrived, options)
                _close_file(arrived)
            if item is not None and matches(options.pattern, item.mtype) and not is_own:
                count += 1
                _show(item, names, style, as_json=options.json)


def _show(item: ReceivedMessage, names: NameCache, style: Style, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(item, names), one_line=True)
        return
    kind = style("call", "yellow") if item.msg_id is not None else "notification"
    clock = style(f"{item.time:%H:%M:%S}", "dim")
    sender = style(names.client_label(item.sender_id), "bold")
    print(f"{clock} {style(sanitize(item.mtype), 'cyan')}  {kind} from {sender}")
    for key, value in [*item.params.items(), *item.extra.items()]:
        print(f"         {style(sanitize(key), 'dim')} = {sanitize(value, 2000)}")
    print(end="", flush=True)


def _as_json(item: ReceivedMessage, names: NameCache) -> dict[str, Any]:
    return {
        "time": item.time.isoformat(timespec="milliseconds"),
        "kind": "notification" if item.msg_id is None else "call",
        "sender": {"id": item.sender_id, "name": names.name(item.sender_id)},
        "msg-id": item.msg_id,
        "mtype": item.mtype,
        "params": item.params,
        "extra": item.extra,
    }


COMMANDS = {"snoop": Command(_add_arguments, _run, _EPILOG)}
