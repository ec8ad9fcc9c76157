"""The server of the hub window: access, updates, actions, limits, and consent."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pyvo.samp.window.server as server_module
from pyvo.samp import SAMPHubError, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.broker import Broker
from pyvo.samp.broker.deliveries import EncodedMessage
from pyvo.samp.web_profile import consent_prompts
from pyvo.samp.web_profile.consent import ConsentRequest, ConsentTicket, Decision
from pyvo.samp.web_profile.consent_prompts import WindowPrompt, make_prompt
from pyvo.samp.window.server import WindowServer

from .conftest import Window

Open = Callable[[SAMPHubServer], Window]


def register(broker: Broker, name: str, *mtypes: str) -> Any:
    """Register a client that ignores its deliveries."""
    client = broker.register("standard", _Sink())
    broker.set_callable(client)
    broker.declare_metadata(client, {"samp.name": name})
    broker.declare_subscriptions(client, {mtype: {} for mtype in mtypes})
    return client


class _Sink:
    def put(self, delivery: object) -> None:
        """Ignore a delivery."""

    def close(self, final_delivery: object) -> None:
        """Do nothing."""


def message(mtype: str, **params: str) -> EncodedMessage:
    return EncodedMessage.message({"samp.mtype": mtype, "samp.params": params})


@pytest.fixture
def broker(hub: SAMPHubServer) -> Broker:
    assert hub._running is not None
    return hub._running.broker


# Access


@pytest.mark.parametrize("path", ["/", "/window.js", "/window.css", "/favicon.ico"])
def test_page(window: Window, path: str) -> None:
    """The page and its parts need no key, and each response has all security headers."""
    response = window.request("GET", path)
    assert response.status == 200
    assert response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control")]


ROUTES = [
    *[("GET", path) for path in ("/state", "/events?since=0", "/message/1", "/icon/c1")],
    *[("POST", path) for path in ("/disconnect", "/ping", "/consent", "/stop")],
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("authorization", [None, "Bearer ", "Bearer wrong", "Basic wrong", "Bearer \xe9"])
def test_everything_else_needs_the_key(
    window: Window, hub: SAMPHubServer, method: str, path: str, authorization: str | None
) -> None:
    response = window.request(method, path, {} if method == "POST" else None, authorization=authorization)
    assert response.status == 401
    assert response.getheader("Content-Security-Policy")
    assert hub.is_running


REJECTED: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "/", {"host": "localhost:1"}, 403),
    ("GET", "/", {"host": "evil.example"}, 403),
    ("GET", "/", {"host": ""}, 403),
    ("GET", "/state", {"origin": "https://evil.example"}, 403),
    ("GET", "/state", {"origin": "null"}, 403),
    ("GET", "/state", {"sec_fetch_site": "cross-site"}, 403),
    ("GET", "/state", {"sec_fetch_site": "same-site"}, 403),
    ("GET", "/", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"}, 403),
    ("GET", "/", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}, 403),
    ("GET", "/window.js", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate",
                           "sec_fetch_dest": "document"}, 403),
    ("POST", "/", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, 403),
    ("POST", "/stop", {"content_type": "text/plain"}, 415),
    ("POST", "/stop", {"content_type": "application/x-www-form-urlencoded"}, 415),
    ("POST", "/session", {"content_type": "text/plain"}, 415),
    *[(method, "/", {}, 405) for method in ("OPTIONS", "HEAD", "PUT", "DELETE")],
    ("OPTIONS", "/state", {"access_control_request_method": "GET"}, 405),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "headers", "status"), REJECTED)
def test_rejected_requests(
    window: Window, hub: SAMPHubServer, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Each of these requests is rejected, even with the key of the session."""
    window.open()
    response = window.request(method, path, {"token": "x"} if method == "POST" else None, **headers)
    assert response.status == status
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]
    assert response.getheader("Allow") == ("GET, POST" if status == 405 else None)
    assert hub.is_running


def test_localhost_is_another_host(window: Window) -> None:
    """The window has one origin, that of its URL; pages of ``localhost`` have another."""
    assert window.request("GET", "/", host=f"localhost:{window.port}").status == 403


def test_a_link_leads_to_the_page(window: Window) -> None:
    """A browser states ``cross-site`` if the link is in a file or in a notebook."""
    headers = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert window.request("GET", "/", **headers).status == 200


def test_token_is_valid_once(window: Window) -> None:
    window.open()
    first = window.key
    status, content = window.post("/session", {"token": window.token})
    assert (status, content) == (403, "This link has expired or has already been used")
    assert window.get("/state")["full"]
    assert len(first) >= 43  # 256 bits


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"token": 1}', b'{"token": []}', b'"x"', b"{}", b"\xff"])
def test_malformed_session_requests(window: Window, body: bytes) -> None:
    response = window.request("POST", "/session", body)
    assert response.status in {400, 403}
    assert "Traceback" not in response.read().decode()


def test_token_expires(make_hub: Callable[..., SAMPHubServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "TOKEN_LIFETIME", 0.0)
    hub = make_hub()
    window = Window(hub.open_window(browser=False))
    assert hub._running is not None
    assert hub._running._window is not None
    loop = hub._running._window._loop
    ran = threading.Event()
    loop.call_later(0.05, ran.set)  # after the timer of the token
    assert ran.wait(10)
    assert window.post("/session", {"token": window.token})[0] == 403
    window.close()


def test_number_of_valid_links(hub: SAMPHubServer) -> None:
    """If there are too many links, the oldest one is no longer valid. Each window has its own key."""
    windows = [Window(hub.open_window(browser=False)) for _ in range(server_module.MAX_TOKENS + 1)]
    assert windows[0].post("/session", {"token": windows[0].token})[0] == 403
    keys = {window.open().key for window in windows[1:4]}
    assert len(keys) == 3
    assert all(window.get("/state")["full"] for window in windows[1:4])
    for window in windows:
        window.close()


def test_another_user_is_rejected(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub rejects requests of another user, if the system reports the user of a connection."""
    window.open()
    monkeypatch.setattr(server_module, "is_other_user", lambda peer, port: True)
    assert window.request("GET", "/").status == 403
    assert window.request("GET", "/state").status == 403
    assert window.request("POST", "/session", {"token": "x"}).status == 403


def test_bodies_are_limited(window: Window) -> None:
    assert window.request("POST", "/session", {"token": "x" * 20_000}).status == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/nothing", 404), ("GET", "/stop", 404), ("POST", "/state", 404),
     ("GET", "/message/x", 400), ("GET", "/message/1e9", 400), ("GET", "/message", 400), ("GET", "/message/99", 404),
     ("GET", "/events", 400), ("GET", "/events?since=x", 400), ("GET", "/icon/c99", 404), ("GET", "/../hub.py", 404)],
)  # fmt: skip
def test_invalid_urls(window: Window, method: str, path: str, status: int) -> None:
    window.open()
    assert window.request(method, path, {} if method == "POST" else None).status == status


# Updates


def test_state(open_window: Open, hub: SAMPHubServer, broker: Broker) -> None:
    """The window shows clients that registered before and after it was opened."""
    one = register(broker, "One", "a.b", "c.*")
    window = open_window(hub)
    state = window.get("/state")
    assert state["full"]
    assert state["ids"] == ["c1"]
    assert state["clients"][0] | {"active": 0} == {
        "id": "c1", "name": "One", "profile": "standard", "icon": False, "metadata": [["samp.name", "One"]],
        "subscriptions": ["a.b", "c.*"], "sent": 0, "received": 0, "active": 0,
    }  # fmt: skip
    assert [profile["on"] for profile in state["hub"]["profiles"]] == [True, False]
    events = window.events(state["version"])
    two = register(broker, "Two")
    broker.notify(two, one.client_id, message("a.b", key="value"))
    [row] = _until(events, lambda update: [row for row in update["messages"] if row["mtype"] == "a.b"])
    assert (row["kind"], row["sender"], row["to"], row["status"]) == ("notification", "c2", [["c1", ""]], "")
    assert row["text"] == '{"key": "value"}'
    broker.unregister(one)
    assert _until(events, lambda update: update.get("ids")) == ["c2"]


def _until(events: Any, find: Callable[[dict[str, Any]], Any]) -> Any:
    """Read updates until something is found in one."""
    return next(found for update in events if (found := find(update)))


def test_no_secret_leaves_the_hub(open_window: Open, hub: SAMPHubServer, broker: Broker) -> None:
    """The window gets neither the hub's secret, nor a private key, nor the token or key of a window."""
    with SAMPIntegratedClient(name="Real") as client:
        window = open_window(hub)
        assert client.get_private_key() is not None
        text = json.dumps([window.get("/state"), next(window.events())])
        secrets = [hub.params["samp.secret"], client.get_private_key(), window.token, window.key]
        assert not [secret for secret in secrets if secret in text]
        assert not [client.private_key for client in broker.clients() if client.private_key in text]


def test_call_is_due_until_the_responses_arrive(open_window: Open, hub: SAMPHubServer, broker: Broker) -> None:
    one, two, three = register(broker, "One"), register(broker, "Two", "a.*"), register(broker, "Three", "a.*")
    window = open_window(hub)
    events = window.events()
    ids = broker.call_all(one, "tag", message("a.b"))
    due = _until(events, lambda update: [row for row in update["messages"] if row["mtype"] == "a.b"])[0]
    assert (due["status"], due["took"], {state for _, state in due["to"]}) == ("due", None, {"due"})
    broker.reply(two, ids["c2"], EncodedMessage.response({"samp.status": "samp.ok", "samp.result": {"n": "1"}}))
    error = {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "<b>no</b>"}}
    broker.reply(three, ids["c3"], EncodedMessage.response(error))
    row = _until(events, lambda update: [row for row in update["messages"] if row["status"] == "error"])[0]
    assert (row["n"], dict(row["to"])) == (due["n"], {"c2": "ok", "c3": "error"})
    detail = window.get(f"/message/{row['n']}")
    assert json.loads(detail["text"]) == {"samp.mtype": "a.b", "samp.params": {}}
    assert [(reply["client_id"], reply["samp_status"]) for reply in detail["replies"]] == [
        ("c2", "samp.ok"), ("c3", "samp.error"),
    ]  # fmt: skip
    assert json.loads(detail["replies"][0]["value"])["samp.result"] == {"n": "1"}
    assert detail["replies"][1]["error"] == "<b>no</b>"


def test_call_that_is_cancelled(open_window: Open, hub: SAMPHubServer, broker: Broker) -> None:
    """If the caller no longer waits, the call does not stay due (R22)."""
    one, two = register(broker, "One"), register(broker, "Two", "a.b")
    window = open_window(hub)
    call = broker.call_and_wait(one, two.client_id, message("a.b"), lambda response: None)
    assert broker.cancel_call(call)
    row = _until(window.events(), lambda update: [row for row in update["messages"] if row["status"] == "error"])[0]
    [reply] = window.get(f"/message/{row['n']}")["replies"]
    assert reply["error"] == "The sender no longer waits for the response"


def test_long_messages(open_window: Open, hub: SAMPHubServer, broker: Broker) -> None:
    """The server sends 64 KiB, and the rest on request."""
    one, two = register(broker, "One"), register(broker, "Two", "a.b")
    window = open_window(hub)
    text = "".join(map(str, range(100_000)))
    broker.notify(one, two.client_id, message("a.b", text=text))
    [row] = _until(window.events(), lambda update: [row for row in update["messages"] if row["mtype"] == "a.b"])
    assert len(row["text"]) <= 200
    short = window.get(f"/message/{row['n']}")
    assert not short["whole"]
    assert 65_000 < len(short["text"]) < 66_000
    whole = window.get(f"/message/{row['n']}?whole")
    assert whole["whole"]
    assert json.loads(whole["text"])["samp.params"]["text"] == text


def test_control_characters_and_long_metadata(open_window: Open, hub: SAMPHubServer, broker: Broker) -> None:
    """Control characters are replaced, 1 MB of metadata is shortened, and unusual values cause no error."""
    one = register(broker, "One", "a.\u202eb", "x.y")
    two = register(broker, "\u202eTwo\x1b[2J<img src=x onerror=alert(1)>" + "x" * 1_000_000)
    broker.declare_metadata(two, {
        "samp.name": "\u202eTwo\x1b[2J<img src=x onerror=alert(1)>",
        "big": "y" * 1_000_000, "samp.icon.url": ["no", "url"], "deep": {"a": ["b", {"c": "d"}]},
        **{f"key{number}": "z" * 1000 for number in range(1000)},
    })  # fmt: skip
    window = open_window(hub)
    broker.notify(two, one.client_id, message("x.y", text="\u202eabc \x9b"))
    _until(window.events(), lambda update: update["messages"])
    update = window.get("/state")
    data = json.dumps(update, ensure_ascii=False)
    assert len(data) < 150_000
    assert not set(data) & set("\u202e\x1b\x9b")
    shown = {client["id"]: client for client in update["clients"]}["c2"]
    assert shown["name"].startswith("?Two?[2J<img src=x onerror=alert(1)>")
    assert shown["icon"] is False
    assert dict(shown["metadata"])["deep"] == '{"a": ["b", {"c": "d"}]}'
    detail = window.get(f"/message/{update['messages'][-1]['n']}")
    assert "\\u202eabc" in detail["text"]


def test_warnings(open_window: Open, hub: SAMPHubServer) -> None:
    window = open_window(hub)
    logging.getLogger("pyvo.samp.somewhere").warning("Odd: %s", "\u202ex")
    logging.getLogger("pyvo.samp.somewhere").info("Not odd")
    [[_, text]] = _until(window.events(), lambda update: update["warnings"])
    assert text == "Odd: ?x"


# Actions


def test_disconnect(open_window: Open, hub: SAMPHubServer) -> None:
    """The client gets ``samp.hub.disconnect`` (R26)."""
    with SAMPIntegratedClient(name="Victim") as client:
        notified = threading.Event()
        client.bind_receive_notification("samp.hub.disconnect", lambda *args: notified.set())
        window = open_window(hub)
        assert window.post("/disconnect", {"id": client.get_public_id()}) == (200, {})
        assert notified.wait(10)
    assert window.wait_for(lambda update: update["ids"] == [])


@pytest.mark.parametrize("path", ["/disconnect", "/ping"])
def test_actions_on_unknown_clients(open_window: Open, hub: SAMPHubServer, path: str) -> None:
    window = open_window(hub)
    assert window.post(path, {"id": "c99"})[0] == 409
    assert window.post(path, {"id": "hub"})[0] == 400
    assert window.post(path, {"id": ["c1"]})[0] in {400, 409}
    assert window.post(path, {})[0] == 400


def test_ping(open_window: Open, hub: SAMPHubServer, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client replies, is not subscribed, or does not reply in time. The ping is in the record."""
    window = open_window(hub)
    with SAMPIntegratedClient(name="Real") as client:
        status, result = window.post("/ping", {"id": client.get_public_id()})
        assert (status, result["status"]) == (200, "samp.ok")
        assert 0 <= result["seconds"] < 10
        [row] = _until(window.events(), lambda update: [row for row in update["messages"] if row["status"] == "ok"])
        assert (row["mtype"], row["sender"]) == ("samp.app.ping", "hub")
    status, text = window.post("/ping", {"id": register(broker, "Unsubscribed").client_id})
    assert status == 409
    assert "is not subscribed to samp.app.ping" in text
    monkeypatch.setattr(server_module, "PING_TIMEOUT", 0.05)
    silent = register(broker, "Silent", "samp.app.ping")
    assert window.post("/ping", {"id": silent.client_id}) == (200, {"status": "", "seconds": 0.05})
    assert not silent.pending_received


def test_stop(open_window: Open, make_hub: Callable[..., SAMPHubServer]) -> None:
    """The hub stops, and the last update of the window says so."""
    hub = make_hub()
    window = open_window(hub)
    events = window.events()
    assert next(events)["full"]
    assert window.post("/stop", {}) == (200, {})
    assert list(events)[-1] == {"stopped": True}
    assert hub._running is not None
    assert hub._running.closed.wait(10)
    assert not hub.is_running


def test_hub_that_stops_while_windows_are_open(open_window: Open, make_hub: Callable[..., SAMPHubServer]) -> None:
    """The stop takes less than two seconds, and the next start of the hub has another window."""
    hub = make_hub()
    streams = [open_window(hub).events() for _ in range(3)]
    assert all(next(stream)["full"] for stream in streams)
    started = time.monotonic()
    hub.stop()
    assert time.monotonic() - started < 2.0
    assert [list(stream)[-1] for stream in streams] == [{"stopped": True}] * 3
    with pytest.raises(SAMPHubError, match="The hub is not running"):
        hub.open_window(browser=False)
    hub.start()
    assert open_window(hub).get("/state")["full"]


# Limits


def test_streams_are_limited(open_window: Open, hub: SAMPHubServer) -> None:
    window = open_window(hub)
    streams = [window.events() for _ in range(server_module.MAX_STREAMS)]
    assert all(next(stream)["full"] for stream in streams)
    assert window.request("GET", "/events?since=0").status == 503


def test_skipped_rows_are_sent_later(open_window: Open, hub: SAMPHubServer, broker: Broker) -> None:
    """If there are more messages than an update may contain, it has the newest; each other comes later, once."""
    one, two = register(broker, "One"), register(broker, "Two", "a.b")
    window = open_window(hub)
    events = window.events(window.get("/state")["version"])
    server = hub._running._window  # type: ignore[union-attr]
    assert server is not None
    with server._changed:  # the recorder waits for this lock
        for _ in range(3 * server_module.MAX_ROWS):
            broker.notify(one, two.client_id, message("a.b"))
    updates: list[Any] = []

    def numbers() -> list[int]:
        return [row["n"] for update in updates for row in update["messages"]]

    _until(events, lambda update: (updates.append(update), len(numbers()) >= 3 * server_module.MAX_ROWS)[1])
    assert len(set(numbers())) == len(numbers()) == 3 * server_module.MAX_ROWS
    assert max(len(update["messages"]) for update in updates) == server_module.MAX_ROWS
    assert not any(update["full"] for update in updates)
    assert (updates[-1]["total"], updates[-1]["skipped"]) == (3 * server_module.MAX_ROWS, 0)
    call = broker.call_and_wait(one, two.client_id, message("a.b"), lambda response: None)
    due = _until(events, lambda update: update["messages"])
    broker.reply(two, call.msg_id, EncodedMessage.response({"samp.status": "samp.ok"}))
    done = _until(events, lambda update: update["messages"])
    assert [(row["n"], row["status"]) for row in due + done] == [(due[0]["n"], "due"), (due[0]["n"], "ok")]
    events.close()
    events = window.events(10**9)  # the version of an earlier hub
    assert next(events)["full"]
    broker.notify(one, two.client_id, message("a.b", last=""))
    assert len(_until(events, lambda update: update["messages"])) == 1


def test_unknown_version_gets_a_full_update(open_window: Open, hub: SAMPHubServer) -> None:
    """The page may be older than the last start of the hub."""
    window = open_window(hub)
    assert next(window.events(10**9))["full"]


def test_reader_that_does_not_read(
    open_window: Open, hub: SAMPHubServer, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub disconnects the reader, and does not buffer updates for it."""
    monkeypatch.setattr(server_module, "WRITE_TIMEOUT", 0.2)
    window = open_window(hub)
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((window.host, window.port))
        sock.sendall(
            f"GET /events?since=0 HTTP/1.1\r\nHost: {window.host}:{window.port}\r\n"
            f"Authorization: Bearer {window.key}\r\n\r\n".encode()
        )
        assert hub._running is not None
        server = hub._running._window
        assert server is not None
        assert sock.recv(1)
        clients = [register(broker, "x" * 60, *(f"a.{'b' * 90}{n}" for n in range(300))) for _ in range(60)]
        with server._changed:
            assert server._changed.wait_for(lambda: not server._streams, 30)
        assert len(clients) == 60
        assert len(window.get("/state")["clients"]) == 60


@pytest.mark.parametrize("size", [1, 4_000_000])
def test_hub_that_is_faster_than_the_recorder(hub: SAMPHubServer, open_window: Open, broker: Broker, size: int) -> None:
    """The queue is limited in number and in bytes, messages beyond it are counted, and the list of clients is right."""
    one, two = register(broker, "One"), register(broker, "Two", "a.b")
    window = open_window(hub)
    events = window.events()
    call = broker.call_and_wait(one, two.client_id, message("a.b"), lambda response: None)
    _until(events, lambda update: [row for row in update["messages"] if row["status"] == "due"])
    assert hub._running is not None
    server = hub._running._window
    assert server is not None
    payload = message("a.b", text="x" * size)
    with server._changed:  # the recorder waits for this lock
        broker.reply(two, call.msg_id, EncodedMessage.response({"samp.status": "samp.ok"}))
        register(broker, "Three")
        broker.unregister(one)
        three = register(broker, "Four")
        for _ in range(2 * server_module.MAX_QUEUED if size == 1 else 10):
            broker.notify(three, two.client_id, payload)
        assert len(server._queue) <= (server_module.MAX_QUEUED if size == 1 else 15)
    total = 2 * server_module.MAX_QUEUED if size == 1 else 10
    window.wait_for(lambda update: update["missed"])
    window.wait_for(lambda update: len(update.get("ids", ())) == 3)
    update = window.get("/state")
    assert {client["name"] for client in update["clients"]} == {"Two", "Three", "Four"}
    counts = {client["name"]: (client["sent"], client["received"]) for client in update["clients"]}
    assert counts == {"Two": (0, total + 1), "Three": (0, 0), "Four": (total, 0)}
    statuses = [row["status"] for row in update["messages"] if row["kind"] == "call"]
    assert statuses in ([], ["unknown"] if size == 1 else ["ok"])  # it does not stay due


def test_memory_of_the_record_is_limited(hub: SAMPHubServer, open_window: Open, broker: Broker) -> None:
    """The record has at most 32 MB of messages, and only the beginning of a larger message."""
    one, two = register(broker, "One"), register(broker, "Two", "a.b")
    window = open_window(hub)
    events = window.events()
    traffic = hub._running._window._traffic  # type: ignore[union-attr]
    for number in range(12):
        broker.notify(one, two.client_id, message("a.b", text=str(number) * 4_000_000))
        _until(events, lambda update, total=number + 1: update["total"] == total)
    assert traffic._bytes <= 32 * 1024 * 1024
    assert sum(row.value is not None for row in traffic.messages) < 9
    broker.notify(one, two.client_id, message("a.b", text="y" * 40_000_000))
    [row] = _until(events, lambda update: update["messages"])
    assert row["text"].startswith('{"text": "yyy')
    assert traffic._bytes == 0
    assert window.get(f"/message/{row['n']}")["text"].startswith('{"text": "yyy')


# Consent


def consent_request(name: str = "Page", origin: str = "https://example.org") -> ConsentRequest:
    details = {"samp.name": name, "author": "<i>me</i>"}
    return ConsentRequest(name, origin, details, ("127.0.0.1", 1), can_upload=True)


class WaitingRequest:
    """A consent request that waits in a thread."""

    def __init__(self, prompt: WindowPrompt, request: ConsentRequest) -> None:
        self.ticket = ConsentTicket(request, lambda decision: None)
        self.decision: Decision | None = None
        self._thread = threading.Thread(target=self._ask, args=(prompt,))
        self._thread.start()

    def _ask(self, prompt: WindowPrompt) -> None:
        self.decision = prompt.ask(self.ticket)

    def result(self) -> Decision | None:
        self._thread.join(10)
        return self.decision


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision is accepted at once."""
    monkeypatch.setattr(consent_prompts, "DECISION_DELAY", 0.0)


@pytest.fixture
def prompt(no_delay: None) -> WindowPrompt:
    found = make_prompt("window")
    assert isinstance(found, WindowPrompt)
    return found


def make_server(prompt: WindowPrompt) -> tuple[WindowServer, Window]:
    server = WindowServer(Broker(), prompt, lambda: {"label": "", "profiles": []}, lambda: None)
    server.start()
    return server, Window(server.open(browser=False)[0]).open()


@pytest.mark.parametrize("decision", list(Decision))
def test_consent(prompt: WindowPrompt, decision: Decision) -> None:
    server, window = make_server(prompt)
    waiting = WaitingRequest(prompt, consent_request())
    update = window.wait_for(lambda update: update["consent"])
    [request] = update["consent"]
    assert (request["name"], request["origin"], request["always"]) == ("Page", "https://example.org", True)
    assert request["details"] == [["author", "<i>me</i>"]]
    for text in ("read the data that they offer", "store up to 4 GiB", "other pages of this origin"):
        assert text in request["meaning"]
    body = {"id": request["id"], "decision": decision.value}
    assert window.post("/consent", body) == (200, {})
    assert waiting.result() is decision
    assert window.post("/consent", body) == (409, "This request is no longer open")
    assert window.wait_for(lambda update: not update["consent"])
    window.close()
    server.stop()


def test_always_is_offered_only_if_it_can_be_kept(prompt: WindowPrompt) -> None:
    server, window = make_server(prompt)
    waiting = WaitingRequest(prompt, consent_request(origin="null"))
    [request] = window.wait_for(lambda update: update["consent"])["consent"]
    assert request["always"] is False
    assert window.post("/consent", {"id": request["id"], "decision": "always"})[0] == 409
    assert window.post("/consent", {"id": request["id"], "decision": "yes"})[0] == 400
    assert window.post("/consent", {"id": "x", "decision": "once"})[0] == 400
    assert window.post("/consent", {"id": request["id"], "decision": "deny"})[0] == 200
    assert waiting.result() is Decision.DENY
    window.close()
    server.stop()


def test_decision_that_is_too_early(prompt: WindowPrompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server accepts a decision only some time after the window has shown the request, whatever the page does."""
    now = 100.0
    monkeypatch.setattr(consent_prompts, "DECISION_DELAY", 0.7)
    monkeypatch.setattr(consent_prompts, "time", SimpleNamespace(monotonic=lambda: now))
    opened = threading.Event()
    prompt.on_change = opened.set
    waiting = WaitingRequest(prompt, consent_request())
    assert opened.wait(10)
    early = "The user has not had time to read this request"
    assert prompt.decide(1, Decision.ONCE) == early  # no window has shown it
    assert list(prompt.show_requests()) == [1]
    now += 0.69
    assert list(prompt.show_requests()) == [1]  # another window
    assert prompt.decide(1, Decision.ONCE) == early
    assert prompt.decide(1, Decision.DENY) == early
    now += 0.02
    assert prompt.decide(1, Decision.ONCE) == ""
    assert waiting.result() is Decision.ONCE


def test_consent_request_that_is_cancelled(prompt: WindowPrompt) -> None:
    """If the page goes away or the time is up, the request disappears, and a late decision is rejected."""
    server, window = make_server(prompt)
    waiting = WaitingRequest(prompt, consent_request())
    [request] = window.wait_for(lambda update: update["consent"])["consent"]
    waiting.ticket.cancel()
    assert waiting.result() is Decision.DENY
    assert window.wait_for(lambda update: not update["consent"])
    assert window.post("/consent", {"id": request["id"], "decision": "once"})[0] == 409
    window.close()
    server.stop()


def test_window_opens_for_a_consent_request(
    make_hub: Callable[..., SAMPHubServer], no_delay: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub opens a window for a request only if no window is open."""
    opened: list[bool] = []
    opening = threading.Event()
    hub = make_hub(web_profile=True, web_profile_dialog="window")
    show = hub.open_window

    def open_window(browser: bool = True) -> str:
        opened.append(browser)
        opening.set()
        return show(False)

    monkeypatch.setattr(hub, "open_window", open_window)
    prompt = hub._running.prompt if hub._running else None
    assert prompt is not None
    first = WaitingRequest(prompt, consent_request())
    assert opening.wait(10)
    window = Window(show(False)).open()
    events = window.events()
    [request] = next(events)["consent"]
    assert window.post("/consent", {"id": request["id"], "decision": "deny"})[0] == 200
    assert first.result() is Decision.DENY
    second = WaitingRequest(prompt, consent_request())
    [request] = _until(events, lambda update: update["consent"])
    assert window.post("/consent", {"id": request["id"], "decision": "once"})[0] == 200
    assert second.result() is Decision.ONCE
    assert opened == [True]
    window.close()


def test_window_that_was_closed_is_noticed_at_once(open_window: Open, hub: SAMPHubServer) -> None:
    """The server notices this before it writes to the window, because the next consent request needs an open window."""
    window = open_window(hub)
    events = window.events()
    assert next(events)["full"]
    assert hub._running is not None
    server = hub._running._window
    assert server is not None
    assert server.is_watched
    window.close()
    assert not server.is_watched


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can start such a process")
def test_real_process_of_another_user_is_rejected(window: Window, tmp_path: Path) -> None:
    """A process of another user does not even get the page; the same request of this user succeeds."""
    script = (
        "import http.client\n"
        f"connection = http.client.HTTPConnection({window.host!r}, {window.port})\n"
        "connection.request('GET', '/')\n"
        "print(connection.getresponse().status)\n"
    )
    command = [sys.executable, "-I", "-c", script]
    python = Path(sys.executable).resolve()
    for user, status in ((None, "200\n"), (65534, "403\n")):
        if user is not None and not _can_run(python, user):
            command[0] = "/usr/bin/python3"
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, user=user, cwd="/")
        assert done.stdout == status


def _can_run(python: Path, user: int) -> bool:
    try:
        subprocess.run([python, "-I", "-c", ""], check=True, capture_output=True, timeout=30, user=user, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True
