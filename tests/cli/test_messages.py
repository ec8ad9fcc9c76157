"""``samp list``, ``notify``, ``call``, ``point``, ``snoop``."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, cast

import pytest

from pyvo.samp import SAMPHubServer, SAMPIntegratedClient
from pyvo.samp.cli import snoop
from pyvo.samp.cli.client_session import NameCache
from pyvo.samp.testing import RecordingClient
from tests.process.programs import Program

from .conftest import Done

Samp = Callable[..., Done]
Make = Callable[..., RecordingClient]


def test_list(samp: Samp, viewer: Make) -> None:
    """`samp list` shows clients and their subscriptions."""
    one, _two = viewer("One", "table.load.votable", "a.*"), viewer("Two", "b.c")
    done = samp("list")
    assert done.status == 0
    assert [line.split() for line in done.out.splitlines()] == [
        ["ID", "NAME", "SUBSCRIPTIONS"],
        ["c1", "One", "a.*,", "table.load.votable"],
        ["c2", "Two", "b.c"],
    ]
    details = samp("list", "-v").out
    assert "samp.description.text  A viewer" in details
    assert "subscribed to samp.app.ping" in details
    entries = {entry["id"]: entry for entry in json.loads(samp("list", "--json").out)}
    assert set(entries) == {"hub", "c1", "c2"}
    assert entries[str(one.get_public_id())]["name"] == "One"
    assert "a.*" in entries["c1"]["subscriptions"]


@pytest.mark.parametrize(
    ("mtype", "names"),
    [("a.b.c", ["One"]), ("a.*", ["One"]), ("table.load.votable", ["One"]), ("table.*", ["One"]), ("b.c", ["Two"])],
)
def test_list_by_mtype(samp: Samp, viewer: Make, mtype: str, names: list[str]) -> None:
    viewer("One", "table.load.votable", "a.*")
    viewer("Two", "b.c")
    assert [entry["name"] for entry in json.loads(samp("list", "--json", "--mtype", mtype).out)] == names


def test_empty_lists(samp: Samp, hub: SAMPHubServer) -> None:
    done = samp("list")
    assert done.status == 4
    assert done.out.startswith("No client is connected (hub at http://127.0.0.1:")
    assert samp("list", "--mtype", "a.b").out.startswith("No client is subscribed to a.b")


# Notify


def test_notify(samp: Samp, viewer: Make) -> None:
    """Messages to all and to some clients, with all kinds of parameters (R4)."""
    one, two = viewer("One", "a.b"), viewer("Two", "a.*")
    done = samp("notify", "a.b", "text=x=y", "empty=", "rows:=[1, 2.5, true]", 'map:={"k": "v"}')
    assert done.status == 0
    assert sorted(done.out.strip().removeprefix("Notified ").split(", ")) == ["One (c1)", "Two (c2)"]
    params = {"text": "x=y", "empty": "", "rows": ["1", "2.5", "1"], "map": {"k": "v"}}
    assert one.assert_received("a.b").params == two.assert_received("a.b").params == params
    done = samp("notify", "a.b", "--to", "two", "key=value", "--json")
    assert json.loads(done.out) == {"mtype": "a.b", "recipients": [{"id": "c2", "name": "Two"}]}
    assert two.assert_received("a.b").params == {"key": "value"}
    one.assert_not_received("a.b")


def test_no_recipient(samp: Samp, viewer: Make) -> None:
    viewer("One", "a.b")
    assert samp("notify", "x.y") == (4, "", "samp: No client is subscribed to x.y.\n")
    done = samp("notify", "a.b", "--to", "Three")
    assert (done.status, done.out) == (4, "")
    assert "No client has the id or name 'Three'. Connected: Hub (hub), One (c1)." in done.err
    done = samp("notify", "x.y", "--to", "one")
    assert (done.status, done.out) == (4, "")
    assert done.err.startswith("samp: One (c1) is not subscribed to x.y.")
    assert samp("notify", "samp.hub.event.shutdown").status == 1


def test_ambiguous_name(samp: Samp, viewer: Make) -> None:
    viewer("Twin", "a.b")
    viewer("twin", "a.b")
    done = samp("notify", "a.b", "--to", "TWIN")
    assert done.status == 2
    assert "use an id: c1, c2" in done.err


def test_parts_of_names(samp: Samp, viewer: Make) -> None:
    """DS9's name is SAOImageDS9. A whole name has priority; a part must belong to one client."""
    viewer("SAOImageDS9", "a.b")
    viewer("Twin 1", "a.b")
    viewer("Twin 2", "a.b")
    viewer("Twin", "a.b")
    assert samp("notify", "a.b", "--to", "ds9").out == "Notified SAOImageDS9 (c1)\n"
    assert samp("notify", "a.b", "--to", "twin").out == "Notified Twin (c4)\n"
    done = samp("notify", "a.b", "--to", "win")
    assert done.status == 2
    assert "'win' matches Twin, Twin 1, Twin 2; use an id: c2, c3, c4" in done.err
    assert samp("notify", "a.b", "--to", "").status == 4


# Call


def test_call(samp: Samp, viewer: Make) -> None:
    viewer("One", "a.b")
    viewer("Two", "a.b", response={"samp.status": "samp.ok", "samp.result": {}})
    done = samp("call", "a.b")
    assert done.status == 0
    assert sorted(done.out.splitlines()) == ["    value = 42", "One (c1): samp.ok", "Two (c2): samp.ok"]
    done = samp("call", "a.b", "--to", "c1", "--json")
    response = {"id": "c1", "name": "One", "status": "samp.ok", "result": {"value": "42"}}
    assert json.loads(done.out) == {"mtype": "a.b", "responses": [response]}


def test_call_shows_all(samp: Samp, viewer: Make) -> None:
    """Extra keys of a response are shown, too."""
    response = {"samp.status": "samp.ok", "samp.result": {"url": "file:///x"}, "x.more": "y"}
    viewer("One", "a.b", response=response)
    done = samp("call", "a.b")
    assert done.out.splitlines() == ["One (c1): samp.ok", "    url = file:///x", "    x.more = y"]
    (entry,) = json.loads(samp("call", "a.b", "--json").out)["responses"]
    assert entry["x.more"] == "y"
    assert entry["result"] == {"url": "file:///x"}


def test_call_that_fails(samp: Samp, viewer: Make) -> None:
    """Error responses are shown; clients that are not subscribed are an error."""
    viewer("Good", "a.b")
    error = {"samp.errortxt": "disk full", "samp.debugtxt": "stack"}
    viewer("Bad", "a.b", response={"samp.status": "samp.error", "samp.error": error})
    done = samp("call", "a.b")
    assert done.status == 1
    assert "Bad (c2): samp.error\n    samp.errortxt = disk full\n" in done.out
    assert "stack" not in done.out
    done = samp("call", "x.y", "--to", "good")
    assert (done.status, done.out) == (4, "")
    assert done.err.startswith("samp: Good (c1) is not subscribed to x.y.")
    assert samp("call", "x.y").status == 4


def test_call_without_response(samp: Samp, viewer: Make) -> None:
    """Recipients with and without a response are shown."""
    viewer("Good", "a.b")
    viewer("Silent", "a.b", response=None)
    done = samp("call", "a.b", "--timeout", "0.2")
    assert done.status == 5
    assert done.out.splitlines() == ["Good (c1): samp.ok", "    value = 42", "Silent (c2): no response in time"]
    done = samp("call", "a.b", "--timeout", "0.2", "--to", "silent", "--json")
    assert json.loads(done.out)["responses"] == [{"id": "c2", "name": "Silent", "status": None}]


def test_hub_stops_during_a_call(hub: SAMPHubServer, viewer: Make, python_environment: dict[str, str]) -> None:
    """If the hub stops, the wait for a response ends."""
    silent = viewer("Silent", "a.b", response=None)
    with Program(["-m", "pyvo.samp", "call", "a.b", "--timeout", "0"], python_environment) as program:
        silent.assert_received("a.b", within=20)
        hub.stop()
        assert program.wait() in {1, 3}  # the hub responds in place of Silent (R23), or stops before
        assert "Traceback" not in program.output


@pytest.mark.parametrize("names", [["deaf", "good"], ["good", "deaf"]])
def test_some_are_not_subscribed(samp: Samp, viewer: Make, names: list[str]) -> None:
    """If some recipients are not subscribed, the others get the message."""
    good, _deaf = viewer("Good", "a.b"), viewer("Deaf", "x.y")
    to = [word for name in names for word in ("--to", name)]
    done = samp("notify", "a.b", *to)
    assert (done.status, done.out) == (1, "Notified Good (c1)\n")
    assert "c2 (Deaf) is not subscribed to a.b" in done.err
    done = samp("call", "a.b", *to)
    assert done.status == 1
    assert "Good (c1): samp.ok" in done.out
    assert "Deaf (c2): samp.error" in done.out
    assert [good.assert_received("a.b").msg_id is None for _ in range(2)] == [True, False]
    done = samp("call", "c.d", *to)
    assert done.status == 4
    assert done.err.startswith("samp: None of these clients is subscribed to c.d: ")


# Point


def test_point(samp: Samp, viewer: Make) -> None:
    """Positions are sent in degrees without an exponent; a negative declination is not parsed as an option."""
    sky = viewer("Sky", "coord.pointAt.sky")
    assert samp("point", "05:34:31.94", "-05:23:28.1").status == 0
    assert samp("point", "0.00001", "-.5", "--to", "sky").status == 0
    first, second = (sky.assert_received("coord.pointAt.sky").params for _ in range(2))
    assert (float(first["ra"]), float(first["dec"])) == pytest.approx((83.6330833, -5.3911389))
    assert second == {"ra": "0.00001", "dec": "-0.5"}
    assert samp("point", "1", "2", "--to", "missing").status == 4


# Snoop


def test_snoop(hub: SAMPHubServer, start: Callable[..., Program], viewer: Make) -> None:
    """Messages and names are shown, calls get a response, and events about snoop itself are hidden."""
    program = start("snoop", "--color", "never")
    with SAMPIntegratedClient("Sender") as sender:
        snoop = next(one for one in sender.get_registered_clients() if one != "hub")
        sender.enotify_all("a.b", key="value", extra_kws={"more": "1"})
        response = sender.ecall_and_wait(snoop, "c.d", 10)
        assert response["samp.status"] == "samp.warning"
        assert "samp snoop has displayed" in response["samp.error"]["samp.errortxt"]
        assert sender.ecall_and_wait(snoop, "samp.app.ping", 10)["samp.status"] == "samp.ok"
    program.wait_for("samp.hub.event.unregister")
    output = program.output
    name = f"Sender ({snoop.replace('1', '2')})"
    assert f"a.b  notification from {name}\n         key = value\n         more = 1" in output
    assert f"c.d  call from {name}" in output
    assert f"samp.app.ping  call from {name}" in output
    assert f"id = {snoop}" not in output


def test_snoop_for_scripts(hub: SAMPHubServer, start: Callable[..., Program]) -> None:
    """`samp snoop` with a pattern, JSON lines and a count."""
    program = start("snoop", "a.*", "--count", "2", "--json")
    with SAMPIntegratedClient("Sender") as sender:
        sender.enotify_all("a.b", key="caf\n")
        with pytest.warns(Warning, match="No client is subscribed"):
            sender.enotify_all("c.d")
        sender.enotify_all("a.b.c", rows=[1, 2])
    assert program.wait() == 0
    messages = [json.loads(line) for line in program.lines if line.startswith("{")]
    assert [message["mtype"] for message in messages] == ["a.b", "a.b.c"]
    assert messages[0]["params"] == {"key": "caf\n"}
    assert messages[1]["params"] == {"rows": ["1", "2"]}
    assert messages[0]["sender"]["name"] == "Sender"
    assert (messages[0]["kind"], messages[0]["msg-id"]) == ("notification", None)


def test_name_after_the_hub_has_stopped(hub: SAMPHubServer) -> None:
    """A message can be shown after the hub has stopped, such as its shutdown event: the sender is shown by its id."""
    client = SAMPIntegratedClient("Reader")
    client.connect()
    hub.stop()
    assert NameCache(client).client_label("c7") == "c7"
    client.disconnect()


def test_hub_stops(hub: SAMPHubServer, start: Callable[..., Program]) -> None:
    program = start("snoop")
    hub.stop()
    assert program.wait() == 3
    assert program.lines[-1] == "samp: The hub has stopped."


def test_ids_of_the_next_hub(capsys: pytest.CaptureFixture[str]) -> None:
    """Ids of the next hub are looked up again; its first message may arrive before the state "connected"."""
    names = iter(["Before", "After"])

    class Client:
        def get_metadata(self, client_id: str) -> dict[str, str]:
            return {"samp.name": next(names)}

        def get_public_id(self) -> str:
            return "c1"

    events: SimpleQueue[Any] = SimpleQueue()
    item = snoop.ReceivedMessage(dt.datetime.now().astimezone(), "c2", None, "a.b", {}, {})
    for event in (item, "lost", item):
        events.put(event)
    options = argparse.Namespace(count=2, pattern="*", reconnect=True, json=False, color="never")
    snoop._print_messages(cast("SAMPIntegratedClient", Client()), events, options, None)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" from ")[2] for line in lines] == ["Before (c2)", "After (c2)"]


@pytest.mark.slow
def test_next_hub(hub: SAMPHubServer, start: Callable[..., Program]) -> None:
    """With --reconnect the command waits for the next hub."""
    program = start("snoop", "--reconnect")
    hub.stop()
    hub.start()
    with SAMPIntegratedClient("Late") as late:
        assert late.wait_for("samp snoop", 10).name == "samp snoop"
        late.enotify_all("a.b")
        program.wait_for("a.b  notification from Late")
