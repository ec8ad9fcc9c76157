# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Timeouts have the same meaning in all methods that wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from astropy.table import Table

from pyvo.samp import AsyncSAMPClient, SAMPHubServer, SAMPIntegratedClient, SAMPTimeoutError, SAMPValueError
from pyvo.samp.exchange.reports import SendReport, SendResult
from pyvo.samp.protocol.timeouts import Deadline

Pair = tuple[SAMPIntegratedClient, SAMPIntegratedClient]


def test_deadlines() -> None:
    assert Deadline(0).remaining is None
    assert Deadline("0").remaining is None
    assert Deadline(-1).remaining == 0
    assert 0 < (Deadline("20.5").remaining or 0) <= 20.5


@pytest.mark.parametrize("timeout", [None, "soon", math.nan, math.inf, []])
def test_invalid_timeouts(pair: Pair, table: Table, timeout: Any) -> None:
    """An invalid timeout is an error before anything is sent. The error says what a timeout is."""
    alice, bob = pair
    with bob.incoming("table.load.*") as queue:
        for call in (lambda: alice.send(table, timeout=timeout), lambda: alice.receive("x-test.a", timeout),
                     lambda: alice.wait_for("carol", timeout), lambda: alice.link(table, timeout=timeout)):
            with pytest.raises(SAMPValueError, match="number of seconds"):
                call()
        assert len(queue) == 0


@pytest.mark.parametrize("timeout", [-1, "-0.5"])
def test_negative_timeouts(pair: Pair, timeout: Any) -> None:
    """A negative timeout ends immediately; it does not mean that there is no limit."""
    alice, _ = pair
    with pytest.raises(SAMPTimeoutError):
        alice.receive("x-test.a", timeout)
    with pytest.raises(SAMPTimeoutError):
        alice.wait_for("carol", timeout)
    report = SendReport("table", "x", [SendResult("c1", "Carol", "x-test.a")])
    start = time.monotonic()
    assert report.wait(timeout).waiting
    assert time.monotonic() - start < 10


def test_timeouts_given_as_texts(pair: Pair, table: Table) -> None:
    """A timeout may be a string, as in the methods of `astropy.samp`."""
    alice, bob = pair
    with bob.incoming("table.load.*") as queue:
        assert alice.send(table, timeout="20").ok
        assert len(queue.get("20")) == 3
        with pytest.raises(SAMPTimeoutError, match=r"within 0\.1 s"):
            queue.get("0.1")
    assert alice.wait_for("bob", "20").name == "Bob"


def test_timeouts_with_asyncio(hub: SAMPHubServer, connect: Callable[..., SAMPIntegratedClient]) -> None:
    async def main() -> None:
        async with AsyncSAMPClient(name="Alice") as client:
            with pytest.raises(SAMPTimeoutError):
                await client.receive("x-test.a", -1)
            with pytest.raises(SAMPTimeoutError):
                await client.receive("x-test.a", "0.1")
            with pytest.raises(SAMPValueError):
                await client.receive("x-test.a", "soon")

    asyncio.run(main())
