# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The queue of consent requests, without sockets and threads."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.protocol.values import sanitize_for_display
from pyvo.samp.web_profile import uploads
from pyvo.samp.web_profile.consent import (
    BROWSER_CONNECTIONS,
    CONSENT_TIMEOUT,
    LATE_SHARING,
    MAX_NULL,
    MAX_SHARING,
    MAX_WAITING,
    QUEUE_TIMEOUT,
    ConsentPrompt,
    ConsentQueue,
    ConsentRequest,
    ConsentTicket,
    Decision,
    parse_registration,
)

HERE = ("127.0.0.1", 1234)


class FakePrompt(ConsentPrompt):
    """A consent queue whose prompt, workers and timers are run by the test."""

    def __init__(self, *decisions: Decision | BaseException) -> None:
        self.decisions = list(decisions)
        self.shown: list[str] = []
        self.tasks: list[Callable[[], object]] = []
        self.timers: list[SimpleNamespace] = []
        self.while_asking: Callable[[ConsentTicket], object] = lambda _ticket: None
        self.decided: list[tuple[str, Decision]] = []
        self.pages: dict[str, Callable[[Decision], object]] = {}
        self.now = 0.0
        self.queue = ConsentQueue(self, self.tasks.append, self.call_later, timeout=5.0, clock=lambda: self.now)

    def ask(self, ticket: ConsentTicket) -> Decision:
        self.shown.append(ticket.request.name)
        self.while_asking(ticket)
        decision = self.decisions.pop(0) if self.decisions else Decision.ONCE
        if isinstance(decision, BaseException):
            raise decision
        return decision

    def call_later(self, delay: float, function: Callable[[], object]) -> SimpleNamespace:
        timer = SimpleNamespace(delay=delay, function=function, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def submit(self, name: str, origin: str = "https://a.example", *, shared: bool = False) -> ConsentTicket:
        request = ConsentRequest(name, origin, {}, HERE, shared_origin=shared)
        self.pages[name] = lambda decision: self.decided.append((name, decision))
        return self.queue.submit(request, self.pages[name])

    def cancel_page(self, ticket: ConsentTicket, name: str) -> None:
        """Cancel the registration of a page that goes away."""
        self.queue.cancel(ticket, self.pages[name])

    def run_workers(self) -> None:
        while self.tasks:
            self.tasks.pop(0)()


@pytest.fixture
def consent() -> FakePrompt:
    return FakePrompt()


def test_a_request_is_shown_in_a_worker_and_decided_once():
    """R40."""
    consent = FakePrompt(Decision.ONCE)
    consent.submit("page")
    assert consent.shown == []
    consent.run_workers()
    assert consent.decided == [("page", Decision.ONCE)]
    assert consent.timers[0].cancelled


def test_requests_of_several_origins_are_shown_by_one_worker():
    """R41."""
    consent = FakePrompt(Decision.DENY, Decision.ONCE, Decision.DENY)
    for number in range(3):
        consent.submit(f"page{number}", f"https://{number}.example")
    assert len(consent.tasks) == 1
    consent.run_workers()
    assert consent.decided == [("page0", Decision.DENY), ("page1", Decision.ONCE), ("page2", Decision.DENY)]


def test_a_worker_is_started_again_after_a_pause():
    consent = FakePrompt()
    consent.submit("one")
    consent.run_workers()
    consent.submit("two")
    consent.run_workers()
    assert consent.shown == ["one", "two"]


@pytest.mark.parametrize("decision", [Decision.ONCE, Decision.ALWAYS, Decision.DENY])
def test_tabs_of_one_origin_that_register_at_the_same_moment_share_a_decision(consent, decision):
    """R40, R41: the user decides once, and a denial denies all. A page may state any name."""
    consent.decisions = [decision]

    def more_come(ticket: ConsentTicket) -> None:
        if ticket.request.name == "tab 0":
            for number in range(3, 5):
                consent.submit(f"tab {number}")

    consent.while_asking = more_come
    for number in range(3):
        consent.submit(f"tab {number}")
    consent.submit("other", "https://b.example")
    consent.run_workers()
    assert consent.shown == ["tab 0", "other"]
    assert consent.decided == [*((f"tab {number}", decision) for number in range(5)), ("other", Decision.ONCE)]


def test_a_decision_does_not_hold_for_later_registrations(consent):
    """R40: the user is asked for each registration."""
    for name in ("one", "two"):
        consent.submit(name)
    consent.run_workers()
    consent.submit("late")
    consent.run_workers()
    assert consent.shown == ["one", "late"]


@pytest.mark.parametrize("decision", [Decision.ONCE, Decision.DENY])
def test_tabs_that_wait_in_the_browser_share_the_decision_too(consent, decision):
    """R41: a browser opens six connections; more tabs register after the decision about the first."""
    consent.decisions = [decision]
    for number in range(BROWSER_CONNECTIONS):
        consent.submit(f"tab {number}")
    consent.run_workers()
    consent.now = LATE_SHARING - 0.1
    consent.submit("tab 6")
    consent.submit("other", "https://b.example")
    consent.run_workers()
    assert consent.shown == ["tab 0", "other"]
    assert consent.decided[6] == ("tab 6", decision)
    consent.now = LATE_SHARING
    consent.submit("much later")
    consent.run_workers()
    assert consent.shown == ["tab 0", "other", "much later"]


def test_the_registrations_that_share_a_decision_are_limited(consent):
    """R41."""
    for number in range(MAX_SHARING):
        consent.submit(f"tab {number}")
    with pytest.raises(SAMPProxyError, match=r"Too many pages of https://a\.example"):
        consent.submit("one more")
    consent.submit("other", "https://b.example")
    assert len(consent.tasks) == 1
    consent.run_workers()
    assert consent.shown == ["tab 0", "other"]
    consent.submit("after that")  # nor does another registration share it after the decision
    consent.run_workers()
    assert consent.shown[2:] == ["after that"]


def test_a_request_that_expires_is_denied_for_all_that_share_it(consent):
    consent.while_asking = lambda ticket: (consent.submit("two"), expire_shown(consent))
    consent.submit("one")
    consent.run_workers()
    assert consent.decided == [("one", Decision.DENY), ("two", Decision.DENY)]


def test_a_request_stays_open_while_a_page_waits_for_the_decision(consent):
    """R41: the request stays open even if the page that it names has gone away."""
    cancelled = []
    ticket = consent.submit("one")
    assert consent.submit("two") is consent.submit("three") is ticket

    def leave(ticket: ConsentTicket) -> None:
        ticket.on_cancel(lambda: cancelled.append(1))
        consent.cancel_page(ticket, "one")
        assert cancelled == []

    consent.while_asking = leave
    consent.cancel_page(ticket, "two")
    consent.run_workers()
    assert consent.decided == [("three", Decision.ONCE)]
    assert cancelled == []


def test_a_request_is_cancelled_when_the_last_page_goes_away(consent):
    cancelled = []
    consent.submit("one")
    consent.submit("two")

    def leave(ticket: ConsentTicket) -> None:
        if ticket.request.name == "one":
            ticket.on_cancel(lambda: cancelled.append(1))
            consent.cancel_page(ticket, "one")
            consent.cancel_page(ticket, "two")
            consent.submit("reloaded")  # does not share the cancelled request

    consent.while_asking = leave
    consent.decisions = [Decision.DENY]
    consent.run_workers()
    assert cancelled == [1]
    assert consent.shown == ["one", "reloaded"]
    assert consent.decided == [("reloaded", Decision.ONCE)]


def test_the_user_decides_about_each_page_without_an_origin_of_its_own(consent):
    """R48: any frame may have the origin ``null``. No page is denied because of another; their number is limited."""
    for number in range(MAX_NULL):
        consent.submit(f"page {number}", "null")
    with pytest.raises(SAMPProxyError, match="Too many"):
        consent.submit("one more", "null")
    consent.submit("page", "https://a.example")
    consent.decisions = [Decision.DENY]
    consent.run_workers()
    assert consent.shown == [*(f"page {number}" for number in range(MAX_NULL)), "page"]
    assert [decision for _, decision in consent.decided] == [Decision.DENY, *[Decision.ONCE] * MAX_NULL]


def test_a_page_may_register_again_as_soon_as_it_has_the_decision():
    consent = FakePrompt(Decision.DENY, Decision.ONCE)
    request = ConsentRequest("page", "https://a.example", {}, HERE)
    decisions = []

    def on_decision(decision: Decision) -> None:
        decisions.append(decision)
        if decision is Decision.DENY:
            consent.queue.submit(request, on_decision)

    consent.queue.submit(request, on_decision)
    consent.run_workers()
    assert decisions == [Decision.DENY, Decision.ONCE]


def test_programs_without_an_origin_do_not_share_a_decision():
    """Ten clients of one JSAMP process register at the same moment; none of them is a web page."""
    consent = FakePrompt()
    for number in range(10):
        consent.submit(f"calc{number}", "")
    consent.run_workers()
    assert len(consent.decided) == 10


def test_the_queue_is_limited():
    consent = FakePrompt()
    for number in range(MAX_WAITING):
        consent.submit("page", f"https://{number}.example")
    with pytest.raises(SAMPProxyError, match="Too many"):
        consent.submit("page", "https://last.example")


def test_the_request_of_a_page_that_goes_away_while_it_waits_is_not_shown():
    consent = FakePrompt()
    consent.submit("first", "https://1.example")
    gone = consent.submit("gone", "https://2.example")
    consent.cancel_page(gone, "gone")
    consent.submit("reloaded", "https://2.example")
    consent.run_workers()
    assert consent.shown == ["first", "reloaded"]


def test_a_page_that_goes_away_while_its_request_is_shown_gets_nothing():
    consent = FakePrompt(Decision.ALWAYS, Decision.DENY)
    cancelled = []

    def leave(ticket: ConsentTicket) -> None:
        ticket.on_cancel(lambda: cancelled.append("before"))
        consent.cancel_page(ticket, "page")
        ticket.on_cancel(lambda: cancelled.append("after"))

    consent.while_asking = leave
    consent.submit("page")
    consent.run_workers()
    assert consent.decided == []
    assert cancelled == ["before", "after"]
    consent.while_asking = lambda _ticket: None
    consent.submit("page")  # its origin was not allowed for always
    consent.run_workers()
    assert consent.decided == [("page", Decision.DENY)]


def test_a_request_that_was_decided_is_not_cancelled():
    consent = FakePrompt()
    cancelled = []
    consent.while_asking = lambda ticket: ticket.on_cancel(lambda: cancelled.append(1))
    ticket = consent.submit("page")
    consent.run_workers()
    consent.cancel_page(ticket, "page")
    assert cancelled == []


def test_always_holds_for_the_origin_while_the_hub_runs():
    consent = FakePrompt(Decision.ALWAYS, Decision.DENY)
    consent.submit("page")
    consent.run_workers()
    consent.submit("other page")
    consent.submit("foreign", "https://b.example")
    consent.run_workers()
    assert consent.shown == ["page", "foreign"]
    assert consent.decided == [("page", Decision.ALWAYS), ("other page", Decision.ALWAYS), ("foreign", Decision.DENY)]


@pytest.mark.parametrize("origin", ["", "null"])
def test_always_means_once_if_the_origin_does_not_identify_a_site(origin):
    """R48: ``null`` is a valid origin, but any file page has it."""
    consent = FakePrompt(Decision.ALWAYS, Decision.DENY)
    consent.submit("page", origin)
    consent.run_workers()
    consent.submit("page", origin)
    consent.run_workers()
    assert consent.shown == ["page", "page"]


@pytest.mark.parametrize("decision", [Decision.ONCE, Decision.ALWAYS])
def test_an_origin_that_users_share_is_never_allowed_always(consent, decision):
    """Users share an origin on a JupyterHub. It is enough if one page that is allowed states this."""
    consent.decisions = [decision, Decision.ALWAYS, Decision.DENY]
    for name in ("relay", "page of another user", "third"):
        consent.submit(name, shared=name == "relay")
        consent.run_workers()
    assert consent.decided == [("relay", decision), ("page of another user", Decision.ALWAYS), ("third", Decision.DENY)]
    consent.submit("other", "https://b.example")
    consent.run_workers()
    assert consent.shown == ["relay", "page of another user", "third", "other"]


def test_a_page_that_states_that_its_origin_is_shared_ends_always(consent):
    consent.decisions = [Decision.ALWAYS, Decision.DENY, Decision.ONCE]
    consent.submit("page")
    consent.run_workers()
    consent.submit("relay", shared=True)
    consent.submit("page again")
    consent.run_workers()
    assert consent.shown == ["page", "relay", "page again"]


def test_pages_of_a_shared_origin_share_no_decision(consent):
    """It is enough that one of the pages states this, in any order."""
    consent.decisions = [Decision.ONCE, Decision.DENY, Decision.ONCE, Decision.DENY]
    for name in ("relay", "page", "relay 2", "page 2"):
        consent.submit(name, shared=name.startswith("relay"))
    consent.run_workers()
    # the two pages share a decision: they registered before the user had allowed a relay
    assert consent.shown == ["relay", "page", "relay 2"]
    assert dict(consent.decided) == {
        "relay": Decision.ONCE, "page": Decision.DENY, "page 2": Decision.DENY, "relay 2": Decision.ONCE,
    }  # fmt: skip


def test_the_statement_of_a_denied_page_about_its_origin_is_ignored(consent):
    """Otherwise any page could fill the memory of the hub."""
    consent.decisions = [Decision.DENY, Decision.ALWAYS]
    consent.submit("relay", shared=True)
    consent.run_workers()
    for name in ("page", "next"):
        consent.submit(name)
        consent.run_workers()
    assert consent.shown == ["relay", "page"]


def test_a_prompt_that_fails_denies_the_page(caplog):
    consent = FakePrompt(RuntimeError("no window"), Decision.ONCE)
    consent.submit("page", "https://1.example")
    consent.submit("next", "https://2.example")
    consent.run_workers()
    assert consent.decided == [("page", Decision.DENY), ("next", Decision.ONCE)]
    assert "could not be asked" in caplog.text


def test_a_request_that_the_user_does_not_decide_expires():
    consent = FakePrompt()
    cancelled = []

    def wait(ticket: ConsentTicket) -> None:
        ticket.on_cancel(lambda: cancelled.append(1))
        expire_shown(consent)

    consent.while_asking = wait
    consent.submit("page")
    consent.run_workers()
    assert consent.decided == [("page", Decision.DENY)]
    assert cancelled == [1]


def test_a_prompt_that_ends_its_thread_denies_the_page():
    consent = FakePrompt(SystemExit(), Decision.ONCE)
    consent.submit("page", "https://1.example")
    consent.submit("next", "https://2.example")
    consent.run_workers()
    assert consent.decided == [("page", Decision.DENY), ("next", Decision.ONCE)]


def expire_timers(consent: FakePrompt, delay: float = 10.0) -> None:
    """Run the timers with this delay, by default those that limit how long a prompt may take to close."""
    for timer in [timer for timer in consent.timers if not timer.cancelled and timer.delay == delay]:
        timer.cancel()
        timer.function()


def expire_shown(consent: FakePrompt) -> None:
    """Let the request that is shown expire."""
    expire_timers(consent, 5.0)


def test_the_time_of_a_request_begins_when_it_is_shown():
    """R41: a request does not expire while the user decides about another page."""
    consent = FakePrompt()

    def wait(ticket: ConsentTicket) -> None:
        if ticket.request.name == "first":
            consent.submit("second", "https://2.example")
            expire_shown(consent)
            assert consent.decided == [("first", Decision.DENY)]

    consent.while_asking = wait
    consent.submit("first", "https://1.example")
    consent.run_workers()
    assert consent.decided == [("first", Decision.DENY), ("second", Decision.ONCE)]
    assert all(timer.cancelled for timer in consent.timers)
    assert QUEUE_TIMEOUT > 5 * CONSENT_TIMEOUT


def test_other_requests_do_not_wait_for_a_prompt_that_is_stuck(caplog):
    consent = FakePrompt(Decision.ONCE, Decision.ALWAYS, Decision.ONCE)
    consent.concurrent = True

    def ask(ticket: ConsentTicket) -> None:
        if ticket.request.name == "stuck":
            expire_timers(consent)
            consent.submit("next", "https://2.example")
            consent.run_workers()  # takes the place of a second worker

    consent.while_asking = ask
    consent.submit("stuck", "https://1.example")
    consent.run_workers()
    assert consent.decided == [("stuck", Decision.DENY), ("next", Decision.ONCE)]
    assert "does not return" in caplog.text
    consent.while_asking = lambda _ticket: None
    consent.submit("stuck", "https://1.example")  # its late decision was ignored
    consent.run_workers()
    assert consent.shown == ["stuck", "next", "stuck"]


def test_other_requests_do_not_wait_for_the_stuck_prompt_of_a_page_that_has_gone_away():
    consent = FakePrompt()
    consent.concurrent = True

    def ask(ticket: ConsentTicket) -> None:
        if ticket.request.name == "gone":
            consent.cancel_page(ticket, "gone")
            consent.submit("next", "https://2.example")
            expire_timers(consent)
            consent.run_workers()

    consent.while_asking = ask
    consent.submit("gone", "https://1.example")
    consent.run_workers()
    assert consent.shown == ["gone", "next"]
    assert consent.decided == [("next", Decision.ONCE)]


@pytest.mark.parametrize(("concurrent", "stuck"), [(False, 0), (True, 1)])
def test_at_most_one_worker_is_stuck(caplog, concurrent, stuck):
    """No other worker starts if the prompt cannot show two requests at once."""
    consent = FakePrompt()
    consent.concurrent = concurrent
    workers = []

    def ask(ticket: ConsentTicket) -> None:
        workers.append(ticket.request.name)
        expire_timers(consent)
        if len(workers) < 5:
            consent.submit(f"page{len(workers)}", f"https://{len(workers)}.example")
            consent.run_workers()

    consent.while_asking = ask
    consent.submit("page0", "https://0.example")
    consent.run_workers()
    assert consent.decided[0] == ("page0", Decision.DENY)
    assert caplog.text.count("does not return") == stuck
    assert "no other page can register" in caplog.text


def test_a_request_that_expires_in_the_queue_is_not_shown():
    consent = FakePrompt()
    consent.submit("page")
    assert consent.timers[0].delay == QUEUE_TIMEOUT
    consent.timers[0].function()
    consent.run_workers()
    assert consent.decided == [("page", Decision.DENY)]
    assert consent.shown == []


def test_close_denies_all_requests():
    consent = FakePrompt()
    consent.while_asking = lambda _ticket: consent.queue.close()
    consent.submit("shown", "https://1.example")
    consent.submit("waiting", "https://2.example")
    consent.run_workers()
    assert consent.decided == [("waiting", Decision.DENY), ("shown", Decision.DENY)]
    assert consent.shown == ["shown"]
    with pytest.raises(SAMPProxyError, match="stopped"):
        consent.submit("late")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Aladin Lite", "Aladin Lite"),
        ("two\nlines\r\n\tand tab", "two lines and tab"),
        ("\x1b[2J\x1b[31mred\x07", "?[2J?[31mred?"),
        ("moc.live\u202egpj", "moc.live?gpj"),
        ("zero\u200bwidth\u2028line", "zero?width?line"),
        ("\x9b31m", "?31m"),
        ("Caf\u00e9 \u661f", "Caf\u00e9 \u661f"),
        ("   ", ""),
        ("x" * 1000, "x" * 77 + "..."),
    ],
)
def test_texts_of_pages_are_made_safe_for_display(text, shown):
    assert sanitize_for_display(text) == shown


@given(st.text(), st.integers(4, 100))
def test_any_text_is_made_safe_for_display(text, limit):
    shown = sanitize_for_display(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert "  " not in shown


def test_a_request_from_a_map_and_from_a_bare_name():
    """R40."""
    request = parse_registration({"samp.name": "Page", "x": ["list"], "y": "\x1b"}, "https://A.example", HERE)
    assert (request.name, request.origin) == ("Page", "https://a.example")
    assert request.details == {"samp.name": "Page", "y": "?"}
    assert parse_registration("Old page", "", HERE).details == {"samp.name": "Old page"}


@pytest.mark.parametrize(("value", "shared"), [("1", True), ("0", False), ("", False), (["1"], False)])
def test_a_page_may_state_that_users_share_its_origin(value, shared):
    identity = {"samp.name": "Page", "x-samp.shared-origin": value}
    request = parse_registration(identity, "https://hub.example", HERE)
    assert (request.can_always_allow, request.shared_origin) == (not shared, shared)
    assert ("other users" in request.origin_text) == shared
    assert ("other pages of this origin" in request.meaning) == (not shared)


def test_the_request_mentions_uploads():
    """If the hub accepts uploads, the request states their limit."""
    texts = {
        can_upload: parse_registration("Page", "https://a.example", HERE, can_upload=can_upload).meaning
        for can_upload in (False, True)
    }
    assert "store" not in texts[False]
    assert f"store up to {uploads.MAX_BYTES // 1024**3} GiB" in texts[True]


def test_an_origin_is_shown_and_compared_as_a_whole():
    """R40: the end of an origin is the most important part."""
    origin = "https://simbad.example." + ".".join(["a" * 60] * 3) + ".evil.example"
    assert len(origin) > 200
    assert parse_registration("Page", origin, HERE).origin == origin
    for odd in ("https://" + "a" * 300, "https://a.example\x1b[1A", "https://\u202eexample", "https://a  b"):
        with pytest.raises(SAMPProxyError, match="origin"):
            parse_registration("Page", odd, HERE)


@pytest.mark.parametrize("identity", [{}, "", [], {"samp.name": ["x"]}, {"samp.name": " \n"}, {"name": "x"}])
def test_a_page_without_a_name_is_rejected(identity):
    """R40."""
    with pytest.raises(SAMPProxyError, match=r"samp\.name"):
        parse_registration(identity, "https://a.example", HERE)
