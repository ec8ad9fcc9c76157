# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The exceptions of this package.

All exceptions that it raises intentionally derive from `SAMPError`::

    SAMPError
    +-- SAMPHubError          no hub is running, a hub cannot start, the hub has stopped
    +-- SAMPClientError       misuse of a client: it is not registered, a name does not exist
    +-- SAMPProxyError        the response of the hub or of a client is an XML-RPC fault
    |                         (also an ``xmlrpc.client.Fault``)
    +-- SAMPTransportError    a socket or HTTP error below XML-RPC
    +-- SAMPResponseError     another client responded with an error
    +-- SAMPTimeoutError      a timeout expired (also a ``TimeoutError``)
    +-- SAMPTypeError         an object is not a SAMP value (also a ``TypeError``)
    +-- SAMPValueError        a value is not valid (also a ``ValueError``)

    SAMPWarning               an operation succeeded, but with limitations
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
    """An operation succeeded, but with limitations."""


class SAMPError(Exception):
    """Base class of all exceptions that this package raises intentionally."""


class SAMPHubError(SAMPError):
    """No hub is running, a hub cannot start, or the hub has stopped."""


class SAMPClientError(SAMPError):
    """A client was used incorrectly, for example before it was registered."""


class SAMPProxyError(SAMPError, Fault):
    """
    The response of the hub or of a client is an XML-RPC fault.

    Parameters
    ----------
    faultCode : int
        Number of the fault.
    faultString : str
        Description of the problem for the user.
    """

    def __init__(self, faultCode: int, faultString: str) -> None:  # noqa: N803 - names of xmlrpc.client.Fault
        Fault.__init__(self, faultCode, faultString)

    def __str__(self) -> str:
        return str(self.faultString)

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.faultCode, self.faultString)


class SAMPTransportError(SAMPError):
    """
    A socket or HTTP error occurred.

    Parameters
    ----------
    text : str
        Description of the problem and of the connection.
    sent : bool
        Whether the peer may have received the request. In this case it must not be sent again, because the message
        could be delivered twice.
    refused : bool
        Whether no program listens on the address, because the program has ended.
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
        The name of the client and its error text.
    response : dict
        The response (R17).
    """

    def __init__(self, text: str, response: dict[str, Any]) -> None:
        super().__init__(text)
        self.response = response

    def __reduce__(self) -> tuple[type, tuple[str, dict[str, Any]]]:
        return type(self), (str(self), self.response)


class SAMPTimeoutError(SAMPError, TimeoutError):
    """A timeout expired."""


class SAMPTypeError(SAMPError, TypeError):
    """An object cannot be converted to a SAMP value (a string, list or map, see rule R1)."""


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


class _WarningFilters:
    """The number of threads that ignore warnings, and the saved filters."""

    lock = threading.Lock()
    users = 0
    saved: warnings.catch_warnings[None] | None = None


@contextmanager
def without_warnings() -> Iterator[None]:
    """
    Ignore the warnings of other packages for the duration of a ``with`` block; `SAMPWarning` is still shown.

    All threads share the filters of `warnings`. Therefore they are changed when the first thread enters such a block,
    and restored when the last thread leaves it. If each thread saved and restored them, a thread could restore filters
    that another thread has changed.
    """
    with _WarningFilters.lock:
        if not _WarningFilters.users:
            action = next((entry[0] for entry in warnings.filters if _is_for_samp(entry)), "default")
            _WarningFilters.saved = warnings.catch_warnings()
            _WarningFilters.saved.__enter__()
            warnings.simplefilter("ignore")
            warnings.simplefilter(action, SAMPWarning)  # type: ignore[arg-type]
        _WarningFilters.users += 1
    try:
        yield
    finally:
        with _WarningFilters.lock:
            _WarningFilters.users -= 1
            if not _WarningFilters.users and _WarningFilters.saved is not None:
                _WarningFilters.saved.__exit__(None, None, None)


def _is_for_samp(entry: tuple[Any, ...]) -> bool:
    """Return whether an entry of `warnings.filters` applies to every `SAMPWarning`."""
    return entry[1] is None and entry[3] is None and not entry[4] and issubclass(SAMPWarning, entry[2])
