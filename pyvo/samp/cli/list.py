# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp list``: who is there, and what they take."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any

from ..errors import SAMPProxyError
from ..integrated_client import SAMPIntegratedClient
from ..protocol import best_match, matches
from .arguments import pattern
from .client_session import connected_client
from .output import (
    Status,
    Style,
    add_colour_option,
    add_json_option,
    column_widths,
    help_epilog,
    pad_or_truncate,
    print_json,
    sanitize,
)

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = help_epilog(
    """\
  samp list                              everybody
  samp list --mtype table.load.votable   those who take tables as VOTables
  samp list --json | jq -r '.[].name'    the names, for a script
""",
    {0: "somebody is connected", 2: "", 3: "", 4: "only the hub is there, or nobody takes that MType"},
)

#: What nearly every client takes, and hardly anybody wants to read of.
_HIDDEN_MTYPES = ("samp.hub.*", "samp.app.*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--mtype", type=pattern, help="only clients that take this MType; may be a wildcard such as table.*"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show descriptions, metadata, and all subscriptions"
    )
    add_json_option(parser, "a JSON list with all that is known")
    add_colour_option(parser)


def run(options: argparse.Namespace) -> int:
    """Ask the hub, and print."""
    with connected_client("samp list", "Lists who is connected") as client:
        own = client.get_public_id()
        hub_id = client.client.registration.get("samp.hub-id")
        found = [entry for other in client.get_registered_clients() if (entry := _ask(client, other)) is not None]
        url = client.hub.lockfile.get("samp.hub.xmlrpc.url", "")
    found = [entry for entry in found if entry["id"] != own]
    if options.mtype:
        found = [entry for entry in found if _takes(entry["subscriptions"], options.mtype)]
    if options.json:
        print_json(found)
    else:
        _print(found, hub_id, url, options)
    return Status.OK if any(entry["id"] != hub_id for entry in found) else Status.NO_RECIPIENT


def _ask(client: SAMPIntegratedClient, client_id: str) -> dict[str, Any] | None:
    try:
        metadata = client.get_metadata(client_id)
        subscriptions = client.get_subscriptions(client_id)
    except SAMPProxyError:  # it has just left
        return None
    return {
        "id": client_id,
        "name": metadata.get("samp.name", ""),
        "metadata": metadata,
        "subscriptions": subscriptions,
    }


def _takes(subscriptions: dict[str, Any], wanted: str) -> bool:
    if "*" not in wanted:
        return best_match(subscriptions, wanted) is not None
    return any(matches(wanted, taken) or matches(taken, wanted) for taken in subscriptions)


def _print(found: list[dict[str, Any]], hub_id: object, url: str, options: argparse.Namespace) -> None:
    style = Style(options.color)
    programs = [entry for entry in found if entry["id"] != hub_id]
    if not programs:
        print(f"Nobody {'takes ' + options.mtype if options.mtype else 'is connected'} (hub at {sanitize(url)}).")
        return
    if options.verbose:
        for entry in found:
            _print_details(entry, style)
        return
    rows = [[sanitize(entry["id"]), sanitize(entry["name"]) or "-"] for entry in programs]
    id_width, name_width = column_widths([["ID", "NAME"], *rows])
    left = id_width + name_width + 4
    width = max(30, shutil.get_terminal_size().columns - left)
    print(style(f"{pad_or_truncate('ID', id_width)}  {pad_or_truncate('NAME', name_width)}  TAKES", "dim"))
    for (client_id, name), entry in zip(rows, programs, strict=True):
        lines = textwrap.wrap(_summary(entry["subscriptions"]), width, break_on_hyphens=False) or ["-"]
        print(f"{pad_or_truncate(client_id, id_width)}  {style(pad_or_truncate(name, name_width), 'bold')}  {lines[0]}")
        for line in lines[1:]:
            print(" " * left + line)


def _summary(subscriptions: dict[str, Any]) -> str:
    shown = [
        sanitize(taken)
        for taken in sorted(subscriptions)
        if not any(taken == plumbing or matches(plumbing, taken) for plumbing in _HIDDEN_MTYPES)
    ]
    return ", ".join(shown)


def _print_details(entry: dict[str, Any], style: Style) -> None:
    print(style(sanitize(entry["name"]) or "-", "bold") + f"  {sanitize(entry['id'])}")
    for key, value in sorted(entry["metadata"].items()):
        if key != "samp.name":
            print(f"    {style(sanitize(key), 'dim')}  {sanitize(value, 500)}")
    for taken, notes in sorted(entry["subscriptions"].items()):
        print(f"    takes {style(sanitize(taken), 'cyan')}" + (f"  {sanitize(notes)}" if notes else ""))
