"""Frames: whatever arrives, in whatever pieces."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
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

FRAMES = st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=300))


def read_all(reader: FrameReader) -> list[Frame]:
    return list(iter(reader.next_frame, None))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@given(st.lists(FRAMES), st.lists(st.integers(0, 10**6)), st.binary(max_size=200))
def test_round_trip(frames: list[Frame], cuts: list[int], noise: bytes) -> None:
    """What was written is read, however it is cut, and after any noise."""
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
    """Any bytes give frames or a `FrameError`, nothing else, and the buffer stays bounded."""
    reader = FrameReader()
    reader.receive_data(PREAMBLE)
    try:
        for part in parts:
            reader.receive_data(part)
            for frame in read_all(reader):
                assert len(frame.payload) <= MAX_PAYLOAD
            assert len(reader._buffer) <= MAX_PAYLOAD + 9
    except FrameError:
        pass


def test_length_of_4_gib() -> None:
    """It is rejected when the head has arrived: nothing is reserved for it."""
    reader = FrameReader()
    reader.receive_data(PREAMBLE + bytes([Kind.DATA]) + b"\0\0\0\1" + b"\xff\xff\xff\xff")
    with pytest.raises(FrameError, match="4294967295 bytes"):
        reader.next_frame()


def test_unknown_kinds() -> None:
    """Those from 128 on are ignored, others are an error."""
    reader = FrameReader()
    reader.receive_data(PREAMBLE + bytes([FIRST_OPTIONAL]) + bytes(8) + encode_frame(Kind.PING))
    assert read_all(reader) == [Frame(Kind.PING, 0, b"")]
    reader.receive_data(bytes([FIRST_OPTIONAL - 1]) + bytes(8))
    with pytest.raises(FrameError, match="kind 127"):
        reader.next_frame()


@pytest.mark.parametrize("size", [MAX_NOISE, MAX_NOISE + 1])
def test_noise(size: int) -> None:
    """64 KiB may come before the preamble, not more."""
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
def test_hello_of_anything(value: object) -> None:
    """A HELLO is read or rejected."""
    with suppress(SAMPError):
        Hello.parse(json.dumps(value).encode())


@pytest.mark.parametrize("bomb", [b"[" * 60_000, b'{"a":' * 10_000, b"[" + b"[]," * 5_000_000 + b"[]]", b"1" * 10_000])
def test_json_bomb(bomb: bytes) -> None:
    """Neither depth nor number of values takes the memory."""
    with pytest.raises(SAMPError):
        parse_json(bomb)


def hello(low: int, high: int, version: str = "1.0") -> Hello:
    return Hello((low, high), version, "hub", "label")


def test_protocol_versions() -> None:
    """The highest common one, or an error with both versions and the command that helps."""
    assert check_protocol(hello(1, 3), hello(2, 5)) == 3
    with pytest.raises(BridgeRefusedError, match=r": 1 .*here, 2 to 3 .*there.*pip install") as caught:
        check_protocol(hello(1, 1), hello(2, 3, "9.9"))
    assert caught.value.status == 3
    assert "9.9" in str(caught.value)


def test_hello_ignores_unknown_keys() -> None:
    payload = b'{"protocol":[1,2],"version":"1","hub":"h","label":"l","more":{"x":1}}'
    assert Hello.parse(payload) == Hello((1, 2), "1", "h", "l")
