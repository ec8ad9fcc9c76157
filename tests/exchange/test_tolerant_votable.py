# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""VOTables that astropy's reader rejects or reads incompletely: the package reads all their values."""

from __future__ import annotations

import base64
import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from pyvo.samp import SAMPClientError, SAMPIntegratedClient, SAMPWarning
from pyvo.samp.formats.readers import read_table
from pyvo.samp.formats.registry import to_sendable
from pyvo.samp.formats.tolerant_votable import CHUNK_SIZE, read_votable_with_astropy, with_streams_inline

NUMBERS = '<FIELD name="a" datatype="int"/>'
ROWS = "<DATA><TABLEDATA><TR><TD>1</TD></TR><TR><TD>2</TD></TR></TABLEDATA></DATA>"
Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


def document(content: str, around: str = "<RESOURCE><TABLE>{}</TABLE></RESOURCE>", version: str = "1.4") -> bytes:
    inside = around.format(content)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<VOTABLE version="{version}">{inside}</VOTABLE>'.encode()


@pytest.fixture
def read(tmp_path: Path):
    """Return a function that reads a document given as bytes."""

    def read_bytes(data: bytes) -> Table:
        path = tmp_path / "x.vot"
        path.write_bytes(data)
        return read_votable_with_astropy(path)

    return read_bytes


def in_binary(kind: str, fields: str, rows: list[bytes]) -> bytes:
    data = b"".join((b"\0" if kind == "BINARY2" else b"") + row for row in rows)
    stream = base64.b64encode(data).decode()
    return document(f'{fields}<DATA><{kind}><STREAM encoding="base64">{stream}</STREAM></{kind}></DATA>')


# Texts


def test_param_of_several_texts(read) -> None:
    """A PARAM may be an array of texts. STIL writes two COMMENT cards like this, which astropy rejects (E01)."""
    params = (
        '<PARAM name="COMMENT" datatype="char" arraysize="11x2" value="first      second line"/>'
        '<PARAM name="wide" datatype="unicodeChar" arraysize="3x*" value="äöüab "/>'
        '<PARAM name="one" datatype="char" arraysize="*" value="José"/>'
    )
    table = read(document(params + NUMBERS + ROWS))
    assert table["a"].tolist() == [1, 2]
    assert table.meta["COMMENT"] == ["first", "second line"]
    assert (table.meta["wide"], table.meta["one"]) == (["äöü", "ab"], "José")


def test_columns_of_several_texts(read) -> None:
    """Arrays of texts have a fixed width, so leading blanks count: each text starts at its position."""
    fields = (
        '<FIELD name="two" datatype="char" arraysize="3x2"/><FIELD name="many" datatype="unicodeChar" arraysize="2x*"/>'
        '<FIELD name="grid" datatype="char" arraysize="1x2x2" ucd="meta.id"/>'
    )
    rows = (
        "<DATA><TABLEDATA><TR><TD>one2  </TD><TD>日本de </TD><TD>abcd</TD></TR>"
        "<TR><TD>   <![CDATA[x&]]></TD><TD/><TD>e</TD></TR></TABLEDATA></DATA>"
    )
    table = read(document(fields + rows))
    assert table["two"].tolist() == [["one", "2"], ["", "x&"]]
    assert [cell.tolist() for cell in table["many"]] == [["日本", "de", ""], []]
    assert table["grid"].tolist() == [[["a", "b"], ["c", "d"]], [["e", ""], ["", ""]]]
    assert table["grid"].meta["ucd"] == "meta.id"


@pytest.mark.parametrize("kind", ["BINARY", "BINARY2"])
def test_texts_in_bytes(kind: str, read) -> None:
    """Texts outside ASCII are read as UTF-8, or else as Latin-1. Arrays of texts are split by bytes, not by letters."""
    fields = (
        '<FIELD name="fixed" datatype="char" arraysize="6"/><FIELD name="free" datatype="char" arraysize="*"/>'
        '<FIELD name="one" datatype="char"/><FIELD name="two" datatype="char" arraysize="3x2"/>'
        '<FIELD name="many" datatype="char" arraysize="3x*"/>'
        '<FIELD name="wide" datatype="unicodeChar" arraysize="2x2"/>'
        f'<FIELD name="bound" datatype="unicodeChar" arraysize="8*"/>{NUMBERS}'
    )

    def row(
        fixed: bytes, free: bytes, one: bytes, two: bytes, many: bytes, wide: str, bound: str, number: int
    ) -> bytes:
        return b"".join([
            fixed.ljust(6, b"\0"), struct.pack(">i", len(free)), free, one, two.ljust(6, b"\0"),
            struct.pack(">i", len(many)), many, wide.ljust(4, "\0").encode("utf-16-be"),
            struct.pack(">i", len(bound)), bound.encode("utf-16-be"), struct.pack(">i", number),
        ])  # fmt: skip

    rows = [
        row("é".encode(), "José".encode(), b"x", "éab".encode(), "éab  ".encode(), "日本de", "日", 1),
        row("Ü".encode("latin-1"), "Müller".encode("latin-1"), b"\xe9", b"a\0\0b", b"", "", "", 2),
        row(b"a\0junk", b"", b" ", b"", b"cd", "f", "plain", 3),
    ]
    table = read(in_binary(kind, fields, rows))
    assert table["a"].tolist() == [1, 2, 3]
    assert table["fixed"].tolist() == ["é", "Ü", "a"]
    assert table["free"].tolist() == ["José", "Müller", ""]
    assert table["one"].tolist() == ["x", "é", " "]
    assert table["two"].tolist() == [["éa", "b"], ["a", "b"], ["", ""]]
    assert [cell.tolist() for cell in table["many"]] == [["éa", "b"], [], ["cd"]]
    assert table["wide"].tolist() == [["日本", "de"], ["", ""], ["f", ""]]
    assert table["bound"].tolist() == ["日", "", "plain"]


def test_values_of_a_text_column_in_bytes(read) -> None:
    """VALUES of a text column, such as its null value and minimum, do not prevent reading the column."""
    field = (
        '<FIELD name="s" datatype="char" arraysize="2" unit="m"><DESCRIPTION>Text</DESCRIPTION>'
        '<VALUES null="--"><MIN value="a"/></VALUES></FIELD>'
    )
    table = read(in_binary("BINARY", field, ["é".encode()]))
    assert (table["s"].tolist(), str(table["s"].unit), table["s"].description) == (["é"], "m", "Text")


def test_long_texts_are_not_truncated(read) -> None:
    """Many services write texts that are longer than their field; astropy truncates them without a warning."""
    fields = (
        '<FIELD name="none" datatype="char"/><FIELD name="two" datatype="char" arraysize="2"/>'
        '<FIELD name="bound" datatype="unicodeChar" arraysize="2*"/><FIELD name="odd" datatype="string"/>'
    )
    rows = "<DATA><TABLEDATA><TR><TD>abc</TD><TD>defg</TD><TD>hijk</TD><TD>lmno</TD></TR></TABLEDATA></DATA>"
    assert [str(cell) for cell in read(document(fields + rows))[0]] == ["abc", "defg", "hijk", "lmno"]


# Definitions that astropy rejects


def test_invalid_params(read) -> None:
    params = '<PARAM name="bad" datatype="int" value="none"/><PARAM name="good" datatype="int" value="5"/>'
    with pytest.warns(SAMPWarning, match=r"^PARAM 'bad' is left out: .*'none'$"):
        table = read(document(params + NUMBERS + ROWS))
    assert table["a"].tolist() == [1, 2]
    assert table.meta["good"] == 5
    assert "bad" not in table.meta


@pytest.mark.parametrize(
    "field",
    [
        '<FIELD name="a" datatype="int" unit="m" width="-3"/>',
        '<FIELD name="a" datatype="int" unit="m" precision="Z9"/>',
        '<FIELD name="a" datatype="int" unit="m"><VALUES><MIN value="x"/></VALUES></FIELD>',
        '<FIELD name="a" datatype="int" unit="m"><VALUES><MAX/></VALUES><DESCRIPTION>n</DESCRIPTION></FIELD>',
    ],
)
def test_invalid_definitions_of_a_column(field: str, read) -> None:
    """Invalid parts of the definition of a column are left out; its type and its unit stay."""
    with pytest.warns(SAMPWarning, match="Parts of the definition of FIELD 'a' are left out: "):
        table = read(document(field + ROWS))
    assert table["a"].tolist() == [1, 2]
    assert (table["a"].dtype.kind, str(table["a"].unit)) == ("i", "m")
    assert table["a"].description == ("n" if "DESCRIPTION" in field else None)


@pytest.mark.parametrize("attributes", ['datatype="whatever"', 'datatype="int" arraysize="q"'])
def test_unknown_types(attributes: str, read) -> None:
    with pytest.warns(SAMPWarning, match="FIELD 'a' is read as text: "):
        assert read(document(f'<FIELD name="a" {attributes}/>' + ROWS))["a"].tolist() == ["1", "2"]


# Rows


def test_invalid_cells(read) -> None:
    """Invalid cells are masked; the other cells are read."""
    fields = f'{NUMBERS}<FIELD name="b" datatype="float"/><FIELD name="s" datatype="char" arraysize="*"/>'
    firsts = ["--" if i % 40 == 7 else str(i) for i in range(100)]
    cells = "".join(f"<TR><TD>{firsts[i]}</TD><TD>{i / 2}</TD><TD>&lt;{i}</TD></TR>" for i in range(100))
    with pytest.warns(SAMPWarning, match=r"missing in: FIELD 'a' \(3, such as '--'\)$"):
        table = read(document(f"{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA>"))
    assert table["a"].tolist() == [None if i % 40 == 7 else i for i in range(100)]
    assert table["b"].tolist() == [i / 2 for i in range(100)]
    assert table["s"].tolist() == [f"<{i}" for i in range(100)]


def test_rows_of_various_lengths(read) -> None:
    fields = f'{NUMBERS}<FIELD name="s" datatype="char" arraysize="2x2"/>'
    rows = "<TR><TD>1</TD></TR><TR><TD>2</TD><TD>abcd</TD><TD>?</TD></TR><TR/>"
    with pytest.warns(SAMPWarning, match="rows have more or fewer"):
        table = read(document(f"{fields}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA>"))
    assert table["a"].tolist() == [1, 2, None]
    assert table["s"].tolist() == [["", ""], ["ab", "cd"], ["", ""]]


def test_documents_that_are_not_valid_xml(read) -> None:
    """Bytes in Latin-1 in place of UTF-8, and control characters, are repaired, with a warning."""
    head = '\n<?xml version="1.0"?><VOTABLE><RESOURCE><TABLE><DESCRIPTION>José</DESCRIPTION>'
    text = head + "{}</TABLE></RESOURCE></VOTABLE>"
    rows = "<DATA><TABLEDATA><TR><TD>Mü\x01n&#2;&#x1f;</TD></TR></TABLEDATA></DATA>"
    field = '<FIELD name="s" datatype="char" arraysize="*"/>'
    with pytest.warns(SAMPWarning) as caught:
        table = read(text.format(field + rows).encode("latin-1"))
    assert sorted(str(each.message) for each in caught) == [
        "The document contains characters that XML does not allow: 3 are left out",
        "The document is not in UTF-8: 2 bytes are read as Latin-1",
    ]
    assert (table["s"][0], table.meta["description"]) == ("Mün", "José")
    with pytest.raises(SAMPClientError, match="not a valid XML document"):
        read(b"<VOTABLE><RESOURCE>")


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "windows-1252"])
def test_encodings(encoding: str, read) -> None:
    text = document('<FIELD name="s" datatype="char" arraysize="*"/>' + ROWS.replace("1", "Mü")).decode()
    assert read(text.replace("utf-8", encoding).encode(encoding))["s"].tolist() == ["Mü", "2"]


# Documents of services


def test_several_tables(read) -> None:
    """VizieR sends several RESOURCE elements, some without rows: the first with rows is read, a warning names all."""
    around = (
        '<INFO name="-ref" value="VIZ"/><RESOURCE name="I/239"><RESOURCE type="meta"><TABLE><FIELD name="q" '
        'datatype="int"/></TABLE></RESOURCE><COOSYS ID="J2000" system="eq_FK5"/><TABLE name="hip">{}</TABLE>'
        '<TABLE name="tyc">{}</TABLE></RESOURCE><RESOURCE><TABLE><FIELD name="z" datatype="int"/><DATA><TABLEDATA/>'
        "</DATA></TABLE></RESOURCE>"
    )
    group = '<GROUP name="g"><PARAM name="p" datatype="int" value="3"/><FIELDref ref="a"/></GROUP>'
    field = '<FIELD ID="a" name="a" datatype="int" ref="J2000"><LINK href="http://x/?a=${a}&amp;b"/></FIELD>'
    around = around.replace("{}", group + field + ROWS, 1).replace("{}", NUMBERS + ROWS)
    with pytest.warns(SAMPWarning, match="contains 3 tables: TABLE 'hip' is read, but not TABLE 'tyc', TABLE$"):
        table = read(document(around, "{}"))
    assert table["a"].tolist() == [1, 2]
    assert (table.meta["name"], table.meta["p"]) == ("hip", 3)


SERVICES = {
    "TAP": """<RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/><TABLE>{}</TABLE>
        <INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>""",
    "DataLink": """<RESOURCE type="results"><TABLE>{}</TABLE></RESOURCE><RESOURCE type="meta" utype="adhoc:service">
        <PARAM name="accessURL" datatype="char" arraysize="*" value="https://x"/><GROUP name="inputParams">
        <PARAM name="ID" datatype="char" arraysize="*" value="" ref="a"/></GROUP></RESOURCE>""",
    "Gaia": """<RESOURCE><TIMESYS ID="t" timescale="TCB" refposition="BARYCENTER" timeorigin="2455197.5"/>
        <RESOURCE type="meta"><VODML xmlns="http://www.ivoa.net/xml/mivot"><REPORT status="OK"/></VODML></RESOURCE>
        <TABLE>{}</TABLE></RESOURCE>""",
    "SIMBAD": """<DEFINITIONS><COOSYS ID="J2000" equinox="J2000" system="eq_FK5"/></DEFINITIONS>
        <RESOURCE><TABLE>{}</TABLE></RESOURCE>""",
    "nested": "<RESOURCE><RESOURCE><TABLE>{}</TABLE></RESOURCE></RESOURCE>",
}


@pytest.mark.parametrize("around", SERVICES.values(), ids=SERVICES)
@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3", "1.5"])
def test_documents_of_services(around: str, version: str, read) -> None:
    assert read(document(NUMBERS + ROWS, around, version))["a"].tolist() == [1, 2]


def test_no_table(read) -> None:
    """If a document has no table, the error contains the error message of the service."""
    status = '<INFO name="QUERY_STATUS" value="ERROR">no such column</INFO>'
    with pytest.raises(SAMPClientError, match="contains no table. Error of the service: no such column"):
        read(document(status, "<RESOURCE>{}</RESOURCE>"))


# Rows in other files


def fits_bytes(table: Table) -> bytes:
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table)]).writeto(file)
    return file.getvalue()


@pytest.mark.parametrize("how", ["href", "gzip", "base64"])
@pytest.mark.parametrize("kind", ["BINARY", "FITS"])
def test_rows_in_another_file(kind: str, how: str, tmp_path: Path, pair: Pair) -> None:
    """
    Rows in another file are read, as STIL writes ``votable-binary-href`` and ``votable-fits-inline``.

    The file that is sent contains the rows.
    """
    rows = struct.pack(">ii", 1, 2) if kind == "BINARY" else fits_bytes(Table({"x": np.array([1, 2], dtype="i4")}))
    packed = {"href": lambda data: data, "gzip": gzip.compress, "base64": base64.b64encode}[how](rows)
    (tmp_path / "the rows.bin").write_bytes(packed)
    encoding = "" if how == "href" else f' encoding="{how}"'
    field = '<FIELD name="a" datatype="int" ucd="meta.id" unit="m"/>'
    path = tmp_path / "x.vot"
    path.write_bytes(document(f'{field}<DATA><{kind}><STREAM href="the%20rows.bin"{encoding}/></{kind}></DATA>'))
    table = read_table(path)
    assert table["a"].tolist() == [1, 2]
    assert (table["a"].meta["ucd"], str(table["a"].unit)) == ("meta.id", "m")
    alice, bob = pair
    with bob.incoming("table.load.votable") as queue:
        assert alice.send(path, to="bob").ok
        assert queue.get(10)["a"].tolist() == [1, 2]
    form = to_sendable(path).formats[0]
    assert form.write is not None
    alone = tmp_path / "alone" / "x.vot"
    alone.parent.mkdir()
    with alone.open("wb") as file:
        form.write(file)
    assert read_table(alone)["a"].tolist() == [1, 2]


def test_a_file_without_other_files_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.vot"
    path.write_bytes(in_binary("BINARY2", NUMBERS, [struct.pack(">i", 1)]))
    sendable = to_sendable(path)
    assert (sendable.path, sendable.formats[0].write) == (path, None)


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_a_stream_after_a_long_comment(packed, tmp_path: Path) -> None:
    """A STREAM element is found wherever it is, even across two blocks of the file."""
    (tmp_path / "rows.bin").write_bytes(struct.pack(">i", 1))
    stream = '<STREAM\n type="locator" href="rows.bin"/>'
    start = document(NUMBERS + "<!--").index(b"<!--")
    for length in (CHUNK_SIZE - 20, 2 * CHUNK_SIZE):
        comment = f"<!--{'x' * (length - start)}-->"
        path = tmp_path / f"{length}.vot"
        path.write_bytes(packed(document(f"{NUMBERS}{comment}<DATA><BINARY>{stream}</BINARY></DATA>")))
        made = with_streams_inline(path)
        assert made is not None
        assert b"AAAAAQ==" in made


def test_rows_that_are_not_on_this_machine(tmp_path: Path) -> None:
    """Rows at a URL are left there, for the recipients to fetch; for a missing file the sender gets a warning."""
    path = tmp_path / "x.vot"
    path.write_bytes(document(NUMBERS + '<DATA><BINARY><STREAM href="http://127.0.0.1:9/x"/></BINARY></DATA>'))
    assert to_sendable(path).formats[0].write is None
    with pytest.raises(SAMPClientError, match="come from another source"):
        read_table(path)
    path.write_bytes(document(NUMBERS + '<DATA><BINARY><STREAM href="none.bin"/></BINARY></DATA>'))
    with pytest.warns(SAMPWarning, match="although its rows are in another file: There is no file"):
        assert to_sendable(path).formats[0].write is None


# Sent, linked and received


def test_received(pair: Pair, tmp_path: Path) -> None:
    """The recipient gets a warning about an invalid PARAM; the sender gets ``samp.ok``."""
    alice, bob = pair
    path = tmp_path / "x.vot"
    path.write_bytes(document('<PARAM name="bad" datatype="int" value="none"/>' + NUMBERS + ROWS))
    with bob.incoming("table.load.*") as queue:
        with pytest.warns(SAMPWarning, match="PARAM 'bad' is left out"):
            assert alice.send(path, to="bob").ok
        assert queue.get(10)["a"].tolist() == [1, 2]


GAIA = (
    '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
    '<INFO name="QUERY_STATUS" value="OK"/><COOSYS ID="GAIADR3" epoch="J2016.0" system="ICRS"/>'
    '<TABLE><FIELD name="a" datatype="int" ref="GAIADR3" ucd="meta.id;meta.main"><DESCRIPTION>n</DESCRIPTION></FIELD>'
    '<FIELD name="designation" datatype="char" arraysize="*" xtype="adql:REGION"/>'
    '<FIELD name="flux" datatype="float" arraysize="*" unit="&apos;electron&apos;.s**-1"/>'
    '<DATA><BINARY2><STREAM encoding="base64">{}</STREAM></BINARY2></DATA></TABLE></RESOURCE></VOTABLE>'
)
GAIA_ROWS = b"".join([
    b"\0", struct.pack(">ii", 1, 4), b"Gaia", struct.pack(">iff", 2, 1.5, 2.5),
    b"\x20", struct.pack(">iii", 2, 0, 0),
])  # fmt: skip
ARCHIVES = {name: document(NUMBERS + ROWS, around, "1.3") for name, around in SERVICES.items()}
ARCHIVES["Gaia, BINARY2"] = GAIA.format(base64.b64encode(GAIA_ROWS).decode()).encode()
ARCHIVES["Gaia, packed"] = gzip.compress(ARCHIVES["Gaia, BINARY2"])
ARCHIVES["ECSV"] = b"# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: int32}\n# schema: astropy-2.0\na\n1\n2\n"
ARCHIVES["ECSV, packed"] = gzip.compress(ARCHIVES["ECSV"])
ARCHIVES["FITS, packed"] = gzip.compress(fits_bytes(Table({"a": [1, 2]})))


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES)
@pytest.mark.parametrize("name", ["result", "result.vot", "result.fits"])
def test_files_of_archives_are_sent_and_received(name: str, content: bytes, pair: Pair, tmp_path: Path) -> None:
    """Files of archives can be sent, linked and received, whatever their name and the MType of the message are."""
    alice, bob = pair
    path = tmp_path / name
    path.write_bytes(content)
    with bob.incoming("table.load.*", "table.select.rowList") as queue:
        assert alice.send(path, to="bob").ok
        assert list(queue.get(10)["a"]) == [1, 2]
        with alice.link(path, to="bob") as link:
            assert list(queue.get(10)["a"]) == [1, 2]
            assert link.select([1]).ok
            assert queue.get(10)["row-list"] == ["1"]
        for mtype in ("table.load.fits", "table.load.votable"):
            assert alice.ecall_and_wait("bob", mtype, 10, url=path.as_uri())["samp.status"] == "samp.ok"
            assert list(queue.get(10)["a"]) == [1, 2]
