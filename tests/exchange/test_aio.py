# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""`AsyncSAMPClient`: the client for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from astropy.table import Table

from pyvo.samp import (
    AsyncSAMPClient,
    SAMPClientError,
    SAMPHubError,
    SAMPHubServer,
    SAMPIntegratedClient,
    SAMPProxyError,
    SAMPTimeoutError,
)

from .conftest import assert_same

Connect = Callable[..., SAMPIntegratedClient]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 40)

    asyncio.run(bounded())


def test_awaitable_calls(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    """The methods of the client can be awaited. They raise the same errors as without asyncio."""
    bob = connect("Bob")
    bob.on("x-test.double")(lambda n: {"n": 2 * int(n)})
    seen: list[Table] = []

    @bob.on("table.load.votable")
    def load(table: Table) -> None:
        seen.append(table)

    async def main() -> None:
        async with AsyncSAMPClient(name="Alice") as client:
            assert client.is_connected
            info = await client.wait_for("bob", 10, "x-test.double")
            responses = await asyncio.gather(
                *(client.ecall_and_wait("bob", "x-test.double", 10, n=n) for n in range(20))
            )
            assert [response["samp.result"]["n"] for response in responses] == [str(2 * n) for n in range(20)]
            report = await client.send(table, to=info)
            assert report.ok
            assert [each.name for each in await client.clients()] == ["Bob"]
            with pytest.raises(SAMPProxyError):
                await client.enotify("bob", "x-test.none")
            with pytest.raises(SAMPTimeoutError):
                await client.wait_for("carol", 0.1)
            with pytest.raises(AttributeError):
                client.nonsense  # noqa: B018
            assert client.get_public_id() == client.client.get_public_id()
        assert not client.is_connected
        with pytest.raises(SAMPClientError, match=r"connect\(\)"):
            await client.ping()

    run(main)
    assert_same(seen[0], table)


def test_the_same_msg_id_again(hub: SAMPHubServer) -> None:
    """
    Each call gets one reply, even if an earlier call had the same msg-id, as with JSAMP's hubs (R20, R21).

    Some handlers reply themselves and await the reply in the event loop. For the others the package replies.
    """
    replies: list[str] = []
    client = AsyncSAMPClient(name="Bob")

    @client.on("x-test.function")
    def function(n: str) -> None:
        raise ValueError(n)

    @client.on("x-test.coroutine")
    async def coroutine(n: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"n": n}

    @client.on("x-test.replies")
    async def replies_and_raises(n: str) -> None:
        await client.ereply("m1", "samp.ok", result={})
        raise ValueError("too late")

    started, go = asyncio.Event(), asyncio.Event()

    @client.on("x-test.waits")
    async def wait(n: str) -> None:
        started.set()
        await go.wait()
        raise ValueError(n)

    def record(operation: str, /, **params: Any) -> str:
        response = params["response"]
        replies.append(response.get("samp.error", {}).get("samp.errortxt", response["samp.status"]))
        return ""

    async def main() -> None:
        async with client:
            loop = asyncio.get_running_loop()
            key, original_call = client.get_private_key(), client.client.hub._call
            client.client.hub._call = record  # type: ignore[method-assign]  # the hub did not send these calls

            def deliver(mtype: str) -> asyncio.Future[Any]:
                message = {"samp.mtype": f"x-test.{mtype}", "samp.params": {"n": "1"}}
                return loop.run_in_executor(None, client.client.receive_call, key, "c9", "m1", message)

            try:
                for mtype in ("function", "coroutine", "replies"):
                    for _ in range(2):
                        await deliver(mtype)
                earlier = deliver("waits")
                await started.wait()
                await deliver("replies")
                go.set()
                await earlier
            finally:
                client.client.hub._call = original_call  # type: ignore[method-assign]

    run(main)
    assert replies == ["1"] * 2 + ["samp.ok"] * 4 + ["samp.ok", "1"]


def test_handlers_in_the_event_loop(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    """Functions and coroutine functions run in the event loop; tables are read in another thread."""
    bob = connect("Bob")

    async def main() -> None:
        client = AsyncSAMPClient(name="Alice")
        loop = asyncio.get_running_loop()
        threads: list[Any] = []

        @client.on("x-test.plain")
        def plain(row: int) -> int:
            threads.append(threading.current_thread())
            return row + 1

        @client.on("x-test.slow")
        async def slow(row: int) -> int:
            threads.append(threading.current_thread())
            await asyncio.sleep(0.01)
            if row > 5:
                raise ValueError("too much")
            return row + 2

        @client.on("table.load.votable")
        async def load(table: Table, name) -> dict[str, int]:
            assert asyncio.get_running_loop() is loop
            return {"rows": len(table)}

        async with client:
            def call(mtype: str, row: int) -> Any:
                return bob.ecall_and_wait("alice", mtype, 10, row=row)

            assert (await asyncio.to_thread(call, "x-test.plain", 1))["samp.result"] == {"value": "2"}
            assert (await asyncio.to_thread(call, "x-test.slow", 1))["samp.result"] == {"value": "3"}
            response = await asyncio.to_thread(call, "x-test.slow", 6)
            assert response["samp.error"]["samp.errortxt"] == "too much"
            report = await asyncio.to_thread(bob.send, table, "alice")
            assert next(iter(report.answered.values()))["samp.result"] == {"rows": "3"}
            assert set(threads) == {threading.main_thread()}

    run(main)


def test_receive_and_incoming(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    bob = connect("Bob")

    async def main() -> None:
        async with AsyncSAMPClient(name="Alice") as client:
            waiting = asyncio.create_task(client.receive("table.load.*", 20))
            await asyncio.to_thread(bob.wait_for, "alice", 10, "table.load.votable")
            await asyncio.to_thread(bob.send, table, "alice")
            assert_same(await waiting, table)
            with pytest.raises(SAMPTimeoutError, match=r"No x-test\.a arrived within 0\.1 s"):
                await client.receive("x-test.a", 0.1)

            names = []
            async with client.incoming("table.load.*", "coord.*") as queue:
                for name in "abc":
                    await asyncio.to_thread(bob.send, table, "alice", name)
                async for item in queue:
                    names.append(item.name)
                    if len(names) == 3:
                        break
            assert names == ["a", "b", "c"]

    run(main)


def test_cancelling_a_wait(hub: SAMPHubServer, connect: Connect) -> None:
    """A cancelled wait ends immediately, and its subscription is removed."""
    bob = connect("Bob")

    async def main() -> None:
        async with AsyncSAMPClient(name="Alice") as client:
            receiving = asyncio.create_task(client.receive("x-test.a", 0))
            await asyncio.to_thread(bob.wait_for, "alice", 10, "x-test.a")
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            # Another thread declares the subscriptions, without a wait; each call here is a request, and paces the loop
            while "x-test.a" in await asyncio.to_thread(bob.get_subscriptions, "alice"):
                continue
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.wait_for("carol", 1), 0.05)

    run(main)


@pytest.mark.parametrize("mtype", ["x-test.a", "x-test.*"])
def test_cancelling_before_it_has_started(hub: SAMPHubServer, connect: Connect, mtype: str) -> None:
    """If a wait is cancelled while its queue is created, the queue is closed: later messages go to the handlers."""
    bob = connect("Bob")

    async def main() -> None:
        async with AsyncSAMPClient(name="Alice") as client:
            seen: list[str] = []

            def note(sender: str) -> None:
                seen.append(sender)

            await asyncio.to_thread(client.on("x-test.a"), note)
            queue = client.incoming(mtype)
            for waiting in (client.receive(mtype, 20), anext(queue)):
                task = asyncio.ensure_future(waiting)
                await asyncio.sleep(0)  # the task has started, and waits for the thread that declares the subscriptions
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await queue.aclose()
            await queue.aclose()
            while client.client._exchange.queues:
                await asyncio.sleep(0)
            assert (await asyncio.to_thread(bob.ecall_and_wait, "alice", "x-test.a", 10))["samp.status"] == "samp.ok"
            assert seen == [bob.get_public_id()]

    run(main)


def test_cancelling_connect(hub: SAMPHubServer, connect: Connect) -> None:
    """A client whose connect was cancelled does not stay registered, and may connect again immediately."""
    bob = connect("Bob")

    async def main() -> None:
        for pauses in range(20):  # before connect() has started, while it runs, and when it has just finished
            client = AsyncSAMPClient(name="Alice")
            connecting = asyncio.create_task(client.connect())
            for _ in range(pauses):
                await asyncio.to_thread(bob.ping)
            if connecting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await connecting
            await client.connect()
            assert client.is_connected
            assert await client.get_registered_clients()
            await client.disconnect()
            left = asyncio.create_task(client.connect())
            await asyncio.sleep(0)
            left.cancel()
        while await asyncio.to_thread(lambda: list(bob.clients)):
            await asyncio.to_thread(bob.ping)

    run(main)


def test_leaving_a_loop_closes_its_queue(hub: SAMPHubServer, connect: Connect, table: Table) -> None:
    """A loop over `incoming` that ends with ``break`` removes its subscription, as without asyncio."""
    bob = connect("Bob")

    async def main() -> None:
        async with AsyncSAMPClient(name="Alice") as client:
            sending = asyncio.create_task(asyncio.to_thread(
                lambda: (bob.wait_for("alice", 20, "table.load.votable"), bob.send(table, "alice"))
            ))
            async for item in client.incoming("table.load.*"):
                assert_same(item, table)
                break
            await sending
            while "table.load.*" in await asyncio.to_thread(bob.get_subscriptions, "alice"):
                continue

    run(main)


def test_disconnecting_ends_everything(hub: SAMPHubServer, connect: Connect) -> None:
    """Iterations end, running handlers are cancelled, and their callers get errors."""
    bob = connect("Bob")

    async def main() -> None:
        client = AsyncSAMPClient(name="Alice")
        started = asyncio.Event()

        @client.on("x-test.for-ever")
        async def wait() -> None:
            started.set()
            await asyncio.Event().wait()

        await client.connect()
        items = asyncio.create_task(collect(client))
        response = asyncio.create_task(asyncio.to_thread(bob.ecall_and_wait, "alice", "x-test.for-ever", 20))
        await started.wait()
        await client.disconnect()
        assert await items == []
        assert (await response)["samp.status"] == "samp.error"
        await client.disconnect()

    async def collect(client: AsyncSAMPClient) -> list[Any]:
        return [item async for item in client.incoming("x-test.a")]

    run(main)


def test_no_hub(isolated: object) -> None:
    async def main() -> None:
        client = AsyncSAMPClient(name="Alice")
        with pytest.raises(SAMPHubError):
            await client.connect()
        await client.connect(start_hub=True)
        assert await client.get_registered_clients()
        await client.disconnect()

    run(main)
    with pytest.raises(SAMPClientError, match="dispatch"):
        AsyncSAMPClient(dispatch=print)


def test_ds9_and_aladin(hub: SAMPHubServer, connect: Connect) -> None:
    bob = connect("SAOImageDS9")
    bob.on("ds9.set")(lambda cmd: None)
    bob.on("ds9.get")(lambda cmd: "1.0 2.0")
    bob.on("script.aladin.send")(lambda script: {"script.result": script})

    async def main() -> None:
        async with AsyncSAMPClient(name="Alice") as client:
            await client.ds9("zoom to fit")
            assert await client.ds9_get("version") == "1.0 2.0"
            assert await client.aladin("x") == "x"
            assert (await client.get_position()).ra.deg == 1

    run(main)
