# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Viewers: the position that they show, and the commands of DS9 and Aladin.

What takes long to import, astropy.io and astropy.coordinates, is imported when a file or position has to be read: most
commands need neither.
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

#: Files that DS9 8.4.1 writes for its responses and leaves behind. Binary ones have no further suffix.
_MADE_BY_DS9 = re.compile(r"ds9\d{9,}\.xpa(\.\w+)?", re.ASCII)
#: Characters that no text contains; DS9 writes form feeds between pages.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def call_for_result(
    client: MessagingClient, client_id: str, mtype: str, timeout: str | float, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Call a client and return its ``samp.result``; raise SAMPResponseError or SAMPTimeoutError, or warn."""
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
    Return the key under which a result has its content; empty if the result has none.

    Content under other keys would be lost: that is an error if there is nothing else, and a warning otherwise.
    """
    filled = [key for key in keys if result.get(key)]
    rest = [key for key in result if key not in keys or key in filled[1:]]
    if rest and not filled:
        found, wanted = ", ".join(rest), " or ".join(keys)
        raise SAMPClientError(f"{program} responded with {found}, not with {wanted}: {dict(result)}")
    if rest:
        warn(f"{program} responded with more than {filled[0]}; this is not returned: {', '.join(rest)}")
    return filled[0] if filled else ""


def _ds9_content(client: MessagingClient, result: Mapping[str, Any], program: str) -> Any:
    """Return the content of a result of DS9: a short text is its value, anything else is in a file that it names."""
    key = _content_key(result, ("value", "url"), program)
    if key != "url":
        return str(result.get(key, "")).strip()
    url = str(result["url"]).strip()
    try:
        with local_copy(url, download=client.hub.download) as path:
            content = _read_content(path, Path(urlsplit(url).path).name)
            _remove_if_made_by_ds9(path)
            return content
    except Exception as error:  # of astropy, about a file that is no FITS file
        raise SAMPClientError(f"The file in the response of {program} cannot be read: {error}") from error


def _read_content(path: Path, name: str) -> Any:
    """Read text as str, FITS as HDUList, anything else as bytes."""
    content = path.read_bytes()
    made_by_ds9 = _MADE_BY_DS9.fullmatch(name)
    # the result of "fits header" is a text with a line for each card
    if content.startswith(b"SIMPLE  =") and b"\n" not in content[:2880]:
        from ..formats.readers import read_image  # noqa: PLC0415

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities in a file of another program
            return read_image(path)
    if made_by_ds9 and made_by_ds9[1] is None:  # pixels may look like text
        return content
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        # what DS9 writes in a locale that is not UTF-8
        return content.decode("latin-1") if made_by_ds9 else content
    return content if _CONTROL.search(text) and not made_by_ds9 else text


def _remove_if_made_by_ds9(path: Path) -> None:
    """
    Remove a file that DS9 has made for one response, because DS9 does not.

    Any client may name any file. So only a file of the user's own with a name like those of DS9 is removed.
    """
    if _MADE_BY_DS9.fullmatch(path.name) is None:
        return
    status = path.lstat()
    if stat.S_ISREG(status.st_mode) and (os.name == "nt" or status.st_uid == os.getuid()):
        path.unlink(missing_ok=True)


def to_skycoord(position: Any) -> Any:
    """Make a SkyCoord of a text in degrees or hours (``"5h34m32s +22d00m52s"``), of two numbers in degrees..."""
    from astropy.coordinates import SkyCoord  # noqa: PLC0415

    if isinstance(position, str):
        in_hours = ":" in position or (len(position.split()) > 2)
        return SkyCoord(position, unit=("hourangle", "deg") if in_hours else "deg")
    if isinstance(position, tuple | list):
        if len(position) != 2:
            raise SAMPValueError("A position has two coordinates")
        return SkyCoord(*position, unit="deg")
    coordinates = SkyCoord(position)
    if coordinates.size != 1:
        raise SAMPValueError(f"One position can be pointed at, not {coordinates.size}")
    return coordinates


def get_position(client: MessagingClient, viewer: ClientRef | None, timeout: str | float) -> Any:
    """Ask a viewer for the position that it shows; see `ExchangeMixin.get_position`."""
    from ..formats.readers import attach_source, read_position  # noqa: PLC0415

    # DS9 has no message for that, but a command
    mtype = "coord.get.sky" if viewer is not None or client.get_subscribed_clients("coord.get.sky") else "ds9.get"
    client_id = resolve_one(client, mtype, viewer, "Aladin")
    if best_match(client.get_subscriptions(client_id), "coord.get.sky") is None:
        result = call_for_result(client, client_id, "ds9.get", timeout, {"cmd": "pan wcs fk5 degrees"})
        numbers = str(_ds9_content(client, result, client_name(client, client_id))).split()
        if len(numbers) != 2:
            raise SAMPClientError(f"{client_name(client, client_id)} shows nothing that has a position")
        result = {"ra": numbers[0], "dec": numbers[1]}
    else:
        result = call_for_result(client, client_id, "coord.get.sky", timeout, {})
    return attach_source(read_position(result), Sender(client_id, client_name(client, client_id)), "", "coord.get.sky")


class DS9:
    """
    DS9, controlled by its own commands: ``client.ds9("zoom to fit")``, ``client.ds9.get("pan wcs fk5 degrees")``.

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
            A command, as for ``xpaset``.
        to : str or entry of ``client.clients``, optional
            The DS9; by default the only one.
        url : str, optional
            URL of the file for the command.
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
        Ask DS9 for a value or file.

        Parameters
        ----------
        cmd : str
            A command, as for ``xpaget``.
        to : str or entry of ``client.clients``, optional
            The DS9; by default the only one.
        timeout : str, int or float
            Seconds to wait for the response; 0: no limit.

        Returns
        -------
        str, HDUList or bytes
            The result; empty if DS9 returns none. DS9 writes long results to a file: text (``"regions"``,
            ``"fits header"``, ``"data image 1 1 3 3 yes"``) comes as `str`, FITS (``"fits"``) as
            `~astropy.io.fits.HDUList`, anything else (``"png"``, ``"array"``, ``"nrrd"``) as `bytes`. DS9 leaves the
            file behind; it is removed when it has been read.

        Raises
        ------
        SAMPResponseError
            DS9 responded with an error.
        SAMPTimeoutError
            DS9 did not respond. It never responds to unknown commands, nor while a dialog is open.
        SAMPClientError
            The file that DS9 named cannot be read, because DS9 shows nothing of that kind.
        """
        client_id = resolve_one(self._client, "ds9.get", to, "DS9")
        result = call_for_result(self._client, client_id, "ds9.get", timeout, {"cmd": cmd})
        return _ds9_content(self._client, result, client_name(self._client, client_id))


def run_aladin_script(client: MessagingClient, script: str, to: ClientRef | None, timeout: str | float) -> str:
    """Run a script in Aladin; see `ExchangeMixin.aladin`."""
    client_id = resolve_one(client, "script.aladin.send", to, "Aladin")
    result = call_for_result(client, client_id, "script.aladin.send", timeout, {"script": script})
    return str(result.get(_content_key(result, ("script.result",), client_name(client, client_id)), ""))
