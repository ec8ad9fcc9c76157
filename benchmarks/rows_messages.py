# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Rows: the cost of a message to one client, to many clients and from a web page, and of a large message.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from .hubs import BASELINE, JSAMP, OURS, UPSTREAM, Hub
from .load_generator import OK_RESPONSE, BenchmarkError, Client, LoadGenerator
from .measure import Batch, Goal, Prepare, Row, Settings
from .wire_format import call_body, post

__all__ = [
    "big_message",
    "call_all",
    "call_and_wait",
    "notify",
    "notify_all",
    "prepare_broadcast",
    "prepare_call",
    "prepare_notify",
    "web_call",
]

MTYPE = "table.highlight.row"
MESSAGE = {
    "samp.mtype": MTYPE,
    "samp.params": {"table-id": "table-1", "url": "http://127.0.0.1:2525/dynamic/1/t1.vot", "row": "42"},
}


def repeat(
    generator: LoadGenerator, sender: Client, request: bytes, done: Callable[[int], bool], expect: bytes = b""
) -> Batch:
    """
    Return a batch that repeats a request, each time after the response to the previous one.

    ``done`` gets the number of requests, and returns whether all of them are completed.
    """

    def batch(seconds: float) -> int:
        end = time.perf_counter() + seconds
        count = 0
        more = True

        def on_response(body: bytes) -> None:
            nonlocal count, more
            count += 1
            more = expect in body and time.perf_counter() < end
            if expect not in body and b"<fault>" not in body:
                sender.faults += 1
                generator.last_fault = body
            if more:
                sender.send(request, on_response)

        sender.send(request, on_response)
        generator.run(lambda: not more and done(count), "the messages of a batch")
        generator.check()
        return count

    return batch


def prepare_call(keep: bool, bystanders: int = 0) -> Prepare:
    """Prepare a caller, and a recipient that replies at once."""

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        recipient, caller = generator.connect(hub.address, hub.secret, [MTYPE], count=2, keep=keep)
        generator.connect(hub.address, hub.secret, ["table.load.votable"], count=bystanders, keep=keep)
        request = caller.prepare("callAndWait", recipient.client_id, MESSAGE, "5")
        return repeat(generator, caller, request, lambda _: recipient.idle, expect=b"samp.ok")

    return prepare


def prepare_baseline(keep: bool) -> Prepare:
    """Prepare the same three HTTP hops with the standard library."""

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        caller, recipient = generator.client(hub.address, keep=keep), generator.client(hub.address, keep=keep)
        caller.client_id = recipient.client_id = "baseline"
        recipient.declarations([], "")  # opens its port
        recipient.reply = lambda _: recipient.send(echo, lambda _: None)  # type: ignore[method-assign]
        assert recipient._listener is not None
        echo = post(hub.address, call_body("echo", "key-of-a-client", "id-of-a-message", OK_RESPONSE), keep)
        params = (recipient._listener.url, "key-of-a-client", "c1", "id-of-a-message", MESSAGE)
        forward = post(hub.address, call_body("forward", *params), keep)
        return repeat(generator, caller, forward, lambda _: recipient.idle)

    return prepare


def call_and_wait(settings: Settings, keep: bool) -> Row:
    if keep:
        goals = [Goal("wall", JSAMP, 0.5), Goal("wall", UPSTREAM, 1 / 33)]
        goals += [Goal("cpu", JSAMP, 0.45), Goal("cpu", BASELINE, 1.3)]
    else:
        goals = [Goal("wall", JSAMP, 0.8), Goal("cpu", JSAMP, 0.75)]
    how = "keep-alive" if keep else "reconnecting"
    row = Row(f"call-{'keep' if keep else 'reconnect'}", f"callAndWait round trip, {how} clients", goals)
    hub = prepare_call(keep)
    prepare = {OURS: hub, JSAMP: hub, UPSTREAM: hub, BASELINE: prepare_baseline(keep)}
    return settings.compare(row, prepare, (OURS, JSAMP, UPSTREAM, BASELINE))


def prepare_notify(keep: bool) -> Prepare:
    """Prepare one sender and one recipient. A batch ends with the last delivery."""

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        recipient, sender = generator.connect(hub.address, hub.secret, [MTYPE], count=2, keep=keep)
        arrived = 0

        def all_arrived(count: int) -> bool:
            nonlocal arrived
            there = recipient.notifications == arrived + count
            if there:
                arrived = recipient.notifications
            return there

        return repeat(generator, sender, sender.prepare("notify", recipient.client_id, MESSAGE), all_arrived)

    return prepare


def notify(settings: Settings, keep: bool) -> Row:
    how = "keep-alive" if keep else "reconnecting"
    goals = [Goal("cpu", JSAMP, 0.3 if keep else 0.75)]
    row = Row(f"notify-{'keep' if keep else 'reconnect'}", f"notify, {how} clients", goals)
    return settings.compare(row, prepare_notify(keep), (OURS, JSAMP, UPSTREAM))


def prepare_broadcast(operation: str, count: int) -> Prepare:
    """Prepare a sender and ``count`` recipients. Each broadcast of a batch ends with its last delivery."""

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        (sender,) = generator.connect(hub.address, hub.secret)
        recipients = generator.connect(hub.address, hub.secret, [MTYPE], count=count)
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
                generator.run(lambda before=before: total() >= before + count and sender.idle, f"{count} recipients")
                generator.check()
                done += 1
            if (extra := total() - before - count) != 0:
                raise BenchmarkError(f"{extra} more than there should be")
            return done

        return batch

    return prepare


def notify_all(settings: Settings) -> Row:
    goals = [Goal("wall", JSAMP, 0.15), Goal("cpu", JSAMP, 0.12)]
    row = Row("notify-all", f"notifyAll to {settings.crowd_size} clients", goals)
    return settings.compare(row, prepare_broadcast("notifyAll", settings.crowd_size), (OURS, JSAMP), warm_up_time=6)


def call_all(settings: Settings) -> Row:
    row = Row("call-all", f"callAll to {settings.crowd_size} clients with all replies", [Goal("wall", JSAMP, 0.25)])
    return settings.compare(row, prepare_broadcast("callAll", settings.crowd_size), (OURS, JSAMP), warm_up_time=6)


def big_message(settings: Settings) -> Row:
    """Measure a message with a string of 10 MB to one recipient."""
    size = 10_000_000

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        recipient, sender = generator.connect(hub.address, hub.secret, [MTYPE], count=2)
        message = {"samp.mtype": MTYPE, "samp.params": {"data": "0123456789" * (size // 10)}}
        request = sender.prepare("notify", recipient.client_id, message)

        def batch(seconds: float) -> int:  # noqa: ARG001
            before = recipient.bytes
            sender.send(request, lambda _: None)
            generator.run(lambda: recipient.bytes - before >= size and sender.idle, "10 MB to arrive")
            generator.check()
            return 1

        return batch

    row = Row("big", "10 MB message", [Goal("cpu", JSAMP, 0.25)])
    return settings.compare(row, prepare, (OURS, JSAMP, UPSTREAM))


#: Sender and msg-id in a pulled callback: no other array begins with two strings.
PULLED = re.compile(rb"<data>\s*<value>\s*(?:<string>)?([^<\s]+)(?:</string>\s*)?</value>\s*"
                    rb"<value>\s*(?:<string>)?([^<\s]+)(?:</string>\s*)?</value>\s*<value>")


def register_page(hub: Hub, generator: LoadGenerator, name: str) -> Client:
    """Register a web page."""
    page = generator.client(hub.web, keep=True, namespace="samp.webhub", extra="Origin: http://example.org\r\n")
    page.send(page.prepare("register", {"samp.name": name}), page.identify)
    generator.run(lambda: bool(page.client_id), "the page to be registered")
    page.call("allowReverseCallbacks", "1")
    page.call("declareSubscriptions", {MTYPE: {}})
    return page


def web_call(settings: Settings) -> Row:
    """Measure a call from a page to another page, which always has a pull open."""

    def prepare(hub: Hub, generator: LoadGenerator) -> Batch:
        caller, recipient = register_page(hub, generator, "caller"), register_page(hub, generator, "recipient")
        puller = generator.client(hub.web, keep=True, namespace="samp.webhub", extra=recipient.extra)
        puller.key = recipient.key
        pull = puller.prepare("pullCallbacks", "600")

        def pulled(body: bytes) -> None:
            for match in PULLED.finditer(body):
                recipient.reply(match[2])
            puller.send(pull, pulled)

        puller.send(pull, pulled)
        request = caller.prepare("callAndWait", recipient.client_id, MESSAGE, "5")
        return repeat(generator, caller, request, lambda _: recipient.idle, expect=b"samp.ok")

    row = Row("web-call", "callAndWait between two web pages", [Goal("wall", JSAMP, 0.5)])
    return settings.compare(row, prepare, (OURS, JSAMP), web=True)
