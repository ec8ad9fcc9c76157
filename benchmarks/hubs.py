# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The hubs that are compared. Each has its own process and its own home directory.

The CPU seconds, threads and memory of each are measured from outside, for those in Java in the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import version
from pathlib import Path

import psutil

from .load_generator import BenchmarkError
from .wire_format import Address

__all__ = [
    "BASELINE",
    "JSAMP",
    "OURS",
    "STREAM",
    "UPSTREAM",
    "WINDOW",
    "Hub",
    "jsamp_command",
    "python_of",
    "start_hub",
    "upstream_python",
]

OURS, JSAMP, UPSTREAM, BASELINE = "ours", "jsamp", "upstream", "baseline"
#: Ours with the hub window open in a browser, and ours with a program that reads the same data as the browser.
WINDOW, STREAM = "window", "stream"

HERE = Path(__file__).resolve().parent
#: The release of upstream that is compared.
UPSTREAM_RELEASE = "pyvo==1.9.1"
#: The Web Profile's port, which is fixed in JSAMP's hub.
JSAMP_WEB_PORT = 21012


class Hub:
    """A running hub."""

    def __init__(self, name: str, process: subprocess.Popen[str], home: Path, params: dict[str, str]) -> None:
        self.name, self.process, self.home, self.params = name, process, home, params
        self.address = Address.of(params["samp.hub.xmlrpc.url"])
        self.secret = params["samp.secret"]
        self.web = Address("127.0.0.1", int(params.get("web-port", JSAMP_WEB_PORT)), "/")
        #: Its output, after it has stopped.
        self.log = ""
        self._process = psutil.Process(process.pid)

    def cpu(self) -> float:
        """Return the CPU seconds of all its threads, including those that have ended."""
        try:
            # The process's CPU clock counts nanoseconds; /proc counts ticks of 10 ms.
            return time.clock_gettime(((~self.process.pid) << 3) | 2)
        except (AttributeError, OSError):
            times = self._process.cpu_times()
            return times.user + times.system

    def threads(self) -> int:
        return self._process.num_threads()

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        return self._process.memory_info().rss

    def descriptors(self) -> int:
        return self._process.num_fds()

    def stop(self) -> None:
        """End the process and remove its home."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        if self.name == JSAMP:
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log = (self.home / "log").read_text(errors="replace")
        shutil.rmtree(self.home, ignore_errors=True)


def environment(home: Path, name: str = OURS) -> dict[str, str]:
    """Return the environment of a process: its own home, and this package only if it is measured."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SAMP", "XDG_"))}
    env["HOME"] = env["USERPROFILE"] = str(home)
    env["JAVA_TOOL_OPTIONS"] = f"-Duser.home={home}"
    if name in {OURS, WINDOW, STREAM}:
        env["PYTHONPATH"] = str(HERE.parent)
    return env


def start_hub(name: str, cache: Path, *, web: bool = False) -> Hub:
    """Start a hub and wait until it runs."""
    if name == JSAMP and web and _is_listening(JSAMP_WEB_PORT):
        raise BenchmarkError(f"Port {JSAMP_WEB_PORT}, which JSAMP's hub needs, is in use")
    home = Path(tempfile.mkdtemp(prefix=f"hub-{name}-"))
    if name == JSAMP:
        command = [*jsamp_command(), "hub", "-mode", "no-gui", "-profiles", "std,web" if web else "std"]
        if web:
            command += ["-web:auth", "true"]
    elif name == BASELINE:
        command = [sys.executable, str(HERE / "baseline_server.py")]
    else:
        command = [python_of(name, cache), str(HERE / "launch_hub.py"), *(["web"] if web else [])]
        command += ["window"] if name in {WINDOW, STREAM} else []
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment(home, name), cwd=home, stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE if name != JSAMP else log, stderr=log,
        )
    try:
        return Hub(name, process, home, _lockfile(home, process, web) if name == JSAMP else _printed(process, home))
    except BaseException:
        process.kill()
        process.wait()
        raise


def _printed(process: subprocess.Popen[str], home: Path) -> dict[str, str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            params: dict[str, str] = json.loads(line)
            return params
    raise BenchmarkError(f"The hub did not start: {(home / 'log').read_text()[-1000:]}")


def _is_listening(port: int) -> bool:
    """Return whether a program listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _lockfile(home: Path, process: subprocess.Popen[str], web: bool) -> dict[str, str]:
    """Wait for the lockfile. JSAMP's hub gives no other sign that it is running."""
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            text = (home / ".samp").read_text()
            params = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")
            if "samp.profile.version" in params and (not web or _is_listening(JSAMP_WEB_PORT)):
                return params
        time.sleep(0.05)
    raise BenchmarkError(f"JSAMP's hub did not start: {(home / 'log').read_text()[-1000:]}")


def jsamp_command() -> list[str]:
    """Return the command that runs JSAMP."""
    found = shutil.which("jsamp")
    if found is None:
        raise BenchmarkError("JSAMP is not installed (Debian: apt install jsamp)")
    return [found]


def python_of(name: str, cache: Path) -> str:
    """Return the interpreter with a library."""
    return sys.executable if name in {OURS, WINDOW, STREAM} else str(upstream_python(cache))


def upstream_python(cache: Path) -> Path:
    """Return the interpreter of the environment with the upstream release, which is created on first use."""
    place = cache / UPSTREAM_RELEASE.replace("==", "-")
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = place / "complete"
    if not done.exists():
        print(f"Making an environment with {UPSTREAM_RELEASE} in {place} ...", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        # Both sides use the same astropy and numpy. Otherwise the import times of these would be compared.
        same = [f"{package}=={version(package)}" for package in ("astropy", "numpy")]
        subprocess.run([python, "-m", "pip", "install", "--quiet", UPSTREAM_RELEASE, *same], check=True)
        done.touch()
    return python
