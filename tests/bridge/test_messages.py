"""Messages between two hubs, with every operation that sends (R18), and the clients of the other hub."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyvo.samp import Bridge, SAMPHubServer, SAMPProxyError
from pyvo.samp.bridge import BridgeState, LocalPair, Policy

from .conftest import TIMEOUT, RecordingClient, Side

Sides = tuple[Side, Side]
POSITION = {"ra": "10.5", "dec": "-3"}


def message(mtype: str = "coord.pointAt.sky", **params: Any) -> dict[str, Any]:
    return {"samp.mtype": mtype, "samp.params": params or POSITION}


def three_and_three(sides: Sides, labels: tuple[str, str]) -> tuple[list[RecordingClient], list[RecordingClient]]:
    """Connect three clients at each hub, and wait until each sees the others."""
    here = [sides[0].connect(f"here{number}") for number in range(3)]
    there = [sides[1].connect(f"there{number}") for number in range(3)]
    for clients, others, label in ((here, there, labels[1]), (there, here, labels[0])):
        for client in clients:
            for other in others:
                client.find(f"{other.client_arguments['name']} (via {label})")
    return here, there


def test_every_operation_that_sends(sides: Sides) -> None:
    """Of 3 + 3 clients each receives each message exactly once, and each call gets one response (R18, R20)."""
    check_every_operation_that_sends(sides, ("A", "B"))


def check_every_operation_that_sends(sides: Sides, labels: tuple[str, str], *, ordered: bool = True) -> None:
    """Use every operation from a client at either hub. JSAMP's hub does not keep the order, even without a bridge."""
    here, there = three_and_three(sides, labels)
    for sender, others, label in ((here[0], there, labels[1]), (there[0], here, labels[0])):
        recipients = [client for client in here + there if client is not sender]
        ids = {name: client_id for name, client_id in sender.names().items() if f"(via {label})" in name}
        assert len(ids) == 3

        sender.notify_all(message(n="1"))
        sender.bind_receive_response("all", sender.on_response)
        msg_ids = sender.call_all("all", message(n="2"))
        assert len(msg_ids) == 5
        sender.bind_receive_response("one", sender.on_response)
        for client_id in ids.values():
            sender.notify(client_id, message(n="3"))
            sender.call(client_id, "one", message(n="4"))
            response = sender.call_and_wait(client_id, message(n="5"), "30")
            assert response == {"samp.status": "samp.ok", "samp.result": {"n": "5"}}

        responses = sender.wait_received(5 + 3, "response")
        assert sorted(each.name for each in responses) == ["all"] * 5 + ["one"] * 3
        assert {each.sender for each in responses if each.name == "one"} == set(ids.values())
        for client in recipients:
            expected = ["1", "2"] + (["3", "4", "5"] if client in others else [])
            client.wait_for(lambda client=client, expected=expected: len(client.received) >= len(expected))
        # finally each client calls each other client: a second copy of a message would have arrived before
        for client in recipients:
            for client_id in client.names().values():
                if client_id in client.get_subscribed_clients("table.load.votable"):
                    client.call_and_wait(client_id, message("table.load.votable", end="1"), "30")
        for client in recipients:
            arrived = [each for each in client.received if "n" in each.content]
            expected = ["1", "2"] + (["3", "4", "5"] if client in others else [])
            if not ordered:
                arrived.sort(key=lambda each: each.content["n"])
            assert [each.content["n"] for each in arrived] == expected, "in order (R24), each once"
            kinds = ["notification", "call", "notification", "call", "call"]
            assert [each.kind for each in arrived] == kinds[: len(expected)]
        assert len(sender.of("response")) == 8
        for client in here + there:
            client.received.clear()


def test_order_of_long_and_short_messages(sides: Sides) -> None:
    """The next message does not overtake a message of several megabytes (R24)."""
    sender, recipient = sides[0].connect("sender"), sides[1].connect("recipient")
    there = sender.find("recipient (via B)")
    rows = [str(row) for row in range(300_000)]
    for number in range(6):
        rows_sent = rows if number % 2 == 0 else ["1"]
        sender.notify(there, message("table.select.rowList", **{"row-list": rows_sent, "n": str(number)}))
    received = recipient.wait_received(6, "notification")
    assert [each.content["n"] for each in received] == [str(number) for number in range(6)]
    assert received[0].content["row-list"] == rows


def test_metadata_of_a_proxy(sides: Sides) -> None:
    """A proxy has the name with the origin, the metadata, and the keys that mark a proxy."""
    client = sides[0].connect("TOPCAT", **{"author.name": "somebody", "samp.description.html": "<script>"})
    other = sides[1].connect("other")
    there = other.find("TOPCAT (via A)")
    metadata = other.get_metadata(there)
    assert metadata["author.name"] == "somebody"
    assert metadata["bridge.proxy.source"] == "A"
    assert metadata["x-samp.bridge.origin"] == f"{sides[0].bridge._hub.bridge_id}/{client.get_public_id()}"
    assert "samp.description.html" not in metadata
    client.declare_metadata({"samp.name": "another name"})
    other.find("another name (via A)")
    assert [each.name for each in sides[1].bridge.clients] == ["another name"]


def test_urls_in_metadata_and_annotations_become_offers(sides: Sides, tmp_path: Any) -> None:
    """URLs of this machine become offers in both."""
    client = sides[0].connect("client", **{"samp.icon.url": "http://127.0.0.1:1/icon.png"})
    client.declare_subscriptions({"table.x": {"help": (tmp_path / "help.html").as_uri()}})
    other = sides[1].connect("other")
    there = other.find("client (via A)", "table.x")
    icon = other.get_metadata(there)["samp.icon.url"]
    help_url = other.get_subscriptions(there)["table.x"]["help"]
    assert icon.endswith("/icon.png")
    assert help_url.endswith("/help.html")
    assert all(url.startswith(sides[1].bridge._hub.url) for url in (icon, help_url))


def test_metadata_that_are_too_long_are_not_passed_on(sides: Sides) -> None:
    """The proxy then has only the name of the client."""
    sides[0].connect("client", **{"author.name": "x" * 70_000})
    other = sides[1].connect("other")
    assert "author.name" not in other.get_metadata(other.find("client (via A)"))


def test_subscriptions_are_restricted(sides: Sides) -> None:
    """A proxy subscribes only to harmless MTypes, and never to the events of the hub."""
    sides[0].connect("everything", "*")
    other = sides[1].connect("other")
    there = other.find("everything (via A)")
    subscriptions = other.get_subscriptions(there)
    assert "*" not in subscriptions
    assert "table.*" in subscriptions
    assert not any(each.startswith("samp.hub") for each in subscriptions)
    with pytest.raises(SAMPProxyError):
        other.notify(there, message("ds9.set", cmd="exit"))


def test_allowed_mtypes(
    make_hubs: Callable[..., list[SAMPHubServer]],
    join: Callable[..., tuple[Bridge, Bridge]],
    connect: Callable[..., RecordingClient],
) -> None:
    """
    An MType passes if it is in ``allow_out`` at one end and in ``allow_in`` at the other; one of them is not
    enough.
    """
    hubs = make_hubs(2)
    join(*hubs, (Policy(allow_out=["ds9.*", "x.only-out"]), Policy(allow_in=["ds9.*", "client.env.get"])))
    sender = connect(hubs[0], "sender")
    recipient = connect(hubs[1], "recipient", "ds9.get", "x.only-out", "client.env.get", "table.*")
    there = sender.find("recipient (via B)", "ds9.get")
    assert set(sender.get_subscriptions(there)) >= {"ds9.get", "table.*"}
    assert not {"x.only-out", "client.env.get"} & set(sender.get_subscriptions(there))
    assert sender.call_and_wait(there, message("ds9.get", cmd="x"), "30")["samp.status"] == "samp.ok"
    assert [each.name for each in recipient.received] == ["ds9.get"]


def test_the_proxy_of_an_unregistered_client_is_removed(sides: Sides) -> None:
    """A client that unregisters is removed at the other hub, too."""
    client, other = sides[0].connect("client"), sides[1].connect("other")
    other.find("client (via A)")
    client.disconnect()
    other.wait_for(lambda: "client (via A)" not in other.names())
    assert "client" not in [each.name for each in sides[1].bridge.clients]


def test_a_message_of_a_client_that_unregisters_at_once_arrives(sides: Sides) -> None:
    """A command such as ``samp notify`` registers, sends and unregisters within a few milliseconds."""
    recipient = sides[1].connect("recipient")
    watcher = sides[0].connect("watcher")
    there = watcher.find("recipient (via B)")
    for number in range(10):
        short = sides[0].connect(f"short{number}")
        short.notify(there, message(n=str(number)))
        short.disconnect()
    received = recipient.wait_received(10, "notification")
    assert sorted(each.content["n"] for each in received) == [str(number) for number in range(10)]


def start_call(sides: Sides) -> tuple[RecordingClient, RecordingClient]:
    """Return the sender and the recipient of a call that has arrived and gets no response."""
    called = threading.Event()
    sender, recipient = sides[0].connect("sender"), sides[1].connect("recipient")
    recipient.bind_receive_call("table.load.votable", lambda key, sender, msg_id, mtype, params, extra: called.set())
    there = sender.find("recipient (via B)")
    sender.bind_receive_response("tag", sender.on_response)
    sender.call(there, "tag", message("table.load.votable", url="http://example.org/"))
    assert called.wait(TIMEOUT)
    return sender, recipient


def test_a_recipient_that_unregisters_during_a_call(sides: Sides) -> None:
    """The caller gets an error (R23)."""
    sender, recipient = start_call(sides)
    recipient.disconnect()
    (response,) = sender.wait_received(1, "response")
    assert response.content["samp.status"] == "samp.error"


def test_a_lost_link_ends_calls_and_proxies(sides: Sides) -> None:
    """Pending calls get an error, the proxies are removed, and the other bridge waits until this one connects again."""
    sender, recipient = start_call(sides)
    sides[1].bridge.stop()
    (response,) = sender.wait_received(1, "response")
    assert response.content["samp.error"]["samp.errortxt"] == "the bridge to B was lost"
    sender.wait_for(lambda: set(sender.names()) == {"SAMP bridge to B"})
    assert set(recipient.names()) == set()
    sides[1].bridge.start()
    sender.find("recipient (via B)")
    there = recipient.find("sender (via A)")
    assert recipient.call_and_wait(there, message(), "30")["samp.status"] == "samp.ok"


def test_a_bridge_connects_to_the_next_hub(
    tmp_path: Any, make_hub: Callable[..., SAMPHubServer], join: Any, connect: Callable[..., RecordingClient]
) -> None:
    """When a hub ends, its clients are removed at the other hub. When the next hub runs, the bridge connects again."""
    hub = make_hub()
    first = make_hub(lockfile=str(tmp_path / "first"))
    second = make_hub(lockfile=str(tmp_path / "second"))
    bridges = join(tmp_path / "first", tmp_path / "second")
    assert hub.is_running
    connect(first, "client")
    other = connect(second, "other")
    other.find("client (via A)")
    first.stop()
    other.wait_for(lambda: set(other.names()) == {"SAMP bridge to A"})
    third = make_hub(lockfile=str(tmp_path / "first"))
    connect(third, "next client")
    other.find("next client (via A)")
    assert bridges[0].state is BridgeState.CONNECTED


def test_hub_disconnects_a_proxy(sides: Sides) -> None:
    """A user may remove a proxy; the bridge continues."""
    sides[0].connect("client"), sides[0].connect("client 2")
    other = sides[1].connect("other")
    there = other.find("client (via A)")
    other.find("client 2 (via A)")
    removed = threading.Event()
    sides[1].bridge.on_client = lambda client, is_present: is_present or removed.set()
    broker = sides[1].hub._running.broker
    broker.disconnect(broker.client(there), "the user has done this")
    assert removed.wait(TIMEOUT)
    assert [each.name for each in sides[1].bridge.clients] == ["client 2"]


def test_a_bridge_from_a_hub_to_itself_is_rejected(hub: SAMPHubServer) -> None:
    """Both ends fail with the reason."""
    pair = LocalPair(("A", "B"))
    bridges = [Bridge(None, end) for end in pair.ends]
    for bridge in bridges:
        bridge.start()
    for bridge in bridges:
        assert bridge.wait(TIMEOUT)
        assert bridge.state is BridgeState.FAILED
        assert "same hub" in bridge.reason
        bridge.stop()


def test_a_second_bridge_between_two_hubs_is_rejected(sides: Sides) -> None:
    """It ends with the reason, and the first bridge continues."""
    client = sides[0].connect("client")
    other = sides[1].connect("other")
    other.find("client (via A)")
    for side in sides:  # from then on its metadata contain the hubs that it joins
        assert side.bridge.wait_connected(TIMEOUT)
    pair = LocalPair(("A", "B"))
    second = [Bridge(side.hub, end) for side, end in zip(sides, pair.ends, strict=True)]
    for bridge in second:
        bridge.start()
    for bridge in second:
        assert bridge.wait(TIMEOUT)
        assert "already joins these two hubs" in bridge.reason
        bridge.stop()
    assert sorted(client.names()) == ["SAMP bridge to B", "other (via B)"]


def test_one_of_two_bridges_that_start_at_the_same_time_stays(make_hubs: Callable[..., list[SAMPHubServer]]) -> None:
    """One of them stays."""
    hubs = make_hubs(2)
    pairs = [LocalPair(("A", "B")), LocalPair(("A", "B"))]
    bridges = [[Bridge(hub, end) for hub, end in zip(hubs, pair.ends, strict=True)] for pair in pairs]
    threads = [threading.Thread(target=bridge.start) for two in bridges for bridge in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    stayed = [all(bridge.wait_connected(TIMEOUT) for bridge in two) for two in bridges]
    # either bridge may be connected for a moment before it finds the other one
    for two, has_stayed in zip(bridges, stayed, strict=True):
        if not has_stayed:
            assert all(bridge.wait(TIMEOUT) for bridge in two)
    if all(stayed):
        assert one_ends(bridges)
    states = {tuple(bridge.state for bridge in two) for two in bridges}
    assert states == {(BridgeState.CONNECTED,) * 2, (BridgeState.FAILED,) * 2}
    for two in bridges:
        for bridge in two:
            bridge.stop()


def one_ends(pairs: list[list[Bridge]]) -> bool:
    """Wait until both ends of one of the bridges have ended."""
    ended = threading.Semaphore(0)
    threads = [threading.Thread(target=lambda b=each: b.wait() and ended.release()) for two in pairs for each in two]
    for thread in threads:
        thread.start()
    return all([ended.acquire(timeout=TIMEOUT), ended.acquire(timeout=TIMEOUT)])


def test_three_hubs_that_are_joined_in_a_triangle(
    make_hubs: Callable[..., list[SAMPHubServer]], join: Any, connect: Callable[..., RecordingClient]
) -> None:
    """Every client has one proxy at each other hub, and a broadcast reaches each client once."""
    hubs = make_hubs(3)
    join(hubs[0], hubs[1], labels=("0", "1"))
    join(hubs[1], hubs[2], labels=("1", "2"))
    join(hubs[2], hubs[0], labels=("2", "0"))
    clients = [connect(hub, f"client{number}") for number, hub in enumerate(hubs)]
    for number, client in enumerate(clients):
        for other in {0, 1, 2} - {number}:
            client.find(f"client{other} (via {other})")
        proxies = [name for name in client.names() if "(via" in name]
        assert len(proxies) == 2
    clients[0].notify_all(message())
    for client in clients[1:]:
        client.wait_received(1, "notification")
    for client in clients[1:]:  # the response to a call comes after everything that was sent before
        client.call_and_wait(client.find("client0 (via 0)"), message(), "30")
        clients[0].call_and_wait(
            clients[0].find(f"{client.client_arguments['name']} (via {clients.index(client)})"), message(), "30"
        )
        assert len(client.of("notification")) == 1
