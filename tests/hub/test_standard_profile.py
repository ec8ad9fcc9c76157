"""The Standard Profile over real sockets, spoken to with the standard library alone."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pyvo.samp.broker import Broker
from pyvo.samp.standard_profile import StandardProfile, callback_sender, liveness
from pyvo.samp.transport.event_loop import EventLoop

from .recipients import OK_XML, Recipient, answer, fault, wait_until, well_behaved

SECRET = "it is a secret"
MESSAGE = {"samp.mtype": "table.load.votable", "samp.params": {"url": "http://x/"}}
OK = {"samp.status": "samp.ok", "samp.result": {"x": "1"}}
PING = {"samp.mtype": "samp.app.ping", "samp.params": {}}


class Bench:
    """A served profile, and clients of it."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.loop = EventLoop("test-hub")
        self.broker = Broker()
        self.profile = StandardProfile(self.broker, self.loop, SECRET)
        self.loop.start()
        self.profile.start()

    def proxy(self) -> Any:
        """samp.hub, for one thread: each has a connection of its own."""
        return self.stack.enter_context(xmlrpc.client.ServerProxy(self.profile.url)).samp.hub

    def join(self, behave: Any = well_behaved, *patterns: str) -> Member:
        member = Member(self, self.stack.enter_context(Recipient(behave)))
        member.hub.setXmlrpcCallback(member.key, member.recipient.url)
        member.hub.declareSubscriptions(member.key, {pattern: {} for pattern in patterns or ("table.*",)})
        return member

    def settle(self, member: Member) -> None:
        """Wait until all deliveries to a member are acknowledged."""
        mailbox = self.broker.client(member.id).mailbox
        assert isinstance(mailbox, callback_sender.CallbackSender)
        taken_up = threading.Event()
        self.loop.call_soon(taken_up.set)  # behind what was put into the mailbox before
        assert taken_up.wait(10)
        wait_until(lambda: mailbox.is_idle)

    def close(self) -> None:
        self.broker.close()
        self.loop.call_soon(self.profile.stop)
        self.loop.stop()
        self.stack.close()


class Member:
    """A registered client with a callback server."""

    def __init__(self, bench: Bench, recipient: Recipient) -> None:
        self.hub = bench.proxy()
        self.bench = bench
        self.recipient = recipient
        registered = self.hub.register(SECRET)
        self.id = registered["samp.self-id"]
        self.key = registered["samp.private-key"]

    def answers(self, response: Any = OK) -> None:
        """Reply to each call, as an application does: after the delivery was acknowledged or before, as it happens."""
        hub = self.bench.proxy()
        lock = threading.Lock()

        def behave(method: str, params: tuple[Any, ...]) -> bytes:
            if method == "samp.client.receiveCall":
                with lock:
                    hub.reply(self.key, params[2], response)
            return answer()

        self.recipient.behave = behave


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def sender(bench: Bench) -> Member:
    return bench.join()


def post(bench: Bench, body: bytes, headers: dict[str, str], method: str = "POST") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", bench.profile.port, timeout=10)
    try:
        connection.request(method, "/", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# Registering, and who may


def test_register(bench: Bench) -> None:
    """R6."""
    hub = bench.proxy()
    first, second = hub.register(SECRET), hub.register(SECRET)
    assert set(first) == {"samp.hub-id", "samp.self-id", "samp.private-key"}
    assert first["samp.hub-id"] == second["samp.hub-id"]
    assert first["samp.self-id"] != second["samp.self-id"]
    assert first["samp.private-key"] != second["samp.private-key"]


@pytest.mark.parametrize("secret", ["", "it is a secre", SECRET + "x", "geheim é", "\N{SNOWMAN}"])
def test_a_wrong_secret_is_a_fault(bench: Bench, secret: str) -> None:
    """R7, R31."""
    with pytest.raises(xmlrpc.client.Fault, match="secret") as caught:
        bench.proxy().register(secret)
    assert SECRET not in caught.value.faultString
    assert bench.broker.clients() == []


def test_anybody_may_ping(bench: Bench, sender: Member) -> None:
    """R31: with or without a key, good or bad."""
    assert bench.proxy().ping() == ""
    assert bench.proxy().ping(sender.key) == ""
    assert bench.proxy().ping("nobody's key") == ""
    # JSAMP leaves <params> out
    body = b"<?xml version='1.0'?><methodCall><methodName>samp.hub.ping</methodName></methodCall>"
    status, text = post(bench, body, {})
    assert status == 200
    assert xmlrpc.client.loads(text)[0] == ("",)


def test_a_dead_key_is_a_fault_everywhere(bench: Bench, sender: Member) -> None:
    """R9, R10."""
    other = bench.join()
    assert sender.hub.unregister(sender.key) == ""
    hub = sender.hub
    for key in (sender.key, "guess", other.id):
        for operation in (
            lambda key=key: hub.unregister(key),
            lambda key=key: hub.declareMetadata(key, {}),
            lambda key=key: hub.getMetadata(key, other.id),
            lambda key=key: hub.declareSubscriptions(key, {}),
            lambda key=key: hub.getSubscriptions(key, other.id),
            lambda key=key: hub.getRegisteredClients(key),
            lambda key=key: hub.getSubscribedClients(key, "table.x"),
            lambda key=key: hub.setXmlrpcCallback(key, "http://127.0.0.1:1/"),
            lambda key=key: hub.notify(key, other.id, MESSAGE),
            lambda key=key: hub.notifyAll(key, MESSAGE),
            lambda key=key: hub.call(key, other.id, "tag", MESSAGE),
            lambda key=key: hub.callAll(key, "tag", MESSAGE),
            lambda key=key: hub.callAndWait(key, other.id, MESSAGE, "10"),
            lambda key=key: hub.reply(key, "id", OK),
        ):
            with pytest.raises(xmlrpc.client.Fault, match="private key") as caught:
                operation()
            assert key not in caught.value.faultString
    assert other.hub.getRegisteredClients(other.key) == ["hub"]


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:8000", "null"])
def test_no_web_page_gets_in(bench: Bench, origin: str) -> None:
    """R38: a browser names the page's origin."""
    body = xmlrpc.client.dumps((), "samp.hub.ping").encode()
    assert post(bench, body, {"Origin": origin})[0] == 403
    assert post(bench, b"", {"Origin": origin}, "OPTIONS")[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.net", "127.0.0.1:80:x", "8.8.8.8"])
def test_no_other_name(bench: Bench, host: str) -> None:
    """R38: nor one that had its own name resolved to this machine."""
    body = xmlrpc.client.dumps((), "samp.hub.ping").encode()
    assert post(bench, body, {"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]", "[::1]:99"])
def test_the_usual_names(bench: Bench, host: str) -> None:
    """R38: the port may be that of a tunnel."""
    body = xmlrpc.client.dumps((), "samp.hub.ping").encode()
    assert post(bench, body, {"Host": host})[0] == 200


def test_a_request_as_ds9_makes_it(bench: Bench) -> None:
    """HTTP/1.0, lines ended by LF alone, no Host; the answer has a Content-Length, and the connection closes."""
    body = xmlrpc.client.dumps((SECRET,), "samp.hub.register").encode()
    with socket.create_connection(("127.0.0.1", bench.profile.port), 10) as sock:
        sock.sendall(b"POST / HTTP/1.0\nContent-Length: %d\nContent-Type: text/xml\n\n" % len(body) + body)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, text = received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(text) in head
    assert "samp.private-key" in xmlrpc.client.loads(text)[0][0]


def test_no_introspection(bench: Bench) -> None:
    """R38."""
    with xmlrpc.client.ServerProxy(bench.profile.url) as server:
        for method in (server.system.listMethods, server.system.methodHelp, server.samp.hub.__getattr__("_client")):
            with pytest.raises(xmlrpc.client.Fault, match="no method"):
                method()
    assert post(bench, b"", {}, "GET")[0] == 405


OPERATIONS = {
    "register": "s",
    "unregister": "s",
    "declareMetadata": "sm",
    "getMetadata": "ss",
    "declareSubscriptions": "sm",
    "getSubscriptions": "ss",
    "getRegisteredClients": "s",
    "getSubscribedClients": "ss",
    "notify": "ssm",
    "notifyAll": "sm",
    "call": "sssm",
    "callAll": "ssm",
    "callAndWait": "ssms",
    "reply": "ssm",
    "setXmlrpcCallback": "ss",
}
GOOD: dict[str, Any] = {"s": "x", "m": {}}
WRONG: dict[str, list[Any]] = {"s": [{}, [], {"a": "b"}], "m": ["x", [], ["x"]]}


@pytest.mark.parametrize("name", OPERATIONS)
def test_wrong_parameters_are_faults(bench: Bench, name: str) -> None:
    """R30, R31: too few, too many, and of the wrong type; never an HTTP error, never silence."""
    kinds = OPERATIONS[name]
    operation = getattr(bench.proxy(), name)
    good = [GOOD[kind] for kind in kinds]
    attempts = [good[:-1], [], [*good, "x"]]
    attempts += [
        [*good[:place], wrong, *good[place + 1 :]] for place, kind in enumerate(kinds) for wrong in WRONG[kind]
    ]
    for attempt in attempts:
        with pytest.raises(xmlrpc.client.Fault):
            operation(*attempt)
    with pytest.raises(xmlrpc.client.Fault):  # of the right type, but no key
        operation(*good)


# The operations


def test_metadata_and_subscriptions(bench: Bench, sender: Member) -> None:
    """R11, R12, R14, R31."""
    other = bench.join()
    hub = sender.hub
    assert hub.declareMetadata(sender.key, {"samp.name": "me", "x": {"y": ["z"]}}) == ""
    assert other.hub.getMetadata(other.key, sender.id) == {"samp.name": "me", "x": {"y": ["z"]}}
    assert hub.declareSubscriptions(sender.key, {"a.*": {"k": "v"}, "b": {}}) == ""
    assert other.hub.getSubscriptions(other.key, sender.id) == {"a.*": {"k": "v"}, "b": {}}
    assert other.hub.getSubscribedClients(other.key, "a.b.c") == {sender.id: {"k": "v"}}
    assert set(other.hub.getRegisteredClients(other.key)) == {"hub", sender.id}


def test_numbers_become_strings(bench: Bench, sender: Member) -> None:
    """R5."""
    other = bench.join()
    sender.hub.declareMetadata(sender.key, {"a": 1, "b": 0.5, "c": True})
    assert other.hub.getMetadata(other.key, sender.id) == {"a": "1", "b": "0.5", "c": "1"}
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "samp.params": {"row": 7}})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2]["samp.params"] == {"row": "7"}


def test_only_the_callable_subscribe(bench: Bench) -> None:
    """R13."""
    hub = bench.proxy()
    key = hub.register(SECRET)["samp.private-key"]
    assert hub.declareSubscriptions(key, {}) == ""
    with pytest.raises(xmlrpc.client.Fault, match="callable"):
        hub.declareSubscriptions(key, {"a": {}})


def test_callbacks_bear_the_recipients_key(bench: Bench, sender: Member) -> None:
    """R20, R32."""
    other = bench.join()
    hub = sender.hub
    assert hub.notify(sender.key, other.id, MESSAGE) == ""
    msg_id = hub.call(sender.key, other.id, "tag", MESSAGE)
    assert other.recipient.wait_for(2) == [
        ("receiveNotification", (other.key, sender.id, MESSAGE)),
        ("receiveCall", (other.key, sender.id, msg_id, MESSAGE)),
    ]
    assert other.hub.reply(other.key, msg_id, OK) == ""
    assert sender.recipient.wait_for(1) == [("receiveResponse", (sender.key, other.id, "tag", OK))]


def test_broadcasts(bench: Bench, sender: Member) -> None:
    """R18, R21."""
    others = [bench.join() for _ in range(3)]
    ids = {other.id for other in others}
    assert set(sender.hub.notifyAll(sender.key, MESSAGE)) == ids
    msg_ids = sender.hub.callAll(sender.key, "tag", MESSAGE)
    assert set(msg_ids) == ids
    for other in others:
        other.recipient.wait_for(2)
        other.hub.reply(other.key, msg_ids[other.id], OK)
    responders = {params[1] for _, params in sender.recipient.wait_for(3)}
    assert responders == ids


def test_a_message_without_params_gets_an_empty_map(bench: Bench, sender: Member) -> None:
    """R16: and nothing else is added or removed."""
    other = bench.join()
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "extra": "kept"})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2] == {"samp.mtype": "table.x", "samp.params": {}, "extra": "kept"}


@pytest.mark.parametrize(
    "message", [{}, {"samp.mtype": ["x"]}, {"samp.mtype": "table.*"}, {"samp.mtype": "table.x", "samp.params": "x"}]
)
def test_what_is_no_message_is_a_fault(bench: Bench, sender: Member, message: Any) -> None:
    """R16."""
    other = bench.join()
    for attempt in (
        lambda: sender.hub.notify(sender.key, other.id, message),
        lambda: sender.hub.notifyAll(sender.key, message),
        lambda: sender.hub.callAndWait(sender.key, other.id, message, "1"),
    ):
        with pytest.raises(xmlrpc.client.Fault):
            attempt()


def test_special_characters_survive(bench: Bench, sender: Member) -> None:
    """R2, R5, R30."""
    other = bench.join()
    text = "<&>\"' \t\n é \N{SNOWMAN} ]]> &amp; "
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "samp.params": {"<k>": text}})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2]["samp.params"] == {"<k>": text}
    assert other.recipient.bodies[0].isascii()
    assert other.recipient.bodies[0].startswith(b"<?xml version")


def test_the_hub_answers_a_ping(sender: Member) -> None:
    """R8."""
    assert sender.hub.callAndWait(sender.key, "hub", PING, "10") == {"samp.status": "samp.ok", "samp.result": {}}


def test_only_the_hub_sends_events(bench: Bench, sender: Member) -> None:
    """R25."""
    bench.join(well_behaved, "*")
    with pytest.raises(xmlrpc.client.Fault, match="Only the hub"):
        sender.hub.notifyAll(sender.key, {"samp.mtype": "samp.hub.event.shutdown", "samp.params": {}})


# callAndWait


def test_call_and_wait(bench: Bench, sender: Member) -> None:
    """R18: the caller need not be callable."""
    other = bench.join()
    other.answers()
    hub = bench.proxy()
    key = hub.register(SECRET)["samp.private-key"]
    assert hub.callAndWait(key, other.id, MESSAGE, "10") == OK
    assert hub.callAndWait(key, other.id, MESSAGE, "0") == OK
    assert hub.callAndWait(key, other.id, MESSAGE, "1e30") == OK


def test_time_is_up(bench: Bench, sender: Member) -> None:
    """R22: a fault; a late reply is refused and harms nobody."""
    other = bench.join()
    begin = time.monotonic()
    with pytest.raises(xmlrpc.client.Fault, match="within 1 s"):
        sender.hub.callAndWait(sender.key, other.id, MESSAGE, "1")
    assert 0.9 < time.monotonic() - begin < 3
    [(_, params)] = other.recipient.wait_for(1)
    with pytest.raises(xmlrpc.client.Fault, match="msg-id"):
        other.hub.reply(other.key, params[2], OK)


@pytest.mark.parametrize("timeout", ["", "soon", "nan", "inf", "1 2", "0x10"])
def test_what_is_no_timeout(bench: Bench, sender: Member, timeout: str) -> None:
    """R22: nothing is sent."""
    other = bench.join()
    with pytest.raises(xmlrpc.client.Fault):
        sender.hub.callAndWait(sender.key, other.id, MESSAGE, timeout)
    assert not other.recipient.calls


def test_a_caller_who_hangs_up_is_forgotten(bench: Bench, sender: Member) -> None:
    """R23: whatever it was waiting for, with timeout 0 too."""
    other = bench.join()
    body = xmlrpc.client.dumps((sender.key, other.id, MESSAGE, "0"), "samp.hub.callAndWait").encode()
    with socket.create_connection(("127.0.0.1", bench.profile.port), 10) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        [(_, params)] = other.recipient.wait_for(1)
        assert bench.broker.client(other.id).pending_received
    wait_until(lambda: not bench.broker.client(other.id).pending_received)
    with pytest.raises(xmlrpc.client.Fault, match="msg-id"):
        other.hub.reply(other.key, params[2], OK)


def test_waiting_callers_hold_nobody_up(bench: Bench, sender: Member) -> None:
    """R24: fifty of them wait, and no thread of the hub with them."""
    silent = bench.join()
    hubs = [bench.proxy() for _ in range(50)]
    results: list[Any] = []

    def wait(hub: Any) -> None:
        results.append(hub.callAndWait(sender.key, silent.id, MESSAGE, "0"))

    threads = [threading.Thread(target=wait, args=(hub,)) for hub in hubs]
    before = {thread for thread in threading.enumerate() if thread.name.startswith("test-hub")}
    for thread in threads:
        thread.start()
    calls = silent.recipient.wait_for(50)
    assert {thread for thread in threading.enumerate() if thread.name.startswith("test-hub")} == before
    assert sender.hub.callAndWait(sender.key, "hub", PING, "10")["samp.status"] == "samp.ok"
    for _, params in calls:
        silent.hub.reply(silent.key, params[2], OK)
    for thread in threads:
        thread.join(10)
    assert results == [OK] * 50


# Deliveries that go wrong (R23)

BAD: dict[str, Callable[[str, tuple[Any, ...]], bytes | None]] = {
    "closes without an answer": lambda *_: None,
    "HTTP 500": lambda *_: answer(b"oops", "500 Internal Server Error"),
    "HTML": lambda *_: answer(b"<html>hello</html>"),
    "a redirect": lambda *_: answer(b"", "302 Found", headers="Location: http://127.0.0.1:1/\r\n"),
    "200 MB": lambda *_: answer(b"x" * 100_000, length=200_000_000),
    "a negative length": lambda *_: answer(b"x", length=-1),
    "no HTTP": lambda *_: b"hello\r\n\r\n",
    "a body cut off": lambda *_: answer(OK_XML[:20], length=len(OK_XML), headers="Connection: close\r\n"),
    "XML without end": lambda *_: answer(b"<?xml version='1.0'?><methodResponse><fault>"),
}


@pytest.mark.parametrize("behaviour", BAD)
def test_a_bad_answer_ends_the_call(bench: Bench, sender: Member, behaviour: str) -> None:
    """R23: at once, and the message was delivered exactly once."""
    other = bench.join(BAD[behaviour])
    begin = time.monotonic()
    response = sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0")
    assert time.monotonic() - begin < 3
    assert response["samp.status"] == "samp.error"
    assert response["samp.error"]["samp.code"] == "samp.noresponse"
    assert len(other.recipient.calls) == 1
    sender.hub.call(sender.key, other.id, "tag", MESSAGE)
    [(kind, params)] = sender.recipient.wait_for(1)
    assert (kind, params[1:3]) == ("receiveResponse", (other.id, "tag"))
    assert params[3]["samp.error"]["samp.code"] == "samp.noresponse"
    assert len(other.recipient.calls) == 2
    assert other.id in sender.hub.getRegisteredClients(sender.key)  # it answers badly, but it lives


def test_a_fault_is_told_to_the_caller(bench: Bench, sender: Member) -> None:
    """R23: with its text, without the recipient's key, once."""
    other = bench.join()
    other.recipient.behave = lambda *_: fault(f"no table today, {other.key}")
    response = sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0")
    assert response["samp.status"] == "samp.error"
    assert response["samp.error"]["samp.errortxt"] == "no table today, ..."
    sender.hub.notify(sender.key, other.id, MESSAGE)
    other.recipient.wait_for(2)
    sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0")
    assert len(other.recipient.calls) == 3


def test_the_first_answer_counts(bench: Bench, sender: Member) -> None:
    """A recipient that replies and then faults has replied."""
    other = bench.join()
    hub = bench.proxy()

    def behave(_method: str, params: tuple[Any, ...]) -> bytes:
        hub.reply(other.key, params[2], OK)
        return fault("but then again")

    other.recipient.behave = behave
    assert sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0") == OK


def test_a_black_hole_ends_the_call_and_delays_nobody(
    bench: Bench, sender: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R23, R24: a port that accepts and never answers."""
    monkeypatch.setattr(callback_sender, "DELIVERY_TIMEOUT", 0.7)
    hole = bench.join()
    hole.recipient.behave = lambda *_: hole.recipient.closing.wait(20) and None
    other = bench.join()
    other.answers()
    for number in range(40):
        sender.hub.call(sender.key, hole.id, f"tag{number}", MESSAGE)
    begin = time.monotonic()
    assert sender.hub.callAndWait(sender.key, other.id, MESSAGE, "5") == OK
    assert time.monotonic() - begin < 0.5
    calls = sender.recipient.wait_for(40, 5.0)
    assert time.monotonic() - begin < 5
    assert sorted(params[2] for _, params in calls) == sorted(f"tag{number}" for number in range(40))
    assert all(params[3]["samp.error"]["samp.code"] == "samp.noresponse" for _, params in calls)
    assert hole.id in sender.hub.getRegisteredClients(sender.key)


def test_a_refused_delivery_ends_the_call_and_the_client(bench: Bench, sender: Member) -> None:
    """R23: an address where nobody listens, as Aladin leaves one; the others are told."""
    listener = bench.join(well_behaved, "samp.hub.event.unregister")
    gone = bench.join()
    gone.recipient.crash()
    begin = time.monotonic()
    response = sender.hub.callAndWait(sender.key, gone.id, MESSAGE, "0")
    assert time.monotonic() - begin < 1
    assert response["samp.error"]["samp.code"] == "samp.noresponse"
    [(_, params)] = listener.recipient.wait_for(1, 5.0)
    assert params[2]["samp.params"] == {"id": gone.id}
    with pytest.raises(xmlrpc.client.Fault, match="private key"):
        gone.hub.getRegisteredClients(gone.key)


def test_a_crash_behind_a_call_is_noticed(bench: Bench, sender: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    """R23: the recipient took the call and died, and its connection was kept: that tells at once."""
    other = bench.join()
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0")))
    waiter.start()
    other.recipient.wait_for(1)
    bench.settle(other)
    other.recipient.crash()
    waiter.join(3)
    assert answers[0]["samp.error"]["samp.code"] == "samp.noresponse"
    assert "has gone" in answers[0]["samp.error"]["samp.errortxt"]


def test_a_crash_without_any_connection_is_noticed(
    bench: Bench, sender: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R23: one that closes each connection, as JSAMP does, is looked at now and then."""
    monkeypatch.setattr(liveness, "CHECK_INTERVAL", 0.2)
    other = bench.join(lambda *_: answer(headers="Connection: close\r\n"))
    idle = bench.join()
    sender.hub.call(sender.key, other.id, "tag", MESSAGE)
    other.recipient.wait_for(1)
    bench.settle(other)
    other.recipient.crash()
    idle.recipient.crash()  # nobody ever spoke to that one
    [(_, params)] = sender.recipient.wait_for(1, 8.0)
    assert "has gone" in params[3]["samp.error"]["samp.errortxt"]
    wait_until(lambda: sender.hub.getRegisteredClients(sender.key) == ["hub"])


def test_a_tidy_client_is_not_taken_for_a_dead_one(
    bench: Bench, sender: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R23: closing idle connections is no crash, nor is silence."""
    monkeypatch.setattr(liveness, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(liveness, "CONFIRM_AFTER", 0.05)
    other = bench.join(lambda *_: answer(headers="Connection: close\r\n"))
    sender.hub.call(sender.key, other.id, "tag", MESSAGE)
    other.recipient.wait_for(1)
    time.sleep(0.6)  # a dozen looks
    assert set(sender.hub.getRegisteredClients(sender.key)) == {"hub", other.id}


# Order, and bounds


def test_messages_arrive_in_order_over_one_connection(bench: Bench, sender: Member) -> None:
    """R24: and whoever answers properly is called over one connection all the time."""
    other = bench.join()
    for number in range(300):
        message = {"samp.mtype": "table.x", "samp.params": {"n": str(number)}}
        if number % 3:
            sender.hub.notify(sender.key, other.id, message)
        else:
            sender.hub.call(sender.key, other.id, "tag", message)
    calls = other.recipient.wait_for(300)
    assert [params[-1]["samp.params"]["n"] for _, params in calls] == [str(number) for number in range(300)]
    assert other.recipient.connections == 1


def test_a_slow_recipient_delays_neither_sender_nor_others(bench: Bench, sender: Member) -> None:
    """R24."""
    slow = bench.join()
    slow.recipient.behave = lambda *_: None if slow.recipient.closing.wait(0.5) else answer()
    quick = bench.join()
    begin = time.monotonic()
    for _ in range(3):
        assert set(sender.hub.notifyAll(sender.key, MESSAGE)) == {slow.id, quick.id}
    quick.recipient.wait_for(3)
    assert time.monotonic() - begin < 0.4
    slow.recipient.wait_for(3)


def test_a_blocked_recipient_is_called_beside(bench: Bench, sender: Member) -> None:
    """R24: a program that answers a delivery only after a nested call does not deadlock."""
    other = bench.join()
    helper = bench.join()
    helper.answers()
    hub = bench.proxy()

    def behave(method: str, params: tuple[Any, ...]) -> bytes:
        if method == "samp.client.receiveCall":
            # asks the helper, whose response comes as a delivery to this very recipient
            hub.call(other.key, helper.id, "nested", MESSAGE)
            other.recipient.wait_for(2)
            hub.reply(other.key, params[2], OK)
        return answer()

    other.recipient.behave = behave
    assert sender.hub.callAndWait(sender.key, other.id, MESSAGE, "8") == OK


@pytest.mark.parametrize("limit", ["MAX_DELIVERIES", "MAX_BYTES"])
def test_a_client_that_takes_nothing_is_disconnected(
    bench: Bench, sender: Member, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """R26, R50: with a reason, and its callers are told; the bound is on number and on bytes."""
    monkeypatch.setattr(callback_sender, limit, {"MAX_QUEUED": 20, "MAX_BYTES": 200_000}[limit])
    other = bench.join(well_behaved, "table.*", "samp.hub.disconnect")
    listener = bench.join(well_behaved, "samp.hub.event.unregister")

    def behave(_method: str, params: tuple[Any, ...]) -> bytes:
        if params[2]["samp.mtype"] != "samp.hub.disconnect":
            other.recipient.closing.wait(20)
        return answer()

    other.recipient.behave = behave
    message = {"samp.mtype": "table.x", "samp.params": {"data": "x" * 10_000}}
    sender.hub.notify(sender.key, other.id, message)
    other.recipient.wait_for(1)
    for _ in range(19 if limit == "MAX_DELIVERIES" else 17):
        sender.hub.notify(sender.key, other.id, message)
    sender.hub.call(sender.key, other.id, "tag", message)
    wait_until(lambda: other.id not in sender.hub.getRegisteredClients(sender.key))
    with pytest.raises(xmlrpc.client.Fault, match=other.id):
        sender.hub.notify(sender.key, other.id, message)
    calls = other.recipient.wait_for(2)
    assert calls[1][1][2]["samp.mtype"] == "samp.hub.disconnect"
    assert "waiting" in calls[1][1][2]["samp.params"]["reason"]
    [(_, params)] = listener.recipient.wait_for(1)
    assert params[2]["samp.params"] == {"id": other.id}
    [(_, params)] = sender.recipient.wait_for(1)
    assert params[3]["samp.error"]["samp.code"] == "samp.noresponse"


def test_one_large_message_always_has_room(bench: Bench, sender: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback_sender, "MAX_QUEUED_BYTES", 1000)
    other = bench.join()
    data = "x" * 3_000_000
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "samp.params": {"data": data}})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2]["samp.params"]["data"] == data


def finally_received(bench: Bench, members: list[Member]) -> list[list[tuple[str, tuple[Any, ...]]]]:
    """What each member was called with, up to a last message that goes the same way: nothing comes behind that."""
    last = bench.join()
    for member in members:
        last.hub.notify(last.key, member.id, {"samp.mtype": "table.last", "samp.params": {}})
    received = []
    for member in members:
        wait_until(lambda member=member: any(params[1] == last.id for _, params in member.recipient.calls), 30.0)
        bench.settle(member)
        received.append([call for call in member.recipient.calls if call[1][1] != last.id])
    return received


def test_many_calls_each_exactly_once(bench: Bench) -> None:
    """R20, R21: 2000 calls among 20 clients, all at once; each is delivered once and answered once."""
    members = [bench.join() for _ in range(20)]

    for member in members:
        hub = bench.proxy()
        lock = threading.Lock()

        def behave(
            method: str, params: tuple[Any, ...], member: Member = member, hub: Any = hub, lock: Any = lock
        ) -> bytes:
            if method == "samp.client.receiveCall":
                response = {"samp.status": "samp.ok", "samp.result": {"echo": params[3]["samp.params"]["tag"]}}
                with lock:
                    hub.reply(member.key, params[2], response)
            return answer()

        member.recipient.behave = behave

    def call(number: int) -> None:
        member = members[number]
        for step in range(100):
            other = members[(number + 1 + step % 19) % 20]
            tag = f"{number}/{step}"
            message = {"samp.mtype": "table.x", "samp.params": {"tag": tag}}
            member.hub.call(member.key, other.id, tag, message)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    for member in members:
        member.recipient.wait_for(200, 30.0)
    received = set()
    for number, calls in enumerate(finally_received(bench, members)):
        assert len(calls) == 200
        received |= {params[3]["samp.params"]["tag"] for kind, params in calls if kind == "receiveCall"}
        responses = [(p[2], p[3]["samp.result"]["echo"]) for kind, p in calls if kind == "receiveResponse"]
        assert sorted(responses) == sorted((f"{number}/{step}",) * 2 for step in range(100))
    assert len(received) == 2000


def test_many_broadcasts_each_exactly_once(bench: Bench, sender: Member) -> None:
    """R18, R24: ten to fifty recipients, in order."""
    others = [bench.join() for _ in range(50)]
    for number in range(10):
        message = {"samp.mtype": "table.x", "samp.params": {"n": str(number)}}
        assert len(sender.hub.notifyAll(sender.key, message)) == 50
    for calls in finally_received(bench, others):
        assert [params[2]["samp.params"]["n"] for _, params in calls] == [str(number) for number in range(10)]


# Callback addresses


def test_a_host_name_is_never_looked_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """R37: DS9 names its machine; it is called at the address its request came from."""

    def no_lookup(*args: Any) -> Any:
        raise AssertionError(f"{args} was looked up")

    sender = bench.join()
    recipients = [bench.stack.enter_context(Recipient()) for _ in range(3)]
    members = [Member(bench, recipient) for recipient in recipients]
    # the lookups of the client side of this test are over; from here on none may happen in the hub
    hub = bench.broker
    for host, member in zip(["some.host.example", "localhost", "0.0.0.0"], members, strict=True):
        member.hub.setXmlrpcCallback(member.key, f"http://{host}:{member.recipient.port}/x")
        member.hub.declareSubscriptions(member.key, {"table.*": {}})
    monkeypatch.setattr(socket, "getaddrinfo", no_lookup)
    monkeypatch.setattr(socket, "gethostbyname", no_lookup)
    sender.hub.notifyAll(sender.key, MESSAGE)
    for member in members:
        member.recipient.wait_for(1)
    assert len(hub.clients()) == 4


@pytest.mark.parametrize(
    "url", ["", "x", "file:///etc/passwd", "https://127.0.0.1/", "http://", "http://127.0.0.1:99999/"]
)
def test_a_bad_callback_url_is_a_fault(bench: Bench, url: str) -> None:
    """R31: and the client stays not callable."""
    hub = bench.proxy()
    registered = hub.register(SECRET)
    with pytest.raises(xmlrpc.client.Fault, match="URL"):
        hub.setXmlrpcCallback(registered["samp.private-key"], url)
    assert not bench.broker.client(registered["samp.self-id"]).callable


def test_a_client_may_move(bench: Bench, sender: Member) -> None:
    """R31: what is sent afterwards goes to the new address, in order, and the subscriptions stay."""
    other = bench.join()
    sender.hub.notify(sender.key, other.id, MESSAGE)
    other.recipient.wait_for(1)
    with Recipient() as new:
        other.hub.setXmlrpcCallback(other.key, new.url)
        sender.hub.notify(sender.key, other.id, MESSAGE)
        new.wait_for(1)
        assert len(other.recipient.calls) == 1


# Events for one that is finding out who is there


EVENTS = "samp.hub.event.*"


def ask_as_jsamp(bench: Bench, member: Member, operation: str, *params: str) -> None:
    body = xmlrpc.client.dumps((member.key, *params), f"samp.hub.{operation}").encode()
    status, text = post(bench, body, {"User-Agent": "JSAMP/1.3.7"})
    assert status == 200
    xmlrpc.client.loads(text)


def told_of(member: Member) -> list[tuple[str, str]]:
    messages = [params[-1] for _, params in member.recipient.calls]
    return [(message["samp.mtype"].rpartition(".")[2], message["samp.params"].get("id", "")) for message in messages]


def test_a_newcomer_of_jsamp_hears_the_news_when_it_has_asked(bench: Bench, sender: Member) -> None:
    """JSAMP forgets what it is told while it asks who is there: it is told behind that, all of it and in order."""
    jsamp = bench.join(well_behaved, EVENTS, "table.*")
    bench.settle(jsamp)
    jsamp.recipient.calls.clear()
    ask_as_jsamp(bench, jsamp, "getRegisteredClients")
    ask_as_jsamp(bench, jsamp, "getMetadata", sender.id)
    late = bench.join()
    late.hub.notify(late.key, jsamp.id, MESSAGE)
    jsamp.recipient.wait_for(1)
    ask_as_jsamp(bench, jsamp, "getSubscriptions", sender.id)
    assert told_of(jsamp) == [("votable", "")]  # a message does not wait, an event does
    jsamp.recipient.wait_for(3)
    assert told_of(jsamp)[1:] == [("register", late.id), ("subscriptions", late.id)]


def test_other_newcomers_hear_the_news_at_once(bench: Bench) -> None:
    """Who asks does not wait for news, if it is not known to forget them."""
    other = bench.join(well_behaved, EVENTS)
    mailbox = bench.broker.client(other.id).mailbox
    assert isinstance(mailbox, callback_sender.CallbackSender)
    bench.settle(other)
    other.hub.getRegisteredClients(other.key)
    assert mailbox._newcomer._timer is None
    ask_as_jsamp(bench, other, "getRegisteredClients")
    assert mailbox._newcomer._timer is not None


def test_the_end_is_no_news_that_waits(bench: Bench) -> None:
    """R26: who is finding out who is there is told of the shutdown at once."""
    jsamp = bench.join(well_behaved, EVENTS)
    bench.settle(jsamp)
    ask_as_jsamp(bench, jsamp, "getRegisteredClients")
    late = bench.join()
    bench.broker.announce_shutdown()
    assert bench.profile.wait_until_delivered(5.0)
    assert told_of(jsamp)[-3:] == [("register", late.id), ("subscriptions", late.id), ("shutdown", "")]


# The end


def test_all_is_delivered_before_the_end(bench: Bench, sender: Member) -> None:
    """R26: the shutdown is told behind all that was sent before."""
    other = bench.join(well_behaved, "table.*", "samp.hub.event.shutdown")
    for _ in range(50):
        sender.hub.notify(sender.key, other.id, MESSAGE)
    bench.broker.announce_shutdown()
    assert bench.profile.wait_until_delivered(5.0)
    assert len(other.recipient.calls) == 51
    assert other.recipient.calls[-1][1][2]["samp.mtype"] == "samp.hub.event.shutdown"


def test_the_end_does_not_wait_for_black_holes(bench: Bench, sender: Member) -> None:
    """R26: bounded, whoever does not listen; a caller that waits is answered."""
    hole = bench.join()
    hole.recipient.behave = lambda *_: hole.recipient.closing.wait(20) and None
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(sender.hub.callAndWait(sender.key, hole.id, MESSAGE, "0")))
    waiter.start()
    hole.recipient.wait_for(1)
    bench.broker.announce_shutdown()
    begin = time.monotonic()
    assert not bench.profile.wait_until_delivered(0.3)
    bench.broker.close()
    bench.loop.call_soon(bench.profile.stop)
    waiter.join(3)
    assert time.monotonic() - begin < 2
    assert "shutting down" in answers[0]["samp.error"]["samp.errortxt"]
