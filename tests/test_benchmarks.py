"""The benchmarks run, and the ledger of the endurance run sees what is wrong. Nothing here asserts on time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak_ledger import DUE, Ledger

from .conftest import ROOT

JOINED = {"1": "0.0 join c1", "2": "0.0 join c2"}
CALL = [("1", "1.0 sending 1-0 call"), ("1", "1.1 accepted 1-0 c2")]
GOT = ("2", "1.2 got 1-0 c2")
ANSWER = ("1", "1.3 answer 1-0 c2 samp.ok ")


def judge(*lines: tuple[str, str], ended: dict[str, float] | None = None) -> list[str]:
    """What a ledger finds wrong with what two clients wrote."""
    ledger = Ledger()
    for serial, line in (*JOINED.items(), *lines):
        ledger.note(serial, line)
    for serial, time in (ended or {}).items():
        ledger.ended(serial, time)
    ledger.judge(float("inf"))
    return ledger.faults


def test_a_call_that_came_and_was_answered_is_right() -> None:
    assert judge(*CALL, GOT, ANSWER) == []


def test_lines_of_two_clients_may_be_read_in_any_order() -> None:
    assert judge(GOT, *CALL, ANSWER) == []


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([*CALL, ANSWER], "never came"),
        ([*CALL, GOT], "never answered"),
        ([*CALL, GOT, GOT, ANSWER], "came 2 times"),
        ([*CALL, GOT, ANSWER, ANSWER], "answered 2 times"),
        ([("1", "1.0 sending 1-0 notify"), ("1", "1.1 refused 1-0 x"), GOT], "refused"),
        ([("1", "1.0 trouble The hub hung")], "The hub hung"),
        ([("2", "9.0 join c1")], "twice"),
    ],
)
def test_what_is_wrong_is_found(lines: list[tuple[str, str]], word: str) -> None:
    (fault,) = judge(*lines)
    assert word in fault


def test_what_a_crashed_recipient_did_not_get_is_not_lost_but_its_caller_is_told() -> None:
    assert judge(*CALL, ("1", "9.0 answer 1-0 c2 samp.error gone"), ended={"2": 1.1}) == []
    (fault,) = judge(*CALL, ended={"2": 1.1})
    assert "never answered" in fault


def test_a_recipient_that_lived_long_enough_must_have_got_it() -> None:
    (fault,) = judge(*CALL, ANSWER, ended={"2": 1.5 + DUE})
    assert "never came" in fault


def test_a_doubled_message_is_found_even_if_everybody_crashed() -> None:
    (fault,) = judge(*CALL, GOT, GOT, ended={"1": 1.2, "2": 1.3})
    assert "came 2 times" in fault


def test_what_comes_after_it_was_judged_is_wrong() -> None:
    ledger = Ledger()
    for serial, line in (*JOINED.items(), *CALL, GOT, ANSWER):
        ledger.note(serial, line)
    ledger.judge(1000.0)
    ledger.note(*ANSWER)
    (fault,) = ledger.faults
    assert "forgotten" in fault


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
    assert set(row["subjects"]) == {"ours", "floor"}
    assert not row["failures"]
    assert [ratio["against"] for ratio in row["ratios"]] == ["floor"]
