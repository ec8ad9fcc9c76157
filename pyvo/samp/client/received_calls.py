# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Which received call a reply belongs to, and when the next handler may start.

Calls that a client has received, and whether each of them has been replied to
------------------------------------------------------------------------------
A msg-id does not tell two calls apart. Hubs built on JSAMP (JSAMP, TOPCAT, Aladin) make it from the sender and its
msg-tag. When the sender uses a tag again, the same id comes again, even while the first call is still open. Observed
with JSAMP's hub: it passes every reply on to the sender, so two replies to one call arrive as two responses, and the
second of two open calls gets its response only by a second reply. Therefore each delivery of a call is an object of its
own, and the mark "replied" belongs to that object.

A reply names only the msg-id. It belongs to the call that is being handled in the same context, in whatever thread the
handler runs. A reply from elsewhere, such as a thread that a handler started, belongs to the oldest call of that id
that has not been replied to.

Handler slots
-------------
A client's handlers run one after the other (R24). A handler that makes a call and waits for the response would hold up
the very message that is needed for the response, until the grace time of the dispatcher has passed. Therefore it
releases its slot when it begins to wait, and nested calls take no grace time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

__all__ = ["ReceivedCall", "ReceivedCalls", "handler_slot", "in_same_call", "release_slot"]

#: How many calls without a reply are kept, so that handlers that never reply do not fill the memory.
MAX_OPEN = 1000


class ReceivedCall:
    """One delivery of a call. It is handled within a ``with`` block."""

    __slots__ = ("_token", "calls", "msg_id", "private_key", "replied")

    def __init__(self, calls: ReceivedCalls, private_key: str, msg_id: str) -> None:
        self.calls = calls
        #: Of the registration that it came for.
        self.private_key = private_key
        self.msg_id = msg_id
        #: Whether it has been replied to.
        self.replied = False

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_error: object) -> None:
        _current.reset(self._token)


#: The call that is being handled.
_current: ContextVar[ReceivedCall | None] = ContextVar("pyvo_samp_received_call", default=None)


class ReceivedCalls:
    """The calls of one client that have not been replied to. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[ReceivedCall, None] = {}  # the oldest first

    def add(self, private_key: str, msg_id: str) -> ReceivedCall:
        """Add a call that has just been delivered."""
        call = ReceivedCall(self, private_key, msg_id)
        with self._lock:
            self._open[call] = None
            if len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
        return call

    def current(self, msg_id: str) -> ReceivedCall | None:
        """Return the call that is being handled, if it has that id."""
        call = _current.get()
        return call if call is not None and call.calls is self and call.msg_id == msg_id else None

    def claim(self, private_key: str, msg_id: str) -> ReceivedCall | None:
        """Mark the call that a reply belongs to, which is about to be sent; None if it is not known."""
        with self._lock:
            call = self.current(msg_id)
            if call is None or call.replied:
                fitting = (c for c in self._open if c.msg_id == msg_id and c.private_key == private_key)
                call = next(fitting, None)
            if call is not None:
                call.replied = True
                self._open.pop(call, None)
            return call

    def release(self, call: ReceivedCall) -> None:
        """Undo `claim`: the reply has failed."""
        with self._lock:
            call.replied = False
            self._open = {call: None, **self._open}


def in_same_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that may run in another thread part of the handling of the current call."""
    call = _current.get()
    if call is None:
        return function

    def run(*args: Any, **kwargs: Any) -> Any:
        token = _current.set(call)
        try:
            return function(*args, **kwargs)
        finally:
            _current.reset(token)

    return run


_slot = threading.local()


@contextmanager
def handler_slot(done: Callable[[], object]) -> Iterator[None]:
    """Run a handler. ``done`` is called once: when the handler releases its slot, or else at the end of the block."""
    outer = getattr(_slot, "done", None)
    _slot.done = done
    try:
        yield
    finally:
        release_slot()
        _slot.done = outer


def release_slot() -> None:
    """Let the client handle the next message beside this one. Does nothing outside a handler, or the second time."""
    done = getattr(_slot, "done", None)
    if done is not None:
        _slot.done = None
        done()
