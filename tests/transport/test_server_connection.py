"""`peer_discarded_data` on a connection whose other end is closed."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from pyvo.samp.transport.server_connection import peer_discarded_data

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as other:
        ours, _ = listener.accept()
        with ours:
            ours.settimeout(5)
            yield ours, other


def test_the_peer_has_read_the_data(pair: Pair) -> None:
    ours, other = pair
    ours.sendall(b"something")
    assert other.recv(100) == b"something"
    other.close()
    assert ours.recv(1) == b""
    assert not peer_discarded_data(ours)


def test_no_data_were_sent(pair: Pair) -> None:
    ours, other = pair
    other.close()
    assert ours.recv(1) == b""
    assert not peer_discarded_data(ours)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report this")
def test_data_that_were_sent_to_a_closed_end(pair: Pair) -> None:
    """The function returns True whether or not the reset has already arrived."""
    ours, other = pair
    other.close()
    ours.sendall(b"something")
    assert ours.recv(1) == b""
    assert peer_discarded_data(ours)
