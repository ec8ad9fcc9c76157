"""The writer makes documents that every program can read (R30); DS9 and JSAMP accept the fewest."""

from __future__ import annotations

import re
import xmlrpc.client
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given

from pyvo.samp.errors import SAMPProxyError, SAMPTypeError, SAMPValueError
from pyvo.samp.protocol import MAX_DEPTH
from pyvo.samp.transport.xmlrpc_reader import read_call, read_response
from pyvo.samp.transport.xmlrpc_writer import PreEncoded, write_call, write_fault, write_response, write_value

from ..protocol.strategies import texts, values

PROLOG = b'<?xml version="1.0"?>\n'


def test_the_document_of_a_call() -> None:
    """R30: a call has a prolog, and uses string, array and struct."""
    assert write_call("a.b", ["x", ["y"], {"k": "v"}]) == (
        PROLOG + b"<methodCall><methodName>a.b</methodName><params>"
        b"<param><value><string>x</string></value></param>"
        b"<param><value><array><data><value><string>y</string></value></data></array></value></param>"
        b"<param><value><struct><member><name>k</name><value><string>v</string></value></member></struct></value></param>"
        b"</params></methodCall>"
    )
    assert write_call("ping", []) == (
        PROLOG + b"<methodCall><methodName>ping</methodName><params></params></methodCall>"
    )


def test_the_document_of_a_response() -> None:
    assert write_response("") == (
        PROLOG + b"<methodResponse><params><param><value><string></string></value></param></params></methodResponse>"
    )


def test_the_document_of_a_fault() -> None:
    """Only a fault has an int (R48)."""
    assert write_fault(1, "<no>") == (
        PROLOG + b"<methodResponse><fault><value><struct>"
        b"<member><name>faultCode</name><value><int>1</int></value></member>"
        b"<member><name>faultString</name><value><string>&lt;no&gt;</string></value></member>"
        b"</struct></value></fault></methodResponse>"
    )


@pytest.mark.parametrize("value", ["", [], {}, {"": ""}, [[], {}, ""]])
def test_empty_values_have_two_tags(value: Any) -> None:
    """DS9 never responds to a document that has an empty-element tag."""
    for document in (write_call("m", [value]), write_response(value)):
        assert b"/>" not in document
        assert document.startswith(b"<?xml version")


@given(values)
def test_documents_are_ascii_and_have_no_empty_element_tags(value: Any) -> None:
    """DS9 counts characters where Content-Length has bytes; a raw carriage return would become a line feed (R4)."""
    for document in (write_call("m", [value]), write_response(value)):
        assert document.isascii()
        assert b"/>" not in re.sub(rb">[^<]*<", b"><", document)
        assert b"\r" not in document


@given(values)
def test_the_standard_library_reads_what_was_written(value: Any) -> None:
    """R1, R30: the standard library reads every SAMP value, as a parameter and as a response."""
    assert xmlrpc.client.loads(write_call("a.b", ["k", value])) == (("k", value), "a.b")
    assert xmlrpc.client.loads(write_response(value)) == ((value,), None)


@given(values)
def test_our_reader_reads_what_was_written(value: Any) -> None:
    """R1, R30: our reader reads every SAMP value, as a parameter and as a response."""
    call = read_call(write_call("a.b", ["k", value]))
    assert (call.name, call.params) == ("a.b", ["k", value])
    assert read_response(write_response(value)) == value


@given(values)
def test_a_written_value_can_be_put_into_any_document(value: Any) -> None:
    """A message is encoded once for all recipients of a broadcast."""
    raw = PreEncoded(write_value(value))
    assert write_call("m", ["k", raw]) == write_call("m", ["k", value])
    assert write_response(raw) == write_response(value)


def test_a_carriage_return_survives() -> None:
    """R4: a carriage return is written as a reference, because it would otherwise arrive as a line feed."""
    assert b"a&#13;b" in write_value("a\rb")
    assert read_response(write_response("a\rb\r\nc")) == "a\rb\r\nc"


def test_text_beyond_ascii_is_written_as_references() -> None:
    assert write_value("é\U0001f52d") == b"<value><string>&#233;&#128301;</string></value>"


@pytest.mark.parametrize("text", ["\x00", "a\x08", "\x0b", "\x1f", "\ud800", "é\udfff", "\ufffe", "\uffff", "é\x00"])
def test_characters_that_xml_cannot_carry(text: str) -> None:
    """R2: references are not allowed either; no program could read the document."""
    for value in (text, [text], {text: ""}, {"a": {"b": text}}):
        with pytest.raises(SAMPValueError, match="which XML does not allow"):
            write_call("m", [value])  # type: ignore[list-item]


@pytest.mark.parametrize("value", [None, 1, 1.5, True, b"bytes", ("a",), {"a"}, {1: "a"}, ["a", None], {"a": 1}])
def test_other_values_are_rejected(value: Any) -> None:
    """R1: the writer accepts strings, lists and maps; `encode` has already converted numbers (R4)."""
    with pytest.raises(SAMPTypeError):
        write_value(value)


def test_depth_is_limited() -> None:
    """The writer and the reader have the same limit."""
    value: Any = ""
    for _ in range(MAX_DEPTH):
        value = [value]
    assert read_response(write_response(value)) == value
    with pytest.raises(SAMPValueError, match="nested more than 64 levels"):
        write_value([value])
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SAMPValueError, match="nested more than 64 levels"):
        write_value(loop)


@given(texts)
def test_faults_round_trip(text: str) -> None:
    """R9: the text of a fault arrives unchanged."""
    with pytest.raises(SAMPProxyError) as caught:
        read_response(write_fault(7, text))
    assert (caught.value.faultCode, caught.value.faultString) == (7, text)
    with pytest.raises(xmlrpc.client.Fault) as stdlib:
        xmlrpc.client.loads(write_fault(7, text))
    assert stdlib.value.faultString == text


def test_a_fault_may_have_any_text() -> None:
    """The text may come from an exception that quotes the data of another program."""
    with pytest.raises(SAMPProxyError, match=r"a\?b\?c\?"):
        read_response(write_fault(1, "a\x00b\ud800c\uffff"))


def test_method_names_are_escaped() -> None:
    assert read_call(write_call("a<b&é", [])).name == "a<b&é"


def test_every_document_is_well_formed() -> None:
    for document in (write_call("m", [{"<&>": "]]>"}]), write_response("]]>"), write_fault(1, "]]>")):
        ET.fromstring(document)


@pytest.mark.parametrize("odd", ["", "<&>", "\r", "é", "x"])
def test_long_lists_are_written_like_short_ones(odd: str) -> None:
    """The strings of a long list are written together, but in the same form as those of short lists."""
    strings = ["1", odd, "2"] * 50
    one_by_one = b"".join(write_value(text) for text in strings)
    assert write_value(list(strings)) == b"<value><array><data>" + one_by_one + b"</data></array></value>"
    assert write_value([*strings, ["x"]]) == (
        b"<value><array><data>" + one_by_one + write_value(["x"]) + b"</data></array></value>"
    )


@pytest.mark.parametrize("odd", ["\0", "a\0b", "\x01"])
def test_control_characters_in_long_lists(odd: str) -> None:
    with pytest.raises(SAMPValueError, match="control character"):
        write_value(["1"] * 100 + [odd])
