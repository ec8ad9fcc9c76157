# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The client's side: connecting to a hub, sending and receiving messages, and replying to calls.

`pyvo.samp.client` is also the module from which programs import `SAMPClient`.
"""

from __future__ import annotations

from .samp_client import SAMPClient

__all__ = ["SAMPClient"]
