# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Clients that send arbitrary bytes, and servers whose behaviour a test sets."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from pyvo.samp.transport.event_loop import EventLoop
from pyvo.samp.transport.xmlrpc_writer import write_call, write_response

TIMEOUT = 10.0


def in_loop(loop: EventLoop, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the loop's thread and return its result."""
    done = threading.Event()
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(function(*args))
        finally:
            done.set()

    loop.call_soon(run)
    assert done.wait(TIMEOUT)
    return result[0]


def eventually(loop: EventLoop, condition: Callable[[], Any]) -> None:
    """Let the loop run until a condition is true."""
    deadline = time.monotonic() + TIMEOUT
    while not in_loop(loop, condition):
        assert time.monotonic() < deadline


def post(body: bytes = b"", *lines: str, version: str = "1.1", length: int | None = None, end: str = "\r\n") -> bytes:
    """Return a POST request."""
    head = [f"POST / HTTP/{version}", *lines, f"Content-Length: {len(body) if length is None else length}", "", ""]
    return end.join(head).encode("latin-1") + body


def call(method: str, *params: Any) -> bytes:
    """Return a POST request that calls a method."""
    return post(write_call(method, params))


class Received(NamedTuple):
    """A response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawClient:
    """A connection to a server under test."""

    def __init__(self, port: int, data: bytes = b"") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.file = self.sock.makefile("rb")
        self.send(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        """Shut down the writing side; reading is still possible."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def receive(self, *, with_body: bool = True) -> Received:
        """Receive the next response."""
        line = self.file.readline().split(None, 2)
        assert line, "the connection was closed without a response"
        headers = {}
        while (header := self.file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = header.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        size = int(headers.get("content-length", "0"))
        return Received(int(line[1]), headers, self.file.read(size) if with_body else b"")

    def rest(self) -> bytes:
        """Receive everything up to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            return self.file.read()
        return b""


def http_response(body: bytes = b"", *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return a response that keeps the connection open."""
    size = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", "Connection: keep-alive", f"Content-Length: {size}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


OK = http_response(write_response("yes"))

Behaviour = Callable[["FakeServer", socket.socket], None]


class FakeServer:
    """
    A server whose behaviour a test sets.

    Each connection gets the next behaviour; after the last one, all connections get the last one.
    """

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = behaviours
        self.requests: list[bytes] = []
        self.connections = 0
        #: Set when the server ends; a behaviour that never responds waits for it.
        self.over = threading.Event()
        self.received = threading.Semaphore(0)
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(TIMEOUT)
            behaviour = self.behaviours[min(self.connections, len(self.behaviours) - 1)]
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(behaviour, sock))
            self._threads.append(thread)
            thread.start()

    def _serve(self, behaviour: Behaviour, sock: socket.socket) -> None:
        self._open.add(sock)
        with sock, contextlib.suppress(OSError):
            behaviour(self, sock)
        self._open.discard(sock)

    def read(self, sock: socket.socket) -> bytes | None:
        """Read and record one request. Return None at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = sock.recv(65536)
            if not part:
                return None
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(None, 1)[0])
        parts = [body]
        while (size := size - len(parts[-1])) > 0:
            parts.append(sock.recv(1 << 20))
            if not parts[-1]:
                return None
        self.requests.append(b"".join(parts))
        self.received.release()
        return self.requests[-1]


def steps(*parts: bytes | threading.Event | Behaviour) -> Behaviour:
    """Return a behaviour that sends bytes, waits for events, calls functions such as those below, and then closes."""

    def behave(server: FakeServer, sock: socket.socket) -> None:
        for part in parts:
            if isinstance(part, bytes):
                sock.sendall(part)
            elif isinstance(part, threading.Event):
                part.wait(TIMEOUT)
            else:
                part(server, sock)

    return behave


def read(server: FakeServer, sock: socket.socket) -> None:
    server.read(sock)


def read_part(server: FakeServer, sock: socket.socket) -> None:
    sock.recv(1000)


def end_output(server: FakeServer, sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def reset_connection(server: FakeServer, sock: socket.socket) -> None:
    reset(sock)


def wait_for_end(server: FakeServer, sock: socket.socket) -> None:
    """Neither read nor respond."""
    server.over.wait(TIMEOUT)


#: Read one request and never respond.
silent = steps(read, wait_for_end)
#: The response to a request that is too long.
TOO_LONG = http_response(b"too long", status="413 Request Entity Too Large")


def responding(*responses: bytes, times: int = 1) -> Behaviour:
    """Return a behaviour that reads a request and sends these bytes, repeats this, and then closes."""

    def behave(server: FakeServer, sock: socket.socket) -> None:
        for _ in range(times):
            if server.read(sock) is None:
                return
            for response in responses:
                sock.sendall(response)

    return behave


def kept(response: bytes = OK) -> Behaviour:
    """Return a behaviour that sends the same response to each request until the other side closes."""
    return responding(response, times=10**9)


def reset(sock: socket.socket) -> None:
    """Reset a connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
