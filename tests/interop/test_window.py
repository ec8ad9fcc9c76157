# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub window in a browser: its display, its actions, and protection against other pages."""
from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
import pytest

from pyvo.samp import SAMP_ICON, SAMPHubServer, SAMPIntegratedClient

from .browser import NODE, Browser, Page, Site
from .conftest import Run
from .network import WEB_PORT
from .programs import environment, need
from .test_browser import ANY, NOT_ASCII, network, sites, www  # noqa: F401 - fixtures

Connect = Callable[..., SAMPIntegratedClient]

pytestmark = pytest.mark.timeout(180)

CALLS = {"table.*": {}}


@contextmanager
def started(command: str, directory: Path) -> Iterator[Browser]:
    """Run a browser of this kind, with its own profile."""
    need(command)
    executable = shutil.which(command)
    assert executable is not None
    browser = Browser(executable, directory, environment(directory))
    try:
        yield browser
    finally:
        browser.stop()


@pytest.fixture(scope="module")
def browser(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:  # noqa: F811
    """A Chromium for all tests. Each test opens its own tabs."""
    with started("chromium", tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture
def hub(home: Path) -> Iterator[SAMPHubServer]:
    """Our hub with both profiles. Its window shows consent requests."""
    server = SAMPHubServer(web_port=WEB_PORT, web_profile_dialog="window", label="test")
    server.start()
    assert server.web_profile_running
    yield server
    server.stop()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Return a function that opens a tab, which is closed after the test."""
    opened: list[Page] = []

    def start(url: str) -> Page:
        opened.append(browser.open(url))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def window(hub: SAMPHubServer, tab: Callable[[str], Page]) -> Page:
    """The hub window, after it has connected."""
    one = tab(hub.open_window(browser=False))
    one.wait_for(".state.running")
    return one


def has(text: str) -> str:
    """Return a selector for an item of the client list that contains a text."""
    return f"#clients > li:has-text('{text}')"


def decide(window: Page, decision: str) -> None:
    """Click a button of the consent dialog as soon as it is enabled."""
    window.wait_for(f"#consent-{decision}:enabled")
    window.act(f"#consent-{decision}", "click")


# The display


def test_clients_messages_and_disconnect(
    window: Page, tab: Callable[[str], Page], sites: tuple[Site, Site], connect: Connect, show: Run,  # noqa: F811
    home: Path, artefacts: Path,
) -> None:
    """
    The window shows names, icons and subscriptions of TOPCAT, a page and a program, and a call before and after its
    response. It disconnects a client.
    """
    icon = home / "icon.png"
    icon.write_bytes(SAMP_ICON)
    client = connect("program", **{"samp.icon.url": icon.as_uri()})
    disconnected = threading.Event()
    client.bind_receive_notification("samp.hub.disconnect", lambda *_: disconnected.set())
    page = tab(sites[0].url("client.html"))
    registered = page.start("register", "a page", CALLS)
    decide(window, "once")
    page_id = registered.result(30)
    show("topcat", "-samp")
    client.wait_for("topcat", timeout=120)
    for name in ("program", "a page", "topcat"):
        window.wait_for(has(name))
    window.wait_for(f"{has('program')} >> .icon img")
    assert window.act("page", "evaluate", "document.querySelector('.icon img').naturalWidth") > 0
    window.act(f"{has('topcat')} >> summary", "click")
    window.wait_for(f"{has('topcat')} >> text=table.load.votable")
    window.wait_for(f"{has('topcat')} >> text=Mark Taylor")
    window.wait_for(f"{has('a page')} >> text=web")

    page.run("holdReplies")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.ecall_and_wait, page_id, "table.slow", 60, text="a < b")
        window.wait_for("tr.call:has-text('table.slow') .status.due")
        assert window.text("tr.call:has-text('table.slow') .content") == '{"text": "a < b"}'
        window.wait_for(f"{has('a page')} >> .mark.in.due", "attached")
        window.wait_for(f"{has('program')} >> .mark.out.due", "attached")
        page.run("releaseReplies")
        window.wait_for("tr.call:has-text('table.slow') .status.ok")
        assert waiting.result(30)["samp.status"] == "samp.ok"
    window.wait_for(f"{has('a page')} >> .mark.due", "detached")
    window.act("td button >> text=table.slow", "click")
    window.wait_for("#detail")
    assert '"text": "a < b"' in window.text("#detail-text")
    assert "a page" in window.text("#detail-replies")
    window.act("#detail-close", "click")
    window.screenshot(artefacts / "hub-window.png")

    window.act(f"{has('topcat')} >> button:text('Ping')", "click")
    window.wait_for("#notice:has-text('replied samp.ok')")
    window.act(f"{has('program')} >> summary", "click")
    window.act(f"{has('program')} >> button:text('Disconnect')", "click")
    window.act("#confirm-yes", "click")
    assert disconnected.wait(20)
    window.wait_for(has("program"), "detached")
    window.wait_for("tr.event:has-text('program') >> text=has unregistered")


def test_filters_and_pause(window: Page, connect: Connect) -> None:
    """The table is filtered by client, MType and status. A pause stops its updates."""
    one, two = connect("first"), connect("second")
    for client in (one, two):
        client.bind_receive_notification("x.*", lambda *_: None)
    two.bind_receive_call("y.call", lambda key, sender, msg_id, *_: two.ereply(msg_id, "samp.ok", result={}))
    one.enotify(two.get_public_id(), "x.a")
    two.enotify(one.get_public_id(), "x.b")
    one.ecall_and_wait(two.get_public_id(), "y.call", 10)
    window.wait_for("td .status.ok")
    window.act("#by-mtype", "fill", "X.")
    window.wait_for("td button >> text=y.call", "detached")
    assert window.act("#rows tr", "count") == 2
    window.act("#by-mtype", "fill", "")
    window.act("#by-status", "selectOption", "ok")
    assert window.act("#rows tr", "count") == 1
    window.act("#by-status", "selectOption", "event")
    assert window.act("#rows tr", "count") == 2
    window.act("#by-status", "selectOption", "")
    third = connect("third")
    third.enotify(two.get_public_id(), "x.c")
    window.wait_for("td button >> text=x.c")
    window.act("#by-client", "selectOption", third.get_public_id())
    assert window.act("#rows tr", "count") == 1
    window.act("#pause", "click")
    window.act("#by-client", "selectOption", "")
    shown = window.act("#rows tr", "count")
    total = int(window.text("#message-count"))
    one.enotify(two.get_public_id(), "x.d")
    window.wait_for(f"#message-count:text-is('{total + 1}')")
    assert window.act("#rows tr", "count") == shown
    window.act("#pause", "click")
    window.wait_for("td button >> text=x.d")


def test_the_button_stops_the_hub(window: Page, hub: SAMPHubServer) -> None:
    """The window asks for confirmation, and shows that the hub has stopped."""
    window.act("#stop", "click")
    window.act("#confirm-no", "click")
    assert hub.is_running
    window.act("#stop", "click")
    window.act("#confirm-yes", "click")
    window.wait_for("text=the hub has stopped")
    assert hub._running is not None
    assert hub._running.closed.wait(10)
    assert not hub.is_running


def test_a_killed_hub_is_noticed(tab: Callable[[str], Page], run: Run, network: None) -> None:  # noqa: F811
    """The window shows that the hub does not respond, and tries to connect again."""
    program = run("samp-hub") if shutil.which("samp-hub") else None
    if program is None:
        from .test_command_line import ROOT, SAMP

        program = run(*SAMP, "hub", "--window", "--no-browser", "-w", PYTHONPATH=str(ROOT))
    page = tab(program.wait_for_match(r"(http://127\.0\.0\.1:[0-9]+/#[\w-]+)\s")[1])
    page.wait_for(".state.running")
    program.signal(signal.SIGKILL)
    page.wait_for(".state.gone")


# Consent


def test_consent(window: Page, tab: Callable[[str], Page], sites: tuple[Site, Site]) -> None:  # noqa: F811
    """
    The user denies, allows once, and allows always. Then this origin needs no consent any more, but another one
    does.
    """
    first = tab(sites[0].url("client.html"))
    denied = first.start("register", "first", ANY)
    window.wait_for("#consent")
    assert window.text("#consent-name") == "first"
    assert window.text("#consent-origin") == sites[0].origin
    assert window.act("#consent-once", "isDisabled")  # so that a click that was meant for something else has no effect
    window.act("keyboard", "press", "Escape")
    assert window.act("#consent", "isVisible")
    decide(window, "deny")
    with pytest.raises(RuntimeError, match="Fault"):
        denied.result(30)
    window.wait_for("#consent", "hidden")
    allowed = first.start("register", "first", ANY)
    decide(window, "once")
    assert allowed.result(30)
    first.run("unregister")
    always = first.start("register", "first", ANY)
    decide(window, "always")
    assert always.result(30)
    first.run("unregister")
    assert first.run("register", "first", ANY)
    other = tab(sites[1].url("client.html"))
    registration = other.start("register", "other", ANY)
    window.wait_for("#consent:has-text('other')")
    decide(window, "once")
    assert registration.result(30)


def test_page_without_an_origin(window: Page, tab: Callable[[str], Page], www: Path) -> None:  # noqa: F811
    """The window does not offer "always" to a page from a file."""
    page = tab((www / "client.html").as_uri())
    registration = page.start("register", "from a file", ANY)
    window.wait_for("#consent-once:enabled")
    assert not window.act("#consent-always", "isVisible")
    decide(window, "once")
    assert registration.result(30)


def test_a_page_is_closed_during_its_consent_request(
    window: Page, tab: Callable[[str], Page], sites: tuple[Site, Site]  # noqa: F811
) -> None:
    """The dialog closes, and the page is not registered."""
    page = tab(sites[0].url("client.html"))
    page.start("register", "short-lived", ANY)
    window.wait_for("#consent")
    page.close()
    window.wait_for("#consent", "hidden")
    assert window.text("#client-count") == "0"


def test_the_window_is_closed_during_a_consent_request(
    window: Page, hub: SAMPHubServer, tab: Callable[[str], Page], sites: tuple[Site, Site],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The page waits, and another window shows the request. Without a window the request is denied after its time-out.
    """
    page = tab(sites[0].url("client.html"))
    registration = page.start("register", "patient", ANY)
    window.wait_for("#consent")
    window.close()
    assert not registration.done()
    again = tab(hub.open_window(browser=False))
    decide(again, "once")
    assert registration.result(30)
    page.run("unregister")
    assert hub._running is not None
    assert hub._running.web is not None
    monkeypatch.setattr(hub._running.web._consent, "_timeout", 2.0)
    registration = page.start("register", "patient", ANY)
    again.wait_for("#consent")
    again.close()
    with pytest.raises(RuntimeError, match="Fault"):
        registration.result(30)


def test_thirty_consent_requests_at_the_same_time(window: Page, hub: SAMPHubServer) -> None:
    """They are shown one after the other. Each needs its own decision, and a double click decides only one."""
    def register(number: int) -> bool:
        headers = [("Origin", f"https://site{number}.example.org")]
        with ServerProxy(f"http://127.0.0.1:{WEB_PORT}/", headers=headers) as proxy:
            try:
                proxy.samp.webhub.register({"samp.name": f"page {number}."})
            except Fault:
                return False
            return True

    decisions: dict[int, bool] = {}
    registrations = [_InThread(register, number) for number in range(30)]
    for _ in range(30):
        window.wait_for("#consent-deny:enabled")
        number = int(re.findall(r"page (\d+)\.", window.text("#consent-name"))[0])
        decisions[number] = number % 3 > 0
        window.act("#consent-once" if decisions[number] else "#consent-deny", "dblclick")
        window.wait_for(f"#consent:has-text('page {number}.')", "hidden")
    assert [one.result() for one in registrations] == [decisions[number] for number in range(30)]
    window.wait_for("#client-count:text-is('20')")


class _InThread:
    """A call in another thread."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._result: Any = None
        self._thread = threading.Thread(target=self._run, args=(function, args))
        self._thread.start()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._result = function(*args)

    def result(self) -> Any:
        self._thread.join(60)
        return self._result


# Hostile clients and pages


@pytest.mark.filterwarnings(NOT_ASCII)
def test_hostile_metadata(
    window: Page, hub: SAMPHubServer, connect: Connect, sites: tuple[Site, Site], www: Path, browser: Browser,  # noqa: F811
) -> None:
    """HTML, characters that reverse text, 1 MB of text, and invalid icons are shown as text, and no script runs."""
    html = "<img src=x onerror=\"document.title='hacked'\">"
    (www / "icon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload=\"alert(1)\"/>")
    icons = ["file:///etc/passwd", sites[0].url("icon.svg"), (www / "icon.svg").as_uri(), "javascript:alert(1)", html]
    clients = [
        connect(f"{html} {number}", **{"samp.icon.url": icon, "author.name": "\u202e" + html, "big": "x" * 1_000_000})
        for number, icon in enumerate(icons)
    ]
    clients[0].bind_receive_notification("*", lambda *_: None)
    clients[1].enotify(clients[0].get_public_id(), "a.b", text=html, reversed="\u202eabc")
    window.wait_for("td button >> text=a.b")
    for number in range(1, 6):
        window.act(f"#clients > li:nth-child({number}) summary", "click")
    window.act("td button >> text=a.b", "click")
    window.wait_for("#detail")
    assert html in window.text("#clients > li:nth-child(1) .name")
    assert "\\u202eabc" in window.text("#detail-text")
    everything = window.act("body", "innerText")
    assert "\u202e" not in everything
    assert "?<img" in everything
    assert len(everything) < 100_000
    assert "root:" not in everything
    assert window.act("img, script:not([src]), svg, object, iframe", "count") == 0
    assert window.act("page", "title") == "SAMP hub"
    log = browser.log.read_text()
    assert "hacked" not in log
    assert "Content Security Policy" not in log  # no element has even tried to load anything


def test_another_origin(
    window: Page, hub: SAMPHubServer, tab: Callable[[str], Page], sites: tuple[Site, Site], www: Path,  # noqa: F811
) -> None:
    """
    Requests, scripts, styles, images, frames and forms of another page in the same browser read nothing and have no
    effect.
    """
    shutil.copy(NODE / "attack.html", www)
    address = hub.open_window(browser=False).partition("//")[2].partition("/")[0]
    page = tab(sites[0].url(f"attack.html#{address}"))
    page.wait_for("#done:not(:empty)")
    assert page.text("#done").split("\n") == [
        "cors: TypeError", "state: TypeError", "no-cors: TypeError", "stop: TypeError", "plain stop: TypeError",
        "script: error", "style: error", "image: error", "frame: SecurityError",
    ]
    page.act("#form", "click")
    page.wait_for("text=The hub window rejects requests from other pages")
    assert hub.is_running
    assert window.text("#state") == "running"


def test_the_token_is_valid_once(hub: SAMPHubServer, tab: Callable[[str], Page]) -> None:
    """The token disappears from the address. A second tab cannot use it. The first tab can be reloaded."""
    url = hub.open_window(browser=False)
    first = tab(url)
    first.wait_for(".state.running")
    assert first.act("page", "url") == url.partition("#")[0]
    second = tab(url)
    second.wait_for("text=This link has expired or has already been used")
    assert second.act("#clients > li", "count") == 0
    third = tab(url.partition("#")[0])
    third.wait_for("text=This window has no key")
    first.reload()
    first.wait_for(".state.running")
    assert hub.is_running


def test_redirect_file(
    hub: SAMPHubServer, tab: Callable[[str], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser is started with a file that leads to the window, so no process has the token on its command line."""
    files: list[Path] = []
    monkeypatch.setattr("pyvo.samp.window.server.open_browser", lambda path: not files.append(path))
    hub.open_window()
    token = re.findall(r"#([\w-]{43})", files[0].read_text())[0]
    page = tab(files[0].as_uri())
    page.wait_for(".state.running")
    assert not files[0].exists()
    lists = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert any(b"chromium" in line for line in lists)
    assert not [line for line in lists if token.encode() in line]


def test_the_link_in_a_notebook_opens_the_window(
    hub: SAMPHubServer, tab: Callable[[str], Page], sites: tuple[Site, Site], www: Path  # noqa: F811
) -> None:
    """The notebook is a page of another origin."""
    (www / "notebook.html").write_text(f"<!doctype html><title>notebook</title>{hub._repr_html_()}")
    page = tab(sites[1].url("notebook.html"))
    page.act("page", "evaluate", "document.querySelector('a').target = '_self'")
    page.act("a", "click")
    page.wait_for(".state.running")


# Accessibility


def test_accessibility(
    window: Page, connect: Connect, tab: Callable[[str], Page], sites: tuple[Site, Site]  # noqa: F811
) -> None:
    """Every element has a role and a name."""
    one, two = connect("first"), connect("second")
    two.bind_receive_notification("x.a", lambda *_: None)
    one.enotify(two.get_public_id(), "x.a")
    window.wait_for("td button >> text=x.a")
    window.act(f"{has('second')} >> summary", "click")
    tree = window.act("body", "ariaSnapshot")
    for part in (
        "- banner:", '- heading "SAMP hub test" [level=1]', "- status: running", '- list "Profiles":',
        '- button "Stop the hub"', "- main:", '- region "Clients 2":', '- img "0 responses due"',
        '- button "Ping"', '- button "Disconnect"', '- region "Messages 1":', '- search "Filter messages":',
        '- combobox "Client":', '- searchbox "MType contains"', '- combobox "Status":', '- button "Pause"',
        '- table "Messages 1":', '- columnheader "MType"', '- button "x.a"',
    ):
        assert part in tree, (part, tree)
    nameless = "button:not(:text-matches('.')):visible, img:not([alt]), :is(select, input):not([aria-label])"
    assert window.act(nameless, "count") == 0
    window.act("page", "setViewportSize", {"width": 400, "height": 800})
    assert '- table "Messages 1":' in window.act("body", "ariaSnapshot")
    assert window.act("page", "evaluate", "document.documentElement.scrollWidth") <= 400
    window.act("page", "setViewportSize", {"width": 900, "height": 600})
    page = tab(sites[0].url("client.html"))
    page.start("register", "asks", ANY)
    window.wait_for("#consent-once:enabled")
    tree = window.act("body", "ariaSnapshot")
    assert '- alertdialog "A web page asks to join SAMP":' in tree
    for name in ("Deny", "Always allow this origin", "Allow once"):
        assert f'- button "{name}"' in tree
    page.close()
    window.wait_for("#consent", "hidden")


def test_the_window_can_be_used_with_the_keyboard(
    window: Page, hub: SAMPHubServer, connect: Connect, tab: Callable[[str], Page], sites: tuple[Site, Site]  # noqa: F811
) -> None:
    """Tab, Enter and Space are enough to open a client, ping it, read a message, allow a page, and stop the hub."""
    def press(*keys: str) -> None:
        for key in keys:
            window.act("keyboard", "press", key)

    def reach(selector: str) -> None:
        for _ in range(40):
            press("Tab")
            if window.act(f"{selector}:focus", "count"):
                return
        pytest.fail(f"{selector} cannot be reached by Tab")

    one, two = connect("first"), connect("second")
    two.bind_receive_notification("x.a", lambda *_: None)
    one.enotify(two.get_public_id(), "x.a", text="hello")
    window.wait_for("td button >> text=x.a")
    reach(f"{has('first')} >> summary")
    press("Enter")
    reach(f"{has('first')} >> button:text('Ping')")
    press("Space")
    window.wait_for("#notice:has-text('replied')")
    reach("td button")
    press("Enter")
    window.wait_for("#detail")
    press("Escape")
    window.wait_for("#detail", "hidden")
    assert window.act("td button:focus", "count") == 1
    press("Shift+Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab", "Shift+Tab")
    reach("#pause")
    press("Space")
    window.wait_for("#pause[aria-pressed=true]")
    page = tab(sites[0].url("client.html"))
    window.act("page", "bringToFront")
    registration = page.start("register", "asks", ANY)
    window.wait_for("#consent-once:enabled")
    reach("#consent-once")
    press("Enter")
    assert registration.result(30)
    window.wait_for("#consent", "hidden")
    reach("#stop")
    press("Enter")
    window.wait_for("#confirm")
    reach("#confirm-yes")
    press("Enter")
    window.wait_for("text=the hub has stopped")


# Slow browsers


def test_a_suspended_browser(
    home: Path, tmp_path_factory: pytest.TempPathFactory, network: None, hub: SAMPHubServer, connect: Connect  # noqa: F811
) -> None:
    """A browser under SIGSTOP costs the hub no memory, and gets a snapshot when it continues."""
    with started("chromium", tmp_path_factory.mktemp("stopped")) as own:
        page = own.open(hub.open_window(browser=False))
        page.wait_for(".state.running")
        one, two = connect("first"), connect("second")
        two.bind_receive_notification("x.*", lambda *_: None)

        def send(count: int) -> None:
            for number in range(count):
                one.enotify(two.get_public_id(), "x.a", text="x" * 2000, number=number)

        send(2000)
        process = psutil.Process()
        chromium = psutil.Process(own._process.pid).children(recursive=True)
        before = process.memory_info().rss
        for child in chromium:
            child.suspend()
        try:
            send(8000)
            assert process.memory_info().rss - before < 30_000_000
        finally:
            for child in chromium:
                child.resume()
        one.enotify(two.get_public_id(), "x.last")
        page.wait_for("td button >> text=x.last")
        page.wait_for("#clients >> text=10001 sent")
        page.wait_for("#rows tr:nth-child(500)", "attached")  # the rows of the snapshot come later
        assert page.act("#rows tr", "count") == 500


def test_memory_of_the_tab(window: Page, connect: Connect) -> None:
    """The tab keeps 500 rows, so heap and document do not grow with the number of messages at the hub's full rate."""
    one, two = connect("first"), connect("second")
    two.bind_receive_notification("x.*", lambda *_: None)
    two.bind_receive_call("y.*", lambda key, sender, msg_id, *_: two.ereply(msg_id, "samp.ok", result={}))
    recipient = two.get_public_id()

    def send(seconds: float, last: str) -> dict[str, float]:
        """Send notifications and calls, and connect clients; return the counters when the last message is shown."""
        end = time.monotonic() + seconds
        for number in itertools.count():
            if time.monotonic() > end:
                break
            one.enotify(recipient, "x.a", text="x" * 2000, number=number)
            if number % 10 == 0:
                one.ecall_and_wait(recipient, "y.call", 20, text="x" * 2000)
            if number % 100 == 0:
                with SAMPIntegratedClient(name=f"passing {number}"):
                    pass
        one.enotify(recipient, last)
        window.wait_for(f"td button >> text={last}")
        window.wait_for("#rows tr:nth-child(500)", "attached")
        assert window.act("#rows tr", "count") == 500
        return window.metrics()

    before = send(3.0, "x.first")
    after = send(6.0, "x.second")
    assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] + 1_000_000 < 10_000_000
    assert after["Nodes"] < before["Nodes"] * 1.1 < 15_000
    assert after["JSEventListeners"] < before["JSEventListeners"] * 1.1 < 1_000


# Firefox

#: A promise that is resolved when an element contains a text.
TEXT_APPEARS = """new Promise((resolve) => {
    const [selector, text] = %s;
    const check = () => document.querySelector(selector)?.textContent.includes(text) && resolve();
    new MutationObserver(check).observe(document, { subtree: true, childList: true, characterData: true });
    check();
})"""


def test_firefox(hub: SAMPHubServer, connect: Connect, tmp_path: Path, artefacts: Path) -> None:
    """A smoke test: the token is exchanged, clients and messages are shown, and a client is disconnected."""
    one, two = connect("first"), connect("second")
    two.bind_receive_notification("x.a", lambda *_: None)
    with started("firefox-esr", tmp_path) as firefox:
        window = firefox.open(hub.open_window(browser=False))

        def wait_for_text(selector: str, text: str) -> None:
            window.evaluate(TEXT_APPEARS % json.dumps([selector, text]))

        wait_for_text("#state", "running")
        wait_for_text("#clients", "second")
        one.enotify(two.get_public_id(), "x.a", text="hello")
        wait_for_text("#rows", "hello")
        window.screenshot(artefacts / "hub-window-firefox.png")
        for button in ("button.danger", "#confirm-yes"):
            window.evaluate(f"document.querySelector({json.dumps(button)}).click()")
        wait_for_text("#rows", "first (c1) has unregistered")
        assert window.evaluate("location.href").endswith("/")
