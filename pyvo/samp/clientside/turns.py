# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Whose turn it is: how a handler that has to wait lets the next message go ahead.

A client's handlers run one after the other (R24). One that makes a call and waits for the answer would hold up
the very message that brings the answer about, until the grace time of the dispatcher has passed. It gives its
turn up as it begins to wait, so that nested calls cost no grace time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["give_way", "turn"]

_local = threading.local()


@contextmanager
def turn(done: Callable[[], object]) -> Iterator[None]:
    """
    Run a handler, in the thread that runs it.

    Parameters
    ----------
    done : callable
        Called once: when the handler gives way, or else at the end of the block.
    """
    outer = getattr(_local, "done", None)
    _local.done = done
    try:
        yield
    finally:
        give_way()
        _local.done = outer


def give_way() -> None:
    """Let the next message be handled beside this one. Does nothing outside of a handler, or the second time."""
    done = getattr(_local, "done", None)
    if done is not None:
        _local.done = None
        done()
