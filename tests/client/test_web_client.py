"""Clients of the Web Profile; `test_messages` tests messages with both profiles."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyvo.samp import SAMPHubError, SAMPHubServer, SAMPIntegratedClient, SAMPProxyError
from pyvo.samp.client.web_hub_proxy import SAMPWebHubProxy

from .conftest import Connect, record, states

MakeHub = Callable[..., SAMPHubServer]


@pytest.fixture
def web_hub(make_hub: MakeHub) -> SAMPHubServer:
    """A hub that consents to everything."""
    return make_hub(web_profile=True, web_profile_dialog=lambda *_: True)


def test_without_a_lockfile(web_hub: SAMPHubServer, connect: Connect) -> None:
    """R39: the client only needs the address of the Web Profile, and reads no lockfile."""
    web = connect("Web", how={"web": f"http://localhost:{web_hub._web_port}/"})
    assert web.hub.lockfile == {}
    assert isinstance(web.hub, SAMPWebHubProxy)
    assert web.ping() == ""
    with pytest.raises(SAMPProxyError, match="calls no client back"):
        web.hub.set_xmlrpc_callback(str(web.get_private_key()), "http://127.0.0.1:1/")


def test_messages_between_the_profiles(web_hub: SAMPHubServer, connect: Connect) -> None:
    """Clients of the two profiles can call each other."""
    web, alice = connect("Web", how={"hub": web_hub, "web": True}), connect("Alice")
    for client, result in ((web, {"from": "web"}), (alice, {"from": "alice"})):
        client.bind_receive_call("table.x", record(client, result))
    assert alice.ecall_and_wait("web", "table.x", 10)["samp.result"] == {"from": "web"}
    assert web.ecall_and_wait("alice", "table.x", 10)["samp.result"] == {"from": "alice"}
    with pytest.raises(SAMPProxyError):
        web.hub.proxy.samp.hub.getRegisteredClients(web.get_private_key())  # R38: its key is invalid there


def test_registration_without_consent(make_hub: MakeHub) -> None:
    """R40: without consent the response to the registration is a fault."""
    names = []

    def reject(name: str, details: Any, client: Any, origin: Any) -> bool:
        names.append(name)
        return False

    hub = make_hub(web_profile=True, web_profile_dialog=reject)
    client = SAMPIntegratedClient(name="Web")
    with pytest.raises(SAMPProxyError):
        client.connect(hub=hub, web=True)
    assert names == ["Web"]
    assert not client.is_connected
    client.connect(hub=hub)  # the other profile needs no consent
    assert client.is_connected
    client.disconnect()


def test_client_without_a_name(make_hub: MakeHub, connect: Connect) -> None:
    """R40: a client without a name registers with the name Python, which the consent dialog shows."""
    names: list[str] = []

    def consent(name: str, details: Any, client: Any, origin: Any) -> bool:
        names.append(name)
        return True

    connect(how={"hub": make_hub(web_profile=True, web_profile_dialog=consent), "web": True})
    assert names == ["Python"]


def test_disconnect_during_the_consent_request(make_hub: MakeHub) -> None:
    """`disconnect` ends a `connect` that waits for consent in another thread."""
    requested, decided = threading.Event(), threading.Event()

    def decide_later(*_: Any) -> bool:
        requested.set()
        return decided.wait(20)

    hub = make_hub(web_profile=True, web_profile_dialog=decide_later)
    client = SAMPIntegratedClient(name="Web")
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            client.connect(hub=hub, web=True)
        except SAMPHubError as error:
            errors.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    assert requested.wait(5)
    client.disconnect()
    thread.join(5)
    assert not thread.is_alive()
    assert len(errors) == 1
    decided.set()


def test_no_web_profile(make_hub: MakeHub) -> None:
    """If no hub offers the Web Profile, the error says so; parameters of a lockfile are an error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = SAMPIntegratedClient(name="Web")
    with pytest.raises(SAMPHubError, match="Web Profile"):
        client.connect(web=f"http://127.0.0.1:{port}/")
    with pytest.raises(ValueError, match="lockfile"):
        client.connect(web=True, hub_params={"samp.secret": "x"})
    hub = make_hub()
    hub.stop()
    with pytest.raises(SAMPHubError, match="not running"):
        client.connect(web=True, hub=hub)


def test_reconnect(web_hub: SAMPHubServer, connect: Connect) -> None:
    """A web client notices that its hub has stopped, and registers with the next hub."""
    seen, on_state = states()
    url = f"http://127.0.0.1:{web_hub._web_port}/"
    web = connect("Web", how={"web": url, "reconnect": True, "on_state": on_state})
    web.bind_receive_call("table.x", record(web, {"n": 1}))
    web_hub.stop()
    assert seen.get(timeout=5) == "lost"
    with pytest.raises(SAMPHubError):
        web.ping()
    again = SAMPHubServer(web_profile=True, web_profile_dialog=lambda *_: True, web_port=int(url[17:-1]))
    again.start()
    try:
        assert seen.get(timeout=10) == "connected"
        assert connect("Alice").ecall_and_wait("web", "table.x", 10)["samp.result"] == {"n": "1"}
    finally:
        again.stop()
    assert seen.get(timeout=5) == "lost"


def test_disconnected_by_the_hub(web_hub: SAMPHubServer, connect: Connect) -> None:
    """A web client whose key is no longer valid notices this at its next pull."""
    seen, on_state = states()
    web = connect("Web", how={"hub": web_hub, "web": True, "on_state": on_state})
    web.hub._samp_hub.unregister(web.get_private_key())
    assert seen.get(timeout=5) == "lost"
    assert not web.is_connected
    with pytest.raises(SAMPHubError):
        web.ping()


def test_invalid_callbacks(web_hub: SAMPHubServer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """An invalid callback is logged, and the client continues to pull."""
    web = connect("Web", how={"hub": web_hub, "web": True})
    puller = web.client._cleanup.receiver
    for callback in ("text", {}, {"samp.methodName": "receiveCall"}, {"samp.methodName": "x", "samp.params": []}):
        puller._enqueue("key", callback)
    puller._enqueue("key", {"samp.methodName": "receiveNotification", "samp.params": ["c1", "no map"]})
    assert caplog.text.count("invalid callback") == 5
    assert connect("Alice").ecall_and_wait("web", "samp.app.ping", 10)["samp.status"] == "samp.ok"


def test_translate_url(web_hub: SAMPHubServer, connect: Connect) -> None:
    """R46: URLs are translated with the prefix that the hub sent at the registration."""
    web = connect("Web", how={"hub": web_hub, "web": True})
    translated = web.hub.translate_url("http://example.org/a?b=c&d=%41")
    assert translated.startswith((f"http://127.0.0.1:{web_hub._web_port}/", f"http://localhost:{web_hub._web_port}/"))
    assert translated.endswith("http%3A%2F%2Fexample.org%2Fa%3Fb%3Dc%26d%3D%2541")
    assert SAMPWebHubProxy().translate_url("http://example.org/") == "http://example.org/"
