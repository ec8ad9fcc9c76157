# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The methods of a client that send and receive objects: tables, images, spectra, positions.

Each method imports the modules that it needs when it is called, so that a client which exchanges messages only does not
load them.
"""

from __future__ import annotations

import threading
import warnings
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

Function = TypeVar("Function", bound=Callable[..., Any])

_creation_lock = threading.Lock()


class ExchangeMixin:
    """Methods of a client that exchange objects instead of messages."""

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

        Each recipient gets it by an MType, and in a format, to which it is subscribed.

        Parameters
        ----------
        obj : object
            Table, QTable, VOTableFile, a result of pyvo or astroquery (anything with ``.votable`` or
            ``.to_table()``), pandas DataFrame, HDU, HDUList, CCDData, NDData, Cutout2D (anything with ``.data`` and
            ``.wcs``), 2-d array, Spectrum, MOC, SkyCoord, or the path or URL of a file, whose format is detected from
            its content.
        to : str, entry of ``client.clients``, or several of them, optional
            Ids or names of the recipients, or parts of names that one client has (``"ds9"``). By default all clients
            that are subscribed to one of the MTypes.
        name : str, optional
            The name that the recipients show; by default the object's own.
        mtype : str, optional
            The MType to use. A file or URL is then sent as it is, whatever it holds.
        timeout : str, int or float
            Seconds to wait for the responses; 0: no limit, less than 0: no wait. The report gets later responses, too.
        table_id : str, optional
            The table-id (image-id...). An object that is sent again with the same id replaces the earlier one.
        progress : bool, optional
            Whether to show a progress bar while a file is written; by default for a large one, on a terminal or in a
            notebook.
        wait : bool
            Whether to wait for the responses at all.
        **params
            Further parameters of the message.

        Returns
        -------
        SendReport
            The recipients, their responses, and what failed.

        Raises
        ------
        TypeError
            The object cannot be sent; the text lists what can.
        SAMPClientError
            A recipient is not connected.
        OSError
            The file for the recipients cannot be written, for example because the disk is full.

        Warns
        -----
        SAMPWarning
            No client is subscribed, or a recipient did not load the object.
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
        Send a table, and share the selection of its rows from then on.

        Parameters
        ----------
        table : astropy.table.Table
            The table, or any object that `send` sends as a table.
        to, name, timeout
            As in `send`.

        Returns
        -------
        Link
            With ``selection``, ``on_select``, ``select`` and ``highlight``.

        Raises
        ------
        TypeError
            The object is no table.
        """
        from .linked_table import Link, check_linkable  # noqa: PLC0415
        from .sending import send  # noqa: PLC0415

        sendable, rows = check_linkable(table)
        report = send(self._exchange, sendable, to, name=name, timeout=timeout)
        return Link(self._exchange, rows, report)

    # Receiving

    def receive(self, mtype: str = "*", timeout: str | float = 60.0) -> Any:
        """
        Wait for the next table, image, spectrum, coverage, position or other message.

        The sender gets the response when the object has been read, or could not be read.

        Parameters
        ----------
        mtype : str
            MType or wildcard, such as ``"table.load.*"``.
        timeout : str, int or float
            Seconds; 0 waits without limit, and less than 0 not at all.

        Returns
        -------
        Table, HDUList, SkyCoord, Spectrum, MOC, RasterImage or MessageParams
            The object, with the attributes ``sender`` (an id) and ``name``; for other messages the parameters, as a
            dictionary.

        Raises
        ------
        SAMPTimeoutError
            No such message arrived.

        Warns
        -----
        SAMPWarning
            An object arrived that cannot be read; the wait continues.
        """
        from .incoming import Incoming  # noqa: PLC0415

        self._messaging_client.client.require_key()
        with Incoming(self._exchange, (mtype,), limit=1, total=1) as queue:
            return queue.get(timeout)

    def incoming(self, *mtypes: str, limit: int = 100) -> Incoming:
        """
        Iterate over the objects that arrive: ``for table in client.incoming("table.load.*"): ...``.

        Objects that arrive during an iteration wait in a queue. The loop ends when the client is disconnected, or when
        another thread calls ``close()``. Objects that still wait are lost with the queue; to use one queue for several
        loops, write ``with client.incoming("table.load.*") as queue: ...``.

        Parameters
        ----------
        *mtypes : str
            MTypes or wildcards.
        limit : int
            The number of objects that may wait. Further senders get an error response.

        Returns
        -------
        Incoming
            An iterator over objects as `receive` returns them, with ``get(timeout)`` and ``close()``; also a context
            manager.
        """
        from .incoming import Incoming  # noqa: PLC0415

        return Incoming(self._exchange, mtypes, limit)

    def on(self, mtype: str) -> Callable[[Function], Function]:
        """
        Make a function the handler of an MType: ``@client.on("table.highlight.row")``.

        The function gets the parameters of the message that it names, ``table_id`` for ``table-id``, converted by their
        annotations: ``int``, ``float``, ``bool``, ``list[int]``, ``dict[str, float]``, ``tuple[int, ...]``, an
        ``Enum``, ``numpy.ndarray``. A parameter annotated with ``Table``, ``QTable``, ``HDUList`` or ``SkyCoord`` gets
        the object that the message names. The function may also name ``sender``, ``mtype`` and ``params``, the
        parameters as a dictionary; a parameter of the message with one of these names is in ``params`` only. The return
        value becomes the result of a call, an exception its error. A parameter with a default may be missing from a
        message.

        Parameters
        ----------
        mtype : str
            MType or wildcard.

        Returns
        -------
        callable
            The decorator; it returns the function unchanged.
        """
        from ..client.handlers import refuse_coroutine_function  # noqa: PLC0415
        from .typed_handlers import make_typed_handler  # noqa: PLC0415

        def bind(function: Function) -> Function:
            refuse_coroutine_function(function)
            handler = make_typed_handler(self._exchange, function, self._messaging_client.client.run_handler)
            self._messaging_client.bind_receive_message(mtype, handler)
            return function

        return bind

    # Other clients

    @property
    def clients(self) -> Clients:
        """The other clients: a list that the hub's events keep up to date."""
        return self._exchange.clients

    def wait_for(self, client: str, timeout: str | float = 60.0, mtype: str | None = None) -> ClientInfo:
        """
        Wait until a client is connected.

        Parameters
        ----------
        client : str
            Its name, in upper or lower case, a part of its name (``"ds9"``), or id.
        timeout : str, int or float
            Seconds; 0 waits without limit, and less than 0 not at all.
        mtype : str, optional
            An MType to which it has to be subscribed.

        Returns
        -------
        ClientInfo
            The client.

        Raises
        ------
        SAMPTimeoutError
            It did not connect in time.
        SAMPClientError
            Several clients have that part in their names.
        """
        return self.clients.wait_for(client, timeout, mtype)

    # Viewers

    def point_at(self, position: Any, to: ClientRef | None = None, timeout: str | float = 20.0) -> SendReport:
        """
        Have viewers show a position.

        Parameters
        ----------
        position : SkyCoord, str or (float, float)
            The position; two numbers are degrees (ICRS).
        to, timeout
            As in `send`.

        Returns
        -------
        SendReport
            The recipients and their responses.
        """
        from .sending import send  # noqa: PLC0415
        from .viewers import to_skycoord  # noqa: PLC0415

        return send(self._exchange, to_skycoord(position), to, timeout=timeout)

    def get_position(self, client: ClientRef | None = None, timeout: str | float = 20.0) -> Any:
        """
        Ask a viewer for the position that it shows.

        Parameters
        ----------
        client : str or entry of ``client.clients``, optional
            The viewer; by default the only one that can be asked.
        timeout : str, int or float
            Seconds to wait for the response; 0: no limit.

        Returns
        -------
        astropy.coordinates.SkyCoord
            The position.

        Raises
        ------
        SAMPResponseError
            It responded with an error.
        """
        from .viewers import get_position  # noqa: PLC0415

        return get_position(self._messaging_client, client, timeout)

    @property
    def ds9(self) -> DS9:
        """DS9, controlled by its own commands: ``client.ds9("zoom to fit")``, ``client.ds9.get("version")``."""
        from .viewers import DS9  # noqa: PLC0415

        return DS9(self._messaging_client)

    def aladin(self, script: str, to: ClientRef | None = None, timeout: str | float = 60.0) -> str:
        """
        Have Aladin run a script.

        Parameters
        ----------
        script : str
            Commands of Aladin.
        to : str or entry of ``client.clients``, optional
            The Aladin; by default the only one.
        timeout : str, int or float
            Seconds to wait for the response; 0: no limit.

        Returns
        -------
        str
            The output of the script, if Aladin returns it.

        Raises
        ------
        SAMPResponseError
            It responded with an error.
        """
        from .viewers import run_aladin_script  # noqa: PLC0415

        return run_aladin_script(self._messaging_client, script, to, timeout)

    # Called by `ClientSession`

    def _on_connected(self) -> None:
        if self._exchange_state is not None:
            self._exchange_state.clients.resubscribe()

    def _on_disconnected(self, *, for_good: bool) -> None:
        if self._exchange_state is not None:
            self._exchange_state.on_disconnected(for_good=for_good)


def __getattr__(name: str) -> Any:
    """Return `ExchangeMixin` by its old name."""
    if name == "Exchange":
        warnings.warn("Exchange is now called ExchangeMixin", DeprecationWarning, stacklevel=2)
        return ExchangeMixin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
