"""Hypothesis strategies for SAMP values and MTypes."""

from __future__ import annotations

from hypothesis import strategies as st

from pyvo.samp.protocol import SAMPValue

#: Each character that an XML document may contain; those with a meaning in XML are drawn more often.
characters = st.one_of(
    st.sampled_from("<>&'\"]\t\n\r \x7f\x85\u2028\ufeff;#"),
    st.characters(min_codepoint=0x20, max_codepoint=0x7E),
    st.characters(exclude_categories=["Cs"]).filter(
        lambda character: character in "\t\n\r" or (character >= " " and character not in "\ufffe\uffff")
    ),
)
texts = st.one_of(
    st.text(characters, max_size=20),
    st.sampled_from(["", " ", "\n", "&lt;", "&amp;lt;", "&#65;", "]]>", "<![CDATA[", "<value>", "</param>", "1"]),
)


def values_of(strings: st.SearchStrategy[str]) -> st.SearchStrategy[SAMPValue]:
    """SAMP values of these strings, at several levels."""
    return st.recursive(
        strings,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4),
        max_leaves=12,
    )


values = values_of(texts)

parts = st.text(st.sampled_from("abz09_-é#/"), min_size=1, max_size=3)
mtypes = st.lists(parts, min_size=1, max_size=4).map(".".join)
patterns = st.one_of(mtypes, mtypes.map("{}.*".format), st.just("*"))
