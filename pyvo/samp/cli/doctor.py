# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp doctor`` finds out why programs do not find each other, and gives advice."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator

from .arguments import Command, port
from .doctor_checks import (
    Finding,
    Kind,
    check_clients,
    check_environment,
    check_hub,
    check_lockfile,
    check_loopback,
    check_other_hubs,
    check_web,
)
from .output import Status, Style, add_colour_option, add_json_option, help_epilog, print_json, sanitize

__all__ = ["COMMANDS"]

_EPILOG = help_epilog(
    """\
  samp doctor
  samp doctor --json | jq -r '.[] | select(.kind == "problem") | .advice'
""",
    {
        0: "a hub is running, and there is no problem",
        1: "there is a problem",
        2: "",
        3: "no hub is running; nothing else is wrong",
    },
)

_COLOURS = {Kind.OK: "green", Kind.NOTE: "yellow", Kind.PROBLEM: "red"}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--web-port", type=port, default=21012, help="the port of the Web Profile (default: %(default)s)"
    )
    add_json_option(parser, "all findings as JSON")
    add_colour_option(parser)


def _run(options: argparse.Namespace) -> Status:
    style = Style(options.color)
    found: list[Finding] = []
    params: dict[str, str] = {}
    for finding in _check(params, options.web_port):
        found.append(finding)
        if not options.json:
            _print(finding, style)
    if options.json:
        print_json([{"kind": finding.kind.value, "text": finding.text, "advice": finding.advice} for finding in found])
    problems = sum(finding.kind is Kind.PROBLEM for finding in found)
    if problems:
        text = "There is a problem." if problems == 1 else f"There are {problems} problems."
        _print_conclusion(options, style(text, "red"))
        return Status.FAILED
    if not params:
        _print_conclusion(options, "No hub is running; nothing else is wrong.")
        return Status.NO_HUB
    _print_conclusion(options, style("There is no problem.", "green"))
    return Status.OK


def _check(params: dict[str, str], web_port: int) -> Iterator[Finding]:
    """Run all checks, each of which builds on the earlier ones; `params` gets the content of a usable lockfile."""
    yield from check_loopback()
    yield from check_environment()
    yield from check_lockfile(params)
    hub_is_running = False
    if params:
        for finding in check_hub(params):
            hub_is_running = finding.kind is Kind.OK
            yield finding
    if hub_is_running:
        yield from check_clients(params)
    yield from check_other_hubs()
    yield from check_web(web_port, hub_is_running=hub_is_running)


def _print(finding: Finding, style: Style) -> None:
    mark = style(f"{finding.kind.value:>7}", _COLOURS[finding.kind])
    print(f"{mark}  " + f"\n{'':9}".join(_wrap(sanitize(finding.text, 1000), 9)))
    if finding.advice:
        print(f"{'':9}-> " + f"\n{'':12}".join(_wrap(finding.advice, 12)))
    print(end="", flush=True)


def _wrap(text: str, indentation: int) -> list[str]:
    """Break a text between its words, for the width of the terminal."""
    width = min(110, shutil.get_terminal_size((110, 24)).columns) - indentation
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False)


def _print_conclusion(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        print(f"\n{text}")


COMMANDS = {"doctor": Command(_add_arguments, _run, _EPILOG)}
