# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A stream of bytes on two descriptors: the pipes of ssh, or the standard streams of the other end."""

from __future__ import annotations

import os
import select
import threading

__all__ = ["PipeStream"]


class PipeStream:
    """
    What a `StreamLink` needs of a pipe to read and one to write, which it closes in the end.

    On Windows, where nothing can wait for two pipes, `interrupt` does not end a read or write that waits.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._can_select = os.name != "nt"
        if self._can_select:
            os.set_blocking(target, False)
        self._lock = threading.Lock()
        self._is_interrupted = False
        self._wake = os.pipe()
        self._first = b""

    def wait_for_first(self, timeout: float) -> bool:
        """Wait until there is something to read; return False at the end, after `interrupt`, or after the timeout."""
        if not self._can_select or select.select([self._source, self._wake[0]], [], [], timeout)[0]:
            self._first = self.read(1)
        return bool(self._first)

    def read(self, size: int) -> bytes:
        """Wait for bytes; return none at the end, and after `interrupt`."""
        if self._first:
            data, self._first = self._first, b""
            return data
        while True:
            if self._can_select:
                ready, _, _ = select.select([self._source, self._wake[0]], [], [])
                if self._wake[0] in ready:
                    return b""
            try:
                return os.read(self._source, size)
            except BlockingIOError:  # both pipes may be one socket
                continue

    def write(self, data: bytes) -> None:
        """Write all bytes; raise `OSError` if that is not possible, and after `interrupt`."""
        rest = memoryview(data)
        while rest:
            if self._can_select:
                ready, _, _ = select.select([self._wake[0]], [self._target], [])
                if ready:
                    raise BrokenPipeError("the link is closed")
            try:
                rest = rest[os.write(self._target, rest) :]
            except BlockingIOError:
                continue

    def interrupt(self) -> None:
        """Make `read` and `write` return or raise."""
        with self._lock:
            if not self._is_interrupted:
                self._is_interrupted = True
                os.write(self._wake[1], b"x")

    def close(self) -> None:
        """Close everything; no thread may read or write any more."""
        with self._lock:
            self._is_interrupted = True
            for descriptor in (self._source, self._target, *self._wake):
                os.close(descriptor)
