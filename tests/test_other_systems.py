# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Differences of Windows and macOS, simulated on Linux.

The tests of this project run on Linux. The tests here replace ``os.name``, functions of the system and constants, so
that the code for other systems runs. ``docs/contributing/platforms.rst`` lists what this shows, and what only a real
system can show.
"""

from __future__ import annotations

import errno
import io
import ntpath
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyvo.samp import SAMPHubError, lockfile, lockfile_writer
from pyvo.samp.cli import hub_monitor, output
from pyvo.samp.cli.main import run_command
from pyvo.samp.cli.output import Status
from pyvo.samp.formats import files
from pyvo.samp.transport import server_connection, urls
from pyvo.samp.transport.event_loop import EventLoop
from pyvo.samp.transport.server import XMLRPCServer, max_sockets

from .docs.examples import load_module

PARAMS = {"samp.secret": "s", "samp.hub.xmlrpc.url": "http://127.0.0.1:1/", "samp.profile.version": "1.3"}


class _WindowsOS:
    """The module `os` of Windows as far as one module uses it; anything else is this system's."""

    name = "nt"
    path = ntpath
    sep = "\\"

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def windows_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _WindowsOS]:
    """Replace ``os`` in modules; `pathlib` and the interpreter keep the real one."""

    def replace(*modules: Any) -> _WindowsOS:
        fake = _WindowsOS()
        for module in modules:
            monkeypatch.setattr(module, "os", fake)
        return fake

    return replace


# Paths and file URLs


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///C:/Users/me/.samp", r"C:\Users\me\.samp"),
        ("file:/c:/data/a%20b%C3%BC.fits", r"c:\data\a bü.fits"),
        ("file://localhost/C:/x", r"C:\x"),
        ("file://localhost//C:/x", r"C:\x"),
        ("file:///C|/x", r"C:\x"),
        ("file:///temp/x", r"\temp\x"),
        ("file://server/share/x", None),
        ("file:////server/share/x", r"\server\share\x"),
        ("file:///%5C%5Cserver%5Cshare%5Cx", r"\server\share\x"),
        ("file:///%5Cserver%5Cshare%5Cx", r"\server\share\x"),
        ("file:///%2F%5Cserver/share/x", r"\server\share\x"),
        ("http://127.0.0.1/x", None),
    ],
)
def test_file_urls_on_windows(windows_in: Callable[..., Any], url: str, path: str | None) -> None:
    """A path may have a drive letter, and is never a share of another computer."""
    windows_in(urls)
    assert urls.file_url_to_local_path(url) == path
    assert path is None or not ntpath.splitdrive(path)[0].startswith("\\")


@pytest.mark.parametrize("path", [r"C:\Users\me\.samp", r"D:\a b\ü#1%.fits"])
def test_file_urls_round_trip(windows_in: Callable[..., Any], path: str) -> None:
    windows_in(urls)
    from pathlib import PureWindowsPath

    assert urls.file_url_to_local_path(PureWindowsPath(path).as_uri()) == path


def test_lockfile_of_windows_is_in_the_profile(windows_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard names ``%USERPROFILE%\\.samp``, whatever HOME is."""
    monkeypatch.setenv("USERPROFILE", r"C:\Users\me")
    monkeypatch.setenv("HOME", "/cygwin/home")
    windows_in(lockfile)
    assert lockfile.lockfile_source() == r"C:\Users\me\.samp"
    assert lockfile.display_path(lockfile.lockfile_source()) == r"~\.samp"


@pytest.mark.parametrize(
    "setting", ["file:///C:/hubs/one.samp", "file:/C:/hubs/one.samp", r"C:\hubs\one.samp", "C:/hubs/one.samp"]
)
def test_samp_hub_of_windows(windows_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """A drive letter is not the scheme of a URL."""
    windows_in(lockfile, urls)
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{setting}")
    assert ntpath.normpath(lockfile.lockfile_source()) == r"C:\hubs\one.samp"


def test_samp_hub_without_an_absolute_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMP_HUB", "std-lockurl:file:one.samp")
    with pytest.raises(SAMPHubError, match="has no absolute path and cannot be read"):
        lockfile.lockfile_source()


def test_file_url_that_is_sent(windows_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """``send("file:///C:/x.fits")`` looks for the file on its drive."""
    windows_in(urls)
    checked: list[Path] = []
    monkeypatch.setattr(files, "_exists", lambda path: checked.append(path) or False)
    with pytest.raises(FileNotFoundError):
        files.adapt_file("file:///C:/data/x.fits")
    assert [path.name for path in checked] == [r"C:\data\x.fits"]  # in a PosixPath, backslashes are ordinary characters


# The lockfile


class _OpenElsewhere:
    """An operation of the system that fails on Windows while another process has the file open."""

    def __init__(self, operation: Callable[..., None], failures: int) -> None:
        self.operation, self.failures = operation, failures

    def __call__(self, *paths: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        self.operation(*paths)


def test_replace_waits_for_a_reader(windows_in: Callable[..., Any], isolated: Path) -> None:
    fake: Any = windows_in(lockfile_writer)
    fake.replace = _OpenElsewhere(os.replace, 3)
    path = isolated / ".samp"
    lockfile_writer.write_lockfile(path, PARAMS)
    assert lockfile.read_lockfile(path) == PARAMS
    assert [found.name for found in isolated.iterdir()] == [".samp"]
    fake.unlink = _OpenElsewhere(os.unlink, 3)
    lockfile_writer.remove_lockfile(path, PARAMS)
    assert not path.exists()


def test_replace_fails_after_the_timeout(
    windows_in: Callable[..., Any], isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the lockfile stays open, the error names its path, and no temporary file remains."""
    monkeypatch.setattr(lockfile_writer, "SHARING_TIMEOUT", 0.05)
    fake: Any = windows_in(lockfile_writer)
    fake.replace = _OpenElsewhere(os.replace, 10**9)
    with pytest.raises(SAMPHubError, match=r"The lockfile .*\.samp cannot be written: The process cannot access"):
        lockfile_writer.write_lockfile(isolated / ".samp", PARAMS)
    assert not list(isolated.iterdir())


def test_posix_does_not_retry(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", operation := _OpenElsewhere(os.replace, 2))
    with pytest.raises(SAMPHubError, match="cannot be written"):
        lockfile_writer.write_lockfile(isolated / ".samp", PARAMS)
    assert operation.failures == 1


@pytest.fixture
def without_fcntl(windows_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[_WindowsOS]:
    """Remove the locks, and add files that the system removes when they are closed, as on Windows."""
    fake: Any = windows_in(lockfile_writer)
    monkeypatch.setattr(lockfile_writer, "fcntl", None)
    temporary: dict[int, Path] = {}

    def open_file(path: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = os.open(path, flags & ~fake.O_TEMPORARY, mode)
        if flags & fake.O_TEMPORARY:
            temporary[descriptor] = Path(path)
        return descriptor

    def close(descriptor: int) -> None:
        os.close(descriptor)
        if descriptor in temporary:
            temporary.pop(descriptor).unlink()

    fake.O_TEMPORARY, fake.open, fake.close = 1 << 30, open_file, close
    yield fake
    assert not temporary


def test_two_hubs_that_start_at_the_same_time_on_windows(without_fcntl: Any, isolated: Path) -> None:
    """The guard file exists as long as its process has it open."""
    path = isolated / ".samp"
    with lockfile_writer._lockfile_guard(path):
        with pytest.raises(SAMPHubError, match="Another SAMP hub is starting at this moment"):
            lockfile_writer.write_lockfile(path, PARAMS)
        assert not path.exists()
    lockfile_writer.write_lockfile(path, PARAMS)
    assert lockfile.read_lockfile(path) == PARAMS
    assert [found.name for found in isolated.iterdir()] == [".samp"]


def test_lockfile_with_line_endings_of_windows(isolated: Path) -> None:
    (isolated / ".samp").write_bytes("".join(f"{key}={value}\r\n" for key, value in PARAMS.items()).encode())
    assert lockfile.read_lockfile(isolated / ".samp") == PARAMS


# Sockets


def test_port_is_not_shared_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_EXCLUSIVEADDRUSE is set before the socket is bound; this test uses another option in its place."""
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    loop = EventLoop()
    server = XMLRPCServer(("127.0.0.1", 0), loop, handler=None)  # type: ignore[arg-type]
    try:
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    finally:
        server.stop()
        loop.stop()


def test_sockets_stay_below_the_limit_of_select_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers and the hub's own connections to clients stay below the 512 sockets of select()."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert 2 * max_sockets() < 512


def test_coarse_clock_is_not_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, before Python 3.13, 0.1 ms cannot be measured: polling would last 16 ms."""
    import time
    from types import SimpleNamespace

    monkeypatch.setattr(time, "get_clock_info", lambda _name: SimpleNamespace(resolution=0.015625))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    path = Path(sys.modules[EventLoop.__module__].__file__ or "")
    assert _load_in_package(path, EventLoop.__module__).BUSY_POLL_TIME == 0.0
    monkeypatch.setattr(time, "get_clock_info", lambda _name: SimpleNamespace(resolution=1e-9))
    assert _load_in_package(path, EventLoop.__module__).BUSY_POLL_TIME > 0.0


def _load_in_package(path: Path, name: str) -> Any:
    """Load a second copy of a module, whose relative imports find the package."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_system_without_tiocoutq(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has the constant, but does not offer the request for sockets."""

    def ioctl(*_arguments: object) -> bytes:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported on socket")

    monkeypatch.setattr(server_connection.fcntl, "ioctl", ioctl)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert server_connection.peer_discarded_data(ours) is False


# Signals


def test_break_ends_a_hub_as_sigterm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGBREAK exists on Windows only; this test uses another signal in its place."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    from pyvo.samp import process_events

    copy = load_module(Path(process_events.__file__))
    with pytest.raises(SystemExit) as ended, copy.signals_as_exit():
        signal.raise_signal(signal.SIGUSR1)
    assert ended.value.code == 128 + signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_windows_has_no_sighup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP")
    from pyvo.samp import process_events

    copy = load_module(Path(process_events.__file__))
    assert copy._TERMINATING_SIGNALS == [signal.SIGTERM]


# The terminal


class _ClosedPipe(io.StringIO):
    """A pipe that its reader has closed; on Windows the error is not BrokenPipeError."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")


def test_closed_pipe_of_windows(windows_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_options: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    class Options:
        pass

    options: Any = Options()
    options.run = run
    assert run_command(lambda: options) == Status.FAILED
    windows_in(output)
    assert run_command(lambda: options) == Status.PIPE_CLOSED


def test_closed_pipe_of_the_monitor(windows_in: Callable[..., Any]) -> None:
    windows_in(output)
    screen = hub_monitor.TrafficScreen("hub", stream=_ClosedPipe())
    screen._write("text")
    assert screen.pipe_closed


# Modules that Windows does not have

WITHOUT_POSIX = """
import os, pkgutil, signal, sys
from importlib import import_module
from importlib.util import find_spec
import numpy, astropy.table, astropy.io.votable  # before POSIX is hidden: these packages may need it
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
posix = ("fork", "getpgrp", "getuid", "mkfifo", "register_at_fork", "sched_yield", "tcgetpgrp")
posix += ("O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK")
for name in posix:
    delattr(os, name)
os.O_TEMPORARY = os.O_CLOEXEC  # any flag that changes nothing
for name in ("SIGHUP", "SIGWINCH", "SIGPIPE"):
    delattr(signal, name)
import pyvo.samp
sys.platform, real = "win32", sys.platform  # by which this module detects Windows
import pyvo.samp.temporary_files
sys.platform = real
names = [found.name for found in pkgutil.walk_packages(pyvo.samp.__path__, "pyvo.samp.")]
names = [name for name in names if not name.endswith("__main__") and "consent_tk" not in name]
if find_spec("jupyter_server") is None:
    names.remove("pyvo.samp.jupyter_server.handler")  # it runs in a Jupyter server
for name in names:
    import_module(name)
hub = pyvo.samp.SAMPHubServer(web_profile=False)
hub.start()
with pyvo.samp.SAMPIntegratedClient(name="one") as one:
    print(len(names), one.ping() is not None)
hub.stop()
"""


def test_every_module_without_posix(python_environment: dict[str, str]) -> None:
    """All modules can be imported, and a hub and a client run, without the modules and functions that Windows lacks."""
    command = [sys.executable, "-c", WITHOUT_POSIX]
    done = subprocess.run(command, env=python_environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, connected = done.stdout.split()
    assert int(count) > 100
    assert connected == "True"
