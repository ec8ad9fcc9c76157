# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What arrives, for programs that use asyncio: the queue of the client below, awaited in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from .aio import AsyncSAMPClient
    from .exchange.incoming import Incoming

__all__ = ["AsyncIncoming"]


def _tell(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(news.set)


class AsyncIncoming(AsyncIterator[Any]):
    """
    An asynchronous iterator over what arrives.

    Parameters
    ----------
    client : AsyncSAMPClient
        The client.
    mtypes : tuple of str
        MTypes or wildcards.
    limit : int
        How many things may wait.
    total : int, optional
        How many things are taken at all.
    """

    def __init__(self, client: AsyncSAMPClient, mtypes: tuple[str, ...], limit: int, total: int | None) -> None:
        self._client = client
        self._mtypes = mtypes
        self._limit = limit
        self._total = total
        self._news = asyncio.Event()
        self._queue: Incoming | None = None
        self._opening: asyncio.Future[Incoming] | None = None

    def __aiter__(self) -> Self:
        return self

    async def open(self) -> Self:
        """Begin to take what arrives; the first ``anext`` does it as well."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._client._run(self._open))
        try:  # one that is cancelled here does not cancel that: the queue would be nobody's
            self._queue = await asyncio.shield(self._opening)
        except Exception:
            self._opening = None
            raise
        return self

    def _open(self) -> Incoming:
        from .exchange.incoming import Incoming  # noqa: PLC0415

        self._client.client.client.require_key()
        queue = Incoming(self._client.client._bench, self._mtypes, self._limit, self._total)
        loop, news = self._client._loop, self._news
        assert loop is not None
        queue.on_news = partial(_tell, loop, news)  # not of self: who lets go of that lets go of the queue
        return queue

    async def __anext__(self) -> Any:
        await self.open()
        queue = self._queue
        assert queue is not None
        while True:
            self._news.clear()
            item = queue.get_ready()
            if item is not None:
                return item
            if queue.ended:
                raise StopAsyncIteration
            await self._news.wait()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Take nothing any more. It may be repeated."""
        opening, self._opening, self._queue = self._opening, None, None
        if opening is not None:
            await asyncio.shield(asyncio.ensure_future(self._close(opening)))

    async def _close(self, opening: asyncio.Future[Incoming]) -> None:
        try:
            queue = await opening
        except Exception:  # whoever wanted it has been told
            return
        if self._client._workers is not None:
            await self._client._run(queue.close)
