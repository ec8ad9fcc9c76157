# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Compare the hub with the socket calls of a broadcast: ``python -m benchmarks.broadcast_floor [clients [rounds]]``.

The floor is a process that sends the same number of bytes to the same number of recipients, waits with epoll, and
receives their responses. It parses nothing and keeps no record. What it needs, no hub in Python can save. A recipient
of callAll costs three such exchanges: the call, the reply, and the response to the sender.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .hubs import OURS, Hub, start_hub
from .rows_messages import MESSAGE, MTYPE, prepare_broadcast
from .swarm import Swarm
from .wire import Address, call_body, post


def serve() -> None:
    """Broadcast once for each line of standard input, to the ports that the first line lists."""
    connections = {}
    poll = select.epoll()
    for port in json.loads(sys.stdin.readline()):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    body = call_body("samp.client.receiveNotification", "0" * 32, "c1", MESSAGE)
    request = post(Address("127.0.0.1", 12345, "/"), body, keep=True)
    print(json.dumps({"samp.hub.xmlrpc.url": "http://127.0.0.1:1/", "samp.secret": ""}), flush=True)
    for _ in sys.stdin:
        for connection in connections.values():
            connection.send(request)
        missing = len(connections)
        while missing:
            for descriptor, _ in poll.poll(maxevents=missing):
                missing -= bool(connections[descriptor].recv(4096))


def measure(count: int, rounds: int) -> None:
    """Measure the hub and the floor in turn, and print CPU microseconds for each recipient, and their ratio."""
    cache = Path()
    with Swarm() as swarm, Swarm() as called, Swarm() as plain:
        hubs = {name: start_hub(OURS, cache) for name in ("notifyAll", "callAll")}
        batches = {"notifyAll": prepare_broadcast("notifyAll", count)(hubs["notifyAll"], swarm),
                   "callAll": prepare_broadcast("callAll", count)(hubs["callAll"], called)}
        clients = [plain.client(Address("127.0.0.1", 1, "/"), keep=True) for _ in range(count)]
        for client in clients:
            client.declarations([MTYPE], "")  # opens its port
        command = [sys.executable, "-m", "benchmarks.broadcast_floor", "serve"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        ports = [client._port.sock.getsockname()[1] for client in clients if client._port is not None]
        print(json.dumps(ports), file=process.stdin, flush=True)
        hubs["floor"] = Hub("floor", process, Path(), json.loads(process.stdout.readline()))

        def batch(seconds: float) -> int:
            end, done = time.perf_counter() + seconds, 0
            while not done or time.perf_counter() < end:
                goal = sum(client.notifications for client in clients) + count
                print("broadcast", file=process.stdin, flush=True)
                plain.run(lambda goal=goal: sum(c.notifications for c in clients) >= goal, "all recipients")
                done += 1
            return done

        batches["floor"] = batch
        used: dict[str, list[float]] = {name: [] for name in batches}
        for turn in range(rounds + 1):
            for name, one in batches.items():
                cpu = hubs[name].cpu()
                broadcasts = one(0.4)
                if turn:  # the first one warms up
                    used[name].append((hubs[name].cpu() - cpu) / broadcasts / count * 1e6)
        for name, exchanges in (("notifyAll", 1), ("callAll", 3)):
            ratio = statistics.median(a / b / exchanges for a, b in zip(used[name], used["floor"], strict=True))
            own, floor = statistics.median(used[name]), statistics.median(used["floor"]) * exchanges
            print(f"{name}, {count} clients: {own:.1f} us a recipient, floor {floor:.1f} us, ratio {ratio:.2f}")
        process.stdin.close()
        process.wait()
        for name in ("notifyAll", "callAll"):
            hubs[name].stop()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        measure(*(int(argument) for argument in (sys.argv[1:] + ["500", "10"][len(sys.argv) - 1 :])))
