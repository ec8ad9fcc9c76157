# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Handlers in a thread of the program: with a plain queue, the event loop of asyncio, and the main loop of Tk."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, SAMPProxyError

Connect = Callable[..., SAMPIntegratedClient]


class Program:
    """A program whose main loop runs jobs from a queue."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            job()

    def stop(self) -> None:
        self.jobs.put(None)
        self.thread.join()


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.stop()


def test_a_plain_queue(hub: SAMPHubServer, connect: Connect, program: Program, table: Table) -> None:
    """All functions of the program run in its thread; internal handlers of the package do not."""
    alice = connect("Alice")
    bob = connect("Bob", dispatch=program.jobs.put)
    threads: list[Any] = []

    def note(*args: Any) -> Any:
        threads.append(threading.current_thread())

    @bob.on("x-test.on")
    def on(row: int) -> dict[str, int]:
        note()
        if not row:
            raise ValueError("nothing")
        return {"row": row}

    bob.bind_receive_call("x-test.call", lambda key, sender, mtype, params, extra: note())
    bob.bind_receive_response("tag", note)
    assert alice.ecall_and_wait("bob", "x-test.on", 10, row=1)["samp.result"] == {"row": "1"}
    assert alice.ecall_and_wait("bob", "x-test.on", 10, row=0)["samp.error"]["samp.errortxt"] == "nothing"
    assert alice.ecall_and_wait("bob", "x-test.call", 10)["samp.status"] == "samp.ok"
    alice.on("table.load.votable")(lambda name: None)
    link = bob.link(table, to="alice")
    link.on_select(note)
    assert alice.ecall_and_wait(
        "bob", "table.select.rowList", 10, **{"table-id": link.id, "row-list": [0]}
    )["samp.status"] == "samp.ok"
    link.close()
    assert len(threads) == 4
    assert set(threads) == {program.thread}
    assert alice.wait_for("bob", 5).name == "Bob"
    assert alice.ecall_and_wait("bob", "samp.app.ping", 10)["samp.status"] == "samp.ok"


def test_sending_from_the_thread_of_the_program(
    hub: SAMPHubServer, connect: Connect, program: Program, table: Table
) -> None:
    """A handler in the program's main loop may send and wait: responses do not need that loop."""
    alice = connect("Alice")
    bob = connect("Bob", dispatch=program.jobs.put)
    alice.on("table.load.votable")(lambda table_id: None)
    reports: list[Any] = []

    @bob.on("x-test.go")
    def go() -> None:
        reports.append(bob.send(table, to="alice", timeout=10))
        reports.append(bob.wait_for("alice", 10))

    assert alice.ecall_and_wait("bob", "x-test.go", 20)["samp.status"] == "samp.ok"
    assert reports[0].ok


def test_an_event_loop_that_has_ended(hub: SAMPHubServer, connect: Connect) -> None:
    """Jobs that never run block neither the sender nor `disconnect`."""
    alice = connect("Alice")
    jobs: list[Any] = []
    arrived = threading.Event()
    bob = connect("Bob", dispatch=lambda job: (jobs.append(job), arrived.set()))
    bob.on("x-test.a")(lambda: None)
    responses: list[Any] = []
    thread = threading.Thread(target=lambda: responses.append(alice.ecall_and_wait("bob", "x-test.a", 20)))
    thread.start()
    assert arrived.wait(5)
    start = time.monotonic()
    bob.disconnect()
    assert time.monotonic() - start < 3
    thread.join(10)
    assert responses[0]["samp.status"] == "samp.error"
    jobs[0]()  # the job runs too late and has no effect


def test_a_dispatch_that_fails(hub: SAMPHubServer, connect: Connect) -> None:
    def dispatch(job: Callable[[], None]) -> None:
        raise RuntimeError("the window is closed")

    alice, bob = connect("Alice"), connect("Bob", dispatch=dispatch)
    bob.on("x-test.a")(lambda: None)
    response = alice.ecall_and_wait("bob", "x-test.a", 10)
    assert response["samp.error"]["samp.errortxt"] == "the window is closed"


def test_plain_client_with_asyncio(hub: SAMPHubServer, connect: Connect) -> None:
    """`SAMPIntegratedClient` in a program with asyncio runs its handlers in the event loop."""
    alice = connect("Alice")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        bob = connect("Bob", dispatch=loop.call_soon_threadsafe)
        seen: list[Any] = []

        @bob.on("x-test.a")
        def handle(row: int) -> dict[str, bool]:
            seen.append(asyncio.get_running_loop() is loop)
            return {"ok": True}

        response = await asyncio.to_thread(alice.ecall_and_wait, "bob", "x-test.a", 10, row=1)
        assert response["samp.result"] == {"ok": "1"}
        assert seen == [True]

    asyncio.run(main())


TK = """
import queue, sys, threading, tkinter
from pyvo.samp import SAMPIntegratedClient
try:
    root = tkinter.Tk()
except tkinter.TclError as error:
    sys.exit(f"no display: {error}")
jobs = queue.Queue()

def work():
    while not jobs.empty():
        jobs.get()()
    root.after(10, work)

client = SAMPIntegratedClient(name="Bob", dispatch=jobs.put)

@client.on("x-test.title")
def title(text):
    root.title(text)
    assert threading.current_thread() is threading.main_thread()
    return root.title()

client.on("x-test.quit")(lambda: root.after(100, root.quit) and None)
client.connect()
work()
root.mainloop()
client.disconnect()
root.destroy()
"""


def test_tk(hub: SAMPHubServer, connect: Connect, python_environment: dict[str, str], display: str) -> None:
    """Handlers run in Tk's main loop, which polls a queue: no other thread may use Tk."""
    pytest.importorskip("tkinter")
    alice = connect("Alice")
    environment = {**python_environment, "DISPLAY": display}
    program = subprocess.Popen([sys.executable, "-c", TK], env=environment, stderr=subprocess.PIPE, text=True)
    with program:
        try:
            alice.wait_for("bob", 30, "x-test.quit")
            assert alice.ecall_and_wait("bob", "x-test.title", 10, text="new")["samp.result"] == {"value": "new"}
            alice.ecall_and_wait("bob", "x-test.quit", 10)
            _, errors = program.communicate(timeout=30)
            assert (program.returncode, errors) == (0, "")
        finally:
            program.kill()


def test_faults_with_dispatch(hub: SAMPHubServer, connect: Connect, program: Program) -> None:
    """A call of an MType without a subscription is rejected, as without `dispatch`."""
    alice = connect("Alice")
    connect("Bob", dispatch=program.jobs.put)
    with pytest.raises(SAMPProxyError):
        alice.ecall_and_wait("bob", "x-test.none", 5)
