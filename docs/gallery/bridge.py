"""Join two hubs of this computer: the clients of each hub appear at the other. Stop it with ^C."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress

from pyvo.samp.bridge import Bridge, LocalPair, RemoteClient


def report(client: RemoteClient, is_there: bool) -> None:
    """Print which clients come and go."""
    print(f"{'+' if is_there else '-'} {client.name}", flush=True)


def main(first: str, second: str) -> None:
    """Join the hubs with these lockfiles until ^C."""
    pair = LocalPair(("one", "two"))
    with ExitStack() as stack:
        bridges = [Bridge(hub, end, on_client=report) for hub, end in zip((first, second), pair.ends, strict=True)]
        for bridge in bridges:
            stack.callback(bridge.stop)
            bridge.start()
        with suppress(KeyboardInterrupt):
            bridges[0].wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
