# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The body of an HTTP message as it arrives: of known length, in chunks, or until the end; packed or not."""

from __future__ import annotations

import zlib

__all__ = ["Body", "HTTPError"]


class HTTPError(Exception):
    """
    A request or an answer that breaks HTTP or a limit.

    Parameters
    ----------
    status : int
        The HTTP status that says so.
    text : str
        What is wrong with it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Body:
    """A body that is arriving: of known length, in chunks, or until the connection closes."""

    def __init__(self, headers: dict[str, str], limit: int, length: int | None, *, until_close: bool = False) -> None:
        coding = headers.get("transfer-encoding", "").lower()
        if coding and coding != "chunked":
            raise HTTPError(501, "The transfer encoding is not known here")
        if coding and length is not None:
            raise HTTPError(400, "Both a length and chunks are announced")
        packing = headers.get("content-encoding", "identity").lower()
        if packing not in ("identity", "gzip", "x-gzip"):
            raise HTTPError(415, "The content encoding is not known here")
        self._packed = packing != "identity"
        self._limit = limit
        self._remaining = length
        self._chunked = bool(coding)
        self._until_close = until_close and not coding and length is None
        self._chunk_left = 0
        self._after_chunk = False
        self._in_trailer = False
        self._parts: list[bytes] = []
        self.size = 0

    @property
    def expected(self) -> int:
        """How many bytes are known to be still to come."""
        return self._remaining or 0

    def take(self, buffer: bytearray) -> bool:
        """Move what belongs to the body out of ``buffer``; True when the body is complete."""
        if self._chunked:
            return self._take_chunks(buffer)
        if self._until_close:
            self._add(bytes(buffer))
            buffer.clear()
            return False
        remaining = self._remaining or 0
        if buffer and remaining:
            part = bytes(buffer[:remaining])
            del buffer[:remaining]
            self._add(part)
            self._remaining = remaining = remaining - len(part)
        return not remaining

    def value(self) -> bytes:
        """The body, unpacked."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return _unzip(data, self._limit) if self._packed else data

    def _add(self, part: bytes) -> None:
        if part:
            self.size += len(part)
            if self.size > self._limit:
                raise HTTPError(413, f"The body is longer than {self._limit} bytes")
            self._parts.append(part)

    def _take_chunks(self, buffer: bytearray) -> bool:
        while True:
            if self._chunk_left:
                part = bytes(buffer[: self._chunk_left])
                if not part:
                    return False
                del buffer[: len(part)]
                self._chunk_left -= len(part)
                self._add(part)
                self._after_chunk = not self._chunk_left
                continue
            line = self._take_line(buffer)
            if line is None:
                return False
            if self._after_chunk:
                if line:
                    raise HTTPError(400, "A chunk is longer than announced")
                self._after_chunk = False
            elif self._in_trailer:
                if not line:
                    return True
            else:
                self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip()
        if not digits or len(digits) > 12 or digits.strip(b"0123456789abcdefABCDEF"):
            raise HTTPError(400, "The length of a chunk is malformed")
        self._chunk_left = int(digits, 16)
        self._in_trailer = not self._chunk_left

    def _take_line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\n")
        if end < 0:
            if len(buffer) > 1024:
                raise HTTPError(400, "The length of a chunk is malformed")
            return None
        line = bytes(buffer[:end]).rstrip(b"\r")
        del buffer[: end + 1]
        return line


def _unzip(data: bytes, limit: int) -> bytes:
    """Unpack gzip, but never to more than ``limit`` bytes (a few kB can unpack to gigabytes)."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise HTTPError(400, "The body is not valid gzip") from error
    if len(plain) > limit:
        raise HTTPError(413, f"The unpacked body is longer than {limit} bytes")
    if not unpacker.eof:
        raise HTTPError(400, "The body is not complete gzip")
    return plain
