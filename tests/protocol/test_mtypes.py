"""MTypes and wildcards (R12, R14)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp.errors import SAMPValueError
from pyvo.samp.protocol import best_match, check_mtype, check_pattern, matches, subtypes

from .strategies import mtypes, patterns


@pytest.mark.parametrize(
    ("mtype", "expected"),
    [
        ("a.b.c", ["a.b.c", "a.b.*", "a.*", "*"]),
        ("samp.app.ping", ["samp.app.ping", "samp.app.*", "samp.*", "*"]),
        ("a", ["a", "*"]),
    ],
)
def test_subtypes(mtype: str, expected: list[str]) -> None:
    """R12: a client that is subscribed to one of these patterns receives the MType."""
    assert subtypes(mtype) == expected


@pytest.mark.parametrize("mtype", ["a", "table.load.votable", "spectrum.load.ssa-generic", "x_y.Z9", "ds9.get", "a.é"])
def test_mtypes_are_accepted(mtype: str) -> None:
    check_mtype(mtype)
    check_pattern(mtype)


@pytest.mark.parametrize("pattern", ["*", "a.*", "samp.hub.event.*"])
def test_wildcards_are_patterns_but_not_mtypes(pattern: str) -> None:
    """R12: ``*`` and ``a.b.*`` are for subscriptions only."""
    check_pattern(pattern)
    with pytest.raises(SAMPValueError, match="is not an MType"):
        check_mtype(pattern)


@pytest.mark.parametrize(
    "text",
    [
        *["", ".", "a.", ".a", "a..b", "*.a", "a*", "a.*.b", "a.b*", "**", "*.*", ".*", "a.**"],
        *["a b", "a\n", "\x00", "a." * 200_000 + "a", "a" * 256],
    ],
    ids=lambda text: repr(text[:9]),
)
def test_invalid_texts_are_neither_mtypes_nor_patterns(text: str) -> None:
    """R12: a ``*`` is allowed only as the last part; other invalid texts are rejected, too."""
    with pytest.raises(SAMPValueError) as caught:
        check_mtype(text)
    assert len(str(caught.value)) < 2000
    with pytest.raises(SAMPValueError) as caught:
        check_pattern(text)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("pattern", "mtype", "expected"),
    [
        ("*", "a", True),
        ("*", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", True),
        ("a.*", "a", False),
        ("a.*", "ab.c", False),
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
    ],
)
def test_matches(pattern: str, mtype: str, expected: bool) -> None:
    """R12: ``a.*`` matches ``a.b`` and ``a.b.c``, not ``a`` itself."""
    assert matches(pattern, mtype) is expected


@given(patterns, mtypes)
def test_a_pattern_matches_an_mtype_if_it_is_one_of_its_subtypes(pattern: str, mtype: str) -> None:
    """R12: `matches` and `subtypes` agree."""
    check_pattern(pattern)
    check_mtype(mtype)
    assert matches(pattern, mtype) == (pattern in subtypes(mtype))


@given(st.lists(patterns, unique=True), mtypes)
def test_the_most_specific_subscription_wins(subscribed: list[str], mtype: str) -> None:
    """R14: of all subscriptions that match, the annotation of the longest counts."""
    covering = [pattern for pattern in subscribed if matches(pattern, mtype)]
    expected = max(covering, key=len, default=None)
    if expected == "*" or mtype in covering:  # "*" is as long as an MType of one character
        expected = mtype if mtype in covering else "*"
    assert best_match({pattern: pattern for pattern in subscribed}, mtype) == expected


def test_an_empty_annotation_is_a_match() -> None:
    """R14: an empty map, the usual annotation, differs from no subscription."""
    assert best_match({"a.*": {}}, "a.b") == {}
    assert best_match({"a.*": {}}, "b") is None


def test_an_mtype_with_a_million_dots_is_rejected_fast() -> None:
    """R12: the subtypes of a hostile MType are not listed."""
    started = time.process_time()
    with pytest.raises(SAMPValueError):
        best_match({"*": {}}, "a." * 1_000_000 + "a")
    assert time.process_time() - started < 1
