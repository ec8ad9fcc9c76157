# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The header lines of HTTP messages, and what they say about the message's end.

The reading of lines is deliberately short: the standard library's goes through its e-mail parser, which would be the
larger part of what a message costs.
"""

from __future__ import annotations

import re

from .http_body import HTTPError

__all__ = ["content_length", "keeps_alive", "parse_headers"]

MAX_LINES = 100
#: Headers that decide how long a message is, or whom it may come from: of two, two readers would take different ones.
_SINGLE = frozenset({"content-length", "host", "origin", "transfer-encoding", "content-encoding"})
#: Header lines down to the blank one: without control characters, and without blanks around a name. Whatever two
#: readers could disagree about is refused.
_HEADERS = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r?\n)*\r?\n").fullmatch


def parse_headers(text: str) -> dict[str, str]:
    """
    Read header lines.

    Parameters
    ----------
    text : str
        The lines, the blank one at the end included.

    Returns
    -------
    dict of str to str
        By name in lower case; a repeated header's values are joined with commas.

    Raises
    ------
    HTTPError
        Where the lines are no header lines.
    """
    if not _HEADERS(text):
        raise HTTPError(400, "A header line is malformed")
    lines = text.split("\n")
    if len(lines) > MAX_LINES + 2:
        raise HTTPError(431, "There are too many header lines")
    headers: dict[str, str] = {}
    for line in lines[:-2]:  # without the blank line and what is behind it
        name, _, value = line.partition(":")
        name = name.lower()
        value = value.strip(" \t\r")
        if name in headers:
            if name in _SINGLE:
                raise HTTPError(400, f"There are two {name} headers")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def keeps_alive(version: str, headers: dict[str, str]) -> bool:
    """Whether the connection stays open behind a message: in HTTP/1.1 unless it says no, in HTTP/1.0 if it says so."""
    connection = headers.get("connection")
    if connection is None:
        return version != "HTTP/1.0"
    connection = connection.lower()
    if version == "HTTP/1.0":
        return "keep-alive" in connection
    return "close" not in connection


def content_length(headers: dict[str, str], limit: int) -> int | None:
    """The announced length of the body, if it is announced; `HTTPError` when it is none, or beyond ``limit``."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HTTPError(400, "Content-Length is not a number")
    if len(text) > 15 or int(text) > limit:
        raise HTTPError(413, f"The body is longer than {limit} bytes")
    return int(text)
