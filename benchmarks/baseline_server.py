# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The baseline: the standard library's XML-RPC server, without the work of a hub.

``echo`` is one hop. A callAndWait through a hub is three: the caller's request, the hub's request to the recipient, and
the recipient's reply. `forward`, which makes another request, and one ``echo`` are the same three.
"""

from __future__ import annotations

import json
import sys
import threading
from socketserver import ThreadingMixIn
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer


class KeepingHandler(SimpleXMLRPCRequestHandler):
    """Keeps connections open, which is faster."""

    protocol_version = "HTTP/1.1"


class Server(ThreadingMixIn, SimpleXMLRPCServer):
    daemon_threads = True
    request_queue_size = 64


own = threading.local()


def forward(url, key, sender, msg_id, message):
    """Call a client as a hub does."""
    if getattr(own, "url", None) != url:
        own.url, own.proxy = url, ServerProxy(url)
    return own.proxy.samp.client.receiveCall(key, sender, msg_id, message)


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), KeepingHandler, logRequests=False)
    server.register_function(forward, "forward")
    server.register_function(lambda *values: values[-1], "echo")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"samp.hub.xmlrpc.url": f"http://127.0.0.1:{server.server_address[1]}/", "samp.secret": ""}))
    sys.stdout.flush()
    sys.stdin.read()
