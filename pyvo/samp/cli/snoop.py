# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp snoop``: messages as they come."""

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
from .arguments import pattern, positive_number
from .client_session import METADATA, NameCache, connected_client, get_interruptible
from .output import Status, Style, add_colour_option, add_json_option, help_epilog, print_json, sanitize

__all__ = ["EPILOG", "ReceivedMessage", "add_arguments", "listen", "run"]

EPILOG = (
    help_epilog(
        """\
  samp snoop             everything that is sent to everybody, until ^C
  samp snoop 'table.*'   messages about tables
  samp snoop coord.pointAt.sky --count 1 --json | jq -r '.params.ra'
""",
        {0: "^C, or as many messages as --count says", 2: "", 3: "", 130: None},
    )
    + """

A message to a single client is seen by nobody else; `samp hub --monitor` shows
those, too.
"""
)

_PING = "samp.app.ping"  # has a handler already, which would keep it unseen
ANSWER = "samp snoop has shown this message, and does nothing else with it"


class ReceivedMessage(NamedTuple):
    """A message that has arrived."""

    time: dt.datetime
    sender_id: str
    msg_id: str | None
    mtype: str
    params: Mapping[str, Any]
    extra: Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        type=pattern,
        metavar="PATTERN",
        help="an MType or a wildcard (default: %(default)s)",
    )
    parser.add_argument("--count", type=positive_number, metavar="N", help="stop after so many messages")
    parser.add_argument("--reconnect", action="store_true", help="wait for the next hub when this one has gone")
    add_json_option(parser, "a line of JSON for each message")
    add_colour_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print messages until ^C."""
    arrived: SimpleQueue[Any] = SimpleQueue()
    try:
        with connected_client(
            "samp snoop",
            "Shows messages to a person, and does nothing else with them",
            callable=True,
            reconnect=options.reconnect,
            events=arrived,
            prepare=lambda client: listen(client, options.pattern, arrived),
        ) as client:
            print(f"samp: listening for {options.pattern}, until ^C", file=sys.stderr, flush=True)
            _print_all(client, arrived, options)
    except KeyboardInterrupt:  # the way to end it
        pass
    return Status.OK


def listen(client: SAMPIntegratedClient, pattern: str, arrived: SimpleQueue[Any]) -> None:
    """
    Have all messages of a pattern put into a queue. Calls are answered by a warning.

    Parameters
    ----------
    client : SAMPIntegratedClient
        A callable client, before it is connected.
    pattern : str
        An MType or a wildcard.
    arrived : SimpleQueue
        Gets a `Heard` for each message.
    """

    def hear(_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, extra: Any) -> None:
        arrived.put(ReceivedMessage(dt.datetime.now().astimezone(), sender_id, msg_id, mtype, params, extra))
        if msg_id is not None:
            # A warning, so that nobody takes it for somebody who has loaded the table
            is_ping = mtype == _PING
            response = ok_response() if is_ping else warning_response({}, {"samp.errortxt": ANSWER})
            with contextlib.suppress(SAMPError):  # the sender, or the hub, does not wait for it any more
                client.reply(msg_id, response)

    # The names of clients are heard of whatever the user wants to see
    for wanted in {pattern, METADATA} | ({_PING} if matches(pattern, _PING) else set()):
        client.bind_receive_message(wanted, hear)


def _print_all(client: SAMPIntegratedClient, arrived: SimpleQueue[Any], options: argparse.Namespace) -> None:
    directory = NameCache(client)
    style = Style(options.color)
    count = 0
    while options.count is None or count < options.count:
        item = get_interruptible(arrived)
        if item == "connected":
            directory.clear()
        elif item == "lost":
            if not options.reconnect:
                raise SAMPHubError("The hub has gone.")
            directory.clear()  # the first messages of the next hub may come before the news of it, from the same ids
        else:
            directory.update(item.mtype, item.params)
            is_own = item.mtype.startswith("samp.hub.event.") and item.params.get("id") == client.get_public_id()
            if matches(options.pattern, item.mtype) and not is_own:
                count += 1
                _show(item, directory, style, as_json=options.json)


def _show(item: ReceivedMessage, directory: NameCache, style: Style, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(item, directory), one_line=True)
        return
    kind = style("call", "yellow") if item.msg_id is not None else "notification"
    clock = style(f"{item.time:%H:%M:%S}", "dim")
    print(f"{clock} {style(sanitize(item.mtype), 'cyan')}  {kind} from {style(directory.client_label(item.sender_id), 'bold')}")
    for key, value in [*item.params.items(), *item.extra.items()]:
        print(f"         {style(sanitize(key), 'dim')} = {sanitize(value, 2000)}")
    print(end="", flush=True)


def _as_json(item: ReceivedMessage, directory: NameCache) -> dict[str, Any]:
    return {
        "time": item.time.isoformat(timespec="milliseconds"),
        "kind": "notification" if item.msg_id is None else "call",
        "sender": {"id": item.sender_id, "name": directory.name(item.sender_id)},
        "msg-id": item.msg_id,
        "mtype": item.mtype,
        "params": item.params,
        "extra": item.extra,
    }
