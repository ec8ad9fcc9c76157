# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A directory for files that others are to read, which only its owner can enter, and which goes with the process.

A process that is killed cannot remove its own: the next one of the same user does. That the owner lives is known by a
lock on the directory, which ends with it however it ends, and which holds across containers, where process numbers
mean nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["private_directory"]

PREFIX = "pyvo-samp-"
#: Seconds for which a directory is left alone in any case: its owner may be about to lock it.
GRACE = 60.0


def private_directory() -> tuple[Path, Callable[[], None]]:
    """
    Make a directory, and remove those of processes that are gone.

    Returns
    -------
    pathlib.Path, callable
        The directory, and what removes it; in a child of this process that does nothing.
    """
    _sweep()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    return directory, partial(_remove, directory, os.getpid(), _lock(directory))


def _remove(directory: Path, process: int, descriptor: int | None) -> None:
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)
    if descriptor is not None:
        os.close(descriptor)


def _sweep() -> None:
    if sys.platform == "win32":
        return
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            status = directory.lstat()
        except OSError:  # its owner was quicker
            continue
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if not is_ours or time.time() - status.st_mtime < GRACE:
            continue
        descriptor = _lock(directory)
        if descriptor is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(descriptor)


def _lock(directory: Path) -> int | None:
    """Lock a directory; None if somebody else has, or there are no locks here."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
