"""
A peer that breaks the protocol: the bridge continues or ends the link, and discloses nothing that was not offered.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pyvo.samp import Bridge, SAMPHubServer, SAMPProxyError
from pyvo.samp.bridge import BridgeState, Policy, offers, peer, policy, stream_link
from pyvo.samp.bridge.framing import PREAMBLE, encode_frame
from pyvo.samp.bridge.link import Kind

from .conftest import TIMEOUT, RecordingClient
from .raw_peer import HELLO, RawPeer, RawTransport

SECRET = "file:///etc/passwd"


class Scene:
    """A bridge whose peer the test controls, a client of the hub, and a client ``r1`` of the peer."""

    def __init__(self, bridge: Bridge, transport: RawTransport, client: RecordingClient) -> None:
        self.bridge, self.client = bridge, client
        self.peer: RawPeer = transport.peer
        self.transport = transport
        self.local_id = client.get_public_id()

    def start(self) -> None:
        """Send HELLO, announce ``r1``, and wait until the hub has it."""
        self.peer.start()
        assert self.bridge.wait_connected(TIMEOUT), self.bridge.reason
        self.peer.wait_for(Kind.CLIENT, lambda value: value["id"] == self.local_id)
        self.peer.send(Kind.CLIENT, client_frame("r1"))
        self.remote = self.client.find("r1 (via raw)")

    def send(
        self, mtype: str, *, call: str = "", sender: str = "r1", to: str = "", offers: Any = None, **params: Any
    ) -> None:
        """Send a message from the peer."""
        message = {"samp.mtype": mtype, "samp.params": params}
        body = json.dumps({"message": message, "offers": offers or {}}).encode()
        self.peer.send(Kind.BODY, body)
        envelope = {"from": sender, "to": to or self.local_id, "body": hashlib.sha256(body).hexdigest()}
        self.peer.send(Kind.CALL if call else Kind.NOTIFY, {**envelope, "call": call} if call else envelope)

    def call(self, mtype: str, **options: Any) -> Any:
        """Send a call from the peer and return the response."""
        call = f"n{len(self.peer.frames)}"
        self.send(mtype, call=call, **options)
        return self.peer.wait_for(Kind.REPLY, lambda value: value["call"] == call)["response"]

    def error_of(self, mtype: str = "table.load.votable", **options: Any) -> str:
        """Send a call that is rejected before it reaches the client; return the text of the error."""
        before = len(self.client.received)
        response = self.call(mtype, **options)
        assert response["samp.status"] == "samp.error", response
        assert len(self.client.received) == before
        return response["samp.error"]["samp.errortxt"]

    def assert_alive(self) -> None:
        """Check that the link is open and passes messages."""
        assert self.call("coord.pointAt.sky", ra="1")["samp.status"] == "samp.ok"

    def assert_ended(self, reason: str) -> None:
        """Check that the bridge has closed the link and unregistered the clients of the peer."""
        assert self.bridge.wait(TIMEOUT)
        assert reason in self.bridge.reason
        self.client.wait_for(lambda: not any("(via" in name for name in self.client.names()))


def client_frame(client_id: str, **more: Any) -> dict[str, Any]:
    metadata = {"samp.name": client_id}
    return {"id": client_id, "metadata": metadata, "subscriptions": {"table.*": {}, "coord.*": {}}, **more}


@pytest.fixture
def make_scene(hub: SAMPHubServer, connect: Callable[..., RecordingClient]) -> Iterator[Callable[..., Scene]]:
    bridges = []

    def make(rules: Policy | None = None) -> Scene:
        client = connect(hub, "client")
        transport = RawTransport()
        bridge = Bridge(hub, transport, rules)
        bridges.append(bridge)
        bridge.start()
        return Scene(bridge, transport, client)

    yield make
    for bridge in bridges:
        bridge.stop()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    scene = make_scene()
    scene.start()
    return scene


# URLs and files


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        "FILE:/etc/passwd",
        "  file://localhost/etc/passwd",
        "url:file:///etc/passwd",
        "jar:file:///x.jar!/y",
        "netdoc:///etc/passwd",
        r"\\server\share",
        "http://127.0.0.1:8080/shutdown",
        "http://localhost/",
        "HTTPS://LOCALHOST.:99/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://10.0.0.1/",
        "http://192.168.1.1/admin",
        "http://172.16.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://0.0.0.0/",
        "http://100.64.0.1/",
        "http://example.org@127.0.0.1/",
        r"http:\\127.0.0.1\x",
        "http:/127.0.0.1/x",
        "http:127.0.0.1/x",
        "http://127%2e0.0.1/",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://intranet/",
        "http://printer.local/",
        "ftp://127.0.0.1/x",
        "see http://127.0.0.1:8080/ for more",
        "load file:///etc/passwd",
    ],
)
def test_url_of_this_machine_is_rejected(scene: Scene, url: str) -> None:
    """Security rule 3: the peer can direct no program to a file or to a service of this machine or its network."""
    assert "URL" in scene.error_of(url=url)
    assert "URL" in scene.error_of(deep=[{"x": url}])
    scene.assert_alive()


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/x.vot", "http://8.8.8.8:80/x", "ivo://CDS/x", "http://[2001:4860:4860::8888]/x",
        "a text: with a colon", "J2000 12:34:56", "ftp://ftp.example.org/x", "2MASS J1/2", "3/1-4 5",
    ],
)  # fmt: skip
def test_other_texts_pass(scene: Scene, url: str) -> None:
    assert scene.call("table.load.votable", url=url) == {"samp.status": "samp.ok", "samp.result": {"url": url}}


def test_own_host_name_is_rejected(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "desk.example.org")
    assert "URL" in scene.error_of(url="http://desk.example.org:631/")


def test_own_address_is_rejected(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an address in the internet: the service may be open to this machine and closed to others."""
    monkeypatch.setattr(policy, "is_own_host", lambda host: host in {"8.8.4.4", "127.0.0.1"})
    assert "URL" in scene.error_of(url="http://8.8.4.4:631/")
    scene.assert_alive()


def test_urls_of_the_peer_stay_blocked_after_a_restart_of_the_hub(
    make_hub: Callable[..., SAMPHubServer], tmp_path: Path, connect: Callable[..., RecordingClient]
) -> None:
    """The bridge remembers the URLs that the peer has mentioned first as long as it runs."""
    lockfile = str(tmp_path / "hub")
    first = make_hub(lockfile=lockfile)
    transport = RawTransport()
    bridge = Bridge(lockfile, transport)
    bridge.start()
    try:
        scene = Scene(bridge, transport, connect(first, "client"))
        scene.start()
        scene.error_of(url=SECRET)
        waiting = threading.Event()
        bridge.on_state = lambda state, text: state is BridgeState.CONNECTING and waiting.set()
        bridge.state = BridgeState.CONNECTED
        first.stop()
        second = make_hub(lockfile=lockfile)
        assert waiting.wait(TIMEOUT)
        scene = Scene(bridge, transport, connect(second, "client"))
        scene.start()
        message = {"samp.mtype": "table.load.votable", "samp.params": {"url": SECRET}}
        response = scene.client.call_and_wait(scene.remote, message, "30")
        assert "has sent the URL of this file first" in response["samp.error"]["samp.errortxt"]
    finally:
        bridge.stop()


def test_url_in_annotations_is_dropped(scene: Scene) -> None:
    scene.peer.send(Kind.SUBS, {"id": "r1", "subscriptions": {"table.x": {"url": SECRET}, "coord.y": {}}})
    subscriptions = scene.client.wait_for(
        lambda: found if "coord.y" in (found := scene.client.get_subscriptions(scene.remote)) else None
    )
    assert "passwd" not in str(subscriptions)
    assert subscriptions["table.x"] == {}


@pytest.mark.parametrize("hello", [{"hub": ""}, {"hub": 1}, {"label": 1}, {"version": "x" * 201}, {"protocol": [1]}])
def test_invalid_hello(make_scene: Callable[..., Scene], hello: dict[str, Any]) -> None:
    scene = make_scene()
    scene.peer.start(**hello)
    assert "HELLO" in scene.peer.wait_for_end()
    assert scene.bridge.wait(TIMEOUT)


def test_ids_in_the_metadata_of_the_bridge(make_scene: Callable[..., Scene]) -> None:
    """Other bridges read there which hubs are joined. The id of one peer cannot look like two."""
    scene = make_scene()
    scene.peer.start(hub="one:0 two:0", session=" three:0")
    own = scene.client.find("SAMP bridge", "samp.app.ping")
    peers = scene.client.wait_for(lambda: scene.client.get_metadata(own)["x-samp.bridge.peers"])
    assert len(peers.split()) == 1
    assert peers.startswith("one%3A0%20two%3A0:")


def test_echoed_url_is_no_offer(scene: Scene) -> None:
    """Security rule 2: a URL that the peer has mentioned first is not offered when a program here repeats it."""
    scene.error_of(url=SECRET)
    message = {"samp.mtype": "table.load.votable", "samp.params": {"url": SECRET}}
    response = scene.client.call_and_wait(scene.remote, message, "30")
    assert "has sent the URL of this file first" in response["samp.error"]["samp.errortxt"]
    message["samp.params"]["url"] = "file://localhost//etc/../etc/passwd"  # the same file
    assert scene.client.call_and_wait(scene.remote, message, "30")["samp.status"] == "samp.error"


def test_url_in_the_text_of_an_error_is_no_offer(scene: Scene) -> None:
    """The user sees the URL, but a program that repeats it does not offer the file."""
    scene.client.bind_receive_response("t", scene.client.on_response)
    scene.client.call(scene.remote, "t", {"samp.mtype": "table.x", "samp.params": {}})
    call = scene.peer.wait_for(Kind.CALL)["call"]
    error = {"samp.errortxt": f"cannot open {SECRET} now"}
    response = {"samp.status": "samp.error", "samp.error": error}
    scene.peer.send(Kind.REPLY, {"call": call, "response": response, "offers": {}})
    (response,) = scene.client.wait_received(1, "response")
    assert response.content["samp.error"] == error
    message = {"samp.mtype": "table.load.votable", "samp.params": {"url": SECRET}}
    assert scene.client.call_and_wait(scene.remote, message, "30")["samp.status"] == "samp.error"


def test_url_in_metadata_is_dropped_and_no_offer(scene: Scene) -> None:
    metadata = {"samp.name": "x", "samp.icon.url": SECRET, "author.name": "y"}
    scene.peer.send(Kind.META, {"id": "r1", "metadata": metadata})
    scene.client.find("x (via raw)")
    shown = scene.client.get_metadata(scene.remote)
    assert "samp.icon.url" not in shown
    assert shown["author.name"] == "y"
    message = {"samp.mtype": "table.load.votable", "samp.params": {"url": SECRET}}
    assert scene.client.call_and_wait(scene.remote, message, "30")["samp.status"] == "samp.error"


def test_url_in_a_response_is_rejected(scene: Scene) -> None:
    """A program that requests a file of the peer must not be directed to a file of its own machine."""
    scene.client.bind_receive_response("t", scene.client.on_response)
    for result in ({"url": SECRET}, {"x": ["http://localhost:99/"]}):
        scene.client.call(scene.remote, "t", {"samp.mtype": "table.x", "samp.params": {}})
        call = scene.peer.wait_for(Kind.CALL)["call"]
        response = {"samp.status": "samp.ok", "samp.result": result}
        scene.peer.send(Kind.REPLY, {"call": call, "response": response, "offers": {}})
    for response in scene.client.wait_received(2, "response"):
        assert response.content["samp.status"] == "samp.error"
        assert "passwd" not in str(response.content)


@pytest.mark.parametrize(
    "offer",
    [
        "x" * 22, "../../../etc/passwd", SECRET, "/etc/passwd", "", "%2e%2e/etc/passwd", "http://127.0.0.1/", "\0" * 30,
    ],
)  # fmt: skip
def test_guessed_offers_are_not_found(scene: Scene, offer: str, tmp_path: Path) -> None:
    """Security rule 1: OPEN names an offer, and nothing else leads to a file."""
    for method in ("GET", "HEAD"):
        stream = 2 * len(scene.peer.frames) + 1000
        scene.peer.send(Kind.OPEN, {"offer": offer, "method": method, "headers": {}}, stream)
        assert scene.peer.wait_for(Kind.HEAD)["status"] == 404
        assert next(frame for frame in scene.peer if frame.kind is Kind.END).stream == stream
    scene.assert_alive()


def test_a_peer_reads_a_file_by_its_offer_only(scene: Scene, tmp_path: Path) -> None:
    """The peer does not get the path of the file, and cannot read the file by its path."""
    file = tmp_path / "offered.txt"
    file.write_text("offered")
    message = {"samp.mtype": "table.load.votable", "samp.params": {"url": file.as_uri()}}
    scene.client.notify(scene.remote, message)
    body = scene.peer.wait_for(Kind.BODY)
    assert str(tmp_path) not in json.dumps(body)
    ((placeholder, offer),) = body["offers"].items()
    assert body["message"]["samp.params"]["url"] == placeholder
    assert offer["name"] == "offered.txt"
    for target, status in ((offer["offer"], 200), (str(file), 404), (file.as_uri(), 404), (placeholder, 404)):
        scene.peer.send(Kind.OPEN, {"offer": target, "method": "GET", "headers": {}}, 2 * len(scene.peer.frames) + 1000)
        assert scene.peer.wait_for(Kind.HEAD)["status"] == status


def test_an_offer_that_this_end_has_not_made_is_rejected(scene: Scene) -> None:
    """A reference to an offer that this end never made is rejected."""
    offer = {"hub": scene.bridge._hub.bridge_id, "offer": "x" * 22, "name": "n"}
    assert "does not offer" in scene.error_of(url="p", offers={"p": offer})


@pytest.mark.parametrize(
    "offers",
    [
        [], "x", {"p": None}, {"p": {}}, {"p": {"hub": "h", "offer": "../..", "name": "n"}},
        {"p": {"hub": "x" * 32, "offer": "x" * 10_000, "name": "n"}}, {"p": {"hub": 1, "offer": 2, "name": 3}},
    ],
)  # fmt: skip
def test_invalid_offers_are_rejected(scene: Scene, offers: Any) -> None:
    assert scene.error_of(url="p", offers=offers or {"p": []})
    scene.assert_alive()


def remote_url(scene: Scene, name: str = "x.fits") -> str:
    """Offer a file from the peer; return the URL that the client gets."""
    scene.send("table.load.votable", url="p", offers={"p": {"hub": HELLO["hub"], "offer": "y" * 22, "name": name}})
    scene.client.wait_received(1, "notification")
    return scene.client.received[-1].content["url"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "x\r\ny", "<b>.html", "", "..", "ü" * 500, "a" * 5000])
def test_the_name_of_an_offered_file_is_safe_in_a_url(scene: Scene, name: str) -> None:
    """The name becomes a part of a URL."""
    last = remote_url(scene, name).rsplit("/", 1)[1]
    assert last
    assert last.isascii()
    assert last.strip(".") == last or "." not in last[:1]
    assert len(last) < 100
    assert not set(last) & set("/\\%<> \r\n")


class Download:
    """A program that reads a URL in a thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.result: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        try:
            connection.request("GET", parts.path)
            with connection.getresponse() as response:
                self.result = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.result = error
        finally:
            connection.close()

    def wait(self) -> Any:
        self._thread.join(TIMEOUT)
        return self.result


def open_request(scene: Scene) -> int:
    """Wait for the request for a file; return its stream."""
    return next(frame for frame in scene.peer if frame.kind is Kind.OPEN).stream


def test_only_known_headers_of_a_file_are_passed_on(scene: Scene) -> None:
    """A header value that contains a line break is dropped."""
    download = Download(remote_url(scene))
    stream = open_request(scene)
    headers = [
        ["Content-Type", "text/plain\r\nSet-Cookie: x"], ["Content-Length", "4"], ["Set-Cookie", "x"],
        ["ETag", '"abc"'], ["Location", "http://localhost/"], ["Access-Control-Allow-Origin", "*"],
    ]  # fmt: skip
    scene.peer.send(Kind.HEAD, {"status": 200, "headers": headers}, stream)
    scene.peer.send(Kind.DATA, b"data", stream)
    scene.peer.send(Kind.END, b"", stream)
    status, found, body = download.wait()
    assert (status, body, found["etag"]) == (200, b"data", '"abc"')
    assert not {"set-cookie", "location", "content-type", "access-control-allow-origin"} & set(found)


@pytest.mark.parametrize("data", [b"12345", b"123"])
def test_wrong_length_of_a_file(scene: Scene, data: bytes) -> None:
    """The reader sees that the file is incomplete if the peer sends more or less data than Content-Length says."""
    download = Download(remote_url(scene))
    stream = open_request(scene)
    scene.peer.send(Kind.HEAD, {"status": 200, "headers": [["Content-Length", "4"]]}, stream)
    scene.peer.send(Kind.DATA, data, stream)
    scene.peer.send(Kind.END, b"", stream)
    assert isinstance(download.wait(), (OSError, http.client.HTTPException))
    scene.assert_alive()


def test_a_redirect_of_the_peer_is_an_error(scene: Scene) -> None:
    """No program is sent elsewhere."""
    download = Download(remote_url(scene))
    stream = open_request(scene)
    scene.peer.send(Kind.HEAD, {"status": 302, "headers": [["Location", "http://localhost/"]]}, stream)
    scene.peer.send(Kind.END, b"", stream)
    assert download.wait()[0] == 502


def test_a_peer_that_sends_more_of_a_file_than_its_credit(scene: Scene) -> None:
    """The link ends, so this end stores at most one window of data."""
    download = Download(remote_url(scene))
    stream = open_request(scene)
    flood(scene, frame(Kind.DATA, b"x" * 60_000, stream))  # without HEAD the download reads nothing
    scene.assert_ended("credit")
    assert download.wait()


def test_too_many_transfers_are_rejected(scene: Scene) -> None:
    """The bridge rejects each request in excess of 24 transfers."""
    for number in range(500):
        scene.peer.send(Kind.OPEN, {"offer": "x" * 22, "method": "GET", "headers": {}}, 1000 + 2 * number)
    ends = (each.stream for each in scene.peer if each.kind in (Kind.END, Kind.RESET))
    assert len(set(islice(ends, 500))) == 500
    scene.assert_alive()


# Messages


@pytest.mark.parametrize(
    "mtype", ["samp.hub.event.shutdown", "samp.hub.disconnect", "client.env.get", "ds9.set", "script.x"]
)
def test_an_mtype_that_is_not_allowed_is_rejected(make_scene: Callable[..., Scene], mtype: str) -> None:
    """Security rule 4: even if the client subscribes to all MTypes."""
    scene = make_scene()
    scene.client.bind_receive_call("*", lambda *args: scene.client.note("call", *args[1:4:2], args[4]))
    scene.start()
    assert "does not allow" in scene.error_of(mtype, x="1")


@pytest.mark.parametrize("mtype", ["samp.hub.event.shutdown", "x-samp.hub.event.traffic", "client.env.get"])
def test_mtypes_that_cannot_be_allowed(make_scene: Callable[..., Scene], mtype: str) -> None:
    scene = make_scene(Policy(["*"], ["*"]))
    scene.start()
    assert "does not allow" in scene.error_of(mtype, name="PATH")
    with pytest.raises(Exception, match=r"not subscribed|Only the hub"):
        scene.client.notify(scene.remote, {"samp.mtype": mtype, "samp.params": {}})


def test_unknown_senders_and_recipients_are_rejected(scene: Scene) -> None:
    """The sender was not announced. The recipient is unknown, a client of the peer, the bridge or the hub."""
    own = scene.bridge._context.clients._own
    assert "unknown" in scene.error_of(sender="r2")
    for to in ("c99", scene.remote, own.client_id, scene.client.client.hub_id):
        assert "no such client" in scene.error_of(to=to)


@pytest.mark.parametrize(
    "message",
    [
        None, [], {}, {"samp.mtype": 1}, {"samp.mtype": "a b"}, {"samp.mtype": "table.x", "samp.params": []},
        {"samp.mtype": "table.x", "samp.params": {"x": 1}}, {"samp.mtype": "table.x", "samp.params": {"x": None}},
        {"samp.mtype": "table.x", "samp.params": {"x": "\0"}},
        {"samp.mtype": "table.x", "samp.params": {"x": "\ud800"}},
        {"samp.mtype": "table.x", "samp.params": {"x": json.loads("[" * 200 + "]" * 200)}},
    ],
)  # fmt: skip
def test_an_invalid_message_is_an_error(scene: Scene, message: Any) -> None:
    """The bridge checks values as a hub does (R1, R16), and the caller gets an error."""
    body = json.dumps({"message": message, "offers": {}}).encode()
    scene.peer.send(Kind.BODY, body)
    envelope = {"from": "r1", "to": scene.local_id, "body": hashlib.sha256(body).hexdigest(), "call": "1"}
    scene.peer.send(Kind.CALL, envelope)
    assert scene.peer.wait_for(Kind.REPLY)["response"]["samp.status"] == "samp.error"
    scene.assert_alive()


def test_a_call_without_its_body_is_an_error(scene: Scene) -> None:
    envelope = {"from": "r1", "to": scene.local_id, "body": "0" * 64, "call": "1"}
    scene.peer.send(Kind.CALL, envelope)
    assert "has not arrived" in str(scene.peer.wait_for(Kind.REPLY))


def test_only_the_first_reply_counts(scene: Scene) -> None:
    """Further replies, and replies to calls that do not exist, are ignored."""
    scene.client.bind_receive_response("t", scene.client.on_response)
    scene.client.call(scene.remote, "t", {"samp.mtype": "table.x", "samp.params": {}})
    call = scene.peer.wait_for(Kind.CALL)["call"]
    for number in range(5):
        response = {"samp.status": "samp.ok", "samp.result": {"n": str(number)}}
        scene.peer.send(Kind.REPLY, {"call": call, "response": response, "offers": {}})
        scene.peer.send(Kind.REPLY, {"call": f"guess{number}", "response": response, "offers": {}})
    scene.assert_alive()
    (response,) = scene.client.of("response")
    assert response.content["samp.result"] == {"n": "0"}


@pytest.mark.parametrize(
    "response", [None, {}, {"samp.status": "x"}, {"samp.status": "samp.ok", "samp.result": {"x": 1}}]
)
def test_an_invalid_response_is_an_error(scene: Scene, response: Any) -> None:
    """The caller gets one error."""
    scene.client.bind_receive_response("t", scene.client.on_response)
    scene.client.call(scene.remote, "t", {"samp.mtype": "table.x", "samp.params": {}})
    call = scene.peer.wait_for(Kind.CALL)["call"]
    scene.peer.send(Kind.REPLY, {"call": call, "response": response, "offers": {}})
    (found,) = scene.client.wait_received(1, "response")
    assert found.content["samp.status"] == "samp.error"


def test_body_of_a_broadcast_crosses_once(scene: Scene) -> None:
    """Later messages contain its hash, so the traffic does not grow with the number of clients."""
    for number in range(2, 12):
        scene.peer.send(Kind.CLIENT, client_frame(f"r{number}"))
    scene.client.find("r11 (via raw)")
    scene.client.notify_all({"samp.mtype": "table.x", "samp.params": {"text": "x" * 10_000}})
    recipients = [scene.peer.wait_for(Kind.NOTIFY)["to"] for _ in range(11)]
    assert sorted(recipients) == sorted(f"r{number}" for number in range(1, 12))
    assert [each.kind for each in scene.peer.frames].count(Kind.BODY) == 1


def test_the_number_of_offers_is_limited(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the latest 5000 offers (here 3) can be read."""
    monkeypatch.setattr(offers, "MAX_OFFERS", 3)
    tokens = []
    for number in range(5):
        path = tmp_path / f"file{number}"
        path.write_text("x")
        scene.client.notify(scene.remote, {"samp.mtype": "table.x", "samp.params": {"url": path.as_uri()}})
        ((_, offer),) = scene.peer.wait_for(Kind.BODY)["offers"].items()
        tokens.append(offer["offer"])
    statuses = []
    for token in tokens:
        scene.peer.send(Kind.OPEN, {"offer": token, "method": "GET", "headers": {}}, 2 * len(scene.peer.frames) + 1000)
        statuses.append(scene.peer.wait_for(Kind.HEAD)["status"])
    assert statuses == [404, 404, 200, 200, 200]


def any_value(dice: random.Random, depth: int = 0) -> Any:
    """Return a JSON value that is rarely valid."""
    kinds = [None, True, 1, 1.5, "", "x", SECRET, "r1", "\ud800", "x" * 300, "samp.ok", "table.x", "p"]
    if depth > 2 or dice.random() < 0.6:
        return dice.choice(kinds)
    if dice.random() < 0.5:
        return [any_value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {str(dice.choice(kinds)): any_value(dice, depth + 1) for _ in range(dice.randrange(4))}


def damaged(dice: random.Random, value: Any) -> Any:
    """Return a copy of which one part is replaced."""
    if not isinstance(value, dict) or not value or dice.random() < 0.2:
        return any_value(dice)
    key = dice.choice(list(value))
    return {**value, key: damaged(dice, value[key])}


@pytest.mark.parametrize("seed", range(30))
def test_damaged_messages(make_scene: Callable[..., Scene], seed: int) -> None:
    """
    For any content of a frame, the bridge ignores it, responds with an error, or ends the link. A fixture checks
    that it logs no exception.
    """
    scene = make_scene()
    scene.start()
    dice = random.Random(seed)
    offer = {"p": {"hub": HELLO["hub"], "offer": "x" * 22, "name": "n"}}
    body = {"message": {"samp.mtype": "table.x", "samp.params": {"url": "p", "x": ["1"]}}, "offers": offer}
    response = {"samp.status": "samp.warning", "samp.result": {"x": "p"}, "samp.error": {"samp.errortxt": "x"}}
    envelope = {"from": "r1", "to": scene.local_id, "body": "", "call": "1"}
    try:
        for number in range(20):
            scene.client.bind_receive_response("t", scene.client.on_response)
            scene.client.call(scene.remote, "t", {"samp.mtype": "table.x", "samp.params": {}})
            data = json.dumps(damaged(dice, body)).encode()
            scene.peer.send(Kind.BODY, data)
            envelope["body"] = hashlib.sha256(data).hexdigest()
            scene.peer.send(Kind.CALL, envelope)
            call = str(number + 1)
            scene.peer.send(Kind.REPLY, damaged(dice, {"call": call, "response": response, "offers": offer}))
            kind = dice.choice([Kind.CLIENT, Kind.META, Kind.SUBS, Kind.NOTIFY, Kind.CALL])
            scene.peer.send(kind, damaged(dice, {**client_frame("r1", offers=offer), **envelope}))
    except (OSError, SAMPProxyError):  # the link is closed, and the client of the peer is unregistered
        scene.assert_ended("invalid")
    else:
        assert scene.bridge.state in (BridgeState.CONNECTED, BridgeState.FAILED)


# Limits


def test_the_number_of_clients_is_limited(scene: Scene) -> None:
    """200 clients are registered, however many the peer announces."""
    for number in range(1000):
        scene.peer.send(Kind.CLIENT, client_frame(f"m{number}"))
    scene.assert_alive()
    assert len(scene.bridge.clients) == peer.MAX_CLIENTS
    assert sum("(via raw)" in name for name in scene.client.names()) == peer.MAX_CLIENTS


def test_the_rate_of_messages_is_limited(scene: Scene) -> None:
    """At most 1000 messages a second pass. The others wait; none is lost."""
    start = time.monotonic()
    body = json.dumps({"message": {"samp.mtype": "coord.x", "samp.params": {}}, "offers": {}}).encode()
    scene.peer.send(Kind.BODY, body)
    envelope = {"from": "r1", "to": scene.local_id, "body": hashlib.sha256(body).hexdigest()}
    for _ in range(2500):
        scene.peer.send(Kind.NOTIFY, envelope)
    scene.client.wait_received(2500, "notification")
    assert time.monotonic() - start > 1.4


def test_metadata_that_are_too_long_end_the_link(scene: Scene) -> None:
    long = json.dumps({"id": "r1", "metadata": {"samp.name": "x", "y": "z" * 66_000}}).encode()
    scene.peer.send(Kind.DATA, long[:60_000], 2)
    scene.peer.send(Kind.DATA, long[60_000:], 2)
    scene.peer.send(Kind.META, b"", 2)
    scene.assert_ended("metadata is not a map, or longer")


def test_texts_of_the_peer_are_safe_to_display(scene: Scene) -> None:
    """No name or description of the peer can move the cursor or start a new line."""
    metadata = {"samp.name": "\u202ex\r\n\ty" + "z" * 500, "samp.description.text": "a\nb" * 1000}
    scene.peer.send(Kind.META, {"id": "r1", "metadata": metadata})
    name = scene.client.wait_for(
        lambda: text if "?x" in (text := scene.client.get_metadata(scene.remote)["samp.name"]) else None
    )
    assert len(name) < 100
    assert name.isprintable()
    assert len(scene.client.get_metadata(scene.remote)["samp.description.text"]) <= 500


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (lambda: [bytes([Kind.DATA]) + b"\0\0\0\2" + b"\xff" * 4], "4294967295"),
        (lambda: [bytes([99]) + bytes(8)], "kind 99"),
        (lambda: [frame(Kind.CLIENT, b"[" * 60_000)], "CLIENT"),
        (lambda: [frame(Kind.NOTIFY, b"{")], "NOTIFY"),
        (lambda: [frame(Kind.NOTIFY, b"[]")], "NOTIFY"),
        (lambda: [frame(Kind.GONE, {"id": 1})], "GONE"),
        (lambda: [frame(Kind.GONE, {"id": "x" * 1000})], "GONE"),
        (lambda: [frame(Kind.CLIENT, {**client_frame("x"), "subscriptions": {"a.*.b": {}}})], "CLIENT"),
        (lambda: [frame(Kind.CLIENT, {**client_frame("x"), "subscriptions": {"a": "x"}})], "CLIENT"),
        (lambda: [frame(Kind.HELLO, HELLO)], "HELLO"),
        (lambda: [frame(Kind.CREDIT, b"\xff" * 4)], "credit"),
        (lambda: [frame(Kind.CREDIT, b"\xff" * 60_000)], "credit"),
        (lambda: [frame(Kind.BODY, b"", 2)], "Unexpected end"),
        (lambda: [frame(Kind.DATA, b"x", 2), frame(Kind.DATA, b"x", 4)], "second long"),
        (lambda: [frame(Kind.DATA, b"x" * 60_000, 2)] * 2000, "longer than"),
        (lambda: [frame(Kind.OPEN, {"offer": 1, "method": "GET", "headers": {}}, 2)], "invalid"),
        (lambda: [frame(Kind.OPEN, {"offer": "x", "method": {}, "headers": {}}, 2)], "invalid"),
        (lambda: [frame(Kind.OPEN, {"offer": "x", "method": "PUT", "headers": {}}, 2)], "invalid"),
        (lambda: [frame(Kind.OPEN, {"offer": "x", "method": "GET", "headers": {}}, 1)], "another stream"),
        (lambda: [frame(Kind.HEAD, {"status": "x"}, 1)], "invalid"),
        (lambda: [frame(Kind.RESET, b"x" * 100, 1)], "JSON"),
    ],
)
def test_an_invalid_frame_ends_the_link(scene: Scene, frames: Callable[[], list[bytes]], reason: str) -> None:
    """The link ends at once, with the reason, and the clients of the peer are unregistered."""
    try:
        for data in frames():
            scene.peer.sock.sendall(data)
    except OSError:
        pass  # it is closed already
    scene.assert_ended(reason)


def flood(scene: Scene, data: bytes) -> None:
    """Send until the bridge closes the link."""
    with pytest.raises(OSError, match="Broken pipe|reset"):
        send_again_and_again(scene, data)


def send_again_and_again(scene: Scene, data: bytes) -> None:
    for _ in range(100_000):
        scene.peer.sock.sendall(data)


def frame(kind: Kind, value: Any, stream: int = 0) -> bytes:
    return encode_frame(kind, value if isinstance(value, bytes) else json.dumps(value).encode(), stream)


@pytest.mark.parametrize(
    ("handles", "reason"), [(False, "credit"), (True, "does not read the responses")], ids=["credit", "responses"]
)
def test_peer_that_sends_without_credit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, handles: bool, reason: str
) -> None:
    """The link ends: the inbound queue is bounded, and so are the credits for a peer that does not read them."""
    monkeypatch.setattr(peer.Peer, "receive", lambda _peer, _kind, _payload, done: done() if handles else None)
    flood(scene, frame(Kind.GONE, {"id": "x" * 199, "more": "y" * 60_000}))
    scene.assert_ended(reason)


def test_peer_that_does_not_read(scene: Scene) -> None:
    """
    The data that wait for the peer are bounded: the bridge does not acknowledge the hub's deliveries, so the limits
    of the hub apply.
    """
    text = "x" * 1_000_000
    for number in range(40):
        message = {"samp.mtype": "table.x", "samp.params": {"text": text, "n": str(number)}}
        scene.client.notify(scene.remote, message)
    link = scene.transport.link
    assert link is not None
    numbers, queued = [], []
    for value in long_bodies(scene.peer, 40):
        numbers.append(value["message"]["samp.params"]["n"])
        queued.append(link._queued)
    assert numbers == [str(number) for number in range(40)], "when it reads again, everything arrives in order"
    assert 4_000_000 < max(queued) < 12_000_000


def long_bodies(raw: RawPeer, count: int) -> Iterator[Any]:
    """Read long messages and give credit for them."""
    data = b""
    for each in raw:
        if each.kind is Kind.DATA:
            data += each.payload
            raw.send(Kind.CREDIT, len(each.payload).to_bytes(4), each.stream)
        elif each.kind is Kind.BODY:
            yield json.loads(data or each.payload)
            data = b""
            count -= 1
            if not count:
                return


# The start of a link


def test_a_peer_that_sends_no_hello(make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    """The link ends, and its reason contains the noise."""
    monkeypatch.setattr(stream_link, "HELLO_TIMEOUT", 0.3)
    scene = make_scene()
    scene.peer.sock.sendall(b"bash: samp: command not found\n")
    assert scene.bridge.wait(TIMEOUT)
    assert "did not start a bridge; it printed: bash: samp: command not found" in scene.bridge.reason


def test_silent_peer(make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge pings a silent peer, and ends the link if the peer does not respond."""
    monkeypatch.setattr(stream_link, "PING_INTERVAL", 0.1)
    monkeypatch.setattr(stream_link, "SILENCE_TIMEOUT", 1.0)
    scene = make_scene()
    scene.start()
    scene.peer.wait_for(Kind.PING)
    scene.assert_ended("silent")


def test_a_peer_of_another_protocol_version(make_scene: Callable[..., Scene]) -> None:
    """Both ends get the reason and the exit status 3."""
    scene = make_scene()
    scene.peer.start(protocol=[2, 3], version="9.9")
    bye = scene.peer.wait_for(Kind.BYE)
    assert bye["status"] == 3
    assert "pip install" in bye["reason"]
    assert scene.bridge.wait(TIMEOUT)
    assert (scene.bridge.state, scene.bridge.exit_status) == (BridgeState.FAILED, 3)


def test_bye_before_hello(make_scene: Callable[..., Scene]) -> None:
    """
    A peer that cannot bridge sends its reason, which is shown without control characters. Its exit status becomes
    that of the command.
    """
    scene = make_scene()
    scene.peer.sock.sendall(PREAMBLE + frame(Kind.BYE, {"reason": "no \x1b[31mhub", "status": 7}))
    assert scene.bridge.wait(TIMEOUT)
    assert (scene.bridge.reason, scene.bridge.exit_status) == ("no ?[31mhub", 7)


def test_the_reason_of_the_peer_is_safe_to_display(scene: Scene) -> None:
    scene.peer.send(Kind.BYE, {"reason": "gone \x1b[31m\nfar", "status": "x"})
    scene.assert_ended("gone ?[31m far")
