"""The command ``samp bridge --stdio``, which ssh starts at the other end. The test is its peer."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from pyvo.samp import SAMPHubServer
from pyvo.samp.bridge.link import Kind

from .conftest import TIMEOUT, RecordingClient
from .raw_peer import RawPeer
from .test_hostile import client_frame

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a socket cannot be a standard stream on Windows")

Connect = Callable[..., RecordingClient]


class Stdio:
    """The command, with a peer at its standard streams, which are one socket."""

    def __init__(self, environment: dict[str, str], *options: str) -> None:
        ours, theirs = socket.socketpair()
        self.peer = RawPeer(ours)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "pyvo.samp", "bridge", "--stdio", *options],
            env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()

    def wait(self) -> tuple[int, str]:
        """Return the exit status and the standard error."""
        _, errors = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, errors

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.peer.sock.close()


@pytest.fixture
def start(python_environment: dict[str, str]) -> Iterator[Callable[..., Stdio]]:
    started = []

    def run(*options: str) -> Stdio:
        started.append(Stdio(python_environment, *options))
        return started[-1]

    yield run
    for each in started:
        each.close()


@pytest.mark.parametrize("how", ["end of input", signal.SIGHUP, signal.SIGTERM])
def test_the_command_unregisters_when_it_ends(
    hub: SAMPHubServer, connect: Connect, start: Callable[..., Stdio], how: str | signal.Signals
) -> None:
    """The input ends when ssh was killed. SIGHUP and SIGTERM end the command, too."""
    client = connect(hub, "client")
    stdio = start()
    stdio.peer.start()
    stdio.peer.wait_for(Kind.CLIENT)
    stdio.peer.send(Kind.CLIENT, client_frame("c1"))
    client.find("c1 (via raw)")
    if isinstance(how, signal.Signals):
        stdio.process.send_signal(how)
        assert stdio.peer.wait_for_end()
    else:
        stdio.peer.sock.shutdown(socket.SHUT_WR)
    status, errors = stdio.wait()
    assert (status, errors) == (128 + how if isinstance(how, signal.Signals) else 0, "")
    client.wait_for(lambda: client.names() == {})


def test_a_missing_hub_is_reported_to_the_other_end(start: Callable[..., Stdio]) -> None:
    """The other end may try again (status 75)."""
    stdio = start()
    stdio.peer.start()
    bye = stdio.peer.wait_for(Kind.BYE)
    assert "No SAMP hub is running" in bye["reason"]
    assert bye["status"] == 75
    stdio.peer.sock.shutdown(socket.SHUT_WR)
    assert stdio.wait() == (3, "")


def test_the_end_of_the_hub_is_reported_to_the_other_end(
    make_hub: Callable[..., SAMPHubServer], start: Callable[..., Stdio]
) -> None:
    """The other end connects again."""
    hub = make_hub()
    stdio = start()
    stdio.peer.start()
    stdio.peer.wait_for(Kind.HELLO)
    hub.stop()
    bye = stdio.peer.wait_for(Kind.BYE)
    assert bye["status"] == 0
    assert stdio.wait() == (0, "")


def test_another_hub(make_hub: Callable[..., SAMPHubServer], start: Callable[..., Stdio], tmp_path: object) -> None:
    """``--remote-hub`` names the lockfile."""
    path = f"{tmp_path}/a lockfile"
    make_hub(lockfile=path)
    stdio = start("--remote-hub", path, "--label", "my server")
    stdio.peer.start()
    assert stdio.peer.wait_for(Kind.HELLO)["label"] == "my server"


def test_terminal_is_rejected(python_environment: dict[str, str]) -> None:
    """``--stdio`` is for ssh, not for users."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with open(master, "rb", buffering=0), open(slave, "rb", buffering=0) as terminal:
        done = subprocess.run(
            [sys.executable, "-m", "pyvo.samp", "bridge", "--stdio"],
            env=python_environment, stdin=terminal, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "--stdio is for ssh" in done.stderr
