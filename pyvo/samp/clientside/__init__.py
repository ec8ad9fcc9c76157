# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The client's side, below `SAMPClient` and `SAMPIntegratedClient`: how one joins a hub, stays, receives and leaves."""

from __future__ import annotations
