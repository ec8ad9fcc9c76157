# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp call`` sends a message and shows the responses; ``samp notify`` sends a message that needs no response."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from ..constants import SAMP_STATUS_ERROR, SAMP_STATUS_OK
from ..errors import SAMPHubError, SAMPProxyError, SAMPWarning
from ..integrated_client import SAMPIntegratedClient
from ..protocol import error_response
from .arguments import Command, add_message_arguments, add_recipient_arguments, add_timeout_option, parse_message
from .client_session import NameCache, connected_client, find_subscribers, get_interruptible
from .output import CommandError, Status, Style, add_colour_option, add_json_option, help_epilog, print_json, sanitize

#: Exit statuses of the commands that send a call.
RESPONSE_STATUSES: dict[int, str | None] = {
    Status.OK: "all responses are ok, or warnings",
    Status.FAILED: "at least one response is an error",
    Status.NO_HUB: "",
    Status.NO_RECIPIENT: "",
    Status.TIMEOUT: "",
}

_CALL_EPILOG = help_epilog(
    """\
  samp call samp.app.ping                      which clients respond?
  samp call ds9.get --to ds9 cmd='fits header'
  samp call coord.get.sky --to aladin --json | jq -r '.responses[0].result.ra'
  samp call table.load.votable url=file:///data/stars.xml name=Stars
""",
    RESPONSE_STATUSES,
)
_NOTIFY_EPILOG = help_epilog(
    """\
  samp notify coord.pointAt.sky ra=83.633 dec=22.014
  samp notify table.highlight.row --to topcat table-id=demo row=17
  samp notify table.select.rowList table-id=demo row-list:='[0, 3, 17]'
""",
    {0: "the hub has accepted the message for all recipients", 1: "", 3: "", 4: ""},
)

_TAG = "samp-call"
#: The parts of a response that R17 names. It may have others.
_PARTS = ("samp.status", "samp.result", "samp.error")
_COLOURS = {SAMP_STATUS_OK: "green", SAMP_STATUS_ERROR: "red"}

#: The id of a recipient and its response, which is None if it did not respond in time.
_Collected = tuple[str, dict[str, Any] | None]


def _add_call_arguments(parser: argparse.ArgumentParser) -> None:
    add_message_arguments(parser)
    add_recipient_arguments(parser)
    add_timeout_option(parser, 60.0)
    add_json_option(parser, "all responses as JSON")
    add_colour_option(parser)


def run_call(options: argparse.Namespace) -> Status:
    """Send the message, and show the responses as they arrive."""
    collected: list[_Collected] = []
    events: SimpleQueue[Any] = SimpleQueue()
    with connected_client("samp call", "Sends a message", callable=True, events=events) as client:
        names = NameCache(client)
        style = Style(options.color)
        for client_id, response in call_and_collect(
            client, events, parse_message(options), options.to, options.timeout
        ):
            collected.append((client_id, response))
            if not options.json:
                _print_response(names.client_label(client_id), response, style)
        if options.json:
            entries = [_as_json(client_id, names.name(client_id), response) for client_id, response in collected]
            print_json({"mtype": options.mtype, "responses": entries})
    return _exit_status([response for _client_id, response in collected])


def call_and_collect(
    client: SAMPIntegratedClient,
    events: SimpleQueue[Any],
    message: dict[str, Any],
    to: list[str] | None,
    timeout: float,
) -> Iterator[_Collected]:
    """
    Call clients, and yield the id and the response of each; the response is None if none arrived in time.

    The responses arrive in `events`, the queue that the client was connected with (see `connected_client`). Without
    `to`, all subscribed clients are called. The timeout, in seconds, applies to all responses together; 0 means no
    limit.
    """
    client.bind_receive_response(_TAG, lambda _key, responder, _tag, response: events.put((responder, response)))
    if to is None:
        pending = set(client.call_all(_TAG, message))
        if not pending:
            raise CommandError(Status.NO_RECIPIENT, f"No client is subscribed to {message['samp.mtype']}.")
    else:
        pending = set(find_subscribers(client, to, message["samp.mtype"]))
        for recipient in sorted(pending):
            try:
                client.call(recipient, _TAG, message)
            except SAMPProxyError as fault:  # the other recipients are still called
                events.put((recipient, error_response(str(fault))))
    deadline = time.monotonic() + timeout if timeout else None
    while pending:
        try:
            item = get_interruptible(events, None if deadline is None else deadline - time.monotonic())
        except Empty:
            break
        if item == "lost":
            raise SAMPHubError("The hub stopped before all responses arrived.")
        if item[0] in pending:
            pending.discard(item[0])
            yield item
    yield from ((client_id, None) for client_id in sorted(pending))


def _print_response(label: str, response: dict[str, Any] | None, style: Style) -> None:
    name = style(label, "bold")
    if response is None:
        print(f"{name}: {style('no response in time', 'red')}", flush=True)
        return
    status = str(response.get("samp.status"))
    print(f"{name}: {style(sanitize(status), _COLOURS.get(status, 'yellow'))}")
    others = {key: value for key, value in response.items() if key not in _PARTS}
    for part in (response.get("samp.error"), response.get("samp.result"), others):
        for key, value in part.items() if isinstance(part, dict) else ():
            if key != "samp.debugtxt":  # usually a stack trace; --json shows it
                print(f"    {style(sanitize(key), 'dim')} = {sanitize(value, 2000)}")
    print(end="", flush=True)


def _as_json(client_id: str, name: str, response: dict[str, Any] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": client_id, "name": name, "status": None}
    if response is not None:
        entry["status"] = response.get("samp.status")
        entry |= {part: response[f"samp.{part}"] for part in ("result", "error") if f"samp.{part}" in response}
        entry |= {key: value for key, value in response.items() if key not in _PARTS}
    return entry


def _exit_status(responses: list[dict[str, Any] | None]) -> Status:
    if any(response is not None and response.get("samp.status") == SAMP_STATUS_ERROR for response in responses):
        return Status.FAILED
    return Status.TIMEOUT if None in responses else Status.OK


def _add_notify_arguments(parser: argparse.ArgumentParser) -> None:
    add_message_arguments(parser)
    add_recipient_arguments(parser)
    add_json_option(parser, "the recipients as JSON")


def _run_notify(options: argparse.Namespace) -> Status:
    message = parse_message(options)
    with connected_client("samp notify", "Sends a message") as client:
        recipients: list[str] = []
        faults: list[str] = []
        if options.to:
            for recipient in find_subscribers(client, options.to, options.mtype):
                try:
                    client.notify(recipient, message)
                    recipients.append(recipient)
                except SAMPProxyError as fault:  # the other recipients are still notified
                    faults.append(str(fault))
        else:
            with warnings.catch_warnings():  # that no client is subscribed, which is an error here
                warnings.simplefilter("ignore", SAMPWarning)
                recipients = client.notify_all(message)
        names = NameCache(client)
        if not (recipients or faults):
            raise CommandError(Status.NO_RECIPIENT, f"No client is subscribed to {options.mtype}.")
        if options.json:
            entries = [{"id": client_id, "name": names.name(client_id)} for client_id in recipients]
            print_json({"mtype": options.mtype, "recipients": entries})
        else:
            print("Notified " + (", ".join(map(names.client_label, recipients)) or "no client"))
        if faults:
            raise CommandError(Status.FAILED, "; ".join(faults))
    return Status.OK


COMMANDS = {
    "call": Command(_add_call_arguments, run_call, _CALL_EPILOG),
    "notify": Command(_add_notify_arguments, _run_notify, _NOTIFY_EPILOG),
}
