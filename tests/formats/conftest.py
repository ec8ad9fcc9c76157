# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The table and the image of `tests.exchange`."""

from __future__ import annotations

from tests.exchange.conftest import image, table

__all__ = ["image", "table"]
