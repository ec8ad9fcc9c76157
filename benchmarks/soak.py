# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The endurance run: clients that join, talk, crash and leave at random around one hub, for minutes or hours.

``python -m benchmarks.soak --minutes 1`` ends with exit code 0 when no message was lost or doubled and the hub's
threads, descriptors and memory are back where they were. A run can be repeated by its ``--seed`` as far as its
decisions go.
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
from .soak_ledger import DUE, Ledger
from .swarm import Swarm

#: Clients that are there most of the time, and the least that are left.
MOST, LEAST = 30, 12
#: Mean seconds between two arrivals, crashes or departures.
PAUSE = 0.5
#: What may stay of a run: arenas of the allocator that are in pieces, the hub's reused threads.
MORE_MEMORY, MORE_THREADS, MORE_DESCRIPTORS = 20e6, 2, 4


@dataclass
class Member:
    """A client's process."""

    serial: int
    pid: int
    commands: int
    journal: int
    rest: bytes = b""
    leaving: bool = False


@dataclass(frozen=True)
class Resources:
    """What the hub holds."""

    threads: int
    descriptors: int
    memory: float

    @classmethod
    def of(cls, hub: Hub) -> Resources:
        return cls(hub.threads(), hub.descriptors(), hub.memory())

    def exceeds(self, before: Resources) -> list[str]:
        """Tell what did not come back."""
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
    """The one who makes clients, kills them, and reads their journals. It has no thread, so that it can fork."""

    def __init__(self, hub: Hub, seed: int) -> None:
        self.hub = hub
        self.ledger = Ledger()
        self.members: dict[int, Member] = {}
        self._chance = random.Random(seed)
        self._seed = seed
        self._serial = 0
        self._selector = selectors.DefaultSelector()

    # Clients come and go

    def hatch(self) -> None:
        """Make a client."""
        from .soak_clients import live  # noqa: PLC0415 - needs the environment of the hub

        self._serial += 1
        their_commands, commands = os.pipe()
        journal, their_journal = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                # The other ends of all pipes must go: whoever holds one keeps it open beyond its owner's death.
                others = [(member.commands, member.journal) for member in self.members.values()]
                for pair in [(commands, journal), *others]:
                    os.close(pair[0])
                    os.close(pair[1])
                self._selector.close()
                seed = self._seed * 1_000_003 + self._serial
                live(self._serial, seed, their_commands, their_journal, self.hub.web.port)
                code = 0
            except BaseException as error:
                said = " | ".join(traceback.format_exception(error)[-3:]).replace("\n", " ")
                os.write(their_journal, f"{time.monotonic():.4f} trouble died: {said}\n".encode())
            finally:
                os._exit(code)
        os.close(their_commands)
        os.close(their_journal)
        self.members[self._serial] = Member(self._serial, pid, commands, journal)
        self._selector.register(journal, selectors.EVENT_READ, self.members[self._serial])

    def crash(self, member: Member) -> None:
        """Kill a client without warning."""
        member.leaving = True
        self.ledger.counts["crash"] += 1
        self.ledger.ended(str(member.serial), time.monotonic())
        os.kill(member.pid, signal.SIGKILL)

    def tell(self, member: Member, command: bytes) -> None:
        """Give a client a command."""
        member.leaving = member.leaving or command == b"l"
        with contextlib.suppress(BrokenPipeError):  # it died by itself, which its journal tells
            os.write(member.commands, command)

    def _stir(self) -> None:
        """Let something happen to the population."""
        there = [member for member in self.members.values() if not member.leaving]
        if len(there) <= LEAST or (len(there) < MOST and self._chance.random() < 0.6):
            self.hatch()
        elif self._chance.random() < 0.5:
            self.crash(self._chance.choice(there))
        else:
            self.tell(self._chance.choice(there), b"l")

    # Reading the journals

    def read(self, seconds: float) -> None:
        """Read what clients write, for so long at most."""
        for key, _ in self._selector.select(seconds):
            member = key.data
            data = os.read(member.journal, 1 << 16)
            *lines, member.rest = (member.rest + data).split(b"\n")
            for line in lines:
                self.ledger.note(str(member.serial), line.decode(errors="replace"))
            if not data:
                self._bury(member)

    def _bury(self, member: Member) -> None:
        self._selector.unregister(member.journal)
        os.close(member.journal)
        os.close(member.commands)
        del self.members[member.serial]
        os.waitpid(member.pid, 0)
        if not member.leaving:
            self.ledger.faults.append(f"client {member.serial} ended by itself")

    def read_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Read until something holds; tell whether it came to hold."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                return False
            self.read(0.2)
        return True

    # The run

    def run(self, seconds: float, population: int = MOST) -> None:
        """Let clients live for a while; at the end all leave, and everything is judged."""
        for _ in range(population):
            self.hatch()
        start = told = judged = time.monotonic()
        next_event = start + 2.0
        while (now := time.monotonic()) < start + seconds:
            if now >= next_event:
                self._stir()
                next_event = now + self._chance.expovariate(1 / PAUSE)
            if now - judged > 10:
                self.ledger.judge(now)
                judged = now
            if now - told > 60:
                print(f"{(now - start) / 60:.0f} min: {self.summary()}; {Resources.of(self.hub)}", flush=True)
                told = now
            self.read(min(next_event, start + seconds) - now if next_event > now else 0)
        for member in list(self.members.values()):
            self.tell(member, b"q")
        self.read_until(lambda: False, DUE)
        for member in list(self.members.values()):
            if not member.leaving:
                self.tell(member, b"l")
        if not self.read_until(lambda: not self.members, 30):
            self.ledger.faults.append(f"clients {list(self.members)} did not leave within 30 s")
        self.ledger.judge(float("inf"))

    def summary(self) -> str:
        """Tell in a line what happened."""
        counts = self.ledger.counts
        words = ("join", "crash", "left", "sending", "got", "answer", "refused", "delivered for certain",
                 "answered for certain", "samp.ok", "samp.error", "wrong")
        return ", ".join(f"{counts[word]} {word}" for word in words)


def settle(hub: Hub, before: Resources, limit: float = 60.0) -> list[str]:
    """Wait until the hub has noticed that all are gone and holds no more than before; tell what it still holds."""
    with Swarm() as swarm:
        (witness,) = swarm.join(hub.address, hub.secret)
        end = time.monotonic() + limit
        while True:
            left = witness.ask("getRegisteredClients")
            held = Resources.of(hub).exceeds(before)
            if len(left) > 1:
                held.append(f"clients that are gone: {left}")
            if not held or time.monotonic() > end:
                break
            swarm.settle(0.5)
        witness.leave()
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
        # Everything that the hub makes once and keeps has been made after a short run.
        warm = Soak(hub, seed + 1)
        warm.run(5.0)
        faults += warm.ledger.faults
        settle(hub, Resources(10**6, 10**6, 1e12))
        before = Resources.of(hub)
        soak = Soak(hub, seed)
        print(f"seed {seed}, {options.minutes:g} min; before: {before}", flush=True)
        cpu, start = hub.cpu(), time.monotonic()
        soak.run(60 * options.minutes)
        cpu, seconds = hub.cpu() - cpu, time.monotonic() - start
        faults += soak.ledger.faults
        faults += [f"not given back: {what}" for what in settle(hub, before)]
        print(f"{soak.summary()}; hub's CPU {cpu:.1f} s in {seconds:.0f} s; after: {Resources.of(hub)}")
    finally:
        hub.stop()
        log = hub.log
    if log:
        faults.append(f"the hub wrote: {log[-2000:]}")
    for fault in faults:
        print(f"WRONG {fault}")
    print("FAILED" if faults else "passed: nothing lost, nothing doubled, everything given back")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
