# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which user of this machine is at the other end of a loopback connection.

Every user may connect to a port of the loopback address. Linux tells whose socket is there, in a table that anybody may
read; where it cannot be told nothing is known, and None is the answer.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["get_peer_uid", "is_other_user"]

log = logging.getLogger(__name__)

#: Each line tells of a socket: its number, its own address, the address at the other end, and so on.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _USER = 1, 2, 7
ROOT = 0


def is_other_user(peer: tuple[str, int], port: int) -> bool:
    """
    Whether a connection is known to come from another user than the one who runs this process, and not from root.

    Parameters
    ----------
    peer : tuple of (str, int)
        Address and port at the other end.
    port : int
        The port at this end.
    """
    user = get_peer_uid(peer, port)
    return user is not None and user not in (ROOT, os.geteuid())


def get_peer_uid(peer: tuple[str, int], port: int, tables: Iterable[Path] = TABLES) -> int | None:
    """
    Find whose socket is at the other end of a connection.

    Parameters
    ----------
    peer : tuple of (str, int)
        Address and port at the other end.
    port : int
        The port at this end.
    tables : iterable of Path
        Where the system tells.

    Returns
    -------
    int or None
        The user's number; None where it cannot be told.
    """
    ends = {f"{address}:{peer[1]:04X}" for address in _proc_addresses(peer[0])}
    for table in tables:
        try:
            lines = table.read_text("ascii").splitlines()
        except (OSError, ValueError) as error:  # another system, or one that is locked up
            log.debug("%s does not tell whose connections there are: %s", table, error)
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > _USER and fields[_LOCAL] in ends and fields[_REMOTE].endswith(f":{port:04X}"):
                return int(fields[_USER])
    return None


def _proc_addresses(address: str) -> list[str]:
    """How the tables write an address: in hexadecimal, each four bytes in this machine's order; IPv4 also as IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    packed = [ip.packed]
    if ip.version == 4:
        packed.append(ipaddress.IPv6Address(f"::ffff:{ip}").packed)
    return ["".join(f"{int.from_bytes(p[i : i + 4], sys.byteorder):08X}" for i in range(0, len(p), 4)) for p in packed]
