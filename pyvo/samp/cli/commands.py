# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp``, or ``python -m pyvo.samp``: each subcommand declares its options, and names the function that runs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import SAMPError
from . import hub

__all__ = ["main"]


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
        Exit status: 0 success, 1 failure, 2 a command line that makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="samp",
        description="SAMP: let TOPCAT, Aladin, DS9, web pages and Python exchange tables and images.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_hub(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except SAMPError as error:
        print(f"samp: {error}", file=sys.stderr)
        return 1


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Send a table from one program to another, and tell what happens."
    parser = commands.add_parser("demo", help=text, description=text)
    parser.add_argument(
        "--hub",
        choices=["own", "running"],
        default="own",
        help="the hub: one started for this (%(default)s), or the running one, with all programs that are there",
    )
    parser.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> int:
    from .. import demo  # noqa: PLC0415 - it needs astropy.table, which takes its time

    return demo.run_with_running_hub() if options.hub == "running" else demo.run_with_own_hub()


def _add_hub(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "Run a hub until it is stopped by ^C."
    parser = commands.add_parser("hub", help=text, description=text)
    hub.add_arguments(parser)
    parser.set_defaults(run=hub.run)
