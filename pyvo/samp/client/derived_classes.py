# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Attributes and methods for classes that programs derive from `SAMPClient`, `SAMPIntegratedClient` and `SAMPHubProxy`.

Such a class may replace ``__init__`` without calling that of its base, because ``__new__`` has made what the base
needs. It reads and sets attributes of the base that `astropy.samp` has, too:

``_is_running``, ``_is_registered``, ``_private_key``, ``_public_id``, ``_hub_id``, ``_metadata``, ``_callable``,
``hub``
    The state of the client. The base uses what a derived class sets.
``_notification_bindings``, ``_call_bindings``, ``_response_bindings``
    The handlers: ``{mtype: [function, annotations]}``, and ``{msg_tag: function}``.
``_registered_event``
    Set while the client is registered, and for a moment by ``stop``, to end a loop that waits for it.
``_registration_lock``
    For the derived class only. The base does not acquire it.
``_thread``
    The thread that runs ``_serve_forever``, if the derived class replaces that; ``start`` makes it if it is None.
``client``
    For a server of the derived class. The base does not use it.
``_ping``, ``_client_env_get``, ``_declare_subscriptions``, ``_set_xmlrpc_callback``, ``_serve_forever``
    Methods to bind, to call and to replace.

The rest of the package has other attributes for most of this; this module maps them.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from ..protocol import ok_response
from ..transport.event_loop import join_thread
from .cleanup import ClientCleanup
from .handlers import Binding, HandlerTable
from .hub_connection import Prepared, Request

log = logging.getLogger(__name__)


def replaces(instance: object, base: type, method: str) -> bool:
    """Whether the class of an instance replaces a method of a base class."""
    return getattr(type(instance), method) is not getattr(base, method)


class _Bindings(MutableMapping[str, Any]):
    """The handlers of one kind in the form that derived classes use. Changes take effect."""

    def __init__(self, handlers: HandlerTable, kind: str) -> None:
        self._handlers = handlers
        self._kind = kind

    @property
    def _table(self) -> Mapping[str, Any]:
        table: Mapping[str, Any] = getattr(self._handlers, f"{self._kind}s")
        return table

    def __getitem__(self, key: str) -> Any:
        entry = self._table[key]
        return [entry.function, dict(entry.annotations)] if isinstance(entry, Binding) else entry

    def __setitem__(self, key: str, value: Any) -> None:
        bind = getattr(self._handlers, f"bind_{self._kind}")
        bind(key, *(value if isinstance(value, list | tuple) else [value]))

    def __delitem__(self, key: str) -> None:
        self._table[key]  # raises a `KeyError`, as any mapping does
        getattr(self._handlers, f"unbind_{self._kind}")(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return repr(dict(self))


class _BindingsAttribute:
    """An attribute of a client with its handlers of one kind: ``"notification"``, ``"call"`` or ``"response"``."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __get__(self, client: DerivedClient, _owner: type | None = None) -> MutableMapping[str, Any]:
        return _Bindings(client._handlers, self._kind)

    def __set__(self, client: DerivedClient, content: Mapping[str, Any]) -> None:
        content, bindings = dict(content), self.__get__(client)
        bindings.clear()
        bindings.update(content)


class DerivedClient(Prepared, ABC):
    """The attributes and methods of `SAMPClient` that exist for derived classes."""

    _callable: bool
    _handlers: HandlerTable
    _notification_bindings = _BindingsAttribute("notification")
    _call_bindings = _BindingsAttribute("call")
    _response_bindings = _BindingsAttribute("response")
    _cleanup: ClientCleanup

    def _prepare(self) -> None:
        super()._prepare()
        self.client: Any = None
        self._is_running = False
        self._registration_lock = threading.Lock()
        self._registered_event = threading.Event()
        self._thread: threading.Thread | None = None
        self._unregistered_key: str | None = None

    @property
    def _private_key(self) -> str | None:
        return self._cleanup.private_key

    @_private_key.setter
    def _private_key(self, key: str | None) -> None:
        self._cleanup.private_key = key

    @property
    def _is_registered(self) -> bool:
        key = self._cleanup.private_key
        return key is not None and key != self._unregistered_key

    @_is_registered.setter
    def _is_registered(self, value: bool) -> None:
        # It may be set to False before `unregister` uses the key; for the next key it need not be set again
        self._unregistered_key = None if value else self._cleanup.private_key

    @property
    @abstractmethod
    def hub(self) -> Any:
        """The connection to the hub."""

    # Handlers to bind

    def _ping(self, private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        """Reply to ``samp.app.ping`` (R28)."""
        self.hub.reply(private_key, msg_id, ok_response())

    def _client_env_get(
        self, private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any
    ) -> None:
        """Reply to ``client.env.get``: a program that binds this gives its environment to other clients (R29)."""
        self.client_env_get(private_key, sender_id, msg_id, mtype, params, extra)

    @abstractmethod
    def client_env_get(
        self, private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any
    ) -> None:
        """Reply to ``client.env.get``."""

    # Methods to call

    @abstractmethod
    def declare_subscriptions(self, subscriptions: Mapping[str, Any] | None = None) -> None:
        """Declare subscriptions to the hub."""

    def _declare_subscriptions(self, subscriptions: Mapping[str, Any] | None = None) -> None:
        """Declare the MTypes that have handlers. The Web Profile requires that callbacks are allowed first (R13)."""
        allow = getattr(self.hub, "allow_reverse_callbacks", None)
        if allow is not None and self._callable:
            allow(self._cleanup.private_key, "1")
        self.declare_subscriptions(subscriptions)

    def _set_xmlrpc_callback(self) -> None:
        """Declare the URL of the client's server to the hub (R31), if the client runs, is registered and callable."""
        receiver, key = self._cleanup.receiver, self._cleanup.private_key
        if receiver is not None and key is not None:
            self.hub.call_pipelined(receiver.declaration(key))

    # A loop to replace

    def _serve_forever(self) -> None:
        """Return immediately: the base receives in other threads."""


class OwnLoop:
    """Runs the ``_serve_forever`` of a derived class; to the base it is a `CallbackReceiver`."""

    def __init__(self, client: DerivedClient) -> None:
        self._client = client

    def declaration(self, private_key: str) -> Request:
        """Allow callbacks in the Web Profile; there is nothing to declare in the Standard Profile."""
        if hasattr(self._client.hub, "allow_reverse_callbacks"):
            return "allowReverseCallbacks", {"private_key": private_key, "allow": "1"}
        return "ping", {}

    def start(self, private_key: str = "") -> None:
        """Start the thread if it does not run."""
        client = self._client
        if client._thread is None or (client._thread.ident is not None and not client._thread.is_alive()):
            client._thread = threading.Thread(target=self._run, name="samp-serve", daemon=True)
        if client._thread.ident is None:
            client._thread.start()

    def stop(self) -> None:
        """Return immediately: the loop ends when it finds that the client does not run any more."""

    def join(self, timeout: float) -> None:
        """Wait until the loop has ended, even if it waits for a registration."""
        event, thread = self._client._registered_event, self._client._thread
        event.set()
        join_thread(thread, timeout)
        event.clear()

    def _run(self) -> None:
        try:
            self._client._serve_forever()
        except Exception:
            if self._client._is_running:
                log.exception("The loop of %s has ended", type(self._client).__name__)
