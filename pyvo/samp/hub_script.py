# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Compatibility: `hub_script`, the entry point of ``samp_hub``. The command is in `pyvo.samp.cli.hub`."""

from __future__ import annotations

from .cli.hub import main as hub_script

__all__ = ["hub_script"]
