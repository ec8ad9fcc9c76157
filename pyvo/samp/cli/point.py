# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp point``: look there."""

from __future__ import annotations

import argparse
import re

from .call import run as call
from .parameters import add_recipient_arguments, seconds
from .sky import parse_position
from .status import Status, epilog
from .terminal import add_colour_option, add_json_option

__all__ = ["EPILOG", "add_arguments", "prepare", "run"]

EPILOG = epilog(
    """\
  samp point 83.633 22.014                    degrees (ICRS)
  samp point 05:34:31.94 -05:23:28            hours and degrees
  samp point 5h34m31.94s 22d0m52.2s --to aladin
  samp point '05 34 31.94 +22 00 52.2'
""",
    {0: "all answered ok, or with a warning", 1: "at least one answered with an error", 2: "", 3: "", 4: "", 5: ""},
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("position", nargs="+", metavar="RA DEC", help="degrees, or sexagesimal (see below)")
    add_recipient_arguments(parser)
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=20.0,
        metavar="SECONDS",
        help="how long to wait (default: %(default)g; 0: no limit)",
    )
    add_json_option(parser, "all responses as JSON")
    add_colour_option(parser)


def prepare(arguments: list[str]) -> list[str]:
    """Keep argparse from taking ``-05:23:28`` for an option: it takes nothing with a blank in front for one."""
    return [f" {word}" if re.match(r"-[\d.]", word) else word for word in arguments]


def run(options: argparse.Namespace) -> int:
    """Send the message."""
    try:
        ra, dec = parse_position(options.position)
    except ValueError as error:
        options.parser.error(str(error))
    options.mtype = "coord.pointAt.sky"
    options.parameters = [("ra", ra), ("dec", dec)]
    return Status(call(options))
