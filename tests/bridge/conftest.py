"""Fixtures: two hubs, each with a bridge, and clients that record the messages that they receive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pyvo.samp import Bridge, SAMPHubServer, SAMPIntegratedClient, SAMPProxyError
from pyvo.samp.bridge import LocalPair, Policy
from pyvo.samp.lockfile import read_lockfile

#: Seconds for what takes milliseconds on an idle machine.
TIMEOUT = 30.0


class Received(NamedTuple):
    """
    A message or response: its kind, the id of its sender, its MType or msg-tag, and its parameters or the response.
    """

    kind: str
    sender: str
    name: str
    content: Mapping[str, Any]


class RecordingClient(SAMPIntegratedClient):
    """A client that records the messages that it receives, and replies to each call with the parameters of the call."""

    def __init__(self, name: str, mtypes: tuple[str, ...], metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, metadata=metadata)
        self.received: list[Received] = []
        self.changed = threading.Condition()
        for mtype in mtypes:
            self.bind_receive_notification(mtype, self._on_notification)
            self.bind_receive_call(mtype, self._on_call)
        self.bind_receive_notification("samp.hub.event.*", self._on_event)

    def note(self, *fields: Any) -> None:
        with self.changed:
            self.received.append(Received(*fields))
            self.changed.notify_all()

    def _on_notification(self, key: str, sender: str, msg_id: None, mtype: str, params: Any, extra: Any) -> None:
        self.note("notification", sender, mtype, params)

    def _on_call(self, key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        self.note("call", sender, mtype, params)
        self.ereply(msg_id, "samp.ok", result=params)

    def _on_event(self, key: str, sender: str, msg_id: None, mtype: str, params: Any, extra: Any) -> None:
        with self.changed:
            self.changed.notify_all()

    def on_response(self, key: str, responder: str, tag: str, response: Mapping[str, Any]) -> None:
        self.note("response", responder, tag, response)

    def of(self, kind: str) -> list[Received]:
        with self.changed:
            return [each for each in self.received if each.kind == kind]

    def wait_for(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
        """Wait until a condition holds. It is checked whenever the client is notified of something."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), self.received
        return condition()

    def wait_received(self, count: int, kind: str) -> list[Received]:
        return self.wait_for(lambda: found if len(found := self.of(kind)) >= count else None)

    def names(self) -> dict[str, str]:
        """Return the ids of the other clients, by name."""
        hub_id = self.client.hub_id
        found = {}
        for client_id in self.get_registered_clients():
            if client_id != hub_id:
                with suppress(SAMPProxyError):  # it has unregistered in the meantime
                    found[self.get_metadata(client_id).get("samp.name", "")] = client_id
        return found

    def find(self, name: str, mtype: str = "table.load.votable") -> str:
        """Wait for a subscribed client whose name begins with ``name``; return its id."""

        def find() -> str | None:
            client_id = next((each for label, each in self.names().items() if label.startswith(name)), None)
            return client_id if client_id and client_id in self.get_subscribed_clients(mtype) else None

        return self.wait_for(find)


@pytest.fixture(autouse=True)
def no_unexpected_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which the bridge has logged an exception. The bridge must handle all that a peer or a hub does."""
    yield
    for when in ("setup", "call", "teardown"):
        records = [record for record in caplog.get_records(when) if record.name.startswith("pyvo.samp.bridge")]
        assert [record.getMessage() for record in records if record.exc_info] == []


class Side(NamedTuple):
    """One of two hubs, with its bridge."""

    hub: SAMPHubServer
    bridge: Bridge
    connect: Callable[..., RecordingClient]


@pytest.fixture
def make_hubs(tmp_path: Path, make_hub: Callable[..., SAMPHubServer]) -> Callable[[int], list[SAMPHubServer]]:
    """Return a function that starts hubs, each with its own lockfile."""

    def start(count: int) -> list[SAMPHubServer]:
        return [make_hub(lockfile=str(tmp_path / f"hub{number}")) for number in range(count)]

    return start


@pytest.fixture
def connect() -> Iterator[Callable[..., RecordingClient]]:
    """Return a function that connects a client to a hub or to the hub of a lockfile, until the end of the test."""
    with ExitStack() as stack:

        def start(hub: SAMPHubServer | Path, name: str, *mtypes: str, **metadata: Any) -> RecordingClient:
            client = RecordingClient(name, mtypes or ("table.*", "coord.*"), metadata)
            stack.callback(client.disconnect)
            if isinstance(hub, Path):
                client.connect(hub_params=read_lockfile(hub))
            else:
                client.connect(hub=hub)
            return client

        yield start


@pytest.fixture
def join() -> Iterator[Callable[..., tuple[Bridge, Bridge]]]:
    """Return a function that joins two hubs, until the end of the test."""
    with ExitStack() as stack:

        def start(
            first: Any, second: Any, policies: tuple[Policy, Policy] | None = None, labels: tuple[str, str] = ("A", "B")
        ) -> tuple[Bridge, Bridge]:
            pair = LocalPair(labels)
            bridges = []
            for local, end, policy in zip((first, second), pair.ends, policies or (Policy(), Policy()), strict=True):
                bridge = Bridge(local, end, policy)
                stack.callback(bridge.stop)
                bridge.start()
                bridges.append(bridge)
            for bridge in bridges:
                assert bridge.wait_connected(TIMEOUT), bridge.reason
            return bridges[0], bridges[1]

        yield start


@pytest.fixture
def sides(
    make_hubs: Callable[[int], list[SAMPHubServer]],
    join: Callable[..., tuple[Bridge, Bridge]],
    connect: Callable[..., RecordingClient],
) -> tuple[Side, Side]:
    """Two hubs that are joined."""
    first, second = make_hubs(2)
    bridges = join(first, second)

    def at(hub: SAMPHubServer) -> Callable[..., RecordingClient]:
        return lambda name, *mtypes, **metadata: connect(hub, name, *mtypes, **metadata)

    return Side(first, bridges[0], at(first)), Side(second, bridges[1], at(second))
