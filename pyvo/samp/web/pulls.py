# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The pulls of web clients, and how many of one browser may wait at a time (R42, R49)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pyvo.samp.transport.deferred import Deferred

if TYPE_CHECKING:
    from pyvo.samp.broker import Delivery
    from pyvo.samp.transport.accepted import Connection
    from pyvo.samp.transport.loop import Loop, Timer

__all__ = ["Pull", "PullLimit"]

#: Pulls of one browser that may wait at a time: it opens six connections to a host, and some must be left (R49).
MAX_PULLS = 4
#: Seconds between two releases while nothing tells that somebody needs room. Eight tabs that pull again at once would
#: otherwise go round in circles.
RELEASE_EVERY = 0.25
#: Releases without that pause when something does: what waits in the browser for a connection waits in a queue,
#: perhaps behind pulls of many tabs, and the hub cannot see which of them it is going to get.
HURRIED = 16


class Pull:
    """
    One ``pullCallbacks`` that waits or has been answered.

    Parameters
    ----------
    connection : Connection
        What it came by.
    browser : str
        Whose connections it shares (R49).
    """

    def __init__(self, connection: Connection, browser: str = "") -> None:
        self.connection = connection
        self.browser = browser
        self.answer = Deferred()
        self.batch: list[Delivery] = []
        self.timer: Timer | None = None
        #: Whether the answer has been written.
        self.is_sent = False
        self._requests = connection.requests

    @property
    def is_settled(self) -> bool:
        """Whether the answer cannot come back any more: it was read before the next request, or in good order."""
        connection = self.connection
        if connection.requests != self._requests:
            return True
        # Who closes before there is an answer has not read it, in whatever order
        return self.is_sent and not connection.is_there() and not connection.was_reset

    @property
    def was_broken_off(self) -> bool:
        """Whether the other side has closed the connection before it had read the whole answer."""
        return (self.connection.was_left and not self.is_sent) or self.was_lost

    @property
    def was_lost(self) -> bool:
        """Whether the other side has thrown the answer away unread."""
        return not self.is_settled and self.connection.was_reset


class PullLimit:
    """
    Keeps the pulls of one browser from taking all its connections (R49). Belongs to the loop's thread.

    The oldest pull is released when too many wait. With many tabs it comes back at once and takes the place that it
    has made, so releases have a pace, and go faster for a while when there are signs that a tab wants to do more than
    to pull: see `hurry`. Pulls of programs that are no browsers do not count.

    Parameters
    ----------
    loop : Loop
        Whose clock is used.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[str, dict[Pull, Callable[[Pull], object]]] = {}
        self._paused: set[str] = set()
        self._hurried: dict[str, int] = {}  # releases without a pause that are left

    def add(self, pull: Pull, release: Callable[[Pull], object]) -> None:
        """Count a pull that begins to wait; ``release(pull)`` will be called if it is to make room."""
        if pull.browser:
            self._waiting.setdefault(pull.browser, {})[pull] = release
            self._make_room(pull.browser)

    def discard(self, pull: Pull) -> None:
        """Count a pull out."""
        waiting = self._waiting.get(pull.browser)
        if waiting is not None and waiting.pop(pull, None) is not None and not waiting:
            del self._waiting[pull.browser]
            self._hurried.pop(pull.browser, None)

    def hurry(self, browser: str) -> None:
        """
        Release pulls without a pause for a while: a tab of the browser is busy, so others may need connections.

        Parameters
        ----------
        browser : str
            As the pulls have it; for an empty one nothing is done.
        """
        if browser in self._waiting:
            self._hurried[browser] = HURRIED
            self._make_room(browser)

    def _make_room(self, browser: str) -> None:
        while len(waiting := self._waiting.get(browser, {})) > MAX_PULLS:
            if self._hurried.get(browser):
                self._hurried[browser] -= 1
            elif browser not in self._paused:
                self._paused.add(browser)
                self._loop.call_later(RELEASE_EVERY, self._go_on, browser)
            else:
                return
            oldest = next(iter(waiting))
            waiting[oldest](oldest)

    def _go_on(self, browser: str) -> None:
        self._paused.discard(browser)
        self._make_room(browser)
