"""Clients that are disconnected after the test, and a way to wait for what they receive."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

Connect = Callable[..., SAMPIntegratedClient]


class Received(NamedTuple):
    """What a handler was called with."""

    private_key: str
    sender_id: str
    msg_id: str | None
    mtype: str
    params: dict[str, Any]
    extra: dict[str, Any]


class Record:
    """A handler that keeps what it is called with, and replies to calls."""

    def __init__(self, client: SAMPIntegratedClient, result: dict[str, Any] | None = None) -> None:
        self._client = client
        self._result = result
        self._received: queue.Queue[Received] = queue.Queue()

    def __call__(self, *args: Any) -> None:
        received = Received(*args)
        self._received.put(received)
        if received.msg_id is not None:
            self._client.ereply(received.msg_id, "samp.ok", result=self._result or {})

    def next(self, timeout: float = 10.0) -> Received:
        return self._received.get(timeout=timeout)

    def empty(self) -> bool:
        return self._received.empty()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make clients and connect them; options of `connect` are given as a dictionary ``how``."""
    clients = []

    def make(name: str | None = None, how: dict[str, Any] | None = None, **options: Any) -> SAMPIntegratedClient:
        client = SAMPIntegratedClient(name=name, **options)
        clients.append(client)
        client.connect(**(how or {}))
        return client

    yield make
    for client in clients:
        client.disconnect()


@pytest.fixture(params=["standard", "web"])
def join(
    request: pytest.FixtureRequest, make_hub: Callable[..., SAMPHubServer], connect: Connect
) -> Connect:
    """Like `connect`, but a hub is running, and once by the Standard and once by the Web Profile."""
    if request.param == "standard":
        make_hub()
        return connect
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *_: True, web_profile_mtypes=["*"])
    return lambda *args, **options: connect(*args, how={"hub": hub, "web": True}, **options)


@pytest.fixture
def pair(hub: SAMPHubServer, connect: Connect) -> tuple[SAMPIntegratedClient, SAMPIntegratedClient]:
    """Two connected clients, called Alice and Bob."""
    return connect("Alice"), connect("Bob")
