"""The command ``samp bridge --between``, its use of memory, and the files that a bridge opens."""

from __future__ import annotations

import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyvo.samp import SAMPHubServer
from pyvo.samp.bridge.link import Kind
from tests.process.programs import Program, start_hub

from .conftest import TIMEOUT, RecordingClient
from .raw_peer import HELLO, RawPeer
from .test_hostile import client_frame

Connect = Callable[..., RecordingClient]
MB = 1_000_000


@pytest.fixture
def hubs(make_hubs: Callable[[int], list[SAMPHubServer]]) -> list[SAMPHubServer]:
    return make_hubs(2)


def between(tmp_path: Path, environment: dict[str, str], *options: str) -> Program:
    lockfiles = [f"std-lockurl:{(tmp_path / 'hub0').as_uri()}", str(tmp_path / "hub1")]
    return Program(["-m", "pyvo.samp", "bridge", "--between", *lockfiles, *options], environment)


def test_it_prints_the_clients_of_both_sides(
    hubs: list[SAMPHubServer], tmp_path: Path, python_environment: dict[str, str], connect: Connect
) -> None:
    """^C ends the command, and no client of it stays at the hubs."""
    client = connect(hubs[0], "TOPCAT")
    with between(tmp_path, python_environment) as program:
        program.wait_for(": + TOPCAT")
        second = connect(hubs[1], "Python")
        program.wait_for(": + Python")
        second.disconnect()
        program.wait_for(": - Python")
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == 0
    assert "Traceback" not in program.output
    client.wait_for(lambda: client.names() == {})


def test_it_starts_the_hubs(isolated: Path, tmp_path: Path, python_environment: dict[str, str]) -> None:
    """``--start-hub`` starts both hubs, with the given lockfiles and not with the default one."""
    with between(tmp_path, python_environment, "--start-hub") as program:
        program.wait_for("Connected to ")
        assert (tmp_path / "hub0").exists()
        assert (tmp_path / "hub1").exists()
        assert not (isolated / ".samp").exists()
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == 0
    assert not list(tmp_path.glob("hub?"))


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_the_hubs_remove_the_clients_of_a_killed_bridge(
    hubs: list[SAMPHubServer], tmp_path: Path, python_environment: dict[str, str], connect: Connect,
    sign: signal.Signals,
) -> None:  # fmt: skip
    """SIGTERM lets the command unregister its clients, SIGKILL does not."""
    client, other = connect(hubs[0], "client"), connect(hubs[1], "other")
    with between(tmp_path, python_environment) as program:
        there, back = client.find("other (via"), other.find("client (via")
        program.process.send_signal(sign)
        program.wait()
    if sign is signal.SIGKILL:  # a message to a dead client makes the hub probe it
        for each, recipient in ((client, there), (other, back)):
            response = each.call_and_wait(recipient, {"samp.mtype": "table.x", "samp.params": {}}, "30")
            assert response["samp.status"] == "samp.error"
    client.wait_for(lambda: client.names() == {})
    other.wait_for(lambda: other.names() == {})


def test_a_missing_hub_is_an_error(
    tmp_path: Path, python_environment: dict[str, str], make_hub: Callable[..., SAMPHubServer]
) -> None:
    """The error names the hub that is missing, and the command that starts a hub."""
    make_hub(lockfile=str(tmp_path / "hub0"))
    with between(tmp_path, python_environment) as program:
        assert program.wait() == 3
    assert "hub1" in program.output
    assert "samp hub" in program.output


def test_an_invalid_mtype_is_a_usage_error(python_environment: dict[str, str]) -> None:
    command = ["-m", "pyvo.samp", "bridge", "--between", "a", "b", "--allow-in", "a.*.b"]
    with Program(command, python_environment) as program:
        assert program.wait() == 2


def make_sparse_fits(path: Path, size: int) -> None:
    """Write a FITS image of zeros that takes no space."""
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    1"]
    cards += [f"NAXIS1  = {size:20d}", "END"]
    with path.open("wb") as file:
        file.write("".join(f"{card:80}" for card in cards).ljust(2880).encode())
        file.truncate(2880 + -(-size // 2880) * 2880)


class Pings(threading.Thread):
    """A thread that pings a client until it is stopped. ``times`` contains the seconds that each ping takes."""

    def __init__(self, client: RecordingClient, recipient: str) -> None:
        super().__init__()
        self._client, self._recipient = client, recipient
        self._stopped = threading.Event()
        self.times: list[float] = []

    def run(self) -> None:
        while not self._stopped.wait(0.05):
            start = time.monotonic()
            self._client.call_and_wait(self._recipient, {"samp.mtype": "coord.x", "samp.params": {}}, "30")
            self.times.append(time.monotonic() - start)

    def stop(self) -> None:
        self._stopped.set()
        self.join(TIMEOUT)


#: Reads all data of a URL. With a second argument it reads that many bytes, and then waits until it is killed.
READER = """
import sys, urllib.request
response = urllib.request.urlopen(sys.argv[1], timeout=60)
if len(sys.argv) > 2:
    print("read", len(response.read(int(sys.argv[2]))), flush=True)
    sys.stdin.read()
count = 0
while chunk := response.read(2**20):
    count += len(chunk)
print("all", count, response.headers["Content-Length"], flush=True)
"""


class Memory(threading.Thread):
    """A thread that measures the memory of processes until it is stopped. ``peaks`` contains the largest values."""

    def __init__(self, *programs: Program) -> None:
        super().__init__()
        self._processes = [psutil.Process(program.process.pid) for program in programs]
        self._stopped = threading.Event()
        self.peaks = [0] * len(programs)

    def run(self) -> None:
        while not self._stopped.wait(0.1):
            self.peaks = [max(old, new) for old, new in zip(self.peaks, self.sizes(), strict=True)]

    def sizes(self) -> list[int]:
        return [process.memory_info().rss for process in self._processes]

    def stop(self) -> None:
        self._stopped.set()
        self.join(TIMEOUT)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_file_of_3_gb(tmp_path: Path, python_environment: dict[str, str], connect: Connect) -> None:
    """
    Each process stays under 150 MB, and pings pass during the transfer. A reader that stops reading costs no
    memory.
    """
    path = tmp_path / "large.fits"
    make_sparse_fits(path, 3_000 * MB)
    size = path.stat().st_size
    with ExitStack() as stack:
        lockfiles = [str(tmp_path / "hub0"), str(tmp_path / "hub1")]
        hubs = [stack.enter_context(start_hub(python_environment, "-f", lockfile)) for lockfile in lockfiles]
        bridge = stack.enter_context(between(tmp_path, python_environment))
        client, other = connect(tmp_path / "hub0", "client"), connect(tmp_path / "hub1", "other")
        there = client.find("other (via")
        client.notify(there, {"samp.mtype": "table.load.fits", "samp.params": {"url": path.as_uri()}})
        url = other.wait_received(1, "notification")[0].content["url"]

        memory, pings = Memory(bridge, *hubs), Pings(client, there)
        memory.start()
        pings.start()
        start = time.monotonic()
        with Program(["-c", READER, url], python_environment) as reader:
            assert reader.wait(300) == 0
            assert reader.output == f"all {size} {size}"
        seconds = time.monotonic() - start
        pings.stop()

        before = memory.sizes()[0]
        half = size // 2
        with Program(["-c", READER, url, str(half // 50)], python_environment) as reader:
            reader.wait_for("read")
            stopped = Pings(client, there)
            stopped.start()
            stopped.join(3.0)
            stopped.stop()
            after = memory.sizes()[0]
        memory.stop()
        for program in (bridge, *hubs):
            program.process.send_signal(signal.SIGINT)
            program.wait()
    print(
        {
            "MB/s": round(size / seconds / MB),
            "MB of the bridge and the hubs": [round(peak / MB) for peak in memory.peaks],
            "more MB with a reader that has stopped": round((after - before) / MB, 1),
            "ping ms, median and longest": [round(f(pings.times) * 1e3, 1) for f in (statistics.median, max)],
            "the same, reader stopped": [round(f(stopped.times) * 1e3, 1) for f in (statistics.median, max)],
        }
    )
    assert max(memory.peaks) < 150 * MB
    assert after - before < 5 * MB
    assert statistics.median(pings.times) < 0.2


def opened_files(log: Path, start: int) -> set[str]:
    """Return the files that a process has opened, from a position in the log of strace."""
    found = set()
    for line in log.read_text(errors="replace")[start:].splitlines():
        if "open" in line and "ENOENT" not in line and '"' in line:
            found.add(line.split('"')[1])
    return found


def test_strace(hub: SAMPHubServer, tmp_path: Path, python_environment: dict[str, str], connect: Connect) -> None:
    """The bridge opens no file that was not offered, whatever the peer requests."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (tests/interop/install does it)")
    offered, other = tmp_path / "offered.txt", tmp_path / "other.txt"
    offered.write_text("offered")
    other.write_text("secret")
    lockfile, log = Path(python_environment["HOME"]) / ".samp", tmp_path / "strace.log"
    ours, theirs = socket.socketpair()
    client = connect(hub, "client")
    command = [
        "strace", "-f", "-qq", "-e", "trace=open,openat,openat2,creat", "-o", str(log),
        sys.executable, "-m", "tests.bridge.bridge_process", str(lockfile), str(theirs.fileno()),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, pass_fds=[theirs.fileno()], env=python_environment, stdout=subprocess.PIPE, text=True
    )
    theirs.close()
    raw = RawPeer(ours)
    try:
        raw.start()
        raw.wait_for(Kind.CLIENT, lambda value: value["id"] == client.get_public_id())
        raw.send(Kind.CLIENT, client_frame("r1"))
        remote = client.find("r1 (via raw)")

        def offer(path: Path) -> str:
            client.notify(remote, {"samp.mtype": "table.load.votable", "samp.params": {"url": path.as_uri()}})
            ((_, offer),) = raw.wait_for(Kind.BODY)["offers"].items()
            return offer["offer"]

        def request(target: Any) -> int:
            stream = 2 * len(raw.frames) + 1000
            raw.send(Kind.OPEN, {"offer": target, "method": "GET", "headers": {}}, stream)
            status = raw.wait_for(Kind.HEAD)["status"]
            next(frame for frame in raw if frame.kind in (Kind.END, Kind.RESET))
            return status

        token = offer(offered)
        assert request(token) == 200  # loads the modules that a response needs
        start = len(log.read_text(errors="replace"))
        assert str(other) not in opened_files(log, 0)
        traversal = f"{token}/../other.txt"
        for target in (str(other), other.as_uri(), traversal, f"../{other.name}", "x" * 22, "/etc/passwd"):
            assert request(target) == 404
        body = {"message": {"samp.mtype": "table.load.votable", "samp.params": {"url": other.as_uri()}}, "offers": {}}
        raw.send(Kind.BODY, body)
        raw.send(Kind.META, {"id": "r1", "metadata": {"samp.name": "r1", "samp.icon.url": other.as_uri()}})
        raw.send(Kind.OPEN, {"offer": HELLO["hub"], "method": "HEAD", "headers": {}}, 100_000)
        assert raw.wait_for(Kind.HEAD)["status"] == 404
        response = client.call_and_wait(
            remote, {"samp.mtype": "table.load.votable", "samp.params": {"url": other.as_uri()}}, "30"
        )
        assert response["samp.status"] == "samp.error"
        assert request(token) == 200
        raw.send(Kind.BYE, {"reason": "the end", "status": 0})
        assert process.wait(TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        ours.close()
    assert opened_files(log, start) == {str(offered)}
