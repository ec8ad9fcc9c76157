# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The broker's lock, and the order in which things leave it.

Theory of operation
-------------------
An operation of the broker changes the broker's tables and hands things to others: deliveries to mailboxes,
responses to whoever waits for one. Those others may call the broker back at once (the hub's own mailbox
answers a ping on the spot; a full mailbox has its client thrown out), and an operation that is in the
middle of its tables must not be entered again.

So an operation is a *turn*. What it wants handed over it `posts`; the posts are made at the end of the
outermost turn, when the tables are consistent, in the order in which they were posted. A post that calls the
broker begins an inner turn, whose posts join the end of the same queue: there is no recursion however long
the chain. All this happens under one lock, so all recipients see events in the same order (R24).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Turn"]

log = logging.getLogger(__name__)


class Turn:
    """A context manager: one operation at a time, its posts at the end."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._posts: deque[tuple[Callable[[Any], object], Any]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_exc_info: object) -> None:
        try:
            if self._depth == 1 and self._posts:
                self._make_posts()
        finally:
            self._depth -= 1
            self._lock.release()

    def post(self, receive: Callable[[Any], object], what: Any) -> None:
        """Call ``receive(what)`` at the end of the outermost turn. Only within a turn."""
        self._posts.append((receive, what))

    def _make_posts(self) -> None:
        posts = self._posts
        while posts:
            receive, what = posts.popleft()
            try:
                receive(what)
            except Exception:  # one bad receiver must not cost the others their post
                log.exception("The hub could not hand over a message")
