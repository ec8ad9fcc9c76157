"""A client in many threads, in a forked process, and at the exit of the program."""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyvo.samp import SAMPClientError, SAMPHubError, SAMPHubServer, SAMPIntegratedClient, SAMPProxyError
from pyvo.samp.client import SAMPClient, session
from pyvo.samp.client.hub_connection import ConnectionState
from pyvo.samp.testing import RecordingClient
from pyvo.samp.transport.event_loop import EventLoop
from tests.hub.recipients import wait_until

from .conftest import MONITORED, Connect, HubProcess, Script, first_line, other_ids, record


def test_disconnect_in_a_handler(pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """A handler may disconnect its client; the caller gets an error (R23)."""
    alice, bob = pair
    done = threading.Event()

    def disconnect(*args: Any) -> None:
        bob.disconnect()
        done.set()

    bob.bind_receive_call("test.leave", disconnect)
    response = alice.ecall_and_wait("bob", "test.leave", 10)
    assert response["samp.status"] == "samp.error"
    assert done.wait(5)
    assert not bob.is_connected
    bob.connect()
    assert bob.is_connected


def test_disconnect_with_a_blocked_handler(pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """A handler that never returns does not delay `disconnect` for more than 3 s."""
    alice, bob = pair
    started, release = threading.Event(), threading.Event()

    def block(*args: Any) -> None:
        started.set()
        release.wait(30)

    bob.bind_receive_notification("test.block", block)
    alice.enotify("bob", "test.block")
    assert started.wait(5)
    begin = time.monotonic()
    bob.disconnect()
    assert time.monotonic() - begin < 3
    release.set()


def test_fifty_threads(pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """Fifty threads use one client; each gets the responses to its own calls."""
    alice, bob = pair
    bob.bind_receive_call("test.echo", lambda key, sender, mid, mtype, params, *_: bob.ereply(mid, "samp.ok", params))
    bob_id = str(bob.get_public_id())
    wrong: list[Any] = []

    def call(number: int) -> None:
        for count in range(10):
            response = alice.ecall_and_wait(bob_id, "test.echo", 30, n=number, count=count)
            if response.get("samp.result") != {"n": str(number), "count": str(count)}:
                wrong.append(response)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_waiting_calls_do_not_block_others(pair: tuple[SAMPIntegratedClient, SAMPIntegratedClient]) -> None:
    """While 25 calls of a client wait for responses, the client can still send notifications and replies."""
    alice, bob = pair
    arrived: queue.Queue[str] = queue.Queue()
    bob.bind_receive_call("test.later", lambda key, sender, mid, *rest: arrived.put(mid))
    alice.bind_receive_call("test.back", lambda key, sender, mid, *rest: alice.ereply(mid, "samp.ok", {}))
    note = record(bob)
    bob.bind_receive_notification("test.note", note)
    statuses: queue.Queue[str] = queue.Queue()

    def wait() -> None:
        statuses.put(alice.ecall_and_wait("bob", "test.later", 40)["samp.status"])

    threads = [threading.Thread(target=wait) for _ in range(25)]
    for thread in threads:
        thread.start()
    msg_ids = [arrived.get(timeout=20) for _ in threads]
    begin = time.monotonic()
    alice.enotify("bob", "test.note")
    note.assert_received("*")
    assert bob.ecall_and_wait("alice", "test.back", 10)["samp.status"] == "samp.ok"
    assert time.monotonic() - begin < 2
    for msg_id in msg_ids:
        bob.ereply(msg_id, "samp.ok", {})
    assert [statuses.get(timeout=20) for _ in threads] == ["samp.ok"] * 25
    for thread in threads:
        thread.join(5)


def test_garbage_collection(
    samp_client: Callable[..., RecordingClient], connect: Connect, monitored: queue.Queue[Any]
) -> None:
    """A client that the program no longer references unregisters and ends its threads."""
    witness = samp_client("Witness", [])
    monitored.get(timeout=10)
    dropped = SAMPIntegratedClient(name="Dropped")
    dropped.connect()
    dropped.bind_receive_call("test.x", lambda *args: None)
    assert witness.ecall_and_wait("dropped", "samp.app.ping", 10)["samp.status"] == "samp.ok"
    monitored.get(timeout=10)
    del dropped
    gc.collect()
    witness.assert_unregistered("Dropped", within=10)


EXITING = f"""{MONITORED}
import sys
from pyvo.samp import SAMPIntegratedClient
client = SAMPIntegratedClient(name="Script")
client.connect()
client.bind_receive_call("test.x", lambda *args: None)
assert responded.wait(10)
print(client.get_public_id(), flush=True)
sys.stdin.readline()
{{end}}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("sys.exit(3)", 3), ("1/0", 1)])
def test_exit(hub: SAMPHubServer, connect: Connect, script: Script, end: str, code: int) -> None:
    """A script that ends without disconnecting exits within 3 s, and its client is unregistered."""
    witness = connect("Witness")
    process = script(EXITING.format(end=end), "-W", "error")
    client_id = first_line(process)
    assert client_id in witness.get_registered_clients()
    begin = time.monotonic()
    _, errors = process.communicate(b"\n", timeout=10)
    assert time.monotonic() - begin < 3
    assert process.returncode == code
    assert errors.count(b"Traceback") == (end == "1/0")
    assert b"Warning" not in errors
    assert client_id not in witness.get_registered_clients()


def test_exit_with_a_frozen_hub(hub_process: HubProcess, script: Script) -> None:
    """A hub that does not respond delays the exit of a script by less than 6 s."""
    frozen = hub_process()
    process = script(EXITING.format(end=""))
    first_line(process)
    frozen.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    process.communicate(b"\n", timeout=20)
    assert time.monotonic() - begin < 6
    assert process.returncode == 0


FORKING = f"""{MONITORED}
import os, sys
from pyvo.samp import SAMPClientError, SAMPHubError, SAMPIntegratedClient
client = SAMPIntegratedClient(name="Parent")
client.connect()
assert responded.wait(10)
own_id = client.get_public_id()
child = os.fork()
if not child:
    try:
        assert not client.is_connected
        try:
            client.ping()
        except SAMPHubError as error:
            assert "forked" in str(error) and "connect()" in str(error), error
        else:
            raise AssertionError("no error")
        client.connect()
        assert client.get_public_id() != own_id
        assert own_id in client.get_registered_clients()
        assert client.ecall_and_wait(own_id, "samp.app.ping", 5)["samp.status"] == "samp.ok"
        client.disconnect()
        child = os.fork()
        if not child:
            sys.exit(0)  # unregisters no client
        assert os.waitpid(child, 0)[1] == 0
    except Exception:
        import traceback
        traceback.print_exc()
        os._exit(1)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.is_connected
assert client.ping() == ""
assert client.ecall_and_wait(own_id, "samp.app.ping", 5)["samp.status"] == "samp.ok"
print("done", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_fork(hub: SAMPHubServer, connect: Connect, script: Script) -> None:
    """In the child of a fork the client raises an error and can connect again; the parent stays connected."""
    # Python 3.12 and later warn of each fork in a process with threads.
    process = script(FORKING, "-W", "error", "-W", "ignore:This process:DeprecationWarning")
    assert process.communicate(timeout=40) == (b"done\n", b"")
    assert other_ids(connect("Witness")) == []


def _call_forever(client: SAMPIntegratedClient) -> None:
    while True:
        client.ping()
        client.get_registered_clients()


def test_signal_handler(hub: SAMPHubServer, connect: Connect) -> None:
    """`disconnect` may be called from a signal handler, even if the main thread waits for a response."""
    alice = connect("Alice")
    previous = signal.signal(signal.SIGALRM, lambda *_: alice.disconnect())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises((SAMPClientError, SAMPHubError, SAMPProxyError)):
            _call_forever(alice)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert not alice.is_connected
    alice.connect()
    assert alice.is_connected


# disconnect(), or ^C, during connect()


class Connecting:
    """A client that another thread connects; the errors of its threads are collected."""

    def __init__(self) -> None:
        self.client = SAMPIntegratedClient(name="Alice")
        self.errors: queue.Queue[BaseException] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self.run(self.client.connect)

    def run(self, function: Callable[[], object]) -> None:
        def collect() -> None:
            try:
                function()
            except BaseException as error:
                self.errors.put(error)

        self._threads.append(threading.Thread(target=collect))
        self._threads[-1].start()

    def join(self) -> list[BaseException]:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        return [self.errors.get_nowait() for _ in range(self.errors.qsize())]


def before(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, first: Callable[..., object]) -> None:
    """Call a function before the first call of a method of the package."""
    original = getattr(kind, name)
    done: list[bool] = []

    def with_it(self: Any, *args: Any) -> Any:
        if not done:
            done.append(True)
            first(self)
        return original(self, *args)

    monkeypatch.setattr(kind, name, with_it)


def test_disconnect_during_connect(hub: SAMPHubServer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """`disconnect` waits for a registration in progress in another thread, and then unregisters the client."""
    witness = connect("Witness")
    started, release = threading.Event(), threading.Event()
    before(monkeypatch, SAMPClient, "_declare_all", lambda _: (started.set(), release.wait(10)))
    connecting = Connecting()
    assert started.wait(10)
    connecting.run(connecting.client.disconnect)
    wait_until(lambda: connecting.client._status.state is not ConnectionState.CONNECTING)
    assert connecting.client.hub.is_connected
    release.set()
    (error,) = connecting.join()
    assert isinstance(error, SAMPHubError)
    assert "disconnect() was called" in str(error)
    assert not connecting.client.is_connected
    assert other_ids(witness) == []
    connecting.client.connect()
    assert other_ids(witness) == [connecting.client.get_public_id()]
    connecting.client.disconnect()


def test_disconnect_during_a_connect_that_hangs(
    hub: SAMPHubServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    After CONNECT_TIMEOUT, `disconnect` closes the connection of a `connect` that hangs.

    If the client already has a key, it unregisters over another connection.
    """
    monkeypatch.setattr(session, "CONNECT_TIMEOUT", 0.1)
    witness = connect("Witness")
    started = threading.Event()

    def hang(client: SAMPClient) -> None:
        started.set()
        wait_until(lambda: not client.hub.is_connected)

    before(monkeypatch, SAMPClient, "_declare_all", hang)
    connecting = Connecting()
    assert started.wait(10)
    connecting.client.disconnect()
    (error,) = connecting.join()
    assert isinstance(error, SAMPHubError)
    assert not connecting.client.is_connected
    assert other_ids(witness) == []


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "place", [(EventLoop, "start"), (SAMPClient, "_declare_all")], ids=["the request is written", "the key is known"]
)
@pytest.mark.parametrize("how", ["disconnect", "interrupt"])
def test_signal_during_connect(
    hub: SAMPHubServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str], how: str
) -> None:
    """If a signal handler disconnects, or raises like ^C, no client stays registered with the hub."""
    witness = connect("Witness")
    alice = SAMPIntegratedClient(name="Alice")
    handler = alice.disconnect if how == "disconnect" else _interrupt
    previous = signal.signal(signal.SIGALRM, lambda *_: handler())
    before(monkeypatch, *place, lambda _: signal.raise_signal(signal.SIGALRM))
    try:
        with pytest.raises(SAMPHubError if how == "disconnect" else KeyboardInterrupt):
            alice.connect()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not alice.is_connected
    assert other_ids(witness) == []
    alice.disconnect()
    alice.connect()
    assert other_ids(witness) == [alice.get_public_id()]
    alice.disconnect()
