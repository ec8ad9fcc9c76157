# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What ``samp doctor`` examines first: this computer, the environment, and the lockfile."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import SAMPHubError
from ..lockfile import ASK_DOCTOR, START_ANEW, WHAT_TO_DO, is_alive, is_url, lockfile_source, read_lockfile, shown
from .findings import Finding, Kind, good, note, problem

try:
    import pwd
except ImportError:  # Windows
    pwd = None  # type: ignore[assignment]

__all__ = ["examine_environment", "examine_lockfile", "examine_loopback", "other_hubs"]

#: Seconds for what happens within this computer.
SOON = 3.0


def examine_loopback() -> Iterator[Finding]:
    """Whether programs of this computer can talk to each other at all."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(SOON)
            with socket.create_connection(server.getsockname(), SOON):
                server.accept()[0].close()
    except OSError as error:
        yield problem(
            f"A connection to 127.0.0.1 within this computer failed: {error.strerror or error}.",
            "SAMP needs such connections. Let the firewall or security program allow connections to 127.0.0.1; in a "
            "sandbox or container, let it have a loopback interface.",
        )
    else:
        yield good("Programs on this computer can connect to each other through 127.0.0.1.")


def examine_environment() -> Iterator[Finding]:
    """What steers the programs: SAMP_HUB, the home directory, proxies, a login from elsewhere."""
    setting = os.environ.get("SAMP_HUB", "")
    if setting:
        yield note(
            f"SAMP_HUB is set: {setting}",
            "Programs that were started without it, from a desktop icon for instance, look in ~/.samp instead, and do "
            "not meet those that have it.",
        )
    yield from _examine_home()
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    spared = os.environ.get("no_proxy", "") + os.environ.get("NO_PROXY", "")
    if proxy and "127.0.0.1" not in spared and spared != "*":
        yield note(
            f"Web traffic goes through a proxy ({proxy}), even that to 127.0.0.1.",
            "This package uses no proxy, but other SAMP programs may. Set no_proxy=localhost,127.0.0.1 for them.",
        )
    if os.environ.get("SSH_CONNECTION"):
        yield note(
            "You are logged in from another computer.",
            "The hub and programs here do not see those on the computer you sit at, unless you forward the hub's port.",
        )


def _examine_home() -> Iterator[Finding]:
    home = Path(os.path.expanduser("~"))
    if not home.is_dir():
        yield problem(
            f"The home directory {home} does not exist.", "Set HOME to one that does: the lockfile goes there."
        )
        return
    account = _home_of_account()
    if account is not None and account != home and not os.environ.get("SAMP_HUB"):
        yield note(
            f"HOME is {home}, but the home directory of your account is {account}.",
            "Java programs such as TOPCAT and Aladin look in the latter. If they are to meet programs that look in "
            "HOME, start them with -Duser.home=$HOME, or set SAMP_HUB for all.",
        )


def _home_of_account() -> Path | None:
    if pwd is None:
        return None
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # an account that this system does not know, as in some containers
        return None


def examine_lockfile(found: dict[str, str]) -> Iterator[Finding]:
    """
    Whether there is a lockfile, and whether it is as it should be.

    Parameters
    ----------
    found : dict
        Gets what is in the lockfile, if it can be used.
    """
    try:
        source = lockfile_source()
    except SAMPHubError as error:
        yield problem(str(error), "Unset SAMP_HUB, if you do not know what it is for.")
        return
    is_explained = False  # one cause gets one advice
    if not is_url(source):
        for finding in _examine_file(source):
            is_explained = is_explained or finding.kind is Kind.PROBLEM
            yield finding
    try:
        found.update(read_lockfile(source))
    except SAMPHubError as error:
        if is_url(source):
            yield problem(_without_advice(error), "Have it served there, or unset SAMP_HUB and start a hub.")
        elif not os.path.lexists(source):
            yield note(f"There is no lockfile at {shown(source)}: no hub is running.", WHAT_TO_DO)
            yield from _examine_directory(os.path.dirname(source))
        elif not is_explained:
            yield problem(_without_advice(error), f"Remove {shown(source)}, then start a hub.")
    if found and not is_url(source) and not is_explained:
        yield from _examine_mode(source)


def _without_advice(error: SAMPHubError) -> str:
    """What happened; what to do is told beside it."""
    return str(error).removesuffix(ASK_DOCTOR).removesuffix(START_ANEW).rstrip()


def _examine_file(path: str) -> Iterator[Finding]:
    """What keeps the file from being used, whatever is in it."""
    try:
        status = os.lstat(path)
    except OSError:
        return  # that it is not there is told later
    name = shown(path)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        try:
            status = os.stat(path)
        except OSError:
            yield problem(
                f"{name} is a symbolic link to {target}, which is not there.", f"Remove {name}, then start a hub."
            )
            return
        yield note(f"{name} is a symbolic link to {target}.", "A hub that starts puts a file in its place.")
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        yield problem(
            f"{name} belongs to another user (uid {status.st_uid}; you are {os.getuid()}).",
            "A program was run with sudo, most likely. Stop its hub, have that user (or root) remove the file, and "
            "start a hub as yourself.",
        )


def _examine_mode(path: str) -> Iterator[Finding]:
    """Whether others can read the secret."""
    if not hasattr(os, "getuid"):
        return
    name = shown(path)
    try:
        status = os.stat(path)
    except OSError:  # its hub has just stopped
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        yield problem(
            f"{name} is open to others (mode {status.st_mode & 0o777:o}): whoever reads it can act as your programs.",
            f"chmod 600 {name}, and restart the hub, which makes a new secret.",
        )


def _examine_directory(directory: str) -> Iterator[Finding]:
    if not os.path.isdir(directory):
        yield problem(f"The directory {shown(directory)} is not there.", "Create it, or set SAMP_HUB to another place.")
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield problem(
            f"You cannot write to {shown(directory)}, so no hub can put its lockfile there.",
            "Fix the permissions, or set SAMP_HUB=std-lockurl:file:///another/place for hub and programs.",
        )


def other_hubs() -> Iterator[Finding]:
    """Hubs that run beside the main one, where only those find them who are told to."""
    directory = Path(os.path.expanduser("~"), ".samp-1")
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file() and path.suffix not in {".lock", ".new"})
    except OSError:
        return
    for path in paths:
        try:
            alive = is_alive(read_lockfile(path), SOON)
        except SAMPHubError:
            continue
        if alive:
            yield note(
                f"Another hub runs beside the main one ({shown(path)}).",
                f"Programs meet there only if they are started with SAMP_HUB=std-lockurl:{path.as_uri()}",
            )
