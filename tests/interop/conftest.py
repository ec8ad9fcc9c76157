# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Fixtures: a home directory, a hub and clients of this package, a screen, and programs that end with the test."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from pyvo.samp.testing import RecordingClient

from .programs import Program, Screen, environment, need, wait_for_hub


class Run(Protocol):
    """A function that starts a program. Further keywords are environment variables."""

    def __call__(self, *command: str, **variables: str) -> Program: ...


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of this directory as ``interop``; deselect those of ``matrix`` unless ``-m`` names it."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("interop")
    if "matrix" not in config.option.markexpr:
        deselected = [item for item in items if item.get_closest_marker("matrix")]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if not item.get_closest_marker("matrix")]


@pytest.fixture
def home(isolated: Path) -> Path:
    """The home directory of this process and of the programs. It contains no lockfile yet."""
    return isolated


@pytest.fixture
def run(home: Path) -> Iterator[Run]:
    """Return a function that starts a program without a screen. The program is ended after the test."""
    with ExitStack() as stack:
        def start(*command: str, **variables: str) -> Program:
            need(command[0])
            return stack.enter_context(Program(*command, env=environment(home, **variables)))

        yield start


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    """One screen for all programs. Each test ends its programs, so the screen is empty for the next test."""
    one = Screen(environment(tmp_path_factory.mktemp("screen")))
    yield one
    one.stop()


@pytest.fixture
def show(home: Path, screen: Screen) -> Iterator[Run]:
    """Return a function that starts a program on the screen. The program is ended after the test."""
    with ExitStack() as stack:
        def start(*command: str, **variables: str) -> Program:
            need(command[0])
            return stack.enter_context(Program(*command, env=environment(home, screen.display, **variables)))

        yield start


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """The directory for screenshots: ``INTEROP_ARTEFACTS``, or ``build/interop`` of the project."""
    chosen = os.environ.get("INTEROP_ARTEFACTS")
    return Path(chosen) if chosen else Path(__file__).parents[2] / "build" / "interop"


@pytest.fixture
def jsamp_hub(home: Path, run: Run) -> Program:
    """JSAMP's hub, with the Standard Profile only."""
    program = run("jsamp", "hub", "-mode", "no-gui", "-profiles", "std")
    wait_for_hub(home)
    return program


@pytest.fixture
def connect(home: Path) -> Iterator[Callable[..., RecordingClient]]:
    """Return a function that connects a client of this package to the hub of this home, until the end of the test."""
    with ExitStack() as stack:
        def start(name: str, **metadata: str) -> RecordingClient:
            described = {"samp.description.text": "a test", **metadata}
            return stack.enter_context(RecordingClient(name, (), metadata=described))

        yield start
