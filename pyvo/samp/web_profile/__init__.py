# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The Web Profile: XML-RPC for web pages, which register with the user's consent and pull their callbacks (R39 to R50).

Names are imported when they are first used: `consent_tk`, which runs in a process of its own, needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .consent_prompts import WebProfileDialog
    from .cors import CLIENT_ACCESS_POLICY, CROSS_DOMAIN
    from .profile import WebProfile

__all__ = ["CLIENT_ACCESS_POLICY", "CROSS_DOMAIN", "WebProfile", "WebProfileDialog"]

_MODULES = {
    "CLIENT_ACCESS_POLICY": "cors",
    "CROSS_DOMAIN": "cors",
    "WebProfile": "profile",
    "WebProfileDialog": "consent_prompts",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
