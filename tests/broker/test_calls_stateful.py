"""In any order of events, each call ends exactly once, and no pending call remains (R21, R23)."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from pyvo.samp.broker import Broker, Client, Delivery, EncodedMessage, PendingCall
from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.protocol import ok_response

from .clockwork import Clock, ListQueue

MTYPES = ["a.b", "a.c", "d"]
PATTERNS = ["*", "a.*", "a.b", "d"]


class Calls(RuleBasedStateMachine):
    """Clients register, subscribe, call, reply, fail and unregister."""

    clients: Bundle[tuple[Client, ListQueue]] = Bundle("clients")
    deliveries: Bundle[tuple[Client, Delivery]] = Bundle("deliveries")
    waiting: Bundle[tuple[PendingCall, list[EncodedMessage]]] = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker(Clock())
        self.alive: dict[str, tuple[Client, ListQueue]] = {}
        self.ended: Counter[str] = Counter()  # number of responses for each msg-id
        self.open: set[str] = set()
        self.waits: list[tuple[str, list[EncodedMessage]]] = []
        self.tags: dict[str, str] = {}  # tag -> msg-id: each tag is used once here

    @rule(target=clients, patterns=st.sets(st.sampled_from(PATTERNS)))
    def register(self, patterns: set[str]) -> tuple[Client, ListQueue]:
        client = self.broker.register("standard")
        queue = ListQueue()
        self.broker.set_callable(client, True, queue)
        self.broker.declare_subscriptions(client, {key: {} for key in patterns})
        self.alive[client.client_id] = client, queue
        return client, queue

    @rule(client=clients, patterns=st.sets(st.sampled_from(PATTERNS)))
    def subscribe(self, client: tuple[Client, ListQueue], patterns: set[str]) -> None:
        if client[0].is_active:
            self.broker.declare_subscriptions(client[0], {key: {} for key in patterns})

    @rule(entry=consumes(clients), by_hub=st.booleans())
    def unregister(self, entry: tuple[Client, ListQueue], by_hub: bool) -> None:
        client, queue = entry
        self.count_responses()
        for msg_id in list(client.pending_received):
            self.open.discard(msg_id)
        for msg_id in list(client.pending_sent):
            self.open.discard(msg_id)
        del self.alive[client.client_id]
        if by_hub:
            self.broker.disconnect(client, "out")
        else:
            self.broker.unregister(client)
        assert queue.closed

    @rule(target=deliveries, sender=clients, mtype=st.sampled_from(MTYPES))
    def call_all(self, sender: tuple[Client, ListQueue], mtype: str) -> object:
        message = EncodedMessage.message({"samp.mtype": mtype})
        tag = f"tag{len(self.tags)}"
        wanted = set(self.broker.get_subscribed_clients(sender[0], mtype))
        ids = self.broker.call_all(sender[0], tag, message)
        assert set(ids) == wanted
        made = []
        for client_id, msg_id in ids.items():
            assert isinstance(msg_id, str)
            client, queue = self.alive[client_id]
            delivery = queue.received[-1]
            assert (delivery.kind, delivery.tag, delivery.body) == ("receiveCall", msg_id, message)
            made.append((client, delivery))
            self.open.add(msg_id)
            self.tags[f"{tag}/{client_id}"] = msg_id
        return multiple(*made)

    @rule(target=waiting, sender=clients, recipient=clients, mtype=st.sampled_from(MTYPES))
    def call_and_wait(
        self, sender: tuple[Client, ListQueue], recipient: tuple[Client, ListQueue], mtype: str
    ) -> object:
        responses: list[EncodedMessage] = []
        message = EncodedMessage.message({"samp.mtype": mtype})
        try:
            call = self.broker.call_and_wait(sender[0], recipient[0].client_id, message, responses.append)
        except SAMPProxyError:
            return multiple()
        self.open.add(call.msg_id)
        self.waits.append((call.msg_id, responses))
        return call, responses

    @rule(pair=deliveries, fails=st.booleans())
    def send_reply(self, pair: tuple[Client, Delivery], fails: bool) -> None:
        client, delivery = pair
        assert delivery.tag is not None
        was_open = delivery.tag in self.open
        self.open.discard(delivery.tag)
        if fails:
            self.broker.delivery_failed(delivery, "failed")
            return
        try:
            self.broker.reply(client, delivery.tag, EncodedMessage.response(ok_response()))
            assert was_open
        except SAMPProxyError:
            assert not was_open

    @rule(pair=deliveries, client=clients)
    def reply_of_another_client(self, pair: tuple[Client, Delivery], client: tuple[Client, ListQueue]) -> None:
        if client[0] is not pair[0]:
            try:
                self.broker.reply(client[0], str(pair[1].tag), EncodedMessage.response(ok_response()))
            except SAMPProxyError:
                return
            raise AssertionError("only the recipient may reply")

    @rule(pair=waiting)
    def cancel(self, pair: tuple[PendingCall, list[EncodedMessage]]) -> None:
        call, _responses = pair
        assert self.broker.cancel_call(call) == (call.msg_id in self.open)
        self.open.discard(call.msg_id)

    @rule(pair=waiting)
    def reply_to_waiting_call(self, pair: tuple[PendingCall, list[EncodedMessage]]) -> None:
        call, responses = pair
        before = len(responses)
        try:
            self.broker.reply(call.recipient, call.msg_id, EncodedMessage.response(ok_response()))
            assert call.msg_id in self.open
            assert len(responses) == before + 1 == 1
        except SAMPProxyError:
            assert call.msg_id not in self.open
        self.open.discard(call.msg_id)

    def count_responses(self) -> None:
        """Count the responses that have arrived."""
        for client_id, (_, queue) in self.alive.items():
            for delivery in queue.pop_received():
                assert delivery.recipient_id == client_id
                if delivery.kind == "receiveResponse":
                    self.ended[self.tags[f"{delivery.tag}/{delivery.sender_id}"]] += 1

    @invariant()
    def calls_end_once_and_open_calls_are_pending(self) -> None:
        self.count_responses()
        assert all(number == 1 for number in self.ended.values())
        assert not self.open & set(self.ended)
        assert all(len(responses) <= 1 for _, responses in self.waits)
        received = [msg_id for client, _ in self.alive.values() for msg_id in client.pending_received]
        sent = [msg_id for client, _ in self.alive.values() for msg_id in client.pending_sent]
        assert sorted(received) == sorted(sent) == sorted(self.open)

    @invariant()
    def listings_agree(self) -> None:
        if not self.alive:
            return
        client, _ = next(iter(self.alive.values()))
        others = set(self.alive) - {client.client_id}
        assert set(map(str, self.broker.get_registered_clients(client))) == others | {"hub"}
        for mtype in MTYPES:
            expected = {
                each for each in others if set(self.alive[each][0].subscriptions) & {"*", mtype, f"{mtype[0]}.*"}
            }
            if "." not in mtype:
                expected = {each for each in others if set(self.alive[each][0].subscriptions) & {"*", mtype}}
            assert set(self.broker.get_subscribed_clients(client, mtype)) == expected


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
