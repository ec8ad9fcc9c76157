# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How a client comes, stays, comes back and goes.

Theory of operation
-------------------
`connect` and `disconnect` say what is wanted; what is so changes by itself, too, when the hub goes away. The
loss is noticed by whoever meets it first: a call that fails, the hub's own farewell, or the watch on an idle
connection. All of them come to `_on_end`, which may run in any thread, even in the loop's, and therefore does
nothing but to hand the rest to a worker. There the program's callback is told, and, if the program asked for
it, a timer is set to look for the next hub once a second, which is no more than to read a small file.

One lock is held while the state changes. A `disconnect` that finds it taken by another thread's `connect` lets
that finish, for a client that is cut off amid its registration cannot unregister; but a hub that hangs, or a user
who is asked for consent, is not waited for: then the connection is closed under it. In a signal handler, amid the
`connect` of the same thread, nothing can be waited for: that `connect` ends the connection itself when it comes to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from ..errors import SAMPClientError, SAMPError, SAMPHubError
from ..process_events import register_after_fork
from ..transport.xmlrpc_writer import write_call
from .cleanup import weak_method
from .derived_classes import Prepared, replaces
from .hub_monitor import HubMonitor
from .hub_proxy import SAMPHubProxy
from .receiving import DispatchFunction, HandlerExecutor
from .samp_client import SAMPClient
from .web_hub_proxy import SAMPWebHubProxy

if TYPE_CHECKING:
    from ..hub import SAMPHubServer
    from ..transport.event_loop import Timer

__all__ = ["ClientSession"]

log = logging.getLogger(__name__)

#: Seconds between two looks for a hub.
RECONNECT_INTERVAL = 1.0
#: Seconds that another program's hub may take to start.
HUB_START_TIMEOUT = 3.0
#: Seconds for which `disconnect` waits for a `connect` that is under way in another thread.
CONNECT_TIMEOUT = 2.0
#: Seconds for which `disconnect` waits for handlers that are at work.
HANDLER_TIMEOUT = 1.0

DISCONNECTED = "disconnect() was called while the client was connecting."


class ClientSession(Prepared):
    """
    The connection of a client, from `connect` to `disconnect`.

    Parameters
    ----------
    name, description, metadata, addr, port, callable
        As of `SAMPClient`.
    dispatch : callable, optional
        As of `SAMPIntegratedClient`.
    """

    #: The client without the connection; None until a derived class makes it.
    client: SAMPClient
    #: What `client` is made with.
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
        self.own_hub: SAMPHubServer | None = None
        self._lock = threading.RLock()
        self._connect_args: dict[str, Any] = {}
        self._should_be_connected = False
        self._connecting = False
        self._reconnect = False
        self._on_state: Callable[[str], object] | None = None
        self._lost = False  # as far as the program has been told
        self._watch: HubMonitor | None = None
        self._timer: Timer | None = None
        register_after_fork(self)

    @property
    def is_connected(self) -> bool:
        """Whether the client is registered with a hub."""
        client = cast("SAMPClient | None", self.client)
        return client is not None and self.hub.is_connected and client.is_registered

    def connect(
        self,
        hub: SAMPHubServer | None = None,
        hub_params: Mapping[str, str] | None = None,
        pool_size: int = 20,
        *,
        reconnect: bool = False,
        on_state: Callable[[str], object] | None = None,
        web: bool | str = False,
        start_hub: bool | Mapping[str, Any] = False,
    ) -> None:
        """
        Connect to a hub and register. Does nothing if the client is connected.

        Parameters
        ----------
        hub : SAMPHubServer, optional
            A hub of this process.
        hub_params : mapping, optional
            The contents of a lockfile. Without either the hub is looked for by its lockfile (R33).
        pool_size : int
            How many idle connections to the hub are kept.
        reconnect : bool
            Whether to wait for the next hub when this one is gone, and to join it with the same metadata,
            subscriptions and bindings. A client that was thrown out by its hub does not come back by itself.
        on_state : callable, optional
            Called with ``"lost"`` when the hub is gone, and with ``"connected"`` when the client has joined the
            next. It runs in a thread of the client's.
        web : bool or str
            Whether to use the Web Profile, by which a hub can be reached whose lockfile cannot be read (R39);
            or the URL where that is offered. The user is asked for consent then.
        start_hub : bool or mapping
            Whether to start a hub inside this process when none is running; or options of `SAMPHubServer` for it.
            Unless they say otherwise it does not serve web pages, as nobody could be asked. It ends with
            `disconnect`.

        Raises
        ------
        SAMPHubError
            No hub is running, or `disconnect` was called meanwhile.
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
            self._lost = False
            self._should_be_connected = True
            try:
                if start_hub:
                    self._start_hub_if_none(dict(start_hub) if isinstance(start_hub, Mapping) else {})
                self._register()
                if not self._should_be_connected:
                    raise SAMPHubError(DISCONNECTED)
            except BaseException as error:
                cut_off = isinstance(error, SAMPError) and not self._should_be_connected
                self._close()
                if cut_off:
                    raise SAMPHubError(DISCONNECTED) from error
                raise

    def disconnect(self) -> None:
        """
        Unregister and end the connection.

        It may be called from any thread, from a handler, and again; it does not fail, and takes seconds at the
        most, even when the hub does not answer.
        """
        self._should_be_connected = False
        asks_user = isinstance(self.hub, SAMPWebHubProxy)
        if not self._lock.acquire(timeout=0 if asks_user else CONNECT_TIMEOUT):
            self.hub.disconnect()  # whoever is connecting ends now
            self._lock.acquire()
        try:
            if not self._connecting:
                self._close()
            elif asks_user:
                self.hub.disconnect()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()

    # Joining and leaving; with the lock

    def _start_hub_if_none(self, options: dict[str, Any]) -> None:
        from ..hub import SAMPHubServer  # noqa: PLC0415 - most programs never need it

        try:
            self.hub.connect(**self._connect_args)
            return
        except SAMPHubError as error:
            log.debug("A hub is started: %s", error)
        hub = SAMPHubServer(**{"web_profile": False, "label": "started by a client", **options})
        try:
            hub.start()
        except SAMPHubError as error:  # another program was quicker: its hub does as well
            log.debug("There is a hub, or about to be: %s", error)
            self._wait_for_hub(error)
            return
        self.own_hub = hub
        if options.get("mode") == "multiple" or "lockfile" in options:  # it is not where one looks for hubs
            self._connect_args["hub"] = hub

    def _wait_for_hub(self, why: SAMPHubError) -> None:
        """
        Give a hub that is just starting the moment until its lockfile is there; nothing else tells of that.

        If there is none, the error is ``why`` our own has not started.
        """
        pause = threading.Event()
        deadline = time.monotonic() + HUB_START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                self.hub.connect(**self._connect_args)
                return
            except SAMPHubError as error:
                log.debug("The other hub is not there yet: %s", error)
            pause.wait(0.02)
        raise why

    def _use_profile(self, web: bool | str) -> None:
        if isinstance(self.hub, SAMPWebHubProxy) != bool(web):
            self.client.hub = self.hub = SAMPWebHubProxy() if web else SAMPHubProxy()
        if isinstance(web, str):
            self._connect_args["url"] = web

    def _register(self) -> None:
        self._connecting = True
        try:
            self.hub.connect_unverified(**self._connect_args)
            url = self.hub.url
            if not (self._should_be_connected and url):
                raise SAMPHubError(DISCONNECTED)
            if replaces(self.client, SAMPClient, "register"):
                self.client.start()
                self._start_monitor(url)
                self.client.register()
            else:
                self.client.register(meanwhile=lambda: self._start_monitor(url))
        except BaseException:
            self._end_watch()
            self.hub.disconnect()
            raise
        finally:
            self._connecting = False
        self._on_connected()

    def _close(self) -> None:
        self._should_be_connected = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_watch()
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
        """Do what is to be done when the client has joined a hub; for subclasses. Must not wait."""

    def _on_disconnected(self, *, for_good: bool) -> None:
        """Do what is to be done when the connection has ended, by the program's will or not; for subclasses."""

    def _start_monitor(self, url: str) -> None:
        self._watch = HubMonitor(self.client.loop, url, weak_method(self._question), weak_method(self._on_hub_gone))
        self.client.attach_monitor(self._watch)

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def _is_connected_to(self, hub: SAMPHubServer | None, hub_params: Mapping[str, str] | None) -> bool:
        params, known = (hub.params if hub is not None else hub_params), self.hub.lockfile
        if params is not None and params.get("samp.hub.xmlrpc.url") != known.get("samp.hub.xmlrpc.url"):
            raise SAMPClientError("The client is connected to another hub: call disconnect() first.")
        # One with another secret at the same address has taken the place of the hub that is gone
        return params is None or params.get("samp.secret", "") in {"", known.get("samp.secret")}

    # The hub is gone

    def _question(self) -> bytes | None:
        """What the hub is asked now and then, to see whether it still knows this client."""
        key, own_id = self.client.get_private_key(), self.client.get_public_id()
        return write_call(f"{self.hub.prefix}.getMetadata", [key, own_id]) if key and own_id else None

    def _on_hub_gone(self, what: str) -> None:
        self.hub.mark_lost(f"{what}. Call connect() when a hub is running again.")

    def _on_connection_lost(self, reason: str) -> None:
        log.debug("The connection to the hub has ended: %s", reason)
        if self._should_be_connected and self.client.is_running:
            self.client.loop.run_in_worker(weak_method(self._handle_connection_lost))

    def _handle_connection_lost(self) -> None:
        with self._lock:
            if not self._should_be_connected or self.is_connected:
                return
            self._end_watch()
            self._on_disconnected(for_good=False)
            news, self._lost = not self._lost, True  # none if the next hub was lost while the client was joining it
        if news:
            self._notify_state("lost")
        with self._lock:
            if self._reconnect and not self.client.thrown_out and not self.is_connected:
                self._schedule_reconnect()

    def _schedule_reconnect(self) -> None:
        if not self._should_be_connected or (self._timer is not None and self._timer.active):
            return
        loop = self.client.loop
        self._timer = loop.call_later(RECONNECT_INTERVAL, loop.run_in_worker, weak_method(self._try_reconnect))

    def _try_reconnect(self) -> None:
        with self._lock:
            if not self._should_be_connected or self.is_connected:
                return
            try:
                self._register()
            except (SAMPError, OSError) as error:
                log.debug("There is no other hub yet: %s", error)
                self._schedule_reconnect()
                return
            self._lost = False
        self._notify_state("connected")

    def _notify_state(self, state: str) -> None:
        if self._on_state is None:
            return
        try:
            self._on_state(state)
        except Exception:
            log.exception("The callback for %r failed", state)

    def after_fork_in_child(self) -> None:
        """Forget what the parent's threads were doing, in the child of a fork."""
        self._lock = threading.RLock()
        self._should_be_connected = False
        self._watch = None
        self._timer = None
