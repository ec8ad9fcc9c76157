# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""The end of a link that ssh has started on this machine; the link uses standard input and output."""

from __future__ import annotations

import os
import threading

from .framing import PREAMBLE, encode_frame
from .link import Accept, Hello, Kind, LinkState, Report, Transport, encode_json
from .pipes import PipeStream
from .stream_link import StreamLink

#: Status of BYE if no hub is running here (EX_TEMPFAIL of sysexits.h). The other end may try again.
NO_HUB = 75
#: Seconds to wait until the other end closes a rejected link.
REJECT_TIMEOUT = 2.0
#: Seconds for the threads of the link to end.
JOIN_TIMEOUT = 5.0


class StdioTransport(Transport):
    """
    Connects a bridge to the one that has started this process.

    It uses the standard streams for the link: later output of the process goes to standard error, so that it cannot be
    mistaken for frames. There is only one link. When it ends, the transport reports `LinkState.FAILED`, with status 0
    if there was no error.
    """

    def __init__(self) -> None:
        self._stream = PipeStream(os.dup(0), os.dup(1))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        self._link: StreamLink | None = None

    def start(self, hello: Hello, accept: Accept, report: Report) -> None:
        """Start the link."""
        report(LinkState.CONNECTING, "", 0)
        self._link = StreamLink(
            self._stream, hello, accept,
            is_first=False, on_end=lambda reason, status: report(LinkState.FAILED, reason, status),
        )  # fmt: skip
        self._link.start()

    def stop(self, reason: str = "") -> None:
        """Close the link."""
        if self._link is not None:
            self._link.close(reason)
            self._link.join(JOIN_TIMEOUT)

    def reject(self, reason: str, status: int) -> None:
        """Send the reason why there is no link to the other end, and wait until it closes."""
        bye = encode_json({"reason": reason, "status": status})
        self._stream.write(PREAMBLE + encode_frame(Kind.BYE, bye))
        timer = threading.Timer(REJECT_TIMEOUT, self._stream.interrupt)
        timer.start()
        while self._stream.read(65536):
            pass
        timer.cancel()
        timer.join()

    def close(self) -> None:
        """Close the descriptors; the process is about to end."""
        self._stream.close()
