# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A fast parser for plain XML-RPC documents, which most programs write.

A hub parses every message, and a parser with a callback for every tag would take most of the hub's time. This parser
uses a regular expression that matches a whole ``<member>`` or ``<value>``, which takes about a fifth of that time.

It reads only plain documents, which are ASCII and contain only strings, arrays and structs. It returns None for all
other documents, valid or not; `parse_strict` parses these. Tests check that both parsers return the same value.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from ..protocol import MAX_DEPTH, SAMPValue
from . import Bytes
from .xmlrpc_strict_reader import XML_WHITESPACE, ParsedDocument

# The quantifiers are possessive (*+, ?+), so no input causes backtracking. Only a "?" after a group is not possessive,
# because before Python 3.11.5 possessive groups lose the text they captured (gh-101955, Debian 12 has 3.11.2); skipping
# such a group leaves no alternatives to try.
# \s matches only the white space of XML, because documents with other white space are rejected before.
_HEAD = re.compile(
    r"""
    (?: <\?xml[ ]version=('|")1\.0\1 (?: [ ]encoding=('|")(?i:utf-8|us-ascii)\2 )? [ ]?+ \?> )?
    \s*+ < (?: methodCall> \s*+ <methodName>([^<&\x01]++)</methodName> | methodResponse> ) \s*+ <params> \s*+
    """,
    re.ASCII | re.VERBOSE,
)
_TAIL = re.compile(r"</params>\s*+</method(Call|Response)>\s*+", re.ASCII)

# A token is a string with the tags around it, or the start or the end of a struct or array. If nothing else matches, it
# is the rest of the document.
_TOKEN = re.compile(
    r"""
    (?: <(member)> \s*+ <name>([^<]*+)</name> \s*+ | <(param)> \s*+ )?
    <value
    (?:
      (?: > \s*+ <string>([^<]*+)</string> \s*+ | >([^<]*+) ) </value> \s*+ (?: </(member|param)> \s*+ )?
      | > \s*+ <(struct>|array>\s*+<data>) \s*+
    )
    | </(struct|data>\s*+</array)> \s*+ </value> \s*+ (?: </(member|param)> \s*+ )?
    | ([\s\S]+)
    """,
    re.ASCII | re.VERBOSE,
)

_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n"))
_EACH_CONTROL = [bytes([control]) for control in _CONTROLS]

#: Texts and documents above this size are not copied or searched several times.
_LONG = 64 * 1024
#: Long texts are extracted only from documents with at most one tag in this many bytes on average.
_MIN_TAG_SPACING = 1000
_UNKNOWN_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)")

# Replaces "&lt;" until the tags have been matched. A plain document does not contain this character.
_LT_MARK = "\x01"

# The tags of a list of strings, as this package and other programs write them.
_LIST_START, _LIST_END = "<array><data><value><string>", "</string></value></data></array>"
_NEXT_STRING = "</string></value><value><string>"

# Up to this size the tokens are in a list, which is faster than an iterator but can take ten times the memory of the
# document.
_MAX_LIST_SIZE = 1_000_000

_Groups: TypeAlias = "tuple[str, ...]"


def parse_fast(body: Bytes) -> ParsedDocument | None:
    """Parse a document; return None if it is not plain or not XML-RPC."""
    if not body.isascii() or _has_controls(body):
        return None
    short, cut = _extract_long_texts(body) if len(body) > _LONG else (body, {})
    text = _unescape(short.decode("ascii"))
    if len(text) > _LONG:
        text = _without_long_list(text, cut)
    head = _HEAD.match(text)
    end = text.rfind("</params>")
    if head is None or end < 0 or "" in cut.values():
        return None
    method = head[3]
    tail = _TAIL.fullmatch(text, end)
    if tail is None or tail[1] != ("Response" if method is None else "Call"):
        return None
    tokens = _tokens(text, head.end(), end)
    if cut:
        tokens = (tuple([cut.get(group, group) for group in token]) for token in tokens)
    params = _values(tokens)
    if params is None or method is None:
        return None if params is None else ParsedDocument(None, params)
    name = method.strip(XML_WHITESPACE)
    return ParsedDocument(name, params) if name and name not in cut else None


def _extract_long_texts(body: Bytes) -> tuple[Bytes, dict[str, str]]:
    """
    Replace the long texts of a document by unpredictable marks.

    Return the shorter document and a dict with the text for each mark. The text is empty if it is not plain.
    """
    pieces: list[Bytes] = []
    cut: dict[str, str] = {}
    nonce = secrets.token_hex(16)
    done = end = 0
    for _ in range(len(body) // _MIN_TAG_SPACING):  # with more tags, the search would take too long
        start = body.find(b">", end) + 1
        end = body.find(b"<", start)
        if not start or end < 0:
            break
        if end - start > _LONG:
            mark = f"{nonce}-{len(cut)}"
            cut[mark] = _unescape(str(memoryview(body)[start:end], "ascii")).replace(_LT_MARK, "<")
            pieces += (body[done:start], mark.encode("ascii"))
            done = end
    if not cut:
        return body, cut
    pieces.append(body[done:])
    return b"".join(pieces), cut


def _without_long_list(text: str, cut: dict[str, Any]) -> str:
    """Replace a long list of strings, such as half a million row numbers, by a mark like `_extract_long_texts`."""
    start = text.find(_LIST_START)
    end = text.find(_LIST_END, start)
    if start < 0 or end - start < _LONG or text.count("<", 0, start) >= MAX_DEPTH:
        return text
    strings = text[start + len(_LIST_START) : end].split(_NEXT_STRING)
    if "<" in "".join(strings):
        return text
    if _LT_MARK in text:
        strings = [string.replace(_LT_MARK, "<") for string in strings]
    if cut:
        strings = [cut.get(string, string) for string in strings]
    mark = f"{secrets.token_hex(16)}-list"
    cut[mark] = strings
    return f"{text[:start]}<string>{mark}</string>{text[end + len(_LIST_END) :]}"


def _unescape(text: str) -> str:
    """Return the text with all references resolved; return an empty string if it is not plain."""
    if "]" in text and "]]>" in text:  # XML allows this only at the end of CDATA
        return ""
    if "&" not in text:
        return text
    if _UNKNOWN_ENTITY.search(text):
        return ""
    text = text.replace("&lt;", _LT_MARK).replace("&gt;", ">").replace("&quot;", '"').replace("&apos;", "'")
    return text.replace("&amp;", "&")  # last, otherwise "&amp;lt;" would become "<"


def _has_controls(body: Bytes) -> bool:
    if len(body) < _LONG:
        return len(body.translate(None, _CONTROLS)) != len(body)
    return any(control in body for control in _EACH_CONTROL)  # all searches together take half the time of one copy


def _tokens(text: str, start: int, end: int) -> Iterable[_Groups]:
    tokens: Iterable[_Groups]
    if end - start < _MAX_LIST_SIZE:
        tokens = _TOKEN.findall(text, start, end)
    else:
        tokens = (match.groups("") for match in _TOKEN.finditer(text, start, end))
    if _LT_MARK in text:
        tokens = (tuple([group.replace(_LT_MARK, "<") for group in token]) for token in tokens)
    return tokens


def _values(tokens: Iterable[_Groups]) -> list[SAMPValue] | None:
    values: list[SAMPValue] = []
    current: Any = values  # the list or map that is being filled
    wrapping = "param"  # the tag around each value in it: "param", "member", or "" in a list
    outer: list[tuple[Any, str]] = []  # the same for the enclosing lists and maps
    value: SAMPValue
    for member, name, param, string, bare, after, opening, closing, after_closing, rest in tokens:
        if closing:
            if not outer or (closing == "struct") is not (wrapping == "member"):
                return None
            current, wrapping = outer.pop()
            if after_closing != wrapping:
                return None
            continue
        value = string or bare
        if opening:
            value = {} if opening == "struct>" else []
        mismatched = (member or param) != wrapping or after != ("" if opening else wrapping)
        if rest or mismatched or (member and name in current):
            return None
        if member:
            current[name] = value
        else:
            current.append(value)
        if opening:
            outer.append((current, wrapping))
            if len(outer) > MAX_DEPTH:
                return None
            current, wrapping = value, ("member" if opening == "struct>" else "")
    return None if outer else values


class RawParams(Sequence[memoryview | None]):
    """
    The bytes of the parameters of a plain call. They are found on demand and not copied.

    `parse_fast` must be able to read ``body``, so that each ``<param>`` in it is a tag and not part of a text.
    """

    __slots__ = ("_body", "_count")

    def __init__(self, body: Bytes, count: int) -> None:
        self._body = body
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """Return the bytes ``<value>...</value>`` of one parameter."""
        place = range(self._count)[index]
        body = self._body
        start, end = 0, len(body)
        # Search from both ends, so that the parameter itself is not searched: it may be a long message.
        for _ in range(place + 1):
            start = body.index(b"<param>", start) + len(b"<param>")
        for _ in range(self._count - place):
            end = body.rindex(b"</param>", start, end)
        return memoryview(body)[body.index(b"<", start) : body.rindex(b">", start, end) + 1]
