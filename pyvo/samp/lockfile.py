# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The file through which clients find their hub: where it is and what is in it (rules R33 and R34).

How a hub writes its own is told in `lockfile_writing`.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from .errors import SAMPError, SAMPHubError, SAMPValueError
from .transport.urls import split_http_url
from .transport.xmlrpc_client import XMLRPCClient

__all__ = [
    "HINT_DOCTOR",
    "HINT_REMOVE_LOCKFILE",
    "HINT_START_HUB",
    "LOCKURL",
    "display_path",
    "format_lockfile",
    "get_main_running_hub",
    "is_url",
    "lockfile_source",
    "parse_lockfile",
    "ping_hub",
    "read_lockfile",
]

log = logging.getLogger(__name__)

#: Bytes that a lockfile may have; real ones have a few hundred.
MAX_SIZE = 65536
#: Seconds that a hub may take to answer a ping before it counts as dead.
PING_TIMEOUT = 5.0
#: Seconds that a web server may take to hand out a lockfile.
FETCH_TIMEOUT = 5.0

REQUIRED = ("samp.secret", "samp.hub.xmlrpc.url", "samp.profile.version")
HINT_START_HUB = "Start TOPCAT or Aladin, or run `samp hub`."
HINT_REMOVE_LOCKFILE = "Remove it, and start a hub."

#: For what goes wrong in many ways.
HINT_DOCTOR = "`samp doctor` tells what to do."

LOCKURL = "std-lockurl:"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # a drive of Windows has one letter


def display_path(path: str | Path) -> str:
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
    if not setting.startswith(LOCKURL):
        raise SAMPHubError(
            f"The environment variable SAMP_HUB is {setting!r}, but must begin with {LOCKURL!r}. Unset it, or set it "
            f"to {LOCKURL}file:///path/of/the/lockfile."
        )
    source = setting.removeprefix(LOCKURL)
    if _SCHEME.match(source) and not is_url(source) and not source.lower().startswith("file:"):
        raise SAMPHubError(
            f"The environment variable SAMP_HUB is {setting!r}, but a lockfile is read from a file: or http: URL only. "
            f"Unset it, or set it to {LOCKURL}file:///path/of/the/lockfile."
        )
    return _without_scheme(source)


def _without_scheme(source: str) -> str:
    """The path that a ``file`` URL stands for; anything else unchanged."""
    if not source.lower().startswith("file:"):
        return source
    parts = urlsplit(source)
    if parts.netloc not in {"", "localhost", "127.0.0.1"}:
        raise SAMPHubError(f"The lockfile {source!r} is on another machine, {parts.netloc}, and cannot be read there")
    from urllib.request import url2pathname  # noqa: PLC0415 - rarely needed, and slow to import

    path = url2pathname(parts.path)
    return path.replace("//", "/", 1) if path.startswith("//") else path  # some programs write file://localhost//tmp


def is_url(source: str) -> bool:
    """Whether a lockfile's place is one on the web."""
    return source.lower().startswith(("http:", "https:"))


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
    content = _fetch(source) if is_url(source) else _read_file(source)
    params = parse_lockfile(content)
    missing = [key for key in REQUIRED if not params.get(key)]
    if missing:
        raise SAMPHubError(
            f"{display_path(source)} is not a SAMP lockfile: it does not say {' and '.join(missing)}. {HINT_REMOVE_LOCKFILE}"
        )
    try:
        split_http_url(params["samp.hub.xmlrpc.url"])
    except SAMPError as error:
        raise SAMPHubError(f"The lockfile {display_path(source)} names no address of a hub: {error}") from error
    return params


def _read_file(path: str) -> bytes:
    """Read a small regular file. What else may lie there (a FIFO, a device, a huge file) must not hang anybody."""
    careful = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | careful)
    except FileNotFoundError:
        raise SAMPHubError(f"No SAMP hub is running (no lockfile at {display_path(path)}). {HINT_START_HUB}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SAMPHubError(f"The lockfile {display_path(path)} cannot be read: {reason}. {HINT_DOCTOR}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SAMPHubError(f"{display_path(path)} is not a SAMP lockfile: it is no regular file. {HINT_REMOVE_LOCKFILE}")
        content = os.read(descriptor, MAX_SIZE + 1)
    except OSError as error:
        raise SAMPHubError(f"The lockfile {display_path(path)} cannot be read: {error.strerror}. {HINT_DOCTOR}") from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_SIZE:
        raise SAMPHubError(f"{display_path(path)} is not a SAMP lockfile: it is too large. {HINT_REMOVE_LOCKFILE}")
    return content


def _fetch(url: str) -> bytes:
    """Get a lockfile from a web server, at once or not at all, and from nowhere else than asked."""
    from .transport.xmlrpc_client import http_get  # noqa: PLC0415 - hardly anybody's lockfile is on the web

    try:
        return http_get(url, MAX_SIZE, FETCH_TIMEOUT)
    except SAMPError as error:
        reason = str(error).rstrip(".")
        raise SAMPHubError(
            f"The lockfile {url}, which SAMP_HUB names, cannot be read: {reason}. {HINT_DOCTOR}"
        ) from error


# Who is there


def ping_hub(params: Mapping[str, str], timeout: float = PING_TIMEOUT) -> bool:
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
    if not ping_hub(params):
        raise SAMPHubError(
            f"No SAMP hub is running (the one that {display_path(source)} names does not answer at "
            f"{params['samp.hub.xmlrpc.url']}). {HINT_START_HUB}"
        )
    return params
