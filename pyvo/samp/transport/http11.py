# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
HTTP/1.x without sockets: parsers that turn bytes into requests and responses.

A server uses `RequestParser`, and a client uses `ResponseParser`. Both receive bytes as they arrive and return complete
messages. Both enforce limits, because the bytes may come from any program.

The parsers accept what deployed programs send: DS9 ends its header lines with a bare line feed, sends no ``Host``
header, and closes the connection one byte before the announced length of its faults. JSAMP closes the connection after
each response.

The headers are not parsed with the standard library: its e-mail parser would take most of the time that a message
needs.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from http import HTTPStatus
from typing import ClassVar, NamedTuple

from . import Bytes

MAX_LINES = 100
#: Headers that must not be repeated. They determine where a message ends or whether it is allowed, and two programs
#: could use different copies of a repeated header.
_SINGLE = frozenset({"content-length", "host", "origin", "transfer-encoding", "content-encoding"})
#: The header lines and the blank line after them. A line that two programs could interpret differently is rejected, for
#: example a line with a control character or with a space next to the name.
_HEADERS = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r?\n)*\r?\n").fullmatch


def parse_headers(text: str) -> dict[str, str]:
    """
    Parse header lines and the blank line after them.

    The names become lower case. The values of a repeated header are joined with commas.
    """
    if not _HEADERS(text):
        raise HTTPError(400, "A header line is malformed")
    lines = text.split("\n")
    if len(lines) > MAX_LINES + 2:
        raise HTTPError(431, "There are too many header lines")
    headers: dict[str, str] = {}
    for line in lines[:-2]:  # without the blank line
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
    """Return whether the connection stays open after a message: by default in HTTP/1.1, on request in HTTP/1.0."""
    connection = headers.get("connection")
    if connection is None:
        return version != "HTTP/1.0"
    connection = connection.lower()
    if version == "HTTP/1.0":
        return "keep-alive" in connection
    return "close" not in connection


def content_length(headers: dict[str, str], limit: int) -> int | None:
    """Return the value of ``Content-Length``, or None; raise `HTTPError` if it is invalid or above ``limit``."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HTTPError(400, "Content-Length is not a number")
    if len(text) > 15 or int(text) > limit:
        raise HTTPError(413, f"The body is longer than {limit} bytes")
    return int(text)


class HTTPRequest(NamedTuple):
    """A received request. Header names are in lower case. Do not modify ``headers``, which requests share."""

    method: str
    target: str
    headers: dict[str, str]
    body: Bytes
    keep_alive: bool


class HTTPResponse(NamedTuple):
    """A received response. Header names are in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: Bytes
    keep_alive: bool


class Response(NamedTuple):
    """
    A response to send.

    ``headers`` are sent unchanged, after ``Content-Type`` and ``Content-Length`` and before ``Connection``.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Iterable[tuple[str, str]] = ()

    def encode(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """Return head and body in one piece, because two writes could become two packets. Omit the body for HEAD."""
        head = (
            f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Status')}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
        )
        for name, value in self.headers:
            head += f"{name}: {value}\r\n"
        head += "Connection: keep-alive\r\n\r\n" if keep_alive else "Connection: close\r\n\r\n"
        data = head.encode("latin-1", "replace")
        return data + self.body if with_body else data


REASONS = {int(status): status.phrase for status in HTTPStatus}


class HTTPError(Exception):
    """A request or response violates HTTP or a limit. ``status`` is the HTTP status of the error response."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        #: Method and headers of the request, if they have been parsed.
        self.head: tuple[str, dict[str, str]] | None = None


#: Number of bytes that chunked coding may add to a body, plus eight for each byte of the body.
MAX_CHUNK_OVERHEAD = 64 * 1024
MAX_LINE = 1024
#: Bodies above this size are not copied.
LARGE = 64 * 1024


class BodyDecoder:
    """
    Decodes a body while it arrives.

    The body has a known ``length``, or is chunked, or ends when the connection closes (``until_close``).

    ``limit`` is the maximum number of bytes, before and after decompression.
    """

    def __init__(self, headers: dict[str, str], limit: int, length: int | None, *, until_close: bool = False) -> None:
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise HTTPError(501, "The transfer encoding is not supported")
        if coding is not None and length is not None:
            raise HTTPError(400, "Content-Length and chunked coding exclude each other")
        compression = headers.get("content-encoding", "identity").lower()
        if compression not in ("identity", "gzip", "x-gzip"):
            raise HTTPError(415, "The content encoding is not supported")
        self._compressed = compression != "identity"
        self._limit = limit
        #: The number of missing bytes, if the length is known.
        self.remaining = length or 0
        self._chunked = coding is not None
        self._until_close = until_close and coding is None and length is None
        self._chunk_left = 0
        self._after_chunk = False
        self._in_trailer = False
        self._chunk_overhead = 0
        #: The received data. A list of one-byte chunks would take fifty times their size.
        self.data = bytearray()

    def append_direct(self, data: bytes) -> bool:
        """Append data to the body directly; return False if they may contain more than the body."""
        if self._chunked or len(data) > self.remaining:
            return False
        self.data += data
        self.remaining -= len(data)
        return True

    def feed_from(self, buffer: bytearray) -> bool:
        """Move the bytes of the body out of ``buffer``; return whether the body is complete."""
        if self._chunked:
            return self._feed_chunks(buffer)
        if self._until_close:
            self._transfer(buffer, len(buffer))
            return False
        self.remaining -= self._transfer(buffer, self.remaining)
        return not self.remaining

    def content(self) -> Bytes:
        """Return the body, decompressed."""
        if self._compressed:
            return gunzip_limited(self.data, self._limit)
        return self.data if len(self.data) > LARGE else bytes(self.data)

    def _transfer(self, buffer: bytearray, max_size: int) -> int:
        """Move up to ``max_size`` bytes from ``buffer`` to the body; return the number of moved bytes."""
        size = min(len(buffer), max_size)
        if len(self.data) + size > self._limit:
            raise HTTPError(413, f"The body is longer than {self._limit} bytes")
        if size == len(buffer):
            self.data += buffer
            buffer.clear()
        else:
            self.data += buffer[:size]
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
        if len(self.data) + self._chunk_left > self._limit:
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
        if self._chunk_overhead > MAX_CHUNK_OVERHEAD + 8 * len(self.data):
            raise HTTPError(400, "The chunks have more overhead than content")
        return line.removesuffix(b"\r")


def gunzip_limited(data: Bytes, limit: int) -> bytes:
    """Decompress gzip data to at most ``limit`` bytes; a few kB could expand to gigabytes."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        content = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise HTTPError(400, "The body is not valid gzip") from error
    if len(content) > limit:
        raise HTTPError(413, f"The decompressed body is longer than {limit} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise HTTPError(400, "The body is not one complete gzip file")
    return content


MAX_HEAD = 32 * 1024
MAX_BODY = 64 * 1024 * 1024
#: Maximum number of informational responses (status 100 to 199) before the final one.
MAX_INFORMATIONAL = 10
#: Limits for the number of heads in the cache and for the length of each.
HEAD_CACHE_SIZE = 256
MAX_CACHED_HEAD = 1024


class Head(NamedTuple):
    """The parsed head of a request or response."""

    #: Method and target, or status and reason.
    start: tuple[str, str]
    headers: dict[str, str]
    keep_alive: bool
    length: int | None
    #: Whether the body has a known length, and is neither chunked nor compressed.
    identity_encoded: bool
    #: Whether the client waits for ``100 Continue`` before it sends the body.
    expect_continue: bool


class MessageParser:
    """The common part of the parsers. A message consists of a head and a body."""

    #: Parsed heads. A program sends the same head repeatedly, also on new connections.
    head_cache: ClassVar[dict[tuple[bytes, int], Head]]
    #: Matches the first line without its line end.
    start_line: re.Pattern[str]
    #: Valid first bytes, so that another protocol such as TLS is rejected at once.
    start_bytes: bytes
    message_kind: str
    #: Whether a body without a length ends when the connection closes.
    until_close = False

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self.max_body = max_body
        self._buffer = bytearray()
        self._scanned = 0
        self._start_line_checked = False
        self._head: Head = Head(("", ""), {}, False, None, False, False)
        self._body: BodyDecoder | None = None

    @property
    def pending(self) -> bool:
        """Whether part of a message has arrived."""
        return bool(self._buffer) or self._body is not None

    @property
    def buffered(self) -> int:
        """The number of bytes in memory."""
        return len(self._buffer) + (len(self._body.data) if self._body else 0)

    @property
    def expected(self) -> int:
        """The number of missing bytes of the current body, if its length is known."""
        return self._body.remaining if self._body else 0

    def receive_data(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        if self._body is None or self._buffer or not self._body.append_direct(data):
            self._buffer += data

    def _extract_head(self) -> Head | None:
        """Remove and parse all lines up to the blank line; return None until they have arrived."""
        buffer = self._buffer
        end = self._find_end_of_head()
        if end < 0 or end > MAX_HEAD:
            self._check_start_line()
            if end > MAX_HEAD or len(buffer) > MAX_HEAD:
                raise HTTPError(431, "The header lines are too long")
            self._scanned = max(0, len(buffer) - 2)
            return None
        data = bytes(buffer[:end])
        del buffer[:end]
        self._scanned = 0
        self._start_line_checked = False
        key = data, self.max_body
        head = self.head_cache.get(key)
        if head is None:  # parsing is the most expensive part of a short message
            line, _, lines = data.decode("latin-1").partition("\n")
            head = self._make_head(self._match_start_line(line), parse_headers(lines))
            if len(data) <= MAX_CACHED_HEAD:
                if len(self.head_cache) >= HEAD_CACHE_SIZE:
                    self.head_cache.clear()
                self.head_cache[key] = head
        return head

    def _find_end_of_head(self) -> int:
        """Return the index after the blank line, which ends in LF or CR LF; -1 if it has not arrived."""
        buffer = self._buffer
        start = self._scanned
        crlf = buffer.find(b"\n\r\n", start)
        lf = buffer.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(buffer))
        if lf >= 0:
            return lf + 2
        return crlf + 3 if crlf >= 0 else -1

    def _check_start_line(self) -> None:
        """Reject other protocols at once: a TLS or HTTP/0.9 client would wait forever for a response."""
        buffer = self._buffer
        if self._start_line_checked or not buffer:
            return
        if buffer[0] not in self.start_bytes:
            raise HTTPError(400, f"This is not an HTTP/1 {self.message_kind}")
        end = buffer.find(b"\n", 0, MAX_HEAD)
        if end >= 0:
            self._match_start_line(buffer[:end].decode("latin-1"))
            self._start_line_checked = True

    def _match_start_line(self, line: str) -> tuple[str, ...]:
        match = self.start_line.fullmatch(line.rstrip(" \t\r"))
        if match is None:
            raise HTTPError(400, f"This is not an HTTP/1 {self.message_kind}")
        return match.groups("")

    def _make_head(self, start: tuple[str, ...], headers: dict[str, str]) -> Head:
        raise NotImplementedError

    def _extract_body(self, *, closed: bool = False) -> tuple[Bytes, bool] | None:
        """
        Remove the body of the message whose head was parsed; return the body and whether it is complete.

        Return None until the body has arrived. If the connection was ``closed``, return the data that have arrived.
        """
        body = self._body
        if body is None:
            head = self._head
            size = head.length or 0
            if head.identity_encoded and len(self._buffer) >= size:  # most messages are short and arrive in one piece
                content = bytes(self._buffer[:size])
                del self._buffer[:size]
                return content, True
            body = self._body = BodyDecoder(head.headers, self.max_body, head.length, until_close=self.until_close)
        complete = body.feed_from(self._buffer)
        if not (complete or closed):
            return None
        self._body = None
        return body.content(), complete


def _is_plain(headers: dict[str, str]) -> bool:
    return "transfer-encoding" not in headers and "content-encoding" not in headers


class RequestParser(MessageParser):
    """Parses the requests on a connection. ``max_body`` limits a body before and after decompression."""

    head_cache: ClassVar[dict[tuple[bytes, int], Head]] = {}
    start_line = re.compile(r"([A-Za-z][A-Za-z-]*) ([^\0-\x20\x7f]+) (HTTP/1\.[0-9])")
    start_bytes = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    message_kind = "request"

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(max_body)
        #: Whether the server has to send ``100 Continue``.
        self.send_100_continue = False

    @property
    def head(self) -> tuple[str, dict[str, str]] | None:
        """Method and headers of the request whose body is arriving."""
        return (self._head.start[0], self._head.headers) if self._body is not None else None

    def next_message(self) -> HTTPRequest | None:
        """Return the next complete request, or None. After an `HTTPError` the connection must be closed."""
        if self._body is None:
            if not self._parse_next_head():
                return None
            self.send_100_continue = self._head.expect_continue and not self._buffer
        head = self._head
        try:
            found = self._extract_body()
        except HTTPError as error:
            error.head = head.start[0], head.headers
            raise
        if found is None:
            return None
        self.send_100_continue = False
        return HTTPRequest(*head.start, head.headers, found[0], head.keep_alive)

    def _parse_next_head(self) -> bool:
        buffer = self._buffer
        if buffer and buffer[0] in b"\r\n":  # blank lines before a request are ignored (RFC 9112)
            del buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
        head = self._extract_head() if buffer else None
        if head is not None:
            self._head = head
        return head is not None

    def _make_head(self, start: tuple[str, ...], headers: dict[str, str]) -> Head:
        method, target, version = start
        try:
            length = content_length(headers, self.max_body)
            if length is None and method == "POST" and "transfer-encoding" not in headers:
                raise HTTPError(411, "A POST needs a Content-Length")
        except HTTPError as error:
            error.head = method, headers  # the headers of the response depend on the Origin
            raise
        expects = headers.get("expect", "").lower() == "100-continue" and version != "HTTP/1.0"
        keep_alive = should_keep_alive(version, headers)
        return Head((method, target), headers, keep_alive, length, _is_plain(headers), expects)


class ResponseParser(MessageParser):
    """Parses the responses on a connection. ``max_body`` limits a body before and after decompression."""

    head_cache: ClassVar[dict[tuple[bytes, int], Head]] = {}
    start_line = re.compile(r"(HTTP/1\.[0-9]) +([1-9][0-9][0-9])(?: ([^\0\r]*))?")
    start_bytes = b"H"
    message_kind = "response"
    until_close = True

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(max_body)
        self._informational = 0

    @property
    def pending(self) -> bool:
        """Whether part of a response, or an informational response before it, has arrived."""
        return bool(self._buffer) or self._body is not None or self._informational > 0

    def next_message(self, *, closed: bool = False) -> HTTPResponse | None:
        """
        Return the next complete response, or None.

        If the server has ``closed`` the connection, an incomplete body is accepted: DS9 closes the connection one byte
        early, and the XML parser detects any other missing data.
        """
        if self._body is None and not self._parse_next_head():
            if closed:
                raise HTTPError(400, "The connection was closed without a response")
            return None
        found = self._extract_body(closed=closed)
        if found is None:
            return None
        content, complete = found
        self._informational = 0
        head = self._head
        keep_alive = head.keep_alive and complete and not closed and not self._buffer
        return HTTPResponse(int(head.start[0]), head.start[1], head.headers, content, keep_alive)

    def _parse_next_head(self) -> bool:
        while (head := self._extract_head()) is not None:
            if not head.start[0].startswith("1"):  # otherwise it is informational
                self._head = head
                return True
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise HTTPError(400, "There are too many informational responses")
        return False

    def _make_head(self, start: tuple[str, ...], headers: dict[str, str]) -> Head:
        _, status, reason = start
        length = 0 if status in ("204", "304") else content_length(headers, self.max_body)
        is_until_close = length is None and "transfer-encoding" not in headers
        # Without "keep-alive" the connection is not reused, even in HTTP/1.1: DS9 sends no Connection header and closes
        # the connection after each response, so the next message could be lost.
        keep_alive = "keep-alive" in headers.get("connection", "").lower() and not is_until_close
        is_plain = length is not None and _is_plain(headers)
        return Head((status, reason), headers, keep_alive, length, is_plain, False)
