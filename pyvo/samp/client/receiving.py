# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How what a client receives reaches the functions that are bound to it, and what the sender of a call is told.

Running a program's handlers where the program wants them: in the event loop of its windows, or of asyncio.

The thread that received the message waits until the event loop has run the handler, for the answer to a call depends
on it and messages keep their order. Nobody waits for an event loop that has ended: `release` ends all waits.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, cast

from ..errors import SAMPClientError, SAMPError, SAMPProxyError
from ..protocol import SAMPValue, error_response, ok_response
from .cleanup import ClientCleanup, weak_method
from .handlers import HandlerTable, MessageFilter, ReceivedMessage, error_text, is_internal, to_result
from .hub_proxy import SAMPHubProxy
from .message_methods import BindingMethods
from .received_calls import ReceivedCall, in_same_call

__all__ = ["DispatchFunction", "HandlerExecutor", "MessageReceiver", "answer_ping"]

log = logging.getLogger(__name__)

#: Takes a function without parameters and has it called soon, once, in the program's own thread.
DispatchFunction = Callable[[Callable[[], None]], object]


class HandlerExecutor:
    """
    Runs functions by somebody else's event loop.

    Parameters
    ----------
    dispatch : callable
        ``dispatch(job)`` has ``job()`` called soon, and returns at once.
    """

    def __init__(self, dispatch: DispatchFunction) -> None:
        self._dispatch = dispatch
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        # Where the event loop runs, once that is known. Not the thread's identifier, which another thread gets later.
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """
        Call a function there, and wait for what it returns or raises.

        Parameters
        ----------
        function : callable
            The function.
        *args, **kwargs
            What it is called with.

        Returns
        -------
        object
            What it returned.

        Raises
        ------
        SAMPClientError
            The client was disconnected before its turn came.
        """
        if threading.current_thread() is self._thread:  # it would wait for itself
            return function(*args, **kwargs)
        function = in_same_call(function)
        future: Future[Any] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._thread = threading.current_thread()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # whatever it is, it belongs to the one who waits
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            self._waiting.add(future)
        try:
            self._dispatch(job)
            return future.result()
        except CancelledError:
            raise SAMPClientError("The client was disconnected before its event loop ran the handler") from None
        finally:
            with self._lock:
                self._waiting.discard(future)

    def cancel_pending(self) -> None:
        """Cancel what has not begun, so that no thread waits for an event loop that has ended."""
        with self._lock:
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()


class MessageReceiver(BindingMethods):
    """What a client does with messages and responses. Its methods run in the client's worker threads."""

    thrown_out: bool
    _handlers: HandlerTable
    _hub_id: str | None
    _remains: ClientCleanup
    #: Where the program's handlers run; None for the thread that received the message.
    executor: HandlerExecutor | None = None

    @property
    def hub(self) -> SAMPHubProxy:
        """The connection to the hub. Another one may be given to a client that is not running."""
        hub = self._remains.hub
        if hub is None:
            raise SAMPClientError("The client has no connection to a hub, and none has been given to it.")
        return cast("SAMPHubProxy", hub)

    @hub.setter
    def hub(self, hub: SAMPHubProxy) -> None:
        hub.on_lost = weak_method(self._on_hub_lost)
        self._remains.hub = hub

    @abstractmethod
    def _on_hub_lost(self, reason: str) -> None:
        """Take note that the connection is lost; in any thread."""

    @property
    def hub_id(self) -> str | None:
        """The id of the hub as a client; None while this one is not registered."""
        return self._hub_id

    def add_filter(self, key: object, patterns: Iterable[str], tap: MessageFilter) -> None:
        """
        Have a function of the package's own look at messages before the program's handlers do.

        Parameters
        ----------
        key : object
            What it is known by.
        patterns : iterable of str
            MTypes and wildcards, to which the client subscribes.
        tap : callable
            Called with an `Arrival`; it returns the response if it takes the message, or else None.
        """
        self._handlers_or_raise.add_filter(key, patterns, tap)
        self._declare_if_registered(declare=True)

    def remove_filter(self, key: object) -> None:
        """
        Undo `add_tap`. It never fails: a hub that is gone need not be told.

        Parameters
        ----------
        key : object
            As it was given there.
        """
        self._handlers.remove_filter(key)
        try:
            self._declare_if_registered(declare=True)
        except SAMPError as error:
            log.debug("The hub was not told that less is wanted: %s", error)

    def heed(self, method: str, params: tuple[Any, ...]) -> None:
        """
        Notice that the hub ends the client's registration, at once and whatever its handlers are doing (R26).

        Parameters
        ----------
        method : str
            Name of the method that is about to be called.
        params : tuple
            What it is to be called with.
        """
        if method != "receive_notification" or params[1] != self._hub_id or params[0] != self._remains.private_key:
            return  # a message of the previous hub, which may have had the same id, says nothing about this one
        message = params[2]
        if message["samp.mtype"] == "samp.hub.event.shutdown":
            self.hub.mark_lost("The hub has shut down. Call connect() when a hub is running again.")
        elif message["samp.mtype"] == "samp.hub.disconnect":
            reason = message["samp.params"].get("reason") or "no reason was given"
            self.thrown_out = True
            self.hub.mark_lost(f"The hub has disconnected this client: {reason}. Call connect() to come back.")

    def receive_notification(self, private_key: str, sender_id: str, message: Mapping[str, Any]) -> str:
        """
        Handle a notification; runs in a thread of its own, and may be overridden.

        Parameters
        ----------
        private_key : str
            The client's key.
        sender_id : str
            Public id of the sender.
        message : mapping
            The message.
        """
        self.heed("receive_notification", (private_key, sender_id, message))  # of a derived class that pulls by itself
        if self._run_filters(private_key, sender_id, None, message) is not None:
            return ""
        binding = self._handlers.for_notification(message["samp.mtype"])
        if binding is not None:
            try:
                self._run(binding.run, binding.is_internal, private_key, sender_id, None, message)
            except Exception:
                log.exception("The handler of the notification %s failed", message["samp.mtype"])
        return ""

    def receive_call(self, private_key: str, sender_id: str, msg_id: str, message: Mapping[str, Any]) -> str:
        """
        Handle a call; runs in a thread of its own, and may be overridden.

        A handler that raises makes an error response of its exception's message, unless it has replied before.

        Parameters
        ----------
        private_key : str
            The client's key.
        sender_id : str
            Public id of the sender.
        msg_id : str
            The hub's id of the message, which the reply bears.
        message : mapping
            The message.
        """
        with self.hub.received_calls.add(private_key, msg_id) as call:
            response = self._run_filters(private_key, sender_id, call, message)
            if response is None:
                response = self._respond(private_key, sender_id, msg_id, message)
            if response is not None:
                self._answer(call, response)
        return ""

    def _respond(
        self, private_key: str, sender_id: str, msg_id: str, message: Mapping[str, Any]
    ) -> dict[str, SAMPValue] | None:
        """Have a call handled; return the response, or None if the handler replies by itself."""
        mtype = message["samp.mtype"]
        binding = self._handlers.for_call(mtype)
        if binding is None:
            return error_response(f"This client has no handler for calls of {mtype}")
        try:
            result = self._run(binding.run, binding.is_internal, private_key, sender_id, msg_id, message)
            return None if binding.accepts_msg_id else ok_response(to_result(result))
        except BaseException as error:  # sys.exit() in a handler is an error of that handler
            log.exception("The handler of the call %s failed", mtype)
            return error_response(error_text(error))

    def receive_response(
        self, private_key: str, responder_id: str, msg_tag: str, response: Mapping[str, Any]
    ) -> str:
        """
        Handle the response to a call; runs in a thread of its own, and may be overridden.

        Parameters
        ----------
        private_key : str
            The client's key.
        responder_id : str
            Public id of the client that responds.
        msg_tag : str
            The tag of the call.
        response : mapping
            The response.
        """
        handler = self._handlers.responses.get(msg_tag)
        if handler is None:
            log.debug("Nothing is bound to responses to %r", msg_tag)
            return ""
        try:
            self._run(handler, is_internal(handler), private_key, responder_id, msg_tag, response)
        except Exception:
            log.exception("The handler of responses to %r failed", msg_tag)
        return ""

    def client_env_get(
        self, private_key: str, sender_id: str, msg_id: str, mtype: str, params: Mapping[str, Any], extra: Any
    ) -> None:
        """
        Handle ``client.env.get``. Nobody is answered unless the program binds this (R29).

        Environment variables may hold passwords and tokens, and any client could ask for them.

        Parameters
        ----------
        private_key, sender_id, msg_id, mtype, params, extra
            As for any handler; ``params["name"]`` is the name of the variable.
        """
        value = os.environ.get(str(params.get("name", "")), "")
        self.hub.reply(private_key, msg_id, ok_response({"value": value}))

    def run_handler(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """
        Call a function of the program's where its handlers run (see ``dispatch`` of `SAMPIntegratedClient`).

        Parameters
        ----------
        function : callable
            The function.
        *args, **kwargs
            What it is called with.

        Returns
        -------
        object
            What it returned.
        """
        if self.executor is None:
            return function(*args, **kwargs)
        return self.executor.run(function, *args, **kwargs)

    def _run(self, function: Callable[..., Any], is_direct: bool, *args: Any) -> Any:
        return function(*args) if is_direct else self.run_handler(function, *args)

    def _run_filters(
        self, private_key: str, sender_id: str, call: ReceivedCall | None, message: Mapping[str, Any]
    ) -> dict[str, SAMPValue] | None:
        """Show a message to the package's own listeners; the response if one of them has taken it."""
        mtype = message["samp.mtype"]
        for tap in self._handlers.filters_for(mtype):
            try:
                response = tap(ReceivedMessage(private_key, sender_id, call, mtype, message["samp.params"]))
            except Exception as error:
                log.exception("A listener to %s failed", mtype)
                response = error_response(error_text(error))
            if response is not None:
                return response
        return None

    def _answer(self, call: ReceivedCall, response: dict[str, SAMPValue]) -> None:
        """Reply to the call that is being handled, unless its handler has."""
        if call.replied:
            return
        try:
            self.hub.reply(call.private_key, call.msg_id, response)
            call.replied = True  # a derived class may have a `reply` of its own
        except SAMPProxyError as error:
            if response["samp.status"] == "samp.error":
                log.debug("A reply was not taken: %s", error)
            else:  # JSAMP's hub refuses what is not ASCII: the caller must not be left waiting for that
                self._answer(call, error_response(f"The answer was refused: {error_text(error)}"))
        except SAMPError as error:
            log.debug("A reply was not sent: %s", error)


def answer_ping(private_key: str, sender_id: str, mtype: str, params: Any, extra: Any) -> None:
    """Answer ``samp.app.ping`` (R28): to be called is enough."""
