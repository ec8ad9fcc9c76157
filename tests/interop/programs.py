# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Programs of other authors: start them, read their output, and end them with all processes that they started.

A test waits for a line of output, an exit status, or an event of the hub, never for a fixed time. Every wait has a
deadline. A wait that fails shows the output of the program.
"""
from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from xmlrpc.client import Fault, ServerProxy

import pytest

T = TypeVar("T")


def need(*names: str) -> None:
    """Skip the test, with the reason, unless all these programs are installed."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (tests/interop/install does it)")


def environment(home: Path, display: str | None = None, **more: str) -> dict[str, str]:
    """Return the environment of a program that must use `home` as the user's home directory.

    Java reads the home directory from the password file and not from ``HOME``, so an option sets it. Temporary files of
    the programs are in `home`, too.
    """
    common = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"}
    if display is not None:
        common["DISPLAY"] = display
    java = f"-Duser.home={home} -Djava.util.prefs.userRoot={home} -Djava.io.tmpdir={home}"
    return {**common, "JAVA_TOOL_OPTIONS": java, **more}


class Program:
    """A running program, in its own process group.

    Parameters
    ----------
    *command : str
        The program and its arguments.
    env : mapping
        All of its environment variables (see `environment`).
    pass_fds : sequence of int
        File descriptors that it inherits.
    """

    def __init__(self, *command: str, env: Mapping[str, str], pass_fds: Sequence[int] = ()) -> None:
        self.name = Path(command[0]).name
        self._text = ""
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command, env=dict(env), pass_fds=pass_fds, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {self.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        # os.read, not readline: a prompt has no end of line
        while chunk := os.read(pipe.fileno(), 65536):
            with self._changed:
                self._text += chunk.decode(errors="replace")
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All output so far."""
        with self._changed:
            return self._text

    def wait_for(self, text: str, timeout: float = 30.0) -> None:
        """Wait until the program has printed `text`."""
        self.wait_for_match(re.escape(text), timeout)

    def wait_for_match(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """
        Wait until the output matches `pattern`, and return the match.

        A program may write a line in several parts. A pattern that ends with ``\\s`` matches the whole last word.
        """
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self._text) or self._ended, timeout)
            match = re.search(pattern, self._text)
            if match is None:
                pytest.fail(f"{self.name} did not print {pattern!r} within {timeout} s but:\n{self._text}")
        return match

    def finish(self, timeout: float = 60.0) -> int:
        """Wait until the program ends by itself; return its exit status."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {timeout} s; it printed:\n{self.output}")
        self.stop()
        return status

    def stop(self) -> None:
        """End the program and all processes that it started, first by SIGTERM."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            self.signal(sign)
            # wait for the end of all processes that can still write, because the program may be a script that has
            # started another program
            self._reader.join(5.0)
            if not self._reader.is_alive():
                break
        self._process.wait(5.0)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def signal(self, sign: signal.Signals) -> None:
        """Send a signal to the program and all processes that it started."""
        try:
            os.killpg(self._process.pid, sign)
        except ProcessLookupError:
            return  # no process of the group is left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Screen:
    """An invisible screen (Xvfb) with a free display number."""

    def __init__(self, env: Mapping[str, str], size: str = "1280x1024x24") -> None:
        need("Xvfb", "import")
        ours, its = os.pipe()
        try:
            # the server itself chooses a free display, so that two test runs cannot choose the same
            self._server = Program(
                "Xvfb", "-displayfd", str(its), "-screen", "0", size, "-nolisten", "tcp", "-noreset",
                env=env, pass_fds=(its,),
            )
            os.close(its)
            with os.fdopen(ours) as stream:
                self.display = ":" + stream.readline().strip()
        except BaseException:
            os.close(ours)
            raise
        self.env = {**env, "DISPLAY": self.display}

    def screenshot(self, path: Path) -> Path:
        """Write a picture of the screen to a PNG file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["import", "-window", "root", str(path)], env=self.env, check=True, timeout=30)
        return path

    def click(self, x: int, y: int) -> None:
        """Press and release the left mouse button at a position."""
        need("xdotool")
        command = ["xdotool", "mousemove", str(x), str(y), "click", "1"]
        subprocess.run(command, env=self.env, check=True, timeout=30)

    def stop(self) -> None:
        """Stop the X server."""
        self._server.stop()


def until(probe: Callable[[], T], good: Callable[[T], bool], timeout: float = 30.0) -> T:
    """Call a probe of another program until its result is good; return that result.

    This is only for states without an event. Each probe is a message with a response, which limits the rate of the
    loop. The short wait leaves the program time for its work.
    """
    pause = threading.Event()
    deadline = time.monotonic() + timeout
    while not good(result := probe()):
        if time.monotonic() > deadline:
            pytest.fail(f"no good result within {timeout} s; the last one was {result!r}")
        pause.wait(0.05)
    return result


def wait_for_hub(home: Path, timeout: float = 60.0) -> None:
    """Wait until the hub of another program responds at the URL of its lockfile.

    Such hubs write the file line by line, and before they are ready. At first they respond with a fault.
    """
    lockfile = home / ".samp"

    def ping() -> bool:
        text = lockfile.read_text() if lockfile.exists() else ""
        entry = re.search(r"^samp\.hub\.xmlrpc\.url=(.+)\n", text, re.MULTILINE)
        if entry is None or "profile.start.date=" not in text:
            return False
        try:
            with ServerProxy(entry[1].replace("\\:", ":")) as proxy:
                proxy.samp.hub.ping()
        except (Fault, OSError):
            return False
        return True

    until(ping, bool, timeout)
