# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The loop and its timers."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyvo.samp.transport import event_loop
from pyvo.samp.transport.event_loop import READ, WRITE, EventLoop

from .peers import TIMEOUT, eventually, in_loop

MANY = 2000


def test_calls_run_in_order_in_the_thread_of_the_loop(loop):
    seen: list[int] = []
    assert in_loop(loop, loop.in_loop)
    assert not loop.in_loop()
    for number in range(MANY):
        loop.call_soon(seen.append, number)
    assert in_loop(loop, lambda: list(seen)) == list(range(MANY))


def test_no_wake_up_is_lost(loop):
    """The calls arrive while the loop starts to sleep, sleeps, or wakes up."""

    def make_calls() -> None:
        for _ in range(MANY):
            event = threading.Event()
            loop.call_soon(event.set)
            if not event.wait(TIMEOUT):
                return
        finished.append(True)

    finished: list[bool] = []
    threads = [threading.Thread(target=make_calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(finished) == 4


def test_each_call_of_many_threads_is_made_once(loop):
    seen: list[tuple[int, int]] = []
    threads = [
        threading.Thread(target=lambda own=own: [loop.call_soon(seen.append, (own, n)) for n in range(MANY)])
        for own in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = in_loop(loop, lambda: list(seen))
    assert len(seen) == 8 * MANY
    for own in range(8):
        assert [n for other, n in seen if other == own] == list(range(MANY))


def test_calls_that_a_call_adds_run_in_the_next_round(loop):
    """A callback that schedules itself again and again does not keep other callbacks from running."""
    left, right = socket.socketpair()
    event_seen = threading.Event()

    def again() -> None:
        if not event_seen.is_set():
            loop.call_soon(again)

    loop.call_soon(again)
    loop.call_soon(loop.register, left, READ, lambda _events: event_seen.set())
    right.send(b"x")
    assert event_seen.wait(TIMEOUT)
    in_loop(loop, loop.unregister, left)
    left.close()
    right.close()


# Timers


def test_timers_run_when_they_are_due(loop):
    seen: list[int] = []
    done = threading.Event()
    start = time.monotonic()
    for number in (3, 1, 2):
        loop.call_later(0.03 * number, seen.append, number)
    loop.call_later(0.1, done.set)
    assert done.wait(TIMEOUT)
    assert seen == [1, 2, 3]
    assert time.monotonic() - start >= 0.1


def test_a_timer_that_is_due_sooner_wakes_the_loop(loop):
    late = loop.call_later(3600, pytest.fail)
    in_loop(loop, int)
    done = threading.Event()
    loop.call_later(0.001, done.set)
    assert done.wait(TIMEOUT)
    assert late.active
    late.cancel()


def test_a_cancelled_timer_does_nothing(loop):
    seen: list[int] = []
    timers = [loop.call_later(0.02, seen.append, number) for number in range(10)]
    for timer in timers[::2]:
        timer.cancel()
        assert not timer.active
    done = threading.Event()
    loop.call_later(0.05, done.set)
    assert done.wait(TIMEOUT)
    assert seen == [1, 3, 5, 7, 9]
    assert not timers[1].active


def test_a_timer_may_be_cancelled_while_it_becomes_due(loop, caplog):
    """The loop never calls a function without its arguments."""
    seen: list[int] = []
    for _ in range(MANY):
        loop.call_later(0.0, lambda a, b: seen.append(a + b), 1, 2).cancel()
    in_loop(loop, int)
    assert set(seen) <= {3}
    assert not caplog.records


def test_cancelled_timers_are_removed(loop):
    """Each message has a timer that is soon cancelled, and must not stay in memory until it would be due."""
    kept = [loop.call_later(3600, int) for _ in range(100)]
    for _ in range(20 * MANY):
        loop.call_later(3600, int).cancel()
    assert len(loop._timers) <= 4 * len(kept)
    assert all(timer.active for timer in kept)


def test_timers_set_by_many_threads_all_run(loop):
    counted = threading.Semaphore(0)
    threads = [
        threading.Thread(target=lambda: [loop.call_later(n % 7 * 0.001, counted.release) for n in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(4 * 500):
        assert counted.acquire(timeout=TIMEOUT)


# Sockets


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    yield left, right
    left.close()
    right.close()


def test_the_events_of_a_registered_socket_are_reported(loop, pair):
    seen: list[int] = []
    event_seen = threading.Event()

    def on_event(events: int) -> None:
        seen.append(events)
        loop.unregister(pair[0])
        event_seen.set()

    in_loop(loop, loop.register, pair[0], READ, on_event)
    assert not seen
    in_loop(loop, loop.modify, pair[0], WRITE, on_event)
    assert event_seen.wait(TIMEOUT)
    assert seen == [WRITE]
    in_loop(loop, loop.unregister, pair[0])  # a second call has no effect


def test_no_callback_for_a_socket_that_was_closed_in_the_same_round(loop):
    """Two sockets are ready at once, and the callback that is called first closes the other."""
    pairs = [socket.socketpair() for _ in range(2)]
    seen: list[int] = []
    event_seen = threading.Event()

    def on_event(own: int) -> None:
        seen.append(own)
        for left, _ in pairs:
            loop.unregister(left)
            left.close()
        event_seen.set()

    def start() -> None:
        for own, (left, right) in enumerate(pairs):
            right.send(b"x")
            loop.register(left, READ, lambda _events, own=own: on_event(own))

    loop.call_soon(start)
    assert event_seen.wait(TIMEOUT)
    in_loop(loop, int)
    assert len(seen) == 1
    for _, right in pairs:
        right.close()


def test_an_idle_loop_sleeps(loop):
    in_loop(loop, int)
    rounds: list[float | None] = []
    select = loop._selector.select
    loop._selector.select = lambda timeout=None: rounds.append(timeout) or select(timeout)  # type: ignore[method-assign]
    done = threading.Event()
    loop.call_later(0.05, done.set)
    assert done.wait(TIMEOUT)
    in_loop(loop, int)
    assert len(rounds) < 8


# Faults


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), MemoryError()])
def test_a_callback_that_fails_is_logged_and_the_loop_continues(loop, caplog, error):
    def fail() -> None:
        raise error

    caplog.set_level(logging.ERROR)
    loop.call_soon(fail)
    loop.call_later(0.0, fail)
    assert in_loop(loop, lambda: 3) == 3
    eventually(loop, lambda: len(caplog.records) == 2)
    assert all(record.exc_info and record.exc_info[1] is error for record in caplog.records)


def test_a_task_that_fails_is_logged_and_its_thread_continues(loop, caplog):
    done = threading.Event()
    names: list[str] = []

    def fail() -> None:
        names.append(threading.current_thread().name)
        raise SystemExit

    loop.run_in_worker(fail)
    eventually(loop, lambda: loop.workers._idle == 1)
    loop.run_in_worker(lambda: (names.append(threading.current_thread().name), done.set()))
    assert done.wait(TIMEOUT)
    assert len(set(names)) == 1
    assert len(caplog.records) == 1


# Stop


def test_stop_makes_the_pending_calls_and_may_be_repeated():
    loop = EventLoop()
    seen: list[str] = []
    loop.call_soon(seen.append, "before the start")
    loop.start()
    assert in_loop(loop, lambda: list(seen)) == ["before the start"]
    loop.call_soon(loop.call_soon, lambda: loop.call_soon(seen.append, "the call of a call"))
    loop.stop()
    loop.stop()
    assert loop.stopped
    assert not loop.in_loop()
    assert "the call of a call" in seen
    loop.call_soon(seen.append, "too late")
    loop.call_later(0.0, seen.append, "too late")
    loop.run_in_worker(seen.append, "too late")
    assert "too late" not in seen


def test_a_callback_that_schedules_itself_does_not_prevent_the_stop():
    loop = EventLoop()
    loop.start()

    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    loop.stop(TIMEOUT)
    assert not loop._thread.is_alive()


def test_a_thread_that_reuses_the_identifier_is_not_the_loop_thread():
    """The system may give the identifier of a thread that has ended to another thread."""
    loop = EventLoop()
    loop.start()
    loop.stop()
    identifier = loop._thread.ident
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_loop, "threading", SimpleNamespace(get_ident=lambda: identifier))
        inside = loop.in_loop()
    assert not inside


def test_stop_from_a_thread_of_the_loop():
    """A callback or a worker that stops the loop does not wait for itself."""
    for how in ("call_soon", "run_in_worker"):
        loop = EventLoop()
        loop.start()
        stopped = threading.Event()
        getattr(loop, how)(lambda loop=loop, stopped=stopped: (loop.stop(), stopped.set()))
        assert stopped.wait(TIMEOUT)
        loop._thread.join(TIMEOUT)
        assert not loop._thread.is_alive()


def test_stop_before_the_start():
    loop = EventLoop()
    loop.stop()
    loop.stop()
    assert loop._waker.closed


def test_stop_waits_for_a_busy_worker_up_to_the_timeout():
    loop = EventLoop()
    loop.start()
    started, end = threading.Event(), threading.Event()
    loop.run_in_worker(lambda: (started.set(), end.wait(TIMEOUT)))
    assert started.wait(TIMEOUT)
    start = time.monotonic()
    loop.stop(0.1)
    assert time.monotonic() - start < 2
    end.set()


def test_stop_from_many_threads(loop):
    threads = [threading.Thread(target=loop.stop) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert not loop._thread.is_alive()


# Busy polling


@pytest.fixture
def busy_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventLoop]:
    """Run a loop that polls all the time after its first event, until it is stopped."""
    monkeypatch.setattr(event_loop, "BUSY_POLL_TIME", 10 * TIMEOUT)
    loop = EventLoop("busy-loop", busy_poll=True)
    loop.start()
    yield loop
    loop.stop(TIMEOUT)


def test_after_an_event_the_loop_busy_polls_and_needs_no_wake_up(busy_loop, monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arrived = threading.Semaphore(0)
        in_loop(busy_loop, busy_loop.register, theirs, READ, lambda _: (theirs.recv(1), arrived.release()))
        woken: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(busy_loop, "_wake", lambda: woken.append(True))
            for _ in range(20):
                ours.send(b"a")
                assert arrived.acquire(timeout=TIMEOUT)
                done = threading.Event()
                busy_loop.call_soon(done.set)
                assert done.wait(TIMEOUT)
        assert not woken


def test_the_loop_does_not_busy_poll_under_overload(busy_loop, monkeypatch):
    """A yield that takes long shows that more threads want to run than there are processors."""
    yields: list[bool] = []
    monkeypatch.setattr(event_loop, "BUSY_POLL_TIME", 1e-3)
    monkeypatch.setattr(event_loop, "BUSY_POLL_RETRY", 10 * TIMEOUT)
    monkeypatch.setattr(event_loop, "_sched_yield", lambda: (yields.append(True), time.sleep(0.01)))
    deadline = time.monotonic() + TIMEOUT
    while not yields:
        in_loop(busy_loop, int)
        assert time.monotonic() < deadline
    for _ in range(20):
        in_loop(busy_loop, int)
    assert len(yields) == 1


def test_a_loop_that_busy_polls_is_stopped_at_once(busy_loop):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        happened = threading.Event()
        in_loop(busy_loop, busy_loop.register, theirs, READ, lambda _: (theirs.recv(1), happened.set()))
        ours.send(b"a")
        assert happened.wait(TIMEOUT)
        busy_loop.stop(TIMEOUT)
        assert not busy_loop._thread.is_alive()


# Fork

FORK = """
import os, socket, sys, threading
from pyvo.samp.transport.event_loop import READ, EventLoop
from pyvo.samp.transport.server import XMLRPCServer
from pyvo.samp.transport.xmlrpc_client import XMLRPCClient
from pyvo.samp.transport.xmlrpc_handler import XMLRPCHandler

loop = EventLoop()
loop.start()
server = XMLRPCServer(("127.0.0.1", 0), loop, XMLRPCHandler({"echo": lambda text: text}))
server.start()
client = XMLRPCClient(f"http://127.0.0.1:{server.port}/")
assert client.call("echo", "before") == "before"
child = os.fork()
if child == 0:
    client.after_fork_in_child()
    loop.after_fork_in_child()
    loop.stop()
    loop.call_soon(print)
    os._exit(0 if loop.stopped and not loop.in_loop() else 1)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert client.call("echo", "after") == "after"
assert XMLRPCClient(client.url).call("echo", "new") == "new"
client.close()
loop.call_soon(server.stop)
loop.stop()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_does_not_disturb_its_parent(tmp_path):
    """The child shares the table of watched descriptors with its parent, whose server must continue to work."""
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr
