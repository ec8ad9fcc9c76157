"""Fixtures that run commands in this process or in a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from pyvo.samp.cli import main
from pyvo.samp.testing import RecordingClient
from tests.process.programs import Program


class Done(NamedTuple):
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def samp(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse exits
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return run


@pytest.fixture
def start(python_environment: dict[str, str]) -> Iterator[Callable[..., Program]]:
    """Start a command in a new process, and wait until it prints ``ready``."""
    with ExitStack() as stack:

        def run(*arguments: object, ready: str = "until ^C") -> Program:
            program = stack.enter_context(
                Program(["-m", "pyvo.samp", *(str(argument) for argument in arguments)], python_environment)
            )
            program.wait_for(ready)
            return program

        yield run


OK = {"samp.status": "samp.ok", "samp.result": {"value": "42"}}


@pytest.fixture
def viewer(samp_client: Callable[..., RecordingClient]) -> Callable[..., RecordingClient]:
    """Connect viewers to the hub; by default each replies with ``samp.ok``."""

    def make(name: str, *mtypes: str, response: dict[str, Any] | None = OK) -> RecordingClient:
        return samp_client(name, mtypes, {"*": response}, metadata={"samp.description.text": "A viewer"})

    return make
