# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Who is there, who wants what, which calls are open: the hub without its sockets.

The rooms:

=============== ===========================================================================
``deliveries``  what is handed to a recipient: `Payload`, `Delivery`, and the `Mailbox`
``clients``     `Client`, and the roster that finds clients by key, id and subscription
``calls``       `PendingCall`, and the table of calls that wait for their response
``turn``        the lock, and the order in which things leave the broker
``hub_client``  what the hub answers as a client among clients
``core``        `Broker`, the operations themselves
=============== ===========================================================================

Nothing here does I/O, starts a thread, or reads a clock that was not handed in.
"""

from __future__ import annotations

from .broker import Broker
from .deliveries import NOTIFICATION, Delivery, DeliveryQueue, EncodedMessage, Traffic
from .registry import Client, PendingCall

__all__ = ["NOTIFICATION", "Broker", "Client", "Delivery", "DeliveryQueue", "EncodedMessage", "PendingCall", "Traffic"]
