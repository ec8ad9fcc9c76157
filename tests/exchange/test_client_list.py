# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The list of the other clients, `wait_for`, and `connect(start_hub=True)`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyvo.samp import SAMPClientError, SAMPHubServer, SAMPIntegratedClient, SAMPTimeoutError
from pyvo.samp.exchange import client_list

Connect = Callable[..., SAMPIntegratedClient]
Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


def test_entries(pair: Pair) -> None:
    """The list has the name, id, icon and subscriptions of each client, without the hub and the client itself."""
    alice, bob = pair
    bob.declare_metadata({"samp.icon.url": "http://127.0.0.1/x.png", "samp.description.text": "Me"})
    bob.declare_subscriptions({"table.*": {}})
    info = alice.wait_for("bob", 10, "table.load.votable")
    assert [each.id for each in alice.clients] == [bob.get_public_id()]
    assert (info.name, info.id, info.description) == ("Bob", bob.get_public_id(), "Me")
    assert info.icon == "http://127.0.0.1/x.png"
    assert info.takes("table.load.fits")
    assert not info.takes("image.load.fits")
    assert "bob" in alice.clients
    assert alice.clients["BOB"] == alice.clients[info.id] == info
    assert len(alice.clients) == 1
    assert [each.name for each in alice.clients.taking("table.load.fits")] == ["Bob"]
    with pytest.raises(KeyError, match="Connected clients: Bob"):
        alice.clients["carol"]


def test_events_update_the_list(pair: Pair, connect: Connect) -> None:
    """Events of the hub update the list; it needs no more requests."""
    alice, _ = pair
    assert len(alice.clients) == 1
    requests: list[str] = []
    alice.hub.get_registered_clients = requests.append  # type: ignore[assignment,method-assign]
    carol = connect("Carol")
    carol.bind_receive_call("x-test.a", lambda *args: None)
    info = alice.wait_for("carol", 10, "x-test.a")
    assert info.name == "Carol"
    gone = threading.Event()
    alice.clients.on_gone(lambda client_id: gone.set())
    carol.disconnect()
    assert gone.wait(10)
    assert [each.name for each in alice.clients] == ["Bob"]
    assert requests == []


def test_handlers_of_the_program_receive_the_events_too(pair: Pair, connect: Connect) -> None:
    alice, _ = pair
    seen: list[str] = []
    done = threading.Event()

    @alice.on("samp.hub.event.register")
    def register(id) -> None:  # noqa: A002 - the name of the parameter
        seen.append(id)
        done.set()

    assert len(alice.clients) == 1
    carol = connect("Carol")
    assert done.wait(10)
    assert seen == [carol.get_public_id()]
    assert alice.wait_for("carol", 10).id == carol.get_public_id()


def test_events_from_other_clients_are_ignored(pair: Pair) -> None:
    """Only the hub's own events change the list (R25): other hubs may forward such a message from a client."""
    alice, bob = pair
    assert len(alice.clients) == 1
    message = {"samp.mtype": "samp.hub.event.unregister", "samp.params": {"id": bob.get_public_id()}}
    alice.receive_notification("", "c99", message)
    assert len(alice.clients) == 1


def test_representations(pair: Pair) -> None:
    """The list has a text and an HTML form; the HTML contains no markup from other clients."""
    alice, bob = pair
    bob.declare_metadata({"samp.name": "<i>", "samp.icon.url": "javascript:x", "a": "b"})
    bob.declare_subscriptions({f"x-test.n{number:02}": {} for number in range(15)})
    alice.wait_for("<i>", 10, "x-test.n01")
    assert "x-test.n04, 10 more" in repr(alice.clients)
    html = alice.clients._repr_html_()
    assert "&lt;i&gt;" in html
    assert "javascript" not in html
    assert "<i>" not in html
    bob.disconnect()
    text = repr(alice.clients)
    assert "Alice" not in text


def test_wait_for(pair: Pair, connect: Connect) -> None:
    """`wait_for` returns when the client has registered and is subscribed to the MType."""
    alice, _ = pair
    found: list[client_list.ClientInfo] = []
    thread = threading.Thread(target=lambda: found.append(alice.wait_for("CAROL", 20, "x-test.a")))
    thread.start()
    carol = connect("Carol")
    carol.bind_receive_call("x-test.a", lambda *args: None)
    thread.join(20)
    assert found[0].id == carol.get_public_id()
    with pytest.raises(SAMPTimeoutError, match=r"'dora' registered within 0\.1 s. Connected clients: Bob, Carol"):
        alice.wait_for("dora", 0.1)
    with pytest.raises(SAMPTimeoutError, match="'carol' that is subscribed to x-test.b"):
        alice.wait_for("carol", 0.1, "x-test.b")


def test_parts_of_names(pair: Pair, connect: Connect) -> None:
    """`wait_for` accepts a part of a name that one client has; several are an error; a whole name has priority."""
    alice, _ = pair
    one = connect("My viewer")
    one.bind_receive_call("x-test.a", lambda *args: None)
    assert alice.wait_for("VIEWER", 10).id == alice.clients["viewer"].id == one.get_public_id()
    two = connect("Your viewer")
    two.bind_receive_call("x-test.b", lambda *args: None)
    assert alice.wait_for("viewer", 10, "x-test.b").id == two.get_public_id()
    with pytest.raises(SAMPClientError, match=r"'viewer' matches My viewer, Your viewer; use an id: c\d+, c\d+"):
        alice.wait_for("viewer", 10)
    with pytest.raises(SAMPClientError, match="matches"):
        alice.clients["viewer"]
    assert "viewer" in alice.clients
    assert "viewers" not in alice.clients
    assert "v" not in alice.clients
    assert 3 not in alice.clients
    named = connect("viewer")
    named.bind_receive_call("x-test.a", lambda *args: None)
    assert alice.wait_for("Viewer", 10, "x-test.a").id in {named.get_public_id(), one.get_public_id()}
    assert alice.wait_for(str(named.get_public_id()), 10).name == "viewer"
    assert alice.wait_for("viewer", 10).id == named.get_public_id()


def test_an_entry_refers_to_one_client(pair: Pair, connect: Connect) -> None:
    """After the client has unregistered, its entry is an error, even if another client has its id as a name."""
    alice, bob = pair
    entry = alice.clients["Bob"]
    bob.disconnect()
    connect(entry.id)
    with pytest.raises(SAMPClientError, match="No client has the id"):
        alice.send(np.zeros((2, 2)), to=entry)
    with pytest.raises(SAMPClientError, match="This can be sent to only one client, not to 2"):
        alice.get_position([connect("P").get_public_id(), connect("Q").get_public_id()])


def test_waiting_for_an_id(pair: Pair, connect: Connect) -> None:
    """`wait_for` gives a new client some time to declare its name, before it returns the client without a name."""
    alice, _ = pair
    carol = connect("", callable=False)
    carol_id = str(carol.get_public_id())
    assert alice.clients[carol_id].name == ""
    found: list[client_list.ClientInfo] = []
    thread = threading.Thread(target=lambda: found.append(alice.wait_for(carol_id, 20)))
    thread.start()
    carol.declare_metadata({"samp.name": "Carol"})
    thread.join(20)
    assert found[0].name == "Carol"


def test_waiting_for_a_client_without_subscriptions(
    pair: Pair, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without subscriptions is returned after DECLARATION_TIMEOUT, in which it could have declared some."""
    monkeypatch.setattr(client_list, "DECLARATION_TIMEOUT", 0.2)
    alice, _ = pair
    mute = connect("Mute", callable=False)
    assert alice.wait_for("mute", 20).id == mute.get_public_id()


def test_the_list_after_disconnecting_and_connecting(pair: Pair) -> None:
    alice, _ = pair
    assert len(alice.clients) == 1
    alice.disconnect()
    with pytest.raises(SAMPClientError, match=r"connect\(\)"):
        list(alice.clients)
    alice.connect()
    assert [each.name for each in alice.clients] == ["Bob"]


@pytest.mark.parametrize("timeout", [0, 20])
def test_disconnecting_ends_a_wait(pair: Pair, timeout: float) -> None:
    """`disconnect` ends a wait of another thread immediately, with an error that gives the reason."""
    alice, _ = pair
    assert len(alice.clients) == 1
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            alice.wait_for("carol", timeout)
        except SAMPClientError as error:
            errors.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not alice.clients._changed._waiters and time.monotonic() < deadline:  # type: ignore[attr-defined]
        alice.ping()
    assert alice.clients._changed._waiters  # type: ignore[attr-defined]
    alice.disconnect()
    thread.join(10)
    assert not thread.is_alive()
    assert "was disconnected" in str(errors[0])
    alice.connect()
    assert alice.wait_for("bob", 10).name == "Bob"


def test_an_event_before_an_earlier_response(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that the hub sent before the event of a change does not undo this change."""
    alice, bob = pair
    notified = threading.Event()
    alice.client.add_filter("test", ["samp.hub.event.subscriptions"], lambda message: notified.set())
    original = alice.get_subscriptions
    responses = []

    def get_subscriptions(client_id: str) -> Any:
        response = original(client_id)
        if not responses:
            bob.declare_subscriptions({"x-test.new": {}})
            assert notified.wait(10)
            alice.ping()
        responses.append(response)
        return response

    monkeypatch.setattr(alice, "get_subscriptions", get_subscriptions)
    assert alice.wait_for("bob", 10, "x-test.new").id == bob.get_public_id()


def test_a_new_hub(make_hub: Callable[..., SAMPHubServer]) -> None:
    """After the client has reconnected, the list has the clients of the new hub."""
    hub = make_hub()
    alice, bob = SAMPIntegratedClient(name="Alice"), SAMPIntegratedClient(name="Bob")
    back = threading.Event()
    alice.connect(reconnect=True, on_state=lambda state: state == "connected" and back.set())
    bob.connect()
    try:
        assert len(alice.clients) == 1
        hub.stop()
        hub.start()
        assert back.wait(20)
        bob.connect()
        assert alice.wait_for("bob", 20).id == bob.get_public_id()
    finally:
        alice.disconnect()
        bob.disconnect()


def test_a_client_that_is_not_callable(pair: Pair, connect: Connect) -> None:
    """The client requests the list each time, because it receives no events."""
    mute = connect("Mute", callable=False)
    assert {each.name for each in mute.clients} == {"Alice", "Bob"}
    pair[1].disconnect()
    assert {each.name for each in mute.clients} == {"Alice"}
    with pytest.raises(SAMPTimeoutError):
        mute.wait_for("bob", 1)


# start_hub


def test_start_hub(isolated: Path) -> None:
    """`connect` starts a hub if none runs. Other clients find this hub, and it stops with its client."""
    first, second = SAMPIntegratedClient(name="First"), SAMPIntegratedClient(name="Second")
    first.connect(start_hub=True)
    try:
        assert first.own_hub is not None
        second.connect(start_hub=True)
        assert second.own_hub is None
        assert {each.name for each in second.clients} == {"First"}
        second.disconnect()
        assert first.is_connected
    finally:
        second.disconnect()
        first.disconnect()
    assert not (isolated / ".samp").exists()
    assert first.own_hub is None


def test_start_hub_uses_the_running_hub(hub: SAMPHubServer) -> None:
    client = SAMPIntegratedClient(name="First")
    client.connect(start_hub=True)
    assert client.own_hub is None
    client.disconnect()
    assert hub.is_running


def test_start_hub_with_options(isolated: Path, tmp_path: Path) -> None:
    client = SAMPIntegratedClient(name="First")
    client.connect(start_hub={"lockfile": tmp_path / "mine", "label": "mine"})
    assert (tmp_path / "mine").exists()
    assert client.is_connected
    client.disconnect()
    assert not (tmp_path / "mine").exists()


def test_several_clients_start_one_hub(isolated: Path) -> None:
    """If several clients start a hub at the same time, exactly one hub runs, and all are connected to it."""
    clients = [SAMPIntegratedClient(name=f"C{number}") for number in range(4)]
    barrier = threading.Barrier(len(clients))
    failures: list[BaseException] = []

    def connect(client: SAMPIntegratedClient) -> None:
        barrier.wait()
        try:
            client.connect(start_hub=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=connect, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(client.own_hub is not None for client in clients) == 1
    assert len({client.hub.url for client in clients}) == 1
    for client in sorted(clients, key=lambda client: client.own_hub is not None):
        client.disconnect()
