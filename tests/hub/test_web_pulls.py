# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pulls of pages over real connections, and pages that are closed or held up."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import xmlrpc.client

import psutil
import pytest

from pyvo.samp.transport import server_connection
from pyvo.samp.web_profile import profile as web_profile
from pyvo.samp.web_profile import pull_queue

from .recipients import wait_until
from .web_pages import Page, Program, Response, message, request

EVENTS = "samp.hub.event.unregister"


@pytest.fixture
def hub(make_hub):
    return make_hub(web_profile=True, web_profile_dialog=lambda *_: True)


@pytest.fixture
def page(hub):
    with Page(hub) as page:
        yield page.register().listen("x.y")


@pytest.fixture
def program(hub):
    with Program(hub) as program:
        yield program


@pytest.fixture
def short_timeout(monkeypatch):
    monkeypatch.setattr(pull_queue, "CLOSED_PULL_TIMEOUT", 0.3)


def waiting(hub, page: Page) -> int:
    """Return how many pulls of a page wait."""
    web_client = hub._running.web._web_clients.get(page.id)
    return len(web_client._waiting) if web_client is not None else 0


def begin_pull(hub, page: Page, timeout: str = "600") -> socket.socket:
    before = waiting(hub, page)
    sock = page.begin_pull(timeout)
    wait_until(lambda: waiting(hub, page) > before)
    return sock


def send_numbers(program: Program, *numbers: int) -> None:
    for number in numbers:
        program.call("notifyAll", message("x.y", n=str(number)))


def numbers(callbacks) -> list[int]:
    if callbacks and isinstance(callbacks[0], tuple):
        return [int(params[1]["samp.params"]["n"]) for _, params in callbacks]
    return [int(callback["samp.params"][1]["samp.params"]["n"]) for callback in callbacks]


def is_registered(program: Program, page: Page) -> bool:
    return page.id in program.call("getRegisteredClients")


def reset(sock: socket.socket) -> None:
    """Close the connection with a reset, as the system does for a killed browser that has not read all data."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# The long poll (R42)


def test_a_waiting_pull_gets_its_response_at_once(hub, page, program):
    """R42."""
    sock = begin_pull(hub, page)
    times = []
    for number in range(20):
        began = time.monotonic()
        send_numbers(program, number)
        assert numbers(page.receive(sock)) == [number]
        times.append(time.monotonic() - began)
        page.send(sock, "pullCallbacks", page.key, "600")
    assert sorted(times)[10] < 0.1


def test_a_pull_ends_after_its_timeout(hub, page):
    """R42."""
    began = time.monotonic()
    assert page.pull("1") == []
    assert 0.9 < time.monotonic() - began < 5


def test_idle_pages_cost_neither_threads_nor_time(hub, program):
    """R42: four pulls wait for 2 s; they use less than 0.1 s of processor time."""
    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(Page(hub)).register().listen("x.y") for _ in range(4)]
        for page in pages:
            begin_pull(hub, page)
        assert threading.active_count() <= 20
        process = psutil.Process()
        before = sum(process.cpu_times()[:2])
        threading.Event().wait(2)
        assert sum(process.cpu_times()[:2]) - before < 0.1


def test_a_page_can_make_other_calls_during_a_pull(hub, page):
    begin_pull(hub, page)
    assert page.call("getRegisteredClients") == ["hub"]


def test_several_pulls_get_each_callback_once(hub, page, program):
    """R42: three threads pull at the same time while two hundred notifications arrive."""
    got: list[int] = []
    lock = threading.Lock()

    def pull() -> None:
        with Page(hub) as connection:
            connection.key = page.key
            while len(got) < 200:
                new = numbers(connection.pull("1"))
                with lock:
                    got.extend(new)

    threads = [threading.Thread(target=pull, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    send_numbers(program, *range(200))
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(200))


def test_a_page_that_opens_a_connection_for_each_pull(hub, page, program):
    """JSAMP does so."""
    for number in range(5):
        with page.connect() as sock:
            page.send(sock, "pullCallbacks", page.key, "600", Connection="close")
            send_numbers(program, number)
            assert numbers(page.receive(sock)) == [number]


@pytest.mark.parametrize("close", [socket.socket.close, reset])
def test_no_callback_is_lost_when_a_waiting_pull_breaks(hub, page, program, close):
    """R42."""
    for number in range(20):
        sock = begin_pull(hub, page)
        close(sock)
        send_numbers(program, number)
        assert numbers(page.pull_some(1)) == [number]


@pytest.mark.parametrize("close", [socket.socket.close, reset])
def test_callbacks_of_a_response_that_was_discarded_unread_are_repeated(hub, page, program, close):
    """R42: the connection breaks after the hub has sent the callback."""
    for number in range(20):
        sock = begin_pull(hub, page)
        send_numbers(program, number)
        wait_until(lambda: not waiting(hub, page))
        close(sock)
        assert numbers(page.pull_some(1)) == [number]


def test_callbacks_that_were_read_are_not_repeated(hub, page, program):
    """R42: closing the connection afterwards repeats nothing."""
    for number in range(20):
        sock = begin_pull(hub, page)
        send_numbers(program, number)
        assert numbers(page.receive(sock)) == [number]
        sock.close()
    assert page.pull("0") == []


def test_the_connection_of_the_first_of_several_pulls_breaks(hub, page, program):
    """R42: another waiting pull gets its callbacks."""
    first, second = begin_pull(hub, page), begin_pull(hub, page)
    send_numbers(program, 1)
    wait_until(lambda: waiting(hub, page) == 1)
    reset(first)
    assert numbers(page.receive(second)) == [1]


def test_callbacks_are_not_repeated_when_a_later_response_was_discarded(hub, page, program):
    """R42: a browser keeps its connections, and uses them for other requests."""
    sock = begin_pull(hub, page)
    send_numbers(program, 1)
    assert numbers(page.receive(sock)) == [1]
    connection = hub._running.web._web_clients[page.id]._last.connection
    page.send(sock, "ping")
    wait_until(lambda: connection.requests == 2)
    reset(sock)
    wait_until(lambda: connection.closed)
    assert page.pull("0") == []


def test_a_large_message_to_a_slow_page(hub, page, program):
    """The hub writes the part of a response that does not fit into the socket buffer later."""
    sock = begin_pull(hub, page)
    program.call("notifyAll", message("x.y", n="1", pad="x" * 8_000_000))
    threading.Event().wait(0.3)
    (callback,) = page.receive(sock)
    assert len(callback["samp.params"][1]["samp.params"]["pad"]) == 8_000_000


def test_the_callbacks_of_an_incomplete_response_are_repeated(hub, page, program):
    """R42."""
    sock = begin_pull(hub, page)
    program.call("notifyAll", message("x.y", n="1", pad="x" * 8_000_000))
    assert sock.recv(1000)
    sock.close()
    assert numbers(page.pull_some(1)) == [1]


@pytest.mark.slow
def test_connections_that_break_at_random_moments(hub, page, program):
    """R42: the page reads each callback once, in order."""
    import random

    chance = random.Random(7)
    total = 600

    def send_all() -> None:
        for number in range(total):
            send_numbers(program, number)
            time.sleep(chance.choice([0, 0, 0.002]))

    sender = threading.Thread(target=send_all)
    sender.start()
    got: list[int] = []
    broken = 0
    while len(got) < total:
        sock = page.begin_pull("1")
        kind = chance.randrange(4)
        if kind < 2:
            got += numbers(page.receive(sock))
            sock.close()
        else:
            time.sleep(chance.choice([0, 0.0005, 0.001, 0.003]))
            (socket.socket.close if kind == 2 else reset)(sock)
            broken += 1
        page._socks.remove(sock)
    sender.join()
    assert got == list(range(total))
    assert broken > 10


# Pages that are closed or held up (R43)


def test_a_closed_tab_is_unregistered_and_others_are_notified(hub, page, short_timeout):
    """R43, R23: a caller that waits for the tab's response gets an error."""
    with Program(hub, EVENTS) as program:
        sock = begin_pull(hub, page)
        program.call("call", page.id, "tag", message("x.y"))
        page.receive(sock)
        page.send(sock, "pullCallbacks", page.key, "600")
        wait_until(lambda: waiting(hub, page))
        sock.close()
        calls = dict(program.wait_for(2))
        assert calls["receiveNotification"][2]["samp.params"] == {"id": page.id}
        assert calls["receiveResponse"][3]["samp.error"]["samp.code"] == "samp.noresponse"
        assert "gone" in calls["receiveResponse"][3]["samp.error"]["samp.errortxt"]
        assert not is_registered(program, page)
    assert hub._running.web._web_clients == {}


@pytest.mark.slow
def test_a_closed_tab_is_unregistered_within_15_seconds(hub, page):
    """R43."""
    with Program(hub, EVENTS) as program:
        begin_pull(hub, page).close()
        began = time.monotonic()
        program.wait_for(1, 15)
        assert time.monotonic() - began > 9


def test_a_page_that_is_held_up_between_two_pulls_stays_registered(hub, page, program, short_timeout):
    """R43: the page has not broken off a pull. The hub does not count the closed connection of its last pull."""
    sock = begin_pull(hub, page)
    send_numbers(program, 1)
    page.receive(sock)
    sock.close()
    threading.Event().wait(1.0)
    send_numbers(program, 2)
    assert numbers(page.pull()) == [2]


def test_a_browser_that_ends_between_two_pulls_is_noticed_soon(hub, page, program, short_timeout):
    """R43: it closes all connections of the page. Another browser of the same version keeps its own."""
    with Page(hub, "https://other.example") as other:
        other.register().listen("x.y")
        send_numbers(program, 1)
        assert numbers(page.pull()) == [1]
        page._main.close()
        wait_until(lambda: not is_registered(program, page))
        assert is_registered(program, other)


def test_a_page_that_does_not_read_its_response_is_held_up(hub, page, program, short_timeout, monkeypatch):
    """R43: the hub, not the page, closes the connection. The next pull gets the callbacks (R42)."""
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT", 0.5)
    sock = begin_pull(hub, page)
    program.call("notifyAll", message("x.y", n="1", pad="x" * 8_000_000))
    wait_until(lambda: len(hub._running.web._web_clients[page.id]._queue) == 1)
    threading.Event().wait(1.0)
    assert is_registered(program, page)
    assert numbers(page.pull_some(1)) == [1]
    sock.close()


def test_client_timeout_does_not_apply_to_a_page_that_is_held_up(make_hub):
    """The last request of the page was its pull; only the time-out of its queue applies."""
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *_: True, client_timeout=0.5)
    with Page(hub) as page, Program(hub) as program:
        page.register().listen("x.y")
        sock = begin_pull(hub, page)
        send_numbers(program, 1)
        page.receive(sock)
        threading.Event().wait(1.5)
        assert page.id in hub._running.web._web_clients


def test_a_tab_that_is_closed_between_two_pulls_is_unregistered(hub, page, program, short_timeout, monkeypatch):
    """R43: the hub does not see that the tab is closed, so it waits for ``NO_PULL_TIMEOUT``."""
    monkeypatch.setattr(pull_queue, "NO_PULL_TIMEOUT", 0.5)
    sock = begin_pull(hub, page)
    send_numbers(program, 1)
    page.receive(sock)
    sock.close()
    wait_until(lambda: not is_registered(program, page))


def test_a_page_that_pulls_again_in_time_stays_registered(hub, page, program, monkeypatch):
    """R43."""
    monkeypatch.setattr(pull_queue, "CLOSED_PULL_TIMEOUT", 1.0)
    for _ in range(4):
        begin_pull(hub, page).close()
        wait_until(lambda: not waiting(hub, page))
        threading.Event().wait(0.4)
    begin_pull(hub, page)
    threading.Event().wait(1.5)
    assert is_registered(program, page)


def test_a_page_that_only_sends_stays_registered(hub, program, short_timeout, monkeypatch):
    monkeypatch.setattr(pull_queue, "NO_PULL_TIMEOUT", 0.3)
    with Page(hub) as page:
        page.register()
        page.call("notifyAll", message("table.load.fits"))
        threading.Event().wait(1)
        assert is_registered(program, page)


def test_a_page_that_does_not_pull_its_callbacks_is_unregistered(hub, program, monkeypatch):
    """R23: its callers get an error."""
    monkeypatch.setattr(pull_queue, "NO_PULL_TIMEOUT", 2.0)
    with Page(hub) as page:
        page.register().listen("x.y")
        response = program.call("callAndWait", page.id, message("x.y"), "20")
    assert response["samp.error"]["samp.code"] == "samp.noresponse"


def test_a_page_that_allows_callbacks_and_never_pulls_is_unregistered(hub, program, monkeypatch):
    """R43."""
    monkeypatch.setattr(pull_queue, "NO_PULL_TIMEOUT", 0.5)
    with Page(hub) as page:
        page.register().listen("x.y")
        wait_until(lambda: not is_registered(program, page))


def test_a_closed_tab_is_unregistered_though_its_connection_stays_open(hub, page, program, monkeypatch):
    """R43: the browser keeps the connection, and may use it for requests of other tabs."""
    monkeypatch.setattr(pull_queue, "NO_PULL_TIMEOUT", 0.5)
    assert page.pull("0") == []

    def is_gone() -> bool:
        page.send(page._main, "ping")
        page.receive(page._main)
        return not is_registered(program, page)

    wait_until(is_gone)


def test_a_reloaded_page_has_a_new_registration(hub, page, short_timeout):
    """R43."""
    begin_pull(hub, page).close()
    with Page(hub) as again, Program(hub) as program:
        again.register().listen("x.y")
        begin_pull(hub, again)
        wait_until(lambda: not is_registered(program, page))
        assert is_registered(program, again)


def test_client_timeout_does_not_apply_while_a_pull_waits(make_hub):
    """A pull may wait for ten minutes."""
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *_: True, client_timeout=0.5)
    with Page(hub) as page:
        page.register().listen("x.y")
        begin_pull(hub, page)
        threading.Event().wait(1.5)
        assert page.id in hub._running.web._web_clients


def test_pages_that_unregister_leave_nothing_in_the_hub(hub):
    with Page(hub) as page:
        for _ in range(100):
            page.register().listen("x.y")
            page.pull("0")
            page.call("unregister")
            page.key = ""
        assert page.call("ping") == ""
    web = hub._running.web
    assert web._web_clients == {}
    assert web.url_permissions._allowed == {}
    assert web.pull_limiter._waiting == {}
    assert web.pull_limiter._prioritized == {}


# A full queue


def test_a_page_with_too_many_callbacks_is_unregistered(hub, page, monkeypatch):
    """R50, R26: other pages can register afterwards."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED", 50)
    with Program(hub, EVENTS) as program:
        send_numbers(program, *range(60))
        program.wait_for(1)
        assert not is_registered(program, page)
        with Page(hub) as other:
            other.register()


def test_a_page_with_too_many_bytes_of_callbacks_is_unregistered(hub, page, program, monkeypatch):
    """R50."""
    monkeypatch.setattr(pull_queue, "MAX_QUEUED_BYTES", 1_000_000)
    for number in range(6):
        with contextlib.suppress(Exception):
            program.call("notify", page.id, message("x.y", n=str(number), pad="x" * 300_000))
    wait_until(lambda: not is_registered(program, page))


# Eight tabs (R49)


def test_the_oldest_of_five_pulls_is_released(hub, program):
    """R49."""
    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(Page(hub)).register().listen("x.y") for _ in range(5)]
        socks = [begin_pull(hub, page) for page in pages[:4]]
        socks.append(pages[4].begin_pull())
        assert pages[0].receive(socks[0]) == []
        for sock in socks[1:]:
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)


def test_a_program_without_an_origin_is_not_a_browser(hub):
    """R49: the web clients of one Python have the same User-Agent, but no limit of connections."""
    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(Page(hub, "")).register().listen("x.y") for _ in range(6)]
        socks = [begin_pull(hub, page) for page in pages]
        for sock in socks:
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(1)


@pytest.mark.parametrize(("method", "target"), [("POST", "/"), ("OPTIONS", "/"), ("GET", "/translator/x?http://h/")])
def test_a_request_of_the_browser_releases_pulls_for_others(hub, monkeypatch, method, target):
    """R49: other requests of the browser may wait for connections that pulls occupy."""
    monkeypatch.setattr(pull_queue, "RELEASE_INTERVAL", 1000.0)
    with contextlib.ExitStack() as stack:
        pages = [stack.enter_context(Page(hub)).register().listen("x.y") for _ in range(6)]
        socks = [page.begin_pull() for page in pages]
        assert pages[0].receive(socks[0]) == []
        wait_until(lambda: sum(waiting(hub, page) for page in pages) == 5)
        body = xmlrpc.client.dumps((), "samp.webhub.ping").encode() if method == "POST" else b""
        request(pages[0].port, method, target, {"Origin": "https://other.example"}, body)
        assert pages[1].receive(socks[1]) == []
        assert [waiting(hub, page) for page in pages] == [0, 0, 1, 1, 1, 1]


def test_eight_tabs_with_six_connections_all_work(hub, program):
    """R49: in this model of a browser each request waits for one of six connections."""
    connections = threading.Semaphore(6)
    got: dict[int, list[int]] = {}
    stop = threading.Event()
    tabs = 8

    def tab(index: int) -> None:
        with Page(hub, f"https://{index}.example") as page:
            with connections:
                page.register().listen("x.y")
            got[index] = []
            while not stop.is_set():
                with connections:
                    got[index] += numbers(page.pull("3"))
                time.sleep(0)  # the requests of other tabs are in the browser's queue before the next one of this tab

    threads = [threading.Thread(target=tab, args=(index,)) for index in range(tabs)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(got) == tabs)
    for number in range(10):
        send_numbers(program, number)
        threading.Event().wait(0.1)
    wait_until(lambda: all(len(numbers) == 10 for numbers in got.values()), 20)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert all(numbers == list(range(10)) for numbers in got.values())


def test_stopping_the_hub_ends_all_pulls(hub, page):
    sock = begin_pull(hub, page)
    began = time.monotonic()
    hub.stop()
    assert time.monotonic() - began < 2
    sock.settimeout(5)
    with contextlib.suppress(ConnectionError):
        Response(sock)
    assert sock.recv(1) == b""


def test_the_next_pull_of_a_page_that_was_disconnected_returns_the_final_message(hub, page, monkeypatch):
    """R26: it returns the message once. The number of stored messages is limited."""
    monkeypatch.setattr(web_profile, "MAX_FINAL_MESSAGES", 2)
    broker = hub._running.broker
    page.listen("samp.hub.disconnect")
    with Page(hub) as second, Page(hub) as third:
        pages = [page, second.register().listen("samp.hub.disconnect"), third.register().listen("samp.hub.disconnect")]
        for each in pages:
            broker.disconnect(broker.client(each.id), "too loud")
        wait_until(lambda: not hub._running.web._web_clients)
        for each in (second, third):
            [callback] = each.call("pullCallbacks", "600")
            assert callback["samp.params"][1]["samp.params"] == {"reason": "too loud"}
        for each in pages:
            with pytest.raises(xmlrpc.client.Fault, match="not, or no longer, registered"):
                each.call("pullCallbacks", "600")
