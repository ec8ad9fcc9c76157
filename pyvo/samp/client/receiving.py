# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How a client handles messages and responses: filters, handlers, and replies to calls.

A program with an event loop can have its handlers run there (`HandlerExecutor`). The thread that has received the
message then waits until the event loop has run the handler, because the response depends on it and messages are handled
in order. `HandlerExecutor.cancel_pending` ends these waits when the event loop may have ended.
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
from .handlers import (
    BindingMethods,
    HandlerTable,
    MessageFilter,
    ReceivedCall,
    ReceivedMessage,
    error_text,
    in_same_call,
    is_internal,
    to_result,
)
from .hub_connection import CONNECT_AGAIN, ConnectionState
from .hub_proxy import SAMPHubProxy

log = logging.getLogger(__name__)

#: Schedules a call of a function without parameters, once and soon, in the thread of the program's event loop.
DispatchFunction = Callable[[Callable[[], None]], object]


class HandlerExecutor:
    """Runs functions in the program's event loop: ``dispatch(job)`` has ``job()`` called there soon."""

    def __init__(self, dispatch: DispatchFunction) -> None:
        self._dispatch = dispatch
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        # The thread of the event loop, once it is known. Not its identifier, which another thread may get later.
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function there and wait for its result or exception; `SAMPClientError` if that is cancelled."""
        if threading.current_thread() is self._thread:  # to wait would be a deadlock
            return function(*args, **kwargs)
        function = in_same_call(function)
        future: Future[Any] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._thread = threading.current_thread()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # is raised in the thread that waits
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
        """Cancel the functions that have not started, so that no thread waits for an event loop that has ended."""
        with self._lock:
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()


class MessageReceiver(BindingMethods):
    """Handles messages and responses. Its ``receive_*`` methods run in the client's worker threads."""

    _handlers: HandlerTable
    _hub_id: str | None
    _cleanup: ClientCleanup
    #: Runs the program's handlers; None for the thread that received the message.
    executor: HandlerExecutor | None = None

    @property
    def hub(self) -> SAMPHubProxy:
        """The connection to the hub. It may be replaced while the client is not running."""
        hub = self._cleanup.hub
        if hub is None:
            raise SAMPClientError("The client has no connection to a hub: `hub` has not been set.")
        return cast("SAMPHubProxy", hub)

    @hub.setter
    def hub(self, hub: SAMPHubProxy) -> None:
        hub.on_lost = weak_method(self._on_hub_lost)
        self._cleanup.hub = hub

    @abstractmethod
    def _on_hub_lost(self, reason: str) -> None:
        """Handle the loss of the connection; called in any thread."""

    @property
    def hub_id(self) -> str | None:
        """The id of the hub as a client; None while this one is not registered."""
        return self._hub_id

    def get_private_key(self) -> str | None:
        """Return the client's private key; None while it is not registered."""
        return self._cleanup.private_key

    def add_filter(self, key: object, patterns: Iterable[str], message_filter: MessageFilter) -> None:
        """
        Pass messages to a function of this package before the program's handlers get them.

        Parameters
        ----------
        key : object
            Identifies the filter for `remove_filter`.
        patterns : iterable of str
            MTypes and wildcards, to which the client subscribes.
        message_filter : callable
            Called with a `ReceivedMessage`; it returns the response if it handles the message, or else None.
        """
        self._handlers_or_raise.add_filter(key, patterns, message_filter)
        self._declare_if_registered(declare=True)

    def remove_filter(self, key: object) -> None:
        """
        Undo `add_filter`. Errors of the hub are only logged.

        Parameters
        ----------
        key : object
            As in `add_filter`.
        """
        self._handlers.remove_filter(key)
        try:
            self._declare_if_registered(declare=True)
        except SAMPError as error:
            log.debug("The subscriptions were not declared: %s", error)

    def handle_hub_control(self, method: str, params: tuple[Any, ...]) -> None:
        """
        End the registration if the message of the hub requires it, even while handlers run (R26).

        Parameters
        ----------
        method : str
            Name of the method that is about to be called.
        params : tuple
            The parameters of that call.
        """
        if method != "receive_notification" or params[1] != self._hub_id or params[0] != self._cleanup.private_key:
            return  # a message of the previous hub, which may have had the same id, does not concern this one
        message = params[2]
        if message["samp.mtype"] == "samp.hub.event.shutdown":
            self.hub.mark_lost(f"The hub has shut down. {CONNECT_AGAIN}")
        elif message["samp.mtype"] == "samp.hub.disconnect":
            reason = message["samp.params"].get("reason") or "no reason was given"
            text = f"The hub has disconnected this client: {reason}. Call connect() to connect again."
            self.hub.mark_lost(text, ConnectionState.CLOSED)

    def receive_notification(self, private_key: str, sender_id: str, message: Mapping[str, Any]) -> str:
        """
        Handle a notification; runs in a worker thread, and may be overridden.

        Parameters
        ----------
        private_key : str
            The client's key.
        sender_id : str
            Public id of the sender.
        message : mapping
            The message.
        """
        # A derived class that pulls by itself does not use the queue, which calls this for all others
        self.handle_hub_control("receive_notification", (private_key, sender_id, message))
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
        Handle a call; runs in a worker thread, and may be overridden.

        If the handler raises an exception and has not replied, an error response with its message is sent.

        Parameters
        ----------
        private_key : str
            The client's key.
        sender_id : str
            Public id of the sender.
        msg_id : str
            The hub's id of the message, which a reply needs.
        message : mapping
            The message.
        """
        with self.hub.received_calls.add(private_key, msg_id) as call:
            response = self._run_filters(private_key, sender_id, call, message)
            if response is None:
                response = self._respond(private_key, sender_id, msg_id, message)
            if response is not None:
                self._reply(call, response)
        return ""

    def _respond(
        self, private_key: str, sender_id: str, msg_id: str, message: Mapping[str, Any]
    ) -> dict[str, SAMPValue] | None:
        """Call the handler of a call; return the response, or None if the handler replies by itself."""
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
        Handle the response to a call; runs in a worker thread, and may be overridden.

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
            log.debug("No handler is bound to responses to %r", msg_tag)
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
        Handle ``client.env.get``. It is not bound unless the program does that (R29).

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
        Call a function of the program where its handlers run (see ``dispatch`` of `SAMPIntegratedClient`).

        Parameters
        ----------
        function : callable
            The function.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        object
            Its result.
        """
        if self.executor is None:
            return function(*args, **kwargs)
        return self.executor.run(function, *args, **kwargs)

    def _run(self, function: Callable[..., Any], is_internal: bool, *args: Any) -> Any:
        return function(*args) if is_internal else self.run_handler(function, *args)

    def _run_filters(
        self, private_key: str, sender_id: str, call: ReceivedCall | None, message: Mapping[str, Any]
    ) -> dict[str, SAMPValue] | None:
        """Pass a message to the filters; return the response of the one that handles it, or None."""
        mtype = message["samp.mtype"]
        for message_filter in self._handlers.filters_for(mtype):
            try:
                response = message_filter(ReceivedMessage(private_key, sender_id, call, mtype, message["samp.params"]))
            except Exception as error:
                log.exception("A filter of %s failed", mtype)
                response = error_response(error_text(error))
            if response is not None:
                return response
        return None

    def _reply(self, call: ReceivedCall, response: dict[str, SAMPValue]) -> None:
        """Reply to the call that is being handled, unless its handler has done that."""
        if call.replied:
            return
        try:
            self.hub.reply(call.private_key, call.msg_id, response)
            call.replied = True  # a derived class may have a `reply` of its own
        except SAMPProxyError as error:
            if response["samp.status"] == "samp.error":
                log.debug("A reply was not accepted: %s", error)
            else:  # JSAMP's hub rejects what is not ASCII: without a reply the caller would wait for ever
                self._reply(call, error_response(f"The hub rejected the reply: {error_text(error)}"))
        except SAMPError as error:
            log.debug("A reply was not sent: %s", error)


def reply_to_ping(private_key: str, sender_id: str, mtype: str, params: Any, extra: Any) -> None:
    """Handle ``samp.app.ping`` (R28): the empty result is the reply."""
