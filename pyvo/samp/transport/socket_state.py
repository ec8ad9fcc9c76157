# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What the operating system knows of a connection that the other side has closed."""

from __future__ import annotations

import socket
import sys

try:
    import fcntl
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

__all__ = ["left_something_unread"]


def left_something_unread(sock: socket.socket) -> bool:
    """
    Tell whether the other side has closed a connection without having read all that was sent to it.

    Its system tells of that by a reset. The reset may be still on its way; but closing after having read something
    acknowledges that, so what is not acknowledged was not read.

    Parameters
    ----------
    sock : socket.socket
        Our end, of which the other's has been seen to be closed. An error that it holds is taken from it.
    """
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return True
    if termios is None:
        return False
    count = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(count, sys.byteorder) > 0
