# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The load generator: any number of SAMP clients in one thread.

Each client has its own callback server (a real port) and one connection for its requests to the hub. There is no
thread, no lock and no XML parser, so 500 clients cost the machine little, and all hubs get the same load.
A client *keeps* its connections, as Python's can, or opens one for each request, as those of JSAMP and DS9 do.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self

from .wire_format import Address, Request, call_body, post, read_head, receive_body, response, response_body, result_of

__all__ = ["BenchmarkError", "Client", "LoadGenerator"]

#: Bytes that are read at once, unless more are known to come: a larger buffer costs a call of the memory management.
CHUNK = 64 * 1024
LARGE_CHUNK = 1 << 20
OK_RESPONSE = {"samp.status": "samp.ok", "samp.result": {"answer": "42"}}


class BenchmarkError(Exception):
    """The hub did not do what it should have done."""


class Connection:
    """A socket with its buffers. The subclasses process the messages."""

    def __init__(self, generator: LoadGenerator, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.generator = generator
        self.sock: socket.socket | None = sock
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._out = b""
        generator.selector.register(sock, selectors.EVENT_READ, self)

    def write(self, data: bytes) -> None:
        if self._out:
            self._out += data
            return
        assert self.sock is not None
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the reading side gets the error, too, and handles it
            self.on_closed()
            return
        if sent < len(data):
            self._out = data[sent:]
            self.generator.selector.modify(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def event(self, mask: int) -> None:
        """Write and read what is possible; called by the selector."""
        if mask & selectors.EVENT_WRITE and self._out:
            rest, self._out = self._out, b""
            assert self.sock is not None
            self.generator.selector.modify(self.sock, selectors.EVENT_READ, self)
            self.write(rest)
        if mask & selectors.EVENT_READ and self.sock is not None:
            self._read(self.sock)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(min(max(self._need - self._have, CHUNK), LARGE_CHUNK))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.on_closed()
            return
        self._parts.append(data)
        self._have += len(data)
        if self._have >= self._need:
            self._split()

    def _split(self) -> None:
        """Call `on_message` if the message is complete."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            try:
                size, keep = read_head(data[:end])
            except ValueError as error:
                raise BenchmarkError(str(error)) from error
            self._need = end + 4 + size
            if len(data) >= self._need:
                self._parts, self._have, self._need = [], 0, 0
                self.on_message(data[end + 4 :], keep)
                return
        self._parts = [data]

    def close(self) -> None:
        sock, self.sock = self.sock, None
        if sock is not None:
            self.generator.selector.unregister(sock)
            sock.close()

    def on_message(self, body: bytes, keep: bool) -> None:
        raise NotImplementedError

    def on_closed(self) -> None:
        self.close()


class CallbackConnection(Connection):
    """A connection from the hub to a client."""

    def __init__(self, generator: LoadGenerator, sock: socket.socket, client: Client) -> None:
        super().__init__(generator, sock)
        self._client = client

    def on_message(self, body: bytes, keep: bool) -> None:
        client = self._client
        keep = keep and client.keep
        self.write(client.acknowledgement_kept if keep else client.acknowledgement)
        if not keep:
            self.close()
        client.received(receive_body(body))


class RequestConnection(Connection):
    """A connection from a client to the hub."""

    def __init__(self, generator: LoadGenerator, client: Client) -> None:
        sock = socket.socket()
        super().__init__(generator, sock)
        self._client = client
        sock.connect_ex(client.hub[:2])
        self._fresh = True

    def on_message(self, body: bytes, keep: bool) -> None:
        self._fresh = False
        if not (keep and self._client.keep):
            self.close()
        self._client.answered(body)

    def on_closed(self) -> None:
        fresh = self._fresh
        self.close()
        self._client.lost(fresh)


class CallbackListener:
    """The listening socket of a client."""

    def __init__(self, generator: LoadGenerator, client: Client) -> None:
        self._swarm = generator
        self._client = client
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.sock.setblocking(False)
        generator.selector.register(self.sock, selectors.EVENT_READ, self)
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}/"

    def event(self, mask: int) -> None:
        try:
            sock, _ = self.sock.accept()
        except OSError:  # the hub has closed the connection already
            return
        self._client.callback_connections.append(CallbackConnection(self._swarm, sock, self._client))

    def close(self) -> None:
        self._swarm.selector.unregister(self.sock)
        self.sock.close()


class Client:
    """One SAMP client. `prepare` encodes a request; `send` sends requests in order, one at a time."""

    def __init__(
        self, generator: LoadGenerator, hub: Address, keep: bool, namespace: str = "samp.hub", extra: str = ""
    ) -> None:
        self.generator, self.hub, self.keep, self.namespace, self.extra = generator, hub, keep, namespace, extra
        self.acknowledgement_kept = response(response_body(), keep=True)
        self.acknowledgement = response(response_body(), keep=False)
        self.key = self.client_id = ""
        self.callback_connections: list[CallbackConnection] = []
        self.responses = self.notifications = self.calls = self.faults = self.bytes = 0
        self._listener: CallbackListener | None = None
        self._request_connection: RequestConnection | None = None
        self._queue: deque[tuple[bytes, Callable[[bytes], None]]] = deque()
        self._busy = False

    # Requests to the hub

    def prepare(self, operation: str, *params: Any) -> bytes:
        """Encode a request, which can be sent any number of times."""
        key = [self.key] if self.key else []
        body = call_body(f"{self.namespace}.{operation}", *key, *params)
        return post(self.hub, body, self.keep, self.extra)

    def send(self, request: bytes, done: Callable[[bytes], None]) -> None:
        """Send an encoded request after the responses to earlier ones; ``done`` gets the body of the response."""
        self._queue.append((request, done))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._queue)
        if self._busy:
            if self._request_connection is None or self._request_connection.sock is None:
                self._request_connection = RequestConnection(self.generator, self)
            self._request_connection.write(self._queue[0][0])

    def answered(self, body: bytes) -> None:
        if not self._busy:
            raise BenchmarkError(f"The hub sent a response without a request: {body[:200]!r}")
        _, done = self._queue.popleft()
        if b"<fault>" in body:
            self.faults += 1
            self.generator.last_fault = body
        done(body)
        if not self._queue:
            self._busy = False
        else:
            self._next()

    def lost(self, fresh: bool) -> None:
        """Send the request again if the hub has closed an idle connection."""
        if not self._busy:
            return
        if fresh:
            self.generator.errors += 1
            _, done = self._queue.popleft()
            done(b"")
        self._next()

    def call(self, operation: str, *params: Any) -> Any:
        """Call the hub and wait for the result. This is for preparations."""
        got: list[bytes] = []
        self.send(self.prepare(operation, *params), got.append)
        self.generator.run(lambda: bool(got), f"a response to {operation}")
        if not got[0]:
            raise BenchmarkError(f"The hub closed the connection instead of responding to {operation}")
        return result_of(got[0])

    # Registration

    def register_and_declare(
        self, secret: str | dict[str, str], subscriptions: Iterable[str], name: str = "benchmark"
    ) -> None:
        """Send the requests that make the client callable; `LoadGenerator.run` processes the responses."""
        self.send(self.prepare("register", secret), lambda body: self._on_registered(body, subscriptions, name))

    def _on_registered(self, body: bytes, subscriptions: Iterable[str], name: str) -> None:
        if not body:
            self.client_id = "-"
            return
        self.identify(body)
        for request in self.declarations(subscriptions, name):
            self.send(request, lambda _: None)

    def identify(self, body: bytes) -> None:
        """Read the key and the id from the response to a registration."""
        if not body:
            raise BenchmarkError("The hub does not register clients")
        registration = result_of(body)
        self.key = registration["samp.private-key"]
        self.client_id = registration["samp.self-id"]
        self._reply_heads: dict[int, bytes] = {}
        self._reply_head, self._reply_tail = self.prepare("reply", "@", OK_RESPONSE).split(b"@", 1)

    def declarations(self, subscriptions: Iterable[str], name: str) -> list[bytes]:
        """Encode the declarations that follow a registration."""
        if self._listener is None:
            self._listener = CallbackListener(self.generator, self)
        return [
            self.prepare("setXmlrpcCallback", self._listener.url),
            self.prepare("declareMetadata", {"samp.name": name, "samp.description.text": "A client of the benchmark"}),
            self.prepare("declareSubscriptions", {mtype: {} for mtype in subscriptions}),
        ]

    @property
    def idle(self) -> bool:
        """Whether the client is registered and no request is pending."""
        return not self._busy and bool(self.client_id)

    def unregister(self) -> None:
        """Unregister and wait for the response."""
        self.call("unregister")
        self.close()

    def close(self) -> None:
        """Close all sockets."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._request_connection is not None:
            self._request_connection.close()
        for callback_connections in self.callback_connections:
            callback_connections.close()
        self.key = self.client_id = ""

    # Deliveries

    def received(self, request: Request) -> None:
        """Count a delivery; reply to a call at once."""
        self.bytes += request.size
        if request.method.endswith(b"receiveCall"):
            self.calls += 1
            self.reply(request.params[2])
        elif request.method.endswith(b"receiveResponse"):
            self.responses += 1
        else:
            self.notifications += 1

    def reply(self, msg_id: bytes) -> None:
        """Reply to a call."""
        head = self._reply_heads.get(len(msg_id))
        if head is None:
            # Content-Length depends on the id, and the head was encoded for an id of one byte.
            head = self._reply_head
            at = head.index(b"Content-Length: ") + 16
            end = head.index(b"\r", at)
            size = int(head[at:end]) + len(msg_id) - 1
            head = self._reply_heads[len(msg_id)] = head[:at] + str(size).encode() + head[end:]
        self.send(head + msg_id + self._reply_tail, lambda _: None)


class LoadGenerator:
    """The clients of one run, and the loop that processes their events."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.clients: list[Client] = []
        self.errors = 0
        self.last_fault = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets without unregistering the clients."""
        for client in self.clients:
            client.close()
        self.selector.close()

    def client(self, hub: Address, *, keep: bool, namespace: str = "samp.hub", extra: str = "") -> Client:
        """Return a new client that is not registered."""
        client = Client(self, hub, keep, namespace, extra)
        self.clients.append(client)
        return client

    def connect(
        self, hub: Address, secret: str, subscriptions: Iterable[str] = (), *, count: int = 1, keep: bool = True,
        at_once: int = 8,
    ) -> list[Client]:  # fmt: skip
        """Register clients, a few at a time. This is for preparations."""
        joined: list[Client] = []
        while len(joined) < count:
            some = [self.client(hub, keep=keep) for _ in range(min(at_once, count - len(joined)))]
            for client in some:
                client.register_and_declare(secret, subscriptions)
            self.run(lambda some=some: all(c.idle for c in some), "clients to register")
            joined += some
        self.check()
        return joined

    def run(self, until: Callable[[], bool], what: str, limit: float = 30.0) -> None:
        """Process events until a condition holds."""
        end = time.monotonic() + limit
        select = self.selector.select
        while not until():
            events = select(1.0)
            for key, mask in events:
                if key.fileobj.fileno() >= 0:  # an earlier event may have closed it
                    key.data.event(mask)
            if not events and time.monotonic() > end:
                raise BenchmarkError(f"Timeout: waited {limit:g} s for {what}")

    def settle(self, quiet: float = 0.2) -> None:
        """Process events until none has happened for a while."""
        while events := self.selector.select(quiet):
            for key, mask in events:
                if key.fileobj.fileno() >= 0:
                    key.data.event(mask)

    def check(self) -> None:
        """Raise an error if a hub sent a fault or no response."""
        faults, errors = sum(client.faults for client in self.clients), self.errors
        if faults or errors:
            self.errors = 0
            for client in self.clients:
                client.faults = 0
            fault = self.last_fault.decode()[-300:]
            raise BenchmarkError(f"{faults} faults, {errors} requests without response; {fault}")
