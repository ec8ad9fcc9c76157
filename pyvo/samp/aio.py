# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The client for programs that use asyncio. It is a layer above `SAMPIntegratedClient`.

Blocking methods run in threads, handlers run in the event loop, and `AsyncIncoming` awaits received objects in the
event loop. The underlying client is the attribute ``client``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .client.handlers import in_same_call, is_coroutine_function
from .errors import SAMPClientError, SAMPTimeoutError
from .exchange.typed_handlers import make_typed_handler
from .integrated_client import SAMPIntegratedClient
from .protocol.timeouts import parse_timeout
from .transport.event_loop import WorkerPool

if TYPE_CHECKING:
    from .exchange.client_list import ClientInfo, Clients
    from .exchange.incoming import Incoming

__all__ = ["AsyncIncoming", "AsyncSAMPClient"]


def _set_event(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)


class AsyncIncoming(AsyncIterator[Any]):
    """
    An asynchronous iterator over received objects and messages.

    Parameters
    ----------
    client : AsyncSAMPClient
        The client.
    mtypes : tuple of str
        MTypes or wildcards.
    limit : int
        Maximum number of objects in the queue.
    total : int, optional
        Maximum number of objects that are accepted in total.
    """

    def __init__(self, client: AsyncSAMPClient, mtypes: tuple[str, ...], limit: int, total: int | None) -> None:
        self._client = client
        self._mtypes = mtypes
        self._limit = limit
        self._total = total
        self._has_item = asyncio.Event()
        self._queue: Incoming | None = None
        self._opening: asyncio.Future[Incoming] | None = None

    def __aiter__(self) -> Self:
        return self

    async def open(self) -> Self:
        """Start receiving. The first ``anext`` does this, too."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._client._run(self._open))
        try:  # a task that is cancelled here must not cancel `_open`, or else the queue would stay open
            self._queue = await asyncio.shield(self._opening)
        except Exception:
            self._opening = None
            raise
        return self

    def _open(self) -> Incoming:
        from .exchange.incoming import Incoming  # noqa: PLC0415

        self._client.client.client.require_key()
        queue = Incoming(self._client.client._exchange, self._mtypes, self._limit, self._total)
        loop, has_item = self._client._loop, self._has_item
        assert loop is not None
        queue.on_item = partial(_set_event, loop, has_item)  # without self, so that the queue does not keep it alive
        return queue

    async def __anext__(self) -> Any:
        await self.open()
        queue = self._queue
        assert queue is not None
        while True:
            self._has_item.clear()
            item = queue.get_nowait()
            if item is not None:
                return item
            if queue.ended:
                raise StopAsyncIteration
            await self._has_item.wait()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop receiving. May be called more than once."""
        opening, self._opening, self._queue = self._opening, None, None
        if opening is not None:
            await asyncio.shield(asyncio.ensure_future(self._close(opening)))

    async def _close(self, opening: asyncio.Future[Incoming]) -> None:
        try:
            queue = await opening
        except Exception:  # `open` has raised it
            return
        if self._client._workers is not None:
            await self._client._run(queue.close)


Function = TypeVar("Function", bound=Callable[..., Any])

#: Methods of `SAMPIntegratedClient` that wait for the hub or for other clients and are therefore coroutines here.
_WAITING_METHODS = frozenset({
    "ping", "declare_metadata", "declare_subscriptions", "get_metadata", "get_subscriptions", "get_registered_clients",
    "get_subscribed_clients", "notify", "notify_all", "call", "call_all", "call_and_wait", "reply", "enotify",
    "enotify_all", "ecall", "ecall_all", "ecall_and_wait", "ereply", "bind_receive_message", "bind_receive_call",
    "bind_receive_notification", "bind_receive_response", "unbind_receive_call", "unbind_receive_notification",
    "unbind_receive_response", "send", "link", "point_at", "get_position", "aladin",
})  # fmt: skip


class AsyncSAMPClient:
    """
    A SAMP client for asyncio.

    It also has the methods of `SAMPIntegratedClient`, with the same parameters:
    ``await client.send(table, to="topcat")``, ``await client.ecall_and_wait(...)``. Handlers run in the event loop.
    Handlers that are bound with `on` may be coroutine functions.

    If a task is cancelled while it waits, the wait ends immediately, but the operation may still be carried out.

    Parameters
    ----------
    *args, **kwargs
        As in `SAMPIntegratedClient`, except ``dispatch``.

    Examples
    --------
    ::

        async with AsyncSAMPClient(name="My script") as client:
            await client.wait_for("topcat")
            await client.send(table, to="topcat")
            async for item in client.incoming("table.load.*"):
                print(item.name)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "dispatch" in kwargs:
            raise SAMPClientError("AsyncSAMPClient has no parameter dispatch: its handlers run in the event loop")
        #: The underlying client.
        self.client = SAMPIntegratedClient(*args, **kwargs, dispatch=self._dispatch)
        self._connect_args: dict[str, Any] = {}  # for the ``async with`` statement
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers: WorkerPool | None = None
        self._tasks: set[Any] = set()
        self._last_operation = threading.Event()  # set when the last connect or disconnect is done
        self._last_operation.set()

    # Connecting and disconnecting

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        """
        Connect to a hub and register.

        Parameters
        ----------
        *args, **kwargs
            As in `SAMPIntegratedClient.connect`.
        """
        self._loop = asyncio.get_running_loop()
        if self._workers is None:
            self._workers = WorkerPool("samp-async")
        was_connected = self.client.is_connected
        try:
            await self._run(self._serialized(self.client.connect), *args, **kwargs)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and not was_connected:
                # The client will be connected soon, and no other code will disconnect it.
                self._workers.submit(self._serialized(self.client.disconnect))
                self._stop_workers()
            elif not self.client.is_connected:
                self._stop_workers()
            raise

    async def disconnect(self) -> None:
        """Unregister and close the connection. May be called more than once."""
        for task in list(self._tasks):
            task.cancel()
        if self._workers is not None:
            await asyncio.shield(self._run(self._serialized(self.client.disconnect)))
            self._stop_workers()

    def _serialized(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that it first waits for the previous operation. The wrapper must be called."""
        previous_done = self._last_operation
        done = self._last_operation = threading.Event()

        def run(*args: Any, **kwargs: Any) -> Any:
            previous_done.wait()
            try:
                return function(*args, **kwargs)
            finally:
                done.set()

        return run

    def _stop_workers(self) -> None:
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.stop(0.0)

    async def __aenter__(self) -> Self:
        await self.connect(**self._connect_args)
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.disconnect()

    # The client's methods

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "client" not in self.__dict__:
            raise AttributeError(name)
        value = getattr(self.client, name)
        if name not in _WAITING_METHODS:
            return value

        async def method(*args: Any, **kwargs: Any) -> Any:
            return await self._run(value, *args, **kwargs)

        method.__name__ = name
        method.__doc__ = value.__doc__
        return method

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.client)})

    @property
    def is_connected(self) -> bool:
        """Whether the client is registered with a hub."""
        return self.client.is_connected

    async def clients(self) -> Clients:
        """Return the list of clients, which is kept up to date."""
        clients = self.client.clients
        await self._run(clients.subscribe)
        return clients

    async def wait_for(self, client: str, timeout: str | float = 60.0, mtype: str | None = None) -> ClientInfo:
        """
        Wait until a client is registered.

        Parameters
        ----------
        client, timeout, mtype
            As in `SAMPIntegratedClient.wait_for`.
        """
        found: ClientInfo = await self._run(self.client.wait_for, client, timeout, mtype)
        return found

    async def ds9(self, cmd: str, **kwargs: Any) -> None:
        """
        Send a command to DS9.

        Parameters
        ----------
        cmd : str
            The command.
        **kwargs
            As in `SAMPIntegratedClient.ds9`.
        """
        await self._run(self.client.ds9, cmd, **kwargs)

    async def ds9_get(self, cmd: str, **kwargs: Any) -> Any:
        """
        Send a command to DS9 and return its result.

        Parameters
        ----------
        cmd : str
            The command.
        **kwargs
            As in ``SAMPIntegratedClient.ds9.get``.
        """
        return await self._run(self.client.ds9.get, cmd, **kwargs)

    # Receiving

    async def receive(self, mtype: str = "*", timeout: str | float = 60.0) -> Any:
        """
        Wait for the next table, image, spectrum, coverage, position or other message.

        Parameters
        ----------
        mtype, timeout
            As in `SAMPIntegratedClient.receive`.
        """
        seconds = parse_timeout(timeout)
        incoming = AsyncIncoming(self, (mtype,), 1, 1)
        try:
            return await asyncio.wait_for(anext(incoming), max(0.0, seconds) if seconds else None)
        except StopAsyncIteration:
            raise SAMPClientError("The client was disconnected") from None
        except SAMPTimeoutError:
            raise
        except TimeoutError:
            raise SAMPTimeoutError(f"No {mtype} arrived within {seconds:g} s") from None
        finally:
            await incoming.aclose()

    def incoming(self, *mtypes: str, limit: int = 100) -> AsyncIncoming:
        """
        Iterate over received objects: ``async for table in client.incoming("table.load.*"): ...``.

        Parameters
        ----------
        *mtypes, limit
            As in `SAMPIntegratedClient.incoming`.
        """
        return AsyncIncoming(self, mtypes, limit, None)

    def on(self, mtype: str) -> Callable[[Function], Function]:
        """
        Bind a function or coroutine function as the handler of an MType; see `SAMPIntegratedClient.on`.

        Bind handlers before `connect`; otherwise the event loop is blocked while the subscriptions are declared.

        Parameters
        ----------
        mtype : str
            MType or wildcard.
        """

        def bind(function: Function) -> Function:
            run = self._run_coroutine if is_coroutine_function(function) else self._run_handler
            self.client.bind_receive_message(mtype, make_typed_handler(self.client._exchange, function, run))
            return function

        return bind

    # Threads and the event loop

    async def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a blocking function in another thread."""
        if self._workers is None:
            raise SAMPClientError("Not connected to a SAMP hub: call connect() first.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        function = in_same_call(function)

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # is raised by the code that awaits the future
                _set_future(loop, future, future.set_exception, error)
            else:
                _set_future(loop, future, future.set_result, result)

        self._workers.submit(work)
        return await future

    def _dispatch(self, job: Callable[[], None]) -> None:
        if self._loop is None:
            raise SAMPClientError("There is no event loop yet")
        self._loop.call_soon_threadsafe(job)

    def _run_handler(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Run a function in the event loop. If it is a decorated coroutine function, it returns a coroutine."""
        value = self.client.client.run_handler(function, **arguments)
        return self._await(value) if inspect.iscoroutine(value) else value

    def _run_coroutine(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Run a coroutine function in the event loop."""
        return self._await(function(**arguments))

    def _await(self, coroutine: Any) -> Any:
        """Run a coroutine in the event loop, and wait for it in this thread, which is a thread of the client."""
        if self._loop is None:
            coroutine.close()
            raise SAMPClientError("There is no event loop yet")
        task = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._tasks.add(task)
        try:
            return task.result()
        except CancelledError:
            raise SAMPClientError("The client was disconnected before its handler had finished") from None
        finally:
            self._tasks.discard(task)


def _set_future(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], set_outcome: Callable[[Any], object], value: Any
) -> None:
    def set_unless_done() -> None:
        if not future.done():  # it may have been cancelled
            set_outcome(value)

    if not loop.is_closed():
        loop.call_soon_threadsafe(set_unless_done)
