# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Write files for other programs into a private directory, with progress bars for large files.

Only the user can access the directory, and it is removed at the end of the process. If a process was killed, the next
process of the same user removes its directory. A lock on the directory shows that its process is alive: the system
always releases the lock when the process ends, and locks work across containers, where process ids are meaningless.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

if sys.platform != "win32":
    import fcntl


PREFIX = "pyvo-samp-"
#: Seconds for which a new directory is not removed, because its process may not have locked it yet.
MIN_AGE = 60.0


def make_private_dir() -> tuple[Path, Callable[[], None]]:
    """
    Make a private directory, and remove the directories of processes that have ended.

    Return the directory and a function that removes it. In a child process the function does nothing.
    """
    remove_stale_dirs()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    return directory, partial(_remove, directory, os.getpid(), _lock(directory))


def _remove(directory: Path, process: int, descriptor: int | None) -> None:
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)
    if descriptor is not None:
        os.close(descriptor)


def remove_stale_dirs() -> None:
    """Remove the directories of this user's processes that have ended."""
    if sys.platform == "win32":
        return
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            status = directory.lstat()
        except OSError:  # another process has removed it
            continue
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if not is_ours or time.time() - status.st_mtime < MIN_AGE:
            continue
        descriptor = _lock(directory)
        if descriptor is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(descriptor)


def _lock(directory: Path) -> int | None:
    """Lock a directory; return None if another process has locked it or this system has no locks."""
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


#: Names of devices on Windows, which are reserved with any suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])", re.IGNORECASE)


#: One or two suffixes of a file name, such as ``.fits.gz``.
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,2}$")


def safe_file_name(name: str, suffix: str | None = None) -> str:
    """Return a file name with only letters, digits, ``-``, ``_`` and ``.``; the default suffix is that of ``name``."""
    if suffix is None:
        match = _SUFFIX.search(name)
        suffix = match.group() if match else ""
    stem = name[: -len(suffix)] if suffix and name.lower().endswith(suffix.lower()) else name
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:60]
    if _DEVICES.fullmatch(safe):
        safe += "_"
    return (safe or "data") + re.sub(r"[^A-Za-z0-9.]+", "", suffix)


#: Size in bytes from which a progress bar is shown by default.
LARGE = 50_000_000
CHUNK = 4 * 1024 * 1024


class _ProgressFile(io.RawIOBase):
    """A file that reports the number of bytes written to it."""

    def __init__(self, path: Path, report: Callable[[int], object]) -> None:
        super().__init__()
        # Only the user may read the file, because several users may share the temporary directory.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        self._report = report
        #: The disk error, because the library that writes the file may hide it.
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return self.seek(0, os.SEEK_CUR)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            done = os.write(self._descriptor, view[:CHUNK])
        except OSError as error:
            self.failure = error
            raise
        self._report(done)
        return done

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def write_file(path: Path, write: Callable[[BinaryIO], object], size: int, progress: bool | None) -> None:
    """
    Write a new file of about ``size`` bytes; remove it if writing fails.

    ``progress`` is as in `progress_bar`. Raise OSError, for example if the disk is full.
    """
    raw = None
    try:
        with (
            progress_bar(size, progress) as report,
            io.BufferedWriter(raw := _ProgressFile(path, report), CHUNK) as file,
        ):
            write(cast("BinaryIO", file))
    except BaseException as error:
        path.unlink(missing_ok=True)
        failure = raw.failure if raw is not None else None
        if failure is None and isinstance(error, OSError):
            failure = error
        if failure is None or failure.errno is None:
            raise
        raise OSError(
            failure.errno,
            f"The file for the recipients cannot be written: {failure.strerror}. It needs about {size / 1e6:.0f} MB; "
            "set TMPDIR to use another directory",
            str(path),
        ) from error


@contextmanager
def progress_bar(size: int, progress: bool | None) -> Iterator[Callable[[int], object]]:
    """
    Show a progress bar for about ``size`` bytes; yield a function that adds a number of bytes to the progress.

    If ``progress`` is None, the bar is shown for large sizes on a terminal or in a notebook.
    """
    in_notebook = "ipykernel" in sys.modules
    if progress is None:
        is_visible = in_notebook or (sys.stdout is not None and sys.stdout.isatty())
        progress = is_visible and size >= LARGE
    if not progress or size <= 0:
        yield lambda _count: None
        return
    with _progress(size, widget=in_notebook and find_spec("ipywidgets") is not None) as bar:
        done = 0

        def report(count: int) -> None:
            nonlocal done
            done = min(size, done + count)  # the size is approximate
            bar.update(done)

        yield report
        bar.update(size)


class _PlainOutput:
    """Standard output that is not recognized as a terminal."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()

    def isatty(self) -> bool:
        return False


def _progress(size: int, *, widget: bool) -> Any:
    from astropy.utils.console import ProgressBar  # noqa: PLC0415

    if widget or threading.current_thread() is threading.main_thread():
        return ProgressBar(size, ipython_widget=widget)
    # Outside the main thread, astropy's bar (6.1 to 8.0) fails on a terminal, because only the main thread may handle
    # signals. On other files the bar is silent, which is undone here.
    bar = ProgressBar(size, ipython_widget=False, file=_PlainOutput())
    vars(bar).pop("update", None)
    bar._silent = False
    return bar
