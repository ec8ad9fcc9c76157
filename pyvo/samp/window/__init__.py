# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The hub window: a web page that the hub serves to the user's browser.

================ ==========================================================================
``traffic_log``  the log of clients and messages, which the terminal monitor also shows
``server``       the HTTP server of the page
``icons``        functions that fetch the icons of clients
``browser``      functions that open the page in the browser
``window.html``  the page, with ``window.css`` and ``window.js``
================ ==========================================================================
"""

from __future__ import annotations
