"""The transport through ssh. A program that runs the command on this machine takes the place of ssh."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from pyvo.samp import SAMPValueError
from pyvo.samp.bridge import ssh, stream_link
from pyvo.samp.bridge.framing import PREAMBLE, encode_frame
from pyvo.samp.bridge.link import Download, Hello, Kind, Link, LinkState, Upload
from pyvo.samp.bridge.ssh import SSHTransport, make_ssh_command
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the program in place of ssh is a shell script")

OURS = Hello((1, 1), "1.0", "0" * 32, "here")


class Handler:
    """A handler that records what it receives."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.received: SimpleQueue[bytes] = SimpleQueue()
        self.closed: SimpleQueue[str] = SimpleQueue()

    def receive(self, kind: Kind, payload: bytes, done: Callable[[], object]) -> None:
        self.received.put(payload)
        done()

    def serve(self, offer: str, method: str, headers: dict[str, str], upload: Upload) -> None:
        raise AssertionError("the other end requests no file")

    def on_writable(self) -> None:
        """Do nothing: no message waits."""

    def on_closed(self, reason: str) -> None:
        self.closed.put(reason)


class Ends:
    """The transports of a test, and the links and states that they report."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.arguments = directory / "arguments"
        self.links: SimpleQueue[Handler] = SimpleQueue()
        self.states: SimpleQueue[tuple[LinkState, str, int]] = SimpleQueue()
        self.lines: list[str] = []
        self._stack = stack

    def start(self, behaviour: str = "", *, program: str = "", **options: Any) -> SSHTransport:
        words = [sys.executable, str(Path(__file__).with_name("ssh_end.py")), behaviour, str(self.arguments)]
        program = program or f"exec {shlex.join(words)}"  # `exec`, so that it is killed with ssh
        transport = SSHTransport("someone@there", program=program, on_line=self.lines.append, **options)
        self._stack.callback(transport.stop)

        def accept(link: Link) -> Handler:
            handler = Handler(link)
            self.links.put(handler)
            return handler

        transport.start(OURS, accept, lambda *report: self.states.put(report))
        return transport

    def quick_program(self) -> str:
        """Return a command that only sends HELLO. It does not use Python, which takes a second to start."""
        greeting = self.arguments.with_name("greeting")
        hello = Hello((1, 1), "1.0", "1" * 32, "there").encode()
        greeting.write_bytes(PREAMBLE + encode_frame(Kind.HELLO, hello))
        return f"exec sh -c 'cat {greeting}; exec cat 3>&1 >/dev/null'"

    def wait_for(self, state: LinkState) -> tuple[str, int]:
        """Wait for a state; return its text and its status."""
        while True:
            found, text, status = self.states.get(timeout=20)
            if found is state:
                return text, status


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """Put another ``ssh`` into the PATH. It writes its arguments to a file and runs the command."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor word; do printf "%s\\n" "$word" >> {tmp_path}/words; done\n'
        'for command; do :; done\nexec sh -c "$command"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(ssh, "MIN_DELAY", 0.01)
    with ExitStack() as stack:
        yield Ends(tmp_path, stack)


# The command


def test_arguments_of_ssh() -> None:
    """ssh forwards nothing, detects a dead connection, and gets the command as one argument."""
    assert make_ssh_command("me@there", ["Port=2222"], "samp bridge --stdio") == [
        "ssh", "-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "ServerAliveInterval=15", "-o",
        "ServerAliveCountMax=3", "-o", "Port=2222", "--", "me@there", "samp bridge --stdio",
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch /tmp/x", "me@-oProxyCommand=x", "-l@there", "me@"])
def test_a_host_that_is_an_option_is_rejected(host: str) -> None:
    with pytest.raises(SAMPValueError, match="HOST"):
        SSHTransport(host)


def test_arguments_reach_the_other_end_unchanged(ends: Ends) -> None:
    """The shell of the other machine does not interpret the arguments."""
    arguments = ["--remote-hub", "a b'c\"d", "$(touch x)", ";", "*", "-"]
    ends.start(arguments=arguments)
    ends.links.get(timeout=20)
    (line,) = ends.arguments.read_text().splitlines()
    assert json.loads(line)[1:] == ["bridge", "--stdio", *arguments]


# The link


def test_messages_and_lines(ends: Ends) -> None:
    """
    Messages pass in both directions. Standard error of the other end is reported; its output does not become a
    frame.
    """
    ends.start()
    handler = ends.links.get(timeout=20)
    assert (handler.link.label, handler.link.peer.label) == ("someone@there", "there")
    for payload in (b'{"a": 1}', b"x" * 3_000_000):
        handler.link.send(Kind.NOTIFY, payload)
        assert handler.received.get(timeout=20) == payload
    assert ends.lines == ["a line\x1b[31m", "this must not reach the link"]


def count_bytes(download: Download) -> int:
    """Read a file to its end; return its length."""
    return sum(iter(lambda: len(download.read()), 0))


def test_a_file_is_read_through_ssh(ends: Ends) -> None:
    ends.start()
    download = ends.links.get(timeout=20).link.fetch("an offer", "GET", {})
    assert download.headers == [("Content-Length", "100000000")]
    assert count_bytes(download) == 100_000_000
    download.close()


def test_noise_before_the_link(ends: Ends) -> None:
    """The output of a .bashrc is skipped."""
    ends.start("noise")
    handler = ends.links.get(timeout=20)
    handler.link.send(Kind.NOTIFY, b"{}")
    assert handler.received.get(timeout=20) == b"{}"


def test_too_much_noise_is_an_error(ends: Ends) -> None:
    ends.start("much noise")
    text, status = ends.wait_for(LinkState.FAILED)
    assert "not a bridge" in text
    assert status == 1


def test_the_error_without_a_hello_contains_the_noise(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_link, "HELLO_TIMEOUT", 0.2)
    monkeypatch.setattr(ssh, "CLOSE_TIMEOUT", 0.2)
    ends.start("silent")
    text, status = ends.wait_for(LinkState.FAILED)
    assert "it printed: only this" in text
    assert status == 1


# Errors


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo 'me@there: Permission denied (publickey).' >&2; exit 255;", ["denies the login", "ssh-copy-id"]),
        ("echo 'Could not resolve hostname' >&2; exit 255;", ["cannot connect", "`ssh someone@there true`"]),
        ("no-such-command-anywhere", ["no command `no-such-command-anywhere`", "pip install", "--remote-command"]),
        ("echo '/usr/bin/python3: No module named pyvo' >&2; exit 1;", ["no command", "pip install pyvo-samp"]),
        ("exit 2;", ["has no bridge", "--upgrade"]),
        ("exit 7;", ["status 7"]),
        ("echo hello; exit 7;", ["it printed: hello", "status 7"]),
        ("kill -9 $$;", ["status -9"]),
    ],
)
def test_the_error_without_a_link_says_what_to_do(ends: Ends, program: str, words: list[str]) -> None:
    """Each text names what to do."""
    ends.start(program=program)
    text, status = ends.wait_for(LinkState.FAILED)
    assert [word for word in words if word not in text] == [], text
    assert status == 1


def test_a_missing_ssh_is_an_error(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ends.start()
    assert ends.wait_for(LinkState.FAILED) == ("'ssh' cannot be started: No such file or directory", 1)


def test_a_missing_hub_at_the_other_end_is_an_error(ends: Ends) -> None:
    """The text contains the command that starts a hub there."""
    ends.start("no hub", options=["Port=2222"])
    text, status = ends.wait_for(LinkState.FAILED)
    assert text.startswith("On someone@there: No SAMP hub is running.")
    assert "`ssh -o Port=2222 someone@there" in text
    assert "--start-hub" in text
    assert status == 3


def test_another_version_at_the_other_end_is_an_error(ends: Ends) -> None:
    """
    The text contains both versions and the command that helps, whichever end detects the difference; the status is
    3.
    """
    ends.start("version")
    text, status = ends.wait_for(LinkState.FAILED)
    assert status == 3
    for word in ("1 (pyvo-samp", "7 (pyvo-samp", "pip install"):
        assert word in text


# Lost links, and the end


def kill(transport: SSHTransport) -> None:
    pid = transport.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_killed_ssh_is_started_again(ends: Ends) -> None:
    """A download breaks off and the handler is notified at once. Then the transport opens a new link."""
    transport = ends.start()
    handler = ends.links.get(timeout=20)
    download = handler.link.fetch("an offer", "GET", {})
    assert download.read()
    started = time.monotonic()
    kill(transport)
    assert handler.closed.get(timeout=20)
    with pytest.raises(OSError, match="the bridge was lost"):
        count_bytes(download)
    assert time.monotonic() - started < 2
    text, _ = ends.wait_for(LinkState.LOST)
    assert "Trying again in" in text
    again = ends.links.get(timeout=20)
    again.link.send(Kind.NOTIFY, b"{}")
    assert again.received.get(timeout=20) == b"{}"


def test_other_end_ends_with_ssh(ends: Ends) -> None:
    """The program at the other end ends when its input ends."""
    transport = ends.start(reconnect=False)
    ends.links.get(timeout=20)
    (line,) = ends.arguments.read_text().splitlines()
    transport.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(json.loads(line)[0], 0)


def test_a_lost_link_without_reconnect_is_an_error(ends: Ends) -> None:
    transport = ends.start(reconnect=False)
    ends.links.get(timeout=20)
    kill(transport)
    text, status = ends.wait_for(LinkState.FAILED)
    assert "Trying" not in text
    assert status == 1


def test_the_delay_between_attempts_doubles(ends: Ends, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has a limit, and starts again from the smallest value after a success."""
    monkeypatch.setattr(ssh, "MIN_DELAY", 1.0)
    waited: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", note_long_waits(waited))
    flag = tmp_path / "broken"
    transport = ends.start(program=f"test -e {flag} && exit 255; {ends.quick_program()}")
    ends.links.get(timeout=20)
    flag.touch()
    kill(transport)
    for _ in range(9):
        ends.wait_for(LinkState.LOST)
    assert waited[:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    flag.unlink()
    ends.links.get(timeout=20)
    count = len(waited)
    kill(transport)
    ends.links.get(timeout=20)
    assert waited[count:] == [1]


def note_long_waits(waited: list[float]) -> Callable[..., bool]:
    """
    Return a method for `threading.Event` that records each wait of the transport of a second or more, and shortens
    it.
    """
    original = threading.Event.wait

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread().name == "samp-bridge-ssh" and timeout is not None and timeout >= 1:
            waited.append(timeout)
            return original(self, 0.01)
        return original(self, timeout)

    return wait


def test_the_transport_waits_for_a_hub_that_restarts(ends: Ends, tmp_path: Path) -> None:
    """After a first success a missing hub is no longer an error."""
    flag = tmp_path / "no-hub"
    end = shlex.join([sys.executable, str(Path(__file__).with_name("ssh_end.py"))])
    there = f'test -e {flag} && set -- "no hub" || set -- ""; exec {end} "$1" {ends.arguments}'
    transport = ends.start(program=there)
    ends.links.get(timeout=20)
    flag.touch()
    kill(transport)
    ends.wait_for(LinkState.LOST)
    text, _ = ends.wait_for(LinkState.LOST)
    assert "No SAMP hub is running" in text
    flag.unlink()
    ends.links.get(timeout=20)


def test_stop_while_ssh_connects(ends: Ends) -> None:
    """`stop` ends ssh also during a password prompt or while the network does not respond."""
    transport = ends.start(program="exec sleep 1000; ")
    ends.wait_for(LinkState.CONNECTING)
    started = time.monotonic()
    transport.stop()
    assert time.monotonic() - started < 5
    assert transport.pid is None


def test_stop_is_quick_and_sends_its_reason_to_the_other_end(ends: Ends) -> None:
    transport = ends.start()
    handler = ends.links.get(timeout=20)
    transport.stop("the user has ended it")
    assert handler.closed.get(timeout=1) == "the user has ended it"
    assert transport.pid is None
    transport.start(OURS, Handler, lambda *report: None)  # it can be started again
    transport.stop()


def test_fifty_lost_links_leak_nothing(ends: Ends) -> None:
    """The number of threads and descriptors stays the same. The fixture of all tests checks them at the end, too."""
    transport = ends.start(program=ends.quick_program())
    counts = []
    for _ in range(50):
        handler = ends.links.get(timeout=20)
        counts.append((threading.active_count(), len(os.listdir("/dev/fd"))))
        kill(transport)
        handler.closed.get(timeout=20)
        ends.wait_for(LinkState.LOST)
    ends.links.get(timeout=20)
    for kind in zip(*counts, strict=True):  # threads, then descriptors; one that is just ending may be counted
        assert min(kind[-10:]) <= max(kind[:10]), kind
