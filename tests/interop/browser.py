# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A browser that Python drives, with pages of `node/client.html`, which use sampjs."""
from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil

from .programs import Program, environment

NODE = Path(__file__).with_name("node")
TIMEOUT = 40.0


class Page:
    """One tab of a browser."""

    def __init__(self, browser: Browser, number: int) -> None:
        self._browser = browser
        self._number = number
        self._closed = False

    def start(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the page's `client`. The future gets its result."""
        return self._browser.submit("run", page=self._number, method=method, args=args)

    def run(self, method: str, *args: Any) -> Any:
        """Call a method of the page's `client` and wait for its result."""
        return self.start(method, *args).result(TIMEOUT)

    def act(self, of: str, method: str, *args: Any) -> Any:
        """Call a method of Playwright: ``of`` is ``"page"``, ``"keyboard"`` or a selector."""
        return self._browser.submit("act", page=self._number, of=of, method=method, args=args).result(TIMEOUT)

    def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript in the page; wait for the result if it is a promise."""
        return self._browser.submit("evaluate", page=self._number, expression=expression).result(TIMEOUT)

    def metrics(self) -> dict[str, float]:
        """Return Chromium's counters for the tab, such as JSHeapUsedSize and Nodes, after a garbage collection."""
        result: dict[str, float] = self._browser.submit("metrics", page=self._number).result(TIMEOUT)
        return result

    def wait_for(self, selector: str, state: str = "visible") -> None:
        """Wait until the element of a selector is visible, hidden, attached or detached."""
        self.act(selector, "waitFor", {"state": state, "timeout": 1000 * TIMEOUT / 2})

    def text(self, selector: str) -> str:
        """Return the text of the element of a selector."""
        return str(self.act(selector, "innerText"))

    def set_permission(self, origin: str, name: str, setting: str) -> None:
        """Set a permission of an origin to ``granted``, ``denied`` or ``prompt`` (Chromium only)."""
        self._browser.submit(
            "setPermission", page=self._number, origin=origin, name=name, setting=setting
        ).result(TIMEOUT)

    def reload(self) -> None:
        """Reload the page. It loses its state."""
        self._browser.submit("reload", page=self._number).result(TIMEOUT)

    def go(self, url: str) -> None:
        """Load another page in this tab."""
        self._browser.submit("goto", page=self._number, url=url).result(TIMEOUT)

    def back(self) -> None:
        """Go back to the previous page."""
        self._browser.submit("back", page=self._number).result(TIMEOUT)

    def close_dialog(self) -> None:
        """Click the button of the dialog that blocks the page."""
        self._browser.submit("closeDialog", page=self._number).result(TIMEOUT)

    def close(self) -> None:
        """Close the tab as a user does. The page does not unregister. Closing it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._browser.submit("close", page=self._number).result(TIMEOUT)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the tab to a PNG file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._browser.submit("screenshot", page=self._number, path=str(path)).result(TIMEOUT)


class Browser:
    """A headless Chromium or Firefox with its own profile.

    Parameters
    ----------
    executable : str
        The browser to run.
    directory : Path
        An empty directory for the profile and the log of the browser.
    env : mapping
        The environment of the browser.
    flags : sequence of str
        More arguments for Chromium.
    """

    def __init__(
        self, executable: str, directory: Path, env: Mapping[str, str], flags: Sequence[str] = ()
    ) -> None:
        self._numbers = itertools.count(1)
        self._pages = itertools.count(1)
        self._open: dict[int, Future[Any]] = {0: Future()}
        self._lock = threading.Lock()
        self.log = directory / "browser.log"
        self.is_firefox = "firefox" in Path(executable).name
        driver = NODE / ("firefox.mjs" if self.is_firefox else "driver.mjs")
        profile = directory / "profile"
        profile.mkdir()
        # Chromium makes a socket in TMPDIR, whose path may have 107 characters
        self._temporary = tempfile.TemporaryDirectory(prefix="b-", dir="/tmp", ignore_cleanup_errors=True)
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                ["node", str(driver), executable, str(profile), *flags],
                env={**env, "TMPDIR": self._temporary.name}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )
        hello = self._open[0]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._reader = threading.Thread(target=self._read, args=(self._from,), name="browser", daemon=True)
        self._reader.start()
        hello.result(TIMEOUT)

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            response = json.loads(line)
            with self._lock:
                future = self._open.pop(response["id"])
            if "error" in response:
                future.set_exception(RuntimeError(response["error"]))
            else:
                future.set_result(response["result"])
        with self._lock:
            left, self._open = self._open, {}
        for future in left.values():
            future.set_exception(RuntimeError(f"the browser has ended: {self.log.read_text()}"))

    def submit(self, command: str, **details: Any) -> Future[Any]:
        """Send a command to the driver. The future gets its result."""
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._open[number] = future
            self._to.write(json.dumps({"id": number, "do": command, **details}) + "\n")
            self._to.flush()
        return future

    def open(self, url: str) -> Page:
        """Open a tab with this URL."""
        number = next(self._pages)
        self.submit("open", page=number, url=url).result(TIMEOUT)
        return Page(self, number)

    def grant_permission(self, origin: str, name: str) -> None:
        """Grant a permission to an origin for as long as the browser runs (Chromium only)."""
        self.submit("grantPermission", origin=origin, name=name).result(TIMEOUT)

    @property
    def pid(self) -> int:
        """The id of the process that drives the browser."""
        return self._process.pid

    def tab_processes(self) -> list[psutil.Process]:
        """Return the processes that run pages, without those of the browser's windows, network and graphics."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            arguments = process.cmdline()
            if (arguments[-1:] == ["tab"]) if self.is_firefox else ("--type=renderer" in arguments):
                found.append(process)
        assert found
        return found

    def kill(self) -> None:
        """Kill the browser, as a crash does."""
        driver = psutil.Process(self._process.pid)
        for process in [*driver.children(recursive=True), driver]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.stop()

    def stop(self) -> None:
        """Close the browser with all its tabs."""
        with suppress(BrokenPipeError):  # the browser may have been killed
            self._to.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        self._reader.join(10)
        self._from.close()
        self._temporary.cleanup()


class Site(Program):
    """A web server on its own port, and so with its own origin. It sends no CORS headers.

    Parameters
    ----------
    directory : Path
        The directory that it serves.
    host : str
        The host name in its URLs. ``localhost`` and ``127.0.0.1`` are two origins even on one port.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        # It runs in another process, because a browser keeps idle connections, and each would need a thread here.
        command = (sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(directory), "0")
        super().__init__(*command, env=environment(directory))
        port = self.wait_for_match(r"port ([0-9]+)\s")[1]
        self.origin = f"http://{host}:{port}"

    def url(self, path: str) -> str:
        """Return the URL of a file in the directory."""
        return f"{self.origin}/{path}"
