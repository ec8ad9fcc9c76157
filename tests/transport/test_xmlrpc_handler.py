# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The handler checks calls of operations, and turns errors into faults."""

from __future__ import annotations

import logging
import threading
import xmlrpc.client
from typing import Any

import pytest

from pyvo.samp.errors import SAMPClientError, SAMPProxyError, SAMPTransportError, SAMPValueError
from pyvo.samp.transport.http11 import HTTPError, HTTPRequest, Response
from pyvo.samp.transport.server_connection import DeferredResponse, ServerConnection
from pyvo.samp.transport.xmlrpc_handler import XMLRPCHandler
from pyvo.samp.transport.xmlrpc_reader import read_response
from pyvo.samp.transport.xmlrpc_writer import PreEncoded, write_call

from .peers import RawClient, eventually, post

FAULTY = SAMPProxyError(7, "not today")


class Operations:
    """Operations with various parameters and results."""

    def __init__(self) -> None:
        self.handler: XMLRPCHandler | None = None
        self.deferred = DeferredResponse()
        self.calls: list[Any] = []

    def nothing(self) -> str:
        return ""

    def three(self, text: str, items: list[str], table: dict[str, Any]) -> str:
        return f"{text} {len(items)} {len(table)}"

    def some(self, text: str, more: str = "x", *rest: Any) -> list[Any]:
        return [text, more, *rest]

    def two(self, a: str, b: str = "x") -> str:
        return a + b

    def anything(self, value: Any) -> Any:
        return value

    def fail(self, how: str) -> str:
        raise {
            "fault": FAULTY,
            "samp": SAMPClientError("no such client"),
            "value": SAMPValueError("samp.params/x is wrong"),
            "transport": SAMPTransportError("it is gone"),
            "bug": KeyError("/home/me/secret"),
            "control": SAMPProxyError(1, "a\x00b\x1b\ud800"),
        }[how]

    def result(self, kind: str) -> Any:
        raw = PreEncoded(b"<value><string>raw</string></value>")
        return {"none": None, "bytes": b"x", "object": object(), "raw": raw}[kind]

    def later(self) -> DeferredResponse:
        return self.deferred

    def current(self, table: dict[str, Any]) -> str:
        assert self.handler is not None
        current = self.handler.current_call
        assert current is not None
        self.calls.append(current)
        return str(current.method_call.params == [table])

    def stop(self) -> str:
        raise SystemExit


@pytest.fixture
def operations() -> Operations:
    return Operations()


@pytest.fixture
def handler(operations: Operations) -> XMLRPCHandler:
    names = [name for name in vars(Operations) if not name.startswith("_")]
    operations.handler = XMLRPCHandler({f"test.{name}": getattr(operations, name) for name in names})
    return operations.handler


class NoConnection:
    """Takes the place of a connection when no socket is needed."""


def call(handler: XMLRPCHandler, body: bytes) -> Any:
    """Handle a body, and return the value of the response or raise its fault."""
    request = HTTPRequest("POST", "/", {}, body, True)
    response = handler.handle(request, NoConnection())  # type: ignore[arg-type]
    assert isinstance(response, Response)
    assert (response.status, response.content_type) == (200, "text/xml")
    return read_response(response.body)


def fault(handler: XMLRPCHandler, method: str, *params: Any) -> str:
    with pytest.raises(SAMPProxyError) as caught:
        call(handler, write_call(method, params))
    assert handler.current_call is None
    return str(caught.value)


def test_parameters_and_results(handler):
    for method, params, result in [
        ("nothing", (), ""),
        ("three", ("a", ["b"], {"c": "d"}), "a 1 1"),
        ("some", ("a",), ["a", "x"]),
        ("some", ("a", "b", "c", ["d"]), ["a", "b", "c", ["d"]]),
        ("two", ("a",), "ax"),
        ("two", ("a", "b"), "ab"),
        ("anything", ({"a": ["b", {}]},), {"a": ["b", {}]}),
        ("result", ("raw",), "raw"),
    ]:
        assert call(handler, write_call(f"test.{method}", params)) == result


@pytest.mark.parametrize(
    ("method", "params", "text"),
    [
        ("nothing", ("a",), "test.nothing takes 0 parameters, 1 were given"),
        ("three", (), "test.three takes 3 parameters, 0 were given"),
        ("three", ("a", [], {}, "d"), "test.three takes 3 parameters, 4 were given"),
        ("some", (), "test.some takes 1 or more parameters, 0 were given"),
        ("two", (), "test.two takes 1 to 2 parameters, 0 were given"),
        ("two", ("a",) * 1000, "test.two takes 1 to 2 parameters, 1000 were given"),
        ("three", (["a"], [], {}), "Parameter 1 of test.three is a list but must be a string"),
        ("three", ("a", {}, {}), "Parameter 2 of test.three is a map but must be a list"),
        ("three", ("a", [], "c"), "Parameter 3 of test.three is a string but must be a map"),
        ("two", ("a", []), "Parameter 2 of test.two is a list but must be a string"),
    ],
)
def test_parameters_of_the_wrong_number_or_type(handler, method, params, text):
    assert fault(handler, f"test.{method}", *params) == text


@pytest.mark.parametrize("annotations", [True, False])
def test_annotations_may_be_types_or_their_names(annotations):
    def operation(text, table): ...

    operation.__annotations__ = (
        {"text": str, "table": dict} if annotations else {"text": "str", "table": "dict[str, Any]"}
    )
    handler = XMLRPCHandler({"x": operation})
    assert fault(handler, "x", [], {}) == "Parameter 1 of x is a list but must be a string"
    assert fault(handler, "x", "", []) == "Parameter 2 of x is a list but must be a map"


@pytest.mark.parametrize(
    "name",
    ["x", "test", "Test.nothing", "system.listMethods", "system.methodHelp", "system.multicall", "__init__"],
)
def test_unknown_methods(handler, name):
    """R38: the methods for introspection do not exist either."""
    assert "There is no method" in fault(handler, name)


def test_a_fault_does_not_repeat_a_long_method_name(handler):
    assert len(fault(handler, "x" * 100_000)) < 200


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("fault", 7, "not today"),
        ("samp", 1, "no such client"),
        ("value", 1, "samp.params/x is wrong"),
        ("transport", 1, "it is gone"),
    ],
)
def test_expected_errors_become_faults(handler, caplog, how, code, text):
    with pytest.raises(SAMPProxyError) as caught:
        call(handler, write_call("test.fail", [how]))
    assert (caught.value.faultCode, caught.value.faultString) == (code, text)
    assert not caplog.records


def test_an_unexpected_error_is_logged_but_not_described(handler, caplog):
    """R38: the client gets only "Internal error"."""
    caplog.set_level(logging.ERROR)
    assert fault(handler, "test.fail", "bug") == "Internal error"
    assert "secret" in caplog.text


def test_a_fault_whose_text_cannot_be_written(handler):
    """The response can still be read."""
    assert fault(handler, "test.fail", "control")


@pytest.mark.parametrize("kind", ["none", "bytes", "object"])
def test_a_result_that_cannot_be_written(handler, caplog, kind):
    assert fault(handler, "test.result", kind)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"no XML",
        b"<methodCall>",
        b"<methodCall></methodCall>",
        b"<html></html>",
        b"<methodResponse><params></params></methodResponse>",
        b"<methodCall><methodName>x</methodName><params><param><value><nil/></value></param></params></methodCall>",
        b"<methodCall><methodName>x</methodName><params>" + b"<param><value><array><data>" * 10_000,
        b'<!DOCTYPE a [<!ENTITY b "c">]><methodCall><methodName>&b;</methodName></methodCall>',
        b'<?xml version="1.0" encoding="utf-16"?><methodCall/>',
        b"\xff\xfe<\0a\0/\0>\0",
    ],
)
def test_the_response_to_an_invalid_call_is_a_fault(handler, caplog, body):
    with pytest.raises(SAMPProxyError):
        call(handler, body)
    assert not caplog.records


def test_an_operation_has_access_to_the_call(handler, operations):
    assert call(handler, write_call("test.current", [{"a": "b"}])) == "True"
    (current,) = operations.calls
    assert current.method_call.name == "test.current"
    assert isinstance(current.request, HTTPRequest)
    assert isinstance(current.connection, NoConnection)
    assert handler.current_call is None


def deferred_response(handler: XMLRPCHandler) -> DeferredResponse:
    response = handler.handle(HTTPRequest("POST", "/", {}, write_call("test.later", []), True), NoConnection())  # type: ignore[arg-type]
    assert isinstance(response, DeferredResponse)
    return response


def test_a_deferred_result(handler, operations):
    response = deferred_response(handler)
    assert response.state == "waiting"
    reports: list[bool] = []
    operations.deferred.on_sent = reports.append  # set after the operation has returned
    assert operations.deferred.set_result({"a": "b"})
    assert read_response(response.result().body) == {"a": "b"}
    assert response.on_sent is not None
    response.on_sent(True)
    assert reports == [True]


@pytest.mark.parametrize("error", [FAULTY, KeyError("x")])
def test_a_deferred_result_that_fails(handler, operations, error):
    response = deferred_response(handler)
    operations.deferred.set_exception(error)
    with pytest.raises(SAMPProxyError) as caught:
        read_response(response.result().body)
    assert str(caught.value) == ("not today" if error is FAULTY else "Internal error")


def test_a_deferred_result_that_cannot_be_written(handler, operations):
    response = deferred_response(handler)
    operations.deferred.set_result(None)
    with pytest.raises(SAMPProxyError):
        read_response(response.result().body)


def test_a_deferred_result_whose_client_is_gone(handler, operations):
    response = deferred_response(handler)
    gone: list[bool] = []
    operations.deferred.add_cancel_callback(lambda: gone.append(True))
    assert response.cancel()
    assert gone == [True]
    assert operations.deferred.state == "cancelled"
    assert not operations.deferred.set_result("x")


def test_a_result_that_is_set_while_the_client_disconnects(operations, loop):
    """``on_sent(False)`` is called in the loop's thread."""

    class Gone:
        def __init__(self) -> None:
            self.loop = loop

    names = {"test.later": operations.later}
    handler = XMLRPCHandler(names)
    request = HTTPRequest("POST", "/", {}, write_call("test.later", []), True)
    response = handler.handle(request, Gone())  # type: ignore[arg-type]
    assert isinstance(response, DeferredResponse)
    response.state = "cancelled"  # the state between the two steps of `cancel`
    reported = threading.Event()
    reports: list[Any] = []
    operations.deferred.on_sent = lambda ok: (reports.append((ok, loop.in_loop())), reported.set())
    assert operations.deferred.set_result("x")
    assert reported.wait(10)
    assert reports == [(False, True)]


# HTTP


@pytest.mark.parametrize("path", ["/", "/RPC2", "/xmlrpc", "/?x", "/RPC2?a=b"])
def test_valid_paths(handler, path):
    request = HTTPRequest("POST", path, {}, write_call("test.nothing", []), True)
    response = handler.handle(request, NoConnection())  # type: ignore[arg-type]
    assert isinstance(response, Response)
    assert read_response(response.body) == ""


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/x", 404), ("GET", "/", 405), ("OPTIONS", "*", 405)])
def test_other_requests(handler, method, path, status):
    response = handler.handle(HTTPRequest(method, path, {}, b"", True), NoConnection())  # type: ignore[arg-type]
    assert isinstance(response, Response)
    assert response.status == status


def test_a_subclass_may_reject_requests_add_headers_and_handle_other_methods(make_server):
    class Strict(XMLRPCHandler):
        def reject(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
            return self.fault_response("go away", request) if "origin" in request.headers else None

        def headers(self, request: HTTPRequest | None) -> tuple[tuple[str, str], ...]:
            return (("X-Server", "strict"),)

        def handle_non_post(self, request: HTTPRequest, connection: ServerConnection) -> Response:
            return Response(200, request.method.encode(), headers=self.headers(request))

    server = make_server(Strict({"echo": lambda text: text}))
    body = write_call("echo", ["a"])
    data = post(body, "Origin: http://x") + post(body) + b"PUT / HTTP/1.1\r\n\r\n" + b"POST /x HTTP/1.1\r\n\r\n"
    with RawClient(server.port, data) as client:
        responses = [client.receive() for _ in range(4)]
    assert [response.headers["x-server"] for response in responses] == ["strict"] * 4
    with pytest.raises(SAMPProxyError, match="go away"):
        read_response(responses[0].body)
    assert read_response(responses[1].body) == "a"
    assert responses[2].body == b"PUT"
    assert responses[3].status == 411


def test_error_response(handler):
    response = handler.error_response(HTTPError(413, "too long"))
    assert (response.status, response.body) == (413, b"too long\n")


def test_an_operation_cannot_end_the_interpreter(make_server, loop, handler, caplog):
    """`sys.exit` in an operation closes the connection, and the server continues."""
    server = make_server(handler)
    body = write_call("test.stop", [])
    with RawClient(server.port, post(body)) as client:
        assert client.rest() == b""
    eventually(loop, lambda: server.connections == 0)
    with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{server.port}/") as proxy:
        assert proxy.test.two("a", "b") == "ab"
