# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""VOTables as services send them: all values of their cells are sent and received."""

from __future__ import annotations

import io
import urllib.request
import xml.etree.ElementTree as ET
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.io.votable import parse
from astropy.io.votable.tree import TableElement, VOTableFile
from astropy.table import QTable, Table

from pyvo.samp import SAMPTypeError, SAMPWarning
from pyvo.samp.formats.registry import to_sendable
from pyvo.samp.vo_helpers import accessible_table, send_table_to
from tests.formats.test_registry import TABLE, written

from .test_sending import Pair, Reader

DOCUMENT = """<?xml version="1.0" encoding="utf-8"?>
<VOTABLE version="{version}" xmlns="http://www.ivoa.net/xml/VOTable/v1.{schema}"><RESOURCE><TABLE name="t">
<PARAM name="limit" datatype="int" value="7"/>
<FIELD name="v" datatype="{datatype}" arraysize="{arraysize}"/><FIELD name="k" datatype="int"/>
<DATA><TABLEDATA>
<TR><TD>{first}</TD><TD>1</TD></TR><TR><TD>{second}</TD><TD>2</TD></TR>
</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""


def document(datatype: str, arraysize: str, first: str, second: str, version: str = "1.4") -> VOTableFile:
    """A VOTable of two rows."""
    schema = "1" if version == "1.1" else "3"
    text = DOCUMENT.format(
        datatype=datatype, arraysize=arraysize, first=first, second=second, version=version, schema=schema
    )
    return parse(io.BytesIO(text.encode()))


@pytest.mark.filterwarnings("ignore::astropy.io.votable.exceptions.VOWarning")  # about the text of DOCUMENT
@pytest.mark.parametrize("version", ["1.1", "1.3", "1.4"])
@pytest.mark.parametrize(
    ("datatype", "arraysize", "first", "second"),
    [
        ("float", "*", "1 2 3", "4"),
        ("float", "3*", "1 2 3", "4"),
        ("float", "2x*", "1 2 3 4", "5 6"),
        ("float", "*", "1 NaN", ""),
        ("double", "*", "1 2 3", "4"),
        ("int", "*", "1 2 3", "4"),
        ("short", "*", "1 2 3", "4"),
        ("long", "*", "1 2 3", "4"),
        ("unsignedByte", "*", "1 2 3", "4"),
        ("floatComplex", "*", "1 2 3 4", "5 6"),
        ("boolean", "*", "T F", "T"),
        ("bit", "*", "1 0 1", "1"),
        ("float", "3", "1 2 3", "4 5 6"),
        ("char", "*", "abc", "café"),
        ("char", "8", "abc", "café"),
        ("unicodeChar", "*", "日本", "\U0001f52d"),
        ("unicodeChar", "1", "日", "\U0001f52d"),
    ],
)
def test_cells(datatype: str, arraysize: str, first: str, second: str, version: str) -> None:
    """Arrays of various lengths and texts outside ASCII are read unchanged, and so is the next column."""
    sent = document(datatype, arraysize, first, second, version)
    back = parse(written(to_sendable(sent), TABLE[0])).get_first_table()
    expected = sent.get_first_table().array
    assert [str(cell) for cell in back.array["v"]] == [str(cell) for cell in expected["v"]]
    assert back.array["k"].tolist() == [1, 2]
    assert back.params[0].value == 7


# Elements around the tables

RICH = b"""<?xml version="1.0"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><DESCRIPTION>All</DESCRIPTION>
<PARAM name="ofdoc" datatype="int" value="3"/><INFO name="docinfo" value="i">content</INFO>
<RESOURCE name="outer" ID="R1" type="results" utype="x:y"><DESCRIPTION>Res</DESCRIPTION>
<INFO name="QUERY_STATUS" value="OK"/><COOSYS ID="sys" system="ICRS" epoch="J2015.5"/>
<TIMESYS ID="ts" timeorigin="MJD-origin" timescale="TCB" refposition="BARYCENTER"/>
<GROUP name="resgroup"><PARAM name="gp" datatype="int" value="4"/></GROUP>
<PARAM name="ofres" datatype="char" arraysize="*" value="a  b&#10;c"/><LINK href="http://example.org/r"/>
<RESOURCE type="meta" name="service" utype="adhoc:service">
<PARAM name="url" datatype="char" arraysize="*" value="http://example.org/?a=1&amp;b=&lt;2&gt;"/></RESOURCE>
<TABLE name="t" ID="T1" ucd="meta.table"><DESCRIPTION>First</DESCRIPTION>
<FIELD name="ra" ID="ra" datatype="double" unit="deg" ucd="pos.eq.ra" ref="sys"><LINK href="http://example.org/f"/></FIELD>
<FIELD name="n" ID="n" datatype="int"><VALUES null="-9"/></FIELD>
<PARAM name="epoch" datatype="double" unit="yr" value="2016" ref="ts"/>
<GROUP name="pos"><FIELDref ref="ra"/></GROUP><LINK href="http://example.org/t"/>
<DATA><TABLEDATA><TR><TD>1.5</TD><TD>-9</TD></TR></TABLEDATA></DATA><INFO name="after" value="end"/></TABLE>
<RESOURCE name="inner" type="results"><TABLE name="t2"><FIELD name="b" datatype="char" arraysize="*"/>
<DATA><TABLEDATA><TR><TD>x</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></RESOURCE></VOTABLE>"""
#: Attributes that astropy rewrites, and elements of the rows.
NOT_COMPARED = {"ID", "nrows", "encoding"}
ROWS = {"DATA", "BINARY2", "TABLEDATA", "STREAM", "TR", "TD"}


def elements(text: bytes) -> Counter[Any]:
    """Count the elements of a document, by parent, tag, attributes and text."""
    found: Counter[Any] = Counter()

    def walk(element: Any, parent: str) -> None:
        tag = element.tag.rpartition("}")[2]
        if tag in ROWS:
            return
        attributes = {key: value for key, value in element.attrib.items() if key not in NOT_COMPARED and "}" not in key}
        found[parent, tag, tuple(sorted(attributes.items())), (element.text or "").strip()] += 1
        for child in element:
            walk(child, f"{tag} {element.get('name')}")

    walk(ET.fromstring(text), "")
    return found


def test_a_document_is_sent_unchanged() -> None:
    """All elements and all tables of a document are sent, and the document itself is not modified."""
    rich = parse(io.BytesIO(RICH))
    for obj in (rich, SimpleNamespace(votable=rich)):
        assert elements(written(to_sendable(obj), TABLE[0]).getvalue()) == elements(RICH)
    assert all("name" not in resource.extra_attributes for resource in rich.resources)


def test_a_table_of_a_document_is_sent_with_the_elements_around_it() -> None:
    rich = parse(io.BytesIO(RICH))
    sendable = to_sendable(rich.get_first_table())
    assert sendable.name == "t"
    missing = elements(RICH) - elements(written(sendable, TABLE[0]).getvalue())
    assert {parent for parent, *_ in missing} == {"RESOURCE outer", "RESOURCE inner", "TABLE t2"}
    inner = parse(written(to_sendable(next(iter(rich.resources[0].resources[1].iter_tables()))), TABLE[0]))
    assert [table.name for table in inner.iter_tables()] == ["t2"]
    assert [resource.name for resource in inner.resources[0].resources] == ["service", "inner"]


def test_a_table_element_without_a_document() -> None:
    alone = TableElement.from_table(VOTableFile(), Table({"a": [1, 2]}))
    assert parse(written(to_sendable(alone), TABLE[0])).get_first_table().array["a"].tolist() == [1, 2]


def test_only_one_table_is_written_to_fits() -> None:
    with pytest.warns(SAMPWarning, match="the first of the 2 tables of the document is written"):
        assert len(Table.read(written(to_sendable(parse(io.BytesIO(RICH))), TABLE[1]))) == 1


def test_metadata_of_columns_are_written_to_fits(recwarn: pytest.WarningsRecorder) -> None:
    """Limits, links and UCDs of a received table are sent on in FITS without a warning."""
    text = RICH.replace(b'<VALUES null="-9"/>', b'<VALUES null="-9"><MIN value="1"/></VALUES>')
    table = Table.read(io.BytesIO(text), format="votable", table_id="T1")
    back = Table.read(written(to_sendable(table), TABLE[1]))
    assert back["ra"].meta["ucd"] == "pos.eq.ra"
    assert back["n"].meta["values"]["min"]["value"] == 1
    assert [str(each.message) for each in recwarn if issubclass(each.category, SAMPWarning)] == []


def test_a_document_with_invalid_characters() -> None:
    """Characters that XML does not allow are replaced, and a warning shows them."""
    rich = parse(io.BytesIO(RICH))
    rich.resources[0].infos[0].value = "O\x0bK"
    with pytest.warns(SAMPWarning, match=r"replaced by '\?' in .*QUERY_STATUS.*O\\x0b"):
        back = parse(written(to_sendable(rich), TABLE[0]))
    assert back.resources[0].infos[0].value == "O?K"


# All functions that accept tables


def all_forms(directory: Path) -> list[Any]:
    """Return one table in each form that `send` accepts."""
    table = Table({"ra": [1.5], "name": ["x"]})
    document = VOTableFile.from_table(table)
    formats: list[Any] = [table, QTable(table), table[0], np.asarray(table), document, document.get_first_table(),
                        SimpleNamespace(votable=document), SimpleNamespace(to_table=lambda: table)]  # fmt: skip
    for suffix, format_ in {"vot": "votable", "fits": "fits", "csv": "ascii.csv"}.items():
        path = directory / f"table.{suffix}"
        table.write(path, format=format_)
        formats += [path, str(path), path.as_uri()]
    return [*formats, *([table.to_pandas()] if find_spec("pandas") else [])]


def test_accessible_table_accepts_the_objects_of_send(tmp_path: Path) -> None:
    for obj in all_forms(tmp_path):
        with accessible_table(obj) as url, urllib.request.urlopen(url) as file:
            assert list(Table.read(io.BytesIO(file.read()), format="votable")["ra"]) == [1.5]
    with accessible_table(parse(io.BytesIO(RICH))) as url, urllib.request.urlopen(url) as file:
        assert elements(file.read()) == elements(RICH)
    with pytest.raises(SAMPTypeError, match="is sent as image"), accessible_table(np.ones((2, 2))):
        pass


def test_send_table_to_and_link_accept_the_objects_of_send(pair: Pair, tmp_path: Path) -> None:
    """`send_table_to` sends a VOTable for each object, and `link` counts the rows of each."""
    alice, bob = pair
    reader = Reader(bob, "table.load.votable", "table.load.fits")
    objects = all_forms(tmp_path)
    for obj in objects:
        send_table_to(alice, obj, "bob")
        assert Path(reader.params[-1]["url"].removeprefix("file://")).suffix == ".vot"
    for obj in objects:
        with alice.link(obj) as link:
            assert len(link.selection) == 1
            assert link.report.ok
    assert [list(back["ra"]) for back in reader.loaded] == [[1.5]] * 2 * len(objects)
    with pytest.raises(SAMPTypeError, match="is sent as image"):
        send_table_to(alice, np.ones((2, 2)))
