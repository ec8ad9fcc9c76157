# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handlers that take just what they name: ``def row(table_id, row: int)``.

The parameters of a message are given by their names, decoded by the annotations; the return value becomes the result
of a call, an exception its error. What a handler takes is found out once, when it is bound. Decoding, which may mean
to fetch a table, is done in the client's thread; the handler itself runs where the program wants its handlers to.
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..client.handlers import internal_handler, refuse_coroutine_function
from ..client.lookup import client_name
from ..errors import SAMPClientError, SAMPTypeError
from ..formats.model import Sender
from ..protocol import parse_bool, parse_float, parse_int

if TYPE_CHECKING:
    from .sending import ExchangeState

__all__ = ["make_typed_handler"]

Run = Callable[..., Any]
Decode = Callable[[Any], Any]

#: Classes that are made of a whole message, by the names that they may have.
_OBJECT_TYPES = frozenset(
    ("Table", "QTable", "HDUList", "SkyCoord", "MOC", "Spectrum", "Spectrum1D", "Picture", "Received")
)
_UNIONS = (typing.Union, types.UnionType)


def make_typed_handler(state: ExchangeState, function: Callable[..., Any], run: Run) -> Callable[..., Any]:
    """
    Make a handler, as `bind_receive_message` takes it, of a function that takes parameters by their names.

    Parameters
    ----------
    state : ExchangeState
        The state of the client.
    function : callable
        The function.
    run : callable
        ``run(function, **arguments)`` calls it where the program wants its handlers to run.

    Returns
    -------
    callable
        The handler.
    """
    arguments = _Signature(function)
    title = getattr(function, "__qualname__", None) or repr(function)

    @internal_handler
    def handler(_key: str, sender_id: str, mtype: str, params: Mapping[str, Any], _extra: Any) -> Any:
        def sender() -> Sender:
            return Sender(sender_id, client_name(state.client, sender_id))

        value = run(function, **arguments.of(mtype, params, sender))
        if inspect.iscoroutine(value):  # a coroutine function within one that does not look like one
            value.close()
            refuse_coroutine_function(title, is_one=True)
        return _result(value)

    return handler


class _Parameter(NamedTuple):
    """What a handler wants for one of its parameters."""

    decode: Decode | None
    required: bool
    #: The classes of which it wants one, where these are made of a whole message.
    products: frozenset[str]
    may_be_none: bool


class _Signature:
    """What a function takes, and how it is made of a message."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise SAMPClientError(f"A handler is something to call, not {function!r}")
        self._wants: dict[str, _Parameter] = {}
        self._takes_rest = False
        parameters = _parameters(function)
        for name, (parameter, hint) in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                self._takes_rest = True
            elif parameter.kind is parameter.VAR_POSITIONAL and any(
                other.kind is other.VAR_KEYWORD for other, _ in parameters.values()
            ):
                continue  # (*args, **kwargs): all is given by name
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise SAMPClientError(f"A handler takes parameters by name; {name!r} cannot be given so")
            else:
                decode = None if hint is parameter.empty else _decoder(hint)
                names = _names_in(hint)
                self._wants[name] = _Parameter(
                    decode, parameter.default is parameter.empty, names & _OBJECT_TYPES, "None" in names
                )
        fixed = function.keywords if isinstance(function, functools.partial) else {}
        #: What the program itself has given to a partial; a message does not change it.
        self._fixed = frozenset(fixed)

    def of(self, mtype: str, params: Mapping[str, Any], sender: Callable[[], Sender]) -> dict[str, Any]:
        """The arguments for one message."""
        given = {_identifier(key): value for key, value in params.items()}
        about: dict[str, Callable[[], Any]] = {"sender": sender, "mtype": lambda: mtype, "params": lambda: dict(params)}
        arguments: dict[str, Any] = {}
        for name, want in self._wants.items():
            if name in self._fixed:
                continue
            if want.products and not isinstance(given.get(name), dict):
                arguments.update(_object_for(name, want, mtype, params, sender))
            elif name in given:
                arguments[name] = self._decode(name, want.decode, given[name])
            elif name in about:
                arguments[name] = about[name]()
            elif want.required:
                raise SAMPClientError(f"The message {mtype} has no parameter {name.replace('_', '-')!r}")
        if self._takes_rest:
            known = {*self._wants, *self._fixed}
            arguments.update({name: value for name, value in given.items() if name not in known})
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


def _parameters(function: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    """
    What a function can be called with, and what its annotations mean.

    A decorator that uses `functools.wraps` and passes on what it does not name itself (``**kwargs``) takes what the
    function within takes, too.
    """
    found: dict[str, tuple[inspect.Parameter, Any]] = {}
    layer: Any = function
    while layer is not None:
        inner = _wrapped(layer)
        try:
            parameters = inspect.signature(layer, follow_wrapped=False).parameters
        except (TypeError, ValueError) as error:  # some functions written in C do not tell
            if inner is None:
                raise SAMPClientError(f"A handler takes parameters by name; {layer!r} does not tell its own") from error
            layer = inner
            continue
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            inner = None
        namespace = getattr(_code_of(layer), "__globals__", None)
        for name, parameter in parameters.items():
            if inner is None or parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(name, (parameter, _resolved(parameter.annotation, namespace)))
        layer = inner
    return found


def _wrapped(function: Any) -> Any:
    """The function that one wraps by `functools.wraps`, as it is to be called; None if there is none."""
    if isinstance(function, functools.partial):
        inner = _wrapped(function.func)
        return None if inner is None else functools.partial(inner, *function.args, **function.keywords)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is None and not inspect.isroutine(function) and not inspect.isclass(function):
        function = function.__call__
        wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and inspect.ismethod(function):  # the function within still takes self
        return types.MethodType(wrapped, function.__self__)
    return wrapped


def _code_of(function: Any) -> Any:
    """The function in whose module the annotations are to be understood."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return inspect.unwrap(function.__init__)
    if not inspect.isroutine(function):
        function = type(function).__call__
    return getattr(function, "__func__", function)


def _resolved(hint: Any, namespace: dict[str, Any] | None) -> Any:
    """An annotation as what it names; as it stands if that is known to type checkers only, or not in its module."""
    holder = type("_", (), {"__annotations__": {"hint": hint}})
    try:
        return hint if hint is inspect.Parameter.empty else typing.get_type_hints(holder, namespace)["hint"]
    except Exception:  # an annotation may be any expression
        return hint


def _names_in(hint: Any) -> frozenset[str]:
    """The names of the classes between which an annotation leaves the choice."""
    if isinstance(hint, str):  # it could not be resolved
        names = [name.rpartition(".")[2] for name in re.findall(r"[\w.]+", hint)]
        return frozenset([*names, "None"] if "Optional" in names else names)
    if isinstance(hint, typing.ForwardRef):
        return _names_in(hint.__forward_arg__)
    if typing.get_origin(hint) in _UNIONS:
        return frozenset().union(*(_names_in(kind) for kind in typing.get_args(hint)))
    return frozenset(("None" if hint is type(None) else getattr(hint, "__name__", ""),))


def _object_for(
    name: str, want: _Parameter, mtype: str, params: Mapping[str, Any], sender: Callable[[], Sender]
) -> dict[str, Any]:
    """The argument that is made of a whole message; none if its default is to stay."""
    if _brings(params, want.products):
        product = _product_of(mtype, params, sender(), want.products)
        return {name: product} if want.required or _is_wanted(product, want.products) else {}
    if want.required and not want.may_be_none:
        needs = "'ra' and 'dec'" if want.products == {"SkyCoord"} else "'url'"
        raise SAMPClientError(f"The message {mtype} has no parameter {needs}, of which {name!r} is made")
    return {name: None} if want.required else {}


def _brings(params: Mapping[str, Any], wanted: frozenset[str]) -> bool:
    """Whether a message has what such an object is made of."""
    by_url = "url" in params and wanted != {"SkyCoord"}
    return by_url or ("SkyCoord" in wanted and ("ra" in params or "dec" in params))


def _is_wanted(product: Any, wanted: frozenset[str]) -> bool:
    return any(kind.__name__ in wanted for kind in type(product).__mro__)


def _product_of(mtype: str, params: Mapping[str, Any], sender: Sender, wanted: frozenset[str]) -> Any:
    """What a message brings; a table with quantities where only such a one is wanted."""
    from ..formats.readers import read_message, read_position  # noqa: PLC0415 - other handlers need no astropy.table

    if "url" not in params or wanted == {"SkyCoord"}:
        return read_position(params)
    product = read_message(mtype, params, sender)
    if "QTable" in wanted and "Table" not in wanted and type(product).__name__ == "Table":
        from astropy.table import QTable  # noqa: PLC0415

        table = QTable(product, copy=False)
        table.__dict__.update({key: getattr(product, key) for key in ("sender", "name", "mtype")})
        return table
    return product


# Decoding


def _decoder(hint: Any) -> Decode | None:
    """How a SAMP value becomes what an annotation names (R3); None for what is given as it is."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_decoder(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if "ndarray" in (getattr(hint, "__name__", ""), getattr(origin, "__name__", "")):
        return _array
    if origin is None:
        return _SCALARS.get(hint) if isinstance(hint, type) else None
    return _GENERICS[origin](inner) if inner and origin in _GENERICS else None


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


def _tuple_of(kinds: tuple[Any, ...]) -> Decode:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        items = _list_of(_decoder(kinds[0]))
        return lambda value: tuple(items(value))
    decoders = [_decoder(kind) for kind in kinds]

    def decode(value: Any) -> tuple[Any, ...]:
        items = _list_of(None)(value)
        if len(items) != len(decoders):
            raise SAMPTypeError(f"{len(items)} items came where {len(decoders)} were expected")
        pairs = zip(decoders, items, strict=True)
        return tuple(item if decoder is None else decoder(item) for decoder, item in pairs)

    return decode


def _map_of(decoder: Decode | None) -> Decode:
    def decode(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise SAMPTypeError(f"a {type(value).__name__} came where a map was expected")
        return {key: item if decoder is None else decoder(item) for key, item in value.items()}

    return decode


def _enum_decoder(kind: type[enum.Enum]) -> Decode:
    def decode(value: Any) -> enum.Enum:
        """By its value, or else by its name."""
        text = _text(value)
        for member in kind:
            if text in (str(member.value), member.name):
                return member
        raise SAMPTypeError(f"{text!r} is none of {', '.join(str(member.value) for member in kind)}")

    return decode


def _array(value: Any) -> Any:
    items = _list_of(_text)(value)
    try:
        return np.array([parse_int(item) for item in items], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array([parse_float(item) for item in items], dtype=float)


#: What makes a decoder of what stands in the brackets.
_GENERICS: dict[Any, Callable[[tuple[Any, ...]], Decode]] = {
    **dict.fromkeys(_UNIONS, lambda inner: _either([_decoder(kind) for kind in inner if kind is not type(None)])),
    list: lambda inner: _list_of(_decoder(inner[0])),
    tuple: _tuple_of,
    dict: lambda inner: _map_of(_decoder(inner[1])),
}


# Encoding


def _result(value: Any) -> Any:
    """What a handler returned, as a map: a single value is given the key by which SAMP's own messages have one."""
    if value is None or isinstance(value, Mapping):
        return value
    if hasattr(value, "icrs"):
        return {"ra": float(value.icrs.ra.deg), "dec": float(value.icrs.dec.deg)}
    return {"value": value}
