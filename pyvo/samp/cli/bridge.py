# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""``samp bridge`` joins hubs: the clients of each appear at the others."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any, NamedTuple

from ..bridge import Bridge, BridgeState, LocalPair, Policy, RemoteClient
from ..lockfile import LOCKURL, display_path
from .arguments import Command, pattern
from .client_session import get_interruptible
from .output import Status, help_epilog, sanitize

__all__ = ["COMMANDS"]

_EPILOG = help_epilog(
    """\
  samp bridge --between ~/.samp ~/.samp-1/samp-hub     two hubs of this machine
""",
    {
        Status.OK: None,
        Status.FAILED: "the bridge has ended; standard error has the reason",
        Status.USAGE: "",
        Status.NO_HUB: "",
    },
)


class _Event(NamedTuple):
    """Something that is printed: a new state of a bridge, or a client that has come or gone."""

    bridge: str
    item: BridgeState | RemoteClient
    text: str


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--between",
        nargs=2,
        metavar=("LOCKURL", "LOCKURL"),
        help="join two hubs of this machine, by the paths or URLs of their lockfiles",
    )
    group = parser.add_argument_group("what may pass")
    for name, direction in (("in", "come in from the other side"), ("out", "go out to the other side")):
        group.add_argument(
            f"--allow-{name}",
            nargs="+",
            action="extend",
            default=[],
            type=pattern,
            metavar="MTYPE",
            help=f"messages that may {direction}, in addition to those about tables, images and the like",
        )
    group.add_argument("--no-files", action="store_true", help="pass on no files and URLs of this machine")
    parser.add_argument("--label", metavar="TEXT", help="how the other side shows this one")


def _run(options: argparse.Namespace) -> int:
    if not options.between:
        options.parser.error("--between needs the lockfiles of two hubs")
    return _run_between(options)


def _run_between(options: argparse.Namespace) -> int:
    """Join two hubs of this machine: two engines in this process."""
    first, second = (display_path(each.removeprefix(LOCKURL)) for each in options.between)
    pair = LocalPair((options.label or first, second))
    events: SimpleQueue[_Event] = SimpleQueue()
    # What comes in at the first hub goes out at the second
    policies = _policy(options), Policy(options.allow_out, options.allow_in, files=not options.no_files)
    bridges = [
        _bridge(lockfile, end, policy, events, name)
        for lockfile, end, policy, name in zip(options.between, pair.ends, policies, (first, second), strict=True)
    ]
    return _run_bridges(bridges, events)


def _policy(options: argparse.Namespace) -> Policy:
    return Policy(options.allow_in, options.allow_out, files=not options.no_files)


def _bridge(local: Any, transport: Any, policy: Policy, events: SimpleQueue[_Event], name: str) -> Bridge:
    """Make a bridge that reports its events."""

    def on_client(client: RemoteClient, is_present: bool) -> None:
        events.put(_Event(name, client, "is here" if is_present else "has gone"))

    return Bridge(
        local,
        transport,
        policy,
        on_state=lambda state, text: events.put(_Event(name, state, text)),
        on_client=on_client,
    )


def _run_bridges(bridges: list[Bridge], events: SimpleQueue[_Event]) -> int:
    """Run bridges until one of them fails, or ^C; print their events."""
    with ExitStack() as stack:
        for bridge in bridges:
            stack.callback(bridge.stop)
            bridge.start()
        while True:
            event = get_interruptible(events)
            _print_event(event)
            if event.item is BridgeState.FAILED:
                return max(bridge.exit_status for bridge in bridges) or Status.FAILED


def _print_event(event: _Event) -> None:
    if isinstance(event.item, RemoteClient):
        client = event.item
        print(f"{sanitize(event.bridge, 60)}: {client.name} (via {client.peer}) {event.text}", flush=True)
    elif event.text:
        print(f"{sanitize(event.bridge, 60)}: {sanitize(event.text, 300)}", flush=True)


COMMANDS = {"bridge": Command(_add_arguments, _run, _EPILOG)}
