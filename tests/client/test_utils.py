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

EVIL = [
    (
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><methodResponse><params><param>'
        "<value>&b;</value></param></params></methodResponse>"
    ),
    '<!DOCTYPE a SYSTEM "http://127.0.0.1/evil.dtd"><methodResponse><params/></methodResponse>',
]


class Handler(SimpleXMLRPCRequestHandler):
    """Answers one method in an evil way."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"evil" not in body:
            self.rfile = io.BytesIO(body)
            super().do_POST()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(EVIL[0])))
        self.end_headers()
        self.wfile.write(EVIL[0].encode())


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
    """It reads what `xmlrpc.client.loads` reads."""
    document = xmlrpc.client.dumps((value, "second"), "a.method", allow_none=True)
    assert safe_xmlrpc_loads(document, use_builtin_types=True) == ((value, "second"), "a.method")
    answer = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()
    assert safe_xmlrpc_loads(answer, use_builtin_types=True) == ((value,), None)


def test_loads_fault() -> None:
    """Faults are raised."""
    with pytest.raises(xmlrpc.client.Fault, match="text"):
        safe_xmlrpc_loads(xmlrpc.client.dumps(xmlrpc.client.Fault(3, "text"), methodresponse=True))


@pytest.mark.parametrize("document", EVIL)
def test_loads_evil(document: str) -> None:
    """R38: entities and document types are refused."""
    with pytest.raises(SAMPValueError, match="document type"):
        safe_xmlrpc_loads(document)


def test_server_proxy(url: str) -> None:
    """A server proxy that can be used as the one of the standard library, and refuses entities in answers."""
    with SAMPXXEServerProxy(url, allow_none=True) as proxy:
        assert proxy.test.echo(1, "x", None) == [1, "x", None]
        with pytest.raises(SAMPValueError, match="document type"):
            proxy.test.evil()
        assert proxy.test.echo("again") == ["again"]


def test_pool(url: str) -> None:
    """A pool calls for many threads at once, whatever its size."""
    pool = ServerProxyPool(2, SAMPXXEServerProxy, url)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(pool.test.echo(n))) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [[n] for n in range(10)]
    assert len(pool._idle) <= 2
    pool.shutdown()
    assert pool._idle == []
    with pytest.raises(AttributeError):
        pool.__wrapped__  # noqa: B018
