# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Rows: what a message costs, to one client, to many, from a web page, and a big one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from .hubs import FLOOR, JSAMP, OURS, UPSTREAM, Hub
from .measure import Batch, Bench, Goal, Prepare, Row
from .swarm import OK_RESPONSE, BenchmarkError, Client, Swarm
from .wire import call_body, post

__all__ = ["big_message", "call_all", "call_and_wait", "notify", "notify_all", "prepare_broadcast", "web_call"]

MTYPE = "table.highlight.row"
MESSAGE = {
    "samp.mtype": MTYPE,
    "samp.params": {"table-id": "table-1", "url": "http://127.0.0.1:2525/dynamic/1/t1.vot", "row": "42"},
}


def repeat(swarm: Swarm, sender: Client, request: bytes, done: Callable[[int], bool], expect: bytes = b"") -> Batch:
    """
    Make a batch that sends a request over and over, each when the one before is answered.

    ``done`` is told how many were sent and says whether all that follows from them has happened.
    """

    def batch(seconds: float) -> int:
        end = time.perf_counter() + seconds
        count = 0
        more = True

        def answered(body: bytes) -> None:
            nonlocal count, more
            count += 1
            more = expect in body and time.perf_counter() < end
            if expect not in body and b"<fault>" not in body:
                sender.faults += 1
                swarm.last_fault = body
            if more:
                sender.send(request, answered)

        sender.send(request, answered)
        swarm.run(lambda: not more and done(count), "the messages of a batch")
        swarm.check()
        return count

    return batch


def prepare_call(keep: bool, bystanders: int = 0) -> Prepare:
    """A caller and a recipient that answers at once."""

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        recipient, caller = swarm.join(hub.address, hub.secret, [MTYPE], count=2, keep=keep)
        swarm.join(hub.address, hub.secret, ["table.load.votable"], count=bystanders, keep=keep)
        request = caller.prepare("callAndWait", recipient.client_id, MESSAGE, "5")
        return repeat(swarm, caller, request, lambda _: recipient.idle, expect=b"samp.ok")

    return prepare


def prepare_floor(keep: bool) -> Prepare:
    """The same three hops through the standard library: there, onward, and the reply."""

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        caller, recipient = swarm.client(hub.address, keep=keep), swarm.client(hub.address, keep=keep)
        caller.client_id = recipient.client_id = "floor"
        recipient.declarations([], "")  # opens its port
        recipient.reply = lambda _: recipient.send(echo, lambda _: None)  # type: ignore[method-assign]
        assert recipient._port is not None
        echo = post(hub.address, call_body("echo", "key-of-a-client", "id-of-a-message", OK_RESPONSE), keep)
        params = (recipient._port.url, "key-of-a-client", "c1", "id-of-a-message", MESSAGE)
        forward = post(hub.address, call_body("forward", *params), keep)
        return repeat(swarm, caller, forward, lambda _: recipient.idle)

    return prepare


def call_and_wait(bench: Bench, keep: bool) -> Row:
    if keep:
        goals = [Goal("wall", JSAMP, 0.5), Goal("wall", UPSTREAM, 1 / 33)]
        goals += [Goal("cpu", JSAMP, 0.45), Goal("cpu", FLOOR, 1.3)]
    else:
        goals = [Goal("wall", JSAMP, 0.8), Goal("cpu", JSAMP, 0.75)]
    how = "keep-alive" if keep else "reconnecting"
    row = Row(f"call-{'keep' if keep else 'reconnect'}", f"callAndWait round trip, {how} clients", goals)
    hub = prepare_call(keep)
    prepare = {OURS: hub, JSAMP: hub, UPSTREAM: hub, FLOOR: prepare_floor(keep)}
    return bench.compare(row, prepare, (OURS, JSAMP, UPSTREAM, FLOOR))


def notify(bench: Bench, keep: bool) -> Row:
    """One sender, one recipient; a batch ends when all have arrived."""

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        recipient, sender = swarm.join(hub.address, hub.secret, [MTYPE], count=2, keep=keep)
        arrived = 0

        def all_there(count: int) -> bool:
            nonlocal arrived
            there = recipient.notifications == arrived + count
            if there:
                arrived = recipient.notifications
            return there

        return repeat(swarm, sender, sender.prepare("notify", recipient.client_id, MESSAGE), all_there)

    how = "keep-alive" if keep else "reconnecting"
    goals = [Goal("cpu", JSAMP, 0.3 if keep else 0.75)]
    row = Row(f"notify-{'keep' if keep else 'reconnect'}", f"notify, {how} clients", goals)
    return bench.compare(row, prepare, (OURS, JSAMP, UPSTREAM))


def prepare_broadcast(operation: str, count: int) -> Prepare:
    """One sender and ``count`` recipients; the batch is one broadcast or more, each until the last has its own."""

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        (sender,) = swarm.join(hub.address, hub.secret)
        recipients = swarm.join(hub.address, hub.secret, [MTYPE], count=count)
        params: list[Any] = ["a-tag", MESSAGE] if operation == "callAll" else [MESSAGE]
        request = sender.prepare(operation, *params)
        counted = [sender] if operation == "callAll" else recipients

        def total() -> int:
            return sum(client.responses + client.notifications for client in counted)

        def batch(seconds: float) -> int:
            end = time.perf_counter() + seconds
            done = 0
            while not done or time.perf_counter() < end:
                before = total()
                sender.send(request, lambda _: None)
                swarm.run(lambda before=before: total() >= before + count and sender.idle, f"{count} recipients")
                swarm.check()
                done += 1
            if (extra := total() - before - count) != 0:
                raise BenchmarkError(f"{extra} more than there should be")
            return done

        return batch

    return prepare


def notify_all(bench: Bench) -> Row:
    goals = [Goal("wall", JSAMP, 0.15), Goal("cpu", JSAMP, 0.12)]
    row = Row("notify-all", f"notifyAll to {bench.many} clients", goals)
    return bench.compare(row, prepare_broadcast("notifyAll", bench.many), (OURS, JSAMP), warm=6)


def call_all(bench: Bench) -> Row:
    row = Row("call-all", f"callAll to {bench.many} clients with all replies", [Goal("wall", JSAMP, 0.25)])
    return bench.compare(row, prepare_broadcast("callAll", bench.many), (OURS, JSAMP), warm=6)


def big_message(bench: Bench) -> Row:
    """A message with a string of 10 MB to one recipient."""
    size = 10_000_000

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        recipient, sender = swarm.join(hub.address, hub.secret, [MTYPE], count=2)
        message = {"samp.mtype": MTYPE, "samp.params": {"data": "0123456789" * (size // 10)}}
        request = sender.prepare("notify", recipient.client_id, message)

        def batch(seconds: float) -> int:  # noqa: ARG001
            before = recipient.bytes
            sender.send(request, lambda _: None)
            swarm.run(lambda: recipient.bytes - before >= size and sender.idle, "10 MB to arrive")
            swarm.check()
            return 1

        return batch

    row = Row("big", "10 MB message", [Goal("cpu", JSAMP, 0.25)])
    return bench.compare(row, prepare, (OURS, JSAMP, UPSTREAM))


#: Sender and msg-id in what a page has pulled: the only two strings in a row at the head of an array.
PULLED = re.compile(rb"<data>\s*<value>\s*(?:<string>)?([^<\s]+)(?:</string>\s*)?</value>\s*"
                    rb"<value>\s*(?:<string>)?([^<\s]+)(?:</string>\s*)?</value>\s*<value>")


def join_page(hub: Hub, swarm: Swarm, name: str) -> Client:
    """Register a web page."""
    page = swarm.client(hub.web, keep=True, namespace="samp.webhub", extra="Origin: http://example.org\r\n")
    page.send(page.prepare("register", {"samp.name": name}), page.identify)
    swarm.run(lambda: bool(page.client_id), "the page to be let in")
    page.ask("allowReverseCallbacks", "1")
    page.ask("declareSubscriptions", {MTYPE: {}})
    return page


def web_call(bench: Bench) -> Row:
    """One page calls another, which has a long poll open all the time."""

    def prepare(hub: Hub, swarm: Swarm) -> Batch:
        caller, recipient = join_page(hub, swarm, "caller"), join_page(hub, swarm, "recipient")
        puller = swarm.client(hub.web, keep=True, namespace="samp.webhub", extra=recipient.extra)
        puller.key = recipient.key
        pull = puller.prepare("pullCallbacks", "600")

        def pulled(body: bytes) -> None:
            for match in PULLED.finditer(body):
                recipient.reply(match[2])
            puller.send(pull, pulled)

        puller.send(pull, pulled)
        request = caller.prepare("callAndWait", recipient.client_id, MESSAGE, "5")
        return repeat(swarm, caller, request, lambda _: recipient.idle, expect=b"samp.ok")

    row = Row("web-call", "callAndWait between two web pages", [Goal("wall", JSAMP, 0.5)])
    return bench.compare(row, prepare, (OURS, JSAMP), web=True)
