# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Clients of the Web Profile and of the Standard Profile that send their requests over plain sockets."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from typing import TYPE_CHECKING, Any, Self

from .recipients import Recipient

if TYPE_CHECKING:
    from pyvo.samp import SAMPHubServer

ORIGIN = "https://sky.example"


class Response:
    """One HTTP response."""

    def __init__(self, sock: socket.socket, method: str = "POST") -> None:
        with http.client.HTTPResponse(sock, method=method) as response:
            response.begin()
            self.status = response.status
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            self.body = response.read()

    @property
    def value(self) -> Any:
        """The value in the response. A fault is raised as an exception."""
        return xmlrpc.client.loads(self.body)[0][0]


def request(
    port: int, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"", host: str = ""
) -> Response:
    """Send one request over its own connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        send(sock, method, target, {"Host": host or f"localhost:{port}", **(headers or {})}, body)
        return Response(sock, method)


def send(sock: socket.socket, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> None:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value)]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


class Page:
    """
    A page. It makes its calls over one connection, and each pull of `begin_pull` over its own.

    `receive` checks the status and the CORS headers of the response.
    """

    def __init__(self, hub: SAMPHubServer | int, origin: str = ORIGIN) -> None:
        self.port = hub if isinstance(hub, int) else hub._web_port
        self.origin = origin
        self.key = ""
        self.id = ""
        self.translator = ""
        self._socks: list[socket.socket] = []
        self._main = self.connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._socks:
            sock.close()

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self._socks.append(sock)
        return sock

    def send(self, sock: socket.socket, method: str, *params: Any, **headers: str) -> None:
        body = xmlrpc.client.dumps(params, f"samp.webhub.{method}", encoding="utf-8").encode()
        wanted = {"Host": f"localhost:{self.port}", "Origin": self.origin, "Content-Type": "text/plain", **headers}
        send(sock, "POST", "/", wanted, body)

    def receive(self, sock: socket.socket) -> Any:
        response = Response(sock)
        assert response.status == 200
        assert response.headers["content-type"] == "text/xml"
        if self.origin:
            assert response.headers["access-control-allow-origin"] == self.origin
        return response.value

    def call(self, method: str, *params: Any) -> Any:
        """Make a call, with the key if the page has one."""
        self.send(self._main, method, *([self.key] if self.key else []), *params)
        return self.receive(self._main)

    def register(self, name: str = "Sky page", **headers: str) -> Self:
        identity = self.call("register", {"samp.name": name})
        self.accept(identity)
        return self

    def accept(self, identity: dict[str, str]) -> None:
        self.key = identity["samp.private-key"]
        self.id = identity["samp.self-id"]
        self.translator = identity["samp.url-translator"]

    def listen(self, *mtypes: str, **annotated: dict[str, Any]) -> Self:
        """Allow callbacks and subscribe."""
        self.call("allowReverseCallbacks", "1")
        self.call("declareSubscriptions", {mtype: {} for mtype in mtypes} | annotated)
        return self

    def begin_pull(self, timeout: str = "600") -> socket.socket:
        sock = self.connect()
        self.send(sock, "pullCallbacks", self.key, timeout)
        return sock

    def pull(self, timeout: str = "10") -> list[tuple[str, list[Any]]]:
        """Pull; return the method and the parameters of each callback."""
        callbacks = self.call("pullCallbacks", timeout)
        return [(callback["samp.methodName"], callback["samp.params"]) for callback in callbacks]

    def pull_some(self, number: int) -> list[tuple[str, list[Any]]]:
        """Pull until this many callbacks have been returned."""
        got: list[tuple[str, list[Any]]] = []
        while len(got) < number:
            more = self.pull("10")
            assert more, f"only {got} came"
            got += more
        return got

    def get(self, url: str, method: str = "GET", **headers: str) -> Response:
        """Request a URL from the translator. The URL is appended as it is."""
        target = self.translator.partition(f":{self.port}")[2] + url
        return request(self.port, method, target, {"Origin": self.origin, **headers})


class Program(Recipient):
    """A client of the Standard Profile that accepts deliveries and does not reply."""

    def __init__(self, hub: SAMPHubServer, *mtypes: str, **annotated: dict[str, str]) -> None:
        super().__init__()
        self._proxy = xmlrpc.client.ServerProxy(hub.params["samp.hub.xmlrpc.url"])
        response: Any = self._proxy.samp.hub.register(hub.params["samp.secret"])
        self.key = response["samp.private-key"]
        self.id = response["samp.self-id"]
        self.call("setXmlrpcCallback", self.url)
        self.subscribe({mtype: {} for mtype in mtypes} | annotated)

    def __exit__(self, *exc_info: object) -> None:
        self._proxy("close")()
        super().__exit__(*exc_info)  # type: ignore[arg-type]

    def call(self, method: str, *params: Any) -> Any:
        return getattr(self._proxy.samp.hub, method)(self.key, *params)

    def subscribe(self, subscriptions: dict[str, Any]) -> None:
        self.call("declareSubscriptions", subscriptions)


def message(mtype: str, **params: Any) -> dict[str, Any]:
    return {"samp.mtype": mtype, "samp.params": params}
