# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A hub as a program: ``samp hub``, and, as it was called before, ``samp_hub`` and ``python -m pyvo.samp.hub``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from ..constants import SAFE_MTYPES
from ..errors import SAMPError
from ..hub import SAMPHubServer
from ..web_profile.consent_prompts import make_prompt
from .arguments import add_consent_option, consent_prompt, pattern, port, seconds
from .hub_monitor import ScreenLogHandler, ScreenPausingPrompt, TrafficScreen
from .main import run_command
from .output import CleanFormatter, Status, help_epilog

__all__ = ["EPILOG", "add_arguments", "main", "run"]

log = logging.getLogger(__name__)

_EXAMPLES = """\
  samp hub                    a hub that all your SAMP programs find, until ^C
  samp hub --monitor          with a live table of clients and messages
  samp hub --window           with a window in your browser that shows them
  samp hub -m -l experiment   another hub beside it, in ~/.samp-1
  samp hub --web-consent allow-origin https://example.org
                              no questions: pages from there, and no others
"""

EPILOG = help_epilog(
    _EXAMPLES,
    {
        0: "it was stopped, by ^C or SIGTERM for instance",
        1: "it could not start; perhaps another hub is running",
        2: "",
        130: None,
        141: "whoever read the lines of --monitor, such as head, has had enough",
        143: None,
    },
)

#: Files that this program wants to have open, sockets above all; more than that no system gives without being set up.
_FILES = 10_240
_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
_LEVELS |= {"CRITICAL": logging.CRITICAL, "OFF": logging.CRITICAL + 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Declare the options of a hub.

    Parameters
    ----------
    parser : ArgumentParser
        Gets the options.
    """
    hub = parser.add_argument_group("the hub")
    hub.add_argument("-k", "--secret", help="what clients must know to register (default: a new one)")
    hub.add_argument("-d", "--addr", help="address to listen on (default: 127.0.0.1, this machine only)")
    hub.add_argument("-p", "--port", type=port, default=0, help="port to listen on (default: a free one)")
    hub.add_argument("-f", "--lockfile", help="where the lockfile goes (default: what SAMP_HUB names, or ~/.samp)")
    hub.add_argument(
        "-w",
        "--no-web-profile",
        dest="web_profile",
        action="store_false",
        help="do not serve web pages at all",
    )
    hub.add_argument("-P", "--pool-size", type=int, default=20, help="accepted for old scripts; has no effect")
    hub.add_argument(
        "-t",
        "--timeout",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="stop after so long without activity (0: never)",
    )
    hub.add_argument(
        "-c",
        "--client-timeout",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="disconnect a client that has been silent for so long (0: never)",
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
        help="port for web pages (default: %(default)s, where they look; 0: a free one)",
    )
    add_consent_option(hub)
    hub.add_argument(
        "--web-mtypes",
        nargs="+",
        type=pattern,
        default=[],
        metavar="PATTERN",
        help="MTypes or wildcards that web pages may send besides the harmless ones (tables, images, positions, ...), "
        "such as 'script.*'; '*' lifts the restriction",
    )
    hub.add_argument(
        "--monitor",
        action="store_true",
        help="show clients and messages: a live table on a terminal, lines elsewhere",
    )
    hub.add_argument(
        "--window",
        action="store_true",
        help="show clients and messages in the hub window, which opens in your browser",
    )
    hub.add_argument(
        "--no-browser",
        action="store_true",
        help="print the link to the hub window instead of opening a browser",
    )
    its_log = parser.add_argument_group("logging")
    its_log.add_argument(
        "-L",
        "--log-level",
        type=str.upper,
        choices=list(_LEVELS),
        default="INFO",
        metavar="LEVEL",
        help=f"how much is logged: {', '.join(_LEVELS)} (default: %(default)s)",
    )
    its_log.add_argument("-O", "--log-output", metavar="FILE", help="where the log goes (default: standard error)")


def run(options: argparse.Namespace) -> int:
    """
    Run a hub until it is stopped.

    Parameters
    ----------
    options : Namespace
        What `add_arguments` declares.

    Returns
    -------
    int
        Exit status: 0 when the hub was asked to stop, 1 when it could not start.
    """
    _allow_many_files()
    screen = TrafficScreen(f"SAMP hub {options.label}".rstrip()) if options.monitor else None
    try:
        with _logging(options, screen):
            if screen is None:
                _hub(options).start(wait=True)
            else:
                _run_with_monitor(options, screen)
    except BrokenPipeError:
        raise
    except (SAMPError, OSError) as error:
        print(f"{options.parser.prog}: {error}", file=sys.stderr)
        return Status.FAILED
    except (KeyboardInterrupt, SystemExit):  # the ways to stop a hub, see SAMPHubServer.start
        return Status.OK
    return Status.OK


def _allow_many_files() -> None:
    """Take what the system allows: most give 1024 or less unless asked, which a library must not do for its program."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard < 0 else min(_FILES, hard)
    if 0 <= soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.debug("The hub cannot have %d files open: %s", wanted, error)


def _hub(
    options: argparse.Namespace, dialog: Any = None, show_link: Callable[[str], object] | None = None
) -> SAMPHubServer:
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
        web_profile_dialog=dialog or consent_prompt(options.web_consent),
        web_port=options.web_port,
        web_profile_mtypes=[*SAFE_MTYPES, *options.web_mtypes],
        pool_size=options.pool_size,
    )
    if options.window or options.no_browser or options.web_consent[0] == "window":

        def open_window() -> None:
            url = hub.open_window(not options.no_browser)
            if not options.no_browser:
                return
            if show_link is not None:
                show_link(url)
            else:
                print(url, flush=True)

        hub.on_started = open_window
    return hub


def _run_with_monitor(options: argparse.Namespace, screen: TrafficScreen) -> None:
    dialog = consent_prompt(options.web_consent)
    if dialog == "terminal":
        dialog = ScreenPausingPrompt(screen, make_prompt(dialog))
    hub = _hub(options, dialog, lambda url: screen.note_log(f"{url} opens the hub window, for a minute"))
    hub.observer = screen.watch
    screen.on_reader_gone = hub.stop
    screen.start()
    try:
        hub.start(wait=True)
    finally:
        screen.stop()
    if screen.pipe_closed:
        raise BrokenPipeError


@contextmanager
def _logging(options: argparse.Namespace, screen: TrafficScreen | None) -> Iterator[None]:
    """Send the log where it is wanted; with a monitor, among its messages."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the program.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line without the program's name; by default the one that was typed.

    Returns
    -------
    int
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="samp_hub",
        description="Run a SAMP hub, through which programs on this computer exchange tables, images and positions.",
        epilog=EPILOG.replace("samp hub", "samp_hub"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run, parser=parser)
    return run_command(lambda: parser.parse_args(arguments))
