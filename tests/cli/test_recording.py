# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp snoop --record`` and ``samp replay``."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.cli.recording import Recorder, Redactor, read_recording
from pyvo.samp.testing import RecordingClient, running_hub
from tests.process.programs import Program

from .conftest import Done

Samp = Callable[..., Done]
Make = Callable[..., RecordingClient]
Start = Callable[..., Program]

TRAFFIC = "x-samp.hub.event.traffic"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and modes of POSIX")


def end(program: Program) -> None:
    """End a command with ^C."""
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert "Traceback" not in program.output


def entries(path: Path, *kinds: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return [entry for entry in found if not kinds or entry["kind"] in kinds]


@pytest.fixture
def session(samp_hub: SAMPHubServer, samp_client: Make, start: Start, tmp_path: Path) -> Path:
    """A recording: a table is loaded, a row is highlighted, and an image cannot be loaded."""
    path = tmp_path / "session.jsonl"
    program = start("snoop", "--record", path, "--files", "--color", "never")

    def load(message: object) -> dict[str, Any]:
        program.wait_for("table.load.votable  call")  # the file has been copied now; real viewers need time, too
        return {}

    replies = {"image.*": ValueError("no such image"), "table.load.votable": load}
    viewer = samp_client("Viewer", ["table.*", "image.load.fits"], replies)
    sender = samp_client("Sender", ["table.highlight.row"], metadata={"author.name": "Me"})
    assert sender.send(Table({"a": np.arange(3)}), to="Viewer", name="numbers").ok
    loaded = viewer.assert_received("table.load.votable")
    sender.enotify("Viewer", "table.highlight.row", **{"table-id": loaded.params["table-id"], "row": 2})
    sender.ecall_and_wait("Viewer", "image.load.fits", 10, url="http://data.example/i.fits")
    viewer.enotify_all("table.highlight.row", row=7)
    sender.disconnect()
    program.wait_for("samp.hub.event.unregister")
    viewer.disconnect()
    end(program)
    return path


def test_record(session: Path) -> None:
    """Messages to single clients, responses, times, and a file that its sender has removed are recorded."""
    read = read_recording(session)
    assert read.complete
    sent = [(e.kind, e.fields["message"]["samp.mtype"], e.fields["recipients"], e.fields["to-all"])
            for e in read.entries if e.kind in {"notification", "call"}]  # fmt: skip
    assert sent == [
        ("call", "table.load.votable", ["c2"], False),
        ("notification", "table.highlight.row", ["c2"], False),
        ("call", "image.load.fits", ["c2"], False),
        ("notification", "table.highlight.row", ["c3"], True),
    ]
    first, second = entries(session, "response")
    assert (first["call"], first["response"]["samp.status"]) == (1, "samp.ok")
    assert (second["call"], second["response"]["samp.error"]) == (2, {"samp.errortxt": "no such image"})
    (file,) = entries(session, "file")
    assert file["path"] == "session.files/numbers.vot"
    table = Table.read(session.parent / file["path"], format="votable")
    assert table["a"].tolist() == [0, 1, 2]
    assert not Path(file["url"].removeprefix("file://")).exists()
    clients = {e["client"]: e["metadata"] for e in entries(session, "metadata")}
    assert clients["c3"] == {"samp.name": "Sender", "author.name": "Me"}
    assert "table.*" in next(e["subscriptions"] for e in entries(session, "subscriptions") if e["client"] == "c2")
    assert session.stat().st_mode & 0o077 == 0
    assert (session.parent / "session.files").stat().st_mode & 0o077 == 0
    times = [entry["t"] for entry in entries(session)]
    assert times == sorted(times)


def test_replay_to_stand_ins(session: Path, samp: Samp, samp_hub: SAMPHubServer, samp_client: Make) -> None:
    """All messages are sent again, in the same order; other clients of the hub also receive broadcasts and traffic."""
    watcher = samp_client("Watcher", [TRAFFIC, "table.highlight.row"])  # c4; c1 was samp snoop
    done = samp("replay", session, "--speed", "20", "--color", "never")
    assert done.status == 0, done.err
    lines = [line.strip().partition(" s  ")[2] or line.strip() for line in done.out.splitlines()]
    assert [line for line in lines if "samp." not in line] == [
        "table.load.votable  call from Sender (c3) to Viewer (c2)",
        "table.highlight.row  notification from Sender (c3) to Viewer (c2)",
        "image.load.fits  call from Sender (c3) to Viewer (c2)",
        "table.highlight.row  notification from Viewer (c2) to Watcher (c4), Sender (c3)",
    ]
    assert "Viewer (c2): samp.ok" in lines
    assert "Viewer (c2): samp.error, no such image" in lines
    assert done.err == "samp: 4 messages, 2 responses, 0 problems\n"
    assert watcher.assert_received("table.highlight.row").params == {"row": "7"}
    kinds = ["call", "response", "notification", "call", "response", "notification"]
    assert [watcher.assert_received(TRAFFIC).params["kind"] for _ in kinds] == kinds
    assert [each for each in watcher.get_registered_clients() if each != "hub"] == []


def test_replay_to_a_client(session: Path, samp: Samp, samp_client: Make) -> None:
    """The messages that the recorded client received are sent to the real client; its file is available again."""
    rows: list[int] = []

    def load(message: Any) -> dict[str, Any]:
        path = message.params["url"].removeprefix("file://")
        rows.append(len(Table.read(path, format="votable")))
        return {}

    viewer = samp_client("viewer", ["table.*", "image.load.fits"], {"table.load.votable": load})
    done = samp("replay", session, "--speed", "20", "--to", "VIEW", "--color", "never")
    assert done.status == 0, done.err
    assert rows == [3]
    loaded = viewer.assert_received("table.load.votable")
    assert viewer.assert_received("table.highlight.row").params == {
        "table-id": loaded.params["table-id"], "row": "2"
    }  # fmt: skip
    viewer.assert_received("image.load.fits")
    viewer.assert_not_received("*")
    assert f"from Sender (c3) to viewer ({viewer.get_public_id()})" in done.out
    assert "samp.ok (recorded: samp.error)" in done.out
    assert "is not sent: VIEW itself sent it\n" in done.err
    assert done.err.endswith("samp: 3 messages, 2 responses, 1 problem\n")


def test_replay_to_another_client(session: Path, samp: Samp, samp_client: Make) -> None:
    """A client whose name is not in the recording gets all messages; errors name those that it does not accept."""
    other = samp_client("Other", ["table.*"])
    done = samp("replay", session, "--speed", "20", "--to", "other", "--color", "never")
    assert done.status == 0
    mtypes = ["table.load.votable", "table.highlight.row", "table.highlight.row"]
    for mtype in mtypes:
        other.assert_received(mtype)
    assert [message.mtype for message in other.received] == mtypes
    assert "cannot be replayed: " in done.err
    assert "is not subscribed to image.load.fits" in done.err
    assert samp("replay", session, "--to", "nobody").status == 4


def test_speed(tmp_path: Path, samp: Samp, samp_client: Make) -> None:
    """Two seconds of the recording take at least a second at twice the speed."""
    path = write(tmp_path, *(notification(seconds) for seconds in (0.0, 2.0)), {"t": 2.0, "kind": "end", "lines": 4})
    watcher = samp_client("Watcher", ["a.b"])
    start = time.monotonic()
    assert samp("replay", path, "--speed", "2").status == 0
    assert time.monotonic() - start >= 1
    for _ in range(2):
        watcher.assert_received("a.b")


def test_no_hub(session: Path, samp: Samp, samp_hub: SAMPHubServer) -> None:
    samp_hub.stop()
    assert samp("replay", session).status == 3


# Secrets


def test_no_secrets(samp_hub: SAMPHubServer, samp_client: Make, start: Start, tmp_path: Path) -> None:
    """No secret, key, msg-id or tag of the session is in the recording, nor the token of a file server."""
    path = tmp_path / "session.jsonl"
    viewer = samp_client("Viewer", ["*"], {"client.env.get": {"value": "token of the environment"}})
    sender = samp_client("Sender", [])
    program = start("snoop", "--record", path, "--files")
    file = tmp_path / "numbers.txt"
    file.write_text("1 2 3\n")
    server = sender._exchange.file_server
    url = server.add(file, "numbers", temporary=False).create_lease(http=True).url
    secrets = {samp_hub.params["samp.secret"], url.split("/")[3], "private-tag", "token of the environment"}
    secrets.add("pass-word")
    broker = samp_hub._running.broker  # type: ignore[union-attr]
    secrets |= {client.private_key for client in broker.clients()}
    sender.ecall("Viewer", "private-tag", "table.load.votable", **{"url": url, "table-id": f"see {url}."})
    call = viewer.assert_received("table.load.votable")
    sender.bind_receive_notification("samp.msg.progress", lambda *_: None)
    viewer.enotify("Sender", "samp.msg.progress", msgid=call.msg_id, percent=50)
    sender.ecall_and_wait("Viewer", "client.env.get", 10, name="TOKEN")
    # secrets in other places of messages
    remote = "https://me:pass-word@archive.example/x.fits?id=7&token=pass-word"
    sender.enotify("Viewer", "a.b", text=samp_hub.params["samp.secret"], list=[{"key": remote}])
    secrets |= {str(message.msg_id) for message in viewer.received if message.msg_id}
    sender.declare_metadata({"samp.icon.url": url})
    program.wait_for("samp.icon.url")
    end(program)
    text = path.read_text()
    assert [secret for secret in secrets if secret in text] == []
    assert len(secrets) == 10
    load = entries(path, "call")[0]["message"]["samp.params"]
    assert load == {"url": "http://127.0.0.1/recorded-1/numbers.txt",
                    "table-id": "see http://127.0.0.1/recorded-1/numbers.txt."}  # fmt: skip
    (copied,) = entries(path, "file")
    assert (copied["url"], path.parent.joinpath(copied["path"]).read_text()) == (load["url"], "1 2 3\n")
    other = next(e["message"]["samp.params"] for e in entries(path, "notification")
                 if e["message"]["samp.mtype"] == "a.b")  # fmt: skip
    assert other["text"] == "(removed)"
    assert other["list"] == [{"key": "https://archive.example/x.fits?id=7&token=%28removed%29"}]


@pytest.mark.parametrize(
    ("url", "cleaned"),
    [
        ("https://archive.example/a/b.fits?ra=1&dec=2#x", "https://archive.example/a/b.fits?ra=1&dec=2#x"),
        ("http://archive.example/AbCdEfGhIjKlMnOpQrStUv/b.fits", "http://127.0.0.1/recorded-1/b.fits"),
        ("http://192.168.1.7:41000/x/b.fits", "http://127.0.0.1/recorded-1/b.fits"),
        ("http://myhost:41000/x/b.fits", "http://127.0.0.1/recorded-1/b.fits"),
        ("http://localhost:21012/abc/http%3A%2F%2Fx", "http://127.0.0.1/recorded-1/x"),
        ("http://[::1]:1/AbCdEfGhIjKlMnOpQrStUv", "http://127.0.0.1/recorded-1/"),
        ("http://[bad/AbCdEfGhIjKlMnOpQrStUv", "(removed)"),
        ("load http://127.0.0.1:1/k/a.vot); more", "load http://127.0.0.1/recorded-1/a.vot); more"),
        ("https://a.example/?x=http%3A%2F%2F127.0.0.1%2Fk", "https://a.example/?x=%28removed%29"),
        ("HTTP://LOCALHOST:1/x/b.fits", "http://127.0.0.1/recorded-1/b.fits"),
        ("ftp://me:pw@archive.example/b.fits", "ftp://archive.example/b.fits"),
        ("vos://archive.example!vospace/b?token=1", "vos://archive.example!vospace/b?token=%28removed%29"),
        ("file:///home/me/a.fits", "file:///home/me/a.fits"),
        ("a secret-key of mine", "a (removed) of mine"),  # a secret as short as "mine" may be an ordinary word
    ],
)
def test_redactor(url: str, cleaned: str) -> None:
    assert Redactor(None, "mine", "secret-key").clean({"k": [url]}) == {"k": [cleaned]}


@given(
    st.binary(min_size=16, max_size=16),
    st.sampled_from(["127.0.0.1:4100", "[::1]:4100", "me@myhost", "10.0.0.7", "files.example.org", "HOST.example"]),
    st.sampled_from(["http", "https", "HTTP"]),
    st.text("abc .,;()[]<>\"'\n=&?/", max_size=5),
    st.sampled_from(["/{}/a.vot", "/{}", "/a/{}/b/c.fits?x=1", "/a?k={}", "/a?token={}#x", "/a?u=http%3A%2F%2Fx%2F{}"]),
)
def test_no_token_survives(random: bytes, host: str, scheme: str, around: str, path: str) -> None:
    """Tokens of this package are removed, wherever they are in a URL, and whatever text surrounds the URL."""
    token = base64.urlsafe_b64encode(random).rstrip(b"=").decode()
    cleaned = Redactor().clean(f"{around} {scheme}://{host}{path.format(token)} {around}")
    assert token not in cleaned


# Broken recordings

HEADER: dict[str, Any] = {"samp-recording": 1, "start": "2026-01-01T00:00:00+00:00", "complete": True}


def notification(seconds: float = 0.0, **fields: Any) -> dict[str, Any]:
    message = {"samp.mtype": "a.b", "samp.params": {}}
    common = {"t": seconds, "kind": "notification", "sender": "c1", "recipients": [], "to-all": True}
    return {**common, "message": message, **fields}


def write(directory: Path, *lines: object, header: object = HEADER) -> Path:
    path = directory / "broken.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in (header, *lines)))
    return path


CALL = notification(kind="call", recipients=["c2"], calls=[1])
RESPONSE = {"t": 0, "kind": "response", "call": 1, "response": {"samp.status": "samp.ok", "samp.result": {}}}


@pytest.mark.parametrize(
    ("lines", "number", "text"),
    [
        (['{"t": 0, "kind": "noti'], 2, "the line is damaged: "),
        (["\u00e9"], 2, "the line is damaged: "),
        (["[" * 100_000], 2, "the line is damaged: "),
        (["[]"], 2, "it is not a JSON object"),
        ([notification(), {"kind": "end", "lines": 3}], 3, "'t' is missing"),
        ([{"t": "0", "kind": "end", "lines": 2}], 2, "'t' is missing, or is not of type float"),
        ([{"t": 0, "kind": "dance"}], 2, "unknown kind 'dance'"),
        ([{"t": 0, "kind": "notification"}], 2, "'sender' is missing, or is not of type str"),
        ([notification(message={"samp.params": {}})], 2, "samp.mtype"),
        ([notification(message={"samp.mtype": "a.b", "samp.params": {"x": None}})], 2, "message/samp.params/x is None"),
        ([notification(5), notification(4)], 3, "the time is earlier than in the line before"),
        ([notification(float("nan"))], 2, "the time is earlier than in the line before"),
        ([notification(-1)], 2, "the time is earlier than in the line before"),
        ([CALL, CALL], 3, "a call needs a new number for each recipient"),
        ([notification(kind="call", recipients=["c2"], calls=[])], 2, "a call needs a new number"),
        ([notification(recipients=[7])], 2, "the recipients are not strings"),
        ([RESPONSE], 2, "there is no call 1 before its response"),
        ([CALL, {**RESPONSE, "response": {"samp.status": "fine"}}], 3, "samp.status"),
        ([{"t": 0, "kind": "file", "url": "u", "path": "../other", "sha256": ""}], 2, "is not beside the recording"),
        ([{"t": 0, "kind": "file", "url": "u", "path": "/etc/passwd", "sha256": ""}], 2, "is not beside the recording"),
        ([{"t": 0, "kind": "file", "url": "u", "path": "x.files/a", "sha256": ""}], 2, "is missing"),
        ([{"t": 0, "kind": "file", "url": "u", "path": "broken.jsonl", "sha256": "0"}], 2, "is not the one that was"),
        ([notification(), {"t": 0, "kind": "end", "lines": 9}], 3, "the recording had 9 lines and has 3"),
        ([notification()], 2, "the recording ends after this line; --partial"),
        ([], 1, "the recording ends after this line"),
    ],
)  # fmt: skip
def test_broken(tmp_path: Path, samp: Samp, lines: list[object], number: int, text: str) -> None:
    """The error names the line of a broken recording; the recording is checked before the command connects."""
    path = write(tmp_path, *lines)
    done = samp("replay", path)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"samp: {path}:{number}: ")
    assert text in done.err


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"samp-recording": 2}, "this recording has version 2 of the format; this version of samp reads version 1"),
        ({"log": 1}, "this is not a recording of samp snoop"),
        ("<?xml version='1.0'?>", "the line is damaged"),
    ],
)
def test_other_files(tmp_path: Path, samp: Samp, header: object, text: str) -> None:
    path = write(tmp_path, header=header)
    done = samp("replay", path)
    assert done.status == 1
    assert done.err.startswith(f"samp: {path}:1: {text}")


def test_empty_or_missing(tmp_path: Path, samp: Samp) -> None:
    (tmp_path / "empty").write_text("")
    assert samp("replay", tmp_path / "empty").err == f"samp: {tmp_path / 'empty'}:1: the file is empty\n"
    done = samp("replay", tmp_path / "missing")
    assert done.status == 1
    assert "No such file" in done.err


def test_truncated_recording(session: Path, samp: Samp, samp_client: Make) -> None:
    """For a recording that ends early, the error names its last line; --partial replays the complete lines."""
    cut = session.read_text().splitlines(keepends=True)[:-4]
    session.write_text("".join(cut) + '{"t": 9.9, "kind": "regi')
    done = samp("replay", session)
    assert done.status == 1
    assert done.err.startswith(f"samp: {session}:{len(cut) + 1}: the recording ends in this line; --partial")
    viewer = samp_client("Viewer", ["table.*"])
    assert samp("replay", session, "--partial", "--to", "viewer", "--speed", "20").status == 0
    viewer.assert_received("table.load.votable")


def test_killed_recorder(samp_hub: SAMPHubServer, samp_client: Make, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    sender = samp_client("Sender", [])
    program = start("snoop", "--record", path)
    sender.wait_for("samp snoop", 20)
    with pytest.warns(Warning, match="No client is subscribed"):
        sender.enotify_all("a.b")
    samp_client("Viewer", ["a.b"])
    sender.enotify_all("a.b")
    program.wait_for("a.b  notification")
    program.process.kill()
    program.wait()
    assert [entry.kind for entry in read_recording(path, partial=True).entries][-1] == "notification"


def test_interrupted_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If ^C arrives when an entry has just been written, the recording is complete nevertheless."""
    path = tmp_path / "session.jsonl"
    now = dt.datetime.now().astimezone()

    def interrupt() -> None:
        monkeypatch.undo()
        recorder._file.flush()
        raise KeyboardInterrupt

    with Recorder(path, Redactor(), complete=True, copy_files=False, start=now) as recorder:
        recorder.add(now, "register", client="c1")
        monkeypatch.setattr(recorder._file, "flush", interrupt)
        with pytest.raises(KeyboardInterrupt):
            recorder.add(now, "unregister", client="c1")
    assert [entry.kind for entry in read_recording(path).entries] == ["register", "unregister", "end"]


def test_entries_that_cannot_be_replayed(tmp_path: Path, samp: Samp, samp_hub: SAMPHubServer) -> None:
    """Missing files and unknown recipients are reported as problems; the other messages are sent."""
    message = {"samp.mtype": "a.b", "samp.params": {"url": "file:///there/is/no/file"}}
    path = write(
        tmp_path,
        {"t": 0, "kind": "register", "client": "c2"},
        {"t": 0, "kind": "subscriptions", "client": "c2", "subscriptions": {"a.b": {}}},
        notification(recipients=["c2"], **{"to-all": False}, message=message),
        notification(kind="call", recipients=["c2"], calls=[1], **{"to-all": False}),
        notification(recipients=["c9"], **{"to-all": False}),
        {"t": 0, "kind": "end", "lines": 7},
    )
    done = samp("replay", path, "--color", "never")
    assert done.status == 0
    assert done.err.splitlines() == [
        "samp: line 4: the recipients cannot read file:///there/is/no/file, which was not recorded",
        "samp: line 6 is not sent to c9: the recording lacks that client",
        "samp: 2 messages, 0 responses, 2 problems",
    ]


# The command


def test_options(tmp_path: Path, samp: Samp, samp_hub: SAMPHubServer) -> None:
    for options in (["--files"], ["--record", "x", "--reconnect"]):
        assert samp("snoop", *options).status == 2
    existing = tmp_path / "existing"
    existing.write_text("mine")
    done = samp("snoop", "--record", existing)
    assert done.status == 1
    assert "already exists" in done.err
    assert existing.read_text() == "mine"
    assert samp("snoop", "--record", tmp_path / "no" / "directory").status == 1
    for speed in ("0", "-1", "nan", "inf", "fast"):
        assert samp("replay", existing, "--speed", speed).status == 2


def test_pattern(samp_hub: SAMPHubServer, samp_client: Make, start: Start, tmp_path: Path) -> None:
    """With a pattern, only matching messages are recorded, with their responses and all clients."""
    path = tmp_path / "session.jsonl"
    samp_client("Viewer", ["*"])
    sender = samp_client("Sender", [])
    program = start("snoop", "a.*", "--record", path, "--count", "1")
    sender.wait_for("samp snoop", 20)
    sender.ecall_and_wait("Viewer", "x.y", 10)
    sender.enotify("Viewer", "a.b")
    assert program.wait() == 0
    assert [e["message"]["samp.mtype"] for e in entries(path, "notification", "call")] == ["a.b"]
    assert len(entries(path, "register")) == 2
    assert entries(path, "response") == []


def test_hub_of_another_package(samp_hub: SAMPHubServer, samp_client: Make, start: Start, tmp_path: Path) -> None:
    """Other hubs show only broadcasts to the recorder: the command says so, and the recording can be replayed."""

    class NoSubscribers(set[object]):
        def add(self, item: object) -> None:
            """Ignore it."""

    broker = samp_hub._running.broker  # type: ignore[union-attr]
    broker._hub.metadata = {"samp.name": "Hub"}
    broker._traffic_subscribers = NoSubscribers()
    path = tmp_path / "session.jsonl"
    samp_client("Viewer", ["a.b"])
    sender = samp_client("Sender", [])
    program = start("snoop", "--record", path)
    program.wait_for("shows no messages to single clients")
    sender.wait_for("samp snoop", 20, "a.b")
    sender.bind_receive_response("tag", lambda *_: None)
    sender.ecall_all("tag", "a.b", n=1)
    program.wait_for("a.b  call")
    end(program)
    recording = read_recording(path)
    assert not recording.complete
    (call,) = [entry.fields for entry in recording.entries if entry.kind == "call"]
    assert (call["recipients"], call["to-all"], call["message"]["samp.params"]) == ([], True, {"n": "1"})


# Traffic messages of the hub


def test_recipients_of_traffic(make_hub: Callable[..., SAMPHubServer]) -> None:
    """Traffic is not sent to clients with a wildcard, nor to web pages."""
    hub = make_hub(web_profile=True, web_profile_dialog=lambda *_: True, web_profile_mtypes=["*"])
    with (
        RecordingClient("exact", [TRAFFIC, "a.b"]) as exact,
        RecordingClient("wildcard", ["*"]) as wildcard,
        SAMPIntegratedClient("web") as sender,
    ):
        web = RecordingClient("page", [TRAFFIC, "x-samp.*"])
        web.connect(hub=hub, web=True)
        sender.enotify("exact", "a.b", n=1)
        traffic = exact.assert_received(TRAFFIC)
        assert traffic.sender_id == "hub"
        assert traffic.params["body"] == {"samp.mtype": "a.b", "samp.params": {"n": "1"}}
        assert traffic.params["sender-id"] == sender.get_public_id()
        wildcard.assert_not_received(TRAFFIC)
        web.assert_not_received(TRAFFIC)
        exact.declare_metadata({"x": "y"})
        exact.unbind_receive_call(TRAFFIC)
        exact.unbind_receive_notification(TRAFFIC)
        exact.recorder._received.clear()
        sender.enotify("exact", "a.b", n=2)
        exact.assert_not_received(TRAFFIC)
        web.disconnect()


def test_the_hub_stops(samp_hub: SAMPHubServer, start: Start, tmp_path: Path) -> None:
    """If the hub stops, the recording is complete nevertheless."""
    program = start("snoop", "--record", tmp_path / "session.jsonl")
    samp_hub.stop()
    assert program.wait() == 3
    assert read_recording(tmp_path / "session.jsonl").entries[-1].kind == "end"


def test_another_hub(session: Path, samp: Samp) -> None:
    """A recording can be replayed with another hub."""
    with running_hub():
        done = samp("replay", session, "--speed", "50")
    assert done.err == "samp: 4 messages, 2 responses, 0 problems\n"
