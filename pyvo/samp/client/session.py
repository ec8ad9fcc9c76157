# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The session of a client: connect, register, reconnect, disconnect.

Theory of operation
-------------------
The session has a `ConnectionState` of its own, see the head of `hub_connection`. `connect` makes it CONNECTING until
the client is registered. `disconnect` makes it DISCONNECTED immediately, in any thread and in a signal handler; a
`connect` that is in progress finds this when it has registered the client, and unregisters it.

A lost hub is found by a call that fails, by the shutdown message of the hub, or by the `HubMonitor` of an idle
client. In each case the connection calls `_on_connection_lost`. That may run in any thread, even that of the event
loop, so it only starts a worker (`_handle_connection_lost`), which enters LOST (or CLOSED, if the hub has
disconnected the client) and calls the program's ``on_state``. If the program wants to reconnect, a timer tries once a
second to connect to the next hub. While no hub is running, an attempt only reads the lockfile.

`_lock` is held while the session connects or closes. `disconnect` waits some seconds for a `connect` of another
thread, because a client whose registration is interrupted cannot unregister. It does not wait for a hub that hangs,
or for a user who is asked for consent: it closes the connection, and `connect` ends with an error. In a signal
handler that interrupts `connect`, no wait is possible: `connect` itself then ends the connection.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

from ..errors import SAMPClientError, SAMPError, SAMPHubError
from ..process_events import register_after_fork
from ..transport.event_loop import Timer
from ..transport.xmlrpc_writer import write_call
from .cleanup import weak_method
from .derived_classes import replaces
from .hub_connection import CONNECT_AGAIN, ConnectionState, ConnectionStatus, LocalHub, Prepared
from .hub_monitor import HubMonitor
from .hub_proxy import SAMPHubProxy
from .receiving import DispatchFunction, HandlerExecutor
from .samp_client import SAMPClient
from .web_hub_proxy import HubExchange, SAMPWebHubProxy

log = logging.getLogger(__name__)

#: Seconds between two attempts to reconnect.
RECONNECT_INTERVAL = 1.0
#: Seconds that a hub of another program may take to start.
HUB_START_TIMEOUT = 3.0
#: Seconds for which `disconnect` waits for a `connect` in another thread.
CONNECT_TIMEOUT = 2.0
#: Seconds for which `disconnect` waits for handlers that are running.
HANDLER_TIMEOUT = 1.0

INTERRUPTED = "disconnect() was called while the client was connecting."


class ClientSession(Prepared):
    """
    The connection and registration of a client, from `connect` to `disconnect`.

    Parameters
    ----------
    name, description, metadata, addr, port, callable, dispatch
        As in `SAMPIntegratedClient`.
    """

    #: The client that uses the connection; None until a derived class makes it.
    client: SAMPClient
    #: The arguments with which `client` is made.
    client_arguments: dict[str, Any]

    def __init__(
        self,
        name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        addr: str | None = None,
        port: int = 0,
        callable: bool = True,  # noqa: A002 - the name that programs use
        *,
        dispatch: DispatchFunction | None = None,
    ) -> None:
        self.client_arguments = {
            "name": name, "description": description, "metadata": metadata, "addr": addr, "port": port,
            "callable": callable,
        }  # fmt: skip
        self.client = SAMPClient(self.hub, **self.client_arguments)
        if dispatch is not None:
            self.client.executor = HandlerExecutor(dispatch)

    def _prepare(self) -> None:
        super()._prepare()
        #: The connection to the hub.
        self.hub = SAMPHubProxy()
        self.client = cast("SAMPClient", None)
        self.client_arguments = {}
        #: The hub that `connect` started because there was none.
        self.own_hub: LocalHub | None = None
        self._lock = threading.RLock()
        self._connect_args: dict[str, Any] = {}
        self._status = ConnectionStatus()
        self._connecting_thread: int | None = None  # identifies the thread that is in `connect`
        self._reconnect = False
        self._on_state: Callable[[str], object] | None = None
        self._monitor: HubMonitor | None = None
        self._timer: Timer | None = None
        register_after_fork(self)

    @property
    def is_connected(self) -> bool:
        """Whether the client is registered with a hub."""
        client = cast("SAMPClient | None", self.client)
        return client is not None and self.hub.is_connected and client.is_registered

    def connect(
        self,
        hub: LocalHub | None = None,
        hub_params: Mapping[str, str] | None = None,
        pool_size: int = 20,
        *,
        reconnect: bool = False,
        on_state: Callable[[str], object] | None = None,
        web: bool | str | HubExchange = False,
        start_hub: bool | Mapping[str, Any] = False,
    ) -> None:
        """
        Connect to a hub and register. Does nothing if the client is connected.

        Parameters
        ----------
        hub : SAMPHubServer, optional
            A hub of this process.
        hub_params : mapping, optional
            The contents of a lockfile. Without either the hub is found by its lockfile (R33).
        pool_size : int
            How many idle connections to the hub are kept.
        reconnect : bool
            Whether to wait for the next hub when this one is gone, and to register there with the same metadata,
            subscriptions and bindings. A client that its hub has disconnected does not reconnect.
        on_state : callable, optional
            Called with ``"lost"`` when the hub is gone, and with ``"connected"`` when the client is registered with
            the next. It runs in a thread of the client.
        web : bool, str or HubRelay
            Whether to use the Web Profile, which does not need the lockfile (R39); or its URL; or a
            `~pyvo.samp.jupyter.HubRelay`, through which a notebook on a server reaches the hub on the user's computer.
            The user is then asked for consent.
        start_hub : bool or mapping
            Whether to start a hub in this process if none is running; or options of `SAMPHubServer` for it.
            By default it has no Web Profile, because the user could not be asked for consent. `disconnect` stops it.

        Raises
        ------
        SAMPHubError
            No hub is running, or `disconnect` was called during the call.
        SAMPClientError
            The client is connected to another hub than the given one.
        """
        with self._lock:
            if self.is_connected and self._is_connected_to(hub, hub_params):
                return
            if self.client is None:
                self.client = SAMPClient(self.hub, **self.client_arguments)
            self._close()
            self.client.on_disconnected = weak_method(self._on_connection_lost)
            self._connect_args = {"hub": hub, "hub_params": hub_params, "pool_size": pool_size}
            self._reconnect = reconnect
            self._on_state = on_state
            self._use_profile(web)
            self._connecting_thread = threading.get_ident()
            self._status.enter(ConnectionState.CONNECTING)
            try:
                if start_hub:
                    self._start_hub_if_none(dict(start_hub) if isinstance(start_hub, Mapping) else {})
                self._register()
            except BaseException as error:
                interrupted = isinstance(error, SAMPError) and self._status.state is ConnectionState.DISCONNECTED
                self._close()
                if interrupted:
                    raise SAMPHubError(INTERRUPTED) from error
                raise
            finally:
                self._connecting_thread = None

    def disconnect(self) -> None:
        """
        Unregister and end the connection.

        It may be called from any thread, from a handler, and repeatedly. It does not fail, and takes some seconds at
        most, even if the hub does not respond.
        """
        self._status.enter(ConnectionState.DISCONNECTED)
        asks_user = isinstance(self.hub, SAMPWebHubProxy)
        if self._connecting_thread == threading.get_ident():  # this is a signal handler: `connect` closes the session
            if asks_user:
                self.hub.disconnect()
            return
        if not self._lock.acquire(timeout=0 if asks_user else CONNECT_TIMEOUT):
            self.hub.disconnect()  # the `connect` of the other thread ends now
            self._lock.acquire()
        try:
            self._close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.disconnect()

    # Connecting and closing; with the lock

    def _start_hub_if_none(self, options: dict[str, Any]) -> None:
        try:
            self.hub.connect(**self._connect_args)
            return
        except SAMPHubError as error:
            log.debug("A hub is started: %s", error)
        hub = self._make_hub({"web_profile": False, "label": "started by a client", **options})
        try:
            hub.start()
        except SAMPHubError as error:  # another program was quicker: use its hub
            log.debug("Another hub has started, or is starting: %s", error)
            self._wait_for_hub(error)
            return
        self.own_hub = hub
        if options.get("mode") == "multiple" or "lockfile" in options:  # the lockfile is not in the default place
            self._connect_args["hub"] = hub

    @abstractmethod
    def _make_hub(self, options: dict[str, Any]) -> LocalHub:
        """Make a hub for this process; a module above this package does it, because hub and client are independent."""

    def _wait_for_hub(self, start_error: SAMPHubError) -> None:
        """Wait until a hub that is starting has its lockfile; raise the error of our own hub if there is none."""
        pause = threading.Event()
        deadline = time.monotonic() + HUB_START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                self.hub.connect(**self._connect_args)
                return
            except SAMPHubError as error:
                log.debug("The other hub is not running yet: %s", error)
            pause.wait(0.02)
        raise start_error

    def _use_profile(self, web: bool | str | HubExchange) -> None:
        if isinstance(self.hub, SAMPWebHubProxy) != bool(web):
            self.client.hub = self.hub = SAMPWebHubProxy() if web else SAMPHubProxy()
        if web and not isinstance(web, bool):
            self._connect_args["url" if isinstance(web, str) else "relay"] = web

    def _register(self) -> None:
        """Connect and register; on success the session is CONNECTED."""
        try:
            self.hub.connect_unverified(**self._connect_args)
            url = self.hub.url
            if not (url and self._status.state is ConnectionState.CONNECTING):
                raise SAMPHubError(INTERRUPTED)
            if replaces(self.client, SAMPClient, "register"):
                self.client.start()
                self._start_monitor(url)
                self.client.register()
            else:
                self.client.register(while_waiting=lambda: self._start_monitor(url))
        except BaseException:
            self._stop_monitor()
            if self.hub.is_connected:
                self.hub.disconnect()
            raise
        if not self._status.enter(ConnectionState.CONNECTED):
            raise SAMPHubError(INTERRUPTED)
        self._on_connected()

    def _close(self) -> None:
        self._status.enter(ConnectionState.DISCONNECTED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stop_monitor()
        self._on_disconnected(for_good=True)
        if self.client is not None:
            if self.client.executor is not None:
                self.client.executor.cancel_pending()
            self.client.stop(HANDLER_TIMEOUT)
        self.hub.disconnect()
        hub, self.own_hub = self.own_hub, None
        if hub is not None:
            hub.stop()

    def _on_connected(self) -> None:
        """Called when the client is registered; subclasses override it. It must not wait."""

    def _on_disconnected(self, *, for_good: bool) -> None:
        """Called when the connection has ended, by the program (``for_good``) or not; subclasses override it."""

    def _start_monitor(self, url: str) -> None:
        if self.hub.is_relayed:  # a pull that fails shows that the hub is gone
            return
        self._monitor = HubMonitor(
            self.client.loop, url, weak_method(self._make_ping), weak_method(self._on_hub_gone)
        )
        self.client.attach_monitor(self._monitor)

    def _stop_monitor(self) -> None:
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.stop()

    def _is_connected_to(self, hub: LocalHub | None, hub_params: Mapping[str, str] | None) -> bool:
        params, known = (hub.params if hub is not None else hub_params), self.hub.lockfile
        if params is not None and params.get("samp.hub.xmlrpc.url") != known.get("samp.hub.xmlrpc.url"):
            raise SAMPClientError("The client is connected to another hub: call disconnect() first.")
        # A hub with another secret at the same address has replaced the hub that is gone
        return params is None or params.get("samp.secret", "") in {"", known.get("samp.secret")}

    # The connection is lost

    def _make_ping(self) -> bytes | None:
        """Make the call by which the monitor finds out whether the hub still knows this client."""
        key, own_id = self.client.get_private_key(), self.client.get_public_id()
        return write_call(f"{self.hub.prefix}.getMetadata", [key, own_id]) if key and own_id else None

    def _on_hub_gone(self, reason: str) -> None:
        self.hub.mark_lost(f"{reason}. {CONNECT_AGAIN}")

    def _on_connection_lost(self, reason: str) -> None:
        log.debug("The connection to the hub has ended: %s", reason)
        if self._status.state is not ConnectionState.DISCONNECTED and self.client.is_running:
            self.client.loop.run_in_worker(weak_method(self._handle_connection_lost))

    def _handle_connection_lost(self) -> None:
        """Enter LOST or CLOSED, and notify the program; do nothing if the session is LOST already and reconnects."""
        with self._lock:
            is_closed = self.hub.status.state is ConnectionState.CLOSED
            state = ConnectionState.CLOSED if is_closed else ConnectionState.LOST
            if self.is_connected or not self._status.enter(state):
                return
            self._stop_monitor()
            self._on_disconnected(for_good=False)
        self._notify_state("lost")
        with self._lock:
            if self._reconnect:
                self._schedule_reconnect()

    def _schedule_reconnect(self) -> None:
        if self._status.state is not ConnectionState.LOST or (self._timer is not None and self._timer.active):
            return
        loop = self.client.loop
        self._timer = loop.call_later(RECONNECT_INTERVAL, loop.run_in_worker, weak_method(self._try_reconnect))

    def _try_reconnect(self) -> None:
        with self._lock:
            if self._status.state is not ConnectionState.LOST:
                return
            reason = self.hub.status.reason
            self._status.enter(ConnectionState.CONNECTING)
            try:
                self._register()
            except (SAMPError, OSError) as error:
                log.debug("No other hub is running yet: %s", error)
                if self._status.enter(ConnectionState.LOST):
                    self.hub.status.enter(ConnectionState.CONNECTING, reason)
                    self.hub.status.enter(ConnectionState.LOST, reason)  # calls raise the same error as before
                    self._schedule_reconnect()
                return
        self._notify_state("connected")

    def _notify_state(self, state: str) -> None:
        if self._on_state is None:
            return
        try:
            self._on_state(state)
        except Exception:
            log.exception("The callback for %r failed", state)

    def after_fork_in_child(self) -> None:
        """Forget the session, in the child of a fork: it is the parent's."""
        self._lock = threading.RLock()
        self._status = ConnectionStatus()
        self._connecting_thread = None
        self._monitor = None
        self._timer = None
