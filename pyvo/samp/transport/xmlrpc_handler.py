# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
XML-RPC over HTTP: each request calls a function, and the result or exception becomes the response.

A profile or a client passes its operations as a mapping from method names to functions. The handler gets the number of
parameters and their types (string, list or map) from the signature of each function, and checks the parameters of each
call.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import SAMPError, SAMPProxyError
from .http11 import HTTPError, HTTPRequest, Response
from .server_connection import DeferredResponse, ServerConnection
from .urls import HOST_REJECTED_TEXT
from .xmlrpc_reader import MethodCall, read_call
from .xmlrpc_writer import write_fault, write_response

log = logging.getLogger(__name__)

#: Fault codes. SAMP does not define their meaning.
FAULT = 1
INTERNAL = 2

_TYPES: dict[str, type] = {"str": str, "list": list, "dict": dict}
_TYPE_NAMES: dict[type, str] = {str: "string", list: "list", dict: "map"}


class RPCCall(NamedTuple):
    """A call: the HTTP request, its connection, and the method and parameters from its body."""

    request: HTTPRequest
    connection: ServerConnection
    method_call: MethodCall


class _Method(NamedTuple):
    """A function and its parameters."""

    function: Callable[..., Any]
    param_types: tuple[type | None, ...]
    min_params: int
    variadic: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> _Method:
        if not inspect.ismethod(function):
            return cls(function, *_parameters(function))
        types, minimum, variadic = _parameters_of_method(function.__func__)
        return cls(function, types[1:], minimum - 1, variadic)

    def check(self, name: str, values: list[Any]) -> None:
        """Raise a fault unless ``values`` are valid parameters of the function."""
        types = self.param_types
        if len(values) < self.min_params or (len(values) > len(types) and not self.variadic):
            more = " or more" if self.variadic else "" if self.min_params == len(types) else f" to {len(types)}"
            raise SAMPProxyError(FAULT, f"{name} takes {self.min_params}{more} parameters, {len(values)} were given")
        for number, (value, expected) in enumerate(zip(values, types, strict=False), 1):
            if expected is not None and type(value) is not expected:
                given, wanted = _TYPE_NAMES[type(value)], _TYPE_NAMES[expected]
                raise SAMPProxyError(FAULT, f"Parameter {number} of {name} is a {given} but must be a {wanted}")


def _parameters(function: Callable[..., Any]) -> tuple[tuple[type | None, ...], int, bool]:
    types: list[type | None] = []
    minimum = 0
    variadic = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            variadic = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            types.append(_type(parameter.annotation))
            minimum += parameter.default is parameter.empty
    return tuple(types), minimum, variadic


#: Cached, because a program may create many clients, whose operations are methods of the same class.
_parameters_of_method = lru_cache(maxsize=256)(_parameters)


def _type(annotation: object) -> type | None:
    """Return the type that an annotation names. The annotation is a string if its evaluation is postponed."""
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return _TYPES.get(name.partition("[")[0])


class XMLRPCHandler:
    """
    A request handler that calls operations. ``operations`` maps XML-RPC method names to functions.

    The functions run in the loop's thread and must not block. Parameters annotated with ``str``, ``list`` or ``dict``
    are checked before the call. The result is a SAMP value, a `PreEncoded`, or a `DeferredResponse` with one of them. A
    `SAMPError` becomes a fault.
    """

    #: The paths for POST requests: DS9 uses ``/``, Python's ``ServerProxy`` ``/RPC2``, JSAMP ``/xmlrpc``.
    paths = frozenset({"/", "", "/RPC2", "/xmlrpc"})
    #: A function that returns whether a ``Host`` header is allowed; see `host_filter`.
    is_allowed_host: Callable[[str], bool] | None = None

    def __init__(self, operations: Mapping[str, Callable[..., Any]]) -> None:
        self._operations = {name: _Method.of(function) for name, function in operations.items()}
        #: The call whose operation is running.
        self.current_call: RPCCall | None = None

    # Methods that subclasses override

    def reject(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        """
        Return an error response if a request is rejected before its body is parsed; otherwise return None.

        By default, requests from web pages are rejected (R38). They have an ``Origin`` header, or the ``Host`` header
        of a DNS rebinding attack.
        """
        if "origin" in request.headers:
            return self.text_response(403, "Requests from web pages are not allowed here", request)
        host = request.headers.get("host")  # DS9 sends none
        if host is not None and self.is_allowed_host is not None and not self.is_allowed_host(host):
            return self.text_response(403, HOST_REJECTED_TEXT, request)
        return None

    def handle_non_post(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Respond to a request other than POST."""
        return self.text_response(405, "The method must be POST", request, (("Allow", "POST"),))

    def headers(self, request: HTTPRequest | None) -> tuple[tuple[str, str], ...]:
        """Return additional headers for the response; ``request`` is None if it could not be parsed."""
        return ()

    def invoke(self, function: Callable[..., Any], call: RPCCall) -> Any:
        """Call an operation. The parameters of the call have been checked."""
        return function(*call.method_call.params)

    # Interface to the server

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Respond to a request (see `RequestHandler`)."""
        rejection = self.reject(request, connection)
        if rejection is not None:
            return rejection
        if request.method != "POST":
            return self.handle_non_post(request, connection)
        if request.target.partition("?")[0] not in self.paths:
            return self.text_response(404, "There is nothing at this path", request)
        result = self._call(request, connection)
        if not isinstance(result, DeferredResponse):
            return self.xml_response(result, request)
        response = DeferredResponse()
        response.add_cancel_callback(result.cancel)
        result.add_done_callback(lambda done: self._forward_deferred(done, response, request, connection))
        return response

    def _forward_deferred(
        self, done: DeferredResponse, response: DeferredResponse, request: HTTPRequest, connection: ServerConnection
    ) -> None:
        response.on_sent = done.on_sent
        in_time = response.set_result(self.xml_response(self._outcome(done.result), request))
        if not in_time and done.on_sent is not None:  # the connection was closed in the meantime
            connection.loop.call_soon(done.on_sent, False)

    def error_response(self, error: HTTPError) -> Response:
        """Return the response to an invalid request."""
        return self.text_response(error.status, str(error), None)

    # Responses

    def xml_response(self, body: bytes, request: HTTPRequest | None) -> Response:
        """Return a response with an XML-RPC body."""
        return Response(200, body, "text/xml", self.headers(request))

    def fault_response(self, text: str, request: HTTPRequest | None) -> Response:
        """Return a response with a fault."""
        return self.xml_response(write_fault(FAULT, text), request)

    def text_response(
        self, status: int, text: str, request: HTTPRequest | None, headers: tuple[tuple[str, str], ...] = ()
    ) -> Response:
        """Return a plain-text response."""
        return Response(status, text.encode() + b"\n", headers=(*self.headers(request), *headers))

    # Calling

    def _call(self, request: HTTPRequest, connection: ServerConnection) -> bytes | DeferredResponse:
        try:
            call = read_call(request.body)
            operation = self._operations.get(call.name)
            if operation is None:
                raise SAMPProxyError(FAULT, f"There is no method {call.name[:100]!r}")
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
        """Return the fault for an exception. An unexpected exception is logged, and its text is not sent (R38)."""
        if isinstance(error, SAMPProxyError):
            return write_fault(error.faultCode, error.faultString)
        if isinstance(error, SAMPError):
            return write_fault(FAULT, str(error))
        log.error("An operation failed", exc_info=error)
        return write_fault(INTERNAL, "Internal error")
