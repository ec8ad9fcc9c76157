# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions, and the languages of DS9 and Aladin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SAMPClientError, SAMPResponseError, SAMPValueError
from ..protocol import best_match
from .addressing import Who, find_one, name_of
from .loading import Sender, _mark, read_position
from .reports import reproach
from .waiting import patience_of

if TYPE_CHECKING:
    from ..integrated_client import SAMPIntegratedClient as Host

__all__ = ["DS9", "ask", "as_position", "get_position", "send_script"]


def ask(host: Host, client_id: str, mtype: str, timeout: str | float, params: Mapping[str, Any]) -> dict[str, Any]:
    """
    Call a client and return its result.

    Parameters
    ----------
    host : SAMPIntegratedClient
        Who asks.
    client_id : str
        Who is asked.
    mtype : str
        What.
    timeout : str, int or float
        Seconds; 0 waits without limit.
    params : mapping
        The parameters.

    Returns
    -------
    dict
        ``samp.result``.

    Raises
    ------
    SAMPResponseError
        It answered with an error.
    """
    message = {"samp.mtype": mtype, "samp.params": dict(params)}
    response = host.call_and_wait(client_id, message, patience_of(timeout))
    if response.get("samp.status") == "samp.error":
        raise SAMPResponseError(f"{name_of(host, client_id)} answered {mtype}: {reproach(response)}", response)
    result = response.get("samp.result")
    return result if isinstance(result, dict) else {}


def as_position(position: Any) -> Any:
    """
    Make a position of what people write.

    Parameters
    ----------
    position : SkyCoord, str or (float, float)
        A text as `SkyCoord` reads it, in degrees or hours (``"5h34m32s +22d00m52s"``), or two numbers in degrees.

    Returns
    -------
    astropy.coordinates.SkyCoord
        The position.
    """
    from astropy import units as u  # noqa: PLC0415
    from astropy.coordinates import SkyCoord  # noqa: PLC0415

    if isinstance(position, str):
        in_hours = ":" in position or (len(position.split()) > 2)
        return SkyCoord(position, unit=(u.hourangle, u.deg) if in_hours else u.deg)
    if isinstance(position, tuple | list):
        if len(position) != 2:
            raise SAMPValueError("A position has two coordinates")
        return SkyCoord(*position, unit="deg")
    coordinates = SkyCoord(position)
    if coordinates.size != 1:
        raise SAMPValueError(f"One position can be pointed at, not {coordinates.size}")
    return coordinates


def get_position(host: Host, who: Who | None, timeout: str | float) -> Any:
    """Ask a viewer where it looks; see `Exchange.get_position`."""
    # DS9 has no message for that, but a command
    mtype = "coord.get.sky" if who is not None or host.get_subscribed_clients("coord.get.sky") else "ds9.get"
    client_id = find_one(host, mtype, who, "Aladin")
    if best_match(host.get_subscriptions(client_id), "coord.get.sky") is None:
        answer = str(ask(host, client_id, "ds9.get", timeout, {"cmd": "pan wcs fk5 degrees"}).get("value", ""))
        numbers = answer.split()
        if len(numbers) != 2:
            raise SAMPClientError(f"{name_of(host, client_id)} shows nothing that has a position")
        result: dict[str, Any] = {"ra": numbers[0], "dec": numbers[1]}
    else:
        result = ask(host, client_id, "coord.get.sky", timeout, {})
    return _mark(read_position(result), Sender(client_id, name_of(host, client_id)), "", "coord.get.sky")


class DS9:
    """
    DS9 by its own commands: ``client.ds9("zoom to fit")``, ``client.ds9.get("pan wcs fk5 degrees")``.

    Parameters
    ----------
    host : SAMPIntegratedClient
        Who commands.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def __call__(self, cmd: str, *, to: Who | None = None, url: str | None = None, timeout: str | float = 30.0) -> None:
        """
        Have DS9 do something.

        Parameters
        ----------
        cmd : str
            A command of DS9's, as for ``xpaset``.
        to : str or entry of ``client.clients``, optional
            Which DS9; without it, the only one.
        url : str, optional
            URL of what the command is about.
        timeout : str, int or float
            Seconds that it may take; 0: no limit.

        Raises
        ------
        SAMPResponseError
            DS9 answered with an error.
        """
        client_id = find_one(self._host, "ds9.set", to, "DS9")
        ask(self._host, client_id, "ds9.set", timeout, {"cmd": cmd, **({"url": url} if url else {})})

    def get(self, cmd: str, *, to: Who | None = None, timeout: str | float = 30.0) -> str:
        """
        Ask DS9 for something.

        Parameters
        ----------
        cmd : str
            A command of DS9's, as for ``xpaget``.
        to : str or entry of ``client.clients``, optional
            Which DS9; without it, the only one.
        timeout : str, int or float
            Seconds that it may take; 0: no limit.

        Returns
        -------
        str
            Its answer.
        """
        result = ask(self._host, find_one(self._host, "ds9.get", to, "DS9"), "ds9.get", timeout, {"cmd": cmd})
        return str(result.get("value", "")).strip()


def send_script(host: Host, script: str, who: Who | None, timeout: str | float) -> str:
    """Have Aladin run a script; see `Exchange.aladin`."""
    client_id = find_one(host, "script.aladin.send", who, "Aladin")
    result = ask(host, client_id, "script.aladin.send", timeout, {"script": script})
    return str(result.get("script.result", ""))
