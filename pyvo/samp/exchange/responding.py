# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handlers that take just what they name: ``def row(table_id, row: int)``.

The parameters of a message are given by their names, decoded by the annotations; the return value becomes the result
of a call, an exception its error. What a handler takes is found out once, when it is bound. Decoding, which may mean
to fetch a table, is done in the client's thread; the handler itself runs where the program wants its handlers to.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SAMPClientError, SAMPTypeError
from ..handlers import direct
from ..protocol import parse_bool, parse_float, parse_int
from .addressing import name_of
from .loading import Sender, load, read_position

if TYPE_CHECKING:
    from .workbench import Workbench

__all__ = ["respond_with"]

Run = Callable[..., Any]
Decode = Callable[[Any], Any]

#: What a handler may name beside the message's parameters.
_ABOUT = ("sender", "mtype", "params")
#: Classes that are made of a whole message, by the names that they may have.
_PRODUCTS = {"Table", "QTable", "HDUList", "SkyCoord", "MOC", "Spectrum", "Spectrum1D", "Picture", "Received"}


def respond_with(bench: Workbench, function: Callable[..., Any], run: Run) -> Callable[..., Any]:
    """
    Make a handler, as `bind_receive_message` takes it, of a function that takes parameters by their names.

    Parameters
    ----------
    bench : Workbench
        What the client has to work with.
    function : callable
        The function.
    run : callable
        ``run(function, **arguments)`` calls it where the program wants its handlers to run.

    Returns
    -------
    callable
        The handler.
    """
    arguments = _Arguments(function)

    @direct
    def handler(_key: str, sender_id: str, mtype: str, params: Mapping[str, Any], _extra: Any) -> Any:
        def sender() -> Sender:
            return Sender(sender_id, name_of(bench.host, sender_id))

        return _result(run(function, **arguments.of(mtype, params, sender)))

    return handler


class _Arguments:
    """What a function takes, and how it is made of a message."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise SAMPClientError(f"A handler is something to call, not {function!r}")
        self._wants: dict[str, tuple[Decode | None, bool, bool]] = {}
        self._takes_rest = False
        hints = _hints(function)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                self._takes_rest = True
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise SAMPClientError(f"A handler takes parameters by name; {parameter.name!r} cannot be given so")
            else:
                hint = hints.get(parameter.name, parameter.annotation)
                decode = None if hint is parameter.empty else _decoder(hint)
                self._wants[parameter.name] = (decode, parameter.default is parameter.empty, _is_product(hint))

    def of(self, mtype: str, params: Mapping[str, Any], sender: Callable[[], Sender]) -> dict[str, Any]:
        """The arguments for one message."""
        given = {_identifier(key): value for key, value in params.items()}
        arguments: dict[str, Any] = {}
        for name, (decode, required, is_product) in self._wants.items():
            if is_product and not isinstance(given.get(name), dict):
                arguments[name] = load(mtype, params, sender()) if "url" in params else read_position(params)
            elif name in given:
                arguments[name] = self._decode(name, decode, given[name])
            elif name in _ABOUT and required:
                arguments[name] = sender() if name == "sender" else mtype if name == "mtype" else dict(params)
            elif required:
                raise SAMPClientError(f"The message {mtype} has no parameter {name.replace('_', '-')!r}")
        if self._takes_rest:
            arguments.update({name: value for name, value in given.items() if name not in self._wants})
        return arguments

    @staticmethod
    def _decode(name: str, decode: Decode | None, value: Any) -> Any:
        if decode is None:
            return value
        try:
            return decode(value)
        except (ValueError, TypeError) as error:
            raise SAMPClientError(f"The parameter {name.replace('_', '-')!r}: {error}") from error


def _identifier(key: str) -> str:
    """``table-id`` as ``table_id``."""
    return re.sub(r"\W", "_", key)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target: Any = function if inspect.isroutine(function) else type(function).__call__
    target = getattr(function, "func", target)  # a partial
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError, AttributeError):  # names that are known to type checkers only, or not here
        return {}


def _is_product(hint: Any) -> bool:
    name = hint.rpartition(".")[2] if isinstance(hint, str) else getattr(hint, "__name__", "")
    return name in _PRODUCTS


# Decoding


def _decoder(hint: Any) -> Decode | None:
    """How a SAMP value becomes what an annotation names (R3); None for what is given as it is."""
    if isinstance(hint, str):  # it could not be resolved; the plain ones can
        plain = {"int": int, "float": float, "bool": bool, "list[int]": list[int], "list[float]": list[float]}
        hint = plain.get(hint.replace(" ", ""), Any)
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        return _either([_decoder(kind) for kind in kinds])
    if origin is list:
        return _list_of(_decoder(inner[0]) if inner else None)
    if getattr(hint, "__name__", "") == "ndarray" or getattr(origin, "__name__", "") == "ndarray":
        return _array
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise SAMPTypeError(f"a {type(value).__name__} came where a string was expected")
    return value


_SCALARS: dict[Any, Decode] = {
    int: lambda value: parse_int(_text(value)),
    float: lambda value: parse_float(_text(value)),
    bool: lambda value: parse_bool(_text(value)),
    str: _text,
}


def _either(decoders: list[Decode | None]) -> Decode:
    def decode(value: Any) -> Any:
        failure: Exception | None = None
        for decoder in decoders:
            try:
                return value if decoder is None else decoder(value)
            except (ValueError, TypeError) as error:
                failure = error
        assert failure is not None
        raise failure

    return decode


def _list_of(decoder: Decode | None) -> Decode:
    def decode(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise SAMPTypeError(f"a {type(value).__name__} came where a list was expected")
        return [item if decoder is None else decoder(item) for item in value]

    return decode


def _array(value: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    items = _list_of(_text)(value)
    try:
        return np.array([parse_int(item) for item in items], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array([parse_float(item) for item in items], dtype=float)


# Encoding


def _result(value: Any) -> Any:
    """What a handler returned, as a map: a single value is given the key by which SAMP's own messages have one."""
    if value is None or isinstance(value, Mapping):
        return value
    if hasattr(value, "icrs"):
        return {"ra": float(value.icrs.ra.deg), "dec": float(value.icrs.dec.deg)}
    return {"value": value}
