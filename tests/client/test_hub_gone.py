"""A client whose hub stops, is killed, hangs, and is started again."""

from __future__ import annotations

import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyvo.samp import SAMPClientError, SAMPHubError, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.client import SAMPClient, session
from pyvo.samp.client.hub_connection import ConnectionState

from .conftest import HUB, Connect, HubProcess, Script, first_line, record, states


def _collect(errors: queue.Queue[BaseException], function: Callable[..., Any], *args: Any) -> None:
    try:
        function(*args)
    except Exception as error:
        errors.put(error)


def test_hub_stops(hub: SAMPHubServer, connect: Connect) -> None:
    """R26: a hub that stops notifies its clients; later calls fail immediately."""
    seen, on_state = states()
    alice = connect("Alice", how={"on_state": on_state})
    note = record(alice)
    alice.bind_receive_notification("samp.hub.event.shutdown", note)
    hub.stop()
    assert seen.get(timeout=5) == "lost"
    assert note.assert_received("*").mtype == "samp.hub.event.shutdown"
    assert not alice.is_connected
    assert alice.get_private_key() is None
    start = time.monotonic()
    for use in (alice.ping, lambda: alice.enotify("x", "test.x"), lambda: alice.ecall_and_wait("x", "test.x", 0)):
        with pytest.raises(SAMPHubError, match="shut down"):
            use()
    alice.disconnect()
    alice.disconnect()
    assert time.monotonic() - start < 1
    with pytest.raises(SAMPClientError):
        alice.ping()
    assert seen.empty()
    hub.start()
    alice.connect()
    assert alice.is_connected


def test_hub_killed(hub_process: HubProcess, connect: Connect, monitored: queue.Queue[Any]) -> None:
    """An idle client notices that its hub was killed, and a call that waits ends."""
    process = hub_process()
    seen, on_state = states()
    alice = connect("Alice", how={"on_state": on_state})
    assert monitored.get(timeout=10) is alice._monitor
    bob = connect("Bob")
    bob.bind_receive_call("test.never", lambda *args: None)
    errors: queue.Queue[BaseException] = queue.Queue()
    waiting = threading.Thread(target=lambda: _collect(errors, alice.ecall_and_wait, "bob", "test.never", 0))
    waiting.start()
    monitored.get(timeout=10)
    process.kill()
    assert seen.get(timeout=5) == "lost"
    assert not alice.is_connected
    waiting.join(5)
    assert isinstance(errors.get(timeout=1), SAMPHubError)
    start = time.monotonic()
    with pytest.raises(SAMPHubError, match=r"connect\(\)"):
        alice.enotify_all("test.x")
    with pytest.raises(SAMPHubError):
        bob.enotify_all("test.x")
    assert not bob.is_connected
    alice.disconnect()
    bob.disconnect()
    assert time.monotonic() - start < 2


def test_a_call_notices_a_killed_hub(
    hub_process: HubProcess, connect: Connect
) -> None:
    """The first call after the hub was killed raises an error; from then on `is_connected` is false."""
    process = hub_process()
    alice = connect("Alice")
    process.kill()
    process.wait()
    with pytest.raises(SAMPHubError, match=r"Connect|connect"):
        alice.ping()
    assert not alice.is_connected
    with pytest.raises(SAMPHubError):
        alice.ping()


def test_hub_hangs(hub_process: HubProcess, connect: Connect) -> None:
    """A hub that is stopped by SIGSTOP, with its port open, does not block `disconnect` of a client."""
    process = hub_process()
    alice = connect("Alice")
    process.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    alice.disconnect()
    assert time.monotonic() - start < 4


def test_frozen_hub_and_a_waiting_call(
    hub_process: HubProcess, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call without a timeout ends when the hub no longer responds to pings."""
    monkeypatch.setattr("pyvo.samp.client.hub_connection.PING_INTERVAL", 0.5)
    monkeypatch.setattr("pyvo.samp.client.hub_connection.PING_TIMEOUT", 0.5)
    process = hub_process()
    alice, bob = connect("Alice"), connect("Bob")
    called = threading.Event()
    bob.bind_receive_call("test.never", lambda *args: called.set())
    errors: queue.Queue[BaseException] = queue.Queue()
    waiting = threading.Thread(target=lambda: _collect(errors, alice.ecall_and_wait, "bob", "test.never", "0"))
    waiting.start()
    assert called.wait(5)
    process.send_signal(signal.SIGSTOP)
    assert isinstance(errors.get(timeout=10), SAMPHubError)
    waiting.join(5)
    assert not alice.is_connected


def test_disconnected_by_the_hub(join: Connect, way: dict[str, Any]) -> None:
    """R26: a client that its hub disconnects raises errors with the reason, and does not reconnect."""
    seen, on_state = states()
    alice = join("Alice", how={"on_state": on_state, "reconnect": True})
    note = record(alice)
    alice.bind_receive_notification("samp.hub.disconnect", note)
    broker = way["hub"]._running.broker
    broker.disconnect(broker.client(str(alice.get_public_id())), "too loud")
    assert seen.get(timeout=5) == "lost"
    assert note.assert_received("*").params == {"reason": "too loud"}
    with pytest.raises(SAMPHubError, match="too loud"):
        alice.ping()
    with pytest.raises(queue.Empty):
        seen.get(timeout=1.5)
    alice.connect(**way)
    assert alice.is_connected


def test_shutdown_event_from_another_client(pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """R25: a shutdown event that another client sends is ignored."""
    alice, bob = pair
    message = {"samp.mtype": "samp.hub.event.shutdown", "samp.params": {}}
    alice.client.handle_hub_control("receive_notification", (alice.get_private_key(), bob.get_public_id(), message))
    assert alice.is_connected


# Reconnecting


def test_reconnect(hub: SAMPHubServer, connect: Connect) -> None:
    """With `reconnect` the client registers with the next hub, with its metadata, subscriptions and handlers."""
    seen, on_state = states()
    bob = connect("Bob", description="comes back", how={"reconnect": True, "on_state": on_state})
    note = record(bob)
    bob.bind_receive_message("test.x", note, metadata={"a": "b"})
    bob.declare_subscriptions({"test.free": {}})
    bob.declare_metadata({"author.name": "B"})
    for _ in range(2):
        hub.stop()
        assert seen.get(timeout=5) == "lost"
        with pytest.raises(SAMPHubError):
            bob.ping()
        hub.start()
        assert seen.get(timeout=10) == "connected"
        alice = connect("Alice")
        assert alice.get_metadata("bob") == {
            "samp.name": "Bob",
            "samp.description.text": "comes back",
            "author.name": "B",
        }
        assert alice.get_subscriptions("bob")["test.x"] == {"a": "b"}
        assert "test.free" in alice.get_subscriptions("bob")
        assert alice.ecall_and_wait("bob", "test.x", 10)["samp.status"] == "samp.ok"
        alice.disconnect()
    bob.disconnect()
    assert seen.empty()


def test_a_hub_that_is_lost_during_the_registration(
    hub: SAMPHubServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`on_state` reports the loss once, and there is one attempt to reconnect at a time."""
    monkeypatch.setattr(session, "RECONNECT_INTERVAL", 0.02)
    seen, on_state = states()
    bob = connect("Bob", how={"reconnect": True, "on_state": on_state})
    original_declare = SAMPClient._declare_all
    failures: list[str] = []

    def fail(client: SAMPClient, key: str, *ahead: object) -> None:
        if len(failures) < 5:
            failures.append(key)
            client.hub.mark_lost("The hub went away.")
            raise SAMPHubError("The hub went away.")
        original_declare(client, key, *ahead)

    monkeypatch.setattr(SAMPClient, "_declare_all", fail)
    hub.stop()
    assert seen.get(timeout=5) == "lost"
    hub.start()
    assert seen.get(timeout=10) == "connected"
    assert bob.ping() == ""
    assert seen.empty()
    assert len(failures) == 5
    monkeypatch.setattr(session, "RECONNECT_INTERVAL", 60)
    with bob._lock:
        bob._timer = None
        bob._status.enter(ConnectionState.LOST)
        bob._schedule_reconnect()
        only = bob._timer
        assert only is not None
        assert only.active
        bob._schedule_reconnect()
        assert bob._timer is only


def test_reconnect_after_a_crash(hub_process: HubProcess, connect: Connect) -> None:
    """A client also reconnects after its hub was killed."""
    seen, on_state = states()
    first = hub_process()
    bob = connect("Bob", how={"reconnect": True, "on_state": on_state})
    first.kill()
    first.wait()
    second = hub_process()
    assert seen.get(timeout=10) == "lost"
    assert seen.get(timeout=10) == "connected"
    assert bob.ping() == ""
    second.communicate(b"\n", timeout=10)
    assert seen.get(timeout=10) == "lost"


def test_another_hub_at_the_same_port(script: Script, connect: Connect, monitored: queue.Queue[Any]) -> None:
    """After a hub was killed, a client does not take a new hub at the same port for the old one, and reconnects."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = HUB.replace("web_profile=False", f"web_profile=False, port={port}")
    first = script(code)
    assert first_line(first) == "running"
    seen, on_state = states()
    bob = connect("Bob", how={"reconnect": True, "on_state": on_state})
    monitored.get(timeout=10)
    first.kill()
    first.wait()
    assert first_line(script(code)) == "running"
    assert seen.get(timeout=10) == "lost"
    assert seen.get(timeout=10) == "connected"
    assert bob.ping() == ""


def test_disconnect_while_waiting_for_a_hub(hub: SAMPHubServer, connect: Connect) -> None:
    """`disconnect` also ends the wait for the next hub."""
    seen, on_state = states()
    bob = connect("Bob", how={"reconnect": True, "on_state": on_state})
    hub.stop()
    assert seen.get(timeout=5) == "lost"
    bob.disconnect()
    hub.start()
    with pytest.raises(queue.Empty):
        seen.get(timeout=1.5)
    assert not bob.is_connected


def test_callback_that_raises(hub: SAMPHubServer, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A client reconnects even if `on_state` raises an exception."""

    def on_state(state: str) -> None:
        seen.put(state)
        raise RuntimeError("no interest")

    seen: queue.Queue[str] = queue.Queue()
    connect("Bob", how={"reconnect": True, "on_state": on_state})
    hub.stop()
    assert seen.get(timeout=5) == "lost"
    hub.start()
    assert seen.get(timeout=10) == "connected"
    assert "no interest" in caplog.text
