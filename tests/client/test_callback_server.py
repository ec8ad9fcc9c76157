"""The server that the hub calls: which requests it accepts, and how it handles invalid ones."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from typing import Any
from urllib.parse import urlsplit

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

from .conftest import Connect, record


@pytest.fixture
def bob(hub: SAMPHubServer, connect: Connect) -> SAMPIntegratedClient:
    """A connected client."""
    return connect("Bob")


def url_of(client: SAMPIntegratedClient) -> str:
    server = client.client._cleanup.receiver._server
    return f"http://127.0.0.1:{server.port}/"


def post(client: SAMPIntegratedClient, body: bytes, path: str = "/", **headers: str) -> tuple[int, bytes]:
    """Send a POST request with an ordinary HTTP client."""
    connection = http.client.HTTPConnection(urlsplit(url_of(client)).netloc, timeout=5)
    try:
        connection.request("POST", path, body, {"Content-Type": "text/xml", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def notification(client: SAMPIntegratedClient, key: str | None = None) -> bytes:
    message = {"samp.mtype": "test.x", "samp.params": {}}
    params = (key or client.get_private_key(), "c9", message)
    return xmlrpc.client.dumps(params, "samp.client.receiveNotification").encode()


MESSAGE = {"samp.mtype": "test.x", "samp.params": {}}


def test_the_right_key(bob: SAMPIntegratedClient) -> None:
    """R32: with the client's key the operations return a valid response, and the handler runs."""
    note = record(bob)
    bob.bind_receive_notification("test.x", note)
    with xmlrpc.client.ServerProxy(url_of(bob)) as proxy:
        assert proxy.samp.client.receiveNotification(bob.get_private_key(), "c9", MESSAGE) == ""
        assert note.assert_received("*").sender_id == "c9"
        assert proxy.samp.client.receiveNotification(bob.get_private_key(), "c9", {"samp.mtype": "test.x"}) == ""
        assert note.assert_received("*").params == {}


@pytest.mark.parametrize("key", ["", "wrong", "\N{GREEK SMALL LETTER ALPHA}", "x" * 100_000])
def test_a_wrong_key(bob: SAMPIntegratedClient, key: str) -> None:
    """R32, R38: the response to any other key is a fault, whose text does not contain the right key."""
    note = record(bob)
    bob.bind_receive_message("test.x", note)
    with xmlrpc.client.ServerProxy(url_of(bob)) as proxy:
        for call in (
            lambda: proxy.samp.client.receiveNotification(key, "c9", MESSAGE),
            lambda: proxy.samp.client.receiveCall(key, "c9", "m1", MESSAGE),
            lambda: proxy.samp.client.receiveResponse(key, "c9", "tag", {"samp.status": "samp.ok", "samp.result": {}}),
        ):
            with pytest.raises(xmlrpc.client.Fault) as caught:
                call()
            assert str(bob.get_private_key()) not in caught.value.faultString
    note.assert_not_received("*")


def test_an_earlier_key(bob: SAMPIntegratedClient) -> None:
    """R9: the key of an earlier registration is invalid."""
    old = bob.get_private_key()
    bob.disconnect()
    bob.connect()
    with xmlrpc.client.ServerProxy(url_of(bob)) as proxy, pytest.raises(xmlrpc.client.Fault):
        proxy.samp.client.receiveNotification(old, "c9", MESSAGE)


def test_requests_of_browsers(bob: SAMPIntegratedClient) -> None:
    """R38: a request from a web page or for a foreign host is rejected; other requests are accepted."""
    body = notification(bob)
    assert post(bob, body)[0] == 200
    assert post(bob, body, Origin="http://example.org")[0] == 403
    assert post(bob, body, Origin="null")[0] == 403
    for host in ("example.org", "example.org:80", "127.0.0.1.example.org", "localhost.example.org:1"):
        assert post(bob, body, Host=host)[0] == 403
    for host in ("localhost", "127.0.0.1:1", "[::1]:80", "LocalHost:9"):
        assert post(bob, body, Host=host)[0] == 200


@pytest.mark.parametrize(
    "params",
    [
        (),
        ("key",),
        ("key", "c9"),
        ("key", "c9", "no map"),
        ("key", "c9", []),
        ("key", ["c9"], MESSAGE),
        ("key", "c9", {}),
        ("key", "c9", {"samp.mtype": ["x"]}),
        ("key", "c9", {"samp.mtype": "a.*.b"}),
        ("key", "c9", {"samp.mtype": "test.x", "samp.params": "no map"}),
        ("key", "c9", MESSAGE, "more"),
    ],
)
def test_wrong_parameters(bob: SAMPIntegratedClient, params: tuple[Any, ...]) -> None:
    """R16: too few, too many or wrong parameters are faults, and nothing reaches a handler."""
    note = record(bob)
    bob.bind_receive_notification("*", note)
    bob.bind_receive_notification("samp.hub.*", lambda *args: None)
    given = tuple(bob.get_private_key() if value == "key" else value for value in params)
    with xmlrpc.client.ServerProxy(url_of(bob)) as proxy, pytest.raises(xmlrpc.client.Fault):
        proxy.samp.client.receiveNotification(*given)
    check_alive(bob)
    assert all(received.mtype.startswith("samp.") for received in note.received)


def check_alive(bob: SAMPIntegratedClient) -> None:
    """Check that the client still responds."""
    with xmlrpc.client.ServerProxy(url_of(bob)) as proxy:
        assert proxy.samp.client.receiveNotification(bob.get_private_key(), "c9", {"samp.mtype": "samp.x"}) == ""


@pytest.mark.parametrize("method", ["system.listMethods", "samp.hub.ping", "__class__", "samp.client.receive"])
def test_other_methods(bob: SAMPIntegratedClient, method: str) -> None:
    """R38: there are no other methods, in particular no introspection."""
    status, body = post(bob, xmlrpc.client.dumps((), method).encode())
    assert status == 200
    with pytest.raises(xmlrpc.client.Fault):
        xmlrpc.client.loads(body)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\0" * 99])
def test_invalid_requests(bob: SAMPIntegratedClient, data: bytes) -> None:
    """A request that is not XML-RPC is rejected, and later requests are processed."""
    with socket.create_connection(("127.0.0.1", urlsplit(url_of(bob)).port or 0), timeout=5) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        response = b""
        while part := sock.recv(1000):
            response += part
    assert not response or response.startswith(b"HTTP/1.1 4")
    check_alive(bob)


def test_entities(bob: SAMPIntegratedClient) -> None:
    """R38: a document type is rejected, so that its entities can neither read files nor use memory."""
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "' + b"b" * 1000 + b'">]>'
    status, body = post(bob, bomb + notification(bob).split(b"?>", 1)[-1])
    assert status == 200
    with pytest.raises(xmlrpc.client.Fault):
        xmlrpc.client.loads(body)


def test_a_hundred_idle_connections(bob: SAMPIntegratedClient, connect: Connect) -> None:
    """Idle connections to the callback port, silent or in the middle of a request, do not block the client."""
    alice = connect("Alice")
    address = ("127.0.0.1", urlsplit(url_of(bob)).port or 0)
    idle = [socket.create_connection(address, timeout=5) for _ in range(100)]
    try:
        for sock in idle[:50]:
            sock.sendall(b"POST / HTTP/1.1\r\nContent-")
        for _ in range(5):
            assert alice.ecall_and_wait("bob", "samp.app.ping", 5)["samp.status"] == "samp.ok"
        bob.disconnect()
        bob.connect()
        assert alice.ecall_and_wait("bob", "samp.app.ping", 5)["samp.status"] == "samp.ok"
    finally:
        for sock in idle:
            sock.close()
