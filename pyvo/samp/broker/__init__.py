# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The broker: the registered clients, their subscriptions and the open calls.

=============== ==================================================================================
``deliveries``  what the hub sends to one recipient: `EncodedMessage`, `Delivery`, `DeliveryQueue`
``registry``    `Client` and `PendingCall`, and the tables that find them
``broker``      `Broker`: the rules of the protocol
``operations``  the XML-RPC methods that both profiles offer, as calls of a `Broker`
=============== ==================================================================================

The first three do no I/O, start no thread and read only the clock that is passed to them. They import one module of
`pyvo.samp.transport`, the XML-RPC writer, which does no I/O: a message is encoded once for all its recipients.
``operations`` is the layer above. It handles requests, and uses timers of the event loop.
"""

from __future__ import annotations

from .broker import Broker
from .deliveries import NOTIFICATION, Delivery, DeliveryQueue, EncodedMessage, Traffic
from .registry import Client, PendingCall

__all__ = ["NOTIFICATION", "Broker", "Client", "Delivery", "DeliveryQueue", "EncodedMessage", "PendingCall", "Traffic"]
