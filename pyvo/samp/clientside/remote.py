# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The methods of an XML-RPC server as attributes, and what they are called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SAMPTypeError
from ..protocol import SAMPValue, check_message, check_response, encode
from ..transport.connection import XMLRPCClient
from ..transport.xml_writer import Raw

__all__ = ["RemoteMethod", "encoded"]


#: Parameters that have to be more than a SAMP value. The hub would refuse them as well, but it does not know which line
#: of the program they came from.
_CHECKS = {"message": check_message, "response": check_response}


class RemoteMethod:
    """
    A method of an XML-RPC server, or the beginning of the name of one: ``RemoteMethod(client, "samp").hub.ping()``.

    Parameters
    ----------
    client : XMLRPCClient
        How the server is called.
    name : str
        Name so far; empty for the server itself.
    """

    def __init__(self, client: XMLRPCClient, name: str = "") -> None:
        self.client = client
        self.name = name

    def __getattr__(self, name: str) -> RemoteMethod:
        if name.startswith("__"):  # copy, pickle and inspect ask for such; no server has them
            raise AttributeError(name)
        method = RemoteMethod(self.client, f"{self.name}.{name}" if self.name else name)
        setattr(self, name, method)  # next time it is found without coming here
        return method

    def __call__(self, *params: SAMPValue | Raw, **waiting: Any) -> SAMPValue:
        """Call the method; ``waiting`` are options of `XMLRPCClient.call`."""
        return self.client.call(self.name, *params, **waiting)


def encoded(params: Mapping[str, Any]) -> list[SAMPValue | Raw]:
    """
    Write the parameters of an operation as SAMP values (R4).

    Parameters
    ----------
    params : mapping
        The parameters in order; what is written already stays. Their names serve error messages, but for maps, whose
        keys say enough.

    Returns
    -------
    list
        The values, to be sent in this order.
    """
    return [
        # Nothing has to be done about most strings, ids and keys above all.
        value
        if type(value) is str and name not in _CHECKS and value.isascii() and value.isprintable()
        else _encoded(name, value)
        for name, value in params.items()
    ]  # fmt: skip


def _encoded(name: str, value: Any) -> SAMPValue | Raw:
    if isinstance(value, Raw):
        return value
    if not isinstance(value, Mapping):
        if name in _CHECKS:
            raise SAMPTypeError(f"A {name} is a map, not {value!r}")
        return encode(value, name)
    check = _CHECKS.get(name)
    return encode(value) if check is None else check(encode(value))
