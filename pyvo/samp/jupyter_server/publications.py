# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The files that the kernels of a Jupyter server publish.

Each publication is a directory, named by a token that cannot be guessed, with one file. They are in a directory that
only the user can enter, within the runtime directory of the server. Kernels know that directory, because it has their
connection files. So a kernel can publish a file without a request to the server, and may run in its own environment.

A publication ends when its kernel withdraws it or exits, and at the latest after `LIFETIME`.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..temporary_files import safe_file_name

#: Name of the directory within the runtime directory of the server.
DIRECTORY = "pyvo-samp-data"
#: Seconds for which a publication is served.
LIFETIME = 3600.0
#: The form of tokens, which have 256 bits.
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

_published: set[Publication] = set()


class Publication:
    """
    A file that programs may read by its URL. `create_publication` and `publish_file` make it.

    Attributes
    ----------
    path : pathlib.Path
        Path of the file.
    url_path : str
        The URL, without the base URL of the server, which only the page of the notebook knows.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / secrets.token_urlsafe(32) / safe_file_name(name)
        self.url_path = f"pyvo-samp/data/{self.path.parent.name}/{self.path.name}"
        self._process = os.getpid()
        self.path.parent.mkdir(mode=0o700)
        _published.add(self)

    def withdraw(self) -> None:
        """Remove the file; a program that is reading it can continue. Further calls do nothing."""
        _published.discard(self)
        if os.getpid() == self._process:  # not in the child of a fork
            shutil.rmtree(self.path.parent, ignore_errors=True)


@atexit.register
def _withdraw_all() -> None:
    for publication in list(_published):
        publication.withdraw()


def create_publication(name: str, directory: Path | None = None) -> Publication:
    """
    Make a publication whose file is yet to be written.

    Parameters
    ----------
    name : str
        File name. Only letters, digits, ``-``, ``_`` and ``.`` of it are kept.
    directory : pathlib.Path, optional
        The directory of publications; by default that of the server of this kernel.

    Returns
    -------
    Publication
        Write the file to its ``path``.

    Raises
    ------
    OSError
        The directory cannot be created. `PermissionError`: it exists, and other users can enter it.
    """
    directory = directory or _runtime_directory() / DIRECTORY
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(directory):
        raise PermissionError(
            errno.EPERM, "Files can only be published in a directory that no other user can enter", str(directory)
        )
    remove_expired(directory)
    return Publication(directory, name)


def publish_file(path: str | os.PathLike[str], name: str | None = None, directory: Path | None = None) -> Publication:
    """
    Publish a file: a hard link to it, or a copy if it is on another file system.

    Parameters
    ----------
    path : str or path
        The file.
    name : str, optional
        Its name in the URL; by default its own.
    directory : pathlib.Path, optional
        As for `create_publication`.

    Returns
    -------
    Publication
        The file, with its URL.

    Raises
    ------
    OSError
        As for `create_publication`, or the file cannot be read.
    """
    source = Path(path).resolve(strict=True)
    publication = create_publication(name or source.name, directory)
    try:
        if not _link(source, publication.path):
            create = partial(os.open, mode=0o600)
            with open(source, "rb") as file, open(publication.path, "xb", opener=create) as copy:
                shutil.copyfileobj(file, copy, 1024 * 1024)
    except BaseException:
        publication.withdraw()
        raise
    return publication


def _link(source: Path, link: Path) -> bool:
    """Make a hard link; return False if that is not possible, or if the server would not serve it."""
    status = source.stat()
    if not stat.S_ISREG(status.st_mode) or not is_own(status):
        return False
    try:
        link.hardlink_to(source)
    except OSError:
        return False
    return True


def remove_expired(directory: Path) -> None:
    """Remove expired publications, such as those of a kernel that was killed."""
    with suppress(FileNotFoundError):
        for each in list(directory.iterdir()):
            if TOKEN.fullmatch(each.name) and is_expired(each):
                shutil.rmtree(each, ignore_errors=True)  # which does not follow a symbolic link


def is_expired(folder: Path) -> bool:
    """Whether a publication has expired; its lifetime begins when its file is created."""
    try:
        return time.time() - folder.lstat().st_mtime > LIFETIME
    except FileNotFoundError:
        return True


def is_own(status: os.stat_result) -> bool:
    """Whether a file belongs to the user of this process."""
    return sys.platform == "win32" or status.st_uid == os.getuid()


def is_private(directory: Path) -> bool:
    """Whether this is a directory of this user, not a symbolic link, that no other user can enter."""
    status = directory.lstat()
    is_closed = sys.platform == "win32" or not status.st_mode & 0o077
    return stat.S_ISDIR(status.st_mode) and is_own(status) and is_closed


def _runtime_directory() -> Path:
    """Return the directory of this kernel's connection file or, outside a kernel, that of the user's servers."""
    kernel_application = sys.modules.get("ipykernel.kernelapp")
    if kernel_application is not None and kernel_application.IPKernelApp.initialized():
        return Path(kernel_application.IPKernelApp.instance().abs_connection_file).parent
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415 - installed wherever there is a kernel

    return Path(jupyter_runtime_dir())
