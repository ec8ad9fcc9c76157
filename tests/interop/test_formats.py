# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Each format that STILTS writes: sent, linked and received by this package, sent by STILTS, and read by STILTS again.

All formats are tested with ``-m matrix``, otherwise one of each kind.
"""
from __future__ import annotations

import csv
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient, SAMPTypeError
from pyvo.samp.formats.fetching import local_copy
from pyvo.samp.formats.readers import read_table
from pyvo.samp.formats.registry import to_sendable

from .conftest import Run
from .programs import until

Connect = Callable[..., SAMPIntegratedClient]

pytestmark = [pytest.mark.timeout(150), pytest.mark.filterwarnings("default::pyvo.samp.SAMPWarning")]

#: A table with columns of every type, missing values in each, texts beyond ASCII, and parameters.
FULL = """<?xml version="1.0" encoding="utf-8"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE name="Full">
<DESCRIPTION>All kinds</DESCRIPTION>
<PARAM name="epoch" datatype="double" value="2015.5" unit="yr" ucd="time.epoch"/>
<PARAM name="COMMENT" datatype="char" arraysize="11x2" value="first      second line"/>
<FIELD name="u1" datatype="unsignedByte"/>
<FIELD name="i2" datatype="short"/>
<FIELD name="i4" datatype="int" ucd="meta.id"><DESCRIPTION>Number</DESCRIPTION></FIELD>
<FIELD name="i8" datatype="long"><VALUES null="-9"/></FIELD>
<FIELD name="f4" datatype="float"/>
<FIELD name="f8" datatype="double" unit="deg" ucd="pos.eq.ra"/>
<FIELD name="ok" datatype="boolean"/>
<FIELD name="s" datatype="char" arraysize="*"/>
<FIELD name="wide" datatype="unicodeChar" arraysize="*"/>
<FIELD name="c" datatype="char" arraysize="1"/>
<FIELD name="af" datatype="float" arraysize="3"/>
<FIELD name="ai" datatype="int" arraysize="2x2"/>
<FIELD name="ab" datatype="boolean" arraysize="2"/>
<FIELD name="texts" datatype="char" arraysize="5x3"/>
<FIELD name="vf" datatype="double" arraysize="*"/>
<FIELD name="vi" datatype="short" arraysize="*"/>
<FIELD name="bit" datatype="bit" arraysize="3"/>
<FIELD name="complex" datatype="floatComplex"/>
<DATA><TABLEDATA>
<TR><TD>1</TD><TD>-2</TD><TD>3</TD><TD>4000000000</TD><TD>1.5</TD><TD>2.5</TD><TD>T</TD><TD>abc</TD><TD>日本</TD>
<TD>x</TD><TD>1 2 3</TD><TD>1 2 3 4</TD><TD>T F</TD><TD>one  two  three</TD><TD>1 2 3</TD><TD>1</TD><TD>1 0 1</TD>
<TD>1 2</TD></TR>
<TR><TD>200</TD><TD>7</TD><TD></TD><TD>-9</TD><TD>NaN</TD><TD></TD><TD></TD><TD>café</TD><TD></TD>
<TD>y</TD><TD>1 NaN 3</TD><TD>5 6 7 8</TD><TD>F F</TD><TD>a    b    c</TD><TD></TD><TD>1 2</TD><TD>0 0 0</TD>
<TD>3 4</TD></TR>
<TR><TD>0</TD><TD>0</TD><TD>5</TD><TD>6</TD><TD>0.5</TD><TD>-90</TD><TD>F</TD><TD></TD><TD>ü</TD>
<TD></TD><TD>4 5 6</TD><TD>0 0 0 0</TD><TD>T T</TD><TD>     d    e</TD><TD>9.5</TD><TD></TD><TD>1 1 1</TD>
<TD>5 6</TD></TR>
</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""

#: The formats that STILTS 3.4.7 writes. The first one of each kind is always tested.
FITS = ["fits-plus", "fits-basic", "fits-var", "colfits-plus", "colfits-basic"]
VOTABLE = [
    "votable-binary2-inline", "votable-tabledata", "votable-binary-inline", "votable-fits-inline",
    "votable-binary-href", "votable-binary2-href", "votable-fits-href",
]  # fmt: skip
TEXT = ["csv", "ascii", "ipac", "tst"]
#: Formats for people, which this package does not read.
FOR_PEOPLE = ["text", "html", "latex"]


def of_each_kind(*kinds: list[str]) -> list[Any]:
    """Return test parameters: the first format of each kind, and the others with the mark ``matrix``."""
    rest = [pytest.mark.matrix]
    return [pytest.param(name, marks=rest if place else []) for kind in kinds for place, name in enumerate(kind)]


def stilts(run: Run, *arguments: str) -> None:
    program = run("topcat", "-stilts", *arguments)
    assert program.finish() == 0, program.output


@pytest.fixture
def full(home: Path) -> Path:
    path = home / "full.vot"
    path.write_text(FULL, encoding="utf-8")
    return path


@pytest.fixture
def pair(hub: SAMPHubServer, connect: Connect) -> tuple[SAMPIntegratedClient, SAMPIntegratedClient]:
    return connect("alice"), connect("bob")


def saved(run: Run, full: Path, name: str) -> Path:
    """Return the path of the table that STILTS has saved in a format."""
    path = full.with_name(f"saved-{name}.{name.partition('-')[0]}")
    stilts(run, "tcopy", f"in={full}", f"out={path}", f"ofmt={name}")
    return path


def plain(column: Any) -> list[Any]:
    """Return the values as lists of numbers and `str`. A missing value is None, NaN or an empty list."""

    def value(cell: Any) -> Any:
        if isinstance(cell, bytes):
            return cell.decode()
        if isinstance(cell, np.ndarray | list):
            return [value(each) for each in cell]
        return None if cell is np.ma.masked or (isinstance(cell, float | np.floating) and np.isnan(cell)) else cell

    return [value(cell) for cell in column.tolist()]


def assert_full(table: Table, name: str) -> None:
    """Check the values and metadata that a format can contain."""
    assert plain(table["u1"]) == [1, 200, 0]
    assert plain(table["i2"]) == [-2, 7, 0]
    assert plain(table["i4"]) == [3, None, 5]
    assert plain(table["i8"]) == [4_000_000_000, None, 6]
    assert plain(table["f4"]) == [1.5, None, 0.5]
    assert plain(table["f8"]) == [2.5, None, -90]
    assert [text or "" for text in plain(table["s"])] == ["abc", "café", ""]
    assert [text or "" for text in plain(table["c"])] == ["x", "y", ""]
    if name in TEXT:
        assert [text or "" for text in plain(table["ok"])] == ["true", "", "false"]
        assert plain(table["texts"]) == ["(one, two, three)", "(a, b, c)", "(null, d, e)"]
        return
    assert plain(table["ok"]) == [True, None, False]
    assert plain(table["af"]) == [[1, 2, 3], [1, None, 3], [4, 5, 6]]
    assert plain(table["ai"]) == [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[0, 0], [0, 0]]]
    assert plain(table["ab"]) == [[True, False], [False, False], [True, True]]
    expected = [["one", "two", "three"], ["a", "b", "c"], ["", "d", "e"]]
    if "texts" in table.colnames:
        assert [[text or "" for text in row] for row in plain(table["texts"])] == expected
    else:  # a table that was written again has a column for each text
        columns = [plain(table[f"texts_{number}"]) for number in (1, 2, 3)]
        assert [[text or "" for text in row] for row in zip(*columns, strict=True)] == expected
    assert plain(table["bit"]) == [[True, False, True], [False] * 3, [True] * 3]
    assert plain(table["complex"]) == [[1, 2], [3, 4], [5, 6]]
    # arrays of fixed length are padded with zeros or with NaN
    assert [[x for x in cell or [] if x] for cell in plain(table["vf"])] == [[1, 2, 3], [], [9.5]]
    assert [[x for x in cell or [] if x] for cell in plain(table["vi"])] == [[1], [1, 2], []]
    if name.startswith("votable") and "fits" not in name:
        assert plain(table["wide"]) == ["日本", "", "ü"]
    assert str(table["f8"].unit) == "deg"
    assert table["f8"].meta["ucd"] == "pos.eq.ra"
    assert table["i4"].description == "Number"
    if "basic" not in name and "var" not in name:
        assert table.meta["epoch"] == 2015.5
        assert table.meta["description"] == "All kinds"
        if "texts" in table.colnames:
            assert table.meta["COMMENT"] == ["first", "second line"]


@pytest.mark.parametrize("name", of_each_kind(FITS, VOTABLE, TEXT))
def test_a_file_of_stilts_is_sent_and_received(
    name: str, run: Run, full: Path, pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]
) -> None:
    """`send`, `link`, a message with each MType, and ``samp send`` transfer the table."""
    alice, bob = pair
    path = saved(run, full, name)
    assert_full(read_table(path), name)
    with bob.incoming("table.load.*", "table.select.rowList") as queue:
        assert alice.send(path, to="bob").ok
        assert_full(queue.get(20), name)
        with alice.link(path, to="bob") as link:
            assert_full(queue.get(20), name)
            assert link.select([0, 2]).ok
            assert queue.get(20).mtype == "table.select.rowList"
        for mtype in ("table.load.votable", "table.load.fits"):
            response = alice.ecall_and_wait("bob", mtype, 20, url=path.as_uri())
            assert response["samp.status"] == "samp.ok"
            assert_full(queue.get(20), name)
        command = (sys.executable, "-m", "pyvo.samp", "send", str(path), "--to", "bob")
        program = run(*command, PYTHONPATH=":".join(sys.path))
        assert program.finish() == 0, program.output
        assert_full(queue.get(20), name)


@pytest.mark.matrix
@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_formats_for_people_are_rejected(name: str, run: Run, full: Path) -> None:
    with pytest.raises(SAMPTypeError, match="is unknown"):
        to_sendable(saved(run, full, name))


@pytest.mark.parametrize("name", of_each_kind(["fits", "votable"]))
def test_a_table_that_stilts_sends_is_received(
    name: str, run: Run, full: Path, pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]
) -> None:
    """``omode=samp`` sends to a client by its name, or to all clients."""
    _alice, bob = pair
    with bob.incoming("table.load.*") as queue:
        for more in ("client=bob", "client="):
            stilts(run, "tpipe", f"in={full}", "omode=samp", f"format={name}", more)
            assert_full(queue.get(30), "fits-plus" if name == "fits" else name)


def without_objects(table: Table) -> Table:
    """Return the table without arrays of variable length, and with texts of fixed length."""
    for name in ("s", "wide"):
        if name in table.colnames:
            table[name] = table[name].astype(str)
    return table[[name for name in table.colnames if table[name].dtype.kind != "O"]]


def without_letters(table: Table) -> Table:
    """Return the table without texts beyond ASCII, which FITS cannot contain."""
    return table[[name for name in table.colnames if name not in {"s", "wide"}]]


@pytest.mark.parametrize("name", of_each_kind(FITS, VOTABLE))
def test_stilts_reads_a_table_that_was_read_from_its_file(name: str, run: Run, full: Path) -> None:
    """STILTS reads each format in which `send` writes the table."""
    table = without_objects(read_table(saved(run, full, name)))
    for form in [*to_sendable(table).formats[:1], *to_sendable(without_letters(table)).formats[1:]]:
        path, out = full.with_name(f"back{form.suffix}"), full.with_name(f"back{form.suffix}.csv")
        assert form.write is not None
        with path.open("wb") as file:
            form.write(file)
        stilts(run, "tcopy", f"in={path}", f"out={out}", "ofmt=csv")
        with out.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert [row["i4"] for row in rows] == ["3", "", "5"]
        assert [row["i8"] for row in rows] == ["4000000000", "", "6"]
        assert [row["f8"] for row in rows] == ["2.5", "", "-90.0"]
        assert [row["ok"] for row in rows] == ["true", "", "false"]
        if form.suffix != ".fits":
            assert [row["s"] for row in rows] == ["abc", "café", ""]
        assert [row["af"] for row in rows] == ["(1.0, 2.0, 3.0)", "(1.0, NaN, 3.0)", "(4.0, 5.0, 6.0)"]


@pytest.fixture
def topcat(hub: SAMPHubServer, connect: Connect, show: Run) -> SAMPIntegratedClient:
    """A client of a hub with TOPCAT."""
    client = connect("alice")
    show("topcat", "-samp")
    client.wait_for("topcat", 60, "table.load.votable")
    return client


def table_of_topcat(client: SAMPIntegratedClient) -> Table:
    """Return the table that TOPCAT shows. TOPCAT responds to the load before the table is in its list."""
    response = until(
        lambda: client.ecall_and_wait("topcat", "table.get.stil", 30, format="votable"),
        lambda response: response["samp.status"] == "samp.ok",
    )
    with local_copy(response["samp.result"]["url"]) as path:
        return read_table(path)


@pytest.mark.matrix
def test_to_topcat_and_back(run: Run, full: Path, topcat: SAMPIntegratedClient) -> None:
    """
    TOPCAT loads each file that it can read, and each table that was read from such a file, and returns the same
    table.
    """
    for name in FITS + VOTABLE:
        path = saved(run, full, name)
        for source in (path, without_objects(read_table(path))):
            link = topcat.link(source, to="topcat")
            assert link.report.ok, (name, link.report)
            assert link.select([1]).ok
            link.close()
            back = table_of_topcat(topcat)
            assert plain(back["i4"]) == [3, None, 5], name
            assert plain(back["f8"]) == [2.5, None, -90], name


@pytest.mark.matrix
def test_several_threads_read_tables(
    run: Run, full: Path, pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]
) -> None:
    """Each thread gets its table, and the warning filters do not change."""
    paths = [saved(run, full, name) for name in ("fits-plus", "votable-binary-inline", "votable-tabledata")]
    before, failures = list(warnings.filters), []

    def work(path: Path) -> None:
        for _ in range(20):
            try:
                assert_full(read_table(path), path.name.partition("-")[2].partition(".")[0])
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(path,)) for path in paths * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert list(warnings.filters) == before


@pytest.mark.matrix
def test_a_healpix_map_of_stilts(run: Run, full: Path, pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """STILTS writes a HEALPix map of a table whose parameters describe the pixels."""
    alice, bob = pair
    path = full.with_name("map.fits")
    commands = ['addcol -before 1 pixel "(long)index-1"', 'keepcols "pixel i4"', "setparam STIL_HPX_LEVEL 0",
                "setparam STIL_HPX_ISNEST true", "setparam STIL_HPX_COLNAME pixel", "setparam STIL_HPX_CSYS C"]
    stilts(run, "tpipe", f"in={full}", f"cmd={'; '.join(commands)}", f"out={path}", "ofmt=fits-healpix")
    with bob.incoming("table.load.*") as queue:
        assert alice.send(path, to="bob").ok
        table = queue.get(20)
    assert plain(table["PIXEL"]) == [0, 1, 2]
    assert plain(table["i4"]) == [3, None, 5]
    assert table.meta["PIXTYPE"] == "HEALPIX"
