# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Tables read over HTTP: rows are converted while the rest arrives, in bounded memory; no other URL is fetched."""

from __future__ import annotations

import base64
import gzip
import io
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io.votable import from_table
from astropy.table import Table

from pyvo.samp import SAMPClientError
from pyvo.samp.formats import votable_reader
from pyvo.samp.formats.model import Sender
from pyvo.samp.formats.readers import read_message

TIMEOUT = 20
ROWS = 50_000


class Server:
    """Serve one document in two parts; the second part is sent when `more` is set."""

    def __init__(self) -> None:
        self.document = b""
        #: Other documents, by path.
        self.others: dict[str, bytes] = {}
        #: The value of Content-Length; None if the response has no such field.
        self.length: int | None = None
        self.more = threading.Event()
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                self.send_response(200)
                if server.length is not None:
                    self.send_header("Content-Length", str(server.length))
                self.end_headers()
                document = server.others.get(self.path, server.document)
                data, half = memoryview(document), len(document) // 2
                self.wfile.write(data[:half])
                if server.more.wait(TIMEOUT):
                    self.wfile.write(data[half:])

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/table"

    def stop(self) -> None:
        self.more.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # waits for the requests


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def read(server: Server, mtype: str = "table.load.votable") -> Any:
    return read_message(mtype, {"url": server.url}, Sender("c1", "sender"))


def votable(table: Table, kind: str) -> bytes:
    file = io.BytesIO()
    from_table(table).to_xml(file, tabledata_format=kind)
    return file.getvalue()


@pytest.fixture
def table() -> Table:
    return Table({"number": np.arange(ROWS), "value": np.arange(ROWS) / 7})


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", ["tabledata", "binary", "binary2"])
@pytest.mark.parametrize("has_length", [True, False])
def test_rows_are_converted_while_the_rest_arrives(
    kind: str, has_length: bool, compress: Callable[[bytes], bytes], server: Server, table: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server sends the second half of the document when rows of the first half have been converted."""
    name = "TabledataRows" if kind == "tabledata" else "BinaryRows"

    class Rows(getattr(votable_reader, name)):
        def add(self, data: bytes) -> int:
            count = int(super().add(data))
            if count:
                server.more.set()
            return count

    monkeypatch.setattr(votable_reader, name, Rows)
    monkeypatch.setattr(votable_reader, "BLOCK_SIZE", 64 * 1024)
    server.document = compress(votable(table, kind))
    server.length = len(server.document) if has_length else None
    received = read(server)
    assert received["number"].tolist() == table["number"].tolist()
    assert received["value"].tolist() == table["value"].tolist()


def test_a_document_that_is_left_to_astropy_near_its_end(server: Server, table: Table) -> None:
    """If something unusual is among the last rows, astropy reads the whole document, which is fetched only once."""
    server.document = votable(table, "tabledata").replace(b"</TABLEDATA>", b"<!-- end --></TABLEDATA>")
    server.more.set()
    assert read(server)["number"].tolist() == table["number"].tolist()
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["tabledata", "binary2"])
def test_an_interrupted_transfer(kind: str, server: Server, table: Table) -> None:
    """Fewer bytes than Content-Length says are an error, even if the format has no end mark."""
    server.more.set()
    whole = votable(table, kind)
    server.document, server.length = whole[: len(whole) // 3], len(whole)
    with pytest.raises(SAMPClientError, match="was interrupted: [0-9]+ bytes are missing"):
        read(server)
    server.document, server.length = b"a,b\n1,2\n3,4\n", 100
    with pytest.raises(SAMPClientError, match="was interrupted: 88 bytes are missing"):
        read(server)


def test_memory_is_bounded(server: Server) -> None:
    """A large table takes the memory of its values and of a few blocks."""
    values = np.random.default_rng(1).normal(size=3_000_000)
    field = b'<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="a" datatype="double"/><DATA><BINARY>'
    rows = b'<STREAM encoding="base64">' + base64.b64encode(values.astype(">f8").tobytes()) + b"</STREAM>"
    server.document = field + rows + b"</BINARY></DATA></TABLE></RESOURCE></VOTABLE>"
    server.length = len(server.document)
    server.more.set()
    tracemalloc.start()
    try:
        received = read(server)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (received["a"] == values).all()
    beyond = peak - received["a"].nbytes - received["a"].mask.nbytes
    assert beyond < 6_000_000 < len(server.document) / 5


def test_rows_on_another_server_are_not_fetched(server: Server, tmp_path: Path) -> None:
    """A table cannot make its recipient fetch from another server, or open a file if it was fetched over HTTP."""
    other = Server()
    other.more.set()
    server.more.set()
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0\0\0\x01")
    start = '<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="a" datatype="int"/><DATA>'
    end = "</DATA></TABLE></RESOURCE></VOTABLE>"
    try:
        for href in (other.url, other.url.replace("http:", ""), "ftp://127.0.0.1/x", secret.as_uri()):
            server.document = f'{start}<BINARY><STREAM href="{href}"/></BINARY>{end}'.encode()
            with pytest.raises(SAMPClientError, match="from another source, .*: they are not fetched"):
                read(server)
        path = tmp_path / "t.vot"
        path.write_bytes(server.document.replace(secret.as_uri().encode(), other.url.encode()))
        with pytest.raises(SAMPClientError, match="from another source"):
            read_message("table.load.votable", {"url": path.as_uri()}, Sender("c1", "sender"))
        # A second table after the first one
        rows = "<TABLEDATA><TR><TD>1</TD></TR></TABLEDATA></DATA></TABLE>"
        more = f'<TABLE><FIELD name="b" datatype="int"/><DATA><BINARY><STREAM href="{other.url}"/></BINARY>'
        server.document = f"{start}{rows}{more}{end}".encode()
        with pytest.warns(UserWarning, match="contains 2 tables"):
            assert read(server)["a"].tolist() == [1]
        assert other.requests == []
    finally:
        other.stop()


def test_rows_on_the_same_server_are_fetched(server: Server) -> None:
    """A stream on the server of the table is fetched from that server."""
    server.more.set()
    field = '<FIELD name="a" datatype="int"/><DATA><BINARY><STREAM href="table?rows"/></BINARY></DATA>'
    server.document = f'<VOTABLE version="1.4"><RESOURCE><TABLE>{field}</TABLE></RESOURCE></VOTABLE>'.encode()
    server.others["/table?rows"] = b"\0\0\0\x01\0\0\0\x02"
    assert read(server)["a"].tolist() == [1, 2]
    assert server.requests == ["/table", "/table?rows"]
