"""The six ways of sending, and the arguments of handlers, with both profiles."""

from __future__ import annotations

import functools
import queue
import threading
from typing import Any

import numpy as np
import pytest

from pyvo.samp import SAMPClientError, SAMPProxyError, SAMPWarning
from pyvo.samp.utils import SAMPMsgReplierWrapper

from .conftest import Connect, record


def test_notify(join: Connect) -> None:
    """R18: the recipient gets a notification as it was sent, with numbers as strings (R4)."""
    alice, bob = join("Alice"), join("Bob")
    note = record(bob)
    bob.bind_receive_notification("test.note", note)
    alice.enotify(bob.get_public_id(), "test.note", n=1.5, ok=True, rows=np.arange(3), extra_kws={"my.key": "v"})
    received = note.assert_received("*")
    assert received == (
        bob.get_private_key(),
        alice.get_public_id(),
        None,
        "test.note",
        {"n": "1.5", "ok": "1", "rows": ["0", "1", "2"]},
        {"my.key": "v"},
    )


def test_notify_all(join: Connect) -> None:
    """R18: a broadcast reaches all subscribers but its sender, and returns their ids."""
    alice, bob, carol = join("Alice"), join("Bob"), join("Carol")
    records = [record(client) for client in (alice, bob, carol)]
    for client, note in zip((alice, bob, carol), records, strict=True):
        client.bind_receive_notification("test.*", note)
    recipients = alice.enotify_all("test.note")
    assert sorted(recipients) == sorted([bob.get_public_id(), carol.get_public_id()])
    for note in records[1:]:
        assert note.assert_received("*").sender_id == alice.get_public_id()
    records[0].assert_not_received("*")


def test_call(join: Connect) -> None:
    """R20: the handler that is bound to the tag of a call gets its response."""
    alice, bob = join("Alice"), join("Bob")
    note = record(bob, {"answer": 42})
    bob.bind_receive_call("test.call", note)
    responses: queue.Queue[Any] = queue.Queue()
    alice.bind_receive_response("tag", lambda *args: responses.put(args))
    msg_id = alice.ecall(bob.get_public_id(), "tag", "test.call", x="1")
    assert isinstance(msg_id, str)
    assert note.assert_received("*").msg_id == msg_id
    assert responses.get(timeout=10) == (
        alice.get_private_key(),
        bob.get_public_id(),
        "tag",
        {"samp.status": "samp.ok", "samp.result": {"answer": "42"}},
    )


def test_call_all(join: Connect) -> None:
    """R20, R21: each recipient of a broadcast call has its own msg-id and sends its own response."""
    alice, bob, carol = join("Alice"), join("Bob"), join("Carol")
    for client in (bob, carol):
        client.bind_receive_call("test.call", record(client, {"id": client.get_public_id()}))
    responses: queue.Queue[Any] = queue.Queue()
    alice.bind_receive_response("tag", lambda *args: responses.put(args))
    msg_ids = alice.ecall_all("tag", "test.call")
    assert sorted(msg_ids) == sorted([bob.get_public_id(), carol.get_public_id()])
    assert len(set(msg_ids.values())) == 2
    received = [responses.get(timeout=10) for _ in range(2)]
    assert {args[1]: args[3]["samp.result"]["id"] for args in received} == {key: key for key in msg_ids}


@pytest.mark.parametrize("timeout", ["10", 10, 9.5, np.float32(10), "0", 0])
def test_call_and_wait(join: Connect, timeout: Any) -> None:
    """R22: a timeout may be a text or a number; the response is a plain dictionary."""
    alice, bob = join("Alice"), join("Bob")
    bob.bind_receive_call("test.call", record(bob, {"answer": 1e-5}))
    response = alice.ecall_and_wait(bob.get_public_id(), "test.call", timeout, x=1)
    assert type(response) is dict
    assert response == {"samp.status": "samp.ok", "samp.result": {"answer": "0.00001"}}


def test_call_and_wait_too_long(join: Connect) -> None:
    """R22: a timeout is a fault; a late reply has no other effect. (Only in the Standard Profile it is a fault.)"""
    alice, bob = join("Alice"), join("Bob")
    release = threading.Event()
    replied: queue.Queue[str] = queue.Queue()

    def slow(private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        release.wait(10)
        try:
            bob.ereply(msg_id, "samp.ok", result={})
        except SAMPProxyError:
            replied.put("rejected")
        else:
            replied.put("dropped")

    bob.bind_receive_call("test.slow", slow)
    with pytest.raises(SAMPProxyError):
        alice.ecall_and_wait("bob", "test.slow", 0.3)
    release.set()
    standard = alice.hub.prefix == "samp.hub"
    assert replied.get(timeout=10) == ("rejected" if standard else "dropped")
    assert alice.ecall_and_wait("bob", "samp.app.ping", 10)["samp.status"] == "samp.ok"


def test_methods_of_whole_messages(join: Connect) -> None:
    """The methods that accept a whole message, and `reply` with a whole response."""
    alice, bob = join("Alice"), join("Bob")
    seen: queue.Queue[Any] = queue.Queue()

    def handler(private_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, extra: Any) -> None:
        seen.put((msg_id is None, mtype, params))
        if msg_id is not None:
            bob.reply(msg_id, {"samp.status": "samp.warning", "samp.result": {}, "samp.error": {"samp.errortxt": "hm"}})

    bob.bind_receive_message("test.x", handler)
    message = {"samp.mtype": "test.x", "samp.params": {"a": 1}}
    copy = {"samp.mtype": "test.x", "samp.params": {"a": 1}}
    bob_id = bob.get_public_id()
    alice.notify(bob_id, message)
    assert seen.get(timeout=10) == (True, "test.x", {"a": "1"})
    assert alice.notify_all(message) == [bob_id]
    assert seen.get(timeout=10)[0] is True
    alice.call(bob_id, "tag", message)
    assert seen.get(timeout=10)[0] is False
    assert list(alice.call_all("tag", message)) == [bob_id]
    assert seen.get(timeout=10)[0] is False
    assert alice.call_and_wait(bob_id, message, "10")["samp.error"] == {"samp.errortxt": "hm"}
    assert message == copy


def test_no_recipients(join: Connect) -> None:
    """A notification without recipients causes a warning."""
    alice = join("Alice")
    with pytest.warns(SAMPWarning, match=r"test\.none"):
        assert alice.enotify_all("test.none") == []


def test_not_subscribed(join: Connect) -> None:
    """R19: a message to a recipient that is not subscribed to its MType is a fault."""
    alice, bob = join("Alice"), join("Bob")
    for recipient in (bob.get_public_id(), "bob"):
        with pytest.raises(SAMPProxyError):
            alice.enotify(recipient, "test.unknown")


@pytest.mark.parametrize(
    ("params", "error", "path"),
    [
        ({"name": None}, TypeError, "samp.params/name"),
        ({"name": b"x"}, TypeError, "samp.params/name"),
        ({"name": float("nan")}, ValueError, "samp.params/name"),
        ({"rows": [1, {"a": "\0"}]}, ValueError, "samp.params/rows/1/a"),
        ({"map": {1: "x"}}, TypeError, "samp.params/map"),
    ],
)
def test_invalid_values(
    pair: tuple[Any, Any], params: dict[str, Any], error: type[Exception], path: str
) -> None:
    """R4: a value that SAMP does not allow is rejected with an error that names its place; nothing is sent."""
    alice, bob = pair
    note = record(bob)
    bob.bind_receive_message("test.x", note)
    message = {"samp.mtype": "test.x", "samp.params": params}
    for send in (
        lambda: alice.notify("bob", message),
        lambda: alice.notify_all(message),
        lambda: alice.call("bob", "tag", message),
        lambda: alice.call_all("tag", message),
        lambda: alice.call_and_wait("bob", message, 5),
    ):
        with pytest.raises(error, match=path):
            send()
    alice.enotify("bob", "test.x", last="1")
    assert note.assert_received("*").params == {"last": "1"}
    note.assert_not_received("*")


def test_order(join: Connect) -> None:
    """R24: messages of one sender are handled in the order in which they were sent."""
    alice, bob = join("Alice"), join("Bob")
    note = record(bob)
    bob.bind_receive_notification("test.n", note)
    for number in range(300):
        alice.enotify("bob" if number == 0 else bob.get_public_id(), "test.n", n=number)
    assert [note.assert_received("*").params["n"] for _ in range(300)] == [str(number) for number in range(300)]


class Handlers:
    """Callables of all kinds."""

    def __init__(self, seen: queue.Queue[Any]) -> None:
        self.seen = seen

    def six(self, private_key: str, sender_id: str, msg_id: Any, mtype: str, params: Any, extra: Any) -> None:
        self.seen.put((msg_id, mtype, params))

    def five(self, private_key: str, sender_id: str, mtype: str, params: Any, extra: Any) -> None:
        self.seen.put((None, mtype, params))

    def __call__(self, *args: Any) -> None:
        self.seen.put(args[2:5])

    def seven(self, prefix: Any, *args: Any) -> None:
        self.seen.put(args[2:5])


@pytest.mark.parametrize("kind", ["method", "five", "object", "partial", "lambda5", "default"])
def test_kinds_of_handlers(pair: tuple[Any, Any], kind: str) -> None:
    """Any callable of six or five arguments handles notifications."""
    alice, bob = pair
    seen: queue.Queue[Any] = queue.Queue()
    handlers = Handlers(seen)
    handler: Any = {
        "method": handlers.six,
        "five": handlers.five,
        "object": handlers,
        "partial": functools.partial(handlers.seven, "prefix"),
        "lambda5": lambda key, sender, mtype, params, extra: seen.put((None, mtype, params)),
        "default": lambda key, sender, mid, mtype, params, extra=None: seen.put((mid, mtype, params)),
    }[kind]
    bob.bind_receive_message("test.*", handler)
    alice.enotify("bob", "test.x", a="b")
    assert seen.get(timeout=10) == (None, "test.x", {"a": "b"})


def test_handlers_with_five_arguments_reply(pair: tuple[Any, Any]) -> None:
    """The return value of a handler that does not accept the msg-id is its reply."""
    alice, bob = pair
    bob.bind_receive_message("test.x", lambda key, sender, mtype, params, extra: {"twice": 2 * int(params["n"])})
    response = alice.ecall_and_wait("bob", "test.x", 10, n=4)
    assert response == {"samp.status": "samp.ok", "samp.result": {"twice": "8"}}


def test_wrong_number_of_arguments(pair: tuple[Any, Any]) -> None:
    """A function with a wrong number of arguments is rejected when it is bound, not when a message arrives."""
    _, bob = pair
    with pytest.raises(SAMPClientError, match="must take"):
        bob.bind_receive_call("test.x", lambda a, b: None)
    with pytest.raises(SAMPClientError, match="must be callable"):
        bob.bind_receive_call("test.x", "no function")


def test_most_specific_binding(pair: tuple[Any, Any]) -> None:
    """R12: if several bindings match, only the handler of the most specific one is called."""
    alice, bob = pair
    records = {pattern: record(bob) for pattern in ("*", "test.*", "test.a.*", "test.a.b")}
    for pattern, note in records.items():
        bob.bind_receive_notification(pattern, note)
    for mtype, pattern in (("other", "*"), ("test.x", "test.*"), ("test.a.x", "test.a.*"), ("test.a.b", "test.a.b")):
        alice.enotify("bob", mtype)
        records[pattern].assert_received(mtype)
    for note in records.values():
        note.assert_not_received("test.*")
        note.assert_not_received("other")


def test_exception_in_a_handler(join: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets the text of the exception; the traceback is only logged."""
    alice, bob = join("Alice"), join("Bob")

    def broken(private_key: str, sender_id: str, msg_id: Any, mtype: str, params: Any, extra: Any) -> None:
        raise RuntimeError("the dog ate it: \N{GREEK SMALL LETTER ALPHA}\0")

    bob.bind_receive_message("test.x", broken)
    response = alice.ecall_and_wait("bob", "test.x", 10)
    assert response == {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "the dog ate it: \\u03b1\\x00"}}
    assert "Traceback" in caplog.text
    assert alice.ecall_and_wait("bob", "samp.app.ping", 10)["samp.status"] == "samp.ok"


@pytest.mark.parametrize("error", [KeyError("x"), ValueError(), SystemExit(3), KeyboardInterrupt()])
def test_any_exception_is_an_error_response(pair: tuple[Any, Any], error: BaseException) -> None:
    """R23: for any exception in a handler, the caller gets one error response."""
    alice, bob = pair

    def broken(private_key: str, sender_id: str, msg_id: Any, mtype: str, params: Any, extra: Any) -> None:
        raise error

    bob.bind_receive_call("test.x", broken)
    response = alice.ecall_and_wait("bob", "test.x", 10)
    assert response["samp.status"] == "samp.error"
    assert response["samp.error"]["samp.errortxt"]


def test_exception_after_the_reply(pair: tuple[Any, Any]) -> None:
    """If a handler replies and then raises, the caller gets only the reply."""
    alice, bob = pair
    responses: queue.Queue[Any] = queue.Queue()

    def broken(private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        bob.ereply(msg_id, "samp.ok", result={"n": 1})
        raise RuntimeError("too late")

    bob.bind_receive_call("test.x", broken)
    alice.bind_receive_response("tag", lambda *args: responses.put(args[3]))
    alice.ecall("bob", "tag", "test.x")
    assert responses.get(timeout=10)["samp.status"] == "samp.ok"
    assert alice.ecall_and_wait("bob", "samp.app.ping", 10)["samp.status"] == "samp.ok"
    assert responses.empty()


def test_invalid_reply(pair: tuple[Any, Any]) -> None:
    """R4: if a handler replies with NaN, the caller gets an error response."""
    alice, bob = pair
    bob.bind_receive_call("test.x", lambda key, sender, mid, *rest: bob.ereply(mid, "samp.ok", {"x": float("nan")}))
    response = alice.ecall_and_wait("bob", "test.x", 10)
    assert response["samp.status"] == "samp.error"
    assert "samp.result/x" in response["samp.error"]["samp.errortxt"]


def test_call_without_a_handler(pair: tuple[Any, Any]) -> None:
    """R23: the response to a call of an MType that is bound for notifications only is an error."""
    alice, bob = pair
    bob.bind_receive_notification("test.x", record(bob))
    response = alice.ecall_and_wait("bob", "test.x", 10)
    assert response["samp.status"] == "samp.error"
    assert "no handler" in response["samp.error"]["samp.errortxt"]


def test_replier(join: Connect) -> None:
    """`SAMPMsgReplierWrapper` replies with the return value of a function, or with its exception as an error."""
    alice, bob = join("Alice"), join("Bob")
    seen: queue.Queue[Any] = queue.Queue()

    @SAMPMsgReplierWrapper(bob)
    def half(private_key: str, sender_id: str, msg_id: Any, mtype: str, params: Any, extra: Any) -> Any:
        seen.put(msg_id)
        if params["n"] == "0":
            return None
        if params["n"] == "1":
            return bob.ereply(msg_id, "samp.warning", {}, {"samp.errortxt": "by itself"}) and None
        if int(params["n"]) % 2:
            raise ValueError("odd")
        return {"half": int(params["n"]) // 2}

    bob.bind_receive_message("test.half", half)
    responses = {n: alice.ecall_and_wait("bob", "test.half", 10, n=n) for n in (0, 1, 3, 8)}
    assert responses[0] == {"samp.status": "samp.ok", "samp.result": {}}
    assert responses[1]["samp.status"] == "samp.warning"
    assert responses[3] == {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "odd"}}
    assert responses[8] == {"samp.status": "samp.ok", "samp.result": {"half": "4"}}
    alice.enotify("bob", "test.half", n=8)
    assert [seen.get(timeout=10) for _ in range(5)][-1] is None


def test_nested_calls(join: Connect) -> None:
    """R24: a handler may call its caller, whose handler may call back, without a deadlock or a grace time."""
    alice, bob = join("Alice"), join("Bob")

    def countdown(own: Any, other: str) -> Any:
        def handler(private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
            depth = int(params["n"])
            if depth:
                response = own.ecall_and_wait(other, "test.nest", 20, n=depth - 1)
                assert response["samp.status"] == "samp.ok", response
                depth += int(response["samp.result"]["sum"])
            own.ereply(msg_id, "samp.ok", {"sum": depth})

        return handler

    alice.bind_receive_call("test.nest", countdown(alice, "bob"))
    bob.bind_receive_call("test.nest", countdown(bob, "alice"))
    response = alice.ecall_and_wait("bob", "test.nest", 5, n=6)
    assert response["samp.result"] == {"sum": "21"}


def test_blocking_handler(pair: tuple[Any, Any]) -> None:
    """R24: a handler that blocks does not block later messages forever."""
    alice, bob = pair
    release = threading.Event()
    note = record(bob)
    bob.bind_receive_notification("test.block", lambda *args: release.wait(30))
    bob.bind_receive_notification("test.after", note)
    alice.enotify("bob", "test.block")
    alice.enotify("bob", "test.after")
    assert note.assert_received("*").mtype == "test.after"
    release.set()


def test_too_many_messages(join: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """R23: a client whose queue of messages is full rejects more, and the senders of calls get errors."""
    monkeypatch.setattr("pyvo.samp.client.callback_server.MAX_WAITING", 100_000)
    alice, bob = join("Alice"), join("Bob")
    started, release = threading.Event(), threading.Event()
    note = record(bob)

    def block(*args: Any) -> None:
        started.set()
        release.wait(30)

    bob.bind_receive_notification("test.block", block)
    bob.bind_receive_call("test.large", note)
    alice.enotify("bob", "test.block")
    assert started.wait(5)
    responses: queue.Queue[Any] = queue.Queue()
    alice.bind_receive_response("tag", lambda *args: responses.put(args[3]))
    for _ in range(4):
        alice.ecall("bob", "tag", "test.large", text="x" * 40_000)
    rejected = [responses.get(timeout=10) for _ in range(2)]
    assert all("queue is full" in str(response["samp.error"]) for response in rejected)
    release.set()
    done = [responses.get(timeout=10)["samp.status"] for _ in range(2)]
    assert done == ["samp.ok", "samp.ok"]
    assert alice.ecall_and_wait("bob", "test.large", 10, text="x" * 40_000)["samp.status"] == "samp.ok"
