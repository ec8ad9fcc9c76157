# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The hub window: a page that the hub serves to the user's browser.

================ ==========================================================================
``traffic_log``  the record of clients and messages, which the terminal monitor shows as well
``server``       the HTTP server of the page
``icons``        fetches icons of clients
``browser``      opens the page in the browser
``window.html``  the page, with ``window.css`` and ``window.js``
================ ==========================================================================
"""

from __future__ import annotations
