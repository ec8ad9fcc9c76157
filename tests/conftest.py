"""
Fixtures for every test: an empty home directory, and a check for leaks.

A test never uses the user's hub or files: ``HOME`` is an empty directory, ``SAMP_HUB`` is not set, and temporary files
go to another empty directory. A test fails if its threads, descriptors or temporary files remain at its end.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from pyvo.samp import SAMPHubServer

pytest_plugins = ["pytest_pyvo_samp"]

ROOT = Path(__file__).parents[1]

# A busy machine must not make a test fail: only pytest-timeout limits the time of a test.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

#: Seconds for threads to end after a test.
THREAD_TIMEOUT = 3.0

#: The default handlers of signals.
_DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
if hasattr(signal, "SIGHUP"):
    _DEFAULTS[signal.SIGHUP] = signal.SIG_DFL


@pytest.fixture(autouse=True, scope="session")
def default_signals() -> Iterator[None]:
    """
    Restore the default handlers of signals, for this process and for the programs that tests start.

    Under ``nohup``, or in the background of a script, these signals are ignored, and programs inherit that.
    """
    ignored = [number for number in _DEFAULTS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _DEFAULTS[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit of open files to 4096, if the system allows it."""
    resource = pytest.importorskip("resource", reason="this system has no limit of this kind")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if 0 <= hard < wanted:
        pytest.skip(f"this process may open {hard} files at most")
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def isolated(samp_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use an empty home directory, which is returned, and an empty directory for temporary files."""
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:  # not the fixture, whose changes a test may undo
        for name in ("TMPDIR", "TEMP", "TMP"):
            patch.setenv(name, str(temporary))
        patch.setattr(tempfile, "tempdir", str(temporary))
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            patch.delenv(name, raising=False)
        yield samp_home


def open_descriptors() -> dict[int, str]:
    """Return the open descriptors of this process, each with a name that is unique while it is open."""
    found = {}
    for entry in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(entry))
            found[int(entry)] = f"{_name(entry)} ({status.st_dev}:{status.st_ino})"
        except OSError:
            continue  # the descriptor that listed the directory
    return found


def _name(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return f"descriptor {descriptor}"


def leaked_threads(before: set[threading.Thread]) -> list[str]:
    """Return the threads that are not in ``before`` and do not end in time."""
    deadline = time.monotonic() + THREAD_TIMEOUT
    while new := set(threading.enumerate()) - before - {threading.current_thread()}:
        for thread in new:
            # enumerate() also returns a thread that is about to start, which cannot be joined yet
            thread._started.wait(max(0.0, deadline - time.monotonic()))  # type: ignore[attr-defined]
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        if time.monotonic() >= deadline:
            break
    return sorted(thread.name for thread in new if thread.is_alive())


@pytest.fixture(autouse=True)
def nothing_left_behind(isolated: Path) -> Iterator[None]:
    """Fail a test that leaves a thread, a descriptor or a temporary file."""
    threads = set(threading.enumerate())
    descriptors = open_descriptors()
    yield
    problems = [f"thread {name}" for name in leaked_threads(threads)]
    left = open_descriptors().items() - descriptors.items()
    if left:
        gc.collect()
        left = open_descriptors().items() - descriptors.items()
    problems += [f"descriptor {number}: {name}" for number, name in sorted(left)]
    problems += [f"file {path.name}" for path in Path(tempfile.gettempdir()).iterdir()]
    if problems:
        pytest.fail("left behind: " + ", ".join(problems))


@pytest.fixture
def python_environment(isolated: Path) -> dict[str, str]:
    """Return the environment for another Python process that uses this package and this test's home."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


@pytest.fixture
def make_hub(samp_hub_factory: Callable[..., SAMPHubServer]) -> Callable[..., SAMPHubServer]:
    """
    Start hubs, which are stopped after the test.

    Without ``web_profile=True`` they have no Web Profile; with it they listen on a free port instead of 21012.
    """
    return samp_hub_factory


@pytest.fixture
def hub(samp_hub: SAMPHubServer) -> SAMPHubServer:
    """A running hub with the Standard Profile, in the lockfile of this test's home."""
    return samp_hub


@pytest.fixture
def display() -> Iterator[str]:
    """Start an invisible screen for programs with windows, and return the value of ``DISPLAY``."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (tests/interop/install does it)")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-nolisten", "tcp", "-noreset"]
    with subprocess.Popen(command, pass_fds=(writing,), stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        try:
            with os.fdopen(reading) as display_number:
                yield ":" + display_number.readline().strip()
        finally:
            server.terminate()
