# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What people type: ``samp``, whose subcommands are a module each (see `pyvo.samp.cli.main`), and ``samp_hub``."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
