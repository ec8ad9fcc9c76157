# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files for recipients: their URLs, and how long they can be read."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pyvo.samp.exchange import file_server
from pyvo.samp.exchange.file_server import FileServer, Lease
from pyvo.samp.temporary_files import safe_file_name
from pyvo.samp.transport.event_loop import EventLoop

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[FileServer]:
    loop = EventLoop("test")
    loop.start()
    server = FileServer(loop)
    yield server
    server.close()
    loop.stop()


@pytest.fixture
def lease(server: FileServer) -> Lease:
    """A lease on a file that is read over HTTP."""
    path = server.create_path("some.fits")
    path.write_bytes(CONTENT)
    return server.add(path, "some", temporary=True).create_lease(http=True)


ResponseParts = tuple[int, dict[str, str], bytes]


def request(url: str, method: str = "GET", target: str | None = None, **headers: str) -> ResponseParts:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request(method, target or parts.path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def wait_until_gone(path: Path, server: FileServer) -> None:
    """Wait until a file is removed: the thread that wrote its last byte does this shortly after the reader has it."""
    done = threading.Event()
    while os.path.lexists(path):
        server.loop.run_in_worker(done.set)
        assert done.wait(5)
        done.clear()


def test_get_head_and_range(server: FileServer, lease: Lease) -> None:
    status, headers, body = request(lease.url)
    assert (status, body) == (200, CONTENT)
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["content-type"] == "application/fits"
    status, headers, body = request(lease.url, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")
    status, headers, body = request(lease.url, Range="bytes=256-511")
    assert (status, body) == (206, bytes(range(256)))
    assert headers["content-range"] == f"bytes 256-511/{len(CONTENT)}"
    assert request(lease.url, Range=f"bytes={len(CONTENT)}-")[0] == 416


@pytest.mark.parametrize("byte_range", ["5000-1", f"{'9' * 5000}-1", "1-2,4-5", "x-y", "-"])
def test_ranges_that_are_ignored(lease: Lease, byte_range: str) -> None:
    """The response to a malformed range, and to several ranges, is the whole file."""
    assert request(lease.url, Range=f"bytes={byte_range}")[::2] == (200, CONTENT)


def test_numbers_of_any_length_in_a_range(lease: Lease) -> None:
    digits = "9" * 5000
    assert request(lease.url, Range=f"bytes=1-{digits}")[::2] == (206, CONTENT[1:])
    assert request(lease.url, Range=f"bytes=-{digits}")[::2] == (206, CONTENT)
    assert request(lease.url, Range=f"bytes={digits}-")[0] == 416


def test_only_published_files_are_served(lease: Lease) -> None:
    """The token and the name must both be right. The response to Aladin's request for ``/properties`` is 404."""
    path = urlsplit(lease.url).path
    outside = f"/{lease.token}/../some.fits"
    others = (f"{path}/properties", path.upper(), outside)
    for target in ("/", "/some.fits", f"/{lease.token}", "/x" * 30, "/%00", *others):
        assert request(lease.url, target=target)[0] == 404, target
    assert request(lease.url, "POST")[0] == 405
    assert request(lease.url, "DELETE")[0] == 405
    assert request(lease.url, target=f"{path}?cached=no")[0] == 200


def test_foreign_hosts_are_rejected(lease: Lease) -> None:
    """A page whose host name resolves to this machine (DNS rebinding) sends that host name (R38): it is rejected."""
    assert request(lease.url, Host="evil.example")[0] == 403
    status, headers, _ = request(lease.url, Origin="https://somewhere.example")
    assert (status, headers["access-control-allow-origin"]) == (200, "*")


def test_tokens_cannot_be_guessed(server: FileServer, lease: Lease) -> None:
    other = lease.file.create_lease(http=True)
    assert lease.url != other.url
    assert len(lease.token) >= 22


def test_a_file_is_removed_when_all_have_responded(server: FileServer, lease: Lease) -> None:
    other = lease.file.create_lease(http=True)
    path = lease.file.path
    assert request(lease.url)[0] == 200
    lease.on_response(loaded=True)
    other.on_response(loaded=False)  # a recipient that sends an error does not read the file
    wait_until_gone(path.parent, server)
    assert request(other.url)[0] == 404
    assert server.files == []


def test_reading_after_the_response(server: FileServer, lease: Lease) -> None:
    """Some recipients respond before they read; the file stays until then."""
    lease.on_response(loaded=True)
    assert lease.file.path.exists()
    assert request(lease.url)[2] == CONTENT
    wait_until_gone(lease.file.path, server)


def test_a_failed_reader_that_stops_later(server: FileServer, lease: Lease) -> None:
    """A recipient replies with an error while it reads, and then closes the connection: the file is removed."""
    lease.on_transfer_start()
    lease.on_response(loaded=False)
    assert lease.file.path.exists()
    lease.on_transfer_end(complete=False)
    wait_until_gone(lease.file.path, server)
    assert server.files == []


def test_a_file_that_is_never_read(server: FileServer, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is removed after FETCH_GRACE if its recipient responds with success, but never reads it."""
    monkeypatch.setattr(file_server, "FETCH_GRACE", 0.05)
    lease.on_response(loaded=True)
    wait_until_gone(lease.file.path, server)


def test_a_file_url_is_valid_until_the_response(server: FileServer) -> None:
    path = server.create_path("a.vot")
    path.write_bytes(b"x")
    lease = server.add(path, "a", temporary=True).create_lease()
    assert lease.url == path.as_uri()
    lease.on_response(loaded=True)
    assert not path.exists()


def test_a_file_with_the_same_key_replaces_the_earlier_one(server: FileServer) -> None:
    """If a table is sent again, the new file replaces the earlier one."""
    paths = [server.create_path("a.vot"), server.create_path("a.vot")]
    for path in paths:
        path.write_bytes(b"x")
    first = server.add(paths[0], "a", temporary=True, key="t").create_lease(http=True)
    second = server.add(paths[1], "a", temporary=True, key="t").create_lease(http=True)
    assert [path.exists() for path in paths] == [False, True]
    assert request(first.url)[0] == 404
    assert request(second.url)[0] == 200


def test_a_file_of_the_user_is_not_removed(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "with blank.fits"
    path.write_bytes(CONTENT)
    link = server.link_with_plain_name(path)
    assert link.name == "with_blank.fits"
    for file in (server.add(path, path.name, temporary=False), server.add(link, link.name, temporary=True)):
        lease = file.create_lease(http=True)
        assert request(lease.url)[2] == CONTENT
        lease.on_response(loaded=False)
    assert path.exists()
    wait_until_gone(link, server)


def test_the_directory_is_private(server: FileServer) -> None:
    """Other users cannot read the directory."""
    path = server.create_path("a.vot")
    assert path.parent.stat().st_mode & 0o077 == 0
    assert path.parent.parent.stat().st_mode & 0o077 == 0


def test_close_removes_everything(server: FileServer, lease: Lease) -> None:
    server.close()
    assert not lease.file.path.parent.parent.exists()
    server.close()


def test_closing_during_a_transfer(server: FileServer) -> None:
    """`close` ends a transfer: the reader gets an error, and no thread is left."""
    path = server.create_path("big.fits")
    with path.open("wb") as file:
        file.truncate(200_000_000)
    lease = server.add(path, "big", temporary=True).create_lease(http=True)
    parts = urlsplit(lease.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    connection.request("GET", parts.path)
    response = connection.getresponse()
    assert response.read(10) == bytes(10)
    server.close()
    with pytest.raises((http.client.HTTPException, OSError)):
        response.read()
    connection.close()


def test_a_deleted_file(server: FileServer, lease: Lease) -> None:
    lease.file.path.unlink()
    assert request(lease.url)[0] == 404


def test_many_readers(server: FileServer, lease: Lease) -> None:
    """Each of many readers gets the whole file."""
    results: list[ResponseParts] = []
    threads = [threading.Thread(target=lambda: results.append(request(lease.url))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result[2] for result in results] == [CONTENT] * 20


@pytest.mark.parametrize(
    ("name", "plain"),
    [("M 31", "M_31.fits"), ("a/../b", "a_b.fits"), ("é", "data.fits"), ("", "data.fits"), ("x.fits", "x.fits"),
     ("100%25#?", "100_25.fits"), ("y" * 200, "y" * 60 + ".fits")],
)
def test_safe_file_names(name: str, plain: str) -> None:
    assert safe_file_name(name, ".fits") == plain


def test_a_forked_child_keeps_the_files_of_its_parent(
    python_environment: dict[str, str], tmp_path: Path, hub: object, script: Callable[..., object]
) -> None:
    """The exit of a child removes no file. The exit of the parent removes all files, disconnected or not."""
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
from astropy.table import Table
from pyvo.samp import SAMPIntegratedClient
client = SAMPIntegratedClient(name="x")
client.connect()
path = client._exchange.file_server.create_path("a.vot")
path.write_bytes(b"x")
child = os.fork()
if not child:
    sys.exit(0)
os.waitpid(child, 0)
print(path.exists(), path.parent.parent)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    there, directory = done.stdout.split()
    assert there == "True"
    assert not Path(directory).exists()
