# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Constants of the SAMP standard.

`SAMP_ICON` is read from its file on first use and not when this module is imported.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "SAFE_MTYPES",
    "SAMP_ICON",
    "SAMP_STATUS_ERROR",
    "SAMP_STATUS_OK",
    "SAMP_STATUS_WARNING",
]

#: Values of ``samp.status`` in a response (R17).
SAMP_STATUS_OK = "samp.ok"
SAMP_STATUS_WARNING = "samp.warning"
SAMP_STATUS_ERROR = "samp.error"

#: MTypes that a web page may send, unless the recipient's subscription overrides this (R47).
SAFE_MTYPES = [
    "samp.app.*",
    "samp.msg.progress",
    "table.*",
    "image.*",
    "coord.*",
    "spectrum.*",
    "bibcode.*",
    "voresource.*",
    "coverage.*",
]

#: Default icon of clients and hubs: the bytes of a PNG file.
SAMP_ICON: bytes


def __getattr__(name: str) -> object:
    """Read the icon on first use, so that importing the package does not read the file."""
    if name != "SAMP_ICON":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    icon = (Path(__file__).parent / "data" / "icon.png").read_bytes()
    globals()[name] = icon
    return icon
