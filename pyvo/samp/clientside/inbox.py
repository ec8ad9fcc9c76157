# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What lies between the arrival of a message at a client and its handler.

The thread that receives a message must be back at once, and a handler may take for ever. So what has arrived is
queued here, and handled by worker threads in the order of arrival, one after the other, unless one takes longer
than the grace time or waits for a call of its own (R24).
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..dispatcher import Dispatcher
from ..errors import SAMPProxyError
from ..protocol import check_message, check_response
from ..transport.loop import Loop
from .turns import turn

if TYPE_CHECKING:
    from ..client import SAMPClient

__all__ = ["Inbox"]

log = logging.getLogger(__name__)

#: Bytes of messages that may wait for their handlers.
MAX_WAITING = 256 * 1024 * 1024

#: What may arrive, and how its last part is checked.
_CHECKS: dict[str, Callable[[object], dict[str, Any]]] = {
    "receive_notification": check_message,
    "receive_call": check_message,
    "receive_response": check_response,
}


class _Arrival(NamedTuple):
    """The method of the client that takes it, and what it is called with."""

    method: str
    params: tuple[Any, ...]
    size: int


class Inbox:
    """
    The queue of what a client has received.

    Parameters
    ----------
    loop : Loop
        Whose workers run the handlers.
    client : SAMPClient
        Whose ``receive_*`` methods are called. It is referred to weakly.
    """

    def __init__(self, loop: Loop, client: SAMPClient) -> None:
        self.client = weakref.ref(client)
        self._loop = loop
        self._waiting = 0  # bytes
        self._lock = threading.Lock()
        self._dispatcher: Dispatcher[_Arrival] = Dispatcher(self._start, loop.call_later)

    def put(self, method: str, *params: Any, size: int) -> None:
        """
        Queue a call of one of the client's methods.

        Parameters
        ----------
        method : str
            ``"receive_notification"``, ``"receive_call"`` or ``"receive_response"``.
        *params
            What it is called with.
        size : int
            How many bytes it came in.

        Raises
        ------
        SAMPValueError
            The message is none (R16), or the response is none (R17).
        SAMPProxyError
            Too much waits to be handled; the hub tells the sender (R23).
        """
        *others, body = params
        arrival = _Arrival(method, (*others, _CHECKS[method](body)), size)
        client = self.client()
        if client is None:
            return
        client.heed(method, arrival.params)
        with self._lock:
            if self._waiting + size > MAX_WAITING:
                raise SAMPProxyError(1, "The client does not get on with its messages: too many of them wait")
            self._waiting += size
        self._dispatcher.put(arrival)

    def close(self) -> None:
        """Drop what has not been begun."""
        self._dispatcher.close()

    def _start(self, arrival: _Arrival, done: Callable[[], None]) -> None:
        with self._lock:
            self._waiting -= arrival.size
        self._loop.run_in_worker(self._run, arrival, done)

    def _run(self, arrival: _Arrival, done: Callable[[], None]) -> None:
        with turn(done):
            client = self.client()
            if client is None:
                return
            try:
                getattr(client, arrival.method)(*arrival.params)
            except Exception:
                log.exception("%s failed", arrival.method)
