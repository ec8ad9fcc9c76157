# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What a server asks for its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .accepted import Connection
    from .deferred import Deferred
    from .http import HTTPError, Request, Response

__all__ = ["Handler"]


class Handler(Protocol):
    """What a server asks for its answers; called in the loop's thread, where it must not block."""

    def handle(self, request: Request, connection: Connection) -> Response | Deferred | None:
        """
        Answer a request.

        A `Deferred` is to be resolved with a `Response`. None says that the connection was detached.
        """

    def refuse(self, error: HTTPError) -> Response:
        """Answer what is no request or goes beyond a limit."""
