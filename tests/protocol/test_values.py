"""SAMP values, and the Python objects that can be encoded (R1 to R4)."""

from __future__ import annotations

import copy
import enum
import math
import sys
import types
import warnings
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.errors import SAMPTypeError, SAMPValueError, SAMPWarning
from pyvo.samp.protocol import MAX_DEPTH, encode, format_float, parse_bool, parse_float, parse_int

from .strategies import values, values_of

ascii_texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("\t\n\r"), max_size=8)
python_values = st.recursive(
    ascii_texts | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(ascii_texts, inner, max_size=3)
    ),
    max_leaves=12,
)


class Colour(enum.StrEnum):
    RED = "red"


class Shade(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    DARK = "dark"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("tab\tline\ncarriage\r\x7f", "tab\tline\ncarriage\r\x7f"),
        (True, "1"),
        (False, "0"),
        (0, "0"),
        (-12, "-12"),
        (10**30, "1" + "0" * 30),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (Colour.RED, "red"),
        (Shade.DARK, "dark"),
        (Level.HIGH, "3"),
        ((1, (2.5, True)), ["1", ["2.5", "1"]]),
        ([], []),
        ({}, {}),
        (OrderedDict(a=1), {"a": "1"}),
        (types.MappingProxyType({"a": {"b": 2}}), {"a": {"b": "2"}}),
        (np.str_("text"), "text"),
        (np.bool_(True), "1"),
        (np.int8(-5), "-5"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.float64(0.5), "0.5"),
        (np.float32(0.5), "0.5"),
        (np.float16(0.5), "0.5"),
        (np.longdouble(0.5), "0.5"),
        (np.array(5), "5"),
        (np.array([1, 2]), ["1", "2"]),
        (np.array([0.5, 1e-7]), ["0.5", "0.0000001"]),
        (np.array([0.5], dtype=np.longdouble), ["0.5"]),
        (np.array([True, False]), ["1", "0"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", 1, [2]], dtype=object), ["a", "1", ["2"]]),
        (np.array([]), []),
        (np.ma.array([1, 2], mask=[False, False]), ["1", "2"]),
        (Table({"x": [1, 2]})["x"], ["1", "2"]),
        (Table({"x": ["a", "b"]}, masked=True)["x"], ["a", "b"]),
        ({np.str_("key"): [np.float64(2)]}, {"key": ["2.0"]}),
    ],
    ids=repr,
)
def test_encode(value: Any, expected: Any) -> None:
    """R3, R4: each object has its encoding; a bool is not encoded as a number, although it is one in Python."""
    encoded = encode(value)
    assert encoded == expected
    assert is_plain(encoded)


def is_plain(value: object) -> bool:
    """Return whether a value consists of str, list and dict, and not of their subclasses."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(is_plain(item) for item in value)
    return type(value) is str


LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: Any = ""
for _ in range(MAX_DEPTH + 1):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "error", "error_text"),
    [
        (None, SAMPTypeError, "is None"),
        (b"bytes", SAMPTypeError, "is bytes"),
        (bytearray(b"bytes"), SAMPTypeError, "is bytes"),
        (memoryview(b"bytes"), SAMPTypeError, "is bytes"),
        (np.bytes_(b"bytes"), SAMPTypeError, "holds bytes"),
        (np.array([b"bytes"]), SAMPTypeError, "holds bytes"),
        (Path("/tmp"), SAMPTypeError, "is a path: other programs need a URL"),
        (PurePosixPath("/tmp"), SAMPTypeError, "is a path"),
        (math.nan, SAMPValueError, "nan is not finite"),
        (math.inf, SAMPValueError, "inf is not finite"),
        (-math.inf, SAMPValueError, "-inf is not finite"),
        (np.float32("nan"), SAMPValueError, "nan is not finite"),
        (np.ma.masked, SAMPTypeError, "masked"),
        (np.datetime64("2026-11-23"), SAMPTypeError, "holds datetime64"),
        (np.datetime64("2026-11-23T00:00:00.123456789"), SAMPTypeError, "holds datetime64"),
        (np.complex128(1j), SAMPTypeError, "holds complex128"),
        (np.void(b"abc"), SAMPTypeError, "holds void"),
        (np.zeros((2, 2)), SAMPTypeError, "array of 2 dimensions"),
        (np.zeros(2, dtype=[("a", int)]), SAMPTypeError, "holds void"),
        (5 * u.deg, SAMPTypeError, r"has a unit \(deg\)"),
        ([1, 2] * u.m, SAMPTypeError, r"has a unit \(m\)"),
        (Table({"x": [1] * u.s})["x"], SAMPTypeError, r"has a unit \(s\)"),
        (1j, SAMPTypeError, "is a complex"),
        (object(), SAMPTypeError, "is a object"),
        ({1, 2}, SAMPTypeError, "is a set"),
        (iter([]), SAMPTypeError, "is a list_iterator"),
        ({1: "x"}, SAMPTypeError, "has the key 1, a int"),
        ({None: "x"}, SAMPTypeError, "has the key None"),
        ({b"k": "x"}, SAMPTypeError, "has the key b'k'"),
        ("a\x00b", SAMPValueError, r"the character '\\x00'"),
        ("\x1b", SAMPValueError, r"the character '\\x1b'"),
        ("\ud800", SAMPValueError, r"the character '\\ud800'"),
        ("\ufffe", SAMPValueError, r"the character '\\ufffe'"),
        ({"a\x01": "x"}, SAMPValueError, r"the character '\\x01'"),
        (LOOP, SAMPValueError, "nested more than 64 levels deep"),
        (DEEP, SAMPValueError, "nested more than 64 levels deep"),
    ],
    ids=lambda value: type(value).__name__ if " at 0x" in repr(value) else repr(value)[:40],
)
def test_an_object_that_cannot_be_encoded_is_named(value: Any, error: type[Exception], error_text: str) -> None:
    """R4: the error names the type of the object, if it is the outermost value or inside a message."""
    with pytest.raises(error, match=error_text):
        encode(value)
    with pytest.raises(error, match=error_text):
        encode({"samp.params": {"rows": ["0", "1", "2", value]}})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"samp.params": {"name": None}}, "samp.params/name is None"),
        ({"samp.params": {"rows": [1, 2, 3, math.nan]}}, "samp.params/rows/3: nan"),
        ({"samp.params": {"rows": np.ma.array([1, 2], mask=[False, True])}}, "samp.params/rows/1 is None"),
        ({"samp.params": {"rows": np.array([1, np.nan])}}, "samp.params/rows/1: nan"),
        ({"samp.params": {3: "x"}}, "samp.params has the key 3"),
        ({"samp.params": {"a\x02": "x"}}, "samp.params/a\x02 contains the character"),
        (None, "the value is None"),
        ([None], "0 is None"),
    ],
)
def test_the_path_of_an_invalid_value(value: Any, name: str) -> None:
    """R4: the error begins with the key path."""
    with pytest.raises((SAMPTypeError, SAMPValueError)) as caught:
        encode(value)
    assert str(caught.value).startswith(name)


def test_the_path_begins_with_the_given_name() -> None:
    """R4: a value that is a part of a message is named as such."""
    with pytest.raises(SAMPTypeError, match=r"^samp\.params/x/0 is None"):
        encode({"x": [None]}, "samp.params")
    with pytest.raises(SAMPTypeError, match=r"^samp\.result is None"):
        encode(None, "samp.result")


def test_errors_are_type_and_value_errors() -> None:
    """R4: callers can catch the usual exceptions of Python."""
    with pytest.raises(TypeError):
        encode(None)
    with pytest.raises(ValueError, match="finite"):
        encode(math.nan)


def test_text_beyond_ascii_is_encoded_with_one_warning() -> None:
    """R4: the warning names the first such text."""
    with pytest.warns(SAMPWarning, match=r"^samp\.params/name has characters beyond ASCII") as caught:
        encoded = encode({"samp.params": {"id": "x", "name": "Großmann", "other": "é"}})
    assert encoded == {"samp.params": {"id": "x", "name": "Großmann", "other": "é"}}
    assert len(caught) == 1


def test_a_key_beyond_ascii_warns_too() -> None:
    """R4: a key causes the same warning as any other text."""
    with pytest.warns(SAMPWarning, match="^é has characters"):
        assert encode({"é": "x"}) == {"é": "x"}


def test_a_single_text_beyond_ascii_warns() -> None:
    """R4: a text without a path is called "the value"."""
    with pytest.warns(SAMPWarning, match="^the value has characters"):
        assert encode("é") == "é"


def test_deep_values_up_to_the_limit_pass() -> None:
    """R1: the writer and the reader have the same limit."""
    assert encode(DEEP[0]) == DEEP[0]


@given(python_values)
def test_encode_returns_samp_values_and_does_not_change_its_argument(value: Any) -> None:
    """R4: the result is a SAMP value, new at every level, and the argument is unchanged."""
    before = copy.deepcopy(value)
    encoded = encode(value)
    assert value == before
    assert is_plain(encoded)
    assert not have_common_parts(value, encoded)
    assert encode(encoded) == encoded


@given(values)
def test_samp_values_are_encoded_unchanged(value: Any) -> None:
    """R4: encoding a value twice is the same as encoding it once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAMPWarning)
        assert encode(value) == value


def have_common_parts(value: object, encoded: object) -> bool:
    """Return whether the two values share a list or a map."""
    if isinstance(value, dict) and isinstance(encoded, dict):
        return value is encoded or any(have_common_parts(value[key], encoded[key]) for key in value)
    if isinstance(value, list | tuple) and isinstance(encoded, list):
        return value is encoded or any(map(have_common_parts, value, encoded))
    return False


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_round_trip_and_have_no_exponent_in_the_usual_range(x: float) -> None:
    """R3: floats have the fewest digits, and no exponent between 1e-9 and 1e16, because DS9 would hang."""
    text = format_float(x)
    assert parse_float(text) == x
    assert math.copysign(1, parse_float(text)) == math.copysign(1, x)
    if x == 0 or 1e-9 <= abs(x) <= 1e16:
        assert "e" not in text.lower()
        digits = repr(x).partition("e")[0].replace("-", "").replace(".", "").strip("0")
        assert text.replace("-", "").replace(".", "").strip("0") == digits


@given(st.floats(min_value=1e-9, max_value=1e-3) | st.floats(min_value=1e15, max_value=1e17))
def test_floats_at_the_edges_of_plain_notation(x: float) -> None:
    """R3: at these values Python's own notation begins to have an exponent."""
    test_floats_round_trip_and_have_no_exponent_in_the_usual_range.hypothesis.inner_test(x)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (1e-5, "0.00001"),
        (1.5e-9, "0.0000000015"),
        (1e-9, "0.000000001"),
        (9.9e-10, "9.9e-10"),
        (-1.25e-7, "-0.000000125"),
        (1e16, "10000000000000000.0"),
        (-1e16, "-10000000000000000.0"),
        (2.0**-24, "0.00000005960464477539063"),
        (1e17, "1e+17"),
        (123456789012345680.0, "1.2345678901234568e+17"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_format_float(x: float, text: str) -> None:
    """R3: examples."""
    assert format_float(x) == text


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_format_float_rejects_nan_and_infinity(x: float) -> None:
    """R3: a SAMP float is finite."""
    with pytest.raises(SAMPValueError):
        format_float(x)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("+7", 7), ("-07", -7), ("9" * 400, int("9" * 400))])
def test_parse_int(text: str, number: int) -> None:
    """R3: ``[+-]?digits``."""
    assert parse_int(text) == number


@pytest.mark.parametrize(
    "text", ["", "+", " 1", "1\n", "1.0", "0x1", "1_000", "\u0661", "e", "9" * 401, "9" * 10_000_000]
)
def test_parse_int_is_strict(text: str) -> None:
    """R3: no other text is accepted, even if int() accepts it."""
    with pytest.raises(SAMPValueError, match="is not a SAMP int") as caught:
        parse_int(text)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("-1.", -1), (".5", 0.5), ("+1e3", 1000), ("2.5E-1", 0.25)])
def test_parse_float(text: str, number: float) -> None:
    """R3: a decimal with an optional exponent."""
    assert parse_float(text) == number


@pytest.mark.parametrize(
    "text", ["", ".", "nan", "inf", "1e999", "1e", "0x1p3", " 1", "1\n", "1_0.0", "\u0661.\u0662", "1" * 401]
)
def test_parse_float_is_strict(text: str) -> None:
    """R3: no other text is accepted, even if float() accepts it, and no number that would become infinite."""
    with pytest.raises(SAMPValueError, match="is not a SAMP float"):
        parse_float(text)


def test_parse_bool() -> None:
    """R3: only "1" and "0" are accepted."""
    assert parse_bool("1") is True
    assert parse_bool("0") is False
    for text in ("", "true", "2", " 1", "01"):
        with pytest.raises(SAMPValueError, match="is not a SAMP boolean"):
            parse_bool(text)


@given(values_of(ascii_texts))
def test_every_value_of_plain_ascii_encodes_without_a_warning(value: Any) -> None:
    """R2, R4: the standard allows these characters."""
    assert encode(value) == value


def test_a_number_of_thousands_of_digits_is_rejected() -> None:
    """R4: the error is that of `encode`, not that of the interpreter."""
    with pytest.raises(SAMPValueError, match=r"^x is an integer of too many digits"):
        encode({"x": 10**5000})


def test_encoding_does_not_import_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """If numpy is not imported, no value can be an object of numpy."""
    monkeypatch.delitem(sys.modules, "numpy")
    assert encode({"a": [1, 2.5, True]}) == {"a": ["1", "2.5", "1"]}
    with pytest.raises(SAMPTypeError):
        encode(object())
    assert "numpy" not in sys.modules


def test_long_lists_of_integers() -> None:
    """The numbers of a long list are encoded together, with the same result as one by one."""
    numbers = [0, -1, 2**63 - 1, -(2**63), *range(100)]
    assert encode(numbers) == [str(number) for number in numbers]
    assert encode([*numbers, True, 2**64]) == [*(str(number) for number in numbers), "1", str(2**64)]
    with pytest.raises(SAMPValueError, match="too many digits"):
        encode([*numbers, 10**5000])
