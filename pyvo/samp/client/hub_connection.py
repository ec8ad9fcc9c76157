# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The connection of a client to a hub: how it is made, used, found broken and given up.

Every wait has an end that doesn't depend on the hub: an operation has a time-out, and during the wait the hub is asked
now and then, and shortly before the end, whether it is still alive, on another connection. So when the time is up it
is known whether the hub hangs, or one answer is late. When an exchange fails otherwise the hub is asked once more,
to tell a hub that is gone from one answer that went wrong.

The methods of an XML-RPC server as attributes, and what they are called with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from xmlrpc.client import Error as XMLRPCError
from xmlrpc.client import Fault

from ..errors import SAMPError, SAMPHubError, SAMPProxyError, SAMPTransportError, SAMPTypeError
from ..lockfile import HINT_START_HUB, display_path, lockfile_source, read_lockfile
from ..process_events import FORKED_MESSAGE, register_after_fork
from ..protocol import SAMPValue, check_message, check_response, encode
from ..transport.xmlrpc_client import ResponseTimeoutError, XMLRPCClient
from ..transport.xmlrpc_writer import PreEncoded, write_value
from .derived_classes import Prepared
from .received_calls import ReceivedCalls

if TYPE_CHECKING:
    from ..hub import SAMPHubServer
    from ..transport.http11 import HTTPResponse

__all__ = ["HUB_GRACE", "NOT_CONNECTED", "PING_INTERVAL", "HubConnection", "Request", "_RemoteMethod", "encode_params"]

log = logging.getLogger(__name__)

#: Parameters that have to be more than a SAMP value. The hub would refuse them as well, but it does not know which line
#: of the program they came from.
_CHECKS = {"message": check_message, "response": check_response}


class _RemoteMethod:
    """
    A method of an XML-RPC server, or the beginning of the name of one: ``RemoteMethod(client, "samp").hub.ping()``.

    Parameters
    ----------
    client : XMLRPCClient
        How the server is called.
    name : str
        Name so far; empty for the server itself.
    """

    def __init__(self, client: XMLRPCClient, name: str = "") -> None:
        self.client = client
        self.name = name

    def __getattr__(self, name: str) -> _RemoteMethod:
        if name.startswith("__"):  # copy, pickle and inspect ask for such; no server has them
            raise AttributeError(name)
        method = _RemoteMethod(self.client, f"{self.name}.{name}" if self.name else name)
        setattr(self, name, method)  # next time it is found without coming here
        return method

    def __call__(self, *params: SAMPValue | PreEncoded, **waiting: Any) -> SAMPValue:
        """Call the method; ``waiting`` are options of `XMLRPCClient.call`."""
        return self.client.call(self.name, *params, **waiting)


def encode_params(params: Mapping[str, Any]) -> list[SAMPValue | PreEncoded]:
    """
    Write the parameters of an operation as SAMP values (R4).

    Parameters
    ----------
    params : mapping
        The parameters in order; what is written already stays. Their names serve error messages, but for maps, whose
        keys say enough.

    Returns
    -------
    list
        The values, to be sent in this order.
    """
    return [
        # Nothing has to be done about most strings, ids and keys above all.
        value
        if type(value) is str and name not in _CHECKS and value.isascii() and value.isprintable()
        else _encoded(name, value)
        for name, value in params.items()
    ]  # fmt: skip


def _encoded(name: str, value: Any) -> SAMPValue | PreEncoded:
    if isinstance(value, PreEncoded):
        return value
    if not isinstance(value, Mapping):
        if name in _CHECKS:
            raise SAMPTypeError(f"A {name} is a map, not {value!r}")
        return encode(value, name)
    check = _CHECKS.get(name)
    return encode(value) if check is None else check(encode(value))


#: Seconds that an operation may take which has nothing to wait for.
RESPONSE_TIMEOUT = 10.0
#: Seconds in which a hub answers a ping if it is alive.
PING_TIMEOUT = 3.0
#: Seconds by which the hub may end a wait later than it was asked to.
HUB_GRACE = 10.0
#: Each so many seconds during a long wait the hub is asked whether it is still alive.
PING_INTERVAL = 20.0

#: An operation and its parameters.
Request = tuple[str, dict[str, Any]]

NOT_CONNECTED = "There is no connection to a SAMP hub: call connect() first."
CONNECT_AGAIN = "Call connect() when a hub is running again."


class _HubUnresponsiveError(SAMPTransportError):
    """The hub did not answer a look: there is no need for another one."""


class HubConnection(Prepared):
    """What `SAMPHubProxy` is besides the operations of the hub."""

    def __init__(self) -> None:
        """Take no arguments: `__new__` makes everything."""

    def _prepare(self) -> None:
        super()._prepare()
        #: What the hub's methods are looked up in; None before the first connection.
        self.proxy: Any = None
        #: The contents of the lockfile that was used; empty without a connection.
        self.lockfile: dict[str, str] = {}
        #: The calls that came over this connection and have not been replied to.
        self.received_calls = ReceivedCalls()
        #: Called with the reason when the connection is found to be lost; perhaps by several threads at once.
        self.on_lost: Callable[[str], object] | None = None
        self._connected = False
        self._trouble = NOT_CONNECTED
        self._unverified_reason = ""  # what is to be said if the hub does not even answer once
        self._client: XMLRPCClient | None = None
        register_after_fork(self)

    # Connecting

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection and the hub was there when it was last used."""
        return self._connected

    @property
    def _samp_hub(self) -> Any:
        """What has the hub's operations as methods; subclasses give another one to speak another profile."""
        return self.proxy.samp.hub

    @property
    def disconnect_reason(self) -> str:
        """Why there is no connection; empty while there is one."""
        return self._trouble

    @property
    def was_lost(self) -> bool:
        """Whether there was a connection that ended without the program's doing."""
        return bool(self._trouble) and self._trouble != NOT_CONNECTED

    @property
    def url(self) -> str:
        """Where the hub is; empty without a connection."""
        client = self._client
        return client.url if client is not None else ""

    def connect(
        self,
        hub: SAMPHubServer | None = None,
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
            The contents of a lockfile. Without either the hub is looked for by its lockfile (R33).
        pool_size : int
            How many idle connections are kept. It does not limit how many calls may be under way.

        Raises
        ------
        SAMPHubError
            No hub is running.
        """
        self.connect_unverified(hub, hub_params, pool_size)
        self._verify()

    def connect_unverified(
        self,
        hub: SAMPHubServer | None = None,
        hub_params: Mapping[str, str] | None = None,
        pool_size: int = 20,
    ) -> None:
        """
        Like `connect`, but leave it to the first operation to find out whether there is a hub.

        Parameters
        ----------
        hub, hub_params, pool_size
            As of `connect`.
        """
        if hub is not None and hub_params is not None:
            raise ValueError("Give either a hub or its parameters, not both")
        if hub is not None and not hub.is_running:
            raise SAMPHubError("The hub is not running: start() it first.")
        doubt = ""
        if hub is not None or hub_params is not None:
            params = dict(hub.params if hub is not None else hub_params or {})
        else:
            source = lockfile_source()
            params = read_lockfile(source)
            doubt = f"No SAMP hub is running (the one that {display_path(source)} names does not answer). {HINT_START_HUB}"
        url = params.get("samp.hub.xmlrpc.url")
        if not url:
            raise SAMPHubError("The hub's parameters do not tell its address (samp.hub.xmlrpc.url).")
        self._open(url, pool_size, doubt)
        self.lockfile = params

    def _open(self, url: str, pool_size: int, doubt: str = "") -> None:
        self.disconnect()
        try:
            client = XMLRPCClient(url, timeout=RESPONSE_TIMEOUT, keep=pool_size)
        except SAMPTransportError as error:
            raise SAMPHubError(f"The address of the hub is of no use: {error}") from error
        self._client = client
        self._trouble = ""
        self._unverified_reason = doubt or f"No SAMP hub answers at {url}."
        self.proxy = _RemoteMethod(client)
        self._connected = True

    def _verify(self) -> None:
        """See whether the hub is there."""
        try:
            self._call("ping")
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Close the connection; calls that wait end with an error. It may be repeated and never fails."""
        self._close(NOT_CONNECTED)

    def _close(self, trouble: str) -> None:
        self._connected = False
        self._trouble = trouble
        self._unverified_reason = ""
        client, self._client = self._client, None
        self.lockfile = {}
        if client is not None:
            client.close()
        elif callable(getattr(type(self.proxy), "shutdown", None)):  # a derived class brought a `ServerProxyPool`
            self.proxy.shutdown()

    def unregister_quietly(self, private_key: str, timeout: float) -> None:
        """
        Unregister a client in a hurry. Never fails: a hub that does not listen any more need not be told.

        A connection that was closed meanwhile, by another thread say, is no reason to stay registered.

        Parameters
        ----------
        private_key : str
            The client's key.
        timeout : float
            Seconds that the hub has.
        """
        if self.proxy is None or self.was_lost:
            return
        try:
            unregister = self._samp_hub.unregister
            if not isinstance(unregister, _RemoteMethod):
                unregister(private_key)
            elif self._connected:
                unregister(private_key, timeout=timeout)
            else:
                with closing(XMLRPCClient(unregister.client.url, timeout=timeout)) as client:
                    client.call(unregister.name, private_key)
        except (SAMPError, OSError, HTTPException, XMLRPCError) as error:
            log.debug("The hub did not take notice of an unregister: %s", error)

    def mark_lost(self, reason: str) -> None:
        """
        Give the connection up because the hub is gone.

        Parameters
        ----------
        reason : str
            What later calls are told.
        """
        if self._connected:
            self._close(reason)
            if self.on_lost is not None:
                self.on_lost(reason)

    def after_fork_in_child(self) -> None:
        """Forget the connection, in the child of a fork: it is the parent's."""
        self.received_calls = ReceivedCalls()
        client, self._client = self._client, None
        if client is not None:
            client.after_fork_in_child()
        if client is not None or self._connected:
            self.proxy = None
            self._connected = False
            self._trouble = FORKED_MESSAGE
            self.lockfile = {}

    # Asking

    def _call(
        self,
        operation: str,
        /,
        *,
        timeout: float = RESPONSE_TIMEOUT,
        meanwhile: Callable[[], object] | None = None,
        seen: list[HTTPResponse] | None = None,
        **params: Any,
    ) -> Any:
        """
        Call an operation of the hub.

        Parameters
        ----------
        operation : str
            Name of the operation, such as ``notifyAll``.
        timeout : float
            Seconds that it may take; 0 for no limit. A hub that hangs is given up after that time, or earlier.
        meanwhile : callable, optional
            Called while the hub is at work.
        seen : list, optional
            Gets the hub's answer as it came in, even if the wait for it is broken off.
        **params
            Its parameters in order. The names serve error messages.

        Returns
        -------
        str, list or dict
            What the hub answered.
        """
        values = encode_params(params)
        if self.proxy is None:
            raise SAMPHubError(self._trouble)
        method = getattr(self._samp_hub, operation)
        if not isinstance(method, _RemoteMethod):  # a subclass brought a proxy of its own
            return self._invoke(method, *values)
        if self._unverified_reason:
            timeout = PING_TIMEOUT
        # The last look ends with the wait
        look_every = min(PING_INTERVAL, timeout - PING_TIMEOUT) if timeout > 0 else PING_INTERVAL
        look = self._ping_while_waiting if look_every > 0 else None
        return self._invoke(
            method, *values, timeout=timeout, look=look, look_every=look_every, meanwhile=meanwhile, seen=seen
        )

    def pre_encode(self, value: Mapping[str, Any]) -> SAMPValue | PreEncoded:
        """
        Write a map ahead of its being sent, to be given to `ask_in_a_row` in its place.

        Parameters
        ----------
        value : mapping
            What an operation of the hub takes.
        """
        goes_as_written = self.proxy is not None and isinstance(self._samp_hub, _RemoteMethod)
        return PreEncoded(write_value(encode(value))) if goes_as_written else encode(value)

    def call_pipelined(self, *requests: Request, meanwhile: Callable[[], object] | None = None) -> None:
        """
        Call several operations at once; their answers are of no interest.

        Parameters
        ----------
        *requests : tuple of (str, dict)
            Operations and their parameters; they must be such that may be called twice.
        meanwhile : callable, optional
            Called while the hub is at work or before, perhaps twice.
        """
        hub = self._samp_hub if self.proxy is not None else None
        if not isinstance(hub, _RemoteMethod):
            if meanwhile is not None:
                meanwhile()
            for operation, params in requests:
                self._call(operation, **params)
            return
        calls = [(getattr(hub, operation).name, encode_params(params)) for operation, params in requests]
        self._invoke(hub.client.call_pipelined, calls, meanwhile)

    def _invoke(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a call, and turn what may go wrong below into what programs expect."""
        proxy = self.proxy
        try:
            answer = call(*args, **options)
            self._unverified_reason = ""
            return answer
        except SAMPProxyError:
            if self._unverified_reason:
                self._verify_is_hub()
            raise
        except Fault as fault:
            raise SAMPProxyError(fault.faultCode, fault.faultString) from None
        except (SAMPTransportError, OSError, HTTPException, XMLRPCError) as error:
            raise self._diagnose(error, proxy) from error

    def _call_typed(self, kind: type, operation: str, /, **params: Any) -> Any:
        """Like `_ask`, for an operation whose answer is used: it must be of the right kind."""
        answer = self._call(operation, **params)
        if not isinstance(answer, kind):
            raise SAMPHubError(f"The hub answered {operation} with a {type(answer).__name__}, not a {kind.__name__}.")
        return answer

    def _ping(self) -> None:
        """See whether the hub is alive, on another connection than the one that waits."""
        ping = self._samp_hub.ping
        if isinstance(ping, _RemoteMethod):
            ping(timeout=PING_TIMEOUT)
        else:
            ping()

    def _ping_while_waiting(self) -> None:
        """End a wait for a hub that does not answer a look either."""
        try:
            self._ping()
        except SAMPProxyError as fault:
            log.debug("A hub that does not know pings is alive: %s", fault)
        except SAMPTransportError as error:
            raise _HubUnresponsiveError(str(error), sent=True, refused=error.refused) from error

    def _verify_is_hub(self) -> None:
        """Tell a hub that refused the very first operation from another server that has come to use its port."""
        doubt = self._unverified_reason
        try:
            self._ping()
        except SAMPError as error:
            self.disconnect()
            raise SAMPHubError(doubt) from error
        self._unverified_reason = ""

    def _diagnose(self, error: Exception, proxy: object) -> SAMPHubError:
        """Find out whether the hub is gone or one exchange went wrong, and say so."""
        if self._trouble and isinstance(proxy, _RemoteMethod):  # another thread has found out, or has disconnected
            return SAMPHubError(self._trouble)
        # There is another connection by now, with which nothing is wrong; or the hub is known to be alive
        if self.proxy is not proxy or isinstance(error, ResponseTimeoutError):
            return SAMPHubError(f"{error}.")
        if self._unverified_reason and isinstance(proxy, _RemoteMethod):
            reason = f"{self._unverified_reason} ({error})" if not getattr(error, "refused", False) else self._unverified_reason
            self.disconnect()
            return SAMPHubError(reason)
        if self._connected and not (getattr(error, "refused", False) or isinstance(error, _HubUnresponsiveError)):
            try:
                self._ping()
            except SAMPProxyError:
                return SAMPHubError(f"{error}.")
            except Exception as second:  # whatever it is, the hub has not answered a second time
                log.debug("The hub does not answer a ping: %s", second)
            else:
                return SAMPHubError(f"{error}.")
        reason = f"{error}. {CONNECT_AGAIN}" if self._connected else f"{error}."
        self.mark_lost(reason)
        return SAMPHubError(reason)
