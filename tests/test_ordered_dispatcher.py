"""In order, but never behind one that is stuck (R24)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.ordered_dispatcher import OrderedDispatcher
from tests.broker.clockwork import Clock


class Bench:
    """A dispatcher whose items are at work until the test says otherwise."""

    def __init__(self, grace: float = 2.0, beside: int = 3) -> None:
        self.clock = Clock()
        self.started: list[object] = []
        self.at_work: dict[object, Callable[[], None]] = {}
        self.dispatcher: OrderedDispatcher[object] = OrderedDispatcher(
            self.start, self.clock.call_later, grace=grace, beside=beside, clock=self.clock
        )

    def start(self, item: object, done: Callable[[], None]) -> None:
        self.started.append(item)
        self.at_work[item] = done

    def put(self, *items: object) -> None:
        for item in items:
            self.dispatcher.put(item)

    def finish(self, item: object) -> None:
        self.at_work.pop(item)()


def test_one_after_the_other() -> None:
    """R24: the next one is started when the one before is done."""
    bench = Bench()
    bench.put(1, 2, 3)
    assert bench.started == [1]
    bench.finish(1)
    assert bench.started == [1, 2]
    bench.finish(2)
    bench.finish(3)
    assert bench.started == [1, 2, 3]
    assert bench.dispatcher.idle


def test_beside_a_stuck_one_after_the_grace_time() -> None:
    """R24: a handler that waits for a nested call does not deadlock."""
    bench = Bench(grace=2.0)
    bench.put("outer")
    bench.clock.pass_time(1.0)
    bench.put("inner")
    bench.clock.pass_time(0.9)
    assert bench.started == ["outer"]
    bench.clock.pass_time(0.1)
    assert bench.started == ["outer", "inner"]
    bench.finish("inner")
    bench.finish("outer")
    assert bench.dispatcher.idle


def test_a_stuck_one_delays_the_rest_only_once() -> None:
    """R24: behind one that never ends the others run in order, without further waits."""
    bench = Bench()
    bench.put("stuck", 1, 2, 3)
    bench.clock.pass_time(2.0)
    assert bench.started == ["stuck", 1]
    bench.finish(1)
    bench.finish(2)
    assert bench.started == ["stuck", 1, 2, 3]


def test_grace_counts_from_the_start_of_each_head() -> None:
    """The timer that was set for one head does not cut the time of the next one."""
    bench = Bench(grace=2.0)
    bench.put(1, 2, 3)
    bench.clock.pass_time(1.5)
    bench.finish(1)
    bench.clock.pass_time(1.9)  # 2 has had 1.9 s
    assert bench.started == [1, 2]
    bench.clock.pass_time(0.1)
    assert bench.started == [1, 2, 3]


def test_so_many_beside_and_no_more() -> None:
    """Each item at work may hold a thread: their number is limited."""
    bench = Bench(grace=1.0, beside=2)
    bench.put(*range(9))
    bench.clock.pass_time(60.0)
    assert bench.started == [0, 1, 2]
    bench.finish(1)  # its place beside goes to the head, which is overdue
    bench.clock.pass_time(0.0)
    assert bench.started == [0, 1, 2, 3]
    bench.clock.pass_time(60.0)
    assert bench.started == [0, 1, 2, 3]
    bench.finish(3)
    assert bench.started == [0, 1, 2, 3, 4]


def test_done_twice_counts_once() -> None:
    bench = Bench()
    bench.put(1, 2, 3)
    done = bench.at_work[1]
    done()
    done()
    assert bench.started == [1, 2]


def test_no_recursion_when_done_at_once() -> None:
    """A start that is done before it returns, or puts the next item itself, costs no stack."""
    clock = Clock()
    seen: list[int] = []

    def start(item: int, done: Callable[[], None]) -> None:
        seen.append(item)
        if item < 20_000:
            dispatcher.put(item + 1)
        done()

    dispatcher: OrderedDispatcher[int] = OrderedDispatcher(start, clock.call_later, clock=clock)
    dispatcher.put(0)
    assert seen == list(range(20_001))


def test_quick_items_cost_no_timers() -> None:
    """A timer is set only when something waits, and not moved from head to head."""
    bench = Bench()
    for item in range(100):
        bench.put(item)
        bench.finish(item)
    assert bench.clock.set_in_all == 0
    bench.put(*range(100))
    for item in range(100):
        bench.finish(item)
    assert bench.clock.set_in_all == 1
    assert not bench.clock.alarms


def test_an_item_that_cannot_be_started_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """One bad item must not stop the ones behind it, nor go unnoticed."""
    clock = Clock()
    seen: list[int] = []

    def start(item: int, done: Callable[[], None]) -> None:
        if item == 1:
            raise ZeroDivisionError
        seen.append(item)
        done()

    dispatcher: OrderedDispatcher[int] = OrderedDispatcher(start, clock.call_later, clock=clock)
    with caplog.at_level(logging.ERROR):
        for item in range(3):
            dispatcher.put(item)
    assert seen == [0, 2]
    assert "could not be started" in caplog.text


def test_close_hands_back_what_waits() -> None:
    bench = Bench()
    bench.put(1, 2, 3)
    assert bench.dispatcher.close() == [2, 3]
    assert not bench.clock.alarms
    bench.finish(1)
    bench.put(4)
    bench.clock.pass_time(10.0)
    assert bench.started == [1]
    assert bench.dispatcher.close() == []


STEPS = st.lists(
    st.one_of(
        st.just(("put", 0.0)),
        st.tuples(st.just("finish"), st.floats(0, 1)),
        st.tuples(st.just("wait"), st.floats(0, 5)),
    ),
    max_size=60,
)


@given(steps=STEPS, beside=st.integers(0, 3))
def test_order_whatever_happens(steps: list[tuple[str, float]], beside: int) -> None:
    """R24: each item is started once, in order, and none is left waiting when there is room."""
    bench = Bench(grace=1.0, beside=beside)
    put = 0
    for step, much in steps:
        if step == "put":
            bench.put(put)
            put += 1
        elif step == "finish" and bench.at_work:
            bench.finish(list(bench.at_work)[int(much * (len(bench.at_work) - 1))])
        elif step == "wait":
            bench.clock.pass_time(much)
        assert bench.started == list(range(len(bench.started)))
        assert len(bench.at_work) <= beside + 1
        assert len(bench.dispatcher) == put - len(bench.started)
        assert len(bench.clock.alarms) <= 1
    bench.clock.pass_time(beside + 1.0)
    if len(bench.dispatcher):
        assert len(bench.at_work) == beside + 1  # only because too many are at work
    while bench.at_work:
        bench.finish(next(iter(bench.at_work)))
        bench.clock.pass_time(1.0)
    assert bench.started == list(range(put))
    assert bench.dispatcher.idle
    assert not bench.clock.alarms
