# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The Standard Profile: XML-RPC between the hub and programs of this machine, each of which has a server of its own."""

from __future__ import annotations

from .profile import StandardProfile

__all__ = ["StandardProfile"]
