"""Frames: any bytes, in any pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvo.samp import SAMPError
from pyvo.samp.bridge.framing import (
    FIRST_OPTIONAL,
    MAX_NOISE,
    MAX_PAYLOAD,
    PREAMBLE,
    Frame,
    FrameError,
    FrameReader,
    encode_frame,
)
from pyvo.samp.bridge.link import BridgeRefusedError, Hello, Kind, check_protocol, parse_json
from pyvo.samp.bridge.peer import CACHE_SIZE, Cache
from pyvo.samp.bridge.stream_link import StreamLink

FRAMES = st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=300))


def read_all(reader: FrameReader) -> list[Frame]:
    return list(iter(reader.next_frame, None))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@given(st.lists(FRAMES), st.lists(st.integers(0, 10**6)), st.binary(max_size=200))
def test_round_trip(frames: list[Frame], cuts: list[int], noise: bytes) -> None:
    """Frames that were written are read, in any pieces and after any noise."""
    noise = noise.replace(PREAMBLE, b"")
    data = noise + PREAMBLE + b"".join(encode_frame(*frame[::2], frame.stream) for frame in frames)
    reader = FrameReader()
    found = []
    for piece in pieces(data, cuts):
        reader.receive_data(piece)
        found += read_all(reader)
    assert found == frames
    assert reader.noise == noise


@given(st.lists(st.binary(max_size=2000)))
def test_any_bytes(parts: list[bytes]) -> None:
    """Any bytes result in frames or in a `FrameError`, and the buffer stays bounded."""
    reader = FrameReader()
    reader.receive_data(PREAMBLE)
    try:
        for part in parts:
            reader.receive_data(part)
            for frame in read_all(reader):
                assert len(frame.payload) <= MAX_PAYLOAD
            assert len(reader._buffer) <= MAX_PAYLOAD + 9 + len(part)
    except FrameError:
        pass


def test_length_of_4_gib() -> None:
    """A frame that is too long is rejected when its head has arrived, so no memory is allocated for it."""
    reader = FrameReader()
    reader.receive_data(PREAMBLE + bytes([Kind.DATA]) + b"\0\0\0\1" + b"\xff\xff\xff\xff")
    with pytest.raises(FrameError, match="4294967295 bytes"):
        reader.next_frame()


def test_unknown_kinds() -> None:
    """Unknown kinds from 128 on are ignored, others are an error."""
    reader = FrameReader()
    reader.receive_data(PREAMBLE + bytes([FIRST_OPTIONAL]) + bytes(8) + encode_frame(Kind.PING))
    assert read_all(reader) == [Frame(Kind.PING, 0, b"")]
    reader.receive_data(bytes([FIRST_OPTIONAL - 1]) + bytes(8))
    with pytest.raises(FrameError, match="kind 127"):
        reader.next_frame()


@pytest.mark.parametrize("size", [MAX_NOISE, MAX_NOISE + 1])
def test_noise_before_the_preamble(size: int) -> None:
    """At most 64 KiB may come before the preamble."""
    reader = FrameReader()
    if size <= MAX_NOISE:
        reader.receive_data(b"x" * size)
        reader.receive_data(PREAMBLE)
        assert reader.has_preamble
    else:
        with pytest.raises(FrameError, match="not a bridge"):
            reader.receive_data(b"x" * size + PREAMBLE)


SCALARS = st.none() | st.integers() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_hello_with_any_value(value: object) -> None:
    """It is parsed or rejected."""
    with suppress(SAMPError):
        Hello.parse(json.dumps(value).encode())


@pytest.mark.parametrize("bomb", [b"[" * 60_000, b'{"a":' * 10_000, b"[" + b"[]," * 5_000_000 + b"[]]", b"1" * 10_000])
def test_json_bomb(bomb: bytes) -> None:
    """A text with too many levels or values is rejected before it needs much memory."""
    with pytest.raises(SAMPError):
        parse_json(bomb)


def hello(low: int, high: int, version: str = "1.0") -> Hello:
    return Hello((low, high), version, "hub", "label")


def test_protocol_versions() -> None:
    """
    The ends use the highest common version. If there is none, the error contains both versions and the command that
    helps.
    """
    assert check_protocol(hello(1, 3), hello(2, 5)) == 3
    with pytest.raises(BridgeRefusedError, match=r": 1 .*here, 2 to 3 .*there.*pip install") as caught:
        check_protocol(hello(1, 1), hello(2, 3, "9.9"))
    assert caught.value.status == 3
    assert "9.9" in str(caught.value)


def test_hello_ignores_unknown_keys() -> None:
    payload = b'{"protocol":[1,2],"version":"1","hub":"h","label":"l","more":{"x":1}}'
    assert Hello.parse(payload) == Hello((1, 2), "1", "h", "l")


# The link as a whole

TOKENS = st.sampled_from(["x" * 22, "", "../x"])
SHORT = st.none() | st.integers() | st.text(max_size=5) | TOKENS
VALUES = st.recursive(SHORT, lambda inner: st.lists(inner, max_size=3))
MAPS = st.dictionaries(
    st.sampled_from(["id", "offer", "method", "headers", "status", "reason", "from", "to", "call", "body"]),
    VALUES | st.sampled_from(["GET", "HEAD"]) | st.just({}) | st.just([]),
)
PAYLOADS = st.binary(max_size=20) | MAPS.map(lambda value: json.dumps(value).encode()) | st.just(b"x" * MAX_PAYLOAD)
KINDS = st.sampled_from([kind for kind in Kind if kind is not Kind.HELLO])
ANY_FRAMES = st.builds(Frame, KINDS, st.integers(0, 9), PAYLOADS)


class Handler:
    """A handler that accepts everything."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def receive(self, kind: Kind, payload: bytes, done: Callable[[], object]) -> None:
        done()

    def serve(self, offer: str, method: str, headers: dict[str, str], upload: Any) -> None:
        upload.finish(complete=False)

    def on_writable(self) -> None:
        pass

    def on_closed(self, reason: str) -> None:
        self.closed.append(reason)


@settings(deadline=None, max_examples=200)
@given(frames=st.lists(ANY_FRAMES, max_size=20), cuts=st.lists(st.integers(0, 10**6), max_size=5))
def test_link_gets_any_frames(frames: list[Frame], cuts: list[int]) -> None:
    """A link that gets any frames ends once, with a reason that is not an internal error."""
    peer_hello = Hello((1, 1), "1", "hub-of-the-peer", "peer").encode()
    data = PREAMBLE + encode_frame(Kind.HELLO, peer_hello)
    data += b"".join(encode_frame(frame.kind, frame.payload, frame.stream) for frame in frames)
    chunks = iter(pieces(data, cuts))
    handler, ended = Handler(), []
    stream = SimpleNamespace(
        read=lambda size: next((chunk for chunk in chunks if chunk), b""),
        write=lambda data: None,
        interrupt=lambda: None,
    )
    link = StreamLink(
        stream, Hello((1, 1), "1", "hub", "label"), lambda link: handler,
        is_first=True, on_end=lambda reason, status: ended.append(reason),
    )  # fmt: skip
    link.start()
    link.join(30)
    assert len(ended) == len(handler.closed) == 1
    assert ended[0] != "an internal error"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 10 * 2**20)), max_size=50))
def test_both_ends_keep_the_same_bodies(bodies: list[tuple[str, int]]) -> None:
    """The sender omits a body only if the receiver has it. Both keep 16 MiB of bodies, or one longer body."""
    sender, receiver = Cache(), Cache()
    for key, size in bodies:
        if sender.get(key) is None:
            sender.add(key, size, True)
            receiver.add(key, size, size)
        assert receiver.get(key) is not None
        assert sender._size == receiver._size == sum(each[0] for each in receiver._bodies.values())
        assert receiver._size <= CACHE_SIZE or len(receiver._bodies) == 1
