# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A transport to any number of hubs that share a room on a NATS server (needs the package ``nats-py``).

Theory of operation
-------------------
The server passes each message on to those that are subscribed to its *subject*, and keeps nothing. A room is a tree of
subjects::

    samp-bridge.1.ROOM.hub                  heartbeat of each hub, every five seconds
    samp-bridge.1.ROOM.to.SESSION.>         messages to one hub; the last part is the session of the sender

`SESSION` is a new random text for each connection to the server. A hub that misses three heartbeats is regarded as
disconnected.

A `_Tunnel` is a stream of bytes between two hubs, which a `StreamLink` uses like the pipes of ssh. The hub with the
lower session opens the tunnel. Its messages are numbered, because the server discards messages for a hub that is too
slow, and all messages when it stops. If a number is missing, the tunnel ends, the engine responds to the open calls
with errors, and a new tunnel is opened.

All of this runs in one thread with an asyncio loop. The threads of the links put their messages into a queue of limited
size.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats

from ..errors import SAMPError, SAMPHubError, SAMPValueError
from ..protocol.values import sanitize_for_display
from ..transport.event_loop import join_thread
from .link import Accept, Hello, LinkState, Report, Transport, encode_json, parse_json
from .stream_link import StreamLink

log = logging.getLogger(__name__)

#: Seconds between two heartbeats of a hub, and how many of them may be missing.
HEARTBEAT_INTERVAL = 5.0
MISSED_HEARTBEATS = 3
#: Seconds to connect to the server, and to leave the room.
CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 3.0
#: Seconds before the next attempt to connect to the server or to a hub: initially, and at most.
MIN_DELAY, MAX_DELAY = 1.0, 60.0
#: Maximum number of other hubs in a room; more are ignored.
MAX_PEERS = 100
#: Bytes that wait for the server, and bytes of one message. A server accepts a megabyte by default.
MAX_OUTGOING = 1024 * 1024
MAX_CHUNK = 128 * 1024
#: Bytes of one tunnel that wait for its link; more than the link gives credit for.
MAX_INCOMING = 64 * 1024 * 1024

_PREFIX = "samp-bridge.1"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
#: Head of a message: its kind, the id of the tunnel, and the number of the message.
_HEAD = struct.Struct("!cQQ")
_OPEN, _DATA, _END = b"O", b"D", b"E"


def parse_room_url(url: str) -> tuple[str, str]:
    """
    Split ``nats://[USER:PASSWORD@]SERVER[:PORT]/ROOM``, or ``tls://...``, into the URL of the server and the room.

    Raise `SAMPValueError` for any other URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 4222
    except ValueError as error:
        raise SAMPValueError(f"{url!r} is not nats://SERVER/ROOM: {error}") from None
    room = parts.path.strip("/")
    if parts.scheme not in {"nats", "tls"} or not parts.hostname or parts.query or parts.fragment:
        raise SAMPValueError(f"{url!r} is not nats://SERVER/ROOM")
    if not _TOKEN.fullmatch(room):
        raise SAMPValueError(f"{room!r} is not a valid name of a room: use up to 64 letters, digits, '-' and '_'")
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{user}{host}:{port}", room


class _Presence(NamedTuple):
    """The heartbeat of a hub."""

    session: str
    hub: str
    label: str
    #: When it entered the room, in seconds since the epoch, by its own clock.
    since: float

    def encode(self, *, is_leaving: bool = False) -> bytes:
        return encode_json({**self._asdict(), **({"leaving": True} if is_leaving else {})})

    @classmethod
    def parse(cls, payload: bytes) -> tuple[_Presence, bool]:
        """Return the heartbeat, and whether the hub leaves; raise `SAMPValueError` if it is invalid."""
        value = parse_json(payload)
        session, hub, label, since = (value.get(name, "") for name in cls._fields)
        if not (isinstance(session, str) and isinstance(hub, str) and isinstance(label, str)):
            raise SAMPValueError("session, hub and label must be texts")
        is_short = 0 < len(hub) <= 200 and len(label) <= 200
        if not (_TOKEN.fullmatch(session) and is_short and type(since) in {int, float}):
            raise SAMPValueError("a text is invalid, or the time is missing")
        return cls(session, hub, label, float(since)), bool(value.get("leaving"))


class _Outbox:
    """A queue of messages to the server, filled by any thread and emptied in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self.has_items = asyncio.Event()

    def put(self, subject: str, data: bytes, is_open: Callable[[], bool] = lambda: True, *, wait: bool = False) -> None:
        """Queue a message; if the queue is full, wait as long as `is_open` is true."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._size < MAX_OUTGOING or self._is_closed or not is_open())
            if self._is_closed or not is_open():
                raise BrokenPipeError("the connection to the NATS server is closed")
            self._items.append((subject, data))
            self._size += len(data)
            if len(self._items) == 1:
                self._loop.call_soon_threadsafe(self.has_items.set)

    def take_all(self) -> Iterator[tuple[str, bytes]]:
        """Remove and yield the messages; in the loop."""
        self.has_items.clear()
        while True:
            with self._changed:
                if not self._items:
                    return
                item = self._items.popleft()
                self._size -= len(item[1])
                self._changed.notify_all()
            yield item

    def wake(self) -> None:
        """Make the waiting threads check again whether they are open."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Accept no more messages."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class _Peer:
    """Another hub in the room."""

    def __init__(self, presence: _Presence, subject: str) -> None:
        self.presence = presence
        self.subject = subject
        self.last_seen = time.monotonic()
        self.tunnel: _Tunnel | None = None
        self.delay = MIN_DELAY
        self.retry_at = 0.0


class _Tunnel:
    """
    A stream of bytes to and from one hub.

    `read`, `write` and `interrupt` are for the threads of its link, `receive` and `fail` for the loop.
    """

    def __init__(self, outbox: _Outbox, peer: _Peer, number: int) -> None:
        self.peer, self.number = peer, number
        self.link: StreamLink | None = None
        #: Set when the link has ended.
        self.ended = asyncio.Event()
        self._outbox = outbox
        self._changed = threading.Condition()
        self._received: deque[bytes] = deque()
        self._received_size = 0
        self._next_sent = self._next_received = 0
        self._is_open = True
        self._error = ""

    def read(self, _size: int) -> bytes:
        """Wait for a message, and return its bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._received or not self._is_open)
            if self._received:
                data = self._received.popleft()
                self._received_size -= len(data)
                return data
        if self._error:
            raise ConnectionAbortedError(self._error)
        return b""

    def write(self, data: bytes) -> None:
        """Send bytes; wait while the queue to the server is full."""
        for start in range(0, len(data), MAX_CHUNK):
            head = _HEAD.pack(_DATA, self.number, self._next_sent)
            self._outbox.put(
                self.peer.subject, head + data[start : start + MAX_CHUNK], lambda: self._is_open, wait=True
            )
            self._next_sent += 1

    def interrupt(self) -> None:
        """Make `read` and `write` return or raise."""
        self.fail("")

    def receive(self, number: int, data: bytes) -> None:
        """Receive a message from the other end."""
        with self._changed:
            if not self._is_open:
                return
            if number == self._next_received and self._received_size + len(data) <= MAX_INCOMING:
                self._next_received += 1
                self._received.append(data)
                self._received_size += len(data)
                self._changed.notify()
                return
        self.fail("messages were lost")

    def fail(self, reason: str) -> None:
        """End the tunnel with an error."""
        with self._changed:
            if self._is_open:
                self._is_open, self._error = False, reason
            self._changed.notify_all()
        self._outbox.wake()


class _Session:
    """One connection to the server. The methods run in the loop, except for the callbacks of a link (`_start_link`)."""

    def __init__(self, transport: NATSRoom, hello: Hello, accept: Accept) -> None:
        self._hello, self._accept = hello, accept
        self.room = f"{_PREFIX}.{transport.room}"
        self._own = _Presence(secrets.token_hex(16), hello.hub, hello.label, time.time())
        self._loop = asyncio.get_running_loop()
        self._outbox = _Outbox(self._loop)
        self._peers: dict[str, _Peer] = {}
        self._tunnels: dict[int, _Tunnel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Set when the session has ended, with the reason in `error`.
        self.ended = asyncio.Event()
        self.error: SAMPError | None = None
        self._last_error = ""
        self._connection: Any = None

    # The server

    async def open(self, server: str) -> None:
        """Connect to the server and enter the room; raise `SAMPHubError` if that fails."""
        shown = server.rpartition("@")[2].removeprefix("nats://")
        try:
            self._connection = await asyncio.wait_for(
                nats.connect(
                    servers=[server], name="samp bridge", allow_reconnect=False, max_reconnect_attempts=1,
                    reconnect_time_wait=0, no_echo=True, ping_interval=10, error_cb=self._on_error,
                    closed_cb=self._on_closed,
                ),
                CONNECT_TIMEOUT,
            )  # fmt: skip
            if self._connection.max_payload < MAX_CHUNK + _HEAD.size:
                raise SAMPHubError(f"The limit of the NATS server is {self._connection.max_payload} bytes per message")
            await self._connection.subscribe(self._inbox(self._own.session) + ".>", cb=self._on_message)
            await self._connection.subscribe(f"{self.room}.hub", cb=self._on_presence)
            await self._connection.flush()
        except (nats.errors.Error, OSError) as error:
            reason = self._last_error or str(error) or "it does not respond"
            raise SAMPHubError(f"Cannot connect to the NATS server at {shown}: {reason}") from error
        self._start(self._send())
        self._start(self._beat())

    async def close(self, reason: str) -> None:
        """End all links, leave the room, and disconnect."""
        tunnels = list(self._tunnels.values())
        for tunnel in tunnels:
            if tunnel.link is not None:
                tunnel.link.close(reason)
        ended = [tunnel.ended.wait() for tunnel in tunnels if tunnel.link is not None]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*ended), CLOSE_TIMEOUT)
        if self._connection is not None and self._connection.is_connected:
            self._outbox.put(f"{self.room}.hub", self._own.encode(is_leaving=True))
            await self._send_all()
        self._outbox.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for tunnel in list(self._tunnels.values()):
            tunnel.fail(reason)
            if tunnel.link is not None:
                await tunnel.ended.wait()
        if self._connection is not None:
            await self._connection.close()

    def _start(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("The bridge to the room failed", exc_info=error)
            self._end(SAMPHubError(f"an internal error: {error}"))

    def _end(self, error: SAMPError) -> None:
        self.error = self.error or error
        self.ended.set()

    async def _on_error(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        log.debug("NATS: %r", error)

    async def _on_closed(self) -> None:
        for tunnel in self._tunnels.values():
            tunnel.fail("the connection to the NATS server was lost")
        self._outbox.close()
        self._end(SAMPHubError("The connection to the NATS server was lost"))

    async def _send(self) -> None:
        while True:
            await self._outbox.has_items.wait()
            await self._send_all()

    async def _send_all(self) -> None:
        try:
            for subject, data in self._outbox.take_all():
                await self._connection.publish(subject, data)
        except nats.errors.Error as error:
            await self._on_error(error)
            await self._on_closed()

    # Hubs in the room

    def _inbox(self, session: str) -> str:
        return f"{self.room}.to.{session}"

    async def _beat(self) -> None:
        """Send the heartbeat of this hub, and remove the hubs whose heartbeats are missing."""
        while True:
            self._outbox.put(f"{self.room}.hub", self._own.encode())
            now = time.monotonic()
            for peer in list(self._peers.values()):
                if now - peer.last_seen > (MISSED_HEARTBEATS + 0.5) * HEARTBEAT_INTERVAL:
                    self._remove_peer(peer, "that hub no longer sends heartbeats")
            await asyncio.sleep(HEARTBEAT_INTERVAL)

    async def _on_presence(self, message: Any) -> None:
        try:
            presence, is_leaving = _Presence.parse(message.data)
        except SAMPValueError as error:
            log.debug("A message in the room is not valid: %s", error)
            return
        if is_leaving:
            peer = self._peers.get(presence.session)
            if peer is not None:
                self._remove_peer(peer, "that hub has left the room")
            return
        peer = self._find_peer(presence)
        if peer is not None and peer.tunnel is None and self._own.session < presence.session:
            self._open_tunnel(peer)

    def _find_peer(self, presence: _Presence) -> _Peer | None:
        """Return the hub that has sent a heartbeat, and note the time; None for one that is ignored."""
        peer = self._peers.get(presence.session)
        if peer is not None:
            peer.last_seen = time.monotonic()
            return peer
        if presence.session == self._own.session:
            return None
        # A new hub must learn about this one before the next regular heartbeat.
        self._outbox.put(f"{self.room}.hub", self._own.encode())
        if presence.hub == self._own.hub:
            if (presence.since, presence.session) < (self._own.since, self._own.session):
                self._end(SAMPValueError("Another `samp bridge` has already joined this hub to the room"))
            return None
        for other in [one for one in self._peers.values() if one.presence.hub == presence.hub]:
            if other.presence.since > presence.since:
                return None
            self._remove_peer(other, "that hub has entered the room again")
        if len(self._peers) >= MAX_PEERS:
            log.warning("There are more than %d hubs in the room; the others are ignored", MAX_PEERS)
            return None
        peer = self._peers[presence.session] = _Peer(presence, f"{self._inbox(presence.session)}.{self._own.session}")
        return peer

    def _remove_peer(self, peer: _Peer, reason: str) -> None:
        self._peers.pop(peer.presence.session, None)
        if peer.tunnel is not None:
            peer.tunnel.fail(reason)

    # Tunnels

    def _open_tunnel(self, peer: _Peer) -> None:
        if time.monotonic() < peer.retry_at:
            return
        tunnel = _Tunnel(self._outbox, peer, secrets.randbits(64))
        self._outbox.put(peer.subject, _HEAD.pack(_OPEN, tunnel.number, 0) + self._own.encode())
        self._start_link(tunnel, is_first=True)

    async def _on_message(self, message: Any) -> None:
        sender = message.subject.rpartition(".")[2]
        try:
            kind, number, count = _HEAD.unpack_from(message.data)
        except struct.error:
            return
        data = message.data[_HEAD.size :]
        tunnel = self._tunnels.get(number)
        if kind == _OPEN:
            self._on_open(sender, number, data)
        elif tunnel is None or tunnel.peer.presence.session != sender:
            if kind == _DATA and _TOKEN.fullmatch(sender):  # for a tunnel that has ended here
                self._outbox.put(f"{self._inbox(sender)}.{self._own.session}", _HEAD.pack(_END, number, 0))
        elif kind == _DATA:
            tunnel.peer.last_seen = time.monotonic()
            tunnel.receive(count, data)
        elif kind == _END:
            tunnel.fail("the other end has closed the connection")

    def _on_open(self, sender: str, number: int, data: bytes) -> None:
        try:
            presence, _ = _Presence.parse(data)
        except SAMPValueError as error:
            log.debug("A message in the room is not valid: %s", error)
            return
        if presence.session != sender or number in self._tunnels:
            return
        peer = self._find_peer(presence)
        if peer is not None:
            if peer.tunnel is not None:
                peer.tunnel.fail("the other end has opened the connection again")
            self._start_link(_Tunnel(self._outbox, peer, number), is_first=False)

    def _start_link(self, tunnel: _Tunnel, *, is_first: bool) -> None:
        """Make a link for a tunnel, and start it when the earlier links to the same hub have ended."""
        peer, started = tunnel.peer, time.monotonic()
        earlier = [other for other in self._tunnels.values() if other.peer.presence.hub == peer.presence.hub]
        self._tunnels[tunnel.number] = peer.tunnel = tunnel

        def finish(reason: str, status: int) -> None:
            tunnel.ended.set()
            del self._tunnels[tunnel.number]
            with suppress(BrokenPipeError):
                self._outbox.put(peer.subject, _HEAD.pack(_END, tunnel.number, 0))
            if status:
                name = sanitize_for_display(peer.presence.label)
                log.warning("No link to %s in the room: %s", name, reason)
            if peer.tunnel is tunnel:
                peer.tunnel = None
                if time.monotonic() - started > MIN_DELAY:
                    peer.delay = MIN_DELAY
                peer.retry_at = time.monotonic() + peer.delay
                peer.delay = min(2 * peer.delay, MAX_DELAY)

        async def start() -> None:
            for other in earlier:
                await other.ended.wait()
            tunnel.link = StreamLink(
                tunnel, self._hello, self._accept, is_first=is_first,
                on_end=lambda reason, status: self._loop.call_soon_threadsafe(finish, reason, status),
            )  # fmt: skip
            tunnel.link.start()

        self._start(start())


class NATSRoom(Transport):
    """
    Joins a bridge to all others in a room on a NATS server.

    The first connection to the server must succeed; later, a lost connection is established again.

    Parameters
    ----------
    url : str
        ``nats://[USER:PASSWORD@]SERVER[:PORT]/ROOM``, or ``tls://`` in place of ``nats://``.
    reconnect : bool
        Whether a lost connection is established again.

    Raises
    ------
    SAMPValueError
        The URL has another form.
    """

    def __init__(self, url: str, *, reconnect: bool = True) -> None:
        self._server, self.room = parse_room_url(url)
        self.label = self.room
        self._reconnect = reconnect
        self._was_connected = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_event: asyncio.Event | None = None
        self._is_stopped = False
        self._stop_reason = ""

    def start(self, hello: Hello, accept: Accept, report: Report) -> None:
        """Connect to the server in a thread."""
        self._is_stopped = False
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(hello, accept, report)), name="samp-bridge-nats", daemon=True
        )
        self._thread.start()

    def stop(self, reason: str = "") -> None:
        """Leave the room."""
        with self._lock:
            self._is_stopped, self._stop_reason = True, reason
            if self._loop is not None and self._stop_event is not None:
                self._loop.call_soon_threadsafe(self._stop_event.set)
        join_thread(self._thread)

    async def _run(self, hello: Hello, accept: Accept, report: Report) -> None:
        with self._lock:
            self._loop, stop = asyncio.get_running_loop(), asyncio.Event()
            self._stop_event = stop
            if self._is_stopped:
                stop.set()
        try:
            await self._run_sessions(stop, hello, accept, report)
        except Exception as error:
            log.exception("The transport to the room failed")
            report(LinkState.FAILED, f"An internal error: {error}", 1)
        finally:
            with self._lock:
                self._loop = self._stop_event = None

    async def _run_sessions(self, stop: asyncio.Event, hello: Hello, accept: Accept, report: Report) -> None:
        delay = MIN_DELAY
        while not stop.is_set():
            report(LinkState.CONNECTING, "", 0)
            started = time.monotonic()
            error = await self._run_session(stop, hello, accept, report)
            if error is None:
                return
            if isinstance(error, SAMPValueError) or not (self._was_connected and self._reconnect):
                report(LinkState.FAILED, str(error), 1)
                return
            if time.monotonic() - started > CONNECT_TIMEOUT + MIN_DELAY:
                delay = MIN_DELAY
            report(LinkState.LOST, f"{error}. Trying again in {delay:.0f} s", 0)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = min(2 * delay, MAX_DELAY)

    async def _run_session(self, stop: asyncio.Event, hello: Hello, accept: Accept, report: Report) -> SAMPError | None:
        """Stay in the room; return None when `stop` is set, or the error when the connection is lost."""
        session = _Session(self, hello, accept)
        try:
            await session.open(self._server)
            self._was_connected = True
            report(LinkState.CONNECTING, f"in the room {self.room}", 0)
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, session.ended)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for each in waits:
                each.cancel()
            return None if stop.is_set() else session.error
        except SAMPHubError as error:
            return error
        finally:
            await session.close(self._stop_reason if stop.is_set() else str(session.error or ""))
