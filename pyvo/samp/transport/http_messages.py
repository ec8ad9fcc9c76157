# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Requests, answers, and what a server responds with."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from . import Bytes

__all__ = ["Answer", "Request", "Response"]


class Request(NamedTuple):
    """One request as it was read. Names of headers are in lower case; requests share them, so leave them unchanged."""

    method: str
    target: str
    headers: dict[str, str]
    body: Bytes
    keep_alive: bool


class Answer(NamedTuple):
    """One answer as it was read. Names of headers are in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: Bytes
    keep_alive: bool


class Response(NamedTuple):
    """
    What a server answers.

    ``headers`` go out as they are, besides ``Content-Length`` and ``Connection``, which the server adds.
    """

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Iterable[tuple[str, str]] = ()

    def encode(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """
        Write the response.

        Parameters
        ----------
        keep_alive : bool
            Whether the connection stays open behind it.
        with_body : bool
            False for the answer to a HEAD.

        Returns
        -------
        bytes
            Head and body in one piece: two writes could be two packets.
        """
        head = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Status')}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
        )
        for name, value in self.headers:
            head += f"{name}: {value}\r\n"
        head += "Connection: keep-alive\r\n\r\n" if keep_alive else "Connection: close\r\n\r\n"
        data = head.encode("latin-1", "replace")
        return data + self.body if with_body else data


_REASONS = {int(status): status.phrase for status in HTTPStatus}
