# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The user at the other end of a loopback connection.

Every user of a machine may connect to a port of the loopback address. Linux lists the owners of sockets in a table that
all users may read. On other systems the user is not known.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

#: Each line describes a socket: its number, its own address, the address at the other end, and so on.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _USER = 1, 2, 7
ROOT = 0


def is_other_user(peer: tuple[str, int], port: int) -> bool:
    """
    Whether a connection is known to come from a user that is neither root nor the one that runs this process.

    ``peer`` is the address and port at the other end, ``port`` that at this end.
    """
    uid = get_peer_uid(peer, port)
    return uid is not None and uid not in (ROOT, os.geteuid())


def get_peer_uid(peer: tuple[str, int], port: int, tables: Iterable[Path] = TABLES) -> int | None:
    """Return the number of the user at the other end of a connection, or None if it is not known."""
    ends = {f"{address}:{peer[1]:04X}" for address in _proc_addresses(peer[0])}
    for table in tables:
        try:
            lines = table.read_text("ascii").splitlines()
        except (OSError, ValueError) as error:  # the system has no such table, or hides it
            log.debug("%s does not list the owners of connections: %s", table, error)
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > _USER and fields[_LOCAL] in ends and fields[_REMOTE].endswith(f":{port:04X}"):
                return int(fields[_USER])
    return None


def _proc_addresses(address: str) -> list[str]:
    """Return an address as in the tables: hexadecimal, four bytes at a time in native order; IPv4 also as IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    packed = [ip.packed]
    if ip.version == 4:
        packed.append(ipaddress.IPv6Address(f"::ffff:{ip}").packed)
    return ["".join(f"{int.from_bytes(p[i : i + 4], sys.byteorder):08X}" for i in range(0, len(p), 4)) for p in packed]
