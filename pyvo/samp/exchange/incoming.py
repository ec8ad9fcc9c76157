# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Queues of received objects, which `receive` and `incoming` use.

While a queue is open, it gets the messages of its MTypes before any handler. The bindings of handlers are not changed.
An object is fetched and read before the client replies, because the sender may remove the file after the reply. If the
object cannot be read, the response is an error.

The client refers to a queue weakly. When the program drops a queue, for example by leaving a loop, the queue gets no
more messages.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self

from ..client.cleanup import weak_method
from ..client.handlers import ReceivedMessage, release_slot
from ..client.lookup import client_name
from ..client.samp_client import SAMPClient
from ..errors import SAMPClientError, SAMPError, SAMPTimeoutError, warn
from ..formats.model import Sender
from ..protocol import SAMPValue, best_match, error_response, ok_response
from ..protocol.timeouts import Deadline
from .sending import ExchangeState

__all__ = ["Incoming"]

log = logging.getLogger(__name__)


class Incoming:
    """
    A queue of received objects. An iteration ends when the queue is closed or the client is disconnected.

    Parameters
    ----------
    state : ExchangeState
        The state of the client.
    mtypes : tuple of str
        MTypes or wildcards.
    limit : int
        Maximum number of objects in the queue. Senders of further objects get an error response.
    total : int, optional
        Maximum number of objects that the queue accepts in its lifetime. Later messages go to the handlers.
    """

    def __init__(self, state: ExchangeState, mtypes: tuple[str, ...], limit: int, total: int | None = None) -> None:
        if not mtypes:
            raise SAMPClientError("No MTypes are given. Pass MTypes or wildcards, such as 'table.load.*'")
        self._state = state
        self._patterns = dict.fromkeys(mtypes, True)
        self._limit = limit
        self._left = total
        self._items: deque[tuple[Any, tuple[str, ...] | None]] = deque()
        self._reading = 0
        self._replied_count = 0  # objects with a sent reply that are not in the queue yet
        self._changed = threading.Condition()
        self._end: SAMPError | None = None
        #: Called in another thread when the queue has changed; for event loops.
        self.on_item: Callable[[], object] | None = None
        self._key = object()  # identifies the filter, which must not refer to the queue
        state.client.client.add_filter(self._key, mtypes, weak_method(self._receive))
        state.queues.add(self)
        self._finalizer = weakref.finalize(self, _remove_filter_later, weakref.ref(state.client.client), self._key)
        self._finalizer.atexit = False

    def get(self, timeout: str | float = 0) -> Any:
        """
        Wait for the next object.

        Parameters
        ----------
        timeout : str, int or float
            Seconds to wait; 0: no limit, less than 0: do not wait.

        Returns
        -------
        object
            The object, as `SAMPIntegratedClient.receive` returns it.

        Raises
        ------
        SAMPTimeoutError
            No object arrived in time.
        SAMPClientError
            The queue was closed, or the client disconnected.
        """
        release_slot()  # in a handler: the message comes after the handler's own in the queue
        deadline = Deadline(timeout)
        while True:
            with self._changed:
                while not self._items:
                    if self._end is not None and not self._replied_count:
                        raise self._end
                    left = deadline.remaining
                    if left == 0:
                        wanted = " or ".join(self._patterns)
                        raise SAMPTimeoutError(f"No {wanted} arrived within {deadline.seconds:g} s")
                    self._changed.wait(left)
            found = self.get_nowait()
            if found is not None:
                return found

    def get_nowait(self) -> Any:
        """Return the next object, or None if the queue is empty. Warn about objects that could not be read."""
        while True:
            with self._changed:
                if not self._items:
                    return None
                item, _ = self._items.popleft()
            if not isinstance(item, _ReadError):
                return item
            warn(item.text)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.get()
        except SAMPClientError:
            raise StopIteration from None

    def __len__(self) -> int:
        return len(self._items) + self._replied_count

    @property
    def ended(self) -> bool:
        """Whether no more objects will arrive."""
        return self._end is not None and not self._replied_count

    def close(self) -> None:
        """Stop accepting messages. Further calls do nothing."""
        self.stop(SAMPClientError("The queue is closed"))
        self._finalizer.detach()
        self._state.queues.discard(self)
        client = self._state.client
        if client is not None:
            client.client.remove_filter(self._key)

    def stop(self, reason: SAMPError) -> None:
        """
        End the queue. Threads that wait for an object, now or later, get an error.

        Parameters
        ----------
        reason : SAMPError
            The error to raise in those threads.
        """
        with self._changed:
            if self._end is None:
                self._end = reason
            self._changed.notify_all()
        self._notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    # Called in the client's worker threads

    def _receive(self, message: ReceivedMessage) -> dict[str, SAMPValue] | None:
        if message.mtype.startswith("samp.") and "*" in self._patterns:
            named = {pattern: True for pattern in self._patterns if pattern != "*"}
            if best_match(named, message.mtype) is None:
                return None  # the wildcard "*" does not include messages between hub and clients
        rejection = self._reserve()
        if rejection is not None:
            return rejection or None
        # astropy.table and astropy.io are imported when the first object arrives
        from ..formats.readers import read_message  # noqa: PLC0415

        try:
            sender = Sender(message.sender_id, client_name(self._state.client, message.sender_id))
            item = read_message(message.mtype, message.params, sender, self._state.client.hub.download)
            key = _key(message)
        except Exception as error:  # whatever it is, the place in the queue is released
            log.info("The object of a message could not be read: %s", error, exc_info=not isinstance(error, SAMPError))
            self._put(_ReadError(f"{message.mtype} from {message.sender_id}: {error}"))
            return error_response(_ascii(str(error)))
        response = ok_response({})
        if message.call is not None:
            # Reply before the program gets the object: it may disconnect at once, and the hub would then report to the
            # sender that the recipient has unregistered.
            with self._changed:
                self._replied_count += 1
            self._state.client.client._reply(message.call, response)
        self._put(item, key, replied=message.call is not None)
        return response

    def _reserve(self) -> dict[str, SAMPValue] | None:
        """
        Reserve a place in the queue, and return None.

        If the queue is full, return an error response. If it accepts no more objects, return an empty response, which
        means that the handlers get the message.
        """
        with self._changed:
            if self._end is not None or self._left == 0:
                return {}
            if len(self._items) + self._reading >= self._limit:
                return error_response(f"The queue is full: {self._limit} objects are waiting to be processed")
            self._reading += 1
            if self._left is not None:
                self._left -= 1
            return None

    def _put(self, item: Any, key: tuple[str, ...] | None = None, *, replied: bool = False) -> None:
        with self._changed:
            self._reading -= 1
            self._replied_count -= replied
            if isinstance(item, _ReadError) and self._left is not None:
                self._left += 1
            if key is not None:  # an object that is sent again with the same table-id replaces the one in the queue
                self._items = deque(entry for entry in self._items if entry[1] != key)
            self._items.append((item, key))
            self._changed.notify_all()
        self._notify()

    def _notify(self) -> None:
        on_item = self.on_item
        if on_item is not None:
            on_item()


def _remove_filter_later(client: weakref.ref[SAMPClient], key: object) -> None:
    """Remove the filter of a collected queue in a worker thread, because any thread may run finalizers."""
    alive = client()
    if alive is None:
        return
    try:
        alive.loop.run_in_worker(alive.remove_filter, key)
    except SAMPClientError:  # the client is stopped and has no worker threads
        threading.Thread(target=alive.remove_filter, args=(key,), daemon=True).start()


def _key(message: ReceivedMessage) -> tuple[str, ...] | None:
    """Return a key for an object to which its sender has given an id (``table-id``, ``image-id``...); else None."""
    kind = message.mtype.partition(".")[0]
    identifier = message.params.get(f"{kind}-id")
    if not (isinstance(identifier, str) and identifier):
        return None
    # the key contains the private key, because another hub gives the same public ids to other clients
    return (message.private_key, message.sender_id, kind, identifier)


class _ReadError:
    """An item of the queue in place of an object that could not be read."""

    def __init__(self, text: str) -> None:
        self.text = text


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
