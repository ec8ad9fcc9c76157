# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""A page of a notebook, in Python: it does the same as `hub_relay.js`, with threads instead of promises."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from pyvo.samp.jupyter import HubRelay
from pyvo.samp.jupyter.page_requests import CHUNK, CONTROL, CREDITS

ORIGIN = "https://hub.example.org"


class FakePage:
    """
    A page that shows a relay.

    Parameters
    ----------
    relay : HubRelay
        The relay; its `send` must call `receive`.
    name : str
        The id of the page.
    port : int
        The port of the hub.
    """

    def __init__(self, relay: HubRelay, name: str, port: int) -> None:
        self.relay, self.name, self.port = relay, name, port
        self.serial = 0
        #: Messages from the kernel.
        self.received: list[tuple[dict[str, Any], Sequence[Any]]] = []
        #: Messages to the kernel that wait until the thread of the cells calls `deliver`. None: no message waits.
        self.held: SimpleQueue[tuple[dict[str, Any], Sequence[Any]]] | None = None
        self._credits: dict[int, threading.Semaphore] = {}
        self._connections: dict[int, http.client.HTTPConnection] = {}
        self._threads: list[threading.Thread] = []
        self.is_open = True

    # Messages to the kernel

    def say(self, op: str, *buffers: Any, **content: Any) -> None:
        if not self.is_open:
            return
        message = ({"op": op, "page": self.name, **content}, [memoryview(each) for each in buffers])
        if self.held is not None:
            self.held.put(message)
            return
        thread = threading.Thread(target=self._say, args=message)
        thread.start()
        thread.join()

    def _say(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        data = {"method": "custom", "content": content}
        self.relay._receive({"content": {"comm_id": self.relay._comm_id, "data": data}, "buffers": buffers}, CONTROL)

    def deliver(self) -> None:
        """Deliver the messages that wait, in this thread."""
        assert self.held is not None
        with suppress(Empty):
            while True:
                self._say(*self.held.get_nowait())

    def hello(self, claim: str = "", **content: Any) -> None:
        """Send ``hello``, and wait until the kernel has processed it unless messages wait for `deliver`."""
        self.serial += 1
        self.say("hello", serial=self.serial, claim=claim, **content)
        if self.held is None:
            requests = self.relay._requests
            with requests.changed:
                assert requests.changed.wait_for(
                    lambda: requests.pages.get(self.name, {}).get("serial") == self.serial, 10
                )

    def close(self, *, bye: bool = True) -> None:
        """Close the page, as a browser does when a page is closed or reloaded: its connections break."""
        was_open, self.is_open = self.is_open, False
        if bye and was_open:
            thread = threading.Thread(target=self._say, args=({"op": "bye", "page": self.name}, []))
            thread.start()
            thread.join()
        for connection in list(self._connections.values()):
            self._abort(connection)
        for thread in self._threads:
            thread.join(10)

    @staticmethod
    def _abort(connection: http.client.HTTPConnection) -> None:
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(2)

    # Messages from the kernel

    def receive(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        self.received.append((content, buffers))
        if not self.is_open or content.get("page") != self.name:
            return
        number = content.get("id", 0)
        if content["op"] in {"call", "put", "delete", "fetch"}:
            thread = threading.Thread(target=self._carry_out, args=(content, buffers), name=f"page {self.name}")
            thread.start()
            self._threads.append(thread)
        elif content["op"] == "credit":
            self._credits[number].release()
        elif content["op"] == "cancel" and number in self._connections:
            self._abort(self._connections[number])
        elif content["op"] == "echo":
            ids = list(self._connections)
            threading.Thread(
                target=self.say, args=("alive",), kwargs={"echo": content["echo"], "ids": ids, "is_best": True}
            ).start()

    def _carry_out(self, content: dict[str, Any], buffers: Sequence[Any]) -> None:
        number = content["id"]
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        self._connections[number] = connection
        self.say("taken", id=number)
        try:
            connection.connect()  # before the check, because `close` breaks off only open connections
            if not self.is_open:
                return
            self._exchange(connection, content, buffers)
        except ConnectionRefusedError as error:
            self.say("failed", id=number, reason="no hub", text=str(error))
        except (OSError, http.client.HTTPException) as error:
            self.say("failed", id=number, reason="broken off", text=str(error))
        finally:
            connection.close()
            del self._connections[number]

    def _exchange(
        self, connection: http.client.HTTPConnection, content: dict[str, Any], buffers: Sequence[Any]
    ) -> None:
        headers = {"Origin": ORIGIN, "User-Agent": "Mozilla/5.0"}
        number, op = content["id"], content["op"]
        if op == "call":
            connection.request("POST", "/", bytes(buffers[0]), {**headers, "Content-Type": "text/xml"})
        elif op == "fetch":
            connection.request("GET", content["target"], headers=headers)
        else:
            path = f"/upload/{content['token']}/{content['file']}/{content['name']}"
            if op == "put" and content["total"]:
                last = content["first"] + content["size"] - 1
                headers["Content-Range"] = f"bytes {content['first']}-{last}/{content['total']}"
            connection.request(op.upper(), path, bytes(buffers[0]) if buffers else None, headers)
        response = connection.getresponse()
        head = {"id": number, "status": response.status, "reason": response.reason}
        if op != "fetch" or response.status != 200:
            self.say("response", response.read(), **head)
            return
        self.say("response", **head, is_stream=True)
        semaphore = self._credits[number] = threading.Semaphore(CREDITS)
        count = 0
        while part := response.read(CHUNK):
            semaphore.acquire()
            self.say("chunk", part, id=number, number=count)
            count += 1
        self.say("end", id=number, number=count)


def synced_state(relay: HubRelay) -> str:
    """Return the state of the widget that is saved in the notebook."""
    return json.dumps(relay.get_state(), default=str)


def wait_for_state(relay: Any, state: str) -> None:
    """Wait until the relay has a state."""
    with relay._requests.changed:
        assert relay._requests.changed.wait_for(lambda: relay.state == state, 10), relay.state
