# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files that are handed out: by which URL, to whom, for how long."""

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
from pyvo.samp.exchange.file_server import FileServer, Lease, safe_file_name
from pyvo.samp.transport.event_loop import EventLoop

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def shelf() -> Iterator[FileServer]:
    loop = EventLoop("test")
    loop.start()
    shelf = FileServer(loop)
    yield shelf
    shelf.close()
    loop.stop()


@pytest.fixture
def loan(shelf: FileServer) -> Lease:
    """A file that is lent over HTTP."""
    path = shelf.create_path("some.fits")
    path.write_bytes(CONTENT)
    return shelf.add(path, "some", ours=True).create_lease(http=True)


Answer = tuple[int, dict[str, str], bytes]


def ask(url: str, method: str = "GET", target: str | None = None, **headers: str) -> Answer:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request(method, target or parts.path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def wait_until_gone(path: Path, shelf: FileServer) -> None:
    """A file is removed by the thread that wrote its last byte, a moment after the reader has it."""
    done = threading.Event()
    while os.path.lexists(path):
        shelf._loop.run_in_worker(done.set)
        assert done.wait(5)
        done.clear()


def test_get_head_and_range(shelf: FileServer, loan: Lease) -> None:
    status, headers, body = ask(loan.url)
    assert (status, body) == (200, CONTENT)
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["content-type"] == "application/fits"
    status, headers, body = ask(loan.url, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")
    status, headers, body = ask(loan.url, Range="bytes=256-511")
    assert (status, body) == (206, bytes(range(256)))
    assert headers["content-range"] == f"bytes 256-511/{len(CONTENT)}"
    assert ask(loan.url, Range=f"bytes={len(CONTENT)}-")[0] == 416


def test_nothing_else_is_there(loan: Lease) -> None:
    """The token and the name must both be right; Aladin's question for ``/properties`` is a 404."""
    path = urlsplit(loan.url).path
    for target in ("/", "/some.fits", f"/{loan.token}", f"{path}/properties", "/x" * 30, f"/{loan.token}/../some.fits",
                   "/%00", path.upper()):
        assert ask(loan.url, target=target)[0] == 404, target
    assert ask(loan.url, "POST")[0] == 405
    assert ask(loan.url, "DELETE")[0] == 405
    assert ask(loan.url, target=f"{path}?cached=no")[0] == 200


def test_foreign_hosts_are_refused(loan: Lease) -> None:
    """A page whose host name was made to resolve to this machine names that host (R38)."""
    assert ask(loan.url, Host="evil.example")[0] == 403
    status, headers, _ = ask(loan.url, Origin="https://somewhere.example")
    assert (status, headers["access-control-allow-origin"]) == (200, "*")


def test_tokens_cannot_be_guessed(shelf: FileServer, loan: Lease) -> None:
    other = loan.lot.create_lease(http=True)
    assert loan.url != other.url
    assert len(loan.token) >= 22


def test_removed_when_all_have_answered(shelf: FileServer, loan: Lease) -> None:
    other = loan.lot.create_lease(http=True)
    path = loan.lot.path
    assert ask(loan.url)[0] == 200
    loan.on_response(loaded=True)
    other.on_response(loaded=False)  # one that refuses will not come
    wait_until_gone(path.parent, shelf)
    assert ask(other.url)[0] == 404
    assert shelf.files == []


def test_read_after_the_answer(shelf: FileServer, loan: Lease) -> None:
    """Some answer first and read then; the file stays for that."""
    loan.on_response(loaded=True)
    assert loan.lot.path.exists()
    assert ask(loan.url)[2] == CONTENT
    wait_until_gone(loan.lot.path, shelf)


def test_never_read(shelf: FileServer, loan: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not stay for ever for one who says that it has the file, and never comes."""
    monkeypatch.setattr(file_server, "FETCH_GRACE", 0.05)
    loan.on_response(loaded=True)
    wait_until_gone(loan.lot.path, shelf)


def test_file_urls_serve_until_the_answer(shelf: FileServer) -> None:
    path = shelf.create_path("a.vot")
    path.write_bytes(b"x")
    loan = shelf.add(path, "a", ours=True).create_lease()
    assert loan.url == path.as_uri()
    loan.on_response(loaded=True)
    assert not path.exists()


def test_the_same_key_replaces(shelf: FileServer) -> None:
    """A table that is sent again takes the place of the earlier one."""
    paths = [shelf.create_path("a.vot"), shelf.create_path("a.vot")]
    for path in paths:
        path.write_bytes(b"x")
    first = shelf.add(paths[0], "a", ours=True, key="t").create_lease(http=True)
    second = shelf.add(paths[1], "a", ours=True, key="t").create_lease(http=True)
    assert [path.exists() for path in paths] == [False, True]
    assert ask(first.url)[0] == 404
    assert ask(second.url)[0] == 200


def test_a_file_that_is_not_ours_stays(shelf: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "with blank.fits"
    path.write_bytes(CONTENT)
    link = shelf.link_with_plain_name(path)
    assert link.name == "with_blank.fits"
    for lot in (shelf.add(path, path.name, ours=False), shelf.add(link, link.name, ours=True)):
        loan = lot.create_lease(http=True)
        assert ask(loan.url)[2] == CONTENT
        loan.on_response(loaded=False)
    assert path.exists()
    wait_until_gone(link, shelf)


def test_private(shelf: FileServer) -> None:
    """Nobody else may look into the directory."""
    path = shelf.create_path("a.vot")
    assert path.parent.stat().st_mode & 0o077 == 0
    assert path.parent.parent.stat().st_mode & 0o077 == 0


def test_close_removes_everything(shelf: FileServer, loan: Lease) -> None:
    shelf.close()
    assert not loan.lot.path.parent.parent.exists()
    shelf.close()


def test_closing_while_somebody_reads(shelf: FileServer) -> None:
    """The reader sees the end; no thread is left."""
    path = shelf.create_path("big.fits")
    with path.open("wb") as file:
        file.truncate(200_000_000)
    loan = shelf.add(path, "big", ours=True).create_lease(http=True)
    parts = urlsplit(loan.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    connection.request("GET", parts.path)
    answer = connection.getresponse()
    assert answer.read(10) == bytes(10)
    shelf.close()
    with pytest.raises((http.client.HTTPException, OSError)):
        answer.read()
    connection.close()


def test_a_vanished_file(shelf: FileServer, loan: Lease) -> None:
    loan.lot.path.unlink()
    assert ask(loan.url)[0] == 404


def test_many_readers(shelf: FileServer, loan: Lease) -> None:
    """Each gets the whole file."""
    results: list[Answer] = []
    threads = [threading.Thread(target=lambda: results.append(ask(loan.url))) for _ in range(20)]
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
def test_plain_names(name: str, plain: str) -> None:
    assert safe_file_name(name, ".fits") == plain


def test_a_fork_leaves_the_parents_files(
    python_environment: dict[str, str], tmp_path: Path, hub: object, script: Callable[..., object]
) -> None:
    """The end of a child removes nothing; that of the parent everything, disconnected or not."""
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
from astropy.table import Table
from pyvo.samp import SAMPIntegratedClient
client = SAMPIntegratedClient(name="x")
client.connect()
path = client._bench.file_server.create_path("a.vot")
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
