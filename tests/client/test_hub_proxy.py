"""The connection to a hub: every operation, and hubs that send invalid responses."""

from __future__ import annotations

import socket
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyvo.samp import SAMPHubError, SAMPHubProxy, SAMPHubServer, SAMPProxyError, SAMPValueError
from pyvo.samp.utils import SAMPXXEServerProxy, ServerProxyPool

from .conftest import Connect

Response = bytes | None


class BadHub:
    """A server that sends given responses, one for each request; None for no response."""

    def __init__(self) -> None:
        self.responses: dict[bytes, Response] = {}
        self.requests: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._silent: list[socket.socket] = []

    @property
    def params(self) -> dict[str, str]:
        return {"samp.secret": "s", "samp.hub.xmlrpc.url": f"http://127.0.0.1:{self._socket.getsockname()[1]}/"}

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(5)
            data = b""
            while b"</methodCall>" not in data:
                part = connection.recv(10000)
                if not part:
                    break
                data += part
            self.requests.append(data)
            response = next((value for key, value in self.responses.items() if key in data), PING)
            if response is None:
                self._silent.append(connection)
                continue
            connection.sendall(response)
            connection.close()

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self._silent:
            connection.close()


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def xml_response(value: Any) -> bytes:
    return http(xmlrpc.client.dumps((value,), methodresponse=True))


PING = xml_response("")


@pytest.fixture
def bad_hub() -> Iterator[BadHub]:
    """A hub that responds to pings, and sends given responses to other calls."""
    hub = BadHub()
    yield hub
    hub.stop()


@pytest.fixture
def proxy(bad_hub: BadHub) -> Iterator[SAMPHubProxy]:
    """A connection to `bad_hub`."""
    proxy = SAMPHubProxy()
    proxy.connect(hub_params=bad_hub.params)
    yield proxy
    proxy.disconnect()


def test_operations(hub: SAMPHubServer) -> None:
    """R31: all operations, without a client class."""
    proxy = SAMPHubProxy()
    assert not proxy.is_connected
    assert proxy.lockfile == {}
    proxy.connect()
    try:
        assert proxy.is_connected
        assert proxy.lockfile == hub.params
        assert proxy.ping() == ""
        registration = proxy.register(proxy.lockfile["samp.secret"])
        assert set(registration) == {"samp.hub-id", "samp.self-id", "samp.private-key"}
        key, own_id, hub_id = (registration[f"samp.{part}"] for part in ("private-key", "self-id", "hub-id"))
        proxy.declare_metadata(key, {"samp.name": "Bare", "number": 1.5})
        assert proxy.get_metadata(key, own_id) == {"samp.name": "Bare", "number": "1.5"}
        assert proxy.get_subscriptions(key, own_id) == {}
        proxy.declare_subscriptions(key, {})
        assert proxy.get_registered_clients(key) == [hub_id]
        assert proxy.get_subscribed_clients(key, "samp.app.ping") == {hub_id: {}}
        message = {"samp.mtype": "samp.app.ping", "samp.params": {}}
        proxy.notify(key, hub_id, message)
        assert proxy.notify_all(key, message) == [hub_id]
        for call in (lambda: proxy.call(key, hub_id, "tag", message), lambda: proxy.call_all(key, "tag", message)):
            with pytest.raises(SAMPProxyError, match="callable"):
                call()
        assert proxy.call_and_wait(key, hub_id, message, 5)["samp.status"] == "samp.ok"
        with pytest.raises(SAMPProxyError):
            proxy.reply(key, "no such message", {"samp.status": "samp.ok", "samp.result": {}})
        with pytest.raises(SAMPProxyError):
            proxy.set_xmlrpc_callback(key, "file:///etc/passwd")
        proxy.unregister(key)
        with pytest.raises(SAMPProxyError):
            proxy.get_registered_clients(key)
    finally:
        proxy.disconnect()
    assert not proxy.is_connected
    assert proxy.lockfile == {}
    with pytest.raises(SAMPHubError, match=r"connect\(\)"):
        proxy.ping()
    proxy.disconnect()


def test_wrong_secret(hub: SAMPHubServer) -> None:
    """R9: the response to a wrong secret is a fault."""
    proxy = SAMPHubProxy()
    proxy.connect()
    with pytest.raises(SAMPProxyError):
        proxy.register("guess")
    assert proxy.is_connected
    proxy.disconnect()


def test_a_proxy_of_the_standard_library(hub: SAMPHubServer) -> None:
    """A derived class may use proxies of the standard library, like classes derived from `astropy.samp`."""

    class OldProxy(SAMPHubProxy):
        def connect(self, *args: Any, **options: Any) -> None:
            self.proxy = ServerProxyPool(3, SAMPXXEServerProxy, hub.params["samp.hub.xmlrpc.url"])
            self.ping()
            self._connected = True

        @property
        def _samp_hub(self) -> Any:
            return self.proxy.samp.hub

    proxy = OldProxy()
    proxy.connect()
    key = proxy.register(hub.params["samp.secret"])["samp.private-key"]
    assert proxy.call_and_wait(key, "hub", {"samp.mtype": "samp.app.ping"}, 5)["samp.status"] == "samp.ok"
    with pytest.raises(SAMPProxyError):
        proxy.get_metadata(key, "nobody")
    pool = proxy.proxy
    hub.stop()
    with pytest.raises(SAMPHubError):
        proxy.get_registered_clients(key)
    assert not proxy.is_connected
    pool.shutdown()


def test_samp_hub_attribute(hub: SAMPHubServer, connect: Connect) -> None:
    """``_samp_hub`` can be used like a server proxy."""
    alice = connect("Alice")
    assert alice.hub._samp_hub.ping() == ""
    assert alice.hub.proxy.samp.hub.getRegisteredClients(alice.get_private_key()) == ["hub"]
    with pytest.raises(SAMPProxyError):
        alice.hub.proxy.samp.hub.noSuchThing()
    with pytest.raises(AttributeError):
        alice.hub.proxy.__wrapped__  # noqa: B018


GARBAGE = {
    "status": http("no", "500 Internal Server Error"),
    "html": http("<html><body>Welcome</body></html>"),
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "empty": http(""),
    "cut": xml_response({"a": "b"})[:-30],
    "no http": b"hello\r\n\r\n",
    "closed": b"",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "entities": http('<!DOCTYPE a [<!ENTITY b "c">]><methodResponse><params/></methodResponse>'),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_invalid_responses(bad_hub: BadHub, proxy: SAMPHubProxy, kind: str) -> None:
    """An invalid response is an error, without a second request. The client stays connected if pings succeed."""
    bad_hub.responses[b"getRegisteredClients"] = GARBAGE[kind]
    with pytest.raises(SAMPHubError):
        proxy.get_registered_clients("key")
    assert proxy.is_connected
    assert sum(b"getRegisteredClients" in request for request in bad_hub.requests) == 1


@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        (lambda proxy: proxy.register("secret"), "text"),
        (lambda proxy: proxy.get_registered_clients("key"), {}),
        (lambda proxy: proxy.get_metadata("key", "c1"), []),
        (lambda proxy: proxy.notify_all("key", {"samp.mtype": "a"}), "text"),
        (lambda proxy: proxy.call("key", "c1", "tag", {"samp.mtype": "a"}), []),
        (lambda proxy: proxy.call_and_wait("key", "c1", {"samp.mtype": "a"}, 5), "text"),
    ],
)
def test_wrong_result_type(bad_hub: BadHub, proxy: SAMPHubProxy, operation: Callable[..., Any], wrong: Any) -> None:
    """A result of the wrong type is a SAMPHubError; the program does not get the result."""
    bad_hub.responses[b"<methodName>samp.hub.p"] = PING
    bad_hub.responses[b"methodName"] = xml_response(wrong)
    with pytest.raises(SAMPHubError, match=r"returned a \w+ from"):
        operation(proxy)


def test_numbers_in_responses(bad_hub: BadHub, proxy: SAMPHubProxy) -> None:
    """R5: numbers in responses of old hubs become strings."""
    bad_hub.responses[b"getMetadata"] = xml_response({"a": 1, "b": 2.5, "c": True})
    assert proxy.get_metadata("key", "c1") == {"a": "1", "b": "2.5", "c": "1"}


def test_silent_hub(bad_hub: BadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a hub accepts connections but never responds, `connect` and calls time out."""
    monkeypatch.setattr("pyvo.samp.client.hub_connection.PING_TIMEOUT", 0.3)
    proxy = SAMPHubProxy()
    proxy.connect(hub_params=bad_hub.params)
    bad_hub.responses[b"methodName"] = None
    start = time.monotonic()
    with pytest.raises(SAMPHubError, match="did not respond"):
        proxy._call("getRegisteredClients", timeout=0.3, private_key="key")
    assert not proxy.is_connected
    with pytest.raises(SAMPHubError, match="did not respond"):
        proxy.get_registered_clients("key")
    with pytest.raises(SAMPHubError, match="did not respond"):
        proxy.connect(hub_params=bad_hub.params)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("timeout", [3.0, 0.0], ids=["with a limit", "without"])
def test_a_hub_that_hangs_is_pinged_once(bad_hub: BadHub, monkeypatch: pytest.MonkeyPatch, timeout: float) -> None:
    """When an operation times out, one ping within its timeout shows that the hub hangs; no more pings follow."""
    monkeypatch.setattr("pyvo.samp.client.hub_connection.PING_TIMEOUT", 1.0)
    monkeypatch.setattr("pyvo.samp.client.hub_connection.PING_INTERVAL", 2.0)
    proxy = SAMPHubProxy()
    proxy.connect(hub_params=bad_hub.params)
    bad_hub.responses[b"methodName"] = None
    before = len(bad_hub.requests)
    start = time.monotonic()
    with pytest.raises(SAMPHubError, match="did not respond"):
        proxy._call("getRegisteredClients", timeout=timeout, private_key="key")
    assert time.monotonic() - start < 3.8
    assert len(bad_hub.requests) == before + 2
    assert b"ping" in bad_hub.requests[-1]
    assert not proxy.is_connected


@pytest.mark.parametrize("ping", [PING, http(xmlrpc.client.dumps(xmlrpc.client.Fault(1, "no such thing")))])
def test_a_late_response_of_a_running_hub(bad_hub: BadHub, monkeypatch: pytest.MonkeyPatch, ping: bytes) -> None:
    """If the hub responds to the ping, the operation fails, but the client stays connected."""
    monkeypatch.setattr("pyvo.samp.client.hub_connection.PING_TIMEOUT", 0.5)
    proxy = SAMPHubProxy()
    proxy.connect(hub_params=bad_hub.params)
    bad_hub.responses[b"getRegisteredClients"] = None
    bad_hub.responses[b"ping"] = ping
    before = len(bad_hub.requests)
    with pytest.raises(SAMPHubError, match="did not respond"):
        proxy._call("getRegisteredClients", timeout=1.0, private_key="key")
    assert proxy.is_connected
    assert [b"ping" in request for request in bad_hub.requests[before:]] == [False, True]
    proxy.disconnect()


def test_registration_without_a_key(bad_hub: BadHub) -> None:
    """R6: a registration without key or id is rejected."""
    from pyvo.samp import SAMPIntegratedClient

    bad_hub.responses[b"samp.hub.register"] = xml_response({"samp.hub-id": "hub"})
    client = SAMPIntegratedClient(name="Alice")
    with pytest.raises(SAMPHubError, match="registration"):
        client.connect(hub_params=bad_hub.params)
    assert not client.is_connected


@pytest.mark.parametrize(
    "params", [{}, {"samp.hub.xmlrpc.url": ""}, {"samp.hub.xmlrpc.url": "ftp://x/"}, {"samp.hub.xmlrpc.url": "http://"}]
)
def test_invalid_addresses(params: dict[str, str]) -> None:
    """If the parameters have no valid address of a hub, the error says so."""
    with pytest.raises(SAMPHubError, match="address"):
        SAMPHubProxy().connect(hub_params=params)


def test_invalid_timeout(bad_hub: BadHub, proxy: SAMPHubProxy) -> None:
    """R22: nothing is sent if the timeout is not a number."""
    before = len(bad_hub.requests)
    with pytest.raises(SAMPValueError):
        proxy.call_and_wait("key", "c1", {"samp.mtype": "x"}, "soon")
    with pytest.raises(TypeError, match="recipient_id"):
        proxy.notify("key", None, {"samp.mtype": "x"})  # type: ignore[arg-type]
    assert len(bad_hub.requests) == before
