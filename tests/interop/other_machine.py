# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Another machine: processes with their own network and home directory, to which ssh connects.

The network has only its loopback interface, so neither machine can reach a port of the other one. The other machine
does not see the home directory of this machine's user. ssh logs in with a key, through an sshd that ``ProxyCommand``
starts on the other machine; no port is open for others.
"""
from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from .programs import Program, need

ROOT = Path(__file__).parents[2]
SSHD = "/usr/sbin/sshd"


class OtherMachine:
    """
    Another machine: it runs programs, and has the options with which ssh connects to it.

    Parameters
    ----------
    directory : path
        The directory for its files.
    hidden : path
        A directory of this machine that is empty on the other one.
    """

    HOST = "root@observatory"

    def __init__(self, directory: Path, hidden: Path) -> None:
        need("ssh", "unshare", "nsenter", "ssh-keygen")
        if not os.access(SSHD, os.X_OK):
            pytest.skip("sshd is not installed (tests/interop/install does it)")
        if os.geteuid() != 0:
            pytest.skip("only root can make another network and file system")
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        self._stack = ExitStack()
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / f"{name}-key"], check=True, timeout=60
            )
        (directory / "known").write_text(f"observatory {(directory / 'host-key.pub').read_text()}")
        shutil.copy(directory / "user-key.pub", directory / "authorized")
        self._write_passwd()
        (directory / "sshd_config").write_text(
            f"HostKey {directory}/host-key\nAuthorizedKeysFile {directory}/authorized\nStrictModes no\nUsePAM no\n"
            "PermitRootLogin yes\nPidFile none\nLogLevel ERROR\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        script = (
            f"ip link set lo up && mount --bind {directory}/passwd /etc/passwd && "
            f"mount -t tmpfs none {shlex.quote(str(hidden))} && echo ready && exec sleep 100000"
        )
        self._holder = self._stack.enter_context(
            Program("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script, env=self.environment)
        )
        self._holder.wait_for("ready")
        self._enter = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount"]

    def _write_passwd(self) -> None:
        """Write a password file in which root has another home directory."""
        lines = Path("/etc/passwd").read_text().splitlines()
        others = [line for line in lines if not line.startswith("root:")]
        text = "\n".join([f"root:x:0:0:root:{self.home}:/bin/bash", *others, ""])
        (self.directory / "passwd").write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a program on the other machine."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    @property
    def command(self) -> str:
        """The command ``samp`` on the other machine."""
        return f"env PYTHONPATH={ROOT} {sys.executable} -W error -m pyvo.samp"

    @property
    def options(self) -> list[str]:
        """Options of ``samp bridge`` to connect to the other machine."""
        proxy = shlex.join([*self._enter, SSHD, "-i", "-f", str(self.directory / "sshd_config")])
        options = {
            "ProxyCommand": proxy,
            "IdentityFile": str(self.directory / "user-key"),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.directory / "known"),
            "GlobalKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
        }
        return [word for name, value in options.items() for word in ("--ssh-option", f"{name}={value}")]

    def run(self, *command: str) -> Program:
        """Start a program on the other machine. It ends with the machine at the latest."""
        return self._stack.enter_context(Program(*self._enter, *command, env=self.environment))

    def start_hub(self) -> Program:
        """Start a hub on the other machine."""
        hub = self.run(sys.executable, "-m", "pyvo.samp", "hub", "-w")
        hub.wait_for("The hub is running")
        return hub

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
