"""The Standard Profile over real sockets, called by `xmlrpc.client`."""

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

from pyvo.samp.broker import Broker, operations
from pyvo.samp.standard_profile import StandardProfile, callback_sender, liveness
from pyvo.samp.transport.event_loop import EventLoop

from .recipients import OK_XML, Recipient, fault, http_response, wait_until, well_behaved

SECRET = "it is a secret"
MESSAGE = {"samp.mtype": "table.load.votable", "samp.params": {"url": "http://x/"}}
OK = {"samp.status": "samp.ok", "samp.result": {"x": "1"}}
PING = {"samp.mtype": "samp.app.ping", "samp.params": {}}


class Harness:
    """A running Standard Profile and its clients."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.loop = EventLoop("test-hub")
        self.broker = Broker()
        self.profile = StandardProfile(self.broker, self.loop, SECRET)
        self.loop.start()
        self.profile.start()

    def proxy(self) -> Any:
        """Return a proxy of ``samp.hub`` for one thread. Each proxy has its own connection."""
        return self.stack.enter_context(xmlrpc.client.ServerProxy(self.profile.url)).samp.hub

    def join(self, behave: Any = well_behaved, *patterns: str) -> RegisteredClient:
        client = RegisteredClient(self, self.stack.enter_context(Recipient(behave)))
        client.hub.setXmlrpcCallback(client.key, client.recipient.url)
        client.hub.declareSubscriptions(client.key, {pattern: {} for pattern in patterns or ("table.*",)})
        return client

    def settle(self, client: RegisteredClient) -> None:
        """Wait until the client has acknowledged all deliveries."""
        queue = self.broker.client(client.id).queue
        assert isinstance(queue, callback_sender.CallbackSender)
        processed = threading.Event()
        self.loop.call_soon(processed.set)  # after the deliveries that were added before
        assert processed.wait(10)
        wait_until(lambda: queue.is_idle)

    def close(self) -> None:
        self.broker.close()
        self.loop.call_soon(self.profile.stop)
        self.loop.stop()
        self.stack.close()


class RegisteredClient:
    """A registered client with a callback server."""

    def __init__(self, harness: Harness, recipient: Recipient) -> None:
        self.hub = harness.proxy()
        self.harness = harness
        self.recipient = recipient
        registered = self.hub.register(SECRET)
        self.id = registered["samp.self-id"]
        self.key = registered["samp.private-key"]

    def reply_to_calls(self, response: Any = OK) -> None:
        """Reply to each call. The hub may process the reply before or after the acknowledgement of the delivery."""
        hub = self.harness.proxy()
        lock = threading.Lock()

        def behave(method: str, params: tuple[Any, ...]) -> bytes:
            if method == "samp.client.receiveCall":
                with lock:
                    hub.reply(self.key, params[2], response)
            return http_response()

        self.recipient.behave = behave


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture
def sender(harness: Harness) -> RegisteredClient:
    return harness.join()


def post(harness: Harness, body: bytes, headers: dict[str, str], method: str = "POST") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", harness.profile.port, timeout=10)
    try:
        connection.request(method, "/", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# Registration and access


def test_register(harness: Harness) -> None:
    """R6."""
    hub = harness.proxy()
    first, second = hub.register(SECRET), hub.register(SECRET)
    assert set(first) == {"samp.hub-id", "samp.self-id", "samp.private-key"}
    assert first["samp.hub-id"] == second["samp.hub-id"]
    assert first["samp.self-id"] != second["samp.self-id"]
    assert first["samp.private-key"] != second["samp.private-key"]


@pytest.mark.parametrize("secret", ["", "it is a secre", SECRET + "x", "geheim é", "\N{SNOWMAN}"])
def test_a_wrong_secret_is_a_fault(harness: Harness, secret: str) -> None:
    """R7, R31."""
    with pytest.raises(xmlrpc.client.Fault, match="secret") as caught:
        harness.proxy().register(secret)
    assert SECRET not in caught.value.faultString
    assert harness.broker.clients() == []


def test_ping_needs_no_key(harness: Harness, sender: RegisteredClient) -> None:
    """R31: a ping is accepted without a key, with a valid one and with an invalid one."""
    assert harness.proxy().ping() == ""
    assert harness.proxy().ping(sender.key) == ""
    assert harness.proxy().ping("an invalid key") == ""
    # JSAMP leaves <params> out
    body = b"<?xml version='1.0'?><methodCall><methodName>samp.hub.ping</methodName></methodCall>"
    status, text = post(harness, body, {})
    assert status == 200
    assert xmlrpc.client.loads(text)[0] == ("",)


def test_an_invalid_key_is_a_fault_in_every_operation(harness: Harness, sender: RegisteredClient) -> None:
    """R9, R10."""
    other = harness.join()
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
def test_web_pages_are_rejected(harness: Harness, origin: str) -> None:
    """R38: a browser sends the origin of the page."""
    body = xmlrpc.client.dumps((), "samp.hub.ping").encode()
    assert post(harness, body, {"Origin": origin})[0] == 403
    assert post(harness, b"", {"Origin": origin}, "OPTIONS")[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.net", "127.0.0.1:80:x", "8.8.8.8"])
def test_other_host_names_are_rejected(harness: Harness, host: str) -> None:
    """R38: a web page may have its own host name resolve to this machine."""
    body = xmlrpc.client.dumps((), "samp.hub.ping").encode()
    assert post(harness, body, {"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]", "[::1]:99"])
def test_names_of_this_machine_are_accepted(harness: Harness, host: str) -> None:
    """R38: any port is accepted, because the client may use a tunnel."""
    body = xmlrpc.client.dumps((), "samp.hub.ping").encode()
    assert post(harness, body, {"Host": host})[0] == 200


def test_a_request_of_ds9(harness: Harness) -> None:
    """
    DS9 uses HTTP/1.0 and lines that end with LF, and sends no Host. The response has a Content-Length, and the hub
    closes the connection.
    """
    body = xmlrpc.client.dumps((SECRET,), "samp.hub.register").encode()
    with socket.create_connection(("127.0.0.1", harness.profile.port), 10) as sock:
        sock.sendall(b"POST / HTTP/1.0\nContent-Length: %d\nContent-Type: text/xml\n\n" % len(body) + body)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, text = received.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(text) in head
    assert "samp.private-key" in xmlrpc.client.loads(text)[0][0]


def test_no_introspection(harness: Harness) -> None:
    """R38."""
    with xmlrpc.client.ServerProxy(harness.profile.url) as server:
        for method in (server.system.listMethods, server.system.methodHelp, server.samp.hub.__getattr__("_client")):
            with pytest.raises(xmlrpc.client.Fault, match="no method"):
                method()
    assert post(harness, b"", {}, "GET")[0] == 405


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
def test_wrong_parameters_are_faults(harness: Harness, name: str) -> None:
    """
    R30, R31: too few parameters, too many, or parameters of a wrong type get a fault, never an HTTP error or no
    response.
    """
    kinds = OPERATIONS[name]
    operation = getattr(harness.proxy(), name)
    good = [GOOD[kind] for kind in kinds]
    attempts = [good[:-1], [], [*good, "x"]]
    attempts += [
        [*good[:place], wrong, *good[place + 1 :]] for place, kind in enumerate(kinds) for wrong in WRONG[kind]
    ]
    for attempt in attempts:
        with pytest.raises(xmlrpc.client.Fault):
            operation(*attempt)
    with pytest.raises(xmlrpc.client.Fault):  # of the right type, but not a valid key
        operation(*good)


# The operations


def test_metadata_and_subscriptions(harness: Harness, sender: RegisteredClient) -> None:
    """R11, R12, R14, R31."""
    other = harness.join()
    hub = sender.hub
    assert hub.declareMetadata(sender.key, {"samp.name": "me", "x": {"y": ["z"]}}) == ""
    assert other.hub.getMetadata(other.key, sender.id) == {"samp.name": "me", "x": {"y": ["z"]}}
    assert hub.declareSubscriptions(sender.key, {"a.*": {"k": "v"}, "b": {}}) == ""
    assert other.hub.getSubscriptions(other.key, sender.id) == {"a.*": {"k": "v"}, "b": {}}
    assert other.hub.getSubscribedClients(other.key, "a.b.c") == {sender.id: {"k": "v"}}
    assert set(other.hub.getRegisteredClients(other.key)) == {"hub", sender.id}


def test_numbers_become_strings(harness: Harness, sender: RegisteredClient) -> None:
    """R5."""
    other = harness.join()
    sender.hub.declareMetadata(sender.key, {"a": 1, "b": 0.5, "c": True})
    assert other.hub.getMetadata(other.key, sender.id) == {"a": "1", "b": "0.5", "c": "1"}
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "samp.params": {"row": 7}})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2]["samp.params"] == {"row": "7"}


def test_only_callable_clients_subscribe(harness: Harness) -> None:
    """R13."""
    hub = harness.proxy()
    key = hub.register(SECRET)["samp.private-key"]
    assert hub.declareSubscriptions(key, {}) == ""
    with pytest.raises(xmlrpc.client.Fault, match="callable"):
        hub.declareSubscriptions(key, {"a": {}})


def test_callbacks_have_the_recipients_key(harness: Harness, sender: RegisteredClient) -> None:
    """R20, R32."""
    other = harness.join()
    hub = sender.hub
    assert hub.notify(sender.key, other.id, MESSAGE) == ""
    msg_id = hub.call(sender.key, other.id, "tag", MESSAGE)
    assert other.recipient.wait_for(2) == [
        ("receiveNotification", (other.key, sender.id, MESSAGE)),
        ("receiveCall", (other.key, sender.id, msg_id, MESSAGE)),
    ]
    assert other.hub.reply(other.key, msg_id, OK) == ""
    assert sender.recipient.wait_for(1) == [("receiveResponse", (sender.key, other.id, "tag", OK))]


def test_broadcasts(harness: Harness, sender: RegisteredClient) -> None:
    """R18, R21."""
    others = [harness.join() for _ in range(3)]
    ids = {other.id for other in others}
    assert set(sender.hub.notifyAll(sender.key, MESSAGE)) == ids
    msg_ids = sender.hub.callAll(sender.key, "tag", MESSAGE)
    assert set(msg_ids) == ids
    for other in others:
        other.recipient.wait_for(2)
        other.hub.reply(other.key, msg_ids[other.id], OK)
    responders = {params[1] for _, params in sender.recipient.wait_for(3)}
    assert responders == ids


def test_a_message_without_params_gets_an_empty_map(harness: Harness, sender: RegisteredClient) -> None:
    """R16: the hub adds ``samp.params``, and neither adds nor removes anything else."""
    other = harness.join()
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "extra": "kept"})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2] == {"samp.mtype": "table.x", "samp.params": {}, "extra": "kept"}


@pytest.mark.parametrize(
    "message", [{}, {"samp.mtype": ["x"]}, {"samp.mtype": "table.*"}, {"samp.mtype": "table.x", "samp.params": "x"}]
)
def test_an_invalid_message_is_a_fault(harness: Harness, sender: RegisteredClient, message: Any) -> None:
    """R16."""
    other = harness.join()
    for attempt in (
        lambda: sender.hub.notify(sender.key, other.id, message),
        lambda: sender.hub.notifyAll(sender.key, message),
        lambda: sender.hub.callAndWait(sender.key, other.id, message, "1"),
    ):
        with pytest.raises(xmlrpc.client.Fault):
            attempt()


def test_special_characters_are_preserved(harness: Harness, sender: RegisteredClient) -> None:
    """R2, R5, R30."""
    other = harness.join()
    text = "<&>\"' \t\n é \N{SNOWMAN} ]]> &amp; "
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "samp.params": {"<k>": text}})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2]["samp.params"] == {"<k>": text}
    assert other.recipient.bodies[0].isascii()
    assert other.recipient.bodies[0].startswith(b"<?xml version")


def test_the_hub_replies_to_a_ping(sender: RegisteredClient) -> None:
    """R8."""
    assert sender.hub.callAndWait(sender.key, "hub", PING, "10") == {"samp.status": "samp.ok", "samp.result": {}}


def test_only_the_hub_sends_events(harness: Harness, sender: RegisteredClient) -> None:
    """R25."""
    harness.join(well_behaved, "*")
    with pytest.raises(xmlrpc.client.Fault, match="Only the hub"):
        sender.hub.notifyAll(sender.key, {"samp.mtype": "samp.hub.event.shutdown", "samp.params": {}})


# callAndWait


def test_call_and_wait(harness: Harness, sender: RegisteredClient) -> None:
    """R18: the caller need not be callable."""
    other = harness.join()
    other.reply_to_calls()
    hub = harness.proxy()
    key = hub.register(SECRET)["samp.private-key"]
    assert hub.callAndWait(key, other.id, MESSAGE, "10") == OK
    assert hub.callAndWait(key, other.id, MESSAGE, "0") == OK
    assert hub.callAndWait(key, other.id, MESSAGE, "1e30") == OK


def test_timeout_of_call_and_wait(harness: Harness, sender: RegisteredClient) -> None:
    """R22: the caller gets a fault, and a late reply is rejected."""
    other = harness.join()
    begin = time.monotonic()
    with pytest.raises(xmlrpc.client.Fault, match="within 1 s"):
        sender.hub.callAndWait(sender.key, other.id, MESSAGE, "1")
    assert 0.9 < time.monotonic() - begin < 3
    [(_, params)] = other.recipient.wait_for(1)
    with pytest.raises(xmlrpc.client.Fault, match="msg-id"):
        other.hub.reply(other.key, params[2], OK)


@pytest.mark.parametrize("timeout", ["", "soon", "nan", "inf", "1 2", "0x10"])
def test_an_invalid_timeout_is_a_fault(harness: Harness, sender: RegisteredClient, timeout: str) -> None:
    """R22: the hub does not send the message."""
    other = harness.join()
    with pytest.raises(xmlrpc.client.Fault):
        sender.hub.callAndWait(sender.key, other.id, MESSAGE, timeout)
    assert not other.recipient.calls


def test_the_call_of_a_caller_that_closes_its_connection_ends(harness: Harness, sender: RegisteredClient) -> None:
    """R23: also a call with timeout 0."""
    other = harness.join()
    body = xmlrpc.client.dumps((sender.key, other.id, MESSAGE, "0"), "samp.hub.callAndWait").encode()
    with socket.create_connection(("127.0.0.1", harness.profile.port), 10) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        [(_, params)] = other.recipient.wait_for(1)
        assert harness.broker.client(other.id).pending_received
    wait_until(lambda: not harness.broker.client(other.id).pending_received)
    with pytest.raises(xmlrpc.client.Fault, match="msg-id"):
        other.hub.reply(other.key, params[2], OK)


def test_waiting_callers_block_no_others(harness: Harness, sender: RegisteredClient) -> None:
    """R24: while fifty callers wait, no thread of the hub waits with them."""
    silent = harness.join()
    hubs = [harness.proxy() for _ in range(50)]
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


# Failing deliveries (R23)

BAD: dict[str, Callable[[str, tuple[Any, ...]], bytes | None]] = {
    "closes without a response": lambda *_: None,
    "HTTP 500": lambda *_: http_response(b"oops", "500 Internal Server Error"),
    "HTML": lambda *_: http_response(b"<html>hello</html>"),
    "a redirect": lambda *_: http_response(b"", "302 Found", headers="Location: http://127.0.0.1:1/\r\n"),
    "200 MB": lambda *_: http_response(b"x" * 100_000, length=200_000_000),
    "a negative length": lambda *_: http_response(b"x", length=-1),
    "no HTTP": lambda *_: b"hello\r\n\r\n",
    "a body cut off": lambda *_: http_response(OK_XML[:20], length=len(OK_XML), headers="Connection: close\r\n"),
    "XML without end": lambda *_: http_response(b"<?xml version='1.0'?><methodResponse><fault>"),
}


@pytest.mark.parametrize("behaviour", BAD)
def test_an_invalid_http_response_ends_the_call(harness: Harness, sender: RegisteredClient, behaviour: str) -> None:
    """R23: the call ends at once, and the message was delivered exactly once."""
    other = harness.join(BAD[behaviour])
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
    assert other.id in sender.hub.getRegisteredClients(sender.key)  # it is still running


def test_the_caller_gets_the_text_of_a_fault(harness: Harness, sender: RegisteredClient) -> None:
    """R23: the caller gets one response, without the recipient's key."""
    other = harness.join()
    other.recipient.behave = lambda *_: fault(f"no table today, {other.key}")
    response = sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0")
    assert response["samp.status"] == "samp.error"
    assert response["samp.error"]["samp.errortxt"] == "no table today, ..."
    sender.hub.notify(sender.key, other.id, MESSAGE)
    other.recipient.wait_for(2)
    sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0")
    assert len(other.recipient.calls) == 3


def test_a_reply_before_a_fault_counts(harness: Harness, sender: RegisteredClient) -> None:
    """If a recipient replies and then returns a fault, the caller gets the reply."""
    other = harness.join()
    hub = harness.proxy()

    def behave(_method: str, params: tuple[Any, ...]) -> bytes:
        hub.reply(other.key, params[2], OK)
        return fault("too late")

    other.recipient.behave = behave
    assert sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0") == OK


def test_calls_to_an_unresponsive_client_end_and_delay_no_others(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R23, R24: the client accepts connections and never responds."""
    monkeypatch.setattr(callback_sender, "DELIVERY_TIMEOUT", 0.7)
    silent = harness.join()
    silent.recipient.behave = lambda *_: silent.recipient.closing.wait(20) and None
    other = harness.join()
    other.reply_to_calls()
    for number in range(40):
        sender.hub.call(sender.key, silent.id, f"tag{number}", MESSAGE)
    begin = time.monotonic()
    assert sender.hub.callAndWait(sender.key, other.id, MESSAGE, "5") == OK
    assert time.monotonic() - begin < 0.5
    calls = sender.recipient.wait_for(40, 5.0)
    assert time.monotonic() - begin < 5
    assert sorted(params[2] for _, params in calls) == sorted(f"tag{number}" for number in range(40))
    assert all(params[3]["samp.error"]["samp.code"] == "samp.noresponse" for _, params in calls)
    assert silent.id in sender.hub.getRegisteredClients(sender.key)


def test_a_refused_connection_ends_the_call_and_the_registration(harness: Harness, sender: RegisteredClient) -> None:
    """R23: no program listens at the callback address, as after Aladin has ended. The other clients are notified."""
    listener = harness.join(well_behaved, "samp.hub.event.unregister")
    gone = harness.join()
    gone.recipient.crash()
    begin = time.monotonic()
    response = sender.hub.callAndWait(sender.key, gone.id, MESSAGE, "0")
    assert time.monotonic() - begin < 1
    assert response["samp.error"]["samp.code"] == "samp.noresponse"
    [(_, params)] = listener.recipient.wait_for(1, 5.0)
    assert params[2]["samp.params"] == {"id": gone.id}
    with pytest.raises(xmlrpc.client.Fault, match="private key"):
        gone.hub.getRegisteredClients(gone.key)


def test_a_crash_after_a_call_is_noticed(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    R23: the recipient crashes after it has received the call. The hub sees the end of the idle connection at once.
    """
    other = harness.join()
    responses: list[Any] = []
    waiter = threading.Thread(
        target=lambda: responses.append(sender.hub.callAndWait(sender.key, other.id, MESSAGE, "0"))
    )
    waiter.start()
    other.recipient.wait_for(1)
    harness.settle(other)
    other.recipient.crash()
    waiter.join(3)
    assert responses[0]["samp.error"]["samp.code"] == "samp.noresponse"
    assert "has gone" in responses[0]["samp.error"]["samp.errortxt"]


def test_a_crash_without_an_open_connection_is_noticed(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R23: the hub probes at intervals a client that closes each connection, as JSAMP does."""
    monkeypatch.setattr(liveness, "CHECK_INTERVAL", 0.2)
    other = harness.join(lambda *_: http_response(headers="Connection: close\r\n"))
    idle = harness.join()
    sender.hub.call(sender.key, other.id, "tag", MESSAGE)
    other.recipient.wait_for(1)
    harness.settle(other)
    other.recipient.crash()
    idle.recipient.crash()  # the hub has never called this client
    [(_, params)] = sender.recipient.wait_for(1, 8.0)
    assert "has gone" in params[3]["samp.error"]["samp.errortxt"]
    wait_until(lambda: sender.hub.getRegisteredClients(sender.key) == ["hub"])


def test_a_client_that_closes_idle_connections_stays_registered(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R23: neither a closed idle connection nor silence means that the client has ended."""
    monkeypatch.setattr(liveness, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(liveness, "CONFIRM_AFTER", 0.05)
    other = harness.join(lambda *_: http_response(headers="Connection: close\r\n"))
    sender.hub.call(sender.key, other.id, "tag", MESSAGE)
    other.recipient.wait_for(1)
    time.sleep(0.6)  # a dozen probes
    assert set(sender.hub.getRegisteredClients(sender.key)) == {"hub", other.id}


# Order and limits


def test_messages_arrive_in_order_over_one_connection(harness: Harness, sender: RegisteredClient) -> None:
    """R24: the hub calls a client that responds properly over one connection."""
    other = harness.join()
    for number in range(300):
        message = {"samp.mtype": "table.x", "samp.params": {"n": str(number)}}
        if number % 3:
            sender.hub.notify(sender.key, other.id, message)
        else:
            sender.hub.call(sender.key, other.id, "tag", message)
    calls = other.recipient.wait_for(300)
    assert [params[-1]["samp.params"]["n"] for _, params in calls] == [str(number) for number in range(300)]
    assert other.recipient.connections == 1


def test_a_slow_recipient_delays_neither_sender_nor_others(harness: Harness, sender: RegisteredClient) -> None:
    """R24."""
    slow = harness.join()
    slow.recipient.behave = lambda *_: None if slow.recipient.closing.wait(0.5) else http_response()
    quick = harness.join()
    begin = time.monotonic()
    for _ in range(3):
        assert set(sender.hub.notifyAll(sender.key, MESSAGE)) == {slow.id, quick.id}
    quick.recipient.wait_for(3)
    assert time.monotonic() - begin < 0.4
    slow.recipient.wait_for(3)


def test_a_delivery_overtakes_a_blocked_one(harness: Harness, sender: RegisteredClient) -> None:
    """R24: a client that acknowledges a delivery only after a nested call has ended does not deadlock."""
    other = harness.join()
    helper = harness.join()
    helper.reply_to_calls()
    hub = harness.proxy()
    replied = threading.Event()

    def behave(method: str, params: tuple[Any, ...]) -> bytes:
        if method == "samp.client.receiveCall":
            # this call of the helper ends with a response that is delivered to this recipient
            hub.call(other.key, helper.id, "nested", MESSAGE)
            other.recipient.wait_for(2)
            hub.reply(other.key, params[2], OK)
            replied.set()
        return http_response()

    other.recipient.behave = behave
    assert sender.hub.callAndWait(sender.key, other.id, MESSAGE, "8") == OK
    assert replied.wait(10)  # the hub responds to the caller before it responds to the reply


@pytest.mark.parametrize("limit", ["MAX_QUEUED", "MAX_QUEUED_BYTES"])
def test_a_client_that_accepts_nothing_is_disconnected(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """
    R26, R50: the hub sends it the reason, and its callers get an error. The number and the bytes of its deliveries
    are limited.
    """
    monkeypatch.setattr(callback_sender, limit, {"MAX_QUEUED": 20, "MAX_QUEUED_BYTES": 200_000}[limit])
    other = harness.join(well_behaved, "table.*", "samp.hub.disconnect")
    listener = harness.join(well_behaved, "samp.hub.event.unregister")

    def behave(_method: str, params: tuple[Any, ...]) -> bytes:
        if params[2]["samp.mtype"] != "samp.hub.disconnect":
            other.recipient.closing.wait(20)
        return http_response()

    other.recipient.behave = behave
    message = {"samp.mtype": "table.x", "samp.params": {"data": "x" * 10_000}}
    sender.hub.notify(sender.key, other.id, message)
    other.recipient.wait_for(1)
    for _ in range(19 if limit == "MAX_QUEUED" else 17):
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


def test_a_slow_client_stays_registered(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    When the client's queue is long, the hub delays its responses to the sender, so the queue does not become full.
    """
    monkeypatch.setattr(callback_sender, "LONG_QUEUE", 5)
    monkeypatch.setattr(callback_sender, "MAX_QUEUED", 25)
    other = harness.join(well_behaved, "table.*")
    other.recipient.behave = lambda *_: (other.recipient.closing.wait(0.005), http_response())[1]
    message = {"samp.mtype": "table.x", "samp.params": {}}
    for _ in range(150):
        sender.hub.notify(sender.key, other.id, message)
    assert len(other.recipient.wait_for(150)) == 150


def test_a_sender_waits_for_a_slow_client(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub delays one response to the sender for each message in excess of LONG_QUEUE, and no response to others."""
    monkeypatch.setattr(callback_sender, "LONG_QUEUE", 3)
    monkeypatch.setattr(operations, "SLOW_DOWN_TIME", 0.2)
    other, third = harness.join(well_behaved, "table.*"), harness.join()
    other.recipient.behave = lambda *_: (other.recipient.closing.wait(20), http_response())[1]
    message = {"samp.mtype": "table.x", "samp.params": {}}
    for _ in range(4):
        sender.hub.notify(sender.key, other.id, message)
    harness.settle(third)
    for _ in range(3):
        start = time.monotonic()
        sender.hub.notify(sender.key, other.id, message)
        assert time.monotonic() - start >= 0.2
    start = time.monotonic()
    for _ in range(20):
        third.hub.ping()
        third.hub.getRegisteredClients(third.key)
    assert time.monotonic() - start < 4


def test_one_large_message_always_fits(
    harness: Harness, sender: RegisteredClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback_sender, "MAX_QUEUED_BYTES", 1000)
    other = harness.join()
    data = "x" * 3_000_000
    sender.hub.notify(sender.key, other.id, {"samp.mtype": "table.x", "samp.params": {"data": data}})
    [(_, params)] = other.recipient.wait_for(1)
    assert params[2]["samp.params"]["data"] == data


def finally_received(harness: Harness, clients: list[RegisteredClient]) -> list[list[tuple[str, tuple[Any, ...]]]]:
    """Send a last message to each client; return the calls that each client has received before it."""
    last = harness.join()
    for client in clients:
        last.hub.notify(last.key, client.id, {"samp.mtype": "table.last", "samp.params": {}})
    received = []
    for client in clients:
        wait_until(lambda client=client: any(params[1] == last.id for _, params in client.recipient.calls), 30.0)
        harness.settle(client)
        received.append([call for call in client.recipient.calls if call[1][1] != last.id])
    return received


def test_many_calls_are_delivered_exactly_once(harness: Harness) -> None:
    """R20, R21: 20 clients make 2000 calls at the same time. Each call is delivered once and gets one response."""
    clients = [harness.join() for _ in range(20)]

    for client in clients:
        hub = harness.proxy()
        lock = threading.Lock()

        def behave(
            method: str, params: tuple[Any, ...], client: RegisteredClient = client, hub: Any = hub, lock: Any = lock
        ) -> bytes:
            if method == "samp.client.receiveCall":
                response = {"samp.status": "samp.ok", "samp.result": {"echo": params[3]["samp.params"]["tag"]}}
                with lock:
                    hub.reply(client.key, params[2], response)
            return http_response()

        client.recipient.behave = behave

    def call(number: int) -> None:
        client = clients[number]
        for step in range(100):
            other = clients[(number + 1 + step % 19) % 20]
            tag = f"{number}/{step}"
            message = {"samp.mtype": "table.x", "samp.params": {"tag": tag}}
            client.hub.call(client.key, other.id, tag, message)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    for client in clients:
        client.recipient.wait_for(200, 30.0)
    received = set()
    for number, calls in enumerate(finally_received(harness, clients)):
        assert len(calls) == 200
        received |= {params[3]["samp.params"]["tag"] for kind, params in calls if kind == "receiveCall"}
        responses = [(p[2], p[3]["samp.result"]["echo"]) for kind, p in calls if kind == "receiveResponse"]
        assert sorted(responses) == sorted((f"{number}/{step}",) * 2 for step in range(100))
    assert len(received) == 2000


def test_many_broadcasts_are_delivered_exactly_once(harness: Harness, sender: RegisteredClient) -> None:
    """R18, R24: each of fifty recipients gets ten broadcasts in order."""
    others = [harness.join() for _ in range(50)]
    for number in range(10):
        message = {"samp.mtype": "table.x", "samp.params": {"n": str(number)}}
        assert len(sender.hub.notifyAll(sender.key, message)) == 50
    for calls in finally_received(harness, others):
        assert [params[2]["samp.params"]["n"] for _, params in calls] == [str(number) for number in range(10)]


# Callback addresses


def test_a_host_name_is_never_looked_up(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """R37: DS9 puts the name of its machine into its URL. The hub calls the address from which the request came."""

    def no_lookup(*args: Any) -> Any:
        raise AssertionError(f"{args} was looked up")

    sender = harness.join()
    recipients = [harness.stack.enter_context(Recipient()) for _ in range(3)]
    clients = [RegisteredClient(harness, recipient) for recipient in recipients]
    # the clients of this test have made their look-ups; from here on nothing may be looked up
    hub = harness.broker
    for host, client in zip(["some.host.example", "localhost", "0.0.0.0"], clients, strict=True):
        client.hub.setXmlrpcCallback(client.key, f"http://{host}:{client.recipient.port}/x")
        client.hub.declareSubscriptions(client.key, {"table.*": {}})
    monkeypatch.setattr(socket, "getaddrinfo", no_lookup)
    monkeypatch.setattr(socket, "gethostbyname", no_lookup)
    sender.hub.notifyAll(sender.key, MESSAGE)
    for client in clients:
        client.recipient.wait_for(1)
    assert len(hub.clients()) == 4


@pytest.mark.parametrize(
    "url", ["", "x", "file:///etc/passwd", "https://127.0.0.1/", "http://", "http://127.0.0.1:99999/"]
)
def test_an_invalid_callback_url_is_a_fault(harness: Harness, url: str) -> None:
    """R31: the client does not become callable."""
    hub = harness.proxy()
    registered = hub.register(SECRET)
    with pytest.raises(xmlrpc.client.Fault, match="URL"):
        hub.setXmlrpcCallback(registered["samp.private-key"], url)
    assert not harness.broker.client(registered["samp.self-id"]).callable


def test_a_client_may_change_its_url(harness: Harness, sender: RegisteredClient) -> None:
    """R31: later messages go to the new URL, and the subscriptions stay."""
    other = harness.join()
    sender.hub.notify(sender.key, other.id, MESSAGE)
    other.recipient.wait_for(1)
    with Recipient() as new:
        other.hub.setXmlrpcCallback(other.key, new.url)
        sender.hub.notify(sender.key, other.id, MESSAGE)
        new.wait_for(1)
        assert len(other.recipient.calls) == 1


# Events during discovery


EVENTS = "samp.hub.event.*"


def call_as_jsamp(harness: Harness, client: RegisteredClient, operation: str, *params: str) -> None:
    body = xmlrpc.client.dumps((client.key, *params), f"samp.hub.{operation}").encode()
    status, text = post(harness, body, {"User-Agent": "JSAMP/1.3.7"})
    assert status == 200
    xmlrpc.client.loads(text)


def events_of(client: RegisteredClient) -> list[tuple[str, str]]:
    messages = [params[-1] for _, params in client.recipient.calls]
    return [(message["samp.mtype"].rpartition(".")[2], message["samp.params"].get("id", "")) for message in messages]


def test_a_new_client_of_jsamp_gets_events_after_its_discovery_calls(
    harness: Harness, sender: RegisteredClient
) -> None:
    """JSAMP loses events that arrive during its discovery calls, so the hub sends them afterwards, all and in order."""
    jsamp = harness.join(well_behaved, EVENTS, "table.*")
    harness.settle(jsamp)
    jsamp.recipient.calls.clear()
    call_as_jsamp(harness, jsamp, "getRegisteredClients")
    call_as_jsamp(harness, jsamp, "getMetadata", sender.id)
    late = harness.join()
    late.hub.notify(late.key, jsamp.id, MESSAGE)
    jsamp.recipient.wait_for(1)
    call_as_jsamp(harness, jsamp, "getSubscriptions", sender.id)
    assert events_of(jsamp) == [("votable", "")]  # the hub defers events only
    jsamp.recipient.wait_for(3)
    assert events_of(jsamp)[1:] == [("register", late.id), ("subscriptions", late.id)]


def test_other_new_clients_get_events_at_once(harness: Harness) -> None:
    """Only JSAMP is known to lose events."""
    other = harness.join(well_behaved, EVENTS)
    queue = harness.broker.client(other.id).queue
    assert isinstance(queue, callback_sender.CallbackSender)
    harness.settle(other)
    other.hub.getRegisteredClients(other.key)
    assert queue._deferrer._timer is None
    call_as_jsamp(harness, other, "getRegisteredClients")
    assert queue._deferrer._timer is not None


def test_the_shutdown_event_does_not_wait(harness: Harness) -> None:
    """R26: the hub sends the shutdown event without delay, even during discovery calls."""
    jsamp = harness.join(well_behaved, EVENTS)
    harness.settle(jsamp)
    call_as_jsamp(harness, jsamp, "getRegisteredClients")
    late = harness.join()
    harness.broker.announce_shutdown()
    assert harness.profile.wait_until_delivered(5.0)
    assert events_of(jsamp)[-3:] == [("register", late.id), ("subscriptions", late.id), ("shutdown", "")]


# Shutdown


def test_all_messages_are_delivered_before_the_shutdown(harness: Harness, sender: RegisteredClient) -> None:
    """R26: the event comes after all messages that were sent before."""
    other = harness.join(well_behaved, "table.*", "samp.hub.event.shutdown")
    for _ in range(50):
        sender.hub.notify(sender.key, other.id, MESSAGE)
    harness.broker.announce_shutdown()
    assert harness.profile.wait_until_delivered(5.0)
    assert len(other.recipient.calls) == 51
    assert other.recipient.calls[-1][1][2]["samp.mtype"] == "samp.hub.event.shutdown"


def test_the_shutdown_does_not_wait_for_unresponsive_clients(harness: Harness, sender: RegisteredClient) -> None:
    """R26: the shutdown takes less than 2 s, and a waiting caller gets a response."""
    silent = harness.join()
    silent.recipient.behave = lambda *_: silent.recipient.closing.wait(20) and None
    responses: list[Any] = []
    waiter = threading.Thread(
        target=lambda: responses.append(sender.hub.callAndWait(sender.key, silent.id, MESSAGE, "0"))
    )
    waiter.start()
    silent.recipient.wait_for(1)
    harness.broker.announce_shutdown()
    begin = time.monotonic()
    assert not harness.profile.wait_until_delivered(0.3)
    harness.broker.close()
    harness.loop.call_soon(harness.profile.stop)
    waiter.join(3)
    assert time.monotonic() - begin < 2
    assert "shutting down" in responses[0]["samp.error"]["samp.errortxt"]
