# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The quick reader of VOTables gives what astropy gives, or leaves the document to astropy."""

from __future__ import annotations

import base64
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astropy.io.votable
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvo.samp import SAMPClientError
from pyvo.samp.exchange import votable_reader
from pyvo.samp.exchange.votable_reader import read_votable, read_votable_with_astropy

ASTROPY_DATA = Path(astropy.io.votable.__file__).parent / "tests" / "data"
WHITE_SPACE = ["", " ", "\n", "\t ", "\r\n  "]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Reading:
    """Read a document by the quick reader, and tell whether it left it to astropy."""

    def __init__(self, path: Path) -> None:
        self.was_left = False

        def left(file: Path) -> Any:
            self.was_left = True
            return read_votable_with_astropy(file)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(votable_reader, "read_votable_with_astropy", left)
            self.table = read_votable(path)


def assert_same(quick: Any, slow: Any, flags: dict[str, list[bool]] | None = None) -> None:
    """Compare two tables in all they have; ``flags`` are BINARY2's bits of texts, which astropy does not heed."""
    assert quick.colnames == slow.colnames
    assert repr(dict(quick.meta)) == repr(dict(slow.meta))
    for name in quick.colnames:
        one, other = quick[name], slow[name]
        assert type(one) is type(other), name
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        for key in ("unit", "description", "format", "fill_value"):
            assert repr(getattr(one, key)) == repr(getattr(other, key)), (name, key)
        assert repr(one.meta) == repr(other.meta), name
        mask = np.ma.getmaskarray(other)
        if flags is not None and name in flags:
            mask = np.array(flags[name], dtype=bool)
        assert (np.ma.getmaskarray(one) == mask).all(), name
        for value, expected, missing in zip(np.ma.getdata(one), np.ma.getdata(other), mask, strict=True):
            if np.all(missing):
                continue
            if isinstance(expected, np.ma.MaskedArray):
                assert type(value) is type(expected), name
                assert value.dtype == expected.dtype, name
                assert value.shape == expected.shape, name
                assert (np.ma.getmaskarray(value) == np.ma.getmaskarray(expected)).all(), name
            elif one.dtype.kind == "O":
                assert type(value) is type(expected), name
            one_bits, other_bits = (np.ma.filled(np.ma.array(each, mask=missing)) for each in (value, expected))
            assert repr(one_bits) == repr(other_bits), name


def check(path: Path, flags: dict[str, list[bool]] | None = None) -> Reading | None:
    """Read a document in both ways, and compare what comes out, be it an error."""
    try:
        slow = read_votable_with_astropy(path)
    except Exception as error:
        with pytest.raises((type(error), SAMPClientError)):
            Reading(path)
        return None
    reading = Reading(path)
    assert_same(reading.table, slow, None if reading.was_left else flags)
    return reading


def document(fields: str, data: str, *, version: str = "1.4", table: str = "", tail: str = "", prefix: str = "") -> str:
    """A document of one table."""
    text = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<VOTABLE version="{version}" '
        f'xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n<RESOURCE><TABLE name="t"{table}>\n'
        f'<PARAM name="p" datatype="int" value="7"/>\n{fields}\n<DATA>{data}</DATA>{tail}</TABLE></RESOURCE></VOTABLE>'
    )
    if not prefix:
        return text
    return (
        text.replace("</", "\0").replace("<", f"<{prefix}:").replace("\0", f"</{prefix}:")
        .replace(f"<{prefix}:?xml", "<?xml").replace(f"<{prefix}:!", "<!").replace("xmlns=", f"xmlns:{prefix}=")
    )


def rows(*cells: list[str]) -> str:
    """TABLEDATA of some rows."""
    return f"<TABLEDATA>{''.join(f'<TR>{row(each)}</TR>' for each in cells)}</TABLEDATA>"


def row(cells: list[str]) -> str:
    return "".join(f"<TD>{cell}</TD>" for cell in cells)


# What astropy has itself


@pytest.mark.parametrize("name", sorted(path.name for path in ASTROPY_DATA.glob("*.xml*") if path.suffix != ".parquet"))
def test_all_documents_of_astropy_are_read_alike(name: str) -> None:
    """Every VOTable in astropy's test data gives the same table, or an error in both readers."""
    path = ASTROPY_DATA / name
    flags = {"epoch_photometry_url": None} if name == "binary2_masked_strings.xml" else None
    if flags is not None:
        quick, slow = read_votable(path), read_votable_with_astropy(path)
        column = quick["epoch_photometry_url"]
        assert np.ma.getmaskarray(column).any()
        assert not np.ma.getmaskarray(slow["epoch_photometry_url"]).any()
        assert all(text == "" for text in np.ma.getdata(slow["epoch_photometry_url"])[column.mask])
        return
    check(path)


# Generated documents

NUMBERS = st.one_of(
    st.floats(allow_nan=False, width=64).map(repr),
    st.floats(-1000, 1000).map(repr),
    st.decimals(-10**6, 10**6, places=6).map(str),
    st.sampled_from(["0", "-0.0", "-.5", "5.", "+1.5", "1e5", "1E-300", "NaN", "nan", "", "Infinity", "-InF", "1_0",
                     "null", "-99.5", "0.1", "9007199254740993.0", "9007199254740992.5",
                     "123456789012345678901234567890", "0.000000000000000000000000000012345", "1.7976931348623157",
                     "2.2250738585072011e-308", ".", "-"]),
)
INTEGERS = st.one_of(
    st.integers(-(2**15), 2**15 - 1).map(str),
    st.sampled_from(["0", "-1", "+5", "0x1f", "", "NaN", "1_0", "-32768", "32767", "007"]),
)
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="<&\r", exclude_categories=["Cc", "Cs"]), max_size=8),
    st.sampled_from(["", " ", "a b", " x ", "&amp;", "a&lt;b", "&#65;&#x42;", "&quot;&apos;", "é", "]]", "a>b",
                     "&#32;", "日本"]),
)
BOOLEAN = st.sampled_from(["T", "F", "true", "FALSE", "1", "0", "?", "", "tRue"])


def text_column(datatype: str) -> st.SearchStrategy[tuple[str, Any]]:
    return st.sampled_from(["*", "1", "3", "5*", ""]).map(
        lambda size: (f'datatype="{datatype}"' + (f' arraysize="{size}"' if size else ""), TEXTS)
    )


def number_column(datatype: str, cells: Any, nulls: list[str]) -> st.SearchStrategy[tuple[str, Any]]:
    def made(size: str, null: str) -> tuple[str, Any]:
        attributes = f'datatype="{datatype}"' + (f' arraysize="{size}"' if size else "")
        if null:
            attributes += f'><VALUES null="{null}"/></FIELD'
        whole = cells.filter(lambda cell: cell.strip() not in {"", "null", ".", "-"})
        if not size:
            return attributes, cells
        if size == "*":
            return attributes, st.one_of(st.just(""), st.lists(whole, max_size=4).map(" ".join))
        items = int(np.prod([int(part) for part in size.split("x")]))
        return attributes, st.one_of(st.just(""), st.lists(whole, min_size=items, max_size=items).map(" ".join))

    return st.builds(made, st.sampled_from(["", "", "", "2", "2x2", "*", "1"]), st.sampled_from(["", *nulls]))


COLUMNS = st.one_of(
    number_column("double", NUMBERS, ["-99.5", "0"]),
    number_column("float", NUMBERS, ["-99.5", "0.1"]),
    number_column("short", INTEGERS, ["-1", "0"]),
    number_column("long", INTEGERS, ["-32768"]),
    number_column("unsignedByte", st.integers(0, 255).map(str) | st.just(""), ["255"]),
    number_column("boolean", BOOLEAN.filter(lambda cell: cell != "?"), []),
    st.sampled_from(["", "3", "2x2"]).map(
        lambda size: ('datatype="bit"' + (f' arraysize="{size}"' if size else ""),
                      st.text("01", min_size={"": 1, "3": 3}.get(size, 4), max_size={"": 1, "3": 3}.get(size, 4)))
    ),
    st.just(('datatype="doubleComplex"', st.sampled_from(["1 2", "", "nan", "0.5 -1"]))),
    text_column("char"),
    text_column("unicodeChar"),
)


@st.composite
def tabledata(draw: Any) -> str:
    columns = draw(st.lists(COLUMNS, min_size=1, max_size=5))
    fields = []
    for number, (attributes, _) in enumerate(columns):
        end = ">" if attributes.endswith("</FIELD") else "/>"
        fields.append(f'<FIELD name="c{number}" ucd="meta.id" unit="km" {attributes}{end}')
    count = draw(st.integers(0, 6))
    space = draw(st.sampled_from(WHITE_SPACE))
    written = []
    for _ in range(count):
        cells = []
        for _, cell in columns:
            text = draw(cell)
            if not text and draw(st.booleans()):
                cells.append("<TD/>")
            else:
                before = draw(st.sampled_from(WHITE_SPACE)) if draw(st.integers(0, 5)) == 0 else ""
                cells.append(f"<TD>{before}{text}</TD>")
        written.append(f"<TR>{space}{space.join(cells)}{space}</TR>{space}")
    odd = draw(st.sampled_from(["", "", "", "", "<!-- <TR> -->", "<?x y?>", "<TR><TD><![CDATA[1]]></TD></TR>"]))
    data = f"<TABLEDATA>{space}{''.join(written)}{odd}</TABLEDATA>"
    return document(
        "\n".join(fields), data,
        version=draw(st.sampled_from(["1.1", "1.2", "1.3", "1.4"])),
        table=draw(st.sampled_from(["", f' nrows="{count}"', ' nrows="3"'])),
        tail=draw(st.sampled_from(["", '<INFO name="i" value="v"/>', "<!-- tail -->"])),
        prefix=draw(st.sampled_from(["", "", "vot"])),
    )


PROPERTY = settings(
    max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@given(text=tabledata())
@PROPERTY
def test_tabledata_is_read_as_astropy_reads_it(text: str, tmp_path: Path) -> None:
    """Generated documents in TABLEDATA give the same table in both readers."""
    path = tmp_path / "t.vot"
    path.write_bytes(text.encode())
    check(path)


FIXED: dict[str, tuple[str, int]] = {
    "double": (">f8", 8), "float": (">f4", 4), "short": (">i2", 2), "int": (">i4", 4), "long": (">i8", 8),
    "unsignedByte": ("u1", 1), "floatComplex": (">c8", 8), "doubleComplex": (">c16", 16),
}  # fmt: skip


@st.composite
def binary(draw: Any) -> tuple[str, dict[str, list[bool]] | None]:
    kind = draw(st.sampled_from(["BINARY", "BINARY2"]))
    count = draw(st.integers(0, 6))
    columns = draw(st.lists(
        st.tuples(
            st.sampled_from([*FIXED, "boolean", "bit", "char", "unicodeChar"]),
            st.sampled_from(["", "", "", "1", "3", "2x2", "*", "4*"]),
            st.sampled_from(["", "", "0", "1"]),
        ), min_size=1, max_size=10,
    ))
    fields, parts = [], []
    for number, (datatype, given_size, null) in enumerate(columns):
        size = "3" if "x" in given_size and datatype in {"char", "unicodeChar"} else given_size
        size = "1" if datatype in {"char", "unicodeChar"} and not size else size
        attributes = f'name="c{number}" datatype="{datatype}"' + (f' arraysize="{size}"' if size else "")
        if null and datatype in FIXED and "Complex" not in datatype:
            fields.append(f'<FIELD {attributes}><VALUES null="{null}"/></FIELD>')
        else:
            fields.append(f"<FIELD {attributes}/>")
        items = None if "*" in size else int(np.prod([int(part) for part in size.split("x")])) if size else 1
        parts.append([draw(cell(datatype, items, is_array=bool(size))) for _ in range(count)])
    flags = [[draw(st.booleans()) and draw(st.booleans()) for _ in columns] for _ in range(count)]
    stream = b""
    for number in range(count):
        if kind == "BINARY2":
            stream += np.packbits(np.array(flags[number], dtype=bool)).tobytes()
        stream += b"".join(part[number] for part in parts)
    letters = base64.encodebytes(stream) if draw(st.booleans()) else base64.b64encode(stream)
    data = f'<{kind}><STREAM encoding="base64">{letters.decode()}</STREAM></{kind}>'
    missing = None
    if kind == "BINARY2":
        missing = {f"c{number}": [flags[each][number] for each in range(count)]
                   for number, (datatype, *_) in enumerate(columns) if datatype in {"char", "unicodeChar"}}
    return document("\n".join(fields), data, prefix=draw(st.sampled_from(["", "v"]))), missing


@st.composite
def cell(draw: Any, datatype: str, items: int | None, *, is_array: bool) -> bytes:
    count = draw(st.integers(0, 3)) if items is None else items
    head = struct.pack(">I", count) if items is None else b""
    if datatype in FIXED:
        code, size = FIXED[datatype]
        plain = np.array([draw(st.integers(0, 3)) for _ in range(count)], dtype=code).tobytes()
        return head + (draw(st.binary(min_size=count * size, max_size=count * size)) if draw(st.booleans()) else plain)
    if datatype == "boolean":
        return head + bytes(draw(st.lists(st.sampled_from(b"TtFf10? \0"), min_size=count, max_size=count)))
    if datatype == "bit":
        length = (count + 7) // 8 if items is not None and is_array else count
        return head + draw(st.binary(min_size=length, max_size=length))
    some = "ab \0" if datatype == "char" else "ab \0é日"
    letters = draw(st.lists(st.sampled_from(some), min_size=count, max_size=count))
    return head + "".join(letters).encode("ascii" if datatype == "char" else "utf-16-be")


@given(case=binary())
@PROPERTY
def test_binary_is_read_as_astropy_reads_it(case: tuple[str, dict[str, list[bool]] | None], tmp_path: Path) -> None:
    """Generated documents in BINARY and BINARY2 give the same table, but for BINARY2's bits of texts."""
    text, flags = case
    path = tmp_path / "t.vot"
    path.write_bytes(text.encode())
    check(path, flags)
