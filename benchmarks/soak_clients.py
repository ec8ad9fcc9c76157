# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The clients of an endurance run, each a process that talks to others at random until it is told to stop, or killed.

Whatever it does it writes to its journal first or at once, a pipe: what was written into it outlives the process.
Commands come as single letters: ``q`` be quiet, ``l`` leave.
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

__all__ = ["live"]

MTYPE = "table.soak"
KINDS = ("notify", "call", "callandwait", "notifyall", "callall")
WEIGHTS = (40, 25, 20, 5, 5)
#: Mean seconds between two messages of a client.
PAUSE = 0.15


class Journal:
    """Lines that are out as soon as they are written, each in one piece."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, *words: str) -> None:
        os.write(self._descriptor, f"{time.monotonic():.4f} {' '.join(words)}\n".encode())

    def answer(self, name: str, responder: str, response: dict[str, Any]) -> None:
        """Note the answer to a message; if it's an error, with its text."""
        text = str(response.get("samp.error", {}).get("samp.errortxt", "")).replace("\n", " ")
        self.write("answer", name, responder, response["samp.status"], text)


class Standard:
    """A client of the Standard Profile, as the library makes it."""

    def __init__(self, journal: Journal, serial: str, web_port: int) -> None:
        self._journal = journal
        self._tags: deque[str] = deque()
        self._client = SAMPIntegratedClient(name=f"soak {serial}")
        self._client.connect()
        self.id = self._client.get_public_id()
        # The hub is told of the subscription when both are there to take what comes.
        self._client.bind_receive_notification(MTYPE, self._notified, declare=False)
        self._client.bind_receive_call(MTYPE, self._called)

    def _called(self, key: str, sender: str, msg_id: str, mtype: str, params: dict[str, str], extra: Any) -> None:
        self._journal.write("got", params["n"], str(self.id))
        if params["n"].endswith("7"):  # some take their time
            threading.Event().wait(0.05)
        try:
            self._client.ereply(msg_id, "samp.ok", result={"n": params["n"]})
        except SAMPError:  # the caller is gone, or we are
            self._journal.write("late", params["n"])

    def _notified(self, key: str, sender: str, mtype: str, params: dict[str, str], extra: Any) -> None:
        self._journal.write("got", params["n"], str(self.id))

    def _answered(self, key: str, responder: str, tag: str, response: dict[str, Any]) -> None:
        self._journal.answer(tag, responder, response)

    def _tag(self, name: str) -> str:
        """Bind a new tag and let an old one go."""
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

    def leave(self) -> None:
        self._client.disconnect()


class Page:
    """A client of the Web Profile, as a page's script does it: with a long poll open all the time."""

    def __init__(self, journal: Journal, serial: str, web_port: int) -> None:
        self._journal = journal
        self._port = web_port
        self._own = threading.local()
        self._key = ""
        self._origin = f"http://soak-{serial}.example.org"
        registration = self._ask("register", {"samp.name": f"soak page {serial}"})
        self._key, self.id = registration["samp.private-key"], registration["samp.self-id"]
        self._ask("allowReverseCallbacks", "1")
        self._ask("declareSubscriptions", {MTYPE: {}})
        self._leaving = False
        self._puller = threading.Thread(target=self._pull, daemon=True)
        self._puller.start()

    def _ask(self, operation: str, *params: Any) -> Any:
        """Ask the hub on this thread's own connection."""
        if self._key:
            params = (self._key, *params)
        body = xmlrpc.client.dumps(params, f"samp.webhub.{operation}").encode()
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
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
                for callback in self._ask("pullCallbacks", "60"):
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
                self._ask("reply", params[1], {"samp.status": "samp.ok", "samp.result": {"n": name}})
            except SAMPProxyError:  # the caller is gone
                self._journal.write("late", name)

    def others(self) -> list[str]:
        return sorted(self._ask("getSubscribedClients", MTYPE))

    def notify(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        self._ask("notify", to, message)
        return [to]

    def call(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        self._ask("call", to, name, message)
        return [to]

    def callandwait(self, name: str, to: str, message: dict[str, Any]) -> dict[str, Any]:
        response: dict[str, Any] = self._ask("callAndWait", to, message, "60")
        return response

    def notifyall(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        recipients: list[str] = self._ask("notifyAll", message)
        return recipients

    def callall(self, name: str, to: str, message: dict[str, Any]) -> list[str]:
        return list(self._ask("callAll", name, message))

    def leave(self) -> None:
        self._leaving = True
        self._ask("unregister")
        self._puller.join(10)


def live(serial: int, seed: int, commands: int, descriptor: int, web_port: int) -> None:
    """
    Be a client until told to leave.

    Parameters
    ----------
    serial : int
        The client's number; every fifth is a web page.
    seed : int
        Start of its random numbers.
    commands, descriptor : int
        Pipes: where commands come from and where the journal goes.
    web_port : int
        Port of the Web Profile.
    """
    journal = Journal(descriptor)
    name = str(serial)
    client = (Page if serial % 5 == 0 else Standard)(journal, name, web_port)
    journal.write("join", str(client.id))
    chance = random.Random(seed)
    known: list[str] = []
    quiet = False
    for number in range(10**9):
        pause = None if quiet else chance.expovariate(1 / PAUSE)
        ready, _, _ = select.select([commands], [], [], pause)
        command = os.read(commands, 1) if ready else b""
        quiet = quiet or command == b"q"
        if ready and command in {b"l", b""}:
            break
        if not ready:
            try:
                known = _talk(client, journal, chance, f"{name}-{number}", known)
            except SAMPHubError as error:
                journal.write("trouble", str(error).replace("\n", " "))
    journal.write("leaving")
    client.leave()
    journal.write("left")


def _talk(client: Standard | Page, journal: Journal, chance: random.Random, name: str, known: list[str]) -> list[str]:
    """Send one message to somebody who was there a while ago; tell who is known now."""
    if not known or chance.random() < 0.1:
        known = client.others()
    if not known:
        return known
    (kind,) = chance.choices(KINDS, WEIGHTS)
    to = chance.choice(known)
    message = {"samp.mtype": MTYPE, "samp.params": {"n": name, "text": "x" * chance.choice((10, 100, 5000))}}
    journal.write("sending", name, kind)
    send: Callable[..., Any] = getattr(client, kind)
    try:
        outcome = send(name, to, message)
    except SAMPProxyError as fault:
        # callAndWait may be refused before or given up after the message was delivered: that says nothing of it.
        journal.write("gone" if kind == "callandwait" else "refused", name, fault.faultString.replace("\n", " "))
        return [other for other in known if other != to]
    if kind == "callandwait":
        journal.write("accepted", name, to)
        journal.answer(name, to, outcome)
    else:
        journal.write("accepted", name, *outcome)
    return known
