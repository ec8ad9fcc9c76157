# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Threads that are made on demand and reused."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pyvo.samp.transport.event_loop import EventLoop, WorkerPool

from .peers import TIMEOUT, eventually


@pytest.fixture
def workers() -> Iterator[WorkerPool]:
    workers = WorkerPool("test", idle_timeout=60.0)
    yield workers
    workers.stop(TIMEOUT)


def wait_idle(workers: WorkerPool, number: int, loop: EventLoop) -> None:
    eventually(loop, lambda: workers._idle == number)


def test_workers_are_reused(workers, loop):
    for _ in range(50):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(TIMEOUT)
        wait_idle(workers, 1, loop)
    assert workers.size == 1


def test_as_many_workers_as_tasks_block(workers):
    """A task that blocks holds up no other."""
    gate = threading.Barrier(21)
    for _ in range(20):
        workers.submit(gate.wait, TIMEOUT)
    gate.wait(TIMEOUT)
    assert workers.size == 20


def test_idle_workers_end(loop):
    workers = WorkerPool("test", idle_timeout=0.01)
    done = threading.Event()
    workers.submit(done.set)
    assert done.wait(TIMEOUT)
    eventually(loop, lambda: workers.size == 0)
    done.clear()
    workers.submit(done.set)
    assert done.wait(TIMEOUT)
    workers.stop(TIMEOUT)


def test_no_task_is_lost_where_workers_come_and_go():
    """The idle time is so short that threads end while tasks are handed to them."""
    workers = WorkerPool("test", idle_timeout=0.0)
    counted = threading.Semaphore(0)
    threads = [threading.Thread(target=lambda: [workers.submit(counted.release) for _ in range(300)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(4 * 300):
        assert counted.acquire(timeout=TIMEOUT)
    workers.stop(TIMEOUT)


def test_a_task_waits_where_no_thread_can_be_started(workers, loop, monkeypatch, caplog):
    """It is done by the next thread that is free, and does not upset the count of those."""
    seen: list[str] = []
    gate, second = threading.Event(), threading.Event()
    workers.submit(gate.wait, TIMEOUT)

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        workers.submit(seen.append, "waited")
    assert "waits" in caplog.text
    assert not seen
    gate.set()
    wait_idle(workers, 1, loop)
    assert seen == ["waited"]
    workers.submit(second.set)
    assert second.wait(TIMEOUT)


def test_a_waiting_worker_keeps_nothing_alive(workers, loop):
    class Thing:
        def __del__(self) -> None:
            gone.set()

        def use(self) -> None:
            """Do nothing."""

    gone = threading.Event()
    workers.submit(Thing().use)
    assert gone.wait(TIMEOUT)
