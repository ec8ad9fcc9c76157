"""The end of links and bridges: threads, descriptors and clients are released."""

from __future__ import annotations

import gc
import http.client
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pyvo.samp import Bridge, SAMPClientError, SAMPHubError, SAMPHubServer
from pyvo.samp.bridge import BridgeState, LocalPair
from pyvo.samp.client import hub_monitor
from tests.conftest import open_descriptors
from tests.process.programs import Program

from .conftest import TIMEOUT, RecordingClient, Side

ROUNDS = 50


def break_link(bridge: Bridge) -> None:
    """Break the connection of a bridge's link, as the end of ssh does."""
    bridge.transport.link._stream.interrupt()  # type: ignore[attr-defined]


def start_download(url: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    connection.request("GET", parts.path)
    response = connection.getresponse()
    assert len(response.read(1000)) == 1000
    return connection, response


@pytest.mark.timeout(180)
def test_no_leaks(sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A link breaks 50 times during a call and a download. Both ends get errors within 2 s, and no thread or
    descriptor is leaked.
    """
    # The monitor of each client keeps a connection. It must open it in the first round, not after the first second
    monkeypatch.setattr(hub_monitor, "FIRST_PING", 0.0)
    path = tmp_path / "large.fits"
    with path.open("wb") as file:
        file.truncate(2**30)
    sender, recipient = sides[0].connect("sender"), sides[1].connect("recipient")
    called = threading.Event()
    recipient.bind_receive_call("table.x", lambda key, sender, msg_id, mtype, params, extra: called.set())
    sender.bind_receive_response("tag", sender.on_response)
    times: list[float] = []
    threads: list[int] = []
    descriptors: list[int] = []
    for number in range(ROUNDS):
        there = sender.find("recipient (via B)")
        recipient.find("sender (via A)")
        recipient.received.clear()
        sender.received.clear()
        called.clear()
        message = {"samp.mtype": "table.load.fits", "samp.params": {"url": path.as_uri()}}
        sender.call_and_wait(there, message, "30")
        connection, response = start_download(recipient.received[-1].content["url"])
        sender.call(there, "tag", {"samp.mtype": "table.x", "samp.params": {}})
        assert called.wait(TIMEOUT)

        start = time.monotonic()
        break_link(sides[number % 2].bridge)
        sender.wait_received(1, "response")
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            read_to_end(response)
        times.append(time.monotonic() - start)
        response.close()
        connection.close()
        sender.wait_for(lambda: set(sender.names()) == {"SAMP bridge to B"})
        recipient.wait_for(lambda: set(recipient.names()) == {"SAMP bridge to A"})

        for side in sides:
            side.bridge.stop()
        gc.collect()
        threads.append(threading.active_count())
        descriptors.append(len(open_descriptors()))
        for side in sides:
            side.bridge.start()
        for side in sides:
            assert side.bridge.wait_connected(TIMEOUT)
    assert statistics.median(times) < 2
    # the number of worker threads varies; a leak would add one or more in each round
    assert max(threads[-10:]) <= max(threads[5:15]) + 3, threads
    assert max(descriptors[-10:]) <= max(descriptors[5:15]) + 3, descriptors


def read_to_end(response: http.client.HTTPResponse) -> None:
    while response.read(2**20):
        pass


def started_bridges(directory: Path) -> str:
    """Return the code of a program that starts both ends of a bridge between the hubs of `make_hubs`."""
    return f"""
from pyvo.samp import Bridge
from pyvo.samp.bridge import LocalPair
pair = LocalPair(("A", "B"))
bridges = [Bridge({str(directory)!r} + "/hub" + str(number), end) for number, end in enumerate(pair.ends)]
for bridge in bridges:
    bridge.start()
"""


def test_exit_without_stop(
    make_hubs: Callable[[int], list[SAMPHubServer]],
    connect: Callable[..., RecordingClient],
    tmp_path: Path,
    python_environment: dict[str, str],
) -> None:
    """The bridges of a program unregister when it ends."""
    hubs = make_hubs(2)
    client, other = connect(hubs[0], "client"), connect(hubs[1], "other")
    text = f"""
{started_bridges(tmp_path)}print("started", flush=True)
input()
"""
    with Program(["-c", text], python_environment) as program:
        client.find("other (via B)")
        other.find("client (via A)")
        program.write_line("")
        assert program.wait() == 0
        assert program.output == "started"
    client.wait_for(lambda: client.names() == {})
    other.wait_for(lambda: other.names() == {})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_fork(
    make_hubs: Callable[[int], list[SAMPHubServer]],
    connect: Callable[..., RecordingClient],
    tmp_path: Path,
    python_environment: dict[str, str],
) -> None:
    """The child of a fork ends, and the bridge of the parent continues."""
    hubs = make_hubs(2)
    client, other = connect(hubs[0], "client"), connect(hubs[1], "other")
    text = f"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork in a process with threads
{started_bridges(tmp_path)}input()
child = os.fork()
if not child:
    assert all(bridge.clients == [] for bridge in bridges)
    for bridge in bridges:
        bridge.stop()
    sys.exit()
print("child:", os.waitpid(child, 0)[1], flush=True)
input()
"""
    with Program(["-c", text], python_environment) as program:
        there = client.find("other (via B)")
        program.write_line("")
        program.wait_for("child: 0")
        message = {"samp.mtype": "table.x", "samp.params": {}}
        assert client.call_and_wait(there, message, "30")["samp.status"] == "samp.ok"
        program.write_line("")
        assert program.wait() == 0
    client.wait_for(lambda: client.names() == {})
    other.wait_for(lambda: other.names() == {})


def test_a_bridge_without_a_hub_does_not_start(tmp_path: Path) -> None:
    """Nothing is left, and the same bridge can be started later."""
    bridge = Bridge(tmp_path / "none", LocalPair(("A", "B")).ends[0])
    for _ in range(2):
        with pytest.raises(SAMPHubError, match="No SAMP hub is running"):
            bridge.start()
    bridge.stop()
    assert bridge.state is BridgeState.STOPPED


def test_a_bridge_needs_a_transport() -> None:
    with pytest.raises(SAMPClientError, match="transport"):
        Bridge()


def test_hub_disconnects_the_bridge(sides: tuple[Side, Side]) -> None:
    """A user can end a bridge at either hub. The bridge fails with the reason, and does not connect again."""
    client = sides[0].connect("client")
    own = client.find("SAMP bridge", "samp.app.ping")
    broker = sides[0].hub._running.broker  # type: ignore[union-attr]
    broker.disconnect(broker.client(own), "enough")
    assert sides[0].bridge.wait(TIMEOUT)
    assert "enough" in sides[0].bridge.reason
    sides[0].bridge.stop()
    client.wait_for(lambda: client.names() == {})


def test_bridge_responds_to_pings(sides: tuple[Side, Side]) -> None:
    """R28: a bridge and its proxies respond to pings, as a client should."""
    client, other = sides[0].connect("client"), sides[1].connect("other")
    other.find("client (via A)")
    for name in ("SAMP bridge to B", "other (via B)"):
        there = client.find(name, "samp.app.ping")
        ping: dict[str, Any] = {"samp.mtype": "samp.app.ping", "samp.params": {}}
        assert client.call_and_wait(there, ping, "30")["samp.status"] == "samp.ok"


def test_host_name_is_not_looked_up(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """R37: neither for a URL nor for the label."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: pytest.fail("a look-up"))
    client, other = sides[0].connect("client"), sides[1].connect("other")
    there = client.find("other (via B)")
    message = {"samp.mtype": "table.load.votable", "samp.params": {"url": "http://no.such.host.example/x"}}
    assert client.call_and_wait(there, message, "30")["samp.status"] == "samp.ok"
    assert other.received[-1].content["url"] == "http://no.such.host.example/x"
