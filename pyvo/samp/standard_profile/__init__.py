# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The hub's side of the Standard Profile: XML-RPC with programs of this machine, each of which runs a server of its own.

=================== ======================================================================
``profile``         `StandardProfile`: the server for the clients' requests
``callback_sender`` the delivery queue of one client, which calls the client's server
``liveness``        finds clients that ended without unregistering
=================== ======================================================================
"""

from __future__ import annotations

from .profile import StandardProfile

__all__ = ["StandardProfile"]
