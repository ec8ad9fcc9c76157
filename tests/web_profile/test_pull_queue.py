# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The mailbox that is pulled, without sockets."""

from __future__ import annotations

import pytest

from pyvo.samp.broker import Delivery, EncodedMessage
from pyvo.samp.transport.xmlrpc_reader import read_response
from pyvo.samp.transport.xmlrpc_writer import write_response
from pyvo.samp.web_profile import pull_queue
from pyvo.samp.web_profile.pull_queue import DISCONNECT_TIMEOUT, IDLE_TIMEOUT, QUICK_CLOSE, Pull, PullLimiter, PullQueue

from .doubles import FakeConnection, FakeLoop


def notification(number: int, size: int = 0) -> Delivery:
    message = {"samp.mtype": "x.y", "samp.params": {"n": str(number), "pad": "x" * size}}
    return Delivery("receiveNotification", "c1", "key", "c2", None, EncodedMessage(message, None, "standard"))


class RecordingQueue(PullQueue):
    """A queue that records what it reports."""

    def __init__(self, loop: FakeLoop, limiter: PullLimiter) -> None:
        super().__init__(loop, limiter)
        self.gone: list[str] = []
        self.overflow: list[str] = []
        self.seen: list[Delivery] = []
        self.on_gone = self.gone.append
        self.on_overflow = self.overflow.append
        self.on_delivery = self.seen.append


class FakeClient:
    """A web client: its queue, and its pulls as the transport makes them."""

    def __init__(self, other: FakeClient | None = None) -> None:
        self.loop = other.loop if other else FakeLoop()
        self.limiter = other.limiter if other else PullLimiter(self.loop)
        self.queue = RecordingQueue(self.loop, self.limiter)
        self.gone, self.overflow, self.seen = self.queue.gone, self.queue.overflow, self.queue.seen

    def pull(self, timeout: float = 600, *, sent: bool = True, left: bool = True, browser: str = "") -> Pull:
        """Pull. A response that is not ``sent``: the page has closed the connection, or the hub has (``left`` False)."""
        pull = Pull(FakeConnection(), browser)
        response = self.queue.pull(pull, timeout)

        def write(_response):
            if not sent:
                pull.connection.closed = True
                pull.connection.was_left = left
            if response.on_sent is not None:
                response.on_sent(sent)

        response.add_done_callback(write)
        return pull

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.queue.put(notification(number))
        self.loop.run()

    def lose(self, pull: Pull) -> None:
        """What the transport does when the connection of a waiting pull breaks."""
        pull.connection.closed = pull.connection.was_left = True
        pull.response.cancel()


def numbers(pull: Pull) -> list[int] | str:
    """What a pull was answered with; its state if it was not."""
    if pull.response.state != "done":
        return pull.response.state
    result = pull.response.result()
    callbacks = read_response(write_response(result))
    return [int(callback["samp.params"][-1]["samp.params"]["n"]) for callback in callbacks]


@pytest.fixture
def client():
    return FakeClient()


def test_what_waits_is_handed_over_at_once(client):
    """R42."""
    client.put(1, 2, 3)
    assert numbers(client.pull()) == [1, 2, 3]
    assert not client.queue._queue


def test_a_pull_waits_until_something_comes(client):
    """R42."""
    pull = client.pull()
    client.loop.run(300)
    assert numbers(pull) == "waiting"
    client.put(1)
    assert numbers(pull) == [1]


def test_what_comes_in_one_moment_comes_in_one_answer(client):
    pull = client.pull()
    client.put(*range(200))
    assert numbers(pull) == list(range(200))


def test_a_pull_ends_with_an_empty_list(client):
    """R42."""
    pull = client.pull(5)
    client.loop.run(4.9)
    assert numbers(pull) == "waiting"
    client.loop.run(0.2)
    assert numbers(pull) == []


def test_who_closes_before_the_answer_is_written_has_not_read_it(client):
    """R42: whenever it is found out in which order that happened."""
    client.put(1)
    pull = Pull(FakeConnection())
    looks = iter([True])
    pull.connection.peer_is_open = lambda: next(looks, False)  # it closes between the look at it and the writing
    answer = client.queue.pull(pull, 600)
    answer.add_done_callback(lambda _: answer.on_sent(True))
    pull.connection.closed = pull.connection.was_reset = True
    pull.connection.on_closed()
    assert numbers(client.pull()) == [1]


@pytest.mark.parametrize("timeout", [0, -3])
def test_a_pull_without_time_does_not_wait(client, timeout):
    assert numbers(client.pull(timeout)) == []


def test_an_idle_pull_costs_nothing(client):
    """R42: one timer, and nothing that runs."""
    client.pull()
    assert client.loop.active == 1
    assert not client.loop.ready


def test_the_form_of_callbacks(client):
    """R42: method names without a prefix; parameters without the key."""
    message = {"samp.mtype": "x.y", "samp.params": {"a": "\u00e9<&"}}
    response = {"samp.status": "samp.ok", "samp.result": {}}
    client.queue.put(Delivery("receiveNotification", "c1", "key", "c2", None, EncodedMessage(message)))
    client.queue.put(Delivery("receiveCall", "c1", "key", "c2", "id&1", EncodedMessage(message)))
    client.queue.put(Delivery("receiveResponse", "c1", "key", "c2", "tag", EncodedMessage(response)))
    client.loop.run()
    written = write_response(client.pull().response.result())
    assert read_response(written) == [
        {"samp.methodName": "receiveNotification", "samp.params": ["c2", message]},
        {"samp.methodName": "receiveCall", "samp.params": ["c2", "id&1", message]},
        {"samp.methodName": "receiveResponse", "samp.params": ["c2", "tag", response]},
    ]
    assert b"key" not in written


def test_several_pulls_share_without_doubling(client):
    first, second = client.pull(), client.pull()
    client.put(1)
    client.put(2)
    assert (numbers(first), numbers(second)) == ([1], [2])
    client.put(3)
    assert numbers(client.pull()) == [3]


def test_a_pull_that_finds_another_one_served_first_ends_in_its_time(client):
    first = client.pull()
    client.queue.put(notification(1))
    client.loop.ready.popleft()[0](notification(1))  # taken, and not handed over yet
    second = client.pull(5)
    assert (numbers(first), numbers(second)) == ([1], "waiting")
    client.loop.run(6)
    assert numbers(second) == []


def test_a_pull_whose_connection_broke_loses_nothing(client):
    client.lose(client.pull())
    client.put(1, 2)
    assert numbers(client.pull()) == [1, 2]


def test_a_connection_that_broke_unnoticed_loses_nothing(client):
    """The kernel knows, the loop has yet to come to it."""
    pull = client.pull()
    pull.connection.left = True
    client.put(1)
    assert numbers(pull) == "cancelled"
    assert numbers(client.pull()) == [1]


def test_another_pull_takes_over_from_one_that_broke(client):
    broken, good = client.pull(), client.pull()
    broken.connection.left = True
    client.put(1)
    assert numbers(good) == [1]


def test_an_answer_that_could_not_be_written_goes_back_to_the_front(client):
    client.pull(sent=False)
    client.put(1, 2)
    client.put(3)
    assert numbers(client.pull()) == [1, 2, 3]


def test_an_answer_that_was_thrown_away_unread_goes_back_to_the_front(client):
    pull = client.pull()
    client.put(1, 2)
    client.put(3)
    pull.connection.closed = pull.connection.was_reset = True
    assert numbers(client.pull()) == [1, 2, 3]


def test_an_answer_that_was_read_is_not_given_again(client):
    """JSAMP closes its connection after each answer."""
    pull = client.pull()
    client.put(1)
    pull.connection.close()
    assert numbers(client.pull(0)) == []


def lose_answer(pull: Pull) -> None:
    """What the transport does when the other side resets the connection with the answer unread."""
    pull.connection.was_reset = True
    pull.connection.close()


def test_an_answer_that_was_thrown_away_goes_to_the_pull_that_waits(client):
    """R42: without waiting for the next one."""
    first, second = client.pull(), client.pull()
    client.put(1)
    lose_answer(first)
    assert numbers(second) == [1]


def test_each_answer_that_was_thrown_away_unread_is_given_again(client):
    """R42: several pulls at once, and not the last of them breaks."""
    first, second, third = client.pull(), client.pull(), client.pull()
    for number in (1, 2, 3):
        client.put(number)
    third.connection.requests += 1  # it has come back with another request, so that it was read
    lose_answer(third)
    lose_answer(second)
    first.connection.left = first.connection.was_reset = True  # which the loop has yet to notice
    assert numbers(client.pull()) == [1, 2]


def test_an_answer_before_another_request_of_its_connection_was_read(client):
    """R42: what was reset unread is the answer to that request."""
    pull = client.pull()
    client.put(1)
    pull.connection.requests += 1
    lose_answer(pull)
    assert numbers(client.pull(0)) == []


def test_few_answers_are_kept_for_the_case_that_they_were_not_read(client):
    pulls = [client.pull() for _ in range(20)]
    for number in range(20):
        client.put(number)
    assert sum(bool(pull.batch) for pull in pulls) == len(client.queue._unconfirmed) == 6
    for pull in pulls:
        pull.connection.requests += 1
    client.pull()
    assert not any(pull.batch for pull in pulls)
    assert client.queue._unconfirmed == []


def test_a_large_queue_is_handed_over_in_pieces(client, monkeypatch):
    monkeypatch.setattr(pull_queue, "MAX_RESPONSE", 10_000)
    for number in range(5):
        client.queue.put(notification(number, 6000))
    client.loop.run()
    got = [numbers(client.pull()) for _ in range(5)]
    assert got == [[0], [1], [2], [3], [4]]


def test_too_many_callbacks_are_an_overflow(client, monkeypatch):
    """R50."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED", 10)
    client.put(*range(12))
    assert client.overflow == ["10 messages were waiting to be pulled"]
    assert not client.queue._queue


def test_too_many_bytes_are_an_overflow(client, monkeypatch):
    """R50."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED_BYTES", 50_000)
    client.queue.put(notification(0, 60_000))  # a single one always has room
    client.loop.run()
    assert client.overflow == []
    client.put(1)
    assert len(client.overflow) == 1


def test_all_that_is_taken_is_seen(client):
    """R46: by whoever keeps account of the URLs in it."""
    client.put(1, 2)
    assert len(client.seen) == 2


# Gone pages (R43)


def test_a_page_whose_pull_broke_is_gone_after_the_grace_time(client):
    """R43."""
    client.lose(client.pull())
    client.loop.run(DISCONNECT_TIMEOUT - 0.1)
    assert client.gone == []
    client.loop.run(0.2)
    assert len(client.gone) == 1


def test_a_page_that_pulls_again_in_time_is_not_gone(client):
    """R43."""
    client.lose(client.pull())
    client.loop.run(DISCONNECT_TIMEOUT - 1)
    client.pull()
    client.loop.run(500)
    assert client.gone == []


def test_a_page_with_another_pull_is_not_gone(client):
    lost, _kept = client.pull(), client.pull()
    client.lose(lost)
    client.loop.run(300)
    assert client.gone == []


def test_a_page_whose_answer_was_thrown_away_unread_is_gone_after_the_grace_time(client):
    """R43: the tab was closed before it had read the answer."""
    pull = client.pull()
    client.put(1)
    lose_answer(pull)
    client.loop.run(DISCONNECT_TIMEOUT + 0.1)
    assert len(client.gone) == 1


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("closes", [False, True])
def test_a_page_that_is_held_up_between_two_pulls_stays_for_minutes(client, number, closes):
    """R43: it has broken nothing off, whether its last answer was empty, and whether its connection is kept."""
    pull = client.pull(1)
    client.put(*range(number))
    client.loop.run(2)
    if closes:
        pull.connection.close()
    client.put(7)
    client.loop.run(IDLE_TIMEOUT - 5)
    assert client.gone == []
    assert IDLE_TIMEOUT >= 180
    assert numbers(client.pull()) == [7]


def clock_of(client, monkeypatch):
    """Have the wall clock go with the loop."""
    monkeypatch.setattr(pull_queue.time, "time", lambda: client.loop.now)


@pytest.mark.parametrize(
    ("after", "requests", "is_gone"),
    [(0, 2, True), (QUICK_CLOSE - 1, 2, True), (QUICK_CLOSE + 1, 2, False), (0, 1, False)],
)
def test_a_browser_that_ends_between_two_pulls_is_noticed_soon(client, monkeypatch, after, requests, is_gone):
    """R43: it closes the connection of the page's last request, which it would keep for minutes otherwise."""
    clock_of(client, monkeypatch)
    pull = client.pull()
    pull.connection.requests = requests
    client.queue.mark_active(pull.connection)
    client.put(1)
    client.loop.run(after)
    pull.connection.close()
    client.loop.run(DISCONNECT_TIMEOUT + 0.1)
    assert bool(client.gone) is is_gone


def test_a_connection_that_the_hub_closes_says_nothing_of_the_page(client):
    """R43: it was asked to, or needs the room."""
    pull = client.pull()
    pull.connection.requests = 2
    client.queue.mark_active(pull.connection)
    client.put(1)
    pull.connection.closed = True
    pull.connection.on_closed()
    client.loop.run(DISCONNECT_TIMEOUT + 1)
    assert client.gone == []


def test_a_connection_that_another_tab_has_used_since_says_nothing_of_the_page(client):
    """R43: it was that one's request that was broken off."""
    pull = client.pull()
    pull.connection.requests = 2
    client.queue.mark_active(pull.connection)
    client.put(1)
    other = FakeClient(client)
    other.queue.mark_active(pull.connection)
    pull.connection.close()
    client.loop.run(DISCONNECT_TIMEOUT + 1)
    assert client.gone == []


def test_an_older_connection_of_the_page_says_nothing(client):
    """R43."""
    pull = client.pull()
    pull.connection.requests = 2
    client.queue.mark_active(pull.connection)
    client.put(1)
    client.queue.mark_active(FakeConnection())
    pull.connection.close()
    client.loop.run(DISCONNECT_TIMEOUT + 1)
    assert client.gone == []


def test_a_page_that_does_not_come_back_between_two_pulls_is_gone_in_the_end(client):
    """R43: it was closed in that moment, and nothing tells so."""
    client.pull()
    client.put(1)
    client.loop.run(IDLE_TIMEOUT - 1)
    assert client.gone == []
    client.loop.run(2)
    assert len(client.gone) == 1


def test_a_page_that_is_too_slow_for_an_answer_is_held_up(client):
    """R43: the hub has closed the connection, as the page did not read on; the page has broken nothing off."""
    client.pull(sent=False, left=False)
    client.put(1)
    client.loop.run(IDLE_TIMEOUT - 1)
    assert client.gone == []
    assert numbers(client.pull()) == [1]


@pytest.mark.parametrize("broken", [False, True])
def test_the_time_that_a_computer_sleeps_does_not_count(client, monkeypatch, broken):
    """R43: on some systems timers go on in that time, and are due when it wakes up; the wall clock tells of it."""
    monkeypatch.setattr(pull_queue.time, "time", lambda: client.loop.now + slept)
    slept = 0.0
    pull = client.pull(1)
    client.loop.run(0 if broken else 2)
    if broken:
        client.lose(pull)
    grace = DISCONNECT_TIMEOUT if broken else IDLE_TIMEOUT
    client.loop.run(grace - 2)
    slept = 3600.0
    client.loop.run(grace - 2)
    assert client.gone == []
    client.loop.run(5)
    assert len(client.gone) == 1


def test_a_page_that_is_held_up_is_not_silent(client):
    """Its silence has a time of its own, which the hub's ``client_timeout`` leaves alone."""
    assert not client.queue.has_waiting_pull
    client.pull()
    assert client.queue.has_waiting_pull
    client.put(1)
    assert client.queue.has_waiting_pull
    client.loop.run(IDLE_TIMEOUT + 1)
    assert not client.queue.has_waiting_pull


def test_a_page_that_has_to_make_room_has_time_to_come_back():
    """R43, R49: its next pull stands behind those of fifty other tabs."""
    client = FakeClient()
    waiting = [client.pull(browser="b"), *(FakeClient(client).pull(browser="b") for _ in range(49))]
    assert numbers(waiting[0]) == []
    while numbers(waiting[-5]) == "waiting":
        client.loop.run(0.25)
    client.pull(browser="b")
    client.loop.run(300)
    assert client.gone == []


def test_a_page_that_allows_callbacks_and_never_pulls_is_gone(client):
    """R43."""
    client.queue.expect_pull()
    client.loop.run(IDLE_TIMEOUT - 1)
    client.queue.mark_active()
    client.loop.run(IDLE_TIMEOUT - 1)
    assert client.gone == []
    client.loop.run(2)
    assert len(client.gone) == 1


def test_an_answer_that_failed_starts_the_grace_time(client):
    client.pull(sent=False)
    client.put(1)
    client.loop.run(DISCONNECT_TIMEOUT + 0.1)
    assert len(client.gone) == 1


def test_a_page_that_makes_other_requests_is_not_gone(client):
    client.lose(client.pull())
    for _ in range(3):
        client.loop.run(DISCONNECT_TIMEOUT - 1)
        client.queue.mark_active()
    assert client.gone == []


def test_a_page_that_was_killed_while_it_wrote_a_request_is_gone_soon(client):
    """R43: its last request may be read behind the end of its pull's connection."""
    client.lose(client.pull())
    client.queue.mark_active()
    client.loop.run(DISCONNECT_TIMEOUT + 1)
    assert len(client.gone) == 1


def test_a_page_that_has_left_before_the_loop_notices_is_gone_soon(client):
    """R43: the kernel knew of the end when there was something to hand over."""
    pull = client.pull()
    pull.connection.left = True
    client.put(1)
    pull.connection.close()
    client.loop.run(DISCONNECT_TIMEOUT + 1)
    assert len(client.gone) == 1


def test_a_page_that_never_pulls_is_left_alone_while_nothing_waits_for_it(client):
    """R43: a page that only sends is a client as good as any."""
    client.loop.run(100_000)
    assert client.gone == []
    client.put(1)
    client.loop.run(IDLE_TIMEOUT + 1)
    assert len(client.gone) == 1


def test_an_old_connection_that_closes_says_nothing_of_a_page_that_has_pulled_since(client):
    old = client.pull()
    client.put(1)
    client.pull()
    client.put(2)
    old.connection.close()
    client.loop.run(DISCONNECT_TIMEOUT + 1)
    assert client.gone == []


# The end


def test_a_waiting_pull_gets_the_farewell(client):
    """R26."""
    pull = client.pull()
    client.queue.close(notification(9))
    client.loop.run()
    assert numbers(pull) == [9]
    assert client.loop.active == 0


def test_closing_answers_all_pulls_and_drops_what_comes_later(client):
    first, second = client.pull(), client.pull()
    client.queue.close(None)
    client.put(1)
    assert (numbers(first), numbers(second)) == ([], [])
    assert numbers(client.pull()) == []
    assert client.loop.active == 0
    assert client.gone == []


def test_clearing_answers_pulls_and_tells_what_is_dropped(client):
    """R39: a client that allows callbacks no longer."""
    client.put(1, 2)
    assert [delivery.body.value["samp.params"]["n"] for delivery in client.queue.clear()] == ["1", "2"]
    pull = client.pull()
    assert client.queue.clear() == []
    assert numbers(pull) == []
    client.loop.run(1000)
    assert client.gone == []


# Eight tabs (R49)


def test_the_fifth_pull_of_a_browser_releases_the_oldest():
    """R49."""
    first = FakeClient()
    clients = [first, *(FakeClient(first) for _ in range(4))]
    pulls = [client.pull(browser="one") for client in clients]
    assert [numbers(pull) for pull in pulls] == [[], "waiting", "waiting", "waiting", "waiting"]
    other = clients[0].pull(browser="another")
    assert numbers(other) == "waiting"


def test_pulls_that_are_over_do_not_count():
    """R49."""
    client = FakeClient()
    for _ in range(20):
        client.lose(client.pull(browser="b"))
    first = client.pull(browser="b")
    for _ in range(3):
        client.pull(browser="b")
    assert numbers(first) == "waiting"


def test_programs_that_are_no_browsers_have_their_connections_for_themselves():
    """R49."""
    client = FakeClient()
    pulls = [client.pull() for _ in range(20)]
    client.limiter.prioritize("")
    client.loop.run(10)
    assert {numbers(pull) for pull in pulls} == {"waiting"}


class Tabs:
    """Tabs of one browser that pull again at once."""

    def __init__(self, number: int) -> None:
        self.client = FakeClient()
        self.answered = 0
        for _ in range(number):
            self._pull()

    def _pull(self) -> None:
        self.client.pull(browser="b").response.add_done_callback(self._pull_again)

    def _pull_again(self, _answer) -> None:
        self.answered += 1
        if self.answered < 1000:
            self.client.loop.call_soon(self._pull)


def test_tabs_that_pull_again_at_once_go_round_slowly():
    """R49: one connection gets free every quarter of a second, and nothing spins."""
    tabs = Tabs(8)
    tabs.client.loop.run(10)
    assert 35 <= tabs.answered <= 45


def test_tabs_go_round_fast_for_a_while_when_one_of_them_does_something():
    """R49: what another one wants to do may wait behind pulls, but the wait has an end, and so have the rounds."""
    tabs = Tabs(8)
    tabs.client.loop.run(10)
    before = tabs.answered
    tabs.client.limiter.prioritize("another browser")
    tabs.client.loop.run()
    assert tabs.answered == before
    tabs.client.limiter.prioritize("b")
    tabs.client.loop.run()
    assert tabs.answered - before == 16
    tabs.client.loop.run(10)
    assert tabs.answered - before <= 16 + 45


def test_what_comes_for_a_page_whose_pull_waits_in_the_browser_makes_room_for_it(client):
    """R49."""
    client.pull(browser="b")
    client.put(1)
    pulls = [FakeClient(client).pull(browser="b") for _ in range(7)]
    assert [numbers(pull) for pull in pulls] == [[], *["waiting"] * 6]
    client.put(2)
    assert [numbers(pull) for pull in pulls] == [[], [], [], *["waiting"] * 4]


def test_an_answer_makes_room_for_what_the_page_says_to_it(client):
    """R49."""
    pulls = [FakeClient(client).pull(browser="b") for _ in range(7)]
    client.pull(browser="b")
    assert [numbers(pull) for pull in pulls] == [[], *["waiting"] * 6]
    client.put(1)
    assert [numbers(pull) for pull in pulls] == [[], [], [], *["waiting"] * 4]
