# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The queue of questions to the user, without sockets and threads."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.web.consent import MAX_WAITING, Answer, Asker, ConsentDesk, Question, Ticket, display_text, make_question

HERE = ("127.0.0.1", 1234)


class Bench(Asker):
    """A desk whose workers and timers run when the test says so."""

    def __init__(self, *answers: Answer | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.jobs: list[Callable[[], object]] = []
        self.timers: list[SimpleNamespace] = []
        self.during: Callable[[Ticket], object] = lambda _ticket: None
        self.got: list[tuple[str, Answer]] = []
        self.desk = ConsentDesk(self, self.jobs.append, self.call_later, patience=5.0)

    def ask(self, ticket: Ticket) -> Answer:
        self.asked.append(ticket.question.name)
        self.during(ticket)
        answer = self.answers.pop(0) if self.answers else Answer.ONCE
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def call_later(self, delay: float, function: Callable[[], object]) -> SimpleNamespace:
        timer = SimpleNamespace(delay=delay, function=function, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def submit(self, name: str, origin: str = "https://a.example") -> Ticket:
        question = Question(name, origin, {}, HERE)
        return self.desk.submit(question, lambda answer: self.got.append((name, answer)))

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


def test_a_question_is_asked_in_a_worker_and_answered_once():
    """R40."""
    bench = Bench(Answer.ONCE)
    bench.submit("page")
    assert bench.asked == []
    bench.work()
    assert bench.got == [("page", Answer.ONCE)]
    assert bench.timers[0].cancelled


def test_questions_of_several_origins_queue_up_behind_one_worker():
    """R41."""
    bench = Bench(Answer.DENY, Answer.ONCE, Answer.DENY)
    for number in range(3):
        bench.submit(f"page{number}", f"https://{number}.example")
    assert len(bench.jobs) == 1
    bench.work()
    assert bench.got == [("page0", Answer.DENY), ("page1", Answer.ONCE), ("page2", Answer.DENY)]


def test_the_worker_is_started_anew_after_a_pause():
    bench = Bench()
    bench.submit("one")
    bench.work()
    bench.submit("two")
    bench.work()
    assert bench.asked == ["one", "two"]


def test_one_open_question_per_origin():
    """R41: a flood from one page is refused, with a fault that says why."""
    bench = Bench()
    bench.submit("page")
    for _ in range(100):
        with pytest.raises(SAMPProxyError, match=r"being asked about another registration from https://a\.example"):
            bench.submit("page")
    assert len(bench.jobs) == 1
    bench.work()
    assert bench.asked == ["page"]


def test_the_question_on_the_screen_counts_as_open():
    bench = Bench()

    def flood(_ticket: Ticket) -> None:
        with pytest.raises(SAMPProxyError):
            bench.submit("again")

    bench.during = flood
    bench.submit("page")
    bench.work()
    assert bench.asked == ["page"]


def test_a_page_may_ask_again_as_soon_as_it_has_its_answer():
    bench = Bench(Answer.DENY, Answer.ONCE)
    question = Question("page", "https://a.example", {}, HERE)
    answers = []

    def answered(answer: Answer) -> None:
        answers.append(answer)
        if answer is Answer.DENY:
            bench.desk.submit(question, answered)

    bench.desk.submit(question, answered)
    bench.work()
    assert answers == [Answer.DENY, Answer.ONCE]


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
    bench.desk.withdraw(gone)
    bench.submit("reloaded", "https://2.example")  # and its question no longer blocks its origin
    bench.work()
    assert bench.asked == ["first", "reloaded"]


def test_a_page_that_goes_away_while_it_is_asked_about_gets_nothing():
    bench = Bench(Answer.ALWAYS, Answer.DENY)
    taken_back = []

    def leave(ticket: Ticket) -> None:
        ticket.when_withdrawn(lambda: taken_back.append("before"))
        bench.desk.withdraw(ticket)
        ticket.when_withdrawn(lambda: taken_back.append("after"))

    bench.during = leave
    bench.submit("page")
    bench.work()
    assert bench.got == []
    assert taken_back == ["before", "after"]
    bench.during = lambda _ticket: None
    bench.submit("page")  # nor was its origin allowed for always
    bench.work()
    assert bench.got == [("page", Answer.DENY)]


def test_what_was_answered_is_not_taken_back():
    bench = Bench()
    taken_back = []
    bench.during = lambda ticket: ticket.when_withdrawn(lambda: taken_back.append(1))
    ticket = bench.submit("page")
    bench.work()
    bench.desk.withdraw(ticket)
    assert taken_back == []


def test_always_holds_for_the_origin_while_the_hub_runs():
    bench = Bench(Answer.ALWAYS, Answer.DENY)
    bench.submit("page")
    bench.work()
    bench.submit("other page")
    bench.submit("foreign", "https://b.example")
    bench.work()
    assert bench.asked == ["page", "foreign"]
    assert bench.got == [("page", Answer.ALWAYS), ("other page", Answer.ALWAYS), ("foreign", Answer.DENY)]


@pytest.mark.parametrize("origin", ["", "null"])
def test_always_means_once_where_the_origin_says_nothing(origin):
    """R48: ``null`` is a legal origin, but any file page has it."""
    bench = Bench(Answer.ALWAYS, Answer.DENY)
    bench.submit("page", origin)
    bench.work()
    bench.submit("page", origin)
    bench.work()
    assert bench.asked == ["page", "page"]


def test_an_asker_that_fails_has_not_said_yes(caplog):
    bench = Bench(RuntimeError("no window"), Answer.ONCE)
    bench.submit("page", "https://1.example")
    bench.submit("next", "https://2.example")
    bench.work()
    assert bench.got == [("page", Answer.DENY), ("next", Answer.ONCE)]
    assert "could not be asked" in caplog.text


def test_a_question_that_nobody_answers_lapses():
    bench = Bench()
    taken_back = []

    def wait(ticket: Ticket) -> None:
        ticket.when_withdrawn(lambda: taken_back.append(1))
        bench.timers[0].function()

    bench.during = wait
    bench.submit("page")
    assert bench.timers[0].delay == 5.0
    bench.work()
    assert bench.got == [("page", Answer.DENY)]
    assert taken_back == [1]


def test_an_asker_that_ends_its_thread_has_not_said_yes():
    bench = Bench(SystemExit(), Answer.ONCE)
    bench.submit("page", "https://1.example")
    bench.submit("next", "https://2.example")
    bench.work()
    assert bench.got == [("page", Answer.DENY), ("next", Answer.ONCE)]


def lapse(bench: Bench) -> None:
    """Let the time of the question that is shown pass."""
    for timer in [timer for timer in bench.timers if not timer.cancelled and timer.delay > 5.0]:
        timer.cancel()
        timer.function()


def test_a_question_that_does_not_come_back_is_left_alone(caplog):
    bench = Bench(Answer.ONCE, Answer.ALWAYS, Answer.ONCE)
    bench.asks_beside = True

    def ask(ticket: Ticket) -> None:
        if ticket.question.name == "lost":
            lapse(bench)
            bench.submit("next", "https://2.example")
            bench.work()  # in another worker, as it were

    bench.during = ask
    bench.submit("lost", "https://1.example")
    bench.work()
    assert bench.got == [("lost", Answer.DENY), ("next", Answer.ONCE)]
    assert "does not come back" in caplog.text
    bench.during = lambda _ticket: None
    bench.submit("lost", "https://1.example")  # nor did its late answer count
    bench.work()
    assert bench.asked == ["lost", "next", "lost"]


def test_a_question_of_a_page_that_has_gone_is_left_alone_too():
    bench = Bench()
    bench.asks_beside = True

    def ask(ticket: Ticket) -> None:
        if ticket.question.name == "gone":
            bench.desk.withdraw(ticket)
            bench.submit("next", "https://2.example")
            lapse(bench)
            bench.work()

    bench.during = ask
    bench.submit("gone", "https://1.example")
    bench.work()
    assert bench.asked == ["gone", "next"]
    assert bench.got == [("next", Answer.ONCE)]


@pytest.mark.parametrize(("beside", "lost"), [(False, 0), (True, 1)])
def test_no_more_than_one_worker_is_lost(caplog, beside, lost):
    """Not even one where two questions would be taken for each other."""
    bench = Bench()
    bench.asks_beside = beside
    workers = []

    def ask(ticket: Ticket) -> None:
        workers.append(ticket.question.name)
        lapse(bench)
        if len(workers) < 5:
            bench.submit(f"page{len(workers)}", f"https://{len(workers)}.example")
            bench.work()

    bench.during = ask
    bench.submit("page0", "https://0.example")
    bench.work()
    assert bench.got[0] == ("page0", Answer.DENY)
    assert caplog.text.count("does not come back") == lost
    assert "no other page is asked" in caplog.text


def test_a_lapsed_question_in_the_queue_is_not_shown():
    bench = Bench()
    bench.submit("page")
    bench.timers[0].function()
    bench.work()
    assert bench.got == [("page", Answer.DENY)]
    assert bench.asked == []


def test_closing_refuses_all():
    bench = Bench()
    bench.during = lambda _ticket: bench.desk.close()
    bench.submit("shown", "https://1.example")
    bench.submit("waiting", "https://2.example")
    bench.work()
    assert bench.got == [("waiting", Answer.DENY), ("shown", Answer.DENY)]
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
    assert display_text(text) == shown


@given(st.text(), st.integers(4, 100))
def test_any_text_is_made_fit_for_display(text, limit):
    shown = display_text(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert "  " not in shown


def test_a_question_from_a_map_and_from_a_bare_name():
    """R40."""
    question = make_question({"samp.name": "Page", "x": ["list"], "y": "\x1b"}, "https://A.example", HERE)
    assert (question.name, question.origin) == ("Page", "https://a.example")
    assert question.details == {"samp.name": "Page", "y": "?"}
    assert make_question("Old page", "", HERE).details == {"samp.name": "Old page"}


def test_an_origin_is_shown_and_compared_as_a_whole():
    """R40: what it ends with is who it is."""
    origin = "https://simbad.example." + ".".join(["a" * 60] * 3) + ".evil.example"
    assert len(origin) > 200
    assert make_question("Page", origin, HERE).origin == origin
    for odd in ("https://" + "a" * 300, "https://a.example\x1b[1A", "https://\u202eexample", "https://a  b"):
        with pytest.raises(SAMPProxyError, match="origin"):
            make_question("Page", odd, HERE)


@pytest.mark.parametrize("identity", [{}, "", [], {"samp.name": ["x"]}, {"samp.name": " \n"}, {"name": "x"}])
def test_a_page_without_a_name_is_refused(identity):
    """R40."""
    with pytest.raises(SAMPProxyError, match=r"samp\.name"):
        make_question(identity, "https://a.example", HERE)
