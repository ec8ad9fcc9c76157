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
    """What a command did."""

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
    """Start a command in a process of its own; wait until it says ``ready``."""
    with ExitStack() as stack:

        def begin(*arguments: object, ready: str = "until ^C") -> Program:
            program = stack.enter_context(
                Program(["-m", "pyvo.samp", *(str(argument) for argument in arguments)], python_environment)
            )
            program.wait_for(ready)
            return program

        yield begin


class Viewer:
    """A client that takes some messages, and notes them."""

    def __init__(self, name: str, takes: dict[str, dict[str, Any] | None]) -> None:
        self.client = SAMPIntegratedClient(name, "A viewer")
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.news = threading.Condition()
        for mtype, response in takes.items():
            self.client.bind_receive_message(mtype, self._handler(response))
        self.client.connect()

    def _handler(self, response: dict[str, Any] | None) -> Callable[..., None]:
        def hear(key: str, sender: str, msg_id: str | None, mtype: str, params: Any, extra: Any) -> None:
            with self.news:
                self.heard.append((mtype, dict(params)))
                self.news.notify_all()
            if msg_id is not None and response is not None:
                self.client.reply(msg_id, response)

        return hear

    def wait(self, count: int = 1) -> list[tuple[str, dict[str, Any]]]:
        """Wait for so many messages."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.heard) >= count, 10), self.heard
        return self.heard


OK = {"samp.status": "samp.ok", "samp.result": {"value": "42"}}


@pytest.fixture
def viewer(hub: object) -> Iterator[Callable[..., Viewer]]:
    """Connect viewers to the hub; each answers with ``samp.ok`` unless told otherwise."""
    with ExitStack() as stack:

        def make(name: str, *mtypes: str, response: dict[str, Any] | None = OK) -> Viewer:
            made = Viewer(name, dict.fromkeys(mtypes, response))
            stack.callback(made.client.disconnect)
            return made

        yield make
