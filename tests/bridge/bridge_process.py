"""Run one bridge whose peer uses the other end of an inherited socket: ``bridge_process LOCKFILE FD``."""

from __future__ import annotations

import socket
import sys

from pyvo.samp import Bridge
from pyvo.samp.bridge.link import Accept, Hello, LinkState, Report, Transport
from pyvo.samp.bridge.local_pair import SocketStream
from pyvo.samp.bridge.stream_link import StreamLink


class InheritedSocket(Transport):
    """A transport with one link, over a socket."""

    label = "test"

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.link: StreamLink | None = None

    def start(self, hello: Hello, accept: Accept, report: Report) -> None:

        def on_end(reason: str, status: int) -> None:
            report(LinkState.FAILED, reason, status)

        self.link = StreamLink(SocketStream(self.sock), hello, accept, is_first=True, on_end=on_end)
        self.link.start()

    def stop(self, reason: str = "") -> None:
        if self.link is not None:
            self.link.close(reason)
            self.link.join(5.0)
        self.sock.close()


def main() -> None:
    bridge = Bridge(sys.argv[1], InheritedSocket(socket.socket(fileno=int(sys.argv[2]))))
    bridge.start()
    print("started", flush=True)
    bridge.wait()
    bridge.stop()
    print("stopped:", bridge.reason, flush=True)


if __name__ == "__main__":
    main()
