# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""JupyterLab or Notebook, with a kernel that uses this package, and a page of it in a browser."""
from __future__ import annotations

import itertools
import json
import os
import re
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .browser import Browser, Page
from .programs import Program, environment

ROOT = Path(__file__).parents[2]

#: Finds the open notebook, and waits until its kernel is idle.
_READY = """
(async () => {
    const tick = () => new Promise((resolve) => setTimeout(resolve, 50));
    while (!window.jupyterapp) await tick();
    await window.jupyterapp.started;
    const widget = () => window.jupyterapp.shell.currentWidget;
    while (!widget()?.content?.widgets || !widget().sessionContext) await tick();
    await widget().sessionContext.ready;
    while (widget().sessionContext.session?.kernel?.status !== "idle") await tick();
    return window.jupyterapp.version;
})()
"""
#: Returns the outputs when they have a text or an error.
_OUTPUT = """
(async () => {
    const end = Date.now() + 35000;
    for (;;) {
        const outputs = [...document.querySelectorAll(".jp-OutputArea-output")];
        const isError = (text) => text.includes("Traceback (most recent call last)");
        const texts = outputs.map((each) => each.innerText);
        const plain = texts.filter((text) => !isError(text)).join("\\n");
        if (plain.includes(%s) || Date.now() > end) return plain;
        if (texts.some(isError)) return `ERROR ${texts.join("\\n")}`;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
})()
"""
_RUN = """
(() => {
    window.jupyterapp.shell.currentWidget.content.activeCellIndex = %d;
    window.jupyterapp.commands.execute("notebook:run-cell");
    return true;
})()
"""


class JupyterServer(Program):
    """
    A Jupyter server with JupyterLab or Notebook. Each notebook has its own kernel.

    Parameters
    ----------
    directory : Path
        The directory of the notebooks, and of all other files of the server.
    app : str
        ``lab`` or ``notebook``.
    server, kernel : str
        The Pythons in which the server and the kernels run.
    **variables : str
        More environment variables of server and kernels.
    """

    def __init__(
        self, directory: Path, app: str = "lab", server: str = sys.executable, kernel: str = sys.executable,
        **variables: str,
    ) -> None:
        self.directory = directory
        self.app = app
        self._workspaces = itertools.count()
        spec = directory / "data" / "kernels" / "test"
        spec.mkdir(parents=True)
        argv = [kernel, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "test", "language": "python"}))
        # An installation of this package enables the extension, with which the server offers files to every hub
        extensions = {"ServerApp": {"jpserver_extensions": {"pyvo.samp.jupyter_server": False}}}
        (directory / "config").mkdir()
        (directory / "config" / "jupyter_server_config.json").write_text(json.dumps(extensions))
        env = environment(
            directory, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1", IPYTHONDIR=str(directory / "ipython"),
            JUPYTER_PATH=str(directory / "data"), JUPYTER_RUNTIME_DIR=str(directory / "runtime"),
            JUPYTER_CONFIG_DIR=str(directory / "config"), **variables,
        )
        exposing = "LabApp" if app == "lab" else "JupyterNotebookApp"
        super().__init__(
            server, "-m", "jupyter", app, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=0", "--IdentityProvider.token=secret", f"--{exposing}.expose_app_in_browser=True",
            f"--ServerApp.root_dir={directory}", "--LabApp.news_url=", env=env,
        )
        self.port = int(self.wait_for_match(r"http://(?:127\.0\.0\.1|localhost):(\d+)/\S*token=\.\.\.\n", 60)[1])

    def write(self, name: str, *cells: str) -> None:
        """Write a notebook with these cells of code."""
        described = [
            {"cell_type": "code", "id": f"cell{number}", "metadata": {}, "outputs": [], "execution_count": None,
             "source": cell.strip()}
            for number, cell in enumerate(cells)
        ]
        metadata = {"kernelspec": {"name": "test", "display_name": "test", "language": "python"}}
        content = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": described}
        (self.directory / f"{name}.ipynb").write_text(json.dumps(content))

    def url(self, name: str, port: int | None = None) -> str:
        """Return the URL of the page of a notebook."""
        # each URL has its own workspace, because JupyterLab opens the documents of a workspace again
        workspace = f"lab/workspaces/{name}{next(self._workspaces)}/tree"
        path = f"{workspace if self.app == 'lab' else 'notebooks'}/{name}.ipynb"
        return f"http://127.0.0.1:{port or self.port}/{path}?token=secret"


class NotebookPage:
    """
    The page of a notebook.

    Parameters
    ----------
    browser : Browser
        The browser, in which a tab is opened.
    url : str
        The address of the page.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self.page: Page = browser.open(url)
        self.version = str(self.page.evaluate(_READY))

    def run(self, number: int) -> None:
        """Start a cell. It may run while the test continues."""
        self.page.evaluate(_RUN % number)

    def wait_for(self, text: str) -> str:
        """Wait until the outputs contain a text; return its line. An error before that fails the test."""
        output = str(self.page.evaluate(_OUTPUT % json.dumps(text)))
        found = [line for line in output.split("\n") if text in line and not output.startswith("ERROR")]
        if not found:
            pytest.fail(f"no {text!r} in the output, but:\n{output}")
        return found[-1]

    def connect(self) -> None:
        """Click the button of the relay."""
        self.page.wait_for(".pyvo-samp button")
        self.page.act(".pyvo-samp button", "click")

    def relay_text(self, title: str) -> str:
        """Wait until the relay shows a title; return its whole text."""
        self.page.wait_for(f".pyvo-samp header >> text={title}")
        return self.page.text(".pyvo-samp")

    def execute(self, command: str) -> None:
        """Execute a command of JupyterLab, as its menus do, and wait until it has ended."""
        self.page.evaluate(f"window.jupyterapp.commands.execute({command!r}).then(() => true)")

    def reload(self) -> None:
        """Reload the page, and wait until the notebook is open. Its kernel may be busy."""
        self.page.reload()
        self.page.evaluate(_READY.replace('!== "idle"', "=== undefined"))


class Proxy:
    """
    A network between the browser and the Jupyter server. It can be interrupted.

    Parameters
    ----------
    port : int
        The port of the server.
    server : socket, optional
        The socket for the browser, which may be in another network than the server.
    """

    def __init__(self, port: int, server: socket.socket | None = None) -> None:
        self._target = port
        self._server = server or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_down = False
        self._start(self._accept)

    def _start(self, function: Any, *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if self._is_down:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                self._start(self._copy, near, far)
                self._start(self._copy, far, near)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break all connections and accept no new ones."""
        self._is_down = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Accept connections again."""
        self._is_down = False

    def stop(self) -> None:
        """Close all sockets."""
        self.cut()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()


def venv_python(directory: Path, *packages: str) -> str:
    """
    Return the Python of a virtual environment with these packages. The environment is created if it does not exist.
    """
    name = "-".join(re.sub(r"\W+", "_", package) for package in packages)
    python = directory / name / "bin" / "python"
    done = directory / name / "done"
    if not done.exists():
        import subprocess
        import venv

        venv.create(directory / name, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *packages, "anywidget", "astropy"]
        subprocess.run(command, check=True, env={**os.environ, "TMPDIR": str(directory)})
        done.touch()
    return str(python)
