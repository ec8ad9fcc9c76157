# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp point`` points other programs at a position in the sky, given in degrees or in sexagesimal notation.

`astropy.coordinates` reads more notations, but its import takes a second. That is too long for a command that moves a
viewer.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from .arguments import Command, add_recipient_arguments, add_timeout_option
from .call import RESPONSE_STATUSES, run_call
from .output import Status, add_colour_option, add_json_option, help_epilog

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_DECIMAL = re.compile(rf"([+-]?)({_NUMBER})(?:d|deg|°)?")
_SEXAGESIMAL = re.compile(rf"([+-]?)(\d+)(?:([hd°:])|\s)\s*(\d+)[m':\s]\s*({_NUMBER})(?:s|\"|'')?")
_SHORT = re.compile(rf"([+-]?)(\d+)([hd°:])\s*({_NUMBER})[m']?")
#: Typographic primes and minus signs.
_PLAIN_SIGNS = {0x2032: "'", 0x2033: '"', 0x2212: "-"}


def parse_position(words: Sequence[str]) -> tuple[float, float]:
    """
    Parse right ascension and declination, and return them in degrees.

    The words are ``["83.63", "+22.01"]``, ``["05:34:31.9", "+22:00:52"]``, ``["5h34m31.9s", "22d0m52s"]``, or six
    numbers; they may also be one word. Sexagesimal right ascensions are hours, unless they have a ``d``.
    """
    ra_text, dec_text = _halves(" ".join(words).translate(_PLAIN_SIGNS).replace(",", " ").split())
    ra = _angle(ra_text, sexagesimal_in_hours=True)
    dec = _angle(dec_text, sexagesimal_in_hours=False)
    if not 0 <= ra <= 360:
        raise ValueError(f"the right ascension {ra_text} is not between 0 and 360 degrees (24 hours)")
    if not -90 <= dec <= 90:
        raise ValueError(f"the declination {dec_text} is not between -90 and 90 degrees")
    return ra % 360, dec


def _halves(parts: list[str]) -> tuple[str, str]:
    if len(parts) in (2, 4, 6):
        half = len(parts) // 2
        return " ".join(parts[:half]), " ".join(parts[half:])
    raise ValueError("a position is a right ascension and a declination, such as 83.63 22.01 or 05:34:31.9 +22:00:52")


def _angle(text: str, *, sexagesimal_in_hours: bool) -> float:
    if match := _DECIMAL.fullmatch(text):
        sign, number = match.groups()
        return float(number) * (-1 if sign == "-" else 1)
    if match := _SEXAGESIMAL.fullmatch(text):
        sign, whole, unit, minutes, seconds = match.groups()
    elif match := _SHORT.fullmatch(text):
        sign, whole, unit, minutes = match.groups()
        seconds = "0"
    else:
        raise ValueError(f"{text!r} is not an angle: write degrees, 05:34:31.9, or 5h34m31.9s")
    if float(minutes) >= 60 or float(seconds) >= 60:
        raise ValueError(f"the minutes and seconds of {text!r} must be less than 60")
    in_hours = unit == "h" or (unit not in ("d", "°") and sexagesimal_in_hours)
    value = (int(whole) + (float(minutes) + float(seconds) / 60) / 60) * (15 if in_hours else 1)
    return -value if sign == "-" else value


_EPILOG = help_epilog(
    """\
  samp point 83.633 22.014                    degrees (ICRS)
  samp point 05:34:31.94 -05:23:28            hours and degrees
  samp point 5h34m31.94s 22d0m52.2s --to aladin
  samp point '05 34 31.94 +22 00 52.2'
""",
    RESPONSE_STATUSES,
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("position", nargs="+", metavar="RA DEC", help="degrees or sexagesimal (see below)")
    add_recipient_arguments(parser)
    add_timeout_option(parser, 20.0)
    add_json_option(parser, "all responses as JSON")
    add_colour_option(parser)


def _prepare(arguments: list[str]) -> list[str]:
    """Put a space before negative declinations; argparse would take ``-05:23:28`` for an option."""
    return [f" {word}" if re.match(r"-[\d.]", word) else word for word in arguments]


def _run(options: argparse.Namespace) -> Status:
    try:
        ra, dec = parse_position(options.position)
    except ValueError as error:
        options.parser.error(str(error))
    options.mtype = "coord.pointAt.sky"
    options.parameters = [("ra", ra), ("dec", dec)]
    return run_call(options)


COMMANDS = {"point": Command(_add_arguments, _run, _EPILOG, _prepare)}
