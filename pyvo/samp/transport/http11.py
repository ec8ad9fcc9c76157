# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
HTTP/1.x without sockets: bytes go in, requests or responses come out.

A server uses `RequestParser`, a client `ResponseParser`. Both receive bytes as they arrive, and return complete
messages. Both enforce limits, because the bytes may come from any program.

The parsers accept what deployed programs send: DS9 ends its header lines with a bare line feed, sends no ``Host``
header, and closes the connection one byte before the announced length of its faults. JSAMP closes the connection after
each response.

The headers are not parsed with the standard library: it uses its e-mail parser, which would take most of the time of a
message.
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
#: Headers that must not be repeated. They decide where a message ends or who may send it, and two programs could use
#: different ones.
_SINGLE = frozenset({"content-length", "host", "origin", "transfer-encoding", "content-encoding"})
#: The header lines and the blank line after them. A line that two programs could understand differently is refused,
#: such as one with a control character, or with a space next to the name.
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
    """Whether the connection stays open after a message: by default in HTTP/1.1, on request in HTTP/1.0."""
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
    """A request that was received. Header names are in lower case. Requests share ``headers``: do not modify it."""

    method: str
    target: str
    headers: dict[str, str]
    body: Bytes
    keep_alive: bool


class HTTPResponse(NamedTuple):
    """A response that was received. Header names are in lower case."""

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
        """Return head and body in one piece, since two writes could become two packets; no body in reply to HEAD."""
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
    """A request or response violates HTTP or a limit; ``status`` is the HTTP status to report that with."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        #: Method and headers of the request, if they have been parsed.
        self.head: tuple[str, dict[str, str]] | None = None


#: Bytes that chunked coding may add to a body, in addition to eight for each byte of the body.
MAX_CHUNK_OVERHEAD = 64 * 1024
MAX_LINE = 1024
#: Bodies above this size are not copied.
LARGE = 64 * 1024


class BodyDecoder:
    """
    Decodes a body while it arrives: of known ``length``, in chunks, or until the connection closes (``until_close``).

    ``limit`` is the maximum number of bytes, before and after decompression.
    """

    def __init__(self, headers: dict[str, str], limit: int, length: int | None, *, until_close: bool = False) -> None:
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise HTTPError(501, "The transfer encoding is not supported")
        if coding is not None and length is not None:
            raise HTTPError(400, "Both a length and chunks are announced")
        compression = headers.get("content-encoding", "identity").lower()
        if compression not in ("identity", "gzip", "x-gzip"):
            raise HTTPError(415, "The content encoding is not supported")
        self._compressed = compression != "identity"
        self._limit = limit
        self._remaining = length or 0
        self._chunked = coding is not None
        self._until_close = until_close and coding is None and length is None
        self._chunk_left = 0
        self._after_chunk = False
        self._in_trailer = False
        self._chunk_overhead = 0
        self._data = bytearray()  # a list of chunks of one byte would take fifty times their size

    @property
    def size(self) -> int:
        """The number of bytes that have arrived."""
        return len(self._data)

    @property
    def expected(self) -> int:
        """The number of bytes that are missing, as far as that is known."""
        return self._remaining

    def append_direct(self, data: bytes) -> bool:
        """Append data without a buffer in between; return False if it may contain more than the body."""
        if self._chunked or len(data) > self._remaining:
            return False
        self._data += data
        self._remaining -= len(data)
        return True

    def feed_from(self, buffer: bytearray) -> bool:
        """Move the bytes of the body out of ``buffer``; return True when the body is complete."""
        if self._chunked:
            return self._feed_chunks(buffer)
        if self._until_close:
            self._transfer(buffer, len(buffer))
            return False
        self._remaining -= self._transfer(buffer, self._remaining)
        return not self._remaining

    def content(self) -> Bytes:
        """Return the body, decompressed."""
        if self._compressed:
            return gunzip_limited(self._data, self._limit)
        return self._data if len(self._data) > LARGE else bytes(self._data)

    def _transfer(self, buffer: bytearray, most: int) -> int:
        """Move up to ``most`` bytes from ``buffer`` to the body; return their number."""
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
            raise HTTPError(400, "The chunks have more overhead than content")
        return line.removesuffix(b"\r")


def gunzip_limited(data: Bytes, limit: int) -> bytes:
    """Decompress gzip data to at most ``limit`` bytes (a few kB can become gigabytes)."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise HTTPError(400, "The body is not valid gzip") from error
    if len(plain) > limit:
        raise HTTPError(413, f"The decompressed body is longer than {limit} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise HTTPError(400, "The body is not one complete gzip file")
    return plain


MAX_HEAD = 32 * 1024
MAX_BODY = 64 * 1024 * 1024
#: How many informational responses (status 100 to 199) may come before the final one.
MAX_INFORMATIONAL = 10
#: The number of heads in the cache, and the length that one may have.
HEAD_CACHE_SIZE = 256
MAX_CACHED_HEAD = 1024

H = TypeVar("H")


class MessageParser:
    """The common part of the parsers: a head of lines, then a body."""

    #: Parsed heads. A program sends the same head again and again, on new connections too.
    head_cache: ClassVar[dict[tuple[bytes, int], Any]] = {}
    #: Matches the first line, without the line end.
    start_line: re.Pattern[str]
    #: The values of the first byte, so that another protocol such as TLS is refused at once.
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
        """The number of bytes in memory."""
        return len(self._buffer) + (self._body.size if self._body else 0)

    @property
    def expected(self) -> int:
        """The number of bytes that the present body still misses, as far as that is known."""
        return self._body.expected if self._body else 0

    def receive_data(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        if self._body is None or self._buffer or not self._body.append_direct(data):
            self._buffer += data

    def _extract_head(self) -> bytes | None:
        """Return all lines up to the blank one, or None until they have arrived."""
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
        """Parse a head, or take it from the cache: parsing is the most expensive part of a short message."""
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
        """Return the index after the blank line, which ends in LF or CR LF; -1 if it has not arrived."""
        buffer = self._buffer
        start = self._scanned
        crlf = buffer.find(b"\n\r\n", start)
        lf = buffer.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(buffer))
        if lf >= 0:
            return lf + 2
        return crlf + 3 if crlf >= 0 else -1

    def _check_start_line(self) -> None:
        """Refuse another protocol at once: a TLS or HTTP/0.9 client would wait forever for a response."""
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
    """The parsed head of a request."""

    method: str
    target: str
    headers: dict[str, str]
    keep_alive: bool
    length: int | None
    identity_encoded: bool
    """Whether the body is neither chunked nor compressed."""
    expect_continue: bool
    """Whether the client waits for ``100 Continue`` before it sends the body."""


class RequestParser(MessageParser):
    """Parses the requests on one connection; ``max_body`` limits a body before and after decompression."""

    head_cache: ClassVar[dict[tuple[bytes, int], Any]] = {}
    start_line = re.compile(r"([A-Za-z][A-Za-z-]*) ([^\0-\x20\x7f]+) (HTTP/1\.[0-9])")
    start_bytes = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    message_kind = "request"

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(max_body)
        self._head = _RequestHead("", "", {}, False, None, False, False)
        #: Whether the server has to send ``100 Continue``.
        self.send_100_continue = False

    def next_message(self) -> HTTPRequest | None:
        """Return the next complete request, or None. After an `HTTPError` the connection must be closed."""
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
        if buffer and buffer[0] in b"\r\n":  # blank lines before a request are ignored (RFC 9112)
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
        is_identity = "transfer-encoding" not in headers and "content-encoding" not in headers
        try:
            length = content_length(headers, self.max_body)
            if length is None and method == "POST" and "transfer-encoding" not in headers:
                raise HTTPError(411, "A POST needs a Content-Length")
        except HTTPError as error:
            error.head = method, headers  # the headers of the response depend on the Origin
            raise
        expects = headers.get("expect", "").lower() == "100-continue" and version != "HTTP/1.0"
        return _RequestHead(method, target, headers, should_keep_alive(version, headers), length, is_identity, expects)


class _ResponseHead(NamedTuple):
    """The parsed head of a response."""

    status: int
    reason: str
    headers: dict[str, str]
    keep_alive: bool
    length: int | None
    identity_encoded: bool
    """Whether the body has a known length and is neither chunked nor compressed."""


class ResponseParser(MessageParser):
    """Parses the responses on one connection; ``max_body`` limits a body before and after decompression."""

    head_cache: ClassVar[dict[tuple[bytes, int], Any]] = {}
    start_line = re.compile(r"(HTTP/1\.[0-9]) +([1-9][0-9][0-9])(?: ([^\0\r]*))?")
    start_bytes = b"H"
    message_kind = "response"

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
        Return the next complete response, or None.

        If the server has ``closed`` the connection, the body is what has arrived of it: DS9 closes the connection one
        byte early, and the XML parser notices if something else is missing.
        """
        body = self._body
        if body is None:
            if not self._parse_next_head():
                if closed:
                    raise HTTPError(400, "The connection was closed without a response")
                return None
            head = self._head
            size = head.length or 0
            if head.identity_encoded and len(self._buffer) >= size:  # most responses are short and come in one piece
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
            if head.status >= 200:  # else informational
                self._head = head
                return True
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise HTTPError(400, "There are too many informational responses")

    def _parse(self, data: bytes) -> _ResponseHead:
        line, _, lines = data.decode("latin-1").partition("\n")
        _, digits, reason = self._match_start_line(line).groups()
        headers = parse_headers(lines)
        status = int(digits)
        length = 0 if status in (204, 304) else content_length(headers, self.max_body)
        is_identity = length is not None and "transfer-encoding" not in headers and "content-encoding" not in headers
        # Without "keep-alive" the connection is not used again, even in HTTP/1.1: DS9 sends no Connection header and
        # closes the connection after each response, so the next message could be lost.
        keep_alive = "keep-alive" in headers.get("connection", "").lower()
        if length is None and "transfer-encoding" not in headers:
            keep_alive = False
        return _ResponseHead(status, reason or "", headers, keep_alive, length, is_identity)
