# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handlers: the functions that are bound to MTypes and msg-tags, the received calls that they reply to, and handler slots.

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

import functools
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

from ..errors import SAMPClientError
from ..protocol import SAMPValue, best_match, check_pattern, encode, subtypes

Handler = Callable[..., Any]
Map = dict[str, Any]


#: How many calls without a reply are kept, so that handlers that never reply do not fill the memory.
MAX_OPEN = 1000


class ReceivedCall:
    """One delivery of a call. It is handled within a ``with`` block."""

    __slots__ = ("_token", "calls", "msg_id", "private_key", "replied")

    def __init__(self, calls: ReceivedCalls, private_key: str, msg_id: str) -> None:
        self.calls = calls
        #: The key of the registration for which the call arrived.
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
        """Mark the call to which a reply that will now be sent belongs, and return it; None if it is not known."""
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


class ReceivedMessage(NamedTuple):
    """A message that has arrived for the registration with that key; ``call`` is None for a notification."""

    private_key: str
    sender_id: str
    call: ReceivedCall | None
    mtype: str
    params: Map


#: Gets a message before the bindings do. It returns the response if it handles the message, or None, and then the
#: bindings handle it.
MessageFilter = Callable[[ReceivedMessage], "Map | None"]


def internal_handler(function: Handler) -> Handler:
    """Mark a handler of this package: it runs in the client's thread, never in the program's event loop."""
    function.__dict__["samp_internal"] = True
    return function


class Binding(NamedTuple):
    """A handler of messages, the arguments that it accepts, and the annotations of its subscription."""

    function: Handler
    accepts_msg_id: bool
    annotations: Map

    @property
    def is_internal(self) -> bool:
        """Whether it was marked by `internal_handler`."""
        return is_internal(self.function)

    @classmethod
    def from_function(cls, function: Handler, annotations: Mapping[str, Any] | None) -> Binding:
        """
        Inspect a handler once, when it is bound.

        It accepts ``(private_key, sender_id, msg_id, mtype, params, extra)``, or the same without ``msg_id``; any other
        signature raises `SAMPClientError`.
        """
        copied = encode(annotations or {}, "metadata")
        assert isinstance(copied, dict)
        if not callable(function):
            raise SAMPClientError(f"A handler must be callable, not {function!r}")
        refuse_coroutine_function(function)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some functions written in C have no signature: assume the usual one
            return cls(function, True, copied)
        counts = [count for count in (6, 5) if _accepts(signature, count)]
        if counts:
            # With default values both may be possible: then the name of the third parameter decides
            third = [*signature.parameters.values(), None, None, None][2]
            is_mtype = third is not None and third.kind is not third.VAR_POSITIONAL and "mtype" in third.name.lower()
            return cls(function, counts[0] == 6 and not (5 in counts and is_mtype), copied)
        raise SAMPClientError(
            f"The handler {function!r} takes {signature}. It must take (private_key, sender_id, msg_id, mtype, "
            "params, extra), or the same without msg_id."
        )

    def run(self, private_key: str, sender_id: str, msg_id: str | None, message: Mapping[str, Any]) -> Any:
        """Call the handler with the parts of a message."""
        extra = dict(message)
        mtype = extra.pop("samp.mtype")
        params = extra.pop("samp.params")
        if self.accepts_msg_id:
            return self.function(private_key, sender_id, msg_id, mtype, params, extra)
        return self.function(private_key, sender_id, mtype, params, extra)


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def is_coroutine_function(function: object) -> bool:
    """Whether a function, a partial of one or an object to call is a coroutine function."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(type(function).__call__)
    )


def refuse_coroutine_function(function: object, *, is_one: bool = False) -> None:
    """Raise an error for a coroutine function, which no code here would await."""
    if is_one or is_coroutine_function(function):
        title = function if isinstance(function, str) else repr(function)
        raise SAMPClientError(f"{title} is a coroutine function: AsyncSAMPClient.on accepts such handlers")


class HandlerTable:
    """
    The functions that handle messages and responses.

    Each table is replaced, never changed, so that a thread that looks up a handler needs no lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.notifications: dict[str, Binding] = {}
        self.calls: dict[str, Binding] = {}
        self.responses: dict[str, Handler] = {}
        #: The filters, by their keys, with the patterns of MTypes.
        self.filters: dict[object, tuple[frozenset[str], MessageFilter]] = {}

    def add_filter(self, key: object, patterns: Iterable[str], message_filter: MessageFilter) -> None:
        """Have a function get messages of some MTypes or wildcards before the bindings do."""
        checked = frozenset(patterns)
        for pattern in checked:
            check_pattern(pattern)
        with self._lock:
            self.filters = {**self.filters, key: (checked, message_filter)}

    def remove_filter(self, key: object) -> None:
        """Undo `add_filter`; does nothing if there is no such filter."""
        with self._lock:
            self.filters = {other: entry for other, entry in self.filters.items() if other is not key}

    def filters_for(self, mtype: str) -> list[MessageFilter]:
        """The filters for messages of an MType, the latest first."""
        wanted = set(subtypes(mtype))
        return [message_filter for patterns, message_filter in reversed(self.filters.values()) if patterns & wanted]

    def bind_notification(self, mtype: str, function: Handler, annotations: Mapping[str, Any] | None = None) -> None:
        """Bind a function to notifications of an MType or wildcard (R12)."""
        check_pattern(mtype)
        binding = Binding.from_function(function, annotations)
        with self._lock:
            self.notifications = {**self.notifications, mtype: binding}

    def bind_call(self, mtype: str, function: Handler, annotations: Mapping[str, Any] | None = None) -> None:
        """Bind a function to calls of an MType or wildcard (R12)."""
        check_pattern(mtype)
        binding = Binding.from_function(function, annotations)
        with self._lock:
            self.calls = {**self.calls, mtype: binding}

    def bind_response(self, msg_tag: str, function: Handler) -> None:
        """Bind a function to the responses to calls with a tag (R20)."""
        if not callable(function):
            raise SAMPClientError(f"A handler must be callable, not {function!r}")
        refuse_coroutine_function(function)
        with self._lock:
            self.responses = {**self.responses, str(encode(msg_tag, "msg_tag")): function}

    def unbind_notification(self, mtype: str) -> None:
        """Undo `bind_notification`."""
        with self._lock:
            self.notifications = _without(self.notifications, mtype, "notifications of")

    def unbind_call(self, mtype: str) -> None:
        """Undo `bind_call`."""
        with self._lock:
            self.calls = _without(self.calls, mtype, "calls of")

    def unbind_response(self, msg_tag: str) -> None:
        """Undo `bind_response`."""
        with self._lock:
            self.responses = _without(self.responses, str(encode(msg_tag, "msg_tag")), "responses to")

    def for_notification(self, mtype: str) -> Binding | None:
        """The most specific binding for a notification."""
        return best_match(self.notifications, mtype)

    def for_call(self, mtype: str) -> Binding | None:
        """The most specific binding for a call."""
        return best_match(self.calls, mtype)

    def after_fork_in_child(self) -> None:
        """Replace the lock, in the child of a fork: a thread that is in the parent only may have held it."""
        self._lock = threading.Lock()

    def subscriptions(self) -> dict[str, Map]:
        """The subscriptions that all these bindings need, with their annotations."""
        wanted: dict[str, Map] = {pattern: {} for patterns, _ in self.filters.values() for pattern in patterns}
        for table in (self.notifications, self.calls):
            for mtype, binding in table.items():
                wanted[mtype] = {**wanted.get(mtype, {}), **binding.annotations}
        return wanted


def is_internal(function: Handler) -> bool:
    """Whether a handler was marked by `internal_handler`."""
    return bool(getattr(function, "samp_internal", False))


def _without(table: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    if key not in table:
        raise SAMPClientError(f"No handler is bound to {what} {key!r}")
    return {other: value for other, value in table.items() if other != key}


#: Exceptions whose messages are useless without their names: "'url'", "3".
_UNINFORMATIVE = (KeyError, SystemExit, StopIteration, AssertionError)


def error_text(error: BaseException) -> str:
    """Return the text for the sender of a call whose handler has raised: the message of the exception in ASCII (R2)."""
    text = str(error)
    if not text or isinstance(error, _UNINFORMATIVE):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return "".join(
        c if " " <= c <= "~" or c in "\n\t" else " " if c == "\r" else c.encode("unicode_escape").decode() for c in text
    )


def to_result(value: object) -> dict[str, SAMPValue]:
    """Convert what a handler has returned to the ``samp.result`` of a response; None is an empty map."""
    result = encode(value if value is not None else {}, "samp.result")
    if not isinstance(result, dict):
        raise SAMPClientError(f"The result of a call is a map, not {value!r}")
    return result


class BindingMethods(ABC):
    """
    The methods that bind handlers.

    Handlers can be bound before the client is connected; the subscriptions are declared when it is.
    """

    @property
    @abstractmethod
    def _handlers_or_raise(self) -> HandlerTable:
        """The tables of handlers; raises `SAMPClientError` for a client that cannot receive."""

    @abstractmethod
    def _declare_if_registered(self, declare: bool) -> None:
        """Declare the subscriptions to the hub if ``declare`` and the client is registered."""

    def bind_receive_message(
        self, mtype: str, function: Handler, declare: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """
        Bind a function to both calls and notifications of an MType.

        Parameters
        ----------
        mtype : str
            An MType, or a wildcard such as ``table.*`` or ``*``. The most specific binding that matches is used.
        function : callable
            Called as ``function(private_key, sender_id, msg_id, mtype, params, extra)``; ``msg_id`` is None for a
            notification. If it does not accept ``msg_id``, its return value is the reply to a call.
            If it raises an exception, an error response is sent.
        declare : bool
            Whether to declare the subscription now, if the client is registered.
        metadata : mapping, optional
            Annotations of the subscription.
        """
        handlers = self._handlers_or_raise
        handlers.bind_call(mtype, function, metadata)
        handlers.bind_notification(mtype, function, metadata)
        self._declare_if_registered(declare)

    def bind_receive_notification(
        self, mtype: str, function: Handler, declare: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """
        Bind a function to notifications of an MType.

        Parameters
        ----------
        mtype, function, declare, metadata
            As in `bind_receive_message`.
        """
        self._handlers_or_raise.bind_notification(mtype, function, metadata)
        self._declare_if_registered(declare)

    def bind_receive_call(
        self, mtype: str, function: Handler, declare: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """
        Bind a function to calls of an MType.

        Parameters
        ----------
        mtype, function, declare, metadata
            As in `bind_receive_message`.
        """
        self._handlers_or_raise.bind_call(mtype, function, metadata)
        self._declare_if_registered(declare)

    def bind_receive_response(self, msg_tag: str, function: Handler) -> None:
        """
        Bind a function to the responses to calls with a tag (R20).

        Parameters
        ----------
        msg_tag : str
            The tag given to ``call`` or ``call_all``.
        function : callable
            Called as ``function(private_key, responder_id, msg_tag, response)``.
        """
        self._handlers_or_raise.bind_response(msg_tag, function)

    def unbind_receive_notification(self, mtype: str, declare: bool = True) -> None:
        """
        Undo `bind_receive_notification`.

        Parameters
        ----------
        mtype : str
            As it was bound.
        declare : bool
            Whether to declare the subscriptions now.
        """
        self._handlers_or_raise.unbind_notification(mtype)
        self._declare_if_registered(declare)

    def unbind_receive_call(self, mtype: str, declare: bool = True) -> None:
        """
        Undo `bind_receive_call`.

        Parameters
        ----------
        mtype : str
            As it was bound.
        declare : bool
            Whether to declare the subscriptions now.
        """
        self._handlers_or_raise.unbind_call(mtype)
        self._declare_if_registered(declare)

    def unbind_receive_response(self, msg_tag: str) -> None:
        """
        Undo `bind_receive_response`.

        Parameters
        ----------
        msg_tag : str
            As it was bound.
        """
        self._handlers_or_raise.unbind_response(msg_tag)
