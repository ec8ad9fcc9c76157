# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Rows: many clients that register, unregister or are idle, and the costs by the number of clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .hubs import JSAMP, OURS, UPSTREAM, Hub, start_hub
from .load_generator import BenchmarkError, Client, LoadGenerator
from .measure import Batch, Goal, Measured, Prepare, Row, Settings
from .rows_messages import MTYPE, prepare_broadcast, prepare_call

__all__ = ["GROWTH", "grow", "idle", "life", "rush"]

#: Events that a life causes: register, metadata, subscriptions, unregister. Not every hub sends all of them.
EVENTS = "samp.hub.event.*"


def prepare_life(listeners: int) -> Prepare:
    """Prepare a client that registers, declares and unregisters while others are subscribed to the hub's events."""

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        listening = generator.connect(hub.address, hub.secret, [EVENTS], count=listeners) if listeners else []

        def heard() -> int:
            return sum(client.notifications for client in listening)

        def one(per_life: int) -> None:
            before = heard()
            client = generator.client(hub.address, keep=True)
            client.register_and_declare(hub.secret, [MTYPE])
            generator.run(lambda: client.idle, "a client to register")
            client.unregister()
            generator.clients.remove(client)
            if per_life:
                generator.run(lambda: heard() - before >= per_life, f"{per_life} events")
            generator.check()

        # the number of events depends on the hub, so it is counted once
        generator.settle(1.0)
        start = heard()
        one(0)
        generator.settle(1.0)
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


def life(settings: Settings, listeners: int) -> Row:
    title = "register + declare + unregister"
    if not listeners:
        row = Row("life", title, [Goal("cpu", JSAMP, 0.4)])
    else:
        row = Row("life-heard", f"{title}, {listeners} listeners to hub events", [Goal("cpu", JSAMP, 0.15)])
    # With many listeners upstream's hub takes seconds for each life; `grow` measures it with up to 100.
    return settings.compare(row, prepare_life(listeners), (OURS, JSAMP) if listeners else (OURS, JSAMP, UPSTREAM))


def rush(settings: Settings) -> Row:
    """Measure many clients that connect at the same time. Their unregistration is not measured."""
    count = 64

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        joined: list[Client] = []

        def batch(seconds: float) -> int:  # noqa: ARG001
            joined[:] = [generator.client(hub.address, keep=True) for _ in range(count)]
            for client in joined:
                client.register_and_declare(hub.secret, [MTYPE])
            generator.run(lambda: all(client.idle for client in joined), f"{count} clients to register")
            generator.check()
            return 1

        def clear() -> None:
            for client in joined:
                client.unregister()
                generator.clients.remove(client)
            joined.clear()

        settings.after[hub.name] = clear
        return batch

    row = Row("rush", f"{count} clients connecting at once", [Goal("wall", JSAMP, 0.05)])
    return settings.compare(row, prepare, (OURS, JSAMP))  # upstream's hub takes minutes


def idle(settings: Settings) -> Row:
    """Measure idle clients, with a new hub each time, because memory never shrinks."""
    goals = [Goal("memory", UPSTREAM, 0.9), Goal("threads", "limit", 30), Goal("cpu", "limit", 0.005)]
    row = Row("idle", f"idle, {settings.crowd_size} clients connected", goals)
    row.units = {"cpu": "s/s", "memory": "MB", "threads": ""}
    for name in (OURS, JSAMP, UPSTREAM):
        if name in settings.without:
            continue
        try:
            hub = start_hub(name, settings.cache)
            row.subjects[name] = Measured(other={"memory": [], "threads": []})
            try:
                _measure_idle(settings, hub, row.subjects[name])
            finally:
                hub.stop()
        except BenchmarkError as error:
            row.failures[name] = str(error)
    return row


def _measure_idle(settings: Settings, hub: Hub, measured: Measured) -> None:
    with LoadGenerator() as generator:
        clients = generator.connect(hub.address, hub.secret, [MTYPE], count=settings.crowd_size)
        # After a message to each client, the hub has a connection to each.
        message = {"samp.mtype": MTYPE, "samp.params": {}}
        clients[0].call("notifyAll", message)
        generator.run(lambda: sum(c.notifications for c in clients) >= settings.crowd_size - 1, "a message to all")
        generator.settle(1.0)
        seconds = 2.0 if settings.quick else 10.0
        for _ in range(1 if settings.quick else 2):
            cpu, end = hub.cpu(), time.perf_counter() + seconds
            while (rest := end - time.perf_counter()) > 0:
                for key, mask in generator.selector.select(rest):  # a hub may check its clients
                    key.data.event(mask)
            measured.cpu.append((hub.cpu() - cpu) / seconds)
            measured.other["memory"].append(hub.memory() / 1e6)
            measured.other["threads"].append(float(hub.threads()))


#: The costs that are measured by the number of clients.
GROWTH: dict[str, tuple[str, Callable[[int], Prepare]]] = {
    "notify-all": ("notifyAll to n clients", lambda n: prepare_broadcast("notifyAll", n)),
    "call-all": ("callAll to n clients, all replies", lambda n: prepare_broadcast("callAll", n)),
    "life": ("a client comes and goes, n listeners", prepare_life),
    "call": ("callAndWait beside n idle clients", lambda n: prepare_call(keep=True, bystanders=n)),
}


def grow(settings: Settings) -> dict[str, Any]:
    """Measure each cost with 1, 10, 100 and 500 clients."""
    counts = [n for n in (1, 10, 100, 500) if n <= settings.crowd_size]
    result: dict[str, Any] = {"counts": counts, "rows": {}}
    for name, (title, prepare) in GROWTH.items():
        rows = []
        for count in counts:
            row = Row(f"{name}-{count}", title.replace(" n ", f" {count} "), [])
            names = (OURS, JSAMP, UPSTREAM) if count <= 100 else (OURS, JSAMP)
            rounds, warm_up_time = max(2, settings.rounds // 3), settings.warm_up_time / 2
            settings.compare(row, prepare(count), names, rounds=rounds, warm_up_time=warm_up_time)
            rows.append(row.as_json())
        result["rows"][name] = {"title": title, "points": rows}
    return result

