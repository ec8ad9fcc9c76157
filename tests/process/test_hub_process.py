# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub as a process: signals, crashes, races, the end of the interpreter, and the command's options."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.lockfile import format_lockfile, get_main_running_hub, read_lockfile
from pyvo.samp.transport.xmlrpc_client import XMLRPCClient

from .programs import HUB_IS_RUNNING, Program, start_hub

Environment = dict[str, str]

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]

WAITING_SCRIPT = """
import logging
from pyvo.samp import SAMPHubServer
logging.basicConfig(level=logging.INFO)
SAMPHubServer(web_profile=False).start(wait=True)
"""

ENDING_SCRIPT = """
import logging, sys
from pyvo.samp import SAMPHubServer
logging.basicConfig(level=logging.INFO)
hub = SAMPHubServer(web_profile=False)
hub.start()
sys.stdin.readline()
{end}
"""


class ConnectedClients:
    """A client that is notified of the shutdown, and five clients that accept connections and never respond."""

    def __init__(self, stack: ExitStack) -> None:
        params = get_main_running_hub()
        proxy = XMLRPCClient(params["samp.hub.xmlrpc.url"])
        stack.callback(proxy.close)
        for _ in range(5):
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            key = proxy.call("samp.hub.register", params["samp.secret"])["samp.private-key"]
            proxy.call("samp.hub.setXmlrpcCallback", key, f"http://127.0.0.1:{silent.getsockname()[1]}/")
            proxy.call("samp.hub.declareSubscriptions", key, {"*": {}})
        self.received: SimpleQueue[str] = SimpleQueue()
        client = SAMPIntegratedClient(name="listener")
        client.connect()
        stack.callback(client.disconnect)
        client.bind_receive_notification("samp.hub.event.shutdown", lambda *args: self.received.put(args[3]))


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_to_the_command(python_environment: Environment, isolated: Path, number: signal.Signals) -> None:
    """R26, R35: the hub notifies its clients, removes its lockfile, and ends in less than two seconds."""
    with start_hub(python_environment) as hub, ExitStack() as stack:
        clients = ConnectedClients(stack)
        begin = time.monotonic()
        hub.process.send_signal(number)
        status = hub.wait()
        assert time.monotonic() - begin < 2
        assert status == 0
        assert clients.received.get(timeout=5) == "samp.hub.event.shutdown"
        assert not (isolated / ".samp").exists()
        assert "Traceback" not in hub.output


def test_a_second_interrupt_ends_the_command_at_once(python_environment: Environment, isolated: Path) -> None:
    """R35: the hub waits for unresponsive clients when the second ^C arrives. It removes its lockfile."""
    with start_hub(python_environment) as hub, ExitStack() as stack:
        clients = ConnectedClients(stack)
        hub.process.send_signal(signal.SIGINT)
        assert clients.received.get(timeout=5) == "samp.hub.event.shutdown"
        begin = time.monotonic()
        hub.process.send_signal(signal.SIGINT)
        assert hub.wait() == 0
        assert time.monotonic() - begin < 2
        assert not (isolated / ".samp").exists()
        assert "Traceback" not in hub.output


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + 15), (signal.SIGINT, -signal.SIGINT), (signal.SIGHUP, 128 + 1)]
)
def test_signal_to_a_waiting_script(
    python_environment: Environment, isolated: Path, number: signal.Signals, status: int
) -> None:
    """A script that waits in ``start(wait=True)`` ends as the command does; its exit status contains the signal."""
    with Program(["-c", WAITING_SCRIPT], python_environment) as hub, ExitStack() as stack:
        hub.wait_for(HUB_IS_RUNNING)
        clients = ConnectedClients(stack)
        begin = time.monotonic()
        hub.process.send_signal(number)
        assert hub.wait() == status
        assert time.monotonic() - begin < 2
        assert clients.received.get(timeout=5) == "samp.hub.event.shutdown"
        assert not (isolated / ".samp").exists()


def test_ignored_signals_stay_ignored(python_environment: Environment, isolated: Path) -> None:
    """A hub that was started with SIGHUP ignored, as by ``nohup``, keeps ignoring it."""
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + WAITING_SCRIPT
    with Program(["-c", script], python_environment) as hub:
        hub.wait_for(HUB_IS_RUNNING)
        hub.process.send_signal(signal.SIGHUP)
        with SAMPIntegratedClient(name="x") as client:
            assert client.ping() == ""
        hub.process.send_signal(signal.SIGTERM)
        assert hub.wait() == 128 + 15


@pytest.mark.parametrize(
    ("end", "status"), [("", 0), ("sys.exit(3)", 3), ("raise ValueError('broken')", 1), ("del hub", 0)]
)
def test_the_hub_ends_with_its_script(python_environment: Environment, isolated: Path, end: str, status: int) -> None:
    """No thread keeps the script running, and no lockfile is left."""
    with Program(["-c", ENDING_SCRIPT.format(end=end)], python_environment) as script, ExitStack() as stack:
        script.wait_for(HUB_IS_RUNNING)
        clients = ConnectedClients(stack)
        begin = time.monotonic()
        script.write_line("")
        assert script.wait() == status
        assert time.monotonic() - begin < 2
        assert clients.received.get(timeout=5) == "samp.hub.event.shutdown"
        assert not (isolated / ".samp").exists()


def test_killed_hub_is_replaced(python_environment: Environment, isolated: Path) -> None:
    """R35: a new hub replaces the lockfile of a killed one."""
    with start_hub(python_environment) as hub:
        before = read_lockfile(isolated / ".samp")
        hub.process.kill()
        hub.wait()
    assert read_lockfile(isolated / ".samp") == before
    with start_hub(python_environment):
        assert get_main_running_hub() != before


# Races between hubs

RACER = """
import sys
from pyvo.samp import SAMPHubServer, SAMPHubError
hub = SAMPHubServer(web_profile=False)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "stop":
        hub.stop()
        print("stopped", flush=True)
    else:
        try:
            hub.start()
        except SAMPHubError as error:
            print("rejected", error, flush=True)
        else:
            print("running", hub.params["hub.id"], flush=True)
"""

STALE = {"samp.secret": "x", "samp.hub.xmlrpc.url": "http://127.0.0.1:9/", "samp.profile.version": "1.3"}


@pytest.mark.slow
def test_one_of_three_hubs_that_start_at_the_same_time_runs(python_environment: Environment, isolated: Path) -> None:
    """R36: in each of 120 rounds exactly one hub runs, whether the lockfile is missing, stale, garbage or a link."""
    path = isolated / ".samp"
    with ExitStack() as stack:
        racers = [stack.enter_context(Program(["-c", RACER], python_environment)) for _ in range(3)]
        for racer in racers:
            racer.wait_for("ready")
        for number in range(120):
            path.unlink(missing_ok=True)
            if number % 4 == 1:
                path.write_bytes(format_lockfile(STALE))
            elif number % 4 == 2:
                path.write_bytes(b"garbage")
            elif number % 4 == 3:
                path.symlink_to(isolated / "nothing")
            replies = _send_to_all(racers, "start")
            running = [reply for reply in replies if reply.startswith("running")]
            assert len(running) == 1, replies
            assert read_lockfile(path)["hub.id"] == running[0].split()[1]
            _send_to_all(racers, "stop")
            # some versions of Astropy create this directory
            assert [left for left in isolated.iterdir() if left.name != ".astropy"] == []


def _send_to_all(racers: list[Program], command: str) -> list[str]:
    counts = [len(racer.lines) for racer in racers]
    for racer in racers:
        racer.write_line(command)
    for racer, count in zip(racers, counts, strict=True):
        with racer._changed:
            assert racer._changed.wait_for(lambda r=racer, n=count: len(r.lines) > n, 10)
    return [racer.lines[-1] for racer in racers]


# The command


def test_options_of_the_command(python_environment: Environment, isolated: Path, tmp_path: Path) -> None:
    """All options of ``samp_hub``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lockfile, log = tmp_path / "lock", tmp_path / "log"
    options = ["--no-web-profile", "--secret", "s3", "--addr", "127.0.0.1", "--port", str(port), "--label", "L"]
    options += ["--lockfile", str(lockfile), "--pool-size", "5", "--timeout", "100", "--client-timeout", "100"]
    with start_hub(python_environment, *options, "--log-level", "debug") as hub:
        params = read_lockfile(lockfile)
        assert params["samp.secret"] == "s3"
        assert params["samp.hub.xmlrpc.url"] == f"http://127.0.0.1:{port}/"
        assert params["hub.label"] == "L"
        hub.process.send_signal(signal.SIGINT)
        assert hub.wait() == 0
    short = ["-k", "s3", "-d", "localhost", "-p", "0", "-l", "L", "-P", "5", "-t", "0.2", "-c", "1", "-L", "INFO"]
    with Program(["-m", "pyvo.samp.hub", "-w", "-m", *short, "-O", str(log)], python_environment) as hub:
        assert hub.wait() == 0
        assert hub.output == ""
    assert "no client has used it for 0.2 s" in log.read_text()
    assert list((isolated / ".samp-1").iterdir()) == []


def test_the_command_fails_if_a_hub_is_running(python_environment: Environment, hub: SAMPHubServer) -> None:
    """R35: it reports this in one line."""
    with Program(["-m", "pyvo.samp.hub", "-w"], python_environment) as second:
        assert second.wait() == 1
        assert second.lines[-1].startswith("samp_hub: Another SAMP hub is already running (at http://127.0.0.1:")
        assert "Traceback" not in second.output
    assert hub.is_running


def test_the_command_fails_if_it_cannot_write_its_log(python_environment: Environment, tmp_path: Path) -> None:
    with Program(["-m", "pyvo.samp.hub", "-O", str(tmp_path / "no" / "log")], python_environment) as hub:
        assert hub.wait() == 1
        assert "No such file or directory" in hub.output
        assert "Traceback" not in hub.output


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--nonsense"], 2), (["-p", "many"], 2)])
def test_help_and_mistakes(python_environment: Environment, arguments: list[str], status: int) -> None:
    with Program(["-m", "pyvo.samp.hub", *arguments], python_environment) as hub:
        assert hub.wait() == status
        assert "usage: samp_hub" in hub.output


def test_hub_as_a_subcommand(python_environment: Environment, isolated: Path) -> None:
    with Program(["-m", "pyvo.samp", "hub", "-w"], python_environment) as hub:
        hub.wait_for(HUB_IS_RUNNING)
        assert (isolated / ".samp").exists()
        hub.process.send_signal(signal.SIGTERM)
        assert hub.wait() == 0
    assert not (isolated / ".samp").exists()


def test_programs_use_this_python_and_this_package(python_environment: Environment) -> None:
    """The tests in this module rely on it."""
    script = "import sys, pyvo.samp.hub as hub; print(sys.version_info[:2], hub.__file__)"
    with Program(["-c", script], python_environment) as program:
        assert program.wait() == 0
        assert str(sys.version_info[:2]) in program.output


IDLE_SCRIPT = """
import sys, time
from pyvo.samp import SAMPIntegratedClient
client = SAMPIntegratedClient(name="victim")
client.bind_receive_call("test.never", lambda *args: print("called", flush=True))
client.connect()
print("connected", flush=True)
sys.stdin.readline()
"""

#: Accepts each call on a new connection, as other programs do, so that no connection is open when it is killed.
CLOSING_SCRIPT = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pyvo.samp.lockfile import get_main_running_hub
from pyvo.samp.transport.xmlrpc_client import XMLRPCClient
from pyvo.samp.transport.xmlrpc_writer import write_response

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        call = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(write_response(""))
        if b"receiveCall" in call:
            print("called", flush=True)

    def log_message(self, *args):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
params = get_main_running_hub()
hub = XMLRPCClient(params["samp.hub.xmlrpc.url"])
key = hub.call("samp.hub.register", params["samp.secret"])["samp.private-key"]
hub.call("samp.hub.declareMetadata", key, {"samp.name": "victim"})
hub.call("samp.hub.setXmlrpcCallback", key, f"http://127.0.0.1:{server.server_port}/")
hub.call("samp.hub.declareSubscriptions", key, {"test.never": {}})
print("connected", flush=True)
server.serve_forever()
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [IDLE_SCRIPT, CLOSING_SCRIPT], ids=["a connection is open", "none is"])
@pytest.mark.parametrize("received", [True, False], ids=["received the call", "stopped before"])
def test_the_caller_of_a_killed_client_gets_an_error(
    python_environment: Environment, isolated: Path, script: str, received: bool
) -> None:
    """
    R23: the error comes within ten seconds and without a time-out, with the default constants. The other clients
    get an event.
    """
    with start_hub(python_environment), ExitStack() as stack:
        victim = stack.enter_context(Program(["-c", script], python_environment))
        victim.wait_for("connected")
        caller = stack.enter_context(SAMPIntegratedClient(name="caller"))
        left: SimpleQueue[str] = SimpleQueue()
        caller.bind_receive_notification("samp.hub.event.unregister", lambda *args: left.put(args[4]["id"]))
        (victim_id,) = [one for one in caller.get_registered_clients() if one != "hub"]
        responses: SimpleQueue[dict[str, Any]] = SimpleQueue()
        if not received:
            victim.process.send_signal(signal.SIGSTOP)
        thread = threading.Thread(
            target=lambda: responses.put(caller.ecall_and_wait(victim_id, "test.never", 0)), daemon=True
        )
        thread.start()
        if received:
            victim.wait_for("called")
        else:
            with pytest.raises(Empty):  # the call is not delivered yet
                responses.get(timeout=0.5)
        victim.process.kill()
        response = responses.get(timeout=10)
        thread.join(5)
        assert response["samp.status"] == "samp.error"
        assert response["samp.error"]["samp.code"] == "samp.noresponse"
        assert left.get(timeout=10) == victim_id
        assert victim_id not in caller.get_registered_clients()
