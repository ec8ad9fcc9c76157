# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Chromium and Firefox with sampjs: pages of two origins as clients of our hub."""
from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, SAMPProxyError
from pyvo.samp.testing import RecordingClient
from pyvo.samp.transport import server_connection

from .browser import NODE, Browser, Page, Site
from .network import WEB_PORT, own_network
from .programs import environment, need, until
from .recorder import Recorder

Connect = Callable[..., RecordingClient]

pytestmark = pytest.mark.timeout(120)

#: The subscriptions of the pages.
ANY = {"table.*": {}, "coord.*": {}, "image.*": {}}
#: Text that needs escapes in XML. Web pages send such text (R5).
AWKWARD = "<a href='x'>&amp; \"é\" \N{GREEK SMALL LETTER ALPHA}</a>\n\ttab ]]>"
#: The warning of our client when it sends such text, also in a reply.
NOT_ASCII = "ignore:.*beyond ASCII"


class User:
    """A consent prompt that records the requests.

    It decides at once unless `decide_now` is cleared, and denies pages with ``deny`` in their name.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.requested = threading.Semaphore(0)
        self.decide_now = threading.Event()
        self.decide_now.set()

    def __call__(self, samp_name: str, details: Mapping[str, str], client: tuple[str, int], origin: str) -> bool:
        """Record the name and the origin, and return the decision."""
        self.requests.append((samp_name, origin))
        self.requested.release()
        assert self.decide_now.wait(60)
        return "deny" not in samp_name


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """One network for the hub, the sites, the browser and the clients of all tests here."""
    need("node")
    for name in ("sampjs", "playwright-core", "ws"):
        if not (NODE / "node_modules" / name).is_dir():
            pytest.skip(f"{name} is not installed (tests/interop/install does it)")
    with own_network():
        yield


@pytest.fixture(scope="module")
def www(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the sites serve: the page, and data."""
    directory = tmp_path_factory.mktemp("www")
    for name in ("client.html", "client.js", "node_modules/sampjs/samp.js"):
        shutil.copy(NODE / name, directory)
    (directory / "other.html").write_text("<p>Another page.")
    (directory / "data.bin").write_bytes(bytes(range(256)) * 4096)
    (directory / "secret.bin").write_bytes(b"no program has mentioned this")
    return directory


@pytest.fixture(scope="module")
def sites(network: None, www: Path) -> Iterator[tuple[Site, Site]]:
    """Two origins."""
    with Site(www, "127.0.0.1") as first, Site(www, "localhost") as second:
        yield first, second


@pytest.fixture(scope="module", params=["chromium", "firefox-esr"])
def start_browser(
    network: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[], Browser]]:
    """Return a function that starts a browser of one kind, with its own profile."""
    need(request.param)
    executable = shutil.which(request.param)
    assert executable is not None
    with ExitStack() as stack:
        def start() -> Browser:
            directory = tmp_path_factory.mktemp("browser")
            one = Browser(executable, directory, environment(directory))
            stack.callback(one.stop)
            return one

        yield start


@pytest.fixture(scope="module")
def browser(start_browser: Callable[[], Browser]) -> Browser:
    """One browser for all tests. Each test opens its own tabs."""
    return start_browser()


@pytest.fixture
def user() -> User:
    """The user."""
    return User()


@pytest.fixture
def hub(home: Path, user: User) -> Iterator[SAMPHubServer]:
    """Our hub with both profiles and the default restrictions."""
    server = SAMPHubServer(web_port=WEB_PORT, web_profile_dialog=user)
    server.start()
    assert server.web_profile_running
    yield server
    server.stop()


@pytest.fixture
def page(hub: SAMPHubServer, browser: Browser, sites: tuple[Site, Site]) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page of the first or the second origin, until the end of the test."""
    opened: list[Page] = []

    def start(site: int = 0) -> Page:
        opened.append(browser.open(sites[site].url("client.html")))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def message(mtype: str, **params: Any) -> dict[str, Any]:
    """Return a message for sampjs."""
    return {"samp.mtype": mtype, "samp.params": params}


def test_pages_of_two_origins_and_a_program(
    user: User, page: Callable[..., Page], connect: Connect, sites: tuple[Site, Site], artefacts: Path
) -> None:
    """A registration needs consent, for the origin of the HTTP request (R40). All clients see each other."""
    client = connect("program")
    first, second = page(0), page(1)
    first_id, second_id = first.run("register", "first page", ANY), second.run("register", "second page", ANY)
    assert user.requests == [("first page", sites[0].origin), ("second page", sites[1].origin)]
    assert client.wait_for("first page", 60, "table.load.votable").id == first_id
    assert client.wait_for("second page", 60, "table.load.votable").id == second_id
    others = set(client.get_registered_clients()) - {first_id} | {client.get_public_id()}
    assert set(first.run("callHub", "getRegisteredClients")) == others
    assert second_id in others
    assert first.run("callHub", "getMetadata", client.get_public_id())["samp.name"] == "program"
    assert client.get_metadata(second_id)["samp.description.text"] == "a page"
    for name in ("program", "second page"):
        first.run("waitListed", name)
    first.screenshot(artefacts / "page.png")

    second.run("unregister")
    client.assert_unregistered(second_id, within=30)


def test_a_denied_page_is_not_registered(page: Callable[..., Page], connect: Connect) -> None:
    """A denial is a fault (R40), and the page can register again (R48)."""
    client = connect("program")
    before = client.get_registered_clients()
    one = page()
    with pytest.raises(RuntimeError, match="Fault"):
        one.run("register", "please deny", ANY)
    assert client.get_registered_clients() == before
    assert one.run("ping") is True
    assert one.run("register", "please agree", ANY) in client.get_registered_clients()


def test_a_page_from_a_file(
    hub: SAMPHubServer, user: User, browser: Browser, www: Path, connect: Connect
) -> None:
    """The origin of such a page is ``null``, which is valid (R48)."""
    client = connect("program")
    one = browser.open((www / "client.html").as_uri())
    page_id = one.run("register", "page", ANY)
    assert user.requests == [("page", "null")]
    assert client.ecall_and_wait(page_id, "table.ping", 20)["samp.status"] == "samp.ok"
    one.close()


def test_an_open_consent_request_delays_no_other_client(
    user: User, page: Callable[..., Page], connect: Connect
) -> None:
    """
    During a consent request, other clients of both profiles are served, and a further consent request waits (R41).
    """
    client = connect("program")
    first, second, third = page(0), page(0), page(1)
    first_id = first.run("register", "first", ANY)
    assert user.requested.acquire(timeout=10)
    user.decide_now.clear()
    open_second: Future[Any] = second.start("register", "second", ANY)
    open_third: Future[Any] = third.start("register", "third", ANY)
    assert user.requested.acquire(timeout=10)
    response = client.ecall_and_wait(first_id, "table.load.votable", 20, url="http://127.0.0.1/t")
    assert response["samp.result"] == {"echo": {"url": "http://127.0.0.1/t"}}
    assert not open_second.done()
    assert not open_third.done()
    user.decide_now.set()
    assert {open_second.result(30), open_third.result(30)} <= set(client.get_registered_clients())


@pytest.mark.filterwarnings(NOT_ASCII)
def test_every_operation_from_a_page(page: Callable[..., Page], connect: Connect) -> None:
    """A page sends text of all kinds (R5) to a program and to a page of another origin (R18)."""
    client = connect("program")
    received = Recorder(client, "coord.*")
    first, second = page(0), page(1)
    me, you = first.run("register", "first", ANY), second.run("register", "second", ANY)
    program = client.get_public_id()
    params = {"ra": "83.6", "text": AWKWARD, "list": ["", ["a", {}]], "empty": {}}

    for recipient in (program, you):
        first.run("callHub", "notify", recipient, message("coord.notify", **params))
        first.run("callHub", "call", recipient, "one", message("coord.call", **params))
        response = first.run("callHub", "callAndWait", recipient, message("coord.call-and-wait", **params), "20")
        assert response == {"samp.status": "samp.ok", "samp.result": {"echo": params}}
    assert set(first.run("callHub", "notifyAll", message("coord.notify-all", **params))) == {program, you}
    assert set(first.run("callHub", "callAll", "all", message("coord.call-all", **params))) == {program, you}

    # The second page and the program respond to all these calls with `reply`.
    for tag in ("one", "all"):
        responses = first.run("wait", tag, 2)
        assert {one["sender"] for one in responses} == {program, you}
        assert all(one["content"] == {"samp.status": "samp.ok", "samp.result": {"echo": params}} for one in responses)

    expected = [
        ("notification", "coord.notify"), ("call", "coord.call"), ("call", "coord.call-and-wait"),
        ("notification", "coord.notify-all"), ("call", "coord.call-all"),
    ]
    deliveries = received.wait(5)
    assert [(one.kind, one.name) for one in deliveries] == expected
    assert all((one.sender, one.content) == (me, params) for one in deliveries)
    for kind, name in expected:
        (delivery,) = second.run("wait", name, 1)
        assert delivery == {"kind": kind, "sender": me, "name": name, "content": params}


@pytest.mark.filterwarnings(NOT_ASCII)
def test_every_operation_to_a_page(page: Callable[..., Page], connect: Connect) -> None:
    """A program sends numbers and text of all kinds (R4, R5) to a page (R18)."""
    client = connect("program")
    responses = Recorder(client, "x-response")
    one = page()
    page_id = one.run("register", "page", ANY)
    me = client.get_public_id()
    sent = {"ra": 83.6, "row": 3, "text": AWKWARD, "lines": "one\r\ntwo", "list": ["", ["a", {}]]}
    arrived = {**sent, "ra": "83.6", "row": "3"}
    echo = {**arrived, "lines": "one\ntwo"}  # sampjs does not escape a carriage return, so XML drops it

    client.enotify(page_id, "coord.notify", **sent)
    assert client.enotify_all("coord.notify-all", **sent) == [page_id]
    client.ecall(page_id, "tag", "coord.call", **sent)
    assert set(client.ecall_all("tag", "coord.call-all", **sent)) == {page_id}
    response = client.ecall_and_wait(page_id, "coord.call-and-wait", 20, **sent)
    assert response == {"samp.status": "samp.ok", "samp.result": {"echo": echo}}
    for delivery in responses.wait(2):
        assert (delivery.sender, delivery.content) == (page_id, response)
    for kind, operation in (
        ("notification", "notify"), ("notification", "notify-all"), ("call", "call"), ("call", "call-all"),
        ("call", "call-and-wait"),
    ):
        (delivery,) = one.run("wait", f"coord.{operation}", 1)
        assert delivery == {"kind": kind, "sender": me, "name": f"coord.{operation}", "content": arrived}


def test_two_hundred_notifications_in_order(page: Callable[..., Page], connect: Connect) -> None:
    """In both directions each notification arrives once, in order (R24, R42)."""
    client = connect("program")
    received = Recorder(client, "coord.*")
    one = page()
    page_id = one.run("register", "page", ANY)
    for number in range(200):
        client.enotify(page_id, "coord.pointAt.sky", ra=number, dec=0)
    numbers = [int(each["content"]["ra"]) for each in one.run("wait", "coord.pointAt.sky", 200)]
    assert numbers == list(range(200))

    for number in range(200):
        one.run("callHub", "notify", client.get_public_id(), message("coord.pointAt.sky", ra=str(number), dec="0"))
    assert [int(each.content["ra"]) for each in received.wait(200)] == list(range(200))


def test_a_page_may_send_safe_messages_only(page: Callable[..., Page], connect: Connect) -> None:
    """R47: other messages are rejected unless the subscription of the recipient marks them as harmless."""
    client = connect("program")
    received = Recorder(client, "*")
    client.bind_receive_call("x-mine.open", lambda *_: None, metadata={"x-samp.mostly-harmless": "1"})
    client.bind_receive_call("table.shut", lambda *_: None, metadata={"x-samp.mostly-harmless": "0"})
    program = client.get_public_id()
    one = page()
    page_id = one.run("register", "page", ANY)
    for mtype in ("client.env.get", "script.aladin.send", "ds9.set", "table.shut"):
        with pytest.raises(RuntimeError, match="Fault"):
            one.run("callHub", "notify", program, message(mtype))
    one.run("callHub", "call", program, "tag", message("x-mine.open"))
    one.run("callHub", "notify", program, message("table.load.votable", url="http://127.0.0.1/t"))
    (delivery,) = received.wait(1, lambda each: each.sender == page_id)
    assert delivery.name == "table.load.votable"


def test_the_hub_reads_a_url_that_the_browser_does_not_read(
    page: Callable[..., Page], connect: Connect, sites: tuple[Site, Site], www: Path
) -> None:
    """
    URL translation (R46): a URL of a server without CORS headers, and a file. A URL that no program has mentioned
    is rejected.
    """
    client = connect("program")
    elsewhere, path = sites[1].url("data.bin?a=%41&b=c%20d"), www / "data.bin"
    one = page(0)
    page_id = one.run("register", "page", ANY)
    with pytest.raises(RuntimeError, match="Failed to fetch|NetworkError"):
        one.run("read", elsewhere, False)

    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for url in (elsewhere, path.as_uri()):
        assert one.run("read", url, True)["status"] == 403
        client.enotify(page_id, "table.load.votable", url=url)
        one.run("wait", "table.load.votable", 1)
        response = one.run("read", url, True)
        assert (response["status"], response["size"], response["sha256"]) == (200, len(content), digest), response
        assert response["type"] == "application/octet-stream"
    for url in ("file:///etc/passwd", (www / "secret.bin").as_uri(), sites[1].url("secret.bin")):
        assert one.run("read", url, True)["status"] == 403


def test_a_closed_tab_is_unregistered_by_the_hub(page: Callable[..., Page], connect: Connect) -> None:
    """
    A page that does not unregister is unregistered (R43), and a call to it gets an error (R23). Other pages stay
    registered.
    """
    client = connect("program")
    client.clients.subscribe()  # so that no event reaches a page while it is being closed, which ends its pull
    closed, reloaded, stays = page(0), page(0), page(1)
    closed_id, reloaded_id = closed.run("register", "closed", ANY), reloaded.run("register", "reloaded", ANY)
    stays_id = stays.run("register", "stays", ANY)
    closed.run("holdReplies")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.ecall_and_wait, closed_id, "table.slow", 60)
        closed.run("wait", "table.slow", 1)
        closed.close()
        reloaded.reload()
        client.assert_unregistered(closed_id, within=30)
        client.assert_unregistered(reloaded_id, within=30)
        response = waiting.result(10)
    assert response["samp.status"] == "samp.error"
    assert response["samp.error"]["samp.code"] == "samp.noresponse"

    again = reloaded.run("register", "reloaded", ANY)
    assert again not in (closed_id, reloaded_id, stays_id)
    assert {again, stays_id} <= set(client.get_registered_clients())
    with pytest.raises(SAMPProxyError):
        client.enotify(closed_id, "table.load.votable", url="http://127.0.0.1/t")


def test_a_late_reply_of_a_page_is_dropped(page: Callable[..., Page], connect: Connect) -> None:
    """R22: sampjs closes its connection when a reply gets a fault, so a late reply must not get one."""
    client = connect("program")
    one = page()
    page_id = one.run("register", "page", ANY)
    one.run("holdReplies")
    with pytest.raises(SAMPProxyError):
        client.ecall_and_wait(page_id, "table.slow", 1)
    one.run("releaseReplies")
    response = client.ecall_and_wait(page_id, "table.quick", 20)
    assert response["samp.status"] == "samp.ok"


def test_a_page_registers_at_the_next_hub(hub: SAMPHubServer, page: Callable[..., Page], connect: Connect) -> None:
    """sampjs reports that the hub has stopped, and the page can register again when a hub runs."""
    one = page()
    one.run("register", "page", ANY)
    hub.stop()
    assert one.run("waitClosed") is True
    assert one.run("ping") is False
    hub.start()
    assert one.run("ping") is True
    page_id = one.run("register", "page", ANY)
    client = connect("program")
    assert client.ecall_and_wait(page_id, "table.ping", 20)["samp.status"] == "samp.ok"


def test_a_busy_page_is_notified_that_the_hub_shuts_down(
    hub: SAMPHubServer, page: Callable[..., Page], connect: Connect
) -> None:
    """A page between two pulls gets the event with its next pull (R26, R42)."""
    one = page()
    page_id = one.run("register", "page", ANY)
    one.run("workOnMessages", 300)
    connect("program").enotify(page_id, "table.load.votable", url="http://127.0.0.1/t")
    hub.stop()
    assert one.run("waitClosed") is True
    assert "samp.hub.event.shutdown" in one.run("names")


def test_eight_tabs_of_one_browser_all_work(page: Callable[..., Page], connect: Connect) -> None:
    """R49: a browser opens at most six connections to a host, and each tab's pull would occupy one."""
    client = connect("program")
    tabs = [page(0) for _ in range(8)]
    ids = [tab.run("register", f"tab {number}", ANY) for number, tab in enumerate(tabs)]
    for round_number in range(2):
        for page_id in ids:
            assert client.ecall_and_wait(page_id, "table.ping", 20, n=round_number)["samp.status"] == "samp.ok"
    assert set(ids) <= set(client.get_registered_clients())


# Restored sessions, pages that are held up, and pages that are closed

#: Seconds for which a page is held up.
HELD_UP = [3, pytest.param(75, marks=[pytest.mark.slow, pytest.mark.timeout(200)])]


def send(client: SAMPIntegratedClient, page_id: str, *numbers: int, **more: str) -> None:
    """Send notifications to a page."""
    for number in numbers:
        client.enotify(page_id, "table.number", n=str(number), **more)


def arrived(page: Page, count: int) -> list[int]:
    """Wait for the notifications of `send`; return their numbers."""
    return [int(each["content"]["n"]) for each in page.run("wait", "table.number", count)]


@contextmanager
def suspended(browser: Browser) -> Iterator[None]:
    """Stop the processes that run pages with SIGSTOP; let them continue at the end of the block."""
    processes = browser.tab_processes()
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_the_tabs_of_a_restored_session_are_one_consent_request(
    hub: SAMPHubServer, user: User, page: Callable[..., Page], connect: Connect
) -> None:
    """R40, R41: eight tabs register at the same time, although the browser has six connections for them."""
    client = connect("program")
    user.decide_now.clear()
    tabs = [page(0) for _ in range(8)]
    registrations = [tab.start("register", f"tab {number}", ANY) for number, tab in enumerate(tabs)]
    queue = hub._running.web._consent
    until(lambda: sum(ticket.sharing for ticket in queue._open_tickets()), lambda number: number == 6)
    user.decide_now.set()
    ids = {registration.result(30) for registration in registrations}
    assert len(ids) == 8
    assert ids <= set(client.get_registered_clients())
    assert len(user.requests) == 1
    for page_id in ids:
        assert client.ecall_and_wait(page_id, "table.ping", 20)["samp.status"] == "samp.ok"


def test_a_denial_denies_all_tabs_of_a_session(
    hub: SAMPHubServer, user: User, page: Callable[..., Page]
) -> None:
    """R40."""
    user.decide_now.clear()
    registrations = [page(0).start("register", "please deny", ANY) for _ in range(5)]
    queue = hub._running.web._consent
    until(lambda: sum(ticket.sharing for ticket in queue._open_tickets()), lambda number: number == 5)
    user.decide_now.set()
    for registration in registrations:
        with pytest.raises(RuntimeError, match="Fault"):
            registration.result(30)
    assert len(user.requests) == 1


@pytest.mark.parametrize("seconds", HELD_UP)
def test_a_page_with_an_open_dialog_stays_registered(page: Callable[..., Page], connect: Connect, seconds: int) -> None:
    """R43: ``alert()`` blocks the page. Afterwards the page gets the messages that were sent in the meantime."""
    client = connect("program")
    one = page()
    page_id = one.run("register", "page", ANY)
    one.run("openDialog")
    threading.Event().wait(1)
    send(client, page_id, 1, 2)
    threading.Event().wait(seconds)
    send(client, page_id, 3)
    one.close_dialog()
    assert arrived(one, 3) == [1, 2, 3]
    assert client.ecall_and_wait(page_id, "table.ping", 20)["samp.status"] == "samp.ok"


@pytest.mark.parametrize("seconds", HELD_UP)
def test_a_page_whose_process_is_suspended_stays_registered(
    browser: Browser, page: Callable[..., Page], connect: Connect, seconds: int
) -> None:
    """R43: SIGSTOP suspends the processes that run pages."""
    client = connect("program")
    one = page()
    page_id = one.run("register", "page", ANY)
    with suspended(browser):
        send(client, page_id, 1, 2)
        threading.Event().wait(seconds)
        send(client, page_id, 3)
    assert arrived(one, 3) == [1, 2, 3]
    assert client.ecall_and_wait(page_id, "table.ping", 20)["samp.status"] == "samp.ok"


@pytest.mark.parametrize("write_time", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_a_suspended_page_gets_large_messages_when_it_continues(
    browser: Browser, page: Callable[..., Page], connect: Connect, monkeypatch: pytest.MonkeyPatch, write_time: int
) -> None:
    """R42, R43: the hub closes the connection of a slow reader. The page itself has not broken off a pull."""
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT", write_time)
    client = connect("program")
    one = page()
    page_id = one.run("register", "page", ANY)
    with suspended(browser):
        send(client, page_id, *range(6), pad="x" * 3_000_000)
        threading.Event().wait(write_time + 12)  # more than the time after which a closed page is unregistered
    assert arrived(one, 6) == list(range(6))
    assert client.ecall_and_wait(page_id, "table.ping", 20)["samp.status"] == "samp.ok"


def test_back_to_the_previous_page(
    browser: Browser, page: Callable[..., Page], sites: tuple[Site, Site], connect: Connect
) -> None:
    """
    R43: Chromium 156 keeps a page with its pull in its back/forward cache. Firefox 153 keeps no page that has a
    pull.
    """
    client = connect("program")
    client.clients.subscribe()  # so that no event reaches the page while it is being closed, which ends its pull
    one = page()
    page_id = one.run("register", "page", ANY)
    one.go(sites[0].url("other.html"))
    if browser.is_firefox:
        client.assert_unregistered(page_id, within=30)
        one.back()
        assert not one.run("isConnected")
        page_id = one.run("register", "page", ANY)
        send(client, page_id, 1)
    else:
        send(client, page_id, 1)
        threading.Event().wait(12)  # longer than a closed page stays registered
        one.back()
        assert one.run("isConnected")
    assert arrived(one, 1) == [1]
    assert client.ecall_and_wait(page_id, "table.ping", 20)["samp.status"] == "samp.ok"
    one.go(sites[0].url("other.html"))
    one.close()
    client.assert_unregistered(page_id, within=30)


def uploaded(url: str, total: int) -> Path:
    """Check the content of a file that `client.upload` has uploaded; return its path."""
    path = Path(url.removeprefix("file://"))
    with path.open("rb") as file:
        for number in range(-(-total // 2**20)):
            assert file.read(2**20) == bytes([number % 256]) * min(2**20, total - number * 2**20)
        assert file.read(1) == b""
    return path


def test_a_page_uploads_a_file(page: Callable[..., Page], connect: Connect) -> None:
    """
    The browser sends a preflight and chunks at the same time. A program reads the file, which is removed when the
    page unregisters.
    """
    client = connect("program")
    recorder = Recorder(client, "table.load.votable")
    one = page()
    one.run("register", "page", ANY)
    url = one.run("upload", one.run("uploadUrl") + "x1/M%2031.vot", 10_000_000)
    one.run("callHub", "notifyAll", message("table.load.votable", url=url))
    assert recorder.wait(1)[0].content["url"] == url
    path = uploaded(url, 10_000_000)
    assert path.name == "M_31.vot"
    assert one.run("readThroughHub", url) == 10_000_000
    one.run("unregister")
    until(path.exists, lambda exists: not exists)


@pytest.mark.parametrize("size", [0, 3_000_000])
def test_the_example_of_the_documentation(page: Callable[..., Page], size: int) -> None:
    """The code for authors of pages works without changes."""
    text = (Path(__file__).parents[2] / "docs" / "reference" / "web-upload.rst").read_text(encoding="utf-8")
    code = text.partition(".. code-block:: javascript")[2]
    one = page()
    one.run("register", "page", ANY)
    call = f"upload(client.connection.regInfo, 'M 31.vot', new Blob([new Uint8Array({size}).fill(7)]))"
    url = one.evaluate(f"(() => {{ {code}; return {call}; }})()")
    assert Path(url.removeprefix("file://")).read_bytes() == bytes([7]) * size


def test_another_origin_cannot_upload(page: Callable[..., Page], connect: Connect) -> None:
    """Neither the browser nor the hub allows the upload, even if the other origin has the URL."""
    owner, other = page(0), page(1)
    owner.run("register", "page", ANY)
    url = owner.run("uploadUrl") + "x/table.vot"
    with pytest.raises(RuntimeError, match="TypeError"):
        other.run("upload", url, 1000)
    other.run("register", "other page", ANY)
    with pytest.raises(RuntimeError, match="TypeError"):
        other.run("upload", url, 1000)
    for method in ("PUT", "DELETE"):
        with pytest.raises(RuntimeError, match="TypeError"):
            other.evaluate(f"fetch({url!r}, {{method: {method!r}, mode: 'no-cors', body: 'x'}}).then(() => 0)")
    assert other.evaluate(f"fetch({url!r}).then((response) => response.status)") == 403
    assert owner.evaluate(f"fetch({url!r}).then((response) => response.status)") == 404  # nothing was received
    uploaded(owner.run("upload", url, 1000), 1000)


def test_a_crashed_tab_is_unregistered(browser: Browser, page: Callable[..., Page], connect: Connect) -> None:
    """R43."""
    if browser.is_firefox:
        pytest.skip("Firefox 153 leaves the pull of a crashed tab open, so that the hub cannot detect the crash")
    client = connect("program")
    # subscribes to the hub's events before the page registers, so that the pull of the page stays open
    client.clients.subscribe()
    page_id = page().run("register", "page", ANY)
    for process in browser.tab_processes():
        process.kill()
    client.assert_unregistered(page_id, within=30)


def test_the_pages_of_a_crashed_browser_are_unregistered(
    hub: SAMPHubServer, start_browser: Callable[[], Browser], sites: tuple[Site, Site], connect: Connect
) -> None:
    """R43: also pages between two pulls, because each page has just been notified of the others."""
    client = connect("program")
    client.clients.subscribe()  # subscribes to the hub's events now, and not after the crash
    browser = start_browser()
    ids = [browser.open(sites[0].url("client.html")).run("register", "page", ANY) for _ in range(3)]
    browser.kill()
    for page_id in ids:
        client.assert_unregistered(page_id, within=30)
