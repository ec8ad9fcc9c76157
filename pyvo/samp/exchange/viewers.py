# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Positions, and the languages of DS9 and Aladin."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from astropy import units as u

from ..client.lookup import ClientRef, client_name, resolve_one
from ..errors import SAMPClientError, SAMPProxyError, SAMPResponseError, SAMPTimeoutError, SAMPValueError, warn
from ..formats.fetching import local_copy
from ..formats.model import Sender
from ..formats.readers import attach_source, read_image, read_position
from ..protocol import best_match
from ..protocol.timeouts import Deadline, hub_timeout
from .reports import response_error_text

if TYPE_CHECKING:
    from ..client.messaging import MessagingClient

__all__ = ["DS9", "call_for_result", "get_position", "run_aladin_script", "to_skycoord"]

#: Files that DS9 8.4.1 writes for its responses and leaves behind. Binary ones have no further suffix.
_MADE_BY_DS9 = re.compile(r"ds9\d{9,}\.xpa(\.\w+)?", re.ASCII)
#: What no text contains; DS9 writes form feeds between pages.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")


def call_for_result(
    client: MessagingClient, client_id: str, mtype: str, timeout: str | float, params: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Call a client and return its result.

    Parameters
    ----------
    client : SAMPIntegratedClient
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
    SAMPTimeoutError
        It did not answer in time.

    Warns
    -----
    SAMPWarning
        It answered with a warning.
    """
    message = {"samp.mtype": mtype, "samp.params": dict(params)}
    deadline = Deadline(hub_timeout(timeout))
    try:
        response = client.call_and_wait(client_id, message, deadline.seconds)
    except SAMPProxyError as fault:
        if deadline.remaining != 0:
            raise
        question = f" {params['cmd']!r}" if "cmd" in params else ""
        raise SAMPTimeoutError(
            f"{client_name(client, client_id)} has not answered {mtype}{question} within {deadline.seconds:g} s"
        ) from fault
    error_text = response_error_text(response)
    if response.get("samp.status") == "samp.error":
        raise SAMPResponseError(f"{client_name(client, client_id)} answered {mtype}: {error_text}", response)
    if error_text:
        warn(f"{client_name(client, client_id)} answered {mtype} with a warning: {error_text}")
    result = response.get("samp.result")
    return result if isinstance(result, dict) else {}


def _one_of(result: Mapping[str, Any], keys: Collection[str], who: str) -> str:
    """
    The one key under which a result has its content; empty if the result has none.

    What is in a result under other keys is an error where it would be all that there is, or else a warning: nobody
    would miss it otherwise.
    """
    filled = [key for key in keys if result.get(key)]
    rest = [key for key in result if key not in keys or key in filled[1:]]
    if rest and not filled:
        raise SAMPClientError(f"{who} answered with {', '.join(rest)}, not with {' or '.join(keys)}: {dict(result)}")
    if rest:
        warn(f"{who} answered with more than {filled[0]}; this is not returned: {', '.join(rest)}")
    return filled[0] if filled else ""


def _answer_of_ds9(result: Mapping[str, Any], who: str) -> Any:
    """What DS9 answers: a short text as value, or a file that a URL names."""
    key = _one_of(result, ("value", "url"), who)
    if key != "url":
        return str(result.get(key, "")).strip()
    url = str(result["url"]).strip()
    try:
        with local_copy(url) as path:
            answer = _content(path, Path(urlsplit(url).path).name)
            _remove_if_made_by_ds9(path)
            return answer
    except Exception as error:  # of astropy, about what is no FITS file
        raise SAMPClientError(f"The file that {who} answered with cannot be read: {error}") from error


def _content(path: Path, name: str) -> Any:
    """Text as str, FITS as HDUList, anything else as bytes."""
    content = path.read_bytes()
    made_by_ds9 = _MADE_BY_DS9.fullmatch(name)
    # the answer to "fits header" is a text with a line for each card
    if content.startswith(b"SIMPLE  =") and b"\n" not in content[:2880]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file that others wrote nobody here is to blame
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
    Remove a file that DS9 has made for one response: it does not do so itself.

    Any client may name any file. So only a file that is the user's own and is named like those of DS9 is removed.
    """
    if _MADE_BY_DS9.fullmatch(path.name) is None:
        return
    status = path.lstat()
    if stat.S_ISREG(status.st_mode) and (os.name == "nt" or status.st_uid == os.getuid()):
        path.unlink(missing_ok=True)


def to_skycoord(position: Any) -> Any:
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


def get_position(client: MessagingClient, who: ClientRef | None, timeout: str | float) -> Any:
    """Ask a viewer where it looks; see `Exchange.get_position`."""
    # DS9 has no message for that, but a command
    mtype = "coord.get.sky" if who is not None or client.get_subscribed_clients("coord.get.sky") else "ds9.get"
    client_id = resolve_one(client, mtype, who, "Aladin")
    if best_match(client.get_subscriptions(client_id), "coord.get.sky") is None:
        result = call_for_result(client, client_id, "ds9.get", timeout, {"cmd": "pan wcs fk5 degrees"})
        numbers = str(_answer_of_ds9(result, client_name(client, client_id))).split()
        if len(numbers) != 2:
            raise SAMPClientError(f"{client_name(client, client_id)} shows nothing that has a position")
        result = {"ra": numbers[0], "dec": numbers[1]}
    else:
        result = call_for_result(client, client_id, "coord.get.sky", timeout, {})
    return attach_source(read_position(result), Sender(client_id, client_name(client, client_id)), "", "coord.get.sky")


class DS9:
    """
    DS9 by its own commands: ``client.ds9("zoom to fit")``, ``client.ds9.get("pan wcs fk5 degrees")``.

    Parameters
    ----------
    client : SAMPIntegratedClient
        Who commands.
    """

    def __init__(self, client: MessagingClient) -> None:
        self._client = client

    def __call__(
        self, cmd: str, *, to: ClientRef | None = None, url: str | None = None, timeout: str | float = 30.0
    ) -> None:
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
        client_id = resolve_one(self._client, "ds9.set", to, "DS9")
        call_for_result(self._client, client_id, "ds9.set", timeout, {"cmd": cmd, **({"url": url} if url else {})})

    def get(self, cmd: str, *, to: ClientRef | None = None, timeout: str | float = 30.0) -> Any:
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
        str, HDUList or bytes
            The answer; empty if DS9 has nothing to tell. DS9 writes long answers to a file: text (``"regions"``,
            ``"fits header"``, ``"data image 1 1 3 3 yes"``) comes as `str`, FITS (``"fits"``) as
            `~astropy.io.fits.HDUList`, anything else (``"png"``, ``"array"``, ``"nrrd"``) as `bytes`. DS9 leaves the
            file behind; it is removed when it has been read.

        Raises
        ------
        SAMPResponseError
            DS9 answered with an error.
        SAMPTimeoutError
            DS9 did not answer. It never answers what it does not know, nor while it asks the user something.
        SAMPClientError
            The file that DS9 named cannot be read: it shows nothing of that kind.
        """
        client_id = resolve_one(self._client, "ds9.get", to, "DS9")
        result = call_for_result(self._client, client_id, "ds9.get", timeout, {"cmd": cmd})
        return _answer_of_ds9(result, client_name(self._client, client_id))


def run_aladin_script(client: MessagingClient, script: str, who: ClientRef | None, timeout: str | float) -> str:
    """Have Aladin run a script; see `Exchange.aladin`."""
    client_id = resolve_one(client, "script.aladin.send", who, "Aladin")
    result = call_for_result(client, client_id, "script.aladin.send", timeout, {"script": script})
    return str(result.get(_one_of(result, ("script.result",), client_name(client, client_id)), ""))
