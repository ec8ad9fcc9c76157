# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The whole grammar of XML-RPC, on top of expat: the reader that is slow and obvious.

It gives every document its meaning; the short cut in `xml_reader` must never disagree with it. It keeps a stack of its
own and stops at the first thing that is wrong, so neither deep nesting nor a DTD can do it harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from xml.parsers import expat

from ..errors import SAMPValueError
from ..protocol import MAX_DEPTH, SAMPValue, format_float, parse_float, parse_int

__all__ = ["XML_WHITESPACE", "ParsedDocument", "XMLError", "parse_strict"]

#: What XML takes for white space.
XML_WHITESPACE = " \t\r\n"


class XMLError(SAMPValueError):
    """A document is not XML-RPC, or holds what is no SAMP value."""


class ParsedDocument(NamedTuple):
    """What a document says: a call has a method, a fault has a value in ``fault``, an answer has neither."""

    method: str | None
    params: list[SAMPValue]
    fault: SAMPValue | None = None


def parse_strict(text: str) -> ParsedDocument:
    """
    Read a document.

    Parameters
    ----------
    text : str
        The document; the encoding that it declares is of no account any more.

    Raises
    ------
    XMLError
        When it is not XML-RPC, or holds what is no SAMP value.
    """
    return _Reader().read(text)


# The elements that may stand in an element: the first of them, the second...
_IN_ORDER = {
    "": ({"methodCall", "methodResponse"},),
    "methodCall": ({"methodName"}, {"params"}),
    "methodResponse": ({"params", "fault"},),
    "param": ({"value"},),
    "fault": ({"value"},),
    "value": ({"string", "array", "struct", "int", "i4", "i8", "double", "boolean"},),
    "array": ({"data"},),
    "member": ({"name"}, {"value"}),
}
# ... or any number of them.
_REPEATED = {"params": "param", "data": "value", "struct": "member"}
# How many there must be at least.
_LEAST = {"methodCall": 1, "methodResponse": 1, "param": 1, "fault": 1, "member": 2}
# The elements whose text means something. Elsewhere only white space may stand.
_WITH_TEXT = {"methodName", "name", "value", "string", "int", "i4", "i8", "double", "boolean"}


class _Element:
    """An element that is still open: what its children amount to, and the pieces of its text."""

    __slots__ = ("items", "tag", "text")

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.items: list[Any] = []
        self.text: list[str] = []


class _Reader:
    def __init__(self) -> None:
        self._open = [_Element("")]
        self._depth = 0

    def read(self, text: str) -> ParsedDocument:
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        if "\0" in text:  # expat would take it for UTF-16, whatever it is told
            raise XMLError("the document is not XML (it has a NUL character)")
        try:
            parser.Parse(text, True)
        except expat.ExpatError as exc:
            raise XMLError(f"the document is not XML ({expat.ErrorString(exc.code)})") from None
        document: ParsedDocument = self._open[0].items[0]
        return document

    def _doctype(self, *_: object) -> None:
        # With it go entities of any size and files of this machine that a document could name.
        raise XMLError("a document type declaration is not allowed")

    def _start(self, tag: str, _attributes: object) -> None:
        parent = self._open[-1]
        if tag != _REPEATED.get(parent.tag):
            places = _IN_ORDER.get(parent.tag, ())
            count = len(parent.items)
            if count >= len(places) or tag not in places[count]:
                raise XMLError(_misplaced(tag, parent.tag))
        if tag in ("array", "struct"):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise XMLError(f"lists and maps are nested more than {MAX_DEPTH} levels deep")
        self._open.append(_Element(tag))

    def _characters(self, text: str) -> None:
        element = self._open[-1]
        if element.tag in _WITH_TEXT:
            element.text.append(text)
        elif text.strip(XML_WHITESPACE):
            raise XMLError(f"<{element.tag}> has text between its elements")

    def _end(self, tag: str) -> None:
        element = self._open.pop()
        if len(element.items) < _LEAST.get(tag, 0):
            raise XMLError(f"<{tag}> is not complete")
        if tag in ("array", "struct"):
            self._depth -= 1
        self._open[-1].items.append(_BUILDERS[tag](element.items, "".join(element.text)))


def _misplaced(tag: str, parent: str) -> str:
    shown = tag if len(tag) <= 40 else tag[:37] + "..."
    if parent == "value":
        return f"<{shown}> is no SAMP value: only strings, lists and maps are, and numbers, which become strings"
    return f"<{shown}> cannot stand here" + (f" in <{parent}>" if parent else "")


def _value(items: list[SAMPValue], text: str) -> SAMPValue:
    if not items:
        return text  # a string does not need its tag
    if text.strip(XML_WHITESPACE):
        raise XMLError("<value> has both text and an element")
    return items[0]


def _struct(members: list[tuple[str, SAMPValue]], _: str) -> dict[str, SAMPValue]:
    value = dict(members)
    if len(value) != len(members):
        # Two readers could each take another one of them for the truth.
        raise XMLError("a map has the same key twice")
    return value


def _int(_: list[object], text: str) -> str:
    try:
        return str(parse_int(text.strip(XML_WHITESPACE)))
    except SAMPValueError:
        raise XMLError("an integer is not made of digits") from None


def _double(_: list[object], text: str) -> str:
    try:
        return format_float(parse_float(text.strip(XML_WHITESPACE)))
    except SAMPValueError:
        raise XMLError("a <double> is not a finite decimal number") from None


def _boolean(_: list[object], text: str) -> str:
    known = {"1": "1", "0": "0", "true": "1", "false": "0"}.get(text.strip(XML_WHITESPACE))
    if known is None:
        raise XMLError("a <boolean> is neither 1 nor 0")
    return known


def _method_name(_: list[object], text: str) -> str:
    name = text.strip(XML_WHITESPACE)
    if not name:
        raise XMLError("a call has an empty method name")
    return name


def _first(items: list[Any], _: str) -> Any:
    return items[0]


def _all(items: list[Any], _: str) -> list[Any]:
    return items


def _text(_: list[object], text: str) -> str:
    return text


# What an element amounts to, made of what its children amount to and its text.
_BUILDERS: dict[str, Callable[[list[Any], str], Any]] = {
    "methodCall": lambda items, _: ParsedDocument(items[0], items[1] if len(items) > 1 else []),
    "methodResponse": lambda items, _: items[0] if isinstance(items[0], ParsedDocument) else ParsedDocument(None, items[0]),
    "fault": lambda items, _: ParsedDocument(None, [], items[0]),
    "params": _all,
    "param": _first,
    "methodName": _method_name,
    "value": _value,
    "string": _text,
    "array": lambda items, _: items[0] if items else [],
    "data": _all,
    "struct": _struct,
    "member": lambda items, _: (items[0], items[1]),
    "name": _text,
    "int": _int,
    "i4": _int,
    "i8": _int,
    "double": _double,
    "boolean": _boolean,
}
