# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The module from which programs import `SAMPHubProxy`; the class itself is in `pyvo.samp.client.hub_proxy`."""

from __future__ import annotations

from .client.hub_proxy import SAMPHubProxy

__all__ = ["SAMPHubProxy"]
