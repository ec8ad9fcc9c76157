# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Files that web clients upload: chunks, permissions, limits, and errors."""

from __future__ import annotations

import errno
import http.client
import itertools
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.temporary_files import PREFIX
from pyvo.samp.transport.urls import file_url_to_path
from pyvo.samp.web_profile import uploads
from pyvo.samp.web_profile.uploads import ClientUploads, Upload, UploadError, _gaps, _merge
from tests.hub.recipients import wait_until
from tests.hub.web_pages import ORIGIN, Page, Program, Response, message, request, send

MTYPE = "table.load.votable"
CONTENT = bytes(range(256)) * 40
MB = 1024 * 1024


class UploadPage(Page):
    """A page that uploads."""

    upload = ""

    def accept(self, identity):
        super().accept(identity)
        self.upload = identity.get("x-samp.upload", "")

    def target(self, upload_id="a", name="table.vot"):
        return urlsplit(self.upload).path + f"{upload_id}/{name}"

    def request(self, method, upload_id="a", name="table.vot", body=b"", **headers):
        headers = {"Origin": self.origin, **{key.replace("_", "-"): value for key, value in headers.items()}}
        return request(self.port, method, self.target(upload_id, name), headers, body)

    def put(self, body, first=None, total=None, upload_id="a", **options):
        if first is not None:
            options["Content_Range"] = f"bytes {first}-{first + len(body) - 1}/{total}"
        return self.request("PUT", upload_id, body=body, **options)


def state_of(response: Response, status: int) -> dict:
    """Return the value of a response, which must have this status and must be readable by the page."""
    assert (response.status, response.headers["content-type"]) == (status, "application/json"), response.body
    assert response.headers["access-control-allow-origin"]
    return json.loads(response.body)


def error_of(response: Response, status: int) -> str:
    return state_of(response, status)["error"]


def path_of(url: str) -> Path:
    path = file_url_to_path(url)
    assert path is not None
    return Path(path)


@pytest.fixture
def hub(make_hub):
    return make_hub(web_profile=True, web_profile_dialog=lambda *_: True)


@pytest.fixture
def page(hub):
    with UploadPage(hub) as page:
        yield page.register()


def upload(page: UploadPage, content: bytes = CONTENT, **options) -> Path:
    return path_of(state_of(page.put(content, **options), 201)["url"])


# Files


def test_a_small_file_in_one_request(page):
    state = state_of(page.put(CONTENT), 201)
    path = path_of(state["url"])
    assert state == {"total": len(CONTENT), "received": [[0, len(CONTENT) - 1]], "url": path.as_uri()}
    assert path.read_bytes() == CONTENT
    assert path.name == "table.vot"


def test_only_the_user_can_read_a_file(page):
    old = os.umask(0)
    try:
        path = upload(page)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for directory in (path.parent, path.parents[1]):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert path.parents[2] == Path(tempfile.gettempdir())


def test_an_empty_file(page):
    state = state_of(page.put(b""), 201)
    assert state["received"] == []
    assert path_of(state["url"]).read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("M 31.vot", "M_31.vot"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", "data"),
        ("a\\..\\b.fits", "a_b.fits"),
        ("x\0y.fits", "x_y.fits"),
        ("é.fits.gz", "data.fits.gz"),
        ("con.txt", "con_.txt"),
        ("-rf", "-rf"),
        ("y" * 500 + "." + "z" * 500, "y" * 60),
        ("1.5.2.fits", "1_5.2.fits"),
        ("line\nfeed", "line_feed"),
    ],
)
def test_names_are_made_safe(page, name, stored):
    path = upload(page, name=quote(name, safe=""))
    assert path.name == stored
    assert path.parents[2] == Path(tempfile.gettempdir())


@pytest.mark.parametrize("rest", ["", "a", "a/", "a/b/c", "../x/name", "a%2Fb/name", "x" * 65 + "/name", ".../name"])
def test_urls_that_name_no_upload(page, rest):
    target = urlsplit(page.upload).path + rest
    response = request(page.port, "PUT", target, {"Origin": ORIGIN}, CONTENT)
    assert "id" in error_of(response, 400)
    assert not list(Path(tempfile.gettempdir()).iterdir())


# Chunks


def test_chunks_in_order(page):
    for first in range(0, 3 * MB, MB):
        response = page.put(b"%d" % (first // MB) * MB, first, 3 * MB)
        if first < 2 * MB:
            assert state_of(response, 200) == {"total": 3 * MB, "received": [[0, first + MB - 1]]}
    assert path_of(state_of(response, 201)["url"]).read_bytes() == b"0" * MB + b"1" * MB + b"2" * MB


def test_chunks_in_any_order(page):
    """A page can resume with the missing chunks."""
    state_of(page.put(CONTENT[100:200], 100, len(CONTENT)), 200)
    state_of(page.put(CONTENT[5000:], 5000, len(CONTENT)), 200)
    state = state_of(page.request("GET"), 200)
    assert state == {"total": len(CONTENT), "received": [[100, 199], [5000, len(CONTENT) - 1]]}
    state_of(page.put(CONTENT[:100], 0, len(CONTENT)), 200)
    path = path_of(state_of(page.put(CONTENT[200:5000], 200, len(CONTENT)), 201)["url"])
    assert path.read_bytes() == CONTENT
    assert state_of(page.request("GET"), 200)["url"] == path.as_uri()


def test_concurrent_chunks_of_two_files(page):
    """The page sends four chunks of each file at a time, as the relay does, and each file gets a URL."""
    content = os.urandom(3 * MB)
    size = 100_000
    tasks = [(first, name) for first in range(0, len(content), size) for name in ("a", "b")]
    with ThreadPoolExecutor(8) as pool:
        responses = list(
            pool.map(lambda task: page.put(content[task[0] : task[0] + size], task[0], len(content), task[1]), tasks)
        )
    assert {response.status for response in responses} == {200, 201}
    paths = {path_of(state_of(page.request("GET", name), 200)["url"]) for name in ("a", "b")}
    assert [path.read_bytes() == content for path in paths] == [True, True]


def test_a_chunk_that_is_repeated(page):
    """A page that has lost the response can send a chunk again, even the last one."""
    state_of(page.put(CONTENT[:100], 0, len(CONTENT)), 200)
    state_of(page.put(CONTENT[:100], 0, len(CONTENT)), 200)
    first = state_of(page.put(CONTENT[50:], 50, len(CONTENT)), 201)
    assert state_of(page.put(CONTENT[50:], 50, len(CONTENT)), 201) == first
    assert path_of(first["url"]).read_bytes() == CONTENT


@pytest.mark.parametrize("complete", [False, True])
def test_received_bytes_never_change(page, complete):
    """A recipient may already have read them."""
    end = len(CONTENT) if complete else 6000
    response = page.put(CONTENT[:end], 0, len(CONTENT))
    assert "Different bytes" in error_of(page.put(b"?" * 100, end - 100, len(CONTENT)), 409)
    assert "Different bytes" in error_of(page.put(CONTENT[end - 100 : end - 1] + b"?", end - 100, len(CONTENT)), 409)
    if not complete:
        # no part of a chunk is written if another part is wrong
        assert "Different bytes" in error_of(page.put(b"?" * 200, end - 100, len(CONTENT)), 409)
        assert state_of(page.request("GET"), 200)["received"] == [[0, end - 1]]
        response = page.put(CONTENT[end:], end, len(CONTENT))
    assert path_of(state_of(response, 201)["url"]).read_bytes() == CONTENT


def test_another_size(page):
    state_of(page.put(CONTENT[:100], 0, len(CONTENT)), 200)
    assert str(len(CONTENT)) in error_of(page.put(CONTENT[100:200], 100, 300), 409)
    assert str(len(CONTENT)) in error_of(page.put(CONTENT[:100]), 409)
    assert state_of(page.request("GET"), 200)["total"] == len(CONTENT)


@pytest.mark.parametrize(
    "text",
    ["bytes 0-9/*", "bytes */10", "bytes 9-0/10", "bytes 0-10/10", "bytes 10-19/10", "bytes 0-8/10", "bytes 0-10/20",
     "bytes=0-9/10", "0-9/10", "bytes -9/10", "bytes 0-9/10, 0-9/10", "bytes 0-9", "items 0-9/10", "bytes 0-9/ 10",
     "bytes +0-9/10", "bytes 0-9/1" + "0" * 30, "bytes 0x0-0x9/10", ""],
)  # fmt: skip
def test_wrong_content_range(page, text):
    response = request(page.port, "PUT", page.target(), {"Origin": ORIGIN, "Content-Range": text or " "}, CONTENT[:10])
    assert "Content-Range" in error_of(response, 400)
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_a_chunk_that_is_too_large(page):
    response = page.put(b"x" * (uploads.MAX_CHUNK + 1))
    assert state_of(response, 413)["limit"] == uploads.MAX_CHUNK
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_too_many_gaps(page, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_RANGES", 3)
    for first in (10, 20, 30):
        state_of(page.put(b"x", first, 100), 200)
    assert "in order" in error_of(page.put(b"x", 40, 100), 409)
    state_of(page.put(b"x", 31, 100), 200)


def test_an_incomplete_request(page):
    """A chunk is written only if the whole request has arrived."""
    state_of(page.put(CONTENT[:10], 0, len(CONTENT)), 200)
    with socket.create_connection(("127.0.0.1", page.port)) as sock:
        headers = {
            "Host": f"localhost:{page.port}",
            "Origin": ORIGIN,
            "Content-Range": f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}",
            "Content-Length": str(len(CONTENT) - 10),
        }
        send(sock, "PUT", page.target(), headers)
        sock.sendall(CONTENT[10:5000])
    assert state_of(page.request("GET"), 200)["received"] == [[0, 9]]
    assert path_of(state_of(page.put(CONTENT[10:], 10, len(CONTENT)), 201)["url"]).read_bytes() == CONTENT


ranges = st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(ranges, max_size=12))
def test_merge_of_ranges(parts):
    """The merged ranges contain the same bytes, are in order, and do not touch."""
    merged: list[tuple[int, int]] = []
    for part in parts:
        merged = _merge(merged, *part)
    assert {i for a, b in merged for i in range(a, b)} == {i for a, b in parts for i in range(a, b)}
    assert all(first[1] < second[0] for first, second in itertools.pairwise(merged))


@given(st.lists(ranges, max_size=6))
def test_gaps_between_ranges(parts):
    merged: list[tuple[int, int]] = []
    for part in parts:
        merged = _merge(merged, *part)
    missing = [i for a, b in _gaps(merged, 0, 60) for i in range(a, b)]
    assert missing == [i for i in range(60) if not any(a <= i < b for a, b in merged)]


# Permissions


def test_without_uploads(make_hub):
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *_: True, web_profile_upload=False)
    with UploadPage(hub) as page:
        assert page.register().upload == ""
        assert request(page.port, "PUT", "/upload/x/a/b", {"Origin": ORIGIN}, CONTENT).status == 405
        preflight = {"Access-Control-Request-Method": "PUT", "Origin": ORIGIN}
        response = request(page.port, "OPTIONS", "/upload/x/a/b", preflight)
        assert "PUT" not in response.headers["access-control-allow-methods"]


def test_the_preflight_of_the_own_origin(page):
    preflight = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-range"}
    response = page.request("OPTIONS", **preflight)
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert {"PUT", "GET", "DELETE"} <= set(response.headers["access-control-allow-methods"].split(", "))
    assert "Content-Range" in response.headers["access-control-allow-headers"]
    response = page.request("OPTIONS", **preflight, **{"Access-Control-Request-Private-Network": "true"})
    assert response.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://sky.example:8443", "http://sky.example", ""]
)
def test_another_origin_is_rejected(page, origin):
    """Another origin is rejected even if it has the URL."""
    state_of(page.put(CONTENT[:10], 0, 100), 200)
    response = page.request("OPTIONS", Origin=origin or "https://x.example", Access_Control_Request_Method="PUT")
    assert "PUT" not in response.headers["access-control-allow-methods"]
    assert "DELETE" not in response.headers["access-control-allow-methods"]
    for method, body in (("PUT", CONTENT), ("GET", b""), ("DELETE", b"")):
        response = page.request(method, body=body, Origin=origin)
        assert response.status == 403
        assert "origin" in json.loads(response.body)["error"]
    assert state_of(page.request("GET"), 200)["received"] == [[0, 9]]


def test_a_client_that_states_no_origin(hub):
    """Such a client is not a web page, but for example a Python program."""
    with UploadPage(hub, origin="") as client:
        response = client.register().put(CONTENT)
        assert response.status == 201
        assert client.put(CONTENT, Origin=ORIGIN).status == 403


def test_a_client_must_use_its_own_token(hub, page):
    other = UploadPage(hub, "https://other.example")
    with other:
        other.register()
        path = upload(page)
        assert other.upload != page.upload
        assert other.request("GET").status == 404  # the same id names another upload
        assert upload(other, b"other") != path
        assert path.read_bytes() == CONTENT
    for token in ("x" * 43, "", page.translator.split("/")[-1].rstrip("?"), page.key):
        response = request(page.port, "PUT", f"/upload/{token}/a/b", {"Origin": ORIGIN}, CONTENT)
        assert "no longer, registered" in error_of(response, 404)


def test_another_host_is_rejected(page):
    """This protects against DNS rebinding (R45)."""
    response = request(page.port, "PUT", page.target(), {"Origin": ORIGIN}, CONTENT, host="evil.example")
    assert response.status == 403


@pytest.mark.parametrize("method", ["PATCH", "MKCOL", "TRACE"])
def test_other_methods(page, method):
    response = page.request(method)
    assert response.status == 405
    assert "PUT" in response.headers["allow"]


def test_post_is_for_calls(page):
    """R48: the response is a fault."""
    response = page.request("POST", body=CONTENT)
    assert response.status == 200
    assert b"fault" in response.body


def test_the_token_is_in_no_log(page, caplog):
    caplog.set_level("DEBUG")
    upload(page)
    page.put(CONTENT, 3, 4)
    page.put(CONTENT, Origin="https://evil.example")
    token = urlsplit(page.upload).path.split("/")[2]
    assert len(token) == 43
    assert token not in caplog.text


# Limits


def test_the_quota(page, monkeypatch):
    """The whole size of a file counts from its first chunk on."""
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    state_of(page.put(b"x", 0, 600, "a"), 200)
    state = state_of(page.put(b"x", 0, 401, "b"), 413)
    assert (state["limit"], state["used"]) == (1000, 600)
    state_of(page.put(b"x", 0, 400, "b"), 200)
    error_of(page.put(b"x", upload_id="c"), 413)
    assert state_of(page.request("DELETE", "a"), 200) == {}
    state_of(page.put(b"x", upload_id="c"), 201)


def test_the_quota_is_4_gib(page):
    state_of(page.put(b"x", 0, 4 * 1024**3 - 1), 200)
    state_of(page.put(b"x", upload_id="b"), 201)
    assert state_of(page.put(b"x", upload_id="c"), 413)["limit"] == 4 * 1024**3


def test_each_client_has_its_own_quota(hub, page, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 1000)
    upload(page, b"x" * 1000)
    with UploadPage(hub) as other:
        upload(other.register(), b"x" * 1000)


def test_the_number_of_files(page, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    upload(page, upload_id="a")
    upload(page, upload_id="b")
    assert "2 files" in error_of(page.put(b"", upload_id="c"), 413)


def test_too_many_chunks_at_once(page, monkeypatch):
    """The other chunks wait in the page, not in the memory of the hub."""
    monkeypatch.setattr(uploads, "MAX_ACTIVE", 1)
    writing, release = threading.Event(), threading.Event()
    write = Upload.write

    def slow(self, begin, data):
        writing.set()
        assert release.wait(20)
        write(self, begin, data)

    monkeypatch.setattr(Upload, "write", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(page.put, CONTENT)
        assert writing.wait(20)
        response = page.put(CONTENT, upload_id="b")
        release.set()
        state_of(first.result(), 201)
    error_of(response, 503)
    assert response.headers["retry-after"] == "1"
    assert "Retry-After" in response.headers["access-control-expose-headers"]
    state_of(page.put(CONTENT, upload_id="b"), 201)


# The disk


def test_a_file_that_is_larger_than_the_free_space(page, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    assert "disk is full" in error_of(page.put(b"x", 0, 1001), 507)
    state_of(page.put(b"x" * 1000), 201)


_FULL_DISK = """
import os, subprocess, sys, tempfile
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", sys.argv[1]], check=True)
tempfile.tempdir = sys.argv[1]
from pathlib import Path
from pyvo.samp.web_profile.uploads import ClientUploads, UploadError
directory = Path(tempfile.mkdtemp())
uploads = ClientUploads(lambda: directory, lambda url: None)
uploads.put("a", "a", 0, 200_000, b"x" * 100_000)
(directory / "other").write_bytes(b"y" * 120_000)
try:
    uploads.put("a", "a", 100_000, 200_000, b"z" * 100_000)
except UploadError as error:
    print(error.status, error)
print(uploads.get("a")["received"])
(directory / "other").unlink()
state = uploads.put("a", "a", 100_000, 200_000, b"z" * 100_000)
print(open(state["url"].removeprefix("file://"), "rb").read() == b"x" * 100_000 + b"z" * 100_000)
"""


def test_a_full_disk(tmp_path, python_environment):
    """On a full file system, the chunk counts as not received, and can be repeated when there is free space again."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("mounting a file system needs root on Linux")
    command = ["unshare", "-m", sys.executable, "-c", _FULL_DISK, str(tmp_path)]
    result = subprocess.run(command, env=python_environment, capture_output=True, text=True, check=False)
    assert result.stdout.splitlines() == [
        "507 The hub cannot store the data: its disk is full", "[[0, 99999]]", "True",
    ], result.stderr  # fmt: skip


def test_other_errors_of_the_disk(page, monkeypatch, caplog):
    def fail(*_args):
        raise OSError(errno.EIO, "Input/output error", "/secret/path")

    upload(page, upload_id="before")
    monkeypatch.setattr(Upload, "write", fail)
    text = error_of(page.put(CONTENT), 507)
    assert "Input/output error" in text
    assert "secret" not in text


def test_an_unexpected_error(page, monkeypatch, caplog):
    """The hub logs the error, does not describe it to the page, and continues."""
    with monkeypatch.context() as patch:
        patch.setattr(Upload, "write", lambda *_: 1 // 0)
        response = page.put(CONTENT)
    assert response.status == 500
    assert b"ZeroDivision" not in response.body
    assert "ZeroDivisionError" in caplog.text
    state_of(page.put(CONTENT), 201)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system has no such flag")
def test_a_symbolic_link_in_place_of_the_file(page, tmp_path):
    """Only the user could make such a link; the hub does not follow it nevertheless."""
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    state_of(page.put(CONTENT[:10], 0, 20), 200)
    (path,) = Path(tempfile.gettempdir()).glob(f"{PREFIX}*/*/table.vot")
    path.unlink()
    path.symlink_to(target)
    error_of(page.put(CONTENT[10:20], 10, 20), 507)
    assert target.read_bytes() == b"untouched"


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "x" / "name"
    Upload(path, 10)
    with pytest.raises(FileExistsError):
        Upload(path, 10)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Upload(tmp_path / "link" / "name", 10)


# Removal of files


def test_delete(page):
    path = upload(page)
    with path.open("rb") as file:
        assert state_of(page.request("DELETE"), 200) == {}
        assert file.read() == CONTENT
    assert not path.parent.exists()
    error_of(page.request("GET"), 404)
    assert state_of(page.request("DELETE"), 200) == {}
    assert upload(page) != path


def test_a_chunk_after_the_delete(tmp_path):
    file = Upload(tmp_path / "x" / "name", 10)
    file.remove()
    with pytest.raises(UploadError, match="deleted"):
        file.write(0, b"x")
    assert not list(tmp_path.iterdir())


def test_files_are_removed_with_the_client(hub, page):
    path = upload(page)
    with UploadPage(hub) as other:
        remaining = upload(other.register())
        page.call("unregister")
        wait_until(lambda: not path.exists())
        assert remaining.exists()
    error_of(page.put(CONTENT), 404)


def test_files_are_removed_when_the_page_goes_away(hub, monkeypatch):
    monkeypatch.setattr("pyvo.samp.web_profile.pull_queue.CLOSED_PULL_TIMEOUT", 0.1)
    with UploadPage(hub) as page:
        path = upload(page.register().listen(MTYPE))
        page.begin_pull()
    wait_until(lambda: not path.exists())


def test_files_are_removed_with_the_hub(hub, page):
    path = upload(page)
    state_of(page.put(CONTENT[:10], 0, 100, "b"), 200)
    hub.stop()
    assert not list(Path(tempfile.gettempdir()).iterdir())
    assert not path.exists()


def test_a_client_that_is_removed_during_its_first_chunk(tmp_path):
    uploads_of_client = ClientUploads(lambda: tmp_path, lambda _url: None)
    uploads_of_client.close()
    with pytest.raises(UploadError, match="no longer registered"):
        uploads_of_client.put("a", "a", 0, 1, b"x")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def slow_write(monkeypatch):
    """Block a write, after it has opened the file, until the test releases it."""
    writing, release = threading.Event(), threading.Event()
    merge = uploads._merge

    def slow(*args):
        writing.set()
        assert release.wait(20)
        return merge(*args)

    monkeypatch.setattr(uploads, "_merge", slow)
    yield writing, release
    release.set()


def test_a_hub_that_stops_during_a_write(hub, page, slow_write):
    """The hub stops in time, and no file remains."""
    writing, release = slow_write
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(page.put, CONTENT[:10], 0, 100)
        assert writing.wait(20)
        hub.stop()
        release.set()
        with pytest.raises((OSError, http.client.HTTPException)):
            response.result(20)
    wait_until(lambda: not list(Path(tempfile.gettempdir()).iterdir()))


def test_a_delete_during_a_write(page, slow_write):
    """The file is removed, and both requests get a response."""
    writing, release = slow_write
    with ThreadPoolExecutor(2) as pool:
        put = pool.submit(page.put, CONTENT[:10], 0, 100)
        assert writing.wait(20)
        delete = pool.submit(page.request, "DELETE")
        release.set()
        assert put.result(20).status == 200
        assert delete.result(20).status == 200
    error_of(page.request("GET"), 404)
    assert not list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*/*"))


_HUB = """
import sys
from pyvo.samp import SAMPHubServer
hub = SAMPHubServer(web_port=0, web_profile_dialog=lambda *_: True)
hub.start()
print(hub._web_port, flush=True)
sys.stdin.read()
"""


def test_files_of_a_hub_that_was_killed(python_environment, make_hub, monkeypatch):
    """The next hub of the user removes them when it starts."""
    command = [sys.executable, "-c", _HUB]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=python_environment, text=True, **pipes) as process:
        with UploadPage(int(process.stdout.readline())) as page:
            path = upload(page.register())
        process.kill()
    assert path.exists()
    monkeypatch.setattr("pyvo.samp.temporary_files.MIN_AGE", -1.0)
    make_hub(web_profile=True, web_profile_dialog="deny")
    wait_until(lambda: not path.exists())


# In messages


def test_the_url_in_a_message(hub, page):
    """The page can mention the URL and read the file; neither of these blocks the URL for others."""
    path = upload(page)
    with Program(hub, MTYPE) as program, Page(hub, "https://other.example") as other:
        other.register().listen(MTYPE)
        page.call("notify", program.id, message(MTYPE, url=path.as_uri()))
        (got,) = program.wait_for(1)
        assert got[1][-1]["samp.params"]["url"] == path.as_uri()
        assert page.get(path.as_uri()).body == CONTENT
        assert other.get(path.as_uri()).status == 403
        program.call("notify", other.id, message(MTYPE, url=path.as_uri()))
        other.pull_some(1)
        assert other.get(path.as_uri()).body == CONTENT


def test_other_files_are_still_blocked(hub, page, tmp_path):
    """R46: an upload gives a page access to its own file only."""
    path = upload(page)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    for url in (secret.as_uri(), path.parent.as_uri(), path.as_uri() + "/../../x", path.parents[1].as_uri()):
        assert page.get(url).status == 403


def test_an_incomplete_file_has_no_url(page):
    state = state_of(page.put(CONTENT[:10], 0, 100), 200)
    assert "url" not in state
    (path,) = Path(tempfile.gettempdir()).glob(f"{PREFIX}*/*/table.vot")
    assert page.get(path.as_uri()).status == 403


# Memory


@pytest.mark.slow
def test_500_mb_are_uploaded_and_read_with_limited_memory(python_environment):
    """The hub's memory does not grow with the file (proof 5 of the relay)."""
    import psutil

    total, size = 500 * 1000**2, MB
    chunk = os.urandom(size)
    command = [sys.executable, "-c", _HUB]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=python_environment, text=True, **pipes) as process:
        with UploadPage(int(process.stdout.readline())) as page:
            page.register()
            before = psutil.Process(process.pid).memory_info().rss
            peak = before

            def put(first: int) -> Response:
                nonlocal peak
                response = page.put(chunk[: total - first], first, total)
                peak = max(peak, psutil.Process(process.pid).memory_info().rss)
                return response

            with ThreadPoolExecutor(4) as pool:
                responses = list(pool.map(put, range(0, total, size)))
            (url,) = {json.loads(each.body)["url"] for each in responses if each.status == 201}
            assert path_of(url).stat().st_size == total
            target = page.translator.partition(f":{page.port}")[2] + url
            with socket.create_connection(("127.0.0.1", page.port), timeout=60) as sock:
                send(sock, "GET", target, {"Host": f"localhost:{page.port}", "Origin": ORIGIN})
                received = 0
                while data := sock.recv(MB):
                    received += len(data)
                    peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            assert received > total
        process.stdin.close()
        assert process.wait(20) == 0
    assert peak - before < 60 * MB
    assert not path_of(url).exists()
