# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`AsyncXMLRPCClient`: each call ends once, with its result or error, and its request is sent at most once."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyvo.samp.errors import SAMPError, SAMPProxyError, SAMPTransportError
from pyvo.samp.transport import async_xmlrpc_client
from pyvo.samp.transport.async_xmlrpc_client import AsyncXMLRPCClient
from pyvo.samp.transport.event_loop import EventLoop
from pyvo.samp.transport.xmlrpc_writer import write_call, write_fault, write_response

from .peers import (
    OK,
    TIMEOUT,
    TOO_LONG,
    FakeServer,
    end_output,
    eventually,
    http_response,
    in_loop,
    kept,
    read,
    read_part,
    reset,
    reset_connection,
    responding,
    silent,
    steps,
    wait_for_end,
)

MiB = 1024 * 1024
BODY = write_call("echo", ["a"])


class Sender:
    """An `AsyncXMLRPCClient` that is used from a test's thread."""

    def __init__(self, loop: EventLoop, url: str) -> None:
        self.loop = loop
        self.closed = threading.Event()
        self.threads: set[str] = set()
        self.results: list[SAMPError | None] = []
        self.client = AsyncXMLRPCClient(loop, url, "The client", self.closed.set)

    def start_send(self, *parts: bytes, timeout: float = TIMEOUT) -> threading.Event:
        done = threading.Event()

        def on_done(error: SAMPError | None) -> None:
            self.threads.add(threading.current_thread().name)
            self.results.append(error)
            assert not self.client.busy
            done.set()

        def start() -> None:
            self.client.send(parts or (BODY,), on_done, timeout)
            assert not done.is_set()  # the callback is never called before send() has returned

        in_loop(self.loop, start)
        return done

    def send(self, *parts: bytes, timeout: float = TIMEOUT) -> SAMPError | None:
        assert self.start_send(*parts, timeout=timeout).wait(TIMEOUT)
        in_loop(self.loop, int)
        return self.results[-1]

    def close(self) -> None:
        in_loop(self.loop, self.client.close)


@pytest.fixture
def sender(loop: EventLoop) -> Iterator[Callable[..., Sender]]:
    senders = []

    def make(url: str) -> Sender:
        senders.append(Sender(loop, url))
        return senders[-1]

    yield make
    for one in senders:
        one.close()
        assert one.threads <= {"test-loop"}
        assert not one.client.connected


def error_of(sender: Callable[..., Sender], *behaviours: Any, requests: int = 1, **options: Any) -> SAMPTransportError:
    """Return the error of one call, whose request must have arrived once."""
    with FakeServer(*behaviours) as server:
        error = sender(server.url).send(**options)
        assert isinstance(error, SAMPTransportError)
        assert len(server.requests) == requests
    return error


# Calls that succeed


def test_calls_share_one_connection(sender):
    with FakeServer(kept()) as server:
        one = sender(server.url)
        for _ in range(10):
            assert one.send() is None
            assert one.client.connected
        assert (server.connections, len(server.requests)) == (1, 10)


def test_calls_to_our_own_server(sender, server, operations):
    one = sender(f"http://127.0.0.1:{server.port}/")
    for number in range(5):
        assert one.send(write_call("echo", [str(number)])) is None
    assert operations.calls == list("01234")
    assert isinstance(one.send(write_call("nothing", [])), SAMPProxyError)
    assert server.connections == 1


@pytest.mark.parametrize("sizes", [(10, 20), (0, 10, 0), (20_000, 1), (1, 4 * MiB, 3), (16 * MiB,), (100_000,) * 100])
def test_a_body_in_several_parts(sender, sizes):
    parts = [bytes([65 + number % 26]) * size for number, size in enumerate(sizes)]
    with FakeServer(kept()) as server:
        assert sender(server.url).send(*parts) is None
        assert server.requests == [b"".join(parts)]


def test_the_callback_of_a_call_may_send_the_next_call(sender, loop):
    """A thousand calls, each sent by the callback of the one before, cause no recursion."""
    with FakeServer(kept()) as server:
        one = sender(server.url)
        finished = threading.Event()
        left = [1000]

        def send_next(error: SAMPError | None) -> None:
            left[0] -= 1
            if error is not None or not left[0]:
                finished.set()
            else:
                one.client.send([BODY], send_next, TIMEOUT)

        loop.call_soon(one.client.send, [BODY], send_next, TIMEOUT)
        assert finished.wait(TIMEOUT)
        assert left == [0]
        assert len(server.requests) == 1000


def test_the_callback_of_a_failed_call_may_send_the_next_call(sender, loop):
    """The system refuses each connection at once, and the calls cause no recursion."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    one = sender(f"http://127.0.0.1:{port}/")
    finished = threading.Event()
    left = [3000]

    def send_next(error: SAMPError | None) -> None:
        assert isinstance(error, SAMPTransportError)
        left[0] -= 1
        if left[0]:
            one.client.send([BODY], send_next, TIMEOUT)
        else:
            finished.set()

    loop.call_soon(one.client.send, [BODY], send_next, TIMEOUT)
    assert finished.wait(TIMEOUT)


def test_a_server_that_closes_after_each_response(sender):
    """The servers of JSAMP and DS9 do this."""
    with FakeServer(responding(OK.replace(b"Connection: keep-alive\r\n", b""))) as server:
        one = sender(server.url)
        for _ in range(5):
            assert one.send() is None
            assert not one.client.connected
        assert not one.closed.is_set()
        assert server.connections == len(server.requests) == 5


def test_responses_of_ds9(sender):
    """The lines of DS9's responses end in a line feed, and a fault is one byte shorter than its Content-Length."""
    good = http_response(write_response("")).replace(b"Connection: keep-alive\r\n", b"").replace(b"\r\n", b"\n")
    body = write_fault(3, "no")
    with FakeServer(responding(good), responding(http_response(body, length=len(body) + 1))) as server:
        one = sender(server.url)
        assert one.send() is None
        error = one.send()
        assert isinstance(error, SAMPProxyError)
        assert (error.faultCode, error.faultString) == (3, "no")


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\n\r\n" + write_response("a"),
        http_response(b"<?xml version='1.0'?><methodResponse><params/></methodResponse>"),
        http_response(b"<methodResponse><params><param><value><nil/></value></param></params></methodResponse>"),
    ],
)
def test_acknowledgements_of_all_kinds(sender, response):
    """The client ignores the value in an acknowledgement (R30)."""
    with FakeServer(responding(response)) as server:
        assert sender(server.url).send() is None
        assert len(server.requests) == 1


def test_a_known_acknowledgement_is_recognised(sender):
    """A different response after it, on the same connection, is still parsed."""
    fault = http_response(write_fault(3, "no"))
    responses = [OK, OK, fault, OK, fault, b"HTTP/1.1 100 Continue\r\n\r\n" + OK, OK]
    with FakeServer(steps(*[part for response in responses for part in (read, response)], wait_for_end)) as server:
        one = sender(server.url)
        results = [one.send() for _ in responses]
        assert OK in async_xmlrpc_client._known_responses
        assert [isinstance(error, SAMPProxyError) for error in results] == [response is fault for response in responses]
        assert [error for error in results if not isinstance(error, SAMPProxyError)] == [None] * 5
        assert server.connections == 1


def test_a_part_of_a_response_that_looks_like_an_acknowledgement(sender, loop):
    """A response that arrives in pieces does not end with a piece that looks like a whole response."""
    next_piece = threading.Event()
    body = OK + write_fault(3, "no")

    def behave(server: FakeServer, sock: socket.socket) -> None:
        server.read(sock)
        sock.sendall(OK)
        server.read(sock)
        for piece in (http_response(b"", length=len(body)), OK, body[len(OK) :]):
            sock.sendall(piece)
            next_piece.wait(TIMEOUT)
            next_piece.clear()
        server.over.wait(TIMEOUT)

    with FakeServer(behave) as server:
        one = sender(server.url)
        assert one.send() is None
        done = one.start_send()
        for expected in (False, True):  # the head, then a piece that looks like a response
            eventually(loop, lambda expected=expected: bool(one.client._reader.buffered) is expected
                       and one.client._reader.pending)
            assert not done.is_set()
            next_piece.set()
        assert done.wait(TIMEOUT)
        assert isinstance(one.results[-1], SAMPTransportError)  # "...</methodResponse><methodResponse>..." is not XML
        next_piece.set()


def test_the_client_remembers_only_a_few_short_acknowledgements(sender, monkeypatch):
    """A program whose responses all differ does not fill the memory."""
    monkeypatch.setattr(async_xmlrpc_client, "MAX_KNOWN_RESPONSES", 4)
    known: set[bytes] = set()
    monkeypatch.setattr(async_xmlrpc_client, "_known_responses", known)
    responses = [http_response(write_response("yes"), f"X-Serial: {number}") for number in range(10)]
    responses.append(http_response(write_response("a" * async_xmlrpc_client.MAX_KNOWN_SIZE)))
    responses.append(OK.replace(b"keep-alive", b"close"))
    with FakeServer(steps(*[part for response in responses for part in (read, response)], wait_for_end)) as server:
        one = sender(server.url)
        for response in responses:
            assert one.send() is None
            assert len(known) <= 4
            assert (response in known) is (response in responses[:10])
        assert not one.client.connected


# Errors


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (b"", "closed without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed without a response"),
        (http_response(b"x", status="500 Internal Server Error"), "HTTP status 500 Internal Server Error"),
        (http_response(b"", "Location: http://127.0.0.1:1/", status="302 Found"), "HTTP status 302"),
        (http_response(b"<html><body>Hello</body></html>"), "is not XML-RPC"),
        (http_response(b""), "is not XML-RPC"),
        (http_response(b"<methodResponse><fault>"), "is not XML-RPC"),
        (http_response(write_response("a"), length=-5), "not a number"),
        (http_response(write_response("a"), length=200_000_000), "longer than"),
        (http_response(write_response("a"), "Content-Length: 7"), "two content-length"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2 * MiB), "longer than"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "too many informational"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000, "too long"),
        (b"\x15\x03\x03\x00\x02\x02P", "not an HTTP/1 response"),
    ],
)
def test_bad_responses(sender, response, text):
    """The request was sent once, and the error says so."""
    error = error_of(sender, responding(response))
    assert text in str(error)
    assert error.sent
    assert str(error).startswith("The client ")


def test_a_server_that_resets_the_connection(sender):
    error = error_of(sender, steps(read, reset_connection))
    assert "has closed the connection" in str(error)
    assert error.sent


def test_a_server_that_never_responds(sender, loop):
    threads = threading.active_count()
    with FakeServer(silent) as server:
        one = sender(server.url)
        held = threading.active_count()
        error = one.send(timeout=0.05)
        assert "did not acknowledge the message in time" in str(error)
        assert isinstance(error, SAMPTransportError)
        assert error.sent
        assert not one.client.connected
        assert held == threads + 1  # the fake server's own
        assert len(server.requests) == 1


def test_each_call_has_its_own_timeout(sender, loop):
    """Calls on a connection share a timer: it does not shorten a later call, and a shorter timeout still holds."""
    go = threading.Event()
    with FakeServer(steps(read, OK, read, go, OK, read, wait_for_end)) as server:
        one = sender(server.url)
        assert one.send(timeout=0.5) is None
        first = one.client._timer
        assert first is not None
        done = one.start_send(timeout=TIMEOUT)
        assert one.client._timer is first
        eventually(loop, lambda: one.client._timer not in (None, first))  # it expired, and was set again
        assert not done.is_set()
        go.set()
        assert done.wait(TIMEOUT)
        assert one.results == [None, None]
        started = time.monotonic()
        error = one.send(timeout=0.05)
        assert "in time" in str(error)
        assert time.monotonic() - started < TIMEOUT / 2
        assert server.connections == 1


def test_a_connection_has_one_timer_which_close_cancels(sender, loop):
    """The calls of a connection share one timer, which is cancelled when the connection is closed."""
    with FakeServer(kept()) as server:
        one = sender(server.url)
        timers = set()
        for _ in range(10):
            assert one.send() is None
            timers.add(one.client._timer)
        (timer,) = timers
        assert timer.active
        in_loop(loop, one.client.close)
        assert not timer.active


def test_a_port_that_accepts_nothing(sender):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(20):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        error = sender(f"http://127.0.0.1:{listener.getsockname()[1]}/").send(timeout=0.1)
        assert isinstance(error, SAMPTransportError)
        assert not error.sent
        for filler in fillers:
            filler.close()


def test_a_server_that_does_not_read(sender):
    error = error_of(lambda url: Large(sender(url)), wait_for_end, requests=0, timeout=0.1)
    assert "in time" in str(error)
    assert error.sent


class Large:
    """Sends a request that is too large for the buffers of the socket."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender

    def send(self, **options: Any) -> SAMPError | None:
        return self.sender.send(bytes(16 * MiB), bytes(16 * MiB), **options)


def test_a_server_that_rejects_a_long_request_before_it_has_read_it(sender):
    for behaviour in (steps(read_part, TOO_LONG, wait_for_end), steps(read_part, TOO_LONG, end_output, read_part)):
        error = error_of(lambda url: Large(sender(url)), behaviour, requests=0)
        assert "HTTP status 413" in str(error)
        assert error.sent


def test_no_server_listens(sender):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    error = sender(f"http://127.0.0.1:{port}/").send()
    assert isinstance(error, SAMPTransportError)
    assert "cannot be reached: Connection refused" in str(error)
    assert (error.sent, error.refused) == (False, True)


def test_a_connection_to_itself_counts_as_refused(sender, monkeypatch):
    monkeypatch.setattr(async_xmlrpc_client, "is_self_connected", lambda _sock: True)
    with FakeServer(kept()) as server:
        error = sender(server.url).send()
        assert isinstance(error, SAMPTransportError)
        assert (error.sent, error.refused) == (False, True)
        assert not server.requests


def test_no_descriptor_is_free(sender, monkeypatch):
    one = sender("http://127.0.0.1:1/")

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(async_xmlrpc_client.socket, "socket", fail)
        error = one.send()
    assert isinstance(error, SAMPTransportError)
    assert "Too many open files" in str(error)
    assert (error.sent, error.refused) == (False, False)


@pytest.mark.parametrize("url", ["", "https://127.0.0.1/", "http://127.0.0.1:x/"])
def test_invalid_urls(loop, url):
    with pytest.raises(SAMPTransportError):
        AsyncXMLRPCClient(loop, url, "The client")


def test_a_worker_resolves_a_host_name(sender, loop, monkeypatch):
    """The loop continues while the worker waits for the name server."""
    started_resolving, gate = threading.Event(), threading.Event()
    with FakeServer(kept()) as server:

        def resolve(host: str, port: int, **_: object) -> list[Any]:
            started_resolving.set()
            assert not loop.in_loop()
            assert gate.wait(TIMEOUT)
            if host == "none.invalid":
                raise socket.gaierror(-2, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        one = sender(f"http://some.invalid:{server.port}/")
        done = one.start_send()
        assert started_resolving.wait(TIMEOUT)
        in_loop(loop, int)
        gate.set()
        assert done.wait(TIMEOUT)
        assert one.results == [None]
        assert one.send() is None
        assert server.connections == 1
        error = sender("http://none.invalid:1/").send()
        assert isinstance(error, SAMPTransportError)
        assert not error.sent


def test_a_host_name_that_is_resolved_after_the_timeout(sender, loop, monkeypatch):
    gate = threading.Event()
    with FakeServer(kept()) as server:

        def resolve(_host: str, port: int, **_: object) -> list[Any]:
            gate.wait(TIMEOUT)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        one = sender(f"http://some.invalid:{server.port}/")
        assert isinstance(one.send(timeout=0.02), SAMPTransportError)
        gate.set()
        eventually(loop, lambda: loop.workers._idle == 1)
        assert not server.requests
        assert not one.client.connected


# The idle connection


@pytest.mark.parametrize("how", [lambda sock: sock.close(), reset, lambda sock: sock.sendall(b"rubbish")])
def test_the_end_of_an_idle_connection_is_reported(sender, loop, how, caplog):
    """The hub detects a crashed client in this way. The next call opens another connection."""
    go = threading.Event()

    def once(server: FakeServer, sock: socket.socket) -> None:
        server.read(sock)
        sock.sendall(OK)
        go.wait(TIMEOUT)
        how(sock)
        server.over.wait(TIMEOUT) if sock.fileno() >= 0 else None

    caplog.set_level(logging.ERROR)
    with FakeServer(once, kept()) as server:
        one = sender(server.url)
        assert one.send() is None
        assert not one.closed.is_set()
        go.set()
        assert one.closed.wait(TIMEOUT)
        in_loop(loop, int)
        assert not one.client.connected
        assert one.send() is None
        assert (server.connections, len(server.requests)) == (2, 2)
    assert not caplog.records


def test_a_closed_connection_that_the_loop_has_not_noticed(sender, loop):
    """The server has closed the connection just before the client sends the next request."""
    go = threading.Event()
    with FakeServer(steps(read, OK, go), kept()) as server:
        one = sender(server.url)
        assert one.send() is None
        done = threading.Event()

        def send() -> None:
            go.set()
            deadline = time.monotonic() + TIMEOUT
            while one.client._is_reusable(one.client._sock) and time.monotonic() < deadline:
                pass
            one.client.send([BODY], lambda error: (one.results.append(error), done.set()), TIMEOUT)

        loop.call_soon(send)
        assert done.wait(TIMEOUT)
        assert one.results == [None, None]
        assert len(server.requests) == 2


def test_an_old_connection_is_not_reused(sender, monkeypatch):
    monkeypatch.setattr(async_xmlrpc_client, "MAX_IDLE_TIME", 0.0)
    with FakeServer(kept()) as server:
        one = sender(server.url)
        for _ in range(3):
            assert one.send() is None
        assert server.connections == 3
        assert not one.closed.is_set()


def test_a_request_is_not_sent_again_if_a_kept_connection_breaks(sender):
    with FakeServer(steps(read, OK, read), kept()) as server:
        one = sender(server.url)
        assert one.send() is None
        error = one.send()
        assert isinstance(error, SAMPTransportError)
        assert error.sent
        assert one.send() is None
        assert len(server.requests) == 3


def test_a_request_is_never_sent_twice(sender):
    """The server breaks each connection at another position of its response."""

    positions = range(0, len(OK), 7)
    with FakeServer(*[steps(read, OK[:size]) for size in positions]) as server:
        one = sender(server.url)
        for number, _ in enumerate(positions):
            one.send(BODY, b"%d" % number)
        assert server.requests == [BODY + b"%d" % number for number, _ in enumerate(positions)]
        assert len(one.results) == len(positions)


# Close


def test_close_ends_a_call_once(sender, loop):
    with FakeServer(silent) as server:
        one = sender(server.url)
        done = one.start_send()
        assert server.received.acquire(timeout=TIMEOUT)
        one.close()
        one.close()
        assert done.wait(TIMEOUT)
        (error,) = one.results
        assert isinstance(error, SAMPTransportError)
        assert error.sent
        error = one.send()
        assert isinstance(error, SAMPTransportError)
        assert "is closed" in str(error)
        assert not error.sent
        assert len(server.requests) == 1


def test_close_ends_a_call_that_a_callback_sends(sender, loop):
    """The call that was sent during `close` ends, too."""
    with FakeServer(silent) as server:
        one = sender(server.url)
        ended = threading.Event()

        def again(_error: SAMPError | None) -> None:
            one.client.send([BODY], lambda error: (one.results.append(error), ended.set()), TIMEOUT)

        in_loop(loop, one.client.send, [BODY], again, TIMEOUT)
        assert server.received.acquire(timeout=TIMEOUT)
        one.close()
        assert ended.wait(TIMEOUT)
        assert len(server.requests) == 1


def test_close_before_the_connection_is_open(sender, loop):
    with FakeServer(kept()) as server:
        one = Sender(loop, server.url)

        def send_and_close() -> None:
            one.client.send([BODY], one.results.append, TIMEOUT)
            one.client.close()

        in_loop(loop, send_and_close)
        eventually(loop, lambda: one.results)
        assert len(one.results) == 1


def test_many_calls_at_once(sender, loop):
    """Slow calls delay no other calls, and use no threads."""
    gate = threading.Event()
    with FakeServer(steps(read, gate, OK)) as server, FakeServer(kept()) as quick:
        threads = {thread.name for thread in threading.enumerate()}
        waiting = [sender(server.url) for _ in range(50)]
        events = [one.start_send() for one in waiting]
        other = sender(quick.url)
        for _ in range(20):
            assert other.send() is None
        assert not any(event.is_set() for event in events)
        new = {thread.name for thread in threading.enumerate()} - threads
        assert not any(name.startswith("test-loop") for name in new)
        gate.set()
        assert all(event.wait(TIMEOUT) for event in events)
        assert [one.results for one in waiting] == [[None]] * 50
