# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp receive``: what other programs send, as files."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from ..clientside.handlers import error_text
from ..errors import SAMPError, SAMPHubError
from ..exchange.fetching import fetched
from ..integrated_client import SAMPIntegratedClient
from ..protocol import error_response, ok_response
from .files import copy_into, new_file, stem_of
from .parameters import pattern, positive_number, seconds
from .people import Directory, join, next_item
from .status import CommandError, Status, epilog
from .terminal import add_json_option, clean, print_json

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = (
    epilog(
        """\
  samp receive             tables, images, spectra, coverages; until ^C
  samp receive -o data --mtype 'table.load.*'
  samp receive --count 1 --timeout 60 --json | jq -r .path
""",
        {
            0: "^C, or as many files as --count says",
            1: "",
            2: "",
            3: "",
            5: "nothing more came within --timeout",
            130: None,
        },
    )
    + """

Of a message without a url, such as coord.pointAt.sky, the parameters are
written as JSON. No file is overwritten: if a name is taken, a number is added.
"""
)

USUAL = ("table.load.*", "image.load.*", "spectrum.load.*", "coverage.load.*")


class _Order(NamedTuple):
    """A message that has arrived."""

    sender_id: str
    msg_id: str | None
    mtype: str
    params: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--mtype",
        action="append",
        type=pattern,
        help=f"an MType or a wildcard; may be repeated (default: {', '.join(USUAL)})",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where the files go (default: the current directory)",
    )
    parser.add_argument("--count", type=positive_number, metavar="N", help="stop after so many files")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="stop when nothing has come for so long (0: never)",
    )
    parser.add_argument(
        "--name", default="samp receive", help="the name that other programs show (default: %(default)s)"
    )
    add_json_option(parser, "a line of JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Write files until ^C."""
    patterns = options.mtype or USUAL
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            Status.FAILED, f"{options.output} cannot be used as a directory: {error.strerror}"
        ) from error
    arrived: SimpleQueue[Any] = SimpleQueue()

    def take(_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, _extra: Any) -> None:
        arrived.put(_Order(sender_id, msg_id, mtype, params))

    directories: list[Directory] = []

    def bind(client: SAMPIntegratedClient) -> None:
        directories.append(Directory(client))
        directories[0].follow()
        for wanted in patterns:
            client.bind_receive_message(wanted, take)

    try:
        with join(options.name, "Writes files", callable=True, events=arrived, prepare=bind) as client:
            print(f"samp: waiting for {', '.join(patterns)}, until ^C", file=sys.stderr, flush=True)
            return _write_all(client, arrived, directories[0], options)
    except KeyboardInterrupt:  # the way to end it
        return Status.OK


def _write_all(
    client: SAMPIntegratedClient, arrived: SimpleQueue[Any], directory: Directory, options: argparse.Namespace
) -> Status:
    written = 0
    while options.count is None or written < options.count:
        try:
            item = next_item(arrived, options.timeout or None)
        except Empty:
            print(f"samp: nothing more came within {options.timeout:g} s", file=sys.stderr)
            return Status.TIMEOUT
        if item == "lost":
            raise SAMPHubError("The hub has gone.")
        written += _carry_out(client, item, directory, options)
    return Status.OK


def _carry_out(client: SAMPIntegratedClient, order: _Order, directory: Directory, options: argparse.Namespace) -> bool:
    """Write one file, answer, and say so; tell whether it worked."""
    started = time.monotonic()
    sender = directory.title(order.sender_id)
    try:
        path = _write(order, options.output)
    except (SAMPError, OSError, ValueError) as error:
        _answer(client, order, error_response(error_text(error)))
        print(f"samp: {clean(order.mtype)} from {sender}: {clean(str(error), 500)}", file=sys.stderr, flush=True)
        return False
    _answer(client, order, ok_response())
    if options.json:
        entry = {
            "path": str(path),
            "bytes": path.stat().st_size,
            "mtype": order.mtype,
            "sender": {"id": order.sender_id, "name": directory.name(order.sender_id)},
            "params": order.params,
            "seconds": round(time.monotonic() - started, 3),
        }
        print_json(entry, one_line=True)
    else:
        print(f"{clean(str(path), 1000)}  {clean(order.mtype)} from {sender}, {path.stat().st_size} bytes", flush=True)
    return True


def _write(order: _Order, directory: Path) -> Path:
    stem = stem_of(order.params, order.mtype)
    url = order.params.get("url")
    if isinstance(url, str) and url.strip():
        with fetched(url.strip()) as source:
            return copy_into(directory, stem, source, url.strip())
    with new_file(directory, stem, ".json") as file:
        file.write(json.dumps({"mtype": order.mtype, "params": order.params}, indent=2).encode("ascii") + b"\n")
        return Path(file.name)


def _answer(client: SAMPIntegratedClient, order: _Order, response: dict[str, Any]) -> None:
    if order.msg_id is None:
        return
    try:
        client.reply(order.msg_id, response)
    except SAMPHubError:
        raise
    except SAMPError as error:  # the sender waits no more
        print(f"samp: the answer was not accepted: {clean(str(error))}", file=sys.stderr)
