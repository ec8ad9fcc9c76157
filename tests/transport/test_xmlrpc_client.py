# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`XMLRPCClient`: kept connections, responses of all kinds, and requests that are never sent twice."""

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


def make_call(server: FakeServer, *, timeout: float = TIMEOUT, **options: Any) -> Any:
    """Make one call with a new client."""
    client = XMLRPCClient(server.url, timeout=timeout, server_name="The server", **options)
    try:
        return client.call("echo", "a")
    finally:
        client.close()


def error_of(*behaviours: Any, requests: int = 1, **options: Any) -> SAMPTransportError:
    """Return the error of one call, whose request must have arrived once."""
    with FakeServer(*behaviours) as server:
        with pytest.raises(SAMPTransportError) as caught:
            make_call(server, **options)
        assert len(server.requests) == requests
    return caught.value


# URLs


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
def test_urls(url, expected):
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
def test_invalid_urls(url):
    with pytest.raises(SAMPTransportError):
        split_http_url(url)
    with pytest.raises(SAMPTransportError):
        XMLRPCClient(url)


# Calls and connections


def test_calls_share_one_connection(client, server):
    for number in range(10):
        assert client.call("echo", f"text {number}") == f"text {number}"
    assert server.connections == 1


def test_a_parameter_that_is_already_encoded(client):
    assert client.post(write_call("echo", [PreEncoded(b"<value><string>raw</string></value>")])) == "raw"


def test_a_fault_is_raised_and_the_connection_kept(client, server):
    for _ in range(3):
        with pytest.raises(SAMPProxyError, match="There is no method"):
            client.call("nothing")
    assert server.connections == 1


def test_pipelined_calls(client, server, operations):
    for _ in range(2):  # the first time there is no connection to send them on
        client.call_pipelined([("echo", [str(number)]) for number in range(5)])
    assert operations.calls == list("01234") * 2
    with pytest.raises(SAMPProxyError):
        client.call_pipelined([("echo", ["a"]), ("nothing", []), ("echo", ["b"])])
    assert operations.calls[-2:] == ["a", "b"]
    client.call_pipelined([])
    assert server.connections == 1


def test_pipelined_calls_without_a_response_are_sent_again():
    """Such calls must have no effect if they are made twice."""
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


def test_calls_that_wait_do_not_delay_others(client, server, operations, loop):
    """Twenty-five calls wait, which are more than the connections that are kept."""
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


def test_an_idle_connection_that_the_server_has_closed_is_replaced():
    """No request is lost, and none is sent twice."""
    with FakeServer(responding(OK)) as server:
        client = XMLRPCClient(server.url)
        for number in range(5):
            assert client.call("echo", str(number)) == "yes"
            connection = client._idle[0]
            assert connection.wait(TIMEOUT)  # the end of the connection has arrived
        client.close()
        assert server.connections == len(server.requests) == 5


def test_an_idle_connection_that_was_reset_is_replaced():
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


def test_a_connection_with_unexpected_data_is_not_reused():
    with FakeServer(responding(OK, b"HTTP/1.1 200 OK\r\n\r\nforged"), kept()) as server:
        client = XMLRPCClient(server.url)
        assert client.call("echo") == "yes"
        if client._idle:
            assert client._idle[0].wait(TIMEOUT)
        assert client.call("echo") == "yes"
        client.close()
        assert server.connections == 2


def test_an_old_connection_is_not_reused(client, server, loop, monkeypatch):
    """The server may be about to close it."""
    assert client.call("echo", "a") == "a"
    monkeypatch.setattr(xmlrpc_client, "MAX_IDLE_TIME", 0.0)
    assert client.call("echo", "b") == "b"
    eventually(loop, lambda: server.connections == 1)


def test_old_idle_connections_are_closed(client, server, loop):
    connections = [client._acquire() for _ in range(3)]
    for connection in connections:
        client._release(connection)
    for connection in connections[:2]:
        connection.idle_since -= 2 * xmlrpc_client.MAX_IDLE_TIME
    assert client.call("echo", "a") == "a"
    assert client._idle == connections[2:]
    eventually(loop, lambda: server.connections == 1)


def test_a_server_that_does_not_state_that_it_keeps_the_connection():
    with FakeServer(
        kept(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(write_response("")) + write_response(""))
    ) as server:
        client = XMLRPCClient(server.url)
        for _ in range(3):
            assert client.call("echo") == ""
        client.close()
        assert server.connections == 3


# Close


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


def test_the_child_of_a_fork_closes_only_its_copies(client, server, operations, loop):
    """The child must not acquire locks, because the thread that held a lock does not exist in the child."""
    assert client.call("echo", "a") == "a"
    copy = client._idle[0].sock.dup()
    holder = threading.Thread(target=client._lock.acquire)
    holder.start()
    holder.join()
    client.after_fork_in_child()
    with pytest.raises(SAMPTransportError, match="is closed"):
        client.call("echo", "b")
    client.close()
    assert server.connections == 1  # the parent's connection is still open
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


def test_a_response_after_an_interruption_is_recorded(client, server):
    """The response is appended to ``raw_responses``, and the connection is not reused."""
    seen: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        client.call("echo", "late", options=CallOptions(while_waiting=_interrupt, raw_responses=seen))
    assert [read_response(response.body) for response in seen] == ["late"]
    assert client._idle == []
    assert client._busy == set()


def test_an_interruption_waits_for_the_response_only_shortly(monkeypatch):
    monkeypatch.setattr(xmlrpc_client, "FINAL_RESPONSE_TIMEOUT", 0.1)
    seen: list[Any] = []
    with FakeServer(silent) as server:
        client = XMLRPCClient(server.url)
        with pytest.raises(KeyboardInterrupt):
            client.call("echo", "never", options=CallOptions(while_waiting=_interrupt, raw_responses=seen))
        client.close()
    assert seen == []


def test_no_server_listens():
    client = XMLRPCClient(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(SAMPTransportError, match="cannot be reached: Connection refused") as caught:
        client.call("echo")
    assert (caught.value.sent, caught.value.refused) == (False, True)


def test_a_connection_to_itself_is_detected():
    """The system may give the client's socket the very port that it connects to, if no program listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        try:
            sock.connect(sock.getsockname())
        except OSError:
            pytest.skip("this system does not connect a socket to itself")
        assert is_self_connected(sock)


def test_a_connection_to_itself_counts_as_refused(monkeypatch):
    monkeypatch.setattr(xmlrpc_client, "is_self_connected", lambda _sock: True)
    with FakeServer(kept()) as server, pytest.raises(SAMPTransportError, match="Connection refused") as caught:
        make_call(server)
    assert caught.value.refused


def test_a_port_that_accepts_nothing(monkeypatch):
    """The backlog of the port is full, as if the program hangs."""
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


def test_a_server_that_sends_single_bytes():
    """Each byte arrives within the timeout, but the whole response does not."""

    def send_bytes(server: FakeServer, sock: socket.socket) -> None:
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not server.over.wait(0.005):
            sock.sendall(b" ")

    error = error_of(send_bytes, timeout=0.1)
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


def test_the_health_check_during_a_long_wait():
    """An error that the health check raises ends the wait."""
    with FakeServer(silent) as server:
        client = XMLRPCClient(server.url)
        checks: list[float] = []

        def health_check() -> None:
            checks.append(time.monotonic())
            if len(checks) == 3:
                raise KeyError("gone")

        with pytest.raises(KeyError, match="gone"):
            client.call("echo", options=CallOptions(0, health_check, 0.01))
        assert len(checks) == 3
        with pytest.raises(SAMPTransportError, match="in time"):
            client.call("echo", options=CallOptions(0.3, lambda: checks.append(0), 0.02))
        assert 5 <= len(checks) <= 19
        client.close()


def test_a_wait_without_timeout_and_health_check():
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
    """The last response is like DS9's: one byte shorter than its Content-Length."""
    with FakeServer(responding(response)) as server:
        assert make_call(server) == result
        assert len(server.requests) == 1


def test_a_fault_of_ds9_is_one_byte_short():
    body = write_fault(3, "no")
    with (
        FakeServer(responding(http_response(body, length=len(body) + 1))) as server,
        pytest.raises(SAMPProxyError, match="no"),
    ):
        make_call(server)


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


def test_a_response_of_200_mb_is_rejected_early():
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


def test_an_endless_response_is_rejected_at_the_limit():
    def endless(server: FakeServer, sock: socket.socket) -> None:
        server.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sock.sendall(bytes(MiB))

    assert "longer than" in str(error_of(endless, max_body=4 * MiB))


def test_a_server_that_rejects_a_long_request_before_it_has_read_it():
    """The server responds before it has read the request, and closes: the error states the status of the response."""
    with FakeServer(steps(TOO_LONG, wait_for_end), steps(read_part, TOO_LONG, end_output, read_part)) as server:
        client = XMLRPCClient(server.url)
        for _ in range(2):
            with pytest.raises(SAMPTransportError, match="HTTP status 413") as caught:
                client.call("echo", "x" * 32 * MiB)
            assert caught.value.sent
        assert not client._idle
        client.close()


def test_our_server_rejects_a_long_request_with_a_response(make_server):
    server = make_server(max_body=MiB)
    client = XMLRPCClient(f"http://127.0.0.1:{server.port}/")
    with pytest.raises(SAMPTransportError, match="HTTP status 413"):
        client.call("echo", "x" * 32 * MiB)
    assert client.call("echo", "short") == "short"
    client.close()


def test_a_request_is_never_sent_twice():
    """The server breaks each connection at another position of its response."""

    positions = range(0, len(OK), 7)
    with FakeServer(*[steps(read, OK[:size]) for size in positions]) as server:
        client = XMLRPCClient(server.url)
        for number, _ in enumerate(positions):
            with pytest.raises(SAMPTransportError) as caught:
                client.call("echo", str(number))
            assert caught.value.sent
        client.close()
        assert len(server.requests) == len(positions)
        assert len(set(server.requests)) == len(positions)


def test_a_request_is_not_sent_again_if_a_kept_connection_breaks():
    """The connection serves one request, and breaks at the second."""
    with FakeServer(steps(read, OK, read), kept()) as server:
        client = XMLRPCClient(server.url)
        assert client.call("echo", "1") == "yes"
        with pytest.raises(SAMPTransportError):
            client.call("echo", "2")
        assert client.call("echo", "3") == "yes"
        client.close()
        assert len(server.requests) == 3


def test_a_client_without_timeout_can_connect(server):
    client = XMLRPCClient(f"http://127.0.0.1:{server.port}/", timeout=0)
    assert client.call("echo", "a") == "a"
    client.close()


def test_waiting_without_poll(client, monkeypatch, operations):
    """Windows has no ``poll``."""
    monkeypatch.delattr(xmlrpc_client.select, "poll", raising=False)
    assert client.call("echo", "a") == "a"
    assert client._idle[0]._poll is None
    assert client.call("size", "x" * 16 * MiB) == str(16 * MiB)
    with pytest.raises(SAMPTransportError, match="in time"):
        client.call("wait", options=CallOptions(0.05))
