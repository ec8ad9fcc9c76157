# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What must hold of the readers whatever bytes they are given.

Each target takes bytes and raises unless all is well. Besides never failing in a way that was not foreseen, a reader
has properties that need no example: a short cut agrees with the long way, what was read can be written and read again,
and how the network cut the bytes makes no difference.
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
    quick = parse_fast(data)
    if quick is not None:
        assert quick == parse_strict(data.decode("ascii"))
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
    """Requests and responses; the first byte says how the rest is cut into pieces."""
    if not data:
        return
    size, stream = data[0] or 1, data[1:]
    assert _requests([stream]) == _requests([stream[i : i + size] for i in range(0, len(stream), size)])
    assert _response([stream]) == _response([stream[i : i + size] for i in range(0, len(stream), size)])


def lockfile(data: bytes) -> None:
    """Lockfiles (R34): what is in them, and whether it is enough to find a hub by."""
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
    """All requests that are in the pieces, and the error that ends them."""
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
    """The first response that is in the pieces; whether its connection can be kept depends on what is behind it."""
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
