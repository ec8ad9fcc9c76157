# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The pool starts threads on demand and reuses them."""

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


def test_each_blocked_task_has_its_own_worker(workers):
    """A task that blocks does not delay other tasks."""
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


def test_no_task_is_lost_while_workers_end():
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


def test_a_task_waits_if_no_thread_can_be_started(workers, loop, monkeypatch, caplog):
    """The next free thread runs the task, and the number of free threads stays correct."""
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


def test_an_idle_worker_keeps_no_reference_to_its_task(workers, loop):
    class Thing:
        def __del__(self) -> None:
            gone.set()

        def use(self) -> None:
            """Do nothing."""

    gone = threading.Event()
    workers.submit(Thing().use)
    assert gone.wait(TIMEOUT)
