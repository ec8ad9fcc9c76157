# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""How `on` uses the signature of a handler."""

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
    """A handler whose parameters all have defaults."""
    kind, name = type(table).__name__, getattr(sender, "name", None)
    return {"url": url[:5], "table": kind, "params": sorted(params), "sender": name, "mtype": mtype, "row": row}


def test_parameters_with_defaults(pair: Pair, table: Table) -> None:
    """Parameters with defaults get the values of the message and its context, if there are any."""
    alice, bob = pair
    bob.on("table.load.votable")(defaults)
    bob.on("x-test.none")(defaults)
    report = alice.send(table, to="bob", row=3)
    result = next(iter(report.answered.values()))["samp.result"]
    expected = {"url": "file:", "table": "Table", "sender": "Alice", "mtype": "table.load.votable", "row": "3"}
    assert {**expected, "params": ["name", "row", "table-id", "url"]} == result
    result = alice.ecall_and_wait("bob", "x-test.none", 10)["samp.result"]
    expected = {"url": "", "table": "NoneType", "sender": "Alice", "mtype": "x-test.none", "row": "-1"}
    assert {**expected, "params": []} == result


def test_one_default_for_each_type(pair: Pair, table: Table, image: CCDData) -> None:
    """Of several optional objects, the handler gets the one that the message contains."""
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
    """A decorator that passes all arguments on, like most decorators."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def adding(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that has a parameter of its own, too."""

    @functools.wraps(function)
    def wrapper(mtype: str, **kwargs: Any) -> Any:
        return f"{mtype} {function(**kwargs)}"

    return wrapper


def replacing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator whose function has other parameters than the decorated one."""

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
    """A handler of any kind is called with the arguments that it accepts, decoded by its annotations."""
    alice, bob = pair
    handler, result = HANDLERS[name]
    bob.on("x-test.a")(handler)
    response = alice.ecall_and_wait("bob", "x-test.a", 10, row=1, more="m")
    assert response == {"samp.status": "samp.ok", "samp.result": {"value": result}}


def test_a_class_as_handler(pair: Pair) -> None:
    """A class can be a handler; the parameters of its ``__init__`` are decoded, too."""
    alice, bob = pair
    created: list[Any] = []

    class Event:
        def __init__(self, row: int, mtype: str = "") -> None:
            created.append((row, mtype))

        icrs = SkyCoord(1, 2, unit="deg")

    bob.on("x-test.a")(Event)
    alice.ecall_and_wait("bob", "x-test.a", 10, row=1)
    assert created == [(1, "x-test.a")]


async def is_async(row: int) -> int:
    return row + 1


class AsyncThing:
    """An object whose ``__call__`` is a coroutine function."""

    async def __call__(self, row: int) -> int:
        return row + 1


ASYNC = {
    "function": is_async, "object": AsyncThing(), "method": AsyncThing().__call__,
    "partial": functools.partial(is_async), "partial of an object": functools.partial(AsyncThing()),
}  # fmt: skip


@pytest.mark.parametrize("name", ASYNC)
def test_coroutine_functions_are_rejected(pair: Pair, table: Table, name: str) -> None:
    """Coroutine functions are rejected when they are bound, because nothing would await them."""
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
    """If a decorator hides a coroutine function, the sender of the call gets an error response."""
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


def test_context_has_priority_over_parameters(pair: Pair) -> None:
    """A message cannot name another sender: its parameters with the names of the context are in ``params``."""
    alice, bob = pair

    @bob.on("x-test.context")
    def handler(sender, mtype, params, row: int) -> dict[str, Any]:
        return {"sender": sender.name, "mtype": mtype, "params": params, "row": row}

    @bob.on("x-test.rest")
    def rest(**kwargs: Any) -> dict[str, Any]:
        return kwargs

    given = {"sender": "Eve", "mtype": "other", "params": "none", "row": "7"}
    expected = {"sender": "Alice", "mtype": "x-test.context", "params": given, "row": "7"}
    for mtype, result in (("x-test.context", expected), ("x-test.rest", given)):
        response = alice.call_and_wait("bob", {"samp.mtype": mtype, "samp.params": given}, 10)
        assert response["samp.result"] == result
