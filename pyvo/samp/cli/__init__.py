# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The command ``samp``, whose subcommands `pyvo.samp.cli.main` lists, and the command ``samp_hub``."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
