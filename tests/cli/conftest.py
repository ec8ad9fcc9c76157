"""Commands run in this process, or in one of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from pyvo.samp import SAMPIntegratedClient
from pyvo.samp.cli import main
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
        except SystemExit as end:  # of argparse
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return run


@pytest.fixture
def start(python_environment: dict[str, str]) -> Iterator[Callable[..., Program]]:
    """Start a command in a process of its own, and wait until it prints ``ready``."""
    with ExitStack() as stack:

        def run(*arguments: object, ready: str = "until ^C") -> Program:
            program = stack.enter_context(
                Program(["-m", "pyvo.samp", *(str(argument) for argument in arguments)], python_environment)
            )
            program.wait_for(ready)
            return program

        yield run


class Viewer:
    """A client that records messages."""

    def __init__(self, name: str, responses: dict[str, dict[str, Any] | None]) -> None:
        self.client = SAMPIntegratedClient(name, "A viewer")
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.changed = threading.Condition()
        for mtype, response in responses.items():
            self.client.bind_receive_message(mtype, self._handler(response))
        self.client.connect()

    def _handler(self, response: dict[str, Any] | None) -> Callable[..., None]:
        def on_message(key: str, sender: str, msg_id: str | None, mtype: str, params: Any, extra: Any) -> None:
            with self.changed:
                self.received.append((mtype, dict(params)))
                self.changed.notify_all()
            if msg_id is not None and response is not None:
                self.client.reply(msg_id, response)

        return on_message

    def wait(self, count: int = 1) -> list[tuple[str, dict[str, Any]]]:
        """Wait for a number of messages."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= count, 10), self.received
        return self.received


OK = {"samp.status": "samp.ok", "samp.result": {"value": "42"}}


@pytest.fixture
def viewer(hub: object) -> Iterator[Callable[..., Viewer]]:
    """Connect viewers to the hub; by default each replies with ``samp.ok``."""
    with ExitStack() as stack:

        def make(name: str, *mtypes: str, response: dict[str, Any] | None = OK) -> Viewer:
            made = Viewer(name, dict.fromkeys(mtypes, response))
            stack.callback(made.client.disconnect)
            return made

        yield make
