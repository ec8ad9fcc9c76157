# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Columns of all kinds in both table formats: how they are written, and that masked values are not disclosed."""

from __future__ import annotations

import base64
import datetime as dt
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.io import fits
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.time import Time, TimeDelta
from astropy.utils import minversion
from astropy.utils.masked import Masked

from pyvo.samp import SAMPTypeError, SAMPWarning
from pyvo.samp.formats.fits_tables import write_fits_table
from pyvo.samp.formats.readers import read_table
from pyvo.samp.formats.votable_writer import write_votable

Through = Callable[[Any], Table]
WRITERS = {"votable": write_votable, "fits": write_fits_table}


@pytest.fixture(params=["votable", "fits"])
def through(request: pytest.FixtureRequest, tmp_path: Path) -> Through:
    """Write a table in one of the formats, and read it like a received table."""

    def go(table: Any) -> Table:
        path = tmp_path / "table"
        with path.open("wb") as file:
            WRITERS[request.param](table, file)
        with warnings.catch_warnings():  # as for received tables: the recipient cannot change an invalid file
            warnings.simplefilter("ignore")
            return read_table(path)

    go.format = request.param  # type: ignore[attr-defined]
    return go


def objects(*cells: Any) -> np.ndarray:
    """Return a column of objects."""
    column = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        column[row] = cell
    return column


def require_null_in_arrays(through: Through) -> None:
    """Skip a test if astropy writes no TNULL for arrays of integers to FITS."""
    if through.format == "fits" and not minversion("astropy", "7.0"):  # type: ignore[attr-defined]
        pytest.skip("this astropy marks no element of an array of integers as missing")


# Masked values


MASKED = {
    "text": MaskedColumn(["secret", "b"], mask=[True, False]),
    "wide": MaskedColumn(["sécret", "b"], mask=[True, False]),
    "bytes": MaskedColumn([b"secret", b"b"], mask=[True, False]),
    "int": MaskedColumn([0x5EC12E7, 1], mask=[True, False], dtype="i4"),
    "float": MaskedColumn([1.2345, 1], mask=[True, False]),
    "ints": MaskedColumn([[0x5EC12E7, 1], [2, 3]], mask=[[True, False], [False, False]], dtype="i4"),
    "time": Time(MaskedColumn([51544.5, 59000.5], mask=[True, False]), format="mjd"),
    "date": MaskedColumn(np.array(["2001-02-03", "2020-01-01"], "M8[D]"), mask=[True, False]),
}
HIDDEN = [b"secret", b"s\0\xe9\0c\0r"[::-1], "sécret".encode("utf-16-be"), b"\x05\xec\x12\xe7", b"2000", b"2001-02"]


def content(format_: str, table: Any) -> bytes:
    """Return the data of the file, with base64 decoded."""
    file = io.BytesIO()
    WRITERS[format_](table, file)
    data = file.getvalue()
    if format_ == "votable":
        stream = re.search(rb'base64">(.*)</STREAM>', data, re.DOTALL)
        assert stream is not None
        return base64.decodebytes(stream[1])
    return data[2880:]


@pytest.mark.parametrize(
    ("kind", "format_"),
    # FITS has no texts outside ASCII
    [(kind, format_) for kind in sorted(MASKED) for format_ in WRITERS if (kind, format_) != ("wide", "fits")],
)
@pytest.mark.parametrize("beside", [[1, 2], objects(np.ones(2), np.ones(1))])
def test_masked_values_are_not_in_the_file(kind: str, format_: str, beside: Any) -> None:
    """The file does not contain the data below the mask, whether the package or astropy writes the table."""
    data = content(format_, QTable({"x": MASKED[kind], "y": beside}))
    assert not [hidden for hidden in HIDDEN if hidden in data]
    assert np.float64(1.2345).astype(">f8").tobytes() not in data


@pytest.mark.parametrize("kind", ["int", "float", "ints"])
def test_masked_values_are_read_as_masked(through: Through, kind: str) -> None:
    if kind == "ints":
        require_null_in_arrays(through)
    for beside in ([1, 2], objects(np.ones(2), np.ones(1))):
        back = through(Table({"x": MASKED[kind], "y": beside}))["x"]
        assert np.ma.getmaskarray(back).tolist() == np.ma.getmaskarray(MASKED[kind]).tolist()
        assert back[1].tolist() == MASKED[kind][1].tolist()


@pytest.mark.parametrize("kind", ["text", "bytes", "time", "date"])
def test_masked_texts_are_read_as_empty(through: Through, kind: str) -> None:
    """Readers of VOTables, such as astropy, ignore that a text is missing, and read an empty text."""
    back = through(QTable({"x": MASKED[kind]}))["x"]
    assert str(np.ma.filled(back, b"" if back.dtype.kind == "S" else "")[0]).strip("b'") == ""
    assert str(back[1]) != ""


def test_logical_columns(through: Through) -> None:
    """Missing logical values are read as missing, also from FITS."""
    flags = MaskedColumn([True, True, False], mask=[False, True, False], description="Flags")
    arrays = MaskedColumn([[True, True], [True, False], [False, False]], mask=[[0, 1], [0, 0], [0, 0]])
    back = through(Table({"n": [1, 2, 3], "x": flags, "v": arrays}))
    assert back["x"].dtype == bool
    assert back["x"].tolist() == [True, None, False]
    if through.format == "fits":  # type: ignore[attr-defined]
        assert back["v"].tolist() == [[True, None], [True, False], [False, False]]
    assert back["x"].description == "Flags"
    assert back["n"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8"])
def test_integers(through: Through, kind: str) -> None:
    """No integer is changed or read as missing, whichever value marks the missing ones."""
    limits = np.iinfo(kind)
    values = np.array([limits.min, 0, limits.max, 99], dtype=kind)
    for mask in ([False] * 4, [False, True, False, False]):
        back = through(Table({"x": MaskedColumn(values, mask=mask), "y": values}))
        assert back["x"].tolist() == [None if hole else int(n) for n, hole in zip(values, mask, strict=True)]
        assert back["y"].tolist() == values.tolist()


def test_integers_that_use_all_values(through: Through) -> None:
    """If a column uses all values of its type, it gets a wider type, which has a value for missing elements."""
    require_null_in_arrays(through)
    values = np.ma.array(np.arange(258).reshape(129, 2) % 256, dtype="u1")
    values[128, 0] = np.ma.masked
    back = through(Table({"x": MaskedColumn(values)}))["x"]
    assert np.ma.getmaskarray(back).sum() == 1
    assert back[:128].ravel().tolist() == list(range(256))


def test_the_fill_value_of_astropy_is_a_valid_value(through: Through) -> None:
    back = through(Table({"x": MaskedColumn([999999, 5], mask=[False, True]), "y": MaskedColumn([999999, 5])}))
    assert back["x"].tolist() == [999999, None]
    assert back["y"].tolist() == [999999, 5]


# Mixin columns


def test_positions_with_distance_and_motion(through: Through) -> None:
    """Distance and motion become columns, too; the description names the frame of the original position."""
    positions = SkyCoord(
        l=[10, 20] * u.deg, b=[30, 40] * u.deg, distance=[1, 2] * u.kpc, pm_l_cosb=[3, 4] * u.mas / u.yr,
        pm_b=[5, 6] * u.mas / u.yr, radial_velocity=[7, 8] * u.km / u.s, frame="galactic",
    )  # fmt: skip
    back = through(QTable({"c": positions}))
    expected = positions.icrs
    for name, values in {
        "ra": expected.ra, "dec": expected.dec, "distance": expected.distance, "pm_ra_cosdec": expected.pm_ra_cosdec,
        "pm_dec": expected.pm_dec, "radial_velocity": expected.radial_velocity,
    }.items():  # fmt: skip
        assert u.allclose(back[f"c.{name}"].quantity, values), name
        assert back[f"c.{name}"].description == "ICRS, from galactic"
    assert through(QTable({"c": SkyCoord([1], [2], unit="deg")})).colnames == ["c.ra", "c.dec"]
    slow = SkyCoord([1] * u.deg, [2] * u.deg, pm_ra_cosdec=[1] * u.mas / u.yr, pm_dec=[2] * u.mas / u.yr)
    assert through(QTable({"c": slow})).colnames == ["c.ra", "c.dec", "c.pm_ra_cosdec", "c.pm_dec"]


def test_times(through: Through) -> None:
    """Times have nanoseconds if the column needs them. Local times are not converted to UTC."""
    fine = Time(["2020-01-01T12:34:56.123456789", "2020-01-01"])
    back = through(QTable({"t": fine, "ms": Time(["2020-01-01T00:00:00.5", "2020-01-01"]),
                           "l": Time(["2020-01-01", "2020-01-02"], scale="local")}))
    assert [str(text) for text in back["t"]] == ["2020-01-01T12:34:56.123456789", "2020-01-01T00:00:00.000000000"]
    assert str(back["ms"][0]) == "2020-01-01T00:00:00.500"
    assert str(back["l"][1]) == "2020-01-02T00:00:00.000"
    assert fine.precision == 3


def test_differences_of_times(through: Through) -> None:
    back = through(QTable({"d": TimeDelta([1, 2] * u.d), "s": TimeDelta([30, 60], format="sec"),
                           "m": np.array([1500, 2000], dtype="m8[ms]")}))
    assert (back["d"].tolist(), back["d"].unit) == ([1, 2], u.d)
    assert (back["s"].tolist(), back["s"].unit) == ([30, 60], u.s)
    assert (back["m"].tolist(), back["m"].unit) == ([1.5, 2], u.s)


def test_dates(through: Through) -> None:
    back = through(Table({"x": np.array(["2020-01-01T12:00", "NaT"], dtype="M8[s]")}))["x"]
    assert [str(text) for text in np.ma.filled(back, "")] == ["2020-01-01T12:00:00", ""]


def test_records(through: Through) -> None:
    """Each field of a structured column or of a mixin such as EarthLocation becomes a column."""
    places = EarthLocation.from_geodetic([1, 2], [4, 5])
    back = through(QTable({"where": places, "r": Column(np.array([(1, 2.5), (3, 4.5)], dtype="i4,f8"))}))
    assert u.allclose(back["where.y"].quantity, places.y)
    assert back["r.f1"].tolist() == [2.5, 4.5]


def test_masked_quantities(through: Through) -> None:
    back = through(QTable({"x": Masked([1.0, 2] * u.m, mask=[True, False])}))["x"]
    assert np.isnan(np.ma.filled(back, np.nan)).tolist() == [True, False]
    assert back.unit == u.m


def test_wide_floats(through: Through) -> None:
    back = through(Table({"x": np.array([1.5, 2], dtype="f16"), "y": np.array([1.5, 2], dtype="f2")}))
    assert back["x"].tolist() == back["y"].tolist() == [1.5, 2]


# Objects


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        ((1, None, 3), [1, None, 3]),
        ((1, 2.5, None), [1, 2.5, None]),
        ((True, None, False), [True, None, False]),
        ((np.int16(1), 2, np.ma.masked), [1, 2, None]),
    ],
)
def test_objects_that_are_numbers(through: Through, cells: tuple[Any, ...], read: list[Any]) -> None:
    assert through(Table({"x": objects(*cells)}))["x"].tolist() == read


def test_objects_that_are_texts(through: Through) -> None:
    back = through(Table({"x": objects("aa", None, "b"), "y": objects(b"aa", None, b"b")}))
    for name in ("x", "y"):
        texts = np.ma.filled(back[name], b"" if back[name].dtype.kind == "S" else "")
        assert [str(text) for text in texts] == ["aa", "", "b"]


@pytest.mark.parametrize(
    "cells",
    [
        ([1, 2], [3]),
        (np.array([1, 2], dtype="i2"), np.array([3], dtype="i4")),
        (np.array([1, 2], dtype="i4"), np.array([3.0])),
        (np.array([1, 2], dtype="i1"), None),
        (np.array([1.0, 2]), np.array([])),
        (np.ma.array([1, 2], mask=[False, True]), np.array([3])),
    ],
)
def test_objects_that_are_arrays(through: Through, cells: tuple[Any, ...]) -> None:
    """Arrays of various lengths get a type that can hold all values; missing values become NaN."""
    back = through(Table({"x": objects(*cells), "n": [1, 2]}))
    for cell, read in zip(cells, back["x"], strict=True):
        expected = np.ma.filled(np.ma.asarray([] if cell is None else cell).astype(float), np.nan)
        assert np.array_equal(np.ma.filled(np.ma.asarray(read).astype(float), np.nan), expected, equal_nan=True)
    assert back["n"].tolist() == [1, 2]


def test_characters_beyond_16_bits_in_a_table_with_arrays() -> None:
    """A character beyond 16 bits is written so that astropy can read the file."""
    file = io.BytesIO()
    write_votable(Table({"v": objects(np.ones(2), np.ones(1)), "s": ["\U0001f52d", "é"]}), file)
    back = Table.read(io.BytesIO(file.getvalue()), format="votable")
    assert back["s"].tolist() == ["\U0001f52d", "é"]


# Texts that formats cannot represent


def through_votable(table: Table) -> Table:
    file = io.BytesIO()
    write_votable(table, file)
    return Table.read(io.BytesIO(file.getvalue()), format="votable", use_names_over_ids=True)


def test_bytes_outside_ascii() -> None:
    """Bytes are decoded as UTF-8. Other bytes are decoded as Latin-1, with a warning."""
    utf8 = [b"Orion", "étoile".encode()]
    for cells in (np.array(utf8), objects(*utf8), np.array([utf8, utf8[::-1]])):
        back = through_votable(Table({"a": cells}))
        assert [str(text) for text in back.columns[0]] == ["Orion", "étoile"]
    with pytest.warns(SAMPWarning, match="'a' has bytes that are neither ASCII nor UTF-8: .* Latin-1"):
        back = through_votable(Table({"a": [*utf8, "étoile".encode("latin-1")]}))
    assert back["a"].tolist() == ["Orion", "étoile", "étoile"]
    with pytest.raises(SAMPTypeError, match=r"these columns: a \("):
        write_fits_table(Table({"a": utf8}), io.BytesIO())


@pytest.mark.parametrize("beside", [[1, 2], objects(np.ones(2), np.ones(1)), objects("x" * 9000, "")])
@pytest.mark.parametrize("kind", ["fixed", "objects"])
def test_characters_that_no_format_can_represent(kind: str, beside: Any) -> None:
    """NUL, which ends a text for readers, and lone surrogates, which have no encoding, are replaced with a warning."""
    texts = ["a\0b", "\ud800\U0001f52d"]
    table = Table({"x": np.array(texts) if kind == "fixed" else objects(*texts), "y": beside})
    with pytest.warns(SAMPWarning, match="'x' has NUL characters or lone surrogates"):
        back = through_votable(table)
    assert back["x"].tolist() == ["a?b", "?\U0001f52d"]


def test_masked_texts_cause_no_warning() -> None:
    table = Table({"x": MaskedColumn(["a\0b", "c"], mask=[True, False])})
    assert [str(text) for text in np.ma.filled(through_votable(table)["x"], "")] == ["", "c"]


def test_text_of_another_byte_order() -> None:
    assert through_votable(Table({"x": np.array(["ab", "c"], dtype=">U2")}))["x"].tolist() == ["ab", "c"]


@pytest.mark.parametrize("beside", [objects(np.ones(2), np.ones(1)), objects("x" * 9000, "")])
def test_a_received_table_is_sent_on(beside: Any) -> None:
    """A received table can be sent on if astropy noted in the metadata that its text was UTF-8 in a char field."""
    table = Table({"x": ["é", "\U0001f52d"], "y": beside})
    table["x"].meta.update({"_votable_string_dtype": "char", "_votable_arraysize": "9*"})
    back = through_votable(table)
    assert back["x"].tolist() == ["é", "\U0001f52d"]
    assert [len(cell) for cell in back["y"]] == [len(cell) for cell in beside]


def test_control_characters_in_names_and_metadata() -> None:
    """XML does not allow control characters: each is replaced, and a warning names its place."""
    table = Table({"a\x01": [1], "a?": [2]}, meta={"k\x02": "x\x0by", "name": "n\ud800", "lines": ["a\x01", "b"]})
    table["a?"].description = "d\x1f"
    table["a?"].meta["ucd"] = "u\ufffe"
    with pytest.warns(SAMPWarning, match="XML does not allow control characters") as caught:
        back = through_votable(table)
    message = str(caught[0].message)
    for name in (r"column 'a\x01'", r"key 'k\x02'", r"value of 'k\x02'", "value of 'name'", "value of 'lines'",
                 "description of the column 'a?'", "'ucd' of the column 'a?'"):  # fmt: skip
        assert name in message
    assert back.colnames == ["a?_", "a?"]
    assert back["a?"].description == "d?"
    assert back["a?"].meta["ucd"] == "u?"
    assert back.meta["name"] == "n?"


def test_texts_with_markup_in_metadata() -> None:
    """Markup in metadata, such as the ampersand of URLs, is escaped once; astropy's writer escapes it twice."""
    meta = {"url": "http://example.org/?a=1&b=<2>&amp;\"'", "accent": "é<è"}
    assert params_through_votable(Table({"a": [1]}, meta=meta)) == meta


def params_through_votable(table: Table) -> dict[str, Any]:
    from astropy.io.votable import parse_single_table

    file = io.BytesIO()
    write_votable(table, file)
    return {param.name: param.value for param in parse_single_table(io.BytesIO(file.getvalue())).params}


def test_tables_without_rows(through: Through) -> None:
    """Tables without rows can be written, with columns of every kind, such as times."""
    table = Table({"t": Time(np.zeros(0), format="mjd"), "o": np.zeros(0, dtype=object), "s": np.zeros(0, dtype="U3")})
    back = through(table)
    assert (len(back), back.colnames) == (0, ["t", "o", "s"])


def test_metadata_that_astropys_reader_rejects() -> None:
    """Metadata such as an invalid width, or links and values of another structure, are left out with a warning."""
    table = Table({"a": [1.5], "b": [1]})
    table["a"].meta.update(width=2**70, precision="x", ucd=7, more="x")
    table["b"].meta.update(links=[{"no": 1}], values={"min": 3})
    names = "'a.width', 'a.precision', 'a.ucd', 'a.more', 'b.links', 'b.values'"
    with pytest.warns(SAMPWarning, match=f"without {names}$"):
        assert through_votable(table)["a"].tolist() == [1.5]


def test_metadata_that_fits_cannot_hold() -> None:
    """Metadata that would change how the file is read, or that are outside ASCII, are left out with a warning."""
    odd = {"END": 1, "é": 2, "k": "é", "x\x01": 3, "TTYPE1": "q", "NAXIS2": 9, "CONTINUE": "a", "nan": np.nan,
           "__serialized_columns__": None, "k" * 90: "x" * 100, "A": 2, 5: 6}  # fmt: skip
    table = Table({"x": [1]}, meta={"a": 1, "comments": ["one", "two"], **odd})
    table["x"].meta.update(ucd="meta.id", odd=object())
    table["x"].format = str
    file = io.BytesIO()
    with pytest.warns(SAMPWarning) as caught:
        write_fits_table(table, file)
    assert str(caught[0].message).endswith(f"without {', '.join(repr(str(key)) for key in odd)}, 'x.odd'")
    back = Table.read(io.BytesIO(file.getvalue()), format="fits")
    assert back.meta == {"A": 1, "comments": ["one", "two"]}
    assert back["x"].meta == {"ucd": "meta.id"}


@pytest.mark.parametrize("comments", [["one", "two"], "one\ntwo"])
def test_comments(comments: Any) -> None:
    """Comments are written as lines of the FITS header, without the lines that astropy's writer adds."""
    table = Table({"x": [1]}, meta={"comments": comments})
    table["x"].description = "X"
    file = io.BytesIO()
    write_fits_table(table, file)
    back = Table.read(io.BytesIO(file.getvalue()), format="fits")
    assert back.meta == {"comments": ["one", "two"]}
    assert back["x"].description == "X"


def test_names_that_fits_cannot_hold(through: Through) -> None:
    """FITS loses trailing blanks of names, so a name of blanks is replaced, with a warning."""
    table = Table({"a": [1], "a ": [2], "  ": [3]})
    with pytest.warns(SAMPWarning, match="A column has the name '  '; it is sent as 'col3'"):
        back = through(table)
    assert [list(column) for column in back.columns.values()] == [[1], [2], [3]]
    with pytest.raises(SAMPTypeError, match="999 columns, but the table has"):
        write_fits_table(Table({f"c{number}": [1] for number in range(1000)}), io.BytesIO())


def test_large_unsigned_numbers_in_arrays() -> None:
    """Arrays of large unsigned integers become columns of texts, one for each element: VOTable has no such type."""
    back = through_votable(Table({"x": np.array([[1, 2**64 - 1]], dtype="u8")}))
    assert [list(column) for column in back.columns.values()] == [["1"], [str(2**64 - 1)]]


def test_complex_arrays_of_various_lengths() -> None:
    """The real and imaginary parts become two columns, because STILTS misreads complex arrays of various lengths."""
    back = through_votable(Table({"x": objects(np.array([1 + 2j]), np.array([], dtype=complex))}))
    assert back.colnames == ["x.real", "x.imag"]
    assert [cell.tolist() for cell in back["x.imag"]] == [[2], []]


def test_arrays_without_elements(through: Through) -> None:
    flags = MaskedColumn([True, False], mask=[True, False])
    table = Table({"x": np.zeros((2, 0)), "flags": flags, "o": objects([1.0], []), "n": [1, 2]})
    back = through(table)
    assert [np.size(cell) for cell in back["x"]] == [0, 0]
    assert back["flags"].tolist() == [None, False]
    assert [np.size(cell) for cell in back["o"]] == [1, 0]
    assert back["n"].tolist() == [1, 2]
    assert len(through(Table({"x": np.zeros((0, 0)), "y": np.zeros((0, 2), dtype="i4")}))) == 0


def test_warnings_as_errors() -> None:
    """If the program turns warnings into errors, it gets the SAMPWarning."""
    table = Table({"a": ["a\0b"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for write in WRITERS.values():
            with pytest.raises(SAMPWarning):
                write(table, io.BytesIO())


# Columns that cannot be sent


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ((1, "a"), "objects of type int and str"),
        (({}, []), "objects of type dict and list"),
        ((2**70, 1), "64 bits"),
        ((np.array(["a"]), np.array(["b", "c"])), "arrays of strings"),
        ((np.zeros((2, 2)), np.zeros((3, 2))), "multidimensional arrays"),
        ((dt.date(2020, 1, 1), None), "objects of type date"),
    ],
)
def test_columns_that_no_format_can_hold(through: Through, cells: tuple[Any, ...], reason: str) -> None:
    """The error names the columns that cannot be sent, and no other columns."""
    table = Table({"fine": [1, 2], "also": objects("a", None), "odd": objects(*cells)})
    with pytest.raises(SAMPTypeError, match=rf"these columns: odd \(.*{reason}") as caught:
        through(table)
    assert "also" not in str(caught.value)


def test_columns_that_fits_cannot_hold() -> None:
    table = Table({"fine": [1, 2], "é": [1, 2], "text": ["é", "b"]})
    with pytest.raises(SAMPTypeError, match=r"as a FITS table\. It does not support these columns: é \(.*, text \("):
        write_fits_table(table, io.BytesIO())


def test_units_that_fits_does_not_have() -> None:
    """A unit that FITS does not have is left out, with a warning."""
    table = Table({"x": Column([1.0], unit=u.def_unit("furlong_of_mine")), "y": Column([1.0], unit="m")})
    file = io.BytesIO()
    with pytest.warns(SAMPWarning, match="no unit furlong_of_mine: .* get the column 'x' without") as caught:
        write_fits_table(table, file)
    assert caught[0].filename == __file__
    header = fits.getheader(io.BytesIO(file.getvalue()), 1)
    assert (header.get("TUNIT1"), header["TUNIT2"]) == (None, "m")
    assert str(table["x"].unit) == "furlong_of_mine"


def test_metadata_of_numpy_types() -> None:
    file = io.BytesIO()
    write_votable(Table({"x": [1]}, meta={"N": np.int64(3), "X": np.float32(1.5), "OK": np.bool_(True)}), file)
    path = io.BytesIO(file.getvalue())
    from astropy.io.votable import parse

    assert {p.name: p.value for p in parse(path).get_first_table().params} == {"N": 3, "X": 1.5, "OK": True}
