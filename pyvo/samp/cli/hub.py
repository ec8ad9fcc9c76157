# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A hub as a program: ``python -m pyvo.samp.hub`` and ``samp_hub``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from ..errors import SAMPError
from ..hub import SAMPHubServer

__all__ = ["add_arguments", "main", "run"]

EXAMPLE = """\
example:
  samp_hub                    a hub that every SAMP program of yours finds, until ^C
  samp_hub -m -l experiment   another one beside it, in ~/.samp-1
"""

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
    hub.add_argument("-p", "--port", type=int, default=0, help="port to listen on (default: a free one)")
    hub.add_argument("-f", "--lockfile", help="where the lockfile goes (default: what SAMP_HUB names, or ~/.samp)")
    hub.add_argument(
        "-w",
        "--no-web-profile",
        dest="web_profile",
        action="store_false",
        help="let no web pages join, whether the user agrees or not",
    )
    hub.add_argument("-P", "--pool-size", type=int, default=20, help="accepted, has no effect any more")
    hub.add_argument(
        "-t", "--timeout", type=float, default=0, metavar="SECONDS", help="stop after so long without activity"
    )
    hub.add_argument(
        "-c", "--client-timeout", type=float, default=0, metavar="SECONDS", help="disconnect a client that is silent"
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
    log = parser.add_argument_group("its log")
    log.add_argument(
        "-L", "--log-level", type=str.upper, choices=list(_LEVELS), default="INFO", help="how much (%(default)s)"
    )
    log.add_argument("-O", "--log-output", metavar="FILE", help="where to (default: standard error)")


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
    try:
        _set_up_log(options.log_level, options.log_output)
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
            pool_size=options.pool_size,
        )
        hub.start(wait=True)
    except (SAMPError, OSError) as error:
        print(f"samp_hub: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit):  # the ways to stop a hub, see SAMPHubServer.start
        return 0
    return 0


def _set_up_log(level: str, output: str | None) -> None:
    handler = logging.FileHandler(output) if output else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    log = logging.getLogger("pyvo.samp")
    log.setLevel(_LEVELS[level])
    log.addHandler(handler)
    log.propagate = False


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
        description="Run a SAMP hub, through which programs on this desk exchange tables, images and positions.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))
