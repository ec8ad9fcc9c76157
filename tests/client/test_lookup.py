"""Clients are found by their names and by their ids."""

from __future__ import annotations

import pytest

from pyvo.samp import SAMPClientError, SAMPHubServer, SAMPProxyError, find_client_id

from .conftest import Connect, record


def test_names(hub: SAMPHubServer, connect: Connect) -> None:
    """Methods that accept an id also accept a name, in upper or lower case."""
    alice, bob = connect("Alice"), connect("Bob the Builder")
    note = record(bob, {"n": 1})
    bob.bind_receive_message("test.x", note)
    for name in (bob.get_public_id(), "Bob the Builder", "bob THE builder"):
        assert alice.get_metadata(name)["samp.name"] == "Bob the Builder"
        assert "test.x" in alice.get_subscriptions(name)
        alice.enotify(name, "test.x")
        assert alice.ecall(name, "tag", "test.x")
        assert alice.ecall_and_wait(name, "test.x", 10)["samp.result"] == {"n": "1"}
        for _ in range(3):
            note.assert_received("*")
    assert alice.get_metadata("hub")["samp.name"]
    assert find_client_id(alice, "BOB THE BUILDER") == bob.get_public_id()


def test_no_such_client(hub: SAMPHubServer, connect: Connect) -> None:
    """An unknown name is an error that lists the registered clients."""
    alice, bob = connect("Alice"), connect("Bob")
    with pytest.raises(SAMPProxyError, match=rf"'Carol'.*Bob \({bob.get_public_id()}\)"):
        alice.enotify("Carol", "test.x")
    with pytest.raises(KeyError, match="Bob"):
        find_client_id(alice, "Carol")


def test_two_clients_with_the_same_name(hub: SAMPHubServer, connect: Connect) -> None:
    """If two clients have the same name, the error lists their ids, which can be used."""
    alice, one, two = connect("Alice"), connect("Twin"), connect("TWIN")
    with pytest.raises(SAMPClientError, match=rf"{one.get_public_id()}, {two.get_public_id()}"):
        alice.ecall_and_wait("twin", "samp.app.ping", 10)
    assert alice.ecall_and_wait(str(two.get_public_id()), "samp.app.ping", 10)["samp.status"] == "samp.ok"
    one.disconnect()
    assert alice.ecall_and_wait("twin", "samp.app.ping", 10)["samp.status"] == "samp.ok"


def test_an_id_has_priority_over_a_name(hub: SAMPHubServer, connect: Connect) -> None:
    """A client whose name is the id of another client does not get the messages of that client."""
    alice, bob = connect("Alice"), connect("Bob")
    thief = connect(str(bob.get_public_id()))
    note, stolen = record(bob), record(thief)
    bob.bind_receive_notification("test.x", note)
    thief.bind_receive_notification("test.x", stolen)
    alice.enotify(str(bob.get_public_id()), "test.x")
    note.assert_received("*")
    stolen.assert_not_received("*")


def test_own_id(hub: SAMPHubServer, connect: Connect) -> None:
    """A client can use its own id to request its metadata and to send messages to itself."""
    alice = connect("Alice")
    assert alice.get_metadata(str(alice.get_public_id())) == {"samp.name": "Alice"}
    with pytest.raises(SAMPProxyError):
        alice.enotify(str(alice.get_public_id()), "test.unknown")


def test_nameless(hub: SAMPHubServer, connect: Connect) -> None:
    """An empty name does not match clients without a name; errors list them as such."""
    alice, nameless = connect("Alice"), connect()
    assert alice.get_metadata(str(nameless.get_public_id())) == {}
    for name in ("Carol", ""):
        with pytest.raises(SAMPProxyError, match="no name"):
            alice.enotify(name, "samp.app.ping")


def test_parts_of_names(hub: SAMPHubServer, connect: Connect) -> None:
    """A part of a name, in upper or lower case, matches one client; if it matches several, the error lists them."""
    alice, topcat = connect("Alice"), connect("My TOPCAT")
    note = record(topcat)
    topcat.bind_receive_notification("test.x", note)
    for part in ("topcat", "TopCat", " y T "):
        alice.enotify(part, "test.x")
        note.assert_received("*")
        assert alice.get_metadata(part)["samp.name"] == "My TOPCAT"
    with pytest.raises(KeyError):
        find_client_id(alice, "topcat")
    other = connect("TOPCAT 2")
    with pytest.raises(SAMPClientError) as caught:
        alice.enotify("topcat", "test.x")
    ids = f"{topcat.get_public_id()}, {other.get_public_id()}"
    assert str(caught.value) == f"'topcat' matches My TOPCAT, TOPCAT 2; use an id: {ids}"
    exact = connect("topcat")
    assert alice.get_metadata("TOPCAT") == {"samp.name": "topcat"}
    exact.disconnect()


def test_texts_that_match_no_name(hub: SAMPHubServer, connect: Connect) -> None:
    """A single letter, the id of a client that has unregistered, and a part of the hub's name match no client."""
    alice, bob = connect("Alice"), connect("Bob")
    gone = str(bob.get_public_id())
    bob.disconnect()
    connect(f"x{gone}x")
    hub_name = alice.get_metadata("hub")["samp.name"]
    for text in (gone, "x", hub_name[1:]):
        with pytest.raises(SAMPProxyError, match="No client has the id or name"):
            alice.enotify(text, "test.x")


@pytest.mark.parametrize("name", ["SAOImageDS9", "ds9", "DS9"])
@pytest.mark.parametrize("wanted", ["SAOImageDS9", "saoimageds9", "ds9", "DS9"])
def test_names_of_ds9(hub: SAMPHubServer, connect: Connect, name: str, wanted: str) -> None:
    """The name of DS9 8.4.1 is SAOImageDS9, that of DS9 8.6 is ds9; both names match both versions."""
    alice, ds9 = connect("Alice"), connect(name)
    connect("ds9 helper")
    assert alice.get_metadata(wanted)["samp.name"] == name
    assert alice.wait_for(wanted, 10).id == alice.clients[wanted].id == ds9.get_public_id()
    assert wanted in alice.clients
