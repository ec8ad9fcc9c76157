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
    """What STIL writes as ``fits-plus``: the primary HDU holds a VOTable without rows, as bytes."""
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
    assert table["number"].tolist() == [1, 255, 0]  # the head of the VOTable does not say what is missing in FITS
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
def test_fits_plus_by_each_door(mtype: str | None, stars: Path, pair: Pair) -> None:
    """Sent, linked, received; also by a sender that names the wrong format."""
    alice, bob = pair
    with bob.incoming("table.load.*", "table.select.rowList") as queue:
        assert alice.send(stars, to="bob", mtype=mtype).ok
        assert_stars(queue.get(10))
        with alice.link(stars, to="bob") as link:
            assert_stars(queue.get(10))
            assert link.select([1]).ok


def test_fits_plus_in_memory(stars: Path, pair: Pair) -> None:
    """HDUs of such a file are a table, too; as a VOTable they have what the head says."""
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


def test_a_head_that_makes_no_sense(tmp_path: Path) -> None:
    """The rows are read, and the rest of the head."""
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
def test_columns_as_cells(is_marked: str, tmp_path: Path) -> None:
    """``colfits``: a table of one row whose cells are the columns; of one that is not marked so, the cells stay."""
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
        for what in (path, opened):
            sendable = to_sendable(what)
            assert (sendable.kind, sendable.path) == ("table", None)  # written anew, as only STIL reads such a file
            assert sendable.count() == 3


def test_keywords_of_columns(tmp_path: Path) -> None:
    """Descriptions, UCDs and the like, as STIL and archives write them."""
    hdu = fits.BinTableHDU(Table({"a": [1], "b": [2]}))
    hdu.header.update(TCOMM2="Magnitude", TUCD2="phot.mag", TUTYP2="x:y", TXTYP2="z")
    hdu.writeto(tmp_path / "x.fits")
    table = read_table(tmp_path / "x.fits")
    assert table["b"].description == "Magnitude"
    assert table["b"].meta == {"ucd": "phot.mag", "utype": "x:y", "xtype": "z"}
    assert not {"TCOMM2", "TUCD2", "TUTYP2", "TXTYP2"} & set(table.meta)


def test_texts_beyond_ascii(tmp_path: Path) -> None:
    """They are UTF-8, or else Latin-1; texts of ASCII stay the bytes that astropy makes of them."""
    columns = [
        fits.Column("s", "6A", array=np.array(["é".encode(), "Ü".encode("latin-1"), b"x"])),
        fits.Column("p", "2A", array=np.array([b"a", b"b", b"c"])),
        fits.Column("v", "6A", dim="(3,2)", array=np.array([["é".encode(), b"a"], [b"", b""], [b"b", b"\xe9"]])),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "x.fits")
    table = read_table(tmp_path / "x.fits")
    assert table["s"].tolist() == ["é", "Ü", "x"]
    assert table["v"].tolist() == [["é", "a"], [None, None], ["b", "é"]]  # astropy takes the empty ones for missing
    assert table["p"].dtype.kind == "S"


CARDS = [
    "COMMENT caf\xe9", "OBSERVER= O'Neil", "TUNIT1  = 'furlong/fortnight'", "TDISP1  = 'Z9'", "TDIM1   = '(2,2)'",
    "TNULL1  = 'x'", "lower   = 3", "VOTMETA =                    T", "TUCD1   = 7",
]  # fmt: skip


@pytest.mark.parametrize("card", CARDS)
def test_odd_cards(card: str, tmp_path: Path) -> None:
    """Nobody here is to blame for them: the rows are read, without a warning."""
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
    """No column is lost, and none is read twice, if names are missing or not unique."""
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
    """The first one is read, and that is told; images among them do not matter."""
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
    """What is missing in logical arrays of several dimensions is masked."""
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


def test_filters_of_warnings_come_back() -> None:
    """Blocks of several threads overlap: what the last one restores is what was there before the first one."""
    before = list(warnings.filters)
    first, second = without_warnings(), without_warnings()
    first.__enter__()
    in_thread(second.__enter__)
    first.__exit__(None, None, None)
    warnings.warn("not shown, or it were an error here", AstropyUserWarning, stacklevel=1)
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
            warn("what the program ignores stays ignored")
