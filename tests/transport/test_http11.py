# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The HTTP parsers, without sockets: the same bytes give the same messages or errors, however they are split."""

from __future__ import annotations

import gzip
import http.client
import io
import itertools
import time
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyvo.samp.transport.http11 import (
    MAX_CHUNK_OVERHEAD,
    MAX_INFORMATIONAL,
    HTTPError,
    HTTPRequest,
    HTTPResponse,
    RequestParser,
    Response,
    ResponseParser,
)

MiB = 1024 * 1024


def read_all(parser: RequestParser | ResponseParser, pieces: Iterable[bytes]) -> tuple[list[Any], int | None]:
    """Return all messages in some bytes, and the status of the error at the end, or None."""
    found = []
    try:
        for piece in pieces:
            parser.receive_data(piece)
            while (message := parser.next_message()) is not None:
                found.append(message)
    except HTTPError as error:
        return found, error.status
    return found, None


def requests(*pieces: bytes, limit: int = MiB) -> tuple[list[HTTPRequest], int | None]:
    return read_all(RequestParser(limit), pieces)


def one(data: bytes) -> HTTPRequest:
    found, status = requests(data)
    assert status is None
    assert len(found) == 1
    return found[0]


def rejection(data: bytes, limit: int = MiB) -> int | None:
    """Return the status with which the parser rejects these bytes, in one piece and byte by byte."""
    _, status = requests(data, limit=limit)
    assert requests(*split(data, range(1, len(data))), limit=limit)[1] == status
    return status


def split(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """Cut bytes into pieces."""
    ends = [0, *sorted({position % (len(data) + 1) for position in positions}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def chunked(body: bytes, sizes: Iterable[int], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    data = b""
    for part in filter(None, split(body, sizes)):
        data += b"%x%b\r\n%b\r\n" % (len(part), extension, part)
    return data + b"0\r\n" + trailer + b"\r\n"


# Valid requests


def test_a_request():
    request = one(b"POST /RPC2?x HTTP/1.1\r\nHost: localhost:80\r\nX-A:  b \r\nx-a: c\r\nContent-Length: 3\r\n\r\nabc")
    assert request.method == "POST"
    assert request.target == "/RPC2?x"
    assert request.headers == {"host": "localhost:80", "x-a": "b, c", "content-length": "3"}
    assert request.body == b"abc"
    assert request.keep_alive


def test_a_request_of_ds9():
    """DS9 ends lines with a line feed, sends no Host, and speaks HTTP/1.0, which does not keep connections."""
    request = one(b"POST / HTTP/1.0\nUser-Agent: XML-RPC\nContent-Type: text/xml\nContent-Length: 5\n\na\n\r\nb")
    assert request.body == b"a\n\r\nb"
    assert request.headers["content-type"] == "text/xml"
    assert not request.keep_alive


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "Keep-Alive, TE", True),
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive", True),
    ],
)
def test_requests_that_keep_the_connection(version, connection, kept):
    line = f"Connection: {connection}\r\n" if connection else ""
    assert one(f"GET / HTTP/{version}\r\n{line}\r\n".encode()).keep_alive is kept


def test_pipelined_requests():
    data = b"GET /a HTTP/1.1\r\n\r\n\r\n\r\nPOST /b HTTP/1.1\nContent-Length: 2\n\nxy" + b"HEAD /c HTTP/1.0\r\n\r\n"
    found, status = requests(data)
    assert status is None
    assert [(r.method, r.target, r.body) for r in found] == [
        ("GET", "/a", b""),
        ("POST", "/b", b"xy"),
        ("HEAD", "/c", b""),
    ]


def test_requests_with_the_same_head_have_their_own_bodies():
    head = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n"
    found, _ = requests(head + b"a" + head + b"b")
    assert [r.body for r in found] == [b"a", b"b"]


def test_chunks():
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    body = b"hello world"
    for data in (
        chunked(body, [3, 7]),
        chunked(body, [1, 2, 3], b";name=value"),
        chunked(body, [4], b" ", b"X-Sum: 1\r\nX-B: 2\r\n"),
        chunked(body, [4]).replace(b"\r\n", b"\n"),
        b"00b\r\nhello world\r\n000\r\n\r\n",
    ):
        assert one(head + data).body == body
    assert one(head + b"0\r\n\r\n").body == b""


def test_gzip():
    compressed = gzip.compress(b"<methodCall/>" * 1000)
    head = b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
    assert one(head + compressed).body == b"<methodCall/>" * 1000
    head = b"POST / HTTP/1.1\r\nContent-Encoding: x-gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert one(head + chunked(compressed, range(0, 100, 7))).body == b"<methodCall/>" * 1000


def test_expect_100_continue():
    head = b"POST / HTTP/1.%d\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    parser = RequestParser()
    parser.receive_data(head % 1)
    assert parser.next_message() is None
    assert parser.send_100_continue
    parser.receive_data(b"ab")
    assert parser.next_message() is not None
    assert not parser.send_100_continue
    for data in (head % 1 + b"a", head % 0):  # the client does not wait; HTTP/1.0 has no 100 Continue
        parser = RequestParser()
        parser.receive_data(data)
        assert parser.next_message() is None
        assert not parser.send_100_continue


def test_expected_and_buffered_bytes():
    parser = RequestParser()
    assert not parser.pending
    parser.receive_data(b"POST / HTTP/1.1\r\nContent-Le")
    assert parser.next_message() is None
    assert parser.pending
    assert parser.expected == 0
    parser.receive_data(b"ngth: 10\r\n\r\n1234")
    assert parser.next_message() is None
    assert (parser.expected, parser.buffered) == (6, 4)
    parser.receive_data(b"567890G")
    assert parser.next_message() is not None
    assert parser.pending
    assert (parser.expected, parser.buffered) == (0, 1)


# Invalid requests


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n", 400),  # HTTP/0.9: no blank line follows
        (b"GET /\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),  # TLS
        (b"SSH-2.0-x\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET / \x00HTTP/1.1\r\n\r\n", 400),
        (b"GET\t/\tHTTP/1.1\r\n\r\n", 400),
        (b"\0\0\0\0", 400),
        (b"POST / HTTP/1.1\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\n", 415),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nOrigin: a\r\nOrigin: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: no name\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\x85A: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 40000, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 40000 + b"\r\n\r\n", 431),
        (b"GET /" + b"b" * 40000, 431),
        (b"GET /" + b"b" * 40000 + b" nonsense\r\n\r\n", 431),
    ],
)
def test_invalid_requests(data, status):
    assert rejection(data) == status


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("-1", 400),
        ("+1", 400),
        ("1.0", 400),
        ("0x10", 400),
        ("1_0", 400),
        ("", 400),
        ("1, 1", 400),
        ("1 1", 400),
        ("\xb2", 400),
        ("\xa05", 400),
        ("2000000", 413),
        ("9" * 30, 413),
        ("9" * 5000, 413),
        ("1\r\nContent-Length: 1", 400),
        ("1\r\nContent-Length: 2", 400),
    ],
)
def test_invalid_lengths(length, status):
    assert rejection(f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")) == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n", 400),
        (b"x\r\n", 400),
        (b"-1\r\n", 400),
        (b"+1\r\n", 400),
        (b"1_0\r\n", 400),
        (b"0x1\r\n", 400),
        (b" ;x\r\n", 400),
        (b"fffffffffffff\r\n", 400),
        (b"ffffffff\r\n", 413),
        (b"1\r\nab\r\n", 400),
        (b"2\r\nab;\r\n", 400),
        (b"1;" + b"x" * 2000, 400),
        (b"1;" + b"x" * 2000 + b"\r\n", 400),
        (b"0\r\n" + b"x" * 2000, 400),
        (b"0\r\n" + b"a: b\r\n" * (MAX_CHUNK_OVERHEAD // 6 + 1), 400),
        (b"1;aaaaaaaaaaaaaaaaaaaaa\r\na\r\n" * 5000, 400),
        (b"80000\r\n" + b"a" * 0x80000 + b"\r\n80001\r\n", 413),
    ],
)
def test_malformed_chunks(data, status):
    assert rejection(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data) == status


@pytest.mark.parametrize(
    ("compressed", "status"),
    [
        (gzip.compress(bytes(MiB + 1), mtime=0), 413),
        (gzip.compress(bytes(100 * MiB), mtime=0), 413),
        (gzip.compress(b"abc", mtime=0)[:-1], 400),
        (gzip.compress(b"abc", mtime=0) + b"rest", 400),
        (gzip.compress(b"abc", mtime=0) * 2, 400),
        (zlib.compress(b"abc"), 400),
        (b"no gzip", 400),
        (b"", 400),
    ],
)
def test_gzip_bombs_and_invalid_gzip(compressed, status):
    head = b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
    assert requests(head + compressed)[1] == status


def test_a_gzip_bomb_needs_little_memory():
    compressed = gzip.compress(bytes(200 * MiB), mtime=0)
    head = b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(compressed)
    tracemalloc.start()
    try:
        assert requests(head + compressed)[1] == 413
        assert tracemalloc.get_traced_memory()[1] < 8 * MiB
    finally:
        tracemalloc.stop()


def test_small_chunks_need_little_more_memory_than_their_content():
    tracemalloc.start()
    try:
        parser = RequestParser(MiB)
        parser.receive_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            parser.receive_data(b"2\r\nab\r\n" * 1000)
            assert parser.next_message() is None
        assert parser.buffered == 40_000
        assert tracemalloc.get_traced_memory()[0] < 10 * 40_000
    finally:
        tracemalloc.stop()


def test_time_is_proportional_to_the_number_of_bytes():
    """A head, a body, or chunks that arrive byte by byte take no longer than a few seconds."""
    head = b"GET / HTTP/1.1\r\nA: " + b"b" * 30000
    body = b"POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n" + b"b" * 60000
    chunks = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 8000
    blank = b"\r\n" * 30000
    start = time.process_time()
    for data in (head, body, chunks, blank):
        requests(*(data[i : i + 1] for i in range(len(data))))
    requests(chunks + b"2\r\nab\r\n" * 200_000, limit=10 * MiB)
    assert time.process_time() - start < 5


def test_an_error_shows_nothing_of_the_request():
    """R38."""
    for data in (b"secret\r\n", b"POST /secret HTTP/1.1\r\nContent-Length: secret\r\n\r\n"):
        parser = RequestParser()
        parser.receive_data(data)
        with pytest.raises(HTTPError) as caught:
            parser.next_message()
        assert "secret" not in str(caught.value)


# Any split of the same bytes

TOKENS = st.text("abcXYZ-_.", min_size=1, max_size=8)
HEADERS = st.lists(st.tuples(TOKENS.map("x".__add__), st.text("abc ,;=/\xe9", max_size=10)), max_size=4)
BODIES = st.binary(max_size=200)
ENDS = st.sampled_from(["\r\n", "\n"])


@st.composite
def good_requests(draw: st.DrawFn) -> tuple[bytes, tuple[str, str, bytes]]:
    """Draw the bytes of a request, with its method, target and body."""
    method = draw(st.sampled_from(["GET", "POST", "OPTIONS", "HEAD"]))
    target = "/" + draw(st.text("ab?/%&=:é", max_size=10))
    end = draw(ENDS)
    lines = [f"{method} {target} HTTP/1.{draw(st.integers(0, 1))}"]
    lines += [f"{name}:{value}" for name, value in draw(HEADERS)]
    body = draw(BODIES)
    data = gzip.compress(body, mtime=0) if draw(st.booleans()) else body
    if data is not body:
        lines.append("Content-Encoding: gzip")
    if draw(st.booleans()):
        lines.append("Transfer-Encoding: chunked")
        data = chunked(data, draw(st.lists(st.integers(0, 300), max_size=5)))
    else:
        lines.append(f"content-length: {len(data)}")
    blank = draw(st.sampled_from(["", "\r\n", "\n\n"]))
    return (blank + end.join([*lines, "", ""])).encode("latin-1") + data, (method, target, body)


POSITIONS = st.lists(st.integers(0, 5000), max_size=30)


@settings(deadline=None)
@given(st.lists(good_requests(), max_size=4), POSITIONS)
def test_any_split_of_good_bytes_gives_the_same_requests(parts, positions):
    data = b"".join(part for part, _ in parts)
    found, status = requests(*split(data, positions))
    assert status is None
    assert [(r.method, r.target, r.body) for r in found] == [expected for _, expected in parts]


@st.composite
def bad_bytes(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """Draw messages with random changes."""
    data = bytearray(draw(good))
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(data)))
        patch = draw(
            st.sampled_from([b"", b"\n", b"\r", b"\r\n\r\n", b"\0", b":", b" ", b"0", b"-1", b"\xff"]) | BODIES
        )
        data[position : position + draw(st.integers(0, 8))] = patch
    return bytes(data)


GOOD_BYTES = st.lists(good_requests(), min_size=1, max_size=3).map(lambda parts: b"".join(data for data, _ in parts))


@settings(max_examples=200, deadline=None)
@given(bad_bytes(GOOD_BYTES) | st.binary(max_size=300), POSITIONS)
@example(b"\r\n" * 100 + b"GET / HTTP/1.1\r\n\r\n", [1, 2, 3, 100])
@example(b"GET / HTTP/1.1\n\r\n", [14, 15, 16, 17])
@example(b"GET / HTTP/1.1\n\n\r\nGET / HTTP/1.1\n\n", [15, 16])
def test_any_split_of_bad_bytes_gives_the_same_requests_and_error(data, positions):
    """The parser raises no exception other than `HTTPError`."""
    whole = requests(data)
    assert requests(*split(data, positions)) == whole
    assert requests(*split(data, range(len(data)))) == whole


@settings(deadline=None)
@given(HEADERS, ENDS)
def test_headers_are_read_as_by_the_standard_library(headers, end):
    """The slow parser of the standard library is the reference."""
    lines = end.join([f"{name}:{value}" for name, value in headers] + ["", ""]).encode("latin-1")
    expected = http.client.parse_headers(io.BytesIO(lines))
    found = one(b"GET / HTTP/1.1\r\n" + lines).headers
    assert set(found) == {name.lower() for name in expected}
    for name, value in found.items():
        assert value == ", ".join(value.strip(" ") for value in expected.get_all(name, []))


# Responses


def responses(*pieces: bytes, closed: bool = False, limit: int = MiB) -> tuple[list[HTTPResponse], int | None]:
    parser = ResponseParser(limit)
    found, status = read_all(parser, pieces)
    if closed and status is None:
        try:
            while (response := parser.next_message(closed=True)) is not None:
                found.append(response)
        except HTTPError as error:
            status = error.status
    return found, status


def test_a_response():
    found, status = responses(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc")
    assert status is None
    assert found == [HTTPResponse(200, "OK", {"connection": "keep-alive", "content-length": "3"}, b"abc", True)]


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False),  # DS9 and others close, but do not say so
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 204\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\nrubbish", False),
    ],
)
def test_responses_that_keep_the_connection(data, kept):
    parser = ResponseParser()
    parser.receive_data(data)
    response = parser.next_message()
    assert response is not None
    assert response.keep_alive is kept


def test_a_response_that_ends_with_the_connection():
    found, _status = responses(b"HTTP/1.0 200 OK\n\nab", b"c", closed=True)
    assert (found[0].body, found[0].keep_alive) == (b"abc", False)


def test_a_response_of_ds9_that_is_one_byte_short():
    found, _ = responses(b"HTTP/1.1 200 OK\nContent-Length: 4\n\nabc", closed=True)
    assert (found[0].body, found[0].keep_alive) == (b"abc", False)


def test_informational_responses():
    found, _ = responses(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 X\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    assert [a.status for a in found] == [200]
    assert responses(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)[1] == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"HTTP/1.1 200 OK\r\n", 400),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 400),
        (b"<html>", 400),
        (b"\x15\x03\x01", 400),
        (b"HTTP/1.1 xyz\r\n\r\n", 400),
        (b"HTTP/1.1 099 x\r\n\r\n", 400),
        (b"HTTP/1.1 2000 x\r\n\r\n", 400),
        (b"HTTP/2 200\r\n\r\n", 400),
        (b"HTTP/1.1 \xb2\xb2\xb2 x\r\n\r\n", 400),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 400),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n", 413),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MiB + 1), 413),
        (b"HTTP/1.1 200 OK\r\nA: " + bytes(40000), 431),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"abc", mtime=0)[:-3], 400),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2 * MiB), mtime=0), 413),
    ],
)
def test_invalid_responses(data, status):
    assert responses(data, closed=True) == ([], status)


@st.composite
def good_responses(draw: st.DrawFn) -> tuple[bytes, tuple[int, bytes]]:
    status = draw(st.sampled_from([200, 302, 404, 500]))
    end = draw(ENDS)
    lines = [f"HTTP/1.{draw(st.integers(0, 1))} {status} {draw(st.sampled_from(['OK', 'Not Found', '']))}"]
    lines += [f"{name}: {value}" for name, value in draw(HEADERS)]
    body = draw(BODIES)
    data = body
    if draw(st.booleans()):
        lines.append("Transfer-Encoding: chunked")
        data = chunked(data, draw(st.lists(st.integers(0, 300), max_size=5)))
    else:
        lines.append(f"Content-Length: {len(data)}")
    return end.join([*lines, "", ""]).encode("latin-1") + data, (status, body)


@settings(deadline=None)
@given(st.lists(good_responses(), max_size=3), POSITIONS)
def test_any_split_of_good_bytes_gives_the_same_responses(parts, positions):
    found, status = responses(*split(b"".join(data for data, _ in parts), positions))
    assert status is None
    assert [(a.status, a.body) for a in found] == [expected for _, expected in parts]


@settings(deadline=None)
@given(good_responses())
def test_the_standard_library_reads_the_same_responses(response):
    data, expected = response

    class Socket:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(data)

    response = http.client.HTTPResponse(Socket())  # type: ignore[arg-type]
    response.begin()
    assert (response.status, response.read()) == expected
    response.close()


GOOD_RESPONSES = st.lists(good_responses(), min_size=1, max_size=3).map(
    lambda parts: b"".join(data for data, _ in parts)
)


@settings(max_examples=200, deadline=None)
@given(bad_bytes(GOOD_RESPONSES) | st.binary(max_size=300), POSITIONS)
def test_any_split_of_bad_bytes_gives_the_same_responses_and_error(data, positions):
    """`keep_alive` may differ, because it depends on the bytes that have arrived after the response."""

    def outcome(*pieces: bytes) -> tuple[list[HTTPResponse], int | None]:
        found, status = responses(*pieces, closed=True)
        return [response._replace(keep_alive=False) for response in found], status

    whole = outcome(data)
    assert outcome(*split(data, positions)) == whole
    assert outcome(*split(data, range(len(data)))) == whole


# Between messages, and writing


def test_a_response_is_pending_after_an_informational_one():
    """Between an informational response and the response itself, a part of a message has arrived."""
    parser = ResponseParser()
    for _ in range(2 * MAX_INFORMATIONAL):
        assert not parser.pending
        parser.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert parser.next_message() is None
        assert parser.pending
        parser.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert parser.next_message() is not None


def test_a_written_response_is_read_back():
    response = Response(200, b"body", "text/xml", [("X-A", "b"), ("X-C", "d\xe9")])
    data = response.encode(keep_alive=True)
    (received,) = responses(data)[0]
    assert received == HTTPResponse(
        200,
        "OK",
        {"content-type": "text/xml", "content-length": "4", "x-a": "b", "x-c": "d\xe9", "connection": "keep-alive"},
        b"body",
        True,
    )
    assert b"close" in response.encode(keep_alive=False)
    assert response.encode(keep_alive=True, with_body=False) == data[:-4]
    assert Response(299).encode(keep_alive=True).startswith(b"HTTP/1.1 299 Status\r\n")
