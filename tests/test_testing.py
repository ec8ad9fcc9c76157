# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`pyvo.samp.testing` and the plugin for pytest, as tests of other projects use them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyvo.samp import SAMPHubError, SAMPHubServer, SAMPIntegratedClient, SAMPProxyError
from pyvo.samp.testing import MessageRecorder, RecordingClient, isolated_home, running_hub
from tests.conftest import ROOT

Make = Callable[..., RecordingClient]


# Receiving


def test_a_message_is_returned_once(samp_client: Make) -> None:
    viewer, sender = samp_client("viewer", ["a.b"]), samp_client("sender")
    sender.enotify("viewer", "a.b", n=1)
    sender.enotify("viewer", "a.b", n=2)
    message = viewer.assert_received("a.b")
    assert (message.sender_id, message.msg_id, message.params) == (sender.get_public_id(), None, {"n": "1"})
    assert viewer.assert_received("a.*").params == {"n": "2"}
    with pytest.raises(AssertionError, match=r"No message a\.b arrived within 0\.1 s"):
        viewer.assert_received("a.b", within=0.1)
    assert [each.params["n"] for each in viewer.received] == ["1", "2"]


def test_messages_are_selected_by_parameters(samp_client: Make) -> None:
    """The parameters may be numbers, and the order of the messages does not matter."""
    viewer, sender = samp_client("viewer", ["a.*"]), samp_client("sender")
    sender.enotify("viewer", "a.b", n=1, rows=[1, 2])
    sender.enotify("viewer", "a.b", n=2, rows=[3])
    assert viewer.assert_received("a.b", params={"n": 2}).params["rows"] == ["3"]
    assert viewer.assert_received("a.b", params={"rows": [1, 2]}).params["n"] == "1"


def test_assert_received_waits(samp_client: Make) -> None:
    """`assert_received` waits for a message, and returns as soon as it arrives."""
    viewer, sender = samp_client("viewer", ["a.b"]), samp_client("sender")
    timer = threading.Timer(0.2, lambda: sender.enotify("viewer", "a.b"))
    timer.start()
    start = time.monotonic()
    viewer.assert_received("a.b", within=60)
    assert time.monotonic() - start < 30
    timer.join()


def test_failure_lists_the_received_messages(samp_client: Make) -> None:
    viewer, sender = samp_client("viewer", ["a.*"]), samp_client("sender")
    sender.enotify("viewer", "a.b", text="x" * 500)
    sender.ecall_and_wait("viewer", "a.c", 10, n=7)
    viewer.assert_received("a.c")
    with pytest.raises(AssertionError) as failure:
        viewer.assert_received("a.b", within=0.05, params={"n": 1})
    lines = str(failure.value).splitlines()
    assert lines[:2] == ['No message a.b with {"n": "1"} arrived within 0.05 s.', "viewer has received:"]
    assert re.fullmatch(r'  \d+\.\d\d s: a\.b, notification from sender \(c2\): \{"text": "x{190}\.\.\.', lines[2])
    assert re.fullmatch(
        r'  .* s: a\.c, call from sender \(c2\), returned by an earlier assert_received: \{"n": "7"\}', lines[3]
    )


def test_failure_states_the_reason(samp_client: Make) -> None:
    """If the client cannot receive the message, the error says why, because the test itself is wrong."""
    viewer = samp_client("viewer", ["a.b"])
    text = r"viewer is not subscribed to x\.y\. viewer has not received any messages"
    with pytest.raises(AssertionError, match=text):
        viewer.assert_received("x.y", within=0)
    viewer.disconnect()
    with pytest.raises(AssertionError, match="viewer is no longer connected"):
        viewer.assert_received("a.b", within=0)


def test_not_received(samp_client: Make) -> None:
    """`assert_not_received` waits for messages that the hub has accepted; otherwise it would depend on timing."""
    release = threading.Event()
    viewer = samp_client("viewer", ["*"], {"slow.call": lambda _: release.wait(10) and {}})
    sender = samp_client("sender", ["x.y"])
    viewer.assert_not_received("a.b")
    threading.Timer(0.2, release.set).start()
    sender.bind_receive_response("tag", lambda *_: None)
    sender.ecall("viewer", "tag", "slow.call")
    sender.enotify("viewer", "a.b")
    viewer.assert_not_received("c.d")
    with pytest.raises(AssertionError, match=r"A message a\.b arrived\.\nviewer has received:"):
        viewer.assert_not_received("a.*")
    viewer.assert_received("a.b")
    viewer.assert_not_received("a.b")


@pytest.mark.parametrize("mtype", ["", "a..b", "*.a"])
def test_invalid_mtype(samp_client: Make, mtype: str) -> None:
    viewer = samp_client()
    with pytest.raises(ValueError, match="MType"):
        viewer.assert_received(mtype, within=0)


# Replies


def test_replies(samp_client: Make) -> None:
    """The most specific MType selects the reply: a result, a whole response, an error, or a function."""

    def number(message: object) -> dict[str, int]:
        return {"n": int(message.params["n"]) + 1}  # type: ignore[attr-defined]

    warning = {"samp.status": "samp.warning", "samp.result": {}, "samp.error": {"samp.errortxt": "old"}}
    replies = {"a.*": {"value": 1}, "a.b": warning, "a.c": ValueError("disk full"), "a.d": number}
    samp_client("viewer", ["*"], replies)
    sender = samp_client("sender")

    def call(mtype: str, **params: object) -> object:
        return sender.ecall_and_wait("viewer", mtype, 10, **params)

    assert call("x.y") == {"samp.status": "samp.ok", "samp.result": {}}
    assert call("a.x") == {"samp.status": "samp.ok", "samp.result": {"value": "1"}}
    assert call("a.b") == warning
    assert call("a.c") == {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "disk full"}}
    assert call("a.d", n=1) == {"samp.status": "samp.ok", "samp.result": {"n": "2"}}
    assert call("a.d")["samp.error"] == {"samp.errortxt": "KeyError: 'n'"}  # type: ignore[index]


def test_no_reply(samp_client: Make) -> None:
    viewer, sender = samp_client("viewer", ["a.b"], {"a.b": None}), samp_client("sender")
    with pytest.raises(SAMPProxyError):
        sender.ecall_and_wait("viewer", "a.b", 1)
    viewer.assert_received("a.b")


def test_metadata_and_subscriptions(samp_client: Make) -> None:
    """Other clients see the metadata and subscriptions that the test states."""
    viewer = samp_client("viewer", {"a.b": {"x-samp.mostly-harmless": "1"}}, metadata={"author.name": "Me"})
    other = samp_client("other")
    assert other.get_metadata(str(viewer.get_public_id())) == {"samp.name": "viewer", "author.name": "Me"}
    assert other.get_subscribed_clients("a.b") == {viewer.get_public_id(): {"x-samp.mostly-harmless": "1"}}
    assert viewer.get_public_id() not in other.get_subscribed_clients("a.c")


def test_recorder_of_the_programs_own_client(samp_hub: SAMPHubServer) -> None:
    """A recorder also records the messages of the program's own client."""
    with SAMPIntegratedClient("mine") as mine, SAMPIntegratedClient("other") as other:
        recorder = MessageRecorder(mine, {"a.b": {"n": 1}})
        mine.bind_receive_call("a.b", recorder)
        assert other.ecall_and_wait("mine", "a.b", 10)["samp.result"] == {"n": "1"}
        assert recorder.assert_received("a.b").msg_id


def test_unregistered(samp_client: Make) -> None:
    viewer, other = samp_client("viewer"), samp_client("other")
    with pytest.raises(AssertionError, match=r"other is still registered after 0\.1 s"):
        viewer.assert_unregistered("other", within=0.1)
    timer = threading.Timer(0.1, other.disconnect)
    timer.start()
    viewer.assert_unregistered("other", within=20)
    timer.join()


# Hubs


def test_hubs_are_isolated() -> None:
    """Clients cannot reach the user's own hub within the block, and can reach it afterwards."""
    with running_hub() as outer, SAMPIntegratedClient("outside") as outside:
        home = os.environ["HOME"]
        os.environ["SAMP_HUB"] = f"std-lockurl:{Path(home, '.samp').as_uri()}"
        with running_hub() as inner, SAMPIntegratedClient("inside") as inside:
            assert inner.id != outer.id
            assert os.environ["HOME"] != home
            assert "SAMP_HUB" not in os.environ
            assert "outside" not in inside.clients
            assert Path(os.environ["HOME"], ".samp").exists()
            inner_home = os.environ["HOME"]
        assert os.environ["HOME"] == home
        assert os.environ.pop("SAMP_HUB").startswith("std-lockurl:")
        assert not inner.is_running
        assert not Path(inner_home).exists()
        assert outside.is_connected
        assert inside.get_public_id() is None


def test_no_hub_in_an_isolated_home() -> None:
    with isolated_home() as home:
        assert list(home.iterdir()) == []
        client = SAMPIntegratedClient("alone")
        with pytest.raises(SAMPHubError, match="No SAMP hub is running"):
            client.connect()


def test_clients_are_disconnected_with_the_hub() -> None:
    """A client that reconnects must not find the user's own hub."""
    with running_hub():
        left = SAMPIntegratedClient("left")
        left.connect(reconnect=True)
    assert not left.is_connected
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samp")]


def test_an_error_closes_the_hub() -> None:
    with pytest.raises(ZeroDivisionError), running_hub() as hub:
        raise ZeroDivisionError
    assert not hub.is_running


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_fork() -> None:
    """A child that leaves the block must not stop its parent's hub, or remove its home directory."""
    with ExitStack() as stack:
        stack.enter_context(running_hub())
        client = stack.enter_context(SAMPIntegratedClient("parent"))
        child = os.fork()
        if child == 0:
            stack.close()  # as an exception in the child would
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert client.ping() == ""
        assert Path(os.environ["HOME"], ".samp").exists()


# The plugin in a pytest of its own


def run_pytest(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in a directory, with the plugin as if it were installed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_pyvo_samp", "-W", "error", "-p", "no:cacheprovider", *options],
        cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip


FAILING = """
import os, threading
from pathlib import Path
from pyvo.samp import SAMPIntegratedClient

seen = []

def test_fails(samp_hub, samp_client):
    seen.append(samp_hub)
    SAMPIntegratedClient("left").connect(reconnect=True)
    samp_client("viewer", ["a.b"]).assert_received("a.b", within=0.05)

def test_raises(samp_hub):
    seen.append(samp_hub)
    raise OSError

def test_forks(samp_hub, samp_client):
    viewer = samp_client("viewer")
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            os.execvp("true", ["true"])
        os.waitpid(child, 0)
    viewer.enotify("viewer", "a.b")
    viewer.assert_received("a.b")

def test_afterwards():
    assert not any(hub.is_running for hub in seen)
    assert not [thread for thread in threading.enumerate() if "samp" in thread.name]
    assert not Path.home().joinpath(".samp").exists()
"""


def test_plugin_in_use(tmp_path: Path) -> None:
    """The hubs are stopped even if tests fail, and a failure shows the line of the test."""
    tmp_path.joinpath("test_it.py").write_text(FAILING)
    done = run_pytest(tmp_path)
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "E       AssertionError: No message a.b arrived within 0.05 s.\n" in done.stdout
    assert "s.\nE       viewer has not received any messages." in done.stdout
    assert "testing.py" not in done.stdout


def test_plugin_not_in_use(tmp_path: Path) -> None:
    """If no test uses the plugin, it imports nothing and causes no warning."""
    tmp_path.joinpath("test_it.py").write_text(
        "import sys\ndef test_it():\n    assert not {'pyvo', 'pyvo.samp'} & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "warning" not in done.stdout
    listed = run_pytest(tmp_path, "--fixtures").stdout
    for name in ("samp_client", "samp_home", "samp_hub", "samp_hub_factory"):
        assert re.search(rf"^{name} -- .*pytest_pyvo_samp\.py:\d+\n    \w", listed, re.MULTILINE), listed


def test_package_does_not_import_pytest() -> None:
    script = "import sys, pyvo.samp, pyvo.samp.testing; sys.exit('pytest' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0
