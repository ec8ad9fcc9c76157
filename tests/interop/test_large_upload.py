# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A page in a browser uploads and downloads large files, with bounded memory of the browser and of the hub."""
from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

from .browser import NODE, Site
from .network import WEB_PORT, own_network
from .programs import Program, environment, need
from .recorder import Received, Recorder

TOTAL = 500_000_000
#: Bytes by which the memory of a process may grow. A browser chooses itself when to collect garbage.
MAX_GROWTH = 350_000_000
#: The same for the hub, which runs in the process of the test.
MAX_GROWTH_OF_HUB = 60_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

COMMANDS = {
    "chromium": ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0",
                 "--user-data-dir={profile}"),
    "firefox-esr": ("--headless", "--no-remote", "--profile", "{profile}"),
}


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """Port 21012 is free in this network."""
    if not (NODE / "node_modules" / "sampjs").is_dir():
        pytest.skip("sampjs is not installed (tests/interop/install does it)")
    with own_network():
        yield


class MemoryPeak:
    """The memory of this process, in which the hub runs, and of each process of the browser."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._first: dict[psutil.Process, int] = {}
        self._peak: dict[psutil.Process, int] = {}

    def sample(self) -> None:
        """Measure the memory now. The growth of a process that is new, as some of a browser are, counts from now on."""
        for process in [psutil.Process(), self._root, *self._root.children(recursive=True)]:
            try:
                size = process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self._first.setdefault(process, size)
            self._peak[process] = max(size, self._peak.get(process, 0))

    def growth(self) -> dict[str, int]:
        """Return the bytes by which the memory of each process has grown."""
        return {
            "hub" if process.pid == os.getpid() else f"{process.pid}": self._peak[process] - first
            for process, first in self._first.items()
        }


@pytest.mark.parametrize("name", COMMANDS)
def test_500_mb_up_and_down(
    name: str, home: Path, tmp_path_factory: pytest.TempPathFactory, connect: Callable[..., SAMPIntegratedClient]
) -> None:
    """Neither the hub nor the browser needs memory for the whole file."""
    need(name)
    # Chromium ends if the path is too long for the names of its sockets
    www, profile = tmp_path_factory.mktemp("www"), tmp_path_factory.mktemp("profile")
    for each in ("client.html", "client.js", "node_modules/sampjs/samp.js"):
        shutil.copy(NODE / each, www)
    hub = SAMPHubServer(web_port=WEB_PORT, web_profile_dialog=lambda *_: True)
    hub.start()
    try:
        client = connect("program")
        started, stored, read = (
            Recorder(client, mtype) for mtype in ("coord.pointAt.sky", "table.load.fits", "table.load.votable")
        )
        options = [option.format(profile=profile) for option in COMMANDS[name]]
        url = f"client.html#upload={TOTAL}"
        with Site(www) as site, Program(name, *options, site.url(url), env=environment(profile)) as browser:
            started.wait(1, timeout=60)  # the memory of the browser grows until it has started
            memory = MemoryPeak(browser.pid)
            (up,) = wait_and_sample(stored, memory)
            path = Path(up.content["url"].removeprefix("file://"))
            assert path.stat().st_size == TOTAL
            up_growth = memory.growth()
            (down,) = wait_and_sample(read, memory)
            assert down.content["count"] == str(TOTAL)
            print(f"{name} grew, in MB: up", *(f"{each / 1e6:.0f}" for each in up_growth.values()))
            print(f"{name} grew, in MB: up and down", *(f"{each / 1e6:.0f}" for each in memory.growth().values()))
            assert max(memory.growth().values()) < MAX_GROWTH
            assert memory.growth()["hub"] < MAX_GROWTH_OF_HUB
    finally:
        hub.stop()
    assert not path.exists()


def wait_and_sample(recorder: Recorder, memory: MemoryPeak, timeout: float = 120.0) -> list[Received]:
    """Wait for a message, and measure the memory until then."""
    received: list[Received] = []
    waiting = threading.Thread(target=lambda: received.extend(recorder.wait(1, timeout=timeout)))
    waiting.start()
    while waiting.is_alive():
        memory.sample()
        waiting.join(0.2)
    return received
