"""The hub fetches the icons of clients, but only from places that the client may name."""

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
        self.requests: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                status, headers, body = site.responses[self.path]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                """Do not log."""

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
def test_icons_from_files(tmp_path: Path, data: bytes, media_type: str) -> None:
    path = tmp_path / "an icon.svg"
    path.write_bytes(data)
    assert fetch_icon(path.as_uri(), trusted=True) == (media_type, data)
    with pytest.raises(IconError, match="must not be a file"):
        fetch_icon(path.as_uri(), trusted=False)


@pytest.mark.parametrize("data", [SVG, b"", b"\x89PNG", b"root:x:0:0", b"<html>", SAMP_ICON + bytes(256 * 1024)])
def test_invalid_icons(tmp_path: Path, site: Site, data: bytes) -> None:
    """The content decides whether an icon is valid, not its file name or the type that the server states."""
    path = tmp_path / "icon.png"
    path.write_bytes(data)
    site.responses["/icon.png"] = 200, {"Content-Type": "image/png"}, data
    for url in (path.as_uri(), f"{site.url}/icon.png"):
        with pytest.raises(IconError):
            fetch_icon(url, trusted=True)


def test_icons_are_read_from_regular_files_only(tmp_path: Path) -> None:
    """The hub reads no device, and no pipe, for which it would have to wait."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(IconError):
            fetch_icon(path.as_uri(), trusted=True)


def test_icons_from_servers_of_this_machine(site: Site) -> None:
    """Programs may name such servers, but a web page must not, with any address."""
    site.responses["/i?a=b"] = 200, {}, SAMP_ICON
    assert fetch_icon(f"{site.url}/i?a=b", trusted=True) == ("image/png", SAMP_ICON)
    site.requests.clear()
    port = site.url.rpartition(":")[2]
    urls = [f"{site.url}/i", *(f"https://{host}:{port}/i" for host in ("127.0.0.1", "localhost", "[::1]", "0x7f.1"))]
    for url in urls:
        with pytest.raises(IconError):
            fetch_icon(url, trusted=False)
    assert site.requests == []


@pytest.mark.parametrize("url", ["http://example.org/i", "ftp://example.org/i", "data:image/png;base64,iVBORw0KGgo=",
                                 "javascript:alert(1)", "https://", "https://[", "https://x:99999/", "nonsense",
                                 "https://10.0.0.1/i", "https://169.254.169.254/i", "https://[fe80::1]/i"])  # fmt: skip
def test_icon_urls_that_a_page_may_not_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may name only public ``https`` servers; the hub does not connect to others."""
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail(f"connects to {args}"))
    with pytest.raises(IconError):
        fetch_icon(url, trusted=False)


def test_redirects_of_icons(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub follows a few redirects, but none from a public server to this machine, and none to a file."""
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
    seen = iter([True, False])  # the first server counts as public
    monkeypatch.setattr(icons_module, "_is_public", lambda address: next(seen))
    with pytest.raises(IconError, match="not public"):
        fetch_icon(f"{site.url}/start", trusted=True)


def test_redirect_of_a_page_to_this_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub rejects the redirect even if it names another host: the address counts, and gets no request."""
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
    assert site.requests == []


class _Public:
    """A socket whose other end claims a public address."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def getpeername(self) -> tuple[str, int]:
        return ("93.184.216.34", 443)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_icons_from_slow_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends single bytes does not use a thread for longer than the timeout."""
    monkeypatch.setattr(icons_module, "TIMEOUT", 0.3)
    over = threading.Event()

    def send_single_bytes() -> None:
        sock, _ = listener.accept()
        with closing(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                while not over.wait(0.02):
                    sock.sendall(b"x")
            except OSError:
                return

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=send_single_bytes)
        thread.start()
        with pytest.raises(IconError):
            fetch_icon(f"http://127.0.0.1:{listener.getsockname()[1]}/", trusted=True)
        over.set()
        thread.join(10)


def test_icon_of_a_client(
    hub: SAMPHubServer, open_window: Callable[[SAMPHubServer], Window], tmp_path: Path
) -> None:
    """The window gets the image, or an error if there is none; the content of other files is not sent."""
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
