"""``samp hub``: consent, and the monitor."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from xmlrpc.client import Fault

import pytest

from pyvo.samp import SAMPError, SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.broker import Broker
from pyvo.samp.broker.deliveries import EncodedMessage
from pyvo.samp.cli.arguments import OriginAllowList
from pyvo.samp.cli.hub import main
from pyvo.samp.cli.hub_monitor import ScreenLogHandler, TrafficScreen, format_screen
from pyvo.samp.cli.output import Style
from pyvo.samp.web_profile.consent import ConsentRequest, ConsentTicket, Decision
from pyvo.samp.window.traffic_log import MESSAGES_KEPT, TrafficLog
from tests.hub.web_pages import Page
from tests.process.programs import HUB_IS_RUNNING, Program

Start = Callable[..., Program]
NOON = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)


class Box:
    """A mailbox that forgets everything."""

    def put(self, delivery: object) -> None:
        """Forget it."""

    def close(self, farewell: object) -> None:
        """Forget it."""


@pytest.fixture
def watched() -> tuple[Broker, TrafficLog]:
    """A broker that is watched by a monitor."""
    broker, monitor = Broker(), TrafficLog()
    broker.observer = lambda delivery: monitor.add(NOON, delivery)
    return broker, monitor


def join(broker: Broker, name: str, *takes: str):
    client = broker.register("standard", Box())
    broker.set_callable(client)
    broker.declare_metadata(client, {"samp.name": name})
    broker.declare_subscriptions(client, {mtype: {} for mtype in takes})
    return client


def message(mtype: str, **params: str) -> EncodedMessage:
    return EncodedMessage.message({"samp.mtype": mtype, "samp.params": params})


# What the monitor knows


def test_guests(watched: tuple[Broker, TrafficLog]) -> None:
    """Who comes and goes, without anybody being subscribed to such events."""
    broker, monitor = watched
    one = join(broker, "One", "a.b")
    join(broker, "Two")
    assert [(guest.name, guest.profile, guest.subscriptions) for guest in monitor.clients.values()] == [
        ("One", "standard", ["a.b"]),
        ("Two", "standard", []),
    ]
    broker.unregister(one)
    assert [guest.name for guest in monitor.clients.values()] == ["Two"]
    assert [entry.text for entry in monitor.messages] == [
        "One (c1) has joined, by the standard profile",
        "Two (c2) has joined, by the standard profile",
        "One (c1) has left",
    ]


def test_messages(watched: tuple[Broker, TrafficLog]) -> None:
    """A broadcast is one message; calls get their answers, in whatever way they were made."""
    broker, monitor = watched
    one, two, three = join(broker, "One"), join(broker, "Two", "a.*"), join(broker, "Three", "a.*")
    monitor.messages.clear()
    broker.notify_all(one, message("a.b", key="value"))
    ids = broker.call_all(one, "tag", message("a.c"))
    for client in (two, three):
        broker.reply(client, ids[client.client_id], EncodedMessage.response({"samp.status": "samp.ok"}))
    waiting = broker.call_and_wait(one, two.client_id, message("a.d"), lambda _payload: None)
    broker.reply(two, waiting.msg_id, EncodedMessage.response({"samp.status": "samp.error", "samp.error": {}}))
    broker.call(one, broker.hub_id, "tag", message("samp.app.ping"))
    broker.call(one, three.client_id, "tag", message("a.e"))
    broker.unregister(three)
    shown = [
        (row.mtype, row.recipients, [monitor.reply_text(one).partition(" after")[0] for one in row.replies.values()])
        for row in monitor.messages
        if row.recipients
    ]
    assert [(mtype, set(recipients), answers) for mtype, recipients, answers in shown] == [
        ("a.b", {"c2", "c3"}, []),
        ("a.c", {"c2", "c3"}, ["Two (c2): samp.ok", "Three (c3): samp.ok"]),
        ("a.d", {"c2"}, ["Two (c2): samp.error"]),
        ("samp.app.ping", {"hub"}, ["Hub (hub): samp.ok"]),
        ("a.e", {"c3"}, ["Three (c3): samp.error"]),
    ]
    assert monitor.total == 5
    assert (monitor.clients["c1"].sent, monitor.clients["c1"].received) == (5, 0)
    assert (monitor.clients["c2"].sent, monitor.clients["c2"].received) == (0, 3)


def test_memory_is_bounded(watched: tuple[Broker, TrafficLog]) -> None:
    """However many messages there are, and calls that nobody answers."""
    broker, monitor = watched
    one, two = join(broker, "One"), join(broker, "Two", "a.b")
    for _ in range(3 * MESSAGES_KEPT):
        broker.notify(one, two.client_id, message("a.b"))
    for _ in range(1100):
        broker.call(one, two.client_id, "tag", message("a.b"))
    assert len(monitor.messages) == MESSAGES_KEPT
    assert len(monitor._calls) == 1000
    assert monitor._bytes == sum(entry.size for entry in monitor.messages)
    oldest = next(iter(two.pending_received))
    broker.reply(two, oldest, EncodedMessage.response({"samp.status": "samp.ok"}))
    assert monitor.messages[-1].mtype == "(an older call)"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 5), (200, 60), (1, 1), (40, 3)])
def test_table_fits(watched: tuple[Broker, TrafficLog], width: int, height: int) -> None:
    """Whatever the size of the terminal; with hostile names, and more clients than lines."""
    broker, monitor = watched
    clients = [join(broker, f"Name{number} \x9b2J 星", "a.b", "\u202ex.y") for number in range(40)]
    broker.notify_all(clients[0], message("a.b", text="\x1b[2J\n\n"))
    lines = format_screen(monitor, "SAMP hub", width, height, Style("never"))
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert not set("".join(lines)) & set("\x1b\x9b\u202e\n")


def test_flood(watched: tuple[Broker, TrafficLog]) -> None:
    """A hub that is faster than the terminal: messages are left out and counted, clients never."""
    broker, _monitor = watched
    screen = TrafficScreen(stream=StringIO())
    broker.observer = screen.watch
    one, two = join(broker, "One"), join(broker, "Two", "a.b")
    for _ in range(6000):
        broker.notify(one, two.client_id, message("a.b"))
    join(broker, "Three")
    screen.start()
    screen.stop()
    assert screen._missed > 900
    assert [guest.name for guest in screen._log.clients.values()] == ["One", "Two", "Three"]


def test_screen_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads the lines any more, which is said; or they cannot be written, and the log goes elsewhere."""

    class Broken(StringIO):
        def write(self, text: str) -> int:
            raise error

    error: OSError = BrokenPipeError()
    told = threading.Event()
    screen = TrafficScreen(stream=Broken())
    screen.on_reader_gone = told.set
    screen.start()
    screen.note_log("a line")
    assert told.wait(10)
    screen.stop()
    error = OSError(28, "No space left on device")
    screen = TrafficScreen(stream=Broken())
    screen.start()
    screen.note_log("a line")
    screen.stop()
    assert screen.broken
    assert not screen.pipe_closed
    handler = ScreenLogHandler(screen)
    monkeypatch.setattr(handler, "stream", StringIO())
    handler.emit(logging.LogRecord("pyvo.samp", logging.INFO, "", 0, "another line", (), None))
    assert handler.stream.getvalue() == "another line\n"


# As a program


def test_monitor_in_lines(start: Start) -> None:
    """Where there is no terminal: one line for each thing that happens."""
    program = start("hub", "--monitor", "-w", ready=HUB_IS_RUNNING)
    with SAMPIntegratedClient("Taker") as taker, SAMPIntegratedClient("Giver") as giver:
        taker.bind_receive_call("a.b", lambda _key, _sender, _mtype, _params, _extra: {"x": "1"})
        giver.ecall_and_wait("taker", "a.b", 10, key="value\n")
    program.wait_for("Giver (c2) has left")
    output = program.output
    assert "c1 has joined, by the standard profile" in output
    assert 'call Giver (c2) -> Taker (c1): a.b {"key": "value\\n"}' in output
    assert "reply to Giver (c2): a.b: Taker (c1): samp.ok after 0.0" in output
    assert "\x1b" not in output
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert "INFO: The hub has stopped" in program.output


@pytest.mark.parametrize("program", [["pyvo.samp", "hub"], ["pyvo.samp.hub"]])
def test_reader_of_the_lines_has_had_enough(
    python_environment: dict[str, str], isolated: Path, program: list[str]
) -> None:
    """``samp hub --monitor | head -1``: the hub stops, as whatever else is read by ``head``."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", *program, "--monitor", "-w"],
        env=python_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while HUB_IS_RUNNING not in process.stdout.readline():
                assert process.poll() is None
            process.stdout.close()
            with contextlib.suppress(SAMPError), SAMPIntegratedClient("Somebody"):  # which is another line
                pass
            assert process.wait(20) == 141
        finally:
            process.kill()
        assert "Traceback" not in process.stderr.read()
    assert not (isolated / ".samp").exists()


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_monitor_on_a_terminal(python_environment: dict[str, str]) -> None:
    """A table on the terminal's other screen, drawn when something happens, and gone at the end."""
    import pty

    leader, follower = pty.openpty()
    environment = {**python_environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "20"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-W", "error", "-m", "pyvo.samp", "hub", "--monitor", "-w"]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        screen = Screen(leader)
        try:
            screen.wait_for("The hub is running")
            with SAMPIntegratedClient("Somebody") as client:
                screen.wait_for("Somebody (c1) has joined")
                client.enotify("hub", "samp.app.ping")
                screen.wait_for("samp.app.ping")
                screen.wait_for("1 client, 1 message ")
            screen.wait_for("Somebody (c1) has left")
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            screen.wait_for("\x1b[?25h\x1b[?1049l")
        finally:
            process.kill()
            screen.close()
    assert screen.text.startswith("\x1b[?1049h\x1b[?25l")
    assert "Traceback" not in screen.text


class Screen:
    """Reads what a program writes to its terminal."""

    def __init__(self, leader: int) -> None:
        self.text = ""
        self._leader = leader
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._leader, 65536)
            except OSError:  # nobody has the other end any more
                return
            if not data:
                return
            with self._news:
                self.text += data.decode()
                self._news.notify_all()

    def wait_for(self, text: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: text in self.text, 20), self.text

    def close(self) -> None:
        self._thread.join(5)
        os.close(self._leader)


def test_hub_that_cannot_start(hub: SAMPHubServer, samp: Callable[..., tuple[int, str, str]]) -> None:
    """Another one is running."""
    for options in ([], ["--monitor"]):
        status, _out, err = samp("hub", "-w", "-L", "OFF", *options)
        assert status == 1
        assert "samp hub: Another SAMP hub is already running" in err


# Consent


def port_of(program: Program) -> int:
    """Where a hub's Web Profile is."""
    line = next(line for line in program.lines if "Web Profile on port" in line)
    return int(line.rpartition(" ")[2])


def question(origin: str) -> ConsentTicket:
    return ConsentTicket(ConsentRequest("page", origin, {}, ("127.0.0.1", 1)), lambda _answer: None)


def test_allowed_origins() -> None:
    """Those and no others; no origin, or null, is none of them (R40)."""
    asker = OriginAllowList(["https://example.org", "http://localhost:8888"])
    for origin, answer in {
        "https://example.org": Decision.ONCE,
        "http://localhost:8888": Decision.ONCE,
        "http://example.org": Decision.DENY,
        "https://example.org.evil.com": Decision.DENY,
        "https://sub.example.org": Decision.DENY,
        "null": Decision.DENY,
        "": Decision.DENY,
    }.items():
        assert asker.ask(question(origin)) is answer


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        (["allow-origin", "https://Example.org/", "http://other"], {"https://example.org", "http://other"}),
        (["deny"], set()),
        (["terminal"], set()),  # there is none
    ],
)
@pytest.mark.parametrize("monitor", [[], ["--monitor"]])
def test_consent(start: Start, options: list[str], allowed: set[str], monitor: list[str]) -> None:
    """The hub asks nobody but whom it was told to."""
    program = start("hub", "--web-port", "0", *monitor, "--web-consent", *options, ready=HUB_IS_RUNNING)
    port = port_of(program)
    for origin in ("https://example.org", "http://other", "https://third.org", "null"):
        with Page(port, origin) as page:
            if origin in allowed:
                assert page.register("page").key
            else:
                with pytest.raises(Fault, match="did not allow"):
                    page.register("page")
    if os.name != "nt":
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == 0
        assert "ERROR" not in program.output
        assert "The hub has stopped" in program.output


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ([], {"table.x"}),
        (["--web-mtypes", "script.*", "x.y"], {"table.x", "script.run"}),
        (["--web-mtypes", "*"], {"table.x", "script.run", "ds9.set"}),
    ],
)
def test_what_pages_may_send(start: Start, options: list[str], allowed: set[str]) -> None:
    """The harmless messages, and those that are named besides (R47)."""
    consent = ["--web-port", "0", "--web-consent", "allow-origin", "https://example.org"]
    program = start("hub", *consent, *options, ready=HUB_IS_RUNNING)
    with SAMPIntegratedClient("Viewer") as viewer, Page(port_of(program), "https://example.org") as page:
        viewer.bind_receive_notification("*", lambda *_: None)
        page.register("page")
        for mtype in ("table.x", "script.run", "ds9.set"):
            reached = page.call("notifyAll", {"samp.mtype": mtype, "samp.params": {}})
            assert bool(reached) == (mtype in allowed), mtype


def test_the_program_takes_the_descriptors_it_may_have(many_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most systems give a program few unless it asks; a hub has a socket for each client."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    seen: list[int] = []
    monkeypatch.setattr(
        SAMPHubServer, "start", lambda *_, **__: seen.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    )
    assert main(["-w"]) == 0
    assert seen[0] >= 4096
