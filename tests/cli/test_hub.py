"""``samp hub``: the monitor, and consent for web pages."""

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


class Sink:
    """A delivery queue that drops everything."""

    def put(self, delivery: object) -> None:
        """Drop it."""

    def close(self, final_delivery: object) -> None:
        """Drop it."""


@pytest.fixture
def monitored() -> tuple[Broker, TrafficLog]:
    """A broker with a monitor as its observer."""
    broker, log = Broker(), TrafficLog()
    broker.observer = lambda event: log.record(NOON, event)
    return broker, log


def join(broker: Broker, name: str, *mtypes: str):
    client = broker.register("standard", Sink())
    broker.set_callable(client)
    broker.declare_metadata(client, {"samp.name": name})
    broker.declare_subscriptions(client, {mtype: {} for mtype in mtypes})
    return client


def message(mtype: str, **params: str) -> EncodedMessage:
    return EncodedMessage.message({"samp.mtype": mtype, "samp.params": params})


# The record of the monitor


def test_clients(monitored: tuple[Broker, TrafficLog]) -> None:
    """Clients are recorded although no client is subscribed to the events."""
    broker, log = monitored
    one = join(broker, "One", "a.b")
    join(broker, "Two")
    assert [(client.name, client.profile, client.subscriptions) for client in log.clients.values()] == [
        ("One", "standard", ["a.b"]),
        ("Two", "standard", []),
    ]
    broker.unregister(one)
    assert [client.name for client in log.clients.values()] == ["Two"]
    assert [entry.text for entry in log.messages] == [
        "One (c1) has registered, with the standard profile",
        "Two (c2) has registered, with the standard profile",
        "One (c1) has unregistered",
    ]


def test_messages(monitored: tuple[Broker, TrafficLog]) -> None:
    """A broadcast is one message; every kind of call gets its responses."""
    broker, log = monitored
    one, two, three = join(broker, "One"), join(broker, "Two", "a.*"), join(broker, "Three", "a.*")
    log.messages.clear()
    broker.notify_all(one, message("a.b", key="value"))
    ids = broker.call_all(one, "tag", message("a.c"))
    for client in (two, three):
        broker.reply(client, ids[client.client_id], EncodedMessage.response({"samp.status": "samp.ok"}))
    pending = broker.call_and_wait(one, two.client_id, message("a.d"), lambda _payload: None)
    broker.reply(two, pending.msg_id, EncodedMessage.response({"samp.status": "samp.error", "samp.error": {}}))
    broker.call(one, broker.hub_id, "tag", message("samp.app.ping"))
    broker.call(one, three.client_id, "tag", message("a.e"))
    broker.unregister(three)
    shown = [
        (row.mtype, row.recipients, [log.reply_text(reply).partition(" after")[0] for reply in row.replies.values()])
        for row in log.messages
        if row.recipients
    ]
    assert [(mtype, set(recipients), responses) for mtype, recipients, responses in shown] == [
        ("a.b", {"c2", "c3"}, []),
        ("a.c", {"c2", "c3"}, ["Two (c2): samp.ok", "Three (c3): samp.ok"]),
        ("a.d", {"c2"}, ["Two (c2): samp.error"]),
        ("samp.app.ping", {"hub"}, ["Hub (hub): samp.ok"]),
        ("a.e", {"c3"}, ["Three (c3): samp.error"]),
    ]
    assert log.total == 5
    assert (log.clients["c1"].sent, log.clients["c1"].received) == (5, 0)
    assert (log.clients["c2"].sent, log.clients["c2"].received) == (0, 3)


def test_memory_is_bounded(monitored: tuple[Broker, TrafficLog]) -> None:
    """The memory is bounded for any number of messages and of calls without a response."""
    broker, log = monitored
    one, two = join(broker, "One"), join(broker, "Two", "a.b")
    for _ in range(3 * MESSAGES_KEPT):
        broker.notify(one, two.client_id, message("a.b"))
    for _ in range(1100):
        broker.call(one, two.client_id, "tag", message("a.b"))
    assert len(log.messages) == MESSAGES_KEPT
    assert len(log._calls) == 1000
    assert log._bytes == sum(row.size for row in log.messages)
    oldest = next(iter(two.pending_received))
    broker.reply(two, oldest, EncodedMessage.response({"samp.status": "samp.ok"}))
    assert log.messages[-1].mtype == "(an older call)"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 5), (200, 60), (1, 1), (40, 3)])
def test_table_fits(monitored: tuple[Broker, TrafficLog], width: int, height: int) -> None:
    """The table fits into terminals of any size, with hostile names, and with more clients than lines."""
    broker, log = monitored
    clients = [join(broker, f"Name{number} \x9b2J 星", "a.b", "\u202ex.y") for number in range(40)]
    broker.notify_all(clients[0], message("a.b", text="\x1b[2J\n\n"))
    lines = format_screen(log, "SAMP hub", width, height, Style("never"))
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert not set("".join(lines)) & set("\x1b\x9b\u202e\n")


def test_flood(monitored: tuple[Broker, TrafficLog]) -> None:
    """If the hub is faster than the terminal, messages are omitted and counted, but clients are not."""
    broker, _log = monitored
    screen = TrafficScreen(stream=StringIO())
    broker.observer = screen.on_traffic
    one, two = join(broker, "One"), join(broker, "Two", "a.b")
    for _ in range(6000):
        broker.notify(one, two.client_id, message("a.b"))
    join(broker, "Three")
    screen.start()
    screen.stop()
    assert screen._omitted > 900
    assert [client.name for client in screen._log.clients.values()] == ["One", "Two", "Three"]


def test_screen_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed pipe is reported. After another error of the stream the log goes to standard error."""

    class Broken(StringIO):
        def write(self, text: str) -> int:
            raise error

    error: OSError = BrokenPipeError()
    pipe_closed = threading.Event()
    screen = TrafficScreen(stream=Broken())
    screen.on_pipe_closed = pipe_closed.set
    screen.start()
    screen.on_log("a line")
    assert pipe_closed.wait(10)
    screen.stop()
    error = OSError(28, "No space left on device")
    screen = TrafficScreen(stream=Broken())
    screen.start()
    screen.on_log("a line")
    screen.stop()
    assert screen.broken
    assert not screen.pipe_closed
    handler = ScreenLogHandler(screen)
    monkeypatch.setattr(handler, "stream", StringIO())
    handler.emit(logging.LogRecord("pyvo.samp", logging.INFO, "", 0, "another line", (), None))
    assert handler.stream.getvalue() == "another line\n"


# Monitor of a running hub


def test_monitor_in_lines(start: Start) -> None:
    """Without a terminal, the monitor prints one line for each event and message."""
    program = start("hub", "--monitor", "-w", ready=HUB_IS_RUNNING)
    with SAMPIntegratedClient("Recipient") as recipient, SAMPIntegratedClient("Sender") as sender:
        recipient.bind_receive_call("a.b", lambda _key, _sender, _mtype, _params, _extra: {"x": "1"})
        sender.ecall_and_wait("recipient", "a.b", 10, key="value\n")
    program.wait_for("Sender (c2) has unregistered")
    output = program.output
    assert "c1 has registered, with the standard profile" in output
    assert 'call Sender (c2) -> Recipient (c1): a.b {"key": "value\\n"}' in output
    assert "reply to Sender (c2): a.b: Recipient (c1): samp.ok after 0.0" in output
    assert "\x1b" not in output
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert "INFO: The hub has stopped" in program.output


@pytest.mark.parametrize("program", [["pyvo.samp", "hub"], ["pyvo.samp.hub"]])
def test_monitor_with_closed_pipe(
    python_environment: dict[str, str], isolated: Path, program: list[str]
) -> None:
    """``samp hub --monitor | head -1``: the hub stops, as other programs do when their pipe is closed."""
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
            with contextlib.suppress(SAMPError), SAMPIntegratedClient("Another"):  # the hub prints its registration
                pass
            assert process.wait(20) == 141
        finally:
            process.kill()
        assert "Traceback" not in process.stderr.read()
    assert not (isolated / ".samp").exists()


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_monitor_on_a_terminal(python_environment: dict[str, str]) -> None:
    """The table is drawn on the terminal's alternate screen, which is left at the end."""
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
            with SAMPIntegratedClient("Another") as client:
                screen.wait_for("Another (c1) has registered")
                client.enotify("hub", "samp.app.ping")
                screen.wait_for("samp.app.ping")
                screen.wait_for("1 client, 1 message ")
            screen.wait_for("Another (c1) has unregistered")
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            screen.wait_for("\x1b[?25h\x1b[?1049l")
        finally:
            process.kill()
            screen.close()
    assert screen.text.startswith("\x1b[?1049h\x1b[?25l")
    assert "Traceback" not in screen.text


class Screen:
    """Reads the output of a program to its terminal."""

    def __init__(self, leader: int) -> None:
        self.text = ""
        self._leader = leader
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._leader, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            with self._changed:
                self.text += data.decode()
                self._changed.notify_all()

    def wait_for(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.text, 20), self.text

    def close(self) -> None:
        self._thread.join(5)
        os.close(self._leader)


def test_hub_that_cannot_start(hub: SAMPHubServer, samp: Callable[..., tuple[int, str, str]]) -> None:
    """If another hub is running, ``samp hub`` fails and says so."""
    for options in ([], ["--monitor"]):
        status, _out, err = samp("hub", "-w", "-L", "OFF", *options)
        assert status == 1
        assert "samp hub: Another SAMP hub is already running" in err


# Consent


def port_of(program: Program) -> int:
    """Return the port of a hub's Web Profile."""
    line = next(line for line in program.lines if "Web Profile on port" in line)
    return int(line.rpartition(" ")[2])


def make_ticket(origin: str) -> ConsentTicket:
    return ConsentTicket(ConsentRequest("page", origin, {}, ("127.0.0.1", 1)), lambda _decision: None)


def test_allowed_origins() -> None:
    """Only these origins are allowed, not a missing origin or null (R40)."""
    prompt = OriginAllowList(["https://example.org", "http://localhost:8888"])
    for origin, decision in {
        "https://example.org": Decision.ONCE,
        "http://localhost:8888": Decision.ONCE,
        "http://example.org": Decision.DENY,
        "https://example.org.evil.com": Decision.DENY,
        "https://sub.example.org": Decision.DENY,
        "null": Decision.DENY,
        "": Decision.DENY,
    }.items():
        assert prompt.ask(make_ticket(origin)) is decision


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        (["allow-origin", "https://Example.org/", "http://other"], {"https://example.org", "http://other"}),
        (["deny"], set()),
        (["terminal"], set()),  # there is no terminal
    ],
)
@pytest.mark.parametrize("monitor", [[], ["--monitor"]])
def test_consent(start: Start, options: list[str], allowed: set[str], monitor: list[str]) -> None:
    """With --web-consent the hub decides without asking."""
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
def test_mtypes_of_pages(start: Start, options: list[str], allowed: set[str]) -> None:
    """Pages may send the default MTypes, and those of ``--web-mtypes`` (R47)."""
    consent = ["--web-port", "0", "--web-consent", "allow-origin", "https://example.org"]
    program = start("hub", *consent, *options, ready=HUB_IS_RUNNING)
    with SAMPIntegratedClient("Viewer") as viewer, Page(port_of(program), "https://example.org") as page:
        viewer.bind_receive_notification("*", lambda *_: None)
        page.register("page")
        for mtype in ("table.x", "script.run", "ds9.set"):
            reached = page.call("notifyAll", {"samp.mtype": mtype, "samp.params": {}})
            assert bool(reached) == (mtype in allowed), mtype


@pytest.mark.parametrize("options", [[], ["--no-web-upload"]])
def test_uploads_of_pages(start: Start, options: list[str]) -> None:
    """Pages can store files unless ``--no-web-upload`` is given."""
    consent = ["--web-port", "0", "--web-consent", "allow-origin", "https://example.org"]
    program = start("hub", *consent, *options, ready=HUB_IS_RUNNING)
    with Page(port_of(program), "https://example.org") as page:
        assert ("x-samp.upload" in page.call("register", {"samp.name": "page"})) == (not options)


def test_limit_of_open_files(many_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program raises the limit, because a hub has a socket for each client."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    seen: list[int] = []
    monkeypatch.setattr(
        SAMPHubServer, "start", lambda *_, **__: seen.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    )
    assert main(["-w"]) == 0
    assert seen[0] >= 4096
