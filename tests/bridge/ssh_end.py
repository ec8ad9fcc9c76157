"""
The other end of a link, for the tests of `SSHTransport`. It takes the place of ``samp`` on the other machine.

``python ssh_end.py BEHAVIOUR FILE bridge --stdio ...`` writes its arguments to the file, and returns all messages.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pyvo.samp.bridge.link import Hello, Kind, Link, LinkState, Upload
from pyvo.samp.bridge.stdio import NO_HUB, StdioTransport


class EchoHandler:
    """Sends each message back, and serves one file."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def receive(self, kind: Kind, payload: bytes, done: Callable[[], object]) -> None:
        self.link.send(kind, payload)
        done()

    def serve(self, offer: str, method: str, headers: dict[str, str], upload: Upload) -> None:
        threading.Thread(target=self._serve, args=(upload,), daemon=True).start()

    def _serve(self, upload: Upload) -> None:
        try:
            upload.send_head(200, [("Content-Length", "100000000")])
            for _ in range(100):
                upload.sendall(bytes(1_000_000))
            upload.finish(complete=True)
        except OSError:
            upload.finish(complete=False)

    def on_writable(self) -> None:
        """Do nothing: no message waits."""

    def on_closed(self, reason: str) -> None:
        """Do nothing: the transport reports the end, too."""


def main(behaviour: str, path: str, arguments: list[str]) -> int:
    with Path(path).open("a") as file:
        file.write(json.dumps([os.getpid(), *arguments]) + "\n")
    if behaviour == "noise":
        print("Welcome!\x1b[31m", flush=True)
    if behaviour == "much noise":
        print("noise" * 20_000, flush=True)
        sys.stdin.read()
    if behaviour == "silent":
        print("only this", flush=True)
        sys.stdin.read()
    print("a line\x1b[31m", file=sys.stderr, flush=True)
    transport = StdioTransport()
    if behaviour == "no hub":
        transport.reject("No SAMP hub is running.", NO_HUB)
        return 3
    ended = threading.Event()

    def report(state: LinkState, text: str, status: int) -> None:
        if state is LinkState.FAILED:
            ended.set()

    protocol = (7, 7) if behaviour == "version" else (1, 1)
    transport.start(Hello(protocol, "1.0", "1" * 32, "there"), EchoHandler, report)
    print("this must not reach the link", flush=True)
    ended.wait()
    transport.stop()
    transport.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
