# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Check each row of ``docs/samp/comparison.rst`` that can be measured, for each hub that is installed."""
from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from xmlrpc.client import Fault, ServerProxy

import pytest

from pyvo.samp import lockfile

from .conftest import Run
from .network import WEB_PORT, own_network
from .programs import Program, Screen, environment, until, wait_for_hub

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(300)]

#: Seconds for which the test waits for the response to a call of a killed client.
RESPONSE_TIMEOUT = 30.0
ALADIN = ("aladin", "-local", "-noreleasetest", "-noplugin", "-nolog", "-theme=classic")
ALPHA = "\N{GREEK SMALL LETTER ALPHA} Cen"
#: The Python with upstream's pyvo that the benchmarks install.
UPSTREAM = Path.home() / ".cache" / "samp-benchmarks" / "pyvo-1.9.1" / "bin" / "python"
START_UPSTREAM = "from pyvo.samp import SAMPHubServer; SAMPHubServer(web_profile=True).start(wait=True)"


@dataclass
class Expected:
    """The properties of a hub on that page."""

    numbers: str  # the hub passes numbers on as "text" or as "numbers", or they are "rejected"
    non_ascii: str
    ends_call_to_dead_client: bool
    runs_without_screen: bool


EXPECTED = {
    "this package": Expected("text", "passed on", ends_call_to_dead_client=True, runs_without_screen=True),
    "jsamp": Expected("rejected", "rejected", ends_call_to_dead_client=False, runs_without_screen=True),
    "topcat": Expected("rejected", "rejected", ends_call_to_dead_client=False, runs_without_screen=False),
    "aladin": Expected("rejected", "rejected", ends_call_to_dead_client=False, runs_without_screen=False),
    "upstream": Expected("numbers", "passed on", ends_call_to_dead_client=False, runs_without_screen=True),
}

#: A client that never replies to a call.
SILENT = """
import sys
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCServer
server = SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
def receive(name, params):
    print("called", flush=True)
    return ""
server._dispatch = receive
hub = ServerProxy(sys.argv[1])
key = hub.samp.hub.register(sys.argv[2])
hub.samp.hub.setXmlrpcCallback(key["samp.private-key"], "http://127.0.0.1:%d/" % server.server_address[1])
hub.samp.hub.declareSubscriptions(key["samp.private-key"], {"x-test.call": {}})
print(key["samp.self-id"], flush=True)
server.serve_forever()
"""


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """A network in which port 21012 is free."""
    with own_network():
        yield


@pytest.fixture(params=EXPECTED)
def name(request: pytest.FixtureRequest) -> str:
    """The name of the hub that is tested."""
    return str(request.param)


@pytest.fixture
def hub_program(name: str, home: Path, run: Run, show: Run) -> Program:
    """The program that runs the hub."""
    return start(name, home, run, show)


@pytest.fixture
def params(hub_program: Program, home: Path) -> dict[str, str]:
    """The content of the lockfile."""
    return lockfile.read_lockfile(home / ".samp")


def start(name: str, home: Path, run: Run, show: Run) -> Program:
    """Start a hub and wait until it runs."""
    if name in {"this package", "upstream"}:
        if name == "upstream" and not UPSTREAM.exists():
            pytest.skip("upstream's pyvo is not installed (python -m benchmarks does it)")
        here = {"PYTHONPATH": str(Path(__file__).parents[2])}
        program = (
            run(sys.executable, "-m", "pyvo.samp", "hub", "--web-consent", "deny", **here)
            if name == "this package"
            else run(str(UPSTREAM), "-c", START_UPSTREAM)
        )
        until((home / ".samp").exists, bool, 60)
        until(lambda: responds(home), bool, 60)
        return program
    commands = {
        "jsamp": ("jsamp", "hub", "-mode", "no-gui", "-web:auth", "false"),
        "topcat": ("topcat", "-hub"),
        "aladin": ALADIN,
    }
    program = (run if name == "jsamp" else show)(*commands[name])
    wait_for_hub(home, 120)
    return program


def responds(home: Path) -> bool:
    """Return whether the hub of the lockfile responds."""
    try:
        lockfile.get_main_running_hub()
    except Exception:
        return False
    return True


class Client:
    """A registered client that calls the hub without a library."""

    def __init__(self, params: dict[str, str]) -> None:
        self.hub: Any = ServerProxy(params["samp.hub.xmlrpc.url"])
        registration = self.hub.samp.hub.register(params["samp.secret"])
        self.key, self.id = registration["samp.private-key"], registration["samp.self-id"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.hub("close")()


@pytest.fixture
def received(params: dict[str, str]) -> Iterator[tuple[str, Callable[[], list[Any]]]]:
    """A client that records parameters: its id, and a function that returns the recorded parameters."""
    from xmlrpc.server import SimpleXMLRPCServer

    got: list[Any] = []

    def receive(_method: str, arguments: tuple[Any, ...]) -> str:
        got.append(arguments[-1]["samp.params"])
        return ""

    with SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False) as server:
        server._dispatch = receive  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Client(params) as client:
            client.hub.samp.hub.setXmlrpcCallback(client.key, f"http://127.0.0.1:{server.server_address[1]}/")
            client.hub.samp.hub.declareSubscriptions(client.key, {"x-test.value": {}})
            yield client.id, lambda: got
        server.shutdown()
        thread.join(10)


def outcome(params: dict[str, str], received: tuple[str, Callable[[], list[Any]]], value: object) -> object:
    """Send a value; return the value that arrives, or ``"rejected"``."""
    client_id, got = received
    message = {"samp.mtype": "x-test.value", "samp.params": {"value": value}}
    try:
        with Client(params) as client:
            client.hub.samp.hub.notify(client.key, client_id, message)
    except Fault:
        return "rejected"
    return until(got, bool, 20)[0]["value"]


def test_numbers(name: str, params: dict[str, str], received: tuple[str, Callable[[], list[Any]]]) -> None:
    arrived = outcome(params, received, 7)
    assert {"text": "7", "numbers": 7}.get(EXPECTED[name].numbers, "rejected") == arrived


def test_text_beyond_ascii(name: str, params: dict[str, str], received: tuple[str, Callable[[], list[Any]]]) -> None:
    arrived = outcome(params, received, ALPHA)
    assert arrived == (ALPHA if EXPECTED[name].non_ascii == "passed on" else "rejected")


def test_both_profiles(name: str, params: dict[str, str]) -> None:
    with ServerProxy(params["samp.hub.xmlrpc.url"]) as standard, ServerProxy(f"http://127.0.0.1:{WEB_PORT}/") as web:
        standard.samp.hub.ping()
        web.samp.webhub.ping()


def test_call_to_a_client_that_is_killed(name: str, params: dict[str, str], hub_program: Program) -> None:
    command = [sys.executable, "-c", SILENT, params["samp.hub.xmlrpc.url"], params["samp.secret"]]
    responses: list[Any] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as silent:
        assert silent.stdout is not None
        silent_id = silent.stdout.readline().strip()

        def call() -> None:
            message = {"samp.mtype": "x-test.call", "samp.params": {}}
            with suppress(Exception), Client(params) as client:  # the hub may be stopped at the end of the test
                responses.append(client.hub.samp.hub.callAndWait(client.key, silent_id, message, "0"))

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        assert silent.stdout.readline() == "called\n"
        silent.kill()
        thread.join(RESPONSE_TIMEOUT)
    if EXPECTED[name].ends_call_to_dead_client:
        [response] = responses
        assert response["samp.status"] == "samp.error"
        return
    assert not responses
    hub_program.stop()
    thread.join(30)


def test_without_a_screen(name: str, home: Path, run: Run) -> None:
    """TOPCAT and Aladin end with an error; the other hubs run."""
    if EXPECTED[name].runs_without_screen:
        start(name, home, run, run)
        return
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (tests/interop/install does it)")
    command = ("topcat", "-hub") if name == "topcat" else (*ALADIN, "-nogui")
    with Program(*command, env=environment(home)) as program:
        program.wait_for("HeadlessException", 60)
    assert not (home / ".samp").exists()


@pytest.mark.parametrize("command", ["bridge", "hubmonitor", "snooper", "hubtester", "calcstorm"])
def test_commands_of_jsamp(run: Run, command: str) -> None:
    program = run("jsamp", "-help")
    program.finish(30)
    assert f" {command} " in program.output


def test_window_of_jsamp(show: Run, home: Path, screen: Screen) -> None:
    """``-mode msg-gui`` opens a window."""
    show("jsamp", "hub", "-mode", "msg-gui", "-profiles", "std")
    wait_for_hub(home, 120)
    search = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "SAMP Hub"]
    found = subprocess.run(search, env=screen.env, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert found.stdout.strip()
