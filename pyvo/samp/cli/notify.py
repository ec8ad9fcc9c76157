# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp notify``: a message that needs no answer."""

from __future__ import annotations

import argparse
import warnings

from ..errors import SAMPProxyError, SAMPWarning
from .arguments import add_message_arguments, add_recipient_arguments, message_of
from .client_session import NameCache, connected_client, find_subscribers
from .output import CommandError, Status, add_json_option, help_epilog, print_json

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = help_epilog(
    """\
  samp notify coord.pointAt.sky ra=83.633 dec=22.014
  samp notify table.highlight.row --to topcat table-id=demo row=17
  samp notify table.select.rowList table-id=demo row-list:='[0, 3, 17]'
""",
    {0: "the hub has accepted the message for all recipients", 1: "", 2: "", 3: "", 4: ""},
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_message_arguments(parser)
    add_recipient_arguments(parser)
    add_json_option(parser, "the recipients as JSON")


def run(options: argparse.Namespace) -> int:
    """Send the message."""
    message = message_of(options)
    with connected_client("samp notify", "Sends a message") as client:
        faults = []
        if options.to:
            recipients = []
            for wanted in find_subscribers(client, options.to, options.mtype):
                try:
                    client.notify(wanted, message)
                    recipients.append(wanted)
                except SAMPProxyError as fault:  # one that does not take it must not keep it from the others
                    faults.append(str(fault))
        else:
            with warnings.catch_warnings():  # it warns of what is an error here
                warnings.simplefilter("ignore", SAMPWarning)
                recipients = client.notify_all(message)
        directory = NameCache(client)
        if not (recipients or faults):
            raise CommandError(Status.NO_RECIPIENT, f"Nobody takes {options.mtype}.")
        if options.json:
            print_json(
                {"mtype": options.mtype, "recipients": [{"id": one, "name": directory.name(one)} for one in recipients]}
            )
        else:
            print("Notified " + (", ".join(directory.client_label(one) for one in recipients) or "nobody"))
        if faults:
            raise CommandError(Status.FAILED, "; ".join(faults))
    return Status.OK
