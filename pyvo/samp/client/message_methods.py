# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ways to send a message whose parameters are keywords.

Binding functions to what a client receives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from .handlers import HandlerTable

__all__ = ["BindingMethods", "KeywordMethods"]

Handler = Callable[..., Any]


class BindingMethods(ABC):
    """
    The methods by which a program binds its functions.

    Binding works before the client is connected, too: the hub is told when it is.
    """

    @property
    @abstractmethod
    def _handlers_or_raise(self) -> HandlerTable:
        """The tables of handlers; raises `SAMPClientError` for a client that cannot receive."""

    @abstractmethod
    def _declare_if_registered(self, declare: bool) -> None:
        """Tell the hub about the subscriptions if ``declare`` and the client is registered."""

    def bind_receive_message(
        self, mtype: str, function: Handler, declare: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """
        Have both calls and notifications of an MType handled by a function.

        Parameters
        ----------
        mtype : str
            An MType, or a wildcard such as ``table.*`` or ``*``. Of several that match the most specific counts.
        function : callable
            Called as ``function(private_key, sender_id, msg_id, mtype, params, extra)``; ``msg_id`` is None for a
            notification. It may instead take all but ``msg_id``; what it returns is then the reply to a call.
            An exception that it raises becomes an error response.
        declare : bool
            Whether the hub is told now, if the client is registered; otherwise by `declare_subscriptions`.
        metadata : mapping, optional
            Annotations of the subscription.
        """
        bound = self._handlers_or_raise
        bound.bind_call(mtype, function, metadata)
        bound.bind_notification(mtype, function, metadata)
        self._declare_if_registered(declare)

    def bind_receive_notification(
        self, mtype: str, function: Handler, declare: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """
        Have notifications of an MType handled by a function.

        Parameters
        ----------
        mtype : str
            An MType or a wildcard.
        function : callable
            As for `bind_receive_message`.
        declare : bool
            Whether the hub is told now.
        metadata : mapping, optional
            Annotations of the subscription.
        """
        self._handlers_or_raise.bind_notification(mtype, function, metadata)
        self._declare_if_registered(declare)

    def bind_receive_call(
        self, mtype: str, function: Handler, declare: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """
        Have calls of an MType handled by a function, which replies by `SAMPHubProxy.reply`.

        Parameters
        ----------
        mtype : str
            An MType or a wildcard.
        function : callable
            As for `bind_receive_message`.
        declare : bool
            Whether the hub is told now.
        metadata : mapping, optional
            Annotations of the subscription.
        """
        self._handlers_or_raise.bind_call(mtype, function, metadata)
        self._declare_if_registered(declare)

    def bind_receive_response(self, msg_tag: str, function: Handler) -> None:
        """
        Have the responses to calls with a tag handled by a function (R20).

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
            Whether the hub is told now.
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
            Whether the hub is told now.
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


Map = Mapping[str, Any]


class KeywordMethods(ABC):
    """The methods ``enotify`` to ``ereply``, on top of those that take whole messages."""

    @abstractmethod
    def notify(self, recipient_id: str, message: Map) -> Any:
        """Send a message that needs no answer to one client."""

    @abstractmethod
    def notify_all(self, message: Map) -> list[str]:
        """Send a message that needs no answer to all that subscribed to its MType."""

    @abstractmethod
    def call(self, recipient_id: str, msg_tag: str, message: Map) -> str:
        """Send a message whose answer comes later."""

    @abstractmethod
    def call_all(self, msg_tag: str, message: Map) -> dict[str, str]:
        """Send a message to all that subscribed to its MType; the answers come later."""

    @abstractmethod
    def call_and_wait(self, recipient_id: str, message: Map, timeout: str | float) -> dict[str, Any]:
        """Send a message and wait for its answer."""

    @abstractmethod
    def reply(self, msg_id: str, response: Map) -> Any:
        """Answer a call that was received."""

    def enotify(self, recipient_id: str, mtype: str, **params: Any) -> Any:
        """
        Send a notification to one client.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        mtype : str
            The MType.
        **params
            Its parameters. ``extra_kws``, a mapping, adds keys beside ``samp.mtype``.
        """
        return self.notify(recipient_id, _message(mtype, params))

    def enotify_all(self, mtype: str, **params: Any) -> list[str]:
        """
        Send a notification to all that subscribed to its MType; warns if that is nobody.

        Parameters
        ----------
        mtype : str
            The MType.
        **params
            As of `enotify`.

        Returns
        -------
        list of str
            Ids of the recipients.
        """
        return self.notify_all(_message(mtype, params))

    def ecall(self, recipient_id: str, msg_tag: str, mtype: str, **params: Any) -> str:
        """
        Send a call to one client.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        msg_tag : str
            Any string; the response bears it.
        mtype : str
            The MType.
        **params
            As of `enotify`.

        Returns
        -------
        str
            The hub's id of the message.
        """
        return self.call(recipient_id, msg_tag, _message(mtype, params))

    def ecall_all(self, msg_tag: str, mtype: str, **params: Any) -> dict[str, str]:
        """
        Send a call to all that subscribed to its MType.

        Parameters
        ----------
        msg_tag : str
            Any string; the responses bear it.
        mtype : str
            The MType.
        **params
            As of `enotify`.

        Returns
        -------
        dict
            From the recipients' ids to the hub's ids of the messages.
        """
        return self.call_all(msg_tag, _message(mtype, params))

    def ecall_and_wait(self, recipient_id: str, mtype: str, timeout: str | float, **params: Any) -> dict[str, Any]:
        """
        Send a call and wait for its answer.

        Parameters
        ----------
        recipient_id : str
            Id or name of the recipient.
        mtype : str
            The MType.
        timeout : str, int or float
            Seconds; 0 waits without limit.
        **params
            As of `enotify`.

        Returns
        -------
        dict
            The response.
        """
        return self.call_and_wait(recipient_id, _message(mtype, params), timeout)

    def ereply(self, msg_id: str, status: str, result: Map | None = None, error: Map | None = None) -> Any:
        """
        Answer a call that was received.

        Parameters
        ----------
        msg_id : str
            The hub's id of the message, as the handler got it.
        status : str
            ``SAMP_STATUS_OK``, ``SAMP_STATUS_WARNING`` or ``SAMP_STATUS_ERROR``.
        result : mapping, optional
            With the first two, the values that were asked for.
        error : mapping, optional
            With the last two, what is amiss, in ``samp.errortxt``.
        """
        response: dict[str, Any] = {"samp.status": status}
        if result is not None:
            response["samp.result"] = result
        if error is not None:
            response["samp.error"] = error
        return self.reply(msg_id, response)


def _message(mtype: str, params: dict[str, Any]) -> dict[str, Any]:
    extra = params.pop("extra_kws", None) or {}
    return {"samp.mtype": mtype, "samp.params": params, **extra}
