# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The extension in a Jupyter server, with a kernel."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from pyvo.samp.jupyter_server.publications import LIFETIME
from tests.hub.recipients import wait_until

from .servers import JupyterServer, Response, environment_of

pytest.importorskip("jupyter_server", reason="jupyter_server is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

CONTENT = bytes(range(256)) * 40
MB = 1024 * 1024
#: The path is unknown, or the server requires a login.
NOT_SERVED = {302, 403, 404}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that requires a login for everything, which is not the default, and that logs all requests."""
    home = tmp_path_factory.mktemp("jupyter")
    options = ["--ServerApp.allow_unauthenticated_access=False", "--ServerApp.log_level=DEBUG"]
    with JupyterServer(environment_of(home), home, *options) as server:
        server.kernel = server.start_kernel()
        server.home = home
        yield server


@pytest.fixture
def url(server):
    """The URL of a file that the kernel has published."""
    (server.home / "table.vot").write_bytes(CONTENT)
    code = (
        "from pyvo.samp.jupyter_server import publish_file; import os, time\n"
        f"publication = publish_file({str(server.home / 'table.vot')!r})\n"
        "print(publication.url_path, os.path.abspath(publication.path))"
    )
    path, file = server.run(server.kernel, code).split()
    assert Path(file).is_relative_to(server.runtime / "pyvo-samp-data")
    return server.url + path


def test_a_page_can_find_the_extension_without_a_login(server):
    response = Response(server.url + "pyvo-samp/data/")
    assert (response.status, response.body) == (200, b'{"pyvo-samp": 1}')
    assert Response(server.url + "pyvo-samp/data").status == 200
    assert Response(server.url + "api/kernels").status == 403  # everything else needs a login


def test_a_published_file_can_be_read_without_a_login(url):
    response = Response(url)
    assert (response.status, response.body) == (200, CONTENT)
    assert response.headers["content-type"] == "application/x-votable+xml"
    assert response.headers["content-length"] == str(len(CONTENT))
    assert "sandbox" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["access-control-allow-origin"] == "*"
    assert "set-cookie" not in response.headers


def test_head_of_a_published_file(url):
    response = Response(url, "HEAD")
    assert (response.status, response.body) == (200, b"")
    assert response.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize(
    ("text", "part"), [("bytes=10-19", CONTENT[10:20]), ("bytes=-5", CONTENT[-5:]), ("bytes=10000-", CONTENT[10000:])]
)
def test_ranges_of_a_published_file(url, text, part):
    response = Response(url, Range=text)
    assert (response.status, response.body) == (206, part)
    assert response.headers["content-range"].endswith(f"/{len(CONTENT)}")


def test_a_range_beyond_the_end_of_a_published_file(url):
    response = Response(url, Range=f"bytes={len(CONTENT)}-")
    assert response.status == 416
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_preflight_of_a_page(url):
    response = Response(url, "OPTIONS", Origin="https://sky.example", Access_Control_Request_Headers="range")
    assert response.status == 204
    assert response.headers["access-control-allow-origin"] == "*"
    assert "Range" in response.headers["access-control-allow-headers"]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_methods_other_than_get_and_head_are_rejected(url, method):
    assert Response(url, method, b"x").status in {403, 405}
    assert Response(url).body == CONTENT


@pytest.mark.parametrize("change", ["x", "/x", "/../table.vot", "%2F..%2F..%2Ftable.vot", "/../../../table.vot"])
def test_other_paths_are_not_served(url, change):
    response = Response(url + change)
    assert response.status in NOT_SERVED
    assert CONTENT not in response.body


def test_other_tokens_are_not_served(url):
    token = urlsplit(url).path.split("/")[-2]
    for other in ("x" * 43, token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), "..", "%2E%2E"):
        assert Response(url.replace(token, other)).status in NOT_SERVED


def test_a_symbolic_link_is_not_served(server, url):
    """Not even one that the kernel has created."""
    code = "import os; os.unlink(publication.path); os.symlink('/etc/passwd', publication.path)"
    server.run(server.kernel, code)
    assert Response(url).status == 404


def test_a_withdrawn_publication_is_not_served(server, url):
    server.run(server.kernel, "publication.withdraw()")
    assert Response(url).status == 404


def test_an_expired_publication_is_not_served(server, url):
    server.run(server.kernel, f"then = time.time() - {LIFETIME}; os.utime(publication.path.parent, (then, then))")
    assert Response(url).status == 404


def test_the_end_of_the_kernel_withdraws_its_publications(server):
    kernel = server.start_kernel()
    code = "from pyvo.samp.jupyter_server import create_publication\np = create_publication('a')\n"
    url = server.url + server.run(kernel, code + "p.path.write_bytes(b'x')\nprint(p.url_path)").strip()
    assert Response(url).body == b"x"
    server.stop_kernel(kernel)
    assert Response(url).status == 404


def test_a_reader_that_closes_its_connection(server, url):
    """The server continues, and logs no error."""
    server.run(
        server.kernel, "import shutil; publication.path.unlink(); publication.path.write_bytes(bytes(50_000_000))"
    )
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as sock:
        sock.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert Response(server.url + "pyvo-samp/data/").status == 200
    assert not [line for line in server.lines if "Traceback" in line]


def test_a_large_file_costs_no_memory(server, url):
    """A slow reader of 500 MB costs one buffer."""
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


def test_the_log_contains_no_token(server, url):
    """JupyterHub collects the logs of its users' servers."""
    token = urlsplit(url).path.split("/")[-2]
    before = len(server.lines)
    for method, other, status in (("GET", "", 200), ("HEAD", "", 200), ("GET", ".gone", 404)):
        assert Response(url + other, method).status == status
    wait_until(lambda: [line for line in server.lines[before:] if "pyvo-samp/data/.../table.vot.gone" in line])
    assert [line for line in server.lines[before:] if "200 GET /user/a%40b/pyvo-samp/data/.../table.vot" in line]
    assert not [line for line in server.lines if token in line and "execute" not in line]
