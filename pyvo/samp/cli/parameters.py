# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Messages as they are typed: an MType and ``key=value``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..protocol import check_mtype, encode

__all__ = ["add_message_arguments", "add_recipient_arguments", "message_of", "seconds"]


def add_message_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the MType and the parameters."""
    parser.add_argument("mtype", type=_mtype, metavar="MTYPE", help="such as coord.pointAt.sky")
    parser.add_argument(
        "parameters",
        nargs="*",
        type=_parameter,
        metavar="KEY=VALUE",
        help="a parameter; KEY:=JSON for lists and maps, such as row-list:='[1, 2]'",
    )


def add_recipient_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--to`` and ``--all``."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--to", action="append", metavar="NAME", help="who: id, name or part of it; may be repeated")
    who.add_argument("--all", action="store_true", help="everybody who takes the message; so it is without --to")


def message_of(options: argparse.Namespace) -> dict[str, Any]:
    """Make the message that was typed."""
    return {"samp.mtype": options.mtype, "samp.params": dict(options.parameters)}


def _mtype(text: str) -> str:
    check_mtype(text)
    return text


def _parameter(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip(":"):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    if not key.endswith(":"):
        return key, value
    try:
        return key[:-1], encode(json.loads(value), key[:-1])
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    except TypeError as error:  # null
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def seconds(text: str) -> float:
    """Read a time-out."""
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value
