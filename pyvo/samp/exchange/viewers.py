# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Get the position that a viewer shows, and run commands in DS9 and Aladin.

astropy.io and astropy.coordinates take long to import and most commands need neither. They are imported when a file or
a position is read.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..client.lookup import ClientRef, client_name, resolve_one
from ..client.messaging import MessagingClient
from ..errors import SAMPClientError, SAMPProxyError, SAMPResponseError, SAMPTimeoutError, SAMPValueError, warn
from ..formats.fetching import local_copy
from ..formats.model import Sender
from ..protocol import best_match
from ..protocol.timeouts import Deadline, hub_timeout
from .reports import response_error_text

__all__ = ["DS9", "call_for_result", "get_position", "run_aladin_script", "to_skycoord"]

#: Names of the files that DS9 8.4.1 writes for its responses and does not remove. Binary files have no further suffix.
_MADE_BY_DS9 = re.compile(r"ds9\d{9,}\.xpa(\.\w+)?", re.ASCII)
#: Control characters that do not occur in text. Form feed is not among them: DS9 writes it between pages.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def call_for_result(
    client: MessagingClient, client_id: str, mtype: str, timeout: str | float, params: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Call a client and return its ``samp.result``.

    Raise SAMPResponseError if the response is an error, and SAMPTimeoutError if there is none in time. Issue a warning
    if the response is a warning.
    """
    message = {"samp.mtype": mtype, "samp.params": dict(params)}
    deadline = Deadline(hub_timeout(timeout))
    try:
        response = client.call_and_wait(client_id, message, deadline.seconds)
    except SAMPProxyError as fault:
        if deadline.remaining != 0:
            raise
        command = f" {params['cmd']!r}" if "cmd" in params else ""
        raise SAMPTimeoutError(
            f"{client_name(client, client_id)} has not responded to {mtype}{command} within {deadline.seconds:g} s"
        ) from fault
    error_text = response_error_text(response)
    if response.get("samp.status") == "samp.error":
        text = f"{client_name(client, client_id)} responded to {mtype} with an error: {error_text}"
        raise SAMPResponseError(text, response)
    if error_text:
        warn(f"{client_name(client, client_id)} responded to {mtype} with a warning: {error_text}")
    result = response.get("samp.result")
    return result if isinstance(result, dict) else {}


def _content_key(result: Mapping[str, Any], keys: Collection[str], program: str) -> str:
    """
    Return the key of the content in a result; an empty string if there is none of these keys.

    Content under other keys is not returned. Raise an error if there is only such content; otherwise warn about it.
    """
    filled = [key for key in keys if result.get(key)]
    rest = [key for key in result if key not in keys or key in filled[1:]]
    if rest and not filled:
        found, wanted = ", ".join(rest), " or ".join(keys)
        raise SAMPClientError(f"{program} responded with {found}, not with {wanted}: {dict(result)}")
    if rest:
        warn(f"The response of {program} contains more than {filled[0]}; this is not returned: {', '.join(rest)}")
    return filled[0] if filled else ""


def _ds9_content(client: MessagingClient, result: Mapping[str, Any], program: str) -> Any:
    """Return the content of a result of DS9: a short text is in ``value``, anything else in the file at ``url``."""
    key = _content_key(result, ("value", "url"), program)
    if key != "url":
        return str(result.get(key, "")).strip()
    url = str(result["url"]).strip()
    try:
        with local_copy(url, download=client.hub.download) as path:
            content = _read_content(path, Path(urlsplit(url).path).name)
            _remove_if_made_by_ds9(path)
            return content
    except Exception as error:  # from astropy, if the file is not a valid FITS file
        raise SAMPClientError(f"The file in the response of {program} cannot be read: {error}") from error


def _read_content(path: Path, name: str) -> Any:
    """Return the content of a file: text as str, FITS as HDUList, anything else as bytes."""
    content = path.read_bytes()
    made_by_ds9 = _MADE_BY_DS9.fullmatch(name)
    # the result of "fits header" begins like a FITS file, but is text with one line for each card
    if content.startswith(b"SIMPLE  =") and b"\n" not in content[:2880]:
        from ..formats.readers import read_image  # noqa: PLC0415

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deviations from the standard in a file of another program
            return read_image(path)
    if made_by_ds9 and made_by_ds9[1] is None:  # binary, although pixel values may look like text
        return content
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        # DS9 writes Latin-1 in a locale that is not UTF-8
        return content.decode("latin-1") if made_by_ds9 else content
    return content if _CONTROL.search(text) and not made_by_ds9 else text


def _remove_if_made_by_ds9(path: Path) -> None:
    """
    Remove a file that DS9 has made for a response, because DS9 does not remove it.

    A client can put any file name into a response. Therefore a file is only removed if it belongs to the user and has a
    name like those that DS9 uses.
    """
    if _MADE_BY_DS9.fullmatch(path.name) is None:
        return
    status = path.lstat()
    if stat.S_ISREG(status.st_mode) and (os.name == "nt" or status.st_uid == os.getuid()):
        path.unlink(missing_ok=True)


def to_skycoord(position: Any) -> Any:
    """
    Convert a position to a SkyCoord.

    It can be a string in degrees or hours (``"5h34m32s +22d00m52s"``), two numbers in degrees, or any object that
    SkyCoord accepts.
    """
    from astropy.coordinates import SkyCoord  # noqa: PLC0415

    if isinstance(position, str):
        in_hours = ":" in position or (len(position.split()) > 2)
        return SkyCoord(position, unit=("hourangle", "deg") if in_hours else "deg")
    if isinstance(position, tuple | list):
        if len(position) != 2:
            raise SAMPValueError(f"A position has two coordinates, not {len(position)}")
        return SkyCoord(*position, unit="deg")
    coordinates = SkyCoord(position)
    if coordinates.size != 1:
        raise SAMPValueError(f"Only one position can be shown, not {coordinates.size}")
    return coordinates


def get_position(client: MessagingClient, viewer: ClientRef | None, timeout: str | float) -> Any:
    """Return the position that a viewer shows; see `ExchangeMixin.get_position`."""
    from ..formats.readers import attach_source, read_position  # noqa: PLC0415

    # DS9 does not support coord.get.sky, but it has a command that returns the position
    mtype = "coord.get.sky" if viewer is not None or client.get_subscribed_clients("coord.get.sky") else "ds9.get"
    client_id = resolve_one(client, mtype, viewer, "Aladin")
    if best_match(client.get_subscriptions(client_id), "coord.get.sky") is None:
        result = call_for_result(client, client_id, "ds9.get", timeout, {"cmd": "pan wcs icrs degrees"})
        numbers = str(_ds9_content(client, result, client_name(client, client_id))).split()
        if len(numbers) != 2:
            raise SAMPClientError(f"{client_name(client, client_id)} shows no image with sky coordinates")
        result = {"ra": numbers[0], "dec": numbers[1]}
    else:
        result = call_for_result(client, client_id, "coord.get.sky", timeout, {})
    return attach_source(read_position(result), Sender(client_id, client_name(client, client_id)), "", "coord.get.sky")


class DS9:
    """
    Control DS9 by its own commands: ``client.ds9("zoom to fit")``, ``client.ds9.get("pan wcs fk5 degrees")``.

    Parameters
    ----------
    client : SAMPIntegratedClient
        The client that sends the commands.
    """

    def __init__(self, client: MessagingClient) -> None:
        self._client = client

    def __call__(
        self, cmd: str, *, to: ClientRef | None = None, url: str | None = None, timeout: str | float = 30.0
    ) -> None:
        """
        Send a command to DS9.

        Parameters
        ----------
        cmd : str
            The command, as for ``xpaset``.
        to : str or entry of ``client.clients``, optional
            The DS9 client; by default the only one.
        url : str, optional
            The URL of the file for the command.
        timeout : str, int or float
            Seconds to wait for the response; 0: no limit.

        Raises
        ------
        SAMPResponseError
            DS9 responded with an error.
        """
        client_id = resolve_one(self._client, "ds9.set", to, "DS9")
        call_for_result(self._client, client_id, "ds9.set", timeout, {"cmd": cmd, **({"url": url} if url else {})})

    def get(self, cmd: str, *, to: ClientRef | None = None, timeout: str | float = 30.0) -> Any:
        """
        Return a value or the content of a file from DS9.

        Parameters
        ----------
        cmd : str
            The command, as for ``xpaget``.
        to : str or entry of ``client.clients``, optional
            The DS9 client; by default the only one.
        timeout : str, int or float
            Seconds to wait for the response; 0: no limit.

        Returns
        -------
        str, HDUList or bytes
            The result; an empty string if DS9 returns none. DS9 writes long results to a file. Text (``"regions"``,
            ``"fits header"``, ``"data image 1 1 3 3 yes"``) is returned as `str`, FITS (``"fits"``) as
            `~astropy.io.fits.HDUList`, anything else (``"png"``, ``"array"``, ``"nrrd"``) as `bytes`. DS9 does not
            remove the file; this method removes it after reading it.

        Raises
        ------
        SAMPResponseError
            DS9 responded with an error.
        SAMPTimeoutError
            DS9 did not respond in time. It does not respond to unknown commands, or while a dialog is open.
        SAMPClientError
            The file in DS9's response cannot be read, because DS9 shows no data of that kind.
        """
        client_id = resolve_one(self._client, "ds9.get", to, "DS9")
        result = call_for_result(self._client, client_id, "ds9.get", timeout, {"cmd": cmd})
        return _ds9_content(self._client, result, client_name(self._client, client_id))


def run_aladin_script(client: MessagingClient, script: str, to: ClientRef | None, timeout: str | float) -> str:
    """Run a script in Aladin; see `ExchangeMixin.aladin`."""
    client_id = resolve_one(client, "script.aladin.send", to, "Aladin")
    result = call_for_result(client, client_id, "script.aladin.send", timeout, {"script": script})
    return str(result.get(_content_key(result, ("script.result",), client_name(client, client_id)), ""))
