# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Compare connecting with its system calls: ``python -m benchmarks.connect_floor [rounds]``.

The floor reads a lockfile, connects, opens a port, a selector and a pipe, exchanges two messages of the same sizes with
a server that does nothing else, and starts a thread. It writes and parses no XML. No client can need less.
"""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pyvo.samp import SAMPIntegratedClient

from .hubs import OURS, start_hub

#: Bytes of the registration and of the declarations, and of the responses to them.
SIZES = ((600, 600), (1700, 900))


def serve() -> None:
    """Respond to the two messages of each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _, size in SIZES:
                    connection.recv(65536)
                    connection.send(bytes(size))
                connection.recv(1)


def connect_plainly(lockfile: Path, port: int) -> float:
    """Make the system calls of connecting; return the seconds that they took."""
    start = time.perf_counter()
    lockfile.read_bytes()
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        socket.socket() as listener,
        selectors.DefaultSelector() as selector,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.send(bytes(SIZES[0][0]))
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ends = os.pipe()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(ends[0], selectors.EVENT_READ)
        connection.recv(65536)
        connection.send(bytes(SIZES[1][0]))
        thread = threading.Thread(target=selector.select, daemon=True)
        thread.start()
        connection.recv(65536)
        taken = time.perf_counter() - start
        os.write(ends[1], b"\0")
        thread.join()
        for end in ends:
            os.close(end)
    return taken


def connect_client(params: dict[str, str]) -> float:
    """Connect a client of this package; return the seconds that this took."""
    client = SAMPIntegratedClient(name="probe")
    start = time.perf_counter()
    client.connect(hub_params=params)
    taken = time.perf_counter() - start
    client.disconnect()
    return taken


def main(rounds: int) -> None:
    command = [sys.executable, "-m", "benchmarks.connect_floor", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        hub = start_hub(OURS, Path())
        lockfile = hub.home / ".samp"
        ways: tuple[Callable[[], float], ...] = (
            lambda: connect_client(hub.params), lambda: connect_plainly(lockfile, port)
        )  # fmt: skip
        found = [[statistics.median(way() for _ in range(20)) for way in ways] for _ in range(rounds + 1)][1:]
        own, least = (statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(a / b for a, b in found)
        print(f"connect: {own * 1e6:.0f} us, floor {least * 1e6:.0f} us, ratio {ratio:.2f}")
        hub.stop()
        server.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 15)
