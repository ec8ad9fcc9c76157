"""``samp send`` and ``samp receive``."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.cli.receive import copy_into, file_stem, file_suffix, new_file
from pyvo.samp.testing import RecordingClient
from tests.process.programs import Program

from .conftest import Done

Samp = Callable[..., Done]
Make = Callable[..., RecordingClient]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "my stars.csv"
    path.write_text("ra,dec\n1,2\n3,4\n")
    return path


# File names


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("stars", "stars"),
        ("my stars.fits", "my_stars.fits"),
        ("../../etc/passwd", "etc_passwd"),
        ("/etc/passwd", "etc_passwd"),
        ("..", "table.load.votable"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("a\x1b[31m\nb", "a_31m_b"),
        ("C:\\Windows\\x", "C_Windows_x"),
        ("$(rm x); `y` | z", "rm_x_y_z"),
        ("con.fits", "_con.fits"),
        ("x" * 500, "x" * 80),
        ("Gal\u00e1xia", "Gal\u00e1xia"),
        ("\u202egnp.exe", "gnp.exe"),
        ("", "table.load.votable"),
        (["no", "text"], "table.load.votable"),
    ],
)
def test_names_of_files(name: object, stem: str) -> None:
    """A name from a message is used as a file name only, not as a path."""
    assert file_stem({"name": name}, "table.load.votable") == stem


@given(st.text(), st.text(), st.sampled_from([".fits", ".vot", ".json", ".dat"]))
def test_files_stay_in_the_directory(name: str, url: str, suffix: str) -> None:
    stem = file_stem({"name": name, "url": f"file:///x/{url}"}, "a.b")
    directory = Path(tempfile.mkdtemp())
    with new_file(directory, stem, suffix) as file:
        path = Path(os.fsdecode(file.name))
    assert path.parent == directory
    assert [entry.name for entry in directory.iterdir()] == [path.name]
    assert not path.name.startswith((".", "-"))
    assert path.name.endswith(suffix)
    path.unlink()
    directory.rmdir()


@pytest.mark.parametrize(
    ("beginning", "url", "suffix"),
    [
        (b"SIMPLE  =    T", "file:///x.vot", ".fits"),
        (b'<?xml version="1.0"?>\n<VOTABLE>', "http://h/dynamic/7", ".vot"),
        (b"\x89PNG\r\n", "x", ".png"),
        (b"\x1f\x8b\x08", "http://h/a.fits.gz", ".fits.gz"),
        (b"\x1f\x8b\x08", "http://h/a.exe.gz", ".gz"),
        (b"ra,dec", "http://h/a.CSV", ".csv"),
        (b"ra,<VOTABLE >", "http://h/a.csv", ".csv"),
        (b"<!-- <TABLE> -->" + b" " * 5000 + b"<v:VOTABLE>", "http://h/a", ".vot"),
        (b"#!/bin/sh", "http://h/a.sh", ".dat"),
    ],
)
def test_suffixes(beginning: bytes, url: str, suffix: str) -> None:
    """The content of a file decides on its suffix, and then the URL, if its suffix is harmless."""
    assert file_suffix(beginning, url) == suffix


def test_existing_files_are_not_replaced(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"SIMPLE  = new")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.fits").write_text("old")
    (out / "a-2.fits").symlink_to(tmp_path / "elsewhere")
    assert copy_into(out, "a.fits", source, "").name == "a-3.fits"
    assert (out / "a.fits").read_text() == "old"
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_copy_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    out = tmp_path / "out"
    out.mkdir()

    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        copy_into(out, "a", source, "")
    assert list(out.iterdir()) == []


# Sending


def test_send(samp: Samp, viewer: Make, csv: Path) -> None:
    """A file that TOPCAT cannot read is converted; the command prints the recipients that loaded it."""
    tables = viewer("Tables", "table.load.votable")
    done = samp("send", csv)
    assert done.status == 0, done.err
    assert done.out == "Table my stars.csv\n    Tables (c1): ok, as table.load.votable\n"
    assert tables.assert_received("table.load.votable").params["name"] == "my stars.csv"
    done = samp("send", csv, "--to", "tables", "--name", "Other", "--json")
    report = json.loads(done.out)
    assert (report["kind"], report["name"]) == ("table", "Other")
    assert report["recipients"][0]["outcome"] == "ok"
    assert report["recipients"][0]["status"] == "samp.ok"


def test_send_with_an_mtype(samp: Samp, viewer: Make, tmp_path: Path) -> None:
    """With --mtype, files and URLs are sent unchanged; the recipient is given by a part of its name."""
    viewer("SAOImageDS9", "x-asdf.load")
    (tmp_path / "a.asdf").write_bytes(b"#ASDF 1.0.0\n")
    for place in (tmp_path / "a.asdf", "s3://bucket/a.asdf"):
        done = samp("send", place, "--mtype", "x-asdf.load", "--to", "ds9", "--json")
        assert done.status == 0, done.err
        (entry,) = json.loads(done.out)["recipients"]
        assert entry["url"] == (place if isinstance(place, str) else place.as_uri())
        assert (entry["name"], entry["mtype"]) == ("SAOImageDS9", "x-asdf.load")
    done = samp("send", tmp_path / "b.asdf", "--mtype", "x-asdf.load")
    assert done.status == 1
    assert "There is no file" in done.err


def test_send_by_content(samp: Samp, viewer: Make, tmp_path: Path) -> None:
    """An image is sent to clients that load images, whatever the name of the file is."""
    viewer("Tables", "table.load.fits")
    viewer("Images", "image.load.fits")
    fits.PrimaryHDU(np.zeros((4, 4), "f4")).writeto(tmp_path / "image.fits")
    done = samp("send", tmp_path / "image.fits")
    assert done.out == "Image image.fits\n    Images (c2): ok, as image.load.fits\n"
    done = samp("send", tmp_path / "image.fits", "--mtype", "table.load.fits")
    assert "Tables (c1): ok, as table.load.fits" in done.out


def test_send_fails(samp: Samp, viewer: Make, csv: Path, tmp_path: Path) -> None:
    error = {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "too large"}}
    viewer("Bad", "table.load.votable", response=error)
    viewer("Silent", "table.load.fits", response=None)
    done = samp("send", csv, "--to", "bad")
    assert done.status == 1
    assert "Bad (c1): too large" in done.out
    done = samp("send", csv, "--to", "silent", "--timeout", "0.2")
    assert done.status == 5
    assert "Silent (c2): no response yet" in done.out
    assert samp("send", csv, "--to", "nobody").status == 4
    done = samp("send", tmp_path / "no.fits")
    assert done.status == 1
    assert "There is no file" in done.err
    (tmp_path / "odd").write_bytes(b"\0\1\2\3")
    assert samp("send", tmp_path / "odd").status == 1


def test_no_recipient(samp: Samp, hub: SAMPHubServer, csv: Path) -> None:
    assert samp("send", csv) == (4, "", "samp: No client is subscribed to an MType for this table.\n")
    assert samp("send", csv, "--mtype", "a.b") == (4, "", "samp: No client is subscribed to a.b.\n")
    with SAMPIntegratedClient("Deaf"):
        done = samp("send", csv, "--to", "deaf")
    assert done.status == 4
    assert "Deaf (c3): it is not subscribed to " in done.out


# Receiving


def test_receive(hub: SAMPHubServer, start: Callable[..., Program], tmp_path: Path) -> None:
    """`samp receive` writes the file before it replies."""
    out = tmp_path / "new" / "out"
    program = start("receive", "-o", out)
    with SAMPIntegratedClient("Sender") as sender:
        table = Table({"ra": [1.5, 2.5], "n": [1, 2]}, meta={"name": "../my table"})
        report = sender.send(table, "samp receive")
        assert report.ok
        program.wait_for("bytes")
    (path,) = out.iterdir()
    assert path.name == "my_table.vot"
    read = Table.read(path, format="votable")
    assert read["ra"].tolist() == [1.5, 2.5]
    assert f"{path}  table.load.votable from Sender (c2), {path.stat().st_size} bytes" in program.output


def test_receive_for_scripts(hub: SAMPHubServer, start: Callable[..., Program], tmp_path: Path) -> None:
    """JSON output, a count, MTypes, notifications, and messages without a file."""
    program = start(
        *("receive", "-o", tmp_path, "--json", "--count", "2", "--mtype", "coord.*", "--mtype", "image.*"),
        *("--name", "Box"),
    )
    source = tmp_path / "source.png"
    source.write_bytes(b"\x89PNG...")
    with SAMPIntegratedClient("Sender") as sender:
        box = sender.wait_for("Box", 10).id
        sender.enotify(box, "coord.pointAt.sky", ra="1", dec="2")
        sender.enotify(box, "image.load.png", url=source.as_uri(), name="a picture")
    assert program.wait() == 0
    first, second = (json.loads(line) for line in program.lines if line.startswith("{"))
    assert Path(first["path"]) == tmp_path / "coord.pointAt.sky.json"
    written = json.loads((tmp_path / "coord.pointAt.sky.json").read_text())
    assert written == {"mtype": "coord.pointAt.sky", "params": {"ra": "1", "dec": "2"}}
    assert Path(second["path"]) == tmp_path / "a_picture.png"
    assert second["bytes"] == 7
    assert second["sender"]["name"] == "Sender"


def test_receive_fails(hub: SAMPHubServer, start: Callable[..., Program], tmp_path: Path) -> None:
    """If a file cannot be read, the sender gets an error response, and the next message is processed."""
    program = start("receive", "-o", tmp_path / "out", "--count", "1")
    fifo = tmp_path / "fifo"
    if hasattr(os, "mkfifo"):
        os.mkfifo(fifo)
    with SAMPIntegratedClient("Sender") as sender:
        box = sender.wait_for("samp receive", 10).id
        for url in ("file:///no/such/file", "http://127.0.0.1:1/x", "gopher://x/", fifo.as_uri(), "file:///dev/zero"):
            response = sender.ecall_and_wait(box, "table.load.fits", 10, url=url)
            assert response["samp.status"] == "samp.error", url
        assert list((tmp_path / "out").iterdir()) == []
        source = tmp_path / "source"
        source.write_bytes(b"SIMPLE  =")
        response = sender.ecall_and_wait(box, "table.load.fits", 10, url=source.as_uri())
        assert response["samp.status"] == "samp.ok"
    assert program.wait() == 0
    assert "There is no file '/no/such/file'" in program.output


def test_receive_timeout_and_invalid_directory(samp: Samp, hub: SAMPHubServer, tmp_path: Path) -> None:
    done = samp("receive", "-o", tmp_path, "--timeout", "0.1")
    assert done.status == 5
    assert "no message arrived within 0.1 s" in done.err
    (tmp_path / "file").touch()
    assert samp("receive", "-o", tmp_path / "file").status == 1
