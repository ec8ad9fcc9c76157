# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The exceptions of this package.

All that it raises on purpose derives from `SAMPError`::

    SAMPError
    +-- SAMPHubError          no hub is running, a hub cannot start, the hub has stopped
    +-- SAMPClientError       misuse on the client side: not registered, no such name
    +-- SAMPProxyError        the response of the hub or of a client is an XML-RPC fault
    |                         (also an ``xmlrpc.client.Fault``)
    +-- SAMPTransportError    a socket or HTTP failed below XML-RPC
    +-- SAMPResponseError     another client responded with an error
    +-- SAMPTimeoutError      something did not happen in time (also a ``TimeoutError``)
    +-- SAMPTypeError         not a SAMP value (also a ``TypeError``)
    +-- SAMPValueError        not a valid SAMP value (also a ``ValueError``)

    SAMPWarning               something works less well than it should
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xmlrpc.client import Fault

from astropy.utils.exceptions import AstropyUserWarning

__all__ = [
    "SAMPClientError",
    "SAMPError",
    "SAMPHubError",
    "SAMPProxyError",
    "SAMPResponseError",
    "SAMPTimeoutError",
    "SAMPTransportError",
    "SAMPTypeError",
    "SAMPValueError",
    "SAMPWarning",
    "warn",
    "without_warnings",
]


class SAMPWarning(AstropyUserWarning):
    """Something works, but less well than it should."""


class SAMPError(Exception):
    """Base of every exception that this package raises on purpose."""


class SAMPHubError(SAMPError):
    """No hub is running, a hub cannot start, or the hub has stopped."""


class SAMPClientError(SAMPError):
    """A client was used in a way that cannot work, such as before it is registered."""


class SAMPProxyError(SAMPError, Fault):
    """
    The response of the hub, or of a client, is an XML-RPC fault.

    Parameters
    ----------
    faultCode : int
        Number of the fault.
    faultString : str
        What went wrong, for the user.
    """

    def __init__(self, faultCode: int, faultString: str) -> None:  # noqa: N803 - names of xmlrpc.client.Fault
        Fault.__init__(self, faultCode, faultString)

    def __str__(self) -> str:
        return str(self.faultString)

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.faultCode, self.faultString)


class SAMPTransportError(SAMPError):
    """
    A socket or HTTP failed.

    Parameters
    ----------
    text : str
        What happened, and in which connection.
    sent : bool
        Whether the other side may have received the request. Then it must not be sent again: the message could be
        delivered twice.
    refused : bool
        Whether no program listens at the address, because it has ended.
    """

    def __init__(self, text: str, *, sent: bool = False, refused: bool = False) -> None:
        super().__init__(text)
        self.sent = sent
        self.refused = refused


class SAMPResponseError(SAMPError):
    """
    Another client responded with an error (``samp.error``).

    Parameters
    ----------
    text : str
        The name of the client, and its error text.
    response : dict
        The response (R17).
    """

    def __init__(self, text: str, response: dict[str, Any]) -> None:
        super().__init__(text)
        self.response = response

    def __reduce__(self) -> tuple[type, tuple[str, dict[str, Any]]]:
        return type(self), (str(self), self.response)


class SAMPTimeoutError(SAMPError, TimeoutError):
    """Something did not happen within a timeout."""


class SAMPTypeError(SAMPError, TypeError):
    """An object cannot be written as a SAMP value (rule R1: string, list or map)."""


class SAMPValueError(SAMPError, ValueError):
    """A value has the right type, but its content is not valid."""


def warn(text: str) -> None:
    """
    Issue a `SAMPWarning` that points to the line of the program that called this package.

    Parameters
    ----------
    text : str
        The text of the warning.
    """
    own = __name__.rpartition(".")[0]
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(own):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SAMPWarning, stacklevel=level)


class _Silence:
    """Whether warnings are ignored, and by how many threads."""

    lock = threading.Lock()
    users = 0
    saved: warnings.catch_warnings[None] | None = None


@contextmanager
def without_warnings() -> Iterator[None]:
    """
    Ignore the warnings of other packages for the length of a ``with`` block; `SAMPWarning` is still shown.

    The filters of `warnings` belong to all threads. So they are changed when the first thread enters such a block, and
    restored when the last one leaves: if each thread saved and restored them, one could restore what another has
    changed.
    """
    with _Silence.lock:
        if not _Silence.users:
            action = next((entry[0] for entry in warnings.filters if _is_for_samp(entry)), "default")
            _Silence.saved = warnings.catch_warnings()
            _Silence.saved.__enter__()
            warnings.simplefilter("ignore")
            warnings.simplefilter(action, SAMPWarning)  # type: ignore[arg-type]
        _Silence.users += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.users -= 1
            if not _Silence.users and _Silence.saved is not None:
                _Silence.saved.__exit__(None, None, None)


def _is_for_samp(entry: tuple[Any, ...]) -> bool:
    """Whether an entry of `warnings.filters` is for every `SAMPWarning`."""
    return entry[1] is None and entry[3] is None and not entry[4] and issubclass(SAMPWarning, entry[2])
