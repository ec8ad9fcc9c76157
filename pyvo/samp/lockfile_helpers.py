# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Functions for lockfiles under the names that existing programs import, for compatibility."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .errors import SAMPHubError
from .lockfile import get_main_running_hub, ping_hub, read_lockfile
from .lockfile_writer import default_lockfile, multi_hub_lockfile, write_lockfile

__all__ = [
    "check_running_hub",
    "create_lock_file",
    "get_main_running_hub",
    "read_lockfile",
]


def create_lock_file(
    lockfilename: str | Path | None = None,
    mode: str | None = None,
    hub_id: str | None = None,
    hub_params: Mapping[str, str] | None = None,
) -> str:
    """
    Write the lockfile of a hub (R35, R36).

    Parameters
    ----------
    lockfilename : str or path, optional
        The path of the file; by default it depends on ``mode``.
    mode : {"single", "multiple"}, optional
        With ``"multiple"``, the file is in ``~/.samp-1``; otherwise it is the lockfile that clients read (R33).
    hub_id : str, optional
        Identifies the hub in ``"multiple"`` mode.
    hub_params : mapping of str to str
        Keys and values to write.

    Returns
    -------
    str
        The path of the file.

    Raises
    ------
    SAMPHubError
        Another hub is running, or the file cannot be written.
    """
    if lockfilename is not None:
        path = Path(lockfilename)
    elif mode == "multiple":
        path = multi_hub_lockfile(hub_id or "unnamed")
    else:
        path = default_lockfile()
    write_lockfile(path, hub_params or {})
    return str(path)


def check_running_hub(lockfilename: str | Path) -> tuple[bool, dict[str, str]]:
    """
    Check whether the hub of a lockfile is running.

    Parameters
    ----------
    lockfilename : str or path
        The lockfile, or its URL.

    Returns
    -------
    is_running : bool
        Whether the hub responds.
    hub_params : dict of str to str
        The content of the lockfile; empty if there is none.
    """
    try:
        params = read_lockfile(lockfilename)
    except SAMPHubError:
        return False, {}
    return ping_hub(params), params
