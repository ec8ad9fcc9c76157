"""The hub window is opened in a browser, from Python, from a notebook, and from the command line."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyvo.samp.window.browser as browser_module
from pyvo.samp import SAMPHubError, SAMPHubServer, SAMPIntegratedClient
from tests.process.programs import Program

from .conftest import Window

#: Takes the place of a browser: writes its arguments, and the mode and content of the file that they name, to a file.
BROWSER = """#!{python}
import os, pathlib, sys
from urllib.parse import urlsplit
from urllib.request import url2pathname
path = pathlib.Path(url2pathname(urlsplit(sys.argv[1]).path))
mode = oct(path.stat().st_mode & 0o777)
part = pathlib.Path({out!r}).with_suffix(".part")
part.write_text("\\n".join([" ".join(sys.argv[1:]), mode, path.read_text()]))
part.rename({out!r})
print("The browser has read the file")
"""

LINK = re.compile(r"http://127\.0\.0\.1:[0-9]+/#[\w-]{43}")


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a script the user's browser, and return the file to which it writes."""
    out = tmp_path / "written"
    script = tmp_path / "browser"
    script.write_text(BROWSER.format(python=sys.executable, out=str(out)))
    script.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    monkeypatch.setattr("webbrowser._tryorder", None)
    monkeypatch.setattr("webbrowser._browsers", {})
    return out


def test_browser_gets_a_file(hub: SAMPHubServer, browser: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line has no token; only the user can read the file, which is removed when the token has been used."""
    url = hub.open_window()
    command, mode, page = browser.read_text().split("\n", 2)
    assert command.startswith("file:///")
    assert mode == "0o600"
    [link] = LINK.findall(page)
    assert link != url
    token = link.partition("#")[2]
    assert token not in command
    path = Path(command.removeprefix("file://"))
    assert path.exists()
    window = Window(link).open()
    assert window.get("/state")["full"]
    assert not path.exists()
    assert capsys.readouterr().err == ""
    window.close()


def test_file_is_removed_when_the_hub_stops(make_hub: Callable[..., SAMPHubServer], browser: Path) -> None:
    hub = make_hub()
    hub.open_window()
    path = Path(browser.read_text().split("\n")[0].removeprefix("file://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    hub.stop()
    assert not path.exists()


@pytest.mark.parametrize("problem", ["no screen", "fails", "hangs"])
def test_browser_that_cannot_be_opened(
    hub: SAMPHubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    """The hub prints the link, and does not wait for a browser command that does not return."""
    over = threading.Event()
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    if problem != "no screen":
        monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(browser_module, "TIMEOUT", 0.1)
    monkeypatch.setattr("webbrowser.open", lambda url: problem == "hangs" and over.wait(10))
    if problem == "no screen":
        monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("a browser is opened"))
        monkeypatch.setattr(sys, "platform", "linux")
    url = hub.open_window()
    over.set()
    assert capsys.readouterr().err == f"No browser could be opened. Open this within a minute: {url}\n"


def test_hub_must_run(make_hub: Callable[..., SAMPHubServer]) -> None:
    with pytest.raises(SAMPHubError, match="The hub is not running"):
        SAMPHubServer(web_profile=False).open_window()
    hub = make_hub()
    hub.stop()
    with pytest.raises(SAMPHubError, match="The hub is not running"):
        hub.open_window()


def test_link_in_a_notebook(make_hub: Callable[..., SAMPHubServer]) -> None:
    """A running hub shows a link, and a stopped hub shows none. IPython gets it in this way."""
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    hub = make_hub(label="<b>mine</b>")
    data, _ = formatter.format(hub)
    assert data["text/plain"].startswith("<SAMPHubServer ")
    text = data["text/html"]
    assert "SAMP hub &lt;b&gt;mine&lt;/b&gt;: running" in text
    assert 'target="_blank" rel="noopener noreferrer"' in text
    window = Window(LINK.findall(text)[0]).open()
    assert window.get("/state")["hub"]["label"] == "<b>mine</b>"
    window.close()
    hub.stop()
    assert hub._repr_html_() == "<p>SAMP hub &lt;b&gt;mine&lt;/b&gt;: stopped</p>"


def test_hub_without_a_window_has_no_overhead(isolated: Path, python_environment: dict[str, str]) -> None:
    """A hub without a window imports no module and starts no thread of the window."""
    script = """
import sys, threading
from pyvo.samp import SAMPHubServer
hub = SAMPHubServer(web_profile=False)
hub.start()
assert not [name for name in sys.modules if name.startswith("pyvo.samp.window")]
assert not [thread for thread in threading.enumerate() if "window" in thread.name]
assert hub._running.broker.observer is None
hub.stop()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=python_environment, check=True, timeout=60)


def test_observer_and_window(make_hub: Callable[..., SAMPHubServer]) -> None:
    """A hub monitor continues to get the traffic."""
    hub = SAMPHubServer(web_profile=False)
    observed: list[Any] = []
    hub.observer = observed.append
    hub.start()
    window = Window(hub.open_window(browser=False)).open()
    with SAMPIntegratedClient(name="One"):
        assert window.wait_for(lambda update: update["ids"])
    assert observed
    window.close()
    hub.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_fork(hub: SAMPHubServer) -> None:
    """The child of a fork has no window, and the parent's window continues to work."""
    window = Window(hub.open_window(browser=False)).open()
    events = window.events()
    assert next(events)["full"]
    child = os.fork()
    if child == 0:
        os._exit(0 if not hub.is_running else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert window.get("/state")["full"]
    window.close()


# The command line


@pytest.mark.parametrize("options", [["--window"], ["--window", "--monitor"], ["--web-consent", "window"]])
def test_command(python_environment: dict[str, str], options: list[str]) -> None:
    """``--no-browser`` prints the link."""
    web = ["--web-port", "0"] if "--web-consent" in options else ["-w"]
    with Program(["-m", "pyvo.samp", "hub", *options, "--no-browser", *web], python_environment) as program:
        program.wait_for("/#")
        window = Window(LINK.findall(program.output)[0]).open()
        assert window.get("/state")["full"]
        program.process.terminate()
        assert program.wait() == 0
        window.close()


def test_command_opens_a_browser(python_environment: dict[str, str], browser: Path) -> None:
    """The token is neither in the list of processes nor in the output of the hub."""
    environment = {**python_environment, "BROWSER": os.environ["BROWSER"]}
    with Program(["-m", "pyvo.samp", "hub", "--window", "-w"], environment) as program:
        program.wait_for("The hub window is served")
        program.wait_for("The browser has read the file")
        command, _, page = browser.read_text().split("\n", 2)
        [link] = LINK.findall(page)
        token = link.partition("#")[2]
        assert token not in command
        lists = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
        assert lists
        assert not [line for line in lists if token.encode() in line]
        program.process.terminate()
        assert program.wait() == 0
        assert not LINK.findall(program.output)
