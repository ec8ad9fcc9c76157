# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Hubs in a room of a NATS server."""
from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import pytest

from pyvo.samp import Bridge, SAMPHubServer, SAMPIntegratedClient, SAMPProxyError, SAMPValueError
from pyvo.samp.bridge import BridgeState

from .programs import Program, until

pytest.importorskip("nats", reason='nats-py is not installed (pip install ".[nats]")')
from benchmarks import bridge as benchmark
from pyvo.samp.bridge import nats_room
from pyvo.samp.bridge.nats_room import NATSRoom, parse_room_url

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0
#: Debian installs the server in a directory that only root has in the PATH.
PATH = f"{os.environ['PATH']}:/usr/sbin"


class NATSServer:
    """A server on a port that is chosen once. It can be killed and started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        if shutil.which("nats-server", path=PATH) is None:
            pytest.skip("nats-server is not installed (tests/interop/install does it)")
        self._directory, self._options = directory, options
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port = chosen.getsockname()[1]
        self.program: Program | None = None
        self.start()

    def start(self) -> None:
        environment = {"PATH": PATH, "HOME": str(self._directory)}
        command = [str(shutil.which("nats-server", path=PATH)), "-a", "127.0.0.1", "-p", str(self.port), *self._options]
        self.program = Program(*command, env=environment)
        self.program.wait_for("Server is ready")

    def kill(self) -> None:
        assert self.program is not None
        self.program.signal(signal.SIGKILL)
        self.program.stop()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}/room"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATSServer]:
    one = NATSServer(tmp_path)
    yield one
    assert one.program is not None
    one.program.stop()


class Room:
    """Hubs of this process, each with a bridge to the room."""

    def __init__(self, directory: Path, url: str, stack: ExitStack) -> None:
        self.directory, self.url, self._stack = directory, url, stack
        self.bridges: list[Bridge] = []
        self.states: SimpleQueue[tuple[BridgeState, str]] = SimpleQueue()

    def add_hub(self) -> SAMPHubServer:
        number = len(self.bridges)
        hub = SAMPHubServer(web_profile=False, lockfile=str(self.directory / f"hub{number}"))
        hub.start()
        self._stack.callback(hub.stop)
        self.join(hub, f"hub{number}")
        return hub

    def join(self, hub: SAMPHubServer, label: str) -> Bridge:
        bridge = Bridge(hub, NATSRoom(self.url), label=label, on_state=lambda *state: self.states.put(state))
        self._stack.callback(bridge.stop)
        bridge.start()
        self.bridges.append(bridge)
        return bridge

    def connect(self, hub: SAMPHubServer, name: str) -> Recorder:
        client = Recorder(name)
        client.connect(hub=hub)
        self._stack.callback(client.disconnect)
        return client


class MemberProcess(benchmark.MemberProcess):
    """A hub in another process, which ends with the ``with`` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.stop()


class Recorder(SAMPIntegratedClient):
    """A client that records messages about tables, and replies to calls with their parameters."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.received: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.bind_receive_message("table.*", self.on_message)

    def on_message(self, _key: str, _sender: str, msg_id: str | None, _mtype: str, params: Any, _extra: Any) -> None:
        with self.changed:
            self.received.append(dict(params))
            self.changed.notify_all()
        if msg_id is not None and params.get("name") != "never":
            self.ereply(msg_id, "samp.ok", result=params)

    def wait_for_message(self, parameter: str) -> str:
        """Wait for a message with a parameter; return the value of the parameter."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(parameter in each for each in self.received), TIMEOUT)
            return str(next(each[parameter] for each in self.received if parameter in each))

    def wait_for_names(self, *names: str) -> dict[str, str]:
        """Wait until this hub has proxies of exactly these clients; return their ids by name."""
        found = until(self.bridged, lambda got: sorted(got) == sorted(names), TIMEOUT)
        assert isinstance(found, dict)
        return found

    def bridged(self) -> dict[str, str]:
        names = {}
        for each in self.get_registered_clients():
            with suppress(SAMPProxyError):  # it has unregistered in the meantime
                names[each] = self.get_metadata(each).get("samp.name", "")
        return {name: each for each, name in names.items() if " (via " in name}


@pytest.fixture
def room(tmp_path: Path, server: NATSServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setattr(nats_room, "HEARTBEAT_INTERVAL", 0.5)
    with ExitStack() as stack:
        yield Room(tmp_path, server.url, stack)


def test_three_hubs(room: Room) -> None:
    """A call, a broadcast and a file pass between any two of three hubs. Then one hub leaves the room."""
    hubs = [room.add_hub() for _ in range(3)]
    clients = [room.connect(hub, f"c{number}") for number, hub in enumerate(hubs)]
    ids = [
        client.wait_for_names(*(f"c{other} (via hub{other})" for other in range(3) if other != number))
        for number, client in enumerate(clients)
    ]
    response = clients[0].ecall_and_wait(ids[0]["c1 (via hub1)"], "table.x", "60", name="text")
    assert response == {"samp.status": "samp.ok", "samp.result": {"name": "text"}}
    large = "x" * 3_000_000
    response = clients[2].ecall_and_wait(ids[2]["c1 (via hub1)"], "table.x", "60", name=large)
    assert response["samp.result"] == {"name": large}

    path = Path(os.environ["HOME"]) / "a file"
    path.write_bytes(os.urandom(5_000_000))
    clients[0].enotify_all("table.x", url=path.as_uri())
    for client in clients[1:]:
        url = client.wait_for_message("url")
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=60) as download:
            assert download.read() == path.read_bytes()

    room.bridges[1].stop()
    clients[0].wait_for_names("c2 (via hub2)")
    clients[2].wait_for_names("c0 (via hub0)")


def test_server_is_killed_during_a_call(room: Room, server: NATSServer) -> None:
    """The call gets a response at once, and no proxy is left. When the server runs again, the bridges connect again."""
    hubs = [room.add_hub() for _ in range(2)]
    clients = [room.connect(hub, f"c{number}") for number, hub in enumerate(hubs)]
    recipient = clients[0].wait_for_names("c1 (via hub1)")["c1 (via hub1)"]
    responses: SimpleQueue[Any] = SimpleQueue()
    clients[0].bind_receive_response("tag", lambda key, sender, tag, response: responses.put(response))
    clients[0].ecall(recipient, "tag", "table.x", name="never")
    clients[1].wait_for_message("name")
    server.kill()
    start = time.monotonic()
    response = responses.get(timeout=TIMEOUT)
    assert time.monotonic() - start < 2
    assert response["samp.status"] == "samp.error"
    assert "was lost" in response["samp.error"]["samp.errortxt"]
    clients[0].wait_for_names()
    clients[1].wait_for_names()
    server.start()
    recipient = clients[0].wait_for_names("c1 (via hub1)")["c1 (via hub1)"]
    assert clients[0].ecall_and_wait(recipient, "table.x", "60", name="x")["samp.status"] == "samp.ok"


def test_a_silent_hub_is_removed(room: Room) -> None:
    """
    A hub whose process is stopped is removed after three heartbeats. It is added again when the process continues.
    """
    with MemberProcess("other", 1, room.url, os.environ["HOME"]) as member:
        client = room.connect(room.add_hub(), "client")
        assert member.hear() == "ready"
        client.wait_for_names("other-0 (via other)")
        member.process.send_signal(signal.SIGSTOP)
        client.wait_for_names()
        member.process.send_signal(signal.SIGCONT)
        client.wait_for_names("other-0 (via other)")


def test_a_killed_hub_joins_again(room: Room) -> None:
    """Its new session replaces the old one, which is not yet silent for long enough."""
    client = room.connect(room.add_hub(), "client")
    other = SAMPHubServer(web_profile=False, lockfile=str(room.directory / "other"))
    other.start()
    with ExitStack() as stack:
        stack.callback(other.stop)
        first = room.join(other, "other")
        there = room.connect(other, "there")
        ids = client.wait_for_names("there (via other)")
        stop_silently(first)
        room.join(other, "other again")
        again = client.wait_for_names("there (via other again)")
        assert set(ids.values()).isdisjoint(again.values())
        there.disconnect()
        room.bridges[-1].stop()


def stop_silently(bridge: Bridge) -> None:
    """Stop a bridge without a message to the others, as if it were killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nats_room._Session, "_send_all", discard)
        bridge.stop()


async def discard(session: Any) -> None:
    """Send nothing: discard all messages."""
    for _ in session._outbox.take_all():
        pass


def test_second_bridge_of_a_hub_is_rejected(room: Room) -> None:
    hub = room.add_hub()
    until(lambda: room.states.get(timeout=TIMEOUT), lambda state: "in the room" in state[1])
    second = room.join(hub, "second")
    assert second.wait(TIMEOUT)
    assert (second.state, second.exit_status) == (BridgeState.FAILED, 1)
    assert "already joined this hub" in second.reason


def test_lost_message_ends_the_link(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pending call gets a response, and new proxies replace the old ones."""
    clients = [room.connect(room.add_hub(), f"c{number}") for number in range(2)]
    first = clients[0].wait_for_names("c1 (via hub1)")
    receive = nats_room._Tunnel.receive
    dropped: list[int] = []

    def drop_once(tunnel: Any, number: int, data: bytes) -> None:
        if not dropped and b"drop me" in data:
            dropped.append(number)
        else:
            receive(tunnel, number, data)

    monkeypatch.setattr(nats_room._Tunnel, "receive", drop_once)
    response = clients[0].ecall_and_wait(first["c1 (via hub1)"], "table.x", "60", name="drop me")
    # the loss is detected with the next message, which the other hub sends when it declares something
    assert response["samp.status"] == "samp.error"
    assert dropped
    until(clients[0].bridged, lambda got: list(got) == ["c1 (via hub1)"] and got != first, TIMEOUT)


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.matrix)])
def test_many_hubs(server: NATSServer, count: int) -> None:
    """
    Each client sees all others, and a broadcast reaches each once, also after the server was killed and started
    again.
    """
    with benchmark.members(count, server.url) as started:
        benchmark.broadcast(started, "first")
        server.kill()
        for member in started:
            member.tell("wait", count=benchmark.CLIENTS - 1)
        assert [member.hear() for member in started] == [[benchmark.CLIENTS - 1] * benchmark.CLIENTS] * count
        server.start()
        benchmark.wait_for_all(started)
        benchmark.broadcast(started, "second", 10)


# The URL and the server


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("nats://server/room", ("nats://server:4222", "room")),
        ("nats://me:secret@server:1234/a-b_C", ("nats://me:secret@server:1234", "a-b_C")),
        ("tls://[::1]/room/", ("tls://[::1]:4222", "room")),
    ],
)
def test_the_url_of_a_room(url: str, parts: tuple[str, str]) -> None:
    assert parse_room_url(url) == parts


@pytest.mark.parametrize(
    "url",
    ["nats://server", "nats://server/", "nats:///room", "nats://server/a.b", "nats://server/>", "nats://server/a/b",
     "nats://server:x/room", "http://server/room", "nats://server/room?x=1", f"nats://server/{'x' * 65}"],
)  # fmt: skip
def test_an_invalid_url_of_a_room_is_rejected(url: str) -> None:
    with pytest.raises(SAMPValueError):
        parse_room_url(url)


def samp(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``samp``."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pyvo.samp", *arguments],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_a_missing_server_is_an_error(hub: SAMPHubServer, home: Path) -> None:
    done = samp(home, "bridge", "nats://me:secret@127.0.0.1:1/room")
    assert done.returncode == 1
    assert "Cannot connect to the NATS server at 127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_password_is_an_error(tmp_path: Path, hub: SAMPHubServer, home: Path) -> None:
    server = NATSServer(tmp_path, "--user", "me", "--pass", "secret")
    try:
        done = samp(home, "bridge", server.url)
        assert done.returncode == 1
        assert "Cannot connect to the NATS server" in done.stderr
        assert "uthorization" in done.stderr
    finally:
        server.kill()


def test_a_missing_nats_py_is_an_error(hub: SAMPHubServer, home: Path, tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "__init__.py").write_text("raise ImportError('not installed')\n")
    done = samp(home, "bridge", "nats://server/room", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 1
    assert 'pip install "pyvo-samp[nats]"' in done.stderr


def test_the_command_prints_the_clients_of_the_room(room: Room, hub: SAMPHubServer, home: Path) -> None:
    """^C ends it, and no proxy is left."""
    other = room.add_hub()
    client = room.connect(other, "client")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    command = (sys.executable, "-W", "error", "-m", "pyvo.samp", "bridge", room.url, "--label", "desk")
    with Program(*command, env=environment) as program:
        program.wait_for("hub0: + client")
        room.connect(hub, "local")
        client.wait_for_names("local (via desk)")
        second = room.connect(other, "second")
        program.wait_for("hub0: + second")
        second.disconnect()
        program.wait_for("hub0: - second")
        program.signal(signal.SIGINT)
        assert program.finish() == 0, program.output
        assert "Traceback" not in program.output
        client.wait_for_names()
