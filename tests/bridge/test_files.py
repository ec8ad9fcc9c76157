"""Files that are offered at one end of a bridge and read at the other."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pyvo.samp import Bridge, SAMPHubServer
from pyvo.samp.bridge import Policy, file_gateway

from .conftest import RecordingClient, Side

Sides = tuple[Side, Side]
CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a table.vot"
    path.write_bytes(CONTENT)
    return path


class Pair:
    """A sender at the first hub and a recipient at the second."""

    def __init__(self, sides: Sides) -> None:
        self.sides = sides
        self.sender, self.recipient = sides[0].connect("sender"), sides[1].connect("recipient")
        self.there = self.sender.find("recipient (via B)")
        self.back = self.recipient.find("sender (via A)")

    def send(self, mtype: str = "table.load.votable", **params: str) -> Any:
        message = {"samp.mtype": mtype, "samp.params": params}
        response = self.sender.call_and_wait(self.there, message, "30")
        assert response["samp.status"] == "samp.ok", response
        return self.recipient.received[-1].content

    def send_back(self, **params: str) -> Any:
        message = {"samp.mtype": "table.highlight.row", "samp.params": params}
        self.recipient.call_and_wait(self.back, message, "30")
        return self.sender.received[-1].content


@pytest.fixture
def pair(sides: Sides) -> Pair:
    return Pair(sides)


def fetch(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, parts.path, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def read_to_end(response: Any) -> None:
    """Read all data and discard them."""
    while response.read(2**20):
        pass


def test_an_offered_file_can_be_read(pair: Pair, file: Path) -> None:
    """The reader gets the bytes, the type and the length, but not the path. GET, HEAD and Range work."""
    url = pair.send(url=file.as_uri())["url"]
    assert urlsplit(url).hostname == "127.0.0.1"
    assert url.endswith("/a_table.vot")
    assert str(file.parent) not in url
    status, headers, body = fetch(url)
    assert (status, body) == (200, CONTENT)
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["content-type"] == "application/x-votable+xml"
    assert headers["x-content-type-options"] == "nosniff"
    status, headers, body = fetch(url, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")
    status, headers, body = fetch(url, Range="bytes=1000-1999")
    assert (status, body) == (206, CONTENT[1000:2000])
    assert headers["content-range"] == f"bytes 1000-1999/{len(CONTENT)}"
    assert fetch(url, Range="bytes=99999999-")[0] == 416


def test_the_same_url_is_the_same_offer(pair: Pair, file: Path) -> None:
    """A table that is identified by its URL can be identified in both directions."""
    first = pair.send(url=file.as_uri(), **{"table-id": file.as_uri()})
    assert first["url"] == first["table-id"]
    assert pair.send("table.highlight.row", url=file.as_uri(), row="3") == {"url": first["url"], "row": "3"}
    assert pair.send_back(url=first["url"], row="5") == {"url": file.as_uri(), "row": "5"}
    by_name = first["url"].replace("127.0.0.1", "localhost")
    assert pair.send_back(url=by_name, row="5")["url"] == file.as_uri()


def test_a_file_is_opened_when_it_is_read(pair: Pair, tmp_path: Path) -> None:
    """A file that does not exist yet can be offered."""
    path = tmp_path / "later.fits"
    url = pair.send(url=path.as_uri())["url"]
    assert fetch(url)[0] == 404
    path.write_bytes(b"now")
    assert fetch(url)[2] == b"now"


def test_urls_at_any_depth_become_offers(pair: Pair, file: Path) -> None:
    """A text that only contains a URL of this machine is rejected."""
    message = {
        "samp.mtype": "table.load.votable",
        "samp.params": {"list": [file.as_uri(), {"deep": file.as_uri()}], "name": "not http://127.0.0.1:1/x"},
    }
    pair.sender.bind_receive_response("t", pair.sender.on_response)
    response = pair.sender.call_and_wait(pair.there, message, "30")
    assert response["samp.status"] == "samp.error", "a URL of this machine in a text is rejected"
    message["samp.params"]["name"] = "a name"
    pair.sender.call_and_wait(pair.there, message, "30")
    content = pair.recipient.received[-1].content
    assert content["list"][0] == content["list"][1]["deep"]
    assert fetch(content["list"][0])[2] == CONTENT


def test_files_in_a_response_and_in_metadata_become_offers(pair: Pair, file: Path) -> None:
    """DS9 sends responses with files; icons are files in metadata."""

    def on_get(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        pair.recipient.ereply(msg_id, "samp.ok", result={"url": file.as_uri()})

    pair.recipient.bind_receive_call("table.get", on_get)
    response = pair.sender.call_and_wait(pair.there, {"samp.mtype": "table.get", "samp.params": {}}, "30")
    assert fetch(response["samp.result"]["url"])[2] == CONTENT
    pair.recipient.declare_metadata({"samp.icon.url": file.as_uri()})
    metadata = pair.sender.wait_for(
        lambda: found if "samp.icon.url" in (found := pair.sender.get_metadata(pair.there)) else None
    )
    assert fetch(metadata["samp.icon.url"])[2] == CONTENT


@pytest.fixture
def web_server() -> Iterator[ThreadingHTTPServer]:
    """Run a web server, as programs of this machine do. It breaks off the response to ``/short``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.send_header("X-Secret", "yes")
            self.end_headers()
            self.wfile.write(CONTENT[:1000] if "short" in self.path else CONTENT)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_of_a_local_server_becomes_an_offer(pair: Pair, web_server: ThreadingHTTPServer) -> None:
    """TOPCAT sends such URLs. The bridge passes on only the headers that a reader needs."""
    base = f"http://127.0.0.1:{web_server.server_address[1]}"
    status, headers, body = fetch(pair.send(url=f"{base}/dynamic/1")["url"])
    assert (status, body) == (200, CONTENT)
    assert "x-secret" not in headers


def test_an_incomplete_transfer_is_incomplete_at_the_reader(pair: Pair, web_server: ThreadingHTTPServer) -> None:
    """The reader gets less data than Content-Length says."""
    url = pair.send(url=f"http://localhost:{web_server.server_address[1]}/short")["url"]
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        fetch(url)


def test_a_url_of_the_internet_is_not_changed(pair: Pair) -> None:
    """It can be read at both ends."""
    assert pair.send(url="https://example.org/x.vot?a=b#c")["url"] == "https://example.org/x.vot?a=b#c"


def test_the_end_of_the_link_ends_a_download(pair: Pair, tmp_path: Path) -> None:
    """The reader gets less data than Content-Length says, within seconds. Afterwards the URL is not served."""
    path = tmp_path / "large.fits"
    with path.open("wb") as file:
        file.truncate(2**30)
    url = pair.send(url=path.as_uri())["url"]
    with urllib.request.urlopen(url, timeout=30) as response:
        assert len(response.read(1000)) == 1000
        pair.sides[0].bridge.stop()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            read_to_end(response)
    assert fetch(url)[0] in {404, 502}


def test_offers_end_with_the_link(pair: Pair, file: Path) -> None:
    url = pair.send(url=file.as_uri())["url"]
    assert fetch(url)[0] == 200
    pair.sides[0].bridge.stop()
    pair.recipient.wait_for(lambda: "sender (via A)" not in pair.recipient.names())
    assert fetch(url)[0] == 404
    pair.sides[0].bridge.start()
    pair.sender.find("recipient (via B)")
    assert fetch(url)[0] == 404


def test_a_bridge_without_files(
    make_hubs: Callable[[int], list[SAMPHubServer]],
    join: Callable[..., tuple[Bridge, Bridge]],
    connect: Callable[..., RecordingClient],
    file: Path,
) -> None:
    """A message with a file of this machine is rejected, with the reason; other messages pass."""
    hubs = make_hubs(2)
    join(*hubs, (Policy(files=False), Policy()))
    sender, recipient = connect(hubs[0], "sender"), connect(hubs[1], "recipient")
    there = sender.find("recipient (via B)")
    message = {"samp.mtype": "table.load.votable", "samp.params": {"url": file.as_uri()}}
    response = sender.call_and_wait(there, message, "30")
    assert "does not pass on files" in response["samp.error"]["samp.errortxt"]
    assert sender.call_and_wait(there, {"samp.mtype": "coord.x", "samp.params": {}}, "30")["samp.status"] == "samp.ok"
    assert [each.name for each in recipient.received] == ["coord.x"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("GET", {"Origin": "http://evil.example"}, 403), ("GET", {"Host": "evil.example"}, 403), ("PUT", {}, 405)],
)
def test_requests_of_web_pages_are_rejected(
    pair: Pair, file: Path, method: str, headers: dict[str, str], status: int
) -> None:
    """Only programs of this machine may read a file that crosses the bridge."""
    assert fetch(pair.send(url=file.as_uri())["url"], method, **headers)[0] == status


def test_other_urls_of_the_gateway_are_not_found(pair: Pair, file: Path) -> None:
    """A URL with another token or name is not found, and leads to no file of the disk."""
    url = pair.send(url=file.as_uri())["url"]
    base, token, name = url.rsplit("/", 2)
    for wrong in (f"x{token[1:]}/{name}", f"{token}/other", f"{token}/../{name}", "etc/passwd", ""):
        assert fetch(f"{base}/{wrong}")[0] == 404


@pytest.mark.parametrize(("one", "all_of_them"), [(1000, 10**9), (10**9, len(CONTENT) + 1)])
def test_limits_of_copies(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: int, all_of_them: int
) -> None:
    """
    An image that is larger than MAX_COPY is not copied. If all copies together are too large, the oldest is
    removed.
    """
    monkeypatch.setattr(file_gateway, "MAX_COPY", one)
    monkeypatch.setattr(file_gateway, "MAX_COPIES", all_of_them)
    sender, aladin = sides[0].connect("sender", "image.*"), sides[1].connect("Aladin", "image.*")
    there = sender.find("Aladin (via B)", "image.load.fits")
    urls = []
    for number in range(2):
        image = tmp_path / f"image{number}.fits"
        image.write_bytes(CONTENT)
        message = {"samp.mtype": "image.load.fits", "samp.params": {"url": image.as_uri()}}
        sender.call_and_wait(there, message, "30")
        urls.append(aladin.received[-1].content["url"])
    if one < len(CONTENT):
        assert all(url.startswith("http://127.0.0.1") for url in urls)
    else:
        assert [Path(urlsplit(url).path).exists() for url in urls] == [False, True]


def test_copy_for_aladin(sides: Sides, tmp_path: Path) -> None:
    """
    Aladin loads no image from an http URL of this machine, so it gets a private copy. It may send the URL of the
    copy back.
    """
    image = tmp_path / "image.fits"
    image.write_bytes(CONTENT)
    sender = sides[0].connect("sender", "image.*")
    aladin, other = sides[1].connect("Aladin", "image.*"), sides[1].connect("other", "image.*")
    for name in ("Aladin", "other"):
        sender.find(f"{name} (via B)", "image.load.fits")
    sender.notify_all({"samp.mtype": "image.load.fits", "samp.params": {"url": image.as_uri(), "name": "x"}})
    (copied,), (plain,) = aladin.wait_received(1, "notification"), other.wait_received(1, "notification")
    assert plain.content["url"].startswith("http://127.0.0.1")
    assert copied.content["url"].startswith("file:///")
    copy = Path(urlsplit(copied.content["url"]).path)
    assert copy.read_bytes() == CONTENT
    assert os.stat(copy.parent).st_mode & 0o077 == 0
    back = aladin.find("sender (via A)", "image.load.fits")
    for url in (copied.content["url"], copied.content["url"].replace("file:///", "file:/")):
        aladin.call_and_wait(back, {"samp.mtype": "image.x", "samp.params": {"url": url}}, "30")
        assert sender.received[-1].content["url"] == image.as_uri()
    sides[1].bridge.stop()
    assert not copy.exists()
