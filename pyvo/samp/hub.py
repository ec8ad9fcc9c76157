# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The hub: `SAMPHubServer`. Run as a program (``python -m pyvo.samp.hub``) it is a hub until it is interrupted."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .addresses import checked_port
from .broker import Broker, Delivery
from .errors import SAMPHubError
from .forking import forget_in_child
from .hubside.lockfile_writing import default_lockfile, private_lockfile
from .hubside.session import HubSession, SessionOptions
from .protocol import subtypes
from .signals import signals_end_in_order
from .transport.loop import Loop
from .web.consent_askers import WebProfileDialog, make_asker

if TYPE_CHECKING:
    from .web_profile import WebProfile

__all__ = ["SAMPHubServer", "WebProfileDialog"]

log = logging.getLogger(__name__)


class SAMPHubServer:
    """
    A SAMP hub, through which programs exchange messages.

    Parameters
    ----------
    secret : str, optional
        What clients must know to register; they read it in the lockfile. By default a new one at each start.
    addr : str, optional
        Address to listen on; by default 127.0.0.1, which only this machine can reach.
    port : int
        Port of the Standard Profile; 0 takes a free one.
    lockfile : str or path, optional
        Where the lockfile goes; by default where clients look: what ``SAMP_HUB`` names, or ``~/.samp``.
    timeout : float
        Seconds without any activity after which the hub stops; 0: it does not.
    client_timeout : float
        Seconds of silence after which a client is disconnected; 0: it is not.
    mode : {"single", "multiple"}
        ``"multiple"`` puts the lockfile into ``~/.samp-1``, beside those of any number of other hubs.
    label : str
        A name for the hub, written into the lockfile.
    web_profile : bool
        Whether web pages can join, when the user agrees.
    web_profile_dialog : str, callable or WebProfileDialog, optional
        How the user is asked: ``"terminal"`` (the default), ``"tk"``, ``"deny"``, a function, or a dialog.
    web_port : int
        Port of the Web Profile. Pages expect 21012; 0 takes a free one.
    pool_size : int
        Accepted for programs that give it: the hub keeps as many connections as are in use.
    web_profile_mtypes : iterable of str, optional
        What web pages may send; by default `~pyvo.samp.constants.SAFE_MTYPES`. ``["*"]`` lifts the restriction.

    Raises
    ------
    TypeError, ValueError
        ``mode`` is none of the two, a port is no port, or ``web_profile_dialog`` is no way to ask.
    """

    def __init__(
        self,
        secret: str | None = None,
        addr: str | None = None,
        port: int = 0,
        lockfile: str | os.PathLike[str] | None = None,
        timeout: float = 0,
        client_timeout: float = 0,
        mode: str = "single",
        label: str = "",
        web_profile: bool = True,
        web_profile_dialog: Any = None,
        web_port: int = 21012,
        pool_size: int = 20,
        *,
        web_profile_mtypes: Iterable[str] | None = None,
    ) -> None:
        if mode not in {"single", "multiple"}:
            raise ValueError(f"The mode of a hub is 'single' or 'multiple', not {mode!r}")
        if web_profile:
            make_asker(web_profile_dialog)  # raises here, and not at the start, what is wrong with it
        self._id = secrets.token_hex(8)
        self._secret = secret
        self._address = ("127.0.0.1" if addr in {None, "", "localhost"} else str(addr), checked_port(port))
        self._lockfile = lockfile
        self._timeout = timeout
        self._client_timeout = client_timeout
        self._mode = mode
        self._label = label
        self._web_profile = web_profile
        self._web_profile_dialog = web_profile_dialog
        self._configured_web_port = checked_port(web_port)
        self._web_profile_mtypes = None if web_profile_mtypes is None else list(web_profile_mtypes)
        self._starting = threading.Lock()
        self._session: HubSession | None = None
        #: Called with each `~pyvo.samp.broker.Delivery`, in the hub's thread, which it must not hold up. To be set
        #: before the start, by whoever shows a person what goes on.
        self.watcher: Callable[[Delivery], object] | None = None
        forget_in_child(self)

    # What it is

    @property
    def id(self) -> str:
        """What tells this hub from others; not its id as a client."""
        return self._id

    @property
    def is_running(self) -> bool:
        """Whether the hub runs."""
        session = self._session
        return session is not None and session.is_running

    @property
    def params(self) -> dict[str, str]:
        """What is in the lockfile while the hub runs; the secret is part of it."""
        session = self._session
        return dict(session.params) if session is not None and session.is_running else {}

    @property
    def web_profile_running(self) -> bool:
        """Whether web pages can find the hub. The log tells why not, such as that another program has the port."""
        session = self._session
        return session is not None and session.is_running and session.web is not None

    @property
    def _web_port(self) -> int:
        session = self._session
        web = session.web if session is not None else None
        return web.port if web is not None else self._configured_web_port

    @staticmethod
    def get_mtype_subtypes(mtype: str) -> list[str]:
        """
        List the patterns that match an MType (R12), the most specific one first.

        Parameters
        ----------
        mtype : str
            Such as ``"a.b.c"``.

        Returns
        -------
        list of str
            Such as ``["a.b.c", "a.b.*", "a.*", "*"]``.
        """
        return subtypes(mtype)

    def __repr__(self) -> str:
        return f"<SAMPHubServer {self._label or self._id}, {'running' if self.is_running else 'stopped'}>"

    # Starting and stopping

    def start(self, wait: bool = False) -> None:
        """
        Start the hub.

        Parameters
        ----------
        wait : bool
            Whether to return only when the hub has been stopped. While this waits in the main thread, a signal that
            would end the process (SIGTERM, SIGHUP) ends the wait like ^C does: the hub is stopped in order, and
            `SystemExit` or `KeyboardInterrupt` goes on to the caller. Without ``wait`` signals are left alone.

        Raises
        ------
        SAMPHubError
            This hub or another one is running already, or an address or the lockfile is not to be had.
        """
        if not wait:
            self._open()
            return
        with signals_end_in_order():
            session = self._open()
            try:
                session.wait_closed()
            finally:
                self.stop()

    def stop(self) -> None:
        """
        Stop the hub: clients are told, the lockfile is removed, open calls end.

        It takes less than two seconds whatever the clients do, may be called again, or without a start, and from any
        thread, handler or signal handler.
        """
        session = self._session
        if session is not None:
            session.close()

    def abandon(self) -> None:
        """Forget the hub in the child of a fork: it runs in the parent."""
        session, self._session = self._session, None
        self._starting = threading.Lock()
        if session is not None:
            session.abandon()

    def _open(self) -> HubSession:
        with self._starting:
            if self.is_running:
                raise SAMPHubError("This hub is running already; make another SAMPHubServer for a second one.")
            if self._session is not None:
                self._session.close()  # which may be under way in another thread
            session = HubSession(self._options())
            session.broker.watcher = self.watcher
            self._session = session  # before it is open: a signal handler may want to stop it
            session.open()
            return session

    def _options(self) -> SessionOptions:
        if self._lockfile is not None:
            lockfile = Path(self._lockfile).expanduser().absolute()  # the program may change its directory
        elif self._mode == "multiple":
            lockfile = private_lockfile(f"{os.getpid()}-{self._id}")
        else:
            lockfile = default_lockfile()
        return SessionOptions(
            hub_id=self._id,
            label=self._label,
            secret=self._secret,
            address=self._address,
            lockfile=lockfile,
            timeout=self._timeout,
            client_timeout=self._client_timeout,
            make_web_profile=self._make_web_profile if self._web_profile else None,
        )

    def _make_web_profile(self, broker: Broker, loop: Loop) -> WebProfile | None:
        from .web_profile import WebProfile  # noqa: PLC0415 - a hub without web pages is spared it

        try:
            return WebProfile(
                broker,
                loop,
                port=self._configured_web_port,
                dialog=self._web_profile_dialog,
                mtypes=self._web_profile_mtypes,
            )
        except OSError as error:
            log.warning(
                "Web pages are not served, everything else is: port %d cannot be listened on (%s). Most likely another "
                "SAMP hub has it, in TOPCAT or Aladin for instance.",
                self._configured_web_port,
                error.strerror or error,
            )
            return None


if __name__ == "__main__":
    from pyvo.samp.cli.hub import main

    sys.exit(main())
