# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A short cut through the XML-RPC documents that programs write all day.

Why it is there: a hub parses every message, and a parser that calls back for every tag costs it more than anything
else it does. Here one regular expression swallows a whole ``<member>`` or ``<value>`` at a time, in about a
fifth of the time.

What keeps it honest: it reads only the plainest documents, in ASCII, of strings, arrays and structs, and returns None
for everything else, right or wrong. Then `xml_expat.parse` reads the document and says what is the matter with
it. The two must agree wherever both have an answer; the tests see to it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, overload

from ..protocol import MAX_DEPTH, SAMPValue
from . import Bytes
from .xmlrpc_strict_reader import XML_WHITESPACE, ParsedDocument

__all__ = ["RawParams", "parse_fast"]

# Below, a possessive quantifier (*+, ?+) never gives back what it took: no input makes these go to and fro.
# \s is what XML takes for white space, because the other characters in it are ruled out beforehand.
_HEAD = re.compile(
    r"""
    (?: <\?xml[ ]version=('|")1\.0\1 (?: [ ]encoding=('|")(?i:utf-8|us-ascii)\2 )?+ [ ]?+ \?> )?+
    \s*+ < (?: methodCall> \s*+ <methodName>([^<&\x01]++)</methodName> | methodResponse> ) \s*+ <params> \s*+
    """,
    re.ASCII | re.VERBOSE,
)
_TAIL = re.compile(r"</params>\s*+</method(Call|Response)>\s*+", re.ASCII)

# One of: a string, with what it is wrapped in on both sides; the beginning of a struct or an array; the end of one;
# and, when nothing else fits, everything up to the end of the document.
_TOKEN = re.compile(
    r"""
    (?: <(member)> \s*+ <name>([^<]*+)</name> \s*+ | <(param)> \s*+ )?+
    <value
    (?:
      (?: > \s*+ <string>([^<]*+)</string> \s*+ | >([^<]*+) ) </value> \s*+ (?: </(member|param)> \s*+ )?+
      | > \s*+ <(struct>|array>\s*+<data>) \s*+
    )
    | </(struct|data>\s*+</array)> \s*+ </value> \s*+ (?: </(member|param)> \s*+ )?+
    | ([\s\S]+)
    """,
    re.ASCII | re.VERBOSE,
)

_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n"))
_EACH_CONTROL = [bytes([control]) for control in _CONTROLS]

#: Bytes of a text, or a document, that is not to be copied and gone through again and again.
_LONG = 64 * 1024
#: Bytes to one tag where there may be such texts.
_MIN_TAG_SPACING = 1000
_UNKNOWN_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)")

# Stands for a "<" that was "&lt;", until the tags are recognised. No plain document has it.
_LT_MARK = "\x01"

# How a list of strings is written by this package, among others.
_LIST_START, _LIST_END = "<array><data><value><string>", "</string></value></data></array>"
_NEXT_STRING = "</string></value><value><string>"

# A list of all tokens is the quickest, but of a document of nothing but tags it takes ten times the memory.
_ALL_AT_ONCE = 1_000_000

_Groups: TypeAlias = "tuple[str, ...]"


def parse_fast(body: Bytes) -> ParsedDocument | None:
    """
    Read a document if it is a plain one.

    Parameters
    ----------
    body : bytes or bytearray
        The document.

    Returns
    -------
    Document or None
        What it says; None when it is not plain, or not even XML-RPC.
    """
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
    Take long texts out of a document.

    Returns
    -------
    short : bytes or bytearray
        The document with marks in their places that nobody can guess.
    cut : dict of str to str
        From marks to texts, empty for those that are not plain.
    """
    pieces: list[Bytes] = []
    cut: dict[str, str] = {}
    nonce = secrets.token_hex(16)
    done = end = 0
    for _ in range(len(body) // _MIN_TAG_SPACING):  # if there are more tags, to look at each does not pay
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
    """Take a long list of plain strings, such as half a million row numbers, out of a document, as `_cut_out` does."""
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
    """The text with all references resolved; empty when there is anything in it that is not plain."""
    if "]" in text and "]]>" in text:  # XML has that nowhere but at the end of CDATA
        return ""
    if "&" not in text:
        return text
    if _UNKNOWN_ENTITY.search(text):
        return ""
    text = text.replace("&lt;", _LT_MARK).replace("&gt;", ">").replace("&quot;", '"').replace("&apos;", "'")
    return text.replace("&amp;", "&")  # not earlier, or it would make references of "&amp;lt;"


def _has_controls(body: Bytes) -> bool:
    if len(body) < _LONG:
        return len(body.translate(None, _CONTROLS)) != len(body)
    return any(control in body for control in _EACH_CONTROL)  # many quick looks cost half as much as one that copies


def _tokens(text: str, start: int, end: int) -> Iterable[_Groups]:
    tokens: Iterable[_Groups]
    if end - start < _ALL_AT_ONCE:
        tokens = _TOKEN.findall(text, start, end)
    else:
        tokens = (match.groups("") for match in _TOKEN.finditer(text, start, end))
    if _LT_MARK in text:
        tokens = (tuple([group.replace(_LT_MARK, "<") for group in token]) for token in tokens)
    return tokens


def _values(tokens: Iterable[_Groups]) -> list[SAMPValue] | None:
    values: list[SAMPValue] = []
    current: Any = values  # the list or map that is being filled
    wrapping = "param"  # what each value in it is wrapped in: "param", "member", or "" in a list
    outer: list[tuple[Any, str]] = []  # the same for those around it
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
    The parameters of a plain call, as they are written: found when asked for, and not copied.

    Parameters
    ----------
    body : bytes or bytearray
        A document that `quick_parse` has read. That it could means that a ``<param>`` in it is one, and no
        text that looks like one.
    count : int
        How many there are.
    """

    __slots__ = ("_body", "_count")

    def __init__(self, body: Bytes, count: int) -> None:
        self._body = body
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> memoryview: ...

    @overload
    def __getitem__(self, index: slice) -> list[memoryview | None]: ...

    def __getitem__(self, index: int | slice) -> memoryview | list[memoryview | None]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        place = range(self._count)[index]
        body = self._body
        start, end = 0, len(body)
        # The message, which may be long, is the one that is asked for: it is not gone through from either side.
        for _ in range(place + 1):
            start = body.index(b"<param>", start) + len(b"<param>")
        for _ in range(self._count - place):
            end = body.rindex(b"</param>", start, end)
        return memoryview(body)[body.index(b"<", start) : body.rindex(b">", start, end) + 1]
