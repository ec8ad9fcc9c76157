"""`OrderedDispatcher`: items start in order, and no item waits long for one that does not finish (R24)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.ordered_dispatcher import OrderedDispatcher
from tests.broker.clockwork import Clock


class Harness:
    """A dispatcher with items that run until the test finishes them."""

    def __init__(self, grace: float = 2.0, max_overflow: int = 3) -> None:
        self.clock = Clock()
        self.started: list[object] = []
        self.running: dict[object, Callable[[], None]] = {}
        self.dispatcher: OrderedDispatcher[object] = OrderedDispatcher(
            self.start, self.clock.call_later, grace=grace, max_overflow=max_overflow, clock=self.clock
        )

    def start(self, item: object, done: Callable[[], None]) -> None:
        self.started.append(item)
        self.running[item] = done

    def put(self, *items: object) -> None:
        for item in items:
            self.dispatcher.put(item)

    def finish(self, item: object) -> None:
        self.running.pop(item)()


def test_items_run_one_after_the_other() -> None:
    """R24: an item starts when the one before it is done."""
    harness = Harness()
    harness.put(1, 2, 3)
    assert harness.started == [1]
    harness.finish(1)
    assert harness.started == [1, 2]
    harness.finish(2)
    harness.finish(3)
    assert harness.started == [1, 2, 3]
    assert harness.dispatcher.idle


def test_the_next_item_starts_after_the_grace_time() -> None:
    """R24: a handler that waits for a nested call does not deadlock."""
    harness = Harness(grace=2.0)
    harness.put("outer")
    harness.clock.pass_time(1.0)
    harness.put("inner")
    harness.clock.pass_time(0.9)
    assert harness.started == ["outer"]
    harness.clock.pass_time(0.1)
    assert harness.started == ["outer", "inner"]
    harness.finish("inner")
    harness.finish("outer")
    assert harness.dispatcher.idle


def test_a_stuck_item_delays_the_rest_only_once() -> None:
    """R24: after an item that never ends, the others run in order, without further delays."""
    harness = Harness()
    harness.put("stuck", 1, 2, 3)
    harness.clock.pass_time(2.0)
    assert harness.started == ["stuck", 1]
    harness.finish(1)
    harness.finish(2)
    assert harness.started == ["stuck", 1, 2, 3]


def test_grace_counts_from_the_start_of_each_item() -> None:
    """The timer that was set for one item does not shorten the time of the next one."""
    harness = Harness(grace=2.0)
    harness.put(1, 2, 3)
    harness.clock.pass_time(1.5)
    harness.finish(1)
    harness.clock.pass_time(1.9)  # item 2 has run for 1.9 s
    assert harness.started == [1, 2]
    harness.clock.pass_time(0.1)
    assert harness.started == [1, 2, 3]


def test_the_overflow_is_limited() -> None:
    """Only a few items run at the same time, since each may use a thread."""
    harness = Harness(grace=1.0, max_overflow=2)
    harness.put(*range(9))
    harness.clock.pass_time(60.0)
    assert harness.started == [0, 1, 2]
    harness.finish(1)  # the current item, which is overdue, gets its place in the overflow
    harness.clock.pass_time(0.0)
    assert harness.started == [0, 1, 2, 3]
    harness.clock.pass_time(60.0)
    assert harness.started == [0, 1, 2, 3]
    harness.finish(3)
    assert harness.started == [0, 1, 2, 3, 4]


def test_done_twice_counts_once() -> None:
    harness = Harness()
    harness.put(1, 2, 3)
    done = harness.running[1]
    done()
    done()
    assert harness.started == [1, 2]


def test_no_recursion_if_items_are_done_at_once() -> None:
    """An item that is done before its start returns, or that puts the next item, causes no recursion."""
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


def test_quick_items_set_no_timers() -> None:
    """A timer is set only if an item waits, and is not set again for each current item."""
    harness = Harness()
    for item in range(100):
        harness.put(item)
        harness.finish(item)
    assert harness.clock.timers_set == 0
    harness.put(*range(100))
    for item in range(100):
        harness.finish(item)
    assert harness.clock.timers_set == 1
    assert not harness.clock.timers


def test_an_item_that_cannot_be_started_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged, and the items after it start."""
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


def test_close_returns_the_waiting_items() -> None:
    harness = Harness()
    harness.put(1, 2, 3)
    assert harness.dispatcher.close() == [2, 3]
    assert not harness.clock.timers
    harness.finish(1)
    harness.put(4)
    harness.clock.pass_time(10.0)
    assert harness.started == [1]
    assert harness.dispatcher.close() == []


STEPS = st.lists(
    st.one_of(
        st.just(("put", 0.0)),
        st.tuples(st.just("finish"), st.floats(0, 1)),
        st.tuples(st.just("wait"), st.floats(0, 5)),
    ),
    max_size=60,
)


@given(steps=STEPS, max_overflow=st.integers(0, 3))
def test_any_sequence_of_events_keeps_the_order(steps: list[tuple[str, float]], max_overflow: int) -> None:
    """R24: each item starts once and in order, and no item waits while the overflow is not full."""
    harness = Harness(grace=1.0, max_overflow=max_overflow)
    put = 0
    for step, amount in steps:
        if step == "put":
            harness.put(put)
            put += 1
        elif step == "finish" and harness.running:
            harness.finish(list(harness.running)[int(amount * (len(harness.running) - 1))])
        elif step == "wait":
            harness.clock.pass_time(amount)
        assert harness.started == list(range(len(harness.started)))
        assert len(harness.running) <= max_overflow + 1
        assert len(harness.dispatcher) == put - len(harness.started)
        assert len(harness.clock.timers) <= 1
    harness.clock.pass_time(max_overflow + 1.0)
    if len(harness.dispatcher):
        assert len(harness.running) == max_overflow + 1  # only because the overflow is full
    while harness.running:
        harness.finish(next(iter(harness.running)))
        harness.clock.pass_time(1.0)
    assert harness.started == list(range(put))
    assert harness.dispatcher.idle
    assert not harness.clock.timers
