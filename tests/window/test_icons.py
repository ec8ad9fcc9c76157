"""Clients' icons: fetched by the hub, and only where the client may name the place."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import pyvo.samp.window.icons as icons_module
from pyvo.samp import SAMP_ICON, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.window.icons import IconError, fetch_icon

from .conftest import Window

GIF = b"GIF89a" + bytes(100)
JPEG = b"\xff\xd8\xff\xe0" + bytes(100)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


class Site:
    """A web server whose responses a test sets, by path."""

    def __init__(self) -> None:
        self.responses: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                status, headers, body = site.responses[self.path]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.stop()


@pytest.mark.parametrize(("data", "media_type"), [(SAMP_ICON, "image/png"), (GIF, "image/gif"), (JPEG, "image/jpeg")])
def test_files(tmp_path: Path, data: bytes, media_type: str) -> None:
    path = tmp_path / "an icon.svg"
    path.write_bytes(data)
    assert fetch_icon(path.as_uri(), trusted=True) == (media_type, data)
    with pytest.raises(IconError, match="must not be a file"):
        fetch_icon(path.as_uri(), trusted=False)


@pytest.mark.parametrize("data", [SVG, b"", b"\x89PNG", b"root:x:0:0", b"<html>", SAMP_ICON + bytes(256 * 1024)])
def test_what_is_no_icon(tmp_path: Path, site: Site, data: bytes) -> None:
    """Whatever the name or the server says that it is."""
    path = tmp_path / "icon.png"
    path.write_bytes(data)
    site.responses["/icon.png"] = 200, {"Content-Type": "image/png"}, data
    for url in (path.as_uri(), f"{site.url}/icon.png"):
        with pytest.raises(IconError):
            fetch_icon(url, trusted=True)


def test_only_regular_files(tmp_path: Path) -> None:
    """Neither a device, nor a pipe, which would be waited for."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(IconError):
            fetch_icon(path.as_uri(), trusted=True)


def test_servers_of_this_machine(site: Site) -> None:
    """Programs name them; a web page must not, by whatever address."""
    site.responses["/i?a=b"] = 200, {}, SAMP_ICON
    assert fetch_icon(f"{site.url}/i?a=b", trusted=True) == ("image/png", SAMP_ICON)
    site.asked.clear()
    port = site.url.rpartition(":")[2]
    urls = [f"{site.url}/i", *(f"https://{host}:{port}/i" for host in ("127.0.0.1", "localhost", "[::1]", "0x7f.1"))]
    for url in urls:
        with pytest.raises(IconError):
            fetch_icon(url, trusted=False)
    assert site.asked == []


@pytest.mark.parametrize("url", ["http://example.org/i", "ftp://example.org/i", "data:image/png;base64,iVBORw0KGgo=",
                                 "javascript:alert(1)", "https://", "https://[", "https://x:99999/", "nonsense",
                                 "https://10.0.0.1/i", "https://169.254.169.254/i", "https://[fe80::1]/i"])  # fmt: skip
def test_what_a_page_may_not_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public ``https`` alone: nothing is connected to."""
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail(f"connects to {args}"))
    with pytest.raises(IconError):
        fetch_icon(url, trusted=False)


def test_redirects(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are followed a few times, and never from a public server to this machine, nor to a file."""
    site.responses["/start"] = 302, {"Location": "/icon"}, b""
    site.responses["/icon"] = 200, {}, SAMP_ICON
    site.responses["/loop"] = 302, {"Location": "/loop"}, b""
    (tmp_path / "icon.png").write_bytes(SAMP_ICON)
    site.responses["/file"] = 302, {"Location": (tmp_path / "icon.png").as_uri()}, b""
    assert fetch_icon(f"{site.url}/start", trusted=True)[1] == SAMP_ICON
    with pytest.raises(IconError, match="too many times"):
        fetch_icon(f"{site.url}/loop", trusted=True)
    with pytest.raises(IconError):
        fetch_icon(f"{site.url}/file", trusted=True)
    seen = iter([True, False])  # the first server is taken for a public one
    monkeypatch.setattr(icons_module, "_is_public", lambda address: next(seen))
    with pytest.raises(IconError, match="not public"):
        fetch_icon(f"{site.url}/start", trusted=True)


def test_page_that_is_redirected_to_this_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the redirect names another host: the address counts, and nothing is asked of it."""
    site.responses["/icon"] = 200, {}, SAMP_ICON
    where = f"https://localhost:{site.url.rpartition(':')[2]}/icon"
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(icons_module, "_is_public", lambda address: address != "127.0.0.1" and address != "::1")
    connect = icons_module._connect
    monkeypatch.setattr(icons_module, "_connect", lambda host, *rest: _Public(ours) if host == "public.example"
                        else connect(host, *rest))  # fmt: skip
    monkeypatch.setattr("ssl.SSLContext.wrap_socket", lambda self, sock, server_hostname: sock)
    theirs.sendall(f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())
    with closing(theirs), pytest.raises(IconError, match="not public"):
        fetch_icon("https://public.example/icon", trusted=False)
    ours.close()
    assert site.asked == []


class _Public:
    """A socket whose other end claims a public address."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def getpeername(self) -> tuple[str, int]:
        return ("93.184.216.34", 443)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_slow_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends a byte now and then does not hold a thread beyond the time."""
    monkeypatch.setattr(icons_module, "TIMEOUT", 0.3)
    over = threading.Event()

    def drip() -> None:
        sock, _ = listener.accept()
        with closing(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                while not over.wait(0.02):
                    sock.sendall(b"x")
            except OSError:
                return

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(IconError):
            fetch_icon(f"http://127.0.0.1:{listener.getsockname()[1]}/", trusted=True)
        over.set()
        thread.join(10)


def test_icon_of_a_client(
    hub: SAMPHubServer, open_window: Callable[[SAMPHubServer], Window], tmp_path: Path
) -> None:
    """The window gets the image, or learns that there is none; a file that is no image stays unread."""
    (tmp_path / "icon.png").write_bytes(SAMP_ICON)
    window = open_window(hub)
    urls = [(tmp_path / "icon.png").as_uri(), "file:///etc/passwd"]
    with SAMPIntegratedClient(name="One", metadata={"samp.icon.url": urls[0]}) as client:
        window.wait_for(lambda update: update["clients"] and update["clients"][0]["icon"])
        response = window.request("GET", f"/icon/{client.get_public_id()}")
        assert (response.status, response.getheader("Content-Type"), response.read()) == (200, "image/png", SAMP_ICON)
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        client.declare_metadata({"samp.name": "One", "samp.icon.url": urls[1]})
        window.wait_for(lambda update: ["samp.icon.url", urls[1]] in update["clients"][0]["metadata"])
        response = window.request("GET", f"/icon/{client.get_public_id()}")
        assert (response.status, response.read()) == (404, b"The icon is not a PNG, GIF or JPEG image\n")
