# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A memory of a bounded number of strings."""

from __future__ import annotations

__all__ = ["Recent"]


class Recent:
    """The last strings that were added, a thousand of them at least. Any thread may add some."""

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self._new: set[str] = set()
        self._old: set[str] = set()

    def add(self, item: str) -> None:
        """Remember a string."""
        if len(self._new) >= self._size:
            self._old, self._new = self._new, set()
        self._new.add(item)

    def __contains__(self, item: str) -> bool:
        return item in self._new or item in self._old
