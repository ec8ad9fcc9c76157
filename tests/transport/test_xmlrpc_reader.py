"""The reader reads the XML-RPC documents of all programs, and rejects all others (R5, R30)."""

from __future__ import annotations

import contextlib
import math
import time
import tracemalloc
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyvo.samp.errors import SAMPProxyError, SAMPValueError
from pyvo.samp.protocol import MAX_DEPTH, format_float, parse_float
from pyvo.samp.transport.xmlrpc_reader import (
    MethodCall,
    XMLError,
    raise_if_fault,
    read_call,
    read_response,
)
from pyvo.samp.transport.xmlrpc_writer import write_call, write_fault, write_response

from ..protocol.strategies import texts

GOOD = write_call("a.b", ["key", {"samp.mtype": "x.y", "samp.params": {"list": ["1", "", {}], "text": "a<&>b"}}, "10"])


def call_of(value: str, prolog: str = '<?xml version="1.0"?>') -> bytes:
    return (
        f"{prolog}<methodCall><methodName>m</methodName>"
        f"<params><param><value>{value}</value></param></params></methodCall>"
    ).encode()


def response_of(inside: str) -> bytes:
    return f'<?xml version="1.0"?><methodResponse>{inside}</methodResponse>'.encode()


def value_of(value: str) -> Any:
    """Return what is read if this text is between the tags of a value."""
    (read,) = read_call(call_of(value)).params
    return read


# Valid values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<string>text</string>", "text"),
        ("text", "text"),
        ("", ""),
        ("<string></string>", ""),
        ("<string/>", ""),
        (" ", " "),
        ("\n\t ", "\n\t "),
        (" text ", " text "),
        ("<string> text\n</string>", " text\n"),
        (" <string>a</string>\n", "a"),
        ("a&lt;&#98;&#x63;&amp;&gt;&quot;&apos;", "a<bc&>\"'"),
        ("&amp;lt;", "&lt;"),
        ("&#38;lt;", "&lt;"),
        ("<![CDATA[<b>&amp;</b>]]>", "<b>&amp;</b>"),
        ("a<!-- and -->b", "ab"),
        ("a<?php nothing ?>b", "ab"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a&#13;b", "a\rb"),
        ("<string foo='bar'>a</string >", "a"),
        ("é\u4e2d\U0001f52d", "é\u4e2d\U0001f52d"),
        ("<array><data></data></array>", []),
        ("<array><data/></array>", []),
        ("<array></array>", []),
        ("<array/>", []),
        ("<struct></struct>", {}),
        ("<struct/>", {}),
        ("<array>\n<data> <value>a</value>\n<value><string>b</string></value></data></array>", ["a", "b"]),
        ("<struct><member><name/><value/></member></struct>", {"": ""}),
        ("<struct> <member> <name> k </name> <value>v</value> </member> </struct>", {" k ": "v"}),
    ],
)
def test_values(value: str, expected: Any) -> None:
    """R30: the reader reads strings with and without a tag, lists and maps, in all the notations of XML."""
    assert value_of(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<int>5</int>", "5"),
        ("<i4>-5</i4>", "-5"),
        ("<i8>9007199254740993</i8>", "9007199254740993"),
        ("<int> +007\n</int>", "7"),
        ("<double>1</double>", "1.0"),
        ("<double>-1.5E-5</double>", "-0.000015"),
        ("<double> 1e300 </double>", "1e+300"),
        ("<boolean>1</boolean>", "1"),
        ("<boolean>0</boolean>", "0"),
        ("<boolean>true</boolean>", "1"),
        ("<boolean> false </boolean>", "0"),
        ("<array><data><value><int>1</int></value><value>x</value></data></array>", ["1", "x"]),
    ],
)
def test_numbers_become_strings(value: str, expected: Any) -> None:
    """R5, R3: numbers are converted, so that what the hub passes on satisfies R1."""
    assert value_of(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("<int></int>", "<int>1.0</int>", "<int>x</int>", "<i4>1 2</i4>", "<i8>0x10</i8>", "<int>1_0</int>"),
        *("<int>\u0661</int>", f"<int>{'9' * 5000}</int>", f"<int>{'9' * 1_000_000}</int>", "<int><i4>1</i4></int>"),
        *("<double></double>", "<double>nan</double>", "<double>inf</double>", "<double>-Infinity</double>"),
        *(
            "<double>1e999</double>",
            "<double>1,5</double>",
            "<double>\u0661</double>",
            f"<double>{'1' * 5000}</double>",
        ),
        *("<boolean></boolean>", "<boolean>2</boolean>", "<boolean>True</boolean>", "<boolean>yes</boolean>"),
    ],
    ids=lambda value: value[:24],
)
def test_invalid_numbers(value: str) -> None:
    """R5: an invalid number is rejected, not passed on."""
    with pytest.raises(XMLError):
        value_of(value)


@pytest.mark.parametrize("tag", ["nil", "ex:nil", "base64", "dateTime.iso8601", "float", "STRING", "x" * 10_000])
def test_types_that_samp_does_not_have(tag: str) -> None:
    """R5: the error states the rejected type and the types that are allowed."""
    for value in (f"<{tag}/>", f"<{tag}>x</{tag}>"):
        with pytest.raises(XMLError, match="not a SAMP value: only strings, lists, maps and numbers") as caught:
            value_of(value)
        assert f"<{tag[:37]}" in str(caught.value)
        assert len(str(caught.value)) < 200


python_values = st.recursive(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=8),
        st.booleans(),
        st.integers(-(2**31), 2**31 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab<é", max_size=3), inner, max_size=3),
    max_leaves=12,
)


def as_samp(value: Any) -> Any:
    """Return the SAMP value into which R3 and R5 convert a Python value."""
    if isinstance(value, dict):
        return {key: as_samp(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_samp(item) for item in value]
    if isinstance(value, float):
        return format_float(value)
    return str(int(value)) if isinstance(value, int) else value


@given(python_values)
def test_documents_of_the_standard_library(value: Any) -> None:
    """R5: clients that use the standard library send numbers as int and double."""
    assert read_call(xmlrpc.client.dumps((value, 1), "a.b").encode()).params == [as_samp(value), "1"]
    assert read_response(xmlrpc.client.dumps((value,), methodresponse=True).encode()) == as_samp(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_keep_their_value(x: float) -> None:
    """R5, R3: a double in any notation has the same value and sign."""
    for text in (repr(x), f"{x:.17e}", f"{x:+.17E}"):
        read = parse_float(value_of(f"<double>{text}</double>"))
        assert read == x
        assert math.copysign(1, read) == math.copysign(1, x)


def test_a_call_without_parameters() -> None:
    """JSAMP's ping has no <params>."""
    for inside in ("", "<params/>", "<params></params>", "\n<params>\n</params>\n"):
        body = f"<methodCall><methodName>samp.hub.ping</methodName>{inside}</methodCall>".encode()
        assert read_call(body)[:2] == ("samp.hub.ping", [])


def test_blanks_around_a_method_name_are_ignored() -> None:
    for blanks in ("", " ", "\n\t"):
        for end in ("<params></params>", ""):
            body = f"<methodCall><methodName>{blanks}a.b{blanks}</methodName>{end}</methodCall>"
            assert read_call(body.encode()).name == "a.b"


def test_a_document_of_jsamp() -> None:
    """JSAMP writes strings without a tag, and blanks between all other tags."""
    body = b"""<?xml version='1.0' encoding='UTF-8'?>
<methodCall>
  <methodName>samp.hub.notify</methodName>
  <params>
    <param>
      <value>k:1</value>
    </param>
    <param>
      <value>
        <struct>
          <member>
            <name>samp.mtype</name>
            <value>a.b</value>
          </member>
          <member>
            <name>samp.params</name>
            <value>
              <struct>
              </struct>
            </value>
          </member>
        </struct>
      </value>
    </param>
  </params>
</methodCall>
"""
    call = read_call(body)
    assert call[:2] == ("samp.hub.notify", ["k:1", {"samp.mtype": "a.b", "samp.params": {}}])
    assert call.raw[0] == b"<value>k:1</value>"


# Responses and faults


def test_responses() -> None:
    assert read_response(response_of("<params><param><value><string>x</string></value></param></params>")) == "x"
    assert read_response(response_of("<params><param><value><int>3</int></value></param></params>")) == "3"


@pytest.mark.parametrize("inside", ["<params></params>", "<params/>"])
def test_a_response_without_a_value_is_an_empty_string(inside: str) -> None:
    """R30: some operations have no result."""
    assert read_response(response_of(inside)) == ""


def fault_of(*members: tuple[str, str]) -> bytes:
    inside = "".join(f"<member><name>{name}</name><value>{value}</value></member>" for name, value in members)
    return response_of(f"<fault><value><struct>{inside}</struct></value></fault>")


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (write_fault(3, "no <way>"), 3, "no <way>"),
        (xmlrpc.client.dumps(xmlrpc.client.Fault(-4, "é")).encode(), -4, "é"),
        (fault_of(("faultString", "no"), ("faultCode", "<i4>5</i4>")), 5, "no"),
        (fault_of(("faultCode", "5"), ("faultString", "<string>no</string>")), 5, "no"),
        (fault_of(("faultCode", " 5 "), ("faultString", "no")), 5, "no"),
        (fault_of(("faultCode", "five"), ("faultString", "no")), 0, "no"),
        (fault_of(("faultCode", "<array/>"), ("faultString", "<struct/>")), 0, ""),
        (fault_of(("faultString", "no")), 0, "no"),
        (fault_of(("faultCode", "1")), 1, ""),
        (fault_of(("faultCode", "1"), ("faultString", "no"), ("more", "x")), 1, "no"),
        (fault_of(), 0, ""),
        (response_of("<fault><value>no</value></fault>"), 0, "no"),
        (response_of("<fault><value><array/></value></fault>"), 0, ""),
    ],
)
def test_faults(body: bytes, code: int, text: str) -> None:
    """R9: a fault raises `SAMPProxyError`, whatever it contains."""
    with pytest.raises(SAMPProxyError) as caught:
        read_response(body)
    assert (caught.value.faultCode, caught.value.faultString) == (code, text)


def test_a_call_is_not_read_as_a_response_nor_a_response_as_a_call() -> None:
    for body in (write_response("x"), write_fault(1, "x"), response_of("<params/>")):
        with pytest.raises(XMLError, match="not a method call"):
            read_call(body)
    for body in (write_call("m", ["x"]), b"<methodCall><methodName>m</methodName></methodCall>"):
        with pytest.raises(XMLError, match="not the response"):
            read_response(body)


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "utf8", "US-ASCII", "ascii", "ISO-8859-1", "latin-1", "Latin1"])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_encodings_that_are_read(encoding: str, quote: str) -> None:
    prolog = f"<?xml version={quote}1.0{quote} encoding={quote}{encoding}{quote}?>"
    assert read_call(call_of("a", prolog)).params == ["a"]


def test_latin_1_is_read_as_declared() -> None:
    body = call_of("é", '<?xml version="1.0" encoding="iso-8859-1"?>').decode().encode("latin-1")
    assert read_call(body).params == ["é"]


def test_a_byte_order_mark_is_ignored() -> None:
    for prolog in ('<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-8"?>', ""):
        assert read_call(b"\xef\xbb\xbf" + call_of("é", prolog)).params == ["é"]


@pytest.mark.parametrize(
    "body",
    [
        *(call_of("a", f'<?xml version="1.0" encoding="{name}"?>') for name in ("utf-16", "utf-7", "koi8-r", "cp1252")),
        *(
            call_of("a", f'<?xml version="1.0" encoding="{name}"?>')
            for name in ("idna", "hex", "nonsense", "", "-", "é")
        ),
        call_of("a", f'<?xml version="1.0" encoding="{"x" * 100_000}"?>'),
        call_of("a", '<?xml version="1.0" encoding="utf-8\'?>'),
        *(call_of("a", "").decode().encode(codec) for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        *(call_of("a").decode().encode(codec) for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp500")),
        call_of("é").decode().encode("latin-1"),
        call_of("é", '<?xml version="1.0" encoding="ascii"?>'),
        call_of("@").replace(b"@", b"\xc0\x80"),  # an overlong NUL
        call_of("@").replace(b"@", b"\xed\xa0\x80"),  # a lone surrogate
        call_of("@").replace(b"@", b"\xf4\x90\x80\x80"),  # beyond Unicode
        call_of("@").replace(b"@", b"\xef\xbf\xbf"),
        call_of("@").replace(b"@", b"\xe9"),
        b"\xef\xbb\xbf",
        b"\xff\xfe",
    ],
    ids=lambda body: repr(body[:48]),
)
def test_encodings_that_are_rejected(body: bytes) -> None:
    """Unknown, wrong and dangerous encodings cause an error with a short text."""
    with pytest.raises(XMLError) as caught:
        read_call(body)
    assert len(str(caught.value)) < 200


def test_utf_7_is_not_decoded() -> None:
    """UTF-7 could hide tags from a reader of the bytes; without a declaration, it is plain text."""
    assert value_of("+ADw-x+AD4-") == "+ADw-x+AD4-"


# Invalid and hostile documents


@pytest.mark.parametrize("character", [*range(0x20), 0xFFFE, 0xFFFF])
def test_control_characters(character: int) -> None:
    """R2: control characters are rejected, as characters and as references."""
    if chr(character) in "\t\n\r":
        assert value_of(f"&#{character};") == chr(character)
        return
    for value in (chr(character), f"&#{character};", f"&#x{character:x};", f"<struct><member><name>{chr(character)}"):
        with pytest.raises(XMLError):
            value_of(value)


@pytest.mark.parametrize("reference", ["&#xD800;", "&#xDFFF;", "&#x110000;", "&#" + "9" * 100_000 + ";", "&#;", "&#x;"])
def test_invalid_character_references(reference: str) -> None:
    with pytest.raises(XMLError):
        value_of(reference)


INVALID = [
    b"",
    b" ",
    b"\n\n",
    b"x",
    b"\x00",
    b"<",
    b"<?xml version='1.0'?>",
    b"<methodCall/>",
    b"<methodCall></methodCall>",
    b"<methodCall><params/></methodCall>",
    b"<methodCall><methodName/></methodCall>",
    b"<methodCall><methodName> </methodName><params></params></methodCall>",
    b"<methodCall><methodName>m</methodName><methodName>m</methodName></methodCall>",
    b"<methodCall><methodName>m</methodName><params/><params/></methodCall>",
    b"<methodCall><methodName>m</methodName>x<params/></methodCall>",
    b"<methodCall><methodName>m</methodName><params>x</params></methodCall>",
    b"<methodCall><methodName>m<b/></methodName></methodCall>",
    b"<methodCall><methodName>m</methodName><params><value>x</value></params></methodCall>",
    b"<methodCall><methodName>m</methodName><params><param/></params></methodCall>",
    b"<methodCall><methodName>m</methodName><params><param>x</param></params></methodCall>",
    b"<methodCall><methodName>m</methodName><params><param><value/><value/></param></params></methodCall>",
    b"<methodcall><methodName>m</methodName></methodcall>",
    b"<x:methodCall xmlns:x='y'><x:methodName>m</x:methodName></x:methodCall>",
    b"<html><body>404</body></html>",
    b"<!DOCTYPE html><html></html>",
    b'{"jsonrpc": "2.0"}',
    b"<value>x</value>",
    b"<methodResponse/>",
    b"<methodResponse><param><value>x</value></param></methodResponse>",
    b"<methodResponse><fault/></methodResponse>",
    b"<methodResponse><fault><string>x</string></fault></methodResponse>",
    b"<methodResponse><params/><fault><value>x</value></fault></methodResponse>",
    response_of("<params><param><value>x</value></param><param><value>x</value></param></params>"),
    response_of("<params><param><value><nil/></value></param></params>"),
    *map(
        call_of,
        [
            "x<string>y</string>",
            "<string>y</string>x",
            "<string>x</string><string>y</string>",
            "<string>x<string>y</string></string>",
            "<array>x</array>",
            "<array><value>x</value></array>",
            "<array><data>x</data></array>",
            "<array><data/><data/></array>",
            "<array><data><string>x</string></data></array>",
            "<array><data><member/></data></array>",
            "<struct>x</struct>",
            "<struct><value>x</value></struct>",
            "<struct><member></member></struct>",
            "<struct><member>x</member></struct>",
            "<struct><member><name>k</name></member></struct>",
            "<struct><member><value>v</value></member></struct>",
            "<struct><member><value>v</value><name>k</name></member></struct>",
            "<struct><member><name>k</name>x<value>v</value></member></struct>",
            "<struct><member><name>k</name><value>v</value><value>v</value></member></struct>",
            "<struct><member><name>k</name><name>k</name><value>v</value></member></struct>",
            "<struct><member><name>k<b/></name><value>v</value></member></struct>",
            "<struct><member><name>k</name><value>1</value></member><member><name>k</name><value>1</value></member></struct>",
            "<struct><member><name>k</name><value>1</value></member><member><name>&#107;</name><value/></member></struct>",
            "<value>x</value>",
            "</value><value>x",
            "<methodCall/>",
            "&unknown;",
            "&lt",
            "& ",
            "]]>",
            "<![CDATA[x",
            "<!-- -- -->",
            "<?xml version='1.0'?>",
            "<a b='c' b='d'/>",
            "<string a=b>x</string>",
            "<string",
        ],
    ),
    GOOD + b"x",
    GOOD + b"<x/>",
    GOOD + GOOD,
    GOOD + b"\x00",
    b"x" + GOOD,
    b"\n" + GOOD,  # a prolog must come first
    b"HTTP/1.1 200 OK\r\n\r\n" + GOOD,
]


@pytest.mark.parametrize("body", INVALID, ids=lambda body: repr(body)[-60:])
def test_invalid_documents(body: bytes) -> None:
    """Each invalid document raises `XMLError`, which is a `ValueError`, with a short text."""
    for read in (read_call, read_response):
        with pytest.raises(XMLError) as caught:
            read(body)
        assert 10 < len(str(caught.value)) < 200
    assert issubclass(XMLError, SAMPValueError)


def test_documents_cut_off_at_every_byte() -> None:
    """A truncated document is never read as a shorter one."""
    documents: list[tuple[bytes, Callable[[bytes], object]]] = [
        (GOOD, read_call),
        (xmlrpc.client.dumps(("é", 1, 2.5, [True], {"a": "&"}), "m").strip().encode(), read_call),
        (write_response(["x", {"k": "v"}]), read_response),
        (write_fault(1, "no"), read_response),
    ]
    for document, read in documents:
        for length in range(len(document)):
            with pytest.raises(XMLError):
                read(document[:length])


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
@example(b"", 0, len(GOOD))
def test_random_bytes_raise_no_other_error(noise: bytes, start: int, end: int) -> None:
    """The bytes are inserted into a good document, or replace a part of it."""
    for read in (read_call, read_response):
        try:
            read(GOOD[:start] + noise + GOOD[end:])
        except (XMLError, SAMPProxyError):
            continue


@given(texts, texts)
def test_random_text_raises_no_other_error(before: str, inside: str) -> None:
    for body in (before.encode(), call_of(inside)):
        try:
            assert isinstance(read_call(body), MethodCall)
        except XMLError:
            continue


def test_external_entities_are_not_opened(isolated: Path) -> None:
    """The reader opens no file and no URL that a document names."""
    secret = isolated / "secret"
    secret.write_text("the secret")
    for declaration in (
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>',
        f'<!DOCTYPE x [<!ENTITY % e SYSTEM "{secret.as_uri()}"> %e;]>',
        f'<!DOCTYPE x SYSTEM "{secret.as_uri()}">',
        '<!DOCTYPE x PUBLIC "-//X//Y" "http://127.0.0.1:9/x.dtd">',
        '<!DOCTYPE x [<!ENTITY e "text">]>',
        "<!DOCTYPE x>",
        "<!DOCTYPE methodCall []>",
    ):
        for value in ("&e;", "x"):
            with pytest.raises(XMLError, match="document type declaration is not allowed"):
                read_call(call_of(value, f'<?xml version="1.0"?>{declaration}'))


def test_entities_that_multiply_are_rejected() -> None:
    """The reader rejects the "billion laughs" before it expands the first entity."""
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    body = call_of("&e9;", f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{entities}]>')
    with pytest.raises(XMLError, match="document type declaration is not allowed"):
        read_call(body)


def nested(levels: int, opening: str, closing: str, text: str) -> bytes:
    return call_of(opening * levels + text + closing * levels)


LIST = ("<array><data><value>", "</value></data></array>")
MAP = ("<struct><member><name>k</name><value>", "</value></member></struct>")


@pytest.mark.parametrize(("opening", "closing"), [LIST, MAP], ids=["list", "map"])
def test_depth_is_limited(opening: str, closing: str) -> None:
    """The limit is the same for plain documents and for others."""
    for text in ("x", "&#120;"):
        assert len(read_call(nested(MAX_DEPTH, opening, closing, text)).params) == 1
        for levels in (MAX_DEPTH + 1, 10_000, 200_000):
            body = nested(levels, opening, closing, text)
            with pytest.raises(XMLError, match="nested more than 64 levels"):
                read_call(body)
            with pytest.raises(XMLError):
                read_call(body[: len(body) // 2])


def test_siblings_do_not_count_as_depth() -> None:
    """Both readers limit the levels, not the number of values."""
    siblings = "<value><array><data><value><struct></struct></value></data></array></value>" * 200
    for value in (siblings, siblings + "<value><int>1</int></value>"):
        assert len(value_of(f"<array><data>{value}</data></array>")) in (200, 201)


def test_many_members() -> None:
    """A map of a hundred thousand members is accepted, and read in a few seconds."""
    value: Any = {f"key{number}": f"value {number}" for number in range(100_000)}
    for body in (write_call("m", [value]), xmlrpc.client.dumps((value, 1), "m").encode()):
        started = time.thread_time()
        assert read_call(body).params[0] == value
        assert time.thread_time() - started < 5


@pytest.mark.parametrize(
    "value",
    [
        "<string>" + "x" * 1_000_000,
        "<string>" + "&amp;" * 200_000 + "</string>",
        "<string>" + "&#945;" * 200_000 + "</string>",
        "<string>" + "\r\n" * 300_000 + "</string>",
        "<string>" + "]]" * 300_000 + "</string>",
        "<string>" + "<!-- x -->" * 100_000 + "</string>",
        "<string>" + "<![CDATA[x]]>" * 100_000 + "</string>",
        "<array><data>" + "<value/>" * 100_000 + "</data></array>",
        "<array><data>" + "<value><int>1</int></value>" * 50_000 + "</data></array>",
        "<array><data>" + "<value>" * 100_000,
        "<" * 500_000,
        "<a " + "b='c' " * 100_000 + "/>",
        "<string " + " ".join(f"a{n}='x'" for n in range(100_000)) + ">x</string>",
        "<" + "a" * 1_000_000 + ">",
        "&" + "a" * 1_000_000 + ";",
        "&amp" * 250_000,
        " " * 1_000_000 + "<string>x</string>",
        "<!--" + "-" * 1_000_000,
    ],
    ids=lambda value: value[:24],
)
def test_no_document_is_slow(value: str) -> None:
    """A document of a megabyte is read or rejected within three seconds."""
    body = call_of(value)
    started = time.thread_time()
    with contextlib.suppress(XMLError):
        read_call(body)
    assert time.thread_time() - started < 3


@pytest.mark.parametrize(
    "value",
    [
        "<string>" + "x" * 3_000_000 + "</string>",
        "<array><data>" + "<value>x</value>" * 150_000 + "</data></array>",
        "<array><data>" + "<value/>" * 300_000 + "</data></array>",
        "<array><data>" + "<value><int>1</int></value>" * 100_000 + "</data></array>",
    ],
    ids=lambda value: value[:40],
)
def test_memory_is_bounded_by_the_length(value: str) -> None:
    """The reader needs at most a few times the memory of the document."""
    body = call_of(value)
    tracemalloc.start()
    try:
        read_call(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(body) + 1_000_000


def test_raise_if_fault():
    raise_if_fault(write_response(["a"]))
    with pytest.raises(SAMPProxyError):
        raise_if_fault(write_fault(1, "x"))
    for body in (b"", b"<html>", b"<methodResponse><fault>", write_call("x", [])):
        with pytest.raises(XMLError):
            raise_if_fault(body)
