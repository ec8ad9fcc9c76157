# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""SAMP values (strings, lists and maps), and how Python objects are encoded as SAMP values (rules R1 to R4)."""

from __future__ import annotations

import math
import os
import re
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from ..errors import SAMPTypeError, SAMPValueError, warn

SAMPValue: TypeAlias = "str | list[SAMPValue] | dict[str, SAMPValue]"

#: The maximum depth of nested lists and maps, for reading and writing.
MAX_DEPTH = 64

# The place of a value in the object that is encoded: (place of the parent, key or index), or None for the outermost
# value. It is turned into a path only for an error message.
_Place: TypeAlias = "tuple[_Place, str | int] | None"

_INT = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

# XML 1.0 does not allow these characters, not even as references.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

# Unicode categories: Cc control, Cf format (bidirectional overrides, zero-width), Cs surrogate, Co private,
# Cn unassigned, Zl and Zp line ends
_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")

# In a list of at least this length, checking whether all items are integers saves time.
_LONG_LIST = 64

# Longer than any useful number, and short enough for int() and float() to be fast.
_MAX_DIGITS = 400


def encode(value: object, path: str = "") -> SAMPValue:
    """
    Encode a Python object as a SAMP value (rule R4).

    The object is a `str`, `bool`, `int`, `float` or numpy scalar, or a list, tuple, one-dimensional array or mapping of
    these. Numbers become strings (R3), and tuples and arrays become lists, at any depth. The object is not modified.
    ``path`` is the name of the value in error messages, for example ``samp.params``; the keys below it are appended.

    `SAMPTypeError` is raised for an object that SAMP cannot carry, such as `None`, `bytes` or a path, and for a key
    that is not a string; `SAMPValueError` for NaN, infinities, control characters and values that are nested too deep.
    The text names the place, for example ``samp.params/rows/3``. If any text is not plain ASCII, one `SAMPWarning` is
    given: hubs based on JSAMP refuse such a message.
    """
    return _Encoder(path).encode(value)


class _Encoder:
    """The state of one call of `encode`: the name of the outermost value, and the first text that is not ASCII."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._ascii = True
        self._beyond_ascii: _Place = None

    def encode(self, value: object) -> SAMPValue:
        encoded = self._value(value, None, 0)
        if not self._ascii:
            warn(
                f"{self._name(self._beyond_ascii)} has characters beyond ASCII: hubs based on JSAMP (such as those "
                "of TOPCAT and Aladin) refuse the whole message"
            )
        return encoded

    def _value(self, value: object, place: _Place, depth: int) -> SAMPValue:
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, Mapping):
            return self._map(value, place, depth + 1)
        if isinstance(value, list | tuple):
            return self._list(value, place, depth + 1)
        if isinstance(value, int | float):
            return self._number(value, place)
        # If numpy has not been imported, the value cannot be a numpy object
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
            return self._from_numpy(value, place, depth)
        raise SAMPTypeError(f"{self._name(place)} {_unsupported_type_text(value)}")

    def _text(self, value: str, place: _Place) -> str:
        if found := _FORBIDDEN.search(value):
            raise SAMPValueError(
                f"{self._name(place)} contains the character {found.group()!r}, which SAMP cannot carry"
            )
        if self._ascii and not value.isascii():
            self._ascii = False
            self._beyond_ascii = place
        # Not str(value): an enumeration of strings has a __str__ of its own.
        return value if type(value) is str else str.__str__(value)

    def _map(self, value: Mapping[Any, object], place: _Place, depth: int) -> dict[str, SAMPValue]:
        self._check_depth(depth)
        encoded = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise SAMPTypeError(
                    f"{self._name(place)} has the key {key!r}, a {type(key).__name__}: the keys of a SAMP map "
                    "are strings"
                )
            here = (place, key)
            encoded[self._text(key, here)] = self._value(item, here, depth)
        return encoded

    def _list(self, value: list[object] | tuple[object, ...], place: _Place, depth: int) -> list[SAMPValue]:
        self._check_depth(depth)
        if len(value) >= _LONG_LIST and set(map(type, value)) == {int}:  # such as half a million row numbers
            numbers = cast("list[int]", value)
            if max(numbers) < 2**63 and min(numbers) >= -(2**63):
                return list(map(str, numbers))
        return [self._value(item, (place, index), depth) for index, item in enumerate(value)]

    def _number(self, value: float, place: _Place) -> str:
        if isinstance(value, bool):  # a subclass of int
            return "1" if value else "0"
        try:
            return int.__repr__(value) if isinstance(value, int) else format_float(value)
        except SAMPValueError as exc:
            raise SAMPValueError(f"{self._name(place)}: {exc}") from None
        except ValueError:  # Python refuses to convert integers of more than 4300 digits
            raise SAMPValueError(f"{self._name(place)} is an integer of too many digits") from None

    def _from_numpy(self, value: Any, place: _Place, depth: int) -> SAMPValue:
        if getattr(value, "unit", None) is not None:
            raise SAMPTypeError(
                f"{self._name(place)} has a unit ({value.unit}), and a SAMP number has none: send the plain "
                "number in the unit that the MType asks for"
            )
        if value.ndim > 1:
            raise SAMPTypeError(f"{self._name(place)} is an array of {value.ndim} dimensions, not of one")
        kind = value.dtype.kind
        if kind not in "biufUO":  # tolist() would turn dates into bare integers
            raise SAMPTypeError(f"{self._name(place)} holds {value.dtype.name}, not strings or numbers")
        if kind == "f":  # tolist() would leave a long double as it is
            value = value.astype(float)
        return self._value(value.tolist(), place, depth)

    def _check_depth(self, depth: int) -> None:
        # This also ends the recursion for a list that contains itself. The text leaves out the path of 64 keys
        if depth > MAX_DEPTH:
            raise SAMPValueError(f"{self._name(None)} is nested more than {MAX_DEPTH} levels deep")

    def _name(self, place: _Place) -> str:
        keys: list[str] = []
        while place is not None:
            place, key = place
            keys.append(str(key))
        keys.append(self._root)
        return "/".join(reversed(keys)).lstrip("/") or "the value"


def _unsupported_type_text(value: object) -> str:
    """Return why SAMP cannot carry an object, and what to do instead."""
    if value is None:
        return "is None (or a masked value): leave the key out, or send an empty string"
    if isinstance(value, bytes | bytearray | memoryview):
        return "is bytes: SAMP carries text, so decode it first"
    if isinstance(value, os.PathLike):
        return "is a path: other programs need a URL, so send path.absolute().as_uri()"
    return f"is a {type(value).__name__}, not a string, number, list or map"


def format_float(x: float) -> str:
    """
    Write a float as a SAMP float (rule R3); raise `SAMPValueError` if it is not finite.

    The result is the shortest decimal that reads back as the same number. Between 1e-9 and 1e16 it has no exponent.
    """
    if not math.isfinite(x):
        raise SAMPValueError(f"{float(x)} is not finite, as a SAMP float must be")
    shortest = repr(float(x))
    mantissa, _, exponent = shortest.partition("e")
    if not exponent or not 1e-9 <= abs(x) <= 1e16:
        return shortest
    # DS9 does not understand an exponent. The point is moved within the string: "%.17f" would round a second time, and
    # next to a power of two that gives a different number.
    sign, digits, shift = "-" if x < 0 else "", mantissa.lstrip("-").replace(".", ""), int(exponent)
    return f"{sign}0.{'0' * (-shift - 1)}{digits}" if shift < 0 else f"{sign}{digits:0<{shift + 1}}.0"


def parse_int(text: str) -> int:
    """Read a SAMP int, ``[+-]?digits`` (rule R3); raise `SAMPValueError` for anything else."""
    if len(text) > _MAX_DIGITS or not _INT.fullmatch(text):
        raise SAMPValueError(f"{_shown(text)} is not a SAMP int")
    return int(text)


def parse_float(text: str) -> float:
    """Read a SAMP float, a decimal with an optional exponent (rule R3); raise `SAMPValueError` otherwise."""
    if len(text) <= _MAX_DIGITS and _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
    raise SAMPValueError(f"{_shown(text)} is not a SAMP float")


def parse_bool(text: str) -> bool:
    """Read a SAMP boolean, ``"1"`` or ``"0"`` (rule R3); raise `SAMPValueError` for anything else."""
    if text not in ("0", "1"):
        raise SAMPValueError(f"{_shown(text)} is not a SAMP boolean")
    return text == "1"


def _shown(text: str) -> str:
    """Return a text as an error message shows it: quoted, and shortened if it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def sanitize_for_display(text: str, limit: int = 80) -> str:
    """
    Make a text from another program safe to show in a terminal or a dialog: one line of at most ``limit`` characters.

    A character that could move the cursor, colour the terminal or reverse the direction of writing becomes ``?``.
    """
    shown = text[: 4 * limit]
    if not (shown.isascii() and shown.isprintable()):
        shown = unicodedata.normalize("NFC", shown)
        shown = "".join(" " if c in "\t\n\r" else "?" if unicodedata.category(c) in _UNSAFE else c for c in shown)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
