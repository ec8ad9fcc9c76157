# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A loop and servers for the tests of the transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyvo.samp.transport.event_loop import EventLoop
from pyvo.samp.transport.server import XMLRPCServer
from pyvo.samp.transport.server_connection import DeferredResponse
from pyvo.samp.transport.xmlrpc_handler import XMLRPCHandler

from .peers import TIMEOUT, in_loop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A running loop."""
    loop = EventLoop("test-loop")
    loop.start()
    yield loop
    loop.stop(TIMEOUT)


class Operations:
    """The operations of the server in a test."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.waiting: list[DeferredResponse] = []

    def echo(self, text: str) -> str:
        self.calls.append(text)
        return text

    def size(self, text: str) -> str:
        return str(len(text))

    def repeat(self, text: str, times: str) -> str:
        return text * int(times)

    def wait(self, text: str = "") -> DeferredResponse:
        deferred = DeferredResponse()
        self.calls.append(text)
        self.waiting.append(deferred)
        return deferred

    def table(self) -> dict[str, Callable[..., Any]]:
        return {"echo": self.echo, "size": self.size, "repeat": self.repeat, "wait": self.wait}


@pytest.fixture
def operations() -> Operations:
    """The operations of `server`, with their calls and their waiting responses."""
    return Operations()


@pytest.fixture
def make_server(loop: EventLoop, operations: Operations) -> Iterator[Callable[..., XMLRPCServer]]:
    """Start servers, which are stopped after the test."""
    servers = []

    def make(handler: Any = None, **options: Any) -> XMLRPCServer:
        handler = handler or XMLRPCHandler(operations.table())
        server = XMLRPCServer(("127.0.0.1", 0), loop, handler, **options)
        servers.append(server)
        server.start()
        return server

    yield make
    if not loop.stopped:
        for server in servers:
            in_loop(loop, server.stop)


@pytest.fixture
def server(make_server: Callable[..., XMLRPCServer]) -> XMLRPCServer:
    """A server with `operations`."""
    return make_server()
