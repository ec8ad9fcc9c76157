# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Parse and check timeouts that a program passes or that a request contains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..errors import SAMPValueError
from .values import parse_float


def parse_timeout(timeout: str | float) -> float:
    """Return a timeout in seconds; 0 means no limit. Raise `SAMPValueError` unless it is a finite number."""
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise SAMPValueError(f"A timeout is a number of seconds (0: no limit), not {timeout!r}")
    return seconds


def hub_timeout(timeout: str | float) -> float:
    """
    Return a timeout in seconds to pass to the hub.

    A negative one becomes 1 s, the shortest that the hub accepts: it takes whole seconds, and 0 means no limit.
    """
    seconds = parse_timeout(timeout)
    return seconds if seconds >= 0 else 1.0


def to_whole_seconds(timeout: str | float) -> int:
    """Return a timeout in whole seconds, as the standard requires (R22). It is rounded up, because 0 means no limit."""
    return max(0, math.ceil(parse_timeout(timeout)))


def parse_samp_timeout(text: str, limit: float) -> float:
    """Return the timeout in a request to the hub, a SAMP int or float (R3), in seconds; at most ``limit``."""
    return min(parse_float(text.strip()), limit)


class Deadline:
    """The end of a wait that begins now; ``timeout`` is what `parse_timeout` accepts."""

    def __init__(self, timeout: str | float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: The timeout in seconds.
        self.seconds = parse_timeout(timeout)
        self._end = clock() + self.seconds if self.seconds else None

    @property
    def remaining(self) -> float | None:
        """The seconds until the end, at least 0; None without a limit."""
        return None if self._end is None else max(0.0, self._end - self._clock())
