# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What is kept for classes that programs derive from `SAMPClient`, `SAMPIntegratedClient` and `SAMPHubProxy`.

Such a class may replace ``__init__`` without calling the base's: ``__new__`` has made what the base needs. It reads and
sets attributes of the base that `astropy.samp` has, too:

``_is_running``, ``_is_registered``, ``_private_key``, ``_public_id``, ``_hub_id``, ``_metadata``, ``_callable``,
``hub``
    The state of the client. What a derived class sets counts.
``_notification_bindings``, ``_call_bindings``, ``_response_bindings``
    The handlers: ``{mtype: [function, annotations]}``, and ``{msg_tag: function}``.
``_registered_event``
    Set while the client is registered, and for a moment by ``stop``, so that a loop that waits for it can end.
``_registration_lock``
    For the derived class alone. The base does not take it.
``_thread``
    The thread that runs ``_serve_forever``, where the derived class has one of its own; ``start`` makes it if need be.
``client``
    For a server of the derived class's own. The base does nothing with it.
``_ping``, ``_client_env_get``, ``_declare_subscriptions``, ``_set_xmlrpc_callback``, ``_serve_forever``
    Methods to bind, to call and to replace.

The rest of the package has other attributes for most of this; here the one is mapped to the other.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Self

from ..protocol import ok_response
from .handlers import Binding, HandlerTable

if TYPE_CHECKING:
    from .cleanup import ClientCleanup
    from .hub_connection import Request

__all__ = ["DerivedClient", "OwnLoop", "Prepared", "replaces"]

log = logging.getLogger(__name__)


def replaces(instance: object, base: type, method: str) -> bool:
    """Tell whether the class of an instance has a method of its own in the place of a base class's."""
    return getattr(type(instance), method) is not getattr(base, method)


class Prepared:
    """A class whose instances have their attributes before ``__init__``, which a derived class may replace."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make an instance, whatever the arguments of ``__init__``."""
        self = super().__new__(cls)
        self._prepare()
        return self

    def _prepare(self) -> None:
        """Make all attributes that do not depend on the arguments of ``__init__``."""


class _Bindings(MutableMapping[str, Any]):
    """A table of handlers as derived classes know it. Changes take effect."""

    def __init__(
        self,
        table: Callable[[], Mapping[str, Any]],
        show: Callable[[Any], Any],
        bind: Callable[[str, Any], object],
        unbind: Callable[[str], object],
    ) -> None:
        self._table, self._show, self._bind, self._unbind = table, show, bind, unbind

    def __getitem__(self, key: str) -> Any:
        return self._show(self._table()[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self._bind(key, value)

    def __delitem__(self, key: str) -> None:
        self._table()[key]  # a `KeyError`, as of any mapping
        self._unbind(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())

    def __repr__(self) -> str:
        return repr(dict(self))

    def replace(self, content: Mapping[str, Any]) -> None:
        """Have this content alone."""
        content = dict(content)
        self.clear()
        self.update(content)


def _entry(binding: Binding) -> list[Any]:
    return [binding.function, dict(binding.annotations)]


class DerivedClient(Prepared, ABC):
    """The attributes and methods of `SAMPClient` that are there for derived classes."""

    _callable: bool
    _handlers: HandlerTable
    _remains: ClientCleanup

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
        return self._remains.private_key

    @_private_key.setter
    def _private_key(self, key: str | None) -> None:
        self._remains.private_key = key

    @property
    def _is_registered(self) -> bool:
        key = self._remains.private_key
        return key is not None and key != self._unregistered_key

    @_is_registered.setter
    def _is_registered(self, value: bool) -> None:
        # It may be set to False before `unregister` uses the key, and need not be set for the next key
        self._unregistered_key = None if value else self._remains.private_key

    @property
    def _call_bindings(self) -> _Bindings:
        own = self._handlers
        return _Bindings(lambda: own.calls, _entry, lambda mtype, entry: own.bind_call(mtype, *entry), own.unbind_call)

    @_call_bindings.setter
    def _call_bindings(self, content: Mapping[str, Any]) -> None:
        self._call_bindings.replace(content)

    @property
    def _notification_bindings(self) -> _Bindings:
        own = self._handlers
        return _Bindings(
            lambda: own.notifications,
            _entry,
            lambda mtype, entry: own.bind_notification(mtype, *entry),
            own.unbind_notification,
        )

    @_notification_bindings.setter
    def _notification_bindings(self, content: Mapping[str, Any]) -> None:
        self._notification_bindings.replace(content)

    @property
    def _response_bindings(self) -> _Bindings:
        own = self._handlers
        return _Bindings(lambda: own.responses, lambda function: function, own.bind_response, own.unbind_response)

    @_response_bindings.setter
    def _response_bindings(self, content: Mapping[str, Any]) -> None:
        self._response_bindings.replace(content)

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
        """Reply to ``client.env.get``: a program that binds this hands its environment out (R29)."""
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
        """Declare what handlers are bound to. In the Web Profile callbacks have to be allowed first (R13)."""
        allow = getattr(self.hub, "allow_reverse_callbacks", None)
        if allow is not None and self._callable:
            allow(self._remains.private_key, "1")
        self.declare_subscriptions(subscriptions)

    def _set_xmlrpc_callback(self) -> None:
        """Tell the hub where the client is called (R31), if it is running, registered and callable."""
        receiver, key = self._remains.receiver, self._remains.private_key
        if receiver is not None and key is not None:
            self.hub.call_pipelined(receiver.declaration(key))

    # A loop to replace

    def _serve_forever(self) -> None:
        """Return at once: the base receives in threads of another kind."""

    def _own_loop(self) -> OwnLoop | None:
        """Make what runs the ``_serve_forever`` of a derived class; None if it has none."""
        return OwnLoop(self) if replaces(self, DerivedClient, "_serve_forever") else None


class OwnLoop:
    """
    Runs the ``_serve_forever`` of a derived class; to the base it is a `Receiver`.

    Parameters
    ----------
    client : DerivedClient
        The client.
    """

    def __init__(self, client: DerivedClient) -> None:
        self._client = client

    def declaration(self, private_key: str) -> Request:
        """Allow callbacks, if the hub is spoken to by the Web Profile."""
        if hasattr(self._client.hub, "allow_reverse_callbacks"):
            return "allowReverseCallbacks", {"private_key": private_key, "allow": "1"}
        return "ping", {}

    def start(self, private_key: str = "") -> None:
        """Start the thread, unless it runs."""
        client = self._client
        if client._thread is None or (client._thread.ident is not None and not client._thread.is_alive()):
            client._thread = threading.Thread(target=self._run, name="samp-serve", daemon=True)
        if client._thread.ident is None:
            client._thread.start()

    def stop(self) -> None:
        """Return at once: the loop ends when it sees that the client does not run any more."""

    def join(self, timeout: float) -> None:
        """Wait until the loop has ended, also one that waits for a registration."""
        event, thread = self._client._registered_event, self._client._thread
        event.set()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout)
        event.clear()

    def _run(self) -> None:
        try:
            self._client._serve_forever()
        except Exception:
            if self._client._is_running:
                log.exception("The loop of %s has ended", type(self._client).__name__)
