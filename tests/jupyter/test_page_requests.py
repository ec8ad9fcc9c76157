# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Which page carries out a request, and what ends the request: without threads, with a clock that the test sets."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("anywidget", reason="the relay needs anywidget")

from pyvo.samp import SAMPTransportError
from pyvo.samp.jupyter.page_requests import (
    BETWEEN_CELLS,
    CLICK_TIMEOUT,
    CONTROL,
    ECHO_DELAY,
    ECHO_TIMEOUT,
    HELLO_TIMEOUT,
    RETURN_TIMEOUT,
    STALE,
    SUBSHELL,
    PageRequest,
    PageRequests,
    RequestState,
)


class Notebook:
    """The requests of a kernel. ``sent`` contains the messages to the pages."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sent: list[dict[str, Any]] = []
        self.requests = PageRequests(lambda content, _buffers: self.sent.append(content), lambda: self.now)
        self.serials: dict[str, int] = {}

    def say(self, page: str, op: str, path: str = CONTROL, buffers: Sequence[bytes] = (), **content: Any) -> None:
        self.requests.receive({"op": op, "page": page, **content}, buffers, path)

    def hello(self, page: str, claim: str = "", path: str = CONTROL, **content: Any) -> None:
        self.serials[page] = self.serials.get(page, 0) + 1
        self.say(page, "hello", path, serial=self.serials[page], claim=claim, **content)

    def alive(self, page: str, *ids: int) -> None:
        self.say(page, "alive", echo=self.last("echo")["echo"], ids=list(ids), is_best=True)

    def later(self, seconds: float) -> None:
        """Advance the clock, and call `check` at each time at which it must be called."""
        end = self.now + seconds
        while (delay := self.requests.check()) is not None and self.now + delay < end:
            self.now += max(delay, 0.001)
        self.now = end
        self.requests.check()

    def last(self, op: str) -> dict[str, Any]:
        return next(each for each in reversed(self.sent) if each["op"] == op)

    def pages_of(self, request: PageRequest) -> list[str]:
        """Return the pages to which a request was sent."""
        return [each["page"] for each in self.sent if each["op"] == "call" and each["id"] == request.number]


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def connected(notebook: Notebook) -> Notebook:
    notebook.hello("a", "click")
    return notebook


def call(notebook: Notebook, timeout: float = 10.0, **options: Any) -> PageRequest:
    return notebook.requests.submit({"op": "call"}, [b"body"], timeout, **options)


# Requests


def test_the_response_ends_a_request(connected: Notebook) -> None:
    request = call(connected)
    assert connected.last("call")["page"] == "a"
    connected.say("a", "taken", id=request.number)
    connected.say("a", "response", id=request.number, status=200, buffers=[memoryview(b"text")])
    assert connected.requests.wait(request) is None
    assert (request.response or {})["status"] == 200
    assert request.body == b"text"
    assert connected.requests.check() is None


def test_request_waits_for_a_page(notebook: Notebook) -> None:
    request = call(notebook)
    assert request.state is RequestState.WAITING
    notebook.hello("a", "click")
    assert notebook.pages_of(request) == ["a"]


def test_a_request_that_no_page_has_taken_goes_to_the_next_page(connected: Notebook) -> None:
    request = call(connected)
    connected.say("a", "bye")
    assert not request.is_ended
    connected.hello("b", "resume")
    assert connected.pages_of(request) == ["a", "b"]


def test_a_request_that_a_page_has_taken_is_not_sent_again(connected: Notebook) -> None:
    request = call(connected)
    connected.say("a", "taken", id=request.number)
    connected.say("a", "bye")
    with pytest.raises(SAMPTransportError, match="had been sent") as caught:
        connected.requests.wait(request)
    assert caught.value.sent
    connected.hello("b", "resume")
    assert connected.pages_of(request) == ["a"]


def test_a_repeatable_request_is_sent_again(connected: Notebook) -> None:
    request = call(connected, repeatable=True)
    connected.say("a", "taken", id=request.number)
    connected.say("a", "bye")
    connected.hello("b", "resume")
    assert connected.pages_of(request) == ["a", "b"]


def test_a_request_that_was_lost_is_sent_again(connected: Notebook) -> None:
    """The page is open but has not received the request."""
    request = call(connected)
    connected.later(ECHO_DELAY)
    connected.alive("a")
    assert connected.pages_of(request) == ["a", "a"]
    assert request.state is RequestState.SENT


def test_a_response_that_was_lost_is_an_error(connected: Notebook) -> None:
    request = call(connected)
    connected.say("a", "taken", id=request.number)
    connected.later(10)
    connected.alive("a")
    with pytest.raises(SAMPTransportError, match="had been sent"):
        connected.requests.wait(request)


def test_request_after_the_echo_is_not_lost(connected: Notebook) -> None:
    """A page that replies to an echo needs to know only the requests that were sent before the echo."""
    call(connected)
    connected.later(ECHO_DELAY)
    later = call(connected)
    connected.alive("a")
    assert connected.pages_of(later) == ["a"]
    assert not later.is_ended


def test_a_late_alive_of_another_path_is_ignored(connected: Notebook) -> None:
    request = call(connected)
    connected.later(ECHO_DELAY)
    connected.say("a", "alive", SUBSHELL, echo=1, ids=[], is_best=False)
    assert connected.pages_of(request) == ["a"]


def test_stale_request_is_sent_again(connected: Notebook) -> None:
    """The page has not carried out the request, because it arrived too late."""
    request = call(connected)
    connected.say("a", "failed", id=request.number, reason="stale")
    assert connected.pages_of(request) == ["a", "a"]


@pytest.mark.parametrize(
    ("reason", "refused", "text"), [("no hub", True, "No SAMP hub"), ("blocked", True, "browser"), ("x", False, "why")]
)
def test_failures(connected: Notebook, reason: str, refused: bool, text: str) -> None:
    request = call(connected)
    connected.say("a", "taken", id=request.number)
    connected.say("a", "failed", id=request.number, reason=reason, text="why")
    with pytest.raises(SAMPTransportError, match=text) as caught:
        connected.requests.wait(request)
    assert caught.value.refused is refused
    assert caught.value.sent is not refused


# Timeouts


def test_a_response_that_does_not_come_in_time_is_an_error(connected: Notebook) -> None:
    request = call(connected, 10)
    connected.say("a", "taken", id=request.number)
    connected.later(10)
    assert not request.is_ended
    connected.alive("a", request.number)
    connected.later(0.1)
    with pytest.raises(SAMPTransportError, match="in time"):
        connected.requests.wait(request)
    assert connected.last("cancel")["id"] == request.number


def test_the_timeout_does_not_run_while_the_page_is_offline(connected: Notebook) -> None:
    """The response arrives when the page is online again."""
    request = call(connected, 10)
    connected.say("a", "taken", id=request.number)
    connected.later(60)
    assert not request.is_ended
    assert connected.requests.state == "waiting for the page"
    connected.say("a", "response", id=request.number, status=200)
    connected.alive("a")
    assert connected.requests.wait(request) is None
    assert connected.requests.state == "open"


def test_a_page_that_stays_offline_is_an_error(connected: Notebook) -> None:
    taken, waiting = call(connected, 0), call(connected)
    connected.say("a", "taken", id=taken.number)
    connected.later(ECHO_DELAY + RETURN_TIMEOUT + 1)
    with pytest.raises(SAMPTransportError, match="had been sent"):
        connected.requests.wait(taken)
    connected.later(RETURN_TIMEOUT + 1)
    with pytest.raises(SAMPTransportError, match="is closed or offline"):
        connected.requests.wait(waiting)
    assert connected.requests.state == "lost"
    assert connected.requests.check() is None


def test_a_request_without_a_page_is_an_error(notebook: Notebook) -> None:
    request = call(notebook)
    notebook.later(HELLO_TIMEOUT - 1)
    assert not request.is_ended
    notebook.later(2)
    with pytest.raises(SAMPTransportError, match="No page"):
        notebook.requests.wait(request)


@pytest.mark.parametrize(("hub", "text"), [("", "click Connect"), ("none", "No SAMP hub"), ("blocked", "browser")])
def test_a_page_without_a_click_is_an_error(notebook: Notebook, hub: str, text: str) -> None:
    request = call(notebook)
    notebook.later(HELLO_TIMEOUT - 1)
    notebook.hello("a", hub=hub)
    notebook.later(CLICK_TIMEOUT - 1)
    assert not request.is_ended
    notebook.later(2)
    with pytest.raises(SAMPTransportError, match=text):
        notebook.requests.wait(request)


# Pages


def test_last_click_counts(connected: Notebook) -> None:
    connected.hello("b")
    assert connected.requests.page == "a"
    connected.hello("b", "click")
    request = call(connected)
    assert connected.pages_of(request) == ["b"]


def test_a_click_in_another_page_during_a_request(connected: Notebook) -> None:
    """The new page gets no request before the old one has reported which requests it has taken."""
    first, second = call(connected), call(connected)
    connected.hello("b", "click")
    third = call(connected)
    assert connected.pages_of(third) == []
    connected.say("a", "taken", id=first.number)
    connected.alive("a", first.number)
    assert connected.requests.page == "b"
    assert connected.pages_of(first) == ["a"]
    assert connected.pages_of(second) == ["a", "b"]
    assert connected.pages_of(third) == ["b"]
    connected.say("a", "response", id=first.number, status=200)
    assert connected.requests.wait(first) is None


def test_a_second_tab_does_not_become_active_without_a_click(connected: Notebook) -> None:
    connected.hello("b", "resume")
    connected.alive("a")
    assert connected.requests.page == "a"
    assert connected.pages_of(call(connected)) == ["a"]


def test_a_page_that_does_not_respond_is_replaced(connected: Notebook) -> None:
    """The next page gets the requests when the old page would reject them as stale."""
    assert ECHO_TIMEOUT > STALE
    request = call(connected)
    connected.hello("b", "resume")
    connected.later(ECHO_TIMEOUT - 0.1)
    assert connected.pages_of(request) == ["a"]
    connected.later(0.2)
    assert connected.pages_of(request) == ["a", "b"]


def test_request_at_a_page_that_is_not_active_ends(connected: Notebook) -> None:
    request = call(connected, 0)
    connected.say("a", "taken", id=request.number)
    connected.hello("b", "click")
    connected.later(RETURN_TIMEOUT - 1)
    assert not request.is_ended
    connected.later(2)
    with pytest.raises(SAMPTransportError, match="had been sent"):
        connected.requests.wait(request)


def test_a_late_copy_of_a_claim_is_ignored(connected: Notebook) -> None:
    """A page sends ``hello`` over all paths. The copy on the slow path arrives after a click in another page."""
    connected.hello("b", "click")
    connected.say("a", "hello", BETWEEN_CELLS, serial=1, claim="click")
    assert connected.requests.page == "b"


def test_new_page_learns_the_state(connected: Notebook) -> None:
    before = len(connected.sent)
    connected.hello("b")
    assert [each["op"] for each in connected.sent[before:]] == ["state"]
    assert connected.sent[-1]["page"] == "a"


@pytest.mark.parametrize(
    ("paths", "best"),
    [([BETWEEN_CELLS], BETWEEN_CELLS), ([BETWEEN_CELLS, SUBSHELL], SUBSHELL), ([SUBSHELL, CONTROL], CONTROL)],
)
def test_the_best_path_is_used(notebook: Notebook, paths: list[str], best: str) -> None:
    assert notebook.requests.path == ""
    for path in paths:
        notebook.hello("a", "click", path)
    assert notebook.requests.path == best
    assert notebook.last("state")["path"] == best


def test_a_page_may_be_silent_while_a_cell_runs(notebook: Notebook) -> None:
    """No message arrives during a cell, which may run for a minute."""
    notebook.hello("a", "click", BETWEEN_CELLS)
    request = call(notebook, 10)
    notebook.later(60)
    assert "echo" not in {each["op"] for each in notebook.sent}
    notebook.say("a", "taken", BETWEEN_CELLS, id=request.number)
    notebook.say("a", "response", BETWEEN_CELLS, id=request.number, status=200)
    assert notebook.requests.wait(request) is None


def test_the_state_of_the_relay(notebook: Notebook) -> None:
    requests = notebook.requests
    assert requests.state == "closed"
    first = call(notebook)
    assert requests.state == "waiting for the page"
    notebook.hello("a")
    assert requests.state == "permission"
    notebook.hello("a", "click")
    assert requests.state == "open"
    registration = requests.submit({"op": "call", "consent": True}, [b""], 0)
    notebook.say("a", "taken", id=registration.number)
    assert requests.state == "consent"
    notebook.say("a", "response", id=registration.number, status=200)
    assert requests.state == "open"
    notebook.say("a", "failed", id=first.number, reason="no hub")
    assert requests.state == "lost"
    last = call(notebook)
    notebook.say("a", "response", id=last.number, status=200)
    assert requests.state == "open"
    notebook.say("a", "bye")
    assert requests.state == "lost"
    requests.close()
    assert requests.state == "closed"


# Streams


def stream(notebook: Notebook) -> PageRequest:
    request = notebook.requests.submit({"op": "fetch"}, (), 60.0, repeatable=True)
    notebook.say("a", "taken", id=request.number)
    notebook.say("a", "response", id=request.number, status=200, is_stream=True)
    return request


def test_stream(connected: Notebook) -> None:
    """Each part that the kernel reads allows the page to send one more."""
    request = stream(connected)
    for number, part in enumerate([b"one", b"two"]):
        connected.say("a", "chunk", id=request.number, number=number, buffers=[memoryview(part)])
    assert connected.requests.wait(request) == b"one"
    assert [each["op"] for each in connected.sent].count("credit") == 1
    connected.say("a", "end", id=request.number, number=2)
    assert connected.requests.wait(request) == b"two"
    assert connected.requests.wait(request) is None
    assert [each["op"] for each in connected.sent].count("credit") == 1  # after the last part the page needs no credit


def test_a_repeated_part_of_a_stream_is_ignored(connected: Notebook) -> None:
    request = stream(connected)
    for _ in range(2):
        connected.say("a", "chunk", id=request.number, number=0, buffers=[b"one"])
    connected.say("a", "end", id=request.number, number=1)
    assert connected.requests.wait(request) == b"one"
    assert connected.requests.wait(request) is None


def test_a_missing_part_of_a_stream_is_an_error(connected: Notebook) -> None:
    request = stream(connected)
    connected.say("a", "chunk", id=request.number, number=1, buffers=[b"two"])
    connected.say("a", "end", id=request.number, number=2)
    with pytest.raises(SAMPTransportError, match="missing"):
        connected.requests.wait(request)


def test_a_stream_that_has_started_is_not_repeated(connected: Notebook) -> None:
    request = stream(connected)
    connected.say("a", "chunk", id=request.number, number=0, buffers=[b"one"])
    connected.say("a", "bye")
    assert connected.requests.wait(request) == b"one"
    with pytest.raises(SAMPTransportError, match="had been sent"):
        connected.requests.wait(request)


# The end


def test_cancel(connected: Notebook) -> None:
    request = call(connected, 0)
    connected.requests.cancel(request)
    assert connected.last("cancel") == {"op": "cancel", "id": request.number, "page": "a"}
    with pytest.raises(SAMPTransportError, match="cancelled"):
        connected.requests.wait(request)
    connected.say("a", "response", id=request.number, status=200)  # too late
    assert request.response is None


def test_interruption_cancels(connected: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    request = call(connected, 0)

    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connected.requests.changed, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connected.requests.wait(request)
    assert connected.last("cancel")["id"] == request.number
    assert request.is_ended


def test_close_ends_waits(connected: Notebook) -> None:
    request = call(connected, 0)
    caught: list[SAMPTransportError] = []

    def wait() -> None:
        try:
            connected.requests.wait(request)
        except SAMPTransportError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    connected.requests.close()
    thread.join(10)
    assert len(caught) == 1
    with pytest.raises(SAMPTransportError, match="closed"):
        connected.requests.wait(call(connected))


@pytest.mark.parametrize("content", [{}, {"op": "hello"}, {"op": "taken", "page": 3}, {"op": "what", "page": "a"}])
def test_an_invalid_message_of_a_page_is_ignored(connected: Notebook, content: Mapping[str, Any]) -> None:
    connected.requests.receive(content)
    assert connected.requests.page == "a"


# No request is carried out twice


class Tab:
    """
    A page that behaves as the script does: it carries out requests that are not stale, and may be offline or
    closed.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.running: list[int] = []
        self.gone = self.offline = False
        self.inbox: list[dict[str, Any]] = []
        self.outbox: list[dict[str, Any]] = []
        self.say(op="hello", serial=1, claim="click")

    def say(self, **content: Any) -> None:
        self.outbox.append({**content, "page": self.name})

    def receive(self, content: dict[str, Any]) -> None:
        if content.get("page") != self.name:
            return
        if content["op"] == "call":
            if self.world.now - content["at"] / 1000 > STALE + 0.1:
                self.say(op="failed", id=content["id"], reason="stale")
                return
            self.running.append(content["id"])
            self.world.carried_out.append(content["id"])
            self.say(op="taken", id=content["id"])
        elif content["op"] == "echo":
            self.say(op="alive", echo=content["echo"], ids=list(self.running), is_best=True)


class World:
    """A kernel and some pages; messages between them are late or lost."""

    def __init__(self) -> None:
        self.now = 0.0
        self.carried_out: list[int] = []
        self.tabs: list[Tab] = []
        self.requests = PageRequests(self.send, lambda: self.now)
        self.submitted: list[PageRequest] = []

    def send(self, content: dict[str, Any], _buffers: object) -> None:
        for tab in self.tabs:
            if not tab.gone:
                tab.inbox.append(content)

    def act(self, action: int, which: int) -> None:
        tab = self.tabs[which % len(self.tabs)] if self.tabs else None
        if action == 0:
            self.submitted.append(self.requests.submit({"op": "call"}, (), 10.0))
        elif action == 1 or tab is None:
            self.tabs.append(Tab(self, f"tab {len(self.tabs)}"))
        elif action == 2:
            tab.gone = True
        elif action == 3:
            tab.offline = not tab.offline
        elif action == 4 and not tab.gone and not tab.offline and tab.running:
            tab.say(op="response", id=tab.running.pop(0), status=200)
        elif action == 5:  # the connection breaks, and the messages on their way are lost
            tab.inbox.clear()
            tab.outbox.clear()
            if not tab.gone:
                tab.say(op="hello", serial=1, claim="")
        elif action == 6:
            self.now += which / 4
            self.requests.check()
        elif action == 7 and not tab.gone:
            for content in tab.outbox:
                self.requests.receive(content)
            tab.outbox.clear()
            tab.gone = True
            self.requests.receive({"op": "bye", "page": tab.name})
        self.deliver()

    def deliver(self) -> None:
        for tab in self.tabs:
            if tab.gone or tab.offline:
                continue
            while tab.inbox or tab.outbox:
                if tab.inbox:
                    tab.receive(tab.inbox.pop(0))
                else:
                    self.requests.receive(tab.outbox.pop(0))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60)), max_size=60))
def test_no_request_is_carried_out_twice_and_every_request_ends(actions: list[tuple[int, int]]) -> None:
    world = World()
    for action, which in actions:
        world.act(action, which)
    assert len(set(world.carried_out)) == len(world.carried_out)
    for tab in world.tabs:
        tab.gone = True
    while (delay := world.requests.check()) is not None:
        world.now += max(delay, 0.001)
        assert world.now < 1e5
    assert all(each.is_ended for each in world.submitted)
