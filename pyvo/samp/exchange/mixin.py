# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Methods of a client that send and receive objects: tables, images, spectra and positions.

Each method imports the modules that it needs when it is called, so that clients that only exchange messages do not load
them.
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

        Each recipient gets the object with an MType that it is subscribed to, and in the format of that MType.

        Parameters
        ----------
        obj : object
            Table, QTable, VOTableFile, a result of pyvo or astroquery (anything with ``.votable`` or
            ``.to_table()``), pandas DataFrame, HDU, HDUList, CCDData, NDData, Cutout2D (anything with ``.data`` and
            ``.wcs``), 2-d array, Spectrum, MOC, SkyCoord, or the path or URL of a file, whose format is detected from
            its content.
        to : str, entry of ``client.clients``, or several of them, optional
            Ids or names of the recipients. A part of a name (``"ds9"``) is allowed if only one client has it in its
            name. By default all clients that are subscribed to one of the MTypes.
        name : str, optional
            The name that the recipients display; by default the name of the object.
        mtype : str, optional
            The MType to use. If it is given, a file or URL is sent unchanged, and its content is not checked.
        timeout : str, int or float
            Seconds to wait for the responses; 0: no limit, less than 0: do not wait. Responses that arrive later are
            added to the report.
        table_id : str, optional
            The table-id (image-id...). An object that is sent again with the same id replaces the earlier one.
        progress : bool, optional
            Whether to show a progress bar while a file is written. By default it is shown for large files if the
            program runs on a terminal or in a notebook.
        wait : bool
            Whether to wait for the responses.
        **params
            Further parameters of the message.

        Returns
        -------
        SendReport
            The recipients, their responses, and the failures.

        Raises
        ------
        TypeError
            The object cannot be sent. The text lists the supported types.
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
        Send a table, and then share the selection of its rows with the recipients.

        Parameters
        ----------
        table : astropy.table.Table
            The table, or any object that `send` sends as a table.
        to, name, timeout
            As in `send`.

        Returns
        -------
        Link
            An object with the attributes ``selection``, ``on_select``, ``select`` and ``highlight``.

        Raises
        ------
        TypeError
            The object is not a table.
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

        The sender gets the response after the object was read, or after an attempt to read it failed.

        Parameters
        ----------
        mtype : str
            MType or wildcard, such as ``"table.load.*"``.
        timeout : str, int or float
            Seconds to wait; 0: no limit, less than 0: do not wait.

        Returns
        -------
        Table, HDUList, SkyCoord, Spectrum, MOC, RasterImage or MessageParams
            The object, with the attributes ``sender`` (an id) and ``name``. For other messages a dictionary of the
            parameters.

        Raises
        ------
        SAMPTimeoutError
            No such message arrived.

        Warns
        -----
        SAMPWarning
            An object arrived that cannot be read. The method continues to wait.
        """
        from .incoming import Incoming  # noqa: PLC0415

        self._messaging_client.client.require_key()
        with Incoming(self._exchange, (mtype,), limit=1, total=1) as queue:
            return queue.get(timeout)

    def incoming(self, *mtypes: str, limit: int = 100) -> Incoming:
        """
        Iterate over the objects that arrive: ``for table in client.incoming("table.load.*"): ...``.

        Objects that arrive during an iteration are queued. The loop ends when the client is disconnected, or when
        another thread calls ``close()``. When the loop is left, the queue and the objects in it are discarded. To use
        one queue for several loops, write ``with client.incoming("table.load.*") as queue: ...``.

        Parameters
        ----------
        *mtypes : str
            MTypes or wildcards.
        limit : int
            Maximum number of objects in the queue. Senders of further objects get an error response.

        Returns
        -------
        Incoming
            An iterator over objects as `receive` returns them. It has the methods ``get(timeout)`` and ``close()``, and
            is a context manager.
        """
        from .incoming import Incoming  # noqa: PLC0415

        return Incoming(self._exchange, mtypes, limit)

    def on(self, mtype: str) -> Callable[[Function], Function]:
        """
        Register a function as the handler of an MType: ``@client.on("table.highlight.row")``.

        The parameters of the message are passed by name to the parameters of the function (``table-id`` to
        ``table_id``) and converted according to the annotations: ``int``, ``float``, ``bool``, ``list[int]``,
        ``dict[str, float]``, ``tuple[int, ...]``, an ``Enum``, ``numpy.ndarray``. A parameter annotated with ``Table``,
        ``QTable``, ``HDUList`` or ``SkyCoord`` gets the object that the message refers to. The function may also have
        the parameters ``sender``, ``mtype`` and ``params`` (the parameters of the message as a dictionary). If the
        message itself has a parameter with one of these names, it is only available in ``params``. The return value is
        sent as the result of a call, and an exception as its error. A parameter with a default is optional in the
        message.

        Parameters
        ----------
        mtype : str
            MType or wildcard.

        Returns
        -------
        callable
            A decorator that returns the function unchanged.
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
        """The list of the other clients, which the hub's events keep up to date."""
        return self._exchange.clients

    def wait_for(self, client: str, timeout: str | float = 60.0, mtype: str | None = None) -> ClientInfo:
        """
        Wait until a client is connected.

        Parameters
        ----------
        client : str
            The name of the client, a part of its name (``"ds9"``), in upper or lower case, or its id.
        timeout : str, int or float
            Seconds to wait; 0: no limit, less than 0: do not wait.
        mtype : str, optional
            An MType that the client has to be subscribed to.

        Returns
        -------
        ClientInfo
            The client.

        Raises
        ------
        SAMPTimeoutError
            The client did not connect in time.
        SAMPClientError
            Several clients have that part in their names.
        """
        return self.clients.wait_for(client, timeout, mtype)

    # Viewers

    def point_at(self, position: Any, to: ClientRef | None = None, timeout: str | float = 20.0) -> SendReport:
        """
        Show a position in viewers.

        Parameters
        ----------
        position : SkyCoord, str or (float, float)
            The position. Two numbers are ICRS coordinates in degrees.
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
        Return the position that a viewer shows.

        Parameters
        ----------
        client : str or entry of ``client.clients``, optional
            The viewer; by default the only connected one that supports this.
        timeout : str, int or float
            Seconds to wait for the response; 0: no limit.

        Returns
        -------
        astropy.coordinates.SkyCoord
            The position.

        Raises
        ------
        SAMPResponseError
            The viewer responded with an error.
        """
        from .viewers import get_position  # noqa: PLC0415

        return get_position(self._messaging_client, client, timeout)

    @property
    def ds9(self) -> DS9:
        """Control DS9 by its own commands: ``client.ds9("zoom to fit")``, ``client.ds9.get("version")``."""
        from .viewers import DS9  # noqa: PLC0415

        return DS9(self._messaging_client)

    def aladin(self, script: str, to: ClientRef | None = None, timeout: str | float = 60.0) -> str:
        """
        Run a script in Aladin.

        Parameters
        ----------
        script : str
            Aladin commands.
        to : str or entry of ``client.clients``, optional
            The Aladin client; by default the only one.
        timeout : str, int or float
            Seconds to wait for the response; 0: no limit.

        Returns
        -------
        str
            The output of the script, if Aladin returns it.

        Raises
        ------
        SAMPResponseError
            Aladin responded with an error.
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
    """Return `ExchangeMixin` for its old name."""
    if name == "Exchange":
        warnings.warn("Exchange is now called ExchangeMixin", DeprecationWarning, stacklevel=2)
        return ExchangeMixin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
