# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The clients of an endurance run: processes that send messages to each other at random until they are stopped or killed.

Each client writes its actions to its journal, a pipe that can still be read when the process has ended. Commands are
single letters: ``q`` stops sending, ``l`` unregisters.
"""

from __future__ import annotations

import http.client
import os
import random
import select
import threading
import time
import xmlrpc.client
from collections import deque
from collections.abc import Callable
from typing import Any

from pyvo.samp import SAMPError, SAMPHubError, SAMPIntegratedClient, SAMPProxyError

__all__ = ["run_client"]

MTYPE = "table.soak"
KINDS = ("notify", "call", "callandwait", "notifyall", "callall")
WEIGHTS = (40, 25, 20, 5, 5)
#: Mean seconds between two messages of a client.
MEAN_PAUSE = 0.15


class Journal:
    """A journal. Each line is written at once and in one piece."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, *words: str) -> None:
        os.write(self._descriptor, f"{time.monotonic():.4f} {' '.join(words)}\n".encode())

    def answer(self, name: str, responder: str, response: dict[str, Any]) -> None:
        """Record the response to a message, with the text of an error."""
        text = str(response.get("samp.error", {}).get("samp.errortxt", "")).replace("\n", " ")
        self.write("answer", name, responder, response["samp.status"], text)


class StandardClient:
    """A client of the Standard Profile, from this package."""

    def __init__(self, journal: Journal, serial: str, web_port: int) -> None:
        self._journal = journal
        self._tags: deque[str] = deque()
        self._client = SAMPIntegratedClient(name=f"soak {serial}")
        self._client.connect()
        self.id = self._client.get_public_id()
        # Subscribe only after both handlers are bound.
        self._client.bind_receive_notification(MTYPE, self._notified, declare=False)
        self._client.bind_receive_call(MTYPE, self._called)

    def _called(self, key: str, sender: str, msg_id: str, mtype: str, params: dict[str, str], extra: Any) -> None:
        self._journal.write("got", params["n"], str(self.id))
        if params["n"].endswith("7"):  # some handlers are slow
            threading.Event().wait(0.05)
        try:
            self._client.ereply(msg_id, "samp.ok", result={"n": params["n"]})
        except SAMPError:  # the caller or this client is not registered any more
            self._journal.write("late", params["n"])

    def _notified(self, key: str, sender: str, mtype: str, params: dict[str, str], extra: Any) -> None:
        self._journal.write("got", params["n"], str(self.id))

    def _answered(self, key: str, responder: str, tag: str, response: dict[str, Any]) -> None:
        self._journal.answer(tag, responder, response)

    def _tag(self, name: str) -> str:
        """Bind a new tag and unbind an old one."""
        self._client.bind_receive_response(name, self._answered)
        self._tags.append(name)
        if len(self._tags) > 1000:
            self._client.unbind_receive_response(self._tags.popleft())
        return name

    def others(self) -> list[str]:
        return sorted(self._client.get_subscribed_clients(MTYPE))

    def notify(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        self._client.notify(to, message)
        return [to]

    def call(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        self._client.call(to, self._tag(name), message)
        return [to]

    def callandwait(self, name: str, to: str, message: dict[str, Any]) -> dict[str, Any]:
        return self._client.call_and_wait(to, message, timeout=60)

    def notifyall(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        return self._client.notify_all(message)

    def callall(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        return list(self._client.call_all(self._tag(name), message))

    def unregister(self) -> None:
        self._client.disconnect()


class WebClient:
    """A client of the Web Profile that behaves as the script of a page: it always has a pull open."""

    def __init__(self, journal: Journal, serial: str, web_port: int) -> None:
        self._journal = journal
        self._listener = web_port
        self._own = threading.local()
        self._key = ""
        self._origin = f"http://soak-{serial}.example.org"
        registration = self._call("register", {"samp.name": f"soak page {serial}"})
        self._key, self.id = registration["samp.private-key"], registration["samp.self-id"]
        self._call("allowReverseCallbacks", "1")
        self._call("declareSubscriptions", {MTYPE: {}})
        self._leaving = False
        self._puller = threading.Thread(target=self._pull, daemon=True)
        self._puller.start()

    def _call(self, operation: str, *params: Any) -> Any:
        """Call the hub over the connection of this thread."""
        if self._key:
            params = (self._key, *params)
        body = xmlrpc.client.dumps(params, f"samp.webhub.{operation}").encode()
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection("127.0.0.1", self._listener, timeout=120)
        try:
            connection.request("POST", "/", body, {"Content-Type": "text/xml", "Origin": self._origin})
            answer = connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise SAMPHubError(f"{operation}: {error!r}") from error
        try:
            (value,), _ = xmlrpc.client.loads(answer)
        except xmlrpc.client.Fault as fault:
            raise SAMPProxyError(fault.faultCode, fault.faultString) from None
        return value

    def _pull(self) -> None:
        try:
            while not self._leaving:
                for callback in self._call("pullCallbacks", "60"):
                    self._handle(callback["samp.methodName"], callback["samp.params"])
        except Exception as error:
            if not self._leaving:
                self._journal.write("trouble", "pulling:", repr(error).replace("\n", " "))

    def _handle(self, method: str, params: list[Any]) -> None:
        if method == "receiveResponse":
            self._journal.answer(params[1], params[0], params[2])
            return
        name = params[-1]["samp.params"]["n"]
        self._journal.write("got", name, self.id)
        if method == "receiveCall":
            try:
                self._call("reply", params[1], {"samp.status": "samp.ok", "samp.result": {"n": name}})
            except SAMPProxyError:  # the caller is not registered any more
                self._journal.write("late", name)

    def others(self) -> list[str]:
        return sorted(self._call("getSubscribedClients", MTYPE))

    def notify(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        self._call("notify", to, message)
        return [to]

    def call(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        self._call("call", to, name, message)
        return [to]

    def callandwait(self, name: str, to: str, message: dict[str, Any]) -> dict[str, Any]:
        response: dict[str, Any] = self._call("callAndWait", to, message, "60")
        return response

    def notifyall(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        recipients: list[str] = self._call("notifyAll", message)
        return recipients

    def callall(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        return list(self._call("callAll", name, message))

    def unregister(self) -> None:
        self._leaving = True
        self._call("unregister")
        self._puller.join(10)


def run_client(serial: int, seed: int, commands: int, descriptor: int, web_port: int) -> None:
    """
    Run a client until the command to unregister.

    Parameters
    ----------
    serial : int
        The client's number; every fifth is a web page.
    seed : int
        Seed of its random numbers.
    commands, descriptor : int
        Pipes for the commands and for the journal.
    web_port : int
        Port of the Web Profile.
    """
    journal = Journal(descriptor)
    name = str(serial)
    client = (WebClient if serial % 5 == 0 else StandardClient)(journal, name, web_port)
    journal.write("join", str(client.id))
    random_numbers = random.Random(seed)
    known: list[str] = []
    quiet = False
    for number in range(10**9):
        pause = None if quiet else random_numbers.expovariate(1 / MEAN_PAUSE)
        ready, _, _ = select.select([commands], [], [], pause)
        command = os.read(commands, 1) if ready else b""
        quiet = quiet or command == b"q"
        if ready and command in {b"l", b""}:
            break
        if not ready:
            try:
                known = _send_one(client, journal, random_numbers, f"{name}-{number}", known)
            except SAMPHubError as error:
                journal.write("trouble", str(error).replace("\n", " "))
    journal.write("leaving")
    client.unregister()
    journal.write("left")


def _send_one(
    client: StandardClient | WebClient, journal: Journal, random_numbers: random.Random, name: str, known: list[str]
) -> list[str]:
    """Send one message to a client that was registered a while ago; return the known clients."""
    if not known or random_numbers.random() < 0.1:
        known = client.others()
    if not known:
        return known
    (kind,) = random_numbers.choices(KINDS, WEIGHTS)
    to = random_numbers.choice(known)
    message = {"samp.mtype": MTYPE, "samp.params": {"n": name, "text": "x" * random_numbers.choice((10, 100, 5000))}}
    journal.write("sending", name, kind)
    send: Callable[..., Any] = getattr(client, kind)
    try:
        outcome = send(name, to, message)
    except SAMPProxyError as fault:
        # callAndWait may fail before or after the delivery of the message.
        journal.write("gone" if kind == "callandwait" else "refused", name, fault.faultString.replace("\n", " "))
        return [other for other in known if other != to]
    if kind == "callandwait":
        journal.write("accepted", name, to)
        journal.answer(name, to, outcome)
    else:
        journal.write("accepted", name, *outcome)
    return known
