# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``--web-consent``: who decides whether a web page may join."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ..web.consent import Answer, Asker, Ticket

__all__ = ["AllowOrigins", "add_consent_option", "dialog_of"]

WAYS = ("tk", "terminal", "allow-origin", "deny")


class AllowOrigins(Asker):
    """
    Lets pages of some origins in, and no others. Nobody is asked.

    Parameters
    ----------
    origins : iterable of str
        Such as ``https://example.org``.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self.origins = frozenset(origins)

    def ask(self, ticket: Ticket) -> Answer:
        """Decide."""
        return Answer.ONCE if ticket.question.origin in self.origins else Answer.DENY


def add_consent_option(parser: argparse._ArgumentGroup) -> None:
    """Declare ``--web-consent``."""
    parser.add_argument(
        "--web-consent",
        nargs="+",
        action=_Consent,
        metavar=("tk|terminal|allow-origin|deny", "ORIGIN"),
        default=["terminal"],
        help="who decides whether a web page may join: you, asked in a window (tk) or in the terminal (the default); "
        "allow-origin lets in the pages from these ORIGINs and no others, deny lets in none",
    )


def dialog_of(words: Sequence[str]) -> Any:
    """Turn what was typed into the ``web_profile_dialog`` of a hub."""
    return AllowOrigins(words[1:]) if words[0] == "allow-origin" else words[0]


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
        if way not in WAYS:
            parser.error(f"--web-consent is one of {', '.join(WAYS)}, not {way!r}")
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
