# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The hub: `SAMPHubServer` runs the broker and the profiles, and manages the lockfile.

``python -m pyvo.samp.hub`` runs a hub until it is interrupted.

Theory of operation
-------------------
The order of the steps matters when a hub starts and when it stops.

All servers must be ready before the hub writes the lockfile, because a client that reads the lockfile may call at once,
and another hub that starts may send a ping.

A hub that stops first removes the lockfile, while it still responds to pings. Then it notifies the clients and waits up
to `DRAIN_TIMEOUT` for the deliveries to them. Then it ends the pending calls with an error response. Finally it closes
the sockets. A client that no longer accepts deliveries delays the stop by at most `DRAIN_TIMEOUT`.
"""

from __future__ import annotations

import atexit
import html
import importlib
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from .web_profile.profile import WebProfile
    from .window.server import WindowServer

__all__ = ["RunningHub", "SAMPHubServer", "WebProfileDialog"]

log = logging.getLogger(__name__)

#: Seconds to wait for the last deliveries to clients when the hub stops.
DRAIN_TIMEOUT = 0.8
#: Seconds to wait for the hub's threads to end. The sum of both is well below two seconds.
JOIN_TIMEOUT = 0.6
#: Seconds between checks that the lockfile still belongs to the hub.
LOCKFILE_CHECK_INTERVAL = 60.0

PROFILE_VERSION = "1.3"


@dataclass(frozen=True)
class HubOptions:
    """The checked parameters of `SAMPHubServer`."""

    hub_id: str
    secret: str | None
    address: tuple[str, int]
    lockfile: str | os.PathLike[str] | None
    timeout: float
    client_timeout: float
    mode: str
    label: str
    web_profile: bool
    web_profile_dialog: Any
    web_port: int
    web_profile_mtypes: list[str] | None
    web_profile_upload: bool

    def lockfile_path(self) -> Path:
        """Return the path of the hub's lockfile; call this when the hub starts."""
        if self.lockfile is not None:
            return Path(self.lockfile).expanduser().absolute()  # the program may change its working directory
        if self.mode == "multiple":
            return multi_hub_lockfile(f"{os.getpid()}-{self.hub_id}")
        return default_lockfile()


class RunningHub:
    """A hub from its start to its stop. Each start of a `SAMPHubServer` creates a new instance."""

    def __init__(self, options: HubOptions, observer: Callable[[Traffic], object] | None) -> None:
        self._options = options
        self._lockfile = options.lockfile_path()
        self._close_lock = threading.Lock()  # acquired by the first `close` and never released
        self._remove_lock = threading.Lock()  # in the same way for the removal of the lockfile
        self._timers: list[Timer] = []
        self._announced = False  # whether the lockfile has been written
        self.closed = SignalSafeEvent()
        self.params: dict[str, str] = {}
        self.broker = Broker()
        self.broker.observer = observer
        self.loop = EventLoop("samp-hub", busy_poll=True)
        self.standard: StandardProfile | None = None
        self.web: WebProfile | None = None
        self._window: WindowServer | None = None
        self._window_lock = threading.RLock()  # a signal handler may stop the hub while its thread opens the window
        dialog = options.web_profile_dialog
        self.prompt = dialog if isinstance(dialog, WindowPrompt) else None

    @property
    def is_running(self) -> bool:
        """Whether clients can find the hub."""
        return self._announced and not self.is_closing

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._close_lock.locked()

    # The hub window

    def window(self) -> WindowServer:
        """Return the server of the hub window; the first call starts it. Raise `SAMPHubError` if that fails."""
        from .window.server import WindowServer  # noqa: PLC0415 - only a hub with a window needs it

        with self._window_lock:
            if not self.is_running:
                raise SAMPHubError("The hub is not running: start it before you open its window.")
            if self._window is None:
                try:
                    window = WindowServer(
                        self.broker, self.prompt, self._describe, lambda: self.loop.run_in_worker(self.close)
                    )
                except OSError as error:
                    raise SAMPHubError(f"The hub window cannot be served: {error.strerror or error}") from error
                window.start()
                self._window = window
                if not self.is_running:  # a signal handler has stopped the hub
                    window.stop()
            return self._window

    def _describe(self) -> dict[str, Any]:
        """Return the label and the profiles of the hub, which the hub window shows."""
        web = "not available (disabled, or its port is in use)" if self.web is None else f"port {self.web.port}"
        return {
            "label": self._options.label,
            "profiles": [
                {"name": "Standard Profile", "on": True, "detail": f"lockfile {display_path(self._lockfile)}"},
                {"name": "Web Profile", "on": self.web is not None, "detail": web},
            ],
        }

    # Opening

    def open(self) -> None:
        """Open the servers and write the lockfile. If that fails, close everything and raise `SAMPHubError`."""
        try:
            self.loop.start()
            self._open_servers()
            write_lockfile(self._lockfile, self.params)
            self._announced = True
            _running_hubs.add(self)
            if self.is_closing:  # a signal handler may have closed the hub before the lockfile existed
                self._remove_lockfile()
                _running_hubs.discard(self)
            else:
                self._start_timers()
                log.info("The hub is running")
        except BaseException:
            if owns_lockfile(self._lockfile, self.params):  # ^C came after the lockfile was written
                self._remove_lockfile()
            self.close()
            raise

    def _open_servers(self) -> None:
        options = self._options
        secret = options.secret or secrets.token_hex(16)
        try:
            self.standard = StandardProfile(self.broker, self.loop, secret, options.address)
        except OSError as error:
            host, port = options.address
            raise SAMPHubError(
                f"The hub cannot listen on {host}:{port}: {error.strerror or error}. Use another address or port; "
                "with port 0, the system chooses a free port."
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
        if options.web_profile:
            self._open_web_profile()

    def _open_web_profile(self) -> None:
        from .web_profile.profile import WebProfile  # noqa: PLC0415 - a hub without the Web Profile does not need it

        options = self._options
        try:
            self.web = WebProfile(
                self.broker,
                self.loop,
                port=options.web_port,
                dialog=options.web_profile_dialog,
                mtypes=options.web_profile_mtypes,
                upload=options.web_profile_upload,
            )
        except OSError as error:
            log.warning(
                "The hub runs without the Web Profile, because it cannot listen on port %d (%s). Another SAMP hub, for "
                "example in TOPCAT or Aladin, is probably using that port.",
                options.web_port,
                error.strerror or error,
            )

    # Timers

    def _start_timers(self) -> None:
        """Start the timers for the timeouts and the lockfile check. Each timer fires when a check may be due."""
        if self._options.timeout > 0:
            self._check_activity()
        if self._options.client_timeout > 0:
            self._check_clients()
        self._schedule(LOCKFILE_CHECK_INTERVAL, self.loop.run_in_worker, self._check_lockfile)

    def _schedule(self, delay: float, function: Callable[..., object], *args: object) -> None:
        self._timers = [timer for timer in self._timers if timer.active]
        self._timers.append(self.loop.call_later(delay, function, *args))

    def _check_activity(self) -> None:
        remaining = self.broker.last_active + self._options.timeout - time.monotonic()
        if any(client.pending_sent for client in self.broker.clients()):  # the recipient may be processing the message
            self._schedule(self._options.timeout, self._check_activity)
        elif remaining > 0:
            self._schedule(remaining, self._check_activity)
        else:
            log.info("The hub stops because no client has used it for %g s", self._options.timeout)
            self.loop.run_in_worker(self.close)

    def _check_clients(self) -> None:
        limit = self._options.client_timeout
        now = time.monotonic()
        wait = limit
        for client in self.broker.clients():
            remaining = client.last_active + limit - now
            if remaining > 0:
                wait = min(wait, remaining)
            elif not (
                # a client that waits for a response or for callbacks, or that has to reply, is not silent
                client.pending_sent
                or client.pending_received
                or (self.web is not None and self.web.has_waiting_pull(client))
            ):
                self.broker.disconnect(client, f"it was silent for {limit:g} s")
        self._schedule(wait, self._check_clients)

    def _check_lockfile(self) -> None:
        """Log a warning once if the lockfile is lost, because connected clients do not notice this."""
        if self.is_closing:
            return
        if owns_lockfile(self._lockfile, self.params):
            self._schedule(LOCKFILE_CHECK_INTERVAL, self.loop.run_in_worker, self._check_lockfile)
        else:
            log.warning(
                "Another program has removed or changed the lockfile of this hub. Connected clients are still served, "
                "but new clients cannot find the hub: stop it and start it again."
            )

    # Closing

    def close(self) -> None:
        """Notify clients and close servers within a limited time. Can be repeated, in any thread or signal handler."""
        if self.loop.in_loop():
            self.loop.run_in_worker(self.close)
            return
        if not self._close_lock.acquire(blocking=False):
            self.closed.wait(DRAIN_TIMEOUT + JOIN_TIMEOUT)
            return
        try:
            if self.standard is not None and self._announced:
                self._shut_down_clients(self.standard)
        finally:
            self._close_servers()
            _running_hubs.discard(self)
            self.closed.set()
            if self._announced:
                log.info("The hub has stopped")

    def _remove_lockfile(self) -> None:
        """Remove the lockfile once. `open` and `close` may call this at the same time."""
        if self._remove_lock.acquire(blocking=False):
            remove_lockfile(self._lockfile, self.params)

    def _shut_down_clients(self, standard: StandardProfile) -> None:
        self._remove_lockfile()
        self.broker.announce_shutdown()
        end = time.monotonic() + DRAIN_TIMEOUT
        standard.wait_until_delivered(DRAIN_TIMEOUT)
        if self.web is not None:
            self.web.wait_until_delivered(max(0.0, end - time.monotonic()))
        self.broker.close()

    def _close_servers(self) -> None:
        with self._window_lock:  # no window can be opened after this
            window = self._window
        if window is not None:
            window.stop()
        for timer in self._timers:
            timer.cancel()
        for profile in (self.web, self.standard):
            if profile is not None:
                self.loop.call_soon(profile.stop)
        self.loop.stop(JOIN_TIMEOUT)
        if self.web is not None:
            self.web.remove_files()

    def after_fork_in_child(self) -> None:
        """Release all resources without notifying clients. The parent process continues to run the hub."""
        self._close_lock.acquire(blocking=False)
        _running_hubs.discard(self)
        if self._window is not None:
            self._window.after_fork_in_child()
        self.loop.after_fork_in_child()
        self.closed.set()


#: Hubs to close before the interpreter exits.
_running_hubs: set[RunningHub] = set()


@atexit.register
def _close_at_exit() -> None:
    for running in list(_running_hubs):
        running.close()


class SAMPHubServer:
    """
    A SAMP hub, through which programs exchange messages.

    Parameters
    ----------
    secret : str, optional
        The secret that clients need to register and that they read from the lockfile. By default, each start creates a
        new secret.
    addr : str, optional
        Address to listen on; by default 127.0.0.1, which is reachable only from this machine.
    port : int
        Port of the Standard Profile; with 0, the system chooses a free port.
    lockfile : str or path, optional
        Path of the lockfile; by default the path that clients use, from ``SAMP_HUB`` or else ``~/.samp``.
    timeout : float
        The hub stops after this many seconds without activity; 0 for no limit.
    client_timeout : float
        The hub disconnects a client that has made no request and acknowledged no message for this many seconds, unless
        it has a pending call or pulls messages; 0 for no limit.
    mode : {"single", "multiple"}
        With ``"multiple"``, the lockfile is in the directory ``~/.samp-1``, so that any number of hubs can run.
    label : str
        A name for the hub, written into the lockfile.
    web_profile : bool
        Whether web pages can register, if the user agrees.
    web_profile_dialog : str, callable or WebProfileDialog, optional
        How the hub asks the user for consent: ``"terminal"`` (the default), ``"tk"``, ``"window"`` (the hub window, see
        `open_window`), ``"deny"``, a function, or a dialog.
    web_port : int
        Port of the Web Profile. Web pages expect 21012; with 0, the system chooses a free port.
    pool_size : int
        Accepted for compatibility; ignored. The hub keeps as many connections as it needs.
    web_profile_mtypes : iterable of str, optional
        MTypes that web pages may send; by default `~pyvo.samp.constants.SAFE_MTYPES`. ``["*"]`` allows all.
    web_profile_upload : bool
        Whether a web page that the user has allowed can store files for other clients: up to 4 GiB in a private
        temporary directory, which is removed when the page unregisters.

    Raises
    ------
    TypeError, ValueError
        ``mode``, a port or ``web_profile_dialog`` is invalid.
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
        web_profile_upload: bool = True,
    ) -> None:
        if mode not in {"single", "multiple"}:
            raise ValueError(f"The mode of a hub must be 'single' or 'multiple', not {mode!r}")
        prompt = make_prompt(web_profile_dialog) if web_profile else None  # raises errors here and not in `start`
        if isinstance(prompt, WindowPrompt):
            web_profile_dialog = prompt
            prompt.on_request = self._open_window_if_closed
        self._options = HubOptions(
            hub_id=secrets.token_hex(8),
            secret=secret,
            address=("127.0.0.1" if addr in {None, "", "localhost"} else str(addr), validate_port(port)),
            lockfile=lockfile,
            timeout=timeout,
            client_timeout=client_timeout,
            mode=mode,
            label=label,
            web_profile=web_profile,
            web_profile_dialog=web_profile_dialog,
            web_port=validate_port(web_port),
            web_profile_mtypes=None if web_profile_mtypes is None else list(web_profile_mtypes),
            web_profile_upload=web_profile_upload,
        )
        self._start_lock = threading.Lock()
        self._running: RunningHub | None = None
        self._use_browser = True
        #: A function that is called with each `~pyvo.samp.broker.Traffic`, for example to show the traffic. It is
        #: called in the hub's thread and must not block. Set it before `start`.
        self.observer: Callable[[Traffic], object] | None = None
        #: A function that `start` calls when the hub has started. Set it before `start`.
        self.on_started: Callable[[], object] = lambda: None
        register_after_fork(self)

    # State

    @property
    def id(self) -> str:
        """An identifier of this hub among all hubs; this is not its client id."""
        return self._options.hub_id

    @property
    def is_running(self) -> bool:
        """Whether the hub is running."""
        running = self._running
        return running is not None and running.is_running

    @property
    def params(self) -> dict[str, str]:
        """The content of the lockfile while the hub runs; it includes the secret."""
        running = self._running
        return dict(running.params) if running is not None and running.is_running else {}

    @property
    def web_profile_running(self) -> bool:
        """Whether web pages can find the hub. If not, the log has the reason: another program may use the port."""
        running = self._running
        return running is not None and running.is_running and running.web is not None

    @property
    def _web_port(self) -> int:
        running = self._running
        web = running.web if running is not None else None
        return web.port if web is not None else self._options.web_port

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
        name = self._options.label or self._options.hub_id
        return f"<SAMPHubServer {name}, {'running' if self.is_running else 'stopped'}>"

    def _repr_html_(self) -> str:
        """Describe the hub in a notebook, with a link to its window while it runs."""
        text = f"SAMP hub {html.escape(self._options.label)}".rstrip()
        running = self._running
        if running is None or not running.is_running:
            return f"<p>{text}: stopped</p>"
        url, _ = running.window().open(browser=False)
        link = f'<a href="{html.escape(url)}" target="_blank" rel="noopener noreferrer">Open the hub window</a>'
        return f"<p>{text}: running. {link} (the link works once, within a minute)</p>"

    # The hub window

    def open_window(self, browser: bool = True) -> str:
        """
        Open the hub window: a page in the user's browser that shows the clients and their messages.

        The hub serves the page on a separate port, only to this user on this machine. The window can be opened several
        times.

        Parameters
        ----------
        browser : bool
            Whether to open the user's browser. If that fails, the link is printed to standard error.

        Returns
        -------
        str
            A link to the window. It works once, within a minute.

        Raises
        ------
        SAMPHubError
            The hub is not running, or the window cannot be served.
        """
        running = self._running
        if running is None:
            raise SAMPHubError("The hub is not running: start it before you open its window.")
        self._use_browser = browser
        url, opened = running.window().open(browser=browser)
        if browser and not opened:
            print(f"No browser could be opened. Open this within a minute: {url}", file=sys.stderr)  # noqa: T201
        return url

    def _open_window_if_closed(self) -> None:
        """Open a hub window for a consent request, unless a window is open."""
        running = self._running
        if running is None or running.window().is_watched:
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
            Whether to wait until the hub has stopped. During a wait in the main thread, signals that would kill the
            process (SIGTERM, SIGHUP) end the wait like ^C: the hub stops properly, and `SystemExit` or
            `KeyboardInterrupt` is raised. Without ``wait``, signals are not handled.

        Raises
        ------
        SAMPHubError
            This hub or another hub is already running, the address is in use, or the lockfile cannot be written.
        """
        if not wait:
            self._launch()
            return
        with signals_as_exit():
            running = self._launch()
            try:
                running.closed.wait()
            finally:
                self.stop()

    def stop(self) -> None:
        """
        Stop the hub: remove the lockfile, notify the clients, and end pending calls.

        This takes less than two seconds, even if clients do not respond. The method may be called more than once,
        before `start`, and from any thread, handler or signal handler.
        """
        running = self._running
        if running is not None:
            running.close()

    def after_fork_in_child(self) -> None:
        """Forget the hub in a forked child; it continues to run in the parent."""
        running, self._running = self._running, None
        self._start_lock = threading.Lock()
        if running is not None:
            running.after_fork_in_child()

    def _launch(self) -> RunningHub:
        with self._start_lock:
            if self.is_running:
                raise SAMPHubError("This hub is already running; create another SAMPHubServer for a second hub.")
            if self._running is not None:
                self._running.close()  # another thread may be closing it
            running = RunningHub(self._options, self.observer)
            self._running = running  # before `open`, because a signal handler may stop the hub
            running.open()
        try:
            if running.is_running:
                self.on_started()
        except BaseException:
            running.close()
            raise
        return running


if __name__ == "__main__":
    # `cli` has the command line and imports this module, so an import statement here would be circular.
    sys.exit(importlib.import_module("pyvo.samp.cli.hub").main())
