# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp list`` shows the connected clients and their subscriptions."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any

from ..errors import SAMPProxyError
from ..integrated_client import SAMPIntegratedClient
from ..protocol import matches
from .arguments import Command, pattern
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

_EPILOG = help_epilog(
    """\
  samp list                              all clients
  samp list --mtype table.load.votable   the clients that load VOTables
  samp list --json | jq -r '.[].name'    the names, for a script
""",
    {0: "at least one client is listed", 3: "", 4: "no client is connected, or none is subscribed to the MType"},
)

#: Shown only with --verbose: nearly every client is subscribed to these.
_HIDDEN_MTYPES = ("samp.hub.*", "samp.app.*")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mtype", type=pattern, help="only clients that are subscribed to this MType or wildcard, such as table.*"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show descriptions, metadata, and all subscriptions"
    )
    add_json_option(parser, "metadata and subscriptions as a JSON list")
    add_colour_option(parser)


def _run(options: argparse.Namespace) -> Status:
    with connected_client("samp list", "Lists the connected clients") as client:
        hub_id = client.client.hub_id
        others = (other for other in client.get_registered_clients() if other != client.get_public_id())
        described = (describe_client(client, other) for other in others)
        found = [entry for entry in described if entry is not None]
        url = client.hub.lockfile.get("samp.hub.xmlrpc.url", "")
    if options.mtype:
        found = [entry for entry in found if _is_subscribed(entry["subscriptions"], options.mtype)]
    if options.json:
        print_json(found)
    else:
        _print(found, hub_id, url, options)
    return Status.OK if any(entry["id"] != hub_id for entry in found) else Status.NO_RECIPIENT


def describe_client(client: SAMPIntegratedClient, client_id: str) -> dict[str, Any] | None:
    """Return what a client has declared; None if it has just unregistered."""
    try:
        metadata = client.get_metadata(client_id)
        subscriptions = client.get_subscriptions(client_id)
    except SAMPProxyError:
        return None
    return {
        "id": client_id,
        "name": metadata.get("samp.name", ""),
        "metadata": metadata,
        "subscriptions": subscriptions,
    }


def _is_subscribed(subscriptions: dict[str, Any], mtype: str) -> bool:
    return any(matches(mtype, subscribed) or matches(subscribed, mtype) for subscribed in subscriptions)


def _print(found: list[dict[str, Any]], hub_id: str | None, url: str, options: argparse.Namespace) -> None:
    style = Style(options.color)
    clients = [entry for entry in found if entry["id"] != hub_id]
    if not clients:
        what = f"subscribed to {options.mtype}" if options.mtype else "connected"
        print(f"No client is {what} (hub at {sanitize(url)}).")
        return
    if options.verbose:
        for entry in found:
            _print_details(entry, style)
        return
    rows = [[sanitize(entry["id"]), sanitize(entry["name"]) or "-"] for entry in clients]
    id_width, name_width = column_widths([["ID", "NAME"], *rows])
    left = id_width + name_width + 4
    width = max(30, shutil.get_terminal_size().columns - left)
    print(style(f"{pad_or_truncate('ID', id_width)}  {pad_or_truncate('NAME', name_width)}  SUBSCRIPTIONS", "dim"))
    for (client_id, name), entry in zip(rows, clients, strict=True):
        lines = textwrap.wrap(_summary(entry["subscriptions"]), width, break_on_hyphens=False) or ["-"]
        print(f"{pad_or_truncate(client_id, id_width)}  {style(pad_or_truncate(name, name_width), 'bold')}  {lines[0]}")
        for line in lines[1:]:
            print(" " * left + line)


def _summary(subscriptions: dict[str, Any]) -> str:
    return ", ".join(
        sanitize(subscribed)
        for subscribed in sorted(subscriptions)
        if not any(matches(hidden, subscribed) for hidden in _HIDDEN_MTYPES)
    )


def _print_details(entry: dict[str, Any], style: Style) -> None:
    print(style(sanitize(entry["name"]) or "-", "bold") + f"  {sanitize(entry['id'])}")
    for key, value in sorted(entry["metadata"].items()):
        if key != "samp.name":
            print(f"    {style(sanitize(key), 'dim')}  {sanitize(value, 500)}")
    for subscribed, values in sorted(entry["subscriptions"].items()):
        more = f"  {sanitize(values)}" if values else ""
        print(f"    subscribed to {style(sanitize(subscribed), 'cyan')}{more}")


COMMANDS = {"list": Command(_add_arguments, _run, _EPILOG)}
