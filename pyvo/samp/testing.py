# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tools for testing a program that uses SAMP: a separate hub for each test, and clients that record messages.

With pytest, use the fixtures ``samp_hub``, ``samp_client``, ``samp_home`` and ``samp_hub_factory``, which are available
when this package is installed. With another test runner, use `running_hub`, `isolated_home` and `RecordingClient`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from .client.cleanup import live_clients
from .client.handlers import error_text, to_result
from .client.lookup import client_name
from .errors import SAMPError
from .hub import SAMPHubServer
from .integrated_client import SAMPIntegratedClient
from .protocol import best_match, check_pattern, encode, error_response, matches, ok_response

__all__ = ["Message", "MessageRecorder", "RecordingClient", "isolated_home", "running_hub", "start_hub"]

_PING = "samp.app.ping"
#: Maximum number of characters of a message's parameters in the text of a failure.
_PREVIEW_LENGTH = 200


@contextmanager
def isolated_home() -> Iterator[Path]:
    """
    Use an empty home directory, in this process and in programs that it starts, for the duration of a ``with`` block.

    The directory contains no lockfile, and ``SAMP_HUB`` is not set, so that the tests cannot find the user's hub.

    Yields
    ------
    pathlib.Path
        The directory, which is removed at the end of the block.
    """
    process = os.getpid()
    home = Path(tempfile.mkdtemp(prefix="samp-home-"))
    names = ("HOME", "USERPROFILE", "SAMP_HUB")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(HOME=str(home), USERPROFILE=str(home))
    os.environ.pop("SAMP_HUB", None)
    try:
        yield home
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if os.getpid() == process:  # a child of a fork must not remove the lockfile of its parent's hub
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def start_hub(**options: Any) -> Iterator[SAMPHubServer]:
    """
    Run a hub in the current home directory for the duration of a ``with`` block.

    At the end of the block, clients that this process has created in it are disconnected, and the hub is stopped.

    Parameters
    ----------
    **options
        As in `~pyvo.samp.SAMPHubServer`. By default the hub has no Web Profile. With ``web_profile=True``, it uses a
        free port instead of 21012.

    Yields
    ------
    SAMPHubServer
        The running hub.
    """
    process = os.getpid()
    hub = SAMPHubServer(**{"web_profile": False, "web_port": 0, **options})
    clients_before = live_clients()
    hub.start()
    try:
        yield hub
    finally:
        if os.getpid() == process:
            # a client that reconnects would find the user's hub after the home directory is restored
            for cleanup in live_clients() - clients_before:
                cleanup.close()
            hub.stop()


@contextmanager
def running_hub(**options: Any) -> Iterator[SAMPHubServer]:
    """
    Run a hub in a separate home directory for the duration of a ``with`` block.

    This combines `isolated_home` and `start_hub`.

    Parameters
    ----------
    **options
        As in `start_hub`.

    Yields
    ------
    SAMPHubServer
        The running hub.

    Examples
    --------
    ::

        from pyvo.samp.testing import RecordingClient, running_hub

        with running_hub(), RecordingClient("topcat", ["table.load.votable"]) as topcat:
            with SAMPIntegratedClient("My program") as client:
                client.send(table, to="topcat")
            message = topcat.assert_received("table.load.votable")
            assert message.params["url"].startswith("file:")
    """
    with isolated_home(), start_hub(**options) as hub:
        yield hub


class Message(NamedTuple):
    """
    A message that a client has received.

    Parameters
    ----------
    private_key : str
        The private key of the recipient.
    sender_id : str
        The public id of the sender.
    msg_id : str or None
        The hub's id of a call; None for a notification.
    mtype : str
        The MType.
    params : dict
        The parameters.
    extra : dict
        Additional keys of the message.
    """

    private_key: str
    sender_id: str
    msg_id: str | None
    mtype: str
    params: dict[str, Any]
    extra: dict[str, Any]


#: The reply to a call: the result, a complete response with ``samp.status``, an exception for an error response, None
#: for no reply, or a function that is called with the `Message` and returns one of these or raises an exception.
Reply: TypeAlias = "Mapping[str, Any] | Exception | Callable[[Message], Any] | None"


class MessageRecorder:
    """
    A handler that records the messages it receives and replies to calls.

    Parameters
    ----------
    client : SAMPIntegratedClient
        The client whose messages it handles. Bind the recorder to an MType, for example with
        `~pyvo.samp.SAMPIntegratedClient.bind_receive_message`.
    replies : mapping, optional
        Maps MTypes or wildcards to replies: the ``samp.result``, a complete response (a map with ``samp.status``), an
        exception for an error response, None for no reply, or a function that is called with the `Message` and returns
        one of these or raises an exception. By default the reply to a call is ``samp.ok``.
    """

    def __init__(self, client: SAMPIntegratedClient, replies: Mapping[str, Reply] | None = None) -> None:
        self._client = client
        self._replies: dict[str, Reply] = {"*": {}, **(replies or {})}
        self._changed = threading.Condition()
        self._start = time.monotonic()
        self._received: list[tuple[float, Message]] = []
        self._returned: set[int] = set()  # indices of messages that assert_received has returned

    @property
    def received(self) -> list[Message]:
        """All messages so far, the oldest first."""
        with self._changed:
            return [message for _, message in self._received]

    def __call__(
        self, private_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, extra: Any
    ) -> None:
        """
        Handle a message.

        Parameters
        ----------
        private_key, sender_id, msg_id, mtype, params, extra
            As for any handler; see `~pyvo.samp.SAMPIntegratedClient.bind_receive_message`.
        """
        message = Message(private_key, sender_id, msg_id, mtype, params, extra)
        if mtype != _PING or sender_id != self._client.get_public_id():  # the client's own pings are from `_flush`
            with self._changed:
                self._received.append((time.monotonic() - self._start, message))
                self._changed.notify_all()
        if msg_id is None:
            return
        response = self._response(message)
        if response is not None:
            with suppress(SAMPError):  # the sender or the hub has disconnected
                self._client.reply(msg_id, response)

    def _response(self, message: Message) -> Mapping[str, Any] | None:
        reply = best_match(self._replies, message.mtype)
        try:
            if callable(reply):
                reply = reply(message)
            if reply is None or (isinstance(reply, Mapping) and "samp.status" in reply):
                return reply
            if isinstance(reply, Exception):
                raise reply
            return ok_response(to_result(reply))
        except Exception as error:
            return error_response(error_text(error))

    def assert_received(self, mtype: str, within: float = 5, params: Mapping[str, Any] | None = None) -> Message:
        """
        Wait for a message and return it.

        Each message is returned once: a second call waits for another message.

        Parameters
        ----------
        mtype : str
            The MType, or a wildcard.
        within : float
            Maximum number of seconds to wait.
        params : mapping, optional
            Parameters that the message must have; it may have others, too. Numbers are compared in the form in which
            they are sent (R4).

        Returns
        -------
        Message
            The first such message that has not been returned before.

        Raises
        ------
        AssertionError
            No such message arrived in time. The text lists all received messages.
        """
        __tracebackhide__ = True
        wanted = self._encode_params(mtype, params)
        with self._changed:
            found = self._changed.wait_for(lambda: self._next(mtype, wanted), within)
            if found:
                index, message = found
                self._returned.add(index)
                return message
        what = f"message {mtype}" + (f" with {json.dumps(wanted)}" if wanted else "")
        raise AssertionError(f"No {what} arrived within {within:g} s.\n{self._failure_text(mtype)}")

    def assert_not_received(self, mtype: str, params: Mapping[str, Any] | None = None) -> None:
        """
        Check that no message has arrived, except messages that `assert_received` has returned.

        The method first waits for all messages that the hub has already accepted for this client.

        Parameters
        ----------
        mtype, params
            As in `assert_received`.

        Raises
        ------
        AssertionError
            Such a message has arrived.
        """
        __tracebackhide__ = True
        wanted = self._encode_params(mtype, params)
        self._flush()
        with self._changed:
            found = self._next(mtype, wanted)
        if found:
            raise AssertionError(f"A message {found[1].mtype} arrived.\n{self._failure_text(mtype)}")

    def _flush(self) -> None:
        """Wait for pending messages. The hub delivers the client's ping to itself after all earlier messages."""
        own_id = str(self._client.get_public_id())
        self._client.call_and_wait(own_id, {"samp.mtype": _PING, "samp.params": {}}, 10)

    @staticmethod
    def _encode_params(mtype: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
        check_pattern(mtype)
        wanted = encode(params or {}, "params")
        assert isinstance(wanted, dict)
        return wanted

    def _next(self, mtype: str, wanted: Mapping[str, Any]) -> tuple[int, Message] | None:
        for index, (_, message) in enumerate(self._received):
            fits = matches(mtype, message.mtype) and wanted.items() <= message.params.items()
            if fits and index not in self._returned:
                return index, message
        return None

    def _failure_text(self, mtype: str) -> str:
        """Describe the client and all received messages for the text of a failure."""
        client = self._client
        label = client.client._metadata.get("samp.name", "The client")
        if not client.is_connected:
            first = f"{label} is no longer connected. "
        elif "*" not in mtype and best_match(client.get_subscriptions(str(client.get_public_id())), mtype) is None:
            first = f"{label} is not subscribed to {mtype}. "
        else:
            first = ""
        with self._changed:
            received, returned = list(self._received), set(self._returned)
        if not received:
            return f"{first}{label} has not received any messages."
        lines = [f"{first}{label} has received:"]
        names: dict[str, str] = {}
        for index, (seconds, message) in enumerate(received):
            if message.sender_id not in names:
                names[message.sender_id] = client_name(client, message.sender_id) if client.is_connected else ""
            kind = "notification" if message.msg_id is None else "call"
            sender = f"{names[message.sender_id]} ({message.sender_id})"
            text = json.dumps(message.params)
            text = text if len(text) <= _PREVIEW_LENGTH else text[:_PREVIEW_LENGTH] + "..."
            mark = ", returned by an earlier assert_received" if index in returned else ""
            lines.append(f"  {seconds:.2f} s: {message.mtype}, {kind} from {sender}{mark}: {text}")
        return "\n".join(lines)


class RecordingClient(SAMPIntegratedClient):
    """
    A client that replaces another program in a test: it records the received messages and replies to calls.

    It is also a `~pyvo.samp.SAMPIntegratedClient` and can send messages like the other program. Use it in a ``with``
    block, or call ``connect()`` and ``disconnect()``.

    Parameters
    ----------
    name : str
        The client's name, such as ``"topcat"``.
    subscriptions : iterable of str, or mapping
        The client's subscriptions: MTypes and wildcards, or a mapping from these to annotations.
    replies : mapping, optional
        As in `MessageRecorder`.
    metadata : mapping, optional
        Additional metadata.
    **options
        As in `~pyvo.samp.SAMPIntegratedClient`.
    """

    def __init__(
        self,
        name: str = "recording client",
        subscriptions: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("*",),
        replies: Mapping[str, Reply] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, metadata=metadata, **options)
        #: The handler for all messages.
        self.recorder = MessageRecorder(self, replies)
        for pattern in subscriptions:
            annotation = subscriptions[pattern] if isinstance(subscriptions, Mapping) else None
            self.bind_receive_message(pattern, self.recorder, metadata=annotation)

    @property
    def received(self) -> list[Message]:
        """All messages so far, the oldest first."""
        return self.recorder.received

    def assert_received(self, mtype: str, within: float = 5, params: Mapping[str, Any] | None = None) -> Message:
        """
        Wait for a message and return it; see `MessageRecorder.assert_received`.

        Parameters
        ----------
        mtype, within, params
            As in `MessageRecorder.assert_received`.

        Returns
        -------
        Message
            The message.
        """
        __tracebackhide__ = True
        return self.recorder.assert_received(mtype, within, params)

    def assert_not_received(self, mtype: str, params: Mapping[str, Any] | None = None) -> None:
        """
        Check that no message has arrived; see `MessageRecorder.assert_not_received`.

        Parameters
        ----------
        mtype, params
            As in `MessageRecorder.assert_received`.
        """
        __tracebackhide__ = True
        self.recorder.assert_not_received(mtype, params)

    def assert_unregistered(self, client: str, within: float = 5) -> None:
        """
        Wait until a client has unregistered.

        To wait until a client has registered, use `~pyvo.samp.SAMPIntegratedClient.wait_for`.

        Parameters
        ----------
        client : str
            Id or name of the client.
        within : float
            Maximum number of seconds to wait.

        Raises
        ------
        AssertionError
            The client is still registered.
        """
        __tracebackhide__ = True
        gone = threading.Event()
        self.clients.on_gone(lambda _client_id: gone.set())
        deadline = time.monotonic() + within
        while client in self.clients:
            if not gone.wait(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"{client} is still registered after {within:g} s.")
            gone.clear()
