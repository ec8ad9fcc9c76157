# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Properties of the readers that must hold for any bytes.

Each target takes bytes, and raises an error if a property does not hold: a reader raises only its own errors, the fast
reader agrees with the strict one, a value that was read can be written and read again, and the result does not depend
on how the network split the bytes.
"""

from __future__ import annotations

import tempfile

from pyvo.samp.errors import SAMPHubError, SAMPProxyError, SAMPValueError
from pyvo.samp.lockfile import format_lockfile, parse_lockfile, read_lockfile
from pyvo.samp.transport.http11 import HTTPError, RequestParser, ResponseParser
from pyvo.samp.transport.urls import split_http_url
from pyvo.samp.transport.xmlrpc_fast_reader import parse_fast
from pyvo.samp.transport.xmlrpc_reader import read_call, read_response
from pyvo.samp.transport.xmlrpc_strict_reader import XMLError, parse_strict
from pyvo.samp.transport.xmlrpc_writer import PreEncoded, write_call, write_response

MAX_BODY = 100_000


def xml(data: bytes) -> None:
    """Calls and responses (R1, R2, R5, R30)."""
    fast = parse_fast(data)
    if fast is not None:
        assert fast == parse_strict(data.decode("ascii"))
    try:
        call = read_call(data)
    except XMLError:
        pass
    else:
        again = read_call(write_call(call.name, call.params))
        assert (again.name, again.params) == (call.name, call.params)
        for raw, value in zip(call.raw, call.params, strict=True):
            if raw is not None:
                assert read_call(write_call("m", [PreEncoded(raw)])).params == [value]
    try:
        response = read_response(data)
    except (XMLError, SAMPProxyError):
        return
    assert read_response(write_response(response)) == response


def http(data: bytes) -> None:
    """Requests and responses; the first byte is the size of the pieces into which the rest is split."""
    if not data:
        return
    size, stream = data[0] or 1, data[1:]
    assert _requests([stream]) == _requests([stream[i : i + size] for i in range(0, len(stream), size)])
    assert _response([stream]) == _response([stream[i : i + size] for i in range(0, len(stream), size)])


def lockfile(data: bytes) -> None:
    """Lockfiles (R34): their content, and whether it is sufficient to connect to a hub."""
    params = parse_lockfile(data)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            read = read_lockfile(file.name)
        except SAMPHubError:
            pass
        else:
            assert read == params
            assert all(read[key] for key in ("samp.secret", "samp.hub.xmlrpc.url", "samp.profile.version"))
            host, port, path = split_http_url(read["samp.hub.xmlrpc.url"])
            assert host
            assert 0 < port < 65536
            assert path.startswith("/")
    try:
        written = format_lockfile(params)
    except SAMPValueError:
        return
    again = parse_lockfile(written)
    assert {key: value for key, value in params.items() if not key.startswith("#") and "=" not in key} == again


def _requests(pieces: list[bytes]) -> list[object]:
    """Return all requests in the pieces, and the status of the error that ends them."""
    reader = RequestParser(MAX_BODY)
    found: list[object] = []
    try:
        for piece in pieces:
            reader.receive_data(piece)
            while (request := reader.next_message()) is not None:
                found.append(request)
    except HTTPError as error:
        found.append(error.status)
    return found


def _response(pieces: list[bytes]) -> object:
    """Return the first response in the pieces, without ``keep_alive``, which depends on the bytes after it."""
    reader = ResponseParser(MAX_BODY)
    try:
        for piece in pieces:
            reader.receive_data(piece)
            if (response := reader.next_message()) is not None:
                return response[:4]
        response = reader.next_message(closed=True)
        return response and response[:4]
    except HTTPError as error:
        return error.status


TARGETS = {"xml": xml, "http": http, "lockfile": lockfile}
