# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Write and remove the lockfile of a hub (rules R35 and R36).

Theory of operation
-------------------
If several hubs start at the same time, exactly one of them may own the lockfile. A hub that starts reads the existing
lockfile, pings the hub in it, and replaces the file if there is no response. To prevent another hub from doing the same
at the same time, the hub holds an advisory lock on an empty file ``<lockfile>.lock``. The system releases the lock if
the process dies; the file is removed at the end. A hub does not wait if the file is locked, because the hub that holds
the lock will be running in a moment.

A hub responds to pings before its lockfile exists and until the lockfile has been removed. Therefore no hub that
follows this procedure replaces the lockfile of a running hub.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import SAMPHubError
from .lockfile import LOCKURL, display_path, format_lockfile, is_url, lockfile_source, ping_hub, read_lockfile

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

#: Errors of file systems without locks, such as some network file systems.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
#: For how many seconds replacing or removing an open file is retried on Windows, and the seconds between attempts.
SHARING_TIMEOUT, SHARING_PAUSE = 2.0, 0.01


def default_lockfile() -> Path:
    """Return the path of the lockfile that clients read; raise `SAMPHubError` if it is on a web server."""
    source = lockfile_source()
    if is_url(source):
        raise SAMPHubError(
            f"The lockfile in the environment variable SAMP_HUB is {source}, which a hub cannot write. Unset SAMP_HUB, "
            "or specify another lockfile for the hub."
        )
    return Path(source)


def multi_hub_lockfile(name: str) -> Path:
    """Return the path of a lockfile in ``~/.samp-1`` for an additional hub; create the directory if necessary."""
    directory = Path(os.path.expanduser("~"), ".samp-1")
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SAMPHubError(f"The directory {display_path(directory)} cannot be created: {error.strerror}") from error
    return directory / f"samp-hub-{name}"


def write_lockfile(path: str | Path, params: Mapping[str, str]) -> None:
    """
    Write the lockfile of a hub (R35, R36).

    Raise `SAMPHubError` if another hub is running or starting, or if the file cannot be written.
    """
    path = Path(path)
    try:
        with _lockfile_guard(path):
            _raise_if_running(path, params.get("samp.hub.xmlrpc.url"))
            _replace(path, params)
    except OSError as error:
        raise SAMPHubError(
            f"The lockfile {display_path(path)} cannot be written: {error.strerror or error}. Without it, "
            f"programs cannot find the hub. Fix this, or set SAMP_HUB to {LOCKURL}file:///another/place for the hub "
            "and for all clients."
        ) from error


def _raise_if_running(path: Path, own_url: str | None) -> None:
    try:
        params = read_lockfile(path)
    except SAMPHubError as error:
        log.debug("The lockfile can be replaced: %s", error)
        return
    # With its own URL in the lockfile, this hub would ping itself. The hub that used the port before has ended.
    if params["samp.hub.xmlrpc.url"] != own_url and ping_hub(params):
        raise SAMPHubError(
            f"Another SAMP hub is already running (at {params['samp.hub.xmlrpc.url']}, from {display_path(path)}). "
            "Use that hub, or stop it first. An additional hub needs mode='multiple'."
        )


def _replace(path: Path, params: Mapping[str, str]) -> None:
    """Write a new file and move it into place atomically. This replaces a link and does not follow it."""
    content = format_lockfile(params)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)  # left by a hub that died here; no running hub uses it, because this hub has the lock
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(fresh, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        _retry_while_open(lambda: os.replace(fresh, path))
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _retry_while_open(operation: Callable[[], None]) -> None:
    """
    Replace or remove a file, and retry on Windows, where this fails while another process has the file open.

    A client opens the lockfile only for a moment, to read it. Windows does not report when the file is closed.
    """
    deadline = time.monotonic() + SHARING_TIMEOUT
    pause = threading.Event()
    while True:
        try:
            return operation()
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
        pause.wait(SHARING_PAUSE)


@contextmanager
def _lockfile_guard(path: Path) -> Iterator[None]:
    """Hold the lock that a hub needs to change the lockfile, for the duration of a ``with`` block."""
    guard = path.with_name(path.name + ".lock")
    descriptor = _acquire_guard(guard)
    if descriptor is None:
        raise SAMPHubError(
            f"Another SAMP hub is starting at this moment (it holds {display_path(guard)}). Use that hub."
        )
    try:
        yield
    finally:
        if fcntl is not None:
            guard.unlink(missing_ok=True)  # before the lock is released, see `_acquire_guard`
        os.close(descriptor)


def _acquire_guard(guard: Path) -> int | None:
    """Lock the guard file; return None if another process holds the lock."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if fcntl is None:
        try:
            return os.open(guard, flags | os.O_EXCL | os.O_TEMPORARY, 0o600)  # type: ignore[attr-defined, unused-ignore]
        except FileExistsError:
            return None
    while True:
        descriptor = os.open(guard, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = _is_same_file(descriptor, guard)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            log.debug("This file system has no locks: two hubs that start at the same time may not notice each other")
            return descriptor
        if current:
            return descriptor
        # The process that held the lock before has removed the file. A lock on a removed file does not exclude other
        # processes, so lock the new file.
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether ``path`` is still the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def owns_lockfile(path: str | Path, params: Mapping[str, str]) -> bool:
    """Return whether the lockfile exists and belongs to this hub."""
    try:
        found = read_lockfile(path)
    except SAMPHubError:
        return False
    return bool(params) and found.items() >= params.items()


def remove_lockfile(path: str | Path, params: Mapping[str, str]) -> None:
    """
    Remove a lockfile if it still belongs to this hub (R35).

    The hub must respond to pings until this function returns, so that no other hub replaces the file between the check
    and the removal.
    """
    if not owns_lockfile(path, params):
        log.warning("The lockfile no longer belongs to this hub and is not removed")
        return
    try:
        _retry_while_open(lambda: os.unlink(path))
    except OSError as error:
        log.warning("The lockfile could not be removed: %s", error.strerror)
