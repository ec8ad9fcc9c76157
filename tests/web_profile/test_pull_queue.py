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
    params = {"n": str(number), "pad": "x" * size}
    payload = EncodedMessage({"samp.mtype": "x.y", "samp.params": params}, source_profile="standard")
    return Delivery("receiveNotification", "c1", "key", "c2", None, payload)


class Bench:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.limit = PullLimiter(self.loop)
        self.gone: list[str] = []
        self.overflow: list[str] = []
        self.seen: list[Delivery] = []
        self.mailbox = PullQueue(
            self.loop, self.limit,
            on_overflow=self.overflow.append, on_gone=self.gone.append, on_delivery=self.seen.append,
        )  # fmt: skip

    def pull(self, timeout: float = 600, *, sent: bool = True, left: bool = True, browser: str = "") -> Pull:
        """Pull as the transport does it; the answer of one that is not sent was closed by the page, or by the hub."""
        pull = Pull(FakeConnection(), browser)
        answer = self.mailbox.pull(pull, timeout)

        def write(_answer):
            if not sent:
                pull.connection.closed = True
                pull.connection.was_left = left
            if answer.on_sent is not None:
                answer.on_sent(sent)

        answer.add_done_callback(write)
        return pull

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.mailbox.put(notification(number))
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
def bench():
    return Bench()


def test_what_waits_is_handed_over_at_once(bench):
    """R42."""
    bench.put(1, 2, 3)
    assert numbers(bench.pull()) == [1, 2, 3]
    assert len(bench.mailbox) == 0


def test_a_pull_waits_until_something_comes(bench):
    """R42."""
    pull = bench.pull()
    bench.loop.run(300)
    assert numbers(pull) == "waiting"
    bench.put(1)
    assert numbers(pull) == [1]


def test_what_comes_in_one_moment_comes_in_one_answer(bench):
    pull = bench.pull()
    bench.put(*range(200))
    assert numbers(pull) == list(range(200))


def test_a_pull_ends_with_an_empty_list(bench):
    """R42."""
    pull = bench.pull(5)
    bench.loop.run(4.9)
    assert numbers(pull) == "waiting"
    bench.loop.run(0.2)
    assert numbers(pull) == []


def test_who_closes_before_the_answer_is_written_has_not_read_it(bench):
    """R42: whenever it is found out in which order that happened."""
    bench.put(1)
    pull = Pull(FakeConnection())
    looks = iter([True])
    pull.connection.peer_is_open = lambda: next(looks, False)  # it closes between the look at it and the writing
    answer = bench.mailbox.pull(pull, 600)
    answer.add_done_callback(lambda _: answer.on_sent(True))
    pull.connection.closed = pull.connection.was_reset = True
    pull.connection.on_closed()
    assert numbers(bench.pull()) == [1]


@pytest.mark.parametrize("timeout", [0, -3])
def test_a_pull_without_time_does_not_wait(bench, timeout):
    assert numbers(bench.pull(timeout)) == []


def test_an_idle_pull_costs_nothing(bench):
    """R42: one timer, and nothing that runs."""
    bench.pull()
    assert bench.loop.active == 1
    assert not bench.loop.ready


def test_the_form_of_callbacks(bench):
    """R42: method names without a prefix; parameters without the key."""
    message = {"samp.mtype": "x.y", "samp.params": {"a": "\u00e9<&"}}
    response = {"samp.status": "samp.ok", "samp.result": {}}
    bench.mailbox.put(Delivery("receiveNotification", "c1", "key", "c2", None, EncodedMessage(message)))
    bench.mailbox.put(Delivery("receiveCall", "c1", "key", "c2", "id&1", EncodedMessage(message)))
    bench.mailbox.put(Delivery("receiveResponse", "c1", "key", "c2", "tag", EncodedMessage(response)))
    bench.loop.run()
    written = write_response(bench.pull().response.result())
    assert read_response(written) == [
        {"samp.methodName": "receiveNotification", "samp.params": ["c2", message]},
        {"samp.methodName": "receiveCall", "samp.params": ["c2", "id&1", message]},
        {"samp.methodName": "receiveResponse", "samp.params": ["c2", "tag", response]},
    ]
    assert b"key" not in written


def test_several_pulls_share_without_doubling(bench):
    first, second = bench.pull(), bench.pull()
    bench.put(1)
    bench.put(2)
    assert (numbers(first), numbers(second)) == ([1], [2])
    bench.put(3)
    assert numbers(bench.pull()) == [3]


def test_a_pull_that_finds_another_one_served_first_ends_in_its_time(bench):
    first = bench.pull()
    bench.mailbox.put(notification(1))
    bench.loop.ready.popleft()[0](notification(1))  # taken, and not handed over yet
    second = bench.pull(5)
    assert (numbers(first), numbers(second)) == ([1], "waiting")
    bench.loop.run(6)
    assert numbers(second) == []


def test_a_pull_whose_connection_broke_loses_nothing(bench):
    bench.lose(bench.pull())
    bench.put(1, 2)
    assert numbers(bench.pull()) == [1, 2]


def test_a_connection_that_broke_unnoticed_loses_nothing(bench):
    """The kernel knows, the loop has yet to come to it."""
    pull = bench.pull()
    pull.connection.left = True
    bench.put(1)
    assert numbers(pull) == "cancelled"
    assert numbers(bench.pull()) == [1]


def test_another_pull_takes_over_from_one_that_broke(bench):
    broken, good = bench.pull(), bench.pull()
    broken.connection.left = True
    bench.put(1)
    assert numbers(good) == [1]


def test_an_answer_that_could_not_be_written_goes_back_to_the_front(bench):
    bench.pull(sent=False)
    bench.put(1, 2)
    bench.put(3)
    assert numbers(bench.pull()) == [1, 2, 3]


def test_an_answer_that_was_thrown_away_unread_goes_back_to_the_front(bench):
    pull = bench.pull()
    bench.put(1, 2)
    bench.put(3)
    pull.connection.closed = pull.connection.was_reset = True
    assert numbers(bench.pull()) == [1, 2, 3]


def test_an_answer_that_was_read_is_not_given_again(bench):
    """JSAMP closes its connection after each answer."""
    pull = bench.pull()
    bench.put(1)
    pull.connection.close()
    assert numbers(bench.pull(0)) == []


def lose_answer(pull: Pull) -> None:
    """What the transport does when the other side resets the connection with the answer unread."""
    pull.connection.was_reset = True
    pull.connection.close()


def test_an_answer_that_was_thrown_away_goes_to_the_pull_that_waits(bench):
    """R42: without waiting for the next one."""
    first, second = bench.pull(), bench.pull()
    bench.put(1)
    lose_answer(first)
    assert numbers(second) == [1]


def test_each_answer_that_was_thrown_away_unread_is_given_again(bench):
    """R42: several pulls at once, and not the last of them breaks."""
    first, second, third = bench.pull(), bench.pull(), bench.pull()
    for number in (1, 2, 3):
        bench.put(number)
    third.connection.requests += 1  # it has come back with another request, so that it was read
    lose_answer(third)
    lose_answer(second)
    first.connection.left = first.connection.was_reset = True  # which the loop has yet to notice
    assert numbers(bench.pull()) == [1, 2]


def test_an_answer_before_another_request_of_its_connection_was_read(bench):
    """R42: what was reset unread is the answer to that request."""
    pull = bench.pull()
    bench.put(1)
    pull.connection.requests += 1
    lose_answer(pull)
    assert numbers(bench.pull(0)) == []


def test_few_answers_are_kept_for_the_case_that_they_were_not_read(bench):
    pulls = [bench.pull() for _ in range(20)]
    for number in range(20):
        bench.put(number)
    assert sum(bool(pull.batch) for pull in pulls) == len(bench.mailbox._unconfirmed) == 6
    for pull in pulls:
        pull.connection.requests += 1
    bench.pull()
    assert not any(pull.batch for pull in pulls)
    assert bench.mailbox._unconfirmed == []


def test_a_large_queue_is_handed_over_in_pieces(bench, monkeypatch):
    monkeypatch.setattr(pull_queue, "MAX_RESPONSE", 10_000)
    for number in range(5):
        bench.mailbox.put(notification(number, 6000))
    bench.loop.run()
    got = [numbers(bench.pull()) for _ in range(5)]
    assert got == [[0], [1], [2], [3], [4]]


def test_too_many_callbacks_are_an_overflow(bench, monkeypatch):
    """R50."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED", 10)
    bench.put(*range(12))
    assert bench.overflow == ["10 messages were waiting to be pulled"]
    assert len(bench.mailbox) == 0


def test_too_many_bytes_are_an_overflow(bench, monkeypatch):
    """R50."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED_BYTES", 50_000)
    bench.mailbox.put(notification(0, 60_000))  # a single one always has room
    bench.loop.run()
    assert bench.overflow == []
    bench.put(1)
    assert len(bench.overflow) == 1


def test_all_that_is_taken_is_seen(bench):
    """R46: by whoever keeps account of the URLs in it."""
    bench.put(1, 2)
    assert len(bench.seen) == 2


# Gone pages (R43)


def test_a_page_whose_pull_broke_is_gone_after_the_grace_time(bench):
    """R43."""
    bench.lose(bench.pull())
    bench.loop.run(DISCONNECT_TIMEOUT - 0.1)
    assert bench.gone == []
    bench.loop.run(0.2)
    assert len(bench.gone) == 1


def test_a_page_that_pulls_again_in_time_is_not_gone(bench):
    """R43."""
    bench.lose(bench.pull())
    bench.loop.run(DISCONNECT_TIMEOUT - 1)
    bench.pull()
    bench.loop.run(500)
    assert bench.gone == []


def test_a_page_with_another_pull_is_not_gone(bench):
    lost, _kept = bench.pull(), bench.pull()
    bench.lose(lost)
    bench.loop.run(300)
    assert bench.gone == []


def test_a_page_whose_answer_was_thrown_away_unread_is_gone_after_the_grace_time(bench):
    """R43: the tab was closed before it had read the answer."""
    pull = bench.pull()
    bench.put(1)
    lose_answer(pull)
    bench.loop.run(DISCONNECT_TIMEOUT + 0.1)
    assert len(bench.gone) == 1


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("closes", [False, True])
def test_a_page_that_is_held_up_between_two_pulls_stays_for_minutes(bench, number, closes):
    """R43: it has broken nothing off, whether its last answer was empty, and whether its connection is kept."""
    pull = bench.pull(1)
    bench.put(*range(number))
    bench.loop.run(2)
    if closes:
        pull.connection.close()
    bench.put(7)
    bench.loop.run(IDLE_TIMEOUT - 5)
    assert bench.gone == []
    assert IDLE_TIMEOUT >= 180
    assert numbers(bench.pull()) == [7]


def clock_of(bench, monkeypatch):
    """Have the wall clock go with the loop."""
    monkeypatch.setattr(pull_queue.time, "time", lambda: bench.loop.now)


@pytest.mark.parametrize(
    ("after", "requests", "is_gone"),
    [(0, 2, True), (QUICK_CLOSE - 1, 2, True), (QUICK_CLOSE + 1, 2, False), (0, 1, False)],
)
def test_a_browser_that_ends_between_two_pulls_is_noticed_soon(bench, monkeypatch, after, requests, is_gone):
    """R43: it closes the connection of the page's last request, which it would keep for minutes otherwise."""
    clock_of(bench, monkeypatch)
    pull = bench.pull()
    pull.connection.requests = requests
    bench.mailbox.mark_active(pull.connection)
    bench.put(1)
    bench.loop.run(after)
    pull.connection.close()
    bench.loop.run(DISCONNECT_TIMEOUT + 0.1)
    assert bool(bench.gone) is is_gone


def test_a_connection_that_the_hub_closes_says_nothing_of_the_page(bench):
    """R43: it was asked to, or needs the room."""
    pull = bench.pull()
    pull.connection.requests = 2
    bench.mailbox.mark_active(pull.connection)
    bench.put(1)
    pull.connection.closed = True
    pull.connection.on_closed()
    bench.loop.run(DISCONNECT_TIMEOUT + 1)
    assert bench.gone == []


def test_a_connection_that_another_tab_has_used_since_says_nothing_of_the_page(bench):
    """R43: it was that one's request that was broken off."""
    pull = bench.pull()
    pull.connection.requests = 2
    bench.mailbox.mark_active(pull.connection)
    bench.put(1)
    other = beside(bench)
    other.mailbox.mark_active(pull.connection)
    pull.connection.close()
    bench.loop.run(DISCONNECT_TIMEOUT + 1)
    assert bench.gone == []


def test_an_older_connection_of_the_page_says_nothing(bench):
    """R43."""
    pull = bench.pull()
    pull.connection.requests = 2
    bench.mailbox.mark_active(pull.connection)
    bench.put(1)
    bench.mailbox.mark_active(FakeConnection())
    pull.connection.close()
    bench.loop.run(DISCONNECT_TIMEOUT + 1)
    assert bench.gone == []


def test_a_page_that_does_not_come_back_between_two_pulls_is_gone_in_the_end(bench):
    """R43: it was closed in that moment, and nothing tells so."""
    bench.pull()
    bench.put(1)
    bench.loop.run(IDLE_TIMEOUT - 1)
    assert bench.gone == []
    bench.loop.run(2)
    assert len(bench.gone) == 1


def test_a_page_that_is_too_slow_for_an_answer_is_held_up(bench):
    """R43: the hub has closed the connection, as the page did not read on; the page has broken nothing off."""
    bench.pull(sent=False, left=False)
    bench.put(1)
    bench.loop.run(IDLE_TIMEOUT - 1)
    assert bench.gone == []
    assert numbers(bench.pull()) == [1]


@pytest.mark.parametrize("broken", [False, True])
def test_the_time_that_a_computer_sleeps_does_not_count(bench, monkeypatch, broken):
    """R43: on some systems timers go on in that time, and are due when it wakes up; the wall clock tells of it."""
    monkeypatch.setattr(pull_queue.time, "time", lambda: bench.loop.now + slept)
    slept = 0.0
    pull = bench.pull(1)
    bench.loop.run(0 if broken else 2)
    if broken:
        bench.lose(pull)
    grace = DISCONNECT_TIMEOUT if broken else IDLE_TIMEOUT
    bench.loop.run(grace - 2)
    slept = 3600.0
    bench.loop.run(grace - 2)
    assert bench.gone == []
    bench.loop.run(5)
    assert len(bench.gone) == 1


def test_a_page_that_is_held_up_is_not_silent(bench):
    """Its silence has a time of its own, which the hub's ``client_timeout`` leaves alone."""
    assert not bench.mailbox.has_waiting_pull
    bench.pull()
    assert bench.mailbox.has_waiting_pull
    bench.put(1)
    assert bench.mailbox.has_waiting_pull
    bench.loop.run(IDLE_TIMEOUT + 1)
    assert not bench.mailbox.has_waiting_pull


def test_a_page_that_has_to_make_room_has_time_to_come_back():
    """R43, R49: its next pull stands behind those of fifty other tabs."""
    bench = Bench()
    waiting = [bench.pull(browser="b"), *(beside(bench).pull(browser="b") for _ in range(49))]
    assert numbers(waiting[0]) == []
    while numbers(waiting[-5]) == "waiting":
        bench.loop.run(0.25)
    bench.pull(browser="b")
    bench.loop.run(300)
    assert bench.gone == []


def test_a_page_that_allows_callbacks_and_never_pulls_is_gone(bench):
    """R43."""
    bench.mailbox.expect_pull()
    bench.loop.run(IDLE_TIMEOUT - 1)
    bench.mailbox.mark_active()
    bench.loop.run(IDLE_TIMEOUT - 1)
    assert bench.gone == []
    bench.loop.run(2)
    assert len(bench.gone) == 1


def test_an_answer_that_failed_starts_the_grace_time(bench):
    bench.pull(sent=False)
    bench.put(1)
    bench.loop.run(DISCONNECT_TIMEOUT + 0.1)
    assert len(bench.gone) == 1


def test_a_page_that_makes_other_requests_is_not_gone(bench):
    bench.lose(bench.pull())
    for _ in range(3):
        bench.loop.run(DISCONNECT_TIMEOUT - 1)
        bench.mailbox.mark_active()
    assert bench.gone == []


def test_a_page_that_was_killed_while_it_wrote_a_request_is_gone_soon(bench):
    """R43: its last request may be read behind the end of its pull's connection."""
    bench.lose(bench.pull())
    bench.mailbox.mark_active()
    bench.loop.run(DISCONNECT_TIMEOUT + 1)
    assert len(bench.gone) == 1


def test_a_page_that_has_left_before_the_loop_notices_is_gone_soon(bench):
    """R43: the kernel knew of the end when there was something to hand over."""
    pull = bench.pull()
    pull.connection.left = True
    bench.put(1)
    pull.connection.close()
    bench.loop.run(DISCONNECT_TIMEOUT + 1)
    assert len(bench.gone) == 1


def test_a_page_that_never_pulls_is_left_alone_while_nothing_waits_for_it(bench):
    """R43: a page that only sends is a client as good as any."""
    bench.loop.run(100_000)
    assert bench.gone == []
    bench.put(1)
    bench.loop.run(IDLE_TIMEOUT + 1)
    assert len(bench.gone) == 1


def test_an_old_connection_that_closes_says_nothing_of_a_page_that_has_pulled_since(bench):
    old = bench.pull()
    bench.put(1)
    bench.pull()
    bench.put(2)
    old.connection.close()
    bench.loop.run(DISCONNECT_TIMEOUT + 1)
    assert bench.gone == []


# The end


def test_a_waiting_pull_gets_the_farewell(bench):
    """R26."""
    pull = bench.pull()
    bench.mailbox.close(notification(9))
    bench.loop.run()
    assert numbers(pull) == [9]
    assert bench.loop.active == 0


def test_closing_answers_all_pulls_and_drops_what_comes_later(bench):
    first, second = bench.pull(), bench.pull()
    bench.mailbox.close(None)
    bench.put(1)
    assert (numbers(first), numbers(second)) == ([], [])
    assert numbers(bench.pull()) == []
    assert bench.loop.active == 0
    assert bench.gone == []


def test_clearing_answers_pulls_and_tells_what_is_dropped(bench):
    """R39: a client that allows callbacks no longer."""
    bench.put(1, 2)
    assert [delivery.body.value["samp.params"]["n"] for delivery in bench.mailbox.clear()] == ["1", "2"]
    pull = bench.pull()
    assert bench.mailbox.clear() == []
    assert numbers(pull) == []
    bench.loop.run(1000)
    assert bench.gone == []


# Eight tabs (R49)


def test_the_fifth_pull_of_a_browser_releases_the_oldest():
    """R49."""
    loop = FakeLoop()
    limit = PullLimiter(loop)
    benches = [Bench() for _ in range(5)]
    for bench in benches:
        bench.mailbox._limit, bench.mailbox._loop = limit, loop
    pulls = [bench.pull(browser="one") for bench in benches]
    assert [numbers(pull) for pull in pulls] == [[], "waiting", "waiting", "waiting", "waiting"]
    other = benches[0].pull(browser="another")
    assert numbers(other) == "waiting"


def test_pulls_that_are_over_do_not_count():
    """R49."""
    bench = Bench()
    for _ in range(20):
        bench.lose(bench.pull(browser="b"))
    first = bench.pull(browser="b")
    for _ in range(3):
        bench.pull(browser="b")
    assert numbers(first) == "waiting"


def test_programs_that_are_no_browsers_have_their_connections_for_themselves():
    """R49."""
    bench = Bench()
    pulls = [bench.pull() for _ in range(20)]
    bench.limit.prioritize("")
    bench.loop.run(10)
    assert {numbers(pull) for pull in pulls} == {"waiting"}


class Tabs:
    """Tabs of one browser that pull again at once."""

    def __init__(self, number: int) -> None:
        self.bench = Bench()
        self.answered = 0
        for _ in range(number):
            self._pull()

    def _pull(self) -> None:
        self.bench.pull(browser="b").response.add_done_callback(self._pull_again)

    def _pull_again(self, _answer) -> None:
        self.answered += 1
        if self.answered < 1000:
            self.bench.loop.call_soon(self._pull)


def test_tabs_that_pull_again_at_once_go_round_slowly():
    """R49: one connection gets free every quarter of a second, and nothing spins."""
    tabs = Tabs(8)
    tabs.bench.loop.run(10)
    assert 35 <= tabs.answered <= 45


def test_tabs_go_round_fast_for_a_while_when_one_of_them_does_something():
    """R49: what another one wants to do may wait behind pulls, but the wait has an end, and so have the rounds."""
    tabs = Tabs(8)
    tabs.bench.loop.run(10)
    before = tabs.answered
    tabs.bench.limit.prioritize("another browser")
    tabs.bench.loop.run()
    assert tabs.answered == before
    tabs.bench.limit.prioritize("b")
    tabs.bench.loop.run()
    assert tabs.answered - before == 16
    tabs.bench.loop.run(10)
    assert tabs.answered - before <= 16 + 45


def beside(bench: Bench) -> Bench:
    """Another tab of the same browser."""
    other = Bench()
    other.loop = other.mailbox._loop = bench.loop
    other.limit = other.mailbox._limit = bench.limit
    return other


def test_what_comes_for_a_page_whose_pull_waits_in_the_browser_makes_room_for_it(bench):
    """R49."""
    bench.pull(browser="b")
    bench.put(1)
    pulls = [beside(bench).pull(browser="b") for _ in range(7)]
    assert [numbers(pull) for pull in pulls] == [[], *["waiting"] * 6]
    bench.put(2)
    assert [numbers(pull) for pull in pulls] == [[], [], [], *["waiting"] * 4]


def test_an_answer_makes_room_for_what_the_page_says_to_it(bench):
    """R49."""
    pulls = [beside(bench).pull(browser="b") for _ in range(7)]
    bench.pull(browser="b")
    assert [numbers(pull) for pull in pulls] == [[], *["waiting"] * 6]
    bench.put(1)
    assert [numbers(pull) for pull in pulls] == [[], [], [], *["waiting"] * 4]
