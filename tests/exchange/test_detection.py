# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The structure of a file decides what it contains: not a word in it, and however long its header is."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from pyvo.samp import SAMPClientError, SAMPTypeError
from pyvo.samp.formats.detection import PEEK_SIZE, decompress_prefix
from pyvo.samp.formats.readers import read_table
from pyvo.samp.formats.registry import to_sendable

VOTABLE = (
    '<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="a" datatype="int"/><DATA><TABLEDATA>'
    "<TR><TD>1</TD></TR><TR><TD>2</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
)


def table_hdu(name: str = "", cards: int = 0) -> fits.BinTableHDU:
    hdu = fits.BinTableHDU(Table({"a": [1, 2]}), name=name)
    for number in range(cards):
        hdu.header["HISTORY"] = f"step {number}"
    return hdu


def image_hdu(kind: type = fits.ImageHDU, cards: int = 0) -> fits.ImageHDU:
    hdu = kind(np.ones((4, 4), dtype="f4"))
    for number in range(cards):
        hdu.header["HISTORY"] = f"step {number}"
    return hdu


def random_groups() -> fits.GroupsHDU:
    data = np.zeros((5, 2, 2), "f4")
    return fits.GroupsHDU(fits.GroupData(data, bitpix=-32, parnames=["u"], pardata=[np.zeros(5)]))


def long_primary() -> fits.PrimaryHDU:
    hdu = fits.PrimaryHDU()
    for number in range(5000):
        hdu.header["HISTORY"] = f"step {number}"
    return hdu


FILES: dict[str, tuple[Callable[[], list[object]], str, str]] = {
    "an image of 1000 cards": (lambda: [image_hdu(fits.PrimaryHDU, 1000)], "image", "image.load.fits"),
    "a table of 1000 cards": (lambda: [fits.PrimaryHDU(), table_hdu(cards=1000)], "table", "table.load.fits"),
    "a primary header of 5000 cards": (lambda: [long_primary(), table_hdu()], "table", "table.load.fits"),
    "an image of Hubble": (
        lambda: [fits.PrimaryHDU(), image_hdu(), image_hdu(), table_hdu("WCSCORR")], "image", "image.load.fits"
    ),
    "a spectrum of Hubble": (
        lambda: [fits.PrimaryHDU(), fits.ImageHDU(name="EMPTY"), table_hdu("SCI")], "table", "table.load.fits"
    ),
    "a compressed image": (
        lambda: [fits.PrimaryHDU(), fits.CompImageHDU(np.arange(10000, dtype="i4").reshape(100, 100)), table_hdu()],
        "image", "image.load.fits",
    ),
    "random groups": (lambda: [random_groups()], "image", "image.load.fits"),
}  # fmt: skip


@pytest.mark.parametrize("packed", [None, gzip.compress, bz2.compress])
@pytest.mark.parametrize("what", FILES)
def test_fits(what: str, packed: Callable[[bytes], bytes] | None, tmp_path: Path) -> None:
    """The first HDU with data decides, wherever it starts."""
    make, kind, mtype = FILES[what]
    path = tmp_path / "x.fits"
    fits.HDUList(make()).writeto(path)
    if packed is not None:
        path.write_bytes(packed(path.read_bytes()))
    sendable = to_sendable(path)
    assert (sendable.kind, sendable.formats[0].mtype) == (kind, mtype)
    if kind == "table":
        assert sendable.count is not None
        assert sendable.count() == 2


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the files in a directory; the server does not support ranges."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

        def copyfile(self, source: object, outputfile: object) -> None:
            with contextlib.suppress(ConnectionError):  # the client has read enough
                super().copyfile(source, outputfile)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("what", FILES)
def test_fits_at_a_url(what: str, served: str, tmp_path: Path) -> None:
    make, kind, _mtype = FILES[what]
    fits.HDUList(make()).writeto(tmp_path / "x.fits")
    assert to_sendable(f"{served}/x.fits").kind == kind


def test_fits_that_has_no_data_or_no_end(tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    with pytest.raises(SAMPTypeError, match="without data"):
        to_sendable(path)
    path.write_bytes(path.read_bytes()[:160])
    with pytest.raises(SAMPTypeError, match="has no END card"):
        to_sendable(path)


@pytest.mark.parametrize(
    "text",
    [
        VOTABLE,
        "\n\n" + VOTABLE,
        f'<?xml version="1.0"?><!-- <TABLE> & --><?style x?>{VOTABLE}',
        f'<!DOCTYPE VOTABLE SYSTEM "http://us-vo.org/xml/VOTable.dtd">\n{VOTABLE}',
        f"<!DOCTYPE VOTABLE [ <!ENTITY a '>'> ]>\n{VOTABLE}",
        f"<!-- {'long ' * PEEK_SIZE} -->{VOTABLE}",
        VOTABLE.replace("</", "</v:").replace("<", "<v:").replace("<v:/v:", "</v:"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_votable(text: str, encoding: str, tmp_path: Path) -> None:
    """The root element decides, whatever precedes it."""
    path = tmp_path / "x.dat"
    path.write_bytes(text.encode(encoding))
    assert to_sendable(path).formats[0].mtype == "table.load.votable"
    assert read_table(path)["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "text", ["a,s\n1,<VOTABLE >\n2,SIMPLE  =\n", "a s\n1 <VOTABLE>\n2 VOTABLE\n", "# <VOTABLE >\na s\n1 x\n2 y\n"]
)
def test_a_text_that_mentions_a_format(text: str, tmp_path: Path) -> None:
    """A text that mentions VOTABLE is detected and read as a text."""
    path = tmp_path / "x.txt"
    path.write_text(text)
    assert to_sendable(path).path is None  # the table that was read is sent, not the file
    assert read_table(path)["a"].tolist() == [1, 2]


def test_no_table(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    path.write_text("<html><body>Of <VOTABLE > and SIMPLE  = more</body></html>")
    with pytest.raises(SAMPTypeError, match="is unknown"):
        to_sendable(path)
    with pytest.raises(SAMPClientError, match="neither a FITS file nor a VOTable"):
        read_table(path)


def test_text_in_latin_1(tmp_path: Path) -> None:
    """A text in Latin-1 is detected wherever its first letter outside ASCII is."""
    path = tmp_path / "x.csv"
    path.write_bytes("a,s\n1,Müller und Söhne\n2,é\n".encode("latin-1"))
    assert read_table(path)["s"].tolist() == ["Müller und Söhne", "é"]
    path.write_bytes(b"a,s\n" + b"1,x\n" * PEEK_SIZE + "2,é\n".encode("latin-1"))
    assert read_table(path)["s"][-1] == "é"
    path.write_bytes(b"a,s\n" + "1,é\n".encode() * PEEK_SIZE)  # the block ends within a letter
    assert read_table(path)["s"][-1] == "é"


def test_tab_separated_table(tmp_path: Path) -> None:
    path = tmp_path / "x.tst"
    path.write_text("Title\n\n# Table parameters\nepoch: 2000\n\na\tname\n-\t----\n1\tM 31\n2\t\n[EOD]\n")
    table = read_table(path)
    assert table["a"].tolist() == [1, 2]
    assert table["name"].tolist() == ["M 31", None]
    assert to_sendable(path).kind == "table"


def test_decompressing_the_first_bytes() -> None:
    """Files of many members, as bgzip writes them, and broken files."""
    members = gzip.compress(b"a" * 100) + gzip.compress(b"b" * 100)
    assert decompress_prefix(members, 150) == b"a" * 100 + b"b" * 50
    assert decompress_prefix(bz2.compress(b"abc"), 2) == b"ab"
    assert decompress_prefix(b"plain", 3) == b"pla"
    assert decompress_prefix(b"\x1f\x8b" + bytes(20), 10) == b""
    assert decompress_prefix(zlib.compress(b"abc"), 100) == zlib.compress(b"abc")
