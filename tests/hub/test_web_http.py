# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""HTTP of the Web Profile: what browsers need, and the requests that the hub rejects."""

from __future__ import annotations

import socket
import xml.etree.ElementTree as ET
import xmlrpc.client
import zlib

import pytest

from pyvo.samp.transport import http11
from pyvo.samp.transport.urls import is_loopback
from pyvo.samp.web_profile import cors
from pyvo.samp.web_profile.cors import is_allowed_host, send_filter

from .web_pages import ORIGIN, Page, Response, request, send

PING = xmlrpc.client.dumps((), "samp.webhub.ping").encode()


@pytest.fixture
def port(make_hub):
    return make_hub(web_profile=True, web_profile_dialog=lambda *_: True)._web_port


def fault_of(response: Response) -> str:
    """Return the text of the fault that a rejected request must get (R48)."""
    assert response.status == 200
    assert response.headers["content-type"] == "text/xml"
    with pytest.raises(xmlrpc.client.Fault) as caught:
        _ = response.value
    return caught.value.faultString


def test_the_response_to_a_preflight(port):
    """R44, R48."""
    headers = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
        "Origin": ORIGIN,
    }
    response = request(port, "OPTIONS", "/", headers)
    assert response.status == 200
    assert response.body == b""
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert {"POST", "GET"} <= set(response.headers["access-control-allow-methods"].split(", "))
    assert "Content-Type" in response.headers["access-control-allow-headers"]
    assert int(response.headers["access-control-max-age"]) > 0
    assert "access-control-allow-private-network" not in response.headers
    response = request(port, "OPTIONS", "/", {**headers, "Access-Control-Request-Private-Network": "true"})
    assert response.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    "origin", ["https://sky.example", "http://localhost:8000", "null", "chrome-extension://abc", "file://"]
)
def test_the_response_contains_the_origin(port, origin):
    """R44, R48: ``null`` is a valid origin."""
    response = request(port, "POST", "/", {"Origin": origin}, PING)
    assert response.headers["access-control-allow-origin"] == origin
    assert "origin" in response.headers["vary"].lower()
    assert response.value == ""


def test_a_response_without_an_origin(port):
    """R44."""
    response = request(port, "POST", "/", {}, PING)
    assert "access-control-allow-origin" not in response.headers
    assert response.value == ""


@pytest.mark.parametrize("path", ["/crossdomain.xml", "/clientaccesspolicy.xml"])
def test_the_policy_files_of_plug_ins(port, path):
    """R44: browser plug-ins get the files that allow access from all origins."""
    response = request(port, "GET", path)
    assert response.status == 200
    assert response.headers["content-type"] == "text/xml"
    ET.fromstring(response.body)
    assert b'"*"' in response.body
    head = request(port, "HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"])
def test_names_of_this_machine_are_accepted_from_pages(port, host):
    """R45."""
    assert request(port, "POST", "/", {"Origin": ORIGIN}, PING, host=f"{host}:{port}").value == ""


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "localhost", "localhost:80", "127.0.0.1.evil.example:{port}"]
)
def test_other_host_names_are_rejected_from_pages(port, host):
    """R45: a page may have its own host name resolve to this machine. R48: the page can read the fault."""
    host = host.format(port=port)
    response = request(port, "POST", "/", {"Origin": "http://evil.example"}, PING, host=host)
    assert "does not name this server" in fault_of(response)
    assert response.headers["access-control-allow-origin"] == "http://evil.example"
    for method, path in (("GET", "/crossdomain.xml"), ("OPTIONS", "/"), ("GET", "/translator/x?http://h/")):
        assert request(port, method, path, host=host).status == 403


def test_a_request_without_a_host_is_rejected(port):
    """R45: every browser sends Host."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        send(sock, "POST", "/", {}, PING)
        assert "does not name this server" in fault_of(Response(sock))


def test_other_machines_are_rejected(make_hub, monkeypatch):
    """R45: the hub rejects a connection from another machine, even if the system accepts it."""
    port = make_hub(web_profile=True)._web_port
    monkeypatch.setattr("pyvo.samp.web_profile.profile.is_loopback", lambda address: is_loopback("192.0.2.7"))
    assert "this computer only" in fault_of(request(port, "POST", "/", {"Origin": ORIGIN}, PING))
    assert request(port, "GET", "/crossdomain.xml").status == 403


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.168.1.1", False),
     ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False), ("8.8.8.8", False)],
)  # fmt: skip
def test_is_loopback(address, loopback):
    """R45."""
    assert is_loopback(address) is loopback


def test_is_allowed_host():
    """R45."""
    assert is_allowed_host("localhost:21012", 21012)
    assert not is_allowed_host(None, 21012)
    assert not is_allowed_host("localhost:21012, evil", 21012)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"<methodCall/>",
        b"<?xml version='1.0'?><methodCall><methodName>samp.webhub.ping</methodName>",
        b"<methodCall><methodName>samp.hub.ping</methodName><params></params></methodCall>",
        b"<methodCall><methodName>system.listMethods</methodName></methodCall>",
        b"<methodCall><methodName>samp.webhub.notify</methodName></methodCall>",
        b"<methodCall><methodName>samp.webhub.register</methodName></methodCall>",
        xmlrpc.client.dumps(("key", "1"), "samp.webhub.pullCallbacks").encode(),
        b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><methodCall><methodName>&e;</methodName></methodCall>",
        b"<methodCall><methodName>samp.webhub.register</methodName><params><param><value><nil/></value></param></params></methodCall>",
        b"\xff\xfe",
        xmlrpc.client.dumps(("key",), "samp.webhub.allowReverseCallbacks").encode(),
        xmlrpc.client.dumps(("key", {}), "samp.webhub.allowReverseCallbacks").encode(),
    ],
)
def test_every_rejected_post_gets_a_fault(port, body):
    """R48: sampjs accepts only status 200."""
    response = request(port, "POST", "/", {"Origin": ORIGIN}, body)
    assert fault_of(response)
    assert response.headers["access-control-allow-origin"] == ORIGIN


OPERATIONS = {
    "register": [{"samp.name": "x"}],
    "unregister": ["key"],
    "declareMetadata": ["key", {}],
    "getMetadata": ["key", "hub"],
    "declareSubscriptions": ["key", {}],
    "getSubscriptions": ["key", "hub"],
    "getRegisteredClients": ["key"],
    "getSubscribedClients": ["key", "x"],
    "notify": ["key", "hub", {"samp.mtype": "x", "samp.params": {}}],
    "notifyAll": ["key", {"samp.mtype": "x", "samp.params": {}}],
    "call": ["key", "hub", "tag", {"samp.mtype": "x", "samp.params": {}}],
    "callAll": ["key", "tag", {"samp.mtype": "x", "samp.params": {}}],
    "callAndWait": ["key", "hub", {"samp.mtype": "x", "samp.params": {}}, "1"],
    "reply": ["key", "id", {"samp.status": "samp.ok", "samp.result": {}}],
    "allowReverseCallbacks": ["key", "1"],
    "pullCallbacks": ["key", "0"],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_wrong_parameters_of_a_page_are_faults(port, operation):
    """R48: too few parameters, too many, and parameters of a wrong type, with a valid key and with an invalid one."""
    good = OPERATIONS[operation]
    wrong = [[], good[:-1], [*good, "more"], [["list"], *good[1:]], [*good[:-1], ["list"]], [{}] * len(good), good]
    with Page(port) as page:
        page.register()
        for key in ("key", page.key):
            for values in wrong:
                if (operation == "register" and values is good) or (values is good and key == page.key):
                    continue
                params = tuple(key if value == "key" else value for value in values)
                body = xmlrpc.client.dumps(params, f"samp.webhub.{operation}").encode()
                response = request(port, "POST", "/", {"Origin": ORIGIN}, body)
                assert fault_of(response), values
                assert "Internal" not in fault_of(response), values
        assert page.call("ping") == ""


@pytest.mark.parametrize("path", ["/x", "/xmlrpc", "//", "/translator/x"])
def test_a_post_to_another_path_is_a_fault(port, path):
    """R39, R48."""
    response = request(port, "POST", path, {"Origin": ORIGIN}, PING)
    assert "nothing at this path" in fault_of(response)
    assert response.headers["access-control-allow-origin"] == ORIGIN


def head_only(port: int, **headers: str) -> Response:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        lines = [f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {ORIGIN}\r\n"]
        lines += [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        sock.sendall("".join([*lines, "\r\n"]).encode())
        return Response(sock)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Length": str(http11.MAX_BODY + 1)},
        {"Content_Length": "-1"},
        {"Content_Length": "ten"},
        {"Transfer_Encoding": "gzip"},
        {"Content_Length": "5", "Transfer_Encoding": "chunked"},
    ],
)
def test_a_post_that_breaks_http_or_a_limit_is_a_fault(port, headers):
    """R48."""
    response = head_only(port, **headers)
    assert fault_of(response)
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["connection"] == "close"


def test_a_compressed_body_that_is_too_large_is_a_fault(port):
    """R48."""
    packer = zlib.compressobj(wbits=31)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()
    response = request(port, "POST", "/", {"Origin": ORIGIN, "Content-Encoding": "gzip"}, body)
    assert fault_of(response)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_get_a_response_that_the_page_can_read(port, method):
    response = request(port, method, "/", {"Origin": ORIGIN})
    assert response.status == 405
    assert response.headers["access-control-allow-origin"] == ORIGIN


def test_other_paths_are_not_found(port):
    """A page can read the 404 response."""
    response = request(port, "GET", "/etc/passwd", {"Origin": ORIGIN})
    assert response.status == 404
    assert response.headers["access-control-allow-origin"] == ORIGIN


def test_responses_contain_only_strings_lists_and_maps(port):
    """R48."""
    with Page(port) as page:
        page.send(page._main, "register", {"samp.name": "x"})
        body = Response(page._main).body
        assert body.startswith(b"<?xml")
        tags = {element.tag for element in ET.fromstring(body).iter()}
    assert tags <= {"methodResponse", "params", "param", "value", "string", "struct", "member", "name", "array", "data"}


def test_text_beyond_ascii_is_kept(port):
    """R5."""
    with Page(port) as page:
        page.register()
        metadata = {"samp.name": "\u661f \U0001f52d \u00fc<&>\n]]>"}
        page.call("declareMetadata", metadata)
        assert page.call("getMetadata", page.id) == metadata


def test_pages_are_served_over_ipv6(port):
    """R45: a browser may resolve ``localhost`` to ::1."""
    try:
        sock = socket.create_connection(("::1", port), timeout=10)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with sock:
        send(sock, "POST", "/", {"Host": f"[::1]:{port}", "Origin": ORIGIN}, PING)
        assert Response(sock).value == ""


def test_the_send_filter():
    """R47."""
    rule = send_filter(["table.*", "x.y"])
    assert rule("table.load", {})
    assert rule("x.y", {"other": "0"})
    assert not rule("x.y.z", {})
    assert not rule("table.load", {"samp.mostly-harmless": "0"})
    assert not rule("table.load", {"x-samp.mostly-harmless": "0", "samp.mostly-harmless": "1"})
    assert rule("evil", {"samp.mostly-harmless": "1"})
    assert not rule("evil", {"samp.mostly-harmless": "yes"})
    assert not rule("evil", {"samp.mostly-harmless": ["1"]})
    assert send_filter(["*"]) is None
    with pytest.raises(ValueError, match="neither an MType"):
        send_filter(["a*"])


def test_a_browser_may_cache_a_preflight_for_a_day():
    """R48."""
    assert cors.MAX_AGE == 86_400
