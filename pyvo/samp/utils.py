# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Helpers for programs that were written for `astropy.samp`. The package itself does not use them."""

from __future__ import annotations

import functools
import xml.parsers.expat
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from xmlrpc import client as xmlrpc

from .client.handlers import Binding, error_text, to_result
from .client.samp_client import SAMPClient
from .constants import SAMP_STATUS_ERROR, SAMP_STATUS_OK
from .errors import SAMPValueError
from .integrated_client import SAMPIntegratedClient

__all__ = ["SAMPMsgReplierWrapper", "SAMPXXEServerProxy", "ServerProxyPool", "safe_xmlrpc_loads"]


class SAMPMsgReplierWrapper:
    """
    Decorator that makes a handler reply to calls.

    The function's return value, a map or None, becomes the result of the call. An exception becomes an error response
    with the exception's message but not the traceback. If the function has already replied, no other reply is sent.

    Parameters
    ----------
    cli : SAMPIntegratedClient or SAMPClient
        The client whose calls are handled.
    """

    def __init__(self, cli: SAMPIntegratedClient | SAMPClient) -> None:
        self.cli = cli

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a handler."""
        binding = Binding.from_function(f, None)

        @functools.wraps(f)
        def handler(
            private_key: str, sender_id: str, msg_id: str | None, mtype: str, params: Any, extra: Any
        ) -> Any:
            received = (private_key, sender_id, msg_id, mtype, params, extra)
            arguments = received if binding.accepts_msg_id else (*received[:2], *received[3:])
            if msg_id is None:
                return f(*arguments)
            hub = self.cli.hub
            current = hub.received_calls.current(msg_id)
            # There is no current call if the program itself calls the handler, for example from its own `receive_call`.
            handling = nullcontext(current) if current else hub.received_calls.add(private_key, msg_id)
            with handling as call:
                try:
                    response = {"samp.status": SAMP_STATUS_OK, "samp.result": to_result(f(*arguments))}
                except Exception as error:  # becomes the error response
                    response = {"samp.status": SAMP_STATUS_ERROR, "samp.error": {"samp.errortxt": error_text(error)}}
                if not call.replied:
                    hub.reply(private_key, msg_id, response)
            return None

        # `functools.wraps` makes the signature look like that of `f`, which may have no msg_id.
        del handler.__wrapped__
        return handler


def _reject_entities(*_declaration: object) -> None:
    raise SAMPValueError("XML with a document type or entities is rejected: it could read files or grow without limit")


class _SafeParser:
    """A parser that feeds an unmarshaller of the standard library and rejects document types (R38)."""

    def __init__(self, target: xmlrpc.Unmarshaller) -> None:
        self._parser = parser = xml.parsers.expat.ParserCreate(None, None)
        parser.StartDoctypeDeclHandler = _reject_entities
        parser.EntityDeclHandler = _reject_entities
        parser.StartElementHandler = target.start
        parser.EndElementHandler = target.end
        parser.CharacterDataHandler = target.data
        target.xml(None, None)  # type: ignore[arg-type]  # no decoding: the parser does that

    def feed(self, data: str | bytes) -> None:
        self._parser.Parse(data, False)

    def close(self) -> None:
        self._parser.Parse(b"", True)


def safe_xmlrpc_loads(
    data: str | bytes, use_datetime: bool = False, use_builtin_types: bool = False
) -> tuple[tuple[Any, ...], str | None]:
    """
    Read an XML-RPC document like `xmlrpc.client.loads`, but reject document types and entities.

    Parameters
    ----------
    data : str or bytes
        The document.
    use_datetime, use_builtin_types : bool
        As in `xmlrpc.client.loads`.

    Returns
    -------
    params : tuple
        The values.
    method : str or None
        The name of the method if the document is a call.

    Raises
    ------
    SAMPValueError
        The document declares a document type.
    xmlrpc.client.Fault
        The document is a fault.
    """
    target = xmlrpc.Unmarshaller(use_datetime=use_datetime, use_builtin_types=use_builtin_types)
    parser = _SafeParser(target)
    parser.feed(data)
    parser.close()
    return target.close(), target.getmethodname()


class _SafeTransport(xmlrpc.Transport):
    def getparser(self) -> tuple[Any, xmlrpc.Unmarshaller]:
        target = xmlrpc.Unmarshaller(use_datetime=self._use_datetime, use_builtin_types=self._use_builtin_types)
        return _SafeParser(target), target


class SAMPXXEServerProxy(xmlrpc.ServerProxy):
    """
    A `xmlrpc.client.ServerProxy` that rejects responses with document types or entities.

    Parameters
    ----------
    uri : str
        URL of the server.
    transport : xmlrpc.client.Transport, optional
        Another transport, which must itself reject unsafe responses.
    **options
        As in `xmlrpc.client.ServerProxy`.
    """

    def __init__(self, uri: str, transport: xmlrpc.Transport | None = None, **options: Any) -> None:
        super().__init__(uri, transport=transport or _SafeTransport(), **options)


class ServerProxyPool:
    """
    A pool of proxies for one server, for use by several threads.

    ``pool.samp.hub.ping()`` calls this method of an idle proxy. If all proxies are busy, the pool makes a new one.

    Parameters
    ----------
    size : int
        Maximum number of idle proxies that are kept.
    proxy_class : callable
        Class or function that makes a proxy.
    *args, **keywords
        Arguments of ``proxy_class``.
    """

    def __init__(self, size: int, proxy_class: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        self._size = int(size)
        self._make = functools.partial(proxy_class, *args, **keywords)
        self._idle: list[Any] = []

    def __getattr__(self, name: str) -> _PooledMethod:
        if name.startswith("__"):
            raise AttributeError(name)
        return _PooledMethod(self, (name,))

    def _run(self, names: tuple[str, ...], args: tuple[Any, ...]) -> Any:
        try:
            proxy = self._idle.pop()
        except IndexError:
            proxy = self._make()
        try:
            return functools.reduce(getattr, names, proxy)(*args)
        finally:
            if len(self._idle) < self._size:
                self._idle.append(proxy)
            else:
                _close(proxy)

    def shutdown(self) -> None:
        """Close the idle proxies."""
        while self._idle:
            _close(self._idle.pop())


class _PooledMethod:
    def __init__(self, pool: ServerProxyPool, names: tuple[str, ...]) -> None:
        self._pool = pool
        self._names = names

    def __getattr__(self, name: str) -> _PooledMethod:
        return _PooledMethod(self._pool, (*self._names, name))

    def __call__(self, *args: Any) -> Any:
        return self._pool._run(self._names, args)


def _close(proxy: Any) -> None:
    if isinstance(proxy, xmlrpc.ServerProxy):
        proxy("close")()
