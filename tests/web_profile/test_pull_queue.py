# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The pull queue, without sockets."""

from __future__ import annotations

import pytest

from pyvo.samp.broker import Delivery, EncodedMessage
from pyvo.samp.transport.xmlrpc_reader import read_response
from pyvo.samp.transport.xmlrpc_writer import write_response
from pyvo.samp.web_profile import pull_queue
from pyvo.samp.web_profile.pull_queue import (
    CLOSED_PULL_TIMEOUT,
    NO_PULL_TIMEOUT,
    QUICK_CLOSE,
    RELAY_TIMEOUT,
    Pull,
    PullLimiter,
    PullQueue,
)

from .doubles import FakeConnection, FakeLoop


def notification(number: int, size: int = 0) -> Delivery:
    message = {"samp.mtype": "x.y", "samp.params": {"n": str(number), "pad": "x" * size}}
    return Delivery("receiveNotification", "c1", "key", "c2", None, EncodedMessage(message, source_profile="standard"))


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
    """A web client: its queue, and pulls like those of the transport."""

    def __init__(self, other: FakeClient | None = None) -> None:
        self.loop = other.loop if other else FakeLoop()
        self.limiter = other.limiter if other else PullLimiter(self.loop)
        self.queue = RecordingQueue(self.loop, self.limiter)
        self.gone, self.overflow, self.seen = self.queue.gone, self.queue.overflow, self.queue.seen

    def pull(self, timeout: float = 600, *, sent: bool = True, left: bool = True, browser: str = "") -> Pull:
        """Pull. If the response is not ``sent``, the page (``left``) or the hub has closed the connection."""
        pull = Pull(FakeConnection(), browser)
        self.queue.mark_active(pull.connection, is_browser=True)
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
        """Do what the transport does when the connection of a waiting pull breaks."""
        pull.connection.closed = pull.connection.was_left = True
        pull.response.cancel()


def numbers(pull: Pull) -> list[int] | str:
    """Return the numbers in the response to a pull, or its state if there is none."""
    if pull.response.state != "done":
        return pull.response.state
    result = pull.response.result()
    callbacks = read_response(write_response(result))
    return [int(callback["samp.params"][-1]["samp.params"]["n"]) for callback in callbacks]


@pytest.fixture
def client():
    return FakeClient()


def test_waiting_callbacks_are_delivered_at_once(client):
    """R42: a pull gets all callbacks that wait."""
    client.put(1, 2, 3)
    assert numbers(client.pull()) == [1, 2, 3]
    assert not client.queue._queue


def test_a_pull_waits_for_a_callback(client):
    """R42."""
    pull = client.pull()
    client.loop.run(300)
    assert numbers(pull) == "waiting"
    client.put(1)
    assert numbers(pull) == [1]


def test_deliveries_of_one_moment_are_sent_in_one_response(client):
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


def test_a_response_is_unread_if_the_connection_was_closed_before_it_was_written(client):
    """R42: the order in which the hub notices the two does not matter."""
    client.put(1)
    pull = Pull(FakeConnection())
    states = iter([True])
    pull.connection.peer_is_open = lambda: next(states, False)  # it closes between the check and the write
    client.queue.mark_active(pull.connection, is_browser=True)
    response = client.queue.pull(pull, 600)
    response.add_done_callback(lambda _: response.on_sent(True))
    pull.connection.was_reset = True
    pull.connection.close(left=False)
    assert numbers(client.pull()) == [1]


@pytest.mark.parametrize("timeout", [0, -3])
def test_a_pull_without_a_timeout_does_not_wait(client, timeout):
    assert numbers(client.pull(timeout)) == []


def test_an_idle_pull_needs_one_timer(client):
    """R42: a pull that waits has one timer and no calls."""
    client.pull()
    assert client.loop.active == 1
    assert not client.loop.ready


def test_the_form_of_callbacks(client):
    """R42: callbacks have method names without a prefix, and parameters without the key."""
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


def test_several_pulls_get_different_callbacks(client):
    first, second = client.pull(), client.pull()
    client.put(1)
    client.put(2)
    assert (numbers(first), numbers(second)) == ([1], [2])
    client.put(3)
    assert numbers(client.pull()) == [3]


def test_a_pull_whose_callbacks_an_older_pull_gets_ends_after_its_timeout(client):
    first = client.pull()
    client.queue.put(notification(1))
    client.loop.ready.popleft()[0](notification(1))  # queued, and not delivered yet
    second = client.pull(5)
    assert (numbers(first), numbers(second)) == ([1], "waiting")
    client.loop.run(6)
    assert numbers(second) == []


def test_no_callback_is_lost_if_the_connection_of_a_pull_breaks(client):
    client.lose(client.pull())
    client.put(1, 2)
    assert numbers(client.pull()) == [1, 2]


def test_no_callback_is_lost_if_the_loop_has_not_noticed_that_a_connection_broke(client):
    """The kernel has closed the connection, and the loop has not processed it yet."""
    pull = client.pull()
    pull.connection.left = True
    client.put(1)
    assert numbers(pull) == "cancelled"
    assert numbers(client.pull()) == [1]


def test_another_pull_gets_the_callbacks_of_a_broken_one(client):
    broken, good = client.pull(), client.pull()
    broken.connection.left = True
    client.put(1)
    assert numbers(good) == [1]


def test_callbacks_of_a_response_that_could_not_be_written_return_to_the_front(client):
    client.pull(sent=False)
    client.put(1, 2)
    client.put(3)
    assert numbers(client.pull()) == [1, 2, 3]


def test_callbacks_of_a_response_that_was_discarded_unread_return_to_the_front(client):
    pull = client.pull()
    client.put(1, 2)
    client.put(3)
    pull.connection.closed = pull.connection.was_reset = True
    assert numbers(client.pull()) == [1, 2, 3]


def test_callbacks_of_a_response_that_was_read_are_not_repeated(client):
    """JSAMP closes its connection after each response."""
    pull = client.pull()
    client.put(1)
    pull.connection.close()
    assert numbers(client.pull(0)) == []


def discard_response(pull: Pull) -> None:
    """Do what the transport does when the browser resets the connection with the response unread."""
    pull.connection.was_reset = True
    pull.connection.close()


def test_callbacks_of_a_discarded_response_go_to_the_pull_that_waits(client):
    """R42: the callbacks do not wait for the next pull."""
    first, second = client.pull(), client.pull()
    client.put(1)
    discard_response(first)
    assert numbers(second) == [1]


def test_callbacks_of_each_discarded_response_are_repeated(client):
    """R42: several pulls may break at once, and not only the last one."""
    first, second, third = client.pull(), client.pull(), client.pull()
    for number in (1, 2, 3):
        client.put(number)
    third.connection.requests += 1  # another request arrived on this connection, so the response was read
    discard_response(third)
    discard_response(second)
    first.connection.left = first.connection.was_reset = True  # the loop has not processed this yet
    assert numbers(client.pull()) == [1, 2]


def test_a_response_that_is_followed_by_another_request_was_read(client):
    """R42: the discarded response is that to the other request."""
    pull = client.pull()
    client.put(1)
    pull.connection.requests += 1
    discard_response(pull)
    assert numbers(client.pull(0)) == []


def test_only_the_latest_responses_are_kept_until_they_are_confirmed(client):
    pulls = [client.pull() for _ in range(20)]
    for number in range(20):
        client.put(number)
    assert sum(bool(pull.batch) for pull in pulls) == len(client.queue._unconfirmed) == 6
    for pull in pulls:
        pull.connection.requests += 1
    client.pull()
    assert not any(pull.batch for pull in pulls)
    assert client.queue._unconfirmed == []


def test_a_large_queue_is_delivered_in_several_responses(client, monkeypatch):
    monkeypatch.setattr(pull_queue, "MAX_RESPONSE", 10_000)
    for number in range(5):
        client.queue.put(notification(number, 6000))
    client.loop.run()
    got = [numbers(client.pull()) for _ in range(5)]
    assert got == [[0], [1], [2], [3], [4]]


def test_too_many_callbacks_are_an_overflow(client, monkeypatch):
    """R50: the queue is emptied."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED", 10)
    client.put(*range(12))
    assert client.overflow == ["10 messages were waiting to be pulled"]
    assert not client.queue._queue


def test_too_many_bytes_are_an_overflow(client, monkeypatch):
    """R50."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED_BYTES", 50_000)
    client.queue.put(notification(0, 60_000))  # a single delivery is always accepted
    client.loop.run()
    assert client.overflow == []
    client.put(1)
    assert len(client.overflow) == 1


def test_all_deliveries_are_reported(client):
    """R46: the profile allows the URLs in them."""
    client.put(1, 2)
    assert len(client.seen) == 2


# Pages that have gone away (R43)


def test_a_page_whose_pull_broke_is_reported_as_gone_after_a_short_time(client):
    """R43."""
    client.lose(client.pull())
    client.loop.run(CLOSED_PULL_TIMEOUT - 0.1)
    assert client.gone == []
    client.loop.run(0.2)
    assert len(client.gone) == 1


def test_a_page_that_pulls_again_in_time_is_not_gone(client):
    """R43."""
    client.lose(client.pull())
    client.loop.run(CLOSED_PULL_TIMEOUT - 1)
    client.pull()
    client.loop.run(500)
    assert client.gone == []


def test_a_kernel_has_more_time_to_reload_its_page(client):
    """R43."""
    client.queue.is_relayed = True
    client.lose(client.pull())
    client.loop.run(RELAY_TIMEOUT - 0.1)
    assert client.gone == []
    client.loop.run(0.2)
    assert len(client.gone) == 1


def test_a_page_with_another_pull_is_not_gone(client):
    lost, _kept = client.pull(), client.pull()
    client.lose(lost)
    client.loop.run(300)
    assert client.gone == []


def test_a_page_that_discarded_a_response_is_gone_after_a_short_time(client):
    """R43: the tab was closed before it had read the response."""
    pull = client.pull()
    client.put(1)
    discard_response(pull)
    client.loop.run(CLOSED_PULL_TIMEOUT + 0.1)
    assert len(client.gone) == 1


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("closes", [False, True])
def test_a_page_that_does_not_pull_again_stays_registered_for_minutes(client, number, closes):
    """R43: its pull ended normally. The last response may be empty, and the connection may be closed."""
    pull = client.pull(1)
    client.put(*range(number))
    client.loop.run(2)
    if closes:
        pull.connection.close()
    client.put(7)
    client.loop.run(NO_PULL_TIMEOUT - 5)
    assert client.gone == []
    assert NO_PULL_TIMEOUT >= 180
    assert numbers(client.pull()) == [7]


def clock_of(client, monkeypatch):
    """Make the wall clock follow the loop."""
    monkeypatch.setattr(pull_queue.time, "time", lambda: client.loop.now)


def make_request(client: FakeClient, connection: FakeConnection, *, is_browser: bool = True) -> FakeConnection:
    """Make a request other than a pull over a connection that had one before."""
    connection.requests += 1
    client.queue.mark_active(connection, is_browser=is_browser)
    return connection


@pytest.fixture
def between_pulls(client, monkeypatch):
    """A page that has pulled once, and has to pull again. Returns its two idle connections."""
    clock_of(client, monkeypatch)
    pull = client.pull()
    client.put(1)
    return make_request(client, pull.connection), make_request(client, FakeConnection())


def is_gone_soon(client) -> bool:
    client.loop.run(CLOSED_PULL_TIMEOUT + 0.1)
    return bool(client.gone)


@pytest.mark.parametrize(("after", "is_gone"), [(0, True), (QUICK_CLOSE - 1, True), (QUICK_CLOSE + 1, False)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_browser_that_ends_between_two_pulls_closes_all_connections(
    client, between_pulls, after, is_gone, order
):
    """R43: but browsers also close idle connections after some minutes."""
    client.loop.run(after)
    for number in order:
        assert not client.gone
        between_pulls[number].close()
    assert is_gone_soon(client) is is_gone


def test_a_browser_has_not_ended_if_a_connection_is_open(client, between_pulls):
    """R43."""
    between_pulls[0].close()
    assert not is_gone_soon(client)


def test_a_browser_has_ended_whichever_page_used_a_connection_last(client, between_pulls):
    """R43: the tabs of a browser share its connections."""
    other = FakeClient(client)
    for connection in between_pulls:
        make_request(other, connection)
    between_pulls[0].was_idle = False  # a pull of the other page was waiting
    between_pulls[0].close()
    between_pulls[1].close()
    assert is_gone_soon(client)


def test_a_browser_has_ended_although_another_one_of_the_same_version_is_running(client, between_pulls):
    """R43: a page is only concerned by the connections that it has used."""
    other = FakeClient(client)
    make_request(other, FakeConnection())
    for connection in between_pulls:
        connection.close()
    assert is_gone_soon(client)
    assert other.gone == []


def test_a_page_that_pulls_again_after_all_its_connections_were_closed_is_not_gone(client, between_pulls):
    """R43: Chromium closes all connections when the computer changes to another network."""
    for connection in between_pulls:
        connection.close()
    client.pull()
    client.loop.run(300)
    assert client.gone == []


def test_a_connection_that_the_hub_closes_does_not_count(client, between_pulls):
    """R43: the browser requested this, or the hub needs the connection for another client."""
    for connection in between_pulls:
        connection.close(left=False)
    assert not is_gone_soon(client)


def test_a_connection_with_a_waiting_pull_of_another_page_does_not_count(client, between_pulls):
    """R43: the browser breaks off the pull of a tab that is closed."""
    for connection in between_pulls:
        connection.was_idle = False
        connection.close()
    assert not is_gone_soon(client)


def test_an_idle_connection_that_was_closed_before_the_last_request_does_not_count(client, between_pulls):
    """R43: the browser needed it no longer."""
    between_pulls[0].close()
    make_request(client, between_pulls[1]).was_idle = False
    between_pulls[1].close()
    assert not is_gone_soon(client)


def test_a_connection_that_a_transfer_has_taken_over_is_not_open(client, between_pulls):
    """R46: `detach` calls no function."""
    between_pulls[0].closed = True
    between_pulls[1].close()
    assert is_gone_soon(client)


@pytest.mark.parametrize("is_browser", [True, False])
def test_a_program_that_closes_its_connections_between_two_pulls_is_not_gone(client, is_browser):
    """R43: one that uses each connection once, or one that is not a browser."""
    pull = client.pull()
    client.put(1)
    if not is_browser:
        make_request(client, pull.connection, is_browser=False)
    pull.connection.close()
    assert not is_gone_soon(client)


def test_connections_keep_no_reference_to_a_page_that_is_gone(client, between_pulls):
    """Other pages may use a connection for hours."""
    assert all(connection.close_callbacks for connection in between_pulls)
    client.queue.close(None)
    client.loop.run()
    assert not any(connection.close_callbacks for connection in between_pulls)


def test_a_page_that_never_pulls_again_is_gone_after_the_idle_timeout(client):
    """R43: the page was closed between two pulls, which the hub cannot detect."""
    client.pull()
    client.put(1)
    client.loop.run(NO_PULL_TIMEOUT - 1)
    assert client.gone == []
    client.loop.run(2)
    assert len(client.gone) == 1


def test_a_page_that_reads_a_response_too_slowly_stays_registered(client):
    """R43: the hub has closed the connection, not the page."""
    client.pull(sent=False, left=False)
    client.put(1)
    client.loop.run(NO_PULL_TIMEOUT - 1)
    assert client.gone == []
    assert numbers(client.pull()) == [1]


@pytest.mark.parametrize("broken", [False, True])
def test_the_time_while_the_computer_sleeps_does_not_count(client, monkeypatch, broken):
    """R43: on some systems timers continue then, and are due when the computer wakes; the wall clock shows this."""
    monkeypatch.setattr(pull_queue.time, "time", lambda: client.loop.now + slept)
    slept = 0.0
    pull = client.pull(1)
    client.loop.run(0 if broken else 2)
    if broken:
        client.lose(pull)
    grace = CLOSED_PULL_TIMEOUT if broken else NO_PULL_TIMEOUT
    client.loop.run(grace - 2)
    slept = 3600.0
    client.loop.run(grace - 2)
    assert client.gone == []
    client.loop.run(5)
    assert len(client.gone) == 1


def test_a_page_that_does_not_pull_again_counts_as_active(client):
    """The hub's ``client_timeout`` does not apply to it."""
    assert not client.queue.has_waiting_pull
    client.pull()
    assert client.queue.has_waiting_pull
    client.put(1)
    assert client.queue.has_waiting_pull
    client.loop.run(NO_PULL_TIMEOUT + 1)
    assert not client.queue.has_waiting_pull


def test_a_page_whose_pull_is_released_has_time_to_pull_again():
    """R43, R49: its next pull waits in the browser behind the pulls of 49 other tabs."""
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
    client.loop.run(NO_PULL_TIMEOUT - 1)
    client.queue.mark_active(FakeConnection(), is_browser=True)
    client.loop.run(NO_PULL_TIMEOUT - 1)
    assert client.gone == []
    client.loop.run(2)
    assert len(client.gone) == 1


def test_a_page_is_gone_soon_after_a_response_that_could_not_be_written(client):
    client.pull(sent=False)
    client.put(1)
    client.loop.run(CLOSED_PULL_TIMEOUT + 0.1)
    assert len(client.gone) == 1


def test_a_page_that_makes_other_requests_is_not_gone(client):
    client.lose(client.pull())
    for _ in range(3):
        client.loop.run(CLOSED_PULL_TIMEOUT - 1)
        client.queue.mark_active(FakeConnection(), is_browser=True)
    assert client.gone == []


def test_a_page_that_was_killed_while_it_wrote_a_request_is_gone_soon(client):
    """R43: the hub may read its last request after the connection of its pull has ended."""
    client.lose(client.pull())
    client.queue.mark_active(FakeConnection(), is_browser=True)
    client.loop.run(CLOSED_PULL_TIMEOUT + 1)
    assert len(client.gone) == 1


def test_a_page_that_closed_before_the_loop_notices_is_gone_soon(client):
    """R43: when the delivery came, the kernel had already closed the connection."""
    pull = client.pull()
    pull.connection.left = True
    client.put(1)
    pull.connection.close()
    client.loop.run(CLOSED_PULL_TIMEOUT + 1)
    assert len(client.gone) == 1


def test_a_page_that_never_pulls_stays_registered_while_no_callback_waits(client):
    """R43: a page may only send."""
    client.loop.run(100_000)
    assert client.gone == []
    client.put(1)
    client.loop.run(NO_PULL_TIMEOUT + 1)
    assert len(client.gone) == 1


def test_the_connection_of_an_earlier_pull_does_not_count(client):
    old = client.pull()
    client.put(1)
    client.pull()
    client.put(2)
    old.connection.close()
    client.loop.run(CLOSED_PULL_TIMEOUT + 1)
    assert client.gone == []


# Close


def test_a_waiting_pull_gets_the_final_message(client):
    """R26."""
    pull = client.pull()
    client.queue.close(notification(9))
    client.loop.run()
    assert numbers(pull) == [9]
    assert client.loop.active == 0


def test_close_ends_all_pulls_and_drops_later_deliveries(client):
    first, second = client.pull(), client.pull()
    client.queue.close(None)
    client.put(1)
    assert (numbers(first), numbers(second)) == ([], [])
    assert numbers(client.pull()) == []
    assert client.loop.active == 0
    assert client.gone == []


def test_clear_ends_all_pulls_and_returns_the_dropped_deliveries(client):
    """R39: the client no longer allows callbacks."""
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


def test_pulls_that_have_ended_do_not_count():
    """R49."""
    client = FakeClient()
    for _ in range(20):
        client.lose(client.pull(browser="b"))
    first = client.pull(browser="b")
    for _ in range(3):
        client.pull(browser="b")
    assert numbers(first) == "waiting"


def test_programs_that_are_not_browsers_are_not_limited():
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
        self.responses = 0
        for _ in range(number):
            self._pull()

    def _pull(self) -> None:
        self.client.pull(browser="b").response.add_done_callback(self._pull_again)

    def _pull_again(self, _response) -> None:
        self.responses += 1
        if self.responses < 1000:
            self.client.loop.call_soon(self._pull)


def test_tabs_that_pull_again_at_once_are_released_slowly():
    """R49: one connection becomes free every quarter of a second, and the hub does not spin."""
    tabs = Tabs(8)
    tabs.client.loop.run(10)
    assert 35 <= tabs.responses <= 45


def test_tabs_are_released_fast_for_a_while_when_one_of_them_makes_another_request():
    """R49: other requests may wait behind pulls; the hub releases enough pulls for them, and then stops."""
    tabs = Tabs(8)
    tabs.client.loop.run(10)
    before = tabs.responses
    tabs.client.limiter.prioritize("another browser")
    tabs.client.loop.run()
    assert tabs.responses == before
    tabs.client.limiter.prioritize("b")
    tabs.client.loop.run()
    assert tabs.responses - before == 16
    tabs.client.loop.run(10)
    assert tabs.responses - before <= 16 + 45


def test_a_delivery_releases_pulls_when_the_next_pull_of_the_page_waits_in_the_browser(client):
    """R49."""
    client.pull(browser="b")
    client.put(1)
    pulls = [FakeClient(client).pull(browser="b") for _ in range(7)]
    assert [numbers(pull) for pull in pulls] == [[], *["waiting"] * 6]
    client.put(2)
    assert [numbers(pull) for pull in pulls] == [[], [], [], *["waiting"] * 4]


def test_a_response_releases_pulls_so_that_the_page_can_reply(client):
    """R49."""
    pulls = [FakeClient(client).pull(browser="b") for _ in range(7)]
    client.pull(browser="b")
    assert [numbers(pull) for pull in pulls] == [[], *["waiting"] * 6]
    client.put(1)
    assert [numbers(pull) for pull in pulls] == [[], [], [], *["waiting"] * 4]
