# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A parser for all XML-RPC documents, based on expat. It is slow but simple.

It defines the value of a document; `xmlrpc_fast_reader` must return the same value or None. It uses its own stack and
stops at the first error, so deep nesting and DTDs are harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from xml.parsers import expat

from ..errors import SAMPValueError
from ..protocol import MAX_DEPTH, SAMPValue, format_float, parse_float, parse_int

#: The white space of XML.
XML_WHITESPACE = " \t\r\n"


class XMLError(SAMPValueError):
    """A document is not XML-RPC, or contains a value that is not a SAMP value."""


class ParsedDocument(NamedTuple):
    """A parsed document. Only a call has a ``method``, and only a fault has a ``fault``."""

    method: str | None
    params: list[SAMPValue]
    fault: SAMPValue | None = None


def parse_strict(text: str) -> ParsedDocument:
    """Parse a decoded document. The encoding in its XML declaration is ignored."""
    return _Reader().read(text)


# The allowed tags of the children of each element: of the first child, of the second child, and so on.
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
# Elements with any number of children, and the tag of these children.
_REPEATED = {"params": "param", "data": "value", "struct": "member"}
# The minimum number of children.
_MIN_CHILDREN = {"methodCall": 1, "methodResponse": 1, "param": 1, "fault": 1, "member": 2}
# The elements that contain text. Other elements may contain only white space between their children.
_WITH_TEXT = {"methodName", "name", "value", "string", "int", "i4", "i8", "double", "boolean"}


class _Element:
    """An open element, with the values of its children and the pieces of its text."""

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
        if "\0" in text:  # expat would decode it as UTF-16 despite the argument
            raise XMLError("the document is not XML (it has a NUL character)")
        try:
            parser.Parse(text, True)
        except expat.ExpatError as exc:
            raise XMLError(f"the document is not XML ({expat.ErrorString(exc.code)})") from None
        document: ParsedDocument = self._open[0].items[0]
        return document

    def _doctype(self, *_: object) -> None:
        # A DTD can define entities of any size and include local files.
        raise XMLError("a document type declaration is not allowed")

    def _start(self, tag: str, _attributes: object) -> None:
        parent = self._open[-1]
        if tag != _REPEATED.get(parent.tag):
            places = _IN_ORDER.get(parent.tag, ())
            count = len(parent.items)
            if count >= len(places) or tag not in places[count]:
                raise XMLError(_misplaced_tag_text(tag, parent.tag))
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
        if len(element.items) < _MIN_CHILDREN.get(tag, 0):
            raise XMLError(f"<{tag}> is not complete")
        if tag in ("array", "struct"):
            self._depth -= 1
        self._open[-1].items.append(_BUILDERS[tag](element.items, "".join(element.text)))


def _misplaced_tag_text(tag: str, parent: str) -> str:
    shown = tag if len(tag) <= 40 else tag[:37] + "..."
    if parent == "value":
        return f"<{shown}> is not a SAMP value: only strings, lists, maps and numbers are allowed"
    return f"<{shown}> is not allowed here" + (f" in <{parent}>" if parent else "")


def _value(items: list[SAMPValue], text: str) -> SAMPValue:
    if not items:
        return text  # the <string> tag is optional
    if text.strip(XML_WHITESPACE):
        raise XMLError("<value> has both text and an element")
    return items[0]


def _struct(members: list[tuple[str, SAMPValue]], _: str) -> dict[str, SAMPValue]:
    value = dict(members)
    if len(value) != len(members):
        # Two programs could use different values.
        raise XMLError("a map has the same key twice")
    return value


def _int(_: list[object], text: str) -> str:
    try:
        return str(parse_int(text.strip(XML_WHITESPACE)))
    except SAMPValueError:
        raise XMLError("an integer must consist of decimal digits") from None


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


# Functions that build the value of an element from the values of its children and its text.
_BUILDERS: dict[str, Callable[[list[Any], str], Any]] = {
    "methodCall": lambda items, _: ParsedDocument(items[0], items[1] if len(items) > 1 else []),
    "methodResponse": lambda items, _: (
        items[0] if isinstance(items[0], ParsedDocument) else ParsedDocument(None, items[0])
    ),
    "fault": lambda items, _: ParsedDocument(None, [], items[0]),
    "params": lambda items, _: items,
    "param": lambda items, _: items[0],
    "methodName": _method_name,
    "value": _value,
    "string": lambda _, text: text,
    "array": lambda items, _: items[0] if items else [],
    "data": lambda items, _: items,
    "struct": _struct,
    "member": lambda items, _: (items[0], items[1]),
    "name": lambda _, text: text,
    "int": _int,
    "i4": _int,
    "i8": _int,
    "double": _double,
    "boolean": _boolean,
}
