"""How a client connects and disconnects, and what it declares."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyvo.samp import (
    SAMPClientError,
    SAMPHubError,
    SAMPHubProxy,
    SAMPHubServer,
    SAMPIntegratedClient,
    SAMPProxyError,
    SAMPTypeError,
)
from pyvo.samp.client.callback_server import CallbackServer

from .conftest import Connect, HubProcess, other_ids, record

MakeHub = Callable[..., SAMPHubServer]


def test_no_hub() -> None:
    """R33: without a hub, `connect` raises within a second an error that says what to do."""
    client = SAMPIntegratedClient(name="Alice")
    start = time.monotonic()
    with pytest.raises(SAMPHubError, match=r"lockfile.*(Start|run)"):
        client.connect()
    assert time.monotonic() - start < 1
    assert not client.is_connected
    client.disconnect()


def test_stale_lockfile(isolated: Path, hub_process: HubProcess) -> None:
    """R35: the lockfile of a hub that was killed causes the same error."""
    hub_process().kill()
    client = SAMPIntegratedClient(name="Alice")
    start = time.monotonic()
    with pytest.raises(SAMPHubError, match="No SAMP hub is running"):
        client.connect()
    assert time.monotonic() - start < 1


def test_port_of_another_server(hub: SAMPHubServer, connect: Connect, isolated: Path) -> None:
    """R35: a stale lockfile may name a port that another program, such as a SAMP client, now uses."""
    bob = connect("Bob")
    port = bob.client._cleanup.receiver._server.port
    for connecting in (SAMPIntegratedClient().connect, SAMPHubProxy().connect):
        lockfile = isolated / ".other"
        lockfile.write_text(
            f"samp.secret=x\nsamp.hub.xmlrpc.url=http://127.0.0.1:{port}/\nsamp.profile.version=1.3\n"
        )
        os.environ["SAMP_HUB"] = f"std-lockurl:{lockfile.as_uri()}"
        try:
            with pytest.raises(SAMPHubError, match="No SAMP hub is running"):
                connecting()
        finally:
            del os.environ["SAMP_HUB"]
    with pytest.raises(SAMPProxyError):
        SAMPIntegratedClient().connect(hub_params={**hub.params, "samp.secret": "guess"})


def test_connect_and_disconnect_again(hub: SAMPHubServer, connect: Connect) -> None:
    """`connect` and `disconnect` may be repeated; each registration has a new id and key (R6)."""
    alice = connect("Alice")
    first = alice.get_public_id()
    alice.connect()
    assert alice.get_public_id() == first
    alice.disconnect()
    assert not alice.is_connected
    assert alice.get_public_id() is None
    assert alice.get_private_key() is None
    alice.disconnect()
    alice.connect()
    assert alice.get_public_id() not in (None, first)
    assert alice.ping() == ""


def test_never_connected() -> None:
    """A client that is not connected raises an error that says what to do."""
    client = SAMPIntegratedClient(name="Alice")
    client.disconnect()
    for use in (client.ping, client.get_registered_clients, lambda: client.enotify_all("test.x")):
        with pytest.raises(SAMPClientError, match=r"connect\(\)"):
            use()
    assert client.client is not None
    assert not client.is_connected


def test_context_manager(hub: SAMPHubServer) -> None:
    """``with`` connects the client if it is not connected, and disconnects it at the end."""
    with SAMPIntegratedClient(name="Alice") as alice:
        assert alice.is_connected
    assert not alice.is_connected
    alice.connect()
    own_id = alice.get_public_id()
    with alice as same:
        assert same is alice
        assert alice.get_public_id() == own_id
    assert not alice.is_connected


def test_which_hub(make_hub: MakeHub, connect: Connect, tmp_path: Path) -> None:
    """`connect` accepts a hub of this process or parameters of a hub. A connected client does not change its hub."""
    one, two = make_hub(lockfile=str(tmp_path / "one")), make_hub(lockfile=str(tmp_path / "two"))
    alice = connect("Alice", how={"hub": one})
    bob = connect("Bob", how={"hub_params": two.params})
    assert other_ids(alice) == other_ids(bob) == []
    alice.connect(hub=one)
    with pytest.raises(SAMPClientError, match="another hub"):
        alice.connect(hub=two)
    with pytest.raises(ValueError, match="not both"):
        SAMPIntegratedClient().connect(hub=one, hub_params=two.params)
    two.stop()
    with pytest.raises(SAMPHubError, match="not running"):
        SAMPIntegratedClient().connect(hub=two)


def test_bound_before_connecting(hub: SAMPHubServer, connect: Connect) -> None:
    """Handlers and annotations that are bound before `connect` are declared; the metadata are not modified."""
    metadata = {"author.name": "A. Uthor", "deep": {"list": [1, 2]}}
    copy = {"author.name": "A. Uthor", "deep": {"list": [1, 2]}}
    bob = SAMPIntegratedClient(name="Bob", description="waits", metadata=metadata)
    note = record(bob)
    bob.bind_receive_notification("test.early", note, metadata={"x-note": 1})
    bob.connect()
    try:
        alice = connect("Alice")
        assert alice.get_subscriptions("bob")["test.early"] == {"x-note": "1"}
        assert alice.get_subscribed_clients("test.early") == {bob.get_public_id(): {"x-note": "1"}}
        assert alice.get_metadata("BOB") == {
            "samp.name": "Bob",
            "samp.description.text": "waits",
            "author.name": "A. Uthor",
            "deep": {"list": ["1", "2"]},
        }
        assert metadata == copy
        alice.enotify("bob", "test.early")
        assert note.assert_received("*").mtype == "test.early"
        bob.disconnect()
        bob.connect()
        alice.enotify("bob", "test.early")
        assert note.assert_received("*").mtype == "test.early"
    finally:
        bob.disconnect()


def test_default_subscriptions(pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """R28, R29: a client replies to pings, but to ``client.env.get`` only if the program binds its handler."""
    alice, bob = pair
    subscriptions = alice.get_subscriptions("bob")
    assert "samp.app.ping" in subscriptions
    assert "client.env.get" not in subscriptions
    os.environ["SAMP_TEST_VARIABLE"] = "value"
    try:
        bob.bind_receive_call("client.env.get", bob.client.client_env_get)
        for name, value in (("SAMP_TEST_VARIABLE", "value"), ("SAMP_TEST_NO_VARIABLE", "")):
            response = alice.ecall_and_wait("bob", "client.env.get", 10, name=name)
            assert response["samp.result"] == {"value": value}
    finally:
        del os.environ["SAMP_TEST_VARIABLE"]


def test_declarations(pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """R11, R12: later declarations add to earlier ones; unbinding a handler removes its subscription."""
    alice, bob = pair
    bob.declare_metadata({"author.name": "B"})
    assert alice.get_metadata("bob") == {"samp.name": "Bob", "author.name": "B"}
    bob.bind_receive_message("test.x", record(bob))
    bob.declare_subscriptions({"test.free": {"a": "b"}})
    bob.bind_receive_message("test.y", record(bob), declare=False)
    assert set(alice.get_subscriptions("bob")) >= {"test.x", "test.free"}
    assert "test.y" not in alice.get_subscriptions("bob")
    bob.unbind_receive_call("test.x")
    bob.unbind_receive_notification("test.x")
    subscriptions = alice.get_subscriptions("bob")
    assert "test.x" not in subscriptions
    assert {"test.y", "test.free"} <= set(subscriptions)
    bob.declare_subscriptions({})
    assert "test.free" not in alice.get_subscriptions("bob")
    with pytest.raises(SAMPClientError, match=r"test\.x"):
        bob.unbind_receive_call("test.x")
    with pytest.raises(ValueError, match="wildcard"):
        bob.bind_receive_call("test.*.x", record(bob))


def test_not_callable(hub: SAMPHubServer, connect: Connect) -> None:
    """R13: a client that is not callable can send and wait, but not bind handlers."""
    bob = connect("Bob")
    alice = connect("Alice", callable=False)
    assert alice.ecall_and_wait("bob", "samp.app.ping", 10)["samp.status"] == "samp.ok"
    with pytest.raises(SAMPClientError, match="not callable"):
        alice.bind_receive_call("test.x", record(alice))
    with pytest.raises(SAMPProxyError):
        bob.enotify("alice", "samp.app.ping")


def test_nothing_to_declare(hub: SAMPHubServer) -> None:
    """A client may have neither metadata nor subscriptions."""
    with SAMPIntegratedClient(callable=False) as client:
        assert client.get_metadata(str(client.get_public_id())) == {}


def test_address_in_use(hub: SAMPHubServer, connect: Connect) -> None:
    """If the client's port is in use, `connect` raises an error, and no client stays registered with the hub."""
    alice = connect("Alice")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        client = SAMPIntegratedClient(port=taken.getsockname()[1])
        with pytest.raises(SAMPClientError, match="cannot listen"):
            client.connect()
        assert not client.is_connected
    assert other_ids(alice) == []


def test_invalid_metadata(hub: SAMPHubServer, connect: Connect) -> None:
    """Metadata that are not SAMP values cause an error before anything is sent; the client is not registered."""
    alice = connect("Alice")
    client = SAMPIntegratedClient(metadata={"x": None})
    with pytest.raises(SAMPTypeError, match="x is None"):
        client.connect()
    assert not client.is_connected
    assert other_ids(alice) == []


@pytest.mark.parametrize("early", [True, False])
def test_binding_during_connect(hub: SAMPHubServer, connect: Connect, early: bool) -> None:
    """A handler that another thread binds after the registration, or while the client declares, is subscribed."""
    alice = connect("Alice")
    client = SAMPIntegratedClient(name="Bob")
    original_register, original_declaration = client.hub.register_with_metadata, CallbackServer.declaration
    binding = threading.Thread(target=client.bind_receive_call, args=("test.x", record(client)))

    def register_and_bind(*args: Any) -> Any:
        registration = original_register(*args)
        binding.start()
        binding.join()
        return registration

    def bind_and_declare(server: CallbackServer, key: str) -> Any:
        binding.start()  # it waits until the hub knows the address of the client
        return original_declaration(server, key)

    with pytest.MonkeyPatch.context() as patch:
        if early:
            patch.setattr(client.hub, "register_with_metadata", register_and_bind)
        else:
            patch.setattr(CallbackServer, "declaration", bind_and_declare)
        client.connect()
    try:
        binding.join()
        assert alice.ecall_and_wait("bob", "test.x", 10)["samp.status"] == "samp.ok"
    finally:
        client.disconnect()


def test_all_addresses(hub: SAMPHubServer, connect: Connect) -> None:
    """R37: if a client listens on all addresses, the hub gets one that it can reach."""
    bob = connect("Bob", addr="0.0.0.0")
    alice = connect("Alice")
    assert alice.ecall_and_wait("bob", "samp.app.ping", 10)["samp.status"] == "samp.ok"
    assert bob.is_connected


def test_two_hundred_cycles(hub: SAMPHubServer, connect: Connect) -> None:
    """Connecting and disconnecting leaks neither threads nor descriptors."""
    alice = connect("Alice")
    process = psutil.Process()
    witness = connect("Witness")
    before = (process.num_threads(), process.num_fds())
    for _ in range(200):
        alice.disconnect()
        alice.connect()
    after = (process.num_threads(), process.num_fds())
    assert after[0] <= before[0] + 3
    assert after[1] <= before[1] + 5
    assert other_ids(witness) == [alice.get_public_id()]
