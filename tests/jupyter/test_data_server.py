# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The extension in a real Jupyter server, with a real kernel."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from pyvo.samp.jupyter_server.publications import LIFETIME
from tests.hub.recipients import wait_until

from .servers import JupyterServer, Reply, environment_of

pytest.importorskip("jupyter_server", reason="jupyter_server is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

CONTENT = bytes(range(256)) * 40
MB = 1024 * 1024
#: The path is unknown, or the server asks for a login.
NOT_SERVED = {302, 403, 404}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start a server that lets nobody in without a login, which is not the default, and that logs all requests."""
    home = tmp_path_factory.mktemp("jupyter")
    options = ["--ServerApp.allow_unauthenticated_access=False", "--ServerApp.log_level=DEBUG"]
    with JupyterServer(environment_of(home), home, *options) as server:
        server.kernel = server.start_kernel()
        server.home = home
        yield server


@pytest.fixture
def url(server):
    """Publish a file in the kernel, and return its URL."""
    (server.home / "table.vot").write_bytes(CONTENT)
    code = (
        "from pyvo.samp.jupyter_server import publish_file; import os, time\n"
        f"publication = publish_file({str(server.home / 'table.vot')!r})\n"
        "print(publication.url_path, os.path.abspath(publication.path))"
    )
    path, file = server.run(server.kernel, code).split()
    assert Path(file).is_relative_to(server.runtime / "pyvo-samp-data")
    return server.url + path


def test_page_can_ask_for_the_extension(server):
    reply = Reply(server.url + "pyvo-samp/data/")
    assert (reply.status, reply.body) == (200, b'{"pyvo-samp": 1}')
    assert Reply(server.url + "pyvo-samp/data").status == 200
    assert Reply(server.url + "api/kernels").status == 403  # such as everything else, without a login


def test_file_without_login(url):
    reply = Reply(url)
    assert (reply.status, reply.body) == (200, CONTENT)
    assert reply.headers["content-type"] == "application/x-votable+xml"
    assert reply.headers["content-length"] == str(len(CONTENT))
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "set-cookie" not in reply.headers


def test_head(url):
    reply = Reply(url, "HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize(
    ("text", "part"), [("bytes=10-19", CONTENT[10:20]), ("bytes=-5", CONTENT[-5:]), ("bytes=10000-", CONTENT[10000:])]
)
def test_range(url, text, part):
    reply = Reply(url, Range=text)
    assert (reply.status, reply.body) == (206, part)
    assert reply.headers["content-range"].endswith(f"/{len(CONTENT)}")


def test_range_that_is_not_there(url):
    reply = Reply(url, Range=f"bytes={len(CONTENT)}-")
    assert reply.status == 416
    assert reply.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_preflight_of_a_page(url):
    reply = Reply(url, "OPTIONS", Origin="https://sky.example", Access_Control_Request_Headers="range")
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "Range" in reply.headers["access-control-allow-headers"]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_other_methods(url, method):
    assert Reply(url, method, b"x").status in {403, 405}
    assert Reply(url).body == CONTENT


@pytest.mark.parametrize("change", ["x", "/x", "/../table.vot", "%2F..%2F..%2Ftable.vot", "/../../../table.vot"])
def test_other_paths(url, change):
    reply = Reply(url + change)
    assert reply.status in NOT_SERVED
    assert CONTENT not in reply.body


def test_other_tokens(url):
    token = urlsplit(url).path.split("/")[-2]
    for other in ("x" * 43, token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), "..", "%2E%2E"):
        assert Reply(url.replace(token, other)).status in NOT_SERVED


def test_symbolic_link(server, url):
    """Even one that the kernel makes."""
    code = "import os; os.unlink(publication.path); os.symlink('/etc/passwd', publication.path)"
    server.run(server.kernel, code)
    assert Reply(url).status == 404


def test_withdrawn(server, url):
    server.run(server.kernel, "publication.withdraw()")
    assert Reply(url).status == 404


def test_end_of_the_time(server, url):
    server.run(server.kernel, f"then = time.time() - {LIFETIME}; os.utime(publication.path.parent, (then, then))")
    assert Reply(url).status == 404


def test_end_of_the_kernel(server):
    kernel = server.start_kernel()
    code = "from pyvo.samp.jupyter_server import create_publication\np = create_publication('a')\n"
    url = server.url + server.run(kernel, code + "p.path.write_bytes(b'x')\nprint(p.url_path)").strip()
    assert Reply(url).body == b"x"
    server.stop_kernel(kernel)
    assert Reply(url).status == 404


def test_reader_that_goes_away(server, url):
    """The server goes on, without an error in its log."""
    server.run(
        server.kernel, "import shutil; publication.path.unlink(); publication.path.write_bytes(bytes(50_000_000))"
    )
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as sock:
        sock.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert Reply(server.url + "pyvo-samp/data/").status == 200
    assert not [line for line in server.lines if "Traceback" in line]


def test_memory(server, url):
    """A slow reader of a large file costs a buffer (proof 5 of the relay has 500 MB)."""
    server.run(
        server.kernel, "publication.path.unlink()\nwith open(publication.path, 'wb') as f: f.truncate(500_000_000)"
    )
    process = psutil.Process(server.pid)
    before = peak = process.memory_info().rss
    parts = urlsplit(url)
    received = 0
    with socket.create_connection((parts.hostname, parts.port)) as sock:
        sock.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        while data := sock.recv(MB):
            received += len(data)
            if not received // MB % 50:
                peak = max(peak, process.memory_info().rss)
    assert received > 500_000_000
    assert peak - before < 50 * MB


def test_no_token_in_the_log(server, url):
    """JupyterHub collects the logs of its users' servers."""
    token = urlsplit(url).path.split("/")[-2]
    before = len(server.lines)
    for method, other, status in (("GET", "", 200), ("HEAD", "", 200), ("GET", ".gone", 404)):
        assert Reply(url + other, method).status == status
    wait_until(lambda: [line for line in server.lines[before:] if "pyvo-samp/data/.../table.vot.gone" in line])
    assert [line for line in server.lines[before:] if "200 GET /user/a%40b/pyvo-samp/data/.../table.vot" in line]
    assert not [line for line in server.lines if token in line and "execute" not in line]
