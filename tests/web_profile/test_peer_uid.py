# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The user at the other end of a connection, from the tables of Linux."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from pyvo.samp.web_profile import peer_uid
from pyvo.samp.web_profile.peer_uid import get_peer_uid, is_other_user

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the table below is from a little-endian machine")

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000"
PORT = 21012  # 5214 in hexadecimal


def row(local: str, remote: str, user: int) -> str:
    return f"   0: {local} {remote} 01 {REST} {user:5} 0 1234 1 0000000000000000 20 4 30 10 -1\n"


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """A table for each kind of address."""
    four, six = tmp_path / "tcp", tmp_path / "tcp6"
    four.write_text(
        HEAD
        + row("0100007F:5214", "0100007F:C001", 1)  # the hub's own end
        + row("0100007F:C001", "0100007F:9999", 2)  # another connection from the same port
        + row("0200007F:C001", "0100007F:5214", 3)
        + row("0100007F:C001", "0100007F:5214", 1001)
    )
    loopback = "0" * 24 + "01000000"
    mapped = "0" * 16 + "FFFF00000100007F"
    six.write_text(
        HEAD + row(f"{loopback}:C001", f"{loopback}:5214", 1002) + row(f"{mapped}:C002", f"{mapped}:5214", 1003)
    )
    return [four, six]


@pytest.mark.parametrize(
    ("peer", "user"),
    [
        (("127.0.0.1", 0xC001), 1001),
        (("127.0.0.2", 0xC001), 3),
        (("::1", 0xC001), 1002),
        (("127.0.0.1", 0xC002), 1003),
        (("127.0.0.1", 0xC003), None),
        (("::1", 0xC002), None),
    ],
)
def test_the_uid_in_a_table(tables: list[Path], peer: tuple[str, int], user: int | None) -> None:
    assert get_peer_uid(peer, PORT, tables) == user


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"nothing of the kind\n", (HEAD + "0: a b\n").encode()])
def test_the_uid_is_unknown_if_the_table_is_invalid(tmp_path: Path, content: bytes) -> None:
    """The result is None if the table is empty, malformed or missing."""
    (tmp_path / "tcp").write_bytes(content)
    assert get_peer_uid(("127.0.0.1", 5), PORT, [tmp_path / "tcp", tmp_path / "missing"]) is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such users")
@pytest.mark.parametrize(("user", "other"), [("me", False), ("root", False), ("unknown", False), ("other", True)])
def test_only_a_known_uid_is_another_user(monkeypatch: pytest.MonkeyPatch, user: str, other: bool) -> None:
    found = {"me": os.geteuid(), "root": 0, "unknown": None, "other": os.geteuid() + 1}
    monkeypatch.setattr(peer_uid, "get_peer_uid", lambda *_: found[user])
    assert is_other_user(("127.0.0.1", 5), PORT) is other


@pytest.mark.skipif(sys.platform != "linux", reason="this system does not report the user of a connection")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_uid_of_a_real_connection(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        server = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server, socket.create_connection(server.getsockname()[:2]):
        sock, peer = server.accept()
        sock.close()
        assert get_peer_uid(peer[:2], server.getsockname()[1]) == os.geteuid()
