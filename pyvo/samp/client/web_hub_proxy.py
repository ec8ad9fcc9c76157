# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub by the Web Profile (R39 to R43), for programs that cannot read the lockfile, such as those in a container."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from ..errors import SAMPHubError, SAMPProxyError
from ..protocol.timeouts import to_whole_seconds
from ..transport.http11 import HTTPResponse
from .hub_connection import HUB_GRACE, LocalHub
from .hub_proxy import SAMPHubProxy

WEB_PROFILE_URL = "http://127.0.0.1:21012/"


class SAMPWebHubProxy(SAMPHubProxy):
    """
    The hub, for clients of the Web Profile.

    It has the methods of `SAMPHubProxy`, but `pull_callbacks` fetches the callbacks, and `register` waits for the
    consent of the user.
    """

    prefix = "samp.webhub"

    def _prepare(self) -> None:
        super()._prepare()
        self._translator = ""

    @property
    def _samp_hub(self) -> Any:
        return self.proxy.samp.webhub

    def connect(
        self,
        hub: LocalHub | None = None,
        hub_params: Mapping[str, str] | None = None,
        pool_size: int = 20,
        url: str | None = None,
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

        Raises
        ------
        SAMPHubError
            No hub offers the Web Profile there.
        """
        if hub_params is not None:
            raise ValueError("The Web Profile takes no parameters of a lockfile: give the URL instead")
        if hub is not None and not hub.is_running:
            raise SAMPHubError("The hub is not running: start() it first.")
        if url is None:
            url = f"http://127.0.0.1:{hub._web_port}/" if hub is not None else WEB_PROFILE_URL
        self._open(url, pool_size, f"No hub offers the Web Profile at {url}.")
        self._verify()

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
        self._translator = str(registration.get("samp.url-translator", ""))
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
            As of `register`.
        """
        if while_waiting is not None:
            while_waiting()
        return self.register({"samp.name": "Python", **metadata})

    def set_xmlrpc_callback(self, private_key: str, xmlrpc_addr: str) -> Any:
        """
        Raise an error: the Web Profile has no such operation (R39).

        Parameters
        ----------
        private_key, xmlrpc_addr : str
            As of `SAMPHubProxy.set_xmlrpc_callback`.
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

    def translate_url(self, url: str) -> str:
        """
        Return the URL at which the hub serves the content of a URL that this client cannot read (R46).

        Parameters
        ----------
        url : str
            A URL from a message.
        """
        return self._translator + quote(url, safe="") if self._translator else url
