# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The hub: `SAMPHubServer`. Run as a program (``python -m pyvo.samp.hub``) it is a hub until it is interrupted.

One life of a hub, from its start to its stop.

Theory of operation
-------------------
Order matters at both ends. At the start everything must be ready before the lockfile tells others of it: whoever
reads the lockfile may call at once, and another hub that is starting pings. At the stop the lockfile goes first,
while pings are still answered; then the clients are told, and what is on its way to them gets a moment; then open
calls end with an answer; then the sockets close. A client that takes no deliveries any more can cost that moment, and
no more.
"""

from __future__ import annotations

import atexit
import html
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .broker import Broker, Traffic
from .errors import SAMPHubError
from .lockfile import display_path
from .lockfile_writer import default_lockfile, multi_hub_lockfile, owns_lockfile, remove_lockfile, write_lockfile
from .process_events import SignalSafeEvent, register_after_fork, signals_as_exit
from .protocol import subtypes
from .standard_profile.profile import StandardProfile
from .transport.event_loop import EventLoop, Timer
from .transport.urls import validate_port
from .web_profile.consent_prompts import WebProfileDialog, WindowPrompt, make_prompt

if TYPE_CHECKING:
    from .web_profile.consent_prompts import WindowPrompt
    from .web_profile.profile import WebProfile
    from .window.server import WindowServer

__all__ = ["HubOptions", "RunningHub", "SAMPHubServer", "WebProfileDialog"]

log = logging.getLogger(__name__)

#: Seconds that clients have to take what is on its way to them when the hub stops.
DRAIN_TIMEOUT = 0.8
#: Seconds that the hub's threads have to end. Together with the above well below two seconds.
JOIN_TIMEOUT = 0.6
#: Seconds between two looks at whether the lockfile is still there.
LOCKFILE_CHECK_INTERVAL = 60.0

PROFILE_VERSION = "1.3"


class HubOptions(NamedTuple):
    """What one life of a hub needs to know; the meanings are those of `SAMPHubServer`."""

    hub_id: str
    label: str
    secret: str | None
    address: tuple[str, int]
    lockfile: Path
    timeout: float
    client_timeout: float
    #: Makes the Web Profile's server; None where it is not wanted.
    make_web_profile: Callable[[Broker, EventLoop], WebProfile | None] | None


class RunningHub:
    """
    A hub that runs.

    Parameters
    ----------
    options : SessionOptions
        How it runs.
    """

    def __init__(self, options: HubOptions) -> None:
        self._options = options
        self._closing = threading.Lock()  # taken by whoever closes first, and never given back
        self._withdrawing = threading.Lock()  # the same for the lockfile
        self._timers: list[Timer] = []
        self._announced = False  # by the lockfile
        self.closed = SignalSafeEvent()
        self.params: dict[str, str] = {}
        self.broker = Broker()
        self.loop = EventLoop("samp-hub", lingers=True)
        self.standard: StandardProfile | None = None
        self.web: WebProfile | None = None
        self._window: WindowServer | None = None
        self._opening_window = threading.RLock()  # a signal handler that stops the hub may come in between

    @property
    def is_running(self) -> bool:
        """Whether others can find the hub."""
        return self._announced and not self.is_closing

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing.locked()

    # The hub window

    def window(self, prompt: WindowPrompt | None) -> WindowServer:
        """
        Return the server of the hub window; the first call starts it.

        Parameters
        ----------
        prompt : WindowPrompt or None
            The consent requests that the window shows, if it is asked for consent.

        Raises
        ------
        SAMPHubError
            The hub does not run, or no port can be listened on.
        """
        from .window.server import WindowServer  # noqa: PLC0415 - a hub without a window is spared it

        with self._opening_window:
            if not self.is_running:
                raise SAMPHubError("The hub does not run: start it before its window is opened.")
            if self._window is None:
                try:
                    window = WindowServer(
                        self.broker, prompt, self._describe, lambda: self.loop.run_in_worker(self.close)
                    )
                except OSError as error:
                    raise SAMPHubError(f"The hub window cannot be served: {error.strerror or error}") from error
                window.start()
                self._window = window
                if not self.is_running:  # a signal handler came in between
                    window.stop()
            return self._window

    def _describe(self) -> dict[str, Any]:
        """Tell what the hub window shows of the hub."""
        web = "not served: it is switched off, or its port is taken" if self.web is None else f"port {self.web.port}"
        return {
            "label": self._options.label,
            "profiles": [
                {"name": "Standard Profile", "on": True, "detail": f"lockfile {display_path(self._options.lockfile)}"},
                {"name": "Web Profile", "on": self.web is not None, "detail": web},
            ],
        }

    # The beginning

    def open(self) -> None:
        """
        Start to serve, and tell others by the lockfile.

        Raises
        ------
        SAMPHubError
            Another hub is running, or something that is needed cannot be had. Then nothing runs.
        """
        try:
            self._start_serving()
            write_lockfile(self._options.lockfile, self.params)
            self._announced = True
            _running.add(self)
            if self.is_closing:  # by a signal handler, say, before there was a lockfile to be removed
                self._remove_lockfile()
                _running.discard(self)
            else:
                self._start_timers()
                log.info("The hub is running")
        except BaseException:
            if owns_lockfile(self._options.lockfile, self.params):  # ^C came when it was in its place already
                self._remove_lockfile()
            self.close()
            raise

    def _start_serving(self) -> None:
        options = self._options
        secret = options.secret or secrets.token_hex(16)
        self.loop.start()
        try:
            self.standard = StandardProfile(self.broker, self.loop, secret, options.address)
        except OSError as error:
            host, port = options.address
            raise SAMPHubError(
                f"The hub cannot listen on {host}:{port}: {error.strerror or error}. Give it another address or port; "
                "port 0 takes a free one."
            ) from error
        self.params = {
            "samp.secret": secret,
            "samp.hub.xmlrpc.url": self.standard.url,
            "samp.profile.version": PROFILE_VERSION,
            "hub.id": options.hub_id,
            "hub.label": options.label,
        }
        self.standard.start()
        log.info("The hub serves the Standard Profile on port %d", self.standard.port)
        if options.make_web_profile is not None:
            self.web = options.make_web_profile(self.broker, self.loop)

    # While it runs

    def _start_timers(self) -> None:
        """Set the timers of the time-outs and of the look at the lockfile. Each waits for when something can be due."""
        if self._options.timeout > 0:
            self._check_activity()
        if self._options.client_timeout > 0:
            self._check_clients()
        self._schedule(LOCKFILE_CHECK_INTERVAL, self.loop.run_in_worker, self._check_lockfile)

    def _schedule(self, delay: float, function: Callable[..., object], *args: object) -> None:
        self._timers = [timer for timer in self._timers if timer.active]
        self._timers.append(self.loop.call_later(delay, function, *args))

    def _check_activity(self) -> None:
        left = self.broker.last_active + self._options.timeout - time.monotonic()
        if any(client.pending_sent for client in self.broker.clients()):  # and those whom they wait for may be at work
            self._schedule(self._options.timeout, self._check_activity)
        elif left > 0:
            self._schedule(left, self._check_activity)
        else:
            log.info("The hub stops: nobody has used it for %g s", self._options.timeout)
            self.loop.run_in_worker(self.close)

    def _check_clients(self) -> None:
        limit = self._options.client_timeout
        now = time.monotonic()
        wait = limit
        for client in self.broker.clients():
            left = client.last_active + limit - now
            if left > 0:
                wait = min(wait, left)
            elif not (client.pending_sent or client.pending_received or getattr(client.mailbox, "is_pulled", False)):
                # who waits for an answer, works on one, or is a page that waits, is there
                self.broker.disconnect(client, f"it was silent for {limit:g} s")
        self._schedule(wait, self._check_clients)

    def _check_lockfile(self) -> None:
        """Tell the log, once, when the lockfile is gone: clients that are connected would never notice."""
        if self.is_closing:
            return
        if owns_lockfile(self._options.lockfile, self.params):
            self._schedule(LOCKFILE_CHECK_INTERVAL, self.loop.run_in_worker, self._check_lockfile)
        else:
            log.warning(
                "The lockfile of this hub was removed or changed by somebody else. Clients that are connected are "
                "served, but new ones do not find this hub: stop it and start it again."
            )

    # The end

    def close(self) -> None:
        """Tell everybody, and stop. Bounded in time; safe to repeat, and from any thread or signal handler."""
        if self.loop.in_loop():
            self.loop.run_in_worker(self.close)
            return
        if not self._closing.acquire(blocking=False):
            self.closed.wait(DRAIN_TIMEOUT + JOIN_TIMEOUT)
            return
        try:
            if self.standard is not None and self._announced:
                self._shut_down_clients(self.standard)
        finally:
            self._stop_serving()
            _running.discard(self)
            self.closed.set()
            if self._announced:
                log.info("The hub has stopped")

    def wait_closed(self) -> None:
        """Wait until the hub has been stopped, by whomever."""
        # On Windows ^C does not end a wait without limit
        while not self.closed.wait(1.0 if os.name == "nt" else None):
            continue

    def _remove_lockfile(self) -> None:
        """Remove the lockfile, once: whoever starts the hub and whoever stops it may come here at the same time."""
        if self._withdrawing.acquire(blocking=False):
            remove_lockfile(self._options.lockfile, self.params)

    def _shut_down_clients(self, standard: StandardProfile) -> None:
        self._remove_lockfile()
        self.broker.announce_shutdown()
        end = time.monotonic() + DRAIN_TIMEOUT
        standard.wait_until_delivered(DRAIN_TIMEOUT)
        if self.web is not None:
            self.web.wait_until_delivered(max(0.0, end - time.monotonic()))
        self.broker.close()

    def _stop_serving(self) -> None:
        with self._opening_window:  # none can be opened any more
            window = self._window
        if window is not None:
            window.stop()
        for timer in self._timers:
            timer.cancel()
        for profile in (self.web, self.standard):
            if profile is not None:
                self.loop.call_soon(profile.stop)
        self.loop.stop(JOIN_TIMEOUT)

    def after_fork_in_child(self) -> None:
        """Let go of everything without a word to anybody: for the child of a fork, whose parent goes on as the hub."""
        self._closing.acquire(blocking=False)
        _running.discard(self)
        if self._window is not None:
            self._window.after_fork_in_child()
        self.loop.after_fork_in_child()
        self.closed.set()


#: Those who must take leave before the interpreter ends.
_running: set[RunningHub] = set()


@atexit.register
def _close_at_exit() -> None:
    for session in list(_running):
        session.close()


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
        How the user is asked: ``"terminal"`` (the default), ``"tk"``, ``"window"`` (the hub window, see `open_window`),
        ``"deny"``, a function, or a dialog.
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
        prompt = make_prompt(web_profile_dialog) if web_profile else None  # raises what is wrong with it
        self._id = secrets.token_hex(8)
        self._secret = secret
        self._address = ("127.0.0.1" if addr in {None, "", "localhost"} else str(addr), validate_port(port))
        self._lockfile = lockfile
        self._timeout = timeout
        self._client_timeout = client_timeout
        self._mode = mode
        self._label = label
        self._web_profile = web_profile
        self._web_profile_dialog = web_profile_dialog
        self._prompt: WindowPrompt | None = None
        if isinstance(prompt, WindowPrompt):
            self._web_profile_dialog = self._prompt = prompt
            prompt.on_request = self._open_window_if_closed
        self._use_browser = True
        self._configured_web_port = validate_port(web_port)
        self._web_profile_mtypes = None if web_profile_mtypes is None else list(web_profile_mtypes)
        self._starting = threading.Lock()
        self._session: RunningHub | None = None
        #: Called with each `~pyvo.samp.broker.Traffic`, in the hub's thread, which it must not hold up. To be set
        #: before the start, by whoever shows a person what goes on.
        self.watcher: Callable[[Traffic], object] | None = None
        #: Called when the hub has started, in the thread of `start`. To be set before the start.
        self.on_started: Callable[[], object] = lambda: None
        register_after_fork(self)

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

    def _repr_html_(self) -> str:
        """Describe the hub in a notebook, with a link to its window while it runs."""
        text = f"SAMP hub {html.escape(self._label)}".rstrip()
        session = self._session
        if session is None or not session.is_running:
            return f"<p>{text}: stopped</p>"
        url, _ = session.window(self._prompt).open(browser=False)
        link = f'<a href="{html.escape(url)}" target="_blank" rel="noopener noreferrer">Open the hub window</a>'
        return f"<p>{text}: running. {link} (this link is good once, within a minute)</p>"

    # The hub window

    def open_window(self, browser: bool = True) -> str:
        """
        Open the hub window: a page in the user's browser that shows the clients and their messages.

        The hub serves it on a port of its own, to this user of this machine alone. It may be opened several times.

        Parameters
        ----------
        browser : bool
            Whether to open the user's browser. Where that fails, the link is printed to standard error.

        Returns
        -------
        str
            A link to the window. It is good once, within a minute.

        Raises
        ------
        SAMPHubError
            The hub does not run, or the window cannot be served.
        """
        session = self._session
        if session is None:
            raise SAMPHubError("The hub does not run: start it before its window is opened.")
        self._use_browser = browser
        url, opened = session.window(self._prompt).open(browser=browser)
        if browser and not opened:
            print(f"No browser could be opened. Open this within a minute: {url}", file=sys.stderr)  # noqa: T201
        return url

    def _open_window_if_closed(self) -> None:
        """Show the window to the user, who is asked for consent there."""
        session = self._session
        if session is None or session.window(self._prompt).is_watched:
            return
        url = self.open_window(self._use_browser)
        if not self._use_browser:
            print(f"A web page asks for consent. Open this within a minute: {url}", file=sys.stderr)  # noqa: T201

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
        with signals_as_exit():
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

    def after_fork_in_child(self) -> None:
        """Forget the hub in the child of a fork: it runs in the parent."""
        session, self._session = self._session, None
        self._starting = threading.Lock()
        if session is not None:
            session.after_fork_in_child()

    def _open(self) -> RunningHub:
        with self._starting:
            if self.is_running:
                raise SAMPHubError("This hub is running already; make another SAMPHubServer for a second one.")
            if self._session is not None:
                self._session.close()  # which may be under way in another thread
            session = RunningHub(self._options())
            session.broker.observer = self.watcher
            self._session = session  # before it is open: a signal handler may want to stop it
            session.open()
        try:
            if session.is_running:
                self.on_started()
        except BaseException:
            session.close()
            raise
        return session

    def _options(self) -> HubOptions:
        if self._lockfile is not None:
            lockfile = Path(self._lockfile).expanduser().absolute()  # the program may change its directory
        elif self._mode == "multiple":
            lockfile = multi_hub_lockfile(f"{os.getpid()}-{self._id}")
        else:
            lockfile = default_lockfile()
        return HubOptions(
            hub_id=self._id,
            label=self._label,
            secret=self._secret,
            address=self._address,
            lockfile=lockfile,
            timeout=self._timeout,
            client_timeout=self._client_timeout,
            make_web_profile=self._make_web_profile if self._web_profile else None,
        )

    def _make_web_profile(self, broker: Broker, loop: EventLoop) -> WebProfile | None:
        from .web_profile.profile import WebProfile  # noqa: PLC0415 - a hub without web pages is spared it

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
    from .cli.hub import main

    sys.exit(main())
