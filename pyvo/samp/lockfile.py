# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The file through which clients find their hub (rules R33 to R36).

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

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .errors import SAMPError, SAMPHubError, SAMPValueError
from .transport.connection import XMLRPCClient, http_address

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "default_lockfile",
    "format_lockfile",
    "get_main_running_hub",
    "holds",
    "is_alive",
    "lockfile_source",
    "parse_lockfile",
    "private_lockfile",
    "read_lockfile",
    "remove_lockfile",
    "shown",
    "write_lockfile",
]

log = logging.getLogger(__name__)

#: Bytes that a lockfile may have; real ones have a few hundred.
MAX_SIZE = 65536
#: Seconds that a hub may take to answer a ping before it counts as dead.
PING_TIME = 5.0
#: Seconds that a web server may take to hand out a lockfile.
FETCH_TIME = 5.0

REQUIRED = ("samp.secret", "samp.hub.xmlrpc.url", "samp.profile.version")
WHAT_TO_DO = "Start TOPCAT or Aladin, or run `samp hub`."
START_ANEW = "Remove it, and start a hub."

_PREFIX = "std-lockurl:"


def shown(path: str | Path) -> str:
    """A path the way a person writes it: ``~/.samp``."""
    path, home = str(path), os.path.expanduser("~")
    return f"~{path[len(home):]}" if path.startswith(home + os.sep) else path


# Where it is


def lockfile_source() -> str:
    """
    Where clients look for the hub (R33): what ``SAMP_HUB`` names, else ``.samp`` in the home directory.

    Returns
    -------
    str
        A path, or an ``http`` URL.

    Raises
    ------
    SAMPHubError
        ``SAMP_HUB`` is set to something that leads to no lockfile.
    """
    setting = os.environ.get("SAMP_HUB", "")
    if not setting:
        return os.path.join(os.path.expanduser("~"), ".samp")
    if not setting.startswith(_PREFIX):
        raise SAMPHubError(
            f"The environment variable SAMP_HUB is {setting!r}, but must begin with {_PREFIX!r}. Unset it, or set it "
            f"to {_PREFIX}file:///path/of/the/lockfile."
        )
    return _without_scheme(setting.removeprefix(_PREFIX))


def _without_scheme(source: str) -> str:
    """The path that a ``file`` URL stands for; anything else unchanged."""
    if not source.lower().startswith("file:"):
        return source
    parts = urlsplit(source)
    if parts.netloc not in {"", "localhost", "127.0.0.1"}:
        raise SAMPHubError(f"The lockfile {source!r} is on another machine, {parts.netloc}, and cannot be read there")
    path = url2pathname(parts.path)
    return path.replace("//", "/", 1) if path.startswith("//") else path  # some programs write file://localhost//tmp


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http:", "https:"))


def default_lockfile() -> Path:
    """
    The file that a hub without wishes of its own writes.

    Raises
    ------
    SAMPHubError
        ``SAMP_HUB`` names a place that cannot be written.
    """
    source = lockfile_source()
    if _is_url(source):
        raise SAMPHubError(
            f"The environment variable SAMP_HUB names the lockfile {source}, which a hub cannot write. Unset SAMP_HUB, "
            "or give the hub a lockfile of its own."
        )
    return Path(source)


def private_lockfile(name: str) -> Path:
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
        raise SAMPHubError(f"The directory {shown(directory)} cannot be made: {error.strerror}") from error
    return directory / f"samp-hub-{name}"


# Reading


def parse_lockfile(content: bytes) -> dict[str, str]:
    """
    Read the lines of a lockfile (R34).

    Parameters
    ----------
    content : bytes
        What is in the file.

    Returns
    -------
    dict of str to str
        All keys that there are, those that the standard does not know included.
    """
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    params = {}
    for line in text.split("\n"):
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            params[key.strip()] = value
    url = params.get("samp.hub.xmlrpc.url")
    if url is not None:
        params["samp.hub.xmlrpc.url"] = url.strip().replace("\\:", ":")
    return params


def read_lockfile(source: str | Path) -> dict[str, str]:
    """
    Read a lockfile.

    Parameters
    ----------
    source : str or path
        A path, or a URL (``file:`` or ``http:``).

    Returns
    -------
    dict of str to str
        Its keys; those that the standard requires are there.

    Raises
    ------
    SAMPHubError
        There is none, it cannot be read, or it is not a lockfile.
    """
    source = _without_scheme(str(source))
    content = _fetch(source) if _is_url(source) else _read_file(source)
    params = parse_lockfile(content)
    missing = [key for key in REQUIRED if not params.get(key)]
    if missing:
        raise SAMPHubError(
            f"{shown(source)} is not a SAMP lockfile: it does not say {' and '.join(missing)}. {START_ANEW}"
        )
    try:
        http_address(params["samp.hub.xmlrpc.url"])
    except SAMPError as error:
        raise SAMPHubError(f"The lockfile {shown(source)} names no address of a hub: {error}") from error
    return params


def _read_file(path: str) -> bytes:
    """Read a small regular file. What else may lie there (a FIFO, a device, a huge file) must not hang anybody."""
    careful = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | careful)
    except FileNotFoundError:
        raise SAMPHubError(f"No SAMP hub is running (no lockfile at {shown(path)}). {WHAT_TO_DO}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SAMPHubError(f"The lockfile {shown(path)} cannot be read: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SAMPHubError(f"{shown(path)} is not a SAMP lockfile: it is no regular file. {START_ANEW}")
        content = os.read(descriptor, MAX_SIZE + 1)
    except OSError as error:
        raise SAMPHubError(f"The lockfile {shown(path)} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_SIZE:
        raise SAMPHubError(f"{shown(path)} is not a SAMP lockfile: it is too large. {START_ANEW}")
    return content


def _fetch(url: str) -> bytes:
    """Get a lockfile from a web server, at once or not at all, and from nowhere else than asked."""
    from .transport.fetch import fetch  # noqa: PLC0415 - hardly anybody's lockfile is on the web

    try:
        return fetch(url, MAX_SIZE, FETCH_TIME)
    except SAMPError as error:
        raise SAMPHubError(f"The lockfile {url}, which SAMP_HUB names, cannot be read: {error}") from error


# Who is there


def is_alive(params: Mapping[str, str], timeout: float = PING_TIME) -> bool:
    """
    Ping the hub that a lockfile names.

    Parameters
    ----------
    params : mapping of str to str
        What is in the lockfile.
    timeout : float
        Seconds that it may take.

    Returns
    -------
    bool
        False also for a program that has come to use that port but is no hub.
    """
    hub = XMLRPCClient(params["samp.hub.xmlrpc.url"], timeout=timeout)
    try:
        hub.call("samp.hub.ping")
    except SAMPError as error:
        log.debug("The hub of the lockfile does not answer: %s", error)
        return False
    finally:
        hub.close()
    return True


def get_main_running_hub() -> dict[str, str]:
    """
    Find the hub that clients should use, see `lockfile_source`.

    Returns
    -------
    dict of str to str
        What is in its lockfile.

    Raises
    ------
    SAMPHubError
        No hub is running; the text says what to do.
    """
    source = lockfile_source()
    params = read_lockfile(source)
    if not is_alive(params):
        raise SAMPHubError(
            f"No SAMP hub is running (the one that {shown(source)} names does not answer at "
            f"{params['samp.hub.xmlrpc.url']}). {WHAT_TO_DO}"
        )
    return params


# Writing


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
        with _exclusive(path):
            _refuse_if_running(path)
            _replace(path, params)
    except OSError as error:
        raise SAMPHubError(
            f"The lockfile {shown(path)} cannot be written: {error.strerror or error}. Without it no program finds the "
            f"hub. Mend that, or set SAMP_HUB to {_PREFIX}file:///another/place for hub and clients alike."
        ) from error


def _refuse_if_running(path: Path) -> None:
    try:
        params = read_lockfile(path)
    except SAMPHubError as error:
        log.debug("There is no hub to be respected: %s", error)
        return
    if is_alive(params):
        raise SAMPHubError(
            f"Another SAMP hub is already running (at {params['samp.hub.xmlrpc.url']}, by {shown(path)}). Use that, "
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
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def format_lockfile(params: Mapping[str, str]) -> bytes:
    """
    Write the lines of a lockfile (R34).

    Parameters
    ----------
    params : mapping of str to str
        Keys and values.

    Returns
    -------
    bytes
        The content of the file.

    Raises
    ------
    SAMPValueError
        A value would not end where its line ends.
    """
    for key, value in params.items():
        if "\n" in value or "\r" in value:
            raise SAMPValueError(f"{key} must be one line to stand in the lockfile")
    lines = ["# SAMP lockfile, see https://www.ivoa.net/documents/SAMP/"]
    lines += [f"{key}={value}" for key, value in params.items()]
    return ("\n".join(lines) + "\n").encode("utf-8")


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the right to change a lockfile; see the head of this module."""
    guard = path.with_name(path.name + ".lock")
    descriptor = _take(guard)
    if descriptor is None:
        raise SAMPHubError(f"Another SAMP hub is starting at this moment (it holds {shown(guard)}). Use that one.")
    try:
        yield
    finally:
        if fcntl is not None:
            guard.unlink(missing_ok=True)  # before the lock is given back: see `_take`
        os.close(descriptor)


def _take(guard: Path) -> int | None:
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
            current = _is_at(descriptor, guard)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if current:
            return descriptor
        # Whoever had the lock before has removed the file on leaving. A lock on a file that is no longer there
        # keeps nobody out, so it must be taken anew.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` is still the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def holds(path: str | Path, params: Mapping[str, str]) -> bool:
    """Whether the lockfile is there and is this hub's."""
    try:
        return read_lockfile(path).get("samp.secret") == params["samp.secret"]
    except SAMPHubError:
        return False


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
    if not holds(path, params):
        log.warning("The lockfile is no longer this hub's, and is left alone")
        return
    try:
        os.unlink(path)
    except OSError as error:
        log.warning("The lockfile could not be removed: %s", error.strerror)

