# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
HTTP/1.x without sockets: bytes go in, requests or answers come out.

`RequestReader` is the server's side and `AnswerReader` the client's. Both are fed whatever bytes have
arrived and give back whole messages; both hold to limits, since what they read may come from anybody.

The real programs at the other end are not strict: DS9 ends its header lines with a bare line feed, sends no
``Host`` and closes a byte before the announced length of its faults; JSAMP closes after each answer. The reading of
header lines is deliberately short: the standard library's goes through its e-mail parser, which would be the
larger part of what a message costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from .http_body import Body, HTTPError

__all__ = ["Answer", "AnswerReader", "HTTPError", "Request", "RequestReader", "Response"]

MAX_HEAD = 32 * 1024
MAX_LINES = 100
MAX_BODY = 64 * 1024 * 1024
#: Headers that decide how long a message is, or whom it may come from: of two, two readers would take different ones.
_SINGLE = frozenset({"content-length", "host", "origin", "transfer-encoding", "content-encoding"})


class Request(NamedTuple):
    """One request as it was read. Names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


class Answer(NamedTuple):
    """One answer as it was read. Names of headers are in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


class Response(NamedTuple):
    """
    What a server answers.

    ``headers`` go out as they are, besides ``Content-Length`` and ``Connection``, which the server adds.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Iterable[tuple[str, str]] = ()

    def encode(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """
        Write the response.

        Parameters
        ----------
        keep_alive : bool
            Whether the connection stays open behind it.
        with_body : bool
            False for the answer to a HEAD.

        Returns
        -------
        bytes
            Head and body in one piece: two writes could be two packets.
        """
        head = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Status')}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
        )
        for name, value in self.headers:
            head += f"{name}: {value}\r\n"
        head += "Connection: keep-alive\r\n\r\n" if keep_alive else "Connection: close\r\n\r\n"
        data = head.encode("latin-1", "replace")
        return data + self.body if with_body else data


_STATUS = re.compile(r"[1-9][0-9][0-9]", re.ASCII).fullmatch
_REASONS = {int(status): status.phrase for status in HTTPStatus}


class _Reader:
    """What requests and answers have in common: a head of lines, then a body."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self.max_body = max_body
        self._buffer = bytearray()
        self._scanned = 0
        self._last_head = b""
        self._last_parsed: tuple[list[str], dict[str, str]] = ([], {})
        self._body: Body | None = None

    @property
    def pending(self) -> bool:
        """Whether part of a message has arrived."""
        return bool(self._buffer) or self._body is not None

    @property
    def buffered(self) -> int:
        """How many bytes are held."""
        return len(self._buffer) + (self._body.size if self._body else 0)

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        self._buffer += data

    def _read_head(self) -> tuple[list[str], dict[str, str]] | None:
        """First line, split in three, and the headers; None until the head is complete."""
        buffer = self._buffer
        end = self._find_end_of_head()
        if end < 0:
            if len(buffer) > MAX_HEAD:
                raise HTTPError(431, "The header lines are too long")
            self._scanned = max(0, len(buffer) - 2)
            return None
        if end > MAX_HEAD:
            raise HTTPError(431, "The header lines are too long")
        head = bytes(buffer[:end])
        del buffer[:end]
        self._scanned = 0
        # A client that keeps its connection sends the same head over and over.
        if head != self._last_head:
            self._last_parsed = parse_head(head)
            self._last_head = head
        return self._last_parsed

    def _find_end_of_head(self) -> int:
        """Index behind the blank line, which ends in LF or CR LF; -1 when it is yet to come."""
        buffer = self._buffer
        start = self._scanned
        crlf = buffer.find(b"\n\r\n", start)
        lf = buffer.find(b"\n\n", start, crlf if crlf >= 0 else len(buffer))
        if lf >= 0:
            return lf + 2
        return crlf + 3 if crlf >= 0 else -1


def parse_head(head: bytes) -> tuple[list[str], dict[str, str]]:
    """
    Read the lines above a body.

    Parameters
    ----------
    head : bytes
        From the first line to the blank line.

    Returns
    -------
    first_line : list of str
        The first line, split at blanks into three at the most.
    headers : dict of str to str
        By name in lower case; a repeated header's values are joined with commas.

    Raises
    ------
    HTTPError
        Where the lines are no header lines.
    """
    lines = head.decode("latin-1").rstrip("\r\n").split("\n")
    if len(lines) > MAX_LINES:
        raise HTTPError(431, "There are too many header lines")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name[-1] in " \t" or name[0] in " \t":
            raise HTTPError(400, "A header line is malformed")
        name = name.lower()
        value = value.strip()
        if name in headers:
            if name in _SINGLE:
                raise HTTPError(400, f"There are two {name} headers")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return lines[0].strip().split(" ", 2), headers


def _keeps_alive(version: str, headers: dict[str, str]) -> bool:
    connection = headers.get("connection")
    if connection is None:
        return version != "HTTP/1.0"
    connection = connection.lower()
    if version == "HTTP/1.0":
        return "keep-alive" in connection
    return "close" not in connection


def _content_length(headers: dict[str, str], limit: int) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HTTPError(400, "Content-Length is not a number")
    if len(text) > 15 or int(text) > limit:
        raise HTTPError(413, f"The body is longer than {limit} bytes")
    return int(text)


class RequestReader(_Reader):
    """
    Reads requests from the bytes of one connection.

    Parameters
    ----------
    max_body : int
        Bytes that a body may have, packed or unpacked.
    """

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(max_body)
        self._head: tuple[str, str, dict[str, str], bool] = ("", "", {}, False)
        self.wants_continue = False

    @property
    def expected(self) -> int:
        """How many bytes of the present body are known to be still to come."""
        return self._body.expected if self._body else 0

    def next(self) -> Request | None:
        """
        The next complete request.

        Returns
        -------
        Request or None
            None when more bytes are needed.

        Raises
        ------
        HTTPError
            The bytes are no HTTP request, or go beyond a limit. The connection is of no use afterwards.
        """
        if self._body is None and not self._begin():
            return None
        body = self._body
        assert body is not None
        if not body.take(self._buffer):
            return None
        self._body = None
        self.wants_continue = False
        method, target, headers, keep_alive = self._head
        return Request(method, target, headers, body.value(), keep_alive)

    def _begin(self) -> bool:
        buffer = self._buffer
        if buffer and buffer[0] in b"\r\n":  # blank lines ahead of a request are to be ignored (RFC 9112)
            stripped = bytes(buffer[:64]).lstrip(b"\r\n")
            del buffer[: min(len(buffer), 64) - len(stripped)]
        if not buffer:
            return False
        read = self._read_head()
        if read is None:
            return False
        first, headers = read
        if len(first) != 3 or not first[2].startswith("HTTP/1."):
            raise HTTPError(400, "This is not an HTTP/1 request")
        method, target, version = first
        length = _content_length(headers, self.max_body)
        if length is None and method == "POST" and "transfer-encoding" not in headers:
            raise HTTPError(411, "A POST needs a Content-Length")
        self._body = Body(headers, self.max_body, length)
        self.wants_continue = headers.get("expect", "").lower() == "100-continue" and not buffer
        self._head = (method, target, headers, _keeps_alive(version, headers))
        return True


class AnswerReader(_Reader):
    """
    Reads the one answer to a request.

    Parameters
    ----------
    max_body : int
        Bytes that a body may have, packed or unpacked.
    """

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(max_body)
        self._head: tuple[int, str, dict[str, str], bool] = (0, "", {}, False)

    def next(self, *, closed: bool = False) -> Answer | None:
        """
        The answer, once it is complete.

        Parameters
        ----------
        closed : bool
            Whether the other side has closed the connection. What has arrived of the body is then taken as the
            body: DS9 closes a byte early, and whether the XML in it is whole shows when it is read.

        Returns
        -------
        Answer or None
            None when more bytes are needed.

        Raises
        ------
        HTTPError
            The bytes are no HTTP answer, go beyond a limit, or end before the body began.
        """
        while self._body is None:
            if not self._begin():
                if closed:
                    raise HTTPError(400, "The connection was closed without an answer")
                return None
        done = self._body.take(self._buffer)
        if not done and not closed:
            return None
        body = self._body
        self._body = None
        status, reason, headers, keep_alive = self._head
        return Answer(status, reason, headers, body.value(), keep_alive and done and not closed and not self._buffer)

    def _begin(self) -> bool:
        while True:
            read = self._read_head()
            if read is None:
                return False
            first, headers = read
            if len(first) < 2 or not first[0].startswith("HTTP/1.") or not _STATUS(first[1]):
                raise HTTPError(400, "This is not an HTTP/1 answer")
            status = int(first[1])
            if status >= 200:  # the ones below only announce the answer
                break
        length = _content_length(headers, self.max_body)
        keep_alive = _keeps_alive(first[0], headers)
        if status in (204, 304):
            length = 0
        self._body = Body(headers, self.max_body, length, until_close=True)
        if length is None and "transfer-encoding" not in headers:
            keep_alive = False
        self._head = (status, first[2] if len(first) > 2 else "", headers, keep_alive)
        return True
