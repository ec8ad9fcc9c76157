# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A JupyterHub behind TLS. Users log in with any name; their servers have the extension of this package."""
from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from .programs import Program, environment

ROOT = Path(__file__).parents[2]
NODE_MODULES = Path(__file__).with_name("node") / "node_modules"
#: The environment with JupyterHub and JupyterLab that `tests/interop/install` makes.
PYTHON = Path(__file__).with_name("jupyterhub-venv") / "bin" / "python"
PASSWORD = "secret of the test"

_CONFIG = """
c = get_config()
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {home!r} + "/{{username}}"
c.Spawner.args = ["--allow-root", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url="]
c.Spawner.environment = {{"PYTHONPATH": {root!r}, "JUPYTER_CONFIG_DIR": {config!r}, "JUPYTER_PLATFORM_DIRS": "0"}}
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
c.ConfigurableHTTPProxy.command = ["node", {proxy!r}]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.should_start = True
c.JupyterHub.bind_url = "https://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.ssl_key = "key.pem"
c.JupyterHub.ssl_cert = "certificate.pem"
"""


def find_python() -> str:
    """Find a Python with JupyterHub; skip the test if there is none."""
    for python in (os.environ.get("JUPYTERHUB_PYTHON"), str(PYTHON), sys.executable):
        if python and Path(python).exists():
            check = "import jupyterhub, jupyterlab, astropy"
            if not subprocess.run([python, "-c", check], capture_output=True, check=False).returncode:
                return python
    pytest.skip("JupyterHub is not installed (tests/interop/install does it)")


class JupyterHub:
    """
    A running JupyterHub.

    Attributes
    ----------
    program : Program
        Its process. The output is that of the hub and of its users' servers.
    url : str
        The URL for users, with a slash at the end.
    """

    def __init__(self, program: Program, port: int, home: Path) -> None:
        self.program = program
        self.port = port
        self.url = f"https://127.0.0.1:{port}/"
        self.home = home


class User:
    """A user who has logged in without a browser: the cookies, and requests with them."""

    def __init__(self, hub: JupyterHub, name: str) -> None:
        self.name = name
        self._port = hub.port
        self._cookies: dict[str, str] = {}
        self.fetch("GET", "/hub/login")
        form = {"username": name, "password": PASSWORD, "_xsrf": self._cookies["_xsrf"]}
        status, _body = self.fetch("POST", f"/hub/login?{urlencode({'_xsrf': self._cookies['_xsrf']})}", form)
        assert status == 302, status

    def fetch(self, method: str, path: str, form: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=no_verification(), timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, urlencode(form) if form is not None else None, headers)
            response = connection.getresponse()
            for value in response.headers.get_all("Set-Cookie") or ():
                name, _, rest = value.partition("=")
                self._cookies[name.strip()] = rest.partition(";")[0]
            return response.status, response.read()


def no_verification() -> ssl.SSLContext:
    """Return a context that accepts the certificate of the test."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def running_jupyterhub(directory: Path) -> Iterator[JupyterHub]:
    """Start a JupyterHub in an empty directory; skip the test if it is not installed."""
    proxy = NODE_MODULES / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    if not proxy.exists():
        pytest.skip("configurable-http-proxy is not installed (tests/interop/install does it)")
    python = find_python()
    enabled = directory / "config" / "jupyter_server_config.d"
    enabled.mkdir(parents=True)
    shutil.copy(ROOT / "jupyter-config" / "pyvo-samp.json", enabled)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key.pem", "-out",
         "certificate.pem", "-subj", "/CN=localhost"],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        port, hub_port, proxy_port = (each.getsockname()[1] for each in sockets)
    (directory / "jupyterhub_config.py").write_text(
        _CONFIG.format(
            password=PASSWORD, home=str(directory / "home"), root=str(ROOT), config=str(directory / "config"),
            proxy=str(proxy), port=port, hub_port=hub_port, proxy_port=proxy_port,
        )
    )  # fmt: skip
    (directory / "home").mkdir()
    command = ("env", "-C", str(directory), python, "-m", "jupyterhub", "-f", "jupyterhub_config.py")
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    with Program(*command, env=environment(directory, PATH=path)) as program:
        program.wait_for("JupyterHub is now running", 120)
        yield JupyterHub(program, port, directory)
