# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub through the Web Profile (R39 to R43), for programs that cannot read the lockfile, as in a container."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import quote

from ..errors import SAMPClientError, SAMPHubError, SAMPProxyError, SAMPTransportError
from ..protocol import SAMPValue
from ..protocol.timeouts import to_whole_seconds
from ..transport.http11 import HTTPResponse
from ..transport.xmlrpc_client import DEFAULT_OPTIONS, CallOptions, XMLRPCClient
from ..transport.xmlrpc_reader import read_response
from ..transport.xmlrpc_writer import Encoded, write_call
from .hub_connection import HUB_GRACE, ConnectionState, LocalHub, RemoteFile
from .hub_proxy import SAMPHubProxy

WEB_PROFILE_URL = "http://127.0.0.1:21012/"
#: Operations without a result.
_WITHOUT_RESULT = frozenset({"declareMetadata", "declareSubscriptions", "notify", "reply", "unregister"})


class HubExchange(Protocol):
    """
    Carries the requests of a client to the Web Profile of a hub on another machine; a `HubRelay` is one.

    It may also have: ``cancel(body)``, called when a client no longer waits for the response to a body; ``can_wait``
    and ``post(body, timeout)``, which sends a body that has no result if ``can_wait`` is False, or if the client ends;
    ``identity``, a mapping that is added to what the client states at its registration; and ``upload(path, name, url)``
    and ``download(url, file)`` for files, as `HubConnection` has them, but with the URLs of the hub.
    """

    def exchange(self, body: bytes, timeout: float) -> HTTPResponse:
        """
        Post an XML-RPC document to the hub, and wait for the response.

        Parameters
        ----------
        body : bytes
            The document.
        timeout : float
            Seconds that the hub may take; 0 for no limit.

        Raises
        ------
        SAMPTransportError
            There was no response.
        """


class _RelayedClient(XMLRPCClient):
    """Calls the hub through a relay, which has the timeouts and the health checks."""

    def __init__(self, relay: Any, url: str, timeout: float) -> None:
        super().__init__(url, timeout=timeout)
        self._relay = relay
        self._bodies: dict[int, bytes] = {}  # those that are being exchanged

    def call(
        self, method: str, *params: SAMPValue | Encoded, options: CallOptions = DEFAULT_OPTIONS
    ) -> SAMPValue:
        if getattr(self._relay, "can_wait", True) or method.rpartition(".")[2] not in _WITHOUT_RESULT:
            return super().call(method, *params, options=options)
        self._relay.post(write_call(method, params))
        return ""

    def post(self, body: bytes, options: CallOptions = DEFAULT_OPTIONS) -> SAMPValue:
        with self._lock:
            if self._closed:
                raise SAMPTransportError("The connection to the hub is closed")
            self._bodies[id(body)] = body
        if options.while_waiting is not None:
            options.while_waiting()
        try:
            response = self._relay.exchange(body, self.timeout if options.timeout is None else options.timeout)
        finally:
            self._bodies.pop(id(body), None)
        if options.raw_responses is not None:
            options.raw_responses.append(response)
        return self._result(response, read_response)

    def close(self) -> None:
        super().close()
        cancel = getattr(self._relay, "cancel", None)
        if cancel is not None:
            for body in list(self._bodies.values()):
                cancel(body)

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._bodies = {}


class SAMPWebHubProxy(SAMPHubProxy):
    """
    The hub, for clients of the Web Profile.

    It has the methods of `SAMPHubProxy`, but `pull_callbacks` fetches the callbacks, and `register` waits for the
    consent of the user.
    """

    prefix = "samp.webhub"

    def _prepare(self) -> None:
        super()._prepare()
        self._relay: HubExchange | None = None
        self._registration: dict[str, Any] = {}

    @property
    def _samp_hub(self) -> Any:
        return self.proxy.samp.webhub

    def connect(
        self,
        hub: LocalHub | None = None,
        hub_params: Mapping[str, str] | None = None,
        pool_size: int = 20,
        url: str | None = None,
        relay: HubExchange | None = None,
    ) -> None:
        """
        Connect to the Web Profile of a hub.

        Parameters
        ----------
        hub : SAMPHubServer, optional
            A hub of this process.
        hub_params : mapping, optional
            Not allowed: the Web Profile needs no lockfile.
        pool_size : int
            How many idle connections are kept.
        url : str, optional
            The URL of the Web Profile; by default that of port 21012 on this machine.
        relay : HubExchange, optional
            What carries the requests to a hub on another machine.

        Raises
        ------
        SAMPHubError
            No hub offers the Web Profile there.
        """
        if hub_params is not None:
            raise ValueError("The Web Profile does not use a lockfile: pass the URL of the hub instead")
        if hub is not None and not hub.is_running:
            raise SAMPHubError("The hub is not running: start() it first.")
        if url is None:
            url = f"http://127.0.0.1:{hub._web_port}/" if hub is not None else WEB_PROFILE_URL
        self._relay = relay
        self.is_relayed = relay is not None
        self._open(url, pool_size, f"No hub offers the Web Profile at {url}.")
        self._verify()

    def _make_client(self, url: str, timeout: float, pool_size: int = 1) -> XMLRPCClient:
        if self._relay is not None:
            return _RelayedClient(self._relay, url, timeout)
        return super()._make_client(url, timeout, pool_size)

    connect_unverified = connect  # the first operation waits for the user, so ping the hub before

    def register(self, secret: str | Mapping[str, Any]) -> dict[str, Any]:
        """
        Register a client, and wait for the user's consent (R40).

        Parameters
        ----------
        secret : str or mapping
            The client's metadata, ``samp.name`` at least; or only its name.

        Returns
        -------
        dict
            ``samp.hub-id``, ``samp.self-id``, ``samp.private-key`` and ``samp.url-translator``.
        """
        registration = self._call_typed(dict, "register", timeout=0, identity_info=secret)
        self._registration = registration
        return registration

    def register_with_metadata(
        self,
        metadata: Mapping[str, Any],
        while_waiting: Callable[[], object] | None = None,
        raw_responses: list[HTTPResponse] | None = None,
    ) -> dict[str, Any]:
        """
        Register a client by its metadata.

        Parameters
        ----------
        metadata : mapping
            The metadata that the client is going to declare; without a ``samp.name`` its name is ``"Python"``.
        while_waiting : callable, optional
            Called before the request is sent, because the user takes longer.
        raw_responses : list, optional
            Stays empty: the hub soon unregisters a client of this profile that does not pull callbacks.

        Returns
        -------
        dict
            As in `register`.
        """
        if while_waiting is not None:
            while_waiting()
        return self.register({"samp.name": "Python", **metadata, **getattr(self._relay, "identity", {})})

    def set_xmlrpc_callback(self, private_key: str, xmlrpc_addr: str) -> Any:
        """
        Raise an error: the Web Profile has no such operation (R39).

        Parameters
        ----------
        private_key, xmlrpc_addr : str
            As in `SAMPHubProxy.set_xmlrpc_callback`.
        """
        raise SAMPProxyError(1, "The Web Profile calls no client back: use allow_reverse_callbacks and pull_callbacks")

    def allow_reverse_callbacks(self, private_key: str, allow: bool | str) -> Any:
        """
        Declare whether the client is going to pull callbacks (R39).

        Parameters
        ----------
        private_key : str
            The client's key.
        allow : bool or str
            True, False, or the SAMP boolean ``"1"`` or ``"0"``.
        """
        return self._call("allowReverseCallbacks", private_key=private_key, allow=allow not in (False, "0"))

    def pull_callbacks(self, private_key: str, timeout: str | float) -> list[dict[str, Any]]:
        """
        Fetch the callbacks for the client, or wait for the first (R42).

        Parameters
        ----------
        private_key : str
            The client's key.
        timeout : str, int or float
            Seconds to wait.

        Returns
        -------
        list of dict
            Each has ``samp.methodName`` and ``samp.params``.
        """
        seconds = to_whole_seconds(timeout)
        return self._call_typed(
            list, "pullCallbacks", timeout=seconds + HUB_GRACE, private_key=private_key, seconds=str(seconds)
        )

    def unregister_quietly(self, private_key: str, timeout: float) -> None:
        """
        Unregister a client; errors are only logged.

        Parameters
        ----------
        private_key, timeout
            As in `HubConnection.unregister_quietly`.
        """
        post = getattr(self._relay, "post", None)
        if post is None or self.status.state in (ConnectionState.LOST, ConnectionState.CLOSED):
            super().unregister_quietly(private_key, timeout)
        else:  # an exchange might wait for a page, which may be gone
            post(write_call(f"{self.prefix}.unregister", [private_key]), timeout)

    def translate_url(self, url: str) -> str:
        """
        Return the URL at which the hub serves the content of a URL that this client cannot read (R46).

        Parameters
        ----------
        url : str
            A URL from a message.
        """
        translator = str(self._registration.get("samp.url-translator", ""))
        return translator + quote(url, safe="") if translator else url

    def upload(self, path: Path, name: str) -> RemoteFile | None:
        """
        Copy a file to the machine of the hub, or to where its clients can read it; None without a relay.

        Parameters
        ----------
        path, name
            As in `HubConnection.upload`.
        """
        if self._relay is None:
            return None
        upload = getattr(self._relay, "upload", None)
        if upload is None:
            raise SAMPClientError("The hub is on another machine, and its relay carries messages only, no files.")
        return cast("RemoteFile", upload(path, name, str(self._registration.get("x-samp.upload", ""))))

    def download(self, url: str, file: BinaryIO) -> bool:
        """
        Write the content that the hub serves for a URL to a file. Does nothing without a relay that has ``download``.

        Parameters
        ----------
        url, file
            As in `HubConnection.download`.

        Returns
        -------
        bool
            Whether the relay was asked.
        """
        download = getattr(self._relay, "download", None)
        if download is None:
            return False
        download(self.translate_url(url), file)
        return True
