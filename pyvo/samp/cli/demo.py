# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp demo``: the tour of `pyvo.samp.demo`."""

from __future__ import annotations

import argparse

from .status import epilog

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = epilog(
    """\
  samp demo                 two programs with a hub of their own
  samp demo --hub running   send a table to the programs that are running now
""",
    {0: "the table arrived", 1: "it did not, or not everywhere", 2: "", 3: ""},
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--hub",
        choices=["own", "running"],
        default="own",
        help="which hub: one started for the demo (%(default)s, the default), or the running one with all its programs",
    )


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    from .. import demo  # noqa: PLC0415 - it needs astropy.table, which takes its time

    return demo.run_with_running_hub() if options.hub == "running" else demo.run_with_own_hub()
