# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Find and read the lockfile, which tells clients where the hub is (rules R33 and R34).

Hubs use `pyvo.samp.lockfile_writer` to write it.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from .errors import SAMPError, SAMPHubError, SAMPValueError
from .transport.urls import file_url_to_local_path, split_http_url
from .transport.xmlrpc_client import XMLRPCClient, http_get

log = logging.getLogger(__name__)

#: Limit for the size of a lockfile in bytes; real lockfiles have a few hundred bytes.
MAX_SIZE = 65536
#: Seconds to wait for a hub's response to a ping.
PING_TIMEOUT = 5.0
#: Seconds to wait for a lockfile from a web server.
FETCH_TIMEOUT = 5.0

REQUIRED = ("samp.secret", "samp.hub.xmlrpc.url", "samp.profile.version")
HINT_START_HUB = "Start TOPCAT or Aladin, or run `samp hub`."
HINT_REMOVE_LOCKFILE = "Remove it, and start a hub."
HINT_DOCTOR = "Run `samp doctor` for advice."

LOCKURL = "std-lockurl:"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # does not match a drive letter of Windows


def display_path(path: str | Path) -> str:
    """Shorten a path for display: ``~/.samp``."""
    path, home = str(path), os.path.expanduser("~")
    return f"~{path[len(home) :]}" if path.startswith(home + os.sep) else path


# Finding the lockfile


def lockfile_source() -> str:
    """
    Return the path or http URL of the lockfile, from ``SAMP_HUB`` or else ``.samp`` in the home directory (R33).

    Raise `SAMPHubError` if ``SAMP_HUB`` is set but is not the URL of a lockfile.
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
            f"The environment variable SAMP_HUB is {setting!r}, but a lockfile can only be read from a file: or http: "
            f"URL. Unset it, or set it to {LOCKURL}file:///path/of/the/lockfile."
        )
    return _without_scheme(source)


def _without_scheme(source: str) -> str:
    """Convert a ``file`` URL to a path; return anything else unchanged."""
    if not source.lower().startswith("file:"):
        return source
    path = file_url_to_local_path(source)
    if path is None:
        host = source[len("file:") :].removeprefix("//").partition("/")[0]
        reason = f"is on another machine, {host}," if source[5:7] == "//" else "has no absolute path"
        raise SAMPHubError(f"The lockfile {source!r} {reason} and cannot be read")
    return path


def is_url(source: str) -> bool:
    """Return whether the lockfile is on a web server."""
    return source.lower().startswith(("http:", "https:"))


# Reading the lockfile


def parse_lockfile(content: bytes) -> dict[str, str]:
    """Return the keys and values of a lockfile, including keys that are not in the standard (R34)."""
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
    """Return the content of a lockfile; raise `SAMPValueError` for a value with line ends (R34)."""
    for key, value in params.items():
        if "\n" in value or "\r" in value:
            raise SAMPValueError(f"{key} must be one line to be written into the lockfile")
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
        Keys and values, including all keys that the standard requires.

    Raises
    ------
    SAMPHubError
        There is no file, it cannot be read, or it is not a lockfile.
    """
    source = _without_scheme(str(source))
    content = _fetch(source) if is_url(source) else _read_file(source)
    params = parse_lockfile(content)
    missing = [key for key in REQUIRED if not params.get(key)]
    if missing:
        raise SAMPHubError(
            f"{display_path(source)} is not a SAMP lockfile: it does not contain {' and '.join(missing)}. "
            f"{HINT_REMOVE_LOCKFILE}"
        )
    try:
        split_http_url(params["samp.hub.xmlrpc.url"])
    except SAMPError as error:
        raise SAMPHubError(f"The lockfile {display_path(source)} does not contain a valid hub URL: {error}") from error
    return params


def _read_file(path: str) -> bytes:
    """Read a small regular file. Anything else (a FIFO, a device, a huge file) raises an error without blocking."""
    shown = display_path(path)
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:
        raise SAMPHubError(f"No SAMP hub is running (no lockfile at {shown}). {HINT_START_HUB}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SAMPHubError(f"The lockfile {shown} cannot be read: {reason}. {HINT_DOCTOR}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SAMPHubError(f"{shown} is not a SAMP lockfile: it is not a regular file. {HINT_REMOVE_LOCKFILE}")
        content = os.read(descriptor, MAX_SIZE + 1)
    except OSError as error:
        raise SAMPHubError(f"The lockfile {shown} cannot be read: {error.strerror}. {HINT_DOCTOR}") from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_SIZE:
        raise SAMPHubError(f"{shown} is not a SAMP lockfile: it is too large. {HINT_REMOVE_LOCKFILE}")
    return content


def _fetch(url: str) -> bytes:
    """Get a lockfile from a web server, with a timeout and without following redirects."""
    try:
        return http_get(url, MAX_SIZE, FETCH_TIMEOUT)
    except SAMPError as error:
        reason = str(error).rstrip(".")
        raise SAMPHubError(
            f"The lockfile {url}, which SAMP_HUB names, cannot be read: {reason}. {HINT_DOCTOR}"
        ) from error


def ping_hub(params: Mapping[str, str], timeout: float = PING_TIMEOUT, *, operation: str = "samp.hub.ping") -> bool:
    """Ping the hub of a lockfile; return whether it responds. A program that is not a hub may now use its port."""
    hub = XMLRPCClient(params["samp.hub.xmlrpc.url"], timeout=timeout)
    try:
        hub.call(operation)
    except SAMPError as error:
        log.debug("The hub of the lockfile does not respond: %s", error)
        return False
    finally:
        hub.close()
    return True


def get_main_running_hub() -> dict[str, str]:
    """
    Find the hub that clients should use, from the lockfile in ``SAMP_HUB`` or else from ``~/.samp``.

    Returns
    -------
    dict of str to str
        The content of its lockfile.

    Raises
    ------
    SAMPHubError
        No hub is running. The error text contains advice.
    """
    source = lockfile_source()
    params = read_lockfile(source)
    if not ping_hub(params):
        raise SAMPHubError(
            f"No SAMP hub is running (the hub of {display_path(source)} does not respond at "
            f"{params['samp.hub.xmlrpc.url']}). {HINT_START_HUB}"
        )
    return params
