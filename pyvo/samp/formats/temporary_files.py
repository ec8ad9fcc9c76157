# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Writing files for others, and progress bars where somebody is looking and it takes long.

A directory for files that others are to read, which only its owner can enter, and which goes with the process.

A process that is killed cannot remove its own: the next one of the same user does. That the owner lives is known by a
lock on the directory, which ends with it however it ends, and which holds across containers, where process numbers
mean nothing.
"""

from __future__ import annotations

import io
import os
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

__all__ = ["make_private_dir", "progress_bar", "write_file"]

if sys.platform != "win32":
    import fcntl


PREFIX = "pyvo-samp-"
#: Seconds for which a directory is left alone in any case: its owner may be about to lock it.
GRACE = 60.0


def make_private_dir() -> tuple[Path, Callable[[], None]]:
    """
    Make a directory, and remove those of processes that are gone.

    Returns
    -------
    pathlib.Path, callable
        The directory, and what removes it; in a child of this process that does nothing.
    """
    _remove_stale()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    return directory, partial(_remove, directory, os.getpid(), _lock(directory))


def _remove(directory: Path, process: int, descriptor: int | None) -> None:
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)
    if descriptor is not None:
        os.close(descriptor)


def _remove_stale() -> None:
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


#: Bytes from which on a progress bar is shown, unless the caller says otherwise.
LARGE = 50_000_000
CHUNK = 4 * 1024 * 1024


class _ProgressFile(io.RawIOBase):
    """A file that tells how many bytes have been written to it."""

    def __init__(self, path: Path, note: Callable[[int], object]) -> None:
        super().__init__()
        # nobody else may look: on a machine with many users the directory for temporary files is everybody's
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        self._note = note
        #: Why the disk did not take something; whatever those who write make of it.
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
        self._note(done)
        return done

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def write_file(path: Path, write: Callable[[BinaryIO], object], size: int, progress: bool | None) -> None:
    """
    Write a file that does not exist yet. Nothing is left of it when that fails.

    Parameters
    ----------
    path : pathlib.Path
        Where.
    write : callable
        Called with the open file.
    size : int
        Bytes that are expected, about.
    progress : bool or None
        Whether to show a progress bar; None: if it is much and somebody is looking.

    Raises
    ------
    OSError
        The disk is full, for one.
    """
    raw = None
    try:
        with progress_bar(size, progress) as note, io.BufferedWriter(raw := _ProgressFile(path, note), CHUNK) as file:
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
            f"The file for the recipients cannot be written: {failure.strerror}. It takes about {size / 1e6:.0f} MB; "
            "TMPDIR names the directory for such files",
            str(path),
        ) from error


@contextmanager
def progress_bar(size: int, progress: bool | None) -> Iterator[Callable[[int], object]]:
    """
    Show a progress bar.

    Parameters
    ----------
    size : int
        Bytes that are expected, about.
    progress : bool or None
        Whether to show it; None: if it is much and somebody is looking.

    Yields
    ------
    callable
        To be called with the number of bytes each time some have been read or written.
    """
    in_notebook = "ipykernel" in sys.modules
    if progress is None:
        seen = in_notebook or (sys.stdout is not None and sys.stdout.isatty())
        progress = seen and size >= LARGE
    if not progress or size <= 0:
        yield lambda _count: None
        return
    with _progress(size, widget=in_notebook and find_spec("ipywidgets") is not None) as bar:
        done = 0

        def note(count: int) -> None:
            nonlocal done
            done = min(size, done + count)  # the size was only about right
            bar.update(done)

        yield note
        bar.update(size)


class _NoTerminal:
    """Standard output that says of itself that it is no terminal."""

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
    # In another thread, where what arrives is read, astropy's bar (6.1 to 8.0) fails on a terminal, because only the
    # main thread may handle a signal. Elsewhere it is silent; this can be taken back.
    bar = ProgressBar(size, ipython_widget=False, file=_NoTerminal())
    vars(bar).pop("update", None)
    bar._silent = False
    return bar
