"""The fast reader, which parses plain documents only, agrees with the strict reader (R5, R30)."""

from __future__ import annotations

import random
import time
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvo.samp.protocol import MAX_DEPTH, SAMPValue
from pyvo.samp.transport import xmlrpc_fast_reader
from pyvo.samp.transport.xmlrpc_fast_reader import parse_fast
from pyvo.samp.transport.xmlrpc_reader import read_call
from pyvo.samp.transport.xmlrpc_strict_reader import ParsedDocument, XMLError, parse_strict
from pyvo.samp.transport.xmlrpc_writer import PreEncoded, write_call, write_response, write_value

from ..protocol.strategies import values, values_of

plain_texts = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7F) | st.sampled_from("\t\n<>&;'\""), max_size=9
)
plain_values = values_of(plain_texts.filter(lambda text: "]]>" not in text))

PROLOGS = [
    "",
    '<?xml version="1.0"?>',
    "<?xml version='1.0'?>\n",
    '<?xml version="1.0" encoding="UTF-8"?>\n',
    "<?xml version='1.0' encoding='utf-8' ?>",
    '<?xml version="1.0" encoding="us-ascii"?>',
]


def agree(body: bytes) -> bool:
    """Check that the fast reader agrees with the strict one; return whether it has parsed the document."""
    fast = parse_fast(body)
    assert parse_with_long_texts(body) in (None, fast)
    if fast is None:
        return False
    assert fast == parse_strict(body.decode("ascii"))  # which raises if the document is invalid
    return True


def parse_with_long_texts(body: bytes) -> ParsedDocument | None:
    """Use the fast reader as if all texts of more than five characters were long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xmlrpc_fast_reader, "_LONG", 5)
        patch.setattr(xmlrpc_fast_reader, "_MIN_TAG_SPACING", 1)
        return parse_fast(body)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Draw calls and responses as different programs write them: with blanks between tags, or without string tags."""
    blanks = draw(st.sampled_from(["", "\n", "\n  ", " ", "\t\n "]))
    bare = draw(st.booleans())

    def escaped(text: str) -> str:
        text = text.replace("&", "&amp;").replace("<", "&lt;")
        return text.replace(">", "&gt;").replace("'", "&apos;") if draw(st.booleans()) else text

    def written(value: SAMPValue) -> list[str]:
        if isinstance(value, dict):
            members = [
                tag
                for key, item in value.items()
                for tag in ("<member>", f"<name>{escaped(key)}</name>", *written(item), "</member>")
            ]
            return ["<value>", "<struct>", *members, "</struct>", "</value>"]
        if isinstance(value, list):
            items = [tag for item in value for tag in written(item)]
            return ["<value>", "<array>", "<data>", *items, "</data>", "</array>", "</value>"]
        if bare:
            return [f"<value>{escaped(value)}</value>"]
        return ["<value>", f"<string>{escaped(value)}</string>", "</value>"]

    params = draw(st.lists(plain_values, max_size=3))
    inside = ["<params>", *(tag for value in params for tag in ("<param>", *written(value), "</param>")), "</params>"]
    if draw(st.booleans()):
        root = ["<methodCall>", "<methodName>a.b</methodName>", *inside, "</methodCall>"]
    else:
        root = ["<methodResponse>", *inside, "</methodResponse>"]
    return draw(st.sampled_from(PROLOGS)) + blanks.join(root) + blanks


@given(documents())
def test_plain_documents_are_parsed_by_the_fast_reader(document: str) -> None:
    """The fast reader parses plain documents with or without blanks, and with or without string tags."""
    assert agree(document.encode("ascii"))


@given(values)
def test_our_own_documents(value: Any) -> None:
    """The fast reader parses documents of plain ASCII; those with character references need the other reader."""
    for body in (write_call("a.b", ["k", value, "1"]), write_response(value)):
        is_fast = agree(body)
        assert is_fast or b"&#" in body
        assert is_fast is (parse_with_long_texts(body) is not None)


@given(plain_values)
def test_documents_of_the_standard_library(value: Any) -> None:
    assert agree(xmlrpc.client.dumps((value,), "a.b").encode())
    assert agree(xmlrpc.client.dumps((value,), methodresponse=True).encode())


TAGS = [
    *("methodCall", "methodResponse", "methodName", "params", "param", "value", "string", "array", "data", "struct"),
    *("member", "name", "fault", "int"),
]
PIECES = [
    *(f"<{tag}>" for tag in TAGS),
    *(f"</{tag}>" for tag in TAGS),
    *("<value/>", "<string/>", "<value ", "<!--x-->", "<![CDATA[x]]>", "<?x?>", "<!DOCTYPE x>", "]]>", "<", ">", "&"),
    *("text", "a.b", " ", "\n", "&lt;", "&amp;lt;", "&#60;", "&x;", "\r", "\x00", "\x01", "\x0b", "é", ""),
    *("<value><string>", "</string></value>", "<member><name>k</name>", "<param><value>", "</value></param>"),
    *("<value><struct>", "</struct></value>", "<value><array><data>", "</data></array></value>"),
    *("<methodCall><methodName>m</methodName><params>", "</params></methodCall>", "</params></methodResponse>"),
]


@pytest.mark.timeout(300)  # it takes half a minute on a very busy machine
@settings(max_examples=1000)
@given(documents(), st.data())
def test_changed_documents(document: str, data: st.DataObject) -> None:
    """Pieces at tags are removed, doubled, replaced or inserted: the fast reader never returns another value."""
    cuts = [0] + [place for place, character in enumerate(document) if character in "<>"] + [len(document)]
    places = st.sampled_from(cuts)
    for _ in range(data.draw(st.integers(1, 3))):
        start, end = sorted((data.draw(places), data.draw(places)))
        new = data.draw(st.sampled_from(PIECES) | st.just(document[start:end] * 2))
        document = document[:start] + new + document[end:]
        cuts[:] = [min(place, len(document)) for place in cuts]
    agree(document.encode())


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_random_sequences_of_pieces(inside: str) -> None:
    """Any pieces may stand between the parameters' tags, or be the document."""
    agree(f"<methodCall><methodName>m</methodName><params>{inside}</params></methodCall>".encode())
    agree(inside.encode())


def test_all_short_sequences_of_tokens() -> None:
    """The test checks each sequence of up to four tokens of the fast reader."""
    tokens = [
        *("<value>x</value>", "<param>", "</param>", "<value><struct>", "</struct></value>", "<value><array><data>"),
        *("</data></array></value>", "<member><name>k</name>", "<member>", "</member>", "<name>k</name>"),
    ]
    sequences: list[tuple[str, ...]] = [()]
    accepted = 0
    for _ in range(4):
        sequences = [(*chosen, token) for chosen in sequences for token in tokens]
        for chosen in sequences:
            inside = "".join(chosen)
            accepted += agree(f"<methodResponse><params>{inside}</params></methodResponse>".encode())
    assert accepted == 3  # of a string, an empty map and an empty list


@pytest.mark.parametrize(
    "value",
    [
        *("<int>1</int>", "<double>1.5</double>", "<string/>", "<!-- --><string>a</string>", "<![CDATA[a]]>"),
        *("a&#65;b", "a\rb", "é", "<array></array>", "<string a='b'>a</string>", "<string >a</string>"),
    ],
)
def test_other_documents_are_left_to_the_other_reader(value: str) -> None:
    """R5: the call is read nevertheless."""
    body = f"<methodCall><methodName>m</methodName><params><param><value>{value}</value></param></params></methodCall>"
    assert parse_fast(body.encode()) is None
    call = read_call(body.encode())
    assert len(call.params) == 1
    assert list(call.raw) == [None]


@pytest.mark.parametrize("value", ["]]>", "a&b", "&x;", "a\x00", "<struct><member></member></struct>"])
def test_invalid_values_are_left_to_the_strict_reader(value: str) -> None:
    """Only the strict reader raises XML errors."""
    body = f"<methodCall><methodName>m</methodName><params><param><value>{value}</value></param></params></methodCall>"
    assert parse_fast(body.encode()) is None
    with pytest.raises(XMLError):
        parse_strict(body)


@pytest.mark.parametrize(
    "document",
    [
        "<methodCall><methodName>m</methodName><params></params></methodResponse>",
        "<methodResponse><params></params></methodCall>",
        "<methodResponse><methodName>m</methodName><params></params></methodResponse>",
        "<methodCall><params></params></methodCall>",
        "<methodCall><methodName> </methodName><params></params></methodCall>",
        "<methodCall><methodName></methodName><params></params></methodCall>",
        "<?xml version='1.0\"?><methodResponse><params></params></methodResponse>",
        "<?xml version='1.0' encoding='utf-8\"?><methodResponse><params></params></methodResponse>",
        " <?xml version='1.0'?><methodResponse><params></params></methodResponse>",
        "<methodResponse><params></params></methodResponse>x",
    ],
)
def test_invalid_documents_are_left_to_the_strict_reader(document: str) -> None:
    assert parse_fast(document.encode()) is None
    with pytest.raises(XMLError):
        parse_strict(document)


@pytest.mark.parametrize(
    ("written", "name"), [("a&lt;b", "a<b"), ("a&amp;b", "a&b"), ("\ta.b\n", "a.b"), ("a>b", "a>b")]
)
def test_method_names(written: str, name: str) -> None:
    """Names with references are so rare that the other reader may parse them."""
    body = f"<methodCall><methodName>{written}</methodName><params></params></methodCall>".encode()
    assert read_call(body).name == name
    agree(body)


def test_a_deep_value_is_left_to_the_other_reader() -> None:
    """Both readers have the same limit."""
    value: Any = ""
    for _ in range(MAX_DEPTH):
        value = [value]
    body = write_response(value)
    assert agree(body)
    deeper = body.replace(b"<value><string>", b"<value><array><data><value><string>").replace(
        b"</string></value>", b"</string></value></data></array></value>"
    )
    assert parse_fast(deeper) is None
    with pytest.raises(XMLError, match="64 levels"):
        parse_strict(deeper.decode())


def test_a_doubled_key_is_left_to_the_other_reader() -> None:
    body = write_response({"a": "1", "b": "2"}).replace(b"<name>b", b"<name>a")
    assert parse_fast(body) is None
    with pytest.raises(XMLError, match="same key twice"):
        parse_strict(body.decode())


def test_long_documents_are_read_token_by_token() -> None:
    """A list of all tokens would need too much memory for a document of more than a million characters."""
    value: Any = {f"key {number}": [str(number), {"<&>": "x" * 400}] for number in range(2_000)}
    body = write_call("a.b", [value, "1"])
    assert len(body) > 1_000_000
    assert agree(body)
    assert read_call(body).params == [value, "1"]


@given(st.lists(plain_values, min_size=1, max_size=4), documents())
def test_raw_parameters_are_passed_on_unchanged(params: list[Any], document: str) -> None:
    """A parameter that the hub passes on as raw bytes reads as the value that was sent."""
    for body in (write_call("a.b", params), document.encode()):
        if b"methodCall" not in body:
            continue
        call = read_call(body)
        assert len(call.raw) == len(call.params)
        for index, value in enumerate(call.params):
            raw = call.raw[index]
            assert raw is not None
            assert bytes(raw) in body
            assert raw[:7] == b"<value>"
            assert raw[-8:] == b"</value>"
            again = read_call(write_call("c.d", ["k", PreEncoded(raw)]))
            assert again.params == ["k", value]
            assert again.raw[1] == raw
            assert xmlrpc.client.loads(write_response(PreEncoded(raw)))[0][0] == value


def test_raw_parameters_are_a_sequence() -> None:
    raw = read_call(write_call("m", ["a", {"b": "c"}, ["d"]])).raw
    assert raw[0] == b"<value><string>a</string></value>"
    assert raw[-1] == raw[2] == b"<value><array><data><value><string>d</string></value></data></array></value>"
    assert list(raw) == [raw[0], raw[1], raw[2]]
    for outside in (3, -4):
        with pytest.raises(IndexError):
            raw[outside]


LONG_TEXTS = ["x" * 70_000, "&<>\"'" * 20_000, "a ]] > b" * 10_000, " \n\t" * 30_000]


@pytest.mark.parametrize("text", LONG_TEXTS)
def test_long_texts(text: str) -> None:
    """Long texts are extracted first, wherever they are, and arrive unchanged."""
    value = {"list": [text, "short", text + text], text: {"k": text}, "samp.mtype": "a.b"}
    body = write_call("a.b", ["key", value, "10"])
    call = read_call(body)
    assert (call.name, call.params) == ("a.b", ["key", value, "10"])
    assert call.raw[1] == write_value(value)
    assert read_call(bytearray(body)).params == call.params
    short, cut = xmlrpc_fast_reader._extract_long_texts(body)
    assert len(short) < 2000
    assert set(cut.values()) == {text, text + text}


def test_a_long_text_that_is_not_plain_is_left_to_the_other_reader() -> None:
    for spoiled in ("x" * 70_000 + "]]>", "&#65;" * 20_000, "x" * 70_000 + "\x01", "x" * 70_000 + "\r"):
        body = f"<methodResponse><params><param><value>{spoiled}</value></param></params></methodResponse>".encode()
        assert parse_fast(body) is None
    name = "a" * 70_000
    assert parse_fast(write_call(name, [])) is None
    assert read_call(write_call(name, [])).name == name


def test_no_input_makes_the_fast_reader_slow() -> None:
    """Its time grows with the length of the document, not with the square of the length."""
    size = 300_000
    whole = write_response({"a": ["b"] * 10_000})
    hostile = [
        b"<methodResponse><params>" + filling * (size // len(filling)) + b"</params></methodResponse>"
        for filling in (b" ", b"<", b"<value>", b"<param>", b"<member>", b"<param> <value>", b"<value> <string>", b"]]")
    ]
    hostile += [
        b"<value>" + b" " * size,
        b"<methodResponse> <params>" * (size // 20),
        b"</params>" * (size // 9),
        b"<methodResponse><params></params>" + b" " * size + b"x",
        b"<methodCall>" + b"\n" * size,
        b"<methodCall><methodName>" + b"a" * size,
        whole[: -len(whole) // 2],
        b"<methodResponse><params><param><value>"
        + b"&amp;lt;" * (size // 8)
        + b"</value></param></params></methodResponse>",
    ]
    for body in hostile:
        started = time.thread_time()
        parse_fast(body)
        assert time.thread_time() - started < 0.5


def test_single_changed_bytes_in_a_good_document() -> None:
    """The test changes or cuts the document at each byte."""
    good = write_call("a.b", [{"k": ["v", {"w": "&"}]}, "x"])
    noise = random.Random(20261123)
    for place in range(len(good)):
        for byte in (noise.choice(b"<>/& \n\r\x00\x01;#]a"), noise.randrange(256)):
            body = good[:place] + bytes([byte]) + good[place + 1 :]
            if body.isascii():
                agree(body)
            else:
                assert parse_fast(body) is None
        assert parse_fast(good[:place]) is None


@pytest.mark.parametrize("text", ["7", "", "a &amp; b", "&lt;b&gt;", "]]", "x" * 70_000])
def test_long_lists_of_strings(text: str) -> None:
    """The fast reader extracts a long list at once, and reads correctly what is among its strings."""
    strings = [str(number) for number in range(20_000)]
    body = write_call("samp.client.receiveCall", ["key", {"samp.params": {"row-list": strings, "url": "u"}}])
    assert agree(body)
    assert agree(body.replace(b"<string>777<", f"<string>{text}<".encode()))
    between = b"777</string></value>8<value><string>"
    for wrong in (b"777<value/>", b"777</string>", b"<array>", b"&bad;", b"]]>", between):
        assert not agree(body.replace(b"<string>777<", b"<string>" + wrong + b"<"))
    for place in (b"<value><array>", b"</array></value>"):
        assert not agree(body.replace(place, place.replace(b"<value>", b"<value>x").replace(b"</value>", b"x</value>")))


def test_a_long_list_that_is_nested_too_deeply_is_left_to_the_other_reader() -> None:
    """A list is not extracted if it may be nested too deeply."""
    body = b"<methodCall><methodName>a</methodName><params><param>%b</param></params></methodCall>"
    written = b"<value><array><data>" * (MAX_DEPTH + 1) + b"<value><string>1</string></value>" * 20_000
    assert parse_fast(body % (written + b"</data></array></value>" * (MAX_DEPTH + 1))) is None
