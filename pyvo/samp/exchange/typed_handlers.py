# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Handlers that get the parameters of a message as arguments: ``def row(table_id, row: int)``.

The parameters of a message are passed by name and converted to the types of the annotations. The return value is sent
as the result of a call, and an exception as its error. The signature is read once, when the handler is bound.
Parameters are converted in the client's thread, because a conversion may read a table from a URL. The handler itself
runs where the program's handlers run.
"""

from __future__ import annotations

import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..client.handlers import internal_handler, refuse_coroutine_function
from ..client.lookup import client_name
from ..errors import SAMPClientError, SAMPTypeError
from ..formats.model import Sender
from ..protocol import parse_bool, parse_float, parse_int
from .sending import ExchangeState

#: Names of the classes of objects that are made from a whole message.
_OBJECT_TYPES = frozenset(
    ("Table", "QTable", "HDUList", "SkyCoord", "MOC", "Spectrum", "Spectrum1D", "RasterImage", "MessageParams")
)
#: Names of two of these classes in earlier versions.
_OLD_NAMES = {"Picture": "RasterImage", "Received": "MessageParams"}
_UNIONS = (typing.Union, types.UnionType)


def make_typed_handler(
    state: ExchangeState, function: Callable[..., Any], run: Callable[..., Any]
) -> Callable[..., Any]:
    """
    Return a handler for `bind_receive_message` that calls a function with named parameters.

    ``run(function, **arguments)`` calls the function where the program's handlers run.
    """
    signature = _Signature(function)
    title = getattr(function, "__qualname__", None) or repr(function)

    @internal_handler
    def handler(_key: str, sender_id: str, mtype: str, params: Mapping[str, Any], _extra: Any) -> Any:
        value = run(function, **signature.arguments(mtype, params, _Source(state, sender_id)))
        if inspect.iscoroutine(value):  # a decorator has hidden a coroutine function
            value.close()
            refuse_coroutine_function(title, is_one=True)
        return _to_result(value)

    return handler


class _Source(NamedTuple):
    """The sender of a message. Its name is only looked up if a handler needs the sender."""

    state: ExchangeState
    client_id: str

    def sender(self) -> Sender:
        return Sender(self.client_id, client_name(self.state.client, self.client_id))


class _Parameter(NamedTuple):
    """One parameter of a handler."""

    hint: Any
    required: bool
    #: The classes in the annotation whose objects are made from a whole message.
    object_types: frozenset[str]
    may_be_none: bool


class _Signature:
    """The parameters of a function. It makes the arguments from a message."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise SAMPClientError(f"A handler must be callable: {function!r}")
        self._parameters: dict[str, _Parameter] = {}
        self._takes_rest = False
        parameters = _parameters(function)
        for name, (parameter, hint) in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                self._takes_rest = True
            elif parameter.kind is parameter.VAR_POSITIONAL and any(
                other.kind is other.VAR_KEYWORD for other, _ in parameters.values()
            ):
                continue  # (*args, **kwargs): all parameters are passed by name
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise SAMPClientError(f"The parameters of a handler are passed by name; {name!r} cannot be passed so")
            else:
                names = _class_names(hint)
                required = parameter.default is parameter.empty
                self._parameters[name] = _Parameter(hint, required, names & _OBJECT_TYPES, "None" in names)
        #: Names of arguments that the program has fixed in a partial; a message does not override them.
        self._fixed = frozenset(function.keywords if isinstance(function, functools.partial) else ())

    def arguments(self, mtype: str, params: Mapping[str, Any], source: _Source) -> dict[str, Any]:
        """Return the arguments for one message."""
        given = {re.sub(r"\W", "_", key): value for key, value in params.items()}
        context: dict[str, Callable[[], Any]] = {
            "sender": source.sender, "mtype": lambda: mtype, "params": lambda: dict(params)
        }  # fmt: skip
        arguments: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            if name in self._fixed:
                continue
            if parameter.object_types and not isinstance(given.get(name), dict):
                arguments.update(_object_argument(name, parameter, mtype, params, source))
            elif name in context:  # takes precedence: a message must not fake its sender by a parameter of this name
                arguments[name] = context[name]()
            elif name in given:
                try:
                    arguments[name] = _convert(given[name], parameter.hint)
                except (ValueError, TypeError) as error:
                    raise SAMPClientError(f"The parameter {name.replace('_', '-')!r}: {error}") from error
            elif parameter.required:
                raise SAMPClientError(f"The message {mtype} has no parameter {name.replace('_', '-')!r}")
        if self._takes_rest:
            known = {*self._parameters, *self._fixed}
            arguments.update({name: value for name, value in given.items() if name not in known})
        return arguments


def _parameters(function: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    """
    Return the parameters of a function with their annotations.

    If a function wraps another one by `functools.wraps` and has ``**kwargs``, the parameters of the wrapped function
    are included.
    """
    found: dict[str, tuple[inspect.Parameter, Any]] = {}
    layer: Any = function
    while layer is not None:
        inner = _wrapped(layer)
        try:
            parameters = inspect.signature(layer, follow_wrapped=False).parameters
        except (TypeError, ValueError) as error:  # some functions written in C have no signature
            if inner is None:
                raise SAMPClientError(f"A handler needs a signature; {layer!r} has none") from error
            layer = inner
            continue
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            inner = None
        namespace = getattr(_annotated_function(layer), "__globals__", None)
        for name, parameter in parameters.items():
            if inner is None or parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(name, (parameter, _resolve(parameter.annotation, namespace)))
        layer = inner
    return found


def _wrapped(function: Any) -> Any:
    """
    Return the function that a function wraps by `functools.wraps`; None if it wraps none.

    If the function is a partial or a bound method, the wrapped function is bound to the same arguments.
    """
    if isinstance(function, functools.partial):
        inner = _wrapped(function.func)
        return None if inner is None else functools.partial(inner, *function.args, **function.keywords)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is None and not inspect.isroutine(function) and not inspect.isclass(function):
        function = function.__call__
        wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and inspect.ismethod(function):  # the wrapped function still has the parameter self
        return types.MethodType(wrapped, function.__self__)
    return wrapped


def _annotated_function(function: Any) -> Any:
    """Return the function whose module defines the names in the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return inspect.unwrap(function.__init__)
    if not inspect.isroutine(function):
        function = type(function).__call__
    return getattr(function, "__func__", function)


def _resolve(hint: Any, namespace: dict[str, Any] | None) -> Any:
    """Evaluate an annotation; return it unchanged if only type checkers know the names in it."""
    holder = type("_", (), {"__annotations__": {"hint": hint}})
    try:
        return hint if hint is inspect.Parameter.empty else typing.get_type_hints(holder, namespace)["hint"]
    except Exception:  # an annotation may be any expression
        return hint


def _class_names(hint: Any) -> frozenset[str]:
    """Return the names of the classes that an annotation allows."""
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):  # an annotation that could not be evaluated
        names = [name.rpartition(".")[2] for name in re.findall(r"[\w.]+", hint)]
        names += ["None"] if "Optional" in names else []
        return frozenset(_OLD_NAMES.get(name, name) for name in names)
    if typing.get_origin(hint) in _UNIONS:
        return frozenset().union(*(_class_names(kind) for kind in typing.get_args(hint)))
    return frozenset(("None" if hint is type(None) else getattr(hint, "__name__", ""),))


# Objects


def _object_argument(
    name: str, parameter: _Parameter, mtype: str, params: Mapping[str, Any], source: _Source
) -> dict[str, Any]:
    """Return the argument that is made from a whole message; an empty map if the parameter keeps its default."""
    wanted = parameter.object_types
    has_url = "url" in params and wanted != {"SkyCoord"}
    if has_url or ("SkyCoord" in wanted and ("ra" in params or "dec" in params)):
        obj = _read_object(mtype, params, source, wanted)
        fits_hint = any(kind.__name__ in wanted for kind in type(obj).__mro__)
        return {name: obj} if parameter.required or fits_hint else {}
    if parameter.required and not parameter.may_be_none:
        needed = "'ra' and 'dec'" if wanted == {"SkyCoord"} else "'url'"
        raise SAMPClientError(f"The message {mtype} has no parameter {needed}, which the argument {name!r} requires")
    return {name: None} if parameter.required else {}


def _read_object(mtype: str, params: Mapping[str, Any], source: _Source, wanted: frozenset[str]) -> Any:
    """Read the object that a message refers to; return a QTable if the annotation allows QTable but not Table."""
    # imported here because handlers with plain parameters need neither astropy.table nor astropy.io
    from ..formats.readers import read_message, read_position  # noqa: PLC0415

    if "url" not in params or wanted == {"SkyCoord"}:
        return read_position(params)
    obj = read_message(mtype, params, source.sender(), source.state.client.hub.download)
    if "QTable" in wanted and "Table" not in wanted and type(obj).__name__ == "Table":
        from astropy.table import QTable  # noqa: PLC0415

        table = QTable(obj, copy=False)
        table.__dict__.update({key: getattr(obj, key) for key in ("sender", "name", "mtype")})
        return table
    return obj


# Values


def _convert(value: Any, hint: Any) -> Any:
    """Convert a SAMP value to the type of an annotation (R3); return it unchanged if the type is unknown."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if "ndarray" in (getattr(hint, "__name__", ""), getattr(origin, "__name__", "")):
        return _to_array(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _to_member(value, hint)
    if inner and origin in _GENERICS:
        return _GENERICS[origin](value, inner)
    parse = _SCALARS.get(hint) if isinstance(hint, type) else None
    return value if parse is None else parse(_checked(value, str))


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        expected = "string" if kind is str else "list" if kind is list else "map"
        raise SAMPTypeError(f"expected a {expected}, not a {type(value).__name__}")
    return value


def _to_one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    *others, last = (kind for kind in kinds if kind is not type(None))
    for kind in others:
        try:
            return _convert(value, kind)
        except (ValueError, TypeError):
            continue
    return _convert(value, last)


def _to_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    items = _checked(value, list)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if len(items) != len(kinds):
        raise SAMPTypeError(f"expected {len(kinds)} items, not {len(items)}")
    return tuple(_convert(item, kind) for item, kind in zip(items, kinds, strict=True))


def _to_member(value: Any, kind: type[enum.Enum]) -> enum.Enum:
    """Return the member of an enumeration with this value or name."""
    text = _checked(value, str)
    for member in kind:
        if text in (str(member.value), member.name):
            return member
    raise SAMPTypeError(f"{text!r} is not one of {', '.join(str(member.value) for member in kind)}")


def _to_array(value: Any) -> Any:
    items = [_checked(item, str) for item in _checked(value, list)]
    try:
        return np.array([parse_int(item) for item in items], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array([parse_float(item) for item in items], dtype=float)


_SCALARS: dict[type, Callable[[str], Any]] = {int: parse_int, float: parse_float, bool: parse_bool, str: str}
#: Converters by the generic type. They are called with the value and the arguments of the type.
_GENERICS: dict[Any, Callable[[Any, tuple[Any, ...]], Any]] = {
    **dict.fromkeys(_UNIONS, _to_one_of),
    list: lambda value, inner: [_convert(item, inner[0]) for item in _checked(value, list)],
    dict: lambda value, inner: {key: _convert(item, inner[1]) for key, item in _checked(value, dict).items()},
    tuple: _to_tuple,
}


def _to_result(value: Any) -> Any:
    """Convert the return value of a handler to a map; a single value gets the key that SAMP's own MTypes use."""
    if value is None or isinstance(value, Mapping):
        return value
    if hasattr(value, "icrs"):
        return {"ra": float(value.icrs.ra.deg), "dec": float(value.icrs.dec.deg)}
    return {"value": value}
