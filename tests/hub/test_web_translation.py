# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Pages read data through the hub (R46)."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import sys
import threading
import time
import xmlrpc.client
from urllib.parse import quote

import psutil
import pytest

from pyvo.samp.web_profile import url_permissions, url_proxy

from .recipients import wait_until
from .web_pages import ORIGIN, Page, Program, Response, message, send

MTYPE = "table.load.votable"
BYTES = bytes(range(256)) * 40


@pytest.fixture
def hub(make_hub):
    return make_hub(web_profile=True, web_profile_dialog=lambda *_: True)


@pytest.fixture
def page(hub):
    with Page(hub) as page:
        yield page.register().listen(MTYPE)


@pytest.fixture
def program(hub):
    with Program(hub, MTYPE) as program:
        yield program


@pytest.fixture
def mention(page, program):
    """Return a function that has a program send a URL to the page, and that lets the page pull the message."""

    def mention(url: str) -> str:
        program.call("notify", page.id, message(MTYPE, url=url))
        page.pull_some(1)
        return url

    return mention


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a table.vot"
    path.write_bytes(BYTES)
    return path


class Site(http.server.ThreadingHTTPServer):
    """A web server that sends no CORS headers."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.requests = []
        self.locations = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class SiteHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if path in self.server.locations:
            self.respond(302, b"", Location=self.server.locations[path])
        elif path == "/missing":
            self.respond(404, b"not here")
        elif path == "/range" and self.headers.get("Range"):
            self.respond(206, BYTES[10:20], **{"Content-Range": f"bytes 10-19/{len(BYTES)}"})
        elif path == "/chunks":
            self.chunks(10)
        elif path == "/broken-chunks":
            self.chunks(10, end=b"")
        elif path == "/short":
            self.respond(200, BYTES, length=len(BYTES) + 100)
        elif path == "/until-close":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(BYTES)
            self.close_connection = True
        elif path == "/silent":
            self.wfile.flush()
            threading.Event().wait(3)
            self.close_connection = True
        elif path == "/no-http":
            self.wfile.write(b"220 ftp.example ready\r\n")
            self.close_connection = True
        else:
            self.respond(
                200, BYTES, **{"Content-Type": "image/x-odd", "Set-Cookie": "a=b", "ETag": '"7"', "X-Other": "1"}
            )

    do_HEAD = do_GET

    def respond(self, status, body, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def chunks(self, number, end=b"0\r\n\r\n"):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(number):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(BYTES), BYTES))
        self.wfile.write(end)
        self.close_connection = True


@pytest.fixture
def site():
    site = Site()
    thread = threading.Thread(target=site.serve_forever, args=(0.05,))
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


# URLs that a page may read


def test_a_page_may_read_a_url_that_a_program_mentioned(page, mention, file):
    """R46."""
    response = page.get(mention(file.as_uri()))
    assert response.status == 200
    assert response.body == BYTES
    assert response.headers["content-type"] == "application/x-votable+xml"
    assert response.headers["content-length"] == str(len(BYTES))
    assert response.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "file%3A%2F%2F%2Fetc%2Fpasswd", "http://127.0.0.1:1/", "", "x", "%"]
)
def test_a_page_may_not_read_other_urls(page, mention, file, url):
    """R46: above all not ``file:///etc/passwd``."""
    mention(file.as_uri())
    response = page.get(url)
    assert response.status == 403
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert b"passwd" not in response.body


def test_a_page_may_not_leave_the_path_of_a_mentioned_url(page, mention, file):
    """R46."""
    uri = mention(file.as_uri())
    for path in (f"{uri}/../../../../etc/passwd", uri.replace("a%20table", "%2e%2e/x"), f"{uri}%00", f"{uri}.bak"):
        assert page.get(path).status == 403


def test_another_page_may_not_read_the_url(hub, page, mention, file):
    """R46: the other page has not received the URL."""
    uri = mention(file.as_uri())
    with Page(hub, "https://b.example") as other:
        other.register()
        assert other.get(uri).status == 403
        other.translator = other.translator.replace(other.translator.split("/")[-1], "guessed?")
        assert other.get(uri).status == 403
        other.translator = other.translator.replace("guessed", page.key)
        assert other.get(uri).status == 403


def test_a_page_that_has_unregistered_may_not_read_the_url(page, mention, file):
    uri = mention(file.as_uri())
    page.call("unregister")
    assert page.get(uri).status == 403


def test_a_page_may_not_read_a_url_that_a_page_mentioned_first(hub, page, program, file):
    """R46: not even when a program repeats the URL."""
    uri = file.as_uri()
    with Page(hub, "https://b.example") as other:
        other.register().call("declareMetadata", {"samp.name": "x", "samp.icon.url": uri})
        other.call("notify", page.id, message(MTYPE, url=uri))
        page.pull_some(1)
        page.call("getMetadata", other.id)
        assert page.get(uri).status == 403
        page.call("call", program.id, "tag", message(MTYPE, url=uri))
        msg_id = program.wait_for(1)[0][1][2]
        program.call("reply", msg_id, {"samp.status": "samp.ok", "samp.result": {"url": uri}})
        program.call("notify", page.id, message(MTYPE, url=uri))
        page.pull_some(2)
        assert page.get(uri).status == 403


def test_a_url_in_a_rejected_message_of_a_page_is_not_blocked(hub, page, program, file):
    """R46: no program has received the URL, so no program repeats it."""
    uri = file.as_uri()
    with Page(hub, "https://b.example") as other:
        other.register()
        for method, *params in (
            ("notify", "nobody", message(MTYPE, url=uri)),
            ("notify", program.id, message("ds9.set", url=uri)),
            ("reply", "no-such-id", {"samp.status": "samp.ok", "samp.result": {"url": uri}}),
        ):
            with pytest.raises(xmlrpc.client.Fault):
                other.call(method, *params)
        assert other.call("ping", uri) == ""
    program.call("notify", page.id, message(MTYPE, url=uri))
    page.pull_some(1)
    assert page.get(uri).body == BYTES


def test_too_many_urls_of_a_page_affect_only_this_page(hub, page, program, file, monkeypatch):
    """R46."""
    monkeypatch.setattr(url_permissions, "MAX_BLOCKED", 10)
    uri = file.as_uri()
    with Page(hub, "https://evil.example") as evil:
        evil.register()
        flood = [f"http://h/{number}" for number in range(100)]
        with pytest.raises(xmlrpc.client.Fault, match="too many URLs"):
            evil.call("notify", program.id, message(MTYPE, urls=flood))
        evil.call("notify", program.id, message(MTYPE, urls=flood[:10]))
        evil.call("notify", program.id, message(MTYPE, urls=flood[:10]))
        with pytest.raises(xmlrpc.client.Fault, match="too many URLs"):
            evil.call("declareMetadata", {"samp.name": "x", "samp.icon.url": uri})
        evil.call("notify", program.id, message(MTYPE))
        program.call("notify", page.id, message(MTYPE, url=uri))
        page.pull_some(1)
        assert page.get(uri).body == BYTES


def test_a_page_may_read_a_url_in_a_response(page, program, file):
    """R46."""
    page.call("call", program.id, "tag", message(MTYPE))
    msg_id = program.wait_for(1)[0][1][2]
    program.call("reply", msg_id, {"samp.status": "samp.ok", "samp.result": {"url": file.as_uri()}})
    page.pull_some(1)
    assert page.get(file.as_uri()).body == BYTES


def test_a_page_may_read_a_url_in_the_response_to_call_and_wait(page, program, file):
    """R46."""
    sock = page.connect()
    page.send(sock, "callAndWait", page.key, program.id, message(MTYPE), "20")
    msg_id = program.wait_for(1)[0][1][2]
    program.call("reply", msg_id, {"samp.status": "samp.ok", "samp.result": {"urls": [file.as_uri()]}})
    page.receive(sock)
    assert page.get(file.as_uri()).body == BYTES


def test_a_page_may_read_a_url_in_metadata(hub, page, program, file, tmp_path):
    """R46: the page has requested the metadata, or has received them in an event."""
    program.call("declareMetadata", {"samp.name": "p", "samp.icon.url": file.as_uri()})
    assert page.get(file.as_uri()).status == 403
    page.call("getMetadata", program.id)
    assert page.get(file.as_uri()).body == BYTES
    other = tmp_path / "other.png"
    other.write_bytes(b"png")
    page.listen("samp.hub.event.metadata")
    program.call("declareMetadata", {"samp.name": "p", "samp.icon.url": other.as_uri()})
    page.pull_some(1)
    assert page.get(other.as_uri()).body == b"png"


# Files


def test_every_spelling_of_a_url_is_accepted(page, mention, file):
    """R48: sampjs appends the URL as it is; other pages percent-encode the whole URL."""
    uri = mention(f"file://localhost/{file}")
    for text in (file.as_uri(), quote(file.as_uri(), safe=""), f"file:{quote(str(file))}", quote(uri, safe=":/")):
        assert page.get(text).body == BYTES


def test_head_requests_of_pages(page, mention, file, site):
    """R46."""
    for url in (file.as_uri(), site.url + "/x"):
        response = page.get(mention(url), "HEAD")
        assert (response.status, response.body) == (200, b"")
        assert response.headers["content-length"] == str(len(BYTES))


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("bytes=0-9", BYTES[:10]),
        ("bytes=100-", BYTES[100:]),
        ("bytes=-7", BYTES[-7:]),
        ("bytes=9999-99999", BYTES[9999:]),
    ],
)
def test_ranges_of_a_file(page, mention, file, wanted, part):
    """R46."""
    response = page.get(mention(file.as_uri()), Range=wanted)
    assert response.status == 206
    assert response.body == part
    start = BYTES.index(part) if len(part) > 300 else int(response.headers["content-range"].split()[1].split("-")[0])
    assert response.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{len(BYTES)}"


@pytest.mark.parametrize("wanted", ["bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=9-2", "bytes=a-b"])
def test_an_invalid_range_is_ignored(page, mention, file, wanted):
    assert page.get(mention(file.as_uri()), Range=wanted).body == BYTES


def test_a_range_beyond_the_end(page, mention, file):
    response = page.get(mention(file.as_uri()), Range="bytes=99999999999999999999-")
    assert response.status == 416
    assert response.headers["content-range"] == f"bytes */{len(BYTES)}"


def test_an_empty_file(page, mention, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    response = page.get(mention(empty.as_uri()))
    assert (response.status, response.body) == (200, b"")
    assert page.get(empty.as_uri(), Range="bytes=0-").status == 416


def test_only_regular_files_can_be_read(page, mention, tmp_path):
    """R46: a directory, a pipe and a device are rejected, and the hub does not wait for a pipe."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "link"):
        response = page.get(mention(f"file://{path}"))
        assert response.status == 403
        assert response.headers["access-control-allow-origin"] == ORIGIN
    assert page.get(mention((tmp_path / "missing").as_uri())).status == 404
    assert page.get(mention("file:///tmp/a%00b")).status == 404


def test_a_link_that_a_program_mentioned_can_be_read(page, mention, file, tmp_path):
    """R46: the path of its target is another URL, which no program has mentioned."""
    link = tmp_path / "link.fits"
    link.symlink_to(file)
    assert page.get(mention(link.as_uri())).body == BYTES
    assert page.get(file.as_uri()).status == 403


def test_a_file_cannot_act_as_a_page_of_the_hub(page, mention, file):
    """The scripts of an HTML file that a browser opens from this server must not run."""
    headers = page.get(mention(file.as_uri())).headers
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_page_that_stops_reading_delays_no_other(hub, page, mention, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as stream:
        stream.truncate(50_000_000)
    with page.connect() as sock:
        send(
            sock,
            "GET",
            "/translator/" + page.translator.split("/")[-1] + mention(big.as_uri()),
            {"Host": f"localhost:{page.port}"},
        )
        assert sock.recv(100)
        assert page.call("ping") == ""
        began = time.monotonic()
        hub.stop()
        assert time.monotonic() - began < 2


def test_the_number_of_transfers_is_limited(hub, page, mention, tmp_path, monkeypatch):
    monkeypatch.setattr(url_proxy, "MAX_TRANSFERS", 2)
    big = tmp_path / "big"
    with big.open("wb") as stream:
        stream.truncate(50_000_000)
    uri = mention(big.as_uri())
    socks = [page.connect() for _ in range(2)]
    for sock in socks:
        send(sock, "GET", "/translator/" + page.translator.split("/")[-1] + uri, {"Host": f"localhost:{page.port}"})
        sock.recv(100)
    assert page.get(uri).status == 503
    for sock in socks:
        sock.close()
    wait_until(lambda: page.get(uri, "HEAD").status == 200)


# Other servers


def test_the_hub_reads_from_another_server(page, mention, site):
    """R46: the hub passes on the headers that describe the data, but no cookies, in either direction."""
    mention(site.url + "/x?a=1&b=%41 c\u00e9")
    url_of_a_browser = site.url + "/x?a=1&b=%41%20c%C3%A9"
    response = page.get(url_of_a_browser, Cookie="secret=1", Authorization="Basic x")
    assert response.body == BYTES
    assert response.headers["content-type"] == "image/x-odd"
    assert response.headers["etag"] == '"7"'
    assert response.headers["content-length"] == str(len(BYTES))
    assert not {"set-cookie", "x-other", "server"} & set(response.headers)
    ((_, path, headers),) = site.requests
    assert path == "/x?a=1&b=%41%20c%C3%A9"
    assert not {"Cookie", "Authorization", "Origin", "Referer"} & set(headers)


@pytest.mark.parametrize("path", ["/until-close", "/chunks"])
def test_bodies_of_unknown_length(page, mention, site, path):
    response = page.get(mention(site.url + path))
    assert response.body == BYTES * (10 if path == "/chunks" else 1)
    assert "content-length" not in response.headers


@pytest.mark.parametrize("path", ["/broken-chunks", "/short"])
def test_an_incomplete_body_is_an_error_for_the_page(page, mention, site, path):
    with pytest.raises((ConnectionResetError, OSError)):
        page.get(mention(site.url + path))


def test_a_range_of_another_server(page, mention, site):
    """R46."""
    response = page.get(mention(site.url + "/range"), Range="bytes=10-19")
    assert (response.status, response.body) == (206, BYTES[10:20])
    assert response.headers["content-range"] == f"bytes 10-19/{len(BYTES)}"
    assert site.requests[0][2]["Range"] == "bytes=10-19"


def test_errors_of_another_server(page, mention, site, monkeypatch):
    monkeypatch.setattr(url_proxy, "FETCH_TIMEOUT", 0.5)
    assert page.get(mention(site.url + "/missing")).status == 404
    assert page.get(mention(site.url + "/no-http")).status == 502
    assert page.get(mention(site.url + "/silent")).status == 504
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        response = page.get(mention(f"http://127.0.0.1:{unused.getsockname()[1]}/"))
    assert response.status == 502
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert page.get(mention("http://nowhere.invalid/")).status == 502


def test_redirects(page, mention, site, file):
    """R46: the hub follows no redirect to another scheme, not even to ``https``."""
    site.locations.update(
        {
            "/a": "/b",
            "/b": site.url + "/c",
            "/file": file.as_uri(),
            "/ftp": "ftp://h/x",
            "/https": site.url.replace("http:", "https:") + "/c",
            "/round": "/round",
            "/odd": "http://[x",
        }
    )
    assert page.get(mention(site.url + "/a")).body == BYTES
    for path, reason in (
        ("/file", b"another scheme (file)"),
        ("/ftp", b"another scheme (ftp)"),
        ("/https", b"another scheme (https)"),
        ("/round", b"too often"),
        ("/odd", b"malformed URL"),
    ):
        response = page.get(mention(site.url + path))
        assert response.status == 502
        assert reason in response.body
        assert BYTES not in response.body


def test_a_redirect_from_the_internet_into_the_local_network_is_not_followed(page, mention, site, monkeypatch):
    """A server in the internet could otherwise have the hub read from a device that the page cannot reach."""
    site.locations["/elsewhere"] = site.url + "/inner"
    results = iter([True, False])
    monkeypatch.setattr(url_proxy, "is_global", lambda _sock: next(results))
    response = page.get(mention(site.url + "/elsewhere"))
    assert response.status == 502
    assert [path for _, path, _ in site.requests] == ["/elsewhere"]


def test_proxies_of_the_environment_are_not_used(page, mention, site, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    assert page.get(mention(site.url + "/x")).status == 200


def test_a_silent_server_does_not_delay_the_stop(hub, page, mention, site):
    with page.connect() as sock:
        target = "/translator/" + page.translator.split("/")[-1] + mention(site.url + "/silent")
        send(sock, "GET", target, {"Host": f"localhost:{page.port}"})
        wait_until(lambda: site.requests)
        began = time.monotonic()
        hub.stop()
        assert time.monotonic() - began < 8
        site.requests.clear()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs the memory figures of Linux")
def test_a_file_of_600_mb_costs_no_memory(page, mention, site, tmp_path):
    """R46: memory grows by less than 50 MB, and the page reads every byte of the file."""
    size = 600 << 20
    big = tmp_path / "big.fits"
    block = os.urandom(1 << 20)
    digest = hashlib.blake2b()
    with big.open("wb") as stream:
        for number in range(size >> 20):
            part = number.to_bytes(8, "big") + block[8:]
            stream.write(part)
            digest.update(part)
    process = psutil.Process()
    before = process.memory_info().rss
    peak = 0
    seen = hashlib.blake2b()
    with page.connect() as sock:
        target = "/translator/" + page.translator.split("/")[-1] + mention(big.as_uri())
        send(sock, "GET", target, {"Host": f"localhost:{page.port}"})
        response = sock.makefile("rb")
        while response.readline() != b"\r\n":
            pass
        left = size
        view = memoryview(bytearray(1 << 20))
        while left:
            count = response.readinto1(view)  # type: ignore[attr-defined]
            assert count
            seen.update(view[:count])
            left -= count
            peak = max(peak, process.memory_info().rss)
        assert response.read(1) == b""
        response.close()
    assert seen.digest() == digest.digest()
    assert peak - before < 50 << 20
    print(f"\n600 MB file: memory grew by {(peak - before) / (1 << 20):.1f} MB")
    big.unlink()


def test_responses_are_complete_for_pages_that_read_slowly(page, mention, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(5_000_000))
    with page.connect() as sock:
        target = "/translator/" + page.translator.split("/")[-1] + mention(big.as_uri())
        send(sock, "GET", target, {"Host": f"localhost:{page.port}"})
        threading.Event().wait(0.5)
        assert Response(sock, "GET").body == big.read_bytes()
