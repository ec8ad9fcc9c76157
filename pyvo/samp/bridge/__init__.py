# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A bridge between hubs: the clients of each hub appear at the others.

`Bridge` is the engine at one hub. A transport joins it to the engines at other hubs, see `pyvo.samp.bridge.link`.
"""

from __future__ import annotations

from .bridge import Bridge, BridgeState
from .local_pair import LocalPair
from .peer import RemoteClient
from .policy import Policy

__all__ = ["Bridge", "BridgeState", "LocalPair", "Policy", "RemoteClient"]
