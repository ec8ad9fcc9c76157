# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The relay in notebooks: JupyterLab in Chromium, a kernel, and a hub on the computer of the browser."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.web_profile import pull_queue

from .browser import NODE, Browser
from .conftest import Run
from .network import WEB_PORT, own_network
from .notebooks import ROOT, JupyterServer, NotebookPage, Proxy, venv_python
from .programs import Screen, environment, need, until, wait_for_hub

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

#: The installed combination is always tested. Each of the others needs a new environment.
HERE = pytest.param(("lab", "", ""), id="installed")
MATRIX = [
    pytest.param((app, server, kernel), id=f"{server}, {kernel}", marks=[pytest.mark.matrix, pytest.mark.timeout(1800)])
    for app, server in [("lab", "jupyterlab==4.3.*"), ("lab", "jupyterlab"), ("notebook", "notebook")]
    for kernel in ["ipykernel==6.31.*", "ipykernel==7.3.*", "ipykernel==7.4.*", "ipykernel"]
]
#: The directory for the environments of the matrix.
VENVS = Path(__file__).parents[2] / "build" / "venvs"

SHOW = """
from pyvo.samp import SAMPIntegratedClient
from pyvo.samp.jupyter import HubRelay
from astropy.table import Table
from IPython.display import display
import time
relay = HubRelay(port=PORT)
display(relay)
"""
CONNECT = """
client = SAMPIntegratedClient(name="notebook")
client.connect(web=relay)
print("connected by", relay.path)
"""


def show_relay(hub: SAMPHubServer) -> str:
    """Return a cell that shows a relay for a hub."""
    return SHOW.replace("PORT", str(hub._web_port))


TABLE = "table = Table({'ra': [1.0, 2.0, 3.0], 'name': ['one', 'two', 'three']})\n"


@pytest.fixture(scope="session")
def pythons(request: pytest.FixtureRequest) -> dict[str, str]:
    """The Pythons of the environments that the chosen tests need. They are installed here, while there is a network."""
    made = {"": sys.executable}
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        for name in callspec.params.get("any_jupyter", ())[1:] if callspec is not None else ():
            if name not in made:
                made[name] = venv_python(VENVS, name, *(["matplotlib"] if "ipykernel" in name else []))
    return made


@pytest.fixture(scope="module", autouse=True)
def network(pythons: dict[str, str]) -> Iterator[None]:
    """One network for the hub, Jupyter, the browser and the clients of all tests here."""
    need("node", "chromium")
    if not (NODE / "node_modules" / "playwright-core").is_dir():
        pytest.skip("playwright-core is not installed (tests/interop/install does it)")
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    with own_network():
        yield


def connect_client(notebook: NotebookPage) -> None:
    """Run the cell with the relay, click Connect, and run the cell that connects the client."""
    notebook.run(0)
    notebook.connect()
    notebook.relay_text("Connected")
    notebook.run(1)
    notebook.wait_for("connected by")


def start_jupyter(directory: Path, app: str, server: str, kernel: str) -> JupyterServer:
    """Start a Jupyter server with these Pythons for the server and the kernels."""
    for name in ("jupyterlab", "ipykernel") if server == sys.executable else ():
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed (the extra 'libraries' has it)")
    return JupyterServer(directory, app, server, kernel)


@pytest.fixture(scope="module")
def jupyter(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A Jupyter server with the installed packages."""
    with start_jupyter(tmp_path_factory.mktemp("jupyter"), "lab", sys.executable, sys.executable) as server:
        yield server


@pytest.fixture(scope="module", params=[HERE, *MATRIX])
def any_jupyter(
    network: None, pythons: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[JupyterServer]:
    app, server_name, kernel_name = request.param
    directory = tmp_path_factory.mktemp("jupyter")
    with start_jupyter(directory, app, pythons[server_name], pythons[kernel_name]) as server:
        yield server


def start_browser(directory: Path, *flags: str) -> Browser:
    return Browser(shutil.which("chromium") or "", directory, environment(directory), flags)


@pytest.fixture(scope="module")
def browser(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = start_browser(tmp_path_factory.mktemp("browser"))
    yield one
    one.stop()


@pytest.fixture(scope="module")
def public_browser(jupyter: JupyterServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that treats the Jupyter server as one on the internet."""
    flag = f"--ip-address-space-overrides=127.0.0.1:{jupyter.port}=public"
    one = start_browser(tmp_path_factory.mktemp("browser"), flag)
    yield one
    one.stop()


@pytest.fixture
def hub(home: Path) -> Iterator[SAMPHubServer]:
    """Our hub. It allows every registration."""
    server = SAMPHubServer(web_port=0, web_profile_dialog=lambda _name, _origin: True)
    server.start()
    yield server
    server.stop()


class Near:
    """A client on the computer of the hub. It records positions and tables."""

    def __init__(self, client: SAMPIntegratedClient) -> None:
        self.client = client
        self.positions: list[float] = []
        self.rows: list[int] = []
        self.arrived = threading.Event()
        self.proceed = threading.Event()
        self.proceed.set()

        @client.on("coord.pointAt.sky")
        def point(ra: float) -> dict[str, str]:
            self.positions.append(ra)
            self.arrived.set()
            assert self.proceed.wait(120)
            return {"seen": str(ra)}

        @client.on("table.load.votable")
        def load(table_id: str, url: str) -> None:
            self.table_id, self.url = table_id, url
            self.size = Path(url.removeprefix("file://")).stat().st_size

        client.bind_receive_notification("table.select.rowList", lambda *_args: None)

    def select(self, *rows: int) -> None:
        """Select rows of the latest table, as a user of TOPCAT does."""
        params = {"table-id": self.table_id, "url": self.url, "row-list": [str(row) for row in rows]}
        self.client.enotify_all("table.select.rowList", **params)


@pytest.fixture
def near(hub: SAMPHubServer) -> Iterator[Near]:
    client = SAMPIntegratedClient(name="near")
    client.connect(hub=hub)
    yield Near(client)
    client.disconnect()


@pytest.fixture
def open_notebook(jupyter: JupyterServer, browser: Browser) -> Iterator[Callable[..., NotebookPage]]:
    """Return a function that opens a notebook with these cells in a new tab. Its kernel is ended after the test."""
    with ExitStack() as stack:
        def start(name: str, *cells: str, port: int | None = None) -> NotebookPage:
            jupyter.write(name, *cells)
            opened = NotebookPage(browser, jupyter.url(name, port))
            stack.callback(close, opened)
            return opened

        yield start


SESSION = "window.jupyterapp.shell.currentWidget.sessionContext"


def close(opened: NotebookPage) -> None:
    opened.page.evaluate(f"{SESSION}.shutdown().then(() => true, () => true)")
    opened.page.close()


def clients_of(hub: SAMPHubServer, near: Near) -> list[str]:
    return [each.name for each in near.client.clients if each.name == "notebook"]


# All paths to the kernel

ONE_CELL = SHOW + CONNECT + TABLE + """
report = client.send(table, to="near", name="stars")
assert report.ok, report
response = client.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=12, dec=34)
assert response["samp.result"] == {"seen": "12.0"}, response
link = client.link(table, to="near")
print("linked", relay.state)
for _ in range(300):
    time.sleep(0.1)  # messages arrive while the cell runs
    if link.selection.any():
        break
print("selected", [str(name) for name in table["name"][link.selection]])
"""


def test_one_cell(
    any_jupyter: JupyterServer, browser: Browser, hub: SAMPHubServer, near: Near, artefacts: Path,
    request: pytest.FixtureRequest,
) -> None:
    """One cell connects, sends a table and waits for replies. A selection arrives while the cell sleeps."""
    jupyter = any_jupyter
    jupyter.write("one", ONE_CELL.replace("PORT", str(hub._web_port)))
    notebook = NotebookPage(browser, jupyter.url("one"))
    try:
        notebook.run(0)
        notebook.connect()
        notebook.wait_for("connected by control")
        notebook.wait_for("linked open")
        near.select(0, 2)
        notebook.wait_for("selected ['one', 'three']")
        assert near.positions == [12.0]
        assert near.size > 100
        notebook.page.screenshot(artefacts / f"relay-{request.node.callspec.id}.png")
    finally:
        close(notebook)


#: Removes the control channel, as in a kernel without the handler of this package.
NO_CONTROL = "get_ipython().kernel.control_handlers.pop('comm_msg')\n"


def test_subshell(open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer, near: Near) -> None:
    """The second path is used when the first does not work. The relay chooses by the messages that arrive."""
    pytest.importorskip("ipykernel", minversion="7.3")
    show = show_relay(hub).replace("display(", NO_CONTROL + "display(")
    cell = show + CONNECT + 'print(client.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=1, dec=2))'
    notebook = open_notebook("subshell", cell)
    notebook.run(0)
    notebook.connect()
    notebook.wait_for("connected by subshell")
    notebook.wait_for("'seen': '1.0'")


def test_between_cells(open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer, near: Near) -> None:
    """The third path: a request in a cell is an error at once, but ``await`` and notifications work."""
    blocked = """
start = time.monotonic()
try:
    SAMPIntegratedClient(name="notebook").connect(web=relay)
except Exception as error:
    print("error", time.monotonic() - start < 2, error)
"""
    waiting = """
from pyvo.samp import AsyncSAMPClient
other = AsyncSAMPClient(name="notebook")
await other.connect(web=relay)
print("awaited", (await other.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=1, dec=2))["samp.status"])
near = (await other.get_registered_clients())
near = [each for each in near if (await other.get_metadata(each)).get("samp.name") == "near"][0]
"""
    sending = """
other.client.notify(near, {"samp.mtype": "coord.pointAt.sky", "samp.params": {"ra": "77", "dec": "0"}})
print("sent", relay.path)
"""
    # as in a front end without control channel and subshells
    without = NO_CONTROL + "relay.comm._reply_subshell_for = lambda _data, _default: None\n"
    pytest.importorskip("ipykernel", minversion="7.4")
    show = show_relay(hub).replace("display(", without + "display(")
    notebook = open_notebook("between", show, blocked, waiting, sending)
    notebook.run(0)
    notebook.connect()
    notebook.relay_text("Connected")
    notebook.run(1)
    notebook.wait_for("error True This notebook passes")
    notebook.run(2)
    notebook.wait_for("awaited samp.ok")
    notebook.run(3)
    notebook.wait_for("sent between cells")
    until(lambda: list(near.positions), lambda seen: 77.0 in seen)


MARIMO = """
import marimo
app = marimo.App()

@app.cell
def show():
    import threading
    import marimo as mo
    from pyvo.samp import SAMPIntegratedClient
    from pyvo.samp.jupyter import HubRelay
    relay = HubRelay(port=PORT)
    relay
    return SAMPIntegratedClient, mo, relay, threading

@app.cell
def buttons(mo):
    first, second = mo.ui.run_button(label="first"), mo.ui.run_button(label="second")
    mo.hstack([first, second])
    return first, second

@app.cell
def start(SAMPIntegratedClient, first, mo, relay, threading):
    mo.stop(not first.value)
    client = SAMPIntegratedClient(name="notebook")
    try:
        client.connect(web=relay)
    except Exception as error:
        mo.output.replace(mo.plain_text(f"error: {error}"))
    responses = []
    def call():
        client.connect(web=relay)
        responses.append(client.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=4, dec=5)["samp.result"])
    threading.Thread(target=call).start()
    return client, responses

@app.cell
def end(client, mo, relay, responses, second):
    mo.stop(not second.value)
    mo.output.replace(mo.plain_text(f"later: {responses} {relay.path} {relay.state}"))
    return

if __name__ == "__main__":
    app.run()
"""


def test_marimo(
    browser: Browser, hub: SAMPHubServer, near: Near, run: Run, tmp_path: Path, artefacts: Path
) -> None:
    """Messages arrive between cells, so that a request in a cell is an error at once. A thread can wait."""
    if find_spec("marimo") is None:
        pytest.skip("marimo is not installed (the extra 'libraries' has it)")
    (tmp_path / "app.py").write_text(MARIMO.replace("PORT", str(hub._web_port)))
    program = run(
        sys.executable, "-m", "marimo", "run", str(tmp_path / "app.py"), "--headless", "--no-token",
        "--host", "127.0.0.1", "--port", "27181", PYTHONPATH=str(ROOT),
    )
    program.wait_for("URL:", 60)
    page = browser.open("http://127.0.0.1:27181")
    try:
        page.wait_for(".pyvo-samp button")
        page.act(".pyvo-samp button", "click")
        page.wait_for(".pyvo-samp header >> text=Connected")
        page.act("text=first >> nth=0", "click")
        page.wait_for("text=error: This notebook passes >> nth=0")
        until(lambda: list(near.positions), bool)

        def get_result() -> str:
            page.act("text=second >> nth=0", "click")
            page.wait_for("text=later: >> nth=0")
            return page.text("text=later: >> nth=0")

        shown = until(get_result, lambda text: "'seen': '4.0'" in text)  # the response arrives when no cell runs
        assert "between cells open" in shown
        page.screenshot(artefacts / "relay-marimo.png")
    finally:
        page.close()


# The permission of the browser


def test_permission_of_the_browser(
    jupyter: JupyterServer, public_browser: Browser, hub: SAMPHubServer, near: Near, artefacts: Path
) -> None:
    """
    The relay on a page of the internet shows helpful texts without a decision, after a denial, without a hub, and
    when granted.
    """
    jupyter.write("permission", show_relay(hub), CONNECT)
    notebook = NotebookPage(public_browser, jupyter.url("permission"))
    origin = f"http://127.0.0.1:{jupyter.port}"

    def permit(setting: str) -> None:
        for name in ("loopback-network", "local-network-access"):
            notebook.page.set_permission(origin, name, setting)

    try:
        notebook.run(0)
        text = notebook.relay_text("Not connected")
        assert "Your browser will ask whether" in text
        assert "Choose Allow" in text
        notebook.page.screenshot(artefacts / "relay-idle.png")
        permit("denied")
        notebook.connect()
        text = notebook.relay_text("Your browser does not allow it")
        assert "Click the icon" in text
        notebook.page.screenshot(artefacts / "relay-denied.png")
        permit("granted")
        port = hub._web_port
        hub.stop()
        notebook.connect()
        text = notebook.relay_text("No SAMP hub on this computer")
        assert "samp hub" in text
        notebook.page.screenshot(artefacts / "relay-no-hub.png")
        again = SAMPHubServer(web_port=port, web_profile_dialog=lambda _name, _origin: True)
        again.start()
        try:
            notebook.connect()
            notebook.relay_text("Connected")
            notebook.run(1)
            notebook.wait_for("connected by control")
            notebook.page.screenshot(artefacts / "relay-open.png")
        finally:
            again.stop()
    finally:
        close(notebook)


# Interruptions of page, kernel, hub and network

CALL = """
try:
    print("got", client.ecall_and_wait("near", "coord.pointAt.sky", "60", ra=5, dec=6)["samp.result"])
except Exception as error:
    print("failed", type(error).__name__, error)
"""
AFTER = """
print("after", client.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=7, dec=8)["samp.result"], relay.state)
"""


def test_reload_during_a_call(
    open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer, near: Near, tmp_path: Path
) -> None:
    """The call was sent and is not sent again. The client is still registered, and needs no click to continue."""
    record = tmp_path / "record"
    call = CALL + f"\nopen({str(record)!r}, 'w').write('done')\n"
    notebook = open_notebook("reload", show_relay(hub), CONNECT, call, AFTER)
    connect_client(notebook)
    near.proceed.clear()
    notebook.run(2)
    assert near.arrived.wait(30)
    own_id = next(each.id for each in near.client.clients if each.name == "notebook")
    notebook.execute("docmanager:save")
    notebook.reload()
    until(record.exists, bool, 60)
    near.proceed.set()
    notebook.run(3)
    notebook.wait_for("after {'seen': '7.0'}")
    assert near.positions == [5.0, 7.0]
    assert [each.id for each in near.client.clients if each.name == "notebook"] == [own_id]


def test_two_tabs(
    open_notebook: Callable[..., NotebookPage], jupyter: JupyterServer, browser: Browser, hub: SAMPHubServer, near: Near
) -> None:
    """The tab with the last click is connected, and the other tab shows this."""
    first = open_notebook("tabs", show_relay(hub), CONNECT, AFTER, AFTER.replace("after", "again"))
    first.run(0)
    first.connect()
    first.relay_text("Connected to the hub")
    first.run(1)
    first.wait_for("connected by")
    first.execute("docmanager:save")
    second = NotebookPage(browser, jupyter.url("tabs"))
    second.relay_text("Connected in another tab")
    second.connect()
    second.relay_text("Connected to the hub")
    first.relay_text("Connected in another tab")
    first.run(2)
    first.wait_for("after")
    second.page.close()
    first.relay_text("Not connected any more")
    first.connect()
    first.relay_text("Connected to the hub")
    first.run(3)
    first.wait_for("again")
    assert near.positions == [7.0, 7.0]


def test_kernel_restart(
    open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer, near: Near, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The client of the old kernel is unregistered after the time that a reload may take, and the page says what to
    do.
    """
    monkeypatch.setattr(pull_queue, "RELAY_TIMEOUT", 5.0)
    notebook = open_notebook("restart", show_relay(hub), CONNECT)
    connect_client(notebook)
    assert clients_of(hub, near)
    notebook.page.evaluate(f"{SESSION}.session.kernel.restart().then(() => 1)")
    notebook.relay_text("The kernel was restarted")
    until(lambda: clients_of(hub, near), lambda found: not found, 60)
    notebook.run(0)
    notebook.connect()
    notebook.relay_text("Connected")
    notebook.run(1)
    until(lambda: clients_of(hub, near), bool, 30)


def test_hub_restart(open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer) -> None:
    """A client with ``reconnect`` registers at the next hub. Until then the page shows that there is no hub."""
    again = CONNECT.replace("relay)", "relay, reconnect=True)")
    check = "for _ in range(300):\n    if client.is_connected: break\n    time.sleep(0.1)\nprint('again', relay.state)"
    port = hub._web_port
    notebook = open_notebook("hub", show_relay(hub), again, check)
    connect_client(notebook)
    hub.stop()
    notebook.relay_text("The hub no longer responds")
    another = SAMPHubServer(web_port=port, web_profile_dialog=lambda _name, _origin: True)
    another.start()
    try:
        notebook.relay_text("Connected")
        notebook.run(2)
        notebook.wait_for("again open")
    finally:
        another.stop()


@pytest.mark.parametrize("seconds", [15, pytest.param(60, marks=pytest.mark.matrix)])
def test_offline(
    open_notebook: Callable[..., NotebookPage], jupyter: JupyterServer, hub: SAMPHubServer, near: Near, seconds: int
) -> None:
    """The network fails during a call. The call is delivered once, and its response arrives afterwards."""
    proxy = Proxy(jupyter.port)
    try:
        notebook = open_notebook(
            f"offline{seconds}", show_relay(hub), CONNECT, CALL, AFTER, port=proxy.port
        )
        connect_client(notebook)
        near.proceed.clear()
        notebook.run(2)
        assert near.arrived.wait(30)
        proxy.cut()
        near.proceed.set()
        assert not threading.Event().wait(seconds)  # the network is down for this time
        proxy.mend()
        until(lambda: notebook.page.evaluate("document.querySelector('.jp-Notebook').innerText"),
              lambda text: "got {" in text or "failed" in text, 90)
        notebook.wait_for("got {'seen': '5.0'}")
        notebook.run(3)
        notebook.wait_for("after")
        assert near.positions == [5.0, 7.0]
    finally:
        proxy.stop()


# Interrupts, figures and saved notebooks

BIG = """
import os, secrets
with open("big.bin", "wb") as file:
    for _ in range(400):
        file.write(os.urandom(1024 * 1024))
print("written")
"""
UPLOAD = """
try:
    client.send("big.bin", to="near", mtype="table.load.x-raw")
except KeyboardInterrupt:
    print("interrupted")
else:
    print("it was too quick")
"""


def test_interrupt_during_a_transfer(
    open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer, near: Near
) -> None:
    """The cell ends, the hub removes the incomplete file, and the next message is sent."""
    near.client.bind_receive_call("table.load.x-raw", lambda *_args: {})
    notebook = open_notebook("interrupt", show_relay(hub), CONNECT + BIG, UPLOAD, AFTER)
    notebook.run(0)
    notebook.connect()
    notebook.relay_text("Connected")
    notebook.run(1)
    notebook.wait_for("written")
    notebook.run(2)
    notebook.page.wait_for(".pyvo-samp .detail >> text=to the hub")
    notebook.execute("notebook:interrupt-kernel")
    notebook.wait_for("interrupted")
    notebook.run(3)
    notebook.wait_for("after")
    assert near.positions == [7.0]
    directory = Path(tempfile.gettempdir())  # in which the hub stores uploads
    until(lambda: [path for path in directory.rglob("*") if path.is_file()], lambda found: not found)


FIGURE = """
%matplotlib inline
import matplotlib.pyplot as plt
plt.plot([1, 2])
print("before the call")
client.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=9, dec=9)
for _ in range(10):
    client.ping()
plt.title("set after the call")
print("at the end")
"""


def test_a_figure_is_shown_at_the_end_of_its_cell(
    open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer, near: Near
) -> None:
    """Messages that arrive while a cell draws do not show the figure too early."""
    pytest.importorskip("matplotlib")
    notebook = open_notebook("figure", show_relay(hub), CONNECT, FIGURE, "print('next' + ' cell')")
    connect_client(notebook)
    notebook.run(2)
    notebook.wait_for("at the end")
    notebook.run(3)
    notebook.wait_for("next cell")
    kinds = notebook.page.evaluate(
        "[...document.querySelectorAll('.jp-Cell')[2].querySelectorAll('.jp-OutputArea-output')]"
        ".map((each) => each.querySelector('img') ? 'figure' : each.innerText.trim())"
    )
    assert kinds == ["before the call\nat the end", "figure"]


def test_no_key_in_the_saved_notebook(
    open_notebook: Callable[..., NotebookPage], jupyter: JupyterServer, hub: SAMPHubServer, near: Near, tmp_path: Path
) -> None:
    """Not even in the state of the widgets, which contains the script of the relay."""
    record = tmp_path / "keys"
    keys = (
        "import json\n"
        "registration = client.client.registration\n"
        "translator = registration['samp.url-translator'].split('/')[-1].rstrip('?')\n"
        "keys = [registration['samp.private-key'], registration['x-samp.upload'].split('/')[-2], translator]\n"
        f"open({str(record)!r}, 'w').write(json.dumps(keys))\n"
        "print('recorded')\n"
    )
    notebook = open_notebook("keys", show_relay(hub), CONNECT + TABLE + "client.send(table)", keys)
    connect_client(notebook)
    notebook.run(2)
    notebook.wait_for("recorded")
    notebook.execute("@jupyter-widgets/jupyterlab-manager:saveWidgetState")
    notebook.execute("docmanager:save")
    path = jupyter.directory / "keys.ipynb"
    saved = until(path.read_text, lambda text: "_comm_id" in text)
    assert "_esm" in saved
    for key in json.loads(record.read_text()):
        assert len(key) > 20
        assert key not in saved


# Programs of the user

TOPCAT_CELL = SHOW + CONNECT + TABLE + """
report = client.send(table, to="topcat", name="stars", timeout=60)
print("report", report.ok, report.deliveries[0].url[:8])
client.disconnect()
"""


def test_topcat_at_our_hub(
    open_notebook: Callable[..., NotebookPage], hub: SAMPHubServer, show: Run, near: Near, screen: Screen,
    artefacts: Path,
) -> None:
    """TOPCAT on the computer of the browser shows the table of the notebook."""
    show("topcat")
    near.client.wait_for("topcat", mtype="table.load.votable", timeout=90)
    notebook = open_notebook("topcat", TOPCAT_CELL.replace("PORT", str(hub._web_port)))
    notebook.run(0)
    notebook.connect()
    notebook.wait_for("report True file:///")
    screen.screenshot(artefacts / "relay-topcat.png")


def test_topcats_own_hub(
    open_notebook: Callable[..., NotebookPage], home: Path, show: Run, screen: Screen, artefacts: Path
) -> None:
    """Messages work with a hub of another program. Sending a file is an error that says what to do."""
    need("xdotool")
    show("topcat", "-hub")
    wait_for_hub(home)
    local = SAMPIntegratedClient(name="near")
    local.connect()
    near = Near(local)
    try:
        cell = SHOW + CONNECT + TABLE + """
print("response", client.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=12, dec=34)["samp.result"])
try:
    client.send(table, to="topcat")
except Exception as error:
    print("no file:", error)
client.disconnect()
"""
        notebook = open_notebook("foreign", cell.replace("PORT", str(WEB_PORT)))
        notebook.run(0)
        notebook.connect()
        notebook.relay_text("Waiting for your consent")
        accept_in_dialog(screen)
        notebook.wait_for("response {'seen': '12.0'}")
        notebook.wait_for("start `samp hub`")
        screen.screenshot(artefacts / "relay-topcat-hub.png")
    finally:
        near.client.disconnect()


def accept_in_dialog(screen: Screen) -> None:
    """Click Yes in the dialog of TOPCAT's hub."""
    env = {**screen.env}

    def find() -> list[str]:
        command = ["xdotool", "search", "--name", "SAMP Hub Security"]
        return subprocess.run(
            command, check=False, env=env, capture_output=True, text=True, timeout=30
        ).stdout.split()

    found = until(find, bool)
    command = ["xdotool", "getwindowgeometry", "--shell", found[-1]]
    text = subprocess.run(command, check=True, env=env, capture_output=True, text=True, timeout=30).stdout
    geometry = {key: int(value) for key, value in re.findall(r"(\w+)=(-?\d+)", text)}
    # the right button in the last row
    screen.click(
        geometry["X"] + int(0.554 * geometry["WIDTH"]), geometry["Y"] + int(0.924 * geometry["HEIGHT"])
    )
