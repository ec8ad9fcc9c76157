# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Jupyter servers with the extension, in their own processes, and their kernels."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.conftest import ROOT
from tests.hub.recipients import wait_until

CONFIG = ROOT / "jupyter-config" / "pyvo-samp.json"
TIMEOUT = 60.0


class Response:
    """An HTTP response."""

    def __init__(self, url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, names)
            response = connection.getresponse()
            self.status = response.status
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            self.body = response.read()
        finally:
            connection.close()


class JupyterServer:
    """
    A Jupyter server in its own process, in which the extension is enabled as by an installation.

    Attributes
    ----------
    url : str
        The base URL, with a slash at the end.
    token : str
        The token for logging in.
    """

    def __init__(self, environment: dict[str, str], home: Path, *options: str) -> None:
        enabled = home / ".jupyter" / "jupyter_server_config.d"
        enabled.mkdir(parents=True)
        shutil.copy(CONFIG, enabled)
        self.runtime = home / "runtime"
        self.token = uuid.uuid4().hex
        self.environment = {
            **environment,
            "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_TOKEN": self.token,
            "JUPYTER_PLATFORM_DIRS": "0",
        }
        base = ["--ServerApp.base_url=/user/a%40b/", "--ServerApp.port=0", "--ServerApp.ip=127.0.0.1"]
        other = ["--no-browser", "--allow-root", f"--ServerApp.root_dir={home}"]
        command = [sys.executable, "-m", "jupyter_server", *base, *other, *options]
        self._log: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = self._wait_for("http://127.0.0.1:")
        self.url = line[line.index("http://") :].partition("?")[0].removesuffix("tree").removesuffix("lab")
        wait_until(self._accepts_connections, TIMEOUT)  # it prints its URL before it listens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _accepts_connections(self) -> bool:
        parts = urlsplit(self.url)
        with socket.socket() as sock:
            return not sock.connect_ex((parts.hostname, parts.port))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            self._log.put(line)
        self._log.put(None)

    def _wait_for(self, text: str) -> str:
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                line = self._log.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, "".join(self.lines)
            if text in line:
                return line.strip()

    def start_kernel(self) -> str:
        """Start a kernel; return its id."""
        body = json.dumps({"name": "python3"}).encode()
        response = Response(self.url + "api/kernels", "POST", body, Authorization=f"token {self.token}")
        assert response.status == 201, response.body
        return str(json.loads(response.body)["id"])

    def run(self, kernel: str, code: str) -> str:
        """Run code in a kernel; return its output."""
        return asyncio.run(asyncio.wait_for(self._run(kernel, code), TIMEOUT))

    async def _run(self, kernel: str, code: str) -> str:
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect

        url = f"ws{self.url.removeprefix('http')}api/kernels/{kernel}/channels"
        channel = await websocket_connect(HTTPRequest(url, headers={"Authorization": f"token {self.token}"}))
        try:
            return await self._execute(channel, code)
        finally:
            channel.close()
            while await channel.read_message() is not None:  # until the channel is closed
                continue

    async def _execute(self, channel: Any, code: str) -> str:
        msg_id = uuid.uuid4().hex
        header = {"msg_id": msg_id, "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        await channel.write_message(
            json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"})
        )
        printed = ""
        while True:
            received = await channel.read_message()
            assert isinstance(received, str), "the server has closed the channel"
            message = json.loads(received)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(message["content"]["traceback"]))
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return printed

    def stop_kernel(self, kernel: str) -> None:
        response = Response(f"{self.url}api/kernels/{kernel}", "DELETE", Authorization=f"token {self.token}")
        assert response.status == 204, response.body


def environment_of(home: Path) -> dict[str, str]:
    """Return an environment with this package and an empty home."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "HOME": str(home), "PYTHONPATH": path}
