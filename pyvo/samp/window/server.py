# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The HTTP server of the hub window.

Theory of operation
-------------------
The server has its own event loop and port, because port 21012 serves pages of every origin. Only `WindowServer.observe`
runs in the hub's thread; it appends events to a bounded queue. A *recorder* thread moves the events from the queue to
the `TrafficLog`. Each open window has a *stream*: a worker thread that writes the changes of the log as lines of JSON.
A stream stores only the numbers of the last changes that it has written, so that a slow reader needs no memory. A
reader that stops reading is disconnected, and gets a snapshot when it connects again.

Only the user may use the server. It checks the Host, Origin and Sec-Fetch headers of a request, the user who owns the
connection, and the key of the session. A page gets the key in exchange for a token, which only the user's browser
receives and which is valid once.
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
import logging
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from ..broker import Broker, Client, EncodedMessage, Traffic
from ..broker.deliveries import RESPONSE
from ..constants import SAMP_ICON
from ..errors import SAMPProxyError
from ..protocol.values import sanitize_for_display
from ..transport.event_loop import EventLoop, join_thread
from ..transport.http11 import HTTPError, HTTPRequest, Response
from ..transport.server import XMLRPCServer
from ..transport.server_connection import DeferredResponse, ServerConnection
from ..transport.urls import HOST_REJECTED_TEXT
from ..web_profile.consent import Decision
from ..web_profile.consent_prompts import WindowPrompt
from ..web_profile.peer_uid import is_other_user
from .browser import open_browser, write_redirect
from .icons import IconError, fetch_icon
from .traffic_log import ClientRow, MessageRow, TrafficLog, json_text

log = logging.getLogger(__name__)

#: Seconds for which a token is valid.
TOKEN_LIFETIME = 60.0
#: Limits for the number of simultaneous tokens, sessions and so on, and for the size of a request.
MAX_TOKENS = 32
MAX_SESSIONS = 16
MAX_STREAMS = 8
MAX_ICONS = 4
MAX_CONNECTIONS = 64
MAX_BODY = 16 * 1024
#: Maximum number of events in the queue; the oldest are dropped. Large messages may have `MAX_LARGE_BYTES` in total.
MAX_QUEUED = 500
LARGE_SIZE = 16 * 1024
MAX_LARGE_BYTES = 16 * 1024 * 1024
#: Minimum number of seconds between two rounds of the recorder, and between two lines of a stream.
RECORD_INTERVAL = 0.1
STREAM_INTERVAL = 0.5
#: The same for a stream that cannot keep up with the messages: more lines would overload a small machine's browser.
BUSY_STREAM_INTERVAL = 1.0
#: Approximate maximum number of events recorded per second. More would slow the hub down; the others are only counted.
MAX_RECORD_RATE = 1000
#: Seconds after which a stream writes an empty line, so that both sides detect a lost connection.
HEARTBEAT_INTERVAL = 10.0
#: Seconds that a stream waits for its reader.
WRITE_TIMEOUT = 10.0
#: Size of the send buffer of a stream.
SEND_BUFFER_SIZE = 128 * 1024
#: Maximum number of rows in a line of a stream: the newest rows. The others follow when there is less traffic.
MAX_ROWS = 50
#: Maximum number of recipients listed in a row.
MAX_RECIPIENTS = 50
#: Maximum number of characters of a message that are sent unless the user requests the whole message.
MAX_TEXT = 64 * 1024
MAX_WARNINGS = 20
PING_TIMEOUT = 10.0
#: Seconds to wait for the threads to end.
STOP_TIMEOUT = 0.2

STANDARD = "standard"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = (
    ("Content-Security-Policy", _CSP),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_FILES = {
    "/": ("window.html", "text/html; charset=utf-8"),
    "/window.js": ("window.js", "text/javascript; charset=utf-8"),
    "/window.css": ("window.css", "text/css; charset=utf-8"),
}
_ICON_PATH = "/favicon.ico"  # browsers request this path by default


Observer: TypeAlias = Callable[[Traffic], object]
Route: TypeAlias = Callable[[HTTPRequest, ServerConnection], Response | DeferredResponse | None]


@cache
def _file(path: str) -> Response:
    if path == _ICON_PATH:
        return Response(200, SAMP_ICON, "image/png", _HEADERS)
    name, media_type = _FILES[path]
    return Response(200, Path(__file__).with_name(name).read_bytes(), media_type, _HEADERS)


def _call_both(first: Observer, second: Observer, event: Traffic) -> None:
    first(event)
    second(event)


def _text(status: int, text: str, *headers: tuple[str, str]) -> Response:
    return Response(status, f"{text}\n".encode(), headers=(*_HEADERS, *headers))


def _json(value: object) -> Response:
    return Response(200, json.dumps(value).encode("ascii"), "application/json", _HEADERS)


class WindowServer:
    """
    The server of the hub window.

    ``prompt`` provides the consent requests if the window shows them. ``describe`` returns the label and the profiles
    of the hub. ``stop_hub`` is called in a thread of this server. Raises `OSError` if the server cannot listen.
    """

    def __init__(
        self,
        broker: Broker,
        prompt: WindowPrompt | None,
        describe: Callable[[], dict[str, Any]],
        stop_hub: Callable[[], object],
    ) -> None:
        self._broker = broker
        self._prompt = prompt
        self._describe = describe
        self._stop_hub = stop_hub
        self._loop = EventLoop("samp-window")
        self._server = XMLRPCServer(
            ("127.0.0.1", 0), self._loop, self, max_body=MAX_BODY, max_connections=MAX_CONNECTIONS
        )
        self.port = self._server.port
        self._host = f"127.0.0.1:{self.port}"
        # `observe` fills the queue while the broker's lock is held, and must not acquire another lock.
        self._queue: deque[tuple[float, Traffic]] = deque(maxlen=MAX_QUEUED)
        self._queued = threading.Event()
        self._observed = 0  # number of events that `observe` has got
        self._processed = 0  # number of events that the recorder has recorded or found to be dropped
        self._large_bytes = 0
        # `_changed` protects the following attributes.
        self._changed = threading.Condition()
        self._traffic = TrafficLog()
        self._missed = 0
        self._streams: set[socket.socket] = set()
        self._icons = 0
        self._stopping = threading.Event()
        self._tokens: dict[str, Path | None] = {}  # token -> the redirect file that contains it
        self._keys: deque[bytes] = deque(maxlen=MAX_SESSIONS)
        self._recorder = threading.Thread(target=self._record, name="samp-window-recorder", daemon=True)
        self._log_handler = _WarningHandler(self._queued.set)
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/state"): lambda _request, _connection: _json(self._update(0)),
            ("GET", "/events"): self._get_events,
            ("GET", "/message"): self._get_message,
            ("GET", "/icon"): self._get_icon,
            ("POST", "/disconnect"): self._post_disconnect,
            ("POST", "/ping"): self._post_ping,
            ("POST", "/consent"): self._post_consent,
            ("POST", "/stop"): self._post_stop,
        }

    # Called by the hub

    def start(self) -> None:
        """Start observing the hub and serving the window."""
        first = self._broker.observer
        self._broker.observer = self.observe if first is None else partial(_call_both, self.observe, first)
        with self._changed:
            self._traffic.touch()  # version 0 is that of a reader without data
            self._traffic.add_clients(dt.datetime.now(dt.UTC), self._broker.clients())
        logging.getLogger("pyvo.samp").addHandler(self._log_handler)
        if self._prompt is not None:
            self._prompt.on_change = self._notify
        self._recorder.start()
        self._loop.start()
        self._server.start()
        log.info("The hub window is served on port %d", self.port)

    def stop(self) -> None:
        """Stop within a limited time, in any thread. Open windows then show that the hub has stopped."""
        logging.getLogger("pyvo.samp").removeHandler(self._log_handler)
        if self._prompt is not None:
            self._prompt.on_change = lambda: None
        self._stopping.set()
        self._queued.set()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._streams, STOP_TIMEOUT / 2)
        for token in list(self._tokens):
            self._revoke_token(token)
        self._loop.call_soon(self._server.stop)
        self._loop.stop(STOP_TIMEOUT)
        join_thread(self._recorder, STOP_TIMEOUT)

    def after_fork_in_child(self) -> None:
        """Close the copies of the sockets in a forked child."""
        logging.getLogger("pyvo.samp").removeHandler(self._log_handler)
        self._loop.after_fork_in_child()

    def observe(self, event: Traffic) -> None:
        """Queue an event for the recorder. Called in the hub's thread while the broker's lock is held."""
        size = len(event.body.encoded())
        if size > LARGE_SIZE:
            if self._large_bytes and self._large_bytes + size > MAX_LARGE_BYTES:
                self._observed += 1
                self._queued.set()
                return
            self._large_bytes += size
        self._queue.append((time.time(), event))
        self._observed += 1
        if not self._queued.is_set():
            self._queued.set()

    # Opening a window

    @property
    def is_watched(self) -> bool:
        """Whether a window is open."""
        with self._changed:
            return any(map(_is_connected, self._streams))

    def open(self, *, browser: bool) -> tuple[str, bool]:
        """
        Open the window in the user's browser; return a link for another window, and whether the browser was opened.

        The link works once, within `TOKEN_LIFETIME` seconds.
        """
        opened = False
        if browser:
            token = self._new_token()
            try:
                redirect = write_redirect(self._url(token))
            except OSError as error:
                log.warning("The redirect file for the hub window cannot be written: %s", error)
            else:
                with self._changed:
                    self._tokens[token] = redirect
                opened = open_browser(redirect)
        return self._url(self._new_token()), opened

    def _url(self, token: str) -> str:
        return f"http://{self._host}/#{token}"

    def _new_token(self) -> str:
        token = secrets.token_urlsafe(32)
        with self._changed:
            self._tokens[token] = None
            oldest = next(iter(self._tokens)) if len(self._tokens) > MAX_TOKENS else None
        if oldest is not None:
            self._revoke_token(oldest)
        self._loop.call_later(TOKEN_LIFETIME, self._revoke_token, token)
        return token

    def _revoke_token(self, token: str) -> bool:
        """Make a token invalid; return whether it was valid."""
        with self._changed:
            if token not in self._tokens:
                return False
            redirect = self._tokens.pop(token)
        if redirect is not None:
            redirect.unlink(missing_ok=True)
        return True

    # In the thread of the recorder

    def _record(self) -> None:
        while not self._stopping.is_set():
            self._queued.wait()
            self._queued.clear()
            count = self._record_queue()
            self._notify()
            self._stopping.wait(RECORD_INTERVAL + count / MAX_RECORD_RATE)

    def _record_queue(self) -> int:
        """Record the events in the queue; return their number."""
        queue, traffic = self._queue, self._traffic
        missed = self._observed - self._processed - len(queue)
        # Do not hold `_changed` here: another thread may hold the broker's lock and wait for `_changed`.
        finished = traffic.due - self._broker.pending_calls() if missed > 0 else set()
        count = len(queue)
        with self._changed:
            for _ in range(count):
                seconds, event = queue.popleft()
                if event.kind != RESPONSE or event.msg_ids[0] in traffic.due:
                    traffic.record(dt.datetime.fromtimestamp(seconds, dt.UTC), event)
        self._large_bytes = 0
        self._processed += count
        clients, now = self._broker.clients(), dt.datetime.now(dt.UTC)
        with self._changed:
            if missed > 0:
                self._processed += missed
                self._missed += missed
                traffic.stop_tracking(finished)
                traffic.add_clients(now, clients)
            else:
                traffic.set_counts(now, clients)
        return count

    def _notify(self) -> None:
        """Wake the streams."""
        with self._changed:
            self._traffic.touch()
            self._changed.notify_all()

    def _update(self, since: int, written: dict[int, int] | None = None) -> dict[str, Any]:
        """
        Return the changes since a version, or the whole log if the version is 0 or unknown.

        `written` maps the number of each row that a stream has written to the last change that was written; the key 0
        is for all other rows. At most `MAX_ROWS` rows with later changes are returned, and `written` is updated.
        """
        hub = self._describe()
        consent = self._consent()
        warnings = self._log_handler.recent()
        with self._changed:
            traffic = self._traffic
            full = not 0 < since <= traffic.version
            after = 0 if full else since
            rows, skipped = traffic.changed_rows(after), 0
            if written is not None and full:
                written.clear()
                written[0] = traffic.version
            elif written is not None:
                rows = [row for row in traffic.messages if row.changed > written.get(row.number, written[0])]
                skipped = max(0, len(rows) - MAX_ROWS)
                written.update((row.number, row.changed) for row in rows[skipped:])
                for number in [number for number in written if 0 < number < traffic.messages[0].number]:
                    del written[number]
            update = {
                "version": traffic.version,
                "full": full,
                "skipped": skipped,
                "hub": hub,
                "consent": consent,
                "total": traffic.total,
                "missed": self._missed,
                "warnings": warnings,
                "clients": [_client_json(row, after) for row in traffic.clients.values() if row.changed > after],
                "messages": [_message_json(row) for row in rows[skipped:]],
            }
            if full or traffic.clients_changed > after:
                update["ids"] = list(traffic.clients)
            if full:
                update["names"] = {key: sanitize_for_display(name, 60) for key, name in traffic.names.items()}
            return update

    def _consent(self) -> list[dict[str, Any]]:
        requests = self._prompt.show_requests() if self._prompt is not None else {}
        return [
            {
                "id": number,
                "name": request.name,
                "origin": request.origin_text,
                "details": [pair for pair in request.details.items() if pair[0] != "samp.name"][:10],
                "meaning": request.meaning,
                "always": request.can_always_allow,
            }
            for number, request in requests.items()
        ]

    # Requests, in the thread of the event loop

    def handle(self, request: HTTPRequest, connection: ServerConnection) -> Response | DeferredResponse | None:
        """Respond to a request."""
        path = request.target.partition("?")[0]
        rejection = self._check(request, connection, path)
        if rejection is not None:
            return rejection
        try:
            return self._respond(request, connection, path)
        except (LookupError, TypeError, ValueError) as error:
            log.debug("A request to the hub window is malformed: %r", error)
            return _text(400, "The request is malformed")
        except SAMPProxyError as error:
            return _text(409, error.faultString)

    def error_response(self, error: HTTPError) -> Response:
        """Return the response to a request that is malformed or exceeds a limit."""
        return _text(error.status, str(error))

    def _check(self, request: HTTPRequest, connection: ServerConnection, path: str) -> Response | None:
        headers = request.headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        # A link in a notebook or in the redirect file may open the page, which shows nothing without a token.
        fetch = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
        is_link = request.method == "GET" and path == "/" and fetch == ("navigate", "document")
        is_foreign = headers.get("sec-fetch-site", "none") not in {"same-origin", "none"} and not is_link
        own = f"http://{self._host}"
        for is_rejected, status, text in (
            (is_other_user(connection.peer, self.port), 403, "The hub window serves only its own user"),
            (headers.get("host") != self._host, 403, HOST_REJECTED_TEXT),
            (headers.get("origin", own) != own or is_foreign, 403, "The hub window rejects requests from other pages"),
            (request.method not in {"GET", "POST"}, 405, "This method is not allowed"),
            (request.method == "POST" and media_type != "application/json", 415, "The body must be application/json"),
        ):
            if is_rejected:
                return _text(status, text, *([("Allow", "GET, POST")] if status == 405 else []))
        return None

    def _respond(
        self, request: HTTPRequest, connection: ServerConnection, path: str
    ) -> Response | DeferredResponse | None:
        if request.method == "GET" and (path in _FILES or path == _ICON_PATH):
            return _file(path)
        if (request.method, path) == ("POST", "/session"):
            return self._post_session(request)
        if not self._has_key(request):
            return _text(401, "The key of a session is required", ("WWW-Authenticate", "Bearer"))
        route = self._routes.get((request.method, "/" + path.split("/")[1]))
        return route(request, connection) if route is not None else _text(404, "There is nothing at this path")

    def _has_key(self, request: HTTPRequest) -> bool:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        keys = [hmac.compare_digest(known, key.encode()) for known in self._keys]
        return scheme == "Bearer" and any(keys)

    def _post_session(self, request: HTTPRequest) -> Response:
        if not self._revoke_token(_body(request)["token"]):
            return _text(403, "This link has expired or has already been used")
        key = secrets.token_urlsafe(32)
        self._keys.append(key.encode())
        return _json({"key": key})

    def _get_events(self, request: HTTPRequest, connection: ServerConnection) -> Response | None:
        since = int(request.target.partition("?since=")[2])
        with self._changed:
            if self._stopping.is_set() or len(self._streams) >= MAX_STREAMS:
                return _text(503, "Too many windows are open")
            sock = connection.detach()
            self._streams.add(sock)
        self._loop.run_in_worker(self._stream, sock, since)
        return None

    def _get_message(self, request: HTTPRequest, _connection: ServerConnection) -> Response | DeferredResponse:
        path, _, query = request.target.partition("?")
        with self._changed:
            row = self._traffic.find(int(path.split("/")[2]))
            if row is None:
                return _text(404, "This message is no longer in the log")
            value, preview, replies = row.value, row.text, list(row.replies.values())
        limit = None if query == "whole" else MAX_TEXT

        def write() -> Response:
            shown, whole = (preview, True) if value is None else json_text(value, limit)
            return _json(
                {
                    "text": shown,
                    "whole": whole and all(json_text(reply.value, limit)[1] for reply in replies),
                    "replies": [
                        {**reply._asdict(), "value": json_text(reply.value, limit)[0] if reply.value else ""}
                        for reply in replies[:MAX_RECIPIENTS]
                    ],
                }
            )

        return self._in_worker(write)

    def _get_icon(self, request: HTTPRequest, _connection: ServerConnection) -> Response | DeferredResponse:
        with self._changed:
            client = self._traffic.clients.get(request.target.split("/")[2])
            if client is None or not client.icon:
                return _text(404, "There is no such icon")
            if self._icons >= MAX_ICONS:
                return _text(503, "Too many icons are being fetched", ("Retry-After", "1"))
            self._icons += 1
            url, trusted = client.icon, client.profile == STANDARD

        def fetch() -> Response:
            try:
                media_type, data = fetch_icon(url, trusted=trusted)
                return Response(200, data, media_type, _HEADERS)
            except IconError as error:
                return _text(404, sanitize_for_display(str(error), 200))
            finally:
                with self._changed:
                    self._icons -= 1

        return self._in_worker(fetch)

    def _in_worker(self, function: Callable[[], Response]) -> DeferredResponse:
        deferred = DeferredResponse()

        def run() -> None:
            try:
                deferred.set_result(function())
            except Exception as error:
                deferred.set_exception(error)

        self._loop.run_in_worker(run)
        return deferred

    def _client(self, request: HTTPRequest) -> Client:
        client = self._broker.client(_body(request)["id"])
        if client.client_id == self._broker.hub_id:
            raise ValueError("the hub itself")
        return client

    def _post_disconnect(self, request: HTTPRequest, _connection: ServerConnection) -> Response:
        client = self._client(request)
        log.info("The user disconnected %s in the hub window", client.display_name)
        self._broker.disconnect(client, "The user disconnected it in the hub window")
        return _json({})

    def _post_ping(self, request: HTTPRequest, _connection: ServerConnection) -> DeferredResponse:
        client = self._client(request)
        deferred = DeferredResponse()
        start = time.monotonic()

        def on_response(response: EncodedMessage) -> None:
            seconds = round(time.monotonic() - start, 4)
            status = sanitize_for_display(str(response.value.get("samp.status")))
            deferred.set_result(_json({"status": status, "seconds": seconds}))

        def on_timeout() -> None:
            if self._broker.cancel_call(call):
                deferred.set_result(_json({"status": "", "seconds": PING_TIMEOUT}))

        payload = EncodedMessage({"samp.mtype": "samp.app.ping", "samp.params": {}})
        hub = self._broker.client(self._broker.hub_id)
        call = self._broker.call_and_wait(hub, client.client_id, payload, on_response)
        self._loop.call_later(PING_TIMEOUT, on_timeout)
        return deferred

    def _post_consent(self, request: HTTPRequest, _connection: ServerConnection) -> Response:
        body = _body(request)
        decision = Decision(body["decision"])
        problem = self._prompt.decide(int(body["id"]), decision) if self._prompt is not None else "No request is open"
        return _text(409, problem) if problem else _json({})

    def _post_stop(self, _request: HTTPRequest, _connection: ServerConnection) -> Response:
        log.info("The user stopped the hub in the hub window")
        self._loop.call_later(0.1, self._stop_hub)  # after the response
        return _json({})

    # Streams, each in a worker thread

    def _stream(self, sock: socket.socket, since: int) -> None:
        try:
            sock.settimeout(WRITE_TIMEOUT)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_SIZE)
            head = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS)
            sock.sendall(
                f"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n{head}Connection: close\r\n\r\n".encode()
            )
            self._write_changes(sock, since)
            sock.sendall(b'{"stopped": true}\n')
        except OSError as error:  # the browser has closed the connection, or does not read
            log.debug("The connection of a hub window is lost: %s", error)
        finally:
            with self._changed:
                self._streams.discard(sock)
                self._changed.notify_all()
            self._server.table.close_detached(sock)

    def _write_changes(self, sock: socket.socket, since: int) -> None:
        written = {0: since}
        skipped = 0
        while not self._stopping.is_set():
            if skipped or self._traffic.version != since:
                update = self._update(since, written)
                is_busy = 0 < skipped <= update["skipped"]
                skipped, since = update["skipped"], update["version"]
                sock.sendall(json.dumps(update).encode("ascii") + b"\n")
                self._stopping.wait(BUSY_STREAM_INTERVAL if is_busy else STREAM_INTERVAL)
            else:
                sock.sendall(b"\n")
            with self._changed:
                if not skipped and self._traffic.version == since and not self._stopping.is_set():
                    self._changed.wait(HEARTBEAT_INTERVAL)


class _WarningHandler(logging.Handler):
    """A logging handler that keeps the last warnings."""

    def __init__(self, on_warning: Callable[[], object]) -> None:
        super().__init__(logging.WARNING)
        self._on_warning = on_warning
        self._lines: deque[tuple[float, str]] = deque(maxlen=MAX_WARNINGS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self._lines.append((record.created, sanitize_for_display(record.getMessage(), 500)))
        self._on_warning()

    def recent(self) -> list[tuple[float, str]]:
        """Return the times and texts of the last warnings."""
        self.acquire()
        try:
            return list(self._lines)
        finally:
            self.release()


def _is_connected(sock: socket.socket) -> bool:
    """Return whether the browser has kept the connection of a stream open. The browser never writes to it."""
    try:
        return not select.select([sock], [], [], 0)[0]
    except (OSError, ValueError):
        return False


def _body(request: HTTPRequest) -> dict[str, Any]:
    value = json.loads(bytes(request.body))
    if not isinstance(value, dict):
        raise TypeError("the body is not an object")
    return value


def _client_json(row: ClientRow, after: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": row.client_id,
        "sent": row.sent,
        "received": row.received,
        "active": row.last_active.timestamp() if row.last_active else None,
    }
    if row.described > after:
        found["profile"] = row.profile
        found["name"] = sanitize_for_display(row.name, 60)
        found["icon"] = bool(row.icon)
        found["metadata"] = list(row.metadata.items())
        found["subscriptions"] = [sanitize_for_display(pattern, 100) for pattern in row.subscriptions]
    return found


def _message_json(row: MessageRow) -> dict[str, Any]:
    due = "due" if row.is_call else ""
    replies = row.replies
    status = row.status
    return {
        "n": row.number,
        "time": row.time.timestamp(),
        "kind": row.kind,
        "mtype": sanitize_for_display(row.mtype, 100),
        "sender": row.sender,
        "to": [
            [key, replies[key].status if key in replies else due] for key in row.recipients[:MAX_RECIPIENTS]
        ],
        "count": len(row.recipients),
        "status": status,
        "took": max((reply.seconds for reply in replies.values()), default=0) if status != "due" else None,
        "text": sanitize_for_display(row.text, 200),
    }
