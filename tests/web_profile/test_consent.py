# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The queue of questions to the user, without sockets and threads."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.protocol.values import sanitize_for_display
from pyvo.samp.web_profile.consent import (
    BROWSER_CONNECTIONS,
    CONSENT_TIMEOUT,
    LATE_SHARING,
    MAX_NULL,
    MAX_SHARING,
    MAX_WAITING,
    TURN_TIME,
    ConsentPrompt,
    ConsentQueue,
    ConsentRequest,
    ConsentTicket,
    Decision,
    parse_registration,
)

HERE = ("127.0.0.1", 1234)


class Bench(ConsentPrompt):
    """A desk whose workers and timers run when the test says so."""

    def __init__(self, *answers: Decision | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.jobs: list[Callable[[], object]] = []
        self.timers: list[SimpleNamespace] = []
        self.during: Callable[[ConsentTicket], object] = lambda _ticket: None
        self.got: list[tuple[str, Decision]] = []
        self.pages: dict[str, Callable[[Decision], object]] = {}
        self.now = 0.0
        self.desk = ConsentQueue(self, self.jobs.append, self.call_later, patience=5.0, clock=lambda: self.now)

    def ask(self, ticket: ConsentTicket) -> Decision:
        self.asked.append(ticket.request.name)
        self.during(ticket)
        answer = self.answers.pop(0) if self.answers else Decision.ONCE
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def call_later(self, delay: float, function: Callable[[], object]) -> SimpleNamespace:
        timer = SimpleNamespace(delay=delay, function=function, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def submit(self, name: str, origin: str = "https://a.example") -> ConsentTicket:
        question = ConsentRequest(name, origin, {}, HERE)
        self.pages[name] = lambda answer: self.got.append((name, answer))
        return self.desk.submit(question, self.pages[name])

    def leave(self, ticket: ConsentTicket, name: str) -> None:
        """A page goes away while it waits."""
        self.desk.cancel(ticket, self.pages[name])

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_question_is_asked_in_a_worker_and_answered_once():
    """R40."""
    bench = Bench(Decision.ONCE)
    bench.submit("page")
    assert bench.asked == []
    bench.work()
    assert bench.got == [("page", Decision.ONCE)]
    assert bench.timers[0].cancelled


def test_questions_of_several_origins_queue_up_behind_one_worker():
    """R41."""
    bench = Bench(Decision.DENY, Decision.ONCE, Decision.DENY)
    for number in range(3):
        bench.submit(f"page{number}", f"https://{number}.example")
    assert len(bench.jobs) == 1
    bench.work()
    assert bench.got == [("page0", Decision.DENY), ("page1", Decision.ONCE), ("page2", Decision.DENY)]


def test_the_worker_is_started_anew_after_a_pause():
    bench = Bench()
    bench.submit("one")
    bench.work()
    bench.submit("two")
    bench.work()
    assert bench.asked == ["one", "two"]


@pytest.mark.parametrize("answer", [Decision.ONCE, Decision.ALWAYS, Decision.DENY])
def test_tabs_of_one_origin_that_register_at_the_same_moment_share_an_answer(bench, answer):
    """R40, R41: the user is asked once; a refusal refuses them all. A name is what a page says it is."""
    bench.answers = [answer]

    def more_come(ticket: ConsentTicket) -> None:
        if ticket.request.name == "tab 0":
            for number in range(3, 5):
                bench.submit(f"tab {number}")

    bench.during = more_come
    for number in range(3):
        bench.submit(f"tab {number}")
    bench.submit("other", "https://b.example")
    bench.work()
    assert bench.asked == ["tab 0", "other"]
    assert bench.got == [*((f"tab {number}", answer) for number in range(5)), ("other", Decision.ONCE)]


def test_an_answer_serves_no_registration_that_comes_after_it(bench):
    """R40: a page's second request is another one."""
    for name in ("one", "two"):
        bench.submit(name)
    bench.work()
    bench.submit("late")
    bench.work()
    assert bench.asked == ["one", "late"]


@pytest.mark.parametrize("answer", [Decision.ONCE, Decision.DENY])
def test_tabs_that_wait_in_the_browser_share_the_answer_too(bench, answer):
    """R41: a browser opens six connections; the registrations of more tabs come when the first are answered."""
    bench.answers = [answer]
    for number in range(BROWSER_CONNECTIONS):
        bench.submit(f"tab {number}")
    bench.work()
    bench.now = LATE_SHARING - 0.1
    bench.submit("tab 6")
    bench.submit("other", "https://b.example")
    bench.work()
    assert bench.asked == ["tab 0", "other"]
    assert bench.got[6] == ("tab 6", answer)
    bench.now = LATE_SHARING
    bench.submit("much later")
    bench.work()
    assert bench.asked == ["tab 0", "other", "much later"]


def test_the_registrations_that_share_an_answer_are_bounded(bench):
    """R41: in number; they have no more time than the question has."""
    for number in range(MAX_SHARING):
        bench.submit(f"tab {number}")
    with pytest.raises(SAMPProxyError, match=r"Too many pages of https://a\.example"):
        bench.submit("one more")
    bench.submit("other", "https://b.example")
    assert len(bench.jobs) == 1
    bench.work()
    assert bench.asked == ["tab 0", "other"]
    bench.submit("after that")  # nor do more of them come in the moment after the answer
    bench.work()
    assert bench.asked[2:] == ["after that"]


def test_a_question_that_lapses_refuses_all_who_share_it(bench):
    bench.during = lambda ticket: (bench.submit("two"), lapse_shown(bench))
    bench.submit("one")
    bench.work()
    assert bench.got == [("one", Decision.DENY), ("two", Decision.DENY)]


def test_a_question_stays_while_somebody_waits_for_its_answer(bench):
    """R41: also when the page has gone that it names."""
    taken_back = []
    ticket = bench.submit("one")
    assert bench.submit("two") is bench.submit("three") is ticket

    def leave(ticket: ConsentTicket) -> None:
        ticket.on_cancel(lambda: taken_back.append(1))
        bench.leave(ticket, "one")
        assert taken_back == []

    bench.during = leave
    bench.leave(ticket, "two")
    bench.work()
    assert bench.got == [("three", Decision.ONCE)]
    assert taken_back == []


def test_a_question_is_taken_back_when_the_last_one_goes(bench):
    taken_back = []
    bench.submit("one")
    bench.submit("two")

    def leave(ticket: ConsentTicket) -> None:
        if ticket.request.name == "one":
            ticket.on_cancel(lambda: taken_back.append(1))
            bench.leave(ticket, "one")
            bench.leave(ticket, "two")
            bench.submit("reloaded")  # which does not share the answer to what is taken back

    bench.during = leave
    bench.answers = [Decision.DENY]
    bench.work()
    assert taken_back == [1]
    assert bench.asked == ["one", "reloaded"]
    assert bench.got == [("reloaded", Decision.ONCE)]


def test_pages_without_an_origin_of_their_own_are_each_asked_about(bench):
    """R48: any frame may have the origin ``null``. None of them is refused because of another, but they are bounded."""
    for number in range(MAX_NULL):
        bench.submit(f"page {number}", "null")
    with pytest.raises(SAMPProxyError, match="Too many"):
        bench.submit("one more", "null")
    bench.submit("page", "https://a.example")
    bench.answers = [Decision.DENY]
    bench.work()
    assert bench.asked == [*(f"page {number}" for number in range(MAX_NULL)), "page"]
    assert [answer for _, answer in bench.got] == [Decision.DENY, *[Decision.ONCE] * MAX_NULL]


def test_a_page_may_ask_again_as_soon_as_it_has_its_answer():
    bench = Bench(Decision.DENY, Decision.ONCE)
    question = ConsentRequest("page", "https://a.example", {}, HERE)
    answers = []

    def answered(answer: Decision) -> None:
        answers.append(answer)
        if answer is Decision.DENY:
            bench.desk.submit(question, answered)

    bench.desk.submit(question, answered)
    bench.work()
    assert answers == [Decision.DENY, Decision.ONCE]


def test_programs_without_an_origin_do_not_stand_in_for_each_other():
    """Ten clients of one JSAMP process register at the same moment; none of them is a web page."""
    bench = Bench()
    for number in range(10):
        bench.submit(f"calc{number}", "")
    bench.work()
    assert len(bench.got) == 10


def test_the_queue_is_bounded():
    bench = Bench()
    for number in range(MAX_WAITING):
        bench.submit("page", f"https://{number}.example")
    with pytest.raises(SAMPProxyError, match="Too many"):
        bench.submit("page", "https://last.example")


def test_a_page_that_goes_away_while_it_waits_is_not_asked_about():
    bench = Bench()
    bench.submit("first", "https://1.example")
    gone = bench.submit("gone", "https://2.example")
    bench.leave(gone, "gone")
    bench.submit("reloaded", "https://2.example")  # and its question no longer blocks its origin
    bench.work()
    assert bench.asked == ["first", "reloaded"]


def test_a_page_that_goes_away_while_it_is_asked_about_gets_nothing():
    bench = Bench(Decision.ALWAYS, Decision.DENY)
    taken_back = []

    def leave(ticket: ConsentTicket) -> None:
        ticket.on_cancel(lambda: taken_back.append("before"))
        bench.leave(ticket, "page")
        ticket.on_cancel(lambda: taken_back.append("after"))

    bench.during = leave
    bench.submit("page")
    bench.work()
    assert bench.got == []
    assert taken_back == ["before", "after"]
    bench.during = lambda _ticket: None
    bench.submit("page")  # nor was its origin allowed for always
    bench.work()
    assert bench.got == [("page", Decision.DENY)]


def test_what_was_answered_is_not_taken_back():
    bench = Bench()
    taken_back = []
    bench.during = lambda ticket: ticket.on_cancel(lambda: taken_back.append(1))
    ticket = bench.submit("page")
    bench.work()
    bench.leave(ticket, "page")
    assert taken_back == []


def test_always_holds_for_the_origin_while_the_hub_runs():
    bench = Bench(Decision.ALWAYS, Decision.DENY)
    bench.submit("page")
    bench.work()
    bench.submit("other page")
    bench.submit("foreign", "https://b.example")
    bench.work()
    assert bench.asked == ["page", "foreign"]
    assert bench.got == [("page", Decision.ALWAYS), ("other page", Decision.ALWAYS), ("foreign", Decision.DENY)]


@pytest.mark.parametrize("origin", ["", "null"])
def test_always_means_once_where_the_origin_says_nothing(origin):
    """R48: ``null`` is a legal origin, but any file page has it."""
    bench = Bench(Decision.ALWAYS, Decision.DENY)
    bench.submit("page", origin)
    bench.work()
    bench.submit("page", origin)
    bench.work()
    assert bench.asked == ["page", "page"]


def test_an_asker_that_fails_has_not_said_yes(caplog):
    bench = Bench(RuntimeError("no window"), Decision.ONCE)
    bench.submit("page", "https://1.example")
    bench.submit("next", "https://2.example")
    bench.work()
    assert bench.got == [("page", Decision.DENY), ("next", Decision.ONCE)]
    assert "could not be asked" in caplog.text


def test_a_question_that_nobody_answers_lapses():
    bench = Bench()
    taken_back = []

    def wait(ticket: ConsentTicket) -> None:
        ticket.on_cancel(lambda: taken_back.append(1))
        lapse_shown(bench)

    bench.during = wait
    bench.submit("page")
    bench.work()
    assert bench.got == [("page", Decision.DENY)]
    assert taken_back == [1]


def test_an_asker_that_ends_its_thread_has_not_said_yes():
    bench = Bench(SystemExit(), Decision.ONCE)
    bench.submit("page", "https://1.example")
    bench.submit("next", "https://2.example")
    bench.work()
    assert bench.got == [("page", Decision.DENY), ("next", Decision.ONCE)]


def lapse(bench: Bench, delay: float = 10.0) -> None:
    """Let the time of the question that is shown, and the time to take it back, pass."""
    for timer in [timer for timer in bench.timers if not timer.cancelled and timer.delay == delay]:
        timer.cancel()
        timer.function()


def lapse_shown(bench: Bench) -> None:
    """Let the time of the question that is shown pass."""
    lapse(bench, 5.0)


def test_the_time_of_a_question_begins_when_it_is_shown():
    """R41: joining is not refused to one page because the user is being asked about another."""
    bench = Bench()

    def wait(ticket: ConsentTicket) -> None:
        if ticket.request.name == "first":
            bench.submit("second", "https://2.example")
            lapse_shown(bench)
            assert bench.got == [("first", Decision.DENY)]

    bench.during = wait
    bench.submit("first", "https://1.example")
    bench.work()
    assert bench.got == [("first", Decision.DENY), ("second", Decision.ONCE)]
    assert all(timer.cancelled for timer in bench.timers)
    assert TURN_TIME > 5 * CONSENT_TIMEOUT


def test_a_question_that_does_not_come_back_is_left_alone(caplog):
    bench = Bench(Decision.ONCE, Decision.ALWAYS, Decision.ONCE)
    bench.concurrent = True

    def ask(ticket: ConsentTicket) -> None:
        if ticket.request.name == "lost":
            lapse(bench)
            bench.submit("next", "https://2.example")
            bench.work()  # in another worker, as it were

    bench.during = ask
    bench.submit("lost", "https://1.example")
    bench.work()
    assert bench.got == [("lost", Decision.DENY), ("next", Decision.ONCE)]
    assert "does not come back" in caplog.text
    bench.during = lambda _ticket: None
    bench.submit("lost", "https://1.example")  # nor did its late answer count
    bench.work()
    assert bench.asked == ["lost", "next", "lost"]


def test_a_question_of_a_page_that_has_gone_is_left_alone_too():
    bench = Bench()
    bench.concurrent = True

    def ask(ticket: ConsentTicket) -> None:
        if ticket.request.name == "gone":
            bench.leave(ticket, "gone")
            bench.submit("next", "https://2.example")
            lapse(bench)
            bench.work()

    bench.during = ask
    bench.submit("gone", "https://1.example")
    bench.work()
    assert bench.asked == ["gone", "next"]
    assert bench.got == [("next", Decision.ONCE)]


@pytest.mark.parametrize(("beside", "lost"), [(False, 0), (True, 1)])
def test_no_more_than_one_worker_is_lost(caplog, beside, lost):
    """Not even one where two questions would be taken for each other."""
    bench = Bench()
    bench.concurrent = beside
    workers = []

    def ask(ticket: ConsentTicket) -> None:
        workers.append(ticket.request.name)
        lapse(bench)
        if len(workers) < 5:
            bench.submit(f"page{len(workers)}", f"https://{len(workers)}.example")
            bench.work()

    bench.during = ask
    bench.submit("page0", "https://0.example")
    bench.work()
    assert bench.got[0] == ("page0", Decision.DENY)
    assert caplog.text.count("does not come back") == lost
    assert "no other page is asked" in caplog.text


def test_a_lapsed_question_in_the_queue_is_not_shown():
    bench = Bench()
    bench.submit("page")
    assert bench.timers[0].delay == TURN_TIME
    bench.timers[0].function()
    bench.work()
    assert bench.got == [("page", Decision.DENY)]
    assert bench.asked == []


def test_closing_refuses_all():
    bench = Bench()
    bench.during = lambda _ticket: bench.desk.close()
    bench.submit("shown", "https://1.example")
    bench.submit("waiting", "https://2.example")
    bench.work()
    assert bench.got == [("waiting", Decision.DENY), ("shown", Decision.DENY)]
    assert bench.asked == ["shown"]
    with pytest.raises(SAMPProxyError, match="stopped"):
        bench.submit("late")


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
def test_texts_from_strangers_are_fit_for_display(text, shown):
    assert sanitize_for_display(text) == shown


@given(st.text(), st.integers(4, 100))
def test_any_text_is_made_fit_for_display(text, limit):
    shown = sanitize_for_display(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert "  " not in shown


def test_a_question_from_a_map_and_from_a_bare_name():
    """R40."""
    question = parse_registration({"samp.name": "Page", "x": ["list"], "y": "\x1b"}, "https://A.example", HERE)
    assert (question.name, question.origin) == ("Page", "https://a.example")
    assert question.details == {"samp.name": "Page", "y": "?"}
    assert parse_registration("Old page", "", HERE).details == {"samp.name": "Old page"}


def test_an_origin_is_shown_and_compared_as_a_whole():
    """R40: what it ends with is who it is."""
    origin = "https://simbad.example." + ".".join(["a" * 60] * 3) + ".evil.example"
    assert len(origin) > 200
    assert parse_registration("Page", origin, HERE).origin == origin
    for odd in ("https://" + "a" * 300, "https://a.example\x1b[1A", "https://\u202eexample", "https://a  b"):
        with pytest.raises(SAMPProxyError, match="origin"):
            parse_registration("Page", odd, HERE)


@pytest.mark.parametrize("identity", [{}, "", [], {"samp.name": ["x"]}, {"samp.name": " \n"}, {"name": "x"}])
def test_a_page_without_a_name_is_refused(identity):
    """R40."""
    with pytest.raises(SAMPProxyError, match=r"samp\.name"):
        parse_registration(identity, "https://a.example", HERE)
