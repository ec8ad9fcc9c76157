# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What is typed behind commands: MTypes, ``key=value``, numbers. What is wrong with it is said in words."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from ..addresses import checked_port
from ..errors import SAMPValueError
from ..protocol import check_mtype, check_pattern, encode

__all__ = [
    "add_message_arguments",
    "add_recipient_arguments",
    "message_of",
    "mtype",
    "pattern",
    "port",
    "positive_number",
    "seconds",
]

T = TypeVar("T")


def add_message_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the MType and the parameters."""
    parser.add_argument("mtype", type=mtype, metavar="MTYPE", help="such as coord.pointAt.sky")
    parser.add_argument(
        "parameters",
        nargs="*",
        default=[],  # without it argparse says that one is required
        type=_parameter,
        metavar="KEY=VALUE",
        help="a parameter; KEY:=JSON for lists and maps, such as row-list:='[1, 2]'",
    )


def add_recipient_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--to`` and ``--all``."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--to", action="append", metavar="NAME", help="a recipient: id, name or part of the name; may be repeated"
    )
    who.add_argument("--all", action="store_true", help="all who take the message (the default)")


def message_of(options: argparse.Namespace) -> dict[str, Any]:
    """Make the message that was typed."""
    return {"samp.mtype": options.mtype, "samp.params": dict(options.parameters)}


def _parameter(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip(":"):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    if not key.endswith(":"):
        return key, value
    try:
        return key[:-1], encode(json.loads(value), key[:-1])
    except (ValueError, TypeError) as error:  # no JSON, or null
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def mtype(text: str) -> str:
    """Read an MType."""
    _checked(text, check_mtype)
    return text


def pattern(text: str) -> str:
    """Read an MType or a wildcard."""
    _checked(text, check_pattern)
    return text


def port(text: str) -> int:
    """Read the number of a port."""
    return _checked(text, checked_port)


def _checked(text: str, check: Callable[[str], T]) -> T:
    # argparse would replace the text of any other error by the name of the function that raised it
    try:
        return check(text)
    except SAMPValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """Read a time-out."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return value


def positive_number(text: str) -> int:
    """Read how many there are to be."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)
