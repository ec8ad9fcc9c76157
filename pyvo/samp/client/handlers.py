# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The functions that a program bound to MTypes and msg-tags, and how they are called."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import SAMPClientError
from ..protocol import SAMPValue, best_match, check_pattern, encode, subtypes
from .received_calls import ReceivedCall

__all__ = [
    "Binding",
    "HandlerTable",
    "MessageFilter",
    "ReceivedMessage",
    "error_text",
    "internal_handler",
    "is_coroutine_function",
    "refuse_coroutine_function",
]

Handler = Callable[..., Any]
Map = dict[str, Any]


class ReceivedMessage(NamedTuple):
    """A message that has arrived, and for which registration; ``call`` is None for a notification."""

    private_key: str
    sender_id: str
    call: ReceivedCall | None
    mtype: str
    params: Map


#: Looks at what arrives before any binding. It tells whether it has taken the message, which then goes no further, and
#: with what response a call is answered; None leaves the message to the bindings.
MessageFilter = Callable[[ReceivedMessage], "Map | None"]


def internal_handler(function: Handler) -> Handler:
    """Mark a handler as the package's own: it runs in the client's thread, never in the program's event loop."""
    function.__dict__["samp_direct"] = True
    return function


class Binding(NamedTuple):
    """A handler of messages, what it takes, and the annotations of its subscription."""

    function: Handler
    accepts_msg_id: bool
    annotations: Map

    @property
    def is_internal(self) -> bool:
        """Whether it was marked by `direct`."""
        return is_internal(self.function)

    @classmethod
    def of(cls, function: Handler, annotations: Mapping[str, Any] | None) -> Binding:
        """
        Look at a handler once, when it is bound.

        Parameters
        ----------
        function : callable
            Takes ``(private_key, sender_id, msg_id, mtype, params, extra)``, or the same without ``msg_id``.
        annotations : mapping, optional
            Annotations of the subscription.

        Raises
        ------
        SAMPClientError
            It cannot be called like that.
        """
        copied = encode(annotations or {}, "metadata")
        assert isinstance(copied, dict)
        if not callable(function):
            raise SAMPClientError(f"A handler is something to call, not {function!r}")
        refuse_coroutine_function(function)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some functions written in C do not tell; the usual is assumed
            return cls(function, True, copied)
        counts = [count for count in (6, 5) if _takes(signature, count)]
        if counts:
            # with defaults, both may be possible: then the name of the third parameter tells
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


def _takes(signature: inspect.Signature, count: int) -> bool:
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
    """Raise an error for a coroutine function, which nothing here would await."""
    if is_one or is_coroutine_function(function):
        title = function if isinstance(function, str) else repr(function)
        raise SAMPClientError(f"{title} is a coroutine function: AsyncSAMPClient.on takes such handlers")


class HandlerTable:
    """
    Which function handles what.

    The tables are replaced, never changed, so that a thread that looks something up needs no lock; those that replace
    one take turns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.notifications: dict[str, Binding] = {}
        self.calls: dict[str, Binding] = {}
        self.responses: dict[str, Handler] = {}
        #: The package's own, in the order in which they look; by whatever object stands for them.
        self.taps: dict[object, tuple[frozenset[str], MessageFilter]] = {}

    def add_filter(self, key: object, patterns: Iterable[str], tap: MessageFilter) -> None:
        """Have a function look at messages of some MTypes or wildcards before the bindings do."""
        checked = frozenset(patterns)
        for pattern in checked:
            check_pattern(pattern)
        with self._lock:
            self.taps = {**self.taps, key: (checked, tap)}

    def remove_filter(self, key: object) -> None:
        """Undo `add_tap`; nothing happens if that is done already."""
        with self._lock:
            self.taps = {other: tap for other, tap in self.taps.items() if other is not key}

    def filters_for(self, mtype: str) -> list[MessageFilter]:
        """The functions that look at messages of an MType, the latest first."""
        wanted = set(subtypes(mtype))
        return [tap for patterns, tap in reversed(self.taps.values()) if patterns & wanted]

    def bind_notification(self, mtype: str, function: Handler, annotations: Mapping[str, Any] | None = None) -> None:
        """Have notifications of an MType, or of all that a wildcard covers, handled by a function (R12)."""
        check_pattern(mtype)
        binding = Binding.of(function, annotations)
        with self._lock:
            self.notifications = {**self.notifications, mtype: binding}

    def bind_call(self, mtype: str, function: Handler, annotations: Mapping[str, Any] | None = None) -> None:
        """Have calls of an MType, or of all that a wildcard covers, handled by a function (R12)."""
        check_pattern(mtype)
        binding = Binding.of(function, annotations)
        with self._lock:
            self.calls = {**self.calls, mtype: binding}

    def bind_response(self, msg_tag: str, function: Handler) -> None:
        """Have the responses to calls with a tag handled by a function (R20)."""
        if not callable(function):
            raise SAMPClientError(f"A handler is something to call, not {function!r}")
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
        """Forget who was just binding something, in the child of a fork."""
        self._lock = threading.Lock()

    def subscriptions(self) -> dict[str, Map]:
        """The subscriptions that all these bindings need, with their annotations."""
        wanted: dict[str, Map] = {pattern: {} for patterns, _ in self.taps.values() for pattern in patterns}
        for table in (self.notifications, self.calls):
            for mtype, binding in table.items():
                wanted[mtype] = {**wanted.get(mtype, {}), **binding.annotations}
        return wanted


def is_internal(function: Handler) -> bool:
    """Whether a handler was marked by `direct`."""
    return bool(getattr(function, "samp_direct", False))


def _without(table: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    if key not in table:
        raise SAMPClientError(f"Nothing is bound to {what} {key!r}")
    return {other: value for other, value in table.items() if other != key}


#: Exceptions whose texts say nothing without their names: "'url'", "3".
_UNINFORMATIVE = (KeyError, SystemExit, StopIteration, AssertionError)


def error_text(error: BaseException) -> str:
    """
    What the sender of a call is told of an exception in its handler.

    Parameters
    ----------
    error : BaseException
        What the handler raised.

    Returns
    -------
    str
        Its message without the traceback, in characters that every hub takes (R2).
    """
    text = str(error)
    if not text or isinstance(error, _UNINFORMATIVE):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return "".join(
        c if " " <= c <= "~" or c in "\n\t" else " " if c == "\r" else c.encode("unicode_escape").decode() for c in text
    )


def to_result(value: object) -> dict[str, SAMPValue]:
    """What a handler returned, as the ``samp.result`` of a response: nothing is an empty map."""
    result = encode(value if value is not None else {}, "samp.result")
    if not isinstance(result, dict):
        raise SAMPClientError(f"The result of a call is a map, not {value!r}")
    return result
