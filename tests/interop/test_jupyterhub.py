# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Two users of one JupyterHub. Each has a computer with a hub, a client and a browser in its own network."""
from __future__ import annotations

import io
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.jupyter_server import publish_file
from pyvo.samp.web_profile.consent import ConsentPrompt, ConsentTicket, Decision

from .browser import NODE, Browser
from .jupyterhub import PASSWORD, JupyterHub, User, running_jupyterhub
from .network import WEB_PORT, own_network
from .notebooks import _READY, NotebookPage, Proxy
from .programs import environment, need, until

T = TypeVar("T")

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

HOST = "hub.example"
USERS = ("alice", "bob")
SHOW = """
from pyvo.samp import SAMPIntegratedClient
from pyvo.samp.jupyter import HubRelay
from astropy.table import Table
relay = HubRelay()
relay
"""
SEND = """
client = SAMPIntegratedClient(name="notebook of USER")
client.connect(web=relay)
table = Table({"ra": [1.0] * ROWS, "user": ["USER"] * ROWS})
report = client.send(table, to="viewer of USER", name="table of USER")
assert report.ok, report
response = client.ecall_and_wait("viewer of USER", "coord.pointAt.sky", "60", ra=ROWS, dec=0)
print("all:", sorted(each.name for each in client.clients), response["samp.result"], relay.path)
"""
AGAIN = """
client.disconnect()
client.connect(web=relay)
client.enotify_all("coord.pointAt.sky", ra=ROWS + 1, dec=0)
print("registered again")
"""
#: Requests the kernels of a user, as a page of JupyterLab does; returns the status.
_KERNELS = """
fetch("/user/%s/api/kernels", { headers: { "X-XSRFToken": document.cookie.match(/_xsrf=([^;]*)/)[1] } })
    .then((response) => response.status)
"""


@pytest.fixture(scope="module")
def jupyterhub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterHub]:
    """A JupyterHub with a running server of each user."""
    need("node", "openssl")
    with running_jupyterhub(tmp_path_factory.mktemp("jupyterhub")) as hub:
        for user in (User(hub, name) for name in USERS):
            assert user.fetch("GET", "/hub/spawn")[0] == 302
        for user in (User(hub, name) for name in USERS):
            path = f"/user/{user.name}/pyvo-samp/data/"
            until(lambda user=user, path=path: user.fetch("GET", path), lambda got: got[0] == 200, 120)
        yield hub


def publish(hub: JupyterHub, name: str, content: bytes) -> str:
    """Publish a file as the kernel of a user does; return the path of the URL."""
    home = hub.home / "home" / name
    (home / "table.vot").write_bytes(content)
    directory = home / ".local" / "share" / "jupyter" / "runtime" / "pyvo-samp-data"
    return f"/user/{name}/{publish_file(home / 'table.vot', directory=directory).url_path}"


class AnonymousUser(User):
    """A user who has not logged in."""

    def __init__(self, hub: JupyterHub) -> None:
        self._port = hub.port
        self._cookies = {}


def test_a_published_file_needs_no_login(jupyterhub: JupyterHub) -> None:
    """TOPCAT has no cookie. The token in the URL allows access to this file of this user only."""
    anonymous = AnonymousUser(jupyterhub)
    path = publish(jupyterhub, "alice", b"of alice")
    assert anonymous.fetch("GET", path) == (200, b"of alice")
    assert anonymous.fetch("GET", path.replace("alice", "bob"))[0] == 404
    assert anonymous.fetch("GET", path + "x")[0] == 404
    assert anonymous.fetch("GET", "/user/alice/api/contents")[0] == 403
    token = path.split("/")[-2]
    jupyterhub.program.wait_for("/user/alice/pyvo-samp/data/.../table.vot")
    assert token not in jupyterhub.program.output


class Consent(ConsentPrompt):
    """A consent prompt that allows every registration for always."""

    def __init__(self) -> None:
        self.origins: list[str] = []
        self.offered_always: list[bool] = []

    def ask(self, ticket: ConsentTicket) -> Decision:
        """Record the request and allow it."""
        self.origins.append(ticket.request.origin)
        self.offered_always.append(ticket.request.can_always_allow)
        return Decision.ALWAYS


class Computer:
    """
    The computer of a user, in its own network: a hub, a client that receives tables, and a browser.

    `run` calls a function in that network.
    """

    def __init__(self, user: str, jupyterhub: JupyterHub, home: Path) -> None:
        self.user = user
        self.jupyterhub = jupyterhub
        self.home = home
        self.consent = Consent()
        self.tables: list[bytes] = []
        self.positions: list[int] = []
        self._stack = ExitStack()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"computer of {user}")
        try:
            self.run(self._start)
        except BaseException:
            self.stop()
            raise

    def run(self, function: Callable[..., T], *args: Any) -> T:
        return self._thread.submit(function, *args).result(180)

    def _start(self) -> None:
        self._stack.enter_context(own_network())
        self.hub = SAMPHubServer(
            web_port=WEB_PORT, web_profile_dialog=self.consent, lockfile=self.home / ".samp", label=self.user
        )
        self.hub.start()
        self._stack.callback(self.hub.stop)
        assert self.hub.web_profile_running
        self.client = SAMPIntegratedClient(name=f"viewer of {self.user}")

        @self.client.on("coord.pointAt.sky")
        def point(ra: float) -> dict[str, str]:
            self.positions.append(int(ra))
            return {"seen by": self.user}

        @self.client.on("table.load.votable")
        def load(url: str) -> None:
            self.tables.append(Path(url.removeprefix("file://")).read_bytes())

        self.client.connect(hub=self.hub)
        self._stack.callback(self.client.disconnect)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.origin = f"https://{HOST}:{self.port}"
        flags = (
            f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
            "--ignore-certificate-errors",
            f"--ip-address-space-overrides=127.0.0.1:{self.port}=public",
        )
        self.browser = Browser(shutil.which("chromium") or "", self.home, environment(self.home), flags)
        self._stack.callback(self.browser.stop)

    def names(self) -> list[str]:
        """Return the names of the clients of the hub."""
        return sorted(each.name for each in self.client.clients)

    def stop(self) -> None:
        self._thread.submit(self._stack.close).result(60)
        self._thread.shutdown()


class HubNotebookPage(NotebookPage):
    """The page of a notebook. Its user logs in to the JupyterHub."""

    def __init__(self, computer: Computer, name: str) -> None:
        target = f"/user/{computer.user}/lab/tree/{name}.ipynb"
        self.page = computer.browser.open(f"{computer.origin}/hub/login?next={target}")
        self.page.act("#username_input", "fill", computer.user)
        self.page.act("#password_input", "fill", PASSWORD)
        self.page.act("#login_submit", "click")
        self.page.act("page", "waitForURL", f"**{target}")
        self.version = str(self.page.evaluate(_READY))


@pytest.fixture
def computers(jupyterhub: JupyterHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Computer]]:
    """One computer for each user."""
    need("chromium")
    for module in ("playwright-core", "configurable-http-proxy"):
        if not (NODE / "node_modules" / module).is_dir():
            pytest.skip(f"{module} is not installed (tests/interop/install does it)")
    with ExitStack() as stack:
        found = []
        for user in USERS:
            computer = Computer(user, jupyterhub, tmp_path_factory.mktemp(user))
            stack.callback(computer.stop)
            # the threads of the proxy run in this network, in which the JupyterHub is
            stack.callback(Proxy(jupyterhub.port, computer.server).stop)
            found.append(computer)
        yield found


def write_notebook(path: Path, *cells: str) -> None:
    described = [
        {"cell_type": "code", "id": f"cell{number}", "metadata": {}, "outputs": [], "execution_count": None,
         "source": cell.strip()}
        for number, cell in enumerate(cells)
    ]  # fmt: skip
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": described}))


def test_two_users(jupyterhub: JupyterHub, computers: list[Computer], artefacts: Path) -> None:
    """Two users work at the same time, and neither sees the other."""
    def work(computer: Computer) -> NotebookPage:
        rows = str(10 + computers.index(computer))
        cells = [cell.replace("USER", computer.user).replace("ROWS", rows) for cell in (SHOW, SEND, AGAIN)]
        write_notebook(jupyterhub.home / "home" / computer.user / "relay.ipynb", *cells)
        page = HubNotebookPage(computer, "relay")
        page.run(0)
        page.page.wait_for(".pyvo-samp button")
        computer.browser.grant_permission(computer.origin, "local-network-access")
        page.connect()
        try:
            page.relay_text("Connected")
        except BaseException:
            page.page.screenshot(artefacts / f"jupyterhub-{computer.user}-failed.png")
            raise
        page.run(1)
        return page

    pages = in_parallel(work, computers)
    for number, (computer, page) in enumerate(zip(computers, pages, strict=True)):
        line = page.wait_for("all:")
        page.page.screenshot(artefacts / f"jupyterhub-{computer.user}.png")
        expected = f"all: ['viewer of {computer.user}'] {{'seen by': '{computer.user}'}} control"
        assert line.strip() == expected
        assert computer.run(computer.names) == [f"notebook of {computer.user}"]
        assert computer.positions == [10 + number]
        (table,) = computer.tables
        assert list(Table.read(io.BytesIO(table), format="votable")["user"]) == [computer.user] * (10 + number)
        users = (computer.user, USERS[1 - number])
        assert [page.page.evaluate(_KERNELS % user) for user in users] == [200, 403]
    in_parallel(lambda page: page.run(2), pages)
    for number, (computer, page) in enumerate(zip(computers, pages, strict=True)):
        page.wait_for("registered again")
        until(lambda computer=computer: computer.positions, lambda found: len(found) == 2)
        assert computer.positions == [10 + number, 11 + number]
        # the users of a JupyterHub share an origin, so "always" is not offered, and each registration needs consent
        assert computer.consent.origins == [computer.origin] * 2
        assert computer.consent.offered_always == [False, False]


def in_parallel(function: Callable[[Any], T], items: list[Any]) -> list[T]:
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(function, items))
