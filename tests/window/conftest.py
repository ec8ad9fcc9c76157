"""A hub with a window, and an HTTP client that takes the place of the browser."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pyvo.samp import SAMPHubServer


class Window:
    """Makes requests to the server of the hub window, as its page does."""

    def __init__(self, url: str) -> None:
        address, self.token = url.removeprefix("http://").split("/#")
        self.host, port = address.split(":")
        self.port = int(port)
        self.key = ""
        self._stack = ExitStack()

    @property
    def origin(self) -> str:
        """The origin of the page, as a browser states it."""
        return f"http://{self.host}:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection, which `close` closes."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        self._stack.callback(connection.close)
        return connection

    def request(self, method: str, path: str, body: object = None, **headers: str | None) -> http.client.HTTPResponse:
        """Make a request; ``headers`` replace those of the page, None leaves one out."""
        found: dict[str, str | None] = {"Authorization": f"Bearer {self.key}" if self.key else None}
        if body is not None:
            found |= {"Content-Type": "application/json", "Origin": self.origin}
        found |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        connection = self.connect()
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {name: value for name, value in found.items() if value is not None})
        response = connection.getresponse()
        self._stack.callback(response.close)
        return response

    def get(self, path: str) -> Any:
        """Make a GET request, and return the JSON."""
        response = self.request("GET", path)
        assert response.status == 200, response.read()
        return json.loads(response.read())

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Post JSON, and return the status, with the JSON or the text of the response."""
        response = self.request("POST", path, body)
        data = response.read()
        return response.status, json.loads(data) if response.status == 200 else data.decode().strip()

    def open(self) -> Window:
        """Exchange the token for a key."""
        status, content = self.post("/session", {"token": self.token})
        assert status == 200, content
        self.key = content["key"]
        return self

    def events(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Open the stream, and yield its updates."""
        response = self.request("GET", f"/events?since={since}")
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type") == "application/x-ndjson"
        return (json.loads(line) for line in iter(response.readline, b"") if line.strip())

    def wait_for(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Read updates until one of them fulfils a condition."""
        return next(update for update in self.events() if condition(update))

    def close(self) -> None:
        """Close all connections."""
        self._stack.close()


@pytest.fixture
def open_window() -> Iterator[Callable[[SAMPHubServer], Window]]:
    """Open windows of hubs, whose connections are closed after the test."""
    windows: list[Window] = []

    def start(hub: SAMPHubServer) -> Window:
        windows.append(Window(hub.open_window(browser=False)))
        return windows[-1].open()

    yield start
    for window in windows:
        window.close()


@pytest.fixture
def window(hub: SAMPHubServer) -> Iterator[Window]:
    """A window without a key, to a hub with the Standard Profile."""
    one = Window(hub.open_window(browser=False))
    yield one
    one.close()
