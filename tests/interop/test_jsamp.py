# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""JSAMP, the reference implementation: its test programs with our hub, and its hub with our clients."""
from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyvo.samp import AsyncSAMPClient, SAMPHubServer, SAMPIntegratedClient, SAMPProxyError
from pyvo.samp.utils import SAMPMsgReplierWrapper

from ..client.derived_families import FAMILIES, check_disconnect, check_messages
from .conftest import Run
from .network import own_network
from .programs import Program, wait_for_hub
from .recorder import Recorder

Connect = Callable[..., SAMPIntegratedClient]

#: Numbers in the parameters arrive as the strings of R3.
NUMBERS = {"count": 3, "ratio": 0.25, "tiny": 1e-5, "flag": True, "row": np.int64(7), "rows": (1, {"a": [False]})}
STRINGS = {"count": "3", "ratio": "0.25", "tiny": "0.00001", "flag": "1", "row": "7", "rows": ["1", {"a": ["0"]}]}


@pytest.mark.timeout(120)
def test_hubtester_finds_nothing_wrong_with_our_hub(hub: SAMPHubServer, run: Run) -> None:
    """Rules R6 to R32, as the reference implementation understands them."""
    tester = run("jsamp", "hubtester")
    assert tester.finish(100) == 0, tester.output
    assert "Exception" not in tester.output, tester.output


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["sync", "async", "notify", "random"])
def test_calcstorm_loses_no_message_at_our_hub(hub: SAMPHubServer, run: Run, mode: str) -> None:
    """Each of twenty clients sends a hundred calls to the others (R18, R20, R24)."""
    storm = run("jsamp", "calcstorm", "-nclient", "20", "-nquery", "100", "-mode", mode)
    assert storm.finish(100) == 0, storm.output
    assert "Exception" not in storm.output, storm.output


@pytest.mark.timeout(60)
def test_our_clients_register_and_declare_at_jsamps_hub(jsamp_hub: Program, connect: Connect) -> None:
    """Registration, metadata and subscriptions (R6, R11, R12, R14)."""
    one, two = connect("one", **{"author.name": "A. Tester"}), connect("two")
    one_id, two_id = one.get_public_id(), two.get_public_id()

    assert one.ping() is not None
    assert {two_id, "hub"} <= set(one.get_registered_clients())
    metadata = two.get_metadata(one_id)
    assert metadata["samp.name"] == "one"
    assert metadata["samp.description.text"] == "a test"
    assert metadata["author.name"] == "A. Tester"

    two.bind_receive_call("x-test.*", lambda *_: None, metadata={"x-test.note": "yes"})
    assert one.get_subscriptions(two_id)["x-test.*"] == {"x-test.note": "yes"}
    assert one.get_subscribed_clients("x-test.any") == {two_id: {"x-test.note": "yes"}}
    two.unbind_receive_call("x-test.*")
    assert one.get_subscribed_clients("x-test.any") == {}

    two.disconnect()
    assert two_id not in one.get_registered_clients()


@pytest.mark.timeout(60)
def test_every_operation_at_jsamps_hub(jsamp_hub: Program, connect: Connect, run: Run) -> None:
    """
    Our clients send with every operation of R18 and numbers in the parameters (R4); JSAMP's snooper shows the
    messages.
    """
    snooper = run("jsamp", "snooper")
    sender, receiver = connect("sender"), connect("receiver")
    me, you = sender.get_public_id(), receiver.get_public_id()
    third = sender.wait_for("Snooper", 60, "x-test.any").id
    received = Recorder(receiver, "x-test.*")
    responses = Recorder(sender, "x-response")

    sender.enotify(you, "x-test.notify", **NUMBERS)
    assert sorted(sender.enotify_all("x-test.notify-all", **NUMBERS)) == sorted([you, third])
    sender.ecall(you, "tag", "x-test.call", **NUMBERS)
    assert set(sender.ecall_all("tag", "x-test.call-all", **NUMBERS)) == {you, third}
    response = sender.ecall_and_wait(you, "x-test.call-and-wait", 20, **NUMBERS)
    assert response == {"samp.status": "samp.ok", "samp.result": {"echo": STRINGS}}

    deliveries = received.wait(5)
    # JSAMP's hub does not keep the order of messages.
    assert sorted((one.kind, one.name) for one in deliveries) == [
        ("call", "x-test.call"), ("call", "x-test.call-all"), ("call", "x-test.call-and-wait"),
        ("notification", "x-test.notify"), ("notification", "x-test.notify-all"),
    ]
    assert all(one.sender == me and one.content == STRINGS for one in deliveries)

    # Two responses from the receiver, which uses `reply`, and one from the snooper.
    found = responses.wait(3)
    assert [one.sender for one in found].count(you) == 2
    assert all(one.content["samp.result"] == {"echo": STRINGS} for one in found if one.sender == you)
    assert {one.content["samp.status"] for one in found if one.sender == third} <= {"samp.ok", "samp.warning"}

    snooper.wait_for("x-test.call-all")
    snooper.wait_for('"ratio": "0.25"')


class Caller:
    """Makes calls with one tag, and waits for the responses."""

    def __init__(self, client: SAMPIntegratedClient, tag: str = "tag") -> None:
        self._client, self._tag = client, tag
        self.responses: queue.Queue[dict[str, Any]] = queue.Queue()
        client.bind_receive_response(tag, lambda _key, _responder, _tag, response: self.responses.put(response))

    def call(self, recipient: str, mtype: str, **params: Any) -> str:
        return self._client.ecall(recipient, self._tag, mtype, **params)

    def response(self) -> dict[str, Any]:
        return self.responses.get(timeout=10)


@pytest.mark.timeout(60)
def test_jsamps_hub_repeats_msg_ids(jsamp_hub: Program, connect: Connect) -> None:
    """Each call gets one response, although JSAMP's hub gives all calls with one tag the same msg-id (R20, R21)."""
    sender, receiver = connect("sender"), connect("receiver")
    you = receiver.get_public_id()
    receiver.on("x-test.on")(lambda params: params)
    wrapped = SAMPMsgReplierWrapper(receiver)(lambda key, sender, mtype, params, extra: params)
    receiver.bind_receive_call("x-test.wrapped", wrapped)
    caller = Caller(sender)
    ids = set()
    for mtype in ("x-test.on", "x-test.wrapped", "samp.app.ping", "x-test.on"):
        for _ in range(3):
            ids.add(caller.call(you, mtype))
            assert caller.response()["samp.status"] == "samp.ok"
    assert len(ids) == 1  # otherwise the hub does not repeat msg-ids, and this test is useless

    async def main() -> None:
        async with AsyncSAMPClient(name="async") as client:
            @client.on("x-test.async")
            async def echo(n: str) -> dict[str, str]:
                return {"n": n}

            await asyncio.to_thread(lambda: [call_and_check(client.get_public_id(), n) for n in range(3)])

    def call_and_check(recipient: str, number: int) -> None:
        caller.call(recipient, "x-test.async", n=number)
        assert caller.response() == {"samp.status": "samp.ok", "samp.result": {"n": str(number)}}

    asyncio.run(main())
    assert caller.responses.empty()


@pytest.mark.timeout(60)
def test_two_pending_calls_with_the_same_msg_id(jsamp_hub: Program, connect: Connect) -> None:
    """JSAMP's hub passes on every reply with this msg-id. Two calls must get two responses, and no more."""
    sender, receiver = connect("sender"), connect("receiver")
    both = threading.Barrier(2)

    def handler(key: str, sender_id: str, msg_id: str, mtype: str, params: dict[str, str], extra: object) -> None:
        both.wait(10)
        if params["n"] == "1":
            receiver.ereply(msg_id, "samp.ok", result=params)
        both.wait(10)
        raise ValueError(params["n"])

    receiver.bind_receive_call("x-test.open", handler)
    caller = Caller(sender)
    ids = [caller.call(receiver.get_public_id(), "x-test.open", n=n) for n in (1, 2)]
    assert ids[0] == ids[1]
    responses = [caller.response() for _ in ids]
    assert sorted(one["samp.status"] for one in responses) == ["samp.error", "samp.ok"]
    caller.call(receiver.get_public_id(), "samp.app.ping")
    caller.response()
    assert caller.responses.empty()


@pytest.fixture
def jsamp_web_hub(home: Path, run: Run) -> Iterator[Program]:
    """JSAMP's hub with both profiles and without consent requests, in a network in which its port is free."""
    with own_network():
        options = ("-web:auth", "true", "-web:norestrictmtypes")
        program = run("jsamp", "hub", "-mode", "no-gui", "-profiles", "std,web", *options)
        wait_for_hub(home)
        yield program


@pytest.mark.timeout(120)
@pytest.mark.parametrize("family", FAMILIES)
def test_derived_classes_with_jsamps_hub(
    jsamp_web_hub: Program, connect: Connect, family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Programs derive classes from ours, for either profile. Their clients send, receive, disconnect and connect
    again.
    """
    monkeypatch.setenv("SAMP_TEST", "a value")
    plain, derived = connect("plain"), family()
    try:
        for _ in range(2):
            derived.connect()
            check_messages(derived, plain)
            check_disconnect(derived, plain)
    finally:
        derived.disconnect()
    silent = family(receives=False)
    silent.connect()
    try:
        assert silent.ecall_and_wait("plain", "x-test.echo", 10, n=1)["samp.result"] == {"n": "1"}
    finally:
        silent.disconnect()


@pytest.mark.timeout(120)
def test_repeated_msg_ids_in_the_web_profile(jsamp_web_hub: Program, connect: Connect) -> None:
    """JSAMP's hub repeats msg-ids to clients of the Web Profile, too. Our client replies to each call once."""
    sender, web = connect("sender"), SAMPIntegratedClient(name="web")
    web.on("x-test.on")(lambda params: params)
    wrapped = SAMPMsgReplierWrapper(web)(lambda key, sender_id, mtype, params, extra: params)
    web.bind_receive_call("x-test.wrapped", wrapped)
    web.connect(web=True)
    try:
        caller, ids = Caller(sender), set()
        for mtype in ("x-test.on", "x-test.wrapped", "samp.app.ping"):
            for _ in range(3):
                ids.add(caller.call(str(web.get_public_id()), mtype))
                assert caller.response()["samp.status"] == "samp.ok"
        assert len(ids) == 1
        assert caller.responses.empty()
    finally:
        web.disconnect()


@pytest.mark.timeout(60)
def test_a_fault_of_jsamps_hub_is_an_error(jsamp_hub: Program, connect: Connect) -> None:
    """The fault becomes a `SAMPProxyError` with its text (R19)."""
    sender, receiver = connect("sender"), connect("receiver")
    with pytest.raises(SAMPProxyError, match=r"subscri"):
        sender.enotify(receiver.get_public_id(), "x-nobody.wants")
    with pytest.raises(SAMPProxyError):
        sender.get_metadata("nobody")


@pytest.mark.timeout(60)
def test_jsamps_message_sender_reaches_our_client(hub: SAMPHubServer, connect: Connect, run: Run) -> None:
    """JSAMP's client sends in each of its three modes through our hub to our client."""
    receiver = connect("receiver")
    received = Recorder(receiver, "x-test.*")
    target = ("-targetname", "receiver")
    for already, mode in enumerate(("sync", "async", "notify")):
        mtype = f"x-test.{mode}"
        sender = run("jsamp", "messagesender", "-mtype", mtype, "-mode", mode, "-param", "ra", "83.6", *target)
        assert sender.finish(30) == 0, sender.output
        delivery = received.wait(already + 1)[-1]
        assert delivery.name == mtype
        assert (delivery.kind, delivery.content) == ("notification" if mode == "notify" else "call", {"ra": "83.6"})
        if mode != "notify":
            assert "samp.ok" in sender.output
