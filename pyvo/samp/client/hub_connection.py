# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The connection of a client to a hub, and its state.

Theory of operation
-------------------
The state is one of `ConnectionState`. `_TRANSITIONS` lists all changes of it::

    DISCONNECTED --connect--> CONNECTING --first response--> CONNECTED
    CONNECTING, CONNECTED --the hub does not respond, or has shut down--> LOST
    CONNECTING, CONNECTED --the hub has disconnected the client; or this is the child of a fork--> CLOSED
    LOST, CLOSED --connect--> CONNECTING
    any state --disconnect--> DISCONNECTED

`HubConnection` has such a state for its HTTP connection, and `ClientSession` one for the registration that uses it: the
session stays CONNECTING until the client is registered, and is DISCONNECTED as soon as the program asks for it, while
the HTTP connection is still needed to unregister.

Connecting sends no ping of its own when a registration follows (`connect_unverified`): the first operation finds out
whether there is a hub. Until its response has arrived, the state is CONNECTING, and `reason` is the text of the error
that is raised if no hub responds.

Every wait has an end that does not depend on the hub. Each operation has a timeout. During the wait, and shortly
before its end, the client pings the hub on another connection. So when the time is up, it is known whether the hub
hangs or one response is late. When a call fails otherwise, one more ping tells a hub that is gone from a single
response that went wrong.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from enum import Enum
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol, Self, TypeVar
from xmlrpc.client import Error as XMLRPCError
from xmlrpc.client import Fault

from ..errors import SAMPError, SAMPHubError, SAMPProxyError, SAMPTransportError, SAMPTypeError
from ..lockfile import HINT_START_HUB, display_path, lockfile_source, read_lockfile
from ..process_events import FORKED_MESSAGE, register_after_fork
from ..protocol import SAMPValue, check_message, check_response, encode
from ..transport.http11 import HTTPResponse
from ..transport.xmlrpc_client import DEFAULT_OPTIONS, CallOptions, ResponseTimeoutError, XMLRPCClient
from ..transport.xmlrpc_writer import PreEncoded, write_value
from .handlers import ReceivedCalls

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that an operation may take that does not wait for a client or the user.
RESPONSE_TIMEOUT = 10.0
#: Seconds in which a hub that is alive responds to a ping.
PING_TIMEOUT = 3.0
#: Seconds by which the hub may exceed the timeout of a wait.
HUB_GRACE = 10.0
#: Seconds between two pings during a long wait.
PING_INTERVAL = 20.0

#: An operation and its parameters.
Request = tuple[str, dict[str, Any]]

NOT_CONNECTED = "Not connected to a SAMP hub: call connect() first."
CONNECT_AGAIN = "Call connect() when a hub is running again."

#: Checks of the parameters that must be more than a SAMP value. The hub would reject them as well, but it does not
#: know which line of the program they came from.
_CHECKS = {"message": check_message, "response": check_response}


class LocalHub(Protocol):
    """A hub of this process, such as a `SAMPHubServer`, whose module the client does not import."""

    @property
    def is_running(self) -> bool:
        """Whether clients can find the hub."""

    @property
    def params(self) -> Mapping[str, str]:
        """The contents of the lockfile."""

    @property
    def _web_port(self) -> int:
        """The port of the Web Profile."""

    def start(self) -> None:
        """Start the hub."""

    def stop(self) -> None:
        """Stop the hub."""


class RemoteFile(NamedTuple):
    """A copy of a file of this client where the other clients of the hub can read it, on another machine."""

    url: str
    #: Removes the copy.
    remove: Callable[[], object]


class ConnectionState(Enum):
    """The states of a connection; see the head of the module."""

    #: No connection has been made, or the program has ended it.
    DISCONNECTED = "disconnected"
    #: A connection is being made.
    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: The hub is gone, or does not respond. A client that reconnects waits for the next hub.
    LOST = "lost"
    #: The hub has ended the connection, and the client does not come back by itself.
    CLOSED = "closed"


_DISCONNECTED, _CONNECTING, _CONNECTED = (
    ConnectionState.DISCONNECTED, ConnectionState.CONNECTING, ConnectionState.CONNECTED
)  # fmt: skip
#: The states from which each state is entered.
_TRANSITIONS = {
    ConnectionState.DISCONNECTED: frozenset(ConnectionState),
    ConnectionState.CONNECTING: frozenset(ConnectionState),
    ConnectionState.CONNECTED: frozenset({_CONNECTING}),
    ConnectionState.LOST: frozenset({_CONNECTING, _CONNECTED}),
    ConnectionState.CLOSED: frozenset({_CONNECTING, _CONNECTED}),
}


class ConnectionStatus:
    """The state of a connection, and the reason for it. Any thread may change it."""

    __slots__ = ("_lock", "reason", "state")

    def __init__(self, reason: str = "") -> None:
        self.state = ConnectionState.DISCONNECTED
        #: The text of the error that calls raise without a connection. While connecting, that of the error that is
        #: raised if no hub responds.
        self.reason = reason
        self._lock = threading.RLock()  # a signal handler may change it

    def enter(self, state: ConnectionState, reason: str = "") -> bool:
        """Enter a state; return False, and change nothing, if it is not entered from the present one."""
        with self._lock:
            if self.state not in _TRANSITIONS[state]:
                return False
            self.state, self.reason = state, reason
            return True

    def after_fork_in_child(self) -> None:
        """Replace the lock, in the child of a fork: a thread that is in the parent only may have held it."""
        self._lock = threading.RLock()


class Prepared:
    """A class whose instances have their attributes before ``__init__``, which a derived class may replace."""

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **options: Any) -> None:
        """Show the parameters of ``__init__``: Python 3.11.2, which Debian 12 has, shows those of ``__new__``."""
        super().__init_subclass__(**options)
        own = inspect.signature(cls.__init__)
        cls.__signature__ = own.replace(parameters=list(own.parameters.values())[1:])

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make an instance, whatever the arguments of ``__init__``."""
        self = super().__new__(cls)
        self._prepare()
        return self

    def _prepare(self) -> None:
        """Make all attributes that do not depend on the arguments of ``__init__``."""


class _RemoteMethod:
    """A method of an XML-RPC server, or the first parts of its name: ``_RemoteMethod(client, "samp").hub.ping()``."""

    def __init__(self, client: XMLRPCClient, name: str = "") -> None:
        self.client = client
        self.name = name

    def __getattr__(self, name: str) -> _RemoteMethod:
        if name.startswith("__"):  # copy, pickle and inspect ask for such names; no server has them
            raise AttributeError(name)
        method = _RemoteMethod(self.client, f"{self.name}.{name}" if self.name else name)
        setattr(self, name, method)  # the next look-up finds it without a call of this method
        return method

    def __call__(self, *params: SAMPValue | PreEncoded, options: CallOptions = DEFAULT_OPTIONS) -> SAMPValue:
        """Call the method."""
        return self.client.call(self.name, *params, options=options)


def encode_params(params: Mapping[str, Any]) -> list[SAMPValue | PreEncoded]:
    """Encode the parameters of an operation, in order, as SAMP values (R4); their names serve error messages."""
    return [
        # Most strings, ids and keys above all, need no encoding
        value
        if type(value) is str and name not in _CHECKS and value.isascii() and value.isprintable()
        else _encode_param(name, value)
        for name, value in params.items()
    ]  # fmt: skip


def _encode_param(name: str, value: Any) -> SAMPValue | PreEncoded:
    if isinstance(value, PreEncoded):
        return value
    if not isinstance(value, Mapping):
        if name in _CHECKS:
            raise SAMPTypeError(f"A {name} is a map, not {value!r}")
        return encode(value, name)
    check = _CHECKS.get(name)
    return encode(value) if check is None else check(encode(value))  # the keys of a map say enough in an error


class _HubUnresponsiveError(SAMPTransportError):
    """The hub has not responded to a ping: another one is not needed."""


class HubConnection(Prepared):
    """The connection of `SAMPHubProxy` to the hub, without the operations of the hub."""

    def __init__(self) -> None:
        """Take no arguments: `__new__` makes everything."""

    def _prepare(self) -> None:
        super()._prepare()
        #: The object on which the hub's methods are looked up; None before the first connection.
        self.proxy: Any = None
        #: The contents of the lockfile that was used; empty without a connection.
        self.lockfile: dict[str, str] = {}
        #: The calls that came over this connection and have not been replied to.
        self.received_calls = ReceivedCalls()
        #: Called with the reason when the connection is lost, or closed by the hub.
        self.on_lost: Callable[[str], object] | None = None
        self.status = ConnectionStatus(NOT_CONNECTED)
        #: Whether the hub is on another machine and reached by a relay, not by a socket.
        self.is_relayed = False
        self._client: XMLRPCClient | None = None
        register_after_fork(self)

    # Connecting

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection and the hub was there when it was last used."""
        return self.status.state in (_CONNECTED, _CONNECTING)

    @property
    def _connected(self) -> bool:
        """Set by classes derived from upstream's `SAMPHubProxy` that connect by themselves."""
        return self.is_connected

    @_connected.setter
    def _connected(self, value: bool) -> None:
        if value:
            self.status.enter(_CONNECTING)
            self.status.enter(_CONNECTED)
        else:
            self.status.enter(_DISCONNECTED, NOT_CONNECTED)

    @property
    def _samp_hub(self) -> Any:
        """The object whose methods are the hub's operations; a subclass for another profile returns another one."""
        return self.proxy.samp.hub

    @property
    def url(self) -> str:
        """The hub's URL; empty without a connection."""
        client = self._client
        return client.url if client is not None else ""

    def connect(
        self,
        hub: LocalHub | None = None,
        hub_params: Mapping[str, str] | None = None,
        pool_size: int = 20,
    ) -> None:
        """
        Connect to a hub; it must be running.

        Parameters
        ----------
        hub : SAMPHubServer, optional
            A hub of this process.
        hub_params : mapping, optional
            The contents of a lockfile. Without either the hub is found by its lockfile (R33).
        pool_size : int
            How many idle connections are kept. It does not limit the number of simultaneous calls.

        Raises
        ------
        SAMPHubError
            No hub is running.
        """
        self.connect_unverified(hub, hub_params, pool_size)
        self._verify()

    def connect_unverified(
        self,
        hub: LocalHub | None = None,
        hub_params: Mapping[str, str] | None = None,
        pool_size: int = 20,
    ) -> None:
        """
        Connect as `connect` does, but send no ping: the first operation finds out whether there is a hub.

        Parameters
        ----------
        hub, hub_params, pool_size
            As in `connect`.
        """
        if hub is not None and hub_params is not None:
            raise ValueError("Give either a hub or its parameters, not both")
        if hub is not None and not hub.is_running:
            raise SAMPHubError("The hub is not running: start() it first.")
        no_hub = ""
        if hub is not None or hub_params is not None:
            params = dict(hub.params if hub is not None else hub_params or {})
        else:
            source = lockfile_source()
            params = read_lockfile(source)
            no_hub = f"No SAMP hub is running (the hub of {display_path(source)} does not respond). {HINT_START_HUB}"
        url = params.get("samp.hub.xmlrpc.url")
        if not url:
            raise SAMPHubError("The hub's parameters have no address (samp.hub.xmlrpc.url).")
        self._open(url, pool_size, no_hub)
        self.lockfile = params

    def _open(self, url: str, pool_size: int, no_hub: str = "") -> None:
        if self.is_connected:
            self.disconnect()
        try:
            client = self._make_client(url, RESPONSE_TIMEOUT, pool_size)
        except SAMPTransportError as error:
            raise SAMPHubError(f"The hub's address is not valid: {error}") from error
        self._client = client
        self.proxy = _RemoteMethod(client)
        self.status.enter(_CONNECTING, no_hub or f"No SAMP hub responds at {url}.")

    def _make_client(self, url: str, timeout: float, pool_size: int = 1) -> XMLRPCClient:
        return XMLRPCClient(url, timeout=timeout, keep=pool_size)

    def _verify(self) -> None:
        """Ping the hub; disconnect if it does not respond."""
        try:
            self._call("ping")
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Close the connection; calls that wait end with an error. It may be repeated and never fails."""
        self.status.enter(_DISCONNECTED, NOT_CONNECTED)
        self._close()

    def _close(self) -> None:
        client, self._client = self._client, None
        self.lockfile = {}
        if client is not None:
            client.close()
        elif callable(getattr(type(self.proxy), "shutdown", None)):  # a derived class brought a `ServerProxyPool`
            self.proxy.shutdown()

    def unregister_quietly(self, private_key: str, timeout: float) -> None:
        """
        Unregister a client; errors are only logged.

        If the connection has been closed, for instance by another thread, a new one is opened for it.

        Parameters
        ----------
        private_key : str
            The client's key.
        timeout : float
            Seconds that the hub has.
        """
        if self.proxy is None or self.status.state in (ConnectionState.LOST, ConnectionState.CLOSED):
            return
        try:
            unregister = self._samp_hub.unregister
            if not isinstance(unregister, _RemoteMethod):
                unregister(private_key)
            elif self.is_connected:
                unregister(private_key, options=CallOptions(timeout=timeout))
            else:
                with closing(self._make_client(unregister.client.url, timeout)) as client:
                    client.call(unregister.name, private_key)
        except (SAMPError, OSError, HTTPException, XMLRPCError) as error:
            log.debug("The hub did not respond to unregister: %s", error)

    def mark_lost(self, reason: str, state: ConnectionState = ConnectionState.LOST) -> None:
        """
        Close the connection because the hub is gone, or (CLOSED) because the hub has ended it.

        Parameters
        ----------
        reason : str
            The text of the errors that later calls raise.
        state : ConnectionState
            LOST or CLOSED.
        """
        if self.status.enter(state, reason):
            self._close()
            if self.on_lost is not None:
                self.on_lost(reason)

    def after_fork_in_child(self) -> None:
        """Forget the connection, in the child of a fork: it is the parent's."""
        self.received_calls = ReceivedCalls()
        self.status.after_fork_in_child()
        client, self._client = self._client, None
        if client is not None:
            client.after_fork_in_child()
        if self.status.enter(ConnectionState.CLOSED, FORKED_MESSAGE):
            self.proxy = None
            self.lockfile = {}

    # Files of recipients and senders on another machine

    def upload(self, path: Path, name: str) -> RemoteFile | None:
        """
        Copy a file to where the other clients can read it; None if they can read it here.

        Parameters
        ----------
        path : pathlib.Path
            The file.
        name : str
            The name for the copy.
        """
        return None

    def download(self, url: str, file: BinaryIO) -> bool:
        """
        Write the content of a URL from a message to a file, if only the hub can read it.

        Parameters
        ----------
        url : str
            The URL.
        file : file-like object
            Gets the content.

        Returns
        -------
        bool
            Whether the hub was asked; if not, the URL can be read here.
        """
        return False

    # Calling operations

    def _call(
        self,
        operation: str,
        /,
        *,
        timeout: float = RESPONSE_TIMEOUT,
        while_waiting: Callable[[], object] | None = None,
        raw_responses: list[HTTPResponse] | None = None,
        **params: Any,
    ) -> Any:
        """
        Call an operation of the hub, such as ``notifyAll``, with its parameters in order, and return its result.

        It may take ``timeout`` seconds, 0 for no limit; a hub that hangs is given up then, or earlier.
        ``while_waiting`` and ``raw_responses`` are as in `CallOptions`.
        """
        values = encode_params(params)
        if self.proxy is None:
            raise SAMPHubError(self.status.reason)
        method = getattr(self._samp_hub, operation)
        if not isinstance(method, _RemoteMethod):  # a derived class brought a proxy of its own
            return self._invoke(method, *values)
        if self.status.state is _CONNECTING:
            timeout = PING_TIMEOUT
        # The last ping ends with the wait
        interval = min(PING_INTERVAL, timeout - PING_TIMEOUT) if timeout > 0 else PING_INTERVAL
        health_check = self._ping_while_waiting if interval > 0 else None
        options = CallOptions(timeout, health_check, interval, while_waiting, raw_responses)
        return self._invoke(method, *values, options=options)

    def pre_encode(self, value: Mapping[str, Any]) -> SAMPValue | PreEncoded:
        """
        Encode a map ahead of the call of `call_pipelined` that sends it.

        Parameters
        ----------
        value : mapping
            A parameter of an operation of the hub.
        """
        is_sent_as_encoded = self.proxy is not None and isinstance(self._samp_hub, _RemoteMethod)
        return PreEncoded(write_value(encode(value))) if is_sent_as_encoded else encode(value)

    def call_pipelined(self, *requests: Request, while_waiting: Callable[[], object] | None = None) -> None:
        """
        Call several operations at once, and ignore their results.

        Parameters
        ----------
        *requests : tuple of (str, dict)
            Operations and their parameters. Each operation must be safe to call twice.
        while_waiting : callable, optional
            Called while the hub processes the requests, or before; perhaps twice.
        """
        hub = self._samp_hub if self.proxy is not None else None
        if not isinstance(hub, _RemoteMethod):
            if while_waiting is not None:
                while_waiting()
            for operation, params in requests:
                self._call(operation, **params)
            return
        calls = [(getattr(hub, operation).name, encode_params(params)) for operation, params in requests]
        self._invoke(hub.client.call_pipelined, calls, while_waiting)

    def _invoke(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a call, and turn the errors of the layers below into those that programs expect."""
        proxy = self.proxy
        try:
            result = call(*args, **options)
        except SAMPProxyError:
            if self.status.state is _CONNECTING:
                self._verify_is_hub()
            raise
        except Fault as fault:
            raise SAMPProxyError(fault.faultCode, fault.faultString) from None
        except (SAMPTransportError, OSError, HTTPException, XMLRPCError) as error:
            raise self._diagnose(error, proxy) from error
        if self.status.state is _CONNECTING:
            self.status.enter(_CONNECTED)
        return result

    def _call_typed(self, kind: type[T], operation: str, /, **params: Any) -> T:
        """Call an operation as `_call` does, and check the type of its result."""
        result = self._call(operation, **params)
        if not isinstance(result, kind):
            raise SAMPHubError(f"The hub returned a {type(result).__name__} from {operation}, not a {kind.__name__}.")
        return result

    def _ping(self) -> None:
        """Ping the hub, on another connection than the one that waits."""
        ping = self._samp_hub.ping
        if isinstance(ping, _RemoteMethod):
            ping(options=CallOptions(timeout=PING_TIMEOUT))
        else:
            ping()

    def _ping_while_waiting(self) -> None:
        """Raise an error, which ends the wait, if the hub does not respond to a ping either."""
        try:
            self._ping()
        except SAMPProxyError as fault:
            log.debug("A hub that does not know pings is alive: %s", fault)
        except SAMPTransportError as error:
            raise _HubUnresponsiveError(str(error), sent=True, refused=error.refused) from error

    def _verify_is_hub(self) -> None:
        """After a fault on the first call, ping the server: it may be another program that now uses the hub's port."""
        no_hub = self.status.reason
        try:
            self._ping()
        except SAMPError as error:
            self.disconnect()
            raise SAMPHubError(no_hub) from error
        self.status.enter(_CONNECTED)

    def _diagnose(self, error: Exception, proxy: object) -> SAMPHubError:
        """Find out whether the hub has stopped or only one call failed, and return the error for that."""
        status, is_remote = self.status, isinstance(proxy, _RemoteMethod)
        if not self.is_connected and is_remote:  # another thread has found out, or has disconnected
            return SAMPHubError(status.reason)
        refused = getattr(error, "refused", False)
        # A new connection has been made, with which nothing is wrong; or the hub is known to be alive; or the relay
        # knows that only the request was lost
        is_alive = isinstance(error, ResponseTimeoutError) or (
            self.is_relayed and status.state is not _CONNECTING and not refused
        )
        if self.proxy is not proxy or is_alive:
            return SAMPHubError(f"{error}.")
        if status.state is _CONNECTING and is_remote:
            reason = status.reason if refused else f"{status.reason} ({error})"
            if self.is_relayed:  # the relay knows what is missing: page, permission or hub
                reason = f"{error}."
            self.disconnect()
            return SAMPHubError(reason)
        if self.is_connected and not (refused or isinstance(error, _HubUnresponsiveError)):
            try:
                self._ping()
            except SAMPProxyError:
                return SAMPHubError(f"{error}.")
            except Exception as second:  # whatever it is, the hub has not responded a second time
                log.debug("The hub does not respond to a ping: %s", second)
            else:
                return SAMPHubError(f"{error}.")
        reason = f"{error}. {CONNECT_AGAIN}" if self.is_connected else f"{error}."
        self.mark_lost(reason)
        return SAMPHubError(reason)
