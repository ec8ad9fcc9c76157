# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The server over real connections: immediate and deferred responses, failing handlers, limits, and the stop."""

from __future__ import annotations

import gc
import logging
import socket
import struct
import threading
import weakref
import xmlrpc.client
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from xmlrpc.server import SimpleXMLRPCServer

import pytest

from pyvo.samp.transport import server as server_module
from pyvo.samp.transport import server_connection
from pyvo.samp.transport.http11 import HTTPError, HTTPRequest, Response
from pyvo.samp.transport.server import XMLRPCServer, max_sockets
from pyvo.samp.transport.server_connection import DeferredResponse, ServerConnection
from pyvo.samp.transport.xmlrpc_reader import read_response

from .peers import TIMEOUT, RawClient, call, eventually, in_loop, post

MiB = 1024 * 1024


class Scripted:
    """A handler whose responses a test sets, by path."""

    def __init__(self, **responses: Callable[[HTTPRequest, ServerConnection], Any]) -> None:
        self.responses = responses
        self.connections: list[ServerConnection] = []

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        self.connections.append(connection)
        return self.responses[request.target.strip("/")](request, connection)

    def error_response(self, error: HTTPError) -> Response:
        return Response(error.status, str(error).encode())


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET /{path} HTTP/1.1", *lines, "", ""]).encode()


# Responses


def test_clients_of_the_standard_library_are_served(server):
    with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{server.port}/RPC2") as proxy:
        for number in range(5):
            assert proxy.echo(f"text {number}") == f"text {number}"
        assert server.connections == 1


def test_the_introspection_of_the_standard_library_is_not_offered(server):
    """R38."""
    assert isinstance(server, SimpleXMLRPCServer)
    with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{server.port}/") as proxy:
        for method in ("listMethods", "methodSignature", "methodHelp", "multicall"):
            with pytest.raises(xmlrpc.client.Fault, match="no method"):
                getattr(proxy.system, method)()


def test_a_connection_is_kept_or_closed_as_the_client_requests(server):
    with RawClient(server.port) as client:
        for _ in range(3):
            client.send(call("echo", "a"))
            response = client.receive()
            assert response.headers["connection"] == "keep-alive"
            assert read_response(response.body) == "a"
        client.send(post(call("echo", "b").partition(b"\r\n\r\n")[2], "Connection: close"))
        response = client.receive()
        assert response.headers["connection"] == "close"
        assert client.rest() == b""


def test_a_request_of_ds9(server):
    """DS9 sends HTTP/1.0, line feeds and no Host, and needs a Content-Length and the end of the connection."""
    body = call("echo", "ds9").partition(b"\r\n\r\n")[2]
    with RawClient(server.port, post(body, "User-Agent: XML-RPC", version="1.0", end="\n")) as client:
        response = client.receive()
        assert read_response(response.body) == "ds9"
        assert int(response.headers["content-length"]) == len(response.body)
        assert client.rest() == b""


def test_the_response_to_head_has_no_body(make_server):
    server = make_server(Scripted(x=lambda *_: Response(200, b"body")))
    with RawClient(server.port, b"HEAD /x HTTP/1.1\r\n\r\n" + get("x")) as client:
        assert client.receive(with_body=False).headers["content-length"] == "4"
        assert client.receive().body == b"body"


def test_responses_to_pipelined_requests_are_in_order(server, loop, operations):
    """The order is kept even if an earlier response is deferred."""
    data = b"".join(call("echo", f"a{n}") for n in range(50))
    with RawClient(server.port, data + call("wait", "b") + data + call("wait", "c") + call("echo", "d")) as client:
        for number in range(50):
            assert read_response(client.receive().body) == f"a{number}"
        eventually(loop, lambda: operations.calls[-1] == "b")
        operations.waiting[0].set_result("later")
        assert read_response(client.receive().body) == "later"
        for number in range(50):
            assert read_response(client.receive().body) == f"a{number}"
        eventually(loop, lambda: operations.calls[-1] == "c")
        in_loop(loop, operations.waiting[1].set_result, "in the loop")
        assert read_response(client.receive().body) == "in the loop"
        assert read_response(client.receive().body) == "d"


@pytest.mark.skipif(not hasattr(socket, "MSG_MORE"), reason="this system sends the responses one by one")
def test_pipelined_responses_are_sent_together_without_waiting(server, loop, operations):
    """A response waits for the next one only while the handler is making the next one."""
    fcntl = pytest.importorskip("fcntl")
    unsent = 0x894B  # SIOCOUTQNSD of Linux: bytes that the kernel has not sent yet

    def held_back() -> int:
        (connection,) = server.table._connections
        return struct.unpack("i", fcntl.ioctl(connection._sock, unsent, bytes(4)))[0]

    for later in (call("wait", "b"), call("echo", "b")[:-9]):  # one is deferred, the other request is incomplete
        operations.calls.clear()
        with RawClient(server.port, call("echo", "a") + call("echo", "a2") + later) as client:
            eventually(loop, lambda: operations.calls[-1:] in (["b"], ["a2"]))
            assert in_loop(loop, held_back) == 0
            assert [read_response(client.receive().body) for _ in range(2)] == ["a", "a2"]
        eventually(loop, lambda: not server.table._connections)


def test_many_pipelined_responses_cause_no_recursion(make_server):
    """Each response is a `DeferredResponse` that already has its result."""

    def at_once(*_: object) -> DeferredResponse:
        deferred = DeferredResponse()
        deferred.set_result(Response(200, b"x"))
        return deferred

    server = make_server(Scripted(x=at_once))
    with RawClient(server.port, get("x") * 2500) as client:
        assert [client.receive().body for _ in range(2500)] == [b"x"] * 2500


def test_expect_100_continue(server):
    head, _, body = call("echo", "asked").partition(b"\r\n\r\n")
    with RawClient(server.port, head + b"\r\nExpect: 100-continue\r\n\r\n") as client:
        assert client.receive().status == 100
        client.send(body)
        assert read_response(client.receive().body) == "asked"


def test_a_client_that_shuts_down_its_writing_side_gets_responses(server):
    """``nc`` and small scripts shut down the writing side after their requests."""
    with RawClient(server.port, call("echo", "a") + call("repeat", "x", str(8 * MiB)) + call("echo", "b")) as client:
        client.end()
        assert read_response(client.receive().body) == "a"
        assert len(client.receive().body) > 8 * MiB
        assert read_response(client.receive().body) == "b"
        assert client.rest() == b""


def test_a_client_that_shuts_down_its_writing_side_gets_no_deferred_response(server, loop, operations):
    """The server cannot distinguish such a client from one that has closed the connection."""
    with RawClient(server.port, call("wait")) as client:
        client.end()
        assert client.rest() == b""
    eventually(loop, lambda: server.connections == 0)
    assert operations.waiting[0].state == "cancelled"
    with RawClient(server.port, call("repeat", "x", str(8 * MiB)) + call("wait")) as client:
        client.end()
        assert len(client.receive().body) > 8 * MiB
        assert client.rest() == b""
    eventually(loop, lambda: server.connections == 0)
    assert operations.waiting[1].state == "cancelled"


def test_large_messages(server, loop):
    text = "0123456789abcdef" * (MiB // 2)
    with RawClient(server.port, call("echo", text)) as client:
        assert read_response(client.receive().body) == text
        eventually(loop, lambda: server.table._reserved == 0)


def test_200_connections_at_once(server):
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, call("echo", str(n)))) for n in range(200)]
        for number, client in enumerate(clients):
            assert read_response(client.receive().body) == str(number)
        assert server.connections == 200


def test_500_idle_connections_do_not_affect_other_clients(many_files, server, loop):
    threads = threading.active_count()
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(500)]
        eventually(loop, lambda: server.connections == 500)
        with RawClient(server.port, call("echo", "fine")) as client:
            assert read_response(client.receive().body) == "fine"
        assert threading.active_count() == threads
        assert len(idle) == 500
    eventually(loop, lambda: server.connections == 0)
    assert not server.table._idle


def test_ipv6(loop):
    try:
        server = XMLRPCServer(("::1", 0), loop, Scripted(x=lambda *_: Response(200, b"six")))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server.start()
    with socket.create_connection(("::1", server.port), TIMEOUT) as sock:
        sock.sendall(get("x", "Connection: close"))
        assert sock.makefile("rb").read().endswith(b"six")
    in_loop(loop, server.stop)


def test_a_port_in_use_is_an_error_at_once(server, loop):
    with pytest.raises(OSError, match=r"."):
        XMLRPCServer(("127.0.0.1", server.port), loop, Scripted())


# Deferred responses


def test_a_deferred_response_from_another_thread(server, loop, operations):
    with RawClient(server.port, call("wait") + call("echo", "next")) as client:
        eventually(loop, lambda: operations.waiting)
        sent: list[bool] = []
        operations.waiting[0].on_sent = sent.append
        assert operations.waiting[0].set_result("now")
        assert not operations.waiting[0].set_result("again")
        assert not operations.waiting[0].set_exception(ValueError())
        assert not operations.waiting[0].cancel()
        assert read_response(client.receive().body) == "now"
        assert read_response(client.receive().body) == "next"
        assert sent == [True]


def test_many_threads_that_set_the_result_of_one_response(server, loop, operations):
    """The first result counts, and `set_result` returns False to the other threads."""
    with RawClient(server.port) as client:
        for _ in range(30):
            client.send(call("wait"))
            eventually(loop, lambda: operations.waiting)
            deferred = operations.waiting.pop()
            won: list[int] = []
            gate = threading.Barrier(5)

            def finish(own: int, deferred: DeferredResponse = deferred, won: list[int] = won, gate: Any = gate) -> None:
                gate.wait(TIMEOUT)
                if deferred.set_result(str(own)):
                    won.append(own)

            threads = [threading.Thread(target=finish, args=(own,)) for own in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
            assert len(won) == 1
            assert read_response(client.receive().body) == str(won[0])


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_deferred_response_is_cancelled_when_the_client_is_gone(server, loop, operations, how):
    client = RawClient(server.port, call("wait"))
    eventually(loop, lambda: operations.waiting)
    deferred = operations.waiting[0]
    gone = threading.Event()
    deferred.add_cancel_callback(gone.set)
    getattr(client, how)()
    assert gone.wait(TIMEOUT)
    assert not deferred.set_result("too late")
    late = threading.Event()
    deferred.add_cancel_callback(late.set)
    assert late.is_set()
    eventually(loop, lambda: server.connections == 0)


def test_responses_that_are_set_while_the_client_disconnects_are_reported_once(make_server, loop):
    """Exactly one of these happens: the response is reported as sent, reported as not sent, or not accepted."""
    waiting: list[DeferredResponse] = []

    def wait(*_: object) -> DeferredResponse:
        deferred = DeferredResponse()
        reports.append([])
        deferred.on_sent = reports[-1].append
        deferred.add_cancel_callback(lambda own=reports[-1]: own.append("cancelled"))
        waiting.append(deferred)
        return deferred

    reports: list[list[Any]] = []
    server = make_server(Scripted(x=wait))
    for number in range(100):
        client = RawClient(server.port, get("x"))
        eventually(loop, lambda number=number: len(waiting) > number)
        closer = threading.Thread(target=client.close)
        closer.start()
        was_accepted = waiting[number].set_result(Response(200))
        closer.join()
        eventually(loop, lambda: server.connections == 0)
        assert reports[number] in ([[True], [False]] if was_accepted else [["cancelled"]])
    assert len(reports) == 100


def test_a_response_that_is_set_just_before_the_connection_ends_is_reported(server, loop, operations):
    """`set_result` succeeds while the loop is busy; then the loop notices the end of the connection first."""
    entered, gate = threading.Event(), threading.Event()

    def be_busy() -> None:
        entered.set()
        gate.wait(TIMEOUT)

    client = RawClient(server.port, call("wait"))
    eventually(loop, lambda: operations.waiting)
    sent: list[bool] = []
    operations.waiting[0].on_sent = sent.append
    loop.call_soon(be_busy)
    assert entered.wait(TIMEOUT)
    assert operations.waiting[0].set_result("x")
    client.close()
    gate.set()
    eventually(loop, lambda: server.connections == 0)
    in_loop(loop, int)
    assert sent == [False]


def test_a_response_that_cannot_be_delivered_is_reported(make_server, loop):
    """The client resets the connection while it receives the response."""
    sent: list[bool] = []

    def large(*_: object) -> DeferredResponse:
        deferred = DeferredResponse()
        deferred.on_sent = sent.append
        deferred.set_result(Response(200, bytes(32 * MiB)))
        return deferred

    server = make_server(Scripted(x=large))
    client = RawClient(server.port, get("x"))
    assert client.sock.recv(10)
    assert sent == []
    client.reset()
    eventually(loop, lambda: server.connections == 0)
    assert sent == [False]
    assert server.table._reserved == 0


def test_the_exception_of_a_deferred_response_is_logged(make_server, loop, caplog):
    waiting: list[DeferredResponse] = []

    def wait(*_: object) -> DeferredResponse:
        waiting.append(DeferredResponse())
        return waiting[-1]

    server = make_server(Scripted(x=wait, y=lambda *_: Response(200, b"fine")))
    with RawClient(server.port, get("x") + get("y")) as client:
        eventually(loop, lambda: waiting)
        waiting[0].set_exception(ValueError("a secret"))
        response = client.receive()
        assert (response.status, response.body) == (500, b"Internal error")
        assert client.receive().body == b"fine"
    assert "a secret" in caplog.text


def test_callbacks_that_fail_are_logged(make_server, loop, caplog):
    def fail(*_: object) -> None:
        raise ValueError("listener")

    def wait(_request: HTTPRequest, connection: ServerConnection) -> DeferredResponse:
        deferred = DeferredResponse()
        deferred.add_cancel_callback(fail)
        deferred.on_sent = fail
        connection.close_callbacks = {1: fail, 2: fail}
        waiting.append(deferred)
        return deferred

    waiting: list[DeferredResponse] = []
    server = make_server(Scripted(x=wait))
    with RawClient(server.port, get("x")) as client:
        eventually(loop, lambda: waiting)
        waiting[0].set_result(Response(200, b"a"))
        assert client.receive().body == b"a"
        client.send(get("x"))
        eventually(loop, lambda: len(waiting) == 2)
    eventually(loop, lambda: server.connections == 0)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError] * 4


def test_a_finished_response_keeps_no_reference_to_callbacks():
    class Thing:
        def note(self, *_: object) -> None:
            """Do nothing."""

    for finish in (lambda d: d.set_result(1), DeferredResponse.cancel):
        thing = Thing()
        deferred = DeferredResponse()
        deferred.add_done_callback(thing.note)
        deferred.add_cancel_callback(thing.note)
        reference = weakref.ref(thing)
        del thing
        finish(deferred)
        assert reference() is None


def test_a_chain_of_connections_that_resolve_each_other_causes_no_recursion(make_server, loop):
    """Each connection's second request resolves the response that the next connection waits for."""
    number = 300
    waiting: list[DeferredResponse] = []

    def wait(*_: object) -> DeferredResponse:
        waiting.append(DeferredResponse())
        return waiting[-1]

    def resolve(request: HTTPRequest, _connection: ServerConnection) -> Response:
        own = int(request.headers["x-next"])
        if own < number:
            waiting[own].set_result(Response(200, b"resolved"))
        return Response(200, b"done")

    server = make_server(Scripted(wait=wait, resolve=resolve))
    with ExitStack() as stack:
        clients = []
        for own in range(number):
            clients.append(
                stack.enter_context(RawClient(server.port, get("wait") + get("resolve", f"X-Next: {own + 1}")))
            )
            eventually(loop, lambda own=own: len(waiting) == own + 1)
        waiting[0].set_result(Response(200, b"resolved"))
        for client in clients:
            assert client.receive().body == b"resolved"
            assert client.receive().body == b"done"


# Handlers that fail, or that close or detach the connection


def test_a_handler_that_fails(make_server, loop, caplog):
    def fail(*_: object) -> Response:
        raise ValueError("a secret")

    def fail_closed(_request: HTTPRequest, connection: ServerConnection) -> Response:
        connection.close()
        raise ValueError("another")

    server = make_server(Scripted(x=fail, n=lambda *_: None, c=fail_closed))
    with RawClient(server.port, get("x") + get("n") + get("x")) as client:
        for _ in range(3):
            response = client.receive()
            assert (response.status, response.body) == (500, b"Internal error")
        client.send(get("c"))
        assert client.rest() == b""
    in_loop(loop, int)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "a secret",
        "the handler returned no response",
        "a secret",
        "another",
    ]


def test_a_handler_that_closes_the_connection(make_server, loop):
    def close(_request: HTTPRequest, connection: ServerConnection) -> Response:
        connection.close()
        connection.close()
        return Response(200)

    deferred = DeferredResponse()

    def close_and_wait(_request: HTTPRequest, connection: ServerConnection) -> DeferredResponse:
        connection.close()
        return deferred

    server = make_server(Scripted(x=close, y=close_and_wait))
    for path in "xy":
        with RawClient(server.port, get(path)) as client:
            assert client.rest() == b""
    eventually(loop, lambda: server.connections == 0)
    assert deferred.state == "cancelled"


def test_another_thread_responds_on_a_detached_connection(make_server, loop):
    threads: list[str] = []

    def detach(_request: HTTPRequest, connection: ServerConnection) -> None:
        loop.run_in_worker(response, connection.detach())

    def response(sock: socket.socket) -> None:
        threads.append(threading.current_thread().name)
        try:
            sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            for _ in range(10):
                sock.sendall(bytes(MiB))
        finally:
            server.table.close_detached(sock)

    server = make_server(Scripted(x=detach))
    with RawClient(server.port, get("x")) as client:
        assert client.receive().status == 200
        assert len(client.rest()) == 10 * MiB
    assert threads[0].startswith("test-loop-worker")
    assert server.connections == 0
    assert not server.table._detached


def test_stop_wakes_the_thread_of_a_detached_connection(make_server, loop):
    ended = threading.Event()

    def response(sock: socket.socket) -> None:
        try:
            while sock.recv(1000):  # no data arrive
                pass
        finally:
            server.table.close_detached(sock)
            ended.set()

    def detach(_request: HTTPRequest, connection: ServerConnection) -> None:
        loop.run_in_worker(response, connection.detach())

    server = make_server(Scripted(x=detach))
    with RawClient(server.port, get("x")) as client:
        eventually(loop, lambda: server.table._detached)
        in_loop(loop, server.stop)
        assert ended.wait(TIMEOUT)
        assert client.rest() == b""


def test_a_handler_that_fails_after_it_has_detached(make_server, caplog):
    def detach(_request: HTTPRequest, connection: ServerConnection) -> None:
        connection.detach()
        raise ValueError("after that")

    server = make_server(Scripted(x=detach))
    with RawClient(server.port, get("x")) as client:
        assert client.rest() == b""
    assert "after that" in caplog.text
    assert not server.table._detached


def test_the_state_of_the_peer(make_server, loop):
    seen: list[Any] = []

    def record_state(_request: HTTPRequest, connection: ServerConnection) -> Response:
        seen.append((connection.peer, connection.peer_is_open(), connection.has_no_input()))
        return Response(200)

    handler = Scripted(x=record_state)
    server = make_server(handler)
    client = RawClient(server.port, get("x"))
    assert client.receive().status == 200
    assert seen == [(client.sock.getsockname(), True, True)]
    closed = threading.Event()
    handler.connections[0].close_callbacks[1] = closed.set
    client.reset()
    assert closed.wait(TIMEOUT)
    assert handler.connections[0].was_reset
    assert not handler.connections[0].peer_is_open()
    assert not handler.connections[0].has_no_input()


# Limits


def test_above_the_limit_the_longest_idle_connection_is_closed(make_server, loop):
    server = make_server(Scripted(x=lambda *_: Response(200)), max_connections=3)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, get("x"))) for _ in range(3)]
        for client in clients:
            client.receive()
        clients[0].send(get("x"))  # now the second one has been idle for the longest time
        clients[0].receive()
        new_client = stack.enter_context(RawClient(server.port, get("x")))
        assert new_client.receive().status == 200
        assert clients[1].rest() == b""
        eventually(loop, lambda: server.connections == 3)


def test_above_the_limit_no_busy_connection_is_closed(make_server, loop):
    """If all connections are busy, the server closes the new one."""
    server = make_server(Scripted(x=lambda *_: DeferredResponse()), max_connections=2)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, get("x"))) for _ in range(2)]
        eventually(loop, lambda: server.connections == 2 and not server.table._idle)
        new_client = stack.enter_context(RawClient(server.port))
        assert new_client.rest() == b""
        new_client = stack.enter_context(RawClient(server.port, get("x")))
        assert new_client.rest() == b""
        eventually(loop, lambda: server.connections == 2)
        for client in clients:
            client.sock.setblocking(False)
            with pytest.raises(BlockingIOError):  # not closed, and no response yet
                client.sock.recv(1)


def test_idle_connections_are_closed_after_the_timeout(make_server, loop, monkeypatch):
    monkeypatch.setattr(server_connection, "IDLE_TIMEOUT", 0.02)
    server = make_server(Scripted(x=lambda *_: Response(200)))
    with RawClient(server.port) as one, RawClient(server.port, get("x")) as other:
        assert other.receive().status == 200
        assert one.rest() == other.rest() == b""
    eventually(loop, lambda: server.connections == 0 and server.table._sweep is None)


def test_a_waiting_connection_is_not_idle(make_server, loop, monkeypatch):
    monkeypatch.setattr(server_connection, "IDLE_TIMEOUT", 0.02)
    waiting: list[DeferredResponse] = []

    def wait(*_: object) -> DeferredResponse:
        waiting.append(DeferredResponse())
        loop.call_later(0.1, waiting[-1].set_result, Response(200, b"later"))
        return waiting[-1]

    server = make_server(Scripted(x=wait))
    with RawClient(server.port, get("x")) as client:
        assert client.receive().body == b"later"


def test_max_sockets():
    assert 64 <= max_sockets() <= 20_000


def test_without_descriptors_there_is_a_pause_and_one_warning(make_server, loop, caplog, monkeypatch):
    """The kernel reports the new connection again and again; the loop must neither spin nor stop accepting."""
    monkeypatch.setattr(server_module, "ACCEPT_PAUSE", 0.01)
    server = make_server(Scripted(x=lambda *_: Response(200)))
    accept = server.socket.accept
    failures = iter([24, 23, 24, 103, 24])  # EMFILE, ENFILE, ECONNABORTED

    class Listener:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def accept(self) -> Any:
            for number in failures:
                raise OSError(number, "no")
            return accept()

    real = server.socket
    server.socket = Listener()  # type: ignore[assignment]
    caplog.set_level(logging.WARNING)
    with RawClient(server.port, get("x")) as client:
        assert client.receive().status == 200
    server.socket = real
    assert len(caplog.records) == 1


def test_without_descriptors_an_idle_connection_is_closed(make_server, loop, monkeypatch):
    monkeypatch.setattr(server_module, "ACCEPT_PAUSE", 3600)
    server = make_server(Scripted(x=lambda *_: Response(200)))
    with RawClient(server.port, get("x")) as idle:
        idle.receive()
        in_loop(loop, server._on_accept_error, OSError(24, "Too many open files"))
        assert idle.rest() == b""
    with RawClient(server.port, get("x")) as client:
        assert client.receive().status == 200


# Stop


def test_a_connection_that_is_closed_before_it_is_used(make_server, loop, monkeypatch):
    """On macOS, the options of its socket cannot be set then. The server leaves no descriptor open."""
    server = make_server(Scripted(x=lambda *_: Response(200)))
    failures = [OSError(22, "Invalid argument")]

    class FailingConnection(ServerConnection):
        def __init__(self, *args: Any) -> None:
            if failures:
                raise failures.pop()
            super().__init__(*args)

    monkeypatch.setattr(server_module, "ServerConnection", FailingConnection)
    with RawClient(server.port) as client:
        assert client.rest() == b""
    with RawClient(server.port, get("x")) as client:
        assert client.receive().status == 200


def test_stop_closes_everything_and_cancels_deferred_responses(make_server, loop):
    waiting: list[DeferredResponse] = []

    def wait(*_: object) -> DeferredResponse:
        waiting.append(DeferredResponse())
        return waiting[-1]

    server = make_server(Scripted(x=wait, y=lambda *_: Response(200)))
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.port, get("x"))) for _ in range(5)]
        idle = stack.enter_context(RawClient(server.port, get("y")))
        idle.receive()
        eventually(loop, lambda: len(waiting) == 5)
        in_loop(loop, server.stop)
        in_loop(loop, server.stop)
        assert [deferred.state for deferred in waiting] == ["cancelled"] * 5
        for client in (*clients, idle):
            assert client.rest() == b""
    assert server.connections == 0
    with pytest.raises(ConnectionRefusedError):
        RawClient(server.port)


def test_stop_listening_keeps_open_connections(make_server, loop):
    server = make_server(Scripted(y=lambda *_: Response(200, b"last")))
    with RawClient(server.port, get("y")) as client:
        client.receive()
        in_loop(loop, server.stop_listening)
        with pytest.raises(ConnectionRefusedError):
            RawClient(server.port)
        client.send(get("y"))
        response = client.receive()
        assert (response.body, response.headers["connection"]) == (b"last", "close")


def test_a_server_that_was_stopped_before_it_was_started(loop):
    server = XMLRPCServer(("127.0.0.1", 0), loop, Scripted())
    in_loop(loop, server.stop)
    server.start()
    in_loop(loop, int)
    with pytest.raises(ConnectionRefusedError):
        RawClient(server.port)


def test_a_response_that_is_set_after_the_stop_is_not_accepted(make_server, loop):
    deferred = DeferredResponse()
    server = make_server(Scripted(x=lambda *_: deferred))
    with RawClient(server.port, get("x")) as client:
        eventually(loop, lambda: not server.table._idle and server.connections)
        loop.call_soon(server.stop)
        loop.stop()
        assert not deferred.set_result(Response(200))
        assert client.rest() == b""


def test_no_reference_to_a_closed_connection_is_kept(make_server, loop):
    handler = Scripted(x=lambda *_: Response(200))
    server = make_server(handler)
    with RawClient(server.port, get("x")) as client:
        client.receive()
    eventually(loop, lambda: server.connections == 0)
    reference = weakref.ref(handler.connections.pop())
    in_loop(loop, int)
    gc.collect()
    assert reference() is None


# Timeouts (test_hostile.py has more hostile clients)


def test_a_slow_request_is_rejected(server, loop, monkeypatch):
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 0.03)
    for data in (b"P", b"POST / HTTP/1.1\r\nContent-Length: 10\r\n", post(b"12345", length=10)):
        with RawClient(server.port, data) as client:
            assert client.receive().status == 408
            assert client.rest() == b""


def test_the_handler_of_an_error_gets_the_head_of_the_request(make_server, monkeypatch):
    """The error response may have to state which page may read it (R48)."""
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 0.03)
    heads: list[Any] = []

    class RecordingHandler(Scripted):
        def error_response(self, error: HTTPError) -> Response:
            heads.append((error.status, error.head and (error.head[0], error.head[1].get("origin"))))
            return super().error_response(error)

    server = make_server(RecordingHandler(), max_body=MiB, max_buffered=100_000)
    for data in (
        post(b"x", "Origin: a", length=2),
        post(b"x" * 300_000, "Origin: b", length=400_000),
        post(b"", "Origin: c", length=2 * MiB),
        post(b"x", "Origin: d", "Content-Encoding: gzip"),
        b"POST / HTTP/1.1\r\nOrigin: e\r\n\r\n",
        b"POST / HTTP/1.1\r\nOrigin: f\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nOrigin: f\r\n",
        b"nonsense\r\n",
    ):
        with RawClient(server.port, data) as client:
            client.receive()
    assert heads == [
        (408, ("POST", "a")),
        (503, ("POST", "b")),
        (413, ("POST", "c")),
        (400, ("POST", "d")),
        (411, ("POST", "e")),
        (400, ("POST", "f")),
        (408, None),
        (400, None),
    ]


def test_a_slow_reader_is_disconnected(server, loop, monkeypatch):
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT", 0.03)
    with RawClient(server.port, call("repeat", "x", str(16 * MiB))) as client:
        assert client.sock.recv(1, socket.MSG_PEEK)
        eventually(loop, lambda: server.connections == 0)
        assert len(client.rest()) < 16 * MiB
    assert server.table._reserved == 0


def test_progress_extends_the_timeout(server, loop, monkeypatch):
    """A request and a response have more time while their bytes arrive."""
    monkeypatch.setattr(server_connection, "MIN_PROGRESS", 1)
    monkeypatch.setattr(server_connection, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT", 0.1)

    size = 32 * MiB
    data = call("repeat", "z" * 1024, str(size // 1024))
    with RawClient(server.port, data[:-100]) as client:
        eventually(loop, lambda: server.connections)
        (connection,) = server.table._connections
        timer = in_loop(loop, lambda: connection._deadline)
        eventually(loop, lambda: connection._deadline is not timer)
        client.send(data[-100:])
        response = client.file.read(MiB)
        timer = in_loop(loop, lambda: connection._deadline)
        while in_loop(loop, lambda: connection._deadline) is timer:
            response += client.file.read(4096)
        client.end()
        response += client.rest()
        assert response.count(b"z") == size
