# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The documents that the load generator sends, and how it reads the ones that it receives.

Every hub gets the same bytes, which are encoded once and sent many times. So the generator costs little compared with
the hub that is measured.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from xmlrpc.client import loads

__all__ = [
    "Address", "Request", "call_body", "post", "read_head", "receive_body", "response", "response_body", "result_of",
]  # fmt: skip

#: The leading string parameters of a call, with or without a type.
STRING_PARAM = re.compile(rb"<param>\s*<value>(?:\s*<string>)?([^<]*)(?:</string>\s*)?</value>")
METHOD = re.compile(rb"<methodName>\s*([^<\s]+)")

ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})


class Address(NamedTuple):
    """The address of a hub, from its URL."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url.replace("\\", ""))
        return cls(parts.hostname or "127.0.0.1", parts.port or 80, parts.path or "/")


class Request(NamedTuple):
    """A request to a callback server."""

    method: bytes
    params: list[bytes]
    size: int


def xml(value: str | list[Any] | dict[str, Any]) -> str:
    """Encode a SAMP value."""
    if isinstance(value, str):
        return f"<value><string>{value.translate(ESCAPES)}</string></value>"
    if isinstance(value, list):
        return f"<value><array><data>{''.join(map(xml, value))}</data></array></value>"
    processes = "".join(f"<member><name>{k.translate(ESCAPES)}</name>{xml(v)}</member>" for k, v in value.items())
    return f"<value><struct>{processes}</struct></value>"


def call_body(method: str, *params: Any) -> bytes:
    """Encode a method call."""
    written = "".join(f"<param>{xml(param)}</param>" for param in params)
    document = f"<methodCall><methodName>{method}</methodName><params>{written}</params></methodCall>"
    return f'<?xml version="1.0"?>\n{document}'.encode()


def post(address: Address, body: bytes, keep: bool, extra: str = "") -> bytes:
    """Encode an HTTP request. A client that does not keep its connections uses HTTP/1.0, as such programs do."""
    version = "HTTP/1.1" if keep else "HTTP/1.0"
    head = (
        f"POST {address.path} {version}\r\nHost: {address.host}:{address.port}\r\n{extra}"
        f"Content-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def response(body: bytes, keep: bool) -> bytes:
    """Encode an HTTP response."""
    connection = "keep-alive" if keep else "close"
    head = f"Connection: {connection}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}"
    return f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body


def response_body(value: Any = "") -> bytes:
    """Encode the result of a method call."""
    document = f"<methodResponse><params><param>{xml(value)}</param></params></methodResponse>"
    return f'<?xml version="1.0"?>\n{document}'.encode()


def params_of(body: bytes, count: int) -> list[bytes]:
    """Return the first ``count`` parameters of a call, which are strings."""
    return [match[1] for match, _ in zip(STRING_PARAM.finditer(body), range(count), strict=False)]


def receive_body(body: bytes) -> Request:
    """
    Read the parts of a hub's call that the generator needs: the method, and of a call the parameters up to the id.
    """
    match = METHOD.search(body)
    if match is None:
        raise ValueError(f"This is no method call: {body[:80]!r}")
    method = match[1]
    return Request(method, params_of(body, 3) if method.endswith(b"receiveCall") else [], len(body))


@lru_cache(maxsize=1024)
def read_head(head: bytes) -> tuple[int, bool]:
    """
    Read the length of a body, and whether the connection stays open. The results are cached, because heads repeat.
    """
    head = head.lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise ValueError(f"No Content-Length: {head!r}")
    size = int(head[at + 15 :].split(b"\r", 1)[0])
    return size, b"connection: close" not in head and b"http/1.1" in head


def result_of(body: bytes) -> Any:
    """Read a response in full, and raise a fault. This is for preparations, which are not measured."""
    (value,), _ = loads(body.decode())
    return value
