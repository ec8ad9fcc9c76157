# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The client's side of the Web Profile (R39 to R43), for where no lockfile can be read: in a container, say."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from ..errors import SAMPError, SAMPHubError, SAMPProxyError
from ..protocol import error_response
from ..transport.event_loop import EventLoop
from .callback_server import MessageQueue
from .cleanup import CallbackReceiver
from .hub_connection import HUB_GRACE, Request
from .hub_proxy import SAMPHubProxy, to_whole_seconds

if TYPE_CHECKING:
    from ..hub import SAMPHubServer
    from ..transport.http11 import HTTPResponse

__all__ = ["WEB_PROFILE_URL", "SAMPWebHubProxy"]

log = logging.getLogger(__name__)

WEB_PROFILE_URL = "http://127.0.0.1:21012/"

#: Seconds after which a pull without callbacks is answered.
PULL_TIMEOUT = 60
#: Seconds to wait before the next pull where the last one failed or came back at once without anything.
PAUSE = 0.5
_METHODS = {
    "receiveNotification": "receive_notification",
    "receiveCall": "receive_call",
    "receiveResponse": "receive_response",
}


class SAMPWebHubProxy(SAMPHubProxy):
    """
    The hub, seen from a client of the Web Profile.

    It has the methods of `SAMPHubProxy`, but callbacks are fetched by `pull_callbacks`, and a registration needs
    the user's consent, which is waited for.
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
        hub: SAMPHubServer | None = None,
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
            Has no meaning in the Web Profile, which needs no lockfile.
        pool_size : int
            How many idle connections are kept.
        url : str, optional
            Where the Web Profile is offered; by default on port 21012 of this machine.

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

    connect_unverified = connect  # the first operation waits for the user: ask the hub before

    def register(self, secret: str | Mapping[str, Any]) -> dict[str, Any]:
        """
        Register a client, and wait for the user's consent (R40).

        Parameters
        ----------
        secret : str or mapping
            What the client tells of itself, ``samp.name`` at least; or just its name.

        Returns
        -------
        dict
            ``samp.hub-id``, ``samp.self-id``, ``samp.private-key`` and ``samp.url-translator``.
        """
        answer = self._call_typed(dict, "register", timeout=0, identity_info=secret)
        self._translator = str(answer.get("samp.url-translator", ""))
        return cast("dict[str, Any]", answer)

    def register_with_metadata(
        self,
        metadata: Mapping[str, Any],
        meanwhile: Callable[[], object] | None = None,
        seen: list[HTTPResponse] | None = None,
    ) -> dict[str, Any]:
        """
        Register a client by its metadata.

        Parameters
        ----------
        metadata : mapping
            What the client is going to declare; without a ``samp.name`` it is called ``"Python"``.
        meanwhile : callable, optional
            Called at once: the user takes longer than anything.
        seen : list, optional
            Stays empty: the hub soon misses a client of this profile that does not ask for callbacks.

        Returns
        -------
        dict
            As of `register`.
        """
        if meanwhile is not None:
            meanwhile()
        return self.register({"samp.name": "Python", **metadata})

    def receiver(self, loop: EventLoop, inbox: MessageQueue, address: tuple[str, int]) -> CallbackReceiver:
        """
        Make what a client of this profile receives with: here a thread that asks for callbacks.

        Parameters
        ----------
        loop : Loop
            The client's.
        inbox : Inbox
            Where deliveries go.
        address : tuple of (str, int)
            Has no meaning here.
        """
        return CallbackPuller(self, inbox)

    def set_xmlrpc_callback(self, private_key: str, xmlrpc_addr: str) -> Any:
        """
        Refuse: the Web Profile has no such operation (R39).

        Parameters
        ----------
        private_key, xmlrpc_addr : str
            As of `SAMPHubProxy.set_xmlrpc_callback`.
        """
        raise SAMPProxyError(1, "The Web Profile calls nobody back: use allow_reverse_callbacks and pull_callbacks")

    def allow_reverse_callbacks(self, private_key: str, allow: bool | str) -> Any:
        """
        Say whether the client is going to fetch callbacks (R39).

        Parameters
        ----------
        private_key : str
            The client's key.
        allow : bool or str
            True, False, or the SAMP boolean ``"1"`` or ``"0"``.
        """
        wanted = allow not in (False, "0")
        return self._call("allowReverseCallbacks", private_key=private_key, allow=wanted)

    def pull_callbacks(self, private_key: str, timeout: str | float) -> list[dict[str, Any]]:
        """
        Fetch what has arrived for the client, or wait for it (R42).

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
        answer = self._call_typed(
            list, "pullCallbacks", timeout=seconds + HUB_GRACE, private_key=private_key, seconds=str(seconds)
        )
        return cast("list[dict[str, Any]]", answer)

    def translate_url(self, url: str) -> str:
        """
        Tell where the hub hands out what is at a URL that this client cannot reach (R46).

        Parameters
        ----------
        url : str
            A URL from a message.
        """
        return self._translator + quote(url, safe="") if self._translator else url


class CallbackPuller:
    """
    The thread that fetches a client's callbacks. It refers to the client weakly, by its inbox.

    Parameters
    ----------
    hub : SAMPWebHubProxy
        The hub.
    inbox : Inbox
        Where callbacks go.
    """

    def __init__(self, hub: SAMPWebHubProxy, inbox: MessageQueue) -> None:
        self._hub = hub
        self._inbox = inbox
        self._stopped = threading.Event()

    def declaration(self, private_key: str) -> Request:
        """Tell that callbacks are going to be fetched."""
        return "allowReverseCallbacks", {"private_key": private_key, "allow": "1"}

    def start(self, private_key: str) -> None:
        """Begin to fetch callbacks."""
        threading.Thread(target=self._run, args=(private_key,), name="samp-pull", daemon=True).start()

    def stop(self) -> None:
        """Fetch no more. The thread ends when the hub answers or the connection is closed."""
        self._stopped.set()

    def _run(self, private_key: str) -> None:
        while not self._stopped.is_set() and self._hub.is_connected:
            begin = time.monotonic()
            try:
                callbacks = self._hub.pull_callbacks(private_key, PULL_TIMEOUT)
            except SAMPProxyError as fault:
                self._on_fault(fault, private_key)
                return
            except SAMPError as error:
                log.debug("A pull failed: %s", error)
                callbacks = []
            for callback in callbacks:
                self._enqueue(private_key, callback)
            if not callbacks and time.monotonic() - begin < PAUSE:
                self._stopped.wait(PAUSE)

    def _enqueue(self, private_key: str, callback: Any) -> None:
        try:
            method = _METHODS[callback["samp.methodName"]]
            params = callback["samp.params"]
            self._inbox.put(method, private_key, *params, size=len(repr(params)))
        except SAMPProxyError as error:
            self._refuse(private_key, callback, error)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            log.warning("The hub handed over something that is no callback: %r", error)

    def _refuse(self, private_key: str, callback: Any, error: SAMPProxyError) -> None:
        """Drop a message for which there is no room; the sender of a call is told (R23)."""
        log.warning("A message was dropped: %s", error)
        if callback["samp.methodName"] == "receiveCall":
            msg_id = callback["samp.params"][1]
            try:
                # an earlier call of the same id may be open, see `received_calls`
                with self._hub.received_calls.add(private_key, msg_id):
                    self._hub.reply(private_key, msg_id, error_response(str(error)))
            except SAMPError as another:
                log.debug("A reply was not taken: %s", another)

    def _on_fault(self, fault: SAMPProxyError, private_key: str) -> None:
        """The hub takes the key no more: unless this client has left, it was thrown out."""
        keeper = self._inbox.client()
        if not self._stopped.is_set() and keeper is not None and keeper.get_private_key() == private_key:
            self._hub.mark_lost(f"The hub does not hand messages over to this client any more: {fault}.")
