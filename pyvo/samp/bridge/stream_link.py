# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A link over a stream of bytes: the pipes of ssh, or a socket.

Theory of operation
-------------------
Each link has three threads. One reads, one writes, and one starts the other two and checks the time: it ends a link
without HELLO, pings an idle peer, and closes a link whose peer does not respond.

There are three queues for writing. Frames of the link itself (credit, pings, heads of files) are written first. The
messages of the engine and the contents of files alternate, so that they do not delay each other.

Flow control limits the bytes that each end has to buffer: an end may send only as many bytes as it has *credit* for.
Messages have a credit of `WINDOW` bytes on stream 0, which is returned when the engine has handled them. Each file is a
stream of its own with the same credit, which is returned when the reader has read the bytes. A message that is longer
than a frame is sent as DATA on a stream of its own, followed by an empty frame of its kind on that stream. Only one
such message is sent at a time.

The end that was started by the user numbers its streams with odd numbers, the other one with even numbers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol

from ..errors import SAMPValueError
from ..protocol.values import sanitize_for_display
from ..transport.file_serving import FileError
from .framing import MAX_PAYLOAD, PREAMBLE, Frame, FrameError, FrameReader, encode_frame
from .link import (
    MAX_MESSAGE,
    MAX_QUEUED,
    MAX_TRANSFERS,
    Accept,
    BridgeRefusedError,
    Hello,
    Kind,
    Link,
    LinkHandler,
    check_protocol,
    encode_json,
    parse_json,
)

log = logging.getLogger(__name__)

#: Bytes that may be in transit in one stream.
WINDOW = 1024 * 1024
#: Bytes of one file that wait for the writer.
MAX_UPLOAD_QUEUED = 4 * MAX_PAYLOAD
#: Frames of the link itself that may be queued; a peer that causes more of them does not read the responses.
MAX_CONTROL = 10_000
#: Seconds to wait for the peer's preamble and HELLO.
HELLO_TIMEOUT = 20.0
#: Seconds without a frame before a ping, and until the link is closed.
PING_INTERVAL = 15.0
SILENCE_TIMEOUT = 45.0
#: Seconds to wait for the response to a request for a file.
HEAD_TIMEOUT = 60.0
#: Seconds to write the last frames of a link that is being closed.
CLOSE_TIMEOUT = 2.0
READ_SIZE = 256 * 1024

_MESSAGES = range(Kind.CLIENT, Kind.REPLY + 1)


class ByteStream(Protocol):
    """Bytes in both directions; one thread reads and another one writes."""

    def read(self, size: int, /) -> bytes:
        """Wait for bytes, and return up to ``size`` of them; empty bytes at the end. Raise `OSError` on failure."""

    def write(self, data: bytes, /) -> object:
        """Write all bytes. Raise `OSError` on failure."""

    def interrupt(self) -> object:
        """Make a waiting `read` or `write` return or raise; called in any thread, perhaps repeatedly."""


class StreamLink(Link):
    """
    A link over a stream of bytes.

    Parameters
    ----------
    stream : ByteStream
        The stream.
    hello : Hello
        The HELLO to send to the peer.
    accept : callable
        See `Accept`.
    is_first : bool
        Whether the user started this end.
    label : str
        The displayed name of the peer; by default the one in its HELLO.
    on_end : callable
        Called with the reason and an exit status (0 if it may be tried again) when no thread uses the stream any more.
    """

    def __init__(
        self,
        stream: ByteStream,
        hello: Hello,
        accept: Accept,
        *,
        is_first: bool,
        label: str = "",
        on_end: Callable[[str, int], object],
    ) -> None:
        self.label = label
        self._stream = stream
        self._hello, self._accept, self._on_end = hello, accept, on_end
        self._frames = FrameReader()
        self._handler: LinkHandler | None = None
        self._lock = threading.RLock()
        self._to_write = threading.Condition(self._lock)
        self._streams_changed = threading.Condition(self._lock)
        self._state_changed = threading.Condition(self._lock)
        self._control: deque[bytes] = deque([PREAMBLE, encode_frame(Kind.HELLO, hello.encode())])
        self._messages: deque[tuple[Kind, bytes]] = deque()
        self._data: deque[tuple[_Upload, bytes]] = deque()
        self._queued = 0  # bytes of messages
        self._was_full = False
        self._data_next = False
        self._credit = WINDOW  # for messages
        self._fragments: _Fragments | None = None  # the long message that is being sent
        self._assembly: tuple[int, bytearray] | None = None  # the long message that is arriving
        self._pending_credit = 0  # for it
        self._unhandled = 0  # bytes of messages that the engine has not handled
        self._parity = 1 if is_first else 0
        self._last_stream = self._parity
        self._downloads: dict[int, _Download] = {}
        self._uploads: dict[int, _Upload] = {}
        self._last_received = time.monotonic()
        self._is_closing = False
        self._is_closed_reported = False
        self._ended: tuple[str, int] | None = None
        self._finished = threading.Event()
        self._threads = self._reader, self._writer, self._watch = [
            threading.Thread(target=target, name=f"samp-bridge-{name}", daemon=True)
            for name, target in (("read", self._run_reader), ("write", self._run_writer), ("watch", self._run_watch))
        ]

    def start(self) -> None:
        """Start the threads."""
        # This thread starts the others, so that a signal that interrupts this call leaves none of them unstarted
        self._watch.start()

    def join(self, timeout: float) -> None:
        """Wait until the link has ended; return at once in a thread of the link."""
        if threading.current_thread() not in self._threads:
            self._finished.wait(timeout)

    # Interface to the engine

    def send(self, kind: Kind, payload: bytes) -> None:
        """Queue a message; see `Link.send`."""
        with self._lock:
            if self._is_open:
                self._messages.append((kind, payload))
                self._queued += len(payload)
                self._was_full = self._was_full or self._queued >= MAX_QUEUED
                self._to_write.notify()

    @property
    def is_writable(self) -> bool:
        """Whether there is room in the queue; see `Link.is_writable`."""
        return self._queued < MAX_QUEUED

    def fetch(self, offer: str, method: str, headers: Mapping[str, str]) -> _Download:
        """Ask for a file; see `Link.fetch`."""
        with self._lock:
            if not self._is_open:
                raise FileError(502, "The link to the machine with the file is closed")
            if len(self._downloads) >= MAX_TRANSFERS:
                raise FileError(503, "Too many files are being read", [("Retry-After", "1")])
            stream = self._new_stream()
            download = self._downloads[stream] = _Download(self, stream)
            request = encode_json({"offer": offer, "method": method, "headers": dict(headers)})
            self._put(Kind.OPEN, request, stream)
        return download.wait_for_head()

    def close(self, reason: str, status: int = 0) -> None:
        """Send BYE and end the link; see `Link.close`."""
        with self._lock:
            if not self._is_closing:
                self._is_closing = True
                self._ended = self._ended or (reason, status)
                self._messages.clear()
                self._data.clear()
                self._fragments = None
                self._state_changed.notify()
                self._put(Kind.BYE, encode_json({"reason": reason, "status": status}))

    # Sending

    @property
    def _is_open(self) -> bool:
        return self._ended is None

    def _put(self, kind: Kind, payload: bytes = b"", stream: int = 0) -> None:
        """Queue a frame of the link itself."""
        with self._lock:
            if len(self._control) >= MAX_CONTROL:
                self._end("the other end does not read the responses to its requests")
                return
            self._control.append(encode_frame(kind, payload, stream))
            self._to_write.notify()

    def _new_stream(self) -> int:
        self._last_stream = (self._last_stream + 2) & 0xFFFFFFFF or 2
        return self._last_stream

    def _run_writer(self) -> None:
        try:
            while True:
                with self._lock:
                    while (data := self._next_write()) is None:
                        if self._ended is not None:
                            return
                        self._to_write.wait()
                    is_writable_again = self._was_full and self._queued < MAX_QUEUED // 2
                    self._was_full = self._was_full and not is_writable_again
                if is_writable_again and self._handler is not None:
                    self._handler.on_writable()
                self._stream.write(data)
        except OSError as error:
            if self._frames.has_preamble:  # otherwise the reader reports the end, with what the other end printed
                self._end(f"the connection was lost ({error.strerror or error})")
        finally:
            if self._ended is not None:
                self._stream.interrupt()

    def _next_write(self) -> bytes | None:
        """Return the bytes to be written next; with the lock."""
        if self._control:
            data = b"".join(self._control)
            self._control.clear()
            return data
        if self._ended is not None:
            return None
        lanes = (self._next_data, self._next_message) if self._data_next else (self._next_message, self._next_data)
        self._data_next = not self._data_next
        return lanes[0]() or lanes[1]()

    def _next_data(self) -> bytes | None:
        if not self._data:
            return None
        upload, chunk = self._data.popleft()
        upload.queued -= len(chunk)
        self._streams_changed.notify_all()
        return encode_frame(Kind.DATA, chunk, upload.stream)

    def _next_message(self) -> bytes | None:
        if self._fragments is None:
            size = len(self._messages[0][1]) if self._messages else 0
            if not self._messages or self._credit < size <= MAX_PAYLOAD:
                return None
            kind, payload = self._messages.popleft()
            if size <= MAX_PAYLOAD:
                self._queued -= size
                self._credit -= size
                return encode_frame(kind, payload)
            self._fragments = _Fragments(kind, payload, self._new_stream())
        fragments = self._fragments
        if fragments.rest:
            chunk = fragments.next()
            self._queued -= len(chunk)
            return encode_frame(Kind.DATA, chunk, fragments.stream) if chunk else None
        self._fragments = None
        return encode_frame(fragments.kind, b"", fragments.stream)

    # Receiving

    def _run_reader(self) -> None:
        try:
            while data := self._stream.read(READ_SIZE):
                self._last_received = time.monotonic()
                self._frames.receive_data(data)
                while (frame := self._frames.next_frame()) is not None:
                    if not self._is_open:
                        return
                    self._receive(frame)
            self._end(self._end_of_input())
        except BridgeRefusedError as error:
            self.close(str(error), error.status)
        except (FrameError, SAMPValueError) as error:
            log.warning("The bridge to %s is closed, because that end violated the protocol: %s", self._name(), error)
            self.close(f"the other end violated the protocol: {error}")
        except OSError as error:
            self._end(f"the connection was lost ({error.strerror or error})")
        except Exception:
            log.exception("The link failed")
            self.close("an internal error")

    def _end_of_input(self) -> str:
        noise = sanitize_for_display(self._frames.noise.decode(errors="replace"), 300)
        if self._frames.has_preamble:
            return "the other end has closed the connection"
        return "the other end did not start a bridge" + (f"; it printed: {noise}" if noise else "")

    def _name(self) -> str:
        return sanitize_for_display(self.label) or "the other end"

    def _receive(self, frame: Frame) -> None:
        kind, stream, payload = frame
        if self._handler is None:
            self._receive_first(kind, payload)
        elif kind in _MESSAGES:
            self._receive_message(kind, stream, payload)
        elif (receive := self._RECEIVERS.get(kind)) is not None:
            receive(self, stream, payload)
        else:
            raise FrameError(f"Unexpected frame {kind.name}")

    def _receive_first(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.BYE:
            self._receive_bye(0, payload)
            return
        if kind is not Kind.HELLO:
            raise FrameError(f"The first frame is {kind.name}, not HELLO")
        self.peer = Hello.parse(payload)
        check_protocol(self._hello, self.peer)
        self.label = self.label or self.peer.label
        handler = self._accept(self)
        with self._lock:
            self._handler, ended = handler, self._ended
            self._state_changed.notify()
        if ended is not None:
            self._report_closed(ended[0])

    def _receive_message(self, kind: Kind, stream: int, payload: bytes) -> None:
        assert self._handler is not None
        with self._lock:
            if stream:
                if payload or self._assembly is None or self._assembly[0] != stream:
                    raise FrameError("Unexpected end of a long message")
                payload, self._assembly, self._pending_credit = bytes(self._assembly[1]), None, 0
            self._unhandled += len(payload)
            if self._unhandled > 2 * WINDOW + MAX_QUEUED + MAX_MESSAGE:
                raise FrameError("Messages exceed the credit")
        self._handler.receive(kind, payload, lambda: self._on_handled(len(payload), is_long=stream != 0))

    def _on_handled(self, size: int, *, is_long: bool) -> None:
        """Return the credit for a message that the engine has handled."""
        with self._lock:
            self._unhandled -= size
            if not is_long and size:
                self._put_credit(0, size)
            self._grant()

    def _grant(self) -> None:
        """Return credit for the long message that is arriving, unless too many bytes wait for the engine."""
        if self._pending_credit and self._assembly is not None and self._unhandled < MAX_QUEUED:
            self._put_credit(self._assembly[0], self._pending_credit)
            self._pending_credit = 0

    def _put_credit(self, stream: int, size: int) -> None:
        if self._is_open:
            self._put(Kind.CREDIT, size.to_bytes(4), stream)

    def _receive_data(self, stream: int, payload: bytes) -> None:
        if stream % 2 == self._parity:
            download = self._downloads.get(stream)
            if download is not None:  # if not, its reader has closed it
                download.add(payload)
            return
        with self._lock:
            if self._assembly is None:
                self._assembly = (stream, bytearray())
            if self._assembly[0] != stream:
                raise FrameError("A second long message starts before the end of the first")
            if len(self._assembly[1]) + len(payload) > MAX_MESSAGE:
                raise FrameError(f"A message is longer than {MAX_MESSAGE} bytes")
            self._assembly[1].extend(payload)
            self._pending_credit += len(payload)
            if self._pending_credit > WINDOW:
                raise FrameError("A long message exceeds the credit")
            self._grant()

    def _receive_credit(self, stream: int, payload: bytes) -> None:
        size = int.from_bytes(payload)
        with self._lock:
            if not stream:
                self._credit = _more_credit(self._credit, size)
            elif stream in self._uploads:
                self._uploads[stream].credit = _more_credit(self._uploads[stream].credit, size)
            elif self._fragments is not None and self._fragments.stream == stream:
                self._fragments.credit = _more_credit(self._fragments.credit, size)
            self._to_write.notify()
            self._streams_changed.notify_all()

    def _receive_open(self, stream: int, payload: bytes) -> None:
        request = parse_json(payload)
        offer, method, headers = (request.get(name) for name in ("offer", "method", "headers"))
        if not (isinstance(offer, str) and method in ("GET", "HEAD") and isinstance(headers, dict)):
            raise FrameError("A request for a file is invalid")
        if not all(isinstance(value, str) for value in headers.values()):
            raise FrameError("The headers of a request are invalid")
        with self._lock:
            if stream % 2 == self._parity or stream == 0 or stream in self._uploads:
                raise FrameError("A request uses the number of another stream")
            if len(self._uploads) >= MAX_TRANSFERS:
                reset = encode_json({"reason": "Too many files are being read", "status": 503})
                self._put(Kind.RESET, reset, stream)
                return
            upload = self._uploads[stream] = _Upload(self, stream)
        assert self._handler is not None
        self._handler.serve(offer, str(method), headers, upload)

    def _receive_head(self, stream: int, payload: bytes) -> None:
        head = parse_json(payload)
        status, headers = head.get("status"), head.get("headers")
        if not (type(status) is int and 200 <= status < 600 and isinstance(headers, list) and len(headers) <= 50):
            raise FrameError("The head of a file is invalid")
        pairs = [tuple(pair) for pair in headers if isinstance(pair, list) and len(pair) == 2]
        if len(pairs) != len(headers) or not all(isinstance(text, str) for pair in pairs for text in pair):
            raise FrameError("The headers of a file are invalid")
        if (download := self._downloads.get(stream)) is not None:
            download.set_head(status, pairs)

    def _receive_end(self, stream: int, _payload: bytes) -> None:
        if (download := self._downloads.get(stream)) is not None:
            download.end()

    def _receive_reset(self, stream: int, payload: bytes) -> None:
        value = parse_json(payload)
        reason, status = sanitize_for_display(str(value.get("reason", ""))), value.get("status")
        with self._lock:
            if (download := self._downloads.get(stream)) is not None:
                download.end(reason or "the transfer was ended", status if status in (404, 503) else 502)
            if (upload := self._uploads.pop(stream, None)) is not None:
                upload.ended = True
            self._streams_changed.notify_all()

    def _receive_ping(self, _stream: int, payload: bytes) -> None:
        self._put(Kind.PONG, payload[:64])

    def _receive_pong(self, _stream: int, _payload: bytes) -> None:
        """Do nothing: the time has been noted."""

    def _receive_bye(self, _stream: int, payload: bytes) -> None:
        bye = parse_json(payload)
        status = bye.get("status")
        self._end(sanitize_for_display(str(bye.get("reason", "")), 300), status if type(status) is int else 0)

    _RECEIVERS: Mapping[Kind, Callable[[StreamLink, int, bytes], None]] = {
        Kind.OPEN: _receive_open,
        Kind.HEAD: _receive_head,
        Kind.DATA: _receive_data,
        Kind.END: _receive_end,
        Kind.RESET: _receive_reset,
        Kind.CREDIT: _receive_credit,
        Kind.PING: _receive_ping,
        Kind.PONG: _receive_pong,
        Kind.BYE: _receive_bye,
    }

    # Time and end

    def _end(self, reason: str, status: int = 0) -> None:
        """End the link without a frame to the peer."""
        with self._lock:
            self._ended = self._ended or (reason, status)
            self._to_write.notify()
            self._state_changed.notify()
        self._stream.interrupt()

    def _run_watch(self) -> None:
        self._reader.start()
        self._writer.start()
        started = pinged = time.monotonic()
        with self._lock:
            while self._ended is None:
                now = time.monotonic()
                if self._handler is None:
                    due = started + HELLO_TIMEOUT
                    if now >= due:
                        self._end(f"{self._end_of_input()} within {HELLO_TIMEOUT:.0f} s")
                else:
                    due = max(self._last_received, pinged) + PING_INTERVAL
                    if now >= self._last_received + SILENCE_TIMEOUT:
                        self._end(f"the other end has been silent for {SILENCE_TIMEOUT:.0f} s")
                    elif now >= due:
                        pinged = now
                        self._put(Kind.PING)
                self._state_changed.wait(max(0.0, due - now))
            reason, status = self._ended
        self._writer.join(CLOSE_TIMEOUT)  # it may still have a BYE to write
        self._stream.interrupt()
        self._end_streams()
        self._report_closed(reason)
        self._reader.join()
        self._writer.join()
        self._on_end(reason, status)
        self._finished.set()

    def _report_closed(self, reason: str) -> None:
        with self._lock:
            if self._handler is None or self._is_closed_reported:
                return
            self._is_closed_reported = True
        self._handler.on_closed(reason)

    def _end_streams(self) -> None:
        with self._lock:
            for download in self._downloads.values():
                download.end("the bridge was lost")
            for upload in self._uploads.values():
                upload.ended = True
            self._uploads.clear()
            self._messages.clear()
            self._data.clear()
            self._queued = 0
            self._streams_changed.notify_all()
        if self._handler is not None:
            self._handler.on_writable()  # deferred deliveries can be acknowledged


def _more_credit(credit: int, size: int) -> int:
    if credit + size > WINDOW:
        raise FrameError("The returned credit exceeds the used one")
    return credit + size


class _Fragments:
    """A long message that is being sent in pieces."""

    def __init__(self, kind: Kind, payload: bytes, stream: int) -> None:
        self.kind, self.stream = kind, stream
        self.rest = memoryview(payload)
        self.credit = WINDOW

    def next(self) -> memoryview:
        size = min(MAX_PAYLOAD, self.credit)
        chunk, self.rest = self.rest[:size], self.rest[size:]
        self.credit -= len(chunk)
        return chunk


class _Download:
    """A file of the peer; see `Download`. The lock of the link protects its state."""

    def __init__(self, link: StreamLink, stream: int) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self._link, self._stream = link, stream
        self._changed = link._streams_changed
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_ended = False
        self._error = ""
        self._error_status = 502

    def wait_for_head(self) -> _Download:
        with self._changed:
            self._changed.wait_for(lambda: self.status or self._is_ended, HEAD_TIMEOUT)
            if self.status:
                return self
        self.close()
        raise FileError(self._error_status if self._error else 504, self._error or "The other machine does not respond")

    def read(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._is_ended)
            if self._chunks:
                chunk = self._chunks.popleft()
                self._size -= len(chunk)
                if not self._is_ended:
                    self._link._put_credit(self._stream, len(chunk))
                return chunk
            if self._error:
                raise ConnectionAbortedError(self._error)
            return b""

    def close(self) -> None:
        with self._changed:
            if self._link._downloads.pop(self._stream, None) is not None and not self._is_ended:
                if self._link._is_open:
                    self._link._put(Kind.RESET, encode_json({"reason": "the reader has stopped"}), self._stream)
                self.end("the reader has stopped")
            self._chunks.clear()

    def set_head(self, status: int, headers: list[Any]) -> None:
        with self._changed:
            self.status, self.headers = self.status or status, self.headers or headers
            self._changed.notify_all()

    def add(self, chunk: bytes) -> None:
        with self._changed:
            self._size += len(chunk)
            if self._size > WINDOW or not self.status:
                raise FrameError("A file exceeds the credit")
            if not self._is_ended:
                self._chunks.append(chunk)
            self._changed.notify_all()

    def end(self, error: str = "", status: int = 502) -> None:
        with self._changed:
            if not self._is_ended:
                self._is_ended, self._error, self._error_status = True, error, status
            self._changed.notify_all()


class _Upload:
    """A file for the peer; see `Upload`. The lock of the link protects its state."""

    def __init__(self, link: StreamLink, stream: int) -> None:
        self.stream = stream
        self.credit = WINDOW
        self.queued = 0
        self.ended = False
        self._link = link
        self._changed = link._streams_changed

    def send_head(self, status: int, headers: list[tuple[str, str]]) -> None:
        with self._changed:
            self._check_open()
            self._link._put(Kind.HEAD, encode_json({"status": status, "headers": headers}), self.stream)

    def sendall(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        while view:
            with self._changed:
                self._changed.wait_for(lambda: self.ended or (self.credit > 0 and self.queued < MAX_UPLOAD_QUEUED))
                self._check_open()
                chunk = bytes(view[: min(MAX_PAYLOAD, self.credit)])
                self.credit -= len(chunk)
                self.queued += len(chunk)
                self._link._data.append((self, chunk))
                self._link._to_write.notify()
            view = view[len(chunk) :]

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None, /) -> int:
        file.seek(offset)
        sent = 0
        while count is None or sent < count:
            chunk = file.read(MAX_PAYLOAD if count is None else min(MAX_PAYLOAD, count - sent))
            if not chunk:
                break
            self.sendall(chunk)
            sent += len(chunk)
        return sent

    def finish(self, *, complete: bool) -> None:
        with self._changed:
            # Queued bytes are sent before END
            self._changed.wait_for(lambda: self.ended or not self.queued)
            if self._link._uploads.pop(self.stream, None) is None:
                return
            self.ended = True
            if complete:
                self._link._put(Kind.END, stream=self.stream)
            else:
                self._link._put(Kind.RESET, encode_json({"reason": "the file was read only in part"}), self.stream)

    def _check_open(self) -> None:
        if self.ended:
            raise BrokenPipeError("The reader has ended the transfer")
