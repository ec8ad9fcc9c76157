"""The state of a connection and of a session: the valid changes, and their causes."""

from __future__ import annotations

import threading

import pytest

from pyvo.samp import (
    SAMPClient,
    SAMPClientError,
    SAMPHubError,
    SAMPHubProxy,
    SAMPHubServer,
    SAMPIntegratedClient,
    SAMPProxyError,
)
from pyvo.samp.client import session
from pyvo.samp.client.hub_connection import ConnectionState, ConnectionStatus

from .conftest import Connect, states

CHANGES = {
    ("DISCONNECTED", "CONNECTING"), ("CONNECTING", "CONNECTED"), ("CONNECTING", "LOST"), ("CONNECTED", "LOST"),
    ("CONNECTING", "CLOSED"), ("CONNECTED", "CLOSED"), ("LOST", "CONNECTING"), ("CLOSED", "CONNECTING"),
    ("CONNECTED", "CONNECTING"), ("CONNECTING", "CONNECTING"),
    *((state.name, "DISCONNECTED") for state in ConnectionState),
}  # fmt: skip


@pytest.mark.parametrize("old", ConnectionState)
@pytest.mark.parametrize("new", ConnectionState)
def test_changes(old: ConnectionState, new: ConnectionState) -> None:
    """A change that is not in the table changes neither the state nor the reason."""
    status = ConnectionStatus("at first")
    status.state = old
    is_change = (old.name, new.name) in CHANGES
    assert status.enter(new, "later") is is_change
    assert (status.state, status.reason) == ((new, "later") if is_change else (old, "at first"))


def test_a_loss_counts_once() -> None:
    """If several threads notice the loss, only one of them changes the state."""
    status = ConnectionStatus()
    status.enter(ConnectionState.CONNECTING)
    start, changed = threading.Barrier(8), []

    def lose(number: int) -> None:
        start.wait(10)
        if status.enter(ConnectionState.LOST, str(number)):
            changed.append(str(number))

    threads = [threading.Thread(target=lose, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert changed == [status.reason]


def test_connection(hub: SAMPHubServer) -> None:
    """The first response makes a connection CONNECTED; a hub that has stopped makes it LOST."""
    proxy = SAMPHubProxy()
    assert proxy.status.state is ConnectionState.DISCONNECTED
    proxy.connect_unverified()
    assert proxy.status.state is ConnectionState.CONNECTING
    assert "does not respond" in proxy.status.reason
    proxy.ping()
    assert (proxy.status.state, proxy.status.reason) == (ConnectionState.CONNECTED, "")
    hub.stop()
    with pytest.raises(SAMPHubError):
        proxy.ping()
    assert proxy.status.state is ConnectionState.LOST
    proxy.disconnect()
    assert proxy.status.state is ConnectionState.DISCONNECTED


def test_no_hub_at_the_first_call(hub: SAMPHubServer) -> None:
    """If the first call on an unverified connection fails, the error says that no hub responds."""
    proxy = SAMPHubProxy()
    proxy.connect_unverified(hub_params={**hub.params, "samp.hub.xmlrpc.url": "http://127.0.0.1:9/"})
    with pytest.raises(SAMPHubError, match="No SAMP hub responds at"):
        proxy.ping()
    assert proxy.status.state is ConnectionState.DISCONNECTED


def test_a_derived_class_sets_connected() -> None:
    """Classes derived from those of upstream set ``_connected``, which changes the state."""
    proxy = SAMPHubProxy()
    proxy._connected = True
    assert proxy.is_connected
    assert proxy.status.state is ConnectionState.CONNECTED
    proxy._connected = False
    assert not proxy.is_connected
    assert proxy.status.state is ConnectionState.DISCONNECTED


def test_session(hub: SAMPHubServer, connect: Connect) -> None:
    """`connect` and `disconnect` of a client change the state of its session."""
    client = connect("Alice")
    assert client._status.state is ConnectionState.CONNECTED
    client.disconnect()
    assert client._status.state is ConnectionState.DISCONNECTED
    with pytest.raises(SAMPClientError, match="call connect"):
        client.ping()


def test_a_client_that_the_hub_disconnects(hub: SAMPHubServer, connect: Connect) -> None:
    """R26: a client that the hub disconnects is CLOSED, and does not reconnect."""
    seen, on_state = states()
    client = connect("Alice", how={"reconnect": True, "on_state": on_state})
    message = {"samp.mtype": "samp.hub.disconnect", "samp.params": {"reason": "a test"}}
    client.client.handle_hub_control("receive_notification", (client.get_private_key(), "hub", message))
    assert seen.get(timeout=5) == "lost"
    assert client.hub.status.state is ConnectionState.CLOSED
    with pytest.raises(SAMPHubError, match="a test"):
        client.ping()
    with client._lock:
        assert client._status.state is ConnectionState.CLOSED
        assert client._timer is None


@pytest.mark.parametrize("cause", ["no hub", "a hub that rejects the client"])
def test_failed_attempts_to_reconnect(
    hub: SAMPHubServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """Between attempts, calls raise the error of the hub that was lost."""
    monkeypatch.setattr(session, "RECONNECT_INTERVAL", 0.02)
    attempts, may_register = threading.Semaphore(0), threading.Event()
    register = SAMPIntegratedClient._register

    def count(client: SAMPIntegratedClient) -> None:
        try:
            register(client)
        finally:
            attempts.release()

    def reject(client: SAMPClient, **_options: object) -> None:
        if not may_register.is_set():
            raise SAMPProxyError(1, "not today")
        register_client(client)

    register_client = SAMPClient.register
    seen, on_state = states()
    client = connect("Alice", how={"reconnect": True, "on_state": on_state})
    monkeypatch.setattr(SAMPIntegratedClient, "_register", count)
    hub.stop()
    assert seen.get(timeout=5) == "lost"
    if cause != "no hub":
        monkeypatch.setattr(SAMPClient, "register", reject)
        hub.start()
    for _ in range(3):
        assert attempts.acquire(timeout=10)
        with client._lock, pytest.raises(SAMPHubError, match="has shut down"):  # no attempt is in progress
            client.ping()
    may_register.set()
    if cause == "no hub":
        hub.start()
    assert seen.get(timeout=10) == "connected"
    assert client._status.state is ConnectionState.CONNECTED
    assert client.hub.status.state is ConnectionState.CONNECTED
