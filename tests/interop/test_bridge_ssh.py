# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp bridge`` through ssh and sshd: the usual session, and errors."""
from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, SAMPProxyError

from .other_machine import ROOT, OtherMachine
from .programs import Program, until

pytestmark = pytest.mark.timeout(240)

Start = Callable[..., Program]
Connect = Callable[..., SAMPIntegratedClient]

#: A client on the other machine. It prints each message that it receives, and replies to calls, except to "never".
CLIENT = """
import sys, time, threading
from pyvo.samp import SAMPIntegratedClient
client = SAMPIntegratedClient("Remote Python")
def on_message(key, sender, msg_id, mtype, params, extra):
    print("received", mtype, params.get("name"), flush=True)
    if msg_id is not None and params.get("name") != "never":
        client.reply(msg_id, {"samp.status": "samp.ok", "samp.result": {"value": params.get("name", "")}})
client.bind_receive_message("table.*", on_message)
client.connect()
print("connected", client.get_public_id(), flush=True)
"""
FILE = CLIENT + """
from pathlib import Path
path = Path.home() / "big file.fits"
with path.open("wb") as file:
    file.truncate(int(sys.argv[1]))
recipient = client.wait_for("desk", 60, "table.load.fits")
client.enotify(recipient.id, "table.load.fits", url=path.as_uri(), name="big")
print("sent", flush=True)
"""
WAIT = "threading.Event().wait()\n"


@pytest.fixture
def machine(tmp_path: Path, home: Path) -> Iterator[OtherMachine]:
    with OtherMachine(tmp_path / "machine", hidden=home) as one:
        yield one


@pytest.fixture
def bridge(machine: OtherMachine, run: Start) -> Start:
    """Return a function that starts ``samp bridge`` to the other machine."""

    def start(*options: str, command: str | None = None) -> Program:
        way = ["--remote-command", machine.command if command is None else command]
        words = [sys.executable, "-W", "error", "-m", "pyvo.samp", "bridge", machine.HOST, *machine.options, *way]
        return run(*words, *options, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")

    return start


def names(client: SAMPIntegratedClient) -> list[str]:
    found = []
    for each in client.get_registered_clients():
        with suppress(SAMPProxyError):  # it has unregistered in the meantime
            found.append(client.get_metadata(each).get("samp.name", ""))
    return sorted(found)


def remote_names(client: SAMPIntegratedClient) -> list[str]:
    return [name for name in names(client) if " (via " in name or "bridge" in name]


class Desk:
    """A client on this machine that receives tables."""

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self.client = client
        self.received: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        client.bind_receive_message("table.load.fits", self._on_table)

    def _on_table(self, _key: str, _sender: str, msg_id: str | None, _mtype: str, params: Any, _extra: Any) -> None:
        self.received.append(params)
        self.arrived.set()


def test_a_session(hub: SAMPHubServer, machine: OtherMachine, bridge: Start, connect: Connect) -> None:
    """
    A .bashrc prints text, a client registers and unregisters, a call and a file pass, and ^C ends the bridge. No
    proxy is left.
    """
    (machine.home / ".bashrc").write_text('echo "Welcome to the observatory"; echo "quota exceeded" >&2\n')
    machine.start_hub()
    desk = Desk(connect("desk"))
    program = bridge()
    program.wait_for("Connected to root@observatory", 60)
    program.wait_for("quota exceeded")
    there = machine.run(sys.executable, "-c", FILE + WAIT, "1000000")
    program.wait_for("root@observatory: + Remote Python")
    assert desk.arrived.wait(60), program.output
    url = desk.received[0]["url"]
    assert re.match(r"http://127\.0\.0\.1:\d+/", url)
    with urllib.request.urlopen(url, timeout=60) as response:
        assert len(response.read()) == 1_000_000

    recipient = desk.client.wait_for("Remote Python", 30, "table.x").id
    response = desk.client.ecall_and_wait(recipient, "table.x", "60", name="a name")
    assert response == {"samp.status": "samp.ok", "samp.result": {"value": "a name"}}
    there.stop()
    program.wait_for("root@observatory: - Remote Python")

    ssh = [process for process in psutil.Process(program.pid).children(recursive=True) if process.name() == "ssh"]
    assert len(ssh) == 1
    program.signal(signal.SIGINT)
    assert program.finish() == 0, program.output
    assert "Traceback" not in program.output
    assert not ssh[0].is_running()
    assert remote_names(desk.client) == []
    left = machine.run(sys.executable, "-m", "pyvo.samp", "list", "--json")
    assert left.finish() in {0, 4}
    assert "via" not in left.output
    assert "desk" not in left.output


def test_a_missing_samp_at_the_other_machine_is_an_error(
    hub: SAMPHubServer, machine: OtherMachine, bridge: Start
) -> None:
    program = bridge(command="samp")
    assert program.finish() == 1
    assert "root@observatory has no command `samp`" in program.output
    assert "pip install pyvo-samp" in program.output


def test_a_missing_hub_at_the_other_machine_is_an_error(
    hub: SAMPHubServer, machine: OtherMachine, bridge: Start
) -> None:
    program = bridge()
    assert program.finish() == 3
    assert "On root@observatory: No SAMP hub is running" in program.output
    assert "Start one with `" in program.output


def test_a_missing_hub_at_this_machine_is_an_error(machine: OtherMachine, bridge: Start) -> None:
    program = bridge()
    assert program.finish() == 3
    assert "No SAMP hub is running" in program.output
    assert "samp hub" in program.output
    assert "--start-hub" in program.output


def test_start_hub(machine: OtherMachine, bridge: Start, connect: Connect) -> None:
    """``--start-hub`` starts a hub at both ends. The hubs end with the bridge."""
    program = bridge("--start-hub")
    program.wait_for("Connected to", 60)
    desk = connect("desk")
    machine.run(sys.executable, "-c", CLIENT + WAIT)
    assert desk.wait_for("Remote Python", 60)
    desk.disconnect()
    program.signal(signal.SIGINT)
    assert program.finish() == 0
    left = machine.run(sys.executable, "-m", "pyvo.samp", "list")
    assert left.finish() == 3, left.output


def test_a_rejected_key_is_an_error(hub: SAMPHubServer, machine: OtherMachine, bridge: Start) -> None:
    (machine.directory / "authorized").unlink()
    program = bridge()
    assert program.finish() == 1
    assert "Permission denied" in program.output
    assert "denies the login" in program.output
    assert "ssh-copy-id" in program.output


def test_an_unknown_host_key_is_an_error(hub: SAMPHubServer, machine: OtherMachine, bridge: Start) -> None:
    (machine.directory / "known").unlink()
    program = bridge()
    assert program.finish() == 1
    assert "Host key verification failed" in program.output
    assert "cannot connect to root@observatory" in program.output


def test_another_version_at_the_other_machine_is_an_error(
    hub: SAMPHubServer, machine: OtherMachine, bridge: Start
) -> None:
    """The exit status is 3, and the text contains both versions and the command that helps."""
    machine.start_hub()
    (machine.home / "later.py").write_text(
        "import sys\nfrom pyvo.samp.bridge import bridge\nbridge.PROTOCOLS = (2, 3)\n"
        "from pyvo.samp.cli import main\nsys.exit(main())\n"
    )
    program = bridge(command=f"env PYTHONPATH={ROOT} {sys.executable} later.py")
    assert program.finish() == 3
    assert "1 (pyvo-samp" in program.output
    assert "2 to 3 (pyvo-samp" in program.output
    assert "pip install --upgrade pyvo-samp" in program.output


def test_ssh_asks_for_the_password_at_the_terminal(hub: SAMPHubServer, machine: OtherMachine, home: Path) -> None:
    """ssh does not use the standard streams for the password, and ^C at its prompt ends the command."""
    with (machine.directory / "sshd_config").open("a") as file:
        file.write("PubkeyAuthentication no\nKbdInteractiveAuthentication no\nPasswordAuthentication yes\n")
    options = [word.replace("BatchMode=yes", "BatchMode=no") for word in machine.options]
    words = [sys.executable, "-m", "pyvo.samp", "bridge", machine.HOST, *options]
    script = machine.directory / "terminal.py"
    script.write_text(
        "import os, pty, sys\n"
        "output = b''\n"
        "pid, master = pty.fork()\n"
        "if pid == 0:\n    os.execvp(sys.argv[1], sys.argv[1:])\n"
        "while b'password:' not in output:\n    output += os.read(master, 1000)\n"
        "print(output.decode(), flush=True)\n"
        "os.write(master, b'\\x03')\n"
        "print('status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, timeout=120, check=False,
        env={**machine.environment, "HOME": str(home)},
    )  # fmt: skip
    assert "root@observatory's password:" in done.stdout, done.stdout + done.stderr
    assert "status 0" in done.stdout


def ssh_of(program: Program) -> psutil.Process:
    """Return the ssh process of a running command."""
    found = until(
        lambda: [each for each in psutil.Process(program.pid).children() if each.name() == "ssh"], bool
    )
    return found[0]


def read_to_end(download: Any) -> int:
    """Read a response to its end, which may be early; return the number of bytes."""
    size = 0
    with suppress(OSError, IncompleteRead):
        while chunk := download.read(1_000_000):
            size += len(chunk)
    return size


def test_ssh_is_killed_during_a_call_and_a_download(
    hub: SAMPHubServer, machine: OtherMachine, bridge: Start, connect: Connect
) -> None:
    """Both end with an error within two seconds, no old proxy is left, and the bridge connects again."""
    machine.start_hub()
    desk = Desk(connect("desk"))
    program = bridge()
    program.wait_for("Connected to", 60)
    remote = machine.run(sys.executable, "-c", FILE + WAIT, "3000000000")
    assert desk.arrived.wait(60)
    recipient = desk.client.wait_for("Remote Python", 30, "table.x").id
    responses: list[Any] = []
    responded = threading.Event()

    def on_response(_key: str, _sender: str, _tag: str, response: Any) -> None:
        responses.append(response)
        responded.set()

    desk.client.bind_receive_response("tag", on_response)
    with urllib.request.urlopen(desk.received[0]["url"], timeout=60) as download:
        assert int(download.headers["Content-Length"]) == 3_000_000_000
        assert len(download.read(10_000_000)) == 10_000_000
        desk.client.ecall(recipient, "tag", "table.x", name="never")
        remote.wait_for("received table.x never")
        ssh_of(program).kill()
        started = time.monotonic()
        size = 10_000_000 + read_to_end(download)
        assert size < 3_000_000_000
        assert responded.wait(10)
        assert time.monotonic() - started < 2
    assert responses[0]["samp.status"] == "samp.error"
    assert "the bridge to root@observatory was lost" in responses[0]["samp.error"]["samp.errortxt"]
    program.wait_for("no connection to root@observatory")
    again = until(lambda: desk.client.client and remote_names(desk.client), lambda got: len(got) == 2, 60)
    assert any(name.startswith("Remote Python") for name in again)
    new = desk.client.wait_for("Remote Python", 30, "table.x").id
    assert new != recipient
    assert desk.client.ecall_and_wait(new, "table.x", "60", name="x")["samp.status"] == "samp.ok"


def test_the_hub_at_the_other_machine_restarts(
    hub: SAMPHubServer, machine: OtherMachine, bridge: Start, connect: Connect
) -> None:
    """The command waits for the next hub."""
    there = machine.start_hub()
    desk = connect("desk")
    program = bridge()
    program.wait_for("Connected to", 60)
    there.stop()
    program.wait_for("no connection to", 60)
    assert remote_names(desk) == ["SAMP bridge to root@observatory"]
    machine.start_hub()
    machine.run(sys.executable, "-c", CLIENT + WAIT)
    assert desk.wait_for("Remote Python", 60)


@pytest.mark.matrix
@pytest.mark.timeout(1200)
def test_fifty_lost_links_of_ssh_leak_nothing(
    hub: SAMPHubServer, machine: OtherMachine, bridge: Start, connect: Connect
) -> None:
    """The threads and descriptors of the command, and the clients of both hubs, do not increase."""
    machine.start_hub()
    desk = connect("desk")
    program = bridge()
    process = psutil.Process(program.pid)
    machine.run(sys.executable, "-c", CLIENT + WAIT)
    counts = []
    for _ in range(51):
        until(lambda: remote_names(desk), lambda got: len(got) == 2, 120)
        counts.append((process.num_threads(), process.num_fds()))
        ssh_of(program).kill()
        until(lambda: remote_names(desk), lambda got: len(got) < 2)
    for kind in zip(*counts, strict=True):  # threads, then descriptors
        assert min(kind[-10:]) <= max(kind[:10]), kind


#: Sends a table to TOPCAT on the desk, waits for a selection in TOPCAT, and prints the mask.
LINKED = """
import threading
from astropy.table import Table
from pyvo.samp import SAMPIntegratedClient
client = SAMPIntegratedClient("Remote Python")
client.connect()
client.wait_for("topcat", 120, "table.load.votable")
link = client.link(Table({"ra": [1.0, 2.0, 3.0], "dec": [4.0, 5.0, 6.0]}), to="topcat", name="stars")
selected = threading.Event()
link.on_select(lambda *args: selected.set())
print("sent", link.id, flush=True)
selected.wait(120)
print("mask", link.selection.tolist(), flush=True)
"""


def test_table_to_topcat_and_selection_back(
    hub: SAMPHubServer, machine: OtherMachine, bridge: Start, connect: Connect, show: Start
) -> None:
    """TOPCAT on the desk shows the table, and a selection in TOPCAT becomes a mask on the server."""
    machine.start_hub()
    desk = connect("desk")
    show("topcat")
    program = bridge()
    program.wait_for("Connected to", 60)
    there = machine.run(sys.executable, "-c", LINKED)
    table_id = there.wait_for_match(r"sent (\S+)\s", 180)[1]  # TOPCAT has loaded the table
    python = desk.wait_for("Remote Python", 60, "table.select.rowList").id
    rows = {"table-id": table_id, "row-list": [0, 2]}
    assert desk.ecall_and_wait(python, "table.select.rowList", "60", **rows)["samp.status"] == "samp.ok"
    there.wait_for("mask [True, False, True]", 60)
