# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The widget in a notebook whose page passes the requests of a client on to the hub on the user's computer.

Paths to the kernel
-------------------
Messages of the kernel reach the page at any time. The opposite direction depends on the front end, because a kernel
handles ordinary messages of widgets only when no cell runs. There are three paths. A message of the page that arrives
by one of them proves that this path works:

control
    The page sends its messages on the control channel of the connection that JupyterLab has to the kernel. The kernel
    receives them in a thread of its own, in which `_on_control_message` only puts them into a queue.
subshell
    JupyterLab sends the messages of widgets to a subshell of the kernel, which has a thread of its own.
between cells
    Messages arrive when the cell has ended. So a cell cannot wait for a response, and an attempt raises an error at
    once. Requests whose result is not needed are still sent.

``_relays`` maps the ids of comms to the relays of this process.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

import anywidget
import traitlets

from ..client.hub_connection import RemoteFile
from ..errors import SAMPClientError
from ..transport.http11 import HTTPResponse
from .page_requests import BETWEEN_CELLS, CHUNK, CONTROL, CREDITS, SUBSHELL, PageRequest, PageRequests

log = logging.getLogger(__name__)

#: Seconds to wait for the hub's response to a part of a file.
FILE_TIMEOUT = 60.0
#: Seconds between two attempts to send a part of a file to a hub that is busy, and their number.
RETRY_DELAY = 1.0
MAX_RETRIES = 30
#: The token in the URL for uploads of our hub.
_UPLOAD_URL = re.compile(r"https?://[^/]+/upload/([A-Za-z0-9_-]{43})/")
#: Environment variables of a kernel on a JupyterHub, where the pages of all users may have the same origin.
_JUPYTERHUB = ("JUPYTERHUB_SERVICE_PREFIX", "JUPYTERHUB_USER")

_BETWEEN_CELLS_TEXT = (
    "This notebook passes messages from its page to the kernel only when no cell runs, so a cell cannot wait for the "
    "hub. Use AsyncSAMPClient and `await`, or call from a thread; messages that arrive are available in the next cell."
)
_NO_UPLOAD_TEXT = (
    "The hub on the computer of the browser does not accept files, and this Jupyter server does not offer them. Stop "
    "TOPCAT, or whatever runs that hub, start `samp hub` there, and then TOPCAT again. Messages without files work."
)

_relays: WeakValueDictionary[str, HubRelay] = WeakValueDictionary()


class HubRelay(anywidget.AnyWidget):
    """
    Connects a notebook on a server to the hub on the computer of the browser, through the page of the notebook.

    Write ``relay = HubRelay(); relay`` in a cell, click *Connect* in its output, and connect a client in the next cell:
    ``client.connect(web=relay)``. From then on, everything works as on one computer. Several clients may use one relay.

    Parameters
    ----------
    port : int
        The port of the hub's Web Profile on the computer of the browser.

    Attributes
    ----------
    state : str
        ``"closed"``, ``"waiting for the page"``, ``"permission"`` (the user has to click, or to allow it in the
        browser), ``"consent"`` (the hub asks the user), ``"open"`` or ``"lost"``.
    path : str
        How messages of the page reach the kernel: ``"control"``, ``"subshell"`` or ``"between cells"``; empty if that
        is not known yet.
    """

    _esm = Path(__file__).with_name("hub_relay.js")
    _comm_id = traitlets.Unicode().tag(sync=True)
    _port = traitlets.Int(21012).tag(sync=True)

    def __init__(self, port: int = 21012) -> None:
        comm_id = uuid.uuid4().hex
        self._messages: SimpleQueue[tuple[Mapping[str, Any], Any, str] | None] = SimpleQueue()
        self._requests = PageRequests(lambda content, buffers: self.send(content, list(buffers)))
        self._cell_thread = threading.get_ident()
        self._bodies: dict[int, PageRequest] = {}
        super().__init__(model_id=comm_id, _comm_id=comm_id, _port=port)
        _relays[comm_id] = self
        self._has_kernel = _accept_control_messages()
        self._receive_comm_messages()
        threading.Thread(
            target=_process_messages, args=(self._messages, self._requests), name="samp-relay", daemon=True
        ).start()

    @property
    def state(self) -> str:
        """The state; see the class."""
        return self._requests.state

    @property
    def path(self) -> str:
        """How messages of the page reach the kernel; see the class."""
        return self._requests.path

    @property
    def identity(self) -> dict[str, str]:
        """What a registration states in addition: the client is not in the page, and whether users share its origin."""
        is_shared = any(os.environ.get(name) for name in _JUPYTERHUB) or any(
            each.get("is_shared") for each in self._requests.pages.values()
        )
        return {"x-samp.relay": "1", **({"x-samp.shared-origin": "1"} if is_shared else {})}

    def close(self) -> None:
        """End all requests, and remove the widget from the page."""
        self._requests.close()
        self._messages.put(None)
        super().close()

    # Messages of the page

    def _receive_comm_messages(self) -> None:
        """
        Receive the messages of the comm directly.

        The comm's own `handle_msg` triggers the events ``pre_execute`` and ``post_execute`` in the current thread, and
        the figures of the running cell would be shown too early.
        """
        comm = self.comm
        handle_msg = comm.handle_msg

        def handle(msg: Mapping[str, Any]) -> None:
            if not self._receive(msg, SUBSHELL):
                handle_msg(msg)

        comm.handle_msg = handle
        if hasattr(comm, "_reply_subshell_for"):
            # ipykernel 7.4 would send the messages of the page to the thread that sent last, which a cell may block
            comm._reply_subshell_for = lambda _data, default: default

    def _receive(self, msg: Mapping[str, Any], path: str) -> bool:
        """Queue a message that has arrived by a path; return False if it is a message of the widget itself."""
        data = msg["content"].get("data") or {}
        if data.get("method") != "custom" or not isinstance(data.get("content"), dict):
            return False
        is_elsewhere = threading.get_ident() != self._cell_thread
        self._messages.put((data["content"], msg.get("buffers") or (), path if is_elsewhere else BETWEEN_CELLS))
        return True

    # Requests of a client

    def exchange(self, body: bytes, timeout: float) -> HTTPResponse:
        """
        Post an XML-RPC document to the hub, and wait for the response.

        Parameters
        ----------
        body : bytes
            The document.
        timeout : float
            Seconds to wait for the hub; 0 for no limit. The time until a page has taken the request is not counted.

        Returns
        -------
        HTTPResponse
            The response, with ``status``, ``reason`` and ``body``.

        Raises
        ------
        SAMPTransportError
            No response arrived.
        SAMPClientError
            This thread cannot wait; see `path`.
        """
        self._check_wait()
        is_registration = b"samp.webhub.register<" in body[:300]
        request = self._requests.submit({"op": "call", "consent": is_registration}, [body], timeout)
        self._bodies[id(body)] = request
        try:
            self._requests.wait(request)
        finally:
            self._bodies.pop(id(body), None)
        response = request.response or {}
        return HTTPResponse(int(response.get("status", 0)), str(response.get("reason", "")), {}, request.body, True)

    def cancel(self, body: bytes) -> None:
        """
        End an exchange in another thread with an error.

        Parameters
        ----------
        body : bytes
            The object that was given to `exchange`.
        """
        request = self._bodies.get(id(body))
        if request is not None:
            self._requests.cancel(request)

    def post(self, body: bytes, timeout: float = 0.0) -> None:
        """
        Post an XML-RPC document to the hub as soon as a page is connected, and ignore the response.

        Parameters
        ----------
        body : bytes
            The document.
        timeout : float
            Seconds to wait for the response.
        """
        request = self._requests.submit({"op": "call"}, [body], FILE_TIMEOUT)
        if timeout > 0 and self.can_wait:
            self._requests.wait_for_end(request, timeout)

    @property
    def can_wait(self) -> bool:
        """Whether this thread can wait for a response."""
        if threading.get_ident() != self._cell_thread:
            return True
        return self.path != BETWEEN_CELLS and bool(self.path or self._has_kernel)

    def _check_wait(self) -> None:
        if not self.can_wait:
            raise SAMPClientError(_BETWEEN_CELLS_TEXT)

    # Files

    def upload(self, path: Path, name: str, url: str) -> RemoteFile:
        """
        Copy a file to the computer of the hub.

        Parameters
        ----------
        path : pathlib.Path
            The file.
        name : str
            The name for the copy, in ASCII.
        url : str
            The URL at which the hub accepts files, or an empty string. Without one, the extension of the Jupyter server
            offers the file, if it is installed.

        Raises
        ------
        SAMPClientError
            Neither the hub nor the Jupyter server accepts files, or there is no space for this one.
        """
        self._check_wait()
        token = _UPLOAD_URL.fullmatch(url)
        if token is None:
            return self._publish(path, name)
        target = {"op": "put", "token": token[1], "file": secrets.token_urlsafe(16), "name": name}

        def remove() -> None:
            self._requests.submit({**target, "op": "delete"}, (), FILE_TIMEOUT, repeatable=True)

        try:
            return RemoteFile(self._put(path, target), remove)
        except BaseException:
            remove()
            raise

    def _put(self, path: Path, target: Mapping[str, Any]) -> str:
        """Send a file in parts, several at the same time; return its URL."""
        total = path.stat().st_size
        pending: deque[PageRequest] = deque()
        state: dict[str, Any] = {}
        try:
            with path.open("rb") as file:
                for first in range(0, max(1, total), CHUNK):
                    chunk = file.read(min(CHUNK, total - first))
                    content = {**target, "first": first, "size": len(chunk), "total": total}
                    pending.append(self._requests.submit(content, [chunk], FILE_TIMEOUT, repeatable=True))
                    if len(pending) == CREDITS:
                        state = self._await_chunk(pending.popleft()) or state
                while pending:
                    state = self._await_chunk(pending.popleft()) or state
        except BaseException:
            for request in pending:
                self._requests.cancel(request)
            raise
        if not state.get("url"):
            raise SAMPClientError(f"The file {path.name} changed while it was sent.")
        return str(state["url"])

    def _await_chunk(self, request: PageRequest) -> dict[str, Any] | None:
        """Wait for the response to a part; return the hub's description of the file if it is complete."""
        content, buffers = request.content, request.buffers
        for _ in range(MAX_RETRIES):
            self._requests.wait(request)
            response = request.response or {}
            status = response.get("status")
            if status in {200, 201}:
                state = json.loads(request.body)
                return state if "url" in state else None
            if status != 503:
                break
            threading.Event().wait(RETRY_DELAY)  # the hub is writing too many files
            request = self._requests.submit(content, buffers, FILE_TIMEOUT, repeatable=True)
        raise SAMPClientError(f"The hub did not accept the file: {_error_text(response, request.body)}")

    def _publish(self, path: Path, name: str) -> RemoteFile:
        """Publish a file through the extension of the Jupyter server."""
        page = self._requests.pages.get(self._requests.page, {})
        if not page.get("has_data"):
            raise SAMPClientError(_NO_UPLOAD_TEXT)
        from ..jupyter_server import publish_file  # noqa: PLC0415 - most hubs accept files

        publication = publish_file(path, name)
        return RemoteFile(f"{page['base']}{publication.url_path}", publication.withdraw)

    def download(self, url: str, file: BinaryIO) -> None:
        """
        Download a file of the hub.

        Parameters
        ----------
        url : str
            A URL of the hub; the page uses only its path.
        file : file-like object
            The content is written to it.

        Raises
        ------
        SAMPClientError
            The hub does not serve it.
        SAMPTransportError
            The transfer was interrupted.
        """
        self._check_wait()
        parts = urlsplit(url)
        target = quote(parts.path, safe="/%") + (f"?{parts.query}" if parts.query else "")
        request = self._requests.submit({"op": "fetch", "target": target}, (), FILE_TIMEOUT, repeatable=True)
        try:
            while (chunk := self._requests.wait(request)) is not None:
                file.write(chunk)
        except BaseException:
            self._requests.cancel(request)
            raise
        response = request.response or {}
        if response.get("status") != 200:
            raise SAMPClientError(f"The hub does not serve the file: {_error_text(response, request.body)}")


def _error_text(response: Mapping[str, Any], body: bytes) -> str:
    try:
        text = json.loads(body).get("error")
    except (ValueError, AttributeError):
        text = body.decode("utf-8", "replace").strip()[:500]
    return str(text or f"HTTP status {response.get('status')} {response.get('reason')}")


def _process_messages(messages: SimpleQueue[tuple[Mapping[str, Any], Any, str] | None], requests: PageRequests) -> None:
    """Process the messages of the pages, and end requests that time out, until the relay is closed."""
    while True:
        try:
            message = messages.get(timeout=requests.check())
        except Empty:
            continue
        if message is None:
            return
        try:
            requests.receive(*message)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            log.warning("The page of the notebook sent an invalid message: %r", error)


def _accept_control_messages() -> bool:
    """Enable messages of widgets on the control channel; return False if the kernel does not support that."""
    try:
        from IPython import get_ipython  # noqa: PLC0415 - other kernels may have none
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    handlers = getattr(kernel, "control_handlers", None)
    if kernel is None or handlers is None:
        return False
    others = handlers.get("comm_msg", kernel.comm_manager.comm_msg)
    if getattr(others, "__name__", "") != "_on_control_message":

        def _on_control_message(stream: Any, ident: Any, msg: Mapping[str, Any]) -> None:
            """Only queue the message: this thread also serves interrupts."""
            relay = _relays.get(msg["content"].get("comm_id"))
            if relay is None or not relay._receive(msg, CONTROL):
                others(stream, ident, msg)

        handlers["comm_msg"] = _on_control_message
    return True
