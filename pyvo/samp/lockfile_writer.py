# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How a hub puts itself into the lockfile, and out of it again (rules R35 and R36).

Theory of operation
-------------------
Of any number of hubs that start at the same moment exactly one may end up in the lockfile. The one that starts
must look at the lockfile, ask the hub that is named there whether it lives, and replace the file when it does not.
Between the look and the replacement another hub could do the same. So all this is done by one hub at a time: it
holds an advisory lock on an empty file ``<lockfile>.lock``, which the system gives back when the process dies, and
which is gone when all is done. A hub that finds the lock taken does not wait, since whoever has it is about to run.

A hub answers pings before its lockfile appears and until it has gone again. So nobody who keeps to this takes the
lockfile of a hub that lives.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import SAMPHubError
from .lockfile import LOCKURL, display_path, format_lockfile, is_url, lockfile_source, ping_hub, read_lockfile

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["default_lockfile", "multi_hub_lockfile", "owns_lockfile", "remove_lockfile", "write_lockfile"]

log = logging.getLogger(__name__)

#: What file systems answer that know no locks, as some network file systems do.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def default_lockfile() -> Path:
    """
    The file that a hub without wishes of its own writes.

    Raises
    ------
    SAMPHubError
        ``SAMP_HUB`` names a place that cannot be written.
    """
    source = lockfile_source()
    if is_url(source):
        raise SAMPHubError(
            f"The environment variable SAMP_HUB names the lockfile {source}, which a hub cannot write. Unset SAMP_HUB, "
            "or give the hub a lockfile of its own."
        )
    return Path(source)


def multi_hub_lockfile(name: str) -> Path:
    """
    A lockfile in ``~/.samp-1``, where hubs live beside the main one.

    Parameters
    ----------
    name : str
        What tells this hub from others.

    Raises
    ------
    SAMPHubError
        The directory cannot be made.
    """
    directory = Path(os.path.expanduser("~"), ".samp-1")
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SAMPHubError(f"The directory {display_path(directory)} cannot be made: {error.strerror}") from error
    return directory / f"samp-hub-{name}"


def write_lockfile(path: str | Path, params: Mapping[str, str]) -> None:
    """
    Put a hub into its lockfile, unless another one is there already (R35, R36).

    Parameters
    ----------
    path : str or path
        The lockfile.
    params : mapping of str to str
        Its keys.

    Raises
    ------
    SAMPHubError
        Another hub is running, or is starting at this moment, or the file cannot be written.
    """
    path = Path(path)
    try:
        with _lockfile_guard(path):
            _refuse_if_running(path, params.get("samp.hub.xmlrpc.url"))
            _replace(path, params)
    except OSError as error:
        raise SAMPHubError(
            f"The lockfile {display_path(path)} cannot be written: {error.strerror or error}. Without it no program finds the "
            f"hub. Mend that, or set SAMP_HUB to {LOCKURL}file:///another/place for hub and clients alike."
        ) from error


def _refuse_if_running(path: Path, own_url: str | None) -> None:
    try:
        params = read_lockfile(path)
    except SAMPHubError as error:
        log.debug("There is no hub to be respected: %s", error)
        return
    # At its own address a hub meets itself: the one that used the port before it must be gone.
    if params["samp.hub.xmlrpc.url"] != own_url and ping_hub(params):
        raise SAMPHubError(
            f"Another SAMP hub is already running (at {params['samp.hub.xmlrpc.url']}, by {display_path(path)}). Use that, "
            "or stop it first; a hub with mode='multiple' runs beside it."
        )


def _replace(path: Path, params: Mapping[str, str]) -> None:
    """Write a new file and move it into place: nobody sees half of it, and a link there is replaced, not followed."""
    content = format_lockfile(params)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)  # of a hub that died here; nobody else is at it, we have the lock
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(fresh, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextmanager
def _lockfile_guard(path: Path) -> Iterator[None]:
    """Hold the right to change a lockfile; see the head of this module."""
    guard = path.with_name(path.name + ".lock")
    descriptor = _acquire_guard(guard)
    if descriptor is None:
        raise SAMPHubError(f"Another SAMP hub is starting at this moment (it holds {display_path(guard)}). Use that one.")
    try:
        yield
    finally:
        if fcntl is not None:
            guard.unlink(missing_ok=True)  # before the lock is given back: see `_take`
        os.close(descriptor)


def _acquire_guard(guard: Path) -> int | None:
    """Lock the guard file. None if somebody else has it."""
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
            log.debug("This file system has no locks: two hubs that start in the same instant may miss each other")
            return descriptor
        if current:
            return descriptor
        # Whoever had the lock before has removed the file on leaving. A lock on a file that is no longer there
        # keeps nobody out, so it must be taken anew.
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether ``path`` is still the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def owns_lockfile(path: str | Path, params: Mapping[str, str]) -> bool:
    """Whether the lockfile is there and is this hub's."""
    try:
        found = read_lockfile(path)
    except SAMPHubError:
        return False
    return bool(params) and found.items() >= params.items()


def remove_lockfile(path: str | Path, params: Mapping[str, str]) -> None:
    """
    Remove a lockfile if it is still the one that this hub wrote (R35).

    The hub must answer pings until this has been done: as long as it does, nobody replaces the file between the
    look at it and its removal.

    Parameters
    ----------
    path : str or path
        The lockfile.
    params : mapping of str to str
        What the hub wrote into it.
    """
    if not owns_lockfile(path, params):
        log.warning("The lockfile is no longer this hub's, and is left alone")
        return
    try:
        os.unlink(path)
    except OSError as error:
        log.warning("The lockfile could not be removed: %s", error.strerror)
