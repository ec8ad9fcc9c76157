# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""FITS tables as TOPCAT, STILTS and archives write them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning

from pyvo.samp import SAMPClientError, SAMPIntegratedClient, SAMPWarning
from pyvo.samp.errors import warn, without_warnings
from pyvo.samp.formats.readers import read_table
from pyvo.samp.formats.registry import to_sendable

Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]

HEAD = """<?xml version='1.0'?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>
<!-- Describes BINTABLE extensions in the following HDU.-->
<TABLE name="Stars" nrows="3"><DESCRIPTION>Bright ones</DESCRIPTION>
<PARAM datatype="double" name="epoch" unit="yr" value="2015.5"/>
<PARAM arraysize="11x2" datatype="char" name="COMMENT" value="first      second line"/>{more}
<FIELD datatype="unsignedByte" name="number" ucd="meta.id" utype="x:id"><DESCRIPTION>Which</DESCRIPTION>
<VALUES null='255'/></FIELD>
<FIELD datatype="double" name="ra" ucd="pos.eq.ra;meta.main" unit="deg"/>
<FIELD datatype="char" name="größe" arraysize="4"/>
</TABLE></RESOURCE></VOTABLE>"""


def fits_plus(more: str = "") -> fits.HDUList:
    """A file as STIL writes it as ``fits-plus``: the primary HDU contains a VOTable without rows, as bytes."""
    primary = fits.PrimaryHDU(np.frombuffer(HEAD.format(more=more).encode(), dtype="u1"))
    primary.header["VOTMETA"] = True
    primary.header["NTABLE"] = 1
    columns = [
        fits.Column("number", "B", array=[1, 255, 0]),
        fits.Column("ra", "D", array=[1.5, 2.5, 3.5]),
        fits.Column("gr??e", "4A", array=["a", "b", "c"]),
    ]
    return fits.HDUList([primary, fits.BinTableHDU.from_columns(columns, name="Stars")])


def assert_stars(table: Table) -> None:
    assert table.colnames == ["number", "ra", "größe"]
    assert table["number"].tolist() == [1, 255, 0]  # the VOTable's null value does not count for FITS
    assert table["number"].description == "Which"
    assert (table["number"].meta["ucd"], table["number"].meta["utype"]) == ("meta.id", "x:id")
    assert (str(table["ra"].unit), table["ra"].meta["ucd"]) == ("deg", "pos.eq.ra;meta.main")
    assert (table.meta["name"], table.meta["description"], table.meta["epoch"]) == ("Stars", "Bright ones", 2015.5)
    assert table.meta["COMMENT"] == ["first", "second line"]


@pytest.fixture
def stars(tmp_path: Path) -> Path:
    path = tmp_path / "stars.fits"
    fits_plus().writeto(path)
    return path


def test_fits_plus(stars: Path) -> None:
    sendable = to_sendable(stars)
    assert (sendable.kind, sendable.formats[0].mtype) == ("table", "table.load.fits")
    assert sendable.count is not None
    assert sendable.count() == 3
    assert_stars(read_table(stars))


@pytest.mark.parametrize("mtype", [None, "table.load.fits", "table.load.votable"])
def test_fits_plus_is_sent_linked_and_received(mtype: str | None, stars: Path, pair: Pair) -> None:
    """A fits-plus file can be sent, linked and received, even if the sender gives an MType of the wrong format."""
    alice, bob = pair
    with bob.incoming("table.load.*", "table.select.rowList") as queue:
        assert alice.send(stars, to="bob", mtype=mtype).ok
        assert_stars(queue.get(10))
        with alice.link(stars, to="bob") as link:
            assert_stars(queue.get(10))
            assert link.select([1]).ok


def test_fits_plus_in_memory(stars: Path, pair: Pair) -> None:
    """The HDUs of such a file are a table, too. The VOTable that is sent has the metadata from the primary HDU."""
    alice, bob = pair
    with fits.open(stars) as hdus, bob.incoming("table.load.*") as queue:
        sendable = to_sendable(hdus)
        assert sendable.kind == "table"
        assert sendable.count is not None
        assert sendable.count() == 3
        for mtype in ("table.load.fits", "table.load.votable"):
            assert alice.send(hdus, to="bob", mtype=mtype).ok
            table = queue.get(10)
            assert table["number"].tolist() == [1, 255, 0]
            assert table["ra"].meta["ucd"] == "pos.eq.ra;meta.main"


def test_fits_plus_with_an_invalid_votable(tmp_path: Path) -> None:
    """If the VOTable in the primary HDU is partly invalid, the rows and the other metadata are read."""
    path = tmp_path / "x.fits"
    fits_plus('<PARAM name="bad" datatype="int" value="none"/>').writeto(path)
    with pytest.warns(SAMPWarning, match="PARAM 'bad' is left out"):
        assert_stars(read_table(path))
    path.unlink()
    fits_plus("<PARAM").writeto(path)
    with pytest.warns(SAMPWarning, match="in the form of a VOTable is left out: .*not a valid XML"):
        table = read_table(path)
    assert table["number"].tolist() == [1, 255, 0]


@pytest.mark.parametrize("is_marked", ["COLFITS", "STILCLAS"])
def test_colfits(is_marked: str, tmp_path: Path) -> None:
    """``colfits`` is a table of one row whose cells are the columns. A table without its keyword stays as it is."""
    columns = [
        fits.Column("a", "3J", dim="(1,3)", array=np.array([[[1], [-9], [3]]]), null=-9),
        fits.Column("s", "6A", dim="(2,3)", array=np.array([["ab", "c", ""]])),
        fits.Column("v", "6E", dim="(2,3)", array=np.arange(6.0).reshape(1, 3, 2), unit="m"),
        fits.Column("one", "3J", dim="(1,1,3)", array=np.arange(3).reshape(1, 3, 1, 1)),
        fits.Column("ok", "3L", dim="(1,3)", array=np.array([[[True], [False], [True]]])),
    ]
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)])
    plain, path = tmp_path / "plain.fits", tmp_path / "x.fits"
    hdus.writeto(plain)
    assert len(read_table(plain)) == 1
    if is_marked == "COLFITS":
        hdus[0].header["COLFITS"] = True
    else:
        hdus[1].header["STILCLAS"] = "uk.ac.starlink.fits.ColFitsTableWriter"
    hdus.writeto(path)
    table = read_table(path)
    assert table["a"].tolist() == [1, None, 3]
    assert table["s"].tolist() == ["ab", "c", ""]
    assert table["v"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert str(table["v"].unit) == "m"
    assert table["one"].tolist() == [[[0]], [[1]], [[2]]]
    assert table["ok"].tolist() == [True, False, True]
    with fits.open(path) as opened:
        for obj in (path, opened):
            sendable = to_sendable(obj)
            assert (sendable.kind, sendable.path) == ("table", None)  # rewritten: only STIL reads such a file
            assert sendable.count() == 3


def test_keywords_of_columns(tmp_path: Path) -> None:
    """Descriptions, UCDs, utypes and xtypes are read from the keywords that STIL and archives write."""
    hdu = fits.BinTableHDU(Table({"a": [1], "b": [2]}))
    hdu.header.update(TCOMM2="Magnitude", TUCD2="phot.mag", TUTYP2="x:y", TXTYP2="z")
    hdu.writeto(tmp_path / "x.fits")
    table = read_table(tmp_path / "x.fits")
    assert table["b"].description == "Magnitude"
    assert table["b"].meta == {"ucd": "phot.mag", "utype": "x:y", "xtype": "z"}
    assert not {"TCOMM2", "TUCD2", "TUTYP2", "TXTYP2"} & set(table.meta)


def test_texts_outside_ascii(tmp_path: Path) -> None:
    """Texts outside ASCII are read as UTF-8, or else as Latin-1. ASCII texts stay bytes, as astropy reads them."""
    columns = [
        fits.Column("s", "6A", array=np.array(["é".encode(), "Ü".encode("latin-1"), b"x"])),
        fits.Column("p", "2A", array=np.array([b"a", b"b", b"c"])),
        fits.Column("v", "6A", dim="(3,2)", array=np.array([["é".encode(), b"a"], [b"", b""], [b"b", b"\xe9"]])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "x.fits")
    table = read_table(tmp_path / "x.fits")
    assert table["s"].tolist() == ["é", "Ü", "x"]
    assert table["v"].tolist() == [["é", "a"], [None, None], ["b", "é"]]  # astropy masks empty texts
    assert table["p"].dtype.kind == "S"


CARDS = [
    "COMMENT caf\xe9", "OBSERVER= O'Neil", "TUNIT1  = 'furlong/fortnight'", "TDISP1  = 'Z9'", "TDIM1   = '(2,2)'",
    "TNULL1  = 'x'", "lower   = 3", "VOTMETA =                    T", "TUCD1   = 7",
]  # fmt: skip


@pytest.mark.parametrize("card", CARDS)
def test_invalid_cards(card: str, tmp_path: Path) -> None:
    """Invalid cards do not prevent reading the rows, and cause no warning: the recipient cannot change the file."""
    path = tmp_path / "x.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table({"a": [1, 2, 3]}))]).writeto(path)
    data = bytearray(path.read_bytes())
    end = data.index(b"END     ", 2880)
    data[end : end + 160] = card.encode("latin-1").ljust(80) + b"END".ljust(80)
    path.write_bytes(data)
    assert to_sendable(path).kind == "table"
    assert read_table(path)["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a", "a"), ["a", "a_2"]), (("a", "A"), ["a", "A_2"]), (("", ""), ["col1", "col2"]),
        ((None, "b"), ["col1", "b"]), (("col2", None), ["col2", "col2_2"]),
    ],
)  # fmt: skip
def test_names_of_columns(names: tuple[str | None, str | None], expected: list[str], tmp_path: Path) -> None:
    """Each column is read once, even if names are missing or not unique."""
    path = tmp_path / "x.fits"
    fits.BinTableHDU(Table({"x1": [1], "x2": [2]})).writeto(path)
    data = path.read_bytes()
    for number, name in enumerate(names, start=1):
        old = f"TTYPE{number}  = 'x{number}      '".encode()
        assert old in data
        new = "COMMENT" if name is None else f"TTYPE{number}  = '{name:8}'"
        data = data.replace(old, new.ljust(len(old)).encode())
    path.write_bytes(data)
    table = read_table(path)
    assert table.colnames == expected
    assert list(table[0]) == [1, 2]


def test_several_tables(tmp_path: Path) -> None:
    """The first table is read, and a warning names the others; images between them do not matter."""
    path = tmp_path / "x.fits"
    tables = [fits.BinTableHDU(Table({"a": [number]}), name=f"T{number}") for number in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((2, 2))), *tables]).writeto(path)
    with pytest.warns(SAMPWarning, match="contains 2 tables: the first is read, but not T2"):
        assert read_table(path)["a"].tolist() == [1]


def test_no_table(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones((2, 2))).writeto(tmp_path / "x.fits")
    with pytest.raises(SAMPClientError, match="contains no table"):
        read_table(tmp_path / "x.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU()]).writeto(tmp_path / "empty.fits")
    assert read_table(tmp_path / "empty.fits").colnames == []


def test_logical_arrays(tmp_path: Path) -> None:
    """Missing elements of multidimensional logical arrays are masked."""
    path = tmp_path / "x.fits"
    column = fits.Column("ok", "4L", dim="(2,2)", array=np.ones((1, 2, 2), dtype=bool))
    fits.BinTableHDU.from_columns([column]).writeto(path)
    path.write_bytes(path.read_bytes().replace(b"TTTT", b"TF\0T"))
    assert read_table(path)["ok"].tolist() == [[[True, False], [None, True]]]


# Warnings


def in_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_filters_of_warnings_are_restored() -> None:
    """If blocks of several threads overlap, the last block restores the filters that were set before the first."""
    before = list(warnings.filters)
    first, second = without_warnings(), without_warnings()
    first.__enter__()
    in_thread(second.__enter__)
    first.__exit__(None, None, None)
    warnings.warn("not shown; otherwise it would be an error here", AstropyUserWarning, stacklevel=1)
    in_thread(lambda: second.__exit__(None, None, None))
    assert list(warnings.filters) == before


def test_own_warnings_are_shown() -> None:

    @without_warnings()
    def both() -> None:
        warnings.warn("theirs", AstropyUserWarning, stacklevel=1)
        warn("ours")

    with pytest.warns(SAMPWarning, match="ours") as caught:
        both()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAMPWarning)
        with without_warnings():
            warn("a warning that the program ignores stays ignored")
