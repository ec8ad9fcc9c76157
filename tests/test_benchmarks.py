"""The benchmarks run, and the checker of the endurance run finds faults. No test asserts on time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak_checker import DUE, MessageChecker

from .conftest import ROOT

JOINED = {"1": "0.0 join c1", "2": "0.0 join c2"}
CALL = [("1", "1.0 sending 1-0 call"), ("1", "1.1 accepted 1-0 c2")]
GOT = ("2", "1.2 got 1-0 c2")
RESPONSE = ("1", "1.3 answer 1-0 c2 samp.ok ")


def find_faults(*lines: tuple[str, str], client_ended: dict[str, float] | None = None) -> list[str]:
    """Return the faults in the lines of two clients."""
    checker = MessageChecker()
    for serial, line in (*JOINED.items(), *lines):
        checker.record(serial, line)
    for serial, time in (client_ended or {}).items():
        checker.client_ended(serial, time)
    checker.check_messages(float("inf"))
    return checker.faults


def test_call_with_response() -> None:
    assert find_faults(*CALL, GOT, RESPONSE) == []


def test_lines_of_two_clients_may_be_read_in_any_order() -> None:
    assert find_faults(GOT, *CALL, RESPONSE) == []


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([*CALL, RESPONSE], "not delivered"),
        ([*CALL, GOT], "got no response"),
        ([*CALL, GOT, GOT, RESPONSE], "delivered 2 times"),
        ([*CALL, GOT, RESPONSE, RESPONSE], "got 2 responses"),
        ([("1", "1.0 sending 1-0 notify"), ("1", "1.1 refused 1-0 x"), GOT], "rejected"),
        ([("1", "1.0 trouble The hub hung")], "The hub hung"),
        ([("2", "9.0 join c1")], "twice"),
    ],
)
def test_faults_are_found(lines: list[tuple[str, str]], word: str) -> None:
    (fault,) = find_faults(*lines)
    assert word in fault


def test_crashed_recipient() -> None:
    assert find_faults(*CALL, ("1", "9.0 answer 1-0 c2 samp.error gone"), client_ended={"2": 1.1}) == []
    (fault,) = find_faults(*CALL, client_ended={"2": 1.1})
    assert "got no response" in fault


def test_missing_delivery_to_a_recipient_that_still_ran() -> None:
    (fault,) = find_faults(*CALL, RESPONSE, client_ended={"2": 1.5 + DUE})
    assert "not delivered" in fault


def test_second_delivery_is_found_even_if_all_clients_crashed() -> None:
    (fault,) = find_faults(*CALL, GOT, GOT, client_ended={"1": 1.2, "2": 1.3})
    assert "delivered 2 times" in fault


def test_lines_after_the_check_are_faults() -> None:
    checker = MessageChecker()
    for serial, line in (*JOINED.items(), *CALL, GOT, RESPONSE):
        checker.record(serial, line)
    checker.check_messages(1000.0)
    checker.record(*RESPONSE)
    (fault,) = checker.faults
    assert "is not known" in fault


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_row_is_measured_and_written(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    done = run_module(
        "benchmarks", "--quick", "--only", "call-keep", "--without", "jsamp", "--without", "upstream",
        "--json", str(target), "--cache", str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(target.read_text())["rows"]["call-keep"]
    assert set(row["subjects"]) == {"ours", "baseline"}
    assert not row["failures"]
    assert [ratio["against"] for ratio in row["ratios"]] == ["baseline"]
    compared = run_module("benchmarks.report", str(target), str(target))
    assert compared.returncode == 0, compared.stderr
    median = f"{row['ratios'][0]['median']:.3g}"
    assert compared.stdout.splitlines()[3].split()[-4:-1] == ["1.3", median, median]


@pytest.mark.parametrize("arguments", [["broadcast_floor", "5", "1"], ["connect_floor", "1"]])
def test_floors_are_measured(arguments: list[str]) -> None:
    done = run_module(f"benchmarks.{arguments[0]}", *arguments[1:])
    assert done.returncode == 0, done.stderr
    assert "floor" in done.stdout
