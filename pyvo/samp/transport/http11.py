# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
HTTP/1.x without sockets: bytes go in, requests or answers come out.

`RequestReader` is the server's side and `AnswerReader` the client's. Both are fed whatever bytes have
arrived and give back whole messages; both hold to limits, since what they read may come from anybody.

The real programs at the other end are not strict: DS9 ends its header lines with a bare line feed, sends no
``Host`` and closes a byte before the announced length of its faults; JSAMP closes after each answer.

The header lines of HTTP messages, and what they say about the message's end.

The reading of lines is deliberately short: the standard library's goes through its e-mail parser, which would be the
larger part of what a message costs.

Requests, answers, and what a server responds with.

The body of an HTTP message as it arrives: of known length, in chunks, or until the end; packed or not.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple, TypeVar

from . import Bytes

__all__ = [
    "BodyDecoder",
    "HTTPError",
    "HTTPRequest",
    "HTTPResponse",
    "RequestParser",
    "Response",
    "ResponseParser",
    "content_length",
    "parse_headers",
    "should_keep_alive",
]

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


def should_keep_alive(version: str, headers: dict[str, str]) -> bool:
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


class HTTPRequest(NamedTuple):
    """One request as it was read. Names of headers are in lower case; requests share them, so leave them unchanged."""

    method: str
    target: str
    headers: dict[str, str]
    body: Bytes
    keep_alive: bool


class HTTPResponse(NamedTuple):
    """One answer as it was read. Names of headers are in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: Bytes
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


_REASONS = {int(status): status.phrase for status in HTTPStatus}


class HTTPError(Exception):
    """
    A request or an answer that breaks HTTP or a limit.

    Parameters
    ----------
    status : int
        The HTTP status that says so.
    text : str
        What is wrong with it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        #: Method and headers of the request, where they could be read.
        self.head: tuple[str, dict[str, str]] | None = None


#: Bytes that chunked coding may add to a body, besides eight for each byte of the body.
MAX_CHUNK_OVERHEAD = 64 * 1024
MAX_LINE = 1024
#: Bytes of a body that is not to be copied.
LARGE = 64 * 1024


class BodyDecoder:
    """
    A body that is arriving: of known length, in chunks, or until the connection closes.

    Parameters
    ----------
    headers : dict of str to str
        The headers above it, names in lower case.
    limit : int
        Bytes that it may have, packed or unpacked.
    length : int, optional
        Its announced length.
    until_close : bool
        Whether a body without a length and without chunks goes on until the connection closes, as an answer's does.

    Raises
    ------
    HTTPError
        The headers contradict each other, or name a coding that is not known here.
    """

    def __init__(self, headers: dict[str, str], limit: int, length: int | None, *, until_close: bool = False) -> None:
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise HTTPError(501, "The transfer encoding is not known here")
        if coding is not None and length is not None:
            raise HTTPError(400, "Both a length and chunks are announced")
        packing = headers.get("content-encoding", "identity").lower()
        if packing not in ("identity", "gzip", "x-gzip"):
            raise HTTPError(415, "The content encoding is not known here")
        self._compressed = packing != "identity"
        self._limit = limit
        self._remaining = length or 0
        self._chunked = coding is not None
        self._until_close = until_close and coding is None and length is None
        self._chunk_left = 0
        self._after_chunk = False
        self._in_trailer = False
        self._chunk_overhead = 0
        self._data = bytearray()  # one object: a list of chunks of one byte would take fifty times their size

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return len(self._data)

    @property
    def expected(self) -> int:
        """How many bytes are known to be still to come."""
        return self._remaining

    def append_direct(self, data: bytes) -> bool:
        """Take a piece that is wholly the body's, without the way through a buffer; False if it is not."""
        if self._chunked or len(data) > self._remaining:
            return False
        self._data += data
        self._remaining -= len(data)
        return True

    def feed_from(self, buffer: bytearray) -> bool:
        """Move what belongs to the body out of ``buffer``; True when the body is complete."""
        if self._chunked:
            return self._feed_chunks(buffer)
        if self._until_close:
            self._transfer(buffer, len(buffer))
            return False
        self._remaining -= self._transfer(buffer, self._remaining)
        return not self._remaining

    def content(self) -> Bytes:
        """The body, unpacked."""
        if self._compressed:
            return gunzip_limited(self._data, self._limit)
        return self._data if len(self._data) > LARGE else bytes(self._data)

    def _transfer(self, buffer: bytearray, most: int) -> int:
        """Move up to ``most`` bytes from ``buffer`` to the body; how many it were."""
        size = min(len(buffer), most)
        if len(self._data) + size > self._limit:
            raise HTTPError(413, f"The body is longer than {self._limit} bytes")
        if size == len(buffer):
            self._data += buffer
            buffer.clear()
        else:
            self._data += buffer[:size]
            del buffer[:size]
        return size

    def _feed_chunks(self, buffer: bytearray) -> bool:
        while True:
            if self._chunk_left:
                if not buffer:
                    return False
                self._chunk_left -= self._transfer(buffer, self._chunk_left)
                self._after_chunk = not self._chunk_left
                continue
            line = self._extract_line(buffer)
            if line is None:
                return False
            if self._after_chunk:
                if line:
                    raise HTTPError(400, "A chunk is longer than announced")
                self._after_chunk = False
            elif self._in_trailer:
                if not line:
                    return True
            else:
                self._parse_chunk_header(line)

    def _parse_chunk_header(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > 12 or digits.strip(b"0123456789abcdefABCDEF"):
            raise HTTPError(400, "The length of a chunk is malformed")
        self._chunk_left = int(digits, 16)
        self._in_trailer = not self._chunk_left
        if len(self._data) + self._chunk_left > self._limit:
            raise HTTPError(413, f"The body is longer than {self._limit} bytes")

    def _extract_line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\n", 0, MAX_LINE)
        if end < 0:
            if len(buffer) >= MAX_LINE:
                raise HTTPError(400, "A line between chunks is too long")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._chunk_overhead += end + 1
        if self._chunk_overhead > MAX_CHUNK_OVERHEAD + 8 * len(self._data):
            raise HTTPError(400, "The chunks bear more description than content")
        return line.removesuffix(b"\r")


def gunzip_limited(data: Bytes, limit: int) -> bytes:
    """Unpack gzip, but never to more than ``limit`` bytes (a few kB can unpack to gigabytes)."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise HTTPError(400, "The body is not valid gzip") from error
    if len(plain) > limit:
        raise HTTPError(413, f"The unpacked body is longer than {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise HTTPError(400, "The body is not one complete gzip file")
    return plain


MAX_HEAD = 32 * 1024
MAX_BODY = 64 * 1024 * 1024
#: How many times an answer may announce itself (status 100 to 199) before it comes.
MAX_INFORMATIONAL = 10
#: How many heads are remembered, and how long one may be for that.
HEAD_CACHE_SIZE = 256
MAX_CACHED_HEAD = 1024

H = TypeVar("H")


class MessageParser:
    """What requests and answers have in common: a head of lines, then a body."""

    #: Heads that were parsed of late: a program sends the same one over and over, new connections or not.
    head_cache: ClassVar[dict[tuple[bytes, int], Any]] = {}
    #: What the first line looks like, without its end.
    start_line: re.Pattern[str]
    #: What the first byte may be: a peer that speaks another protocol (TLS, say) is told at once.
    start_bytes: bytes
    message_kind: str

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self.max_body = max_body
        self._buffer = bytearray()
        self._scanned = 0
        self._start_line_checked = False
        self._body: BodyDecoder | None = None

    @property
    def pending(self) -> bool:
        """Whether part of a message has arrived."""
        return bool(self._buffer) or self._body is not None

    @property
    def buffered(self) -> int:
        """How many bytes are held."""
        return len(self._buffer) + (self._body.size if self._body else 0)

    @property
    def expected(self) -> int:
        """How many bytes of the present body are known to be still to come."""
        return self._body.expected if self._body else 0

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        if self._body is None or self._buffer or not self._body.append_direct(data):
            self._buffer += data

    def _extract_head(self) -> bytes | None:
        """All lines up to the blank one; None until they are there."""
        buffer = self._buffer
        end = self._find_end_of_head()
        if end < 0 or end > MAX_HEAD:
            self._check_start_line()
            if end > MAX_HEAD or len(buffer) > MAX_HEAD:
                raise HTTPError(431, "The header lines are too long")
            self._scanned = max(0, len(buffer) - 2)
            return None
        head = bytes(buffer[:end])
        del buffer[:end]
        self._scanned = 0
        self._start_line_checked = False
        return head

    def _parse_head_cached(self, data: bytes, parse: Callable[[bytes], H]) -> H:
        """What a head says. To parse one costs more than all else about a short message."""
        key = data, self.max_body
        head: H | None = self.head_cache.get(key)
        if head is None:
            head = parse(data)
            if len(data) <= MAX_CACHED_HEAD:
                if len(self.head_cache) >= HEAD_CACHE_SIZE:
                    self.head_cache.clear()
                self.head_cache[key] = head
        return head

    def _find_end_of_head(self) -> int:
        """Index behind the blank line, which ends in LF or CR LF; -1 when it is yet to come."""
        buffer = self._buffer
        start = self._scanned
        crlf = buffer.find(b"\n\r\n", start)
        lf = buffer.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(buffer))
        if lf >= 0:
            return lf + 2
        return crlf + 3 if crlf >= 0 else -1

    def _check_start_line(self) -> None:
        """Refuse at once what isn't HTTP/1: TLS, or HTTP/0.9, whose peer would wait for its answer in vain."""
        buffer = self._buffer
        if self._start_line_checked or not buffer:
            return
        if buffer[0] not in self.start_bytes:
            raise HTTPError(400, f"This is not an HTTP/1 {self.message_kind}")
        end = buffer.find(b"\n", 0, MAX_HEAD)
        if end >= 0:
            self._match_start_line(buffer[:end].decode("latin-1"))
            self._start_line_checked = True

    def _match_start_line(self, line: str) -> re.Match[str]:
        match = self.start_line.fullmatch(line.rstrip(" \t\r"))
        if match is None:
            raise HTTPError(400, f"This is not an HTTP/1 {self.message_kind}")
        return match


class _RequestHead(NamedTuple):
    """What the lines above a request's body say."""

    method: str
    target: str
    headers: dict[str, str]
    keep_alive: bool
    length: int | None
    identity_encoded: bool
    """Whether the body comes as it is, neither in chunks nor packed."""
    expect_continue: bool
    """Whether the sender waits to be asked for the body."""


class RequestParser(MessageParser):
    """
    Reads requests from the bytes of one connection.

    Parameters
    ----------
    max_body : int
        Bytes that a body may have, packed or unpacked.
    """

    head_cache: ClassVar[dict[tuple[bytes, int], Any]] = {}
    start_line = re.compile(r"([A-Za-z][A-Za-z-]*) ([^\0-\x20\x7f]+) (HTTP/1\.[0-9])")
    start_bytes = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    message_kind = "request"

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(max_body)
        self._head = _RequestHead("", "", {}, False, None, False, False)
        #: Whether the sender is to be told that it may send the body.
        self.send_100_continue = False

    def next_message(self) -> HTTPRequest | None:
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
        if self._body is None:
            if not self._parse_next_head():
                return None
            head = self._head
            size = head.length or 0
            if head.identity_encoded and len(self._buffer) >= size:  # most requests are short and come in one piece
                content = bytes(self._buffer[:size])
                del self._buffer[:size]
                return HTTPRequest(head.method, head.target, head.headers, content, head.keep_alive)
        try:
            return self._extract_body()
        except HTTPError as error:
            error.head = self._head.method, self._head.headers
            raise

    @property
    def head(self) -> tuple[str, dict[str, str]] | None:
        """Method and headers of the request whose body is arriving."""
        return (self._head.method, self._head.headers) if self._body is not None else None

    def _extract_body(self) -> HTTPRequest | None:
        head = self._head
        body = self._body
        if body is None:
            body = self._body = BodyDecoder(head.headers, self.max_body, head.length)
            self.send_100_continue = head.expect_continue and not self._buffer
        if not body.feed_from(self._buffer):
            return None
        content = body.content()
        self._body = None
        self.send_100_continue = False
        return HTTPRequest(head.method, head.target, head.headers, content, head.keep_alive)

    def _parse_next_head(self) -> bool:
        buffer = self._buffer
        if buffer and buffer[0] in b"\r\n":  # blank lines ahead of a request are to be ignored (RFC 9112)
            del buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
        if not buffer:
            return False
        data = self._extract_head()
        if data is None:
            return False
        self._head = self._parse_head_cached(data, self._parse)
        return True

    def _parse(self, data: bytes) -> _RequestHead:
        line, _, lines = data.decode("latin-1").partition("\n")
        method, target, version = self._match_start_line(line).groups()
        headers = parse_headers(lines)
        plain = "transfer-encoding" not in headers and "content-encoding" not in headers
        try:
            length = content_length(headers, self.max_body)
            if length is None and method == "POST" and "transfer-encoding" not in headers:
                raise HTTPError(411, "A POST needs a Content-Length")
        except HTTPError as error:
            error.head = method, headers  # whoever answers it may have to say who may read the answer
            raise
        expects = headers.get("expect", "").lower() == "100-continue" and version != "HTTP/1.0"
        return _RequestHead(method, target, headers, should_keep_alive(version, headers), length, plain, expects)


class _ResponseHead(NamedTuple):
    """What the lines above an answer's body say."""

    status: int
    reason: str
    headers: dict[str, str]
    keep_alive: bool
    length: int | None
    identity_encoded: bool
    """Whether the body is of known length and comes as it is."""


class ResponseParser(MessageParser):
    """
    Reads the answers on one connection.

    Parameters
    ----------
    max_body : int
        Bytes that a body may have, packed or unpacked.
    """

    head_cache: ClassVar[dict[tuple[bytes, int], Any]] = {}
    start_line = re.compile(r"(HTTP/1\.[0-9]) +([1-9][0-9][0-9])(?: ([^\0\r]*))?")
    start_bytes = b"H"
    message_kind = "answer"

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(max_body)
        self._head = _ResponseHead(0, "", {}, False, None, False)
        self._informational = 0

    @property
    def pending(self) -> bool:
        """Whether part of an answer has arrived, or its announcement."""
        return bool(self._buffer) or self._body is not None or self._informational > 0

    def next_message(self, *, closed: bool = False) -> HTTPResponse | None:
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
        body = self._body
        if body is None:
            if not self._parse_next_head():
                if closed:
                    raise HTTPError(400, "The connection was closed without an answer")
                return None
            head = self._head
            size = head.length or 0
            if head.identity_encoded and len(self._buffer) >= size:  # most answers are short and come in one piece
                content = bytes(self._buffer[:size])
                del self._buffer[:size]
                return self._make_response(content, complete=not closed)
            body = self._body = BodyDecoder(head.headers, self.max_body, head.length, until_close=True)
        complete = body.feed_from(self._buffer)
        if not complete and not closed:
            return None
        self._body = None
        return self._make_response(body.content(), complete=complete and not closed)

    def _make_response(self, content: Bytes, *, complete: bool) -> HTTPResponse:
        self._informational = 0
        head = self._head
        keep_alive = head.keep_alive and complete and not self._buffer
        return HTTPResponse(head.status, head.reason, head.headers, content, keep_alive)

    def _parse_next_head(self) -> bool:
        while True:
            data = self._extract_head()
            if data is None:
                return False
            head = self._parse_head_cached(data, self._parse)
            if head.status >= 200:  # the ones below only announce the answer
                self._head = head
                return True
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise HTTPError(400, "The answer is announced again and again")

    def _parse(self, data: bytes) -> _ResponseHead:
        line, _, lines = data.decode("latin-1").partition("\n")
        _, digits, reason = self._match_start_line(line).groups()
        headers = parse_headers(lines)
        status = int(digits)
        length = 0 if status in (204, 304) else content_length(headers, self.max_body)
        plain = length is not None and "transfer-encoding" not in headers and "content-encoding" not in headers
        # Only a server that says so is believed to keep the connection: DS9 says nothing and closes behind each answer,
        # and a message that is sent to it in that moment would be lost.
        keep_alive = "keep-alive" in headers.get("connection", "").lower()
        if length is None and "transfer-encoding" not in headers:
            keep_alive = False
        return _ResponseHead(status, reason or "", headers, keep_alive, length, plain)
