# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The ways to send a message whose parameters are keywords."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

__all__ = ["KeywordSending"]

Map = Mapping[str, Any]


class KeywordSending(ABC):
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
