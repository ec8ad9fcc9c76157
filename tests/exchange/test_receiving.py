# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`receive`, `incoming` and `on`: the objects that they return, and the responses that the sender gets."""

from __future__ import annotations

import enum
import functools
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable, Table

from pyvo.samp import SAMPClientError, SAMPHubServer, SAMPIntegratedClient, SAMPTimeoutError, SAMPWarning

from .conftest import assert_same

Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, kwargs=kwargs)
    thread.start()
    return thread


def when_subscribed(sender: SAMPIntegratedClient, mtype: str, function: Callable[[], Any]) -> threading.Thread:
    """Call a function in a thread as soon as Bob is subscribed to the MType."""
    return in_thread(lambda: (sender.wait_for("bob", 20, mtype), function()))


# receive and incoming


def test_receive_a_table(pair: Pair, table: Table) -> None:
    alice, bob = pair
    thread = when_subscribed(alice, "table.load.votable", lambda: alice.send(table, to="bob", name="mine"))
    back = bob.receive("table.load.*", timeout=20)
    thread.join()
    assert_same(back, table)
    assert back.meta["TELESCOP"] == "none"
    assert (back.name, back.sender, back.sender.name) == ("mine", alice.get_public_id(), "Alice")
    # the subscription for `receive` was removed
    assert "table.load.*" not in alice.get_subscriptions("bob")


def test_receive_and_disconnect(
    hub: SAMPHubServer, connect: Callable[..., SAMPIntegratedClient], table: Table
) -> None:
    """R23: a client that disconnects as soon as `receive` returns has replied before."""
    sender = connect("sender")

    def work(name: str) -> None:
        with SAMPIntegratedClient(name=name) as receiver:
            receiver.receive("table.load.*", timeout=20)

    for number in range(10):
        name = f"receiver {number}"
        thread = threading.Thread(target=work, args=(name,))
        thread.start()
        sender.wait_for(name, 20, "table.load.votable")
        assert sender.send(table, to=name).ok
        thread.join(10)


def test_receive_times_out(pair: Pair) -> None:
    with pytest.raises(SAMPTimeoutError, match=r"No table\.load\.\* arrived within 0\.1 s"):
        pair[1].receive("table.load.*", timeout=0.1)
    with pytest.raises(TimeoutError):
        pair[1].receive(timeout=0.1)


def test_receive_without_a_connection() -> None:
    with pytest.raises(SAMPClientError, match=r"connect\(\)"):
        SAMPIntegratedClient(name="x").receive(timeout=1)


def test_all_kinds(pair: Pair, table: Table, image: CCDData) -> None:
    """Tables, images and positions are returned as objects; for an unknown MType the parameters are returned."""
    alice, bob = pair
    with bob.incoming("*") as queue:
        for obj, kind in ((table, Table), (image, fits.HDUList), (SkyCoord(10, 20, unit="deg"), SkyCoord)):
            assert alice.send(obj, to="bob").ok
            item = queue.get(10)
            assert isinstance(item, kind)
            assert item.sender.name == "Alice"
        assert item.frame.name == "icrs"
        assert (item.ra.deg, item.dec.deg) == pytest.approx((10, 20))
        alice.enotify("bob", "x-mine.thing", a=1, name="it")
        item = queue.get(10)
        assert (item, item.mtype, item.name) == ({"a": "1", "name": "it"}, "x-mine.thing", "it")
        assert alice.ecall_and_wait("bob", "x-mine.thing", 10)["samp.status"] == "samp.ok"


def test_images_are_complete(pair: Pair, image: CCDData) -> None:
    """An image can be used after the sender's file was removed."""
    alice, bob = pair
    with bob.incoming("image.load.fits") as queue:
        assert alice.send(image).ok
        hdus = queue.get(10)
    assert alice._exchange.file_server.files == []
    assert hdus[0].data.tolist() == image.data.tolist()
    assert hdus[0].header["CRVAL2"] == 20


def test_a_queue_keeps_the_order(pair: Pair, table: Table) -> None:
    """Objects that arrive while the program is busy stay in the queue, in their order."""
    alice, bob = pair
    queue = bob.incoming("table.load.*", "image.load.fits")
    for number in range(5):
        assert alice.send(table, name=str(number)).ok
    assert len(queue) == 5
    in_thread(bob.disconnect).join()
    assert [item.name for item in queue] == ["0", "1", "2", "3", "4"]  # and then the loop ends
    with pytest.raises(SAMPClientError, match="disconnected"):
        queue.get(1)


def test_a_queue_that_is_no_longer_used(pair: Pair, table: Table) -> None:
    """Leaving a loop closes its queue: later messages go to the handlers, and the subscription is removed."""
    alice, bob = pair
    seen: list[str] = []

    @bob.on("table.load.votable")
    def load(name: str) -> None:
        seen.append(name)

    thread = when_subscribed(alice, "table.load.fits", lambda: alice.send(table, name="first"))
    for item in bob.incoming("table.load.*"):
        assert item.name == "first"
        break
    thread.join()
    assert alice.send(table, name="second").ok
    assert seen == ["second"]
    while "table.load.*" in alice.get_subscriptions("bob"):  # each call is a request, and paces the loop
        continue
    queue = bob.incoming("x-test.a")
    bob.disconnect()
    del queue  # the queue of a client that is not connected
    bob.connect()
    while "x-test.a" in alice.get_subscriptions("bob"):
        bob.declare_subscriptions()


def test_an_acknowledged_table_is_not_lost(pair: Pair, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply is sent just before the queue has the table: it is returned even if the client disconnects then."""
    alice, bob = pair
    queue = bob.incoming("table.load.*")
    replied, go_on = threading.Event(), threading.Event()
    original_reply = bob.client._reply

    def slow_reply(*args: Any) -> None:
        original_reply(*args)
        replied.set()
        assert go_on.wait(10)

    monkeypatch.setattr(bob.client, "_reply", slow_reply)
    assert alice.send(table, to="bob").ok
    assert replied.wait(10)
    assert len(queue) == 1
    disconnecting = in_thread(bob.disconnect)
    items: list[Any] = []
    got = in_thread(lambda: items.append(queue.get(10)))
    go_on.set()
    disconnecting.join()
    got.join()
    assert [len(item) for item in items] == [len(table)]
    with pytest.raises(SAMPClientError, match="disconnected"):
        queue.get(1)


def test_the_same_table_id_again(pair: Pair, table: Table) -> None:
    """A table replaces an earlier table with the same table-id that is still in the queue."""
    alice, bob = pair
    with bob.incoming("table.load.*") as queue:
        for name in ("first", "second"):
            assert alice.send(table, name=name, table_id="one").ok
        assert alice.send(table, name="other").ok
        assert [queue.get(5).name for _ in range(2)] == ["second", "other"]


def test_a_full_queue(pair: Pair, table: Table) -> None:
    alice, bob = pair
    with bob.incoming("table.load.*", limit=2) as queue:
        for _ in range(2):
            assert alice.send(table).ok
        with pytest.warns(SAMPWarning, match="The queue is full"):
            alice.send(table)
        queue.get(5)
        assert alice.send(table).ok


def test_tables_that_cannot_be_read(pair: Pair, table: Table, tmp_path: Path) -> None:
    """The sender gets an error response. The recipient gets a warning and waits for the next message."""
    alice, bob = pair
    broken = tmp_path / "broken.vot"
    broken.write_text("<VOTABLE>")
    with bob.incoming("table.load.*", "coord.pointAt.sky") as queue:
        for params in ({"url": broken.as_uri()}, {"url": "file:///nowhere/x.vot"}, {}, {"url": "ftp://x/y"},
                       {"url": "http://127.0.0.1:9/x"}, {"url": ["a"]}):
            response = alice.ecall_and_wait("bob", "table.load.votable", 10, **params)
            assert response["samp.status"] == "samp.error", params
        response = alice.ecall_and_wait("bob", "coord.pointAt.sky", 10, ra="x", dec="1")
        assert "is not a SAMP float" in response["samp.error"]["samp.errortxt"]
        assert alice.send(table).ok
        with pytest.warns(SAMPWarning, match=r"(votable|sky) from .*: (What|There|The|Only|http|'x')") as caught:
            assert queue.get(5).name == "Small"
        assert len(caught) == 7


@pytest.mark.parametrize(
    "url", ["http://[bad", "http://127.0.0.1:0/x", f"file:///{'x' * 5000}", "file:///a%00b", "data:,x"]
)
def test_urls_that_cannot_be_read(pair: Pair, table: Table, url: str) -> None:
    """The sender gets an error response, and the place in the queue is free again."""
    alice, bob = pair
    with bob.incoming("table.load.votable", limit=1) as queue:
        reply = alice.ecall_and_wait("bob", "table.load.votable", 10, url=url)
        assert reply["samp.status"] == "samp.error"
        with pytest.warns(SAMPWarning):
            assert queue.get_nowait() is None
        assert alice.send(table, to="bob").ok
        assert_same(queue.get(10), table)


def test_all_forms_of_file_urls(pair: Pair, table: Table, tmp_path: Path) -> None:
    """File URLs are read in all forms that programs write, including blanks and percent signs."""
    alice, bob = pair
    path = tmp_path / "a b%20#é.vot"
    from pyvo.samp.formats.votable_writer import write_votable

    with path.open("wb") as file:
        write_votable(table, file)
    uri = path.as_uri()
    with bob.incoming("table.load.*") as queue:
        for url in (uri, uri.replace("file://", "file:"), uri.replace("file://", "file://localhost"),
                    uri.replace("file://", "file://localhost/")):
            response = alice.ecall_and_wait("bob", "table.load.votable", 10, url=url)
            assert response["samp.status"] == "samp.ok", url
            assert_same(queue.get(5), table)


def test_http_urls(pair: Pair, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is fetched to a copy, which is removed. For a server on this machine no proxy is used."""
    alice, bob = pair
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    table.write(tmp_path / "t.fits")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = in_thread(server.serve_forever)
    try:
        with bob.incoming("table.load.*") as queue:
            for name, status in (("t.fits", "samp.ok"), ("missing.fits", "samp.error")):
                url = f"http://127.0.0.1:{server.server_port}/{name}"
                response = alice.ecall_and_wait("bob", "table.load.fits", 10, url=url)
                assert response["samp.status"] == status
            assert len(queue.get(5)) == 3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_queue_has_priority_over_handlers(pair: Pair) -> None:
    """An open queue receives messages in place of the handlers. After it is closed, the handlers receive them again."""
    alice, bob = pair
    handled: list[Any] = []

    @bob.on("x-test.a")
    def handle(value) -> None:
        handled.append(value)

    assert alice.ecall_and_wait("bob", "x-test.a", 10, value="1")["samp.status"] == "samp.ok"
    with bob.incoming("x-test.*") as queue:
        alice.ecall_and_wait("bob", "x-test.a", 10, value="2")
        assert queue.get(5) == {"value": "2"}
    alice.ecall_and_wait("bob", "x-test.a", 10, value="3")
    assert handled == ["1", "3"]


def test_a_queue_with_a_total(pair: Pair) -> None:
    """A queue for one message is closed after the first one; later messages go to the handlers."""
    alice, bob = pair
    handled: list[Any] = []

    @bob.on("x-test.a")
    def handle(value) -> None:
        handled.append(value)

    def send() -> None:
        alice.wait_for("bob", 10, "x-other.b")
        for value in "12":
            alice.ecall_and_wait("bob", "x-test.a", 10, value=value)

    with bob.incoming("x-other.b"):  # the other thread waits for this subscription
        ready = threading.Event()
        thread = in_thread(lambda: (ready.wait(10), send()))
        from pyvo.samp.exchange.incoming import Incoming

        with Incoming(bob._exchange, ("x-test.a",), 1, 1) as queue:
            ready.set()
            assert queue.get(10) == {"value": "1"}
            thread.join()
    assert handled == ["2"]


def test_a_wildcard_excludes_pings_and_events(pair: Pair) -> None:
    """``"*"`` does not match pings and the events of the hub."""
    alice, bob = pair
    with bob.incoming("*") as queue:
        assert alice.ecall_and_wait("bob", "samp.app.ping", 10)["samp.status"] == "samp.ok"
        alice.declare_metadata({"a": "b"})
        alice.enotify("bob", "x-test.last")
        assert queue.get(5).mtype == "x-test.last"
    with pytest.raises(SAMPClientError, match="No MTypes are given"):
        bob.incoming()


def test_closing_from_another_thread(pair: Pair) -> None:
    queue = pair[1].incoming("x-test.a")
    in_thread(queue.close)
    assert list(queue) == []
    queue.close()


def test_receive_in_a_handler(pair: Pair, table: Table) -> None:
    """A handler that calls `receive` does not block the message that it waits for."""
    alice, bob = pair
    got: list[Any] = []

    @bob.on("x-test.go")
    def go() -> None:
        got.append(bob.receive("table.load.*", timeout=10))

    calling = in_thread(alice.ecall_and_wait, "bob", "x-test.go", 20)
    alice.wait_for("bob", 10, "table.load.votable")
    assert alice.send(table).ok
    calling.join()
    assert_same(got[0], table)


# on


def test_parameters_by_name(pair: Pair) -> None:
    """Parameters are passed by name and decoded by their annotations, with the context of the message (R3)."""
    alice, bob = pair
    seen: dict[str, Any] = {}

    @bob.on("x-test.many")
    def many(
        table_id, row: int, ra: float, on: bool, rows: list[int], values: np.ndarray, whole: np.ndarray, sender, mtype,
        maybe: int | None = None, absent: str = "nothing", *, either: int | str, **others: Any,
    ) -> dict[str, Any]:
        seen.update(locals())
        return {"sum": row + len(rows)}

    response = alice.ecall_and_wait(
        "bob", "x-test.many", 10, row=3, ra=1.5, on=True, rows=[1, 2], values=["1.5", "2"], whole=[1, 2], either="x",
        maybe="7", extra="e", **{"table-id": "t", "and-more": "m"},
    )
    assert response == {"samp.status": "samp.ok", "samp.result": {"sum": "5"}}
    assert (seen["table_id"], seen["row"], seen["ra"], seen["on"], seen["rows"]) == ("t", 3, 1.5, True, [1, 2])
    assert (seen["values"].dtype.kind, seen["values"].tolist()) == ("f", [1.5, 2])
    assert (seen["whole"].dtype.kind, seen["whole"].tolist()) == ("i", [1, 2])
    assert (seen["maybe"], seen["absent"], seen["either"]) == (7, "nothing", "x")
    assert seen["others"] == {"extra": "e", "and_more": "m"}
    assert (seen["sender"].name, seen["mtype"]) == ("Alice", "x-test.many")


@pytest.mark.parametrize(
    ("params", "text"),
    [({}, "has no parameter 'row'"), ({"row": "x"}, "'row': 'x' is not a SAMP int"), ({"row": ["1"]}, "not a list")],
)
def test_parameters_that_do_not_match_the_annotations(pair: Pair, params: dict[str, Any], text: str) -> None:
    alice, bob = pair
    bob.on("x-test.row")(expect_row)
    response = alice.ecall_and_wait("bob", "x-test.row", 10, **params)
    assert text in response["samp.error"]["samp.errortxt"]


def expect_row(row: int) -> None:
    raise AssertionError("the handler must not be called")


def test_results_and_errors(pair: Pair) -> None:
    """The return value of a handler is the result, its exception the error; the function itself is not changed."""
    alice, bob = pair

    @bob.on("x-test.a")
    @bob.on("x-test.b")
    def handle(what) -> Any:
        return {"map": {"a": 1}, "number": 2.5, "nothing": None, "position": SkyCoord(1, 2, unit="deg")}[what]

    def call(what: str, mtype: str = "x-test.a") -> Any:
        return alice.ecall_and_wait("bob", mtype, 10, what=what)

    assert call("map")["samp.result"] == {"a": "1"}
    assert call("number", "x-test.b")["samp.result"] == {"value": "2.5"}
    assert call("nothing")["samp.result"] == {}
    assert [float(call("position")["samp.result"][key]) for key in ("ra", "dec")] == pytest.approx([1, 2])
    assert call("x")["samp.error"]["samp.errortxt"] == "KeyError: 'x'"
    assert handle("number") == 2.5


def test_old_names_in_annotations(pair: Pair) -> None:
    """``Picture`` and ``Received``, which may be imported for type checkers only, still stand for the new classes."""
    alice, bob = pair
    seen: list[Any] = []

    @bob.on("x-test.a")
    def load(what: "Picture | Received", row: int) -> None:  # type: ignore[name-defined]  # noqa: F821, UP037
        seen.append((type(what).__name__, row))

    assert alice.ecall_and_wait("bob", "x-test.a", 10, url="file:///x", row=2)["samp.status"] == "samp.ok"
    assert seen == [("MessageParams", 2)]


def test_objects_by_annotation(pair: Pair, table: Table, image: CCDData) -> None:
    alice, bob = pair
    seen: list[Any] = []

    @bob.on("table.load.*")
    def load(catalogue: Table, name: str, sender) -> None:
        seen.append((catalogue, name, sender.name))

    @bob.on("image.load.fits")
    def show(hdus: fits.HDUList) -> None:
        seen.append(hdus)

    @bob.on("coord.pointAt.sky")
    def point(position: SkyCoord, dec: float) -> None:
        seen.append((position, dec))

    assert alice.send(table).ok
    assert alice.send(image).ok
    assert alice.point_at((10, 20)).ok
    assert_same(seen[0][0], table)
    assert seen[0][1:] == ("Small", "Alice")
    assert seen[1][0].data.shape == (3, 4)
    assert (seen[2][0].ra.deg, seen[2][1]) == (10, 20)


class Color(enum.Enum):
    """An enumeration for annotations."""

    RED = "red"
    TWO = 2


def test_values_of_all_kinds(pair: Pair) -> None:
    """Maps, tuples and members of an Enum are decoded, even if another annotation cannot be resolved at run time."""
    alice, bob = pair
    seen: dict[str, Any] = {}

    @bob.on("x-test.many")
    def many(
        numbers: dict[str, int], pair: tuple[int, float], row: tuple[int, ...], color: Color, two: Color,
        unknown: Unheard = None, maybe: Optional[dict[str, float]] = None,  # noqa: F821, UP045
    ) -> None:  # fmt: skip
        seen.update(locals())

    response = alice.ecall_and_wait(
        "bob", "x-test.many", 10, numbers={"a": 1}, pair=[1, "2.5"], row=[1, 2], color="red", two=2, maybe={"x": 1.5}
    )
    assert response["samp.status"] == "samp.ok", response
    assert (seen["numbers"], seen["pair"], seen["row"]) == ({"a": 1}, (1, 2.5), (1, 2))
    assert (seen["color"], seen["two"], seen["maybe"]) == (Color.RED, Color.TWO, {"x": 1.5})
    good = {"numbers": {}, "pair": [1, 2], "row": [], "color": "red", "two": "2"}
    for bad, text in (
        ({"numbers": "1"}, "'numbers': expected a map, not a str"), ({"numbers": {"a": "x"}}, "'numbers': 'x' is not"),
        ({"pair": [1]}, "expected 2 items, not 1"), ({"color": "blue"}, "'blue' is not one of red, 2"),
    ):  # fmt: skip
        response = alice.ecall_and_wait("bob", "x-test.many", 10, **{**good, **bad})
        assert text in response["samp.error"]["samp.errortxt"]


def test_objects_that_may_be_missing(pair: Pair, table: Table) -> None:
    """An annotation may allow several types, or None. A QTable is passed if the annotation requires it."""
    alice, bob = pair
    seen: list[Any] = []

    @bob.on("table.load.votable")
    def load(a: Table | None, b: Optional[Table], c: QTable, d: QTable | Table | None = None) -> None:  # noqa: UP045
        seen.extend((a, b, c, d))

    @bob.on("x-test.none")
    def none(a: Table | None, b: Optional[SkyCoord], c: Table = "default") -> None:  # noqa: UP045
        seen.extend((a, b, c))

    @bob.on("coord.pointAt.sky")
    def point(position: SkyCoord) -> None:
        raise AssertionError("the handler must not be called")

    @bob.on("x-test.table")
    def need(table: Table) -> None:
        raise AssertionError("the handler must not be called")

    assert alice.send(table, to="bob").ok
    assert [type(each) for each in seen] == [Table, Table, QTable, Table]
    assert isinstance(seen[2]["ra"], u.Quantity)
    assert seen[2].sender.name == "Alice"
    seen.clear()
    assert alice.ecall_and_wait("bob", "x-test.none", 10)["samp.status"] == "samp.ok"
    assert seen == [None, None, "default"]
    for mtype, params, text in (
        ("coord.pointAt.sky", {}, "no parameter 'ra' and 'dec', which the argument 'position' requires"),
        ("coord.pointAt.sky", {"ra": "1"}, "has no dec"),
        ("coord.pointAt.sky", {"ra": "x", "dec": "1"}, "position's ra"),
        ("x-test.table", {}, "no parameter 'url', which the argument 'table' requires"),
    ):  # fmt: skip
        assert text in alice.ecall_and_wait("bob", mtype, 10, **params)["samp.error"]["samp.errortxt"]


def test_methods_partials_and_objects(pair: Pair) -> None:
    alice, bob = pair

    class Thing:
        def method(self, row: int) -> int:
            return row + 1

        def __call__(self, row: int) -> int:
            return row + 2

    thing = Thing()
    bob.on("x-test.method")(thing.method)
    bob.on("x-test.object")(thing)
    bob.on("x-test.partial")(functools.partial(thing.method))
    for mtype, value in (("method", "2"), ("object", "3"), ("partial", "2")):
        assert alice.ecall_and_wait("bob", f"x-test.{mtype}", 10, row=1)["samp.result"] == {"value": value}


def test_invalid_handlers(pair: Pair) -> None:
    for bad in (3, lambda *args: None, eval("lambda x, /: None"), dict.fromkeys, max):
        with pytest.raises(SAMPClientError):
            pair[1].on("x-test.a")(bad)
    with pytest.raises(ValueError, match="x-test"):
        pair[1].on("x-test.*.b")(lambda: None)


def test_notifications(pair: Pair) -> None:
    alice, bob = pair
    seen: list[int] = []
    done = threading.Event()

    @bob.on("x-test.a")
    def handle(row: int) -> None:
        seen.append(row)
        done.set()

    alice.enotify("bob", "x-test.a", row=4)
    assert done.wait(5)
    assert seen == [4]


def test_before_connecting(hub: SAMPHubServer, pair: Pair) -> None:
    """Handlers may be bound before the client is connected."""
    carol = SAMPIntegratedClient(name="Carol")
    carol.on("x-test.a")(lambda row: {"row": row})
    with carol:
        assert pair[0].ecall_and_wait("carol", "x-test.a", 10, row=1)["samp.result"] == {"row": "1"}
