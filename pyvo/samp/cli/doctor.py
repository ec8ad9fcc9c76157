# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp doctor``: why programs do not find each other, and what to do."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator

from .arguments import port
from .doctor_checks import (
    Finding,
    Kind,
    check_hub,
    check_other_hubs,
    check_web,
    examine_environment,
    examine_lockfile,
    examine_loopback,
    examine_membership,
)
from .output import Status, Style, add_colour_option, add_json_option, help_epilog, print_json, sanitize

__all__ = ["EPILOG", "add_arguments", "check", "run"]

EPILOG = help_epilog(
    """\
  samp doctor
  samp doctor --json | jq -r '.[] | select(.kind == "problem") | .advice'
""",
    {
        0: "a hub is running, and all is well",
        1: "there is a problem",
        2: "",
        3: "no hub is running; nothing else is wrong",
    },
)

_COLOURS = {Kind.GOOD: "green", Kind.NOTE: "yellow", Kind.PROBLEM: "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--web-port", type=port, default=21012, help="where web pages look for the hub (default: %(default)s)"
    )
    add_json_option(parser, "all findings as JSON")
    add_colour_option(parser)


def run(options: argparse.Namespace) -> int:
    """Examine everything, and print."""
    style = Style(options.color)
    found: list[Finding] = []
    params: dict[str, str] = {}
    for finding in check(params, options.web_port):
        found.append(finding)
        if not options.json:
            _print(finding, style)
    if options.json:
        print_json([{"kind": one.kind.value, "text": one.text, "advice": one.advice} for one in found])
    problems = sum(finding.kind is Kind.PROBLEM for finding in found)
    if problems:
        _conclude(options, style("There is a problem." if problems == 1 else f"There are {problems} problems.", "red"))
        return Status.FAILED
    if not params:
        _conclude(options, "No hub is running; nothing else is wrong.")
        return Status.NO_HUB
    _conclude(options, style("All is well.", "green"))
    return Status.OK


def check(params: dict[str, str], web_port: int) -> Iterator[Finding]:
    """
    Examine everything, from the ground up.

    Parameters
    ----------
    params : dict
        Gets what is in the lockfile, if there is a usable one.
    web_port : int
        Where web pages look for the hub.
    """
    yield from examine_loopback()
    yield from examine_environment()
    yield from examine_lockfile(params)
    hub_is_there = False
    if params:
        for finding in check_hub(params):
            hub_is_there = finding.kind is Kind.GOOD
            yield finding
    if hub_is_there:
        yield from examine_membership(params)
    yield from check_other_hubs()
    yield from check_web(web_port, hub_is_there=hub_is_there)


def _print(finding: Finding, style: Style) -> None:
    mark = style(f"{finding.kind.value:>7}", _COLOURS[finding.kind])
    print(f"{mark}  " + f"\n{'':9}".join(_wrap(sanitize(finding.text, 1000), 9)))
    if finding.advice:
        print(f"{'':9}-> " + f"\n{'':12}".join(_wrap(finding.advice, 12)))
    print(end="", flush=True)


def _wrap(text: str, indentation: int) -> list[str]:
    """Break a text between its words, for the terminal that there is."""
    width = min(110, shutil.get_terminal_size((110, 24)).columns) - indentation
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False)


def _conclude(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        print(f"\n{text}")
