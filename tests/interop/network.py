# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A new network, in which even the fixed port 21012 is free.

The Web Profile has one port for the whole machine, so two test runs, or a TOPCAT on the same screen, would conflict.
Linux can give a thread, and all threads and processes that it starts, a new network that has only the loopback
interface.
"""
from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

WEB_PORT = 21012

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


@contextmanager
def own_network() -> Iterator[None]:
    """Move this thread, and all that it starts in the block, to a network in which `WEB_PORT` is free.

    This needs Linux and root. Otherwise the network of the machine is used, and the test is skipped if the port is in
    use there.
    """
    try:
        old = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    except OSError:
        _need_free_port("there are no network namespaces here")
        yield
        return
    try:
        problem = _call("unshare", _CLONE_NEWNET)
        if problem is not None:
            _need_free_port(f"no network namespace: {problem}")
            yield
            return
        _start_loopback()
        try:
            yield
        finally:
            problem = _call("setns", old, _CLONE_NEWNET)
            assert problem is None, problem
    finally:
        os.close(old)


def _call(name: str, *arguments: int) -> str | None:
    """Call a function of libc; return the error. Python itself has these two functions from 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*arguments) == 0:
        return None
    return os.strerror(ctypes.get_errno())


def _start_loopback() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _need_free_port(reason: str) -> None:
    with closing(socket.socket()) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", WEB_PORT))
        except OSError as error:
            pytest.skip(f"port {WEB_PORT} is in use ({error}), and {reason}")
