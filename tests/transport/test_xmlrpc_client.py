# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The caller that waits: kept connections, responses of all kinds, and requests that are sent once and never again."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from typing import Any

import pytest

from pyvo.samp.errors import SAMPProxyError, SAMPTransportError
from pyvo.samp.transport import xmlrpc_client
from pyvo.samp.transport.urls import split_http_url
from pyvo.samp.transport.xmlrpc_client import CallOptions, XMLRPCClient, is_self_connected
from pyvo.samp.transport.xmlrpc_reader import read_response
from pyvo.samp.transport.xmlrpc_writer import PreEncoded, write_call, write_fault, write_response

from .peers import (
    OK,
    TIMEOUT,
    TOO_LONG,
    FakeServer,
    end_output,
    eventually,
    http_response,
    kept,
    read,
    read_part,
    reset_connection,
    responding,
    silent,
    steps,
    wait_for_end,
)

MiB = 1024 * 1024


@pytest.fixture
def client(server):
    client = XMLRPCClient(f"http://127.0.0.1:{server.port}/")
    yield client
    client.close()


def ask(server: FakeServer, *, timeout: float = TIMEOUT, **options: Any) -> Any:
    """Make one call with a client of its own."""
    client = XMLRPCClient(server.url, timeout=timeout, server_name="The server", **options)
    try:
        return client.call("echo", "a")
    finally:
        client.close()


def error_of(*behaviours: Any, requests: int = 1, **options: Any) -> SAMPTransportError:
    """The error in which one call ends, whose request must have arrived once."""
    with FakeServer(*behaviours) as server:
        with pytest.raises(SAMPTransportError) as caught:
            ask(server, **options)
        assert len(server.requests) == requests
    return caught.value


# Addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:21012/", ("127.0.0.1", 21012, "/")),
        ("http://127.0.0.1:21012", ("127.0.0.1", 21012, "/")),
        ("http://localhost:1/xmlrpc", ("127.0.0.1", 1, "/xmlrpc")),
        ("http://LOCALHOST/a?b=c", ("127.0.0.1", 80, "/a?b=c")),
        ("http://[::1]:5/", ("::1", 5, "/")),
        ("http://user:secret@host:5/x", ("host", 5, "/x")),
    ],
)
def test_addresses(url, expected):
    assert split_http_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://127.0.0.1:x/",
        "http://127.0.0.1:70000/",
        "http://[::1/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/\xe9",
    ],
)
def test_what_is_no_address(url):
    with pytest.raises(SAMPTransportError):
        split_http_url(url)
    with pytest.raises(SAMPTransportError):
        XMLRPCClient(url)


# Calls and connections


def test_calls_share_one_connection(client, server):
    for number in range(10):
        assert client.call("echo", f"text {number}") == f"text {number}"
    assert server.connections == 1


def test_a_body_that_is_written_already(client):
    assert client.post(write_call("echo", [PreEncoded(b"<value><string>raw</string></value>")])) == "raw"


def test_a_fault_is_raised_and_the_connection_kept(client, server):
    for _ in range(3):
        with pytest.raises(SAMPProxyError, match="There is no method"):
            client.call("nothing")
    assert server.connections == 1


def test_calls_in_a_row_go_out_in_one_piece(client, server, operations):
    for _ in range(2):  # the first time there is no connection to send them on
        client.call_pipelined([("echo", [str(number)]) for number in range(5)])
    assert operations.calls == list("01234") * 2
    with pytest.raises(SAMPProxyError):
        client.call_pipelined([("echo", ["a"]), ("nothing", []), ("echo", ["b"])])
    assert operations.calls[-2:] == ["a", "b"]
    client.call_pipelined([])
    assert server.connections == 1


def test_pipelined_calls_without_a_response_are_sent_again():
    """They are such that may be called twice."""
    with FakeServer(responding(OK, times=2), kept()) as server:
        client = XMLRPCClient(server.url)
        assert client.call("first") == "yes"
        client.call_pipelined([("a", []), ("b", [])])
        client.close()
        assert server.connections == 2
        assert server.requests[2] == write_call("b", [])


def test_large_requests_and_responses(client):
    text = "0123456789abcdef" * MiB
    assert client.call("size", text) == str(len(text))
    assert client.call("echo", text) == text


def test_calls_that_wait_hold_up_no_others(client, server, operations, loop):
    """Twenty-five wait, and more than are kept."""
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(client.call("wait"))) for _ in range(25)]
    for thread in threads:
        thread.start()
    eventually(loop, lambda: len(operations.waiting) == 25)
    assert client.call("echo", "meanwhile") == "meanwhile"
    for number, deferred in enumerate(operations.waiting):
        deferred.set_result(str(number))
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(map(int, results)) == list(range(25))
    eventually(loop, lambda: server.connections == 20)


def test_fifty_threads_on_one_client(client):
    failures: list[Any] = []

    def use(own: int) -> None:
        try:
            for number in range(20):
                assert client.call("echo", f"{own}/{number}") == f"{own}/{number}"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(own,)) for own in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_connection_that_the_server_closed_while_it_was_idle_is_replaced():
    """Nothing is lost and nothing sent twice."""
    with FakeServer(responding(OK)) as server:
        client = XMLRPCClient(server.url)
        for number in range(5):
            assert client.call("echo", str(number)) == "yes"
            connection = client._idle[0]
            assert connection.wait(TIMEOUT)  # its end has arrived
        client.close()
        assert server.connections == len(server.requests) == 5


def test_a_connection_that_was_reset_while_it_was_idle_is_replaced():
    go = threading.Event()
    with FakeServer(steps(read, OK, go, reset_connection), kept()) as server:
        client = XMLRPCClient(server.url)
        assert client.call("echo") == "yes"
        connection = client._idle[0]
        go.set()
        assert connection.wait(TIMEOUT)
        assert client.call("echo") == "yes"
        client.close()
        assert len(server.requests) == 2


def test_a_connection_on_which_rubbish_has_come_is_not_used_again():
    with FakeServer(responding(OK, b"HTTP/1.1 200 OK\r\n\r\nforged"), kept()) as server:
        client = XMLRPCClient(server.url)
        assert client.call("echo") == "yes"
        if client._idle:
            assert client._idle[0].wait(TIMEOUT)
        assert client.call("echo") == "yes"
        client.close()
        assert server.connections == 2


def test_an_old_connection_is_not_used_again(client, server, loop, monkeypatch):
    """The server may be about to close it."""
    assert client.call("echo", "a") == "a"
    monkeypatch.setattr(xmlrpc_client, "MAX_IDLE_TIME", 0.0)
    assert client.call("echo", "b") == "b"
    eventually(loop, lambda: server.connections == 1)


def test_connections_that_are_never_used_again_are_closed(client, server, loop):
    connections = [client._acquire() for _ in range(3)]
    for connection in connections:
        client._release(connection)
    for connection in connections[:2]:
        connection.idle_since -= 2 * xmlrpc_client.MAX_IDLE_TIME
    assert client.call("echo", "a") == "a"
    assert client._idle == connections[2:]
    eventually(loop, lambda: server.connections == 1)


def test_a_server_that_does_not_say_that_it_keeps_the_connection():
    with FakeServer(
        kept(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(write_response("")) + write_response(""))
    ) as server:
        client = XMLRPCClient(server.url)
        for _ in range(3):
            assert client.call("echo") == ""
        client.close()
        assert server.connections == 3


# The end


def test_close_ends_calls_that_wait(client, server, operations, loop):
    errors: list[SAMPTransportError] = []

    def wait() -> None:
        try:
            client.call("wait", options=CallOptions(timeout=0))
        except SAMPTransportError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(loop, lambda: len(operations.waiting) == 3)
    client.close()
    client.close()
    for thread in threads:
        thread.join(TIMEOUT)
    assert [(str(error), error.sent) for error in errors] == [
        (f"The connection to The hub at 127.0.0.1:{server.port} was closed", True)
    ] * 3
    with pytest.raises(SAMPTransportError, match="is closed") as caught:
        client.call("echo", "a")
    assert not caught.value.sent


def test_after_a_fork_the_child_closes_its_copies_only(client, server, operations, loop):
    """No lock can be relied on, since the thread that held it is not there."""
    assert client.call("echo", "a") == "a"
    copy = client._idle[0].sock.dup()
    holder = threading.Thread(target=client._lock.acquire)
    holder.start()
    holder.join()
    client.after_fork_in_child()
    with pytest.raises(SAMPTransportError, match="is closed"):
        client.call("echo", "b")
    client.close()
    assert server.connections == 1  # the parent's still is open
    copy.close()
    eventually(loop, lambda: server.connections == 0)


def test_close_while_connecting(client, monkeypatch):
    connect = client._connect

    def slow() -> Any:
        connection = connect()
        client.close()
        return connection

    monkeypatch.setattr(client, "_connect", slow)
    with pytest.raises(SAMPTransportError, match="is closed"):
        client.call("echo", "a")
    assert not client._busy


# Servers that cannot be reached, or do not respond


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_response_that_comes_behind_an_interruption_is_seen(client, server):
    """The response is seen, and the connection is not used again."""
    seen: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        client.call("echo", "late", options=CallOptions(while_waiting=_interrupt, raw_responses=seen))
    assert [read_response(response.body) for response in seen] == ["late"]
    assert client._idle == []
    assert client._busy == set()


def test_an_interruption_is_not_held_up_for_long(monkeypatch):
    monkeypatch.setattr(xmlrpc_client, "FINAL_RESPONSE_TIMEOUT", 0.1)
    seen: list[Any] = []
    with FakeServer(silent) as server:
        client = XMLRPCClient(server.url)
        with pytest.raises(KeyboardInterrupt):
            client.call("echo", "never", options=CallOptions(while_waiting=_interrupt, raw_responses=seen))
        client.close()
    assert seen == []


def test_nobody_listens():
    client = XMLRPCClient(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(SAMPTransportError, match="cannot be reached: Connection refused") as caught:
        client.call("echo")
    assert (caught.value.sent, caught.value.refused) == (False, True)


def test_a_connection_to_itself_is_no_connection():
    """The system may choose the very port that nobody listens at as the one to connect from."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        try:
            sock.connect(sock.getsockname())
        except OSError:
            pytest.skip("this system does not connect a socket to itself")
        assert is_self_connected(sock)


def test_own_echo_counts_as_refused(monkeypatch):
    monkeypatch.setattr(xmlrpc_client, "is_self_connected", lambda _sock: True)
    with FakeServer(kept()) as server, pytest.raises(SAMPTransportError, match="Connection refused") as caught:
        ask(server)
    assert caught.value.refused


def test_a_port_that_accepts_nothing(monkeypatch):
    """Its backlog is full, as that of a program is that hangs."""
    monkeypatch.setattr(xmlrpc_client, "CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(20):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        client = XMLRPCClient(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(SAMPTransportError, match="does not accept connections") as caught:
            client.call("echo")
        assert not caught.value.sent
        for filler in fillers:
            filler.close()


def test_a_server_that_never_responds():
    start = time.monotonic()
    error = error_of(silent, timeout=0.1)
    assert time.monotonic() - start < 5
    assert "did not respond in time" in str(error)
    assert error.sent


def test_a_server_that_dribbles():
    """Each byte comes in time, the response does not."""

    def dribble(server: FakeServer, sock: socket.socket) -> None:
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not server.over.wait(0.005):
            sock.sendall(b" ")

    error = error_of(dribble, timeout=0.1)
    assert "did not respond in time" in str(error)


def test_a_server_that_does_not_read(monkeypatch):
    monkeypatch.setattr(xmlrpc_client, "SEND_TIMEOUT", 0.1)
    with FakeServer(wait_for_end) as server:
        client = XMLRPCClient(server.url)
        for timeout in (0, TIMEOUT):
            with pytest.raises(SAMPTransportError, match="does not read the request") as caught:
                client.call("echo", "x" * 32 * MiB, options=CallOptions(timeout))
            assert caught.value.sent
        client.close()


def test_looking_after_the_server_during_a_long_wait():
    """What `look` raises ends the wait."""
    with FakeServer(silent) as server:
        client = XMLRPCClient(server.url)
        looks: list[float] = []

        def health_check() -> None:
            looks.append(time.monotonic())
            if len(looks) == 3:
                raise KeyError("gone")

        with pytest.raises(KeyError, match="gone"):
            client.call("echo", options=CallOptions(0, health_check, 0.01))
        assert len(looks) == 3
        with pytest.raises(SAMPTransportError, match="in time"):
            client.call("echo", options=CallOptions(0.1, lambda: looks.append(0), 0.02))
        assert 5 <= len(looks) <= 9
        client.close()


def test_a_wait_without_limit_and_without_looks():
    with FakeServer(silent) as server:
        client = XMLRPCClient(server.url)
        timer = threading.Timer(0.1, client.close)
        timer.start()
        with pytest.raises(SAMPTransportError, match="was closed"):
            client.call("echo", options=CallOptions(0, health_check_interval=0.01))
        timer.join()


# Responses


@pytest.mark.parametrize(
    ("response", "result"),
    [
        (OK, "yes"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK, "yes"),
        (OK.replace(b"\r\n", b"\n"), "yes"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + write_response("until the end"), "until the end"),
        (
            b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (len(write_response("")), write_response("")),
            "",
        ),
        (http_response(write_response("longer"), length=len(write_response("longer")) + 1), "longer"),
    ],
)
def test_good_responses(response, result):
    """The last one is as DS9's: a byte shorter than announced."""
    with FakeServer(responding(response)) as server:
        assert ask(server) == result
        assert len(server.requests) == 1


def test_ds9s_fault_is_a_byte_short():
    body = write_fault(3, "no")
    with (
        FakeServer(responding(http_response(body, length=len(body) + 1))) as server,
        pytest.raises(SAMPProxyError, match="no"),
    ):
        ask(server)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (b"", "closed without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed without a response"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed without a response"),
        (http_response(b"x", status="500 Internal Server Error"), "HTTP status 500 Internal Server Error"),
        (http_response(write_response("a"), status="404 Not Found"), "HTTP status 404"),
        (http_response(b"", "Location: http://127.0.0.1:1/", status="302 Found"), "HTTP status 302"),
        (http_response(b"", "Location: file:///etc/passwd", status="307 Temporary Redirect"), "HTTP status 307"),
        (http_response(b"<html><body>Hello</body></html>"), "is not XML-RPC"),
        (http_response(b""), "is not XML-RPC"),
        (http_response(write_response("a" * 100)[:50]), "is not XML-RPC"),
        (http_response(write_response("a" * 100), length=60), "is not XML-RPC"),
        (http_response(write_call("echo", [])), "is not XML-RPC"),
        (http_response(write_response("a"), "Content-Length: 5"), "two content-length"),
        (http_response(write_response("a"), length=-5), "not a number"),
        (http_response(write_response("a"), "Content-Encoding: gzip"), "not valid gzip"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk is malformed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "too many informational"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000, "too long"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000, "too long"),
        (b"\x15\x03\x03\x00\x02\x02P", "not an HTTP/1 response"),
        (b"SSH-2.0-x\r\n", "not an HTTP/1 response"),
        (b"POST / HTTP/1.1\r\n\r\n", "not an HTTP/1 response"),
    ],
)
def test_bad_responses(response, text):
    """An error says what was wrong; the request was sent once; no redirect is followed."""
    error = error_of(responding(response))
    assert text in str(error)
    assert error.sent
    assert str(error).startswith("The server at 127.0.0.1:")


def test_a_server_that_resets_the_connection():
    error = error_of(steps(read, reset_connection))
    assert "has closed the connection" in str(error)
    assert error.sent


def test_two_hundred_megabytes_are_refused_early():
    def large(server: FakeServer, sock: socket.socket) -> None:
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(200):
            sock.sendall(bytes(MiB))

    tracemalloc.start()
    try:
        error = error_of(large)
        assert tracemalloc.get_traced_memory()[1] < 8 * MiB
    finally:
        tracemalloc.stop()
    assert "longer than" in str(error)


def test_an_endless_response_is_refused_at_the_limit():
    def endless(server: FakeServer, sock: socket.socket) -> None:
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sock.sendall(bytes(MiB))

    assert "longer than" in str(error_of(endless, max_body=4 * MiB))


def test_a_server_that_refuses_a_long_request_before_it_has_read_it():
    """It responses, reads nothing, and closes: its response is what the caller is told."""
    with FakeServer(steps(TOO_LONG, wait_for_end), steps(read_part, TOO_LONG, end_output, read_part)) as server:
        client = XMLRPCClient(server.url)
        for _ in range(2):
            with pytest.raises(SAMPTransportError, match="HTTP status 413") as caught:
                client.call("echo", "x" * 32 * MiB)
            assert caught.value.sent
        assert not client._idle
        client.close()


def test_our_server_refuses_a_long_request_intelligibly(make_server):
    server = make_server(max_body=MiB)
    client = XMLRPCClient(f"http://127.0.0.1:{server.port}/")
    with pytest.raises(SAMPTransportError, match="HTTP status 413"):
        client.call("echo", "x" * 32 * MiB)
    assert client.call("echo", "short") == "short"
    client.close()


def test_nothing_is_ever_sent_twice():
    """The server breaks each connection at another place behind the request."""

    places = range(0, len(OK), 7)
    with FakeServer(*[steps(read, OK[:size]) for size in places]) as server:
        client = XMLRPCClient(server.url)
        for number, _ in enumerate(places):
            with pytest.raises(SAMPTransportError) as caught:
                client.call("echo", str(number))
            assert caught.value.sent
        client.close()
        assert len(server.requests) == len(places)
        assert len(set(server.requests)) == len(places)


def test_nothing_is_sent_twice_on_a_kept_connection_that_breaks():
    """It was good for one request, and breaks at the second."""
    with FakeServer(steps(read, OK, read), kept()) as server:
        client = XMLRPCClient(server.url)
        assert client.call("echo", "1") == "yes"
        with pytest.raises(SAMPTransportError):
            client.call("echo", "2")
        assert client.call("echo", "3") == "yes"
        client.close()
        assert len(server.requests) == 3


def test_the_time_to_connect_of_a_client_without_time_out(server):
    client = XMLRPCClient(f"http://127.0.0.1:{server.port}/", timeout=0)
    assert client.call("echo", "a") == "a"
    client.close()


def test_waiting_without_poll(client, monkeypatch, operations):
    """As on Windows."""
    monkeypatch.delattr(xmlrpc_client.select, "poll", raising=False)
    assert client.call("echo", "a") == "a"
    assert client._idle[0]._poll is None
    assert client.call("size", "x" * 16 * MiB) == str(16 * MiB)
    with pytest.raises(SAMPTransportError, match="in time"):
        client.call("wait", options=CallOptions(0.05))
