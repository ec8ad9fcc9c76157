# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp demo`` works, explains each step, reports errors, and leaves no files behind."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, SAMPWarning
from pyvo.samp.cli import demo, main


def test_own_hub(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo starts its own hub and two clients, and sends one table; it does not use the user's home."""
    assert main(["demo"]) == 0
    output = capsys.readouterr().out
    assert "1. A hub is started" in output
    assert "Viewer (c1) replied samp.ok." in output
    assert "Equal: 4000 rows, 9 columns" in output
    assert output.endswith("The table arrived as it was sent.\n")
    assert list(isolated.iterdir()) == []
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_own_hub_while_another_hub_runs(hub: SAMPHubServer) -> None:
    """The hub of the demo does not affect the other hub."""
    assert main(["demo"]) == 0
    assert hub.is_running


def test_table_is_the_same_each_time() -> None:
    assert demo.compare_tables(demo.make_table(), demo.make_table()) == []


def damage_value(table: Table) -> None:
    table["ra"][7] += 1e-12


def damage_mask(table: Table) -> None:
    table["parallax"].mask[0] = not table["parallax"].mask[0]


def damage_unit(table: Table) -> None:
    table["ra"].unit = "rad"


def damage_dtype(table: Table) -> None:
    table["mag"] = table["mag"].astype(np.float64)


def damage_description(table: Table) -> None:
    table["name"].description = "another"


def damage_rows(table: Table) -> None:
    table.remove_row(0)


def damage_columns(table: Table) -> None:
    table.rename_column("type", "kind")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (damage_value, "values of ra"),
        (damage_mask, "missing values of parallax"),
        (damage_unit, "unit of ra: deg became rad"),
        (damage_dtype, "dtype of mag: float32 became float64"),
        (damage_description, "description of name"),
        (damage_rows, "rows: 4000 became 3999"),
        (damage_columns, "columns: "),
    ],
)
def test_every_difference_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: object, text: str
) -> None:
    """The output names the difference, and the exit status is 1."""
    really_read = demo.Table.read

    def read(*args: object, **kwargs: object) -> Table:
        table = really_read(*args, **kwargs)
        damage(table)
        return table

    monkeypatch.setattr(demo.Table, "read", read)
    assert main(["demo"]) == 1
    output = capsys.readouterr().out
    assert f"Different: {text}" in output
    assert output.endswith("The table did NOT arrive as it was sent.\n")


def test_viewer_that_cannot_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The output shows the error text of the viewer's response."""

    def read(*args: object, **kwargs: object) -> Table:
        raise OSError("unreadable")

    monkeypatch.setattr(demo.Table, "read", read)
    assert main(["demo"]) == 1
    output = capsys.readouterr().out
    assert "Viewer (c1) replied samp.error: OSError: unreadable." in output
    assert "Different: nothing arrived" in output


# With the hub that is running


def test_running_hub(hub: SAMPHubServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The output lists all clients, and the clients that load tables get one."""
    with SAMPIntegratedClient(name="Loader") as loader:
        loader.bind_receive_call("table.load.votable", lambda key, sender, msg_id, *_: loader.ereply(msg_id, "samp.ok"))
        assert main(["demo", "--hub", "running"]) == 0
        output = capsys.readouterr().out
        assert f"Loader ({loader.get_public_id()}) is subscribed to " in " ".join(output.split())
        assert ", table.load.votable." in " ".join(output.split())
        assert f"Loader ({loader.get_public_id()}) replied samp.ok." in output
        assert output.endswith("All programs that load tables have loaded it.\n")


def test_running_hub_without_recipients(hub: SAMPHubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--hub", "running"]) == 1
    assert "There is none. Start TOPCAT or Aladin" in capsys.readouterr().out


def test_running_hub_with_an_error(hub: SAMPHubServer, capsys: pytest.CaptureFixture[str]) -> None:
    with SAMPIntegratedClient(name="Loader") as loader:
        error = {"samp.errortxt": "disk full"}
        loader.bind_receive_call(
            "table.load.votable", lambda key, sender, msg_id, *_: loader.ereply(msg_id, "samp.error", error=error)
        )
        assert main(["demo", "--hub", "running"]) == 1
        assert "replied samp.error: disk full." in capsys.readouterr().out


def test_unsafe_characters_of_clients(hub: SAMPHubServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The name or the error text of a client cannot control the terminal."""
    with warnings.catch_warnings(), SAMPIntegratedClient(name="Loader") as loader:
        warnings.simplefilter("ignore", SAMPWarning)  # the warning that other hubs may not accept this
        loader.declare_metadata({"samp.name": "Load\x9b2Jer"})
        error = {"samp.errortxt": "disk \u202efull"}
        loader.bind_receive_call(
            "table.load.votable", lambda key, sender, msg_id, *_: loader.ereply(msg_id, "samp.error", error=error)
        )
        assert main(["demo", "--hub", "running"]) == 1
        output = capsys.readouterr().out
        assert f"Load?2Jer ({loader.get_public_id()}) replied samp.error: disk ?full." in output
        assert not set(output) & set("\x9b\u202e")


def test_no_running_hub(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--hub", "running"]) == 3
    assert "No SAMP hub is running (no lockfile at ~/.samp)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["demo", "--hub", "another"], ["nonsense"]])
def test_invalid_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: samp" in capsys.readouterr().err
