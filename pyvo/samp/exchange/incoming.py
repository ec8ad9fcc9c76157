# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What arrives, one thing after the other: `receive` and `incoming`.

While a queue is open it takes the messages that it is for before any handler sees them; it changes no binding, so that
none has to be restored. What arrives is fetched and read before the sender gets its answer, which is an error if that
fails: whoever sent it may then remove its file.

Nothing here holds a queue but the program: one that it has let go, by leaving a loop for one, takes nothing any more.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..client.handlers import MessageFilter, ReceivedMessage
from ..client.lookup import client_name
from ..client.received_calls import release_slot
from ..errors import SAMPClientError, SAMPError, SAMPTimeoutError, warn
from ..formats.model import Sender
from ..formats.readers import read_message
from ..protocol import SAMPValue, best_match, error_response, ok_response
from ..protocol.timeouts import Deadline

if TYPE_CHECKING:
    from ..client.samp_client import SAMPClient as Client
    from .sending import ExchangeState

__all__ = ["Incoming"]

log = logging.getLogger(__name__)


class Incoming:
    """
    A queue of what arrives. It is iterated over until it is closed, or the client is disconnected.

    Parameters
    ----------
    state : ExchangeState
        The state of the client.
    mtypes : tuple of str
        MTypes or wildcards.
    limit : int
        How many things may wait; senders of more are told that there is no room.
    total : int, optional
        How many things are taken at all; what comes later goes to the handlers.
    """

    def __init__(self, state: ExchangeState, mtypes: tuple[str, ...], limit: int, total: int | None = None) -> None:
        if not mtypes:
            raise SAMPClientError("Which messages? Give MTypes or wildcards, such as 'table.load.*'")
        self._state = state
        self._patterns = dict.fromkeys(mtypes, True)
        self._limit = limit
        self._left = total
        self._items: deque[tuple[Any, tuple[str, ...] | None]] = deque()
        self._coming = 0
        self._replied_count = 0  # of those that are coming: their senders believe that we have them
        self._changed = threading.Condition()
        self._end: SAMPError | None = None
        #: Called in another thread when there is news; for event loops.
        self.on_item: Callable[[], object] | None = None
        self._key = object()  # what it is known by where it must not be held
        take = weakref.WeakMethod(self._receive)
        state.client.client.add_filter(self._key, mtypes, lambda message: _take_if_there(take, message))
        state.queues.add(self)
        self._finalizer = weakref.finalize(self, _remove_filter_later, weakref.ref(state.client.client), self._key)
        self._finalizer.atexit = False

    # Taking out

    def get(self, timeout: str | float = 0) -> Any:
        """
        Wait for the next thing.

        Parameters
        ----------
        timeout : str, int or float
            Seconds; 0 waits without limit, and less than 0 not at all.

        Returns
        -------
        object
            As of `Exchange.receive`.

        Raises
        ------
        SAMPTimeoutError
            Nothing came.
        SAMPClientError
            The queue was closed, or the client disconnected.
        """
        release_slot()  # within a handler: what is waited for is behind it in the queue
        deadline = Deadline(timeout)
        while True:
            with self._changed:
                while not self._items:
                    if self._end is not None and not self._replied_count:
                        raise self._end
                    left = deadline.remaining
                    if left == 0:
                        wanted = " or ".join(self._patterns)
                        raise SAMPTimeoutError(f"No {wanted} came within {deadline.seconds:g} s")
                    self._changed.wait(left)
            found = self.get_nowait()
            if found is not None:
                return found

    def get_nowait(self) -> Any:
        """Take what is there; None if nothing is. Warns of what could not be read."""
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
        """Whether nothing more will come."""
        return self._end is not None and not self._replied_count

    # Ending

    def close(self) -> None:
        """Take nothing any more. It may be repeated."""
        self.stop(SAMPClientError("The queue is closed"))
        self._finalizer.detach()
        self._state.queues.discard(self)
        client = self._state.client
        if client is not None:
            client.client.remove_filter(self._key)

    def stop(self, reason: SAMPError) -> None:
        """
        Let those who wait know that nothing will come.

        Parameters
        ----------
        reason : SAMPError
            What is raised for them.
        """
        with self._changed:
            if self._end is None:
                self._end = reason
            self._changed.notify_all()
        self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Taking in; in the client's worker threads

    def _receive(self, message: ReceivedMessage) -> dict[str, SAMPValue] | None:
        if message.mtype.startswith("samp.") and "*" in self._patterns:
            named = {pattern: True for pattern in self._patterns if pattern != "*"}
            if best_match(named, message.mtype) is None:
                return None  # what keeps clients and hub together is not what "*" is meant for
        refusal = self._reserve()
        if refusal is not None:
            return refusal or None
        try:
            sender = Sender(message.sender_id, client_name(self._state.client, message.sender_id))
            item = read_message(message.mtype, message.params, sender)
            key = _key(message)
        except SAMPError as error:
            log.info("What arrived could not be read: %s", error)
            self._put(_ReadError(f"{message.mtype} from {message.sender_id}: {error}"))
            return error_response(_ascii(str(error)))
        response = ok_response({})
        if message.call is not None:
            # Before the item is handed over: a program that was waiting for it alone may disconnect at once, and the
            # sender would be told that its recipient has left.
            with self._changed:
                self._replied_count += 1
            self._state.client.client._reply(message.call, response)
        self._put(item, key, answered=message.call is not None)
        return response

    def _reserve(self) -> dict[str, SAMPValue] | None:
        """Make sure that there is room: None if so, else the answer, empty if the message is for others."""
        with self._changed:
            if self._end is not None or self._left == 0:
                return {}
            if len(self._items) + self._coming >= self._limit:
                return error_response(f"{self._limit} things wait here to be looked at: there is no room for more")
            self._coming += 1
            if self._left is not None:
                self._left -= 1
            return None

    def _put(self, item: Any, key: tuple[str, ...] | None = None, *, answered: bool = False) -> None:
        with self._changed:
            self._coming -= 1
            self._replied_count -= answered
            if isinstance(item, _ReadError) and self._left is not None:
                self._left += 1
            if key is not None:  # what was sent again, with the same table-id, takes the place of what still waits
                self._items = deque(entry for entry in self._items if entry[1] != key)
            self._items.append((item, key))
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        on_news = self.on_item
        if on_news is not None:
            on_news()


def _take_if_there(take: weakref.WeakMethod[Any], message: ReceivedMessage) -> dict[str, SAMPValue] | None:
    method: MessageFilter | None = take()
    return method(message) if method is not None else None


def _remove_filter_later(client: weakref.ref[Client], key: object) -> None:
    """Have it known that nobody waits for these messages any more; in another thread, as this may be any."""
    there = client()
    if there is None:
        return
    try:
        there.loop.run_in_worker(there.remove_filter, key)
    except SAMPClientError:  # it is not running, and has none
        threading.Thread(target=there.remove_filter, args=(key,), daemon=True).start()


def _key(message: ReceivedMessage) -> tuple[str, ...] | None:
    """What a table, image... is known by, if its sender has given it an id."""
    kind = message.mtype.partition(".")[0]
    identifier = message.params.get(f"{kind}-id")
    if not (isinstance(identifier, str) and identifier):
        return None
    # The private key, for another hub gives the same public ids to other clients
    return (message.private_key, message.sender_id, kind, identifier)


class _ReadError:
    """What arrived and could not be read."""

    def __init__(self, text: str) -> None:
        self.text = text


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
