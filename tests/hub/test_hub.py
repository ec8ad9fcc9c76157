# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`SAMPHubServer`: start and stop, lockfile, time-outs, and what can keep a hub from starting."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from pyvo.samp import SAMPHubError, SAMPHubServer, SAMPIntegratedClient, lockfile, process_events
from pyvo.samp import hub as hub_module
from pyvo.samp.cli.client_session import get_interruptible
from pyvo.samp.errors import SAMPProxyError
from pyvo.samp.hub import RunningHub
from pyvo.samp.lockfile import read_lockfile
from pyvo.samp.process_events import SignalSafeEvent
from pyvo.samp.transport.xmlrpc_client import XMLRPCClient

MakeHub = Callable[..., SAMPHubServer]


def alive(params: dict[str, str]) -> bool:
    return lockfile.ping_hub(params)


def messages(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


# Start and stop


def test_start_and_stop(isolated: Path) -> None:
    """R34, R35: a running hub has a lockfile that only its user can read, responds, and leaves nothing behind."""
    hub = SAMPHubServer(web_profile=False, label="mine", secret="s3cret")
    assert not hub.is_running
    assert hub.params == {}
    hub.start()
    try:
        assert hub.is_running
        assert read_lockfile(isolated / ".samp") == hub.params
        assert hub.params["samp.secret"] == "s3cret"
        assert hub.params["samp.profile.version"] == "1.3"
        assert hub.params["hub.label"] == "mine"
        assert hub.params["samp.hub.xmlrpc.url"].startswith("http://127.0.0.1:")
        assert stat.S_IMODE((isolated / ".samp").stat().st_mode) == 0o600
        params = hub.params
        assert alive(params)
    finally:
        hub.stop()
    assert not hub.is_running
    assert hub.params == {}
    assert not alive(params)
    assert list(isolated.iterdir()) == []


def test_stop_without_start_and_twice(make_hub: MakeHub) -> None:
    """`stop` does nothing on a hub that is not running."""
    SAMPHubServer().stop()
    hub = make_hub()
    hub.stop()
    hub.stop()


def test_a_restarted_hub_has_a_new_secret(make_hub: MakeHub, isolated: Path) -> None:
    """R6, R7: the secret of the stopped hub is not valid for the hub that runs now."""
    hub = make_hub()
    first = hub.params
    hub.stop()
    hub.start()
    assert hub.is_running
    assert hub.params["samp.secret"] != first["samp.secret"]
    assert alive(hub.params)


def test_start_while_running(hub: SAMPHubServer) -> None:
    with pytest.raises(SAMPHubError, match="already running"):
        hub.start()
    assert hub.is_running


def test_secrets_are_long_and_new() -> None:
    """R7: 128 bits at least."""
    seen = set()
    for _ in range(3):
        hub = SAMPHubServer(web_profile=False)
        hub.start()
        seen.add(hub.params["samp.secret"])
        hub.stop()
    assert len(seen) == 3
    assert all(len(secret) >= 32 for secret in seen)


@pytest.mark.parametrize("dialog", ["gtk", 42, True, object()])
def test_the_constructor_checks_the_dialog(dialog) -> None:
    """The constructor rejects a dialog that it cannot use, unless the Web Profile is switched off."""
    with pytest.raises((TypeError, ValueError), match="is not a way to ask for consent"):
        SAMPHubServer(web_profile_dialog=dialog)
    SAMPHubServer(web_profile=False, web_profile_dialog=dialog)


def test_the_constructor_checks_the_mode() -> None:
    with pytest.raises(ValueError, match="'single' or 'multiple', not 'several'"):
        SAMPHubServer(mode="several")


def test_a_label_of_two_lines_is_rejected(isolated: Path) -> None:
    """R34: the second line of the label would be a line of the lockfile, so the hub does not start."""
    hub = SAMPHubServer(web_profile=False, label="x\nsamp.secret=y")
    with pytest.raises(ValueError, match="hub.label"):
        hub.start()
    assert not hub.is_running
    assert list(isolated.iterdir()) == []


def test_subtypes() -> None:
    """R12."""
    assert SAMPHubServer.get_mtype_subtypes("a.b.c") == ["a.b.c", "a.b.*", "a.*", "*"]
    assert SAMPHubServer().get_mtype_subtypes("a") == ["a", "*"]


def test_repr_and_id(make_hub: MakeHub) -> None:
    """R38: the text form of a hub shows no secret."""
    hub = make_hub(label="mine", secret="s3cret")
    assert repr(hub) == "<SAMPHubServer mine, running>"
    assert SAMPHubServer().id != SAMPHubServer().id


# Address


def test_ipv6(make_hub: MakeHub) -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    hub = make_hub(addr="::1")
    assert hub.params["samp.hub.xmlrpc.url"].startswith("http://[::1]:")
    assert alive(hub.params)


@pytest.mark.parametrize("addr", ["localhost", "127.0.0.1", "", None])
def test_loopback_addresses(make_hub: MakeHub, addr: str | None) -> None:
    """R37: each of these values means 127.0.0.1, and the hub looks up no name."""
    assert make_hub(addr=addr).params["samp.hub.xmlrpc.url"].startswith("http://127.0.0.1:")


def test_a_port_in_use_is_an_error(isolated: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        hub = SAMPHubServer(port=port, web_profile=False)
        with pytest.raises(SAMPHubError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            hub.start()
        assert not hub.is_running
    assert list(isolated.iterdir()) == []


# Lockfiles


def test_a_second_hub_does_not_start(hub: SAMPHubServer, isolated: Path) -> None:
    """R35: the error of the second hub names the first one, and the first one is not affected."""
    before = (isolated / ".samp").read_bytes()
    second = SAMPHubServer(web_profile=False)
    with pytest.raises(
        SAMPHubError, match=r"Another SAMP hub is already running \(at http://127.0.0.1:\d+/, from ~/.samp\)"
    ):
        second.start()
    assert not second.is_running
    assert hub.is_running
    assert (isolated / ".samp").read_bytes() == before
    second.stop()
    assert alive(hub.params)


def test_hubs_in_mode_multiple_have_their_own_lockfiles(hub: SAMPHubServer, make_hub: MakeHub, isolated: Path) -> None:
    """Each hub writes its own lockfile, and removes it when it stops."""
    others = [make_hub(mode="multiple") for _ in range(3)]
    found = [read_lockfile(path) for path in (isolated / ".samp-1").iterdir()]
    assert sorted(p["hub.id"] for p in found) == sorted(other.id for other in others)
    assert read_lockfile(isolated / ".samp") == hub.params
    for other in others:
        other.stop()
    assert list((isolated / ".samp-1").iterdir()) == []


def test_a_given_lockfile_is_used_in_either_mode(make_hub: MakeHub, tmp_path: Path) -> None:
    """A hub uses the lockfile that its caller names, also in mode "multiple"."""
    hub = make_hub(lockfile=tmp_path / "a", mode="multiple")
    assert read_lockfile(tmp_path / "a") == hub.params
    assert make_hub(lockfile=str(tmp_path / "b")).is_running


def test_hub_and_clients_use_the_file_of_samp_hub(
    make_hub: MakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R33: the hub writes the lockfile that SAMP_HUB names, and clients read it."""
    monkeypatch.setenv("SAMP_HUB", "std-lockurl:" + (tmp_path / "a b").as_uri())
    hub = make_hub()
    assert lockfile.get_main_running_hub() == hub.params
    with SAMPIntegratedClient(name="x") as client:
        assert client.is_connected


@pytest.mark.parametrize("change", ["removed", "replaced", "garbled", "made a directory"])
def test_lockfile_is_changed_by_another_program(
    make_hub: MakeHub,
    isolated: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: str,
) -> None:
    """R35: the hub continues, logs one warning, and does not remove a file of another program."""
    monkeypatch.setattr(hub_module, "LOCKFILE_CHECK_INTERVAL", 0.05)
    caplog.set_level(logging.WARNING)
    warned = threading.Event()
    monkeypatch.setattr(caplog.handler, "emit", _signalling(caplog.handler.emit, warned))
    hub = make_hub()
    path = isolated / ".samp"
    path.unlink()
    if change == "replaced":
        path.write_bytes(lockfile.format_lockfile({**hub.params, "samp.secret": "another"}))
    elif change == "garbled":
        path.write_bytes(os.urandom(100))
    elif change == "made a directory":
        path.mkdir()
    assert warned.wait(5)
    assert messages(caplog).count("Another program has removed or changed") == 1
    assert alive(hub.params)
    client = SAMPIntegratedClient(name="x")
    client.connect(hub=hub)
    client.disconnect()
    hub.stop()
    assert path.exists() == (change != "removed")


def _signalling(
    emit: Callable[[logging.LogRecord], None], event: threading.Event
) -> Callable[[logging.LogRecord], None]:
    def both(record: logging.LogRecord) -> None:
        emit(record)
        event.set()

    return both


@pytest.mark.parametrize("obstacle", ["directory", "no such place"])
def test_lockfile_cannot_be_written(tmp_path: Path, obstacle: str) -> None:
    """R36: a hub that cannot write its lockfile does not run, and leaves nothing behind."""
    path = tmp_path / "samp"
    if obstacle == "directory":
        path.mkdir()
    else:
        path /= "deeper"
    threads = threading.active_count()
    hub = SAMPHubServer(lockfile=path, web_profile=False)
    with pytest.raises(SAMPHubError, match="cannot be written: .*Without it, programs cannot find the hub"):
        hub.start()
    assert not hub.is_running
    assert threading.active_count() == threads


# Shutdown


class Listener:
    """A client that records notifications."""

    def __init__(self, hub: SAMPHubServer, *mtypes: str) -> None:
        self.received: SimpleQueue[tuple[str, dict[str, Any]]] = SimpleQueue()
        self.client = SAMPIntegratedClient(name="listener")
        self.client.connect(hub=hub)
        for mtype in mtypes:
            self.client.bind_receive_notification(mtype, self.note)

    def note(self, key: str, sender: str, mtype: str, params: dict[str, Any], extra: dict[str, Any]) -> None:
        self.received.put((mtype, params))

    def next(self) -> tuple[str, dict[str, Any]]:
        return self.received.get(timeout=5)


def test_clients_are_notified_of_a_shutdown(hub: SAMPHubServer) -> None:
    """R26: a client is notified once."""
    listener = Listener(hub, "samp.hub.event.shutdown")
    hub.stop()
    assert listener.next() == ("samp.hub.event.shutdown", {})
    assert listener.received.empty()
    listener.client.disconnect()


def test_waiting_caller_gets_a_response(hub: SAMPHubServer) -> None:
    """R23: a call that is pending when the hub stops ends before its time-out."""
    callee = Listener(hub)
    arrived = threading.Event()
    callee.client.bind_receive_call("x.never", lambda *_: arrived.set())
    caller = SAMPIntegratedClient(name="caller")
    caller.connect(hub=hub)
    outcome: SimpleQueue[Any] = SimpleQueue()

    def call() -> None:
        try:
            outcome.put(caller.ecall_and_wait(callee.client.get_public_id(), "x.never", "0"))
        except SAMPHubError as error:
            outcome.put(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert arrived.wait(5)
    hub.stop()
    response = outcome.get(timeout=5)
    thread.join()
    assert isinstance(response, SAMPHubError) or response["samp.error"]["samp.code"] == "samp.noresponse"
    for client in (caller, callee.client):
        client.disconnect()


def test_unresponsive_clients_do_not_delay_a_stop(hub: SAMPHubServer) -> None:
    """
    R26: five clients accept connections and never respond; the hub stops in less than 2 s and notifies the others.
    """
    proxy = XMLRPCClient(hub.params["samp.hub.xmlrpc.url"])
    holes = []
    for _ in range(5):
        hole = socket.create_server(("127.0.0.1", 0))
        holes.append(hole)
        key = proxy.call("samp.hub.register", hub.params["samp.secret"])["samp.private-key"]
        proxy.call("samp.hub.setXmlrpcCallback", key, f"http://127.0.0.1:{hole.getsockname()[1]}/")
        proxy.call("samp.hub.declareSubscriptions", key, {"*": {}})
    listener = Listener(hub, "samp.hub.event.shutdown")
    begin = time.monotonic()
    hub.stop()
    assert time.monotonic() - begin < 2
    assert listener.next() == ("samp.hub.event.shutdown", {})
    listener.client.disconnect()
    proxy.close()
    for hole in holes:
        hole.close()


def test_stop_from_a_handler(hub: SAMPHubServer) -> None:
    """A handler in this process may stop the hub that delivered its message."""
    done = threading.Event()
    listener = Listener(hub)

    def stop(*_: object) -> None:
        hub.stop()
        done.set()

    listener.client.bind_receive_notification("x.stop", stop)
    other = SAMPIntegratedClient(name="other")
    other.connect(hub=hub)
    other.enotify(listener.client.get_public_id(), "x.stop")
    assert done.wait(5)
    assert not hub.is_running
    for client in (other, listener.client):
        client.disconnect()


def test_stop_from_many_threads(hub: SAMPHubServer) -> None:
    """All calls of `stop` return after the hub has stopped."""
    params = hub.params
    running = []

    def stop() -> None:
        hub.stop()
        running.append(alive(params))

    threads = [threading.Thread(target=stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running == [False] * 8


def test_stop_in_a_signal_handler(make_hub: MakeHub, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A signal handler may stop the hub, even while the hub starts. Then the hub does not run, and there is no
    lockfile.
    """
    hub = SAMPHubServer(web_profile=False)
    really_write = hub_module.write_lockfile

    def write(path: Path, params: dict[str, str]) -> None:
        signal.raise_signal(signal.SIGTERM)
        really_write(path, params)

    monkeypatch.setattr(hub_module, "write_lockfile", write)
    before = signal.signal(signal.SIGTERM, lambda *_: hub.stop())
    try:
        hub.start()
        assert not hub.is_running
        assert list(isolated.iterdir()) == []
        monkeypatch.undo()
        hub.start()
        signal.raise_signal(signal.SIGTERM)
        assert not hub.is_running
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(isolated.iterdir()) == []


def test_registration_during_the_shutdown_is_rejected(hub: SAMPHubServer) -> None:
    """R26: the registration gets a fault, because the new client would not be notified of the shutdown."""
    hub._running.broker.announce_shutdown()
    proxy = XMLRPCClient(hub.params["samp.hub.xmlrpc.url"])
    with pytest.raises(SAMPProxyError, match="shutting down"):
        proxy.call("samp.hub.register", hub.params["samp.secret"])
    proxy.close()


def test_a_stopped_hub_is_garbage_collected(make_hub: MakeHub) -> None:
    hub = SAMPHubServer(web_profile=False)
    hub.start()
    hub.stop()
    reference = weakref.ref(hub)
    del hub
    gc.collect()
    assert reference() is None


def test_fifty_restarts_leak_nothing(make_hub: MakeHub) -> None:
    """The fixture that all tests use checks threads and descriptors."""
    hub = make_hub()
    for _ in range(50):
        hub.stop()
        hub.start()
    assert threading.active_count() < 10


# Waiting until the hub has stopped


def test_wait_ends_with_stop(isolated: Path) -> None:
    hub = SAMPHubServer(web_profile=False)
    thread = threading.Thread(target=hub.start, kwargs={"wait": True})
    thread.start()
    _until_running(hub)
    hub.stop()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)]
)
def test_wait_ends_with_a_signal(isolated: Path, number: signal.Signals, error: type[BaseException]) -> None:
    """The hub stops properly, the signal becomes an exception, and no signal handler is left behind."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    hub = SAMPHubServer(web_profile=False)
    main = threading.main_thread().ident

    def interrupt() -> None:
        _until_running(hub)
        signal.pthread_kill(main, number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(error):
        hub.start(wait=True)
    thread.join()
    assert not hub.is_running
    assert list(isolated.iterdir()) == []
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_a_hub_keeps_the_signal_handlers_of_its_program(isolated: Path) -> None:
    """A program keeps its own handlers, also when it starts the hub with ``wait=True``."""
    hub = SAMPHubServer(web_profile=False)
    called = threading.Event()
    main = threading.main_thread().ident

    def own(*_: object) -> None:
        called.set()
        hub.stop()

    before = signal.signal(signal.SIGTERM, own)
    try:
        thread = threading.Thread(target=lambda: (_until_running(hub), signal.pthread_kill(main, signal.SIGTERM)))
        thread.start()
        hub.start(wait=True)
        thread.join()
        assert called.is_set()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("place", ["the lockfile is there", "it is announced"])
@pytest.mark.parametrize("how", ["interrupt", "stop"])
def test_signal_during_the_start(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str, how: str
) -> None:
    """
    A hub that is interrupted right after it has written the lockfile does not run, and leaves no lockfile. ^C
    interrupts it, or a handler that stops the hub.
    """
    hub = SAMPHubServer(web_profile=False)

    def interrupt() -> None:
        if how == "stop":
            hub.stop()
        else:
            raise KeyboardInterrupt

    class Interrupted(set[RunningHub]):
        def add(self, running: RunningHub) -> None:
            super().add(running)
            interrupt()

    def replace(source: Path, target: Path) -> None:
        os.rename(source, target)
        interrupt()

    with monkeypatch.context() as patch:
        if place == "it is announced":
            patch.setattr(hub_module, "_running_hubs", Interrupted())
        else:
            patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt) if how == "interrupt" else nullcontext():
            hub.start()
        assert hub_module._running_hubs == set()
    assert not hub.is_running
    assert list(isolated.iterdir()) == []
    assert "no longer" not in messages(caplog)
    hub.start()
    assert hub.is_running
    hub.stop()


@pytest.mark.parametrize("place", range(4))
def test_event_that_is_set_at_the_beginning_of_a_wait(place: int) -> None:
    """The wait ends if a signal handler sets the event between any two lines of the waiting thread."""
    event_under_test = SignalSafeEvent()
    places = count()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename == process_events.__file__ and next(places) == place:
            event_under_test.set()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert event_under_test.wait(5)
    finally:
        sys.settrace(before)
    event_under_test.set()
    event_under_test.set()
    assert event_under_test.wait()
    assert event_under_test.wait(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal masks")
@pytest.mark.parametrize("wait", [SignalSafeEvent().wait, partial(get_interruptible, SimpleQueue())])
def test_signal_that_does_not_interrupt_a_wait(wait: Callable[[float], object]) -> None:
    """A signal that arrives just before the main thread blocks does not end the system call, but ends the wait."""
    waited_to_the_end = []
    timers = [
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)),
        threading.Timer(10, waited_to_the_end.append, (True,)),
    ]
    for timer in timers:
        timer.start()
    # another thread receives the signal, and the system call in this thread continues
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with pytest.raises(KeyboardInterrupt):
            wait(20)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for timer in timers:
            timer.cancel()
    assert not waited_to_the_end


def test_start_without_wait_sets_no_signal_handlers(make_hub: MakeHub) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    make_hub()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def _until_running(hub: SAMPHubServer) -> None:
    deadline = time.monotonic() + 5
    pause = threading.Event()
    while not hub.is_running:
        assert time.monotonic() < deadline
        pause.wait(0.005)


# Time-outs


def test_a_hub_without_requests_stops(make_hub: MakeHub, isolated: Path) -> None:
    """A hub that gets no requests stops after its time-out, and can be started again."""
    hub = make_hub(timeout=0.2)
    assert hub._running.closed.wait(5)
    assert not hub.is_running
    assert not (isolated / ".samp").exists()
    hub.start()
    assert hub.is_running


def test_requests_keep_the_hub_running(make_hub: MakeHub) -> None:
    """Each request restarts the time-out."""
    hub = make_hub(timeout=0.6)
    with SAMPIntegratedClient(name="busy") as client:
        for _ in range(5):
            assert not hub._running.closed.wait(0.25)
            client.get_registered_clients()
    assert hub._running.closed.wait(5)


def test_silent_clients_are_disconnected(make_hub: MakeHub) -> None:
    """R26: the hub sends the reason to a client that it disconnects; other clients stay registered."""
    hub = make_hub(client_timeout=0.4)
    silent = Listener(hub, "samp.hub.disconnect")
    silent_id = silent.client.get_public_id()
    with SAMPIntegratedClient(name="busy") as busy:
        pause = threading.Event()
        deadline = time.monotonic() + 5
        while silent_id in busy.get_registered_clients():
            assert time.monotonic() < deadline
            pause.wait(0.1)
        assert silent.next() == ("samp.hub.disconnect", {"reason": "it was silent for 0.4 s"})
        assert busy.ping() == ""
    silent.client.disconnect()


@pytest.mark.parametrize("options", [{"timeout": 0.3}, {"client_timeout": 0.3}])
def test_clients_with_pending_calls_are_not_silent(make_hub: MakeHub, options: dict[str, float]) -> None:
    """R22: neither time-out ends a pending call."""
    hub = make_hub(**options)
    with SAMPIntegratedClient(name="alice") as alice, SAMPIntegratedClient(name="bob") as bob:
        pause = threading.Event()
        bob.bind_receive_call("test.x", lambda key, sender, mtype, params, extra: pause.wait(1.2) or {"x": "1"})
        assert alice.ecall_and_wait(bob.get_public_id(), "test.x", 0)["samp.result"] == {"x": "1"}
        assert hub.is_running


# Log


def test_log_shows_no_secret(make_hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    """R38: the log contains no secret and no private key, even at level DEBUG."""
    caplog.set_level(logging.DEBUG, "pyvo.samp")
    hub = make_hub()
    secret = hub.params["samp.secret"]
    with SAMPIntegratedClient(name="x") as client:
        key = client.get_private_key()
        client.ping()
    hub.stop()
    assert "The hub serves the Standard Profile on port" in messages(caplog)
    assert secret not in messages(caplog)
    assert key not in messages(caplog)


# Fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_does_not_affect_the_hub(hub: SAMPHubServer, isolated: Path) -> None:
    """In the child process the hub does not run, and `stop` does not affect the parent's lockfile and sockets."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if not hub.is_running and hub.params == {}:
                hub.stop()
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_lockfile(isolated / ".samp") == hub.params
    assert alive(hub.params)
    with SAMPIntegratedClient(name="x") as client:
        assert client.is_connected
