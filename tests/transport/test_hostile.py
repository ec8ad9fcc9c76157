# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Malformed and hostile input at a server's port, over real connections.

The server responds to each request or closes the connection, within limits of time and memory, and continues to serve
others: after each test, the fixture `server` sends an ordinary request, and `nothing_left_behind` counts threads and
descriptors.
"""

from __future__ import annotations

import gzip
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.transport import server_connection
from pyvo.samp.transport.http11 import MAX_HEAD
from pyvo.samp.transport.server import XMLRPCServer
from pyvo.samp.transport.xmlrpc_reader import read_response
from pyvo.samp.transport.xmlrpc_writer import write_call

from .peers import TIMEOUT, RawClient, call, eventually, in_loop, post

MiB = 1024 * 1024


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set timeouts that a test can wait for."""
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 0.1)
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT", 0.1)
    monkeypatch.setattr(server_connection, "DRAIN_TIMEOUT", 0.1)


@pytest.fixture
def server(make_server: Callable[..., XMLRPCServer], loop) -> Iterator[XMLRPCServer]:
    """Start a server that must work, and must have no connections left, after the test."""
    server = make_server(max_body=2 * MiB)
    yield server
    with RawClient(server.port, call("echo", "fine")) as client:
        assert read_response(client.receive().body) == "fine"
    eventually(loop, lambda: server.connections == 0)
    assert server.table._reserved == 0
    assert not server.table._idle


def status(server: XMLRPCServer, data: bytes) -> int:
    """Return the status of the response to some bytes; the server must then close the connection."""
    with RawClient(server.port, data) as client:
        response = client.receive()
        assert client.rest() == b""
        return response.status


# Lengths


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (b"-5", 400),
        (b"+5", 400),
        (b"5.0", 400),
        (b"five", 400),
        (b"", 400),
        (b"5, 5", 400),
        (b"5\r\nContent-Length: 5", 400),
        (b"5\r\nContent-Length: 6", 400),
        (b"5\r\nTransfer-Encoding: chunked", 400),
        (b"99999999999999999999999999", 413),
        (b"9223372036854775807", 413),
        (b"2097153", 413),
    ],
)
def test_invalid_lengths(server, expected, length):
    assert status(server, b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\nabcde") == expected


def test_missing_length(server):
    assert status(server, b"POST / HTTP/1.1\r\n\r\n" + write_call("echo", ["a"])) == 411


def test_a_body_shorter_than_its_content_length(server):
    """The sender waits for a response, and gets an error response after the timeout."""
    body = write_call("echo", ["a"])
    assert status(server, post(body, length=len(body) + 1)) == 408


def test_a_body_longer_than_its_content_length(server):
    """The additional bytes are not a valid request."""
    body = write_call("echo", ["a"])
    with RawClient(server.port, post(body + b"\0\0\0", length=len(body))) as client:
        assert read_response(client.receive().body) == "a"
        assert client.receive().status == 400
        assert client.rest() == b""


@pytest.mark.parametrize("how", ["close", "reset", "end"])
def test_a_body_that_is_cut_off(server, loop, how):
    """If the sender closes the connection within the body, the server closes it, too, and does not spin."""
    data = call("echo", "a" * 1000)
    client = RawClient(server.port, data[:500])
    eventually(loop, lambda: server.connections == 1)
    getattr(client, how)()
    eventually(loop, lambda: server.connections == 0)
    before = time.process_time()
    threading.Event().wait(0.5)
    assert time.process_time() - before < 0.25
    client.close()


def test_a_head_that_is_cut_off(server, loop):
    for size in (1, 4, 20, 40):
        RawClient(server.port, call("echo", "a")[:size]).close()
    eventually(loop, lambda: server.connections == 0)


# Chunks and gzip


def test_chunks(server):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = write_call("echo", ["chunks"])
    data = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    with RawClient(
        server.port, head + data + b"0\r\n\r\n" + head + b"%x;a=b\n%b\n0\nX: y\n\n" % (len(body), body)
    ) as client:
        for _ in range(2):
            assert read_response(client.receive().body) == "chunks"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"zz\r\n", 400),
        (b"-1\r\n", 400),
        (b"5\r\nabcdefg\r\n", 400),
        (b"ffffffffffffffffffff\r\n", 400),
        (b"fffffffffff\r\n", 413),
        (b"100000\r\n" + b"a" * MiB + b"\r\n100001\r\n", 413),
        (b"5;" + b"x" * 5000, 400),
        (b"1\r\na\r\n", 408),
        (b"0\r\n" + b"a: b\r\n" * 20_000, 400),
    ],
)
def test_malformed_and_endless_chunks(server, data, expected):
    assert status(server, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data) == expected


def test_gzip(server):
    compressed = gzip.compress(write_call("echo", ["gzip"]))
    with RawClient(server.port, post(compressed, "Content-Encoding: gzip")) as client:
        assert read_response(client.receive().body) == "gzip"


@pytest.mark.parametrize(
    ("compressed", "expected"),
    [(gzip.compress(bytes(300 * MiB), mtime=0), 413), (b"no gzip", 400), (gzip.compress(b"a", mtime=0)[:-1], 400)],
)
def test_gzip_bombs(server, compressed, expected):
    tracemalloc.start()
    try:
        assert status(server, post(compressed, "Content-Encoding: gzip")) == expected
        assert tracemalloc.get_traced_memory()[1] < 16 * MiB
    finally:
        tracemalloc.stop()


def test_unknown_encodings(server):
    assert status(server, post(b"x", "Content-Encoding: br")) == 415
    assert status(server, b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n") == 501


# Heads


@pytest.mark.parametrize("line", [b"A: b\r\n" * 50, b"a" * 1000, b"\0" * 300, b"A: b\n" * 50])
def test_endless_headers(server, line):
    with RawClient(server.port, b"GET / HTTP/1.1\r\n") as client:
        with suppress(ConnectionError):
            for _ in range(3 * MAX_HEAD // len(line)):
                client.send(line)
        assert client.receive().status in (400, 431)
        assert client.rest() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n",  # HTTP/0.9
        b"GET /\n",
        b"POST / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x80\x80\x01\x03",
        b"SSH-2.0-OpenSSH\r\n",
        b"<?xml version='1.0'?><methodCall/>\r\n",
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\tHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ],
)
def test_invalid_http_is_rejected_at_once(server, data, monkeypatch):
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 3600)
    assert status(server, data) == 400


def test_tls(server):
    """A client that expects HTTPS gets an error at once."""
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(sock, server_hostname="localhost")


def test_blank_lines_before_a_request_are_ignored(server, loop):
    with RawClient(server.port, b"\r\n" * 10_000) as client:
        client.send(call("echo", "a"))
        assert read_response(client.receive().body) == "a"


def test_random_bytes(server, loop):
    """The server responds to each request, or closes the connection."""
    rng = random.Random(1)
    good = call("echo", "text")
    for _ in range(200):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            position = rng.randrange(len(data))
            data[position : position + rng.randrange(5)] = rng.randbytes(rng.randrange(5))
        with RawClient(server.port, bytes(data)) as client, suppress(ConnectionError):
            client.end()
            client.rest()


# Slow clients


@pytest.mark.parametrize("part", [1, 20, 60, 150])
def test_slow_senders(server, part):
    """The sender stops at some position; the timeout is for the whole request, not for the next byte."""
    data = call("echo", "a" * 100)
    assert status(server, data[:part]) == 408


def test_sending_single_bytes_does_not_extend_the_timeout(server, loop):
    data = call("echo", "a" * 100_000)
    with RawClient(server.port) as client:
        client.sock.setblocking(False)
        position = 0
        with suppress(ConnectionError):
            while not in_loop(loop, lambda: any(c._drain_left for c in server.table._connections)):
                with suppress(BlockingIOError):
                    client.sock.send(data[position : position + 1])
                    position += 1
                assert position < len(data)
        client.sock.settimeout(TIMEOUT)
        assert b" 408 " in client.sock.recv(20)


def test_slow_readers(make_server, loop):
    """Responses that clients do not read are limited in size and in time, and other clients are served."""
    server = make_server(max_body=8 * MiB, max_buffered=40 * MiB)
    with ExitStack() as stack:
        data = call("repeat", "x", str(16 * MiB))
        slow = [stack.enter_context(RawClient(server.port, data)) for _ in range(6)]
        with RawClient(server.port, call("echo", "fine")) as client:
            assert read_response(client.receive().body) == "fine"
        assert server.table._reserved <= 40 * MiB
        eventually(loop, lambda: server.connections == 0)
        assert server.table._reserved == 0
        assert len(slow) == 6


def test_the_server_reads_the_rest_of_a_rejected_request(server):
    """Otherwise its sender would get a reset instead of the error response."""
    with RawClient(server.port, post(b"", length=3 * MiB)) as client:
        client.send(bytes(MiB))
        assert client.receive().status == 413
        assert client.rest() == b""


def test_a_client_that_sends_without_end_is_disconnected(server):
    with RawClient(server.port, b"nonsense\r\n") as client:

        def flood() -> None:
            while True:
                client.send(bytes(MiB))

        with pytest.raises(ConnectionError):
            flood()


# Many connections


def test_500_idle_connections_and_incomplete_requests(many_files, server, loop, monkeypatch):
    """Some clients have sent nothing, the others a part of a request."""
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 3600)
    part = call("echo", "a" * 100)
    with ExitStack() as stack:
        for number in range(500):
            stack.enter_context(RawClient(server.port, part[: number % 150]))
        eventually(loop, lambda: server.connections == 500)
        with RawClient(server.port, call("echo", "fine")) as client:
            assert read_response(client.receive().body) == "fine"


def test_incomplete_requests_lock_no_client_out(make_server, loop):
    """With twice as many as the limit, new clients are served at once, and a waiting client keeps its connection."""
    server = make_server(max_connections=40)
    with RawClient(server.port, call("wait")) as waiting, ExitStack() as stack:
        eventually(loop, lambda: not server.table._idle and server.connections == 1)
        incomplete = [stack.enter_context(RawClient(server.port, post(b"<", length=1000))) for _ in range(80)]
        eventually(loop, lambda: len(server.table._slow) == 39)
        for number in range(10):
            with RawClient(server.port, call("echo", str(number))) as client:
                assert read_response(client.receive().body) == str(number)
        assert incomplete[0].rest() == b""
        incomplete[-1].sock.setblocking(False)
        with pytest.raises(BlockingIOError):  # the last one is still open
            incomplete[-1].sock.recv(1)
        waiting.end()
        assert waiting.rest() == b""
        eventually(loop, lambda: server.connections < 40)


@pytest.mark.parametrize("data", [post(b"<", length=1000), b"nonsense\r\n", call("repeat", "x", str(MiB)) * 8])
def test_stalled_connections_are_closed_before_idle_ones(make_server, loop, data, monkeypatch):
    """Stalled are an incomplete request, a rejected request whose sender stays, and responses that are not read."""
    for name in ("REQUEST_TIMEOUT", "DRAIN_TIMEOUT", "WRITE_TIMEOUT"):
        monkeypatch.setattr(server_connection, name, 3600)
    monkeypatch.setattr(server_connection, "SLOW_AFTER", 0.0)
    server = make_server(max_connections=20, max_buffered=100 * MiB)
    with RawClient(server.port, call("echo", "friend")) as friend, ExitStack() as stack:
        assert read_response(friend.receive().body) == "friend"
        for _ in range(40):
            stack.enter_context(RawClient(server.port, data))
        eventually(loop, lambda: len(server.table._slow) == 19 and not server.connections > 20)
        friend.send(call("echo", "still"))
        assert read_response(friend.receive().body) == "still"


def test_an_idle_connection_is_closed_before_one_that_receives_a_request(make_server, loop, monkeypatch):
    """A new request is not closed at once, because the next connection may come while a large message arrives."""
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 3600)
    monkeypatch.setattr(server_connection, "SLOW_AFTER", 3600)
    server = make_server(max_connections=2)
    data = call("echo", "large")
    with RawClient(server.port) as idle, RawClient(server.port, data[:-1]) as sender:
        eventually(loop, lambda: len(server.table._slow) == len(server.table._idle) == 1)
        with RawClient(server.port, call("echo", "fine")) as client:
            assert read_response(client.receive().body) == "fine"
        assert idle.rest() == b""
        sender.send(data[-1:])
        assert read_response(sender.receive().body) == "large"


def test_200_connections_at_once(server):
    """All of them connect before the first gets a response, from many threads."""
    failures: list[object] = []
    gate = threading.Barrier(20)

    def send_requests(own: int) -> None:
        try:
            gate.wait(TIMEOUT)
            with ExitStack() as stack:
                clients = [stack.enter_context(RawClient(server.port, call("echo", f"{own}/{n}"))) for n in range(10)]
                for number, client in enumerate(clients):
                    assert read_response(client.receive().body) == f"{own}/{number}"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send_requests, args=(own,)) for own in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_buffers_of_all_connections_are_limited(make_server, loop, monkeypatch):
    """Each client sends a body of the maximum size except its end; clients above the limit get an error response."""
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 3600)
    server = make_server(max_body=2 * MiB, max_buffered=8 * MiB)
    body = b"x" * (2 * MiB - 1)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, post(length=2 * MiB))) for _ in range(12)]
        for client in clients:
            with suppress(ConnectionError):
                client.send(body)
        connections = server.table._connections
        eventually(loop, lambda: sum(c._drain_left > 0 for c in connections) + 12 - server.connections >= 8)
        assert server.table._reserved <= 8 * MiB
        assert sum(c._parser.buffered for c in server.table._connections if not c._drain_left) <= 8 * MiB
        with RawClient(server.port, call("echo", "small")) as client:
            assert read_response(client.receive().body) == "small"
        clients[-1].close()
    eventually(loop, lambda: server.connections == 0)
    assert server.table._reserved == 0


def test_a_content_length_alone_reserves_no_buffer(make_server, loop, monkeypatch):
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 3600)
    server = make_server(max_body=2 * MiB, max_buffered=3 * MiB)
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(RawClient(server.port, post(length=2 * MiB)))
        with RawClient(server.port, call("size", "x" * MiB)) as client:
            assert read_response(client.receive().body) == str(MiB)


def test_the_buffers_of_small_chunks_are_limited_too(make_server, loop, monkeypatch):
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 3600)
    monkeypatch.setattr(server_connection, "DRAIN_TIMEOUT", 3600)
    server = make_server(max_body=2 * MiB, max_buffered=MiB)
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n%b\r\n" % (b"x" * 1024) * 600
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(RawClient(server.port, data))
        eventually(loop, lambda: any(c._drain_left for c in server.table._connections))
        assert server.table._reserved <= MiB


def test_a_client_that_pipelines_too_many_requests_is_disconnected(server, loop, operations):
    with RawClient(server.port, call("wait")) as client:
        eventually(loop, lambda: operations.waiting)
        with suppress(ConnectionError):
            for _ in range(100):
                client.send(call("echo", "a" * 10_000))
        assert client.rest() == b""
    eventually(loop, lambda: operations.waiting[0].state == "cancelled")


def test_memory_does_not_grow(make_server, loop):
    """After a thousand connections of all kinds, less than 1 MiB more memory is allocated."""
    server = make_server(max_body=2 * MiB)
    kinds = [call("size", "a" * 10_000), b"nonsense\r\n", call("echo", "b")[:50], b"", post(b"\0" * 1000), call("none")]

    def burst() -> None:
        with ExitStack() as stack:
            for number in range(200):
                stack.enter_context(RawClient(server.port, kinds[number % len(kinds)]))
        with RawClient(server.port, call("echo", "all before this one have been accepted")) as client:
            client.receive()
        eventually(loop, lambda: server.connections == 0)

    burst()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            burst()
        assert tracemalloc.get_traced_memory()[0] - before < MiB
    finally:
        tracemalloc.stop()


# XML (the reader has its own tests): the response is always a fault, never an HTTP error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<methodCall><methodName>echo</methodName>",
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><methodCall><methodName>&e;</methodName></methodCall>',
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><methodCall><methodName>echo</methodName></methodCall>',
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><methodCall>&b;</methodCall>',
        b"<methodCall><methodName>echo</methodName><params><param><value><array><data>" * 10_000,
        write_call("echo", [["x"] * 40_000]),
        write_call("echo", [{str(n): "x" for n in range(20_000)}]),
        write_call("system.listMethods", []),
        write_call("echo", []),
        write_call("echo", ["a"] * 50),
        b"\xff\xfe\x00<",
        b'<?xml version="1.0" encoding="utf-7"?><methodCall/>',
    ],
)
def test_invalid_calls(server, body):
    """The response is a fault, as R48 demands for the Web Profile, and shows no path and no internals (R38)."""
    with RawClient(server.port, post(body)) as client:
        response = client.receive()
    assert response.status == 200
    with pytest.raises(SAMPProxyError) as caught:
        read_response(response.body)
    assert "/" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


# Descriptors

EXHAUSTED = """
import os, resource, socket, threading, time
from pyvo.samp.transport.event_loop import EventLoop
from pyvo.samp.transport.xmlrpc_client import XMLRPCClient
from pyvo.samp.transport.xmlrpc_handler import XMLRPCHandler
from pyvo.samp.transport.server import XMLRPCServer

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
loop = EventLoop()
loop.start()
server = XMLRPCServer(("127.0.0.1", 0), loop, XMLRPCHandler({"echo": lambda text: text}))
server.start()
print(server.port, flush=True)
command = input()
filled = []
while command == "fill":
    try:
        filled.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
print("full", flush=True)
input()
before = time.process_time()
print("measuring", flush=True)
input()
print(time.process_time() - before, flush=True)
for number in filled:
    os.close(number)
input()
loop.call_soon(server.stop)
loop.stop()
print(len(os.listdir("/dev/fd")), threading.active_count(), flush=True)
"""


def start_exhausted(directory: Path) -> subprocess.Popen[str]:
    """Start a server in another process, which may open only a few files."""
    script = directory / "exhausted.py"
    script.write_text(EXHAUSTED)
    return subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="this system has no limit of this kind")
def test_without_free_descriptors_the_server_does_not_spin_and_recovers(tmp_path):
    """The kernel reports all the time that connections wait in the backlog, but the server cannot accept them."""
    with start_exhausted(tmp_path) as process, ExitStack() as stack:
        assert process.stdin is not None
        assert process.stdout is not None

        def command(word: str) -> str:
            print(word, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        port = int(process.stdout.readline())
        assert command("fill") == "full"
        clients = [stack.enter_context(RawClient(port, call("echo", str(n)))) for n in range(20)]
        assert command("") == "measuring"
        clients[0].sock.settimeout(1.0)
        with pytest.raises(TimeoutError):
            clients[0].sock.recv(1)
        clients[0].sock.settimeout(TIMEOUT)
        assert float(command("")) < 0.3  # seconds of CPU in one second
        for number, client in enumerate(clients):
            assert read_response(client.receive().body) == str(number)
        left, threads = command("").split()
        assert int(left) <= 4
        assert int(threads) == 1
        _, errors = process.communicate(timeout=TIMEOUT)
        assert errors.count("cannot be accepted") == 1
        assert "Traceback" not in errors


@pytest.mark.skipif(os.name == "nt", reason="this system has no limit of this kind")
def test_more_connections_than_descriptors(tmp_path):
    """The limit of connections is lower than that of descriptors: the server closes the oldest idle connections."""
    with start_exhausted(tmp_path) as process, ExitStack() as stack:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for _ in range(300):
            stack.enter_context(RawClient(port))
        with RawClient(port, call("echo", "newest")) as client:
            assert read_response(client.receive().body) == "newest"
        output, errors = process.communicate("no\n" * 5, timeout=TIMEOUT)
        assert output.split()[-1] == "1"
        assert "Traceback" not in errors
