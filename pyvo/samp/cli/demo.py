# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp demo``: the tour of `pyvo.samp.demo`."""

from __future__ import annotations

import argparse

from .status import epilog

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = epilog(
    """\
  samp demo                 two programs and a hub of their own; nothing is touched
  samp demo --hub running   a table for the programs that are on the desk now
""",
    {0: "the table arrived", 1: "it did not, or not everywhere", 2: "", 3: "", 130: ""},
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--hub",
        choices=["own", "running"],
        default="own",
        help="the hub: one started for this (%(default)s), or the running one, with all programs that are there",
    )


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    from .. import demo  # noqa: PLC0415 - it needs astropy.table, which takes its time

    return demo.run_with_running_hub() if options.hub == "running" else demo.run_with_own_hub()
