"""The operations of the hub, without sockets, threads or a real clock."""

from __future__ import annotations

import re
import secrets

import pytest

from pyvo.samp.broker import Broker, Client, Delivery, EncodedMessage
from pyvo.samp.errors import SAMPProxyError, SAMPValueError
from pyvo.samp.protocol import NO_RESPONSE, SAMPValue

from .clockwork import Clock, ListQueue

LOAD = "table.load.votable"
OK: dict[str, SAMPValue] = {"samp.status": "samp.ok", "samp.result": {"x": "1"}}


def message(mtype: str = LOAD, **params: SAMPValue) -> EncodedMessage:
    return EncodedMessage.message({"samp.mtype": mtype, "samp.params": dict(params)}, source_profile="standard")


def response() -> EncodedMessage:
    return EncodedMessage.response(dict(OK), source_profile="standard")


class Hub:
    """A broker with a fake clock, and a shortcut to register clients."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = Broker(self.clock)

    def add_client(
        self, *patterns: str, name: str = "", profile: str = "standard", **more: object
    ) -> tuple[Client, ListQueue]:
        client = self.broker.register(profile, **more)  # type: ignore[arg-type]
        queue = ListQueue()
        self.broker.set_callable(client, True, queue)
        if name:
            self.broker.declare_metadata(client, {"samp.name": name})
        self.broker.declare_subscriptions(client, {pattern: {} for pattern in patterns})
        queue.pop_received()
        return client, queue


@pytest.fixture
def hub() -> Hub:
    return Hub()


def errors_of(delivery: Delivery) -> tuple[SAMPValue, SAMPValue]:
    """Return the text and the code of an error response."""
    assert delivery.kind == "receiveResponse"
    assert delivery.body.value["samp.status"] == "samp.error"
    error = delivery.body.value["samp.error"]
    assert isinstance(error, dict)
    return error["samp.errortxt"], error.get("samp.code")


# Identities


def test_ids_and_keys_are_never_reused(hub: Hub) -> None:
    """R6, R7: no id and no key is used twice, and keys have at least 128 bits."""
    clients = []
    for _ in range(50):
        client = hub.broker.register("standard")
        clients.append(client)
        if len(clients) % 2:
            hub.broker.unregister(client)
    assert len({client.client_id for client in clients}) == 50
    assert len({client.private_key for client in clients}) == 50
    for client in clients:
        assert re.fullmatch(r"[A-Za-z0-9_-]+", client.client_id)
        assert len(bytes.fromhex(client.private_key)) >= 16


def test_the_given_clock_and_keys_are_used() -> None:
    """The broker uses no other clock and no other source of keys."""
    clock = Clock()
    keys = iter(f"key{number}" for number in range(10))
    broker = Broker(clock, lambda: next(keys))
    client = broker.register("standard")
    assert client.private_key == "key1"
    assert client.last_active == clock.now


def test_an_invalid_key_is_a_fault(hub: Hub) -> None:
    """R9, R10, R38: a key is valid in its own profile only, and the fault does not show it."""
    client, _ = hub.add_client()
    assert hub.broker.authenticate("standard", client.private_key) is client
    for profile, key in (
        ("web", client.private_key),
        ("hub", client.private_key),
        ("standard", client.client_id),
        ("standard", ""),
        ("standard", ["x"]),
        ("standard", secrets.token_hex(16)),
    ):
        with pytest.raises(SAMPProxyError, match="private key") as fault:
            hub.broker.authenticate(profile, key)
        assert client.private_key not in str(fault.value)
    hub.broker.unregister(client)
    with pytest.raises(SAMPProxyError):
        hub.broker.authenticate("standard", client.private_key)


def test_an_unregistered_client_can_do_nothing(hub: Hub) -> None:
    """R9: each operation of an unregistered client is a fault."""
    gone, _ = hub.add_client()
    other, _ = hub.add_client("*")
    hub.broker.unregister(gone)
    broker = hub.broker
    for attempt in (
        lambda: broker.notify(gone, other.client_id, message()),
        lambda: broker.notify_all(gone, message()),
        lambda: broker.call(gone, other.client_id, "tag", message()),
        lambda: broker.call_all(gone, "tag", message()),
        lambda: broker.call_and_wait(gone, other.client_id, message(), print),
        lambda: broker.declare_metadata(gone, {}),
        lambda: broker.declare_subscriptions(gone, {}),
        lambda: broker.get_metadata(gone, other.client_id),
        lambda: broker.get_subscriptions(gone, other.client_id),
        lambda: broker.get_registered_clients(gone),
        lambda: broker.get_subscribed_clients(gone, LOAD),
        lambda: broker.set_callable(gone),
    ):
        with pytest.raises(SAMPProxyError, match="no longer registered"):
            attempt()


def test_a_client_never_shows_its_key(hub: Hub) -> None:
    """R38: the text form of a client does not contain its key."""
    client, _ = hub.add_client(name="topcat")
    assert client.private_key not in repr(client)
    assert "topcat" in repr(client)


@pytest.mark.parametrize(
    ("name", "display_name"),
    [("topcat", "c1 (topcat)"), ("  two\n words ", "c1 (two words)"), ("", "c1"), (" \n", "c1"), (["x"], "c1")],
)
def test_display_name_is_one_line(hub: Hub, name: SAMPValue, display_name: str) -> None:
    """Faults and log lines contain the display name, and a client may declare any name."""
    client = hub.broker.register("standard")
    hub.broker.declare_metadata(client, {"samp.name": name})
    assert client.display_name == display_name
    hub.broker.declare_metadata(client, {"samp.name": "x" * 100_000})
    assert len(client.display_name) < 80


def test_unregister_twice_is_one_event(hub: Hub) -> None:
    client, _ = hub.add_client()
    _, listener = hub.add_client("samp.hub.event.unregister")
    hub.broker.unregister(client)
    hub.broker.unregister(client)
    hub.broker.disconnect(client, "too late")
    assert len(listener.received) == 1


def test_authenticate_marks_the_client_active(hub: Hub) -> None:
    client, _ = hub.add_client()
    hub.clock.now += 5
    hub.broker.authenticate("standard", client.private_key)
    assert client.last_active == hub.broker.last_active == hub.clock.now


# The hub as a client


def test_the_hub_is_a_client(hub: Hub) -> None:
    """R8, R14: the hub is listed, has metadata, and is subscribed."""
    client, _ = hub.add_client()
    other, _ = hub.add_client()
    hub_id = hub.broker.hub_id
    assert set(hub.broker.get_registered_clients(client)) == {hub_id, other.client_id}
    metadata = hub.broker.get_metadata(client, hub_id)
    assert metadata["samp.name"] == "Hub"
    assert "samp.app.ping" in hub.broker.get_subscriptions(client, hub_id)
    assert hub.broker.profile_of(hub_id) == "hub"
    assert client in hub.broker.clients()
    assert hub_id not in [each.client_id for each in hub.broker.clients()]


def test_the_hub_replies_to_a_ping_sent_in_any_way(hub: Hub) -> None:
    """R8, R18: the hub replies to a call, a call to all, and a call that waits, but not to a notification."""
    client, queue = hub.add_client()
    hub.broker.notify(client, "hub", message("samp.app.ping"))
    assert not queue.received
    hub.broker.call(client, "hub", "tag", message("samp.app.ping"))
    [response] = queue.pop_received()
    assert (response.kind, response.sender_id, response.tag) == ("receiveResponse", "hub", "tag")
    assert response.body.value == {"samp.status": "samp.ok", "samp.result": {}}
    assert list(hub.broker.call_all(client, "all", message("samp.app.ping"))) == ["hub"]
    assert queue.pop_received()[0].tag == "all"
    responses: list[EncodedMessage] = []
    hub.broker.call_and_wait(client, "hub", message("samp.app.ping"), responses.append)
    assert responses[0].value["samp.status"] == "samp.ok"
    assert not client.pending_sent


@pytest.mark.parametrize("mtype", ["samp.query.by-meta", "x-samp.query.by-meta"])
def test_query_by_meta(hub: Hub, mtype: str) -> None:
    """R27: the hub returns the ids of the clients with this value of a metadata key."""
    client, _ = hub.add_client(name="me")
    first, _ = hub.add_client(name="topcat")
    second, _ = hub.add_client(name="topcat")

    def query(**params: SAMPValue) -> dict[str, SAMPValue]:
        responses: list[EncodedMessage] = []
        hub.broker.call_and_wait(client, "hub", message(mtype, **params), responses.append)
        return responses[0].value

    found = query(key="samp.name", value="topcat")
    assert found == {"samp.status": "samp.ok", "samp.result": {"ids": [first.client_id, second.client_id]}}
    assert query(key="samp.name", value="Hub")["samp.result"] == {"ids": ["hub"]}
    assert query(key="no.such", value="x")["samp.result"] == {"ids": []}
    assert query(key="samp.name")["samp.status"] == "samp.error"
    assert query(value="x")["samp.status"] == "samp.error"
    assert query(key=["x"], value="x")["samp.status"] == "samp.error"


# Metadata and subscriptions


def test_metadata_are_replaced_as_a_whole(hub: Hub) -> None:
    """R11: a declaration replaces all metadata of the client."""
    client, _ = hub.add_client()
    other, _ = hub.add_client()
    assert hub.broker.get_metadata(other, client.client_id) == {}
    hub.broker.declare_metadata(client, {"samp.name": "a", "home.page": "b"})
    hub.broker.declare_metadata(client, {"samp.name": "c"})
    assert hub.broker.get_metadata(other, client.client_id) == {"samp.name": "c"}
    for lookup in (hub.broker.get_metadata, hub.broker.get_subscriptions):
        with pytest.raises(SAMPProxyError, match="nobody"):
            lookup(other, "nobody")


def test_subscriptions_are_replaced_as_a_whole(hub: Hub) -> None:
    """R12: a declaration replaces all subscriptions of the client."""
    client, _ = hub.add_client("a.b", "c.*")
    other, _ = hub.add_client()
    hub.broker.declare_subscriptions(client, {"d": {"x": "1"}, "e": ""})
    assert hub.broker.get_subscriptions(other, client.client_id) == {"d": {"x": "1"}, "e": {}}
    assert hub.broker.get_subscribed_clients(other, "a.b") == {}
    assert hub.broker.get_subscribed_clients(other, "d") == {client.client_id: {"x": "1"}}


@pytest.mark.parametrize("pattern", ["a*", "*.a", "a.*.b", "**", "", "a..b"])
def test_a_bad_pattern_changes_nothing(hub: Hub, pattern: str) -> None:
    """R12: the subscriptions stay as they were."""
    client, _ = hub.add_client("a.b")
    with pytest.raises((SAMPProxyError, SAMPValueError)):
        hub.broker.declare_subscriptions(client, {"good": {}, pattern: {}})
    assert list(client.subscriptions) == ["a.b"]


def test_annotations_must_be_maps(hub: Hub) -> None:
    """R12: any other annotation is a fault."""
    client, _ = hub.add_client()
    with pytest.raises(SAMPProxyError, match=r"annotations.*a\.b"):
        hub.broker.declare_subscriptions(client, {"a.b": "yes"})


def test_only_callable_clients_may_subscribe(hub: Hub) -> None:
    """R13: an empty map is allowed."""
    client = hub.broker.register("standard")
    with pytest.raises(SAMPProxyError, match="not callable"):
        hub.broker.declare_subscriptions(client, {"a": {}})
    hub.broker.declare_subscriptions(client, {})
    assert client.subscriptions == {}


def test_a_client_that_is_no_longer_callable_receives_nothing(hub: Hub) -> None:
    """R13: the client has no subscriptions, until it is callable again and declares new ones."""
    client, queue = hub.add_client("a")
    other, _ = hub.add_client()
    hub.broker.set_callable(client, False)
    assert hub.broker.get_subscribed_clients(other, "a") == {}
    with pytest.raises(SAMPProxyError, match="not subscribed"):
        hub.broker.notify(other, client.client_id, message("a"))
    hub.broker.set_callable(client)  # its queue is still there
    hub.broker.declare_subscriptions(client, {"a": {}})
    hub.broker.notify(other, client.client_id, message("a"))
    assert len(queue.received) == 1


def test_the_most_specific_subscription_counts(hub: Hub) -> None:
    """R14: the annotation of this subscription is returned."""
    client, _ = hub.add_client()
    other, _ = hub.add_client()
    declared: dict[str, SAMPValue] = {"*": {"n": "0"}, "a.*": {"n": "1"}, "a.b.*": {"n": "2"}, "a.b.c": {"n": "3"}}
    hub.broker.declare_subscriptions(client, declared)
    for mtype, n in (
        ("x", "0"),
        ("a", "0"),
        ("a.x", "1"),
        ("a.b", "1"),
        ("a.b.x", "2"),
        ("a.b.c", "3"),
        ("a.b.c.d", "2"),
    ):
        assert hub.broker.get_subscribed_clients(other, mtype) == {client.client_id: {"n": n}}
    assert hub.broker.get_subscribed_clients(client, "a.b.c") == {}


def test_a_very_long_mtype_is_rejected(hub: Hub) -> None:
    """An invalid MType is not split into its patterns."""
    client, _ = hub.add_client()
    with pytest.raises(SAMPValueError):
        hub.broker.get_subscribed_clients(client, "a." * 500_000)


# Events


def test_events_reach_all_subscribed_clients(hub: Hub) -> None:
    """R15, R26: the client that the event is about also receives it."""
    listener, queue = hub.add_client("samp.hub.event.*")
    assert listener
    client = hub.broker.register("standard")
    own = ListQueue()
    hub.broker.set_callable(client, True, own)
    hub.broker.declare_subscriptions(client, {"samp.hub.event.*": {"x": "1"}})
    hub.broker.declare_metadata(client, {"samp.name": "new"})
    seen = [(d.body.value["samp.mtype"], d.body.value["samp.params"]) for d in queue.pop_received()]
    client_id = client.client_id
    subscriptions = (
        "samp.hub.event.subscriptions",
        {"id": client_id, "subscriptions": {"samp.hub.event.*": {"x": "1"}}},
    )
    metadata = ("samp.hub.event.metadata", {"id": client_id, "metadata": {"samp.name": "new"}})
    assert seen == [("samp.hub.event.register", {"id": client_id}), subscriptions, metadata]
    assert [(d.body.value["samp.mtype"], d.body.value["samp.params"]) for d in own.received] == [
        subscriptions,
        metadata,
    ]
    assert all((d.kind, d.sender_id, d.tag) == ("receiveNotification", "hub", None) for d in own.received)
    hub.broker.unregister(client)
    [event] = queue.pop_received()
    assert event.body.value == {"samp.mtype": "samp.hub.event.unregister", "samp.params": {"id": client_id}}


def test_an_event_is_encoded_once(hub: Hub) -> None:
    """All subscribed clients receive the same encoded message."""
    queues = [hub.add_client("samp.hub.event.*")[1] for _ in range(5)]
    for queue in queues:
        queue.pop_received()
    hub.broker.register("standard")
    assert len({id(queue.received[0].body) for queue in queues}) == 1
    assert len({id(queue.received[0].body.encoded()) for queue in queues}) == 1


@pytest.mark.parametrize(
    "mtype", ["samp.hub.event.register", "samp.hub.event.shutdown", "samp.hub.disconnect", "samp.hub.x"]
)
def test_only_the_hub_sends_hub_messages(hub: Hub, mtype: str) -> None:
    """R25: a client may not send the hub's own MTypes."""
    client, _ = hub.add_client()
    other, queue = hub.add_client("*")
    for attempt in (
        lambda: hub.broker.notify(client, other.client_id, message(mtype)),
        lambda: hub.broker.notify_all(client, message(mtype)),
        lambda: hub.broker.call(client, other.client_id, "tag", message(mtype)),
        lambda: hub.broker.call_all(client, "tag", message(mtype)),
        lambda: hub.broker.call_and_wait(client, other.client_id, message(mtype), print),
    ):
        with pytest.raises(SAMPProxyError, match="Only the hub"):
            attempt()
    assert not queue.received


def test_disconnect_notifies_the_client_and_the_others(hub: Hub) -> None:
    """R26: the client gets ``samp.hub.disconnect``, if it is subscribed, and the others get an event."""
    client, queue = hub.add_client("samp.hub.disconnect")
    unsubscribed, unsubscribed_queue = hub.add_client()
    _, listener = hub.add_client("samp.hub.event.*", "samp.hub.disconnect")
    hub.broker.disconnect(client, "too slow")
    assert queue.closed
    assert queue.final_delivery is not None
    assert queue.final_delivery.body.value == {
        "samp.mtype": "samp.hub.disconnect",
        "samp.params": {"reason": "too slow"},
    }
    assert queue.final_delivery.recipient_key == client.private_key
    assert [d.body.mtype for d in listener.pop_received()] == ["samp.hub.event.unregister"]
    hub.broker.disconnect(unsubscribed, "too slow")
    assert unsubscribed_queue.closed
    assert unsubscribed_queue.final_delivery is None


def test_shutdown(hub: Hub) -> None:
    """R23, R26: all clients are notified, new clients are rejected, and no call stays pending."""
    client, queue = hub.add_client("*", "samp.hub.event.shutdown")
    caller, _ = hub.add_client()
    responses: list[EncodedMessage] = []
    hub.broker.call_and_wait(caller, client.client_id, message(), responses.append)
    queue.pop_received()
    hub.broker.announce_shutdown()
    hub.broker.announce_shutdown()
    assert [d.body.mtype for d in queue.received] == ["samp.hub.event.shutdown"]
    with pytest.raises(SAMPProxyError, match="shutting down"):
        hub.broker.register("standard")
    assert hub.broker.authenticate("standard", client.private_key) is client  # messages are still delivered
    hub.broker.close()
    hub.broker.close()
    assert queue.closed
    assert len(responses) == 1
    with pytest.raises(SAMPProxyError):
        hub.broker.authenticate("standard", client.private_key)


# Messages


def test_notify(hub: Hub) -> None:
    """R18: only the recipient gets the notification."""
    client, own = hub.add_client("table.*")
    other, queue = hub.add_client("table.*")
    encoded = message(url="x")
    hub.broker.notify(client, other.client_id, encoded)
    assert queue.received == [
        Delivery("receiveNotification", other.client_id, other.private_key, client.client_id, None, encoded)
    ]
    assert not own.received


def test_a_broadcast_does_not_reach_its_sender(hub: Hub) -> None:
    """R18: the sender does not receive its own broadcast. All recipients get the same object."""
    client, own = hub.add_client("table.*")
    first, first_queue = hub.add_client("table.*")
    second, second_queue = hub.add_client("table.*", "table.load.votable", "table.load.*")
    hub.add_client("image.*")
    encoded = message()
    assert set(hub.broker.notify_all(client, encoded)) == {first.client_id, second.client_id}
    assert [d.body for d in first_queue.received] == [d.body for d in second_queue.received] == [encoded]
    assert not own.received
    assert hub.broker.notify_all(client, message("no.subscriber")) == []


def test_invalid_recipients_are_faults(hub: Hub) -> None:
    """R19: the recipient must be registered and subscribed."""
    client, _ = hub.add_client("*")
    other, queue = hub.add_client("image.*")
    for recipient, text in ((other.client_id, "not subscribed"), ("nobody", "nobody"), ("hub", "not subscribed")):
        for attempt in (
            lambda to=recipient: hub.broker.notify(client, to, message()),
            lambda to=recipient: hub.broker.call(client, to, "tag", message()),
            lambda to=recipient: hub.broker.call_and_wait(client, to, message(), print),
        ):
            with pytest.raises(SAMPProxyError, match=text):
                attempt()
    assert not queue.received
    assert not client.pending_sent


def test_call_and_reply(hub: Hub) -> None:
    """R18, R20: the recipient gets a msg-id, and the sender gets its own tag back."""
    client, own = hub.add_client()
    other, queue = hub.add_client("*")
    msg_id = hub.broker.call(client, other.client_id, "my tag", message())
    [delivery] = queue.pop_received()
    assert (delivery.kind, delivery.sender_id, delivery.tag) == ("receiveCall", client.client_id, msg_id)
    assert msg_id != "my tag"
    payload = response()
    hub.broker.reply(other, msg_id, payload)
    assert own.pop_received() == [
        Delivery("receiveResponse", client.client_id, client.private_key, other.client_id, "my tag", payload)
    ]


def test_a_tag_may_be_reused(hub: Hub) -> None:
    """R20: a tag may even be reused while it is in use. Any string is a tag."""
    client, own = hub.add_client()
    other, _ = hub.add_client("*")
    ids = [hub.broker.call(client, other.client_id, "", message()) for _ in range(3)]
    assert len(set(ids)) == 3
    for msg_id in ids:
        hub.broker.reply(other, msg_id, response())
    assert [d.tag for d in own.received] == ["", "", ""]


def test_call_all_gives_each_recipient_its_own_msg_id(hub: Hub) -> None:
    """R21: each response has the tag of the call."""
    client, own = hub.add_client("table.*")
    others = [hub.add_client("table.*") for _ in range(3)]
    ids = hub.broker.call_all(client, "tag", message())
    assert set(ids) == {other.client_id for other, _ in others}
    assert len(set(map(str, ids.values()))) == 3
    for other, queue in others:
        assert queue.received[0].tag == ids[other.client_id]
        hub.broker.reply(other, str(ids[other.client_id]), response())
    assert {(d.sender_id, d.tag) for d in own.received} == {(other.client_id, "tag") for other, _ in others}


def test_replies_with_a_foreign_guessed_or_used_msg_id(hub: Hub) -> None:
    """R21: each of these replies is a fault and changes nothing."""
    client, own = hub.add_client()
    other, _ = hub.add_client("*")
    third, _ = hub.add_client("*")
    msg_id = hub.broker.call(client, other.client_id, "tag", message())
    for replier, which in ((third, msg_id), (client, msg_id), (other, "guess"), (other, ""), (other, "tag")):
        with pytest.raises(SAMPProxyError, match="msg-id"):
            hub.broker.reply(replier, which, response())
    assert not own.received
    hub.broker.reply(other, msg_id, response())
    with pytest.raises(SAMPProxyError, match="msg-id"):
        hub.broker.reply(other, msg_id, response())
    assert len(own.received) == 1


def test_only_callable_clients_may_call(hub: Hub) -> None:
    """R13, R23: a client that cannot receive the response gets a fault; it can use callAndWait."""
    client = hub.broker.register("standard")
    other, _ = hub.add_client("*")
    with pytest.raises(SAMPProxyError, match="callAndWait"):
        hub.broker.call(client, other.client_id, "tag", message())
    with pytest.raises(SAMPProxyError, match="callAndWait"):
        hub.broker.call_all(client, "tag", message())
    responses: list[EncodedMessage] = []
    call = hub.broker.call_and_wait(client, other.client_id, message(), responses.append)
    encoded = response()
    hub.broker.reply(other, call.msg_id, encoded)
    assert responses == [encoded]


def test_a_reply_during_the_delivery_is_not_lost(hub: Hub) -> None:
    """The call is pending before the message is delivered."""
    client, own = hub.add_client()
    other, _ = hub.add_client("*")

    class Eager(ListQueue):
        def put(self, delivery: Delivery) -> None:
            assert delivery.tag is not None
            hub.broker.reply(other, delivery.tag, response())

    hub.broker.set_callable(other, True, Eager())
    hub.broker.declare_subscriptions(other, {"*": {}})
    responses: list[EncodedMessage] = []
    hub.broker.call_and_wait(client, other.client_id, message(), responses.append)
    hub.broker.call(client, other.client_id, "tag", message())
    assert len(responses) == 1
    assert [d.tag for d in own.received] == ["tag"]


def test_a_reply_to_a_cancelled_call_is_rejected(hub: Hub) -> None:
    """R22: the reply is a fault."""
    client, _ = hub.add_client()
    other, _ = hub.add_client("*")
    responses: list[EncodedMessage] = []
    call = hub.broker.call_and_wait(client, other.client_id, message(), responses.append)
    assert hub.broker.cancel_call(call)
    assert not hub.broker.cancel_call(call)
    with pytest.raises(SAMPProxyError, match="msg-id"):
        hub.broker.reply(other, call.msg_id, response())
    assert not responses
    assert not client.pending_sent
    assert not other.pending_received


@pytest.mark.parametrize("end", ["unregister", "disconnect", "fail"])
def test_no_call_is_lost(hub: Hub, end: str) -> None:
    """R23: the caller gets an error response if the recipient unregisters, is disconnected, or cannot be reached."""
    client, own = hub.add_client()
    other, queue = hub.add_client("*", name="topcat")
    hub.broker.call(client, other.client_id, "tag", message())
    responses: list[EncodedMessage] = []
    hub.broker.call_and_wait(client, other.client_id, message(), responses.append)
    if end == "unregister":
        hub.broker.unregister(other)
    elif end == "disconnect":
        hub.broker.disconnect(other, "topcat is slow")
    else:
        for delivery in queue.pop_received():
            hub.broker.delivery_failed(delivery, "topcat cannot be reached")
            hub.broker.delivery_failed(delivery, "once is enough")
    [delivery] = own.pop_received()
    assert (delivery.sender_id, delivery.tag) == (other.client_id, "tag")
    text, code = errors_of(delivery)
    assert "topcat" in str(text)
    assert code == NO_RESPONSE
    assert len(responses) == 1
    assert not client.pending_sent
    assert not other.pending_received


def test_a_failed_notification_or_response_is_dropped(hub: Hub) -> None:
    """No client waits for a response to it."""
    client, own = hub.add_client("*")
    other, queue = hub.add_client("*")
    hub.broker.notify(client, other.client_id, message())
    hub.broker.delivery_failed(queue.pop_received()[0], "gone")
    msg_id = hub.broker.call(client, other.client_id, "tag", message())
    hub.broker.reply(other, msg_id, response())
    hub.broker.delivery_failed(own.pop_received()[0], "gone")
    assert not own.received


def test_the_calls_of_a_client_that_unregisters_end(hub: Hub) -> None:
    """R23: a callAndWait request that still waits gets a response."""
    client, own = hub.add_client()
    other, _ = hub.add_client("*")
    msg_id = hub.broker.call(client, other.client_id, "tag", message())
    responses: list[EncodedMessage] = []
    hub.broker.call_and_wait(client, other.client_id, message(), responses.append)
    hub.broker.unregister(client)
    assert not own.received
    assert len(responses) == 1
    assert not other.pending_received
    with pytest.raises(SAMPProxyError, match="msg-id"):
        hub.broker.reply(other, msg_id, response())


def test_pending_calls_are_limited(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client cannot fill the hub's memory with calls; other clients are not affected."""
    monkeypatch.setattr("pyvo.samp.broker.registry.MAX_OPEN_CALLS", 3)
    client, _ = hub.add_client()
    other, _ = hub.add_client("*")
    third, _ = hub.add_client("*")
    hub.broker.call_all(client, "tag", message())
    with pytest.raises(SAMPProxyError, match="2 calls"):
        hub.broker.call_all(client, "tag", message())
    msg_id = hub.broker.call(client, other.client_id, "tag", message())
    with pytest.raises(SAMPProxyError, match="3 calls"):
        hub.broker.call_and_wait(client, other.client_id, message(), print)
    hub.broker.call(third, other.client_id, "tag", message())
    hub.broker.reply(other, msg_id, response())
    hub.broker.call(client, other.client_id, "tag", message())


def test_a_full_queue_disconnects_its_client_during_a_broadcast(hub: Hub) -> None:
    """R26, R50: the other recipients get the message, and the caller gets an error."""
    client, own = hub.add_client()
    full, _ = hub.add_client("*")
    other, queue = hub.add_client("*")

    class Full(ListQueue):
        def put(self, delivery: Delivery) -> None:
            hub.broker.disconnect(full, "its queue is full")

    hub.broker.set_callable(full, True, Full())
    ids = hub.broker.call_all(client, "tag", message())
    assert set(ids) == {full.client_id, other.client_id}
    assert len([d for d in queue.received if d.kind == "receiveCall"]) == 1
    [delivery] = own.received
    assert delivery.sender_id == full.client_id
    assert "its queue is full" in str(errors_of(delivery)[0])


def test_a_queue_that_raises_does_not_affect_others(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    client, _ = hub.add_client()
    bad, _ = hub.add_client("*")
    _, queue = hub.add_client("*")

    class Bad(ListQueue):
        def put(self, delivery: Delivery) -> None:
            raise ZeroDivisionError

    hub.broker.set_callable(bad, True, Bad())
    hub.broker.notify_all(client, message())
    assert len(queue.received) == 1
    assert "could not pass on" in caplog.text


# Restrictions on what a client may send (R47)


def test_a_send_filter_restricts_the_recipients(hub: Hub) -> None:
    """R47: other clients count as not subscribed, in lists, broadcasts, and messages to one recipient."""

    def send_filter(mtype: str, annotations: object) -> bool:
        assert isinstance(annotations, dict)
        return mtype.startswith("table.") or annotations.get("ok") == "1"

    page, _ = hub.add_client(profile="web", send_filter=send_filter)
    strict, _ = hub.add_client("*")
    willing, willing_queue = hub.add_client()
    hub.broker.declare_subscriptions(willing, {"*": {"ok": "1"}})
    willing_queue.pop_received()
    assert set(hub.broker.get_subscribed_clients(page, "x.y")) == {willing.client_id}
    assert set(hub.broker.get_subscribed_clients(page, LOAD)) == {willing.client_id, strict.client_id}
    assert hub.broker.notify_all(page, message("x.y")) == [willing.client_id]
    assert list(hub.broker.call_all(page, "tag", message("x.y"))) == [willing.client_id]
    with pytest.raises(SAMPProxyError, match="may not send"):
        hub.broker.notify(page, strict.client_id, message("x.y"))
    hub.broker.notify(page, strict.client_id, message())
    assert len(willing_queue.received) == 2


def test_source_profile_of_an_event(hub: Hub) -> None:
    """R46: an event about a web client's metadata comes from the Web Profile, although the hub sends it."""
    _, queue = hub.add_client("samp.hub.event.metadata")
    page, _ = hub.add_client(profile="web")
    hub.broker.declare_metadata(page, {"samp.icon.url": "file:///etc/passwd"})
    other, _ = hub.add_client()
    hub.broker.declare_metadata(other, {"samp.icon.url": "file:///icon"})
    assert [d.body.source_profile for d in queue.received] == ["web", "standard"]
    assert hub.broker.profile_of(page.client_id) == "web"


# Encoded messages


def test_missing_params_are_added_and_the_raw_bytes_are_not_reused() -> None:
    """R16: a complete message is sent as its raw bytes; an incomplete one is completed in a copy."""
    whole = {"samp.mtype": "a", "samp.params": {}}
    assert EncodedMessage.message(whole, b"<value>raw</value>").encoded() == b"<value>raw</value>"
    part: SAMPValue = {"samp.mtype": "a", "extra": "kept"}
    encoded = EncodedMessage.message(part, b"<value>raw</value>")
    assert encoded.value == {"samp.mtype": "a", "extra": "kept", "samp.params": {}}
    assert b"samp.params" in encoded.encoded()
    assert part == {"samp.mtype": "a", "extra": "kept"}


@pytest.mark.parametrize(
    "value", ["text", [], {}, {"samp.mtype": ["a"]}, {"samp.mtype": "a", "samp.params": "x"}, {"samp.mtype": "a.*"}]
)
def test_an_invalid_message_is_rejected(value: SAMPValue) -> None:
    """R16: the message must be a map with a valid MType and a map of parameters."""
    with pytest.raises(SAMPValueError):
        EncodedMessage.message(value)


@pytest.mark.parametrize("value", ["text", {}, {"samp.status": "fine"}, {"samp.status": "samp.ok", "samp.result": "x"}])
def test_an_invalid_response_is_rejected(value: SAMPValue) -> None:
    """R17: the response must be a map with a valid status and a map as its result."""
    with pytest.raises(SAMPValueError):
        EncodedMessage.response(value)


def test_size_of_a_delivery() -> None:
    encoded = message(data="x" * 1000)
    delivery = Delivery("receiveCall", "c1", "key", "c2", "id", encoded)
    assert 1000 < delivery.size < 2500
    assert encoded.encoded() is encoded.encoded()
