# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The fast reader of VOTables returns the same table as astropy, or leaves the document to astropy."""

from __future__ import annotations

import base64
import binascii
import gzip
import struct
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astropy.io.votable
import numpy as np
import pytest
from astropy.io.votable import parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvo.samp import SAMPClientError, SAMPWarning
from pyvo.samp.formats import votable_reader
from pyvo.samp.formats.tolerant_votable import element_as_table
from pyvo.samp.formats.votable_reader import read_votable
from pyvo.samp.formats.votable_reader_rows import decode_base64

ASTROPY_DATA = Path(astropy.io.votable.__file__).parent / "tests" / "data"
WHITE_SPACE = ["", " ", "\n", "\t ", "\r\n  "]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_by_astropy(path: Path) -> Any:
    """Read the first table with astropy alone."""
    return element_as_table(parse(path, verify="ignore").get_first_table())


class Reading:
    """Read a document with the fast reader, and record whether it left the document to astropy."""

    def __init__(self, path: Path) -> None:
        self.was_left = False

        def read_with_astropy(file: Path) -> Any:
            self.was_left = True
            return read_by_astropy(file)

        self.table = read_votable(path, read_with_astropy)


def assert_same(fast: Any, slow: Any, flags: dict[str, list[bool]] | None = None) -> None:
    """Compare all parts of two tables; ``flags`` are the null bits of texts in BINARY2, which astropy ignores."""
    assert fast.colnames == slow.colnames
    assert repr(dict(fast.meta)) == repr(dict(slow.meta))
    for name in fast.colnames:
        one, other = fast[name], slow[name]
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
    """Read a document with both readers, and compare the tables or the errors."""
    try:
        slow = read_by_astropy(path)
    except Exception as error:
        with pytest.raises((type(error), SAMPClientError)):
            Reading(path)
        return None
    reading = Reading(path)
    assert_same(reading.table, slow, None if reading.was_left else flags)
    return reading


def check_text(directory: Path, text: str, flags: dict[str, list[bool]] | None = None) -> Reading | None:
    """Write a document to a file, and `check` it."""
    path = directory / "t.vot"
    path.write_text(text, encoding="utf-8", newline="")
    return check(path, flags)


def document(fields: str, data: str, *, version: str = "1.4", table: str = "", tail: str = "", prefix: str = "") -> str:
    """Return a document with one table."""
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
    """Return a TABLEDATA element with the given rows."""
    return f"<TABLEDATA>{''.join(f'<TR>{row(each)}</TR>' for each in cells)}</TABLEDATA>"


def row(cells: list[str]) -> str:
    return "".join(f"<TD>{cell}</TD>" for cell in cells)


# Test data of astropy


@pytest.mark.parametrize("name", sorted(path.name for path in ASTROPY_DATA.glob("*.xml*") if path.suffix != ".parquet"))
def test_documents_of_astropy_give_the_same_table(name: str) -> None:
    """Every VOTable in astropy's test data gives the same table, or an error in both readers."""
    path = ASTROPY_DATA / name
    flags = {"epoch_photometry_url": None} if name == "binary2_masked_strings.xml" else None
    if flags is not None:
        fast, slow = read_votable(path), read_by_astropy(path)
        column = fast["epoch_photometry_url"]
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
    check_text(tmp_path, text)


# Most columns hold numbers of one style, which are converted together. A few cells of another style are among them.
STYLES: dict[str, Any] = {
    "double": [
        st.integers(-(10**6), 10**6).map(str),
        st.integers(-(10**20), 10**20).map(str),
        st.decimals(-360, 360, places=5).map(str),
        st.floats(-1, 1).map(lambda value: f"{value:.17f}"),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.integers(0, 10**15).map(lambda value: f"{value / 1000:+.3f}"),
    ],
    "long": [
        st.integers(0, 99).map(str),
        st.integers(-(2**63), 2**63 - 1).map(str),
        st.integers(0, 10**9).map(lambda value: f"{value:+012d}"),
    ],
}
STYLES["float"] = STYLES["double"]
STYLES["short"] = [st.integers(-(2**15), 2**15 - 1).map(str)]
LONGS = INTEGERS | st.sampled_from(["1.0", ".5", "1e3"])
OTHERS = {"double": NUMBERS, "float": NUMBERS, "long": LONGS, "short": INTEGERS}


@st.composite
def columns_of_one_style(draw: Any) -> str:
    datatypes = draw(st.lists(st.sampled_from(sorted(STYLES)), min_size=1, max_size=4))
    null = draw(st.sampled_from(["", "", "0", "-99"]))
    values = f'<VALUES null="{null}"/>' if null else ""
    fields = "".join(f'<FIELD name="c{number}" datatype="{datatype}">{values}</FIELD>'
                     for number, datatype in enumerate(datatypes))
    count = draw(st.integers(4, 20))
    columns = []
    for datatype in datatypes:
        style = draw(st.sampled_from(STYLES[datatype]))
        cells = draw(st.lists(style, min_size=count, max_size=count))
        for place in draw(st.lists(st.integers(0, count - 1), max_size=3)):
            cells[place] = draw(OTHERS[datatype] | st.sampled_from(["", null, "-0"]))
        columns.append(cells)
    return document(fields, rows(*map(list, zip(*columns, strict=True))), version=draw(st.sampled_from(["1.2", "1.4"])))


@given(text=columns_of_one_style())
@PROPERTY
def test_columns_of_one_style_are_read_as_astropy_reads_them(text: str, tmp_path: Path) -> None:
    """Numbers that are converted together, and others among them, give the same values and masks in both readers."""
    check_text(tmp_path, text)


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
    """Generated documents in BINARY and BINARY2 give the same table, except for the null bits of texts in BINARY2."""
    text, flags = case
    check_text(tmp_path, text, flags)


@given(data=st.binary(max_size=80), changes=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=2))
@settings(max_examples=500)
def test_base64_is_decoded_as_by_the_standard_library(data: bytes, changes: list[tuple[int, int]]) -> None:
    """Lost or changed letters are errors if they are errors for ``binascii``, too."""
    letters = bytearray(base64.b64encode(data))
    for place, code in changes:
        letters[place : place + code % 3] = bytes([code])
    try:
        expected = binascii.a2b_base64(bytes(letters), strict_mode=True)
    except binascii.Error:
        with pytest.raises(binascii.Error):
            decode_base64(bytes(letters))
    else:
        assert decode_base64(bytes(letters)) == expected


# Documents for the fast reader


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ('<FIELD name="a" datatype="double"/><FIELD name="b" datatype="int"/>',
         rows(["1.5", "2"], ["", ""], ["1E-5", "0x1f"])),
        ('<FIELD name="a" datatype="char" arraysize="*"/>', rows(["a &amp; b"], ["é"], [" x "], [""])),
        ('<FIELD name="a" datatype="float" arraysize="2"/><FIELD name="b" datatype="short" arraysize="*"/>',
         rows(["1 2", "1 2 3"], ["NaN 0", ""])),
        ('<FIELD name="a" datatype="boolean"/><FIELD name="b" datatype="bit"/>',
         rows(["T", "1"], ["false", "0"], ["", ""])),
        ('<FIELD name="a" datatype="int"/>', "<TABLEDATA>\r\n <TR>\r\n<TD>1</TD></TR>\t<TR><TD/> </TR></TABLEDATA>"),
    ],
)
def test_ordinary_tabledata_is_not_left_to_astropy(fields: str, data: str, tmp_path: Path) -> None:
    """The fast reader reads numbers, texts, arrays, empty cells and white space, also with a prefix or compressed."""
    path = tmp_path / "t.vot"
    for prefix in ("", "vot"):
        text = document(fields, data, prefix=prefix).encode()
        for content in (text, gzip.compress(text)):
            path.write_bytes(content)
            reading = check(path)
            assert reading is not None
            assert not reading.was_left


def stream(data: bytes, kind: str = "BINARY2") -> str:
    return f'<{kind}><STREAM encoding="base64">{base64.encodebytes(data).decode()}</STREAM></{kind}>'


def test_missing_texts_are_masked(tmp_path: Path) -> None:
    """Null bits of BINARY2 count for texts, too: missing texts are masked, and empty texts are not."""
    path = tmp_path / "t.vot"
    data = b"".join(flags + struct.pack(">I", len(text)) + text for flags, text in
                    ((b"\x80", b""), (b"\0", b""), (b"\0", b"abc")))
    path.write_text(document('<FIELD name="a" datatype="char" arraysize="*"/>', stream(data)))
    reading = Reading(path)
    assert not reading.was_left
    assert reading.table["a"].mask.tolist() == [True, False, False]
    assert reading.table["a"].tolist() == [None, "", "abc"]


def test_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and letters that are split between two blocks are joined; the columns grow."""
    fields = ('<FIELD name="a" datatype="char" arraysize="*"/><FIELD name="b" datatype="long"/>'
              '<FIELD name="c" datatype="float" arraysize="*"/>')
    texts = ["x" * (number % 40) for number in range(500)]
    path = tmp_path / "t.vot"
    data = b"".join(
        b"\0" + struct.pack(">I", len(text)) + text.encode() + struct.pack(">q", number)
        + struct.pack(f">I{number % 3}f", number % 3, *range(number % 3))
        for number, text in enumerate(texts)
    )
    cells = [[text, str(number), " ".join(map(str, range(number % 3)))] for number, text in enumerate(texts)]
    for body in (stream(data), rows(*cells)):
        path.write_text(document(fields, body))
        for size in (7, 64, 1000):
            monkeypatch.setattr(votable_reader, "BLOCK_SIZE", size)
            reading = check(path)
            assert reading is not None
            assert not reading.was_left
            assert reading.table["b"].tolist() == list(range(500))


@pytest.mark.parametrize("datatype", ["double", "float"])
@pytest.mark.parametrize("other", ["", "NaN", "1e-5", "-1e30", "-0", "0.5"])
def test_floats_without_a_decimal_point(datatype: str, other: str, tmp_path: Path) -> None:
    """Cells that look like integers are floats, too: missing values, exponents and minus zero keep their values."""
    cells = rows(["1"], ["20"], [other], ["123456789012"])
    reading = check_text(tmp_path, document(f'<FIELD name="a" datatype="{datatype}"/>', cells))
    assert reading is not None
    assert not reading.was_left
    if not other:
        assert reading.table["a"].mask.tolist() == [False, False, True, False]


@pytest.mark.parametrize("cell", ["1.0", "1.5", ".5"])
def test_integers_with_a_decimal_point(cell: str, tmp_path: Path) -> None:
    """Such a cell is not an integer: it is masked, and the identifiers in the other column keep all their digits."""
    path = tmp_path / "t.vot"
    path.write_text(document('<FIELD name="a" datatype="long"/><FIELD name="b" datatype="int"/>',
                             rows(["9007199254740993", "1"], ["4295806720000000001", cell])))
    with pytest.warns(SAMPWarning, match="FIELD 'b'"):
        table = read_votable(path)
    assert table["a"].tolist() == [9007199254740993, 4295806720000000001]
    assert table["b"].tolist() == [1, None]


def test_numbers_are_rounded_as_by_python(tmp_path: Path) -> None:
    """Decimal numbers near the middle between two doubles become the same double as with Python's ``float``."""
    rng = np.random.default_rng(3)
    texts = [f"{value:.{digits}f}" for value, digits in
             zip(rng.normal(size=3000) * 10.0 ** rng.integers(0, 8, 3000), rng.integers(1, 17, 3000), strict=True)]
    for mantissa in rng.integers(2**53, 2**54, 2000) | 1:
        place = int(rng.integers(0, 16))
        texts.append(f"{str(mantissa)[:place]}.{str(mantissa)[place:]}")
    path = tmp_path / "t.vot"
    path.write_text(document('<FIELD name="a" datatype="double"/>', rows(*([text] for text in texts))))
    reading = Reading(path)
    assert not reading.was_left
    assert reading.table["a"].tolist() == [float(text) for text in texts]


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    """The progress callback gets the number of all bytes of the file."""
    path = tmp_path / "t.vot"
    path.write_text(document('<FIELD name="a" datatype="int"/>', rows(*([str(number)] for number in range(100)))))
    counts: list[int] = []
    read_votable(path, note=counts.append)
    assert sum(counts) == path.stat().st_size


# Broken and hostile documents


def broken(path: Path, text: str | bytes, match: str) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    tracemalloc.start()
    try:
        with pytest.raises(SAMPClientError, match=match):
            read_votable(path)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


LONG = '<FIELD name="a" datatype="long"/>'


def test_truncated_documents(tmp_path: Path) -> None:
    """A document or a stream that ends too early is an error, not a shorter table."""
    path = tmp_path / "t.vot"
    for whole in (document(LONG, rows(*(["1"] for _ in range(100)))), document(LONG, stream(bytes(900)))):
        broken(path, whole[: len(whole) * 2 // 3], "cut off")
    broken(path, document(LONG, stream(bytes(895))), "cut off")
    packed = gzip.compress(document(LONG, stream(np.random.default_rng(1).bytes(900_000))).encode())
    broken(path, packed[:-20], "broken")
    broken(path, packed[:50_000] + bytes(100) + packed[50_100:], "broken")


def test_invalid_base64(tmp_path: Path) -> None:
    """Letters that base64 does not have are an error; they are not skipped."""
    path = tmp_path / "t.vot"
    text = document(LONG, stream(bytes(900)))
    broken(path, text.replace("AAAA", "A*AA", 1), "base64")
    broken(path, text.replace("AAAA", "AA==", 1), "base64")
    broken(path, document(LONG, '<BINARY><STREAM encoding="base64">AAAAA</STREAM></BINARY>'), "base64")


def test_a_wrong_number_of_rows(tmp_path: Path) -> None:
    """A wrong ``nrows`` allocates no memory: a small one is ignored, an impossible one is an error."""
    path = tmp_path / "t.vot"
    broken(path, document(LONG, rows(["1"]), table=' nrows="1000000000000"'), "rows")
    broken(path, document(LONG, rows(["1"]), table=f' nrows="{"9" * 5000}"'), "rows")
    broken(path, document(LONG, rows(["1"]) + "<!-- -->", table=' nrows="1000000000000"'), "rows")
    path.write_text(document(LONG, rows(["1"]), table=' nrows="30000"'))
    assert len(read_votable(path)) == 1


def test_a_wrong_length_of_a_cell(tmp_path: Path) -> None:
    """A text with a stated length of four thousand million letters allocates no memory."""
    broken(tmp_path / "t.vot",
           document('<FIELD name="a" datatype="char" arraysize="*"/>', stream(b"\0\xff\xff\xff\xff" + bytes(900))),
           "cut off")


def test_a_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small compressed file that contains a huge document is an error, even if it is left to astropy."""
    monkeypatch.setattr(votable_reader, "MAX_DECOMPRESSED", 1_000_000)
    path = tmp_path / "t.vot"
    for data in (rows(*(["1"] for _ in range(300_000))), "<!-- -->" + rows(*(["1"] for _ in range(300_000)))):
        broken(path, gzip.compress(document(LONG, data).encode()), "compressed")
    broken(path, gzip.compress(document(LONG, stream(bytes(900_000 * 9))).encode()), "compressed")


def test_nested_entities(tmp_path: Path) -> None:
    """Nested entities (the "billion laughs") cause an error of the parser, in little memory."""
    path = tmp_path / "t.vot"
    levels = "".join(f'<!ENTITY e{n} "{10 * ("&e" + str(n - 1) + ";")}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE VOTABLE [<!ENTITY e0 "1234567890">{levels}]>'
    path.write_text(document(LONG, rows(["&e9;"])).replace("<VOTABLE", doctype + "<VOTABLE"))
    tracemalloc.start()
    try:
        with pytest.raises(SAMPClientError, match="amplification"):
            read_votable(path)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_a_document_without_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document in which no table starts is not read beyond MAX_HEAD."""
    monkeypatch.setattr(votable_reader, "MAX_HEAD", 100_000)
    broken(tmp_path / "t.vot", f"<VOTABLE><RESOURCE>{'<INFO/>' * 100_000}", "no row")
