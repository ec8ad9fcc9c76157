# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Sending objects: recipients, formats, reports, and the files that are left."""

from __future__ import annotations

import bz2
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table

from pyvo.samp import (
    SAMPClientError,
    SAMPHubServer,
    SAMPIntegratedClient,
    SAMPResponseError,
    SAMPTypeError,
    SAMPValueError,
    SAMPWarning,
    temporary_files,
)
from pyvo.samp.exchange.reports import SendResult
from pyvo.samp.formats.fetching import local_copy
from pyvo.samp.formats.readers import read_image, read_table
from pyvo.samp.formats.votable_writer import write_votable

from .conftest import assert_same

Connect = Callable[..., SAMPIntegratedClient]
Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


class Reader:
    """A client that reads each file before it replies."""

    def __init__(self, client: SAMPIntegratedClient, *mtypes: str) -> None:
        self.client = client
        self.loaded: list[Any] = []
        self.params: list[dict[str, Any]] = []
        for mtype in mtypes:
            client.bind_receive_call(mtype, self)

    def __call__(self, key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        self.params.append(params)
        with local_copy(params["url"]) as path:
            self.loaded.append(read_image(path) if mtype.startswith("image") else read_table(path))
        self.client.ereply(msg_id, "samp.ok", {})


class Recorder(Reader):
    """A client that records the parameters, but reads no file."""

    def __call__(self, key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        self.params.append(params)
        self.client.ereply(msg_id, "samp.ok", {})


def test_a_table_to_one_recipient(pair: Pair, table: Table) -> None:
    """The recipient is a name, an id or an entry of the client list. The table is sent with its name and a new id."""
    alice, bob = pair
    reader = Reader(bob, "table.load.votable")
    for to in ("BOB", bob.get_public_id(), alice.wait_for("bob"), ["bob"]):
        report = alice.send(table, to=to)
        assert report.ok
        assert report.asked == {bob.get_public_id(): "Bob"}
        assert report.answered == {bob.get_public_id(): {"samp.status": "samp.ok", "samp.result": {}}}
        assert (report.failed, report.waiting) == ({}, {})
    assert [params["name"] for params in reader.params] == ["Small"] * 4
    assert len({params["table-id"] for params in reader.params}) == 4
    for back in reader.loaded:
        assert_same(back, table)
    assert alice._exchange.file_server.files == []


def test_each_recipient_gets_a_format_that_it_accepts(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    """Each format is written once, and each recipient gets the best format among its subscriptions."""
    alice, bob, carol, dora = connect("Alice"), connect("Bob"), connect("Carol"), connect("Dora")
    readers = [Reader(bob, "table.load.votable", "table.load.fits"), Reader(carol, "table.load.fits"),
               Reader(dora, "image.load.fits")]
    report = alice.send(table, name="all")
    assert report.ok
    assert {each.name: each.mtype for each in report.deliveries} == {
        "Bob": "table.load.votable",
        "Carol": "table.load.fits",
    }
    assert [len(reader.loaded) for reader in readers] == [1, 1, 0]
    assert readers[1].loaded[0]["ra"].unit == "deg"


def test_one_of_several_recipients_is_not_subscribed(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    alice, bob, carol = connect("Alice"), connect("Bob"), connect("Carol")
    Reader(bob, "table.*")
    Reader(carol, "image.load.fits")
    with pytest.warns(SAMPWarning, match=r"Carol did not load the table: it is not subscribed to table\.load\.votable"):
        report = alice.send(table, to=["bob", "carol"])
    assert not report.ok
    assert list(report.asked.values()) == ["Bob"]
    assert list(report.failed) == [carol.get_public_id()]
    with pytest.raises(SAMPResponseError, match="Carol: it is not subscribed to"):
        report.check()


def test_an_error_of_a_recipient_is_reported(pair: Pair, table: Table) -> None:
    alice, bob = pair

    @bob.on("table.load.votable")
    def reject() -> None:
        raise ValueError("not today")

    with pytest.warns(SAMPWarning, match="Bob did not load the table: not today"):
        report = alice.send(table)
    assert report.failed == {bob.get_public_id(): "not today"}
    assert list(report.answered) == [bob.get_public_id()]
    assert "not today" in repr(report)
    assert alice._exchange.file_server.files == []


def test_a_warning_is_a_success(pair: Pair) -> None:
    alice, bob = pair

    def warn(key: str, sender: str, msg_id: str, *rest: Any) -> None:
        bob.ereply(msg_id, "samp.warning", {}, {"samp.errortxt": "no window"})

    bob.bind_receive_call("coord.pointAt.sky", warn)
    report = alice.point_at((1, 2))
    assert report.ok
    assert "no window" in repr(report)


def test_no_recipient(pair: Pair, table: Table) -> None:
    alice, _ = pair
    with pytest.warns(SAMPWarning, match=r"No client is subscribed to table\.load\.votable or table\.load\.fits"):
        report = alice.send(table)
    assert not report.ok
    assert "no client accepts it" in repr(report)
    with pytest.raises(SAMPClientError, match="No client has the id or name 'carol'. Connected clients: .*Bob"):
        alice.send(table, to="carol")
    with pytest.raises(TypeError, match="Supported types"):
        alice.send(object(), to="bob")


def test_not_connected(table: Table) -> None:
    with pytest.raises(SAMPClientError, match=r"connect\(\)"):
        SAMPIntegratedClient(name="x").send(table)


def test_the_report_in_a_notebook(pair: Pair, table: Table) -> None:
    """The report is shown as an HTML table, which contains no markup from other clients."""
    alice, bob = pair
    bob.declare_metadata({"samp.name": "<b>Bob</b>"})
    Reader(bob, "table.load.votable")
    html = alice.send(table, name="<script>")._repr_html_()
    assert "<b>" not in html
    assert "<script>" not in html
    assert "&lt;b&gt;Bob&lt;/b&gt;" in html
    assert "<td>ok</td>" in html


def test_a_late_response(pair: Pair, table: Table) -> None:
    """The file stays until a late response arrives. The report shows the response."""
    alice, bob = pair
    calls: list[tuple[str, str]] = []
    arrived = threading.Event()

    def reply_later(key: str, sender: str, msg_id: str, mtype: str, params: Any, extra: Any) -> None:
        calls.append((msg_id, params["url"]))
        arrived.set()

    bob.bind_receive_call("table.load.votable", reply_later)
    with pytest.warns(SAMPWarning, match=r"Bob has not responded within 0\.2 s"):
        report = alice.send(table, timeout=0.2)
    assert list(report.waiting.values()) == ["Bob"]
    assert "no response yet" in repr(report)
    (path,) = alice._exchange.file_server.files
    assert path.exists()
    assert arrived.wait(5)
    bob.ereply(calls[0][0], "samp.ok", {})
    assert report.wait(5).ok
    assert not path.exists()
    assert not alice.client._handlers.responses


def test_without_waiting(pair: Pair, table: Table) -> None:
    alice, bob = pair
    Reader(bob, "table.load.votable")
    assert alice.send(table, wait=False).wait(10).ok


def test_a_recipient_that_disconnects(pair: Pair, table: Table) -> None:
    """If the recipient disconnects, the wait ends (R23), and the file is removed."""
    alice, bob = pair

    def disconnect_later(*args: Any) -> None:
        threading.Thread(target=bob.disconnect).start()

    bob.bind_receive_call("table.load.votable", disconnect_later)
    with pytest.warns(SAMPWarning, match="Bob did not load"):
        report = alice.send(table, timeout=0)
    assert list(report.failed) != []
    assert alice._exchange.file_server.files == []


def test_disconnecting_ends_the_wait(pair: Pair, table: Table) -> None:
    """`disconnect` ends the wait for responses and removes all files."""
    alice, bob = pair
    arrived = threading.Event()
    bob.bind_receive_call("table.load.votable", lambda key, s, m, *rest: arrived.set())
    report = alice.send(table, wait=False)
    (path,) = alice._exchange.file_server.files
    assert arrived.wait(5)
    alice.disconnect()
    assert "the connection to the hub ended" in repr(report.wait(5))
    assert not path.exists()
    alice.connect()
    Reader(bob, "table.load.fits")
    assert alice.send(table, mtype="table.load.fits").ok


def test_the_hub_stops(make_hub: Callable[..., SAMPHubServer], connect: Connect, table: Table) -> None:
    hub = make_hub()
    alice, bob = connect("Alice"), connect("Bob")
    arrived = threading.Event()
    bob.bind_receive_call("table.load.votable", lambda key, s, m, *rest: arrived.set())
    report = alice.send(table, wait=False)
    assert arrived.wait(5)
    hub.stop()
    assert report.wait(10).failed


def test_sending_within_a_handler(pair: Pair, table: Table) -> None:
    """A handler can send and wait: the response arrives while the handler waits."""
    alice, bob = pair
    Reader(bob, "table.load.votable")
    reports: list[Any] = []

    @alice.on("x-test.go")
    def go() -> None:
        reports.append(alice.send(table, to="bob", timeout=20))

    assert bob.ecall_and_wait("alice", "x-test.go", 20)["samp.status"] == "samp.ok"
    assert reports[0].ok


def test_a_client_that_is_not_callable(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    """A client that is not callable calls each recipient in a thread."""
    alice, bob = connect("Alice", callable=False), connect("Bob")
    Reader(bob, "table.load.votable")
    assert alice.send(table).ok
    assert alice.send(table, to="bob").ok


def test_the_same_table_id(pair: Pair, table: Table) -> None:
    """A table that is sent again with the same table-id replaces the earlier file."""
    alice, bob = pair
    ids: list[str] = []
    bob.bind_receive_call("table.load.votable", lambda key, s, m, mt, params, extra: ids.append(params["table-id"]))
    alice.send(table, table_id="mine", wait=False)
    (first,) = alice._exchange.file_server.files
    alice.send(table, table_id="mine", wait=False)
    (second,) = alice._exchange.file_server.files
    assert first != second
    assert not first.exists()


def test_tables_with_invalid_characters(pair: Pair) -> None:
    """Invalid characters are replaced. A warning names them and the line of the program that sends the table."""
    alice, bob = pair
    reader = Reader(bob, "table.load.votable")
    for table, what in (
        (Table({"a": [b"Orion", "étoile".encode("latin-1")]}), "column 'a'"),
        (Table({"a": [1, 2]}, meta={"k": "x\x0by"}), "value of 'k'"),
        (Table({"a\x01": [1, 2]}), r"column 'a\\x01'"),
    ):
        with pytest.warns(SAMPWarning, match=what) as caught:
            assert alice.send(table, to="bob").ok
        assert caught[0].filename == __file__
    assert [len(back) for back in reader.loaded] == [2, 2, 2]


def test_names_outside_ascii(pair: Pair, table: Table) -> None:
    """Names are converted to ASCII, because hubs in Java would reject the message."""
    alice, bob = pair
    reader = Reader(bob, "table.load.votable")
    assert alice.send(table, name="Müller's Ω\n").ok
    assert reader.params[0]["name"] == "Muller's ??"


def test_an_mtype_of_the_program(pair: Pair, image: CCDData, tmp_path: Path) -> None:
    alice, bob = pair
    path = tmp_path / "x.fits"
    image.write(path)
    reader = Reader(bob, "table.load.fits", "image.load.fits")
    with pytest.raises(TypeError, match=r"The image cannot be sent as table\.load\.fits"):
        alice.send(image, mtype="table.load.fits")
    assert alice.send(path, mtype="image.load.fits", extra_thing="1").ok
    assert reader.params[0]["extra_thing"] == "1"
    assert reader.params[0]["url"] == path.as_uri()


PLACES = {
    "packed.fits.bz2": "image.load.fits",
    "own.asdf": "x-asdf.load",
    "stars.csv": "table.load.votable",
    "empty": "image.load.fits",
    "half.fits": "table.load.fits",
}


@pytest.mark.parametrize("name", PLACES)
def test_a_file_with_an_mtype_is_not_converted(pair: Pair, tmp_path: Path, name: str) -> None:
    """If the user gives an MType, the file is sent as it is, whatever it contains."""
    alice, bob = pair
    contents = {"stars.csv": b"a,b\n1,2\n", "empty": b"", "half.fits": b"SIMPLE  ="}
    path = tmp_path / name
    path.write_bytes(contents.get(name, bz2.compress(b"SIMPLE  =")))
    reader = Recorder(bob, PLACES[name])
    for place in (path, str(path), path.as_uri()):
        report = alice.send(place, to="bob", mtype=PLACES[name])
        assert report.ok, report
    for params in reader.params:
        assert (params["url"], params["name"]) == (path.as_uri(), name)
    kind = PLACES[name].partition(".")[0]
    assert report.kind == (kind if kind in {"table", "image"} else "file")
    assert (f"{kind}-id" in reader.params[0]) == (report.kind == kind)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("ftp://archive.example/dir/a%20b.fits", "a b.fits"),
        ("http://127.0.0.1:9/a.fits?size=3#x", "a.fits"),
        ("s3://bucket/a.fits", "a.fits"),
        ("gs://bucket/dir/", "dir"),
        ("ivo://example/x", "x"),
        ("vos:me/a.fits", "a.fits"),
        ("data:image/png;base64,iVBORw0KGgo=", "png;base64,iVBORw0KGgo="),
        ("file://elsewhere.example/a.fits", "a.fits"),
        ("file:///only/there/a.fits", "a.fits"),
        ("http://[", "["),
    ],
)
def test_a_url_with_an_mtype_is_not_read(pair: Pair, url: str, name: str) -> None:
    """If the user gives an MType, a URL of any scheme is sent without being read."""
    alice, bob = pair
    reader = Recorder(bob, "image.load.fits")
    assert alice.send(url, to="bob", mtype="image.load.fits").ok
    assert reader.params[0]["url"] == url
    assert reader.params[0]["name"] == name


def test_a_directory_with_an_mtype(pair: Pair, tmp_path: Path) -> None:
    """If the user gives an MType, a directory is sent: some formats are directories (HiPS, Measurement Sets, Zarr)."""
    alice, bob = pair
    reader = Recorder(bob, "x-ms.load")
    assert alice.send(tmp_path, to="bob", mtype="x-ms.load").ok
    assert reader.params[0]["url"] == tmp_path.as_uri()


def test_mistakes_with_an_mtype(pair: Pair, tmp_path: Path, table: Table) -> None:
    """A missing path, an invalid MType, and an MType that does not fit the object are errors."""
    alice, _ = pair
    for place in (tmp_path / "x", "x.fits", "a\0b", "no file " * 1000):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            alice.send(place, mtype="image.load.fits")
    with pytest.raises(SAMPValueError):
        alice.send(tmp_path, mtype="a.*")
    with pytest.raises(SAMPTypeError, match=r"The table cannot be sent as x\.y\. Its MTypes are: table\.load\.votable"):
        alice.send(table, mtype="x.y")


def test_aladin_gets_a_script(pair: Pair, tmp_path: Path) -> None:
    """Files are sent to Aladin in a script, because its MType has no parameter for a URL."""
    alice, bob = pair
    (tmp_path / "m.fits").touch()
    seen: list[str] = []
    bob.on("script.aladin.send")(lambda script: seen.extend([script]))
    assert alice.send(tmp_path / "m.fits", to="bob", mtype="script.aladin.send").ok
    assert seen == [f"m_fits=load {tmp_path / 'm.fits'}"]


@pytest.mark.parametrize("name", ["with blank.fits", "100%25.fits", "a#b?c.fits", "é è.fits", "plain.fits"])
def test_files_with_special_characters_in_their_names(pair: Pair, image: CCDData, tmp_path: Path, name: str) -> None:
    """The URL needs no decoding; the file of the user is not moved or removed."""
    alice, bob = pair
    reader = Reader(bob, "image.load.fits")
    path = tmp_path / name
    image.write(path)
    for place in (path, str(path), path.as_uri()):
        assert alice.send(place).ok
    for params in reader.params:
        assert "%" not in params["url"]
        assert params["url"].startswith("file:///")
    assert reader.loaded[0][0].header["CRVAL1"] == 10
    assert path.exists()
    assert alice._exchange.file_server.files == []


def test_ds9_gets_http_urls_if_the_temporary_directory_has_a_blank(
    pair: Pair, image: CCDData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the directory for temporary files has a blank in its name, DS9 gets an HTTP URL, others a file URL."""
    alice, bob = pair
    directory = tmp_path / "a blank"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    reader = Reader(bob, "image.load.fits")
    assert alice.send(image).ok
    Reader(bob, "ds9.set")
    assert alice.send(image).ok
    assert [urlsplit(params["url"]).scheme for params in reader.params] == ["file", "http"]
    assert [hdus[0].data.shape for hdus in reader.loaded] == [(3, 4), (3, 4)]
    alice.disconnect()
    assert list(directory.iterdir()) == []


def test_clients_of_a_remote_hub_get_files_over_http(
    pair: Pair, image: CCDData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the hub is on another machine, files are sent as HTTP URLs."""
    alice, bob = pair
    reader = Reader(bob, "image.load.fits")
    monkeypatch.setattr("pyvo.samp.exchange.sending.is_local_host", lambda host: False)
    assert alice.send(image, name="M 1").ok
    assert urlsplit(reader.params[0]["url"]).scheme == "http"
    assert reader.params[0]["url"].endswith("/M_1.fits")
    assert reader.loaded[0][0].header["OBJECT"] == "M 1"


def test_urls(pair: Pair, image: CCDData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content of a URL is read to detect its type; the recipients get the URL itself."""
    alice, bob = pair
    file = alice._exchange.file_server.create_path("x.fits")
    image.write(file)
    url = alice._exchange.file_server.add(file, "x", temporary=True).create_lease(http=True).url
    reader = Reader(bob, "image.load.fits")
    assert alice.send(url).ok
    assert reader.params[0]["url"] == url
    assert reader.params[0]["name"] == "x.fits"


def test_a_format_that_cannot_be_written(pair: Pair, connect: Connect) -> None:
    """A format that cannot be written fails only the recipients that accept no other; the others get the table."""
    alice, bob = pair
    carol = connect("Carol")
    reader = Reader(bob, "table.load.votable")
    Reader(carol, "table.load.fits")
    table = Table({"fine": [1, 2], "text": ["é", "b"]})
    with pytest.warns(SAMPWarning, match="Carol did not load the table: .* as a FITS table. .* these columns: text"):
        report = alice.send(table)
    assert reader.loaded[0]["text"].tolist() == ["é", "b"]
    assert list(report.failed) == [carol.get_public_id()]
    assert not report.ok
    with pytest.raises(SAMPTypeError, match="these columns: text"):
        alice.send(table, to="carol")
    assert list(Path(tempfile.gettempdir()).glob("pyvo-samp-*/*")) == []


def test_errors_of_other_libraries(pair: Pair) -> None:
    """An error of another library becomes a SAMPTypeError, which says what was to be written."""
    alice, bob = pair
    Reader(bob, "table.load.fits")
    hdu = fits.BinTableHDU(Table({"a": [1]}))
    hdu.writeto = lambda *args, **kwargs: 1 / 0
    hdus = fits.HDUList([fits.PrimaryHDU(), hdu])
    hdus.writeto = lambda *args, **kwargs: 1 / 0
    with pytest.raises(SAMPTypeError, match="The table cannot be written for table.load.fits: division"):
        alice.send(hdus)


# Disks and progress


def test_a_full_disk(
    python_environment: dict[str, str], hub: SAMPHubServer, connect: Connect, isolated: Path
) -> None:
    """The error says what to do, no file is left, and the client can send again."""
    bob = connect("Bob")
    Reader(bob, "table.load.votable")
    code = """
import os, resource, signal, sys, tempfile
from astropy.table import Table
from pyvo.samp import SAMPIntegratedClient
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with SAMPIntegratedClient(name="x") as client:
    try:
        client.send(Table({"a": range(100_000)}), to="bob")
    except OSError as error:
        print(type(error).__name__, error)
    print([files for _, _, files in os.walk(tempfile.gettempdir()) if files])
    print(client.send(Table({"a": [1]}), to="bob").ok)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    error, files, ok = done.stdout.splitlines()
    assert "cannot be written" in error
    assert "TMPDIR" in error
    assert (files, ok) == ("[]", "True")


@pytest.mark.parametrize(
    "obj", [Table({"a": range(10_000)}), np.zeros((100, 100)), fits.BinTableHDU(Table({"a": range(10_000)}))]
)
def test_a_full_disk_in_all_formats(pair: Pair, obj: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each format, the error is that of the disk, and no directory is left."""
    alice, bob = pair
    Reader(bob, "table.load.fits", "image.load.fits")

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(temporary_files, "os", SimpleNamespace(**{**vars(os), "write": write}))
    with pytest.raises(OSError, match="cannot be written: No space left") as caught:
        alice.send(obj)
    assert caught.value.errno == 28
    assert list(Path(tempfile.gettempdir()).glob("pyvo-samp-*/*")) == []


def test_a_really_full_disk(pair: Pair, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with a small file system, if the test may mount one."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    alice, bob = pair
    Reader(bob, "image.load.fits")
    try:
        monkeypatch.setattr("tempfile.tempdir", str(mount))
        with pytest.raises(OSError, match="No space left") as caught:
            alice.send(np.zeros((300, 300)))
        assert caught.value.errno == 28
        assert alice.send(np.zeros((3, 3))).ok
        alice.disconnect()
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_progress(pair: Pair, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress bar is shown on request; otherwise only for large objects and on a terminal. It reaches its end."""
    alice, bob = pair
    Reader(bob, "table.load.votable", "image.load.fits")
    steps: list[int] = []

    class Bar:
        def __init__(self, total: int, ipython_widget: bool) -> None:
            self.total = total

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *args: object) -> None:
            steps.append(-1)

        def update(self, value: int) -> None:
            assert 0 <= value <= self.total
            steps.append(value)

    monkeypatch.setattr("astropy.utils.console.ProgressBar", Bar)
    alice.send(Table({"a": range(1000)}))
    assert steps == []
    alice.send(Table({"a": np.zeros(1_000_000)}), progress=True)
    assert len(steps) > 2
    assert steps[:-1] == sorted(steps[:-1])
    steps.clear()
    monkeypatch.setattr(temporary_files, "LARGE", 100)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    alice.send(np.zeros((100, 100)))
    assert steps[-2:] == [80_000, -1]
    steps.clear()
    alice.send(np.zeros((100, 100)), progress=False)
    assert steps == []


def test_the_real_bar(pair: Pair) -> None:
    alice, bob = pair
    Reader(bob, "table.load.votable")
    assert alice.send(Table({"a": range(1000)}), progress=True).ok


def test_the_real_bar_in_another_thread(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Astropy's progress bar also works in other threads, in which received files are read."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may have imported it
    failures: list[BaseException] = []

    def transfer() -> None:
        try:
            with temporary_files.progress_bar(1000, True) as note:
                note(500)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=transfer)
    thread.start()
    thread.join(20)
    assert failures == []
    assert "50.00%" in capsys.readouterr().out


def test_progress_of_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, a progress bar is shown while a large table is read, but not for a small one."""
    steps: list[int] = []

    class Bar:
        def __init__(self, total: int, ipython_widget: bool) -> None:
            self.total = total

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *args: object) -> None:
            steps.append(-1)

        def update(self, value: int) -> None:
            assert 0 <= value <= self.total
            steps.append(value)

    monkeypatch.setattr("astropy.utils.console.ProgressBar", Bar)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    path = tmp_path / "t.vot"
    with path.open("wb") as file:
        write_votable(Table({"a": np.zeros(300_000)}), file)
    assert len(read_table(path)) == 300_000
    assert steps == []
    monkeypatch.setattr(temporary_files, "LARGE", 1_000_000)
    assert len(read_table(path)) == 300_000
    assert len(steps) > 5
    assert steps[:-1] == sorted(steps[:-1])
    assert steps[-2:] == [path.stat().st_size, -1]


def test_nothing_is_logged(pair: Pair, table: Table, caplog: pytest.LogCaptureFixture) -> None:
    """Sending logs nothing, so that the log contains neither tokens nor paths."""
    alice, bob = pair
    Reader(bob, "table.load.votable")
    with caplog.at_level(logging.INFO):
        assert alice.send(table).ok
    assert caplog.records == []


def test_positions(pair: Pair) -> None:
    alice, bob = pair
    seen: list[Any] = []
    bob.bind_receive_call("coord.pointAt.sky", lambda key, s, mt, params, extra: seen.append(params))
    assert alice.send(SkyCoord(10, 20, unit="deg")).ok
    assert alice.point_at("10 20").ok
    assert alice.point_at("00:40:00 +20:00:00").ok
    assert alice.point_at("0h40m00s +20d00m00s").ok
    assert alice.point_at((10.0, 20.0)).ok
    for params in seen:
        assert [float(params["ra"]), float(params["dec"])] == pytest.approx([10, 20])
    with pytest.raises(ValueError, match="Only one position"):
        alice.point_at(SkyCoord([1, 2], [3, 4], unit="deg"))


def test_an_hdulist_from_a_file(pair: Pair, image: CCDData, tmp_path: Path) -> None:
    alice, bob = pair
    reader = Reader(bob, "image.load.fits")
    path = tmp_path / "crab.fits"
    image.write(path)
    with fits.open(path) as hdus:
        assert alice.send(hdus).ok
    assert reader.params[0]["name"] == "crab.fits"


@pytest.mark.parametrize(
    ("module", "old", "new"), [("reports", "Delivery", "SendResult"), ("mixin", "Exchange", "ExchangeMixin")]
)
def test_old_names_of_classes(module: str, old: str, new: str) -> None:
    """The names of earlier versions still work, with a warning."""
    home = import_module(f"pyvo.samp.exchange.{module}")
    with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
        assert getattr(home, old) is getattr(home, new)
    with pytest.raises(AttributeError, match="no attribute 'Unknown'"):
        getattr(home, "Unknown")  # noqa: B009


def test_the_old_name_of_an_error() -> None:
    result = SendResult("c1", "Bob", error="it has left")
    with pytest.warns(DeprecationWarning, match="problem is now called error"):
        assert result.problem == "it has left"
