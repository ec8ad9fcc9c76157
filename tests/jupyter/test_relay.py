# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A client that is connected through a relay, a page in Python, and a hub."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

pytest.importorskip("anywidget", reason="the relay needs anywidget")

from pyvo.samp import (
    AsyncSAMPClient,
    SAMPClientError,
    SAMPHubError,
    SAMPHubServer,
    SAMPIntegratedClient,
)
from pyvo.samp.jupyter import HubRelay
from pyvo.samp.jupyter.page_requests import BETWEEN_CELLS, CHUNK, CONTROL
from pyvo.samp.transport.http11 import HTTPResponse

from .fake_page import FakePage, synced_state, wait_for_state

TABLE = Table({"ra": [1.0, 2.0], "name": ["one", "two"]})


def test_messages_in_both_directions(client: SAMPIntegratedClient, near: SAMPIntegratedClient, relay: Any) -> None:
    @near.on("coord.pointAt.sky")
    def point(ra: float) -> dict[str, str]:
        return {"seen": str(ra)}

    assert (relay.state, relay.path) == ("open", CONTROL)
    response = client.ecall_and_wait("near", "coord.pointAt.sky", "10", ra=1.5, dec=2)
    assert response["samp.result"] == {"seen": "1.5"}
    with client.incoming("coord.pointAt.sky") as arriving:
        near.point_at((83.63, 22.01), to="notebook")
        assert arriving.get(timeout=30).sender.name == "near"


def test_tables_in_both_directions(client: SAMPIntegratedClient, near: SAMPIntegratedClient) -> None:
    """The recipient reads the table from a file on the computer of the hub."""
    with near.incoming("table.load.*") as arriving:
        report = client.send(TABLE, to="near", name="stars")
        table = arriving.get(timeout=30)
    assert report.ok
    assert list(table["name"]) == ["one", "two"]
    url = report.deliveries[0].url
    assert url.startswith("file:///")
    with client.incoming("table.load.*") as arriving:
        near.send(TABLE, to="notebook")
        assert list(arriving.get(timeout=30)["ra"]) == [1.0, 2.0]


def test_a_file_is_fetched_through_the_hub(
    client: SAMPIntegratedClient, near: SAMPIntegratedClient, tmp_path: Path, show: Callable[..., FakePage]
) -> None:
    """A ``file:`` URL of the other computer must not name a file of this one."""
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n")
    page = show("b")
    with client.incoming("table.load.*") as arriving:
        near.send(str(path), to="notebook", mtype=None)
        arriving.get(timeout=30)
    assert "fetch" in {content["op"] for content, _ in page.received}


def test_a_large_file_is_sent_in_parts(
    client: SAMPIntegratedClient, near: SAMPIntegratedClient, tmp_path: Path, show: Callable[..., FakePage]
) -> None:
    page = show("b")
    data = np.random.default_rng(1).integers(0, 2**63, 3 * CHUNK // 8 + 100).tobytes()
    path = tmp_path / "data.bin"
    path.write_bytes(data)
    seen: list[bytes] = []

    @near.on("table.load.x-raw")
    def load(url: str) -> None:
        seen.append(Path(url.removeprefix("file://")).read_bytes())

    report = client.send(path, to="near", mtype="table.load.x-raw", timeout=30)
    assert report.ok
    assert seen == [data]
    puts = [(content, buffers) for content, buffers in page.received if content["op"] == "put"]
    assert [content["first"] for content, _ in puts] == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]
    assert b"".join(bytes(buffers[0]) for _, buffers in puts) == data
    target = tmp_path / "copy.bin"

    with target.open("wb") as file:
        client.bind_receive_notification("table.load.fits", lambda *_args: None)
        near.enotify("notebook", "table.load.fits", url=path.as_uri())
        client.hub.download(path.as_uri(), file)
    assert target.read_bytes() == data


def test_a_hub_without_upload_is_an_error(
    relay: Any, show: Callable[..., FakePage], web_hub: SAMPHubServer, near: SAMPIntegratedClient
) -> None:
    show().hello("click")
    near.bind_receive_call("table.load.votable", lambda *_args: {})
    client = SAMPIntegratedClient(name="notebook")
    client.connect(web=relay)
    try:
        del client.hub._registration["x-samp.upload"]
        with pytest.raises(SAMPClientError, match="start `samp hub`"):
            client.send(TABLE, to="near")
    finally:
        client.disconnect()


def test_the_jupyter_server_serves_files_for_other_hubs(
    relay: Any, show: Callable[..., FakePage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The Jupyter server serves the file if the hub is not one of this package. The page knows the address of the
    server.
    """
    pytest.importorskip("jupyter_core", reason="jupyter_server is not installed")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir()
    show().hello("click", base="https://hub.example.org/user/x/", has_data=True)
    wait_for_state(relay, "open")
    (tmp_path / "stars.vot").write_text("text")
    remote = relay.upload(tmp_path / "stars.vot", "stars.vot", "")
    assert remote.url.startswith("https://hub.example.org/user/x/pyvo-samp/data/")
    assert remote.url.endswith("/stars.vot")
    remote.remove()
    assert [path for path in (tmp_path / "runtime").rglob("*") if path.is_file()] == []


def test_the_notebook_contains_no_key(client: SAMPIntegratedClient, relay: Any) -> None:
    key = client.client.require_key()
    state = synced_state(relay)
    assert "_esm" in state
    assert key not in state
    registration = client.client.registration
    assert registration["x-samp.upload"].rsplit("/", 2)[1] not in state


def test_the_identity_says_whether_the_origin_is_shared(
    relay: Any, show: Callable[..., FakePage], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = show()
    assert "x-samp.shared-origin" not in relay.identity
    page.hello("click", is_shared=True)
    wait_for_state(relay, "open")
    assert relay.identity["x-samp.shared-origin"] == "1"
    page.close()
    wait_for_state(relay, "lost")
    assert "x-samp.shared-origin" not in relay.identity
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/x/")
    assert relay.identity["x-samp.shared-origin"] == "1"


def test_reload_keeps_the_client(
    client: SAMPIntegratedClient, near: SAMPIntegratedClient, relay: Any, show: Callable[..., FakePage]
) -> None:
    """The keys stay in the kernel, and its pulls continue in the new page."""
    own_id = client.get_public_id()
    relay.pages[0].close()
    show("b").hello("resume")
    wait_for_state(relay, "open")
    with client.incoming("coord.pointAt.sky") as arriving:
        near.point_at((1, 2), to="notebook")
        assert arriving.get(timeout=30).ra.deg == 1
    assert client.get_public_id() == own_id


def test_a_reload_during_a_call(
    client: SAMPIntegratedClient, near: SAMPIntegratedClient, relay: Any, show: Callable[..., FakePage]
) -> None:
    arrived, proceed = threading.Event(), threading.Event()
    count = 0

    @near.on("coord.pointAt.sky")
    def point(ra: float) -> None:
        nonlocal count
        count += 1
        arrived.set()
        proceed.wait(30)

    caught: list[Exception] = []

    def call() -> None:
        try:
            client.ecall_and_wait("near", "coord.pointAt.sky", "20", ra=1, dec=2)
        except SAMPHubError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert arrived.wait(10)
    relay.pages[0].close()
    show("b").hello("resume")
    thread.join(30)
    proceed.set()
    assert "had been sent" in str(caught[0])
    assert count == 1
    client.ping()


def test_hub_stops(client: SAMPIntegratedClient, relay: Any, web_hub: SAMPHubServer) -> None:
    lost = threading.Event()
    client._on_state = lambda _state: lost.set()
    web_hub.stop()
    assert lost.wait(20)
    with pytest.raises(SAMPHubError):
        client.ping()
    relay.pages[0].hello(hub="none")  # the page checks regularly whether there is a hub
    assert relay.state == "lost"


def test_the_client_connects_again_when_the_hub_is_back(
    relay: Any, show: Callable[..., FakePage], web_hub: SAMPHubServer
) -> None:
    states: list[str] = []
    changed = threading.Condition()

    def on_state(state: str) -> None:
        with changed:
            states.append(state)
            changed.notify_all()

    page = show()
    page.hello("click")
    client = SAMPIntegratedClient(name="notebook")
    client.connect(web=relay, reconnect=True, on_state=on_state)
    web_hub.stop()
    with changed:
        assert changed.wait_for(lambda: "lost" in states, 30)
    web_hub.start()
    page.port = web_hub._web_port
    with changed:
        assert changed.wait_for(lambda: "connected" in states, 30)
    assert states == ["lost", "connected"]
    client.disconnect()


def test_no_hub(relay: Any, show: Callable[..., FakePage], web_hub: SAMPHubServer) -> None:
    show().hello("click")
    web_hub.stop()
    with pytest.raises(SAMPHubError, match="computer of the browser"):
        SAMPIntegratedClient(name="notebook").connect(web=relay)


def test_disconnect_during_the_consent_request(
    relay: Any, show: Callable[..., FakePage], make_hub: Callable[..., SAMPHubServer]
) -> None:
    prompted, decide = threading.Event(), threading.Event()

    def dialog(_name: str, _origin: str) -> bool:
        prompted.set()
        return decide.wait(30)

    hub = make_hub(web_profile=True, web_profile_dialog=dialog, mode="multiple")
    page = show()
    page.port = hub._web_port
    page.hello("click")
    client = SAMPIntegratedClient(name="notebook")
    caught: list[Exception] = []

    def connect() -> None:
        try:
            client.connect(web=relay)
        except SAMPHubError as error:
            caught.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    assert prompted.wait(10)
    assert relay.state == "consent"
    client.disconnect()
    thread.join(10)
    decide.set()
    assert "disconnect() was called" in str(caught[0])


def test_disconnect_without_a_page(client: SAMPIntegratedClient, relay: Any, web_hub: SAMPHubServer) -> None:
    """`disconnect` does not wait for a page that may stay closed; the hub unregisters a client that does not pull."""
    relay.pages[0].close()
    wait_for_state(relay, "waiting for the page")
    start = time.monotonic()
    client.disconnect()
    assert time.monotonic() - start < 20
    assert not client.is_connected


def test_two_clients_use_one_relay(client: SAMPIntegratedClient, near: SAMPIntegratedClient, relay: Any) -> None:
    other = SAMPIntegratedClient(name="other")
    other.connect(web=relay)
    other.disconnect()
    client.ping()
    assert client.is_connected


def test_close_ends_the_connection(client: SAMPIntegratedClient, relay: Any) -> None:
    relay.close()
    with pytest.raises(SAMPHubError):
        client.ping()
    assert relay.state == "closed"


# Between cells


def test_between_cells(relay: Any, show: Callable[..., FakePage], near: SAMPIntegratedClient) -> None:
    """
    A request in a cell is an error at once, because it cannot get a response. Another thread waits until the cell
    has ended.
    """
    page = show()
    page.held = SimpleQueue()
    page.hello("click")
    page.deliver()
    wait_for_state(relay, "open")
    assert relay.path == BETWEEN_CELLS
    client = SAMPIntegratedClient(name="notebook")
    with pytest.raises(SAMPClientError, match="only when no cell runs"):
        client.connect(web=relay)
    thread = threading.Thread(target=client.connect, kwargs={"web": relay})
    thread.start()
    pump(page, lambda: not thread.is_alive())
    assert client.is_connected
    with pytest.raises(SAMPClientError, match="only when no cell runs"):
        client.ping()
    with near.incoming("coord.pointAt.sky") as arriving:
        own_id = near.get_public_id()
        assert own_id is not None
        client.notify(own_id, {"samp.mtype": "coord.pointAt.sky", "samp.params": {"ra": "5", "dec": "6"}})
        assert arriving.get(timeout=30).ra.deg == 5
    ended = threading.Thread(target=client.disconnect)
    ended.start()
    pump(page, lambda: not ended.is_alive())


def pump(page: FakePage, done: Callable[[], bool]) -> None:
    """Run the event loop of the notebook, as between two cells."""
    idle = threading.Event()
    for _ in range(3000):
        page.deliver()
        if done():
            return
        idle.wait(0.01)
    pytest.fail("the condition did not become true")


def test_only_a_kernel_can_wait(relay: Any) -> None:
    """Without a Jupyter kernel, messages can arrive only between cells."""
    assert not relay._has_kernel
    with pytest.raises(SAMPClientError, match="only when no cell runs"):
        relay.exchange(b"", 1)


# Other objects with an `exchange` method


class PlainExchange:
    """An object with the one method that a client needs."""

    def __init__(self, web_hub: SAMPHubServer) -> None:
        self.port = web_hub._web_port

    def exchange(self, body: bytes, timeout: float) -> HTTPResponse:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout or None)
        try:
            connection.request("POST", "/", body, {"Content-Type": "text/xml"})
            response = connection.getresponse()
            return HTTPResponse(response.status, response.reason, {}, response.read(), True)
        finally:
            connection.close()


def test_any_exchange(web_hub: SAMPHubServer, near: SAMPIntegratedClient) -> None:
    near.bind_receive_call("table.load.votable", lambda *_args: {})
    client = SAMPIntegratedClient(name="notebook")
    client.connect(web=PlainExchange(web_hub))
    assert client.ecall_and_wait("near", "samp.app.ping", "10")["samp.status"] == "samp.ok"
    with pytest.raises(SAMPClientError, match="no files"):
        client.send(TABLE, to="near")
    client.disconnect()


async def use_async(relay: Any) -> Any:
    async with asyncio_client(relay) as client:
        return await client.ecall_and_wait("near", "samp.app.ping", "10")


def asyncio_client(relay: Any) -> AsyncSAMPClient:
    client = AsyncSAMPClient(name="notebook")
    client._connect_args = {"web": relay}
    return client


def test_async(relay: Any, show: Callable[..., FakePage], near: SAMPIntegratedClient) -> None:
    import asyncio

    show().hello("click")
    assert asyncio.run(use_async(relay))["samp.status"] == "samp.ok"


def test_control_messages_of_other_widgets_are_passed_on(monkeypatch: pytest.MonkeyPatch, relay: Any) -> None:
    """The handler processes the messages of relays, and passes all others to the previous handler."""
    from types import SimpleNamespace

    import IPython

    from pyvo.samp.jupyter import relay as module

    others: list[str] = []
    handlers: dict[str, Any] = {}
    manager = SimpleNamespace(comm_msg=lambda _stream, _ident, msg: others.append(msg["content"]["comm_id"]))
    kernel = SimpleNamespace(control_handlers=handlers, comm_manager=manager)
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    assert module._accept_control_messages()
    first = handlers["comm_msg"]
    assert module._accept_control_messages()
    assert handlers["comm_msg"] is first
    first(None, None, {"content": {"comm_id": "another", "data": {}}})
    content = {"op": "hello", "page": "a", "serial": 1}
    first(None, None, {"content": {"comm_id": relay._comm_id, "data": {"method": "custom", "content": content}}})
    assert others == ["another"]
    wait_for_state(relay, "permission")


def test_the_registration_contains_the_identity(
    relay: Any, show: Callable[..., FakePage], make_hub: Callable[..., SAMPHubServer], web_hub: SAMPHubServer
) -> None:
    page = show()
    page.hello("click", is_shared=True)
    client = SAMPIntegratedClient(name="notebook")
    client.connect(web=relay)
    body = next(buffers[0] for content, buffers in page.received if content.get("consent"))
    assert b"x-samp.shared-origin" in bytes(body)
    client.disconnect()
    assert json.loads(synced_state(relay))["_comm_id"] == relay._comm_id


def test_two_relays_have_different_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HubRelay, "send", lambda *_args: None)
    one, two = HubRelay(), HubRelay(port=1234)
    assert one._comm_id != two._comm_id
    assert two._port == 1234
    one.close()
    two.close()
