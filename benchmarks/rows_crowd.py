# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Rows: many clients that come, go, or are just there; and how costs grow with their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .hubs import JSAMP, OURS, UPSTREAM, Hub, start_hub
from .measure import Batch, Bench, Goal, Measured, Prepare, Row
from .rows_messages import MTYPE, prepare_broadcast, prepare_call
from .swarm import BenchmarkError, Client, Swarm

__all__ = ["GROWTH", "grow", "idle", "life", "rush"]

#: Events that a life causes: register, metadata, subscriptions, unregister. Not every hub sends all of them.
EVENTS = "samp.hub.event.*"


def prepare_life(listeners: int) -> Prepare:
    """A client that registers, declares and unregisters, before so many others that listen to the hub's events."""

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        audience = swarm.join(hub.address, hub.secret, [EVENTS], count=listeners) if listeners else []

        def heard() -> int:
            return sum(client.notifications for client in audience)

        def one(per_life: int) -> None:
            before = heard()
            client = swarm.client(hub.address, keep=True)
            client.joining(hub.secret, [MTYPE])
            swarm.run(lambda: client.idle, "a client to join")
            client.leave()
            swarm.clients.remove(client)
            if per_life:
                swarm.run(lambda: heard() - before >= per_life, f"{per_life} events")
            swarm.check()

        # How many events one life makes is the hub's affair: it is counted once.
        swarm.settle(1.0)
        start = heard()
        one(0)
        swarm.settle(1.0)
        events = heard() - start

        def batch(seconds: float) -> int:
            end = time.perf_counter() + seconds
            count = 0
            while not count or time.perf_counter() < end:
                one(events)
                count += 1
            return count

        return batch

    return prepare


def life(bench: Bench, listeners: int) -> Row:
    title = "register + declare + unregister"
    if not listeners:
        row = Row("life", title, [Goal("cpu", JSAMP, 0.4)])
    else:
        row = Row("life-heard", f"{title}, {listeners} listeners to hub events", [Goal("cpu", JSAMP, 0.15)])
    # Upstream's hub takes seconds for each life that many hear of; `grow` shows it up to 100 of them.
    return bench.compare(row, prepare_life(listeners), (OURS, JSAMP) if listeners else (OURS, JSAMP, UPSTREAM))


def rush(bench: Bench) -> Row:
    """Many clients connect in the same instant; afterwards they leave, which is not measured."""
    count = 64

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        joined: list[Client] = []

        def batch(seconds: float) -> int:  # noqa: ARG001
            joined[:] = [swarm.client(hub.address, keep=True) for _ in range(count)]
            for client in joined:
                client.joining(hub.secret, [MTYPE])
            swarm.run(lambda: all(client.idle for client in joined), f"{count} clients to join")
            swarm.check()
            return 1

        def clear() -> None:
            for client in joined:
                client.leave()
                swarm.clients.remove(client)
            joined.clear()

        bench.after[hub.name] = clear
        return batch

    row = Row("rush", f"{count} clients connecting at once", [Goal("wall", JSAMP, 0.05)])
    return bench.compare(row, prepare, (OURS, JSAMP))  # upstream's takes minutes


def idle(bench: Bench) -> Row:
    """Clients that are connected and do nothing: a hub of its own each time, for memory never shrinks."""
    goals = [Goal("memory", UPSTREAM, 0.9), Goal("threads", "limit", 30), Goal("cpu", "limit", 0.005)]
    row = Row("idle", f"idle, {bench.many} clients connected", goals)
    row.units = {"cpu": "s/s", "memory": "MB", "threads": ""}
    for name in (OURS, JSAMP, UPSTREAM):
        if name in bench.without:
            continue
        try:
            hub = start_hub(name, bench.cache)
            row.subjects[name] = Measured(other={"memory": [], "threads": []})
            try:
                _sit(bench, hub, row.subjects[name])
            finally:
                hub.stop()
        except BenchmarkError as error:
            row.failures[name] = str(error)
    return row


def _sit(bench: Bench, hub: Hub, measured: Measured) -> None:
    with Swarm() as swarm:
        clients = swarm.join(hub.address, hub.secret, [MTYPE], count=bench.many)
        # The hub has connections to all of them: each has had a message.
        message = {"samp.mtype": MTYPE, "samp.params": {}}
        clients[0].ask("notifyAll", message)
        swarm.run(lambda: sum(c.notifications for c in clients) >= bench.many - 1, "a message to all")
        swarm.settle(1.0)
        seconds = 2.0 if bench.quick else 10.0
        for _ in range(1 if bench.quick else 2):
            cpu, end = hub.cpu(), time.perf_counter() + seconds
            while (rest := end - time.perf_counter()) > 0:
                for key, mask in swarm.selector.select(rest):  # a hub may look whether its clients live
                    key.data.event(mask)
            measured.cpu.append((hub.cpu() - cpu) / seconds)
            measured.other["memory"].append(hub.memory() / 1e6)
            measured.other["threads"].append(float(hub.threads()))


#: What grows with the number of clients.
GROWTH: dict[str, tuple[str, Callable[[int], Prepare]]] = {
    "notify-all": ("notifyAll to n clients", lambda n: prepare_broadcast("notifyAll", n)),
    "call-all": ("callAll to n clients, all replies", lambda n: prepare_broadcast("callAll", n)),
    "life": ("a client comes and goes, n listeners", prepare_life),
    "call": ("callAndWait beside n idle clients", lambda n: prepare_call(keep=True, bystanders=n)),
}


def grow(bench: Bench) -> dict[str, Any]:
    """Measure each cost with 1, 10, 100 and 500 clients."""
    counts = [n for n in (1, 10, 100, 500) if n <= bench.many]
    result: dict[str, Any] = {"counts": counts, "rows": {}}
    for name, (title, prepare) in GROWTH.items():
        rows = []
        for count in counts:
            row = Row(f"{name}-{count}", title.replace(" n ", f" {count} "), [])
            names = (OURS, JSAMP, UPSTREAM) if count <= 100 else (OURS, JSAMP)
            bench.compare(row, prepare(count), names, rounds=max(2, bench.rounds // 3), warm=bench.warm / 2)
            rows.append(row.as_json())
        result["rows"][name] = {"title": title, "points": rows}
    return result

