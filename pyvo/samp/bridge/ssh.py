# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A transport to the hub of another machine, through the program ``ssh``.

Passwords, keys and host keys are left to ssh, which asks for them at the terminal. On the other machine ssh starts
``samp bridge --stdio``, the other end of the link (see `stdio`).
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import IO, NamedTuple

from ..errors import SAMPError, SAMPTransportError, SAMPValueError
from ..transport.event_loop import join_thread
from .link import Accept, Hello, Link, LinkHandler, LinkState, Report, Transport
from .pipes import PipeStream
from .stdio import NO_HUB
from .stream_link import StreamLink

log = logging.getLogger(__name__)

#: No forwarding, which the bridge does not need; a dead connection is detected within a minute.
_OPTIONS = ("ClearAllForwardings=yes", "ServerAliveInterval=15", "ServerAliveCountMax=3")
#: Seconds before the next attempt to connect: initially, and at most.
MIN_DELAY, MAX_DELAY = 1.0, 60.0
#: Seconds to wait for the first data from the other machine. The user may have to type a password first.
FIRST_BYTE_TIMEOUT = 180.0
#: Seconds for ssh to end by itself, and after SIGTERM.
CLOSE_TIMEOUT = 2.0
#: How many lines of ssh's standard error are kept, to explain why it ended.
_MAX_LINES = 20
#: Exit statuses: of ssh for its own errors, of a shell, and of a ``samp`` without the command ``bridge``.
_SSH_FAILED, _NOT_FOUND, _NOT_EXECUTABLE, _USAGE = 255, 127, 126, 2
#: Exit status of ``samp`` if no hub is running, or the versions of the protocol differ.
_STATUS_NO_HUB = _STATUS_VERSION = 3


def make_ssh_command(host: str, options: Iterable[str], command: str) -> list[str]:
    """
    Return the arguments that run a command on another machine. No shell of this machine reads them.

    Raise `SAMPValueError` for a host that ssh could parse as an option.
    """
    user, _at, name = host.rpartition("@")
    if not name or name.startswith("-") or user.startswith("-"):
        raise SAMPValueError(f"{host!r} is not [USER@]HOST, or starts with '-'")
    arguments = ["ssh", "-T", "-a", "-x"]
    for option in (*_OPTIONS, *options):
        arguments += ["-o", option]
    return [*arguments, "--", host, command]


class _SSHProcess:
    """A running ssh, and the last lines of its standard error; a thread also passes them to `on_line`."""

    def __init__(self, arguments: Sequence[str], on_line: Callable[[str], object]) -> None:
        try:
            # It stays in the terminal's foreground process group, or it could not ask for a password.
            self._process = subprocess.Popen(  # noqa: S603 - a list, and no shell
                list(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise SAMPTransportError(f"{arguments[0]!r} cannot be started: {error.strerror or error}") from error
        self.stream = PipeStream(_take_descriptor(self._process.stdout), _take_descriptor(self._process.stdin))
        self.lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._on_line = on_line
        self._errors = threading.Thread(target=self._read_errors, name="samp-bridge-ssh-errors", daemon=True)
        self._errors.start()

    def close(self) -> int:
        """Close the pipes, wait until ssh has ended, and return its exit status. No thread may use the pipes."""
        self.stream.close()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(CLOSE_TIMEOUT)
                break
            except subprocess.TimeoutExpired:
                end()
        status = self._process.wait()
        self._errors.join(CLOSE_TIMEOUT)  # a process that ssh has left behind may keep standard error open
        return status

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        rest = b""
        with self._process.stderr as pipe:
            while data := os.read(pipe.fileno(), 65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._put_line(line)
                if len(rest) > 65536:  # limit the length of a line
                    self._put_line(rest)
                    rest = b""
        if rest:
            self._put_line(rest)

    def _put_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        self.lines.append(text)
        self._on_line(text)


def _take_descriptor(pipe: IO[bytes] | None) -> int:
    """Close the object of a pipe, and return a descriptor that stays open."""
    assert pipe is not None
    with pipe:
        return os.dup(pipe.fileno())


class _End(NamedTuple):
    """The end of an attempt to connect, or of a link."""

    reason: str
    #: Exit status of the command if it ends for this reason.
    status: int = 0
    was_connected: bool = False


class SSHTransport(Transport):
    """
    Connects a bridge through ssh to a bridge on another machine.

    The first attempt must succeed; later, a lost link is established again.

    Parameters
    ----------
    host : str
        ``[USER@]HOST``, as for ssh.
    options : sequence of str
        Further options of ssh, such as ``"Port=2222"``.
    program : str
        The command that runs ``samp`` on the other machine, as for the shell there; it may contain arguments.
    arguments : sequence of str
        Arguments of ``samp bridge --stdio`` there.
    reconnect : bool
        Whether a lost link is established again.
    on_line : callable, optional
        Called in a thread with each line that ssh writes to standard error. The line is not sanitized.

    Raises
    ------
    SAMPValueError
        The host starts with ``-``.
    """

    def __init__(
        self,
        host: str,
        *,
        options: Sequence[str] = (),
        program: str = "samp",
        arguments: Sequence[str] = (),
        reconnect: bool = True,
        on_line: Callable[[str], object] | None = None,
    ) -> None:
        self.label = host
        self._program = program
        remote = " ".join([program, "bridge", "--stdio", *map(shlex.quote, arguments)])
        self._command = make_ssh_command(host, options, remote)
        #: The command line that runs a command there, for texts.
        self._ssh = shlex.join(["ssh", *(word for option in options for word in ("-o", option)), host])
        self._reconnect = reconnect
        self._on_line = on_line or log.debug
        self._was_connected = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._stop_reason = ""
        self._process: _SSHProcess | None = None
        self._link: StreamLink | None = None

    @property
    def pid(self) -> int | None:
        """The process id of ssh while it is running."""
        process = self._process
        return None if process is None else process._process.pid

    def start(self, hello: Hello, accept: Accept, report: Report) -> None:
        """Start ssh in a thread, and again when the link is lost."""
        self._stopped.clear()
        self._thread = threading.Thread(
            target=self._run, args=(hello, accept, report), name="samp-bridge-ssh", daemon=True
        )
        self._thread.start()

    def stop(self, reason: str = "") -> None:
        """Close the link, and end ssh."""
        with self._lock:
            self._stop_reason = reason
            self._stopped.set()
            if self._link is not None:
                self._link.close(reason)
            elif self._process is not None:
                self._process.stream.interrupt()
        join_thread(self._thread)

    def _run(self, hello: Hello, accept: Accept, report: Report) -> None:
        delay = MIN_DELAY
        while not self._stopped.is_set():
            report(LinkState.CONNECTING, "", 0)
            try:
                end = self._connect(hello, accept)
            except SAMPError as error:
                end = _End(str(error), 1)
            if self._stopped.is_set():
                return
            # Other rejections may be temporary: the other end may not have noticed yet that the old link was lost.
            if end.status == _STATUS_VERSION or not (self._was_connected and self._reconnect):
                report(LinkState.FAILED, end.reason, _STATUS_NO_HUB if end.status == NO_HUB else end.status or 1)
                return
            if end.was_connected:
                delay = MIN_DELAY
            again = f"Trying again in {delay:.0f} s"
            # the engine has reported why a link was lost
            report(LinkState.LOST, again if end.was_connected else f"{end.reason.rstrip('.')}. {again}", 0)
            self._stopped.wait(delay)
            delay = min(2 * delay, MAX_DELAY)

    def _connect(self, hello: Hello, accept: Accept) -> _End:
        """Start ssh, and return when the link, its threads and the process have ended."""
        ended: SimpleQueue[tuple[str, int]] = SimpleQueue()
        was_accepted = threading.Event()

        def accept_link(link: Link) -> LinkHandler:
            handler = accept(link)
            was_accepted.set()
            self._was_connected = True
            return handler

        process = _SSHProcess(self._command, self._pass_on)
        reason, status = "", 0
        try:
            with self._lock:
                self._process = process
                if self._stopped.is_set():
                    process.stream.interrupt()
            if process.stream.wait_for_first(FIRST_BYTE_TIMEOUT):
                link = StreamLink(
                    process.stream, hello, accept_link,
                    is_first=True, label=self.label, on_end=lambda *end: ended.put(end),
                )  # fmt: skip
                with self._lock:
                    self._link = link
                    link.start()
                    if self._stopped.is_set():
                        link.close(self._stop_reason)
                reason, status = ended.get()
        finally:
            with self._lock:
                self._process = self._link = None
            exit_status = process.close()
        if was_accepted.is_set():
            return _End(reason, status, was_connected=True)
        if status == NO_HUB:
            hint = f"Start one with `{self._ssh} {self._program} hub`, or add --start-hub to this command"
            return _End(f"On {self.label}: {reason} {hint}", status)
        return _End(reason, status) if status else _End(self._explain(process, exit_status, reason), 1)

    def _pass_on(self, line: str) -> None:
        if not self._stopped.is_set():  # ^C also ends ssh, which then reports an error
            self._on_line(line)

    def _explain(self, process: _SSHProcess, status: int, reason: str) -> str:
        """Explain the exit status of ssh, and what the user can do."""
        said = "\n".join(process.lines)
        if status == _SSH_FAILED and "Permission denied" in said:
            text = f"{self.label} denies the login. `{self._ssh} true` must work first; `ssh-copy-id` installs a key"
        elif status == _SSH_FAILED:
            text = f"ssh cannot connect to {self.label}; see its message above. `{self._ssh} true` must work first"
        elif status in {_NOT_FOUND, _NOT_EXECUTABLE} or "No module named" in said:
            text = (
                f"{self.label} has no command `{self._program}`. Install it, for example with "
                f"`{self._ssh} python3 -m pip install pyvo-samp`, or give its location: "
                f'--remote-command "python3 -m pyvo.samp", or --remote-command venv/bin/samp'
            )
        elif status == _USAGE:
            text = (
                f"The samp on {self.label} has no bridge, or an incompatible one. Install the same version as here: "
                f"`{self._ssh} python3 -m pip install --upgrade pyvo-samp`"
            )
        else:
            why = reason or "no data arrived"
            text = f"Cannot connect to {self.label}: {why}; ssh ended with status {status}"
        return text
