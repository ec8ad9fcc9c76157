# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The endurance run: clients register, send, crash and unregister at random at one hub, for minutes or hours.

``python -m benchmarks.soak --minutes 1`` ends with exit code 0 when each message was delivered once and the
hub's threads, descriptors and memory are back at their earlier numbers. A ``--seed`` repeats the random decisions of a
run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .hubs import OURS, Hub, start_hub
from .load_generator import LoadGenerator
from .soak_checker import DUE, MessageChecker

#: The usual and the least number of clients.
MAX_CLIENTS, MIN_CLIENTS = 30, 12
#: Mean seconds between two arrivals, crashes or departures.
MEAN_PAUSE = 0.5
#: How much more the hub may use after a run: fragmented memory of the allocator, threads for reuse.
MORE_MEMORY, MORE_THREADS, MORE_DESCRIPTORS = 20e6, 2, 4


@dataclass
class ClientProcess:
    """The process of a client."""

    serial: int
    pid: int
    commands: int
    journal: int
    rest: bytes = b""
    leaving: bool = False


@dataclass(frozen=True)
class Resources:
    """The resources of the hub."""

    threads: int
    descriptors: int
    memory: float

    @classmethod
    def of(cls, hub: Hub) -> Resources:
        return cls(hub.threads(), hub.descriptors(), hub.memory())

    def exceeds(self, before: Resources) -> list[str]:
        """Return the resources that exceed the earlier numbers."""
        return [
            f"{what}: {now:.0f} after {then:.0f}"
            for what, now, then, more in (
                ("threads", self.threads, before.threads, MORE_THREADS),
                ("descriptors", self.descriptors, before.descriptors, MORE_DESCRIPTORS),
                ("bytes of memory", self.memory, before.memory, MORE_MEMORY),
            )
            if now > then + more
        ]


class Soak:
    """Starts clients, kills them, and reads their journals. It has no thread, so that it can fork."""

    def __init__(self, hub: Hub, seed: int) -> None:
        self.hub = hub
        self.checker = MessageChecker()
        self.processes: dict[int, ClientProcess] = {}
        self._random = random.Random(seed)
        self._seed = seed
        self._serial = 0
        self._selector = selectors.DefaultSelector()

    # Starting and ending clients

    def start_client(self) -> None:
        """Start a client."""
        from .soak_clients import run_client  # noqa: PLC0415 - needs the environment of the hub

        self._serial += 1
        child_commands, commands = os.pipe()
        journal, child_journal = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                # Close the other ends of all pipes. Otherwise they would stay open after their owner has ended.
                others = [(process.commands, process.journal) for process in self.processes.values()]
                for pair in [(commands, journal), *others]:
                    os.close(pair[0])
                    os.close(pair[1])
                self._selector.close()
                seed = self._seed * 1_000_003 + self._serial
                run_client(self._serial, seed, child_commands, child_journal, self.hub.web.port)
                code = 0
            except BaseException as error:
                said = " | ".join(traceback.format_exception(error)[-3:]).replace("\n", " ")
                os.write(child_journal, f"{time.monotonic():.4f} trouble died: {said}\n".encode())
            finally:
                os._exit(code)
        os.close(child_commands)
        os.close(child_journal)
        self.processes[self._serial] = ClientProcess(self._serial, pid, commands, journal)
        self._selector.register(journal, selectors.EVENT_READ, self.processes[self._serial])

    def crash(self, process: ClientProcess) -> None:
        """Kill a client."""
        process.leaving = True
        self.checker.counts["crash"] += 1
        self.checker.client_ended(str(process.serial), time.monotonic())
        os.kill(process.pid, signal.SIGKILL)

    def send_command(self, process: ClientProcess, command: bytes) -> None:
        """Send a command to a client."""
        process.leaving = process.leaving or command == b"l"
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its journal contains the reason
            os.write(process.commands, command)

    def _change_population(self) -> None:
        """Start, kill or end a client at random."""
        there = [process for process in self.processes.values() if not process.leaving]
        if len(there) <= MIN_CLIENTS or (len(there) < MAX_CLIENTS and self._random.random() < 0.6):
            self.start_client()
        elif self._random.random() < 0.5:
            self.crash(self._random.choice(there))
        else:
            self.send_command(self._random.choice(there), b"l")

    # Reading journals

    def read(self, seconds: float) -> None:
        """Read the journals for at most this time."""
        for key, _ in self._selector.select(seconds):
            process = key.data
            data = os.read(process.journal, 1 << 16)
            *lines, process.rest = (process.rest + data).split(b"\n")
            for line in lines:
                self.checker.record(str(process.serial), line.decode(errors="replace"))
            if not data:
                self._remove(process)

    def _remove(self, process: ClientProcess) -> None:
        self._selector.unregister(process.journal)
        os.close(process.journal)
        os.close(process.commands)
        del self.processes[process.serial]
        os.waitpid(process.pid, 0)
        if not process.leaving:
            self.checker.faults.append(f"client {process.serial} ended by itself")

    def read_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Read until a condition holds; return whether it does."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                return False
            self.read(0.2)
        return True

    # The run

    def run(self, seconds: float, population: int = MAX_CLIENTS) -> None:
        """Run clients for a while; then all unregister, and all messages are checked."""
        for _ in range(population):
            self.start_client()
        start = reported = checked = time.monotonic()
        next_event = start + 2.0
        while (now := time.monotonic()) < start + seconds:
            if now >= next_event:
                self._change_population()
                next_event = now + self._random.expovariate(1 / MEAN_PAUSE)
            if now - checked > 10:
                self.checker.check_messages(now)
                checked = now
            if now - reported > 60:
                print(f"{(now - start) / 60:.0f} min: {self.summary()}; {Resources.of(self.hub)}", flush=True)
                reported = now
            self.read(min(next_event, start + seconds) - now if next_event > now else 0)
        for process in list(self.processes.values()):
            self.send_command(process, b"q")
        self.read_until(lambda: False, DUE)
        for process in list(self.processes.values()):
            if not process.leaving:
                self.send_command(process, b"l")
        if not self.read_until(lambda: not self.processes, 30):
            self.checker.faults.append(f"clients {list(self.processes)} did not unregister within 30 s")
        self.checker.check_messages(float("inf"))

    def summary(self) -> str:
        """Return the counts in one line."""
        counts = self.checker.counts
        words = ("join", "crash", "left", "sending", "got", "answer", "refused", "delivered for certain",
                 "answered for certain", "samp.ok", "samp.error", "fault")
        return ", ".join(f"{counts[word]} {word}" for word in words)


def settle(hub: Hub, before: Resources, limit: float = 60.0) -> list[str]:
    """Wait until all clients are unregistered and the resources released; return those that the hub still uses."""
    with LoadGenerator() as generator:
        (observer,) = generator.connect(hub.address, hub.secret)
        end = time.monotonic() + limit
        while True:
            left = observer.call("getRegisteredClients")
            held = Resources.of(hub).exceeds(before)
            if len(left) > 1:
                held.append(f"clients that are gone: {left}")
            if not held or time.monotonic() > end:
                break
            generator.settle(0.5)
        observer.unregister()
    return held


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    hub = start_hub(OURS, Path.home(), web=True)
    os.environ["HOME"] = os.environ["USERPROFILE"] = str(hub.home)
    os.environ.pop("SAMP_HUB", None)
    faults: list[str] = []
    try:
        # After a short run the hub has created all objects that it creates once.
        warm_up = Soak(hub, seed + 1)
        warm_up.run(5.0)
        faults += warm_up.checker.faults
        settle(hub, Resources(10**6, 10**6, 1e12))
        before = Resources.of(hub)
        soak = Soak(hub, seed)
        print(f"seed {seed}, {options.minutes:g} min; before: {before}", flush=True)
        cpu, start = hub.cpu(), time.monotonic()
        soak.run(60 * options.minutes)
        cpu, seconds = hub.cpu() - cpu, time.monotonic() - start
        faults += soak.checker.faults
        faults += [f"not released: {what}" for what in settle(hub, before)]
        print(f"{soak.summary()}; hub's CPU {cpu:.1f} s in {seconds:.0f} s; after: {Resources.of(hub)}")
    finally:
        hub.stop()
        log = hub.log
    if log:
        faults.append(f"the hub wrote: {log[-2000:]}")
    for fault in faults:
        print(f"FAULT {fault}")
    print("FAILED" if faults else "passed: every message was delivered once, and all resources are released")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
