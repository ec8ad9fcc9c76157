# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp demo`` sends a table from one program to another, and explains each step.

Both programs are clients in this process. The demo starts its own hub, unless you choose the running one.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from astropy.table import MaskedColumn, Table

from ..constants import SAMP_STATUS_ERROR, SAMP_STATUS_OK
from ..errors import SAMPError
from ..hub import SAMPHubServer
from ..integrated_client import SAMPIntegratedClient
from ..lockfile import read_lockfile
from ..vo_helpers import accessible_table
from .arguments import Command
from .client_session import NameCache
from .output import Status, help_epilog, sanitize

MTYPE = "table.load.votable"
ROWS = 4000
#: Seconds for a program to load the table.
LOAD_TIMEOUT = 60


def make_table() -> Table:
    """Make a catalogue of a star cluster with units, descriptions, texts and missing values. It is always the same."""
    random = np.random.default_rng(20)
    distance = np.abs(random.normal(0, 0.8, ROWS))
    angle = random.uniform(0, 2 * np.pi, ROWS)
    magnitude = random.triangular(8, 19, 20, ROWS).astype(np.float32)
    faint = magnitude > 17.5  # too faint for a spectrum
    table = Table()
    table["name"] = np.array([f"Demo {number:05d}" for number in range(1, ROWS + 1)])
    table["ra"] = 56.75 + distance * np.cos(angle) / np.cos(np.radians(24.1))
    table["dec"] = 24.12 + distance * np.sin(angle)
    table["parallax"] = MaskedColumn(random.normal(7.35, 0.3, ROWS), mask=random.random(ROWS) < 0.05)
    table["mag"] = magnitude
    table["velocity"] = MaskedColumn(random.normal(5.7, 1.2, ROWS).astype(np.float32), mask=faint)
    table["spectra"] = MaskedColumn(random.integers(1, 30, ROWS).astype(np.int32), mask=faint)
    table["member"] = distance < 1.5
    table["type"] = random.choice(np.array(["B", "A", "F", "G", "K", "M"]), ROWS)
    for column, unit, description in [
        ("name", None, "Designation"),
        ("ra", "deg", "Right ascension, J2000"),
        ("dec", "deg", "Declination, J2000"),
        ("parallax", "mas", "Parallax; missing if it was not measured"),
        ("mag", "mag", "Magnitude in V"),
        ("velocity", "km / s", "Radial velocity; missing for faint stars"),
        ("spectra", None, "Number of spectra; missing for faint stars"),
        ("member", None, "Whether it belongs to the cluster"),
        ("type", None, "Spectral type"),
    ]:
        table[column].unit = unit
        table[column].description = description
    return table


def compare_tables(sent: Table, received: Table) -> list[str]:
    """Return what differs between two tables: columns, types, units, descriptions, missing values and other values."""
    if sent.colnames != received.colnames:
        return [f"columns: {sent.colnames} became {received.colnames}"]
    if len(sent) != len(received):
        return [f"rows: {len(sent)} became {len(received)}"]
    found = []
    for name in sent.colnames:
        before, after = sent[name], received[name]
        found += [
            f"{attribute} of {name}: {getattr(before, attribute)} became {getattr(after, attribute)}"
            for attribute in ("dtype", "unit", "description")
            if getattr(before, attribute) != getattr(after, attribute)
        ]
        missing = np.ma.getmaskarray(before)
        if (missing != np.ma.getmaskarray(after)).any():
            found.append(f"missing values of {name}")
        if (np.asarray(before)[~missing] != np.asarray(after)[~missing]).any():
            found.append(f"values of {name}")
    return found


class _Viewer:
    """A program that loads tables, as TOPCAT does."""

    def __init__(self) -> None:
        self.client = SAMPIntegratedClient(name="Viewer", description="The demo's second program: it loads tables")
        self.tables: dict[str, Table] = {}

    def load(self, private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        """Handle table.load.votable."""
        _say(f"Viewer received {mtype} from {sender_id}, and reads the file at the URL.")
        try:
            path = url2pathname(urlsplit(params["url"]).path)
            self.tables[params["table-id"]] = Table.read(path, format="votable")
        except Exception as error:
            self.client.ereply(msg_id, SAMP_STATUS_ERROR, error={"samp.errortxt": f"{type(error).__name__}: {error}"})
            raise
        self.client.ereply(msg_id, SAMP_STATUS_OK, result={})


def _run_with_own_hub() -> Status:
    """Send a table between two clients of a hub that is started for the demo."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pyvo-samp-demo-"))
        lockfile = Path(directory) / "lockfile"
        _print_step("1. A hub is started. All messages go through it.")
        hub = SAMPHubServer(lockfile=lockfile, web_profile=False, label="demo")
        stack.callback(hub.stop)
        hub.start()
        params = read_lockfile(lockfile)
        _say(f"Its address is {params['samp.hub.xmlrpc.url']}.")
        _say("Programs find a hub by its lockfile, usually ~/.samp. Only the demo knows the lockfile of this hub.")

        _print_step("2. Two programs register with the hub. They do not know each other.")
        viewer = _Viewer()
        sender = SAMPIntegratedClient(name="Sender", description="The demo's first program: it has a table")
        for client in (viewer.client, sender):
            client.connect(hub_params=params)
            stack.callback(client.disconnect)
            client_id = str(client.get_public_id())
            _say(f"{client.get_metadata(client_id)['samp.name']} is registered. The hub calls it {client_id}.")

        _print_step(f"3. Viewer subscribes to {MTYPE}: it can load tables.")
        viewer.client.bind_receive_call(MTYPE, viewer.load)
        _print_step("4. Sender asks the hub for the clients that load tables, and sends each of them a message.")
        table = make_table()
        _say(f"The table has {len(table)} rows and the columns {', '.join(table.colnames)}.")
        accepted = _send(sender, table)

        _print_step("5. The table that was sent is compared with the one that was loaded.")
        loaded = viewer.tables.get("demo")
        differences = ["nothing arrived"] if loaded is None or not accepted else compare_tables(table, loaded)
        for difference in differences:
            _say(f"Different: {difference}")
        if not differences:
            _say(f"Equal: {len(table)} rows, {len(table.colnames)} columns, types, units and missing values.")
        _print_step("6. Both programs unregister, and the hub stops. All files are removed.")
    print(f"\nThe table {'did NOT arrive' if differences else 'arrived'} as it was sent.", flush=True)
    return Status.FAILED if differences else Status.OK


def _run_with_running_hub() -> Status:
    """Send a table to every program that loads tables, through the hub that is running."""
    _print_step("1. Sender registers with the hub that is running.")
    with SAMPIntegratedClient(name="pyvo.samp demo", description="Sends a made-up catalogue") as sender:
        _say(f"The hub calls it {sender.get_public_id()}.")
        _print_step("2. Sender asks the hub for the other clients.")
        names = NameCache(sender)
        for other in sorted(sender.get_registered_clients()):
            mtypes = ", ".join(map(sanitize, sorted(sender.get_subscriptions(other)))) or "no MType"
            _say(f"{names.client_label(other)} is subscribed to {mtypes}.")
        _print_step(f"3. Sender asks for the clients that are subscribed to {MTYPE}, and sends each of them a message.")
        table = make_table()
        accepted = _send(sender, table)
        _print_step("4. Sender unregisters.")
    print(f"\n{'All programs that load tables' if accepted else 'NOT all programs'} have loaded it.", flush=True)
    return Status.OK if accepted else Status.FAILED


def _send(sender: SAMPIntegratedClient, table: Table) -> bool:
    """Send the table to all subscribed clients; return whether there are any, and all of them have loaded it."""
    recipients = sorted(sender.get_subscribed_clients(MTYPE))
    if not recipients:
        _say("There is none. Start TOPCAT or Aladin, for example, and try again.")
        return False
    accepted = True
    with accessible_table(table) as url:
        _say("Sender writes the table to a file. The message has the URL of the file:")
        message = {"samp.mtype": MTYPE, "samp.params": {"url": url, "table-id": "demo", "name": "Demo cluster"}}
        _say(f"    samp.mtype   {MTYPE}")
        for key, value in message["samp.params"].items():  # type: ignore[attr-defined]
            _say(f"    {key:<12} {value}")
        names = NameCache(sender)
        for recipient in recipients:
            label = names.client_label(recipient)
            try:
                response = sender.call_and_wait(recipient, message, LOAD_TIMEOUT)
            except SAMPError as error:
                _say(f"{label} did not respond: {sanitize(str(error), 500)}")
                accepted = False
                continue
            text = sanitize(response.get("samp.error", {}).get("samp.errortxt", ""), 500)
            _say(f"{label} replied {sanitize(response['samp.status'])}{': ' if text else ''}{text}.")
            accepted = accepted and response["samp.status"] != SAMP_STATUS_ERROR
    return accepted


def _print_step(title: str) -> None:
    """Print the title of a step, with its number."""
    _print_wrapped(title, "" if title.startswith("1.") else "\n", "   ")


def _say(text: str) -> None:
    """Print a line of a step."""
    _print_wrapped(text, "   ", "   " + " " * (len(text) - len(text.lstrip())))


def _print_wrapped(text: str, first: str, others: str) -> None:
    """Print a text in lines that fit the terminal."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
    print("\n".join(lines), flush=True)


_EPILOG = help_epilog(
    """\
  samp demo                 two programs with a hub of their own
  samp demo --hub running   send a table to the programs that are running now
""",
    {0: "the table arrived", 1: "the table did not arrive everywhere", 3: ""},
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hub",
        choices=["own", "running"],
        default="own",
        help="which hub to use: one that is started for the demo (%(default)s, the default), or the running one",
    )


def _run(options: argparse.Namespace) -> Status:
    return _run_with_running_hub() if options.hub == "running" else _run_with_own_hub()


COMMANDS = {"demo": Command(_add_arguments, _run, _EPILOG)}
