# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp hub`` runs a hub, and so do ``samp_hub`` and ``python -m pyvo.samp.hub``, as in astropy and pyvo."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from ..constants import SAFE_MTYPES
from ..errors import SAMPError
from ..hub import SAMPHubServer
from ..web_profile.consent_prompts import make_prompt
from .arguments import Command, add_consent_option, consent_prompt, pattern, port, seconds
from .hub_monitor import ScreenLogHandler, ScreenPausingPrompt, TrafficScreen
from .main import load_command, run_command
from .output import CleanFormatter, Status, help_epilog, sanitize

log = logging.getLogger(__name__)

_EXAMPLES = """\
  samp hub                    a hub that all your SAMP programs find, until ^C
  samp hub --monitor          with a live table of clients and messages
  samp hub --window           with a window in your browser that shows them
  samp hub -m -l experiment   another hub beside it, in ~/.samp-1
  samp hub --web-consent allow-origin https://example.org
                              pages from there and no others, without asking
"""

_EPILOG = help_epilog(
    _EXAMPLES,
    {
        0: "it was stopped, for example by ^C or SIGTERM",
        1: "it could not start; perhaps another hub is running",
        130: None,
        141: "the output pipe of --monitor was closed, for example by head",
        143: None,
    },
)

#: The limit of open files (mostly sockets) to set. Without special configuration, systems allow no more.
_MAX_FILES = 10_240
_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
_LEVELS |= {"CRITICAL": logging.CRITICAL, "OFF": logging.CRITICAL + 1}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    hub = parser.add_argument_group("the hub")
    hub.add_argument("-k", "--secret", help="the secret with which clients register (default: a new one)")
    hub.add_argument("-d", "--addr", help="address to listen on (default: 127.0.0.1, this machine only)")
    hub.add_argument("-p", "--port", type=port, default=0, help="port to listen on (default: a free one)")
    hub.add_argument("-f", "--lockfile", help="path of the lockfile (default: what SAMP_HUB names, or ~/.samp)")
    hub.add_argument(
        "-w", "--no-web-profile", dest="web_profile", action="store_false", help="do not let web pages connect"
    )
    hub.add_argument("-P", "--pool-size", type=int, default=20, help="accepted for old scripts; has no effect")
    hub.add_argument(
        "-t",
        "--timeout",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="stop after this time without activity (0: never)",
    )
    hub.add_argument(
        "-c",
        "--client-timeout",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="disconnect a client after this time without activity (0: never)",
    )
    hub.add_argument("-l", "--label", default="", help="a name for this hub, written into its lockfile")
    hub.add_argument(
        "-m",
        "--multi",
        dest="mode",
        action="store_const",
        const="multiple",
        default="single",
        help="run beside other hubs, with a lockfile in ~/.samp-1",
    )
    hub.add_argument(
        "--web-port",
        type=port,
        default=21012,
        help="port for web pages (default: %(default)s, the only one that pages try; 0: a free one)",
    )
    add_consent_option(hub)
    hub.add_argument(
        "--web-mtypes",
        nargs="+",
        type=pattern,
        default=[],
        metavar="PATTERN",
        help="more MTypes or wildcards that web pages may send, such as 'script.*' (always allowed: those for tables, "
        "images, positions, ...); '*' lifts the restriction",
    )
    hub.add_argument(
        "--no-web-upload",
        dest="web_upload",
        action="store_false",
        help="do not let web pages store files for other programs (by default up to 4 GiB while a page is connected)",
    )
    hub.add_argument(
        "--monitor", action="store_true", help="show clients and messages: a live table on a terminal, lines elsewhere"
    )
    hub.add_argument(
        "--window", action="store_true", help="show clients and messages in the hub window, which opens in your browser"
    )
    hub.add_argument(
        "--no-browser", action="store_true", help="print the link to the hub window instead of opening a browser"
    )
    log_group = parser.add_argument_group("logging")
    log_group.add_argument(
        "-L",
        "--log-level",
        type=str.upper,
        choices=list(_LEVELS),
        default="INFO",
        metavar="LEVEL",
        help=f"log messages from this level up: {', '.join(_LEVELS)} (default: %(default)s)",
    )
    log_group.add_argument("-O", "--log-output", metavar="FILE", help="file for the log (default: standard error)")


def _run(options: argparse.Namespace) -> Status:
    dialog = consent_prompt(options)
    _allow_many_files()
    screen = TrafficScreen(f"SAMP hub {options.label}".rstrip()) if options.monitor else None
    try:
        with _logging(options, screen):
            if screen is None:
                _make_hub(options, dialog, partial(print, flush=True)).start(wait=True)
            else:
                _run_with_monitor(options, dialog, screen)
    except BrokenPipeError:
        raise
    except (SAMPError, OSError) as error:
        print(f"{options.parser.prog}: {sanitize(str(error), 1000)}", file=sys.stderr)
        return Status.FAILED
    except (KeyboardInterrupt, SystemExit):  # how a hub is stopped, see SAMPHubServer.start
        pass
    return Status.OK


def _allow_many_files() -> None:
    """Raise the limit of open files, usually 1024 or less. Only a program may do that, not a library."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard < 0 else min(_MAX_FILES, hard)
    if 0 <= soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.debug("The hub cannot have %d files open: %s", wanted, error)


def _make_hub(options: argparse.Namespace, dialog: Any, show_link: Callable[[str], object]) -> SAMPHubServer:
    hub = SAMPHubServer(
        secret=options.secret,
        addr=options.addr,
        port=options.port,
        lockfile=options.lockfile,
        timeout=options.timeout,
        client_timeout=options.client_timeout,
        mode=options.mode,
        label=options.label,
        web_profile=options.web_profile,
        web_profile_dialog=dialog,
        web_port=options.web_port,
        web_profile_mtypes=[*SAFE_MTYPES, *options.web_mtypes],
        web_profile_upload=options.web_upload,
        pool_size=options.pool_size,
    )
    if options.window or options.no_browser or options.web_consent[0] == "window":

        def open_window() -> None:
            url = hub.open_window(not options.no_browser)
            if options.no_browser:
                show_link(url)

        hub.on_started = open_window
    return hub


def _run_with_monitor(options: argparse.Namespace, dialog: Any, screen: TrafficScreen) -> None:
    if dialog == "terminal":
        dialog = ScreenPausingPrompt(screen, make_prompt(dialog))
    hub = _make_hub(options, dialog, lambda url: screen.on_log(f"{url} opens the hub window, for a minute"))
    hub.observer = screen.on_traffic
    screen.on_pipe_closed = hub.stop
    screen.start()
    try:
        hub.start(wait=True)
    finally:
        screen.stop()
    if screen.pipe_closed:
        raise BrokenPipeError


@contextmanager
def _logging(options: argparse.Namespace, screen: TrafficScreen | None) -> Iterator[None]:
    """Write the log to the file, to the monitor, or to standard error."""
    handler: logging.Handler
    if options.log_output:
        handler = logging.FileHandler(options.log_output)
    elif screen is not None:
        handler = ScreenLogHandler(screen)
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(CleanFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger("pyvo.samp")
    before = root.level, root.propagate
    root.setLevel(_LEVELS[options.log_level])
    root.addHandler(handler)
    root.propagate = False
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(before[0])
        root.propagate = before[1]


COMMANDS = {"hub": Command(_add_arguments, _run, _EPILOG)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``samp_hub`` with the arguments, by default those of the command line, and return the exit status."""
    _command, parser = load_command("hub")
    parser.prog = "samp_hub"
    parser.description = "Run a SAMP hub, which lets programs on this computer exchange tables, images and positions."
    parser.epilog = _EPILOG.replace("samp hub", "samp_hub")
    return run_command(lambda: parser.parse_args(arguments))
