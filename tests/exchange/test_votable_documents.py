# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""VOTables as services answer them: whatever is in their cells arrives."""

from __future__ import annotations

import io

import pytest
from astropy.io.votable import parse
from astropy.io.votable.tree import VOTableFile

from pyvo.samp.exchange.products import product_of

from .test_products import TABLE, written

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


@pytest.mark.filterwarnings("ignore::astropy.io.votable.exceptions.VOWarning")  # of the text that is read here
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
    """Arrays of various lengths and text beyond ASCII are read as they were, and so is the column beside them."""
    sent = document(datatype, arraysize, first, second, version)
    back = parse(written(product_of(sent), TABLE[0])).get_first_table()
    expected = sent.get_first_table().array
    assert [str(cell) for cell in back.array["v"]] == [str(cell) for cell in expected["v"]]
    assert back.array["k"].tolist() == [1, 2]
    assert back.params[0].value == 7
