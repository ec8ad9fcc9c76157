# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp send`` sends a file or URL to other programs."""

from __future__ import annotations

import argparse
import warnings

from ..errors import SAMPWarning
from ..exchange.reports import SendReport
from .arguments import Command, add_recipient_arguments, add_timeout_option, mtype
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

_EPILOG = help_epilog(
    """\
  samp send catalogue.fits                 to every program that can load it
  samp send stars.csv --to topcat          converted to a VOTable
  samp send https://example.org/m51.fits --to ds9 --to aladin
  samp send spectrum.fits --mtype spectrum.load.ssa-generic
  samp send m51.fits.bz2 --mtype image.load.fits       sent unchanged
""",
    {
        0: "all recipients have loaded the file",
        1: "the file cannot be sent, or a recipient did not load it",
        3: "",
        4: "",
        5: "a recipient did not respond in time; a converted file is removed",
    },
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE|URL", help="a table, image, spectrum or coverage, recognized by its content"
    )
    add_recipient_arguments(parser)
    parser.add_argument("--name", help="the name that the recipients show (default: the name of the file)")
    parser.add_argument("--mtype", type=mtype, help="the MType to use; the file or URL is then sent unchanged")
    add_timeout_option(parser, 60.0)
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar, even if the file is large")
    add_json_option(parser, "the recipients and the outcome for each as JSON")
    add_colour_option(parser)


def _run(options: argparse.Namespace) -> Status:
    with connected_client("samp send", "Sends a file", callable=True) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", SAMPWarning)  # the report says the same
        to = find_clients(client, options.to) if options.to else None
        hidden = options.json or options.no_progress
        try:
            report = client.send(
                options.file, to, options.name, options.mtype, options.timeout, progress=False if hidden else None
            )
        except FileNotFoundError as error:  # its own text lists the types that Python programs can send
            raise CommandError(
                Status.FAILED, f"There is no file {options.file!r}, and it is not a URL either."
            ) from error
        # before the client disconnects, which closes the calls that have no response yet
        return _report(report, options)


def _report(report: SendReport, options: argparse.Namespace) -> Status:
    if not report.deliveries:
        wanted = options.mtype or f"an MType for this {report.kind}"
        raise CommandError(Status.NO_RECIPIENT, f"No client is subscribed to {wanted}.")
    if options.json:
        print_json(_as_json(report))
    else:
        _print(report, Style(options.color))
    if not report.asked:  # none of the named clients is subscribed
        return Status.NO_RECIPIENT
    if report.failed:
        return Status.FAILED
    return Status.TIMEOUT if report.waiting else Status.OK


def _print(report: SendReport, style: Style) -> None:
    print(f"{sanitize(report.kind).capitalize()} {sanitize(report.name)}")
    for result in report.deliveries:
        colour = "yellow" if result.is_open else "red" if result.failure else "green"
        label = style(client_label(result.id, result.name), "bold")
        mtype_text = f", as {sanitize(result.mtype)}" if result.mtype else ""
        print(f"    {label}: {style(sanitize(result.outcome), colour)}{mtype_text}")


def _as_json(report: SendReport) -> dict[str, object]:
    recipients = [
        {
            "id": result.id,
            "name": result.name,
            "mtype": result.mtype,
            "url": result.url,
            "status": (result.response or {}).get("samp.status"),
            "outcome": result.outcome,
        }
        for result in report.deliveries
    ]
    return {"kind": report.kind, "name": report.name, "recipients": recipients}


COMMANDS = {"send": Command(_add_arguments, _run, _EPILOG)}
