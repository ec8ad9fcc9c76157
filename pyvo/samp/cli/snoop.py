# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp snoop`` shows messages as they arrive."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import sys
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, NamedTuple

from ..errors import SAMPError, SAMPHubError
from ..integrated_client import SAMPIntegratedClient
from ..protocol import matches, ok_response, warning_response
from .arguments import Command, pattern, positive_number
from .client_session import METADATA, NameCache, connected_client, get_interruptible
from .output import Status, Style, add_colour_option, add_json_option, help_epilog, print_json, sanitize

_EPILOG = (
    help_epilog(
        """\
  samp snoop             all messages that are sent to all clients, until ^C
  samp snoop 'table.*'   messages about tables
  samp snoop coord.pointAt.sky --count 1 --json | jq -r '.params.ra'
""",
        {0: "^C, or as many messages as --count says", 2: "", 3: "", 130: None},
    )
    + """

The hub delivers a message for a single client to that client only;
`samp hub --monitor` shows such messages, too.
"""
)

_PING = "samp.app.ping"  # every client has a handler for it, which would hide the pings
_WARNING = "samp snoop has shown this message, and does nothing else with it"


class ReceivedMessage(NamedTuple):
    """A message with the time of its arrival."""

    time: dt.datetime
    sender_id: str
    msg_id: str | None
    mtype: str
    params: Mapping[str, Any]
    extra: Mapping[str, Any]


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
    parser.add_argument("--reconnect", action="store_true", help="wait for the next hub when this one has gone")
    add_json_option(parser, "a line of JSON for each message")
    add_colour_option(parser)


def _run(options: argparse.Namespace) -> Status:
    events: SimpleQueue[Any] = SimpleQueue()
    try:
        with connected_client(
            "samp snoop",
            "Shows messages, and does nothing else with them",
            callable=True,
            reconnect=options.reconnect,
            events=events,
            prepare=lambda client: _bind(client, options.pattern, events),
        ) as client:
            print(f"samp: listening for {options.pattern}, until ^C", file=sys.stderr, flush=True)
            _print_messages(client, events, options)
    except KeyboardInterrupt:  # the normal end
        pass
    return Status.OK


def _bind(client: SAMPIntegratedClient, pattern: str, events: SimpleQueue[Any]) -> None:
    """Put the messages of a pattern into a queue, and respond to calls with a warning."""

    def on_message(_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, extra: Any) -> None:
        events.put(ReceivedMessage(dt.datetime.now().astimezone(), sender_id, msg_id, mtype, params, extra))
        if msg_id is not None:
            # a warning, because the sender must not think that a table has been loaded
            is_ping = mtype == _PING
            response = ok_response() if is_ping else warning_response({}, {"samp.errortxt": _WARNING})
            with contextlib.suppress(SAMPError):  # the sender or the hub is gone
                client.reply(msg_id, response)

    # the metadata event gives the names of clients, whatever pattern the user wants to see
    for mtype in {pattern, METADATA} | ({_PING} if matches(pattern, _PING) else set()):
        client.bind_receive_message(mtype, on_message)


def _print_messages(client: SAMPIntegratedClient, events: SimpleQueue[Any], options: argparse.Namespace) -> None:
    names = NameCache(client)
    style = Style(options.color)
    count = 0
    while options.count is None or count < options.count:
        item = get_interruptible(events)
        if item == "connected":
            names.clear()
        elif item == "lost":
            if not options.reconnect:
                raise SAMPHubError("The hub has gone.")
            names.clear()  # messages of the next hub, with the same ids, may come before "connected"
        else:
            names.update(item.mtype, item.params)
            is_own = item.mtype.startswith("samp.hub.event.") and item.params.get("id") == client.get_public_id()
            if matches(options.pattern, item.mtype) and not is_own:
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
