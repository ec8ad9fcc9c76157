# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Binding functions to what a client receives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from .handlers import Handlers

__all__ = ["BindingMethods"]

Handler = Callable[..., Any]


class BindingMethods(ABC):
    """
    The methods by which a program binds its functions.

    Binding works before the client is connected, too: the hub is told when it is.
    """

    @property
    @abstractmethod
    def _bound(self) -> Handlers:
        """The tables of handlers; raises `SAMPClientError` for a client that cannot receive."""

    @abstractmethod
    def _redeclare(self, declare: bool) -> None:
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
        bound = self._bound
        bound.bind_call(mtype, function, metadata)
        bound.bind_notification(mtype, function, metadata)
        self._redeclare(declare)

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
        self._bound.bind_notification(mtype, function, metadata)
        self._redeclare(declare)

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
        self._bound.bind_call(mtype, function, metadata)
        self._redeclare(declare)

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
        self._bound.bind_response(msg_tag, function)

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
        self._bound.unbind_notification(mtype)
        self._redeclare(declare)

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
        self._bound.unbind_call(mtype)
        self._redeclare(declare)

    def unbind_receive_response(self, msg_tag: str) -> None:
        """
        Undo `bind_receive_response`.

        Parameters
        ----------
        msg_tag : str
            As it was bound.
        """
        self._bound.unbind_response(msg_tag)
