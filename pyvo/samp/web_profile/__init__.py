# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The Web Profile: XML-RPC from web pages, which the user has to allow and which poll for what is sent to them."""

from __future__ import annotations

from .consent_prompts import WebProfileDialog
from .cors import CLIENT_ACCESS_POLICY, CROSS_DOMAIN
from .profile import WebProfile

__all__ = ["CLIENT_ACCESS_POLICY", "CROSS_DOMAIN", "WebProfile", "WebProfileDialog"]
