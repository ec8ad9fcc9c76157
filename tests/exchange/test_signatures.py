# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""What is decided from the signature of a handler that `on` binds."""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Callable
from typing import Any, Optional

import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table

from pyvo.samp import AsyncSAMPClient, SAMPClientError, SAMPHubServer, SAMPIntegratedClient

Connect = Callable[..., SAMPIntegratedClient]
Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


def defaults(url="", table: Table = None, params=None, sender=None, mtype=None, row: int = -1) -> dict[str, Any]:
    """A handler of which nothing need be there."""
    kind, name = type(table).__name__, getattr(sender, "name", None)
    return {"url": url[:5], "table": kind, "params": sorted(params), "sender": name, "mtype": mtype, "row": row}


def test_parameters_with_defaults(pair: Pair, table: Table) -> None:
    """They are filled all the same: with what the message brings, and with what is known of it."""
    alice, bob = pair
    bob.on("table.load.votable")(defaults)
    bob.on("x-test.none")(defaults)
    report = alice.send(table, to="bob", row=3)
    result = next(iter(report.answered.values()))["samp.result"]
    wanted = {"url": "file:", "table": "Table", "sender": "Alice", "mtype": "table.load.votable", "row": "3"}
    assert {**wanted, "params": ["name", "row", "table-id", "url"]} == result
    result = alice.ecall_and_wait("bob", "x-test.none", 10)["samp.result"]
    wanted = {"url": "", "table": "NoneType", "sender": "Alice", "mtype": "x-test.none", "row": "-1"}
    assert {**wanted, "params": []} == result


def test_one_default_for_each_kind(pair: Pair, table: Table, image: CCDData) -> None:
    """Of several that may be missing the one is filled that the message brings."""
    alice, bob = pair
    seen: list[Any] = []

    @bob.on("table.load.votable")
    @bob.on("image.load.fits")
    @bob.on("coord.pointAt.sky")
    def load(table: Table | None = None, image: fits.HDUList = None, position: Optional["SkyCoord"] = None) -> None:  # noqa: UP037, UP045
        seen.append([type(each).__name__ for each in (table, image, position)])

    assert alice.send(table, to="bob").ok
    assert alice.send(image, to="bob").ok
    assert alice.point_at((1, 2), to="bob").ok
    assert seen == [
        ["Table", "NoneType", "NoneType"], ["NoneType", "HDUList", "NoneType"], ["NoneType", "NoneType", "SkyCoord"],
    ]  # fmt: skip


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as most are."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def adding(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that wants something for itself, too."""

    @functools.wraps(function)
    def wrapper(mtype: str, **kwargs: Any) -> Any:
        return f"{mtype} {function(**kwargs)}"

    return wrapper


def replacing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator whose function takes something else than the one within."""

    @functools.wraps(function)
    def wrapper(row: int, sender: Any = None) -> Any:
        return function([row, sender.name])

    return wrapper


class Thing:
    """Methods and calls of all kinds."""

    @passing
    def method(self, row: int, sender: Any = None) -> Any:
        return [row + 1, sender.name]

    @passing
    def __call__(self, row: int) -> Any:
        return row + 1

    @staticmethod
    def static(row: int) -> Any:
        return row + 1

    @classmethod
    def of_class(cls, row: int) -> Any:
        return row + 1


def two(first: str, row: int, *, sender: Any = None) -> Any:
    return [first, row + 1, sender if isinstance(sender, int) else sender.name]


def plain(row: int) -> Any:
    return row + 1


HANDLERS = {
    "wraps": (passing(plain), "2"),
    "wraps twice": (passing(passing(plain)), "2"),
    "adding": (adding(plain), "x-test.a 2"),
    "adding around wraps": (adding(passing(plain)), "x-test.a 2"),
    "replacing": (replacing(lambda both: both), ["1", "Alice"]),
    "cache": (functools.lru_cache(plain), "2"),
    "partial": (functools.partial(two, "x"), ["x", "2", "Alice"]),
    "partial, fixed": (functools.partial(two, "x", sender=7), ["x", "2", "7"]),
    "partial of wraps": (functools.partial(passing(two), "x"), ["x", "2", "Alice"]),
    "partial of an object": (functools.partial(Thing()), "2"),
    "method": (Thing().method, ["2", "Alice"]),
    "object": (Thing(), "2"),
    "static method": (Thing.static, "2"),
    "class method": (Thing.of_class, "2"),
    "anything": (lambda *args, **kwargs: sorted(kwargs), ["more", "row"]),
    "keyword-only": (lambda *, row=None, mtype="": [row, mtype], ["1", "x-test.a"]),
}


@pytest.mark.parametrize("name", HANDLERS)
def test_signatures(pair: Pair, name: str) -> None:
    """A handler is given what it can be called with, whatever it is made of, decoded by its annotations."""
    alice, bob = pair
    handler, result = HANDLERS[name]
    bob.on("x-test.a")(handler)
    response = alice.ecall_and_wait("bob", "x-test.a", 10, row=1, more="m")
    assert response == {"samp.status": "samp.ok", "samp.result": {"value": result}}


def test_a_class_as_handler(pair: Pair) -> None:
    """What it is made of is decoded, too."""
    alice, bob = pair
    made: list[Any] = []

    class Event:
        def __init__(self, row: int, mtype: str = "") -> None:
            made.append((row, mtype))

        icrs = SkyCoord(1, 2, unit="deg")

    bob.on("x-test.a")(Event)
    alice.ecall_and_wait("bob", "x-test.a", 10, row=1)
    assert made == [(1, "x-test.a")]


async def is_async(row: int) -> int:
    return row + 1


class AsyncThing:
    """An object to call that has to be awaited."""

    async def __call__(self, row: int) -> int:
        return row + 1


ASYNC = {
    "function": is_async, "object": AsyncThing(), "method": AsyncThing().__call__,
    "partial": functools.partial(is_async), "partial of an object": functools.partial(AsyncThing()),
}  # fmt: skip


@pytest.mark.parametrize("name", ASYNC)
def test_coroutine_functions_are_refused(pair: Pair, table: Table, name: str) -> None:
    """Nothing would await them: that is said when they are bound."""
    alice, bob = pair
    binds: list[Callable[[Any], object]] = [
        bob.on("x-test.a"),
        lambda handler: bob.bind_receive_call("x-test.a", handler),
        lambda handler: bob.bind_receive_notification("x-test.a", handler),
        lambda handler: bob.bind_receive_response("tag", handler),
    ]
    bob.on("table.load.votable")(lambda url: None)
    with alice.link(table, to="bob") as link:
        for bind in (*binds, link.on_select, link.on_highlight):
            with pytest.raises(SAMPClientError, match=r"is a coroutine function: AsyncSAMPClient\.on"):
                bind(ASYNC[name])


def test_a_hidden_coroutine_function(pair: Pair) -> None:
    """One that a decorator hides is found when it is called; its sender is told."""
    alice, bob = pair
    bob.on("x-test.a")(passing(is_async))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        response = alice.ecall_and_wait("bob", "x-test.a", 10, row=1)
    assert "is_async is a coroutine function" in response["samp.error"]["samp.errortxt"]


@pytest.mark.parametrize("name", [*ASYNC, "decorated"])
def test_coroutine_functions_with_asyncio(hub: SAMPHubServer, connect: Connect, name: str) -> None:
    alice = connect("Alice")

    async def main() -> Any:
        async with AsyncSAMPClient(name="Bob") as bob:
            bob.on("x-test.a")(passing(is_async) if name == "decorated" else ASYNC[name])
            return await asyncio.to_thread(alice.ecall_and_wait, "bob", "x-test.a", 10, row=1)

    assert asyncio.run(main())["samp.result"] == {"value": "2"}


def test_context_goes_before_parameters(pair: Pair) -> None:
    """A message cannot name another sender: its parameters with the names of the context are in ``params``."""
    alice, bob = pair

    @bob.on("x-test.context")
    def handler(sender, mtype, params, row: int) -> dict[str, Any]:
        return {"sender": sender.name, "mtype": mtype, "params": params, "row": row}

    @bob.on("x-test.rest")
    def rest(**kwargs: Any) -> dict[str, Any]:
        return kwargs

    given = {"sender": "Eve", "mtype": "other", "params": "none", "row": "7"}
    wanted = {"sender": "Alice", "mtype": "x-test.context", "params": given, "row": "7"}
    for mtype, result in (("x-test.context", wanted), ("x-test.rest", given)):
        response = alice.call_and_wait("bob", {"samp.mtype": mtype, "samp.params": given}, 10)
        assert response["samp.result"] == result
