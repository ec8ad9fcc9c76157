# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The body of an HTTP message as it arrives: of known length, in chunks, or until the end; packed or not."""

from __future__ import annotations

import zlib

from . import Bytes

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
        #: Method and headers of the request, where they could be read.
        self.head: tuple[str, dict[str, str]] | None = None


#: Bytes that chunked coding may add to a body, besides eight for each byte of the body.
MAX_FRAMING = 64 * 1024
MAX_LINE = 1024
#: Bytes of a body that is not to be copied.
LARGE = 64 * 1024


class Body:
    """
    A body that is arriving: of known length, in chunks, or until the connection closes.

    Parameters
    ----------
    headers : dict of str to str
        The headers above it, names in lower case.
    limit : int
        Bytes that it may have, packed or unpacked.
    length : int, optional
        Its announced length.
    until_close : bool
        Whether a body without a length and without chunks goes on until the connection closes, as an answer's does.

    Raises
    ------
    HTTPError
        The headers contradict each other, or name a coding that is not known here.
    """

    def __init__(self, headers: dict[str, str], limit: int, length: int | None, *, until_close: bool = False) -> None:
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise HTTPError(501, "The transfer encoding is not known here")
        if coding is not None and length is not None:
            raise HTTPError(400, "Both a length and chunks are announced")
        packing = headers.get("content-encoding", "identity").lower()
        if packing not in ("identity", "gzip", "x-gzip"):
            raise HTTPError(415, "The content encoding is not known here")
        self._packed = packing != "identity"
        self._limit = limit
        self._remaining = length or 0
        self._chunked = coding is not None
        self._until_close = until_close and coding is None and length is None
        self._chunk_left = 0
        self._after_chunk = False
        self._in_trailer = False
        self._framing = 0
        self._data = bytearray()  # one object: a list of chunks of one byte would take fifty times their size

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return len(self._data)

    @property
    def expected(self) -> int:
        """How many bytes are known to be still to come."""
        return self._remaining

    def take_whole(self, data: bytes) -> bool:
        """Take a piece that is wholly the body's, without the way through a buffer; False if it is not."""
        if self._chunked or len(data) > self._remaining:
            return False
        self._data += data
        self._remaining -= len(data)
        return True

    def take(self, buffer: bytearray) -> bool:
        """Move what belongs to the body out of ``buffer``; True when the body is complete."""
        if self._chunked:
            return self._take_chunks(buffer)
        if self._until_close:
            self._move(buffer, len(buffer))
            return False
        self._remaining -= self._move(buffer, self._remaining)
        return not self._remaining

    def value(self) -> Bytes:
        """The body, unpacked."""
        if self._packed:
            return _unzip(self._data, self._limit)
        return self._data if len(self._data) > LARGE else bytes(self._data)

    def _move(self, buffer: bytearray, most: int) -> int:
        """Move up to ``most`` bytes from ``buffer`` to the body; how many it were."""
        size = min(len(buffer), most)
        if len(self._data) + size > self._limit:
            raise HTTPError(413, f"The body is longer than {self._limit} bytes")
        if size == len(buffer):
            self._data += buffer
            buffer.clear()
        else:
            self._data += buffer[:size]
            del buffer[:size]
        return size

    def _take_chunks(self, buffer: bytearray) -> bool:
        while True:
            if self._chunk_left:
                if not buffer:
                    return False
                self._chunk_left -= self._move(buffer, self._chunk_left)
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
        digits = line.partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > 12 or digits.strip(b"0123456789abcdefABCDEF"):
            raise HTTPError(400, "The length of a chunk is malformed")
        self._chunk_left = int(digits, 16)
        self._in_trailer = not self._chunk_left
        if len(self._data) + self._chunk_left > self._limit:
            raise HTTPError(413, f"The body is longer than {self._limit} bytes")

    def _take_line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\n", 0, MAX_LINE)
        if end < 0:
            if len(buffer) >= MAX_LINE:
                raise HTTPError(400, "A line between chunks is too long")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._framing += end + 1
        if self._framing > MAX_FRAMING + 8 * len(self._data):
            raise HTTPError(400, "The chunks bear more description than content")
        return line.removesuffix(b"\r")


def _unzip(data: Bytes, limit: int) -> bytes:
    """Unpack gzip, but never to more than ``limit`` bytes (a few kB can unpack to gigabytes)."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise HTTPError(400, "The body is not valid gzip") from error
    if len(plain) > limit:
        raise HTTPError(413, f"The unpacked body is longer than {limit} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise HTTPError(400, "The body is not one complete gzip file")
    return plain
