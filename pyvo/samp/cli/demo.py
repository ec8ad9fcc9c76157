# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``samp demo``: the tour of `pyvo.samp.cli.demo`.

SAMP in one minute: a table goes from one program to another, and each step says what it does.

Both programs are clients in this process, and the hub is one of its own, unless the one that runs already is asked for.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import textwrap
from contextlib import ExitStack
from itertools import count
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
from .output import help_epilog

__all__ = ["EPILOG", "add_arguments", "compare_tables", "make_table", "run", "run_with_own_hub", "run_with_running_hub"]

MTYPE = "table.load.votable"
ROWS = 4000
#: Seconds that a program may take to load the table.
PING_TIMEOUT = 60


def make_table() -> Table:
    """
    Make up a catalogue of a star cluster, the same one each time.

    Returns
    -------
    astropy.table.Table
        A few thousand rows with units, descriptions, strings, and values that are missing.
    """
    dice = np.random.default_rng(20)
    distance = np.abs(dice.normal(0, 0.8, ROWS))
    angle = dice.uniform(0, 2 * np.pi, ROWS)
    magnitude = dice.triangular(8, 19, 20, ROWS).astype(np.float32)
    faint = magnitude > 17.5  # too faint for a spectrum
    table = Table()
    table["name"] = np.array([f"Demo {number:05d}" for number in range(1, ROWS + 1)])
    table["ra"] = 56.75 + distance * np.cos(angle) / np.cos(np.radians(24.1))
    table["dec"] = 24.12 + distance * np.sin(angle)
    table["parallax"] = MaskedColumn(dice.normal(7.35, 0.3, ROWS), mask=dice.random(ROWS) < 0.05)
    table["mag"] = magnitude
    table["velocity"] = MaskedColumn(dice.normal(5.7, 1.2, ROWS).astype(np.float32), mask=faint)
    table["spectra"] = MaskedColumn(dice.integers(1, 30, ROWS).astype(np.int32), mask=faint)
    table["member"] = distance < 1.5
    table["type"] = dice.choice(np.array(["B", "A", "F", "G", "K", "M"]), ROWS)
    for column, unit, description in [
        ("name", None, "Designation"),
        ("ra", "deg", "Right ascension, J2000"),
        ("dec", "deg", "Declination, J2000"),
        ("parallax", "mas", "Parallax; missing where it was not measured"),
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
    """
    Compare two tables: columns, types, units, descriptions, which values are missing, and the others.

    Parameters
    ----------
    sent, received : astropy.table.Table
        The tables.

    Returns
    -------
    list of str
        What differs; empty when they are equal.
    """
    if sent.colnames != received.colnames:
        return [f"columns: {sent.colnames} became {received.colnames}"]
    if len(sent) != len(received):
        return [f"rows: {len(sent)} became {len(received)}"]
    found = []
    for name in sent.colnames:
        here, there = sent[name], received[name]
        found += [
            f"{what} of {name}: {getattr(here, what)} became {getattr(there, what)}"
            for what in ("dtype", "unit", "description")
            if getattr(here, what) != getattr(there, what)
        ]
        missing = np.ma.getmaskarray(here)
        if (missing != np.ma.getmaskarray(there)).any():
            found.append(f"missing values of {name}")
        if (np.asarray(here)[~missing] != np.asarray(there)[~missing]).any():
            found.append(f"values of {name}")
    return found


class _Viewer:
    """A program that loads tables: what TOPCAT would be on an astronomer's desk."""

    def __init__(self, story: _Narrator) -> None:
        self._story = story
        self.client = SAMPIntegratedClient(name="Viewer", description="The demo's second program: it loads tables")
        self.tables: dict[str, Table] = {}

    def load(self, private_key: str, sender_id: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        """Handle table.load.votable."""
        self._story.say(f"Viewer received {mtype} from {sender_id}, and reads the file that the url names.")
        try:
            path = url2pathname(urlsplit(params["url"]).path)
            self.tables[params["table-id"]] = Table.read(path, format="votable")
        except Exception as error:
            self.client.ereply(msg_id, SAMP_STATUS_ERROR, error={"samp.errortxt": f"{type(error).__name__}: {error}"})
            raise
        self.client.ereply(msg_id, SAMP_STATUS_OK, result={})


def run_with_own_hub() -> int:
    """
    Send a table between two clients of a hub that is started for it.

    Returns
    -------
    int
        Exit status: 0 when the table arrived as it was sent.
    """
    story = _Narrator()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pyvo-samp-demo-"))
        lockfile = Path(directory) / "lockfile"
        story.step("A hub is started. All messages go through it.")
        hub = SAMPHubServer(lockfile=lockfile, web_profile=False, label="demo")
        stack.callback(hub.stop)
        hub.start()
        params = read_lockfile(lockfile)
        story.say(f"It answers at {params['samp.hub.xmlrpc.url']}.")
        story.say("Programs find a hub by its lockfile, usually ~/.samp. This one has one of its own.")

        story.step("Two programs register with the hub. They know nothing of each other.")
        viewer = _Viewer(story)
        sender = SAMPIntegratedClient(name="Sender", description="The demo's first program: it has a table")
        for client in (viewer.client, sender):
            client.connect(hub_params=params)
            stack.callback(client.disconnect)
            client_id = str(client.get_public_id())
            story.say(f"{client.get_metadata(client_id)['samp.name']} is registered. The hub calls it {client_id}.")

        story.step(f"Viewer subscribes to {MTYPE}: it wants to be told to load tables.")
        viewer.client.bind_receive_call(MTYPE, viewer.load)
        story.step("Sender asks the hub who loads tables, and tells each of them to load one.")
        table = make_table()
        story.say(f"The table has {len(table)} rows and the columns {', '.join(table.colnames)}.")
        accepted = _send(sender, table, story)

        story.step("Sender and Viewer compare what was sent with what was loaded.")
        loaded = viewer.tables.get("demo")
        wrong = ["nothing arrived"] if loaded is None or not accepted else compare_tables(table, loaded)
        for line in wrong:
            story.say(f"Different: {line}")
        if not wrong:
            story.say(f"Equal: {len(table)} rows, {len(table.colnames)} columns, types, units and missing values.")
        story.step("Both programs leave, and the hub is stopped. Nothing stays behind.")
    story.end("The table did NOT arrive as it was sent." if wrong else "The table arrived as it was sent.")
    return 1 if wrong else 0


def run_with_running_hub() -> int:
    """
    Send a table to every program that loads tables, by the hub that is running.

    Returns
    -------
    int
        Exit status: 0 when a program took the table, and none refused it.

    Raises
    ------
    SAMPHubError
        No hub is running.
    """
    story = _Narrator()
    story.step("Sender registers with the hub that is running.")
    with SAMPIntegratedClient(name="pyvo.samp demo", description="Sends a made-up catalogue") as sender:
        story.say(f"The hub calls it {sender.get_public_id()}.")
        story.step("Sender asks the hub who else is there.")
        for other in sorted(sender.get_registered_clients()):
            story.say(f"{_title(sender, other)} takes {_list(sender.get_subscriptions(other))}.")
        story.step(f"Sender asks who is subscribed to {MTYPE}, and tells each of them to load a table.")
        table = make_table()
        accepted = _send(sender, table, story)
        story.step("Sender leaves.")
    story.end("Every program that loads tables has it." if accepted else "NOT every program has it, or there is none.")
    return 0 if accepted else 1


def _send(sender: SAMPIntegratedClient, table: Table, story: _Narrator) -> bool:
    """Send the table to all who want it; tell whether there was one, and nobody refused."""
    recipients = sorted(sender.get_subscribed_clients(MTYPE))
    if not recipients:
        story.say("Nobody is. Start TOPCAT or Aladin, for example, and try again.")
        return False
    accepted = True
    with accessible_table(table) as url:
        story.say("Sender writes the table to a file. The message names it, and does not contain it:")
        message = {"samp.mtype": MTYPE, "samp.params": {"url": url, "table-id": "demo", "name": "Demo cluster"}}
        story.say(f"    samp.mtype   {MTYPE}")
        for key, value in message["samp.params"].items():  # type: ignore[attr-defined]
            story.say(f"    {key:<12} {value}")
        for recipient in recipients:
            title = _title(sender, recipient)
            try:
                response = sender.call_and_wait(recipient, message, PING_TIMEOUT)
            except SAMPError as error:
                story.say(f"{title} gave no answer: {error}")
                accepted = False
                continue
            text = response.get("samp.error", {}).get("samp.errortxt", "")
            story.say(f"{title} replied {response['samp.status']}{': ' if text else ''}{text}.")
            accepted = accepted and response["samp.status"] != SAMP_STATUS_ERROR
    return accepted


def _title(client: SAMPIntegratedClient, other: str) -> str:
    name = client.get_metadata(other).get("samp.name")
    return f"{name} ({other})" if name else other


def _list(subscriptions: dict[str, Any]) -> str:
    return ", ".join(sorted(subscriptions)) or "no messages"


class _Narrator:
    """Prints what happens."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def step(self, text: str) -> None:
        """Print what comes next, numbered."""
        number = next(self._numbers)
        print("" if number == 1 else "\n", end="")
        _print_wrapped(f"{number}. {text}", "", "   ")

    def say(self, text: str) -> None:
        """Print what happened."""
        _print_wrapped(text, "   ", "   " + " " * (len(text) - len(text.lstrip())))

    def end(self, text: str) -> None:
        """Print how it ended."""
        print(f"\n{text}", flush=True)


def _print_wrapped(text: str, first: str, others: str) -> None:
    """Print lines that end between words, on a terminal of any width."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    lines = textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
    print("\n".join(lines), flush=True)


EPILOG = help_epilog(
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
    return run_with_running_hub() if options.hub == "running" else run_with_own_hub()
