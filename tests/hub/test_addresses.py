"""Host names that a server accepts, and URLs to which the hub calls back."""

from __future__ import annotations

import socket

import pytest

from pyvo.samp.errors import SAMPTransportError
from pyvo.samp.transport.urls import host_filter, resolve_callback_url


@pytest.mark.parametrize(
    ("listening", "host", "good"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "LocalHost", True),
        ("127.0.0.1", "10.0.0.7", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", ":80", False),
        ("127.0.0.1", "evil.example", False),
        ("::1", "[::1]:8000", True),
        ("10.0.0.7", "10.0.0.7:8000", True),
        ("10.0.0.7", "10.0.0.8:8000", False),
        ("fe80::1", "[FE80::1]:1", True),
        ("obs.example", "OBS.example:1", True),
        ("0.0.0.0", "10.0.0.8:8000", True),
        ("0.0.0.0", "[fe80::1]:8000", True),
        ("::", "[fe80::1]", True),
        ("0.0.0.0", f"{socket.gethostname()}:8000", True),
        ("0.0.0.0", "evil.example:8000", False),
        ("0.0.0.0", "1.2.3.4.evil.example", False),
    ],
)
def test_allowed_hosts(listening: str, host: str, good: bool) -> None:
    """
    R38: a server accepts names and addresses of this machine only. A page whose host name resolves to this machine
    sends that name in Host, never an address.
    """
    assert host_filter(listening)(host) is good


@pytest.mark.parametrize(
    ("url", "peer", "result"),
    [
        ("http://127.0.0.1:8000/xmlrpc", "10.0.0.7", "http://127.0.0.1:8000/xmlrpc"),
        ("http://127.0.0.1:8000", "127.0.0.1", "http://127.0.0.1:8000/"),
        ("http://localhost:8000/", "127.0.0.1", "http://127.0.0.1:8000/"),
        ("http://localhost:8000/", "10.0.0.7", "http://10.0.0.7:8000/"),
        ("http://my-laptop.local:8000/a?b=c", "127.0.0.1", "http://127.0.0.1:8000/a?b=c"),
        ("http://0.0.0.0:8000/", "127.0.0.1", "http://127.0.0.1:8000/"),
        ("http://[::]:8000/", "::1", "http://[::1]:8000/"),
        ("http://[::1]:8000/", "127.0.0.1", "http://[::1]:8000/"),
        ("http://host/", "::1", "http://[::1]:80/"),
        ("http://user:word@10.0.0.7:1/", "127.0.0.1", "http://10.0.0.7:1/"),
    ],
)
def test_resolve_callback_url(url: str, peer: str, result: str) -> None:
    """R37: an address is used as it is, a name is replaced by the address of the client."""
    assert resolve_callback_url(url, peer) == result


@pytest.mark.parametrize("url", ["", "http:", "http:///x", "ftp://127.0.0.1/", "http://127.0.0.1:x/", "http://[::1/"])
def test_an_invalid_callback_url_is_rejected(url: str) -> None:
    with pytest.raises(SAMPTransportError, match="URL"):
        resolve_callback_url(url, "127.0.0.1")


@pytest.mark.parametrize("url", ["http://127.0.0.1/\r\nEvil: yes", "http://127.0.0.1/a b", "http://127.0.0.1/\u2028"])
def test_a_url_cannot_add_header_lines(url: str) -> None:
    with pytest.raises(SAMPTransportError, match="URL"):
        resolve_callback_url(url, "127.0.0.1")
