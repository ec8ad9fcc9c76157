# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
XML-RPC over the server: a request's body becomes a call of a function, its result or exception the answer.

A profile, or a client, gives its operations as a table from method name to function. How many parameters a
function takes, and whether each is a string, a list or a map, is read from its signature once and checked here, so
that an operation is only ever called with what it declares.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import SAMPError, SAMPProxyError
from .http11 import HTTPError, HTTPRequest, Response
from .server import DeferredResponse, ServerConnection
from .xmlrpc_reader import MethodCall, read_call
from .xmlrpc_writer import write_fault, write_response

__all__ = ["RPCCall", "XMLRPCHandler"]

log = logging.getLogger(__name__)

#: Fault codes, as far as they say anything: SAMP gives them no meaning.
FAULT = 1
INTERNAL = 2

_KINDS: dict[str, type] = {"str": str, "list": list, "dict": dict}
_KIND_NAMES: dict[type, str] = {str: "string", list: "list", dict: "map"}


class RPCCall(NamedTuple):
    """The call that is being answered: the request it came in, its connection, and the parsed body."""

    request: HTTPRequest
    connection: ServerConnection
    method_call: MethodCall


class _Method(NamedTuple):
    """A function and what it takes."""

    function: Callable[..., Any]
    param_types: tuple[type | None, ...]
    min_params: int
    variadic: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> _Method:
        if not inspect.ismethod(function):
            return cls(function, *_parameters(function))
        kinds, fewest, takes_more = _parameters_of_method(function.__func__)
        return cls(function, kinds[1:], fewest - 1, takes_more)

    def check(self, name: str, values: list[Any]) -> None:
        """Raise a fault unless ``values`` fit the function."""
        kinds = self.param_types
        if len(values) < self.min_params or (len(values) > len(kinds) and not self.variadic):
            more = " or more" if self.variadic else "" if self.min_params == len(kinds) else f" to {len(kinds)}"
            raise SAMPProxyError(FAULT, f"{name} takes {self.min_params}{more} parameters, {len(values)} were given")
        for number, (value, kind) in enumerate(zip(values, kinds, strict=False), 1):
            if kind is not None and type(value) is not kind:
                raise SAMPProxyError(
                    FAULT,
                    f"Parameter {number} of {name} is a {_KIND_NAMES[type(value)]} but must be a {_KIND_NAMES[kind]}",
                )


def _parameters(function: Callable[..., Any]) -> tuple[tuple[type | None, ...], int, bool]:
    kinds: list[type | None] = []
    fewest = 0
    takes_more = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            takes_more = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            kinds.append(_kind(parameter.annotation))
            fewest += parameter.default is parameter.empty
    return tuple(kinds), fewest, takes_more


#: A program may make many clients, whose operations are the same methods of one class.
_parameters_of_method = lru_cache(maxsize=256)(_parameters)


def _kind(annotation: object) -> type | None:
    """The SAMP type that a parameter's annotation names (a string where annotations are postponed, as here)."""
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return _KINDS.get(name.partition("[")[0])


class XMLRPCHandler:
    """
    Answers HTTP requests by calling operations.

    Parameters
    ----------
    operations : mapping of str to callable
        The functions, by XML-RPC method name. They run in the loop's thread and must not block. Annotations ``str``,
        ``list`` and ``dict`` of their parameters are checked before they are called. A result is a SAMP value, a
        ``Raw``, or a `Deferred` that is to be resolved with one; an `SAMPError` that they raise becomes a fault.
    """

    #: The paths that are posted to: DS9 uses ``/``, Python's ``ServerProxy`` ``/RPC2``, JSAMP ``/xmlrpc``.
    paths = frozenset({"/", "", "/RPC2", "/xmlrpc"})

    def __init__(self, operations: Mapping[str, Callable[..., Any]]) -> None:
        self._operations = {name: _Method.of(function) for name, function in operations.items()}
        #: The call that is being answered; for operations, while they run.
        self.current_call: RPCCall | None = None

    # For subclasses to override

    def reject(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """Refuse a request before it is read: a response that says so, or None to let it pass."""
        return None

    def handle_non_post(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Answer a request that is no POST."""
        return self.text_response(405, "Only POST is answered here", request, (("Allow", "POST"),))

    def headers(self, request: HTTPRequest | None) -> tuple[tuple[str, str], ...]:
        """Headers that each answer to this request bears; None where the request could not be read."""
        return ()

    def invoke(self, function: Callable[..., Any], call: RPCCall) -> Any:
        """Run an operation with the parameters of a call, which fit it; for who takes note of what is called."""
        return function(*call.method_call.params)

    # What the server calls

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Answer a request; see `Handler`."""
        refusal = self.reject(request, connection)
        if refusal is not None:
            return refusal
        if request.method != "POST":
            return self.handle_non_post(request, connection)
        if request.target.partition("?")[0] not in self.paths:
            return self.text_response(404, "There is nothing at this path", request)
        result = self._call(request, connection)
        if not isinstance(result, DeferredResponse):
            return self.xml_response(result, request)
        answer = DeferredResponse()
        answer.add_cancel_callback(result.cancel)
        result.add_done_callback(lambda done: self._forward_deferred(done, answer, request, connection))
        return answer

    def _forward_deferred(self, done: DeferredResponse, answer: DeferredResponse, request: HTTPRequest, connection: ServerConnection) -> None:
        answer.on_sent = done.on_sent
        in_time = answer.set_result(self.xml_response(self._outcome(done.result), request))
        if not in_time and done.on_sent is not None:  # the connection was closed in this moment
            connection.loop.call_soon(done.on_sent, False)

    def error_response(self, error: HTTPError) -> Response:
        """Answer what is no request."""
        return self.text_response(error.status, str(error), None)

    # Making responses

    def xml_response(self, body: bytes, request: HTTPRequest | None) -> Response:
        """A response that carries XML-RPC."""
        return Response(200, body, "text/xml", self.headers(request))

    def fault_response(self, text: str, request: HTTPRequest | None) -> Response:
        """A response that carries a fault."""
        return self.xml_response(write_fault(FAULT, text), request)

    def text_response(
        self, status: int, text: str, request: HTTPRequest | None, headers: tuple[tuple[str, str], ...] = ()
    ) -> Response:
        """A response in plain text."""
        return Response(status, text.encode() + b"\n", headers=(*self.headers(request), *headers))

    # Calling

    def _call(self, request: HTTPRequest, connection: ServerConnection) -> bytes | DeferredResponse:
        try:
            call = read_call(request.body)
            operation = self._operations.get(call.name)
            if operation is None:
                raise SAMPProxyError(FAULT, f"There is no method {call.name[:100]!r} here")
            operation.check(call.name, call.params)
            self.current_call = RPCCall(request, connection, call)
            result = self.invoke(operation.function, self.current_call)
            return result if isinstance(result, DeferredResponse) else write_response(result)
        except Exception as error:
            return self._fault_for(error)
        finally:
            self.current_call = None

    def _outcome(self, function: Callable[[], Any]) -> bytes:
        try:
            return write_response(function())
        except Exception as error:
            return self._fault_for(error)

    def _fault_for(self, error: Exception) -> bytes:
        """The fault for an exception. One that nobody foresaw is logged here and not described to a stranger."""
        if isinstance(error, SAMPProxyError):
            return write_fault(error.faultCode, error.faultString)
        if isinstance(error, SAMPError):
            return write_fault(FAULT, str(error))
        log.error("An operation failed", exc_info=error)
        return write_fault(INTERNAL, "Internal error")
