# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub's side, below `SAMPHubServer` and the profiles: its life, its operations, and how it reaches its clients."""

from __future__ import annotations
