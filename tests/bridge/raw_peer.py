"""A peer whose frames the test sends and reads itself, over a pair of sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

from pyvo.samp.bridge.framing import PREAMBLE, Frame, FrameReader, encode_frame
from pyvo.samp.bridge.link import Accept, Hello, Kind, LinkState, Report, Transport
from pyvo.samp.bridge.local_pair import SocketStream
from pyvo.samp.bridge.stream_link import StreamLink

from .conftest import TIMEOUT

HELLO = {"protocol": [1, 1], "version": "0", "hub": "0123456789abcdef0123456789abcdef", "label": "raw"}


class RawTransport(Transport):
    """The transport of the bridge under test. Its ``peer`` is a `RawPeer`."""

    label = "raw"

    def __init__(self) -> None:
        self.peer: RawPeer
        self.link: StreamLink | None = None
        self.ended: list[tuple[str, int]] = []

    def start(self, hello: Hello, accept: Accept, report: Report) -> None:
        ours, theirs = socket.socketpair()
        self.peer = RawPeer(theirs)

        def on_end(reason: str, status: int) -> None:
            ours.close()
            self.ended.append((reason, status))
            report(LinkState.FAILED, reason, status)

        self.link = StreamLink(SocketStream(ours), hello, accept, is_first=True, on_end=on_end)
        self.link.start()

    def stop(self, reason: str = "") -> None:
        if self.link is not None:
            self.link.close(reason)
            self.link.join(TIMEOUT)
        self.peer.sock.close()


class RawPeer:
    """The peer of a bridge: it writes and reads frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(TIMEOUT)
        self._reader = FrameReader()
        self.frames: list[Frame] = []

    def start(self, **hello: Any) -> None:
        self.sock.sendall(PREAMBLE)
        self.send(Kind.HELLO, HELLO | hello)

    def send(self, kind: int, value: Any = b"", stream: int = 0) -> None:
        payload = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.sock.sendall(encode_frame(kind, payload, stream))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Frame]:
        while True:
            while (frame := self._reader.next_frame()) is not None:
                self.frames.append(frame)
                yield frame
            data = self.sock.recv(65536)
            if not data:
                return
            self._reader.receive_data(data)

    def wait_for(self, kind: Kind, accept: Callable[[Any], Any] = lambda value: True) -> Any:
        """Read frames until one of this kind has an accepted value; return the value."""
        for frame in self:
            if frame.kind is kind:
                value = json.loads(frame.payload) if frame.payload[:1] == b"{" else frame.payload
                if accept(value):
                    return value
        raise AssertionError(f"no {kind.name} among {self.frames}")

    def wait_for_end(self) -> str:
        """Read until the bridge closes the link; return the reason that it gives."""
        reasons = [json.loads(frame.payload)["reason"] for frame in self if frame.kind is Kind.BYE]
        return reasons[0] if reasons else ""
