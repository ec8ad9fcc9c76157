"""Callback servers for the tests: correct ones, and ones with the faults that callback servers of programs have."""

from __future__ import annotations

import socket
import threading
import time
import xmlrpc.client
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

OK_XML = xmlrpc.client.dumps(("",), methodresponse=True).encode()

#: Function of the method and parameters of a call. It returns the bytes of the HTTP response, or None to close the
#: connection without a response.
Behaviour = Callable[[str, tuple[Any, ...]], "bytes | None"]


def http_response(body: bytes = OK_XML, status: str = "200 OK", length: int | None = None, headers: str = "") -> bytes:
    """
    Make an HTTP response. It keeps the connection open unless ``headers`` says otherwise; ``length`` may be wrong.
    """
    headers = headers or "Connection: keep-alive\r\n"
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n{headers}\r\n".encode() + body


def fault(text: str) -> bytes:
    return http_response(xmlrpc.client.dumps(xmlrpc.client.Fault(7, text)).encode())


def well_behaved(_method: str, _params: tuple[Any, ...]) -> bytes:
    return http_response()


class Recipient:
    """
    A server that a hub calls back, with threads and plain sockets.

    ``calls`` contains the method and parameters of each call, ``bodies`` the bytes of each request body;
    ``connections`` is the number of connections.
    """

    def __init__(self, behave: Behaviour = well_behaved) -> None:
        self.behave = behave
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._socks: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.crash()

    def crash(self) -> None:
        """Close all sockets at once, as the system does when a process is killed."""
        self.closing.set()
        for sock in [self._listener, *self._socks]:
            with suppress(OSError):  # the socket may be closed already
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def wait_for(self, number: int, timeout: float = 10.0) -> list[tuple[str, tuple[Any, ...]]]:
        """Wait until this many calls have arrived; return all calls."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= number, timeout), self.calls
            return list(self.calls)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._socks.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as stream:
                while self._serve_one(sock, stream):
                    pass
        except OSError:
            pass  # the connection was closed by either side
        finally:
            self._socks.discard(sock)

    def _serve_one(self, sock: socket.socket, stream: Any) -> bool:
        length = 0
        first = line = stream.readline()
        while line not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            line = stream.readline()
        if not first:
            return False  # a probe of the hub
        body = stream.read(length)
        params, method = xmlrpc.client.loads(body)
        assert method is not None
        with self._changed:
            self.connections = len(self._threads) - 1
            self.bodies.append(body)
            self.calls.append((method.removeprefix("samp.client."), params))
            self._changed.notify_all()
        data = self.behave(method, params)
        if data is None:
            return False
        sock.sendall(data)
        return b"Connection: keep-alive" in data


def wait_until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Poll until a condition holds. This is for changes in another process or thread that cannot be waited for."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
    return result
