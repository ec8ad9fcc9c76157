"""Clients that are disconnected after the test, and a way to wait for what they receive."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyvo.samp import SAMPError, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.client import hub_monitor
from pyvo.samp.client.hub_monitor import HubMonitor
from pyvo.samp.testing import MessageRecorder

Connect = Callable[..., SAMPIntegratedClient]


def record(client: SAMPIntegratedClient, result: dict[str, Any] | None = None) -> MessageRecorder:
    """Return a handler that records the messages that it receives, and replies to calls."""
    return MessageRecorder(client, {"*": result or {}})


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that creates and connects a client; the dictionary ``how`` has options of `connect`."""
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
def way(request: pytest.FixtureRequest, make_hub: Callable[..., SAMPHubServer]) -> dict[str, Any]:
    """Options of `connect` for a running hub: once with the Standard Profile and once with the Web Profile."""
    if request.param == "standard":
        return {"hub": make_hub()}
    consenting = make_hub(web_profile=True, web_profile_dialog=lambda *_: True, web_profile_mtypes=["*"])
    return {"hub": consenting, "web": True}


@pytest.fixture
def join(way: dict[str, Any], connect: Connect) -> Connect:
    """Like `connect`, but once with each profile."""
    return lambda *args, how=None, **options: connect(*args, how={**way, **(how or {})}, **options)


@pytest.fixture
def monitored(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[HubMonitor]:
    """Let the monitors of all clients ping immediately; return a queue of the monitors that got a response."""
    responded: queue.Queue[HubMonitor] = queue.Queue()
    on_response = HubMonitor._on_response

    def note(monitor: HubMonitor, error: SAMPError | None) -> None:
        on_response(monitor, error)
        responded.put(monitor)

    for name in ("FIRST_PING", "RETRY_DELAY"):
        monkeypatch.setattr(hub_monitor, name, 0.05)
    monkeypatch.setattr(HubMonitor, "_on_response", note)
    return responded


#: The same for a script: it defines an event that is set when a monitor got a response.
MONITORED = """
import threading
from pyvo.samp.client import hub_monitor
hub_monitor.FIRST_PING = hub_monitor.RETRY_DELAY = 0.05
responded, on_response = threading.Event(), hub_monitor.HubMonitor._on_response
hub_monitor.HubMonitor._on_response = lambda monitor, error: (on_response(monitor, error), responded.set())
"""


@pytest.fixture
def pair(hub: SAMPHubServer, connect: Connect) -> tuple[SAMPIntegratedClient, SAMPIntegratedClient]:
    """Two connected clients, called Alice and Bob."""
    return connect("Alice"), connect("Bob")


HUB = """
import sys
from pyvo.samp import SAMPHubServer
hub = SAMPHubServer(web_profile=False)
hub.start()
print("running", flush=True)
sys.stdin.readline()
hub.stop()
"""

Script = Callable[..., "subprocess.Popen[bytes]"]
HubProcess = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def script(python_environment: dict[str, str]) -> Iterator[Script]:
    """Return a function that runs Python code in a process; processes that still run after the test are killed."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(code: str, *options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *options, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=python_environment,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def first_line(process: subprocess.Popen[bytes]) -> str:
    """Return the first line that a process prints; if there is none, fail with its standard error."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read().decode()
    return line.decode().strip()


@pytest.fixture
def hub_process(script: Script) -> HubProcess:
    """Return a function that starts a hub in a process, to be killed; the process exits after a line of input."""

    def start() -> subprocess.Popen[bytes]:
        process = script(HUB)
        assert first_line(process) == "running"
        return process

    return start


def states() -> tuple[queue.Queue[str], Callable[[str], None]]:
    """Return a queue of the arguments of ``on_state``, and the callback."""
    seen: queue.Queue[str] = queue.Queue()
    return seen, seen.put


def other_ids(client: SAMPIntegratedClient) -> list[str]:
    return [client_id for client_id in client.get_registered_clients() if client_id != "hub"]
