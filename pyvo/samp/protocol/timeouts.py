# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""How long to wait: one reading of what a program gives as a time-out."""

from __future__ import annotations

import math
import time

from ..errors import SAMPValueError

__all__ = ["Deadline", "hub_timeout", "parse_timeout"]


def parse_timeout(timeout: str | float) -> float:
    """
    Read a time-out.

    Parameters
    ----------
    timeout : str, int or float
        Seconds; 0 is no limit, and less than 0 no time at all.

    Returns
    -------
    float
        The seconds.

    Raises
    ------
    SAMPValueError
        It is no finite number.
    """
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise SAMPValueError(f"A timeout is a number of seconds (0: no limit), not {timeout!r}")
    return seconds


def hub_timeout(timeout: str | float) -> float:
    """
    Read a time-out for the hub, which knows none shorter than a second.

    Parameters
    ----------
    timeout : str, int or float
        As of `seconds_of`.
    """
    seconds = parse_timeout(timeout)
    return seconds if seconds >= 0 else 1.0


class Deadline:
    """
    The end of a wait that begins now.

    Parameters
    ----------
    timeout : str, int or float
        As of `seconds_of`.
    """

    def __init__(self, timeout: str | float) -> None:
        #: The time-out in seconds, as it was given.
        self.seconds = parse_timeout(timeout)
        self._end = time.monotonic() + self.seconds if self.seconds else None

    @property
    def remaining(self) -> float | None:
        """Seconds that are left, 0 if none are; None if there is no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())
