# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The client that most programs use: connection, registration, messages and objects in one class."""

from __future__ import annotations

from typing import Any

from .client.hub_connection import LocalHub
from .client.messaging import MessagingClient
from .exchange.mixin import ExchangeMixin

__all__ = ["SAMPIntegratedClient"]


class SAMPIntegratedClient(ExchangeMixin, MessagingClient):
    """
    A SAMP client.

    Each method that takes the id of a client also takes its name, in upper or lower case: ``"topcat"``.

    The methods that call the hub raise `SAMPClientError` when the client is not connected, `SAMPHubError` when the
    hub is gone or does not respond, and `SAMPProxyError` when it returns a fault. For an argument that is not a SAMP
    value (R4) they raise `TypeError` or `ValueError` before anything is sent.

    Parameters
    ----------
    name : str, optional
        ``samp.name`` of the client.
    description : str, optional
        ``samp.description.text`` of the client.
    metadata : mapping, optional
        Its metadata (R11); ``name`` and ``description`` are added. The mapping itself is not modified.
    addr : str, optional
        Address on which the client listens for the hub; the loopback address unless given (R37).
    port : int
        Port on which it listens; 0 takes a free one.
    callable : bool
        Whether the client can receive messages and responses (R13).
    dispatch : callable, optional
        Runs handlers in the program's event loop: ``dispatch(job)`` must have ``job()`` called there soon. Without it,
        handlers run in a thread of the client.

    Examples
    --------
    ::

        with SAMPIntegratedClient(name="My script") as client:
            client.enotify_all("coord.pointAt.sky", ra=83.63, dec=22.01)
    """

    def _make_hub(self, options: dict[str, Any]) -> LocalHub:
        from .hub import SAMPHubServer  # noqa: PLC0415 - most programs do not need it

        return SAMPHubServer(**options)
