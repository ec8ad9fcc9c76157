# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Frames in a stream of bytes, without I/O.

Each end first writes `PREAMBLE`. Bytes before it do not belong to the protocol; they may be the output of a shell's
start-up files. Frames follow: kind (one byte), stream (four), length of the payload (four, big endian), payload.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import SAMPError
from .link import Kind

PREAMBLE = b"SAMP-BRIDGE\n"
#: Bytes that may come before the preamble.
MAX_NOISE = 64 * 1024
MAX_PAYLOAD = 64 * 1024
#: Kinds from this one on are ignored if they are unknown: a later version may add some.
FIRST_OPTIONAL = 128

_HEAD = struct.Struct("!BII")
_KINDS = {int(kind): kind for kind in Kind}


class FrameError(SAMPError):
    """The peer has violated the protocol; the link ends."""


class Frame(NamedTuple):
    """One frame."""

    kind: Kind
    stream: int
    payload: bytes


def encode_frame(kind: Kind, payload: bytes | memoryview = b"", stream: int = 0) -> bytes:
    """Return the bytes of a frame."""
    return b"".join((_HEAD.pack(kind, stream, len(payload)), payload))


class FrameReader:
    """Parses the bytes of a peer: `receive_data` appends bytes as they arrive, `next_frame` returns the frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0  # of what has not been returned
        self._searched = 0
        self.has_preamble = False
        #: What came before the preamble.
        self.noise = b""

    def receive_data(self, data: bytes) -> None:
        """Append bytes; raise `FrameError` if there is too much before the preamble."""
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += data
        if not self.has_preamble:
            self._find_preamble()

    def next_frame(self) -> Frame | None:
        """Return the next complete frame, or None; raise `FrameError` for a frame that is not allowed."""
        while self.has_preamble and len(self._buffer) >= self._start + _HEAD.size:
            number, stream, length = _HEAD.unpack_from(self._buffer, self._start)
            if length > MAX_PAYLOAD:
                raise FrameError(f"A frame of {length} bytes is longer than {MAX_PAYLOAD}")
            kind = _KINDS.get(number)
            if kind is None and number < FIRST_OPTIONAL:
                raise FrameError(f"Unknown frame of kind {number}")
            start, end = self._start + _HEAD.size, self._start + _HEAD.size + length
            if len(self._buffer) < end:
                return None
            self._start = end
            if kind is not None:
                return Frame(kind, stream, bytes(memoryview(self._buffer)[start:end]))
        return None

    def _find_preamble(self) -> None:
        start = self._buffer.find(PREAMBLE, max(0, self._searched - len(PREAMBLE)))
        self._searched = len(self._buffer)
        self.noise = bytes(self._buffer[: MAX_NOISE if start < 0 else start])
        if start >= 0:
            self.has_preamble = True
            del self._buffer[: start + len(PREAMBLE)]
        if (self._searched if start < 0 else start) > MAX_NOISE:
            raise FrameError("The other end is not a bridge: it did not send the preamble of the protocol")
