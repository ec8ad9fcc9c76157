# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A stream of bytes on two descriptors: the pipes of ssh, or the standard streams of the other end."""

from __future__ import annotations

import os
import select
import threading


class PipeStream:
    """
    A pipe to read and a pipe to write, as a `ByteStream`.

    On Windows, where a thread cannot wait for two pipes, `interrupt` does not end a waiting read or write.
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
        """Wait until there are bytes to read; return False at the end, after `interrupt`, or after the timeout."""
        if not self._can_select or select.select([self._source, self._wake[0]], [], [], timeout)[0]:
            self._first = self.read(1)
        return bool(self._first)

    def read(self, size: int) -> bytes:
        """Wait for bytes and return them; return empty bytes at the end and after `interrupt`."""
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
        """Write all bytes; raise `OSError` on failure and after `interrupt`."""
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
        """Close the pipes. No thread may use them at this time or later."""
        with self._lock:
            self._is_interrupted = True
            for descriptor in (self._source, self._target, *self._wake):
                os.close(descriptor)
