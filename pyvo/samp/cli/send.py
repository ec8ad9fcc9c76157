# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp send``: a file or URL to other programs."""

from __future__ import annotations

import argparse
import warnings

from ..errors import SAMPWarning
from ..exchange.reports import SendReport, SendResult
from .arguments import add_recipient_arguments, mtype, seconds
from .client_session import connected_client, find_clients
from .output import (
    CommandError,
    Status,
    Style,
    add_colour_option,
    add_json_option,
    client_label,
    help_epilog,
    print_json,
    sanitize,
)

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = help_epilog(
    """\
  samp send catalogue.fits                 to every program that takes it
  samp send stars.csv --to topcat          converted to what TOPCAT reads
  samp send https://example.org/m51.fits --to ds9 --to aladin
  samp send spectrum.fits --mtype spectrum.load.ssa-generic
  samp send m51.fits.bz2 --mtype image.load.fits       whatever it holds
""",
    {
        0: "all recipients have it",
        1: "the file cannot be sent, or a recipient did not load it",
        2: "",
        3: "",
        4: "",
        5: "a recipient did not answer in time; a converted file is gone now",
    },
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "file", metavar="FILE|URL", help="a table, image, spectrum or coverage, recognized by its content"
    )
    add_recipient_arguments(parser)
    parser.add_argument("--name", help="the name that the recipients show (default: that of the file)")
    parser.add_argument("--mtype", type=mtype, help="the MType to use; the file or URL is sent as it is")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait (default: %(default)g; 0: no limit)",
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar, however large the file is")
    add_json_option(parser, "the recipients, and what became of each, as JSON")
    add_colour_option(parser)


def run(options: argparse.Namespace) -> int:
    """Send the file."""
    with connected_client("samp send", "Sends a file", callable=True) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", SAMPWarning)  # of what the report tells
        to = find_clients(client, options.to) if options.to else None
        hidden = options.json or options.no_progress
        try:
            report = client.send(
                options.file, to, options.name, options.mtype, options.timeout, progress=False if hidden else None
            )
        except FileNotFoundError as error:  # whose text lists what Python programs can send
            raise CommandError(
                Status.FAILED, f"There is no file {options.file!r}, and it is not a URL either."
            ) from error
        # while we are connected: those who have not answered by now are given up when we leave
        return _tell(report, options)


def _tell(report: SendReport, options: argparse.Namespace) -> Status:
    if not report.deliveries:
        raise CommandError(Status.NO_RECIPIENT, f"Nobody takes a {report.kind}.")
    if options.json:
        print_json(_as_json(report))
    else:
        _print(report, Style(options.color))
    if not report.asked:  # none of those who were named takes it
        return Status.NO_RECIPIENT
    if report.failed:
        return Status.FAILED
    return Status.TIMEOUT if report.waiting else Status.OK


def _print(report: SendReport, style: Style) -> None:
    print(f"{sanitize(report.kind).capitalize()} {sanitize(report.name)}")
    for delivery in report.deliveries:
        colour = "yellow" if delivery.is_open else "red" if delivery.failure else "green"
        how = f", as {sanitize(delivery.mtype)}" if delivery.mtype else ""
        print(f"    {style(client_label(delivery.id, delivery.name), 'bold')}: {style(sanitize(delivery.outcome), colour)}{how}")


def _as_json(report: SendReport) -> dict[str, object]:
    return {"kind": report.kind, "name": report.name, "recipients": [_entry(each) for each in report.deliveries]}


def _entry(delivery: SendResult) -> dict[str, object]:
    return {
        "id": delivery.id,
        "name": delivery.name,
        "mtype": delivery.mtype,
        "url": delivery.url,
        "status": (delivery.response or {}).get("samp.status"),
        "outcome": delivery.outcome,
    }
