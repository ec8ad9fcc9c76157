# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The interface between the engine of a bridge and its transports.

A `Transport` makes a `Link` for each peer: one for ssh and for two hubs of one machine, many for NATS. The engine
provides a `LinkHandler` for each link. Frames of kinds up to `Kind.REPLY` pass in order from `Link.send` at one end to
`LinkHandler.receive` at the other. Files are transferred separately: `Link.fetch` at the receiver's end,
`LinkHandler.serve` at the sender's.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum, IntEnum
from typing import Any, BinaryIO, NamedTuple, Protocol

from ..errors import SAMPError, SAMPValueError

#: The lowest and the highest version of the protocol that this package supports.
PROTOCOLS = (1, 1)
#: Bytes of one message; a longer one is rejected.
MAX_MESSAGE = 64 * 1024 * 1024
#: Bytes that wait in a link before `Link.is_writable` becomes False.
MAX_QUEUED = 8 * 1024 * 1024
#: Files that are transferred at a time over one link, each way.
MAX_TRANSFERS = 24
#: Values in a document; each takes some sixty bytes of memory, however short it is.
MAX_VALUES = 4_000_000


class Kind(IntEnum):
    """The kinds of frames. Unknown ones from 128 on are ignored."""

    HELLO = 1
    #: In order, with credit: JSON, which the engine writes and reads.
    CLIENT = 10
    META = 11
    SUBS = 12
    GONE = 13
    BODY = 14
    NOTIFY = 15
    CALL = 16
    REPLY = 17
    #: Files, and fragments of long frames.
    OPEN = 30
    HEAD = 31
    DATA = 32
    END = 33
    RESET = 34
    #: Of the link itself.
    CREDIT = 40
    PING = 41
    PONG = 42
    BYE = 43


class BridgeRefusedError(SAMPError):
    """
    A bridge to this peer is not possible, and another attempt would fail as well.

    Parameters
    ----------
    text : str
        The reason, and what the user can do.
    status : int
        Exit status of a command that ends for this reason: 3 if the versions of the protocol are incompatible.
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Hello(NamedTuple):
    """The first frame that each end sends to the other."""

    protocol: tuple[int, int]
    #: Version of the package.
    version: str
    #: Id of the hub.
    hub: str
    #: The name under which the other end shows this one to its user.
    label: str
    #: Random; decides which of two bridges remains if they start at the same time.
    session: str = ""

    def encode(self) -> bytes:
        """Return the JSON text."""
        return encode_json(self._asdict())

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        """Parse the JSON text; ignore unknown keys. Raise `SAMPValueError` if it is invalid."""
        value = parse_json(payload)
        protocol = value.get("protocol")
        texts = {name: value.get(name, "") for name in ("version", "hub", "label", "session")}
        if not (isinstance(protocol, list) and len(protocol) == 2 and all(type(each) is int for each in protocol)):
            raise SAMPValueError("a HELLO needs two versions of the protocol")
        if not all(isinstance(text, str) and len(text) <= 200 for text in texts.values()) or not texts["hub"]:
            raise SAMPValueError("a HELLO needs the id of a hub, and short texts")
        return cls((protocol[0], protocol[1]), **texts)


def check_protocol(ours: Hello, theirs: Hello) -> int:
    """Return the highest common version of the protocol; raise `BridgeRefusedError` if there is none."""
    highest = min(ours.protocol[1], theirs.protocol[1])
    if highest < max(ours.protocol[0], theirs.protocol[0]):
        raise BridgeRefusedError(
            f"The two ends use different versions of the bridge's protocol: {_versions(ours)} here, "
            f"{_versions(theirs)} there. Install the same version at both: pip install --upgrade pyvo-samp",
            status=3,
        )
    return highest


def _versions(hello: Hello) -> str:
    low, high = hello.protocol
    return f"{low if low == high else f'{low} to {high}'} (pyvo-samp {hello.version[:40]!r})"


class Download(Protocol):
    """A file of the peer that is being read. The methods block; except for `close`, they are called in one thread."""

    status: int
    headers: list[tuple[str, str]]

    def read(self) -> bytes:
        """Return the next bytes, empty at the end; raise `OSError` if the transfer was interrupted."""

    def close(self) -> None:
        """End the transfer, in any thread; a waiting `read` raises `OSError`. Further calls do nothing."""


class Upload(Protocol):
    """A file that the peer reads. Its methods block, and raise `OSError` if the peer has ended the transfer."""

    def send_head(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send status and headers; called once, before the other methods."""

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send bytes; wait until the peer has read enough of the earlier ones."""

    def sendfile(self, file: BinaryIO, offset: int = 0, count: int | None = None, /) -> int:
        """Send a part of a file, and return the number of bytes."""

    def finish(self, *, complete: bool) -> None:
        """Mark the end of the file, or, if it is incomplete, that the transfer was interrupted. Never raises."""


class Link(ABC):
    """The connection to one peer. All methods may be called in any thread."""

    #: The HELLO of the peer; valid when the transport calls ``accept``.
    peer: Hello
    #: The name of the peer for the user.
    label: str

    @abstractmethod
    def send(self, kind: Kind, payload: bytes) -> None:
        """Queue a frame of `Kind.CLIENT` to `Kind.REPLY`; never blocks or raises. After `close` it does nothing."""

    @property
    @abstractmethod
    def is_writable(self) -> bool:
        """Whether fewer than `MAX_QUEUED` bytes wait to be sent. If not, `LinkHandler.on_writable` is called later."""

    @abstractmethod
    def fetch(self, offer: str, method: str, headers: Mapping[str, str]) -> Download:
        """
        Request an offered file of the peer, and wait for status and headers.

        Raises
        ------
        FileError
            The peer does not have the file, or the link is closed or too busy.
        """

    @abstractmethod
    def close(self, reason: str, status: int = 0) -> None:
        """Send the reason to the peer, and end the link; return at once. `LinkHandler.on_closed` is called later."""


class LinkHandler(Protocol):
    """The engine's callbacks for a link. The methods return at once, and may be called in any thread."""

    def receive(self, kind: Kind, payload: bytes, done: Callable[[], object]) -> None:
        """Receive a frame of `Kind.CLIENT` to `Kind.REPLY`, in order; ``done`` is called when it has been handled."""

    def serve(self, offer: str, method: str, headers: dict[str, str], upload: Upload) -> None:
        """Send an offer to the peer. ``headers`` have names in lower case."""

    def on_writable(self) -> None:
        """The link is writable again."""

    def on_closed(self, reason: str) -> None:
        """The link has ended; called once."""


class LinkState(Enum):
    """The states that a transport reports."""

    CONNECTING = "connecting"
    #: No peer is connected; the transport tries again.
    LOST = "lost"
    #: The transport does not try again; the text gives the reason and what to do.
    FAILED = "failed"


#: Accepts a link whose HELLO has arrived; raises `BridgeRefusedError` if the engine rejects it.
Accept = Callable[[Link], LinkHandler]
#: Called with the state, a text, and the exit status for a command that ends in this state.
Report = Callable[[LinkState, str, int], object]


class Transport(ABC):
    """Connects a bridge to its peers. It can be started again after `stop`."""

    #: What is at the other end, for the name of the bridge and for messages: a host, the URL of a room, a lockfile.
    label: str = ""

    @abstractmethod
    def start(self, hello: Hello, accept: Accept, report: Report) -> None:
        """Start connecting, and connect again when a link is lost; return at once."""

    @abstractmethod
    def stop(self, reason: str = "") -> None:
        """Close all links (the peers receive the reason), and end processes and threads, within a few seconds."""


def encode_json(value: object) -> bytes:
    """Return a value as JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def parse_json(payload: bytes | bytearray) -> dict[str, Any]:
    """Parse a map from JSON; raise `SAMPValueError` if it is something else or would need too much memory."""
    if payload.count(b",") + payload.count(b"[") + payload.count(b"{") > MAX_VALUES:
        raise SAMPValueError("it contains too many values")
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise SAMPValueError(f"it is not JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise SAMPValueError("it is not a map")
    return value
