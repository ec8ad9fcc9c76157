"""
Each delivery of a call gets one reply, even if its msg-id was used before (R20, R21).

Hubs built on JSAMP use the same msg-id again if the sender uses the same msg-tag again; the hub of this package never
does. So the tests deliver calls as such a hub delivers them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyvo.samp import SAMPClientError, SAMPHubServer, SAMPIntegratedClient, SAMPProxyError
from pyvo.samp.client import callback_server
from pyvo.samp.client.handlers import MAX_OPEN, ReceivedCalls
from pyvo.samp.client.receiving import HandlerExecutor
from pyvo.samp.utils import SAMPMsgReplierWrapper

from .conftest import Connect

ID = "c1_A_92a4_tag"  # a msg-id of JSAMP


class Deliveries:
    """Deliver calls to a client, and record its replies, which are not sent: the hub did not send these calls."""

    def __init__(self, client: SAMPIntegratedClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.replies: queue.Queue[Any] = queue.Queue()
        self._threads: list[threading.Thread] = []
        original_call = client.hub._call

        def record(operation: str, /, **params: Any) -> Any:
            if operation != "reply":
                return original_call(operation, **params)
            self.replies.put((params["msg_id"], params["response"]))
            return ""

        monkeypatch.setattr(client.hub, "_call", record)

    def deliver(self, mtype: str, msg_id: str = ID, **params: str) -> None:
        """Deliver one call, in this thread."""
        message = {"samp.mtype": mtype, "samp.params": params}
        self.client.receive_call(str(self.client.get_private_key()), "c9", msg_id, message)

    def deliver_in_thread(self, mtype: str, **params: str) -> threading.Thread:
        """Deliver one call in another thread."""
        thread = threading.Thread(target=self.deliver, args=(mtype,), kwargs=params)
        self._threads.append(thread)
        thread.start()
        return thread

    def close(self) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def responses(self) -> list[dict[str, Any]]:
        """Return the replies since the last call of this method."""
        found = []
        while not self.replies.empty():
            msg_id, response = self.replies.get()
            assert msg_id == ID
            found.append(response)
        return found

    def statuses(self) -> list[str]:
        """Return the statuses of the replies since the last call of this method."""
        return [response["samp.status"] for response in self.responses()]


Deliver = Callable[[SAMPIntegratedClient], Deliveries]


@pytest.fixture
def deliveries(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deliver]:
    made: list[Deliveries] = []

    def make(client: SAMPIntegratedClient) -> Deliveries:
        made.append(Deliveries(client, monkeypatch))
        return made[-1]

    yield make
    for each in made:
        each.close()


def fail(*_: Any) -> Any:
    raise ValueError("no")


def bind_all(client: SAMPIntegratedClient) -> None:
    """Bind one handler of each kind."""
    client.on("test.on")(lambda params: params)
    client.bind_receive_call("test.five", lambda key, sender, mtype, params, extra: params)
    client.bind_receive_call("test.wrapped", SAMPMsgReplierWrapper(client)(lambda key, sender, *rest: {}))
    client.bind_receive_call("test.raises", fail)
    client.bind_receive_call("test.wrapped-raises", SAMPMsgReplierWrapper(client)(lambda a, b, c, d, e, f: fail()))
    client.bind_receive_notification("test.unbound", fail)

    @SAMPMsgReplierWrapper(client)
    def replies_itself(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        client.ereply(msg_id, "samp.ok", result={})

    def replies_and_raises(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        client.ereply(msg_id, "samp.ok", result={})
        raise ValueError("too late")

    client.bind_receive_call("test.replies", replies_itself)
    client.bind_receive_call("test.replies-raises", replies_and_raises)


#: The status of the reply for each handler of `bind_all`, and for the ping, to which the package itself replies.
STATUSES = {
    "test.on": "samp.ok",
    "test.five": "samp.ok",
    "test.wrapped": "samp.ok",
    "test.raises": "samp.error",
    "test.wrapped-raises": "samp.error",
    "test.unbound": "samp.error",
    "test.replies": "samp.ok",
    "test.replies-raises": "samp.ok",
    "samp.app.ping": "samp.ok",
}


@pytest.mark.parametrize("dispatched", [False, True])
def test_the_same_id_again(join: Connect, deliveries: Deliver, dispatched: bool) -> None:
    """Each delivery gets one reply, from each kind of handler and from the package itself, with both profiles."""
    jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
    options = {"dispatch": jobs.put} if dispatched else {}
    client = join("Bob", **options)
    bind_all(client)
    hub = deliveries(client)
    window = threading.Thread(target=lambda: [job() for job in iter(jobs.get, None)])
    window.start()
    try:
        for mtype, status in STATUSES.items():
            for _ in range(3):
                hub.deliver(mtype)
                assert hub.statuses() == [status], mtype
    finally:
        jobs.put(None)
        window.join(10)


def test_incoming_with_the_same_id_again(join: Connect, deliveries: Deliver) -> None:
    """A queue of `incoming` replies once to each delivery."""
    client = join("Bob")
    hub = deliveries(client)
    with client.incoming("test.*") as incoming:
        for number in range(3):
            hub.deliver("test.x", n=str(number))
            assert hub.statuses() == ["samp.ok"]
            assert incoming.get(10) == {"n": str(number)}


@pytest.mark.parametrize("replying", ["1", "2"])
def test_two_open_calls_with_the_same_id(join: Connect, deliveries: Deliver, replying: str) -> None:
    """
    Two open calls with the same id: each gets its own reply.

    One handler replies and then raises, the other only raises: each of the calls gets one reply.
    """
    client = join("Bob")
    hub = deliveries(client)
    started = {"1": threading.Event(), "2": threading.Event()}
    both = threading.Barrier(2)

    def handler(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        started[params["n"]].set()
        both.wait(10)
        if params["n"] == replying:
            client.ereply(msg_id, "samp.ok", result={})
            both.wait(10)
        else:
            both.wait(10)
            raise ValueError("no")
        raise ValueError("too late")

    client.bind_receive_call("test.x", handler)
    for number, event in started.items():
        hub.deliver_in_thread("test.x", n=number)
        assert event.wait(10)
        if number == "1":
            assert hub.statuses() == []
    hub.close()
    own, automatic = hub.responses()
    assert own["samp.status"] == "samp.ok"
    assert automatic["samp.error"] == {"samp.errortxt": "no"}


@pytest.mark.parametrize("wrapped", [False, True])
def test_reply_from_another_thread(join: Connect, deliveries: Deliver, wrapped: bool) -> None:
    """If a handler replies from another thread, as programs with a window do, there is no second reply."""
    client = join("Bob")
    hub = deliveries(client)

    def handler(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        helper = threading.Thread(target=client.ereply, args=(msg_id, "samp.ok", {}))
        helper.start()
        helper.join(10)
        raise ValueError("too late")

    client.bind_receive_call("test.x", SAMPMsgReplierWrapper(client)(handler) if wrapped else handler)
    for _ in range(2):
        hub.deliver("test.x")
        assert hub.statuses() == ["samp.ok"]


def test_late_reply_belongs_to_the_earlier_call(join: Connect, deliveries: Deliver) -> None:
    """A reply after the handler has returned is not taken for the reply to the next call with the same id."""
    client = join("Bob")
    hub = deliveries(client)
    started, late = threading.Event(), threading.Event()

    def handler(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        if params["n"] == "2":
            started.set()
            assert late.wait(10)
            raise ValueError("no")

    client.bind_receive_call("test.x", handler)
    hub.deliver("test.x", n="1")
    second = hub.deliver_in_thread("test.x", n="2")
    assert started.wait(10)
    client.ereply(ID, "samp.ok", result={})
    assert hub.statuses() == ["samp.ok"]
    late.set()
    second.join(10)
    assert hub.statuses() == ["samp.error"]


def test_reply_that_fails_does_not_count(join: Connect, deliveries: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that the hub rejects does not count: the caller gets an error response."""
    client = join("Bob")
    hub = deliveries(client)
    record = client.hub._call
    rejections = iter([True, False])

    def reject(operation: str, /, **params: Any) -> Any:
        if next(rejections):
            raise SAMPProxyError(1, "not ASCII")
        return record(operation, **params)

    monkeypatch.setattr(client.hub, "_call", reject)

    def handler(key: str, sender: str, msg_id: str, *_: Any) -> None:
        client.ereply(msg_id, "samp.ok", result={})

    client.bind_receive_call("test.x", lambda a, b, msg_id, d, e, f: handler(a, b, msg_id), declare=False)
    hub.deliver("test.x")
    assert hub.statuses() == ["samp.error"]


def test_wrapper_without_a_delivery(join: Connect, deliveries: Deliver) -> None:
    """A program may call a wrapped handler itself, from its own `receive_call`."""
    client = join("Bob")
    hub = deliveries(client)

    def replies(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        client.ereply(msg_id, "samp.ok", result={})

    for function in (replies, lambda key, sender, mtype, params, extra: {}):
        handler = SAMPMsgReplierWrapper(client)(function)
        for _ in range(2):
            handler(client.get_private_key(), "c9", ID, "test.x", {}, {})
            assert hub.statuses() == ["samp.ok"]


def test_a_full_queue(
    make_hub: Callable[..., SAMPHubServer], connect: Connect, deliveries: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of the Web Profile that is rejected because the queue is full is not taken for an open call."""
    web_hub = make_hub(web_profile=True, web_profile_dialog=lambda *_: True)
    client = connect("Bob", how={"hub": web_hub, "web": True})
    hub = deliveries(client)
    started, rejected = threading.Event(), threading.Event()

    def handler(key: str, sender: str, mtype: str, params: Any, extra: Any) -> None:
        started.set()
        assert rejected.wait(10)

    client.bind_receive_call("test.x", handler)
    hub.deliver_in_thread("test.x")
    assert started.wait(10)
    monkeypatch.setattr(callback_server, "MAX_WAITING", -1)
    receiver: Any = client.client._cleanup.receiver
    params = ["c9", ID, {"samp.mtype": "test.x", "samp.params": {}}]
    receiver._enqueue(client.get_private_key(), {"samp.methodName": "receiveCall", "samp.params": params})
    assert hub.statuses() == ["samp.error"]
    rejected.set()
    hub.close()
    assert hub.statuses() == ["samp.ok"]


def test_calls_without_a_reply_are_forgotten() -> None:
    """Handlers that never reply use bounded memory. Each registration has its own calls."""
    calls = ReceivedCalls()
    for number in range(2 * MAX_OPEN):
        calls.add("key", str(number))
    assert len(calls._open) == MAX_OPEN
    last = str(2 * MAX_OPEN - 1)
    assert calls.claim("another key", last) is None
    assert len(calls._open) == MAX_OPEN
    call = calls.claim("key", last)
    assert call is not None
    assert len(calls._open) == MAX_OPEN - 1
    assert calls.claim("key", last) is None
    calls.release(call)
    assert calls.claim("key", last) is call


def test_a_reused_thread_identifier() -> None:
    """A new thread is not taken for an ended thread of an event loop that had the same identifier."""
    jobs: queue.Queue[Callable[[], None]] = queue.Queue()
    executor = HandlerExecutor(jobs.put)
    waiting = threading.Thread(target=executor.run, args=(lambda: None,))
    waiting.start()
    window = threading.Thread(target=jobs.get(timeout=10))
    window.start()
    window.join(10)
    waiting.join(10)
    executor._dispatch = lambda job: executor.cancel_pending()  # the window was closed
    rejected: list[bool] = []

    def run_again() -> None:
        if threading.get_ident() == window.ident:
            try:
                executor.run(lambda: None)
            except SAMPClientError:
                rejected.append(True)
            else:
                rejected.append(False)

    # The system reuses the identifiers of ended threads; these threads use them all
    checked = threading.Barrier(100)
    threads = [threading.Thread(target=lambda: (run_again(), checked.wait(20))) for _ in range(checked.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    if not rejected:
        pytest.skip("no thread got the identifier of the one that had ended")
    assert rejected == [True]
