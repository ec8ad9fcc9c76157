# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What becomes of connections in a process that was forked.

The child of a fork has copies of its parent's sockets, but none of its threads, and its locks stay as they were
at that moment. It must neither use these connections nor end them in the parent's name: it forgets them, and is
told to connect anew.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["FORKED", "forget_in_child"]

#: What a child is told that uses its parent's connection.
FORKED = (
    "This process was forked from the one that connected to the hub, and has no connection of its own. "
    "Call connect() in this process."
)


class Abandonable(Protocol):
    """What holds threads, locks or sockets that a child cannot use."""

    def abandon(self) -> None:
        """Forget them; called in the child, where no other thread runs."""


_known: WeakSet[Abandonable] = WeakSet()


def forget_in_child(thing: Abandonable) -> None:
    """Have ``thing.abandon()`` called in each process that is forked from this one."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
