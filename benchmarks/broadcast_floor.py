# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Compare the hub with the socket calls of a broadcast: ``python -m benchmarks.broadcast_floor [clients [rounds]]``.

The floor is a process that sends the same number of bytes to the same number of recipients, waits with epoll, and
receives their responses. It parses nothing and keeps no record. No hub in Python can need less. A recipient of callAll
costs three such exchanges: the call, the reply, and the response to the sender.
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
from .load_generator import Client, LoadGenerator
from .rows_messages import MESSAGE, MTYPE, prepare_broadcast
from .wire_format import Address, call_body, post


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


def start_floor(clients: list[Client]) -> Hub:
    """Start the process that serves as the floor, and connect it to the clients."""
    command = [sys.executable, "-m", "benchmarks.broadcast_floor", "serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for client in clients:
        client.declarations([MTYPE], "")  # opens its port
    ports = [client._listener.sock.getsockname()[1] for client in clients if client._listener]
    print(json.dumps(ports), file=process.stdin, flush=True)
    return Hub("floor", process, Path(), json.loads(process.stdout.readline()) if process.stdout else {})


def measure(operation: str, exchanges: int, count: int, rounds: int) -> None:
    """Measure the hub and the floor in turn; print CPU microseconds for each recipient, and their ratio."""
    with LoadGenerator() as generator, LoadGenerator() as plain:
        hub = start_hub(OURS, Path())
        batch = prepare_broadcast(operation, count)(hub, generator)
        clients = [plain.client(Address("127.0.0.1", 1, "/"), keep=True) for _ in range(count)]
        floor = start_floor(clients)

        def received() -> int:
            return sum(client.notifications for client in clients)

        def floor_batch(seconds: float) -> int:
            end, before = time.perf_counter() + seconds, received()
            done = 0
            while not done or time.perf_counter() < end:
                print("broadcast", file=floor.process.stdin, flush=True)
                done += 1
                plain.run(lambda: received() >= before + done * count, "all recipients")  # noqa: B023 - runs at once
            return done

        used: list[list[float]] = []
        for _ in range(rounds + 1):
            used.append([])
            for subject, one in ((hub, batch), (floor, floor_batch)):
                start = subject.cpu()
                done = one(0.4)
                used[-1].append((subject.cpu() - start) / done / count * 1e6)
        own, least = (statistics.median(column) for column in zip(*used[1:], strict=True))  # without the warm-up
        ratio = statistics.median(a / b for a, b in used[1:]) / exchanges
        print(f"{operation}, {count} clients: {own:.1f} us a recipient, floor {exchanges * least:.1f}, "
              f"ratio {ratio:.2f}")
        floor.process.communicate()  # closes its standard input
        hub.stop()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        count, rounds = (int(argument) for argument in (sys.argv[1:] + ["500", "10"][len(sys.argv) - 1 :]))
        measure("notifyAll", 1, count, rounds)
        measure("callAll", 3, count, rounds)
