"""The helpers in `pyvo.samp.utils`."""

from __future__ import annotations

import io
import threading
import xmlrpc.client
from collections.abc import Iterator
from typing import Any
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

import pytest

from pyvo.samp import SAMPValueError
from pyvo.samp.utils import SAMPXXEServerProxy, ServerProxyPool, safe_xmlrpc_loads

HOSTILE = [
    (
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><methodResponse><params><param>'
        "<value>&b;</value></param></params></methodResponse>"
    ),
    '<!DOCTYPE a SYSTEM "http://127.0.0.1/evil.dtd"><methodResponse><params/></methodResponse>',
]


class Handler(SimpleXMLRPCRequestHandler):
    """A request handler that sends a hostile response to one method."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"hostile" not in body:
            self.rfile = io.BytesIO(body)
            super().do_POST()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(HOSTILE[0])))
        self.end_headers()
        self.wfile.write(HOSTILE[0].encode())


@pytest.fixture
def url() -> Iterator[str]:
    """A server of the standard library."""
    with SimpleXMLRPCServer(("127.0.0.1", 0), Handler, logRequests=False, allow_none=True) as server:
        server.register_function(lambda *args: args, "test.echo")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("value", [1, -2.5, True, "text & <more>", b"bytes", None, [1, [2, "x"]], {"a": {"b": []}}])
def test_loads(value: Any) -> None:
    """`safe_xmlrpc_loads` reads the same documents as `xmlrpc.client.loads`."""
    document = xmlrpc.client.dumps((value, "second"), "a.method", allow_none=True)
    assert safe_xmlrpc_loads(document, use_builtin_types=True) == ((value, "second"), "a.method")
    response = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()
    assert safe_xmlrpc_loads(response, use_builtin_types=True) == ((value,), None)


def test_loads_fault() -> None:
    """A fault is raised."""
    with pytest.raises(xmlrpc.client.Fault, match="text"):
        safe_xmlrpc_loads(xmlrpc.client.dumps(xmlrpc.client.Fault(3, "text"), methodresponse=True))


@pytest.mark.parametrize("document", HOSTILE)
def test_loads_hostile(document: str) -> None:
    """R38: entities and document types are rejected."""
    with pytest.raises(SAMPValueError, match="document type"):
        safe_xmlrpc_loads(document)


def test_server_proxy(url: str) -> None:
    """The server proxy can be used like that of the standard library, and rejects entities in responses."""
    with SAMPXXEServerProxy(url, allow_none=True) as proxy:
        assert proxy.test.echo(1, "x", None) == [1, "x", None]
        with pytest.raises(SAMPValueError, match="document type"):
            proxy.test.hostile()
        assert proxy.test.echo("again") == ["again"]


def test_pool(url: str) -> None:
    """A pool can be used by more threads at once than it has connections."""
    pool = ServerProxyPool(2, SAMPXXEServerProxy, url)
    responses: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: responses.append(pool.test.echo(n))) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(responses) == [[n] for n in range(10)]
    assert len(pool._idle) <= 2
    pool.shutdown()
    assert pool._idle == []
    with pytest.raises(AttributeError):
        pool.__wrapped__  # noqa: B018
