# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A notebook on a server, and the hub on the user's computer: the page of the notebook passes messages between them.

`relay` has the widget and the interface for the client, `page_requests` assigns requests to pages and keeps their
states, and `hub_relay.js` is the script of the page.
"""

from __future__ import annotations

try:
    from .relay import HubRelay
except ModuleNotFoundError as error:
    if error.name != "anywidget":
        raise
    text = "pyvo.samp.jupyter needs anywidget: pip install 'pyvo-samp[jupyter]'"
    raise ImportError(text, name="anywidget") from error

__all__ = ["HubRelay"]
