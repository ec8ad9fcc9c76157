# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``--web-consent``: who decides whether a web page may join.

What is typed behind commands: MTypes, ``key=value``, numbers. What is wrong with it is said in words.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import SAMPValueError
from ..protocol import check_mtype, check_pattern, encode
from ..transport.urls import validate_port
from ..web_profile.consent import ConsentPrompt, ConsentTicket, Decision

__all__ = [
    "OriginAllowList",
    "add_consent_option",
    "add_message_arguments",
    "add_recipient_arguments",
    "consent_prompt",
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
    return _checked(text, validate_port)


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


CHOICES = ("tk", "terminal", "window", "allow-origin", "deny")


class OriginAllowList(ConsentPrompt):
    """
    Lets pages of some origins in, and no others. Nobody is asked.

    Parameters
    ----------
    origins : iterable of str
        Such as ``https://example.org``.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self.origins = frozenset(origins)

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Decide."""
        return Decision.ONCE if ticket.request.origin in self.origins else Decision.DENY


def add_consent_option(parser: argparse._ArgumentGroup) -> None:
    """Declare ``--web-consent``."""
    parser.add_argument(
        "--web-consent",
        nargs="+",
        action=_Consent,
        metavar=("WHO", "ORIGIN"),
        default=["terminal"],
        help="who decides whether a web page may join: you, asked in the terminal (terminal, the default), in a window "
        "(tk) or in the hub window (window); allow-origin lets in the pages from the ORIGINs that follow and no "
        "others, deny lets in none",
    )


def consent_prompt(words: Sequence[str]) -> Any:
    """Turn what was typed into the ``web_profile_dialog`` of a hub."""
    return OriginAllowList(words[1:]) if words[0] == "allow-origin" else words[0]


class _Consent(argparse.Action):
    """Checks the words behind ``--web-consent``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        way, *origins = [str(value) for value in values or ()]
        if way not in CHOICES:
            parser.error(f"--web-consent is one of {', '.join(CHOICES)}, not {way!r}")
        if bool(origins) != (way == "allow-origin"):
            needed = "needs at least one ORIGIN" if way == "allow-origin" else "takes no ORIGIN"
            parser.error(f"--web-consent {way} {needed}")
        for origin in origins:
            if not _is_origin(origin):
                parser.error(
                    f"{origin!r} is not an origin: give scheme, host and perhaps port, such as http://host:8888"
                )
        setattr(namespace, self.dest, [way, *(origin.lower().rstrip("/") for origin in origins)])


def _is_origin(text: str) -> bool:
    """Whether this can be what a browser sends. ``null`` is what any page can be, and would let all of them in."""
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    is_bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or parts.username or "*" in text)
    return bool(parts.scheme and host and is_bare)
