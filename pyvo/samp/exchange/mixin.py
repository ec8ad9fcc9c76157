# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What astronomers do with a client: send and receive tables, images, spectra, positions.

This module is light; what does the work is imported when it is first used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from ..client.lookup import ClientRef
    from ..client.messaging import MessagingClient
    from .client_list import ClientInfo, Clients
    from .incoming import Incoming
    from .linked_table import Link
    from .reports import SendReport
    from .sending import ExchangeState
    from .viewers import DS9

__all__ = ["Exchange"]

Function = TypeVar("Function", bound=Callable[..., Any])

_creation_lock = threading.Lock()


class Exchange:
    """The methods of a client that exchange objects instead of messages."""

    _exchange_state: ExchangeState | None = None

    @property
    def _exchange(self) -> ExchangeState:
        if self._exchange_state is None:
            from .sending import ExchangeState  # noqa: PLC0415

            with _creation_lock:
                if self._exchange_state is None:
                    self._exchange_state = ExchangeState(self._messaging_client)
        return self._exchange_state

    @property
    def _messaging_client(self) -> MessagingClient:
        return cast("MessagingClient", self)

    # Sending

    def send(
        self,
        obj: Any,
        to: ClientRef | None = None,
        name: str | None = None,
        mtype: str | None = None,
        timeout: str | float = 60.0,
        *,
        table_id: str | None = None,
        progress: bool | None = None,
        wait: bool = True,
        **params: Any,
    ) -> SendReport:
        """
        Send a table, an image, a spectrum, a coverage or a position to other programs.

        For each recipient the MType and format are chosen by what it subscribes to.

        Parameters
        ----------
        obj : object
            Table, QTable, VOTableFile, a result of pyvo or astroquery (anything with ``.votable`` or
            ``.to_table()``), pandas DataFrame, HDU, HDUList, CCDData, NDData, Cutout2D (anything with ``.data`` and
            ``.wcs``), 2-d array, Spectrum, MOC, SkyCoord, or a path or URL of a file, which is looked into.
        to : str, entry of ``client.clients``, or several of them, optional
            Ids or names of the recipients, or parts of names that one client has (``"ds9"``); without it, all that
            take it.
        name : str, optional
            What the recipients shall call it; by default what it says of itself.
        mtype : str, optional
            The MType to use. A file or URL is then sent as it is, whatever it holds.
        timeout : str, int or float
            Seconds to wait for answers; 0: no limit, less than 0: no wait. Later answers are still noted in the report.
        table_id : str, optional
            The table-id (image-id...). What is sent again under the same one replaces the earlier.
        progress : bool, optional
            Whether to show a progress bar while a file is written; by default for a large one, if somebody looks.
        wait : bool
            Whether to wait for the answers at all.
        **params
            Further parameters of the message.

        Returns
        -------
        SendReport
            Who was asked, who answered, what failed.

        Raises
        ------
        TypeError
            The object cannot be sent; the text lists what can.
        SAMPClientError
            A recipient is not there.
        OSError
            The file for the recipients cannot be written; the disk is full, say.

        Warns
        -----
        SAMPWarning
            Nobody takes it, or a recipient does not have it.
        """
        from .sending import send  # noqa: PLC0415

        return send(
            self._exchange, obj, to, name=name, mtype=mtype, timeout=timeout, table_id=table_id, progress=progress,
            wait=wait, params=params,
        )  # fmt: skip

    def link(
        self, table: Any, to: ClientRef | None = None, name: str | None = None, timeout: str | float = 60.0
    ) -> Link:
        """
        Send a table, and share selections of its rows from then on.

        Parameters
        ----------
        table : astropy.table.Table
            The table, or whatever `send` makes one of.
        to, name, timeout
            As of `send`.

        Returns
        -------
        Link
            With ``selection``, ``on_select``, ``select`` and ``highlight``.

        Raises
        ------
        TypeError
            It is no table.
        """
        from .linked_table import Link, check_linkable  # noqa: PLC0415
        from .sending import send  # noqa: PLC0415

        product, rows = check_linkable(table)
        report = send(self._exchange, product, to, name=name, timeout=timeout)
        return Link(self._exchange, rows, report)

    # Receiving

    def receive(self, mtype: str = "*", timeout: str | float = 60.0) -> Any:
        """
        Wait for the next table, image, spectrum, coverage, position or other message.

        The sender is answered when it has been read, or could not be.

        Parameters
        ----------
        mtype : str
            MType or wildcard, such as ``"table.load.*"``.
        timeout : str, int or float
            Seconds; 0 waits without limit, and less than 0 not at all.

        Returns
        -------
        Table, HDUList, SkyCoord, Spectrum, MOC, Picture or Received
            What came, with the attributes ``sender`` (an id) and ``name``. Of messages of no known kind the
            parameters, as a dictionary.

        Raises
        ------
        SAMPTimeoutError
            Nothing came.

        Warns
        -----
        SAMPWarning
            Something came that cannot be read; the wait goes on.
        """
        from .incoming import Incoming  # noqa: PLC0415

        self._messaging_client.client.require_key()
        with Incoming(self._exchange, (mtype,), limit=1, total=1) as queue:
            return queue.get(timeout)

    def incoming(self, *mtypes: str, limit: int = 100) -> Incoming:
        """
        Iterate over what arrives: ``for table in client.incoming("table.load.*"): ...``.

        What comes while an iteration is at work waits in a queue. The loop ends when the client is disconnected, or
        by ``close()`` from another thread. With the queue all that waits in it is given up, so ``with
        client.incoming("table.load.*") as queue: ...`` is the way to keep it for longer than one loop.

        Parameters
        ----------
        *mtypes : str
            MTypes or wildcards.
        limit : int
            How many things may wait. Senders of more are told that there is no room.

        Returns
        -------
        Incoming
            An iterator over what `receive` returns, with ``get(timeout)`` and ``close()``; also a context manager.
        """
        from .incoming import Incoming  # noqa: PLC0415

        return Incoming(self._exchange, mtypes, limit)

    def on(self, mtype: str) -> Callable[[Function], Function]:
        """
        Make a function the handler of an MType: ``@client.on("table.highlight.row")``.

        The function takes just the parameters of the message that it names, ``table_id`` for ``table-id``, decoded
        by their annotations: ``int``, ``float``, ``bool``, ``list[int]``, ``dict[str, float]``, ``tuple[int, ...]``,
        an ``Enum``, ``numpy.ndarray``; a parameter annotated with ``Table``, ``QTable``, ``HDUList`` or ``SkyCoord``
        is given what the message brings. It may name ``sender``, ``mtype`` and ``params``, too. What it returns
        becomes the result of a call, an exception that it raises the error. A parameter with a default may be missing
        from a message; it is filled all the same where it is there.

        Parameters
        ----------
        mtype : str
            MType or wildcard.

        Returns
        -------
        callable
            The decorator; the function stays as it is.
        """
        from ..client.handlers import refuse_coroutine_function  # noqa: PLC0415
        from .typed_handlers import make_typed_handler  # noqa: PLC0415

        def bind(function: Function) -> Function:
            refuse_coroutine_function(function)
            handler = make_typed_handler(self._exchange, function, self._messaging_client.client.run_handler)
            self._messaging_client.bind_receive_message(mtype, handler)
            return function

        return bind

    # Who is there

    @property
    def clients(self) -> Clients:
        """The other clients: a list that the hub's events keep up to date."""
        return self._exchange.clients

    def wait_for(self, client: str, timeout: str | float = 60.0, mtype: str | None = None) -> ClientInfo:
        """
        Wait until a client is there.

        Parameters
        ----------
        client : str
            Its name, in upper or lower case, a part of its name (``"ds9"``), or id.
        timeout : str, int or float
            Seconds; 0 waits without limit, and less than 0 not at all.
        mtype : str, optional
            What it has to be subscribed to.

        Returns
        -------
        ClientInfo
            The client.

        Raises
        ------
        SAMPTimeoutError
            It did not come.
        SAMPClientError
            Several clients have that part in their names.
        """
        return self.clients.wait_for(client, timeout, mtype)

    # Viewers

    def point_at(self, position: Any, to: ClientRef | None = None, timeout: str | float = 20.0) -> SendReport:
        """
        Have viewers look at a position.

        Parameters
        ----------
        position : SkyCoord, str or (float, float)
            The position; two numbers are degrees (ICRS).
        to, timeout
            As of `send`.

        Returns
        -------
        SendReport
            Who does.
        """
        from .sending import send  # noqa: PLC0415
        from .viewers import to_skycoord  # noqa: PLC0415

        return send(self._exchange, to_skycoord(position), to, timeout=timeout)

    def get_position(self, client: ClientRef | None = None, timeout: str | float = 20.0) -> Any:
        """
        Ask a viewer where it looks.

        Parameters
        ----------
        client : str or entry of ``client.clients``, optional
            Which; without it, the only one that tells.
        timeout : str, int or float
            Seconds that it has; 0: no limit.

        Returns
        -------
        astropy.coordinates.SkyCoord
            The position.

        Raises
        ------
        SAMPResponseError
            It answered with an error.
        """
        from .viewers import get_position  # noqa: PLC0415

        return get_position(self._messaging_client, client, timeout)

    @property
    def ds9(self) -> DS9:
        """DS9 by its own commands: ``client.ds9("zoom to fit")``, ``client.ds9.get("version")``."""
        from .viewers import DS9  # noqa: PLC0415

        return DS9(self._messaging_client)

    def aladin(self, script: str, to: ClientRef | None = None, timeout: str | float = 60.0) -> str:
        """
        Have Aladin run a script.

        Parameters
        ----------
        script : str
            Commands of Aladin's.
        to : str or entry of ``client.clients``, optional
            Which Aladin; without it, the only one.
        timeout : str, int or float
            Seconds that it may take; 0: no limit.

        Returns
        -------
        str
            What it printed, if it tells.

        Raises
        ------
        SAMPResponseError
            It answered with an error.
        """
        from .viewers import run_aladin_script  # noqa: PLC0415

        return run_aladin_script(self._messaging_client, script, to, timeout)

    # What the connection tells

    def _on_connected(self) -> None:
        if self._exchange_state is not None:
            self._exchange_state.on_connected()

    def _on_disconnected(self, *, for_good: bool) -> None:
        if self._exchange_state is not None:
            self._exchange_state.on_disconnected(for_good=for_good)
