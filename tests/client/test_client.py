"""`SAMPClient` with its own connection, for programs that override how it receives."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pyvo.samp import SAMPClient, SAMPClientError, SAMPHubError, SAMPHubProxy, SAMPHubServer

from .conftest import Connect


@pytest.fixture
def proxy(hub: SAMPHubServer) -> Iterator[SAMPHubProxy]:
    """A connection to the hub."""
    proxy = SAMPHubProxy()
    proxy.connect()
    yield proxy
    proxy.disconnect()


def test_start_register_unregister_and_stop(proxy: SAMPHubProxy, connect: Connect) -> None:
    """A client can be started, registered, unregistered and stopped repeatedly."""
    client = SAMPClient(proxy, name="Plain")
    alice = connect("Alice")
    assert (client.is_running, client.is_registered) == (False, False)
    client.unregister()
    client.stop()
    for _ in range(2):
        client.start()
        client.start()
        assert (client.is_running, client.is_registered) == (True, False)
        client.register()
        assert client.is_registered
        assert client.get_public_id() in alice.get_registered_clients()
        assert alice.ecall_and_wait("plain", "samp.app.ping", 10)["samp.status"] == "samp.ok"
        with pytest.raises(SAMPClientError, match="already"):
            client.register()
        client.unregister()
        assert not client.is_registered
        assert client.get_private_key() is client.get_public_id() is None
        client.stop()
        client.stop(timeout=1)
        assert not client.is_running
    with pytest.raises(SAMPClientError, match="not running"):
        _ = client.loop


def test_stop_unregisters(proxy: SAMPHubProxy, connect: Connect) -> None:
    """`stop` unregisters the client."""
    client = SAMPClient(proxy, name="Plain")
    alice = connect("Alice")
    client.register()
    client.stop()
    assert not client.is_registered
    assert alice.get_registered_clients() == ["hub"]


def test_not_registered(proxy: SAMPHubProxy) -> None:
    """Methods that need a registration or a connection raise an error that says so."""
    client = SAMPClient(proxy, name="Plain")
    for use in (client.declare_metadata, client.declare_subscriptions):
        with pytest.raises(SAMPClientError, match=r"register\(\)"):
            use()
    proxy.disconnect()
    with pytest.raises(SAMPClientError, match=r"connect\(\)"):
        client.register()


def test_the_hub_stops(hub: SAMPHubServer, proxy: SAMPHubProxy) -> None:
    """If the hub stops, the client is no longer registered, and `on_disconnected` is called."""
    client = SAMPClient(proxy, name="Plain")
    client.register()
    gone = threading.Event()
    client.on_disconnected = lambda reason: gone.set()
    hub.stop()
    assert gone.wait(5)
    assert not client.is_registered
    with pytest.raises(SAMPHubError):
        client.declare_metadata({"a": "b"})
    client.unregister()
    client.stop()


class Overriding(SAMPClient):
    """A client that overrides its receiving methods and binds no handlers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.received: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def receive_notification(self, private_key: str, sender_id: str, message: Any) -> str:
        self.received.put((private_key, sender_id, message))
        return ""

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: Any) -> str:
        self.received.put((private_key, sender_id, message))
        self.hub.reply(private_key, msg_id, {"samp.status": "samp.ok", "samp.result": {"by": "hand"}})
        return ""

    def receive_response(self, private_key: str, responder_id: str, msg_tag: str, response: Any) -> str:
        self.received.put((private_key, responder_id, msg_tag, response))
        raise RuntimeError("this method is broken")


def test_overriding(proxy: SAMPHubProxy, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """The receiving methods may be overridden; their exceptions are logged."""
    client = Overriding(proxy, name="Plain")
    client.register()
    client.declare_subscriptions({"test.*": {}})
    alice = connect("Alice")
    message = {"samp.mtype": "test.x", "samp.params": {"a": "b"}}
    alice.notify("plain", message)
    assert client.received.get(timeout=10) == (client.get_private_key(), alice.get_public_id(), message)
    assert alice.call_and_wait("plain", message, 10)["samp.result"] == {"by": "hand"}
    assert client.received.get(timeout=10)[2] == message
    key = client.get_private_key()
    proxy.call(key, alice.get_public_id(), "tag", {"samp.mtype": "samp.app.ping", "samp.params": {}})
    assert client.received.get(timeout=10)[1:] == (
        alice.get_public_id(),
        "tag",
        {"samp.status": "samp.ok", "samp.result": {}},
    )
    client.stop()
    assert "this method is broken" in caplog.text


def test_many_threads_bind(proxy: SAMPHubProxy) -> None:
    """Handlers that several threads bind at the same time are all bound and declared."""
    client = SAMPClient(proxy, name="Plain")
    client.register()
    threads = [
        threading.Thread(target=client.bind_receive_message, args=(f"test.m{number}", lambda *args: None))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    subscriptions = proxy.get_subscriptions(str(client.get_private_key()), str(client.get_public_id()))
    assert {f"test.m{number}" for number in range(20)} <= set(subscriptions)
    client.stop()
