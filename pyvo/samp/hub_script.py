# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The module that ``samp_hub`` was in before; the command itself is in `pyvo.samp.cli.hub`."""

from __future__ import annotations

from .cli.hub import main as hub_script

__all__ = ["hub_script"]
