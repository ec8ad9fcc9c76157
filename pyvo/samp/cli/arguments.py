# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The arguments that several commands share: MTypes, parameters, recipients, numbers, and consent.

A function that is the ``type`` of an argument raises `argparse.ArgumentTypeError`, whose text the user sees.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ..errors import SAMPValueError
from ..protocol import check_mtype, check_pattern, encode
from ..protocol.timeouts import parse_timeout
from ..transport.urls import validate_port
from ..web_profile.consent import ConsentPrompt, ConsentTicket, Decision

T = TypeVar("T")


class Command(NamedTuple):
    """A subcommand, which its module provides to `pyvo.samp.cli.main`."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    #: Called with the parsed arguments, whose ``parser`` is the parser; returns the exit status.
    run: Callable[[argparse.Namespace], int]
    #: The end of the help: examples and exit statuses.
    epilog: str
    #: Called with the words of the command line, returns those to parse.
    prepare: Callable[[list[str]], list[str]] = list


def add_message_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the MType and the parameters."""
    parser.add_argument("mtype", type=mtype, metavar="MTYPE", help="the MType, such as coord.pointAt.sky")
    parser.add_argument(
        "parameters",
        nargs="*",
        default=[],  # without it argparse requires one
        type=_parameter,
        metavar="KEY=VALUE",
        help="a parameter; KEY:=JSON for lists and maps, such as row-list:='[1, 2]'",
    )


def add_recipient_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--to`` and ``--all``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--to", action="append", metavar="NAME", help="a recipient: its id, name or part of the name; may be repeated"
    )
    group.add_argument("--all", action="store_true", help="send to all subscribed clients (the default)")


def add_timeout_option(parser: argparse.ArgumentParser, default: float) -> None:
    """Declare ``--timeout``."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=default,
        metavar="SECONDS",
        help="how long to wait for responses (default: %(default)g; 0: no limit)",
    )


def parse_message(options: argparse.Namespace) -> dict[str, Any]:
    """Make a message from the MType and the parameters."""
    return {"samp.mtype": options.mtype, "samp.params": dict(options.parameters)}


def _parameter(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip(":"):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    if not key.endswith(":"):
        return key, value
    try:
        return key[:-1], encode(json.loads(value), key[:-1])
    except (ValueError, TypeError) as error:  # not JSON, or null
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
    """Read a port number."""
    return _checked(text, validate_port)


def _checked(text: str, check: Callable[[str], T]) -> T:
    # argparse shows the text of this error only; of any other it shows the name of the function that raised it
    try:
        return check(text)
    except SAMPValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """Read a timeout."""
    try:
        value = parse_timeout(text)
    except SAMPValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return value


def positive_number(text: str) -> int:
    """Read a whole number, 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


CONSENT_CHOICES = ("tk", "terminal", "window", "allow-origin", "deny")


class OriginAllowList(ConsentPrompt):
    """Allows only web pages from some origins, such as ``https://example.org``, and does not ask the user."""

    def __init__(self, origins: Sequence[str]) -> None:
        self.origins = frozenset(origins)

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Decide by the origin of the page."""
        return Decision.ONCE if ticket.request.origin in self.origins else Decision.DENY


def add_consent_option(parser: argparse._ArgumentGroup) -> None:
    """Declare ``--web-consent``."""
    parser.add_argument(
        "--web-consent",
        nargs="+",
        type=_choice_or_origin,
        metavar=("CHOICE", "ORIGIN"),
        default=["terminal"],
        help="how to decide whether a web page may connect: ask you in the terminal (the default), in a dialog (tk) "
        "or in the hub window (window); or, without asking, allow only pages from the given ORIGINs (allow-origin) or "
        "none (deny)",
    )


def consent_prompt(options: argparse.Namespace) -> Any:
    """Make the ``web_profile_dialog`` of a hub from ``--web-consent``; exit if its words do not fit together."""
    choice, *origins = options.web_consent
    if choice not in CONSENT_CHOICES:
        options.parser.error(f"--web-consent must begin with one of {', '.join(CONSENT_CHOICES)}, not with {choice!r}")
    if bool(origins) != (choice == "allow-origin") or not set(origins).isdisjoint(CONSENT_CHOICES):
        needed = "needs at least one ORIGIN" if choice == "allow-origin" else "takes no ORIGIN"
        options.parser.error(f"--web-consent {choice} {needed}")
    return OriginAllowList(origins) if origins else choice


def _choice_or_origin(text: str) -> str:
    """Read one word of ``--web-consent``: a choice, or an origin as browsers send it."""
    if text in CONSENT_CHOICES:
        return text
    if not _is_origin(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither one of {', '.join(CONSENT_CHOICES)} nor an origin: scheme, host and perhaps port, "
            "such as http://host:8888"
        )
    return text.lower().rstrip("/")


def _is_origin(text: str) -> bool:
    """Whether a browser can send this as an origin. ``null`` is not allowed: any page can have this origin."""
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    is_bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or parts.username or "*" in text)
    return bool(parts.scheme and host and is_bare)
