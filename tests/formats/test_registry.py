# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The type of an object, the formats in which it can be sent, and the detection of files by their content."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.votable import from_table, parse
from astropy.nddata import CCDData, Cutout2D, NDData
from astropy.table import QTable, Table
from astropy.utils.masked import Masked

from pyvo.samp import SAMPClientError, SAMPTypeError, SAMPValueError
from pyvo.samp.formats.model import Sendable
from pyvo.samp.formats.registry import to_sendable
from tests.exchange.conftest import wcs


def written(sendable: Sendable, mtype: str) -> io.BytesIO:
    """Write a sendable in one format."""
    (form,) = (form for form in sendable.formats if form.mtype == mtype)
    file = io.BytesIO()
    assert form.write is not None
    form.write(file)
    return io.BytesIO(file.getvalue())


def formats(sendable: Sendable) -> list[str]:
    return [form.mtype for form in sendable.formats]


TABLE = ["table.load.votable", "table.load.fits"]


@pytest.mark.parametrize("mtype", TABLE)
def test_tables(table: Table, mtype: str) -> None:
    for obj in (table, QTable(table), table[1], np.asarray(table[["name", "ra"]])):
        sendable = to_sendable(obj)
        assert (sendable.kind, formats(sendable)) == ("table", TABLE)
        back = Table.read(written(sendable, mtype), format=mtype.rpartition(".")[2])
        assert len(back) == (1 if obj.__class__.__name__ == "Row" else 3)
        assert back["ra"][0] in (1.5, 2.5)
    assert to_sendable(table).name == "Small"


def test_votables_are_sent_unchanged(table: Table) -> None:
    """A VOTableFile, or an object with one, such as a result of pyvo, is sent with PARAM, INFO and all tables."""
    document = from_table(table)
    from astropy.io.votable.tree import Info, Param

    document.resources[0].infos.append(Info(name="QUERY_STATUS", value="OK"))
    document.get_first_table().params.append(Param(document, name="equinox", datatype="double", value=2000.0))
    for obj in (document, SimpleNamespace(votable=document)):
        sendable = to_sendable(obj)
        assert formats(sendable) == TABLE
        back = parse(written(sendable, "table.load.votable"))
        assert back.resources[0].infos[0].value == "OK"
        assert back.get_first_table().params[0].value == 2000.0
        assert back.get_first_table().get_field_by_id("ra").ucd == "pos.eq.ra"
        assert len(Table.read(written(sendable, "table.load.fits"))) == 3
    (of_one,) = parse(written(to_sendable(document.get_first_table()), "table.load.votable")).iter_tables()
    assert {param.name: param.value for param in of_one.params}["equinox"] == 2000.0


def test_an_object_with_to_table(table: Table) -> None:
    sendable = to_sendable(SimpleNamespace(to_table=lambda: table))
    assert (sendable.kind, sendable.name) == ("table", "Small")


def test_images(image: CCDData) -> None:
    """Each image becomes a primary HDU, with its coordinates and unit if it has them."""
    hdu = fits.ImageHDU(image.data, header=image.wcs.to_header(), name="SCI")
    compressed = fits.CompImageHDU(image.data, header=image.wcs.to_header())
    for obj in (image, NDData(image.data, wcs=image.wcs, unit="adu"), hdu, compressed, fits.PrimaryHDU(image.data),
                fits.HDUList([fits.PrimaryHDU(), hdu]), image.data, image.data * u.Jy, np.ma.array(image.data)):
        sendable = to_sendable(obj)
        assert (sendable.kind, formats(sendable)) == ("image", ["image.load.fits"])
        with fits.open(written(sendable, "image.load.fits")) as back:
            first = next(one for one in back if one.data is not None)
            assert np.allclose(first.data, image.data)
            if obj is image:
                assert first.header["BUNIT"] == "adu"
                assert first.header["OBJECT"] == "M 1"
            if hasattr(obj, "wcs"):
                assert first.header["CRVAL1"] == 10
    assert to_sendable(image).name == "M 1"
    assert to_sendable(hdu).name == "SCI"


@pytest.mark.parametrize("kind", ["?", "f2", "u1", "i2", "u2", "i4", "i8", ">f4", "f8"])
def test_pixels_of_all_types(kind: str) -> None:
    pixels = np.array([[0, 1], [1, 0]], dtype=kind)
    with fits.open(written(to_sendable(pixels), "image.load.fits")) as back:
        assert back[0].data.tolist() == pixels.astype(float).tolist()


def test_masked_pixels_are_nan(image: CCDData) -> None:
    mask = np.zeros(image.shape, dtype=bool)
    mask[1, 2] = True
    for obj in (CCDData(image, mask=mask), np.ma.array(image.data, mask=mask)):
        with fits.open(written(to_sendable(obj), "image.load.fits")) as back:
            assert np.isnan(back[0].data).tolist() == mask.tolist()


def test_tables_in_fits(table: Table) -> None:
    """A table HDU is a table, and so is an HDUList whose first data are a table HDU."""
    hdu = fits.BinTableHDU(table, name="CAT")
    nameless = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table)])
    assert to_sendable(nameless).name == "table"
    for obj in (hdu, fits.HDUList([fits.PrimaryHDU(), hdu])):
        sendable = to_sendable(obj)
        assert (sendable.kind, sendable.name, sorted(formats(sendable))) == ("table", "CAT", sorted(TABLE))
        for mtype in TABLE:
            assert len(Table.read(written(sendable, mtype), format=mtype.rpartition(".")[2])) == 3


def test_positions() -> None:
    """One position in any frame is sent as ``coord.pointAt.sky``; several positions are a table."""
    galactic = SkyCoord(184.55754381, -5.78427369, unit="deg", frame="galactic")
    (form,) = to_sendable(galactic).formats
    assert form.mtype == "coord.pointAt.sky"
    assert form.params == pytest.approx({"ra": 83.633, "dec": 22.0145}, abs=1e-3)
    assert to_sendable(SkyCoord([1], [2], unit="deg")).kind == "position"
    assert to_sendable(SkyCoord([1, 2], [2, 3], unit="deg")).kind == "table"


@pytest.mark.parametrize(
    "obj", [None, 3, object(), [1, 2], {"a": 1}, b"FITS", np.zeros(3), np.zeros((2, 2), dtype=complex), np.float64(1),
            SkyCoord, Table, print]
)
def test_objects_that_cannot_be_sent(obj: Any) -> None:
    """The error gives the type of the object and lists the supported types."""
    with pytest.raises(TypeError, match=r"cannot be sent. Supported types: .*Table.*SkyCoord, path, URL") as caught:
        to_sendable(obj)
    assert isinstance(caught.value, SAMPTypeError)


@pytest.mark.parametrize("obj", [fits.PrimaryHDU(), fits.HDUList([fits.PrimaryHDU()])])
def test_empty_images(obj: Any) -> None:
    with pytest.raises(SAMPTypeError, match="without data"):
        to_sendable(obj)


# Files


def test_files_by_their_content(table: Table, image: CCDData, tmp_path: Path) -> None:
    """The content of a file decides on its type, whatever the name of the file is."""
    files: dict[str, tuple[bytes, str, list[str]]] = {
        "table.vot": (written(to_sendable(table), TABLE[0]).getvalue(), "table", TABLE[:1]),
        "table.fits": (written(to_sendable(table), TABLE[1]).getvalue(), "table", TABLE[1:]),
        "image.fits": (written(to_sendable(image), "image.load.fits").getvalue(), "image", ["image.load.fits"]),
        "picture": (b"\x89PNG\r\n\x1a\n....", "picture", ["image.load.png"]),
        "photo": (b"\xff\xd8\xff\xe0....", "picture", ["image.load.jpeg", "image.load.jpg"]),
        "moc": (moc_file(), "coverage", ["coverage.load.moc.fits", "script.aladin.send"]),
        "cdf": (b"\xcd\xf3\x00\x01....", "table", ["table.load.cdf"]),
    }
    for name, (content, kind, mtypes) in files.items():
        for packed in (False, True):
            path = tmp_path / f"{name}.dat{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
            for place in (path, str(path), path.as_uri(), f"file:{path}", f"file://localhost/{path}"):
                sendable = to_sendable(place)
                assert (sendable.kind, formats(sendable)) == (kind, mtypes), name
                assert sendable.path == path
                assert sendable.name == path.name


def moc_file() -> bytes:
    """A coverage in a FITS file."""
    hdu = fits.BinTableHDU.from_columns([fits.Column("UNIQ", "K", array=[4 * 4**8 + 100])])
    hdu.header.update({"PIXTYPE": "HEALPIX", "ORDERING": "NUNIQ", "MOCORDER": 8})
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "a,b\n1,2\n"), ("a.txt", "a b\n1 2\n"), ("a.dat", "a\tb\n1\t2\n"),
     ("a.ecsv", "# %ECSV 1.0\n# ---\n# datatype: [{name: a, datatype: int8}, {name: b, datatype: int8}]\na b\n1 2\n")],
)
def test_text_tables_are_converted(tmp_path: Path, name: str, content: str) -> None:
    """A text table that astropy can read is sent as a VOTable."""
    path = tmp_path / name
    path.write_text(content)
    sendable = to_sendable(path)
    assert formats(sendable) == TABLE
    assert sendable.path is None
    back = Table.read(written(sendable, TABLE[0]), format="votable")
    assert (back.colnames, len(back)) == (["a", "b"], 1)


@pytest.mark.parametrize(
    "content", [b"", b"just some words", b"\x00\x01\x02", b"SIMPLE  =                    T", b"\x1f\x8b\0"]
)
def test_unknown_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "what"
    path.write_bytes(content)
    with pytest.raises((SAMPTypeError, OSError)):
        to_sendable(path)


def test_invalid_paths_and_urls(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file 'Barnard'.* Supported types: "):
        to_sendable("Barnard")
    with pytest.raises(SAMPTypeError, match="is not a file"):
        to_sendable(tmp_path)
    with pytest.raises(SAMPClientError, match="Only http"):
        to_sendable("ftp://127.0.0.1/x.fits")
    with pytest.raises(SAMPClientError, match="cannot be read"):
        to_sendable("http://127.0.0.1:9/x.fits")
    for url in ("http://[bad", "file://[bad/x"):
        with pytest.raises(SAMPValueError, match=r"\[bad.* is not a valid URL"):
            to_sendable(url)


def test_a_client_imports_only_the_mixin(python_environment: dict[str, str]) -> None:
    """Importing the client imports the mixin, but not the modules that the mixin uses."""
    code = (
        "import sys, pyvo.samp; pyvo.samp.SAMPIntegratedClient(name='x')\n"
        "heavy = {'astropy.table', 'astropy.io.fits', 'astropy.io.votable', 'astropy.coordinates', 'pandas'}\n"
        "loaded = [n for n in sys.modules if n.startswith('pyvo.samp.exchange')]\n"
        "assert loaded == ['pyvo.samp.exchange', 'pyvo.samp.exchange.mixin'], loaded\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=python_environment, check=True, timeout=30)


# Images by their attributes


class Image:
    """An image class of some library."""

    def __init__(self, data: Any, **attributes: Any) -> None:
        self.data = data
        self.__dict__.update(attributes)


def test_an_object_with_data_and_wcs() -> None:
    """A Cutout2D, or an object with its attributes, is sent with its coordinates, unit, mask and header."""
    pixels = np.arange(100.0).reshape(10, 10)
    cutout = Cutout2D(pixels, (5, 4), (3, 4), wcs=wcs())
    sendable = to_sendable(cutout)
    assert (sendable.kind, formats(sendable)) == ("image", ["image.load.fits"])
    (hdu,) = fits.open(written(sendable, "image.load.fits"))
    assert hdu.data.tolist() == cutout.data.tolist()
    assert hdu.header["CRPIX1"] == cutout.wcs.wcs.crpix[0]
    for obj in (
        Image(np.ma.masked_greater(pixels, 50) * 1.0, wcs=wcs(), unit=u.Jy, meta={"OBJECT": "M 1"}),
        Image(Masked(pixels * u.Jy, mask=pixels > 50), wcs=wcs(), meta=fits.Header({"OBJECT": "M 1"})),
        Image(pixels, wcs=wcs(), unit="Jy", mask=pixels > 50, meta={"name": "M 1"}),
    ):
        sendable = to_sendable(obj)
        assert sendable.name == "M 1"
        (hdu,) = fits.open(written(sendable, "image.load.fits"))
        assert (hdu.header["BUNIT"], hdu.header["CRVAL1"]) == ("Jy", 10)
        assert np.isnan(hdu.data).sum() == 49
        assert hdu.data[0, 3] == 3
    (hdu,) = fits.open(written(to_sendable(Cutout2D(pixels, (5, 4), 3)), "image.load.fits"))
    assert hdu.data.shape == (3, 3)


class Raises:
    """An object whose method raises."""

    def to_table(self) -> Table:
        raise RuntimeError("the session has ended")


def closed_hdus(directory: Path) -> fits.HDUList:
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(directory / "x.fits")
    with fits.open(directory / "x.fits") as hdus:
        return hdus


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Table, "The class Table itself cannot be sent"),
        (Raises, r"Raises cannot be sent: .*\(RuntimeError: the session has ended\)"),
        (lambda: SkyCoord(np.nan, 1, unit="deg"), r"non-finite coordinates \(ra nan, dec 1"),
        (lambda: SkyCoord(10, 20, unit="deg", frame="altaz"), "A position in the frame altaz can only be sent if"),
        (lambda: np.zeros((0, 5)), r"without pixels \(of shape \(0, 5\)\)"),
        (lambda: NDData(np.zeros((0, 5))), "NDData without pixels"),
        (lambda: NDData(np.zeros((2, 2), complex)), "NDData with data of type complex128 is not an image"),
        (lambda: Image(np.array([["a"]]), wcs=None), "Image with data of type <U1 is not an image"),
        (lambda: Image(np.zeros(3), wcs=None), "Image with 1-dimensional data is not an image"),
        (lambda: Image([[1, 2]], wcs=None), "An object of type tests.Image cannot be sent. Supported types: Table"),
        (lambda: Image(np.zeros((2, 2))), "An object of type tests.Image cannot be sent. Supported types: Table"),
    ],
)
def test_error_texts(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(SAMPTypeError, match=text):
        to_sendable(make())


def test_a_document_in_place_of_a_path() -> None:
    """If a program passes the content of a file in place of its path, the error text is short."""
    with pytest.raises(FileNotFoundError, match="There is no file '<VOTABLE") as caught:
        to_sendable("<VOTABLE>" * 10_000)
    assert len(str(caught.value)) < 1000


def test_hdus_of_a_closed_file(tmp_path: Path) -> None:
    """HDUs of a closed file are an error: astropy reads the pixels on first access, which is too late."""
    with pytest.raises(SAMPTypeError, match="The file of the HDUs was closed"):
        written(to_sendable(closed_hdus(tmp_path)), "image.load.fits")
