# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A process with a hub, some clients, and perhaps a bridge to a room.

``python -m benchmarks.bridge_member LABEL CLIENTS [nats://SERVER/ROOM]``. Each line of standard input is a command as
JSON, and the response to it is one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyvo.samp import Bridge, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.bridge.nats_room import NATSRoom
from pyvo.samp.protocol import best_match

MTYPE = "table.benchmark"
TIMEOUT = 240.0


class CountingClient(SAMPIntegratedClient):
    """A client that counts received messages by their text, and knows the clients that are subscribed to the MType."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.counts: Counter[str] = Counter()
        self.last = 0.0
        self.others: set[str] = set()
        self.changed = threading.Condition()
        self.bind_receive_message(MTYPE, self._on_message)

    def _on_message(self, _key: str, _sender: str, msg_id: str | None, _mtype: str, params: Any, _extra: Any) -> None:
        if msg_id is not None:
            self.reply(msg_id, {"samp.status": "samp.ok", "samp.result": {}})
        with self.changed:
            self.last = time.monotonic()
            self.counts[params["text"]] += 1
            self.changed.notify_all()

    def follow(self) -> None:
        """Keep `others` up to date by the events of the hub."""
        self.bind_receive_notification("samp.hub.event.*", self._on_event)
        with self.changed:
            self.others |= set(self.get_subscribed_clients(MTYPE))
            self.changed.notify_all()

    def _on_event(self, _key: str, _sender: str, mtype: str, params: Any, _extra: Any) -> None:
        client_id = params.get("id", "")
        with self.changed:
            if mtype.endswith("unregister"):
                self.others.discard(client_id)
            elif mtype.endswith("subscriptions") and client_id != self.get_public_id():
                is_subscribed = best_match(params["subscriptions"], MTYPE) is not None
                (self.others.add if is_subscribed else self.others.discard)(client_id)
            self.changed.notify_all()


class Member:
    """The hub and its clients. The methods are the commands."""

    def __init__(self, clients: list[CountingClient]) -> None:
        self.clients = clients

    def wait(self, count: int) -> list[int]:
        """Wait until there are this many other clients; return how many each client sees."""
        first = self.clients[0]
        with first.changed:
            if not first.changed.wait_for(lambda: len(first.others) == count, TIMEOUT):
                return [len(first.others)]
        return [len(client.get_subscribed_clients(MTYPE)) for client in self.clients]

    def find(self, name: str) -> str:
        """Return the id of the client whose name begins with ``name``."""
        client = self.clients[0]
        for client_id in client.get_subscribed_clients(MTYPE):
            if client.get_metadata(client_id).get("samp.name", "").startswith(name):
                return client_id
        raise LookupError(name)

    def call(self, name: str, count: int) -> list[float]:
        """Call a client repeatedly; return the seconds that each call took."""
        client_id, message, times = self.find(name), _message("call"), []
        for _ in range(count):
            start = time.monotonic()
            response = self.clients[0].call_and_wait(client_id, message, "60")
            times.append(time.monotonic() - start)
            if response["samp.status"] != "samp.ok":
                raise RuntimeError(response)
        return times

    def notify(self, name: str, count: int, text: str) -> float:
        """Send notifications to a client; return the time at which the first was sent."""
        client_id, message, start = self.find(name), _message(text), time.monotonic()
        for _ in range(count):
            self.clients[0].notify(client_id, message)
        return start

    def broadcast(self, text: str, count: int = 1) -> float:
        """Send notifications to all clients; return the time at which the first was sent."""
        start = time.monotonic()
        for _ in range(count):
            self.clients[0].notify_all(_message(text))
        return start

    def received(self, text: str, count: int, clients: list[int]) -> dict[str, Any]:
        """
        Wait until each of these clients has received this many messages; return the numbers and the time of the
        last one.
        """
        chosen = [self.clients[number] for number in clients]
        for client in chosen:
            with client.changed:
                client.changed.wait_for(lambda client=client: client.counts[text] >= count, TIMEOUT)
        return {"counts": [client.counts[text] for client in chosen], "last": max(client.last for client in chosen)}


def _message(text: str) -> dict[str, Any]:
    return {"samp.mtype": MTYPE, "samp.params": {"text": text}}


@contextmanager
def running(label: str, count: int, url: str | None) -> Iterator[Member]:
    """Run the hub, its clients, and the bridge."""
    with ExitStack() as stack:
        hub = SAMPHubServer(web_profile=False, lockfile=os.path.join(os.environ["HOME"], ".samp"))
        hub.start()
        stack.callback(hub.stop)
        clients = [CountingClient(f"{label}-{number}") for number in range(count)]
        for client in clients:
            client.connect(hub=hub)
            stack.callback(client.disconnect)
        clients[0].follow()
        if url is not None:
            bridge = Bridge(hub, NATSRoom(url), label=label)
            stack.callback(bridge.stop)
            bridge.start()
        yield Member(clients)


def main(label: str, count: str, url: str | None = None) -> None:
    with running(label, int(count), url) as member:
        print('"ready"', flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            print(json.dumps(getattr(member, command.pop("do"))(**command)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
