# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp call``: a message, and the answers to it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from ..constants import SAMP_STATUS_ERROR, SAMP_STATUS_OK
from ..errors import SAMPHubError, SAMPProxyError
from ..integrated_client import SAMPIntegratedClient
from ..protocol import error_response
from .arguments import add_message_arguments, add_recipient_arguments, message_of, seconds
from .client_session import NameCache, connected_client, find_subscribers, get_interruptible
from .output import CommandError, Status, Style, add_colour_option, add_json_option, help_epilog, print_json, sanitize

__all__ = ["EPILOG", "Answer", "add_arguments", "call_and_collect", "exit_status", "run", "show_answer"]

EPILOG = help_epilog(
    """\
  samp call samp.app.ping                      who answers?
  samp call ds9.get --to ds9 cmd='fits header'
  samp call coord.get.sky --to aladin --json | jq -r '.responses[0].result.ra'
  samp call table.load.votable url=file:///data/stars.xml name=Stars
""",
    {0: "all answered ok, or with a warning", 1: "at least one answered with an error", 2: "", 3: "", 4: "", 5: ""},
)

TAG = "samp-call"
#: What a response consists of (R17); it may have more.
_PARTS = ("samp.status", "samp.result", "samp.error")
_COLOURS = {SAMP_STATUS_OK: "green", SAMP_STATUS_ERROR: "red"}

#: Who answered and what; no response for who did not answer in time.
Answer = tuple[str, dict[str, Any] | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_message_arguments(parser)
    add_recipient_arguments(parser)
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait (default: %(default)g; 0: no limit)",
    )
    add_json_option(parser, "all responses as JSON")
    add_colour_option(parser)


def run(options: argparse.Namespace) -> int:
    """Send the message, and show the answers as they come."""
    answers: list[Answer] = []
    arrived: SimpleQueue[Any] = SimpleQueue()
    with connected_client("samp call", "Sends a message", callable=True, events=arrived) as client:
        directory = NameCache(client)
        style = Style(options.color)
        for answer in call_and_collect(client, arrived, message_of(options), options.to, options.timeout):
            answers.append(answer)
            if not options.json:
                show_answer(answer, directory, style)
        if options.json:
            print_json({"mtype": options.mtype, "responses": [_as_json(answer, directory) for answer in answers]})
    return exit_status(answers)


def call_and_collect(
    client: SAMPIntegratedClient,
    arrived: SimpleQueue[Any],
    message: dict[str, Any],
    to: list[str] | None,
    timeout: float,
) -> Iterator[Answer]:
    """
    Call some clients, or all who take the message, and wait for the answers.

    Parameters
    ----------
    client : SAMPIntegratedClient
        A connected client that is callable.
    arrived : SimpleQueue
        Where its events come, see `join`; the answers come there, too.
    message : dict
        The message.
    to : list of str, optional
        Names or ids.
    timeout : float
        Seconds for all answers together; 0: no limit.

    Yields
    ------
    id : str
        Who answers.
    response : dict or None
        The response; None for each who did not answer in time.

    Raises
    ------
    CommandError
        Nobody takes the message.
    SAMPHubError
        The hub is gone.
    """
    client.bind_receive_response(TAG, lambda _key, sender, _tag, response: arrived.put((sender, response)))
    if to is None:
        waiting = set(client.call_all(TAG, message))
        if not waiting:
            raise CommandError(Status.NO_RECIPIENT, f"Nobody takes {message['samp.mtype']}.")
    else:
        waiting = set(find_subscribers(client, to, message["samp.mtype"]))
        for recipient in sorted(waiting):
            try:
                client.call(recipient, TAG, message)
            except SAMPProxyError as fault:  # one that does not take it must not cost the others their answers
                arrived.put((recipient, error_response(str(fault))))
    deadline = time.monotonic() + timeout if timeout else None
    while waiting:
        try:
            answer = get_interruptible(arrived, None if deadline is None else deadline - time.monotonic())
        except Empty:
            break
        if answer == "lost":
            raise SAMPHubError("The hub has gone before all answers came.")
        if answer[0] in waiting:
            waiting.discard(answer[0])
            yield answer
    yield from ((late, None) for late in sorted(waiting))


def show_answer(answer: Answer, directory: NameCache, style: Style) -> None:
    """Print an answer for a person."""
    client_id, response = answer
    name = style(directory.client_label(client_id), "bold")
    if response is None:
        print(f"{name}: {style('no answer in time', 'red')}", flush=True)
        return
    status = str(response.get("samp.status"))
    print(f"{name}: {style(sanitize(status), _COLOURS.get(status, 'yellow'))}")
    rest = {key: value for key, value in response.items() if key not in _PARTS}
    for values in (response.get("samp.error"), response.get("samp.result"), rest):
        for key, value in values.items() if isinstance(values, dict) else ():
            if key != "samp.debugtxt":  # stack traces, usually; --json has them
                print(f"    {style(sanitize(key), 'dim')} = {sanitize(value, 2000)}")
    print(end="", flush=True)


def _as_json(answer: Answer, directory: NameCache) -> dict[str, Any]:
    client_id, response = answer
    entry: dict[str, Any] = {"id": client_id, "name": directory.name(client_id), "status": None}
    if response is not None:
        entry["status"] = response.get("samp.status")
        entry |= {part: response[f"samp.{part}"] for part in ("result", "error") if f"samp.{part}" in response}
        entry |= {key: value for key, value in response.items() if key not in _PARTS}
    return entry


def exit_status(answers: list[Answer]) -> Status:
    """The exit status that some answers make."""
    responses = [response for _client_id, response in answers]
    if any(response is not None and response.get("samp.status") == SAMP_STATUS_ERROR for response in responses):
        return Status.FAILED
    return Status.TIMEOUT if None in responses else Status.OK
