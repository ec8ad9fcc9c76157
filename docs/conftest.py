# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fixtures for the examples of the pages, which pytest-doctestplus runs: ``python -m pytest docs``.

Each page has a home directory and a hub of its own, and ``desk``, which opens stand-ins for TOPCAT, DS9 and Aladin.
``tests/interop/test_docs.py`` runs the pages of the tutorials with the real programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import default_signals, isolated, nothing_left_behind
from tests.docs.examples import DOCS, load_module

__all__ = ["default_signals", "isolated", "nothing_left_behind"]

collect_ignore_glob = ["*.py", "_build/*", "api/*"]


@pytest.fixture(autouse=True)
def desk(isolated: Path, nothing_left_behind: None, doctest_namespace: dict[str, Any]) -> Iterator[None]:
    """Start a hub, and give the page ``desk``."""
    doctest_namespace["desk"] = desk = load_module(DOCS / "stand_ins.py").Desk()
    yield
    desk.close()
