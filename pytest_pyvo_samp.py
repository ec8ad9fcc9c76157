# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fixtures of pytest for programs that use SAMP; `pyvo.samp.testing` describes what they return.

pytest imports this module whenever this package is installed. It is a module of its own, and imports `pyvo.samp` only
in the fixtures, because an import of `pyvo.samp` first imports the rest of pyvo where that is installed, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyvo.samp import SAMPHubServer
    from pyvo.samp.testing import RecordingClient


@pytest.fixture
def samp_home() -> Iterator[Path]:
    """An empty home directory for the test: no hub is found in it, unless the test starts one."""
    from pyvo.samp.testing import isolated_home  # noqa: PLC0415

    with isolated_home() as home:
        yield home


@pytest.fixture
def samp_hub_factory(samp_home: Path) -> Iterator[Callable[..., SAMPHubServer]]:  # noqa: ARG001
    """A function that starts a hub with options of SAMPHubServer. The hubs are stopped after the test."""
    from pyvo.samp.testing import start_hub  # noqa: PLC0415

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(start_hub(**options))


@pytest.fixture
def samp_hub(samp_hub_factory: Callable[..., SAMPHubServer]) -> SAMPHubServer:
    """A running hub for this test, without the Web Profile. All SAMP clients of the test find it."""
    return samp_hub_factory()


@pytest.fixture
def samp_client(samp_hub: SAMPHubServer) -> Iterator[Callable[..., RecordingClient]]:  # noqa: ARG001
    """A function that connects a RecordingClient: ``samp_client(name, subscriptions, replies, metadata)``."""
    from pyvo.samp.testing import RecordingClient  # noqa: PLC0415

    with ExitStack() as stack:

        def connect(*args: Any, **kwargs: Any) -> RecordingClient:
            return stack.enter_context(RecordingClient(*args, **kwargs))

        yield connect
