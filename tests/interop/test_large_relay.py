# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Large files through the relay, in both directions, with bounded memory of the kernel, of the page and of the hub."""
from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient

from .browser import NODE, Browser
from .network import own_network
from .notebooks import JupyterServer, NotebookPage
from .programs import environment, need
from .test_jupyter import CONNECT, close, show_relay, start_jupyter
from .test_large_upload import MemoryPeak

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

MTYPE = "table.load.x-raw"
#: Sends a file of pieces that differ. ``memory`` returns the largest memory of the kernel so far, in MB.
UP = """
import hashlib, resource
def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
with open("large.raw", "wb") as file:
    for number in range(TOTAL // 1_000_000):
        file.write(number.to_bytes(4, "big") * 250_000)
before = memory()
report = client.send("large.raw", to="near", mtype="table.load.x-raw", timeout=600)
assert report.ok, report
print("sent", memory() - before)
"""
DOWN = """
import threading
arrived = threading.Event()
def load(_key, _sender, _mtype, params, _extra):
    global url
    url = params["url"]
    arrived.set()
client.bind_receive_notification("table.load.x-raw", load)
print("ready for it")
"""
READ = """
assert arrived.wait(60)
before = memory()
with open("copy.raw", "wb") as file:
    assert client.hub.download(url, file)
print("received", memory() - before)
"""
#: Waits half a minute for an output with a text or an error.
_ARRIVED = """
(async () => {
    const end = Date.now() + 30000;
    const isThere = (text) => text.includes(%s) || text.includes("Traceback");
    while (Date.now() < end) {
        const outputs = [...document.querySelectorAll(".jp-OutputArea-output")];
        if (outputs.some((each) => isThere(each.innerText))) return true;
        await new Promise((resolve) => setTimeout(resolve, 200));
    }
    return false;
})()
"""


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """One network for the hub, Jupyter and the browser."""
    need("node", "chromium")
    if not (NODE / "node_modules" / "playwright-core").is_dir():
        pytest.skip("playwright-core is not installed (tests/interop/install does it)")
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    with own_network():
        yield


@pytest.mark.parametrize(
    "total", [pytest.param(50_000_000, id="50 MB"), pytest.param(500_000_000, id="500 MB", marks=pytest.mark.matrix)]
)
def test_large_files(total: int, home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file is sent from the kernel and back again; no process needs memory for the whole file."""
    directory, profile = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("browser")
    hub = SAMPHubServer(web_port=0, web_profile_dialog=lambda _name, _origin: True)
    hub.start()
    near = SAMPIntegratedClient(name="near")
    urls: list[str] = []
    sizes: list[int] = []

    @near.on(MTYPE)
    def load(url: str) -> None:
        urls.append(url)
        sizes.append(path_of(url).stat().st_size)
        shutil.copy(path_of(url), directory / "arrived.raw")

    try:
        near.connect(hub=hub)
        with start_jupyter(directory, "lab", sys.executable, sys.executable) as jupyter:
            browser = Browser(shutil.which("chromium") or "", profile, environment(profile))
            try:
                transfer(jupyter, browser, hub, near, total)
            finally:
                browser.stop()
    finally:
        near.disconnect()
        hub.stop()
    assert sizes == [total]
    content = (directory / "large.raw").read_bytes()
    assert (directory / "arrived.raw").read_bytes() == content
    assert (directory / "copy.raw").read_bytes() == content
    assert not path_of(urls[0]).exists()


def transfer(
    jupyter: JupyterServer, browser: Browser, hub: SAMPHubServer, near: SAMPIntegratedClient, total: int
) -> None:
    """Send a file from the kernel and back again, and check the memory."""
    jupyter.write("large", show_relay(hub), CONNECT, UP.replace("TOTAL", str(total)), DOWN, READ)
    notebook = NotebookPage(browser, jupyter.url("large"))
    notebook.run(0)
    notebook.connect()
    notebook.relay_text("Connected")
    notebook.run(1)
    notebook.wait_for("connected by")
    memory = MemoryPeak(browser.pid)
    memory.sample()
    grown = {}
    for number, text in ((2, "sent"), (4, "received")):
        if number == 4:
            notebook.run(3)
            notebook.wait_for("ready for it")
            near.enotify("notebook", MTYPE, url=(jupyter.directory / "arrived.raw").as_uri())
        start = time.monotonic()
        notebook.run(number)
        line = wait_and_sample(notebook, text, memory)
        grown[f"kernel, {text}"] = int(line.split()[-1])
        print(f"{total / 1e6:.0f} MB {text} in {time.monotonic() - start:.0f} s")
    grown |= {name: size // 1_000_000 for name, size in memory.growth().items()}
    print("grown, in MB:", grown)
    close(notebook)
    assert max(size for name, size in grown.items() if name.startswith(("kernel", "hub"))) < 150
    assert max(grown.values()) < 600


def wait_and_sample(notebook: NotebookPage, text: str, memory: MemoryPeak) -> str:
    """Wait for the output of a cell, and measure the memory until then."""
    lines: list[str] = []

    def wait() -> None:
        for _ in range(20):  # half a minute each
            if notebook.page.evaluate(_ARRIVED % json.dumps(text)):
                break
        lines.append(notebook.wait_for(text))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while waiting.is_alive():
        memory.sample()
        waiting.join(0.5)
    assert lines, "see the output above"
    return lines[0]


def path_of(url: str) -> Path:
    return Path(url.removeprefix("file://"))
